//! Reads the log of a damaged database: every record that proves itself, and every hole.
//!
//! 1. What is handed on passed its checksums at its place, for this database and this segment.
//! 2. Past damage the walk goes on at the next group whose header holds; within a group that is
//!    damaged, at the next record that does.
//! 3. Groups in order only: what is older than what was seen is a copy of something, and passed by.
//! 4. What the end of the log shows to be a torn tail was never acknowledged and is no loss.

use crate::error::{ErrorKind, Result};
use crate::log::Lsn;
use crate::log::format::{
    self, DatabaseId, GROUP_HEADER_BYTES, GroupHeader, Identity, Place, RECORD_HEADER_BYTES,
    RecordKind, SEGMENT_HEADER_BYTES, SegmentHeader,
};
use crate::log::record::{self, Commit, Named, Record, RecordPlace};
use crate::log::segment::{self, Segment};
use crate::storage::{File, read_exact_at};

use super::report::Damage;
use super::source::Source;

/// Places within a damaged group where a record is looked for in earnest: a file made to cost time
/// must not.
const TRIES_MAX: usize = 4_096;
/// What is read at once where a medium fails: the least that it may.
const PIECE_BYTES: usize = 512;

/// One thing that a walk comes by.
pub enum Found {
    /// `bad`: the operations whose values are damaged.
    Commit {
        commit: Commit,
        bad: Vec<usize>,
    },
    /// The commit of this LSN is damaged; `names`: what it seems to have been about.
    Doubt {
        lsn: Lsn,
        place: Place,
        why: String,
        names: Vec<Named>,
    },
    Control {
        kind: RecordKind,
        body: Vec<u8>,
        place: Place,
        epoch: u64,
    },
    /// The newest checkpoint, as a sound group names it.
    Checkpoint(Place),
    /// Commits of which nothing is left; `None`: up to the end, however many.
    Missing {
        first: Lsn,
        last: Option<Lsn>,
    },
    Damage(Damage),
    Torn(String),
}

impl Source {
    /// Hands on everything, in the order of the log. `read` is told bytes as they are done.
    pub fn walk(
        &self,
        read: &mut dyn FnMut(u64),
        visit: &mut dyn FnMut(Found) -> Result<()>,
    ) -> Result<()> {
        for damage in &self.unread {
            visit(Found::Damage(damage.clone()))?;
        }
        let used = |segment: &Segment| {
            let from = SEGMENT_HEADER_BYTES as u64;
            segment::last_nonzero(&*segment.file, from).ok().flatten().is_some()
        };
        let last = self.segments.iter().rposition(used).unwrap_or(0);
        let mut walk =
            Walk { source: self, lsn: 1, group: 0, ended: None, tail: 0, over: false, visit };
        for (index, segment) in self.segments.iter().enumerate() {
            let (group, before, tail) = (walk.group, walk.ended, walk.tail);
            walk.segment(segment, index == last && self.whole[index], read)?;
            if walk.group > group {
                walk.tail = index;
                if group > 0 && before != Some(RecordKind::Seal) {
                    let cut = &self.segments[tail];
                    let what = "the file ends before the seal that names the next";
                    let at = cut.file.len().unwrap_or_default();
                    (walk.visit)(Found::Damage(Damage::of(cut.header.segment, at, what)))?;
                }
            }
        }
        if !walk.over && !self.ends(walk.tail, walk.ended)? {
            walk.open_end()?;
        }
        Ok(())
    }

    /// Whether a log may end behind this segment's last group (docs/format.md, "The end of the
    /// log").
    fn ends(&self, tail: usize, last: Option<RecordKind>) -> Result<bool> {
        let index = match last {
            Some(RecordKind::Close) => return Ok(true),
            Some(RecordKind::Seal) => tail + 1,
            _ => tail,
        };
        let (Some(segment), Some(whole)) = (self.segments.get(index), self.whole.get(index)) else {
            return Ok(false);
        };
        let follows =
            index == tail || segment.header.segment == self.segments[tail].header.segment + 1;
        Ok(*whole && follows && segment.file.len()? == segment.header.capacity)
    }
}

/// The header of a group that was written at this place.
fn sound_header(segment: &Segment, at: u64) -> Option<GroupHeader> {
    let mut bytes = [0; GROUP_HEADER_BYTES];
    let SegmentHeader { database, salt, segment: number, .. } = &segment.header;
    let read = read_exact_at(&*segment.file, &mut bytes, at);
    let tag = format::position_tag(*salt, *number, at);
    read.ok().filter(|whole| *whole).and_then(|_| GroupHeader::decode(&bytes, database, tag))
}

