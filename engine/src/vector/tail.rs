//! The tail of one vector structure: every version of every vector in memory, searched exactly.
//!
//! Invariants:
//! 1. A version lives from `born` to `died` (`LIVE` while nothing replaced it): a reader at
//!    snapshot `at` sees it when born <= at < died. At most one version of a key is visible at
//!    any snapshot, and `Inner::keys` lists a key's versions by `born`.
//! 2. LSNs never decrease, key by key: one applier writes, in commit order, and many readers read.
//! 3. A free slot is visible at no snapshot and its floats are zero: what was forgotten or pruned
//!    is in no memory of the tail. Chunks never move, so no copy stays behind either.
//! 4. `search` returns min(k, matching) hits, ascending by (distance, key).
//!
//! Vectors have passed `vector::check` with this dimension and metric before they come here, and
//! so has a query. A search holds the read lock and calls `only` under it: `only` does no I/O and
//! never comes back to the same tail. Slots are reused; their memory is not given back.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;

use super::Metric;
use super::distance::{self, Query};
use super::nearest::{Hit, Nearest};

/// A transaction's own uncommitted changes by key, `None` where it deleted; they override.
pub type Pending = BTreeMap<String, Option<Vec<f32>>>;

/// `died` of a version that nothing replaced.
const LIVE: u64 = u64::MAX;
/// `born` of a free slot.
const FREE: u64 = u64::MAX;
/// A chunk has at most this many vectors and about this many components.
const CHUNK_VECTORS_MAX: usize = 1_024;
const CHUNK_FLOATS: usize = 512 << 10;

pub struct Tail {
    dim: usize,
    metric: Metric,
    inner: RwLock<Inner>,
}

struct Inner {
    dim: usize,
    chunk_vectors: usize,
    chunks: Vec<Chunk>,
    /// Slots handed out so far; slot / chunk_vectors is its chunk.
    slots: usize,
    free: Vec<u32>,
    keys: BTreeMap<Arc<str>, Vec<u32>>,
    /// Versions that ended, by when: what `prune` walks.
    ended: BTreeSet<(u64, u32)>,
    live: usize,
    /// The newest LSN applied; at or above it, exactly the live versions are visible.
    newest: u64,
    key_bytes: usize,
}

/// Versions side by side, one column for each of their parts.
struct Chunk {
    floats: Box<[f32]>,
    versions: Vec<Version>,
}

struct Version {
    born: u64,
    died: u64,
    scale: f32,
    key: Arc<str>,
}

impl Version {
    fn visible(&self, at: u64) -> bool {
        self.born <= at && (at < self.died || self.died == LIVE)
    }
}

impl Tail {
    pub fn new(dim: usize, metric: Metric) -> Self {
        assert!(dim > 0, "a vector has dimensions");
        let chunk_vectors = (CHUNK_FLOATS / dim).clamp(1, CHUNK_VECTORS_MAX);
        let inner = Inner {
            dim,
            chunk_vectors,
            chunks: Vec::new(),
            slots: 0,
            free: Vec::new(),
            keys: BTreeMap::new(),
            ended: BTreeSet::new(),
            live: 0,
            newest: 0,
            key_bytes: 0,
        };
        Self { dim, metric, inner: RwLock::new(inner) }
    }

    pub fn dim(&self) -> usize {
        self.dim
    }

    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// A new version of `key`, born at `lsn`; the one before it dies there. Of several at one LSN
    /// the last stands.
    pub fn put(&self, key: &str, vector: &[f32], lsn: u64) {
        assert_eq!(vector.len(), self.dim, "vectors are checked before they are applied");
        let scale = distance::scale(self.metric, vector);
        let mut inner = self.inner.write();
        inner.end(key, lsn);
        inner.begin(key, vector, scale, lsn);
    }

    /// The live version of `key` dies at `lsn`; nothing happens where there is none.
    pub fn delete(&self, key: &str, lsn: u64) {
        self.inner.write().end(key, lsn);
    }

    /// Removes every version of `key` born at or before `lsn`, at every snapshot.
    pub fn forget(&self, key: &str, lsn: u64) {
        self.inner.write().forget(key, lsn);
    }

    /// Drops the versions that no snapshot at or above `floor` sees.
    pub fn prune(&self, floor: u64) {
        self.inner.write().prune(floor);
    }

