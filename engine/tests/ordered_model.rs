//! Random operations over every ordered structure, each answer compared with a plain model.
//!
//! The model (`support/versions.rs`) is sorted dictionaries with versions; the questions
//! (`support/questions.rs`) ask now, at earlier LSNs, in held snapshots and inside transactions.
//! Between them memtables are flushed, runs are merged, lost, and damaged, structures are made
//! again, indexes come and go, and the database is closed, opened again, copied, and cut off the
//! power at any operation. Memtables and segments are tiny, so that all of it happens often.
//!
//! `WAFERDB_MODEL_SEEDS` runs more seeds, `WAFERDB_MODEL_STEPS` longer ones. A failure prints the
//! seed, its last operations, and the command that replays it.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "support/found.rs"]
mod found;
#[path = "support/questions.rs"]
mod questions;
#[path = "support/versions.rs"]
mod versions;
#[path = "support/writes.rs"]
mod writes;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use questions::{Asked, Dice, Outcome, Pools, Trouble, same, wrong};
use versions::*;
use waferdb::clock::{Clock, ManualClock, SeededRandom};
use waferdb::database::Database;
use waferdb::error::{ErrorKind, Result};
use waferdb::options::{Durability, Mode as OpenMode, Options};
use waferdb::ordered::run::RUNS_DIR;
use waferdb::reader::Reader;
use waferdb::schema::Schema;
use waferdb::storage::simulated::{ImagePlan, SimulatedStorage};
use waferdb::transaction::{Mode, Precondition, Transaction, TransactionOptions};
use waferdb::verify::{Report, verify};
use writes::{Writes, write};

const SEEDS: u64 = 40;
const STEPS: u64 = 500;
const OPERATIONS_MIN: u64 = 50_000;
const BEGINNING: i64 = 1_700_000_000_000_000;
const HELD_MAX: usize = 4;
const TRACE: usize = 25;

const SCHEMA: &str = r#"{"structures":[
{"name":"facts","kind":"rows","codec":"msgpack",
 "indexes":[["user"],["topic","n"]MORE],"unique":[["slug"]]},
{"name":"blobs","kind":"rows","codec":"raw"},
{"name":"events","kind":"events","capture":["facts","blobs"]},
{"name":"session","kind":"cache","ttl":300000},
{"name":"recent","kind":"cache","ttl":300000,"capacity":7},
{"name":"warm","kind":"cache","ttl":300000,"source":"facts"},
{"name":"context","kind":"context"},
{"name":"entities","kind":"graph"},
{"name":"embeddings","kind":"vectors","dim":2,"metric":"l2","rows":"facts"}]}"#;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")))
}

