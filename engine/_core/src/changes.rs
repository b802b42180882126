//! Commits in LSN order, read from the log.

use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use waferdb::changes::{self, Change, Committed};
use waferdb::database::Shared;
use waferdb::error::Result;

use crate::errors::OrRaise;
use crate::home::Home;
use crate::keys::{Natural, bytes, part_object};

/// Commits in LSN order, read from the log: (lsn, time, txn, actor, reason, changes), each change
/// (structure name, kind, key parts, encoded value or None).
#[pyclass(frozen, module = "waferdb._core")]
pub struct Changes(Home<Mutex<changes::Changes>>);

impl Changes {
    pub fn new(shared: &Arc<Shared>, after: u64) -> Result<Self> {
        let changes = changes::Changes::new(Arc::clone(shared), after)?;
        Ok(Self(Home::new(Mutex::new(changes))))
    }
}

fn change<'py>(py: Python<'py>, change: &Change) -> PyResult<Bound<'py, PyTuple>> {
    let key = PyTuple::new(py, change.key.iter().map(|part| part_object(py, part)))?;
    let value = change.value.as_ref().map(|value| bytes(py, value));
    (&change.structure, change.kind, key, value).into_pyobject(py)
}

fn committed<'py>(py: Python<'py>, commit: &Committed) -> PyResult<Bound<'py, PyTuple>> {
    let changes = commit.changes.iter().map(|told| change(py, told));
    let changes = PyList::new(py, changes.collect::<PyResult<Vec<_>>>()?)?;
    (commit.lsn, commit.time, &commit.txn, &commit.actor, &commit.reason, changes).into_pyobject(py)
}

#[pymethods]
impl Changes {
    fn page<'py>(&self, py: Python<'py>, count: Natural) -> PyResult<Bound<'py, PyList>> {
        let changes = self.0.get(py)?;
        let page = py.detach(|| changes.lock().page(count.count())).or_raise(py)?;
        let told = page.iter().map(|commit| committed(py, commit));
        PyList::new(py, told.collect::<PyResult<Vec<_>>>()?)
    }
}
