//! Graphs of vectors, made in the background: the newest vectors are sealed, segments are merged.
//!
//! One is made at a time, in slices that a thread takes in production and a test takes one by one.
//! Invariants:
//! 1. What is in use stays so until the new segment's file and its name are durable; then it takes
//!    the old one's place at once, and a checkpoint says so.
//! 2. No file holds an LSN above the durable one.
//! 3. A lazy structure is sealed only when it is drained by name.

use std::sync::Arc;

use crate::database::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Lsn;
use crate::materialised::Materialised;
use crate::options::Mode;
use crate::schema::{Kind, StructureId};
use crate::store::Catalog;
use crate::sync::Mutex;
use crate::vector::file::GraphInfo;
use crate::vector::planner::{self, GRAPH_ROWS_MIN, Work};
use crate::vectors::build::{Build, Built};
use crate::vectors::{Index, Searchable};

/// Rows that are linked at a time before others go first.
const SLICE_ROWS: u32 = 128;
/// A tail of fewer rows is not sealed, however small its structure is.
const TAIL_ROWS_MIN: u64 = 4_096;
/// Of a large structure, the tail is so much of it.
const TAIL_SHARE: u64 = 16;
/// Of so many structures the tails that are due fit into the bound of all.
const TAILS_THAT_FIT: u64 = 2;
/// A failed step is not tried again for so long, then twice as long, and so on.
const RETRY_NANOS: u64 = 1_000_000_000;
const RETRY_NANOS_MAX: u64 = 300_000_000_000;

/// What the steps share; in the database's keeping.
#[derive(Default)]
pub struct Sealing {
    under_way: Mutex<Option<UnderWay>>,
    failure: Mutex<Option<Failure>>,
}

/// What is to be sealed whatever its size.
struct Drain<'a> {
    structures: &'a [StructureId],
    upto: Lsn,
}

/// Why the last step failed.
struct Failure {
    error: Error,
    /// When one may be tried again, and how long that was to wait for.
    again: u64,
    waited: u64,
}

struct UnderWay {
    structure: StructureId,
    owner: Arc<Materialised>,
    index: Arc<Index>,
    stage: Stage,
}

enum Stage {
    Linking(Box<Build>),
    /// To be written: what fails there is tried again without building it once more.
    Linked(Box<Built>),
    Done,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.index.note_taken(0);
    }
}

impl UnderWay {
    fn vectors(&self) -> &Searchable {
        self.owner.vectors.as_ref().expect("only vectors are sealed")
    }
}

impl Shared {
    /// Rows of a tail that is due: few enough that some structures' fit into the tails' bound.
    fn seal_at(&self, vectors: &Searchable) -> u64 {
        let by_size = || {
            let fit = self.options.tail_bytes() / TAILS_THAT_FIT / vectors.row_bytes();
            TAIL_ROWS_MIN.max(vectors.sealed() / TAIL_SHARE).min(fit)
        };
        self.options.seal_vectors.map_or_else(by_size, |rows| rows as u64).max(1)
    }

    /// A structure's index is in memory from its first vector on, unless it is lazy.
    pub fn warm_vectors(&self) -> Result<()> {
        let catalog = self.store.catalog();
        for structure in catalog.schema.structures.iter().filter(|known| !known.is_lazy()) {
            let known = catalog.structure(structure.id);
            let Some(vectors) = &known.vectors else { continue };
            if vectors.sealed() == 0 && known.ordered.is_empty() {
                self.store.index(structure.id, known)?;
            }
        }
        Ok(())
    }

    /// One background step: a slice of a segment, if one is due. `true` if it did something.
    pub fn vector_step(&self) -> Result<bool> {
        self.seal_step(None)
    }

    /// The same; what is to be drained is due.
    fn seal_step(&self, drain: Option<&Drain<'_>>) -> Result<bool> {
        if self.options.mode == Mode::Read {
            return Ok(false);
        }
        let mut under_way = self.sealing.under_way.lock();
        self.check_open()?;
        let Some(current) = &mut *under_way else {
            *under_way = self.choose_seal(drain)?;
            return Ok(under_way.is_some());
        };
        if !self.is_in_use(current) {
            *under_way = None;
            return Ok(true);
        }
        let linked = match &mut current.stage {
            Stage::Linked(_) | Stage::Done => true,
            Stage::Linking(build) => build.step(SLICE_ROWS),
        };
        if linked {
            let finished = self.finish_seal(&mut under_way);
            self.take_stock_of_tails();
            self.upkeep.made_room();
            finished?;
        }
        Ok(true)
    }

