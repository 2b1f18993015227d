//! The listener as Python holds it, for tasks and for threads.

use std::sync::Arc;

use crate::link::lock::Mutex;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType, PyWeakrefMethods, PyWeakrefReference};

use super::convert::timeout;
use super::events;
use super::face::{self, Face, core_of};
use super::forked::{OF_PARENT, own};
use super::operation::{self, Operation};
use super::park::run;
use super::waiting::Await;
use crate::link::listener;
use crate::proto::events::Reason;

static CLASSES: PyOnceLock<(Py<PyType>, Py<PyType>)> = PyOnceLock::new();

/// Names the classes of `netasync.aio` and `netasync.blocking`.
#[pyfunction]
pub fn register_listeners(py: Python<'_>, task: Py<PyType>, thread: Py<PyType>) {
    // Registered once, at import; a second import of the same module names the same classes.
    let _ = CLASSES.set(py, (task, thread));
}

/// What the faces of one listener share. The last to go closes it.
pub struct Shared {
    listener: Arc<listener::Listener>,
    task: Mutex<Option<Py<PyWeakrefReference>>>,
    thread: Mutex<Option<Py<PyWeakrefReference>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.listener.birth().is_here() || self.listener.is_closing() {
            return;
        }
        self.listener.close(Reason::ClosedHere);
        face::warn_of_drop(c"a netasync listener was dropped without close()");
    }
}

/// What faces are made from; users never see it.
#[pyclass(frozen, module = "netasync._native", name = "ListenerCore")]
pub struct Core {
    shared: Arc<Shared>,
}

impl Core {
    pub fn new(listener: Arc<listener::Listener>) -> Self {
        let shared = Shared { listener, task: Mutex::new(None), thread: Mutex::new(None) };
        Self { shared: Arc::new(shared) }
    }
}

/// The face for tasks or threads: the one that is alive, or a new one.
pub fn face(py: Python<'_>, core: Core, kind: Face) -> PyResult<Py<PyAny>> {
    let shared = Arc::clone(&core.shared);
    let place = if kind == Face::Task { &shared.task } else { &shared.thread };
    let known = place.lock().as_ref().map(|known| known.clone_ref(py));
    if let Some(known) = known.and_then(|known| known.bind(py).upgrade()) {
        return Ok(known.unbind());
    }
    let (task, thread) = CLASSES.get(py).expect("netasync registers its classes when it is imported");
    let class = if kind == Face::Task { task } else { thread };
    let face = class.bind(py).call1((core,))?;
    let weak = PyWeakrefReference::new(&face)?.unbind();
    *place.lock() = Some(weak);
    Ok(face.unbind())
}

/// What never waits, the same for tasks and threads.
#[pyclass(subclass, frozen, weakref, module = "netasync._native")]
pub struct Listener {
    shared: Arc<Shared>,
}

impl Listener {
    pub fn listener(&self) -> PyResult<&Arc<listener::Listener>> {
        own(&self.shared.listener)
    }

    fn accept_nowait(&self, py: Python<'_>, kind: Face) -> PyResult<Py<PyAny>> {
        let empty = || events::error_class(py, "BufferEmpty", "no connection waits to be accepted");
        operation::accept(py, self.listener()?, kind)?.ok_or_else(empty)
    }

    fn connections<'py>(&self, py: Python<'py>, kind: Face) -> PyResult<Bound<'py, PyTuple>> {
        let handles = self.listener()?.connections();
        let faces: PyResult<Vec<_>> = handles.iter().map(|handle| face::face(py, handle, kind)).collect();
        PyTuple::new(py, faces?)
    }
}

#[pymethods]
impl Listener {
    #[new]
    #[pyo3(signature = (*core), text_signature = "(core)")]
    fn new(core: &Bound<'_, PyTuple>) -> PyResult<Self> {
        let core: Bound<'_, Core> = core_of(core, "use listen() to get a listener")?;
        Ok(Self { shared: Arc::clone(&core.get().shared) })
    }

    /// The bound address, usable as a target. In a forked child too, which may dial its parent.
    #[getter]
    fn address(&self) -> String {
        self.shared.listener.address()
    }

    /// The name given with `name=`, or None. In a forked child too.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.shared.listener.name()
    }

    /// A frozen `ListenerStats`. Never waits; any thread.
    fn stats(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        events::listener_stats(py, &self.listener()?.stats())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let listener = &slf.get().shared.listener;
        let name = listener.name().map_or(String::new(), |name| format!(" {name:?}"));
        let state = match listener.birth().is_here() {
            false => OF_PARENT,
            true if listener.is_closing() => "closed",
            true => "listening",
        };
        let class = slf.get_type();
        Ok(format!("<{}.{}{name} {state} on {}>", class.module()?, class.qualname()?, listener.address()))
    }

    /// Stops listening and returns at once.
    fn _close(&self) -> PyResult<()> {
        self.listener()?.close(Reason::ClosedHere);
        Ok(())
    }
}

