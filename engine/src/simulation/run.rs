//! One run of a plan: what the database did, what was promised, and what it is asked.
//!
//! Invariants:
//! 1. `required <= newest LSN <= oracle.lsn()`, whenever the database is opened; in between it
//!    stands at the oracle's LSN.
//! 2. Nothing here depends on anything but the plan: the same plan does the same, bit for bit.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use super::answer::difference;
use super::dice::Dice;
use super::draw::Draw;
use super::oracle::Oracle;
use super::plan::{Plan, Step};
use super::speaker;
use super::world::{Answer, Ask, Commit, Lsn, Op};
use crate::changes::Changes;
use crate::clock::{ManualClock, SeededRandom};
use crate::database::Database;
use crate::error::{Error, ErrorKind, Result};
use crate::log::record::Priority;
use crate::options::{Durability, Mode as OpenMode, Options};
use crate::reader::Reader;
use crate::schema::{Kind, Schema};
use crate::storage::simulated::SimulatedStorage;
use crate::transaction::{Mode, TransactionOptions};
use crate::verify::verify;

const BEGINNING: i64 = 1_700_000_000_000_000;
const TOLD_MAX: usize = 160;

/// What is not as it must be.
#[derive(Debug, Clone)]
pub struct Failure(pub String);

pub type Outcome<T = ()> = std::result::Result<T, Failure>;

pub fn wrong<T>(why: impl Display) -> Outcome<T> {
    Err(Failure(why.to_string()))
}

/// What a run was made of, for those who count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Disks that a crash, a failure or damage left, and that were opened and checked.
    pub states: u64,
    pub commits: u64,
    pub questions: u64,
    pub crashes: u64,
    pub faults: u64,
    pub damages: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.states += other.states;
        self.commits += other.commits;
        self.questions += other.questions;
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.damages += other.damages;
    }
}

pub struct Run<'a> {
    pub(super) plan: &'a Plan,
    pub(super) storage: SimulatedStorage,
    pub(super) clock: Arc<ManualClock>,
    pub(super) oracle: Oracle,
    pub(super) db: Option<Database>,
    /// Everything up to here was acknowledged as durable.
    pub(super) required: Lsn,
    /// The same before it rose last: what the last group of the log added is not in it.
    pub(super) settled: Lsn,
    /// Audit leaves, of what a commit told.
    pub(super) leaves: BTreeMap<Lsn, [u8; 32]>,
    /// Transactions that are not, and never will be.
    pub(super) gone: Vec<String>,
    pub(super) held: Vec<(Reader, Lsn)>,
    /// Errors of the storage are to be expected.
    pub(super) troubled: bool,
    /// A failed sync of a directory may have left names unsynced that look durable.
    pub(super) forgot_names: bool,
    /// Files as they were at an earlier close.
    pub(super) older: BTreeMap<String, Vec<u8>>,
    pub(super) openings: u64,
    pub(super) transactions: u64,
    /// Tells what it does, as it does it.
    pub talks: bool,
    pub tally: Tally,
}

