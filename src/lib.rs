//! netasync: reliable messages over TCP for Python.

#[cfg(feature = "python")]
#[pyo3::pymodule(gil_used = true)]
mod _native {}
