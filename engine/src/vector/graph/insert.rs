//! Insertion: the lists of a graph that grows, and how a row comes into them.
//!
//! A row's level is drawn from its number. From the entry downwards it looks, on each of its
//! levels, for the candidates nearest to it; is linked to those of them that are nearer to it than
//! to one another, at most `DEGREE`; and they to it. A list that is full then is chosen anew in the
//! same way.
//!
//! Invariants:
//! 1. A row is found once it is in a list, so it is searched for before it is linked on a level.
//! 2. Distances are told apart from each other (`untied`) and are finite.
//!
//! Source: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using
//! hierarchical navigable small world graphs" (2016), algorithms 1 and 4.

use super::Space;
use super::lists::Lists;
use super::walk::{Near, Walk, descend};
use crate::vector::links::{DEGREE, LEVEL_MAX, degree_max};

/// Farther than every row, and finite.
const FAR: f32 = f32::MAX;

/// The next row comes in, with `breadth` candidates on each of its levels.
pub(super) fn insert<S: Space>(space: &S, lists: &mut Lists, walk: &mut Walk, breadth: usize) {
    let row = lists.rows();
    let level = level_of(row);
    lists.append(level);
    if row == 0 {
        return;
    }
    let top = lists.level(lists.entry());
    let measure = |other| measured(space, row, other);
    let mut nearest = descend(space, lists, level, measure);
    for level in (0..=level.min(top)).rev() {
        let found = walk.around(space, lists, (level, nearest), breadth, measure, None);
        nearest = found[0];
        let chosen = choose(space, found, DEGREE);
        if level == 0 {
            chosen.iter().for_each(|near| lists.prefetch(near.row()));
        }
        lists.set(row, level, &rows_of(&chosen));
        chosen.into_iter().for_each(|near| link(space, lists, level, near, row));
    }
    if level > top {
        lists.enter_at(row);
    }
}

/// What is `near` comes to know of `row`.
fn link<S: Space>(space: &S, lists: &mut Lists, level: u8, near: Near, row: u32) {
    if lists.push(near.row(), level, row) {
        return;
    }
    let known = lists.neighbors(near.row(), level);
    known.iter().for_each(|other| space.prefetch(*other));
    let measure = |other: &u32| Near::new(measured(space, near.row(), *other), *other);
    let mut all: Vec<Near> = known.iter().map(measure).collect();
    all.push(Near::new(near.distance(), row));
    all.sort_unstable();
    let chosen = choose(space, &all, degree_max(level));
    lists.set(near.row(), level, &rows_of(&chosen));
}

fn rows_of(near: &[Near]) -> Vec<u32> {
    near.iter().map(|near| near.row()).collect()
}

/// Of candidates in ascending order, those that are no nearer to one that was chosen before them.
fn choose<S: Space>(space: &S, candidates: &[Near], count: usize) -> Vec<Near> {
    let mut chosen: Vec<Near> = Vec::with_capacity(count);
    for near in candidates {
        let apart = |other: &Near| measured(space, near.row(), other.row()) >= near.distance();
        if chosen.iter().all(apart) {
            chosen.push(*near);
            if chosen.len() == count {
                break;
            }
        }
    }
    chosen
}

/// A level above l has a chance of 16^-l, `DEGREE` being 16.
fn level_of(row: u32) -> u8 {
    let hash = xxhash_rust::xxh3::xxh3_64(&row.to_le_bytes());
    ((hash.leading_zeros() / DEGREE.ilog2()) as u8).min(LEVEL_MAX)
}

fn measured<S: Space>(space: &S, a: u32, b: u32) -> f32 {
    let distance = space.between(a, b);
    assert!(distance.is_finite(), "a space promises finite distances");
    untied(distance, a, b)
}

/// The distance, told apart from others as long as it by its lowest bits, the same for both ways.
///
/// Among equal vectors a full list would keep the first, whose lists are full as well, and nobody
/// would link to a new one: of 1,000 it loses 799.
fn untied(distance: f32, a: u32, b: u32) -> f32 {
    let pair = u64::from(a.min(b)) << 32 | u64::from(a.max(b));
    let mixed = (pair.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 41) as f32 / (1 << 23) as f32;
    (distance + mixed * (distance.abs() * 1e-5 + 1e-30)).min(FAR)
}
