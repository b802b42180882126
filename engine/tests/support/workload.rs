//! A seeded workload over every structure, with its background steps, that can be cut off.
//!
//! The same seed makes the same calls, so a run that is cut off at operation n is a prefix of the
//! run that is not.

use std::sync::Arc;
use std::time::Duration;

use waferdb::clock::{Clock, ManualClock, Random, SeededRandom};
use waferdb::database::Database;
use waferdb::error::{Error, ErrorKind, Result};
use waferdb::log::record::Priority;
use waferdb::options::{Durability, Options};
use waferdb::propagation::Policy;
use waferdb::schema::Schema;
use waferdb::storage::simulated::SimulatedStorage;
use waferdb::transaction::{Mode, Precondition, Transaction, TransactionOptions};

use super::model::*;

pub const BEGINNING: i64 = 1_700_000_000_000_000;
const TTL: i64 = 1_500_000;
/// So few that a workload flushes several times, and merges what it flushed.
const MEMTABLE_BYTES: u64 = 24 << 10;

const BASE: &str = r#"{"structures":[
{"name":"facts","kind":"rows","codec":"msgpack",
 "indexes":[["user"],["topic","n"]MORE],"unique":[["slug"]],"policy":{"kind":"lazy"}},
{"name":"blobs","kind":"rows","codec":"raw"},
{"name":"embeddings","kind":"vectors","dim":10,"metric":"l2","rows":"facts"},
{"name":"events","kind":"events","capture":["facts","blobs"]},
{"name":"audit","kind":"audit"},
{"name":"session","kind":"cache","ttl":1500000},
{"name":"warm","kind":"cache","ttl":1500000,"source":"facts"},
{"name":"context","kind":"context"},
{"name":"entities","kind":"graph"},
{"name":"profile","kind":"view","source":"facts","by":["user"],"function":{"name":"custom"}},
{"name":"totals","kind":"view","source":"facts","by":["user"],
 "function":{"name":"sum","field":"n"}},
{"name":"latest","kind":"view","source":"facts","by":["user"],
 "function":{"name":"latest","n":2}},
{"name":"profiles","kind":"view","source":"profile","by":["user"],"function":{"name":"count"}}
NOTES]}"#;

pub fn schema(extended: bool) -> Schema {
    let (more, notes) = match extended {
        true => (r#",["n"]"#, r#",{"name":"notes","kind":"context"}"#),
        false => ("", ""),
    };
    Schema::from_json(&BASE.replace("MORE", more).replace("NOTES", notes)).unwrap()
}

/// How far the run came when it ended or was cut off.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Everything up to here was acknowledged as durable.
    pub required: u64,
    /// Commits handed to the engine, the one in flight included.
    pub attempted: u64,
    /// Version of the schema acknowledged, and the newest one begun: 0 none, 1 as created,
    /// 2 extended, 3 policy set, 4 renamed.
    pub schema_done: u8,
    pub schema_begun: u8,
    pub wall: i64,
    pub step: usize,
}

/// What a caller that opens the database again after `progress` declares.
pub fn reopen_schema(progress: &Progress) -> Option<Schema> {
    match progress.schema_begun {
        0 | 1 => Some(schema(false)),
        2 => Some(schema(true)),
        _ => None,
    }
}

pub fn options(clock: Arc<dyn Clock>, seed: u64) -> Options {
    Options {
        background: false,
        memory_bytes: 1 << 20,
        memtable_bytes: MEMTABLE_BYTES,
        fan_out: 3,
        seal_vectors: Some(2),
        segment_bytes_min: 16 << 10,
        segment_bytes_max: 32 << 10,
        clock,
        random: Arc::new(SeededRandom::new(seed)),
        ..Options::default()
    }
}

pub struct Run {
    pub storage: SimulatedStorage,
    pub clock: Arc<ManualClock>,
    pub commits: Vec<Commit>,
    pub rolled_back: Vec<String>,
    pub state: State,
    pub progress: Progress,
    pub db: Option<Database>,
    /// Last segment and its length, at each close.
    pub closes: Vec<(String, u64)>,
    random: SeededRandom,
    seed: u64,
    openings: u64,
}

