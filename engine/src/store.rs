//! The materialised structures: everything that can be dropped and made again from the log.
//!
//! Invariants:
//! 1. All of it follows from the log and the schema alone.
//! 2. One applier changes it, in LSN order; readers take an LSN and see nothing newer.
//! 3. The catalogue is replaced whole when the schema changes; a reader keeps the one it has.

mod reflect;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use crate::apply::{self, Links};
use crate::audit;
use crate::clock::Micros;
use crate::commit::prepared::{Sequenced, Touched};
use crate::error::Result;
use crate::events::Positions;
use crate::ledger::{LEDGER, Ledger};
use crate::log::Lsn;
use crate::log::format::DatabaseId;
use crate::log::record::{Commit, Priority};
use crate::lookup::{self, Among, Change, Look, Nearby, Operation, Page, Tree};
use crate::materialised::{Held, Materialised};
use crate::merge_iterator::{self, Side};
use crate::ordered::{Direction, Entry, Item, Ordered, Range, Slot, Version};
use crate::sabotage::{Bug, is_planted};
use crate::schema::{Kind, Schema, Structure, StructureId};
use crate::snapshot::{Pin, Snapshots};
use crate::storage::Storage;
use crate::storage::bytes::Bytes;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::values::Values;
use crate::vector::Hit;
use crate::vector::file::Owner;
use crate::vectors::{self, Index, Pending, Probe, Searchable, Source};

/// The structures under one schema.
#[derive(Clone)]
pub struct Catalog {
    pub schema: Schema,
    pub links: Links,
    pub structures: BTreeMap<StructureId, Arc<Materialised>>,
    /// Whether commits carry salts and digests.
    pub audited: bool,
    /// Whether some structure may show a commit later than it was made.
    lags: bool,
}

impl Catalog {
    /// The catalogue of `schema`; structures of `known` but for `fresh` are kept.
    pub fn new(schema: Schema, known: Option<&Catalog>, fresh: &[StructureId]) -> Self {
        let links = Links::of(&schema);
        let audited = schema.structures.iter().any(|s| matches!(s.kind, Kind::Audit {}));
        let lags = schema.structures.iter().any(Structure::may_lag);
        let structures = schema
            .structures
            .iter()
            .map(|structure| {
                let kept = known
                    .and_then(|catalog| catalog.structures.get(&structure.id))
                    .filter(|_| !fresh.contains(&structure.id));
                if let Some(kept) = kept {
                    kept.tune(&structure.kind);
                }
                let made = || Arc::new(Materialised::new(structure, Held::default()));
                (structure.id, kept.cloned().unwrap_or_else(made))
            })
            .collect();
        Self { schema, links, structures, audited, lags }
    }

    /// The catalogue of `schema` whose structures hold what `found` has of them.
    pub fn opened(schema: Schema, mut found: impl FnMut(StructureId) -> Held) -> Self {
        let mut catalog = Self::new(schema, None, &[]);
        for structure in &catalog.schema.structures {
            let opened = Materialised::new(structure, found(structure.id));
            catalog.structures.insert(structure.id, Arc::new(opened));
        }
        catalog
    }

    /// Structures that must be made from the log because `known` does not have them as they are.
    pub fn to_rebuild(schema: &Schema, known: &Catalog) -> Vec<StructureId> {
        let changed = schema.structures.iter().filter(|s| must_rebuild(Some(known), s));
        with_sources(&Links::of(schema), changed.map(|structure| structure.id).collect())
    }

    pub fn structure(&self, id: StructureId) -> &Materialised {
        self.structures.get(&id).expect("a catalogue has every structure of its schema")
    }
}

/// These structures and those that tell them of changes: what a change took the place of is known
/// only while its structure is replayed, too.
pub fn with_sources(links: &Links, mut structures: Vec<StructureId>) -> Vec<StructureId> {
    let mut looked = 0;
    while let Some(id) = structures.get(looked).copied() {
        for source in links.told_by(id) {
            if !structures.contains(&source) {
                structures.push(source);
            }
        }
        looked += 1;
    }
    structures.sort_unstable();
    structures.dedup();
    structures
}

