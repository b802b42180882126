//! Whether the harness finds what it is there to find: each of twelve planted bugs, by the seeds of
//! the simulator, or where it needs threads by a model of its own.
//!
//! Each is given 5,000 seeds, with `WAFERDB_CRASH=full` (`make crash`) 100,000;
//! `WAFERDB_PLANTED=AckBeforeSync` plants one alone. The table of bugs, seeds and times is printed.

#[path = "support/on_sync.rs"]
mod on_sync;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use on_sync::OnSync;
use parking_lot::Mutex;
use waferdb::database::Database;
use waferdb::options::Options;
use waferdb::sabotage::{Bug, plant};
use waferdb::schema::Schema;
use waferdb::simulation::{Plan, simulate};
use waferdb::transaction::{Mode, TransactionOptions};

const SEEDS: u64 = 5_000;
const SEEDS_FULL: u64 = 100_000;
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

#[expect(clippy::disallowed_methods, reason = "a slow disk")]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}

/// Several commit at once, and the one that leads panics in its sync: whether everybody has an
/// answer soon. Who has none stays where it is until the process ends.
fn everybody_is_answered() -> bool {
    const COMMITTERS: usize = 4;
    const SOON: Duration = Duration::from_secs(3);
    let armed = Arc::new(AtomicBool::new(false));
    let trap = Arc::clone(&armed);
    let storage = OnSync::new(move || {
        // So long that others wait behind it.
        sleep(Duration::from_millis(20));
        assert!(!trap.swap(false, Ordering::SeqCst), "the trap is sprung");
    });
    let schema = r#"{"structures":[{"name":"events","kind":"events"}]}"#;
    let declared = Schema::from_json(schema).expect("as written here");
    let options = Options { background: false, ..Options::default() };
    let db = Database::open(Arc::new(storage), options, Some(declared)).expect("in memory");
    let (answered, answers) = mpsc::channel();
    armed.store(true, Ordering::SeqCst);
    for _ in 0..COMMITTERS {
        let (db, answered) = (db.clone(), answered.clone());
        #[expect(clippy::disallowed_methods, reason = "one that may never end")]
        std::thread::spawn(move || {
            let commit = || -> waferdb::error::Result<()> {
                let mut tx = db.begin(Mode::Transaction, TransactionOptions::default())?;
                tx.append(1, "seen", None, None)?;
                tx.commit().map(drop)
            };
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                // Until the log fails, for some may be through before the trap is sprung.
                while commit().is_ok() {}
            }));
            drop(ended);
            answered.send(()).expect("they are counted until all are there");
        });
    }
    let answered = (0..COMMITTERS).take_while(|_| answers.recv_timeout(SOON).is_ok()).count();
    // The database goes with whoever waits in it for ever.
    std::mem::forget(answers);
    if answered < COMMITTERS {
        std::mem::forget(db);
    }
    answered == COMMITTERS
}

#[test]
fn every_planted_bug_is_found() {
    let only = std::env::var("WAFERDB_PLANTED").ok();
    let seeds = if std::env::var("WAFERDB_CRASH").is_ok() { SEEDS_FULL } else { SEEDS };
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    println!("{:<28} {:>7} {:>8}  how", "planted", "seed", "seconds");
    for bug in Bug::ALL {
        let name = format!("{bug:?}");
        if only.as_ref().is_some_and(|one| *one != name) {
            continue;
        }
        let needs_threads = bug == Bug::LeaderPanicLeavesFollowers;
        assert!(!needs_threads || everybody_is_answered(), "without the bug, too");
        plant(Some(bug));
        let started = Instant::now();
        let found = match needs_threads {
            true => (!everybody_is_answered()).then(|| (0, "committers wait for ever".to_owned())),
            false => found(seeds),
        };
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
