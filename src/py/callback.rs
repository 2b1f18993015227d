//! What an event loop calls: one plain callable for each thing that it watches.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit, ffi, intern};

use super::bridge::{Bridge, Work};
use super::context::{self, Home};
use super::waiter::LoopWaiter;
use crate::link::link::Link;
use crate::link::net::Signal;
use crate::proto::Moment;

thread_local! {
    /// The task that a callback of ours resumed last in this thread, while it runs. Spares asking Python which loop
    /// runs, which up to 3.11 is a system call (`getpid`).
    static RESUMED: Cell<Option<Resumed>> = const { Cell::new(None) };
    /// A waiter whose task was resumed, with its future: who waits next in this callback need not make them (a
    /// fifth of what a wait costs). No longer than that, because the future keeps its loop alive.
    static SPARE: RefCell<Option<Arc<LoopWaiter>>> = const { RefCell::new(None) };
}

/// What a task runs in. Both live for as long as the `Resuming` that noted them.
#[derive(Clone, Copy)]
struct Resumed {
    bridge: *const Arc<Bridge>,
    context: *mut ffi::PyObject,
}

/// While it lives, a task of the bridge's loop runs that was resumed with `context` entered.
pub struct Resuming<'a> {
    before: Option<Resumed>,
    _lent: PhantomData<&'a ()>,
}

impl<'a> Resuming<'a> {
    pub fn note(bridge: &'a Arc<Bridge>, context: &'a Bound<'_, PyAny>) -> Self {
        let resumed = Resumed { bridge, context: context.as_ptr() };
        Self { before: RESUMED.replace(Some(resumed)), _lent: PhantomData }
    }
}

impl Drop for Resuming<'_> {
    fn drop(&mut self) {
        RESUMED.set(self.before);
    }
}

/// The bridge of the loop that runs, where that is quickly known: this is within a task that a callback of ours resumed.
/// Should that task have begun to run another loop, another context is entered.
pub fn calling(py: Python<'_>) -> Option<Arc<Bridge>> {
    let resumed = RESUMED.get()?;
    // SAFETY: within the `Resuming` that noted it, in its thread.
    let bridge = unsafe { &*resumed.bridge };
    // SAFETY: attached, and within the same, so the context is alive.
    (bridge.is_here() && unsafe { context::is_present(py, resumed.context) }).then(|| Arc::clone(bridge))
}

/// For `take_spare`: nobody waits with it any more.
pub fn keep_spare(waiter: Arc<LoopWaiter>) {
    SPARE.set(Some(waiter));
}

/// A waiter that nobody else knows, if there is one: of the loop whose callback runs now.
pub fn take_spare() -> Option<Arc<LoopWaiter>> {
    SPARE.take().filter(|spare| Arc::strong_count(spare) == 1)
}

/// Nobody has waited again in this callback: the loop may have nothing more to be woken for.
pub fn forget_spare() {
    drop(SPARE.take());
}

/// What to do when called.
pub enum Task {
    Read(Arc<Link>),
    Write(Arc<Link>),
    /// The wake descriptor is readable.
    Drain(Arc<Signal>),
    /// The timer of this number, in place of a wake descriptor.
    LookForErrands(usize),
    /// The turn after one that looked for as long as it might, and when that was.
    Look(Arc<Link>, Moment),
    /// The end of a turn that corked.
    Flush,
    /// A wait has lasted as long as it may.
    TimedOut(Arc<LoopWaiter>),
    /// What a task raised that was resumed, in its own name: uvloop ends for a `SystemExit` that is an `Exception` too
    /// where a task raises it, but not where a callback does that watches a descriptor.
    Raise(PyErr),
}

/// A plain callback of the loop.
#[pyclass(frozen, module = "netasync._native")]
pub struct Callback {
    bridge: Arc<Bridge>,
    task: Task,
    home: Home,
}

impl Callback {
    /// For the loop: its bound `run`, for which both loops have a shorter way than for a callable object.
    pub fn of<'py>(py: Python<'py>, bridge: Arc<Bridge>, task: Task) -> PyResult<Bound<'py, PyAny>> {
        Bound::new(py, Self { bridge, task, home: Home::default() })?.getattr(intern!(py, "run"))
    }
}

#[pymethods]
impl Callback {
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        if !self.bridge.is_here() {
            return Ok(());
        }
        let _calling = Calling::enter(&self.bridge);
        let may_come_again = self.bridge.may_nest() && self.task.comes_again();
        let _away = if may_come_again { self.home.leave(py) } else { None };
        match &self.task {
            Task::Read(link) => {
                self.bridge.begin();
                self.bridge.read(link);
                self.bridge.work(py)?;
                self.bridge.look(py, link)
            }
            Task::Write(link) => {
                self.bridge.begin();
                if !link.drain() {
                    self.bridge.push(Work::Sync(Arc::clone(link)));
                }
                self.bridge.work(py)
            }
            Task::Drain(signal) => {
                signal.clear();
                self.bridge.heard();
                self.bridge.work(py)
            }
            Task::LookForErrands(_) => self.bridge.look_for_errands(py),
            Task::Look(link, asked) => self.bridge.look_again(py, link, *asked),
            Task::Flush => self.bridge.flush(py),
            Task::TimedOut(waiter) => {
                let outcome = Arc::clone(waiter).resume(py);
                forget_spare();
                outcome
            }
            Task::Raise(error) => Err(error.clone_ref(py)),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.home.traverse(&visit)
    }
}

impl Task {
    /// Whether the loop calls for it again and again, and perhaps while it is called.
    fn comes_again(&self) -> bool {
        matches!(self, Self::Read(_) | Self::Write(_) | Self::Drain(_))
    }
}

/// A loop that is closed lets its callbacks go: the only word that it has for us. A callback that we took
/// back ourselves is not the present one any more.
impl Drop for Callback {
    fn drop(&mut self) {
        let is_present = |bridge: &Bridge| match &self.task {
            Task::Drain(signal) => bridge.is_woken_by(signal),
            Task::LookForErrands(number) => bridge.awaits_timer(*number),
            _ => false,
        };
        if self.bridge.is_here() && is_present(&self.bridge) {
            self.bridge.end();
        }
    }
}

/// While it lives, this thread is in a callback of the bridge's loop.
struct Calling<'a> {
    bridge: &'a Bridge,
    /// Another callback of the same loop is under way: a task that it resumed runs the loop.
    is_within: bool,
}

impl<'a> Calling<'a> {
    fn enter(bridge: &'a Bridge) -> Self {
        Self { bridge, is_within: bridge.callback_begins() }
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        if !self.is_within {
            self.bridge.callback_ends();
        }
    }
}
