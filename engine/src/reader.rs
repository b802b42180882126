//! Reads at one LSN: the newest, a pinned one, or a transaction's own view.
//!
//! Invariants:
//! 1. A strong read sees everything acknowledged before it began.
//! 2. A cursor reads at the LSN of its beginning, holds no lock between pages, and ends with its
//!    transaction, its database, or its lease.

mod views;

pub use views::Group;

use std::sync::Arc;

use crate::clock::Micros;
use crate::context;
use crate::database::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::events::{self, Event, PENDING_LSN};
use crate::filtered::{self, Access, Filter};
use crate::graph::{self, Edge, Neighbor, Way};
use crate::limits;
use crate::log::Lsn;
use crate::lookup::{Among, Look, Nearby, Tree};
use crate::ordered::{Item, Slot};
use crate::overlay::{Overlay, Pendings};
use crate::parallel::in_parallel;
use crate::rows::query::Query;
use crate::rows::read::{Bounds, Explained, Find, Row, Scan};
use crate::rows::{self, Derived};
use crate::schema::{Kind, RowCodec, Schema, Structure, StructureId};
use crate::snapshot::Pin;
use crate::storage::bytes::Bytes;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::vector::{self, Hit, Search};
use crate::{audit, cache};

/// Rows a filter is resolved to in one step.
const FILTER_STEP: usize = 1024;
/// Values of a scan that are asked of memory ahead of the one that is read.
const PREFETCHED: usize = 4;

#[derive(Clone)]
enum At {
    /// The newest LSN whenever it is used.
    Newest,
    Pinned {
        lsn: Lsn,
        opened: u64,
    },
    Transaction {
        lsn: Lsn,
        pendings: Arc<Pendings>,
        open: Arc<AtomicBool>,
    },
}

#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
    at: At,
    /// Keeps what it reads; let go when it closes.
    pin: Arc<Mutex<Option<Arc<Pin>>>>,
    closed: Arc<AtomicBool>,
}

/// A value with the LSN and time that wrote it; `PENDING_LSN` for the transaction's own.
pub struct Found {
    pub value: Bytes,
    pub lsn: Lsn,
    pub time: Micros,
}

impl Reader {
    pub fn newest(shared: Arc<Shared>) -> Self {
        Self { shared, at: At::Newest, pin: Arc::default(), closed: Arc::default() }
    }

    /// Pinned at what is newest now, which the history that is kept cannot have passed.
    pub fn now(shared: Arc<Shared>) -> Result<Self> {
        let pin = Arc::new(shared.pin_newest()?);
        Ok(Self::with_pin(shared, pin))
    }

    pub fn pinned(shared: Arc<Shared>, lsn: Lsn) -> Result<Self> {
        let newest = shared.pipeline.strong()?;
        if lsn > newest {
            return Err(Error::new(
                ErrorKind::History,
                format!("LSN {lsn} is not committed yet, the newest is {newest}"),
            ));
        }
        // Pinned first: the floor cannot pass it any more.
        let pin = Arc::new(shared.store.snapshots.pin(lsn));
        let floor = shared.store.floor();
        if lsn < floor {
            return Err(Error::new(
                ErrorKind::History,
                format!(
                    "LSN {lsn} is older than the history that is kept (from LSN {floor}): open \
                     the database with a longer history= before versions age"
                ),
            ));
        }
        Ok(Self::with_pin(shared, pin))
    }

    fn with_pin(shared: Arc<Shared>, pin: Arc<Pin>) -> Self {
        let opened = shared.options.clock.monotonic_nanos();
        let at = At::Pinned { lsn: pin.lsn(), opened };
        Self { shared, at, pin: Arc::new(Mutex::new(Some(pin))), closed: Arc::default() }
    }

    pub fn in_transaction(
        shared: Arc<Shared>,
        lsn: Lsn,
        pendings: Arc<Pendings>,
        open: Arc<AtomicBool>,
    ) -> Self {
        let at = At::Transaction { lsn, pendings, open };
        Self { shared, at, pin: Arc::default(), closed: Arc::default() }
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        *self.pin.lock() = None;
    }

