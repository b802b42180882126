//! Navigable small-world graphs (HNSW) over vectors that the graph does not hold.
//!
//! `Builder` puts rows in one after the other (`insert`), a `Graph` searches what it made. Both are
//! a `walk` of `lists` of neighbours; the `Space` beside them knows the distances. Files have the
//! lists as `Links`.
//!
//! 1. One thread adds, in row order; a `Graph` never changes, so any number of threads search it.
//! 2. No distance that enters is NaN or infinite.
//! 3. Rows that no search is sure to find are told when a graph is finished.

mod insert;
mod lists;
#[cfg(test)]
mod measure;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::Arc;

use self::insert::insert;
use self::lists::Lists;
use self::walk::Walk;
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
pub trait Accept: Sync {
    fn accepts(&self, row: u32) -> bool;

    /// A row will soon be asked about, perhaps.
    fn prefetch(&self, _row: u32) {}
}

impl<F: Fn(u32) -> bool + Sync> Accept for F {
    fn accepts(&self, row: u32) -> bool {
        self(row)
    }
}

/// `None`: any row.
pub type Accepts<'a> = Option<&'a dyn Accept>;

/// Immutable; any number of threads may search.
pub struct Graph<S> {
    space: Arc<S>,
    lists: Lists,
}

impl<S: Space> Graph<S> {
    /// The space holds all rows of the links.
    pub fn new(space: Arc<S>, links: &Links) -> Self {
        Self { space, lists: Lists::of(links, links.rows()) }
    }

    pub fn space(&self) -> &Arc<S> {
        &self.space
    }

    pub fn len(&self) -> usize {
        self.lists.rows() as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Up to `ef` nearest rows that are accepted, ascending by (distance, row). `ef` is both their
    /// number and the breadth of the search. Rejected rows are walked through but take no place, so
    /// a filter that accepts fewer than `ef` rows walks the whole graph.
    pub fn search(&self, query: &S::Query, ef: usize, accepts: Accepts<'_>) -> Vec<(f32, u32)> {
        walk::search(&*self.space, &self.lists, query, ef, accepts)
    }

    /// What a file has of it.
    pub fn links(&self) -> Links {
        self.lists.links()
    }

    /// Of the graph alone; the space has its own.
    pub fn memory_bytes(&self) -> usize {
        self.lists.memory_bytes()
    }
}

/// A graph under construction, by one thread, in steps; rows 0..rows are added in order.
///
/// What the space panics with comes out of `step`; after that the builder is good for nothing.
pub struct Builder<S> {
    space: Arc<S>,
    lists: Lists,
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
        let lists = Lists::of(links, rows);
        Ok(Self { space, lists, walk: Walk::default(), rows, is_broken: false })
    }

    /// Adds up to `count` rows; true when all are there.
    pub fn step(&mut self, count: u32) -> bool {
        self.step_with(count, BREADTH_ADD)
    }

    fn step_with(&mut self, count: u32, breadth: usize) -> bool {
        assert!(!self.is_broken, "a build goes on after its panic");
        self.is_broken = true;
        let next = self.lists.rows();
        let end = self.rows.min(next.saturating_add(count));
        let Self { space, lists, walk, .. } = self;
        (next..end).for_each(|_| insert(&**space, lists, walk, breadth));
        self.is_broken = false;
        end == self.rows
    }

    /// The graph, and those of its rows that no search is sure to find (`Links::unreached`). Rows
    /// that were not added yet are in neither.
    pub fn finish(self) -> (Graph<S>, Vec<u32>) {
        let Self { space, lists, .. } = self;
        let unreached = lists.links().unreached();
        (Graph { space, lists }, unreached)
    }
}
