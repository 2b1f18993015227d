//! `select`: takes the first item that one of several handles has.

use std::sync::Arc;
use std::time::Duration;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::bridge::Bridge;
use super::convert::{kind, timeout};
use super::face::Face;
use super::handle::Connection;
use super::listening::{Listener, ThreadListener};
use super::operation::{self, Operation};
use super::park::run;
use super::receiving::recv;
use super::waiting::Await;
use crate::link::driver::LoopDriver;
use crate::link::read::Park;
use crate::link::select::{Source, wait_in_thread};
use crate::link::wake::Waker;

/// Handles in the order in which they are asked, at least one.
pub struct Select {
    choices: Vec<Choice>,
}

struct Choice {
    /// What the caller gave, and gets back. It keeps the handle alive.
    chan: Py<PyAny>,
    source: Source,
    /// For whom a connection that it accepts is shown.
    kind: Face,
}

impl Select {
    /// # Errors
    /// `ValueError` when there is none, `TypeError` for what has no items.
    fn new(chans: &Bound<'_, PyTuple>) -> PyResult<Self> {
        if chans.is_empty() {
            return Err(PyValueError::new_err("select needs at least one connection, listener or channel, not 0"));
        }
        let choices: PyResult<_> = chans.iter().map(|chan| Choice::new(&chan)).collect();
        Ok(Self { choices: choices? })
    }

    /// The first that is ready, and what it had.
    pub fn poll(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        for choice in &self.choices {
            if let Some(item) = choice.take(py)? {
                return Ok(Some((choice.chan.clone_ref(py), item).into_py_any(py)?));
            }
        }
        Ok(None)
    }

    /// A task is about to wait. False when another try would not be in vain; then it waits nowhere.
    pub fn arm(&self, py: Python<'_>, bridge: &Arc<Bridge>, waker: &Waker) -> PyResult<bool> {
        let driver: Arc<dyn LoopDriver> = Arc::clone(bridge) as _;
        for choice in &self.choices {
            if let Source::Items(link) = &choice.source {
                bridge.after(py, link, link.end_turn())?;
            }
        }
        let waits = |choice: &Choice| choice.source.wait_on_loop(&driver, waker);
        let Some(place) = self.choices.iter().position(|choice| !waits(choice)) else {
            return Ok(true);
        };
        self.choices.iter().take(place).for_each(|choice| choice.source.leave(waker));
        Ok(false)
    }

    /// A waiter leaves all of them; where it was woken already the wake is passed on.
    pub fn disarm(&self, waker: &Waker) {
        self.choices.iter().for_each(|choice| choice.source.leave(waker));
    }

    /// A thread waits, detached.
    pub fn wait(&self, park: &Arc<Park>, limit: Option<Duration>) {
        wait_in_thread(self.choices.iter().map(|choice| &choice.source), park, limit);
    }
}

impl Choice {
    fn new(chan: &Bound<'_, PyAny>) -> PyResult<Self> {
        let wrong = || {
            let text = "select takes connections, listeners and their read and accept channels";
            PyTypeError::new_err(format!("{text}, not {}", kind(chan)))
        };
        let is_handle = chan.is_instance_of::<Connection>() || chan.is_instance_of::<Listener>();
        let handle = if is_handle { Some(chan.clone()) } else { chan.getattr_opt(intern!(chan.py(), "_source"))? };
        let handle = handle.ok_or_else(wrong)?;
        let is_for_threads = handle.is_instance_of::<ThreadListener>();
        let source = if let Ok(connection) = handle.cast::<Connection>() {
            Source::Items(Arc::clone(connection.get().link()?))
        } else {
            Source::Connections(Arc::clone(handle.cast::<Listener>().map_err(|_| wrong())?.get().listener()?))
        };
        let kind = if is_for_threads { Face::Thread } else { Face::Task };
        Ok(Self { chan: chan.clone().unbind(), source, kind })
    }

    fn take(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        match &self.source {
            Source::Items(link) => recv(py, link),
            Source::Connections(listener) => operation::accept(py, listener, self.kind),
        }
    }
}

/// For `netasync.select`, which awaits it.
#[pyfunction]
#[pyo3(signature = (chans, timeout))]
pub fn wait_select(chans: &Bound<'_, PyTuple>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Await> {
    let limit = self::timeout(timeout)?;
    Ok(Await::within(Operation::Select(Select::new(chans)?), limit))
}

/// Waits for whichever of several handles has something first, and takes exactly that one item.
///
/// The others lose nothing. A handle that has ended is always ready, as with `recv` and `accept`.
///
/// Args:
///     chans: connections, listeners and their read and accept channels, at least one, of threads or of
///         asyncio; where several are ready, the first of them counts.
///     timeout: seconds; None waits for ever, 0 only looks.
///
/// Returns:
///     The one of `chans` that had something, itself, and its item: what its `recv` or `accept` returns.
///
/// Raises:
///     TimeoutError: nothing came in time; nothing is lost. Ctrl-C interrupts within 100 ms, and loses
///         nothing while waiting.
///     TypeError: one of `chans` is something else.
///     ValueError: there are none, or `timeout` is negative.
#[pyfunction]
#[pyo3(signature = (*chans, timeout = None))]
pub fn select(chans: &Bound<'_, PyTuple>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
    let limit = self::timeout(timeout)?;
    run(chans.py(), &mut Operation::Select(Select::new(chans)?), limit)
}
