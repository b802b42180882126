//! Random commits for the versioned model, and how one is handed to the engine.

use waferdb::error::Result;
use waferdb::transaction::{Precondition, Transaction};

use super::questions::{Dice, Pools, slug, vector};
use super::versions::*;

pub struct Writes<'a> {
    pub dice: &'a Dice,
    pub pools: &'a Pools,
    pub model: &'a Model,
    pub now: i64,
}

impl Writes<'_> {
    /// One to thirty operations that can stand in one commit.
    pub fn commit(&self) -> Vec<Op> {
        let count = 1 + self.dice.below(if self.dice.chance(25) { 30 } else { 6 });
        let ops = (0..count).map(|_| self.operation()).collect();
        self.linked(ops)
    }

    /// Leaves out vectors whose row is not there at the end.
    fn linked(&self, mut ops: Vec<Op>) -> Vec<Op> {
        let lasts = |key: &String| {
            let last = ops.iter().rev().find_map(|op| match op {
                Op::PutFact(known, _) if known == key => Some(true),
                Op::DeleteFact(known) if known == key => Some(false),
                _ => None,
            });
            last.unwrap_or_else(|| self.model.facts.get(key, self.model.newest()).is_some())
        };
        let keep: Vec<bool> = ops
            .iter()
            .map(|op| if let Op::PutVector(key, _) = op { lasts(key) } else { true })
            .collect();
        let mut keep = keep.into_iter();
        ops.retain(|_| keep.next() == Some(true));
        if ops.is_empty() {
            ops.push(self.seen());
        }
        ops
    }

    fn seen(&self) -> Op {
        Op::Append { kind: "seen".to_owned(), key: None, payload: None }
    }

    /// Some keys are forgotten, one of them perhaps just written.
    pub fn forget(&self) -> Vec<Op> {
        let mut ops = vec![self.seen()];
        let forget = self.one_forget();
        match &forget {
            Op::ForgetFact(key) if self.dice.chance(30) => {
                ops.push(Op::PutFact(key.clone(), self.fact(0)));
            }
            Op::ForgetBlob(key) if self.dice.chance(30) => {
                ops.push(Op::PutBlob(key.clone(), self.value()));
            }
            _ => {}
        }
        ops.push(forget);
        ops.extend((0..self.dice.below(3)).map(|_| self.one_forget()));
        ops
    }

    fn one_forget(&self) -> Op {
        match self.dice.below(9) {
            0..3 => Op::ForgetFact(self.key().1),
            3 | 4 => Op::ForgetBlob(self.dice.pick(&self.pools.blobs).clone()),
            5 => Op::ForgetEvents(self.key().1),
            6 => Op::ForgetCached(*self.dice.pick(&CACHES), self.key().1),
            7 => Op::ForgetContext(self.dice.pick(&self.pools.scopes).clone(), self.name()),
            _ => Op::ForgetEdge(self.edge()),
        }
    }

    fn operation(&self) -> Op {
        let (number, key) = self.key();
        let blob = || self.dice.pick(&self.pools.blobs).clone();
        match self.dice.below(40) {
            0..10 => Op::PutFact(key, self.fact(number)),
            10..13 => Op::DeleteFact(key),
            13..20 => Op::PutBlob(blob(), self.value()),
            20..23 => Op::DeleteBlob(blob()),
            23 | 24 => Op::PutVector(key, self.dice.below(100) as i8),
            25 => Op::DeleteVector(key),
            26 | 27 => {
                let key = self.dice.chance(60).then_some(key);
                let payload = self.dice.chance(60).then(|| self.document());
                Op::Append { kind: "learned".to_owned(), key, payload }
            }
            28..32 => {
                let ttl = 1_000 + self.dice.below(400_000) as i64;
                let (cache, value) = (*self.dice.pick(&CACHES), self.document());
                Op::CachePut { cache, key, value, ttl, expires: self.now + ttl }
            }
            32 => Op::CacheDelete(*self.dice.pick(&CACHES), key),
            33 | 34 => Op::ContextSet(self.scope(), self.name(), self.document()),
            35 => Op::ContextDelete(self.scope(), self.dice.chance(60).then(|| self.name())),
            36..39 => Op::Link(self.edge(), self.dice.chance(60).then(|| self.document())),
            _ => Op::Unlink(self.edge()),
        }
    }

    /// The key of a fact, and its number among them.
    fn key(&self) -> (usize, String) {
        let number = self.dice.below(self.pools.facts.len());
        (number, self.pools.facts[number].clone())
    }

    fn scope(&self) -> String {
        self.dice.pick(&self.pools.scopes).clone()
    }

    fn name(&self) -> String {
        format!("m{}", self.dice.below(4))
    }

    fn edge(&self) -> EdgeKey {
        let node = || self.dice.pick(&self.pools.nodes).clone();
        (node(), format!("r{}", self.dice.below(2)), node())
    }

    fn text(&self) -> String {
        let length = match self.dice.below(40) {
            0..16 => self.dice.below(33),
            16..38 => 32 + self.dice.below(200),
            38 => 4_200 + self.dice.below(2_000),
            _ => 20_000 + self.dice.below(20_000),
        };
        let first = self.dice.below(26);
        (0..length).map(|at| (b'a' + ((first + at * at) % 26) as u8) as char).collect()
    }

    pub fn value(&self) -> Bytes {
        self.text().into_bytes()
    }

    fn document(&self) -> Bytes {
        let mut out = Vec::new();
        put_text(&mut out, &self.text());
        out
    }

    fn fact(&self, number: usize) -> Fact {
        Fact {
            user: self.dice.pick(&self.pools.users).clone(),
            topic: self.dice.chance(70).then(|| format!("t{}", self.dice.below(3))),
            n: self.dice.below(40) as i64 - 20,
            slug: self.dice.chance(50).then(|| slug(self.dice, number)),
            text: self.text(),
        }
    }
}

