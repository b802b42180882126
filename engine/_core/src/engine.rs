//! One open database.
//!
//! Dropping the last reference closes it; what goes wrong then is told as an unraisable error.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use waferdb::audit_log;
use waferdb::clock::ManualClock;
use waferdb::database::{Database, Shared, parse_durability};
use waferdb::error::{Error, ErrorKind, Result};
use waferdb::log::record::Priority;
use waferdb::options::{Mode, Options, memtable_of, parse_compression};
use waferdb::propagation::Policy;
use waferdb::reflection::{Behind, Want};
use waferdb::schema::Schema;
use waferdb::storage::Storage;
use waferdb::storage::disk::DiskStorage;
use waferdb::storage::memory::MemoryStorage;
use waferdb::transaction::{self, Precondition, TransactionOptions};
use waferdb::verify;

use crate::changes::Changes;
use crate::errors::{OrRaise, raised};
use crate::home::Home;
use crate::keys::{Key, Natural, Text, part_object};
use crate::reader::Reader;
use crate::transaction::{Commit, Transaction, commit_of};

/// How often a wait looks for signals (Ctrl-C).
const SIGNALS_EVERY: Duration = Duration::from_millis(100);

type Entry<'py> = (
    u64,
    u64,
    i64,
    Option<String>,
    Option<String>,
    Vec<(String, Bound<'py, PyAny>, &'static str)>,
    Bound<'py, PyBytes>,
);

/// One open database.
#[pyclass(frozen, module = "waferdb._core")]
pub struct Engine(Home<Database>, Option<Arc<ManualClock>>);

impl Engine {
    pub fn database<'a>(&'a self, py: Python<'_>) -> PyResult<&'a Database> {
        self.0.get(py)
    }

    fn shared<'a>(&'a self, py: Python<'_>) -> PyResult<&'a Arc<Shared>> {
        Ok(self.0.get(py)?.shared())
    }

    /// Runs a call with other threads going on.
    fn detached<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&Database) -> Result<T> + Send,
    ) -> PyResult<T> {
        let database = self.0.get(py)?;
        py.detach(|| call(database)).or_raise(py)
    }

    fn reading(
        &self,
        py: Python<'_>,
        make: impl FnOnce(&Database) -> Result<waferdb::reader::Reader> + Send,
    ) -> PyResult<Reader> {
        let shared = Arc::clone(self.shared(py)?);
        Ok(Reader::new(shared, self.detached(py, make)?, Behind::default()))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Without an interpreter there is nobody to tell, and the log is whole without a clean end.
        Python::try_attach(|py| {
            let Ok(database) = self.0.get(py) else { return };
            if let Err(error) = py.detach(|| database.close()) {
                raised(py, &error).write_unraisable(py, None);
            }
        });
    }
}

fn schema_of(schema: Option<&str>, embedder: Option<&str>) -> Result<Option<Schema>> {
    let mut declared = schema.map(Schema::from_json).transpose()?;
    if let Some(embedder) = embedder {
        let identity = serde_json::from_str(embedder).map_err(|error| {
            Error::new(ErrorKind::Schema, format!("the embedder's identity is no JSON: {error}"))
        })?;
        declared.get_or_insert_default().embedder = Some(identity);
    }
    Ok(declared)
}

fn parse_mode(mode: &str) -> Result<Mode> {
    match mode {
        "rw" => Ok(Mode::ReadWrite),
        "r" => Ok(Mode::Read),
        _ => Err(Error::argument(format!("mode {mode:?} is not \"rw\" or \"r\""))),
    }
}

fn parse_transaction_mode(mode: &str) -> Result<transaction::Mode> {
    match mode {
        "transaction" => Ok(transaction::Mode::Transaction),
        "single" => Ok(transaction::Mode::Single),
        "batch" => Ok(transaction::Mode::Batch),
        _ => Err(Error::argument(format!(
            "mode {mode:?} is not one of \"transaction\", \"single\", \"batch\""
        ))),
    }
}

fn owned(text: Option<Text<'_>>) -> Option<String> {
    text.map(|text| text.0.to_owned())
}

/// Calls back into Python while the engine works. The engine cannot be stopped: after the first
/// exception it is called no more, and the exception is raised when the work is done.
pub fn report(
    progress: Option<&Py<PyAny>>,
    failure: &mut Option<PyErr>,
) -> impl FnMut(u64, u64) + Send {
    move |done, total| {
        if let (Some(progress), None) = (progress, &failure) {
            *failure = Python::attach(|py| progress.call1(py, (done, total)).err());
        }
    }
}

