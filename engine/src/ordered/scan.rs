//! One scan over all layers of a tree, at one LSN, in either direction.
//!
//! Invariants:
//! 1. Each key comes once, as its newest version at or below the LSN.
//! 2. Where layers have the same key the newest layer wins, tombstones included; keys that do not
//!    exist are passed over.
//! 3. No lock is held between two steps: memtables are read page by page.

use std::sync::Arc;

use super::layers::Layers;
use super::memtable::Memtable;
use super::run::Cursor;
use super::{Direction, Entry, Item, Range};
use crate::error::Result;
use crate::log::Lsn;

/// Items taken from a memtable at once.
const PAGE: usize = 256;

/// One layer's part: stands on a key's version, or is done.
struct Side {
    source: Source,
    key: Vec<u8>,
    lsn: Lsn,
    live: bool,
    entry: Option<Entry>,
    begun: bool,
    done: bool,
}

enum Source {
    Memtable {
        memtable: Arc<Memtable>,
        slot: usize,
        range: Range,
        page: Page,
    },
    /// `ahead`: the cursor stands on an entry that was not looked at yet.
    Run {
        cursor: Box<Cursor>,
        ahead: bool,
    },
}

struct Page {
    items: std::vec::IntoIter<Item>,
    full: bool,
}

impl Page {
    fn new(items: Vec<Item>) -> Self {
        Self { full: items.len() == PAGE, items: items.into_iter() }
    }
}

pub struct Scan {
    sides: Vec<Side>,
    direction: Direction,
    lsn: Lsn,
}

impl Scan {
    pub fn new(
        layers: &Layers,
        (slot, tree): (usize, u16),
        range: &Range,
        direction: Direction,
        after: Option<&[u8]>,
        lsn: Lsn,
    ) -> Result<Self> {
        let memtables = std::iter::once(&layers.active).chain(&layers.sealed);
        let mut sides: Vec<Side> = memtables
            .map(|memtable| {
                let items = memtable.tree(slot).page(range, direction, after, lsn, PAGE);
                let (memtable, range) = (Arc::clone(memtable), range.clone());
                Side::new(Source::Memtable { memtable, slot, range, page: Page::new(items) })
            })
            .collect();
        for run in layers.runs.iter().filter(|run| run.info().first_lsn <= lsn) {
            if run.bounds(tree).is_some() {
                let cursor = Box::new(run.cursor(tree, range, direction, after)?);
                sides.push(Side::new(Source::Run { cursor, ahead: false }));
            }
        }
        for side in &mut sides {
            side.advance(direction, lsn)?;
        }
        Ok(Self { sides, direction, lsn })
    }

    /// The next key that exists. `hides`: whether a key's version at an LSN was forgotten.
    pub fn next(&mut self, hides: impl Fn(&[u8], Lsn) -> Result<bool>) -> Result<Option<Item>> {
        let Some(index) = self.seek(hides)? else { return Ok(None) };
        let side = &mut self.sides[index];
        let item = Item { key: side.key[..].into(), lsn: side.lsn, entry: side.take_entry() };
        self.pass(index)?;
        Ok(Some(item))
    }

    /// Passes the next key that exists; `false` at the end.
    pub fn skip(&mut self, hides: impl Fn(&[u8], Lsn) -> Result<bool>) -> Result<bool> {
        let Some(index) = self.seek(hides)? else { return Ok(false) };
        self.pass(index)?;
        Ok(true)
    }

    /// The side that has the next key that exists.
    fn seek(&mut self, hides: impl Fn(&[u8], Lsn) -> Result<bool>) -> Result<Option<usize>> {
        loop {
            let Some(index) = self.first() else { return Ok(None) };
            let side = &self.sides[index];
            // What is forgotten goes from the active memtable, the first side, at once.
            let masked = index > 0 && hides(&side.key, side.lsn)?;
            if side.live && !masked {
                return Ok(Some(index));
            }
            self.pass(index)?;
        }
    }

