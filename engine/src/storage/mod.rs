//! The one seam between the engine and bytes that outlive it.
//!
//! Paths are relative to the database directory, with `/` between parts ("log/00000001.wal"); ""
//! is the directory itself. Implementations: `disk` (the only user of `std::fs`), `memory`
//! (":memory:"), `simulated` (seeded faults and crashes), `metered` (a wrapper that counts every
//! byte under the structure and cause that wrote it).
//!
//! The promises an implementation makes, and no more:
//! 1. After `File::sync` returns, the file's bytes and length survive a power cut.
//! 2. A new, renamed or removed name survives a power cut only after `Storage::sync_dir`.
//! 3. Unsynced writes may survive whole, in part, in any order, or not at all.
//! 4. A failed `sync` says nothing about what is on the medium; the caller must never retry it.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;

/// Why bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    Log,
    Flush,
    Merge,
    Seal,
    Checkpoint,
    Reclaim,
}

impl Cause {
    pub const ALL: [Cause; 6] =
        [Self::Log, Self::Flush, Self::Merge, Self::Seal, Self::Checkpoint, Self::Reclaim];

    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Flush => "flush",
            Self::Merge => "merge",
            Self::Seal => "seal",
            Self::Checkpoint => "checkpoint",
            Self::Reclaim => "reclaim",
        }
    }
}

/// `bytes` of one write, on account of `structure` (0: the log's own framing, the catalogue).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub structure: u32,
    pub cause: Cause,
    pub bytes: u64,
}

impl Share {
    pub fn new(structure: u32, cause: Cause, bytes: usize) -> Self {
        Self { structure, cause, bytes: bytes as u64 }
    }
}

/// How `Storage::open` treats the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Must exist; writes are refused.
    Read,
    /// Must exist.
    Write,
    /// Must not exist.
    Create,
}

/// Direct and page-cache-free writes want buffers, offsets and lengths in multiples of this.
pub const SECTOR_BYTES: usize = 512;

pub trait Storage: Send + Sync {
    /// Creates a directory; no error where it stands already. "" creates the database directory
    /// itself, whose parent must exist.
    fn create_dir(&self, path: &str) -> Result<()>;
    fn sync_dir(&self, path: &str) -> Result<()>;
    /// Names of files and directories in `path`, sorted.
    fn list(&self, path: &str) -> Result<Vec<String>>;
    fn open(&self, path: &str, how: Open) -> Result<Arc<dyn File>>;
    fn remove(&self, path: &str) -> Result<()>;
    fn rename(&self, from: &str, to: &str) -> Result<()>;
    /// Takes the database's lock: one exclusive holder or many shared ones. `LockedError` names
    /// the holder. Released when the value drops (never by a forked child).
    fn lock(&self, exclusive: bool) -> Result<Box<dyn Lock>>;
    /// What error messages call this database.
    fn name(&self) -> String;
    /// Bytes free to the database, where that is known.
    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

pub trait Lock: Send + Sync {}

/// The bytes of a whole file, in memory for as long as somebody holds them.
pub type Map = Arc<dyn AsRef<[u8]> + Send + Sync>;

#[expect(clippy::len_without_is_empty, reason = "no caller asks whether a file is empty")]
pub trait File: Send + Sync {
    fn len(&self) -> Result<u64>;
    /// Reads at most `into.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize>;
    /// Writes all of `bytes`; `shares` account for each of them.
    fn write_at(&self, bytes: &[u8], offset: u64, shares: &[Share]) -> Result<()>;
    /// Makes the file `len` bytes long with the space reserved; new bytes read as zero. A full
    /// disk is found here.
    fn allocate(&self, len: u64) -> Result<()>;
    fn truncate(&self, len: u64) -> Result<()>;
    /// Makes bytes and length durable (fdatasync).
    fn sync(&self) -> Result<()>;
    /// The file as it is now, to be read without copying; `None`: only `read_at` reads it. The
    /// caller vouches that nobody writes, lengthens or cuts the file from now on: a direct write
    /// need not show in a map, and touching what was cut off ends the process.
    fn map(&self) -> Option<Map> {
        None
    }

    /// These bytes will be read soon: what can be done to have them in memory by then is.
    fn will_need(&self, _bytes: Range<u64>) {}
}

/// Reads exactly `into.len()` bytes, or says how short the file is.
pub fn read_exact_at(file: &dyn File, into: &mut [u8], offset: u64) -> Result<bool> {
    let mut done = 0;
    while done < into.len() {
        let count = file.read_at(&mut into[done..], offset + done as u64)?;
        if count == 0 {
            return Ok(false);
        }
        done += count;
    }
    Ok(true)
}

pub mod aligned;
pub mod bytes;
pub mod disk;
pub mod memory;
pub mod metered;
pub mod simulated;

mod path;

#[cfg(test)]
mod conformance;
