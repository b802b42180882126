//! Conversion of arguments and answers: keys, text, counts, vectors, values.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyTypeError, PyUnicodeEncodeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString};
use waferdb::changes::Part;

use crate::errors::made;

/// A key as it is given: text (as UTF-8) or bytes. Borrowed from its Python object.
#[derive(Clone, Copy)]
pub struct Key<'a>(pub &'a [u8]);

impl<'a, 'py> FromPyObject<'a, 'py> for Key<'a> {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if object.is_instance_of::<PyString>() {
            return utf8(object).map(|text| Self(text.as_bytes()));
        }
        match object.extract::<&'a [u8]>() {
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => Err(PyTypeError::new_err(format!(
                "a key is str or bytes, not {}",
                object.get_type().name()?
            ))),
        }
    }
}

/// Text that can be stored: without lone surrogates.
#[derive(Clone, Copy)]
pub struct Text<'a>(pub &'a str);

impl<'a, 'py> FromPyObject<'a, 'py> for Text<'a> {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if object.is_instance_of::<PyString>() {
            return utf8(object).map(Self);
        }
        Err(PyTypeError::new_err(format!("expected str, not {}", object.get_type().name()?)))
    }
}

fn utf8<'a>(text: Borrowed<'a, '_, PyAny>) -> PyResult<&'a str> {
    let py = text.py();
    text.extract::<&'a str>().map_err(|error| {
        if !error.is_instance_of::<PyUnicodeEncodeError>(py) {
            return error;
        }
        let message = format!(
            "text with a lone surrogate cannot be stored ({}): decode it with errors=\"replace\"",
            error.value(py)
        );
        made(py, "document", &message, None, None)
    })
}

/// A number of things, an LSN: not negative. Whatever is too large for any is the largest.
#[derive(Clone, Copy)]
pub struct Natural(pub u64);

impl Natural {
    pub fn count(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Natural {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(number) = object.extract::<u64>() {
            return Ok(Self(number));
        }
        let py = object.py();
        let Ok(number) = object.cast::<PyInt>() else {
            return Err(PyTypeError::new_err(format!(
                "expected int, not {}",
                object.get_type().name()?
            )));
        };
        if number.lt(0)? {
            let message = format!("{} is negative", clipped(&number.to_string()));
            return Err(made(py, "argument", &message, None, None));
        }
        Ok(Self(u64::MAX))
    }
}

fn clipped(digits: &str) -> &str {
    digits.get(..24).unwrap_or(digits)
}

/// Keys of a sequence, to be borrowed from while it is held.
pub fn keys_of<'a>(objects: &'a [Bound<'_, PyAny>]) -> PyResult<Vec<&'a [u8]>> {
    objects.iter().map(|object| Ok(object.as_borrowed().extract::<Key<'a>>()?.0)).collect()
}

pub fn texts_of<'a>(objects: &'a [Bound<'_, PyAny>]) -> PyResult<Vec<&'a str>> {
    objects.iter().map(|object| Ok(object.as_borrowed().extract::<Text<'a>>()?.0)).collect()
}

/// Float32 in one piece, in row-major order.
pub struct Floats(PyBuffer<f32>);

impl<'a, 'py> FromPyObject<'a, 'py> for Floats {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let wrong = |_| {
            let given = object.get_type();
            PyTypeError::new_err(format!("vectors are buffers of native float32, not {given}"))
        };
        let buffer = PyBuffer::<f32>::get(&object).map_err(wrong)?;
        if !buffer.is_c_contiguous() {
            return Err(PyTypeError::new_err(
                "vectors are contiguous in row-major order: pass numpy.ascontiguousarray(vectors)",
            ));
        }
        Ok(Self(buffer))
    }
}

impl Floats {
    /// The components, for a call that lets other threads run.
    pub fn to_vec(&self, py: Python<'_>) -> PyResult<Vec<f32>> {
        self.0.to_vec(py)
    }

    /// The components, while no other Python thread can change them.
    pub fn as_slice<'a>(&'a self, _attached: Python<'a>) -> &'a [f32] {
        if self.0.item_count() == 0 {
            return &[];
        }
        // SAFETY: the buffer is contiguous, aligned (checked by `PyBuffer::get`) and of this many
        // f32; it is held for 'a, and the GIL is held too, so nobody writes to it meanwhile.
        unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast(), self.0.item_count()) }
    }
}

pub fn bytes<'py>(py: Python<'py>, value: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, value)
}

/// A key as the structure has it.
pub fn key_object<'py>(py: Python<'py>, raw: bool, key: &[u8]) -> Bound<'py, PyAny> {
    match std::str::from_utf8(key) {
        Ok(text) if !raw => PyString::new(py, text).into_any(),
        _ => bytes(py, key).into_any(),
    }
}

pub fn part_object<'py>(py: Python<'py>, part: &Part) -> Bound<'py, PyAny> {
    match part {
        Part::Text(text) => PyString::new(py, text).into_any(),
        Part::Bytes(key) => bytes(py, key).into_any(),
    }
}
