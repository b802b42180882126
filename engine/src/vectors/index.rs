//! The vectors of one structure in memory: sealed segments, and the tail of what is newer.
//!
//! Invariants:
//! 1. Every live version is listed once: in a segment whose graph reaches it, or in the tail.
//! 2. One applier changes it, in LSN order; readers take the lists as a whole and filter by
//!    snapshot. The last, open part of the tail and the lists are read under one lock, which no
//!    one holds across I/O.
//! 3. A version that is in memory no more died at or before `cold`: a reader at or above it misses
//!    nothing here, one below reads the keys' tree instead.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::segment::Segment;
use super::version::{ByKey, Rows, Version};
use crate::log::Lsn;
use crate::ordered::Slot;
use crate::sync::RwLock;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::vector::Metric;
use crate::vector::codes::{Codes, Coding};
use crate::vector::planner::Shape;

/// A part of the tail is closed at so many rows: what a search scans under the lock.
const PART_ROWS: usize = 1_024;

/// About what one takes that ended and is still listed.
const ENDED_BYTES: usize = 96;

/// What every code of a structure has in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    pub coding: Coding,
    pub metric: Metric,
    pub dim: usize,
}

impl Form {
    pub fn codes(&self, rows: usize) -> Codes {
        Codes::with_capacity(self.coding, self.metric, self.dim, rows)
    }
}

/// The lists of rows, but for the open part of the tail.
#[derive(Clone, Default)]
pub struct Lists {
    /// Oldest first.
    pub segments: Vec<Arc<Segment>>,
    /// Closed parts of the tail.
    pub closed: Vec<Arc<Rows>>,
}

pub struct Index {
    pub form: Form,
    state: RwLock<State>,
    cold: AtomicU64,
    /// Dead rows when all parts were looked at.
    looked: AtomicUsize,
    taken: AtomicUsize,
}

struct State {
    lists: Arc<Lists>,
    open: Rows,
    keys: HashSet<ByKey>,
    /// Versions that ended and are still listed, by key: what `forget` must find.
    ended: HashMap<Box<str>, Vec<Arc<Version>>>,
    /// The newest change.
    newest: Lsn,
}

impl Index {
    pub fn new(form: Form) -> Self {
        let state = State {
            lists: Arc::default(),
            open: Rows::new(form.codes(0)),
            keys: HashSet::new(),
            ended: HashMap::new(),
            newest: 0,
        };
        let [looked, taken] = [(); 2].map(|()| AtomicUsize::new(0));
        Self { form, state: RwLock::new(state), cold: AtomicU64::new(0), looked, taken }
    }

    /// What was found in files, and the tail. All of it is live as of `upto`, but for what a
    /// segment links and nobody sees.
    pub fn loaded(form: Form, segments: Vec<Arc<Segment>>, tail: Vec<Rows>, upto: Lsn) -> Self {
        let closed: Vec<_> = tail.into_iter().map(Arc::new).collect();
        let listed = segments.iter().flat_map(|segment| &segment.versions);
        let listed = listed.chain(closed.iter().flat_map(|rows| &rows.versions));
        // A stray is listed twice, and is one version all the same.
        let keys = listed.filter(|version| version.is_live()).cloned().map(ByKey).collect();
        let index = Self::new(form);
        {
            let mut state = index.state.write();
            state.keys = keys;
            state.lists = Arc::new(Lists { segments, closed });
            state.newest = upto;
        }
        index.cold.store(upto, Ordering::Release);
        index
    }

    /// A new version of `key`; the one before it dies. Of several at one LSN the last stands.
    pub fn put(&self, key: &str, vector: &[f32], lsn: Lsn, slot: &Slot) {
        let version = Version::new(key, lsn, slot.clone());
        let mut state = self.state.write();
        state.end(key, lsn);
        state.open.push(Arc::clone(&version), vector);
        state.keys.insert(ByKey(version));
        if state.open.len() >= PART_ROWS {
            state.close(self.form.codes(PART_ROWS));
        }
    }

    /// The live version of `key` dies; nothing happens where there is none.
    pub fn delete(&self, key: &str, lsn: Lsn) {
        self.state.write().end(key, lsn);
    }

    /// Every version of `key` up to here is seen at no snapshot from now on.
    pub fn forget(&self, key: &str, lsn: Lsn) {
        let mut state = self.state.write();
        state.end(key, lsn);
        if let Some(ended) = state.ended.get(key) {
            ended.iter().filter(|version| version.born <= lsn).for_each(|version| version.forget());
        }
    }

    /// A reader below it does not find everything here.
    pub fn cold(&self) -> Lsn {
        self.cold.load(Ordering::Acquire)
    }

    pub fn live(&self) -> usize {
        self.state.read().keys.len()
    }

