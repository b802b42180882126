//! What is said of a run as a whole: in the checkpoint, in its footer, in its directory of trees.
//!
//! docs/format.md, "Run", is the authority. Footers and directories are decoded only after their
//! checksum holds; places are checked against the file all the same.

use super::frame::Seal;
use super::{DatabaseId, HEIGHT_MAX, KEY_BYTES_MAX, SUM_BYTES, damaged, filter};
use crate::codec::{Decoder, put_bytes, put_u64, put_varint};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Lsn;
use crate::storage::SECTOR_BYTES;

const MAGIC: &[u8; 8] = b"WAFERRUN";
const VERSION: u16 = 1;
pub const FOOTER_BYTES: usize = SECTOR_BYTES;
const FIELDS_BYTES: usize = 120;

/// What a checkpoint says of a live run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInfo {
    pub uid: u64,
    pub structure: u32,
    /// Length of the file.
    pub bytes: u64,
    /// Hash of all block checksums.
    pub root: u64,
    /// The LSNs the run stands for, both included.
    pub first_lsn: Lsn,
    pub last_lsn: Lsn,
    pub entries: u64,
}

impl RunInfo {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.uid);
        put_varint(out, u64::from(self.structure));
        put_varint(out, self.bytes);
        put_u64(out, self.root);
        put_varint(out, self.first_lsn);
        put_varint(out, self.last_lsn);
        put_varint(out, self.entries);
    }

    pub fn decode(decoder: &mut Decoder) -> Result<Self> {
        let info = Self {
            uid: decoder.varint()?,
            structure: decoder.count(u32::MAX as usize)? as u32,
            bytes: decoder.varint()?,
            root: decoder.u64()?,
            first_lsn: decoder.varint()?,
            last_lsn: decoder.varint()?,
            entries: decoder.varint()?,
        };
        let whole = info.bytes >= FOOTER_BYTES as u64
            && info.bytes.is_multiple_of(SECTOR_BYTES as u64)
            && info.bytes <= i64::MAX as u64;
        if !whole || info.first_lsn > info.last_lsn {
            return Err(Error::corruption(format!("no run is like {info:?}")));
        }
        Ok(info)
    }
}

/// The last sector of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    pub info: RunInfo,
    pub filter: u64,
    pub filter_lines: u64,
    pub filter_fold: u64,
    pub directory: u64,
    pub directory_bytes: u32,
}

impl Footer {
    pub fn offset(&self) -> u64 {
        self.info.bytes - FOOTER_BYTES as u64
    }

    /// Lines of the filter in the file.
    pub fn lines(&self) -> u64 {
        self.filter_lines.div_ceil(self.filter_fold)
    }

    pub fn encode(&self, database: &DatabaseId) -> [u8; FOOTER_BYTES] {
        let info = &self.info;
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(FOOTER_BYTES as u16).to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(database);
        let words = [info.uid, info.first_lsn, info.last_lsn, info.entries, info.root, info.bytes];
        words.into_iter().for_each(|word| put_u64(&mut out, word));
        let places = [self.filter, self.filter_lines, self.filter_fold, self.directory];
        places.into_iter().for_each(|word| put_u64(&mut out, word));
        out.extend_from_slice(&self.directory_bytes.to_le_bytes());
        out.extend_from_slice(&info.structure.to_le_bytes());
        debug_assert_eq!(out.len(), FIELDS_BYTES);
        let mut footer = [0; FOOTER_BYTES];
        footer[..FIELDS_BYTES].copy_from_slice(&out);
        let (content, sum) = footer.split_at_mut(FOOTER_BYTES - SUM_BYTES);
        let seal = Seal::new(database, info.structure, info.uid);
        sum.copy_from_slice(&seal.sum(content, self.offset()).to_le_bytes());
        footer
    }

