//! The links of a vector graph without its vectors, and their compact bytes.
//!
//! A graph of rows 0..n has levels: every row is on level 0, each higher level holds fewer of
//! them, and a search enters at a row of the top one. On each of its levels a row names its
//! neighbours there.
//!
//! Invariants, checked by whatever makes a `Links`:
//!
//! 1. Neighbours are strictly ascending, below n, not the row itself, at most `degree_max` of them,
//!    and on that level themselves.
//! 2. The entry row is on the top level.
//!
//! Bytes: a version, n and the entry as u32, then one stream of bits: for each row its level in
//! unary, and for each of its levels the number of neighbours and the gaps between them (`bits`).
//! There is one encoding of a graph, and no checksum: the file around it has them. Every row and
//! every neighbour takes a bit at least, so that memory stays in proportion to the bytes read.

mod bits;
mod reach;
#[cfg(test)]
mod tests;

use std::ops::Range;

use self::bits::{BitReader, BitWriter};
use crate::codec::Decoder;
use crate::error::{Error, Result};

/// Neighbours of a row on a level above 0; twice as many on level 0.
pub const DEGREE: usize = 16;
/// A level above l is drawn with a chance of 16^-l: 13 is the last that 53 random bits can give.
pub const LEVEL_MAX: u8 = 15;
pub const ROWS_MAX: u32 = 1 << 26;

const VERSION: u8 = 1;

pub fn degree_max(level: u8) -> usize {
    if level == 0 { 2 * DEGREE } else { DEGREE }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    entry: u32,
    /// Where each row's lists begin in `ends`, one per level from 0; and the end of the last.
    firsts: Vec<u32>,
    /// Where each list begins in `neighbors`; and the end of the last.
    ends: Vec<u32>,
    neighbors: Vec<u32>,
}

/// Of no rows.
impl Default for Links {
    fn default() -> Self {
        Self { entry: 0, firsts: vec![0], ends: vec![0], neighbors: Vec::new() }
    }
}

impl Links {
    pub fn rows(&self) -> u32 {
        (self.firsts.len() - 1) as u32
    }

    /// Where every search begins; 0 in an empty graph.
    pub fn entry(&self) -> u32 {
        self.entry
    }

    /// The highest level of a row.
    pub fn level(&self, row: u32) -> u8 {
        let lists = self.lists(row);
        (lists.len() - 1) as u8
    }

    pub fn neighbors(&self, row: u32, level: u8) -> &[u32] {
        let list = self.lists(row).start + usize::from(level);
        &self.neighbors[self.ends[list] as usize..self.ends[list + 1] as usize]
    }

    /// Links of all rows on all levels.
    pub fn count(&self) -> usize {
        self.neighbors.len()
    }

    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.firsts) + size_of_val(&*self.ends) + size_of_val(&*self.neighbors)
    }

    fn lists(&self, row: u32) -> Range<usize> {
        self.firsts[row as usize] as usize..self.firsts[row as usize + 1] as usize
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut head = vec![VERSION];
        head.extend_from_slice(&self.rows().to_le_bytes());
        head.extend_from_slice(&self.entry.to_le_bytes());
        let mut out = BitWriter::after(head);
        for row in 0..self.rows() {
            out.put_unary(u32::from(self.level(row)));
            for level in 0..=self.level(row) {
                put_list(&mut out, self.neighbors(row, level), level, self.rows());
            }
        }
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut head = Decoder::new(bytes);
        let version = head.u8()?;
        if version != VERSION {
            return Err(damaged(format!("version {version} is unknown")));
        }
        let (rows, entry) = (head.u32()?, head.u32()?);
        // A row is a bit of level and a count of neighbours at least.
        let possible = (head.remaining() * 8) as u64 / u64::from(1 + count_width(0));
        if u64::from(rows) > possible.min(u64::from(ROWS_MAX)) {
            return Err(damaged(format!("{rows} rows in {} bytes", bytes.len())));
        }
        let mut bits = BitReader::new(head.take(head.remaining())?);
        let mut assembly = Assembly::with_rows(rows);
        for _ in 0..rows {
            for level in 0..=bits.unary(u32::from(LEVEL_MAX))? as u8 {
                take_list(&mut bits, level, rows, &mut assembly.neighbors)?;
                assembly.end_list();
            }
            assembly.end_row();
        }
        bits.end()?;
        assembly.finish(entry)
    }

    fn check(&self) -> Result<()> {
        let rows = self.rows();
        let top = (0..rows).map(|row| self.level(row)).max();
        if top.is_some() && (self.entry >= rows || Some(self.level(self.entry)) != top) {
            return Err(damaged(format!("entry {} is not on the top level", self.entry)));
        }
        for row in 0..rows {
            if self.lists(row).len() > usize::from(LEVEL_MAX) + 1 {
                return Err(damaged(format!("row {row} is above level {LEVEL_MAX}")));
            }
            for level in 0..=self.level(row) {
                self.check_list(row, level)?;
            }
        }
        Ok(())
    }

    fn check_list(&self, row: u32, level: u8) -> Result<()> {
        let list = self.neighbors(row, level);
        let ascending = list.windows(2).all(|pair| pair[0] < pair[1]);
        let linkable =
            |&other: &u32| other != row && other < self.rows() && self.level(other) >= level;
        if list.len() <= degree_max(level) && ascending && list.iter().all(linkable) {
            return Ok(());
        }
        Err(damaged(format!("the links of row {row} on level {level} are impossible")))
    }
}

