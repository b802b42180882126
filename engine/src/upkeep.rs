//! Upkeep of an open database: flushes, merges, checkpoints, and what makes writers wait for them.
//!
//! Each is a step that a thread takes in production and a test takes one by one. Invariants:
//! 1. Runs come and go under one lock, in the order in which checkpoints say so.
//! 2. A file is removed only after a checkpoint that does not name it is durable.
//! 3. Memtables never grow beyond their budget by more than what is being committed: a writer that
//!    meets a full one waits for the flush, or does it where no thread does.

use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::Mark;
use crate::clock::Micros;
use crate::compression::Packer;
use crate::database::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::flush::{self, Rules};
use crate::ledger::LEDGER;
use crate::limits;
use crate::log::Lsn;
use crate::log::format::{RECORD_HEADER_BYTES, RecordKind};
use crate::log::packed::DictionaryAt;
use crate::log::reader::ControlAt;
use crate::options::Mode;
use crate::ordered::Ordered;
use crate::ordered::merge::{self, Merge};
use crate::schema::StructureId;
use crate::stats::Lag;
use crate::store::{Catalog, Store};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex};
use crate::vectors::Searchable;
use crate::views::{self, View};

/// A structure is written out when its oldest commit in memory is so much log behind.
const LOG_BEHIND_BYTES_MAX: u64 = 64 << 20;
/// What a close may leave to be replayed by the next opening.
const LOG_BEHIND_AT_CLOSE: u64 = 16 << 20;
/// A merge writes, or reads, so much at a time before it lets others go first.
const SLICE_BYTES: u64 = 256 << 10;
const SLICE_ENTRIES: u64 = 32 << 10;
/// Runs of one structure at which writers wait for merges.
const RUNS_MAX: usize = 192;
/// A writer looks again so often whether what it waits for has ended in an error.
const WAIT_STEP: Duration = Duration::from_millis(100);
/// The longest pause between two slices beside committers.
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// A flush that failed is not tried again for so long.
const RETRY_NANOS: u64 = 1_000_000_000;

/// What the steps share; in the database's keeping.
#[derive(Default)]
pub struct Upkeep {
    /// Held while runs or the checkpoint change.
    changing: Mutex<Option<Merging>>,
    /// About what memtables take, as of the last group that was applied.
    active_bytes: AtomicU64,
    sealed_bytes: AtomicU64,
    tail_bytes: AtomicU64,
    /// Most runs any structure has.
    runs: AtomicU64,
    /// Why the last flush or merge failed, and when one may be tried again.
    failure: Mutex<Option<(Error, u64)>>,
    /// When a structure may be made again after that failed, and how long it waited before.
    heal_again: Mutex<(u64, u64)>,
    /// Files that no checkpoint will name once the next one is durable.
    obsolete: Mutex<Vec<u64>>,
    obsolete_graphs: Mutex<Vec<u64>>,
    /// Runs came or went that no durable checkpoint tells of.
    unsaved: AtomicBool,
    /// Notified when there is work for the thread, and when some was done.
    gate: Mutex<()>,
    work: Condvar,
    done: Condvar,
    stopping: AtomicBool,
}

/// The merge that is under way.
struct Merging {
    structure: StructureId,
    uid: u64,
    /// Whose runs they are: a structure made anew meanwhile has others.
    owner: Owner,
    bottom: bool,
    merge: Merge,
}

type Owner = Option<Arc<crate::materialised::Materialised>>;

impl Upkeep {
    /// Sleeps until there may be work, at most for `time`.
    pub fn await_work(&self, time: Duration) {
        let mut gate = self.gate.lock();
        if !time.is_zero() && !self.stopping.load(Ordering::Acquire) {
            self.work.wait_for(&mut gate, time);
        }
    }

    /// Takes stock of the memtables; called when a group was applied.
    pub fn take_stock(&self, store: &Store, memtable_bytes: u64) {
        let (active, sealed) = store.memtable_bytes();
        self.active_bytes.store(active, Ordering::Relaxed);
        self.sealed_bytes.store(sealed, Ordering::Relaxed);
        self.take_stock_of_tails(store);
        if active >= seal_at(memtable_bytes) {
            self.work.notify_one();
        }
    }

