//! Counts every byte written, under the structure and the cause that wrote it.
//!
//! Invariants:
//! 1. The shares of a write add up to its bytes; a caller that breaks this panics, because write
//!    amplification that leaves bytes out is worth nothing.
//! 2. Bytes count once their write has succeeded. A write that failed may have reached the medium
//!    in part; those bytes are in no account.
//!
//! Lengths, names and directories are not counted: what a file system writes for them is its own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::{Cause, File, Lock, Map, Open, Share, Storage};
use crate::error::Result;
use crate::sync::RwLock;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Bytes of one structure, by cause.
#[derive(Default)]
struct Account([AtomicU64; Cause::ALL.len()]);

/// Counters that every handle of one storage shares. Counts are read one by one: a snapshot taken
/// beside a write may hold some of its shares.
#[derive(Default)]
pub struct Meter {
    accounts: RwLock<BTreeMap<u32, Account>>,
    syncs: AtomicU64,
    writes: AtomicU64,
}

impl Meter {
    fn count(&self, shares: &[Share]) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let accounts = self.accounts.read();
        for (index, share) in shares.iter().enumerate() {
            let Some(account) = accounts.get(&share.structure) else {
                drop(accounts);
                return self.count_new(&shares[index..]);
            };
            account.0[share.cause as usize].fetch_add(share.bytes, Ordering::Relaxed);
        }
    }

    /// Opens an account for each structure that writes for the first time.
    fn count_new(&self, shares: &[Share]) {
        let mut accounts = self.accounts.write();
        for share in shares {
            let account = accounts.entry(share.structure).or_default();
            account.0[share.cause as usize].fetch_add(share.bytes, Ordering::Relaxed);
        }
    }

    /// Bytes by structure and cause, sorted; pairs that wrote nothing are left out.
    pub fn snapshot(&self) -> Vec<(u32, Cause, u64)> {
        let mut counts = Vec::new();
        for (structure, account) in self.accounts.read().iter() {
            for (cause, bytes) in Cause::ALL.into_iter().zip(&account.0) {
                counts.push((*structure, cause, bytes.load(Ordering::Relaxed)));
            }
        }
        counts.retain(|count| count.2 > 0);
        counts.sort_unstable();
        counts
    }

    /// All bytes written.
    pub fn total(&self) -> u64 {
        self.snapshot().iter().map(|count| count.2).sum()
    }

    /// File syncs that succeeded.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Writes that succeeded.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }
}

/// `inner`, with `meter` beside it.
pub struct MeteredStorage {
    inner: Arc<dyn Storage>,
    meter: Arc<Meter>,
}

impl MeteredStorage {
    pub fn new(inner: Arc<dyn Storage>, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
    }

    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }
}

impl Storage for MeteredStorage {
    fn create_dir(&self, path: &str) -> Result<()> {
        self.inner.create_dir(path)
    }

    fn sync_dir(&self, path: &str) -> Result<()> {
        self.inner.sync_dir(path)
    }

    fn list(&self, path: &str) -> Result<Vec<String>> {
        self.inner.list(path)
    }

    fn open(&self, path: &str, how: Open) -> Result<Arc<dyn File>> {
        let inner = self.inner.open(path, how)?;
        Ok(Arc::new(MeteredFile { inner, meter: self.meter.clone() }))
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.inner.remove(path)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.inner.rename(from, to)
    }

    fn lock(&self, exclusive: bool) -> Result<Box<dyn Lock>> {
        self.inner.lock(exclusive)
    }

    fn name(&self) -> String {
        self.inner.name()
    }

    fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes()
    }
}

struct MeteredFile {
    inner: Arc<dyn File>,
    meter: Arc<Meter>,
}

impl File for MeteredFile {
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize> {
        self.inner.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64, shares: &[Share]) -> Result<()> {
        let labelled: u64 = shares.iter().map(|share| share.bytes).sum();
        assert_eq!(labelled, bytes.len() as u64, "the shares of a write add up to its bytes");
        self.inner.write_at(bytes, offset, shares)?;
        self.meter.count(shares);
        Ok(())
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.inner.allocate(len)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.inner.truncate(len)
    }

    fn sync(&self) -> Result<()> {
        self.inner.sync()?;
        self.meter.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn will_need(&self, bytes: Range<u64>) {
        self.inner.will_need(bytes);
    }

    fn map(&self) -> Option<Map> {
        self.inner.map()
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulated::{Fault, FaultKind, OperationKind, SimulatedStorage};
    use super::*;

    fn metered() -> (SimulatedStorage, MeteredStorage) {
        let disk = SimulatedStorage::new(1);
        let storage = MeteredStorage::new(Arc::new(disk.clone()), Arc::default());
        (disk, storage)
    }

    #[test]
    fn counts_bytes_by_structure_and_cause() {
        let (_, storage) = metered();
        let file = storage.open("a", Open::Create).unwrap();
        let first = [Share::new(7, Cause::Log, 3), Share::new(0, Cause::Log, 2)];
        file.write_at(b"abcde", 0, &first).unwrap();
        file.write_at(b"xy", 5, &[Share::new(7, Cause::Merge, 2)]).unwrap();
        file.write_at(b"z", 7, &[Share::new(7, Cause::Log, 1)]).unwrap();
        file.allocate(4096).unwrap();
        file.sync().unwrap();
        let meter = storage.meter();
        let expected = [(0, Cause::Log, 2), (7, Cause::Log, 4), (7, Cause::Merge, 2)];
        assert_eq!(meter.snapshot(), expected);
        assert_eq!((meter.total(), meter.writes(), meter.syncs()), (8, 3, 1));
    }

    #[test]
    fn counts_nothing_that_failed() {
        let (disk, storage) = metered();
        let file = storage.open("a", Open::Create).unwrap();
        disk.inject(Fault::nth(OperationKind::Write, "a", 0, FaultKind::Eio));
        disk.inject(Fault::nth(OperationKind::Sync, "a", 0, FaultKind::Eio));
        assert!(file.write_at(b"abc", 0, &[Share::new(1, Cause::Log, 3)]).is_err());
        assert!(file.sync().is_err());
        let meter = storage.meter();
        assert_eq!((meter.total(), meter.writes(), meter.syncs()), (0, 0, 0));
    }

    #[test]
    #[should_panic(expected = "add up to its bytes")]
    fn an_unlabelled_byte_is_a_broken_invariant() {
        let (_, storage) = metered();
        let file = storage.open("a", Open::Create).unwrap();
        let _ = file.write_at(b"abc", 0, &[Share::new(1, Cause::Log, 2)]);
    }
}
