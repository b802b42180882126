//! Single decisions, odd input, and the closed loop with a plant of groups that change.

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { scale_min: 0.01, scale_max: 1.0, fan_out_min: 4, fan_out_max: 32 };

fn seen(logical: u64, physical: u64, derived: u64, merge: u64) -> Observation {
    Observation {
        window_micros: 1_000_000,
        logical_bytes: logical,
        physical_bytes: physical,
        derived_bytes: derived,
        merge_bytes: merge,
    }
}

fn planned(budget: f64, observed: &Observation, scale: f64, fan_out: usize) -> Decision {
    plan(budget, observed, Knobs { scale, fan_out }, &BOUNDS)
}

#[test]
fn each_reason_moves_what_it_should() {
    let knobs = |scale, fan_out| Knobs { scale, fan_out };
    let decided = |knobs, reason| Decision { knobs, reason };
    let few = seen(100, 9_000, 8_000, 0);
    assert_eq!(planned(2.0, &few, 0.5, 8), decided(knobs(0.5, 8), Reason::Idle));
    let spends = seen(10_000, 19_500, 8_000, 0);
    assert_eq!(planned(2.0, &spends, 0.5, 8), decided(knobs(0.5, 8), Reason::WithinBudget));
    // Nothing but the refreshes can give way, and they take the largest step.
    assert_eq!(planned(1.1, &spends, 0.5, 8), decided(knobs(0.75, 8), Reason::OverBudget));
    assert_eq!(planned(1.1, &spends, 1.0, 8), decided(knobs(1.0, 8), Reason::AtBound));
    assert_eq!(planned(9.0, &spends, 0.3, 8).reason, Reason::UnderBudget);
    assert_eq!(planned(9.0, &spends, 0.01, 8), decided(knobs(0.01, 4), Reason::UnderBudget));
    assert_eq!(planned(9.0, &spends, 0.01, 4), decided(knobs(0.01, 4), Reason::WithinBudget));
    let merges = seen(10_000, 22_000, 4_000, 8_000);
    assert_eq!(planned(2.1, &merges, 0.5, 8), decided(knobs(0.5, 16), Reason::OverBudget));
    let nothing_derived = seen(10_000, 19_000, 0, 0);
    assert_eq!(planned(1.1, &nothing_derived, 0.3, 8).reason, Reason::AtBound);
}

#[test]
fn a_window_counts_half_after_eight_others() {
    let window = seen(1 << 20, 4 << 20, 2 << 20, 1 << 20);
    let horizon = (0..8).fold(window, |horizon, _| horizon.with(&Observation::default()));
    let near = |found: u64, expected: u64| found.abs_diff(expected) < 16;
    assert!(near(horizon.logical_bytes, 1 << 19) && near(horizon.physical_bytes, 2 << 20));
    assert!(near(horizon.derived_bytes, 1 << 20) && near(horizon.merge_bytes, 1 << 19));
    let most = seen(u64::MAX, u64::MAX, u64::MAX, u64::MAX);
    assert_eq!(most.with(&most).logical_bytes, u64::MAX);
}

#[test]
fn a_decision_is_plain_data() {
    let decision = planned(2.0, &seen(10_000, 19_500, 8_000, 0), 0.5, 8);
    let found = serde_json::to_string(&decision).unwrap();
    assert_eq!(found, r#"{"knobs":{"scale":0.5,"fan_out":8},"reason":"within_budget"}"#);
}

fn any_count() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..100_000_u64, any::<u64>(), Just(u64::MAX)]
}

fn any_float() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), 0.01..20.0_f64, Just(f64::NAN), Just(f64::INFINITY), Just(0.0)]
}

fn any_observation() -> impl Strategy<Value = Observation> {
    let counts = (any_count(), any_count(), any_count(), any_count());
    let window = prop_oneof![Just(1_000_000), any::<i64>(), Just(i64::MAX)];
    (window, counts).prop_map(|(window_micros, (logical, physical, derived, merge))| Observation {
        window_micros,
        ..seen(logical, physical, derived, merge)
    })
}

fn any_knobs() -> impl Strategy<Value = Knobs> {
    (any_float(), any::<usize>()).prop_map(|(scale, fan_out)| Knobs { scale, fan_out })
}

