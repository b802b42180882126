//! The tail against a model without any structure: random puts, deletes, forgets, prunes and
//! searches at random snapshots, over few keys and few directions, so that ties are common.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::assert_sound;
use super::{Hit, LIVE, Metric, Pending, Tail, distance};

/// What the tail must answer: every change ever made, and no structure at all.
#[derive(Default)]
struct Model {
    versions: Vec<(String, u64, u64, Vec<f32>)>,
}

impl Model {
    fn end(&mut self, key: &str, lsn: u64) {
        for version in &mut self.versions {
            if version.0 == key && version.2 == LIVE {
                version.2 = lsn;
            }
        }
    }

    fn put(&mut self, key: &str, vector: &[f32], lsn: u64) {
        self.end(key, lsn);
        self.versions.push((key.to_owned(), lsn, LIVE, vector.to_vec()));
    }

    /// Key to (born, vector) at a snapshot.
    fn at(&self, at: u64) -> BTreeMap<String, (u64, Vec<f32>)> {
        let seen = self.versions.iter().filter(|(_, born, died, _)| *born <= at && at < *died);
        seen.map(|(key, born, _, vector)| (key.clone(), (*born, vector.clone()))).collect()
    }

    fn search(
        &self,
        metric: Metric,
        query: &[f32],
        k: usize,
        at: u64,
        only: &dyn Fn(&str) -> bool,
        pending: &Pending,
    ) -> Vec<Hit> {
        let mut vectors: BTreeMap<_, _> =
            self.at(at).into_iter().map(|(key, (_, vector))| (key, vector)).collect();
        for (key, vector) in pending {
            match vector {
                Some(vector) => vectors.insert(key.clone(), vector.clone()),
                None => vectors.remove(key),
            };
        }
        let mut hits: Vec<Hit> = vectors
            .into_iter()
            .filter(|(key, _)| only(key))
            .map(|(key, vector)| Hit { key, distance: distance::between(metric, query, &vector) })
            .collect();
        hits.sort_by(|a, b| a.distance.partial_cmp(&b.distance).unwrap().then(a.key.cmp(&b.key)));
        hits.truncate(k);
        hits
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, Vec<f32>),
    Delete(u8),
    Forget(u8, u64),
    Prune(u64),
    /// The next change belongs to a later commit.
    Commit(u64),
    Ask {
        query: Vec<f32>,
        k: usize,
        back: u64,
        modulus: u8,
        pending: BTreeMap<u8, Option<u8>>,
    },
}

/// Few directions, so that ties are common, and none of them zero.
fn vector() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(-2..3_i8, 5).prop_map(|small| {
        let mut vector: Vec<f32> = small.into_iter().map(f32::from).collect();
        vector[4] += 3.0;
        vector
    })
}

fn step() -> impl Strategy<Value = Step> {
    let ask = (
        vector(),
        0..12_usize,
        0..12_u64,
        1..4_u8,
        prop::collection::btree_map(0..12_u8, prop::option::of(any::<u8>()), 0..4),
    );
    prop_oneof![
        6 => (0..12_u8, vector()).prop_map(|(key, vector)| Step::Put(key, vector)),
        2 => (0..12_u8).prop_map(Step::Delete),
        1 => (0..12_u8, 0..6_u64).prop_map(|(key, back)| Step::Forget(key, back)),
        1 => (0..12_u64).prop_map(Step::Prune),
        4 => (1..3_u64).prop_map(Step::Commit),
        4 => ask.prop_map(|(query, k, back, modulus, pending)| {
            Step::Ask { query, k, back, modulus, pending }
        }),
    ]
}

fn name(key: u8) -> String {
    format!("key-{:02}", key * 5 % 12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_tail_answers_as_the_model(
        which in 0..3_usize, steps in prop::collection::vec(step(), 1..120)
    ) {
        let metric = Metric::ALL[which];
        let (tail, mut model) = (Tail::new(5, metric), Model::default());
        let (mut lsn, mut floor) = (1, 0);
        for step in steps {
            match step {
                Step::Put(key, vector) => {
                    tail.put(&name(key), &vector, lsn);
                    model.put(&name(key), &vector, lsn);
                }
                Step::Delete(key) => {
                    tail.delete(&name(key), lsn);
                    model.end(&name(key), lsn);
                }
                Step::Forget(key, back) => {
                    let (key, upto) = (name(key), lsn.saturating_sub(back));
                    tail.forget(&key, upto);
                    model.versions.retain(|version| version.0 != key || version.1 > upto);
                }
                Step::Prune(back) => {
                    floor = floor.max(lsn.saturating_sub(back));
                    tail.prune(floor);
                }
                Step::Commit(by) => lsn += by,
                Step::Ask { query, k, back, modulus, pending } => {
                    let at = lsn.saturating_sub(back).max(floor);
                    let pending: Pending = pending
                        .into_iter()
                        .map(|(key, x)| (name(key), x.map(|x| vec![f32::from(x) + 1.0; 5])))
                        .collect();
                    let only = |key: &str| key.as_bytes()[5].is_multiple_of(modulus);
                    let expected = model.search(metric, &query, k, at, &only, &pending);
                    let hits = tail.search(&query, k, at, Some(&only), &pending);
                    prop_assert_eq!(&hits, &expected);
                    let all: Vec<String> = (0..12).chain(0..3).map(name).collect();
                    let few: Vec<&String> = all.iter().filter(|key| only(key)).collect();
                    prop_assert_eq!(
                        tail.search_keys(&query, k, at, &few, &pending), expected
                    );
                    let seen = model.at(at);
                    prop_assert_eq!(tail.count(at), seen.len());
                    let listed: Vec<_> =
                        seen.iter().map(|(key, (born, _))| (key.clone(), *born)).collect();
                    let (head, rest) = listed.split_at(k.min(listed.len()));
                    prop_assert_eq!(tail.page(None, at, k), head);
                    let after = head.last().map(|(key, _)| key.as_str());
                    prop_assert_eq!(tail.page(after, at, usize::MAX), rest);
                    for key in (0..12).map(name) {
                        let expected = seen.get(&key).map(|(born, v)| (v.clone(), *born));
                        prop_assert_eq!(tail.contains(&key, at), expected.is_some());
                        prop_assert_eq!(tail.get(&key, at), expected);
                    }
                }
            }
        }
        assert_sound(&tail);
    }
}
