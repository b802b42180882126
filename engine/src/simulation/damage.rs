//! A closed database that is damaged behind the engine's back: the right answer, or a typed error.

use super::dice::Dice;
use super::draw::fresh_key;
use super::run::{Failure, Outcome, Run, same, wrong};
use super::speaker;
use super::world::Lsn;
use crate::error::ErrorKind;
use crate::log::Pointer;
use crate::log::segment::{self, LOG_DIR};
use crate::options::Mode as OpenMode;
use crate::ordered::Slot;
use crate::storage::simulated::SimulatedStorage;

const SECTOR: usize = 512;

impl Run<'_> {
    /// Keeps the files as they are, for a day on which one of them comes back.
    pub(super) fn remember_files(&mut self) {
        let files = self.storage.paths().into_iter();
        self.older =
            files.filter_map(|path| Some((path.clone(), self.storage.read_file(&path)?))).collect();
    }

    pub(super) fn damage(&mut self, dice: &Dice) -> Outcome {
        let twins = self.twins().filter(|_| dice.chance(40));
        self.close()?;
        if self.storage.is_crashed() || self.troubled {
            return Ok(());
        }
        self.tally.damages += 1;
        let disk = self.storage.clone_durable();
        let what = match &twins {
            Some(twins) => misplaced(&disk, twins),
            None => self.spoil(&disk, dice),
        };
        self.remember_files();
        // The one damage that leaves a whole database, of an earlier day.
        let older = what.told.ends_with("an older copy");
        let least = if older { 0 } else { self.oracle.lsn() };
        self.answers_right_or_not(&disk, dice, least)
            .and_then(|()| if what.derived { self.is_made_good(&disk) } else { Ok(()) })
            .map_err(|Failure(why)| Failure(format!("{}: {why}", what.told)))?;
        self.db = None;
        self.open()
    }

    /// Bits that rot in the log of a database that was not closed. What its last group held may be
    /// taken for a torn tail; nothing older may.
    pub(super) fn rot(&mut self, disk: &SimulatedStorage, dice: &Dice) -> Outcome {
        let logs = disk.paths().into_iter().filter(|path| path.starts_with(LOG_DIR));
        let logs: Vec<String> = logs.collect();
        if logs.is_empty() {
            return Ok(());
        }
        let path = dice.pick(&logs).clone();
        let bytes = disk.read_file(&path).expect("just listed");
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if used == 0 {
            return Ok(());
        }
        let (at, bit) = (dice.below(used), dice.below(8));
        disk.flip(&path, at as u64, 1 << bit);
        self.tally.damages += 1;
        let what = format!("after a power cut bit {bit} of byte {at} of {path} flipped");
        let least = self.settled;
        self.answers_right_or_not(disk, dice, least)
            .map_err(|Failure(why)| Failure(format!("{what}: {why}")))
    }

    /// Where two values of one length lie in one segment.
    fn twins(&self) -> Option<[Pointer; 2]> {
        let db = self.db();
        let catalog = db.shared().store.catalog();
        let raw = self.plan.schema.structures.iter().find(|one| one.name == "blobs")?;
        let rows = &catalog.structures.get(&raw.id)?.ordered;
        let places = (0..4).filter_map(|number| {
            let versions = rows.versions(0, &fresh_key(number)).ok()?;
            match versions.last()?.entry.slot {
                Slot::Stored(pointer) => Some(pointer),
                _ => None,
            }
        });
        let places: Vec<Pointer> = places.collect();
        let of_one = |a: &Pointer, b: &Pointer| a.segment == b.segment && a.length == b.length;
        let first = places.first()?;
        let second = places[1..].iter().find(|other| of_one(first, other))?;
        Some([*first, *second])
    }

    fn spoil(&self, disk: &SimulatedStorage, dice: &Dice) -> Damage {
        let paths = disk.paths();
        let path = dice.pick(&paths).clone();
        let bytes = disk.read_file(&path).expect("just listed");
        let derived = !path.starts_with(LOG_DIR) && path.contains('/');
        let told = |what: String| Damage { told: format!("{path} {what}"), derived };
        if bytes.is_empty() {
            disk.remove_file(&path);
            return told("removed".to_owned());
        }
        match dice.below(11) {
            0 | 1 => {
                let (at, bit) = (dice.below(bytes.len()), dice.below(8));
                disk.flip(&path, at as u64, 1 << bit);
                told(format!("bit {bit} of byte {at} flipped"))
            }
            2 => {
                let at = dice.below(bytes.len()) / SECTOR * SECTOR;
                let mut spoilt = bytes.clone();
                let end = (at + SECTOR).min(bytes.len());
                spoilt[at..end].fill(0);
                disk.write_file(&path, &spoilt);
                told(format!("bytes {at}..{end} zeroed"))
            }
            3 => {
                let length = dice.below(bytes.len());
                disk.truncate_file(&path, length as u64);
                told(format!("of {} bytes cut to {length}", bytes.len()))
            }
            4 => {
                disk.remove_file(&path);
                told("removed".to_owned())
            }
            5 => {
                let other = dice.pick(&paths).clone();
                disk.swap_files(&path, &other);
                let derived = derived && !other.starts_with(LOG_DIR) && other.contains('/');
                Damage { told: format!("{path} and {other} swapped"), derived }
            }
            6 => match self.older.get(&path) {
                Some(older) => {
                    disk.write_file(&path, older);
                    told("replaced by an older copy".to_owned())
                }
                None => told("as it was".to_owned()),
            },
            7 => {
                // A write of one file that went to another place, or another file.
                let onto = dice.pick(&paths).clone();
                let mut spoilt = disk.read_file(&onto).expect("just listed");
                let from = dice.below(bytes.len()) / SECTOR * SECTOR;
                let part = &bytes[from..(from + SECTOR).min(bytes.len())];
                let at = dice.below(spoilt.len().max(1)) / SECTOR * SECTOR;
                let end = (at + part.len()).min(spoilt.len());
                spoilt[at..end].copy_from_slice(&part[..end - at]);
                disk.write_file(&onto, &spoilt);
                let derived = !onto.starts_with(LOG_DIR) && onto.contains('/');
                Damage { told: format!("{path} at {from} written to {onto} at {at}"), derived }
            }
            8 | 9 if path.starts_with(LOG_DIR) => {
                // A group that was written to the place of another.
                let starts = group_starts(&bytes);
                let (from, at) = (*dice.pick(&starts), *dice.pick(&starts));
                let next = |at: usize| {
                    let behind = starts.iter().find(|start| **start > at);
                    behind.map_or(bytes.len(), |next| *next)
                };
                let length = (next(from) - from).min(next(at) - at);
                let mut spoilt = bytes.clone();
                spoilt.copy_within(from..from + length, at);
                disk.write_file(&path, &spoilt);
                told(format!("has the group of {from} at {at}, too"))
            }
            _ => {
                let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
                let copy = match name.split_once('.') {
                    Some((number, rest)) if number.parse::<u64>().is_ok() => {
                        let next = number.parse::<u64>().unwrap_or_default() + 1 + dice.next() % 3;
                        format!("{folder}/{next:0width$}.{rest}", width = number.len())
                    }
                    _ => format!("{path}.copy"),
                };
                if disk.read_file(&copy).is_none() {
                    disk.write_file(&copy, &bytes);
                }
                told(format!("is there again as {copy}"))
            }
        }
    }

    /// Every answer is right, or an error that says the data is damaged.
    pub(super) fn answers_right_or_not(
        &mut self,
        disk: &SimulatedStorage,
        dice: &Dice,
        least: Lsn,
    ) -> Outcome {
        self.tally.states += 1;
        let before = disk.fingerprint();
        let mode = if dice.chance(30) { OpenMode::Read } else { OpenMode::ReadWrite };
        let db = match self.try_open(disk, mode) {
            Ok(db) => db,
            Err(error) if is_told(error.kind()) => {
                return match mode {
                    OpenMode::Read if disk.fingerprint() != before => {
                        wrong("a reader that refused wrote")
                    }
                    _ => Ok(()),
                };
            }
            // Its first group may be taken for a creation cut off.
            Err(error) if least == 0 && error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return wrong(format!("not an error of damage: {error:?}")),
        };
        if least == 0 && db.schema().structures.is_empty() {
            return Ok(());
        }
        let newest = self.oracle.lsn();
        let at = match db.lsn() {
            Ok(lsn) if (least..=newest).contains(&lsn) => lsn,
            other => return wrong(format!("the newest LSN is {other:?}, of {least} to {newest}")),
        };
        let whole = (at < newest).then(|| self.oracle.clone());
        self.oracle.cut(at);
        self.db = Some(db.clone());
        let asks = self.draw(dice).everything(false);
        let now = db.shared().pipeline.now();
        let reader = db.reader_at(at).map_err(|error| Failure(format!("{error:?}")))?;
        for ask in asks {
            let Some(wanted) = self.oracle.answer(&ask, at, now) else { continue };
            self.tally.questions += 1;
            match speaker::ask(&reader, &ask) {
                Ok(found) => same(&ask, at, &found, &wanted)?,
                Err(error) if is_told(error.kind()) => {}
                Err(error) => return wrong(format!("{ask:?}: {error:?}")),
            }
        }
        if let Some(whole) = whole {
            self.oracle = whole;
        }
        self.db = None;
        Ok(())
    }

    /// What follows from the log is made from it again.
    fn is_made_good(&mut self, disk: &SimulatedStorage) -> Outcome {
        let db = match self.try_open(disk, OpenMode::ReadWrite) {
            Ok(db) => db,
            Err(error) => return wrong(format!("cannot be opened: {error:?}")),
        };
        // What is made again is flushed with all others, which may meet another's damage: where the
        // first round did not come to that one, the second does.
        for round in 0..2 {
            for structure in &self.plan.schema.structures {
                match db.rebuild(structure.id, |_, _| {}) {
                    Err(error) if round == 1 || error.kind() != ErrorKind::Corruption => {
                        return wrong(format!("{} is not made again: {error:?}", structure.name));
                    }
                    _ => {}
                }
            }
        }
        self.db = Some(db);
        self.check_all()
    }
}