    /// What a read of one structure sees. A read of the newest shows it all that waited.
    fn look_into(&self, id: StructureId) -> Result<Box<dyn Look + '_>> {
        self.show(id);
        self.look()
    }

    fn show(&self, id: StructureId) {
        if let At::Newest = self.at {
            self.shared.store.show(id);
        }
    }

    fn look(&self) -> Result<Box<dyn Look + '_>> {
        self.check()?;
        Ok(match &self.at {
            At::Newest => Box::new(self.shared.store.pinned(Arc::new(self.shared.pin_newest()?))),
            At::Pinned { .. } => Box::new(self.shared.store.pinned(self.held_pin()?)),
            At::Transaction { lsn, pendings, .. } => {
                Box::new(Overlay::open(&self.shared.store, *lsn, pendings)?)
            }
        })
    }

    /// The pin, held for as long as a call needs it whatever `close` does meanwhile.
    fn held_pin(&self) -> Result<Arc<Pin>> {
        self.pin.lock().clone().ok_or_else(closed)
    }

    fn check(&self) -> Result<()> {
        self.shared.check_open()?;
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        match &self.at {
            At::Newest => Ok(()),
            At::Pinned { opened, .. } => {
                let now = self.shared.options.clock.monotonic_nanos();
                let age = now.saturating_sub(*opened) / 1_000;
                if age > self.shared.options.lease_micros as u64 {
                    return Err(Error::new(
                        ErrorKind::SnapshotExpired,
                        format!(
                            "this snapshot is {} s old, its lease is {} s: take a new one",
                            age / 1_000_000,
                            self.shared.options.lease_micros / 1_000_000
                        ),
                    ));
                }
                Ok(())
            }
            At::Transaction { open, .. } if !open.load(Ordering::Acquire) => {
                Err(Error::new(ErrorKind::Closed, "the transaction of this read has ended"))
            }
            At::Transaction { .. } => Ok(()),
        }
    }

    pub fn lsn(&self) -> Result<Lsn> {
        self.check()?;
        match &self.at {
            At::Newest => self.shared.pipeline.strong(),
            At::Pinned { lsn, .. } => Ok(*lsn),
            At::Transaction { lsn, .. } => Ok(*lsn),
        }
    }

    pub fn time(&self) -> Result<Micros> {
        self.shared.time_of(self.lsn()?)
    }

    /// The same view, fixed at its LSN for as long as a cursor needs it.
    fn fixed(&self, id: StructureId) -> Result<Self> {
        self.check()?;
        self.show(id);
        match &self.at {
            At::Newest => Self::now(Arc::clone(&self.shared)),
            // Its own closing is apart from that of the reader it came from.
            at => Ok(Self {
                shared: Arc::clone(&self.shared),
                at: at.clone(),
                pin: Arc::new(Mutex::new(match at {
                    At::Pinned { .. } => Some(self.held_pin()?),
                    _ => None,
                })),
                closed: Arc::default(),
            }),
        }
    }

    fn time_of(&self, lsn: Lsn) -> Result<Micros> {
        if lsn == PENDING_LSN { Ok(self.shared.store.now()) } else { self.shared.time_of(lsn) }
    }

    /// A key of rows, cache or vectors (as little-endian floats).
    pub fn get(&self, id: StructureId, key: &[u8]) -> Result<Option<Bytes>> {
        self.show(id);
        if let At::Newest = self.at {
            self.check()?;
            let lsn = self.shared.pipeline.strong()?;
            let found = self.find_one(&self.shared.store.snapshot(lsn), id, key);
            // Nothing was published meanwhile, so nothing that this LSN sees was dropped: a pin
            // would have kept nothing more.
            if self.shared.pipeline.visible() == lsn {
                return Ok(found?.map(|(value, _)| value));
            }
        }
        Ok(self.find_one(&*self.look()?, id, key)?.map(|(value, _)| value))
    }

    pub fn read(&self, id: StructureId, key: &[u8]) -> Result<Option<Found>> {
        let found = self.find_one(&*self.look_into(id)?, id, key)?;
        found.map(|(value, lsn)| Ok(Found { value, lsn, time: self.time_of(lsn)? })).transpose()
    }

    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        id: StructureId,
        keys: &[K],
    ) -> Result<Vec<Option<Bytes>>> {
        let look = self.look_into(id)?;
        let one = |key: &K| Ok(self.find_one(&*look, id, key.as_ref())?.map(|(value, _)| value));
        keys.iter().map(one).collect()
    }

    fn find_one(
        &self,
        look: &dyn Look,
        id: StructureId,
        key: &[u8],
    ) -> Result<Option<(Bytes, Lsn)>> {
        let structure = structure(look.schema(), id)?;
        let version = match &structure.kind {
            Kind::Rows { .. } | Kind::Vectors { .. } => look.get(Tree::new(id, 0), key)?,
            Kind::Cache { .. } => cache::find(look, id, key)?,
            _ => return Err(wrong_kind(structure, "a keyed structure")),
        };
        version.map(|version| Ok((self.value(look, &version.entry.slot)?, version.lsn))).transpose()
    }

    /// A value on its way out.
    fn value(&self, look: &dyn Look, slot: &Slot) -> Result<Bytes> {
        match slot {
            Slot::Pending(_) => look.value(slot).map(Bytes::from),
            slot => self.shared.store.values.view(slot),
        }
    }

    /// Items with their values: of each, memory is asked a few items before it is read.
    fn rows(&self, look: &dyn Look, items: Vec<Item>) -> Result<Vec<Row>> {
        let values = &self.shared.store.values;
        let ahead = |at: usize| {
            let entry = items.get(at).and_then(|item| item.entry.as_ref());
            entry.into_iter().for_each(|entry| values.prefetch(&entry.slot));
        };
        (0..PREFETCHED).for_each(ahead);
        let mut found = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            ahead(at + PREFETCHED);
            let entry = item.entry.as_ref().expect("pages hold live items");
            found.push(self.value(look, &entry.slot)?);
        }
        let rows = items.into_iter().zip(found);
        Ok(rows.map(|(item, value)| Row { key: item.key, value, lsn: item.lsn }).collect())
    }

    pub fn contains(&self, id: StructureId, key: &[u8]) -> Result<bool> {
        let look = self.look_into(id)?;
        let structure = structure(look.schema(), id)?;
        Ok(match &structure.kind {
            Kind::Rows { .. } | Kind::Vectors { .. } => look.get(Tree::new(id, 0), key)?.is_some(),
            Kind::Cache { .. } => cache::find(&*look, id, key)?.is_some(),
            _ => return Err(wrong_kind(structure, "a keyed structure")),
        })
    }

    /// Keys, events, edges or names of a structure.
    pub fn count(&self, id: StructureId) -> Result<u64> {
        let look = self.look_into(id)?;
        let structure = structure(look.schema(), id)?;
        match &structure.kind {
            Kind::Audit {} => Ok(audit::tree_size(structure.created, look.lsn())),
            Kind::Cache { .. } => {
                let mut scan = cache::Scan::new(&*look, id, &Bounds::default());
                self.count_steps(|| Ok(scan.step(&*look, FILTER_STEP)?.len()))
            }
            Kind::Events { .. } => {
                let mut scan = events::Scan::new(&*look, id, &events::Bounds::default());
                self.count_steps(|| Ok(scan.step(&*look, FILTER_STEP)?.len()))
            }
            Kind::View { function, .. } if !function.stores_results() => {
                drop(look);
                self.count_groups(id)
            }
            _ => look.count(Tree::new(id, 0)),
        }
    }

    fn count_groups(&self, id: StructureId) -> Result<u64> {
        let mut after = None;
        self.count_steps(|| {
            let (found, next) = self.view_keys(id, after.as_deref(), FILTER_STEP)?;
            after = next;
            Ok(found.len())
        })
    }

    fn count_steps(&self, mut step: impl FnMut() -> Result<usize>) -> Result<u64> {
        let mut count = 0;
        loop {
            match step()? {
                0 => return Ok(count),
                more => count += more as u64,
            }
        }
    }

    /// Keys and values in key order.
    pub fn scan(&self, id: StructureId, bounds: &Bounds) -> Result<Cursor> {
        let reader = self.fixed(id)?;
        let source = {
            let look = reader.look()?;
            let structure = structure(look.schema(), id)?;
            match &structure.kind {
                Kind::Rows { .. } | Kind::Vectors { .. } => {
                    Source::Rows(Scan::new(Tree::new(id, 0), bounds))
                }
                Kind::Cache { .. } => Source::Cache(cache::Scan::new(&*look, id, bounds)),
                _ => return Err(wrong_kind(structure, "a keyed structure")),
            }
        };
        Ok(Cursor { reader, source })
    }

    /// Rows by their fields. `conditions` is the encoded `where` of `Query::parse`.
    pub fn find(
        &self,
        id: StructureId,
        conditions: &[u8],
        order: Option<&str>,
        limit: Option<usize>,
        after: Option<&[u8]>,
    ) -> Result<Cursor> {
        let reader = self.fixed(id)?;
        let find = {
            let look = reader.look()?;
            let structure = structure(look.schema(), id)?;
            let derived = documents(structure)?;
            Find::new(&*look, &derived, Query::parse(conditions, order)?, limit, after)?
        };
        Ok(Cursor { reader, source: Source::Find(Box::new(find)) })
    }

    pub fn explain(
        &self,
        id: StructureId,
        conditions: &[u8],
        order: Option<&str>,
    ) -> Result<Explained> {
        let look = self.look_into(id)?;
        let derived = documents(structure(look.schema(), id)?)?;
        Ok(rows::read::explain(&derived, &Query::parse(conditions, order)?))
    }

    /// The nearest vectors, ascending by (distance, key); with `conditions`, of those whose linked
    /// rows match.
    pub fn search(
        &self,
        id: StructureId,
        query: &[f32],
        search: &Search,
        conditions: Option<&[u8]>,
    ) -> Result<Vec<Hit>> {
        let look = self.look_into(id)?;
        self.check_search(&*look, id, query, search)?;
        match conditions {
            None => look.vector_search(id, &Nearby { query, search: *search, among: Among::All }),
            Some(conditions) => {
                let filter = Filter::new(&*look, id, conditions)?;
                filtered::filtered(&*look, id, query, search, &filter)
            }
        }
    }

    /// One search for each row of `queries`.
    pub fn search_many(
        &self,
        id: StructureId,
        queries: &[f32],
        count: usize,
        search: &Search,
    ) -> Result<Vec<Vec<Hit>>> {
        let look = self.look_into(id)?;
        if count == 0 || !queries.len().is_multiple_of(count) {
            return if queries.is_empty() {
                Ok(Vec::new())
            } else {
                Err(Error::new(ErrorKind::Vector, "queries must be a matrix, one query a row"))
            };
        }
        let each: Vec<&[f32]> = queries.chunks(queries.len() / count).collect();
        each.iter().try_for_each(|query| self.check_search(&*look, id, query, search))?;
        let among = Among::All;
        in_parallel(&each, |query| {
            look.vector_search(id, &Nearby { query, search: *search, among })
        })
    }

    /// How a search with these conditions would be made.
    pub fn explain_search(
        &self,
        id: StructureId,
        conditions: Option<&[u8]>,
    ) -> Result<(Access, Option<usize>)> {
        let look = self.look_into(id)?;
        let filter =
            conditions.map(|conditions| Filter::new(&*look, id, conditions)).transpose()?;
        filtered::explain(&*look, id, filter.as_ref())
    }

    fn check_search(
        &self,
        look: &dyn Look,
        id: StructureId,
        query: &[f32],
        search: &Search,
    ) -> Result<()> {
        let structure = structure(look.schema(), id)?;
        let k = search.k;
        let Kind::Vectors { dim, metric, .. } = &structure.kind else {
            return Err(wrong_kind(structure, "vectors"));
        };
        if k == 0 || k > limits::SEARCH_K_MAX {
            return Err(Error::limit(format!("k={k} is not within 1 to {}", limits::SEARCH_K_MAX)));
        }
        vector::check(query, *dim, *metric)
            .map_err(|error| error.context(format!("{}: the query", structure.name)))
    }

    pub fn events(&self, id: StructureId, bounds: &events::Bounds) -> Result<Cursor> {
        let reader = self.fixed(id)?;
        let scan = {
            let look = reader.look()?;
            let structure = structure(look.schema(), id)?;
            if !matches!(structure.kind, Kind::Events { .. }) {
                return Err(wrong_kind(structure, "events"));
            }
            events::Scan::new(&*look, id, bounds)
        };
        Ok(Cursor { reader, source: Source::Events(scan) })
    }

    /// Newest LSN committed at or before `time`, as far as this sees; 0 if none.
    pub fn lsn_at_time(&self, time: Micros) -> Result<Lsn> {
        self.shared.store.ledger.lsn_at(time, self.lsn()?)
    }

    pub fn context_get(&self, id: StructureId, scope: &str, name: &str) -> Result<Option<Found>> {
        let look = self.look_into(id)?;
        let key = context::key(scope, name);
        // Deleting the whole scope is a write of the scope's own key.
        look.note_key(id, &context::scope_key(scope));
        let Some(version) = look.get(context_tree(&*look, id)?, &key)? else { return Ok(None) };
        let value = look.value(&version.entry.slot)?.into();
        Ok(Some(Found { value, lsn: version.lsn, time: self.time_of(version.lsn)? }))
    }

    pub fn context_load(&self, id: StructureId, scope: &str) -> Result<Vec<(String, Arc<[u8]>)>> {
        let look = self.look_into(id)?;
        context_tree(&*look, id)?;
        context::load(&*look, id, scope)
    }

    pub fn context_scopes(&self, id: StructureId) -> Result<Vec<String>> {
        let look = self.look_into(id)?;
        context_tree(&*look, id)?;
        context::scopes(&*look, id)
    }

    pub fn neighbors(
        &self,
        id: StructureId,
        node: &str,
        relation: Option<&str>,
        way: Way,
        depth: usize,
    ) -> Result<Vec<Neighbor>> {
        let look = self.look_into(id)?;
        self.check_graph(&*look, id)?;
        if depth == 0 || depth > limits::GRAPH_DEPTH_MAX {
            return Err(Error::limit(format!(
                "depth={depth} is not within 1 to {}",
                limits::GRAPH_DEPTH_MAX
            )));
        }
        graph::neighbors(&*look, id, node, relation, way, depth)
    }

    pub fn edges(&self, id: StructureId, node: &str) -> Result<Vec<Edge>> {
        let look = self.look_into(id)?;
        self.check_graph(&*look, id)?;
        graph::edges(&*look, id, node)
    }

    fn check_graph(&self, look: &dyn Look, id: StructureId) -> Result<()> {
        let structure = structure(look.schema(), id)?;
        match &structure.kind {
            Kind::Graph {} => Ok(()),
            _ => Err(wrong_kind(structure, "graph")),
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "this snapshot or cursor is closed: take another")
}

