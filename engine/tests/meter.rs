//! The meter is true: what `stats` says was written, by structure and cause, is what the storage
//! was asked to write, byte for byte, over commits, flushes, merges and checkpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use waferdb::clock::{ManualClock, SeededRandom};
use waferdb::database::Database;
use waferdb::options::Options;
use waferdb::schema::Schema;
use waferdb::storage::simulated::{Operation, OperationKind, SimulatedStorage};
use waferdb::transaction::{Mode, Precondition, TransactionOptions};

const SCHEMA: &str = r#"{"structures":[{"name":"blobs","kind":"rows","codec":"raw"},
{"name":"events","kind":"events"},{"name":"audit","kind":"audit"},
{"name":"context","kind":"context"}]}"#;

/// Bytes of writes to files of one directory.
fn written(history: &[Operation], directory: &str) -> u64 {
    let writes = history.iter().filter(|done| done.kind == OperationKind::Write);
    writes.filter(|done| done.path.starts_with(directory)).map(|done| done.bytes).sum()
}

#[test]
fn every_byte_is_in_one_account() {
    let storage = SimulatedStorage::new(7);
    let options = Options {
        background: false,
        memtable_bytes: 24 << 10,
        fan_out: 3,
        segment_bytes_min: 16 << 10,
        segment_bytes_max: 32 << 10,
        clock: Arc::new(ManualClock::new(1_700_000_000_000_000)),
        random: Arc::new(SeededRandom::new(7)),
        ..Options::default()
    };
    let declared = Schema::from_json(SCHEMA).unwrap();
    let db = Database::open(Arc::new(storage.clone()), options, Some(declared)).unwrap();
    for number in 0..400_u32 {
        let mut tx = db.begin(Mode::Transaction, TransactionOptions::default()).unwrap();
        let key = format!("key {}", number % 90);
        let row = [&[0xC4, 60][..], &[number as u8; 60]].concat();
        tx.put(1, key.as_bytes(), &row, Precondition::default()).unwrap();
        tx.append(2, "seen", Some(&[0xC0]), Some(key.as_bytes())).unwrap();
        tx.context_set(4, "scope", &key, &[0xC3]).unwrap();
        tx.commit().unwrap();
        while db.step().unwrap() {}
    }
    db.flush_memtables().unwrap();
    while db.merge_step().unwrap() {}
    let stats = db.stats().unwrap();
    let history = storage.history();
    let mut by_cause: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, cause, bytes) in &stats.by {
        *by_cause.entry(cause).or_default() += bytes;
    }
    let marker = written(&history, "DATABASE");
    assert_eq!(stats.by.iter().map(|by| by.2).sum::<u64>(), stats.physical_bytes);
    assert_eq!(written(&history, ""), stats.physical_bytes);
    assert_eq!(written(&history, "runs/"), by_cause["flush"] + by_cause["merge"]);
    assert_eq!(
        written(&history, "log/") + marker,
        by_cause["log"] + by_cause["checkpoint"],
        "{by_cause:?}"
    );
    assert!(by_cause["merge"] > 0 && by_cause["flush"] > 0 && by_cause["checkpoint"] > 0);
    for structure in ["blobs", "events", "context"] {
        for cause in ["log", "flush"] {
            let known = stats.by.iter().any(|by| by.0 == structure && by.1 == cause && by.2 > 0);
            assert!(known, "{structure}, {cause}: {:?}", stats.by);
        }
    }
}
