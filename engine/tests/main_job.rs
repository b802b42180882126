//! The main job through the engine's public face: one commit, six structures, reopened.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use waferdb::clock::{ManualClock, SeededRandom};
use waferdb::database::Database;
use waferdb::error::ErrorKind;
use waferdb::options::{Durability, Options};
use waferdb::reader::Page;
use waferdb::schema::Schema;
use waferdb::storage::memory::MemoryStorage;
use waferdb::transaction::{Mode, Precondition, TransactionOptions};
use waferdb::vector::Search;

const SCHEMA: &str = r#"{"structures":[
  {"name":"facts","kind":"rows","codec":"msgpack","indexes":[["user"],["user","time"]],
   "unique":[["email"]]},
  {"name":"embeddings","kind":"vectors","dim":4,"metric":"cosine","rows":"facts"},
  {"name":"session","kind":"cache","ttl":60000000},
  {"name":"events","kind":"events","capture":["facts"]},
  {"name":"audit","kind":"audit"},
  {"name":"context","kind":"context"},
  {"name":"entities","kind":"graph"}]}"#;

const FACTS: u32 = 1;
const EMBEDDINGS: u32 = 2;
const SESSION: u32 = 3;
const EVENTS: u32 = 4;
const CONTEXT: u32 = 6;
const ENTITIES: u32 = 7;

fn options() -> Options {
    Options {
        background: false,
        clock: Arc::new(ManualClock::new(1_700_000_000_000_000)),
        random: Arc::new(SeededRandom::new(1)),
        segment_bytes_min: 64 << 10,
        ..Options::default()
    }
}

fn open(storage: &Arc<MemoryStorage>) -> Database {
    let schema = Schema::from_json(SCHEMA).unwrap();
    Database::open(storage.clone(), options(), Some(schema)).unwrap()
}

fn document(fields: &[(&str, rmpv::Value)]) -> Vec<u8> {
    let map = fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, &rmpv::Value::Map(map)).unwrap();
    out
}

fn fact(user: &str, time: i64, email: &str, text: &str) -> Vec<u8> {
    document(&[
        ("user", user.into()),
        ("time", time.into()),
        ("email", email.into()),
        ("text", text.into()),
    ])
}

fn condition(field: &str, value: rmpv::Value) -> Vec<u8> {
    document(&[(field, rmpv::Value::Array(vec!["=".into(), value]))])
}

fn remember(db: &Database, key: &str, user: &str, time: i64, text: &str) -> u64 {
    let mut tx = db.begin(Mode::Transaction, TransactionOptions::default()).unwrap();
    let row = fact(user, time, key, text);
    tx.put(FACTS, key.as_bytes(), &row, Precondition::default()).unwrap();
    tx.put_vector(EMBEDDINGS, key, &[1.0, time as f32, 0.5, 0.25]).unwrap();
    tx.cache_put(SESSION, key, &row, None).unwrap();
    tx.append(EVENTS, "remembered", Some(&row), Some(key.as_bytes())).unwrap();
    tx.context_set(CONTEXT, user, key, &row).unwrap();
    tx.link(ENTITIES, user, "knows", key, None).unwrap();
    tx.commit().unwrap().lsn
}

fn keys(page: Page) -> Vec<String> {
    match page {
        Page::Rows(rows) => {
            rows.into_iter().map(|row| String::from_utf8(row.key.into()).unwrap()).collect()
        }
        Page::Events(_) => panic!("rows expected"),
    }
}

fn check_all(db: &Database, count: u64) {
    let reader = db.reader();
    for structure in [FACTS, EMBEDDINGS, SESSION, CONTEXT, ENTITIES] {
        assert_eq!(reader.count(structure).unwrap(), count, "structure {structure}");
    }
    assert_eq!(reader.count(EVENTS).unwrap(), count * 2, "appended and captured");
    assert_eq!(reader.count(5).unwrap(), count, "audit");
    let text = "a text that is long enough to have a checksum of its own 1";
    let row = fact("ann", 1, "k1", text);
    assert_eq!(*reader.get(FACTS, b"k1").unwrap().unwrap(), row[..]);
    assert_eq!(*reader.get(SESSION, b"k1").unwrap().unwrap(), row[..]);
    assert_eq!(*reader.context_get(CONTEXT, "ann", "k1").unwrap().unwrap().value, row[..]);
    let hits = reader
        .search(EMBEDDINGS, &[1.0, 1.0, 0.5, 0.25], &Search { k: 1, exact: false, ef: None }, None)
        .unwrap();
    assert_eq!(hits[0].key, "k1");
    let mut found =
        reader.find(FACTS, &condition("user", "ann".into()), Some("-time"), None, None).unwrap();
    let mut want: Vec<String> = (0..count).map(|i| format!("k{i}")).collect();
    want.sort_by_key(|key| std::cmp::Reverse(key[1..].parse::<u64>().unwrap()));
    assert_eq!(keys(found.page(1000).unwrap()), want);
}

