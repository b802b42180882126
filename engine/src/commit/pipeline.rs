//! From a prepared transaction to a published LSN.
//!
//! A commit is a state machine: `submit` checks conflicts, takes the LSN and lays the record into
//! the open group, all under one lock and without I/O; `finish` waits until it is durable and
//! applied. A lone committer leads itself, on its own thread: it writes and syncs the oldest group,
//! applies and publishes it. In company the log's own thread leads (`serve`), where there is one;
//! else the leader wakes a caller of the next group to lead that. Tests take steps instead.
//!
//! Invariants:
//! 1. LSNs are applied and published in order, a sync commit only after it is durable.
//! 2. At most one group is unsynced; the next one is assembled meanwhile.
//! 3. After a failed write or sync nothing is written any more; what was durable stays readable,
//!    and what was visible beyond it is withdrawn.
//! 4. The sequencing lock is never held across I/O; the writer's, the applier's and the one for
//!    creating segments are, and are taken before it, never inside it.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::conflicts::Conflicts;
use super::outcome::{Failure, outcome_after_failure, refused};
use super::prepared::{Prepared, Sequenced, check_conflicts, sequenced_commit};
use crate::clock::{Clock, Micros, Random};
use crate::error::{Error, ErrorKind, Result};
use crate::latency::Latency;
use crate::limits;
use crate::log::Lsn;
use crate::log::format::{DatabaseId, Identity, Place, RecordKind, SEGMENT_HEADER_BYTES};
use crate::log::queue::{self, Gate, Group, Queue};
use crate::log::reader::Expected;
use crate::log::record::{self, EncodedHead};
use crate::log::writer::{Segments, Writer};
use crate::sabotage::{Bug, is_planted};
use crate::storage::Storage;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Bytes that may wait for the writer before an asynchronous committer must wait, too.
const UNSYNCED_BYTES_MAX: usize = 16 << 20;
/// After so many groups of one caller in a row, callers lead themselves again.
const LONELY_GROUPS: u32 = 4;
/// Samples of sync time behind the mean that bounds the wait for siblings.
const SYNC_MEAN_WEIGHT: u64 = 16;

pub enum Submitted {
    Done(Ticket),
    /// A soft check found a newer write: wait until it is visible, look again.
    Stale(Box<Prepared>, Lsn),
}

/// What a submitted commit waits for.
pub struct Ticket {
    pub sequenced: Arc<Sequenced>,
    gate: Arc<Gate>,
    /// Acknowledged already: it was asynchronous.
    pub acknowledged: bool,
}

/// Passed from one finished caller of a chain to the next of its group, when it drops. Callers that
/// need one thing next, like an interpreter's lock, would only queue up there if woken all at once.
pub struct Baton(Arc<Gate>);

impl Drop for Baton {
    fn drop(&mut self) {
        self.0.chain.notify_one();
    }
}

impl Ticket {
    pub fn baton(&self) -> Baton {
        Baton(Arc::clone(&self.gate))
    }
}

/// Takes commits into the structures, in LSN order, one at a time.
pub trait Apply: Send + Sync {
    fn apply(&self, sequenced: &Sequenced) -> Result<()>;
    /// What lies above is lost: the log failed before it was durable.
    fn withdrawn(&self, durable: Lsn);
    /// Readers see everything up to here from now on.
    fn published(&self, lsn: Lsn);
    /// What was ready is applied and published.
    fn caught_up(&self);
}

