//! Small databases to damage, and edits that damage them.
//!
//! Every image holds each kind of structure, several segments, groups of several commits and two
//! epochs; one has runs, graphs and views besides. They are made once, by the engine itself, with
//! its clock and its random numbers pinned.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use waferdb::clock::{ManualClock, SeededRandom};
use waferdb::database::Database;
use waferdb::error::Result;
use waferdb::log::Lsn;
use waferdb::options::{Durability, Mode, Options};
use waferdb::schema::Schema;
use waferdb::storage::simulated::SimulatedStorage;
use waferdb::transaction::{self, Precondition, TransactionOptions};

use super::database::dump;
use super::reseal::{self, Sums};
use super::{take, take_u8, take_u16};

const SCHEMA: &str = r#"{"structures":[
  {"name":"facts","kind":"rows","codec":"msgpack","indexes":[["user"]],"unique":[["email"]]},
  {"name":"blobs","kind":"rows","codec":"raw"},
  {"name":"embeddings","kind":"vectors","dim":4,"metric":"cosine","rows":"facts"},
  {"name":"session","kind":"cache","ttl":600000000000,"source":"facts"},
  {"name":"events","kind":"events","capture":["facts"]},
  {"name":"audit","kind":"audit"},
  {"name":"context","kind":"context"},
  {"name":"entities","kind":"graph"}]}"#;
/// Declared by the second writer.
const LATER: &str = r#"{"structures":[{"name":"later","kind":"context"}]}"#;
const LATER_WITH_VIEWS: &str = r#"{"structures":[
  {"name":"facts","kind":"rows","codec":"msgpack","indexes":[["user"]],"unique":[["email"]]},
  {"name":"later","kind":"context"},
  {"name":"tally","kind":"view","source":"facts","by":["user"],"function":{"name":"count"}},
  {"name":"latest","kind":"view","source":"facts","by":["user"],
   "function":{"name":"latest","n":2}},
  {"name":"tallies","kind":"view","source":"tally","by":["user"],"function":{"name":"count"}}]}"#;
/// So few vectors are sealed that the image has graphs.
const SEAL_VECTORS: usize = 4;

const SEGMENT_BYTES: u64 = 8 << 10;
const EDITS_MAX: usize = 24;

/// The files of a database, and what may be read at each LSN.
pub struct Image {
    pub files: Vec<(String, Vec<u8>)>,
    pub dumps: BTreeMap<Lsn, Vec<String>>,
    derived: Vec<Derived>,
}

/// A run or a graph of a sound image: how it is sealed, and the sum that checkpoints have of it.
struct Derived {
    path: String,
    bytes: usize,
    sum: u64,
    sealed: Sealed,
}

enum Sealed {
    Run(Sums),
    Graph { database: [u8; 16], structure: u32, uid: u64 },
}

impl Derived {
    fn of(path: &str, bytes: &[u8], database: [u8; 16], vectors: u32) -> Option<Self> {
        let (directory, name) = path.split_once('/')?;
        let uid = name.split_once('.')?.0.parse().ok()?;
        let (sum, sealed) = match directory {
            "runs" => {
                let footer = &bytes[bytes.len() - 512..];
                let structure = reseal::u64_at(footer, 112) >> 32;
                let sums = Sums::of(bytes, &database, structure as u32, uid);
                (reseal::u64_at(footer, 64), Sealed::Run(sums))
            }
            "graphs" => {
                let sum = reseal::graph_hash(bytes, &database, vectors, uid);
                (sum, Sealed::Graph { database, structure: vectors, uid })
            }
            _ => return None,
        };
        Some(Self { path: path.to_owned(), bytes: bytes.len(), sum, sealed })
    }

    /// Its new sum, where it is as long as it was.
    fn reseal(&self, bytes: &mut [u8]) -> Option<u64> {
        let as_long = bytes.len() == self.bytes;
        as_long.then(|| match self.sealed {
            Sealed::Run(ref sums) => sums.reseal(bytes),
            Sealed::Graph { database, structure, uid } => {
                reseal::graph_hash(bytes, &database, structure, uid)
            }
        })
    }
}

pub fn options(mode: Mode) -> Options {
    Options {
        mode,
        background: false,
        memory_bytes: 1 << 20,
        clock: Arc::new(ManualClock::new(1_700_000_000_000_000)),
        random: Arc::new(SeededRandom::new(1)),
        segment_bytes_min: SEGMENT_BYTES,
        segment_bytes_max: SEGMENT_BYTES,
        ..Options::default()
    }
}

/// One cleanly closed, one whose writer was cut off, and one with runs, graphs and views.
pub fn images() -> &'static [Image; 3] {
    static IMAGES: OnceLock<[Image; 3]> = OnceLock::new();
    IMAGES.get_or_init(|| make().expect("the engine writes to a sound disk"))
}

