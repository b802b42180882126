//! One structure's trees as layers, newest first: active memtable, sealed memtables, runs.
//!
//! Invariants:
//! 1. The LSN ranges of the layers do not overlap: the first layer with a version at or below the
//!    LSN of a read has the newest one.
//! 2. Layers are replaced as a whole; a reader keeps those it began with, files included.
//! 3. What was forgotten is masked: a version at or below its key's mask is in no answer at any
//!    LSN, whatever layer still holds it.
//!
//! The masks are a tree of their own beside the structure's: (tree, key) → the LSN that forgot.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::memtable::Memtable;
use super::merge::Shape;
use super::run::Run;
use super::scan::Scan;
use super::{Direction, Entry, Item, Range, Version};
use crate::error::Result;
use crate::log::Lsn;
use crate::sync::atomic::{AtomicBool, Ordering};

/// The number of the tree of masks in every structure.
pub const MASKS: u16 = u16::MAX;
/// Stands for the structure's own key in the masks, in place of a tree.
const WHOLE: u16 = u16::MAX;

pub struct Layers {
    pub active: Arc<Memtable>,
    /// Newest first.
    pub sealed: Vec<Arc<Memtable>>,
    /// Newest first.
    pub runs: Vec<Arc<Run>>,
}

impl Layers {
    /// Nothing was sealed or written to a run yet.
    fn is_one_memtable(&self) -> bool {
        self.sealed.is_empty() && self.runs.is_empty()
    }
}

pub struct Ordered {
    /// Trees of the structure's own.
    trees: usize,
    layers: ArcSwap<Layers>,
    /// Whether anything was ever forgotten here.
    masked: AtomicBool,
}

impl Ordered {
    /// `runs` newest first.
    pub fn new(trees: usize, runs: Vec<Arc<Run>>) -> Self {
        let masked = runs.iter().any(|run| run.bounds(MASKS).is_some());
        let active = Arc::new(Memtable::new(trees + 1));
        let layers = Layers { active, sealed: Vec::new(), runs };
        Self { trees, layers: ArcSwap::from_pointee(layers), masked: AtomicBool::new(masked) }
    }

    /// The layers as they are now.
    pub fn layers(&self) -> Arc<Layers> {
        self.layers.load_full()
    }

    /// Takes the layers of another that was made of the same commits.
    pub fn replace(&self, other: &Ordered) {
        self.layers.store(other.layers());
        self.masked.store(other.masked.load(Ordering::Acquire), Ordering::Release);
    }

    fn slot(&self, tree: u16) -> usize {
        if tree == MASKS { self.trees } else { tree as usize }
    }

    /// The number in files of the memtable's tree at `slot`.
    pub fn number(&self, slot: usize) -> u16 {
        if slot == self.trees { MASKS } else { slot as u16 }
    }

    /// The newest version at or below `lsn`; `Some` with no entry is a tombstone.
    pub fn state(&self, tree: u16, key: &[u8], lsn: Lsn) -> Result<Option<(Lsn, Option<Entry>)>> {
        let layers = self.layers.load();
        let slot = self.slot(tree);
        let found = layers.active.tree(slot).state(key, lsn);
        if found.is_some() || layers.is_one_memtable() {
            return Ok(found);
        }
        match below(&layers, slot, tree, key, lsn)? {
            Some(found) if self.hides(tree, key, found.0)? => Ok(None),
            found => Ok(found),
        }
    }

    /// Every version that is no tombstone, oldest first.
    pub fn versions(&self, tree: u16, key: &[u8]) -> Result<Vec<Version>> {
        let layers = self.layers.load();
        let slot = self.slot(tree);
        let mask = self.mask(tree, key)?.unwrap_or(0);
        let mut found = layers.active.tree(slot).versions(key);
        for sealed in &layers.sealed {
            found.extend(sealed.tree(slot).versions(key));
        }
        let range = Range { start: key.to_vec(), end: Some([key, &[0]].concat()) };
        for run in &layers.runs {
            let mut cursor = run.cursor(tree, &range, Direction::Forward, None)?;
            while cursor.advance()? {
                let lsn = cursor.lsn();
                found.extend(cursor.entry().map(|entry| Version { lsn, entry }));
            }
        }
        found.retain(|version| version.lsn > mask);
        found.sort_by_key(|version| version.lsn);
        Ok(found)
    }

