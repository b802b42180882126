//! A transaction's state: the snapshot it reads, under its own pending writes.
//!
//! Pending operations go through the same `apply` as committed ones, into small indexes of the
//! transaction's own, when the transaction first reads; a read merges the two. So every structure's
//! reads see a transaction's writes without knowing of it, and one that only writes pays nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::apply;
use crate::batch::Batch;
use crate::cache;
use crate::clock::Micros;
use crate::commit::conflicts::{ConflictKey, Space, conflict_key};
use crate::error::Result;
use crate::events::{PENDING_LSN, Positions};
use crate::log::Lsn;
use crate::lookup::{self, Change, Look, Nearby, Operation, Page, Tree};
use crate::merge_iterator::{self, Side};
use crate::ordered::{Direction, Entry, Index, Item, Range, Slot, Version};
use crate::schema::{Schema, StructureId};
use crate::store::{Snapshot, Store};
use crate::sync::{Mutex, RwLock};
use crate::vector::Hit;
use crate::vectors::Pending;

/// What a serializable transaction has read.
#[derive(Default)]
pub struct Reads {
    pub keys: HashSet<ConflictKey>,
    pub structures: HashSet<StructureId>,
}

/// Pending writes, shared by a transaction and its readers.
#[derive(Default)]
pub struct Pendings {
    trees: Mutex<HashMap<Tree, Arc<Index>>>,
    vectors: Mutex<HashMap<StructureId, Pending>>,
    forgotten: Mutex<HashSet<(StructureId, Box<[u8]>)>>,
    batch: Arc<RwLock<Batch>>,
    /// Operations taken into the indexes above so far.
    applied: Mutex<(usize, Positions)>,
    pub reads: Option<Mutex<Reads>>,
}

impl Pendings {
    pub fn new(batch: Arc<RwLock<Batch>>, serializable: bool) -> Self {
        Self { batch, reads: serializable.then(Mutex::default), ..Self::default() }
    }

    /// Takes in what was written since the last read.
    fn catch_up(&self, overlay: &Overlay<'_>) -> Result<()> {
        let mut applied = self.applied.lock();
        let (done, positions) = &mut *applied;
        // Recursive, because taking an operation in may read a pending value; only the
        // transaction's own thread writes.
        let batch = self.batch.read_recursive();
        let links = &overlay.base.catalog.links;
        for (number, op) in batch.frames.ops.iter().enumerate().skip(*done) {
            let number = number as u32;
            let slot = Operation::slot_of(&batch.frames, op, || Slot::Pending(number));
            let operation = Operation { frames: &batch.frames, op, number, slot };
            apply::operate(overlay, links, &operation, PENDING_LSN, positions)?;
        }
        *done = batch.len();
        Ok(())
    }

    fn tree(&self, tree: Tree) -> Option<Arc<Index>> {
        self.trees.lock().get(&tree).cloned()
    }

    fn tree_mut(&self, tree: Tree) -> Arc<Index> {
        Arc::clone(self.trees.lock().entry(tree).or_default())
    }

    pub fn is_forgotten(&self, structure: StructureId, key: &[u8]) -> bool {
        let forgotten = self.forgotten.lock();
        !forgotten.is_empty() && forgotten.contains(&(structure, key.into()))
    }

    /// Keys a tree has pending, with their entry (`None`: deleted).
    pub fn keys(&self, tree: Tree) -> Vec<(Box<[u8]>, Option<Entry>)> {
        let Some(index) = self.tree(tree) else { return Vec::new() };
        let mut keys = Vec::new();
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let range = Range::all();
            let page = index.page(&range, Direction::Forward, after.as_deref(), PENDING_LSN, 1024);
            let Some(last) = page.last() else { return keys };
            after = Some(last.key.clone());
            keys.extend(page.into_iter().map(|item| (item.key, item.entry)));
        }
    }
}

pub struct Overlay<'a> {
    pub base: Snapshot<'a>,
    pub pendings: &'a Pendings,
}

impl<'a> Overlay<'a> {
    /// The state at `lsn` under everything pending so far.
    pub fn open(store: &'a Store, lsn: Lsn, pendings: &'a Pendings) -> Result<Self> {
        let overlay = Self { base: store.snapshot(lsn), pendings };
        pendings.catch_up(&overlay)?;
        Ok(overlay)
    }
}