/// For tasks: what `netasync/aio.py` awaits.
#[pyclass(subclass, frozen, extends = Listener, module = "netasync._native")]
pub struct TaskListener;

#[pymethods]
impl TaskListener {
    #[new]
    #[pyo3(signature = (*core), text_signature = "(core)")]
    fn new(core: &Bound<'_, PyTuple>) -> PyResult<PyClassInitializer<Self>> {
        Ok(PyClassInitializer::from(Listener::new(core)?).add_subclass(Self))
    }

    /// The connection that waits longest, or `Closed`.
    ///
    /// Raises:
    ///     BufferEmpty: none waits.
    fn accept_nowait(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        slf.as_super().get().accept_nowait(slf.py(), Face::Task)
    }

    /// The connections that are alive, those that wait to be accepted included: a snapshot.
    #[getter]
    fn connections<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        slf.as_super().get().connections(slf.py(), Face::Task)
    }

    fn _wait_accept(slf: &Bound<'_, Self>) -> PyResult<Await> {
        let listener = Arc::clone(slf.as_super().get().listener()?);
        Ok(Await::new(Operation::Accept(listener, Face::Task)))
    }

    fn _wait_closed(slf: &Bound<'_, Self>) -> PyResult<Await> {
        let listener = Arc::clone(slf.as_super().get().listener()?);
        Ok(Await::new(Operation::ListenerClosed(listener)))
    }

    fn _blocking(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        slf.as_super().get().listener()?;
        face(slf.py(), Core { shared: Arc::clone(&slf.as_super().get().shared) }, Face::Thread)
    }
}

/// For threads.
#[pyclass(subclass, frozen, extends = Listener, module = "netasync._native")]
pub struct ThreadListener;

#[pymethods]
impl ThreadListener {
    #[new]
    #[pyo3(signature = (*core), text_signature = "(core)")]
    fn new(core: &Bound<'_, PyTuple>) -> PyResult<PyClassInitializer<Self>> {
        Ok(PyClassInitializer::from(Listener::new(core)?).add_subclass(Self))
    }

    /// Waits for the next connection.
    ///
    /// Args:
    ///     timeout: seconds; None waits for ever.
    ///
    /// Returns:
    ///     A `netasync.blocking.Connection`, or `Closed` when the listener is closed.
    ///
    /// Raises:
    ///     TimeoutError: none came in time; none is lost, by Ctrl-C neither.
    #[pyo3(signature = (timeout = None))]
    fn accept(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let mut operation = Operation::Accept(Arc::clone(slf.as_super().get().listener()?), Face::Thread);
        run(slf.py(), &mut operation, self::timeout(timeout)?)
    }

    /// The connection that waits longest, or `Closed`.
    ///
    /// Raises:
    ///     BufferEmpty: none waits.
    fn accept_nowait(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        slf.as_super().get().accept_nowait(slf.py(), Face::Thread)
    }

    /// Stops listening, and waits until the port is free. Accepted connections live on until their link breaks;
    /// those that have none at this moment end with `SESSION_EXPIRED`, for nobody is there to come back to.
    /// Those that nobody accepted are closed.
    ///
    /// Args:
    ///     timeout: seconds; None waits for ever.
    ///
    /// Returns:
    ///     The `Closed` value.
    ///
    /// Raises:
    ///     TimeoutError: not in time; closing goes on, after Ctrl-C too.
    #[pyo3(signature = (timeout = None))]
    fn close(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        self::timeout(timeout)?;
        slf.as_super().get()._close()?;
        Self::wait_closed(slf, timeout)
    }

    /// Waits for the end.
    ///
    /// Args:
    ///     timeout: seconds; None waits for ever.
    ///
    /// Returns:
    ///     The `Closed` value, once the port is free.
    ///
    /// Raises:
    ///     TimeoutError: not in time. Ctrl-C interrupts within 100 ms.
    #[pyo3(signature = (timeout = None))]
    fn wait_closed(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let mut operation = Operation::ListenerClosed(Arc::clone(slf.as_super().get().listener()?));
        run(slf.py(), &mut operation, self::timeout(timeout)?)
    }

    /// The connections that are alive, those that wait to be accepted included: a snapshot.
    #[getter]
    fn connections<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        slf.as_super().get().connections(slf.py(), Face::Thread)
    }

    fn _aio(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        slf.as_super().get().listener()?;
        face(slf.py(), Core { shared: Arc::clone(&slf.as_super().get().shared) }, Face::Task)
    }
}
