//! Takes operations into the structures: the one place that knows what an operation touches.
//!
//! The same code runs when a commit is applied, when the log is replayed, when one structure is
//! rebuilt, and over a transaction's own pending writes. What follows from an operation in another
//! structure (a deleted row's vector, a captured event, a cache entry) is derived here, at the same
//! LSN and without log bytes of its own.

use crate::cache;
use crate::context;
use crate::error::{Error, Result};
use crate::events::{self, Positions};
use crate::graph;
use crate::log::Lsn;
use crate::log::record::OpKind;
use crate::lookup::{Change, Operation, Tree};
use crate::ordered::Entry;
use crate::rows::{self, Derived};
use crate::schema::{Kind, RowCodec, Schema, Structure, StructureId};
use crate::views::{self, Before, View};
use crate::{vector, vectors};

/// What a change to one structure entails in others, resolved once per schema.
#[derive(Debug, Default, Clone)]
pub struct Links {
    /// rows → vectors linked to them.
    vectors: Vec<(StructureId, StructureId)>,
    /// rows → caches that fill themselves from them.
    caches: Vec<(StructureId, StructureId)>,
    /// any → events that capture it.
    captures: Vec<(StructureId, StructureId)>,
    /// rows whose versions supersede each other → events that are told of it.
    contradictions: Vec<(StructureId, StructureId)>,
    /// rows whose versions supersede each other → what goes with them.
    superseding: Vec<(StructureId, StructureId)>,
    /// rows or a view → views of it.
    pub views: Vec<(StructureId, StructureId)>,
}

impl Links {
    pub fn of(schema: &Schema) -> Self {
        let mut links = Self::default();
        let id_of = |name: &str| schema.named(name).map(|structure| structure.id);
        for structure in &schema.structures {
            match &structure.kind {
                Kind::Vectors { rows: Some(rows), .. } => {
                    links.vectors.extend(id_of(rows).map(|rows| (rows, structure.id)));
                }
                Kind::Cache { source: Some(source), .. } => {
                    links.caches.extend(id_of(source).map(|rows| (rows, structure.id)));
                }
                Kind::Events { capture } => {
                    let sources = capture.iter().filter_map(|name| id_of(name));
                    links.captures.extend(sources.map(|source| (source, structure.id)));
                }
                Kind::View { source, .. } => {
                    links.views.extend(id_of(source).map(|source| (source, structure.id)));
                }
                _ => {}
            }
        }
        links.note_contradictions(schema);
        links
    }

    /// Events that capture the rows are told what they contradict; where none does, all are.
    fn note_contradictions(&mut self, schema: &Schema) {
        let superseding = schema.structures.iter().filter(|structure| {
            matches!(&structure.kind, Kind::Rows { supersede, .. } if !supersede.is_empty())
        });
        let events = schema.structures.iter().filter(|s| matches!(s.kind, Kind::Events { .. }));
        let events: Vec<StructureId> = events.map(|structure| structure.id).collect();
        for rows in superseding {
            let mut told: Vec<StructureId> = linked(&self.captures, rows.id).collect();
            if told.is_empty() {
                told.clone_from(&events);
            }
            self.contradictions.extend(told.into_iter().map(|events| (rows.id, events)));
            let linked = self.vectors.iter().chain(&self.caches);
            self.superseding.extend(linked.filter(|(from, _)| *from == rows.id));
        }
    }

    /// Structures whose earlier state must be at hand to tell what changes in this one.
    pub fn told_by(&self, structure: StructureId) -> impl Iterator<Item = StructureId> {
        let all = self.captures.iter().chain(&self.contradictions).chain(&self.views);
        let all = all.chain(&self.superseding);
        all.filter(move |(_, to)| *to == structure).map(|(from, _)| *from)
    }

    /// Structures whose state follows from changes to `source`.
    pub fn following(&self, source: StructureId) -> impl Iterator<Item = StructureId> {
        let all = self.vectors.iter().chain(&self.caches).chain(&self.captures);
        let all = all.chain(&self.contradictions).chain(&self.views);
        all.filter(move |(from, _)| *from == source).map(|(_, to)| *to)
    }

