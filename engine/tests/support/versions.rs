//! A plain model with versions: sorted dictionaries from key to what each LSN made of it.
//!
//! It is written from the public contract and shares no code with the engine. Invariants:
//! 1. Everything in it follows from the commits, in order: after a power cut it is made again from
//!    those that survived.
//! 2. A forgotten key has no version up to its forget, at any LSN.

use std::collections::{BTreeMap, HashMap, HashSet};

pub const FACTS: u32 = 1;
pub const BLOBS: u32 = 2;
pub const EVENTS: u32 = 3;
pub const SESSION: u32 = 4;
/// A cache of so few entries that it evicts.
pub const RECENT: u32 = 5;
/// A cache that fills itself from the facts.
pub const WARM: u32 = 6;
pub const CONTEXT: u32 = 7;
pub const ENTITIES: u32 = 8;
/// Vectors by the key of a fact; only what is held by key is of interest here.
pub const EMBEDDINGS: u32 = 9;
pub const CACHES: [u32; 3] = [SESSION, RECENT, WARM];
pub const CAPACITY: usize = 7;

pub type Lsn = u64;
pub type Bytes = Vec<u8>;
pub type EdgeKey = (String, String, String);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub user: String,
    pub topic: Option<String>,
    pub n: i64,
    pub slug: Option<String>,
    pub text: String,
}

pub fn put_text(out: &mut Bytes, text: &str) {
    out.push(0xDB);
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

pub fn put_int(out: &mut Bytes, value: i64) {
    out.push(0xD3);
    out.extend_from_slice(&value.to_be_bytes());
}

impl Fact {
    /// As a MessagePack map.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![0x83 + u8::from(self.topic.is_some()) + u8::from(self.slug.is_some())];
        let texts = [("user", Some(&self.user)), ("text", Some(&self.text))];
        let more = [("topic", self.topic.as_ref()), ("slug", self.slug.as_ref())];
        for (field, value) in texts.into_iter().chain(more) {
            let Some(value) = value else { continue };
            put_text(&mut out, field);
            put_text(&mut out, value);
        }
        put_text(&mut out, "n");
        put_int(&mut out, self.n);
        out
    }
}

#[derive(Debug, Clone)]
pub enum Op {
    PutFact(String, Fact),
    DeleteFact(String),
    PutBlob(Bytes, Bytes),
    DeleteBlob(Bytes),
    PutVector(String, i8),
    DeleteVector(String),
    Append { kind: String, key: Option<String>, payload: Option<Bytes> },
    CachePut { cache: u32, key: String, value: Bytes, ttl: i64, expires: i64 },
    CacheDelete(u32, String),
    ContextSet(String, String, Bytes),
    ContextDelete(String, Option<String>),
    Link(EdgeKey, Option<Bytes>),
    Unlink(EdgeKey),
    ForgetFact(String),
    ForgetBlob(Bytes),
    ForgetEvents(String),
    ForgetCached(u32, String),
    ForgetContext(String, String),
    ForgetEdge(EdgeKey),
}

#[derive(Debug, Clone)]
pub struct Commit {
    pub time: i64,
    pub ops: Vec<Op>,
}

/// For each key what the LSNs made of it, ascending; `None`: deleted.
pub struct Versions<K, V>(BTreeMap<K, Vec<(Lsn, Option<V>)>>);

impl<K, V> Default for Versions<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone, V> Versions<K, V> {
    fn put(&mut self, key: K, lsn: Lsn, value: V) {
        self.set(key, lsn, Some(value));
    }

    /// Whether there was something to delete.
    fn delete(&mut self, key: &K, lsn: Lsn) -> bool {
        let was = self.get(key, lsn).is_some();
        if was {
            self.set(key.clone(), lsn, None);
        }
        was
    }

    fn set(&mut self, key: K, lsn: Lsn, value: Option<V>) {
        let versions = self.0.entry(key).or_default();
        versions.retain(|(known, _)| *known != lsn);
        versions.push((lsn, value));
    }

    fn forget(&mut self, key: &K) {
        self.0.remove(key);
    }

    /// What the newest LSN up to `lsn` that touched the key made of it.
    pub fn state(&self, key: &K, lsn: Lsn) -> Option<(Lsn, Option<&V>)> {
        let versions = self.0.get(key)?;
        let (at, value) = versions.iter().rev().find(|(at, _)| *at <= lsn)?;
        Some((*at, value.as_ref()))
    }

    pub fn get(&self, key: &K, lsn: Lsn) -> Option<(Lsn, &V)> {
        let (at, value) = self.state(key, lsn)?;
        Some((at, value?))
    }

