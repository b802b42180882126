//! Events: an append-only reading of the log, by LSN and position.
//!
//! Tree 0: (LSN, position) → kind, key, origin; the payload stays where the operation put it. A
//! captured change is an event too: it points at the changed row's own value and costs no payload.
//! Invariants:
//! 1. An event's position counts this structure's events within its commit, from 0.
//! 2. Events of a forgotten key are answered at no LSN (checked when read, not removed).

use std::sync::Arc;

use crate::codec::{Decoder, put_bytes, put_varint, write};
use crate::error::{Error, Result};
use crate::limits;
use crate::log::Lsn;
use crate::log::record::OpKind;
use crate::lookup::{Change, Look, Operation, Tree};
use crate::ordered::{Direction, Entry, Range, Slot};
use crate::schema::{Schema, StructureId};

/// Stands for "not committed yet" in the place of an LSN; sorts behind every LSN.
pub const PENDING_LSN: Lsn = u64::MAX;

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `PENDING_LSN` for the reading transaction's own.
    pub lsn: Lsn,
    pub index: u32,
    pub kind: String,
    pub key: Option<Vec<u8>>,
    /// The structure whose change was captured, 0 for an appended event.
    pub origin: StructureId,
    pub payload: Option<Arc<[u8]>>,
}

pub fn check_kind(kind: &str) -> Result<()> {
    if kind.is_empty() || kind.len() > limits::NAME_BYTES_MAX {
        return Err(Error::limit(format!(
            "an event's kind has 1 to {} bytes, not {}",
            limits::NAME_BYTES_MAX,
            kind.len()
        )));
    }
    Ok(())
}

fn place(lsn: Lsn, index: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&lsn.to_be_bytes());
    key[8..].copy_from_slice(&index.to_be_bytes());
    key
}

/// What an entry's meta holds: origin, kind, and the key if there is one.
fn encode_meta(origin: StructureId, kind: &[&str], key: Option<&[u8]>) -> Vec<u8> {
    let mut meta = Vec::with_capacity(32);
    put_varint(&mut meta, u64::from(origin));
    put_varint(&mut meta, kind.iter().map(|part| part.len() as u64).sum());
    kind.iter().for_each(|part| meta.extend_from_slice(part.as_bytes()));
    if let Some(key) = key {
        put_bytes(&mut meta, key);
    }
    meta
}

/// How many events of each structure a commit has had so far.
#[derive(Default)]
pub struct Positions(Vec<(StructureId, u32)>);

impl Positions {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    fn next(&mut self, structure: StructureId) -> u32 {
        match self.0.iter_mut().find(|(known, _)| *known == structure) {
            Some((_, next)) => {
                *next += 1;
                *next - 1
            }
            None => {
                self.0.push((structure, 1));
                0
            }
        }
    }
}

/// Takes in an append: kind in the meta, the optional key as the operation's key.
pub fn append(
    state: &impl Change,
    operation: &Operation<'_>,
    lsn: Lsn,
    positions: &mut Positions,
) -> Result<()> {
    let structure = operation.op.structure;
    let kind = std::str::from_utf8(operation.meta())
        .map_err(|_| Error::corruption("an event's kind is not text"))?;
    let key = operation.key();
    let meta = encode_meta(0, &[kind], (!key.is_empty()).then_some(key));
    let at = place(lsn, positions.next(structure));
    let entry = Entry::with_meta(meta, operation.slot.clone());
    state.set(Tree::new(structure, 0), &at, Some(entry));
    Ok(())
}

/// A change of structure `source` that `structure` captures.
pub fn capture(
    state: &impl Change,
    structure: StructureId,
    source: StructureId,
    operation: &Operation<'_>,
    lsn: Lsn,
    positions: &mut Positions,
) {
    let what = match operation.op.kind {
        OpKind::Put | OpKind::Append => "put",
        _ => "delete",
    };
    let meta = encode_meta(source, &[what], Some(operation.key()));
    let at = place(lsn, positions.next(structure));
    let entry = Entry::with_meta(meta, operation.slot.clone());
    state.set(Tree::new(structure, 0), &at, Some(entry));
}

/// The kind of the event that a row took the place of one that said otherwise.
pub const CONTRADICTION: &str = "contradiction";