    /// Structures that a change to `source` shows in; `gone`: something was deleted, superseded or
    /// forgotten.
    pub fn shown_in(&self, source: StructureId, gone: bool) -> impl Iterator<Item = StructureId> {
        let vectors = self.vectors.iter().filter(move |_| gone);
        let told = self.contradictions.iter().filter(move |_| gone);
        let all = vectors.chain(told).chain(&self.caches).chain(&self.captures);
        all.filter(move |(from, _)| *from == source).map(|(_, to)| *to)
    }

    /// Whether what a row was before it changes must be known.
    fn needs_old(&self, rows: StructureId) -> bool {
        linked(&self.views, rows).next().is_some()
    }
}

fn linked(links: &[(StructureId, StructureId)], from: StructureId) -> impl Iterator<Item = u32> {
    links.iter().filter(move |(source, _)| *source == from).map(|(_, to)| *to)
}

/// Takes in one operation of the commit at `lsn`.
pub fn operate(
    state: &impl Change,
    links: &Links,
    operation: &Operation<'_>,
    lsn: Lsn,
    positions: &mut Positions,
) -> Result<()> {
    let id = operation.op.structure;
    let Some(structure) = state.structure(id) else {
        // Dropped since: the log keeps what was written, no structure shows it.
        return Ok(());
    };
    check(structure, operation)
        .map_err(|error| error.context(format!("LSN {lsn}, {:?}", structure.name)))?;
    let mut changed = true;
    match (&structure.kind, operation.op.kind) {
        (Kind::Events { .. }, OpKind::Append) => {
            events::append(state, operation, lsn, positions)?;
        }
        (_, OpKind::Forget) => return forget(state, links, operation, lsn),
        (Kind::Rows { .. }, OpKind::Put) => put_row(state, links, operation, lsn, positions)?,
        (Kind::Rows { .. }, OpKind::Delete) => {
            changed = delete_row(state, links, id, operation.key(), lsn)?;
        }
        (Kind::View { .. }, OpKind::Put) => {
            if let Some(view) = View::of(state.schema(), id) {
                views::result(state, &links.views, &view, operation, lsn)?;
            }
        }
        (Kind::Vectors { .. }, OpKind::Put) => {
            let bytes = operation.value().expect("a put has a value");
            let entry = Entry::with_slot(operation.slot.clone());
            state.set(Tree::new(id, vectors::KEYS), operation.key(), Some(entry));
            state.put_vector(
                id,
                operation.text_key(),
                &vector::from_bytes(bytes)?,
                &operation.slot,
            );
        }
        (Kind::Vectors { .. }, OpKind::Delete) => {
            changed = delete_vector(state, id, operation.key())?;
        }
        (Kind::Cache { capacity, .. }, _) => cache::apply(state, operation, lsn, *capacity)?,
        (Kind::Context {}, _) => context::apply(state, operation)?,
        (Kind::Graph {}, _) => graph::apply(state, operation)?,
        (kind, operation_kind) => {
            return Err(Error::corruption(format!(
                "LSN {lsn}: {operation_kind:?} is no operation of the {} {:?}",
                kind.name(),
                structure.name
            )));
        }
    }
    if changed {
        for events in linked(&links.captures, id) {
            events::capture(state, events, id, operation, lsn, positions);
        }
    }
    Ok(())
}

/// What was put had this shape, and its checksums held: otherwise another program wrote the log.
fn check(structure: &Structure, operation: &Operation<'_>) -> Result<()> {
    let text = match &structure.kind {
        Kind::Rows { codec, .. } => *codec == RowCodec::Msgpack,
        Kind::Vectors { .. } | Kind::Cache { .. } => true,
        _ => false,
    };
    if text && std::str::from_utf8(operation.key()).is_err() {
        return Err(Error::corruption("a key that is not text"));
    }
    if operation.op.kind != OpKind::Put {
        return Ok(());
    }
    match (&structure.kind, operation.value()) {
        (Kind::Graph {}, None) => Ok(()),
        (_, None) => Err(Error::corruption("a put without a value")),
        (Kind::Vectors { dim, .. }, Some(value)) if value.len() != dim * size_of::<f32>() => {
            Err(Error::corruption(format!("a vector of {} bytes, not {dim} floats", value.len())))
        }
        _ => Ok(()),
    }
}

