//! Messages as Python gives them, and numbers with a meaning.

use std::mem::MaybeUninit;
use std::time::Duration;

use pyo3::exceptions::{PyBufferError, PyMemoryError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyList};

use super::events::error_class;
use crate::link::link::Link;
use crate::proto::memory;
use crate::proto::options::{Invalid, Protocol};
use crate::proto::receipts::Goal;

impl From<Invalid> for PyErr {
    fn from(Invalid(text): Invalid) -> Self {
        PyValueError::new_err(text)
    }
}

/// A message: `bytes` as they are, anything else by the buffer protocol. Content at the call counts.
pub enum Payload<'py> {
    Bytes(Bound<'py, PyBytes>),
    Buffer(View),
}

impl<'py> Payload<'py> {
    /// # Errors
    /// `TypeError` when `data` is not a C-contiguous bytes-like object; `ValueError` when it is empty;
    /// `MessageTooLarge` when it is above `max_size`.
    pub fn new(data: &Bound<'py, PyAny>, link: &Link) -> PyResult<Self> {
        let payload = match data.cast::<PyBytes>() {
            Ok(bytes) => Self::Bytes(bytes.clone()),
            Err(_) => Self::Buffer(View::new(data)?),
        };
        let (length, max_size) = (payload.as_slice().len(), link.max_size());
        if length < link.options().protocol.least_size() {
            let text = "an empty message cannot be sent on the net.async wire: length 0 is its heartbeat";
            return Err(PyValueError::new_err(text));
        }
        if length > max_size {
            let text = format!("a message may have at most {max_size} bytes (max_size), not {length}");
            return Err(error_class(data.py(), "MessageTooLarge", text));
        }
        Ok(payload)
    }

    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.as_bytes(),
            Self::Buffer(view) => view.as_slice(),
        }
    }

    /// The content as it is now, for a call that has to wait.
    ///
    /// # Errors
    /// `MemoryError` when there is none for a copy.
    pub fn keep(self) -> PyResult<Kept> {
        match self {
            Self::Bytes(bytes) => Ok(Kept::Bytes(bytes.unbind())),
            Self::Buffer(view) => {
                let data = view.as_slice();
                memory::copy(data).map(Kept::Copy).map_err(|_| no_memory(data.len()))
            }
        }
    }
}

/// There is no memory for a message of this length; it stays where it was.
pub fn no_memory(length: usize) -> PyErr {
    PyMemoryError::new_err(format!("no memory for a message of {length} bytes"))
}

/// A `bytes` object; None where there is no memory for one. Nothing of Python's runs meanwhile.
pub fn try_bytes<'py>(py: Python<'py>, data: &[u8]) -> Option<Bound<'py, PyBytes>> {
    let length = ffi::Py_ssize_t::try_from(data.len()).ok()?;
    // SAFETY: attached; `data` has so many bytes, and on success the result is a new reference to a `bytes`.
    unsafe {
        let bytes = ffi::PyBytes_FromStringAndSize(data.as_ptr().cast(), length);
        if bytes.is_null() {
            // The error is raised anew, with words, where no lock is held.
            ffi::PyErr_Clear();
            return None;
        }
        Some(Bound::from_owned_ptr(py, bytes).cast_into_unchecked())
    }
}

/// A message that waits for room.
pub enum Kept {
    Bytes(Py<PyBytes>),
    Copy(Vec<u8>),
}

impl Kept {
    pub fn as_slice<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes.as_bytes(py),
            Self::Copy(copy) => copy,
        }
    }
}

/// An empty list.
///
/// # Errors
/// `MemoryError`.
pub fn try_list(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    // SAFETY: attached; on success the result is a new reference to a list.
    unsafe { Ok(Bound::from_owned_ptr_or_err(py, ffi::PyList_New(0))?.cast_into_unchecked()) }
}

/// Appends to a list that nobody else knows; false where there is no memory for that. As `try_bytes`.
pub fn try_append(list: &Bound<'_, PyList>, item: &Bound<'_, PyAny>) -> bool {
    // SAFETY: attached; both are alive, and the call takes a reference of its own.
    unsafe {
        let is_there = ffi::PyList_Append(list.as_ptr(), item.as_ptr()) == 0;
        if !is_there {
            ffi::PyErr_Clear();
        }
        is_there
    }
}

/// An exported buffer. Lives on the stack of one call, with the interpreter attached.
pub struct View {
    // Boxed: exporters may keep pointers into it.
    view: Box<ffi::Py_buffer>,
}

