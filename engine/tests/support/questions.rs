//! Asks an open database what the versioned model knows, and compares the answers.
//!
//! `one` is a random question, `all` is everything there is to know at one LSN.

use std::collections::{BTreeMap, BTreeSet};

use waferdb::clock::{Random, SeededRandom};
use waferdb::error::Error;
use waferdb::events::{Bounds as EventBounds, PENDING_LSN};
use waferdb::graph::Way;
use waferdb::reader::{Cursor, Page, Reader};
use waferdb::rows::read::Bounds;

use super::versions::*;

/// Seeded choices.
pub struct Dice(pub SeededRandom);

impl Dice {
    pub fn below(&self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }

    pub fn chance(&self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }
}

/// The keys that a run writes and asks for.
pub struct Pools {
    pub facts: Vec<String>,
    pub blobs: Vec<Bytes>,
    pub users: Vec<String>,
    pub scopes: Vec<String>,
    pub nodes: Vec<String>,
}

impl Pools {
    /// Shared prefixes, keys that are prefixes of others, zero and 0xFF bytes, long and very long
    /// keys.
    pub fn new(dice: &Dice) -> Self {
        let long = "l".repeat(300 + dice.below(1_500));
        let huge = "h".repeat(40_000 + dice.below(20_000));
        let stems = ["", "k", "shared/prefix/", "shared/prefix/deeper/", "z\u{0}", "\u{10FFFF}"];
        let mut facts: Vec<String> = Vec::new();
        for number in 0..30 + dice.below(30) {
            facts.push(format!("{}{number}", dice.pick(&stems)));
        }
        facts.extend([long.clone(), format!("{long}+"), huge.clone()]);
        let tails: [&[u8]; 7] = [b"\0", b"\0\0", b"\x01", b"a", b"ab", b"\xFF", b"\xFF\xFF"];
        let stems: [&[u8]; 6] = [b"", b"a", b"a\0", b"\xFF\xFF", b"shared", long.as_bytes()];
        let mut blobs: Vec<Bytes> = Vec::new();
        for stem in stems {
            blobs.extend(tails.iter().map(|tail| [stem, tail].concat()));
        }
        blobs.extend((0..80u32).map(|number| [b"n", &number.to_be_bytes()[..]].concat()));
        blobs.push(huge.into_bytes());
        blobs.dedup();
        let mut users: Vec<String> = (0..5).map(|number| format!("u{number}")).collect();
        users.push("u".repeat(900));
        let scopes = ["", "a", "a\u{0}", "ab", "team/one", "\u{10FFFF}"].map(str::to_owned).into();
        let nodes = ["n", "n\u{0}", "n\u{0}n", "o", "p", "q"].map(str::to_owned).into();
        Self { facts, blobs, users, scopes, nodes }
    }
}

/// Why a run ends.
pub enum Trouble {
    /// The engine refused.
    Engine(Error),
    /// The engine answered, and it is not so.
    Wrong(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Engine(error) => write!(out, "the engine refused: {error:?}"),
            Self::Wrong(what) => out.write_str(what),
        }
    }
}

pub type Outcome<T = ()> = Result<T, Trouble>;

pub fn wrong<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Trouble::Wrong(what.into()))
}

/// Compares; the message shows both from shortly before where they differ.
pub fn same<T: PartialEq + std::fmt::Debug>(found: T, wanted: T, what: &str) -> Outcome {
    if found == wanted {
        return Ok(());
    }
    let (found, wanted) = (format!("{found:?}"), format!("{wanted:?}"));
    let equal = found.bytes().zip(wanted.bytes()).take_while(|(a, b)| a == b).count();
    let part =
        |text: &str| -> String { text.chars().skip(equal.saturating_sub(160)).take(400).collect() };
    let (found, wanted) = (part(&found), part(&wanted));
    wrong(format!("{what}\n  found  … {found}\n  should … {wanted}"))
}

type Rows = Vec<(Bytes, Bytes, Lsn)>;

pub struct Asked<'a> {
    pub reader: &'a Reader,
    pub model: &'a Model,
    pub lsn: Lsn,
    /// Engine time.
    pub now: i64,
    /// A cache has no history: only what a snapshot has held since can be asked.
    pub caches: bool,
    /// The reader is a transaction's, and the model's newest commit is that transaction.
    pub pending: bool,
}

