//! The materialised structures: everything that can be dropped and made again from the log.
//!
//! Invariants:
//! 1. All of it follows from the log and the schema alone.
//! 2. One applier changes it, in LSN order; readers take an LSN and see nothing newer.
//! 3. The catalogue is replaced whole when the schema changes; a reader keeps the one it has.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::apply::{self, Links};
use crate::audit::{self, merkle};
use crate::clock::Micros;
use crate::commit::prepared::Sequenced;
use crate::error::Result;
use crate::events::Positions;
use crate::log::record::{Commit, TxnId};
use crate::log::{Lsn, Pointer};
use crate::lookup::{Change, Look, Operation, Page, Tree};
use crate::merge_iterator::{self, Side};
use crate::ordered::{Direction, Entry, Index, Item, Range, Slot, Version};
use crate::schema::{Kind, Schema, Structure, StructureId};
use crate::snapshot::{Pin, Snapshots};
use crate::values::Values;
use crate::vector::Hit;
use crate::vector::tail::{Pending, Tail};

/// One structure in memory.
pub struct Materialised {
    pub trees: Vec<Index>,
    pub vectors: Option<Tail>,
    pub leaves: Option<RwLock<merkle::Tree>>,
}

impl Materialised {
    pub fn new(structure: &Structure) -> Self {
        let (trees, vectors, leaves) = match &structure.kind {
            Kind::Rows { indexes, unique, .. } => (1 + indexes.len() + unique.len(), None, None),
            Kind::Vectors { dim, metric, .. } => (0, Some(Tail::new(*dim, *metric)), None),
            Kind::Events { .. } | Kind::Context {} => (1, None, None),
            Kind::Audit {} => (0, None, Some(RwLock::new(merkle::Tree::new()))),
            Kind::Cache { .. } | Kind::Graph {} => (2, None, None),
        };
        let trees = (0..trees).map(|_| Index::default()).collect();
        Self { trees, vectors, leaves }
    }

    pub fn memory_bytes(&self) -> usize {
        let trees: usize = self.trees.iter().map(Index::memory_bytes).sum();
        let vectors = self.vectors.as_ref().map_or(0, Tail::memory_bytes);
        trees + vectors + self.leaves.as_ref().map_or(0, |leaves| leaves.read().memory_bytes())
    }
}

/// The structures under one schema.
#[derive(Clone)]
pub struct Catalog {
    pub schema: Schema,
    pub links: Links,
    pub structures: HashMap<StructureId, Arc<Materialised>>,
    /// Whether commits carry salts and digests.
    pub audited: bool,
}

impl Catalog {
    /// The catalogue of `schema`; structures of `known` but for `fresh` are kept.
    pub fn new(schema: Schema, known: Option<&Catalog>, fresh: &[StructureId]) -> Self {
        let links = Links::of(&schema);
        let audited = schema.structures.iter().any(|s| matches!(s.kind, Kind::Audit {}));
        let structures = schema
            .structures
            .iter()
            .map(|structure| {
                let kept = known
                    .and_then(|catalog| catalog.structures.get(&structure.id))
                    .filter(|_| !fresh.contains(&structure.id));
                let made = || Arc::new(Materialised::new(structure));
                (structure.id, kept.cloned().unwrap_or_else(made))
            })
            .collect();
        Self { schema, links, structures, audited }
    }

    /// Structures that must be made from the log because `known` does not have them as they are.
    pub fn to_rebuild(schema: &Schema, known: &Catalog) -> Vec<StructureId> {
        let changed = schema.structures.iter().filter(|s| must_rebuild(Some(known), s));
        with_sources(&Links::of(schema), changed.map(|structure| structure.id).collect())
    }

    fn tree(&self, tree: Tree) -> Option<&Index> {
        self.structures.get(&tree.structure)?.trees.get(tree.number as usize)
    }

    pub fn tree_of(&self, tree: Tree) -> &Index {
        self.tree(tree).expect("a structure has the trees of its kind")
    }

    pub fn vectors(&self, structure: StructureId) -> &Tail {
        let found = self.structures.get(&structure).and_then(|known| known.vectors.as_ref());
        found.expect("a vectors structure has a tail")
    }
}

