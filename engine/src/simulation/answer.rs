//! Compares what the engine answered with what the oracle says must be.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{Answer, Ask, Bytes};
use crate::views;

/// Distances are exact in float64 but for the roots and quotients of cosine and l2.
const TOLERANCE: f64 = 1.0e-5;

/// `None`: the same; else what is wrong.
pub fn difference(ask: &Ask, found: &Answer, wanted: &Answer) -> Option<String> {
    match (ask, found, wanted) {
        (Ask::Search { k, .. }, Answer::Hits(found), Answer::Hits(all)) => hits(*k, found, all),
        (Ask::Find { order, limit, .. }, Answer::Rows(found), Answer::Rows(wanted)) => {
            match (order, limit) {
                (Some(_), _) => differ(found, wanted),
                (None, None) => differ(&sorted(found), &sorted(wanted)),
                // Any of them may be told, but as many as there are and none twice.
                (None, Some(_)) => some_of(found, wanted, *limit),
            }
        }
        (_, Answer::Groups(found), Answer::Groups(wanted)) => {
            let wanted = wanted.iter().map(|group| {
                let count = usize::from(group.first().copied().unwrap_or_default() & 0x0F);
                views::key::encode(group, count).unwrap_or_default()
            });
            let wanted: BTreeSet<Bytes> = wanted.collect();
            differ(found, &wanted.into_iter().collect::<Vec<_>>())
        }
        (_, Answer::Figures(Some((found, sum))), Answer::Figures(Some((wanted, wanted_sum)))) => {
            let near = match (sum, wanted_sum) {
                (Some(sum), Some(wanted)) => {
                    (sum - wanted).abs() <= TOLERANCE * wanted.abs().max(1.0)
                }
                (sum, wanted) => sum == wanted,
            };
            (found != wanted || !near)
                .then(|| format!("found {:?}, should be {:?}", (found, sum), (wanted, wanted_sum)))
        }
        (_, found, wanted) => differ(found, wanted),
    }
}

fn sorted<T: Ord + Clone>(items: &[T]) -> Vec<T> {
    let mut items = items.to_vec();
    items.sort();
    items
}

fn differ<T: PartialEq + std::fmt::Debug + ?Sized>(found: &T, wanted: &T) -> Option<String> {
    if found == wanted {
        return None;
    }
    let (found, wanted) = (format!("{found:?}"), format!("{wanted:?}"));
    let same = found.chars().zip(wanted.chars()).take_while(|(a, b)| a == b).count();
    let part =
        |text: &str| text.chars().skip(same.saturating_sub(120)).take(300).collect::<String>();
    Some(format!("found {}, should be {}", part(&found), part(&wanted)))
}

fn some_of<T: Ord + Clone + std::fmt::Debug>(
    found: &[T],
    all: &[T],
    limit: Option<usize>,
) -> Option<String> {
    let distinct: BTreeSet<&T> = found.iter().collect();
    let known: BTreeSet<&T> = all.iter().collect();
    let many = known.len().min(limit.unwrap_or(usize::MAX));
    (distinct.len() != found.len() || found.len() != many || !distinct.is_subset(&known))
        .then(|| format!("found {found:?}, should be {many} of {all:?}"))
}

/// The k nearest of all that match, each at its own distance, in the order of distance and key.
fn hits(k: usize, found: &[(String, f64)], all: &[(String, f64)]) -> Option<String> {
    let near = |a: f64, b: f64| (a - b).abs() <= TOLERANCE * b.abs().max(1.0);
    let of: BTreeMap<&str, f64> = all.iter().map(|(key, far)| (key.as_str(), *far)).collect();
    let distinct: BTreeSet<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
    let right = found.len() == all.len().min(k)
        && distinct.len() == found.len()
        && found.is_sorted_by(|(a, x), (b, y)| (x, a) <= (y, b))
        && found.iter().all(|(key, far)| of.get(key.as_str()).is_some_and(|own| near(*far, *own)))
        && found.iter().zip(all).all(|((_, far), (_, wanted))| near(*far, *wanted));
    (!right).then(|| {
        let wanted: Vec<_> = all.iter().take(k).collect();
        format!("found {found:?}, should be {wanted:?}, of {}", all.len())
    })
}
