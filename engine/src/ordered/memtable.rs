//! The newest versions of a structure's trees, in memory until they are written to a run.
//!
//! Invariants:
//! 1. One applier writes, in LSN order; any number of readers read at any LSN up to the newest
//!    published one, and never see a later version.
//! 2. Two writes of one key at one LSN leave the later one.
//! 3. A tombstone stays: what it hides may lie in an older layer.
//! 4. No lock outlives a call; scans go page by page and start each behind the last key.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Bound;

use smallvec::{SmallVec, smallvec};

use super::{Direction, Entry, Item, Range, Slot, Version};
use crate::error::Result;
use crate::log::Lsn;
use crate::sync::RwLock;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a key costs in memory besides its bytes: its node's share, its box, its first version.
const KEY_OVERHEAD: usize = 144;
/// What each further version costs.
const VERSION_OVERHEAD: usize = 72;

/// Versions of one key, oldest first; `None` is a tombstone. Most keys have one.
type Versions = SmallVec<[(Lsn, Option<Entry>); 1]>;

#[derive(Default)]
struct Inner {
    keys: BTreeMap<Box<[u8]>, Versions>,
    /// Keys whose newest version is no tombstone.
    live: u64,
    newest: Lsn,
}

/// A key and its versions, oldest first.
pub type KeyVersions = (Box<[u8]>, Vec<(Lsn, Option<Entry>)>);

/// One tree in memory.
#[derive(Default)]
pub struct Index(RwLock<Inner>);

/// The trees of one structure, and about how many bytes they take.
pub struct Memtable {
    trees: Vec<Index>,
    bytes: AtomicUsize,
    /// What it holds goes up to here; set when it is sealed.
    upto: AtomicU64,
}

impl Memtable {
    pub fn new(trees: usize) -> Self {
        let trees = (0..trees).map(|_| Index::default()).collect();
        Self { trees, bytes: AtomicUsize::new(0), upto: AtomicU64::new(0) }
    }

    pub fn tree(&self, number: usize) -> &Index {
        &self.trees[number]
    }

    pub fn trees(&self) -> &[Index] {
        &self.trees
    }

    pub fn set(&self, tree: usize, key: &[u8], lsn: Lsn, entry: Option<Entry>) {
        let added = self.trees[tree].set(key, lsn, entry);
        self.bytes.fetch_add(added, Ordering::Relaxed);
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    pub fn upto(&self) -> Lsn {
        self.upto.load(Ordering::Acquire)
    }

    pub fn seal(&self, upto: Lsn) {
        self.upto.store(upto, Ordering::Release);
    }
}

fn entry_bytes(entry: Option<&Entry>) -> usize {
    let Some(entry) = entry else { return 0 };
    let inline = if let Slot::Inline(bytes) = &entry.slot { bytes.len() + 16 } else { 0 };
    let meta = if entry.meta.is_empty() { 0 } else { entry.meta.len() + 16 };
    inline + meta
}

fn at(versions: &Versions, lsn: Lsn) -> Option<&(Lsn, Option<Entry>)> {
    let after = versions.partition_point(|version| version.0 <= lsn);
    after.checked_sub(1).map(|index| &versions[index])
}

impl Index {
    /// The newest version at or below `lsn`; `Some` with no entry is a tombstone.
    pub fn state(&self, key: &[u8], lsn: Lsn) -> Option<(Lsn, Option<Entry>)> {
        at(self.0.read().keys.get(key)?, lsn).cloned()
    }

    pub fn get(&self, key: &[u8], lsn: Lsn) -> Option<Version> {
        match self.state(key, lsn)? {
            (lsn, Some(entry)) => Some(Version { lsn, entry }),
            _ => None,
        }
    }

