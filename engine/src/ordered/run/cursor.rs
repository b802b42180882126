//! Walks the versions of one tree, in the order of the file or exactly backwards.
//!
//! Invariants:
//! 1. A cursor holds one block of each level and the keys of one group, however long it lives.
//! 2. Within a group the order of the keys is checked; across them `verify` does.

use std::sync::Arc;

use super::block::{FORM, GROUP_ENTRIES, Group, Keys, LSN, TOMBSTONE};
use super::descent::Descent;
use super::reader::{Fill, Run};
use crate::error::Result;
use crate::log::Lsn;
use crate::ordered::{Direction, Entry, Range};

/// Where the walk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// On an entry that was not yet shown.
    Before,
    On,
    End,
}

pub struct Cursor {
    run: Arc<Run>,
    descent: Descent,
    direction: Direction,
    fill: Fill,
    state: State,
    /// Keys at or above it (forward) or below it (reverse) are not shown.
    limit: Option<Box<[u8]>>,
    group: Option<Group>,
    keys: Keys,
    index: usize,
}

impl Run {
    /// Versions of the keys of `range` behind `after`: forward in the order of the file, in
    /// reverse exactly backwards.
    pub fn cursor(
        self: &Arc<Self>,
        tree: u16,
        range: &Range,
        direction: Direction,
        after: Option<&[u8]>,
    ) -> Result<Cursor> {
        Cursor::new(Arc::clone(self), tree, range, direction, after, Fill::Cache)
    }

    /// As `cursor`, for one who reads each block once: blocks are not kept for others.
    pub fn cursor_uncached(
        self: &Arc<Self>,
        tree: u16,
        range: &Range,
        direction: Direction,
        after: Option<&[u8]>,
    ) -> Result<Cursor> {
        Cursor::new(Arc::clone(self), tree, range, direction, after, Fill::Nothing)
    }
}

impl Cursor {
    fn new(
        run: Arc<Run>,
        tree: u16,
        range: &Range,
        direction: Direction,
        after: Option<&[u8]>,
        fill: Fill,
    ) -> Result<Self> {
        let limit = match direction {
            Direction::Forward => range.end.as_deref(),
            Direction::Reverse => Some(&range.start[..]).filter(|start| !start.is_empty()),
        };
        let mut cursor = Self {
            run,
            descent: Descent::default(),
            direction,
            fill,
            state: State::End,
            limit: limit.map(Box::from),
            group: None,
            keys: Keys::default(),
            index: 0,
        };
        let run = Arc::clone(&cursor.run);
        let Some(tree) = run.tree(tree) else { return Ok(cursor) };
        let (descent, mut group) = (&mut cursor.descent, Group::default());
        let found = match direction {
            Direction::Forward => {
                let skips = after.filter(|after| *after >= &range.start[..]);
                let (key, lsn) = skips.map_or((&range.start[..], Lsn::MAX), |after| (after, 0));
                let found = descent.find(&run, tree, (key, lsn), fill, &mut group)?;
                // A version of LSN 0 is the one that still has the key.
                let back = usize::from(!(skips.is_some() && found.same));
                forward(descent, &run, back, fill)?
            }
            Direction::Reverse => {
                let end = range.end.as_deref();
                let bound = after.filter(|after| end.is_none_or(|end| *after < end)).or(end);
                match bound {
                    Some(bound) => {
                        descent.find(&run, tree, (bound, Lsn::MAX), fill, &mut group)?;
                        descent.step(&run, Direction::Reverse, fill)?
                    }
                    None => {
                        descent.end(&run, tree, Direction::Forward, fill)?;
                        true
                    }
                }
            }
        };
        if found {
            cursor.state = State::Before;
        }
        Ok(cursor)
    }

    /// Moves to the next entry; `false` at the end.
    pub fn advance(&mut self) -> Result<bool> {
        match self.state {
            State::End => return Ok(false),
            State::Before => self.state = State::On,
            State::On => {
                if !self.step()? {
                    self.state = State::End;
                    return Ok(false);
                }
            }
        }
        if self.group.is_none() {
            self.read_group()?;
        }
        let key = self.keys.get(self.index);
        let beyond = match (&self.limit, self.direction) {
            (None, _) => false,
            (Some(limit), Direction::Forward) => key >= &limit[..],
            (Some(limit), Direction::Reverse) => key < &limit[..],
        };
        if beyond {
            self.state = State::End;
        }
        Ok(!beyond)
    }

    /// Moves by one; forgets the group where it leaves it.
    fn step(&mut self) -> Result<bool> {
        let level = self.descent.levels.last_mut().expect("a block of data");
        let entries = self.group.as_ref().map_or(0, |group| group.entries);
        match self.direction {
            Direction::Forward if self.index + 1 < entries => {
                self.index += 1;
                level.at += 1;
                Ok(true)
            }
            Direction::Reverse if self.index > 0 => {
                self.index -= 1;
                level.at -= 1;
                Ok(true)
            }
            direction => {
                self.group = None;
                self.descent.step(&self.run, direction, self.fill)
            }
        }
    }

    fn read_group(&mut self) -> Result<()> {
        let level = self.descent.levels.last().expect("a block of data");
        let group = level.block.group(level.at / GROUP_ENTRIES);
        self.index = level.at % GROUP_ENTRIES;
        let keys = &mut self.keys;
        self.group = group
            .filter(|group| level.block.check(group) && keys.read(&level.block, group).is_some());
        match self.group {
            Some(_) => Ok(()),
            None => {
                self.state = State::End;
                Err(self.run.bad_block())
            }
        }
    }

    fn number(&self, column: usize) -> u64 {
        let level = self.descent.levels.last().expect("a block of data");
        let group = self.group.as_ref().expect("the cursor is on an entry");
        level.block.number(group, column, self.index)
    }

    pub fn key(&self) -> &[u8] {
        self.keys.get(self.index)
    }

    pub fn lsn(&self) -> Lsn {
        self.number(LSN)
    }

    pub fn is_tombstone(&self) -> bool {
        self.number(FORM) == TOMBSTONE
    }

    /// The entry; `None` is a tombstone. Allocates only here.
    pub fn entry(&self) -> Option<Entry> {
        let level = self.descent.levels.last().expect("a block of data");
        let group = self.group.as_ref().expect("the cursor is on an entry");
        level.block.version(group, self.index)?.1
    }
}

/// From a place that a search found to the first entry at or behind it: `back` is 1 to stay on it.
fn forward(descent: &mut Descent, run: &Run, back: usize, fill: Fill) -> Result<bool> {
    let level = descent.levels.last_mut().expect("a block of data");
    if back == 1 {
        if level.at < level.block.entries() {
            return Ok(true);
        }
        level.at -= 1;
    }
    descent.step(run, Direction::Forward, fill)
}
