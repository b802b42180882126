//! Random databases are sound in any number of passes; whatever is planted is found.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::{Clock, ManualClock, Random, SeededRandom};
use crate::database::Database;
use crate::log::segment;
use crate::lookup::{Look, Tree};
use crate::options::Options;
use crate::ordered::{Direction, Entry, Range, Slot};
use crate::storage::memory::MemoryStorage;
use crate::storage::simulated::SimulatedStorage;
use crate::storage::{Open, Share, Storage};
use crate::transaction::{Mode as Writing, Precondition, Transaction, TransactionOptions};

const SCHEMA: &str = r#"{"structures":[
    {"name":"facts","kind":"rows","codec":"msgpack","indexes":[["user"],["user","time"]],
     "unique":[["email"]]},
    {"name":"raw","kind":"rows","codec":"raw"},
    {"name":"vectors","kind":"vectors","dim":4,"metric":"l2","rows":"facts"},
    {"name":"free","kind":"vectors","dim":4,"metric":"dot"},
    {"name":"events","kind":"events","capture":["facts","raw"]},
    {"name":"audit","kind":"audit"},
    {"name":"session","kind":"cache","ttl":50000000,"source":"facts"},
    {"name":"small","kind":"cache","ttl":50000000,"capacity":3},
    {"name":"context","kind":"context"},
    {"name":"entities","kind":"graph"},
    {"name":"profile","kind":"view","source":"facts","by":["user"],"function":{"name":"custom"}},
    {"name":"times","kind":"view","source":"facts","by":["user"],
     "function":{"name":"sum","field":"time"}},
    {"name":"newest","kind":"view","source":"facts","by":["user"],
     "function":{"name":"latest","n":2}}]}"#;

struct Bench {
    database: Database,
    random: SeededRandom,
    clock: Arc<ManualClock>,
}

fn options(clock: &Arc<ManualClock>) -> Options {
    Options {
        background: false,
        segment_bytes_min: 64 << 10,
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        random: Arc::new(SeededRandom::new(7)),
        ..Options::default()
    }
}

impl Bench {
    fn open(storage: Arc<dyn Storage>, seed: u64) -> Self {
        let clock = Arc::new(ManualClock::new(1_000_000_000));
        let schema = Schema::from_json(SCHEMA).unwrap();
        let database = Database::open(storage, options(&clock), Some(schema)).unwrap();
        Self { database, random: SeededRandom::new(seed), clock }
    }

    fn new(seed: u64) -> Self {
        Self::open(Arc::new(MemoryStorage::new()), seed)
    }

    fn id(&self, name: &str) -> StructureId {
        self.database.schema().named(name).unwrap().id
    }

    fn draw(&self, below: u64) -> u64 {
        self.random.next_u64() % below
    }

    fn key(&self) -> String {
        format!("key:{}", self.draw(6))
    }

    fn row(&self) -> Vec<u8> {
        let mut fields = vec![("text".into(), "x".repeat(self.draw(90) as usize).into())];
        if self.draw(4) > 0 {
            fields.push(("user".into(), format!("user {}", self.draw(3)).into()));
        }
        if self.draw(2) > 0 {
            fields.push(("time".into(), (self.draw(5) as i64).into()));
        }
        if self.draw(2) > 0 {
            // Far more than rows: claims rarely clash, and when they do the commit is refused.
            fields.push(("email".into(), format!("{}@x", self.draw(40)).into()));
        }
        encoded(&rmpv::Value::Map(fields))
    }

    fn vector(&self) -> [f32; 4] {
        [(); 4].map(|()| self.draw(1_000) as f32 + 0.5)
    }

    fn write(&self, tx: &mut Transaction) -> Result<()> {
        let key = self.key();
        let value = encoded(&format!("v{}", "y".repeat(self.draw(70) as usize)).into());
        match self.draw(17) {
            0..=3 => tx.put(self.id("facts"), key.as_bytes(), &self.row(), Precondition::default()),
            4 => tx.delete(self.id("facts"), key.as_bytes()),
            5 => {
                let plain = Precondition::default();
                tx.put(self.id("facts"), key.as_bytes(), &self.row(), plain)?;
                tx.put_vector(self.id("vectors"), &key, &self.vector())
            }
            6 => tx.put_vector(self.id("free"), &key, &self.vector()),
            7 => tx.delete(self.id("free"), key.as_bytes()),
            8 => tx.append(
                self.id("events"),
                "seen",
                (self.draw(2) > 0).then_some(&value[..]),
                (self.draw(2) > 0).then_some(key.as_bytes()),
            ),
            9 => {
                let ttl = (self.draw(2) > 0).then(|| 1 + self.draw(4_000_000) as i64);
                tx.cache_put(self.id("session"), &key, &value, ttl)
            }
            10 => tx.cache_put(self.id("small"), &key, &value, None),
            11 => tx.context_set(self.id("context"), &key, &self.key(), &value),
            12 => {
                let name = self.key();
                let name = (self.draw(3) > 0).then_some(&name[..]);
                tx.context_delete(self.id("context"), &key, name)
            }
            13 => tx.link(self.id("entities"), &key, "knows", &self.key(), Some(&value)),
            14 if self.draw(2) > 0 => tx.delete(self.id("raw"), key.as_bytes()),
            14 => tx.unlink(self.id("entities"), &key, "knows", &self.key()),
            15 => {
                let plain = Precondition::default();
                tx.put(self.id("raw"), key.as_bytes(), &value, plain)
            }
            _ => self.forget(tx, &key),
        }
    }

