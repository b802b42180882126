//! The whole engine under shuttle, which runs one thread at a time and chooses who goes on at each
//! lock, wait and atomic (`src/sync.rs`): what every interleaving of a few threads must keep.
//!
//! `make interleavings` runs it; without `--cfg shuttle` nothing is in here. Each model runs
//! `WAFERDB_SCHEDULES` schedules (200) chosen at random and as many by PCT. Nobody waits for ever:
//! shuttle fails a schedule in which no thread can go on, and one that takes too many steps. A
//! failure leaves its schedule in a file; `WAFERDB_SCHEDULE=FILE` with the test's name replays it.
//!
//! Without background threads (`quiet`) a thread that waits in vain is a deadlock at once; with
//! them (`busy`) bounded waits end by themselves, and it is found by the bound on steps.

#![cfg(shuttle)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/struck.rs"]
mod struck;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shuttle::rand::Rng;
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
use struck::StruckStorage;
use waferdb::clock::{Clock, Micros, SeededRandom};
use waferdb::database::Database;
use waferdb::error::{Error, ErrorKind, Result};
use waferdb::options::{Durability, Options};
use waferdb::propagation::Policy;
use waferdb::schema::Schema;
use waferdb::storage::Storage;
use waferdb::storage::memory::MemoryStorage;
use waferdb::sync::thread;
use waferdb::transaction::{Mode, Precondition, TransactionOptions};
use waferdb::vector::Search;
use waferdb::verify::verify;

const SCHEMA: &str = r#"{"structures":[
  {"name":"facts","kind":"rows","codec":"raw"},
  {"name":"vectors","kind":"vectors","dim":4,"metric":"l2"}]}"#;
const FACTS: u32 = 1;
const VECTORS: u32 = 2;

/// A thread that changes places with others this often in one schedule waits for nothing.
const STEPS_MAX: usize = 400_000;
const STACK_BYTES: usize = 1 << 20;
/// Changes of priority in a schedule of PCT: bugs that need so many are found soonest.
const PCT_DEPTH: usize = 4;

fn explore(model: impl Fn() + Copy + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).to_path_buf();
    config.failure_persistence = FailurePersistence::File(Some(folder));
    if let Ok(schedule) = std::env::var("WAFERDB_SCHEDULE") {
        Runner::new(ReplayScheduler::new_from_file(schedule).unwrap(), config).run(model);
        return;
    }
    let schedules = std::env::var("WAFERDB_SCHEDULES");
    let schedules = schedules.map_or(200, |count| count.parse().unwrap());
    let ran = Runner::new(RandomScheduler::new(schedules), config.clone()).run(model);
    let ran = ran + Runner::new(PctScheduler::new(PCT_DEPTH, schedules), config).run(model);
    println!("{ran} schedules");
}

/// A number below `bound`, of the schedule: replayed with it.
fn draw(bound: u64) -> u64 {
    shuttle::rand::thread_rng().gen_range(0..bound)
}

/// Moves on by itself, so that what is due after a time comes due; no thread waits for it.
struct Ticking(AtomicU64);

const TICK_NANOS: u64 = 5_000_000;

impl Clock for Ticking {
    fn wall_micros(&self) -> Micros {
        1_700_000_000_000_000 + self.monotonic_nanos() as i64 / 1_000
    }

    fn monotonic_nanos(&self) -> u64 {
        self.0.fetch_add(TICK_NANOS, Ordering::Relaxed)
    }
}

/// The database without threads of its own.
fn quiet() -> Options {
    Options {
        background: false,
        memory_bytes: 4 << 20,
        memtable_bytes: 1 << 20,
        segment_bytes_min: 16 << 10,
        segment_bytes_max: 16 << 10,
        fan_out: 2,
        clock: Arc::new(Ticking(AtomicU64::new(0))),
        random: Arc::new(SeededRandom::new(1)),
        ..Options::default()
    }
}

/// With its background threads.
fn busy() -> Options {
    Options { background: true, ..quiet() }
}