#[test]
fn one_commit_is_in_every_structure_and_survives_reopening() {
    let storage = Arc::new(MemoryStorage::new());
    let db = open(&storage);
    for index in 0..200 {
        let text = format!("a text that is long enough to have a checksum of its own {index}");
        assert_eq!(remember(&db, &format!("k{index}"), "ann", index, &text), index as u64 + 1);
    }
    check_all(&db, 200);
    db.close().unwrap();
    let db = open(&storage);
    check_all(&db, 200);
    assert_eq!(db.lsn().unwrap(), 200);
    let stats = db.stats().unwrap();
    assert_eq!(stats.torn_tail, None);
}

#[test]
fn equal_values_of_one_commit_are_stored_once() {
    let storage = Arc::new(MemoryStorage::new());
    let db = open(&storage);
    let before = db.stats().unwrap().physical_bytes;
    let text = "x".repeat(5000);
    remember(&db, "k", "ann", 1, &text);
    let stats = db.stats().unwrap();
    assert!(stats.logical_bytes < 5300, "{}", stats.logical_bytes);
    let zeros = 64 << 10;
    assert!(stats.physical_bytes - before < 7000 + zeros, "{}", stats.physical_bytes - before);
}

#[test]
fn first_committer_wins_and_blind_writes_do_not_conflict() {
    let db = open(&Arc::new(MemoryStorage::new()));
    let mut one = db.begin(Mode::Transaction, TransactionOptions::default()).unwrap();
    let mut two = db.begin(Mode::Transaction, TransactionOptions::default()).unwrap();
    let row = fact("ann", 1, "e", "t");
    one.put(FACTS, b"k", &row, Precondition::default()).unwrap();
    two.put(FACTS, b"k", &row, Precondition::default()).unwrap();
    one.commit().unwrap();
    assert_eq!(two.commit().unwrap_err().kind(), ErrorKind::Conflict);
    let mut single = db.begin(Mode::Single, TransactionOptions::default()).unwrap();
    single.put(FACTS, b"k", &row, Precondition::default()).unwrap();
    single.commit().unwrap();
}

#[test]
fn unique_values_belong_to_one_row_also_when_swapped() {
    let db = open(&Arc::new(MemoryStorage::new()));
    let put = |tx: &mut waferdb::transaction::Transaction, key: &str, email: &str| {
        tx.put(FACTS, key.as_bytes(), &fact("u", 1, email, "t"), Precondition::default()).unwrap();
    };
    let begin = || db.begin(Mode::Transaction, TransactionOptions::default()).unwrap();
    let mut tx = begin();
    put(&mut tx, "a", "1");
    put(&mut tx, "b", "2");
    tx.commit().unwrap();
    let mut tx = begin();
    put(&mut tx, "c", "2");
    assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Unique);
    let mut tx = begin();
    put(&mut tx, "a", "2");
    put(&mut tx, "b", "1");
    tx.commit().unwrap();
    let mut single = db.begin(Mode::Single, TransactionOptions::default()).unwrap();
    put(&mut single, "c", "1");
    assert_eq!(single.commit().unwrap_err().kind(), ErrorKind::Unique);
}

