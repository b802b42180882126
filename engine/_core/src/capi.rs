//! The function table for native callers: `waferdb._core._C_API`, declared in `waferdb.h`.
//!
//! 1. `Table` mirrors `waferdb_c_api` field by field; additions go to the end, and anything else
//!    is a new `VERSION`. `tests/unit/test_capi.py` compares the two sizes.
//! 2. Nothing but a status, an error text or a value crosses the table. A panic becomes the error
//!    "panic" and poisons the handle: the state behind it may be half changed.
//! 3. A handle or batch belongs to the process that made it. In the child of a fork every call
//!    answers "forked", and giving one back leaks it there: dropping it could flush or unlock what
//!    the parent still uses.
//! 4. Only `acquire` touches Python, and only it needs the GIL.
//!
//! Not here: what a put or a commit means; that is the engine's.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use waferdb::error::{Error, ErrorKind, Result};
use waferdb::limits::{COMMIT_BYTES_MAX, COMMIT_OPS_MAX};

// ---- adapter: begin. All this file asks of the engine: a type and four functions. ----
use waferdb::database::Database;
use waferdb::transaction::{Mode, Precondition, TransactionOptions};

use crate::engine::Engine;
use crate::errors::OrRaise;
use crate::home;

type Store = Database;

/// The open database inside a Python `Engine`; ClosedError or ForkedError if it is not usable.
fn store_of(engine: &Bound<'_, PyAny>) -> PyResult<Store> {
    let py = engine.py();
    let database = engine.cast::<Engine>()?.get().database(py)?;
    database.shared().check_open().or_raise(py)?;
    Ok(database.clone())
}

fn structure_named(store: &Store, name: &str) -> Result<u32> {
    store.shared().check_open()?;
    let catalog = store.shared().store.catalog();
    catalog
        .schema
        .named(name)
        .map(|structure| structure.id)
        .ok_or_else(|| Error::new(ErrorKind::Schema, format!("no structure is named {name:?}")))
}

fn read(store: &Store, structure: u32, key: &[u8]) -> Result<Option<Vec<u8>>> {
    Ok(store.reader().get(structure, key)?.map(|value| value.to_vec()))
}

/// Blind writes as one commit, without conflict checks other than `unique`; its LSN.
fn commit(store: &Store, operations: &[Operation], mode: Mode) -> Result<u64> {
    let mut transaction = store.begin(mode, TransactionOptions::default())?;
    for operation in operations {
        let Operation { structure, key, value } = operation;
        match value {
            Some(value) => transaction.put(*structure, key, value, Precondition::default())?,
            None => transaction.delete(*structure, key)?,
        }
    }
    Ok(transaction.commit()?.lsn)
}
// ---- adapter: end. ----

const VERSION: u32 = 1;
const CAPSULE: &CStr = c"waferdb._core._C_API";

const OK: c_int = 0;
const ABSENT: c_int = 1;
const ERROR: c_int = -1;

/// One write; without a value it is a deletion.
struct Operation {
    structure: u32,
    key: Box<[u8]>,
    value: Option<Box<[u8]>>,
}

/// Behind `waferdb_db *`.
struct Native {
    store: Store,
    process: u64,
    poisoned: AtomicBool,
}

/// Behind `waferdb_batch *`.
struct Batch {
    native: Arc<Native>,
    operations: Vec<Operation>,
    bytes: usize,
}

#[repr(C)]
struct ErrorText {
    code: [u8; 32],
    message: [u8; 512],
    txn: [u8; 256],
    os_errno: i32,
}

#[repr(C)]
struct Buffer {
    data: *mut u8,
    len: usize,
}

