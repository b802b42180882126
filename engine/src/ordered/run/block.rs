//! The content of a block: entries in groups, searched in place.
//!
//! docs/format.md, "Run", is the authority. A block of the index is a block like any other, whose
//! entries point to blocks of the same file. Invariants:
//! 1. Nothing read from the bytes is used before it is checked: bad bytes are `None`.
//! 2. Entries stand in the order (key ascending, LSN descending), and each key shares with the one
//!    before it as many bytes as it can; `find` relies on both, `verify` checks them.
//! 3. Every group but the last holds `GROUP_ENTRIES`.

use std::cmp::Ordering;
use std::ops::Range;

use super::column::{Column, PAD, read_varint};
use super::{BLOCK_BYTES_MAX, KEY_BYTES_MAX};
use crate::log::{Lsn, Pointer};
use crate::ordered::{Entry, Slot};

/// Entries that a search may have to walk; their first key is whole.
pub const GROUP_ENTRIES: usize = 16;

/// What of an entry is a number, in the order of the columns.
pub const LSN: usize = 0;
pub const SHARED: usize = 1;
pub const KEY: usize = 2;
pub const FORM: usize = 3;
pub const SEGMENT: usize = 4;
pub const OFFSET: usize = 5;
pub const LENGTH: usize = 6;
pub const BEHIND: usize = 7;
pub const META: usize = 8;
pub const INLINE: usize = 9;
pub const COLUMNS: usize = 10;

/// What the FORM column says of an entry.
pub const STORED: u64 = 0;
pub const MARK: u64 = 1;
pub const INLINED: u64 = 2;
pub const TOMBSTONE: u64 = 3;

/// Number of entries and where the column of group offsets starts, each a u32.
pub const TAIL_BYTES: usize = 8;

pub struct Block {
    /// The content and `PAD` zeros.
    bytes: Box<[u8]>,
    entries: usize,
    offsets: Column,
    /// Groups lie before this.
    groups_end: usize,
}

/// One group, its columns found.
#[derive(Default)]
pub struct Group {
    pub number: usize,
    pub entries: usize,
    first: Range<usize>,
    columns: [Column; COLUMNS],
    /// Rests of keys, then metas, then inline bytes.
    bytes_at: usize,
}

/// Where the first entry at or behind (key, LSN) is.
pub struct Found {
    pub at: usize,
    /// It has the key that was sought.
    pub same: bool,
    /// And the LSN.
    pub exact: bool,
    /// The entry before it has the key.
    pub same_before: bool,
}

/// How many bytes two keys begin with alike.
pub fn common(a: &[u8], b: &[u8]) -> usize {
    const STRIDE: usize = 8;
    let (wide_a, wide_b) = (a.chunks_exact(STRIDE), b.chunks_exact(STRIDE));
    let wide = wide_a.zip(wide_b).take_while(|(a, b)| a == b).count() * STRIDE;
    wide + a[wide..].iter().zip(&b[wide..]).take_while(|(a, b)| a == b).count()
}

impl Block {
    /// `bytes`: the content and `PAD` zeros.
    pub fn new(bytes: Box<[u8]>) -> Option<Self> {
        let tail = bytes.len().checked_sub(PAD + TAIL_BYTES)?;
        let u32_at = |at: usize| {
            u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
        };
        let (entries, groups_end) = (u32_at(tail), u32_at(tail + 4));
        // An entry of no bytes and no bits would make any count possible.
        if entries == 0 || entries > BLOCK_BYTES_MAX || groups_end > tail {
            return None;
        }
        let mut at = groups_end;
        let offsets = Column::parse(&bytes, &mut at, entries.div_ceil(GROUP_ENTRIES))?;
        (at == tail).then_some(Self { bytes, entries, offsets, groups_end })
    }

    pub fn entries(&self) -> usize {
        self.entries
    }

