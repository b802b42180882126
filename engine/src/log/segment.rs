//! Segment files: names, creation, opening.
//!
//! A segment is created whole: space reserved, header written, file and directory synced, before
//! anything refers to it. So a full disk is found here, before a commit starts.

use std::sync::{Arc, OnceLock};

use super::format::{self, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::error::{Error, Result};
use crate::sabotage::{Bug, is_planted};
use crate::storage::aligned::AlignedBuffer;
use crate::storage::{Cause, File, Map, Open, Share, Storage, read_exact_at};
use crate::sync::atomic::{AtomicU32, Ordering};

pub const LOG_DIR: &str = "log";

pub fn path(segment: u64) -> String {
    format!("{LOG_DIR}/{segment:08}.wal")
}

/// The number in a segment's file name, `None` for other names.
pub fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let canonical = digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = canonical.then(|| digits.parse().ok()).flatten()?;
    (format!("{number:08}") == digits && number > 0).then_some(number)
}

#[derive(Clone)]
pub struct Segment {
    pub header: SegmentHeader,
    pub file: Arc<dyn File>,
    /// Of a sealed segment, once it was asked for.
    map: Arc<OnceLock<Option<Map>>>,
    /// How often somebody asked for a value of it.
    asked: Arc<AtomicU32>,
}

/// A segment of which as many values were asked for as one in so many of its pages is read as a
/// whole: by then reading it page by page has cost about as much. It was written past the page
/// cache.
const PAGES_TO_A_READ: u64 = 64;
const PAGE_BYTES: u64 = 4 << 10;

impl Segment {
    pub fn new(header: SegmentHeader, file: Arc<dyn File>) -> Self {
        Self { header, file, map: Arc::default(), asked: Arc::default() }
    }

    /// The bytes of a segment that is sealed: it has its last length and is never written again.
    pub fn map(&self) -> Option<Map> {
        self.map.get_or_init(|| self.file.map()).clone()
    }

    /// Somebody asked for a value of it.
    pub fn note_read(&self) {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let many = (self.header.capacity / PAGE_BYTES / PAGES_TO_A_READ) as u32;
        // Again where it goes on, for one that grows meanwhile.
        if asked >= many && asked.is_power_of_two() {
            self.file.will_need(0..self.header.capacity);
        }
    }
}

/// Creates a segment and makes it and its name durable.
pub fn create(storage: &dyn Storage, header: SegmentHeader) -> Result<Segment> {
    let path = path(header.segment);
    let file = match storage.open(&path, Open::Create) {
        Ok(file) => file,
        // Nothing refers to this number: an earlier attempt that could not clean up behind itself.
        Err(_) if storage.open(&path, Open::Read).is_ok() => {
            storage.remove(&path)?;
            storage.open(&path, Open::Create)?
        }
        Err(error) => return Err(error),
    };
    let made = reserve_and_write(&*file, &header).and_then(|()| {
        if is_planted(Bug::AckBeforeDirectorySync) { Ok(()) } else { storage.sync_dir(LOG_DIR) }
    });
    if let Err(error) = made {
        // Nothing refers to the file yet; leaving it would only hold the space.
        drop(file);
        return match storage.remove(&path) {
            Ok(()) => Err(error),
            Err(second) => Err(error.context(format!("and {path} stays behind ({second})"))),
        };
    }
    Ok(Segment::new(header, file))
}

fn reserve_and_write(file: &dyn File, header: &SegmentHeader) -> Result<()> {
    file.allocate(header.capacity)?;
    let mut buffer = AlignedBuffer::with_capacity(SEGMENT_HEADER_BYTES);
    buffer.extend(&header.encode());
    file.write_at(buffer.padded(), 0, &[Share::new(0, Cause::Log, SEGMENT_HEADER_BYTES)])?;
    file.sync()
}

/// The same segment with a handle to write.
pub fn writable(storage: &dyn Storage, segment: &Segment) -> Result<Segment> {
    let file = storage.open(&path(segment.header.segment), Open::Write)?;
    Ok(Segment::new(segment.header.clone(), file))
}

/// What stands in a segment file's first bytes.
pub enum Opened {
    Sound(Segment),
    /// The header does not hold, and every byte behind it is zero: its creation was cut off.
    TornCreation,
}

pub fn open(storage: &dyn Storage, segment: u64) -> Result<Opened> {
    let path = path(segment);
    let file = storage.open(&path, Open::Read)?;
    let mut bytes = [0u8; SEGMENT_HEADER_BYTES];
    let whole = read_exact_at(&*file, &mut bytes, 0)?;
    let decoded = if whole { SegmentHeader::decode(&bytes, &path)? } else { None };
    match decoded {
        Some(header) if header.segment == segment => Ok(Opened::Sound(Segment::new(header, file))),
        Some(header) => Err(Error::corruption(format!(
            "{path} holds segment {}: files were exchanged or renamed; put them back, nothing was \
             changed",
            header.segment
        ))),
        None if zeros_behind_header(&*file)? => Ok(Opened::TornCreation),
        None => Err(Error::corruption(format!(
            "the header of {path} does not hold and records lie behind it; restore the file from \
             a backup, nothing was changed"
        ))),
    }
}

fn zeros_behind_header(file: &dyn File) -> Result<bool> {
    Ok(last_nonzero(file, SEGMENT_HEADER_BYTES as u64)?.is_none())
}

/// The group boundary behind the last byte at or after `from` that is not zero.
pub fn last_nonzero(file: &dyn File, from: u64) -> Result<Option<u64>> {
    let length = file.len()?;
    let mut chunk = vec![0u8; 256 << 10];
    let mut found = None;
    let mut at = from;
    while at < length {
        let wanted = chunk.len().min((length - at) as usize);
        let count = file.read_at(&mut chunk[..wanted], at)?;
        if count == 0 {
            break;
        }
        let bytes = &chunk[..count];
        // Eight bytes at a time; whole chunks of zeros are the common case.
        if bytes.chunks(4096).any(|page| page.iter().any(|byte| *byte != 0)) {
            let last = bytes.iter().rposition(|byte| *byte != 0).expect("one is not zero");
            found = Some(format::align_up(at + last as u64 + 1));
        }
        at += count as u64;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_names_are_segments() {
        assert_eq!(number("00000001.wal"), Some(1));
        assert_eq!(number("123456789.wal"), Some(123_456_789));
        for name in ["1.wal", "00000000.wal", "000000001.wal", "00000001.wal~", "x0000001.wal"] {
            assert_eq!(number(name), None, "{name}");
        }
        assert_eq!(number(path(42).strip_prefix("log/").unwrap()), Some(42));
    }
}