/// A value that was written to the place of another.
fn misplaced(disk: &SimulatedStorage, [from, at]: &[Pointer; 2]) -> Damage {
    let path = segment::path(from.segment);
    let mut bytes = disk.read_file(&path).unwrap_or_default();
    let end = from.offset + u64::from(from.length);
    if end.max(at.offset + u64::from(at.length)) <= bytes.len() as u64 {
        bytes.copy_within(from.offset as usize..end as usize, at.offset as usize);
        disk.write_file(&path, &bytes);
    }
    let told = format!("{path} has the value of {} at {}, too", from.offset, at.offset);
    Damage { told, derived: false }
}

/// Where groups seem to begin; at least the place of the first.
fn group_starts(bytes: &[u8]) -> Vec<usize> {
    let mark = bytes.get(SECTOR..SECTOR + 4);
    let begins = |at: &usize| mark.is_some() && bytes.get(*at..*at + 4) == mark;
    let starts = (SECTOR..bytes.len()).step_by(SECTOR).filter(begins);
    let starts: Vec<usize> = starts.collect();
    if starts.is_empty() { vec![0] } else { starts }
}

struct Damage {
    told: String,
    /// Only what follows from the log is damaged.
    derived: bool,
}

/// Errors that say that the stored bytes are not what was written.
fn is_told(kind: ErrorKind) -> bool {
    use ErrorKind::{Corruption, Format, UnknownFormat};
    matches!(kind, Corruption | Format | UnknownFormat)
}
