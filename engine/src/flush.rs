//! Memtables become runs: what is in memory and durable in the log is written to files of its own.
//!
//! Invariants:
//! 1. All structures are sealed at one LSN, so the log is replayed from one place.
//! 2. A run counts only once its file and its name are durable, and for an opener only once a
//!    checkpoint names it. What fails leaves the memtable where it was, to be tried again.
//! 3. No run holds an LSN above the durable one.

use std::sync::Arc;

use crate::cache;
use crate::checkpoint::Stored;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{LEDGER, Ledger};
use crate::log::Lsn;
use crate::log::format::DatabaseId;
use crate::materialised::Materialised;
use crate::ordered::merge::{self, Keep, Target};
use crate::ordered::run::{self, BlockCache, Run, RunInfo};
use crate::ordered::{Entry, MASKS, Ordered};
use crate::sabotage::{Bug, is_planted};
use crate::schema::{Kind, Structure, StructureId};
use crate::storage::{Cause, File, Open, Storage};
use crate::store::{Catalog, Store};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::vector::file::{self, GraphInfo};

/// The files of runs: their directory, their numbers, and what is held of their blocks in memory.
pub struct Files {
    pub storage: Arc<dyn Storage>,
    pub database: DatabaseId,
    pub cache: Arc<BlockCache>,
    next_uid: AtomicU64,
    /// The directories of runs and of graphs are there, and durable.
    ready: [AtomicBool; 2],
}

impl Files {
    pub fn new(storage: Arc<dyn Storage>, database: DatabaseId, cache: Arc<BlockCache>) -> Self {
        let (next_uid, ready) = (AtomicU64::new(1), Default::default());
        Self { storage, database, cache, next_uid, ready }
    }

    /// No number below this is used.
    pub fn reserve_below(&self, uid: u64) {
        self.next_uid.fetch_max(uid, Ordering::Relaxed);
    }

    pub fn next_uid(&self) -> u64 {
        self.next_uid.load(Ordering::Relaxed)
    }

    pub fn open(&self, info: &RunInfo) -> Result<Arc<Run>> {
        let run = Run::open(&*self.storage, self.database, info, Arc::clone(&self.cache))?;
        Ok(Arc::new(run))
    }

    /// A number for a new file in a directory that is there.
    pub fn prepare(&self) -> Result<u64> {
        self.prepare_in(run::RUNS_DIR, &self.ready[0])
    }

    fn prepare_in(&self, directory: &str, ready: &AtomicBool) -> Result<u64> {
        if !ready.load(Ordering::Acquire) {
            self.storage.create_dir(directory)?;
            self.storage.sync_dir("")?;
            ready.store(true, Ordering::Release);
        }
        Ok(self.next_uid.fetch_add(1, Ordering::Relaxed))
    }

    /// A file that is there already is somebody else's, who must not lose it to the cleaning up
    /// behind a failure of ours.
    fn check_unused(&self, path: &str) -> Result<()> {
        match self.storage.open(path, Open::Read) {
            Ok(_) => Err(Error::new(ErrorKind::Storage, format!("{path} is there already"))),
            Err(_) => Ok(()),
        }
    }

    /// Writes a segment's file; it and its name are durable then.
    pub fn write_graph(
        &self,
        structure: StructureId,
        contents: &file::Contents,
        cause: Cause,
    ) -> Result<GraphInfo> {
        let uid = self.prepare_in(file::GRAPHS_DIR, &self.ready[1])?;
        self.check_unused(&file::path(uid))?;
        let owner = file::Owner { database: self.database, structure };
        let written = owner.write(&*self.storage, uid, contents, cause).and_then(|(info, file)| {
            file.sync()?;
            self.storage.sync_dir(file::GRAPHS_DIR)?;
            Ok(info)
        });
        written.inspect_err(|_| self.discard_graph(uid))
    }

    /// Removes a graph that no checkpoint names.
    pub fn discard_graph(&self, uid: u64) {
        let _ = self.storage.remove(&file::path(uid));
    }

    /// Removes the files of a structure that is in use no more.
    pub fn discard_all(&self, known: &Materialised) {
        self.discard_runs(&known.ordered.layers().runs);
        let graphs = known.vectors.iter().flat_map(|vectors| vectors.graphs());
        graphs.for_each(|info| self.discard_graph(info.uid));
    }