pub(super) struct Sequence {
    pub(super) queue: Queue,
    pub(super) conflicts: Conflicts,
    /// Sequenced, not applied.
    pub(super) pending: VecDeque<Arc<Sequenced>>,
    pub(super) in_flight: Option<Arc<Group>>,
    pub(super) leading: bool,
    /// The log has a thread of its own, which leads while committers come in company.
    pub(super) served: bool,
    /// Groups in a row that had one caller only.
    pub(super) lonely: u32,
    pub(super) durable: Lsn,
    /// End of the last durable group.
    pub(super) durable_end: Place,
    /// Number of the last durable group.
    pub(super) settled_group: u64,
    /// Everything up to here may be applied: durable, or asynchronous with no gap before it.
    pub(super) may_apply: Lsn,
    pub(super) checkpoint: Place,
    pub(super) failure: Option<Failure>,
    pub(super) closed: bool,
    pub(super) last_time: Micros,
    pub(super) last_monotonic: u64,
    pub(super) sync_nanos_mean: u64,
    /// Callers that waited for the last group or behind it: they are known to come back.
    pub(super) siblings: u32,
    /// So many of them a leader waits for; 0: none does.
    pub(super) wanted: u32,
    pub(super) watchers: usize,
    pub(super) last_group_at: u64,
    pub(super) idle_recorded: bool,
    /// When a segment may be made ahead again, after that failed.
    pub(super) create_again_at: u64,
}

pub struct Pipeline {
    pub(super) sequence: Mutex<Sequence>,
    pub(super) writer: Mutex<Writer>,
    pub(super) applying: Mutex<()>,
    /// Segment creation, so that two committers do not both create one.
    pub(super) creating: Mutex<()>,
    pub(super) published: Condvar,
    /// Notified when there is something for the log's own thread to lead.
    pub(super) work: Condvar,
    /// Notified when a leader has put down its office.
    pub(super) settled: Condvar,
    /// Notified when as many callers have come as a leader waits for.
    pub(super) gathered: Condvar,
    pub(super) visible: AtomicU64,
    /// Everything before this place, packed, is in the files.
    pub(super) written: AtomicU64,
    /// Highest LSN any caller was told about.
    pub(super) acknowledged: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) latency: Latency,
    pub(super) apply: Box<dyn Apply>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) segments: Arc<Segments>,
    pub(super) identity: Identity,
    pub(super) segment_bytes_max: u64,
}

/// Where a pipeline takes up.
pub struct Start {
    pub database: DatabaseId,
    pub epoch: u64,
    pub queue: Queue,
    pub writer: Writer,
    pub segments: Arc<Segments>,
    pub storage: Arc<dyn Storage>,
    pub durable: Lsn,
    pub time: Micros,
    pub checkpoint: Place,
    pub segment_bytes_max: u64,
}

impl Pipeline {
    pub fn new(
        start: Start,
        apply: Box<dyn Apply>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let monotonic = clock.monotonic_nanos();
        let tail = start.queue.tail();
        let durable_end = Place { segment: tail.segment.segment, offset: tail.offset };
        let settled_group = start.queue.newest_group();
        Self {
            sequence: Mutex::new(Sequence {
                queue: start.queue,
                conflicts: Conflicts::default(),
                pending: VecDeque::new(),
                in_flight: None,
                leading: false,
                served: false,
                lonely: LONELY_GROUPS,
                durable: start.durable,
                durable_end,
                settled_group,
                may_apply: start.durable,
                checkpoint: start.checkpoint,
                failure: None,
                closed: false,
                last_time: start.time,
                last_monotonic: monotonic,
                sync_nanos_mean: 0,
                siblings: 0,
                wanted: 0,
                watchers: 0,
                last_group_at: monotonic,
                idle_recorded: true,
                create_again_at: 0,
            }),
            writer: Mutex::new(start.writer),
            applying: Mutex::new(()),
            creating: Mutex::new(()),
            published: Condvar::new(),
            settled: Condvar::new(),
            gathered: Condvar::new(),
            work: Condvar::new(),
            visible: AtomicU64::new(start.durable),
            written: AtomicU64::new(packed(durable_end.segment, durable_end.offset)),
            acknowledged: AtomicU64::new(start.durable),
            syncs: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            latency: Latency::default(),
            apply,
            clock,
            random,
            storage: start.storage,
            segments: start.segments,
            identity: Identity { database: start.database, epoch: start.epoch },
            segment_bytes_max: start.segment_bytes_max,
        }
    }

    /// The newest LSN every structure reflects.
    pub fn visible(&self) -> Lsn {
        self.visible.load(Ordering::Acquire)
    }

