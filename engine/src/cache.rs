//! Cache: values with an expiry, optionally filled from rows.
//!
//! Trees: 0 key → expiry and value; 1, in a cache of bounded capacity, (LSN, operation) → key: the
//! order in which entries were written, which is the order in which they leave. Invariants:
//! 1. An expired entry is never answered; engine time never decreases, so it never comes back.
//! 2. With a source, an entry older than its row is never answered: the row is, or nothing.
//! 3. Old versions are kept only while a snapshot may read them: a cache has no history.

use std::sync::Arc;

use crate::clock::Micros;
use crate::error::Result;
use crate::log::Lsn;
use crate::log::record::OpKind;
use crate::lookup::{Change, Look, Operation, Tree};
use crate::ordered::{Direction, Entry, Range, Version};
use crate::rows;
use crate::schema::{Kind, StructureId};

const STEP: usize = 256;

type Key = Box<[u8]>;

fn entries(structure: StructureId) -> Tree {
    Tree::new(structure, 0)
}

/// The number of the tree in the order of age.
pub const AGES: u16 = 1;

fn by_age(structure: StructureId) -> Tree {
    Tree::new(structure, AGES)
}

fn age_key(lsn: Lsn, operation: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&lsn.to_be_bytes());
    key[8..].copy_from_slice(&operation.to_be_bytes());
    key
}

/// An entry's meta: its expiry, then its place in the order of age if the capacity is bounded.
fn encode_meta(expires: Micros, age: &[u8]) -> Vec<u8> {
    let mut meta = expires.to_le_bytes().to_vec();
    meta.extend_from_slice(age);
    meta
}

pub fn expires(entry: &Entry) -> Micros {
    let bytes = entry.meta.get(..8).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, Micros::from_le_bytes)
}

/// When an entry written now leaves, in engine time.
pub fn expiry(now: Micros, ttl: i64) -> Micros {
    now.saturating_add(ttl)
}

fn is_live(version: &Version, now: Micros) -> bool {
    !has_expired(&version.entry, now)
}

/// Takes in a put (expiry in the meta) or a delete, and evicts beyond the capacity.
pub fn apply(
    state: &impl Change,
    operation: &Operation<'_>,
    lsn: Lsn,
    capacity: Option<u64>,
) -> Result<()> {
    let structure = operation.op.structure;
    let key = operation.key();
    if operation.op.kind != OpKind::Put {
        return row_deleted(state, structure, key);
    }
    let expiry: [u8; 8] = operation.meta().try_into().unwrap_or_default();
    let age = age_key(lsn, operation.number);
    let ordered = if capacity.is_some() { &age[..] } else { &[] };
    let meta = encode_meta(Micros::from_le_bytes(expiry), ordered);
    if capacity.is_some() {
        remove_age(state, structure, key)?;
        let back = Entry::with_meta(key, crate::ordered::Slot::None);
        state.set(by_age(structure), &age, Some(back));
    }
    state.set(entries(structure), key, Some(Entry::with_meta(meta, operation.slot.clone())));
    state.prune(entries(structure), key);
    if let Some(capacity) = capacity {
        evict(state, structure, capacity)?;
    }
    Ok(())
}

fn remove_age(state: &impl Change, structure: StructureId, key: &[u8]) -> Result<()> {
    if let Some(version) = state.get(entries(structure), key)?
        && let Some(age) = version.entry.meta.get(8..).filter(|age| !age.is_empty())
    {
        state.set(by_age(structure), age, None);
    }
    Ok(())
}

fn evict(state: &impl Change, structure: StructureId, capacity: u64) -> Result<()> {
    while let Some(oldest) = state.overfull(structure, capacity)? {
        let key = oldest.entry.expect("what is evicted exists").meta;
        state.set(by_age(structure), &oldest.key, None);
        state.set(entries(structure), &key, None);
        state.prune(entries(structure), &key);
    }
    Ok(())
}

pub fn forget(state: &impl Change, structure: StructureId, key: &[u8]) -> Result<()> {
    remove_age(state, structure, key)?;
    state.erase(entries(structure), key);
    Ok(())
}