    /// Writes a version; about how many bytes that takes.
    pub fn set(&self, key: &[u8], lsn: Lsn, entry: Option<Entry>) -> usize {
        let mut inner = self.0.write();
        let inner = &mut *inner;
        inner.newest = inner.newest.max(lsn);
        let is_live = entry.is_some();
        let bytes = entry_bytes(entry.as_ref());
        // Most keys are new: one search for these is worth a copy of the key for the others.
        let versions = match inner.keys.entry(key.into()) {
            btree_map::Entry::Vacant(vacant) => {
                inner.live += u64::from(is_live);
                vacant.insert(smallvec![(lsn, entry)]);
                return KEY_OVERHEAD + key.len() + bytes;
            }
            btree_map::Entry::Occupied(occupied) => occupied.into_mut(),
        };
        let (last_lsn, last) = versions.last_mut().expect("a key has a version");
        assert!(*last_lsn <= lsn, "versions are written in LSN order");
        inner.live = inner.live + u64::from(is_live) - u64::from(last.is_some());
        if *last_lsn == lsn {
            *last = entry;
            return bytes;
        }
        versions.push((lsn, entry));
        VERSION_OVERHEAD + bytes
    }

    /// Every version that is no tombstone, oldest first.
    pub fn versions(&self, key: &[u8]) -> Vec<Version> {
        let inner = self.0.read();
        let versions = inner.keys.get(key).into_iter().flatten();
        let entries = versions.filter_map(|(lsn, entry)| Some((*lsn, entry.clone()?)));
        entries.map(|(lsn, entry)| Version { lsn, entry }).collect()
    }

    /// Removes every version at or below `lsn`, at every snapshot.
    pub fn forget(&self, key: &[u8], lsn: Lsn) {
        let mut inner = self.0.write();
        let inner = &mut *inner;
        let Some(versions) = inner.keys.get_mut(key) else { return };
        let was_live = versions.last().is_some_and(|version| version.1.is_some());
        versions.retain(|version| version.0 > lsn);
        let is_live = versions.last().is_some_and(|version| version.1.is_some());
        if versions.is_empty() {
            inner.keys.remove(key);
        }
        inner.live = inner.live + u64::from(is_live) - u64::from(was_live);
    }

    /// Drops versions of `key` that no read at or above `floor` can see.
    pub fn prune(&self, key: &[u8], floor: Lsn) {
        let mut inner = self.0.write();
        let Some(versions) = inner.keys.get_mut(key) else { return };
        let visible = versions.partition_point(|version| version.0 <= floor);
        if visible > 1 {
            versions.drain(..visible - 1);
        }
    }

    /// Hands every version to `visit`: keys ascending, of each the newest first. No writer comes
    /// meanwhile: it is for trees that are sealed.
    pub fn each(
        &self,
        mut visit: impl FnMut(&[u8], Lsn, Option<&Entry>) -> Result<()>,
    ) -> Result<()> {
        for (key, versions) in &self.0.read().keys {
            for (lsn, entry) in versions.iter().rev() {
                visit(key, *lsn, entry.as_ref())?;
            }
        }
        Ok(())
    }

    /// A copy of every version.
    pub fn all(&self) -> Vec<KeyVersions> {
        let inner = self.0.read();
        inner.keys.iter().map(|(key, versions)| (key.clone(), versions.to_vec())).collect()
    }

    pub fn keys(&self) -> usize {
        self.0.read().keys.len()
    }

    /// Up to `limit` keys of `range` behind `after` in scan order, tombstones included.
    pub fn page(
        &self,
        range: &Range,
        direction: Direction,
        after: Option<&[u8]>,
        lsn: Lsn,
        limit: usize,
    ) -> Vec<Item> {
        let mut low = Bound::Included(&range.start[..]);
        let mut high = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        match (direction, after) {
            (Direction::Forward, Some(after)) if after >= &range.start[..] => {
                low = Bound::Excluded(after);
            }
            (Direction::Reverse, Some(after))
                if range.end.as_deref().is_none_or(|end| after < end) =>
            {
                high = Bound::Excluded(after);
            }
            _ => {}
        }
        if range.is_empty() || crossed(&low, &high) {
            return Vec::new();
        }
        let inner = self.0.read();
        let found = inner.keys.range::<[u8], _>((low, high));
        let seen = found.filter_map(|(key, versions)| {
            let (lsn, entry) = at(versions, lsn)?;
            Some(Item { key: key.clone(), lsn: *lsn, entry: entry.clone() })
        });
        match direction {
            Direction::Forward => seen.take(limit).collect(),
            Direction::Reverse => seen.rev().take(limit).collect(),
        }
    }

