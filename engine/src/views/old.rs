//! What a document was to a view before it changed: told by its bytes or, where those are lost with
//! a damaged part of the log, by where its key is among the members, all of which are looked at.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::exact::Exact;
use super::follow::Moved;
use super::{View, incremental};
use crate::codec::order;
use crate::error::Result;
use crate::log::Lsn;
use crate::lookup::{Change, Look, Tree, ending};
use crate::ordered::Version;
use crate::rows::old_row;
use crate::schema::Function;

/// A version of a source's document that a change takes the place of.
#[derive(Clone)]
pub struct Before {
    pub lsn: Lsn,
    /// `None`: its bytes are lost.
    pub document: Option<Arc<[u8]>>,
}

impl Before {
    pub fn of(state: &impl Look, version: &Version) -> Result<Self> {
        Ok(Self { lsn: version.lsn, document: old_row(state, &version.entry.slot)? })
    }
}

/// A place among the members, and the group it is in.
struct Place {
    group: Vec<u8>,
    member: Box<[u8]>,
}

/// Where a key is, of all that `ending` tells.
fn places(
    view: &View<'_>,
    key: &[u8],
    ending: impl Fn(Tree, &[u8]) -> Result<Vec<Box<[u8]>>>,
) -> Result<Vec<Place>> {
    let mut end = Vec::with_capacity(key.len() + 3);
    order::put_binary(&mut end, key);
    let mut places = Vec::new();
    for member in ending(view.members(), &end)? {
        let group = incremental::group_at(view, &member)?;
        if incremental::key_at(view, &group, &member)? == key {
            places.push(Place { group, member });
        }
    }
    Ok(places)
}

fn place_of(state: &impl Look, view: &View<'_>, key: &[u8]) -> Result<Option<Place>> {
    // A key is in one group at a time.
    Ok(places(view, key, |tree, end| ending(state, tree, end))?.pop())
}

/// The group it was in.
pub(super) fn group(
    state: &impl Look,
    view: &View<'_>,
    change: &Moved<'_>,
) -> Result<Option<Vec<u8>>> {
    let Some(old) = change.old else { return Ok(None) };
    match &old.document {
        Some(document) => Ok(view.group_of(change.key, document)),
        None => Ok(place_of(state, view, change.key)?.map(|place| place.group)),
    }
}

/// Its group and what it added to that; no amount: that is lost.
pub(super) fn share(
    state: &impl Look,
    view: &View<'_>,
    change: &Moved<'_>,
) -> Result<Option<(Vec<u8>, Option<Exact>)>> {
    let Some(old) = change.old else { return Ok(None) };
    let Some(document) = &old.document else {
        let amount = matches!(view.function, Function::Count).then(Exact::default);
        return Ok(place_of(state, view, change.key)?.map(|place| (place.group, amount)));
    };
    let share = incremental::share(view, change.key, document);
    Ok(share.map(|(group, amount)| (group, Some(amount))))
}

/// Where it stood.
pub(super) fn place(
    state: &impl Look,
    view: &View<'_>,
    change: &Moved<'_>,
) -> Result<Option<Vec<u8>>> {
    let Some(old) = change.old else { return Ok(None) };
    match &old.document {
        Some(document) => Ok(incremental::place(view, change.key, old.lsn, document)),
        None => Ok(place_of(state, view, change.key)?.map(|place| place.member.into_vec())),
    }
}

/// Every group that one of these versions was in.
pub(super) fn groups(
    state: &impl Change,
    view: &View<'_>,
    key: &[u8],
    versions: &[Before],
) -> Result<BTreeSet<Vec<u8>>> {
    let mut groups = BTreeSet::new();
    for before in versions {
        let then = |tree, end: &[u8]| state.ending_at(before.lsn, tree, end);
        match &before.document {
            Some(document) => groups.extend(view.group_of(key, document)),
            None => groups.extend(places(view, key, then)?.into_iter().map(|place| place.group)),
        }
    }
    Ok(groups)
}