fn structure(schema: &Schema, id: StructureId) -> Result<&Structure> {
    schema
        .by_id(id)
        .ok_or_else(|| Error::new(ErrorKind::Schema, format!("structure {id} was dropped")))
}

fn wrong_kind(structure: &Structure, wanted: &str) -> Error {
    Error::argument(format!(
        "{:?} is of kind {}, not {wanted}",
        structure.name,
        structure.kind.name()
    ))
}

fn documents(structure: &Structure) -> Result<Derived<'_>> {
    match Derived::of(structure) {
        Some(derived) if derived.codec == RowCodec::Msgpack => Ok(derived),
        _ => Err(wrong_kind(structure, "rows of documents, which have fields to find by")),
    }
}

fn context_tree(look: &dyn Look, id: StructureId) -> Result<Tree> {
    let structure = structure(look.schema(), id)?;
    match &structure.kind {
        Kind::Context {} => Ok(Tree::new(id, 0)),
        _ => Err(wrong_kind(structure, "context")),
    }
}

enum Source {
    Rows(Scan),
    Cache(cache::Scan),
    Find(Box<Find>),
    Events(events::Scan),
}

/// A page of a cursor.
pub enum Page {
    Rows(Vec<Row>),
    Events(Vec<(Event, Micros)>),
}

pub struct Cursor {
    reader: Reader,
    source: Source,
}

impl Cursor {
    pub fn lsn(&self) -> Result<Lsn> {
        self.reader.lsn()
    }

    /// Up to `count` items more; empty at the end.
    pub fn page(&mut self, count: usize) -> Result<Page> {
        let look = self.reader.look()?;
        Ok(match &mut self.source {
            Source::Rows(scan) => {
                let items = scan.step(&*look, count)?;
                Page::Rows(self.reader.rows(&*look, items)?)
            }
            Source::Cache(scan) => Page::Rows(scan.step(&*look, count)?),
            Source::Find(find) => Page::Rows(find.step(&*look, count)?),
            Source::Events(scan) => {
                let events = scan.step(&*look, count)?;
                let timed = events.into_iter().map(|event| {
                    let time = self.reader.time_of(event.lsn)?;
                    Ok((event, time))
                });
                Page::Events(timed.collect::<Result<_>>()?)
            }
        })
    }

    pub fn close(&self) {
        self.reader.close();
    }
}