    /// The vector as given and the LSN that put it.
    pub fn get(&self, key: &str, at: u64) -> Option<(Vec<f32>, u64)> {
        let inner = self.inner.read();
        let slot = inner.visible(key, at)?;
        Some((inner.floats(slot).to_vec(), inner.version(slot).born))
    }

    pub fn contains(&self, key: &str, at: u64) -> bool {
        self.inner.read().visible(key, at).is_some()
    }

    /// Vectors visible at a snapshot: known at the newest one, counted at an older one.
    pub fn count(&self, at: u64) -> usize {
        let inner = self.inner.read();
        if at >= inner.newest {
            return inner.live;
        }
        let versions = inner.chunks.iter().flat_map(|chunk| &chunk.versions);
        versions.filter(|version| version.visible(at)).count()
    }

    /// The next `limit` keys visible at a snapshot, in order, with the LSN that put each.
    pub fn page(&self, after: Option<&str>, at: u64, limit: usize) -> Vec<(String, u64)> {
        let inner = self.inner.read();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = inner.keys.range::<str, _>((start, Bound::Unbounded));
        keys.filter_map(|(key, slots)| {
            let slot = inner.visible_of(slots, at)?;
            Some((key.to_string(), inner.version(slot).born))
        })
        .take(limit)
        .collect()
    }

    /// The `k` nearest of all vectors at a snapshot, of those whose key `only` accepts.
    pub fn search(
        &self,
        query: &[f32],
        k: usize,
        at: u64,
        only: Option<&dyn Fn(&str) -> bool>,
        pending: &Pending,
    ) -> Vec<Hit> {
        assert_eq!(query.len(), self.dim, "a query is checked before it is searched");
        if k == 0 {
            return Vec::new();
        }
        let query = Query::new(self.metric, query);
        let accepts = |key: &str| only.is_none_or(|only| only(key));
        let inner = self.inner.read();
        let mut nearest = Nearest::new(k);
        for (key, vector) in pending {
            if let Some(vector) = vector {
                let distance = query.distance(vector, distance::scale(self.metric, vector));
                nearest.offer(distance, key, || accepts(key));
            }
        }
        for chunk in &inner.chunks {
            let rows = chunk.floats.chunks_exact(self.dim);
            for (version, row) in chunk.versions.iter().zip(rows) {
                if version.visible(at) {
                    let key = &*version.key;
                    nearest.offer(query.distance(row, version.scale), key, || {
                        !pending.contains_key(key) && accepts(key)
                    });
                }
            }
        }
        nearest.into_hits()
    }

    /// The `k` nearest at a snapshot among `keys`: for a filter that few keys pass.
    pub fn search_keys(
        &self,
        query: &[f32],
        k: usize,
        at: u64,
        keys: &[impl AsRef<str>],
        pending: &Pending,
    ) -> Vec<Hit> {
        assert_eq!(query.len(), self.dim, "a query is checked before it is searched");
        if k == 0 {
            return Vec::new();
        }
        let query = Query::new(self.metric, query);
        let inner = self.inner.read();
        let mut nearest = Nearest::new(k);
        let mut seen = HashSet::with_capacity(keys.len());
        for key in keys.iter().map(AsRef::as_ref).filter(|key| seen.insert(*key)) {
            let distance = match pending.get(key) {
                Some(None) => continue,
                Some(Some(vector)) => query.distance(vector, distance::scale(self.metric, vector)),
                None => match inner.visible(key, at) {
                    Some(slot) => query.distance(inner.floats(slot), inner.version(slot).scale),
                    None => continue,
                },
            };
            nearest.offer(distance, key, || true);
        }
        nearest.into_hits()
    }

    /// What the tail holds in memory, about.
    pub fn memory_bytes(&self) -> usize {
        /// One key's node share, list of versions and counts of its `Arc`.
        const KEY_OVERHEAD: usize = 96;
        let inner = self.inner.read();
        let chunk = |chunk: &Chunk| {
            size_of_val(&*chunk.floats) + chunk.versions.capacity() * size_of::<Version>()
        };
        inner.chunks.iter().map(chunk).sum::<usize>()
            + inner.key_bytes
            + inner.keys.len() * KEY_OVERHEAD
            + inner.ended.len() * size_of::<(u64, u32)>()
            + inner.free.capacity() * size_of::<u32>()
    }
}

