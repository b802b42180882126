//! What goes into the pipeline and what comes out of its sequencing.

use std::sync::OnceLock;

use super::conflicts::{ConflictKey, Conflicts};
use crate::clock::Micros;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::log::Lsn;
use crate::log::record::{Commit, CommitHead, EncodedHead, Frames, RecordPlace};

/// One key that must not have been written above `since`.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    pub key: ConflictKey,
    pub since: Lsn,
    /// A conflict for the caller; else the caller looks again and retries.
    pub hard: bool,
}

/// A transaction, encoded and checked against its snapshot.
pub struct Prepared {
    pub head: CommitHead,
    pub frames: Frames,
    pub writes: Vec<ConflictKey>,
    pub structures: Vec<u32>,
    pub checks: Vec<Check>,
    /// Structures read by range in a serializable transaction, and its snapshot.
    pub range_checks: Vec<(u32, Lsn)>,
    /// The LSN its checks rely on.
    pub snapshot: Lsn,
    /// A snapshot too old to check is a conflict for the caller; else the caller looks again.
    pub hard: bool,
    pub sync: bool,
}

/// A group of a view: the view, and the group's key.
pub type Touched = (u32, Box<[u8]>);

/// A commit with its place in the log, on its way to the structures.
pub struct Sequenced {
    pub commit: Commit,
    /// The audit leaf's hash, once it is applied.
    pub leaf: OnceLock<[u8; 32]>,
    /// What it made stale, once it is applied.
    pub touched: OnceLock<Vec<Touched>>,
    pub sync: bool,
}

pub(super) fn sequenced_commit(
    prepared: &Prepared,
    frames: Frames,
    lsn: Lsn,
    time: Micros,
    place: RecordPlace,
    head: &EncodedHead,
    bytes: usize,
) -> Commit {
    let header = crate::log::format::RECORD_HEADER_BYTES;
    Commit {
        lsn,
        time,
        head: prepared.head.clone(),
        frames,
        segment: place.segment,
        frames_offset: place.offset + (header + head.bytes.len()) as u64,
        record_offset: place.offset,
        record_bytes: bytes as u32,
    }
}

/// `Ok(Some(lsn))`: a soft check lost to that LSN.
pub(super) fn check_conflicts(conflicts: &Conflicts, prepared: &Prepared) -> Result<Option<Lsn>> {
    let conflict = |message: String| Err(Error::new(ErrorKind::Conflict, message));
    if prepared.snapshot < conflicts.floor() {
        if !prepared.hard {
            return Ok(Some(conflicts.floor()));
        }
        return conflict(format!(
            "the transaction began at LSN {}, too long ago to check for conflicts (more \
             than {} keys were written since); nothing was written, retry it",
            prepared.snapshot,
            limits::CONFLICT_KEYS_MAX
        ));
    }
    for check in &prepared.checks {
        let newest = conflicts.newest(check.key);
        if newest > check.since {
            if !check.hard {
                return Ok(Some(newest));
            }
            return conflict(format!(
                "a key of this transaction was written by LSN {newest}, after the transaction's \
                 snapshot {}; nothing was written, retry it",
                check.since
            ));
        }
    }
    for (structure, since) in &prepared.range_checks {
        let newest = conflicts.newest_of(*structure);
        if newest > *since {
            return conflict(format!(
                "a structure this serializable transaction scanned was written by LSN {newest}, \
                 after its snapshot {since}; nothing was written, retry it"
            ));
        }
    }
    Ok(None)
}
