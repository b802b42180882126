//! Vectors: by key in the ordered tree, and in memory for searching.
//!
//! Tree 0: key → the vector's bytes in the log. `index` is what a search goes through: sealed
//! segments (`segment`, made by `build`, found again by `load`) and a tail of what is newer
//! (`version`); `search` is one search. docs/design.md, "Vectors", tells the whole.
//!
//! Until somebody searches, or enough of it is to be sealed, an index is not in memory; a new
//! structure's is from its first vector on. Invariants:
//! 1. Once it is in memory it takes in every change, in LSN order.
//! 2. Changes that come while it is loaded are kept and taken in behind it.
//! 3. `graphs` are the files that the next checkpoint names, whether they are in memory or not.

pub mod build;
pub mod index;
mod load;
mod search;
mod segment;
mod version;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::error::Result;
use crate::log::Lsn;
use crate::ordered::Slot;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock};
use crate::vector::Metric;
use crate::vector::codes::Coding;
use crate::vector::file::GraphInfo;
use version::VERSION_BYTES;

pub use index::{Form, Index};
pub use load::Source;
pub use search::{Pending, Probe, Reader, nearest_of};

pub const KEYS: u16 = 0;

enum Change {
    Put(String, Vec<f32>, Slot),
    Delete(String),
    Forget(String),
}

impl Change {
    fn apply(self, index: &Index, lsn: Lsn) {
        match self {
            Self::Put(key, vector, slot) => index.put(&key, &vector, lsn, &slot),
            Self::Delete(key) => index.delete(&key, lsn),
            Self::Forget(key) => index.forget(&key, lsn),
        }
    }
}

/// What was found of a version born then; `None`: it was withdrawn with the log behind `durable`,
/// so that no snapshot sees it.
pub fn unless_withdrawn<T>(found: Result<T>, born: Lsn, durable: Lsn) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(_) if born > durable => Ok(None),
        Err(error) => Err(error),
    }
}

/// So many changes that came during a loading are taken in while others wait.
const CAUGHT_UP: usize = 256;

/// A loading that did not come to its end, for whatever reason, leaves nothing in memory.
struct Unloaded<'a> {
    vectors: &'a Searchable,
    newest: Lsn,
}

impl Drop for Unloaded<'_> {
    fn drop(&mut self) {
        let mut state = self.vectors.state.write();
        if let State::Loading(changes) = &*state {
            let newest = changes.last().map_or(self.newest, |(lsn, _)| *lsn);
            self.vectors.unsealed.fetch_add(changes.len() as u64, Ordering::Relaxed);
            *state = State::Cold(newest);
        }
    }
}

enum State {
    /// Changes up to this LSN were not taken in.
    Cold(Lsn),
    /// Changes that came since the loading began.
    Loading(Vec<(Lsn, Change)>),
    Loaded(Arc<Index>),
}

pub struct Searchable {
    form: Mutex<Form>,
    state: RwLock<State>,
    loading: Mutex<()>,
    /// Files of sealed segments, oldest first.
    graphs: Mutex<Vec<GraphInfo>>,
    /// Files that were found damaged.
    damaged: Mutex<Vec<u64>>,
    /// While it is not in memory: about how many rows no graph links.
    unsealed: AtomicU64,
    /// Somebody searched since it was opened.
    searched: AtomicBool,
}

impl Searchable {
    /// `applied`: what runs hold already; `graphs`, and how many rows are in none of them, as of
    /// the newest checkpoint.
    pub fn new(form: Form, applied: Lsn, graphs: Vec<GraphInfo>, unsealed: u64) -> Self {
        Self {
            form: Mutex::new(form),
            state: RwLock::new(State::Cold(applied)),
            loading: Mutex::new(()),
            graphs: Mutex::new(graphs),
            damaged: Mutex::default(),
            unsealed: AtomicU64::new(unsealed),
            searched: AtomicBool::new(false),
        }
    }

    pub fn put(&self, key: &str, vector: &[f32], lsn: Lsn, slot: &Slot) {
        let change = || Change::Put(key.to_owned(), vector.to_vec(), slot.clone());
        self.change(lsn, change, |index| index.put(key, vector, lsn, slot));
    }

    pub fn delete(&self, key: &str, lsn: Lsn) {
        self.change(lsn, || Change::Delete(key.to_owned()), |index| index.delete(key, lsn));
    }

    pub fn forget(&self, key: &str, lsn: Lsn) {
        self.change(lsn, || Change::Forget(key.to_owned()), |index| index.forget(key, lsn));
    }

