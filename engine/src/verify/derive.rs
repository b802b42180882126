//! Derives the structures from commits: what each holds follows here from what its kind means.
//!
//! 1. Rows by key; an index has an entry for each row that has its first field, a unique constraint
//!    for each row that has all its fields, both with the row's key behind them.
//! 2. Deleting a row deletes its linked vectors and cached values, at the same LSN.
//! 3. A captured change is an event; a delete of a row or vector that is not there is no change.
//! 4. A cache of bounded capacity loses what was written first; expiry is the reader's.
//! 5. A forgotten key loses every version, here and in what is linked to it.
//! 6. A row takes the place of those about the same subject that say otherwise, and tells of it.
//!
//! A view is not derived here: it is checked against its source (`views::check`).
//!
//! Only the keys of one partition are kept. A key is in the same partition in every structure, so
//! that what is linked is derived together; a cache of bounded capacity is in one as a whole.

use std::collections::{BTreeMap, HashSet};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::codec::msgpack;
use crate::codec::order::{self, Indexable};
use crate::codec::{put_bytes, put_varint, write};
use crate::error::{Error, Result};
use crate::log::Lsn;
use crate::log::record::{Commit, Op, OpKind, ValueAt};
use crate::ordered::Slot;
use crate::schema::{Kind, Schema, Structure, StructureId};

/// Deletes in captured structures that deleted nothing: (LSN, operation).
pub type Unchanged = HashSet<(Lsn, u32)>;

/// Which structures a change concerns besides its own.
#[derive(Default)]
pub struct Links {
    /// Vectors and caches by the rows they follow.
    followers: Vec<(StructureId, StructureId)>,
    /// Events by what they capture.
    captures: Vec<(StructureId, StructureId)>,
    /// Events by the rows whose contradictions they tell.
    contradictions: Vec<(StructureId, StructureId)>,
}

impl Links {
    pub fn of(schema: &Schema) -> Self {
        let mut links = Self::default();
        for structure in &schema.structures {
            let (sources, to): (&[String], _) = match &structure.kind {
                Kind::Vectors { rows: Some(rows), .. } => {
                    (std::slice::from_ref(rows), &mut links.followers)
                }
                Kind::Cache { source: Some(source), .. } => {
                    (std::slice::from_ref(source), &mut links.followers)
                }
                Kind::Events { capture } => (capture, &mut links.captures),
                _ => continue,
            };
            for source in sources.iter().filter_map(|name| schema.named(name)) {
                to.push((source.id, structure.id));
            }
        }
        links.note_contradictions(schema);
        links
    }

    fn note_contradictions(&mut self, schema: &Schema) {
        for rows in schema.structures.iter().filter(|rows| !subject_of(rows).is_empty()) {
            let capture: Vec<StructureId> = self.captures(rows.id).collect();
            for events in &schema.structures {
                let told = match capture.is_empty() {
                    true => matches!(events.kind, Kind::Events { .. }),
                    false => capture.contains(&events.id),
                };
                if told {
                    self.contradictions.push((rows.id, events.id));
                }
            }
        }
    }

    /// Whether a row can take another's place, so that their keys must be derived together.
    pub fn joins_keys(schema: &Schema) -> bool {
        schema.structures.iter().any(|structure| !subject_of(structure).is_empty())
    }

    fn followers(&self, of: StructureId) -> impl Iterator<Item = StructureId> {
        self.followers.iter().filter(move |(source, _)| *source == of).map(|(_, to)| *to)
    }

    fn captures(&self, of: StructureId) -> impl Iterator<Item = StructureId> {
        self.captures.iter().filter(move |(source, _)| *source == of).map(|(_, to)| *to)
    }

    /// A structure and those that forget its keys with it.
    pub fn forgotten_with(&self, id: StructureId) -> impl Iterator<Item = StructureId> {
        std::iter::once(id).chain(self.followers(id))
    }
}

fn subject_of(structure: &Structure) -> &[String] {
    match &structure.kind {
        Kind::Rows { supersede, .. } => supersede,
        _ => &[],
    }
}

#[derive(Clone, Copy)]
pub struct Partition {
    pub number: u64,
    pub of: u64,
}

impl Partition {
    pub fn has(self, key: &[u8]) -> bool {
        self.of == 1 || xxh3_64(key) % self.of == self.number
    }

    pub fn is_last(self) -> bool {
        self.number + 1 == self.of
    }
}

pub enum Extra {
    None,
    /// Of a row: its entry in each index, then in each unique constraint.
    Entries(Box<[Option<Box<[u8]>>]>),
    Cached {
        expires: i64,
        age: [u8; 12],
    },
}

