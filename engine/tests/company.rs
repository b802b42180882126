//! Callers in company share syncs: all of them, not one half and then the other.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use waferdb::database::Database;
use waferdb::error::Result;
use waferdb::options::Options;
use waferdb::schema::Schema;
use waferdb::storage::memory::MemoryStorage;
use waferdb::storage::{File, Lock, Open, Share, Storage};
use waferdb::transaction::{Mode, Precondition, TransactionOptions};

const CALLERS: usize = 8;
const COMMITS: usize = 20;
/// Long beside what a thread waits for its turn on a busy machine.
const SYNC: Duration = Duration::from_millis(40);
/// What a caller does between two commits, with a lock that all share.
const WORK: Duration = Duration::from_millis(1);

/// Memory whose files take as long to sync as a slow disk's.
struct Slow(MemoryStorage);

struct SlowFile(Arc<dyn File>);

impl Storage for Slow {
    fn create_dir(&self, path: &str) -> Result<()> {
        self.0.create_dir(path)
    }

    fn sync_dir(&self, path: &str) -> Result<()> {
        self.0.sync_dir(path)
    }

    fn list(&self, path: &str) -> Result<Vec<String>> {
        self.0.list(path)
    }

    fn open(&self, path: &str, how: Open) -> Result<Arc<dyn File>> {
        Ok(Arc::new(SlowFile(self.0.open(path, how)?)))
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.0.remove(path)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.0.rename(from, to)
    }

    fn lock(&self, exclusive: bool) -> Result<Box<dyn Lock>> {
        self.0.lock(exclusive)
    }

    fn name(&self) -> String {
        self.0.name()
    }
}

impl File for SlowFile {
    fn len(&self) -> Result<u64> {
        self.0.len()
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize> {
        self.0.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64, shares: &[Share]) -> Result<()> {
        self.0.write_at(bytes, offset, shares)
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.0.allocate(len)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.0.truncate(len)
    }

    fn sync(&self) -> Result<()> {
        sleep(SYNC);
        self.0.sync()
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing else is to happen meanwhile")]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}

#[test]
fn callers_in_company_do_not_take_turns_by_halves() {
    let schema = r#"{"structures":[{"name":"facts","kind":"rows","codec":"raw"}]}"#;
    let storage = Arc::new(Slow(MemoryStorage::new()));
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
    let together = commits as f64 / syncs as f64;
    assert!(together > 0.6 * CALLERS as f64, "{commits} commits by {syncs} syncs");
    db.close().unwrap();
}