/// Operations as a trace shows them.
pub fn told(ops: &[Op]) -> String {
    let all = ops.iter().map(|op| {
        let text = format!("{op:?}");
        text.chars().take(60).collect::<String>()
    });
    all.take(4).collect::<Vec<_>>().join(" · ") + &format!(" ({} ops)", ops.len())
}

pub fn write(tx: &mut Transaction, op: &Op) -> Result<()> {
    let any = Precondition::default();
    match op {
        Op::PutFact(key, fact) => tx.put(FACTS, key.as_bytes(), &fact.encode(), any),
        Op::DeleteFact(key) => tx.delete(FACTS, key.as_bytes()),
        Op::PutBlob(key, value) => tx.put(BLOBS, key, value, any),
        Op::DeleteBlob(key) => tx.delete(BLOBS, key),
        Op::PutVector(key, one) => tx.put_vector(EMBEDDINGS, key, &vector(*one)),
        Op::DeleteVector(key) => tx.delete(EMBEDDINGS, key.as_bytes()),
        Op::Append { kind, key, payload } => {
            tx.append(EVENTS, kind, payload.as_deref(), key.as_deref().map(str::as_bytes))
        }
        Op::CachePut { cache, key, value, ttl, .. } => tx.cache_put(*cache, key, value, Some(*ttl)),
        Op::CacheDelete(cache, key) => tx.delete(*cache, key.as_bytes()),
        Op::ContextSet(scope, name, value) => tx.context_set(CONTEXT, scope, name, value),
        Op::ContextDelete(scope, name) => tx.context_delete(CONTEXT, scope, name.as_deref()),
        Op::Link((from, relation, to), props) => {
            tx.link(ENTITIES, from, relation, to, props.as_deref())
        }
        Op::Unlink((from, relation, to)) => tx.unlink(ENTITIES, from, relation, to),
        Op::ForgetFact(key) => tx.forget(FACTS, &[key.as_bytes()]),
        Op::ForgetBlob(key) => tx.forget(BLOBS, &[key]),
        Op::ForgetEvents(key) => tx.forget(EVENTS, &[key.as_bytes()]),
        Op::ForgetCached(cache, key) => tx.forget(*cache, &[key.as_bytes()]),
        Op::ForgetContext(scope, name) => tx.forget(CONTEXT, &[scope.as_bytes(), name.as_bytes()]),
        Op::ForgetEdge((from, relation, to)) => {
            tx.forget(ENTITIES, &[from.as_bytes(), relation.as_bytes(), to.as_bytes()])
        }
    }
}