    pub fn sync_names(&self) -> Result<()> {
        self.storage.sync_dir(run::RUNS_DIR)
    }

    /// Removes a file that no checkpoint names. Left behind, it would be found and put aside by
    /// the next opening.
    pub fn discard(&self, uid: u64) {
        let _ = self.storage.remove(&run::path(uid));
    }

    pub fn discard_runs(&self, runs: &[Arc<Run>]) {
        runs.iter().for_each(|run| self.discard(run.info().uid));
    }

    /// A structure's file with this number.
    pub fn target<'a>(
        &'a self,
        uid: u64,
        structure: StructureId,
        sought: &'a dyn Fn(u16) -> bool,
    ) -> Target<'a> {
        Target { storage: &*self.storage, database: self.database, uid, structure, sought }
    }

    /// Calls `work` for one structure's new file.
    pub fn write<T>(
        &self,
        structure: StructureId,
        sought: &dyn Fn(u16) -> bool,
        work: impl FnOnce(&Target<'_>) -> Result<T>,
    ) -> Result<T> {
        let uid = self.prepare()?;
        self.check_unused(&run::path(uid))?;
        work(&self.target(uid, structure, sought)).inspect_err(|_| self.discard(uid))
    }
}

/// What a flush or a merge of one structure may drop, and which keys its filter holds.
pub struct Rules<'a> {
    store: &'a Store,
    ordered: &'a Ordered,
    structure: Option<&'a Structure>,
    upto: Lsn,
}

impl<'a> Rules<'a> {
    /// `structure`: `None` for the ledger. `upto`: what runs hold of every structure. What is
    /// forgotten behind it is replayed after a crash, and then needs what it takes away.
    pub fn new(
        store: &'a Store,
        ordered: &'a Ordered,
        structure: Option<&'a Structure>,
        upto: Lsn,
    ) -> Self {
        Self { store, ordered, structure, upto }
    }

    pub fn is_sought(&self, tree: u16) -> bool {
        match self.structure {
            _ if tree == MASKS => true,
            Some(structure) => Materialised::is_sought(&structure.kind, tree),
            None => Ledger::is_sought(tree),
        }
    }

    /// No read of a structure without history sees what ended below this.
    fn unread(&self) -> Lsn {
        let newest = self.store.unread_below();
        let catalog = self.store.catalog();
        let known = self.structure.and_then(|structure| catalog.structures.get(&structure.id));
        known.map_or(newest, |known| known.queue.oldest(newest))
    }

    /// `bottom`: nothing older than what takes part exists.
    pub fn apply<T>(&self, bottom: bool, work: impl FnOnce(&Keep<'_>) -> T) -> T {
        let kind = self.structure.map(|structure| &structure.kind);
        let (floor, fleeting) = match kind {
            Some(Kind::Cache { capacity, .. }) => (self.unread(), capacity.is_none()),
            _ => (self.store.floor(), false),
        };
        let now = self.store.now();
        let mask = |tree: u16, key: &[u8]| match tree {
            MASKS => Ok(None),
            tree => self.ordered.mask_at(tree, key, self.upto),
        };
        // What a cache of bounded capacity evicts must follow from the log alone.
        let expired =
            |tree: u16, entry: &Entry| fleeting && tree == 0 && cache::has_expired(entry, now);
        let bottom = bottom || is_planted(Bug::MergeDropsTombstoneEarly);
        work(&Keep { floor, bottom, mask: &mask, expired: &expired })
    }
}

/// Closes every memtable at `upto`. Nothing is applied meanwhile.
pub fn seal(store: &Store, catalog: &Catalog, upto: Lsn) {
    store.each_ordered(catalog, |_, ordered| ordered.seal(upto));
}

/// Writes every sealed memtable, all of them durable in the log up to `upto`, as runs with durable
/// names; in use afterwards, all or none: a commit is in the runs of each structure or of none,
/// since what follows from it in one is derived from the others as they were before. `false`:
/// there was nothing to write.
pub fn write_sealed(files: &Files, store: &Store, catalog: &Catalog, upto: Lsn) -> Result<bool> {
    let mut written = Written { files, runs: Vec::new() };
    let ledger = store.ledger.ordered();
    let rules = Rules::new(store, ledger, None, upto);
    let applied = store.ledger.applied();
    let runs = write_one(files, ledger, LEDGER, applied, &rules)?;
    written.runs.push((ledger, runs));
    for structure in &catalog.schema.structures {
        let known = catalog.structure(structure.id);
        let rules = Rules::new(store, &known.ordered, Some(structure), upto);
        let runs = write_one(files, &known.ordered, structure.id, known.applied(), &rules)?;
        written.runs.push((&known.ordered, runs));
    }
    let all = written.runs.iter().flat_map(|(_, runs)| runs.iter().flatten());
    let wrote = all.clone().next().is_some();
    let late = is_planted(Bug::CheckpointBeforeFilesSynced);
    all.filter(|_| !late).try_for_each(|run| run.file.sync())?;
    if wrote && !late {
        files.sync_names()?;
    }
    for (ordered, runs) in std::mem::take(&mut written.runs) {
        runs.into_iter().for_each(|run| ordered.install_flush(run.map(|run| run.run)));
    }
    store.ledger.set_applied(upto);
    catalog.structures.values().for_each(|known| known.set_applied(upto));
    Ok(wrote)
}

/// Runs that are not in use yet; their files go with it.
struct Written<'a> {
    files: &'a Files,
    runs: Vec<(&'a Ordered, Vec<Option<Unsynced>>)>,
}

/// A run that was written and can be read, and its file, which is to be synced.
struct Unsynced {
    run: Arc<Run>,
    file: Arc<dyn File>,
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        let runs = self.runs.iter().flat_map(|(_, runs)| runs.iter().flatten());
        runs.for_each(|written| self.files.discard(written.run.info().uid));
    }
}

