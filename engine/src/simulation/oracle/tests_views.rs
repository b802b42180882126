//! Telling cases of views, and that history stands.

use super::Oracle;
use super::tests::*;
use super::world::*;

fn fact(key: &str, user: &str) -> Op {
    put(key, &[("user", string(user))])
}

fn result(user: &str, mark: i64, input: Lsn) -> Op {
    let document = document(&[("mark", Field::Int(mark))]);
    Op::Result { id: PROFILE, group: vec![string(user)], document, input }
}

/// The LSN of what stands for a group.
fn stored(oracle: &Oracle, user: &str, at: Lsn) -> Option<Lsn> {
    match oracle.answer(&Ask::Result { id: PROFILE, group: vec![string(user)] }, at, 0) {
        Some(Answer::Stored(stored)) => stored.map(|(_, lsn)| lsn),
        other => panic!("{other:?}"),
    }
}

fn stale(oracle: &Oracle) -> Vec<Bytes> {
    match oracle.answer(&Ask::Stale { id: PROFILE }, oracle.lsn(), 0) {
        Some(Answer::Groups(groups)) => groups,
        other => panic!("{other:?}"),
    }
}

fn groups(users: &[&str]) -> Vec<Bytes> {
    users.iter().map(|user| encode_group(&[string(user)])).collect()
}

#[test]
fn a_group_is_stale_until_a_result_of_its_newest_change() {
    let mut oracle = after(&[&[fact("a", "ann"), fact("b", "bob"), put("c", &[])]]);
    assert_eq!(stale(&oracle), groups(&["ann", "bob"]));
    commit(&mut oracle, &[result("ann", 1, 1)]);
    assert_eq!(stale(&oracle), groups(&["bob"]));
    assert_eq!([1, 2].map(|at| stored(&oracle, "ann", at)), [None, Some(2)]);
    // A move changes both; one back makes a result that was fresh no fresher.
    commit(&mut oracle, &[result("bob", 1, 2), fact("d", "bob"), fact("b", "ann")]);
    assert_eq!(stale(&oracle), groups(&["ann", "bob"]));
    // An older result is passed over, one of a newer input replaces.
    commit(&mut oracle, &[result("ann", 2, 0), result("bob", 2, 3)]);
    assert_eq!(stored(&oracle, "ann", 4), Some(2));
    assert_eq!([3, 4].map(|at| stored(&oracle, "bob", at)), [Some(3), Some(4)]);
    assert_eq!(stale(&oracle), groups(&["ann"]));
    assert_eq!(oracle.answer(&Ask::Stale { id: PROFILE }, 3, 0), None);
}

#[test]
fn a_result_goes_with_what_went_into_it_wherever_that_had_moved() {
    let mut oracle = after(&[&[fact("a", "ann"), fact("b", "ann")], &[result("ann", 1, 1)]]);
    commit(&mut oracle, &[fact("b", "bob")]);
    commit(&mut oracle, &[fact("c", "ann")]);
    commit(&mut oracle, &[delete(FACTS, "c")]);
    assert_eq!(stored(&oracle, "ann", 5), Some(2), "c came later, b only moved");
    commit(&mut oracle, &[delete(FACTS, "b")]);
    assert_eq!([5, 6].map(|at| stored(&oracle, "ann", at)), [Some(2), None]);
    // What was made before that deletion is passed over, what was made behind it is not.
    commit(&mut oracle, &[result("ann", 2, 2), result("bob", 2, 5)]);
    assert_eq!(stored(&oracle, "ann", 7), None);
    commit(&mut oracle, &[result("ann", 3, 6)]);
    assert_eq!(stored(&oracle, "ann", 8), Some(8));
    assert_eq!(stale(&oracle), groups(&[]));
}

#[test]
fn an_empty_group_has_no_result() {
    let mut oracle = after(&[&[fact("a", "ann")], &[result("ann", 1, 1)]]);
    commit(&mut oracle, &[fact("a", "bob")]);
    assert_eq!([2, 3].map(|at| stored(&oracle, "ann", at)), [Some(2), None]);
    commit(&mut oracle, &[result("ann", 2, 3)]);
    assert_eq!(stored(&oracle, "ann", 4), None);
    assert_eq!(stale(&oracle), groups(&["bob"]));
}

#[test]
fn a_forgotten_row_takes_results_from_every_lsn() {
    let mut oracle = after(&[
        &[fact("a", "ann"), fact("b", "ann")],
        &[fact("b", "bob")],
        &[result("ann", 1, 2), result("bob", 1, 2)],
    ]);
    assert_eq!(stored(&oracle, "ann", 3), Some(3));
    commit(&mut oracle, &[forget(FACTS, &["b"])]);
    assert_eq!([3, 4].map(|at| stored(&oracle, "ann", at)), [None, None], "b was in it once");
    commit(&mut oracle, &[result("ann", 2, 3)]);
    assert_eq!(stored(&oracle, "ann", 5), None);
    commit(&mut oracle, &[result("ann", 3, 4)]);
    assert_eq!(stored(&oracle, "ann", 6), Some(6));
    // What was forgotten once is forgotten: a second time takes nothing.
    commit(&mut oracle, &[forget(FACTS, &["b"])]);
    assert_eq!(stored(&oracle, "ann", 7), Some(6));
    oracle.cut(3);
    assert_eq!(stored(&oracle, "ann", 3), Some(3), "the forget never was");
}