/// Whether what is in memory was made by another rule than `structure` declares.
fn must_rebuild(known: Option<&Catalog>, structure: &Structure) -> bool {
    let Some(before) = known.and_then(|catalog| catalog.schema.by_id(structure.id)) else {
        return true;
    };
    if before.created != structure.created {
        return true;
    }
    match (&before.kind, &structure.kind) {
        (
            Kind::Rows { indexes, supersede, .. },
            Kind::Rows { indexes: new, supersede: new_supersede, .. },
        ) => indexes != new || supersede != new_supersede,
        (
            Kind::View { source, by, version, function, .. },
            Kind::View {
                source: new_source,
                by: new_by,
                version: new_version,
                function: new_function,
                ..
            },
        ) => (source, by, version, function) != (new_source, new_by, new_version, new_function),
        (Kind::Events { capture }, Kind::Events { capture: new }) => capture != new,
        (
            Kind::Cache { source, capacity, .. },
            Kind::Cache { source: new_source, capacity: new_capacity, .. },
        ) => source != new_source || capacity != new_capacity,
        _ => false,
    }
}

pub type Hook = dyn Fn(&Store) + Send + Sync;

pub struct Store {
    catalog: ArcSwap<Catalog>,
    pub ledger: Ledger,
    pub values: Values,
    pub snapshots: Arc<Snapshots>,
    /// Versions no read at or above this LSN needs may be dropped.
    floor: AtomicU64,
    /// The newest LSN a reader may have begun at.
    published: AtomicU64,
    /// What lies above was lost when the log failed.
    withdrawn: AtomicU64,
    keeps_all: bool,
    /// Where graphs of vectors are.
    storage: Arc<dyn Storage>,
    database: DatabaseId,
    now: Box<dyn Fn() -> Micros + Send + Sync>,
    /// Called when a group of commits was applied, under the lock of the applier.
    pub hook: OnceLock<Box<Hook>>,
}

impl Store {
    pub fn new(
        catalog: Catalog,
        ledger: Ledger,
        values: Values,
        keeps_all: bool,
        (storage, database): (Arc<dyn Storage>, DatabaseId),
        now: Box<dyn Fn() -> Micros + Send + Sync>,
    ) -> Self {
        Self {
            catalog: ArcSwap::from_pointee(catalog),
            ledger,
            values,
            snapshots: Arc::default(),
            floor: AtomicU64::new(0),
            published: AtomicU64::new(0),
            withdrawn: AtomicU64::new(Lsn::MAX),
            keeps_all,
            storage,
            database,
            now,
            hook: OnceLock::new(),
        }
    }

    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    pub fn replace_catalog(&self, catalog: Catalog) {
        self.catalog.store(Arc::new(catalog));
    }

    pub fn floor(&self) -> Lsn {
        self.floor.load(Ordering::Acquire)
    }

    /// Reads below `lsn`, or below the oldest pinned one, are refused from now on, and their
    /// versions dropped step by step; the floor that holds.
    pub fn raise_floor(&self, lsn: Lsn) -> Lsn {
        self.snapshots.with_oldest(|oldest| {
            let oldest = oldest.filter(|_| !is_planted(Bug::UnpinnedSnapshotDuringMerge));
            let lsn = oldest.map_or(lsn, |oldest| oldest.min(lsn));
            self.floor.fetch_max(lsn, Ordering::AcqRel).max(lsn)
        })
    }

    pub fn publish(&self, lsn: Lsn) {
        self.published.fetch_max(lsn, Ordering::AcqRel);
    }

    pub fn now(&self) -> Micros {
        (self.now)()
    }

    /// Whether a key as it was at `lsn` was forgotten since.
    pub fn hides(&self, structure: StructureId, key: &[u8], lsn: Lsn) -> Result<bool> {
        self.snapshot(Lsn::MAX).forgotten(structure, key, lsn)
    }

