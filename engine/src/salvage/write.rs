//! Writes what was salvaged to the new database, in its order, by ordinary transactions.
//!
//! Many operations are one commit. One that is refused (its unique value belongs to another row,
//! its row is not there) is found by halves, told as lost, and keeps nothing else from its place.

use crate::clock::Micros;
use crate::codec::order;
use crate::database::Database;
use crate::error::{Error, ErrorKind, Result};
use crate::log::format::Place;
use crate::log::record::{OpKind, Priority};
use crate::log::{Lsn, segment};
use crate::schema::{Kind, Structure, StructureId};
use crate::transaction::{Mode, Precondition, Transaction, TransactionOptions};
use crate::vector;

use super::report::{Lost, Report};

const OPS_MAX: usize = 1_000;
const BYTES_MAX: usize = 8 << 20;

/// One operation to be written.
pub struct Pending {
    pub kind: OpKind,
    /// In the new database.
    pub structure: StructureId,
    pub key: Vec<u8>,
    pub meta: Vec<u8>,
    pub value: Option<Vec<u8>>,
    /// Where it comes from.
    pub lsn: Lsn,
    pub place: Place,
}

pub struct Writer {
    pub database: Database,
    pub structures: Vec<Structure>,
    now: Micros,
    pending: Vec<Pending>,
    bytes: usize,
}

impl Writer {
    pub fn new(database: Database, now: Micros) -> Self {
        let structures = database.schema().structures;
        Self { database, structures, now, pending: Vec::new(), bytes: 0 }
    }

    pub fn push(&mut self, pending: Pending) {
        self.bytes += pending.key.len() + pending.value.as_ref().map_or(0, Vec::len) + 64;
        self.pending.push(pending);
    }

    /// A commit of the old database ends here; so may one of the new.
    pub fn boundary(&mut self, report: &mut Report) -> Result<()> {
        match self.pending.len() >= OPS_MAX || self.bytes >= BYTES_MAX {
            true => self.flush(report),
            false => Ok(()),
        }
    }

    pub fn flush(&mut self, report: &mut Report) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        self.bytes = 0;
        self.commit(&pending, report)
    }

    fn commit(&self, pending: &[Pending], report: &mut Report) -> Result<()> {
        let refused = match self.try_commit(pending) {
            Ok(()) => {
                for one in pending.iter().filter(|one| one.kind != OpKind::Delete) {
                    report.wrote(&self.name(one.structure));
                }
                return Ok(());
            }
            Err(error) if !is_refusal(&error) => return Err(error),
            Err(error) => error,
        };
        if let [one] = pending {
            report.lose(Lost {
                structure: self.name(one.structure),
                key: self.shown(one),
                lsn: one.lsn,
                file: segment::path(one.place.segment),
                offset: one.place.offset,
                why: refused.message().to_owned(),
                older: None,
                older_written: false,
            });
            return Ok(());
        }
        let (first, second) = pending.split_at(pending.len() / 2);
        self.commit(first, report)?;
        self.commit(second, report)
    }

    fn try_commit(&self, pending: &[Pending]) -> Result<()> {
        if pending.is_empty() {
            return Ok(());
        }
        let options =
            TransactionOptions { priority: Priority::Background, ..TransactionOptions::default() };
        let mut transaction = self.database.begin(Mode::Batch, options)?;
        for one in pending {
            self.apply(&mut transaction, one)?;
        }
        transaction.commit().map(drop)
    }

    fn structure(&self, id: StructureId) -> &Structure {
        self.structures.iter().find(|structure| structure.id == id).expect("mapped by its name")
    }

    fn name(&self, id: StructureId) -> String {
        self.structure(id).name.clone()
    }

    fn shown(&self, one: &Pending) -> Vec<String> {
        parts(&self.structure(one.structure).kind, &one.key, &one.meta)
    }

    fn apply(&self, transaction: &mut Transaction, one: &Pending) -> Result<()> {
        let id = one.structure;
        let value = one.value.as_deref();
        let there = || value.ok_or_else(|| Error::argument("a put without a value"));
        match (&self.structure(id).kind, one.kind) {
            (Kind::Rows { .. }, OpKind::Put) => {
                transaction.put(id, &one.key, there()?, Precondition::default())
            }
            (Kind::Rows { .. }, OpKind::Delete) => transaction.delete(id, &one.key),
            (Kind::Vectors { .. }, OpKind::Put) => {
                let vector = vector::from_bytes(there()?)?;
                transaction.put_vector(id, text(&one.key)?, &vector)
            }
            (Kind::Events { .. }, OpKind::Append) => {
                let key = (!one.key.is_empty()).then_some(&one.key[..]);
                transaction.append(id, text(&one.meta)?, value, key)
            }
            (Kind::Events { .. }, OpKind::Forget) => transaction.forget(id, &[&one.key]),
            (Kind::Cache { .. }, OpKind::Put) => {
                let left = expiry(&one.meta).saturating_sub(self.now);
                transaction.cache_put(id, text(&one.key)?, there()?, Some(left))
            }
            (Kind::Context {}, OpKind::Put) => match &text_parts(&one.key)?[..] {
                [scope, name] => transaction.context_set(id, scope, name, there()?),
                _ => Err(Error::argument("a key of another number of parts")),
            },
            (Kind::Graph {}, OpKind::Put) => match &text_parts(&one.key)?[..] {
                [source, relation, target] => transaction.link(id, source, relation, target, value),
                _ => Err(Error::argument("a key of another number of parts")),
            },
            (kind, op) => Err(Error::argument(format!("{op:?} is nothing of {}", kind.name()))),
        }
    }

    /// Whether a row is there.
    pub fn has(&self, id: StructureId, key: &[u8]) -> Result<bool> {
        self.database.reader().contains(id, key)
    }
}

/// Whether the new database refused an operation, rather than failed.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unique
            | ErrorKind::Link
            | ErrorKind::Limit
            | ErrorKind::Document
            | ErrorKind::Vector
            | ErrorKind::Argument
            | ErrorKind::Schema
            | ErrorKind::Transaction
            | ErrorKind::Corruption
    )
}

/// When a cached value leaves, from its meta.
pub fn expiry(meta: &[u8]) -> Micros {
    meta.try_into().map_or(Micros::MIN, Micros::from_le_bytes)
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| Error::argument("it is no text"))
}

fn text_parts(mut encoded: &[u8]) -> Result<Vec<String>> {
    let mut parts = Vec::with_capacity(3);
    while !encoded.is_empty() {
        parts.push(order::take_text(&mut encoded)?.into_owned());
    }
    Ok(parts)
}

/// A key as a report shows it; of an event its kind, and its key if it has one.
pub fn parts(kind: &Kind, key: &[u8], meta: &[u8]) -> Vec<String> {
    let shown = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    };
    match kind {
        Kind::Events { .. } if key.is_empty() => vec![shown(meta)],
        Kind::Events { .. } => vec![shown(meta), shown(key)],
        Kind::Context {} | Kind::Graph {} => text_parts(key).unwrap_or_else(|_| vec![shown(key)]),
        _ => vec![shown(key)],
    }
}
