//! Opening: find the log, or make one; take up what the newest checkpoint names; replay what
//! follows; decide and mend the end.
//!
//! Every step may be cut off by a crash and is safe to do again. Invariants:
//! 1. A reader (`Mode::Read`) writes nothing: a torn tail is passed over, not mended.
//! 2. Nothing is served before the repair of what was found is durable.
//! 3. Damage to the log is an error that names the file; a database is never silently made anew
//!    over one.
//! 4. Damage to a derived file costs time only: everything is made again from the whole log.

use std::collections::HashMap;
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, Epoch, Mark};
use crate::clock::Micros;
use crate::error::{Error, ErrorKind, Result};
use crate::flush::{self, Files};
use crate::ledger::{LEDGER, Ledger};
use crate::log::Lsn;
use crate::log::format::{
    DatabaseId, Place, RECORD_HEADER_BYTES, RecordKind, SEGMENT_HEADER_BYTES, SegmentHeader,
};
use crate::log::packed::{self, DictionaryAt};
use crate::log::reader::{ControlAt, Epochs, Expected, GroupRead, Step, Walker};
use crate::log::record::{Commit, Record};
use crate::log::repair::{self, End, Found};
use crate::log::segment::{self, LOG_DIR, Segment};
use crate::log::writer::Segments;
use crate::marker::{self, Marker};
use crate::materialised::Held;
use crate::options::{Mode, Options};
use crate::ordered::run;
use crate::sabotage::{Bug, is_planted};
use crate::schema::Schema;
use crate::storage::Storage;
use crate::store::{Catalog, Store};
use crate::vector::file;

/// Where a log ends and which one it is.
pub struct Recovered {
    pub database: DatabaseId,
    pub active: Segment,
    pub offset: u64,
    pub expected: Expected,
    pub checkpoint: Checkpoint,
    pub checkpoint_place: Place,
    pub time: Micros,
    /// Structures whose declaration changed while the log was written.
    pub rebuild: Vec<u32>,
    /// What was dropped at the end, for people.
    pub torn: Option<String>,
    /// Why everything was made again from the log, for people.
    pub rebuilt: Option<String>,
}

impl Recovered {
    pub fn lsn(&self) -> Lsn {
        self.expected.lsn - 1
    }
}

fn not_found(storage: &dyn Storage) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "no database at {}: check the path; it is created by opening it with a declaration and \
             mode=\"rw\"",
            storage.name()
        ),
    )
}

/// Makes sure the directory is there, or says why it cannot be.
pub fn prepare_directory(storage: &dyn Storage, options: &Options) -> Result<()> {
    match storage.list("") {
        // Said before the lock leaves a file in somebody else's directory.
        Ok(names) if !names.iter().any(|name| name == LOG_DIR || name == marker::MARKER) => {
            check_empty(storage)
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if options.mode == Mode::Read || !options.create {
                return Err(not_found(storage));
            }
            let made = storage.create_dir("");
            made.map_err(|error| match error.kind() {
                ErrorKind::NotFound => error.hint("create the directory above it first"),
                _ => error,
            })
        }
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            Err(error.hint("a database is a directory: choose a path where no file stands"))
        }
        Err(error) => Err(error),
    }
}

/// Finds a complete database, or creates one where there is none or a creation was cut off.
pub fn find_or_create(storage: &dyn Storage, options: &Options) -> Result<(DatabaseId, Found)> {
    let writes = options.mode == Mode::ReadWrite;
    let marker = marker::read(storage)?;
    let found = repair::find_segments(storage)?;
    let identity = found.segments.first().map(|segment| segment.header.database);
    match (marker, identity) {
        (Marker::Sound(marked), Some(stored)) if marked != stored => {
            Err(Error::corruption(format!(
                "{}: the log belongs to another database than the file DATABASE says; put the \
                 right files back, nothing was changed",
                storage.name()
            )))
        }
        (Marker::Sound(marked), Some(_)) => Ok((marked, found)),
        // Its first byte is written once the first segment is durable.
        (Marker::Sound(_) | Marker::Damaged, None) => Err(Error::corruption(format!(
            "{}: {} is missing, empty or not a segment; restore it from a backup, nothing was \
             changed",
            storage.name(),
            segment::path(1)
        ))),
        (Marker::Absent | Marker::Damaged, Some(stored)) if holds_groups(&found)? => {
            Ok((stored, Found { unmarked: true, ..found }))
        }
        _ => {
            check_empty(storage)?;
            if !writes || !options.create {
                return Err(not_found(storage));
            }
            create(storage, options, &found, marker)
        }
    }
}

