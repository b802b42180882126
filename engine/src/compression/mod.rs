//! Lossless compression of values: one by one, with a dictionary trained from the database's own.
//!
//! `contexts` compresses and decompresses with one dictionary; `dictionaries` knows every
//! dictionary of the log, for readers; `sampler` keeps what the next one is trained from; here is
//! what a writer does with them. docs/format.md, "Compressed values", is the authority for bytes.
//! Invariants:
//! 1. What a value decompresses to is what was put in; a value is stored as it is unless the
//!    compressed form is smaller.
//! 2. A dictionary is durable in the log before the first value that needs it is sequenced.
//! 3. Training holds no lock that a commit takes for longer than a memory copy.

mod contexts;
mod dictionaries;
mod sampler;

use std::sync::Arc;

use serde::Serialize;

use crate::error::Result;
use crate::limits;
use crate::log::packed;
use crate::log::record::{Codec, Frames, Op, ValueAt};
use crate::options::Zstd;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock};
pub use contexts::Contexts;
pub use dictionaries::Dictionaries;
use sampler::{Sampler, Verdict};

/// What compression has done since the database was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Values that were long enough to be tried, each once a commit.
    pub values: u64,
    pub bytes_in: u64,
    /// As stored, compressed or not.
    pub bytes_out: u64,
    /// In the log, whoever wrote them.
    pub dictionaries: u64,
}

/// The dictionary that values are compressed with from now on.
#[derive(Clone)]
struct Current {
    id: u64,
    contexts: Arc<Contexts>,
}

/// Compresses what a writer commits.
pub struct Packer {
    options: Zstd,
    current: RwLock<Current>,
    sampler: Mutex<Sampler>,
    values: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Packer {
    /// Goes on with the newest dictionary that can be read.
    pub fn new(options: Zstd, dictionaries: &Dictionaries, seed: u64) -> Self {
        let known = dictionaries.newest();
        let trained = known.is_some();
        let (id, contexts) =
            known.unwrap_or_else(|| (0, Arc::new(Contexts::new(Vec::new(), options.level))));
        Self {
            sampler: Mutex::new(Sampler::new(&options, seed, trained)),
            options,
            current: RwLock::new(Current { id, contexts }),
            values: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }

    /// The operations with their values as they are stored; none if nothing is to be compressed.
    pub fn pack(&self, frames: &Frames) -> Option<Frames> {
        let offered = || frames.ops.iter().filter_map(|op| candidate(frames, op));
        offered().next()?;
        self.sampler.lock().offer(offered());
        let Current { id, contexts } = self.current.read().clone();
        let (mut values, mut bytes_in, mut bytes_out) = (0, 0, 0);
        let packed = contexts.with_compressor(|compressor| {
            frames.packed(|codec, plain, out| {
                if !is_candidate(codec, plain.len()) {
                    return false;
                }
                let smaller = compressor.pack(id, plain, out);
                values += 1;
                bytes_in += plain.len() as u64;
                bytes_out += if smaller { out.len() as u64 } else { plain.len() as u64 };
                smaller
            })
        })?;
        self.values.fetch_add(values, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
        self.sampler.lock().measured(id, bytes_in, bytes_out);
        Some(packed)
    }

    /// A dictionary, if one is due and worth its bytes. Takes up to a second; one caller at a time.
    pub fn train(&self) -> Option<Vec<u8>> {
        let samples = self.sampler.lock().take_if_due()?;
        let current = self.current.read().contexts.clone();
        let trained = sampler::train(&samples, &self.options, &current);
        let verdict = if trained.is_some() { Verdict::Trained } else { Verdict::NotWorthIt };
        self.sampler.lock().judged(verdict);
        trained
    }

    /// The body of a dictionary's record.
    pub fn record(id: u64, dictionary: &[u8]) -> Option<Vec<u8>> {
        let plain = Contexts::new(Vec::new(), DICTIONARY_LEVEL);
        let mut packed = Vec::with_capacity(dictionary.len());
        let done = plain.with_compressor(|one| one.pack(0, dictionary, &mut packed))?;
        done.then(|| packed::dictionary_body(id, &packed))
    }

    /// Compresses with the newest dictionary from now on, as it is read from its durable record.
    pub fn adopt(&self, dictionaries: &Dictionaries) {
        if let Some((id, contexts)) = dictionaries.newest() {
            *self.current.write() = Current { id, contexts };
            self.sampler.lock().adopted(id);
        }
    }

    pub fn figures(&self) -> Figures {
        Figures {
            values: self.values.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            dictionaries: 0,
        }
    }
}

/// A dictionary is compressed once, and read at every opening.
const DICTIONARY_LEVEL: i32 = 19;

fn is_candidate(codec: Codec, length: usize) -> bool {
    codec != Codec::Float32 && length >= limits::COMPRESSED_BYTES_MIN
}

/// The value of an operation that stores one worth compressing.
fn candidate<'a>(frames: &'a Frames, op: &Op) -> Option<&'a [u8]> {
    match &op.value {
        ValueAt::Stored { bytes, .. } if is_candidate(op.codec, bytes.len()) => {
            Some(&frames.bytes[bytes.clone()])
        }
        _ => None,
    }
}

/// Makes a commit's values that were read compressed be there as they were given.
pub fn unpack(frames: &mut Frames, dictionaries: &Dictionaries) -> Result<()> {
    frames.unpack(|packed, into| dictionaries.decompress(packed, into))
}

#[cfg(test)]
mod tests;