    /// No read of a structure without history sees what ended below this: readers pin what is
    /// published, and several commits may be applied before they are.
    pub fn unread_below(&self) -> Lsn {
        let published = self.published.load(Ordering::Acquire);
        self.snapshots.with_oldest(|oldest| oldest.unwrap_or(published)).min(published)
    }

    /// The state at an LSN that somebody keeps pinned, or that nothing is pruned from.
    pub fn snapshot(&self, lsn: Lsn) -> Snapshot<'_> {
        self.snapshot_of(self.catalog(), lsn)
    }

    /// The state at an LSN by another catalogue than today's.
    pub fn snapshot_of(&self, catalog: Arc<Catalog>, lsn: Lsn) -> Snapshot<'_> {
        Snapshot {
            store: self,
            catalog,
            lsn,
            writes: Writes::None,
            background: false,
            effects: Mutex::default(),
            _pin: None,
        }
    }

    /// The state at a pinned LSN.
    pub fn pinned(&self, pin: Arc<Pin>) -> Snapshot<'_> {
        Snapshot { _pin: Some(Arc::clone(&pin)), ..self.snapshot(pin.lsn()) }
    }

    /// Takes a commit into every structure.
    pub fn apply(&self, commit: &Commit) -> Result<Applied> {
        let catalog = self.catalog.load_full();
        self.values.admit(commit, |structure| {
            let known = catalog.structures.get(&structure);
            known.and_then(|known| known.vectors.as_ref()).is_some_and(Searchable::is_searched)
        });
        let applied = self.apply_in(&catalog, commit, Writes::Live)?;
        self.ledger.record(commit);
        if catalog.lags {
            reflect::enqueue(&catalog, commit, applied.superseded);
        }
        Ok(applied)
    }

    /// The same for a commit of old, whose values nobody may ask for soon: it is reflected at once.
    pub fn replay(&self, commit: &Commit) -> Result<Applied> {
        let applied = self.apply_in(&self.catalog(), commit, Writes::All)?;
        self.ledger.record(commit);
        Ok(applied)
    }

    /// The same for these structures alone (their rebuilding).
    pub fn apply_to(
        &self,
        catalog: &Arc<Catalog>,
        commit: &Commit,
        only: &[StructureId],
    ) -> Result<()> {
        self.apply_in(catalog, commit, Writes::Only(only)).map(drop)
    }

    fn apply_in(
        &self,
        catalog: &Arc<Catalog>,
        commit: &Commit,
        writes: Writes<'_>,
    ) -> Result<Applied> {
        let snapshot = self.snapshot_of(Arc::clone(catalog), commit.lsn);
        let background = commit.head.priority == Priority::Background;
        let state = Snapshot { writes, background, ..snapshot };
        let only = match writes {
            Writes::Only(only) => Some(only),
            _ => None,
        };
        let mut positions = Positions::new();
        for (number, op) in commit.frames.ops.iter().enumerate() {
            if only.is_some_and(|only| !touches(catalog, op.structure, only)) {
                continue;
            }
            let pointer = commit.pointer(op);
            let slot = Operation::slot_of(&commit.frames, op, || Slot::Stored(pointer));
            let number = number as u32;
            let operation = Operation { frames: &commit.frames, op, number, slot };
            apply::operate(&state, &catalog.links, &operation, commit.lsn, &mut positions)?;
        }
        let leaf = push_leaves(catalog, commit, only)?;
        Ok(Applied { leaf, ..state.effects.into_inner() })
    }

    /// Every structure's trees, the ledger's first.
    pub fn each_ordered(&self, catalog: &Catalog, mut visit: impl FnMut(StructureId, &Ordered)) {
        visit(LEDGER, self.ledger.ordered());
        for structure in &catalog.schema.structures {
            visit(structure.id, &catalog.structure(structure.id).ordered);
        }
    }

    /// About what memtables take: the active ones, and those on their way to the disk.
    pub fn memtable_bytes(&self) -> (u64, u64) {
        let (mut active, mut sealed) = (0, 0);
        self.each_ordered(&self.catalog(), |_, ordered| {
            let (open, closed) = ordered.memtable_bytes();
            active += open as u64;
            sealed += closed as u64;
        });
        for known in self.catalog.load().structures.values() {
            active += known.deferred_bytes() as u64;
        }
        (active, sealed)
    }

    /// What lies above was lost, if the log failed.
    fn durable(&self) -> Lsn {
        self.withdrawn.load(Ordering::Acquire)
    }

    /// The index that a search of vectors goes through, in memory from now on.
    pub fn index(&self, structure: StructureId, known: &Materialised) -> Result<Arc<Index>> {
        let searchable = known.vectors.as_ref().expect("vectors can be searched");
        searchable.index(|upto| Source {
            ordered: &known.ordered,
            values: &self.values,
            storage: &*self.storage,
            owner: Owner { database: self.database, structure },
            upto,
            durable: self.durable(),
        })
    }

    /// What vectors take in memory for want of a graph, those of lazy structures left out.
    pub fn waiting_vector_bytes(&self) -> u64 {
        let catalog = self.catalog.load();
        let eager = catalog.schema.structures.iter().filter(|structure| !structure.is_lazy());
        let vectors = eager.filter_map(|known| catalog.structure(known.id).vectors.as_ref());
        vectors.map(Searchable::waiting_bytes).sum()
    }

    /// What vectors in memory take.
    pub fn vector_bytes(&self) -> u64 {
        let catalog = self.catalog();
        let vectors = catalog.structures.values().filter_map(|known| known.vectors.as_ref());
        vectors.map(|vectors| vectors.memory_bytes() as u64).sum()
    }
}

