//! Whether the harness finds what it is there to find: each of twelve planted bugs, by the seeds of
//! the simulator, or where it needs threads by a model of its own.
//!
//! `WAFERDB_PLANTED_SEEDS` sets how many seeds each bug is given, `WAFERDB_PLANTED=AckBeforeSync`
//! plants one alone. The table of bugs, seeds and times is printed.
#![cfg(feature = "sabotage")]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use waferdb::sabotage::{Bug, plant};
use waferdb::simulation::{Plan, simulate};

const SEEDS: u64 = 100_000;
const STEPS: usize = 120;
const THREADS: usize = 2;

/// The first seed (of those tried) that fails, and how.
fn found(seeds: u64) -> Option<(u64, String)> {
    let (next, first) = (AtomicU64::new(0), Mutex::new(None::<(u64, String)>));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while first.lock().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    if let (_, Some(failure)) = simulate(&Plan::of(seed, STEPS)) {
                        let mut first = first.lock();
                        if first.as_ref().is_none_or(|(known, _)| seed < *known) {
                            *first = Some((seed, failure.0));
                        }
                    }
                }
            });
        }
    });
    first.into_inner()
}

#[test]
fn every_planted_bug_is_found() {
    let seeds = std::env::var("WAFERDB_PLANTED_SEEDS").ok().and_then(|text| text.parse().ok());
    let only = std::env::var("WAFERDB_PLANTED").ok();
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    println!("{:<28} {:>7} {:>8}  how", "planted", "seed", "seconds");
    for bug in Bug::ALL {
        let name = format!("{bug:?}");
        if bug == Bug::LeaderPanicLeavesFollowers || only.as_ref().is_some_and(|one| *one != name) {
            continue;
        }
        plant(Some(bug));
        let started = Instant::now();
        let found = found(seeds.unwrap_or(SEEDS));
        plant(None);
        let seconds = started.elapsed().as_secs_f64();
        match found {
            Some((seed, how)) => {
                let how: String = how.chars().take(100).collect();
                println!("{name:<28} {seed:>7} {seconds:>8.1}  {how}");
            }
            None => {
                println!("{name:<28} {:>7} {seconds:>8.1}  not found", "-");
                missed.push(name);
            }
        }
    }
    drop(std::panic::take_hook());
    assert!(missed.is_empty(), "not found: {missed:?}");
}
