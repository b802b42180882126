//! Walks the log up to one LSN, past damage, and reports the damage.
//!
//! 1. Every group up to the target must be sound, in order, without a gap.
//! 2. Behind it a group may be in flight: what looks bad there is looked at again after a flush,
//!    which ends any flight, before it is called damage.
//! 3. Damage does not end the walk: it goes on at the next sound group, so that what is lost can be
//!    named.

use super::{Findings, Run};
use crate::error::{Error, Result};
use crate::log::Lsn;
use crate::log::format::{self, RecordKind, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::log::reader::{Expected, GroupRead, Step, Walker};
use crate::log::record::{Commit, Record};
use crate::log::repair;
use crate::log::segment::{self, Segment};
use crate::options::Mode;
use crate::storage::read_exact_at;

#[derive(Default)]
pub struct Walked {
    pub segments: u64,
    pub groups: u64,
}

enum Ended {
    /// The next segment continues.
    Sealed,
    /// Everything up to the target was seen.
    Reached,
    /// Nothing sound follows in this segment.
    Damaged,
}

/// Hands every commit up to the target to `visit`, in order.
pub fn commits(
    run: &Run<'_>,
    findings: &mut Findings,
    mut visit: impl FnMut(&Commit, &mut Findings) -> Result<()>,
) -> Result<Walked> {
    let mut walked = Walked::default();
    let mut expected = repair::first_expected();
    for segment in &run.segments {
        walked.segments += 1;
        check_header(segment, findings);
        let mut walker = Walker::new(segment, expected);
        let ended = one(run, segment, &mut walker, &mut walked, findings, &mut visit)?;
        expected = walker.expected;
        if matches!(ended, Ended::Reached) {
            return Ok(walked);
        }
    }
    if expected.lsn <= run.target {
        let last = run.segments.last().map_or(1, |segment| segment.header.segment);
        findings.add(
            segment::path(last),
            Some(expected.lsn),
            format!("the log ends before LSN {}, which was durable", run.target),
            lost(expected.lsn, run.target),
        );
    }
    Ok(walked)
}

fn one(
    run: &Run<'_>,
    segment: &Segment,
    walker: &mut Walker<'_>,
    walked: &mut Walked,
    findings: &mut Findings,
    visit: &mut impl FnMut(&Commit, &mut Findings) -> Result<()>,
) -> Result<Ended> {
    loop {
        let what = match walker.step() {
            Ok(Step::Group(group)) => {
                if group.header.commits > 0 && group.header.first_lsn > run.target {
                    return Ok(Ended::Reached);
                }
                walked.groups += 1;
                let sealed = seals(&group);
                for record in group.records {
                    if let Record::Commit(mut commit) = record {
                        match run.shared.store.values.unpack(&mut commit) {
                            Ok(()) => visit(&commit, findings)?,
                            Err(error) => unreadable(segment, commit.lsn, &error, findings),
                        }
                    }
                }
                if sealed {
                    return Ok(Ended::Sealed);
                }
                continue;
            }
            Ok(Step::End) if walker.expected.lsn > run.target => return Ok(Ended::Reached),
            Ok(Step::End) => "zeros or the end of the file where a group was due".to_owned(),
            Ok(Step::Bad(error)) => {
                let beyond = walker.expected.lsn > run.target;
                if beyond && !still_bad(run, segment, walker)? {
                    return Ok(Ended::Reached);
                }
                error.message().to_owned()
            }
            Err(error) => error.message().to_owned(),
        };
        if !resume(segment, walker, findings, what, run.target) {
            return Ok(Ended::Damaged);
        }
    }
}

fn seals(group: &GroupRead) -> bool {
    matches!(group.records.last(), Some(Record::Control { kind: RecordKind::Seal, .. }))
}

/// Whether bytes behind the target are bad although no group is in flight there.
fn still_bad(run: &Run<'_>, segment: &Segment, walker: &Walker<'_>) -> Result<bool> {
    let pipeline = &run.shared.pipeline;
    let writes = run.shared.options.mode == Mode::ReadWrite && pipeline.failure().is_none();
    if !writes || pipeline.flush().is_err() {
        return Ok(false);
    }
    let mut again = Walker::new(segment, walker.expected);
    again.offset = walker.offset;
    Ok(matches!(again.step()?, Step::Bad(_)))
}

/// Reports what is bad at the walker's place and moves it to the next sound group, if any.
fn resume(
    segment: &Segment,
    walker: &mut Walker<'_>,
    findings: &mut Findings,
    what: String,
    target: Lsn,
) -> bool {
    let (start, due) = (walker.offset, walker.expected);
    let place = format!("{} offset {start}", segment::path(segment.header.segment));
    match next_sound(segment, walker) {
        Ok(Some((offset, next))) => {
            findings.add(place, Some(due.lsn), what, lost(due.lsn, next.lsn - 1));
            walker.offset = offset;
            walker.expected = next;
            true
        }
        Ok(None) => {
            findings.add(place, Some(due.lsn), what, lost(due.lsn, target));
            false
        }
        Err(error) => {
            findings.add(place, Some(due.lsn), error.message().to_owned(), lost(due.lsn, target));
            false
        }
    }
}

fn next_sound(
    segment: &Segment,
    walker: &mut Walker<'_>,
) -> Result<Option<(u64, Expected)>, Error> {
    let (start, due) = (walker.offset, walker.expected);
    let length = segment.file.len()?;
    let mut at = start;
    while at < length {
        // At the same place only where another group stands than was due: else it is the bad one.
        if let Some(header) = walker.sound_header_at(at)?
            && header.group >= due.group
            && (at > start || header.group != due.group || header.first_lsn != due.lsn)
        {
            let next = Expected { group: header.group, lsn: header.first_lsn, epoch: header.epoch };
            return Ok(Some((at, next)));
        }
        at += format::GROUP_ALIGN;
    }
    Ok(None)
}

/// Its sums hold, and what it was compressed from cannot be told.
fn unreadable(segment: &Segment, lsn: Lsn, error: &Error, findings: &mut Findings) {
    findings.add(
        segment::path(segment.header.segment),
        Some(lsn),
        error.message().to_owned(),
        "the values of this commit that need it; restore the log from a backup".to_owned(),
    );
}

fn lost(first: Lsn, last: Lsn) -> String {
    if first > last {
        return "no commit, but the end of the log cannot be told: restore the file from a backup"
            .to_owned();
    }
    format!(
        "the commits from LSN {first} to {last}, as far as no later group holds them: restore the \
         file from a backup; until then what is in memory can still be read and copied"
    )
}

/// A segment's header as it stands on the medium today.
fn check_header(segment: &Segment, findings: &mut Findings) {
    let path = segment::path(segment.header.segment);
    let mut bytes = [0u8; SEGMENT_HEADER_BYTES];
    let read = read_exact_at(&*segment.file, &mut bytes, 0).and_then(|whole| match whole {
        true => SegmentHeader::decode(&bytes, &path),
        false => Ok(None),
    });
    let what = match read {
        Ok(Some(header)) if header == segment.header => return,
        Ok(Some(_)) => "the header is that of another segment".to_owned(),
        Ok(None) => "the header does not hold".to_owned(),
        Err(error) => error.message().to_owned(),
    };
    findings.add(
        format!("{path} offset 0"),
        Some(segment.header.first_lsn),
        what,
        "nothing yet, but the database will not open: restore the file from a backup".to_owned(),
    );
}
