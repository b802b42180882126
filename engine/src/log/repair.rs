//! Finds the end of the log, decides between a torn tail and corruption, and mends the former.
//!
//! The rules (docs/format.md, "The end of the log"):
//! 1. Segments are numbered without gaps from the first; each but the last ends in a seal, which
//!    means that the next was made. A segment behind one without a seal is a rotation that was
//!    cut off: it holds no group.
//! 2. Bad bytes followed by any sound later group, or in a sealed segment, are corruption: while
//!    one group at most is unsynced, a crash cannot make that.
//! 3. The last file in use has its whole capacity, or nothing but zeros behind a close; any other
//!    length means that something cut it, and is corruption.
//! 4. Anything else bad at the end is a torn tail: never acknowledged, dropped and reported.
//! 5. Before anything is reused the repair is durable: torn bytes are zeroed, the last sound group
//!    is written again in place (it may have been only in the page cache), both synced. Each step
//!    can be cut off and done again.

use super::Lsn;
use super::format::{self, GroupHeader, Place, RecordKind, SEGMENT_HEADER_BYTES};
use super::reader::{Expected, GroupRead, Step, Walker};
use super::record::Record;
use super::segment::{self, LOG_DIR, Opened, Segment};
use crate::error::{Error, ErrorKind, Result};
use crate::sabotage::{Bug, is_planted};
use crate::storage::aligned::AlignedBuffer;
use crate::storage::{Cause, Share, Storage, read_exact_at};

/// What stands in the log directory.
pub struct Found {
    /// Sound segments in order; the last one is active.
    pub segments: Vec<Segment>,
    /// A segment whose creation was cut off, to be removed before writing.
    pub torn_creation: Option<u64>,
    /// The database's marker is lost or damaged, to be written anew once the log proved sound.
    pub unmarked: bool,
}

/// Opens every segment. An empty result is a database whose creation was cut off, or none.
pub fn find_segments(storage: &dyn Storage) -> Result<Found> {
    let names = match storage.list(LOG_DIR) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    let numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
    let mut found = Found { segments: Vec::new(), torn_creation: None, unmarked: false };
    for (index, number) in numbers.iter().enumerate() {
        if *number != index as u64 + 1 {
            return Err(missing(storage, index as u64 + 1));
        }
        match segment::open(storage, *number)? {
            Opened::Sound(segment) => {
                if let Some(first) = found.segments.first()
                    && first.header.database != segment.header.database
                {
                    return Err(Error::corruption(format!(
                        "{} belongs to another database; put the right file back",
                        segment::path(*number)
                    )));
                }
                found.segments.push(segment);
            }
            Opened::TornCreation if index + 1 == numbers.len() => {
                found.torn_creation = Some(*number);
            }
            Opened::TornCreation => {
                return Err(Error::corruption(format!(
                    "{} is empty or zeroed and a later segment follows; restore it from a backup",
                    segment::path(*number)
                )));
            }
        }
    }
    Ok(found)
}

fn missing(storage: &dyn Storage, number: u64) -> Error {
    Error::corruption(format!(
        "{}/{} is missing and later segments are there; restore it from a backup, nothing was \
         changed",
        storage.name(),
        segment::path(number)
    ))
}

/// Where the log ends, and how the last writer left it.
pub struct End {
    /// Index into the segments; the last one with a group or, if unsealed before it, named last.
    pub active: usize,
    /// Behind the last sound group.
    pub offset: u64,
    pub expected: Expected,
    /// The last sound group's place and header.
    pub last: Option<(Place, GroupHeader)>,
    /// The last sound group is a close (torn bytes may lie behind it).
    pub behind_close: bool,
    /// Bytes of a torn tail to be zeroed: `[offset, torn_end)`.
    pub torn_end: Option<u64>,
    pub torn_why: Option<String>,
    /// Trailing segments that no seal names, in order, to be removed.
    pub unused: Vec<u64>,
}

