//! One structure as it is materialised: its ordered trees, and what its kind needs beside them.

use std::sync::Arc;

use crate::audit::merkle::{self, Frontier, Hash, Subtrees};
use crate::cache;
use crate::error::{Error, Result};
use crate::log::Lsn;
use crate::ordered::run::Run;
use crate::ordered::{Direction, Entry, Item, Ordered, Range, Slot};
use crate::propagation::{Deferred, Queue};
use crate::schema::{Kind, Structure};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::vector::codes::Coding;
use crate::vector::file::GraphInfo;
use crate::vectors::{Form, Searchable};
use crate::views;

pub struct Materialised {
    pub ordered: Ordered,
    pub vectors: Option<Searchable>,
    /// The audit tree's right edge, once a leaf was added.
    frontier: Option<Mutex<Option<Frontier>>>,
    /// How many entries a cache of bounded capacity holds, once that was asked, and a place in the
    /// order of age before which there are none.
    ages: Option<Mutex<Option<Ages>>>,
    /// Commits up to here are in its runs.
    applied: AtomicU64,
    /// What its policy does not show yet.
    pub queue: Queue,
    /// Rows with indexes: which rows' entries are to be seen to.
    pub deferred: Option<Deferred>,
}

/// What files hold of a structure.
#[derive(Default)]
pub struct Held {
    /// Newest first; they hold everything up to `applied`.
    pub runs: Vec<Arc<Run>>,
    pub applied: Lsn,
    /// Oldest first.
    pub graphs: Vec<GraphInfo>,
    /// About how many vectors no graph links.
    pub unsealed: u64,
}

fn coding(codes: &str) -> Coding {
    Coding::parse(codes).expect("a declaration was checked")
}

struct Ages {
    count: u64,
    from: Vec<u8>,
}

impl Materialised {
    pub fn new(structure: &Structure, held: Held) -> Self {
        let Held { runs, applied, graphs, unsealed } = held;
        let trees = match &structure.kind {
            Kind::Rows { indexes, unique, supersede, .. } => {
                1 + indexes.len() + unique.len() + usize::from(!supersede.is_empty())
            }
            Kind::View { .. } => views::TREES,
            Kind::Cache { .. } | Kind::Graph {} => 2,
            _ => 1,
        };
        let vectors = match &structure.kind {
            Kind::Vectors { dim, metric, codes, .. } => {
                let form = Form { coding: coding(codes), metric: *metric, dim: *dim };
                Some(Searchable::new(form, applied, graphs, unsealed))
            }
            _ => None,
        };
        let frontier = matches!(structure.kind, Kind::Audit {}).then(Mutex::default);
        let ages = matches!(structure.kind, Kind::Cache { capacity: Some(_), .. });
        Self {
            ordered: Ordered::new(trees, runs),
            vectors,
            frontier,
            ages: ages.then(Mutex::default),
            applied: AtomicU64::new(applied),
            queue: Queue::default(),
            deferred: matches!(&structure.kind, Kind::Rows { indexes, .. } if !indexes.is_empty())
                .then(Deferred::default),
        }
    }

    /// The indexes of rows are these trees.
    pub fn is_deferrable(kind: &Kind, tree: u16) -> bool {
        match kind {
            Kind::Rows { indexes, .. } => (1..=indexes.len()).contains(&usize::from(tree)),
            _ => false,
        }
    }

    pub fn deferred_bytes(&self) -> usize {
        self.deferred.as_ref().map_or(0, Deferred::bytes)
    }

    /// Whether a tree is asked for single keys: what the filters of its runs are for.
    pub fn is_sought(kind: &Kind, tree: u16) -> bool {
        match kind {
            Kind::Rows { indexes, unique, supersede, .. } => {
                let about = 1 + indexes.len() + unique.len();
                tree == 0 || (!supersede.is_empty() && usize::from(tree) == about)
            }
            Kind::Cache { .. } | Kind::Vectors { .. } => tree == 0,
            Kind::Context {} | Kind::Graph {} => true,
            Kind::View { .. } => tree != views::MEMBERS,
            Kind::Events { .. } | Kind::Audit {} => false,
        }
    }

    /// Takes up a declaration that differs in what can be changed at any time.
    pub fn tune(&self, kind: &Kind) {
        if let (Some(vectors), Kind::Vectors { codes, .. }) = (&self.vectors, kind) {
            vectors.recode(coding(codes));
        }
    }

    pub fn applied(&self) -> Lsn {
        self.applied.load(Ordering::Acquire)
    }

