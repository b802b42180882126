//! Holds a budget of write amplification at the least staleness: a pure function from what was
//! written to how often derived state is refreshed and how many runs are merged at once.
//!
//! What refreshing costs falls as its intervals grow, at most in proportion: once a batch holds
//! one change of each group it falls no further. What merging costs falls with the logarithm of
//! the fan-out. Both come in lumps (a burst, a merge, a stretch of log made ready), so a decision
//! rests on a horizon of windows (`Observation::with`) and moves by less than what the horizon can
//! still turn. Invariants:
//! 1. Knobs never leave their bounds, and are numbers whatever comes in.
//! 2. A larger budget never gives a coarser scale or a larger fan-out.
//! 3. Nothing moves while what refreshes cost is in the band below what the budget leaves for
//!    them, or while too little was written to tell.
//! 4. Over the budget merges are made rarer before reads are made staler; under it reads are made
//!    fresher before merges are made more frequent.
//!
//! It has no memory but what the caller hands in: after each window `horizon = horizon.with(&new)`
//! and a decision on the horizon. A window that does not tell enough (`is_telling`) runs on.

use serde::Serialize;

/// Between this part of what the budget leaves for refreshes and all of it nothing moves. (A band
/// of the budget itself would hide refreshes that are a small part of what is written.)
const HELD_FROM: f64 = 0.9;
/// What is aimed at, within that band.
const AIM: f64 = 0.95;
/// The most that one decision moves the scale: back into the budget sooner than towards it.
const COARSER_MAX: f64 = 1.5;
const FINER_MAX: f64 = 1.25;
/// After so many windows one counts half.
const HALF_LIFE_WINDOWS: f64 = 8.0;
/// Part of the excess, in logarithms, that one step takes away: what the knobs did shows in the
/// horizon only after some windows, and larger steps would go past the budget meanwhile.
const GAIN: f64 = 0.2;
/// Merges below this part of all bytes are no lever.
const MERGE_SHARE_MIN: f64 = 0.05;
/// Fewer logical bytes say nothing of what a byte costs.
const LOGICAL_BYTES_MIN: u64 = 4 << 10;
/// Fewer runs are no merge.
const FAN_OUT_MIN: usize = 2;

/// What was written in a window of time, or in a horizon of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Observation {
    pub window_micros: i64,
    /// What was handed in: no results.
    pub logical_bytes: u64,
    /// Everything written, the next two included.
    pub physical_bytes: u64,
    /// Results of views: all that refreshing costs, framing and padding of their commits, too.
    pub derived_bytes: u64,
    pub merge_bytes: u64,
}

impl Observation {
    /// Whether enough was written in it to go by.
    pub fn is_telling(&self) -> bool {
        self.window_micros > 0 && self.logical_bytes >= LOGICAL_BYTES_MIN
    }

    /// The horizon with a newer window: what is older counts less, by `HALF_LIFE_WINDOWS`.
    #[must_use]
    pub fn with(&self, newest: &Self) -> Self {
        let kept = 0.5_f64.powf(1.0 / HALF_LIFE_WINDOWS);
        let faded = |bytes: u64| (bytes as f64 * kept) as u64;
        let older = (self.window_micros.max(0) as f64 * kept) as i64;
        Self {
            window_micros: older.saturating_add(newest.window_micros),
            logical_bytes: faded(self.logical_bytes).saturating_add(newest.logical_bytes),
            physical_bytes: faded(self.physical_bytes).saturating_add(newest.physical_bytes),
            derived_bytes: faded(self.derived_bytes).saturating_add(newest.derived_bytes),
            merge_bytes: faded(self.merge_bytes).saturating_add(newest.merge_bytes),
        }
    }
}

