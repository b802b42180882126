//! Reads the log: walks the groups of a segment, and answers point reads.
//!
//! Invariants:
//! 1. Nothing leaves here that has not passed its checksum at the place it was read from.
//! 2. Memory is bounded by one window and one group, whatever a damaged length claims.
//! 3. Only a sealed segment is mapped; the active one, and one under repair, is read by `pread`.

use std::ops::Range;
use std::sync::Arc;

use super::format::{
    self, DatabaseId, GROUP_HEADER_BYTES, GroupHeader, Identity, Place, RecordKind,
    SEGMENT_HEADER_BYTES,
};
use super::queue;
use super::record::{self, FrameValue, Record, RecordPlace};
use super::segment::Segment;
use super::writer::Segments;
use super::{Lsn, Pointer};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::bytes::{self, Bytes};
use crate::storage::{Map, read_exact_at};
use crate::sync::RwLock;

/// What is read at once: small at first, since most segments that are walked are small.
const WINDOW_BYTES_MIN: usize = 32 << 10;
const WINDOW_BYTES_MAX: usize = 1 << 20;

/// Which epoch wrote which LSNs: epoch and its first LSN, ascending.
#[derive(Default)]
pub struct Epochs(RwLock<Vec<(u64, Lsn)>>);

impl Epochs {
    pub fn add(&self, epoch: u64, first_lsn: Lsn) {
        let mut epochs = self.0.write();
        if epochs.last().is_none_or(|last| last.0 < epoch) {
            epochs.push((epoch, first_lsn));
        }
    }

    pub fn clear(&self) {
        self.0.write().clear();
    }

    pub fn of(&self, lsn: Lsn) -> u64 {
        let epochs = self.0.read();
        let after = epochs.partition_point(|entry| entry.1 <= lsn);
        after.checked_sub(1).map_or(0, |index| epochs[index].0)
    }
}

/// A group that passed every check.
pub struct GroupRead {
    pub header: GroupHeader,
    pub offset: u64,
    pub end: u64,
    pub records: Vec<Record>,
}

pub enum Step {
    Group(Box<GroupRead>),
    /// The file ends at a group boundary, or only zeros follow in the header's place.
    End,
    /// Bytes that are no whole group.
    Bad(Error),
}

/// What the next group must continue.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    pub group: u64,
    pub lsn: Lsn,
    pub epoch: u64,
}

pub struct Walker<'a> {
    segment: &'a Segment,
    database: DatabaseId,
    window: Vec<u8>,
    window_start: u64,
    pub offset: u64,
    pub expected: Expected,
}

impl<'a> Walker<'a> {
    pub fn new(segment: &'a Segment, expected: Expected) -> Self {
        Self {
            segment,
            database: segment.header.database,
            window: Vec::new(),
            window_start: 0,
            offset: SEGMENT_HEADER_BYTES as u64,
            expected,
        }
    }

    /// The next group; the walker moves behind it only if it is sound.
    pub fn step(&mut self) -> Result<Step> {
        let offset = self.offset;
        let Some(header_bytes) = self.read(offset, GROUP_HEADER_BYTES)? else {
            return Ok(Step::End);
        };
        if header_bytes.iter().all(|byte| *byte == 0) {
            return Ok(Step::End);
        }
        let header_bytes: [u8; GROUP_HEADER_BYTES] =
            header_bytes.try_into().expect("read as many bytes");
        let (segment, database) = (self.segment, self.database);
        let tag = format::position_tag(segment.header.salt, segment.header.segment, offset);
        let Some(header) = GroupHeader::decode(&header_bytes, &database, tag) else {
            return Ok(Step::Bad(self.bad("no sound group header")));
        };
        if let Some(problem) = self.out_of_order(&header) {
            return Ok(Step::Bad(self.bad(&problem)));
        }
        // The padding is there too, or the file was cut.
        let padded = format::align_up(u64::from(header.bytes)) as usize;
        if offset + padded as u64 > segment.header.capacity {
            return Ok(Step::Bad(self.bad("a group beyond the segment's capacity")));
        }
        let Some(bytes) = self.read(offset, padded)? else {
            return Ok(Step::Bad(self.bad("the file ends within the group")));
        };
        let bytes = &bytes[..header.bytes as usize];
        match decode_group(&header, bytes, segment, offset, &database) {
            Ok(records) => {
                let end = offset + format::align_up(u64::from(header.bytes));
                self.offset = end;
                self.expected = Expected {
                    group: header.group + 1,
                    lsn: header.first_lsn + u64::from(header.commits),
                    epoch: header.epoch,
                };
                Ok(Step::Group(Box::new(GroupRead { header, offset, end, records })))
            }
            Err(error) if error.kind() == ErrorKind::Format => Err(error),
            Err(error) => Ok(Step::Bad(error)),
        }
    }

