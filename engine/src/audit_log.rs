//! Reads of an audit structure: its head, its entries out of the log, and its proofs.
//!
//! Invariants:
//! 1. Everything is told as of the newest visible LSN: the tree may hold leaves beyond it.
//! 2. A leaf is made again from the log, so what it says can be compared with what was hashed.

use std::sync::Arc;

use crate::audit::{self, Hash, merkle};
use crate::changes::{self, Part};
use crate::clock::Micros;
use crate::database::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Lsn;
use crate::log::record::{Commit, OpKind};
use crate::materialised::Materialised;
use crate::schema::{Kind, Schema, StructureId};

/// What one operation of an entry did: to which structure, to which key.
pub struct Touched {
    pub structure: String,
    pub key: Part,
    pub kind: &'static str,
}

pub struct Entry {
    pub lsn: Lsn,
    pub index: u64,
    pub time: Micros,
    pub actor: Option<String>,
    pub reason: Option<String>,
    pub changes: Vec<Touched>,
    pub leaf: Hash,
}

pub struct Inclusion {
    pub index: u64,
    pub size: u64,
    pub leaf: Hash,
    pub path: Vec<Hash>,
}

/// Leaves and root of the tree now.
pub fn head(shared: &Shared, id: StructureId) -> Result<(u64, Hash)> {
    let trail = Trail::of(shared, id)?;
    Ok((trail.size, merkle::root(&trail.known.leaves(), trail.size)?))
}

/// The entries behind the LSN `after`, of one actor if given, at most `limit`.
pub fn entries(
    shared: &Shared,
    id: StructureId,
    after: Lsn,
    actor: Option<&str>,
    limit: usize,
) -> Result<Vec<Entry>> {
    let trail = Trail::of(shared, id)?;
    let schema = &shared.store.catalog().schema;
    let mut found = Vec::new();
    let first = after.max(trail.created).saturating_add(1);
    for lsn in first..=trail.created + trail.size {
        if found.len() == limit {
            break;
        }
        let commit = changes::commit_at(shared, lsn)?;
        if actor.is_none_or(|wanted| commit.head.actor.as_deref() == Some(wanted)) {
            let index = trail.index(lsn)?;
            let leaf = trail.leaf(index)?;
            found.push(entry(schema, commit, index, leaf)?);
        }
    }
    Ok(found)
}

/// The bytes that were hashed as the leaf of a commit.
pub fn leaf(shared: &Shared, id: StructureId, lsn: Lsn) -> Result<Vec<u8>> {
    Trail::of(shared, id)?.index(lsn)?;
    Ok(audit::leaf_of(&changes::commit_at(shared, lsn)?))
}

/// That a commit is in the tree of `size` leaves (now, if not given).
pub fn prove(shared: &Shared, id: StructureId, lsn: Lsn, size: Option<u64>) -> Result<Inclusion> {
    let trail = Trail::of(shared, id)?;
    let size = trail.size_or_now(size)?;
    let index = trail.index(lsn)?;
    if index >= size {
        return Err(Error::argument(format!(
            "the entry of LSN {lsn} has index {index}: a tree of size={size} does not hold it"
        )));
    }
    let path = merkle::inclusion(&trail.known.leaves(), index, size)?;
    Ok(Inclusion { index, size, leaf: trail.leaf(index)?, path })
}

/// That the tree of `size` leaves (now, if not given) continues the one of `old` leaves; the size
/// it is about, and the path.
pub fn prove_growth(
    shared: &Shared,
    id: StructureId,
    old: u64,
    size: Option<u64>,
) -> Result<(u64, Vec<Hash>)> {
    let trail = Trail::of(shared, id)?;
    let size = trail.size_or_now(size)?;
    if old > size {
        return Err(Error::argument(format!(
            "old_size={old} is more than the {size} leaves of the later tree"
        )));
    }
    Ok((size, merkle::consistency(&trail.known.leaves(), old, size)?))
}

/// One audit structure as far as it is visible.
struct Trail {
    known: Arc<Materialised>,
    created: Lsn,
    size: u64,
}

impl Trail {
    fn of(shared: &Shared, id: StructureId) -> Result<Self> {
        shared.check_open()?;
        let visible = shared.pipeline.strong()?;
        let catalog = shared.store.catalog();
        let structure = catalog
            .schema
            .by_id(id)
            .ok_or_else(|| Error::new(ErrorKind::Schema, format!("structure {id} was dropped")))?;
        if !matches!(structure.kind, Kind::Audit {}) {
            return Err(Error::argument(format!(
                "{:?} is of kind {}, not audit",
                structure.name,
                structure.kind.name()
            )));
        }
        let created = structure.created;
        let known = Arc::clone(&catalog.structures[&id]);
        Ok(Self { known, created, size: audit::tree_size(created, visible) })
    }

