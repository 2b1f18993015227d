//! Values and errors, which are declared in Python, as the core names them.

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use crate::link::listener::ListenerStats;
use crate::link::runtime::NotStarted;
use crate::proto::account::Stats;
use crate::proto::endpoint::State;
use crate::proto::events::{Closed, Event, Reason};

static VALUES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static ERRORS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn values(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    let module =
        VALUES.get_or_try_init(py, || py.import("netasync.values").map(|module| module.into_any().unbind()))?;
    Ok(module.bind(py))
}

fn errors(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    let module =
        ERRORS.get_or_try_init(py, || py.import("netasync.errors").map(|module| module.into_any().unbind()))?;
    Ok(module.bind(py))
}

/// An exception of `netasync.errors`.
pub fn error_class(py: Python<'_>, name: &str, text: impl Into<String>) -> PyErr {
    match errors(py).and_then(|errors| errors.getattr(name)?.call1((text.into(),))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

pub fn closed_error(py: Python<'_>) -> PyErr {
    error_class(py, "ClosedError", "the connection has ended: nobody will take this message")
}

pub fn shut_down_error(py: Python<'_>) -> PyErr {
    error_class(py, "ClosedError", "the runtime was shut down")
}

/// Why a connection or a listener did not begin.
pub fn not_started(py: Python<'_>, why: &NotStarted) -> PyErr {
    match why {
        NotStarted::ShutDown => shut_down_error(py),
        NotStarted::System(error) => os_error(error, ""),
    }
}

/// An `OSError` with its `errno`, of the fitting subclass; `subject` names what it is about.
pub fn os_error(error: &std::io::Error, subject: &str) -> PyErr {
    let behind = if subject.is_empty() { String::new() } else { format!(": {subject}") };
    match error.raw_os_error() {
        Some(number) => {
            // The plain words, without the number that Python puts in front of them.
            let text = std::io::Error::from_raw_os_error(number).to_string();
            let text = text.split(" (os error").next().unwrap_or_default().to_owned();
            PyOSError::new_err((number, format!("{text}{behind}")))
        }
        None => PyOSError::new_err(format!("{error}{behind}")),
    }
}

fn reason<'py>(py: Python<'py>, reason: Reason) -> PyResult<Bound<'py, PyAny>> {
    values(py)?.getattr("Reason")?.getattr(reason.name())
}

/// A value of `netasync.values` with these fields.
fn build(py: Python<'_>, name: &str, fields: &[(&str, Bound<'_, PyAny>)]) -> PyResult<Py<PyAny>> {
    let keywords = PyDict::new(py);
    for (field, value) in fields {
        keywords.set_item(field, value)?;
    }
    Ok(values(py)?.getattr(name)?.call((), Some(&keywords))?.unbind())
}

fn any<'py, T: IntoPyObject<'py>>(py: Python<'py>, value: T) -> PyResult<Bound<'py, PyAny>> {
    value.into_bound_py_any(py)
}

pub fn event(py: Python<'_>, event: &Event) -> PyResult<Py<PyAny>> {
    match event {
        Event::Connected(connected) => build(
            py,
            "Connected",
            &[
                ("resumed", any(py, connected.resumed)?),
                ("redelivered", any(py, connected.redelivered)?),
                ("lost", any(py, connected.lost)?),
                ("attempt", any(py, connected.attempt)?),
                ("peer", any(py, &connected.peer)?),
            ],
        ),
        Event::Disconnected(disconnected) => build(
            py,
            "Disconnected",
            &[
                ("reason", reason(py, disconnected.reason)?),
                ("detail", any(py, &disconnected.detail)?),
                ("attempt", any(py, disconnected.attempt)?),
                ("retry_in", any(py, disconnected.retry_in.map(|wait| wait.as_secs_f64()))?),
                ("unconfirmed", any(py, disconnected.unconfirmed)?),
            ],
        ),
        Event::Closed(end) => closed(py, end),
    }
}

pub fn closed(py: Python<'_>, closed: &Closed) -> PyResult<Py<PyAny>> {
    let fields = [
        ("reason", reason(py, closed.reason)?),
        ("detail", any(py, &closed.detail)?),
        ("undelivered", any(py, closed.undelivered)?),
    ];
    build(py, "Closed", &fields)
}

pub fn state(py: Python<'_>, state: State) -> PyResult<Py<PyAny>> {
    let name = match state {
        State::Connecting => "CONNECTING",
        State::Connected => "CONNECTED",
        State::Disconnected => "DISCONNECTED",
        State::Closing => "CLOSING",
        State::Closed => "CLOSED",
    };
    Ok(values(py)?.getattr("State")?.getattr(name)?.unbind())
}

pub fn stats(py: Python<'_>, stats: &Stats) -> PyResult<Py<PyAny>> {
    let fields = [
        ("accepted", stats.accepted),
        ("confirmed", stats.confirmed),
        ("unconfirmed", stats.unconfirmed),
        ("queued", stats.queued),
        ("write_dropped", stats.write_dropped),
        ("lost", stats.lost),
        ("received", stats.received),
        ("consumed", stats.consumed),
        ("waiting", stats.waiting),
        ("read_dropped", stats.read_dropped),
        ("redelivered", stats.redelivered),
        ("bytes_sent", stats.bytes_sent),
        ("bytes_received", stats.bytes_received),
        ("links", stats.links),
        ("attempts", stats.attempts),
    ];
    counters(py, "Stats", &fields)
}

pub fn listener_stats(py: Python<'_>, stats: &ListenerStats) -> PyResult<Py<PyAny>> {
    let fields = [
        ("accepted", stats.accepted),
        ("waiting", stats.waiting),
        ("refused", stats.refused),
        ("connections", stats.connections),
    ];
    counters(py, "ListenerStats", &fields)
}

fn counters(py: Python<'_>, name: &str, fields: &[(&str, u64)]) -> PyResult<Py<PyAny>> {
    let fields: PyResult<Vec<_>> = fields.iter().map(|(field, value)| Ok((*field, any(py, *value)?))).collect();
    build(py, name, &fields?)
}