impl Run {
    pub fn new(seed: u64) -> Self {
        let progress = Progress {
            required: 0,
            attempted: 0,
            schema_done: 0,
            schema_begun: 0,
            wall: BEGINNING,
            step: 0,
        };
        Self {
            storage: SimulatedStorage::absent(seed),
            clock: Arc::new(ManualClock::new(BEGINNING)),
            commits: Vec::new(),
            rolled_back: Vec::new(),
            state: State::default(),
            progress,
            db: None,
            closes: Vec::new(),
            random: SeededRandom::new(seed ^ 0xC0FFEE),
            seed,
            openings: 0,
        }
    }

    /// Runs `steps` steps, or until an error, and closes.
    pub fn go(&mut self, steps: usize) -> Result<()> {
        self.open()?;
        for step in 0..steps {
            self.progress.step = step;
            self.advance(Duration::from_micros(1 + self.below(20_000)));
            match step {
                _ if step == steps / 3 || step == steps * 3 / 4 => self.reopen()?,
                _ if step == steps / 2 => self.set_policy()?,
                _ if step == steps * 5 / 8 => self.rename()?,
                _ => self.one()?,
            }
            self.alive()?;
        }
        self.close()
    }

    /// What the engine may have swallowed in the background still ends the run.
    fn alive(&self) -> Result<()> {
        if self.storage.is_crashed() {
            return Err(Error::new(ErrorKind::Storage, "crashed"));
        }
        let failed = self.db.as_ref().and_then(|db| db.shared().pipeline.failure());
        failed.map_or(Ok(()), |cause| Err(cause.with_kind(ErrorKind::Failed)))
    }

    fn db(&self) -> Database {
        self.db.clone().expect("the workload opened it")
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.progress.wall = self.clock.wall_micros();
    }

    pub fn open(&mut self) -> Result<()> {
        self.openings += 1;
        let version = self.progress.schema_begun.max(self.openings.min(2) as u8);
        self.progress.schema_begun = version;
        let declared = reopen_schema(&self.progress);
        let random = self.seed ^ (self.openings << 32);
        let storage = Arc::new(self.storage.clone());
        let options = options(self.clock.clone(), random);
        self.db = Some(Database::open(storage, options, declared)?);
        self.progress.schema_done = version;
        assert_eq!(self.db().lsn()?, self.state.lsn, "a closed database holds everything");
        Ok(())
    }

    pub fn close(&mut self) -> Result<()> {
        self.db().close()?;
        self.progress.required = self.state.lsn;
        self.db = None;
        let segments = self.storage.paths().into_iter().filter(|path| path.ends_with(".wal"));
        let last = segments.max().expect("a log has a segment");
        let length = self.storage.read_file(&last).expect("just listed").len() as u64;
        self.closes.push((last, length));
        Ok(())
    }

    fn reopen(&mut self) -> Result<()> {
        self.close()?;
        self.advance(Duration::from_millis(3));
        self.open()
    }

    fn set_policy(&mut self) -> Result<()> {
        self.progress.schema_begun = 3;
        self.db().set_policy("embeddings", Policy::hybrid_default())?;
        self.schema_changed(3);
        Ok(())
    }

    fn rename(&mut self) -> Result<()> {
        self.progress.schema_begun = 4;
        self.db().rename_structure("facts", "knowledge")?;
        self.schema_changed(4);
        Ok(())
    }

    /// The record of a schema is durable, and so is everything before it.
    fn schema_changed(&mut self, version: u8) {
        self.progress.schema_done = version;
        self.progress.required = self.state.lsn;
    }

    /// One step of the workload, chosen by the seed.
    pub fn one(&mut self) -> Result<()> {
        match self.below(100) {
            0..56 => self.transaction(),
            56..60 => self.single(),
            60..64 => self.result(),
            64..68 => self.batch(),
            68..72 => self.refused(),
            72..78 => self.forget(),
            78..82 => {
                self.db().flush()?;
                self.progress.required = self.state.lsn;
                Ok(())
            }
            82..84 => {
                let id = FACTS + self.below(u64::from(ENTITIES)) as u32;
                self.db().rebuild(id, |_, _| {})?;
                // Rebuilding reads the log, so everything before it was made durable.
                self.progress.required = self.state.lsn;
                Ok(())
            }
            84..89 => {
                self.advance(Duration::from_millis(1_100));
                self.step(4)
            }
            _ => {
                let steps = 1 + self.below(3);
                self.step(steps)
            }
        }
    }

