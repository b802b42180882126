//! The storage of databases on disk: the only user of `std::fs` and of file descriptors.
//!
//! Invariants:
//! 1. A write goes to the file either whole through the page cache or, where it is small and
//!    aligned and the file system grants it, around it. The kernel keeps both views the same for
//!    one process that does not map the file; a file is mapped once nobody writes it any more.
//! 2. A symbolic link, a pipe or a device in place of a file is refused, not followed. The
//!    database directory and the directories in it may be links.
//! 3. An interrupted or short read or write is continued; a sync is never tried twice.
//!
//! Files and directories get the modes that the process's umask leaves of 0666 and 0777. Names
//! that are not UTF-8 are listed with replacement characters: no name of ours looks like that.

mod direct;
mod lock;

use std::ffi::OsStr;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use memmap2::MmapOptions;
use rustix::fs::{FallocateFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use self::direct::DirectWriter;
use super::path::{check, check_inside, read_only, split};
use super::{File, Lock, Map, Open, Share, Storage};
use crate::error::{Error, Result};

/// Zeros are written in pieces of this size where the file system cannot reserve space.
const ZEROS_BYTES: usize = 1 << 20;

/// A database directory, which need not exist yet.
pub struct DiskStorage {
    root: PathBuf,
}

impl DiskStorage {
    /// A relative `path` is resolved now, so that a later change of the working directory does
    /// not move the database.
    pub fn new(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        // An empty path has no absolute form; the first operation on it says so.
        Self { root: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()) }
    }

    fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    fn create_root(&self) -> Result<()> {
        let parent = self.root.parent().unwrap_or(Path::new("/"));
        match fs::create_dir(&self.root) {
            Ok(()) => {}
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                directory("open the database directory", &self.root)?;
            }
            Err(cause) => {
                let missing = cause.kind() == io::ErrorKind::NotFound;
                let at = if missing { parent } else { &self.root };
                let doing = if missing {
                    "create the database directory in its parent"
                } else {
                    "create the database directory"
                };
                return Err(failed(doing, at, cause));
            }
        }
        // A process that died between making and syncing the name leaves it for us to sync.
        match sync_directory(parent) {
            Err(Errno::ACCESS) => self.sync_file_system(),
            other => other.map_err(|errno| failed("sync directory", parent, errno.into())),
        }
    }

    /// Makes the name of the database directory durable where its parent may not be read.
    fn sync_file_system(&self) -> Result<()> {
        let synced = open_directory(&self.root).and_then(rustix::fs::syncfs);
        synced.map_err(|errno| failed("sync the file system of", &self.root, errno.into()))
    }
}

pub(super) fn failed(doing: &str, path: &Path, cause: io::Error) -> Error {
    Error::io(doing, &path.display().to_string(), cause)
}

fn directory(doing: &str, path: &Path) -> Result<()> {
    let metadata = fs::metadata(path).map_err(|cause| failed(doing, path, cause))?;
    if metadata.is_dir() {
        return Ok(());
    }
    Err(failed(doing, path, Errno::NOTDIR.into()))
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn sync_directory(path: &Path) -> rustix::io::Result<()> {
    rustix::fs::fsync(open_directory(path)?)
}

/// Opens a regular file and nothing else: a pipe would block, a link would lead out.
fn open_file(path: &Path, how: Open) -> Result<OwnedFd> {
    let (doing, access) = match how {
        Open::Read => ("open", OFlags::RDONLY),
        Open::Write => ("open for writing", OFlags::RDWR),
        Open::Create => ("create", OFlags::RDWR | OFlags::CREATE | OFlags::EXCL),
    };
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let descriptor = match rustix::fs::open(path, flags, Mode::from_raw_mode(0o666)) {
        Ok(descriptor) => descriptor,
        Err(Errno::LOOP) => {
            let error = failed(doing, path, Errno::LOOP.into());
            return Err(error.context("symbolic links in a database are not followed"));
        }
        Err(errno) => return Err(failed(doing, path, errno.into())),
    };
    let status = rustix::fs::fstat(&descriptor).map_err(|e| failed(doing, path, e.into()))?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => Ok(descriptor),
        FileType::Directory => Err(failed(doing, path, Errno::ISDIR.into())),
        _ => Err(failed(doing, path, io::Error::other("it is not a regular file"))),
    }
}

