//! How a database is opened.

use std::sync::Arc;

use crate::clock::{Clock, Random, SystemClock, SystemRandom};
use crate::error::{Error, Result};
use crate::limits;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A commit returns when it is on the medium.
    Sync,
    /// A commit returns when it is in the log's buffer; durable within 100 ms.
    Async,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    ReadWrite,
    /// Writes nothing at all.
    Read,
}

/// How values are compressed, and when a dictionary for them is trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zstd {
    pub level: i32,
    pub dictionary_bytes: usize,
    /// The first dictionary is trained once so many values, or bytes of them, were committed.
    pub train_values: u64,
    pub train_bytes: u64,
    /// What is kept of them to train it from.
    pub sample_bytes_max: usize,
}

impl Default for Zstd {
    fn default() -> Self {
        Self {
            level: 3,
            dictionary_bytes: 64 << 10,
            train_values: 1_000,
            train_bytes: 256 << 10,
            sample_bytes_max: 1 << 20,
        }
    }
}

/// `None`: values are stored as they are.
pub fn parse_compression(text: Option<&str>) -> Result<Option<Zstd>> {
    match text {
        None => Ok(None),
        Some("zstd") => Ok(Some(Zstd::default())),
        Some(other) => Err(Error::argument(format!("compression {other:?} is not \"zstd\""))),
    }
}

#[derive(Clone)]
pub struct Options {
    pub mode: Mode,
    pub create: bool,
    pub durability: Durability,
    /// One budget, in bytes: of it memtables, cached values and cached blocks take their shares.
    pub memory_bytes: u64,
    /// Memtables of all structures together.
    pub memtable_bytes: u64,
    /// Vectors in the tail of a structure at which they are sealed; `None`: by its size.
    pub seal_vectors: Option<usize>,
    /// Runs of about one size that are merged into one.
    pub fan_out: usize,
    /// How long superseded versions are kept, in microseconds; `None`: for ever.
    pub history_micros: Option<i64>,
    pub waf_budget: Option<f64>,
    /// Whether and how documents and raw values are compressed from now on; what is stored can be
    /// read whatever this says.
    pub compression: Option<Zstd>,
    /// The first segment's size; later ones double up to the greatest.
    pub segment_bytes_min: u64,
    pub segment_bytes_max: u64,
    /// How long a cursor or a pinned snapshot lives.
    pub lease_micros: i64,
    /// Background steps on a thread of their own; tests take the steps one by one instead.
    pub background: bool,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::ReadWrite,
            create: true,
            durability: Durability::Sync,
            memory_bytes: 256 << 20,
            memtable_bytes: 64 << 20,
            seal_vectors: None,
            fan_out: 8,
            history_micros: None,
            waf_budget: None,
            compression: None,
            segment_bytes_min: 1 << 20,
            segment_bytes_max: 64 << 20,
            lease_micros: limits::SNAPSHOT_LEASE_MICROS,
            background: true,
            clock: Arc::new(SystemClock::new()),
            random: Arc::<SystemRandom>::default(),
        }
    }
}

impl Options {
    /// What vectors that are in no graph yet may take in memory before writers wait.
    pub fn tail_bytes(&self) -> u64 {
        (self.memory_bytes / 4).max(1 << 20)
    }
}

/// The memtables' part of a memory budget, where none is named.
pub fn memtable_of(memory_bytes: u64) -> u64 {
    (64 << 20).min(memory_bytes / 4)
}
