//! Many threads on one database: commits of all sizes over segments that are always too small,
//! asynchronous and synchronous, while backups, flushes and at last a close run among them.
//!
//! What was acknowledged is there afterwards, in every structure; nobody waits for ever.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/struck.rs"]
mod struck;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use struck::StruckStorage;
use waferdb::database::Database;
use waferdb::error::ErrorKind;
use waferdb::options::{Durability, Options};
use waferdb::schema::Schema;
use waferdb::storage::Storage;
use waferdb::storage::disk::DiskStorage;
use waferdb::storage::memory::MemoryStorage;
use waferdb::transaction::{Mode, Precondition, TransactionOptions};
use waferdb::verify::verify;

const SCHEMA: &str = r#"{"structures":[
  {"name":"facts","kind":"rows","codec":"raw"},
  {"name":"session","kind":"cache","ttl":60000000000},
  {"name":"audit","kind":"audit"},
  {"name":"context","kind":"context"}]}"#;
const THREADS: u64 = 8;
const COMMITS_MIN: usize = 50;

fn open(storage: Arc<dyn Storage>) -> Database {
    let options =
        Options { segment_bytes_min: 16 << 10, segment_bytes_max: 64 << 10, ..Options::default() };
    Database::open(storage, options, Some(Schema::from_json(SCHEMA).unwrap())).unwrap()
}

/// Sizes from a few bytes to more than a segment, each thread in an order of its own.
fn value(thread: u64, count: u64) -> Vec<u8> {
    let mixed = (thread * 7_919 + count).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let length = match mixed >> 60 {
        0 => 90_000,
        1..4 => 20_000,
        _ => 40 + (mixed >> 32) % 900,
    };
    (0..length).map(|index| (index ^ mixed) as u8).collect()
}

/// Commits until the database is closed; what was acknowledged as durable, or visible before.
fn write(db: &Database, thread: u64, acknowledged: &Mutex<Vec<(u64, u64)>>) {
    for count in 0.. {
        let durability = if count % 5 == 4 { Durability::Async } else { Durability::Sync };
        let options =
            TransactionOptions { durability: Some(durability), ..TransactionOptions::default() };
        let modes = [Mode::Transaction, Mode::Single, Mode::Batch];
        let key = format!("{thread}-{count}");
        let committed = db.begin(modes[(count % 3) as usize], options).and_then(|mut tx| {
            let value = value(thread, count);
            tx.put(1, key.as_bytes(), &value, Precondition::default())?;
            tx.cache_put(2, &key, b"\xa4done", None)?;
            tx.context_set(4, &thread.to_string(), &key, b"\xa4done")?;
            if count % 2 == 0 { tx.commit() } else { tx.commit_chained().map(|done| done.0) }
        });
        match committed {
            Ok(_) => acknowledged.lock().push((thread, count)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                return;
            }
        }
    }
}

fn run(storage: Arc<dyn Storage>, millis: u64) {
    let acknowledged = Mutex::new(Vec::new());
    let db = open(Arc::clone(&storage));
    let writing = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let (db, acknowledged, writing) = (&db, &acknowledged, &writing);
        for thread in 0..THREADS {
            scope.spawn(move || write(db, thread, acknowledged));
        }
        scope.spawn(move || {
            while writing.load(Ordering::Acquire) {
                if db.flush().is_err() || db.stats().is_err() {
                    return;
                }
                let copy = MemoryStorage::new();
                if let Ok(lsn) = db.backup(&copy, &mut |_, _| {}) {
                    let copy = open(Arc::new(copy));
                    assert_eq!(copy.lsn().unwrap(), lsn);
                }
            }
        });
        // A waiter for what never comes is woken by the close.
        scope.spawn(move || {
            let error = db.wait(u64::MAX, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed);
        });
        // A slow disk is given longer for the commits that are wanted, not fewer of them.
        let started = Instant::now();
        let wanted = || acknowledged.lock().len() > COMMITS_MIN;
        while started.elapsed() < Duration::from_millis(millis)
            || !wanted() && started.elapsed() < Duration::from_secs(60)
        {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        writing.store(false, Ordering::Release);
        scope.spawn(move || db.close().unwrap());
        db.close().unwrap();
    });
    let db = open(storage);
    let acknowledged = acknowledged.into_inner();
    println!("{} commits acknowledged", acknowledged.len());
    assert!(acknowledged.len() > COMMITS_MIN, "{} commits", acknowledged.len());
    let reader = db.reader();
    for (thread, count) in acknowledged {
        let key = format!("{thread}-{count}");
        let found = reader.get(1, key.as_bytes()).unwrap();
        assert_eq!(found.as_deref(), Some(&value(thread, count)[..]), "{key}");
        assert!(reader.get(2, key.as_bytes()).unwrap().is_some(), "{key} in the cache");
        assert!(reader.context_get(4, &thread.to_string(), &key).unwrap().is_some(), "{key}");
    }
    let report = verify(db.shared(), true, &mut |_, _| {}).unwrap();
    assert!(report.ok, "{:?}", report.problems);
    db.close().unwrap();
}

