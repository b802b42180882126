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
use crate::vector::links::Links;

/// A row and its distance, ordered by (distance, row).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Near(u64);

impl Near {
    pub(super) fn new(distance: f32, row: u32) -> Self {
        let bits = distance.to_bits();
        // As integers, negative floats are ordered backwards.
        let key = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        Self(u64::from(key) << 32 | u64::from(row))
    }

    pub(super) fn row(self) -> u32 {
        self.0 as u32
    }

    pub(super) fn distance(self) -> f32 {
        let key = (self.0 >> 32) as u32;
        f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
    }
}

/// Rows that were come to.
#[derive(Default)]
struct Seen(Vec<u64>);

impl Seen {
    /// None of so many.
    fn clear(&mut self, rows: u32) {
        self.0.clear();
        self.0.resize((rows as usize).div_ceil(64), 0);
    }

    /// Whether it was not seen before.
    fn add(&mut self, row: u32) -> bool {
        let (word, bit) = (&mut self.0[row as usize / 64], 1 << (row % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

/// Whose neighbours are walked.
pub(super) trait Neighbors {
    fn rows(&self) -> u32;

    fn entry(&self) -> u32;

    fn level(&self, row: u32) -> u8;

    fn neighbors(&self, row: u32, level: u8) -> &[u32];

    /// A row's neighbours on level 0 will soon be asked for.
    fn prefetch(&self, row: u32);
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
    let measure = |row| space.near(query, row);
    let start = descend(space, links, 0, measure);
    let mut walk = Walk::default();
    let found = walk.around(space, links, (0, start), ef, measure, accepts);
    found.iter().map(|near| (near.distance(), near.row())).collect()
}

/// The row above `level` where no neighbour is nearer, level by level.
pub(super) fn descend<S: Space, N: Neighbors>(
    space: &S,
    links: &N,
    level: u8,
    measure: impl Fn(u32) -> f32,
) -> Near {
    let near = |row| Near::new(measure(row), row);
    let mut nearest = near(links.entry());
    for level in (level + 1..=links.level(nearest.row())).rev() {
        loop {
            let neighbors = links.neighbors(nearest.row(), level);
            neighbors.iter().for_each(|row| space.prefetch(*row));
            match neighbors.iter().map(|row| near(*row)).min() {
                Some(near) if near < nearest => nearest = near,
                _ => break,
            }
        }
    }
    nearest
}

/// A walk of one level; what it needs is kept for the next.
#[derive(Default)]
pub(super) struct Walk {
    seen: Seen,
    waiting: BinaryHeap<Reverse<Near>>,
    best: BinaryHeap<Near>,
    fresh: Vec<u32>,
    found: Vec<Near>,
}

impl Walk {
    /// Up to `ef` nearest rows of a level that `accepts`, ascending, walking from `start`.
    pub(super) fn around<S: Space, N: Neighbors>(
        &mut self,
        space: &S,
        links: &N,
        (level, start): (u8, Near),
        ef: usize,
        measure: impl Fn(u32) -> f32,
        accepts: Accepts<'_>,
    ) -> &[Near] {
        let Self { seen, waiting, best, fresh, found } = self;
        let accepts = |row: u32| accepts.is_none_or(|accepts| accepts(row));
        seen.clear(links.rows());
        seen.add(start.row());
        waiting.clear();
        waiting.push(Reverse(start));
        best.clear();
        if accepts(start.row()) {
            best.push(start);
        }
        while let Some(Reverse(next)) = waiting.pop() {
            let full = best.len() >= ef;
            if full && best.peek().is_some_and(|farthest| next > *farthest) {
                break;
            }
            fresh.clear();
            for row in links.neighbors(next.row(), level).iter().filter(|row| seen.add(**row)) {
                space.prefetch(*row);
                fresh.push(*row);
            }
            if level == 0
                && let Some(Reverse(after)) = waiting.peek()
            {
                links.prefetch(after.row());
            }
            for row in &*fresh {
                let near = Near::new(measure(*row), *row);
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
        found.clear();
        found.extend(best.drain());
        found.sort_unstable();
        found
    }
}

impl Neighbors for Links {
    fn rows(&self) -> u32 {
        self.rows()
    }

    fn entry(&self) -> u32 {
        self.entry()
    }

    fn level(&self, row: u32) -> u8 {
        self.level(row)
    }

    fn neighbors(&self, row: u32, level: u8) -> &[u32] {
        self.neighbors(row, level)
    }

    fn prefetch(&self, row: u32) {
        self.prefetch(row);
    }
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
