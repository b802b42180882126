//! `waferdb._core`: the engine as Python sees it, declared in `python/waferdb/_core.pyi`.
//!
//! 1. Conversion and GIL release only: what a call means is the engine's, how it is offered is the
//!    Python package's.
//! 2. Everything that waits or may touch the disk runs detached; adding to a transaction does not.
//! 3. An object belongs to the process that made it. In the child of a fork each use raises
//!    `ForkedError`, and dropping one leaks it there (`home`).
//! 4. The engine's errors become exceptions in one place (`errors`).

mod capi;
mod changes;
mod cursor;
mod engine;
mod errors;
mod home;
mod keys;
mod reader;
mod salvage;
mod transaction;

use pyo3::prelude::*;

/// Small allocations are most of what a commit does beside the disk.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
use pyo3::types::PyDict;
use waferdb::limits;

/// The bounds of `waferdb::limits` under their names in lower case.
fn bounds(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let bounds = PyDict::new(py);
    for (name, bound) in [
        ("key_bytes_max", limits::KEY_BYTES_MAX),
        ("result_bytes_max", limits::RESULT_BYTES_MAX),
        ("value_bytes_max", limits::VALUE_BYTES_MAX),
        ("commit_bytes_max", limits::COMMIT_BYTES_MAX),
        ("commit_ops_max", limits::COMMIT_OPS_MAX),
        ("document_depth_max", limits::DOCUMENT_DEPTH_MAX),
        ("vector_dim_max", limits::VECTOR_DIM_MAX),
        ("structures_max", limits::STRUCTURES_MAX),
        ("name_bytes_max", limits::NAME_BYTES_MAX),
        ("indexes_max", limits::INDEXES_MAX),
        ("index_fields_max", limits::INDEX_FIELDS_MAX),
        ("txn_bytes_max", limits::TXN_BYTES_MAX),
        ("actor_bytes_max", limits::ACTOR_BYTES_MAX),
        ("reason_bytes_max", limits::REASON_BYTES_MAX),
        ("search_k_max", limits::SEARCH_K_MAX),
        ("graph_depth_max", limits::GRAPH_DEPTH_MAX),
        ("conflict_keys_max", limits::CONFLICT_KEYS_MAX),
    ] {
        bounds.set_item(name, bound)?;
    }
    bounds.set_item("snapshot_lease_seconds", limits::SNAPSHOT_LEASE_MICROS / 1_000_000)?;
    Ok(bounds)
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("ENGINE_VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add("FORMAT_VERSION", waferdb::log::format::FORMAT_VERSION)?;
    module.add("LIMITS", bounds(module.py())?)?;
    module.add_class::<engine::Engine>()?;
    module.add_class::<reader::Reader>()?;
    module.add_class::<cursor::Cursor>()?;
    module.add_class::<changes::Changes>()?;
    module.add_class::<transaction::Transaction>()?;
    module.add_function(wrap_pyfunction!(errors::exceptions_module, module)?)?;
    module.add_function(wrap_pyfunction!(salvage::salvaged, module)?)?;
    module.add_function(wrap_pyfunction!(reader::group_values, module)?)?;
    module.add_function(wrap_pyfunction!(reader::group_parts, module)?)?;
    capi::add(module)?;
    // What is private is said by names, as everywhere in the package; PyO3 would list `_C_API` too.
    module.delattr("__all__")
}