/// What a key maps to.
pub struct Item {
    pub lsn: Lsn,
    pub slot: Slot,
    /// Of the value's bytes in the log.
    pub hash: u128,
    pub extra: Extra,
}

pub struct State<'a> {
    pub structure: &'a Structure,
    pub items: BTreeMap<Box<[u8]>, Item>,
    /// Of a cache: its keys in the order they were written.
    pub ages: BTreeMap<[u8; 12], Box<[u8]>>,
}

/// An event as its structure must hold it.
pub struct Event<'a> {
    pub structure: StructureId,
    pub key: [u8; 12],
    pub meta: Vec<u8>,
    pub slot: Slot,
    pub payload: Option<&'a [u8]>,
}

/// What rows about one subject say: a hash of each one's fields, by its key.
type Said = BTreeMap<Box<[u8]>, u64>;

pub struct Derivation<'a> {
    schema: &'a Schema,
    links: &'a Links,
    pub partition: Partition,
    pub states: BTreeMap<StructureId, State<'a>>,
    pub unchanged: Unchanged,
    positions: BTreeMap<StructureId, u32>,
    /// Rows by what they are about: their keys, and a hash of their fields.
    subjects: BTreeMap<(StructureId, Vec<u8>), Said>,
    /// And what each is about.
    about: BTreeMap<(StructureId, Box<[u8]>), Vec<u8>>,
}

impl<'a> Derivation<'a> {
    pub fn new(
        schema: &'a Schema,
        links: &'a Links,
        partition: Partition,
        unchanged: Unchanged,
    ) -> Self {
        let states = schema.structures.iter().map(|structure| {
            let (items, ages) = (BTreeMap::new(), BTreeMap::new());
            (structure.id, State { structure, items, ages })
        });
        let states = states.collect();
        Self {
            schema,
            links,
            partition,
            states,
            unchanged,
            positions: BTreeMap::new(),
            subjects: BTreeMap::new(),
            about: BTreeMap::new(),
        }
    }

    /// Whether this derivation keeps a key of a structure.
    pub fn keeps(&self, structure: &Structure, key: &[u8]) -> bool {
        match structure.kind {
            Kind::Cache { capacity: Some(_), .. } => {
                self.partition.has(&structure.id.to_le_bytes())
            }
            _ => self.partition.has(key),
        }
    }

    /// Takes in a commit; events come in their order. They are whole in the last pass only.
    pub fn commit<'c>(
        &mut self,
        commit: &'c Commit,
        event: &mut dyn FnMut(Event<'c>),
    ) -> Result<()> {
        self.positions.clear();
        for (number, op) in commit.frames.ops.iter().enumerate() {
            let Some(structure) = self.schema.by_id(op.structure) else { continue };
            let number = number as u32;
            let key = commit.frames.key(op);
            if op.kind == OpKind::Append && matches!(structure.kind, Kind::Events { .. }) {
                let key = (!key.is_empty()).then_some(key);
                let meta = event_meta(0, commit.frames.meta(op), key);
                event(self.event(structure.id, commit, op, meta));
                continue;
            }
            if op.kind == OpKind::Forget {
                for id in self.links.forgotten_with(structure.id) {
                    self.remove(id, key);
                }
                continue;
            }
            if op.kind == OpKind::Put && !subject_of(structure).is_empty() {
                self.supersede(structure, commit, op, event);
            }
            if !self.takes(structure, commit, op, number)? {
                continue;
            }
            let what: &[u8] = if op.kind == OpKind::Put { b"put" } else { b"delete" };
            let links = self.links;
            for events in links.captures(structure.id) {
                let meta = event_meta(structure.id, what, Some(key));
                event(self.event(events, commit, op, meta));
            }
        }
        Ok(())
    }

    /// The rows that this one takes the place of go, and an event tells of each.
    fn supersede<'c>(
        &mut self,
        structure: &'a Structure,
        commit: &'c Commit,
        op: &Op,
        event: &mut dyn FnMut(Event<'c>),
    ) {
        let (id, key) = (structure.id, commit.frames.key(op));
        let row = commit.frames.value(op).unwrap_or_default();
        let Some(subject) = subject(subject_of(structure), row) else {
            return self.forget_subject(id, key);
        };
        let said = fields_hash(row);
        let known = self.subjects.get(&(id, subject.clone())).cloned().unwrap_or_default();
        for (other, _) in known.into_iter().filter(|(_, hash)| *hash != said) {
            let older = self.state(id).items.get(&other).map_or(0, |item| item.lsn);
            let links = self.links;
            for (_, events) in links.contradictions.iter().filter(|(rows, _)| *rows == id) {
                let meta = event_meta(id, b"contradiction", Some(key));
                let payload = contradiction(&other, older, key, commit.lsn);
                let told = self.event(*events, commit, op, meta);
                event(Event { slot: Slot::Inline(payload.into()), payload: None, ..told });
            }
            if *other != *key {
                self.remove(id, &other);
                for follower in links.followers(id) {
                    self.remove(follower, &other);
                }
            }
        }
        self.forget_subject(id, key);
        self.subjects.entry((id, subject.clone())).or_default().insert(key.into(), said);
        self.about.insert((id, key.into()), subject);
    }

