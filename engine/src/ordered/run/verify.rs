//! Reads a run as a whole and believes nothing of it.
//!
//! 1. Blocks, filter pages, directory, padding and footer fill the file without gap or overlap,
//!    each with its checksum, and all checksums together are the root that the checkpoint names.
//! 2. Entries stand in order across all blocks, within the LSNs and bounds that are stated, as
//!    many as are stated; each separator of the index lies between its neighbours.
//! 3. The filter lets every key pass that is sought.
//!
//! Memory: 24 bytes for each block of the file, and a block for each level.

use xxhash_rust::xxh3::Xxh3;

use super::BLOCK_BYTES_MAX;
use super::block::{Block, GROUP_ENTRIES, Keys, LSN};
use super::filter::PAGE_LINES;
use super::footer::{BlockAt, FOOTER_BYTES, Footer, Tree};
use super::frame;
use super::reader::Run;
use crate::error::Result;
use crate::log::Lsn;
use crate::storage::read_exact_at;

impl Run {
    /// Every checksum, the order of every key, counts, and the root.
    pub fn verify(&self) -> Result<()> {
        let mut walk = Walk { run: self, sums: Vec::new(), bytes: 0, tree: None };
        for tree in &self.trees {
            walk.tree(tree)?;
        }
        let mut sums = walk.sums;
        let mut buffer = Vec::new();
        for page in 0..self.footer.lines().div_ceil(PAGE_LINES) {
            let at = self.page_at(page);
            sums.push((at, self.sealed(at, &mut buffer)?.1));
        }
        let directory =
            BlockAt { offset: self.footer.directory, bytes: self.footer.directory_bytes };
        sums.push((directory, self.sealed(directory, &mut buffer)?.1));
        sums.sort_unstable_by_key(|(at, _)| at.offset);
        let mut root = Xxh3::new();
        let mut end = 0;
        for (at, sum) in sums {
            if at.offset != end {
                return Err(self.damaged(format!("byte {end} belongs to no block, or to two")));
            }
            end += u64::from(at.bytes);
            root.update(&sum.to_le_bytes());
        }
        if root.digest() != self.info().root {
            return Err(self.damaged("the blocks are not those that the checkpoint names"));
        }
        self.verify_end(end)
    }

    /// The padding and the footer.
    fn verify_end(&self, end: u64) -> Result<()> {
        let mut bytes = vec![0; (self.info().bytes - end) as usize];
        if !read_exact_at(&*self.file, &mut bytes, end)? {
            return Err(self.damaged("shorter than it was when it was opened"));
        }
        let split = bytes.split_last_chunk::<FOOTER_BYTES>();
        let (padding, footer) = split.ok_or_else(|| self.damaged("no footer"))?;
        let same = self.footer == Footer::decode(footer, &self.database, self.info(), &self.path)?;
        match same && padding.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(self.damaged("the end of the file changed")),
        }
    }
}

struct Walk<'a> {
    run: &'a Run,
    sums: Vec<(BlockAt, u64)>,
    bytes: u64,
    tree: Option<Progress>,
}

/// What was seen of a tree so far.
struct Progress {
    key: Vec<u8>,
    lsn: Lsn,
    entries: u64,
}

impl Walk<'_> {
    fn tree(&mut self, tree: &Tree) -> Result<()> {
        self.tree = None;
        self.block(tree, tree.root, tree.height, (&[], Lsn::MAX))?;
        match &self.tree {
            Some(seen) if seen.entries == tree.entries && *seen.key == *tree.last => Ok(()),
            _ => Err(self.run.damaged(format!("tree {} ends elsewhere", tree.number))),
        }
    }

    /// A block of `height` levels, whose entries stand at or behind `from`.
    fn block(&mut self, tree: &Tree, at: BlockAt, height: u8, from: (&[u8], Lsn)) -> Result<()> {
        let run = self.run;
        self.bytes += u64::from(at.bytes);
        if self.bytes > run.footer.filter {
            return Err(run.damaged("more blocks than the file holds"));
        }
        if at.bytes as usize > BLOCK_BYTES_MAX + frame::FRAME_BYTES {
            return Err(run.bad_block());
        }
        let mut buffer = Vec::new();
        let (bytes, sum) = run.sealed(at, &mut buffer)?;
        self.sums.push((at, sum));
        let content = frame::content(bytes, BLOCK_BYTES_MAX);
        let block = content.and_then(Block::new).ok_or_else(|| run.bad_block())?;
        let mut keys = Keys::default();
        for number in 0..block.groups() {
            let group = block.group(number).filter(|group| block.check(group));
            let mut group = group.ok_or_else(|| run.bad_block())?;
            keys.read(&block, &group).ok_or_else(|| run.bad_block())?;
            for index in 0..group.entries {
                let (key, lsn) = (keys.get(index), block.number(&group, LSN, index));
                if before((key, lsn), from) {
                    return Err(run.damaged("an entry stands before its place in the index"));
                }
                if height == 0 {
                    self.entry(tree, key, lsn)?;
                    continue;
                }
                // Above it everything so far, or nothing yet.
                let seen = self.tree.as_ref().map(|seen| (&seen.key[..], seen.lsn));
                if seen.is_some_and(|seen| !before(seen, (key, lsn))) {
                    return Err(run.damaged("the index divides at the wrong place"));
                }
                let child = run.child(&block, number * GROUP_ENTRIES + index, &mut group)?;
                self.block(tree, child, height - 1, (key, lsn))?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, tree: &Tree, key: &[u8], lsn: Lsn) -> Result<()> {
        let run = self.run;
        let info = run.info();
        let is_new = self.tree.as_ref().is_none_or(|seen| seen.key != key);
        let in_order = match &self.tree {
            None => *key == *tree.first,
            Some(seen) => before((&seen.key, seen.lsn), (key, lsn)),
        };
        if !in_order || !(info.first_lsn..=info.last_lsn).contains(&lsn) {
            return Err(run.damaged(format!("an entry of LSN {lsn} is out of order or range")));
        }
        if is_new && !run.may_hold(tree, key)? {
            return Err(run.damaged("the filter denies a key that is there"));
        }
        let seen = self.tree.get_or_insert_with(|| Progress { key: Vec::new(), lsn, entries: 0 });
        seen.key.clear();
        seen.key.extend_from_slice(key);
        seen.lsn = lsn;
        seen.entries += 1;
        Ok(())
    }
}

/// Whether one (key, LSN) stands before another in the file.
fn before(one: (&[u8], Lsn), other: (&[u8], Lsn)) -> bool {
    (one.0, other.1) < (other.0, one.1)
}