    fn step(&mut self, steps: u64) -> Result<()> {
        for _ in 0..steps {
            self.db().step()?;
            self.alive()?;
        }
        Ok(())
    }

    fn key(&self) -> String {
        format!("k{}", self.below(9))
    }

    fn text(&self) -> String {
        let length = match self.below(24) {
            0..14 => self.below(20),
            14..23 => 32 + self.below(200),
            _ => 4_200 + self.below(2_000),
        };
        (0..length).map(|_| (b'a' + self.below(26) as u8) as char).collect()
    }

    fn value(&self) -> Vec<u8> {
        text(&self.text())
    }

    fn fact(&self, key: &str) -> Fact {
        Fact {
            user: format!("u{}", self.below(3)),
            topic: self.chance(70).then(|| format!("t{}", self.below(2))),
            n: self.below(40) as i64 - 20,
            slug: self.chance(50).then(|| format!("s-{key}-{}", self.below(3))),
            text: self.text(),
        }
    }

    fn vector(&self) -> Vector {
        std::array::from_fn(|_| self.below(31) as i8 - 15)
    }

    fn edge(&self) -> EdgeKey {
        let node = || format!("n{}", self.below(5));
        (node(), format!("r{}", self.below(2)), node())
    }

    /// One to three operations that can stand beside each other in one commit.
    fn operations(&self, pending: &mut Vec<String>) -> Vec<Op> {
        let key = self.key();
        let exists = self.state.facts.contains_key(&key) || pending.contains(&key);
        match self.below(20) {
            0..6 => {
                let mut ops = vec![Op::PutFact(key.clone(), self.fact(&key))];
                pending.push(key.clone());
                if self.chance(70) {
                    ops.push(Op::PutVector(key.clone(), self.vector()));
                }
                if self.chance(40) {
                    let payload = Some(self.value());
                    ops.push(Op::Append { kind: "learned".to_owned(), payload, key: Some(key) });
                }
                ops
            }
            6 => {
                pending.retain(|known| *known != key);
                // What follows in this commit must not count on the row.
                vec![Op::DeleteFact(key)]
            }
            7..9 if exists && !pending.is_empty() => vec![Op::PutVector(key, self.vector())],
            9 => vec![Op::DeleteVector(key)],
            10 => vec![Op::PutBlob(key.into_bytes(), self.text().into_bytes())],
            11 => vec![Op::DeleteBlob(key.into_bytes())],
            12 => {
                let payload = self.chance(60).then(|| self.value());
                vec![Op::Append { kind: "seen".to_owned(), payload, key: None }]
            }
            13 | 14 => {
                let cache = if self.chance(50) { SESSION } else { WARM };
                let ttl = TTL / 2 + self.below(2 * TTL as u64) as i64;
                let (value, expires) = (self.value(), self.clock.wall_micros() + ttl);
                vec![Op::CachePut { cache, key, value, ttl, expires }]
            }
            15 => vec![Op::CacheDelete(if self.chance(50) { SESSION } else { WARM }, key)],
            16 => vec![self.context_set()],
            17 => {
                let name = self.chance(60).then(|| format!("m{}", self.below(3)));
                vec![Op::ContextDelete(CONTEXT, format!("c{}", self.below(3)), name)]
            }
            18 => vec![Op::Unlink(self.edge())],
            _ => vec![Op::Link(self.edge(), self.chance(50).then(|| self.value()))],
        }
    }

    fn context_set(&self) -> Op {
        let id = if self.openings > 1 && self.chance(30) { NOTES } else { CONTEXT };
        let (scope, name) = (format!("c{}", self.below(3)), format!("m{}", self.below(3)));
        Op::ContextSet(id, scope, name, self.value())
    }