    /// Hands every version of a tree to `visit`, tombstones included; of each key the oldest first.
    pub fn history(
        &self,
        tree: u16,
        mut visit: impl FnMut(&[u8], Lsn, Option<Entry>) -> Result<()>,
    ) -> Result<()> {
        let layers = self.layers.load_full();
        let slot = self.slot(tree);
        let all = Range::all();
        let mut unmasked = |key: &[u8], lsn, entry| match self.hides(tree, key, lsn)? {
            true => Ok(()),
            false => visit(key, lsn, entry),
        };
        for run in layers.runs.iter().rev() {
            let mut cursor = run.cursor_uncached(tree, &all, Direction::Reverse, None)?;
            while cursor.advance()? {
                unmasked(cursor.key(), cursor.lsn(), cursor.entry())?;
            }
        }
        for memtable in layers.sealed.iter().rev().chain([&layers.active]) {
            for (key, versions) in memtable.tree(slot).all() {
                for (lsn, entry) in versions {
                    unmasked(&key, lsn, entry)?;
                }
            }
        }
        Ok(())
    }

    /// Up to `limit` keys of `range` behind `after` in scan order; fewer only at the end.
    /// Tombstones may be among them.
    pub fn page(
        &self,
        tree: u16,
        range: &Range,
        direction: Direction,
        after: Option<&[u8]>,
        lsn: Lsn,
        limit: usize,
    ) -> Result<Vec<Item>> {
        let layers = self.layers.load();
        let slot = self.slot(tree);
        if layers.is_one_memtable() {
            return Ok(layers.active.tree(slot).page(range, direction, after, lsn, limit));
        }
        let mut scan = Scan::new(&layers, (slot, tree), range, direction, after, lsn)?;
        let mut items = Vec::with_capacity(limit.min(1_024));
        while items.len() < limit {
            let Some(item) = scan.next(|key, at| self.hides(tree, key, at))? else { break };
            items.push(item);
        }
        Ok(items)
    }

    /// Keys that exist at `lsn`; free of a scan only where all of them are in one memtable.
    pub fn count(&self, tree: u16, lsn: Lsn) -> Result<u64> {
        let layers = self.layers.load();
        let slot = self.slot(tree);
        if layers.is_one_memtable() {
            return Ok(layers.active.tree(slot).count(lsn));
        }
        let all = Range::all();
        let mut scan = Scan::new(&layers, (slot, tree), &all, Direction::Forward, None, lsn)?;
        let mut count = 0;
        while scan.skip(|key, at| self.hides(tree, key, at))? {
            count += 1;
        }
        Ok(count)
    }

    pub fn set(&self, tree: u16, key: &[u8], lsn: Lsn, entry: Option<Entry>) {
        self.layers.load().active.set(self.slot(tree), key, lsn, entry);
    }

    /// Removes every version at or below `lsn`, at every snapshot.
    pub fn erase(&self, tree: u16, key: &[u8], lsn: Lsn) {
        let layers = self.layers.load();
        layers.active.tree(self.slot(tree)).forget(key, lsn);
        self.put_mask(&layers, tree, key, lsn);
    }

    /// Hides the structure's own key up to `lsn`, whatever trees it is in.
    pub fn hide(&self, key: &[u8], lsn: Lsn) {
        self.put_mask(&self.layers.load(), WHOLE, key, lsn);
    }

    /// Whether the structure's own key was forgotten at or after `lsn`.
    pub fn hidden(&self, key: &[u8], lsn: Lsn) -> Result<bool> {
        self.hides(WHOLE, key, lsn)
    }

    fn put_mask(&self, layers: &Layers, tree: u16, key: &[u8], lsn: Lsn) {
        let entry = Some(Entry::mark());
        layers.active.set(self.trees, &mask_key(tree, key), lsn, entry);
        self.masked.store(true, Ordering::Release);
    }

    fn hides(&self, tree: u16, key: &[u8], lsn: Lsn) -> Result<bool> {
        Ok(self.mask(tree, key)?.is_some_and(|mask| lsn <= mask))
    }

    /// Up to which LSN a key of a tree was forgotten.
    pub fn mask(&self, tree: u16, key: &[u8]) -> Result<Option<Lsn>> {
        self.mask_at(tree, key, Lsn::MAX)
    }

    /// The same, as it was at an LSN.
    pub fn mask_at(&self, tree: u16, key: &[u8], lsn: Lsn) -> Result<Option<Lsn>> {
        if !self.masked.load(Ordering::Acquire) {
            return Ok(None);
        }
        let layers = self.layers.load();
        let key = mask_key(tree, key);
        let found = match layers.active.tree(self.trees).state(&key, lsn) {
            Some(found) => Some(found),
            None => below(&layers, self.trees, MASKS, &key, lsn)?,
        };
        Ok(found.map(|(lsn, _)| lsn))
    }

