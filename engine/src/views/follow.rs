//! What a change to a view's source does to the view, at the same LSN.

use super::old::{self, Before};
use super::{Made, RESULTS, Stale, View, incremental};
use crate::codec::{Decoder, order, put_bytes, put_varint};
use crate::error::{Error, Result};
use crate::log::Lsn;
use crate::lookup::{Change, Look, Operation, Tree};
use crate::ordered::{Entry, Slot};
use crate::schema::{Function, StructureId};

/// (source, view), for each view.
pub type Views = [(StructureId, StructureId)];

/// A change of one document of `source`; `gone`: what was there may not be answered any more.
pub(super) struct Moved<'a> {
    pub key: &'a [u8],
    pub old: Option<&'a Before>,
    pub new: Option<&'a [u8]>,
    pub lsn: Lsn,
    pub gone: bool,
}

pub(super) fn of_source(views: &Views, source: StructureId) -> impl Iterator<Item = StructureId> {
    views.iter().filter(move |(from, _)| *from == source).map(|(_, view)| *view)
}

/// Takes in that a document of `source` became `new` at `lsn`; `None`: it was deleted or
/// superseded.
pub fn changed(
    state: &impl Change,
    views: &Views,
    source: StructureId,
    key: &[u8],
    old: Option<&Before>,
    new: Option<&[u8]>,
    lsn: Lsn,
) -> Result<()> {
    moved(state, views, source, &Moved { key, old, new, lsn, gone: new.is_none() })
}

pub(super) fn moved(
    state: &impl Change,
    views: &Views,
    source: StructureId,
    change: &Moved<'_>,
) -> Result<()> {
    for id in of_source(views, source) {
        if !state.changes(id) {
            continue;
        }
        let schema = state.schema();
        let Some(view) = View::of(schema, id) else { continue };
        match view.function {
            Function::Custom => regroup(state, views, &view, change)?,
            _ => incremental::moved(state, views, &view, change)?,
        }
    }
    Ok(())
}

fn regroup(state: &impl Change, views: &Views, view: &View<'_>, change: &Moved<'_>) -> Result<()> {
    let before = old::group(state, view, change)?;
    let after = change.new.and_then(|new| view.group_of(change.key, new));
    let joined = match &before {
        Some(group) => joined(state, view, group, change.key)?,
        None => 0,
    };
    if before != after {
        if let Some(group) = &before {
            leave(state, view, group, change.key)?;
        }
        if let Some(group) = &after {
            join(state, view, group, change.key)?;
        }
        if let Some(group) = &before {
            lost(
                state,
                views,
                view,
                &Place { group: group.clone(), joined, left: Lsn::MAX },
                change,
            )?;
        }
    }
    if change.gone {
        drop_left(state, views, view, change)?;
    } else if let Some(group) = before.filter(|before| Some(before) != after.as_ref()) {
        note_left(state, view, Place { group, joined, left: change.lsn }, change)?;
    }
    if let Some(group) = &after {
        mark(state, view, group, change, false)?;
    }
    Ok(())
}

/// Since when a document is in a group.
fn joined(state: &impl Look, view: &View<'_>, group: &[u8], key: &[u8]) -> Result<Lsn> {
    let found = state.get(view.members(), &member_key(group, key))?;
    Ok(found.map_or(0, |version| version.lsn))
}

/// A group that a document was in, and from when to when.
struct Place {
    group: Vec<u8>,
    joined: Lsn,
    left: Lsn,
}

impl Place {
    /// Whether the document went into the result that stands.
    fn is_in_result(&self, state: &impl Look, view: &View<'_>) -> Result<bool> {
        let Some(version) = state.get(view.results(), &self.group)? else { return Ok(false) };
        let input = Made::decode(&version.entry.meta)?.input;
        Ok((self.joined..self.left).contains(&input))
    }
}

/// A document is in this group no more.
fn lost(
    state: &impl Change,
    views: &Views,
    view: &View<'_>,
    place: &Place,
    change: &Moved<'_>,
) -> Result<()> {
    if is_empty(state, view, &place.group)? {
        drop_result(state, views, view, &place.group, change.lsn)?;
        // With the staleness goes what it knew of removals: the tombstone tells a result that is
        // under way that it comes too late.
        state.set(view.results(), &place.group, None);
        return clear(state, view, &place.group);
    }
    if change.gone && place.is_in_result(state, view)? {
        drop_result(state, views, view, &place.group, change.lsn)?;
    }
    mark(state, view, &place.group, change, change.gone)
}

/// Groups that a document left: their results may still hold it.
fn left(state: &impl Look, view: &View<'_>, key: &[u8]) -> Result<Vec<Place>> {
    let Some(version) = state.get(view.left(), key)? else { return Ok(Vec::new()) };
    let mut decoder = Decoder::new(&version.entry.meta);
    let mut places = Vec::new();
    while !decoder.is_empty() {
        let (joined, left) = (decoder.varint()?, decoder.varint()?);
        places.push(Place { group: decoder.bytes()?.to_vec(), joined, left });
    }
    Ok(places)
}