/// Puts a `Links` together from its lists, row by row and level by level from 0.
pub struct Assembly {
    firsts: Vec<u32>,
    ends: Vec<u32>,
    /// Those of the list at hand are appended here.
    pub neighbors: Vec<u32>,
}

impl Assembly {
    pub fn with_rows(rows: u32) -> Self {
        let mut firsts = Vec::with_capacity(rows as usize + 1);
        firsts.push(0);
        let mut ends = Vec::with_capacity(rows as usize + rows as usize / 8 + 1);
        ends.push(0);
        Self { firsts, ends, neighbors: Vec::new() }
    }

    /// The neighbours appended since the last call are one list; they may be in any order.
    pub fn end_list(&mut self) {
        let start = self.ends.last().copied().unwrap_or(0);
        self.neighbors[start as usize..].sort_unstable();
        self.ends.push(self.neighbors.len() as u32);
    }

    /// The lists since the last call are those of one row; at least one.
    pub fn end_row(&mut self) {
        self.firsts.push(self.ends.len() as u32 - 1);
    }

    pub fn finish(self, entry: u32) -> Result<Links> {
        let Self { firsts, ends, neighbors } = self;
        assert!(firsts.windows(2).all(|pair| pair[0] < pair[1]), "a row has level 0");
        if firsts.len() == 1 && entry != 0 {
            return Err(damaged(format!("entry {entry} of an empty graph")));
        }
        let links = Links { entry, firsts, ends, neighbors };
        links.check()?;
        Ok(links)
    }
}

/// Bits of a count of neighbours.
fn count_width(level: u8) -> u32 {
    usize::BITS - degree_max(level).leading_zeros()
}

fn put_list(out: &mut BitWriter, list: &[u32], level: u8, rows: u32) {
    out.put(list.len() as u32, count_width(level));
    let width = gap_width(list.len(), rows);
    let mut least = 0;
    for &neighbor in list {
        out.put_rice(neighbor - least, width);
        least = neighbor + 1;
    }
}

fn take_list(bits: &mut BitReader, level: u8, rows: u32, list: &mut Vec<u32>) -> Result<()> {
    let count = bits.take(count_width(level))? as usize;
    if count > degree_max(level) {
        return Err(damaged(format!("{count} neighbours on level {level}")));
    }
    let width = gap_width(count, rows);
    let mut least = 0;
    for _ in 0..count {
        // What is left of the range bounds the gap, and so the sum.
        let neighbor = least + bits.rice(width, rows - least)?;
        if neighbor >= rows {
            return Err(damaged(format!("row {neighbor} of {rows} rows")));
        }
        list.push(neighbor);
        least = neighbor + 1;
    }
    Ok(())
}

/// The Rice parameter of a list. Neighbours are spread over the rows as if by chance, so the mean
/// gap is known without being stored; no list takes more than three bits a link beyond it.
fn gap_width(count: usize, rows: u32) -> u32 {
    (rows / (count as u32 + 1)).max(1).ilog2()
}

fn damaged(what: String) -> Error {
    Error::corruption(format!("the links of a vector graph are damaged: {what}"))
}
