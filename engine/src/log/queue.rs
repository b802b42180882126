//! Groups of records, assembled in memory and waiting for the writer.
//!
//! Invariants:
//! 1. A record's place is final when it is pushed: it lies in a segment that already exists,
//!    behind everything pushed before it, so its sums and pointers never change.
//! 2. Groups leave in the order they were opened; at most the last one is open.
//! 3. Every segment keeps room for its seal (`SEGMENT_RESERVE`).
//!
//! It does no I/O and takes no lock: its owner holds it under the sequencing lock.

use std::collections::VecDeque;
use std::sync::Arc;

use super::format::{
    self, GROUP_HEADER_BYTES, GroupHeader, Identity, Place, RECORD_HEADER_BYTES, RecordKind,
    SEGMENT_HEADER_BYTES, SegmentHeader,
};
use super::record::{self, EncodedHead, Frames, RecordPlace};
use super::{Lsn, Pointer};
use crate::storage::aligned::AlignedBuffer;
use crate::storage::{Cause, Share};
use crate::sync::Condvar;

/// Kept free at the end of a segment: the seal or close group, and one idle group.
pub const SEGMENT_RESERVE: u64 = 3 * format::GROUP_ALIGN;
/// An open group beyond this is closed when the next record comes.
const GROUP_BYTES_SOFT: usize = 4 << 20;

/// Where the callers of a group wait until it is durable and applied, or until one must lead.
#[derive(Default)]
pub struct Gate {
    pub all: Condvar,
    /// Those who are woken one by one, each by the one before (`Baton`).
    pub chain: Condvar,
}

impl Gate {
    pub fn notify_all(&self) {
        self.all.notify_all();
        self.chain.notify_all();
    }

    /// Wakes one caller of each kind: to lead, or as the first of the chain.
    pub fn notify_one(&self) {
        self.all.notify_one();
        self.chain.notify_one();
    }
}

pub struct Group {
    pub buffer: AlignedBuffer,
    pub segment: u64,
    pub salt: u64,
    pub offset: u64,
    pub number: u64,
    pub first_lsn: Lsn,
    pub records: u32,
    pub commits: u32,
    /// A checkpoint record within this group.
    pub checkpoint: Option<Place>,
    /// Bytes by structure; what is missing to the whole is framing.
    pub shares: Vec<Share>,
    /// Commits whose callers wait for durability, for the leader's sibling count.
    pub waiting: u32,
    /// Ends its segment; the writer trims the file behind it.
    pub seals: bool,
    pub gate: Arc<Gate>,
}

impl Group {
    pub fn last_lsn(&self) -> Lsn {
        self.first_lsn + u64::from(self.commits) - 1
    }

    pub fn end(&self) -> u64 {
        self.offset + format::align_up(self.buffer.len() as u64)
    }

    /// Writes the header; the group takes no more records.
    pub fn close(&mut self, identity: &Identity, durable_lsn: Lsn, checkpoint: Place) {
        let header = GroupHeader {
            epoch: identity.epoch,
            group: self.number,
            first_lsn: self.first_lsn,
            records: self.records,
            commits: self.commits,
            bytes: self.buffer.len() as u32,
            durable_lsn,
            checkpoint: self.checkpoint.unwrap_or(checkpoint),
        };
        let tag = format::position_tag(self.salt, self.segment, self.offset);
        let bytes = header.encode(&identity.database, tag);
        self.buffer.bytes_mut()[..GROUP_HEADER_BYTES].copy_from_slice(&bytes);
        let named: u64 = self.shares.iter().map(|share| share.bytes).sum();
        let framing = self.buffer.padded().len() as u64 - named;
        self.shares.push(Share { structure: 0, cause: Cause::Log, bytes: framing });
    }

    fn account(&mut self, structure: u32, bytes: usize) {
        let mut known = self.shares.iter_mut().filter(|share| share.cause == Cause::Log);
        match known.find(|share| share.structure == structure) {
            Some(share) => share.bytes += bytes as u64,
            None => self.shares.push(Share::new(structure, Cause::Log, bytes)),
        }
    }
}

/// Where groups go next.
#[derive(Debug, Clone)]
pub struct Tail {
    pub segment: SegmentHeader,
    /// End of the last group handed out, a group boundary.
    pub offset: u64,
}

pub struct Queue {
    identity: Identity,
    groups: VecDeque<Group>,
    tail: Tail,
    /// Created and durable ahead of need; takes over where the tail has no room.
    next: Option<SegmentHeader>,
    next_group: u64,
    next_lsn: Lsn,
    spare: Vec<AlignedBuffer>,
}