impl Asked<'_> {
    fn lsn_of(&self, found: Lsn) -> Lsn {
        if self.pending && found == PENDING_LSN { self.lsn } else { found }
    }

    fn rows(&self, mut cursor: Cursor, page: usize) -> Outcome<Rows> {
        let mut found = Vec::new();
        loop {
            let Page::Rows(rows) = cursor.page(page)? else { unreachable!("a cursor over rows") };
            if rows.is_empty() {
                return Ok(found);
            }
            let rows = rows.into_iter();
            found.extend(
                rows.map(|row| (row.key.to_vec(), row.value.to_vec(), self.lsn_of(row.lsn))),
            );
        }
    }

    /// Everything a structure holds by key, in key order.
    fn held(&self, id: u32) -> Rows {
        let (model, lsn) = (self.model, self.lsn);
        match id {
            FACTS => model
                .facts
                .live(lsn)
                .map(|(key, at, fact)| (key.clone().into_bytes(), fact.encode(), at))
                .collect(),
            BLOBS => model
                .blobs
                .live(lsn)
                .map(|(key, at, value)| (key.clone(), value.clone(), at))
                .collect(),
            EMBEDDINGS => model
                .vectors
                .live(lsn)
                .map(|(key, at, one)| (key.clone().into_bytes(), vector_bytes(*one), at))
                .collect(),
            cache => model
                .cache_keys(cache)
                .into_iter()
                .filter_map(|key| {
                    let (value, at) = model.cached(cache, &key, lsn, self.now)?;
                    Some((key.into_bytes(), value, at))
                })
                .collect(),
        }
    }

    fn keyed(&self, dice: &Dice) -> u32 {
        let all = [FACTS, BLOBS, EMBEDDINGS, SESSION, RECENT, WARM];
        all[dice.below(if self.caches { 6 } else { 3 })]
    }

    /// One random question.
    pub fn one(&self, dice: &Dice, pools: &Pools) -> Outcome {
        match dice.below(12) {
            0..3 => self.points(dice, pools),
            3..6 => self.scan(dice, pools),
            6..8 => self.find(dice, pools),
            8 | 9 => self.events(dice, pools),
            10 => self.context(dice, pools),
            _ => self.graph(dice, pools),
        }
    }

    /// Everything there is to know.
    pub fn all(&self) -> Outcome {
        let mut keyed = vec![FACTS, BLOBS, EMBEDDINGS];
        keyed.extend(CACHES.iter().filter(|_| self.caches));
        for id in keyed {
            let found = self.rows(self.reader.scan(id, &Bounds::default())?, 64)?;
            let wanted = self.held(id);
            let what = format!("structure {id} at {}", self.lsn);
            let count = wanted.len() as u64;
            same(found, wanted, &what)?;
            same(self.reader.count(id)?, count, &format!("count of {what}"))?;
        }
        let events: Vec<Event> = self.model.events(self.lsn).cloned().collect();
        same(self.reader.count(EVENTS)?, events.len() as u64, "count of events")?;
        self.compare_events(&EventBounds::default(), 100, events)?;
        self.find_by(&[("n", Asks::Between(-99, 99))], None, (None, None), 50)?;
        let users: BTreeSet<&str> =
            self.model.facts.live(self.lsn).map(|(_, _, fact)| fact.user.as_str()).collect();
        for user in users {
            self.find_by(&[("user", Asks::Is(user.to_owned()))], None, (None, None), 50)?;
        }
        self.all_context()?;
        self.all_edges()
    }

    fn points(&self, dice: &Dice, pools: &Pools) -> Outcome {
        let id = self.keyed(dice);
        let held: BTreeMap<Bytes, (Bytes, Lsn)> =
            self.held(id).into_iter().map(|(key, value, at)| (key, (value, at))).collect();
        let key = || match id {
            BLOBS => dice.pick(&pools.blobs).clone(),
            _ => dice.pick(&pools.facts).clone().into_bytes(),
        };
        let keys: Vec<Bytes> = (0..1 + dice.below(6)).map(|_| key()).collect();
        let many = self.reader.get_many(id, &keys)?;
        let at = self.lsn;
        for (key, found) in keys.iter().zip(many) {
            let what = format!("structure {id}, key {} at {at}", shown(key));
            let wanted = held.get(key);
            let value = wanted.map(|(value, _)| value.clone());
            same(found.map(|found| found.to_vec()), value.clone(), &format!("get_many: {what}"))?;
            let found = self.reader.get(id, key)?;
            same(found.map(|found| found.to_vec()), value, &format!("get: {what}"))?;
            same(self.reader.contains(id, key)?, wanted.is_some(), &format!("contains: {what}"))?;
            let read = self.reader.read(id, key)?;
            let read = read.map(|read| (read.value.to_vec(), self.lsn_of(read.lsn), read.time));
            let wanted =
                wanted.map(|(value, at)| (value.clone(), *at, self.model.times[*at as usize]));
            same(read, wanted, &format!("read: {what}"))?;
        }
        same(self.reader.count(id)?, held.len() as u64, &format!("count of {id} at {at}"))
    }

    fn scan(&self, dice: &Dice, pools: &Pools) -> Outcome {
        let id = self.keyed(dice);
        let key = || match id {
            BLOBS => dice.pick(&pools.blobs).clone(),
            _ => dice.pick(&pools.facts).clone().into_bytes(),
        };
        let some = |percent: usize| dice.chance(percent).then(key);
        let prefix = some(40).map(|key| key[..1 + dice.below(key.len())].to_vec());
        let limit = dice.chance(40).then(|| dice.below(20));
        let (start, end, after) = (some(30), some(30), some(25));
        let reverse = dice.chance(40);
        let bounds = Bounds { prefix, start, end, after, limit, reverse };
        let mut wanted = self.held(id);
        wanted.retain(|(key, ..)| is_within(&bounds, key));
        if reverse {
            wanted.reverse();
        }
        wanted.truncate(limit.unwrap_or(usize::MAX));
        let found = self.rows(self.reader.scan(id, &bounds)?, 1 + dice.below(30))?;
        same(found, wanted, &format!("scan of {id} at {}: {}", self.lsn, shown_bounds(&bounds)))
    }

    fn find(&self, dice: &Dice, pools: &Pools) -> Outcome {
        let user = || dice.pick(&pools.users).clone();
        let topic = Asks::Is(format!("t{}", dice.below(3)));
        let low = dice.below(40) as i64 - 20;
        let n = Asks::Between(low, low + dice.below(20) as i64);
        let asks = match dice.below(7) {
            0 => vec![("user", Asks::Is(user()))],
            1 => vec![("user", Asks::AnyOf(vec![user(), user(), user()]))],
            2 => vec![("topic", topic), ("n", n)],
            3 => vec![("n", n)],
            4 => vec![("slug", Asks::Is(slug(dice, dice.below(pools.facts.len()))))],
            5 => vec![("topic", topic)],
            _ => vec![("user", Asks::Is(user())), ("n", n)],
        };
        let order = *dice.pick(&[None, None, Some("n"), Some("-n")]);
        let limit = dice.chance(40).then(|| dice.below(8));
        let after = dice.chance(30).then(|| dice.below(5));
        self.find_by(&asks, order, (limit, after), 1 + dice.below(12))
    }

    /// `after`: behind so many of the answers.
    fn find_by(
        &self,
        asks: &[(&str, Asks)],
        order: Option<&str>,
        (limit, after): (Option<usize>, Option<usize>),
        page: usize,
    ) -> Outcome {
        let facts = self.model.facts.live(self.lsn);
        let mut wanted: Vec<(i64, Bytes, Bytes, Lsn)> = facts
            .filter(|(_, _, fact)| asks.iter().all(|(field, ask)| ask.holds(field, fact)))
            .map(|(key, at, fact)| {
                let place = order.map_or(0, |order| if order == "n" { fact.n } else { -fact.n });
                (place, key.clone().into_bytes(), fact.encode(), at)
            })
            .collect();
        wanted.sort();
        let mut wanted: Rows =
            wanted.into_iter().map(|(_, key, value, at)| (key, value, at)).collect();
        let mut behind = None;
        if let Some(after) = after.filter(|after| *after < wanted.len()) {
            behind = Some(wanted[after].0.clone());
            wanted.drain(..=after);
        }
        wanted.truncate(limit.unwrap_or(usize::MAX));
        let mut conditions = vec![0x80 | asks.len() as u8];
        asks.iter().for_each(|(field, ask)| ask.encode(field, &mut conditions));
        let found = self.reader.find(FACTS, &conditions, order, limit, behind.as_deref())?;
        let found = self.rows(found, page)?;
        let behind = behind.as_deref().map(shown);
        let what = format!(
            "find {asks:?} order {order:?} limit {limit:?} after {behind:?} at {}",
            self.lsn
        );
        same(found, wanted, &what)
    }

    fn events(&self, dice: &Dice, pools: &Pools) -> Outcome {
        let place = || (dice.below(self.lsn as usize + 2) as Lsn, dice.below(4) as u32);
        let kinds = ["facts.put", "facts.delete", "blobs.put", "seen", "learned"];
        let bounds = EventBounds {
            after: dice.chance(50).then(place),
            until: dice.chance(50).then(place),
            kind: dice.chance(30).then(|| (*dice.pick(&kinds)).to_owned()),
            key: dice.chance(30).then(|| dice.pick(&pools.facts).clone().into_bytes()),
            limit: dice.chance(40).then(|| dice.below(30)),
            reverse: dice.chance(40),
        };
        let is_within = |event: &&Event| {
            let own = self.pending && event.lsn == self.lsn;
            let at = (if own { PENDING_LSN } else { event.lsn }, event.index);
            bounds.after.is_none_or(|after| at > after)
                && bounds.until.is_none_or(|until| at <= until)
                && bounds.kind.as_ref().is_none_or(|kind| *kind == event.kind)
                && bounds.key.as_ref().is_none_or(|key| Some(key) == event.key.as_ref())
        };
        let mut wanted: Vec<Event> =
            self.model.events(self.lsn).filter(is_within).cloned().collect();
        if bounds.reverse {
            wanted.reverse();
        }
        wanted.truncate(bounds.limit.unwrap_or(usize::MAX));
        self.compare_events(&bounds, 1 + dice.below(40), wanted)
    }

    fn compare_events(&self, bounds: &EventBounds, page: usize, wanted: Vec<Event>) -> Outcome {
        let mut cursor = self.reader.events(EVENTS, bounds)?;
        let mut found = Vec::new();
        loop {
            let Page::Events(events) = cursor.page(page)? else {
                unreachable!("a cursor over events")
            };
            if events.is_empty() {
                let key = bounds.key.as_deref().map(shown);
                let bounds = EventBounds { key: None, ..bounds.clone() };
                let what = format!("events at {}: key {key:?}, {bounds:?}", self.lsn);
                return same(found, wanted, &what);
            }
            found.extend(events.into_iter().map(|(event, time)| Event {
                lsn: self.lsn_of(event.lsn),
                index: event.index,
                time,
                origin: event.origin,
                kind: event.kind,
                key: event.key,
                payload: event.payload.map(|payload| payload.to_vec()),
            }));
        }
    }

    fn scope(&self, scope: &str) -> Vec<(String, Bytes)> {
        let all = self.model.context.live(self.lsn).filter(|(key, ..)| key.0 == scope);
        all.map(|(key, _, value)| (key.1.clone(), value.clone())).collect()
    }

    fn context(&self, dice: &Dice, pools: &Pools) -> Outcome {
        let (scope, name) = (dice.pick(&pools.scopes), format!("m{}", dice.below(4)));
        let found = self.reader.context_get(CONTEXT, scope, &name)?;
        let found = found.map(|found| (found.value.to_vec(), self.lsn_of(found.lsn)));
        let wanted = self.model.context.get(&(scope.clone(), name.clone()), self.lsn);
        let wanted = wanted.map(|(at, value)| (value.clone(), at));
        same(found, wanted, &format!("context {scope:?}, {name:?} at {}", self.lsn))?;
        self.load(scope)
    }

    fn load(&self, scope: &str) -> Outcome {
        let found = self.reader.context_load(CONTEXT, scope)?.into_iter();
        let found: Vec<_> = found.map(|(name, value)| (name, value.to_vec())).collect();
        same(found, self.scope(scope), &format!("scope {scope:?} at {}", self.lsn))
    }

    fn all_context(&self) -> Outcome {
        let live = self.model.context.live(self.lsn);
        let scopes: BTreeSet<String> = live.map(|(key, ..)| key.0.clone()).collect();
        let wanted: Vec<String> = scopes.into_iter().collect();
        let found = self.reader.context_scopes(CONTEXT)?;
        same(&found, &wanted, &format!("scopes at {}", self.lsn))?;
        same(
            self.reader.count(CONTEXT)?,
            self.model.context.live(self.lsn).count() as u64,
            "count of names",
        )?;
        wanted.iter().try_for_each(|scope| self.load(scope))
    }

    fn graph(&self, dice: &Dice, pools: &Pools) -> Outcome {
        let node = dice.pick(&pools.nodes);
        let relation = dice.chance(40).then(|| format!("r{}", dice.below(2)));
        let way = *dice.pick(&[Way::Out, Way::In, Way::Both]);
        let depth = 1 + dice.below(3);
        let found =
            self.reader.neighbors(ENTITIES, node, relation.as_deref(), way, depth)?.into_iter();
        let found: BTreeMap<String, usize> = found.map(|one| (one.node, one.depth)).collect();
        let mut wanted = BTreeMap::from([(node.clone(), 0)]);
        for step in 1..=depth {
            let known = wanted.clone();
            for (edge, ..) in self.model.edges.live(self.lsn) {
                if relation.as_ref().is_some_and(|relation| *relation != edge.1) {
                    continue;
                }
                if way != Way::In && known.contains_key(&edge.0) {
                    wanted.entry(edge.2.clone()).or_insert(step);
                }
                if way != Way::Out && known.contains_key(&edge.2) {
                    wanted.entry(edge.0.clone()).or_insert(step);
                }
            }
        }
        wanted.remove(node);
        let at = self.lsn;
        same(found, wanted, &format!("neighbors {node:?} {relation:?} {way:?} {depth} at {at}"))?;
        self.edges(node)
    }

    fn edges(&self, node: &str) -> Outcome {
        let found = self.reader.edges(ENTITIES, node)?.into_iter();
        let found: BTreeMap<EdgeKey, Option<Bytes>> = found
            .map(|edge| {
                let props = edge.props.map(|props| props.to_vec());
                ((edge.source, edge.relation, edge.target), props)
            })
            .collect();
        let live = self.model.edges.live(self.lsn);
        let wanted = live
            .filter(|(edge, ..)| edge.0 == node || edge.2 == node)
            .map(|(edge, _, props)| (edge.clone(), props.clone()))
            .collect();
        same(found, wanted, &format!("edges of {node:?} at {}", self.lsn))
    }

    fn all_edges(&self) -> Outcome {
        let live: Vec<&EdgeKey> = self.model.edges.live(self.lsn).map(|(edge, ..)| edge).collect();
        same(self.reader.count(ENTITIES)?, live.len() as u64, "count of edges")?;
        let nodes: BTreeSet<&String> = live.iter().flat_map(|edge| [&edge.0, &edge.2]).collect();
        nodes.into_iter().try_for_each(|node| self.edges(node))
    }
}

