//! Structures made again from the log: after a change of what they derive, after damage to their
//! files, or because somebody asks for it.
//!
//! Invariants:
//! 1. The old ones answer until the new ones have every commit; the change is at one LSN.
//! 2. The new ones are durable before the old files go.
//! 3. Memory stays within the budget of the memtables.

use std::sync::Arc;

use crate::changes;
use crate::database::Shared;
use crate::error::{Error, Result};
use crate::flush;
use crate::ledger::Ledger;
use crate::log::Lsn;
use crate::log::reader::{Step, Walker};
use crate::log::record::{Commit, Record};
use crate::log::repair;
use crate::options::Mode;
use crate::schema::{Schema, StructureId};
use crate::store::{Catalog, with_sources};

/// So many missing commits are caught up with while nothing is applied.
const CAUGHT_UP: u64 = 256;

/// The memory of what is made again is looked at once in so many operations.
const LOOK_EVERY: usize = 4_096;

impl Shared {
    pub fn rebuild(
        &self,
        structures: Vec<StructureId>,
        schema: Option<Schema>,
        progress: impl FnMut(u64, u64),
    ) -> Result<()> {
        let _changing = self.changing.lock();
        self.rebuild_locked(structures, schema, progress)
    }

    /// Replays the log for these structures alone, beside the ones in use; commits wait only while
    /// the last of them are caught up with. `progress` runs while nothing waits for it. The caller
    /// holds `changing`.
    pub fn rebuild_locked(
        &self,
        structures: Vec<StructureId>,
        schema: Option<Schema>,
        progress: impl FnMut(u64, u64),
    ) -> Result<()> {
        let known = self.store.catalog();
        let schema = schema.unwrap_or_else(|| known.schema.clone());
        let links = crate::apply::Links::of(&schema);
        let only = with_sources(&links, structures);
        let catalog = Arc::new(Catalog::new(schema, Some(&known), &only));
        let made = self.make_again(&catalog, &only, progress);
        if made.is_ok() {
            return made;
        }
        self.discard_apart(&catalog, &only);
        if !Arc::ptr_eq(&known, &self.store.catalog()) {
            // They are in use and not durable, and what is not durable did not happen: what they
            // replaced is made again in memory, with the commits that came meanwhile.
            let back = Arc::new(Catalog::new(known.schema.clone(), Some(&known), &only));
            let only: Vec<StructureId> =
                only.into_iter().filter(|id| back.structures.contains_key(id)).collect();
            let newest = self.replay_upto(&back, &only, &mut |_, _| {})?;
            self.catch_up(&back, &only, newest)?;
        }
        made
    }

    /// Files of structures that did not come into use, or are in use no more.
    fn discard_apart(&self, catalog: &Catalog, only: &[StructureId]) {
        if self.options.mode == Mode::Read {
            return;
        }
        for known in only.iter().filter_map(|id| catalog.structures.get(id)) {
            self.files.discard_all(known);
        }
    }

    fn make_again(
        &self,
        catalog: &Arc<Catalog>,
        only: &[StructureId],
        mut progress: impl FnMut(u64, u64),
    ) -> Result<()> {
        let done = self.replay_upto(catalog, only, &mut progress)?;
        let replaced = self.store.catalog();
        self.swap_structures(|| self.catch_up(catalog, only, done))?;
        self.discard_apart(&replaced, only);
        let newest = self.pipeline.visible();
        progress(newest, newest);
        Ok(())
    }

