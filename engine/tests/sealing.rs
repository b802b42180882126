//! Vectors on their way into graphs, where something is in the way: each test is named after the
//! failure it is about.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use waferdb::clock::{ManualClock, SeededRandom};
use waferdb::database::Database;
use waferdb::options::{Durability, Options};
use waferdb::reader::Reader;
use waferdb::schema::Schema;
use waferdb::storage::Storage;
use waferdb::storage::memory::MemoryStorage;
use waferdb::storage::simulated::{Fault, FaultKind, OperationKind, SimulatedStorage};
use waferdb::transaction::{Mode, TransactionOptions};
use waferdb::vector::file::{self, GRAPHS_DIR};
use waferdb::vector::{Hit, Search};

const ID: u32 = 1;

fn schema(dim: usize, policy: &str) -> Schema {
    let text = format!(
        r#"{{"structures":[{{"name":"vectors","kind":"vectors","dim":{dim},"metric":"l2",
        "policy":{{"kind":"{policy}"}}}}]}}"#
    );
    Schema::from_json(&text).unwrap()
}

fn options(seal_vectors: usize) -> Options {
    Options {
        background: false,
        durability: Durability::Async,
        seal_vectors: Some(seal_vectors),
        clock: Arc::new(ManualClock::new(1_700_000_000_000_000)),
        random: Arc::new(SeededRandom::new(7)),
        ..Options::default()
    }
}

fn open(storage: Arc<dyn Storage>, seal_vectors: usize, policy: &str) -> Database {
    Database::open(storage, options(seal_vectors), Some(schema(8, policy))).unwrap()
}

/// A vector of its own for each number.
fn vector(number: u32, dim: usize) -> Vec<f32> {
    let mut state = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let component = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / 1e7
    };
    (0..dim).map(component).collect()
}

fn put(db: &Database, key: u32, vector: &[f32]) -> waferdb::error::Result<()> {
    let mut tx = db.begin(Mode::Single, TransactionOptions::default())?;
    tx.put_vector(ID, &format!("{key}"), vector)?;
    tx.commit().map(drop)
}

fn fill(db: &Database, keys: std::ops::Range<u32>) {
    keys.for_each(|key| put(db, key, &vector(key, 8)).unwrap());
}

fn nearest(db: &Database, number: u32) -> Hit {
    let reader = Reader::newest(Arc::clone(db.shared()));
    let search = Search { k: 1, exact: false, ef: Some(64) };
    reader.search(ID, &vector(number, 8), &search, None).unwrap().remove(0)
}

fn drain(db: &Database, mut between: impl FnMut()) -> usize {
    let upto = db.lsn().unwrap();
    let steps = std::iter::from_fn(|| db.drain_vectors(None, upto).unwrap().then(&mut between));
    steps.take(100_000).count()
}

fn assert_finds(db: &Database, keys: std::ops::Range<u32>) {
    for key in keys.step_by(13) {
        let hit = nearest(db, key);
        assert_eq!((hit.key, hit.distance), (format!("{key}"), 0.0));
    }
}

#[test]
fn writers_waited_for_a_tail_that_was_never_due() {
    // Its bound, a quarter of the memory, is far less than the rows that are usually sealed.
    let options = Options { memory_bytes: 4 << 20, ..Options::default() };
    let options = Options { durability: Durability::Async, ..options };
    let dim = 2_048;
    let storage = Arc::new(MemoryStorage::new());
    let db = Database::open(storage, options, Some(schema(dim, "eager"))).unwrap();
    for key in 0..3_000 {
        put(&db, key, &vector(key, dim)).unwrap();
    }
    let lag = &db.stats().unwrap().lag["vectors"];
    assert!(lag.unsealed < 2_000, "{}", lag.unsealed);
    db.close().unwrap();
}

#[test]
fn a_lazy_structure_in_memory_grew_with_each_update() {
    let db = open(Arc::new(MemoryStorage::new()), 1_000, "lazy");
    fill(&db, 0..100);
    nearest(&db, 1);
    for round in 0..300 {
        for key in 0..100 {
            put(&db, key, &vector(round * 100 + key, 8)).unwrap();
        }
        while db.vector_step().unwrap() {}
    }
    let stats = db.stats().unwrap();
    assert!(stats.memory["vectors"] < 1 << 20, "{:?}", stats.memory);
    assert!(stats.lag["vectors"].unsealed <= 2_100);
    assert!(stats.by.iter().all(|by| by.1 != "seal"), "lazy vectors got a graph");
}

#[test]
fn a_drain_did_not_end_beside_a_writer() {
    let db = open(Arc::new(MemoryStorage::new()), 500, "eager");
    fill(&db, 0..2_000);
    let mut next = 2_000;
    let steps = drain(&db, || {
        fill(&db, next..next + 50);
        next += 50;
    });
    assert!(steps < 200, "{steps} steps");
    assert_finds(&db, 0..next);
}

#[test]
fn a_segment_that_could_not_be_written_was_built_again() {
    let storage = SimulatedStorage::new(3);
    let db = open(Arc::new(storage.clone()), 500, "eager");
    fill(&db, 0..600);
    storage.inject(Fault::nth(OperationKind::Write, GRAPHS_DIR, 0, FaultKind::Enospc));
    let mut steps = 0;
    while db.vector_step().is_ok() {
        steps += 1;
        assert!(steps < 1_000, "the disk was full");
    }
    // What was linked is written now: one step.
    assert!(db.vector_step().unwrap());
    assert!(!db.vector_step().unwrap());
    assert!(storage.paths().iter().any(|path| path.starts_with(GRAPHS_DIR)));
    assert_finds(&db, 0..600);
}

#[test]
fn a_graph_that_could_not_be_read_failed_every_search() {
    let storage = SimulatedStorage::new(4);
    let db = open(Arc::new(storage.clone()), 500, "eager");
    fill(&db, 0..600);
    drain(&db, || {});
    db.close().unwrap();
    storage.inject(Fault::nth(OperationKind::Read, GRAPHS_DIR, 0, FaultKind::Eio));
    let db = open(Arc::new(storage.clone()), 500, "eager");
    assert_finds(&db, 0..600);
    assert_eq!(db.stats().unwrap().lag["vectors"].unsealed, 600);
    // It is sealed anew, and the file goes.
    drain(&db, || {});
    assert_eq!(storage.paths().iter().filter(|path| path.starts_with(GRAPHS_DIR)).count(), 1);
    assert_finds(&db, 0..600);
}

#[test]
fn damaged_and_missing_graphs_cost_time_only() {
    for damage in 0..3 {
        let storage = MemoryStorage::new();
        let storage = Arc::new(storage);
        let db = open(Arc::clone(&storage) as Arc<dyn Storage>, 500, "eager");
        fill(&db, 0..700);
        drain(&db, || {});
        db.close().unwrap();
        let name = storage.list(GRAPHS_DIR).unwrap().remove(0);
        let path = file::path(file::number(&name).unwrap());
        let graph = storage.open(&path, waferdb::storage::Open::Write).unwrap();
        match damage {
            0 => storage.remove(&path).unwrap(),
            1 => graph.truncate(graph.len().unwrap() / 2).unwrap(),
            _ => graph.write_at(&[0xFF; 8], 600, &[]).unwrap(),
        }
        let db = open(storage, 500, "eager");
        assert_finds(&db, 0..700);
        fill(&db, 700..1_400);
        drain(&db, || {});
        assert_finds(&db, 0..1_400);
    }
}
