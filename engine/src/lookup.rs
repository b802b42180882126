//! What a structure needs of the state to answer a read or to take in an operation.
//!
//! `Look` reads at one LSN; `Change` also writes there. Implemented by a snapshot of the store, by
//! the applier at the LSN it applies, and by a transaction over its own pending writes. So each
//! structure has one way to read and one way to change, whoever asks.

use std::sync::Arc;

use crate::clock::Micros;
use crate::error::Result;
use crate::log::Lsn;
use crate::log::record::{Frames, Op, ValueAt};
use crate::ordered::{Direction, Entry, Item, Range, Slot, Version};
use crate::schema::{Schema, Structure, StructureId};
use crate::vector::{Hit, Search};

/// Items looked at in one step, where all are.
const PAGE: usize = 1_024;

/// One ordered index of one structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tree {
    pub structure: StructureId,
    pub number: u16,
}

impl Tree {
    pub fn new(structure: StructureId, number: u16) -> Self {
        Self { structure, number }
    }
}

/// Live items of one step of a scan, and where the next step begins.
pub struct Page {
    pub items: Vec<Item>,
    /// Key to continue behind; `None`: the range is done.
    pub next: Option<Box<[u8]>>,
}

/// Which keys may answer a search; what it reads may fail.
pub type Accepts<'a> = &'a (dyn Fn(&str) -> Result<bool> + Sync);

/// Which vectors a search is among.
#[derive(Clone, Copy)]
pub enum Among<'a> {
    All,
    /// Of these keys.
    Keys(&'a [String]),
    /// Of the keys that are accepted.
    Accepted(Accepts<'a>),
}

/// What is asked of a vector search.
pub struct Nearby<'a> {
    pub query: &'a [f32],
    pub search: Search,
    pub among: Among<'a>,
}

pub trait Look: Sync {
    fn schema(&self) -> &Schema;
    /// Newest LSN this sees.
    fn lsn(&self) -> Lsn;
    /// Engine time, for expiry.
    fn now(&self) -> Micros;
    /// Newest version of a key; no entry is a tombstone.
    fn state(&self, tree: Tree, key: &[u8]) -> Result<Option<(Lsn, Option<Entry>)>>;
    fn page(
        &self,
        tree: Tree,
        range: &Range,
        direction: Direction,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page>;
    /// Keys of a tree, as this sees it.
    fn count(&self, tree: Tree) -> Result<u64>;
    fn value(&self, slot: &Slot) -> Result<Arc<[u8]>>;
    /// Whether versions of a key written at `lsn` were forgotten since.
    fn forgotten(&self, structure: StructureId, key: &[u8], lsn: Lsn) -> Result<bool>;
    fn vector_search(&self, structure: StructureId, asked: &Nearby<'_>) -> Result<Vec<Hit>>;
    /// Whether a search walks graphs, and so may pass something over.
    fn walks_graphs(&self, structure: StructureId) -> bool;
    /// About how many vectors there are.
    fn vectors_about(&self, structure: StructureId) -> u64;
    /// A structure was read by more than single keys (for serializable transactions).
    fn note_range(&self, _structure: StructureId) {}
    /// A key was read.
    fn note_key(&self, _structure: StructureId, _key: &[u8]) {}

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Version>> {
        Ok(match self.state(tree, key)? {
            Some((lsn, Some(entry))) => Some(Version { lsn, entry }),
            _ => None,
        })
    }

    fn structure(&self, id: StructureId) -> Option<&Structure> {
        self.schema().by_id(id)
    }
}

/// Looks at every live item of a range.
pub fn each(
    look: &(impl Look + ?Sized),
    tree: Tree,
    range: &Range,
    mut visit: impl FnMut(&Item) -> Result<()>,
) -> Result<()> {
    let mut after: Option<Box<[u8]>> = None;
    loop {
        let way = Direction::Forward;
        let page = look.page(tree, range, way, after.as_deref(), PAGE)?;
        page.items.iter().try_for_each(&mut visit)?;
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// Live keys of a tree that end like this. It looks at every one: for where what would lead to them
/// is lost.
pub fn ending(look: &(impl Look + ?Sized), tree: Tree, end: &[u8]) -> Result<Vec<Box<[u8]>>> {
    let mut found = Vec::new();
    each(look, tree, &Range::all(), |item| {
        if item.key.ends_with(end) {
            found.push(item.key.clone());
        }
        Ok(())
    })?;
    Ok(found)
}

pub trait Change: Look {
    fn set(&self, tree: Tree, key: &[u8], entry: Option<Entry>);
    /// Removes every version of a key up to here, at every snapshot (a transaction: hides it).
    fn erase(&self, tree: Tree, key: &[u8]);
    /// Every version of a key that still exists, oldest first.
    fn versions(&self, tree: Tree, key: &[u8]) -> Result<Vec<Version>>;
    /// The keys that end like this, as they were at an LSN (a transaction: as they are).
    fn ending_at(&self, lsn: Lsn, tree: Tree, end: &[u8]) -> Result<Vec<Box<[u8]>>>;
    /// From now on no read answers with versions of this key up to here.
    fn mask(&self, structure: StructureId, key: &[u8]);
    /// Old versions of a key that nobody can ask for may go (cache only).
    fn prune(&self, tree: Tree, key: &[u8]);
    /// The oldest entry of a cache of bounded capacity, if it holds more than its capacity.
    fn overfull(&self, structure: StructureId, capacity: u64) -> Result<Option<Item>>;
    /// `slot`: where its bytes will be found.
    fn put_vector(&self, structure: StructureId, key: &str, vector: &[f32], slot: &Slot);
    fn delete_vector(&self, structure: StructureId, key: &str);
    fn forget_vector(&self, structure: StructureId, key: &str);
    /// Whether a change to this structure is wanted at all.
    fn changes(&self, _structure: StructureId) -> bool {
        true
    }
    /// The index entries of a row that changes here are seen to later; `false`: they are not.
    fn defer(&self, _structure: StructureId, _key: &[u8]) -> bool {
        false
    }
    /// A group of a view became stale.
    fn touch(&self, _view: StructureId, _group: &[u8]) {}
    /// A version took the place of another that said otherwise.
    fn superseded(&self) {}
    /// The commit is of background priority.
    fn is_background(&self) -> bool {
        false
    }
}

/// One operation with its bytes at hand.
pub struct Operation<'a> {
    pub frames: &'a Frames,
    pub op: &'a Op,
    pub number: u32,
    /// Where its value will be found.
    pub slot: Slot,
}

impl<'a> Operation<'a> {
    pub fn key(&self) -> &'a [u8] {
        self.frames.key(self.op)
    }

    pub fn text_key(&self) -> &'a str {
        std::str::from_utf8(self.key()).expect("keys of text structures were checked")
    }

    pub fn meta(&self) -> &'a [u8] {
        self.frames.meta(self.op)
    }

    pub fn value(&self) -> Option<&'a [u8]> {
        self.frames.value(self.op)
    }

    /// Small values are held inline, others by what `stored` makes of them.
    pub fn slot_of(frames: &Frames, op: &Op, stored: impl FnOnce() -> Slot) -> Slot {
        match &op.value {
            ValueAt::None => Slot::None,
            ValueAt::Inline(range) => Slot::Inline(frames.bytes[range.clone()].into()),
            ValueAt::Stored { .. } | ValueAt::Back { .. } => stored(),
        }
    }
}