/// Without a marker: a log, or what a creation cut off left behind?
fn holds_groups(found: &Found) -> Result<bool> {
    let first = &found.segments[0];
    if found.segments.len() > 1 {
        // A creation makes one.
        return Ok(true);
    }
    if segment::last_nonzero(&*first.file, SEGMENT_HEADER_BYTES as u64)?.is_none() {
        return Ok(false);
    }
    let mark = Mark::first();
    let end = repair::walk(&found.segments, mark.place, mark.expected(), |_, _| Ok(()))?;
    Ok(end.last.is_some())
}

/// A database is made in an empty directory only (leftovers of a creation cut off aside).
fn check_empty(storage: &dyn Storage) -> Result<()> {
    let ours = [LOG_DIR, marker::MARKER, "LOCK", run::RUNS_DIR, file::GRAPHS_DIR, QUARANTINE_DIR];
    let names = storage.list("")?;
    match names.iter().find(|name| !ours.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Error::new(
            ErrorKind::Format,
            format!(
                "{} is not a waferdb database and not empty (it holds {name:?}): choose another \
                 path, nothing was changed",
                storage.name()
            ),
        )),
    }
}

/// Directory, first segment with a first checkpoint, and last the marker; each durable. What a
/// creation cut off left goes first, in the other order.
fn create(
    storage: &dyn Storage,
    options: &Options,
    leftovers: &Found,
    marker: Marker,
) -> Result<(DatabaseId, Found)> {
    storage.create_dir(LOG_DIR)?;
    if marker != Marker::Absent {
        storage.remove(marker::MARKER)?;
    }
    storage.sync_dir("")?;
    let numbers = leftovers.segments.iter().map(|segment| segment.header.segment);
    for number in numbers.chain(leftovers.torn_creation) {
        storage.remove(&segment::path(number))?;
    }
    storage.sync_dir(LOG_DIR)?;
    let mut database = [0u8; 16];
    for half in database.chunks_mut(8) {
        half.copy_from_slice(&options.random.next_u64().to_le_bytes());
    }
    let header = SegmentHeader {
        database,
        segment: 1,
        salt: options.random.next_u64(),
        epoch: 1,
        first_group: 1,
        first_lsn: 1,
        capacity: options.segment_bytes_min,
        created: options.clock.wall_micros(),
    };
    let segment = segment::create(storage, header)?;
    marker::write(storage, &database)?;
    Ok((database, Found { segments: vec![segment], torn_creation: None, unmarked: false }))
}

/// The number that a file's name says, if it is the name of one of ours.
type NumberOf = fn(&str) -> Option<u64>;

/// Directories of files that are made from the log, and what their names say.
const DERIVED: [(&str, NumberOf); 2] =
    [(run::RUNS_DIR, run::number), (file::GRAPHS_DIR, file::number)];

/// What stands of the structures before anything is replayed.
pub struct Restored {
    pub checkpoint: Checkpoint,
    pub catalog: Catalog,
    pub ledger: Ledger,
    /// Why the files of the structures are made again, if they are.
    pub damaged: Option<String>,
    /// Nothing was taken up: the replay is of the whole log.
    pub whole: bool,
}

/// No number of a file that is there is given to another.
pub fn reserve_numbers(files: &Files) -> Result<()> {
    for (directory, number) in DERIVED {
        for name in list(&*files.storage, directory)? {
            files.reserve_below(number(&name).map_or(0, |uid| uid.saturating_add(1)));
        }
    }
    Ok(())
}