/// Walks every group from a place between two groups on, handing each to `visit`; decides how the
/// log ends.
pub fn walk(
    segments: &[Segment],
    from: Place,
    first: Expected,
    mut visit: impl FnMut(&Segment, GroupRead) -> Result<()>,
) -> Result<End> {
    let mut expected = first;
    let mut last = None;
    for (index, segment) in segments.iter().enumerate() {
        if segment.header.segment < from.segment {
            continue;
        }
        let mut walker = Walker::new(segment, expected);
        if segment.header.segment == from.segment {
            walker.offset = from.offset;
        }
        let mut ended_by = None;
        let stop = loop {
            match walker.step()? {
                Step::Group(group) => {
                    ended_by = ending(&group);
                    last = Some((
                        Place { segment: segment.header.segment, offset: group.offset },
                        group.header.clone(),
                    ));
                    visit(segment, *group)?;
                    if ended_by == Some(RecordKind::Seal) {
                        break Step::End;
                    }
                }
                stop => break stop,
            }
        };
        expected = walker.expected;
        let later = &segments[index + 1..];
        if ended_by == Some(RecordKind::Seal) {
            let Some(next) = later.first() else {
                return Err(Error::corruption(format!(
                    "{} is missing: the segment before it names it; restore it from a backup",
                    segment::path(segment.header.segment + 1)
                )));
            };
            debug_assert_eq!(next.header.segment, segment.header.segment + 1);
            continue;
        }
        // No seal: the log ends here, and later segments can only be such as were never used (one
        // made ahead, and more where what was queued did not fit).
        for next in later {
            if !never_used(next)? {
                return Err(Error::corruption(format!(
                    "{} has no sound seal and {} is in use: groups were lost from LSN {} on; \
                     restore the file from a backup, nothing was changed",
                    segment::path(segment.header.segment),
                    segment::path(next.header.segment),
                    expected.lsn
                )));
            }
        }
        let unused = later.iter().map(|segment| segment.header.segment).collect();
        let (torn_end, torn_why) = judge_tail(segment, &mut walker, stop, ended_by)?;
        return Ok(End {
            active: index,
            offset: walker.offset,
            expected,
            last,
            behind_close: ended_by == Some(RecordKind::Close),
            torn_end,
            torn_why,
            unused,
        });
    }
    Err(Error::corruption("the log has no segment"))
}

/// The control record that may end a file.
fn ending(group: &GroupRead) -> Option<RecordKind> {
    match group.records.last() {
        Some(Record::Control { kind: kind @ (RecordKind::Seal | RecordKind::Close), .. }) => {
            Some(*kind)
        }
        _ => None,
    }
}

fn never_used(segment: &Segment) -> Result<bool> {
    Ok(segment::last_nonzero(&*segment.file, SEGMENT_HEADER_BYTES as u64)?.is_none())
}

/// Rules 2 to 4, for what lies behind the last sound group of the last segment in use.
fn judge_tail(
    segment: &Segment,
    walker: &mut Walker<'_>,
    stop: Step,
    ended_by: Option<RecordKind>,
) -> Result<(Option<u64>, Option<String>)> {
    let end = walker.offset;
    let length = segment.file.len()?;
    let last_nonzero = segment::last_nonzero(&*segment.file, end)?;
    // Reopening makes a trimmed file long again, perhaps in several steps, before it writes.
    let trimmed = ended_by == Some(RecordKind::Close) && last_nonzero.is_none();
    if length != segment.header.capacity && !trimmed {
        if let Step::Bad(error) = stop {
            return Err(Error::corruption(format!(
                "{error}; the database was closed, so this was durable once: the commits from LSN \
                 {} on may be lost; restore the file from a backup, nothing was changed",
                walker.expected.lsn
            )));
        }
        return Err(Error::corruption(format!(
            "{} was cut to {length} bytes: neither its whole length nor trimmed behind a clean \
             close; restore it from a backup, nothing was changed",
            segment::path(segment.header.segment)
        )));
    }
    let Some(torn_end) = last_nonzero else {
        return Ok((None, None));
    };
    let why = match stop {
        Step::Bad(error) => error,
        _ => Error::corruption(format!(
            "{} offset {end}: bytes behind the last group",
            segment::path(segment.header.segment)
        )),
    };
    let mut later = end;
    while later < torn_end && !is_planted(Bug::FirstBadChecksumIsTheEnd) {
        if let Some(header) = walker.sound_header_at(later)?
            && (later > end || header.group != walker.expected.group)
        {
            return Err(Error::corruption(format!(
                "{why}; a sound group (number {}) follows at offset {later}, so this was durable \
                 once: the commits from LSN {} on may be lost; restore the file from a backup, \
                 nothing was changed",
                header.group, walker.expected.lsn
            )));
        }
        later += format::GROUP_ALIGN;
    }
    Ok((Some(torn_end.min(length)), Some(why.message().to_owned())))
}

/// Rule 5. Afterwards every byte up to `end.offset` is durable and everything behind is zero.
pub fn make_durable(storage: &dyn Storage, found: &Found, end: &End) -> Result<()> {
    // The newest first, each durable before the next, so that numbers never have a gap.
    for number in found.torn_creation.iter().chain(end.unused.iter().rev()) {
        storage.remove(&segment::path(*number))?;
        storage.sync_dir(LOG_DIR)?;
    }
    if let Some(torn_end) = end.torn_end {
        let active = segment::writable(storage, &found.segments[end.active])?;
        write_zeros(&active, end.offset, torn_end)?;
        if !is_planted(Bug::TruncationNotDurable) {
            active.file.sync()?;
        }
    }
    if is_planted(Bug::TruncationNotDurable) {
        return Ok(());
    }
    if let Some((place, header)) = &end.last {
        rewrite_in_place(storage, found, place, header)?;
    }
    Ok(())
}