#[test]
fn a_transaction_reads_its_own_writes_in_every_structure() {
    let db = open(&Arc::new(MemoryStorage::new()));
    remember(&db, "k0", "ann", 0, "committed before");
    let mut tx = db.begin(Mode::Transaction, TransactionOptions::default()).unwrap();
    tx.put(FACTS, b"k1", &fact("ann", 1, "k1", "t"), Precondition::default()).unwrap();
    tx.put_vector(EMBEDDINGS, "k1", &[0.0, 0.0, 0.0, 1.0]).unwrap();
    let reader = tx.reader().unwrap();
    assert_eq!(reader.count(FACTS).unwrap(), 2);
    let hits = reader
        .search(EMBEDDINGS, &[0.0, 0.0, 0.0, 1.0], &Search { k: 5, exact: false, ef: None }, None)
        .unwrap();
    assert_eq!(hits.iter().map(|hit| &hit.key[..]).collect::<Vec<_>>(), ["k1", "k0"]);
    tx.delete(FACTS, b"k0").unwrap();
    assert_eq!(reader.count(EMBEDDINGS).unwrap(), 1, "the vector went with its row");
    let filter = condition("user", "ann".into());
    assert_eq!(
        keys(reader.find(FACTS, &filter, None, None, None).unwrap().page(9).unwrap()),
        ["k1"]
    );
    tx.rollback();
    assert_eq!(reader.count(FACTS).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(db.reader().count(FACTS).unwrap(), 1);
}

#[test]
fn a_vector_without_its_row_is_refused() {
    let db = open(&Arc::new(MemoryStorage::new()));
    for mode in [Mode::Transaction, Mode::Single, Mode::Batch] {
        let mut tx = db.begin(mode, TransactionOptions::default()).unwrap();
        tx.put_vector(EMBEDDINGS, "nobody", &[1.0, 0.0, 0.0, 0.0]).unwrap();
        assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Link);
    }
    assert_eq!(db.lsn().unwrap(), 0);
}

#[test]
fn asynchronous_commits_are_visible_at_once_and_durable_after_a_step() {
    let storage = Arc::new(MemoryStorage::new());
    let db = open(&storage);
    let options = || TransactionOptions {
        durability: Some(Durability::Async),
        ..TransactionOptions::default()
    };
    let row = fact("ann", 1, "e", &"long enough to be stored behind a checksum ".repeat(3));
    let mut tx = db.begin(Mode::Single, options()).unwrap();
    tx.put(FACTS, b"k", &row, Precondition::default()).unwrap();
    let receipt = tx.commit().unwrap();
    assert!(!receipt.durable);
    assert_eq!(*db.reader().get(FACTS, b"k").unwrap().unwrap(), row[..]);
    assert_eq!(db.stats().unwrap().durable_lsn, 0);
    while db.step().unwrap() {}
    assert_eq!(db.stats().unwrap().durable_lsn, 1);
}

#[test]
fn a_forgotten_key_is_answered_at_no_lsn() {
    let storage = Arc::new(MemoryStorage::new());
    let db = open(&storage);
    let lsn = remember(&db, "k0", "ann", 0, "secret text that is long enough to be stored apart");
    remember(&db, "k1", "ann", 1, "another");
    let mut tx = db.begin(Mode::Transaction, TransactionOptions::default()).unwrap();
    for structure in [FACTS, EVENTS] {
        tx.forget(structure, &[b"k0"]).unwrap();
    }
    tx.forget(CONTEXT, &[b"ann", b"k0"]).unwrap();
    tx.forget(SESSION, &[b"k0"]).unwrap();
    tx.commit().unwrap();
    let check = |db: &Database| {
        for at in [lsn, 2, 3] {
            let reader = db.reader_at(at).unwrap();
            assert!(reader.get(FACTS, b"k0").unwrap().is_none());
            assert!(reader.get(EMBEDDINGS, b"k0").unwrap().is_none());
            assert!(reader.get(SESSION, b"k0").unwrap().is_none());
            assert!(reader.context_get(CONTEXT, "ann", "k0").unwrap().is_none());
            let filter = condition("user", "ann".into());
            let found = reader.find(FACTS, &filter, None, None, None).unwrap().page(9).unwrap();
            assert!(!keys(found).contains(&"k0".to_owned()));
            let Page::Events(events) =
                reader.events(EVENTS, &Default::default()).unwrap().page(99).unwrap()
            else {
                panic!("events expected")
            };
            assert!(events.iter().all(|(event, _)| event.key.as_deref() != Some(b"k0")));
        }
    };
    check(&db);
    db.close().unwrap();
    check(&open(&storage));
}

