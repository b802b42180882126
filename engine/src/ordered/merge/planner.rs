//! Which runs of a structure are merged next: a pure function of their shapes.
//!
//! Tiered: runs of about one size that follow one another become one when there are `fan_out` of
//! them, so an entry is rewritten once for each tier it climbs (log base fan-out of the data over
//! the memtable). Entries are small pointers, so that some more runs to look into cost less than
//! rewriting them more often would. Invariants:
//! 1. A choice is a window of at least two neighbours, newest first.
//! 2. Runs of which no two share keys (those in the order of the log) cost a reader nothing and
//!    are left alone until they are many.
//! 3. Where nothing is chosen there are fewer than `RUNS_MAX` runs.

use std::ops::Range;

/// Neighbours without common keys that become one, where they are not small.
const DISJOINT_MAX: usize = 64;
/// Tiny ones cost more as files than as bytes.
const DISJOINT_TINY_MAX: usize = 16;
const TINY_BYTES: u64 = 16 << 10;
/// There are fewer runs than this where nothing is chosen.
const RUNS_MAX: usize = 96;
/// What the smallest tier holds; runs below it are of one tier.
const TIER_BYTES: u64 = 256 << 10;
/// Tiers above the smallest: more than any disk holds.
const TIERS_MAX: u32 = 16;

/// What the planner needs to know of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub bytes: u64,
    /// Shares no keys with the next older run.
    pub apart: bool,
}

fn tier(bytes: u64, fan_out: usize) -> u32 {
    (bytes / TIER_BYTES).checked_ilog(fan_out as u64).map_or(0, |tier| tier + 1)
}

/// The runs to merge, of `runs` newest first; `None` where all is well.
pub fn choose(runs: &[Shape], fan_out: usize) -> Option<Range<usize>> {
    let tiered = (0..=TIERS_MAX).find_map(|limit| choose_tier(runs, limit, fan_out));
    tiered.or_else(|| (runs.len() >= RUNS_MAX).then(|| cheapest(runs, fan_out)))
}

/// Of too many runs that no tier gathers, the neighbours that cost least.
fn cheapest(runs: &[Shape], fan_out: usize) -> Range<usize> {
    let bytes =
        |start: usize| runs[start..start + fan_out].iter().map(|run| run.bytes).sum::<u64>();
    let start = (0..=runs.len() - fan_out).min_by_key(|start| bytes(*start)).unwrap_or(0);
    start..start + fan_out
}

/// Between runs of the tier smaller ones may lie, never a larger one.
fn choose_tier(runs: &[Shape], limit: u32, fan_out: usize) -> Option<Range<usize>> {
    let tier = |at: usize| tier(runs[at].bytes, fan_out);
    let mut start = 0;
    while start < runs.len() {
        let window = (start..runs.len()).take_while(|at| tier(*at) <= limit).count();
        let of_tier = |at: &usize| tier(*at) == limit;
        let members: Vec<usize> = (start..start + window).filter(of_tier).collect();
        if let [first, .., last] = members[..] {
            let chosen = &runs[first..=last];
            let tiny = chosen.iter().all(|run| run.bytes < TINY_BYTES);
            let least = match (apart(chosen), tiny) {
                (false, _) => fan_out,
                (true, true) => DISJOINT_TINY_MAX.max(fan_out),
                (true, false) => DISJOINT_MAX.max(fan_out),
            };
            if members.len() >= least {
                return Some(first..last + 1);
            }
        }
        start += window + 1;
    }
    None
}

fn apart(window: &[Shape]) -> bool {
    window.iter().rev().skip(1).all(|run| run.apart)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(sizes: &[u64]) -> Vec<Shape> {
        sizes.iter().map(|bytes| Shape { bytes: *bytes, apart: false }).collect()
    }

    #[test]
    fn neighbours_of_one_tier_are_merged_when_they_are_many() {
        assert_eq!(choose(&[], 8), None);
        assert_eq!(choose(&shapes(&[100; 7]), 8), None);
        assert_eq!(choose(&shapes(&[100; 8]), 8), Some(0..8));
        let mut sizes = vec![1 << 20; 3];
        sizes.extend([9 << 20; 7]);
        assert_eq!(choose(&shapes(&sizes), 8), None);
        sizes.insert(3, 9 << 20);
        assert_eq!(choose(&shapes(&sizes), 8), Some(3..11));
    }

    #[test]
    fn a_small_run_between_two_of_a_tier_goes_with_them() {
        let mut sizes = vec![9 << 20; 8];
        sizes.insert(4, 100);
        assert_eq!(choose(&shapes(&sizes), 8), Some(0..9));
        sizes.insert(4, 900 << 20);
        assert_eq!(choose(&shapes(&sizes), 8), None);
    }

    #[test]
    fn runs_without_common_keys_wait() {
        let apart = Shape { bytes: 1 << 20, apart: true };
        assert_eq!(choose(&[apart; 63], 8), None);
        assert_eq!(choose(&[apart; 64], 8), Some(0..64));
        let tiny = Shape { bytes: 1_024, apart: true };
        assert_eq!(choose(&[tiny; 15], 8), None);
        assert_eq!(choose(&[tiny; 16], 8), Some(0..16));
        let mut mixed = vec![apart; 20];
        mixed[7].apart = false;
        assert_eq!(choose(&mixed, 8), Some(0..20));
    }

    #[test]
    fn sizes_that_cut_each_others_windows_do_not_pile_up() {
        for apart in [true, false] {
            let mut runs: Vec<Shape> = Vec::new();
            for number in 0..4_000_u64 {
                let bytes = [100 << 10, 100 << 10, 1 << 20, 4 << 20][number as usize % 4];
                runs.insert(0, Shape { bytes, apart });
                while let Some(window) = choose(&runs, 8) {
                    let bytes = runs[window.clone()].iter().map(|run| run.bytes).sum();
                    runs.splice(window, [Shape { bytes, apart }]);
                }
                assert!(runs.len() < RUNS_MAX, "{} runs", runs.len());
            }
        }
    }

    /// Flushes of one size: how often a byte is rewritten, and how many runs a reader meets.
    #[test]
    fn an_entry_is_rewritten_once_for_each_tier() {
        const FLUSHES: u64 = 2_000;
        let (mut runs, mut written, mut most) = (Vec::new(), 0, 0);
        for _ in 0..FLUSHES {
            runs.insert(0, 5 << 20);
            while let Some(window) = choose(&shapes(&runs), 8) {
                let merged: u64 = runs[window.clone()].iter().sum();
                written += merged;
                runs.splice(window, [merged]);
            }
            most = most.max(runs.len());
        }
        let rewrites = written as f64 / (FLUSHES * (5 << 20)) as f64;
        assert!(rewrites < 4.0, "{rewrites} rewrites of each byte");
        assert!(most < 32, "{most} runs at once");
    }
}
