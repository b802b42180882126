//! A crash at every storage operation of a workload over every structure, and what must be left.
//!
//! Each operation of each seed's workload, from the creation of the database on, is struck by a
//! power cut. Every disk that the cut may leave (subsets of the unsynced changes, tears of the
//! newest write) is opened again: what was acknowledged as durable is there, in every structure,
//! the state is that after exactly one number of commits, and `verify` finds nothing. A sample of
//! those disks is crashed once more at every operation of its recovery, and a sample of the
//! recovered databases is written to and opened once more.
//!
//! `WAFERDB_CRASH=full` runs twice as many seeds, `hours` sixteen times as many and crashes every
//! image's recovery. A failure prints the variables that replay
//! it alone: `WAFERDB_CRASH_SEED`, `WAFERDB_CRASH_AT`, and `WAFERDB_CRASH_IMAGE`.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use support::check::verified;
use support::model::{FACTS, Fact, Op};
use support::workload::write;
use support::{Progress, Reference, Run, check, options, reopen_schema};
use waferdb::clock::ManualClock;
use waferdb::database::Database;
use waferdb::error::{ErrorKind, Result};
use waferdb::options::{Mode as OpenMode, Options};
use waferdb::ordered::run::RUNS_DIR;
use waferdb::schema::Schema;
use waferdb::storage::simulated::{ImagePlan, SimulatedStorage};
use waferdb::transaction::{Mode, TransactionOptions};
use waferdb::vector::file::GRAPHS_DIR;

const STEPS: usize = 90;
const SEEDS: u64 = 2;
const THREADS: usize = 2;
/// For each seed.
const STATES_MIN: u64 = 60_000;
const PAIRS_MIN: usize = 2_000;
/// Of so many images one is crashed again while it recovers; another is written to afterwards.
const SECOND_CRASH_EVERY: u64 = 577;
const WRITE_AGAIN_EVERY: u64 = 23;
/// Every workload fills at least so many log segments.
const SEGMENTS_MIN: usize = 2;
/// Every workload writes so many runs, and merges at least so many of them into others.
const RUNS_MIN: usize = 30;
const MERGED_MIN: usize = 6;
/// Every workload seals vectors so often, and merges or rebuilds so many graphs.
const GRAPHS_MIN: usize = 4;
const GRAPHS_GONE_MIN: usize = 2;
const READ_ONLY_EVERY: u64 = 11;
/// The run ends after so many failures.
const FAILURES_MAX: usize = 12;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")))
}

#[derive(Default)]
struct Totals {
    states: AtomicU64,
    second: AtomicU64,
    operations: AtomicU64,
    pairs: Mutex<HashSet<u64>>,
    failures: Mutex<Vec<String>>,
}

/// Where in the enumeration a check stands; printed when it fails.
struct Place<'a> {
    seed: u64,
    at: u64,
    image: u64,
    what: &'a str,
    disk: &'a SimulatedStorage,
}

impl Place<'_> {
    fn fail(&self, why: impl std::fmt::Display) -> ! {
        let Self { seed, at, image, what, disk } = self;
        panic!(
            "{why}\n  {what}\n  disk: {}\n  unsynced: {:?}\n  replay: WAFERDB_CRASH_SEED={seed} \
             WAFERDB_CRASH_AT={at} WAFERDB_CRASH_IMAGE={image} cargo test -p waferdb --test \
             crash_points",
            disk.description().unwrap_or_default(),
            disk.unsynced(),
        )
    }

    fn check(&self, db: &Database, reference: &Reference, progress: &Progress) -> u64 {
        check(db, reference, progress).unwrap_or_else(|problem| self.fail(problem))
    }
}

struct Enumeration<'a> {
    seed: u64,
    reference: Reference,
    totals: &'a Totals,
    only_image: Option<u64>,
    full: bool,
    /// Disks that were checked, with what was asked of them.
    seen: HashMap<u128, (u64, u64, u8, u8)>,
}

