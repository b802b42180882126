//! One search: down the upper levels, then along level 0, the nearest first.
//!
//! What is nearest so far bounds the walk: it ends when `ef` accepted rows are nearer than whatever
//! waits. Rejected rows are walked through and take no place. The codes of a row's neighbours are
//! asked for before the first of them is measured: they lie anywhere in memory, and waiting for
//! them one by one would be most of the time.
//!
//! Source: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using
//! hierarchical navigable small world graphs", 2018, algorithms 2 and 5.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Accepts, Space};
use crate::vector::links::{DEGREE, Links};

/// A row and its distance, ordered by (distance, row).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Near(u64);

impl Near {
    fn new(distance: f32, row: u32) -> Self {
        let bits = distance.to_bits();
        // As integers, negative floats are ordered backwards.
        let key = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        Self(u64::from(key) << 32 | u64::from(row))
    }

    fn row(self) -> u32 {
        self.0 as u32
    }

    fn distance(self) -> f32 {
        let key = (self.0 >> 32) as u32;
        f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
    }
}

/// Rows that were come to.
struct Seen(Vec<u64>);

impl Seen {
    fn none_of(rows: u32) -> Self {
        Self(vec![0; (rows as usize).div_ceil(64)])
    }

    /// Whether it was not seen before.
    fn add(&mut self, row: u32) -> bool {
        let (word, bit) = (&mut self.0[row as usize / 64], 1 << (row % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

/// Up to `ef` nearest rows that `accepts`, ascending by (distance, row).
pub(super) fn search<S: Space>(
    space: &S,
    links: &Links,
    query: &S::Query,
    ef: usize,
    accepts: Accepts<'_>,
) -> Vec<(f32, u32)> {
    if ef == 0 || links.rows() == 0 {
        return Vec::new();
    }
    let start = descend(space, links, query);
    let accepts = |row: u32| accepts.is_none_or(|accepts| accepts(row));
    let mut seen = Seen::none_of(links.rows());
    let mut waiting = BinaryHeap::from([Reverse(start)]);
    let mut best = BinaryHeap::with_capacity(ef + 1);
    seen.add(start.row());
    if accepts(start.row()) {
        best.push(start);
    }
    let mut fresh = Vec::with_capacity(2 * DEGREE);
    while let Some(Reverse(next)) = waiting.pop() {
        let full = best.len() >= ef;
        if full && best.peek().is_some_and(|farthest| next > *farthest) {
            break;
        }
        fresh.clear();
        for row in links.neighbors(next.row(), 0).iter().filter(|row| seen.add(**row)) {
            space.prefetch(*row);
            fresh.push(*row);
        }
        if let Some(Reverse(after)) = waiting.peek() {
            links.prefetch(after.row());
        }
        for row in &fresh {
            let near = Near::new(space.near(query, *row), *row);
            if best.len() >= ef && best.peek().is_some_and(|farthest| near > *farthest) {
                continue;
            }
            waiting.push(Reverse(near));
            if accepts(*row) {
                best.push(near);
                if best.len() > ef {
                    best.pop();
                }
            }
        }
    }
    let sorted = best.into_sorted_vec().into_iter();
    sorted.map(|near| (near.distance(), near.row())).collect()
}

/// The row of the upper levels where no neighbour is nearer, level by level.
fn descend<S: Space>(space: &S, links: &Links, query: &S::Query) -> Near {
    let entry = links.entry();
    let mut nearest = Near::new(space.near(query, entry), entry);
    for level in (1..=links.level(entry)).rev() {
        loop {
            let neighbors = links.neighbors(nearest.row(), level);
            neighbors.iter().for_each(|row| space.prefetch(*row));
            let near = neighbors.iter().map(|row| Near::new(space.near(query, *row), *row)).min();
            match near {
                Some(near) if near < nearest => nearest = near,
                _ => break,
            }
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_distances_then_rows() {
        let distances = [f32::MIN, -2.5, -0.0, 0.0, 1e-30, 0.7, f32::MAX];
        let sorted: Vec<Near> = distances.into_iter().map(|at| Near::new(at, 7)).collect();
        assert!(sorted.is_sorted());
        assert!(Near::new(0.7, 8) > Near::new(0.7, 7));
        for (near, distance) in sorted.iter().zip(distances) {
            assert_eq!((near.distance().to_bits(), near.row()), (distance.to_bits(), 7));
        }
    }
}
