//! Golden bytes: one whole small log, so that no change of the format goes unnoticed.
//!
//! Clock and randomness are fixed, so the same program writes the same bytes for ever. Where this
//! test fails, either a bug changed what is written, or the format was changed on purpose: then
//! docs/format.md, the format version and a new fixture directory (tests/fixtures) come first, and
//! databases of the old format must still open.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use waferdb::clock::{ManualClock, SeededRandom};
use waferdb::database::Database;
use waferdb::options::Options;
use waferdb::schema::Schema;
use waferdb::storage::memory::MemoryStorage;
use waferdb::storage::{Open, Storage, read_exact_at};
use waferdb::transaction::{Mode, Precondition, TransactionOptions};

const SCHEMA: &str = r#"{"structures":[
  {"name":"facts","kind":"rows","codec":"msgpack","indexes":[["user"]]},
  {"name":"embeddings","kind":"vectors","dim":8,"metric":"cosine","rows":"facts"},
  {"name":"session","kind":"cache","ttl":60000000},
  {"name":"events","kind":"events","capture":["facts"]},
  {"name":"audit","kind":"audit"},
  {"name":"context","kind":"context"},
  {"name":"entities","kind":"graph"}]}"#;

const FACTS: u32 = 1;
const EMBEDDINGS: u32 = 2;
const SESSION: u32 = 3;
const EVENTS: u32 = 4;
const CONTEXT: u32 = 6;
const ENTITIES: u32 = 7;

/// {"user": "ann", "text": "prefers email over Slack"} in msgpack.
const ROW: &[u8] = b"\x82\xa4user\xa3ann\xa4text\xb8prefers email over Slack";

fn write(storage: &Arc<MemoryStorage>) {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000_000));
    let options = Options {
        background: false,
        clock: clock.clone(),
        random: Arc::new(SeededRandom::new(1)),
        segment_bytes_min: 64 << 10,
        ..Options::default()
    };
    let schema = Schema::from_json(SCHEMA).unwrap();
    let db = Database::open(storage.clone(), options, Some(schema)).unwrap();
    clock.advance(Duration::from_millis(5));
    // Every form of a value: none, inline, stored, back-reference; every note.
    let mut tx = db
        .begin(
            Mode::Transaction,
            TransactionOptions {
                txn: Some("import-1".to_owned()),
                actor: Some("planner".to_owned()),
                reason: Some("user said so".to_owned()),
                ..TransactionOptions::default()
            },
        )
        .unwrap();
    tx.put(FACTS, b"k", ROW, Precondition::default()).unwrap();
    tx.put_vector(EMBEDDINGS, "k", &[1.0, 0.0, -0.5, 0.25, 0.0, 0.0, 0.0, 2.0]).unwrap();
    tx.cache_put(SESSION, "k", ROW, None).unwrap();
    tx.append(EVENTS, "remembered", Some(b"\x01"), Some(b"k")).unwrap();
    tx.context_set(CONTEXT, "ann", "tone", ROW).unwrap();
    tx.link(ENTITIES, "ann", "prefers", "email", None).unwrap();
    tx.commit().unwrap();
    clock.advance(Duration::from_secs(2));
    while db.step().unwrap() {}
    let mut tx = db.begin(Mode::Transaction, TransactionOptions::default()).unwrap();
    tx.delete(FACTS, b"k").unwrap();
    tx.context_delete(CONTEXT, "ann", None).unwrap();
    tx.forget(FACTS, &[b"k"]).unwrap();
    tx.commit().unwrap();
    db.close().unwrap();
}

/// Readable in a diff, and enough to notice any changed byte.
fn hash(bytes: &[u8]) -> String {
    format!("{:016x}", waferdb::log::format::content_hash(bytes))
}

fn bytes_of(storage: &MemoryStorage, path: &str) -> Vec<u8> {
    let file = storage.open(path, Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert!(read_exact_at(&*file, &mut bytes, 0).unwrap());
    bytes
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let mut word = [0; 8];
    word[..length].copy_from_slice(&bytes[at..at + length]);
    u64::from_le_bytes(word)
}

/// Offset, bytes, number, first LSN and durable LSN of a group, and its records' offsets and kinds.
type Group = (usize, usize, u64, u64, u64, Vec<(usize, u8)>);

/// As docs/format.md says it, and not as the engine reads it.
fn groups(log: &[u8]) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut offset = 512;
    while offset < log.len() && log[offset..offset + 4] == *b"WGRP" {
        let bytes = number(log, offset + 40, 4) as usize;
        let mut records = Vec::new();
        let mut at = offset + 80;
        while at < offset + bytes {
            records.push((at, log[at + 4]));
            at += 32 + number(log, at, 4) as usize;
        }
        let (group, first, durable) =
            (number(log, offset + 16, 8), number(log, offset + 24, 8), number(log, offset + 48, 8));
        groups.push((offset, bytes, group, first, durable, records));
        offset = (offset + bytes).next_multiple_of(512);
    }
    assert_eq!(offset, log.len(), "groups fill the file");
    groups
}

#[test]
fn one_whole_log_has_these_bytes() {
    let storage = Arc::new(MemoryStorage::new());
    write(&storage);
    assert_eq!(storage.list("log").unwrap(), ["00000001.wal"]);
    let log = bytes_of(&storage, "log/00000001.wal");
    let expected = [
        (512, 943, 1, 1, 0, vec![(592, 16)]),
        (1536, 369, 2, 1, 0, vec![(1616, 1)]),
        (2048, 112, 3, 2, 1, vec![(2128, 18)]),
        (2560, 162, 4, 2, 1, vec![(2640, 1)]),
        (3072, 112, 5, 3, 2, vec![(3152, 19)]),
    ];
    assert_eq!(groups(&log), expected);
    assert_eq!((log.len(), &*hash(&log)), (3584, "2bca623376e8b793"));
    let marker = bytes_of(&storage, "DATABASE");
    assert_eq!((marker.len(), &*hash(&marker)), (32, "e64d7c0ce4e9281a"));
}

#[test]
fn the_same_program_writes_the_same_bytes() {
    let logs = [(); 2].map(|()| {
        let storage = Arc::new(MemoryStorage::new());
        write(&storage);
        bytes_of(&storage, "log/00000001.wal")
    });
    assert!(logs[0] == logs[1]);
}
