//! One search: every tail row and the neighbourhoods that graphs give, by code; then the few that
//! can be among the nearest by their exact distance.
//!
//! Invariants:
//! 1. A code's distance is within its error of the exact one (`vector::codes`), so a row is left
//!    out of an exact search only if k others are surely nearer.
//! 2. Otherwise errors are taken for sums of independent parts: `4 / sqrt(dim)` of the bound is
//!    more than five standard deviations of them for what is scanned, and half of that for what a
//!    graph comes by, which may pass over more than that.
//! 3. Deleted, superseded and forgotten versions, and those that the snapshot does not see, are
//!    left out before anything is counted.

use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::sync::Arc;

use super::index::Index;
use super::segment::Segment;
use super::unless_withdrawn;
use super::version::{Rows, Version};
use crate::error::{Error, Result};
use crate::log::Lsn;
use crate::lookup::Accepts;
use crate::ordered::Slot;
use crate::storage::bytes::Bytes;
use crate::vector::codes::{CodedQuery, Codes};
use crate::vector::distance::{self, Query};
use crate::vector::graph::{Accept, Graph};
use crate::vector::nearest::{Hit, Nearest};
use crate::vector::{self, Search};

/// A transaction's own uncommitted changes by key, `None` where it deleted; they override.
pub type Pending = BTreeMap<String, Option<Vec<f32>>>;

/// Candidates a graph gives by default, at least.
const BREADTH_MIN: usize = 64;
/// In a graph of up to so many rows; with each doubling it takes more to find as many.
const BREADTH_MIN_ROWS: usize = 1 << 16;
const BREADTH_MORE: usize = 24;
/// And for each result asked for.
const BREADTH_EACH: usize = 3;
/// Of those that are measured exactly, one is asked for while so many before it are measured.
const AHEAD: usize = 2;
/// A segment whose codes take no more is scanned: that takes about as long as a walk.
pub const SCANNED_BYTES: usize = 2 << 20;

/// What is asked.
pub struct Probe<'a> {
    pub query: &'a [f32],
    pub search: Search,
    pub at: Lsn,
    pub pending: &'a Pending,
    pub accepts: Option<Accepts<'a>>,
}

impl Probe<'_> {
    /// Candidates of a graph of so many rows.
    fn breadth(&self, rows: usize) -> usize {
        let doublings = (rows / BREADTH_MIN_ROWS).max(1).ilog2() as usize;
        let by_size = BREADTH_MIN + BREADTH_MORE * doublings;
        let breadth = self.search.ef.unwrap_or(by_size.max(BREADTH_EACH * self.search.k));
        breadth.max(self.search.k)
    }

    fn may_answer(&self, version: &Version) -> Result<bool> {
        if !version.is_visible(self.at) { Ok(false) } else { self.may_answer_with(&version.key) }
    }

    /// Whether the vector that stands under a key is not overridden, and wanted.
    pub fn may_answer_with(&self, key: &str) -> Result<bool> {
        if self.pending.contains_key(key) {
            return Ok(false);
        }
        self.accepts.map_or(Ok(true), |accepts| accepts(key))
    }
}

struct Candidate {
    /// No nearer than this.
    low: f32,
    version: Arc<Version>,
}

/// Those that may be among the k nearest, by bounds of their distances.
struct Shortlist {
    k: usize,
    /// Of the bound of an error, what is allowed for.
    share: f32,
    /// The k least upper bounds so far, the greatest on top.
    highs: BinaryHeap<Ordered>,
    candidates: Vec<Candidate>,
    /// So many are looked through for those that are out.
    prune_at: usize,
}

#[derive(PartialEq)]
struct Ordered(f32);

impl Eq for Ordered {}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Shortlist {
    fn new(k: usize, share: f32) -> Self {
        let prune_at = 8 * k + 1_024;
        Self { k, share, highs: BinaryHeap::new(), candidates: Vec::new(), prune_at }
    }

    /// What is farther than this for sure is out.
    fn limit(&self) -> f32 {
        match self.highs.peek() {
            Some(high) if self.highs.len() >= self.k => high.0,
            _ => f32::INFINITY,
        }
    }

