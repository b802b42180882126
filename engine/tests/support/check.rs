//! Compares every answer of an open database with the model's state after the same LSN.

use std::collections::{BTreeMap, BTreeSet};

use waferdb::database::Database;
use waferdb::error::Error;
use waferdb::events::Bounds as EventBounds;
use waferdb::graph::Way;
use waferdb::reader::{Cursor, Page, Reader};
use waferdb::rows::read::Bounds;
use waferdb::vector::Search;
use waferdb::verify::verify;

use super::model::*;
use super::workload::{Progress, group};

pub enum Problem {
    /// The engine refused to answer.
    Engine(Error),
    /// The engine answered, and it is not so.
    Wrong(String),
    /// `verify` found something, and said so.
    Unsound(String),
}

impl std::fmt::Display for Problem {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Engine(error) => write!(out, "the engine refused: {error:?}"),
            Self::Wrong(what) => out.write_str(what),
            Self::Unsound(what) => write!(out, "verify: {what}"),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

type Outcome<T = ()> = Result<T, Problem>;

macro_rules! same {
    ($found:expr, $wanted:expr, $($what:tt)*) => {{
        let (found, wanted) = (&$found, &$wanted);
        if *found != *wanted {
            let what = format!($($what)*);
            let (found, wanted) = from_difference(format!("{found:?}"), format!("{wanted:?}"));
            return Err(Problem::Wrong(format!("{what}: found {found}, should be {wanted}")));
        }
    }};
}

/// The two texts from shortly before where they differ.
fn from_difference(found: String, wanted: String) -> (String, String) {
    let same = found.bytes().zip(wanted.bytes()).take_while(|(a, b)| a == b).count();
    let part = |text: String| text.chars().skip(same.saturating_sub(200)).take(500).collect();
    (part(found), part(wanted))
}

/// What the workload did, all of it, as a run that was not cut off tells it.
pub struct Reference {
    pub commits: Vec<Commit>,
    pub rolled_back: Vec<String>,
    /// By LSN, from 0.
    pub states: Vec<State>,
}

impl Reference {
    pub fn of(commits: Vec<Commit>, rolled_back: Vec<String>) -> Self {
        let mut states = vec![State::default()];
        for commit in &commits {
            let mut next = states[states.len() - 1].clone();
            next.apply(commit);
            states.push(next);
        }
        Self { commits, rolled_back, states }
    }
}

/// Checks everything; returns the LSN that the database stands at.
pub fn check(db: &Database, reference: &Reference, progress: &Progress) -> Outcome<u64> {
    let lsn = db.lsn()?;
    if lsn < progress.required || lsn > progress.attempted {
        return Err(Problem::Wrong(format!(
            "the newest LSN is {lsn}; {} were acknowledged as durable, {} were written",
            progress.required, progress.attempted
        )));
    }
    let newest = &reference.states[lsn as usize];
    check_schema(db, progress)?;
    if db.schema().structures.is_empty() {
        return Ok(lsn);
    }
    let reader = db.reader_at(lsn)?;
    check_state(db, &reader, newest)?;
    check_caches(&reader, newest, progress.wall)?;
    check_views(&reader, newest)?;
    check_audit(db, lsn, reference)?;
    // A database that failed says nothing of outcomes before it is opened again.
    let decided = db.shared().pipeline.failure().is_none();
    for commit in reference.commits.iter().filter(|_| decided) {
        let known = db.outcome(&commit.txn)?;
        same!(known, commit.lsn <= lsn, "outcome of {:?}, LSN {}", commit.txn, commit.lsn);
    }
    for txn in reference.rolled_back.iter().filter(|_| decided) {
        same!(db.outcome(txn)?, false, "outcome of {txn:?}, which was rolled back");
    }
    // The one before, and one that goes with the time of the check through the whole history.
    let any = progress.wall.unsigned_abs() % lsn.max(1);
    for past in [any, lsn.saturating_sub(1)] {
        if past > 0 && past < lsn {
            let seen = reference.states[past as usize].seen_from(newest);
            check_state(db, &db.reader_at(past)?, &seen)?;
        }
    }
    if decided {
        verified(db)?;
    }
    Ok(lsn)
}

/// Whether `verify(deep=True)` finds the database sound.
pub fn verified(db: &Database) -> Outcome {
    let report = verify(db.shared(), true, &mut |_, _| {})?;
    match report.problems.first() {
        None if report.ok => Ok(()),
        first => Err(Problem::Unsound(format!("{} problems, {first:?}", report.problems_count))),
    }
}

fn check_schema(db: &Database, progress: &Progress) -> Outcome {
    let schema = db.schema();
    if schema.structures.is_empty() {
        same!(progress.schema_done, 0, "no structure is there, acknowledged schema version");
        return Ok(());
    }
    let facts = schema.by_id(FACTS);
    let facts = facts.ok_or_else(|| Problem::Wrong("the rows are not declared".to_owned()))?;
    let renamed = match facts.name.as_str() {
        "facts" => false,
        "knowledge" => true,
        name => return Err(Problem::Wrong(format!("the rows are named {name:?}"))),
    };
    let policy = schema.by_id(EMBEDDINGS).is_some_and(|known| known.policy_override.is_some());
    let extended = schema.by_id(NOTES).is_some();
    let version = match (extended, policy, renamed) {
        (false, false, false) => 1,
        (true, false, false) => 2,
        (true, true, false) => 3,
        (true, true, true) => 4,
        mixed => return Err(Problem::Wrong(format!("a schema that never was: {mixed:?}"))),
    };
    // Opening declares what the workload would have, so the version begun may be reached here.
    if version < progress.schema_done || version > progress.schema_begun.max(1) {
        return Err(Problem::Wrong(format!(
            "the schema is of version {version}; {} was acknowledged, {} begun",
            progress.schema_done, progress.schema_begun
        )));
    }
    Ok(())
}

type Rows = Vec<(Vec<u8>, Vec<u8>, u64)>;

fn rows(mut cursor: Cursor) -> Outcome<Rows> {
    let mut found = Vec::new();
    loop {
        let Page::Rows(page) = cursor.page(7)? else { unreachable!("a cursor over rows") };
        if page.is_empty() {
            return Ok(found);
        }
        let page = page.into_iter();
        found.extend(page.map(|row| (row.key.to_vec(), row.value.to_vec(), row.lsn)));
    }
}

fn check_state(db: &Database, reader: &Reader, state: &State) -> Outcome {
    let at = state.lsn;
    check_facts(reader, state)?;
    let blobs = rows(reader.scan(BLOBS, &Bounds::default())?)?;
    let wanted: Rows =
        state.blobs.iter().map(|(key, (value, lsn))| (key.clone(), value.clone(), *lsn)).collect();
    same!(blobs, wanted, "blobs at {at}");
    same!(reader.count(BLOBS)?, wanted.len() as u64, "count of blobs at {at}");
    check_vectors(reader, state)?;
    check_events(db, reader, state)?;
    check_context(db, reader, state)?;
    check_graph(reader, state)?;
    check_results(reader, state)
}

fn check_facts(reader: &Reader, state: &State) -> Outcome {
    let at = state.lsn;
    let found = rows(reader.scan(FACTS, &Bounds::default())?)?;
    let wanted: Rows = state
        .facts
        .iter()
        .map(|(key, (fact, lsn, _))| (key.clone().into_bytes(), fact.encode(), *lsn))
        .collect();
    same!(found, wanted, "rows at {at}");
    same!(reader.count(FACTS)?, wanted.len() as u64, "count of rows at {at}");
    for number in 0..9 {
        let key = format!("k{number}");
        let found = reader.read(FACTS, key.as_bytes())?;
        let found = found.map(|found| (found.value.to_vec(), found.lsn, found.time));
        let wanted = state.facts.get(&key).map(|(fact, lsn, time)| (fact.encode(), *lsn, *time));
        same!(found, wanted, "row {key:?} at {at}");
    }
    for user in ["u0", "u1", "u2"] {
        check_find(reader, state, &equal("user", user), |fact| fact.user == user)?;
    }
    for topic in ["t0", "t1"] {
        let mut conditions = equal("topic", topic);
        conditions[0] = 0x82;
        range(&mut conditions, "n", -5, 12);
        check_find(reader, state, &conditions, |fact| {
            fact.topic.as_deref() == Some(topic) && (-5..12).contains(&fact.n)
        })?;
    }
    let mut conditions = vec![0x81];
    range(&mut conditions, "n", -20, 0);
    check_find(reader, state, &conditions, |fact| (-20..0).contains(&fact.n))?;
    for slug in state.facts.values().filter_map(|(fact, ..)| fact.slug.as_deref()) {
        check_find(reader, state, &equal("slug", slug), |fact| fact.slug.as_deref() == Some(slug))?;
    }
    Ok(())
}

fn equal(field: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0x81];
    put_str(&mut out, field);
    out.push(0x92);
    put_str(&mut out, "=");
    put_str(&mut out, value);
    out
}