    pub fn set_applied(&self, lsn: Lsn) {
        self.applied.fetch_max(lsn, Ordering::AcqRel);
    }

    pub fn set(&self, tree: u16, key: &[u8], lsn: Lsn, entry: Option<Entry>) {
        if tree == cache::AGES
            && let Some(ages) = &self.ages
            && let Some(ages) = &mut *ages.lock()
        {
            // Each place in the order of age is written once and removed once.
            match entry {
                Some(_) => ages.count += 1,
                None => ages.count -= 1,
            }
        }
        self.ordered.set(tree, key, lsn, entry);
    }

    /// The oldest entry of a cache that holds more than `capacity`.
    pub fn overfull(&self, lsn: Lsn, capacity: u64) -> Result<Option<Item>> {
        let Some(ages) = &self.ages else { return Ok(None) };
        let mut ages = ages.lock();
        let ages = match &mut *ages {
            Some(ages) => ages,
            unknown => {
                let count = self.ordered.count(cache::AGES, lsn)?;
                unknown.insert(Ages { count, from: Vec::new() })
            }
        };
        if ages.count <= capacity {
            return Ok(None);
        }
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let range = Range { start: ages.from.clone(), end: None };
            let (direction, after_key) = (Direction::Forward, after.as_deref());
            let page = self.ordered.page(cache::AGES, &range, direction, after_key, lsn, 16)?;
            let Some(last) = page.last() else { return Ok(None) };
            after = Some(last.key.clone());
            if let Some(item) = page.into_iter().find(|item| item.entry.is_some()) {
                ages.from = item.key.to_vec();
                return Ok(Some(item));
            }
        }
    }

    /// Adds the leaf with this index to an audit tree, unless it is there.
    pub fn push_leaf(&self, index: u64, leaf: Hash, lsn: Lsn) -> Result<()> {
        let frontier = self.frontier.as_ref().expect("an audit has a frontier");
        let mut frontier = frontier.lock();
        let frontier = match &mut *frontier {
            Some(known) if known.size() == index => known,
            other => other.insert(Frontier::of(&Leaves(&self.ordered), index)?),
        };
        frontier.push(leaf, |height, index, hash| {
            let entry = Entry::with_slot(Slot::Inline(Box::new(hash)));
            self.ordered.set(0, &subtree_key(height, index), lsn, Some(entry));
        });
        Ok(())
    }

    pub fn leaves(&self) -> Leaves<'_> {
        Leaves(&self.ordered)
    }
}

/// An audit tree's stored hashes. Tree 0: (height, index) → hash, at heights 0, 8, 16 …
pub struct Leaves<'a>(&'a Ordered);

fn subtree_key(height: u32, index: u64) -> [u8; 9] {
    let mut key = [0; 9];
    key[0] = height as u8;
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

fn hash_of(entry: Option<Entry>) -> Option<Hash> {
    match entry?.slot {
        Slot::Inline(hash) => Hash::try_from(&hash[..]).ok(),
        _ => None,
    }
}

impl Leaves<'_> {
    pub fn leaf(&self, index: u64) -> Result<Option<Hash>> {
        let found = self.0.state(0, &subtree_key(0, index), Lsn::MAX)?;
        Ok(found.and_then(|(_, entry)| hash_of(entry)))
    }

    /// Leaves there are at `lsn`.
    pub fn count(&self, lsn: Lsn) -> Result<u64> {
        let range = Range { start: vec![0], end: Some(vec![1]) };
        let last = self.0.page(0, &range, Direction::Reverse, None, lsn, 1)?;
        let index = last.first().and_then(|item| item.key.get(1..9)?.try_into().ok());
        Ok(index.map_or(0, |index| u64::from_be_bytes(index) + 1))
    }
}

impl Subtrees for Leaves<'_> {
    fn complete(&self, height: u32, index: u64) -> Result<Hash> {
        let base = height / merkle::TILE_HEIGHT * merkle::TILE_HEIGHT;
        let width = 1_u64 << (height - base);
        let first = index * width;
        let range = Range {
            start: subtree_key(base, first).to_vec(),
            end: Some(subtree_key(base, first + width).to_vec()),
        };
        let page = self.0.page(0, &range, Direction::Forward, None, Lsn::MAX, width as usize)?;
        let hashes: Vec<Hash> = page.into_iter().filter_map(|item| hash_of(item.entry)).collect();
        if hashes.len() as u64 != width {
            return Err(Error::corruption(format!(
                "the audit tree lacks hashes at height {base} from {first} on: rebuild it, they \
                 follow from the log"
            )));
        }
        Ok(merkle::fold(hashes))
    }
}