    pub fn live(&self, lsn: Lsn) -> impl Iterator<Item = (&K, Lsn, &V)> {
        self.0.keys().filter_map(move |key| self.get(key, lsn).map(|(at, value)| (key, at, value)))
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub lsn: Lsn,
    pub index: u32,
    pub time: i64,
    /// 0 for an appended one, else whose change was captured.
    pub origin: u32,
    pub kind: String,
    pub key: Option<Bytes>,
    pub payload: Option<Bytes>,
}

pub struct Cached {
    value: Bytes,
    expires: i64,
    /// Which operation wrote it: the order in which entries leave.
    age: (Lsn, usize),
}

#[derive(Default)]
pub struct Model {
    /// Of each LSN, from 0.
    pub times: Vec<i64>,
    pub facts: Versions<String, Fact>,
    pub blobs: Versions<Bytes, Bytes>,
    pub vectors: Versions<String, i8>,
    pub caches: HashMap<u32, Versions<String, Cached>>,
    pub context: Versions<(String, String), Bytes>,
    pub edges: Versions<EdgeKey, Option<Bytes>>,
    all_events: Vec<Event>,
    /// The newest forget of a key of a structure.
    forgotten: HashMap<(u32, Bytes), Lsn>,
}

impl Model {
    pub fn of(commits: &[Commit]) -> Self {
        let mut model = Self { times: vec![0], ..Self::default() };
        commits.iter().for_each(|commit| model.apply(commit));
        model
    }

    pub fn newest(&self) -> Lsn {
        self.times.len() as Lsn - 1
    }

    /// Newest LSN committed at or before `time`.
    pub fn lsn_at(&self, time: i64) -> Lsn {
        self.times.partition_point(|at| *at <= time) as Lsn - 1
    }

    pub fn apply(&mut self, commit: &Commit) {
        let lsn = self.times.len() as Lsn;
        self.times.push(commit.time);
        let before = self.all_events.len();
        for (number, op) in commit.ops.iter().enumerate() {
            self.operate(op, lsn, number);
        }
        for (index, event) in self.all_events[before..].iter_mut().enumerate() {
            event.index = index as u32;
        }
    }

    fn operate(&mut self, op: &Op, lsn: Lsn, number: usize) {
        match op {
            Op::PutFact(key, fact) => {
                self.event(lsn, FACTS, "facts.put", Some(key.as_bytes()), Some(fact.encode()));
                self.facts.put(key.clone(), lsn, fact.clone());
            }
            Op::DeleteFact(key) => {
                if self.facts.delete(key, lsn) {
                    self.event(lsn, FACTS, "facts.delete", Some(key.as_bytes()), None);
                }
                self.vectors.delete(key, lsn);
                self.cache(WARM).delete(key, lsn);
            }
            Op::PutBlob(key, value) => {
                self.event(lsn, BLOBS, "blobs.put", Some(key), Some(value.clone()));
                self.blobs.put(key.clone(), lsn, value.clone());
            }
            Op::DeleteBlob(key) => {
                if self.blobs.delete(key, lsn) {
                    self.event(lsn, BLOBS, "blobs.delete", Some(key), None);
                }
            }
            Op::PutVector(key, vector) => self.vectors.put(key.clone(), lsn, *vector),
            Op::DeleteVector(key) => drop(self.vectors.delete(key, lsn)),
            Op::Append { kind, key, payload } => {
                let key = key.as_deref().map(str::as_bytes);
                self.event(lsn, 0, kind, key, payload.clone());
            }
            Op::CachePut { cache, key, value, expires, .. } => {
                let cached = Cached { value: value.clone(), expires: *expires, age: (lsn, number) };
                self.cache(*cache).put(key.clone(), lsn, cached);
                self.evict(*cache, lsn);
            }
            Op::CacheDelete(cache, key) => drop(self.cache(*cache).delete(key, lsn)),
            Op::ContextSet(scope, name, value) => {
                self.context.put((scope.clone(), name.clone()), lsn, value.clone());
            }
            Op::ContextDelete(scope, name) => self.context_delete(lsn, scope, name.as_ref()),
            Op::Link(edge, props) => self.edges.put(edge.clone(), lsn, props.clone()),
            Op::Unlink(edge) => drop(self.edges.delete(edge, lsn)),
            forget => self.forget(forget, lsn),
        }
    }