    pub fn take_stock_of_tails(&self, store: &Store) {
        self.tail_bytes.store(store.waiting_vector_bytes(), Ordering::Relaxed);
    }

    /// About what vectors take in memory for want of a graph, those of lazy structures left out.
    pub fn tail_bytes(&self) -> u64 {
        self.tail_bytes.load(Ordering::Relaxed)
    }

    /// The thread is gone for good: writers must not wait for it.
    pub fn abandon(&self) {
        let bug = Error::new(ErrorKind::Failed, "an invariant of the upkeep was broken (a bug)");
        *self.failure.lock() = Some((bug, u64::MAX));
        let _gate = self.gate.lock();
        self.done.notify_all();
    }

    /// Tells those who wait for room.
    pub fn made_room(&self) {
        let _gate = self.gate.lock();
        self.done.notify_all();
    }

    /// Waits for whoever changes runs.
    pub fn settle(&self) {
        drop(self.changing.lock());
    }

    /// Files to remove once a checkpoint that does not name them is durable.
    pub fn make_obsolete(&self, uids: impl IntoIterator<Item = u64>) {
        self.obsolete.lock().extend(uids);
    }

    pub fn make_graphs_obsolete(&self, uids: impl IntoIterator<Item = u64>) {
        self.obsolete_graphs.lock().extend(uids);
        self.unsaved.store(true, Ordering::Relaxed);
    }

    /// Ends every wait for good.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let _gate = self.gate.lock();
        self.work.notify_all();
        self.done.notify_all();
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// The active memtables are sealed at this size, so that the rest takes what comes meanwhile.
fn seal_at(memtable_bytes: u64) -> u64 {
    memtable_bytes / 5 * 4
}

impl Shared {
    pub fn take_stock(&self) {
        self.upkeep.take_stock(&self.store, self.options.memtable_bytes);
    }

    /// Waits while memory or the merges are behind; an error says why it cannot go on.
    pub fn make_room(&self) -> Result<()> {
        let upkeep = &self.upkeep;
        if !self.options.background {
            self.take_stock_of_tails();
        }
        loop {
            let active = upkeep.active_bytes.load(Ordering::Relaxed);
            let sealed = upkeep.sealed_bytes.load(Ordering::Relaxed);
            let crowded = active + sealed >= self.options.memtable_bytes
                || upkeep.runs.load(Ordering::Relaxed) >= RUNS_MAX as u64;
            if !crowded && !self.tails_are_full()? {
                return Ok(());
            }
            self.check_open()?;
            if !self.options.background {
                if !self.flush_step()? && !self.merge_step()? && !self.vector_step()? {
                    return Ok(());
                }
                continue;
            }
            if crowded && let Some((error, _)) = &*upkeep.failure.lock() {
                let what = "memory is full and cannot be written out; nothing was committed";
                return Err(error.clone().context(what));
            }
            let mut gate = upkeep.gate.lock();
            upkeep.work.notify_one();
            upkeep.done.wait_for(&mut gate, WAIT_STEP);
            drop(gate);
            self.take_stock();
            self.take_stock_of_tails();
        }
    }

    /// One background step: memtables that are due become runs. `true` if it did something.
    pub fn flush_step(&self) -> Result<bool> {
        if self.options.mode == Mode::Read || !self.flush_is_due() {
            return Ok(false);
        }
        self.check_writable()?;
        let _changing = self.upkeep.changing.lock();
        // Another may have done it meanwhile.
        if self.flush_is_due() { self.flush_locked(false) } else { Ok(true) }
    }

    /// Sealed memtables that nobody is writing are those of a flush that failed.
    fn flush_is_due(&self) -> bool {
        let (active, sealed) = self.store.memtable_bytes();
        active >= seal_at(self.options.memtable_bytes)
            || sealed > 0
            || self.upkeep.unsaved.load(Ordering::Relaxed)
            || self.log_behind() >= LOG_BEHIND_BYTES_MAX
    }

    /// Bytes of log that an opening now would replay.
    pub fn log_behind(&self) -> u64 {
        let mark = self.checkpoint.read().replay;
        let (_, end) = self.pipeline.durable_end();
        if mark.place.segment == end.segment {
            return end.offset.saturating_sub(mark.place.offset);
        }
        let between = self.segments.all().into_iter();
        let between = between
            .filter(|segment| (mark.place.segment..end.segment).contains(&segment.header.segment));
        let whole: u64 = between.map(|segment| segment.header.capacity).sum();
        (whole + end.offset).saturating_sub(mark.place.offset)
    }