fn open(storage: &Arc<dyn Storage>, options: Options) -> Database {
    let schema = Schema::from_json(SCHEMA).unwrap();
    Database::open(Arc::clone(storage), options, Some(schema)).unwrap()
}

fn in_memory(options: Options) -> (Arc<dyn Storage>, Database) {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let db = open(&storage, options);
    (storage, db)
}

fn committing(durability: Durability) -> TransactionOptions {
    TransactionOptions { durability: Some(durability), ..TransactionOptions::default() }
}

fn put(db: &Database, keys: &[&str], value: &[u8], durability: Durability) -> Result<u64> {
    let mut tx = db.begin(Mode::Batch, committing(durability))?;
    for key in keys {
        tx.put(FACTS, key.as_bytes(), value, Precondition::default())?;
    }
    tx.commit().map(|receipt| receipt.lsn)
}

fn get(db: &Database, key: &str) -> Option<Vec<u8>> {
    db.reader().get(FACTS, key.as_bytes()).unwrap().map(|value| value.to_vec())
}

fn spawn<T: Send + 'static>(
    db: &Database,
    work: impl FnOnce(&Database) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let db = db.clone();
    thread::spawn(move || work(&db))
}

/// Every other commit of every other thread is asynchronous.
fn durability(thread: usize, count: usize) -> Durability {
    if (thread + count) % 4 == 3 { Durability::Async } else { Durability::Sync }
}

/// Commits, and looks for each at once; their LSNs.
fn commit_some(db: &Database, thread: usize, count: usize, bytes: usize) -> Vec<u64> {
    let commit = |index| {
        let key = format!("{thread}-{index}");
        let value = vec![thread as u8; bytes];
        let lsn = put(db, &[&key], &value, durability(thread, index)).unwrap();
        assert_eq!(get(db, &key), Some(value), "{key} was acknowledged");
        lsn
    };
    (0..count).map(commit).collect()
}

/// Closes, opens again, and finds all of it sound.
fn assert_kept(storage: &Arc<dyn Storage>, threads: usize, count: usize) {
    let db = open(storage, quiet());
    for thread in 0..threads {
        for index in 0..count {
            assert!(get(&db, &format!("{thread}-{index}")).is_some(), "{thread}-{index}");
        }
    }
    assert_sound(&db);
    db.close().unwrap();
}

fn assert_sound(db: &Database) {
    let report = verify(db.shared(), true, &mut |_, _| {}).unwrap();
    assert!(report.ok, "{:?}", report.problems);
}

fn assert_gapless(mut lsns: Vec<u64>) {
    lsns.sort_unstable();
    assert!(lsns.iter().copied().eq(1..=lsns.len() as u64), "{lsns:?}");
}

/// The models prove nothing where this passes.
#[test]
#[should_panic(expected = "deadlock")]
fn a_thread_that_waits_in_vain_is_found() {
    explore(|| {
        let (_storage, db) = in_memory(quiet());
        let waiter = spawn(&db, |db| db.wait(u64::MAX, None).unwrap());
        put_both(&db, 1);
        waiter.join().unwrap();
    });
}

fn commit_in_company(serve: bool, bytes: usize) {
    const THREADS: usize = 3;
    const COMMITS: usize = 2;
    let (storage, db) = in_memory(quiet());
    let server = serve.then(|| spawn(&db, |db| db.shared().pipeline.serve()));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| spawn(&db, move |db| commit_some(db, thread, COMMITS, bytes)))
        .collect();
    assert_gapless(threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect());
    db.close().unwrap();
    if let Some(server) = server {
        server.join().unwrap();
    }
    assert_kept(&storage, THREADS, COMMITS);
}

#[test]
fn committers_lead_one_another_and_all_return() {
    explore(|| commit_in_company(false, 50));
}

#[test]
fn committers_are_served_by_the_log_s_thread_and_all_return() {
    explore(|| commit_in_company(true, 50));
}

#[test]
fn commits_roll_segments_while_others_commit() {
    explore(|| commit_in_company(draw(2) == 1, 6_000));
}