/// Writes what these structures, which nobody else knows yet, hold in memory up to `upto`.
pub fn write_apart(
    files: &Files,
    store: &Store,
    catalog: &Catalog,
    structures: &[StructureId],
    upto: Lsn,
) -> Result<()> {
    for id in structures {
        let known = catalog.structure(*id);
        known.ordered.seal(upto);
        let rules = Rules::new(store, &known.ordered, catalog.schema.by_id(*id), upto);
        for run in write_one(files, &known.ordered, *id, known.applied(), &rules)? {
            run.iter().try_for_each(|run| run.file.sync())?;
            known.ordered.install_flush(run.map(|run| run.run));
        }
        known.set_applied(upto);
    }
    files.sync_names()
}

/// Writes a structure's sealed memtables, a run each, oldest first; `None` for one of which
/// nothing is left.
fn write_one(
    files: &Files,
    ordered: &Ordered,
    structure: StructureId,
    applied: Lsn,
    rules: &Rules<'_>,
) -> Result<Vec<Option<Unsynced>>> {
    let layers = ordered.layers();
    let mut first = applied + 1;
    let mut runs = Vec::new();
    for memtable in layers.sealed.iter().rev() {
        let upto = memtable.upto();
        let lsns = (first.min(upto), upto);
        let bottom = layers.runs.is_empty() && runs.iter().all(Option::is_none);
        let sought = |tree| rules.is_sought(tree);
        let written = files.write(structure, &sought, |target| {
            let flushed =
                rules.apply(bottom, |keep| merge::flush(ordered, memtable, lsns, target, keep))?;
            match flushed {
                Some((info, file)) => Ok(Some(Unsynced { run: files.open(&info)?, file })),
                None => {
                    files.discard(target.uid);
                    Ok(None)
                }
            }
        });
        match written {
            Ok(run) => runs.push(run),
            Err(error) => {
                let written = runs.iter().flatten();
                written.for_each(|known: &Unsynced| files.discard(known.run.info().uid));
                return Err(error);
            }
        }
        first = upto + 1;
    }
    Ok(runs)
}

/// What a checkpoint says of every structure.
pub fn stored(store: &Store, catalog: &Catalog) -> Vec<Stored> {
    let mut stored = Vec::new();
    store.each_ordered(catalog, |structure, ordered| {
        let runs = ordered.layers().runs.iter().map(|run| run.info().clone()).collect();
        let stock = Stored { structure, runs, ..Stored::default() };
        if structure == LEDGER {
            stored.push(Stored { applied: store.ledger.applied(), ..stock });
            return;
        }
        let known = catalog.structure(structure);
        let stock = Stored { applied: known.applied(), ..stock };
        stored.push(match &known.vectors {
            Some(vectors) => {
                Stored { graphs: vectors.graphs(), unsealed: vectors.unsealed(), ..stock }
            }
            None => stock,
        });
    });
    stored
}
