//! Storage in memory whose writes and syncs of files are asked for leave first.

use std::sync::Arc;

use waferdb::error::Result;
use waferdb::storage::memory::MemoryStorage;
use waferdb::storage::{File, Lock, Open, Share, Storage};

/// May answer with an error, or panic.
type Strike = Arc<dyn Fn() -> Result<()> + Send + Sync>;

pub struct StruckStorage {
    inner: MemoryStorage,
    strike: Strike,
}

struct StruckFile {
    inner: Arc<dyn File>,
    strike: Strike,
}

impl StruckStorage {
    pub fn new(strike: impl Fn() -> Result<()> + Send + Sync + 'static) -> Self {
        Self { inner: MemoryStorage::new(), strike: Arc::new(strike) }
    }
}

impl Storage for StruckStorage {
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
        Ok(Arc::new(StruckFile { inner, strike: Arc::clone(&self.strike) }))
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

impl File for StruckFile {
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize> {
        self.inner.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64, shares: &[Share]) -> Result<()> {
        (self.strike)()?;
        self.inner.write_at(bytes, offset, shares)
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.inner.allocate(len)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.inner.truncate(len)
    }

    fn sync(&self) -> Result<()> {
        (self.strike)()?;
        self.inner.sync()
    }
}