fn push_leaves(
    catalog: &Catalog,
    commit: &Commit,
    only: Option<&[StructureId]>,
) -> Result<Option<audit::Hash>> {
    if !catalog.audited {
        return Ok(None);
    }
    let mut hash = None;
    for structure in &catalog.schema.structures {
        let wanted = only.is_none_or(|only| only.contains(&structure.id));
        if !matches!(structure.kind, Kind::Audit {}) || !wanted {
            continue;
        }
        let Some(index) = audit::leaf_index(structure.created, commit.lsn) else { continue };
        let hash = *hash.get_or_insert_with(|| audit::leaf_hash(commit));
        let known = catalog.structure(structure.id);
        if known.applied() < commit.lsn {
            known.push_leaf(index, hash, commit.lsn)?;
        }
    }
    Ok(hash)
}

/// Whether an operation on `structure` changes one of `only`.
fn touches(catalog: &Catalog, structure: StructureId, only: &[StructureId]) -> bool {
    only.contains(&structure)
        || catalog.links.following(structure).any(|follower| only.contains(&follower))
}

/// What may be changed through a snapshot, at its LSN.
#[derive(Clone, Copy)]
enum Writes<'a> {
    None,
    /// Index entries that were put off: who makes them does not wait for them.
    PutOff,
    /// Everything, of a commit that was just made: what may be put off is.
    Live,
    All,
    Only(&'a [StructureId]),
}

/// The store at one LSN: as a reader sees it, or as the applier of that LSN changes it.
pub struct Snapshot<'a> {
    pub store: &'a Store,
    pub catalog: Arc<Catalog>,
    pub lsn: Lsn,
    writes: Writes<'a>,
    /// The commit that is applied is of background priority.
    background: bool,
    /// What the applying comes to besides.
    effects: Mutex<Applied>,
    _pin: Option<Arc<Pin>>,
}

/// What came of taking a commit in.
#[derive(Debug, Default)]
pub struct Applied {
    /// The hash of its audit leaf.
    pub leaf: Option<audit::Hash>,
    /// Groups of views that it made stale.
    pub touched: Vec<Touched>,
    /// Some of its rows took the place of others that said otherwise.
    pub superseded: bool,
}

