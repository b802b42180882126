//! Checkpoint records: what an opener needs to know before it replays.
//!
//! One holds the schema, the history of epochs, the history floor, the live runs of every
//! structure with the LSN up to which they go, and where in the log the replay begins.
//! docs/format.md, "Checkpoint" is the authority. They take no LSN and are written at every open
//! that writes, at every change of the schema, and whenever runs come or go. Invariants:
//! 1. A file is whole and durable before a checkpoint names it, and removed only after a
//!    checkpoint without it is durable.
//! 2. Every commit behind `replay` is in the log from there on, and every commit before it in the
//!    runs of each structure.

use crate::codec::{Decoder, put_bytes, put_u64, put_varint};
use crate::error::{Error, Result};
use crate::log::Lsn;
use crate::log::format::{Place, SEGMENT_HEADER_BYTES};
use crate::log::packed::DictionaryAt;
use crate::log::reader::{ControlAt, Expected};
use crate::ordered::run::RunInfo;
use crate::schema::Schema;
use crate::vector::file::GraphInfo;

const CHECKPOINT_VERSION: u8 = 3;
/// Of the days when vectors had no graphs.
const CHECKPOINT_VERSION_WITHOUT_GRAPHS: u8 = 2;
/// Of the days when structures were in memory only: no runs, and the replay is of the whole log.
const CHECKPOINT_VERSION_WITHOUT_RUNS: u8 = 1;
const EPOCHS_MAX: usize = 1 << 16;
const RUNS_MAX: usize = 1 << 16;
const GRAPHS_MAX: usize = 1 << 10;
const DICTIONARY_RECORD_BYTES_MAX: usize = 2 * crate::limits::DICTIONARY_BYTES_MAX;

/// One writer's term: the random incarnation tells copies of a directory apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    pub number: u64,
    pub incarnation: u64,
    pub first_lsn: Lsn,
}

/// A place between two groups, and what the next one continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub place: Place,
    pub group: u64,
    pub lsn: Lsn,
    pub epoch: u64,
}

impl Mark {
    /// Before the first group of a database.
    pub fn first() -> Self {
        let place = Place { segment: 1, offset: SEGMENT_HEADER_BYTES as u64 };
        Self { place, group: 1, lsn: 1, epoch: 0 }
    }

    pub fn new((place, expected): (Place, Expected)) -> Self {
        let Expected { group, lsn, epoch } = expected;
        Self { place, group, lsn, epoch }
    }

    pub fn expected(&self) -> Expected {
        Expected { group: self.group, lsn: self.lsn, epoch: self.epoch }
    }
}

/// What is on disk of one structure; of the ledger under its own number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stored {
    pub structure: u32,
    /// Commits up to here are in the runs.
    pub applied: Lsn,
    /// Newest first.
    pub runs: Vec<RunInfo>,
    /// Of vectors: sealed segments, oldest first.
    pub graphs: Vec<GraphInfo>,
    /// About how many vectors are in none of them.
    pub unsealed: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    pub epochs: Vec<Epoch>,
    pub floor: Lsn,
    pub schema: Schema,
    pub replay: Mark,
    /// No file with this number or a greater one was made yet.
    pub next_uid: u64,
    pub stored: Vec<Stored>,
    /// The dictionaries before it in the log, by number.
    pub dictionaries: Vec<DictionaryAt>,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self {
            epochs: Vec::new(),
            floor: 0,
            schema: Schema::default(),
            replay: Mark::first(),
            next_uid: 1,
            stored: Vec::new(),
            dictionaries: Vec::new(),
        }
    }
}

/// Older ones are of no use to fencing, and a database may be opened a million times.
const EPOCHS_KEPT: usize = 64;

impl Checkpoint {
    pub fn begin_epoch(&mut self, epoch: Epoch) {
        self.epochs.push(epoch);
        let excess = self.epochs.len().saturating_sub(EPOCHS_KEPT);
        self.epochs.drain(..excess);
    }

    pub fn of(&self, structure: u32) -> Option<&Stored> {
        self.stored.iter().find(|stored| stored.structure == structure)
    }

    pub fn runs(&self) -> impl Iterator<Item = &RunInfo> {
        self.stored.iter().flat_map(|stored| &stored.runs)
    }

