//! Which rows a search can come to.
//!
//! A search walks down the upper levels, ends on some row that is on one of them (or on the entry)
//! and from there follows the links of level 0. So a row counts as reached when those links lead to
//! it from every such row.
//!
//! One walk forth and one back from a pivot settle every row that leads to the pivot, for it
//! reaches all that the pivot does: in a sound graph the entry is the only pivot.

use super::Links;

/// More pivots than this are a graph that should be built anew: none of its rows counts.
const PIVOTS_MAX: usize = 16;

impl Links {
    /// The rows that some search does not come to, whatever its breadth; ascending.
    pub fn unreached(&self) -> Vec<u32> {
        let rows = self.rows();
        if rows == 0 {
            return Vec::new();
        }
        let back = Reversed::of(self);
        let mut reached = vec![true; rows as usize];
        let mut settled = vec![false; rows as usize];
        let starts = (0..rows).filter(|&row| self.level(row) > 0);
        let mut pivots = 0;
        for start in std::iter::once(self.entry()).chain(starts) {
            if settled[start as usize] {
                continue;
            }
            pivots += 1;
            if pivots > PIVOTS_MAX {
                return (0..rows).collect();
            }
            let forth = walk(rows, start, |row| self.neighbors(row, 0));
            reached.iter_mut().zip(forth).for_each(|(all, this)| *all &= this);
            let leads_here = walk(rows, start, |row| back.sources(row));
            settled.iter_mut().zip(leads_here).for_each(|(all, this)| *all |= this);
        }
        (0..rows).filter(|&row| !reached[row as usize]).collect()
    }
}

/// The links of level 0, by the row they lead to.
struct Reversed {
    ends: Vec<usize>,
    sources: Vec<u32>,
}

impl Reversed {
    fn of(links: &Links) -> Self {
        let rows = links.rows();
        let mut ends = vec![0; rows as usize + 1];
        let all =
            || (0..rows).flat_map(|row| links.neighbors(row, 0).iter().map(move |to| (row, *to)));
        for (_, to) in all() {
            ends[to as usize + 1] += 1;
        }
        for row in 0..rows as usize {
            ends[row + 1] += ends[row];
        }
        let mut next = ends.clone();
        let mut sources = vec![0; ends[rows as usize]];
        for (from, to) in all() {
            sources[next[to as usize]] = from;
            next[to as usize] += 1;
        }
        Self { ends, sources }
    }

    fn sources(&self, row: u32) -> &[u32] {
        &self.sources[self.ends[row as usize]..self.ends[row as usize + 1]]
    }
}

fn walk<'a>(rows: u32, start: u32, next: impl Fn(u32) -> &'a [u32]) -> Vec<bool> {
    let mut seen = vec![false; rows as usize];
    seen[start as usize] = true;
    let mut waiting = vec![start];
    while let Some(row) = waiting.pop() {
        for &to in next(row) {
            if !std::mem::replace(&mut seen[to as usize], true) {
                waiting.push(to);
            }
        }
    }
    seen
}
