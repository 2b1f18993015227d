//! Accepts connections and keeps them until the application takes them.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::lock::Mutex;
use tokio::sync::Notify;

use super::clock;
use super::dial::Dialed;
use super::fork::Birth;
use super::handle::{Handle, WeakHandle};
use super::net::Acceptor;
use super::reception::Reception;
use super::runtime::Runtime;
use super::seats::Seats;
use super::sessions::Held;
use super::wake::{Bell, WaitList, Waker};
use crate::proto::Moment;
use crate::proto::accepting::{Accepting, Admission, Crowd, Patience, Promise, Promises};
use crate::proto::endpoint::State;
use crate::proto::events::{Closed, Reason};
use crate::proto::options::{Holding, Options, Protocol};

/// How long to rest when the system has no descriptor or memory left for another connection.
const EXHAUSTED_REST: Duration = Duration::from_millis(100);

pub struct Listener {
    birth: Birth,
    address: SocketAddr,
    options: Options,
    accepting: Accepting,
    seats: Seats,
    /// None where a session lasts as long as its link.
    sessions: Option<Arc<Held>>,
    queue: Mutex<Queue>,
    /// For the accepting task: there may be room, or the end.
    news: Notify,
    /// For those who were greeted and wait for a place.
    pub(super) room: Notify,
    /// For everybody who is being greeted: the end.
    pub(super) leaving: Notify,
    wire: Wire,
    /// Rung when the port is free.
    pub closed: Bell,
    name: Option<String>,
}

struct Queue {
    waiting: VecDeque<Arc<Handle>>,
    accepters: WaitList,
    connections: HashMap<u64, WeakHandle>,
    /// Places kept for dials whose greeting was answered.
    promises: Promises,
    accepted: u64,
    refused: u64,
    /// Why it stopped.
    end: Option<Reason>,
    is_port_free: bool,
}

