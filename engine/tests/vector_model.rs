//! Random commits over three structures of vectors, each search compared with brute force.
//!
//! The model (`support/vector_versions.rs`) keeps versions and measures every distance in f64; the
//! searches (`support/vector_answers.rs`) ask now, at earlier LSNs, in held snapshots and inside
//! transactions, exactly and not. Between them segments are sealed and merged step by step,
//! memtables flushed, derived files lost, structures made again, and the database is closed, opened
//! again, copied, and cut off the power at any operation. Segments are tiny, so that all of it
//! happens often.
//!
//! `WAFERDB_MODEL_SEEDS` runs more seeds, `WAFERDB_MODEL_STEPS` longer ones. A failure prints the
//! seed, its last operations, and the command that replays it.

#[path = "support/vector_answers.rs"]
mod vector_answers;
#[path = "support/vector_commits.rs"]
mod vector_commits;
#[path = "support/vector_draw.rs"]
mod vector_draw;
#[path = "support/vector_openings.rs"]
mod vector_openings;
#[path = "support/vector_upkeep.rs"]
mod vector_upkeep;
#[path = "support/vector_versions.rs"]
mod vector_versions;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use vector_answers::*;
use vector_draw::{Dice, Draw, Pools};
use vector_versions::*;
use waferdb::clock::{Clock, ManualClock, SeededRandom};
use waferdb::database::Database;
use waferdb::reader::Reader;
use waferdb::storage::simulated::SimulatedStorage;
use waferdb::verify::verify;

const SEEDS: u64 = 40;
const STEPS: u64 = 400;
const SEARCHES_MIN: u64 = 50_000;
/// Of each structure in each seed, over the searches that could miss something, where they are
/// enough for a mean.
const RECALL_MIN: f64 = 0.95;
const RECALL_SEARCHES_MIN: u64 = 30;
const BEGINNING: i64 = 1_700_000_000_000_000;
const HELD_MAX: usize = 4;
const TRACE: usize = 25;

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
    history: Option<i64>,
    /// Below the first nothing is answered; from the second on everything is.
    floor: (Lsn, Lsn),
    held: Vec<(Reader, Lsn)>,
    tally: Tally,
    operations: u64,
    trace: VecDeque<String>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let dice = Dice(SeededRandom::new(seed ^ 0x7EC7));
        Self {
            pools: Pools::new(&dice),
            history: dice.chance(40).then(|| 50_000 + dice.below(2_000_000) as i64),
            dice,
            storage: SimulatedStorage::new(seed),
            clock: Arc::new(ManualClock::new(BEGINNING)),
            db: None,
            openings: 0,
            model: Model::of(&[]),
            commits: Vec::new(),
            required: 0,
            floor: (0, 0),
            held: Vec::new(),
            tally: Tally::default(),
            operations: 0,
            trace: VecDeque::new(),
        }
    }

    fn go(&mut self, steps: u64) -> Outcome {
        self.open()?;
        for _ in 0..steps {
            self.clock.advance(Duration::from_micros(1 + self.dice.below(20_000) as u64));
            let done = self.step();
            match done {
                // Without power the engine may refuse; what it answers is right all the same.
                Err(Trouble::Wrong(what)) => return wrong(what),
                _ if self.storage.is_crashed() => self.recover()?,
                done => {
                    done?;
                    self.alive()?;
                }
            }
        }
        // The power stays on from here.
        self.storage.crash_at(u64::MAX);
        self.reopen()?;
        verified(&self.db())?;
        self.remembered()
    }

    /// Enough of the nearest was found, in each structure.
    fn remembered(&self) -> Outcome {
        for (id, counted) in VECTORS.iter().zip(&self.tally.recall) {
            let (searches, sum) = counted.get();
            if searches >= RECALL_SEARCHES_MIN && sum < RECALL_MIN * searches as f64 {
                let mean = sum / searches as f64;
                return wrong(format!("recall {mean:.3} of {searches} searches in {id}"));
            }
        }
        Ok(())
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

    fn draw(&self) -> Draw<'_> {
        Draw { dice: &self.dice, pools: &self.pools, model: &self.model }
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
            0..30 => self.commit(),
            30..33 => self.forget(),
            33..58 => self.ask(),
            58..63 => self.hold(),
            63..73 => self.vector_steps(),
            73..78 => self.upkeep(),
            78..85 => self.barrier(),
            85..88 => self.overtaken(),
            88 | 89 => self.refused(),
            90 => {
                self.note("flush");
                self.db().flush()?;
                self.required = self.model.newest();
                Ok(())
            }
            91 => self.rebuild(),
            92 | 93 => self.reopen(),
            94..97 => {
                let after = self.dice.below(60) as u64;
                self.note(format!("the power will go in {after} operations"));
                self.storage.crash_at(self.storage.operations() + after);
                Ok(())
            }
            97 => self.lose(),
            _ => self.backup(),
        }
    }

    fn asked<'a>(&'a self, reader: &'a Reader, lsn: Lsn) -> Asked<'a> {
        Asked { reader, model: &self.model, lsn, tally: &self.tally }
    }

    fn check_all(&mut self) -> Outcome {
        let newest = self.model.newest();
        self.asked(&self.db().reader(), newest).all(&self.draw())?;
        let past = self.dice.below(newest as usize + 1) as Lsn;
        match self.reader_at(past)? {
            Some(reader) => self.asked(&reader, past).all(&self.draw()),
            None => Ok(()),
        }
    }

    fn ask(&mut self) -> Outcome {
        let newest = self.model.newest();
        let (reader, lsn) = match self.dice.below(10) {
            0..4 => (self.db().reader(), newest),
            4 | 5 if !self.held.is_empty() => self.dice.pick(&self.held).clone(),
            6 => {
                let time = self.model.times[self.dice.below(newest as usize + 1)].max(1);
                let lsn = self.model.lsn_at(time);
                if self.reader_at(lsn)?.is_none() {
                    return Ok(());
                }
                let reader = self.db().reader_at_time(time)?;
                same(reader.lsn()?, lsn, &format!("LSN at time {time}"))?;
                (reader, lsn)
            }
            _ => {
                let lsn = self.dice.below(newest as usize + 1) as Lsn;
                let Some(reader) = self.reader_at(lsn)? else { return Ok(()) };
                (reader, lsn)
            }
        };
        let asked = self.asked(&reader, lsn);
        (0..2 + self.dice.below(8)).try_for_each(|_| asked.one(&self.draw()))
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
        self.asked(&reader, lsn).all(&self.draw())
    }
}

