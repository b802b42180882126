//! Writes gathered in memory and committed as one.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use waferdb::database::Shared;
use waferdb::error::{Error, ErrorKind, Result};
use waferdb::log::record::TxnId;
use waferdb::reflection::Behind;
use waferdb::transaction::{self, Precondition, Receipt};

use crate::errors::{OrRaise, made};
use crate::home::Home;
use crate::keys::{Floats, Key, Natural, Text, keys_of, texts_of};
use crate::reader::Reader;

/// (lsn, time, durable, leaf hash or None, transaction id)
pub type Commit<'py> =
    (u64, i64, bool, Option<Bound<'py, PyBytes>>, String, Option<Vec<(u32, Bound<'py, PyBytes>)>>);

enum State {
    Open(Box<transaction::Transaction>),
    /// What it held is given back; its id remains.
    Ended(TxnId),
}

impl State {
    fn open(&mut self) -> Result<&mut transaction::Transaction> {
        match self {
            Self::Open(transaction) => Ok(transaction),
            Self::Ended(_) => Err(Error::new(
                ErrorKind::Transaction,
                "the transaction has ended: begin another, nothing was written by this call",
            )),
        }
    }

    /// The transaction, which has ended with this; `None` if it had ended before.
    fn end(&mut self) -> Option<Box<transaction::Transaction>> {
        let Self::Open(transaction) = self else { return None };
        let ended = Self::Ended(transaction.id().clone());
        match std::mem::replace(self, ended) {
            Self::Open(transaction) => Some(transaction),
            Self::Ended(_) => None,
        }
    }
}

#[pyclass(frozen, module = "waferdb._core")]
pub struct Transaction {
    lsn: u64,
    inner: Home<(Arc<Shared>, Mutex<State>)>,
}

fn shared_by_threads() -> Error {
    Error::new(
        ErrorKind::Transaction,
        "the transaction was used from two threads at once: give each thread its own, nothing was \
         written by this call",
    )
}

impl Transaction {
    pub fn new(shared: Arc<Shared>, transaction: transaction::Transaction) -> Self {
        let lsn = transaction.lsn();
        Self { lsn, inner: Home::new((shared, Mutex::new(State::Open(Box::new(transaction))))) }
    }

    /// One thread at a time; a second one is told so and does not wait.
    fn lock(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, State>> {
        let (_, state) = self.inner.get(py)?;
        state.try_lock().ok_or_else(shared_by_threads).or_raise(py)
    }

    /// Adds to the transaction, all of it or nothing: in memory, so without letting other threads
    /// run.
    fn add<T>(
        &self,
        py: Python<'_>,
        add: impl FnOnce(&mut transaction::Transaction) -> Result<T>,
    ) -> PyResult<T> {
        let mut state = self.lock(py)?;
        let added = state.open().and_then(|transaction| {
            let savepoint = transaction.savepoint();
            add(transaction).inspect_err(|_| transaction.undo_to(&savepoint))
        });
        added.or_raise(py)
    }
}

pub fn commit_of(py: Python<'_>, receipt: Receipt) -> Commit<'_> {
    let leaf = receipt.leaf.map(|leaf| PyBytes::new(py, &leaf));
    let touched = receipt.touched.map(|touched| {
        touched.iter().map(|(view, group)| (*view, PyBytes::new(py, group))).collect()
    });
    (receipt.lsn, receipt.time, receipt.durable, leaf, receipt.txn, touched)
}

/// Rows of a matrix of `count` rows, or `VectorError`.
fn rows_of<'a>(
    py: Python<'_>,
    floats: &'a [f32],
    count: usize,
) -> PyResult<std::slice::Chunks<'a, f32>> {
    if count == 0 && floats.is_empty() {
        return Ok(floats.chunks(1));
    }
    if count == 0 || floats.is_empty() || !floats.len().is_multiple_of(count) {
        let message =
            format!("{} components are no vectors of equal length for {count} keys", floats.len());
        return Err(made(py, "vector", &message, None, None));
    }
    Ok(floats.chunks(floats.len() / count))
}

#[pymethods]
impl Transaction {
    #[getter]
    fn txn(&self, py: Python<'_>) -> PyResult<String> {
        Ok(match &*self.lock(py)? {
            State::Open(transaction) => transaction.txn(),
            State::Ended(txn) => txn.text(),
        })
    }

    #[getter]
    fn lsn(&self) -> u64 {
        self.lsn
    }

    #[getter]
    fn operations(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(match &*self.lock(py)? {
            State::Open(transaction) => transaction.operations(),
            State::Ended(_) => 0,
        })
    }

    #[getter]
    fn bytes(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(match &*self.lock(py)? {
            State::Open(transaction) => transaction.bytes(),
            State::Ended(_) => 0,
        })
    }

    fn reader(&self, py: Python<'_>) -> PyResult<Reader> {
        let shared = Arc::clone(&self.inner.get(py)?.0);
        self.add(py, |transaction| {
            Ok(Reader::new(shared, transaction.reader()?, Behind::default()))
        })
    }

    #[pyo3(signature = (structure, key, value, if_version=None, if_absent=false))]
    fn put(
        &self,
        py: Python<'_>,
        structure: u32,
        key: Key<'_>,
        value: &[u8],
        if_version: Option<Natural>,
        if_absent: bool,
    ) -> PyResult<()> {
        let version = if_version.map(|version| version.0);
        let precondition = Precondition { version, absent: if_absent };
        self.add(py, |transaction| transaction.put(structure, key.0, value, precondition))
    }