fn make() -> Result<[Image; 3]> {
    let (closed, cut_off) = of_log(LATER, false)?;
    let (with_runs, _) = of_log(LATER_WITH_VIEWS, true)?;
    Ok([closed, cut_off, with_runs])
}

/// Closed, and cut off before.
fn of_log(later: &str, with_runs: bool) -> Result<(Image, Image)> {
    let storage = Arc::new(SimulatedStorage::new(1));
    let mut dumps = BTreeMap::new();
    let open = |schema| {
        let schema = Schema::from_json(schema)?;
        let seal_vectors = with_runs.then_some(SEAL_VECTORS);
        let options = Options { seal_vectors, ..options(Mode::ReadWrite) };
        Database::open(storage.clone(), options, Some(schema))
    };
    let db = open(SCHEMA)?;
    note(&db, &mut dumps)?;
    for number in 0..10 {
        write(&db, number)?;
        note(&db, &mut dumps)?;
        if with_runs && number == 4 {
            derive(&db)?;
        }
    }
    db.close()?;
    let db = open(later)?;
    note(&db, &mut dumps)?;
    for number in 10..20 {
        write(&db, number)?;
        note(&db, &mut dumps)?;
        if with_runs && number == 17 {
            derive(&db)?;
        }
    }
    erase(&db)?;
    note(&db, &mut dumps)?;
    db.flush()?;
    let cut_off = image(&storage.clone_durable(), dumps.clone());
    db.close()?;
    Ok((image(&storage, dumps), cut_off))
}

fn image(storage: &SimulatedStorage, dumps: BTreeMap<Lsn, Vec<String>>) -> Image {
    let files = files(storage);
    let marker = files.iter().find(|(path, _)| path == "DATABASE").expect("it was created");
    let database = marker.1[8..24].try_into().expect("sixteen bytes");
    let derived = |(path, bytes): &(String, Vec<u8>)| Derived::of(path, bytes, database, VECTORS);
    Image { derived: files.iter().filter_map(derived).collect(), files, dumps }
}

/// Number of `embeddings`, the third of the schema.
const VECTORS: u32 = 3;

/// Runs and graphs of what there is.
fn derive(db: &Database) -> Result<()> {
    while db.drain_vectors(None, db.lsn()?)? {}
    db.flush_memtables().map(drop)
}

fn files(storage: &SimulatedStorage) -> Vec<(String, Vec<u8>)> {
    let paths = storage.paths().into_iter().filter(|path| path != "LOCK");
    paths.map(|path| (path.clone(), storage.read_file(&path).expect("listed"))).collect()
}

fn note(db: &Database, dumps: &mut BTreeMap<Lsn, Vec<String>>) -> Result<()> {
    dumps.entry(db.lsn()?).or_default().push(dump(db)?);
    Ok(())
}

/// A map of text to text, in msgpack.
pub fn document(fields: &[(&str, &str)]) -> Vec<u8> {
    let map = fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, &rmpv::Value::Map(map)).expect("memory takes all");
    out
}

/// Every third commit waits in the buffer, so that groups of several come about.
fn begin(db: &Database, number: u64) -> Result<transaction::Transaction> {
    let durability = if number.is_multiple_of(3) { Durability::Sync } else { Durability::Async };
    let named = number.is_multiple_of(2);
    let options = TransactionOptions {
        durability: Some(durability),
        actor: named.then(|| "ann".to_owned()),
        reason: named.then(|| "to be remembered".to_owned()),
        txn: named.then(|| format!("given-{number}")),
        ..TransactionOptions::default()
    };
    db.begin(transaction::Mode::Transaction, options)
}

fn write(db: &Database, number: u64) -> Result<()> {
    let id = |name: &str| db.schema().named(name).map_or(0, |structure| structure.id);
    let (key, user) = (format!("k{}", number % 8), ["ann", "bob"][number as usize % 2]);
    let text = "long enough to be stored behind a checksum of its own";
    let row = document(&[("user", user), ("email", &key), ("text", text)]);
    let mut tx = begin(db, number)?;
    tx.put(id("facts"), key.as_bytes(), &row, Precondition::default())?;
    tx.put(id("blobs"), &number.to_be_bytes(), b"short", Precondition::default())?;
    tx.put_vector(id("embeddings"), &key, &[1.0, number as f32, 0.5, 0.25])?;
    tx.cache_put(id("session"), &key, &row, None)?;
    tx.append(id("events"), "seen", Some(&row), Some(key.as_bytes()))?;
    tx.append(id("events"), "ping", None, None)?;
    tx.context_set(id("context"), user, &key, &row)?;
    tx.link(id("entities"), user, "knows", &key, number.is_multiple_of(2).then_some(&row[..]))?;
    if number >= 10 {
        tx.context_set(id("later"), "scope", &key, &[1])?;
    }
    tx.commit().map(drop)
}

