//! Makes groups durable, one at a time: one write, one sync.
//!
//! Layout (docs/decisions/0002-segment-layout.md): small groups go to zeros written ahead, which
//! turns each sync into a pure overwrite; large groups go straight to the reserved space.
//! Invariants:
//! 1. At most one group is unsynced at any time.
//! 2. Zeros are written only behind the end of every group handed to the file (`Ahead`).
//! 3. A failed write or sync is never tried again: the caller must stop writing for good.
//! 4. A segment that a later one has taken over from is sealed: it is never changed again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::format::{self, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::queue::Group;
use super::segment::{self, Segment};
use crate::error::Result;
use crate::sabotage::{Bug, is_planted};
use crate::storage::aligned::AlignedBuffer;
use crate::storage::{Cause, File, Map, Open, Share, Storage};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock};

/// Zeros are written ahead in pieces of this.
const AHEAD_BYTES_MIN: u64 = 256 << 10;
/// Large enough that the step which writes ahead comes before a committer at ten thousand a second.
const AHEAD_BYTES_MAX: u64 = 1 << 20;
/// Below this mean group size zeros written ahead pay for themselves.
const AHEAD_GROUP_BYTES_MAX: u64 = 12 << 10;

/// The part of the active segment that holds zeros and awaits groups.
struct Ahead {
    segment: u64,
    file: Arc<dyn File>,
    capacity: u64,
    /// Only grows; bytes in `[end of last group, zeroed)` are durable zeros or being overwritten.
    zeroed: AtomicU64,
    /// The file ends behind its last group: nothing is written ahead any more.
    sealed: AtomicBool,
    /// Held while zeros are written, and by a group that goes beyond them.
    writing: Mutex<()>,
}

impl Ahead {
    fn new(segment: &Segment, from: u64) -> Arc<Self> {
        Arc::new(Self {
            segment: segment.header.segment,
            file: Arc::clone(&segment.file),
            capacity: segment.header.capacity,
            zeroed: AtomicU64::new(from),
            sealed: AtomicBool::new(false),
            writing: Mutex::new(()),
        })
    }

    fn piece(&self) -> u64 {
        format::align_up(self.capacity / 8).clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX)
    }

    /// Hands `[.., end)` to a group. `zeros`: write ahead of it where that is not done yet.
    fn claim(&self, end: u64, zeros: bool) -> Result<()> {
        if end <= self.zeroed.load(Ordering::Acquire) {
            return Ok(());
        }
        let _writing = self.writing.lock();
        let from = self.zeroed.load(Ordering::Acquire);
        if end <= from {
            return Ok(());
        }
        self.zeroed.store(end, Ordering::Release);
        if zeros {
            self.write_zeros(&*self.file, end)?;
        }
        Ok(())
    }

    /// Zeros the next piece, durably, if less than half a piece is left. Through a handle of its
    /// own: the kernel tells a handle of an error once, and the groups' must not miss theirs.
    fn extend(&self, storage: &dyn Storage, group_end: u64) -> Result<bool> {
        let _writing = self.writing.lock();
        let from = self.zeroed.load(Ordering::Acquire);
        let sealed = self.sealed.load(Ordering::Acquire);
        if sealed || from >= self.capacity || from.saturating_sub(group_end) > self.piece() / 2 {
            return Ok(false);
        }
        // Without a handle to spare the commits write their own zeros.
        let Ok(file) = storage.open(&segment::path(self.segment), Open::Write) else {
            return Ok(false);
        };
        self.write_zeros(&*file, from)?;
        file.sync()?;
        Ok(true)
    }

    fn write_zeros(&self, file: &dyn File, from: u64) -> Result<()> {
        let end = (from + self.piece()).min(self.capacity);
        if end <= from {
            return Ok(());
        }
        let zeros = AlignedBuffer::zeroed((end - from) as usize);
        let share = Share::new(0, Cause::Log, zeros.len());
        file.write_at(zeros.padded(), from, &[share])?;
        self.zeroed.store(end, Ordering::Release);
        Ok(())
    }
}

/// The segments that can be read from, by number.
#[derive(Default)]
pub struct Segments {
    known: RwLock<BTreeMap<u64, Segment>>,
    /// Segments with lower numbers are sealed: nobody writes or trims them any more.
    sealed_below: AtomicU64,
}

