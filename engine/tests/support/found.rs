//! What the model found once, each by itself and as small as it could be made.

use std::sync::Arc;
use std::time::Duration;

use waferdb::clock::ManualClock;
use waferdb::database::Database;
use waferdb::error::{ErrorKind, Result};
use waferdb::options::{Durability, Mode as OpenMode};
use waferdb::ordered::run::RUNS_DIR;
use waferdb::storage::simulated::{ImagePlan, SimulatedStorage};
use waferdb::transaction::{Mode, TransactionOptions};
use waferdb::verify::verify;

use super::versions::*;
use super::writes::write;
use super::{BEGINNING, Run};

/// A database with the model's schema, its pieces as small as a run's.
fn opened(storage: &SimulatedStorage, clock: &Arc<ManualClock>) -> Database {
    try_open(storage, clock).unwrap()
}

fn try_open(storage: &SimulatedStorage, clock: &Arc<ManualClock>) -> Result<Database> {
    let mut run = Run::new(0);
    run.clock = clock.clone();
    run.open_on(storage, OpenMode::ReadWrite)
}

fn committed(db: &Database, ops: &[Op]) -> Result<Lsn> {
    let mut transaction = db.begin(Mode::Transaction, TransactionOptions::default())?;
    ops.iter().try_for_each(|op| write(&mut transaction, op))?;
    Ok(transaction.commit()?.lsn)
}

fn fact(user: &str) -> Fact {
    let (user, text) = (user.to_owned(), "text".to_owned());
    Fact { user, topic: None, n: 1, slug: None, text }
}

/// A row was accepted whose index entry, its field and its key, is longer than a run takes; no
/// memtable could be written from then on. It is refused when it is put, or it is flushed.
#[test]
fn a_long_key_beside_a_long_indexed_field_does_not_stop_the_flush() {
    let storage = SimulatedStorage::new(0);
    let db = opened(&storage, &Arc::new(ManualClock::new(BEGINNING)));
    let long = Op::PutFact("k".repeat(60_000), fact(&"u".repeat(60_000)));
    match committed(&db, &[long]) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::Limit, "{error:?}"),
    }
    db.flush_memtables().unwrap();
    db.close().unwrap();
}

/// What holds a NUL could be written and not be forgotten: the encoded key is no text.
#[test]
fn an_edge_and_a_context_with_a_nul_are_forgotten() {
    let storage = SimulatedStorage::new(0);
    let db = opened(&storage, &Arc::new(ManualClock::new(BEGINNING)));
    let edge = ("n\0".to_owned(), "r".to_owned(), "o".to_owned());
    let (scope, name) = ("a\0".to_owned(), "m".to_owned());
    let set = Op::ContextSet(scope.clone(), name.clone(), vec![0xC0]);
    committed(&db, &[Op::Link(edge.clone(), None), set]).unwrap();
    committed(&db, &[Op::ForgetEdge(edge), Op::ForgetContext(scope, name)]).unwrap();
    let reader = db.reader_at(1).unwrap();
    assert_eq!((reader.count(ENTITIES).unwrap(), reader.count(CONTEXT).unwrap()), (0, 0));
}

/// A forgotten key was taken by `verify` for other short keys of other structures, whose hashes
/// were the same: it reported what is sound, and would not have missed what is lost.
#[test]
fn forgetting_a_short_key_hides_no_other_from_verify() {
    let storage = SimulatedStorage::new(0);
    let db = opened(&storage, &Arc::new(ManualClock::new(BEGINNING)));
    for last in b'0'..=b'9' {
        let other = Op::PutBlob(vec![b'k', b'1', last], b"value".to_vec());
        committed(&db, &[other, Op::PutFact("k10".to_owned(), fact("ann"))]).unwrap();
    }
    committed(&db, &[Op::ForgetFact("k10".to_owned())]).unwrap();
    let report = verify(db.shared(), true, &mut |_, _| {}).unwrap();
    assert!(report.ok, "{:?}", report.problems);
}

/// A row came and went in the commit that then filled the cache under its key: the answer changed
/// when the row's tombstone was gone.
#[test]
fn what_a_cache_answers_does_not_depend_on_the_tombstone_of_its_row() {
    let storage = SimulatedStorage::new(0);
    let db = opened(&storage, &Arc::new(ManualClock::new(BEGINNING)));
    let (key, value) = ("k".to_owned(), vec![0xC0]);
    let (cache, ttl) = (WARM, 1_000_000);
    let put = Op::CachePut { cache, key: key.clone(), value, ttl, expires: BEGINNING + ttl };
    committed(&db, &[Op::PutFact(key.clone(), fact("ann")), Op::DeleteFact(key), put]).unwrap();
    let before = db.reader().get(WARM, b"k").unwrap();
    db.rebuild(FACTS, |_, _| {}).unwrap();
    db.flush_memtables().unwrap();
    assert_eq!(db.reader().get(WARM, b"k").unwrap(), before);
}

