//! netasync: reliable messages over TCP for Python. This is the map of the house; each room knows only
//! what lies below it.
//!
//! - `py` translates: thin classes over `link`, the bridge to event loops, how tasks and threads wait.
//!   (Feature `python`.)
//! - `link` acts: sockets, threads, clocks, and one supervisor task for each connection. Whoever wants a
//!   message reads it, on its own thread, under one of two locks. (Feature `link`.)
//! - `proto` decides: frames, buffers, values, liveness, back-off and the life of one end, as pure code
//!   that a simulator runs with virtual time. It builds and tests alone, with no feature at all.
//!
//! Everything that waits, iterates or manages contexts for asyncio is Python, in `python/netasync/aio.py`.

pub mod proto;

#[cfg(feature = "link")]
pub mod link;

#[cfg(feature = "python")]
pub mod py;

/// The extension module; `netasync/__init__.py` is its only importer.
#[cfg(feature = "python")]
#[pyo3::pymodule(gil_used = true)]
mod _native {
    #[pymodule_export]
    use crate::py::face::register;
    #[pymodule_export]
    use crate::py::forked::after_fork_in_child;
    #[pymodule_export]
    use crate::py::handle::{Connection, TaskConnection, ThreadConnection};
    #[pymodule_export]
    use crate::py::listening::{Listener, TaskListener, ThreadListener, register_listeners};
    #[pymodule_export]
    use crate::py::options::{Backoff, Buffer, connect, defaults, listen, reasons};
    #[pymodule_export]
    use crate::py::runtime::{Runtime, flush_at_exit};
    #[pymodule_export]
    use crate::py::select::{select, wait_select};
    #[pymodule_export]
    use crate::py::waiting::Await;

    #[pymodule_init]
    fn init(module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        use pyo3::types::PyModuleMethods;

        crate::link::fork::listen().map_err(|error| crate::py::events::os_error(&error, ""))?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