    /// Whether a sound group of this segment starts at `offset`, whatever its number.
    pub fn sound_header_at(&mut self, offset: u64) -> Result<Option<GroupHeader>> {
        let (database, segment) = (self.database, self.segment.header.segment);
        let salt = self.segment.header.salt;
        let Some(bytes) = self.read(offset, GROUP_HEADER_BYTES)? else {
            return Ok(None);
        };
        let bytes = bytes.try_into().expect("read as many bytes");
        let tag = format::position_tag(salt, segment, offset);
        Ok(GroupHeader::decode(bytes, &database, tag))
    }

    fn out_of_order(&self, header: &GroupHeader) -> Option<String> {
        let Expected { group, lsn, epoch } = self.expected;
        if header.group != group {
            return Some(format!("group {} where {group} was due", header.group));
        }
        if header.first_lsn != lsn {
            return Some(format!("LSN {} where {lsn} was due", header.first_lsn));
        }
        // No writer comes near the end of the numbers.
        let end = header.first_lsn.checked_add(u64::from(header.commits));
        if end.is_none_or(|end| end == u64::MAX) || group == u64::MAX {
            return Some("numbers beyond all that can be".to_owned());
        }
        (header.epoch < epoch).then(|| format!("epoch {} after {epoch}", header.epoch))
    }

    fn bad(&self, what: &str) -> Error {
        let file = super::segment::path(self.segment.header.segment);
        Error::corruption(format!("{file} offset {}: {what}", self.offset))
    }

    /// `None`: the file ends before.
    fn read(&mut self, offset: u64, length: usize) -> Result<Option<&[u8]>> {
        let held = self.window_start + self.window.len() as u64;
        if offset < self.window_start || offset + length as u64 > held {
            let file_length = self.segment.file.len()?;
            if offset + length as u64 > file_length {
                return Ok(None);
            }
            let grown = (self.window.len() * 2).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
            let wanted = length.max(grown).min((file_length - offset) as usize);
            self.window.resize(wanted, 0);
            self.window_start = offset;
            if !read_exact_at(&*self.segment.file, &mut self.window, offset)? {
                self.window.clear();
                return Ok(None);
            }
        }
        let start = (offset - self.window_start) as usize;
        Ok(Some(&self.window[start..start + length]))
    }
}

fn decode_group(
    header: &GroupHeader,
    bytes: &[u8],
    segment: &Segment,
    offset: u64,
    database: &DatabaseId,
) -> Result<Vec<Record>> {
    let identity = Identity { database: *database, epoch: header.epoch };
    let mut records = Vec::new();
    let mut at = GROUP_HEADER_BYTES;
    let mut next_lsn = header.first_lsn;
    while at < bytes.len() {
        let place = RecordPlace {
            identity,
            salt: segment.header.salt,
            segment: segment.header.segment,
            offset: offset + at as u64,
        };
        let (record, length) = record::decode(&bytes[at..], place)?;
        if let Record::Commit(commit) = &record {
            if commit.lsn != next_lsn {
                return Err(Error::corruption(format!(
                    "LSN {} within a group where {next_lsn} was due",
                    commit.lsn
                )));
            }
            next_lsn += 1;
        }
        records.push(record);
        at += length;
    }
    let commits = (next_lsn - header.first_lsn) as u32;
    if records.len() != header.records as usize || commits != header.commits {
        return Err(Error::corruption("a group of another count than its header says"));
    }
    Ok(records)
}

