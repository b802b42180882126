//! The file that says "a database is here, and its creation was completed".
//!
//! `DATABASE` is written last when a database is created, so that an empty first segment can be
//! told from a creation that was cut off. It holds the database's id; the log is the authority for
//! everything else. docs/format.md, "DATABASE" is the authority for the bytes.

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{ErrorKind, Result};
use crate::log::format::DatabaseId;
use crate::storage::{Cause, Open, Share, Storage, read_exact_at};

pub const MARKER: &str = "DATABASE";
const MAGIC: &[u8; 8] = b"WAFERDB\n";
const BYTES: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    Absent,
    /// There and unreadable: a creation cut off, or damage; the log decides.
    Damaged,
    Sound(DatabaseId),
}

pub fn read(storage: &dyn Storage) -> Result<Marker> {
    let file = match storage.open(MARKER, Open::Read) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Marker::Absent),
        other => other?,
    };
    let mut bytes = [0u8; BYTES];
    if !read_exact_at(&*file, &mut bytes, 0)? || bytes[..8] != *MAGIC {
        return Ok(Marker::Damaged);
    }
    let sum = u64::from_le_bytes(bytes[24..].try_into().expect("eight bytes"));
    if sum != xxh3_64(&bytes[..24]) {
        return Ok(Marker::Damaged);
    }
    Ok(Marker::Sound(bytes[8..24].try_into().expect("sixteen bytes")))
}

/// Writes the marker anew and makes it durable.
pub fn write(storage: &dyn Storage, database: &DatabaseId) -> Result<()> {
    let mut bytes = [0u8; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..24].copy_from_slice(database);
    let sum = xxh3_64(&bytes[..24]);
    bytes[24..].copy_from_slice(&sum.to_le_bytes());
    let file = match storage.open(MARKER, Open::Write) {
        Err(error) if error.kind() == ErrorKind::NotFound => storage.open(MARKER, Open::Create)?,
        other => other?,
    };
    file.write_at(&bytes, 0, &[Share::new(0, Cause::Log, BYTES)])?;
    file.sync()?;
    storage.sync_dir("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;

    #[test]
    fn golden_marker() {
        let storage = MemoryStorage::new();
        assert_eq!(read(&storage).unwrap(), Marker::Absent);
        write(&storage, b"0123456789abcdef").unwrap();
        let file = storage.open(MARKER, Open::Read).unwrap();
        let mut bytes = [0u8; BYTES];
        assert!(read_exact_at(&*file, &mut bytes, 0).unwrap());
        assert_eq!(&bytes[..24], b"WAFERDB\n0123456789abcdef");
        assert_eq!(u64::from_le_bytes(bytes[24..].try_into().unwrap()), xxh3_64(&bytes[..24]));
        assert_eq!(read(&storage).unwrap(), Marker::Sound(*b"0123456789abcdef"));
        let file = storage.open(MARKER, Open::Write).unwrap();
        file.write_at(b"X", 9, &[Share::new(0, Cause::Log, 1)]).unwrap();
        assert_eq!(read(&storage).unwrap(), Marker::Damaged);
    }
}
