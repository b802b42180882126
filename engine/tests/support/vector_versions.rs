//! A plain model of rows and vectors with versions, and of nearest neighbours by brute force.
//!
//! It is written from the public contract and shares no code with the engine. Invariants:
//! 1. Everything in it follows from the commits, in order: after a power cut it is made again from
//!    those that survived.
//! 2. A forgotten key has no version up to its forget, at any LSN.
//! 3. Distances are computed in f64, whatever the engine does.

use std::collections::BTreeMap;
use std::sync::Arc;

pub const FACTS: u32 = 1;
pub const COSINE: u32 = 2;
/// Its vectors are linked to the facts.
pub const L2: u32 = 3;
pub const DOT: u32 = 4;
pub const VECTORS: [u32; 3] = [COSINE, L2, DOT];

pub type Lsn = u64;
pub type Vector = Arc<[f32]>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact {
    pub group: u8,
    pub n: i64,
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(0xD9);
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

fn put_int(out: &mut Vec<u8>, value: i64) {
    out.push(0xD3);
    out.extend_from_slice(&value.to_be_bytes());
}

fn group_name(group: u8) -> String {
    format!("g{group}")
}

impl Fact {
    /// As a MessagePack map.
    pub fn encode(self) -> Vec<u8> {
        let mut out = vec![0x82];
        put_text(&mut out, "group");
        put_text(&mut out, &group_name(self.group));
        put_text(&mut out, "n");
        put_int(&mut out, self.n);
        out
    }
}

/// What `where` asks of a fact: any of the groups, where some are named, and a half-open range.
#[derive(Debug, Clone)]
pub struct Conditions {
    pub groups: Vec<u8>,
    pub range: Option<(i64, i64)>,
}

impl Conditions {
    pub fn hold(&self, fact: &Fact) -> bool {
        (self.groups.is_empty() || self.groups.contains(&fact.group))
            && self.range.is_none_or(|(low, high)| (low..high).contains(&fact.n))
    }

    /// As `search` takes them: of each field a list of operator and operands.
    pub fn encode(&self) -> Vec<u8> {
        let fields = usize::from(!self.groups.is_empty()) + usize::from(self.range.is_some());
        let mut out = vec![0x80 | fields as u8];
        if let [group] = self.groups[..] {
            put_text(&mut out, "group");
            out.push(0x92);
            put_text(&mut out, "=");
            put_text(&mut out, &group_name(group));
        } else if !self.groups.is_empty() {
            put_text(&mut out, "group");
            out.push(0x92);
            put_text(&mut out, "in");
            out.push(0x90 | self.groups.len() as u8);
            self.groups.iter().for_each(|group| put_text(&mut out, &group_name(*group)));
        }
        if let Some((low, high)) = self.range {
            put_text(&mut out, "n");
            out.push(0x93);
            put_text(&mut out, "range");
            put_int(&mut out, low);
            put_int(&mut out, high);
        }
        out
    }
}

#[derive(Debug, Clone)]
pub enum Op {
    PutFact(String, Fact),
    DeleteFact(String),
    ForgetFact(String),
    Put(u32, String, Vector),
    Delete(u32, String),
    Forget(u32, String),
}

impl Op {
    pub fn key(&self) -> &String {
        match self {
            Self::PutFact(key, _) | Self::DeleteFact(key) | Self::ForgetFact(key) => key,
            Self::Put(_, key, _) | Self::Delete(_, key) | Self::Forget(_, key) => key,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Commit {
    pub time: i64,
    pub ops: Vec<Op>,
}

/// For each key what the LSNs made of it, ascending; `None`: deleted.
#[derive(Clone)]
pub struct Versions<V>(BTreeMap<String, Vec<(Lsn, Option<V>)>>);

impl<V> Default for Versions<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V: Clone> Versions<V> {
    fn set(&mut self, key: &str, lsn: Lsn, value: Option<V>) {
        let versions = self.0.entry(key.to_owned()).or_default();
        versions.retain(|(known, _)| *known != lsn);
        versions.push((lsn, value));
    }

    pub fn get(&self, key: &str, lsn: Lsn) -> Option<&V> {
        let versions = self.0.get(key)?;
        versions.iter().rev().find(|(at, _)| *at <= lsn)?.1.as_ref()
    }

    pub fn live(&self, lsn: Lsn) -> impl Iterator<Item = (&String, &V)> {
        self.0.keys().filter_map(move |key| Some((key, self.get(key, lsn)?)))
    }

    /// Every value that is not forgotten, current or not.
    pub fn values(&self) -> Vec<&V> {
        self.0.values().flatten().filter_map(|(_, value)| value.as_ref()).collect()
    }
}

/// A vector that a search may answer, and how far it is.
pub struct Near<'a> {
    pub key: &'a str,
    pub vector: &'a Vector,
    pub distance: f64,
}

#[derive(Clone)]
pub struct Model {
    /// Of each LSN, from 0.
    pub times: Vec<i64>,
    pub facts: Versions<Fact>,
    vectors: [Versions<Vector>; VECTORS.len()],
}

impl Model {
    pub fn of(commits: &[Commit]) -> Self {
        let (facts, vectors) = (Versions::default(), Default::default());
        let mut model = Self { times: vec![0], facts, vectors };
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

    pub fn vectors(&self, id: u32) -> &Versions<Vector> {
        &self.vectors[(id - COSINE) as usize]
    }

    fn vectors_mut(&mut self, id: u32) -> &mut Versions<Vector> {
        &mut self.vectors[(id - COSINE) as usize]
    }

    pub fn apply(&mut self, commit: &Commit) {
        let lsn = self.times.len() as Lsn;
        self.times.push(commit.time);
        commit.ops.iter().for_each(|op| self.operate(op, lsn));
    }

    fn operate(&mut self, op: &Op, lsn: Lsn) {
        match op {
            Op::PutFact(key, fact) => self.facts.set(key, lsn, Some(*fact)),
            Op::DeleteFact(key) => {
                self.facts.set(key, lsn, None);
                self.vectors_mut(L2).set(key, lsn, None);
            }
            Op::Put(id, key, vector) => self.vectors_mut(*id).set(key, lsn, Some(vector.clone())),
            Op::Delete(id, key) => self.vectors_mut(*id).set(key, lsn, None),
            forget => self.forget(forget),
        }
    }

    /// A forget reaches back to every LSN, and into snapshots that were taken before it.
    pub fn forget(&mut self, op: &Op) {
        match op {
            Op::ForgetFact(key) => {
                self.facts.0.remove(key);
                self.vectors_mut(L2).0.remove(key);
            }
            Op::Forget(id, key) => drop(self.vectors_mut(*id).0.remove(key)),
            _ => {}
        }
    }

    /// Whether every vector that these operations put has its row afterwards.
    pub fn is_linked_after(&self, ops: &[Op], key: &str) -> bool {
        let last = ops.iter().rev().find_map(|op| match op {
            Op::PutFact(known, _) if known == key => Some(true),
            Op::DeleteFact(known) | Op::ForgetFact(known) if known == key => Some(false),
            _ => None,
        });
        last.unwrap_or_else(|| self.facts.get(key, self.newest()).is_some())
    }

    /// Everything that a search may answer at `lsn`, nearest first, then by key.
    pub fn nearest(
        &self,
        id: u32,
        lsn: Lsn,
        query: &[f32],
        conditions: Option<&Conditions>,
    ) -> Vec<Near<'_>> {
        let selected = |key: &str| match conditions {
            None => true,
            Some(wanted) => self.facts.get(key, lsn).is_some_and(|fact| wanted.hold(fact)),
        };
        let live = self.vectors(id).live(lsn).filter(|(key, _)| selected(key));
        let mut all: Vec<Near<'_>> = live
            .map(|(key, vector)| Near { key, vector, distance: distance(id, query, vector) })
            .collect();
        all.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.key.cmp(b.key)));
        all
    }
}

fn distance(id: u32, query: &[f32], vector: &[f32]) -> f64 {
    let pairs = || query.iter().zip(vector).map(|(x, y)| (f64::from(*x), f64::from(*y)));
    let dot: f64 = pairs().map(|(x, y)| x * y).sum();
    match id {
        L2 => pairs().map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt(),
        DOT => -dot,
        _ => {
            let norms: (f64, f64) =
                pairs().fold((0.0, 0.0), |sum, (x, y)| (sum.0 + x * x, sum.1 + y * y));
            1.0 - dot / (norms.0 * norms.1).sqrt()
        }
    }
}
