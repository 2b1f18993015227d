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

/// The extension module; `netasync/__init__.py` is its only importer. A function and not a list of exports: those
/// would be made before anything could be asked.
#[cfg(feature = "python")]
#[pyo3::pymodule(gil_used = true)]
fn _native(module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
    use pyo3::types::PyModuleMethods;
    use pyo3::wrap_pyfunction;

    py::interpreter::check(module.py())?;
    link::fork::listen().map_err(|error| py::events::os_error(&error, ""))?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<py::handle::Connection>()?;
    module.add_class::<py::handle::TaskConnection>()?;
    module.add_class::<py::handle::ThreadConnection>()?;
    module.add_class::<py::listening::Listener>()?;
    module.add_class::<py::listening::TaskListener>()?;
    module.add_class::<py::listening::ThreadListener>()?;
    module.add_class::<py::options::Backoff>()?;
    module.add_class::<py::options::Buffer>()?;
    module.add_class::<py::runtime::Runtime>()?;
    module.add_class::<py::waiting::Await>()?;
    module.add_function(wrap_pyfunction!(py::face::register, module)?)?;
    module.add_function(wrap_pyfunction!(py::forked::after_fork_in_child, module)?)?;
    module.add_function(wrap_pyfunction!(py::listening::register_listeners, module)?)?;
    module.add_function(wrap_pyfunction!(py::options::connect, module)?)?;
    module.add_function(wrap_pyfunction!(py::options::defaults, module)?)?;
    module.add_function(wrap_pyfunction!(py::options::listen, module)?)?;
    module.add_function(wrap_pyfunction!(py::options::reasons, module)?)?;
    module.add_function(wrap_pyfunction!(py::runtime::flush_at_exit, module)?)?;
    module.add_function(wrap_pyfunction!(py::select::select, module)?)?;
    module.add_function(wrap_pyfunction!(py::select::wait_select, module)?)
}
