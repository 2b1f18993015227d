//! What `await` iterates over: tries in the consumer's own step, and yields a `Waiter` only while there
//! is nothing. So a cancelled wait has taken nothing and sent nothing.

use std::cell::Cell;
use std::sync::Arc;

use pyo3::exceptions::{PyBaseException, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;

use super::bridge::Bridge;
use super::convert::stop_iteration;
use super::forked::check;
use super::operation::{Operation, Poll};
use super::waiter::{LoopWaiter, Waiter};
use crate::link::fork::Birth;
use crate::link::wake::Waker;
use crate::link::write::From;

/// Calls in a row that may succeed without waiting; then one bare yield, so that a firehose cannot
/// starve the loop (at 128 this cost 13–18 %).
const TURN_BUDGET: u32 = 1024;

thread_local! {
    static SPENT: Cell<u32> = const { Cell::new(0) };
}

/// Whether this loop's turn is over. Asked before anything is taken or accepted.
pub fn is_turn_over() -> bool {
    SPENT.get() >= TURN_BUDGET
}

/// Something was taken or accepted without waiting.
pub fn spend() {
    SPENT.set(SPENT.get() + 1);
}

fn begin_turn() {
    SPENT.set(0);
}

#[pyclass(module = "netasync._native")]
pub struct Await {
    birth: Birth,
    operation: Operation,
    waiter: Option<Arc<LoopWaiter>>,
    /// The caller has just tried in vain: waiting comes first, and tries again under the lock.
    was_tried: bool,
}

impl Await {
    pub fn new(operation: Operation) -> Self {
        Self { birth: Birth::here(), operation, waiter: None, was_tried: false }
    }

    /// For an operation that was tried in vain, or not at all because the turn was over.
    pub fn after_a_try(operation: Operation) -> Self {
        Self { birth: Birth::here(), operation, waiter: None, was_tried: true }
    }

    /// The wait is over and nothing was taken: whoever waits next is told, if this one was told already.
    fn give_up(&mut self) {
        if let Some(waiter) = self.waiter.take().filter(|_| self.birth.is_here()) {
            waiter.forget();
            self.operation.disarm(&(waiter as Waker));
        }
    }

    /// The task runs again. One that nobody has woken leaves its place first.
    fn resume(&mut self) {
        let Some(waiter) = self.waiter.take() else {
            return;
        };
        if !waiter.is_done() {
            waiter.forget();
            self.operation.disarm(&(waiter as Waker));
        }
    }
}

#[pymethods]
#[expect(clippy::self_named_constructors, reason = "the name is Python's")]
impl Await {
    fn __await__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        check(self.birth)?;
        self.resume();
        if is_turn_over() {
            begin_turn();
            return Ok(Some(py.None()));
        }
        loop {
            if !std::mem::take(&mut self.was_tried) {
                match self.operation.poll(py, From::Loop)? {
                    Poll::Ready(value) => {
                        spend();
                        return stop_iteration(py, value);
                    }
                    Poll::Yield => return Ok(Some(py.None())),
                    Poll::Pending => {}
                }
            }
            let no_loop = || PyRuntimeError::new_err("no running event loop");
            let bridge = Bridge::running(py)?.ok_or_else(no_loop)?;
            let waiter = LoopWaiter::new(&bridge);
            let waker: Waker = Arc::clone(&waiter) as Waker;
            if self.operation.arm(py, &bridge, &waker)? {
                begin_turn();
                self.waiter = Some(Arc::clone(&waiter));
                return Ok(Some(Py::new(py, Waiter::new(waiter))?.into_any()));
            }
        }
    }

    /// An exception reaches the task that waits here, mostly its cancellation. The place is left at once:
    /// the traceback may keep this alive for as long as it likes, with a wake that others wait for.
    #[pyo3(signature = (kind, value = None, traceback = None, /))]
    fn throw(
        &mut self,
        kind: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Py<PyAny>>> {
        self.give_up();
        Err(thrown(kind, value, traceback)?)
    }

    fn close(&mut self) {
        self.give_up();
    }

    /// For `send_many`: for how many messages `send` would have said True so far.
    #[getter]
    fn accepted(&self) -> usize {
        self.operation.accepted()
    }
}

/// Dropped without a word, by a loop that is closed for example.
impl Drop for Await {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// The exception that a generator's `throw` would raise for these.
fn thrown(
    kind: &Bound<'_, PyAny>,
    value: Option<&Bound<'_, PyAny>>,
    traceback: Option<&Bound<'_, PyAny>>,
) -> PyResult<PyErr> {
    let error = match value {
        _ if kind.is_instance_of::<PyBaseException>() => kind.clone(),
        Some(value) if value.is_instance(kind)? => value.clone(),
        Some(value) => kind.call1((value,))?,
        None => kind.call0()?,
    };
    if let Some(traceback) = traceback {
        error.setattr(intern!(kind.py(), "__traceback__"), traceback)?;
    }
    Ok(PyErr::from_value(error))
}