    fn put_many(
        &self,
        py: Python<'_>,
        structure: u32,
        keys: Vec<Bound<'_, PyAny>>,
        values: Vec<Bound<'_, PyBytes>>,
    ) -> PyResult<()> {
        let keys = keys_of(&keys)?;
        if keys.len() != values.len() {
            let message = format!("{} keys for {} values", keys.len(), values.len());
            return Err(made(py, "argument", &message, None, None));
        }
        self.add(py, |transaction| {
            let mut pairs = keys.iter().zip(&values);
            pairs.try_for_each(|(key, value)| {
                transaction.put(structure, key, value.as_bytes(), Precondition::default())
            })
        })
    }

    fn delete(&self, py: Python<'_>, structure: u32, key: Key<'_>) -> PyResult<()> {
        self.add(py, |transaction| transaction.delete(structure, key.0))
    }

    fn delete_many(
        &self,
        py: Python<'_>,
        structure: u32,
        keys: Vec<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let keys = keys_of(&keys)?;
        self.add(py, |transaction| {
            keys.iter().try_for_each(|key| transaction.delete(structure, key))
        })
    }

    fn watch(&self, py: Python<'_>, structure: u32, key: Key<'_>) -> PyResult<()> {
        self.add(py, |transaction| transaction.watch(structure, key.0))
    }

    fn vector_put(
        &self,
        py: Python<'_>,
        structure: u32,
        key: Text<'_>,
        vector: Floats,
    ) -> PyResult<()> {
        let vector = vector.as_slice(py);
        self.add(py, |transaction| transaction.put_vector(structure, key.0, vector))
    }

    fn vector_put_many(
        &self,
        py: Python<'_>,
        structure: u32,
        keys: Vec<Bound<'_, PyAny>>,
        vectors: Floats,
    ) -> PyResult<()> {
        let keys = texts_of(&keys)?;
        let rows = rows_of(py, vectors.as_slice(py), keys.len())?;
        self.add(py, |transaction| {
            let mut pairs = keys.iter().zip(rows);
            pairs.try_for_each(|(key, vector)| transaction.put_vector(structure, key, vector))
        })
    }

    fn append(
        &self,
        py: Python<'_>,
        structure: u32,
        kind: Text<'_>,
        payload: Option<&[u8]>,
        key: Option<Text<'_>>,
    ) -> PyResult<()> {
        let key = key.map(|key| key.0.as_bytes());
        self.add(py, |transaction| transaction.append(structure, kind.0, payload, key))
    }

    fn cache_put(
        &self,
        py: Python<'_>,
        structure: u32,
        key: Text<'_>,
        value: &[u8],
        ttl: Option<i64>,
    ) -> PyResult<()> {
        self.add(py, |transaction| transaction.cache_put(structure, key.0, value, ttl))
    }

    fn context_set(
        &self,
        py: Python<'_>,
        structure: u32,
        scope: Text<'_>,
        name: Text<'_>,
        value: &[u8],
    ) -> PyResult<()> {
        self.add(py, |transaction| transaction.context_set(structure, scope.0, name.0, value))
    }

    fn context_delete(
        &self,
        py: Python<'_>,
        structure: u32,
        scope: Text<'_>,
        name: Option<Text<'_>>,
    ) -> PyResult<()> {
        let name = name.map(|name| name.0);
        self.add(py, |transaction| transaction.context_delete(structure, scope.0, name))
    }

    fn link(
        &self,
        py: Python<'_>,
        structure: u32,
        src: Text<'_>,
        relation: Text<'_>,
        dst: Text<'_>,
        props: Option<&[u8]>,
    ) -> PyResult<()> {
        self.add(py, |transaction| transaction.link(structure, src.0, relation.0, dst.0, props))
    }

    fn unlink(
        &self,
        py: Python<'_>,
        structure: u32,
        src: Text<'_>,
        relation: Text<'_>,
        dst: Text<'_>,
    ) -> PyResult<()> {
        self.add(py, |transaction| transaction.unlink(structure, src.0, relation.0, dst.0))
    }

    /// Masks every version of a key up to this commit, at every LSN: rows, vectors, cache (key,),
    /// events (key,), context (scope, name), graph (src, relation, dst).
    fn forget(&self, py: Python<'_>, structure: u32, key: Vec<Bound<'_, PyAny>>) -> PyResult<()> {
        let parts = keys_of(&key)?;
        self.add(py, |transaction| transaction.forget(structure, &parts))
    }

    /// A result of a view's function, as of the LSN `input`; `covered`: changes of the group that
    /// had come by then.
    fn put_result(
        &self,
        py: Python<'_>,
        structure: u32,
        group: &[u8],
        document: &[u8],
        input: Natural,
        covered: Natural,
    ) -> PyResult<()> {
        let made = (input.0, covered.0);
        self.add(py, |transaction| transaction.put_result(structure, group, document, made))
    }

    fn note(
        &self,
        py: Python<'_>,
        actor: Option<Text<'_>>,
        reason: Option<Text<'_>>,
    ) -> PyResult<()> {
        let owned = |text: Option<Text<'_>>| text.map(|text| text.0.to_owned());
        let (actor, reason) = (owned(actor), owned(reason));
        self.add(py, |transaction| transaction.note(actor, reason))
    }

    fn commit<'py>(&self, py: Python<'py>) -> PyResult<Commit<'py>> {
        let (_, state) = self.inner.get(py)?;
        let committed = py.detach(|| {
            let mut state = state.try_lock().ok_or_else(shared_by_threads)?;
            let committed = state.open()?.commit_chained();
            drop(state.end());
            committed
        });
        // The next caller of the group is woken now that this one has the interpreter.
        let (receipt, _baton) = committed.or_raise(py)?;
        Ok(commit_of(py, receipt))
    }

    fn rollback(&self, py: Python<'_>) -> PyResult<()> {
        drop(self.lock(py)?.end());
        Ok(())
    }
}