    fn begin(&self, mode: Mode, sync: bool) -> Result<Transaction> {
        let number = self.commits.len() + self.rolled_back.len();
        let options = TransactionOptions {
            txn: self.chance(40).then(|| format!("txn-{number}-{}", self.progress.step)),
            priority: Priority::default(),
            durability: Some(if sync { Durability::Sync } else { Durability::Async }),
            actor: self.chance(30).then(|| "planner".to_owned()),
            reason: self.chance(20).then(|| "said so".to_owned()),
            serializable: false,
        };
        self.db().begin(mode, options)
    }

    /// Puts the operations into a transaction and commits it.
    fn commit(&mut self, mode: Mode, sync: bool, ops: Vec<Op>) -> Result<()> {
        let mut transaction = self.begin(mode, sync)?;
        ops.iter().try_for_each(|op| write(&mut transaction, op))?;
        let commit = Commit {
            lsn: self.state.lsn + 1,
            time: self.clock.wall_micros(),
            txn: transaction.txn(),
            ops,
            leaf: None,
        };
        self.progress.attempted = commit.lsn;
        self.state.apply(&commit);
        self.commits.push(commit);
        let receipt = transaction.commit()?;
        let commit = self.commits.last_mut().expect("just pushed");
        assert_eq!(receipt.lsn, commit.lsn, "LSNs follow each other");
        assert_eq!(receipt.time, commit.time, "the manual clock is engine time");
        commit.leaf = receipt.leaf;
        if receipt.durable {
            self.progress.required = receipt.lsn;
        }
        assert!(receipt.durable || !sync, "a sync commit is durable when it returns");
        Ok(())
    }

    fn transaction(&mut self) -> Result<()> {
        let (mut ops, mut pending) = (Vec::new(), Vec::new());
        for _ in 0..1 + self.below(4) {
            ops.extend(self.operations(&mut pending));
        }
        let ops = self.consistent(ops);
        let sync = self.chance(60);
        self.commit(Mode::Transaction, sync, ops)
    }

    /// Leaves out what the engine would refuse: a vector without its row at the end, a slug that
    /// another row has.
    fn consistent(&self, ops: Vec<Op>) -> Vec<Op> {
        let mut alive: std::collections::BTreeMap<&str, bool> =
            self.state.facts.keys().map(|key| (key.as_str(), true)).collect();
        for op in &ops {
            match op {
                Op::PutFact(key, _) => drop(alive.insert(key, true)),
                Op::DeleteFact(key) => drop(alive.insert(key, false)),
                _ => {}
            }
        }
        let keep = |op: &Op| match op {
            Op::PutVector(key, _) => alive.get(key.as_str()) == Some(&true),
            _ => true,
        };
        let keep: Vec<bool> = ops.iter().map(keep).collect();
        let mut keep = keep.into_iter();
        let mut ops = ops;
        ops.retain(|_| keep.next() == Some(true));
        if ops.is_empty() {
            ops.push(Op::Append { kind: "nothing".to_owned(), payload: None, key: None });
        }
        ops
    }

    fn single(&mut self) -> Result<()> {
        let mut pending = Vec::new();
        let ops = self.operations(&mut pending);
        let ops = self.consistent(vec![ops[0].clone()]);
        let sync = self.chance(50);
        self.commit(Mode::Single, sync, ops)
    }

    fn result(&mut self) -> Result<()> {
        let user = format!("u{}", self.below(3));
        let mut document = vec![0x81];
        put_str(&mut document, "text");
        put_str(&mut document, &self.text());
        let sync = self.chance(50);
        self.commit(Mode::Single, sync, vec![Op::Result(user, document)])
    }

    fn batch(&mut self) -> Result<()> {
        let ops = (0..3 + self.below(12)).map(|number| {
            let key = format!("b{number}");
            Op::PutBlob(key.into_bytes(), self.text().into_bytes())
        });
        let ops = ops.collect();
        self.commit(Mode::Batch, false, ops)
    }