/// From the `left`-th write or sync on, each fails.
fn strike(left: &AtomicU64) -> Result<()> {
    match left.load(Ordering::SeqCst) {
        NEVER => Ok(()),
        0 => Err(Error::new(ErrorKind::Storage, "the disk is gone")),
        some => {
            left.store(some - 1, Ordering::SeqCst);
            Ok(())
        }
    }
}

const NEVER: u64 = u64::MAX;

/// A commit that is told of the log's failure and not of another.
fn is_told(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Failed | ErrorKind::UnknownOutcome)
}

fn fail_a_leader(serve: bool, at: u64) {
    const THREADS: usize = 3;
    const COMMITS: usize = 2;
    let left = Arc::new(AtomicU64::new(NEVER));
    let theirs = Arc::clone(&left);
    let storage: Arc<dyn Storage> = Arc::new(StruckStorage::new(move || strike(&theirs)));
    let db = open(&storage, quiet());
    left.store(at, Ordering::SeqCst);
    let server = serve.then(|| spawn(&db, |db| db.shared().pipeline.serve()));
    let commit = |thread: usize| {
        move |db: &Database| {
            let mut acknowledged = Vec::new();
            for index in 0..COMMITS {
                let key = format!("{thread}-{index}");
                match put(db, &[&key], b"kept", Durability::Sync) {
                    Ok(_) => acknowledged.push(key),
                    Err(error) => assert!(is_told(&error), "{error}"),
                }
            }
            acknowledged
        }
    };
    let threads: Vec<_> = (0..THREADS).map(|thread| spawn(&db, commit(thread))).collect();
    let acknowledged: Vec<_> =
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    acknowledged.iter().for_each(|key| assert_eq!(get(&db, key).as_deref(), Some(&b"kept"[..])));
    // Who was told of everything needs no second word; else the close itself may be struck.
    let failed = db.shared().pipeline.failure().is_some();
    match db.close() {
        Ok(()) => {}
        Err(error) => assert!(!failed && is_told(&error), "{error}"),
    }
    if let Some(server) = server {
        server.join().unwrap();
    }
    drop(db);
    left.store(NEVER, Ordering::SeqCst);
    let db = open(&storage, quiet());
    acknowledged.iter().for_each(|key| assert_eq!(get(&db, key).as_deref(), Some(&b"kept"[..])));
    assert_sound(&db);
    db.close().unwrap();
}

#[test]
fn followers_of_a_leader_whose_write_fails_are_all_told() {
    explore(|| fail_a_leader(draw(2) == 1, draw(6)));
}

/// Two keys that every commit writes alike: no reader sees them differ.
fn assert_whole(db: &Database) {
    let reader = db.reader_now(None).unwrap();
    let left = reader.get(FACTS, b"left").unwrap().map(|value| value.to_vec());
    // Between the two a flush, a merge or a commit may come.
    let right = reader.get(FACTS, b"right").unwrap().map(|value| value.to_vec());
    assert_eq!(left, right, "at {}", reader.lsn().unwrap());
    reader.close();
}

fn put_both(db: &Database, value: u8) -> u64 {
    put(db, &["left", "right"], &[value; 64], Durability::Sync).unwrap()
}

#[test]
fn a_flush_beside_commits_and_readers_shows_nobody_half() {
    explore(|| {
        let (storage, db) = in_memory(quiet());
        put_both(&db, 0);
        let writers = [1, 2].map(|value| spawn(&db, move |db| put_both(db, value)));
        let flusher = spawn(&db, |db| {
            db.flush_memtables().unwrap();
            db.flush_memtables().unwrap();
        });
        assert_whole(&db);
        assert_whole(&db);
        for writer in writers {
            writer.join().unwrap();
        }
        flusher.join().unwrap();
        assert_whole(&db);
        db.close().unwrap();
        let db = open(&storage, quiet());
        assert_whole(&db);
        assert_eq!(db.lsn().unwrap(), 3);
        assert_sound(&db);
        db.close().unwrap();
    });
}

