//! What is no structure's own: when and where commits were, which transactions, which epochs.
//!
//! Trees: 0 LSN → time and place of the record; 1 transaction id → mark, at the LSN it committed
//! as; 2 first LSN of an epoch that committed something → its number.

use std::sync::Arc;

use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::log::reader::Epochs;
use crate::log::record::{Commit, TxnId};
use crate::log::{Lsn, Pointer};
use crate::ordered::run::Run;
use crate::ordered::{Direction, Entry, Ordered, Range, Slot};
use crate::sync::atomic::{AtomicU64, Ordering};

/// The ledger's number among the structures' (0 is the log's own).
pub const LEDGER: u32 = 0;

const COMMITS: u16 = 0;
const TRANSACTIONS: u16 = 1;
const EPOCHS: u16 = 2;
const TREES: usize = 3;

pub struct Ledger {
    ordered: Ordered,
    epochs: Arc<Epochs>,
    /// The newest epoch in tree 2.
    recorded: AtomicU64,
    /// Commits up to here are in its runs.
    applied: AtomicU64,
}

impl Ledger {
    /// `runs`, newest first, hold everything up to `applied`.
    pub fn new(runs: Vec<Arc<Run>>, applied: Lsn, epochs: Arc<Epochs>) -> Self {
        let ordered = Ordered::new(TREES, runs);
        let (recorded, applied) = (AtomicU64::new(0), AtomicU64::new(applied));
        Self { ordered, epochs, recorded, applied }
    }

    pub fn applied(&self) -> Lsn {
        self.applied.load(Ordering::Acquire)
    }

    pub fn set_applied(&self, lsn: Lsn) {
        self.applied.fetch_max(lsn, Ordering::AcqRel);
    }

    pub fn ordered(&self) -> &Ordered {
        &self.ordered
    }

    /// Takes what another ledger of the same commits holds in place of its own.
    pub fn replace(&self, other: &Ledger) {
        self.ordered.replace(&other.ordered);
        self.applied.store(other.applied(), Ordering::Release);
    }

    /// Whether a tree is asked for single keys in no order.
    pub fn is_sought(tree: u16) -> bool {
        tree == TRANSACTIONS
    }

    /// Makes the history of epochs known to the readers of the log.
    pub fn load_epochs(&self) -> Result<()> {
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let (all, forward) = (Range::all(), Direction::Forward);
            let page =
                self.ordered.page(EPOCHS, &all, forward, after.as_deref(), Lsn::MAX, 1_024)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.clone());
            for item in page {
                let Some(entry) = item.entry else { continue };
                let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes);
                let (Ok(first), Ok(epoch)) = (number(&item.key), number(&entry.meta)) else {
                    return Err(Error::corruption("an epoch in the ledger has another shape"));
                };
                self.epochs.add(epoch, first);
                self.recorded.store(epoch, Ordering::Relaxed);
            }
        }
    }

    pub fn record(&self, commit: &Commit) {
        let lsn = commit.lsn;
        if lsn <= self.applied() {
            return;
        }
        let entry =
            Entry::with_meta(commit.time.to_le_bytes(), Slot::Stored(commit.record_pointer()));
        self.ordered.set(COMMITS, &lsn.to_be_bytes(), lsn, Some(entry));
        self.ordered.set(TRANSACTIONS, &commit.head.txn.key(), lsn, Some(Entry::mark()));
        let epoch = self.epochs.of(lsn);
        if self.recorded.swap(epoch, Ordering::Relaxed) != epoch {
            let entry = Entry::with_meta(epoch.to_be_bytes(), Slot::None);
            self.ordered.set(EPOCHS, &lsn.to_be_bytes(), lsn, Some(entry));
        }
    }

    /// The LSN a transaction committed as, at most `visible`.
    pub fn transaction(&self, txn: &TxnId, visible: Lsn) -> Result<Option<Lsn>> {
        let found = self.ordered.state(TRANSACTIONS, &txn.key(), visible)?;
        Ok(found.map(|(lsn, _)| lsn))
    }

    /// Time and place of a commit.
    pub fn commit(&self, lsn: Lsn) -> Result<Option<(Micros, Pointer)>> {
        match self.ordered.state(COMMITS, &lsn.to_be_bytes(), lsn)? {
            Some((_, Some(entry))) => decode_commit(&entry).map(Some),
            _ => Ok(None),
        }
    }

    /// Newest LSN at or before `time`, at most `visible`; 0 if there is none.
    pub fn lsn_at(&self, time: Micros, visible: Lsn) -> Result<Lsn> {
        let (mut low, mut high) = (0, visible);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            match self.commit(middle)? {
                Some((at, _)) if at <= time => low = middle,
                _ => high = middle - 1,
            }
        }
        Ok(low)
    }

    /// Commits at or below `lsn`.
    pub fn count(&self, lsn: Lsn) -> Result<u64> {
        self.ordered.count(COMMITS, lsn)
    }
}

fn decode_commit(entry: &Entry) -> Result<(Micros, Pointer)> {
    match (entry.meta[..].try_into(), &entry.slot) {
        (Ok(time), Slot::Stored(pointer)) => Ok((Micros::from_le_bytes(time), *pointer)),
        _ => Err(Error::corruption("a commit in the ledger has another shape")),
    }
}