    /// Writes every memtable to runs and a checkpoint that names them.
    pub fn flush_memtables(&self) -> Result<bool> {
        let _changing = self.upkeep.changing.lock();
        self.check_writable()?;
        self.flush_locked(false)
    }

    /// Runs `swap`, which puts structures made anew in the place of others, and makes the new
    /// state durable before anything else about runs can change.
    pub fn swap_structures(&self, swap: impl FnOnce() -> Result<()>) -> Result<()> {
        let _changing = self.upkeep.changing.lock();
        self.check_open()?;
        swap()?;
        if self.options.mode == Mode::ReadWrite {
            self.flush_locked(true)?;
        }
        Ok(())
    }

    fn flush_locked(&self, must_checkpoint: bool) -> Result<bool> {
        // Taken first: whatever is sealed below lies before it or is told apart by its LSN.
        let mark = Mark::new(self.pipeline.replay_mark());
        // Most of what was put off is done while commits go on.
        self.store.index_everything()?;
        let (catalog, upto) = {
            let _paused = self.pipeline.pause_applying();
            self.store.index_everything()?;
            let catalog = self.store.catalog();
            let upto = self.pipeline.visible();
            flush::seal(&self.store, &catalog, upto);
            (catalog, upto)
        };
        self.take_stock();
        // Nothing outruns durability.
        self.pipeline.flush()?;
        let wrote = flush::write_sealed(&self.files, &self.store, &catalog, upto)?;
        self.checkpoint.write().replay = mark;
        let unsaved = self.upkeep.unsaved.fetch_or(wrote, Ordering::Relaxed);
        if wrote || unsaved || must_checkpoint {
            self.write_checkpoint_locked(&catalog)?;
        }
        self.take_stock();
        self.count_runs();
        Ok(wrote)
    }

    fn count_runs(&self) {
        let mut most = 0;
        self.store.each_ordered(&self.store.catalog(), |_, ordered| {
            most = most.max(ordered.layers().runs.len());
        });
        self.upkeep.runs.store(most as u64, Ordering::Relaxed);
        let _gate = self.upkeep.gate.lock();
        self.upkeep.done.notify_all();
    }

    /// Writes a checkpoint of what is live now.
    pub fn write_checkpoint(&self) -> Result<()> {
        let _changing = self.upkeep.changing.lock();
        self.write_checkpoint_locked(&self.store.catalog())
    }

    /// Makes a catalogue that needs nothing made again durable, then puts it in use.
    pub fn save_schema(&self, catalog: Catalog) -> Result<()> {
        let _changing = self.upkeep.changing.lock();
        let known = self.store.catalog();
        let saved = self.write_checkpoint_locked(&catalog);
        if saved.is_err() {
            self.checkpoint.write().schema = known.schema.clone();
            return saved;
        }
        self.store.replace_catalog(catalog);
        let now = self.store.catalog();
        for (id, dropped) in &known.structures {
            if !now.structures.contains_key(id) {
                self.files.discard_all(dropped);
            }
        }
        Ok(())
    }

    fn write_checkpoint_locked(&self, catalog: &Catalog) -> Result<()> {
        let body = {
            let mut checkpoint = self.checkpoint.write();
            checkpoint.schema = catalog.schema.clone();
            checkpoint.floor = self.store.floor();
            checkpoint.next_uid = self.files.next_uid();
            checkpoint.stored = flush::stored(&self.store, catalog);
            let least = checkpoint.stored.iter().map(|stored| stored.applied).min();
            if least.is_some_and(|least| least + 1 < checkpoint.replay.lsn) {
                // A structure that was made again and could not be written out yet.
                checkpoint.replay = Mark::first();
            }
            checkpoint.encode()
        };
        self.pipeline.control(RecordKind::Checkpoint, &body)?;
        self.upkeep.unsaved.store(false, Ordering::Relaxed);
        let obsolete = std::mem::take(&mut *self.upkeep.obsolete.lock());
        obsolete.into_iter().for_each(|uid| self.files.discard(uid));
        let obsolete = std::mem::take(&mut *self.upkeep.obsolete_graphs.lock());
        obsolete.into_iter().for_each(|uid| self.files.discard_graph(uid));
        Ok(())
    }

