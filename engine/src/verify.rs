//! Verification: every checksum of the log, and every structure against what the log says.
//!
//! The shallow part walks every group and asks whether the ledger of commits agrees with it. The
//! deep part derives each structure again and compares it, entry by entry, with what is held.
//! Invariants:
//! 1. The derivation shares only the decoders (log, codecs, schema) with the engine: a mistake in
//!    how structures take operations in cannot hide in both.
//! 2. Commits that run meanwhile are no problem: everything is read at the durable LSN of the
//!    beginning, under a pin.
//! 3. Memory is bounded: each pass over the log keeps the keys of one hash partition, about
//!    `PASS_BYTES` of them. Beyond that, 24 B for each forgotten key and for each captured delete
//!    that deleted nothing.
//! 4. Over a log that is not whole nothing is derived: it could only repeat the damage.
//!
//! Older LSNs are compared at samples, events and audit leaves one by one; caches have no history.
//! It repairs nothing; the watch does, at idle.

mod compare;
mod derive;
mod leaves;
mod walk;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use crate::database::Shared;
use crate::error::Result;
use crate::ledger::LEDGER;
use crate::log::Lsn;
use crate::log::record::{Commit, OpKind};
use crate::log::segment::Segment;
use crate::options::Mode;
use crate::ordered::run;
use crate::schema::{Kind, Schema, StructureId};
use crate::store::Catalog;
use derive::{Derivation, Links, Partition, Unchanged};
pub use watch::Watch;

/// Derived entries that one pass over the log may keep, about.
pub const PASS_BYTES: u64 = 64 << 20;
/// Problems beyond this are counted only.
pub const PROBLEMS_MAX: usize = 1_000;
/// A derived entry's cost besides its bytes.
const ENTRY_BYTES: u64 = 192;
const PROGRESS_COMMITS: u64 = 1_024;

#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    #[serde(rename = "where")]
    pub where_: String,
    pub lsn: Option<Lsn>,
    pub what: String,
    pub lost: String,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Checked {
    pub segments: u64,
    pub groups: u64,
    pub commits: u64,
    pub values: u64,
    pub entries: u64,
    pub runs: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub ok: bool,
    /// The first `PROBLEMS_MAX`.
    pub problems: Vec<Problem>,
    pub problems_count: u64,
    pub checked: Checked,
}

/// What was found so far.
#[derive(Default)]
struct Findings {
    problems: Vec<Problem>,
    count: u64,
    checked: Checked,
    /// Structures that differ from the log.
    diverged: BTreeSet<StructureId>,
}

impl Findings {
    fn add(&mut self, where_: impl Into<String>, lsn: Option<Lsn>, what: String, lost: String) {
        self.count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { where_: where_.into(), lsn, what, lost });
        }
    }
}

