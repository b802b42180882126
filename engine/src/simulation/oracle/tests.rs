//! Telling cases, and that history stands.

use super::values;
use super::world::*;
use super::{Oracle, Refusal};
use crate::schema::{Function, Kind, RowCodec, Schema, Structure};
use crate::vector::Metric;

pub const FACTS: Id = 1;
pub const VECTORS: Id = 2;
pub const EVENTS: Id = 3;
pub const OTHER_EVENTS: Id = 4;
pub const AUDIT: Id = 5;
pub const CACHE: Id = 6;
pub const CONTEXT: Id = 7;
pub const GRAPH: Id = 8;
pub const PROFILE: Id = 9;
pub const COUNT: Id = 10;
pub const SUM: Id = 11;
pub const RAW: Id = 12;

fn text(text: &str) -> String {
    text.to_owned()
}

pub fn string(value: &str) -> Field {
    Field::Str(text(value))
}

pub fn schema() -> Schema {
    let facts = Some(text("facts"));
    let view = |function| Kind::View {
        source: text("facts"),
        by: vec![text("user")],
        version: 1,
        function,
        timeout: 0,
        on_error: text("stale"),
    };
    let rows = |unique, codec| Kind::Rows { indexes: vec![], unique, codec, supersede: vec![] };
    let kinds = [
        ("facts", rows(vec![vec![text("mail")]], RowCodec::Msgpack)),
        (
            "vectors",
            Kind::Vectors {
                dim: 2,
                metric: Metric::L2,
                rows: facts.clone(),
                model: None,
                codes: text("i8"),
            },
        ),
        ("events", Kind::Events { capture: vec![text("facts")] }),
        ("other", Kind::Events { capture: vec![text("raw"), text("facts")] }),
        ("audit", Kind::Audit {}),
        ("cache", Kind::Cache { ttl: 10, source: facts, capacity: Some(3) }),
        ("context", Kind::Context {}),
        ("graph", Kind::Graph {}),
        ("profile", view(Function::Custom)),
        ("count", view(Function::Count)),
        ("sum", view(Function::Sum { field: text("n") })),
        ("raw", rows(vec![], RowCodec::Raw)),
    ];
    let structure = |(index, (name, kind)): (usize, (&str, Kind))| Structure {
        name: text(name),
        id: index as u32 + 1,
        created: 0,
        kind,
        policy: Default::default(),
        policy_override: None,
    };
    let structures = kinds.into_iter().enumerate().map(structure).collect();
    Schema { structures, next_id: 13, ..Schema::default() }
}

pub fn commit(oracle: &mut Oracle, ops: &[Op]) {
    let lsn = oracle.lsn() + 1;
    oracle.apply(Commit {
        lsn,
        time: 1_000 + lsn as i64,
        txn: format!("t{lsn}"),
        actor: None,
        reason: None,
        ops: ops.to_vec(),
    });
}

pub fn after(commits: &[&[Op]]) -> Oracle {
    let mut oracle = Oracle::new(&schema());
    commits.iter().for_each(|ops| commit(&mut oracle, ops));
    oracle
}

pub fn document(fields: &[(&str, Field)]) -> Document {
    fields.iter().map(|(name, value)| (text(name), value.clone())).collect()
}

pub fn put(key: &str, fields: &[(&str, Field)]) -> Op {
    Op::PutRow { id: FACTS, key: text(key), document: document(fields) }
}

pub fn delete(id: Id, key: &str) -> Op {
    Op::Delete { id, key: key.into() }
}

pub fn forget(id: Id, parts: &[&str]) -> Op {
    Op::Forget { id, parts: parts.iter().map(|part| (*part).into()).collect() }
}

fn vector(key: &str, x: i8) -> Op {
    Op::PutVector { id: VECTORS, key: text(key), vector: vec![x, 0] }
}

fn cache(key: &str, value: i64, expires: Micros) -> Op {
    let value = Field::Int(value);
    Op::CachePut { id: CACHE, key: text(key), value, ttl: 10, expires }
}

fn link(source: &str, relation: &str, target: &str) -> Op {
    let [source, relation, target] = [source, relation, target].map(text);
    Op::Link { id: GRAPH, source, relation, target, props: None }
}

fn get(oracle: &Oracle, id: Id, key: &str, at: Lsn, now: Micros) -> Option<(Bytes, Lsn, Micros)> {
    match oracle.answer(&Ask::Get { id, key: key.into() }, at, now) {
        Some(Answer::Read(read)) => read,
        other => panic!("{other:?}"),
    }
}

fn count(oracle: &Oracle, id: Id, at: Lsn) -> u64 {
    match oracle.answer(&Ask::Count { id }, at, 0) {
        Some(Answer::Count(count)) => count,
        other => panic!("{other:?}"),
    }
}

