//! One segment in the making: the rows of a tail and of older segments, linked in steps.
//!
//! Invariants:
//! 1. What is made from is not changed: searches go on with it until the whole is replaced at once.
//! 2. A version that ends meanwhile ends in what is made, too: it is one object.
//! 3. No row is above the LSN that was durable when the making began.

use std::sync::Arc;

use super::index::{Form, Index, Lists};
use super::segment::Segment;
use super::version::{Rows, Version};
use crate::error::Result;
use crate::log::Lsn;
use crate::ordered::Slot;
use crate::storage::Cause;
use crate::vector::codes::Codes;
use crate::vector::file::{Contents, GraphInfo, RowId};
use crate::vector::graph::{Builder, Graph};
use crate::vector::planner::Work;

/// More dead rows than one in so many are not carried along.
const CARRIED_DEAD: usize = 8;
/// More unreachable rows than one in so many make a failed build.
const STRAYS_SHARE: usize = 50;
/// How often a graph is built before its rows are scanned instead.
const ATTEMPTS: usize = 2;

pub struct Build {
    /// The segments and parts of the tail it takes the place of.
    old: Lists,
    codes: Arc<Codes>,
    versions: Vec<Arc<Version>>,
    builder: Builder<Codes>,
    attempts: usize,
    pub cause: Cause,
}

/// What is to be written and taken into use.
pub struct Built {
    old: Lists,
    codes: Arc<Codes>,
    versions: Vec<Arc<Version>>,
    graph: Option<Graph<Codes>>,
    strays: Vec<u32>,
    pub cause: Cause,
}

impl Build {
    /// Takes up what `work` says, as far as it is durable; `None`: nothing is, or it needs no graph
    /// and was done at once.
    pub fn begin(index: &Index, work: Work, durable: Lsn) -> Result<Option<Self>> {
        let lists = index.close_part();
        let is_durable = |rows: &&Arc<Rows>| rows.versions.iter().all(|row| row.born <= durable);
        let (from, closed) = match work {
            Work::Merge { from } => (from, Vec::new()),
            Work::Seal { from } => {
                (from, lists.closed.iter().take_while(is_durable).cloned().collect())
            }
            Work::Compact => {
                compact(index, &lists);
                return Ok(None);
            }
        };
        let from = from.min(lists.segments.len());
        let old = Lists { segments: lists.segments[from..].to_vec(), closed };
        let merges = !old.segments.is_empty();
        if !merges && old.closed.is_empty() {
            return Ok(None);
        }
        let cause = if merges { Cause::Merge } else { Cause::Seal };
        let (codes, versions, carried) = gather(index.form, &old);
        let codes = Arc::new(codes);
        let rows = versions.len() as u32;
        let builder = match carried.as_ref().and_then(|segment| segment.graph.as_ref()) {
            Some(graph) => Builder::extend(&graph.links(), Arc::clone(&codes), rows)?,
            None => Builder::new(Arc::clone(&codes), rows)?,
        };
        Ok(Some(Self { old, codes, versions, builder, attempts: 1, cause }))
    }

    /// Rows of the tail that it has taken up.
    pub fn taken(&self) -> usize {
        self.old.closed.iter().map(|rows| rows.len()).sum()
    }

    /// Where the components lie of what comes from the tail.
    pub fn sealed_slots(&self) -> impl Iterator<Item = &Slot> {
        let rows = self.old.closed.iter().flat_map(|rows| &rows.versions);
        rows.filter(|version| version.is_live()).map(|version| &version.slot)
    }

    /// Links up to `count` rows more; `true` when all are.
    pub fn step(&mut self, count: u32) -> bool {
        self.builder.step(count)
    }

    /// The segment, or the build once more from the beginning where its graph is of no use.
    pub fn finish(self) -> Result<Result<Built, Self>> {
        let Self { old, codes, versions, builder, attempts, cause } = self;
        let (graph, strays) = builder.finish();
        let is_sound = strays.len() * STRAYS_SHARE <= versions.len();
        if !is_sound && attempts < ATTEMPTS {
            let builder = Builder::new(Arc::clone(&codes), versions.len() as u32)?;
            let attempts = attempts + 1;
            return Ok(Err(Self { old, codes, versions, builder, attempts, cause }));
        }
        let (graph, strays) = if is_sound { (Some(graph), strays) } else { (None, Vec::new()) };
        Ok(Ok(Built { old, codes, versions, graph, strays, cause }))
    }
}

