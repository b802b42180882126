//! The lock of a database directory: one writer or many readers, over processes.
//!
//! Invariants:
//! 1. The lock is an `flock` of the directory itself, so that a reader writes nothing and a
//!    read-only directory can be locked.
//! 2. Only the process that took it unlocks it, when it lets go: a forked child that drops its copy
//!    does not. A process that dies leaves the lock to the children it forked, until they end.
//! 3. The file `LOCK` only names the writer for others to read; it locks nothing. A writer that
//!    cannot write it (a full disk) holds the lock all the same, and empties it when it lets go.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::super::Lock;
use super::{failed, open_directory};
use crate::clock::{Clock, Micros, SystemClock};
use crate::error::{Error, ErrorKind, Result};

pub(super) const FILE_NAME: &str = "LOCK";
const FILE_BYTES_MAX: usize = 1024;

struct DiskLock {
    directory: OwnedFd,
    /// The process that took it.
    holder: u32,
    /// The file to empty at release.
    named: Option<OwnedFd>,
}

impl Lock for DiskLock {}

impl Drop for DiskLock {
    fn drop(&mut self) {
        if self.holder != std::process::id() {
            return;
        }
        if let Some(file) = &self.named {
            // A name that stays behind is harmless: it is believed only while the lock is held.
            let _ = rustix::fs::ftruncate(file, 0);
        }
        // A forked child may have a copy of the descriptor; closing ours would not be enough. If
        // it fails, closing is what is left.
        let _ = rustix::fs::flock(&self.directory, FlockOperation::Unlock);
    }
}

pub(super) fn acquire(root: &Path, exclusive: bool) -> Result<Box<dyn Lock>> {
    Ok(Box::new(acquire_lock(root, exclusive)?))
}

fn acquire_lock(root: &Path, exclusive: bool) -> Result<DiskLock> {
    let directory = open_directory(root).map_err(|errno| failed("lock", root, errno.into()))?;
    let operation = if exclusive {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    match rustix::fs::flock(&directory, operation) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(refused(root, &directory, exclusive)),
        Err(errno) => return Err(failed("lock", root, errno.into())),
    }
    let named = if exclusive { write_name(root).ok() } else { None };
    Ok(DiskLock { directory, holder: std::process::id(), named })
}

fn write_name(root: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
    let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(root.join(FILE_NAME), flags, Mode::from_raw_mode(0o666))?;
    let pid = std::process::id();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let since = iso_utc(SystemClock::new().wall_micros());
    let text = format!("pid {pid}\nhost {host}\nsince {since}\n");
    rustix::io::pwrite(&file, text.as_bytes(), 0)?;
    Ok(file)
}

/// The writer as its `LOCK` file names it: "pid 12 on host h since t".
fn read_name(root: &Path) -> Option<String> {
    let path: PathBuf = root.join(FILE_NAME);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let mut bytes = [0; FILE_BYTES_MAX];
    let count = rustix::io::pread(&file, &mut bytes, 0).ok()?;
    parse_name(&String::from_utf8_lossy(&bytes[..count]))
}

fn parse_name(text: &str) -> Option<String> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.strip_prefix(' ')?.escape_debug().to_string())
    };
    let (pid, host, since) = (field("pid")?, field("host")?, field("since")?);
    Some(format!("pid {pid} on host {host} since {since}"))
}

#[derive(Debug, PartialEq, Eq)]
struct Holder {
    exclusive: bool,
    pid: u32,
}

/// The holders among the lines of /proc/locks ("1: FLOCK  ADVISORY  WRITE 708 08:01:128 0 EOF");
/// none where the kernel does not show them (another host, another pid namespace).
fn parse_holders(text: &str, major: u32, minor: u32, inode: u64) -> Vec<Holder> {
    let device = format!("{major:02x}:{minor:02x}:{inode}");
    let holder = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, access, pid, at, ..] if at == device => {
                Some(Holder { exclusive: access == "WRITE", pid: pid.parse().ok()? })
            }
            _ => None,
        }
    };
    text.lines().filter_map(holder).collect()
}

fn refused(root: &Path, directory: &OwnedFd, exclusive: bool) -> Error {
    let holders = match (rustix::fs::fstat(directory), fs::read_to_string("/proc/locks")) {
        (Ok(status), Ok(text)) => {
            let (major, minor) =
                (rustix::fs::major(status.st_dev), rustix::fs::minor(status.st_dev));
            parse_holders(&text, major, minor, status.st_ino)
        }
        _ => Vec::new(),
    };
    // Shared locks exclude only a writer; and what they are excluded by is one.
    let is_writer = !exclusive || holders.iter().any(|holder| holder.exclusive);
    let name = if is_writer || holders.is_empty() { read_name(root) } else { None };
    let who = describe(is_writer, name, &holders);
    let way_out = if is_writer {
        "wait until it closes the database, or close it there"
    } else {
        "open it for reading too, or wait until the readers close it"
    };
    let path = root.display();
    Error::new(ErrorKind::Locked, format!("{path} is locked by {who}; {way_out}"))
}