    fn offer(
        &mut self,
        (near, error): (f32, f32),
        version: &Arc<Version>,
        probe: &Probe<'_>,
    ) -> Result<()> {
        let error = error * self.share;
        if near - error > self.limit() || !probe.may_answer(version)? {
            return Ok(());
        }
        let high = near + error;
        if self.highs.len() < self.k {
            self.highs.push(Ordered(high));
        } else if let Some(mut greatest) = self.highs.peek_mut()
            && high < greatest.0
        {
            *greatest = Ordered(high);
        }
        self.candidates.push(Candidate { low: near - error, version: Arc::clone(version) });
        if self.candidates.len() >= self.prune_at {
            let limit = self.limit();
            self.candidates.retain(|candidate| candidate.low <= limit);
            // Many may be as near as each other; they are not looked through again and again.
            self.prune_at = self.prune_at.max(2 * self.candidates.len());
        }
        Ok(())
    }

    /// The nearest of them and of what the transaction itself put, by exact distance.
    fn exact(
        mut self,
        probe: &Probe<'_>,
        own: &[(&str, f32)],
        values: &Reader<'_>,
    ) -> Result<Vec<Hit>> {
        self.candidates.sort_by(|a, b| a.low.total_cmp(&b.low));
        let metric = values.metric;
        let query = Query::new(metric, probe.query);
        let mut nearest = Nearest::new(self.k);
        own.iter().for_each(|(key, distance)| nearest.offer(*distance, key, || true));
        let mut seen = HashSet::new();
        let first = self.candidates.iter().take(AHEAD);
        first.for_each(|candidate| (values.prefetch)(&candidate.version.slot));
        for (number, candidate) in self.candidates.iter().enumerate() {
            if nearest.farthest().is_some_and(|farthest| candidate.low > farthest) {
                break;
            }
            // A row may be listed twice while a segment takes another's place.
            if !seen.insert(Arc::as_ptr(&candidate.version)) {
                continue;
            }
            if let Some(later) = self.candidates.get(number + AHEAD) {
                (values.prefetch)(&later.version.slot);
            }
            let Some(bytes) = values.read(&candidate.version)? else { continue };
            let components = vector::from_bytes(&bytes)?;
            let distance = query.distance(&components, distance::scale(metric, &components));
            nearest.offer(distance, &candidate.version.key, || true);
        }
        Ok(nearest.into_hits())
    }
}

/// Where the components of versions are read.
pub struct Reader<'a> {
    pub read: &'a (dyn Fn(&Slot) -> Result<Bytes> + Sync),
    /// They will soon be read.
    pub prefetch: &'a (dyn Fn(&Slot) + Sync),
    pub metric: vector::Metric,
    /// What lies above may have been lost by a log that failed since.
    pub durable: Lsn,
}

impl Reader<'_> {
    /// `None`: withdrawn, so that no snapshot sees it.
    pub fn read(&self, version: &Version) -> Result<Option<Bytes>> {
        unless_withdrawn((self.read)(&version.slot), version.born, self.durable)
    }
}

impl Index {
    /// The k nearest at a snapshot at or above `cold`, ascending by (distance, key).
    pub fn search(&self, probe: &Probe<'_>, reader: &Reader<'_>) -> Result<Vec<Hit>> {
        let hits = self.search_by(probe, reader, probe.search.exact)?;
        // A graph gives what it comes by; every vector is compared where that is too little.
        if probe.search.exact || hits.len() >= probe.search.k || probe.accepts.is_some() {
            return Ok(hits);
        }
        let overridden = probe.pending.keys().map(String::as_str);
        let own = probe.pending.values().filter(|vector| vector.is_some()).count();
        if hits.len() < self.answering(probe.at, overridden).saturating_add(own) {
            return self.search_by(probe, reader, true);
        }
        Ok(hits)
    }

    fn search_by(&self, probe: &Probe<'_>, reader: &Reader<'_>, exact: bool) -> Result<Vec<Hit>> {
        let share = if exact { 1.0 } else { (4.0 / (self.form.dim as f32).sqrt()).min(1.0) };
        let mut list = Shortlist::new(probe.search.k, share);
        let coded = self.form.codes(0).query(probe.query);
        let (lists, open) = self.read(|open| match probe.accepts {
            None => {
                let rows = (&open.codes, &open.versions[..]);
                scan(&mut list, rows, &[], &coded, probe).map(|()| Vec::new())
            }
            // It may read files: not under a lock.
            Some(_) => Ok(near_rows(open, &coded, probe.at)),
        });
        for (near, error, version) in open? {
            list.offer((near, error), &version, probe)?;
        }
        for rows in &lists.closed {
            scan(&mut list, (&rows.codes, &rows.versions), &[], &coded, probe)?;
        }
        for segment in &lists.segments {
            match &segment.graph {
                Some(graph) if !exact && (probe.search.ef.is_some() || !segment.is_small()) => {
                    let found = walk(segment, graph, &coded, probe)?;
                    for (near, row) in found {
                        let error = segment.codes.error(&coded, row as usize) / 2.0;
                        list.offer((near, error), &segment.versions[row as usize], probe)?;
                    }
                }
                _ => {
                    let rows = (&*segment.codes, &segment.versions[..]);
                    scan(&mut list, rows, &segment.strays, &coded, probe)?;
                }
            }
        }
        list.exact(probe, &own(probe, reader.metric)?, reader)
    }
}

