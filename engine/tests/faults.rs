//! Storage that fails: an error, a short write or a failed sync at every operation of a workload.
//!
//! After a failed write or sync of the log the engine refuses writes and goes on answering what is
//! durable; opened again, every outcome is final. A full disk is found before a commit is
//! sequenced, costs nothing, and is over when there is room again.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use support::model::{Op, State};
use support::workload::write;
use support::{Progress, Reference, Run, check, options, reopen_schema};
use waferdb::clock::ManualClock;
use waferdb::database::Database;
use waferdb::error::{Error, ErrorKind};
use waferdb::storage::simulated::{
    Fault, FaultKind, ImagePlan, Medium, Operation, OperationKind, SimulatedStorage,
};
use waferdb::transaction::{Mode, TransactionOptions};

const STEPS: usize = 60;
const SEEDS: [u64; 3] = [101, 102, 103];

fn kinds(operation: &Operation) -> Vec<FaultKind> {
    let mut kinds = vec![FaultKind::Eio, FaultKind::Enospc];
    match operation.kind {
        OperationKind::Write => {
            kinds.push(FaultKind::ShortWrite(1));
            kinds.push(FaultKind::ShortWrite(operation.bytes as usize / 2));
            kinds.push(FaultKind::ShortWrite(operation.bytes as usize - 1));
        }
        OperationKind::Sync | OperationKind::SyncDir => {
            let media = [Medium::Nothing, Medium::Something, Medium::Everything];
            kinds.extend(media.map(FaultKind::FailedSync));
        }
        _ => {}
    }
    kinds
}

struct Case<'a> {
    seed: u64,
    at: u64,
    kind: FaultKind,
    operation: &'a Operation,
}

impl Case<'_> {
    fn fail(&self, why: impl std::fmt::Display) -> ! {
        let Self { seed, at, kind, operation } = self;
        panic!("{why}\n  seed {seed}, {kind:?} at operation {at} ({operation})")
    }

    fn open(&self, disk: &SimulatedStorage, progress: &Progress) -> Database {
        let clock = Arc::new(ManualClock::new(progress.wall));
        let options = options(clock, self.seed ^ self.at ^ 0xFA17);
        Database::open(Arc::new(disk.clone()), options, reopen_schema(progress))
            .unwrap_or_else(|error| self.fail(format!("cannot open again: {error:?}")))
    }

    fn check(&self, db: &Database, reference: &Reference, progress: &Progress) -> u64 {
        check(db, reference, progress).unwrap_or_else(|problem| self.fail(problem))
    }

    /// The run with this fault; how it ended.
    fn run(&self) -> Option<ErrorKind> {
        let mut run = Run::new(self.seed);
        run.storage.inject(Fault::at_operation(self.at, self.kind));
        let error = run.go(STEPS).err();
        run.storage.clear_faults();
        let kind = error.as_ref().map(Error::kind);
        let typed = kind.is_none_or(|kind| {
            use ErrorKind::{Failed, Full, Storage, UnknownOutcome};
            matches!(kind, Failed | Full | Storage | UnknownOutcome)
        });
        if !typed {
            self.fail(format!("an error of another kind: {error:?}"));
        }
        let reference = Reference::of(run.commits.clone(), run.rolled_back.clone());
        // A commit that returned has a leaf, also an asynchronous one.
        let returned = run.commits.iter().filter(|commit| commit.leaf.is_some());
        let acknowledged = returned.map(|commit| commit.lsn).max().unwrap_or(0);
        // In the process itself: a failed log takes no write, another fault is over and done.
        match run.db.clone().filter(|db| !db.is_closed()) {
            Some(db) if db.shared().pipeline.failure().is_some() => {
                self.refuses(&db, &reference, &run.progress, error.as_ref());
                let lost = acknowledged > db.shared().pipeline.durable();
                match db.close() {
                    Ok(()) if lost => self.fail("closed without a word of what is lost"),
                    Err(error) if error.kind() != ErrorKind::Failed => {
                        self.fail(format!("close: {error:?}"))
                    }
                    _ => {}
                }
            }
            Some(db) => return self.goes_on(run, &db, error),
            None => {}
        }
        run.db = None;
        self.opened_again(&run.storage, &reference, &run.progress);
        kind
    }

    /// The log failed: durable data is answered, no write is taken.
    fn refuses(
        &self,
        db: &Database,
        reference: &Reference,
        progress: &Progress,
        error: Option<&Error>,
    ) {
        if error.is_some_and(|error| error.kind() == ErrorKind::UnknownOutcome) {
            let txn = error.and_then(Error::txn);
            let last = reference.commits.last().map(|commit| commit.txn.as_str());
            if txn != last {
                self.fail(format!("the outcome of {last:?} is unknown, the error names {txn:?}"));
            }
        }
        self.check(db, reference, progress);
        let before = db.lsn().unwrap();
        let written = (|| {
            let mut transaction = db.begin(Mode::Transaction, TransactionOptions::default())?;
            let note = Op::Append { kind: "after".to_owned(), payload: None, key: None };
            write(&mut transaction, &note)?;
            transaction.commit()
        })();
        match written {
            Err(error) if error.kind() == ErrorKind::Failed => {}
            other => self.fail(format!("a write after the log failed: {other:?}")),
        }
        assert_eq!(db.lsn().unwrap(), before);
        match db.outcome("no such transaction") {
            Err(error) if error.kind() == ErrorKind::UnknownOutcome => {}
            other => {
                self.fail(format!("an outcome before the database is opened again: {other:?}"))
            }
        }
    }

    /// The fault did not touch the log: what it struck did not happen, and writing goes on.
    fn goes_on(&self, mut run: Run, db: &Database, error: Option<Error>) -> Option<ErrorKind> {
        let kind = error.as_ref().map(Error::kind);
        if kind.is_none_or(|kind| kind == ErrorKind::UnknownOutcome) {
            self.fail(format!("the log is sound, and the run ended with {error:?}"));
        }
        retract(&mut run, db.lsn().unwrap());
        for _ in 0..12 {
            run.advance(Duration::from_millis(1));
            if let Err(again) = run.one() {
                self.fail(format!("{again:?}, long after {error:?}"));
            }
        }
        let reference = Reference::of(run.commits.clone(), run.rolled_back.clone());
        self.check(db, &reference, &run.progress);
        if let Err(again) = run.close() {
            self.fail(format!("close: {again:?}, long after {error:?}"));
        }
        self.opened_again(&run.storage, &reference, &run.progress);
        kind
    }

    /// As another process would: first on what the system still shows, then after a power cut.
    fn opened_again(&self, disk: &SimulatedStorage, reference: &Reference, progress: &Progress) {
        let plan = ImagePlan { seed: self.at, subsets_max: 16, tears_max: 4, ..Default::default() };
        for image in disk.images(&plan) {
            let db = self.open(&image, progress);
            self.check(&db, reference, progress);
        }
        if self.operation.kind == OperationKind::SyncDir {
            // Names that a failed sync forgot cannot be told from durable ones by another process.
            return;
        }
        // What a sync forgot is still in the page cache: what is served from it must stay.
        let db = self.open(disk, progress);
        let served = self.check(&db, reference, progress);
        drop(db);
        for image in disk.images(&plan) {
            let db = self.open(&image, progress);
            let lsn = self.check(&db, reference, progress);
            if lsn != served {
                self.fail(format!("LSN {served} was served, after a power cut {lsn} is newest"));
            }
        }
    }
}

