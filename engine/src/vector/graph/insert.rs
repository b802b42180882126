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
use super::walk::{Near, Neighbors, Walk, descend};
use crate::error::Result;
use crate::vector::codes::prefetch;
use crate::vector::links::{Assembly, DEGREE, LEVEL_MAX, Links, degree_max};

/// Farther than every row, and finite.
const FAR: f32 = f32::MAX;

/// Lists of one length at most, each in a place of its own.
struct Lists {
    degree: usize,
    counts: Vec<u8>,
    rows: Vec<u32>,
}

impl Lists {
    fn with_capacity(degree: usize, lists: usize) -> Self {
        let (counts, rows) = (Vec::with_capacity(lists), Vec::with_capacity(lists * degree));
        Self { degree, counts, rows }
    }

    fn append(&mut self) {
        self.counts.push(0);
        self.rows.resize(self.rows.len() + self.degree, 0);
    }

    fn get(&self, list: usize) -> &[u32] {
        &self.rows[list * self.degree..][..usize::from(self.counts[list])]
    }

    fn set(&mut self, list: usize, rows: &[u32]) {
        self.rows[list * self.degree..][..rows.len()].copy_from_slice(rows);
        self.counts[list] = rows.len() as u8;
    }

    /// Whether there was room.
    fn push(&mut self, list: usize, row: u32) -> bool {
        let count = usize::from(self.counts[list]);
        let has_room = count < self.degree;
        if has_room {
            self.rows[list * self.degree + count] = row;
            self.counts[list] += 1;
        }
        has_room
    }

    fn prefetch(&self, list: usize) {
        prefetch(&self.counts[list]);
        let rows = &self.rows[list * self.degree..][..self.degree];
        // Lines of 16.
        rows.iter().step_by(16).for_each(prefetch);
    }
}

/// The links of a graph that rows are added to.
pub(super) struct Growing {
    entry: u32,
    /// Level 0, by row.
    base: Lists,
    /// The levels above it, row after row.
    upper: Lists,
    /// Where each row's lists begin in `upper`; and the end of the last.
    firsts: Vec<u32>,
}

impl Neighbors for Growing {
    fn rows(&self) -> u32 {
        self.base.counts.len() as u32
    }

    fn entry(&self) -> u32 {
        self.entry
    }

    fn level(&self, row: u32) -> u8 {
        (self.firsts[row as usize + 1] - self.firsts[row as usize]) as u8
    }

    fn neighbors(&self, row: u32, level: u8) -> &[u32] {
        match level {
            0 => self.base.get(row as usize),
            _ => self.upper.get(self.upper_list(row, level)),
        }
    }

    fn prefetch(&self, row: u32) {
        self.base.prefetch(row as usize);
    }
}

impl Growing {
    /// These links, with room for `rows`.
    pub(super) fn of(links: &Links, rows: u32) -> Self {
        let rows = rows as usize;
        let base = Lists::with_capacity(degree_max(0), rows);
        let upper = Lists::with_capacity(degree_max(1), rows / (DEGREE - 1));
        let mut firsts = Vec::with_capacity(rows + 1);
        firsts.push(0);
        let mut growing = Self { entry: links.entry(), base, upper, firsts };
        for row in 0..links.rows() {
            growing.append(links.level(row));
            for level in 0..=links.level(row) {
                growing.set(row, level, links.neighbors(row, level));
            }
        }
        growing
    }

    pub(super) fn links(&self) -> Result<Links> {
        let mut assembly = Assembly::with_rows(self.rows());
        for row in 0..self.rows() {
            for level in 0..=self.level(row) {
                assembly.neighbors.extend(self.neighbors(row, level));
                assembly.end_list();
            }
            assembly.end_row();
        }
        assembly.finish(self.entry)
    }

    fn append(&mut self, level: u8) {
        self.base.append();
        (0..level).for_each(|_| self.upper.append());
        self.firsts.push(self.upper.counts.len() as u32);
    }

    fn upper_list(&self, row: u32, level: u8) -> usize {
        self.firsts[row as usize] as usize + usize::from(level) - 1
    }

    fn set(&mut self, row: u32, level: u8, rows: &[u32]) {
        match level {
            0 => self.base.set(row as usize, rows),
            _ => self.upper.set(self.upper_list(row, level), rows),
        }
    }

    fn push(&mut self, row: u32, level: u8, other: u32) -> bool {
        match level {
            0 => self.base.push(row as usize, other),
            _ => self.upper.push(self.upper_list(row, level), other),
        }
    }

    /// The next row comes in, with `breadth` candidates on each of its levels.
    pub(super) fn insert<S: Space>(&mut self, space: &S, walk: &mut Walk, breadth: usize) {
        let row = self.rows();
        let level = level_of(row);
        let entry = self.entry;
        self.append(level);
        if row == 0 {
            return;
        }
        let top = self.level(entry);
        let measure = |other| measured(space, row, other);
        let mut nearest = descend(space, self, level, measure);
        for level in (0..=level.min(top)).rev() {
            let found = walk.around(space, self, (level, nearest), breadth, measure, None);
            nearest = found[0];
            let chosen = choose(space, found, DEGREE);
            let rows: Vec<u32> = chosen.iter().map(|near| near.row()).collect();
            self.set(row, level, &rows);
            if level == 0 {
                rows.iter().for_each(|other| self.base.prefetch(*other as usize));
            }
            for near in chosen {
                self.link(space, near.row(), near.distance(), row, level);
            }
        }
        if level > top {
            self.entry = row;
        }
    }

    /// `row` comes to know of `other`.
    fn link<S: Space>(&mut self, space: &S, row: u32, distance: f32, other: u32, level: u8) {
        if self.push(row, level, other) {
            return;
        }
        let list = self.neighbors(row, level);
        list.iter().for_each(|known| space.prefetch(*known));
        let known = list.iter().map(|known| Near::new(measured(space, row, *known), *known));
        let mut all: Vec<Near> = known.chain([Near::new(distance, other)]).collect();
        all.sort_unstable();
        let chosen = choose(space, &all, degree_max(level));
        let rows: Vec<u32> = chosen.iter().map(|near| near.row()).collect();
        self.set(row, level, &rows);
    }
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