fn write_zeros(segment: &Segment, from: u64, to: u64) -> Result<()> {
    let mut at = from;
    while at < to {
        let zeros = AlignedBuffer::zeroed((to - at).min(1 << 20) as usize);
        let share = Share::new(0, Cause::Log, zeros.len());
        segment.file.write_at(zeros.padded(), at, &[share])?;
        at += zeros.len() as u64;
    }
    Ok(())
}

fn rewrite_in_place(
    storage: &dyn Storage,
    found: &Found,
    place: &Place,
    header: &GroupHeader,
) -> Result<()> {
    let index = (place.segment - 1) as usize;
    let segment = segment::writable(storage, &found.segments[index])?;
    let length = format::align_up(u64::from(header.bytes)) as usize;
    let mut buffer = AlignedBuffer::zeroed(length);
    if !read_exact_at(&*segment.file, buffer.bytes_mut(), place.offset)? {
        return Err(Error::corruption(format!(
            "{} shrank while it was open",
            segment::path(place.segment)
        )));
    }
    let share = Share::new(0, Cause::Log, length);
    segment.file.write_at(buffer.padded(), place.offset, &[share])?;
    segment.file.sync()
}

/// The first group of a database, before anything is known.
pub fn first_expected() -> Expected {
    Expected { group: 1, lsn: 1, epoch: 0 }
}

/// The newest checkpoint's place, as the last sound group says it.
pub fn newest_checkpoint(end: &End) -> Option<Place> {
    let (_, header) = end.last.as_ref()?;
    (header.checkpoint.segment > 0).then_some(header.checkpoint)
}

/// Groups that hold a checkpoint, newest first, and what each continues; found by the headers of
/// the last segments in use. The newest may be torn: whether one is sound is for the walk to say.
pub fn checkpoint_groups(segments: &[Segment]) -> Result<Vec<(Place, Expected)>> {
    const CANDIDATES: usize = 3;
    let mut places: Vec<Place> = Vec::new();
    for segment in segments.iter().rev() {
        let mut named: Vec<Place> = Vec::new();
        headers(segment, |_, header| {
            if header.checkpoint.segment > 0 && named.last() != Some(&header.checkpoint) {
                named.push(header.checkpoint);
            }
        })?;
        named.reverse();
        places.extend(named);
        places.dedup();
        if places.len() >= CANDIDATES {
            break;
        }
    }
    places.truncate(CANDIDATES);
    let mut groups = Vec::new();
    for place in places {
        groups.extend(group_of(segments, place)?);
    }
    Ok(groups)
}

/// The group around a place.
fn group_of(segments: &[Segment], place: Place) -> Result<Option<(Place, Expected)>> {
    let holder = segments.iter().find(|segment| segment.header.segment == place.segment);
    let Some(holder) = holder else { return Ok(None) };
    let mut found = None;
    headers(holder, |offset, header| {
        if (offset..offset + u64::from(header.bytes)).contains(&place.offset) {
            let (group, lsn, epoch) = (header.group, header.first_lsn, header.epoch);
            let place = Place { segment: place.segment, offset };
            found = Some((place, Expected { group, lsn, epoch }));
        }
    })?;
    Ok(found)
}

/// Whether each segment before the one that the walk begins in ends as it was sealed: with the
/// a sound group in its last sector, or still at its whole length.
pub fn check_sealed(segments: &[Segment], from: Place) -> Result<()> {
    for pair in segments.windows(2) {
        let [segment, next] = pair else { continue };
        let length = segment.file.len()?;
        if segment.header.segment >= from.segment || length == segment.header.capacity {
            continue;
        }
        let mut walker = Walker::new(segment, first_expected());
        let last = length.saturating_sub(format::GROUP_ALIGN);
        let seal = walker.sound_header_at(last)?;
        // A segment made ahead was told the number that was next when it was made.
        let ends = |seal: &GroupHeader| {
            last + format::align_up(u64::from(seal.bytes)) == length
                && seal.group >= next.header.first_group.saturating_sub(1)
        };
        if !seal.as_ref().is_some_and(ends) {
            return Err(Error::corruption(format!(
                "{} has {length} bytes and does not end in its seal: it was cut or exchanged; \
                 restore it from a backup, nothing was changed",
                segment::path(segment.header.segment)
            )));
        }
    }
    Ok(())
}

/// Sound headers of a segment, one behind the other from its beginning.
fn headers(segment: &Segment, mut visit: impl FnMut(u64, &GroupHeader)) -> Result<()> {
    let mut walker = Walker::new(segment, first_expected());
    let mut offset = SEGMENT_HEADER_BYTES as u64;
    while let Some(header) = walker.sound_header_at(offset)? {
        visit(offset, &header);
        offset += format::align_up(u64::from(header.bytes).max(1));
    }
    Ok(())
}

/// How a torn tail is told to the user.
pub fn report(end: &End, lsn: Lsn) -> Option<String> {
    end.torn_why.as_ref().map(|why| {
        format!("a torn tail behind LSN {lsn} was dropped; it was never acknowledged ({why})")
    })
}