    pub fn newest(&self) -> Lsn {
        self.state.read().newest
    }

    /// How many versions a reader at `at` finds, but for those of `overridden` keys; of one that
    /// may see older ones, more than there can be.
    pub fn answering<'a>(&self, at: Lsn, overridden: impl Iterator<Item = &'a str>) -> usize {
        let state = self.state.read();
        if at < state.newest {
            return usize::MAX;
        }
        let overridden = overridden.filter(|key| state.keys.contains(*key)).count();
        state.keys.len() - overridden
    }

    /// The live version of a key.
    pub fn find(&self, key: &str) -> Option<Arc<Version>> {
        self.state.read().keys.get(key).map(|found| Arc::clone(&found.0))
    }

    /// Every live version's key and the LSN that put it.
    pub fn each_live(&self, mut visit: impl FnMut(&str, Lsn)) {
        let state = self.state.read();
        state.keys.iter().for_each(|found| visit(&found.0.key, found.0.born));
    }

    /// Live versions that are not listed exactly once where a search comes by them.
    pub fn misplaced(&self) -> Vec<(String, Lsn)> {
        let state = self.state.read();
        let mut times: HashMap<*const Version, usize> = HashMap::new();
        let parts = state.lists.closed.iter().map(|rows| &**rows).chain([&state.open]);
        for version in parts.flat_map(|rows| &rows.versions) {
            *times.entry(Arc::as_ptr(version)).or_default() += 1;
        }
        for segment in &state.lists.segments {
            for row in (0..segment.len()).filter(|row| segment.is_answering(*row)) {
                *times.entry(Arc::as_ptr(&segment.versions[row])).or_default() += 1;
            }
        }
        let live = state.keys.iter().map(|found| &found.0);
        let misplaced = live.filter(|version| times.get(&Arc::as_ptr(version)) != Some(&1));
        misplaced.map(|version| (version.key.to_string(), version.born)).collect()
    }

    /// The lists, and what `scan` makes of the open part of the tail that goes with them.
    pub fn read<T>(&self, scan: impl FnOnce(&Rows) -> T) -> (Arc<Lists>, T) {
        let state = self.state.read();
        (Arc::clone(&state.lists), scan(&state.open))
    }

    /// Segments, oldest first, and the tail, as the planner sees them.
    pub fn shapes(&self) -> (Vec<Shape>, Shape) {
        let (lists, open) = self.read(|open| (open.len(), open.live()));
        let segments = lists.segments.iter().map(|segment| segment.shape()).collect();
        let rows = open.0 + lists.closed.iter().map(|rows| rows.len()).sum::<usize>();
        let live = open.1 + lists.closed.iter().map(|rows| rows.live()).sum::<usize>();
        (segments, Shape { rows, dead: rows - live })
    }

    /// Whether so many rows are dead that some segment, or the tail, may be worn. Once all parts
    /// were looked at in vain, many more must die before that is worth its time again.
    pub fn is_worn(&self) -> bool {
        let (dead, rows) = self.dead();
        let looked = self.looked.load(Ordering::Relaxed);
        dead * 4 > rows && dead >= looked + rows / 16
    }

    /// All of it was looked at, and nothing was worn.
    pub fn note_looked(&self) {
        self.looked.store(self.dead().0, Ordering::Relaxed);
    }

    /// Dead rows, and all.
    fn dead(&self) -> (usize, usize) {
        let state = self.state.read();
        let segments: usize = state.lists.segments.iter().map(|segment| segment.len()).sum();
        let tail: usize = state.lists.closed.iter().map(|rows| rows.len()).sum();
        let rows = segments + tail + state.open.len();
        (rows - state.keys.len().min(rows), rows)
    }

    /// Rows of the tail that no build under way has taken up.
    pub fn waiting_rows(&self) -> usize {
        self.tail_rows().saturating_sub(self.taken.load(Ordering::Relaxed))
    }

    /// A build has taken up so many rows of the tail; 0: there is none.
    pub fn note_taken(&self, rows: usize) {
        self.taken.store(rows, Ordering::Relaxed);
    }

    /// Live rows that were born by then and are neither in the oldest segment nor its strays.
    pub fn undrained(&self, upto: Lsn) -> usize {
        let (lists, open) = self.read(|open| open.versions.clone());
        let strays: HashSet<*const Version> = lists
            .segments
            .first()
            .map(|oldest| {
                oldest.strays.iter().map(|row| Arc::as_ptr(&oldest.versions[*row as usize]))
            })
            .map(Iterator::collect)
            .unwrap_or_default();
        let others = lists.segments.iter().skip(1).flat_map(|segment| segment.listed());
        let tail = lists.closed.iter().flat_map(|rows| &rows.versions).chain(&open);
        let due = |version: &&Arc<Version>| {
            version.is_live() && version.born <= upto && !strays.contains(&Arc::as_ptr(version))
        };
        others.chain(tail).filter(due).count()
    }

    /// Rows a search scans.
    pub fn tail_rows(&self) -> usize {
        let (lists, open) = self.read(Rows::len);
        open + lists.closed.iter().map(|rows| rows.len()).sum::<usize>()
    }

    /// Closes the open part of the tail, so that it can be sealed.
    pub fn close_part(&self) -> Arc<Lists> {
        let mut state = self.state.write();
        if !state.open.is_empty() {
            state.close(self.form.codes(0));
        }
        Arc::clone(&state.lists)
    }

    /// Puts `made`, and `tail` in front of what came meanwhile, in the place of these segments,
    /// the newest ones, and these parts of the tail, the oldest ones. `false`: they are not what
    /// is in use.
    pub fn replace(&self, old: &Lists, made: Option<Arc<Segment>>, tail: Option<Rows>) -> bool {
        let tail = tail.filter(|rows| !rows.is_empty()).map(Arc::new);
        let gone = gone(old, made.as_deref(), tail.as_deref());
        let mut state = self.state.write();
        let lists = &state.lists;
        let kept = lists.segments.len().checked_sub(old.segments.len());
        let is_current = kept.is_some_and(|kept| same(&lists.segments[kept..], &old.segments))
            && lists.closed.len() >= old.closed.len()
            && same(&lists.closed[..old.closed.len()], &old.closed);
        let Some(kept) = kept.filter(|_| is_current) else { return false };
        let mut segments = lists.segments[..kept].to_vec();
        segments.extend(made);
        let closed = tail.into_iter();
        let closed = closed.chain(lists.closed[old.closed.len()..].iter().cloned()).collect();
        // Before the lists: who takes them asks for it afterwards.
        let cold = gone.iter().map(|version| version.died()).max().unwrap_or(0);
        self.cold.fetch_max(cold, Ordering::AcqRel);
        state.lists = Arc::new(Lists { segments, closed });
        drop(state);
        for some in gone.chunks(PART_ROWS) {
            let mut state = self.state.write();
            some.iter().for_each(|version| state.unlist(version));
        }
        true
    }

    pub fn memory_bytes(&self) -> usize {
        let state = self.state.read();
        let segments = state.lists.segments.iter().map(|segment| segment.memory_bytes());
        let closed = state.lists.closed.iter().map(|rows| rows.memory_bytes());
        segments.chain(closed).sum::<usize>()
            + state.open.memory_bytes()
            + state.keys.capacity() * (size_of::<ByKey>() + 1)
            + state.ended.len() * ENDED_BYTES
    }
}