    /// The keys of the rows that speak of each subject now.
    pub fn subjects(&self, id: StructureId) -> impl Iterator<Item = (&[u8], Vec<&[u8]>)> {
        let of =
            self.subjects.iter().filter(move |((rows, _), said)| *rows == id && !said.is_empty());
        of.map(|((_, subject), said)| (&subject[..], said.keys().map(|key| &key[..]).collect()))
    }

    fn forget_subject(&mut self, id: StructureId, key: &[u8]) {
        if self.about.is_empty() {
            return;
        }
        if let Some(subject) = self.about.remove(&(id, key.into()))
            && let Some(rows) = self.subjects.get_mut(&(id, subject))
        {
            rows.remove(key);
        }
    }

    fn event<'c>(
        &mut self,
        structure: StructureId,
        commit: &'c Commit,
        op: &Op,
        meta: Vec<u8>,
    ) -> Event<'c> {
        let position = self.positions.entry(structure).or_default();
        let key = place(commit.lsn, *position);
        *position += 1;
        Event { structure, key, meta, slot: slot(commit, op), payload: commit.frames.value(op) }
    }

    /// Takes in one operation on keyed content; whether it changed something.
    fn takes(
        &mut self,
        structure: &'a Structure,
        commit: &Commit,
        op: &Op,
        number: u32,
    ) -> Result<bool> {
        let key = commit.frames.key(op);
        match (&structure.kind, op.kind) {
            (Kind::Events { .. } | Kind::Audit {}, _) => Err(unknown(structure, op)),
            (Kind::View { .. }, OpKind::Put) => Ok(true),
            (Kind::Rows { .. } | Kind::Vectors { .. } | Kind::Cache { .. }, OpKind::Put)
            | (Kind::Context {} | Kind::Graph {}, OpKind::Put) => {
                if self.keeps(structure, key) {
                    let item = item(structure, commit, op, number)?;
                    self.put(structure, key, item);
                }
                Ok(true)
            }
            (Kind::Rows { .. } | Kind::Vectors { .. }, OpKind::Delete) => {
                let there = self.remove(structure.id, key);
                let links = self.links;
                for follower in links.followers(structure.id) {
                    self.remove(follower, key);
                }
                let place = (commit.lsn, number);
                let kept = self.keeps(structure, key);
                if kept && !there && links.captures(structure.id).next().is_some() {
                    self.unchanged.insert(place);
                }
                Ok(if kept { there } else { !self.unchanged.contains(&place) })
            }
            (Kind::Cache { .. } | Kind::Context {} | Kind::Graph {}, OpKind::Delete) => {
                self.remove(structure.id, key);
                Ok(true)
            }
            (Kind::Context {}, OpKind::DeleteScope) => {
                let items = &mut self.state(structure.id).items;
                items.retain(|name, _| !name.starts_with(key));
                Ok(true)
            }
            _ => Err(unknown(structure, op)),
        }
    }

    fn state(&mut self, id: StructureId) -> &mut State<'a> {
        self.states.get_mut(&id).expect("every structure of the schema has a state")
    }

    fn put(&mut self, structure: &Structure, key: &[u8], item: Item) {
        self.take_out(structure.id, key);
        let state = self.state(structure.id);
        if let Extra::Cached { age, .. } = item.extra {
            state.ages.insert(age, key.into());
        }
        state.items.insert(key.into(), item);
        let Kind::Cache { capacity: Some(capacity), .. } = structure.kind else { return };
        while state.items.len() as u64 > capacity {
            let Some((_, oldest)) = state.ages.pop_first() else { return };
            state.items.remove(&oldest);
        }
    }

    fn remove(&mut self, id: StructureId, key: &[u8]) -> bool {
        self.forget_subject(id, key);
        self.take_out(id, key)
    }

    fn take_out(&mut self, id: StructureId, key: &[u8]) -> bool {
        let state = self.state(id);
        let Some(item) = state.items.remove(key) else { return false };
        if let Extra::Cached { age, .. } = item.extra {
            state.ages.remove(&age);
        }
        true
    }
}