    fn is_in_use(&self, under_way: &UnderWay) -> bool {
        let catalog = self.store.catalog();
        let known = catalog.structures.get(&under_way.structure);
        let index = under_way.vectors().loaded();
        known.is_some_and(|known| Arc::ptr_eq(known, &under_way.owner))
            && index.is_some_and(|index| Arc::ptr_eq(&index, &under_way.index))
    }

    fn choose_seal(&self, drain: Option<&Drain<'_>>) -> Result<Option<UnderWay>> {
        let catalog = self.store.catalog();
        let pressed = self.largest_tail(&catalog);
        for structure in &catalog.schema.structures {
            let owner = &catalog.structures[&structure.id];
            let Some(vectors) = &owner.vectors else { continue };
            let drained = drain.filter(|drain| drain.structures.contains(&structure.id));
            let mut seal_at = self.seal_at(vectors);
            if pressed == Some(structure.id) {
                seal_at = seal_at.min(vectors.unsealed()).max(1);
            }
            let is_due = vectors.unsealed() >= seal_at || vectors.is_worn();
            // A lazy one is only kept from growing while it is in memory.
            let is_left = structure.is_lazy() && vectors.loaded().is_none();
            if drained.is_none() && (!is_due || is_left) {
                continue;
            }
            let index = self.store.index(structure.id, owner)?;
            self.drop_damaged(vectors);
            let work = match drained {
                Some(drain) => self.drain_work(&index, drain),
                None => {
                    let (segments, tail) = index.shapes();
                    planner::plan(&segments, tail, seal_at as usize)
                        .filter(|work| !structure.is_lazy() || *work == Work::Compact)
                }
            };
            let Some(work) = work else {
                index.note_looked();
                continue;
            };
            self.pipeline.flush()?;
            if let Some(build) = Build::begin(&index, work, self.pipeline.durable())? {
                index.note_taken(build.taken());
                // Searches will measure some of them exactly, and not wait for the disk then.
                self.store.values.will_need(build.sealed_slots());
                let (structure, owner) = (structure.id, Arc::clone(owner));
                let stage = Stage::Linking(Box::new(build));
                return Ok(Some(UnderWay { structure, owner, index, stage }));
            }
        }
        Ok(None)
    }

    /// Everything into one segment, unless what there was when the drain began is.
    fn drain_work(&self, index: &Index, drain: &Drain<'_>) -> Option<Work> {
        let least = self.options.seal_vectors.unwrap_or(GRAPH_ROWS_MIN).min(GRAPH_ROWS_MIN);
        (index.undrained(drain.upto) >= least).then_some(Work::Seal { from: 0 })
    }

    /// The structure whose tail takes most, once writers wait for one.
    fn largest_tail(&self, catalog: &Catalog) -> Option<StructureId> {
        if self.upkeep.tail_bytes() < self.options.tail_bytes() {
            return None;
        }
        let eager = catalog.schema.structures.iter().filter(|structure| !structure.is_lazy());
        let bytes = |id: &StructureId| {
            let vectors = catalog.structure(*id).vectors.as_ref();
            vectors.map_or(0, Searchable::waiting_bytes)
        };
        eager.map(|structure| structure.id).max_by_key(bytes)
    }

    /// Files that were found damaged go once no checkpoint names them.
    fn drop_damaged(&self, vectors: &Searchable) {
        let damaged = vectors.take_damaged();
        if !damaged.is_empty() {
            self.upkeep.make_graphs_obsolete(damaged);
        }
    }

    /// Writes what is linked and takes it into use. What is left then is to be done: the build once
    /// more, or what could not be written.
    fn finish_seal(&self, slot: &mut Option<UnderWay>) -> Result<()> {
        let Some(mut under_way) = slot.take() else { return Ok(()) };
        let built = match std::mem::replace(&mut under_way.stage, Stage::Done) {
            Stage::Linking(build) => match build.finish()? {
                Ok(built) => Box::new(built),
                Err(again) => {
                    under_way.stage = Stage::Linking(Box::new(again));
                    *slot = Some(under_way);
                    return Ok(());
                }
            },
            Stage::Linked(built) => built,
            Stage::Done => unreachable!("what is done is in no slot"),
        };
        let structure = under_way.structure;
        let write = || {
            self.check_writable()?;
            self.files.write_graph(structure, &built.contents(), built.cause)
        };
        let info = match built.is_empty() {
            true => None,
            false => match write() {
                Ok(info) => Some(info),
                Err(error) => {
                    under_way.stage = Stage::Linked(built);
                    *slot = Some(under_way);
                    return Err(error);
                }
            },
        };
        self.install(&under_way, *built, info)?;
        *self.sealing.failure.lock() = None;
        Ok(())
    }