    /// Lets `change` take a segment of vectors into use, and makes that durable. It answers with
    /// the files that are not needed then; `None`: it changed nothing.
    pub fn change_graphs(&self, change: impl FnOnce(&Catalog) -> Option<Vec<u64>>) -> Result<()> {
        let _changing = self.upkeep.changing.lock();
        let catalog = self.store.catalog();
        let Some(obsolete) = change(&catalog) else { return Ok(()) };
        self.upkeep.make_graphs_obsolete(obsolete);
        self.write_checkpoint_locked(&catalog)
    }

    /// One background step: a slice of a merge, if one is due. `true` if it did something.
    pub fn merge_step(&self) -> Result<bool> {
        if self.options.mode == Mode::Read {
            return Ok(false);
        }
        let mut changing = self.upkeep.changing.lock();
        self.check_open()?;
        if changing.is_none() {
            *changing = self.choose_merge()?;
        }
        let Some(merging) = &mut *changing else { return Ok(false) };
        if !self.is_current(merging) {
            self.files.discard(merging.uid);
            *changing = None;
            return Ok(true);
        }
        match self.merge_slice(merging) {
            Ok(false) => Ok(true),
            Ok(true) => {
                let merging = changing.take().expect("just matched");
                self.finish_merge(merging).map(|()| true)
            }
            Err(error) => {
                self.files.discard(merging.uid);
                *changing = None;
                Err(error)
            }
        }
    }

    fn ordered_of<'a>(&'a self, owner: &'a Owner) -> &'a Ordered {
        match owner {
            Some(known) => &known.ordered,
            None => self.store.ledger.ordered(),
        }
    }

    /// Whether what is merged is still what is in use: not so once it was made again or dropped.
    fn is_current(&self, merging: &Merging) -> bool {
        let catalog = self.store.catalog();
        if !self.ordered_of(&merging.owner).holds(&merging.merge.inputs) {
            return false;
        }
        match (&merging.owner, catalog.structures.get(&merging.structure)) {
            (None, _) => true,
            (Some(owner), Some(now)) => Arc::ptr_eq(owner, now),
            (Some(_), None) => false,
        }
    }

    /// Up to where runs hold every structure.
    fn flushed(&self) -> Lsn {
        let catalog = self.store.catalog();
        let structures = catalog.structures.values().map(|known| known.applied());
        structures.fold(self.store.ledger.applied(), Lsn::min)
    }

    /// `true` when all of it is done.
    fn merge_slice(&self, merging: &mut Merging) -> Result<bool> {
        let catalog = self.store.catalog();
        let ordered = self.ordered_of(&merging.owner);
        let structure = catalog.schema.by_id(merging.structure);
        let rules = Rules::new(&self.store, ordered, structure, self.flushed());
        let sought = |tree| rules.is_sought(tree);
        let target = self.files.target(merging.uid, merging.structure, &sought);
        rules.apply(merging.bottom, |keep| {
            merging.merge.step(&target, keep, SLICE_BYTES, SLICE_ENTRIES)
        })
    }

    /// Commits that a view's results lack, and when the first of them was made; of so many groups
    /// as can be looked at in passing.
    fn staleness(
        &self,
        catalog: &Catalog,
        structure: StructureId,
    ) -> Result<Option<(u64, Micros)>> {
        const GROUPS: usize = 4_096;
        let Some(view) = View::of(&catalog.schema, structure) else { return Ok(None) };
        let look = self.store.snapshot(self.pipeline.visible());
        let (groups, _) = views::stale_groups(&look, &view, b"", None, GROUPS)?;
        let commits = groups.iter().map(|(_, stale)| stale.changes).sum();
        let first = groups.iter().map(|(_, stale)| stale.since).min();
        first.map(|first| Ok((commits, self.time_of(first)?))).transpose()
    }

