//! The ways a log file can be laid out, and one file in each of them.
//!
//! Invariants:
//! 1. A file is prepared and durable before its first append; only appends (and, where asked,
//!    zeros written just ahead of them) are work that the caller times.
//! 2. An append writes whole sectors, never over an earlier append.
//!
//! Says nothing about which layout is good: main.rs measures that.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::{Errno, Result};

pub const SECTOR_BYTES: usize = 512;
/// Zeros are written in pieces of this, as the engine does.
const ZEROS_BYTES: u64 = 256 << 10;
/// Room for the alignment of any device that takes direct writes.
const ALIGN_BYTES: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// The file grows with each append.
    Growing,
    /// Reserved with fallocate: the blocks are there, marked as unwritten.
    Reserved,
    /// Reserved, and zeros written and synced: an append is a pure overwrite.
    Zeroed,
}

#[derive(Clone, Copy)]
pub struct Layout {
    pub name: &'static str,
    pub space: Space,
    pub direct: bool,
}

pub const LAYOUTS: [Layout; 5] = [
    Layout { name: "growing", space: Space::Growing, direct: false },
    Layout { name: "fallocate", space: Space::Reserved, direct: false },
    Layout { name: "fallocate-direct", space: Space::Reserved, direct: true },
    Layout { name: "zeros", space: Space::Zeroed, direct: false },
    Layout { name: "zeros-direct", space: Space::Zeroed, direct: true },
];

/// Bytes whose start suits direct I/O, without unsafe code: a slice inside a larger vector.
pub struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub fn zeroed(len: usize) -> Self {
        let bytes = vec![0; len + ALIGN_BYTES];
        let start = bytes.as_ptr().align_offset(ALIGN_BYTES);
        Self { bytes, start, len }
    }

    /// Bytes that do not compress, the same in each run.
    pub fn noise(len: usize) -> Self {
        let mut noise = Self::zeroed(len);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for byte in noise.get_mut() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state.to_le_bytes()[7];
        }
        noise
    }

    pub fn get(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    pub fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

pub struct LogFile {
    path: PathBuf,
    file: OwnedFd,
    end: u64,
    capacity: u64,
    /// Behind this there are no zeros yet; the capacity where they are not written as it goes.
    zeroed: u64,
}

impl LogFile {
    /// `as_it_goes`: zeros are written piece by piece ahead of the appends, not beforehand.
    pub fn create(dir: &Path, layout: Layout, capacity: u64, as_it_goes: bool) -> Result<Self> {
        let path = dir.join("probe.wal");
        let mut flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        if layout.direct {
            flags |= OFlags::DIRECT;
        }
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))?;
        let zeroed = if layout.space == Space::Zeroed { 0 } else { capacity };
        let mut log = Self { path, file, end: 0, capacity, zeroed };
        if layout.space != Space::Growing {
            rustix::fs::fallocate(&log.file, FallocateFlags::empty(), 0, capacity)?;
        }
        while !as_it_goes && log.zeroed < capacity {
            log.write_zeros()?;
        }
        rustix::fs::fsync(&log.file)?;
        rustix::fs::fsync(rustix::fs::open(dir, OFlags::RDONLY, Mode::empty())?)?;
        Ok(log)
    }

    pub fn has_room(&self, bytes: usize) -> bool {
        self.end + bytes as u64 <= self.capacity
    }

    /// One durable append.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.end + bytes.len() as u64;
        if end > self.zeroed {
            while end > self.zeroed {
                self.write_zeros()?;
            }
            rustix::fs::fdatasync(&self.file)?;
        }
        self.write(bytes, self.end)?;
        rustix::fs::fdatasync(&self.file)?;
        self.end = end;
        Ok(())
    }

    fn write_zeros(&mut self) -> Result<()> {
        let bytes = ZEROS_BYTES.min(self.capacity - self.zeroed);
        self.write(Aligned::zeroed(bytes as usize).get(), self.zeroed)?;
        self.zeroed += bytes;
        Ok(())
    }

    fn write(&self, mut bytes: &[u8], mut offset: u64) -> Result<()> {
        while !bytes.is_empty() {
            match rustix::io::pwrite(&self.file, bytes, offset) {
                Ok(written) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    pub fn sync_file_system(&self) -> Result<()> {
        rustix::fs::syncfs(&self.file)
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        if let Err(errno) = rustix::fs::unlink(&self.path) {
            eprintln!("probe: {} stays behind: {errno}", self.path.display());
        }
    }
}