/// Takes up the runs that the newest checkpoint names; reads their footers only.
pub fn restore(found: &Found, files: &Files, epochs: &Arc<Epochs>) -> Result<Restored> {
    let newest = newest_checkpoint(found)?;
    let Some(checkpoint) = newest else { return Ok(beginning(epochs)) };
    files.reserve_below(checkpoint.next_uid);
    // One that leaves a structure out cannot tell where its replay begins.
    let structures = checkpoint.schema.structures.iter().map(|structure| structure.id);
    if !structures.chain([LEDGER]).all(|id| checkpoint.of(id).is_some()) {
        return Ok(beginning(epochs));
    }
    let mut held: HashMap<u32, Held> = HashMap::new();
    for stored in &checkpoint.stored {
        let opened: Result<Vec<_>> = stored.runs.iter().map(|info| files.open(info)).collect();
        match opened {
            Ok(runs) => held.insert(
                stored.structure,
                Held {
                    runs,
                    applied: stored.applied,
                    graphs: stored.graphs.clone(),
                    unsealed: stored.unsealed,
                },
            ),
            Err(error) if error.is_derived() => {
                return Ok(nothing(&error, epochs));
            }
            Err(error) => return Err(error),
        };
    }
    let ledger = held.remove(&LEDGER).unwrap_or_default();
    let ledger = Ledger::new(ledger.runs, ledger.applied, Arc::clone(epochs));
    if let Err(error) = ledger.load_epochs() {
        return if error.is_derived() { Ok(nothing(&error, epochs)) } else { Err(error) };
    }
    let catalog =
        Catalog::opened(checkpoint.schema.clone(), |id| held.remove(&id).unwrap_or_default());
    Ok(Restored { checkpoint, catalog, ledger, damaged: None, whole: false })
}

/// No file is of use, because of one that is damaged.
pub fn nothing(damage: &Error, epochs: &Arc<Epochs>) -> Restored {
    Restored { damaged: Some(damage.message().to_owned()), ..beginning(epochs) }
}

/// Nothing but the log.
fn beginning(epochs: &Arc<Epochs>) -> Restored {
    epochs.clear();
    let ledger = Ledger::new(Vec::new(), 0, Arc::clone(epochs));
    let catalog = Catalog::new(Schema::default(), None, &[]);
    Restored { checkpoint: Checkpoint::default(), catalog, ledger, damaged: None, whole: true }
}

fn list(storage: &dyn Storage, path: &str) -> Result<Vec<String>> {
    match storage.list(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        names => names,
    }
}

/// The newest checkpoint of the log; `None` if none can be found without walking all of it. A group
/// that holds one names it in its own header, so that no later one can hold a newer.
fn newest_checkpoint(found: &Found) -> Result<Option<Checkpoint>> {
    let known =
        |number: u64| found.segments.iter().find(move |segment| segment.header.segment == number);
    for (place, expected) in repair::checkpoint_groups(&found.segments)? {
        let Some(segment) = known(place.segment) else { continue };
        let mut walker = Walker::new(segment, expected);
        walker.offset = place.offset;
        let Step::Group(group) = walker.step()? else { continue };
        let bodies = group.records.iter().rev().filter_map(|record| match record {
            Record::Control { kind: RecordKind::Checkpoint, body, .. } => Some(body),
            _ => None,
        });
        for body in bodies {
            let checkpoint = Checkpoint::decode(body)?;
            // One whose replay begins in a file that is not there cannot be followed.
            if known(checkpoint.replay.place.segment).is_some() {
                return Ok(Some(checkpoint));
            }
        }
    }
    Ok(None)
}

/// Replays what follows the checkpoint into `store` and decides how the log ends.
fn replay(
    found: &Found,
    store: &Store,
    restored: (Checkpoint, bool),
    epochs: &Epochs,
    files: &Files,
    memtable_bytes: u64,
) -> Result<(End, Checkpoint, Micros, Vec<u32>)> {
    let (checkpoint, whole) = restored;
    let mark = if whole { Mark::first() } else { checkpoint.replay };
    repair::check_sealed(&found.segments, mark.place)?;
    store.raise_floor(checkpoint.floor);
    store.publish(store.ledger.applied());
    checkpoint.dictionaries.iter().for_each(|known| store.values.dictionaries.add(*known));
    let mut replay = Replay {
        store,
        epochs,
        checkpoint,
        whole,
        time: 0,
        rebuild: Vec::new(),
        files,
        memtable_bytes,
        unlooked: 0,
    };
    let end =
        repair::walk(&found.segments, mark.place, mark.expected(), |_, group| replay.group(group))?;
    Ok((end, replay.checkpoint, replay.time, replay.rebuild))
}

