//! Threads in blocking calls, as `py` has them.

use std::sync::Arc;
use std::time::Duration;

use super::super::link::Link;
use super::super::read::Park;
use super::super::wake::Waker;
use super::super::write::{From, Sent, Then};
use super::world::{Item, take};

pub fn park() -> Arc<Park> {
    Arc::new(Park::new())
}

/// With a limit each wait may end too early, as in a main thread that looks for signals.
pub fn recv(link: &Link, park: &Arc<Park>, limit: Option<Duration>, mut show: impl FnMut(&Item)) -> Item {
    loop {
        if let Some(item) = take(link, &mut show) {
            return item;
        }
        if link.look_in_thread().is_none() {
            link.wait_in_thread(park, limit);
        }
    }
}

/// False on a handle that has ended.
pub fn send(link: &Link, park: &Arc<Park>, limit: Option<Duration>, payload: &[u8]) -> bool {
    let waker: Waker = Arc::clone(park) as Waker;
    loop {
        let (sent, then) = link.try_send(payload, From::Thread);
        if then != Then::Nothing {
            link.flush_corked();
            link.watch_for_room(None);
        }
        match sent {
            Sent::Accepted | Sent::Refused => return true,
            Sent::Ended | Sent::NoMemory => return false,
            Sent::Full => {}
        }
        if link.wait_room(&waker) {
            link.serve_in_thread(park, limit);
            link.leave_room(&waker);
        }
    }
}

/// Waits until everything that was accepted is the kernel's.
pub fn flush(link: &Link) {
    let park = park();
    let waker: Waker = Arc::clone(&park) as Waker;
    let mark = link.flush_mark().expect("the link is open");
    while link.is_flushed(mark) == Some(false) {
        if link.wait_flushed(mark, &waker) {
            link.serve_in_thread(&park, None);
            link.leave_flushed(mark, &waker);
        }
    }
}

/// Sends until neither the kernel nor the buffer takes more; how many messages that were.
pub fn fill(link: &Link) -> usize {
    let accepted = (0..).find(|_| link.try_send(&[0, 0], From::Thread).0 != Sent::Accepted);
    link.watch_for_room(None);
    accepted.expect("it has an end")
}
