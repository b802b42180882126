//! Work on index entries that was put off: which keys changed, in the order of the log, no values.
//!
//! Invariants:
//! 1. What is put off is done in the order of its LSNs, by one thread at a time.
//! 2. Nobody reads entries at an LSN at or above the oldest that is put off (`needs`).
//! 3. Its bytes are part of the memtables' budget: what fills that is done before the rest goes to
//!    the disk.

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

type Lsn = u64;

/// What an entry takes besides its key's bytes.
const OVERHEAD: usize = 40;
/// So many are seen to at a time: the more, the nearer to each other their entries lie.
const SLICE: usize = 65_536;

pub type Item = (Lsn, Box<[u8]>);

pub struct Deferred {
    incoming: Mutex<Vec<Item>>,
    /// Held by the one who does the work.
    working: Mutex<()>,
    /// The oldest LSN that is put off, `u64::MAX` if none is.
    oldest: AtomicU64,
    bytes: AtomicUsize,
}

impl Default for Deferred {
    fn default() -> Self {
        Self {
            incoming: Mutex::default(),
            working: Mutex::default(),
            oldest: AtomicU64::new(u64::MAX),
            bytes: AtomicUsize::new(0),
        }
    }
}

impl Deferred {
    pub fn push(&self, lsn: Lsn, key: &[u8]) {
        let mut incoming = self.incoming.lock();
        self.bytes.fetch_add(OVERHEAD + key.len(), Ordering::Relaxed);
        self.oldest.fetch_min(lsn, Ordering::AcqRel);
        incoming.push((lsn, key.into()));
    }

    /// Whether entries at `lsn` lack what is put off.
    pub fn needs(&self, lsn: Lsn) -> bool {
        self.oldest.load(Ordering::Acquire) <= lsn
    }

    pub fn is_empty(&self) -> bool {
        self.oldest.load(Ordering::Acquire) == u64::MAX
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Hands all that is put off to `work`, in slices; what fails, and all behind it, stays.
    pub fn work<E>(&self, mut work: impl FnMut(&[Item]) -> Result<(), E>) -> Result<(), E> {
        let _working = self.working.lock();
        loop {
            let taken = std::mem::take(&mut *self.incoming.lock());
            if taken.is_empty() {
                return Ok(());
            }
            let mut done = 0;
            let mut outcome = Ok(());
            for slice in taken.chunks(SLICE) {
                outcome = work(slice);
                if outcome.is_err() {
                    break;
                }
                done += slice.len();
            }
            let bytes: usize = taken[..done].iter().map(|(_, key)| OVERHEAD + key.len()).sum();
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            let mut incoming = self.incoming.lock();
            let mut left = taken;
            left.drain(..done);
            left.append(&mut incoming);
            let oldest = left.first().map_or(u64::MAX, |(lsn, _)| *lsn);
            *incoming = left;
            self.oldest.store(oldest, Ordering::Release);
            outcome?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_fails_stays_and_keeps_its_order() {
        let deferred = Deferred::default();
        for lsn in 1..=5 {
            deferred.push(lsn, b"k");
        }
        assert!(deferred.needs(1) && !deferred.needs(0));
        assert_eq!(deferred.work(|_| Err("full")), Err("full"));
        assert!(deferred.needs(1));
        deferred.push(6, b"k");
        let mut seen = Vec::new();
        let done: Result<(), ()> = deferred.work(|items| {
            seen.extend(items.iter().map(|(lsn, _)| *lsn));
            Ok(())
        });
        assert_eq!(done, Ok(()));
        assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
        assert!(deferred.is_empty() && deferred.bytes() == 0);
    }
}