fn describe(is_writer: bool, name: Option<String>, holders: &[Holder]) -> String {
    if let Some(name) = name {
        return format!("a writer ({name})");
    }
    let mut pids: Vec<_> = holders.iter().map(|holder| holder.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    let pids = pids.iter().map(|pid| process(*pid)).collect::<Vec<_>>().join(", ");
    match (is_writer, pids.is_empty()) {
        (true, true) => "a writer (which has not left its name)".to_owned(),
        (true, false) => format!("a writer ({pids})"),
        (false, true) => "a reader or a writer (which has not left its name)".to_owned(),
        (false, false) => format!("readers ({pids})"),
    }
}

/// A process of this host as its kernel shows it: "pid 12 on host h since t".
fn process(pid: u32) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let since = started(pid).map(|seconds| format!(" since {}", iso_utc(seconds * 1_000_000)));
    format!("pid {pid} on host {host}{}", since.unwrap_or_default())
}

/// When a process began, in seconds since the epoch: field 22 of its `stat` counts hundredths of a
/// second (USER_HZ) from the boot time in /proc/stat. See proc(5).
fn started(pid: u32) -> Option<i64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold spaces and parentheses.
    let behind_name = stat.rsplit_once(')')?.1;
    let ticks: i64 = behind_name.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot = system.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.trim().parse::<i64>().ok()? + ticks / 100)
}

/// "2026-01-31T23:59:59Z". Days to a date as in H. Hinnant, "chrono-compatible low-level date
/// algorithms" (`civil_from_days`), with years that begin in March.
fn iso_utc(micros: Micros) -> String {
    let seconds = micros.div_euclid(1_000_000);
    let (days, second) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        let known = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_767_225_600, "2026-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ];
        for (seconds, text) in known {
            assert_eq!(iso_utc(seconds * 1_000_000), text);
        }
    }

    /// A forked child has a copy of the descriptor, as `try_clone` makes one.
    #[test]
    fn a_copy_of_the_descriptor_neither_releases_the_lock_nor_keeps_it_from_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let lock = acquire_lock(directory.path(), true).unwrap();
        drop(lock.directory.try_clone().unwrap());
        assert!(acquire(directory.path(), false).is_err());
        let copy = lock.directory.try_clone().unwrap();
        drop(lock);
        assert!(acquire(directory.path(), true).is_ok());
        drop(copy);
    }

    #[test]
    fn another_process_does_not_empty_the_name() {
        let directory = tempfile::tempdir().unwrap();
        let mut lock = acquire_lock(directory.path(), true).unwrap();
        lock.holder += 1;
        drop(lock);
        assert!(read_name(directory.path()).is_some());
    }

    #[test]
    fn holders_are_found_by_device_and_inode() {
        let text = "1: FLOCK  ADVISORY  WRITE 708 fe:00:128 0 EOF\n\
                    1: -> FLOCK  ADVISORY  WRITE 709 fe:00:128 0 EOF\n\
                    2: POSIX  ADVISORY  READ 5 fe:00:128 0 EOF\n\
                    3: FLOCK  ADVISORY  READ 710 fe:00:129 0 EOF\n\
                    garbage\n";
        assert_eq!(parse_holders(text, 0xfe, 0, 128), [Holder { exclusive: true, pid: 708 }]);
        assert_eq!(parse_holders(text, 0xfe, 0, 129), [Holder { exclusive: false, pid: 710 }]);
        assert!(parse_holders(text, 8, 1, 128).is_empty());
    }

    #[test]
    fn a_name_is_parsed_or_absent() {
        let text = "pid 7\nhost h\nsince 2026-01-01T00:00:00Z\n";
        assert_eq!(parse_name(text).unwrap(), "pid 7 on host h since 2026-01-01T00:00:00Z");
        assert_eq!(parse_name(""), None);
        assert_eq!(parse_name("pid 7\nhost h"), None);
    }

    #[test]
    fn a_holder_is_described_by_what_is_known() {
        // No process has so large a pid: what the kernel does not show is left out.
        let (near, far) = (std::process::id(), u32::MAX);
        let holders =
            [Holder { exclusive: false, pid: far }, Holder { exclusive: false, pid: near }];
        let (this, gone) = (process(near), process(far));
        assert!(this.contains(" since 20") && !gone.contains("since"), "{this}, {gone}");
        assert_eq!(describe(false, None, &holders), format!("readers ({this}, {gone})"));
        assert_eq!(describe(true, None, &holders[..1]), format!("a writer ({gone})"));
        assert_eq!(describe(true, Some("pid 1".to_owned()), &holders), "a writer (pid 1)");
    }
}
