//! Salvage, which needs no open database.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use waferdb::error::{Error, Result};
use waferdb::options::Options;
use waferdb::salvage;
use waferdb::storage::Storage;
use waferdb::storage::disk::DiskStorage;

use crate::engine::report;
use crate::errors::OrRaise;

/// Copies what is whole of one database to a new one; the report as JSON.
#[pyfunction]
#[pyo3(name = "salvage")]
pub fn salvaged(
    py: Python<'_>,
    src: PathBuf,
    dst: PathBuf,
    older: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let mut failure = None;
    let mut told = report(progress.as_ref(), &mut failure);
    let copy = || -> Result<String> {
        let (source, into) = (std::path::absolute(&src), std::path::absolute(&dst));
        if let (Ok(source), Ok(into)) = (source, into)
            && into.starts_with(source)
        {
            return Err(Error::argument("dst lies within src, which is not written to"));
        }
        let source = DiskStorage::new(src);
        let into: Arc<dyn Storage> = Arc::new(DiskStorage::new(dst));
        let found = salvage::salvage(&source, into, Options::default(), older, &mut told)?;
        Ok(serde_json::to_string(&found).expect("a report has only text keys"))
    };
    let found = py.detach(copy).or_raise(py)?;
    drop(told);
    failure.map_or(Ok(found), Err)
}
