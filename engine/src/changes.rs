//! The log as its readers see it: committed transactions in LSN order, each with what it changed.
//!
//! Invariants:
//! 1. It ends at the newest LSN that was visible when it began.
//! 2. A value that was forgotten since is not told; that there was one, and its key, are.
//!
//! It decodes keys and no values.

use std::sync::Arc;

use crate::clock::Micros;
use crate::codec::order;
use crate::database::Shared;
use crate::error::{Error, Result};
use crate::log::Lsn;
use crate::log::record::{Commit, Frames, Op, OpKind};
use crate::schema::{Kind, RowCodec, Schema, StructureId};

/// A page ends behind the commit that brings its values to this many bytes.
const PAGE_BYTES: usize = 16 << 20;

/// A part of a key, as its structure has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The structure's name as it is called now.
    pub structure: String,
    pub kind: &'static str,
    /// One part, or as many as keys of the structure have; events: kind and, if given, key.
    pub key: Vec<Part>,
    pub value: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub lsn: Lsn,
    pub time: Micros,
    pub txn: String,
    pub actor: Option<String>,
    pub reason: Option<String>,
    pub changes: Vec<Change>,
}

pub struct Changes {
    shared: Arc<Shared>,
    next: Lsn,
    last: Lsn,
}

impl Changes {
    /// The commits behind `after`.
    pub fn new(shared: Arc<Shared>, after: Lsn) -> Result<Self> {
        shared.check_open()?;
        let last = shared.pipeline.strong()?;
        Ok(Self { shared, next: after.saturating_add(1), last })
    }

    /// Up to `count` commits more; empty at the end.
    pub fn page(&mut self, count: usize) -> Result<Vec<Committed>> {
        self.shared.check_open()?;
        let catalog = self.shared.store.catalog();
        let (mut page, mut bytes) = (Vec::new(), 0);
        while page.len() < count && bytes < PAGE_BYTES && self.next <= self.last {
            let commit = commit_at(&self.shared, self.next)?;
            bytes += commit.frames.bytes.len();
            page.push(self.committed(&catalog.schema, commit)?);
            self.next += 1;
        }
        Ok(page)
    }

    fn committed(&self, schema: &Schema, commit: Commit) -> Result<Committed> {
        let frames = &commit.frames;
        let told = |op: &Op| -> Result<Change> {
            let forgotten = self.shared.store.hides(op.structure, frames.key(op), commit.lsn)?;
            let value = frames.value(op).filter(|_| !forgotten);
            Ok(Change {
                structure: schema.name_of(op.structure),
                kind: kind_of(op),
                key: key_of(schema, frames, op)?,
                value: value.map(<[u8]>::to_vec),
            })
        };
        let changes = frames.ops.iter().map(told).collect::<Result<_>>()?;
        let txn = commit.head.txn.text();
        let (actor, reason) = (commit.head.actor, commit.head.reason);
        Ok(Committed { lsn: commit.lsn, time: commit.time, txn, actor, reason, changes })
    }
}

/// The commit of a visible LSN, read from the log.
pub(crate) fn commit_at(shared: &Shared, lsn: Lsn) -> Result<Commit> {
    let pointer = shared.place_of(lsn)?.ok_or_else(|| {
        Error::corruption(format!("LSN {lsn} is not in the ledger of commits: run verify()"))
    })?;
    shared.store.values.commit(&pointer)
}

/// What an operation is called.
pub(crate) fn kind_of(op: &Op) -> &'static str {
    match op.kind {
        OpKind::Put => "put",
        OpKind::Delete | OpKind::DeleteScope => "delete",
        OpKind::Append => "append",
        OpKind::Forget => "forget",
    }
}

/// What an operation was about.
pub(crate) fn key_of(schema: &Schema, frames: &Frames, op: &Op) -> Result<Vec<Part>> {
    let key = frames.key(op);
    if op.kind == OpKind::Append {
        let mut parts = vec![text_or_bytes(frames.meta(op))];
        if !key.is_empty() {
            parts.push(text_or_bytes(key));
        }
        return Ok(parts);
    }
    let structure = schema.by_id(op.structure);
    match structure.map(|structure| &structure.kind) {
        Some(Kind::Context {} | Kind::Graph {}) => text_parts(key),
        _ => Ok(vec![key_part(schema, op.structure, key)]),
    }
}