struct Run {
    dice: Dice,
    pools: Pools,
    storage: SimulatedStorage,
    clock: Arc<ManualClock>,
    db: Option<Database>,
    openings: u64,
    model: Model,
    commits: Vec<Commit>,
    /// Everything up to here was acknowledged as durable.
    required: Lsn,
    /// Whether the index that comes and goes is declared.
    indexed: bool,
    history: Option<i64>,
    /// Below the first nothing is answered; from the second on everything is.
    floor: (Lsn, Lsn),
    held: Vec<(Reader, Lsn)>,
    operations: u64,
    trace: VecDeque<String>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let dice = Dice(SeededRandom::new(seed ^ 0x0DE1));
        let history = dice.chance(40).then(|| 50_000 + dice.below(2_000_000) as i64);
        Self {
            pools: Pools::new(&dice),
            dice,
            storage: SimulatedStorage::new(seed),
            clock: Arc::new(ManualClock::new(BEGINNING)),
            db: None,
            openings: 0,
            model: Model::of(&[]),
            commits: Vec::new(),
            required: 0,
            indexed: false,
            history,
            floor: (0, 0),
            held: Vec::new(),
            operations: 0,
            trace: VecDeque::new(),
        }
    }

    fn go(&mut self, steps: u64) -> Outcome {
        self.open()?;
        for _ in 0..steps {
            self.clock.advance(Duration::from_micros(1 + self.dice.below(20_000) as u64));
            let done = self.step();
            if self.storage.is_crashed() {
                self.recover()?;
            } else {
                done?;
                self.alive()?;
            }
        }
        // The power stays on from here.
        self.storage.crash_at(u64::MAX);
        self.reopen()?;
        self.verified()
    }

    fn note(&mut self, what: impl Into<String>) {
        self.operations += 1;
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{} [lsn {}]", what.into(), self.model.newest()));
    }

    fn db(&self) -> Database {
        self.db.clone().expect("a run has its database open")
    }

    fn now(&self) -> i64 {
        self.clock.wall_micros()
    }

    /// What the engine may have swallowed in the background still ends the run.
    fn alive(&self) -> Outcome {
        match self.db().shared().pipeline.failure() {
            Some(cause) => Err(cause.into()),
            None => Ok(()),
        }
    }

    fn step(&mut self) -> Outcome {
        match self.dice.below(100) {
            0..46 => self.commit(),
            46..50 => self.forget(),
            50..76 => self.ask(),
            76..80 => self.hold(),
            80..84 => {
                self.note("flush_memtables");
                self.db().flush_memtables()?;
                Ok(())
            }
            84..90 => self.background(),
            90 => {
                self.note("flush");
                self.db().flush()?;
                self.required = self.model.newest();
                Ok(())
            }
            91 => self.rebuild(1 + self.dice.below(9) as u32),
            92 | 93 => self.reopen(),
            94 | 95 => {
                let after = self.dice.below(60) as u64;
                self.note(format!("the power will go in {after} operations"));
                self.storage.crash_at(self.storage.operations() + after);
                Ok(())
            }
            96 => self.lose_runs(),
            97 => self.flip(),
            98 => self.backup(),
            _ => self.refused(),
        }
    }

    // Opening and closing.

    fn options(&self, mode: OpenMode) -> Options {
        Options {
            mode,
            background: false,
            memory_bytes: 1 << 20,
            memtable_bytes: *self.dice.pick(&[4 << 10, 8 << 10, 16 << 10, 32 << 10]),
            fan_out: 2 + self.dice.below(3),
            history_micros: self.history,
            segment_bytes_min: 16 << 10,
            segment_bytes_max: 64 << 10,
            lease_micros: 86_400_000_000,
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(self.openings)),
            ..Options::default()
        }
    }

    fn open_on(&mut self, storage: &SimulatedStorage, mode: OpenMode) -> Result<Database> {
        self.openings += 1;
        let more = if self.indexed { r#",["n"]"# } else { "" };
        let schema = Schema::from_json(&SCHEMA.replace("MORE", more)).unwrap();
        let declared = (mode == OpenMode::ReadWrite).then_some(schema);
        Database::open(Arc::new(storage.clone()), self.options(mode), declared)
            .map_err(|error| error.context("open"))
    }

    fn open(&mut self) -> Outcome {
        let db = self.open_on(&self.storage.clone(), OpenMode::ReadWrite)?;
        same(db.lsn()?, self.model.newest(), "LSN after opening")?;
        self.db = Some(db);
        self.floor.0 = 0;
        self.raise_floor();
        Ok(())
    }

    fn close(&mut self) -> Outcome {
        self.held.clear();
        self.db().close().map_err(|error| error.context("close"))?;
        self.db = None;
        self.required = self.model.newest();
        Ok(())
    }

    fn reopen(&mut self) -> Outcome {
        self.close()?;
        self.indexed ^= self.dice.chance(30);
        if self.history.is_some() && self.dice.chance(20) {
            self.history = Some(50_000 + self.dice.below(2_000_000) as i64);
        }
        self.note(format!("reopen, n indexed: {}, history: {:?}", self.indexed, self.history));
        if self.dice.chance(25) {
            self.read_only()?;
        }
        self.open()?;
        self.check_all()
    }

    fn read_only(&mut self) -> Outcome {
        let before = self.storage.operations();
        let db = self.open_on(&self.storage.clone(), OpenMode::Read)?;
        let lsn = self.model.newest();
        self.asked(&db.reader_at(lsn)?, lsn, true).all()?;
        db.close()?;
        same(self.storage.operations(), before, "operations of an opening to read only")
    }

    /// Opens what a power cut left, which may strike again meanwhile.
    fn recover(&mut self) -> Outcome {
        self.held.clear();
        loop {
            self.db = None;
            let (last, unsynced) = (self.storage.history().pop(), self.storage.unsynced());
            self.note(format!("power cut at {last:?}, unsynced: {unsynced:?}"));
            let (seed, nth) = (self.openings, self.dice.below(40));
            let plan = ImagePlan { seed, subsets_max: 32, tears_max: 12, ..ImagePlan::default() };
            let image = self.storage.images(&plan).nth(nth);
            self.storage = image.unwrap_or_else(|| self.storage.synced_only());
            if self.dice.chance(25) {
                self.storage.crash_at(self.dice.below(40) as u64);
            }
            let image = self.storage.description();
            self.note(format!("open an image of the power cut: {image:?}"));
            let opened = self.open_on(&self.storage.clone(), OpenMode::ReadWrite);
            if self.storage.is_crashed() {
                continue;
            }
            let db = opened?;
            let lsn = db.lsn()?;
            if lsn < self.required || lsn > self.model.newest() {
                let (durable, written) = (self.required, self.model.newest());
                return wrong(format!("LSN {lsn}: {durable} was durable, {written} written"));
            }
            self.commits.truncate(lsn as usize);
            self.model = Model::of(&self.commits);
            self.required = lsn;
            self.floor = (0, self.floor.1.min(lsn));
            self.db = Some(db);
            self.raise_floor();
            return self.check_all();
        }
    }

    // History.

    /// The engine raised its floor now, if it ever does.
    fn raise_floor(&mut self) {
        let Some(history) = self.history else { return };
        let floor = self.model.lsn_at(self.now() - history);
        let oldest = self.held.iter().map(|(_, lsn)| *lsn).min().unwrap_or(Lsn::MAX);
        self.floor.0 = self.floor.0.max(floor.min(oldest).min(self.required));
        self.floor.1 = self.floor.1.max(floor.min(oldest));
    }

    /// A reader at an LSN, or none where the history is not kept.
    fn reader_at(&mut self, lsn: Lsn) -> Outcome<Option<Reader>> {
        let (least, most) = self.floor;
        match self.db().reader_at(lsn) {
            Ok(_) if lsn < least => wrong(format!("LSN {lsn} is answered below {least}")),
            Ok(reader) => Ok(Some(reader)),
            Err(error) if error.kind() == ErrorKind::History && lsn < most => {
                self.floor.0 = least.max(lsn + 1);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    // Questions.

    fn asked<'a>(&'a self, reader: &'a Reader, lsn: Lsn, caches: bool) -> Asked<'a> {
        Asked { reader, model: &self.model, lsn, now: self.now(), caches, pending: false }
    }

    fn check_all(&mut self) -> Outcome {
        let newest = self.model.newest();
        self.asked(&self.db().reader(), newest, true).all()?;
        let past = self.dice.below(newest as usize + 1) as Lsn;
        match self.reader_at(past)? {
            Some(reader) => self.asked(&reader, past, false).all(),
            None => Ok(()),
        }
    }

    fn ask(&mut self) -> Outcome {
        let newest = self.model.newest();
        let (reader, lsn, caches) = match self.dice.below(10) {
            0..4 => (self.db().reader(), newest, true),
            4 | 5 if !self.held.is_empty() => {
                let (reader, lsn) = self.dice.pick(&self.held);
                (reader.clone(), *lsn, true)
            }
            6 => {
                let time = self.model.times[self.dice.below(newest as usize + 1)].max(1);
                let lsn = self.model.lsn_at(time);
                if self.reader_at(lsn)?.is_none() {
                    return Ok(());
                }
                let reader = self.db().reader_at_time(time)?;
                same(reader.lsn()?, lsn, &format!("LSN at time {time}"))?;
                (reader, lsn, false)
            }
            _ => {
                let lsn = self.dice.below(newest as usize + 1) as Lsn;
                let Some(reader) = self.reader_at(lsn)? else { return Ok(()) };
                (reader, lsn, false)
            }
        };
        for _ in 0..1 + self.dice.below(6) {
            self.operations += 1;
            self.asked(&reader, lsn, caches).one(&self.dice, &self.pools)?;
        }
        Ok(())
    }

    /// Takes a snapshot, or asks an old one everything and lets it go.
    fn hold(&mut self) -> Outcome {
        if self.held.len() < HELD_MAX && self.dice.chance(60) {
            let lsn = self.model.newest();
            self.note("hold a snapshot");
            self.held.push((self.db().reader_at(lsn)?, lsn));
            return Ok(());
        }
        if self.held.is_empty() {
            return Ok(());
        }
        let (reader, lsn) = self.held.swap_remove(self.dice.below(self.held.len()));
        self.note(format!("a held snapshot of LSN {lsn} ends"));
        self.asked(&reader, lsn, true).all()
    }

    fn report(&self) -> Outcome<Report> {
        let report = verify(self.db().shared(), true, &mut |_, _| {});
        Ok(report.map_err(|error| error.context("verify"))?)
    }

    fn verified(&self) -> Outcome {
        let report = self.report()?;
        match report.problems.first() {
            None if report.ok => Ok(()),
            first => wrong(format!("verify: {} problems, {first:?}", report.problems_count)),
        }
    }

    // Upkeep, loss and damage.

    fn background(&mut self) -> Outcome {
        let steps = 1 + self.dice.below(6);
        let merge = self.dice.chance(50);
        self.note(format!("{steps} steps, merges only: {merge}"));
        for _ in 0..steps {
            if merge {
                self.db().merge_step()?
            } else {
                self.db().step()?
            };
            if !merge {
                self.raise_floor();
            }
        }
        Ok(())
    }

    fn rebuild(&mut self, id: u32) -> Outcome {
        self.note(format!("rebuild {id}"));
        self.db().rebuild(id, |_, _| {}).map_err(|error| error.context("rebuild"))?;
        self.required = self.model.newest();
        Ok(())
    }

    fn runs(&self) -> Vec<String> {
        let paths = self.storage.paths().into_iter();
        paths.filter(|path| path.starts_with(&format!("{RUNS_DIR}/"))).collect()
    }

    fn lose_runs(&mut self) -> Outcome {
        self.close()?;
        let runs = self.runs();
        let all = self.dice.chance(40);
        let one = self.dice.below(runs.len().max(1));
        for (number, path) in runs.iter().enumerate().filter(|(at, _)| all || *at == one) {
            self.note(format!("lose {path}, {number} of {}", runs.len()));
            self.storage.remove_file(path);
        }
        if self.dice.chance(25) {
            self.read_only()?;
        }
        self.open()?;
        self.check_all()
    }

    /// Damages one byte of a run. Answers are right or `Corruption` until all is made again, which
    /// opening does with what `rebuild` does not reach.
    fn flip(&mut self) -> Outcome {
        self.storage.crash_at(u64::MAX);
        self.close()?;
        let runs = self.runs();
        if runs.is_empty() {
            return self.open();
        }
        let path = self.dice.pick(&runs).clone();
        let length = self.storage.read_file(&path).unwrap().len();
        let (offset, mask) = (self.dice.below(length), 1 << self.dice.below(8));
        self.note(format!("flip {mask:#x} at {offset} of {length} in {path}"));
        self.storage.flip(&path, offset as u64, mask);
        self.open()?;
        let noticed = self.ask_damaged()?;
        if self.report()?.ok && noticed {
            return wrong("a read found damage that verify does not");
        }
        for id in 1..=EMBEDDINGS {
            self.tolerant(|run| run.rebuild(id))?;
        }
        // Whatever was not made again by then is by opening.
        self.close()?;
        self.note("reopen after the damage");
        self.open()?;
        self.check_all()?;
        self.verified()
    }

    /// Whether what was done met damage.
    fn tolerant(&mut self, mut what: impl FnMut(&mut Self) -> Outcome) -> Outcome<bool> {
        match what(self) {
            Err(Trouble::Engine(error)) if error.kind() == ErrorKind::Corruption => {
                self.note(format!("noticed: {error}"));
                Ok(true)
            }
            other => other.map(|()| false),
        }
    }

    /// Whether a question met the damage.
    fn ask_damaged(&mut self) -> Outcome<bool> {
        let mut noticed = self.tolerant(Self::check_all)?;
        for _ in 0..12 {
            noticed |= self.tolerant(Self::ask)?;
        }
        Ok(noticed)
    }

    fn backup(&mut self) -> Outcome {
        self.note("backup");
        let copy = SimulatedStorage::new(self.openings);
        let lsn = self.db().backup(&copy, &mut |_, _| {})?;
        self.required = self.model.newest();
        same(lsn, self.required, "LSN of a backup")?;
        let db = self.open_on(&copy, OpenMode::ReadWrite)?;
        self.asked(&db.reader(), lsn, true).all()?;
        db.close()?;
        Ok(())
    }

    // Commits.

    fn begin(&self, mode: Mode, durability: Durability) -> Result<Transaction> {
        let durability = Some(durability);
        self.db().begin(mode, TransactionOptions { durability, ..TransactionOptions::default() })
    }

    fn writes(&self) -> Writes<'_> {
        Writes { dice: &self.dice, pools: &self.pools, model: &self.model, now: self.now() }
    }

    fn commit(&mut self) -> Outcome {
        let ops = self.writes().commit();
        self.commit_ops(ops)
    }

    fn forget(&mut self) -> Outcome {
        let ops = self.writes().forget();
        self.commit_ops(ops)
    }

    fn commit_ops(&mut self, ops: Vec<Op>) -> Outcome {
        let mode = *self.dice.pick(&[Mode::Transaction, Mode::Single, Mode::Batch]);
        let durability = *self.dice.pick(&[Durability::Sync, Durability::Async]);
        self.note(format!("{mode:?} {durability:?}: {}", writes::told(&ops)));
        self.operations += ops.len() as u64 - 1;
        let mut transaction = self.begin(mode, durability)?;
        ops.iter().try_for_each(|op| write(&mut transaction, op))?;
        if !self.model.is_unique_after(&ops) {
            return match transaction.commit() {
                Err(error) if error.kind() == ErrorKind::Unique => Ok(()),
                Err(error) => Err(error.into()),
                Ok(receipt) => wrong(format!("LSN {} has a slug twice", receipt.lsn)),
            };
        }
        let commit = Commit { time: self.now(), ops };
        self.model.apply(&commit);
        self.commits.push(commit);
        if mode == Mode::Transaction && self.dice.chance(25) {
            self.ask_within(&transaction)?;
        }
        let receipt = transaction.commit()?;
        same(receipt.lsn, self.model.newest(), "LSN of a commit")?;
        same(receipt.time, self.now(), "time of a commit")?;
        if receipt.durable {
            self.required = receipt.lsn;
        }
        same(receipt.durable || durability == Durability::Async, true, "a sync commit is durable")
    }

    /// A transaction sees its own writes over its snapshot.
    fn ask_within(&mut self, transaction: &Transaction) -> Outcome {
        let reader = transaction.reader()?;
        let asked = self.asked(&reader, self.model.newest(), true);
        let asked = Asked { pending: true, ..asked };
        for _ in 0..1 + self.dice.below(4) {
            asked.one(&self.dice, &self.pools)?;
        }
        if self.dice.chance(20) { asked.all() } else { Ok(()) }
    }

    /// A precondition that does not hold, and one that does.
    fn refused(&mut self) -> Outcome {
        let key = self.dice.pick(&self.pools.blobs).clone();
        let version = self.model.blobs.get(&key, self.model.newest()).map(|(at, _)| at);
        let wrong_version = Precondition { version: Some(version.unwrap_or(0) + 1), absent: false };
        let bad = match version {
            Some(_) if self.dice.chance(50) => Precondition { version: None, absent: true },
            _ => wrong_version,
        };
        let good = Precondition { version, absent: version.is_none() };
        self.note(format!("preconditions {bad:?}, {good:?} of {}", questions::shown(&key)));
        let mode = *self.dice.pick(&[Mode::Transaction, Mode::Single]);
        let mut transaction = self.begin(mode, Durability::Sync)?;
        let put = transaction.put(BLOBS, &key, b"refused", bad);
        match put.and_then(|()| transaction.commit()) {
            Err(error) if error.kind() == ErrorKind::Precondition => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return wrong(format!("{bad:?} holds, the version is {version:?}")),
        }
        let mut transaction = self.begin(mode, Durability::Sync)?;
        let value = self.writes().value();
        transaction.put(BLOBS, &key, &value, good)?;
        let commit = Commit { time: self.now(), ops: vec![Op::PutBlob(key, value)] };
        self.model.apply(&commit);
        self.commits.push(commit);
        self.required = transaction.commit()?.lsn;
        same(self.required, self.model.newest(), "LSN of a put under a precondition")
    }
}

/// One seed; how many operations it made. Ends the test where an answer is wrong.
fn run(seed: u64, steps: u64) -> u64 {
    let mut run = Run::new(seed);
    let ended = catch_unwind(AssertUnwindSafe(|| run.go(steps)));
    let why = match ended {
        Ok(Ok(())) => return run.operations,
        Ok(Err(trouble)) => trouble.to_string(),
        Err(panic) => match panic.downcast_ref::<String>() {
            Some(text) => format!("a panic: {text}"),
            None => "a panic, told above".to_owned(),
        },
    };
    let trace: Vec<&str> = run.trace.iter().map(String::as_str).collect();
    panic!(
        "{why}\n  the last operations of {}, newest below:\n    {}\n  disk: {}\n  replay: \
         WAFERDB_MODEL_SEED={seed} WAFERDB_MODEL_STEPS={steps} cargo test --all-features -p \
         waferdb --test ordered_model",
        run.operations,
        trace.join("\n    "),
        run.storage.description().unwrap_or_default(),
    );
}

#[test]
fn every_answer_is_that_of_the_model() {
    let steps = variable("WAFERDB_MODEL_STEPS").unwrap_or(STEPS);
    if let Some(seed) = variable("WAFERDB_MODEL_SEED") {
        run(seed, steps);
        return;
    }
    let seeds = variable("WAFERDB_MODEL_SEEDS").unwrap_or(SEEDS);
    let operations: u64 = (0..seeds).map(|seed| run(seed, steps)).sum();
    println!("{operations} operations in {seeds} seeds of {steps} steps");
    let least = if (seeds, steps) == (SEEDS, STEPS) { OPERATIONS_MIN } else { 0 };
    assert!(operations >= least, "only {operations} operations");
}