/// What a listener's connections speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    One(Protocol),
    /// Whatever the dialler speaks: its first byte tells.
    Either,
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
    pub fn new(address: SocketAddr, options: Options, accepting: Accepting, holding: Holding, wire: Wire) -> Arc<Self> {
        let queue = Queue {
            waiting: VecDeque::new(),
            accepters: WaitList::default(),
            connections: HashMap::new(),
            promises: Promises::default(),
            accepted: 0,
            refused: 0,
            end: None,
            is_port_free: false,
        };
        let name = options.name.clone();
        let sessions = (!holding.session_timeout.is_zero()).then(|| Held::new(holding));
        Arc::new(Self {
            birth: Birth::here(),
            address,
            options,
            accepting,
            seats: Seats::default(),
            sessions,
            queue: Mutex::new(queue),
            news: Notify::new(),
            room: Notify::new(),
            leaving: Notify::new(),
            wire,
            closed: Bell::default(),
            name,
        })
    }

    /// Asked before anything else is, in a process that may have been forked.
    pub fn birth(&self) -> Birth {
        self.birth
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn sessions(&self) -> Option<&Arc<Held>> {
        self.sessions.as_ref()
    }

    pub(super) fn wire(&self) -> Wire {
        self.wire
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
                self.room.notify_one();
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

    /// Stops listening; connections that nobody accepted are closed, and those without a link end: nobody is there
    /// to come back to. Returns at once.
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
        // Behind the end, so that no further session enters.
        if let Some(sessions) = &self.sessions {
            sessions.close();
        }
        self.news.notify_one();
        self.leaving.notify_waiters();
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
            refused: queue.refused,
            connections: u64::try_from(connections.len()).unwrap_or(u64::MAX),
        }
    }

    /// Accepts until it is closed; then gives the port back.
    pub(super) async fn run(self: &Arc<Self>, runtime: &Arc<Runtime>, acceptor: Acceptor) {
        let reception = Reception::new(self, runtime);
        // Taken from the system while there was room, and none was left for it.
        let mut kept: Option<Dialed> = None;
        while !self.is_closing() {
            kept = kept.and_then(|dialed| self.enter(runtime, Protocol::Classic, dialed));
            // Who must be greeted waits here; the others wait in the system.
            let has_room = || self.accepting.admit(self.crowd(&self.queue.lock())) != Admission::Wait;
            let may_accept = kept.is_none() && (self.greets() || has_room());
            tokio::select! {
                biased;
                () = self.news.notified() => {}
                accepted = acceptor.accept(&self.options), if may_accept => match accepted {
                    Ok((socket, peer)) if self.greets() => reception.receive(socket, peer.to_string()),
                    Ok((socket, peer)) => {
                        let dialed = Dialed::bare(Arc::new(socket), peer.to_string(), Vec::new());
                        kept = self.enter(runtime, Protocol::Classic, dialed);
                    }
                    Err(error) if is_exhausted(&error) => clock::rest(EXHAUSTED_REST).await,
                    // That one connection was gone before it was accepted.
                    Err(_) => {}
                },
            }
        }
    }

    /// Whether nothing is a connection before a greeting, or before silence has told which wire it is.
    fn greets(&self) -> bool {
        self.wire != Wire::One(Protocol::Classic)
    }

    fn crowd(&self, queue: &Queue) -> Crowd {
        Crowd { waiting: queue.waiting.len(), alive: self.seats.taken(), absent: self.seats.absent() }
    }

    /// Lets a dial in, or refuses it: the original's wire has no word for that, so its link just ends.
    /// Returns one that has to wait.
    pub(super) fn enter(&self, runtime: &Arc<Runtime>, protocol: Protocol, dialed: Dialed) -> Option<Dialed> {
        let mut kept = Some(dialed);
        let admission = self.let_in(runtime, protocol, &mut kept, None);
        kept.filter(|_| admission == Some(Admission::Wait))
    }

    /// Lets a session in that has begun, by the greeting of this number. False where there is no place for it: its promise
    /// had given way.
    pub(super) fn enter_session(&self, runtime: &Arc<Runtime>, dialed: Dialed, number: u32) -> bool {
        match self.let_in(runtime, Protocol::Native, &mut Some(dialed), Some(number)) {
            Some(Admission::Wait) => {
                self.queue.lock().refused += 1;
                false
            }
            Some(Admission::Refuse) => false,
            Some(Admission::Enter | Admission::Replace) | None => true,
        }
    }

    /// What has become of this dial; None: the listener is closed. Promises count for nothing here: those others have
    /// push nobody out before they come.
    fn let_in(
        &self,
        runtime: &Arc<Runtime>,
        protocol: Protocol,
        dialed: &mut Option<Dialed>,
        number: Option<u32>,
    ) -> Option<Admission> {
        let mut queue = self.queue.lock();
        if queue.end.is_some() {
            return None;
        }
        let mut admission = self.accepting.admit(self.crowd(&queue));
        let oldest = if admission == Admission::Replace { queue.waiting.pop_front() } else { None };
        if let Some(oldest) = &oldest {
            queue.refused += 1;
            // Not closed, which takes its time: a flood of dials would hold as many sockets as come in it.
            oldest.link.abort(Reason::Busy);
        }
        if matches!(admission, Admission::Enter | Admission::Replace) {
            match dialed.take_if(|_| self.has_seat()) {
                Some(dialed) => self.seat(&mut queue, runtime, protocol, dialed, number),
                None => admission = Admission::Refuse,
            }
        }
        queue.refused += u64::from(admission == Admission::Refuse);
        drop(queue);
        // Without the lock: whatever else hangs on it goes with it.
        drop(oldest);
        Some(admission)
    }

    /// Whether another connection may live, or may in place of one that has no link.
    fn has_seat(&self) -> bool {
        let may_oust = || self.sessions.as_ref().is_some_and(|sessions| sessions.oust());
        !self.accepting.is_full(self.seats.taken()) || may_oust()
    }

    fn seat(&self, queue: &mut Queue, runtime: &Arc<Runtime>, protocol: Protocol, dialed: Dialed, number: Option<u32>) {
        let known = dialed.greeted.as_ref().map(|greeted| greeted.agreement.known());
        let options = Options { protocol, ..self.options.clone() };
        let handle = Handle::new(runtime.accepted(dialed, options), None);
        handle.link.sit(self.seats.take());
        if let (Some(sessions), Some(known), Some(number)) = (&self.sessions, known, number) {
            sessions.enter(known, number, &handle.link);
        }
        queue.enter(handle);
    }

    /// Keeps a place for a dial that is about to be answered.
    pub(super) fn promise(self: &Arc<Self>, patience: &mut Patience) -> Result<Place, NoPlace> {
        let mut queue = self.queue.lock();
        if queue.end.is_some() {
            return Err(NoPlace::Leaving);
        }
        let (crowd, now) = (self.crowd(&queue), clock::now());
        match queue.promises.admit(&self.accepting, crowd, patience, now) {
            Admission::Wait => Err(NoPlace::Until(queue.promises.ask_again(patience, now))),
            Admission::Refuse => {
                queue.refused += 1;
                Err(NoPlace::Busy)
            }
            Admission::Enter | Admission::Replace => {
                Ok(Place { listener: Arc::clone(self), promise: queue.promises.make(now) })
            }
        }
    }
}

/// A place that was promised with an answer; another dial may have been promised it since.
pub(super) struct Place {
    listener: Arc<Listener>,
    promise: Promise,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.listener.queue.lock().promises.settle(self.promise);
        self.listener.news.notify_one();
        self.listener.room.notify_one();
    }
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// There may be one when somebody tells of it, or at this moment.
    Until(Moment),
    Busy,
    Leaving,
}

impl Queue {
    fn enter(&mut self, handle: Arc<Handle>) {
        self.forget_dropped();
        self.accepted += 1;
        self.connections.insert(handle.link.id(), Arc::downgrade(&handle));
        self.waiting.push_back(handle);
        self.accepters.wake(1);
    }

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