    pub fn durable(&self) -> Lsn {
        self.sequence.lock().durable
    }

    /// The newest durable LSN and where its group ends.
    pub fn durable_end(&self) -> (Lsn, Place) {
        let sequence = self.sequence.lock();
        (sequence.durable, sequence.durable_end)
    }

    /// Behind the last durable group: where an opener goes on that knows everything before it.
    pub fn replay_mark(&self) -> (Place, Expected) {
        let sequence = self.sequence.lock();
        let expected = Expected {
            group: sequence.settled_group + 1,
            lsn: sequence.durable + 1,
            epoch: self.identity.epoch,
        };
        (sequence.durable_end, expected)
    }

    pub fn database(&self) -> DatabaseId {
        self.identity.database
    }

    pub fn epoch(&self) -> u64 {
        self.identity.epoch
    }

    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub fn sync_latency(&self) -> &Latency {
        &self.latency
    }

    /// Engine time: never decreases (max of wall, last + monotonic elapsed).
    pub fn now(&self) -> Micros {
        self.tick(&mut self.sequence.lock())
    }

    pub(super) fn tick(&self, sequence: &mut Sequence) -> Micros {
        let monotonic = self.clock.monotonic_nanos();
        let elapsed = monotonic.saturating_sub(sequence.last_monotonic) / 1_000;
        let steady = sequence.last_time.saturating_add(elapsed as i64);
        let now = self.clock.wall_micros().max(steady);
        // Whole microseconds only are taken from the monotonic clock, so none is lost.
        sequence.last_monotonic += elapsed * 1_000;
        sequence.last_time = now;
        now
    }

    /// Sequences a transaction: conflicts, LSN, place in the log. No I/O under the lock.
    /// `oldest_snapshot` is asked under the lock: whoever pins later sees what it could miss.
    pub fn submit(
        &self,
        mut prepared: Box<Prepared>,
        oldest_snapshot: impl Fn() -> Option<Lsn>,
    ) -> Result<Submitted> {
        let head = EncodedHead::new(&prepared.head, prepared.frames.ops.len());
        let bytes = record::commit_record_bytes(&head, &prepared.frames);
        if bytes > limits::COMMIT_BYTES_MAX {
            return Err(Error::limit(format!(
                "the transaction is {bytes} bytes long, one commit holds at most {}: split it, or \
                 use batch()",
                limits::COMMIT_BYTES_MAX
            )));
        }
        let mut sequence = self.sequence.lock();
        loop {
            self.check_open(&sequence)?;
            if let Some(newer) = check_conflicts(&sequence.conflicts, &prepared)? {
                return Ok(Submitted::Stale(prepared, newer));
            }
            let time = self.tick(&mut sequence);
            let Err(need) = sequence.queue.reserve(bytes, time) else { break };
            drop(sequence);
            self.create_segment(&need)?;
            sequence = self.sequence.lock();
        }
        let time = sequence.last_time;
        let sequence = &mut *sequence;
        let (lsn, place) = sequence.queue.push_commit(&head, &prepared.frames, time, prepared.sync);
        sequence.conflicts.record(&prepared.writes, &prepared.structures, lsn);
        let visible = self.visible();
        let oldest = oldest_snapshot().map_or(visible, |oldest| oldest.min(visible));
        sequence.conflicts.prune(oldest, visible);
        let frames = std::mem::take(&mut prepared.frames);
        let commit = sequenced_commit(&prepared, frames, lsn, time, place, &head, bytes);
        let (leaf, touched) = (OnceLock::new(), OnceLock::new());
        let sequenced = Arc::new(Sequenced { commit, leaf, touched, sync: prepared.sync });
        sequence.pending.push_back(Arc::clone(&sequenced));
        if !prepared.sync && sequence.may_apply + 1 == lsn {
            sequence.may_apply = lsn;
        }
        if sequence.wanted > 0 && sequence.queue.front_waiting() >= sequence.wanted {
            self.gathered.notify_one();
        }
        let full = sequence.queue.pending_bytes() > UNSYNCED_BYTES_MAX;
        if full && !prepared.sync {
            sequence.queue.count_waiter();
        }
        let gate = sequence.queue.open_gate();
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(Submitted::Done(Ticket { sequenced, gate, acknowledged: !prepared.sync && !full }))
    }