/// A condition of `find` on one field.
#[derive(Debug)]
enum Asks {
    Is(String),
    AnyOf(Vec<String>),
    /// From the first to below the second.
    Between(i64, i64),
}

impl Asks {
    fn holds(&self, field: &str, fact: &Fact) -> bool {
        let text = match field {
            "user" => Some(&fact.user),
            "topic" => fact.topic.as_ref(),
            _ => fact.slug.as_ref(),
        };
        match self {
            Self::Is(value) => text == Some(value),
            Self::AnyOf(values) => text.is_some_and(|text| values.contains(text)),
            Self::Between(low, high) => (*low..*high).contains(&fact.n),
        }
    }

    /// As `find` takes it: the field, then a list of operator and operands.
    fn encode(&self, field: &str, out: &mut Bytes) {
        put_text(out, field);
        match self {
            Self::Is(value) => {
                out.push(0x92);
                put_text(out, "=");
                put_text(out, value);
            }
            Self::AnyOf(values) => {
                out.push(0x92);
                put_text(out, "in");
                out.push(0x90 | values.len() as u8);
                values.iter().for_each(|value| put_text(out, value));
            }
            Self::Between(low, high) => {
                out.push(0x93);
                put_text(out, "range");
                put_int(out, *low);
                put_int(out, *high);
            }
        }
    }
}

