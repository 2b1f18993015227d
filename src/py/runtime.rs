//! Runtimes as Python holds them, the default one, and the end of the process.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::link::lock::Mutex;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use super::bridge::forget_closed_loops;
use super::convert::finite_timeout;
use super::forked::{OF_PARENT, own};
use super::operation::{Operation, Poll};
use super::park::{Blocking, release_idle, run};
use super::waiting::Await;
use crate::link::read::Park;
use crate::link::runtime;

/// How long the end of the process waits for what was accepted to be written.
const EXIT_FLUSH: Duration = Duration::from_millis(250);
const EXIT_LOOK: Duration = Duration::from_millis(5);

/// Both locks are taken and released with the interpreter attached, so that no fork finds them held.
static DEFAULT: Mutex<Option<Arc<runtime::Runtime>>> = Mutex::new(None);
static ALL: Mutex<Vec<Weak<runtime::Runtime>>> = Mutex::new(Vec::new());

/// The runtime named by `runtime=`, or the default one.
pub fn runtime_of(given: Option<&Bound<'_, PyAny>>) -> PyResult<Arc<runtime::Runtime>> {
    let Some(given) = given else {
        return Ok(default_runtime());
    };
    let wrong = |_| {
        let kind = given.get_type().name().map(|name| name.to_string()).unwrap_or_default();
        PyTypeError::new_err(format!("runtime must be a netasync.Runtime, not {kind}"))
    };
    let handle = given.cast::<Runtime>().map_err(wrong)?;
    Ok(Arc::clone(own(&handle.get().runtime)?))
}

/// The default one of this process: a forked child has its own.
fn default_runtime() -> Arc<runtime::Runtime> {
    let mut default = DEFAULT.lock();
    if let Some(known) = default.as_ref().filter(|known| known.birth().is_here()) {
        return Arc::clone(known);
    }
    let runtime = Arc::default();
    enrol(&runtime);
    if let Some(of_parent) = default.replace(Arc::clone(&runtime)) {
        leave(of_parent);
    }
    runtime
}

/// Never takes apart what the parent's thread runs.
fn leave(of_parent: Arc<runtime::Runtime>) {
    std::mem::forget(of_parent);
}

fn enrol(runtime: &Arc<runtime::Runtime>) {
    let mut all = ALL.lock();
    all.retain(|known| known.strong_count() > 0);
    all.push(Arc::downgrade(runtime));
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
        if !self.runtime.birth().is_here() {
            leave(Arc::clone(&self.runtime));
        } else if self.runtime.is_idle() {
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
    fn running(&self) -> PyResult<bool> {
        Ok(!own(&self.runtime)?.is_shut_down())
    }

    fn __repr__(&self) -> String {
        let state = match self.running() {
            Err(_) => OF_PARENT,
            Ok(true) => "running",
            Ok(false) => "shut down",
        };
        format!("<netasync.Runtime {state}>")
    }

    /// Begins to shut down; awaiting the answer waits for the end.
    fn _wait_shutdown(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Await> {
        own(&self.runtime)?.shut_down(finite_timeout(timeout)?);
        Ok(Await::new(Operation::ShutDown(Arc::clone(&self.runtime))))
    }

    /// Begins to shut down and waits for the end in this thread.
    fn _shutdown(&self, py: Python<'_>, timeout: &Bound<'_, PyAny>) -> PyResult<()> {
        own(&self.runtime)?.shut_down(finite_timeout(timeout)?);
        run(py, &mut Operation::ShutDown(Arc::clone(&self.runtime)), None)?;
        self._join(py)
    }

    /// After the end: the thread is joined, and descriptors that nobody uses any more are given back.
    fn _join(&self, py: Python<'_>) -> PyResult<()> {
        let runtime = own(&self.runtime)?;
        py.detach(|| runtime.join());
        release_idle();
        forget_closed_loops(py);
        Ok(())
    }
}

/// What these hold goes out.
struct Flushing(Vec<Arc<runtime::Runtime>>);

impl Blocking for Flushing {
    fn attempt(&mut self, py: Python<'_>) -> PyResult<Poll> {
        self.0.iter().for_each(|runtime| runtime.flush());
        let has_unsent = self.0.iter().any(|runtime| runtime.has_unsent());
        Ok(if has_unsent { Poll::Pending } else { Poll::Ready(py.None()) })
    }

    fn wait(&self, park: &Arc<Park>, _: Option<Duration>) {
        park.wait(Some(EXIT_LOOK));
    }
}

/// The end of the process: what was accepted is written for at most 250 ms.
#[pyfunction]
pub fn flush_at_exit(py: Python<'_>) -> PyResult<()> {
    let known: Vec<_> = ALL.lock().iter().filter_map(Weak::upgrade).collect();
    let (runtimes, of_parent): (Vec<_>, Vec<_>) = known.into_iter().partition(|runtime| runtime.birth().is_here());
    of_parent.into_iter().for_each(leave);
    match run(py, &mut Flushing(runtimes), Some(EXIT_FLUSH)) {
        Err(error) if !error.is_instance_of::<pyo3::exceptions::PyTimeoutError>(py) => Err(error),
        _ => Ok(()),
    }
}