impl Inner {
    fn place(&self, slot: u32) -> (usize, usize) {
        (slot as usize / self.chunk_vectors, slot as usize % self.chunk_vectors)
    }

    fn version(&self, slot: u32) -> &Version {
        let (chunk, row) = self.place(slot);
        &self.chunks[chunk].versions[row]
    }

    fn version_mut(&mut self, slot: u32) -> &mut Version {
        let (chunk, row) = self.place(slot);
        &mut self.chunks[chunk].versions[row]
    }

    fn floats(&self, slot: u32) -> &[f32] {
        let (chunk, row) = self.place(slot);
        &self.chunks[chunk].floats[row * self.dim..][..self.dim]
    }

    fn floats_mut(&mut self, slot: u32) -> &mut [f32] {
        let (chunk, row) = self.place(slot);
        let dim = self.dim;
        &mut self.chunks[chunk].floats[row * dim..][..dim]
    }

    fn visible(&self, key: &str, at: u64) -> Option<u32> {
        self.visible_of(self.keys.get(key)?, at)
    }

    /// Of a key's versions by `born`, the one that a snapshot sees.
    fn visible_of(&self, slots: &[u32], at: u64) -> Option<u32> {
        let after = slots.partition_point(|slot| self.version(*slot).born <= at);
        let slot = slots[..after].last()?;
        self.version(*slot).visible(at).then_some(*slot)
    }

    /// The live version of `key` dies at `lsn`, and goes if it was born there too: no snapshot
    /// ever sees it.
    fn end(&mut self, key: &str, lsn: u64) {
        self.newest = self.newest.max(lsn);
        let Some(&slot) = self.keys.get(key).and_then(|slots| slots.last()) else { return };
        let version = self.version_mut(slot);
        let last = if version.died == LIVE { version.born } else { version.died };
        assert!(last <= lsn, "a change of {key:?} at {lsn} came after one at {last}");
        if version.died != LIVE {
            return;
        }
        version.died = lsn;
        let stillborn = version.born == lsn;
        self.live -= 1;
        if stillborn {
            self.unlink(key, |slots| slots.truncate(slots.len() - 1));
            self.release(slot);
        } else {
            self.ended.insert((lsn, slot));
        }
    }

    fn begin(&mut self, key: &str, vector: &[f32], scale: f32, lsn: u64) {
        let shared = match self.keys.get_key_value(key) {
            Some((shared, _)) => Arc::clone(shared),
            None => {
                self.key_bytes += key.len();
                Arc::from(key)
            }
        };
        let version = Version { born: lsn, died: LIVE, scale, key: Arc::clone(&shared) };
        let slot = self.acquire(version);
        self.floats_mut(slot).copy_from_slice(vector);
        self.keys.entry(shared).or_default().push(slot);
        self.live += 1;
    }

    fn forget(&mut self, key: &str, lsn: u64) {
        self.newest = self.newest.max(lsn);
        let Some(slots) = self.keys.get(key) else { return };
        let gone = slots.partition_point(|slot| self.version(*slot).born <= lsn);
        let gone = slots[..gone].to_vec();
        self.unlink(key, |slots| drop(slots.drain(..gone.len())));
        for slot in gone {
            let died = self.version(slot).died;
            if died == LIVE {
                self.live -= 1;
            } else {
                self.ended.remove(&(died, slot));
            }
            self.release(slot);
        }
    }

    fn prune(&mut self, floor: u64) {
        while let Some(&(died, slot)) = self.ended.first() {
            if died > floor {
                return;
            }
            self.ended.pop_first();
            let key = Arc::clone(&self.version(slot).key);
            self.unlink(&key, |slots| slots.retain(|other| *other != slot));
            self.release(slot);
        }
    }

    /// Takes versions off a key's list, and the key with its last one.
    fn unlink(&mut self, key: &str, change: impl FnOnce(&mut Vec<u32>)) {
        let slots = self.keys.get_mut(key).expect("a version's key is listed");
        change(slots);
        if slots.is_empty() {
            self.keys.remove(key);
            self.key_bytes -= key.len();
        }
    }

    fn acquire(&mut self, version: Version) -> u32 {
        if let Some(slot) = self.free.pop() {
            *self.version_mut(slot) = version;
            return slot;
        }
        let slot = u32::try_from(self.slots).expect("memory ends before 2^32 vectors");
        let (chunk, _) = self.place(slot);
        if chunk == self.chunks.len() {
            let floats = vec![0.0; self.chunk_vectors * self.dim].into_boxed_slice();
            self.chunks.push(Chunk { floats, versions: Vec::new() });
        }
        self.chunks[chunk].versions.push(version);
        self.slots += 1;
        slot
    }

