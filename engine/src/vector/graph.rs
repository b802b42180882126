//! Navigable small-world graphs (HNSW) over vectors that the graph does not hold.
//!
//! usearch builds them: it believes that it stores vectors of eight bytes, which are row numbers,
//! and its metric asks the `Space` that knows them. What it built is taken out as `Links`, and
//! `walk` searches those.
//!
//! 1. One thread adds, in row order; a `Graph` never changes. The native index loses rows when
//!    threads add at once, and recall when rows are removed and added again.
//! 2. No panic crosses the native code: `call` holds it and lets it go on behind.
//! 3. No distance that enters it is NaN or infinite: it is compiled to believe in neither.
//! 4. It reads only bytes that `native` made from checked `Links`.

mod call;
#[cfg(test)]
mod measure;
mod native;
#[cfg(test)]
mod tests;
mod walk;

use std::fmt::Display;
use std::sync::Arc;

use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use self::call::{Host, ROW_BYTES, row_value};
use super::links::{DEGREE, Links, ROWS_MAX};
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
/// The space is asked about two rows at a time, so what it panics with comes out of `step`. After
/// that the builder is good for nothing.
pub struct Builder<S: Space> {
    index: Index,
    host: Arc<Host<S>>,
    rows: u32,
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
        let host = Arc::new(Host::new(space));
        let index = open(&host, links, rows)?;
        Ok(Self { index, host, rows })
    }

    /// Adds up to `count` rows; true when all are there.
    pub fn step(&mut self, count: u32) -> Result<bool> {
        let next = self.index.size() as u32;
        let end = self.rows.min(next.saturating_add(count));
        for row in next..end {
            let added = self.index.add(u64::from(row), &row_value(row));
            self.host.resume_panic();
            added.map_err(|cause| refused("add to", cause))?;
        }
        Ok(end == self.rows)
    }

    /// The graph, and those of its rows that no search is sure to find (`Links::unreached`). Rows
    /// that were not added yet are in neither.
    pub fn finish(self) -> Result<(Graph<S>, Vec<u32>)> {
        let links = native::links_of(&self.index)?;
        let unreached = links.unreached();
        Ok((Graph::new(Arc::clone(self.host.space()), links), unreached))
    }
}

/// A native index with these links, room for `rows` and a context for the one thread that adds.
fn open<S: Space>(host: &Arc<Host<S>>, links: &Links, rows: u32) -> Result<Index> {
    let failed = |cause| refused("open", cause);
    let mut index = Index::new(&options()).map_err(failed)?;
    if links.rows() > 0 {
        index.load_from_buffer(&native::buffer_of(links)).map_err(failed)?;
    }
    index.reserve_capacity_and_threads(rows as usize, 1).map_err(failed)?;
    // Loading puts a metric of its own in place; setting ours twice would leak the first.
    let host = Arc::clone(host);
    index.change_metric::<i8>(Box::new(move |a, b| {
        // SAFETY: the native index hands on what it was given: a row's value.
        unsafe { host.distance(a, b) }
    }));
    Ok(index)
}

fn options() -> IndexOptions {
    IndexOptions {
        dimensions: ROW_BYTES,
        // Names that leave the bytes alone; neither is used to compute anything.
        metric: MetricKind::L2sq,
        quantization: ScalarKind::I8,
        connectivity: DEGREE,
        expansion_add: BREADTH_ADD,
        expansion_search: BREADTH_ADD,
        multi: false,
    }
}

/// What the native index says when it cannot have the memory it needs.
fn refused(what: &str, cause: impl Display) -> Error {
    Error::limit(format!("cannot {what} the vector graph: {cause}"))
}
