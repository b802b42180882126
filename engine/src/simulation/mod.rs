//! The whole engine on simulated storage, clock and scheduler, in one thread, driven by a seed.
//!
//! A seed stands for a plan: a random schema, how the database is opened, and steps: commits over
//! all structures, questions now and in the past, background work of every kind, reopenings,
//! backups, power cuts, failing storage, damage. An oracle that knows nothing of the engine says
//! what must be answered. What a seed does it does again, bit for bit; of a plan that fails, the
//! shrinker finds the few steps that still do.

mod answer;
pub mod bits;
mod crash;
mod damage;
mod dice;
mod draw;
pub mod oracle;
mod plan;
mod run;
mod shrink;
pub mod small;
mod speaker;
mod steps;
pub mod world;

pub use self::plan::{Action, Plan, Setup, Step};
pub use self::run::{Failure, Run, Tally};
pub use self::shrink::shrink;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a plan to its end, or to what is not as it must be; a panic is a failure, too.
pub fn simulate(plan: &Plan) -> (Tally, Option<Failure>) {
    ended(Run::new(plan))
}

/// The same, told on standard error as it happens.
pub fn simulate_aloud(plan: &Plan) -> (Tally, Option<Failure>) {
    let mut run = Run::new(plan);
    run.talks = true;
    ended(run)
}

fn ended(mut run: Run<'_>) -> (Tally, Option<Failure>) {
    let ended = catch_unwind(AssertUnwindSafe(|| run.go()));
    let failure = match ended {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Some(Failure(format!("panic: {}", text.unwrap_or_default())))
        }
    };
    (run.tally, failure)
}
