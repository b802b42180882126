//! Salvage: what is provably whole of a damaged database, written to a new one; the rest is told.
//!
//! The log is walked four times: to survey it (schema, dictionaries, damage), to learn the newest
//! state of every key (`index`), to write what is whole (`write`), and to write what follows rows
//! (linked vectors, caches with a source). Invariants:
//! 1. The source is never written to, and no derived file of it is read.
//! 2. Nothing is written that did not prove itself by its checksum; a key whose newest version is
//!    damaged is told as lost, and an older version is written only where that was asked for.
//! 3. What was deleted or forgotten, as far as that can be read or seems to have been, stays so.
//! 4. The newest version of a key is written, and of rows that events capture or that supersede
//!    each other every one: the events are these.
//!
//! LSNs, times, transaction ids, notes and the audit tree begin anew. Memory grows with the number
//! of keys, about 80 B each.

mod copy;
mod index;
mod report;
mod source;
mod walk;
mod write;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::compression::Dictionaries;
use crate::database::Database;
use crate::error::{Error, ErrorKind, Result};
use crate::log::format::{Place, RECORD_HEADER_BYTES, RecordKind};
use crate::log::packed::{self, DictionaryAt};
use crate::log::reader::{ControlAt, Epochs, PointReader};
use crate::log::record::{Commit, Named, Op, ValueAt};
use crate::log::segment;
use crate::log::writer::Segments;
use crate::options::{Durability, Mode, Options, Zstd};
use crate::schema::{Kind, Schema, Structure, StructureId};
use crate::storage::{Lock, Storage};

use self::copy::Copy;
use self::index::Index;
pub use self::report::{Commits, Counts, Damage, Gap, Lost, Report};
use self::source::Source;
use self::walk::Found;
use self::write::Writer;

