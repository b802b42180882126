//! Seeds of the simulator: the whole engine against the oracle, with every fault there is.
//!
//! `WAFERDB_CRASH=full` runs twenty times as many, `hours` four hundred times as many;
//! `WAFERDB_SIM_SEEDS` sets how many, `WAFERDB_SIM_FIRST` from which on, `WAFERDB_SIM_STEPS` how
//! long. A failing seed is made small and prints the one command that replays it bit for bit;
//! `WAFERDB_SIM_KEEP` names the steps that are taken.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use waferdb::simulation::{Plan, Tally, shrink, simulate, simulate_aloud};

const SEEDS: u64 = 400;
const STEPS: u64 = 120;
const THREADS: usize = 2;
const FAILURES_MAX: usize = 5;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")))
}

/// The steps to take, as `WAFERDB_SIM_KEEP` lists them.
fn kept() -> Option<Vec<usize>> {
    let text = std::env::var("WAFERDB_SIM_KEEP").ok()?;
    let number = |part: &str| part.trim().parse().expect("WAFERDB_SIM_KEEP lists numbers");
    Some(text.split(',').map(number).collect())
}

/// What fails, made small and told.
fn told(plan: &Plan) -> String {
    let kept = shrink(plan, |left| eprintln!("  seed {}: {left} steps left", plan.seed));
    let small = plan.keeping(&kept);
    let why = simulate(&small).1.map(|failure| failure.0).unwrap_or_default();
    let steps: Vec<String> = small.steps.iter().map(|step| format!("{:?}", step.action)).collect();
    let list: Vec<String> = kept.iter().map(ToString::to_string).collect();
    format!(
        "{why}\n  steps: {}\n  replay: WAFERDB_SIM_SEED={} WAFERDB_SIM_STEPS={} \
         WAFERDB_SIM_KEEP={} cargo test --all-features -p waferdb --test simulation -- --nocapture",
        steps.join(" "),
        plan.seed,
        plan.steps.len(),
        list.join(","),
    )
}

#[test]
fn every_seed_ends_as_the_oracle_says() {
    let steps = variable("WAFERDB_SIM_STEPS").unwrap_or(STEPS) as usize;
    if let Some(seed) = variable("WAFERDB_SIM_SEED") {
        let whole = Plan::of(seed, steps);
        let plan = kept().map_or_else(|| whole.clone(), |kept| whole.keeping(&kept));
        println!("{:#?}", plan.setup);
        println!("{}", plan.schema.to_json());
        let (tally, failure) = simulate_aloud(&plan);
        println!("{tally:?}");
        if let Some(failure) = failure {
            panic!("{}", failure.0);
        }
        return;
    }
    let (first, seeds) =
        (variable("WAFERDB_SIM_FIRST").unwrap_or(0), variable("WAFERDB_SIM_SEEDS"));
    let next = AtomicU64::new(first);
    let times = match std::env::var("WAFERDB_CRASH").unwrap_or_default().as_str() {
        "full" => 20,
        "hours" => 400,
        _ => 1,
    };
    let end = first + seeds.unwrap_or(SEEDS * times);
    let (total, failures) = (Mutex::new(Tally::default()), Mutex::new(Vec::new()));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || failures.lock().len() >= FAILURES_MAX {
                        return;
                    }
                    let plan = Plan::of(seed, steps);
                    let (tally, failure) = simulate(&plan);
                    *total.lock() += tally;
                    if let Some(failure) = failure {
                        eprintln!("seed {seed}: {}", failure.0);
                        failures.lock().push(told(&plan));
                    }
                }
            });
        }
    });
    println!("seeds {first}..{end}: {:?} in {:.1?}", total.lock(), started.elapsed());
    let failures = failures.into_inner();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn a_seed_does_again_what_it_did() {
    for seed in 0..8 {
        let plan = Plan::of(seed, STEPS as usize);
        let (once, again) = (simulate(&plan), simulate(&plan));
        assert_eq!(once.0, again.0, "seed {seed}");
        assert_eq!(once.1.map(|why| why.0), again.1.map(|why| why.0), "seed {seed}");
    }
}
