//! Views: what is made of the groups of a source, rows or another view.
//!
//! Trees: 0 results by group; 1 the groups whose result is stale, with what changed since; 2 what
//! belongs to a group, by group and key (by rank between the two, where a kind reads in order); 3
//! which groups a document left whose results may still hold it; 4 how many documents a group has.
//! Trees 1 to 4, and all results of kinds that need no call, follow from the source's operations
//! and cost the log nothing; a caller's result is an operation of a commit of its own.
//! Invariants:
//! 1. A group whose inputs changed is stale from the LSN of the change on, in the group a document
//!    left as in the one it came to, until a result with an input LSN at or above it is committed.
//! 2. A result is as of its input LSN. It is dropped if a newer one stands, or if an input was
//!    deleted, superseded or forgotten behind its input LSN.
//! 3. No result is there that a deleted, superseded or forgotten input went into; a group without
//!    documents has no result and is not stale.
//! 4. Staleness has no history: it is of now.

mod check;
mod exact;
mod follow;
mod incremental;
pub mod key;
mod old;
mod read;

pub use check::check;
pub use follow::{changed, forgotten, result};
pub use old::Before;
pub use read::{Input, Stored, find, groups, inputs, stale, stale_groups};

use xxhash_rust::xxh3::xxh3_64;

use crate::codec::{Decoder, put_varint};
use crate::error::Result;
use crate::log::Lsn;
use crate::lookup::Tree;
use crate::ordered::Entry;
use crate::schema::{Function, Kind, Schema, StructureId};

pub const RESULTS: u16 = 0;
pub const STALE: u16 = 1;
pub const MEMBERS: u16 = 2;
pub const LEFT: u16 = 3;
pub const SIZES: u16 = 4;
pub const TREES: usize = 5;

/// A view as it is declared.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub id: StructureId,
    pub source: StructureId,
    pub by: &'a [String],
    pub function: &'a Function,
    version: u64,
    /// The fields of the source's groups, if it is a view.
    above: Option<&'a [String]>,
}

impl<'a> View<'a> {
    pub fn of(schema: &'a Schema, id: StructureId) -> Option<Self> {
        let Kind::View { source, by, version, function, .. } = &schema.by_id(id)?.kind else {
            return None;
        };
        let source = schema.named(source)?;
        let above = match &source.kind {
            Kind::View { by, .. } => Some(&by[..]),
            _ => None,
        };
        Some(Self { id, source: source.id, by, function, version: *version, above })
    }

    /// Results made under another definition are of no group of this one.
    pub fn definition(&self) -> u64 {
        let definition = (self.source, self.by, self.version, self.function);
        xxh3_64(&serde_json::to_vec(&definition).expect("a declaration has only text keys"))
    }

    /// The group of a document of the source.
    fn group_of(&self, source_key: &[u8], document: &[u8]) -> Option<Vec<u8>> {
        key::group_of(self.by, document, self.above.map(|names| (names, source_key)))
    }

    pub fn results(&self) -> Tree {
        Tree::new(self.id, RESULTS)
    }

    pub fn staleness(&self) -> Tree {
        Tree::new(self.id, STALE)
    }

    pub fn left(&self) -> Tree {
        Tree::new(self.id, LEFT)
    }

    pub fn sizes(&self) -> Tree {
        Tree::new(self.id, SIZES)
    }

    pub fn members(&self) -> Tree {
        Tree::new(self.id, MEMBERS)
    }
}

/// Why a group is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale {
    /// The first change that no result reflects.
    pub since: Lsn,
    /// The newest change.
    pub changed: Lsn,
    /// The newest change that took something away for good; 0 if none did.
    pub removed: Lsn,
    /// Commits that changed it.
    pub changes: u64,
    /// Of the documents they wrote.
    pub bytes: u64,
    /// Some of them were of more than background priority.
    pub routine: bool,
}

impl Stale {
    fn entry(&self) -> Entry {
        let mut meta = Vec::with_capacity(16);
        let routine = u64::from(self.routine);
        let numbers = [self.since, self.changed, self.removed, self.changes, self.bytes, routine];
        numbers.into_iter().for_each(|number| put_varint(&mut meta, number));
        Entry::with_meta(meta, crate::ordered::Slot::None)
    }

    fn of(entry: &Entry) -> Result<Self> {
        let mut decoder = Decoder::new(&entry.meta);
        Ok(Self {
            since: decoder.varint()?,
            changed: decoder.varint()?,
            removed: decoder.varint()?,
            changes: decoder.varint()?,
            bytes: decoder.varint()?,
            routine: decoder.varint()? != 0,
        })
    }
}

/// What a caller's result says of itself: the meta of its operation and of its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// It reflects its inputs up to here.
    pub input: Lsn,
    /// What it was made by.
    pub definition: u64,
    /// Of the changes that made the group stale, so many had come by then.
    pub covered: u64,
}

impl Made {
    pub fn encode(&self) -> Vec<u8> {
        let mut meta = Vec::with_capacity(20);
        for number in [self.input, self.definition, self.covered] {
            put_varint(&mut meta, number);
        }
        meta
    }

    pub fn decode(meta: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(meta);
        Ok(Self {
            input: decoder.varint()?,
            definition: decoder.varint()?,
            covered: decoder.varint()?,
        })
    }
}
