//! Whoever waits for a link, in words that know neither loop nor thread.
//!
//! Waking is not delivering: a woken waiter is only told to look again.

use std::collections::VecDeque;
use std::sync::Arc;

use super::lock::Mutex;

/// One that waits. Waking never blocks, never touches Python, and may come once too often.
pub trait Wake: Send + Sync {
    /// Returns false when nobody is there any more: then the next one is to be woken in its place.
    fn wake(self: Arc<Self>) -> bool;
}

pub type Waker = Arc<dyn Wake>;

/// Waiters in the order in which they came.
#[derive(Default)]
pub struct WaitList {
    waiting: VecDeque<Waker>,
}

impl WaitList {
    pub fn add(&mut self, waker: Waker) {
        self.waiting.push_back(waker);
    }

    /// Takes a waiter out; false when it was not there any more, because somebody has woken it.
    pub fn remove(&mut self, waker: &Waker) -> bool {
        let place = self.waiting.iter().position(|other| Arc::ptr_eq(other, waker));
        place.and_then(|place| self.waiting.remove(place)).is_some()
    }

    /// Wakes the `count` that wait longest.
    pub fn wake(&mut self, count: usize) {
        let mut woken = 0;
        while woken < count {
            let Some(waker) = self.waiting.pop_front() else {
                return;
            };
            woken += usize::from(waker.wake());
        }
    }

    pub fn wake_all(&mut self) {
        self.wake(usize::MAX);
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// A fact that many may wait for, told once or more.
#[derive(Default)]
pub struct Bell {
    waiting: Mutex<WaitList>,
}

impl Bell {
    pub fn add(&self, waker: Waker) {
        self.waiting.lock().add(waker);
    }

    pub fn remove(&self, waker: &Waker) {
        self.waiting.lock().remove(waker);
    }

    pub fn ring(&self) {
        self.waiting.lock().wake_all();
    }
}