    /// Replays the log until few commits are missing.
    fn replay_upto(
        &self,
        catalog: &Arc<Catalog>,
        only: &[StructureId],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Lsn> {
        let (mut done, mut unlooked) = (0, 0);
        self.each_durable(|commit, newest| {
            self.store.apply_to(catalog, commit, only)?;
            done = commit.lsn;
            unlooked += commit.frames.ops.len();
            if unlooked >= LOOK_EVERY {
                unlooked = 0;
                self.write_apart(catalog, only, done)?;
                progress(done, newest);
            }
            Ok(())
        })?;
        loop {
            let newest = self.pipeline.visible();
            if newest.saturating_sub(done) <= CAUGHT_UP {
                return Ok(done);
            }
            for lsn in done + 1..=newest {
                self.replay_one(catalog, only, lsn)?;
            }
            done = newest;
        }
    }

    /// Hands every commit that is durable now to `visit`, with the newest LSN among them; reads the
    /// log forward, without the ledger.
    fn each_durable(&self, mut visit: impl FnMut(&Commit, Lsn) -> Result<()>) -> Result<()> {
        if self.options.mode == Mode::ReadWrite {
            self.pipeline.flush()?;
        }
        let newest = self.pipeline.durable().min(self.pipeline.visible());
        let mut expected = repair::first_expected();
        for segment in self.segments.all() {
            let mut walker = Walker::new(&segment, expected);
            while walker.expected.lsn <= newest {
                self.check_open()?;
                let group = match walker.step()? {
                    Step::Group(group) => group,
                    Step::End => break,
                    Step::Bad(error) => return Err(error),
                };
                for record in group.records {
                    if let Record::Commit(mut commit) = record
                        && commit.lsn <= newest
                    {
                        self.store.values.unpack(&mut commit)?;
                        visit(&commit, newest)?;
                    }
                }
            }
            expected = walker.expected;
        }
        if expected.lsn <= newest {
            return Err(Error::corruption(format!(
                "the log ends before LSN {newest}, which was durable: run verify()"
            )));
        }
        Ok(())
    }

    /// Keeps the memory of structures that are made again within the budget.
    fn write_apart(&self, catalog: &Arc<Catalog>, only: &[StructureId], lsn: Lsn) -> Result<()> {
        let bytes = |id: &StructureId| catalog.structure(*id).ordered.memtable_bytes().0 as u64;
        let held: u64 = only.iter().map(bytes).sum();
        if self.options.mode == Mode::Read || held < self.options.memtable_bytes / 2 {
            return Ok(());
        }
        flush::write_apart(&self.files, &self.store, catalog, only, lsn)
    }

    /// Replays the last commits while nothing is applied, and puts the catalogue in use.
    fn catch_up(&self, catalog: &Arc<Catalog>, only: &[StructureId], done: Lsn) -> Result<()> {
        let _paused = self.pipeline.pause_applying();
        for lsn in done + 1..=self.pipeline.visible() {
            self.replay_one(catalog, only, lsn)?;
        }
        self.store.replace_catalog(Catalog::clone(catalog));
        Ok(())
    }

    fn replay_one(&self, catalog: &Arc<Catalog>, only: &[StructureId], lsn: Lsn) -> Result<()> {
        self.store.apply_to(catalog, &changes::commit_at(self, lsn)?, only)?;
        Ok(())
    }

    /// Makes the ledger of commits again if one of its files is damaged. The caller holds
    /// `changing`.
    pub fn heal_ledger(&self) -> Result<()> {
        let layers = self.store.ledger.ordered().layers();
        if layers.runs.iter().all(|run| run.verify().is_ok()) {
            return Ok(());
        }
        let fresh = Ledger::new(Vec::new(), 0, Arc::clone(&self.epochs));
        let mut done = 0;
        self.each_durable(|commit, _| {
            fresh.record(commit);
            done = commit.lsn;
            Ok(())
        })?;
        self.swap_structures(|| {
            let _paused = self.pipeline.pause_applying();
            for lsn in done + 1..=self.pipeline.visible() {
                fresh.record(&changes::commit_at(self, lsn)?);
            }
            self.store.ledger.replace(&fresh);
            Ok(())
        })?;
        if self.options.mode == Mode::ReadWrite {
            self.files.discard_runs(&layers.runs);
        }
        Ok(())
    }
}