/// Copies what is whole of the database in `source` to a new one in `destination`. `older`: a key
/// whose newest version is damaged gets its newest whole one. `progress` is told bytes read and
/// bytes to read.
pub fn salvage(
    source: &dyn Storage,
    destination: Arc<dyn Storage>,
    options: Options,
    older: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report> {
    let _lock = shared_lock(source)?;
    let log = Source::open(source)?;
    check_free(&*destination)?;
    let mut report =
        Report { source: source.name(), destination: destination.name(), ..Report::default() };
    let total = 4 * log.bytes.max(1);
    let mut done = 0;
    let mut read = |bytes: u64| {
        done = (done + bytes).min(total);
        progress(done, total);
    };
    let survey = Survey::of(&log, &mut report, &mut read)?;
    let mut index = Index::new(&survey.schema);
    log.walk(&mut read, &mut |found| {
        match found {
            Found::Commit { commit, bad } => index.commit(&commit, &survey.bad(&commit, bad)),
            Found::Doubt { lsn, names, .. } => {
                for (number, one) in survey.known(&names) {
                    index.doubt(one.kind, one.structure, &one.key, (lsn, number));
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    let now = options.clock.wall_micros();
    let compression = options.compression.clone().or_else(|| survey.packed.then(Zstd::default));
    let options = Options {
        mode: Mode::ReadWrite,
        create: true,
        durability: Durability::Async,
        compression,
        ..options
    };
    let database = Database::open(destination, options, Some(survey.declaration()))?;
    let mut copy = Copy {
        survey: &survey,
        index: &index,
        history: survey.history(),
        writer: Writer::new(database.clone(), now),
        report,
        older,
        now,
        linked: false,
    };
    log.walk(&mut read, &mut |found| copy.found(found))?;
    copy.finish()?;
    copy.linked = true;
    log.walk(&mut read, &mut |found| copy.found(found))?;
    copy.finish()?;
    let mut report = copy.report;
    for structure in &survey.schema.structures {
        if let Some(policy) = &structure.policy_override {
            database.set_policy(&structure.name, policy.clone())?;
        }
    }
    report.lsn = database.lsn()?;
    database.close()?;
    report.ok = survey.schema_is_newest
        && report.lost_count == 0
        && report.missing.is_empty()
        && report.commits.damaged == 0;
    Ok(report)
}

/// A reader's lock where one can be had; a writer at work is refused, a medium that cannot be
/// locked has none.
fn shared_lock(source: &dyn Storage) -> Result<Option<Box<dyn Lock>>> {
    match source.lock(false) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == ErrorKind::Locked => Err(error),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::new(
            ErrorKind::NotFound,
            format!("no database at {}: check the path", source.name()),
        )),
        Err(_) => Ok(None),
    }
}

fn check_free(destination: &dyn Storage) -> Result<()> {
    match destination.list("") {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(names) => match names.first() {
            None => Ok(()),
            Some(name) => Err(Error::new(
                ErrorKind::Storage,
                format!(
                    "{} is not empty (it holds {name:?}): choose a new path for what is salvaged; \
                     nothing was written",
                    destination.name()
                ),
            )),
        },
    }
}

/// What one walk over the log tells of the whole.
struct Survey {
    schema: Schema,
    schema_is_newest: bool,
    dictionaries: Dictionaries,
    packed: bool,
}

impl Survey {
    fn of(log: &Source, report: &mut Report, read: &mut dyn FnMut(u64)) -> Result<Self> {
        let (segments, epochs) = (Arc::<Segments>::default(), Arc::<Epochs>::default());
        log.segments.iter().for_each(|segment| segments.add(segment.clone()));
        let reader = PointReader { database: log.database, segments, epochs };
        let dictionaries = Dictionaries::new(reader, 0);
        let (mut newest, mut named, mut packed) = (None, Place::default(), false);
        let by_place = |place: &Place| (place.segment, place.offset);
        let commits = &mut Commits::default();
        log.walk(read, &mut |found| {
            match found {
                Found::Checkpoint(place) if by_place(&place) > by_place(&named) => named = place,
                Found::Control { kind: RecordKind::Checkpoint, body, place, .. } => {
                    match Checkpoint::decode(&body) {
                        Err(error) if error.kind() != ErrorKind::Corruption => return Err(error),
                        Err(error) => unread(report, place, &error),
                        Ok(checkpoint) => newest = Some((checkpoint, place)),
                    }
                }
                Found::Control { kind: RecordKind::Dictionary, body, place, epoch } => {
                    let bytes = (RECORD_HEADER_BYTES + body.len()) as u32;
                    let record = ControlAt { place, bytes, epoch };
                    match packed::decode_dictionary(&body) {
                        Ok((id, _)) => dictionaries.add(DictionaryAt { id, record }),
                        Err(error) => unread(report, place, &error),
                    }
                }
                Found::Commit { commit, .. } => {
                    packed |= commit.frames.ops.iter().any(|op| op.packed);
                    commits.first = if commits.first == 0 { commit.lsn } else { commits.first };
                    commits.last = commit.lsn;
                }
                Found::Missing { first, last } => report.missing.push(Gap { first, last }),
                Found::Damage(damage) => report.damaged(damage),
                Found::Torn(what) => report.torn_tail = Some(what),
                _ => {}
            }
            Ok(())
        })?;
        report.commits = commits.clone();
        let Some((checkpoint, place)) = newest else {
            return Err(Error::corruption(format!(
                "{}: no checkpoint of the log is whole, so what its structures were cannot be \
                 told; nothing was written",
                report.source
            )));
        };
        let schema_is_newest = by_place(&place) >= by_place(&named);
        if !schema_is_newest {
            report.notes.push(format!(
                "the newest declaration, at {} offset {}, is damaged: that of {} offset {} is \
                 used, and what was declared between them is lost",
                segment::path(named.segment),
                named.offset,
                segment::path(place.segment),
                place.offset
            ));
        }
        let schema = checkpoint.schema;
        for structure in schema.structures.iter().filter(|structure| is_copied(structure)) {
            let counts = Counts { kind: structure.kind.name(), ..Counts::default() };
            report.structures.insert(structure.name.clone(), counts);
        }
        notes(&schema, &mut report.notes);
        Ok(Self { schema, schema_is_newest, dictionaries, packed })
    }

    /// The schema as a declaration.
    fn declaration(&self) -> Schema {
        let mut declared = self.schema.clone();
        declared.structures.iter_mut().for_each(|structure| structure.policy_override = None);
        declared
    }

    /// Rows of which every version is written, and events that tell of them.
    fn history(&self) -> HashSet<StructureId> {
        let mut found = HashSet::new();
        let supersede = |structure: &Structure| match &structure.kind {
            Kind::Rows { supersede, .. } => !supersede.is_empty(),
            _ => false,
        };
        for structure in &self.schema.structures {
            match &structure.kind {
                Kind::Rows { .. } if supersede(structure) => {
                    found.insert(structure.id);
                }
                Kind::Events { capture } if !capture.is_empty() => {
                    let sources = capture.iter().filter_map(|name| self.schema.named(name));
                    found.extend(sources.map(|source| source.id));
                    found.insert(structure.id);
                }
                Kind::Events { .. } if self.schema.structures.iter().any(supersede) => {
                    found.insert(structure.id);
                }
                _ => {}
            }
        }
        found
    }

    /// The operations of a commit whose values cannot be had.
    fn bad(&self, commit: &Commit, mut bad: Vec<usize>) -> Vec<usize> {
        for (number, op) in commit.frames.ops.iter().enumerate() {
            if op.packed && !bad.contains(&number) && self.value(commit, op).is_err() {
                bad.push(number);
            }
        }
        bad
    }

    /// The value of an operation as it was given.
    fn value<'c>(&self, commit: &'c Commit, op: &Op) -> Result<Option<Cow<'c, [u8]>>> {
        match &op.value {
            ValueAt::Stored { bytes, .. } | ValueAt::Back { bytes, .. } if op.packed => {
                let stored = &commit.frames.bytes[bytes.clone()];
                Ok(Some(Cow::Owned(self.dictionaries.value(stored)?)))
            }
            _ => Ok(commit.frames.value(op).map(Cow::Borrowed)),
        }
    }

    /// What a damaged commit seems to name of structures there are, with its numbers.
    fn known<'n>(&self, names: &'n [Named]) -> impl Iterator<Item = (u32, &'n Named)> {
        let known = |one: &&Named| self.schema.by_id(one.structure).is_some_and(is_copied);
        let found: Vec<_> = names.iter().enumerate().filter(|(_, one)| known(one)).collect();
        found.into_iter().map(|(number, one)| (number as u32, one))
    }
}

/// A record whose sum holds, and which is none that a writer makes.
fn unread(report: &mut Report, place: Place, error: &Error) {
    report.damaged(Damage::of(place.segment, place.offset, error.message()));
}

/// Whether a structure has content of its own; the others are made of it.
fn is_copied(structure: &Structure) -> bool {
    !matches!(structure.kind, Kind::Audit {} | Kind::View { .. })
}

fn notes(schema: &Schema, notes: &mut Vec<String>) {
    let has = |wanted: fn(&Kind) -> bool| schema.structures.iter().any(|one| wanted(&one.kind));
    if has(|kind| matches!(kind, Kind::Audit {})) {
        notes.push(
            "the audit tree begins anew: heads and proofs of the old database are not those of \
             the new one"
                .to_owned(),
        );
    }
    if has(|kind| matches!(kind, Kind::View { .. })) {
        notes.push("results of views are computed again when they are asked for".to_owned());
    }
}
