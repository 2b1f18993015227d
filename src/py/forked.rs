//! What a forked child is told about handles that it inherited: they are its parent's.

use std::sync::Arc;

use pyo3::prelude::*;

use super::bridge::leave_to_parent;
use super::events::error_class;
use crate::link::fork::Birth;
use crate::link::link::Link;
use crate::link::listener::Listener;
use crate::link::runtime::Runtime;

/// What the `repr` of such a handle says.
pub const OF_PARENT: &str = "of the parent process";

/// What knows the process that made it.
pub trait Born {
    fn birth(&self) -> Birth;
}

impl Born for Link {
    fn birth(&self) -> Birth {
        self.birth()
    }
}

impl Born for Listener {
    fn birth(&self) -> Birth {
        self.birth()
    }
}

impl Born for Runtime {
    fn birth(&self) -> Birth {
        self.birth()
    }
}

/// The way to everything that a handle leads to: `ForkedError` in a forked child.
pub fn own<T: Born>(thing: &Arc<T>) -> PyResult<&Arc<T>> {
    check(thing.birth())?;
    Ok(thing)
}

pub fn check(birth: Birth) -> PyResult<()> {
    if birth.is_here() { Ok(()) } else { Err(forked_error()) }
}

#[cold]
fn forked_error() -> PyErr {
    let text = "this handle belongs to the parent process; a forked child opens its own";
    Python::attach(|py| error_class(py, "ForkedError", text))
}

/// Called in a forked child once Python runs there: tasks that wait on an inherited loop will look again,
/// and be told, if the child runs that loop.
#[pyfunction]
pub fn after_fork_in_child(py: Python<'_>) {
    leave_to_parent(py);
}
