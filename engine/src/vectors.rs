//! Vectors: by key in the ordered tree, and in memory for searching once somebody searches.
//!
//! Tree 0: key → the vector's bytes in the log. The tail, which a search scans, is loaded from the
//! tree by the first search; a database that only writes holds none of it. Invariants:
//! 1. Once the tail is loaded it takes in every change, in LSN order.
//! 2. Changes that come while it is loaded are kept and taken in behind it.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::error::Result;
use crate::log::Lsn;
use crate::ordered::{Ordered, Slot};
use crate::values::Values;
use crate::vector::tail::Tail;
use crate::vector::{self, Metric};

pub const KEYS: u16 = 0;

enum Change {
    Put(String, Vec<f32>),
    Delete(String),
    Forget(String),
}

enum State {
    /// Changes up to this LSN were not taken in.
    Cold(Lsn),
    /// Changes that came since the loading began.
    Loading(Vec<(Lsn, Change)>),
    Loaded(Arc<Tail>),
}

pub struct Searchable {
    dim: usize,
    metric: Metric,
    state: RwLock<State>,
    loading: Mutex<()>,
}

impl Searchable {
    /// `applied`: what runs hold already.
    pub fn new(dim: usize, metric: Metric, applied: Lsn) -> Self {
        let state = RwLock::new(State::Cold(applied));
        Self { dim, metric, state, loading: Mutex::new(()) }
    }

    pub fn put(&self, key: &str, vector: &[f32], lsn: Lsn) {
        let change = || Change::Put(key.to_owned(), vector.to_vec());
        self.change(lsn, change, |tail| tail.put(key, vector, lsn));
    }

    pub fn delete(&self, key: &str, lsn: Lsn) {
        self.change(lsn, || Change::Delete(key.to_owned()), |tail| tail.delete(key, lsn));
    }

    pub fn forget(&self, key: &str, lsn: Lsn) {
        self.change(lsn, || Change::Forget(key.to_owned()), |tail| tail.forget(key, lsn));
    }

    fn change(&self, lsn: Lsn, keep: impl FnOnce() -> Change, now: impl FnOnce(&Tail)) {
        if let State::Loaded(tail) = &*self.state.read() {
            return now(tail);
        }
        match &mut *self.state.write() {
            State::Cold(last) => *last = lsn.max(*last),
            State::Loading(changes) => changes.push((lsn, keep())),
            State::Loaded(tail) => now(tail),
        }
    }

    pub fn prune(&self, floor: Lsn) {
        if let State::Loaded(tail) = &*self.state.read() {
            tail.prune(floor);
        }
    }

    pub fn memory_bytes(&self) -> usize {
        match &*self.state.read() {
            State::Loaded(tail) => tail.memory_bytes(),
            _ => 0,
        }
    }

    /// The tail, if it is loaded.
    pub fn loaded(&self) -> Option<Arc<Tail>> {
        match &*self.state.read() {
            State::Loaded(tail) => Some(Arc::clone(tail)),
            _ => None,
        }
    }

    /// The tail, loaded if it is not yet.
    /// What lies above `durable` may have been lost by a log that failed since.
    pub fn tail(&self, ordered: &Ordered, values: &Values, durable: Lsn) -> Result<Arc<Tail>> {
        if let Some(tail) = self.loaded() {
            return Ok(tail);
        }
        let _loading = self.loading.lock();
        let upto = match &mut *self.state.write() {
            State::Loaded(tail) => return Ok(Arc::clone(tail)),
            State::Loading(_) => unreachable!("one loads at a time"),
            state @ State::Cold(_) => {
                let State::Cold(upto) = std::mem::replace(state, State::Loading(Vec::new())) else {
                    unreachable!("just matched");
                };
                upto
            }
        };
        let tail = Tail::new(self.dim, self.metric);
        let loaded = load(&tail, (upto, durable), ordered, values);
        let mut state = self.state.write();
        let State::Loading(changes) = &mut *state else { unreachable!("only this loads") };
        if let Err(error) = loaded {
            let newest = changes.last().map_or(upto, |(lsn, _)| *lsn);
            *state = State::Cold(newest.max(upto));
            return Err(error);
        }
        for (lsn, change) in changes.drain(..) {
            match change {
                Change::Put(key, vector) => tail.put(&key, &vector, lsn),
                Change::Delete(key) => tail.delete(&key, lsn),
                Change::Forget(key) => tail.forget(&key, lsn),
            }
        }
        let tail = Arc::new(tail);
        *state = State::Loaded(Arc::clone(&tail));
        Ok(tail)
    }
}

/// Every version up to an LSN, in the order of the log, so that the log is read forward.
fn load(
    tail: &Tail,
    (upto, durable): (Lsn, Lsn),
    ordered: &Ordered,
    values: &Values,
) -> Result<()> {
    let mut versions: Vec<(Lsn, String, Option<Slot>)> = Vec::new();
    ordered.history(KEYS, |key, lsn, entry| {
        if lsn <= upto {
            let key = String::from_utf8_lossy(key).into_owned();
            versions.push((lsn, key, entry.map(|entry| entry.slot)));
        }
        Ok(())
    })?;
    versions.sort_by_key(|version| version.0);
    for (lsn, key, slot) in versions {
        let Some(slot) = slot else {
            tail.delete(&key, lsn);
            continue;
        };
        match values.read(&slot) {
            Ok(bytes) => tail.put(&key, &vector::from_bytes(&bytes)?, lsn),
            // Withdrawn: no snapshot sees it.
            Err(_) if lsn > durable => tail.delete(&key, lsn),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
