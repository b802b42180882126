//! The index as a whole: puts, ends, searches, and builds under way between them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::build::Build;
use super::index::{Form, Index};
use super::search::{Pending, Probe, Reader};
use crate::error::Result;
use crate::log::Lsn;
use crate::ordered::Slot;
use crate::storage::bytes::Bytes;
use crate::vector::codes::Coding;
use crate::vector::distance;
use crate::vector::file::GraphInfo;
use crate::vector::planner::{self, Work};
use crate::vector::{Hit, Metric, Search, to_bytes};

const DIM: usize = 4;

fn form(metric: Metric) -> Form {
    Form { coding: Coding::I8, metric, dim: DIM }
}

/// A slot that holds the components itself.
fn slot(vector: &[f32]) -> Slot {
    Slot::Inline(to_bytes(vector).into())
}

fn put(index: &Index, key: &str, vector: &[f32], lsn: Lsn) {
    index.put(key, vector, lsn, &slot(vector));
}

fn read(slot: &Slot) -> Result<Bytes> {
    match slot {
        Slot::Inline(bytes) => Ok(Bytes::Shared(bytes[..].into())),
        _ => unreachable!("every vector here is inline"),
    }
}

fn search(index: &Index, query: &[f32], k: usize, exact: bool, at: Lsn) -> Vec<Hit> {
    search_by(index, query, Search { k, exact, ef: (!exact).then_some(64) }, at)
}

fn search_by(index: &Index, query: &[f32], search: Search, at: Lsn) -> Vec<Hit> {
    let pending = Pending::new();
    let probe = Probe { query, search, at, pending: &pending, accepts: None };
    let (metric, durable) = (index.form.metric, Lsn::MAX);
    let reader = Reader { read: &read, prefetch: &|_| (), metric, durable };
    index.search(&probe, &reader).unwrap()
}

/// A search that walks graphs, however small they are.
fn walk(index: &Index, query: &[f32], k: usize) -> Vec<Hit> {
    search_by(index, query, Search { k, exact: false, ef: Some(96) }, Lsn::MAX)
}

fn info(uid: u64) -> GraphInfo {
    GraphInfo { uid, bytes: 0, hash: 0, rows: 0, last_lsn: 0 }
}

/// Takes a build to its end, in slices, with something between them.
fn finish(index: &Index, build: Build, mut between: impl FnMut()) {
    let mut build = build;
    let built = loop {
        while !build.step(7) {
            between();
        }
        match build.finish().unwrap() {
            Ok(built) => break built,
            Err(again) => build = again,
        }
    };
    between();
    let info = (!built.is_empty()).then(|| info(1));
    assert!(built.install(index, info));
}

fn seal(index: &Index, from: usize) {
    if let Some(build) = Build::begin(index, Work::Seal { from }, Lsn::MAX).unwrap() {
        finish(index, build, || {});
    }
}

fn keys(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.key.as_str()).collect()
}

fn scattered(number: u64) -> [f32; DIM] {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    [(); DIM].map(|()| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / 1e6 - 8.0
    })
}

#[test]
fn a_delete_is_a_barrier_while_its_vector_is_being_sealed() {
    let index = Index::new(form(Metric::L2));
    for lsn in 1..=500 {
        put(&index, &format!("{lsn}"), &scattered(lsn), lsn);
    }
    let build = Build::begin(&index, Work::Seal { from: 0 }, Lsn::MAX).unwrap().unwrap();
    let mut gone = 0;
    finish(&index, build, || {
        gone += 1;
        index.delete(&format!("{gone}"), 500 + gone);
        let hits = search(&index, &scattered(gone), 3, false, Lsn::MAX);
        assert!(!keys(&hits).contains(&&*format!("{gone}")));
    });
    assert!(gone > 50);
    for number in 1..=gone {
        for exact in [true, false] {
            let hits = search(&index, &scattered(number), 5, exact, Lsn::MAX);
            assert!(hits.iter().all(|hit| hit.key.parse::<u64>().unwrap() > gone));
            assert_eq!(hits.len(), 5);
        }
        // Before its delete it is still there.
        let hits = search(&index, &scattered(number), 1, true, 500 + number - 1);
        assert_eq!(keys(&hits), [&*format!("{number}")]);
    }
    assert!(index.misplaced().is_empty());
}

#[test]
fn a_forgotten_version_is_seen_at_no_snapshot_wherever_it_is_listed() {
    let index = Index::new(form(Metric::Cosine));
    put(&index, "a", &[1.0, 0.0, 0.0, 0.0], 1);
    put(&index, "a", &[0.0, 1.0, 0.0, 0.0], 2);
    put(&index, "b", &[0.0, 0.0, 1.0, 0.0], 2);
    seal(&index, 0);
    put(&index, "a", &[0.0, 0.0, 0.0, 1.0], 3);
    index.forget("a", 3);
    for at in 1..5 {
        let expected: &[&str] = if at == 1 { &[] } else { &["b"] };
        if at >= index.cold() {
            assert_eq!(keys(&search(&index, &[1.0; DIM], 9, false, at)), expected, "{at}");
        }
    }
    put(&index, "a", &[1.0; DIM], 6);
    assert_eq!(keys(&search(&index, &[1.0; DIM], 9, true, 6)), ["a", "b"]);
}