/// Bytes of a file, zeros where the medium gives none.
fn readable(file: &dyn File, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    if !matches!(read_exact_at(file, &mut bytes, offset), Ok(true)) {
        for (number, piece) in bytes.chunks_mut(PIECE_BYTES).enumerate() {
            let at = offset + (number * PIECE_BYTES) as u64;
            if !matches!(read_exact_at(file, piece, at), Ok(true)) {
                piece.fill(0);
            }
        }
    }
    bytes
}

fn place_of(
    segment: &Segment,
    database: DatabaseId,
    header: &GroupHeader,
    offset: u64,
) -> RecordPlace {
    RecordPlace {
        identity: Identity { database, epoch: header.epoch },
        salt: segment.header.salt,
        segment: segment.header.segment,
        offset,
    }
}

struct Walk<'a> {
    source: &'a Source,
    /// What is due next, and the number of the last group.
    lsn: Lsn,
    group: u64,
    /// The kind of the last record, where it was a control record, and its segment's index.
    ended: Option<RecordKind>,
    tail: usize,
    /// The end was told: torn, or not to be known.
    over: bool,
    visit: &'a mut dyn FnMut(Found) -> Result<()>,
}

impl Walk<'_> {
    fn segment(
        &mut self,
        segment: &Segment,
        may_be_torn: bool,
        read: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let length = segment.file.len()?;
        let number = segment.header.segment;
        let from = SEGMENT_HEADER_BYTES as u64;
        // A medium that cannot be read is one that is damaged.
        let used = segment::last_nonzero(&*segment.file, from).unwrap_or(Some(length));
        let end = used.unwrap_or(from).min(length);
        // A file of another length than it was given lost its end.
        let may_be_torn = may_be_torn && length == segment.header.capacity;
        let mut at = from;
        while at < end {
            let due = |header: &GroupHeader| header.group > self.group;
            let Some(header) = sound_header(segment, at).filter(due) else {
                let next = self.next_sound(segment, at + format::GROUP_ALIGN, end);
                let what = "no sound group header";
                match next {
                    Some(next) => self.damage(number, at, next - at, what)?,
                    None if may_be_torn => return self.torn(number, at, what),
                    // What a later segment holds says how many commits this was.
                    None => {
                        self.ended = None;
                        self.damage(number, at, end - at, what)?;
                    }
                }
                read(next.unwrap_or(end) - at);
                at = next.unwrap_or(end);
                continue;
            };
            let next = at + format::align_up(u64::from(header.bytes));
            let parts = self.group(segment, &header, at, length)?;
            let damaged = parts
                .iter()
                .any(|part| !matches!(part, Found::Control { .. } | Found::Commit { .. }));
            if damaged && may_be_torn && header.group == self.group + 1 {
                let behind = self.next_sound(segment, at + format::GROUP_ALIGN, end);
                if behind.is_none() {
                    return self.torn(number, at, "a group that is not whole");
                }
            }
            self.take(&header, parts)?;
            read(next.min(end) - at);
            at = next;
        }
        read(length.saturating_sub(at));
        Ok(())
    }

    fn damage(&mut self, segment: u64, at: u64, bytes: u64, what: &str) -> Result<()> {
        let damage = Damage { bytes: Some(bytes), ..Damage::of(segment, at, what) };
        (self.visit)(Found::Damage(damage))
    }

    fn torn(&mut self, segment: u64, at: u64, what: &str) -> Result<()> {
        let path = segment::path(segment);
        self.over = true;
        (self.visit)(Found::Torn(format!(
            "{path} offset {at}: {what}; nothing was written behind it, so it was never \
             acknowledged"
        )))
    }

    /// Nobody can tell what lay behind.
    fn open_end(&mut self) -> Result<()> {
        (self.visit)(Found::Missing { first: self.lsn, last: None })
    }

    fn next_sound(&self, segment: &Segment, from: u64, end: u64) -> Option<u64> {
        let places = (from..end).step_by(format::GROUP_ALIGN as usize);
        let newer = |header: GroupHeader| header.group > self.group;
        places.into_iter().find(|at| sound_header(segment, *at).is_some_and(newer))
    }

    /// Hands on the parts of a group, and what is missing before it.
    fn take(&mut self, header: &GroupHeader, parts: Vec<Found>) -> Result<()> {
        self.group = header.group;
        self.ended = match parts.last() {
            Some(Found::Control { kind, .. }) => Some(*kind),
            _ => None,
        };
        if header.first_lsn > self.lsn {
            let last = Some(header.first_lsn - 1);
            (self.visit)(Found::Missing { first: self.lsn, last })?;
        }
        (self.visit)(Found::Checkpoint(header.checkpoint))?;
        let stale = header.first_lsn < self.lsn;
        for part in parts {
            let copied = match &part {
                Found::Commit { commit, .. } => stale && commit.lsn < self.lsn,
                Found::Doubt { lsn, .. } => stale && *lsn < self.lsn,
                _ => false,
            };
            if !copied {
                (self.visit)(part)?;
            }
        }
        self.lsn = self.lsn.max(header.first_lsn.saturating_add(u64::from(header.commits)));
        Ok(())
    }

    /// What a group holds whose header holds.
    fn group(
        &self,
        segment: &Segment,
        header: &GroupHeader,
        offset: u64,
        length: u64,
    ) -> Result<Vec<Found>> {
        let there = u64::from(header.bytes).min(length.saturating_sub(offset)) as usize;
        let bytes = readable(&*segment.file, offset, there);
        let mut parts = Vec::new();
        let place = |at: usize| place_of(segment, self.source.database, header, offset + at as u64);
        let number = segment.header.segment;
        let end_lsn = header.first_lsn.saturating_add(u64::from(header.commits));
        let (mut at, mut lsn) = (GROUP_HEADER_BYTES, header.first_lsn);
        let mut tries = 0;
        while at < header.bytes as usize {
            let here = Place { segment: number, offset: offset + at as u64 };
            let rest = bytes.get(at..).unwrap_or_default();
            let found = record::decode_past_damage(rest, place(at));
            let why = match found {
                Ok((Record::Commit(commit), taken, bad)) if commit.lsn == lsn && lsn < end_lsn => {
                    if !bad.is_empty() {
                        parts.push(Found::Damage(Damage::of(
                            number,
                            here.offset,
                            format!(
                                "{} of {} values of LSN {lsn} do not hold",
                                bad.len(),
                                commit.frames.ops.len()
                            ),
                        )));
                    }
                    parts.push(Found::Commit { commit, bad });
                    (at, lsn) = (at + taken, lsn + 1);
                    continue;
                }
                Ok((Record::Control { kind, body, .. }, taken, _)) => {
                    parts.push(Found::Control { kind, body, place: here, epoch: header.epoch });
                    at += taken;
                    continue;
                }
                Ok(_) => "another LSN than was due".to_owned(),
                Err(error) if error.kind() == ErrorKind::Format => return Err(error),
                Err(error) => error.message().to_owned(),
            };
            let next = next_record(&bytes, at + 1, lsn..end_lsn, &mut tries, &place);
            let stop = next.map_or(header.bytes as usize, |(next, _)| next);
            let due = next.map_or(end_lsn, |(_, lsn)| lsn);
            let damage = Damage::of(number, here.offset, &why);
            parts.push(Found::Damage(Damage { bytes: Some((stop - at) as u64), ..damage }));
            if due > lsn {
                // The first of them begins here; of the others nothing tells where they lie.
                let names = record::names(rest);
                parts.push(Found::Doubt { lsn, place: here, why, names });
            }
            if due > lsn + 1 {
                parts.push(Found::Missing { first: lsn + 1, last: Some(due - 1) });
            }
            (at, lsn) = (stop, due);
        }
        Ok(parts)
    }
}