impl Storage for DiskStorage {
    /// The name of the database directory itself is durable when this returns; there is no other
    /// call to make it so.
    fn create_dir(&self, path: &str) -> Result<()> {
        check(path)?;
        if path.is_empty() {
            return self.create_root();
        }
        let at = self.at(path);
        match fs::create_dir(&at) {
            Ok(()) => Ok(()),
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                directory("create directory", &at)
            }
            Err(cause) => Err(failed("create directory", &at, cause)),
        }
    }

    fn sync_dir(&self, path: &str) -> Result<()> {
        check(path)?;
        let at = self.at(path);
        sync_directory(&at).map_err(|errno| failed("sync directory", &at, errno.into()))
    }

    fn list(&self, path: &str) -> Result<Vec<String>> {
        check(path)?;
        let at = self.at(path);
        let mut names = Vec::new();
        for entry in fs::read_dir(&at).map_err(|cause| failed("list", &at, cause))? {
            let name = entry.map_err(|cause| failed("list", &at, cause))?.file_name();
            if !(path.is_empty() && name == OsStr::new(lock::FILE_NAME)) {
                names.push(name.to_string_lossy().into_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &str, how: Open) -> Result<Arc<dyn File>> {
        check_inside(path)?;
        let path = self.at(path);
        let descriptor = open_file(&path, how)?;
        let writable = how != Open::Read;
        let direct = if writable { DirectWriter::open(&path, &descriptor) } else { None };
        Ok(Arc::new(DiskFile { path, descriptor, writable, direct }))
    }

    /// Removes a file or an empty directory.
    fn remove(&self, path: &str) -> Result<()> {
        check_inside(path)?;
        let at = self.at(path);
        let removed = match rustix::fs::unlink(&at) {
            Err(Errno::ISDIR) => rustix::fs::rmdir(&at),
            other => other,
        };
        removed.map_err(|errno| failed("remove", &at, errno.into()))
    }

    /// Renames a file, replacing the one that has the new name.
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        check_inside(from)?;
        check_inside(to)?;
        let (old, new) = (self.at(from), self.at(to));
        let metadata = fs::symlink_metadata(&old).map_err(|cause| failed("rename", &old, cause))?;
        if metadata.is_dir() {
            return Err(failed("rename", &old, Errno::ISDIR.into()));
        }
        fs::rename(&old, &new).map_err(|cause| {
            let parent = self.at(split(to).0);
            let missing = cause.kind() == io::ErrorKind::NotFound && !parent.exists();
            failed("rename to", if missing { &parent } else { &new }, cause)
        })
    }

    fn lock(&self, exclusive: bool) -> Result<Box<dyn Lock>> {
        lock::acquire(&self.root, exclusive)
    }

    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn free_bytes(&self) -> Option<u64> {
        let status = rustix::fs::statvfs(&self.root).ok()?;
        Some(status.f_bavail.saturating_mul(status.f_frsize))
    }
}

struct DiskFile {
    path: PathBuf,
    descriptor: OwnedFd,
    writable: bool,
    direct: Option<DirectWriter>,
}

impl DiskFile {
    fn failed(&self, doing: &str, errno: Errno) -> Error {
        failed(doing, &self.path, errno.into())
    }

    fn writable(&self) -> Result<()> {
        if self.writable { Ok(()) } else { Err(read_only(&self.path.display().to_string())) }
    }

    /// One write of some of `bytes`.
    fn write_some(&self, bytes: &[u8], offset: u64) -> rustix::io::Result<usize> {
        if let Some(direct) = self.direct.as_ref().filter(|direct| direct.takes(bytes, offset)) {
            match direct.write(bytes, offset) {
                Err(Errno::INVAL | Errno::OPNOTSUPP) => direct.give_up(),
                other => return other,
            }
        }
        rustix::io::pwrite(&self.descriptor, bytes, offset)
    }

    fn write_all(&self, bytes: &[u8], offset: u64) -> rustix::io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset.checked_add(done as u64).ok_or(Errno::FBIG)?;
            match self.write_some(&bytes[done..], at) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Reserves the space of `[0, len)`, which keeps its bytes.
    fn reserve(&self, len: u64, known: u64) -> Result<()> {
        loop {
            match rustix::fs::fallocate(&self.descriptor, FallocateFlags::empty(), 0, len) {
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.write_zeros(known, len),
                other => return other.map_err(|errno| self.failed("allocate", errno)),
            }
        }
    }

    /// Reserves space by writing zeros.
    fn write_zeros(&self, from: u64, to: u64) -> Result<()> {
        let zeros = vec![0; ZEROS_BYTES.min(to.saturating_sub(from) as usize)];
        let mut at = from;
        while at < to {
            let count = (to - at).min(ZEROS_BYTES as u64);
            let written = self.write_all(&zeros[..count as usize], at);
            written.map_err(|errno| self.failed("allocate", errno))?;
            at += count;
        }
        Ok(())
    }
}

impl File for DiskFile {
    fn len(&self) -> Result<u64> {
        let status = rustix::fs::fstat(&self.descriptor).map_err(|e| self.failed("measure", e))?;
        Ok(status.st_size as u64)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        // No file is so long that an offset beyond the system's own bound lies within it.
        while done < into.len() && offset <= i64::MAX as u64 - done as u64 {
            match rustix::io::pread(&self.descriptor, &mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.failed("read", errno)),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64, _shares: &[Share]) -> Result<()> {
        self.writable()?;
        self.write_all(bytes, offset).map_err(|errno| self.failed("write", errno))
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.writable()?;
        let known = self.len()?;
        if len < known || len == 0 {
            return Ok(());
        }
        // The length first: it changes in one step of the file system's journal, while a long
        // reservation may take several and be cut off between them. On a full disk it goes back.
        rustix::fs::ftruncate(&self.descriptor, len).map_err(|e| self.failed("allocate", e))?;
        let reserved = self.reserve(len, known);
        if reserved.is_err() {
            rustix::fs::ftruncate(&self.descriptor, known)
                .map_err(|errno| self.failed("truncate", errno))?;
        }
        reserved
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.writable()?;
        rustix::fs::ftruncate(&self.descriptor, len).map_err(|e| self.failed("truncate", e))
    }

    fn sync(&self) -> Result<()> {
        rustix::fs::fdatasync(&self.descriptor).map_err(|errno| self.failed("sync", errno))
    }

    fn will_need(&self, bytes: Range<u64>) {
        let Some(length) = NonZeroU64::new(bytes.end.saturating_sub(bytes.start)) else { return };
        let advice = rustix::fs::Advice::WillNeed;
        // A hint: where it is not taken, the bytes are read as they are asked for.
        let _ = rustix::fs::fadvise(&self.descriptor, bytes.start, Some(length), advice);
    }

    /// `None` also where the kernel refuses: the file is then read like any other.
    fn map(&self) -> Option<Map> {
        let length = usize::try_from(self.len().ok()?).ok()?;
        // SAFETY: the bytes are never written again, by the caller's word; another process that
        // writes here does so past the database's lock. The length was just read, so no page of
        // the map lies behind the end.
        let map = unsafe { MmapOptions::new().len(length).map(&self.descriptor) };
        map.ok().map(|map| Arc::new(map) as Map)
    }
}

#[cfg(test)]
mod tests;
