//! Ordered structures: versioned entries under byte keys, read at any LSN.
//!
//! Every keyed structure is a few trees (rows: one by key, one for each secondary index; graph:
//! one by source, one by target). Values stay in the log: an entry holds a pointer or, below 32 B,
//! the bytes. A structure's trees are layers, newest first: the active memtable, sealed ones on
//! their way to the disk, and immutable sorted runs, whose LSN ranges follow one another.
//!
//! `layers` reads and writes them, `scan` walks them in order, `memtable` and `run` are the kinds
//! of layer, `merge` decides which runs become one and makes it.

mod layers;
mod memtable;
pub mod merge;
pub mod run;
mod scan;

pub use layers::{Layers, MASKS, Ordered};
pub use memtable::{Index, Memtable};

use crate::log::{Lsn, Pointer};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Reverse,
}

/// `[start, end)`; an `end` of `None` is open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Range {
    pub start: Vec<u8>,
    pub end: Option<Vec<u8>>,
}

impl Range {
    pub fn all() -> Self {
        Self::default()
    }

    pub fn prefix(prefix: &[u8]) -> Self {
        Self { start: prefix.to_vec(), end: crate::codec::order::successor(prefix) }
    }

    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// A key as it stands at the LSN of a scan; `None` is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub key: Box<[u8]>,
    pub lsn: Lsn,
    pub entry: Option<Entry>,
}

/// Where a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slot {
    None,
    Inline(Box<[u8]>),
    Stored(Pointer),
    /// In the transaction that reads: the number of its operation.
    Pending(u32),
}

/// What a key maps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Small facts of the structure's own: an expiry, an event's kind.
    pub meta: Box<[u8]>,
    pub slot: Slot,
}

impl Entry {
    pub fn mark() -> Self {
        Self { meta: Box::default(), slot: Slot::None }
    }

    pub fn with_slot(slot: Slot) -> Self {
        Self { meta: Box::default(), slot }
    }

    pub fn with_meta(meta: impl Into<Box<[u8]>>, slot: Slot) -> Self {
        Self { meta: meta.into(), slot }
    }
}

/// An entry as it stood at some LSN, and the LSN that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub lsn: Lsn,
    pub entry: Entry,
}