#[test]
fn figures_count_and_add_exactly() {
    let n = |key: &str, n: Field| put(key, &[("user", Field::Int(1)), ("n", n)]);
    let oracle = after(&[&[
        n("a", Field::Float(0.1)),
        n("b", Field::Int(1 << 60)),
        n("c", Field::Int(-(1 << 60))),
        n("d", string("x")),
        put("e", &[("user", Field::Float(1.0))]),
        put("f", &[("user", Field::None)]),
    ]]);
    let figures = |id, group| oracle.answer(&Ask::Figures { id, group: vec![group] }, 1, 0);
    let one = || Field::Float(1.0);
    assert_eq!(figures(COUNT, one()), Some(Answer::Figures(Some((5, None)))));
    assert_eq!(figures(SUM, one()), Some(Answer::Figures(Some((3, Some(0.1))))));
    assert_eq!(figures(SUM, Field::None), Some(Answer::Figures(None)));
    assert_eq!(figures(COUNT, Field::Int(2)), Some(Answer::Figures(None)));
    assert_eq!(figures(PROFILE, one()), None);
    let inputs = oracle.answer(&Ask::Inputs { id: SUM, group: vec![Field::None] }, 1, 0);
    assert_eq!(inputs, Some(Answer::Inputs(vec![(1, b"f".to_vec())])));
}

/// A generator of small numbers (Knuth's constants).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound
    }

    fn key(&mut self) -> String {
        format!("k{}", self.below(40))
    }

    fn op(&mut self, lsn: Lsn, forgets: bool) -> Op {
        let key = self.key();
        let user = format!("u{}", self.below(4));
        let n = Field::Int(self.below(9) as i64);
        match self.below(if forgets { 10 } else { 9 }) {
            0..=2 => put(&key, &[("user", string(&user)), ("n", n)]),
            3 => delete(FACTS, &key),
            4 => Op::PutVector { id: VECTORS, key, vector: vec![self.below(5) as i8, 1] },
            5 => Op::CachePut { id: CACHE, key, value: n, ttl: 1, expires: i64::MAX },
            6 => Op::Link {
                id: GRAPH,
                source: key,
                relation: user,
                target: self.key(),
                props: Some(n),
            },
            7 => Op::Append { id: EVENTS, kind: user, key: Some(key), payload: Some(n) },
            8 => result(&user, 1, lsn - 1 - self.below(lsn.min(5))),
            _ => forget(FACTS, &[&key]),
        }
    }
}

fn asks() -> Vec<Ask> {
    let group = vec![string("u1")];
    let (after, until, kind, key) = (None, None, None, None);
    let counts = [FACTS, VECTORS, GRAPH, AUDIT].map(|id| Ask::Count { id });
    let scans = [FACTS, VECTORS, CACHE].map(|id| Ask::Scan { id, bounds: Bounds::default() });
    let events = Ask::Events { id: EVENTS, after, until, kind, key, limit: None, reverse: true };
    let results =
        (0..4).map(|user| Ask::Result { id: PROFILE, group: vec![string(&format!("u{user}"))] });
    let figures = [COUNT, SUM].map(|id| Ask::Figures { id, group: group.clone() });
    let rest = [events, Ask::Inputs { id: COUNT, group }];
    counts.into_iter().chain(scans).chain(figures).chain(rest).chain(results).collect()
}

fn answers(oracle: &Oracle, at: Lsn) -> Vec<Option<Answer>> {
    asks().iter().map(|ask| oracle.answer(ask, at, 0)).collect()
}

#[test]
fn without_forgets_history_stands_and_a_cut_is_a_replay() {
    let mut chance = Chance(7);
    let mut oracle = Oracle::new(&schema());
    let mut told = vec![answers(&oracle, 0)];
    let mut refused = 0;
    while oracle.lsn() < 300 {
        let lsn = oracle.lsn() + 1;
        let ops: Vec<Op> = (0..=chance.below(4)).map(|_| chance.op(lsn, false)).collect();
        if oracle.refusal(&ops).is_some() {
            refused += 1;
            continue;
        }
        commit(&mut oracle, &ops);
        told.push(answers(&oracle, lsn));
    }
    assert!(refused > 0);
    for (at, expected) in told.iter().enumerate() {
        assert_eq!(answers(&oracle, at as Lsn), *expected, "at {at}");
    }
    oracle.cut(100);
    assert_eq!((oracle.lsn(), oracle.commits().len()), (100, 100));
    for (at, expected) in told.iter().enumerate().take(101) {
        assert_eq!(answers(&oracle, at as Lsn), *expected, "at {at}, cut");
    }
}

#[test]
fn a_forgotten_row_is_in_no_answer_at_any_lsn() {
    let mut chance = Chance(11);
    let mut oracle = Oracle::new(&schema());
    for lsn in 1..=200 {
        let mut op = chance.op(lsn, true);
        while oracle.refusal(std::slice::from_ref(&op)).is_some() {
            op = chance.op(lsn, true);
        }
        commit(&mut oracle, &[op]);
    }
    commit(&mut oracle, &[forget(FACTS, &["k1"])]);
    for at in 0..=oracle.lsn() {
        for id in [FACTS, VECTORS, CACHE] {
            let read = oracle.answer(&Ask::Get { id, key: b"k1".to_vec() }, at, 0);
            assert_eq!(read, Some(Answer::Read(None)));
        }
    }
}