fn is_within(bounds: &Bounds, key: &[u8]) -> bool {
    let behind = |after: &Bytes| if bounds.reverse { key < after } else { key > after };
    bounds.prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix))
        && bounds.start.as_ref().is_none_or(|start| key >= start)
        && bounds.end.as_ref().is_none_or(|end| key < end)
        && bounds.after.as_ref().is_none_or(behind)
}

/// A key as a message shows it.
pub fn shown(key: &[u8]) -> String {
    let text = key[..key.len().min(24)].escape_ascii().to_string();
    if key.len() > 24 { format!("{text}… ({} bytes)", key.len()) } else { text }
}

fn shown_bounds(bounds: &Bounds) -> String {
    let one = |key: &Option<Bytes>| key.as_deref().map_or("-".to_owned(), shown);
    format!(
        "prefix {}, start {}, end {}, after {}, limit {:?}, reverse {}",
        one(&bounds.prefix),
        one(&bounds.start),
        one(&bounds.end),
        one(&bounds.after),
        bounds.limit,
        bounds.reverse
    )
}

/// A slug of the fact with this number, and sometimes one that any fact may have.
pub fn slug(dice: &Dice, number: usize) -> String {
    if dice.chance(6) {
        format!("any-{}", dice.below(12))
    } else {
        format!("{number}-{}", dice.below(2))
    }
}

pub fn vector(one: i8) -> [f32; 2] {
    [f32::from(one), 1.0]
}

fn vector_bytes(one: i8) -> Bytes {
    vector(one).iter().flat_map(|component| component.to_le_bytes()).collect()
}
