//! What the engine has done since it was opened, in figures.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::compression::Figures;
use crate::latency::Quantiles;
use crate::log::Lsn;
use crate::propagation::{Policy, Reason};

#[derive(Debug, Clone, Serialize)]
pub struct Lag {
    /// Commits that touch the structure and are not reflected yet.
    pub commits: u64,
    /// Seconds.
    pub age: f64,
    /// About what its memtables take: what is not in files yet.
    pub memtable_bytes: u64,
    /// Its runs, each of which a read may have to look into.
    pub runs: u64,
    /// What the merge that is due reads and writes again.
    pub merge_bytes: u64,
    /// Vectors that no graph links, so that a search compares each; about, while they are not in
    /// memory.
    pub unsealed: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct PolicyInForce {
    pub declared: Policy,
    /// How the structure is really applied.
    pub in_force: &'static str,
}

/// What was written lately.
#[derive(Debug, Clone, Serialize)]
pub struct Recent {
    pub seconds: f64,
    /// (structure, cause, bytes).
    pub by: Vec<(String, &'static str, u64)>,
}

/// How the budget of write amplification is held.
#[derive(Debug, Clone, Serialize)]
pub struct Controller {
    pub budget: f64,
    /// The part of their declared bounds that hybrid structures and views use.
    pub scale: f64,
    pub fan_out: usize,
    pub reason: Reason,
    /// What was written over what was handed in, of late.
    pub waf: f64,
}

/// A structure that differed from the log and was made again.
#[derive(Debug, Clone, Serialize)]
pub struct Repaired {
    pub structure: String,
    /// The newest LSN then.
    pub lsn: Lsn,
    /// The first difference that was found.
    pub what: String,
}

/// What was compared with the log at idle.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Watched {
    /// How often all structures were.
    pub rounds: u64,
    /// Up to where, the last time.
    pub lsn: Lsn,
    pub repaired: Vec<Repaired>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Stats {
    pub lsn: Lsn,
    pub durable_lsn: Lsn,
    pub commits: u64,
    pub syncs: u64,
    /// What became of values that were tried to be compressed.
    pub compression: Figures,
    /// Unique payload bytes handed in.
    pub logical_bytes: u64,
    /// Bytes the storage layer was asked to write.
    pub physical_bytes: u64,
    /// (structure, cause, bytes); "log" is the log's own framing.
    pub by: Vec<(String, &'static str, u64)>,
    pub lag: BTreeMap<String, Lag>,
    pub files: Vec<(String, u64)>,
    pub latency: BTreeMap<&'static str, Quantiles>,
    pub oldest_snapshot: Option<Lsn>,
    pub policies: BTreeMap<String, PolicyInForce>,
    /// Bytes in memory, by what they are for.
    pub memory: BTreeMap<&'static str, u64>,
    pub recent: Recent,
    pub watch: Watched,
    /// `None` without a budget.
    pub controller: Option<Controller>,
    /// What recovery dropped at the end of the log, if anything.
    pub torn_tail: Option<String>,
    /// Why the files of the structures were made again from the log when it was opened, if so.
    pub rebuilt: Option<String>,
    /// Files that no checkpoint named, put aside when it was opened.
    pub quarantined: Vec<String>,
}
