//! What follows from a row whose bytes are lost with a part of the log, when it is replaced,
//! deleted or forgotten: each test is named after a wrong answer, or an opening, that it cost.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use rmpv::Value;
use waferdb::clock::{ManualClock, SeededRandom};
use waferdb::database::Database;
use waferdb::error::{ErrorKind, Result};
use waferdb::log::{Pointer, segment};
use waferdb::options::{Mode as Opening, Options};
use waferdb::reader::{Page, Reader};
use waferdb::schema::Schema;
use waferdb::storage::simulated::SimulatedStorage;
use waferdb::transaction::{Mode, Precondition, Transaction, TransactionOptions};

const TEXT: &str = "sixty-four bytes and some more, so that the value lies in the log itself";
const FACTS: u32 = 1;
const PROFILE: u32 = 2;
const TALLY: u32 = 3;
const TOTALS: u32 = 4;
const RECENT: u32 = 5;
const BEST: u32 = 6;

fn schema(policy: &str) -> String {
    let view = |name: &str, function: &str| {
        format!(
            r#"{{"name":"{name}","kind":"view","source":"facts","by":["user"],
            "function":{function}}}"#
        )
    };
    format!(
        r#"{{"structures":[{{"name":"facts","kind":"rows","codec":"msgpack","policy":{policy},
        "indexes":[["user"],["n","user"]],"unique":[["code"]]}},{},{},{},{},{}]}}"#,
        view("profile", r#"{"name":"custom"}"#),
        view("tally", r#"{"name":"count"}"#),
        view("totals", r#"{"name":"sum","field":"n"}"#),
        view("recent", r#"{"name":"latest","n":5}"#),
        view("best", r#"{"name":"top","n":5,"by":"n"}"#),
    )
}

/// A database whose log can lose values, under one schema.
struct Lossy {
    storage: SimulatedStorage,
    schema: String,
    db: Database,
    /// Which commits lost their value, and where.
    lost: Vec<(u64, Pointer)>,
}

impl Lossy {
    fn new(schema: String) -> Self {
        let storage = SimulatedStorage::new(0);
        let db = open(&storage, &schema);
        Self { storage, schema, db, lost: Vec::new() }
    }

    /// The last value of these commits is lost from now on.
    fn lose(&mut self, lsns: &[u64]) {
        self.db.flush_memtables().unwrap();
        let place = |lsn: &u64| (*lsn, self.db.shared().place_of(*lsn).unwrap().unwrap());
        self.lost = lsns.iter().map(place).collect();
        self.flip();
    }

    /// Damages the closed log, or undoes that.
    fn flip(&mut self) {
        self.db.close().unwrap();
        for (_, place) in &self.lost {
            let last = place.offset + u64::from(place.length) - 1;
            self.storage.flip(&segment::path(place.segment), last, 0x10);
        }
        self.db = open(&self.storage, &self.schema);
    }

    /// Asks, and asks again after a power cut: what it asks of is then made by a replay.
    fn now_and_replayed(&mut self, ask: impl Fn(&Database)) {
        ask(&self.db);
        self.storage = self.storage.synced_only();
        self.db = open(&self.storage, &self.schema);
        ask(&self.db);
        self.db.flush_memtables().unwrap();
        ask(&self.db);
    }

    /// Nothing is wrong but that some commits cannot be read; and when they can be again, what was
    /// made without them is what follows from the whole log.
    fn ends_whole(mut self) {
        let verify =
            |db: &Database| waferdb::verify::verify(db.shared(), true, &mut |_, _| {}).unwrap();
        let problems = verify(&self.db).problems;
        let told: Vec<u64> = problems.iter().filter_map(|problem| problem.lsn).collect();
        let lost: Vec<u64> = self.lost.iter().map(|(lsn, _)| *lsn).collect();
        assert_eq!(told, lost, "{problems:?}");
        self.flip();
        let report = verify(&self.db);
        assert!(report.ok, "{:?}", report.problems);
    }

    fn commit(&self, write: impl Fn(&mut Transaction) -> Result<()>) -> u64 {
        let mut tx = self.db.begin(Mode::Transaction, TransactionOptions::default()).unwrap();
        write(&mut tx).unwrap();
        tx.commit().unwrap().lsn
    }

    fn put(&self, key: &str, user: &str, n: i64) -> u64 {
        self.commit(|tx| put(tx, key, &row(key, user, n)))
    }
}

fn open(storage: &SimulatedStorage, schema: &str) -> Database {
    let options = Options {
        mode: Opening::ReadWrite,
        background: false,
        clock: Arc::new(ManualClock::new(1_700_000_000_000_000)),
        random: Arc::new(SeededRandom::new(7)),
        ..Options::default()
    };
    let declared = Schema::from_json(schema).unwrap();
    Database::open(Arc::new(storage.clone()), options, Some(declared)).unwrap()
}

fn packed(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, value).unwrap();
    out
}

fn map(fields: &[(&str, Value)]) -> Vec<u8> {
    let fields = fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
    packed(&Value::Map(fields))
}

/// Its unique code is its key.
fn row(key: &str, user: &str, n: i64) -> Vec<u8> {
    map(&[("code", key.into()), ("user", user.into()), ("n", n.into()), ("text", TEXT.into())])
}

fn put(tx: &mut Transaction, key: &str, row: &[u8]) -> Result<()> {
    tx.put(FACTS, key.as_bytes(), row, Precondition::default())
}

fn group(user: &str) -> Vec<u8> {
    waferdb::views::key::encode(&packed(&Value::Array(vec![user.into()])), 1).unwrap()
}

fn text(key: &[u8]) -> String {
    String::from_utf8(key.to_vec()).unwrap()
}

fn find(reader: &Reader, field: &str, value: Value, order: Option<&str>) -> Vec<String> {
    let condition = Value::Array(vec!["=".into(), value]);
    let mut cursor = reader.find(FACTS, &map(&[(field, condition)]), order, None, None).unwrap();
    match cursor.page(99).unwrap() {
        Page::Rows(rows) => rows.iter().map(|row| text(&row.key)).collect(),
        Page::Events(_) => panic!("rows expected"),
    }
}

fn inputs(db: &Database, view: u32, user: &str) -> Vec<String> {
    let found = db.reader().view_inputs(view, &group(user)).unwrap();
    found.iter().map(|(input, _)| text(&input.key)).collect()
}

/// What a view says of a group.
fn said(db: &Database, view: u32, user: &str) -> Result<Option<Value>> {
    let stored = db.reader().view_group(view, &group(user))?.stored;
    Ok(stored.map(|(stored, _)| rmpv::decode::read_value(&mut &stored.document[..]).unwrap()))
}

/// (count, sum) of a group.
fn figures(db: &Database, user: &str) -> Option<(i64, i64)> {
    let tally = said(db, TALLY, user).unwrap();
    let totals = said(db, TOTALS, user).unwrap();
    let number = |value: &Value, field: &str| value[field].as_i64().unwrap();
    assert_eq!(
        tally.as_ref().map(|value| number(value, "count")),
        totals.as_ref().map(|value| number(value, "count"))
    );
    totals.map(|value| (number(&value, "count"), number(&value, "sum")))
}

/// Keys in the order of a view that is read off its group.
fn ranked(db: &Database, view: u32, user: &str) -> Vec<String> {
    let Some(value) = said(db, view, user).unwrap() else { return Vec::new() };
    let rows = value["rows"].as_array().unwrap().iter();
    rows.map(|row| row["key"].as_str().unwrap().to_owned()).collect()
}

const EAGER: &str = r#"{"kind":"eager"}"#;
/// It puts index entries off.
const LAZY: &str = r#"{"kind":"lazy"}"#;

#[test]
fn find_answered_a_row_twice_whose_old_bytes_were_lost() {
    for policy in [EAGER, LAZY] {
        let mut lossy = Lossy::new(schema(policy));
        lossy.put("k", "ann", 1);
        // Its key ends like the other's.
        lossy.put("kk", "ann", 1);
        lossy.lose(&[1]);
        // Entries that are put off are of several changes at once.
        lossy.put("k", "bob", 1);
        lossy.put("kk", "ann", 2);
        lossy.put("k", "ann", 2);
        lossy.now_and_replayed(|db| {
            let reader = db.reader();
            assert_eq!(find(&reader, "user", "ann".into(), None), ["k", "kk"]);
            assert_eq!(find(&reader, "user", "bob".into(), None), [""; 0]);
            assert_eq!(find(&reader, "user", "ann".into(), Some("n")), ["k", "kk"]);
            assert_eq!(find(&reader, "n", 2.into(), Some("-user")), ["k", "kk"]);
            assert_eq!(find(&reader, "n", 1.into(), None), [""; 0]);
            let before = db.reader_at(3).unwrap();
            assert_eq!(find(&before, "user", "bob".into(), None), ["k"]);
            assert_eq!(find(&before, "user", "ann".into(), None), ["kk"]);
        });
        lossy.ends_whole();
    }
}

#[test]
fn a_unique_value_of_a_lost_row_was_never_free_again() {
    for policy in [EAGER, LAZY] {
        for how in ["delete", "replace", "forget"] {
            let mut lossy = Lossy::new(schema(policy));
            lossy.put("k", "ann", 1);
            lossy.lose(&[1]);
            lossy.commit(|tx| match how {
                "delete" => tx.delete(FACTS, b"k"),
                "replace" => put(tx, "k", &row("another", "bob", 2)),
                _ => tx.forget(FACTS, &[b"k"]),
            });
            lossy.commit(|tx| put(tx, "other", &row("k", "ann", 3)));
            lossy.now_and_replayed(|db| {
                assert_eq!(find(&db.reader(), "code", "k".into(), None), ["other"], "{how}");
                assert_eq!(find(&db.reader(), "user", "ann".into(), None), ["other"], "{how}");
            });
            lossy.ends_whole();
        }
    }
}

#[test]
fn a_transaction_saw_a_row_twice_whose_old_bytes_were_lost() {
    let mut lossy = Lossy::new(schema(LAZY));
    lossy.put("k", "ann", 1);
    lossy.lose(&[1]);
    let mut tx = lossy.db.begin(Mode::Transaction, TransactionOptions::default()).unwrap();
    put(&mut tx, "k", &row("k", "ann", 2)).unwrap();
    let reader = tx.reader().unwrap();
    assert_eq!(find(&reader, "user", "ann".into(), Some("n")), ["k"]);
    assert_eq!(find(&reader, "n", 1.into(), None), [""; 0]);
}

#[test]
fn a_view_kept_a_lost_document_in_the_group_it_was_in() {
    for how in ["delete", "replace", "forget", "again"] {
        let mut lossy = Lossy::new(schema(EAGER));
        lossy.put("k", "ann", 10);
        lossy.put("kk", "ann", 1);
        lossy.put("b", "bob", 2);
        lossy.lose(&[1]);
        lossy.commit(|tx| match how {
            "delete" => tx.delete(FACTS, b"k"),
            "replace" => put(tx, "k", &row("k", "bob", 5)),
            "again" => put(tx, "k", &row("k", "ann", 5)),
            _ => tx.forget(FACTS, &[b"k"]),
        });
        lossy.now_and_replayed(|db| {
            let stays = how == "again";
            let moved = how == "replace";
            let of = |wanted: &[&str]| -> Vec<String> {
                wanted.iter().map(|key| (*key).to_owned()).collect()
            };
            let ann = of(if stays { &["kk", "k"] } else { &["kk"] });
            let bob = of(if moved { &["b", "k"] } else { &["b"] });
            for view in [PROFILE, TALLY, TOTALS, RECENT, BEST] {
                assert_eq!(inputs(db, view, "ann"), ann, "{how} {view}");
                assert_eq!(inputs(db, view, "bob"), bob, "{how} {view}");
            }
            assert_eq!(figures(db, "ann"), Some(if stays { (2, 6) } else { (1, 1) }), "{how}");
            assert_eq!(figures(db, "bob"), Some(if moved { (2, 7) } else { (1, 2) }), "{how}");
            for view in [RECENT, BEST] {
                let turned = |keys: &[String]| keys.iter().rev().cloned().collect::<Vec<_>>();
                assert_eq!(ranked(db, view, "ann"), turned(&ann), "{how}");
                assert_eq!(ranked(db, view, "bob"), turned(&bob), "{how}");
            }
        });
        lossy.ends_whole();
    }
}

#[test]
fn a_group_did_not_end_with_its_last_lost_document() {
    let mut lossy = Lossy::new(schema(EAGER));
    lossy.put("k", "ann", 10);
    lossy.lose(&[1]);
    lossy.commit(|tx| tx.delete(FACTS, b"k"));
    lossy.now_and_replayed(|db| {
        assert_eq!(figures(db, "ann"), None);
        for view in [PROFILE, TALLY, TOTALS, RECENT, BEST] {
            assert_eq!(inputs(db, view, "ann"), [""; 0]);
            assert_eq!(db.reader().count(view).unwrap(), 0);
        }
        assert_eq!(db.reader().view_stale_count(PROFILE).unwrap(), 0);
    });
    lossy.ends_whole();
}

/// The sum of what stays cannot be told while the bytes of a document that stays are lost, too.
#[test]
fn a_sum_was_told_without_what_it_is_of() {
    let mut lossy = Lossy::new(schema(EAGER));
    lossy.put("lost", "ann", 10);
    lossy.put("stays", "ann", 20);
    lossy.put("kept", "ann", 1);
    lossy.lose(&[1, 2]);
    let sum = |db: &Database| said(db, TOTALS, "ann").unwrap().unwrap()["sum"].as_i64();
    assert_eq!(sum(&lossy.db), Some(31), "what was told before stands");
    lossy.commit(|tx| tx.delete(FACTS, b"lost"));
    lossy.put("more", "ann", 2);
    lossy.now_and_replayed(|db| {
        let error = said(db, TOTALS, "ann").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.message().contains("LSN 2"), "{error}");
        let tally = said(db, TALLY, "ann").unwrap().unwrap();
        assert_eq!(tally["count"].as_i64(), Some(3), "to count takes no bytes");
    });
    lossy.put("stays", "ann", 4);
    lossy.now_and_replayed(|db| {
        assert_eq!(figures(db, "ann"), Some((3, 7)));
    });
    lossy.ends_whole();
}

/// A result that a lost version went into was answered at the LSNs at which it had stood.
#[test]
fn a_result_of_a_forgotten_lost_version_was_answered_at_an_old_lsn() {
    let mut lossy = Lossy::new(schema(EAGER));
    let lsn = lossy.put("k", "ann", 10);
    let result = map(&[("text", TEXT.into())]);
    let made = lossy.commit(|tx| tx.put_result(PROFILE, &group("ann"), &result, (lsn, 1)));
    lossy.put("k", "bob", 1);
    lossy.lose(&[1]);
    let stood = |db: &Database| {
        let group = db.reader_at(made).unwrap().view_group(PROFILE, &group("ann")).unwrap();
        group.stored.is_some()
    };
    assert!(stood(&lossy.db));
    lossy.commit(|tx| tx.forget(FACTS, &[b"k"]));
    // What it erases is gone at every LSN: index entries, too, as the last check finds.
    lossy.now_and_replayed(|db| assert!(!stood(db)));
    lossy.ends_whole();
}

#[test]
fn a_lost_row_was_superseded_after_it_was_gone() {
    let schema = r#"{"structures":[{"name":"facts","kind":"rows","codec":"msgpack",
        "supersede":["user"]},{"name":"events","kind":"events"}]}"#;
    for how in ["delete", "replace", "forget"] {
        let mut lossy = Lossy::new(schema.to_owned());
        lossy.put("k", "ann", 1);
        lossy.lose(&[1]);
        lossy.commit(|tx| match how {
            "delete" => tx.delete(FACTS, b"k"),
            "replace" => put(tx, "k", &row("k", "bob", 1)),
            _ => tx.forget(FACTS, &[b"k"]),
        });
        lossy.put("other", "ann", 2);
        lossy.now_and_replayed(|db| {
            assert_eq!(db.reader().count(2).unwrap(), 0, "nothing was contradicted");
            let rows = if how == "replace" { 2 } else { 1 };
            assert_eq!(db.reader().count(FACTS).unwrap(), rows);
        });
        lossy.ends_whole();
    }
}

