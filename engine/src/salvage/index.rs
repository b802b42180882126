//! The newest state of every key, told by its hash: what a later version, a delete or a forget made
//! of it, whole or not.
//!
//! 1. What a damaged operation took the place of is not the newest, whatever it was.
//! 2. A doubt (an operation that a damaged commit seems to hold) counts as one that was there, and
//!    one that would have taken something away leaves nothing older to go back to.
//! 3. Forgets and deletes are never undone.

use std::collections::{BTreeMap, HashMap};

use xxhash_rust::xxh3::Xxh3;

use crate::codec::order;
use crate::log::Lsn;
use crate::log::record::{Commit, OpKind};
use crate::schema::{Kind, Schema, StructureId};

/// LSN and number of an operation.
pub type At = (Lsn, u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Whole,
    Damaged,
    Gone,
}

#[derive(Debug, Clone, Copy)]
pub struct State {
    pub newest: At,
    pub what: What,
    /// Of a damaged newest version: the newest whole one before it.
    pub older: Option<At>,
    /// The newest damaged operation.
    pub damaged: Lsn,
}

pub struct Index<'a> {
    schema: &'a Schema,
    keys: HashMap<u128, State>,
    forgotten: HashMap<u128, Lsn>,
    /// Scopes that were deleted, and those that a damaged commit may have deleted.
    scopes: HashMap<u128, At>,
    doubted_scopes: HashMap<u128, Lsn>,
    /// Of caches of bounded capacity: what was written when.
    ages: HashMap<StructureId, BTreeMap<At, u128>>,
    /// Rows and what follows them: linked vectors, caches with a source.
    followers: Vec<(StructureId, StructureId)>,
}

fn hash(structure: StructureId, key: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&structure.to_le_bytes());
    hash.update(key);
    hash.digest128()
}

/// The rows that a structure follows.
pub fn source_of(schema: &Schema, id: StructureId) -> Option<&str> {
    match &schema.by_id(id)?.kind {
        Kind::Vectors { rows: Some(source), .. } | Kind::Cache { source: Some(source), .. } => {
            Some(source)
        }
        _ => None,
    }
}

impl<'a> Index<'a> {
    pub fn new(schema: &'a Schema) -> Self {
        let pair = |id| Some((schema.named(source_of(schema, id)?)?.id, id));
        let followers = schema.structures.iter().filter_map(|one| pair(one.id)).collect();
        Self {
            schema,
            keys: HashMap::new(),
            forgotten: HashMap::new(),
            scopes: HashMap::new(),
            doubted_scopes: HashMap::new(),
            ages: HashMap::new(),
            followers,
        }
    }

    /// Takes in a commit; `bad`: operations whose values are damaged.
    pub fn commit(&mut self, commit: &Commit, bad: &[usize]) {
        for (number, op) in commit.frames.ops.iter().enumerate() {
            let whole = !bad.contains(&number);
            let at = (commit.lsn, number as u32);
            self.take(op.kind, op.structure, commit.frames.key(op), at, whole);
        }
    }

    /// Takes in what a damaged commit seems to have done.
    pub fn doubt(&mut self, kind: OpKind, structure: StructureId, key: &[u8], at: At) {
        match kind {
            OpKind::Append => {}
            OpKind::DeleteScope => {
                self.doubted_scopes.insert(hash(structure, key), at.0);
            }
            OpKind::Put => self.take(OpKind::Put, structure, key, at, false),
            OpKind::Delete | OpKind::Forget => {
                for id in self.with_followers(structure) {
                    self.set(id, key, at, What::Damaged, false);
                }
            }
        }
    }

    fn take(&mut self, kind: OpKind, structure: StructureId, key: &[u8], at: At, whole: bool) {
        match kind {
            OpKind::Append => {}
            OpKind::Put => {
                let what = if whole { What::Whole } else { What::Damaged };
                self.set(structure, key, at, what, true);
                self.evict(structure, key, at);
            }
            OpKind::Delete => {
                for id in self.with_followers(structure) {
                    self.set(id, key, at, What::Gone, false);
                }
            }
            OpKind::Forget => {
                for id in self.with_followers(structure) {
                    self.forgotten.insert(hash(id, key), at.0);
                    self.set(id, key, at, What::Gone, false);
                }
            }
            OpKind::DeleteScope => {
                self.scopes.insert(hash(structure, key), at);
            }
        }
    }

    fn with_followers(&self, structure: StructureId) -> Vec<StructureId> {
        let of = self.followers.iter().filter(|(rows, _)| *rows == structure);
        std::iter::once(structure).chain(of.map(|(_, follower)| *follower)).collect()
    }

    fn set(&mut self, id: StructureId, key: &[u8], at: At, what: What, keeps: bool) {
        let known = self.keys.get(&hash(id, key)).copied();
        // Nothing was there: to delete it leaves nothing to remember.
        if what == What::Gone && known.is_none() {
            return;
        }
        let older =
            known.filter(|_| keeps && what == What::Damaged).and_then(|known| match known.what {
                What::Whole => Some(known.newest),
                What::Damaged => known.older,
                What::Gone => None,
            });
        let before = known.map_or(0, |known| known.damaged);
        let damaged = if what == What::Damaged { at.0 } else { before };
        self.keys.insert(hash(id, key), State { newest: at, what, older, damaged });
    }

    /// A cache of bounded capacity loses what was written first.
    fn evict(&mut self, id: StructureId, key: &[u8], at: At) {
        let kind = self.schema.by_id(id).map(|structure| &structure.kind);
        let Some(Kind::Cache { capacity: Some(capacity), .. }) = kind else { return };
        let ages = self.ages.entry(id).or_default();
        ages.insert(at, hash(id, key));
        // What was deleted or written again since takes no place.
        let keys = &mut self.keys;
        let lives = |at: &At, key: &u128| {
            keys.get(key).is_some_and(|state| state.newest == *at && state.what != What::Gone)
        };
        if ages.len() as u64 > *capacity {
            ages.retain(|at, key| lives(at, key));
        }
        while ages.len() as u64 > *capacity {
            let Some((_, oldest)) = ages.pop_first() else { return };
            keys.remove(&oldest);
        }
    }

    /// `None`: no operation on the key is left.
    pub fn state(&self, id: StructureId, key: &[u8]) -> Option<State> {
        self.keys.get(&hash(id, key)).copied()
    }

    /// Whether a forget hides what was written to the key at this LSN.
    pub fn forgets(&self, id: StructureId, key: &[u8], lsn: Lsn) -> bool {
        self.forgotten.get(&hash(id, key)).is_some_and(|until| lsn <= *until)
    }

    /// Whether the scope of a context's key was deleted behind it.
    pub fn scope_gone(&self, id: StructureId, key: &[u8], at: At) -> bool {
        scope(key).is_some_and(|scope| self.scopes.get(&hash(id, scope)).is_some_and(|it| *it > at))
    }

    /// Whether a damaged commit may have deleted it.
    pub fn scope_doubted(&self, id: StructureId, key: &[u8], lsn: Lsn) -> bool {
        let doubted = |scope| self.doubted_scopes.get(&hash(id, scope));
        scope(key).and_then(doubted).is_some_and(|until| lsn < *until)
    }
}

/// The scope's part of a context's key.
fn scope(key: &[u8]) -> Option<&[u8]> {
    let mut rest = key;
    order::take_text(&mut rest).ok()?;
    (!rest.is_empty()).then(|| &key[..key.len() - rest.len()])
}
