//! Callers in company share syncs: all of them, not one half and then the other.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "support/on_sync.rs"]
mod on_sync;

use std::sync::Arc;
use std::time::Duration;

use on_sync::OnSync;
use parking_lot::Mutex;
use waferdb::database::Database;
use waferdb::options::Options;
use waferdb::schema::Schema;
use waferdb::transaction::{Mode, Precondition, TransactionOptions};

const CALLERS: usize = 8;
const COMMITS: usize = 20;
/// Long beside what a thread waits for its turn on a busy machine.
const SYNC: Duration = Duration::from_millis(40);
/// What a caller does between two commits, with a lock that all share.
const WORK: Duration = Duration::from_millis(1);

#[expect(clippy::disallowed_methods, reason = "nothing else is to happen meanwhile")]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}

/// Commits by a sync, of callers that come as fast as they are answered.
fn together() -> f64 {
    let schema = r#"{"structures":[{"name":"facts","kind":"rows","codec":"raw"}]}"#;
    let storage = Arc::new(OnSync::new(|| sleep(SYNC)));
    let schema = Schema::from_json(schema).unwrap();
    let db = Database::open(storage, Options::default(), Some(schema)).unwrap();
    let opening = db.shared().pipeline.syncs();
    let interpreter = Mutex::new(());
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (db, interpreter) = (&db, &interpreter);
            scope.spawn(move || {
                for count in 0..COMMITS {
                    let running = interpreter.lock();
                    sleep(WORK);
                    let mut tx =
                        db.begin(Mode::Transaction, TransactionOptions::default()).unwrap();
                    let key = format!("{caller}-{count}");
                    tx.put(1, key.as_bytes(), b"value", Precondition::default()).unwrap();
                    drop(running);
                    tx.commit_chained().unwrap();
                }
            });
        }
    });
    let pipeline = &db.shared().pipeline;
    let (commits, syncs) = (pipeline.commits(), pipeline.syncs() - opening);
    assert_eq!(commits, (CALLERS * COMMITS) as u64);
    db.close().unwrap();
    commits as f64 / syncs as f64
}

/// In halves they would be 0.5 of the callers, at best; a busy machine may keep some of them away.
#[test]
fn callers_in_company_do_not_take_turns_by_halves() {
    const ROUNDS: usize = 5;
    let rounds = 0..ROUNDS;
    let enough = 0.6 * CALLERS as f64;
    let best =
        rounds.fold(0.0, |best: f64, _| if best > enough { best } else { best.max(together()) });
    assert!(best > enough, "{best} commits by a sync, of {CALLERS} callers");
}
