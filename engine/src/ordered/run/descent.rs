//! The way from the root of a tree to one of its entries, and from there to its neighbours.
//!
//! Invariant: a step to another block of data goes onwards in the file, so that a walk ends
//! whatever the index says.

use std::sync::Arc;

use smallvec::SmallVec;

use super::block::{Block, Found, Group};
use super::footer::Tree;
use super::reader::{Fill, Run};
use crate::error::Result;
use crate::log::Lsn;
use crate::ordered::Direction;

pub struct Level {
    pub block: Arc<Block>,
    /// Where it is in the file.
    offset: u64,
    /// Number of an entry; of the lowest level, it may be one behind the last.
    pub at: usize,
}

/// One block of each level, the root first, and the entry that leads on.
#[derive(Default)]
pub struct Descent {
    pub levels: SmallVec<[Level; 4]>,
}

impl Descent {
    /// To the first entry at or behind (key, lsn), or behind the last of the block where it would
    /// be; `group` is the one of the search there.
    pub fn find(
        &mut self,
        run: &Run,
        tree: &Tree,
        (key, lsn): (&[u8], Lsn),
        fill: Fill,
        group: &mut Group,
    ) -> Result<Found> {
        self.levels.clear();
        // No version is newer; and so much has a separator that stands above all of a key's.
        let lsn = lsn.min(run.info().last_lsn);
        let (mut block, mut offset) = (run.root(tree)?, tree.root.offset);
        for _ in 0..tree.height {
            let found = block.find(key, lsn, group).ok_or_else(|| run.bad_block())?;
            let at = if found.exact { found.at } else { found.at.saturating_sub(1) };
            let child = run.child(&block, at, group)?;
            let below = run.block(child, fill)?;
            self.levels.push(Level { block, offset, at });
            (block, offset) = (below, child.offset);
        }
        let found = block.find(key, lsn, group).ok_or_else(|| run.bad_block())?;
        self.levels.push(Level { block, offset, at: found.at });
        Ok(found)
    }

    /// To the first entry of the tree or the last.
    pub fn end(&mut self, run: &Run, tree: &Tree, towards: Direction, fill: Fill) -> Result<()> {
        self.levels.clear();
        let root = (run.root(tree)?, tree.root.offset);
        self.down(run, root, tree.height, towards, fill)
    }

    /// Goes down `height` levels from `block`, at one edge.
    fn down(
        &mut self,
        run: &Run,
        (mut block, mut offset): (Arc<Block>, u64),
        height: u8,
        towards: Direction,
        fill: Fill,
    ) -> Result<()> {
        let edge = |block: &Block| match towards {
            Direction::Forward => block.entries() - 1,
            Direction::Reverse => 0,
        };
        for _ in 0..height {
            let at = edge(&block);
            let child = run.child(&block, at, &mut Group::default())?;
            let below = run.block(child, fill)?;
            self.levels.push(Level { block, offset, at });
            (block, offset) = (below, child.offset);
        }
        let at = edge(&block);
        self.levels.push(Level { block, offset, at });
        Ok(())
    }

    /// Moves by one entry; `false` at the end, where it stays.
    pub fn step(&mut self, run: &Run, towards: Direction, fill: Fill) -> Result<bool> {
        let moved = |level: &Level| match towards {
            Direction::Forward => Some(level.at + 1).filter(|at| *at < level.block.entries()),
            Direction::Reverse => level.at.checked_sub(1),
        };
        let depth = self.levels.len();
        let Some(turn) = (0..depth).rev().find(|depth| moved(&self.levels[*depth]).is_some())
        else {
            return Ok(false);
        };
        let level = &mut self.levels[turn];
        level.at = moved(level).expect("found so");
        if turn + 1 == depth {
            return Ok(true);
        }
        let child = run.child(&level.block, level.at, &mut Group::default())?;
        let block = (run.block(child, fill)?, child.offset);
        let left = self.levels[depth - 1].offset;
        self.levels.truncate(turn + 1);
        let (opposite, onwards): (_, fn(&u64, &u64) -> bool) = match towards {
            Direction::Forward => (Direction::Reverse, u64::gt),
            Direction::Reverse => (Direction::Forward, u64::lt),
        };
        self.down(run, block, (depth - turn - 2) as u8, opposite, fill)?;
        match onwards(&self.levels[depth - 1].offset, &left) {
            true => Ok(true),
            false => Err(run.bad_block()),
        }
    }
}