    pub fn groups(&self) -> usize {
        self.entries.div_ceil(GROUP_ENTRIES)
    }

    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
    }

    /// Its first key, and where its columns start.
    #[inline(always)]
    fn first_key(&self, group: usize) -> Option<Range<usize>> {
        let mut at = usize::try_from(self.offsets.get(&self.bytes, group)).ok()?;
        if at >= self.groups_end {
            return None;
        }
        let length = read_varint(&self.bytes, &mut at)? as usize;
        let end = at.checked_add(length)?;
        (length <= KEY_BYTES_MAX && end <= self.groups_end).then_some(at..end)
    }

    /// Finds the columns of a group, anew in `group`.
    #[inline]
    pub fn read_group(&self, number: usize, group: &mut Group) -> Option<()> {
        group.number = number;
        group.first = self.first_key(number)?;
        group.entries = (self.entries - number * GROUP_ENTRIES).min(GROUP_ENTRIES);
        let mut at = group.first.end;
        let present = u16::from_le_bytes(self.bytes.get(at..at + 2)?.try_into().ok()?);
        at += 2;
        for (index, column) in group.columns.iter_mut().enumerate() {
            *column = match present & (1 << index) {
                0 => Column::default(),
                _ => Column::parse(&self.bytes, &mut at, group.entries)?,
            };
        }
        group.bytes_at = at;
        (present >> COLUMNS == 0 && at <= self.groups_end).then_some(())
    }

    pub fn group(&self, number: usize) -> Option<Group> {
        let mut group = Group::default();
        self.read_group(number, &mut group)?;
        Some(group)
    }

    #[inline]
    pub fn number(&self, group: &Group, column: usize, index: usize) -> u64 {
        group.columns[column].get(&self.bytes, index)
    }

    /// A number that counts bytes of this block.
    #[inline(always)]
    fn count(&self, group: &Group, column: usize, index: usize) -> Option<usize> {
        let count = self.number(group, column, index);
        (count <= BLOCK_BYTES_MAX as u64).then_some(count as usize)
    }

    /// How many bytes of entry `index` (not the first) are those of the key before it, and the
    /// length of the rest.
    #[inline(always)]
    fn key_parts(&self, group: &Group, index: usize) -> Option<(usize, usize)> {
        let shared = self.count(group, SHARED, index)?;
        let length = self.count(group, KEY, index)?;
        (length <= KEY_BYTES_MAX).then_some((shared, length.checked_sub(shared)?))
    }

    pub fn first_of(&self, group: &Group) -> &[u8] {
        &self.bytes[group.first.clone()]
    }

    /// The first entry that stands at or behind (key, lsn). `group` becomes the one that was
    /// walked: the entry is in it, or the next one's first.
    pub fn find(&self, key: &[u8], lsn: Lsn, group: &mut Group) -> Option<Found> {
        let (mut low, mut high) = (0, self.groups());
        // Groups below `low` begin before what is sought, those from `high` on do not.
        while low < high {
            let middle = low.midpoint(high);
            let before = match self.bytes[self.first_key(middle)?].cmp(key) {
                Ordering::Less => true,
                Ordering::Greater => false,
                Ordering::Equal => {
                    self.read_group(middle, group)?;
                    self.number(group, LSN, 0) > lsn
                }
            };
            (low, high) = if before { (middle + 1, high) } else { (low, middle) };
        }
        self.read_group(low.saturating_sub(1), group)?;
        let mut same_before = false;
        if low > 0 {
            let found = self.walk(group, key, lsn)?;
            if found.at < low * GROUP_ENTRIES && found.at < self.entries {
                return Some(found);
            }
            same_before = found.same_before;
        }
        let at = (low * GROUP_ENTRIES).min(self.entries);
        let same = low < self.groups() && self.bytes[self.first_key(low)?] == *key;
        let exact = same && self.number(&self.group(low)?, LSN, 0) == lsn;
        Some(Found { at, same, exact, same_before })
    }

    /// Walks a group whose first entry stands before what is sought, to its end at most.
    #[inline]
    fn walk(&self, group: &Group, key: &[u8], lsn: Lsn) -> Option<Found> {
        let first = self.first_of(group);
        let mut matched = common(first, key);
        let mut same_before = matched == key.len() && first.len() == key.len();
        let start = group.number * GROUP_ENTRIES;
        let found = |index, same, exact, same_before| {
            Some(Found { at: start + index, same, exact, same_before })
        };
        let mut rest_at = group.bytes_at;
        for index in 1..group.entries {
            let (shared, rest) = self.key_parts(group, index)?;
            if shared < matched {
                return found(index, false, false, same_before);
            }
            if shared == matched {
                let rest = self.bytes.get(rest_at..rest_at + rest)?;
                let wanted = &key[matched..];
                let more = common(rest, wanted);
                matched += more;
                match (rest.get(more), wanted.get(more)) {
                    (Some(_), None) => return found(index, false, false, same_before),
                    (Some(own), Some(wanted)) if own > wanted => {
                        return found(index, false, false, same_before);
                    }
                    (None, None) => {
                        let own = self.number(group, LSN, index);
                        if own <= lsn {
                            return found(index, true, own == lsn, same_before);
                        }
                        same_before = true;
                    }
                    _ => same_before = false,
                }
            }
            rest_at += rest;
        }
        found(group.entries, false, false, same_before)
    }

    /// The LSN and the bytes of entry `index` of a group; `None` inside is a tombstone.
    pub fn version(&self, group: &Group, index: usize) -> Option<(Lsn, Option<Entry>)> {
        let lsn = self.number(group, LSN, index);
        let form = self.number(group, FORM, index);
        if form == TOMBSTONE {
            return Some((lsn, None));
        }
        let meta = self.bytes_of(group, META, index)?;
        let slot = match form {
            STORED => Slot::Stored(self.pointer(group, index)?),
            MARK => Slot::None,
            INLINED => Slot::Inline(self.bytes_of(group, INLINE, index)?.into()),
            _ => return None,
        };
        Some((lsn, Some(Entry { meta: meta.into(), slot })))
    }

    #[inline]
    pub fn pointer(&self, group: &Group, index: usize) -> Option<Pointer> {
        let lsn = self.number(group, LSN, index);
        Some(Pointer {
            segment: self.number(group, SEGMENT, index),
            offset: self.number(group, OFFSET, index),
            length: u32::try_from(self.number(group, LENGTH, index)).ok()?,
            lsn: lsn.wrapping_sub(self.number(group, BEHIND, index)),
        })
    }

    /// Whether `version` reads every entry of a group.
    pub fn check(&self, group: &Group) -> bool {
        let form = |index| self.number(group, FORM, index);
        let sound = |index| match form(index) {
            STORED => self.pointer(group, index).is_some(),
            form => form <= TOMBSTONE,
        };
        let rests = (1..group.entries)
            .try_fold(0, |sum, index| Some(sum + self.key_parts(group, index)?.1));
        let bytes = || Some(rests? + self.sum(group, META)? + self.sum(group, INLINE)?);
        (0..group.entries).all(sound)
            && bytes().is_some_and(|bytes| group.bytes_at + bytes <= self.groups_end)
    }

    fn sum(&self, group: &Group, column: usize) -> Option<usize> {
        (0..group.entries).try_fold(0, |sum, index| Some(sum + self.count(group, column, index)?))
    }

    fn bytes_of(&self, group: &Group, column: usize, index: usize) -> Option<&[u8]> {
        let length = self.count(group, column, index)?;
        if length == 0 {
            return Some(&[]);
        }
        let mut at = group.bytes_at;
        for index in 1..group.entries {
            at += self.key_parts(group, index)?.1;
        }
        if column == INLINE {
            at += self.sum(group, META)?;
        }
        for index in 0..index {
            at += self.count(group, column, index)?;
        }
        (at + length <= self.groups_end).then(|| &self.bytes[at..at + length])
    }
}

