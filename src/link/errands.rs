//! What others want an event loop to do, and the one wake that tells it so: however many errands lie there,
//! the loop's descriptor is written to once, and not at all while the loop is at them anyway. An errand may itself
//! run the loop, so while it is done the loop counts as away.
//!
//! `a_pushed_errand_is_always_done`: whoever pushes finds the loop told, tells it, or finds that it looks
//! once more before it rests. Knows nothing of Python, nor of what an errand is.

use std::collections::VecDeque;
use std::sync::Arc;

use super::lock::Mutex;
use super::net::Signal;
use super::sync::atomic::{AtomicBool, Ordering};

pub struct Errands<E> {
    list: Mutex<List<E>>,
    is_alive: AtomicBool,
}

struct List<E> {
    errands: VecDeque<E>,
    /// The loop is at it: it looks once more before anything else runs.
    is_here: bool,
    /// The descriptor was written to, and not read since.
    is_told: bool,
    signal: Option<Arc<Signal>>,
}

impl<E> Default for Errands<E> {
    fn default() -> Self {
        let list = List { errands: VecDeque::new(), is_here: false, is_told: false, signal: None };
        Self { list: Mutex::new(list), is_alive: AtomicBool::new(true) }
    }
}

impl<E> Errands<E> {
    /// False once the loop is closed.
    pub fn is_alive(&self) -> bool {
        self.is_alive.load(Ordering::Acquire)
    }

    /// Any thread: something for the loop to do. False when the loop is closed.
    pub fn push(&self, errand: E) -> bool {
        let mut list = self.list.lock();
        if !self.is_alive() {
            return false;
        }
        list.errands.push_back(errand);
        list.tell();
        true
    }

    /// From now until `next`, errands come without a write to the descriptor.
    pub fn begin(&self) {
        self.list.lock().is_here = true;
    }

    /// As `begin`, by who has just read the descriptor.
    pub fn heard(&self) {
        let mut list = self.list.lock();
        list.is_told = false;
        list.is_here = true;
    }

    /// What is to be done next, if there `may_be_more`. Of what lies behind it the loop is told first: it may run again
    /// before this is done.
    pub fn next(&self, may_be_more: bool) -> Option<E> {
        let mut list = self.list.lock();
        let next = if may_be_more { list.errands.pop_front() } else { None };
        list.leave();
        next
    }

    /// There is no next, though something may be left: the loop is told of it anew.
    pub fn rest(&self) {
        self.list.lock().leave();
    }

    /// Whether the loop watches a descriptor for this.
    pub fn is_watched(&self) -> bool {
        self.list.lock().signal.is_some()
    }

    /// Whether `signal` is the descriptor that wakes this loop now.
    pub fn is_woken_by(&self, signal: &Arc<Signal>) -> bool {
        self.list.lock().signal.as_ref().is_some_and(|present| Arc::ptr_eq(present, signal))
    }

    /// The loop watches `signal` from now on.
    pub fn watch(&self, signal: Arc<Signal>) {
        let mut list = self.list.lock();
        list.signal = Some(signal);
        list.is_told = false;
        list.leave();
    }

    /// Gives the descriptor back, unless something lies there.
    pub fn unwatch(&self) -> Option<Arc<Signal>> {
        let mut list = self.list.lock();
        if list.errands.is_empty() { list.signal.take() } else { None }
    }

    /// The loop is closed: nothing is taken any more. Returns what was left, to be dropped without a lock.
    pub fn end(&self) -> (VecDeque<E>, Option<Arc<Signal>>) {
        let mut list = self.list.lock();
        self.is_alive.store(false, Ordering::Release);
        list.is_told = false;
        (std::mem::take(&mut list.errands), list.signal.take())
    }
}

impl<E> List<E> {
    fn tell(&mut self) {
        if let Some(signal) = self.signal.as_ref().filter(|_| !self.is_here && !self.is_told) {
            signal.set();
            self.is_told = true;
        }
    }

    /// Whoever pushes from now on tells, and of what lies there already the loop is told now.
    fn leave(&mut self) {
        self.is_here = false;
        if !self.errands.is_empty() {
            self.tell();
        }
    }
}