/// Versions 1.. of both keys, each in a run of its own, so that merges are due.
fn in_runs(db: &Database, versions: u8) {
    for value in 1..=versions {
        put_both(db, value);
        db.flush_memtables().unwrap();
    }
}

fn merge_all(db: &Database) {
    while db.merge_step().unwrap() {}
}

#[test]
fn a_merge_s_swap_leaves_pinned_readers_what_they_see() {
    explore(|| {
        let (storage, db) = in_memory(quiet());
        in_runs(&db, 3);
        let pinned = db.reader_at(2).unwrap();
        let reader = spawn(&db, move |db| {
            for _ in 0..2 {
                assert_eq!(pinned.get(FACTS, b"left").unwrap().as_deref(), Some(&[2; 64][..]));
                assert_whole(db);
            }
        });
        let merger = spawn(&db, merge_all);
        let writer = spawn(&db, |db| {
            let mut tx = db.begin(Mode::Transaction, TransactionOptions::default()).unwrap();
            tx.delete(FACTS, b"left").unwrap();
            tx.delete(FACTS, b"right").unwrap();
            tx.commit().unwrap();
            db.flush_memtables().unwrap();
        });
        for thread in [reader, merger, writer] {
            thread.join().unwrap();
        }
        merge_all(&db);
        assert_eq!(get(&db, "left"), None);
        db.close().unwrap();
        let db = open(&storage, quiet());
        assert_eq!(get(&db, "right"), None);
        assert_sound(&db);
        db.close().unwrap();
    });
}

#[test]
fn what_is_forgotten_beside_a_merge_is_never_answered_again() {
    explore(|| {
        let (storage, db) = in_memory(quiet());
        in_runs(&db, 3);
        let pinned = db.reader_at(2).unwrap();
        let merger = spawn(&db, merge_all);
        let flusher = spawn(&db, |db| db.flush_memtables().map(drop).unwrap());
        let mut tx = db.begin(Mode::Transaction, TransactionOptions::default()).unwrap();
        tx.forget(FACTS, &[b"left"]).unwrap();
        tx.commit().unwrap();
        assert_eq!(pinned.get(FACTS, b"left").unwrap(), None, "forgotten at every LSN");
        assert_eq!(pinned.get(FACTS, b"right").unwrap().as_deref(), Some(&[2; 64][..]));
        merger.join().unwrap();
        flusher.join().unwrap();
        assert_eq!(pinned.get(FACTS, b"left").unwrap(), None);
        drop(pinned);
        db.close().unwrap();
        let db = open(&storage, quiet());
        assert_eq!(get(&db, "left"), None);
        assert_sound(&db);
        db.close().unwrap();
    });
}

#[test]
fn a_snapshot_released_beside_merges_and_retention_saw_its_own_versions() {
    explore(|| {
        let options = || Options { history_micros: Some(0), ..quiet() };
        let (storage, db) = in_memory(options());
        in_runs(&db, 2);
        let reader = spawn(&db, |db| {
            let reader = db.reader_now(None).unwrap();
            let seen = reader.lsn().unwrap();
            for key in ["left", "right"] {
                let value = reader.get(FACTS, key.as_bytes()).unwrap().unwrap();
                assert_eq!(*value, [seen as u8; 64], "at {seen}");
            }
            reader.close();
        });
        // An LSN of the past: what it shows, or that it is gone.
        let past = spawn(&db, |db| match db.reader_at(1) {
            Ok(reader) => {
                let value = reader.get(FACTS, b"left").unwrap().unwrap();
                assert_eq!(*value, [1; 64]);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::History, "{error}"),
        });
        let keeper = spawn(&db, |db| {
            db.shared().step().unwrap();
            db.flush_memtables().unwrap();
            merge_all(db);
        });
        put_both(&db, 3);
        for thread in [reader, past, keeper] {
            thread.join().unwrap();
        }
        assert_eq!(get(&db, "left"), Some(vec![3; 64]));
        db.close().unwrap();
        let db = open(&storage, options());
        assert_whole(&db);
        assert_sound(&db);
        db.close().unwrap();
    });
}

