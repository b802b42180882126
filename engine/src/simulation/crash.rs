//! After the power went, or the storage failed: what is left is opened, checked, and gone on with.

use super::dice::Dice;
use super::run::{Failure, Outcome, Run, wrong};
use crate::options::Mode as OpenMode;
use crate::storage::simulated::{ImagePlan, SimulatedStorage};

/// Of all disks that a power cut may leave, so many subsets and tears are looked at.
const SUBSETS_MAX: usize = 6;
const TEARS_MAX: usize = 4;
/// A recovery is cut off in so many of a hundred, within so many operations, again and again.
const CUT_AGAIN: usize = 40;
const RECOVERY_OPERATIONS: u64 = 24;

impl Run<'_> {
    /// The first opening, which may be cut off, too.
    pub(super) fn create(&mut self, dice: &Dice) -> Outcome {
        if dice.chance(25) {
            self.storage.crash_at(dice.next() % SOON_AT_CREATION);
        }
        self.open()?;
        self.settle_if_down(dice)
    }

    /// What a step left: a crashed disk, a failed log, or a storage in trouble.
    pub(super) fn settle_if_down(&mut self, dice: &Dice) -> Outcome {
        if self.storage.is_crashed() {
            return self.power_cut(dice);
        }
        let failed = self.db.as_ref().is_none_or(|db| db.shared().pipeline.failure().is_some());
        if failed {
            return self.restart_after_failure(dice);
        }
        if self.troubled && dice.chance(20) {
            self.end_of_faults();
        }
        Ok(())
    }

    /// Whatever was about to strike strikes now, or never.
    pub(super) fn settle(&mut self, dice: &Dice) -> Outcome {
        self.end_of_trouble();
        if dice.chance(50) {
            self.storage.crash();
        }
        self.settle_if_down(dice)
    }

    /// The storage is sound from now on, and the power stays.
    fn end_of_trouble(&mut self) {
        self.storage.crash_at(u64::MAX);
        self.end_of_faults();
    }

    fn end_of_faults(&mut self) {
        self.storage.clear_faults();
        self.storage.set_capacity(None);
        self.troubled = false;
    }

    fn power_cut(&mut self, dice: &Dice) -> Outcome {
        self.tally.crashes += 1;
        self.troubled = false;
        // As the process, so its handles: gone before the disk is looked at.
        self.held.clear();
        self.db = None;
        let images = self.images(dice);
        let chosen = dice.below(images.len());
        for (number, image) in images.iter().enumerate() {
            if number != chosen {
                self.try_image(image)?;
            }
        }
        if dice.chance(30) {
            self.rot(&images[chosen].clone_durable(), dice)?;
        }
        self.storage = images[chosen].clone();
        let mut again = 0;
        while again < 3 && dice.chance(CUT_AGAIN) {
            again += 1;
            self.storage.crash_at(dice.next() % RECOVERY_OPERATIONS);
            let disk = self.storage.clone();
            let opened = self.try_open(&disk, OpenMode::ReadWrite);
            if !disk.is_crashed() {
                disk.crash();
            } else if let Err(error) = &opened
                && error.kind() == crate::error::ErrorKind::Corruption
            {
                return wrong(format!("a crash was taken for corruption: {error:?}"));
            }
            // What was served once stays.
            if let Ok(db) = opened {
                self.recovered(&db)?;
            }
            let images = self.images(dice);
            self.storage = dice.pick(&images).clone();
        }
        self.restart()?;
        self.check_all()
    }

    fn images(&self, dice: &Dice) -> Vec<SimulatedStorage> {
        let fields = (4..176).step_by(8).chain((8..176).step_by(8)).collect();
        let plan = ImagePlan {
            seed: dice.next(),
            subsets_max: SUBSETS_MAX,
            tears_max: TEARS_MAX,
            field_boundaries: fields,
        };
        self.storage.images(&plan).collect()
    }

    /// Opens and checks one disk, and leaves everything as it was.
    pub(super) fn try_image(&mut self, image: &SimulatedStorage) -> Outcome {
        let promised = (self.oracle.clone(), self.leaves.clone(), self.gone.clone());
        let durable = (self.settled, self.required);
        let openings = self.openings;
        self.storage = image.clone();
        let told = |Failure(why)| {
            Failure(format!("{why}\n  disk: {}", image.description().unwrap_or_default()))
        };
        self.restart().and_then(|()| self.check_all()).map_err(told)?;
        self.db = None;
        (self.oracle, self.leaves, self.gone) = promised;
        (self.settled, self.required) = durable;
        self.openings = openings;
        Ok(())
    }

    /// Opens what is left, and takes it for what there is from now on.
    fn restart(&mut self) -> Outcome {
        self.tally.states += 1;
        let disk = self.storage.clone();
        let db = match self.try_open(&disk, OpenMode::ReadWrite) {
            Ok(db) => db,
            Err(error) => return wrong(format!("cannot open again: {error:?}")),
        };
        self.recovered(&db)?;
        self.db = Some(db);
        Ok(())
    }

    /// The database stands somewhere between what was promised and what was tried.
    fn recovered(&mut self, db: &crate::database::Database) -> Outcome {
        let lsn = match db.lsn() {
            Ok(lsn) if (self.required..=self.oracle.lsn()).contains(&lsn) => lsn,
            Err(_) if self.storage.is_crashed() => return Ok(()),
            other => {
                return wrong(format!(
                    "the newest LSN is {other:?}; {} were acknowledged as durable, {} tried",
                    self.required,
                    self.oracle.lsn()
                ));
            }
        };
        let lost = &self.oracle.commits()[lsn as usize..];
        self.gone.extend(lost.iter().map(|commit| commit.txn.clone()));
        self.oracle.cut(lsn);
        self.leaves.split_off(&(lsn + 1));
        self.is_durable(lsn);
        Ok(())
    }

    /// The log failed, or closing did: what is durable is answered, no write is taken, and the next
    /// process decides.
    fn restart_after_failure(&mut self, dice: &Dice) -> Outcome {
        self.end_of_trouble();
        self.held.clear();
        if let Some(db) = self.db.clone().filter(|db| !db.is_closed()) {
            let lsn = match db.lsn() {
                Ok(lsn) if lsn <= self.oracle.lsn() => lsn,
                other => return wrong(format!("a failed database stands at {other:?}")),
            };
            // What is still answered is durable.
            self.is_durable(lsn);
            let whole = self.oracle.clone();
            self.oracle.cut(lsn);
            let reader = db.reader_at(lsn).map_err(|error| Failure(format!("{error:?}")))?;
            for ask in self.draw(dice).everything(true) {
                self.ask(&reader, &ask, lsn)?;
            }
            self.oracle = whole;
        }
        self.db = None;
        // Another process on the same machine, or one after a power cut.
        if dice.chance(50) {
            self.storage.crash();
            return self.power_cut(dice);
        }
        if self.forgot_names {
            // Names that a failed sync forgot cannot be told from durable ones.
            self.storage = self.storage.clone_durable();
        }
        self.forgot_names = false;
        self.restart()?;
        self.check_all()
    }
}

const SOON_AT_CREATION: u64 = 40;
