//! A plain model of the structures: what each must hold after exactly the first n commits.
//!
//! It shares no code with the engine but the names of operations; it is slow, direct and written
//! from the public contract.

use std::collections::{BTreeMap, BTreeSet};

pub const FACTS: u32 = 1;
pub const BLOBS: u32 = 2;
pub const EMBEDDINGS: u32 = 3;
pub const EVENTS: u32 = 4;
pub const AUDIT: u32 = 5;
pub const SESSION: u32 = 6;
pub const WARM: u32 = 7;
pub const CONTEXT: u32 = 8;
pub const ENTITIES: u32 = 9;
/// Views of the facts by user: of the caller's making, a sum of `n`, the two put last; and a view
/// of the first.
pub const PROFILE: u32 = 10;
pub const TOTALS: u32 = 11;
pub const LATEST: u32 = 12;
pub const PROFILES: u32 = 13;
/// Declared at the second opening.
pub const NOTES: u32 = 14;
pub const DIM: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub user: String,
    pub topic: Option<String>,
    pub n: i64,
    pub slug: Option<String>,
    pub text: String,
}

pub fn put_str(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        length @ 0..32 => out.push(0xA0 | length as u8),
        length => {
            out.push(0xDB);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

pub fn put_int(out: &mut Vec<u8>, value: i64) {
    out.push(0xD3);
    out.extend_from_slice(&value.to_be_bytes());
}

pub fn text(value: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_str(&mut out, value);
    out
}

impl Fact {
    pub fn encode(&self) -> Vec<u8> {
        let fields = 3 + u8::from(self.topic.is_some()) + u8::from(self.slug.is_some());
        let mut out = vec![0x80 | fields];
        put_str(&mut out, "user");
        put_str(&mut out, &self.user);
        if let Some(topic) = &self.topic {
            put_str(&mut out, "topic");
            put_str(&mut out, topic);
        }
        put_str(&mut out, "n");
        put_int(&mut out, self.n);
        if let Some(slug) = &self.slug {
            put_str(&mut out, "slug");
            put_str(&mut out, slug);
        }
        put_str(&mut out, "text");
        put_str(&mut out, &self.text);
        out
    }
}

pub type Vector = [i8; DIM];

pub fn floats(vector: &Vector) -> Vec<f32> {
    vector.iter().map(|component| f32::from(*component)).collect()
}

pub fn vector_bytes(vector: &Vector) -> Vec<u8> {
    floats(vector).iter().flat_map(|component| component.to_le_bytes()).collect()
}

pub type EdgeKey = (String, String, String);

#[derive(Debug, Clone)]
pub enum Op {
    PutFact(String, Fact),
    DeleteFact(String),
    PutBlob(Vec<u8>, Vec<u8>),
    DeleteBlob(Vec<u8>),
    PutVector(String, Vector),
    DeleteVector(String),
    Append {
        kind: String,
        payload: Option<Vec<u8>>,
        key: Option<String>,
    },
    /// Structure, key, value, ttl; `expires` is filled in when it is written.
    CachePut {
        cache: u32,
        key: String,
        value: Vec<u8>,
        ttl: i64,
        expires: i64,
    },
    CacheDelete(u32, String),
    ContextSet(u32, String, String, Vec<u8>),
    ContextDelete(u32, String, Option<String>),
    Link(EdgeKey, Option<Vec<u8>>),
    Unlink(EdgeKey),
    /// What a user's facts are said to come to, as of the commit before.
    Result(String, Vec<u8>),
    ForgetFact(String),
    ForgetBlob(Vec<u8>),
    ForgetEvents(String),
    ForgetContext(u32, String, String),
    ForgetEdge(EdgeKey),
    ForgetCached(u32, String),
}

#[derive(Debug, Clone)]
pub struct Commit {
    pub lsn: u64,
    pub time: i64,
    pub txn: String,
    pub ops: Vec<Op>,
    /// Of the audit, where the commit returned.
    pub leaf: Option<[u8; 32]>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub lsn: u64,
    pub index: u32,
    pub time: i64,
    pub origin: u32,
    pub kind: String,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
}

#[derive(Debug, Clone)]
pub struct Cached {
    pub value: Vec<u8>,
    pub lsn: u64,
    pub expires: i64,
}

#[derive(Debug, Clone, Default)]
pub struct State {
    pub lsn: u64,
    pub time: i64,
    /// The row, the LSN and the time that wrote it.
    pub facts: BTreeMap<String, (Fact, u64, i64)>,
    pub blobs: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
    pub vectors: BTreeMap<String, (Vector, u64)>,
    pub events: Vec<Event>,
    pub caches: BTreeMap<(u32, String), Cached>,
    pub context: BTreeMap<(u32, String, String), (Vec<u8>, u64)>,
    pub edges: BTreeMap<EdgeKey, Option<Vec<u8>>>,
    /// Results of the caller's view, and the LSN that wrote each.
    pub results: BTreeMap<String, (Vec<u8>, u64)>,
    pub stale: BTreeSet<String>,
    /// Users that the versions of a fact had since it was forgotten last.
    users_of: BTreeMap<String, BTreeSet<String>>,
    /// Since when a fact is its user's, and whose it was before that, from when to when.
    joined: BTreeMap<String, u64>,
    left: BTreeMap<String, Vec<(String, u64, u64)>>,
    /// Every forget, with its LSN.
    pub forgotten: Vec<(u64, Op)>,
    /// The users whose results a forget took, with its LSN.
    dissolved: Vec<(u64, BTreeSet<String>)>,
}

impl State {
    pub fn apply(&mut self, commit: &Commit) {
        assert_eq!(commit.lsn, self.lsn + 1, "commits follow each other");
        self.lsn = commit.lsn;
        self.time = commit.time;
        let mut index = 0;
        for op in &commit.ops {
            self.operate(op, commit, &mut index);
        }
    }

    fn event(
        &mut self,
        commit: &Commit,
        index: &mut u32,
        (origin, kind): (u32, &str),
        key: Option<&[u8]>,
        payload: Option<Vec<u8>>,
    ) {
        self.events.push(Event {
            lsn: commit.lsn,
            index: *index,
            time: commit.time,
            origin,
            kind: kind.to_owned(),
            key: key.map(<[u8]>::to_vec),
            payload,
        });
        *index += 1;
    }

    fn operate(&mut self, op: &Op, commit: &Commit, index: &mut u32) {
        let lsn = commit.lsn;
        match op {
            Op::PutFact(key, fact) => {
                let old = self.facts.insert(key.clone(), (fact.clone(), lsn, commit.time));
                self.users_of.entry(key.clone()).or_default().insert(fact.user.clone());
                match old {
                    Some((old, ..)) if old.user == fact.user => {}
                    Some((old, ..)) => {
                        let joined = self.joined.insert(key.clone(), lsn).unwrap_or_default();
                        let left = self.left.entry(key.clone()).or_default();
                        left.push((old.user.clone(), joined, lsn));
                        self.changed(&old.user, false);
                    }
                    None => drop(self.joined.insert(key.clone(), lsn)),
                }
                self.changed(&fact.user, false);
                let payload = Some(fact.encode());
                self.event(commit, index, (FACTS, "put"), Some(key.as_bytes()), payload);
            }
            Op::DeleteFact(key) => {
                self.vectors.remove(key);
                self.caches.remove(&(WARM, key.clone()));
                if let Some((old, ..)) = self.facts.remove(key) {
                    self.gone(key, &old.user);
                    self.event(commit, index, (FACTS, "delete"), Some(key.as_bytes()), None);
                }
            }
            Op::PutBlob(key, value) => {
                self.blobs.insert(key.clone(), (value.clone(), lsn));
                self.event(commit, index, (BLOBS, "put"), Some(key), Some(value.clone()));
            }
            Op::DeleteBlob(key) => {
                if self.blobs.remove(key).is_some() {
                    self.event(commit, index, (BLOBS, "delete"), Some(key), None);
                }
            }
            Op::PutVector(key, vector) => {
                self.vectors.insert(key.clone(), (*vector, lsn));
            }
            Op::DeleteVector(key) => {
                self.vectors.remove(key);
            }
            Op::Append { kind, payload, key } => {
                let key = key.as_deref().map(str::as_bytes);
                self.event(commit, index, (0, kind), key, payload.clone());
            }
            Op::CachePut { cache, key, value, expires, .. } => {
                let cached = Cached { value: value.clone(), lsn, expires: *expires };
                self.caches.insert((*cache, key.clone()), cached);
            }
            Op::CacheDelete(cache, key) => {
                self.caches.remove(&(*cache, key.clone()));
            }
            Op::ContextSet(id, scope, name, value) => {
                let key = (*id, scope.clone(), name.clone());
                self.context.insert(key, (value.clone(), lsn));
            }
            Op::ContextDelete(id, scope, Some(name)) => {
                self.context.remove(&(*id, scope.clone(), name.clone()));
            }
            Op::ContextDelete(id, scope, None) => {
                self.context.retain(|(known, at, _), _| (known, at) != (id, scope));
            }
            Op::Link(edge, props) => {
                self.edges.insert(edge.clone(), props.clone());
            }
            Op::Unlink(edge) => {
                self.edges.remove(edge);
            }
            Op::Result(user, document) => {
                if self.has_facts(user) {
                    self.results.insert(user.clone(), (document.clone(), lsn));
                    self.stale.remove(user);
                }
            }
            forget => {
                self.mask(forget, lsn);
                if let Op::ForgetFact(key) = forget {
                    let users = self.users_of.remove(key).unwrap_or_default();
                    self.joined.remove(key);
                    self.left.remove(key);
                    users.iter().for_each(|user| self.changed(user, true));
                    self.dissolved.push((lsn, users));
                }
                self.forgotten.push((lsn, forget.clone()));
            }
        }
    }

    fn has_facts(&self, user: &str) -> bool {
        self.facts.values().any(|(fact, ..)| fact.user == user)
    }

    /// A fact may be answered no more, nor what it went into.
    fn gone(&mut self, key: &str, user: &str) {
        let joined = self.joined.remove(key).unwrap_or_default();
        self.lost(user, joined, u64::MAX);
        self.changed(user, false);
        for (user, joined, left) in self.left.remove(key).unwrap_or_default() {
            if self.lost(&user, joined, left) {
                self.changed(&user, false);
            }
        }
    }

    /// A user's result goes if it is as of this time; a result is as of the commit before it.
    fn lost(&mut self, user: &str, from: u64, until: u64) -> bool {
        let held = |(_, lsn): &(Vec<u8>, u64)| (from..until).contains(&(lsn - 1));
        let held = self.results.get(user).is_some_and(held);
        if held {
            self.results.remove(user);
        }
        held
    }

    /// A user's facts changed; `gone`: one of them may be answered no more.
    fn changed(&mut self, user: &str, gone: bool) {
        let there = self.has_facts(user);
        if gone || !there {
            self.results.remove(user);
        }
        if there {
            self.stale.insert(user.to_owned());
        } else {
            self.stale.remove(user);
        }
    }

    /// Takes away everything a forget at `until` hides.
    fn mask(&mut self, forget: &Op, until: u64) {
        let hide = |events: &mut Vec<Event>, ids: &[u32], key: &[u8]| {
            events.retain(|event| {
                !(event.lsn <= until
                    && ids.contains(&event.origin)
                    && event.key.as_deref() == Some(key))
            });
        };
        match forget {
            Op::ForgetFact(key) => {
                self.facts.remove(key);
                self.vectors.remove(key);
                self.caches.remove(&(WARM, key.clone()));
                hide(&mut self.events, &[FACTS], key.as_bytes());
            }
            Op::ForgetBlob(key) => {
                self.blobs.remove(key);
                hide(&mut self.events, &[BLOBS], key);
            }
            Op::ForgetEvents(key) => {
                hide(&mut self.events, &[0, FACTS, BLOBS], key.as_bytes());
            }
            Op::ForgetContext(id, scope, name) => {
                self.context.remove(&(*id, scope.clone(), name.clone()));
            }
            Op::ForgetEdge(edge) => {
                self.edges.remove(edge);
            }
            Op::ForgetCached(cache, key) => {
                self.caches.remove(&(*cache, key.clone()));
            }
            other => unreachable!("{other:?} forgets nothing"),
        }
    }

    /// This past state as it is answered once the commits up to `newest` are there.
    pub fn seen_from(&self, newest: &State) -> State {
        let mut seen = self.clone();
        for (lsn, forget) in &newest.forgotten {
            if *lsn > self.lsn {
                seen.mask(forget, *lsn);
            }
        }
        for (lsn, users) in &newest.dissolved {
            if *lsn > self.lsn {
                seen.results.retain(|user, _| !users.contains(user));
            }
        }
        seen
    }

    pub fn cached(&self, cache: u32, key: &str, now: i64) -> Option<(Vec<u8>, u64)> {
        let own = self.caches.get(&(cache, key.to_owned())).filter(|own| own.expires > now);
        let own = own.map(|own| (own.value.clone(), own.lsn));
        if cache != WARM {
            return own;
        }
        if let Some((fact, lsn, _)) = self.facts.get(key) {
            return match own {
                Some(own) if own.1 >= *lsn => Some(own),
                _ => Some((fact.encode(), *lsn)),
            };
        }
        // What was put before the row went, went with it.
        own
    }
}
