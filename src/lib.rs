//! netasync: reliable messages over TCP for Python.
pub mod proto;

#[cfg(feature = "link")]
pub mod link;

#[cfg(feature = "python")]
#[pyo3::pymodule(gil_used = true)]
mod _native {}
