//! Values by slot: inline ones at once, stored ones from the log: where a sealed segment is mapped,
//! else through a bounded cache, which holds them as they were given.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::compression::{self, Dictionaries};
use crate::error::Result;
use crate::log::Pointer;
use crate::log::reader::PointReader;
use crate::log::record::{Codec, Commit, ValueAt};
use crate::ordered::Slot;
use crate::storage::bytes::Bytes;

/// Values above this are read from the log each time.
const CACHED_BYTES_MAX: usize = 64 << 10;

#[derive(Clone)]
struct ByBytes;

impl Weighter<(u64, u64), Arc<[u8]>> for ByBytes {
    fn weight(&self, _: &(u64, u64), value: &Arc<[u8]>) -> u64 {
        value.len() as u64 + 64
    }
}

/// Answers for bytes that are sequenced and not in the file yet.
pub type Unsynced = Box<dyn Fn(u64, u64, &mut [u8]) -> bool + Send + Sync>;

pub struct Values {
    reader: PointReader,
    pub dictionaries: Dictionaries,
    cache: Cache<(u64, u64), Arc<[u8]>, ByBytes>,
    unsynced: std::sync::OnceLock<Unsynced>,
}

impl Values {
    pub fn new(reader: PointReader, dictionaries: Dictionaries, cache_bytes: u64) -> Self {
        let items = (cache_bytes / 512).clamp(64, 1 << 20) as usize;
        Self {
            reader,
            dictionaries,
            cache: Cache::with_weighter(items, cache_bytes, ByBytes),
            unsynced: std::sync::OnceLock::new(),
        }
    }

    /// The pipeline that holds what the files do not hold yet; set once, when it starts.
    pub fn attach(&self, unsynced: Unsynced) {
        assert!(self.unsynced.set(unsynced).is_ok(), "attached once");
    }

    fn unsynced(&self, segment: u64, offset: u64, into: &mut [u8]) -> bool {
        self.unsynced.get().is_some_and(|read| read(segment, offset, into))
    }

    /// To keep: never a part of a map.
    pub fn get(&self, slot: &Slot) -> Result<Arc<[u8]>> {
        self.view(slot).map(Arc::from)
    }

    /// To be copied on or looked at, at once.
    pub fn view(&self, slot: &Slot) -> Result<Bytes> {
        match slot {
            Slot::Inline(bytes) => Ok(Bytes::from(Arc::from(&bytes[..]))),
            Slot::Stored(pointer) => self.stored(pointer),
            Slot::None | Slot::Pending(_) => {
                unreachable!("the caller resolves slots without a stored value")
            }
        }
    }

    /// The same of one that may just have been committed: its pages need not be in memory yet.
    pub fn recent(&self, slot: &Slot) -> Result<Bytes> {
        if let Slot::Stored(pointer) = slot
            && let Some(value) = self.cache.get(&(pointer.segment, pointer.offset))
        {
            return Ok(value.into());
        }
        self.view(slot)
    }

    /// A value will be asked for after a few others: what can be done for it meanwhile is.
    pub fn prefetch(&self, slot: &Slot) {
        if let Slot::Stored(pointer) = slot {
            self.reader.prefetch(pointer);
        }
    }

    /// Values that were written past the page cache will be asked for: they are read into it.
    pub fn will_need<'a>(&self, slots: impl Iterator<Item = &'a Slot>) {
        let mut ranges: BTreeMap<u64, Range<u64>> = BTreeMap::new();
        for slot in slots {
            let Slot::Stored(pointer) = slot else { continue };
            let end = pointer.offset.saturating_add(pointer.length.into());
            let range = ranges.entry(pointer.segment).or_insert(pointer.offset..end);
            *range = range.start.min(pointer.offset)..range.end.max(end);
        }
        ranges.into_iter().for_each(|(segment, bytes)| self.reader.will_need(segment, bytes));
    }

    /// What a map has is in memory once, in the page cache, where it is found as fast as in this
    /// one; here it would displace another's. What was compressed is kept as it was given.
    fn stored(&self, pointer: &Pointer) -> Result<Bytes> {
        let mapped = self.reader.mapped_value(pointer)?;
        if let Some((value, false)) = mapped {
            return Ok(value);
        }
        let place = (pointer.segment, pointer.offset);
        if let Some(value) = self.cache.get(&place) {
            return Ok(value.into());
        }
        let found = mapped.map_or_else(|| self.read_log(pointer), Ok)?;
        let value: Arc<[u8]> = self.given(pointer, found)?.into();
        if value.len() <= CACHED_BYTES_MAX {
            self.cache.insert(place, Arc::clone(&value));
        }
        Ok(value.into())
    }

    /// A value that is not worth a place in the cache.
    pub fn read(&self, slot: &Slot) -> Result<Bytes> {
        match slot {
            Slot::Stored(pointer) => self.given(pointer, self.read_log(pointer)?),
            slot => self.view(slot),
        }
    }

    /// As it is stored, and whether that is compressed.
    fn read_log(&self, pointer: &Pointer) -> Result<(Bytes, bool)> {
        let unsynced = |segment, offset, into: &mut [u8]| self.unsynced(segment, offset, into);
        self.reader.value(pointer, unsynced)
    }

    fn given(&self, pointer: &Pointer, (stored, packed): (Bytes, bool)) -> Result<Bytes> {
        if !packed {
            return Ok(stored);
        }
        let plain = self.dictionaries.value(&stored).map_err(|error| {
            error.context(format!("the value of LSN {} cannot be read, others can", pointer.lsn))
        })?;
        Ok(Bytes::from(Arc::from(plain)))
    }

    /// Keeps the values of a commit that was just written: they are likely to be read soon, and
    /// their pages are not in the page cache. Vectors only of structures that are `searched`.
    pub fn admit(&self, commit: &Commit, searched: impl Fn(u32) -> bool) {
        let mut kept: Vec<(usize, Arc<[u8]>)> = Vec::new();
        for (number, op) in commit.frames.ops.iter().enumerate() {
            let owner = match op.value {
                ValueAt::Stored { .. } => number,
                ValueAt::Back { owner, .. } => owner,
                ValueAt::None | ValueAt::Inline(_) => continue,
            };
            let value = commit.frames.value(op).expect("a stored value has bytes");
            let unwanted = op.codec == Codec::Float32 && !searched(op.structure);
            if unwanted || value.len() > CACHED_BYTES_MAX {
                continue;
            }
            let known = kept.iter().rev().find(|(known, _)| *known == owner);
            let value = match known {
                Some((_, value)) => Arc::clone(value),
                None => {
                    kept.push((owner, Arc::from(value)));
                    Arc::clone(&kept.last().expect("just pushed").1)
                }
            };
            let pointer = commit.pointer(op);
            self.cache.insert((pointer.segment, pointer.offset), value);
        }
    }

    pub fn commit(&self, pointer: &Pointer) -> Result<Commit> {
        let unsynced = |segment, offset, into: &mut [u8]| self.unsynced(segment, offset, into);
        let mut commit = self.reader.commit(pointer, unsynced)?;
        self.unpack(&mut commit)?;
        Ok(commit)
    }

    /// Makes the values of a commit that was just read be there as they were given.
    pub fn unpack(&self, commit: &mut Commit) -> Result<()> {
        compression::unpack(&mut commit.frames, &self.dictionaries)
            .map_err(|error| error.context(format!("LSN {}", commit.lsn)))
    }

    pub fn memory_bytes(&self) -> usize {
        self.cache.weight() as usize
    }
}
