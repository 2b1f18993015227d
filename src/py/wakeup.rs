//! What resumes a task of asyncio's own: it lies as a callback in the future that the task awaits.

use std::ffi::{c_int, c_void};
use std::ptr;

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

static TASK: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The callback of the one task that awaits a future, and nobody else does.
pub struct TaskWakeup<'py> {
    callback: Bound<'py, PyAny>,
    context: Bound<'py, PyAny>,
}

impl<'py> TaskWakeup<'py> {
    /// None for a future that is done or cancelled, or that somebody else awaits: they are told by its result.
    pub fn of(future: &Bound<'py, PyAny>) -> PyResult<Option<Self>> {
        let py = future.py();
        let found = Found::in_future(future);
        if found.functions != 1 || found.contexts != 1 || found.has_list {
            return Ok(None);
        }
        // SAFETY: attached; the future holds both, and nothing has run since they were seen.
        let (callback, context) =
            unsafe { (Bound::from_borrowed_ptr(py, found.function), Bound::from_borrowed_ptr(py, found.context)) };
        let class = TASK.import(py, "asyncio", "Task")?.as_type_ptr();
        // SAFETY: attached; the self of a live C function is borrowed, and may be null.
        let is_of_task = unsafe {
            let task = ffi::PyCFunction_GetSelf(callback.as_ptr());
            !task.is_null() && ffi::PyObject_TypeCheck(task, class) != 0
        };
        Ok(is_of_task.then_some(Self { callback, context }))
    }

    /// The future forgets the task.
    pub fn leave(&self, future: &Bound<'py, PyAny>) -> PyResult<()> {
        future.call_method1(intern!(future.py(), "remove_done_callback"), (&self.callback,)).map(drop)
    }

    pub fn context(&self) -> &Bound<'py, PyAny> {
        &self.context
    }

    /// Enters the task, with a future that is done.
    pub fn call(&self, done: &Bound<'py, PyAny>) -> PyResult<()> {
        self.callback.call1((done,)).map(drop)
    }

    /// Behind a `call` that failed: the future that was `awaited`, if the task could not be entered, because another one
    /// is running. A task that was entered awaits nothing, or something else, or the same anew, which then has this.
    pub fn unentered(&self, awaited: *mut ffi::PyObject) -> Option<Bound<'py, PyAny>> {
        let py = self.callback.py();
        // SAFETY: attached; `of` has seen that it is a C function, whose self is the task.
        let task = unsafe { Bound::from_borrowed_ptr(py, ffi::PyCFunction_GetSelf(self.callback.as_ptr())) };
        let future = task.getattr(intern!(py, "_fut_waiter")).ok()?;
        let is_awaited = future.as_ptr() == awaited && Found::in_future(&future).functions == 0;
        is_awaited.then_some(future)
    }

    /// As before `leave`.
    pub fn come_back(&self, future: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = future.py();
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "context"), &self.context)?;
        future.call_method(intern!(py, "add_done_callback"), (&self.callback,), Some(&keywords)).map(drop)
    }
}

/// What a future refers to, as it tells the garbage collector. It says the same in `_callbacks`, but makes a list
/// and a tuple for that: 700 of the 13,400 instructions of a round trip.
struct Found {
    function: *mut ffi::PyObject,
    context: *mut ffi::PyObject,
    functions: usize,
    contexts: usize,
    /// Of further callbacks; in a future that is written in Python, of all of them.
    has_list: bool,
}

impl Found {
    fn in_future(future: &Bound<'_, PyAny>) -> Self {
        let (function, context) = (ptr::null_mut(), ptr::null_mut());
        let mut found = Self { function, context, functions: 0, contexts: 0, has_list: false };
        // SAFETY: attached, a live object and its own type's slot; `see` runs nothing of Python's.
        unsafe {
            if let Some(traverse) = (*ffi::Py_TYPE(future.as_ptr())).tp_traverse {
                traverse(future.as_ptr(), see, (&raw mut found).cast());
            }
        }
        found
    }
}

/// Called with each object that the future refers to.
extern "C" fn see(object: *mut ffi::PyObject, found: *mut c_void) -> c_int {
    // SAFETY: what `in_future` handed over, and an object that is alive for as long as the future is.
    unsafe {
        let found = &mut *found.cast::<Found>();
        if ffi::PyCFunction_Check(object) != 0 {
            found.function = object;
            found.functions += 1;
        } else if ffi::PyContext_CheckExact(object) != 0 {
            found.context = object;
            found.contexts += 1;
        } else if ffi::PyList_CheckExact(object) != 0 {
            // In debug mode there is a stack, too, which is a list of another class.
            found.has_list = true;
        }
    }
    0
}