    /// What there is to do for one structure.
    pub fn lag_of(&self, catalog: &Catalog, structure: StructureId) -> Result<Lag> {
        let known = catalog.structure(structure);
        let ordered = &known.ordered;
        let shapes = ordered.shapes();
        let due = merge::choose(&shapes, self.budget.fan_out()).unwrap_or_default();
        let (waiting, now) = (known.queue.waiting(), self.pipeline.now());
        let (commits, age) = match self.staleness(catalog, structure)? {
            Some((commits, since)) => (commits, now.saturating_sub(since).max(0)),
            None => waiting.map_or((0, 0), |waiting| (waiting.commits, waiting.age(now))),
        };
        let (active, sealed) = ordered.memtable_bytes();
        Ok(Lag {
            commits,
            age: age as f64 / 1e6,
            memtable_bytes: (active + sealed + known.deferred_bytes()) as u64,
            runs: shapes.len() as u64,
            merge_bytes: shapes[due].iter().map(|shape| shape.bytes).sum(),
            unsealed: known.vectors.as_ref().map_or(0, Searchable::unsealed),
        })
    }

    /// Begins the merge that is most worth it, if there is one.
    fn choose_merge(&self) -> Result<Option<Merging>> {
        let catalog = self.store.catalog();
        let mut chosen: Option<(StructureId, std::ops::Range<usize>, u64)> = None;
        self.store.each_ordered(&catalog, |structure, ordered| {
            let shapes = ordered.shapes();
            let Some(window) = merge::choose(&shapes, self.budget.fan_out()) else { return };
            let bytes = shapes[window.clone()].iter().map(|shape| shape.bytes).sum();
            // The cheapest first: it takes the most runs away for its bytes.
            if chosen.as_ref().is_none_or(|known| bytes < known.2) {
                chosen = Some((structure, window, bytes));
            }
        });
        let Some((structure, window, _)) = chosen else { return Ok(None) };
        let owner = match structure {
            LEDGER => None,
            id => Some(Arc::clone(&catalog.structures[&id])),
        };
        let layers = self.ordered_of(&owner).layers();
        let bottom = window.end == layers.runs.len();
        let inputs = layers.runs[window].to_vec();
        let declared = catalog.schema.by_id(structure);
        let rules = Rules::new(&self.store, self.ordered_of(&owner), declared, self.flushed());
        let sought = |tree| rules.is_sought(tree);
        let (uid, merge) = self
            .files
            .write(structure, &sought, |target| Ok((target.uid, Merge::begin(inputs, target)?)))?;
        Ok(Some(Merging { structure, uid, owner, bottom, merge }))
    }

    fn finish_merge(&self, merging: Merging) -> Result<()> {
        let Merging { uid, owner, merge, .. } = merging;
        let inputs = merge.inputs.clone();
        let finished = merge.finish().and_then(|info| match info {
            Some((info, file)) => {
                file.sync()?;
                let run = self.files.open(&info)?;
                self.files.sync_names()?;
                Ok(Some(run))
            }
            None => {
                self.files.discard(uid);
                Ok(None)
            }
        });
        let run = finished.inspect_err(|_| self.files.discard(uid))?;
        self.ordered_of(&owner).install_merge(&inputs, run);
        self.count_runs();
        self.upkeep.unsaved.store(true, Ordering::Relaxed);
        self.upkeep.make_obsolete(inputs.iter().map(|input| input.info().uid));
        self.write_checkpoint_locked(&self.store.catalog())
    }

    /// One background step: a dictionary that is due is trained, made durable, and used from then
    /// on. `true` if there was one.
    pub fn train_step(&self) -> Result<bool> {
        let Some(packer) = &self.packer else { return Ok(false) };
        let full = || self.checkpoint.read().dictionaries.len() >= limits::DICTIONARIES_MAX;
        if full() {
            return Ok(false);
        }
        let Some(dictionary) = packer.train() else { return Ok(false) };
        // Any checkpoint that does not list it lies before it, and so does where it replays from.
        let _changing = self.upkeep.changing.lock();
        let id = self.checkpoint.read().dictionaries.last().map_or(1, |last| last.id + 1);
        let Some(body) = Packer::record(id, &dictionary).filter(|_| !full()) else {
            return Ok(false);
        };
        let place = self.pipeline.control(RecordKind::Dictionary, &body)?;
        let bytes = (RECORD_HEADER_BYTES + body.len()) as u32;
        let record = ControlAt { place, bytes, epoch: self.pipeline.epoch() };
        let known = DictionaryAt { id, record };
        self.checkpoint.write().dictionaries.push(known);
        self.store.values.dictionaries.add(known);
        packer.adopt(&self.store.values.dictionaries);
        Ok(true)
    }

