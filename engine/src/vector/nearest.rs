//! The k nearest of many candidates, ascending by (distance, key).
//!
//! Distances are never NaN or -0.0 (`distance`), so equal ones tie. Keys are borrowed until the
//! result is known. What is asked last is whether a candidate is wanted at all: a filter costs more
//! than a comparison.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// One result of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    pub key: String,
    pub distance: f32,
}

/// The k nearest candidates so far, the farthest of them on top.
pub struct Nearest<'a> {
    k: usize,
    heap: BinaryHeap<Candidate<'a>>,
}

struct Candidate<'a> {
    distance: f32,
    key: &'a str,
}

impl Ord for Candidate<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then_with(|| self.key.cmp(other.key))
    }
}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate<'_> {}

impl<'a> Nearest<'a> {
    pub fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::new() }
    }

    /// Takes a candidate that is among the k nearest so far, and asks `accepts` only then.
    #[inline]
    pub fn offer(&mut self, distance: f32, key: &'a str, accepts: impl FnOnce() -> bool) {
        let candidate = Candidate { distance, key };
        if self.heap.len() < self.k {
            if accepts() {
                self.heap.push(candidate);
            }
        } else if let Some(mut farthest) = self.heap.peek_mut()
            && candidate < *farthest
            && accepts()
        {
            *farthest = candidate;
        }
    }

    /// The distance of the last of them, once there are k.
    pub fn farthest(&self) -> Option<f32> {
        (self.heap.len() >= self.k)
            .then(|| self.heap.peek().map_or(f32::NEG_INFINITY, |top| top.distance))
    }

    pub fn into_hits(self) -> Vec<Hit> {
        let sorted = self.heap.into_sorted_vec().into_iter();
        sorted.map(|near| Hit { key: near.key.to_owned(), distance: near.distance }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(k: usize, candidates: &[(f32, &str)]) -> Vec<(String, f32)> {
        let mut nearest = Nearest::new(k);
        for (distance, key) in candidates {
            nearest.offer(*distance, key, || *key != "unwanted");
        }
        nearest.into_hits().into_iter().map(|hit| (hit.key, hit.distance)).collect()
    }

    #[test]
    fn keeps_the_k_smallest_by_distance_then_key() {
        let all = [(2.0, "c"), (0.0, "unwanted"), (1.0, "b"), (2.0, "a"), (-1.0, "z"), (2.0, "b")];
        let sorted = [(-1.0, "z"), (1.0, "b"), (2.0, "a"), (2.0, "b"), (2.0, "c")];
        let sorted = sorted.map(|(distance, key)| (key.to_owned(), distance));
        for k in 0..8 {
            assert_eq!(hits(k, &all), sorted[..k.min(5)]);
        }
    }

    #[test]
    fn a_filter_is_asked_only_about_what_would_stand() {
        let mut nearest = Nearest::new(1);
        nearest.offer(1.0, "b", || true);
        nearest.offer(2.0, "a", || unreachable!("farther than what stands"));
        nearest.offer(1.0, "c", || unreachable!("as far, and later by key"));
        nearest.offer(1.0, "a", || true);
        assert_eq!(nearest.into_hits(), [Hit { key: "a".to_owned(), distance: 1.0 }]);
    }
}