    fn release(&mut self, slot: u32) {
        self.floats_mut(slot).fill(0.0);
        *self.version_mut(slot) = Version { born: FREE, died: 0, scale: 0.0, key: Arc::from("") };
        self.free.push(slot);
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Pending = Pending::new();

    fn keys(hits: &[Hit]) -> Vec<&str> {
        hits.iter().map(|hit| hit.key.as_str()).collect()
    }

    /// Whether every free slot is empty and every list says what the versions say.
    pub fn assert_sound(tail: &Tail) {
        let inner = tail.inner.read();
        for slot in &inner.free {
            assert!(inner.floats(*slot).iter().all(|float| *float == 0.0));
            assert!(!inner.version(*slot).visible(u64::MAX));
        }
        let listed: usize = inner.keys.values().map(Vec::len).sum();
        assert_eq!(listed + inner.free.len(), inner.slots);
        assert_eq!(listed, inner.live + inner.ended.len());
        assert_eq!(inner.key_bytes, inner.keys.keys().map(|key| key.len()).sum::<usize>());
        for slots in inner.keys.values() {
            assert!(!slots.is_empty());
            for pair in slots.windows(2) {
                assert!(inner.version(pair[0]).died <= inner.version(pair[1]).born);
            }
        }
    }

    #[test]
    fn a_snapshot_sees_the_version_of_its_time() {
        let tail = Tail::new(2, Metric::L2);
        tail.put("a", &[1.0, 0.0], 5);
        tail.put("a", &[2.0, 0.0], 8);
        tail.delete("a", 9);
        tail.delete("never", 9);
        tail.put("a", &[3.0, 0.0], 12);
        let seen = [4, 5, 7, 8, 9, 11, 12, u64::MAX].map(|at| tail.get("a", at));
        let expected = [None, Some((1.0, 5)), Some((1.0, 5)), Some((2.0, 8)), None, None]
            .into_iter()
            .chain([Some((3.0, 12)), Some((3.0, 12))])
            .map(|version| version.map(|(x, born)| (vec![x, 0.0], born)));
        assert_eq!(seen.to_vec(), expected.collect::<Vec<_>>());
        assert_eq!((tail.count(7), tail.count(9), tail.count(100)), (1, 0, 1));
        assert_sound(&tail);
    }

    #[test]
    fn the_last_change_of_one_commit_stands() {
        let tail = Tail::new(1, Metric::Dot);
        tail.put("a", &[1.0], 3);
        tail.put("a", &[2.0], 3);
        assert_eq!(tail.get("a", 3), Some((vec![2.0], 3)));
        tail.delete("a", 3);
        assert!(!tail.contains("a", 3) && !tail.contains("a", u64::MAX));
        tail.put("a", &[4.0], 3);
        assert_eq!(tail.get("a", 3), Some((vec![4.0], 3)));
        assert_eq!(tail.inner.read().slots, 1);
        assert_sound(&tail);
    }

    #[test]
    #[should_panic(expected = "came after")]
    fn a_change_out_of_order_is_a_broken_invariant() {
        let tail = Tail::new(1, Metric::Dot);
        tail.put("a", &[1.0], 3);
        tail.put("a", &[1.0], 2);
    }

    #[test]
    fn equal_distances_are_ordered_by_key() {
        for metric in Metric::ALL {
            let tail = Tail::new(3, metric);
            for key in ["d", "b", "e", "a", "c"] {
                tail.put(key, &[1.0, 2.0, 2.0], 1);
            }
            let pending = Pending::from([("bb".to_owned(), Some(vec![1.0, 2.0, 2.0]))]);
            let hits = tail.search(&[2.0, 1.0, 0.0], 4, 1, None, &pending);
            assert_eq!(keys(&hits), ["a", "b", "bb", "c"]);
            assert!(hits.iter().all(|hit| hit.distance == hits[0].distance));
        }
        let tail = Tail::new(2, Metric::Dot);
        tail.put("b", &[0.0, 1.0], 1);
        tail.put("a", &[0.0, -1.0], 1);
        tail.put("c", &[-0.0, 1.0], 1);
        assert_eq!(keys(&tail.search(&[1.0, 0.0], 3, 1, None, &NOTHING)), ["a", "b", "c"]);
    }

    #[test]
    fn forgotten_and_pruned_floats_are_gone_from_memory() {
        let tail = Tail::new(3, Metric::L2);
        tail.put("secret", &[42.0, 42.0, 42.0], 1);
        tail.put("secret", &[43.0, 43.0, 43.0], 2);
        tail.put("other", &[1.0, 1.0, 1.0], 2);
        tail.put("secret", &[7.0, 7.0, 7.0], 4);
        tail.forget("secret", 3);
        assert_eq!(tail.get("secret", 1), None);
        assert_eq!(tail.get("secret", 3), None);
        assert_eq!(tail.get("secret", 4), Some((vec![7.0; 3], 4)));
        assert_eq!(tail.get("other", 2), Some((vec![1.0; 3], 2)));
        tail.delete("secret", 5);
        tail.prune(4);
        assert!(tail.contains("secret", 4));
        tail.prune(5);
        assert!(!tail.contains("secret", 4));
        let inner = tail.inner.read();
        let held: Vec<f32> = inner.chunks[0].floats.iter().copied().filter(|x| *x != 0.0).collect();
        assert_eq!(held, [1.0; 3]);
        drop(inner);
        assert_sound(&tail);
    }

    #[test]
    fn freed_slots_are_used_again() {
        let tail = Tail::new(4, Metric::L2);
        for lsn in 1..5_000 {
            tail.put(&format!("key {}", lsn % 7), &[lsn as f32; 4], lsn);
            tail.prune(lsn);
        }
        assert!(tail.inner.read().slots <= 8);
        assert_eq!(tail.count(u64::MAX), 7);
        let before = tail.memory_bytes();
        (0..3_000).for_each(|n| tail.put(&format!("more {n}"), &[1.0; 4], 5_000));
        assert!(tail.memory_bytes() > before + 3_000 * 16);
        assert_eq!(tail.page(Some("key 5"), 5_000, 2).len(), 2);
    }

    #[test]
    fn readers_see_whole_commits_while_a_writer_goes_on() {
        use std::sync::atomic::{AtomicU64, Ordering};
        let (tail, published) = (Tail::new(3, Metric::L2), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while published.load(Ordering::Acquire) < 2_000 {
                        let at = published.load(Ordering::Acquire);
                        let hits = tail.search(&[at as f32; 3], 9, at, None, &NOTHING);
                        let expected: &[&str] = if at == 0 { &[] } else { &["a", "b"] };
                        assert_eq!(keys(&hits), expected);
                        assert!(hits.iter().all(|hit| hit.distance == 0.0));
                    }
                });
            }
            for lsn in 1..=2_000 {
                tail.put("b", &[lsn as f32; 3], lsn);
                tail.put("a", &[lsn as f32; 3], lsn);
                published.store(lsn, Ordering::Release);
            }
        });
        assert_sound(&tail);
    }

    #[test]
    fn large_vectors_have_small_chunks() {
        let dim = 65_536;
        let tail = Tail::new(dim, Metric::Dot);
        for (lsn, key) in (1..).zip(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]) {
            tail.put(key, &vec![lsn as f32; dim], lsn);
        }
        assert_eq!(tail.inner.read().chunks.len(), 2);
        let hits = tail.search(&vec![1.0; dim], 2, 10, None, &NOTHING);
        assert_eq!(keys(&hits), ["j", "i"]);
    }

    #[test]
    #[ignore = "a measurement: cargo test --release -- --ignored --nocapture scan_speed"]
    fn scan_speed() {
        let (count, dim) = (50_000, 384);
        let tail = Tail::new(dim, Metric::Cosine);
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        for number in 0..count {
            let vector: Vec<f32> = (0..dim).map(|_| next()).collect();
            tail.put(&format!("key-{number:06}"), &vector, number);
        }
        let query: Vec<f32> = (0..dim).map(|_| next()).collect();
        let started = std::time::Instant::now();
        for _ in 0..20 {
            assert_eq!(tail.search(&query, 10, count, None, &NOTHING).len(), 10);
        }
        println!("{count} x {dim}: {:?} a search", started.elapsed() / 20);
        println!("{} bytes", tail.memory_bytes());
    }
}