    /// Drops versions of a key that no read at or above `floor` can see, where that is cheap.
    pub fn prune(&self, tree: u16, key: &[u8], floor: Lsn) {
        self.layers.load().active.tree(self.slot(tree)).prune(key, floor);
    }

    /// Nothing was ever written to it.
    pub fn is_empty(&self) -> bool {
        let layers = self.layers.load();
        layers.is_one_memtable() && layers.active.is_empty()
    }

    /// About what the active memtable takes, and the sealed ones.
    pub fn memtable_bytes(&self) -> (usize, usize) {
        let layers = self.layers.load();
        (layers.active.bytes(), layers.sealed.iter().map(|sealed| sealed.bytes()).sum())
    }

    /// The active memtable, which goes up to `upto`, is closed and another begun. Nothing is
    /// applied meanwhile.
    pub fn seal(&self, upto: Lsn) {
        let layers = self.layers.load();
        if layers.active.is_empty() {
            return;
        }
        layers.active.seal(upto);
        let mut sealed = vec![Arc::clone(&layers.active)];
        sealed.extend(layers.sealed.iter().cloned());
        let active = Arc::new(Memtable::new(self.trees + 1));
        self.layers.store(Arc::new(Layers { active, sealed, runs: layers.runs.clone() }));
    }

    /// The oldest sealed memtable is in `run` now (in none if all of it was obsolete).
    pub fn install_flush(&self, run: Option<Arc<Run>>) {
        let layers = self.layers.load();
        let mut sealed = layers.sealed.clone();
        sealed.pop();
        let runs = run.into_iter().chain(layers.runs.iter().cloned()).collect();
        self.layers.store(Arc::new(Layers { active: Arc::clone(&layers.active), sealed, runs }));
    }

    /// The neighbours `inputs` are one run now, or none.
    pub fn install_merge(&self, inputs: &[Arc<Run>], run: Option<Arc<Run>>) {
        let layers = self.layers.load();
        let mut runs = layers.runs.clone();
        let first = runs.iter().position(|known| Arc::ptr_eq(known, &inputs[0]));
        let first = first.expect("only a merge removes runs, and one is under way");
        runs.splice(first..first + inputs.len(), run);
        let (active, sealed) = (Arc::clone(&layers.active), layers.sealed.clone());
        self.layers.store(Arc::new(Layers { active, sealed, runs }));
    }

    /// Whether these runs are here, as neighbours.
    pub fn holds(&self, inputs: &[Arc<Run>]) -> bool {
        let layers = self.layers.load();
        let mut windows = layers.runs.windows(inputs.len());
        windows.any(|window| window.iter().zip(inputs).all(|(a, b)| Arc::ptr_eq(a, b)))
    }

    /// What the planner of merges needs to know, newest first.
    pub fn shapes(&self) -> Vec<Shape> {
        let layers = self.layers.load();
        let runs = &layers.runs;
        let shape = |at: usize| {
            let apart = runs.get(at + 1).is_none_or(|older| are_apart(&runs[at], older));
            Shape { bytes: runs[at].info().bytes, apart }
        };
        (0..runs.len()).map(shape).collect()
    }
}

/// A key's newest version at or below `lsn` in any layer but the active memtable.
fn below(
    layers: &Layers,
    slot: usize,
    tree: u16,
    key: &[u8],
    lsn: Lsn,
) -> Result<Option<(Lsn, Option<Entry>)>> {
    for sealed in &layers.sealed {
        let found = sealed.tree(slot).state(key, lsn);
        if found.is_some() {
            return Ok(found);
        }
    }
    for run in layers.runs.iter().filter(|run| run.info().first_lsn <= lsn) {
        let found = run.state(tree, key, lsn)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Whether no key of a newer run is at or below the keys of the older one, in any tree: so it is
/// with what is written in the order of the log, and then no two of a row of runs share keys.
fn are_apart(newer: &Run, older: &Run) -> bool {
    newer.trees().all(|tree| match (newer.bounds(tree), older.bounds(tree)) {
        (Some((first, _)), Some((_, last))) => last < first,
        _ => true,
    })
}

pub fn mask_key(tree: u16, key: &[u8]) -> Vec<u8> {
    [&tree.to_be_bytes()[..], key].concat()
}
