//! Accepts connections and keeps them until the application takes them.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::clock;
use super::dial::Dialed;
use super::handle::{Handle, WeakHandle};
use super::net::{Acceptor, Bound, Socket};
use super::reception::Reception;
use super::runtime::Runtime;
use super::wake::{Bell, WaitList, Waker};
use crate::proto::endpoint::State;
use crate::proto::events::{Closed, Reason};
use crate::proto::options::{Options, Protocol};

/// How long to rest when the system has no descriptor or memory left for another connection.
const EXHAUSTED_REST: Duration = Duration::from_millis(100);

pub struct Listener {
    address: SocketAddr,
    options: Options,
    capacity: usize,
    queue: Mutex<Queue>,
    /// For the accepting task: there may be room, or the end.
    news: Notify,
    /// Rung when the port is free.
    pub closed: Bell,
    name: Option<String>,
}

struct Queue {
    waiting: VecDeque<Arc<Handle>>,
    accepters: WaitList,
    connections: HashMap<u64, WeakHandle>,
    accepted: u64,
    /// Why it stopped.
    end: Option<Reason>,
    is_port_free: bool,
}

/// What `accept` finds.
pub enum Accepted {
    Connection(Arc<Handle>),
    Nothing,
    Closed(Reason),
}

/// The counters of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerStats {
    pub accepted: u64,
    pub waiting: u64,
    pub refused: u64,
    pub connections: u64,
}

impl Listener {
    pub fn new(address: SocketAddr, options: Options, capacity: usize) -> Arc<Self> {
        let queue = Queue {
            waiting: VecDeque::new(),
            accepters: WaitList::default(),
            connections: HashMap::new(),
            accepted: 0,
            end: None,
            is_port_free: false,
        };
        let name = options.name.clone();
        Arc::new(Self {
            address,
            options,
            capacity,
            queue: Mutex::new(queue),
            news: Notify::new(),
            closed: Bell::default(),
            name,
        })
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The connection that waits longest.
    pub fn try_accept(&self) -> Accepted {
        let mut queue = self.queue.lock();
        match (queue.waiting.pop_front(), queue.end) {
            (Some(handle), _) => {
                self.news.notify_one();
                Accepted::Connection(handle)
            }
            (None, Some(reason)) => Accepted::Closed(reason),
            (None, None) => Accepted::Nothing,
        }
    }

    /// Notes `waker`; false, without having noted it, when there is something to take.
    pub fn wait(&self, waker: &Waker) -> bool {
        let mut queue = self.queue.lock();
        if !queue.waiting.is_empty() || queue.end.is_some() {
            return false;
        }
        queue.accepters.add(Arc::clone(waker));
        true
    }

    /// A waiter leaves without taking. One that was woken already passes the wake on.
    pub fn leave(&self, waker: &Waker) {
        let mut queue = self.queue.lock();
        if !queue.accepters.remove(waker) {
            queue.wake();
        }
    }

    /// Stops listening; connections that nobody accepted are closed. Returns at once.
    pub fn close(&self, reason: Reason) {
        let mut queue = self.queue.lock();
        if queue.end.is_some() {
            return;
        }
        queue.end = Some(reason);
        let unaccepted = std::mem::take(&mut queue.waiting);
        queue.wake();
        drop(queue);
        for handle in unaccepted {
            handle.link.close(reason);
        }
        self.news.notify_one();
    }

    /// The end, once the port is free.
    pub fn end(&self) -> Option<Closed> {
        let queue = self.queue.lock();
        let reason = queue.end.filter(|_| queue.is_port_free)?;
        Some(Closed { reason, detail: String::new(), undelivered: 0 })
    }

    pub fn is_closing(&self) -> bool {
        self.queue.lock().end.is_some()
    }

    /// The connections that are alive, those that wait included.
    pub fn connections(&self) -> Vec<Arc<Handle>> {
        let mut queue = self.queue.lock();
        queue.forget_ended();
        let mut handles: Vec<_> = queue.connections.values().filter_map(WeakHandle::upgrade).collect();
        drop(queue);
        handles.sort_by_key(|handle| handle.link.id());
        handles
    }

    pub fn stats(&self) -> ListenerStats {
        let connections = self.connections();
        let queue = self.queue.lock();
        ListenerStats {
            accepted: queue.accepted,
            waiting: u64::try_from(queue.waiting.len()).unwrap_or(u64::MAX),
            refused: 0,
            connections: u64::try_from(connections.len()).unwrap_or(u64::MAX),
        }
    }

    /// Accepts until it is closed; then gives the port back.
    pub(super) async fn run(self: &Arc<Self>, runtime: &Arc<Runtime>, socket: Bound) {
        match Acceptor::new(socket) {
            Ok(acceptor) => self.accept_until_closed(runtime, acceptor).await,
            Err(_) => self.close(Reason::Internal),
        }
    }

    async fn accept_until_closed(self: &Arc<Self>, runtime: &Arc<Runtime>, acceptor: Acceptor) {
        loop {
            let (is_closed, has_room) = {
                let queue = self.queue.lock();
                (queue.end.is_some(), queue.waiting.len() < self.capacity)
            };
            if is_closed {
                return;
            }
            tokio::select! {
                biased;
                () = self.news.notified() => {}
                accepted = acceptor.accept(&self.options), if has_room => match accepted {
                    Ok((socket, peer)) => self.receive(runtime, Arc::new(socket), peer.to_string()),
                    Err(error) if is_exhausted(&error) => clock::rest(EXHAUSTED_REST).await,
                    // That one connection was gone before it was accepted.
                    Err(_) => {}
                },
            }
        }
    }

    fn receive(self: &Arc<Self>, runtime: &Arc<Runtime>, socket: Arc<Socket>, peer: String) {
        let reception = Reception { listener: Arc::clone(self), runtime: Arc::clone(runtime) };
        tokio::spawn(async move { reception.receive(socket, peer).await });
    }

    pub(super) fn enqueue(&self, runtime: &Arc<Runtime>, protocol: Protocol, dialed: Dialed) {
        let options = Options { protocol, ..self.options.clone() };
        let handle = Handle::new(runtime.accepted(dialed, options));
        let mut queue = self.queue.lock();
        if let Some(reason) = queue.end {
            drop(queue);
            return handle.link.close(reason);
        }
        queue.forget_dropped();
        queue.accepted += 1;
        queue.connections.insert(handle.link.id(), Arc::downgrade(&handle));
        queue.waiting.push_back(handle);
        queue.accepters.wake(1);
    }
}

impl Queue {
    /// Wakes as many as can find something.
    fn wake(&mut self) {
        let count = if self.end.is_some() { usize::MAX } else { self.waiting.len() };
        self.accepters.wake(count);
    }

    fn forget_ended(&mut self) {
        let is_alive = |handle: Arc<Handle>| handle.link.status().state != State::Closed;
        self.connections.retain(|_, handle| handle.upgrade().is_some_and(is_alive));
    }

    /// Now and then, so that a listener does not grow with every connection that ever was.
    fn forget_dropped(&mut self) {
        if self.connections.len() >= 64 && self.accepted.is_multiple_of(64) {
            self.connections.retain(|_, handle| handle.strong_count() > 0);
        }
    }
}

/// Tells that the port is free when it is dropped, however that comes, a runtime that never ran the
/// accepting task included.
pub(super) struct PortFree(pub(super) Arc<Listener>);

impl Drop for PortFree {
    fn drop(&mut self) {
        self.0.close(if std::thread::panicking() { Reason::Internal } else { Reason::Shutdown });
        self.0.queue.lock().is_port_free = true;
        self.0.closed.ring();
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