    fn leaf(&self, index: u64) -> Result<Hash> {
        self.known.leaves().leaf(index)?.ok_or_else(|| {
            Error::corruption(format!(
                "the audit tree holds fewer than the {} leaves that are committed: rebuild it",
                self.size
            ))
        })
    }

    fn size_or_now(&self, size: Option<u64>) -> Result<u64> {
        match size {
            Some(size) if size > self.size => Err(Error::argument(format!(
                "size={size}: the tree has {} leaves so far",
                self.size
            ))),
            size => Ok(size.unwrap_or(self.size)),
        }
    }

    fn index(&self, lsn: Lsn) -> Result<u64> {
        let missing = |why: String| Err(Error::new(ErrorKind::History, why));
        match audit::leaf_index(self.created, lsn) {
            Some(index) if index < self.size => Ok(index),
            Some(_) => missing(format!("LSN {lsn} is not committed yet: the audit has no entry")),
            None => missing(format!(
                "LSN {lsn} has no audit entry: the audit was declared at LSN {}",
                self.created
            )),
        }
    }
}

fn entry(schema: &Schema, commit: Commit, index: u64, leaf: Hash) -> Result<Entry> {
    let frames = &commit.frames;
    let touched = |op| -> Result<Touched> {
        let parts = changes::key_of(schema, frames, op)?;
        let key = match op.kind {
            // An event is about its key; without one, its kind is all there is to say.
            OpKind::Append => parts.into_iter().next_back(),
            _ => Some(joined(parts)),
        };
        let key = key.unwrap_or_else(|| Part::Text(String::new()));
        Ok(Touched { structure: schema.name_of(op.structure), key, kind: changes::kind_of(op) })
    };
    let changes = frames.ops.iter().map(touched).collect::<Result<_>>()?;
    Ok(Entry {
        lsn: commit.lsn,
        index,
        time: commit.time,
        actor: commit.head.actor,
        reason: commit.head.reason,
        changes,
        leaf,
    })
}

/// A key of several parts in one line, for people.
fn joined(mut parts: Vec<Part>) -> Part {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let texts: Vec<String> = parts
        .into_iter()
        .map(|part| match part {
            Part::Text(text) => text,
            Part::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        })
        .collect();
    Part::Text(texts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Database;
    use crate::options::Options;
    use crate::storage::memory::MemoryStorage;
    use crate::transaction::{Mode, Precondition, TransactionOptions};

    const SCHEMA: &str = r#"{"structures":[{"name":"facts","kind":"rows","codec":"msgpack"},
        {"name":"trail","kind":"audit"}]}"#;

    #[test]
    fn entries_and_proofs_agree_with_the_head() {
        let storage = Arc::new(MemoryStorage::new());
        let declared = Schema::from_json(SCHEMA).unwrap();
        let database = Database::open(storage, Options::default(), Some(declared)).unwrap();
        let shared = database.shared();
        assert_eq!(head(shared, 2).unwrap(), (0, merkle::empty_root()));
        for actor in ["ann", "bob", "ann"] {
            let options =
                TransactionOptions { actor: Some(actor.to_owned()), ..Default::default() };
            let mut write = database.begin(Mode::Single, options).unwrap();
            write.put(1, b"k", &[0x80], Precondition::default()).unwrap();
            write.commit().unwrap();
        }
        let (size, root) = head(shared, 2).unwrap();
        assert_eq!(size, 3);
        for lsn in 1..=3 {
            let proof = prove(shared, 2, lsn, None).unwrap();
            let hashed = merkle::leaf_hash(&leaf(shared, 2, lsn).unwrap());
            assert_eq!(hashed, proof.leaf);
            assert!(merkle::verify_inclusion(&hashed, lsn - 1, 3, &proof.path, &root));
        }
        let of_ann = entries(shared, 2, 0, Some("ann"), 9).unwrap();
        let places: Vec<_> = of_ann.iter().map(|entry| (entry.lsn, entry.index)).collect();
        assert_eq!(places, [(1, 0), (3, 2)]);
        assert_eq!(entries(shared, 2, 1, None, 1).unwrap()[0].lsn, 2);
        assert!(entries(shared, 2, Lsn::MAX, None, 1).unwrap().is_empty());

        let kind = |error: Error| error.kind();
        assert_eq!(leaf(shared, 2, 0).map_err(kind), Err(ErrorKind::History));
        assert_eq!(leaf(shared, 2, 4).map_err(kind), Err(ErrorKind::History));
        assert_eq!(prove(shared, 2, 3, Some(2)).err().map(kind), Some(ErrorKind::Argument));
        assert_eq!(prove(shared, 2, 3, Some(4)).err().map(kind), Some(ErrorKind::Argument));
        assert_eq!(prove_growth(shared, 2, 4, None).err().map(kind), Some(ErrorKind::Argument));
        assert_eq!(prove_growth(shared, 2, 1, Some(3)).unwrap().0, 3);
        assert_eq!(head(shared, 1).map_err(kind), Err(ErrorKind::Argument));
    }
}
