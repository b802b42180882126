//! Values of sealed segments on a real disk: read through a map, and checked as any other.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use waferdb::clock::{ManualClock, SeededRandom};
use waferdb::database::Database;
use waferdb::error::ErrorKind;
use waferdb::options::{Options, Zstd};
use waferdb::schema::Schema;
use waferdb::storage::disk::DiskStorage;
use waferdb::transaction::{Mode, Precondition, TransactionOptions};

const SCHEMA: &str = r#"{"structures":[{"name":"blobs","kind":"rows","codec":"raw"}]}"#;
const BLOBS: u32 = 1;
const COMMITS: u32 = 120;

struct Directory {
    inside: tempfile::TempDir,
    compression: Option<Zstd>,
}

impl Directory {
    fn new() -> Self {
        Self { inside: tempfile::tempdir().unwrap(), compression: None }
    }

    fn open(&self) -> Database {
        let options = Options {
            background: false,
            segment_bytes_min: 16 << 10,
            segment_bytes_max: 32 << 10,
            compression: self.compression.clone(),
            clock: Arc::new(ManualClock::new(1_700_000_000_000_000)),
            random: Arc::new(SeededRandom::new(5)),
            ..Options::default()
        };
        let declared = Schema::from_json(SCHEMA).unwrap();
        let storage = Arc::new(DiskStorage::new(self.inside.path().join("db")));
        Database::open(storage, options, Some(declared)).unwrap()
    }

    /// A database of several segments; the last is active.
    fn filled(&self) -> Database {
        let db = self.open();
        for number in 0..COMMITS {
            let mut tx = db.begin(Mode::Single, TransactionOptions::default()).unwrap();
            // The second value is a back-reference to the first.
            for twin in ["a", "b"] {
                let (key, value) = (key(number, twin), value(number));
                tx.put(BLOBS, &key, &value, Precondition::default()).unwrap();
            }
            tx.commit().unwrap();
        }
        assert!(self.segments().len() >= 3, "several segments");
        db
    }

    fn segments(&self) -> Vec<PathBuf> {
        let names = fs::read_dir(self.inside.path().join("db/log")).unwrap();
        let mut paths: Vec<PathBuf> = names.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        // One made ahead of need holds nothing yet.
        paths.retain(|path| fs::read(path).unwrap()[512..].iter().any(|byte| *byte != 0));
        paths
    }
}

fn key(number: u32, twin: &str) -> Vec<u8> {
    format!("{twin}{number:04}").into_bytes()
}

fn value(number: u32) -> Vec<u8> {
    let text = format!("the value of number {number} is told again and again; ");
    text.repeat(10).into_bytes()
}

fn is_mapped(path: &Path) -> bool {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| line.ends_with(path.to_str().unwrap()))
}

fn kind(db: &Database, number: u32, twin: &str) -> Option<ErrorKind> {
    match db.reader().get(BLOBS, &key(number, twin)) {
        Ok(found) => {
            assert_eq!(*found.unwrap(), *value(number), "{twin}{number}");
            None
        }
        Err(error) => Some(error.kind()),
    }
}

fn all_right(db: &Database) -> bool {
    let all = (0..COMMITS).flat_map(|number| ["a", "b"].map(|twin| (number, twin)));
    all.map(|(number, twin)| kind(db, number, twin)).all(|error| error.is_none())
}

/// Where a value's bytes begin in the first segment.
fn find(segment: &Path, number: u32) -> u64 {
    let (bytes, wanted) = (fs::read(segment).unwrap(), value(number));
    bytes.windows(wanted.len()).position(|some| some == wanted).unwrap() as u64
}

#[test]
fn sealed_segments_are_mapped_and_the_active_one_is_not() {
    let directory = Directory::new();
    let db = directory.filled();
    let segments = directory.segments();
    let (active, sealed) = segments.split_last().unwrap();
    assert!(!sealed.iter().any(|path| is_mapped(path)), "nothing was read yet");
    assert!(all_right(&db));
    assert!(sealed.iter().all(|path| is_mapped(path)));
    assert!(!is_mapped(active));
    // What is active after opening is the one that was active before.
    db.close().unwrap();
    drop(db);
    assert!(!sealed.iter().any(|path| is_mapped(path)), "the maps went with the database");
    let db = directory.open();
    assert!(all_right(&db));
    assert!(sealed.iter().all(|path| is_mapped(path)) && !is_mapped(active));
}

#[test]
fn compressed_values_are_read_through_maps_too() {
    let directory = Directory { compression: Some(Zstd::default()), ..Directory::new() };
    let db = directory.open();
    for number in 0..COMMITS * 8 {
        let mut tx = db.begin(Mode::Single, TransactionOptions::default()).unwrap();
        let number = number % COMMITS;
        tx.put(BLOBS, &key(number, "a"), &value(number), Precondition::default()).unwrap();
        tx.put(BLOBS, &key(number, "b"), &value(number), Precondition::default()).unwrap();
        tx.commit().unwrap();
    }
    db.close().unwrap();
    drop(db);
    let db = directory.open();
    assert!(all_right(&db) && all_right(&db));
    let past = db.reader_at(u64::from(COMMITS)).unwrap();
    for number in 0..COMMITS {
        assert_eq!(*past.get(BLOBS, &key(number, "b")).unwrap().unwrap(), *value(number));
    }
    assert!(is_mapped(&directory.segments()[0]));
}

#[test]
fn a_damaged_byte_under_a_map_is_corruption_of_its_value_alone() {
    let directory = Directory::new();
    let db = directory.filled();
    assert!(all_right(&db));
    let segment = &directory.segments()[0];
    assert!(is_mapped(segment));
    let at = find(segment, 3);
    OpenOptions::new().write(true).open(segment).unwrap().write_all_at(b"!", at + 7).unwrap();
    for twin in ["a", "b"] {
        assert_eq!(kind(&db, 3, twin), Some(ErrorKind::Corruption), "{twin}");
        assert_eq!(kind(&db, 2, twin), None);
        assert_eq!(kind(&db, 4, twin), None);
    }
}

#[test]
fn a_segment_that_was_cut_before_it_is_mapped_is_corruption() {
    let directory = Directory::new();
    let db = directory.filled();
    let segment = &directory.segments()[0];
    let at = find(segment, 3);
    OpenOptions::new().write(true).open(segment).unwrap().set_len(at + 7).unwrap();
    assert_eq!(kind(&db, 2, "a"), None);
    assert!(is_mapped(segment));
    for number in [3, 4] {
        let error = db.reader().get(BLOBS, &key(number, "a")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.message().contains("it was truncated"), "{error}");
    }
    assert_eq!(kind(&db, COMMITS - 1, "a"), None);
}
