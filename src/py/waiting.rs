//! What `await` iterates over: tries in the consumer's own step, and yields a future only while there
//! is nothing. So a cancelled wait has taken nothing and sent nothing.

use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyBaseException, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;

use super::bridge::Bridge;
use super::callback::{Callback, Task};
use super::convert::stop_iteration;
use super::forked::check;
use super::operation::{Operation, Poll};
use super::park::nothing_within;
use super::waiter::LoopWaiter;
use crate::link::clock;
use crate::link::fork::Birth;
use crate::link::turn;
use crate::link::wake::Waker;
use crate::link::write::From;
use crate::proto::Moment;

#[pyclass(module = "netasync._native")]
pub struct Await {
    birth: Birth,
    operation: Operation,
    waiter: Option<Arc<LoopWaiter>>,
    /// The caller has just tried in vain: waiting comes first, and tries again under the lock.
    was_tried: bool,
    limit: Option<Limit>,
}

/// `timeout=` of an awaited call.
struct Limit {
    length: Duration,
    until: Moment,
    /// The loop's timer, while a task waits.
    timer: Option<Py<PyAny>>,
}

impl Await {
    pub fn new(operation: Operation) -> Self {
        Self { birth: Birth::here(), operation, waiter: None, was_tried: false, limit: None }
    }

    /// For an operation that was tried in vain, or not at all because the turn was over.
    pub fn after_a_try(operation: Operation) -> Self {
        Self { birth: Birth::here(), operation, waiter: None, was_tried: true, limit: None }
    }

    /// With a time after which it raises `TimeoutError`, from now on.
    pub fn within(operation: Operation, limit: Option<Duration>) -> Self {
        let mut waiting = Self::new(operation);
        waiting.limit = limit.map(|length| Limit { length, until: clock::now().saturating_add(length), timer: None });
        waiting
    }

    /// The wait is over and nothing was taken: whoever waits next is told, if this one was told already.
    fn give_up(&mut self) {
        if !self.birth.is_here() {
            // What waits belongs to the parent.
            self.waiter = None;
            return;
        }
        self.stop_timer();
        if let Some(waiter) = self.waiter.take() {
            waiter.forget();
            self.operation.disarm(&(waiter as Waker));
        }
    }

    /// Something was taken, by a wake or without one.
    fn settle(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            self.operation.settle(&(waiter as Waker));
        }
    }

    /// The task runs again. One that nobody has woken leaves its place first; one that was keeps its wake
    /// until it has tried, to pass it on should it be cancelled before that.
    fn resume(&mut self) {
        self.stop_timer();
        if self.waiter.as_ref().is_some_and(|waiter| !waiter.is_done()) {
            self.give_up();
        }
    }

    /// Notes a waiter wherever it is to be woken. None when another try would not be in vain.
    fn arm(&mut self, py: Python<'_>) -> PyResult<Option<Arc<LoopWaiter>>> {
        let no_loop = || PyRuntimeError::new_err("no running event loop");
        let bridge = Bridge::running(py)?.ok_or_else(no_loop)?;
        let waiter = LoopWaiter::new(&bridge);
        let waker: Waker = Arc::clone(&waiter) as Waker;
        if !self.operation.arm(py, &bridge, &waker)? {
            return Ok(None);
        }
        self.waiter = Some(Arc::clone(&waiter));
        if let Some(limit) = &mut self.limit {
            let left = limit.until.saturating_sub(clock::now()).as_secs_f64();
            let callback = Callback::of(py, Arc::clone(&bridge), Task::TimedOut(Arc::clone(&waiter)))?;
            let timer = bridge.event_loop(py)?.call_method1(intern!(py, "call_later"), (left, callback))?;
            limit.timer = Some(timer.unbind());
        }
        Ok(Some(waiter))
    }

    fn stop_timer(&mut self) {
        let Some(timer) = self.limit.as_mut().and_then(|limit| limit.timer.take()) else { return };
        Python::attach(|py| {
            // Also while an exception passes: it must find its way alone.
            let on_its_way = PyErr::take(py);
            if let Err(error) = timer.call_method0(py, intern!(py, "cancel")) {
                error.write_unraisable(py, Some(timer.bind(py)));
            }
            if let Some(error) = on_its_way {
                error.restore(py);
            }
        });
    }

    /// How long it was to wait, if that is over.
    fn overrun(&self) -> Option<Duration> {
        self.limit.as_ref().filter(|limit| clock::now() >= limit.until).map(|limit| limit.length)
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
        if turn::is_over() {
            turn::yielded();
            return Ok(Some(py.None()));
        }
        loop {
            if !std::mem::take(&mut self.was_tried) {
                let polled = self.operation.poll(py, From::Loop);
                match polled.inspect_err(|_| self.give_up())? {
                    Poll::Ready(value) => {
                        self.settle();
                        turn::spend(items_in(&self.operation, value.bind(py)));
                        return stop_iteration(py, value);
                    }
                    Poll::Yield => {
                        turn::yielded();
                        return Ok(Some(py.None()));
                    }
                    Poll::Pending => self.give_up(),
                }
            }
            if let Some(limit) = self.overrun() {
                return Err(nothing_within(limit));
            }
            if let Some(waiter) = self.arm(py)? {
                turn::waits();
                return Ok(Some(waiter.future(py)?.unbind()));
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

/// How many items the outcome of an operation stands for.
fn items_in(operation: &Operation, outcome: &Bound<'_, PyAny>) -> usize {
    match operation {
        Operation::RecvMany(..) => outcome.len().unwrap_or(1),
        Operation::SendMany(_) => operation.accepted(),
        _ => 1,
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