#[pymethods]
impl Engine {
    #[staticmethod]
    #[pyo3(signature = (
        path, schema, *, mode, create, durability, memory, memtable, history, waf_budget,
        compression, embedder, clock=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "as the Python layer calls it")]
    fn open(
        py: Python<'_>,
        path: Option<PathBuf>,
        schema: Option<Text<'_>>,
        mode: Text<'_>,
        create: bool,
        durability: Text<'_>,
        memory: Natural,
        memtable: Option<Natural>,
        history: Option<i64>,
        waf_budget: Option<f64>,
        compression: Option<Text<'_>>,
        embedder: Option<Text<'_>>,
        clock: Option<i64>,
    ) -> PyResult<Self> {
        let (schema, embedder) = (schema.map(|text| text.0), embedder.map(|text| text.0));
        let clock = clock.map(|start| Arc::new(ManualClock::new(start)));
        let open = || {
            let mut options = Options {
                mode: parse_mode(mode.0)?,
                create,
                durability: parse_durability(durability.0)?,
                memory_bytes: memory.0,
                memtable_bytes: memtable.map_or(memtable_of(memory.0), |bytes| bytes.0),
                history_micros: history,
                waf_budget,
                compression: parse_compression(compression.map(|text| text.0))?,
                ..Options::default()
            };
            if let Some(clock) = &clock {
                options.clock = Arc::<ManualClock>::clone(clock);
                options.background = false;
            }
            let storage: Arc<dyn Storage> = match path {
                Some(path) => Arc::new(DiskStorage::new(path)),
                None => Arc::new(MemoryStorage::new()),
            };
            Database::open(storage, options, schema_of(schema, embedder)?)
        };
        let database = py.detach(open).or_raise(py)?;
        Ok(Self(Home::new(database), clock))
    }

    /// Moves the clock that the database was opened with, by microseconds.
    fn advance(&self, py: Python<'_>, micros: Natural) -> PyResult<()> {
        match &self.1 {
            Some(clock) => {
                clock.advance(Duration::from_micros(micros.0));
                Ok(())
            }
            None => Err(Error::argument("the machine's own clock cannot be moved")).or_raise(py),
        }
    }

    /// Engine time, in microseconds since 1970.
    fn now(&self, py: Python<'_>) -> PyResult<i64> {
        Ok(self.shared(py)?.pipeline.now())
    }

    /// Whether no commit came for a while.
    fn is_idle(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.shared(py)?.is_idle())
    }

    /// The part of their declared bounds that hybrid structures may use.
    fn batch_scale(&self, py: Python<'_>) -> PyResult<f64> {
        Ok(self.shared(py)?.batch_scale())
    }

    /// One background step, where no threads take them; `False`: none was due.
    fn step(&self, py: Python<'_>) -> PyResult<bool> {
        self.detached(py, Database::step)
    }

    fn schema(&self, py: Python<'_>) -> PyResult<String> {
        self.detached(py, |database| {
            database.shared().check_open()?;
            Ok(database.schema().to_json())
        })
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.detached(py, Database::close)
    }

    #[getter]
    fn closed(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.database(py)?.is_closed())
    }

    #[getter]
    fn path(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.database(py)?.name())
    }

    #[getter]
    fn writable(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.database(py)?.is_writable())
    }

    #[getter]
    fn lsn(&self, py: Python<'_>) -> PyResult<u64> {
        self.detached(py, Database::lsn)
    }

    #[pyo3(signature = (
        *, txn=None, priority=Text("routine"), durability=None, actor=None, reason=None,
        serializable=false, mode=Text("transaction")
    ), text_signature = "($self, *, txn=None, priority='routine', durability=None, actor=None, \
                         reason=None, serializable=False, mode='transaction')")]
    #[expect(clippy::too_many_arguments, reason = "as the Python layer calls it")]
    fn begin(
        &self,
        py: Python<'_>,
        txn: Option<Text<'_>>,
        priority: Text<'_>,
        durability: Option<Text<'_>>,
        actor: Option<Text<'_>>,
        reason: Option<Text<'_>>,
        serializable: bool,
        mode: Text<'_>,
    ) -> PyResult<Transaction> {
        let durability = durability.map(|text| parse_durability(text.0)).transpose();
        let options = TransactionOptions {
            txn: owned(txn),
            priority: Priority::parse(priority.0).or_raise(py)?,
            durability: durability.or_raise(py)?,
            actor: owned(actor),
            reason: owned(reason),
            serializable,
        };
        let mode = parse_transaction_mode(mode.0).or_raise(py)?;
        let shared = Arc::clone(self.shared(py)?);
        // Letting go of the interpreter costs more than to begin, where nothing is waited for.
        let begun = match self.database(py)? {
            database if database.is_current() => database.begin(mode, options).or_raise(py)?,
            _ => self.detached(py, |database| database.begin(mode, options))?,
        };
        Ok(Transaction::new(shared, begun))
    }

    /// One row, committed on its own.
    fn put<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
        key: Key<'_>,
        value: &[u8],
        if_version: Option<Natural>,
        if_absent: bool,
    ) -> PyResult<Commit<'py>> {
        let shared = Arc::clone(self.shared(py)?);
        let version = if_version.map(|version| version.0);
        let precondition = Precondition { version, absent: if_absent };
        let committed = py.detach(|| {
            let options = TransactionOptions::default();
            let single = transaction::Mode::Single;
            let mut transaction = transaction::Transaction::begin(shared, single, options)?;
            transaction.put(structure, key.0, value, precondition)?;
            transaction.commit_chained()
        });
        // The next caller of the group is woken now that this one has the interpreter.
        let (receipt, _baton) = committed.or_raise(py)?;
        Ok(commit_of(py, receipt))
    }

    fn reader(&self, py: Python<'_>) -> PyResult<Reader> {
        let database = self.database(py)?;
        let shared = Arc::clone(database.shared());
        Ok(Reader::new(shared, database.reader(), Behind::default()))
    }

    /// Reads of one structure that see everything (`strong`), or at least an LSN, or all but what
    /// came in the last `max_age` microseconds or `max_commits` commits, or (without any of them)
    /// what it shows.
    #[pyo3(signature = (structure, strong=false, at_least=None, max_age=None, max_commits=None))]
    fn reader_for(
        &self,
        py: Python<'_>,
        structure: u32,
        strong: bool,
        at_least: Option<Natural>,
        max_age: Option<i64>,
        max_commits: Option<Natural>,
    ) -> PyResult<Reader> {
        let want = match (at_least, max_age, max_commits) {
            _ if strong => Want::Strong,
            (Some(lsn), ..) => Want::AtLeast(lsn.0),
            (None, None, None) => Want::Eventual,
            (None, max_age, max_commits) => {
                Want::Bounded { max_age, max_commits: max_commits.map(|most| most.0) }
            }
        };
        let shared = Arc::clone(self.shared(py)?);
        let read = |database: &Database| database.reader_for(structure, want);
        let (reader, behind) = self.detached(py, read)?;
        Ok(Reader::new(shared, reader, behind))
    }

    fn reader_at(&self, py: Python<'_>, lsn: Natural) -> PyResult<Reader> {
        self.reading(py, |database| database.reader_at(lsn.0))
    }

    fn reader_at_time(&self, py: Python<'_>, micros: i64) -> PyResult<Reader> {
        self.reading(py, |database| database.reader_at_time(micros))
    }

    #[pyo3(signature = (at_least=None))]
    fn reader_now(&self, py: Python<'_>, at_least: Option<Natural>) -> PyResult<Reader> {
        self.reading(py, |database| database.reader_now(at_least.map(|least| least.0)))
    }

    #[pyo3(signature = (lsn, timeout=None, structures=None))]
    fn wait(
        &self,
        py: Python<'_>,
        lsn: Natural,
        timeout: Option<f64>,
        structures: Option<Vec<u32>>,
    ) -> PyResult<()> {
        let structures = structures.unwrap_or_default();
        // Too far away to be reached is no deadline.
        let left = |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).ok();
        let deadline = timeout.and_then(left).and_then(|left| Instant::now().checked_add(left));
        let database = self.database(py)?;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let slice = left.map_or(SIGNALS_EVERY, |left| left.min(SIGNALS_EVERY));
            match py.detach(|| database.wait_for(lsn.0, &structures, Some(slice))) {
                // A reader waits for nothing: it sees what was there when it opened.
                Err(error) if error.kind() == ErrorKind::Timeout && database.is_writable() => {
                    py.check_signals()?;
                    if left.is_some_and(|left| left <= slice) {
                        return Err(raised(py, &error));
                    }
                }
                outcome => return outcome.or_raise(py),
            }
        }
    }

    fn outcome(&self, py: Python<'_>, txn: Text<'_>) -> PyResult<&'static str> {
        let committed = self.detached(py, |database| database.outcome(txn.0))?;
        Ok(if committed { "committed" } else { "absent" })
    }

    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.detached(py, Database::flush)
    }

    /// `structures`: whose vectors are sealed; `None`: all that are not lazy.
    fn drain(&self, py: Python<'_>, structures: Option<Vec<u32>>) -> PyResult<()> {
        self.detached(py, |database| database.reflect(structures.as_deref()))?;
        self.detached(py, Database::flush_memtables)?;
        while self.detached(py, Database::merge_step)? {
            py.check_signals()?;
        }
        let upto = self.detached(py, Database::lsn)?;
        let named = structures.as_deref();
        while self.detached(py, |database| database.drain_vectors(named, upto))? {
            py.check_signals()?;
        }
        Ok(())
    }

    fn stats(&self, py: Python<'_>) -> PyResult<String> {
        let stats = self.detached(py, Database::stats)?;
        Ok(serde_json::to_string(&stats).expect("statistics have only text keys"))
    }

    fn verify(&self, py: Python<'_>, deep: bool, progress: Option<Py<PyAny>>) -> PyResult<String> {
        let mut failure = None;
        let mut told = report(progress.as_ref(), &mut failure);
        let check = |database: &Database| verify::verify(database.shared(), deep, &mut told);
        let found = self.detached(py, check)?;
        drop(told);
        match failure {
            Some(failure) => Err(failure),
            None => Ok(serde_json::to_string(&found).expect("a report has only text keys")),
        }
    }

    fn rebuild(&self, py: Python<'_>, structure: u32, progress: Option<Py<PyAny>>) -> PyResult<()> {
        let mut failure = None;
        let told = report(progress.as_ref(), &mut failure);
        self.detached(py, |database| database.rebuild(structure, told))?;
        failure.map_or(Ok(()), Err)
    }

    fn drop(&self, py: Python<'_>, name: Text<'_>) -> PyResult<()> {
        self.detached(py, |database| database.drop_structure(name.0))
    }

    fn rename(&self, py: Python<'_>, old: Text<'_>, new: Text<'_>) -> PyResult<()> {
        self.detached(py, |database| database.rename_structure(old.0, new.0))
    }

    fn set_policy(&self, py: Python<'_>, name: Text<'_>, policy: Text<'_>) -> PyResult<()> {
        self.detached(py, |database| {
            let policy: Policy = serde_json::from_str(policy.0)
                .map_err(|error| Error::argument(format!("the policy cannot be read: {error}")))?;
            database.set_policy(name.0, policy)
        })
    }

    fn backup(&self, py: Python<'_>, dst: PathBuf, progress: Option<Py<PyAny>>) -> PyResult<()> {
        let mut failure = None;
        let mut told = report(progress.as_ref(), &mut failure);
        let copy = |database: &Database| database.backup(&DiskStorage::new(dst), &mut told);
        self.detached(py, copy)?;
        drop(told);
        failure.map_or(Ok(()), Err)
    }

    fn changes(&self, py: Python<'_>, after: Natural) -> PyResult<Changes> {
        self.detached(py, |database| Changes::new(database.shared(), after.0))
    }

    fn audit_head<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
    ) -> PyResult<(u64, Bound<'py, PyBytes>)> {
        let head = |database: &Database| audit_log::head(database.shared(), structure);
        let (size, root) = self.detached(py, head)?;
        Ok((size, PyBytes::new(py, &root)))
    }

    /// (lsn, index, time, actor, reason, changes as (structure, key, kind), leaf hash).
    fn audit_entries<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
        after: Natural,
        actor: Option<Text<'_>>,
        limit: Natural,
    ) -> PyResult<Vec<Entry<'py>>> {
        let actor = actor.map(|actor| actor.0);
        let found = self.detached(py, |database| {
            audit_log::entries(database.shared(), structure, after.0, actor, limit.count())
        })?;
        let told = found.into_iter().map(|entry| {
            let changes = entry.changes.into_iter();
            let changes = changes
                .map(|change| (change.structure, part_object(py, &change.key), change.kind))
                .collect();
            let leaf = PyBytes::new(py, &entry.leaf);
            (entry.lsn, entry.index, entry.time, entry.actor, entry.reason, changes, leaf)
        });
        Ok(told.collect())
    }

    fn audit_leaf<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
        lsn: Natural,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let leaf = |database: &Database| audit_log::leaf(database.shared(), structure, lsn.0);
        Ok(PyBytes::new(py, &self.detached(py, leaf)?))
    }

    /// (index, size, leaf hash, path).
    #[expect(clippy::type_complexity, reason = "the shape that the Python layer expects")]
    fn audit_prove<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
        lsn: Natural,
        size: Option<Natural>,
    ) -> PyResult<(u64, u64, Bound<'py, PyBytes>, Vec<Bound<'py, PyBytes>>)> {
        let size = size.map(|size| size.0);
        let proof = self
            .detached(py, |database| audit_log::prove(database.shared(), structure, lsn.0, size))?;
        let path = proof.path.iter().map(|hash| PyBytes::new(py, hash)).collect();
        Ok((proof.index, proof.size, PyBytes::new(py, &proof.leaf), path))
    }

    fn audit_prove_growth<'py>(
        &self,
        py: Python<'py>,
        structure: u32,
        old_size: Natural,
        size: Option<Natural>,
    ) -> PyResult<(u64, u64, Vec<Bound<'py, PyBytes>>)> {
        let size = size.map(|size| size.0);
        let (size, path) = self.detached(py, |database| {
            audit_log::prove_growth(database.shared(), structure, old_size.0, size)
        })?;
        let path = path.iter().map(|hash| PyBytes::new(py, hash)).collect();
        Ok((old_size.0, size, path))
    }
}
