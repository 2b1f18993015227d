//! One waiting task. It awaits an ordinary `asyncio.Future`, for which the C task has a short way in and
//! out (a look-alike in its place costs a fifth of all that the interpreter does in a round trip); the
//! wake-up, though, is called straight from a loop callback.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::link::lock::Mutex;
use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyType};

use super::bridge::{Bridge, Work};
use super::callback::{self, Resuming};
use super::context;
use super::wakeup::TaskWakeup;
use crate::link::wake::Wake;

static FUTURE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static DONE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// One waiting task, as the core sees it.
pub struct LoopWaiter {
    bridge: Arc<Bridge>,
    is_woken: AtomicBool,
    /// What the task awaits, until it is told to look again.
    future: Mutex<Option<Py<PyAny>>>,
    /// One that was awaited and not completed, for the next wait.
    spare: Mutex<Option<Py<PyAny>>>,
}

impl Wake for LoopWaiter {
    fn wake(self: Arc<Self>) -> bool {
        let bridge = Arc::clone(&self.bridge);
        bridge.push(Work::Resume(self))
    }
}

impl LoopWaiter {
    pub fn new(bridge: &Arc<Bridge>) -> Arc<Self> {
        if let Some(spare) = callback::take_spare().filter(|spare| Arc::ptr_eq(&spare.bridge, bridge)) {
            spare.is_woken.store(false, Ordering::Relaxed);
            return spare;
        }
        let waiter = Arc::new(Self {
            bridge: Arc::clone(bridge),
            is_woken: AtomicBool::new(false),
            future: Mutex::new(None),
            spare: Mutex::new(None),
        });
        bridge.waiter_came(&waiter);
        waiter
    }

    /// On the loop's thread: what the task is to await.
    pub fn future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let spare = self.spare.lock().take();
        let future = match spare.filter(is_ours_alone) {
            Some(spare) => spare.into_bound(py),
            None => future_of(&self.bridge.event_loop(py)?)?,
        };
        future.setattr(intern!(py, "_asyncio_future_blocking"), PyBool::new(py, true))?;
        *self.future.lock() = Some(future.clone().unbind());
        Ok(future)
    }

    /// On the loop's thread, from a loop callback: tells the task to look again.
    pub fn resume(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let Some(future) = self.woken() else { return Ok(()) };
        let future = future.into_bound(py);
        match TaskWakeup::of(&future)? {
            Some(wakeup) if self.bridge.resumes_directly(&future)? => self.enter(future, &wakeup),
            _ => complete(&future),
        }
    }

    /// Enters the task at once in place of a further turn of the loop (1–2 µs on uvloop, 5–14 on asyncio).
    /// The task only asks what it is given whether all went well, so the future need not be completed, and serves
    /// for the next wait.
    fn enter(self: Arc<Self>, future: Bound<'_, PyAny>, wakeup: &TaskWakeup<'_>) -> PyResult<()> {
        let py = future.py();
        let (done, bridge, awaited) = (done(py)?, Arc::clone(&self.bridge), future.as_ptr());
        if !context::enter(wakeup.context()) {
            return complete(&future);
        }
        let outcome = wakeup.leave(&future).and_then(|()| {
            *self.spare.lock() = Some(future.unbind());
            callback::keep_spare(self);
            let _resuming = Resuming::note(&bridge, wakeup.context());
            wakeup.call(done)
        });
        context::exit(wakeup.context());
        let Err(error) = outcome else { return Ok(()) };
        if !error.is_instance_of::<PyException>(py) {
            return Err(error);
        }
        let Some(future) = wakeup.unentered(awaited) else { return bridge.raise_soon(py, error) };
        // Another task is running, so this one could not be entered: it goes the ordinary way. Its future is no spare:
        // to cancel a task whose future is done stops its next step, and not a wait.
        bridge.was_nested();
        callback::forget_spare();
        wakeup.come_back(&future)?;
        complete(&future)
    }

    /// As `resume`, by way of the loop: nothing of the task runs now.
    pub fn resume_soon(&self, py: Python<'_>) -> PyResult<()> {
        self.woken().map_or(Ok(()), |future| complete(future.bind(py)))
    }

    /// Whether the task was told to look again.
    pub fn is_done(&self) -> bool {
        self.is_woken.load(Ordering::Relaxed)
    }

    /// Nobody waits any more.
    pub fn forget(&self) {
        drop(self.woken());
    }

    fn woken(&self) -> Option<Py<PyAny>> {
        self.is_woken.store(true, Ordering::Relaxed);
        // The lock is gone before the task runs: it will come here again.
        self.future.lock().take()
    }
}

impl Drop for LoopWaiter {
    fn drop(&mut self) {
        self.bridge.waiter_left();
    }
}

/// Wakes whoever awaits `future` by the loop's next turn.
fn complete(future: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
        future.call_method1(intern!(py, "set_result"), (py.None(),))?;
    }
    Ok(())
}

/// Whether nobody else knows the future, to await it, to cancel it or to complete it.
fn is_ours_alone(future: &Py<PyAny>) -> bool {
    // SAFETY: a live object.
    unsafe { ffi::Py_REFCNT(future.as_ptr()) == 1 }
}

/// A future that nobody has completed yet.
fn future_of<'py>(event_loop: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "loop"), event_loop)?;
    FUTURE.import(py, "asyncio", "Future")?.call((), Some(&keywords))
}

/// A future that went well, of no loop: what a task is resumed with.
fn done(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    let make = || {
        let keywords = PyDict::new(py);
        // All that a future asks its loop for is whether it debugs; `bool()` is False.
        keywords.set_item("get_debug", py.get_type::<PyBool>())?;
        let no_loop = py.import("types")?.getattr("SimpleNamespace")?.call((), Some(&keywords))?;
        let done = future_of(&no_loop)?;
        done.call_method1("set_result", (py.None(),))?;
        Ok::<_, PyErr>(done.unbind())
    };
    DONE.get_or_try_init(py, make).map(|done| done.bind(py))
}
