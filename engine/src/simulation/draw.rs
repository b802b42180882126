//! Draws operations and questions over a small world, where everything meets everything.

use super::dice::Dice;
use super::world::{Ask, Bounds, Bytes, Condition, Conditions, Document, Field, Group, Op, Way};
use super::world::{Id, Lsn, Micros, Vector};
use crate::schema::{Function, Kind, RowCodec, Schema, Structure};

const KEYS: usize = 9;
const USERS: usize = 3;
const TOPICS: usize = 2;
const NODES: usize = 5;
const SCOPES: usize = 3;
/// Around what a page, a block and a value in a frame take.
const TEXT_LONG: usize = 4_200;

pub struct Draw<'a> {
    pub dice: &'a Dice,
    pub schema: &'a Schema,
    /// Engine time.
    pub now: Micros,
}

pub fn key(number: usize) -> String {
    format!("k{number}")
}

fn text(dice: &Dice) -> String {
    let length = match dice.below(24) {
        0..14 => dice.below(20),
        14..23 => 32 + dice.below(200),
        _ => TEXT_LONG + dice.below(2_000),
    };
    let first = dice.below(26);
    (0..length).map(|at| (b'a' + ((first + at * at) % 26) as u8) as char).collect()
}

fn number(dice: &Dice) -> Field {
    match dice.below(12) {
        0 => Field::None,
        1 => Field::Bool(dice.chance(50)),
        2 => Field::Str(format!("n{}", dice.below(3))),
        3 | 4 => Field::Float(dice.below(40) as f64 / 2.0 - 10.0),
        // Beyond what float64 tells apart.
        5 => Field::Int((1 << 53) + dice.below(3) as i64),
        _ => Field::Int(dice.below(40) as i64 - 20),
    }
}

