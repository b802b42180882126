//! The links of a vector graph: what is accepted is what would have been written, and a graph that
//! can be searched, and that native code can extend and give back.

use std::sync::Arc;

use waferdb::vector::graph::{Builder, Graph, Space};
use waferdb::vector::links::Links;

/// Larger graphs are only decoded.
const ROWS_MAX: u32 = 5000;

/// Rows on a line, each at its number.
struct Line;

impl Space for Line {
    type Query = u32;

    fn between(&self, a: u32, b: u32) -> f32 {
        a.abs_diff(b) as f32
    }

    fn near(&self, query: &u32, row: u32) -> f32 {
        self.between(*query, row)
    }
}

pub fn links(input: &[u8]) {
    let Ok(links) = Links::decode(input) else { return };
    assert!(links.encode() == input);
    let rows = links.rows();
    let unreached = links.unreached();
    if rows > ROWS_MAX {
        return;
    }
    let graph = Graph::new(Arc::new(Line), &links);
    let hits = graph.search(&(rows / 2), rows as usize, None);
    assert!(hits.is_sorted() && hits.iter().all(|&(_, row)| row < rows));
    // As broad as the graph is large, a search finds all that its links lead to.
    let missed = |row: &u32| !hits.iter().any(|hit| hit.1 == *row);
    assert!((0..rows).filter(missed).all(|row| unreached.binary_search(&row).is_ok()));
    extended(&links);
}

/// A sound encoding, for seeds.
pub fn sound(rows: u32) -> Vec<u8> {
    let mut builder = Builder::new(Arc::new(Line), rows).expect("there is memory");
    assert!(builder.step(rows));
    let (graph, _) = builder.finish();
    graph.links().encode()
}

fn extended(links: &Links) {
    let rows = links.rows() + 20;
    let mut builder = Builder::extend(links, Arc::new(Line), rows).expect("there is memory");
    assert!(builder.step(rows));
    let (graph, _) = builder.finish();
    assert_eq!(graph.len(), rows as usize);
}
