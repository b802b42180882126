//! What there is of each structure, and what an operation does to it and to what follows from it.

use std::collections::BTreeMap;

use super::distance::{self, Distance};
use super::values;
use super::versions::{Key, Versions};
use super::view::View;
use super::world::{self, Bytes, Commit, Document, Event, Field, Id, Lsn, Micros, Op, Vector};
use crate::schema::{Kind, RowCodec, Schema, Structure};

#[derive(Debug, Clone)]
pub struct Row {
    pub bytes: Bytes,
    /// Not of codec `raw`.
    pub document: Option<Document>,
}

#[derive(Debug, Clone)]
pub struct Rows {
    pub raw: bool,
    pub unique: Vec<Vec<String>>,
    pub rows: Versions<Row>,
}

#[derive(Debug, Clone)]
pub struct Vectors {
    pub dim: usize,
    pub distance: Distance,
    pub cosine: bool,
    pub rows: Option<Id>,
    pub vectors: Versions<Vector>,
}

#[derive(Debug, Clone)]
pub struct Events {
    /// Id and name of what is captured.
    pub capture: BTreeMap<Id, String>,
    pub events: Vec<Event>,
    /// The commit that is taken in, and how many events it has so far.
    next: (Lsn, u32),
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub value: Bytes,
    pub expires: Micros,
    /// Counts puts: the oldest leaves first.
    number: u64,
}

#[derive(Debug, Clone)]
pub struct Cache {
    pub source: Option<Id>,
    capacity: Option<u64>,
    pub entries: Versions<Entry>,
    puts: u64,
}

/// Structures by id, a map for each kind.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub rows: BTreeMap<Id, Rows>,
    pub vectors: BTreeMap<Id, Vectors>,
    pub events: BTreeMap<Id, Events>,
    /// The newest LSN when each audit was declared.
    pub audits: BTreeMap<Id, Lsn>,
    pub caches: BTreeMap<Id, Cache>,
    pub contexts: BTreeMap<Id, Versions<Bytes>>,
    /// Properties of edges.
    pub graphs: BTreeMap<Id, Versions<Option<Bytes>>>,
    pub views: BTreeMap<Id, View>,
}

impl State {
    pub fn new(schema: &Schema) -> Self {
        let mut state = Self::default();
        schema.structures.iter().for_each(|structure| state.declare(schema, structure));
        state
    }

    fn declare(&mut self, schema: &Schema, structure: &Structure) {
        let named = |name: &String| {
            let found = schema.structures.iter().find(|one| one.name == *name);
            found.expect("a schema names what it declares")
        };
        let id = structure.id;
        match &structure.kind {
            Kind::Rows { unique, codec, supersede, .. } => {
                assert!(supersede.is_empty(), "`supersede` is not modelled");
                let raw = matches!(codec, RowCodec::Raw);
                let rows = Rows { raw, unique: unique.clone(), rows: Versions::new() };
                self.rows.insert(id, rows);
            }
            Kind::Vectors { dim, metric, rows, .. } => {
                let vectors = Vectors {
                    dim: *dim,
                    distance: distance::of(metric),
                    cosine: distance::is_cosine(metric),
                    rows: rows.as_ref().map(|name| named(name).id),
                    vectors: Versions::new(),
                };
                self.vectors.insert(id, vectors);
            }
            Kind::Events { capture } => {
                let capture = capture.iter().map(|name| (named(name).id, name.clone())).collect();
                self.events.insert(id, Events { capture, events: Vec::new(), next: (0, 0) });
            }
            Kind::Audit {} => {
                self.audits.insert(id, structure.created);
            }
            Kind::Cache { source, capacity, .. } => {
                let source = source.as_ref().map(|name| named(name).id);
                let entries = Versions::new();
                self.caches.insert(id, Cache { source, capacity: *capacity, entries, puts: 0 });
            }
            Kind::Context {} => {
                self.contexts.insert(id, Versions::new());
            }
            Kind::Graph {} => {
                self.graphs.insert(id, Versions::new());
            }
            Kind::View { source, by, function, .. } => {
                let source = named(source);
                // Views over views are not modelled.
                if matches!(source.kind, Kind::Rows { .. })
                    && let Some(view) = View::new(source.id, by, function)
                {
                    self.views.insert(id, view);
                }
            }
        }
    }