impl View {
    fn new(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut view: Box<MaybeUninit<ffi::Py_buffer>> = Box::new(MaybeUninit::zeroed());
        // SAFETY: `data` is alive, `view` is writable; on success the exporter has filled it.
        let status = unsafe { ffi::PyObject_GetBuffer(data.as_ptr(), view.as_mut_ptr(), ffi::PyBUF_SIMPLE) };
        if status != 0 {
            let error = PyErr::fetch(data.py());
            if error.is_instance_of::<PyBufferError>(data.py()) {
                return Err(PyTypeError::new_err("data must be a C-contiguous bytes-like object"));
            }
            return Err(error);
        }
        // SAFETY: PyObject_GetBuffer returned 0.
        let view = unsafe { view.assume_init() };
        Ok(Self { view })
    }

    fn as_slice(&self) -> &[u8] {
        let length = usize::try_from(self.view.len).unwrap_or(0);
        if length == 0 {
            return &[];
        }
        // SAFETY: a simple buffer is `len` contiguous bytes for as long as it is exported, and nobody can
        // write to them while this thread stays attached.
        unsafe { std::slice::from_raw_parts(self.view.buf.cast::<u8>(), length) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: filled by PyObject_GetBuffer and released once.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.view) }
    }
}

/// An integer argument: no bool, no float, and out of range is a `ValueError`.
#[derive(Debug, Clone, Copy)]
pub struct Integer(pub i64);

impl<'py> FromPyObject<'_, 'py> for Integer {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if !is_integer(&value) {
            return Err(PyTypeError::new_err(format!("an integer is needed, not {}", kind(&value))));
        }
        let out_of_range = |_| PyValueError::new_err(String::from("the number is out of range: beyond 64 bits"));
        value.extract().map(Self).map_err(out_of_range)
    }
}

/// A number of seconds, or any other real number: no bool, and out of range is a `ValueError`.
#[derive(Debug, Clone, Copy)]
pub struct Number(pub f64);

impl<'py> FromPyObject<'_, 'py> for Number {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if !is_number(&value) {
            return Err(PyTypeError::new_err(format!("a number is needed, not {}", kind(&value))));
        }
        let out_of_range = |_| PyValueError::new_err(String::from("the number is out of range: too large for a float"));
        value.extract().map(Self).map_err(out_of_range)
    }
}

pub fn is_integer(value: &Bound<'_, PyAny>) -> bool {
    value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyBool>()
}

pub fn is_number(value: &Bound<'_, PyAny>) -> bool {
    is_integer(value) || value.is_instance_of::<PyFloat>()
}

/// The name of a value's type.
pub fn kind(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| String::from("that"), |name| name.to_string())
}

/// `timeout=` of a blocking call: None waits for ever.
pub fn timeout(value: Option<Number>) -> PyResult<Option<Duration>> {
    let Some(Number(value)) = value else { return Ok(None) };
    if value.is_nan() || value < 0.0 {
        return Err(PyValueError::new_err(format!("timeout must be at least 0 s, not {value} s").to_lowercase()));
    }
    // What does not fit is longer than anybody waits.
    Ok(Duration::try_from_secs_f64(value).ok())
}

/// `confirm=`, which needs a wire that confirms.
pub fn goal(confirm: &str, link: &Link) -> PyResult<Goal> {
    let goal = match confirm {
        "received" => Goal::Received,
        "consumed" => Goal::Consumed,
        other => {
            let text = format!("confirm must be 'received', 'consumed' or None, not {other:?}");
            return Err(PyValueError::new_err(text));
        }
    };
    if link.options().protocol == Protocol::Classic {
        return Err(PyValueError::new_err("confirm needs a protocol that confirms single messages"));
    }
    Ok(goal)
}

/// Returns `value` from `__next__`: raises `StopIteration(value)` by hand, which takes 69 ns in place of 175.
pub fn stop_iteration(_py: Python<'_>, value: Py<PyAny>) -> PyResult<Option<Py<PyAny>>> {
    // PyErr_SetObject unpacks tuples and takes exceptions for the instance itself: those are wrapped.
    // SAFETY: attached; both checks read the type of a live object.
    let must_wrap =
        unsafe { ffi::PyTuple_Check(value.as_ptr()) != 0 || ffi::PyExceptionInstance_Check(value.as_ptr()) != 0 };
    if must_wrap {
        return Err(pyo3::exceptions::PyStopIteration::new_err((value,)));
    }
    // SAFETY: attached; the call takes its own references. A None from tp_iternext with an error set
    // means that error.
    unsafe { ffi::PyErr_SetObject(ffi::PyExc_StopIteration, value.as_ptr()) };
    Ok(None)
}