impl Snapshot<'_> {
    fn ordered(&self, structure: StructureId) -> Option<&Ordered> {
        self.catalog.structures.get(&structure).map(|known| &known.ordered)
    }

    /// A tree in which all is done that its reads at this LSN rely on.
    fn tree(&self, tree: Tree) -> Result<Option<&Ordered>> {
        let Some(known) = self.catalog.structures.get(&tree.structure) else { return Ok(None) };
        if tree.number > 0
            && let Some(deferred) = &known.deferred
            && deferred.needs(self.lsn)
            && !matches!(self.writes, Writes::PutOff)
        {
            self.store.index_deferred(&self.catalog, tree)?;
        }
        Ok(Some(&known.ordered))
    }

    pub fn side(
        &self,
        tree: Tree,
        range: &Range,
        direction: Direction,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Side> {
        let Some(ordered) = self.tree(tree)? else {
            return Ok(Side { items: Vec::new(), full: false });
        };
        let items = ordered.page(tree.number, range, direction, after, self.lsn, limit)?;
        Ok(Side { full: items.len() == limit, items })
    }

    pub fn search(
        &self,
        structure: StructureId,
        asked: &Nearby<'_>,
        pending: &Pending,
    ) -> Result<Vec<Hit>> {
        let known = self.catalog.structure(structure);
        let searchable = known.vectors.as_ref().expect("a vectors structure can be searched");
        let accepts = match asked.among {
            Among::Accepted(accepts) => Some(accepts),
            _ => None,
        };
        let probe =
            Probe { query: asked.query, search: asked.search, at: self.lsn, pending, accepts };
        if let Among::Keys(keys) = asked.among {
            let index = searchable.loaded();
            return self.search_keys(structure, searchable, index.as_deref(), &probe, keys);
        }
        searchable.note_search();
        let index = self.store.index(structure, known)?;
        if self.lsn < index.cold() {
            return self.search_tree(structure, searchable, &probe);
        }
        let durable = self.store.durable();
        let read = |slot: &Slot| self.store.values.recent(slot);
        let prefetch = |slot: &Slot| self.store.values.prefetch(slot);
        let metric = searchable.metric();
        let reader = vectors::Reader { read: &read, prefetch: &prefetch, metric, durable };
        let hits = index.search(&probe, &reader)?;
        // What this snapshot sees may have left memory meanwhile.
        if self.lsn < index.cold() {
            return self.search_tree(structure, searchable, &probe);
        }
        Ok(hits)
    }

    /// The nearest of the vectors of these keys, each compared.
    fn search_keys(
        &self,
        structure: StructureId,
        searchable: &Searchable,
        index: Option<&Index>,
        probe: &Probe<'_>,
        keys: &[String],
    ) -> Result<Vec<Hit>> {
        let mut wanted: Vec<&str> = keys.iter().map(String::as_str).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let own = |key: &str| wanted.binary_search(&key).map_or(Ok(false), |_| Ok(true));
        let probe = Probe { accepts: Some(&own), ..*probe };
        let bytes = |key: &&str| -> Result<Option<(String, Bytes)>> {
            if probe.pending.contains_key(*key) {
                return Ok(None);
            }
            let held = index.and_then(|index| index.find(key));
            let value = match held.filter(|version| version.is_visible(self.lsn)) {
                Some(version) => self.vector(&version.slot, version.born)?,
                None => match self.get(Tree::new(structure, vectors::KEYS), key.as_bytes())? {
                    Some(version) => self.vector(&version.entry.slot, version.lsn)?,
                    None => None,
                },
            };
            Ok(value.map(|value| ((*key).to_owned(), value)))
        };
        let found = wanted.iter().filter_map(|key| bytes(key).transpose());
        vectors::nearest_of(&probe, found, searchable.metric())
    }

    /// The nearest of all vectors as they were at an LSN of which not all are in memory.
    fn search_tree(
        &self,
        structure: StructureId,
        searchable: &Searchable,
        probe: &Probe<'_>,
    ) -> Result<Vec<Hit>> {
        const PAGE: usize = 1_024;
        let tree = Tree::new(structure, vectors::KEYS);
        let (mut after, mut done) = (None, false);
        let pages = std::iter::from_fn(|| {
            if done {
                return None;
            }
            let way = Direction::Forward;
            let page = self.page(tree, &Range::all(), way, after.as_deref(), PAGE);
            Some(page.map(|page| {
                done = page.next.is_none();
                after = page.next;
                page.items
            }))
        });
        let vector = |item: Item| -> Result<Option<(String, Bytes)>> {
            let key = String::from_utf8_lossy(&item.key).into_owned();
            let Some(entry) = item.entry else { return Ok(None) };
            if !probe.may_answer_with(&key)? {
                return Ok(None);
            }
            Ok(self.vector(&entry.slot, item.lsn)?.map(|bytes| (key, bytes)))
        };
        let found = pages.flat_map(|page| match page {
            Ok(items) => items.into_iter().filter_map(|item| vector(item).transpose()).collect(),
            Err(error) => vec![Err(error)],
        });
        vectors::nearest_of(probe, found, searchable.metric())
    }

    /// A vector's bytes; `None`: withdrawn, so that no snapshot sees it.
    fn vector(&self, slot: &Slot, born: Lsn) -> Result<Option<Bytes>> {
        vectors::unless_withdrawn(self.store.values.recent(slot), born, self.store.durable())
    }

    /// The structure, if this may write it: as one of those asked for that lacks this LSN.
    fn written(&self, structure: StructureId) -> Option<&Materialised> {
        let wanted = match self.writes {
            Writes::None | Writes::PutOff => {
                unreachable!("only a snapshot made to apply is written to")
            }
            Writes::Live | Writes::All => true,
            Writes::Only(only) => only.contains(&structure),
        };
        let known = self.catalog.structure(structure);
        (wanted && known.applied() < self.lsn).then_some(known)
    }

    fn written_vectors(&self, structure: StructureId) -> Option<&Searchable> {
        self.written(structure)?.vectors.as_ref()
    }
}

