//! A graph's lists of neighbours in memory: each in a place of its own, so that rows can be added,
//! and so that a list is fetched without looking for it first.

use crate::vector::codes::prefetch;
use crate::vector::links::{Assembly, DEGREE, Links, degree_max};

/// Lists of one greatest length.
struct Table {
    degree: usize,
    counts: Vec<u8>,
    rows: Vec<u32>,
}

impl Table {
    fn with_capacity(degree: usize, lists: usize) -> Self {
        let (counts, rows) = (Vec::with_capacity(lists), Vec::with_capacity(lists * degree));
        Self { degree, counts, rows }
    }

    fn append(&mut self) {
        self.counts.push(0);
        self.rows.resize(self.rows.len() + self.degree, 0);
    }

    #[inline]
    fn get(&self, list: usize) -> &[u32] {
        &self.rows[list * self.degree..][..usize::from(self.counts[list])]
    }

    fn set(&mut self, list: usize, rows: &[u32]) {
        self.rows[list * self.degree..][..self.degree][..rows.len()].copy_from_slice(rows);
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

    fn memory_bytes(&self) -> usize {
        self.counts.capacity() + self.rows.capacity() * size_of::<u32>()
    }
}

/// Rows of a list that lie in one line of the cache.
const LINE_ROWS: usize = 16;

pub(super) struct Lists {
    entry: u32,
    /// Level 0, by row.
    base: Table,
    /// The levels above it, row after row.
    upper: Table,
    /// Where each row's lists begin in `upper`; and the end of the last.
    firsts: Vec<u32>,
}

impl Lists {
    /// Those of `links`, with room for `rows`.
    pub(super) fn of(links: &Links, rows: u32) -> Self {
        let rows = rows as usize;
        let base = Table::with_capacity(degree_max(0), rows);
        let upper = Table::with_capacity(degree_max(1), rows / (DEGREE - 1));
        let mut firsts = Vec::with_capacity(rows + 1);
        firsts.push(0);
        let mut lists = Self { entry: links.entry(), base, upper, firsts };
        for row in 0..links.rows() {
            lists.append(links.level(row));
            for level in 0..=links.level(row) {
                lists.set(row, level, links.neighbors(row, level));
            }
        }
        lists
    }

    pub(super) fn links(&self) -> Links {
        let mut assembly = Assembly::with_rows(self.rows());
        for row in 0..self.rows() {
            for level in 0..=self.level(row) {
                assembly.neighbors.extend(self.neighbors(row, level));
                assembly.end_list();
            }
            assembly.end_row();
        }
        assembly.finish(self.entry).expect("lists are links at any time")
    }

    pub(super) fn rows(&self) -> u32 {
        self.base.counts.len() as u32
    }

    pub(super) fn entry(&self) -> u32 {
        self.entry
    }

    pub(super) fn enter_at(&mut self, row: u32) {
        self.entry = row;
    }

    pub(super) fn level(&self, row: u32) -> u8 {
        (self.firsts[row as usize + 1] - self.firsts[row as usize]) as u8
    }

    #[inline]
    pub(super) fn neighbors(&self, row: u32, level: u8) -> &[u32] {
        match level {
            0 => self.base.get(row as usize),
            _ => self.upper.get(self.upper_list(row, level)),
        }
    }

    /// A row's neighbours on level 0 will soon be asked for.
    #[inline]
    pub(super) fn prefetch(&self, row: u32) {
        prefetch(&self.base.counts[row as usize]);
        let place = &self.base.rows[row as usize * self.base.degree..][..self.base.degree];
        // Two lines, or a little of a third.
        place.iter().step_by(LINE_ROWS).for_each(prefetch);
    }

    /// The next row, in no list and without neighbours.
    pub(super) fn append(&mut self, level: u8) {
        self.base.append();
        (0..level).for_each(|_| self.upper.append());
        self.firsts.push(self.upper.counts.len() as u32);
    }

    pub(super) fn set(&mut self, row: u32, level: u8, rows: &[u32]) {
        match level {
            0 => self.base.set(row as usize, rows),
            _ => {
                let list = self.upper_list(row, level);
                self.upper.set(list, rows);
            }
        }
    }

    /// Whether there was room.
    pub(super) fn push(&mut self, row: u32, level: u8, other: u32) -> bool {
        match level {
            0 => self.base.push(row as usize, other),
            _ => {
                let list = self.upper_list(row, level);
                self.upper.push(list, other)
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.base.memory_bytes() + self.upper.memory_bytes() + size_of_val(&*self.firsts)
    }

    fn upper_list(&self, row: u32, level: u8) -> usize {
        self.firsts[row as usize] as usize + usize::from(level) - 1
    }
}