#[test]
fn a_backup_taken_while_open_is_whole_also_at_a_segment_boundary() {
    let storage = Arc::new(MemoryStorage::new());
    let db = open(&storage);
    for index in 0..120 {
        let text = format!("a text that is long enough to have a checksum of its own {index}");
        remember(&db, &format!("k{index}"), "ann", index, &text);
        if index % 10 != 9 {
            continue;
        }
        let copy = Arc::new(MemoryStorage::new());
        let lsn = db.backup(&*copy, &mut |_, _| {}).unwrap();
        assert_eq!(lsn, index as u64 + 1);
        check_all(&open(&copy), lsn);
        assert!(db.backup(&*copy, &mut |_, _| {}).is_err(), "never over something");
    }
    db.close().unwrap();
}

#[test]
fn a_unique_value_taken_over_and_given_back_in_one_transaction_keeps_its_owner() {
    let db = open(&Arc::new(MemoryStorage::new()));
    let put = |tx: &mut waferdb::transaction::Transaction, key: &str, email: &str| {
        tx.put(FACTS, key.as_bytes(), &fact("u", 1, email, "t"), Precondition::default()).unwrap();
    };
    let begin = || db.begin(Mode::Transaction, TransactionOptions::default()).unwrap();
    let mut tx = begin();
    put(&mut tx, "k1", "u");
    put(&mut tx, "k2", "u");
    tx.delete(FACTS, b"k2").unwrap();
    tx.commit().unwrap();
    let mut tx = begin();
    put(&mut tx, "k3", "u");
    assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Unique);
}

#[test]
fn a_rebuild_lets_its_progress_write() {
    let db = open(&Arc::new(MemoryStorage::new()));
    for index in 0..600 {
        remember(&db, &format!("k{index}"), "ann", index, "rebuilt beside what is in use");
    }
    let mut calls = 0;
    db.rebuild(FACTS, |_, _| {
        calls += 1;
        remember(&db, &format!("p{calls}"), "bob", calls, "written meanwhile");
    })
    .unwrap();
    assert!(calls > 0);
    assert_eq!(db.reader().count(FACTS).unwrap(), 600 + calls as u64);
    let report = waferdb::verify::verify(db.shared(), true, &mut |_, _| {}).unwrap();
    assert!(report.ok, "{:?}", report.problems);
}

/// A closed database of some segments on simulated storage, whose files can be damaged.
fn closed(memories: i64) -> waferdb::storage::simulated::SimulatedStorage {
    let storage = waferdb::storage::simulated::SimulatedStorage::new(1);
    let db = reopen(&storage).unwrap();
    for index in 0..memories {
        remember(&db, &format!("k{index}"), "ann", index, &"long enough to fill ".repeat(40));
    }
    db.close().unwrap();
    storage
}

fn reopen(
    storage: &waferdb::storage::simulated::SimulatedStorage,
) -> waferdb::error::Result<Database> {
    let options = Options { segment_bytes_min: 32 << 10, segment_bytes_max: 32 << 10, ..options() };
    Database::open(Arc::new(storage.clone()), options, Some(Schema::from_json(SCHEMA).unwrap()))
}

#[test]
fn a_log_whose_first_segment_was_zeroed_is_not_made_anew_without_its_marker() {
    let storage = closed(80);
    let first = "log/00000001.wal";
    let mut bytes = storage.read_file(first).unwrap();
    bytes[512..].fill(0);
    storage.write_file(first, &bytes);
    storage.remove_file("DATABASE");
    let before = storage.paths();
    assert!(before.len() > 3, "several segments: {before:?}");
    assert_eq!(reopen(&storage).err().unwrap().kind(), ErrorKind::Corruption);
    assert_eq!(storage.paths(), before);
}

#[test]
fn a_close_that_was_torn_over_does_not_stay_in_the_middle() {
    let storage = closed(3);
    let path = "log/00000001.wal";
    let sound = storage.read_file(path).unwrap();
    // The next session's first group replaced the close; its second sector alone reached the disk.
    let mut torn = sound.clone();
    torn.extend([0xA5; 512]);
    torn.resize(32 << 10, 0);
    storage.write_file(path, &torn);
    let db = reopen(&storage).unwrap();
    assert!(db.stats().unwrap().torn_tail.is_some());
    remember(&db, "later", "ann", 9, "acknowledged behind the torn bytes");
    db.close().unwrap();
    storage.truncate_file(path, sound.len() as u64);
    assert_eq!(reopen(&storage).err().unwrap().kind(), ErrorKind::Corruption);
}
