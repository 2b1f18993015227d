//! What others want an event loop to do, and the one wake that tells it so: however many errands lie there,
//! the loop's descriptor is written to once, and not at all while the loop is at them anyway.
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
    /// The descriptor is readable, or the loop is at it: nobody needs to write.
    is_told: bool,
    signal: Option<Arc<Signal>>,
}

impl<E> Default for Errands<E> {
    fn default() -> Self {
        let list = List { errands: VecDeque::new(), is_told: false, signal: None };
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

    /// From now until the round ends, errands come without a write to the descriptor. Whoever begins goes on
    /// with `next`.
    pub fn begin(&self) {
        self.list.lock().is_told = true;
    }

    /// What is to be done next, if there `may_be_more`. None ends the round.
    pub fn next(&self, may_be_more: bool) -> Option<E> {
        let mut list = self.list.lock();
        let next = if may_be_more { list.errands.pop_front() } else { None };
        if next.is_none() {
            list.end_round();
        }
        next
    }

    /// Ends the round, though something may be left: the loop is told of it anew.
    pub fn rest(&self) {
        self.list.lock().end_round();
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
        list.end_round();
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
        if let Some(signal) = self.signal.as_ref().filter(|_| !self.is_told) {
            signal.set();
            self.is_told = true;
        }
    }

    /// Whoever pushes from now on tells, and of what lies there already the loop is told now.
    fn end_round(&mut self) {
        self.is_told = false;
        if !self.errands.is_empty() {
            self.tell();
        }
    }
}