    /// Waits until the ticket's commit is durable and applied (asynchronous ones: acknowledged).
    /// `chained` callers hold the ticket's baton and let it go when the next may run.
    pub fn finish(&self, ticket: &Ticket, chained: bool) -> Result<()> {
        let lsn = ticket.sequenced.commit.lsn;
        if ticket.acknowledged {
            let applied = self.apply_ready(None);
            let sequence = self.sequence.lock();
            match &sequence.failure {
                Some(failure) if self.visible() < lsn => {
                    return Err(outcome_after_failure(failure, lsn, sequence.durable)
                        .with_txn(ticket.sequenced.commit.head.txn.text()));
                }
                Some(_) => {}
                None => applied?,
            }
        } else {
            self.finish_durable(lsn, &ticket.gate, chained)
                .map_err(|error| error.with_txn(ticket.sequenced.commit.head.txn.text()))?;
        }
        self.acknowledged.fetch_max(lsn, Ordering::AcqRel);
        Ok(())
    }

    fn finish_durable(&self, lsn: Lsn, gate: &Gate, chained: bool) -> Result<()> {
        let mut sequence = self.sequence.lock();
        loop {
            if self.visible() >= lsn && sequence.durable >= lsn {
                return Ok(());
            }
            if let Some(failure) = &sequence.failure {
                return Err(outcome_after_failure(failure, lsn, sequence.durable));
            }
            let delegates = sequence.delegates();
            if delegates && !sequence.leading && sequence.durable < lsn {
                self.work.notify_one();
            }
            if delegates || sequence.leading || sequence.durable >= lsn {
                let place = if chained { &gate.chain } else { &gate.all };
                place.wait(&mut sequence);
            } else {
                sequence.leading = true;
                drop(sequence);
                let led = self.lead();
                sequence = self.sequence.lock();
                // What went wrong is not yet what became of this commit.
                if sequence.failure.is_none() {
                    led?;
                }
            }
        }
    }

    /// Leads while committers come in company; returns when the pipeline closes or fails.
    pub fn serve(&self) {
        let mut sequence = self.sequence.lock();
        sequence.served = true;
        loop {
            if sequence.closed || sequence.failure.is_some() {
                sequence.served = false;
                return;
            }
            let due = sequence.delegates() && !sequence.leading;
            if !due || sequence.queue.first_awaited().is_none() {
                self.work.wait(&mut sequence);
                continue;
            }
            sequence.leading = true;
            drop(sequence);
            // What went wrong is kept, and told to every caller.
            let _ = self.lead();
            sequence = self.sequence.lock();
        }
    }

    /// Writes, syncs, applies and publishes the oldest group. `leading` was set by the caller.
    pub(super) fn lead(&self) -> Result<()> {
        self.await_siblings();
        let group = {
            let mut sequence = self.sequence.lock();
            let sequence = &mut *sequence;
            let Some(mut group) = sequence.queue.take() else {
                sequence.leading = false;
                self.settled.notify_all();
                return Ok(());
            };
            group.close(&self.identity, sequence.durable, sequence.checkpoint);
            let group = Arc::new(group);
            sequence.in_flight = Some(Arc::clone(&group));
            group
        };
        let _poison = Poison(self);
        if is_planted(Bug::EagerSeesUndecided) {
            self.sequence.lock().may_apply = group.last_lsn();
            self.apply_ready(None)?;
        }
        let started = self.clock.monotonic_nanos();
        let written = self.writer.lock().write(&group);
        let ended = self.clock.monotonic_nanos();
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.latency.record(ended.saturating_sub(started));
        let next_gate = self.settle(&group, written, ended.saturating_sub(started), ended);
        if let Some(gate) = next_gate {
            gate.notify_one();
        }
        let applied = self.apply_ready(Some(&group.gate));
        if applied.is_err() || self.failure().is_some() {
            group.gate.notify_all();
        } else {
            group.gate.all.notify_all();
            group.gate.chain.notify_one();
        }
        if let Ok(group) = Arc::try_unwrap(group) {
            self.sequence.lock().queue.recycle(group.buffer);
        }
        applied
    }