/// These structures and those they capture: whether a delete changed anything is known only while
/// its structure is replayed, too.
pub fn with_sources(links: &Links, mut structures: Vec<StructureId>) -> Vec<StructureId> {
    for id in structures.clone() {
        structures.extend(links.captured_by(id));
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
    match (&before.kind, &structure.kind) {
        (Kind::Rows { indexes, .. }, Kind::Rows { indexes: new, .. }) => indexes != new,
        (Kind::Events { capture }, Kind::Events { capture: new }) => capture != new,
        (
            Kind::Cache { source, capacity, .. },
            Kind::Cache { source: new_source, capacity: new_capacity, .. },
        ) => source != new_source || capacity != new_capacity,
        _ => false,
    }
}

/// What is not any structure's own: when commits were, and which transactions they were.
#[derive(Default)]
pub struct Ledger {
    /// LSN → time and place of the record.
    pub commits: Index,
    /// Transaction id → LSN.
    pub transactions: Index,
}

impl Ledger {
    fn record(&self, commit: &Commit) {
        let entry =
            Entry::with_meta(commit.time.to_le_bytes(), Slot::Stored(commit.record_pointer()));
        self.commits.set(&commit.lsn.to_be_bytes(), commit.lsn, Some(entry));
        self.transactions.set(&commit.head.txn.key(), commit.lsn, Some(Entry::mark()));
    }

    /// The LSN a transaction committed as, at most `visible`.
    pub fn transaction(&self, txn: &TxnId, visible: Lsn) -> Option<Lsn> {
        self.transactions.get(&txn.key(), visible).map(|version| version.lsn)
    }

    /// Time and place of a commit.
    pub fn commit(&self, lsn: Lsn) -> Option<(Micros, Pointer)> {
        let version = self.commits.get(&lsn.to_be_bytes(), lsn)?;
        decode_commit(&version.entry)
    }

    /// Newest LSN at or before `time`, at most `visible`; 0 if there is none.
    pub fn lsn_at(&self, time: Micros, visible: Lsn) -> Lsn {
        let (mut low, mut high) = (0, visible);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            match self.commit(middle) {
                Some((at, _)) if at <= time => low = middle,
                _ => high = middle - 1,
            }
        }
        low
    }
}

pub fn decode_commit(entry: &Entry) -> Option<(Micros, Pointer)> {
    let time = Micros::from_le_bytes(entry.meta[..].try_into().ok()?);
    match &entry.slot {
        Slot::Stored(pointer) => Some((time, *pointer)),
        _ => None,
    }
}

/// Forgotten keys and up to which LSN.
#[derive(Default)]
struct Masks(RwLock<HashMap<StructureId, ForgottenKeys>>);

type ForgottenKeys = HashMap<Box<[u8]>, Lsn>;

impl Masks {
    fn hides(&self, structure: StructureId, key: &[u8], lsn: Lsn) -> bool {
        let masks = self.0.read();
        !masks.is_empty()
            && masks.get(&structure).and_then(|keys| keys.get(key)).is_some_and(|to| lsn <= *to)
    }
}

pub struct Store {
    catalog: RwLock<Arc<Catalog>>,
    pub ledger: Ledger,
    masks: Masks,
    pub values: Values,
    pub snapshots: Arc<Snapshots>,
    /// Versions no read at or above this LSN needs may be dropped.
    floor: AtomicU64,
    /// The newest LSN a reader may have begun at.
    published: AtomicU64,
    keeps_all: bool,
    now: Box<dyn Fn() -> Micros + Send + Sync>,
}

