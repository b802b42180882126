//! Finds few steps of a failing plan that still fail (ddmin: Zeller and Hildebrandt, "Simplifying
//! and Isolating Failure-Inducing Input", IEEE TSE 28(2), 2002).

use super::plan::Plan;
use super::simulate;

/// The places of the steps that are left; `looked` is told how many are after each success.
pub fn shrink(plan: &Plan, mut looked: impl FnMut(usize)) -> Vec<usize> {
    let fails = |kept: &[usize]| simulate(&plan.keeping(kept)).1.is_some();
    let mut kept: Vec<usize> = (0..plan.steps.len()).collect();
    let mut parts = 2;
    while kept.len() > 1 {
        let size = kept.len().div_ceil(parts);
        let without = |at: usize| -> Vec<usize> {
            let end = (at + size).min(kept.len());
            [&kept[..at], &kept[end..]].concat()
        };
        let fewer = (0..kept.len()).step_by(size).map(without).find(|fewer| fails(fewer));
        match fewer {
            Some(fewer) => {
                kept = fewer;
                parts = (parts - 1).max(2);
                looked(kept.len());
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(kept.len()),
        }
    }
    kept
}