    /// Takes the outcome of one write; returns the gate of a caller who should lead next.
    fn settle(
        &self,
        group: &Arc<Group>,
        written: Result<()>,
        nanos: u64,
        now: u64,
    ) -> Option<Arc<Gate>> {
        let mut sequence = self.sequence.lock();
        sequence.leading = false;
        self.settled.notify_all();
        match written {
            Ok(()) if sequence.failure.is_none() => {
                sequence.in_flight = None;
                sequence.settled_group = group.number;
                sequence.durable = sequence.durable.max(group.last_lsn());
                sequence.durable_end = match group.seals {
                    false => Place { segment: group.segment, offset: group.end() },
                    true => {
                        Place { segment: group.segment + 1, offset: SEGMENT_HEADER_BYTES as u64 }
                    }
                };
                let end = sequence.durable_end;
                self.written.store(packed(end.segment, end.offset), Ordering::Release);
                if let Some(place) = group.checkpoint {
                    sequence.checkpoint = place;
                }
                sequence.siblings = group.waiting + sequence.queue.front_waiting();
                sequence.lonely = match sequence.siblings {
                    0 => sequence.lonely,
                    1 => sequence.lonely.saturating_add(1),
                    _ => 0,
                };
                sequence.sync_nanos_mean = match sequence.sync_nanos_mean {
                    0 => nanos,
                    mean => (mean * (SYNC_MEAN_WEIGHT - 1) + nanos) / SYNC_MEAN_WEIGHT,
                };
                sequence.last_group_at = now;
                sequence.idle_recorded &= group.commits == 0;
                sequence.extend_may_apply();
            }
            // A failure meanwhile makes the sync's word worth nothing.
            Ok(()) => {}
            Err(cause) => self.fail(&mut sequence, cause),
        }
        if sequence.failure.is_some() {
            return None;
        }
        let next = sequence.queue.first_awaited().cloned();
        if sequence.delegates() && next.is_some() {
            self.work.notify_one();
            return None;
        }
        next
    }

    /// A broken invariant ends all writing: nobody may go on behind it, and nobody waits for it.
    pub fn abandon(&self) {
        if is_planted(Bug::LeaderPanicLeavesFollowers) {
            return;
        }
        let mut sequence = self.sequence.lock();
        sequence.leading = false;
        let cause = Error::new(ErrorKind::Failed, "an invariant of the engine was broken (a bug)");
        self.fail(&mut sequence, cause);
        if let Some(group) = &sequence.in_flight {
            group.gate.notify_all();
        }
        self.settled.notify_all();
    }

    /// Invariant 3: refuse writes for good, show only what is durable, wake everybody.
    pub(super) fn fail(&self, sequence: &mut Sequence, cause: Error) {
        if sequence.failure.is_some() {
            return;
        }
        let flying = sequence.in_flight.as_ref().map_or(0, |group| group.last_lsn());
        let attempted = flying.max(sequence.durable);
        sequence.failure = Some(Failure { cause, attempted });
        if !is_planted(Bug::EagerSeesUndecided) {
            self.visible.fetch_min(sequence.durable, Ordering::AcqRel);
            self.apply.withdrawn(sequence.durable);
        }
        sequence.served = false;
        self.work.notify_all();
        while let Some(group) = sequence.queue.take() {
            group.gate.notify_all();
        }
        self.published.notify_all();
    }

