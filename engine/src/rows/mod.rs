//! Rows: documents by key, with secondary and unique indexes.
//!
//! Trees: 0 by key; then one for each index, then one for each unique constraint, then one by what
//! rows are about, where rows supersede each other (`subject`). An entry's key is the
//! order-preserving encoding of its fields and then of the row's key, under a constraint, too: so
//! within a transaction two rows may have one value for a while, and none takes the other's entry
//! away. Invariants:
//! 1. Entries change only where the indexed fields did.
//! 2. At the end of every commit at most one row has a unique value.
//! 3. What an index says is checked against the row before it is answered.

mod old;
pub mod query;
pub mod read;
mod subject;

pub use old::{old_row, unique_values};
pub use subject::{contradicted, keys_of as keys_of_subject};

use old::Old;

use crate::codec::msgpack::{self, Shape};
use crate::codec::order;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::lookup::{Change, Look, Operation, Tree};
use crate::ordered::{Direction, Entry, Range};
use crate::sabotage::{Bug, is_planted};
use crate::schema::{Kind, RowCodec, Schema, Structure, StructureId};

/// What is derived from a row, as its structure declares it.
pub struct Derived<'a> {
    pub structure: StructureId,
    pub indexes: &'a [Vec<String>],
    pub unique: &'a [Vec<String>],
    pub supersede: &'a [String],
    pub codec: RowCodec,
}

