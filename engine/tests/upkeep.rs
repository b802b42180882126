//! What upkeep does when something fails: each test is named after the failure it is about.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use waferdb::clock::{ManualClock, SeededRandom};
use waferdb::database::Database;
use waferdb::error::ErrorKind;
use waferdb::log::segment;
use waferdb::options::{Mode as Opening, Options};
use waferdb::schema::Schema;
use waferdb::storage::simulated::{Fault, FaultKind, OperationKind, SimulatedStorage};
use waferdb::transaction::{Mode, Precondition, TransactionOptions};

const SCHEMA: &str = r#"{"structures":[{"name":"facts","kind":"rows","codec":"msgpack",
"indexes":[["user"]]},{"name":"events","kind":"events"},{"name":"context","kind":"context"}]}"#;
const FACTS: u32 = 1;

fn options(mode: Opening) -> Options {
    Options {
        mode,
        background: false,
        memtable_bytes: 64 << 10,
        fan_out: 3,
        segment_bytes_min: 16 << 10,
        segment_bytes_max: 32 << 10,
        clock: Arc::new(ManualClock::new(1_700_000_000_000_000)),
        random: Arc::new(SeededRandom::new(7)),
        ..Options::default()
    }
}

fn open(storage: &SimulatedStorage) -> Database {
    let declared = Schema::from_json(SCHEMA).unwrap();
    let storage = Arc::new(storage.clone());
    Database::open(storage, options(Opening::ReadWrite), Some(declared)).unwrap()
}

/// A document of two fields, long enough to lie in the log.
fn row(user: u8, text: &str) -> Vec<u8> {
    let mut row = vec![0x82, 0xA4];
    row.extend_from_slice(b"user");
    row.extend_from_slice(&[0xA2, b'u', b'0' + user % 10]);
    row.extend_from_slice(&[0xA4]);
    row.extend_from_slice(b"text");
    row.extend_from_slice(&[0xD9, text.len() as u8]);
    row.extend_from_slice(text.as_bytes());
    row
}

fn put(db: &Database, key: &str, user: u8, text: &str) -> waferdb::error::Result<u64> {
    let mut tx = db.begin(Mode::Single, TransactionOptions::default())?;
    tx.put(FACTS, key.as_bytes(), &row(user, text), Precondition::default())?;
    tx.commit().map(|receipt| receipt.lsn)
}

const TEXT: &str = "sixty-four bytes and some more, so that the value lies in the log itself";

#[test]
fn a_flush_that_failed_is_tried_again_before_memory_is_full() {
    let storage = SimulatedStorage::new(1);
    let db = open(&storage);
    storage.inject(Fault::nth(OperationKind::Write, "runs/", 0, FaultKind::Enospc));
    let mut refused = 0;
    for number in 0..2_000_u32 {
        match put(&db, &format!("k{number}"), number as u8, TEXT) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full);
                refused += 1;
            }
        }
        while db.step().unwrap_or(false) {}
    }
    let stats = db.stats().unwrap();
    assert!(stats.by.iter().any(|by| by.1 == "flush"), "flushed after all");
    assert!(stats.memory["memtables"] < 64 << 10, "{:?}", stats.memory);
    assert!(refused <= 1, "{refused} commits were refused for one failed write");
}

#[test]
fn a_lost_old_value_does_not_stop_the_commit_that_replaces_it() {
    let storage = SimulatedStorage::new(2);
    let db = open(&storage);
    put(&db, "old", 1, TEXT).unwrap();
    for number in 0..400_u32 {
        put(&db, &format!("k{number}"), number as u8, TEXT).unwrap();
    }
    db.flush_memtables().unwrap();
    let place = db.shared().place_of(1).unwrap().unwrap();
    db.close().unwrap();
    drop(db);
    storage.flip(&segment::path(place.segment), place.offset + u64::from(place.length) - 1, 0x10);
    let db = open(&storage);
    let lost = db.reader().get(FACTS, b"old").map_err(|error| error.kind());
    assert_eq!(lost, Err(ErrorKind::Corruption));
    put(&db, "old", 2, "short").unwrap();
    db.close().unwrap();
    drop(db);
    for _ in 0..2 {
        let db = open(&storage);
        assert_eq!(db.reader().get(FACTS, b"old").unwrap().as_deref(), Some(&row(2, "short")[..]));
        db.close().unwrap();
    }
}

#[test]
fn a_torn_checkpoint_does_not_cost_a_replay_of_the_whole_log() {
    let storage = SimulatedStorage::new(3);
    let db = open(&storage);
    for number in 0..400_u32 {
        put(&db, &format!("k{number}"), number as u8, TEXT).unwrap();
    }
    db.flush_memtables().unwrap();
    put(&db, "last", 1, TEXT).unwrap();
    // The next checkpoint is torn behind its group's header.
    let before = storage.operations();
    let torn = storage.clone();
    db.flush_memtables().unwrap();
    let history = storage.history();
    let log = history.iter().enumerate().skip(before as usize);
    let mut writes = log.filter(|(_, done)| {
        done.kind == OperationKind::Write && done.path.starts_with("log/") && done.bytes > 512
    });
    let (at, write) = writes.next_back().expect("a checkpoint was written");
    let (path, from, bytes) = (write.path.to_string(), write.offset, write.bytes);
    assert!(at >= before as usize);
    drop(db);
    for offset in (from + 512..from + bytes).step_by(64) {
        torn.flip(&path, offset, 0xFF);
    }
    let db = open(&torn);
    assert_eq!(db.stats().unwrap().rebuilt, None);
    assert!(db.stats().unwrap().torn_tail.is_some(), "the checkpoint was torn");
    let runs = db.stats().unwrap().files.iter().filter(|file| file.0.starts_with("runs/")).count();
    assert!(runs > 0, "the runs of the checkpoint before are in use");
    assert_eq!(db.reader().count(FACTS).unwrap(), 401);
}

