//! Which interpreter of a process may have us: the main one. Classes, and what Python objects we keep, are made once
//! for a process and would be shared with a sub-interpreter, which is gone one day.

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Asked before anything is made.
///
/// # Errors
/// `ImportError` in a sub-interpreter.
pub fn check(_py: Python<'_>) -> PyResult<()> {
    // SAFETY: attached, so there is a present interpreter; the main one lives as long as any.
    let is_main = unsafe { ffi::PyInterpreterState_Get() == ffi::PyInterpreterState_Main() };
    if is_main { Ok(()) } else { Err(PyImportError::new_err("netasync does not support loading in subinterpreters")) }
}