/// Checks the database; `deep`: every structure, too. `progress` gets commits done and in all.
pub fn verify(
    shared: &Arc<Shared>,
    deep: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report> {
    verify_in(shared, deep, PASS_BYTES, progress)
}

fn verify_in(
    shared: &Arc<Shared>,
    deep: bool,
    pass_bytes: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report> {
    shared.check_open()?;
    if shared.options.mode == Mode::ReadWrite && shared.pipeline.failure().is_none() {
        shared.pipeline.flush()?;
    }
    shared.store.index_everything()?;
    let target = shared.pipeline.durable().min(shared.pipeline.visible());
    let _pin = shared.store.snapshots.pin(oldest_sample(target));
    let catalog = shared.store.catalog();
    let run = Run {
        shared,
        links: Links::of(&catalog.schema),
        segments: shared.segments.all(),
        catalog,
        target,
    };
    let mut findings = Findings::default();
    let passes_least = u64::from(deep);
    let mut step = |done: u64, passes: u64| {
        if done.is_multiple_of(PROGRESS_COMMITS) || done == target * (1 + passes) {
            progress(done, target * (1 + passes));
        }
    };
    let log = run.log(deep, &mut findings, &mut |done| {
        step(done, passes_least);
        Ok(())
    })?;
    if deep && log.damaged {
        findings.add(
            shared.storage.name(),
            None,
            "the structures were not compared: the log they follow from is damaged".to_owned(),
            "nothing more; restore the log from a backup and verify again".to_owned(),
        );
    } else if deep {
        let passes = run.passes(&log, pass_bytes);
        run.structures(&log.masks, passes, &mut findings, &mut |done| {
            step(done, passes);
            Ok(())
        })?;
    }
    Ok(Report {
        ok: findings.count == 0,
        problems: findings.problems,
        problems_count: findings.count,
        checked: findings.checked,
    })
}

/// The LSNs at which structures are compared, besides the newest.
fn samples(target: Lsn) -> [Lsn; 3] {
    [target / 4, target / 2, target]
}

fn oldest_sample(target: Lsn) -> Lsn {
    samples(target)[0]
}

/// Forgotten keys, by hash, and up to which LSN.
#[derive(Default)]
struct Masks(HashMap<u128, Lsn>);

impl Masks {
    fn hash(structure: StructureId, key: &[u8]) -> u128 {
        // Never the number as the seed: short keys of two seeds may collide.
        let mut hash = Xxh3::new();
        hash.update(&structure.to_le_bytes());
        hash.update(key);
        hash.digest128()
    }

    fn hides(&self, structure: StructureId, key: &[u8], lsn: Lsn) -> bool {
        !self.0.is_empty()
            && self.0.get(&Self::hash(structure, key)).is_some_and(|mask| lsn <= *mask)
    }
}

/// What the walk over the log tells the derivation.
#[derive(Default)]
struct LogFacts {
    masks: Masks,
    derived_bytes: u64,
    /// The log itself is not whole.
    damaged: bool,
}

/// One verification: what it reads, and at which LSN.
struct Run<'a> {
    shared: &'a Arc<Shared>,
    catalog: Arc<Catalog>,
    links: Links,
    segments: Vec<Segment>,
    target: Lsn,
}

impl Run<'_> {
    /// The shallow part.
    fn log(
        &self,
        deep: bool,
        findings: &mut Findings,
        step: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<LogFacts> {
        let mut facts = LogFacts::default();
        let whole = walk::commits(self, findings, |commit, findings| {
            findings.checked.commits += 1;
            findings.checked.values +=
                commit.frames.ops.iter().filter(|op| commit.frames.value(op).is_some()).count()
                    as u64;
            self.check_ledger(commit, findings);
            if deep {
                self.note(commit, &mut facts);
                self.check_masks(commit, findings);
            }
            step(commit.lsn)
        })?;
        findings.checked.segments = whole.segments;
        findings.checked.groups = whole.groups;
        facts.damaged = findings.count > 0;
        self.check_runs(findings);
        let held = self.shared.store.ledger.count(self.target).unwrap_or(0);
        if findings.count == 0 && held != self.target {
            findings.add(
                "ledger of commits",
                None,
                format!("it holds {held} commits, the log {}", self.target),
                "nothing: open the database again, the ledger is made from the log".to_owned(),
            );
        }
        Ok(facts)
    }

    /// Every checksum of every run, and the order of its keys.
    fn check_runs(&self, findings: &mut Findings) {
        self.shared.store.each_ordered(&self.catalog, |structure, ordered| {
            for run in &ordered.layers().runs {
                findings.checked.runs += 1;
                let Err(error) = run.verify() else { continue };
                findings.add(
                    format!("{} of {}", run::path(run.info().uid), self.structure_name(structure)),
                    None,
                    error.message().to_owned(),
                    "nothing: the log has it; rebuild the structure".to_owned(),
                );
            }
        });
    }

    fn structure_name(&self, structure: StructureId) -> String {
        match structure {
            LEDGER => "the ledger of commits".to_owned(),
            id => format!("{:?}", self.catalog.schema.name_of(id)),
        }
    }

    /// Where a commit lies, when it was, and its transaction, as the ledger has them.
    fn check_ledger(&self, commit: &Commit, findings: &mut Findings) {
        let ledger = &self.shared.store.ledger;
        let mut wrong = |what: String| {
            findings.add(
                "ledger of commits",
                Some(commit.lsn),
                what,
                "nothing: open the database again, the ledger is made from the log".to_owned(),
            );
        };
        match ledger.commit(commit.lsn) {
            Err(error) => wrong(error.message().to_owned()),
            Ok(None) => wrong("the commit is in the log and not in the ledger".to_owned()),
            Ok(Some((time, pointer))) => {
                if pointer != commit.record_pointer() {
                    wrong(format!(
                        "the commit lies at {:?}, the ledger says {pointer:?}",
                        commit.record_pointer()
                    ));
                }
                if time != commit.time {
                    wrong(format!("the commit's time is {}, the ledger says {time}", commit.time));
                }
            }
        }
        let txn = commit.head.txn.text();
        match ledger.transaction(&commit.head.txn, commit.lsn) {
            Ok(Some(lsn)) if lsn == commit.lsn => {}
            Ok(_) => wrong(format!("transaction {txn:?} is not in the ledger with this commit")),
            Err(error) => wrong(error.message().to_owned()),
        }
    }

    fn note(&self, commit: &Commit, facts: &mut LogFacts) {
        for op in &commit.frames.ops {
            let Some(structure) = self.catalog.schema.by_id(op.structure) else { continue };
            let key = commit.frames.key(op);
            if op.kind == OpKind::Forget {
                for id in self.links.forgotten_with(op.structure) {
                    facts.masks.0.insert(Masks::hash(id, key), commit.lsn);
                }
            } else if op.kind == OpKind::Put {
                let copies = match &structure.kind {
                    Kind::Rows { indexes, unique, .. } => 1 + indexes.len() + unique.len(),
                    Kind::Cache { .. } => 2,
                    _ => 1,
                };
                facts.derived_bytes += copies as u64 * (key.len() as u64 + ENTRY_BYTES);
            }
        }
    }

    /// What was forgotten is hidden from every read.
    fn check_masks(&self, commit: &Commit, findings: &mut Findings) {
        for op in commit.frames.ops.iter().filter(|op| op.kind == OpKind::Forget) {
            if self.catalog.schema.by_id(op.structure).is_none() {
                continue;
            }
            let key = commit.frames.key(op);
            for id in self.links.forgotten_with(op.structure) {
                let what = match self.shared.store.hides(id, key, commit.lsn) {
                    Ok(true) => continue,
                    Ok(false) => "the key was forgotten and nothing hides what it was".to_owned(),
                    Err(error) => error.message().to_owned(),
                };
                findings.add(
                    named(&self.catalog.schema, id, key),
                    Some(commit.lsn),
                    what,
                    "nothing, but forgotten content may be answered: open the database again"
                        .to_owned(),
                );
            }
        }
    }

    /// In how many passes the structures are compared.
    fn passes(&self, log: &LogFacts, pass_bytes: u64) -> u64 {
        match Links::joins_keys(&self.catalog.schema) {
            true => 1,
            false => log.derived_bytes.div_ceil(pass_bytes.max(1)).max(1),
        }
    }

    /// The deep part.
    fn structures(
        &self,
        masks: &Masks,
        passes: u64,
        findings: &mut Findings,
        step: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let mut unchanged = Unchanged::default();
        for number in 0..passes {
            let partition = Partition { number, of: passes };
            let known = findings.count;
            unchanged = self.pass(masks, partition, unchanged, findings, step)?;
            if findings.count > known && findings.problems.len() == PROBLEMS_MAX {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One walk over the log for the keys of a partition; what the next one must know of it.
    fn pass(
        &self,
        masks: &Masks,
        partition: Partition,
        unchanged: Unchanged,
        findings: &mut Findings,
        step: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Unchanged> {
        let floor = self.shared.store.floor();
        let samples = samples(self.target);
        let mut derivation =
            Derivation::new(&self.catalog.schema, &self.links, partition, unchanged);
        let mut streams = compare::Streams::new(self, partition.is_last());
        walk::commits(self, findings, |commit, findings| {
            let taken = derivation.commit(commit, &mut |event| {
                streams.event(self, commit, &event, findings);
            });
            if let Err(error) = taken {
                findings.add(
                    self.shared.storage.name(),
                    Some(commit.lsn),
                    format!("the commit cannot be taken in: {error}"),
                    "what this commit wrote; restore the log from a backup".to_owned(),
                );
            }
            streams.commit(self, commit, findings);
            if samples.contains(&commit.lsn) && commit.lsn >= floor {
                compare::at(self, &derivation, masks, commit.lsn, findings);
            }
            step(self.target * (1 + partition.number) + commit.lsn)
        })?;
        if self.target == 0 {
            compare::at(self, &derivation, masks, 0, findings);
        }
        streams.finish(self, findings);
        Ok(derivation.unchanged)
    }
}

/// A key of a structure, as problems name it.
fn named(schema: &Schema, structure: StructureId, key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    format!("{} {:?}", schema.name_of(structure), crate::codec::msgpack::clipped(&text))
}