/// Whether keys of the structure are bytes and not text.
pub fn has_raw_keys(schema: &Schema, structure: StructureId) -> bool {
    let structure = schema.by_id(structure);
    structure.is_some_and(|known| matches!(known.kind, Kind::Rows { codec: RowCodec::Raw, .. }))
}

/// A key as its structure has it: text, but for raw rows.
pub fn key_part(schema: &Schema, structure: StructureId, key: &[u8]) -> Part {
    if has_raw_keys(schema, structure) { Part::Bytes(key.to_vec()) } else { text_or_bytes(key) }
}

/// A dropped structure may have had either.
fn text_or_bytes(bytes: &[u8]) -> Part {
    match std::str::from_utf8(bytes) {
        Ok(text) => Part::Text(text.to_owned()),
        Err(_) => Part::Bytes(bytes.to_vec()),
    }
}

fn text_parts(mut encoded: &[u8]) -> Result<Vec<Part>> {
    let mut parts = Vec::with_capacity(3);
    while !encoded.is_empty() {
        parts.push(Part::Text(order::take_text(&mut encoded)?.into_owned()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Database;
    use crate::options::Options;
    use crate::storage::memory::MemoryStorage;
    use crate::transaction::{Mode, Precondition, TransactionOptions};

    const SCHEMA: &str = r#"{"structures":[{"name":"facts","kind":"rows","codec":"msgpack"},
        {"name":"blobs","kind":"rows","codec":"raw"},{"name":"events","kind":"events"},
        {"name":"context","kind":"context"},{"name":"graph","kind":"graph"}]}"#;

    fn text(parts: &[&str]) -> Vec<Part> {
        parts.iter().map(|part| Part::Text((*part).to_owned())).collect()
    }

    #[test]
    fn each_operation_is_told_with_its_key_and_a_forgotten_value_is_not() {
        let declared = Schema::from_json(SCHEMA).unwrap();
        let storage = Arc::new(MemoryStorage::new());
        let database = Database::open(storage, Options::default(), Some(declared)).unwrap();
        let options = || TransactionOptions { actor: Some("ann".to_owned()), ..Default::default() };
        let mut first = database.begin(Mode::Transaction, options()).unwrap();
        first.put(1, b"k", &[0x80], Precondition::default()).unwrap();
        first.put(2, b"\xff", b"raw", Precondition::default()).unwrap();
        first.append(3, "seen", None, Some(b"k")).unwrap();
        first.append(3, "seen", None, None).unwrap();
        first.context_set(4, "s\0cope", "name", &[1]).unwrap();
        first.context_delete(4, "scope", None).unwrap();
        first.link(5, "a", "knows", "b", None).unwrap();
        first.commit().unwrap();
        let mut second = database.begin(Mode::Single, options()).unwrap();
        second.forget(1, &[b"k"]).unwrap();
        second.commit().unwrap();

        let mut changes = Changes::new(Arc::clone(database.shared()), 0).unwrap();
        let page = changes.page(1).unwrap();
        let told: Vec<_> =
            page[0].changes.iter().map(|change| (change.kind, change.key.clone())).collect();
        assert_eq!(
            told,
            [
                ("put", text(&["k"])),
                ("put", vec![Part::Bytes(b"\xff".to_vec())]),
                ("append", text(&["seen", "k"])),
                ("append", text(&["seen"])),
                ("put", text(&["s\0cope", "name"])),
                ("delete", text(&["scope"])),
                ("put", text(&["a", "knows", "b"])),
            ]
        );
        assert_eq!(page[0].changes[0].value, None);
        assert_eq!(page[0].changes[1].value.as_deref(), Some(&b"raw"[..]));
        assert_eq!(page[0].actor.as_deref(), Some("ann"));
        let rest = changes.page(9).unwrap();
        assert_eq!((rest[0].lsn, rest[0].changes[0].kind), (2, "forget"));
        assert!(changes.page(9).unwrap().is_empty());
    }
}