fn derived<S: Change>(state: &S, id: StructureId) -> Derived<'_> {
    let structure = state.structure(id).expect("the caller found it");
    Derived::of(structure).expect("the caller found rows")
}

fn put_row(
    state: &impl Change,
    links: &Links,
    operation: &Operation<'_>,
    lsn: Lsn,
    positions: &mut Positions,
) -> Result<()> {
    let (id, key) = (operation.op.structure, operation.key());
    let row = operation.value().expect("a put has a value");
    let derived = derived(state, id);
    for older in rows::contradicted(state, &derived, row)? {
        state.superseded();
        let version = (&older.key[..], older.lsn);
        for events in linked(&links.contradictions, id) {
            events::contradiction(state, events, id, key, version, lsn, positions);
        }
        if older.key != key {
            delete_row(state, links, id, &older.key, lsn)?;
        }
    }
    let old = if links.needs_old(id) { before(state, id, key)? } else { None };
    rows::put(state, &derived, operation)?;
    views::changed(state, &links.views, id, key, old.as_ref(), Some(row), lsn)
}

/// A row goes, and what is linked to it; `true` if it was there.
fn delete_row(
    state: &impl Change,
    links: &Links,
    id: StructureId,
    key: &[u8],
    lsn: Lsn,
) -> Result<bool> {
    let old = if links.needs_old(id) { before(state, id, key)? } else { None };
    let there = rows::delete(state, &derived(state, id), key)?;
    for vectors in linked(&links.vectors, id) {
        delete_vector(state, vectors, key)?;
    }
    for cache in linked(&links.caches, id) {
        cache::row_deleted(state, cache, key)?;
    }
    if let Some(old) = &old {
        views::changed(state, &links.views, id, key, Some(old), None, lsn)?;
    }
    Ok(there)
}

/// A row as it is before it changes.
fn before(state: &impl Change, id: StructureId, key: &[u8]) -> Result<Option<Before>> {
    let version = state.get(Tree::new(id, 0), key)?;
    version.map(|version| Before::of(state, &version)).transpose()
}

/// `true` if there was one.
fn delete_vector(state: &impl Change, id: StructureId, key: &[u8]) -> Result<bool> {
    let tree = Tree::new(id, vectors::KEYS);
    let there = state.get(tree, key)?.is_some();
    if there {
        let text = std::str::from_utf8(key).map_err(|_| Error::corruption("key is no text"))?;
        state.set(tree, key, None);
        state.delete_vector(id, text);
    }
    Ok(there)
}

/// Every version of a key goes, here and in what is linked to it; a mask stays.
fn forget(state: &impl Change, links: &Links, operation: &Operation<'_>, lsn: Lsn) -> Result<()> {
    let id = operation.op.structure;
    let key = operation.key();
    if links.needs_old(id) {
        let versions = state.versions(Tree::new(id, 0), key)?;
        let versions = versions.iter().map(|version| Before::of(state, version));
        let versions = versions.collect::<Result<Vec<_>>>()?;
        views::forgotten(state, &links.views, id, key, &versions, lsn)?;
    }
    forget_in(state, id, key)?;
    let vectors = linked(&links.vectors, id);
    for follower in vectors.chain(linked(&links.caches, id)) {
        forget_in(state, follower, key)?;
    }
    Ok(())
}

fn forget_in(state: &impl Change, id: StructureId, key: &[u8]) -> Result<()> {
    let Some(structure) = state.structure(id) else { return Ok(()) };
    match &structure.kind {
        Kind::Rows { .. } => rows::forget(state, &derived(state, id), key)?,
        Kind::Vectors { .. } => {
            let text = std::str::from_utf8(key).map_err(|_| Error::corruption("key is no text"))?;
            state.erase(Tree::new(id, vectors::KEYS), key);
            state.forget_vector(id, text);
        }
        Kind::Cache { .. } => cache::forget(state, id, key)?,
        Kind::Context {} => state.erase(Tree::new(id, 0), key),
        Kind::Graph {} => graph::forget(state, id, key)?,
        // Events are hidden by the mask; an audit leaf stays provable.
        Kind::Events { .. } | Kind::Audit {} => {}
        // What a view has goes with what it was made of.
        Kind::View { .. } => return Err(Error::corruption("a view's group was forgotten")),
    }
    state.mask(id, key);
    Ok(())
}