/// The record does not fit in the segment, and the next one is not there yet.
#[derive(Debug)]
pub struct NeedSegment {
    /// The least capacity it must have.
    pub capacity_min: u64,
}

impl Queue {
    pub fn new(identity: Identity, tail: Tail, next_group: u64, next_lsn: Lsn) -> Self {
        Self {
            identity,
            groups: VecDeque::new(),
            tail,
            next: None,
            next_group,
            next_lsn,
            spare: Vec::new(),
        }
    }

    pub fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    /// Number of the newest group there is or was; 0 before the first.
    pub fn newest_group(&self) -> u64 {
        self.next_group - 1
    }

    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    pub fn has_next_segment(&self) -> bool {
        self.next.is_some()
    }

    pub fn next_capacity(&self) -> Option<u64> {
        self.next.as_ref().map(|next| next.capacity)
    }

    /// The number the next created segment must have.
    pub fn next_segment_number(&self) -> u64 {
        self.tail.segment.segment + 1
    }

    /// What the next segment's header says about its first group; final only once the segment
    /// takes over, so it is a lower bound there.
    pub fn first_of_next_segment(&self) -> (u64, Lsn) {
        (self.next_group, self.next_lsn)
    }

    pub fn offer_segment(&mut self, header: SegmentHeader) {
        assert_eq!(header.segment, self.next_segment_number(), "segments follow each other");
        self.next = Some(header);
    }

    /// Takes the oldest group; its successor, if any, stays open behind it.
    pub fn take(&mut self) -> Option<Group> {
        let group = self.groups.pop_front()?;
        if group.segment == self.tail.segment.segment {
            self.tail.offset = group.end();
        }
        Some(group)
    }

    /// Whether callers wait for the oldest group (or records merely lie there, asynchronously).
    pub fn front_waiting(&self) -> u32 {
        self.groups.front().map_or(0, |group| group.waiting)
    }

    /// Where the first callers wait, whichever group they wait for: one of them can lead.
    pub fn first_awaited(&self) -> Option<&Arc<Gate>> {
        self.groups.iter().find(|group| group.waiting > 0).map(|group| &group.gate)
    }

    /// The last push is waited for, although it was asynchronous.
    pub fn count_waiter(&mut self) {
        self.groups.back_mut().expect("a record was just pushed").waiting += 1;
    }

    /// The gate of the group that the last push went to.
    pub fn open_gate(&self) -> Arc<Gate> {
        Arc::clone(&self.groups.back().expect("a record was just pushed").gate)
    }