    /// Operation by operation, each seeing those before it.
    pub fn apply(&mut self, commit: &Commit) {
        for op in &commit.ops {
            self.take(commit, op);
        }
        // A forget masks what its own commit wrote, whatever the order.
        for op in &commit.ops {
            if let Op::Forget { id, parts } = op {
                self.forget(commit.lsn, *id, parts);
            }
        }
    }

    /// Of a structure that is not declared (any more) nothing is kept.
    fn take(&mut self, commit: &Commit, op: &Op) {
        let lsn = commit.lsn;
        match op {
            Op::PutRow { id, key, document } => {
                let bytes = world::encode_document(document);
                let row = Row { bytes, document: Some(document.clone()) };
                self.put_row(commit, *id, key.as_bytes().to_vec(), row);
            }
            Op::PutRaw { id, key, value } => {
                let row = Row { bytes: value.clone(), document: None };
                self.put_row(commit, *id, key.clone(), row);
            }
            Op::Delete { id, key } => self.delete(commit, *id, key),
            Op::PutVector { id, key, vector } => {
                if let Some(vectors) = self.vectors.get_mut(id) {
                    vectors.vectors.write(one(key), lsn, Some(vector.clone()));
                }
            }
            Op::Append { id, kind, key, payload } => {
                if let Some(events) = self.events.get_mut(id) {
                    let key = key.as_ref().map(|key| key.as_bytes().to_vec());
                    let payload = payload.as_ref().map(world::encode_field);
                    events.add(commit, kind, None, key, payload);
                }
            }
            Op::CachePut { id, key, value, expires, .. } => {
                if let Some(cache) = self.caches.get_mut(id) {
                    cache.put(one(key), lsn, value, *expires);
                }
            }
            Op::ContextSet { id, scope, name, value } => {
                if let Some(context) = self.contexts.get_mut(id) {
                    context.write(parts(&[scope, name]), lsn, Some(world::encode_field(value)));
                }
            }
            Op::ContextDelete { id, scope, name } => {
                if let Some(context) = self.contexts.get_mut(id) {
                    let keys: Vec<Key> = context.at(lsn).map(|(key, ..)| key.clone()).collect();
                    let concerns = |key: &Key| {
                        key[0] == scope.as_bytes()
                            && name.as_ref().is_none_or(|name| key[1] == name.as_bytes())
                    };
                    for key in keys.into_iter().filter(concerns) {
                        context.write(key, lsn, None);
                    }
                }
            }
            Op::Link { id, source, relation, target, props } => {
                if let Some(graph) = self.graphs.get_mut(id) {
                    let props = props.as_ref().map(world::encode_field);
                    graph.write(parts(&[source, relation, target]), lsn, Some(props));
                }
            }
            Op::Unlink { id, source, relation, target } => {
                if let Some(graph) = self.graphs.get_mut(id) {
                    graph.write(parts(&[source, relation, target]), lsn, None);
                }
            }
            Op::Result { id, group, document, input } => {
                if let Some(view) = self.views.get_mut(id) {
                    let rows = &self.rows[&view.source].rows;
                    view.store(rows, lsn, group, document, *input);
                }
            }
            Op::Forget { id, parts } => self.forget(lsn, *id, parts),
        }
    }

    fn put_row(&mut self, commit: &Commit, id: Id, key: Bytes, row: Row) {
        let Some(rows) = self.rows.get_mut(&id) else { return };
        for view in self.views.values_mut().filter(|view| view.source == id) {
            view.put(&rows.rows, commit.lsn, &key, &row);
        }
        for events in self.events.values_mut().filter(|one| one.capture.contains_key(&id)) {
            events.add(commit, "put", Some(id), Some(key.clone()), Some(row.bytes.clone()));
        }
        rows.rows.write(vec![key], commit.lsn, Some(row));
    }

    fn delete(&mut self, commit: &Commit, id: Id, key: &Bytes) {
        let lsn = commit.lsn;
        if let Some(vectors) = self.vectors.get_mut(&id) {
            vectors.vectors.write(vec![key.clone()], lsn, None);
        }
        if let Some(cache) = self.caches.get_mut(&id) {
            cache.entries.write(vec![key.clone()], lsn, None);
        }
        let Some(rows) = self.rows.get_mut(&id) else { return };
        // CHOICE: a delete takes the vectors and what caches hold under the key, whether there was
        // a row or not; deleting an absent row changes nothing else.
        for vectors in self.vectors.values_mut().filter(|one| one.rows == Some(id)) {
            vectors.vectors.write(vec![key.clone()], lsn, None);
        }
        for cache in self.caches.values_mut().filter(|one| one.source == Some(id)) {
            cache.entries.write(vec![key.clone()], lsn, None);
        }
        if rows.rows.get(std::slice::from_ref(key), lsn).is_none() {
            return;
        }
        for view in self.views.values_mut().filter(|view| view.source == id) {
            view.delete(&rows.rows, lsn, key);
        }
        for events in self.events.values_mut().filter(|one| one.capture.contains_key(&id)) {
            events.add(commit, "delete", Some(id), Some(key.clone()), None);
        }
        rows.rows.write(vec![key.clone()], lsn, None);
    }

