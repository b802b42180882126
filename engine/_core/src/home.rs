//! What belongs to the process that made it.
//!
//! After a fork the child holds copies of everything, with locks in whatever state other threads
//! left them: using them could wait for ever, dropping them could flush, unlock or join what the
//! parent still uses. So the child may do neither.

use std::mem::ManuallyDrop;

use pyo3::prelude::*;

use crate::errors::made;

pub struct Home<T> {
    process: u32,
    value: ManuallyDrop<T>,
}

impl<T> Home<T> {
    pub fn new(value: T) -> Self {
        Self { process: std::process::id(), value: ManuallyDrop::new(value) }
    }

    pub fn is_here(&self) -> bool {
        self.process == std::process::id()
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