impl<'a> Derived<'a> {
    pub fn of(structure: &'a Structure) -> Option<Self> {
        match &structure.kind {
            Kind::Rows { indexes, unique, codec, supersede } => {
                Some(Self { structure: structure.id, indexes, unique, supersede, codec: *codec })
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

    /// By what rows are about.
    pub fn about(&self) -> Tree {
        Tree::new(self.structure, 1 + (self.indexes.len() + self.unique.len()) as u16)
    }

    fn is_plain(&self) -> bool {
        self.indexes.is_empty() && self.is_free()
    }

    /// Whether no commit has to know of its rows but by their keys.
    fn is_free(&self) -> bool {
        self.unique.is_empty() && self.supersede.is_empty()
    }

    /// What a row is about; `None`: rows like it supersede none.
    pub fn subject(&self, row: &[u8]) -> Option<Vec<u8>> {
        if self.supersede.is_empty() {
            return None;
        }
        query::unique_key(self.supersede, row).ok().flatten()
    }

    /// The entry of one index for one row, `None` where the row is outside the index. A NaN is
    /// refused when a row is put (`check`); one from before the index was declared is outside it.
    pub fn index_entry(&self, number: usize, key: &[u8], row: &[u8]) -> Option<Vec<u8>> {
        let mut entry = query::index_key(&self.indexes[number], row).ok().flatten()?;
        put_key(&mut entry, key);
        Some(entry)
    }

    /// The fields of a unique constraint, `None` where the row is outside it.
    pub fn unique_value(&self, number: usize, row: &[u8]) -> Option<Vec<u8>> {
        query::unique_key(&self.unique[number], row).ok().flatten()
    }

    /// These trees, and of how many fields their entries are.
    fn trees(&self, which: Which) -> impl Iterator<Item = (Tree, usize)> {
        let indexes = if which == Which::Constraints { &[][..] } else { self.indexes };
        let unique = if which == Which::Indexes { &[][..] } else { self.unique };
        let indexes = indexes.iter().enumerate();
        let indexes = indexes.map(|(number, fields)| (self.index(number), fields.len()));
        let unique = unique.iter().enumerate();
        indexes.chain(unique.map(|(number, fields)| (self.unique(number), fields.len())))
    }

    /// The entries a row has in these trees.
    fn entries(&self, which: Which, key: &[u8], row: &[u8]) -> Vec<(Tree, Vec<u8>)> {
        let mut entries = Vec::new();
        if which != Which::Constraints {
            entries.extend((0..self.indexes.len()).filter_map(|number| {
                Some((self.index(number), self.index_entry(number, key, row)?))
            }));
        }
        if which != Which::Indexes {
            entries.extend((0..self.unique.len()).filter_map(|number| {
                let mut entry = self.unique_value(number, row)?;
                put_key(&mut entry, key);
                Some((self.unique(number), entry))
            }));
        }
        entries
    }
}

/// Which of a row's entries: those that only reads need, those that commits rely on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Indexes,
    Constraints,
    All,
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
    let about = (!derived.supersede.is_empty()).then_some(derived.supersede);
    let all = derived.indexes.iter().chain(derived.unique).map(|fields| &fields[..]).chain(about);
    for fields in all {
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
    if state.get(derived.rows(), key)?.is_none() {
        return Ok(false);
    }
    change_indexes(state, derived, key, None)?;
    state.set(derived.rows(), key, None);
    Ok(true)
}

/// Takes in a forget: every version goes, and every index entry any of them had.
pub fn forget(state: &impl Change, derived: &Derived<'_>, key: &[u8]) -> Result<()> {
    if !derived.is_plain() {
        subject::change(state, derived, key, &Old::of(state, derived, key)?, None)?;
        for version in state.versions(derived.rows(), key)? {
            let then = |tree, end: &[u8]| state.ending_at(version.lsn, tree, end);
            let entries = match old_row(state, &version.entry.slot)? {
                Some(row) => derived.entries(Which::All, key, &row),
                None => old::found(derived, Which::All, key, then)?,
            };
            entries.into_iter().for_each(|(tree, entry)| state.erase(tree, &entry));
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
    let later = !derived.indexes.is_empty() && state.defer(derived.structure, key);
    if later && derived.is_free() {
        return Ok(());
    }
    let which = if later { Which::Constraints } else { Which::All };
    let old = Old::of(state, derived, key)?;
    subject::change(state, derived, key, &old, new)?;
    let before = old.entries(state, derived, which, key)?;
    let after = new.map(|row| derived.entries(which, key, row)).unwrap_or_default();
    if !before.is_empty() && new.is_some() && is_planted(Bug::IndexNotUpdatedOnOverwrite) {
        return Ok(());
    }
    each_change(before, after, |tree, entry, made| state.set(tree, &entry, made));
    Ok(())
}

fn each_change(
    before: Vec<(Tree, Vec<u8>)>,
    after: Vec<(Tree, Vec<u8>)>,
    mut set: impl FnMut(Tree, Vec<u8>, Option<Entry>),
) {
    let gone: Vec<_> = before.iter().filter(|entry| !after.contains(entry)).cloned().collect();
    gone.into_iter().for_each(|(tree, entry)| set(tree, entry, None));
    let new = after.into_iter().filter(|entry| !before.contains(entry));
    new.for_each(|(tree, entry)| set(tree, entry, Some(Entry::mark())));
}

/// Sees to the index entries of a row that were left for later: `before` its change, and `after`;
/// `false`: the bytes before are lost, and the entries of earlier changes are not all `made`, so
/// that it cannot be told which it had.
pub fn reindex(
    before: &impl Look,
    after: &impl Look,
    derived: &Derived<'_>,
    key: &[u8],
    made: bool,
    set: impl FnMut(Tree, Vec<u8>, Option<Entry>),
) -> Result<bool> {
    let old = Old::of(before, derived, key)?;
    if matches!(old, Old::Lost) && !made {
        return Ok(false);
    }
    let new = match Old::of(after, derived, key)? {
        Old::Known(row) => derived.entries(Which::Indexes, key, &row),
        // Of a row that is lost by now nobody knows its entries.
        Old::Absent | Old::Lost => Vec::new(),
    };
    each_change(old.entries(before, derived, Which::Indexes, key)?, new, set);
    Ok(true)
}

/// The key of the row that has a unique value.
fn owner(state: &(impl Look + ?Sized), tree: Tree, value: &[u8]) -> Result<Option<Vec<u8>>> {
    let range = Range::prefix(value);
    let mut after: Option<Box<[u8]>> = None;
    loop {
        let page = state.page(tree, &range, Direction::Forward, after.as_deref(), 8)?;
        if let Some(item) = page.items.first() {
            let key = order::take_text(&mut &item.key[value.len()..])?;
            return Ok(Some(key.into_owned().into_bytes()));
        }
        if page.next.is_none() {
            return Ok(None);
        }
        after = page.next;
    }
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
        let Some(value) = derived.unique_value(number, row) else { continue };
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
        if let Some(other) = owner(base, derived.unique(number), &value)?
            && *other != *key
            && still_has(state, derived, number, &other, &value)?
        {
            return taken(&other);
        }
        if let Some(other) = claim(number as u16, value)
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
    value: &[u8],
) -> Result<bool> {
    let Some(version) = state.get(derived.rows(), key)? else { return Ok(false) };
    let row = state.value(&version.entry.slot)?;
    Ok(derived.unique_value(number, &row).as_deref() == Some(value))
}