    fn forget(&self, tx: &mut Transaction, key: &str) -> Result<()> {
        let names = ["facts", "free", "session", "small", "context", "entities", "events", "raw"];
        let name = names[self.draw(names.len() as u64) as usize];
        let other = self.key();
        let parts: &[&[u8]] = match name {
            "context" => &[key.as_bytes(), other.as_bytes()],
            "entities" => &[key.as_bytes(), b"knows", other.as_bytes()],
            _ => &[key.as_bytes()],
        };
        tx.forget(self.id(name), parts)
    }

    /// One random transaction; refused ones leave nothing.
    fn transaction(&self) {
        let options = TransactionOptions {
            actor: (self.draw(2) > 0).then(|| "planner".to_owned()),
            ..TransactionOptions::default()
        };
        let mut tx = self.database.begin(Writing::Transaction, options).unwrap();
        for _ in 0..=self.draw(5) {
            let _refused = self.write(&mut tx).is_err();
        }
        let _refused = tx.commit().is_err();
        self.clock.advance(Duration::from_millis(self.draw(900)));
        if self.draw(4) == 0 {
            self.database.step().unwrap();
        }
    }

    fn fill(&self, transactions: usize) {
        (0..transactions).for_each(|_| self.transaction());
    }

    fn verify(&self, pass_bytes: u64) -> Report {
        verify_in(self.database.shared(), true, pass_bytes, &mut |_, _| {}).unwrap()
    }

    fn assert_finds(&self, what: &str) {
        let report = self.verify(PASS_BYTES);
        assert!(!report.ok);
        let found = report
            .problems
            .iter()
            .any(|problem| problem.where_.contains(what) || problem.what.contains(what));
        assert!(found, "{what} in {:#?}", report.problems);
    }

    fn first(&self, name: &str, tree: u16) -> crate::ordered::Item {
        let shared = self.database.shared();
        let look = shared.store.snapshot(shared.pipeline.visible());
        let tree = Tree::new(self.id(name), tree);
        // A page may begin with deleted keys, which it leaves out.
        let page = look.page(tree, &Range::all(), Direction::Forward, None, 1_000);
        page.unwrap().items.into_iter().next().unwrap()
    }

    fn set(&self, name: &str, tree: usize, key: &[u8], entry: Option<Entry>) {
        let shared = self.database.shared();
        let catalog = shared.store.catalog();
        let lsn = shared.pipeline.visible();
        catalog.structures[&self.id(name)].ordered.set(tree as u16, key, lsn, entry);
    }
}

fn encoded(value: &rmpv::Value) -> Vec<u8> {
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, value).unwrap();
    out
}

#[test]
fn a_sound_database_is_ok_in_any_number_of_passes() {
    for seed in 0..40 {
        let bench = Bench::new(seed);
        bench.fill(60);
        for pass_bytes in [PASS_BYTES, 3_000] {
            let report = bench.verify(pass_bytes);
            assert!(report.ok, "seed {seed}: {:#?}", report.problems);
            assert_eq!(report.checked.commits, bench.database.lsn().unwrap());
            assert!(report.checked.entries > 0);
        }
    }
}

#[test]
fn a_database_is_ok_after_it_was_opened_again() {
    let storage = Arc::new(MemoryStorage::new());
    for seed in 0..10 {
        let bench = Bench::open(Arc::clone(&storage) as Arc<dyn Storage>, seed);
        let report = bench.verify(PASS_BYTES);
        assert!(report.ok, "seed {seed}: {:#?}", report.problems);
        bench.fill(30);
        let report = bench.verify(PASS_BYTES);
        assert!(report.ok, "seed {seed}: {:#?}", report.problems);
        bench.database.close().unwrap();
    }
}

#[test]
fn an_empty_database_is_ok() {
    let report = Bench::new(1).verify(PASS_BYTES);
    assert!(report.ok, "{:#?}", report.problems);
}

