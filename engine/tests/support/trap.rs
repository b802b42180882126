//! A disk in memory whose next sync of a log file panics, once it is armed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use waferdb::error::Result;
use waferdb::storage::memory::MemoryStorage;
use waferdb::storage::{File, Lock, Open, Share, Storage};

#[derive(Clone)]
pub struct Trap {
    inner: Arc<MemoryStorage>,
    armed: Arc<AtomicBool>,
}

impl Trap {
    pub fn new() -> Self {
        Self { inner: Arc::new(MemoryStorage::new()), armed: Arc::default() }
    }

    pub fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }
}

impl Storage for Trap {
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
        Ok(Arc::new(TrapFile { inner, armed: Arc::clone(&self.armed) }))
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
}

struct TrapFile {
    inner: Arc<dyn File>,
    armed: Arc<AtomicBool>,
}

impl File for TrapFile {
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize> {
        self.inner.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64, shares: &[Share]) -> Result<()> {
        self.inner.write_at(bytes, offset, shares)
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.inner.allocate(len)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.inner.truncate(len)
    }

    fn sync(&self) -> Result<()> {
        // So long that others wait behind it.
        #[expect(clippy::disallowed_methods, reason = "a slow disk")]
        std::thread::sleep(Duration::from_millis(20));
        assert!(!self.armed.swap(false, Ordering::SeqCst), "the trap is sprung");
        self.inner.sync()
    }
}