fn range(out: &mut Vec<u8>, field: &str, low: i64, high: i64) {
    put_str(out, field);
    out.push(0x93);
    put_str(out, "range");
    put_int(out, low);
    put_int(out, high);
}

fn check_find(
    reader: &Reader,
    state: &State,
    conditions: &[u8],
    matches: impl Fn(&Fact) -> bool,
) -> Outcome {
    let mut found = rows(reader.find(FACTS, conditions, None, None, None)?)?;
    found.sort();
    let matching = state.facts.iter().filter(|(_, (fact, ..))| matches(fact));
    let wanted: Rows = matching
        .map(|(key, (fact, lsn, _))| (key.clone().into_bytes(), fact.encode(), *lsn))
        .collect();
    let conditions = String::from_utf8_lossy(conditions);
    same!(found, wanted, "find {conditions:?} at {}", state.lsn);
    Ok(())
}

/// Results of the caller's view, at any LSN.
fn check_results(reader: &Reader, state: &State) -> Outcome {
    for number in 0..3 {
        let user = format!("u{number}");
        let found = reader.view_group(PROFILE, &group(&user))?.stored;
        let found = found.map(|(stored, _)| (stored.document.to_vec(), stored.lsn));
        let wanted = state.results.get(&user).cloned();
        same!(found, wanted, "result of {user:?} at {}", state.lsn);
    }
    Ok(())
}

