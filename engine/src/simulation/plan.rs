//! What a seed stands for: a schema, how the database is opened, and steps.
//!
//! Each step draws its own choices from a seed of its own, so a plan without some of its steps does
//! with the others what it did before, as far as their world is the same: this is what shrinking
//! lives on.

use super::dice::Dice;
use crate::options::{Durability, Zstd};
use crate::schema::{Function, Kind, Schema};

/// What is done next. The simulator may add what follows from it: after a crash it recovers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A transaction, a single write or a batch.
    Write,
    /// A transaction that is rolled back, loses a conflict, or is refused.
    Refused,
    /// A result of a view's function.
    Compute,
    Forget,
    /// Background work, a few steps of any kind.
    Background,
    Flush,
    FlushMemtables,
    Merge,
    Seal,
    DrainVectors,
    Rebuild,
    SetPolicy,
    /// Time goes by.
    Wait,
    /// The wall clock is set, in either direction.
    SetClock,
    Hold,
    Release,
    /// A few questions, now or in the past.
    Ask,
    /// Reads as policies show.
    AskBehind,
    /// Everything there is to ask, and `verify(deep)`.
    Check,
    Backup,
    Reopen,
    ReadOnly,
    /// The power goes, in the middle of one of the next operations of the storage.
    PowerCut,
    /// One of the next operations of the storage fails.
    Fault,
    /// No room from here on, for a while.
    FullDisk,
    /// A closed database is damaged, opened, and put right again.
    Damage,
}

/// Weights, in parts of all.
const ACTIONS: [(Action, usize); 26] = [
    (Action::Write, 300),
    (Action::Refused, 25),
    (Action::Compute, 25),
    (Action::Forget, 25),
    (Action::Background, 80),
    (Action::Flush, 20),
    (Action::FlushMemtables, 35),
    (Action::Merge, 50),
    (Action::Seal, 50),
    (Action::DrainVectors, 8),
    (Action::Rebuild, 8),
    (Action::SetPolicy, 12),
    (Action::Wait, 40),
    (Action::SetClock, 10),
    (Action::Hold, 12),
    (Action::Release, 12),
    (Action::Ask, 70),
    (Action::AskBehind, 20),
    (Action::Check, 20),
    (Action::Backup, 6),
    (Action::Reopen, 20),
    (Action::ReadOnly, 8),
    (Action::PowerCut, 40),
    (Action::Fault, 25),
    (Action::FullDisk, 5),
    (Action::Damage, 10),
];

#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub action: Action,
    pub seed: u64,
}

/// How the database is opened, each time.
#[derive(Debug, Clone)]
pub struct Setup {
    pub memtable_bytes: u64,
    pub fan_out: usize,
    pub seal_vectors: Option<usize>,
    pub segment_bytes_min: u64,
    pub compression: Option<Zstd>,
    pub durability: Durability,
    pub waf_budget: Option<f64>,
    pub history_micros: Option<i64>,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub setup: Setup,
    pub schema: Schema,
    pub steps: Vec<Step>,
}

impl Plan {
    pub fn of(seed: u64, steps: usize) -> Self {
        let dice = Dice::new(seed);
        let schema = schema(&dice);
        // A forget drops the results of every group that a row is known to have been in, and how
        // far back that is known depends on what was merged: what it leaves then is not one answer.
        let computes = schema
            .structures
            .iter()
            .any(|one| matches!(&one.kind, Kind::View { function: Function::Custom, .. }));
        let setup = Setup {
            memtable_bytes: *dice.pick(&[8 << 10, 24 << 10, 64 << 10]),
            fan_out: 2 + dice.below(3),
            seal_vectors: *dice.pick(&[Some(2), Some(5), Some(16), None]),
            segment_bytes_min: *dice.pick(&[16 << 10, 32 << 10]),
            compression: dice.chance(25).then(|| Zstd {
                train_values: 8,
                train_bytes: 2 << 10,
                dictionary_bytes: 1 << 10,
                ..Zstd::default()
            }),
            durability: *dice.pick(&[Durability::Sync, Durability::Async]),
            waf_budget: dice.chance(15).then_some(4.0),
            history_micros: (!computes && dice.chance(40)).then_some(40_000),
        };
        let total: usize = ACTIONS.iter().map(|(_, weight)| weight).sum();
        let steps = (0..steps).map(|_| {
            let mut at = dice.below(total);
            let drawn = ACTIONS.iter().find(|(_, weight)| {
                let here = at < *weight;
                at = at.saturating_sub(*weight);
                here
            });
            let (action, _) = drawn.expect("within the sum of the weights");
            Step { action: *action, seed: dice.next() }
        });
        let steps = steps.collect();
        Self { seed, setup, schema, steps }
    }