impl Look for Overlay<'_> {
    fn schema(&self) -> &Schema {
        self.base.schema()
    }

    fn lsn(&self) -> Lsn {
        self.base.lsn
    }

    fn now(&self) -> Micros {
        self.base.now()
    }

    fn state(&self, tree: Tree, key: &[u8]) -> Result<Option<(Lsn, Option<Entry>)>> {
        self.note_key(tree.structure, key);
        match self.pendings.tree(tree).and_then(|index| index.state(key, PENDING_LSN)) {
            None => self.base.state(tree, key),
            own => Ok(own),
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
        self.note_range(tree.structure);
        let base = self.base.side(tree, range, direction, after, limit)?;
        let Some(index) = self.pendings.tree(tree) else {
            return Ok(merge_iterator::single(base));
        };
        let items = index.page(range, direction, after, PENDING_LSN, limit);
        let over = Side { full: items.len() == limit, items };
        Ok(merge_iterator::merged(base, over, direction, limit))
    }

    fn count(&self, tree: Tree) -> Result<u64> {
        self.note_range(tree.structure);
        let mut count = self.base.count(tree)?;
        for (key, entry) in self.pendings.keys(tree) {
            let before = self.base.get(tree, &key)?.is_some();
            count = count + u64::from(entry.is_some()) - u64::from(before);
        }
        Ok(count)
    }

    fn value(&self, slot: &Slot) -> Result<Arc<[u8]>> {
        match slot {
            Slot::Pending(number) => {
                let batch = self.pendings.batch.read_recursive();
                let value = batch.frames.value(&batch.frames.ops[*number as usize]);
                Ok(value.expect("a pending slot has a value").into())
            }
            slot => self.base.value(slot),
        }
    }

    fn forgotten(&self, structure: StructureId, key: &[u8], lsn: Lsn) -> Result<bool> {
        Ok(self.pendings.is_forgotten(structure, key)
            || self.base.forgotten(structure, key, lsn)?)
    }

    fn vector_search(&self, structure: StructureId, asked: &Nearby<'_>) -> Result<Vec<Hit>> {
        self.note_range(structure);
        let vectors = self.pendings.vectors.lock();
        let empty = Pending::new();
        let pending = vectors.get(&structure).unwrap_or(&empty);
        self.base.search(structure, asked, pending)
    }

    fn walks_graphs(&self, structure: StructureId) -> bool {
        self.base.walks_graphs(structure)
    }

    fn vectors_about(&self, structure: StructureId) -> u64 {
        self.base.vectors_about(structure)
    }

    fn note_range(&self, structure: StructureId) {
        if let Some(reads) = &self.pendings.reads {
            reads.lock().structures.insert(structure);
        }
    }

    fn note_key(&self, structure: StructureId, key: &[u8]) {
        if let Some(reads) = &self.pendings.reads {
            reads.lock().keys.insert(conflict_key(Space::Key { structure }, key));
        }
    }
}

impl Change for Overlay<'_> {
    fn set(&self, tree: Tree, key: &[u8], entry: Option<Entry>) {
        self.pendings.tree_mut(tree).set(key, PENDING_LSN, entry);
    }

    fn erase(&self, tree: Tree, key: &[u8]) {
        self.set(tree, key, None);
    }

    fn versions(&self, tree: Tree, key: &[u8]) -> Result<Vec<Version>> {
        Ok(self.get(tree, key)?.into_iter().collect())
    }

    fn ending_at(&self, _: Lsn, tree: Tree, end: &[u8]) -> Result<Vec<Box<[u8]>>> {
        lookup::ending(self, tree, end)
    }

    fn mask(&self, structure: StructureId, key: &[u8]) {
        self.pendings.forgotten.lock().insert((structure, key.into()));
    }

    fn prune(&self, _: Tree, _: &[u8]) {}

    fn overfull(&self, structure: StructureId, capacity: u64) -> Result<Option<Item>> {
        let ages = Tree::new(structure, cache::AGES);
        if self.count(ages)? <= capacity {
            return Ok(None);
        }
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let (all, forward) = (Range::all(), Direction::Forward);
            let page = self.page(ages, &all, forward, after.as_deref(), 1)?;
            match (page.items.into_iter().next(), page.next) {
                (None, Some(next)) => after = Some(next),
                (oldest, _) => return Ok(oldest),
            }
        }
    }

    fn put_vector(&self, structure: StructureId, key: &str, vector: &[f32], _: &Slot) {
        let mut vectors = self.pendings.vectors.lock();
        vectors.entry(structure).or_default().insert(key.to_owned(), Some(vector.to_vec()));
    }

    fn delete_vector(&self, structure: StructureId, key: &str) {
        let mut vectors = self.pendings.vectors.lock();
        vectors.entry(structure).or_default().insert(key.to_owned(), None);
    }

    fn forget_vector(&self, structure: StructureId, key: &str) {
        self.delete_vector(structure, key);
    }
}