impl Enumeration<'_> {
    /// The run of this seed with the power cut at operation `at`.
    fn cut(&self, at: Option<u64>) -> Run {
        let mut run = Run::new(self.seed);
        if let Some(at) = at {
            run.storage.crash_at(at);
        }
        let ended = run.go(STEPS);
        match (at, ended) {
            (None, Err(error)) => panic!("seed {}: the workload failed: {error:?}", self.seed),
            (Some(at), Err(error)) if !run.storage.is_crashed() => {
                panic!("seed {}, operation {at}: no crash, but {error:?}", self.seed)
            }
            _ => run,
        }
    }

    fn crash_at(&mut self, at: u64) {
        let run = self.cut(Some(at));
        let history = run.storage.history();
        let Some(operation) = history.last() else { return };
        self.totals.operations.fetch_add(1, Ordering::Relaxed);
        self.pair(&(operation.to_string(), &run.progress), &run);
        let progress = run.progress.clone();
        let storage = run.storage.clone();
        // The handle is gone before the disk is looked at, as the process is.
        drop(run);
        // The names of several new runs await one sync of their directory: their subsets are many
        // and much alike, and are sampled more thinly.
        let upkeep = operation.to_string().contains(RUNS_DIR);
        let (subsets_max, tears_max) = if upkeep { (1 << 6, 16) } else { (1 << 12, 64) };
        let plan = plan(self.seed ^ at, subsets_max, tears_max);
        let fingerprint =
            (progress.required, progress.attempted, progress.schema_done, progress.schema_begun);
        for (number, image) in storage.images(&plan).enumerate() {
            let number = number as u64;
            if self.only_image.is_some_and(|only| only != number) {
                continue;
            }
            if self.seen.insert(image.fingerprint(), fingerprint) == Some(fingerprint) {
                continue;
            }
            let checked =
                catch_unwind(AssertUnwindSafe(|| self.image(&image, at, number, &progress)));
            if let Err(panic) = checked {
                let mut failures = self.totals.failures.lock();
                failures.push(panic.downcast_ref::<String>().cloned().unwrap_or_default());
                if failures.len() >= FAILURES_MAX {
                    return;
                }
            }
        }
    }

    fn pair(&self, operation: &(String, &Progress), run: &Run) {
        let mut hash = DefaultHasher::new();
        operation.0.hash(&mut hash);
        let progress = operation.1;
        (progress.required, progress.attempted, progress.schema_begun).hash(&mut hash);
        format!("{:?}", run.state).hash(&mut hash);
        self.totals.pairs.lock().insert(hash.finish());
    }

    fn image(&self, image: &SimulatedStorage, at: u64, number: u64, progress: &Progress) {
        let turn = at.wrapping_mul(31).wrapping_add(number);
        let alone = self.only_image.is_some();
        let untouched = image.clone_durable();
        let place = |what| Place { seed: self.seed, at, image: number, what, disk: image };
        if alone || turn.is_multiple_of(READ_ONLY_EVERY) {
            self.read_only(&place("opened to read only"), &untouched, progress);
        }
        self.reopen(
            image,
            &place("opened again"),
            progress,
            alone || turn.is_multiple_of(WRITE_AGAIN_EVERY),
        );
        if alone || self.full || turn.is_multiple_of(SECOND_CRASH_EVERY) {
            self.second_crash(&untouched, at, number, progress);
        }
    }

    /// Opens a disk, checks all of it, and perhaps goes on writing.
    fn reopen(
        &self,
        disk: &SimulatedStorage,
        place: &Place<'_>,
        progress: &Progress,
        goes_on: bool,
    ) -> u64 {
        self.totals.states.fetch_add(1, Ordering::Relaxed);
        let random = self.seed ^ 0xBEEF ^ (place.at << 20) ^ (place.image << 40);
        let opened = open(disk, progress.wall, random, reopen_schema(progress));
        let db = opened.unwrap_or_else(|error| place.fail(format!("cannot open: {error:?}")));
        let lsn = place.check(&db, &self.reference, progress);
        if goes_on {
            self.go_on(db, disk, place, lsn, progress);
        }
        lsn
    }

    fn read_only(&self, place: &Place<'_>, disk: &SimulatedStorage, progress: &Progress) {
        let clock = Arc::new(ManualClock::new(progress.wall));
        let options = Options { mode: OpenMode::Read, ..options(clock, 1) };
        match Database::open(Arc::new(disk.clone()), options, None) {
            Ok(db) => {
                place.check(&db, &self.reference, progress);
            }
            Err(error) if error.kind() == ErrorKind::NotFound && progress.schema_done == 0 => {}
            Err(error) => place.fail(format!("cannot open: {error:?}")),
        }
        if disk.operations() != 0 {
            place.fail(format!("a reader wrote: {:?}", disk.history()));
        }
    }

    /// One more transaction, closed and opened: a recovered database is a database.
    fn go_on(
        &self,
        db: Database,
        disk: &SimulatedStorage,
        place: &Place<'_>,
        lsn: u64,
        progress: &Progress,
    ) {
        let fact = Fact {
            user: "u9".to_owned(),
            topic: None,
            n: 1,
            slug: Some("after".to_owned()),
            text: "written after the crash, long enough to lie in the log".to_owned(),
        };
        let ours = Op::PutFact("after".to_owned(), fact.clone());
        let written = (|| {
            let mut transaction = db.begin(Mode::Transaction, TransactionOptions::default())?;
            write(&mut transaction, &ours)?;
            let receipt = transaction.commit()?;
            for _ in 0..3 {
                db.step()?;
            }
            // A value that belongs to a row is refused, also to whom the crash left it.
            let mut taken = db.begin(Mode::Transaction, TransactionOptions::default())?;
            write(&mut taken, &Op::PutFact("thief".to_owned(), fact.clone()))?;
            match taken.commit() {
                Err(error) if error.kind() == ErrorKind::Unique => {}
                other => place.fail(format!("a unique value was taken twice: {other:?}")),
            }
            if place.image.is_multiple_of(2) {
                db.close()?;
            }
            Ok::<_, waferdb::error::Error>(receipt)
        })();
        let receipt =
            written.unwrap_or_else(|error| place.fail(format!("cannot write: {error:?}")));
        if receipt.lsn != lsn + 1 {
            place.fail(format!("the next LSN is {} after {lsn}", receipt.lsn));
        }
        drop(db);
        let again =
            if place.image.is_multiple_of(2) { disk.clone_durable() } else { disk.synced_only() };
        let opened = open(&again, progress.wall, self.seed, None);
        let db = opened.unwrap_or_else(|error| place.fail(format!("cannot open twice: {error:?}")));
        let found = db.reader().get(FACTS, b"after").map(|found| found.map(|value| value.to_vec()));
        match found {
            Ok(Some(value)) if value == fact.encode() => {}
            other => place.fail(format!("what was written after the crash reads as {other:?}")),
        }
        verified(&db).unwrap_or_else(|problem| place.fail(problem));
    }

    /// Crashes the recovery of `image` at each of its operations, and opens what that leaves.
    fn second_crash(&self, image: &SimulatedStorage, at: u64, number: u64, progress: &Progress) {
        for inner in 0.. {
            let disk = image.clone_durable();
            disk.crash_at(inner);
            let random = self.seed ^ 0xFEED ^ at;
            let opened = open(&disk, progress.wall, random, reopen_schema(progress));
            let crashed = disk.is_crashed();
            let served = match &opened {
                Ok(db) => Some(db.lsn().unwrap()),
                Err(error) if crashed => {
                    assert_ne!(error.kind(), ErrorKind::Corruption, "a crash is no corruption");
                    None
                }
                Err(error) => panic!("seed {}, operation {at}: {error:?}", self.seed),
            };
            drop(opened);
            if !crashed {
                disk.crash();
            }
            let what = format!("recovery crashed at its operation {inner}");
            let operation = disk.history().last().map(ToString::to_string).unwrap_or_default();
            let mut hash = DefaultHasher::new();
            (operation, inner, self.seed, at, number).hash(&mut hash);
            self.totals.pairs.lock().insert(hash.finish());
            for left in disk.images(&plan(at ^ inner, 64, 12)) {
                let place = Place { seed: self.seed, at, image: number, what: &what, disk: &left };
                self.totals.second.fetch_add(1, Ordering::Relaxed);
                let lsn = self.reopen(&left, &place, progress, inner % 5 == 4);
                if served.is_some_and(|served| served != lsn) {
                    place.fail(format!("LSN {served:?} was served, now {lsn} is the newest"));
                }
            }
            if !crashed {
                return;
            }
        }
    }
}

