//! An open run: checked against the checkpoint, asked for single keys.

use std::sync::{Arc, OnceLock};

use super::block::{Block, GROUP_ENTRIES, Group};
use super::cache::{BlockCache, Cached};
use super::descent::Descent;
use super::filter::{self, LINE_BYTES, PAGE_LINES};
use super::footer::{BlockAt, FOOTER_BYTES, Footer, RunInfo, Tree, read_directory};
use super::frame::{self, FRAME_BYTES, Seal};
use super::{BLOCK_BYTES_MAX, DIRECTORY_BYTES_MAX, DatabaseId, SUM_BYTES, damaged, path};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Lsn;
use crate::ordered::{Direction, Entry};
use crate::storage::{File, Open, Storage, read_exact_at};
use crate::sync::atomic::{AtomicBool, Ordering};

/// Whether blocks that were read are kept for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    Cache,
    Nothing,
}

pub struct Run {
    pub(super) footer: Footer,
    pub(super) trees: Vec<Tree>,
    /// Of each tree, once it was asked for.
    roots: Vec<OnceLock<Arc<Block>>>,
    pub(super) file: Arc<dyn File>,
    seal: Seal,
    pub(super) database: DatabaseId,
    cache: Arc<BlockCache>,
    pub(super) path: String,
    /// Somebody met bytes that do not hold.
    damage: AtomicBool,
}

impl Run {
    /// Checks length, footer and directory against what the checkpoint says; reads no data.
    pub fn open(
        storage: &dyn Storage,
        database: DatabaseId,
        info: &RunInfo,
        cache: Arc<BlockCache>,
    ) -> Result<Self> {
        let path = path(info.uid);
        let file = storage.open(&path, Open::Read).map_err(|error| match error.kind() {
            ErrorKind::NotFound => damaged(&path, "the file is missing"),
            _ => error,
        })?;
        let length = file.len()?;
        if length != info.bytes || length < FOOTER_BYTES as u64 {
            let what = format!("{length} bytes long, not {} as it was written", info.bytes);
            return Err(damaged(&path, what));
        }
        let mut footer = [0; FOOTER_BYTES];
        if !read_exact_at(&*file, &mut footer, length - FOOTER_BYTES as u64)? {
            return Err(damaged(&path, "shorter than it was when it was opened"));
        }
        let footer = Footer::decode(&footer, &database, info, &path)?;
        let seal = Seal::new(&database, info.structure, info.uid);
        let mut run = Self {
            footer,
            trees: Vec::new(),
            roots: Vec::new(),
            file,
            seal,
            database,
            cache,
            path,
            damage: AtomicBool::new(false),
        };
        run.trees = run.directory()?;
        run.roots = run.trees.iter().map(|_| OnceLock::new()).collect();
        Ok(run)
    }

    fn directory(&self) -> Result<Vec<Tree>> {
        let at = BlockAt { offset: self.footer.directory, bytes: self.footer.directory_bytes };
        let content = self.content(at, DIRECTORY_BYTES_MAX)?;
        let content = &content[..content.len() - super::column::PAD];
        let trees = read_directory(content)
            .map_err(|error| damaged(&self.path, format!("the directory: {error}")))?;
        let entries = trees.iter().map(|tree| tree.entries);
        let entries = entries.fold(0, |sum: u64, entries| sum.saturating_add(entries));
        if entries != self.footer.info.entries {
            return Err(self.damaged("the directory counts other entries than the footer"));
        }
        Ok(trees)
    }

    pub fn info(&self) -> &RunInfo {
        &self.footer.info
    }

    pub fn trees(&self) -> impl Iterator<Item = u16> {
        self.trees.iter().map(|tree| tree.number)
    }

    /// First and last key of a tree; `None`: the run has none of it.
    pub fn bounds(&self, tree: u16) -> Option<(&[u8], &[u8])> {
        self.tree(tree).map(|tree| (&tree.first[..], &tree.last[..]))
    }

    /// Bytes that the run keeps outside the cache.
    pub fn memory_bytes(&self) -> usize {
        let keys = |tree: &Tree| tree.first.len() + tree.last.len() + size_of::<Tree>();
        let roots = self.roots.iter().filter_map(OnceLock::get).map(|root| root.memory_bytes());
        self.trees.iter().map(keys).sum::<usize>() + roots.sum::<usize>()
    }

    pub(super) fn tree(&self, number: u16) -> Option<&Tree> {
        let found = self.trees.binary_search_by_key(&number, |tree| tree.number);
        found.ok().map(|index| &self.trees[index])
    }

    /// The newest version of a key at or below `lsn`; `None` inside is a tombstone.
    pub fn state(&self, tree: u16, key: &[u8], lsn: Lsn) -> Result<Option<(Lsn, Option<Entry>)>> {
        let Some(tree) = self.tree(tree) else { return Ok(None) };
        if key < &tree.first[..] || key > &tree.last[..] || !self.may_hold(tree, key)? {
            return Ok(None);
        }
        let mut descent = Descent::default();
        let mut group = Group::default();
        let found = descent.find(self, tree, (key, lsn), Fill::Cache, &mut group)?;
        let mut same = found.same;
        let mut level = descent.levels.last_mut().expect("a block of data");
        if found.at == level.block.entries() {
            // Older versions of the block's last key begin the next one.
            level.at -= 1;
            if !found.same_before || !descent.step(self, Direction::Forward, Fill::Cache)? {
                return Ok(None);
            }
            level = descent.levels.last_mut().expect("a block of data");
            level.block.read_group(0, &mut group).ok_or_else(|| self.bad_block())?;
            same = level.block.first_of(&group) == key;
        }
        if !same {
            return Ok(None);
        }
        let block = &level.block;
        if group.number != level.at / GROUP_ENTRIES {
            block
                .read_group(level.at / GROUP_ENTRIES, &mut group)
                .ok_or_else(|| self.bad_block())?;
        }
        let version = block.version(&group, level.at % GROUP_ENTRIES);
        version.map(Some).ok_or_else(|| self.bad_block())
    }

