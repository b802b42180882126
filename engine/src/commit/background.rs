//! The pipeline's background steps, the segments they make ahead of need, and the clean close.
//!
//! Each step is bounded and none is needed for correctness: a commit that finds its preparation
//! missing does it itself.

use super::outcome::refused;
use super::pipeline::Pipeline;
use crate::error::Result;
use crate::log::format::{self, RecordKind, SegmentHeader};
use crate::log::queue::NeedSegment;
use crate::log::segment;
use crate::log::writer::Writer;
use crate::sync::atomic::Ordering;

/// A segment that could not be made ahead (a full disk) is not tried again for so long.
const RETRY_NANOS: u64 = 5_000_000_000;
/// A second after the last commit its durability is recorded.
const IDLE_NANOS: u64 = 1_000_000_000;

impl Pipeline {
    /// Since the last group of commits was written.
    pub fn idle_nanos(&self) -> u64 {
        let last = self.sequence.lock().last_group_at;
        self.clock.monotonic_nanos().saturating_sub(last)
    }

    pub(super) fn create_segment(&self, need: &NeedSegment) -> Result<()> {
        let _creating = self.creating.lock();
        // Looked at and withdrawn in one step: once nothing is offered, the log cannot move on to
        // the number that is about to be made.
        let (too_small, number, first_group, first_lsn, capacity) = {
            let mut sequence = self.sequence.lock();
            self.check_open(&sequence)?;
            let queue = &mut sequence.queue;
            if queue.next_capacity().is_some_and(|capacity| capacity >= need.capacity_min) {
                return Ok(());
            }
            let too_small = queue.withdraw_segment();
            let (group, lsn) = queue.first_of_next_segment();
            let doubled = queue.tail().segment.capacity.saturating_mul(2);
            let grown = doubled.min(self.segment_bytes_max).max(need.capacity_min);
            (too_small, queue.next_segment_number(), group, lsn, format::align_up(grown))
        };
        if let Some(too_small) = too_small {
            self.discard_segment(too_small)?;
        }
        let header = SegmentHeader {
            database: self.identity.database,
            segment: number,
            salt: self.random.next_u64(),
            epoch: self.identity.epoch,
            first_group,
            first_lsn,
            capacity,
            created: self.clock.wall_micros(),
        };
        let header = Writer::create_segment(&*self.storage, &self.segments, header)?;
        self.sequence.lock().queue.offer_segment(header);
        Ok(())
    }

    /// Removes a segment that holds nothing, durably: its number is used again.
    fn discard_segment(&self, number: u64) -> Result<()> {
        self.segments.remove(number);
        self.storage.remove(&segment::path(number))?;
        self.storage.sync_dir(segment::LOG_DIR)
    }

    /// One background step: what lies in the queue is made durable. `true`: there was something.
    pub fn flush_step(&self) -> Result<bool> {
        {
            let mut sequence = self.sequence.lock();
            let busy = sequence.leading || sequence.failure.is_some() || sequence.closed;
            if busy || sequence.queue.is_empty() {
                return Ok(false);
            }
            sequence.leading = true;
        }
        self.lead()?;
        match self.failure() {
            Some(cause) => Err(refused(&cause)),
            None => Ok(true),
        }
    }

    /// One background step: zeros ahead, or the next segment ahead of need.
    pub fn ahead_step(&self) -> Result<bool> {
        if self.failure().is_some() {
            return Ok(false);
        }
        let ahead = match self.writer.try_lock() {
            Some(writer) => writer.ahead_step(),
            None => None,
        };
        if let Some(ahead) = ahead {
            // The kernel tells a failed sync once; this one may have been about a commit's bytes.
            return ahead(&*self.storage).inspect_err(|cause| {
                self.fail(&mut self.sequence.lock(), cause.clone());
            });
        }
        let half_full = {
            let sequence = self.sequence.lock();
            let now = self.clock.monotonic_nanos();
            let tail = sequence.queue.tail();
            !sequence.closed
                && !sequence.queue.has_next_segment()
                && now >= sequence.create_again_at
                && tail.offset * 2 > tail.segment.capacity
        };
        if half_full {
            self.create_segment(&NeedSegment { capacity_min: 0 }).inspect_err(|_| {
                let again = self.clock.monotonic_nanos().saturating_add(RETRY_NANOS);
                self.sequence.lock().create_again_at = again;
            })?;
        }
        Ok(half_full)
    }

    /// One background step: a second after the last commit its durability is recorded, so that
    /// damage to it can be told from a torn tail.
    pub fn idle_step(&self) -> Result<bool> {
        {
            let sequence = self.sequence.lock();
            let still = self.clock.monotonic_nanos().saturating_sub(sequence.last_group_at);
            let due = !sequence.idle_recorded && still >= IDLE_NANOS;
            if !due || sequence.failure.is_some() || sequence.closed {
                return Ok(false);
            }
        }
        self.control(RecordKind::Idle, &[])?;
        self.sequence.lock().idle_recorded = true;
        Ok(true)
    }

    /// Nobody commits any more: ends the log's thread.
    pub fn retire(&self) {
        let mut sequence = self.sequence.lock();
        sequence.closed = true;
        sequence.served = false;
        self.work.notify_all();
        self.published.notify_all();
    }

    /// Records a clean close and gives back reserved space. Idempotent.
    pub fn close(&self) -> Result<()> {
        {
            let mut sequence = self.sequence.lock();
            if std::mem::replace(&mut sequence.closed, true) {
                return Ok(());
            }
            sequence.served = false;
            self.work.notify_all();
            self.published.notify_all();
        }
        if let Some(cause) = self.failure() {
            // Who was told of everything that is durable needs no second word.
            let acknowledged = self.acknowledged.load(Ordering::Acquire);
            return if acknowledged > self.durable() { Err(refused(&cause)) } else { Ok(()) };
        }
        self.flush()?;
        // Whoever is making a segment is let finish; nobody begins another.
        let _creating = self.creating.lock();
        let unused = self.sequence.lock().queue.withdraw_segment();
        if let Some(number) = unused {
            self.discard_segment(number)?;
        }
        let time = self.now();
        {
            let mut sequence = self.sequence.lock();
            sequence.queue.reserve_close();
            sequence.queue.push_control(RecordKind::Close, time, &[]);
        }
        self.flush()?;
        let end = self.sequence.lock().queue.tail().offset;
        self.writer.lock().trim(end)
    }
}
