//! What an event loop calls: one plain callable for each thing that it watches.

use std::cell::RefCell;
use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;

use super::bridge::{Bridge, Work};
use super::waiter::LoopWaiter;
use crate::link::link::Link;
use crate::link::net::Signal;
use crate::proto::Moment;

thread_local! {
    /// The bridge whose callback runs in this thread now. Spares asking Python which loop runs, which up
    /// to 3.11 is a system call (`getpid`).
    static CALLING: RefCell<Option<Arc<Bridge>>> = const { RefCell::new(None) };
    /// A waiter whose task was resumed, with its future: who waits next in this callback need not make them (a
    /// fifth of what a wait costs). No longer than that, because the future keeps its loop alive.
    static SPARE: RefCell<Option<Arc<LoopWaiter>>> = const { RefCell::new(None) };
}

/// The bridge whose callback runs in this thread now.
pub fn calling() -> Option<Arc<Bridge>> {
    CALLING.with_borrow(|calling| calling.as_ref().filter(|calling| calling.is_here()).cloned())
}

/// For `take_spare`: nobody waits with it any more.
pub fn keep_spare(waiter: Arc<LoopWaiter>) {
    if CALLING.with_borrow(Option::is_some) {
        SPARE.set(Some(waiter));
    }
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
}

/// A plain callback of the loop.
#[pyclass(frozen, module = "netasync._native")]
pub struct Callback {
    bridge: Arc<Bridge>,
    task: Task,
}

impl Callback {
    /// For the loop: its bound `run`, for which both loops have a shorter way than for a callable object.
    pub fn of<'py>(py: Python<'py>, bridge: Arc<Bridge>, task: Task) -> PyResult<Bound<'py, PyAny>> {
        Bound::new(py, Self { bridge, task })?.getattr(intern!(py, "run"))
    }
}

#[pymethods]
impl Callback {
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        if !self.bridge.is_here() {
            return Ok(());
        }
        let _calling = Calling::enter(&self.bridge);
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
                self.bridge.begin();
                self.bridge.work(py)
            }
            Task::LookForErrands(_) => self.bridge.look_for_errands(py),
            Task::Look(link, asked) => self.bridge.look_again(py, link, *asked),
            Task::Flush => self.bridge.flush(py),
            Task::TimedOut(waiter) => Arc::clone(waiter).resume(py),
        }
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
struct Calling(Option<Arc<Bridge>>);

impl Calling {
    fn enter(bridge: &Arc<Bridge>) -> Self {
        Self(CALLING.replace(Some(Arc::clone(bridge))))
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        CALLING.set(self.0.take());
        drop(SPARE.take());
    }
}