    /// Applies what may be applied, in order, and publishes it commit by commit: behind the first
    /// the callers at `gate` who wake one another can begin to, while the rest is applied.
    fn apply_ready(&self, gate: Option<&Gate>) -> Result<()> {
        let _applying = self.applying.lock();
        let _poison = Poison(self);
        loop {
            let ready: Vec<Arc<Sequenced>> = {
                let mut sequence = self.sequence.lock();
                if sequence.failure.is_some() {
                    return Ok(());
                }
                let limit = sequence.may_apply;
                let count = sequence.pending.partition_point(|next| next.commit.lsn <= limit);
                sequence.pending.drain(..count).collect()
            };
            if ready.is_empty() {
                return Ok(());
            }
            for (number, sequenced) in ready.iter().enumerate() {
                if let Err(error) = self.apply.apply(sequenced) {
                    let mut sequence = self.sequence.lock();
                    let cause = error.context("a durable commit could not be applied");
                    self.fail(&mut sequence, cause.clone());
                    return Err(cause);
                }
                self.publish(sequenced.commit.lsn);
                if let Some(gate) = gate.filter(|_| number == 0 && ready.len() > 1) {
                    gate.chain.notify_one();
                }
            }
            self.apply.caught_up();
        }
    }

    fn publish(&self, lsn: Lsn) {
        let sequence = self.sequence.lock();
        if sequence.failure.is_none() {
            self.visible.fetch_max(lsn, Ordering::AcqRel);
            // What is not durable may be withdrawn.
            self.apply.published(lsn.min(sequence.durable));
        }
        if sequence.watchers > 0 {
            self.published.notify_all();
        }
    }

    /// Known siblings usually come back one after another: seven in eight of them are waited for
    /// while they do, and the rest comes during the sync. A quarter of a sync without anybody ends
    /// the wait, and so do two syncs.
    fn await_siblings(&self) {
        let mut sequence = self.sequence.lock();
        let wanted = sequence.siblings - sequence.siblings / 8;
        let sync_nanos = sequence.sync_nanos_mean;
        if wanted < 2 || sync_nanos == 0 {
            return;
        }
        let end = self.clock.monotonic_nanos() + 2 * sync_nanos;
        sequence.wanted = wanted;
        let mut here = sequence.queue.front_waiting();
        while here < wanted && self.clock.monotonic_nanos() < end {
            self.gathered.wait_for(&mut sequence, Duration::from_nanos(sync_nanos / 4));
            let before = std::mem::replace(&mut here, sequence.queue.front_waiting());
            if here <= before {
                break;
            }
        }
        sequence.wanted = 0;
    }

    pub(super) fn check_open(&self, sequence: &Sequence) -> Result<()> {
        if sequence.closed {
            return Err(Error::new(ErrorKind::Closed, "the database is closed"));
        }
        match &sequence.failure {
            Some(failure) => Err(refused(&failure.cause)),
            None => Ok(()),
        }
    }

    /// The first cause, once writes are refused.
    pub fn failure(&self) -> Option<Error> {
        self.sequence.lock().failure.as_ref().map(|failure| failure.cause.clone())
    }

    /// Appends a control record and makes it durable with everything before it.
    pub fn control(&self, kind: RecordKind, body: &[u8]) -> Result<Place> {
        let bytes = record_bytes(body);
        let mut sequence = self.sequence.lock();
        loop {
            self.check_open(&sequence)?;
            let time = self.tick(&mut sequence);
            let Err(need) = sequence.queue.reserve(bytes, time) else { break };
            drop(sequence);
            self.create_segment(&need)?;
            sequence = self.sequence.lock();
        }
        let time = sequence.last_time;
        let place = sequence.queue.push_control(kind, time, body);
        drop(sequence);
        self.flush()?;
        Ok(place)
    }

    /// Everything sequenced before the call is durable and applied.
    pub fn flush(&self) -> Result<()> {
        let mut sequence = self.sequence.lock();
        let target = sequence.queue.newest_group();
        loop {
            if let Some(failure) = &sequence.failure {
                return Err(refused(&failure.cause));
            }
            if sequence.settled_group >= target {
                break;
            }
            if sequence.leading {
                self.settled.wait(&mut sequence);
                continue;
            }
            sequence.leading = true;
            drop(sequence);
            self.lead()?;
            sequence = self.sequence.lock();
        }
        drop(sequence);
        self.apply_ready(None)
    }