fn verified(db: &Database) -> Outcome {
    let report = verify(db.shared(), true, &mut |_, _| {});
    let report = report.map_err(|error| error.context("verify"))?;
    match report.problems.first() {
        None if report.ok => Ok(()),
        first => wrong(format!("verify: {} problems, {first:?}", report.problems_count)),
    }
}

/// One seed. Ends the test where an answer is wrong.
fn run(seed: u64, steps: u64) -> Tally {
    let mut run = Run::new(seed);
    let ended = catch_unwind(AssertUnwindSafe(|| run.go(steps)));
    let why = match ended {
        Ok(Ok(())) => return run.tally,
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
         waferdb --test vector_model",
        run.operations,
        trace.join("\n    "),
        run.storage.description().unwrap_or_default(),
    );
}

#[test]
fn every_search_is_that_of_brute_force() {
    let steps = variable("WAFERDB_MODEL_STEPS").unwrap_or(STEPS);
    if let Some(seed) = variable("WAFERDB_MODEL_SEED") {
        run(seed, steps);
        return;
    }
    let seeds = variable("WAFERDB_MODEL_SEEDS").unwrap_or(SEEDS);
    let tallies: Vec<Tally> = (0..seeds).map(|seed| run(seed, steps)).collect();
    let sum = |what: fn(&Tally) -> u64| -> u64 { tallies.iter().map(what).sum() };
    let searches = sum(|tally| tally.searches.get());
    let filtered = sum(|tally| tally.filtered.get());
    let (sealed, stepped) = (sum(|tally| tally.sealed.get()), sum(|tally| tally.steps.get()));
    println!(
        "{searches} searches in {seeds} seeds of {steps} steps, {filtered} with conditions, \
         {sealed} after {stepped} steps on segments"
    );
    for (number, id) in VECTORS.iter().enumerate() {
        let counted = tallies.iter().map(|tally| tally.recall[number].get());
        let (count, sum) = counted.fold((0, 0.0), |(n, s), (m, t)| (n + m, s + t));
        println!("structure {id}: recall {:.4} of {count}", sum / count as f64);
    }
    let least = if (seeds, steps) == (SEEDS, STEPS) { SEARCHES_MIN } else { 0 };
    assert!(searches >= least, "only {searches} searches");
    assert!(sealed > 0, "no search met a sealed segment");
}