#[test]
fn what_was_made_from_other_lists_is_not_installed() {
    let index = Index::new(form(Metric::Dot));
    (1..=300).for_each(|lsn| put(&index, &format!("{lsn}"), &scattered(lsn), lsn));
    let first = Build::begin(&index, Work::Seal { from: 0 }, Lsn::MAX).unwrap().unwrap();
    seal(&index, 0);
    let mut first = first;
    while !first.step(100) {}
    let Ok(built) = first.finish().unwrap() else { panic!("every row is reached") };
    assert!(!built.install(&index, Some(info(2))));
    assert!(index.misplaced().is_empty());
    assert_eq!(index.tail_rows(), 0);
}

#[test]
fn nothing_that_is_not_durable_is_sealed() {
    let index = Index::new(form(Metric::L2));
    (1..=10).for_each(|lsn| put(&index, &format!("{lsn}"), &scattered(lsn), lsn));
    assert!(Build::begin(&index, Work::Seal { from: 0 }, 9).unwrap().is_none());
    assert!(Build::begin(&index, Work::Seal { from: 0 }, 10).unwrap().is_some());
}

#[test]
fn a_tail_of_dead_rows_is_put_together() {
    let index = Index::new(form(Metric::L2));
    for lsn in 1..=3_000 {
        put(&index, &format!("{}", lsn % 10), &scattered(lsn), lsn);
    }
    assert!(Build::begin(&index, Work::Compact, Lsn::MAX).unwrap().is_none());
    assert_eq!((index.tail_rows(), index.live()), (10, 10));
    assert_eq!(index.cold(), 3_000);
    assert_eq!(search(&index, &scattered(3_000), 20, false, 3_000).len(), 10);
}

/// A stray was counted in its segment and in the tail: its bound stood for two of the nearest, and
/// real ones were left out.
#[test]
fn a_stray_counts_once() {
    let index = Index::new(form(Metric::L2));
    (1..=600).for_each(|lsn| put(&index, &format!("{lsn}"), &scattered(lsn), lsn));
    let build = Build::begin(&index, Work::Seal { from: 0 }, Lsn::MAX).unwrap().unwrap();
    let mut build = build;
    while !build.step(100) {}
    let Ok(built) = build.finish().unwrap() else { panic!("every row is reached") };
    assert!(built.with_strays((0..600).step_by(7).collect()).install(&index, Some(info(1))));
    assert!(index.misplaced().is_empty());
    for query in (1..=600).step_by(7) {
        for (k, exact) in [(1, true), (2, true), (5, false), (40, true), (600, false)] {
            let hits = search(&index, &scattered(query), k, exact, Lsn::MAX);
            assert_eq!((hits.len(), hits[0].distance), (k, 0.0), "{k} nearest of {query}");
        }
    }
}

/// A stray belongs to the tail. A merge of its segment alone took it for one that had left memory,
/// and from then on every search read the key tree.
#[test]
fn a_merge_leaves_the_strays_of_its_segment_in_the_tail() {
    for deleted in [10, 400] {
        let index = Index::new(form(Metric::L2));
        (1..=600).for_each(|lsn| put(&index, &format!("{lsn}"), &scattered(lsn), lsn));
        let mut build = Build::begin(&index, Work::Seal { from: 0 }, Lsn::MAX).unwrap().unwrap();
        while !build.step(100) {}
        let Ok(built) = build.finish().unwrap() else { panic!("every row is reached") };
        assert!(built.with_strays((0..600).step_by(7).collect()).install(&index, Some(info(1))));
        (1..=deleted).for_each(|key| index.delete(&format!("{key}"), 600 + key));
        let merge = Work::Merge { from: 0 };
        finish(&index, Build::begin(&index, merge, Lsn::MAX).unwrap().unwrap(), || {});
        assert!(index.cold() <= 600 + deleted, "{}", index.cold());
        assert!(index.misplaced().is_empty());
        assert_eq!(
            search(&index, &scattered(500), 600, true, Lsn::MAX).len() as u64,
            600 - deleted
        );
    }
}

/// Seals and merges as the planner says, until it says nothing more.
fn keep_up(index: &Index, seal_at: usize) {
    loop {
        let (segments, tail) = index.shapes();
        let Some(work) = planner::plan(&segments, tail, seal_at) else { return };
        if let Some(build) = Build::begin(index, work, Lsn::MAX).unwrap() {
            finish(index, build, || {});
        }
    }
}

fn recall(index: &Index, queries: u64) -> f64 {
    let mut found = 0;
    for query in 0..queries {
        let query = scattered(1_000_000 + query);
        let truth = search(index, &query, 10, true, Lsn::MAX);
        let hits = walk(index, &query, 10);
        found += hits.iter().filter(|hit| truth.contains(hit)).count();
    }
    found as f64 / (queries * 10) as f64
}

