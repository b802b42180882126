//! What the policies of the structures leave for later: commits that wait to be shown, and index
//! entries that wait to be made.

use std::sync::Arc;

use super::{Catalog, Store};
use crate::error::Result;
use crate::log::record::{Commit, OpKind, Priority};
use crate::lookup::Tree;
use crate::materialised::Materialised;
use crate::propagation::{Arrival, Policy};
use crate::rows::{self, Derived};
use crate::schema::StructureId;

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
        for follower in catalog.links.following(op.structure) {
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
        deferred.work(|items| {
            for (lsn, key) in items {
                let before = self.snapshot_of(Arc::clone(catalog), lsn.saturating_sub(1));
                let after = self.snapshot_of(Arc::clone(catalog), *lsn);
                rows::reindex(&before, &after, &derived, key, |tree, entry, made| {
                    known.set(tree.number, entry, *lsn, made);
                    if !self.keeps_all {
                        known.ordered.prune(tree.number, entry, self.floor());
                    }
                })?;
            }
            Ok(())
        })
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
