//! A row that a durable commit replaces or removes, as it was before.
//!
//! Its bytes may be lost with a damaged part of the log. The commit is taken in all the same: to
//! refuse it would make the database one that cannot be opened. What followed from the row (index
//! entries, unique values, what it is about) is then found where it was put, by looking at every
//! entry; no entry stays behind that a read would take for one of the new row.

use std::sync::Arc;

use super::{Derived, Which, put_key, query, subject};
use crate::error::{ErrorKind, Result};
use crate::lookup::{Look, Tree, ending};
use crate::ordered::Slot;

pub(super) enum Old {
    Absent,
    Known(Arc<[u8]>),
    Lost,
}

/// The bytes of an old value; `None`: they are lost.
pub fn old_row(state: &impl Look, slot: &Slot) -> Result<Option<Arc<[u8]>>> {
    match state.value(slot) {
        Ok(row) => Ok(Some(row)),
        Err(error) if error.kind() == ErrorKind::Corruption && !error.is_derived() => Ok(None),
        Err(error) => Err(error),
    }
}

impl Old {
    pub fn of(state: &impl Look, derived: &Derived<'_>, key: &[u8]) -> Result<Self> {
        let Some(version) = state.get(derived.rows(), key)? else { return Ok(Self::Absent) };
        Ok(old_row(state, &version.entry.slot)?.map_or(Self::Lost, Self::Known))
    }

    /// The entries it has in these trees.
    pub fn entries(
        &self,
        state: &impl Look,
        derived: &Derived<'_>,
        which: Which,
        key: &[u8],
    ) -> Result<Vec<(Tree, Vec<u8>)>> {
        match self {
            Self::Absent => Ok(Vec::new()),
            Self::Known(row) => Ok(derived.entries(which, key, row)),
            Self::Lost => found(derived, which, key, |tree, end| ending(state, tree, end)),
        }
    }

    /// What it is about.
    pub fn subject(
        &self,
        state: &impl Look,
        derived: &Derived<'_>,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Absent => Ok(None),
            Self::Known(row) => Ok(derived.subject(row)),
            Self::Lost => subject::of_key(state, derived, key),
        }
    }
}

/// The entries of a key in these trees, of all that `ending` tells.
pub(super) fn found(
    derived: &Derived<'_>,
    which: Which,
    key: &[u8],
    ending: impl Fn(Tree, &[u8]) -> Result<Vec<Box<[u8]>>>,
) -> Result<Vec<(Tree, Vec<u8>)>> {
    let mut end = Vec::with_capacity(key.len() + 3);
    put_key(&mut end, key);
    let mut found = Vec::new();
    for (tree, fields) in derived.trees(which) {
        for entry in ending(tree, &end)? {
            // Another's key may end like this one.
            if entry[query::fields_end(&entry, fields)?..] == end[..] {
                found.push((tree, entry.into_vec()));
            }
        }
    }
    Ok(found)
}

/// The unique values that a row has, with the number of the constraint of each.
pub fn unique_values(
    state: &impl Look,
    derived: &Derived<'_>,
    key: &[u8],
) -> Result<Vec<(u16, Vec<u8>)>> {
    let old = Old::of(state, derived, key)?;
    let entries = old.entries(state, derived, Which::Constraints, key)?;
    let value = |(tree, mut entry): (Tree, Vec<u8>)| {
        let number = tree.number - derived.unique(0).number;
        entry.truncate(query::fields_end(&entry, derived.unique[usize::from(number)].len())?);
        Ok((number, entry))
    };
    entries.into_iter().map(value).collect()
}
