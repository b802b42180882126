//! What a structure has not made visible yet.
//!
//! A commit's operations are in memory, ordered by LSN, before it returns, under every policy; a
//! reader that asks for no more than the policy gives reads at the LSN before the first that waits.
//! So a queue is that LSN and a few sums, whatever waits in it. Invariants:
//! 1. Nothing that waits is older than `first`, and everything before it is reflected.
//! 2. What waits became so by its policy; a critical commit (under a hybrid policy), a deletion and
//!    what supersedes another (under every policy) leave nothing waiting.
//! 3. Memory: one queue has one size, however far it lags.

use super::Policy;
use crate::sync::Mutex;

/// Log sequence numbers and times, as the log has them.
type Lsn = u64;
type Micros = i64;

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The first commit that is not reflected.
    pub first: Lsn,
    /// Commits that touch the structure.
    pub commits: u64,
    pub items: u64,
    pub bytes: u64,
    /// When the first of them was committed.
    pub since: Micros,
    /// When the first of them that is not of background priority was.
    routine_since: Option<Micros>,
}

impl Waiting {
    /// Whether its policy lets this wait no longer.
    pub fn is_due(&self, policy: &Policy, scale: f64, now: Micros, idle: bool) -> bool {
        match policy {
            Policy::Eager => true,
            Policy::Lazy => false,
            Policy::Hybrid { max_age, max_items, max_bytes } => {
                let age = |since: Micros| now.saturating_sub(since) as f64;
                let old =
                    self.routine_since.map(age).is_some_and(|age| age >= *max_age as f64 * scale);
                let full = |held: u64, most: u64| held as f64 > most as f64 * scale;
                let full = full(self.items, *max_items) || full(self.bytes, *max_bytes);
                old || full || idle
            }
        }
    }

    pub fn age(&self, now: Micros) -> Micros {
        now.saturating_sub(self.since).max(0)
    }
}

/// One commit's part in a structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub lsn: Lsn,
    pub time: Micros,
    pub items: u64,
    pub bytes: u64,
    pub background: bool,
}

#[derive(Debug, Default)]
pub struct Queue(Mutex<Option<Waiting>>);

impl Queue {
    pub fn add(&self, arrival: &Arrival) {
        let mut waiting = self.0.lock();
        let routine = (!arrival.background).then_some(arrival.time);
        *waiting = Some(match *waiting {
            None => Waiting {
                first: arrival.lsn,
                commits: 1,
                items: arrival.items,
                bytes: arrival.bytes,
                since: arrival.time,
                routine_since: routine,
            },
            Some(known) => Waiting {
                commits: known.commits + 1,
                items: known.items.saturating_add(arrival.items),
                bytes: known.bytes.saturating_add(arrival.bytes),
                routine_since: known.routine_since.or(routine),
                ..known
            },
        });
    }

    pub fn waiting(&self) -> Option<Waiting> {
        *self.0.lock()
    }

    /// Makes all that was added visible; what waited, if anything did.
    pub fn reflect(&self) -> Option<Waiting> {
        self.0.lock().take()
    }

    /// Readers of this structure may begin at this LSN, or behind it.
    pub fn oldest(&self, newest: Lsn) -> Lsn {
        self.waiting().map_or(newest, |waiting| waiting.first.saturating_sub(1).min(newest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(lsn: Lsn, background: bool) -> Arrival {
        Arrival { lsn, time: 1_000 * lsn as Micros, items: 2, bytes: 10, background }
    }

    const POLICY: Policy = Policy::Hybrid { max_age: 5_000, max_items: 6, max_bytes: 1_000 };

    #[test]
    fn a_queue_is_where_it_begins_and_a_few_sums() {
        let queue = Queue::default();
        assert_eq!(queue.oldest(9), 9);
        queue.add(&arrival(4, false));
        queue.add(&arrival(7, false));
        let waiting = queue.waiting().unwrap();
        assert_eq!((waiting.first, waiting.commits, waiting.items), (4, 2, 4));
        assert_eq!((queue.oldest(9), waiting.age(9_000)), (3, 5_000));
        assert_eq!(queue.reflect(), Some(waiting));
        assert_eq!((queue.waiting(), queue.oldest(9)), (None, 9));
    }

    #[test]
    fn a_batch_ends_at_whichever_bound_comes_first() {
        let queue = Queue::default();
        queue.add(&arrival(1, false));
        let due = |now, scale, idle| queue.waiting().unwrap().is_due(&POLICY, scale, now, idle);
        assert!(!due(5_999, 1.0, false));
        assert!(due(6_000, 1.0, false));
        assert!(due(3_500, 0.5, false), "half the age is allowed");
        queue.add(&arrival(2, false));
        queue.add(&arrival(3, false));
        assert!(!due(3_000, 1.0, false));
        queue.add(&arrival(4, false));
        assert!(due(4_000, 1.0, false), "eight items are more than six");
    }

    #[test]
    fn what_has_background_priority_waits_for_idleness_and_goes_with_the_others() {
        let queue = Queue::default();
        queue.add(&arrival(1, true));
        let due = |now, idle| queue.waiting().unwrap().is_due(&POLICY, 1.0, now, idle);
        assert!(!due(1_000_000, false));
        assert!(due(1_000, true));
        queue.add(&arrival(2, false));
        assert!(due(7_000, false));
        assert!(!queue.waiting().unwrap().is_due(&Policy::Lazy, 1.0, 7_000, true));
    }
}