impl<'a> Run<'a> {
    pub fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            storage: SimulatedStorage::absent(plan.seed),
            clock: Arc::new(ManualClock::new(BEGINNING)),
            oracle: Oracle::new(&plan.schema),
            db: None,
            required: 0,
            settled: 0,
            leaves: BTreeMap::new(),
            gone: Vec::new(),
            held: Vec::new(),
            troubled: false,
            forgot_names: false,
            older: BTreeMap::new(),
            openings: 0,
            transactions: 0,
            talks: false,
            tally: Tally::default(),
        }
    }

    /// Takes every step, closes, opens once more and checks.
    pub fn go(&mut self) -> Outcome {
        self.create(&Dice::new(self.plan.seed ^ 0xC4EA7E))?;
        for (number, step) in self.plan.steps.iter().enumerate() {
            self.one(step)
                .map_err(|Failure(why)| Failure(format!("step {number}, {step:?}: {why}")))?;
        }
        self.settle(&Dice::new(self.plan.seed))?;
        self.close()?;
        self.open()?;
        self.check_all()
    }

    fn one(&mut self, step: &Step) -> Outcome {
        let dice = Dice::new(step.seed);
        if self.talks {
            eprintln!("{:?} at LSN {}", step.action, self.oracle.lsn());
        }
        self.clock.advance(Duration::from_micros(1 + dice.next() % 5_000));
        self.take(step.action, &dice)?;
        self.settle_if_down(&dice)
    }

    pub(super) fn db(&self) -> Database {
        self.db.clone().expect("it is open between steps")
    }

    pub(super) fn options(&self, mode: OpenMode) -> Options {
        let setup = &self.plan.setup;
        Options {
            mode,
            background: false,
            durability: setup.durability,
            memory_bytes: 1 << 20,
            memtable_bytes: setup.memtable_bytes,
            fan_out: setup.fan_out,
            seal_vectors: setup.seal_vectors,
            segment_bytes_min: setup.segment_bytes_min,
            segment_bytes_max: setup.segment_bytes_min * 2,
            compression: setup.compression.clone(),
            waf_budget: setup.waf_budget,
            history_micros: setup.history_micros,
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(self.plan.seed ^ (self.openings << 32))),
            ..Options::default()
        }
    }

    /// As it is declared: ids are given by the database.
    pub(super) fn declared(&self) -> Schema {
        let mut schema = self.plan.schema.clone();
        schema.structures.iter_mut().for_each(|one| one.id = 0);
        schema
    }

    pub(super) fn try_open(&mut self, disk: &SimulatedStorage, mode: OpenMode) -> Result<Database> {
        self.openings += 1;
        let declared = (mode == OpenMode::ReadWrite).then(|| self.declared());
        Database::open(Arc::new(disk.clone()), self.options(mode), declared)
    }

    pub(super) fn open(&mut self) -> Outcome {
        let disk = self.storage.clone();
        match self.try_open(&disk, OpenMode::ReadWrite) {
            Ok(db) => self.db = Some(db),
            // What is left is opened when the crash is dealt with.
            Err(_) if self.storage.is_crashed() => return Ok(()),
            Err(error) => return wrong(format!("cannot open: {error:?}")),
        }
        self.stands(&self.db(), self.oracle.lsn())
    }

    pub(super) fn stands(&self, db: &Database, wanted: Lsn) -> Outcome {
        match db.lsn() {
            Ok(lsn) if lsn == wanted => Ok(()),
            Err(error) if self.is_excused(&error) => Ok(()),
            other => wrong(format!("the newest LSN is {other:?}, should be {wanted}")),
        }
    }

    /// An error where the storage fails, or nothing; anything else is a failure of the engine.
    pub(super) fn tolerate<T>(&self, doing: &str, result: Result<T>) -> Outcome<Option<T>> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(error) if self.is_excused(&error) => Ok(None),
            Err(error) => wrong(format!("{doing}: {error:?}")),
        }
    }

    pub(super) fn is_excused(&self, error: &Error) -> bool {
        use ErrorKind::{Failed, Full, Storage, UnknownOutcome};
        let of_storage = matches!(error.kind(), Failed | Full | Storage | UnknownOutcome);
        self.storage.is_crashed() || (self.troubled && of_storage)
    }

    pub(super) fn draw<'d>(&'d self, dice: &'d Dice) -> Draw<'d> {
        let now = self.db().shared().pipeline.now();
        Draw { dice, schema: &self.plan.schema, now }
    }

    pub(super) fn transaction_options(&mut self, dice: &Dice, sync: bool) -> TransactionOptions {
        self.transactions += 1;
        let number = self.transactions;
        TransactionOptions {
            txn: dice.chance(40).then(|| format!("txn-{number}")),
            priority: *dice.pick(&[Priority::Critical, Priority::Routine, Priority::Background]),
            durability: Some(if sync { Durability::Sync } else { Durability::Async }),
            actor: dice.chance(30).then(|| "planner".to_owned()),
            reason: dice.chance(20).then(|| "said so".to_owned()),
            serializable: dice.chance(10),
        }
    }

    /// Everything up to here was acknowledged as durable.
    pub(super) fn is_durable(&mut self, lsn: Lsn) {
        if lsn > self.required {
            self.settled = self.required;
            self.required = lsn;
        }
    }

    /// An id of its own, so that its outcome can be asked.
    pub(super) fn plain_options(&mut self, sync: bool) -> TransactionOptions {
        self.transactions += 1;
        TransactionOptions {
            txn: Some(format!("txn-{}", self.transactions)),
            durability: Some(if sync { Durability::Sync } else { Durability::Async }),
            ..TransactionOptions::default()
        }
    }

    /// Commits operations, or is refused as the oracle says.
    pub(super) fn commit(&mut self, dice: &Dice, mode: Mode, ops: Vec<Op>) -> Outcome {
        let options = self.transaction_options(dice, dice.chance(60));
        self.commit_with(options, mode, ops)
    }

    pub(super) fn commit_with(
        &mut self,
        options: TransactionOptions,
        mode: Mode,
        ops: Vec<Op>,
    ) -> Outcome {
        let sync = options.durability == Some(Durability::Sync);
        let (actor, reason) = (options.actor.clone(), options.reason.clone());
        let begun = self.db().begin(mode, options);
        let Some(mut tx) = self.tolerate("begin", begun)? else { return Ok(()) };
        let txn = tx.txn();
        let written = ops.iter().try_for_each(|op| speaker::write(&mut tx, op));
        if self.tolerate("write", written)?.is_none() {
            tx.rollback();
            self.gone.push(txn);
            return Ok(());
        }
        if self.talks {
            eprintln!("  LSN {}: {}", self.oracle.lsn() + 1, told(&ops));
        }
        let refusal = self.oracle.refusal(&ops);
        let lsn = self.oracle.lsn() + 1;
        let time = self.db().shared().pipeline.now();
        let committed = tx.commit();
        if let (true, Err(error)) = (self.talks, &committed) {
            eprintln!("  refused: {error:?}");
        }
        let commit = |time| Commit { lsn, time, txn: txn.clone(), actor, reason, ops };
        match (committed, refusal) {
            (Ok(receipt), None) => {
                if receipt.lsn != lsn || (sync && !receipt.durable) {
                    return wrong(format!("{receipt:?} for LSN {lsn}, sync: {sync}"));
                }
                self.oracle.apply(commit(receipt.time));
                self.leaves.extend(receipt.leaf.map(|leaf| (lsn, leaf)));
                if receipt.durable {
                    self.is_durable(lsn);
                }
                self.tally.commits += 1;
                Ok(())
            }
            // Where it is refused for two reasons, either may be told.
            (Err(error), Some(_))
                if matches!(error.kind(), ErrorKind::Unique | ErrorKind::Link) =>
            {
                self.gone.push(txn);
                Ok(())
            }
            (Err(error), _) if self.is_excused(&error) => {
                // Cut off it may have become durable; refused with an answer it did not.
                let unknown = error.kind() == ErrorKind::UnknownOutcome;
                if (unknown || self.storage.is_crashed()) && refusal.is_none() {
                    self.oracle.apply(commit(time));
                } else {
                    self.gone.push(txn);
                }
                Ok(())
            }
            (answer, refusal) => wrong(format!("a commit: {answer:?}, should be {refusal:?}")),
        }
    }

    /// Asks at one LSN, of the database that stands at the oracle's.
    pub(super) fn ask(&mut self, reader: &Reader, ask: &Ask, at: Lsn) -> Outcome {
        let db = self.db();
        let now = db.shared().pipeline.now();
        let Some(wanted) = self.oracle.answer(ask, at, now) else { return Ok(()) };
        self.tally.questions += 1;
        match speaker::ask(reader, ask) {
            Ok(found) => same(ask, at, &found, &wanted),
            Err(error) if self.is_excused(&error) => Ok(()),
            // A snapshot that is held may run out; else it is answered whatever history is kept.
            Err(error) if error.kind() == ErrorKind::SnapshotExpired => Ok(()),
            Err(error) => wrong(format!("{ask:?} at {at}: {error:?}")),
        }
    }

    /// Where history is bounded, an old LSN may be refused.
    pub(super) fn is_history(&self, error: &Error) -> bool {
        self.plan.setup.history_micros.is_some() && error.kind() == ErrorKind::History
    }

    /// Everything, now and at two LSNs of the past, and `verify`.
    pub(super) fn check_all(&mut self) -> Outcome {
        let db = self.db();
        let newest = self.oracle.lsn();
        let dice = Dice::new(self.plan.seed ^ newest);
        let Some(reader) = self.tolerate("a reader", db.reader_at(newest))? else { return Ok(()) };
        self.stands(&db, newest)?;
        for ask in self.draw(&dice).everything(false) {
            self.ask(&reader, &ask, newest)?;
        }
        for past in [newest.saturating_sub(1), dice.next() % newest.max(1)] {
            if past == 0 {
                continue;
            }
            match db.reader_at(past) {
                Ok(reader) => {
                    for ask in self.draw(&dice).everything(true) {
                        self.ask(&reader, &ask, past)?;
                    }
                }
                Err(error) if self.is_history(&error) || self.is_excused(&error) => {}
                Err(error) => return wrong(format!("a reader at {past}: {error:?}")),
            }
        }
        self.check_history(&db)?;
        self.verified(&db)
    }

    /// Outcomes, the order of commits, and the audit's leaves.
    fn check_history(&self, db: &Database) -> Outcome {
        if db.shared().pipeline.failure().is_some() {
            return Ok(());
        }
        let outcome = |txn: &str| self.tolerate("outcome", db.outcome(txn));
        for commit in self.oracle.commits() {
            if outcome(&commit.txn)? == Some(false) {
                return wrong(format!("{:?} of LSN {} is absent", commit.txn, commit.lsn));
            }
        }
        for txn in &self.gone {
            if outcome(txn)? == Some(true) {
                return wrong(format!("{txn:?} is committed, and was not"));
            }
        }
        // Asking made durable what was not, and may have failed at it.
        if db.shared().pipeline.failure().is_some() {
            return Ok(());
        }
        let changes = Changes::new(Arc::clone(db.shared()), 0).and_then(|mut changes| {
            let (mut all, mut page) = (Vec::new(), changes.page(9)?);
            while !page.is_empty() {
                all.extend(page.into_iter().map(|one| (one.lsn, one.txn, one.actor, one.reason)));
                page = changes.page(9)?;
            }
            Ok(all)
        });
        let Some(found) = self.tolerate("changes", changes)? else { return Ok(()) };
        let wanted = self
            .oracle
            .commits()
            .iter()
            .map(|one| (one.lsn, one.txn.clone(), one.actor.clone(), one.reason.clone()));
        if found != wanted.collect::<Vec<_>>() {
            return wrong(format!("the changes are {found:?}"));
        }
        let audit = self.plan.schema.structures.iter().find(|one| one.kind == Kind::Audit {});
        let Some(audit) = audit else { return Ok(()) };
        let catalog = db.shared().store.catalog();
        let leaves = catalog.structures[&audit.id].leaves();
        for (lsn, leaf) in self.leaves.range(..=self.oracle.lsn()) {
            match self.tolerate("a leaf", leaves.leaf(lsn - 1))? {
                Some(Some(found)) if found == *leaf => {}
                None => {}
                other => return wrong(format!("the audit leaf of LSN {lsn} is {other:?}")),
            }
        }
        Ok(())
    }

    pub(super) fn verified(&self, db: &Database) -> Outcome {
        if db.shared().pipeline.failure().is_some() {
            return Ok(());
        }
        match verify(db.shared(), true, &mut |_, _| {}) {
            // What could not be read is a problem, too.
            Ok(report) if report.ok || self.troubled || self.storage.is_crashed() => Ok(()),
            Ok(report) => wrong(format!("verify: {:?}", report.problems.first())),
            Err(error) if self.is_excused(&error) => Ok(()),
            Err(error) => wrong(format!("verify: {error:?}")),
        }
    }

    pub(super) fn close(&mut self) -> Outcome {
        self.held.clear();
        let closed = self.db().close();
        if self.tolerate("close", closed)?.is_some() {
            self.is_durable(self.oracle.lsn());
        }
        self.db = None;
        Ok(())
    }
}

/// Operations in words, long values cut.
fn told(ops: &[Op]) -> String {
    let all = ops.iter().map(|op| format!("{op:?}"));
    let cut = all.map(|op| match op.char_indices().nth(TOLD_MAX) {
        Some((end, _)) => format!("{}…", &op[..end]),
        None => op,
    });
    cut.collect::<Vec<_>>().join("; ")
}

pub(super) fn same(ask: &Ask, at: Lsn, found: &Answer, wanted: &Answer) -> Outcome {
    match difference(ask, found, wanted) {
        None => Ok(()),
        Some(difference) => wrong(format!("{ask:?} at {at}: {difference}")),
    }
}
