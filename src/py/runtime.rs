//! Runtimes as Python holds them, the default one, and the end of the process.

use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use super::bridge::forget_closed_loops;
use super::convert::Number;
use super::operation::{Operation, Poll};
use super::park::{block_on, release_idle, run};
use super::waiting::Await;
use crate::link::runtime;
use crate::proto::options::seconds;

/// How long the end of the process waits for what was accepted to be written.
const EXIT_FLUSH: Duration = Duration::from_millis(250);
const EXIT_LOOK: Duration = Duration::from_millis(5);

static DEFAULT: LazyLock<Arc<runtime::Runtime>> = LazyLock::new(Arc::default);
static ALL: LazyLock<Mutex<Vec<Weak<runtime::Runtime>>>> = LazyLock::new(Mutex::default);

/// The runtime named by `runtime=`, or the default one.
pub fn runtime_of(given: Option<&Bound<'_, PyAny>>) -> PyResult<Arc<runtime::Runtime>> {
    let Some(given) = given else {
        let runtime = Arc::clone(&DEFAULT);
        enrol(&runtime);
        return Ok(runtime);
    };
    let wrong = |_| {
        let kind = given.get_type().name().map(|name| name.to_string()).unwrap_or_default();
        PyTypeError::new_err(format!("runtime must be a netasync.Runtime, not {kind}"))
    };
    let handle = given.cast::<Runtime>().map_err(wrong)?;
    Ok(Arc::clone(&handle.get().runtime))
}

fn enrol(runtime: &Arc<runtime::Runtime>) {
    let mut all = ALL.lock();
    all.retain(|known| known.strong_count() > 0);
    if !all.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(runtime))) {
        all.push(Arc::downgrade(runtime));
    }
}

/// Owns sockets and timers for the connections and listeners that name it. A handle: its thread starts
/// with the first of them and ends with `shutdown`.
#[pyclass(subclass, frozen, weakref, module = "netasync._native")]
pub struct Runtime {
    runtime: Arc<runtime::Runtime>,
}

/// Nobody can start anything any more: without connections its thread has nothing to do.
impl Drop for Runtime {
    fn drop(&mut self) {
        if self.runtime.is_idle() {
            self.runtime.shut_down(Duration::ZERO);
        }
    }
}

#[pymethods]
impl Runtime {
    #[new]
    fn new() -> Self {
        let runtime = Arc::default();
        enrol(&runtime);
        Self { runtime }
    }

    /// Whether it may be used: True until `shutdown` is called.
    #[getter]
    fn running(&self) -> bool {
        !self.runtime.is_shut_down()
    }

    fn __repr__(&self) -> String {
        let state = if self.running() { "running" } else { "shut down" };
        format!("<netasync.Runtime {state}>")
    }

    /// Begins to shut down; awaiting the answer waits for the end.
    fn _wait_shutdown(&self, timeout: Number) -> PyResult<Await> {
        self.runtime.shut_down(shutdown_timeout(timeout)?);
        Ok(Await::new(Operation::ShutDown(Arc::clone(&self.runtime))))
    }

    /// Begins to shut down and waits for the end in this thread.
    fn _shutdown(&self, py: Python<'_>, timeout: Number) -> PyResult<()> {
        self.runtime.shut_down(shutdown_timeout(timeout)?);
        run(py, &mut Operation::ShutDown(Arc::clone(&self.runtime)), None)?;
        self._join(py);
        Ok(())
    }

    /// After the end: the thread is joined, and descriptors that nobody uses any more are given back.
    fn _join(&self, py: Python<'_>) {
        py.detach(|| self.runtime.join());
        release_idle();
        forget_closed_loops(py);
    }
}

fn shutdown_timeout(Number(value): Number) -> PyResult<Duration> {
    if value == 0.0 {
        return Ok(Duration::ZERO);
    }
    Ok(seconds("timeout", value)?)
}

/// The end of the process: what was accepted is written for at most 250 ms.
#[pyfunction]
pub fn flush_at_exit(py: Python<'_>) -> PyResult<()> {
    let runtimes: Vec<_> = ALL.lock().iter().filter_map(Weak::upgrade).collect();
    let is_flushed = |py: Python<'_>| {
        runtimes.iter().for_each(|runtime| runtime.flush());
        let has_unsent = runtimes.iter().any(|runtime| runtime.has_unsent());
        Ok(if has_unsent { Poll::Pending } else { Poll::Ready(py.None()) })
    };
    let flushed = block_on(py, Some(EXIT_FLUSH), is_flushed, |park, _| park.wait(Some(EXIT_LOOK)));
    match flushed {
        Err(error) if !error.is_instance_of::<pyo3::exceptions::PyTimeoutError>(py) => Err(error),
        _ => Ok(()),
    }
}
