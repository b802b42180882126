//! The watch: at idle the structures are compared with the log, a part at a time, and one that
//! differs is made again.
//!
//! A part is what falls into one hash range of keys, derived from the log and compared entry by
//! entry, values by hash. Invariants:
//! 1. It works only while nobody commits, and stops when somebody does or the database closes.
//! 2. What it repairs it says (`stats().watch`): a difference is a fault of the engine, of memory
//!    or of the medium, and none of them should pass unseen.
//! 3. A round that found nothing is begun again only after commits, and not at once.

use std::sync::Arc;

use super::derive::{Links, Partition, Unchanged};
use super::{Findings, Run, oldest_sample};
use crate::database::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Lsn;
use crate::options::Mode;
use crate::schema::StructureId;
use crate::stats::{Repaired, Watched};
use crate::sync::Mutex;

/// Nobody committed for so long.
const IDLE_NANOS: u64 = 5_000_000_000;
/// Between two rounds.
const ROUND_NANOS: u64 = 600_000_000_000;
/// Repairs that are remembered.
const REPAIRED_MAX: usize = 64;

#[derive(Default)]
pub struct Watch {
    /// Held while a part is compared.
    state: Mutex<State>,
    seen: Mutex<Watched>,
}

#[derive(Default)]
struct State {
    /// The part that is next, and of how many.
    next: u64,
    of: u64,
    unchanged: Unchanged,
    /// Up to where the last whole round compared.
    compared: Lsn,
    again: u64,
}

impl Shared {
    /// A turn of the watch, if nobody else needs the machine.
    pub fn watch_turn(self: &Arc<Self>) {
        let now = self.options.clock.monotonic_nanos();
        let due = {
            let state = self.watch.state.lock();
            let news = state.next > 0 || state.compared < self.pipeline.visible();
            news && now >= state.again
        };
        if due && self.pipeline.idle_nanos() >= IDLE_NANOS {
            let commits = self.pipeline.commits();
            let undisturbed = || self.pipeline.commits() == commits && !*self.stopping.lock();
            // What keeps it from looking is told by whoever needs the same bytes.
            if self.watch_step(&undisturbed).is_err() {
                self.watch.state.lock().again = now.saturating_add(ROUND_NANOS);
            }
        }
    }

    /// Compares the next part of every structure, and makes again what differs; `false`: somebody
    /// came, and it is to be compared again.
    pub fn watch_step(self: &Arc<Self>, undisturbed: &dyn Fn() -> bool) -> Result<bool> {
        self.check_open()?;
        if self.options.mode == Mode::Read || self.pipeline.failure().is_some() {
            return Ok(false);
        }
        self.pipeline.flush()?;
        self.store.index_everything()?;
        let target = self.pipeline.durable().min(self.pipeline.visible());
        let _pin = self.store.snapshots.pin(oldest_sample(target));
        let catalog = self.store.catalog();
        let links = Links::of(&catalog.schema);
        let segments = self.segments.all();
        let run = Run { shared: self, links, segments, catalog, target };
        let mut findings = Findings::default();
        let mut state = self.watch.state.lock();
        let looked = run.part(&mut state, &mut findings, undisturbed);
        if let Err(error) = looked {
            return if error.kind() == ErrorKind::Timeout { Ok(false) } else { Err(error) };
        }
        let diverged: Vec<StructureId> = findings.diverged.iter().copied().collect();
        if !diverged.is_empty() {
            drop(run);
            self.repair(&diverged, &findings)?;
        }
        if state.next == 0 {
            let mut seen = self.watch.seen.lock();
            seen.rounds += 1;
            seen.lsn = target;
            state.compared = target;
            state.again = self.options.clock.monotonic_nanos().saturating_add(ROUND_NANOS);
        }
        Ok(true)
    }

    fn repair(&self, diverged: &[StructureId], findings: &Findings) -> Result<()> {
        let _changing = self.changing.lock();
        let catalog = self.store.catalog();
        let ids = diverged.iter().copied().filter(|id| catalog.schema.by_id(*id).is_some());
        self.rebuild_locked(ids.collect(), None, |_, _| {
            // It may take long, and memory must not fill up meanwhile; an error comes again.
            let _ = self.flush_step();
        })?;
        let what =
            findings.problems.first().map(|first| format!("{}: {}", first.where_, first.what));
        let mut seen = self.watch.seen.lock();
        for id in diverged {
            seen.repaired.push(Repaired {
                structure: catalog.schema.name_of(*id),
                lsn: self.pipeline.visible(),
                what: what.clone().unwrap_or_default(),
            });
        }
        let surplus = seen.repaired.len().saturating_sub(REPAIRED_MAX);
        seen.repaired.drain(..surplus);
        Ok(())
    }

    /// What the watch has seen since the opening.
    pub fn watched(&self) -> Watched {
        self.watch.seen.lock().clone()
    }
}

impl Run<'_> {
    /// One part, over two walks of the log: what was forgotten, then what there must be.
    fn part(
        &self,
        state: &mut State,
        findings: &mut Findings,
        undisturbed: &dyn Fn() -> bool,
    ) -> Result<()> {
        let mut step = |_: u64| match undisturbed() {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Timeout, "somebody needs the database")),
        };
        let log = self.log(true, findings, &mut step)?;
        if log.damaged {
            return Err(Error::corruption("the log is damaged: verify says where"));
        }
        if Links::joins_keys(&self.catalog.schema) && log.derived_bytes > super::PASS_BYTES {
            // It would have to hold all keys at once; `verify(deep)` does where it is asked to.
            return Ok(());
        }
        if state.next == 0 {
            state.of = self.passes(&log, super::PASS_BYTES);
            state.unchanged = Unchanged::default();
        }
        let partition = Partition { number: state.next, of: state.of };
        let unchanged = std::mem::take(&mut state.unchanged);
        state.unchanged = self.pass(&log.masks, partition, unchanged, findings, &mut step)?;
        state.next = if partition.is_last() { 0 } else { state.next + 1 };
        Ok(())
    }
}