/// The entry goes: it was deleted, or its row was.
pub fn row_deleted(state: &impl Change, structure: StructureId, key: &[u8]) -> Result<()> {
    if state.get(entries(structure), key)?.is_some() {
        remove_age(state, structure, key)?;
        state.set(entries(structure), key, None);
        state.prune(entries(structure), key);
    }
    Ok(())
}

/// The entry a read answers with, and the LSN that wrote it.
pub fn find(
    look: &(impl Look + ?Sized),
    structure: StructureId,
    key: &[u8],
) -> Result<Option<Version>> {
    look.note_key(structure, key);
    let now = look.now();
    let own = look.get(entries(structure), key)?.filter(|version| is_live(version, now));
    let Some(rows) = source(look, structure) else { return Ok(own) };
    Ok(match look.state(rows, key)? {
        // A row that goes takes its entry along: what is here was put behind it.
        None | Some((_, None)) => own,
        Some((lsn, Some(entry))) => Some(match own {
            Some(own) if own.lsn >= lsn => own,
            _ => Version { lsn, entry },
        }),
    })
}

/// The rows a cache fills itself from.
fn source(look: &(impl Look + ?Sized), structure: StructureId) -> Option<Tree> {
    let Kind::Cache { source, .. } = &look.structure(structure)?.kind else { return None };
    Some(rows::named(look.schema(), source.as_ref()?)?.rows())
}

/// Keys and values in key order, expired ones left out, rows of the source included.
pub struct Scan {
    structure: StructureId,
    range: Range,
    direction: Direction,
    after: Option<Box<[u8]>>,
    left: usize,
    done: bool,
}

impl Scan {
    pub fn new(
        look: &(impl Look + ?Sized),
        structure: StructureId,
        bounds: &rows::read::Bounds,
    ) -> Self {
        look.note_range(structure);
        Self {
            structure,
            range: bounds.range(),
            direction: bounds.direction(),
            after: bounds.after.as_deref().map(Into::into),
            left: bounds.limit.unwrap_or(usize::MAX),
            done: bounds.limit == Some(0),
        }
    }

    pub fn step(
        &mut self,
        look: &(impl Look + ?Sized),
        count: usize,
    ) -> Result<Vec<rows::read::Row>> {
        let mut found = Vec::new();
        while found.len() < count && !self.done {
            let (keys, next) = self.keys(look)?;
            self.after = next;
            self.done = self.after.is_none();
            for key in keys {
                let Some(version) = find(look, self.structure, &key)? else { continue };
                let value: Arc<[u8]> = look.value(&version.entry.slot)?;
                let value = value.into();
                found.push(rows::read::Row { key: key.clone(), value, lsn: version.lsn });
                self.left -= 1;
                if found.len() == count || self.left == 0 {
                    self.after = Some(key);
                    self.done = self.left == 0;
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Keys of the next step from both trees, in order, without doubles.
    fn keys(&self, look: &(impl Look + ?Sized)) -> Result<(Vec<Key>, Option<Key>)> {
        let page = |tree| look.page(tree, &self.range, self.direction, self.after.as_deref(), STEP);
        let own = page(entries(self.structure))?;
        let Some(rows) = source(look, self.structure) else {
            return Ok((own.items.into_iter().map(|item| item.key).collect(), own.next));
        };
        let rows = page(rows)?;
        let before = |a: &[u8], b: &[u8]| match self.direction {
            Direction::Forward => a < b,
            Direction::Reverse => a > b,
        };
        // Only keys up to where both pages have looked are complete.
        let bound = match (own.next, rows.next) {
            (Some(a), Some(b)) => Some(if before(&a, &b) { a } else { b }),
            (a, b) => a.or(b),
        };
        let items = own.items.into_iter().chain(rows.items);
        let mut keys: Vec<Box<[u8]>> = items
            .map(|item| item.key)
            .filter(|key| bound.as_ref().is_none_or(|bound| !before(bound, key)))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        if self.direction == Direction::Reverse {
            keys.reverse();
        }
        Ok((keys, bound))
    }
}

/// Whether an entry left at `now` for good.
pub fn has_expired(entry: &Entry, now: Micros) -> bool {
    expires(entry) <= now
}