    /// The footer of the run that `info` tells of.
    pub fn decode(
        bytes: &[u8; FOOTER_BYTES],
        database: &DatabaseId,
        info: &RunInfo,
        path: &str,
    ) -> Result<Self> {
        let seal = Seal::new(database, info.structure, info.uid);
        let offset = info.bytes - FOOTER_BYTES as u64;
        let Some((content, _)) = seal.check(bytes, offset) else {
            return Err(damaged(path, "the checksum of the footer does not hold"));
        };
        let mut decoder = Decoder::new(content);
        let magic = decoder.take(8)? == MAGIC;
        let version = decoder.u32()? as u16;
        let features = decoder.u32()?;
        if magic && (version > VERSION || features != 0) {
            return Err(Error::new(
                ErrorKind::Format,
                format!(
                    "{path} is of format {version} (features {features:#x}); this build reads \
                     format {VERSION}: open it with a newer waferdb"
                ),
            ));
        }
        let same_database = decoder.take(16)? == database;
        let mut word = || decoder.u64();
        let (uid, first_lsn, last_lsn) = (word()?, word()?, word()?);
        let (entries, root, bytes) = (word()?, word()?, word()?);
        let (filter, filter_lines, filter_fold, directory) = (word()?, word()?, word()?, word()?);
        let directory_bytes = decoder.u32()?;
        let structure = decoder.u32()?;
        let own = RunInfo { uid, structure, bytes, root, first_lsn, last_lsn, entries };
        let footer =
            Self { info: own, filter, filter_lines, filter_fold, directory, directory_bytes };
        let reserved = content[FIELDS_BYTES..].iter().all(|byte| *byte == 0);
        if !(magic && version == VERSION && same_database && reserved) {
            return Err(damaged(path, "the footer contradicts itself"));
        }
        if footer.info != *info {
            return Err(damaged(path, "another run than the checkpoint names"));
        }
        // Only now is its length that of a file, which the places in it are measured against.
        if !footer.fits() {
            return Err(damaged(path, "the footer contradicts itself"));
        }
        Ok(footer)
    }

    /// The filter, then the directory, then the rest of a sector, then the footer.
    fn fits(&self) -> bool {
        let sized = (1..=filter::LINES_MAX).contains(&self.filter_fold)
            && self.filter_lines <= filter::LINES_MAX
            && self.filter <= self.info.bytes;
        if !sized {
            return false;
        }
        let pages = self.lines().div_ceil(filter::PAGE_LINES);
        let filter_bytes = self.lines() * filter::LINE_BYTES as u64 + pages * SUM_BYTES as u64;
        let end = self.directory.checked_add(u64::from(self.directory_bytes));
        self.directory == self.filter + filter_bytes
            && end.is_some_and(|end| {
                end.checked_next_multiple_of(SECTOR_BYTES as u64) == Some(self.offset())
            })
    }
}

/// A block, by its place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockAt {
    pub offset: u64,
    /// With form and checksum.
    pub bytes: u32,
}

/// One tree of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    pub number: u16,
    /// Levels of index above the data; 0: the root is the only data block.
    pub height: u8,
    /// Every key is in the filter.
    pub sought: bool,
    pub root: BlockAt,
    pub entries: u64,
    pub first: Box<[u8]>,
    pub last: Box<[u8]>,
}

const SOUGHT: u8 = 0x80;

pub fn put_directory(out: &mut Vec<u8>, trees: &[Tree]) {
    put_varint(out, trees.len() as u64);
    for tree in trees {
        put_varint(out, u64::from(tree.number));
        out.push(tree.height | if tree.sought { SOUGHT } else { 0 });
        put_varint(out, tree.root.offset);
        put_varint(out, u64::from(tree.root.bytes));
        put_varint(out, tree.entries);
        put_bytes(out, &tree.first);
        put_bytes(out, &tree.last);
    }
}

pub fn read_directory(content: &[u8]) -> Result<Vec<Tree>> {
    let mut decoder = Decoder::new(content);
    let count = decoder.count(usize::from(u16::MAX) + 1)?;
    let mut trees: Vec<Tree> = Vec::new();
    for _ in 0..count {
        let number = decoder.count(usize::from(u16::MAX))? as u16;
        let flags = decoder.u8()?;
        let root =
            BlockAt { offset: decoder.varint()?, bytes: decoder.count(u32::MAX as usize)? as u32 };
        let entries = decoder.varint()?;
        let (first, last) = (decoder.bytes()?.into(), decoder.bytes()?.into());
        let (height, sought) = (flags & !SOUGHT, flags & SOUGHT != 0);
        let tree = Tree { number, height, sought, root, entries, first, last };
        let sound = height <= HEIGHT_MAX
            && tree.first <= tree.last
            && tree.last.len().max(tree.first.len()) <= KEY_BYTES_MAX
            && entries > 0
            && trees.last().is_none_or(|before| before.number < number);
        if !sound {
            return Err(Error::corruption(format!("no tree is like number {number}")));
        }
        trees.push(tree);
    }
    if !decoder.is_empty() {
        return Err(Error::corruption("bytes behind the directory"));
    }
    Ok(trees)
}
