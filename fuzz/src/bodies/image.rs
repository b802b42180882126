//! Small databases to damage, and edits that damage them.
//!
//! Every image holds each kind of structure, several segments, groups of several commits and two
//! epochs. They are made once, by the engine itself, with its clock and its random numbers pinned.

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
use super::{reseal, take, take_u8, take_u16};

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

const SEGMENT_BYTES: u64 = 8 << 10;
const EDITS_MAX: usize = 24;

/// The files of a database, and what may be read at each LSN.
pub struct Image {
    pub files: Vec<(String, Vec<u8>)>,
    pub dumps: BTreeMap<Lsn, Vec<String>>,
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

/// One cleanly closed, and one whose writer was cut off.
pub fn images() -> &'static [Image; 2] {
    static IMAGES: OnceLock<[Image; 2]> = OnceLock::new();
    IMAGES.get_or_init(|| make().expect("the engine writes to a sound disk"))
}

fn make() -> Result<[Image; 2]> {
    let storage = Arc::new(SimulatedStorage::new(1));
    let mut dumps = BTreeMap::new();
    let open = |schema| {
        let schema = Schema::from_json(schema)?;
        Database::open(storage.clone(), options(Mode::ReadWrite), Some(schema))
    };
    let db = open(SCHEMA)?;
    note(&db, &mut dumps)?;
    for number in 0..10 {
        write(&db, number)?;
        note(&db, &mut dumps)?;
    }
    db.close()?;
    let db = open(LATER)?;
    note(&db, &mut dumps)?;
    for number in 10..20 {
        write(&db, number)?;
        note(&db, &mut dumps)?;
    }
    erase(&db)?;
    note(&db, &mut dumps)?;
    db.flush()?;
    let cut_off = Image { files: files(&storage.clone_durable()), dumps: dumps.clone() };
    db.close()?;
    Ok([Image { files: files(&storage), dumps }, cut_off])
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
}

impl Edited {
    /// The first byte: which image, whether to reseal, whether to write. Then edits.
    pub fn of(mut input: &[u8]) -> Self {
        let mode = take_u8(&mut input);
        let image = &images()[usize::from(mode & 1)];
        let mut files = image.files.clone();
        for _ in 0..EDITS_MAX {
            if input.is_empty() {
                break;
            }
            edit(&mut files, &mut input);
        }
        let resealed = mode & 2 != 0;
        if resealed {
            let segments = files.iter_mut().filter(|(path, _)| path.ends_with(".wal"));
            segments.for_each(|(_, bytes)| reseal::segment(bytes));
        }
        Self { image, files, resealed, writes: mode & 4 != 0 }
    }

    pub fn storage(&self) -> SimulatedStorage {
        let storage = SimulatedStorage::new(0);
        self.files.iter().for_each(|(path, bytes)| storage.write_file(path, bytes));
        storage
    }
}

/// One edit: what to do (low half) in which file (high half), where, and with what.
fn edit(files: &mut Vec<(String, Vec<u8>)>, input: &mut &[u8]) {
    let action = take_u8(input);
    let file = usize::from(action >> 4) % files.len().max(1);
    let Some((_, bytes)) = files.get_mut(file) else { return };
    let at = usize::from(take_u16(input)) % bytes.len().max(1);
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
