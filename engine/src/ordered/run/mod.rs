//! Immutable sorted runs: the entries of one structure in a file, read at any LSN.
//!
//! docs/format.md, "Run", is the authority for bytes. `writer` makes a run from entries in order;
//! `reader` answers for single keys, `cursor` walks, `verify` reads everything. Below them: `block`
//! and `builder` (groups of entries, packed by `column`), `frame` (compression and checksums),
//! `filter`, `footer`, `descent` (the way from a tree's root to an entry), `cache`.
//!
//! Invariants:
//! 1. A run is never changed once `finish` returned; its name is never used again.
//! 2. Nothing of a block is used before its checksum holds, and no length or count from the file
//!    before it is checked. What does not hold is `CorruptionError`; the log has everything.
//! 3. Order: tree ascending, key ascending as bytes, LSN descending.
//! 4. A reader keeps the directory in memory, everything else in the cache.

mod block;
mod builder;
mod cache;
mod column;
mod cursor;
mod descent;
mod filter;
mod footer;
mod frame;
#[cfg(test)]
mod measure;
mod reader;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use cache::BlockCache;
pub use cursor::Cursor;
pub use footer::RunInfo;
pub use reader::Run;
pub use writer::RunWriter;

use crate::error::Error;

pub const RUNS_DIR: &str = "runs";

pub type DatabaseId = [u8; 16];

/// A block is closed at this size, before compression.
pub const BLOCK_BYTES: usize = 8 << 10;
/// The content of any block; what a reader allocates for one at most.
pub const BLOCK_BYTES_MAX: usize = 2 << 20;
/// A structure's longest key, and what an index puts before it.
pub const KEY_BYTES_MAX: usize = 3 * crate::limits::KEY_BYTES_MAX + 64;
/// Meta and inline bytes of one entry.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;
/// The directory: a root and two keys for each tree.
pub const DIRECTORY_BYTES_MAX: usize = 64 << 20;
/// Levels of an index above its data.
const HEIGHT_MAX: u8 = 16;
const SUM_BYTES: usize = 8;

/// Name of the file of a run.
pub fn path(uid: u64) -> String {
    format!("{RUNS_DIR}/{uid:08}.run")
}

/// The number of a file in `RUNS_DIR`; `None`: not the name of a run.
pub fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".run")?;
    let number = digits.parse().ok()?;
    (path(number).strip_prefix(RUNS_DIR)?.strip_prefix('/')? == name).then_some(number)
}

fn damaged(path: &str, what: impl std::fmt::Display) -> Error {
    Error::corruption(format!("{path}: {what}"))
        .hint("nothing is lost, the log has it all: the structure is made again from it")
        .derived()
}