/// What is known of views only as they are now.
fn check_views(reader: &Reader, state: &State) -> Outcome {
    let at = state.lsn;
    let (stale, _) = reader.view_stale(PROFILE, b"", None, 64)?;
    let stale: BTreeSet<Vec<u8>> = stale.into_iter().map(|(group, _)| group).collect();
    let wanted: BTreeSet<Vec<u8>> = state.stale.iter().map(|user| group(user)).collect();
    same!(stale, wanted, "stale groups at {at}");
    for number in 0..3 {
        let user = format!("u{number}");
        let facts = state.facts.iter().filter(|(_, (fact, ..))| fact.user == user);
        let mut facts: Vec<_> = facts.map(|(key, (fact, lsn, _))| (*lsn, key, fact)).collect();
        facts.sort_by_key(|(lsn, key, _)| (*lsn, *key));
        let inputs = reader.view_inputs(PROFILE, &group(&user))?;
        let inputs: Vec<_> = inputs.iter().map(|(input, _)| (input.lsn, &input.key[..])).collect();
        let wanted: Vec<_> = facts.iter().map(|(lsn, key, _)| (*lsn, key.as_bytes())).collect();
        same!(inputs, wanted, "inputs of {user:?} at {at}");
        let total = reader.view_group(TOTALS, &group(&user))?.stored;
        let total = total.map(|(stored, _)| stored.document.to_vec());
        let sum: i64 = facts.iter().map(|(.., fact)| fact.n).sum();
        let wanted = (!facts.is_empty()).then(|| total_of(sum, facts.len()));
        same!(total, wanted, "total of {user:?} at {at}");
        let latest = reader.view_group(LATEST, &group(&user))?.stored;
        let newest = latest.map(|(stored, _)| stored.lsn);
        same!(newest, facts.last().map(|(lsn, ..)| *lsn), "latest of {user:?} at {at}");
    }
    for number in 0..3 {
        let user = format!("u{number}");
        let count = reader.view_group(PROFILES, &group(&user))?.stored;
        let wanted = state.results.contains_key(&user);
        same!(count.is_some(), wanted, "count of the results of {user:?} at {at}");
    }
    Ok(())
}