/// The newest version of a cached value expired and took along the older one, which a snapshot
/// still saw.
#[test]
fn a_held_snapshot_keeps_a_cached_value_whose_successor_expired() {
    let storage = SimulatedStorage::new(0);
    let clock = Arc::new(ManualClock::new(BEGINNING));
    let db = opened(&storage, &clock);
    let put = |value: u8, ttl: i64| {
        let (key, value) = ("k".to_owned(), vec![value]);
        Op::CachePut { cache: SESSION, key, value, ttl, expires: BEGINNING + ttl }
    };
    let held = db.reader_at(committed(&db, &[put(1, 9_000_000)]).unwrap()).unwrap();
    committed(&db, &[put(2, 1_000_000)]).unwrap();
    clock.advance(Duration::from_secs(2));
    for _ in 0..4 {
        db.flush_memtables().unwrap();
        committed(&db, &[Op::Link(("a".into(), "b".into(), "c".into()), None)]).unwrap();
        while db.merge_step().unwrap() {}
    }
    assert_eq!(held.get(SESSION, b"k").unwrap().as_deref(), Some(&[1][..]));
}

/// Asynchronous commits filled two segments before the first was written: a power cut before its
/// seal was durable left two empty segments behind it, and the log was taken for damaged.
#[test]
fn a_power_cut_with_two_empty_segments_at_the_end_is_recovered() {
    let clock = Arc::new(ManualClock::new(BEGINNING));
    for after in 0.. {
        let storage = SimulatedStorage::new(after);
        let db = opened(&storage, &clock);
        storage.crash_at(storage.operations() + after);
        let _ = (0..6).try_for_each(|_| put_async(&db, 30_000)).and_then(|()| db.flush());
        drop(db);
        if !storage.is_crashed() {
            assert!(after > 10, "segments were made on the way");
            return;
        }
        let plan = ImagePlan { subsets_max: 64, tears_max: 4, ..ImagePlan::default() };
        for image in storage.images(&plan) {
            let what = image.description().unwrap_or_default();
            let db = try_open(&image, &clock);
            db.unwrap_or_else(|error| panic!("{error:?}\n  {what}"));
        }
    }
}

fn put_async(db: &Database, bytes: usize) -> Result<()> {
    let durability = Some(Durability::Async);
    let options = TransactionOptions { durability, ..TransactionOptions::default() };
    let mut transaction = db.begin(Mode::Transaction, options)?;
    write(&mut transaction, &Op::PutBlob(b"k".to_vec(), vec![7; bytes]))?;
    transaction.commit()?;
    Ok(())
}

/// A byte of a run was flipped: the database could not be opened, could not be made again, or was
/// called sound, depending on the run. All of it follows from the log.
#[test]
fn a_flipped_byte_of_any_run_is_made_good_again() {
    let clock = Arc::new(ManualClock::new(BEGINNING));
    let storage = SimulatedStorage::new(0);
    let db = opened(&storage, &clock);
    let ops = |user: &str| {
        let put = |number: usize| Op::PutFact(format!("k{number}"), fact(user));
        (0..20).map(put).collect::<Vec<_>>()
    };
    committed(&db, &ops("ann")).unwrap();
    db.flush_memtables().unwrap();
    committed(&db, &ops("bob")).unwrap();
    let left = storage.synced_only();
    drop(db);
    let runs = left.paths().into_iter().filter(|path| path.starts_with(RUNS_DIR));
    let mut failed = Vec::new();
    for path in runs {
        for offset in (0..left.read_file(&path).unwrap().len()).step_by(17) {
            let disk = left.clone_durable();
            disk.flip(&path, offset as u64, 1 << (offset % 8));
            if let Err(why) = made_good(&disk, &clock) {
                failed.push(format!("{path}, byte {offset}: {why}"));
            }
        }
    }
    assert!(failed.is_empty(), "{} of them:\n  {}", failed.len(), failed.join("\n  "));
}

/// Opens a damaged disk, makes everything again, and opens it once more.
fn made_good(disk: &SimulatedStorage, clock: &Arc<ManualClock>) -> Result<(), String> {
    let right = fact("bob").encode();
    let told = |doing: &'static str| move |error| format!("{doing}: {error:?}");
    let db = try_open(disk, clock).map_err(told("open"))?;
    let mut noticed = false;
    for number in 0..20 {
        match db.reader().get(FACTS, format!("k{number}").as_bytes()) {
            Ok(found) if found.as_deref() == Some(&right[..]) => {}
            Err(error) if error.kind() == ErrorKind::Corruption => noticed = true,
            other => return Err(format!("wrong: {other:?}")),
        }
    }
    let report = verify(db.shared(), true, &mut |_, _| {}).map_err(told("verify"))?;
    if noticed && report.ok {
        return Err("a read found what verify does not".to_owned());
    }
    for id in 1..=EMBEDDINGS {
        match db.rebuild(id, |_, _| {}) {
            Err(error) if error.kind() != ErrorKind::Corruption => return Err(error.to_string()),
            _ => {}
        }
    }
    db.close().map_err(told("close"))?;
    let db = try_open(disk, clock).map_err(told("open again"))?;
    let found = db.reader().get_many(FACTS, &["k0", "k19"]).map_err(told("get"))?;
    assert!(found.iter().all(|found| found.as_deref() == Some(&right[..])));
    let report = verify(db.shared(), true, &mut |_, _| {}).map_err(told("verify again"))?;
    if report.ok { Ok(()) } else { Err(format!("not made good: {:?}", report.problems.first())) }
}