impl Draw<'_> {
    fn of_kind(&self, is: impl Fn(&Structure) -> bool) -> Option<Id> {
        let all: Vec<Id> =
            self.schema.structures.iter().filter(|one| is(one)).map(|one| one.id).collect();
        (!all.is_empty()).then(|| *self.dice.pick(&all))
    }

    fn is_linked(&self, id: Id) -> bool {
        let kind = self.schema.by_id(id).map(|one| &one.kind);
        matches!(kind, Some(Kind::Vectors { rows: Some(_), .. }))
    }

    pub fn key(&self) -> String {
        key(self.dice.below(KEYS))
    }

    fn value(&self) -> Field {
        match self.dice.below(6) {
            0 => Field::Int(self.dice.next() as i64),
            1 => Field::None,
            _ => Field::Str(text(self.dice)),
        }
    }

    fn user(&self) -> Field {
        Field::Str(format!("u{}", self.dice.below(USERS)))
    }

    fn topic(&self) -> Field {
        Field::Str(format!("t{}", self.dice.below(TOPICS)))
    }

    fn document(&self) -> Document {
        let mut document = Document::new();
        let mut put = |name: &str, value: Field| drop(document.insert(name.to_owned(), value));
        if self.dice.chance(95) {
            put("user", self.user());
        }
        if self.dice.chance(70) {
            put("topic", self.topic());
        }
        if self.dice.chance(90) {
            put("n", number(self.dice));
        }
        if self.dice.chance(40) {
            put("slug", Field::Str(format!("s{}", self.dice.below(30))));
        }
        if self.dice.chance(30) {
            put("code", Field::Int(self.dice.below(12) as i64));
        }
        put("text", Field::Str(text(self.dice)));
        document
    }

    fn vector(&self, dim: usize) -> Vector {
        let mut vector: Vector = (0..dim).map(|_| self.dice.below(31) as i8 - 15).collect();
        // Under cosine a vector has a direction.
        vector[0] = if vector[0] == 0 { 1 } else { vector[0] };
        vector
    }

    pub fn group(&self, id: Id) -> Group {
        let two = matches!(
            self.schema.by_id(id).map(|one| &one.kind),
            Some(Kind::View { by, .. }) if by.len() == 2
        );
        let mut group = vec![self.user()];
        group.extend(two.then(|| self.topic()));
        group
    }

    /// One operation of any structure that is written by hand.
    pub fn op(&self) -> Op {
        let structure = self.dice.pick(&self.schema.structures);
        let (id, key) = (structure.id, self.key());
        let deletes = self.dice.chance(25);
        match &structure.kind {
            Kind::Rows { .. } | Kind::Vectors { .. } | Kind::Cache { .. } if deletes => {
                Op::Delete { id, key: key.into_bytes() }
            }
            Kind::Rows { codec: RowCodec::Raw, .. } => {
                Op::PutRaw { id, key: key.into_bytes(), value: text(self.dice).into_bytes() }
            }
            Kind::Rows { .. } => Op::PutRow { id, key, document: self.document() },
            Kind::Vectors { dim, .. } => Op::PutVector { id, key, vector: self.vector(*dim) },
            Kind::Events { .. } => {
                let kind = format!("e{}", self.dice.below(3));
                let key = self.dice.chance(60).then_some(key);
                Op::Append { id, kind, key, payload: self.dice.chance(60).then(|| self.value()) }
            }
            Kind::Cache { .. } => {
                let ttl = 20_000 + self.dice.below(600_000) as Micros;
                Op::CachePut { id, key, value: self.value(), ttl, expires: self.now + ttl }
            }
            Kind::Context {} => self.context(id, deletes),
            Kind::Graph {} => self.edge(id, deletes),
            // These follow from the others.
            Kind::Audit {} | Kind::View { .. } => {
                let rows = self.of_kind(|one| one.name == "facts").expect("always declared");
                Op::PutRow { id: rows, key, document: self.document() }
            }
        }
    }

    fn context(&self, id: Id, deletes: bool) -> Op {
        let scope = format!("c{}", self.dice.below(SCOPES));
        let name = format!("m{}", self.dice.below(3));
        match deletes {
            true => {
                let name = self.dice.chance(60).then_some(name);
                Op::ContextDelete { id, scope, name }
            }
            false => Op::ContextSet { id, scope, name, value: self.value() },
        }
    }

    fn node(&self) -> String {
        format!("n{}", self.dice.below(NODES))
    }

    fn edge(&self, id: Id, deletes: bool) -> Op {
        let (source, target) = (self.node(), self.node());
        let relation = format!("r{}", self.dice.below(2));
        match deletes {
            true => Op::Unlink { id, source, relation, target },
            false => {
                let props = self.dice.chance(50).then(|| self.value());
                Op::Link { id, source, relation, target, props }
            }
        }
    }

    /// Of a transaction: a fact often comes with its vector, a vector mostly with its fact.
    pub fn ops(&self) -> Vec<Op> {
        let mut ops: Vec<Op> = (0..1 + self.dice.below(4)).map(|_| self.op()).collect();
        let vectors = ops.iter().filter_map(|op| match op {
            Op::PutVector { id, key, .. } if self.is_linked(*id) => Some(key.clone()),
            _ => None,
        });
        let facts = self.of_kind(|one| one.name == "facts").expect("always declared");
        let rows: Vec<Op> = vectors
            .filter(|_| self.dice.chance(80))
            .map(|key| Op::PutRow { id: facts, key, document: self.document() })
            .collect();
        ops.extend(rows);
        let put = ops.iter().find_map(|op| match op {
            Op::PutRow { key, .. } => Some(key.clone()),
            _ => None,
        });
        if let Some(key) = put.filter(|_| self.dice.chance(60))
            && let Some(id) = self.of_kind(|one| one.name == "embeddings")
        {
            ops.push(Op::PutVector { id, key, vector: self.vector(10) });
        }
        ops
    }

    pub fn result(&self, input: Lsn) -> Option<Op> {
        let custom =
            |one: &Structure| matches!(&one.kind, Kind::View { function: Function::Custom, .. });
        let id = self.of_kind(custom)?;
        let document = Document::from([("text".to_owned(), Field::Str(text(self.dice)))]);
        Some(Op::Result { id, group: self.group(id), document, input })
    }

    pub fn forget(&self) -> Op {
        let forgets = |one: &Structure| !matches!(one.kind, Kind::Audit {} | Kind::View { .. });
        let id = self.of_kind(forgets).expect("rows are always declared");
        let kind = &self.schema.by_id(id).expect("just found").kind;
        let parts = match kind {
            Kind::Context {} => {
                vec![format!("c{}", self.dice.below(SCOPES)), format!("m{}", self.dice.below(3))]
            }
            Kind::Graph {} => {
                vec![self.node(), format!("r{}", self.dice.below(2)), self.node()]
            }
            _ => vec![self.key()],
        };
        Op::Forget { id, parts: parts.into_iter().map(String::into_bytes).collect() }
    }

    fn condition(&self, field: &str) -> Condition {
        let value = || match field {
            "user" => self.user(),
            "topic" => self.topic(),
            "n" => number(self.dice),
            "code" => Field::Int(self.dice.below(12) as i64),
            _ => Field::Str(format!("s{}", self.dice.below(30))),
        };
        let class = std::mem::discriminant::<Field>;
        match self.dice.below(4) {
            0 | 1 => Condition::Equal(value()),
            2 => Condition::AnyOf((0..1 + self.dice.below(3)).map(|_| value()).collect()),
            _ => {
                let (low, high) = (value(), value());
                let bound = |value: Field| {
                    let open = value == Field::None || self.dice.chance(25);
                    (!open).then_some(value)
                };
                let of_one = class(&low) == class(&high);
                let (low, high) = (bound(low), bound(high).filter(|_| of_one));
                Condition::Range { low, high }
            }
        }
    }

    fn conditions(&self) -> Conditions {
        let fields = self.dice.some(&["user", "topic", "n", "slug", "code"], 35);
        fields.into_iter().map(|field| (field.to_owned(), self.condition(field))).collect()
    }

    fn bounds(&self) -> Bounds {
        let bound = || self.dice.chance(30).then(|| self.key().into_bytes());
        Bounds {
            prefix: self.dice.chance(20).then(|| b"k".to_vec()),
            start: bound(),
            end: bound(),
            after: bound(),
            limit: self.dice.chance(30).then(|| 1 + self.dice.below(5)),
            reverse: self.dice.chance(40),
        }
    }

    /// A question; `past`: only such as may be asked of any LSN.
    pub fn ask(&self, past: bool, newest: Lsn) -> Ask {
        let structure = self.dice.pick(&self.schema.structures);
        self.ask_of(structure, past, newest).unwrap_or_else(|| {
            let id = self.of_kind(|one| one.name == "facts").expect("always declared");
            Ask::Get { id, key: self.key().into_bytes() }
        })
    }

    pub fn ask_of(&self, structure: &Structure, past: bool, newest: Lsn) -> Option<Ask> {
        let id = structure.id;
        let get = || Ask::Get { id, key: self.key().into_bytes() };
        Some(match &structure.kind {
            Kind::Rows { codec: RowCodec::Msgpack, .. } => match self.dice.below(6) {
                0 => get(),
                1 => Ask::Count { id },
                2 => Ask::Scan { id, bounds: self.bounds() },
                _ => {
                    let field = *self.dice.pick(&["user", "topic", "n", "slug"]);
                    let order = (field.to_owned(), self.dice.chance(50));
                    Ask::Find {
                        id,
                        conditions: self.conditions(),
                        order: self.dice.chance(50).then_some(order),
                        limit: self.dice.chance(30).then(|| 1 + self.dice.below(4)),
                    }
                }
            },
            Kind::Rows { .. } => match self.dice.below(3) {
                0 => get(),
                1 => Ask::Count { id },
                _ => Ask::Scan { id, bounds: self.bounds() },
            },
            Kind::Vectors { dim, rows, .. } => match self.dice.below(6) {
                0 => get(),
                1 => Ask::Count { id },
                2 => Ask::Scan { id, bounds: self.bounds() },
                _ => {
                    let filters = rows.is_some() && self.dice.chance(40);
                    Ask::Search {
                        id,
                        vector: self.vector(*dim),
                        k: 1 + self.dice.below(12),
                        exact: self.dice.chance(50),
                        conditions: if filters { self.conditions() } else { Vec::new() },
                    }
                }
            },
            Kind::Events { .. } => {
                let place = || {
                    let lsn = self.dice.next() % (newest + 1);
                    self.dice.chance(30).then(|| (lsn, self.dice.below(4) as u32))
                };
                Ask::Events {
                    id,
                    after: place(),
                    until: place(),
                    kind: self.dice.chance(20).then(|| format!("e{}", self.dice.below(3))),
                    key: self.dice.chance(30).then(|| self.key().into_bytes()),
                    limit: self.dice.chance(30).then(|| 1 + self.dice.below(5)),
                    reverse: self.dice.chance(40),
                }
            }
            // A cache has no history.
            Kind::Cache { .. } if past => return None,
            Kind::Cache { .. } => match self.dice.below(2) {
                0 => get(),
                _ => Ask::Scan { id, bounds: self.bounds() },
            },
            Kind::Context {} => match self.dice.below(3) {
                0 => Ask::Scopes { id },
                1 => Ask::Count { id },
                _ => Ask::Load { id, scope: format!("c{}", self.dice.below(SCOPES)) },
            },
            Kind::Graph {} => match self.dice.below(4) {
                0 => Ask::Count { id },
                1 => Ask::Edges { id, node: self.node() },
                _ => Ask::Neighbors {
                    id,
                    node: self.node(),
                    relation: self.dice.chance(40).then(|| format!("r{}", self.dice.below(2))),
                    way: *self.dice.pick(&[Way::Out, Way::In, Way::Both]),
                    depth: 1 + self.dice.below(3),
                },
            },
            Kind::Audit {} => Ask::Count { id },
            Kind::View { function, .. } => match (function, past) {
                (Function::Custom, true) => Ask::Result { id, group: self.group(id) },
                (Function::Custom, false) => match self.dice.below(3) {
                    0 => Ask::Result { id, group: self.group(id) },
                    1 => Ask::Inputs { id, group: self.group(id) },
                    _ => Ask::Stale { id },
                },
                (_, true) => return None,
                (_, false) => Ask::Figures { id, group: self.group(id) },
            },
        })
    }

    /// Everything there is to ask.
    pub fn everything(&self, past: bool) -> Vec<Ask> {
        self.schema.structures.iter().flat_map(|one| self.all_of(one, past)).collect()
    }

    fn all_of(&self, structure: &Structure, past: bool) -> Vec<Ask> {
        let id = structure.id;
        let keys = || (0..KEYS).map(key);
        let whole = || Ask::Scan { id, bounds: Bounds::default() };
        let groups = || {
            let two = self.group(id).len() == 2;
            let users = (0..USERS).map(|user| Field::Str(format!("u{user}")));
            users.flat_map(move |user| {
                let topics = if two { TOPICS } else { 1 };
                (0..topics).map(move |topic| {
                    let mut group = vec![user.clone()];
                    group.extend(two.then(|| Field::Str(format!("t{topic}"))));
                    group
                })
            })
        };
        match &structure.kind {
            Kind::Rows { codec: RowCodec::Msgpack, .. } => {
                let find = |field: &str, value: String| Ask::Find {
                    id,
                    conditions: vec![(field.to_owned(), Condition::Equal(Field::Str(value)))],
                    order: None,
                    limit: None,
                };
                let mut all = vec![whole(), Ask::Count { id }];
                all.extend(keys().map(|key| Ask::Get { id, key: key.into_bytes() }));
                all.extend((0..USERS).map(|user| find("user", format!("u{user}"))));
                all.extend((0..TOPICS).map(|topic| find("topic", format!("t{topic}"))));
                for descending in [false, true] {
                    let order = Some(("n".to_owned(), descending));
                    all.push(Ask::Find { id, conditions: Vec::new(), order, limit: None });
                }
                all
            }
            Kind::Rows { .. } => vec![whole(), Ask::Count { id }],
            Kind::Vectors { dim, .. } => {
                let search = |exact| Ask::Search {
                    id,
                    vector: self.vector(*dim),
                    k: 20,
                    exact,
                    conditions: Vec::new(),
                };
                vec![whole(), Ask::Count { id }, search(true), search(false)]
            }
            Kind::Events { .. } => vec![Ask::Events {
                id,
                after: None,
                until: None,
                kind: None,
                key: None,
                limit: None,
                reverse: false,
            }],
            Kind::Cache { .. } if past => Vec::new(),
            Kind::Cache { .. } => {
                let gets = keys().map(|key| Ask::Get { id, key: key.into_bytes() });
                gets.chain([whole()]).collect()
            }
            Kind::Context {} => {
                let loads = (0..SCOPES).map(|scope| Ask::Load { id, scope: format!("c{scope}") });
                loads.chain([Ask::Scopes { id }, Ask::Count { id }]).collect()
            }
            Kind::Graph {} => {
                let edges = (0..NODES).map(|node| Ask::Edges { id, node: format!("n{node}") });
                edges.chain([Ask::Count { id }]).collect()
            }
            Kind::Audit {} => vec![Ask::Count { id }],
            Kind::View { function: Function::Custom, .. } => {
                let results = groups().map(|group| Ask::Result { id, group });
                let inputs = groups().map(|group| Ask::Inputs { id, group });
                match past {
                    true => results.collect(),
                    false => results.chain(inputs).chain([Ask::Stale { id }]).collect(),
                }
            }
            Kind::View { .. } if past => Vec::new(),
            Kind::View { .. } => groups().map(|group| Ask::Figures { id, group }).collect(),
        }
    }
}

/// A raw key that no other operation has.
pub fn fresh_key(number: u64) -> Bytes {
    format!("fresh-{number}").into_bytes()
}