impl Segments {
    pub fn add(&self, segment: Segment) {
        self.known.write().insert(segment.header.segment, segment);
    }

    pub fn remove(&self, number: u64) {
        self.known.write().remove(&number);
    }

    pub fn get(&self, number: u64) -> Option<Segment> {
        self.known.read().get(&number).cloned()
    }

    pub fn all(&self) -> Vec<Segment> {
        self.known.read().values().cloned().collect()
    }

    pub fn is_sealed(&self, number: u64) -> bool {
        number < self.sealed_below.load(Ordering::Acquire)
    }

    /// The bytes of a sealed segment, where its storage can map it.
    pub fn sealed_map(&self, number: u64) -> Option<Map> {
        if !self.is_sealed(number) {
            return None;
        }
        // Not under the lock: it may read from the disk.
        self.get(number)?.map()
    }

    /// The writer has begun with segment `active`.
    fn seal_below(&self, active: u64) {
        self.sealed_below.fetch_max(active, Ordering::AcqRel);
    }
}

pub struct Writer {
    segments: Arc<Segments>,
    active: Segment,
    ahead: Arc<Ahead>,
    /// End of the last group written, shared with the step that writes zeros ahead.
    group_end: u64,
    mean_group_bytes: u64,
}

impl Writer {
    /// `end`: behind the last group of `active`. Whatever was to be repaired in the segments
    /// before it has been.
    pub fn new(segments: Arc<Segments>, active: Segment, end: u64) -> Self {
        segments.seal_below(active.header.segment);
        let ahead = Ahead::new(&active, end);
        Self { segments, active, ahead, group_end: end, mean_group_bytes: 0 }
    }

    /// Writes and syncs one closed group. After an error nothing may be written any more.
    pub fn write(&mut self, group: &Group) -> Result<()> {
        if group.segment != self.active.header.segment {
            let next = self.segments.get(group.segment);
            self.active = next.expect("a group's segment exists before the group");
            self.ahead = Ahead::new(&self.active, SEGMENT_HEADER_BYTES as u64);
            self.segments.seal_below(group.segment);
        }
        let bytes = group.buffer.padded();
        self.mean_group_bytes = match self.mean_group_bytes {
            0 => bytes.len() as u64,
            mean => (mean * 7 + bytes.len() as u64) / 8,
        };
        self.ahead.claim(group.end(), self.small_groups())?;
        self.active.file.write_at(bytes, group.offset, &group.shares)?;
        if !is_planted(Bug::AckBeforeSync) {
            self.active.file.sync()?;
        }
        self.group_end = group.end();
        if group.seals {
            self.trim(group.end())?;
        }
        Ok(())
    }

    /// Gives back what was reserved behind the last group of a segment that ends here.
    pub fn trim(&mut self, end: u64) -> Result<()> {
        let _writing = self.ahead.writing.lock();
        self.ahead.sealed.store(true, Ordering::Release);
        self.active.file.truncate(end)?;
        self.active.file.sync()
    }

    fn small_groups(&self) -> bool {
        self.mean_group_bytes < AHEAD_GROUP_BYTES_MAX
    }

    /// The work of zeroing ahead, to be done outside the writer's lock; `None`: nothing to do.
    pub fn ahead_step(&self) -> Option<impl FnOnce(&dyn Storage) -> Result<bool> + use<>> {
        if !self.small_groups() || self.mean_group_bytes == 0 {
            return None;
        }
        let (ahead, group_end) = (Arc::clone(&self.ahead), self.group_end);
        let left = ahead.zeroed.load(Ordering::Acquire).saturating_sub(group_end);
        (left <= ahead.piece() / 2)
            .then_some(move |storage: &dyn Storage| ahead.extend(storage, group_end))
    }

    /// Creates the next segment, durable, ready to be offered to the queue.
    pub fn create_segment(
        storage: &dyn Storage,
        segments: &Segments,
        header: SegmentHeader,
    ) -> Result<SegmentHeader> {
        let segment = segment::create(storage, header)?;
        let header = segment.header.clone();
        segments.add(segment);
        Ok(header)
    }
}