#[repr(C)]
struct Table {
    version: u32,
    size: u32,
    acquire: unsafe extern "C" fn(*mut c_void) -> *const Native,
    release: unsafe extern "C" fn(*const Native),
    structure_id: unsafe extern "C" fn(
        *const Native,
        *const c_char,
        usize,
        *mut u32,
        *mut ErrorText,
    ) -> c_int,
    put: unsafe extern "C" fn(
        *const Native,
        u32,
        *const u8,
        usize,
        *const u8,
        usize,
        *mut u64,
        *mut ErrorText,
    ) -> c_int,
    delete_key: unsafe extern "C" fn(
        *const Native,
        u32,
        *const u8,
        usize,
        *mut u64,
        *mut ErrorText,
    ) -> c_int,
    get: unsafe extern "C" fn(
        *const Native,
        u32,
        *const u8,
        usize,
        *mut Buffer,
        *mut ErrorText,
    ) -> c_int,
    buffer_free: unsafe extern "C" fn(*mut Buffer),
    batch_new: unsafe extern "C" fn(*const Native, *mut ErrorText) -> *mut Batch,
    batch_put: unsafe extern "C" fn(
        *mut Batch,
        u32,
        *const u8,
        usize,
        *const u8,
        usize,
        *mut ErrorText,
    ) -> c_int,
    batch_delete: unsafe extern "C" fn(*mut Batch, u32, *const u8, usize, *mut ErrorText) -> c_int,
    batch_commit: unsafe extern "C" fn(*mut Batch, *mut u64, *mut ErrorText) -> c_int,
    batch_free: unsafe extern "C" fn(*mut Batch),
}

static TABLE: Table = Table {
    version: VERSION,
    size: size_of::<Table>() as u32,
    acquire,
    release,
    structure_id,
    put,
    delete_key,
    get,
    buffer_free,
    batch_new,
    batch_put,
    batch_delete,
    batch_commit,
    batch_free,
};

const _: () = assert!(size_of::<Table>() == 8 + 12 * size_of::<usize>());
const _: () = assert!(size_of::<ErrorText>() == 32 + 512 + 256 + 4);

/// Puts the table into the module, as `_C_API`.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let table = ptr::NonNull::from(&TABLE).cast::<c_void>();
    // SAFETY: the table is a static and is never written; readers see it as const.
    let capsule = unsafe { PyCapsule::new_with_pointer(module.py(), table, CAPSULE) }?;
    module.add("_C_API", capsule)
}

/// Why a call failed, as it is told across the table.
struct Failure {
    code: &'static str,
    message: String,
    txn: Option<String>,
    os_errno: i32,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            code: error.kind().code(),
            message: error.message().to_owned(),
            txn: error.txn().map(str::to_owned),
            os_errno: error.errno().unwrap_or(0),
        }
    }
}

impl Failure {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), txn: None, os_errno: 0 }
    }

    /// Writes the texts where the caller asked for them.
    ///
    /// # Safety
    /// `out` is null or valid for writes.
    unsafe fn write(&self, out: *mut ErrorText) {
        if out.is_null() {
            return;
        }
        let mut text =
            ErrorText { code: [0; 32], message: [0; 512], txn: [0; 256], os_errno: self.os_errno };
        copy_text(&mut text.code, self.code);
        copy_text(&mut text.message, &self.message);
        copy_text(&mut text.txn, self.txn.as_deref().unwrap_or_default());
        // SAFETY: the caller's promise.
        unsafe { out.write(text) };
    }
}

