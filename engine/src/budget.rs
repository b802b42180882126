//! Holds the budget of write amplification: measures what was written, and sets the knobs.
//!
//! The decision itself is `propagation::plan`; here are its inputs, from the meter, and where its
//! knobs go: the part of their declared bounds that hybrid structures and views use, and the
//! fan-out of merges. Invariants:
//! 1. Without a budget the knobs stand where they were declared.
//! 2. A staleness bound that was declared is never stretched: the scale is at most 1.
//! 3. What is measured is a difference of the meter's sums; nothing is counted twice.

use std::collections::VecDeque;

use crate::clock::Micros;
use crate::database::Shared;
use crate::propagation::{Bounds, Decision, Knobs, Observation, Policy, Reason, plan};
use crate::schema::Kind;
use crate::stats::{Controller, Recent};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A decision rests on at least so much time.
const WINDOW_MICROS_MIN: Micros = 10_000_000;
/// And on so many refreshes.
const REFRESHES: f64 = 4.0;
const SCALE_MIN: f64 = 0.01;
/// Merges may become so many times rarer.
const FAN_OUT_TIMES: usize = 4;
/// What was written is known for the last minute, second by second.
const RECENT_MICROS: Micros = 60_000_000;
const SAMPLE_MICROS: Micros = 1_000_000;

/// Bytes by structure and cause, as the meter has them.
type Sums = Vec<(u32, &'static str, u64)>;

pub struct Budget {
    /// Bits of the scale.
    scale: AtomicU64,
    fan_out: AtomicUsize,
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The sums at the beginning of the window.
    began: Option<(Micros, Observation)>,
    horizon: Observation,
    decision: Option<Decision>,
    samples: VecDeque<(Micros, Sums)>,
}

impl Budget {
    pub fn new(fan_out: usize) -> Self {
        let fan_out_max = fan_out.saturating_mul(FAN_OUT_TIMES);
        Self {
            scale: AtomicU64::new(1.0_f64.to_bits()),
            fan_out: AtomicUsize::new(fan_out),
            bounds: Bounds {
                scale_min: SCALE_MIN,
                scale_max: 1.0,
                fan_out_min: fan_out,
                fan_out_max,
            },
            state: Mutex::default(),
        }
    }

    pub fn scale(&self) -> f64 {
        f64::from_bits(self.scale.load(Ordering::Relaxed))
    }

    pub fn fan_out(&self) -> usize {
        self.fan_out.load(Ordering::Relaxed)
    }

    fn knobs(&self) -> Knobs {
        Knobs { scale: self.scale(), fan_out: self.fan_out() }
    }

    fn set(&self, knobs: Knobs) {
        self.scale.store(knobs.scale.to_bits(), Ordering::Relaxed);
        self.fan_out.store(knobs.fan_out, Ordering::Relaxed);
    }
}

impl Shared {
    /// One background step: samples what was written, and decides when a window is over.
    pub fn budget_step(&self) {
        let now = self.pipeline.now();
        let mut state = self.budget.state.lock();
        self.sample(&mut state, now);
        let Some(budget) = self.options.waf_budget else { return };
        let sums = self.observed();
        let Some((since, before)) = state.began else {
            state.began = Some((now, sums));
            return;
        };
        let window = now.saturating_sub(since);
        if window < self.window_micros() {
            return;
        }
        let newest = difference(&sums, &before, window);
        if !newest.is_telling() {
            return;
        }
        state.began = Some((now, sums));
        state.horizon = state.horizon.with(&newest);
        let decision = plan(budget, &state.horizon, self.budget.knobs(), &self.budget.bounds);
        self.budget.set(decision.knobs);
        state.decision = Some(decision);
    }

    fn window_micros(&self) -> Micros {
        let catalog = self.store.catalog();
        let ages = catalog.schema.structures.iter().map(|one| match one.policy_in_force() {
            Policy::Hybrid { max_age, .. } => *max_age,
            _ => 0,
        });
        let longest = ages.max().unwrap_or(0) as f64 * self.budget.scale();
        WINDOW_MICROS_MIN.max((REFRESHES * longest) as Micros)
    }

    /// Sums since the opening.
    fn observed(&self) -> Observation {
        let catalog = self.store.catalog();
        let mut sums = Observation {
            logical_bytes: self.logical_bytes(),
            physical_bytes: self.meter.total(),
            ..Observation::default()
        };
        let mut framing = 0;
        for (id, cause, bytes) in self.meter.snapshot() {
            let kind = catalog.schema.by_id(id).map(|structure| &structure.kind);
            if cause.name() == "merge" {
                sums.merge_bytes += bytes;
            } else if matches!(kind, Some(Kind::View { .. })) {
                sums.derived_bytes += bytes;
            } else if id == 0 && cause.name() == "log" {
                framing = bytes;
            }
        }
        // Commits of results are framed and padded as all are.
        let (results, commits) = (self.result_commits(), self.pipeline.commits().max(1));
        sums.derived_bytes += (framing as f64 * results as f64 / commits as f64) as u64;
        sums
    }

    fn sample(&self, state: &mut State, now: Micros) {
        if state.samples.back().is_some_and(|(last, _)| now - last < SAMPLE_MICROS) {
            return;
        }
        state.samples.push_back((now, self.sums()));
        while state.samples.get(1).is_some_and(|(next, _)| now - next >= RECENT_MICROS) {
            state.samples.pop_front();
        }
    }

    fn sums(&self) -> Sums {
        let sums = self.meter.snapshot().into_iter();
        sums.map(|(id, cause, bytes)| (id, cause.name(), bytes)).collect()
    }

    /// What was written in the last minute.
    pub fn recent(&self) -> Recent {
        let (state, now) = (self.budget.state.lock(), self.pipeline.now());
        let catalog = self.store.catalog();
        let (since, before) = match state.samples.front() {
            Some((since, sums)) => (*since, &sums[..]),
            None => (now, &[][..]),
        };
        let sums = self.sums().into_iter().filter_map(|(id, cause, bytes)| {
            let known = before.iter().find(|(other, why, _)| (*other, *why) == (id, cause));
            let bytes = bytes - known.map_or(0, |known| known.2);
            (bytes > 0).then(|| (catalog.schema.name_of(id), cause, bytes))
        });
        Recent { seconds: (now - since) as f64 / 1e6, by: sums.collect() }
    }

    pub fn controller(&self) -> Option<Controller> {
        let budget = self.options.waf_budget?;
        let state = self.budget.state.lock();
        let horizon = &state.horizon;
        let knobs = self.budget.knobs();
        Some(Controller {
            budget,
            scale: knobs.scale,
            fan_out: knobs.fan_out,
            reason: state.decision.map_or(Reason::Idle, |decision| decision.reason),
            waf: horizon.physical_bytes as f64 / horizon.logical_bytes.max(1) as f64,
        })
    }
}

fn difference(now: &Observation, before: &Observation, window: Micros) -> Observation {
    Observation {
        window_micros: window,
        logical_bytes: now.logical_bytes - before.logical_bytes,
        physical_bytes: now.physical_bytes - before.physical_bytes,
        derived_bytes: now.derived_bytes.saturating_sub(before.derived_bytes),
        merge_bytes: now.merge_bytes.saturating_sub(before.merge_bytes),
    }
}
