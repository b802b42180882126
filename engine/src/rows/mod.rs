//! Rows: documents by key, with secondary and unique indexes.
//!
//! Trees: 0 by key; then one for each index, then one for each unique constraint. An index entry's
//! key is the order-preserving encoding of its fields and of the row's key; a unique entry's key is
//! that of its fields alone, its meta the row's key. Invariants:
//! 1. Index entries change only where the indexed fields did.
//! 2. A unique entry is taken away only by the row that owns it.
//! 3. What an index says is checked against the row before it is answered.

pub mod query;
pub mod read;

use crate::codec::msgpack::{self, Shape};
use crate::codec::order;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::lookup::{Change, Look, Operation, Tree};
use crate::ordered::Entry;
use crate::schema::{Kind, RowCodec, Schema, Structure, StructureId};

/// What is derived from a row, as its structure declares it.
pub struct Derived<'a> {
    pub structure: StructureId,
    pub indexes: &'a [Vec<String>],
    pub unique: &'a [Vec<String>],
    pub codec: RowCodec,
}

impl<'a> Derived<'a> {
    pub fn of(structure: &'a Structure) -> Option<Self> {
        match &structure.kind {
            Kind::Rows { indexes, unique, codec } => {
                Some(Self { structure: structure.id, indexes, unique, codec: *codec })
            }
            _ => None,
        }
    }

    pub fn rows(&self) -> Tree {
        Tree::new(self.structure, 0)
    }

    pub fn index(&self, number: usize) -> Tree {
        Tree::new(self.structure, 1 + number as u16)
    }

    pub fn unique(&self, number: usize) -> Tree {
        Tree::new(self.structure, 1 + (self.indexes.len() + number) as u16)
    }

    fn is_plain(&self) -> bool {
        self.indexes.is_empty() && self.unique.is_empty()
    }

    /// The entry of one index for one row, `None` where the row is outside the index. A NaN is
    /// refused when a row is put (`check`); one from before the index was declared is outside it.
    pub fn index_entry(&self, number: usize, key: &[u8], row: &[u8]) -> Option<Vec<u8>> {
        let mut entry = query::index_key(&self.indexes[number], row).ok().flatten()?;
        put_key(&mut entry, key);
        Some(entry)
    }

    pub fn unique_entry(&self, number: usize, row: &[u8]) -> Option<Vec<u8>> {
        query::unique_key(&self.unique[number], row).ok().flatten()
    }
}

/// A row's key behind the fields of an index entry.
pub fn put_key(out: &mut Vec<u8>, key: &[u8]) {
    let text = std::str::from_utf8(key).expect("keys of indexed rows are text");
    order::put_text(out, text);
}

/// Checks a row before it enters a transaction: its shape, its indexed fields.
pub fn check(derived: &Derived<'_>, row: &[u8]) -> Result<()> {
    if row.len() > limits::VALUE_BYTES_MAX {
        return Err(Error::limit(format!(
            "the row is {} bytes long, at most {} are possible: store the large part in parts",
            row.len(),
            limits::VALUE_BYTES_MAX
        )));
    }
    if derived.codec == RowCodec::Raw {
        return Ok(());
    }
    msgpack::check(row, Shape::Document)?;
    for fields in derived.indexes.iter().chain(derived.unique) {
        if let Some(entry) = query::index_key(fields, row)?
            && entry.len() > limits::KEY_BYTES_MAX
        {
            return Err(Error::limit(format!(
                "the indexed fields {fields:?} take {} bytes, at most {} are possible",
                entry.len(),
                limits::KEY_BYTES_MAX
            )));
        }
    }
    Ok(())
}

/// Takes in a put.
pub fn put(state: &impl Change, derived: &Derived<'_>, operation: &Operation<'_>) -> Result<()> {
    let key = operation.key();
    let row = operation.value().expect("a put has a value");
    change_indexes(state, derived, key, Some(row))?;
    state.set(derived.rows(), key, Some(Entry::with_slot(operation.slot.clone())));
    Ok(())
}

/// Takes in a delete; `true` if there was a row.
pub fn delete(state: &impl Change, derived: &Derived<'_>, key: &[u8]) -> Result<bool> {
    if state.get(derived.rows(), key).is_none() {
        return Ok(false);
    }
    change_indexes(state, derived, key, None)?;
    state.set(derived.rows(), key, None);
    Ok(true)
}

