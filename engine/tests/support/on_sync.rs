//! A disk in memory that calls its owner before each sync of a file.

use std::sync::Arc;

use waferdb::error::Result;
use waferdb::storage::memory::MemoryStorage;
use waferdb::storage::{File, Lock, Open, Share, Storage};

type Hook = Arc<dyn Fn() + Send + Sync>;

pub struct OnSync {
    inner: MemoryStorage,
    hook: Hook,
}

impl OnSync {
    pub fn new(hook: impl Fn() + Send + Sync + 'static) -> Self {
        Self { inner: MemoryStorage::new(), hook: Arc::new(hook) }
    }
}

impl Storage for OnSync {
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
        Ok(Arc::new(HookedFile { inner, hook: Arc::clone(&self.hook) }))
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

struct HookedFile {
    inner: Arc<dyn File>,
    hook: Hook,
}

impl File for HookedFile {
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
        (self.hook)();
        self.inner.sync()
    }
}