#[test]
fn a_flipped_byte_names_file_and_lsn_and_what_is_lost() {
    let storage = Arc::new(SimulatedStorage::new(1));
    let bench = Bench::open(Arc::clone(&storage) as Arc<dyn Storage>, 3);
    bench.fill(20);
    let shared = bench.database.shared();
    let lsn = (1..=20).rev().find(|lsn| shared.place_of(*lsn).unwrap().is_some());
    let lsn = lsn.unwrap() / 2;
    let place = shared.place_of(lsn).unwrap().unwrap();
    let path = segment::path(place.segment);
    storage.flip(&path, place.offset + u64::from(place.length) - 1, 0x10);
    for deep in [false, true] {
        let report = verify(shared, deep, &mut |_, _| {}).unwrap();
        let problem = &report.problems[0];
        assert!(!report.ok && problem.where_.contains(&path), "{problem:?}");
        assert_eq!(problem.lsn, Some(lsn), "{problem:?}");
        assert!(problem.lost.contains(&format!("LSN {lsn} to {lsn}")), "{problem:?}");
        assert_eq!(report.checked.commits, shared.pipeline.durable() - 1);
    }
}

#[test]
fn a_damaged_segment_header_is_found() {
    let storage = Arc::new(SimulatedStorage::new(1));
    let bench = Bench::open(Arc::clone(&storage) as Arc<dyn Storage>, 3);
    bench.fill(5);
    storage.flip(&segment::path(1), 30, 1);
    let report = verify(bench.database.shared(), false, &mut |_, _| {}).unwrap();
    assert_eq!(report.problems.len(), 1, "{:#?}", report.problems);
    assert!(report.problems[0].what.contains("header"));
}

#[test]
fn bytes_behind_the_last_group_of_a_writer_at_rest_are_found() {
    let storage = Arc::new(SimulatedStorage::new(1));
    let bench = Bench::open(Arc::clone(&storage) as Arc<dyn Storage>, 3);
    bench.fill(5);
    let end = {
        let file = storage.open(&segment::path(1), Open::Read).unwrap();
        segment::last_nonzero(&*file, 0).unwrap().unwrap()
    };
    let file = storage.open(&segment::path(1), Open::Write).unwrap();
    let share = Share::new(0, crate::storage::Cause::Log, 512);
    file.write_at(&[7; 512], end, &[share]).unwrap();
    let report = verify(bench.database.shared(), false, &mut |_, _| {}).unwrap();
    assert_eq!(report.problems.len(), 1, "{:#?}", report.problems);
}

#[test]
fn the_watch_makes_again_what_differs_and_says_so() {
    let bench = Bench::new(5);
    bench.fill(60);
    let shared = bench.database.shared();
    let watch = || while !shared.watch_step(&|| true).unwrap() {};
    watch();
    assert_eq!((shared.watched().rounds, shared.watched().repaired.len()), (1, 0));
    bench.set("facts", 1, &bench.first("facts", 1).key, None);
    assert!(!bench.verify(PASS_BYTES).ok);
    watch();
    let seen = shared.watched();
    assert_eq!(seen.repaired.len(), 1, "{seen:?}");
    assert_eq!(seen.repaired[0].structure, "facts");
    assert!(seen.repaired[0].what.contains("index entry"), "{seen:?}");
    assert!(bench.verify(PASS_BYTES).ok);
    assert!(!shared.watch_step(&|| false).unwrap(), "it stops when somebody comes");
}

#[test]
fn planted_differences_are_found() {
    let plant = |seed: u64, plant: &dyn Fn(&Bench)| {
        let bench = Bench::new(seed);
        bench.fill(60);
        assert!(bench.verify(PASS_BYTES).ok);
        plant(&bench);
        bench
    };
    let removed = |name: &'static str, tree: u16| {
        move |bench: &Bench| {
            bench.set(name, tree.into(), &bench.first(name, tree).key, None);
        }
    };
    for (name, tree, what) in [
        ("profile", 1, "(view"),
        ("profile", 2, "(view"),
        ("times", 0, "(view"),
        ("newest", 2, "(view"),
        ("facts", 0, "(entry"),
        ("facts", 1, "(index entry"),
        ("facts", 2, "(index entry"),
        ("facts", 3, "(unique entry"),
        ("raw", 0, "raw"),
        ("events", 0, "events (event)"),
        ("small", 0, "(entry"),
        ("small", 1, "(age"),
        ("context", 0, "context"),
        ("entities", 0, "entities"),
        ("entities", 1, "(edge by target"),
    ] {
        plant(11, &removed(name, tree)).assert_finds(what);
    }
    let bench = plant(11, &|bench| {
        let entry = Entry::with_slot(Slot::Inline(Box::new([0xC0])));
        bench.set("facts", 0, &bench.first("facts", 0).key, Some(entry));
    });
    bench.assert_finds("its value is at");
    let bench = plant(11, &|bench| bench.set("facts", 1, b"\x05nonsense", Some(Entry::mark())));
    bench.assert_finds("it leads to no row");
    let bench = plant(11, &|bench| {
        let mut key = bench.first("entities", 1).key.to_vec();
        key.truncate(key.len() - 2);
        key.extend_from_slice(b"x\0\x01");
        bench.set("entities", 1, &key, Some(Entry::mark()));
    });
    bench.assert_finds("(edge by target");
}