/// Takes in a forget: every version goes, and every index entry any of them had.
pub fn forget(state: &impl Change, derived: &Derived<'_>, key: &[u8]) -> Result<()> {
    if !derived.is_plain() {
        for version in state.versions(derived.rows(), key) {
            let row = state.value(&version.entry.slot)?;
            for number in 0..derived.indexes.len() {
                if let Some(entry) = derived.index_entry(number, key, &row) {
                    state.erase(derived.index(number), &entry);
                }
            }
            for number in 0..derived.unique.len() {
                if let Some(entry) = derived.unique_entry(number, &row)
                    && owner(state, derived.unique(number), &entry).as_deref() == Some(key)
                {
                    state.set(derived.unique(number), &entry, None);
                }
            }
        }
    }
    state.erase(derived.rows(), key);
    Ok(())
}

fn change_indexes(
    state: &impl Change,
    derived: &Derived<'_>,
    key: &[u8],
    new: Option<&[u8]>,
) -> Result<()> {
    if derived.is_plain() {
        return Ok(());
    }
    let old = match state.get(derived.rows(), key) {
        Some(version) => Some(state.value(&version.entry.slot)?),
        None => None,
    };
    for number in 0..derived.indexes.len() {
        let entry_of = |row| derived.index_entry(number, key, row);
        let (before, after) = (old.as_deref().and_then(entry_of), new.and_then(entry_of));
        if before == after {
            continue;
        }
        if let Some(before) = before {
            state.set(derived.index(number), &before, None);
        }
        if let Some(after) = after {
            state.set(derived.index(number), &after, Some(Entry::mark()));
        }
    }
    for number in 0..derived.unique.len() {
        let tree = derived.unique(number);
        let entry_of = |row| derived.unique_entry(number, row);
        let (before, after) = (old.as_deref().and_then(entry_of), new.and_then(entry_of));
        if before != after
            && let Some(before) = before
            && owner(state, tree, &before).as_deref() == Some(key)
        {
            state.set(tree, &before, None);
        }
        if let Some(after) = after
            && owner(state, tree, &after).as_deref() != Some(key)
        {
            state.set(tree, &after, Some(Entry::with_meta(key, crate::ordered::Slot::None)));
        }
    }
    Ok(())
}

/// The key of the row that has a unique value.
pub fn owner(state: &(impl Look + ?Sized), tree: Tree, entry: &[u8]) -> Option<Box<[u8]>> {
    state.get(tree, entry).map(|version| version.entry.meta)
}

/// The rows structure of this name, which `rows=` and `source=` refer to.
pub fn named<'a>(schema: &'a Schema, name: &str) -> Option<Derived<'a>> {
    Derived::of(schema.named(name)?)
}

/// Whether a row's unique values are its own at the end of a transaction: `base` is the state it
/// began with, `state` sees its writes, and `claim` remembers the values its own rows take.
pub fn check_unique(
    base: &impl Look,
    state: &impl Look,
    derived: &Derived<'_>,
    key: &[u8],
    row: &[u8],
    mut claim: impl FnMut(u16, Vec<u8>) -> Option<Box<[u8]>>,
) -> Result<()> {
    for number in 0..derived.unique.len() {
        let Some(entry) = derived.unique_entry(number, row) else { continue };
        let taken = |other: &[u8]| {
            Err(Error::new(
                ErrorKind::Unique,
                format!(
                    "{:?} of the row {:?} belongs to the row {:?} already; nothing was written",
                    derived.unique[number],
                    String::from_utf8_lossy(key),
                    String::from_utf8_lossy(other)
                ),
            ))
        };
        if let Some(other) = owner(base, derived.unique(number), &entry)
            && *other != *key
            && still_has(state, derived, number, &other, &entry)?
        {
            return taken(&other);
        }
        if let Some(other) = claim(number as u16, entry)
            && *other != *key
        {
            return taken(&other);
        }
    }
    Ok(())
}

fn still_has(
    state: &impl Look,
    derived: &Derived<'_>,
    number: usize,
    key: &[u8],
    entry: &[u8],
) -> Result<bool> {
    let Some(version) = state.get(derived.rows(), key) else { return Ok(false) };
    let row = state.value(&version.entry.slot)?;
    Ok(derived.unique_entry(number, &row).as_deref() == Some(entry))
}