/// Copies what fits, cut at a character's border, and leaves at least one NUL behind it.
fn copy_text(out: &mut [u8], text: &str) {
    let mut end = text.len().min(out.len() - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out[..end].copy_from_slice(&text.as_bytes()[..end]);
}

impl Native {
    fn check(&self) -> Result<(), Failure> {
        if self.process != home::process() {
            return Err(Failure::new(
                "forked",
                "this handle was made before a fork and belongs to the parent process; \
                 open the database in the child",
            ));
        }
        if self.poisoned.load(Ordering::Relaxed) {
            return Err(Failure::new(
                "panic",
                "an earlier call on this handle broke an invariant of the engine; \
                 close the database, open it again and run verify()",
            ));
        }
        Ok(())
    }

    /// Runs one call: checks first, turns a panic into an error, tells the caller of either.
    ///
    /// # Safety
    /// `error` is null or valid for writes.
    unsafe fn call<T>(
        &self,
        error: *mut ErrorText,
        run: impl FnOnce() -> Result<T, Failure>,
    ) -> Option<T> {
        let checked = AssertUnwindSafe(|| self.check().and_then(|()| run()));
        let outcome = catch_unwind(checked).unwrap_or_else(|panic| {
            self.poisoned.store(true, Ordering::Relaxed);
            Err(Failure::new("panic", panic_text(&*panic)))
        });
        match outcome {
            Ok(value) => Some(value),
            Err(failure) => {
                // SAFETY: the caller's promise.
                unsafe { failure.write(error) };
                None
            }
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let what = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    format!(
        "a broken invariant of the engine ({what}); the fate of this call is unknown: \
         close the database, open it again and run verify()"
    )
}

/// The bytes a caller points to.
///
/// # Safety
/// `data` is null or valid for reads of `len` bytes for as long as the answer is used.
unsafe fn borrow<'a>(data: *const u8, len: usize, what: &str) -> Result<&'a [u8], Failure> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() || len > isize::MAX as usize {
        let told = format!("{what}: a null pointer or a negative length ({len} bytes)");
        return Err(Error::new(ErrorKind::Argument, told).into());
    }
    // SAFETY: not null, of a possible length, and otherwise the caller's promise.
    Ok(unsafe { slice::from_raw_parts(data, len) })
}

/// # Safety
/// `out` is null or valid for writes.
unsafe fn answer<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: the caller's promise.
        unsafe { out.write(value) };
    }
}

/// What a pointer of ours stands for; `$error` is told and the function answers `$on_null` if it
/// is null.
macro_rules! dereference {
    ($pointer:expr, $error:expr, $on_null:expr) => {
        // SAFETY: `waferdb.h` wants a pointer that the table gave out and has not taken back.
        match unsafe { $pointer.as_ref() } {
            Some(value) => value,
            None => {
                let failure = Failure::new(ErrorKind::Argument.code(), "the handle is NULL");
                // SAFETY: `waferdb.h` wants `error` to be null or writable.
                unsafe { failure.write($error) };
                return $on_null;
            }
        }
    };
}

fn status<T>(outcome: Option<T>) -> c_int {
    if outcome.is_some() { OK } else { ERROR }
}

unsafe extern "C" fn acquire(engine: *mut c_void) -> *const Native {
    // SAFETY: `waferdb.h` wants the GIL for this call.
    let py = unsafe { Python::assume_attached() };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: null, or a borrowed reference to an object that the caller keeps alive.
        let engine = unsafe { Bound::from_borrowed_ptr_or_opt(py, engine.cast()) }
            .ok_or_else(|| PyTypeError::new_err("acquire: the engine is NULL"))?;
        let store = store_of(&engine)?;
        let process = home::process();
        Ok(Arc::into_raw(Arc::new(Native { store, process, poisoned: AtomicBool::new(false) })))
    }));
    outcome
        .unwrap_or_else(|panic| Err(PyRuntimeError::new_err(panic_text(&*panic))))
        .unwrap_or_else(|error: PyErr| {
            error.restore(py);
            ptr::null()
        })
}

unsafe extern "C" fn release(native: *const Native) {
    if native.is_null() {
        return;
    }
    // SAFETY: made by `acquire`, given back once.
    let native = unsafe { Arc::from_raw(native) };
    drop_here(native.process, native);
}

/// Drops what this process owns and leaks what it inherited by a fork.
fn drop_here<T>(process: u64, value: T) {
    if process != home::process() {
        std::mem::forget(value);
    } else if catch_unwind(AssertUnwindSafe(|| drop(value))).is_err() {
        // The engine keeps what it had: the panic hook has told why, and no caller waits here.
    }
}

