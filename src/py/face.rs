//! The Python objects that stand for one connection: at most one of each kind is alive at a time.

use std::ffi::CStr;
use std::sync::Arc;

use crate::link::lock::Mutex;
use pyo3::PyTypeInfo;
use pyo3::exceptions::{PyResourceWarning, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType, PyWeakrefMethods, PyWeakrefReference};

use crate::link::handle::Handle;

/// For whom a connection is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    Task,
    Thread,
}

/// The Python classes that stand for a connection.
static CLASSES: PyOnceLock<(Py<PyType>, Py<PyType>)> = PyOnceLock::new();

/// The faces of one connection that are alive: there is one of each kind at a time.
#[derive(Default)]
struct Faces {
    task: Option<Py<PyWeakrefReference>>,
    thread: Option<Py<PyWeakrefReference>>,
}

/// Names the classes of `netasync.aio` and `netasync.blocking`.
#[pyfunction]
pub fn register(py: Python<'_>, task: Py<PyType>, thread: Py<PyType>) {
    // Registered once, at import; a second import of the same module names the same classes.
    let _ = CLASSES.set(py, (task, thread));
}

/// The face of `handle` for tasks or threads: the one that is alive, or a new one.
pub fn face(py: Python<'_>, handle: &Arc<Handle>, kind: Face) -> PyResult<Py<PyAny>> {
    let known = {
        let faces = handle.face.lock();
        let faces = faces.as_ref().and_then(|faces| faces.downcast_ref::<Mutex<Faces>>());
        faces.and_then(|faces| {
            let faces = faces.lock();
            let face = if kind == Face::Task { &faces.task } else { &faces.thread };
            face.as_ref().map(|face| face.clone_ref(py))
        })
    };
    if let Some(known) = known.and_then(|known| known.bind(py).upgrade()) {
        return Ok(known.unbind());
    }
    let (task, thread) = CLASSES.get(py).expect("netasync registers its classes when it is imported");
    let class = if kind == Face::Task { task } else { thread };
    let face = class.bind(py).call1((Core { handle: Arc::clone(handle) },))?;
    let weak = PyWeakrefReference::new(&face)?.unbind();
    let mut slot = handle.face.lock();
    let faces = slot.get_or_insert_with(|| Box::new(Mutex::new(Faces::default())));
    if let Some(faces) = faces.downcast_ref::<Mutex<Faces>>() {
        let mut faces = faces.lock();
        let place = if kind == Face::Task { &mut faces.task } else { &mut faces.thread };
        *place = Some(weak);
    }
    Ok(face.unbind())
}

/// Says that a handle was dropped and not closed. It may have been dropped while an exception is on its way:
/// that one comes back, as if nobody had been here.
pub fn warn_of_drop(text: &CStr) {
    Python::attach(|py| {
        let on_its_way = PyErr::take(py);
        if let Err(error) = PyErr::warn(py, &py.get_type::<PyResourceWarning>(), text, 1) {
            error.write_unraisable(py, None);
        }
        if let Some(error) = on_its_way {
            error.restore(py);
        }
    });
}

/// The core that a face is made from.
///
/// # Errors
/// `TypeError` with what to call instead: users make no faces.
pub fn core_of<'py, T: PyTypeInfo>(arguments: &Bound<'py, PyTuple>, instead: &'static str) -> PyResult<Bound<'py, T>> {
    let core = arguments.get_item(0).ok().and_then(|core| core.cast_into::<T>().ok());
    core.ok_or_else(|| PyTypeError::new_err(instead))
}

/// What faces are made from; users never see it.
#[pyclass(frozen, module = "netasync._native")]
pub struct Core {
    pub(super) handle: Arc<Handle>,
}