    pub fn graphs(&self) -> impl Iterator<Item = &GraphInfo> {
        self.stored.iter().flat_map(|stored| &stored.graphs)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![CHECKPOINT_VERSION];
        put_varint(&mut out, self.floor);
        put_varint(&mut out, self.epochs.len() as u64);
        for epoch in &self.epochs {
            put_varint(&mut out, epoch.number);
            put_u64(&mut out, epoch.incarnation);
            put_varint(&mut out, epoch.first_lsn);
        }
        put_bytes(&mut out, self.schema.to_json().as_bytes());
        let Mark { place, group, lsn, epoch } = self.replay;
        for number in [place.segment, place.offset, group, lsn, epoch, self.next_uid] {
            put_varint(&mut out, number);
        }
        put_varint(&mut out, self.stored.len() as u64);
        for stored in &self.stored {
            put_varint(&mut out, u64::from(stored.structure));
            put_varint(&mut out, stored.applied);
            put_varint(&mut out, stored.runs.len() as u64);
            stored.runs.iter().for_each(|run| run.encode(&mut out));
            put_varint(&mut out, stored.graphs.len() as u64);
            stored.graphs.iter().for_each(|graph| graph.encode(&mut out));
            put_varint(&mut out, stored.unsealed);
        }
        put_varint(&mut out, self.dictionaries.len() as u64);
        for DictionaryAt { id, record: ControlAt { place, bytes, epoch } } in &self.dictionaries {
            for number in [*id, place.segment, place.offset, u64::from(*bytes), *epoch] {
                put_varint(&mut out, number);
            }
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes);
        let version = decoder.u8()?;
        if !(CHECKPOINT_VERSION_WITHOUT_RUNS..=CHECKPOINT_VERSION).contains(&version) {
            return Err(Error::new(
                crate::error::ErrorKind::Format,
                format!("a checkpoint of version {version}: open it with a newer waferdb"),
            ));
        }
        let floor = decoder.varint()?;
        let count = decoder.count(EPOCHS_MAX)?;
        let mut epochs = Vec::new();
        for _ in 0..count {
            epochs.push(Epoch {
                number: decoder.varint()?,
                incarnation: decoder.u64()?,
                first_lsn: decoder.varint()?,
            });
        }
        let schema = Schema::from_json(decoder.text()?)
            .and_then(|schema| schema.check_ids().map(|()| schema))
            .map_err(|error| Error::corruption(format!("the stored schema: {error}")))?;
        let mut checkpoint = Self { epochs, floor, schema, ..Self::default() };
        if version != CHECKPOINT_VERSION_WITHOUT_RUNS {
            let with_graphs = version != CHECKPOINT_VERSION_WITHOUT_GRAPHS;
            checkpoint.decode_stored(&mut decoder, with_graphs)?;
        }
        if !decoder.is_empty() {
            return Err(Error::corruption("bytes behind a checkpoint"));
        }
        Ok(checkpoint)
    }

    fn decode_stored(&mut self, decoder: &mut Decoder<'_>, with_graphs: bool) -> Result<()> {
        let place = Place { segment: decoder.varint()?, offset: decoder.varint()? };
        let (group, lsn, epoch) = (decoder.varint()?, decoder.varint()?, decoder.varint()?);
        self.replay = Mark { place, group, lsn, epoch };
        self.next_uid = decoder.varint()?;
        for _ in 0..decoder.count(crate::limits::STRUCTURES_MAX + 1)? {
            let structure = u32::try_from(decoder.varint()?)
                .map_err(|_| Error::corruption("a structure's number out of range"))?;
            let applied = decoder.varint()?;
            let mut runs = Vec::new();
            for _ in 0..decoder.count(RUNS_MAX)? {
                runs.push(RunInfo::decode(decoder)?);
            }
            let mut stored = Stored { structure, applied, runs, ..Stored::default() };
            if with_graphs {
                for _ in 0..decoder.count(GRAPHS_MAX)? {
                    stored.graphs.push(GraphInfo::decode(decoder)?);
                }
                stored.unsealed = decoder.varint()?;
            }
            self.stored.push(stored);
        }
        for _ in 0..decoder.count(crate::limits::DICTIONARIES_MAX)? {
            let id = decoder.varint()?;
            if id <= self.dictionaries.last().map_or(0, |last| last.id) {
                return Err(Error::corruption("dictionaries out of order"));
            }
            let place = Place { segment: decoder.varint()?, offset: decoder.varint()? };
            let bytes = decoder.count(DICTIONARY_RECORD_BYTES_MAX)? as u32;
            let record = ControlAt { place, bytes, epoch: decoder.varint()? };
            self.dictionaries.push(DictionaryAt { id, record });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(uid: u64) -> RunInfo {
        let (first_lsn, last_lsn) = (uid * 10, uid * 10 + 9);
        RunInfo { uid, structure: 3, bytes: 4_096, root: 5, first_lsn, last_lsn, entries: 6 }
    }

    fn graph(uid: u64) -> GraphInfo {
        GraphInfo { uid, bytes: 1_024, hash: u64::MAX - uid, rows: 17, last_lsn: 79 }
    }

    fn dictionary(id: u64) -> DictionaryAt {
        let place = Place { segment: 2, offset: 1_000 * id };
        DictionaryAt { id, record: ControlAt { place, bytes: 30_000, epoch: 2 } }
    }

    #[test]
    fn checkpoints_round_trip_and_hostile_counts_are_refused() {
        let checkpoint = Checkpoint {
            epochs: vec![
                Epoch { number: 1, incarnation: 7, first_lsn: 1 },
                Epoch { number: 2, incarnation: u64::MAX, first_lsn: 90 },
            ],
            floor: 12,
            stored: vec![
                Stored { structure: 0, applied: 80, ..Stored::default() },
                Stored {
                    structure: 3,
                    applied: 80,
                    runs: vec![run(7), run(2)],
                    graphs: vec![graph(4), graph(8)],
                    unsealed: 300,
                },
            ],
            next_uid: 9,
            dictionaries: vec![dictionary(1), dictionary(3)],
            ..Checkpoint::default()
        };
        let bytes = checkpoint.encode();
        assert_eq!(Checkpoint::decode(&bytes).unwrap(), checkpoint);
        for cut in 0..bytes.len() {
            assert!(Checkpoint::decode(&bytes[..cut]).is_err());
        }
        assert!(Checkpoint::decode(&[1, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]).is_err());
    }

    #[test]
    fn a_schema_that_uses_an_id_twice_is_refused() {
        let declared = r#"{"structures":[{"name":"a","kind":"context"},
            {"name":"b","kind":"graph"}]}"#;
        let declared = Schema::from_json(declared).unwrap();
        let mut schema = Schema::default().merged(&declared, 0).unwrap();
        let encoded = |schema: &Schema| {
            Checkpoint { schema: schema.clone(), ..Checkpoint::default() }.encode()
        };
        assert!(Checkpoint::decode(&encoded(&schema)).is_ok());
        schema.structures[1].id = 1;
        assert!(Checkpoint::decode(&encoded(&schema)).is_err());
    }
}