unsafe extern "C" fn structure_id(
    native: *const Native,
    name: *const c_char,
    name_len: usize,
    id: *mut u32,
    error: *mut ErrorText,
) -> c_int {
    let native = dereference!(native, error, ERROR);
    let run = || {
        // SAFETY: `waferdb.h`: borrowed for the call.
        let name = unsafe { borrow(name.cast(), name_len, "name") }?;
        let name = std::str::from_utf8(name)
            .map_err(|_| Error::argument("the name of a structure is UTF-8"))?;
        let found = structure_named(&native.store, name)?;
        // SAFETY: `waferdb.h`: null or writable.
        unsafe { answer(id, found) };
        Ok(())
    };
    // SAFETY: `waferdb.h`: null or writable.
    status(unsafe { native.call(error, run) })
}

/// # Safety
/// As `borrow`, for the key and the value.
unsafe fn operation(
    structure: u32,
    key: *const u8,
    key_len: usize,
    value: Option<(*const u8, usize)>,
) -> Result<Operation, Failure> {
    // SAFETY: the caller's promise.
    let key = unsafe { borrow(key, key_len, "key") }?.into();
    let value = match value {
        // SAFETY: the caller's promise.
        Some((data, len)) => Some(unsafe { borrow(data, len, "value") }?.into()),
        None => None,
    };
    Ok(Operation { structure, key, value })
}

unsafe extern "C" fn put(
    native: *const Native,
    structure: u32,
    key: *const u8,
    key_len: usize,
    value: *const u8,
    value_len: usize,
    lsn: *mut u64,
    error: *mut ErrorText,
) -> c_int {
    let native = dereference!(native, error, ERROR);
    let run = || {
        // SAFETY: `waferdb.h`: borrowed for the call.
        let write = unsafe { operation(structure, key, key_len, Some((value, value_len))) }?;
        let committed = commit(&native.store, slice::from_ref(&write), Mode::Single)?;
        // SAFETY: `waferdb.h`: null or writable.
        unsafe { answer(lsn, committed) };
        Ok(())
    };
    // SAFETY: `waferdb.h`: null or writable.
    status(unsafe { native.call(error, run) })
}

unsafe extern "C" fn delete_key(
    native: *const Native,
    structure: u32,
    key: *const u8,
    key_len: usize,
    lsn: *mut u64,
    error: *mut ErrorText,
) -> c_int {
    let native = dereference!(native, error, ERROR);
    let run = || {
        // SAFETY: `waferdb.h`: borrowed for the call.
        let write = unsafe { operation(structure, key, key_len, None) }?;
        let committed = commit(&native.store, slice::from_ref(&write), Mode::Single)?;
        // SAFETY: `waferdb.h`: null or writable.
        unsafe { answer(lsn, committed) };
        Ok(())
    };
    // SAFETY: `waferdb.h`: null or writable.
    status(unsafe { native.call(error, run) })
}

unsafe extern "C" fn get(
    native: *const Native,
    structure: u32,
    key: *const u8,
    key_len: usize,
    out: *mut Buffer,
    error: *mut ErrorText,
) -> c_int {
    let native = dereference!(native, error, ERROR);
    // SAFETY: `waferdb.h`: null or writable.
    unsafe { answer(out, Buffer { data: ptr::null_mut(), len: 0 }) };
    let run = || {
        // SAFETY: `waferdb.h`: borrowed for the call.
        let key = unsafe { borrow(key, key_len, "key") }?;
        Ok(read(&native.store, structure, key)?)
    };
    // SAFETY: `waferdb.h`: null or writable.
    match unsafe { native.call(error, run) } {
        None => ERROR,
        Some(None) => ABSENT,
        Some(Some(value)) => {
            if !value.is_empty() && !out.is_null() {
                let len = value.len();
                let data = Box::into_raw(value.into_boxed_slice()).cast::<u8>();
                // SAFETY: not null, and `waferdb.h` wants it writable.
                unsafe { out.write(Buffer { data, len }) };
            }
            OK
        }
    }
}

unsafe extern "C" fn buffer_free(buffer: *mut Buffer) {
    // SAFETY: `waferdb.h`: null or writable.
    let Some(buffer) = (unsafe { buffer.as_mut() }) else { return };
    let data = std::mem::replace(&mut buffer.data, ptr::null_mut());
    let len = std::mem::take(&mut buffer.len);
    if !data.is_null() {
        // SAFETY: made by `get` from a boxed slice of this length, and given back once: the
        // caller's copy was emptied above.
        drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(data, len)) });
    }
}