/// Where a control record lies, and what its sum is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlAt {
    pub place: Place,
    /// Of the whole record.
    pub bytes: u32,
    pub epoch: u64,
}

/// The kernel takes no more of a hint than it reads ahead, 128 KiB being its least usual setting.
const HINT_BYTES: u64 = 128 << 10;

/// Point reads by pointer, checked; shared by every reader of the database.
#[derive(Clone)]
pub struct PointReader {
    pub database: DatabaseId,
    pub segments: Arc<Segments>,
    pub epochs: Arc<Epochs>,
}

/// A segment, and where its bytes are taken from. `unsynced` answers for bytes that are not in the
/// file yet, which those of a sealed segment always are.
struct Source<'a, Unsynced> {
    segment: Segment,
    map: Option<Map>,
    unsynced: &'a Unsynced,
}

impl<Unsynced: Fn(u64, u64, &mut [u8]) -> bool> Source<'_, Unsynced> {
    fn bytes(&self, offset: u64, length: usize) -> Result<Bytes> {
        let found = match &self.map {
            Some(map) => Bytes::mapped(Map::clone(map), offset, length),
            None => self.copied(offset, length)?.map(Bytes::from),
        };
        found.ok_or_else(|| {
            Error::corruption(format!(
                "segment {} ends before offset {}: it was truncated; restore it from a backup",
                self.segment.header.segment,
                offset.saturating_add(length as u64)
            ))
        })
    }

    fn copied(&self, offset: u64, length: usize) -> Result<Option<Arc<[u8]>>> {
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, length).collect();
        let into = Arc::get_mut(&mut bytes).expect("nobody else has them yet");
        let whole = (self.unsynced)(self.segment.header.segment, offset, into)
            || read_exact_at(&*self.segment.file, into, offset)?;
        Ok(whole.then_some(bytes))
    }
}

impl PointReader {
    /// The bytes of a value as it is stored, and whether that is compressed. `unsynced` answers for
    /// bytes that are not in the file yet.
    pub fn value(
        &self,
        pointer: &Pointer,
        unsynced: impl Fn(u64, u64, &mut [u8]) -> bool,
    ) -> Result<(Bytes, bool)> {
        self.value_from(&self.source(pointer, &unsynced)?, pointer)
    }

    /// The same of a segment that is sealed and can be mapped; `None`: it must be read.
    pub fn mapped_value(&self, pointer: &Pointer) -> Result<Option<(Bytes, bool)>> {
        if !self.segments.is_sealed(pointer.segment) {
            return Ok(None);
        }
        let source = self.source(pointer, &|_, _, _: &mut [u8]| false)?;
        let mapped = source.map.is_some();
        mapped.then(|| self.value_from(&source, pointer)).transpose()
    }

    /// A mapped value will soon be asked for.
    pub fn prefetch(&self, pointer: &Pointer) {
        if let Some(map) = self.segments.sealed_map(pointer.segment) {
            bytes::prefetch(&map, pointer.offset, pointer.length as usize);
        }
    }

    /// Values between these places of a segment will be asked for.
    pub fn will_need(&self, segment: u64, bytes: Range<u64>) {
        let Some(segment) = self.segments.get(segment) else { return };
        let starts = bytes.clone().step_by(HINT_BYTES as usize);
        starts.for_each(|start| segment.file.will_need(start..bytes.end.min(start + HINT_BYTES)));
    }

    fn value_from<Unsynced: Fn(u64, u64, &mut [u8]) -> bool>(
        &self,
        source: &Source<'_, Unsynced>,
        pointer: &Pointer,
    ) -> Result<(Bytes, bool)> {
        let place = self.place(&source.segment, pointer);
        let frame = source.bytes(pointer.offset, pointer.length as usize)?;
        match record::read_frame(&frame, place, pointer.lsn)? {
            FrameValue::Here(range, packed) => Ok((frame.part(range), packed)),
            FrameValue::Back { distance, length, packed, sum, structure, key_hash } => {
                let bytes = owned_value(source, pointer, (distance, length, packed))?;
                let hash = format::content_hash(&bytes);
                record::check_value(hash, sum, place, structure, key_hash, pointer.lsn)?;
                Ok((bytes, packed))
            }
        }
    }