#[test]
fn planted_vectors_and_leaves_are_found() {
    let bench = Bench::new(12);
    bench.fill(60);
    let shared = bench.database.shared();
    let catalog = shared.store.catalog();
    let lsn = shared.pipeline.visible();
    let known = &catalog.structures[&bench.id("vectors")];
    let index = shared.store.index(bench.id("vectors"), known).unwrap();
    assert!(bench.verify(PASS_BYTES).ok);
    index.put("no row", &[1.0; 4], lsn, &Slot::None);
    bench.assert_finds("(vector");
    index.delete("no row", lsn);
    assert!(bench.verify(PASS_BYTES).ok);
    let mut some = None;
    index.each_live(|key, born| some = Some((key.to_owned(), born)).filter(|_| born < lsn));
    index.put(&some.unwrap().0, &[0.25; 4], lsn, &Slot::None);
    bench.assert_finds("it differs from the log");

    let bench = Bench::new(12);
    bench.fill(20);
    let lsn = bench.database.shared().pipeline.visible();
    let catalog = bench.database.shared().store.catalog();
    let audit = &catalog.structures[&bench.id("audit")];
    audit.push_leaf(audit.leaves().count(lsn).unwrap(), [0; 32], lsn).unwrap();
    bench.assert_finds("leaves, the log has");
    let first = bench.first("audit", 0).key;
    audit.ordered.erase(0, &first, lsn);
    bench.assert_finds("leaf is missing");
}

#[test]
fn what_is_forgotten_is_gone_at_every_lsn() {
    let bench = Bench::new(5);
    let write = |run: &dyn Fn(&mut Transaction) -> Result<()>| {
        let mut tx =
            bench.database.begin(Writing::Transaction, TransactionOptions::default()).unwrap();
        run(&mut tx).unwrap();
        tx.commit().unwrap();
    };
    let (facts, vectors) = (bench.id("facts"), bench.id("vectors"));
    let row = encoded(&rmpv::Value::Map(vec![("email".into(), "a@x".into())]));
    for key in ["a", "b", "c", "d"] {
        write(&|tx| {
            if key == "a" {
                tx.put(facts, b"a", &row, Precondition::default())?;
                tx.put_vector(vectors, "a", &[1.0; 4])?;
            }
            tx.put(bench.id("raw"), key.as_bytes(), b"v", Precondition::default())
        });
    }
    let kept = bench.first("facts", 0);
    write(&|tx| tx.forget(facts, &[b"a"]));
    assert!(bench.verify(PASS_BYTES).ok, "{:#?}", bench.verify(PASS_BYTES).problems);
    let catalog = bench.database.shared().store.catalog();
    // As if the active memtable had not let go of it.
    let layers = catalog.structures[&facts].ordered.layers();
    layers.active.set(0, b"a", kept.lsn, kept.entry);
    bench.assert_finds("does not follow");
}

#[test]
fn commits_that_run_meanwhile_are_no_problem() {
    let bench = Bench::new(9);
    bench.fill(50);
    let other = Bench {
        database: bench.database.clone(),
        random: SeededRandom::new(99),
        clock: Arc::clone(&bench.clock),
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| other.fill(1_500));
        loop {
            let report = bench.verify(40_000);
            assert!(report.ok, "{:#?}", report.problems);
            if writer.is_finished() {
                return;
            }
        }
    });
}

#[test]
fn problems_are_bounded_and_counted() {
    let mut findings = Findings::default();
    for number in 0..PROBLEMS_MAX + 5 {
        findings.add("here", None, number.to_string(), String::new());
    }
    assert_eq!((findings.problems.len(), findings.count), (PROBLEMS_MAX, PROBLEMS_MAX as u64 + 5));
}

#[test]
#[ignore = "a measurement: cargo test --release -- --ignored --nocapture a_tiny_database_is_quick"]
fn a_tiny_database_is_quick() {
    let bench = Bench::new(4);
    bench.fill(30);
    let started = std::time::Instant::now();
    for _ in 0..1_000 {
        assert!(bench.verify(PASS_BYTES).ok);
    }
    println!("{:?} each", started.elapsed() / 1_000);
}
