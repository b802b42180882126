//! Puts the content of one block together (docs/format.md, "Run").
//!
//! Memory: the content so far, one group, and the last key.

use super::block::{
    BEHIND, COLUMNS, FORM, GROUP_ENTRIES, INLINE, INLINED, KEY, LENGTH, LSN, MARK, META, OFFSET,
    SEGMENT, SHARED, STORED, TOMBSTONE, common,
};
use super::column;
use crate::codec::put_bytes;
use crate::log::{Lsn, Pointer};
use crate::ordered::{Entry, Slot};

#[derive(Default)]
pub struct Builder {
    content: Vec<u8>,
    offsets: Vec<u64>,
    entries: usize,
    group: Group,
    last_key: Vec<u8>,
}

#[derive(Default)]
struct Group {
    entries: usize,
    columns: [[u64; GROUP_ENTRIES]; COLUMNS],
    first: Vec<u8>,
    rests: Vec<u8>,
    metas: Vec<u8>,
    inlines: Vec<u8>,
}

impl Group {
    fn bytes(&self) -> usize {
        self.first.len() + self.rests.len() + self.metas.len() + self.inlines.len()
    }

    /// Numbers that an entry does not have repeat those before it: they cost least so.
    fn put(&mut self, lsn: Lsn, entry: Option<&Entry>) {
        let at = self.entries;
        let before = at.saturating_sub(1);
        let mut set = |column: usize, value| self.columns[column][at] = value;
        set(LSN, lsn);
        set(META, 0);
        set(INLINE, 0);
        let form = match entry.map(|entry| &entry.slot) {
            None => TOMBSTONE,
            Some(Slot::None) => MARK,
            Some(Slot::Inline(bytes)) => {
                set(INLINE, bytes.len() as u64);
                self.inlines.extend_from_slice(bytes);
                INLINED
            }
            Some(Slot::Stored(pointer)) => {
                let Pointer { segment, offset, length, lsn: written } = *pointer;
                set(SEGMENT, segment);
                set(OFFSET, offset);
                set(LENGTH, u64::from(length));
                set(BEHIND, lsn.wrapping_sub(written));
                STORED
            }
            Some(Slot::Pending(_)) => unreachable!("what is written was committed"),
        };
        self.columns[FORM][at] = form;
        if form != STORED {
            for column in [SEGMENT, OFFSET, LENGTH, BEHIND] {
                self.columns[column][at] = if at == 0 { 0 } else { self.columns[column][before] };
            }
        }
        if let Some(entry) = entry {
            self.columns[META][at] = entry.meta.len() as u64;
            self.metas.extend_from_slice(&entry.meta);
        }
        self.entries += 1;
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        // The first key is written whole: its numbers are free to be those that cost least.
        for column in [SHARED, KEY] {
            self.columns[column][0] = if self.entries > 1 { self.columns[column][1] } else { 0 };
        }
        put_bytes(out, &self.first);
        let values = |column: usize| &self.columns[column][..self.entries];
        let present = |column: &usize| values(*column).iter().any(|value| *value != 0);
        let mask = (0..COLUMNS).filter(present).fold(0u16, |mask, column| mask | 1 << column);
        out.extend_from_slice(&mask.to_le_bytes());
        for column in (0..COLUMNS).filter(present) {
            match column {
                LSN | SEGMENT | OFFSET | LENGTH | BEHIND => column::put(out, values(column)),
                // A search walks over these.
                _ => column::put_plain(out, values(column)),
            }
        }
        out.extend_from_slice(&self.rests);
        out.extend_from_slice(&self.metas);
        out.extend_from_slice(&self.inlines);
        for bytes in [&mut self.first, &mut self.rests, &mut self.metas, &mut self.inlines] {
            bytes.clear();
        }
        self.entries = 0;
    }
}

impl Builder {
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Bytes of the content so far, the last group at its length before packing.
    pub fn bytes(&self) -> usize {
        self.content.len() + self.group.bytes()
    }

    pub fn push(&mut self, key: &[u8], lsn: Lsn, entry: Option<&Entry>) {
        if self.group.entries == GROUP_ENTRIES {
            self.close_group();
        }
        let at = self.group.entries;
        if at == 0 {
            self.offsets.push(self.content.len() as u64);
            self.group.first.extend_from_slice(key);
        } else {
            let shared = common(&self.last_key, key);
            self.group.columns[SHARED][at] = shared as u64;
            self.group.columns[KEY][at] = key.len() as u64;
            self.group.rests.extend_from_slice(&key[shared..]);
        }
        self.group.put(lsn, entry);
        self.entries += 1;
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
    }

    fn close_group(&mut self) {
        self.group.finish(&mut self.content);
    }

    /// The content of a block of everything pushed; the next one starts empty.
    pub fn finish(&mut self) -> Vec<u8> {
        self.close_group();
        let groups_end = self.content.len() as u32;
        column::put_plain(&mut self.content, &self.offsets);
        self.content.extend_from_slice(&(self.entries as u32).to_le_bytes());
        self.content.extend_from_slice(&groups_end.to_le_bytes());
        self.offsets.clear();
        self.entries = 0;
        std::mem::take(&mut self.content)
    }
}
