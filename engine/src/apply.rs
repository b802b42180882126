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
                _ => {}
            }
        }
        links
    }

    /// Structures whose changes `events` captures.
    pub fn captured_by(&self, events: StructureId) -> impl Iterator<Item = StructureId> {
        self.captures.iter().filter(move |(_, to)| *to == events).map(|(from, _)| *from)
    }

    /// Structures whose state follows from changes to `source`.
    pub fn following(&self, source: StructureId) -> impl Iterator<Item = StructureId> {
        let all = self.vectors.iter().chain(&self.caches).chain(&self.captures);
        all.filter(move |(from, _)| *from == source).map(|(_, to)| *to)
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
        (_, OpKind::Forget) => return forget(state, links, operation),
        (Kind::Rows { .. }, OpKind::Put) => {
            rows::put(state, &derived(state, id), operation)?;
        }
        (Kind::Rows { .. }, OpKind::Delete) => {
            changed = rows::delete(state, &derived(state, id), operation.key())?;
            delete_linked(state, links, operation)?;
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
            changed = delete_vector(state, id, operation)?;
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

/// `true` if there was one.
fn delete_vector(state: &impl Change, id: StructureId, operation: &Operation<'_>) -> Result<bool> {
    let tree = Tree::new(id, vectors::KEYS);
    let there = state.get(tree, operation.key())?.is_some();
    if there {
        state.set(tree, operation.key(), None);
        state.delete_vector(id, operation.text_key());
    }
    Ok(there)
}

fn delete_linked(state: &impl Change, links: &Links, operation: &Operation<'_>) -> Result<()> {
    let id = operation.op.structure;
    for vectors in linked(&links.vectors, id) {
        delete_vector(state, vectors, operation)?;
    }
    for cache in linked(&links.caches, id) {
        cache::row_deleted(state, cache, operation.key())?;
    }
    Ok(())
}

/// Every version of a key goes, here and in what is linked to it; a mask stays.
fn forget(state: &impl Change, links: &Links, operation: &Operation<'_>) -> Result<()> {
    let id = operation.op.structure;
    let key = operation.key();
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
    }
    state.mask(id, key);
    Ok(())
}
