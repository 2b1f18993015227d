//! Who reads a link now, and how one hands over to the next.
//!
//! Handing over loses nothing, because whoever reads does so under the rx lock and appends to the one
//! inbox; two drivers that overlap for a moment only share the work. What is decided here is who is
//! *told* that the socket is readable, so that a message crosses no thread without need.

use std::sync::Arc;
use std::time::Duration;

use super::link::Link;
use crate::proto::Moment;

/// How long after the last blocking call the supervisor takes over reading.
pub const THREAD_LINGER: Duration = Duration::from_millis(50);

/// An event loop that watches sockets for links.
pub trait LoopDriver: Send + Sync {
    /// What to watch for `link` may have changed. Any thread; never blocks, never
    /// touches Python.
    fn sync(self: Arc<Self>, link: Arc<Link>);
    /// False once the loop is closed: it will never read again.
    fn is_alive(&self) -> bool;
    /// Different for each loop that is alive.
    fn id(&self) -> usize;
}

pub enum Driver {
    /// The supervisor: nobody has attached, or several kinds mix.
    Tokio,
    /// The selector of one event loop.
    Loop(Arc<dyn LoopDriver>),
    /// Threads in blocking calls; one of them at a time polls and reads.
    Thread,
}

/// The driver of one connection, and what it takes to choose it.
pub struct Reading {
    driver: Driver,
    /// Loops and threads, or several loops, use the connection side by side.
    mixed_since: Option<Moment>,
    threads: usize,
    thread_left: Moment,
    /// The connection closes: nobody will take a message any more.
    is_retired: bool,
}

impl Default for Reading {
    fn default() -> Self {
        Self { driver: Driver::Tokio, mixed_since: None, threads: 0, thread_left: Moment::ZERO, is_retired: false }
    }
}

impl Reading {
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    pub fn is_tokio(&self) -> bool {
        matches!(self.driver, Driver::Tokio)
    }

    pub fn is_loop(&self, id: usize) -> bool {
        matches!(&self.driver, Driver::Loop(driver) if driver.id() == id)
    }

    /// The connection closes: the supervisor reads to its end, whatever loops and threads do. Returns the
    /// driver that was replaced.
    pub fn retire(&mut self) -> Driver {
        self.is_retired = true;
        std::mem::replace(&mut self.driver, Driver::Tokio)
    }

    /// A task on `driver` is about to wait. Returns the driver that was replaced, if one was.
    pub fn enter_loop(&mut self, driver: &Arc<dyn LoopDriver>, now: Moment) -> Option<Driver> {
        let next = match &self.driver {
            Driver::Loop(present) if present.id() == driver.id() => return None,
            Driver::Loop(present) if !present.is_alive() => Driver::Loop(Arc::clone(driver)),
            Driver::Tokio if self.is_free() => Driver::Loop(Arc::clone(driver)),
            Driver::Tokio => return None,
            Driver::Loop(_) | Driver::Thread => self.mixed(now),
        };
        Some(std::mem::replace(&mut self.driver, next))
    }

    /// A thread is about to wait. Returns the driver that was replaced, if one was.
    pub fn enter_thread(&mut self, now: impl FnOnce() -> Moment) -> Option<Driver> {
        self.threads += 1;
        let next = match &self.driver {
            Driver::Thread => return None,
            Driver::Tokio if self.is_free() => Driver::Thread,
            Driver::Tokio => return None,
            Driver::Loop(present) if !present.is_alive() => Driver::Thread,
            Driver::Loop(_) => self.mixed(now()),
        };
        Some(std::mem::replace(&mut self.driver, next))
    }

    pub fn leave_thread(&mut self, now: Moment) {
        self.threads -= 1;
        self.thread_left = now;
    }

    /// Somebody has read without a place of its own.
    pub fn was_here(&mut self, now: Moment) {
        self.thread_left = now;
    }

    /// Threads that have left give their place back; returns true when the driver changed.
    pub fn tick(&mut self, now: Moment) -> bool {
        if self.threads > 0 || now < self.thread_left.saturating_add(THREAD_LINGER) {
            return false;
        }
        if self.mixed_since.is_some_and(|since| now >= since.saturating_add(THREAD_LINGER)) {
            self.mixed_since = None;
        }
        let has_changed = match &self.driver {
            Driver::Thread => true,
            Driver::Loop(driver) => !driver.is_alive(),
            Driver::Tokio => false,
        };
        if has_changed {
            self.driver = Driver::Tokio;
        }
        has_changed
    }

    /// When to tick again.
    pub fn tick_due(&self, now: Moment, relief: Duration) -> Option<Moment> {
        match &self.driver {
            Driver::Thread => Some(now.saturating_add(THREAD_LINGER)),
            Driver::Tokio => self.mixed_since.map(|_| now.saturating_add(THREAD_LINGER)),
            Driver::Loop(_) => Some(now.saturating_add(relief)),
        }
    }

    fn is_free(&self) -> bool {
        self.mixed_since.is_none() && !self.is_retired
    }

    fn mixed(&mut self, now: Moment) -> Driver {
        self.mixed_since = Some(now);
        Driver::Tokio
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Loop(usize, bool);

    impl LoopDriver for Loop {
        fn sync(self: Arc<Self>, _: Arc<Link>) {}
        fn is_alive(&self) -> bool {
            self.1
        }
        fn id(&self) -> usize {
            self.0
        }
    }

    fn a_loop(id: usize, is_alive: bool) -> Arc<dyn LoopDriver> {
        Arc::new(Loop(id, is_alive))
    }

    fn at(milliseconds: u64) -> Moment {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_first_to_wait_reads() {
        let mut reading = Reading::default();
        assert!(reading.enter_loop(&a_loop(1, true), at(0)).is_some());
        assert!(reading.is_loop(1));
        assert!(reading.enter_loop(&a_loop(1, true), at(0)).is_none());
    }

    #[test]
    fn a_loop_and_a_thread_side_by_side_are_served_by_tokio_until_the_thread_leaves() {
        let mut reading = Reading::default();
        reading.enter_loop(&a_loop(1, true), at(0));
        reading.enter_thread(|| at(0));
        assert!(reading.is_tokio());
        assert!(reading.enter_loop(&a_loop(1, true), at(1)).is_none());
        reading.tick(at(1000));
        assert!(reading.enter_loop(&a_loop(1, true), at(1000)).is_none());
        reading.leave_thread(at(1001));
        reading.tick(at(1060));
        reading.enter_loop(&a_loop(1, true), at(1060));
        assert!(reading.is_loop(1));
    }

    #[test]
    fn a_closed_loop_is_replaced() {
        let mut reading = Reading::default();
        reading.enter_loop(&a_loop(1, false), at(0));
        reading.enter_loop(&a_loop(2, true), at(0));
        assert!(reading.is_loop(2));
        let mut reading = Reading::default();
        reading.enter_loop(&a_loop(1, false), at(0));
        assert!(reading.tick(at(100)) && reading.is_tokio());
    }

    #[test]
    fn a_thread_gives_its_place_back_when_it_has_left_for_a_while() {
        let mut reading = Reading::default();
        reading.enter_thread(|| at(0));
        assert!(!reading.tick(at(500)));
        reading.leave_thread(at(500));
        assert!(!reading.tick(at(549)));
        assert!(reading.tick(at(550)) && reading.is_tokio());
    }
}