fn open(
    storage: &SimulatedStorage,
    wall: i64,
    seed: u64,
    declared: Option<Schema>,
) -> Result<Database> {
    let clock = Arc::new(ManualClock::new(wall));
    Database::open(Arc::new(storage.clone()), options(clock, seed), declared)
}

/// Subsets and tears; the fields of group and record headers begin at multiples of eight.
fn plan(seed: u64, subsets_max: usize, tears_max: usize) -> ImagePlan {
    let field_boundaries = (4..176).step_by(8).chain((8..176).step_by(8)).collect();
    ImagePlan { seed, subsets_max, tears_max, field_boundaries }
}

fn enumerate(seed: u64, totals: &Totals, full: bool) {
    let mut enumeration = Enumeration {
        seed,
        reference: Reference::of(Vec::new(), Vec::new()),
        totals,
        only_image: variable("WAFERDB_CRASH_IMAGE"),
        full,
        seen: HashMap::new(),
    };
    let whole = enumeration.cut(None);
    assert_eq!(whole.closes.len(), 3, "seed {seed}: opened and closed on the way");
    let operations = whole.storage.operations();
    let segments = whole.storage.paths().iter().filter(|path| path.ends_with(".wal")).count();
    assert!(segments >= SEGMENTS_MIN, "seed {seed}: only {segments} segments, no rotation");
    let history: Vec<String> = whole.storage.history().iter().map(ToString::to_string).collect();
    let files = |directory: &str| {
        let did = |doing: &str| {
            let known = history.iter().filter(|done| done.contains(directory));
            known.filter(|done| done.starts_with(doing)).count()
        };
        (did("create"), did("remove"))
    };
    let (made, removed) = files(RUNS_DIR);
    assert!(made >= RUNS_MIN && removed >= MERGED_MIN, "seed {seed}: {made} runs, {removed} gone");
    let (made, removed) = files(GRAPHS_DIR);
    assert!(
        made >= GRAPHS_MIN && removed >= GRAPHS_GONE_MIN,
        "seed {seed}: {made} graphs, {removed} gone"
    );
    enumeration.reference = Reference::of(whole.commits, whole.rolled_back);
    match variable("WAFERDB_CRASH_AT") {
        Some(at) => enumeration.crash_at(at),
        None => {
            for at in 0..operations {
                if totals.failures.lock().len() < FAILURES_MAX {
                    enumeration.crash_at(at);
                }
            }
        }
    }
}

