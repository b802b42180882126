//! How far a read must see, and the step that shows what waits.
//!
//! A structure whose policy is not eager may show a commit later than it was made (`propagation`);
//! a read says how much later it may be. Invariants:
//! 1. A read never sees less than it asks for, and says what it sees.
//! 2. A hybrid structure never shows less than its bounds allow, also while no thread takes steps.
//! 3. To show what waits is to forget where it begins: it costs nothing but the index entries that
//!    were put off, and those only where an index is read.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Micros;
use crate::database::{Database, Shared};
use crate::error::{ErrorKind, Result};
use crate::log::Lsn;
use crate::propagation::{Policy, Waiting};
use crate::reader::Reader;
use crate::schema::StructureId;
use crate::store::Catalog;

/// So long without a commit the database is idle.
const IDLE_NANOS: u64 = 100_000_000;

/// So many vectors may be looked for in the log to answer as of an older LSN.
const COLD_MAX: u64 = 1_024;

/// What a read asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Everything committed so far.
    Strong,
    /// As it stands.
    Eventual,
    /// At least everything up to this LSN.
    AtLeast(Lsn),
    /// Everything but the newest: microseconds, commits.
    Bounded { max_age: Option<Micros>, max_commits: Option<u64> },
}

impl Want {
    fn is_met(self, waiting: &Waiting, now: Micros) -> bool {
        match self {
            Self::Strong => false,
            Self::Eventual => true,
            Self::AtLeast(lsn) => waiting.first > lsn,
            Self::Bounded { max_age, max_commits } => {
                max_age.is_none_or(|most| waiting.age(now) <= most)
                    && max_commits.is_none_or(|most| waiting.commits <= most)
            }
        }
    }
}

/// How far a read is behind: commits, and microseconds since the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Behind {
    pub commits: u64,
    pub age: Micros,
}

impl Database {
    /// A reader of one structure that sees what is asked for, and how far it is behind.
    pub fn reader_for(&self, structure: StructureId, want: Want) -> Result<(Reader, Behind)> {
        let shared = self.shared();
        shared.check_open()?;
        if let Some((lsn, behind)) = shared.standing(structure, want) {
            match self.reader_at(lsn) {
                // Unless it caught up before the pin held: then what was kept for it may be gone.
                Ok(reader) if shared.stands_at(structure, lsn) => return Ok((reader, behind)),
                Ok(_) => {}
                // The history that is kept has passed it: what is newer is as good.
                Err(error) if error.kind() == ErrorKind::History => {}
                Err(error) => return Err(error),
            }
        }
        let least = match want {
            Want::AtLeast(lsn) => Some(lsn),
            _ => None,
        };
        Ok((self.reader_now(least)?, Behind::default()))
    }

    /// Everything committed so far is shown by these structures; `None`: by all that are not lazy.
    pub fn reflect(&self, named: Option<&[StructureId]>) -> Result<()> {
        let shared = self.shared();
        shared.check_open()?;
        let catalog = shared.store.catalog();
        for structure in &catalog.schema.structures {
            let wanted = match named {
                Some(named) => named.contains(&structure.id),
                None => !structure.is_lazy(),
            };
            if wanted {
                catalog.structure(structure.id).queue.reflect();
                shared.store.index_all(&catalog, structure.id)?;
            }
        }
        Ok(())
    }

    /// Waits until `lsn` is visible and these structures show it.
    pub fn wait_for(
        &self,
        lsn: Lsn,
        structures: &[StructureId],
        timeout: Option<Duration>,
    ) -> Result<()> {
        self.wait(lsn, timeout)?;
        let catalog = self.shared().store.catalog();
        for id in structures {
            let Some(known) = catalog.structures.get(id) else { continue };
            if known.queue.waiting().is_some_and(|waiting| waiting.first <= lsn) {
                known.queue.reflect();
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Where a structure stands, if it may be read there.
    fn standing(&self, id: StructureId, want: Want) -> Option<(Lsn, Behind)> {
        let catalog = self.store.catalog();
        let structure = catalog.schema.by_id(id)?;
        let known = catalog.structure(id);
        let waiting = known.queue.waiting()?;
        let now = self.pipeline.now();
        let lsn = waiting.first - 1;
        // What vectors were before those in memory is looked for in the log, one by one.
        let is_cold = known.vectors.as_ref().is_some_and(|vectors| {
            let many = vectors.sealed() + vectors.unsealed() > COLD_MAX;
            many && vectors.loaded().is_some_and(|index| lsn < index.cold())
        });
        let due = waiting.is_due(structure.policy_in_force(), self.batch_scale(), now, false);
        if due || is_cold || !want.is_met(&waiting, now) {
            known.queue.reflect();
            return None;
        }
        Some((lsn, Behind { commits: waiting.commits, age: waiting.age(now) }))
    }

    fn stands_at(&self, id: StructureId, lsn: Lsn) -> bool {
        let catalog = self.store.catalog();
        let waiting = catalog.structures.get(&id).and_then(|known| known.queue.waiting());
        waiting.is_some_and(|waiting| waiting.first - 1 == lsn)
    }

    /// What part of its declared bounds a hybrid structure may use.
    pub fn batch_scale(&self) -> f64 {
        self.budget.scale()
    }

    /// One background step: what may wait no longer is shown, and its index entries are made.
    /// `true` if there was such a structure.
    pub fn reflect_step(&self) -> Result<bool> {
        let catalog = self.store.catalog();
        let idle = self.is_idle();
        let mut reflected = false;
        for structure in &catalog.schema.structures {
            let policy = structure.policy_in_force();
            let known = catalog.structure(structure.id);
            if let Some(waiting) = known.queue.waiting()
                && waiting.is_due(policy, self.batch_scale(), self.pipeline.now(), idle)
            {
                known.queue.reflect();
                reflected = true;
            }
            let puts_off = known.deferred.as_ref().is_some_and(|deferred| !deferred.is_empty());
            let shown = known.queue.waiting().is_none() && *policy != Policy::Lazy;
            if puts_off && shown {
                self.store.index_all(&catalog, structure.id)?;
                reflected = true;
            }
        }
        Ok(reflected)
    }

    /// No commit came for a while.
    pub fn is_idle(&self) -> bool {
        self.pipeline.idle_nanos() >= IDLE_NANOS
    }

    /// After a change of policies: what an eager structure kept back is shown.
    pub fn settle_policies(&self, catalog: &Arc<Catalog>) -> Result<()> {
        for structure in &catalog.schema.structures {
            if !structure.may_lag() {
                catalog.structure(structure.id).queue.reflect();
                self.store.index_all(catalog, structure.id)?;
            }
        }
        Ok(())
    }
}
