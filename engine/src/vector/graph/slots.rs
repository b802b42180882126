//! A counting semaphore: how many callers may be inside the native index at once.
//!
//! The native index fails, or worse, when more callers come than it has contexts for. More of them
//! than the machine has cores would gain nothing.

use std::thread::available_parallelism;

use parking_lot::{Condvar, Mutex};

const CALLERS_MAX: usize = 64;

pub(super) struct Slots {
    count: usize,
    free: Mutex<usize>,
    freed: Condvar,
}

impl Slots {
    pub(super) fn for_this_machine() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self::new(cores.min(CALLERS_MAX))
    }

    fn new(count: usize) -> Self {
        Self { count, free: Mutex::new(count), freed: Condvar::new() }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Waits for a free one; it is held until the guard goes.
    pub(super) fn take(&self) -> Slot<'_> {
        let mut free = self.free.lock();
        self.freed.wait_while(&mut free, |free| *free == 0);
        *free -= 1;
        Slot(self)
    }
}

pub(super) struct Slot<'a>(&'a Slots);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.freed.notify_one();
    }
}
