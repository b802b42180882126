//! What rows are about, and which of them speak of it now.
//!
//! One entry for each subject, its meta the keys of the current rows about it, in order: there is
//! one, unless others say the same. It has no history: only who puts a row asks for it.

use std::sync::Arc;

use super::Derived;
use super::old::{Old, old_row};
use crate::codec::{Decoder, msgpack, put_bytes};
use crate::error::Result;
use crate::log::Lsn;
use crate::lookup::{Change, Look, each};
use crate::ordered::{Entry, Range, Slot};

/// A row that another takes the place of: its key, and the LSN that wrote it.
pub struct Older {
    pub key: Vec<u8>,
    pub lsn: Lsn,
    pub row: Arc<[u8]>,
}

/// The keys that an entry holds.
pub fn keys_of(meta: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut decoder = Decoder::new(meta);
    let mut keys = Vec::new();
    while !decoder.is_empty() {
        keys.push(decoder.bytes()?.to_vec());
    }
    Ok(keys)
}

fn speaking(state: &impl Look, derived: &Derived<'_>, subject: &[u8]) -> Result<Vec<Vec<u8>>> {
    let found = state.get(derived.about(), subject)?;
    found.map_or(Ok(Vec::new()), |version| keys_of(&version.entry.meta))
}

/// What the row of a key is about, found by looking at every subject.
pub(super) fn of_key(
    state: &impl Look,
    derived: &Derived<'_>,
    key: &[u8],
) -> Result<Option<Vec<u8>>> {
    let mut subject = None;
    if !derived.supersede.is_empty() {
        each(state, derived.about(), &Range::all(), |item| {
            let entry = item.entry.as_ref().expect("pages hold live items");
            if keys_of(&entry.meta)?.iter().any(|known| known == key) {
                subject = Some(item.key.to_vec());
            }
            Ok(())
        })?;
    }
    Ok(subject)
}

/// A row becomes another, comes or goes.
pub(super) fn change(
    state: &impl Change,
    derived: &Derived<'_>,
    key: &[u8],
    old: &Old,
    new: Option<&[u8]>,
) -> Result<()> {
    let before = old.subject(state, derived, key)?;
    let after = new.and_then(|row| derived.subject(row));
    if before == after {
        return Ok(());
    }
    if let Some(subject) = before {
        let mut keys = speaking(state, derived, &subject)?;
        keys.retain(|known| known != key);
        write(state, derived, &subject, &keys);
    }
    if let Some(subject) = after {
        let mut keys = speaking(state, derived, &subject)?;
        if let Err(place) = keys.binary_search_by(|known| known[..].cmp(key)) {
            keys.insert(place, key.to_vec());
        }
        write(state, derived, &subject, &keys);
    }
    Ok(())
}

fn write(state: &impl Change, derived: &Derived<'_>, subject: &[u8], keys: &[Vec<u8>]) {
    let entry = (!keys.is_empty()).then(|| {
        let mut meta = Vec::new();
        keys.iter().for_each(|key| put_bytes(&mut meta, key));
        Entry::with_meta(meta, Slot::None)
    });
    state.set(derived.about(), subject, entry);
    state.prune(derived.about(), subject);
}

/// Current rows about the same thing as `row`, that say otherwise. One whose bytes are lost is not
/// among them: it may say the same. It stays, and is answered as the lost row it is.
pub fn contradicted(state: &impl Look, derived: &Derived<'_>, row: &[u8]) -> Result<Vec<Older>> {
    let Some(subject) = derived.subject(row) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for key in speaking(state, derived, &subject)? {
        let Some(version) = state.get(derived.rows(), &key)? else { continue };
        let Some(old) = old_row(state, &version.entry.slot)? else { continue };
        if !msgpack::same_document(&old, row) {
            found.push(Older { key, lsn: version.lsn, row: old });
        }
    }
    Ok(found)
}