    /// Erases what it masks: nothing of it is answered at any LSN from now on.
    fn forget(&mut self, lsn: Lsn, id: Id, parts: &Key) {
        if let Some(vectors) = self.vectors.get_mut(&id) {
            vectors.vectors.erase(parts);
        }
        if let Some(cache) = self.caches.get_mut(&id) {
            cache.entries.erase(parts);
        }
        if let Some(context) = self.contexts.get_mut(&id) {
            context.erase(parts);
        }
        if let Some(graph) = self.graphs.get_mut(&id) {
            graph.erase(parts);
        }
        if let Some(events) = self.events.get_mut(&id) {
            events.events.retain(|event| event.key.as_ref() != parts.first());
        }
        let Some(rows) = self.rows.get_mut(&id) else { return };
        for view in self.views.values_mut().filter(|view| view.source == id) {
            view.forget(&rows.rows, lsn, &parts[0]);
        }
        for vectors in self.vectors.values_mut().filter(|one| one.rows == Some(id)) {
            vectors.vectors.erase(parts);
        }
        for cache in self.caches.values_mut().filter(|one| one.source == Some(id)) {
            cache.entries.erase(parts);
        }
        for events in self.events.values_mut() {
            let of_row =
                |event: &Event| event.origin == Some(id) && event.key.as_ref() == parts.first();
            events.events.retain(|event| !of_row(event));
        }
        rows.rows.erase(parts);
    }

    /// Whether two rows of one LSN have the same values where they must be unique.
    pub fn repeats(&self, id: Id, at: Lsn) -> bool {
        let Some(rows) = self.rows.get(&id) else { return false };
        rows.unique.iter().any(|fields| {
            let documents = rows.rows.at(at).filter_map(|(_, row, _)| row.document.as_ref());
            let mut taken: Vec<_> =
                documents.filter_map(|document| values::values(document, fields)).collect();
            taken.sort();
            taken.windows(2).any(|pair| pair[0] == pair[1])
        })
    }

    /// Whether a vector stands at an LSN, but not its row.
    pub fn dangles(&self, id: Id, key: &str, at: Lsn) -> bool {
        let Some(vectors) = self.vectors.get(&id) else { return false };
        let rows = vectors.rows.and_then(|rows| self.rows.get(&rows));
        let stands = vectors.vectors.get(&one(key), at).is_some();
        stands && rows.is_some_and(|rows| rows.rows.get(&one(key), at).is_none())
    }
}

impl Events {
    fn add(
        &mut self,
        commit: &Commit,
        kind: &str,
        origin: Option<Id>,
        key: Option<Bytes>,
        payload: Option<Bytes>,
    ) {
        let lsn = commit.lsn;
        let index = if self.next.0 == lsn { self.next.1 } else { 0 };
        self.next = (lsn, index + 1);
        let kind = kind.to_owned();
        self.events.push(Event { lsn, index, time: commit.time, kind, origin, key, payload });
    }
}

impl Cache {
    // CHOICE: `capacity` counts what was put, expired or not, and not what rows fill; it is kept
    // with each put.
    fn put(&mut self, key: Key, lsn: Lsn, value: &Field, expires: Micros) {
        self.puts += 1;
        let entry = Entry { value: world::encode_field(value), expires, number: self.puts };
        self.entries.write(key, lsn, Some(entry));
        let Some(capacity) = self.capacity else { return };
        let mut held: Vec<(u64, Key)> =
            self.entries.at(lsn).map(|(key, entry, _)| (entry.number, key.clone())).collect();
        held.sort();
        let surplus = held.len().saturating_sub(capacity as usize);
        for (_, key) in held.into_iter().take(surplus) {
            self.entries.write(key, lsn, None);
        }
    }
}

fn one(key: &str) -> Key {
    parts(&[key])
}

fn parts(texts: &[&str]) -> Key {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
