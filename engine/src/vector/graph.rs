//! Navigable small-world graphs (HNSW) over vectors that the graph does not hold.
//!
//! `Builder` puts rows in one after the other (`insert`); what it made is `Links`, and a `Graph` is
//! those beside the `Space` that knows the distances. Insertions and searches are the same `walk`.
//!
//! 1. One thread adds, in row order, and which links come out follows from the space alone; a
//!    `Graph` never changes.
//! 2. No distance that enters is NaN or infinite.
//! 3. Rows that no search is sure to find are told when a graph is finished.

mod insert;
#[cfg(test)]
mod measure;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::Arc;

use self::insert::Growing;
use self::walk::{Neighbors, Walk};
use super::links::{Links, ROWS_MAX};
use crate::error::{Error, Result};

/// How many candidates an insertion looks at: docs/decisions/0007-vector-graphs.md.
const BREADTH_ADD: usize = 96;

/// What a graph asks about the vectors it links. Distances are finite.
pub trait Space: Send + Sync + 'static {
    type Query: Sync;

    fn between(&self, a: u32, b: u32) -> f32;

    fn near(&self, query: &Self::Query, row: u32) -> f32;

    /// A row's distance will soon be asked for.
    fn prefetch(&self, _row: u32) {}
}

/// Which rows a search may return.
pub type Accepts<'a> = Option<&'a (dyn Fn(u32) -> bool + Sync)>;

/// Immutable; any number of threads may search.
pub struct Graph<S> {
    space: Arc<S>,
    links: Links,
}

impl<S: Space> Graph<S> {
    /// The space holds all rows of the links.
    pub fn new(space: Arc<S>, links: Links) -> Self {
        Self { space, links }
    }

    pub fn space(&self) -> &Arc<S> {
        &self.space
    }

    pub fn len(&self) -> usize {
        self.links.rows() as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Up to `ef` nearest rows that are accepted, ascending by (distance, row). `ef` is both their
    /// number and the breadth of the search. Rejected rows are walked through but take no place, so
    /// a filter that accepts fewer than `ef` rows walks the whole graph.
    pub fn search(&self, query: &S::Query, ef: usize, accepts: Accepts<'_>) -> Vec<(f32, u32)> {
        walk::search(&*self.space, &self.links, query, ef, accepts)
    }

    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Of the graph alone; the space has its own.
    pub fn memory_bytes(&self) -> usize {
        self.links.memory_bytes()
    }
}

/// A graph under construction, by one thread, in steps; rows 0..rows are added in order.
///
/// What the space panics with comes out of `step`; after that the builder is good for nothing.
pub struct Builder<S> {
    space: Arc<S>,
    growing: Growing,
    walk: Walk,
    rows: u32,
    /// A row is half in.
    is_broken: bool,
}

impl<S: Space> Builder<S> {
    pub fn new(space: Arc<S>, rows: u32) -> Result<Self> {
        Self::extend(&Links::default(), space, rows)
    }

    /// Goes on from a graph over the first rows of the space; only the others are inserted.
    pub fn extend(links: &Links, space: Arc<S>, rows: u32) -> Result<Self> {
        if rows > ROWS_MAX || rows < links.rows() {
            return Err(Error::limit(format!(
                "a graph of {} rows cannot become one of {rows}; {ROWS_MAX} are the most",
                links.rows()
            )));
        }
        let growing = Growing::of(links, rows);
        Ok(Self { space, growing, walk: Walk::default(), rows, is_broken: false })
    }

    /// Adds up to `count` rows; true when all are there.
    pub fn step(&mut self, count: u32) -> bool {
        self.step_with(count, BREADTH_ADD)
    }

    fn step_with(&mut self, count: u32, breadth: usize) -> bool {
        assert!(!self.is_broken, "a build goes on after its panic");
        self.is_broken = true;
        let next = self.growing.rows();
        let end = self.rows.min(next.saturating_add(count));
        (next..end).for_each(|_| self.growing.insert(&*self.space, &mut self.walk, breadth));
        self.is_broken = false;
        end == self.rows
    }

    /// The graph, and those of its rows that no search is sure to find (`Links::unreached`). Rows
    /// that were not added yet are in neither.
    pub fn finish(self) -> Result<(Graph<S>, Vec<u32>)> {
        let links = self.growing.links()?;
        let unreached = links.unreached();
        Ok((Graph::new(self.space, links), unreached))
    }
}
