//! Messages as Python gives them, and numbers with a meaning.

use std::mem::MaybeUninit;
use std::time::Duration;

use pyo3::exceptions::{PyMemoryError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyList, PyString};

use super::events::error_class;
use crate::link::link::Link;
use crate::proto::memory;
use crate::proto::options::{Invalid, Protocol};
use crate::proto::receipts::Goal;

/// A hundred years: longer than anybody waits.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

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
    /// `TypeError` when `data` is no bytes-like object; `ValueError` when it is not C-contiguous, or empty on a wire
    /// that cannot say so; `MessageTooLarge` when it is above `max_size`.
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
        Self::of(data, ffi::PyBUF_SIMPLE).map_err(|error| {
            // Each exporter has words of its own for what is not contiguous. That it is, and that nothing else
            // is wrong, shows where it exports the same with its strides.
            let is_bytes_like = !error.is_instance_of::<PyTypeError>(data.py());
            if is_bytes_like && Self::of(data, ffi::PyBUF_FULL_RO).is_ok() {
                return PyValueError::new_err("data must be C-contiguous; bytes(data) makes a copy that is");
            }
            error
        })
    }

    fn of(data: &Bound<'_, PyAny>, flags: std::ffi::c_int) -> PyResult<Self> {
        let mut view: Box<MaybeUninit<ffi::Py_buffer>> = Box::new(MaybeUninit::zeroed());
        // SAFETY: `data` is alive, `view` is writable; on success the exporter has filled it.
        let status = unsafe { ffi::PyObject_GetBuffer(data.as_ptr(), view.as_mut_ptr(), flags) };
        if status != 0 {
            return Err(PyErr::fetch(data.py()));
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

/// An argument that may be missing, where None would not stand for that.
pub struct Given<'py>(Option<Bound<'py, PyAny>>);

impl Given<'_> {
    pub const MISSING: Self = Self(None);

    pub fn number(&self, name: &str, default: f64) -> PyResult<f64> {
        self.0.as_ref().map_or(Ok(default), |value| number(value, name))
    }

    pub fn choice(&self, name: &str, choices: &str, default: &str) -> PyResult<String> {
        self.0.as_ref().map_or_else(|| Ok(default.to_owned()), |value| choice(value, name, choices))
    }
}

impl<'py> FromPyObject<'_, 'py> for Given<'py> {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(Some(value.to_owned())))
    }
}

/// An integer: no bool, no float, and out of range is a `ValueError`.
pub fn integer(value: &Bound<'_, PyAny>, name: &str) -> PyResult<i64> {
    if !is_integer(value) {
        return Err(PyTypeError::new_err(format!("{name} must be an integer, not {}", kind(value))));
    }
    value.extract().map_err(|_| PyValueError::new_err(format!("{name} is out of range: beyond 64 bits")))
}

/// A real number: no bool, and out of range is a `ValueError`.
pub fn number(value: &Bound<'_, PyAny>, name: &str) -> PyResult<f64> {
    real(value, name, "a number")
}

/// The same, of seconds.
pub fn seconds(value: &Bound<'_, PyAny>, name: &str) -> PyResult<f64> {
    real(value, name, "a number of seconds")
}

fn real(value: &Bound<'_, PyAny>, name: &str, what: &str) -> PyResult<f64> {
    if !is_number(value) {
        return Err(PyTypeError::new_err(format!("{name} must be {what}, not {}", kind(value))));
    }
    value.extract().map_err(|_| PyValueError::new_err(format!("{name} is out of range: too large for a float")))
}

/// One of several words, which the message names. Whether it is one of them is for the caller to see.
pub fn choice(value: &Bound<'_, PyAny>, name: &str, choices: &str) -> PyResult<String> {
    let wrong = |_| PyTypeError::new_err(format!("{name} must be {choices}, not {}", kind(value)));
    Ok(value.cast::<PyString>().map_err(wrong)?.to_cow()?.into_owned())
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

/// `timeout=` of a call that waits: None waits for ever, and so does what is longer than anybody waits.
pub fn timeout(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Duration>> {
    let Some(value) = value else { return Ok(None) };
    let value = seconds(value, "timeout")?;
    if value.is_nan() || value < 0.0 {
        return Err(PyValueError::new_err(format!("timeout must be at least 0 s, not {value} s").to_lowercase()));
    }
    Ok(Duration::try_from_secs_f64(value).ok().filter(|limit| *limit < FOR_EVER))
}

/// `timeout=` where None stands for something else than for ever.
pub fn finite_timeout(value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    Ok(timeout(Some(value))?.unwrap_or(FOR_EVER))
}

/// `confirm=`, which needs a wire that confirms.
pub fn goal(confirm: &Bound<'_, PyAny>, link: &Link) -> PyResult<Goal> {
    let choices = "'received', 'consumed' or None";
    let goal = match choice(confirm, "confirm", choices)?.as_str() {
        "received" => Goal::Received,
        "consumed" => Goal::Consumed,
        other => {
            return Err(PyValueError::new_err(format!("confirm must be {choices}, not {other:?}")));
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