struct Replay<'a> {
    store: &'a Store,
    epochs: &'a Epochs,
    checkpoint: Checkpoint,
    whole: bool,
    time: Micros,
    rebuild: Vec<u32>,
    files: &'a Files,
    /// Memtables above this are written to runs; a reader, who must not write, has no bound.
    memtable_bytes: u64,
    /// Operations since they were looked at.
    unlooked: u64,
}

/// The memtables are looked at once in so many operations.
const LOOK_EVERY: u64 = 4_096;

impl Replay<'_> {
    fn group(&mut self, group: GroupRead) -> Result<()> {
        self.epochs.add(group.header.epoch, group.header.first_lsn);
        for record in group.records {
            match record {
                Record::Commit(mut commit) => {
                    self.store.values.unpack(&mut commit)?;
                    self.commit(&commit)?;
                }
                Record::Control { kind, time, body, place } => {
                    self.time = self.time.max(time);
                    if kind == RecordKind::Dictionary {
                        self.dictionary(&body, place, group.header.epoch)?;
                    }
                    // The newest one was taken up before.
                    if kind == RecordKind::Checkpoint && self.whole {
                        self.adopt(Checkpoint::decode(&body)?);
                    }
                }
            }
        }
        Ok(())
    }

    fn commit(&mut self, commit: &Commit) -> Result<()> {
        self.time = self.time.max(commit.time);
        self.store.replay(commit)?;
        self.store.publish(commit.lsn);
        self.unlooked += commit.frames.ops.len() as u64;
        if self.unlooked < LOOK_EVERY {
            return Ok(());
        }
        self.unlooked = 0;
        if self.store.memtable_bytes().0 > self.memtable_bytes {
            let catalog = self.store.catalog();
            flush::seal(self.store, &catalog, commit.lsn);
            flush::write_sealed(self.files, self.store, &catalog, commit.lsn)?;
        }
        Ok(())
    }

    /// One behind the checkpoint, or every one where all of the log is replayed.
    fn dictionary(&mut self, body: &[u8], place: Place, epoch: u64) -> Result<()> {
        let (id, _) = packed::decode_dictionary(body)?;
        let bytes = (RECORD_HEADER_BYTES + body.len()) as u32;
        let found = DictionaryAt { id, record: ControlAt { place, bytes, epoch } };
        let known = &mut self.checkpoint.dictionaries;
        if known.last().is_none_or(|last| last.id < id) {
            known.push(found);
            self.store.values.dictionaries.add(found);
        }
        Ok(())
    }

    fn adopt(&mut self, checkpoint: Checkpoint) {
        let known = self.store.catalog();
        if known.schema != checkpoint.schema {
            let changed = changed(&known, &checkpoint.schema);
            self.rebuild.extend(&changed);
            let catalog = Catalog::new(checkpoint.schema.clone(), Some(&known), &changed);
            self.store.replace_catalog(catalog);
        }
        self.store.raise_floor(checkpoint.floor);
        // Its files are of no use here, and neither is its place to replay from.
        let (stored, replay) = (Vec::new(), Mark::first());
        let dictionaries = std::mem::take(&mut self.checkpoint.dictionaries);
        self.checkpoint = Checkpoint { stored, replay, dictionaries, ..checkpoint };
    }
}

/// Where files go that no checkpoint names: what a crash left behind, or what somebody put there.
pub const QUARANTINE_DIR: &str = "quarantine";