    fn forget(&mut self) -> Result<()> {
        let key = self.key();
        let forget = match self.below(8) {
            0..3 => Op::ForgetFact(key),
            3 => Op::ForgetBlob(key.into_bytes()),
            4 => Op::ForgetEvents(key),
            5 => Op::ForgetCached(SESSION, key),
            6 => Op::ForgetContext(
                CONTEXT,
                format!("c{}", self.below(3)),
                format!("m{}", self.below(3)),
            ),
            _ => Op::ForgetEdge(self.edge()),
        };
        let note = Op::Append { kind: "forgot".to_owned(), payload: None, key: None };
        let sync = self.chance(70);
        let mode = if self.chance(50) { Mode::Transaction } else { Mode::Single };
        self.commit(mode, sync, vec![forget, note])
    }

    /// A transaction that ends without a commit.
    fn refused(&mut self) -> Result<()> {
        let mut transaction = self.begin(Mode::Transaction, true)?;
        let key = self.key();
        write(&mut transaction, &Op::PutFact(key.clone(), self.fact(&key)))?;
        let taken = self
            .state
            .facts
            .iter()
            .find_map(|(owner, (fact, ..))| fact.slug.clone().filter(|_| *owner != key));
        match taken {
            Some(slug) if self.chance(60) => {
                let fact = Fact { slug: Some(slug), ..self.fact("other") };
                write(&mut transaction, &Op::PutFact("other".to_owned(), fact))?;
                match transaction.commit() {
                    Err(error) if error.kind() == ErrorKind::Unique => {}
                    Err(error) => return Err(error),
                    Ok(_) => panic!("a unique value was given to two rows"),
                }
            }
            _ => transaction.rollback(),
        }
        self.rolled_back.push(transaction.txn());
        Ok(())
    }
}

/// The key of a user's group.
pub fn group(user: &str) -> Vec<u8> {
    let mut list = vec![0x91];
    put_str(&mut list, user);
    waferdb::views::key::encode(&list, 1).expect("text is a key")
}

/// Hands one operation of the model to the engine.
pub fn write(transaction: &mut Transaction, op: &Op) -> Result<()> {
    let (tx, any) = (transaction, Precondition::default());
    match op {
        Op::PutFact(key, fact) => tx.put(FACTS, key.as_bytes(), &fact.encode(), any),
        Op::DeleteFact(key) => tx.delete(FACTS, key.as_bytes()),
        Op::PutBlob(key, value) => tx.put(BLOBS, key, value, any),
        Op::DeleteBlob(key) => tx.delete(BLOBS, key),
        Op::PutVector(key, vector) => tx.put_vector(EMBEDDINGS, key, &floats(vector)),
        Op::DeleteVector(key) => tx.delete(EMBEDDINGS, key.as_bytes()),
        Op::Append { kind, payload, key } => {
            tx.append(EVENTS, kind, payload.as_deref(), key.as_deref().map(str::as_bytes))
        }
        Op::CachePut { cache, key, value, ttl, .. } => tx.cache_put(*cache, key, value, Some(*ttl)),
        Op::CacheDelete(cache, key) => tx.delete(*cache, key.as_bytes()),
        Op::ContextSet(id, scope, name, value) => tx.context_set(*id, scope, name, value),
        Op::ContextDelete(id, scope, name) => tx.context_delete(*id, scope, name.as_deref()),
        Op::Link((from, relation, to), props) => {
            tx.link(ENTITIES, from, relation, to, props.as_deref())
        }
        Op::Unlink((from, relation, to)) => tx.unlink(ENTITIES, from, relation, to),
        Op::Result(user, document) => {
            let input = tx.lsn();
            tx.put_result(PROFILE, &group(user), document, (input, 0))
        }
        Op::ForgetFact(key) => tx.forget(FACTS, &[key.as_bytes()]),
        Op::ForgetBlob(key) => tx.forget(BLOBS, &[key]),
        Op::ForgetEvents(key) => tx.forget(EVENTS, &[key.as_bytes()]),
        Op::ForgetContext(id, scope, name) => tx.forget(*id, &[scope.as_bytes(), name.as_bytes()]),
        Op::ForgetEdge((from, relation, to)) => {
            tx.forget(ENTITIES, &[from.as_bytes(), relation.as_bytes(), to.as_bytes()])
        }
        Op::ForgetCached(cache, key) => tx.forget(*cache, &[key.as_bytes()]),
    }
}