/// Takes in that the row `newer` of `source`, written here, contradicts `older`.
pub fn contradiction(
    state: &impl Change,
    structure: StructureId,
    source: StructureId,
    newer: &[u8],
    older: (&[u8], Lsn),
    lsn: Lsn,
    positions: &mut Positions,
) {
    let meta = encode_meta(source, &[CONTRADICTION], Some(newer));
    let at = place(lsn, positions.next(structure));
    let mut payload = Vec::with_capacity(64);
    write::map(&mut payload, 2);
    for (name, key, version) in [("older", older.0, older.1), ("newer", newer, lsn)] {
        write::text(&mut payload, name);
        write::map(&mut payload, 2);
        write::text(&mut payload, "key");
        write::text(&mut payload, &String::from_utf8_lossy(key));
        write::text(&mut payload, "version");
        write::unsigned(&mut payload, version);
    }
    let entry = Entry::with_meta(meta, Slot::Inline(payload.into()));
    state.set(Tree::new(structure, 0), &at, Some(entry));
}

/// Bounds of a scan: `after` exclusive, `until` inclusive, as (LSN, position).
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    pub after: Option<(Lsn, u32)>,
    pub until: Option<(Lsn, u32)>,
    pub kind: Option<String>,
    pub key: Option<Vec<u8>>,
    pub limit: Option<usize>,
    pub reverse: bool,
}

pub struct Scan {
    tree: Tree,
    range: Range,
    direction: Direction,
    kind: Option<String>,
    key: Option<Vec<u8>>,
    after: Option<Box<[u8]>>,
    left: usize,
    done: bool,
}

impl Scan {
    pub fn new(look: &(impl Look + ?Sized), structure: StructureId, bounds: &Bounds) -> Self {
        look.note_range(structure);
        let behind = |(lsn, index): (Lsn, u32)| {
            let mut next = place(lsn, index).to_vec();
            next.push(0);
            next
        };
        let range = Range {
            start: bounds.after.map(behind).unwrap_or_default(),
            end: bounds.until.map(behind),
        };
        Self {
            tree: Tree::new(structure, 0),
            range,
            direction: if bounds.reverse { Direction::Reverse } else { Direction::Forward },
            kind: bounds.kind.clone(),
            key: bounds.key.clone(),
            after: None,
            left: bounds.limit.unwrap_or(usize::MAX),
            done: bounds.limit == Some(0),
        }
    }

    /// Up to `count` events more; empty at the end.
    pub fn step(&mut self, look: &(impl Look + ?Sized), count: usize) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        while events.len() < count && !self.done {
            let page =
                look.page(self.tree, &self.range, self.direction, self.after.as_deref(), 256)?;
            self.done = page.next.is_none();
            self.after = page.next;
            for item in page.items {
                let entry = item.entry.expect("pages hold live items");
                let at = &item.key;
                if let Some(event) = self.decode(look, at, &entry)? {
                    events.push(event);
                    self.left -= 1;
                }
                if events.len() == count || self.left == 0 {
                    self.after = Some(item.key);
                    self.done = self.left == 0;
                    break;
                }
            }
        }
        Ok(events)
    }

    fn decode(
        &self,
        look: &(impl Look + ?Sized),
        at: &[u8],
        entry: &Entry,
    ) -> Result<Option<Event>> {
        let (lsn, index) = at.split_at(8);
        let lsn = u64::from_be_bytes(lsn.try_into().expect("a place has twelve bytes"));
        let mut decoder = Decoder::new(&entry.meta);
        let origin = decoder.varint()? as StructureId;
        let kind = event_kind(look.schema(), origin, decoder.text()?);
        let key = if decoder.is_empty() { None } else { Some(decoder.bytes()?) };
        if self.kind.as_ref().is_some_and(|wanted| *wanted != kind)
            || self.key.as_ref().is_some_and(|wanted| Some(&wanted[..]) != key)
        {
            return Ok(None);
        }
        let hidden = |structure| key.map_or(Ok(false), |key| look.forgotten(structure, key, lsn));
        if hidden(self.tree.structure)? || (origin != 0 && hidden(origin)?) {
            return Ok(None);
        }
        let payload = match &entry.slot {
            Slot::None => None,
            slot => Some(look.value(slot)?),
        };
        Ok(Some(Event {
            lsn,
            index: u32::from_be_bytes(index.try_into().expect("a place has twelve bytes")),
            kind,
            key: key.map(<[u8]>::to_vec),
            origin,
            payload,
        }))
    }
}

/// A captured change is named after its source as it is called today.
fn event_kind(schema: &Schema, origin: StructureId, kind: &str) -> String {
    if origin == 0 || kind == CONTRADICTION {
        kind.to_owned()
    } else {
        format!("{}.{kind}", schema.name_of(origin))
    }
}