#[test]
fn a_crash_at_any_operation_keeps_what_was_acknowledged() {
    let started = Instant::now();
    let totals = Totals::default();
    let depth = std::env::var("WAFERDB_CRASH").unwrap_or_default();
    let times = [("full", 2), ("hours", 16)].into_iter().find(|(name, _)| *name == depth);
    let full = depth == "hours";
    let only = variable("WAFERDB_CRASH_SEED");
    let seeds: Vec<u64> = match only {
        Some(seed) => vec![seed],
        None => (1..=SEEDS * times.map_or(1, |(_, times)| times)).collect(),
    };
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    enumerate(*seed, &totals, full);
                }
            });
        }
    });
    let (states, pairs) = (totals.states.load(Ordering::Relaxed), totals.pairs.lock().len());
    println!(
        "{states} states ({} after a second crash) over {pairs} pairs of operation and state, {} \
         operations, {} seeds, {:.1} s",
        totals.second.load(Ordering::Relaxed),
        totals.operations.load(Ordering::Relaxed),
        seeds.len(),
        started.elapsed().as_secs_f64(),
    );
    let failures = totals.failures.lock();
    assert!(failures.is_empty(), "{} failures; the first: {}", failures.len(), failures[0]);
    if only.is_none() {
        let least = STATES_MIN * seeds.len() as u64;
        assert!(states >= least, "{states} states are too few");
        assert!(pairs >= PAIRS_MIN, "{pairs} pairs are too few");
    }
}