    fn change(&self, lsn: Lsn, keep: impl FnOnce() -> Change, now: impl FnOnce(&Index)) {
        if let State::Loaded(index) = &*self.state.read() {
            return now(index);
        }
        match &mut *self.state.write() {
            State::Cold(last) => {
                *last = lsn.max(*last);
                self.unsealed.fetch_add(1, Ordering::Relaxed);
            }
            State::Loading(changes) => changes.push((lsn, keep())),
            State::Loaded(index) => now(index),
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.loaded().map_or(0, |index| index.memory_bytes())
    }

    /// Rows that no graph links; about, while they are not in memory.
    pub fn unsealed(&self) -> u64 {
        match self.loaded() {
            Some(index) => index.tail_rows() as u64,
            None => self.unsealed.load(Ordering::Relaxed),
        }
    }

    /// Whether a search walks graphs: small ones are scanned.
    pub fn walks_graphs(&self) -> bool {
        let code = self.form.lock().code_bytes();
        let graphs = self.graphs.lock();
        graphs.iter().any(|info| info.rows * code > search::SCANNED_BYTES as u64)
    }

    pub fn note_search(&self) {
        if !self.is_searched() {
            self.searched.store(true, Ordering::Relaxed);
        }
    }

    pub fn is_searched(&self) -> bool {
        self.searched.load(Ordering::Relaxed)
    }

    /// Whether much of what is in memory is dead; of files that are not, nothing is known.
    pub fn is_worn(&self) -> bool {
        self.loaded().is_some_and(|index| index.is_worn())
    }

    /// About what is in memory for want of a graph, and no build has taken up.
    pub fn waiting_bytes(&self) -> u64 {
        let form = *self.form.lock();
        match &*self.state.read() {
            State::Cold(_) => 0,
            State::Loading(changes) => {
                changes.len() as u64 * (form.row_bytes() + 4 * form.dim as u64)
            }
            State::Loaded(index) => index.waiting_rows() as u64 * form.row_bytes(),
        }
    }

    /// About what a row takes in memory.
    pub fn row_bytes(&self) -> u64 {
        self.form.lock().row_bytes()
    }

    /// Rows that graphs link.
    pub fn sealed(&self) -> u64 {
        self.graphs.lock().iter().map(|info| info.rows).sum()
    }

    pub fn graphs(&self) -> Vec<GraphInfo> {
        self.graphs.lock().clone()
    }

    /// Files that were found damaged since this was last asked; what they linked is in the tail.
    pub fn take_damaged(&self) -> Vec<u64> {
        std::mem::take(&mut self.damaged.lock())
    }

    pub fn metric(&self) -> Metric {
        self.form.lock().metric
    }

    /// The index, if it is in memory.
    pub fn loaded(&self) -> Option<Arc<Index>> {
        match &*self.state.read() {
            State::Loaded(index) => Some(Arc::clone(index)),
            _ => None,
        }
    }

    /// Codes are of this kind from the next loading on.
    pub fn recode(&self, coding: Coding) {
        if self.form.lock().coding == coding {
            return;
        }
        let _loading = self.loading.lock();
        self.form.lock().coding = coding;
        let mut state = self.state.write();
        if let State::Loaded(index) = &*state {
            self.unsealed.store(index.tail_rows() as u64, Ordering::Relaxed);
            *state = State::Cold(index.newest());
        }
    }

    /// The index, loaded if it is not in memory. `source` is asked for with the LSN up to which
    /// it is to be taken.
    pub fn index<'a>(&self, source: impl FnOnce(Lsn) -> Source<'a>) -> Result<Arc<Index>> {
        if let Some(index) = self.loaded() {
            return Ok(index);
        }
        let _loading = self.loading.lock();
        let upto = match &mut *self.state.write() {
            State::Loaded(index) => return Ok(Arc::clone(index)),
            State::Loading(_) => unreachable!("one loads at a time"),
            state @ State::Cold(_) => {
                let State::Cold(upto) = std::mem::replace(state, State::Loading(Vec::new())) else {
                    unreachable!("just matched");
                };
                upto
            }
        };
        let form = *self.form.lock();
        let mut unloaded = Unloaded { vectors: self, newest: upto };
        let loaded = source(upto).load(form, &self.graphs())?;
        let index = Arc::new(loaded.index);
        loop {
            let mut state = self.state.write();
            let State::Loading(changes) = &mut *state else { unreachable!("only this loads") };
            let some = std::mem::take(changes);
            let last = some.len() <= CAUGHT_UP;
            unloaded.newest = some.last().map_or(unloaded.newest, |(lsn, _)| *lsn);
            if last {
                some.into_iter().for_each(|(lsn, change)| change.apply(&index, lsn));
                self.graphs.lock().retain(|info| !loaded.damaged.contains(&info.uid));
                self.damaged.lock().extend(&loaded.damaged);
                *state = State::Loaded(Arc::clone(&index));
                return Ok(index);
            }
            drop(state);
            some.into_iter().for_each(|(lsn, change)| change.apply(&index, lsn));
        }
    }

    /// Takes a segment that was built and written into use. `false`: what it was made from is not
    /// in use any more.
    pub fn install(
        &self,
        built: build::Built,
        index: &Arc<Index>,
        info: Option<GraphInfo>,
    ) -> bool {
        // Nobody unloads it meanwhile; changes go on.
        let state = self.state.read();
        let is_current = matches!(&*state, State::Loaded(known) if Arc::ptr_eq(known, index));
        let obsolete = built.obsolete();
        if !is_current || !built.install(index, info.clone()) {
            return false;
        }
        let mut graphs = self.graphs.lock();
        graphs.retain(|known| !obsolete.contains(&known.uid));
        graphs.extend(info);
        true
    }
}

impl Form {
    fn code_bytes(&self) -> u64 {
        (self.dim * self.coding.component_bytes()) as u64
    }

    /// About what a row takes in memory: code, version, key, place in lists.
    pub fn row_bytes(&self) -> u64 {
        self.code_bytes() + VERSION_BYTES as u64
    }
}