impl Look for Snapshot<'_> {
    fn schema(&self) -> &Schema {
        &self.catalog.schema
    }

    fn lsn(&self) -> Lsn {
        self.lsn
    }

    fn now(&self) -> Micros {
        self.store.now()
    }

    fn state(&self, tree: Tree, key: &[u8]) -> Result<Option<(Lsn, Option<Entry>)>> {
        match self.tree(tree)? {
            Some(ordered) => ordered.state(tree.number, key, self.lsn),
            None => Ok(None),
        }
    }

    fn page(
        &self,
        tree: Tree,
        range: &Range,
        direction: Direction,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page> {
        self.side(tree, range, direction, after, limit).map(merge_iterator::single)
    }

    fn count(&self, tree: Tree) -> Result<u64> {
        self.tree(tree)?.map_or(Ok(0), |ordered| ordered.count(tree.number, self.lsn))
    }

    fn value(&self, slot: &Slot) -> Result<Arc<[u8]>> {
        self.store.values.get(slot)
    }

    fn forgotten(&self, structure: StructureId, key: &[u8], lsn: Lsn) -> Result<bool> {
        self.ordered(structure).map_or(Ok(false), |ordered| ordered.hidden(key, lsn))
    }

    fn vector_search(&self, structure: StructureId, asked: &Nearby<'_>) -> Result<Vec<Hit>> {
        self.search(structure, asked, &Pending::new())
    }

    fn walks_graphs(&self, structure: StructureId) -> bool {
        let vectors = self.catalog.structure(structure).vectors.as_ref();
        vectors.is_some_and(Searchable::walks_graphs)
    }

    fn vectors_about(&self, structure: StructureId) -> u64 {
        let vectors = self.catalog.structure(structure).vectors.as_ref();
        vectors.map_or(0, |vectors| vectors.sealed() + vectors.unsealed())
    }
}