#[test]
fn a_fault_at_any_operation_loses_nothing_acknowledged() {
    let mut endings: BTreeMap<String, u64> = BTreeMap::new();
    for seed in SEEDS {
        let mut whole = Run::new(seed);
        whole.go(STEPS).unwrap();
        assert_eq!(whole.closes.len(), 3, "opened and closed on the way");
        for (at, operation) in whole.storage.history().iter().enumerate() {
            for kind in kinds(operation) {
                let ending = Case { seed, at: at as u64, kind, operation }.run();
                *endings.entry(format!("{ending:?}")).or_default() += 1;
            }
        }
    }
    println!("how the runs ended: {endings:?}");
    let unknown = endings.get("Some(UnknownOutcome)").copied().unwrap_or(0);
    assert!(unknown > 0, "no fault struck a commit in flight");
}

#[test]
fn a_full_disk_costs_nothing_and_is_over_when_there_is_room() {
    let mut full = 0;
    for seed in 200..220 {
        let mut run = Run::new(seed);
        run.open().unwrap();
        let mut refusals = 0;
        for step in 0..80 {
            run.progress.step = step;
            run.advance(Duration::from_millis(1));
            if step % 20 == 5 {
                let files = run.storage.paths();
                let used: u64 = files
                    .iter()
                    .map(|path| run.storage.read_file(path).unwrap().len() as u64)
                    .sum();
                run.storage.set_capacity(Some(used));
            }
            let Err(error) = run.one() else { continue };
            assert_eq!(error.kind(), ErrorKind::Full, "seed {seed}, step {step}: {error:?}");
            full += 1;
            refusals += 1;
            let db = run.db.clone().unwrap();
            assert!(db.shared().pipeline.failure().is_none(), "a full disk is no failed log");
            retract(&mut run, db.lsn().unwrap());
            let reference = Reference::of(run.commits.clone(), run.rolled_back.clone());
            check_all(&db, &reference, &run.progress);
            if refusals == 2 {
                run.storage.set_capacity(None);
                refusals = 0;
            }
        }
        run.storage.set_capacity(None);
        run.close().unwrap();
        let reference = Reference::of(run.commits.clone(), run.rolled_back.clone());
        run.open().unwrap();
        check_all(run.db.as_ref().unwrap(), &reference, &run.progress);
    }
    println!("{full} refusals for want of room");
    assert!(full >= 10, "the disk was full {full} times only");
}

fn check_all(db: &Database, reference: &Reference, progress: &Progress) {
    if let Err(problem) = check(db, reference, progress) {
        panic!("{problem}");
    }
}

/// Takes back from the model what the engine did not commit.
fn retract(run: &mut Run, newest: u64) {
    run.commits.truncate(newest as usize);
    run.progress.attempted = newest;
    run.state = State::default();
    run.commits.iter().for_each(|commit| run.state.apply(commit));
}