/// Between asking for the newest LSN and pinning it, a commit came and the floor rose to it.
#[test]
fn a_reader_of_now_was_refused_as_older_than_the_history_kept() {
    explore(|| {
        let (_storage, db) = in_memory(Options { history_micros: Some(0), ..quiet() });
        put_both(&db, 1);
        let keeper = spawn(&db, |db| {
            put_both(db, 2);
            db.shared().step().unwrap();
        });
        assert_whole(&db);
        keeper.join().unwrap();
        db.close().unwrap();
    });
}

fn put_vector(db: &Database, key: u8) {
    let mut tx = db.begin(Mode::Single, TransactionOptions::default()).unwrap();
    tx.put_vector(VECTORS, &format!("{key}"), &[f32::from(key), 1.0, 2.0, 3.0]).unwrap();
    tx.commit().unwrap();
}

fn assert_found(db: &Database, key: u8) {
    let search = Search { k: 1, exact: false, ef: None };
    let query = [f32::from(key), 1.0, 2.0, 3.0];
    let hits = db.reader().search(VECTORS, &query, &search, None).unwrap();
    assert_eq!(hits.first().map(|hit| hit.key.clone()), Some(format!("{key}")));
}

#[test]
fn the_background_threads_beside_commits_and_policies_show_what_was_acknowledged() {
    explore(|| {
        let options = Options { seal_vectors: Some(2), ..busy() };
        let (storage, db) = in_memory(options);
        let writers = [0, 3].map(|first| {
            spawn(&db, move |db| {
                for key in first..first + 2 {
                    put_vector(db, key);
                    assert_found(db, key);
                }
            })
        });
        let changer = spawn(&db, |db| {
            db.set_policy("vectors", Policy::Lazy).unwrap();
            db.set_policy("vectors", Policy::hybrid_default()).unwrap();
        });
        for thread in writers {
            thread.join().unwrap();
        }
        changer.join().unwrap();
        // Its policy lets the tail be sealed again, which nobody but that thread does.
        while db.stats().unwrap().lag["vectors"].unsealed >= 2 {
            thread::yield_now();
        }
        db.close().unwrap();
        let db = open(&storage, quiet());
        [0, 1, 3, 4].into_iter().for_each(|key| assert_found(&db, key));
        assert_sound(&db);
        db.close().unwrap();
    });
}

fn close_beside(options: fn() -> Options, serve: bool) {
    let (storage, db) = in_memory(options());
    put_both(&db, 1);
    let server = serve.then(|| spawn(&db, |db| db.shared().pipeline.serve()));
    let commit = |thread: usize| {
        move |db: &Database| {
            let mut acknowledged = Vec::new();
            for index in 0..2 {
                let key = format!("{thread}-{index}");
                match put(db, &[&key], b"kept", durability(thread, index + 2)) {
                    Ok(_) => acknowledged.push(key),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{error}"),
                }
            }
            acknowledged
        }
    };
    let writers = [0, 1].map(|thread| spawn(&db, commit(thread)));
    let reader = spawn(&db, |db| match db.reader().get(FACTS, b"left") {
        Ok(value) => assert_eq!(value.as_deref(), Some(&[1; 64][..])),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{error}"),
    });
    let closer = spawn(&db, |db| db.close().unwrap());
    db.close().unwrap();
    closer.join().unwrap();
    reader.join().unwrap();
    let acknowledged: Vec<_> =
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    if let Some(server) = server {
        server.join().unwrap();
    }
    drop(db);
    let db = open(&storage, quiet());
    acknowledged.iter().for_each(|key| assert_eq!(get(&db, key).as_deref(), Some(&b"kept"[..])));
    assert_sound(&db);
    db.close().unwrap();
}

#[test]
fn a_close_beside_commits_readers_and_another_close_returns() {
    explore(|| close_beside(quiet, draw(2) == 1));
}

#[test]
fn a_close_beside_the_background_threads_returns() {
    explore(|| close_beside(busy, false));
}
