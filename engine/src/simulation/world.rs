//! The words in which the simulator speaks: what is declared, done and asked, and what is answered.
//!
//! The engine and the oracle are two speakers of them. Neither knows the other: `engine.rs` says an
//! operation to a database and asks it, `oracle/` says what must be answered, and `answer.rs`
//! compares. A structure is named by its id, which is its place in the schema, from 1.

use std::collections::BTreeMap;

pub type Id = u32;
pub type Lsn = u64;
/// Microseconds since the Unix epoch.
pub type Micros = i64;
pub type Bytes = Vec<u8>;

/// A value of a document, and what caches, contexts, edges and events carry.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
}

/// A row of a structure with codec `msgpack`; encoded with its fields in the order of their names.
pub type Document = BTreeMap<String, Field>;

/// Components are small integers, so that distances are exact in float64.
pub type Vector = Vec<i8>;

/// The values of a view's `by` fields.
pub type Group = Vec<Field>;

/// Key parts, text but for rows with codec `raw`.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    PutRow {
        id: Id,
        key: String,
        document: Document,
    },
    PutRaw {
        id: Id,
        key: Bytes,
        value: Bytes,
    },
    /// Of rows (of either codec) or vectors or a cache; an absent one is no error.
    Delete {
        id: Id,
        key: Bytes,
    },
    PutVector {
        id: Id,
        key: String,
        vector: Vector,
    },
    Append {
        id: Id,
        kind: String,
        key: Option<String>,
        payload: Option<Field>,
    },
    /// `expires` is what the engine's clock said when it was put, and `ttl`.
    CachePut {
        id: Id,
        key: String,
        value: Field,
        ttl: Micros,
        expires: Micros,
    },
    ContextSet {
        id: Id,
        scope: String,
        name: String,
        value: Field,
    },
    /// One name, or the whole scope.
    ContextDelete {
        id: Id,
        scope: String,
        name: Option<String>,
    },
    Link {
        id: Id,
        source: String,
        relation: String,
        target: String,
        props: Option<Field>,
    },
    Unlink {
        id: Id,
        source: String,
        relation: String,
        target: String,
    },
    /// A result of a view's function, made of its inputs as of `input`.
    Result {
        id: Id,
        group: Group,
        document: Document,
        input: Lsn,
    },
    /// Masks every version up to this commit, at every LSN. Parts: a key; scope and name; source,
    /// relation and target.
    Forget {
        id: Id,
        parts: Vec<Bytes>,
    },
}

/// What was committed, in the order of LSNs, from 1 without a gap.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    pub lsn: Lsn,
    /// Engine time, which never decreases.
    pub time: Micros,
    pub txn: String,
    pub actor: Option<String>,
    pub reason: Option<String>,
    pub ops: Vec<Op>,
}

/// A condition of `find` on one field. Values of different classes (None, bool, number, text) are
/// never equal nor in one range; int and float are one class, compared exactly.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    Equal(Field),
    AnyOf(Vec<Field>),
    /// From `low` to below `high`, of the class of the bound that is given.
    Range {
        low: Option<Field>,
        high: Option<Field>,
    },
}

/// At most one for a field.
pub type Conditions = Vec<(String, Condition)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Out,
    In,
    Both,
}

/// Bounds of a scan in key order. `after` is exclusive, in the direction of the scan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bounds {
    pub prefix: Option<Bytes>,
    pub start: Option<Bytes>,
    pub end: Option<Bytes>,
    pub after: Option<Bytes>,
    pub limit: Option<usize>,
    pub reverse: bool,
}