#[test]
fn threads_over_memory_lose_nothing_and_all_end() {
    for _ in 0..8 {
        run(Arc::new(MemoryStorage::new()), 250);
    }
}

#[test]
fn threads_over_the_disk_lose_nothing_and_all_end() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let path = directory.path().join(round.to_string());
        run(Arc::new(DiskStorage::new(path)), 400);
    }
}

/// Commits until an error; whether it ended in one that tells of a failed log, or by panicking.
fn write_until_struck(db: &Database, thread: u64, acknowledged: &Mutex<Vec<String>>) {
    for count in 0.. {
        let key = format!("{thread}-{count}");
        let committed = db.begin(Mode::Single, TransactionOptions::default()).and_then(|mut tx| {
            tx.put(1, key.as_bytes(), b"kept", Precondition::default())?;
            tx.commit()
        });
        match committed {
            Ok(_) => acknowledged.lock().push(key),
            Err(error) => {
                let told = matches!(error.kind(), ErrorKind::Failed | ErrorKind::UnknownOutcome);
                return assert!(told, "{error}");
            }
        }
    }
}

/// A panic of whoever leads, a caller (without `background`) or the log's own thread.
fn panic_in_the_lead(background: bool) {
    let armed = Arc::new(AtomicBool::new(false));
    let strike = Arc::clone(&armed);
    let storage: Arc<dyn Storage> = Arc::new(StruckStorage::new(move || {
        // Once: whatever comes later finds a disk that works, and must not use it.
        assert!(!strike.swap(false, Ordering::SeqCst), "as a broken invariant of the writer would");
        Ok(())
    }));
    let schema = Schema::from_json(SCHEMA).unwrap();
    let options = Options { background, ..Options::default() };
    let db = Database::open(Arc::clone(&storage), options, Some(schema)).unwrap();
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let (ended, all_ended) = mpsc::channel::<()>();
    let threads = (0..THREADS).map(|thread| {
        let (db, acknowledged, ended) = (db.clone(), Arc::clone(&acknowledged), ended.clone());
        std::thread::Builder::new().spawn(move || {
            let _ended = ended;
            write_until_struck(&db, thread, &acknowledged);
        })
    });
    let threads: Vec<_> = threads.map(Result::unwrap).collect();
    drop(ended);
    while acknowledged.lock().len() < COMMITS_MIN {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    armed.store(true, Ordering::SeqCst);
    let waited = all_ended.recv_timeout(Duration::from_secs(60));
    assert_eq!(waited, Err(mpsc::RecvTimeoutError::Disconnected), "somebody waits for ever");
    let panicked = threads.into_iter().filter_map(|thread| thread.join().err()).count();
    assert!(panicked <= 1, "{panicked} callers panicked: one led");
    let closing = db.clone();
    let (closed, is_closed) = mpsc::channel();
    let closer = std::thread::Builder::new().spawn(move || closed.send(closing.close().is_ok()));
    is_closed.recv_timeout(Duration::from_secs(60)).expect("the close returns");
    closer.unwrap().join().unwrap().unwrap();
    drop(db);
    let db = open(storage);
    for key in acknowledged.lock().iter() {
        let found = db.reader().get(1, key.as_bytes()).unwrap();
        assert_eq!(found.as_deref(), Some(&b"kept"[..]), "{key}");
    }
    db.close().unwrap();
}

#[test]
fn a_leader_that_panics_leaves_no_follower_waiting() {
    for _ in 0..5 {
        panic_in_the_lead(false);
        panic_in_the_lead(true);
    }
}
