//! The files of a damaged log: which segment each is, though its name or its header may not say so.

use std::sync::Arc;

use super::report::Damage;
use crate::error::{Error, ErrorKind, Result};
use crate::log::format::{DatabaseId, SEGMENT_BYTES_MAX, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::log::segment::{self, LOG_DIR, Segment};
use crate::marker::{self, Marker};
use crate::storage::{File, Open, Storage, read_exact_at};

/// The files of a log, as far as they can be read.
pub struct Source {
    pub database: DatabaseId,
    pub segments: Vec<Segment>,
    /// Of all its files.
    pub bytes: u64,
    /// What was found wrong with files as a whole.
    pub(super) unread: Vec<Damage>,
    /// Headers that hold: of the others the length of the file says nothing.
    pub(super) whole: Vec<bool>,
}

impl Source {
    pub fn open(storage: &dyn Storage) -> Result<Self> {
        let names = match storage.list(LOG_DIR) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        let marker = marker::read(storage).unwrap_or(Marker::Damaged);
        let numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
        if numbers.is_empty() && marker == Marker::Absent {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no database at {}: it has no log; check the path", storage.name()),
            ));
        }
        let mut unread = Vec::new();
        let mut found = Vec::new();
        for number in numbers {
            match read_header(storage, number) {
                Ok(read) => found.push(read),
                Err(error) if error.kind() == ErrorKind::Format => return Err(error),
                Err(error) => unread.push(Damage::of(number, 0, error.message())),
            }
        }
        let stored = found.iter().find_map(|read| Some(read.header.as_ref()?.database));
        let database = match marker {
            Marker::Sound(database) => Some(database),
            Marker::Absent | Marker::Damaged => stored,
        };
        let raw = || found.first().map(|read| read.raw[16..32].try_into().expect("16 bytes"));
        let database = database.or_else(raw).unwrap_or_default();
        let mut known: Vec<(Segment, bool)> = Vec::new();
        for read in found {
            let number = read.number;
            match read.segment(&database, &mut unread) {
                Some((segment, _)) if known.iter().any(|(other, _)| same(other, &segment)) => {
                    let what = "a second copy of another segment, which was passed by";
                    unread.push(Damage::of(number, 0, what));
                }
                Some(segment) => known.push(segment),
                None => {}
            }
        }
        known.sort_by_key(|(segment, _)| segment.header.segment);
        let lengths = known.iter().map(|(segment, _)| segment.file.len().unwrap_or(0));
        let bytes = lengths.sum();
        let (segments, whole) = known.into_iter().unzip();
        Ok(Self { database, segments, bytes, unread, whole })
    }
}

fn same(one: &Segment, other: &Segment) -> bool {
    one.header.segment == other.header.segment
}

struct Header {
    number: u64,
    header: Option<SegmentHeader>,
    raw: [u8; SEGMENT_HEADER_BYTES],
    file: Arc<dyn File>,
}

fn read_header(storage: &dyn Storage, number: u64) -> Result<Header> {
    let path = segment::path(number);
    let file = storage.open(&path, Open::Read)?;
    let mut raw = [0u8; SEGMENT_HEADER_BYTES];
    if !read_exact_at(&*file, &mut raw, 0)? {
        return Err(Error::corruption("the file ends within its header"));
    }
    let header = match SegmentHeader::decode(&raw, &path) {
        Err(error) if error.kind() == ErrorKind::UnknownFormat => None,
        decoded => decoded?,
    };
    Ok(Header { number, header, raw, file })
}

impl Header {
    /// The segment, and whether its header holds. Where it does not, its salt is tried as it
    /// stands: a group whose sum holds with it proves it.
    fn segment(self, database: &DatabaseId, unread: &mut Vec<Damage>) -> Option<(Segment, bool)> {
        let behind = SEGMENT_HEADER_BYTES as u64;
        match self.header {
            Some(header) if header.database != *database => {
                let what = "it belongs to another database";
                unread.push(Damage::of(self.number, 0, what));
                None
            }
            Some(header) => {
                if header.segment != self.number {
                    let what = format!("it is segment {} under another's name", header.segment);
                    unread.push(Damage::of(self.number, 0, what));
                }
                Some((Segment::new(header, self.file), true))
            }
            // A creation that was cut off.
            None if segment::last_nonzero(&*self.file, behind).ok().flatten().is_none() => {
                if self.raw.iter().any(|byte| *byte != 0) || self.number == 1 {
                    unread.push(Damage::of(self.number, 0, "it holds no group"));
                }
                None
            }
            None => {
                unread.push(Damage::of(self.number, 0, "its header does not hold"));
                let word = |at: usize| {
                    u64::from_le_bytes(self.raw[at..at + 8].try_into().expect("eight bytes"))
                };
                let header = SegmentHeader {
                    database: *database,
                    segment: self.number,
                    salt: word(40),
                    epoch: 0,
                    first_group: 0,
                    first_lsn: 0,
                    capacity: SEGMENT_BYTES_MAX,
                    created: 0,
                };
                Some((Segment::new(header, self.file), false))
            }
        }
    }
}