/// Visible rows of the open part of the tail, taken along because it is under a lock.
fn near_rows(rows: &Rows, query: &CodedQuery, at: Lsn) -> Vec<(f32, f32, Arc<Version>)> {
    let mut near = Vec::with_capacity(rows.len());
    rows.codes.scan(query, 0..rows.len(), |row, distance| {
        let version = &rows.versions[row];
        if version.is_visible(at) {
            near.push((distance, rows.codes.error(query, row), Arc::clone(version)));
        }
    });
    near
}

/// All rows but `strays`, which others list.
fn scan(
    list: &mut Shortlist,
    (codes, versions): (&Codes, &[Arc<Version>]),
    strays: &[u32],
    query: &CodedQuery,
    probe: &Probe<'_>,
) -> Result<()> {
    let mut failed = Ok(());
    let error_max = codes.error_max(query) * list.share;
    codes.scan(query, 0..versions.len(), |row, distance| {
        let is_near = distance - error_max <= list.limit();
        if is_near && failed.is_ok() && strays.binary_search(&(row as u32)).is_err() {
            failed = list.offer((distance, codes.error(query, row)), &versions[row], probe);
        }
    });
    failed
}

/// What a segment's graph comes by.
fn walk(
    segment: &Segment,
    graph: &Graph<Codes>,
    query: &CodedQuery,
    probe: &Probe<'_>,
) -> Result<Vec<(f32, u32)>> {
    let answering = Answering { segment, probe, failure: crate::sync::Mutex::new(None) };
    let found = graph.search(query, probe.breadth(segment.len()), Some(&answering));
    match answering.failure.into_inner() {
        Some(error) => Err(error),
        None => Ok(found),
    }
}

/// Rows of a segment that may answer.
struct Answering<'a> {
    segment: &'a Segment,
    probe: &'a Probe<'a>,
    /// Why that could not be said of one.
    failure: crate::sync::Mutex<Option<Error>>,
}

impl Accept for Answering<'_> {
    fn accepts(&self, row: u32) -> bool {
        if self.segment.is_stray(row) {
            return false;
        }
        self.probe.may_answer(&self.segment.versions[row as usize]).unwrap_or_else(|error| {
            self.failure.lock().get_or_insert(error);
            false
        })
    }

    /// Versions lie anywhere in memory, as codes do.
    fn prefetch(&self, row: u32) {
        self.segment.versions[row as usize].prefetch();
    }
}

/// The transaction's own vectors that may answer, with their distances.
fn own<'a>(probe: &'a Probe<'_>, metric: vector::Metric) -> Result<Vec<(&'a str, f32)>> {
    let query = Query::new(metric, probe.query);
    let mut own = Vec::new();
    for (key, vector) in probe.pending {
        if let Some(vector) = vector
            && probe.accepts.map_or(Ok(true), |accepts| accepts(key))?
        {
            own.push((key.as_str(), query.distance(vector, distance::scale(metric, vector))));
        }
    }
    Ok(own)
}

/// The k nearest of a few vectors by exact distance, and of the transaction's own.
pub fn nearest_of(
    probe: &Probe<'_>,
    vectors: impl Iterator<Item = Result<(String, Bytes)>>,
    metric: vector::Metric,
) -> Result<Vec<Hit>> {
    let query = Query::new(metric, probe.query);
    let order =
        |a: &(f32, String), b: &(f32, String)| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1));
    let mut found: Vec<(f32, String)> = Vec::new();
    for vector in vectors {
        let (key, bytes) = vector?;
        let components = vector::from_bytes(&bytes)?;
        found.push((query.distance(&components, distance::scale(metric, &components)), key));
        if found.len() >= 4 * probe.search.k + 1_024 {
            found.select_nth_unstable_by(probe.search.k, order);
            found.truncate(probe.search.k);
        }
    }
    let own = own(probe, metric)?;
    let mut nearest = Nearest::new(probe.search.k);
    own.iter().for_each(|(key, distance)| nearest.offer(*distance, key, || true));
    found.iter().for_each(|(distance, key)| nearest.offer(*distance, key, || true));
    Ok(nearest.into_hits())
}