    fn install(&self, under_way: &UnderWay, built: Built, info: Option<GraphInfo>) -> Result<()> {
        let uid = info.as_ref().map(|info| info.uid);
        let obsolete = built.obsolete();
        self.change_graphs(|catalog| {
            let known = catalog.structures.get(&under_way.structure);
            let is_current = known.is_some_and(|known| Arc::ptr_eq(known, &under_way.owner));
            if is_current && under_way.vectors().install(built, &under_way.index, info) {
                return Some(obsolete);
            }
            uid.into_iter().for_each(|uid| self.files.discard_graph(uid));
            None
        })
    }

    /// About what tails take, for those who must wait for them.
    pub fn take_stock_of_tails(&self) {
        self.upkeep.take_stock_of_tails(&self.store);
    }

    /// Whether writers must wait until a tail is sealed; an error says why that cannot be.
    pub fn tails_are_full(&self) -> Result<bool> {
        if self.upkeep.tail_bytes() < self.options.tail_bytes() {
            return Ok(false);
        }
        if let Some(failure) = &*self.sealing.failure.lock() {
            let what = "the newest vectors fill their memory and cannot be sealed; nothing was \
                        committed";
            return Err(failure.error.clone().context(what));
        }
        Ok(true)
    }

    /// A thread's turn; `false`: nothing more is due.
    pub fn sealing_turn(&self) -> bool {
        let now = self.options.clock.monotonic_nanos();
        if self.sealing.failure.lock().as_ref().is_some_and(|failure| now < failure.again) {
            return false;
        }
        self.take_stock_of_tails();
        let step = self.vector_step();
        let mut failure = self.sealing.failure.lock();
        match step {
            Ok(more) => {
                // Only what was finished shows that it can be.
                if !more {
                    *failure = None;
                }
                more
            }
            Err(error) => {
                let before = failure.as_ref().map_or(0, |failure| failure.waited);
                let waited = (2 * before).clamp(RETRY_NANOS, RETRY_NANOS_MAX);
                *failure = Some(Failure { error, again: now.saturating_add(waited), waited });
                false
            }
        }
    }

    /// The thread is gone for good: writers must not wait for it.
    pub fn abandon_sealing(&self) {
        let bug = Error::new(ErrorKind::Failed, "an invariant of the sealing was broken (a bug)");
        *self.sealing.failure.lock() =
            Some(Failure { error: bug, again: u64::MAX, waited: RETRY_NANOS_MAX });
    }

    /// Gives up a segment that is being made.
    pub fn abandon_seal(&self) {
        *self.sealing.under_way.lock() = None;
    }

    /// What these structures (`None`: all that are not lazy) had at `upto` is brought into one
    /// segment each, but for a few rows. Takes a step; `false`: it is so.
    pub fn drain_vectors(&self, named: Option<&[StructureId]>, upto: Lsn) -> Result<bool> {
        let catalog = self.store.catalog();
        let vectors = catalog.schema.structures.iter().filter(|structure| {
            let asked = named.map_or(!structure.is_lazy(), |named| named.contains(&structure.id));
            asked && matches!(structure.kind, Kind::Vectors { .. })
        });
        let structures: Vec<StructureId> = vectors.map(|structure| structure.id).collect();
        let is_small = |id: &StructureId| {
            let known = catalog.structure(*id).vectors.as_ref();
            known.is_none_or(|known| {
                let few = known.unsealed() < GRAPH_ROWS_MIN as u64;
                known.loaded().is_none() && few && known.graphs().len() <= 1
            })
        };
        if self.sealing.under_way.lock().is_none() && structures.iter().all(is_small) {
            return Ok(false);
        }
        self.seal_step(Some(&Drain { structures: &structures, upto }))
    }
}