impl Built {
    /// Nothing is left of what it was to be made of.
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// As if these rows had not been reached.
    #[cfg(test)]
    pub fn with_strays(self, strays: Vec<u32>) -> Self {
        Self { strays, ..self }
    }

    /// What its file says.
    pub fn contents(&self) -> Contents {
        let id = |version: &Arc<Version>| RowId::new(version.born, &version.key);
        let rows = self.versions.iter().map(id).collect();
        let links = self.graph.as_ref().map(Graph::links);
        Contents { rows, strays: self.strays.clone(), links }
    }

    /// Numbers of the files that are not needed once this is in use.
    pub fn obsolete(&self) -> Vec<u64> {
        self.old.segments.iter().map(|segment| segment.info.uid).collect()
    }

    /// Takes the place of what it was made from; `false`: that is not in use any more.
    /// `info`: of its file; `None`: nothing lives in it, so there is none.
    pub fn install(self, index: &Index, info: Option<GraphInfo>) -> bool {
        let mut tail = Rows::new(index.form.codes(self.strays.len()));
        for row in &self.strays {
            let version = &self.versions[*row as usize];
            if version.is_live() {
                tail.versions.push(Arc::clone(version));
                tail.codes.push_row(&self.codes, *row as usize);
            }
        }
        let Self { old, codes, versions, graph, strays, .. } = self;
        let made = info.map(|info| Arc::new(Segment { codes, versions, graph, strays, info }));
        index.replace(&old, made, Some(tail))
    }
}

/// The rows to link, in this order, and the segment whose graph over the first of them goes on.
fn gather(form: Form, old: &Lists) -> (Codes, Vec<Arc<Version>>, Option<Arc<Segment>>) {
    let carried = old.segments.first().filter(|segment| {
        let dead = segment.shape().dead;
        segment.graph.is_some() && dead * CARRIED_DEAD <= segment.len()
    });
    let tail: usize = old.closed.iter().map(|rows| rows.len()).sum();
    let rows = old.segments.iter().map(|segment| segment.len()).sum::<usize>() + tail;
    let mut fresh = Rows::new(form.codes(rows - carried.map_or(0, |segment| segment.len())));
    for segment in old.segments.iter().skip(usize::from(carried.is_some())) {
        for row in (0..segment.len()).filter(|row| segment.is_answering(*row)) {
            fresh.versions.push(Arc::clone(&segment.versions[row]));
            fresh.codes.push_row(&segment.codes, row);
        }
    }
    append_live(&mut fresh, &old.closed);
    let mut made = Rows::new(form.codes(rows));
    if let Some(segment) = carried {
        // A stray is linked anew, as the row of the tail that it is.
        let gone = Version::gone();
        for (row, version) in segment.versions.iter().enumerate() {
            let version = if segment.is_stray(row as u32) { &gone } else { version };
            made.versions.push(Arc::clone(version));
            made.codes.push_row(&segment.codes, row);
        }
    }
    for (row, version) in fresh.versions.into_iter().enumerate() {
        made.versions.push(version);
        made.codes.push_row(&fresh.codes, row);
    }
    (made.codes, made.versions, carried.cloned())
}

fn append_live(made: &mut Rows, parts: &[Arc<Rows>]) {
    for part in parts {
        for (row, version) in part.versions.iter().enumerate() {
            if version.is_live() {
                made.versions.push(Arc::clone(version));
                made.codes.push_row(&part.codes, row);
            }
        }
    }
}

/// Puts the live rows of the tail together.
fn compact(index: &Index, lists: &Lists) {
    let old = Lists { segments: Vec::new(), closed: lists.closed.clone() };
    let mut tail = Rows::new(index.form.codes(0));
    append_live(&mut tail, &old.closed);
    index.replace(&old, None, Some(tail));
}