/// Versions that were listed and are not any more. They ended before what takes their place was
/// begun.
fn gone(old: &Lists, made: Option<&Segment>, tail: Option<&Rows>) -> Vec<Arc<Version>> {
    let listed = made.into_iter().flat_map(|made| &made.versions);
    let listed = listed.chain(tail.into_iter().flat_map(|rows| &rows.versions));
    let listed: HashSet<*const Version> = listed.map(Arc::as_ptr).collect();
    let were = old.segments.iter().flat_map(|segment| segment.listed());
    let were = were.chain(old.closed.iter().flat_map(|rows| &rows.versions));
    let gone = were.filter(|version| !listed.contains(&Arc::as_ptr(version)));
    let gone: Vec<_> = gone.cloned().collect();
    debug_assert!(gone.iter().all(|version| !version.is_live()), "a live version is listed");
    gone
}

fn same<T>(known: &[Arc<T>], others: &[Arc<T>]) -> bool {
    known.len() == others.len() && known.iter().zip(others).all(|(a, b)| Arc::ptr_eq(a, b))
}

impl State {
    fn end(&mut self, key: &str, lsn: Lsn) {
        self.newest = self.newest.max(lsn);
        let Some(ByKey(version)) = self.keys.take(key) else { return };
        assert!(version.born <= lsn, "a change of {key:?} at {lsn} came after {}", version.born);
        version.end(lsn);
        self.ended.entry(key.into()).or_default().push(version);
    }

    fn close(&mut self, codes: Codes) {
        let closed = std::mem::replace(&mut self.open, Rows::new(codes));
        let mut lists = Lists::clone(&self.lists);
        lists.closed.push(Arc::new(closed));
        self.lists = Arc::new(lists);
    }

    /// A version that ended is in no list any more.
    fn unlist(&mut self, version: &Arc<Version>) {
        if let Some(ended) = self.ended.get_mut(&*version.key) {
            ended.retain(|known| !Arc::ptr_eq(known, version));
            if ended.is_empty() {
                self.ended.remove(&*version.key);
            }
        }
    }
}