    /// Waits until `lsn` is visible; `false` when the time is up.
    pub fn wait_visible(&self, lsn: Lsn, timeout: Option<Duration>) -> Result<bool> {
        // A time too far to name is no bound.
        let deadline = timeout.and_then(|timeout| std::time::Instant::now().checked_add(timeout));
        let mut sequence = self.sequence.lock();
        sequence.watchers += 1;
        let outcome = loop {
            if self.visible() >= lsn {
                break Ok(true);
            }
            if let Some(failure) = &sequence.failure {
                break Err(refused(&failure.cause));
            }
            if sequence.closed {
                break Err(Error::new(ErrorKind::Closed, "the database was closed meanwhile"));
            }
            match deadline {
                None => self.published.wait(&mut sequence),
                Some(deadline) => {
                    if self.published.wait_until(&mut sequence, deadline).timed_out() {
                        break Ok(self.visible() >= lsn);
                    }
                }
            }
        };
        sequence.watchers -= 1;
        outcome
    }

    /// Whether a strong read waits for nothing.
    pub fn is_current(&self) -> bool {
        self.visible() >= self.acknowledged.load(Ordering::Acquire)
    }

    /// The LSN a strong read must see: everything acknowledged before it began.
    pub fn strong(&self) -> Result<Lsn> {
        let acknowledged = self.acknowledged.load(Ordering::Acquire);
        let visible = self.visible();
        if visible >= acknowledged {
            return Ok(visible);
        }
        if self.failure().is_none() {
            // An asynchronous commit behind one that is being synced.
            self.flush()?;
        }
        Ok(self.visible())
    }

    /// Nothing is applied while the guard lives.
    pub fn pause_applying(&self) -> MutexGuard<'_, ()> {
        self.applying.lock()
    }

    pub fn try_pause_applying(&self) -> Option<MutexGuard<'_, ()>> {
        self.applying.try_lock()
    }

    pub fn newest_sequenced(&self) -> Lsn {
        self.sequence.lock().queue.next_lsn() - 1
    }

    /// Reads bytes that are sequenced and not in the file yet.
    pub fn read_unsynced(&self, segment: u64, offset: u64, into: &mut [u8]) -> bool {
        let end = packed(segment, offset + into.len() as u64);
        if end <= self.written.load(Ordering::Acquire) {
            return false;
        }
        let sequence: MutexGuard<'_, Sequence> = self.sequence.lock();
        let flying = sequence.in_flight.as_ref();
        flying.is_some_and(|group| queue::read_group(group, segment, offset, into))
            || sequence.queue.read(segment, offset, into)
    }
}

/// Abandons the pipeline where the code that it stands in panics.
struct Poison<'a>(&'a Pipeline);

impl Drop for Poison<'_> {
    fn drop(&mut self) {
        if crate::sync::thread::panicking() {
            self.0.abandon();
        }
    }
}

impl Sequence {
    /// Whether committers leave the leading to the log's own thread: in company, a thread that
    /// stays on its core with the disk is worth the hop, which a lone committer is spared.
    fn delegates(&self) -> bool {
        self.served && self.lonely < LONELY_GROUPS
    }

    fn extend_may_apply(&mut self) {
        self.may_apply = self.may_apply.max(self.durable);
        for next in &self.pending {
            let lsn = next.commit.lsn;
            if lsn > self.may_apply {
                if next.sync || lsn != self.may_apply + 1 {
                    return;
                }
                self.may_apply = lsn;
            }
        }
    }
}

/// A place in the log as one number, in the order of the log; offsets are below 2⁴⁰.
fn packed(segment: u64, offset: u64) -> u64 {
    segment << 40 | offset
}

fn record_bytes(body: &[u8]) -> usize {
    crate::log::format::RECORD_HEADER_BYTES + body.len()
}