impl Change for Snapshot<'_> {
    fn set(&self, tree: Tree, key: &[u8], entry: Option<Entry>) {
        let Some(known) = self.written(tree.structure) else { return };
        known.set(tree.number, key, self.lsn, entry);
        if !self.store.keeps_all {
            known.ordered.prune(tree.number, key, self.store.floor());
        }
    }

    fn erase(&self, tree: Tree, key: &[u8]) {
        if let Some(known) = self.written(tree.structure) {
            known.ordered.erase(tree.number, key, self.lsn);
        }
    }

    fn versions(&self, tree: Tree, key: &[u8]) -> Result<Vec<Version>> {
        self.catalog.structure(tree.structure).ordered.versions(tree.number, key)
    }

    fn ending_at(&self, lsn: Lsn, tree: Tree, end: &[u8]) -> Result<Vec<Box<[u8]>>> {
        let then = self.store.snapshot_of(Arc::clone(&self.catalog), lsn);
        lookup::ending(&then, tree, end)
    }

    fn mask(&self, structure: StructureId, key: &[u8]) {
        if let Some(known) = self.written(structure) {
            known.ordered.hide(key, self.lsn);
        }
    }

    fn prune(&self, tree: Tree, key: &[u8]) {
        if let Some(known) = self.written(tree.structure) {
            let unread = known.queue.oldest(self.store.unread_below());
            known.ordered.prune(tree.number, key, unread);
        }
    }

    fn changes(&self, structure: StructureId) -> bool {
        match self.writes {
            Writes::Only(only) => only.contains(&structure),
            _ => true,
        }
    }

    fn defer(&self, structure: StructureId, key: &[u8]) -> bool {
        let (Writes::Live, Some(known)) = (self.writes, self.catalog.structures.get(&structure))
        else {
            return false;
        };
        let Some(deferred) = &known.deferred else { return false };
        let may_lag = self.structure(structure).is_some_and(Structure::may_lag);
        // What comes behind work that was put off is put off, too.
        if !may_lag && deferred.is_empty() {
            return false;
        }
        if known.applied() < self.lsn {
            deferred.push(self.lsn, key);
        }
        true
    }

    fn touch(&self, view: StructureId, group: &[u8]) {
        let mut effects = self.effects.lock();
        let known = effects.touched.iter().any(|(id, one)| *id == view && **one == *group);
        if !known {
            effects.touched.push((view, group.into()));
        }
    }

    fn is_background(&self) -> bool {
        self.background
    }

    fn superseded(&self) {
        self.effects.lock().superseded = true;
    }

    fn overfull(&self, structure: StructureId, capacity: u64) -> Result<Option<Item>> {
        match self.written(structure) {
            Some(known) => known.overfull(self.lsn, capacity),
            None => Ok(None),
        }
    }

    fn put_vector(&self, structure: StructureId, key: &str, vector: &[f32], slot: &Slot) {
        if let Some(vectors) = self.written_vectors(structure) {
            vectors.put(key, vector, self.lsn, slot);
        }
    }

    fn delete_vector(&self, structure: StructureId, key: &str) {
        if let Some(vectors) = self.written_vectors(structure) {
            vectors.delete(key, self.lsn);
        }
    }

    fn forget_vector(&self, structure: StructureId, key: &str) {
        if let Some(vectors) = self.written_vectors(structure) {
            vectors.forget(key, self.lsn);
        }
    }
}

/// The pipeline's applier.
pub struct Applier(pub Arc<Store>);

impl crate::commit::pipeline::Apply for Applier {
    fn withdrawn(&self, durable: Lsn) {
        self.0.withdrawn.store(durable, Ordering::Release);
    }

    fn published(&self, lsn: Lsn) {
        self.0.publish(lsn);
    }

    fn caught_up(&self) {
        if let Some(hook) = self.0.hook.get() {
            hook(&self.0);
        }
    }

    fn apply(&self, sequenced: &Sequenced) -> Result<()> {
        let applied = self.0.apply(&sequenced.commit)?;
        if let Some(leaf) = applied.leaf {
            // An asynchronous commit is acknowledged before or after; the receipt takes either.
            sequenced.leaf.get_or_init(|| leaf);
        }
        sequenced.touched.get_or_init(|| applied.touched);
        Ok(())
    }
}