    pub fn recycle(&mut self, mut buffer: AlignedBuffer) {
        if self.spare.len() < 2 && buffer.len() <= GROUP_BYTES_SOFT {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Bytes not yet taken by the writer, for backpressure.
    pub fn pending_bytes(&self) -> usize {
        self.groups.iter().map(|group| group.buffer.len()).sum()
    }

    /// Reads from a group that is still here.
    pub fn read(&self, pointer_segment: u64, offset: u64, into: &mut [u8]) -> bool {
        self.groups.iter().any(|group| read_group(group, pointer_segment, offset, into))
    }

    /// Makes sure `bytes` of records fit in the open group, opening one if need be; where the
    /// next segment takes over, the old one's seal goes first.
    pub fn reserve(&mut self, bytes: usize, time: i64) -> Result<(), NeedSegment> {
        let open_fits = self.groups.back().is_some_and(|group| {
            let end = format::align_up((group.buffer.len() + bytes) as u64);
            group.segment == self.tail.segment.segment
                && (group.buffer.len() + bytes <= GROUP_BYTES_SOFT)
                && group.offset + end + SEGMENT_RESERVE <= self.tail.segment.capacity
        });
        if open_fits {
            return Ok(());
        }
        let start = self.next_offset();
        let length = format::align_up((GROUP_HEADER_BYTES + bytes) as u64);
        if start + length + SEGMENT_RESERVE <= self.tail.segment.capacity {
            self.open_group(start);
            return Ok(());
        }
        let capacity_min = SEGMENT_HEADER_BYTES as u64 + length + SEGMENT_RESERVE;
        match &self.next {
            Some(next) if next.capacity >= capacity_min => {
                self.seal(start, time);
                let segment = self.next.take().expect("just matched");
                self.tail = Tail { segment, offset: SEGMENT_HEADER_BYTES as u64 };
                self.open_group(SEGMENT_HEADER_BYTES as u64);
                Ok(())
            }
            _ => Err(NeedSegment { capacity_min }),
        }
    }

    /// Where a group opened now begins.
    fn next_offset(&self) -> u64 {
        match self.groups.back() {
            Some(group) if group.segment == self.tail.segment.segment => group.end(),
            _ => self.tail.offset,
        }
    }

    fn open_group(&mut self, offset: u64) {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.extend(&[0; GROUP_HEADER_BYTES]);
        self.groups.push_back(Group {
            buffer,
            segment: self.tail.segment.segment,
            salt: self.tail.segment.salt,
            offset,
            number: self.next_group,
            first_lsn: self.next_lsn,
            records: 0,
            commits: 0,
            checkpoint: None,
            shares: Vec::new(),
            waiting: 0,
            seals: false,
            gate: Arc::default(),
        });
        self.next_group += 1;
    }

    /// Appends a commit (`reserve` came first); returns its LSN and the place of its record.
    pub fn push_commit(
        &mut self,
        head: &EncodedHead,
        frames: &Frames,
        time: i64,
        waits: bool,
    ) -> (Lsn, RecordPlace) {
        let lsn = self.next_lsn;
        self.next_lsn += 1;
        let (identity, salt) = (self.identity, self.tail.segment.salt);
        let group = self.groups.back_mut().expect("reserved");
        let start = group.buffer.len();
        let place = RecordPlace {
            identity,
            salt,
            segment: group.segment,
            offset: group.offset + start as u64,
        };
        group.buffer.extend(&[0; RECORD_HEADER_BYTES]);
        group.buffer.extend(&head.bytes);
        group.buffer.extend(&frames.bytes);
        let record = &mut group.buffer.bytes_mut()[start..];
        record::seal_commit(record, place, lsn, time, head.bytes.len(), frames);
        for op in &frames.ops {
            group.account(op.structure, op.frame.len());
        }
        group.records += 1;
        group.commits += 1;
        group.waiting += u32::from(waits);
        (lsn, place)
    }

    /// Appends a control record (`reserve` came first); returns its place.
    pub fn push_control(&mut self, kind: RecordKind, time: i64, body: &[u8]) -> Place {
        let (identity, salt) = (self.identity, self.tail.segment.salt);
        let group = self.groups.back_mut().expect("reserved");
        let start = group.buffer.len();
        let offset = group.offset + start as u64;
        group.buffer.extend(&[0; RECORD_HEADER_BYTES]);
        group.buffer.extend(body);
        let place = RecordPlace { identity, salt, segment: group.segment, offset };
        record::seal_control(&mut group.buffer.bytes_mut()[start..], place, kind, time);
        group.records += 1;
        let place = Place { segment: group.segment, offset };
        if kind == RecordKind::Checkpoint {
            group.checkpoint = Some(place);
            let bytes = RECORD_HEADER_BYTES + body.len();
            group.shares.push(Share::new(0, Cause::Checkpoint, bytes));
        }
        place
    }

    /// Takes back a segment made ahead that no group uses yet.
    pub fn withdraw_segment(&mut self) -> Option<u64> {
        self.next.take().map(|header| header.segment)
    }

    /// Opens a group in the reserve, for the record of a clean close.
    pub fn reserve_close(&mut self) {
        assert!(self.groups.is_empty(), "everything was flushed before the close is recorded");
        self.open_group(self.tail.offset);
    }

    /// Queues the group that seals the tail segment; its reserve has room for it.
    fn seal(&mut self, offset: u64, time: i64) {
        self.open_group(offset);
        let mut body = Vec::new();
        crate::codec::put_varint(&mut body, self.next_segment_number());
        self.push_control(RecordKind::Seal, time, &body);
        let group = self.groups.back_mut().expect("just opened");
        group.seals = true;
        assert!(group.end() <= self.tail.segment.capacity, "the seal has room");
    }
}

pub fn read_group(group: &Group, segment: u64, offset: u64, into: &mut [u8]) -> bool {
    if group.segment != segment || offset < group.offset {
        return false;
    }
    let start = (offset - group.offset) as usize;
    match group.buffer.bytes().get(start..start + into.len()) {
        Some(bytes) => {
            into.copy_from_slice(bytes);
            true
        }
        None => false,
    }
}

/// Whether `pointer` could lie behind a segment's header at all.
pub fn plausible(pointer: &Pointer) -> bool {
    pointer.offset >= (SEGMENT_HEADER_BYTES + GROUP_HEADER_BYTES) as u64 && pointer.length > 0
}