    /// The plan with these of its steps only.
    pub fn keeping(&self, kept: &[usize]) -> Self {
        let steps = kept.iter().filter_map(|at| self.steps.get(*at).copied()).collect();
        Self { steps, ..self.clone() }
    }
}

/// Structures of every kind, some of them twice, with what may be declared of them drawn.
fn schema(dice: &Dice) -> Schema {
    let policy = || {
        *dice.pick(&[
            r#"{"kind":"eager"}"#,
            r#"{"kind":"lazy"}"#,
            r#"{"kind":"hybrid","max_age":50000,"max_items":8,"max_bytes":4096}"#,
        ])
    };
    let list = |items: Vec<&str>| format!("[{}]", items.join(","));
    let mut all = Vec::new();
    let mut declare = |name: &str, kind: &str, rest: String| {
        let policy = policy();
        all.push(format!(r#"{{"name":"{name}","kind":"{kind}"{rest},"policy":{policy}}}"#));
    };
    let indexes = [r#"["user"]"#, r#"["topic","n"]"#, r#"["n"]"#, r#"["user","topic","n"]"#];
    let indexes = list(dice.some(&indexes, 50));
    let unique = list(dice.some(&[r#"["slug"]"#, r#"["topic","code"]"#], 40));
    declare(
        "facts",
        "rows",
        format!(r#","codec":"msgpack","indexes":{indexes},"unique":{unique}"#),
    );
    declare("blobs", "rows", r#","codec":"raw""#.to_owned());
    let metric = *dice.pick(&["l2", "cosine", "dot"]);
    let codes = *dice.pick(&["i8", "i8", "bf16", "f32"]);
    declare(
        "embeddings",
        "vectors",
        format!(r#","dim":10,"metric":"{metric}","codes":"{codes}","rows":"facts""#),
    );
    if dice.chance(30) {
        declare("loose", "vectors", r#","dim":3,"metric":"l2""#.to_owned());
    }
    let capture = list(dice.some(&[r#""facts""#, r#""blobs""#], 60));
    declare("events", "events", format!(r#","capture":{capture}"#));
    if dice.chance(30) {
        declare("journal", "events", r#","capture":["facts"]"#.to_owned());
    }
    if dice.chance(80) {
        declare("audit", "audit", String::new());
    }
    declare("session", "cache", r#","ttl":1500000"#.to_owned());
    if dice.chance(60) {
        declare("warm", "cache", r#","ttl":1500000,"source":"facts""#.to_owned());
    }
    declare("context", "context", String::new());
    declare("entities", "graph", String::new());
    let by = || *dice.pick(&[r#"["user"]"#, r#"["user","topic"]"#]);
    let views = [
        ("profile", r#"{"name":"custom"}"#),
        ("tally", r#"{"name":"count"}"#),
        ("totals", r#"{"name":"sum","field":"n"}"#),
    ];
    for (name, function) in dice.some(&views, 60) {
        let rest = format!(r#","source":"facts","by":{},"function":{function}"#, by());
        declare(name, "view", rest);
    }
    let text = format!(r#"{{"structures":[{}]}}"#, all.join(","));
    let mut schema = Schema::from_json(&text).expect("what is drawn can be declared");
    for (number, structure) in schema.structures.iter_mut().enumerate() {
        structure.id = number as u32 + 1;
    }
    schema
}