fn erase(db: &Database) -> Result<()> {
    let id = |name: &str| db.schema().named(name).map_or(0, |structure| structure.id);
    let mut tx = begin(db, 1)?;
    tx.delete(id("facts"), b"k1")?;
    tx.context_delete(id("context"), "bob", None)?;
    tx.unlink(id("entities"), "ann", "knows", "k2")?;
    tx.forget(id("facts"), &[b"k3"])?;
    tx.commit().map(drop)
}

/// An image with the edits of an input applied.
pub struct Edited {
    pub image: &'static Image,
    pub files: Vec<(String, Vec<u8>)>,
    /// Checksums were made to hold again, so what it says need not be what was written.
    pub resealed: bool,
    pub writes: bool,
    /// After writing, flush and merge.
    pub upkeep: bool,
}

impl Image {
    /// Every checksum; where a run or a graph has another than checkpoints say, those follow.
    fn reseal(&self, files: &mut [(String, Vec<u8>)]) {
        let mut changed = Vec::new();
        for derived in &self.derived {
            let file = files.iter_mut().find(|(path, _)| *path == derived.path);
            let sum = file.and_then(|(_, bytes)| derived.reseal(bytes));
            let sum = sum.filter(|sum| *sum != derived.sum);
            changed.extend(sum.map(|sum| (derived.sum.to_le_bytes(), sum.to_le_bytes())));
        }
        for (path, bytes) in files {
            if path == "DATABASE" {
                reseal::marker(bytes);
            }
            if !path.ends_with(".wal") {
                continue;
            }
            for (old, new) in &changed {
                for at in 0..bytes.len().saturating_sub(7) {
                    if bytes[at..at + 8] == *old {
                        bytes[at..at + 8].copy_from_slice(new);
                    }
                }
            }
            reseal::segment(bytes);
        }
    }
}

impl Edited {
    /// The first byte: which image (1: cut off, 8: with runs), whether to reseal (2), whether to
    /// write (4) and then also to flush and merge (16). Then edits.
    pub fn of(mut input: &[u8]) -> Self {
        let mode = take_u8(&mut input);
        let image = &images()[if mode & 8 == 0 { usize::from(mode & 1) } else { 2 }];
        let mut files = image.files.clone();
        for _ in 0..EDITS_MAX {
            if input.is_empty() {
                break;
            }
            edit(&mut files, &mut input);
        }
        let resealed = mode & 2 != 0;
        if resealed {
            image.reseal(&mut files);
        }
        Self { image, files, resealed, writes: mode & 4 != 0, upkeep: mode & 16 != 0 }
    }

    pub fn storage(&self) -> SimulatedStorage {
        let storage = SimulatedStorage::new(0);
        self.files.iter().for_each(|(path, bytes)| storage.write_file(path, bytes));
        storage
    }
}

/// One edit: what to do (low half) in which file (high half, and the high bit of the place as 16),
/// where, and with what.
fn edit(files: &mut Vec<(String, Vec<u8>)>, input: &mut &[u8]) {
    let action = take_u8(input);
    let place = usize::from(take_u16(input));
    let file = (usize::from(action >> 4) | place >> 15 << 4) % files.len().max(1);
    let Some((_, bytes)) = files.get_mut(file) else { return };
    let at = (place & 0x7FFF) % bytes.len().max(1);
    match action & 15 {
        0..=3 => {
            let mask = take_u8(input);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= mask;
            }
        }
        4 | 5 => overwrite(bytes, at, take(input, 1)),
        6 => overwrite(bytes, at, take(input, 4)),
        7 => overwrite(bytes, at, take(input, 8)),
        8 => {
            let length = usize::from(take_u8(input));
            overwrite(bytes, at, take(input, length));
        }
        9 => overwrite(bytes, at / 512 * 512, &[0; 512]),
        10 | 11 => {
            // A sector, or a few bytes, from elsewhere in the same file.
            let from = usize::from(take_u16(input)) % bytes.len().max(1);
            let (at, from, length) = if action & 1 == 0 {
                (at / 512 * 512, from / 512 * 512, 512)
            } else {
                (at, from, 24)
            };
            let copy: Vec<u8> = bytes[from..].iter().take(length).copied().collect();
            overwrite(bytes, at, &copy);
        }
        12 => bytes.truncate(at),
        13 => bytes.extend(std::iter::repeat_n(0, at)),
        14 => {
            files.remove(file);
        }
        _ => {
            let other = usize::from(take_u8(input)) % files.len();
            if let Ok([one, other]) = files.get_disjoint_mut([file, other]) {
                std::mem::swap(&mut one.1, &mut other.1);
            }
        }
    }
}

/// Bytes behind the end are left out.
fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes.iter_mut().skip(at).zip(with).for_each(|(byte, new)| *byte = *new);
}
