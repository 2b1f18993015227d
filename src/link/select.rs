//! Waiting for whichever of several comes first, without taking it.
//!
//! A waiter stands in the queue of each source at once, so one that is woken twice owes the second wake
//! to somebody else: it leaves every queue, also those that have woken it, and each of these passes
//! on what it still holds.

use std::sync::Arc;
use std::time::Duration;

use super::driver::LoopDriver;
use super::link::Link;
use super::listener::Listener;
use super::net::Socket;
use super::read::{Park, Place};
use super::wake::Waker;

/// What can be waited for.
pub enum Source {
    /// The next item of a connection.
    Items(Arc<Link>),
    /// The next connection of a listener.
    Connections(Arc<Listener>),
}

impl Source {
    /// A task on `driver` is about to wait. False, without having noted it, when something is there.
    pub fn wait_on_loop(&self, driver: &Arc<dyn LoopDriver>, waker: &Waker) -> bool {
        match self {
            Self::Items(link) => link.wait_on_loop(driver, waker),
            Self::Connections(listener) => listener.wait(waker),
        }
    }

    /// A waiter leaves; one that was woken already passes the wake on.
    pub fn leave(&self, waker: &Waker) {
        match self {
            Self::Items(link) => link.leave(waker),
            Self::Connections(listener) => listener.leave(waker),
        }
    }

    fn begin_waiting(&self, waker: &Waker) -> Option<Place> {
        match self {
            Self::Items(link) => link.begin_waiting(waker),
            Self::Connections(listener) => listener.wait(waker).then_some(Place { socket: None }),
        }
    }

    fn end_waiting(&self, waker: &Waker, place: &Place, is_ready: bool) {
        match self {
            Self::Items(link) => link.end_waiting(waker, place, is_ready),
            Self::Connections(listener) => listener.leave(waker),
        }
    }
}

/// A thread waits until one of them may have something, at most for `limit`. It polls and reads for every
/// connection that no other thread reads, all of them in one call, and hands each on when it leaves.
pub fn wait_in_thread<'a>(sources: impl Iterator<Item = &'a Source>, park: &Arc<Park>, limit: Option<Duration>) {
    let waker: Waker = Arc::clone(park) as Waker;
    let mut waiting = Vec::new();
    let mut is_there = false;
    for source in sources {
        match source.begin_waiting(&waker) {
            Some(place) => waiting.push((source, place)),
            None => {
                is_there = true;
                break;
            }
        }
    }
    let polled: Vec<&Socket> = waiting.iter().filter_map(|(_, place)| place.socket.as_deref()).collect();
    let ready = if is_there { Vec::new() } else { park.wait_for_any(&polled, limit) };
    let mut ready = ready.into_iter();
    for (source, place) in &waiting {
        let is_ready = place.socket.is_some() && ready.next().unwrap_or(false);
        source.end_waiting(&waker, place, is_ready);
    }
}