fn events(oracle: &Oracle, id: Id, kind: Option<&str>) -> Vec<(Lsn, u32, String)> {
    let kind = kind.map(text);
    let (after, until, key, limit, reverse) = (None, None, None, None, false);
    let ask = Ask::Events { id, after, until, kind, key, limit, reverse };
    match oracle.answer(&ask, oracle.lsn(), 0) {
        Some(Answer::Events(events)) => {
            events.into_iter().map(|event| (event.lsn, event.index, event.kind)).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn found(oracle: &Oracle, conditions: Conditions, order: Option<(&str, bool)>) -> Vec<String> {
    let order = order.map(|(field, descends)| (text(field), descends));
    let ask = Ask::Find { id: FACTS, conditions, order, limit: None };
    match oracle.answer(&ask, oracle.lsn(), 0) {
        Some(Answer::Rows(rows)) => rows.iter().map(|(key, ..)| super::ask::text(key)).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_version_is_seen_from_its_lsn_until_the_next() {
    let oracle =
        after(&[&[put("a", &[("n", Field::Int(1))])], &[put("a", &[])], &[delete(1, "a")]]);
    assert_eq!(get(&oracle, FACTS, "a", 0, 0), None);
    let first = encode_document(&document(&[("n", Field::Int(1))]));
    assert_eq!(get(&oracle, FACTS, "a", 1, 0), Some((first, 1, 1_001)));
    assert_eq!(get(&oracle, FACTS, "a", 2, 0), Some((vec![0x80], 2, 1_002)));
    assert_eq!(get(&oracle, FACTS, "a", 3, 0), None);
    assert_eq!(oracle.answer(&Ask::Count { id: FACTS }, 4, 0), None);
}

#[test]
fn a_row_takes_its_vector_with_it_and_a_forget_takes_both_from_every_lsn() {
    let mut oracle = after(&[&[put("a", &[]), vector("a", 1)], &[delete(FACTS, "a")]]);
    commit(&mut oracle, &[put("a", &[])]);
    assert_eq!([1, 2, 3].map(|at| count(&oracle, VECTORS, at)), [1, 0, 0]);
    commit(&mut oracle, &[vector("a", 2)]);
    commit(&mut oracle, &[forget(FACTS, &["a"])]);
    commit(&mut oracle, &[put("a", &[])]);
    assert_eq!([1, 4, 5].map(|at| count(&oracle, VECTORS, at)), [0, 0, 0]);
    assert_eq!([1, 4, 5, 6].map(|at| count(&oracle, FACTS, at)), [0, 0, 0, 1]);
}

#[test]
fn a_search_is_by_distance_then_key_and_reads_the_row_of_its_lsn() {
    let user = |name: &str| [("user", string(name))];
    let mut oracle = after(&[&[
        put("b", &user("ann")),
        put("a", &user("ann")),
        put("c", &user("bob")),
        vector("b", 1),
        vector("a", -1),
        vector("c", 0),
    ]]);
    commit(&mut oracle, &[put("c", &user("ann"))]);
    let condition = Condition::Equal(string("ann"));
    let ask = Ask::Search {
        id: VECTORS,
        vector: vec![0, 0],
        k: 1,
        exact: true,
        conditions: vec![(text("user"), condition)],
    };
    let hits = |pairs: &[(&str, f64)]| {
        Some(Answer::Hits(pairs.iter().map(|(key, far)| (text(key), *far)).collect()))
    };
    assert_eq!(oracle.answer(&ask, 1, 0), hits(&[("a", 1.0), ("b", 1.0)]));
    assert_eq!(oracle.answer(&ask, 2, 0), hits(&[("c", 0.0), ("a", 1.0), ("b", 1.0)]));
}

#[test]
fn what_would_be_refused() {
    let mail = |key: &str, value: Field| put(key, &[("mail", value)]);
    let oracle = after(&[&[mail("a", Field::Int(1)), mail("b", Field::None), put("c", &[])]]);
    assert_eq!(oracle.refusal(&[mail("d", Field::Float(1.0))]), Some(Refusal::Unique));
    assert_eq!(oracle.refusal(&[mail("d", Field::None)]), Some(Refusal::Unique));
    assert_eq!(oracle.refusal(&[put("d", &[])]), None);
    let swap = [mail("a", Field::None), mail("b", Field::Int(1))];
    assert_eq!(oracle.refusal(&swap), None);
    assert_eq!(oracle.refusal(&[forget(FACTS, &["a"]), mail("d", Field::Int(1))]), None);
    assert_eq!(oracle.refusal(&[vector("d", 1)]), Some(Refusal::Link));
    assert_eq!(oracle.refusal(&[vector("d", 1), put("d", &[])]), None);
    assert_eq!(oracle.refusal(&[delete(FACTS, "a"), vector("a", 1)]), Some(Refusal::Link));
}

#[test]
fn changes_are_captured_where_there_was_one_and_counted_by_structure() {
    let append = Op::Append { id: EVENTS, kind: text("put"), key: Some(text("a")), payload: None };
    let raw = Op::PutRaw { id: RAW, key: vec![0], value: vec![9] };
    let mut oracle = after(&[
        &[delete(FACTS, "a"), raw, put("a", &[]), append, delete(FACTS, "a")],
        &[delete(FACTS, "a")],
    ]);
    let all = [(1, 0, text("put")), (1, 1, text("put")), (1, 2, text("delete"))];
    assert_eq!(events(&oracle, EVENTS, None), all);
    assert_eq!(events(&oracle, OTHER_EVENTS, None), all);
    assert_eq!(events(&oracle, EVENTS, Some("facts.put")), [all[0].clone()]);
    assert_eq!(events(&oracle, EVENTS, Some("put")), [all[1].clone()]);
    // Of rows: what was captured of them. The others keep their places.
    commit(&mut oracle, &[forget(FACTS, &["a"])]);
    assert_eq!(events(&oracle, EVENTS, None), [all[1].clone()]);
    assert_eq!(events(&oracle, OTHER_EVENTS, None), [all[0].clone()]);
    // Of events: all of the key.
    commit(&mut oracle, &[forget(EVENTS, &["a"])]);
    assert_eq!(events(&oracle, EVENTS, None), []);
    assert_eq!(events(&oracle, OTHER_EVENTS, None), [all[0].clone()]);
}

#[test]
fn a_cache_answers_the_row_unless_what_was_put_is_newer_and_lives() {
    let mut oracle = after(&[&[put("a", &[])], &[cache("a", 7, 100)]]);
    let row = Some((vec![0x80], 1, 1_001));
    let own = Some((encode_field(&Field::Int(7)), 2, 1_002));
    assert_eq!(get(&oracle, CACHE, "a", 2, 99), own);
    assert_eq!(get(&oracle, CACHE, "a", 2, 100), row);
    commit(&mut oracle, &[delete(CACHE, "a")]);
    assert_eq!(get(&oracle, CACHE, "a", 3, 0), row);
    commit(&mut oracle, &[cache("a", 8, 100)]);
    commit(&mut oracle, &[put("a", &[])]);
    assert_eq!(get(&oracle, CACHE, "a", 5, 0), Some((vec![0x80], 5, 1_005)));
    // The entry goes with its row; what is put later goes with another delete of the row's key.
    commit(&mut oracle, &[delete(FACTS, "a")]);
    assert_eq!(get(&oracle, CACHE, "a", 6, 0), None);
    commit(&mut oracle, &[cache("a", 9, 100)]);
    assert_eq!(get(&oracle, CACHE, "a", 7, 0).map(|(_, lsn, _)| lsn), Some(7));
    commit(&mut oracle, &[delete(FACTS, "a")]);
    assert_eq!(get(&oracle, CACHE, "a", 8, 0), None);
    commit(&mut oracle, &[forget(FACTS, &["a"])]);
    assert_eq!([2, 5, 7, 9].map(|at| get(&oracle, CACHE, "a", at, 0)), [None, None, None, None]);
}

#[test]
fn the_oldest_entries_leave_a_full_cache() {
    let oracle = after(&[
        &[cache("a", 1, 9), cache("b", 1, 9), cache("c", 1, 9)],
        &[cache("a", 2, 9)],
        &[cache("d", 1, 9)],
    ]);
    let kept = ["a", "b", "c", "d"].map(|key| get(&oracle, CACHE, key, 3, 0).is_some());
    assert_eq!(kept, [true, false, true, true]);
}

#[test]
fn find_compares_within_a_class_and_orders_across_them() {
    let n = |key: &str, value: Field| put(key, &[("n", value)]);
    let oracle = after(&[&[
        n("e", string("x")),
        n("d", Field::Float(2.0)),
        n("c", Field::Int(2)),
        n("b", Field::None),
        n("f", Field::Bool(true)),
        put("a", &[]),
    ]]);
    let by = |condition| found(&oracle, vec![(text("n"), condition)], None);
    assert_eq!(by(Condition::Equal(Field::Int(2))), ["c", "d"]);
    assert_eq!(by(Condition::Equal(Field::None)), ["b"]);
    assert_eq!(by(Condition::AnyOf(vec![string("x"), Field::Bool(true)])), ["e", "f"]);
    let range = |low, high| Condition::Range { low, high };
    assert_eq!(by(range(Some(Field::Float(1.5)), None)), ["c", "d"]);
    assert_eq!(by(range(None, Some(Field::Int(2)))), [""; 0]);
    assert_eq!(by(range(Some(Field::Int(0)), Some(string("z")))), [""; 0]);
    assert_eq!(found(&oracle, vec![], Some(("n", false))), ["a", "b", "f", "c", "d", "e"]);
    assert_eq!(found(&oracle, vec![], Some(("n", true))), ["e", "c", "d", "f", "b", "a"]);
    assert_eq!(found(&oracle, vec![], None), ["a", "b", "c", "d", "e", "f"]);
    assert!(values::matches(&document(&[]), &vec![]));
}

#[test]
fn scans_are_bounded_in_both_directions() {
    let raw = |key: u8| Op::PutRaw { id: RAW, key: vec![key], value: vec![] };
    let oracle = after(&[&[raw(1), raw(2), raw(3), raw(4)]]);
    let scan = |after: u8, reverse, limit| {
        let (start, end) = (Some(vec![2]), Some(vec![4]));
        let bounds = Bounds { prefix: None, start, end, after: Some(vec![after]), limit, reverse };
        match oracle.answer(&Ask::Scan { id: RAW, bounds }, 1, 0) {
            Some(Answer::Rows(rows)) => rows.iter().map(|(key, ..)| key[0]).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(scan(1, false, None), [2, 3]);
    assert_eq!(scan(4, true, None), [3, 2]);
    assert_eq!(scan(3, true, None), [2]);
    assert_eq!(scan(1, false, Some(1)), [2]);
    let conditions = vec![];
    assert_eq!(
        oracle.answer(&Ask::Find { id: RAW, conditions, order: None, limit: None }, 1, 0),
        None
    );
}

#[test]
fn neighbors_are_met_at_their_least_depth_and_never_the_start() {
    let oracle = after(&[&[
        link("a", "r", "b"),
        link("b", "r", "c"),
        link("a", "s", "c"),
        link("c", "r", "a"),
        link("a", "r", "a"),
    ]]);
    let near = |relation: Option<&str>, way, depth| {
        let relation = relation.map(text);
        let ask = Ask::Neighbors { id: GRAPH, node: text("a"), relation, way, depth };
        match oracle.answer(&ask, 1, 0) {
            Some(Answer::Neighbors(found)) => {
                found.iter().map(|(node, depth)| format!("{node}{depth}")).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(near(None, Way::Out, 2), ["b1", "c1"]);
    assert_eq!(near(Some("r"), Way::Out, 2), ["b1", "c2"]);
    assert_eq!(near(Some("r"), Way::In, 1), ["c1"]);
    assert_eq!(near(Some("r"), Way::Both, 1), ["b1", "c1"]);
    let Some(Answer::Edges(edges)) =
        oracle.answer(&Ask::Edges { id: GRAPH, node: text("a") }, 1, 0)
    else {
        panic!("edges are answered")
    };
    assert_eq!(edges.len(), 4);
}

#[test]
fn contexts_are_deleted_by_name_and_by_scope_and_forgotten_by_both() {
    let set = |scope: &str, name: &str| {
        let (scope, name) = (text(scope), text(name));
        Op::ContextSet { id: CONTEXT, scope, name, value: Field::Bool(true) }
    };
    let drop = |name| Op::ContextDelete { id: CONTEXT, scope: text("ann"), name };
    let mut oracle = after(&[
        &[set("ann", "a"), set("ann", "b"), set("", "a")],
        &[drop(Some(text("a")))],
        &[drop(None), set("ann", "c")],
    ]);
    let names = |oracle: &Oracle, at| -> Vec<String> {
        let ask = Ask::Load { id: CONTEXT, scope: text("ann") };
        match oracle.answer(&ask, at, 0) {
            Some(Answer::Pairs(pairs)) => pairs.into_iter().map(|(name, _)| name).collect(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!([1, 2, 3].map(|at| names(&oracle, at)), [vec!["a", "b"], vec!["b"], vec!["c"]]);
    commit(&mut oracle, &[forget(CONTEXT, &["ann", "b"])]);
    assert_eq!([1, 2, 4].map(|at| names(&oracle, at)), [vec!["a"], vec![], vec!["c"]]);
    let scopes = Answer::Pairs(vec![(text(""), vec![]), (text("ann"), vec![])]);
    assert_eq!(oracle.answer(&Ask::Scopes { id: CONTEXT }, 4, 0), Some(scopes));
    assert_eq!(count(&oracle, AUDIT, 3), 3);
}
