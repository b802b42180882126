//! The meter is true: what `stats` says was written, by structure and cause, is what the storage
//! was asked to write, byte for byte, over commits, flushes, merges and checkpoints.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use support::workload::{options, schema};
use waferdb::clock::ManualClock;
use waferdb::database::Database;
use waferdb::storage::simulated::{Operation, OperationKind, SimulatedStorage};
use waferdb::transaction::{Mode, Precondition, TransactionOptions};

/// Bytes of writes to files of one directory.
fn written(history: &[Operation], directory: &str) -> u64 {
    let writes = history.iter().filter(|done| done.kind == OperationKind::Write);
    writes.filter(|done| done.path.starts_with(directory)).map(|done| done.bytes).sum()
}

#[test]
fn every_byte_is_in_one_account() {
    let storage = SimulatedStorage::new(7);
    let clock = Arc::new(ManualClock::new(1_700_000_000_000_000));
    let opened =
        Database::open(Arc::new(storage.clone()), options(clock, 7), Some(schema(false)));
    let db = opened.unwrap();
    // What creating a database writes before it is metered by anybody: nothing.
    for number in 0..400_u32 {
        let mut tx = db.begin(Mode::Transaction, TransactionOptions::default()).unwrap();
        let key = format!("key {}", number % 90);
        let row = [&[0xC4, 60][..], &[number as u8; 60]].concat();
        tx.put(2, key.as_bytes(), &row, Precondition::default()).unwrap();
        tx.append(4, "seen", Some(&[0xC0]), Some(key.as_bytes())).unwrap();
        tx.context_set(8, "scope", &key, &[0xC3]).unwrap();
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
