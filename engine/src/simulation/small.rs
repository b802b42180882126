//! Every world of few operations, cut off at every operation of the storage, with everything that
//! the cut may leave.
//!
//! Sequences over an alphabet of sixteen: one letter is one thing that a caller or the background
//! does. Where the random simulator may pass by, this one does not.

use std::collections::HashMap;

use super::dice::Dice;
use super::plan::{Action, Plan, Setup};
use super::run::{Failure, Outcome, Run};
use super::world::{Document, Field, Lsn, Op};
use crate::options::Durability;
use crate::schema::Schema;
use crate::storage::simulated::ImagePlan;
use crate::transaction::Mode;

pub const LETTERS: usize = 16;

const SCHEMA: &str = r#"{"structures":[
{"name":"facts","kind":"rows","codec":"msgpack","indexes":[["user"]],"unique":[["slug"]]},
{"name":"embeddings","kind":"vectors","dim":3,"metric":"l2","rows":"facts"},
{"name":"events","kind":"events","capture":["facts"]},
{"name":"audit","kind":"audit"},
{"name":"warm","kind":"cache","ttl":1500000,"source":"facts"},
{"name":"context","kind":"context"},
{"name":"entities","kind":"graph"},
{"name":"tally","kind":"view","source":"facts","by":["user"],"function":{"name":"count"}}]}"#;

const FACTS: u32 = 1;
const EMBEDDINGS: u32 = 2;
const EVENTS: u32 = 3;
const WARM: u32 = 5;
const CONTEXT: u32 = 6;
const ENTITIES: u32 = 7;

/// Longer than any write here.
const EVERY_BYTE: usize = 1 << 16;

/// How much of what a cut may leave is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Every byte of the newest write, else the boundaries of its sectors and fields.
    pub every_byte: bool,
    /// Subsets of unsynced changes, at most; 4,096 are all of twelve.
    pub subsets_max: usize,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    pub worlds: u64,
    pub cuts: u64,
    pub states: u64,
}

impl std::ops::AddAssign for Looked {
    fn add_assign(&mut self, other: Self) {
        self.worlds += other.worlds;
        self.cuts += other.cuts;
        self.states += other.states;
    }
}

/// The same disk with the same promises needs to be opened once.
#[derive(Default)]
pub struct Seen(HashMap<u128, (Lsn, Lsn)>);

pub fn plan() -> Plan {
    let mut schema = Schema::from_json(SCHEMA).expect("as declared above");
    for (number, structure) in schema.structures.iter_mut().enumerate() {
        structure.id = number as u32 + 1;
    }
    let setup = Setup {
        memtable_bytes: 8 << 10,
        fan_out: 2,
        seal_vectors: Some(1),
        segment_bytes_min: 16 << 10,
        compression: None,
        durability: Durability::Sync,
        waf_budget: None,
        history_micros: None,
    };
    Plan { seed: 1, setup, schema, steps: Vec::new() }
}

/// Cuts the world of these letters off at each operation, from its creation on.
pub fn look(letters: &[usize], depth: Depth, seen: &mut Seen) -> Outcome<Looked> {
    let plan = plan();
    let told = |at: u64, Failure(why): Failure| {
        Failure(format!("letters {letters:?}, cut at operation {at}: {why}"))
    };
    let mut looked = Looked { worlds: 1, ..Looked::default() };
    for at in 0.. {
        let mut run = Run::new(&plan);
        run.storage.crash_at(at);
        run.spell(letters).map_err(|failure| told(at, failure))?;
        if !run.storage.is_crashed() {
            // Nothing more to cut: what was done is there, all of it.
            run.storage.crash_at(u64::MAX);
            run.open().map_err(|failure| told(at, failure))?;
            run.check_all().map_err(|failure| told(at, failure))?;
            return Ok(looked);
        }
        looked.cuts += 1;
        looked.states += run.left(depth, at, seen).map_err(|failure| told(at, failure))?;
    }
    unreachable!("a world of few letters ends")
}

