//! What a salvage tells: what is whole, what is lost, and where the damage lies.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::log::Lsn;
use crate::log::segment;

/// Losses and places of damage beyond this are counted only.
pub const LISTED_MAX: usize = 10_000;

/// Bytes that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    pub file: String,
    pub offset: u64,
    /// How many, where that is known.
    pub bytes: Option<u64>,
    pub what: String,
}

impl Damage {
    pub fn of(segment: u64, offset: u64, what: impl Into<String>) -> Self {
        Self { file: segment::path(segment), offset, bytes: None, what: what.into() }
    }
}

/// LSNs of which no commit is left: any key may have been changed in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    pub first: Lsn,
    /// `None`: up to the end of the log, however many these were.
    pub last: Option<Lsn>,
}

/// One thing that was not written to the new database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    pub structure: String,
    /// Its parts, as text; bytes that are no text are escaped.
    pub key: Vec<String>,
    pub lsn: Lsn,
    pub file: String,
    pub offset: u64,
    pub why: String,
    /// The newest whole version before it.
    pub older: Option<Lsn>,
    /// Whether that one was written, as asked.
    pub older_written: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub kind: &'static str,
    pub written: u64,
    pub lost: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Commits {
    /// Every byte of them holds.
    pub whole: u64,
    /// A part of them holds, or none.
    pub damaged: u64,
    /// The oldest and the newest of which anything is left; 0: none.
    pub first: Lsn,
    pub last: Lsn,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Nothing is lost.
    pub ok: bool,
    pub source: String,
    pub destination: String,
    pub commits: Commits,
    pub missing: Vec<Gap>,
    /// Damaged commits whose keys cannot be told for sure.
    pub unknown: Vec<Lsn>,
    pub structures: BTreeMap<String, Counts>,
    /// The first `LISTED_MAX`.
    pub lost: Vec<Lost>,
    pub lost_count: u64,
    pub damage: Vec<Damage>,
    pub damage_count: u64,
    /// What a crash left at the end of the log; it was never acknowledged.
    pub torn_tail: Option<String>,
    pub notes: Vec<String>,
    /// The newest LSN of the new database.
    pub lsn: Lsn,
}

impl Report {
    pub fn damaged(&mut self, damage: Damage) {
        self.damage_count += 1;
        if self.damage.len() < LISTED_MAX {
            self.damage.push(damage);
        }
    }

    pub fn lose(&mut self, lost: Lost) {
        self.lost_count += 1;
        if let Some(counts) = self.structures.get_mut(&lost.structure) {
            counts.lost += 1;
        }
        if self.lost.len() < LISTED_MAX {
            self.lost.push(lost);
        }
    }

    pub fn wrote(&mut self, structure: &str) {
        if let Some(counts) = self.structures.get_mut(structure) {
            counts.written += 1;
        }
    }
}