/// A question, put at one LSN.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// Of rows, vectors or a cache: [`Answer::Read`].
    Get { id: Id, key: Bytes },
    /// Of rows, vectors, a context (names in scopes) or a graph (edges), or an audit (leaves):
    /// [`Answer::Count`].
    Count { id: Id },
    /// Of rows, vectors or a cache: [`Answer::Rows`] in key order.
    Scan { id: Id, bounds: Bounds },
    /// [`Answer::Rows`]: in the order of the field (`true`: descending; a document without it comes
    /// first when ascending), equal ones by key, ascending; in any order where none is given.
    Find { id: Id, conditions: Conditions, order: Option<(String, bool)>, limit: Option<usize> },
    /// [`Answer::Hits`].
    Search { id: Id, vector: Vector, k: usize, exact: bool, conditions: Conditions },
    /// `after` exclusive, `until` inclusive, as (LSN, index): [`Answer::Events`].
    Events {
        id: Id,
        after: Option<(Lsn, u32)>,
        until: Option<(Lsn, u32)>,
        kind: Option<String>,
        key: Option<Bytes>,
        limit: Option<usize>,
        reverse: bool,
    },
    /// [`Answer::Pairs`] of name and value, by name.
    Load { id: Id, scope: String },
    /// [`Answer::Pairs`] of scope and nothing, by scope.
    Scopes { id: Id },
    /// [`Answer::Neighbors`]: distinct nodes without the start, each at its least depth.
    Neighbors { id: Id, node: String, relation: Option<String>, way: Way, depth: usize },
    /// Edges from or to a node: [`Answer::Edges`].
    Edges { id: Id, node: String },
    /// The stored result of a group, of a view with a function of the caller's:
    /// [`Answer::Stored`].
    Result { id: Id, group: Group },
    /// What the engine keeps of a group, of a view that counts or sums: [`Answer::Figures`].
    Figures { id: Id, group: Group },
    /// (LSN, key) of what belongs to a group, by both: [`Answer::Inputs`].
    Inputs { id: Id, group: Group },
    /// Groups that changed since their result, or have none: [`Answer::Groups`]. Only as of now.
    Stale { id: Id },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub lsn: Lsn,
    pub index: u32,
    pub time: Micros,
    /// As the caller gave it, or "put" or "delete" where `origin` names what was captured.
    pub kind: String,
    pub origin: Option<Id>,
    pub key: Option<Bytes>,
    pub payload: Option<Bytes>,
}

/// (source, relation, target, props)
pub type Edge = (String, String, String, Option<Bytes>);

#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Value, the LSN that wrote it, and that LSN's time.
    Read(Option<(Bytes, Lsn, Micros)>),
    Count(u64),
    /// Key, value, LSN.
    Rows(Vec<(Bytes, Bytes, Lsn)>),
    /// Nearest first: key, distance. The oracle tells all that match, the engine k of them.
    Hits(Vec<(String, f64)>),
    Events(Vec<Event>),
    Pairs(Vec<(String, Bytes)>),
    /// Node and least depth, sorted.
    Neighbors(Vec<(String, usize)>),
    /// Sorted.
    Edges(Vec<Edge>),
    /// Document, and the LSN that wrote it.
    Stored(Option<(Bytes, Lsn)>),
    /// How many are in the group, and what their field adds up to where the view sums.
    Figures(Option<(u64, Option<f64>)>),
    Inputs(Vec<(Lsn, Bytes)>),
    /// The oracle tells them as `encode_group` does, the engine by its keys, sorted.
    Groups(Vec<Bytes>),
}

pub fn put_str(out: &mut Bytes, text: &str) {
    match text.len() {
        length @ 0..32 => out.push(0xA0 | length as u8),
        length => {
            out.push(0xDB);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

/// One value in msgpack.
pub fn put_field(out: &mut Bytes, field: &Field) {
    match field {
        Field::None => out.push(0xC0),
        Field::Bool(value) => out.push(0xC2 | u8::from(*value)),
        Field::Int(value) => {
            out.push(0xD3);
            out.extend_from_slice(&value.to_be_bytes());
        }
        Field::Float(value) => {
            out.push(0xCB);
            out.extend_from_slice(&value.to_be_bytes());
        }
        Field::Str(text) => put_str(out, text),
    }
}

pub fn encode_field(field: &Field) -> Bytes {
    let mut out = Vec::new();
    put_field(&mut out, field);
    out
}

/// At most 15 fields.
pub fn encode_document(document: &Document) -> Bytes {
    let mut out = vec![0x80 | document.len() as u8];
    for (name, value) in document {
        put_str(&mut out, name);
        put_field(&mut out, value);
    }
    out
}

/// A list of its values.
pub fn encode_group(group: &[Field]) -> Bytes {
    let mut out = vec![0x90 | group.len() as u8];
    group.iter().for_each(|value| put_field(&mut out, value));
    out
}

pub fn encode_vector(vector: &[i8]) -> Bytes {
    vector.iter().flat_map(|component| f32::from(*component).to_le_bytes()).collect()
}