    /// One background step: a structure of which somebody met a damaged file is made again.
    pub fn heal_step(&self) -> Result<bool> {
        let mut damaged = None;
        self.store.each_ordered(&self.store.catalog(), |structure, ordered| {
            if ordered.layers().runs.iter().any(|run| run.is_damaged()) {
                damaged = Some(structure);
            }
        });
        let Some(damaged) = damaged else { return Ok(false) };
        // Whoever changes the schema or rebuilds comes first.
        let Some(_changing) = self.changing.try_lock() else { return Ok(false) };
        match damaged {
            LEDGER => self.heal_ledger()?,
            id => self.rebuild_locked(vec![id], None, |_, _| {
                // It may take long, and memory must not fill up meanwhile; an error comes again.
                let _ = self.flush_step();
            })?,
        }
        Ok(true)
    }

    /// A turn at healing; what fails is tried again ever more seldom.
    fn heal_turn(&self) -> bool {
        let now = self.options.clock.monotonic_nanos();
        if now < self.upkeep.heal_again.lock().0 {
            return false;
        }
        let healed = self.heal_step();
        let mut again = self.upkeep.heal_again.lock();
        match healed {
            Ok(healed) => {
                *again = (0, RETRY_NANOS);
                healed
            }
            Err(_) => {
                let wait = again.1.max(RETRY_NANOS);
                *again = (now.saturating_add(wait), wait.saturating_mul(2));
                false
            }
        }
    }

    /// A thread's turn, and how long it lets others go first. `None`: nothing more is due.
    pub fn upkeep_turn(&self) -> Option<Duration> {
        let (commits, started) = (self.pipeline.commits(), self.options.clock.monotonic_nanos());
        if !self.take_turn() {
            return None;
        }
        let upkeep = &self.upkeep;
        let held = upkeep.active_bytes.load(Ordering::Relaxed)
            + upkeep.sealed_bytes.load(Ordering::Relaxed);
        let urgent = held > self.options.memtable_bytes / 2
            || upkeep.runs.load(Ordering::Relaxed) > RUNS_MAX as u64 / 2;
        if urgent || self.pipeline.commits() == commits {
            return Some(Duration::ZERO);
        }
        // Beside committers it takes half of the time.
        let taken = self.options.clock.monotonic_nanos().saturating_sub(started);
        Some(Duration::from_nanos(taken).min(PAUSE_MAX))
    }

    /// Flush, else a slice of a merge. `true` if more may be due.
    fn take_turn(&self) -> bool {
        let now = self.options.clock.monotonic_nanos();
        if self.upkeep.failure.lock().as_ref().is_some_and(|(_, again)| now < *again) {
            return false;
        }
        let turn = (|| Ok(self.flush_step()? || self.merge_step()?))();
        match turn {
            Ok(more) => {
                *self.upkeep.failure.lock() = None;
                more || self.heal_turn()
            }
            Err(error) => {
                let again = now.saturating_add(RETRY_NANOS);
                *self.upkeep.failure.lock() = Some((error, again));
                let _gate = self.upkeep.gate.lock();
                self.upkeep.done.notify_all();
                false
            }
        }
    }

    /// Before a close: what would take an opener long to replay is written out.
    pub fn flush_before_close(&self) -> Result<()> {
        let worth_it = self.options.mode == Mode::ReadWrite
            && self.pipeline.failure().is_none()
            && self.log_behind() > LOG_BEHIND_AT_CLOSE;
        if !worth_it {
            return Ok(());
        }
        let _changing = self.upkeep.changing.lock();
        match self.flush_locked(false) {
            // Not needed: the log has it all.
            Err(error) if error.kind() == ErrorKind::Full => Ok(()),
            other => other.map(drop),
        }
    }

    /// Abandons a merge under way.
    pub fn abandon_merge(&self) {
        if let Some(merging) = self.upkeep.changing.lock().take() {
            self.files.discard(merging.uid);
        }
    }
}