/// Puts aside the files that nothing refers to; what an earlier opening put aside goes for good.
pub fn quarantine(storage: &dyn Storage, live: impl Fn(u64) -> bool) -> Result<Vec<String>> {
    let mut strays: Vec<(&str, String)> = Vec::new();
    for (directory, number) in DERIVED {
        let names = list(storage, directory)?.into_iter();
        let stray = names.filter(|name| !number(name).is_some_and(&live));
        strays.extend(stray.map(|name| (directory, name)));
    }
    let earlier = list(storage, QUARANTINE_DIR)?;
    if strays.is_empty() && earlier.is_empty() {
        return Ok(Vec::new());
    }
    storage.create_dir(QUARANTINE_DIR)?;
    for name in &earlier {
        // What cannot be removed (a directory that somebody put there) is in nobody's way.
        let _ = storage.remove(&format!("{QUARANTINE_DIR}/{name}"));
    }
    let mut moved = Vec::new();
    for (directory, name) in &strays {
        let aside = format!("{QUARANTINE_DIR}/{name}");
        storage.rename(&format!("{directory}/{name}"), &aside)?;
        moved.push(aside);
    }
    storage.sync_dir(QUARANTINE_DIR)?;
    for (directory, _) in DERIVED {
        if strays.iter().any(|(from, _)| *from == directory) {
            storage.sync_dir(directory)?;
        }
    }
    Ok(moved)
}

/// Structures of `schema` that what is in memory was not made for.
pub fn changed(known: &Catalog, schema: &Schema) -> Vec<u32> {
    Catalog::to_rebuild(schema, known)
}

/// Mends the end of the log and readies the active segment for writing.
pub fn make_writable(storage: &dyn Storage, found: &Found, end: &End) -> Result<Segment> {
    repair::make_durable(storage, found, end)?;
    let active = segment::writable(storage, &found.segments[end.active])?;
    // Also where the length is right: its space may not have been reserved when a crash came.
    active.file.allocate(active.header.capacity)?;
    active.file.sync()?;
    Ok(active)
}

/// Where a writer goes on. Behind a close its first group takes the place of the close, so
/// that a close stands at the end of a file only, and a file cut there is known to be cut.
fn take_up(end: &End) -> (u64, Expected) {
    match &end.last {
        Some((place, header)) if end.behind_close => {
            (place.offset, Expected { group: header.group, ..end.expected })
        }
        _ if end.torn_end.is_some() && is_planted(Bug::LsnReusedAfterTornTail) => {
            let lsn = end.expected.lsn.saturating_sub(1).max(1);
            (end.offset, Expected { lsn, ..end.expected })
        }
        _ => (end.offset, end.expected),
    }
}

/// The epoch a writer begins.
pub fn next_epoch(checkpoint: &Checkpoint, expected: &Expected, incarnation: u64) -> Epoch {
    let newest = checkpoint.epochs.last().map_or(0, |epoch| epoch.number);
    let number = newest.max(expected.epoch).saturating_add(1);
    Epoch { number, incarnation, first_lsn: expected.lsn }
}

pub fn open_log(
    storage: &Arc<dyn Storage>,
    options: &Options,
    store: &Store,
    (segments, epochs): (&Segments, &Epochs),
    (database, found): &(DatabaseId, Found),
    (checkpoint, whole): (Checkpoint, bool),
    files: &Files,
) -> Result<Recovered> {
    let memtable_bytes = match options.mode {
        Mode::ReadWrite => options.memtable_bytes,
        Mode::Read => u64::MAX,
    };
    let restored = (checkpoint, whole);
    let (end, checkpoint, time, rebuild) =
        replay(found, store, restored, epochs, files, memtable_bytes)?;
    let torn = repair::report(&end, end.expected.lsn - 1);
    let checkpoint_place = repair::newest_checkpoint(&end).unwrap_or_default();
    let active = match options.mode {
        Mode::ReadWrite => {
            // A segment that no seal names is made anew when it is needed.
            end.unused.iter().for_each(|number| segments.remove(*number));
            let active = make_writable(&**storage, found, &end)?;
            segments.add(active.clone());
            if found.unmarked {
                marker::write(&**storage, database)?;
            }
            active
        }
        Mode::Read => found.segments[end.active].clone(),
    };
    let (offset, expected) = take_up(&end);
    Ok(Recovered {
        database: *database,
        active,
        offset,
        expected,
        checkpoint,
        checkpoint_place,
        time,
        rebuild,
        torn,
        rebuilt: None,
    })
}
