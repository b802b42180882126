//! Writes a run: blocks as they fill, then the filter, the directory and the footer.
//!
//! Invariants:
//! 1. Bytes go out once, in order, in pieces that start at sectors.
//! 2. Memory: one piece, one block for each level, the filter.
//!
//! A block closes when an entry follows it, and a level of the index begins when the level below
//! closes its first block: so the highest level has one block, of two entries or more: the root.

use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::block::common;
use super::builder::Builder;
use super::filter::{self, Filter};
use super::footer::{BlockAt, FOOTER_BYTES, Footer, RunInfo, Tree, put_directory};
use super::frame::{self, Seal};
use super::{
    BLOCK_BYTES, DIRECTORY_BYTES_MAX, DatabaseId, ENTRY_BYTES_MAX, KEY_BYTES_MAX, SUM_BYTES, path,
};
use crate::error::{Error, Result};
use crate::log::{Lsn, Pointer};
use crate::ordered::{Entry, Slot};
use crate::storage::aligned::AlignedBuffer;
use crate::storage::{Cause, File, Open, SECTOR_BYTES, Share, Storage};

const PIECE_BYTES: usize = 256 << 10;
/// An index of long keys gets larger blocks rather than more levels.
const CHILDREN_MIN: usize = 8;

/// The file, as a stream.
struct Output {
    file: Arc<dyn File>,
    buffer: AlignedBuffer,
    written: u64,
    structure: u32,
    cause: Cause,
    seal: Seal,
    /// Over the checksums so far.
    root: Xxh3,
}

impl Output {
    fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.buffer.len()));
            self.buffer.extend(now);
            bytes = later;
            if self.buffer.len() == PIECE_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let bytes = self.buffer.padded();
        if !bytes.is_empty() {
            let share = Share::new(self.structure, self.cause, bytes.len());
            self.file.write_at(bytes, self.written, &[share])?;
            self.written += bytes.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Puts bytes and their checksum.
    fn put_sealed(&mut self, bytes: &[u8]) -> Result<BlockAt> {
        let offset = self.offset();
        let sum = self.seal.sum(bytes, offset).to_le_bytes();
        self.root.update(&sum);
        self.put(bytes)?;
        self.put(&sum)?;
        Ok(BlockAt { offset, bytes: (bytes.len() + SUM_BYTES) as u32 })
    }
}

/// A block being filled, and the key and LSN that its entry in the index will have.
#[derive(Default)]
struct Level {
    block: Builder,
    separator: Vec<u8>,
    separator_lsn: Lsn,
}

pub struct RunWriter {
    output: Output,
    database: DatabaseId,
    info: RunInfo,
    filter: Filter,
    /// Of the tree being written; the data first.
    levels: Vec<Level>,
    trees: Vec<Tree>,
    current: Option<u16>,
    sought: bool,
    entries_before: u64,
    first: Vec<u8>,
    last: Vec<u8>,
    last_lsn: Lsn,
    frame: Vec<u8>,
    /// A block is closed at this size, before compression.
    pub(super) block_bytes: usize,
}

impl RunWriter {
    /// Creates the file. `lsns`: what the run stands for, both included; `keys_hint`: how many
    /// keys are sought at most.
    pub fn create(
        storage: &dyn Storage,
        database: DatabaseId,
        uid: u64,
        structure: u32,
        cause: Cause,
        lsns: (Lsn, Lsn),
        keys_hint: u64,
    ) -> Result<Self> {
        assert!(lsns.0 <= lsns.1, "a run stands for LSNs in order");
        let output = Output {
            file: storage.open(&path(uid), Open::Create)?,
            buffer: AlignedBuffer::with_capacity(PIECE_BYTES),
            written: 0,
            structure,
            cause,
            seal: Seal::new(&database, structure, uid),
            root: Xxh3::new(),
        };
        let (first_lsn, last_lsn) = lsns;
        let info = RunInfo { uid, structure, bytes: 0, root: 0, first_lsn, last_lsn, entries: 0 };
        Ok(Self {
            output,
            database,
            info,
            filter: Filter::new(keys_hint),
            levels: Vec::new(),
            trees: Vec::new(),
            current: None,
            sought: true,
            entries_before: 0,
            first: Vec::new(),
            last: Vec::new(),
            last_lsn: 0,
            frame: Vec::new(),
            block_bytes: BLOCK_BYTES,
        })
    }

    /// Entries in file order. `sought`: the key goes into the filter, because the tree is looked
    /// up by exact key.
    pub fn push(
        &mut self,
        tree: u16,
        key: &[u8],
        lsn: Lsn,
        entry: Option<&Entry>,
        sought: bool,
    ) -> Result<()> {
        self.check(key, lsn, entry)?;
        let new_tree = self.current != Some(tree);
        if new_tree {
            self.finish_tree(Some(tree))?;
            self.first.extend_from_slice(key);
        } else if (key, self.last_lsn) <= (&self.last[..], lsn) {
            return Err(Error::corruption("entries were given to a run out of order"));
        }
        self.sought &= sought;
        if sought && (new_tree || key != self.last) {
            self.filter.insert(filter::hash(tree, key));
        }
        if self.levels[0].block.bytes() >= self.block_bytes {
            self.close_block(0)?;
        }
        if self.levels[0].block.is_empty() {
            self.separate(key, lsn, new_tree);
        }
        self.levels[0].block.push(key, lsn, entry);
        self.last.clear();
        self.last.extend_from_slice(key);
        self.last_lsn = lsn;
        self.info.entries += 1;
        Ok(())
    }