/// A group read as a whole, for walking: every key complete.
#[derive(Default)]
pub struct Keys {
    bytes: Vec<u8>,
    ends: [usize; GROUP_ENTRIES],
}

impl Keys {
    pub fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[index]]
    }

    /// Reads the keys of a group; refuses keys out of order.
    pub fn read(&mut self, block: &Block, group: &Group) -> Option<()> {
        self.bytes.clear();
        self.bytes.extend_from_slice(block.first_of(group));
        self.ends[0] = self.bytes.len();
        let (mut start, mut rest_at) = (0, group.bytes_at);
        for index in 1..group.entries {
            let (shared, rest) = block.key_parts(group, index)?;
            let end = self.bytes.len();
            let rest_bytes = block.bytes.get(rest_at..rest_at + rest)?;
            let rises = match (self.bytes[start..end].get(shared), rest_bytes.first()) {
                (Some(own), Some(next)) => next > own,
                (None, Some(_)) => start + shared == end,
                (Some(_), None) => false,
                (None, None) => {
                    let lsn = |index| block.number(group, LSN, index);
                    start + shared == end && lsn(index) < lsn(index - 1)
                }
            };
            if !rises {
                return None;
            }
            self.bytes.extend_from_within(start..start + shared);
            self.bytes.extend_from_slice(rest_bytes);
            (start, rest_at) = (end, rest_at + rest);
            self.ends[index] = self.bytes.len();
        }
        (rest_at <= block.groups_end).then_some(())
    }
}