    fn forget(&mut self, forget: &Op, lsn: Lsn) {
        let mut hide = |structure: u32, key: &[u8]| {
            self.forgotten.insert((structure, key.to_vec()), lsn);
        };
        match forget {
            Op::ForgetFact(key) => {
                hide(FACTS, key.as_bytes());
                self.facts.forget(key);
                self.vectors.forget(key);
                self.cache(WARM).forget(key);
            }
            Op::ForgetBlob(key) => {
                hide(BLOBS, key);
                self.blobs.forget(key);
            }
            Op::ForgetEvents(key) => hide(EVENTS, key.as_bytes()),
            Op::ForgetCached(cache, key) => self.cache(*cache).forget(key),
            Op::ForgetContext(scope, name) => {
                self.context.forget(&(scope.clone(), name.clone()));
            }
            Op::ForgetEdge(edge) => self.edges.forget(edge),
            other => unreachable!("{other:?} forgets nothing"),
        }
    }

    fn event(
        &mut self,
        lsn: Lsn,
        origin: u32,
        kind: &str,
        key: Option<&[u8]>,
        payload: Option<Bytes>,
    ) {
        let time = self.times[lsn as usize];
        let (kind, key) = (kind.to_owned(), key.map(<[u8]>::to_vec));
        self.all_events.push(Event { lsn, index: 0, time, origin, kind, key, payload });
    }

    fn context_delete(&mut self, lsn: Lsn, scope: &str, name: Option<&String>) {
        let gone = |key: &&(String, String)| key.0 == scope && name.is_none_or(|one| key.1 == *one);
        let keys: Vec<_> = self.context.0.keys().filter(gone).cloned().collect();
        for key in keys {
            self.context.delete(&key, lsn);
        }
    }

    fn cache(&mut self, cache: u32) -> &mut Versions<String, Cached> {
        self.caches.entry(cache).or_default()
    }

    /// The oldest written leave first, whatever their expiry.
    fn evict(&mut self, cache: u32, lsn: Lsn) {
        let entries = self.cache(cache);
        while cache == RECENT && entries.live(lsn).count() > CAPACITY {
            let oldest = entries.live(lsn).min_by_key(|(_, _, cached)| cached.age);
            let key = oldest.expect("more than its capacity is in it").0.clone();
            entries.delete(&key, lsn);
        }
    }

    /// Events up to `lsn`, but for those that a forget hides.
    pub fn events(&self, lsn: Lsn) -> impl Iterator<Item = &Event> {
        self.all_events.iter().filter(move |event| {
            let hides = |structure: u32, key: &Bytes| {
                let until = self.forgotten.get(&(structure, key.clone()));
                until.is_some_and(|until| *until >= event.lsn)
            };
            let hidden = |key: &Bytes| hides(EVENTS, key) || hides(event.origin, key);
            event.lsn <= lsn && !event.key.as_ref().is_some_and(hidden)
        })
    }

    /// What a cache answers at `lsn` and engine time `now`.
    pub fn cached(&self, cache: u32, key: &String, lsn: Lsn, now: i64) -> Option<(Bytes, Lsn)> {
        let own = self.caches.get(&cache).and_then(|entries| entries.get(key, lsn));
        let own = own.filter(|(_, cached)| cached.expires > now);
        let own = own.map(|(at, cached)| (cached.value.clone(), at));
        if cache != WARM {
            return own;
        }
        match self.facts.state(key, lsn) {
            // The delete of a row took with it what the cache held then.
            None | Some((_, None)) => own,
            Some((put, Some(fact))) => {
                own.filter(|(_, at)| *at >= put).or_else(|| Some((fact.encode(), put)))
            }
        }
    }

    /// Keys that a cache may answer.
    pub fn cache_keys(&self, cache: u32) -> Vec<String> {
        let own = self.caches.get(&cache).into_iter().flat_map(|entries| entries.0.keys());
        let rows = self.facts.0.keys().filter(|_| cache == WARM);
        let mut keys: Vec<String> = own.chain(rows).cloned().collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Whether after these operations at most one fact has each slug.
    pub fn is_unique_after(&self, ops: &[Op]) -> bool {
        let live = self.facts.live(self.newest());
        let mut slugs: BTreeMap<&str, Option<&str>> =
            live.map(|(key, _, fact)| (key.as_str(), fact.slug.as_deref())).collect();
        for op in ops {
            match op {
                Op::PutFact(key, fact) => drop(slugs.insert(key, fact.slug.as_deref())),
                Op::DeleteFact(key) | Op::ForgetFact(key) => drop(slugs.remove(key.as_str())),
                _ => {}
            }
        }
        let mut seen = HashSet::new();
        slugs.values().flatten().all(|slug| seen.insert(*slug))
    }
}
