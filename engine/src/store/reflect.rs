//! What the policies of the structures leave for later: commits that wait to be shown, and index
//! entries that wait to be made.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Catalog, Snapshot, Store, Writes};
use crate::error::Result;
use crate::log::Lsn;
use crate::log::record::{Commit, OpKind, Priority};
use crate::lookup::Tree;
use crate::materialised::Materialised;
use crate::ordered::Entry;
use crate::parallel::in_parts;
use crate::propagation::{Arrival, Item, Policy};
use crate::rows::{self, Derived};
use crate::schema::StructureId;

/// An index entry to be made: its tree, its key, its LSN, and what it holds.
type Made = (u16, Vec<u8>, Lsn, Option<Entry>);
/// Those of one row.
type Entries = SmallVec<[Made; 2]>;

/// What a commit did in one structure.
struct Part {
    structure: StructureId,
    items: u64,
    bytes: u64,
    /// It took something away for good.
    barrier: bool,
}

/// Shows a commit in the structures whose policy shows it at once, and lets it wait in the others.
pub(super) fn enqueue(catalog: &Catalog, commit: &Commit, superseded: bool) {
    for part in parts(catalog, commit, superseded) {
        let Some(structure) = catalog.schema.by_id(part.structure) else { continue };
        if !structure.may_lag() {
            continue;
        }
        let queue = &catalog.structure(part.structure).queue;
        let policy = structure.policy_in_force();
        let critical = commit.head.priority == Priority::Critical && *policy != Policy::Lazy;
        if part.barrier || critical {
            queue.reflect();
            continue;
        }
        queue.add(&Arrival {
            lsn: commit.lsn,
            time: commit.time,
            items: part.items,
            bytes: part.bytes,
            background: commit.head.priority == Priority::Background,
        });
    }
}

fn parts(catalog: &Catalog, commit: &Commit, superseded: bool) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::with_capacity(8);
    for op in &commit.frames.ops {
        let bytes = commit.frames.value(op).map_or(0, |value| value.len() as u64);
        let goes = matches!(op.kind, OpKind::Delete | OpKind::Forget | OpKind::DeleteScope);
        let mut add = |structure, items, bytes| {
            let barrier = goes || superseded;
            match parts.iter_mut().find(|part| part.structure == structure) {
                Some(known) => {
                    known.items += items;
                    known.bytes += bytes;
                    known.barrier |= barrier;
                }
                None => parts.push(Part { structure, items, bytes, barrier }),
            }
        };
        add(op.structure, 1, bytes);
        for follower in catalog.links.shown_in(op.structure, goes || superseded) {
            add(follower, 1, 0);
        }
    }
    parts
}

impl Store {
    /// Makes the index entries of a structure that were put off, if this is one of its indexes.
    pub(super) fn index_deferred(&self, catalog: &Arc<Catalog>, tree: Tree) -> Result<()> {
        let Some(structure) = catalog.schema.by_id(tree.structure) else { return Ok(()) };
        if !Materialised::is_deferrable(&structure.kind, tree.number) {
            return Ok(());
        }
        self.index_all(catalog, tree.structure)
    }

    /// Makes all index entries of a structure that were put off.
    pub fn index_all(&self, catalog: &Arc<Catalog>, id: StructureId) -> Result<()> {
        let known = catalog.structure(id);
        let Some(deferred) = &known.deferred else { return Ok(()) };
        let structure = catalog.schema.by_id(id).expect("a catalogue knows its structures");
        let derived = Derived::of(structure).expect("only rows put entries off");
        let set = |made| self.set_entries(known, derived.indexes.len(), made);
        deferred.work(|items| {
            let made = in_parts(items, 1_024, |item| self.entries(catalog, &derived, item, false))?;
            if made.iter().all(Option::is_some) {
                return set(made);
            }
            // Bytes before a change are lost: which entries it ends is told by those that are there
            // when all before it were made.
            let mut one = |item| set(vec![self.entries(catalog, &derived, item, true)?]);
            items.iter().try_for_each(&mut one)
        })
    }

    /// What one change makes of a row's entries; `None`: the bytes before it are lost, and those of
    /// earlier changes are not all `made`.
    fn entries(
        &self,
        catalog: &Arc<Catalog>,
        derived: &Derived<'_>,
        (lsn, key): &Item,
        made: bool,
    ) -> Result<Option<Entries>> {
        let at =
            |lsn| Snapshot { writes: Writes::PutOff, ..self.snapshot_of(Arc::clone(catalog), lsn) };
        let (before, after) = (at(lsn.saturating_sub(1)), at(*lsn));
        let mut entries = Entries::new();
        let told = rows::reindex(&before, &after, derived, key, made, |tree, entry, mark| {
            entries.push((tree.number, entry, *lsn, mark));
        })?;
        Ok(told.then_some(entries))
    }

    fn set_entries(
        &self,
        known: &Materialised,
        indexes: usize,
        made: Vec<Option<Entries>>,
    ) -> Result<()> {
        let mut trees: Vec<Vec<Made>> = vec![Vec::new(); indexes];
        for change in made.into_iter().flatten().flatten() {
            trees[usize::from(change.0) - 1].push(change);
        }
        in_parts(&trees, 1, |made| {
            let mut made: Vec<&Made> = made.iter().collect();
            // In key order a tree is walked, not searched; of one key the LSNs keep theirs.
            made.sort_by(|a, b| (&a.1, a.2).cmp(&(&b.1, b.2)));
            for (tree, entry, lsn, mark) in made {
                known.set(*tree, entry, *lsn, mark.clone());
                if !self.keeps_all {
                    known.ordered.prune(*tree, entry, self.floor());
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// The same for every structure.
    pub fn index_everything(&self) -> Result<()> {
        let catalog = self.catalog();
        let ids = catalog.schema.structures.iter().map(|structure| structure.id);
        ids.into_iter().try_for_each(|id| self.index_all(&catalog, id))
    }

    /// What waits in a structure is shown from now on.
    pub fn show(&self, structure: StructureId) {
        let catalog = self.catalog.load();
        if catalog.lags
            && let Some(known) = catalog.structures.get(&structure)
        {
            known.queue.reflect();
        }
    }

    /// Shows everything that was committed before `lsn`, wherever it waits.
    pub fn reflect_below(&self, lsn: u64) {
        for known in self.catalog.load().structures.values() {
            if known.queue.waiting().is_some_and(|waiting| waiting.first <= lsn) {
                known.queue.reflect();
            }
        }
    }
}
