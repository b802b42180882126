//! Which LSNs are being read: pinned snapshots keep the versions they see.
//!
//! Invariants:
//! 1. No version a pinned LSN sees is dropped before it is unpinned.
//! 2. A pin is released by dropping it, on any thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::log::Lsn;
use crate::sync::Mutex;

#[derive(Default)]
pub struct Snapshots {
    pinned: Mutex<BTreeMap<Lsn, usize>>,
}

impl Snapshots {
    pub fn pin(self: &Arc<Self>, lsn: Lsn) -> Pin {
        *self.pinned.lock().entry(lsn).or_insert(0) += 1;
        Pin { snapshots: Arc::clone(self), lsn }
    }

    /// The oldest pinned LSN.
    pub fn oldest(&self) -> Option<Lsn> {
        self.with_oldest(|oldest| oldest)
    }

    /// Runs `decide` on the oldest pinned LSN while no other can be pinned.
    pub fn with_oldest<T>(&self, decide: impl FnOnce(Option<Lsn>) -> T) -> T {
        decide(self.pinned.lock().keys().next().copied())
    }
}

pub struct Pin {
    snapshots: Arc<Snapshots>,
    lsn: Lsn,
}

impl Pin {
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pinned = self.snapshots.pinned.lock();
        let count = pinned.get_mut(&self.lsn).expect("a pin counts itself");
        *count -= 1;
        if *count == 0 {
            pinned.remove(&self.lsn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_pin_counts_until_its_last_holder_drops() {
        let snapshots = Arc::new(Snapshots::default());
        let first = snapshots.pin(3);
        let second = snapshots.pin(3);
        let _later = snapshots.pin(9);
        assert_eq!(snapshots.oldest(), Some(3));
        drop(first);
        assert_eq!(snapshots.oldest(), Some(3));
        drop(second);
        assert_eq!(snapshots.oldest(), Some(9));
    }
}
