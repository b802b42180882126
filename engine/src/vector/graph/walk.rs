//! One search: down the upper levels, then along level 0, the nearest first.
//!
//! What is nearest so far bounds the walk: it ends when `ef` accepted rows are nearer than whatever
//! waits. Rejected rows are walked through and take no place. What a row's neighbours are measured
//! and accepted by is asked for before the first of them is measured, and the list of what is near
//! enough to be walked to: all of it lies anywhere in memory, and waiting for each in turn would be
//! most of the time.
//!
//! Source: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using
//! hierarchical navigable small world graphs", 2018, algorithms 2 and 5.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::lists::Lists;
use super::{Accepts, Space};

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

/// Up to `ef` nearest rows that `accepts`, ascending by (distance, row).
pub(super) fn search<S: Space>(
    space: &S,
    lists: &Lists,
    query: &S::Query,
    ef: usize,
    accepts: Accepts<'_>,
) -> Vec<(f32, u32)> {
    if ef == 0 || lists.rows() == 0 {
        return Vec::new();
    }
    let measure = |row| space.near(query, row);
    let start = descend(space, lists, 0, measure);
    let mut walk = Walk::default();
    let found = walk.around(space, lists, (0, start), ef, measure, accepts);
    found.iter().map(|near| (near.distance(), near.row())).collect()
}

/// The row above `level` where no neighbour is nearer, level by level.
pub(super) fn descend<S: Space>(
    space: &S,
    lists: &Lists,
    level: u8,
    measure: impl Fn(u32) -> f32,
) -> Near {
    let near = |row| Near::new(measure(row), row);
    let mut nearest = near(lists.entry());
    for level in (level + 1..=lists.level(nearest.row())).rev() {
        loop {
            let neighbors = lists.neighbors(nearest.row(), level);
            neighbors.iter().for_each(|row| space.prefetch(*row));
            match neighbors.iter().map(|row| near(*row)).min() {
                Some(near) if near < nearest => nearest = near,
                _ => break,
            }
        }
    }
    nearest
}

/// What walks of a level need, kept from one to the next.
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
    pub(super) fn around<S: Space>(
        &mut self,
        space: &S,
        lists: &Lists,
        (level, start): (u8, Near),
        ef: usize,
        measure: impl Fn(u32) -> f32,
        accepts: Accepts<'_>,
    ) -> &[Near] {
        let Self { seen, waiting, best, fresh, found } = self;
        let is_wanted = |row: u32| accepts.is_none_or(|accepts| accepts.accepts(row));
        seen.clear(lists.rows());
        seen.add(start.row());
        waiting.clear();
        waiting.push(Reverse(start));
        best.clear();
        if is_wanted(start.row()) {
            best.push(start);
        }
        while let Some(Reverse(next)) = waiting.pop() {
            let full = best.len() >= ef;
            if full && best.peek().is_some_and(|farthest| next > *farthest) {
                break;
            }
            fresh.clear();
            for row in lists.neighbors(next.row(), level).iter().filter(|row| seen.add(**row)) {
                space.prefetch(*row);
                if let Some(accepts) = accepts {
                    accepts.prefetch(*row);
                }
                fresh.push(*row);
            }
            for row in &*fresh {
                let near = Near::new(measure(*row), *row);
                if best.len() >= ef && best.peek().is_some_and(|farthest| near > *farthest) {
                    continue;
                }
                if level == 0 {
                    lists.prefetch(*row);
                }
                waiting.push(Reverse(near));
                if is_wanted(*row) {
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