fn any_bounds() -> impl Strategy<Value = Bounds> {
    let scales = (any_float(), any_float());
    (scales, any::<usize>(), any::<usize>()).prop_map(|(scales, fan_out_min, fan_out_max)| Bounds {
        scale_min: scales.0,
        scale_max: scales.1,
        fan_out_min,
        fan_out_max,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn knobs_stay_within_the_bounds_whatever_comes_in(
        budget in any_float(),
        observed in any_observation(),
        knobs in any_knobs(),
        bounds in any_bounds(),
    ) {
        for bounds in [bounds, BOUNDS] {
            let Decision { knobs, .. } = plan(budget, &observed, knobs, &bounds);
            let sound = bounds.sound();
            prop_assert!(knobs.scale >= sound.scale_min && knobs.scale <= sound.scale_max);
            prop_assert!(knobs.fan_out >= sound.fan_out_min);
            prop_assert!(knobs.fan_out <= sound.fan_out_max);
        }
    }

    #[test]
    fn a_larger_budget_is_never_staler(
        budgets in (0.0..40.0_f64, 0.0..40.0_f64),
        others in 1..200_000_u64,
        derived in 0..200_000_u64,
        merge in 0..200_000_u64,
        scale in 0.01..1.0_f64,
        fan_out in 4..=32_usize,
    ) {
        let observed = seen(10_000, others + derived + merge, derived, merge);
        let less = planned(budgets.0.min(budgets.1), &observed, scale, fan_out).knobs;
        let more = planned(budgets.0.max(budgets.1), &observed, scale, fan_out).knobs;
        prop_assert!(more.scale <= less.scale && more.fan_out <= less.fan_out);
    }
}

/// Groups of a view that change, and what their results and the changes cost.
#[derive(Debug, Clone)]
struct Trace {
    /// Microseconds and group, in order.
    changes: Vec<(i64, usize)>,
    groups: usize,
    change_bytes: u64,
    result_bytes: u64,
    /// The log is made ready in steps of this.
    ready_bytes: u64,
}

const DECLARED_MICROS: f64 = 10e6;
const WINDOW_MICROS: i64 = 40_000_000;
const WINDOWS: usize = 200;
/// The rest is for finding the budget.
const JUDGED: usize = 60;

/// A uniform number below 1 from a seed and a position (splitmix64).
fn uniform(seed: u64, at: u64) -> f64 {
    let mut mixed = seed.wrapping_add((at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

/// Changes a second, those of one burst, and how uneven groups are.
fn trace(seed: u64, rate: f64, burst: u64, groups: usize, skew: i32) -> Trace {
    let (mut now, mut changes) = (0.0, Vec::new());
    let end = (WINDOW_MICROS * WINDOWS as i64) as f64;
    for at in 0.. {
        // Within a burst a millisecond apart; the pauses keep the rate.
        let pause = if at % burst == 0 { burst as f64 * 1e6 / rate } else { 1e3 };
        now += pause * (0.5 + uniform(seed, 2 * at));
        if now >= end {
            break;
        }
        let group = uniform(seed, 2 * at + 1).powi(skew) * groups as f64;
        changes.push((now as i64, group as usize));
    }
    Trace { changes, groups, change_bytes: 300, result_bytes: 1_200, ready_bytes: 256 << 10 }
}

fn any_trace() -> impl Strategy<Value = Trace> {
    let chat = (any::<u64>(), 2.0..20.0_f64, 4..40_usize);
    let burst = (any::<u64>(), 5.0..50.0_f64, 20..150_u64, 4..60_usize);
    let hot = (any::<u64>(), 2.0..100.0_f64);
    let mostly_read = (any::<u64>(), 1.0..2.0_f64, 100..2_000_usize);
    prop_oneof![
        chat.prop_map(|(seed, rate, groups)| trace(seed, rate, 1, groups, 1)),
        burst.prop_map(|(seed, rate, burst, groups)| trace(seed, rate, burst, groups, 2)),
        hot.prop_map(|(seed, rate)| trace(seed, rate, 1, 1, 1)),
        mostly_read.prop_map(|(seed, rate, groups)| trace(seed, rate, 1, groups, 3)),
    ]
}

/// A group is refreshed when its oldest change has waited an interval.
struct Plant<'a> {
    trace: &'a Trace,
    oldest: Vec<Option<i64>>,
    next: usize,
    /// Of the log, and how far it was made ready.
    logged: u64,
    ready: u64,
    /// Summed over groups, in square seconds: mean staleness but for a factor.
    stale: f64,
}

impl<'a> Plant<'a> {
    fn new(trace: &'a Trace) -> Self {
        let oldest = vec![None; trace.groups];
        Self { trace, oldest, next: 0, logged: 0, ready: 0, stale: 0.0 }
    }

    /// What is written until then.
    fn observe(&mut self, until: i64, knobs: Knobs) -> Observation {
        let interval = (DECLARED_MICROS * knobs.scale) as i64;
        let (mut changes, mut refreshes) = (0, 0);
        while let Some(&(now, group)) = self.trace.changes.get(self.next).filter(|c| c.0 < until) {
            refreshes += self.refresh(group, now, interval);
            self.oldest[group].get_or_insert(now);
            self.next += 1;
            changes += 1;
        }
        refreshes += (0..self.trace.groups).map(|g| self.refresh(g, until, interval)).sum::<u64>();
        let logical_bytes = changes * self.trace.change_bytes;
        let derived_bytes = refreshes * self.trace.result_bytes;
        let tiers = 1e3_f64.ln() / (knobs.fan_out as f64).ln();
        let merge_bytes = ((logical_bytes + derived_bytes) as f64 * 0.05 * tiers) as u64;
        // Framing of results that nobody tells apart from other framing is a third of them.
        let written = logical_bytes * 11 / 10 + derived_bytes * 4 / 3;
        self.logged += written;
        let ready = self.logged.next_multiple_of(self.trace.ready_bytes);
        let prepared = ready - std::mem::replace(&mut self.ready, ready);
        Observation {
            window_micros: WINDOW_MICROS,
            logical_bytes,
            physical_bytes: written + prepared / 2 + merge_bytes,
            derived_bytes,
            merge_bytes,
        }
    }

    fn refresh(&mut self, group: usize, now: i64, interval: i64) -> u64 {
        let due = self.oldest[group].is_some_and(|oldest| oldest + interval <= now);
        if due {
            self.oldest[group] = None;
            self.stale += (interval as f64 / 1e6).powi(2) / 2.0;
        }
        u64::from(due)
    }
}

/// What the judged windows of a run came to.
#[derive(Debug)]
struct Ran {
    logical: u64,
    physical: u64,
    derived: u64,
    stale: f64,
    knobs: Vec<Knobs>,
}

impl Ran {
    fn waf(&self) -> f64 {
        self.physical as f64 / self.logical as f64
    }
}

fn run(trace: &Trace, start: Knobs, mut next: impl FnMut(&Observation, Knobs) -> Knobs) -> Ran {
    let mut plant = Plant::new(trace);
    let mut ran = Ran { logical: 0, physical: 0, derived: 0, stale: 0.0, knobs: vec![start] };
    for window in 1..=WINDOWS {
        let knobs = ran.knobs[window - 1];
        let observed = plant.observe(window as i64 * WINDOW_MICROS, knobs);
        if window == WINDOWS - JUDGED {
            plant.stale = 0.0;
        } else if window > WINDOWS - JUDGED {
            ran.logical += observed.logical_bytes;
            ran.physical += observed.physical_bytes;
            ran.derived += observed.derived_bytes;
        }
        ran.knobs.push(next(&observed, knobs));
    }
    Ran { stale: plant.stale, ..ran }
}

fn fixed(trace: &Trace, scale: f64) -> Ran {
    run(trace, Knobs { scale, fan_out: 8 }, |_, knobs| knobs)
}

fn controlled(trace: &Trace, budget: f64, bounds: &Bounds, scale: f64) -> Ran {
    let mut horizon = Observation::default();
    run(trace, Knobs { scale, fan_out: 8 }, |observed, knobs| {
        horizon = horizon.with(observed);
        plan(budget, &horizon, knobs, bounds).knobs
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The best fixed setting within a bound of staleness waits as long as the bound allows. Given
    /// what that one writes as its budget, the controller writes about as much, from wherever it
    /// starts, and waits no longer.
    #[test]
    fn bytes_come_near_those_of_the_best_fixed_setting_within_the_same_bound(
        trace in any_trace(),
        bound in 0.02..1.0_f64,
        start in prop_oneof![Just(0.01), Just(1.0)],
    ) {
        let best = fixed(&trace, bound);
        let bounds = Bounds { scale_max: bound, ..BOUNDS };
        let ran = controlled(&trace, best.waf(), &bounds, start);
        prop_assert!(ran.waf() <= best.waf() * 1.15, "{} for {}", ran.waf(), best.waf());
        prop_assert!(ran.knobs.iter().skip(1).all(|knobs| knobs.scale <= bound));
    }

    /// The same budget with a looser bound: bytes and staleness both come near the setting that
    /// would have spent it best, which nobody told.
    #[test]
    fn a_budget_is_spent_as_the_best_fixed_setting_would(
        trace in any_trace(),
        best_scale in 0.05..0.5_f64,
        start in prop_oneof![Just(0.01), Just(1.0)],
    ) {
        let best = fixed(&trace, best_scale);
        let bounds = Bounds { fan_out_min: 8, fan_out_max: 8, ..BOUNDS };
        let ran = controlled(&trace, best.waf(), &bounds, start);
        prop_assert!(ran.waf() <= best.waf() * 1.15, "{} for {}", ran.waf(), best.waf());
        // Where waiting longer saves little, the dead band is many scales wide.
        let coarser = fixed(&trace, best_scale * 2.0);
        if (coarser.derived as f64) < best.derived as f64 * 0.8 {
            prop_assert!(ran.stale <= coarser.stale, "{} for {}", ran.stale, best.stale);
        }
    }

    /// In a steady state nothing moves but for what windows differ by, a few percent.
    #[test]
    fn the_loop_comes_to_rest(
        rate in 5.0..50.0_f64,
        groups in 1..20_usize,
        budget in 1.2..6.0_f64,
        start in 0.01..1.0_f64,
    ) {
        let trace = Trace { ready_bytes: 4 << 10, ..trace(7, rate, 1, groups, 1) };
        let ran = controlled(&trace, budget, &BOUNDS, start);
        let scales: Vec<f64> = ran.knobs.iter().map(|knobs| knobs.scale).collect();
        let judged = &scales[WINDOWS - JUDGED..];
        let least = judged.iter().copied().fold(f64::INFINITY, f64::min);
        let most = judged.iter().copied().fold(0.0, f64::max);
        prop_assert!(most <= least * 1.5, "{least} to {most}: {scales:?}");
    }
}