    /// The side with the first key; of several with the same the newest.
    fn first(&self) -> Option<usize> {
        let mut first: Option<usize> = None;
        for (index, side) in self.sides.iter().enumerate().filter(|(_, side)| !side.done) {
            let earlier = |known: usize| match self.direction {
                Direction::Forward => side.key < self.sides[known].key,
                Direction::Reverse => side.key > self.sides[known].key,
            };
            if first.is_none_or(earlier) {
                first = Some(index);
            }
        }
        first
    }

    /// Moves every side that stands on the key of side `index` behind it.
    fn pass(&mut self, index: usize) -> Result<()> {
        // Older sides first, so that the key they are compared with still stands.
        for other in (index + 1..self.sides.len()).rev() {
            if !self.sides[other].done && self.sides[other].key == self.sides[index].key {
                self.sides[other].advance(self.direction, self.lsn)?;
            }
        }
        self.sides[index].advance(self.direction, self.lsn)
    }
}

impl Side {
    fn new(source: Source) -> Self {
        let (key, entry) = (Vec::new(), None);
        Self { source, key, lsn: 0, live: false, entry, begun: false, done: false }
    }

    fn take_entry(&mut self) -> Option<Entry> {
        match (&self.source, self.entry.take()) {
            // Forward, the cursor still stands on the version.
            (Source::Run { cursor, .. }, None) => cursor.entry(),
            (_, entry) => entry,
        }
    }

    /// Moves to the next key's version at `lsn`.
    fn advance(&mut self, direction: Direction, lsn: Lsn) -> Result<()> {
        match (&mut self.source, direction) {
            (Source::Memtable { memtable, slot, range, page }, _) => {
                if page.items.len() == 0 && page.full {
                    let after = Some(&self.key[..]);
                    let items = memtable.tree(*slot).page(range, direction, after, lsn, PAGE);
                    *page = Page::new(items);
                }
                let Some(item) = page.items.next() else {
                    self.done = true;
                    return Ok(());
                };
                self.key.clear();
                self.key.extend_from_slice(&item.key);
                self.lsn = item.lsn;
                self.live = item.entry.is_some();
                self.entry = item.entry;
                Ok(())
            }
            (Source::Run { .. }, Direction::Forward) => self.run_forward(lsn),
            (Source::Run { .. }, Direction::Reverse) => self.run_reverse(lsn),
        }
    }

    /// Versions come newest first: the first one at or below the LSN counts.
    fn run_forward(&mut self, lsn: Lsn) -> Result<()> {
        let Source::Run { cursor, .. } = &mut self.source else { return Ok(()) };
        loop {
            if !cursor.advance()? {
                self.done = true;
                return Ok(());
            }
            let passed = self.begun && cursor.key() == self.key;
            if passed || cursor.lsn() > lsn {
                continue;
            }
            self.key.clear();
            self.key.extend_from_slice(cursor.key());
            self.lsn = cursor.lsn();
            self.live = !cursor.is_tombstone();
            self.begun = true;
            return Ok(());
        }
    }

    /// Versions come oldest first: the last one at or below the LSN counts.
    fn run_reverse(&mut self, lsn: Lsn) -> Result<()> {
        let Source::Run { cursor, ahead } = &mut self.source else { return Ok(()) };
        loop {
            if !*ahead && (self.done || !cursor.advance()?) {
                self.done = true;
                return Ok(());
            }
            self.key.clear();
            self.key.extend_from_slice(cursor.key());
            let mut found = false;
            loop {
                if cursor.lsn() <= lsn {
                    found = true;
                    self.lsn = cursor.lsn();
                    self.live = !cursor.is_tombstone();
                    self.entry = cursor.entry();
                }
                *ahead = cursor.advance()?;
                if !*ahead || cursor.key() != self.key {
                    break;
                }
            }
            if found {
                return Ok(());
            }
            if !*ahead {
                self.done = true;
                return Ok(());
            }
        }
    }
}
