//! The context in which an event loop runs a callback of ours. A callback that watches a descriptor always runs in
//! the same one, which can be entered once at a time: a loop that is run within a task that we resume (`nest_asyncio`)
//! could not call us again. So it is left before anything else runs.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit, ffi};

/// The context of one callback, once it is known.
#[derive(Default)]
pub struct Home(OnceLock<Py<PyAny>>);

impl Home {
    /// Out of it until what this returns is dropped. None where this is not what was entered last.
    pub fn leave<'a, 'py>(&'a self, py: Python<'py>) -> Option<Away<'a, 'py>> {
        let home = match self.0.get() {
            Some(home) => home,
            None => self.find(py)?,
        };
        let home = home.bind(py);
        exit(home).then_some(Away(home))
    }

    #[cold]
    fn find(&self, py: Python<'_>) -> Option<&Py<PyAny>> {
        let present = present(py)?.unbind();
        Some(self.0.get_or_init(|| present))
    }

    /// The loop's handle, which has the callback, has this too: a cycle through both is seen through both.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.get().map_or(Ok(()), |home| visit.call(home))
    }
}

/// A context that was left, and is entered again when this goes.
pub struct Away<'a, 'py>(&'a Bound<'py, PyAny>);

impl Drop for Away<'_, '_> {
    fn drop(&mut self) {
        // Nobody else enters it but the loop, whose turns within ours are over.
        let is_back = enter(self.0);
        debug_assert!(is_back, "the context of a callback is free while it runs");
    }
}

/// False when it is entered already.
pub fn enter(context: &Bound<'_, PyAny>) -> bool {
    // SAFETY: attached; what is no contextvars.Context is an error.
    is_done(context.py(), unsafe { ffi::PyContext_Enter(context.as_ptr()) })
}

/// Behind `enter`, in the same thread. False when another was entered since.
pub fn exit(context: &Bound<'_, PyAny>) -> bool {
    // SAFETY: as above.
    is_done(context.py(), unsafe { ffi::PyContext_Exit(context.as_ptr()) })
}

/// Whether it was entered last.
///
/// # Safety
/// A live object.
pub unsafe fn is_present(py: Python<'_>, context: *mut ffi::PyObject) -> bool {
    // SAFETY: attached, and what the caller promises; entered, it is not entered by anybody else in between.
    is_done(py, unsafe { ffi::PyContext_Exit(context) }) && is_done(py, unsafe { ffi::PyContext_Enter(context) })
}

fn is_done(py: Python<'_>, status: c_int) -> bool {
    if status != 0 {
        drop(PyErr::take(py));
    }
    status == 0
}

/// The context that was entered last. Python shows only copies of it; one that is entered on top refers to it, and
/// tells the garbage collector so.
fn present(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    // SAFETY: attached; a new reference, or null with an exception set.
    let probe = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_New()) }.ok()?;
    if !enter(&probe) {
        return None;
    }
    let mut below = std::ptr::null_mut::<ffi::PyObject>();
    // SAFETY: attached, a live object and its own type's slot; `see` runs nothing of Python's. What it saw is entered,
    // so the thread's state holds it, below the probe.
    let below = unsafe {
        if let Some(traverse) = (*ffi::Py_TYPE(probe.as_ptr())).tp_traverse {
            traverse(probe.as_ptr(), see, (&raw mut below).cast());
        }
        Bound::from_borrowed_ptr_or_opt(py, below)
    };
    if exit(&probe) { below } else { None }
}

/// Called with each object that a context refers to.
extern "C" fn see(object: *mut ffi::PyObject, below: *mut c_void) -> c_int {
    // SAFETY: what `present` handed over, and an object that is alive.
    unsafe {
        if ffi::PyContext_CheckExact(object) != 0 {
            *below.cast::<*mut ffi::PyObject>() = object;
        }
    }
    0
}