    /// A whole commit record.
    pub fn commit(
        &self,
        pointer: &Pointer,
        unsynced: impl Fn(u64, u64, &mut [u8]) -> bool,
    ) -> Result<record::Commit> {
        let source = self.source(pointer, &unsynced)?;
        let bytes = source.bytes(pointer.offset, pointer.length as usize)?;
        match record::decode(&bytes, self.place(&source.segment, pointer))? {
            (Record::Commit(commit), _) if commit.lsn == pointer.lsn => Ok(commit),
            _ => {
                Err(Error::corruption(format!("LSN {} does not lie where it should", pointer.lsn)))
            }
        }
    }

    /// The body of a durable control record.
    pub fn control(&self, kind: RecordKind, at: &ControlAt) -> Result<Vec<u8>> {
        let Place { segment, offset } = at.place;
        let lost = || Error::corruption(format!("segment {segment}, which holds it, is not there"));
        let holder = self.segments.get(segment).ok_or_else(lost)?;
        // Lengths come from a checkpoint; a segment's own bounds what is allocated.
        if offset.saturating_add(u64::from(at.bytes)) > holder.header.capacity {
            return Err(Error::corruption("a control record beyond its segment"));
        }
        let identity = Identity { database: self.database, epoch: at.epoch };
        let place = RecordPlace { identity, salt: holder.header.salt, segment, offset };
        let durable = |_, _, _: &mut [u8]| false;
        let source = Source { segment: holder, map: None, unsynced: &durable };
        let bytes = source.bytes(offset, at.bytes as usize)?;
        match record::decode(&bytes, place)? {
            (Record::Control { kind: found, body, .. }, length)
                if found == kind && length == bytes.len() =>
            {
                Ok(body)
            }
            _ => Err(Error::corruption("another record lies in its place")),
        }
    }

    fn source<'a, Unsynced>(
        &self,
        pointer: &Pointer,
        unsynced: &'a Unsynced,
    ) -> Result<Source<'a, Unsynced>> {
        let segment = self.segments.get(pointer.segment).filter(|_| queue::plausible(pointer));
        let segment = segment.ok_or_else(|| {
            Error::corruption(format!(
                "LSN {} points into segment {}, which is not there",
                pointer.lsn, pointer.segment
            ))
        })?;
        segment.note_read();
        let map = self.segments.sealed_map(pointer.segment);
        Ok(Source { segment, map, unsynced })
    }

    fn place(&self, segment: &Segment, pointer: &Pointer) -> RecordPlace {
        RecordPlace {
            identity: Identity { database: self.database, epoch: self.epochs.of(pointer.lsn) },
            salt: segment.header.salt,
            segment: pointer.segment,
            offset: pointer.offset,
        }
    }
}

/// The value of the frame `distance` before the one at `pointer`, still unchecked.
fn owned_value<Unsynced: Fn(u64, u64, &mut [u8]) -> bool>(
    source: &Source<'_, Unsynced>,
    pointer: &Pointer,
    (distance, length, packed): (u64, usize, bool),
) -> Result<Bytes> {
    let out_of_range = || Error::corruption("a back-reference out of range");
    let offset = pointer.offset.checked_sub(distance).ok_or_else(out_of_range)?;
    if distance < length as u64 {
        return Err(out_of_range());
    }
    // The owner's value ends its frame, and what lies between the two frames is unknown: read the
    // owner's head first, then exactly its value.
    let head_bytes = (distance as usize).min(record::FRAME_HEAD_BYTES_MAX);
    let head = source.bytes(offset, head_bytes)?;
    let value_at = record::stored_value_start(&head, length, packed)?;
    source.bytes(offset + value_at as u64, length)
}
