//! Ordered structures: versioned entries under byte keys, read at any LSN.
//!
//! Every keyed structure is a few of these indexes (rows: one by key, one for each secondary
//! index; graph: one by source, one by target). Values stay in the log: an entry holds a pointer
//! or, below 32 B, the bytes.

mod index;

pub use index::{Direction, Index, Item, Range};

use crate::log::{Lsn, Pointer};

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