impl Store {
    pub fn new(
        schema: Schema,
        values: Values,
        keeps_all: bool,
        now: Box<dyn Fn() -> Micros + Send + Sync>,
    ) -> Self {
        Self {
            catalog: RwLock::new(Arc::new(Catalog::new(schema, None, &[]))),
            ledger: Ledger::default(),
            masks: Masks::default(),
            values,
            snapshots: Arc::default(),
            floor: AtomicU64::new(0),
            published: AtomicU64::new(0),
            keeps_all,
            now,
        }
    }

    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read())
    }

    pub fn replace_catalog(&self, catalog: Catalog) {
        *self.catalog.write() = Arc::new(catalog);
    }

    pub fn floor(&self) -> Lsn {
        self.floor.load(Ordering::Acquire)
    }

    /// Reads below `lsn`, or below the oldest pinned one, are refused from now on, and their
    /// versions dropped step by step; the floor that holds.
    pub fn raise_floor(&self, lsn: Lsn) -> Lsn {
        self.snapshots.with_oldest(|oldest| {
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

    pub fn hides(&self, structure: StructureId, key: &[u8], lsn: Lsn) -> bool {
        self.masks.hides(structure, key, lsn)
    }

    /// The state at an LSN that somebody keeps pinned, or that nothing is pruned from.
    pub fn snapshot(&self, lsn: Lsn) -> Snapshot<'_> {
        Snapshot { store: self, catalog: self.catalog(), lsn, _pin: None }
    }

    /// The state at an LSN by another catalogue than today's.
    pub fn snapshot_of(&self, catalog: Arc<Catalog>, lsn: Lsn) -> Snapshot<'_> {
        Snapshot { store: self, catalog, lsn, _pin: None }
    }

    /// The state at a pinned LSN.
    pub fn pinned(&self, pin: Arc<Pin>) -> Snapshot<'_> {
        Snapshot { store: self, catalog: self.catalog(), lsn: pin.lsn(), _pin: Some(pin) }
    }

    /// Takes a commit into every structure; the hash of its audit leaf.
    pub fn apply(&self, commit: &Commit) -> Result<Option<audit::Hash>> {
        let catalog = self.catalog();
        self.values.admit(commit);
        let leaf = self.apply_to(&catalog, commit, None)?;
        self.ledger.record(commit);
        Ok(leaf)
    }

    /// `only`: writes to any other structure are left out (its rebuilding).
    pub fn apply_to(
        &self,
        catalog: &Arc<Catalog>,
        commit: &Commit,
        only: Option<&[StructureId]>,
    ) -> Result<Option<audit::Hash>> {
        let snapshot = self.snapshot_of(Arc::clone(catalog), commit.lsn);
        let state = Applying { snapshot, only };
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
        Ok(self.push_leaves(catalog, commit, only))
    }

    fn push_leaves(
        &self,
        catalog: &Catalog,
        commit: &Commit,
        only: Option<&[StructureId]>,
    ) -> Option<audit::Hash> {
        if !catalog.audited {
            return None;
        }
        let mut hash = None;
        for structure in &catalog.schema.structures {
            let wanted = only.is_none_or(|only| only.contains(&structure.id));
            if !matches!(structure.kind, Kind::Audit {}) || !wanted {
                continue;
            }
            let Some(index) = audit::leaf_index(structure.created, commit.lsn) else { continue };
            let hash = *hash.get_or_insert_with(|| audit::leaf_hash(commit));
            let leaves = catalog.structures[&structure.id].leaves.as_ref();
            let mut leaves = leaves.expect("an audit has leaves").write();
            if leaves.size() == index {
                leaves.push(hash);
            }
        }
        hash
    }

    pub fn memory_bytes(&self) -> usize {
        let structures: usize =
            self.catalog().structures.values().map(|one| one.memory_bytes()).sum();
        let ledger = self.ledger.commits.memory_bytes() + self.ledger.transactions.memory_bytes();
        structures + ledger + self.values.memory_bytes()
    }
}

/// Whether an operation on `structure` changes one of `only`.
fn touches(catalog: &Catalog, structure: StructureId, only: &[StructureId]) -> bool {
    only.contains(&structure)
        || catalog.links.following(structure).any(|follower| only.contains(&follower))
}

/// The store at one LSN.
pub struct Snapshot<'a> {
    pub store: &'a Store,
    pub catalog: Arc<Catalog>,
    pub lsn: Lsn,
    _pin: Option<Arc<Pin>>,
}

