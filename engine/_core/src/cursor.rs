//! Pages of a scan; a cursor holds its snapshot, never a lock between pages.

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use waferdb::changes::has_raw_keys;
use waferdb::error::{Error, ErrorKind, Result};
use waferdb::events::Event;
use waferdb::reader::{self, Page};
use waferdb::schema::{Schema, StructureId};

use crate::errors::OrRaise;
use crate::home::Home;
use crate::keys::{Natural, bytes, key_object};

/// Pages of a scan; holds its snapshot, never a lock.
#[pyclass(frozen, module = "waferdb._core")]
pub struct Cursor {
    lsn: u64,
    structure: StructureId,
    /// Structures whose keys are bytes and not text.
    raw: Vec<StructureId>,
    /// `None` once it is closed.
    scan: Home<Mutex<Option<reader::Cursor>>>,
}

impl Cursor {
    pub fn new(scan: reader::Cursor, structure: StructureId, schema: &Schema) -> Result<Self> {
        let all = schema.structures.iter().map(|known| known.id);
        let raw = all.filter(|id| has_raw_keys(schema, *id)).collect();
        Ok(Self { lsn: scan.lsn()?, structure, raw, scan: Home::new(Mutex::new(Some(scan))) })
    }

    fn event<'py>(
        &self,
        py: Python<'py>,
        event: &Event,
        time: i64,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let raw = self.raw.contains(&event.origin);
        let key = event.key.as_ref().map(|key| key_object(py, raw, key));
        let payload = event.payload.as_ref().map(|payload| bytes(py, payload));
        (event.lsn, event.index, time, &event.kind, key, payload).into_pyobject(py)
    }
}

#[pymethods]
impl Cursor {
    #[getter]
    fn lsn(&self) -> u64 {
        self.lsn
    }

    fn page<'py>(&self, py: Python<'py>, count: Natural) -> PyResult<Bound<'py, PyList>> {
        let scan = self.scan.get(py)?;
        let page = py.detach(|| match &mut *scan.lock() {
            Some(scan) => scan.page(count.count()),
            None => Err(Error::new(ErrorKind::Closed, "the cursor is closed: scan again")),
        });
        match page.or_raise(py)? {
            Page::Rows(rows) => {
                let raw = self.raw.contains(&self.structure);
                let pairs = rows
                    .iter()
                    .map(|row| (key_object(py, raw, &row.key), bytes(py, &row.value)))
                    .collect::<Vec<_>>();
                PyList::new(py, pairs)
            }
            Page::Events(events) => {
                let told = events.iter().map(|(event, time)| self.event(py, event, *time));
                PyList::new(py, told.collect::<PyResult<Vec<_>>>()?)
            }
        }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let scan = self.scan.get(py)?;
        py.detach(|| drop(scan.lock().take()));
        Ok(())
    }
}