/// `{"sum": …, "count": …}` as the engine writes it.
fn total_of(sum: i64, count: usize) -> Vec<u8> {
    let mut out = vec![0x82];
    put_str(&mut out, "sum");
    waferdb::codec::write::integer(&mut out, sum.into());
    put_str(&mut out, "count");
    waferdb::codec::write::unsigned(&mut out, count as u64);
    out
}

fn check_vectors(reader: &Reader, state: &State) -> Outcome {
    let at = state.lsn;
    same!(reader.count(EMBEDDINGS)?, state.vectors.len() as u64, "count of vectors at {at}");
    let found = rows(reader.scan(EMBEDDINGS, &Bounds::default())?)?;
    let wanted: Rows = state
        .vectors
        .iter()
        .map(|(key, (vector, lsn))| (key.clone().into_bytes(), vector_bytes(vector), *lsn))
        .collect();
    same!(found, wanted, "vectors at {at}");
    for (key, (query, _)) in state.vectors.iter().take(3) {
        let hits = reader.search(
            EMBEDDINGS,
            &floats(query),
            &Search { k: 20, exact: at.is_multiple_of(2), ef: None },
            None,
        )?;
        let found: Vec<(i64, &str)> = hits
            .iter()
            .map(|hit| ((hit.distance * hit.distance).round() as i64, hit.key.as_str()))
            .collect();
        let mut wanted: Vec<(i64, &str)> = state
            .vectors
            .iter()
            .map(|(key, (vector, _))| (distance_squared(query, vector), key.as_str()))
            .collect();
        wanted.sort_unstable();
        same!(found, wanted, "search for the vector of {key:?} at {at}");
    }
    Ok(())
}

fn distance_squared(a: &Vector, b: &Vector) -> i64 {
    a.iter().zip(b).map(|(a, b)| (i64::from(*a) - i64::from(*b)).pow(2)).sum()
}

fn check_events(db: &Database, reader: &Reader, state: &State) -> Outcome {
    let mut cursor = reader.events(EVENTS, &EventBounds::default())?;
    let mut found = Vec::new();
    loop {
        let Page::Events(page) = cursor.page(11)? else { unreachable!("a cursor over events") };
        if page.is_empty() {
            break;
        }
        found.extend(page.into_iter().map(|(event, time)| Event {
            lsn: event.lsn,
            index: event.index,
            time,
            origin: event.origin,
            kind: event.kind,
            key: event.key,
            payload: event.payload.map(|payload| payload.to_vec()),
        }));
    }
    let schema = db.schema();
    let named = |event: &Event| match event.origin {
        0 => event.clone(),
        origin => {
            let kind = format!("{}.{}", schema.name_of(origin), event.kind);
            Event { kind, ..event.clone() }
        }
    };
    let wanted: Vec<Event> = state.events.iter().map(named).collect();
    same!(found.len(), wanted.len(), "number of events at {}", state.lsn);
    for (found, wanted) in found.iter().zip(&wanted) {
        same!(found, wanted, "event at {}", state.lsn);
    }
    Ok(())
}