impl Snapshot<'_> {
    pub fn side(
        &self,
        tree: Tree,
        range: &Range,
        direction: Direction,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Side {
        let Some(index) = self.catalog.tree(tree) else {
            return Side { items: Vec::new(), full: false };
        };
        let items: Vec<Item> = index.page(range, direction, after, self.lsn, limit);
        Side { full: items.len() == limit, items }
    }

    pub fn search(
        &self,
        structure: StructureId,
        query: &[f32],
        k: usize,
        only: Option<&[String]>,
        pending: &Pending,
    ) -> Vec<Hit> {
        let tail = self.catalog.vectors(structure);
        match only {
            Some(keys) => tail.search_keys(query, k, self.lsn, keys, pending),
            None => tail.search(query, k, self.lsn, None, pending),
        }
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

    fn state(&self, tree: Tree, key: &[u8]) -> Option<(Lsn, Option<Entry>)> {
        self.catalog.tree(tree)?.state(key, self.lsn)
    }

    fn page(
        &self,
        tree: Tree,
        range: &Range,
        direction: Direction,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Page {
        merge_iterator::single(self.side(tree, range, direction, after, limit))
    }

    fn count(&self, tree: Tree) -> u64 {
        self.catalog.tree(tree).map_or(0, |index| index.count(self.lsn))
    }

    fn value(&self, slot: &Slot) -> Result<Arc<[u8]>> {
        self.store.values.get(slot)
    }

    fn forgotten(&self, structure: StructureId, key: &[u8], lsn: Lsn) -> bool {
        self.store.hides(structure, key, lsn)
    }

    fn vector(&self, structure: StructureId, key: &str) -> Option<(Vec<f32>, Lsn)> {
        self.catalog.vectors(structure).get(key, self.lsn)
    }

    fn vector_page(
        &self,
        structure: StructureId,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<(String, Lsn)> {
        self.catalog.vectors(structure).page(after, self.lsn, limit)
    }

    fn vector_count(&self, structure: StructureId) -> u64 {
        self.catalog.vectors(structure).count(self.lsn) as u64
    }

    fn vector_search(
        &self,
        structure: StructureId,
        query: &[f32],
        k: usize,
        only: Option<&[String]>,
    ) -> Vec<Hit> {
        self.search(structure, query, k, only, &Pending::new())
    }
}

/// The store at the LSN that is being applied.
struct Applying<'a> {
    snapshot: Snapshot<'a>,
    only: Option<&'a [StructureId]>,
}

impl Applying<'_> {
    fn writes(&self, structure: StructureId) -> bool {
        self.only.is_none_or(|only| only.contains(&structure))
    }

    fn index(&self, tree: Tree) -> Option<&Index> {
        self.writes(tree.structure).then(|| self.snapshot.catalog.tree_of(tree))
    }

    fn tail(&self, structure: StructureId) -> Option<&Tail> {
        self.writes(structure).then(|| self.snapshot.catalog.vectors(structure))
    }
}

impl Look for Applying<'_> {
    fn schema(&self) -> &Schema {
        self.snapshot.schema()
    }

    fn lsn(&self) -> Lsn {
        self.snapshot.lsn
    }

    fn now(&self) -> Micros {
        self.snapshot.now()
    }

    fn state(&self, tree: Tree, key: &[u8]) -> Option<(Lsn, Option<Entry>)> {
        self.snapshot.state(tree, key)
    }

    fn page(
        &self,
        tree: Tree,
        range: &Range,
        direction: Direction,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Page {
        self.snapshot.page(tree, range, direction, after, limit)
    }

    fn count(&self, tree: Tree) -> u64 {
        self.snapshot.count(tree)
    }

    fn value(&self, slot: &Slot) -> Result<Arc<[u8]>> {
        self.snapshot.value(slot)
    }

    fn forgotten(&self, structure: StructureId, key: &[u8], lsn: Lsn) -> bool {
        self.snapshot.forgotten(structure, key, lsn)
    }

    fn vector(&self, structure: StructureId, key: &str) -> Option<(Vec<f32>, Lsn)> {
        self.snapshot.vector(structure, key)
    }

    fn vector_page(
        &self,
        structure: StructureId,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<(String, Lsn)> {
        self.snapshot.vector_page(structure, after, limit)
    }

    fn vector_count(&self, structure: StructureId) -> u64 {
        self.snapshot.vector_count(structure)
    }

    fn vector_search(
        &self,
        structure: StructureId,
        query: &[f32],
        k: usize,
        only: Option<&[String]>,
    ) -> Vec<Hit> {
        self.snapshot.vector_search(structure, query, k, only)
    }
}

impl Change for Applying<'_> {
    fn set(&self, tree: Tree, key: &[u8], entry: Option<Entry>) {
        let Some(index) = self.index(tree) else { return };
        index.set(key, self.snapshot.lsn, entry);
        if !self.snapshot.store.keeps_all {
            index.prune(key, self.snapshot.store.floor());
        }
    }

    fn erase(&self, tree: Tree, key: &[u8]) {
        if let Some(index) = self.index(tree) {
            index.forget(key, self.snapshot.lsn);
        }
    }

    fn versions(&self, tree: Tree, key: &[u8]) -> Vec<Version> {
        self.snapshot.catalog.tree_of(tree).versions(key)
    }

    fn mask(&self, structure: StructureId, key: &[u8]) {
        let mut masks = self.snapshot.store.masks.0.write();
        masks.entry(structure).or_default().insert(key.into(), self.snapshot.lsn);
    }

    fn prune(&self, tree: Tree, key: &[u8]) {
        let Some(index) = self.index(tree) else { return };
        // Readers pin what is published; several commits may be applied before they are.
        let store = self.snapshot.store;
        let published = store.published.load(Ordering::Acquire);
        let oldest = store.snapshots.with_oldest(|oldest| oldest.unwrap_or(published));
        index.prune(key, oldest.min(published));
    }

    fn put_vector(&self, structure: StructureId, key: &str, vector: &[f32]) {
        if let Some(tail) = self.tail(structure) {
            tail.put(key, vector, self.snapshot.lsn);
        }
    }

    fn delete_vector(&self, structure: StructureId, key: &str) {
        if let Some(tail) = self.tail(structure) {
            tail.delete(key, self.snapshot.lsn);
        }
    }

    fn forget_vector(&self, structure: StructureId, key: &str) {
        if let Some(tail) = self.tail(structure) {
            tail.forget(key, self.snapshot.lsn);
        }
    }
}

/// The pipeline's applier.
pub struct Applier(pub Arc<Store>);

impl crate::commit::pipeline::Apply for Applier {
    fn published(&self, lsn: Lsn) {
        self.0.publish(lsn);
    }

    fn apply(&self, sequenced: &Sequenced) -> Result<()> {
        if let Some(leaf) = self.0.apply(&sequenced.commit)? {
            // An asynchronous commit is acknowledged before or after; the receipt takes either.
            sequenced.leaf.get_or_init(|| leaf);
        }
        Ok(())
    }
}