/// What a row is about; `None` where it lacks a field of that.
fn subject(fields: &[String], row: &[u8]) -> Option<Vec<u8>> {
    let mut subject = Vec::new();
    for field in fields {
        let scalar = msgpack::scalar(msgpack::field(row, field)?).ok()?;
        if order::put_scalar(&mut subject, &scalar).ok()? == Indexable::No {
            return None;
        }
    }
    Some(subject)
}

/// The same for rows with the same fields, in whatever order.
fn fields_hash(row: &[u8]) -> u64 {
    let hash = |(name, value): (&str, &[u8])| xxh3_64(&[name.as_bytes(), &[0], value].concat());
    msgpack::entries(row).map(hash).fold(0, u64::wrapping_add)
}

/// `{"older": {"key", "version"}, "newer": {"key", "version"}}`.
fn contradiction(older: &[u8], older_lsn: Lsn, newer: &[u8], newer_lsn: Lsn) -> Vec<u8> {
    let mut out = vec![0x82];
    for (name, key, lsn) in [("older", older, older_lsn), ("newer", newer, newer_lsn)] {
        write::text(&mut out, name);
        out.push(0x82);
        write::text(&mut out, "key");
        write::text(&mut out, &String::from_utf8_lossy(key));
        write::text(&mut out, "version");
        write::unsigned(&mut out, lsn);
    }
    out
}

fn unknown(structure: &Structure, op: &Op) -> Error {
    let kind = structure.kind.name();
    Error::corruption(format!("{:?} is no operation of the {kind} {:?}", op.kind, structure.name))
}

fn place(lsn: Lsn, position: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&lsn.to_be_bytes());
    key[8..].copy_from_slice(&position.to_be_bytes());
    key
}

fn slot(commit: &Commit, op: &Op) -> Slot {
    match &op.value {
        ValueAt::None => Slot::None,
        ValueAt::Inline(range) => Slot::Inline(commit.frames.bytes[range.clone()].into()),
        ValueAt::Stored { .. } | ValueAt::Back { .. } => Slot::Stored(commit.pointer(op)),
    }
}

fn event_meta(origin: StructureId, kind: &[u8], key: Option<&[u8]>) -> Vec<u8> {
    let mut meta = Vec::with_capacity(kind.len() + 16);
    put_varint(&mut meta, u64::from(origin));
    put_bytes(&mut meta, kind);
    if let Some(key) = key {
        put_bytes(&mut meta, key);
    }
    meta
}

fn item(structure: &Structure, commit: &Commit, op: &Op, number: u32) -> Result<Item> {
    let value = commit.frames.value(op);
    let extra = match &structure.kind {
        Kind::Rows { indexes, unique, .. } if indexes.len() + unique.len() > 0 => {
            let row = value.unwrap_or_default();
            let key = std::str::from_utf8(commit.frames.key(op))
                .map_err(|_| Error::corruption("the key of a document is not text"))?;
            let indexed = indexes.iter().map(|fields| entry(fields, row, key, 1));
            let unique = unique.iter().map(|fields| entry(fields, row, key, fields.len()));
            Extra::Entries(indexed.chain(unique).collect())
        }
        Kind::Cache { .. } => {
            let expires = commit.frames.meta(op).try_into();
            let expires = expires.map_err(|_| Error::corruption("a cached value has no expiry"))?;
            Extra::Cached { expires: i64::from_le_bytes(expires), age: place(commit.lsn, number) }
        }
        _ => Extra::None,
    };
    let hash = value.map_or(0, xxh3_128);
    Ok(Item { lsn: commit.lsn, slot: slot(commit, op), hash, extra })
}

/// The entry of a row that has the first `required` fields; others are entered as missing. A NaN,
/// which can only be older than the index, has no place in it.
fn entry(fields: &[String], row: &[u8], key: &str, required: usize) -> Option<Box<[u8]>> {
    let mut entry = Vec::with_capacity(32);
    for (number, field) in fields.iter().enumerate() {
        let put = match msgpack::field(row, field) {
            None => Indexable::No,
            Some(raw) => order::put_scalar(&mut entry, &msgpack::scalar(raw).ok()?).ok()?,
        };
        if put == Indexable::No {
            if number < required {
                return None;
            }
            order::put_missing(&mut entry);
        }
    }
    order::put_text(&mut entry, key);
    Some(entry.into())
}