/// Remembers that a document left a group, until a newer result of that is there.
fn note_left(state: &impl Change, view: &View<'_>, place: Place, change: &Moved<'_>) -> Result<()> {
    let mut places = Vec::new();
    for known in left(state, view, change.key)? {
        let newer = match state.get(view.results(), &known.group)? {
            Some(version) => Made::decode(&version.entry.meta)?.input >= known.left,
            None => false,
        };
        if !newer {
            places.push(known);
        }
    }
    // One place for a group, however often it was left since: a span too wide drops a result too
    // many.
    match places.iter_mut().find(|known| known.group == place.group) {
        Some(known) => {
            known.joined = known.joined.min(place.joined);
            known.left = place.left;
        }
        None => places.push(place),
    }
    let mut meta = Vec::new();
    for Place { group, joined, left } in places {
        put_varint(&mut meta, joined);
        put_varint(&mut meta, left);
        put_bytes(&mut meta, &group);
    }
    let entry = (!meta.is_empty()).then(|| Entry::with_meta(meta, Slot::None));
    state.set(view.left(), change.key, entry);
    state.prune(view.left(), change.key);
    Ok(())
}

/// A document that may be answered no more goes from the results of groups it had left, too, and
/// from those under way.
fn drop_left(
    state: &impl Change,
    views: &Views,
    view: &View<'_>,
    change: &Moved<'_>,
) -> Result<()> {
    let places = left(state, view, change.key)?;
    if places.is_empty() {
        return Ok(());
    }
    for place in places {
        let held = place.is_in_result(state, view)?;
        if held {
            drop_result(state, views, view, &place.group, change.lsn)?;
        }
        if (held || stale_of(state, view, &place.group)?.is_some())
            && !is_empty(state, view, &place.group)?
        {
            mark(state, view, &place.group, change, true)?;
        }
    }
    state.set(view.left(), change.key, None);
    state.prune(view.left(), change.key);
    Ok(())
}

pub(super) fn member_key(group: &[u8], key: &[u8]) -> Vec<u8> {
    let mut member = Vec::with_capacity(group.len() + key.len() + 3);
    member.extend_from_slice(group);
    order::put_binary(&mut member, key);
    member
}

/// How many documents a group has.
fn size(state: &impl Look, view: &View<'_>, group: &[u8]) -> Result<u64> {
    let Some(version) = state.get(view.sizes(), group)? else { return Ok(0) };
    Decoder::new(&version.entry.meta).varint()
}

fn is_empty(state: &impl Look, view: &View<'_>, group: &[u8]) -> Result<bool> {
    Ok(size(state, view, group)? == 0)
}

/// A document joins a group.
fn join(state: &impl Change, view: &View<'_>, group: &[u8], key: &[u8]) -> Result<()> {
    state.set(view.members(), &member_key(group, key), Some(Entry::mark()));
    resize(state, view, group, 1)
}

fn leave(state: &impl Change, view: &View<'_>, group: &[u8], key: &[u8]) -> Result<()> {
    state.set(view.members(), &member_key(group, key), None);
    resize(state, view, group, -1)
}

fn resize(state: &impl Change, view: &View<'_>, group: &[u8], by: i64) -> Result<()> {
    let size = size(state, view, group)?.saturating_add_signed(by);
    let entry = (size > 0).then(|| {
        let mut meta = Vec::with_capacity(4);
        put_varint(&mut meta, size);
        Entry::with_meta(meta, Slot::None)
    });
    state.set(view.sizes(), group, entry);
    state.prune(view.sizes(), group);
    Ok(())
}

fn stale_of(state: &impl Look, view: &View<'_>, group: &[u8]) -> Result<Option<Stale>> {
    let found = state.get(view.staleness(), group)?;
    found.map(|version| Stale::of(&version.entry)).transpose()
}

fn mark(
    state: &impl Change,
    view: &View<'_>,
    group: &[u8],
    change: &Moved<'_>,
    gone: bool,
) -> Result<()> {
    let lsn = change.lsn;
    let known = stale_of(state, view, group)?;
    let known = known.unwrap_or(Stale {
        since: lsn,
        changed: 0,
        removed: 0,
        changes: 0,
        bytes: 0,
        routine: false,
    });
    let stale = Stale {
        changed: lsn,
        removed: if gone { lsn } else { known.removed },
        changes: known.changes + u64::from(known.changed != lsn),
        bytes: known.bytes.saturating_add(change.new.map_or(0, |new| new.len() as u64)),
        routine: known.routine || !state.is_background(),
        ..known
    };
    state.set(view.staleness(), group, Some(stale.entry()));
    state.prune(view.staleness(), group);
    state.touch(view.id, group);
    Ok(())
}

fn clear(state: &impl Change, view: &View<'_>, group: &[u8]) -> Result<()> {
    if state.get(view.staleness(), group)?.is_some() {
        state.set(view.staleness(), group, None);
        state.prune(view.staleness(), group);
    }
    Ok(())
}