unsafe extern "C" fn batch_new(native: *const Native, error: *mut ErrorText) -> *mut Batch {
    let handle = dereference!(native, error, ptr::null_mut());
    // SAFETY: `error` as `waferdb.h` wants it; the handle was made by `Arc::into_raw` and is alive,
    // so counting one more owner and taking it is sound.
    let batch = unsafe {
        handle.call(error, || {
            Arc::increment_strong_count(native);
            Ok(Batch { native: Arc::from_raw(native), operations: Vec::new(), bytes: 0 })
        })
    };
    batch.map_or(ptr::null_mut(), |batch| Box::into_raw(Box::new(batch)))
}

/// Adds one write to a batch, within the bounds of one commit.
///
/// # Safety
/// The pointers are as `waferdb.h` wants them.
unsafe fn batch_add(
    batch: *mut Batch,
    structure: u32,
    key: *const u8,
    key_len: usize,
    value: Option<(*const u8, usize)>,
    error: *mut ErrorText,
) -> c_int {
    let native = Arc::clone(&dereference!(batch, error, ERROR).native);
    let run = || {
        // SAFETY: not null, and `waferdb.h` gives a batch to one thread at a time.
        let batch = unsafe { &mut *batch };
        let bytes = batch.bytes.saturating_add(key_len).saturating_add(value.map_or(0, |v| v.1));
        if bytes > COMMIT_BYTES_MAX || batch.operations.len() >= COMMIT_OPS_MAX {
            return Err(Failure::from(Error::limit(format!(
                "a batch holds at most {COMMIT_BYTES_MAX} bytes and {COMMIT_OPS_MAX} operations; \
                 this write was not added: commit the batch, then go on with it"
            ))));
        }
        // SAFETY: the caller's promise.
        let write = unsafe { operation(structure, key, key_len, value) }?;
        batch.operations.push(write);
        batch.bytes = bytes;
        Ok(())
    };
    // SAFETY: the caller's promise.
    status(unsafe { native.call(error, run) })
}

unsafe extern "C" fn batch_put(
    batch: *mut Batch,
    structure: u32,
    key: *const u8,
    key_len: usize,
    value: *const u8,
    value_len: usize,
    error: *mut ErrorText,
) -> c_int {
    // SAFETY: the pointers are as `waferdb.h` wants them.
    unsafe { batch_add(batch, structure, key, key_len, Some((value, value_len)), error) }
}

unsafe extern "C" fn batch_delete(
    batch: *mut Batch,
    structure: u32,
    key: *const u8,
    key_len: usize,
    error: *mut ErrorText,
) -> c_int {
    // SAFETY: the pointers are as `waferdb.h` wants them.
    unsafe { batch_add(batch, structure, key, key_len, None, error) }
}

unsafe extern "C" fn batch_commit(
    batch: *mut Batch,
    lsn: *mut u64,
    error: *mut ErrorText,
) -> c_int {
    let native = Arc::clone(&dereference!(batch, error, ERROR).native);
    let run = || {
        // SAFETY: not null, and `waferdb.h` gives a batch to one thread at a time.
        let batch = unsafe { &mut *batch };
        let committed = match batch.operations.as_slice() {
            [] => 0,
            operations => commit(&native.store, operations, Mode::Batch)?,
        };
        batch.operations.clear();
        batch.bytes = 0;
        // SAFETY: `waferdb.h`: null or writable.
        unsafe { answer(lsn, committed) };
        Ok(())
    };
    // SAFETY: `waferdb.h`: null or writable.
    status(unsafe { native.call(error, run) })
}

unsafe extern "C" fn batch_free(batch: *mut Batch) {
    if batch.is_null() {
        return;
    }
    // SAFETY: made by `batch_new`, given back once.
    let batch = unsafe { Box::from_raw(batch) };
    drop_here(batch.native.process, batch);
}
