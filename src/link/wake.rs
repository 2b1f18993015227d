//! Whoever waits for a link, in words that know neither loop nor thread.
//!
//! Waking is not delivering: a woken waiter is only told to look again.

use std::collections::{BTreeMap, VecDeque};
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

/// Waiters of whom each waits for something of its own, a number or a moment: whoever wakes finds those whose
/// turn it is, and whoever leaves its own place, without a look at the others.
#[derive(Default)]
pub struct Waiting<K> {
    waiting: BTreeMap<(K, usize), Waker>,
}

impl<K: Ord + Copy> Waiting<K> {
    pub fn add(&mut self, key: K, waker: Waker) {
        self.waiting.insert((key, place_of(&waker)), waker);
    }

    /// Takes a waiter out, if it is still there.
    pub fn remove(&mut self, key: K, waker: &Waker) {
        self.waiting.remove(&(key, place_of(waker)));
    }

    /// What the first of them waits for.
    pub fn first(&self) -> Option<K> {
        self.waiting.first_key_value().map(|((key, _), _)| *key)
    }

    /// Wakes those who wait for exactly this.
    pub fn wake_for(&mut self, key: K) {
        while let Some(&found) = self.waiting.range((key, 0)..=(key, usize::MAX)).next().map(|(found, _)| found) {
            self.waiting.remove(&found).into_iter().for_each(wake);
        }
    }

    /// Wakes those who wait for this or for less.
    pub fn wake_up_to(&mut self, key: K) {
        while self.first().is_some_and(|first| first <= key) {
            self.waiting.pop_first().into_iter().for_each(|(_, waker)| wake(waker));
        }
    }

    pub fn wake_all(&mut self) {
        std::mem::take(&mut self.waiting).into_values().for_each(wake);
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Each of them is told, whether anybody is there or not: what it waits for is no turn that another could have.
fn wake(waker: Waker) {
    waker.wake();
}

/// Tells two waiters apart.
fn place_of(waker: &Waker) -> usize {
    Arc::as_ptr(waker).addr()
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
