//! The log: the only synchronous write and the only authority.
//!
//! `format` lays out segments, groups and records (docs/format.md is the authority for bytes);
//! `packed` is the form of compressed values and dictionaries;
//! `segment` creates and opens segment files; `queue` assembles groups in memory; `writer` makes
//! them durable, one at a time; `reader` walks groups and answers point reads; `repair` decides
//! between a torn tail and corruption, and mends the former before anything is reused.

pub mod format;
pub mod packed;
pub mod queue;
pub mod reader;
pub mod record;
pub mod repair;
pub mod segment;
pub mod txn;
pub mod writer;

/// Log sequence number: +1 a commit; 0 is the empty database.
pub type Lsn = u64;

/// Where an operation's frame lies; valid for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pointer {
    pub segment: u64,
    pub offset: u64,
    /// Bytes of the whole frame, value included.
    pub length: u32,
    pub lsn: Lsn,
}
