//! Databases that compress their values: what is answered is what was put in, whatever happens.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use waferdb::changes::Changes;
use waferdb::clock::{ManualClock, Random, SeededRandom};
use waferdb::database::Database;
use waferdb::error::ErrorKind;
use waferdb::options::{Mode as OpenMode, Options, Zstd};
use waferdb::schema::Schema;
use waferdb::storage::memory::MemoryStorage;
use waferdb::storage::simulated::{ImagePlan, SimulatedStorage};
use waferdb::storage::{Cause, Open, Share, Storage, read_exact_at};
use waferdb::transaction::{Mode, Precondition, TransactionOptions};
use waferdb::{audit_log, verify};

const SCHEMA: &str = r#"{"structures":[
  {"name":"facts","kind":"rows","codec":"msgpack","indexes":[["user"]],"unique":[["slug"]]},
  {"name":"blobs","kind":"rows","codec":"raw"},
  {"name":"embeddings","kind":"vectors","dim":32,"metric":"l2","rows":"facts"},
  {"name":"session","kind":"cache","ttl":60000000000},
  {"name":"events","kind":"events","capture":["facts"]},
  {"name":"audit","kind":"audit"},
  {"name":"context","kind":"context"}]}"#;

const FACTS: u32 = 1;
const BLOBS: u32 = 2;
const EMBEDDINGS: u32 = 3;
const SESSION: u32 = 4;
const EVENTS: u32 = 5;
const AUDIT: u32 = 6;
const CONTEXT: u32 = 7;

const WORDS: [&str; 24] = [
    "yesterday",
    "camping",
    "with",
    "the",
    "kids",
    "was",
    "really",
    "fun",
    "and",
    "we",
    "talked",
    "about",
    "painting",
    "classes",
    "support",
    "group",
    "adoption",
    "agencies",
    "next",
    "summer",
    "because",
    "friends",
    "encouraged",
    "me",
];

fn options(compression: Option<Zstd>) -> Options {
    Options {
        background: false,
        compression,
        clock: Arc::new(ManualClock::new(1_700_000_000_000_000)),
        random: Arc::new(SeededRandom::new(3)),
        ..Options::default()
    }
}

/// Trains early, so that a small test meets values of both kinds.
fn eager() -> Option<Zstd> {
    let (train_values, train_bytes) = (100, 1 << 20);
    Some(Zstd { train_values, train_bytes, dictionary_bytes: 4 << 10, ..Zstd::default() })
}

fn open(storage: &Arc<MemoryStorage>, options: Options) -> Database {
    Database::open(storage.clone(), options, Some(Schema::from_json(SCHEMA).unwrap())).unwrap()
}