/// An index whose vectors are removed from one graph and added again loses a tenth of its recall in
/// five rounds; here each round makes graphs of what lives.
#[test]
fn half_of_all_vectors_replaced_five_times_are_found_as_on_a_fresh_index() {
    let (index, fresh) = (Index::new(form(Metric::L2)), Index::new(form(Metric::L2)));
    let (count, seal_at) = (2_000, 300);
    let vector = |key: u64, round: u64| scattered(round * count + key);
    let mut lsn = 0;
    for round in 0..=5 {
        for key in (0..count).step_by(if round == 0 { 1 } else { 2 }) {
            lsn += 1;
            put(&index, &format!("{key}"), &vector(key, round), lsn);
            if lsn % 100 == 0 {
                keep_up(&index, seal_at);
            }
        }
    }
    for key in 0..count {
        put(&fresh, &format!("{key}"), &vector(key, if key % 2 == 0 { 5 } else { 0 }), key + 1);
        keep_up(&fresh, seal_at);
    }
    let (segments, _) = index.shapes();
    let dead: usize = segments.iter().map(|shape| shape.dead).sum();
    assert!(dead < count as usize / 2, "{dead} dead rows are carried along");
    assert_eq!(index.live(), fresh.live());
    let (recall, of_fresh) = (recall(&index, 200), recall(&fresh, 200));
    assert!(recall > of_fresh - 0.005 && recall > 0.98, "{recall} beside {of_fresh}");
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u16),
    Delete(u8),
    Forget(u8),
    Seal,
    Rebuild,
    Search(u16, usize, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (any::<u8>(), 0..500_u16).prop_map(|(key, vector)| Step::Put(key, vector)),
        3 => any::<u8>().prop_map(Step::Delete),
        1 => any::<u8>().prop_map(Step::Forget),
        1 => Just(Step::Seal),
        1 => Just(Step::Rebuild),
        6 => (0..500_u16, 1..12_usize, 0..40_u64).prop_map(|(q, k, ago)| Step::Search(q, k, ago)),
    ];
    prop::collection::vec(step, 1..250)
}

/// Every version by key: (born, died, vector).
type Model = BTreeMap<String, Vec<(Lsn, Lsn, [f32; DIM])>>;

fn nearest(model: &Model, metric: Metric, query: &[f32], at: Lsn) -> Vec<(f32, String)> {
    let mut all = Vec::new();
    for (key, versions) in model {
        for (born, died, vector) in versions {
            if *born <= at && at < *died {
                all.push((distance::between(metric, query, vector), key.clone()));
            }
        }
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    all
}

fn end(model: &mut Model, key: &str, lsn: Lsn) {
    if let Some((_, died, _)) = model.get_mut(key).and_then(|versions| versions.last_mut()) {
        *died = (*died).min(lsn);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn exact_searches_equal_brute_force_at_every_snapshot_in_memory(
        steps in steps(), metric in prop::sample::select(&Metric::ALL[..]),
        coding in prop::sample::select(&Coding::ALL[..]),
    ) {
        let index = Index::new(Form { coding, ..form(metric) });
        let (mut model, mut lsn) = (Model::new(), 1);
        for step in steps {
            lsn += 1;
            match step {
                Step::Put(key, vector) => {
                    let (key, vector) = (format!("{key}"), scattered(vector.into()));
                    put(&index, &key, &vector, lsn);
                    end(&mut model, &key, lsn);
                    model.entry(key).or_default().push((lsn, Lsn::MAX, vector));
                }
                Step::Delete(key) => {
                    index.delete(&format!("{key}"), lsn);
                    end(&mut model, &format!("{key}"), lsn);
                }
                Step::Forget(key) => {
                    index.forget(&format!("{key}"), lsn);
                    model.remove(&format!("{key}"));
                }
                Step::Seal => seal(&index, usize::MAX),
                Step::Rebuild => seal(&index, 0),
                Step::Search(query, k, ago) => {
                    let at = lsn.saturating_sub(ago).max(index.cold());
                    let query = scattered(query.into());
                    let truth = nearest(&model, metric, &query, at);
                    let hits = search(&index, &query, k, true, at);
                    let hits = hits.into_iter().map(|hit| (hit.distance, hit.key));
                    let hits: Vec<_> = hits.collect();
                    prop_assert_eq!(&hits[..], &truth[..k.min(truth.len())]);
                    let near = search(&index, &query, k, false, at);
                    prop_assert_eq!(near.len(), hits.len());
                    for hit in near {
                        prop_assert!(truth.contains(&(hit.distance, hit.key)));
                    }
                }
            }
            prop_assert!(index.misplaced().is_empty());
        }
        let alive = nearest(&model, metric, &scattered(1), lsn).len();
        prop_assert_eq!(index.live(), alive);
    }
}