impl Run<'_> {
    /// Creates the database, does what the letters say and closes, until the cut.
    fn spell(&mut self, letters: &[usize]) -> Outcome {
        self.open()?;
        for letter in letters {
            if self.storage.is_crashed() {
                return Ok(());
            }
            self.letter(*letter)?;
        }
        if self.storage.is_crashed() { Ok(()) } else { self.close() }
    }

    fn letter(&mut self, letter: usize) -> Outcome {
        let sync = Dice::new(letter as u64);
        let key = |number: usize| super::draw::key(number);
        let put = |number: usize, user: &str| {
            let text = Field::Str("a text that is long enough to lie in the log".to_owned());
            let slug = Field::Str(format!("s{number}"));
            let user = Field::Str(user.to_owned());
            let fields = [("user", user), ("slug", slug), ("text", text)];
            let document: Document =
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            Op::PutRow { id: FACTS, key: key(number), document }
        };
        let vector = |x: i8| Op::PutVector { id: EMBEDDINGS, key: key(0), vector: vec![x, 1, 2] };
        let event = |payload: &str| {
            let payload = Some(Field::Str(payload.to_owned()));
            Op::Append { id: EVENTS, kind: "e0".to_owned(), key: Some(key(0)), payload }
        };
        let db = self.db();
        let steps = |run: &mut Self, count: usize| {
            (0..count).try_for_each(|_| run.tolerate("a step", run.db().step()).map(drop))
        };
        match letter {
            0 => self.commit_now(true, vec![put(0, "u0")]),
            1 => self.commit_now(true, vec![put(0, "u1"), vector(1)]),
            2 => self.commit_now(false, vec![put(1, "u0"), event("soon")]),
            3 => self.commit_now(true, vec![Op::Delete { id: FACTS, key: key(0).into_bytes() }]),
            4 => self.commit_now(true, vec![put(0, "u0"), vector(7), event("now")]),
            5 => self.commit_now(false, vec![event(&"long ".repeat(900))]),
            6 => {
                let parts = vec![key(0).into_bytes()];
                self.commit_now(true, vec![Op::Forget { id: FACTS, parts }])
            }
            7 => {
                let (scope, name) = ("c0".to_owned(), "m0".to_owned());
                let value = Field::Int(1);
                let set = Op::ContextSet { id: CONTEXT, scope, name, value };
                let (source, relation) = ("n0".to_owned(), "r0".to_owned());
                let target = "n1".to_owned();
                let link = Op::Link { id: ENTITIES, source, relation, target, props: None };
                self.commit_now(false, vec![set, link])
            }
            8 => {
                let (value, ttl) = (Field::Int(2), 600_000);
                let expires = db.shared().pipeline.now() + ttl;
                let put = Op::CachePut { id: WARM, key: key(0), value, ttl, expires };
                self.commit_now(false, vec![put])
            }
            9 => self.take(Action::Flush, &sync),
            10 => self.take(Action::FlushMemtables, &sync),
            11 => steps(self, 3),
            12 => self.take(Action::DrainVectors, &sync),
            13 => {
                self.clock.advance(std::time::Duration::from_millis(1_200));
                steps(self, 2)
            }
            14 => {
                self.close()?;
                if self.storage.is_crashed() { Ok(()) } else { self.open() }
            }
            _ => self.tolerate("rebuild", db.rebuild(FACTS, |_, _| {})).map(drop),
        }
    }

    fn commit_now(&mut self, sync: bool, ops: Vec<Op>) -> Outcome {
        let options = self.plain_options(sync);
        self.commit_with(options, Mode::Transaction, ops)
    }

    /// Opens and checks every disk that the cut may have left; how many there were.
    fn left(&mut self, depth: Depth, at: u64, seen: &mut Seen) -> Outcome<u64> {
        self.held.clear();
        self.db = None;
        let fields = (4..176).step_by(8).chain((8..176).step_by(8)).collect();
        let plan = ImagePlan {
            seed: at,
            subsets_max: depth.subsets_max,
            tears_max: if depth.every_byte { EVERY_BYTE } else { 64 },
            field_boundaries: if depth.every_byte { Vec::new() } else { fields },
        };
        let promised = (self.required, self.oracle.lsn());
        let mut count = 0;
        for image in self.storage.clone().images(&plan) {
            if seen.0.insert(image.fingerprint(), promised) != Some(promised) {
                self.try_image(&image)?;
                count += 1;
            }
        }
        Ok(count)
    }
}
