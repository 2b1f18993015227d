//! Whether a loop of asyncio's own may be in debug mode, asked before each task that is resumed: `get_debug`, which is
//! written in Python, takes 200 instructions. Such a loop, in debug mode, has coroutines note where they were made, and
//! of that the interpreter keeps account.

use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// `sys.get_coroutine_origin_tracking_depth`.
struct Depth {
    call: ffi::PyCFunction,
    of: Py<PyAny>,
}

static DEPTH: PyOnceLock<Option<Depth>> = PyOnceLock::new();

impl Depth {
    /// None unless it is a C function that takes nothing.
    fn find(py: Python<'_>) -> PyResult<Option<Self>> {
        let function = py.import("sys")?.getattr("get_coroutine_origin_tracking_depth")?;
        let function = function.as_ptr();
        // SAFETY: attached, a live object; what is asked of it is asked after the check, and its self is borrowed.
        unsafe {
            if ffi::PyCFunction_Check(function) == 0 || ffi::PyCFunction_GetFlags(function) != ffi::METH_NOARGS {
                return Ok(None);
            }
            let of = Bound::from_borrowed_ptr_or_opt(py, ffi::PyCFunction_GetSelf(function));
            Ok(ffi::PyCFunction_GetFunction(function).zip(of).map(|(call, of)| Self { call, of: of.unbind() }))
        }
    }

    fn is_zero(&self, py: Python<'_>) -> bool {
        // SAFETY: attached; a C function that takes its self and no argument, and returns a new reference or null.
        let depth = unsafe { Bound::from_owned_ptr_or_opt(py, (self.call)(self.of.as_ptr(), ptr::null_mut())) };
        // SAFETY: attached; a live object.
        depth.is_some_and(|depth| unsafe { ffi::PyLong_AsLong(depth.as_ptr()) } == 0)
    }
}

/// False where it is known not to be.
pub fn may_debug(py: Python<'_>) -> PyResult<bool> {
    let depth = DEPTH.get_or_try_init(py, || Depth::find(py))?;
    Ok(!depth.as_ref().is_some_and(|depth| depth.is_zero(py)))
}