    /// Whether the filter lets a key pass.
    pub(super) fn may_hold(&self, tree: &Tree, key: &[u8]) -> Result<bool> {
        if !tree.sought || self.footer.filter_lines == 0 {
            return Ok(true);
        }
        let hash = filter::hash(tree.number, key);
        let line = filter::line_of(hash, self.footer.filter_lines) / self.footer.filter_fold;
        let page = self.page(line / PAGE_LINES)?;
        let at = (line % PAGE_LINES) as usize * LINE_BYTES;
        Ok(filter::may_hold(&page[at..at + LINE_BYTES], hash))
    }

    /// Where a page of the filter is.
    pub(super) fn page_at(&self, number: u64) -> BlockAt {
        let lines = (self.footer.lines() - number * PAGE_LINES).min(PAGE_LINES);
        let page_bytes = PAGE_LINES * LINE_BYTES as u64 + SUM_BYTES as u64;
        BlockAt {
            offset: self.footer.filter + number * page_bytes,
            bytes: lines as u32 * LINE_BYTES as u32 + SUM_BYTES as u32,
        }
    }

    fn page(&self, number: u64) -> Result<Arc<[u8]>> {
        let at = self.page_at(number);
        let place = (self.footer.info.uid, at.offset);
        if let Some(Cached::Page(page)) = self.cache.get(place) {
            return Ok(page);
        }
        let mut bytes = Vec::new();
        let (page, _) = self.sealed(at, &mut bytes)?;
        let page: Arc<[u8]> = page.into();
        self.cache.insert(place, Cached::Page(Arc::clone(&page)));
        Ok(page)
    }

    pub(super) fn root(&self, tree: &Tree) -> Result<Arc<Block>> {
        // The only block of a small tree is data like any other.
        if tree.height == 0 {
            return self.block(tree.root, Fill::Cache);
        }
        let index = self.trees.partition_point(|other| other.number < tree.number);
        if let Some(root) = self.roots[index].get() {
            return Ok(Arc::clone(root));
        }
        let root = self.block(tree.root, Fill::Nothing)?;
        Ok(Arc::clone(self.roots[index].get_or_init(|| root)))
    }

    pub(super) fn block(&self, at: BlockAt, fill: Fill) -> Result<Arc<Block>> {
        let place = (self.footer.info.uid, at.offset);
        if let Some(Cached::Block(block)) = self.cache.get(place) {
            return Ok(block);
        }
        let content = self.content(at, BLOCK_BYTES_MAX)?;
        let block = Arc::new(Block::new(content).ok_or_else(|| self.bad_block())?);
        if fill == Fill::Cache {
            self.cache.insert(place, Cached::Block(Arc::clone(&block)));
        }
        Ok(block)
    }

    /// The block that an entry of an index block points to; `group` is one of that block's, or
    /// becomes so.
    pub(super) fn child(&self, block: &Block, at: usize, group: &mut Group) -> Result<BlockAt> {
        if group.entries == 0 || group.number != at / GROUP_ENTRIES {
            let read = block.read_group(at / GROUP_ENTRIES, group);
            read.ok_or_else(|| self.bad_block())?;
        }
        let pointer = block.pointer(group, at % GROUP_ENTRIES);
        let pointer = pointer.ok_or_else(|| self.bad_block())?;
        Ok(BlockAt { offset: pointer.offset, bytes: pointer.length })
    }

    fn content(&self, at: BlockAt, at_most: usize) -> Result<Box<[u8]>> {
        if at.bytes as usize > at_most + FRAME_BYTES {
            return Err(self.damaged(format!("a block of {} bytes", at.bytes)));
        }
        let mut bytes = Vec::new();
        let (frame, _) = self.sealed(at, &mut bytes)?;
        frame::content(frame, at_most).ok_or_else(|| self.bad_block())
    }

    /// Reads bytes with a checksum, which holds and is returned beside them.
    pub(super) fn sealed<'b>(
        &self,
        at: BlockAt,
        bytes: &'b mut Vec<u8>,
    ) -> Result<(&'b [u8], u64)> {
        let end = at.offset.checked_add(u64::from(at.bytes));
        if end.is_none_or(|end| end > self.footer.offset()) {
            return Err(
                self.damaged(format!("a block that begins at byte {} is cut off", at.offset))
            );
        }
        bytes.resize(at.bytes as usize, 0);
        if !read_exact_at(&*self.file, bytes, at.offset)? {
            return Err(self.damaged("shorter than it was when it was opened"));
        }
        self.seal.check(bytes, at.offset).ok_or_else(|| {
            self.damaged(format!("the checksum of the block at byte {} does not hold", at.offset))
        })
    }

    /// Whether somebody met bytes that do not hold: the structure is to be made again.
    pub fn is_damaged(&self) -> bool {
        self.damage.load(Ordering::Relaxed)
    }

    pub(super) fn damaged(&self, what: impl std::fmt::Display) -> Error {
        self.damage.store(true, Ordering::Relaxed);
        damaged(&self.path, what)
    }

    pub(super) fn bad_block(&self) -> Error {
        self.damaged("a block whose checksum holds is not as blocks are written")
    }
}