#[test]
fn a_reader_takes_no_step_that_writes() {
    let storage = SimulatedStorage::new(4);
    let db = open(&storage);
    for number in 0..900_u32 {
        put(&db, &format!("k{number}"), number as u8, TEXT).unwrap();
        if number % 100 == 99 {
            db.flush_memtables().unwrap();
        }
    }
    db.close().unwrap();
    drop(db);
    let before = storage.fingerprint();
    let reader = Arc::new(storage.clone());
    let reader = Database::open(reader, options(Opening::Read), None).unwrap();
    while reader.step().unwrap() {}
    assert_eq!(reader.reader().count(FACTS).unwrap(), 900);
    reader.close().unwrap();
    assert_eq!(storage.fingerprint(), before);
}

#[test]
fn a_dropped_structure_takes_its_files_along() {
    let storage = SimulatedStorage::new(5);
    let db = open(&storage);
    for number in 0..50_u32 {
        put(&db, &format!("k{number}"), number as u8, TEXT).unwrap();
    }
    db.flush_memtables().unwrap();
    let runs = |db: &Database| {
        let files = db.stats().unwrap().files;
        files.iter().filter(|file| file.0.starts_with("runs/")).count()
    };
    let on_disk = || storage.paths().iter().filter(|path| path.starts_with("runs/")).count();
    assert_eq!(on_disk(), runs(&db));
    db.drop_structure("facts").unwrap();
    assert_eq!(on_disk(), runs(&db));
    db.close().unwrap();
}

/// Rows were merged without what had been forgotten since the last flush. A crash later the forget
/// was replayed, found no row to take out of the view's groups, and left them as they were.
#[test]
fn a_merge_leaves_what_the_replay_of_a_newer_forget_needs() {
    let schema = r#"{"structures":[{"name":"facts","kind":"rows","codec":"msgpack"},
        {"name":"profile","kind":"view","source":"facts","by":["user"],
        "function":{"name":"custom"}}]}"#;
    let open = |storage: &SimulatedStorage| {
        let declared = Schema::from_json(schema).unwrap();
        let storage = Arc::new(storage.clone());
        Database::open(storage, options(Opening::ReadWrite), Some(declared)).unwrap()
    };
    let storage = SimulatedStorage::new(0);
    let db = open(&storage);
    put(&db, "k1", 1, TEXT).unwrap();
    for _ in 0..4 {
        // Runs that overlap are merged.
        put(&db, "k0", 2, TEXT).unwrap();
        put(&db, "k9", 2, TEXT).unwrap();
        assert!(db.flush_memtables().unwrap());
    }
    let mut tx = db.begin(Mode::Single, TransactionOptions::default()).unwrap();
    tx.forget(FACTS, &[b"k1"]).unwrap();
    tx.commit().unwrap();
    assert!(db.merge_step().unwrap(), "there is something to merge");
    while db.merge_step().unwrap() {}
    drop((tx, db));
    let db = open(&storage.synced_only());
    let (stale, _) = db.reader().view_stale(2, b"", None, 9).unwrap();
    assert_eq!(stale.len(), 1, "the group of the forgotten row is gone: {stale:?}");
    let report = waferdb::verify::verify(db.shared(), true, &mut |_, _| {}).unwrap();
    assert!(report.ok, "{:?}", report.problems);
}

/// A run could not be read while a durable commit was applied: its caller got the error of the read
/// and had to take the commit for undone.
#[test]
fn a_durable_commit_that_cannot_be_applied_is_not_told_as_undone() {
    let storage = SimulatedStorage::new(0);
    let db = open(&storage);
    put(&db, "k1", 1, TEXT).unwrap();
    db.flush_memtables().unwrap();
    drop(db);
    let db = open(&storage);
    storage.inject(Fault::nth(OperationKind::Read, "runs/", 0, FaultKind::Eio));
    let mut tx = db.begin(Mode::Single, TransactionOptions::default()).unwrap();
    tx.put(FACTS, b"k1", &row(2, TEXT), Precondition::default()).unwrap();
    let error = tx.commit().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{error:?}");
    let txn = tx.txn();
    assert_eq!(error.txn(), Some(txn.as_str()));
    drop((tx, db));
    let db = open(&storage);
    assert!(db.outcome(&txn).unwrap(), "it was durable");
    assert_eq!(db.reader().get(FACTS, b"k1").unwrap().as_deref(), Some(&row(2, TEXT)[..]));
}