/// A stored document of a view, as a source of others.
fn before(state: &impl Look, view: StructureId, group: &[u8]) -> Result<Option<Before>> {
    let Some(version) = state.get(Tree::new(view, RESULTS), group)? else { return Ok(None) };
    Before::of(state, &version).map(Some)
}

fn is_source(views: &Views, view: StructureId) -> bool {
    of_source(views, view).next().is_some()
}

fn drop_result(
    state: &impl Change,
    views: &Views,
    view: &View<'_>,
    group: &[u8],
    lsn: Lsn,
) -> Result<()> {
    if state.get(view.results(), group)?.is_none() {
        return Ok(());
    }
    let old = if is_source(views, view.id) { before(state, view.id, group)? } else { None };
    state.set(view.results(), group, None);
    match &old {
        Some(old) => changed(state, views, view.id, group, Some(old), None, lsn),
        None => Ok(()),
    }
}

/// Takes in a caller's result, unless it came too late.
pub fn result(
    state: &impl Change,
    views: &Views,
    view: &View<'_>,
    operation: &Operation<'_>,
    lsn: Lsn,
) -> Result<()> {
    let group = operation.key();
    let made = Made::decode(operation.meta())?;
    let Some(value) = operation.value() else {
        return Err(Error::corruption("a view's result without a value"));
    };
    let stale = stale_of(state, view, group)?;
    let current = match state.state(view.results(), group)? {
        Some((_, Some(entry))) => Made::decode(&entry.meta)?.input,
        Some((dropped, None)) => dropped,
        None => 0,
    };
    let too_late = current > made.input
        || stale.is_some_and(|stale| stale.removed > made.input)
        || state.forgotten(view.id, group, made.input.saturating_add(1))?
        || is_empty(state, view, group)?;
    if too_late {
        return Ok(());
    }
    let old = if is_source(views, view.id) { before(state, view.id, group)? } else { None };
    let entry = Entry::with_meta(operation.meta(), operation.slot.clone());
    state.set(view.results(), group, Some(entry));
    if let Some(stale) = stale {
        settle(state, view, group, &stale, &made)?;
    }
    changed(state, views, view.id, group, old.as_ref(), Some(value), lsn)
}

/// What a result leaves of a group's staleness.
fn settle(
    state: &impl Change,
    view: &View<'_>,
    group: &[u8],
    stale: &Stale,
    made: &Made,
) -> Result<()> {
    if made.definition != view.definition() {
        return Ok(());
    }
    if stale.changed <= made.input {
        return clear(state, view, group);
    }
    let left = Stale {
        since: stale.since.max(made.input + 1),
        changes: stale.changes.saturating_sub(made.covered).max(1),
        ..*stale
    };
    state.set(view.staleness(), group, Some(left.entry()));
    state.prune(view.staleness(), group);
    Ok(())
}

/// Takes in that every version of a source's key is forgotten: `versions` are those there were.
/// No result that any of them went into is answered at any LSN.
pub fn forgotten(
    state: &impl Change,
    views: &Views,
    source: StructureId,
    key: &[u8],
    versions: &[Before],
    lsn: Lsn,
) -> Result<()> {
    for id in of_source(views, source) {
        if !state.changes(id) {
            continue;
        }
        let Some(view) = View::of(state.schema(), id) else { continue };
        if view.function.is_incremental() {
            let old = versions.last().filter(|_| is_current(state, source, key));
            let gone = Moved { key, old, new: None, lsn, gone: true };
            incremental::moved(state, views, &view, &gone)?;
            continue;
        }
        let mut groups = old::groups(state, &view, key, versions)?;
        // Versions may be gone that a result was made of.
        groups.extend(left(state, &view, key)?.into_iter().map(|place| place.group));
        state.erase(view.left(), key);
        for group in groups {
            let gone = Moved { key, old: None, new: None, lsn, gone: true };
            dissolve(state, views, &view, &group, &gone)?;
        }
    }
    Ok(())
}

fn is_current(state: &impl Look, source: StructureId, key: &[u8]) -> bool {
    matches!(state.get(Tree::new(source, 0), key), Ok(Some(_)))
}

fn dissolve(
    state: &impl Change,
    views: &Views,
    view: &View<'_>,
    group: &[u8],
    gone: &Moved<'_>,
) -> Result<()> {
    if state.get(view.members(), &member_key(group, gone.key))?.is_some() {
        leave(state, view, group, gone.key)?;
    }
    if is_source(views, view.id) {
        let versions = state.versions(view.results(), group)?;
        let results = versions.iter().map(|version| Before::of(state, version));
        let results = results.collect::<Result<Vec<_>>>()?;
        forgotten(state, views, view.id, group, &results, gone.lsn)?;
    }
    state.erase(view.results(), group);
    state.mask(view.id, group);
    if is_empty(state, view, group)? {
        return clear(state, view, group);
    }
    mark(state, view, group, gone, true)
}

/// Where a value of the engine's own making is kept.
pub(super) fn inline(document: Vec<u8>) -> Slot {
    Slot::Inline(document.into())
}
