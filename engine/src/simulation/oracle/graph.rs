//! A walk over edges.

use std::collections::{BTreeMap, BTreeSet};

use super::ask::text;
use super::versions::Versions;
use super::world::{Bytes, Edge, Lsn, Way};

/// Sorted.
pub fn edges(graph: &Versions<Option<Bytes>>, at: Lsn) -> Vec<Edge> {
    let edge = |key: &[Bytes], props: &Option<Bytes>| {
        (text(&key[0]), text(&key[1]), text(&key[2]), props.clone())
    };
    graph.at(at).map(|(key, props, _)| edge(key, props)).collect()
}

/// Breadth first: whoever is met first is met at its least depth.
pub fn neighbors(
    edges: &[Edge],
    start: &str,
    relation: Option<&str>,
    way: Way,
    depth: usize,
) -> Vec<(String, usize)> {
    let mut found: BTreeMap<&str, usize> = BTreeMap::from([(start, 0)]);
    let mut frontier = BTreeSet::from([start]);
    for step in 1..=depth {
        let mut next = BTreeSet::new();
        for (source, of, target, _) in edges {
            if relation.is_some_and(|relation| relation != of) {
                continue;
            }
            if way != Way::In && frontier.contains(source.as_str()) {
                next.insert(target.as_str());
            }
            if way != Way::Out && frontier.contains(target.as_str()) {
                next.insert(source.as_str());
            }
        }
        next.retain(|node| !found.contains_key(node));
        found.extend(next.iter().map(|node| (*node, step)));
        frontier = next;
    }
    found.remove(start);
    found.into_iter().map(|(node, depth)| (node.to_owned(), depth)).collect()
}