fn check_context(db: &Database, reader: &Reader, state: &State) -> Outcome {
    for id in [CONTEXT, NOTES] {
        if db.schema().by_id(id).is_none() {
            continue;
        }
        let mut wanted: BTreeMap<&str, Vec<(String, Vec<u8>)>> = BTreeMap::new();
        for ((known, scope, name), (value, _)) in &state.context {
            if *known == id {
                wanted.entry(scope).or_default().push((name.clone(), value.clone()));
            }
        }
        let scopes: Vec<&str> = wanted.keys().copied().collect();
        same!(reader.context_scopes(id)?, scopes, "scopes of {id} at {}", state.lsn);
        for scope in ["c0", "c1", "c2"] {
            let found: Vec<(String, Vec<u8>)> = reader
                .context_load(id, scope)?
                .into_iter()
                .map(|(name, value)| (name, value.to_vec()))
                .collect();
            let wanted = wanted.remove(scope).unwrap_or_default();
            same!(found, wanted, "context {scope:?} of {id} at {}", state.lsn);
        }
    }
    Ok(())
}

fn check_graph(reader: &Reader, state: &State) -> Outcome {
    let at = state.lsn;
    same!(reader.count(ENTITIES)?, state.edges.len() as u64, "count of edges at {at}");
    for number in 0..5 {
        let node = format!("n{number}");
        for (way, outward) in [(Way::Out, true), (Way::In, false)] {
            let found: BTreeSet<String> = reader
                .neighbors(ENTITIES, &node, None, way, 1)?
                .into_iter()
                .map(|neighbor| neighbor.node)
                .collect();
            let wanted: BTreeSet<String> = state
                .edges
                .keys()
                .filter_map(|(from, _, to)| {
                    let (near, far) = if outward { (from, to) } else { (to, from) };
                    (*near == node && *far != node).then(|| far.clone())
                })
                .collect();
            same!(found, wanted, "neighbors of {node:?} (out: {outward}) at {at}");
        }
        let found: BTreeMap<EdgeKey, Option<Vec<u8>>> = reader
            .edges(ENTITIES, &node)?
            .into_iter()
            .map(|edge| {
                let props = edge.props.map(|props| props.to_vec());
                ((edge.source, edge.relation, edge.target), props)
            })
            .collect();
        let of_node = |edge: &&EdgeKey| edge.0 == node || edge.2 == node;
        let wanted = state.edges.iter().filter(|(edge, _)| of_node(edge));
        let wanted = wanted.map(|(edge, props)| (edge.clone(), props.clone())).collect();
        same!(found, wanted, "edges of {node:?} at {at}");
    }
    Ok(())
}

fn check_caches(reader: &Reader, state: &State, now: i64) -> Outcome {
    for cache in [SESSION, WARM] {
        let mut all: Rows = Vec::new();
        for number in 0..9 {
            let key = format!("k{number}");
            let found = reader.read(cache, key.as_bytes())?;
            let found = found.map(|found| (found.value.to_vec(), found.lsn));
            let wanted = state.cached(cache, &key, now);
            same!(found, wanted, "cache {cache}, key {key:?} at {}", state.lsn);
            all.extend(wanted.map(|(value, lsn)| (key.into_bytes(), value, lsn)));
        }
        let found = rows(reader.scan(cache, &Bounds::default())?)?;
        same!(found, all, "cache {cache} at {}", state.lsn);
    }
    Ok(())
}

fn check_audit(db: &Database, lsn: u64, reference: &Reference) -> Outcome {
    let reader = db.reader();
    same!(reader.count(AUDIT)?, lsn, "size of the audit");
    let catalog = db.shared().store.catalog();
    let leaves = catalog.structures[&AUDIT].leaves();
    // What a failed log withdrew still has its leaf in memory; nothing answers with it.
    if db.shared().pipeline.failure().is_none() {
        same!(leaves.count(u64::MAX)?, lsn, "leaves of the audit");
    }
    for commit in &reference.commits[..lsn as usize] {
        let leaf = leaves.leaf(commit.lsn - 1)?;
        if commit.leaf.is_none() {
            continue;
        }
        same!(leaf, commit.leaf, "audit leaf of LSN {}", commit.lsn);
    }
    Ok(())
}