/// How far the knobs may go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Of refresh intervals and batch sizes, as parts of what was declared: 1.0 is declared.
    pub scale_min: f64,
    pub scale_max: f64,
    pub fan_out_min: usize,
    pub fan_out_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Knobs {
    pub scale: f64,
    pub fan_out: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Decision {
    pub knobs: Knobs,
    pub reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// In the band below the budget, or as fresh as the bounds allow: held.
    WithinBudget,
    /// Bytes to spare: fresher, or merged more often.
    UnderBudget,
    /// Merged less often, or staler.
    OverBudget,
    /// Over the budget, and nothing that may still move would help.
    AtBound,
    /// Too little was written to tell: held.
    Idle,
}

/// The knobs for the next window, from what was written so far and the budget of bytes written per
/// logical byte.
pub fn plan(budget: f64, observed: &Observation, knobs: Knobs, bounds: &Bounds) -> Decision {
    let bounds = bounds.sound();
    let knobs = bounds.hold(knobs);
    let costs = Costs::of(budget, observed);
    if !observed.is_telling() {
        return Decision { knobs, reason: Reason::Idle };
    }
    let (moved, reason) = if costs.written > costs.budget {
        (costs.cheaper(knobs, &bounds), Reason::OverBudget)
    } else if costs.derived_ratio(costs.merge) < HELD_FROM {
        (costs.fresher(knobs, &bounds), Reason::UnderBudget)
    } else {
        (knobs, Reason::WithinBudget)
    };
    match reason {
        _ if moved != knobs => Decision { knobs: moved, reason },
        Reason::OverBudget => Decision { knobs, reason: Reason::AtBound },
        _ => Decision { knobs, reason: Reason::WithinBudget },
    }
}

impl Bounds {
    /// The same, as numbers in order.
    fn sound(&self) -> Self {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let scale_min = if positive(self.scale_min) { self.scale_min } else { 1.0 };
        let scale_max = if positive(self.scale_max) { self.scale_max } else { scale_min };
        let fan_out_min = self.fan_out_min.max(FAN_OUT_MIN);
        Self {
            scale_min,
            scale_max: scale_max.max(scale_min),
            fan_out_min,
            fan_out_max: self.fan_out_max.max(fan_out_min),
        }
    }

    fn hold(&self, knobs: Knobs) -> Knobs {
        let scale = if knobs.scale.is_nan() { self.scale_max } else { knobs.scale };
        Knobs {
            scale: scale.clamp(self.scale_min, self.scale_max),
            fan_out: knobs.fan_out.clamp(self.fan_out_min, self.fan_out_max),
        }
    }
}

/// Bytes of a window.
struct Costs {
    budget: f64,
    written: f64,
    derived: f64,
    merge: f64,
}

impl Costs {
    fn of(budget: f64, observed: &Observation) -> Self {
        let (derived, merge) = (observed.derived_bytes as f64, observed.merge_bytes as f64);
        Self {
            // `max` also takes a budget that is no number for none at all.
            budget: budget.max(0.0) * observed.logical_bytes as f64,
            written: (observed.physical_bytes as f64).max(derived + merge),
            derived,
            merge,
        }
    }

    /// Over the budget: merges of more runs; refreshes are rarer only if that does not suffice.
    fn cheaper(&self, knobs: Knobs, bounds: &Bounds) -> Knobs {
        let mut fan_out = knobs.fan_out;
        if self.merge >= self.written * MERGE_SHARE_MIN {
            fan_out = fan_out.saturating_mul(2).min(bounds.fan_out_max);
        }
        let merge = self.merged(knobs.fan_out, fan_out);
        if self.derived == 0.0 || self.written - self.merge + merge <= self.budget {
            return Knobs { fan_out, ..knobs };
        }
        let factor = (self.derived_ratio(merge) / AIM).powf(GAIN).clamp(1.0, COARSER_MAX);
        bounds.hold(Knobs { scale: knobs.scale * factor, fan_out })
    }

    /// Under the budget: fresher; if that goes no further, merges of fewer runs, where the budget
    /// has room for what those would have cost.
    fn fresher(&self, knobs: Knobs, bounds: &Bounds) -> Knobs {
        if knobs.scale > bounds.scale_min {
            let ratio = self.derived_ratio(self.merge) / AIM;
            let factor = ratio.powf(GAIN).clamp(1.0 / FINER_MAX, 1.0);
            return bounds.hold(Knobs { scale: knobs.scale * factor, ..knobs });
        }
        let fan_out = (knobs.fan_out / 2).max(bounds.fan_out_min);
        let affordable = self.derived_ratio(self.merged(knobs.fan_out, fan_out)) < HELD_FROM;
        if affordable { Knobs { fan_out, ..knobs } } else { knobs }
    }

    /// What refreshes cost over what the budget leaves for them, if merges cost `merge`.
    fn derived_ratio(&self, merge: f64) -> f64 {
        let others = self.written - self.derived - self.merge + merge;
        let allowed = self.budget - others;
        if allowed > 0.0 { self.derived / allowed } else { f64::INFINITY }
    }

    /// What the merges would have cost with `after` runs each: a byte is rewritten once for each
    /// tier, and tiers are a logarithm.
    fn merged(&self, before: usize, after: usize) -> f64 {
        self.merge * (before as f64).ln() / (after as f64).ln()
    }
}

#[cfg(test)]
mod tests;