/// The next place in a damaged group where a record holds, and the LSN that is due there.
fn next_record(
    bytes: &[u8],
    from: usize,
    lsns: std::ops::Range<Lsn>,
    tries: &mut usize,
    place: &dyn Fn(usize) -> RecordPlace,
) -> Option<(usize, Lsn)> {
    for at in from..bytes.len().saturating_sub(RECORD_HEADER_BYTES) {
        let head = bytes[at..at + RECORD_HEADER_BYTES].try_into().ok()?;
        let Some(header) = format::RecordHeader::decode(head) else { continue };
        let Some(kind) = RecordKind::from_byte(header.kind) else { continue };
        let inside = header.body_bytes as usize <= bytes.len() - at - RECORD_HEADER_BYTES;
        let due = match kind {
            RecordKind::Commit => lsns.contains(&header.lsn),
            _ => header.lsn == 0,
        };
        if header.flags != format::MUST_UNDERSTAND || !inside || !due {
            continue;
        }
        *tries += 1;
        if *tries > TRIES_MAX {
            return None;
        }
        match record::decode_past_damage(&bytes[at..], place(at)) {
            Ok((Record::Commit(commit), ..)) => return Some((at, commit.lsn)),
            // It takes no LSN: how many are missing before it is told by what follows.
            Ok((Record::Control { .. }, ..)) => {
                let mut none = *tries;
                let follows = next_record(bytes, at + 1, lsns.clone(), &mut none, place);
                *tries = none;
                return Some((at, follows.map_or(lsns.end, |(_, lsn)| lsn)));
            }
            Err(_) => {}
        }
    }
    None
}