    /// Keys that exist at `lsn`; free of a scan where nothing newer was written.
    pub fn count(&self, lsn: Lsn) -> u64 {
        let inner = self.0.read();
        if inner.newest <= lsn {
            return inner.live;
        }
        let exists = |versions: &&Versions| at(versions, lsn).is_some_and(|v| v.1.is_some());
        inner.keys.values().filter(exists).count() as u64
    }
}

fn crossed(low: &Bound<&[u8]>, high: &Bound<&[u8]>) -> bool {
    match (low, high) {
        (Bound::Included(low), Bound::Excluded(high)) => low >= high,
        (Bound::Excluded(low), Bound::Excluded(high)) => low >= high,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ordered::Slot;
    use proptest::prelude::*;

    fn entry(byte: u8) -> Entry {
        Entry::with_slot(Slot::Inline(Box::new([byte])))
    }

    #[derive(Debug, Clone)]
    enum Step {
        Set(u8, Option<u8>),
        Forget(u8),
        Next,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..6u8, any::<Option<u8>>()).prop_map(|(key, value)| Step::Set(key, value)),
            1 => (0..6u8).prop_map(Step::Forget),
            4 => Just(Step::Next),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        /// Every past state reads as it was, but for what was forgotten.
        #[test]
        fn reads_at_any_lsn_match_a_model(steps in steps()) {
            let index = Index::default();
            let mut history: Vec<BTreeMap<u8, u8>> = vec![BTreeMap::new()];
            let mut lsn = 1;
            let mut now = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Set(key, value) => {
                        index.set(&[key], lsn, value.map(entry));
                        match value {
                            Some(value) => now.insert(key, value),
                            None => now.remove(&key),
                        };
                    }
                    Step::Forget(key) => {
                        index.forget(&[key], lsn);
                        now.remove(&key);
                        history.iter_mut().for_each(|state| { state.remove(&key); });
                    }
                    Step::Next => {
                        history.push(now.clone());
                        lsn += 1;
                    }
                }
            }
            history.push(now);
            for (lsn, state) in history.iter().enumerate() {
                let lsn = lsn as Lsn;
                for direction in [Direction::Forward, Direction::Reverse] {
                    let mut got: Vec<(u8, u8)> = Vec::new();
                    let mut after: Option<Box<[u8]>> = None;
                    loop {
                        let page =
                            index.page(&Range::all(), direction, after.as_deref(), lsn, 2);
                        let Some(last) = page.last() else { break };
                        after = Some(last.key.clone());
                        for item in page {
                            if let Some(Entry { slot: Slot::Inline(bytes), .. }) = item.entry {
                                got.push((item.key[0], bytes[0]));
                            }
                        }
                    }
                    let mut want: Vec<(u8, u8)> = state.iter().map(|(k, v)| (*k, *v)).collect();
                    if direction == Direction::Reverse {
                        want.reverse();
                    }
                    prop_assert_eq!(&got, &want, "at {}", lsn);
                }
                prop_assert_eq!(index.count(lsn), state.len() as u64);
            }
        }
    }

    #[test]
    fn pruning_keeps_what_the_floor_sees() {
        let index = Index::default();
        for lsn in 1..=5 {
            index.set(b"k", lsn, Some(entry(lsn as u8)));
        }
        index.prune(b"k", 3);
        assert_eq!(index.get(b"k", 3).unwrap().lsn, 3);
        assert_eq!(index.get(b"k", 2), None);
        index.set(b"k", 6, None);
        index.prune(b"k", 6);
        assert_eq!(index.state(b"k", 9), Some((6, None)), "it may hide an older layer");
    }
}
