//! Writes runs: from sealed memtables at once, from other runs in slices.
//!
//! Invariants:
//! 1. Inputs are never changed; the output counts only once its file is whole and synced.
//! 2. Memory is bounded by a block of each input and the writer's piece.
//! 3. A slice ends after about the bytes asked for; between slices nothing is held but files.

use std::sync::Arc;

use super::retention::{Keep, Passing, Verdict};
use crate::error::Result;
use crate::log::Lsn;
use crate::log::format::DatabaseId;
use crate::ordered::layers::Ordered;
use crate::ordered::memtable::Memtable;
use crate::ordered::run::{Cursor, Run, RunInfo, RunWriter};
use crate::ordered::{Direction, Entry, Range};
use crate::storage::{Cause, File, Storage};

/// A run whose file is to be synced.
pub type Finished = (RunInfo, Arc<dyn File>);

/// Where a run is to be made, and for whom.
pub struct Target<'a> {
    pub storage: &'a dyn Storage,
    pub database: DatabaseId,
    pub uid: u64,
    pub structure: u32,
    /// Whether a tree is asked for single keys.
    pub sought: &'a dyn Fn(u16) -> bool,
}

/// Writes what is left of versions in order.
struct Output {
    writer: RunWriter,
    written: u64,
    tree: u16,
    key: Vec<u8>,
    sought: bool,
    passing: Option<Passing>,
}

impl Output {
    fn create(target: &Target<'_>, cause: Cause, lsns: (Lsn, Lsn), keys: u64) -> Result<Self> {
        let Target { storage, database, uid, structure, .. } = target;
        let writer = RunWriter::create(*storage, *database, *uid, *structure, cause, lsns, keys)?;
        let key = Vec::new();
        Ok(Self { writer, written: 0, tree: 0, key, sought: false, passing: None })
    }

    fn push(
        &mut self,
        (target, keep): (&Target<'_>, &Keep<'_>),
        tree: u16,
        key: &[u8],
        lsn: Lsn,
        entry: Option<&Entry>,
    ) -> Result<()> {
        let same = tree == self.tree && *key == *self.key;
        let passing = match &mut self.passing {
            Some(passing) if same => passing,
            passing => {
                self.tree = tree;
                self.key.clear();
                self.key.extend_from_slice(key);
                self.sought = (target.sought)(tree);
                passing.insert(Passing::begin(keep, tree, key)?)
            }
        };
        if let Verdict::Write { tombstone } = passing.judge(keep, tree, lsn, entry) {
            if let Some(lsn) = tombstone {
                self.writer.push(tree, key, lsn, None, self.sought)?;
                self.written += 1;
            }
            self.writer.push(tree, key, lsn, entry, self.sought)?;
            self.written += 1;
        }
        Ok(())
    }

    /// The finished run, not synced yet; `None` if nothing is left, and then the file holds nothing
    /// of use.
    fn finish(self) -> Result<Option<Finished>> {
        if self.written == 0 {
            return Ok(None);
        }
        self.writer.finish().map(Some)
    }
}

/// Writes a sealed memtable as a run; `None`: nothing of it is left.
pub fn flush(
    ordered: &Ordered,
    memtable: &Memtable,
    lsns: (Lsn, Lsn),
    target: &Target<'_>,
    keep: &Keep<'_>,
) -> Result<Option<Finished>> {
    let keys = memtable.trees().iter().map(|tree| tree.keys() as u64).sum();
    let mut output = Output::create(target, Cause::Flush, lsns, keys)?;
    for (slot, index) in memtable.trees().iter().enumerate() {
        let tree = ordered.number(slot);
        index.each(|key, lsn, entry| output.push((target, keep), tree, key, lsn, entry))?;
    }
    output.finish()
}

/// A merge of neighbouring runs, under way.
pub struct Merge {
    pub inputs: Vec<Arc<Run>>,
    trees: Vec<u16>,
    at: usize,
    cursors: Vec<Cursor>,
    output: Output,
}

impl Merge {
    /// `inputs` newest first.
    pub fn begin(inputs: Vec<Arc<Run>>, target: &Target<'_>) -> Result<Self> {
        let infos = || inputs.iter().map(|run| run.info());
        let first = infos().map(|info| info.first_lsn).min().unwrap_or_default();
        let last = infos().map(|info| info.last_lsn).max().unwrap_or_default();
        let keys = infos().map(|info| info.entries).sum();
        let mut trees: Vec<u16> = inputs.iter().flat_map(|run| run.trees()).collect();
        trees.sort_unstable();
        trees.dedup();
        let output = Output::create(target, Cause::Merge, (first, last), keys)?;
        Ok(Self { inputs, trees, at: 0, cursors: Vec::new(), output })
    }

    /// Goes on until about `bytes` more are written or `entries` more were read; `true` when all
    /// of it is done.
    pub fn step(
        &mut self,
        target: &Target<'_>,
        keep: &Keep<'_>,
        bytes: u64,
        mut entries: u64,
    ) -> Result<bool> {
        let end = self.output.writer.bytes_written().saturating_add(bytes);
        while entries > 0 && self.output.writer.bytes_written() < end {
            let Some(first) = self.first() else {
                if !self.next_tree()? {
                    return Ok(true);
                }
                continue;
            };
            let cursor = &mut self.cursors[first];
            let tree = self.trees[self.at - 1];
            let entry = cursor.entry();
            let (key, lsn) = (cursor.key(), cursor.lsn());
            self.output.push((target, keep), tree, key, lsn, entry.as_ref())?;
            if !self.cursors[first].advance()? {
                self.cursors.remove(first);
            }
            entries -= 1;
        }
        Ok(false)
    }

    /// Cursors on the next tree; `false` after the last.
    fn next_tree(&mut self) -> Result<bool> {
        let Some(tree) = self.trees.get(self.at).copied() else { return Ok(false) };
        self.at += 1;
        for run in &self.inputs {
            let mut cursor = run.cursor_uncached(tree, &Range::all(), Direction::Forward, None)?;
            if cursor.advance()? {
                self.cursors.push(cursor);
            }
        }
        Ok(true)
    }

    /// The cursor with the first key; of several with the same the newest version, whose run comes
    /// first.
    fn first(&self) -> Option<usize> {
        let mut first: Option<usize> = None;
        for (index, cursor) in self.cursors.iter().enumerate() {
            if first.is_none_or(|known| cursor.key() < self.cursors[known].key()) {
                first = Some(index);
            }
        }
        first
    }

    /// Completes the file, which is not synced yet; `None`: nothing is left of the inputs.
    pub fn finish(self) -> Result<Option<Finished>> {
        self.output.finish()
    }
}