    fn check(&self, key: &[u8], lsn: Lsn, entry: Option<&Entry>) -> Result<()> {
        if !(self.info.first_lsn..=self.info.last_lsn).contains(&lsn) {
            return Err(Error::corruption(format!(
                "LSN {lsn} is outside the range {}..={} of its run",
                self.info.first_lsn, self.info.last_lsn
            )));
        }
        let inline = match entry.map(|entry| &entry.slot) {
            Some(Slot::Inline(bytes)) => bytes.len(),
            _ => 0,
        };
        let meta = entry.map_or(0, |entry| entry.meta.len());
        if key.len() > KEY_BYTES_MAX || meta + inline > ENTRY_BYTES_MAX {
            return Err(Error::limit(format!(
                "an entry with a key of {} B and {} B beside it; a run takes {KEY_BYTES_MAX} and \
                 {ENTRY_BYTES_MAX}",
                key.len(),
                meta + inline
            )));
        }
        Ok(())
    }

    /// The shortest key above everything before the block that begins now; versions of one key on
    /// both sides are told apart by LSN.
    fn separate(&mut self, key: &[u8], lsn: Lsn, new_tree: bool) {
        let shared = common(&self.last, key);
        let (length, lsn) = match (new_tree, self.last == key) {
            (true, _) => (0, self.info.last_lsn),
            (false, true) => (key.len(), lsn),
            (false, false) => (shared + 1, self.info.last_lsn),
        };
        let level = &mut self.levels[0];
        level.separator.clear();
        level.separator.extend_from_slice(&key[..length]);
        level.separator_lsn = lsn;
    }

    fn write_block(&mut self, number: usize) -> Result<BlockAt> {
        let content = self.levels[number].block.finish();
        self.frame.clear();
        frame::put(&mut self.frame, &content);
        self.output.put_sealed(&self.frame)
    }

    /// Writes the block of a level and enters it into the level above.
    fn close_block(&mut self, number: usize) -> Result<()> {
        let BlockAt { offset, bytes } = self.write_block(number)?;
        let key = std::mem::take(&mut self.levels[number].separator);
        let lsn = self.levels[number].separator_lsn;
        if number + 1 == self.levels.len() {
            self.levels.push(Level::default());
        }
        let above = &self.levels[number + 1].block;
        if above.bytes() >= self.block_bytes && above.entries() >= CHILDREN_MIN {
            self.close_block(number + 1)?;
        }
        let above = &mut self.levels[number + 1];
        if above.block.is_empty() {
            above.separator.clone_from(&key);
            above.separator_lsn = lsn;
        }
        let pointer = Pointer { segment: 0, offset, length: bytes, lsn };
        above.block.push(&key, lsn, Some(&Entry::with_slot(Slot::Stored(pointer))));
        Ok(())
    }

    /// Ends the tree being written and begins `next`.
    fn finish_tree(&mut self, next: Option<u16>) -> Result<()> {
        if let Some(number) = self.current {
            if next.is_some_and(|next| next < number) {
                return Err(Error::corruption("trees were given to a run out of order"));
            }
            let mut below = 0;
            while below + 1 < self.levels.len() {
                self.close_block(below)?;
                below += 1;
            }
            let root = self.write_block(below)?;
            self.trees.push(Tree {
                number,
                height: below as u8,
                sought: self.sought,
                root,
                entries: self.info.entries - self.entries_before,
                first: std::mem::take(&mut self.first).into(),
                last: std::mem::take(&mut self.last).into(),
            });
        }
        self.current = next;
        self.sought = true;
        self.entries_before = self.info.entries;
        self.levels.clear();
        self.levels.push(Level::default());
        Ok(())
    }

    pub fn bytes_written(&self) -> u64 {
        self.output.offset()
    }

    /// Writes what is left. The caller syncs the file, then its directory: of several runs one
    /// after the other, since the first sync commits names and sizes of all to a journal.
    pub fn finish(mut self) -> Result<(RunInfo, Arc<dyn File>)> {
        self.finish_tree(None)?;
        let filter = self.output.offset();
        let (filter_lines, filter_fold, lines) =
            std::mem::replace(&mut self.filter, Filter::new(0)).finish();
        let page_bytes = filter::PAGE_LINES as usize * filter::LINE_BYTES;
        for page in lines.chunks(page_bytes) {
            self.output.put_sealed(page)?;
        }
        let mut content = Vec::new();
        put_directory(&mut content, &self.trees);
        if content.len() > DIRECTORY_BYTES_MAX {
            return Err(Error::limit("the bounds of a run's trees are beyond 64 MiB"));
        }
        self.frame.clear();
        frame::put(&mut self.frame, &content);
        let directory = self.output.put_sealed(&self.frame)?;
        let pad = self.output.offset().next_multiple_of(SECTOR_BYTES as u64) - self.output.offset();
        self.output.put(&vec![0; pad as usize])?;
        self.info.bytes = self.output.offset() + FOOTER_BYTES as u64;
        self.info.root = self.output.root.digest();
        let footer = Footer {
            info: self.info.clone(),
            filter,
            filter_lines,
            filter_fold,
            directory: directory.offset,
            directory_bytes: directory.bytes,
        };
        self.output.put(&footer.encode(&self.database))?;
        self.output.flush()?;
        Ok((self.info, self.output.file))
    }
}