#[test]
fn a_lost_result_that_another_view_is_made_of_stopped_an_opening() {
    let schema = r#"{"structures":[{"name":"facts","kind":"rows","codec":"msgpack"},
        {"name":"profile","kind":"view","source":"facts","by":["user"],
        "function":{"name":"custom"}},
        {"name":"teams","kind":"view","source":"profile","by":["team"],
        "function":{"name":"custom"}}]}"#;
    const TEAMS: u32 = 3;
    let result = |team: &str| map(&[("team", team.into()), ("text", TEXT.into())]);
    for how in ["replace", "drop", "forget"] {
        let mut lossy = Lossy::new(schema.to_owned());
        let lsn = lossy.put("k", "ann", 1);
        let made = |lossy: &Lossy, team: &str, lsn| {
            lossy.commit(|tx| tx.put_result(PROFILE, &group("ann"), &result(team), (lsn, 1)))
        };
        made(&lossy, "red", lsn);
        let lsn = lossy.put("k", "ann", 2);
        lossy.lose(&[2]);
        match how {
            "replace" => made(&lossy, "blue", lsn),
            "drop" => lossy.commit(|tx| tx.delete(FACTS, b"k")),
            _ => lossy.commit(|tx| tx.forget(FACTS, &[b"k"])),
        };
        lossy.now_and_replayed(|db| {
            let many = |team| db.reader().view_inputs(TEAMS, &group(team)).unwrap().len();
            assert_eq!(many("red"), 0, "{how}");
            assert_eq!(many("blue"), usize::from(how == "replace"), "{how}");
        });
        lossy.ends_whole();
    }
}
