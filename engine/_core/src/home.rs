//! What belongs to the process that made it.
//!
//! After a fork the child holds copies of everything, with locks in whatever state other threads
//! left them: using them could wait for ever, dropping them could flush, unlock or join what the
//! parent still uses. So the child may do neither.
//!
//! Each call asks, so asking must cost nothing: the process's number stands in a page that the
//! kernel empties in the child of a fork. Where the kernel cannot, the process id is asked for.

use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::errors::made;

const PAGE_BYTES: usize = 4096;

/// Numbers given so far, counted on by a child from where its parent was: never one twice.
static GIVEN: AtomicU64 = AtomicU64::new(0);

/// The number of this process among those it was forked from; never 0.
pub fn process() -> u64 {
    let Some(number) = emptied_on_fork() else { return u64::from(std::process::id()) };
    match number.load(Ordering::Acquire) {
        0 => {
            let new = GIVEN.fetch_add(1, Ordering::Relaxed) + 1;
            let given = number.compare_exchange(0, new, Ordering::AcqRel, Ordering::Acquire);
            given.map_or_else(|by_another_thread| by_another_thread, |_| new)
        }
        known => known,
    }
}

fn emptied_on_fork() -> Option<&'static AtomicU64> {
    static PAGE: OnceLock<Option<&AtomicU64>> = OnceLock::new();
    *PAGE.get_or_init(|| {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh private mapping, at an address of the kernel's choice.
        let page = unsafe {
            mmap_anonymous(ptr::null_mut(), PAGE_BYTES, protection, MapFlags::PRIVATE).ok()?
        };
        // SAFETY: the mapping was just made and nothing refers into it.
        unsafe {
            if madvise(page, PAGE_BYTES, Advice::LinuxWipeOnFork).is_err() {
                // An unused page more is no reason to fail.
                let _ = munmap(page, PAGE_BYTES);
                return None;
            }
        }
        // SAFETY: aligned to a page, zeroed, never unmapped, and used as this type only.
        Some(unsafe { AtomicU64::from_ptr(page.cast()) })
    })
}

pub struct Home<T> {
    process: u64,
    value: ManuallyDrop<T>,
}

impl<T> Home<T> {
    pub fn new(value: T) -> Self {
        Self { process: process(), value: ManuallyDrop::new(value) }
    }

    pub fn is_here(&self) -> bool {
        self.process == process()
    }

    /// The value, or `ForkedError`.
    pub fn get(&self, py: Python<'_>) -> PyResult<&T> {
        if self.is_here() {
            return Ok(&self.value);
        }
        let message = "this database was opened before a fork and belongs to the parent process: \
                       open it again in the child";
        Err(made(py, "forked", message, None, None))
    }
}

impl<T> Drop for Home<T> {
    fn drop(&mut self) {
        if self.is_here() {
            // SAFETY: dropped here and nowhere else, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}
