//! Errors of the engine as the exceptions of `waferdb.errors`.
//!
//! The Python package owns the classes and makes the exception (`_make`); it is imported at the
//! first error, for it is not loaded yet when this module is.

use parking_lot::Mutex;
use pyo3::prelude::*;
use waferdb::error::{Error, Result};

const MODULE: &str = "waferdb.errors";

static MAKE: Mutex<Option<Py<PyAny>>> = Mutex::new(None);

/// Tells the engine which module its exception classes live in.
#[pyfunction]
pub fn exceptions_module(name: &Bound<'_, pyo3::types::PyString>) -> PyResult<()> {
    let make = name.py().import(name)?.getattr("_make")?.unbind();
    let before = MAKE.lock().replace(make);
    drop(before);
    Ok(())
}

fn make(py: Python<'_>) -> PyResult<Py<PyAny>> {
    if let Some(known) = &*MAKE.lock() {
        return Ok(known.clone_ref(py));
    }
    // Importing may run other threads: no lock is held meanwhile.
    let make = py.import(MODULE)?.getattr("_make")?.unbind();
    Ok(MAKE.lock().get_or_insert(make).clone_ref(py))
}

/// The exception of a code of `waferdb.errors`.
pub fn made(
    py: Python<'_>,
    code: &str,
    message: &str,
    errno: Option<i32>,
    txn: Option<&str>,
) -> PyErr {
    let exception = make(py).and_then(|make| make.call1(py, (code, message, errno, txn)));
    match exception {
        Ok(exception) => PyErr::from_value(exception.into_bound(py)),
        // That the classes cannot be had is then the error.
        Err(error) => error,
    }
}

pub fn raised(py: Python<'_>, error: &Error) -> PyErr {
    made(py, error.kind().code(), error.message(), error.errno(), error.txn())
}

pub trait OrRaise<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for Result<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| raised(py, &error))
    }
}
