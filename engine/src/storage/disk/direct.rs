//! Small aligned writes that go around the page cache.
//!
//! A commit of a few sectors is about a third faster so, because the kernel neither copies it nor
//! looks for dirty pages at the sync. Large writes gain nothing and go through the cache. Whether
//! a file takes direct writes is asked when it is opened (`statx`) and learned from the first
//! refusal, after which the file is written through the cache like any other.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};

use super::super::SECTOR_BYTES;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Longer writes go through the page cache.
const DIRECT_BYTES_MAX: usize = 4 << 20;

pub(super) struct DirectWriter {
    descriptor: OwnedFd,
    memory_align: usize,
    offset_align: usize,
    refused: AtomicBool,
}

impl DirectWriter {
    /// A second descriptor of the file behind `same`, where the file system grants direct I/O.
    pub(super) fn open(path: &Path, same: &OwnedFd) -> Option<Self> {
        let (memory_align, offset_align) = alignment(same)?;
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(path, flags | OFlags::NONBLOCK, Mode::empty()).ok()?;
        let first = rustix::fs::fstat(same).ok()?;
        let second = rustix::fs::fstat(&descriptor).ok()?;
        // Another process may have put another file under the name in between.
        let is_same = (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino);
        is_same.then_some(Self {
            descriptor,
            memory_align,
            offset_align,
            refused: AtomicBool::new(false),
        })
    }

    pub(super) fn takes(&self, bytes: &[u8], offset: u64) -> bool {
        bytes.len() <= DIRECT_BYTES_MAX
            && bytes.len().is_multiple_of(self.offset_align)
            && offset.is_multiple_of(self.offset_align as u64)
            && bytes.as_ptr().addr().is_multiple_of(self.memory_align)
            && !self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> rustix::io::Result<usize> {
        rustix::io::pwrite(&self.descriptor, bytes, offset)
    }

    /// The file system promised direct writes and refuses them; it is not asked again.
    pub(super) fn give_up(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }
}

/// What buffers, and what offsets and lengths, must be multiples of; None where the file takes no
/// direct writes. A kernel that cannot tell is assumed to want whole sectors.
fn alignment(file: impl AsFd) -> Option<(usize, usize)> {
    let assumed = Some((SECTOR_BYTES, SECTOR_BYTES));
    let Ok(status) = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
        return assumed;
    };
    if status.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return assumed;
    }
    let (memory, offset) =
        (status.stx_dio_mem_align as usize, status.stx_dio_offset_align as usize);
    (memory > 0 && offset > 0).then_some((memory.max(SECTOR_BYTES), offset.max(SECTOR_BYTES)))
}

#[cfg(test)]
mod tests {
    use super::super::super::aligned::AlignedBuffer;
    use super::*;

    #[test]
    fn takes_only_what_is_aligned_and_small() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).unwrap();
        let Some(mut direct) = DirectWriter::open(&path, &file) else {
            return; // A file system without direct I/O.
        };
        (direct.memory_align, direct.offset_align) = (512, 512);
        let buffer = AlignedBuffer::zeroed(2 * DIRECT_BYTES_MAX);
        let bytes = buffer.padded();
        assert!(direct.takes(&bytes[..512], 1024));
        assert!(direct.takes(&bytes[..DIRECT_BYTES_MAX], 0));
        assert!(!direct.takes(&bytes[..DIRECT_BYTES_MAX + 512], 0));
        assert!(!direct.takes(&bytes[1..513], 0));
        assert!(!direct.takes(&bytes[..511], 0));
        assert!(!direct.takes(&bytes[..512], 100));
        direct.give_up();
        assert!(!direct.takes(&bytes[..512], 0));
    }
}