fn text(random: &SeededRandom, words: usize) -> String {
    let word = |_| WORDS[random.next_u64() as usize % WORDS.len()];
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(0xDA);
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// {"user", "slug", "text"} in msgpack.
fn document(random: &SeededRandom, number: usize) -> Vec<u8> {
    let mut out = vec![0x83];
    let user = format!("user {}", number % 7);
    for (name, value) in
        [("user", user), ("slug", format!("s{number}")), ("text", text(random, 20))]
    {
        put_text(&mut out, name);
        put_text(&mut out, &value);
    }
    out
}

type Expected = BTreeMap<(u32, Vec<u8>), Vec<u8>>;

/// One commit a document, its cache entry, event and context sharing the document's bytes.
fn write(db: &Database, from: usize, count: usize, expected: &mut Expected) {
    let random = SeededRandom::new(from as u64 + 1);
    for number in from..from + count {
        let key = format!("k{:05}", number).into_bytes();
        let name = String::from_utf8(key.clone()).unwrap();
        let row = document(&random, number);
        let blob = match number % 3 {
            0 => (0..200).map(|_| random.next_u64() as u8).collect(),
            1 => vec![7; 500],
            _ => text(&random, 12).into_bytes(),
        };
        let note = TransactionOptions::default();
        let mut tx = db.begin(Mode::Transaction, note).unwrap();
        tx.put(FACTS, &key, &row, Precondition::default()).unwrap();
        tx.put(BLOBS, &key, &blob, Precondition::default()).unwrap();
        tx.put_vector(EMBEDDINGS, &name, &[number as f32; 32]).unwrap();
        tx.cache_put(SESSION, &name, &row, None).unwrap();
        tx.append(EVENTS, "seen", Some(&row), Some(&key)).unwrap();
        tx.context_set(CONTEXT, "ann", &name, &row).unwrap();
        // Read back under the transaction's own writes.
        assert_eq!(tx.reader().unwrap().get(FACTS, &key).unwrap().unwrap()[..], row[..]);
        tx.commit().unwrap();
        expected.insert((FACTS, key.clone()), row);
        expected.insert((BLOBS, key), blob);
        while db.step().unwrap() {}
    }
}

fn check(db: &Database, expected: &Expected) {
    let reader = db.reader();
    for ((structure, key), value) in expected {
        let found = reader.get(*structure, key).unwrap();
        assert!(found.unwrap()[..] == value[..], "{structure} {key:?}");
    }
    if db.is_writable() {
        let report = verify::verify(db.shared(), true, &mut |_, _| {}).unwrap();
        assert!(report.ok, "{:?}", report.problems);
    }
}

fn bytes_of(storage: &MemoryStorage, path: &str) -> Vec<u8> {
    let file = storage.open(path, Open::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert!(read_exact_at(&*file, &mut bytes, 0).unwrap());
    bytes
}

fn log_bytes(storage: &MemoryStorage) -> u64 {
    let names = storage.list("log").unwrap().into_iter();
    names.map(|name| bytes_of(storage, &format!("log/{name}")).len() as u64).sum()
}

/// Place and length of every record of a kind, read as docs/format.md has it.
fn records(log: &[u8], kind: u8) -> Vec<(usize, usize)> {
    let number = |at: usize| u32::from_le_bytes(log[at..at + 4].try_into().unwrap()) as usize;
    let (mut found, mut offset) = (Vec::new(), 512);
    while log.get(offset..offset + 4) == Some(b"WGRP") {
        let end = offset + number(offset + 40);
        let mut at = offset + 80;
        while at < end {
            if log[at + 4] == kind {
                found.push((at, 32 + number(at)));
            }
            at += 32 + number(at);
        }
        offset = end.next_multiple_of(512);
    }
    found
}

#[test]
fn what_was_put_in_comes_out_before_and_after_every_kind_of_opening() {
    let storage = Arc::new(MemoryStorage::new());
    let mut expected = Expected::new();
    let db = open(&storage, options(eager()));
    write(&db, 0, 300, &mut expected);
    let stats = db.stats().unwrap().compression;
    assert_eq!(stats.dictionaries, 1, "one was trained");
    assert!(stats.bytes_out * 3 < stats.bytes_in * 2, "{stats:?}");
    check(&db, &expected);
    let head = audit_log::head(db.shared(), AUDIT).unwrap();
    db.close().unwrap();

    // The whole log is replayed: nothing was flushed.
    let db = open(&storage, options(eager()));
    check(&db, &expected);
    assert_eq!(audit_log::head(db.shared(), AUDIT).unwrap(), head);
    // Only the tail is replayed; the dictionary lies before it.
    assert!(db.flush_memtables().unwrap());
    write(&db, 300, 50, &mut expected);
    db.close().unwrap();
    let db = open(&storage, options(eager()));
    assert!(db.shared().checkpoint.read().replay.lsn > 300);
    assert_eq!(db.stats().unwrap().compression.dictionaries, 1);
    check(&db, &expected);
    for id in [FACTS, BLOBS, EMBEDDINGS, SESSION, EVENTS, AUDIT, CONTEXT] {
        db.rebuild(id, |_, _| {}).unwrap();
    }
    check(&db, &expected);
    db.close().unwrap();

    // A writer that does not compress, and a reader.
    let db = open(&storage, options(None));
    write(&db, 350, 20, &mut expected);
    check(&db, &expected);
    assert_eq!(db.stats().unwrap().compression.values, 0);
    db.close().unwrap();
    let db = open(&storage, Options { mode: OpenMode::Read, ..options(None) });
    check(&db, &expected);
}

#[test]
fn the_audit_tree_is_that_of_the_values_as_they_were_given() {
    let roots = [None, eager()].map(|compression| {
        let storage = Arc::new(MemoryStorage::new());
        // The same salts and ids, however many random numbers are drawn besides.
        let random = Arc::new(Same);
        let db = open(&storage, Options { random, ..options(compression) });
        write(&db, 0, 120, &mut Expected::new());
        let root = audit_log::head(db.shared(), AUDIT).unwrap();
        db.close().unwrap();
        (root, log_bytes(&storage))
    });
    assert_eq!(roots[0].0, roots[1].0);
    assert!(roots[1].1 < roots[0].1, "and they are not stored as they were given");
}

struct Same;

impl Random for Same {
    fn next_u64(&self) -> u64 {
        7
    }
}

#[test]
fn equal_values_of_one_commit_are_compressed_and_stored_once() {
    let storage = Arc::new(MemoryStorage::new());
    let db = open(&storage, options(Some(Zstd::default())));
    let row = document(&SeededRandom::new(1), 1);
    let mut tx = db.begin(Mode::Transaction, TransactionOptions::default()).unwrap();
    tx.put(FACTS, b"a", &row, Precondition::default()).unwrap();
    tx.cache_put(SESSION, "a", &row, None).unwrap();
    tx.put(BLOBS, b"a", &row, Precondition::default()).unwrap();
    tx.context_set(CONTEXT, "ann", "a", &row).unwrap();
    tx.commit().unwrap();
    let figures = db.stats().unwrap().compression;
    assert_eq!((figures.values, figures.bytes_in), (1, row.len() as u64));
    assert!(figures.bytes_out < figures.bytes_in);
    assert_eq!(db.stats().unwrap().logical_bytes, row.len() as u64, "as it was handed in");
    let mut changes = Changes::new(Arc::clone(db.shared()), 0).unwrap();
    for change in &changes.page(9).unwrap()[0].changes {
        assert!(change.value.as_deref() == Some(&row[..]), "{}", change.structure);
    }
    db.close().unwrap();
    let db = open(&storage, options(None));
    for structure in [FACTS, BLOBS] {
        assert!(db.reader().get(structure, b"a").unwrap().unwrap()[..] == row[..]);
    }
    check(&db, &Expected::new());
}

#[test]
fn a_forgotten_value_stays_forgotten_and_the_others_readable() {
    let storage = Arc::new(MemoryStorage::new());
    let db = open(&storage, options(eager()));
    let mut expected = Expected::new();
    write(&db, 0, 130, &mut expected);
    let mut tx = db.begin(Mode::Single, TransactionOptions::default()).unwrap();
    tx.forget(FACTS, &[b"k00001"]).unwrap();
    tx.forget(FACTS, &[b"k00120"]).unwrap();
    tx.commit().unwrap();
    for key in ["k00001", "k00120"] {
        expected.remove(&(FACTS, key.as_bytes().to_vec()));
    }
    for _ in 0..2 {
        let db = open_again(&db, &storage);
        check(&db, &expected);
        assert!(db.reader().get(FACTS, b"k00120").unwrap().is_none());
        assert!(db.reader_at(125).unwrap().get(FACTS, b"k00120").unwrap().is_none());
        db.close().unwrap();
    }
}

fn open_again(db: &Database, storage: &Arc<MemoryStorage>) -> Database {
    db.close().unwrap();
    open(storage, options(eager()))
}

#[test]
fn a_compressed_database_is_smaller() {
    let bytes = [None, eager()].map(|compression| {
        let storage = Arc::new(MemoryStorage::new());
        let db = open(&storage, options(compression));
        write(&db, 0, 400, &mut Expected::new());
        db.close().unwrap();
        log_bytes(&storage)
    });
    assert!(bytes[1] * 10 < bytes[0] * 9, "{bytes:?}");
}

/// A dictionary behind the replay's beginning is damaged: the database opens, and only the values
/// that need the dictionary are lost, each with an error that names it.
#[test]
fn a_damaged_dictionary_is_named_by_the_values_that_need_it_and_by_no_other() {
    let storage = Arc::new(MemoryStorage::new());
    let db = open(&storage, options(eager()));
    let mut expected = Expected::new();
    write(&db, 0, 200, &mut expected);
    db.flush_memtables().unwrap();
    db.close().unwrap();
    let log = bytes_of(&storage, "log/00000001.wal");
    let [(at, length)] = records(&log, 20)[..] else { panic!("one dictionary") };
    let file = storage.open("log/00000001.wal", Open::Write).unwrap();
    let middle = at + length / 2;
    let flipped = [log[middle] ^ 1];
    file.write_at(&flipped, middle as u64, &[Share::new(0, Cause::Log, 1)]).unwrap();

    let db = open(&storage, options(eager()));
    let reader = db.reader();
    assert!(reader.get(FACTS, b"k00000").unwrap().unwrap()[..] == *expected_of(&expected, 0));
    let error = reader.get(FACTS, b"k00199").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.message().contains("dictionary 1"), "{error}");
    // It goes on writing, with another dictionary when there is one.
    let mut later = Expected::new();
    write(&db, 200, 150, &mut later);
    let reader = db.reader();
    for ((structure, key), value) in &later {
        assert!(reader.get(*structure, key).unwrap().unwrap()[..] == value[..]);
    }
    assert_eq!(db.stats().unwrap().compression.dictionaries, 2);
    let report = verify::verify(db.shared(), false, &mut |_, _| {}).unwrap();
    assert!(!report.ok);
}

fn expected_of(expected: &Expected, number: usize) -> &[u8] {
    &expected[&(FACTS, format!("k{number:05}").into_bytes())]
}

/// Another dictionary comes when the values change, and the old ones stay readable by the old one.
#[test]
fn values_of_another_kind_get_a_dictionary_of_their_own() {
    let storage = Arc::new(MemoryStorage::new());
    let db = open(&storage, options(eager()));
    let mut expected = Expected::new();
    write(&db, 0, 1_000, &mut expected);
    let before = db.stats().unwrap().compression.dictionaries;
    let random = SeededRandom::new(77);
    let digits: Vec<String> = (0..40).map(|_| format!("{:016x}", random.next_u64())).collect();
    for number in 0..4_000 {
        let words: Vec<&str> =
            (0..10).map(|_| &*digits[random.next_u64() as usize % digits.len()]).collect();
        let blob = words.concat().into_bytes();
        let key = format!("n{number}").into_bytes();
        let mut tx = db.begin(Mode::Single, TransactionOptions::default()).unwrap();
        tx.put(BLOBS, &key, &blob, Precondition::default()).unwrap();
        tx.commit().unwrap();
        expected.insert((BLOBS, key), blob);
        while db.step().unwrap() {}
    }
    let after = db.stats().unwrap().compression.dictionaries;
    assert!(before < after && after <= 8, "{before} and then {after}");
    check(&db, &expected);
    check(&open_again(&db, &storage), &expected);
}

/// Opens the database, writes what the LSN says, flushes now and then; how many were acknowledged.
fn run(storage: &SimulatedStorage, to: u64) -> Result<u64, waferdb::error::Error> {
    let zstd = Zstd { train_values: 30, dictionary_bytes: 512, ..Zstd::default() };
    let schema = Schema::from_json(SCHEMA)?;
    let small =
        Options { segment_bytes_min: 8 << 10, segment_bytes_max: 16 << 10, ..options(None) };
    let options = Options { compression: Some(zstd), ..small };
    let db = Database::open(Arc::new(storage.clone()), options, Some(schema))?;
    let mut acknowledged = db.lsn()?;
    for lsn in acknowledged + 1..=to {
        let mut tx = db.begin(Mode::Single, TransactionOptions::default())?;
        tx.put(BLOBS, &lsn.to_be_bytes(), &blob(lsn), Precondition::default())?;
        acknowledged = tx.commit()?.lsn;
        if lsn % 25 == 0 {
            db.flush_memtables()?;
        }
        while db.step()? {}
    }
    db.close()?;
    Ok(acknowledged)
}

fn blob(lsn: u64) -> Vec<u8> {
    text(&SeededRandom::new(lsn), 14).into_bytes()
}

/// The power goes at any operation: no acknowledged value is left without its dictionary, and the
/// database goes on writing, and training, from whatever was left.
#[test]
fn a_crash_at_any_operation_leaves_no_value_without_its_dictionary() {
    const COMMITS: u64 = 70;
    let whole = SimulatedStorage::absent(1);
    assert_eq!(run(&whole, COMMITS).unwrap(), COMMITS);
    let operations = whole.operations();
    let (mut images, mut with_dictionary) = (0, 0);
    for at in 0..operations {
        let storage = SimulatedStorage::absent(1);
        storage.crash_at(at);
        assert!(run(&storage, COMMITS).is_err(), "no crash at operation {at}");
        let plan = ImagePlan { seed: at, subsets_max: 8, tears_max: 4, ..ImagePlan::default() };
        for image in storage.images(&plan) {
            images += 1;
            // Opening checks the log; what is there is there whole, then the run goes on.
            let lsn = run(&image, COMMITS).unwrap_or_else(|error| {
                panic!("operation {at}: {error:?}; {:?}", image.description())
            });
            assert_eq!(lsn, COMMITS);
            let schema = Schema::from_json(SCHEMA).unwrap();
            let db = Database::open(Arc::new(image.clone()), options(None), Some(schema)).unwrap();
            for lsn in 1..=COMMITS {
                let found = db.reader().get(BLOBS, &lsn.to_be_bytes()).unwrap().unwrap();
                assert!(found[..] == blob(lsn), "operation {at}, LSN {lsn}");
            }
            with_dictionary += u64::from(db.stats().unwrap().compression.dictionaries > 0);
            if images % 16 == 0 {
                let report = verify::verify(db.shared(), true, &mut |_, _| {}).unwrap();
                assert!(report.ok, "operation {at}: {:?}", report.problems);
            }
        }
    }
    assert!(images > operations && with_dictionary > images / 2, "{images} {with_dictionary}");
}

/// Header and body of a dictionary's record as docs/format.md has them.
#[test]
fn golden_dictionary_record() {
    let storage = Arc::new(MemoryStorage::new());
    let db = open(&storage, options(eager()));
    write(&db, 0, 130, &mut Expected::new());
    db.close().unwrap();
    let log = bytes_of(&storage, "log/00000001.wal");
    let [(at, length)] = records(&log, 20)[..] else { panic!("one dictionary") };
    let record = &log[at..at + length];
    assert_eq!(record[4..8], [20, 1, 0, 0], "kind, must be understood");
    assert_eq!(record[8..16], [0; 8], "no LSN");
    assert_eq!(record[32..36], [1, 0, 0x80, 0x20], "number 1, no dictionary, 4,096 bytes");
}
