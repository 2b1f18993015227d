//! Everything that a caller can wait for, once, in one form: try, and be told when to try again. Tasks
//! wait in `waiting.rs`, threads in `park.rs`.

use std::sync::Arc;
use std::time::Duration;

use pyo3::IntoPyObjectExt;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PySequence};

use super::bridge::Bridge;
use super::convert::{Kept, Payload, no_memory};
use super::events;
use super::face::{Face, face};
use super::forked::own;
use super::receiving::{recv, recv_many};
use super::select::Select;
use crate::link::clock;
use crate::link::driver::LoopDriver;
use crate::link::link::Link;
use crate::link::listener::{Accepted, Listener};
use crate::link::read::Park;
use crate::link::runtime::Runtime;
use crate::link::turn::Turn;
use crate::link::wake::{Bell, Waker};
use crate::link::write::{From, Sent, Then};
use crate::proto::Moment;
use crate::proto::events::{Closed, Event};
use crate::proto::receipts::{Goal, Outcome, Ticket};

/// An iterable that takes some time for each item gives others their turn after this.
const BATCH_TIME: Duration = Duration::from_millis(5);

/// The answer to one try.
pub enum Poll {
    Ready(Py<PyAny>),
    /// Nothing yet: wait to be woken.
    Pending,
    /// More at once, but let others have their turn first.
    Yield,
}

pub enum Operation {
    Recv(Arc<Link>),
    RecvMany(Arc<Link>, usize),
    Send(Arc<Link>, Kept),
    SendMany(SendMany),
    /// `confirm=`.
    Confirm(Confirm),
    Flush(Arc<Link>, u64),
    /// With the messages lost before the call, and the moment at which to give up.
    Finish(Arc<Link>, u64, Moment),
    /// With the number of links that had been there at the call.
    Connected(Arc<Link>, u64),
    Closed(Arc<Link>),
    Accept(Arc<Listener>, Face),
    Select(Select),
    ListenerClosed(Arc<Listener>),
    ShutDown(Arc<Runtime>),
}

/// A message of whose fate its sender wants to hear.
pub struct Confirm {
    link: Arc<Link>,
    goal: Goal,
    stage: Stage,
}

enum Stage {
    Sending(Kept),
    Waiting(Ticket),
    Known,
}

impl Confirm {
    fn poll(&mut self, py: Python<'_>, from: From) -> PyResult<Option<Py<PyAny>>> {
        if let Stage::Sending(payload) = &self.stage {
            let (sent, then, ticket) = self.link.try_send_wanting(payload.as_slice(py), self.goal);
            let sent = self::sent(py, &self.link, sent, then, from, payload.as_slice(py).len())?;
            let Some(ticket) = ticket else { return Ok(sent) };
            self.stage = Stage::Waiting(ticket);
        }
        let Stage::Waiting(ticket) = self.stage else { return Ok(None) };
        match self.link.outcome(ticket) {
            (None, true) => Ok(None),
            (None, false) => Err(events::closed_error(py)),
            (Some(outcome), _) => {
                self.stage = Stage::Known;
                match outcome {
                    Outcome::Confirmed => true.into_py_any(py).map(Some),
                    Outcome::Lost | Outcome::Dropped => false.into_py_any(py).map(Some),
                    Outcome::TooLarge => {
                        let text = format!("the peer takes at most {} bytes (max_size)", self.link.max_size());
                        Err(events::error_class(py, "MessageTooLarge", text))
                    }
                }
            }
        }
    }

    /// False when another try would not be in vain.
    fn wait(&self, waker: &Waker) -> bool {
        match self.stage {
            Stage::Sending(_) => self.link.wait_room(waker),
            Stage::Waiting(ticket) => self.link.wait_outcome(ticket, waker),
            Stage::Known => false,
        }
    }

    fn leave(&self, waker: &Waker) {
        match self.stage {
            Stage::Sending(_) => self.link.leave_room(waker),
            Stage::Waiting(ticket) => self.link.leave_outcome(ticket, waker),
            Stage::Known => {}
        }
    }
}

impl Drop for Confirm {
    fn drop(&mut self) {
        if let (Stage::Waiting(ticket), true) = (&self.stage, self.link.birth().is_here()) {
            self.link.forget_outcome(*ticket);
        }
    }
}

/// The rest of a `send_many`.
pub struct SendMany {
    link: Arc<Link>,
    source: Py<PyIterator>,
    /// A sequence waits for nothing, so what it gives is gathered. Anything else may wait at any time: what it gave
    /// goes out before it is asked for more.
    is_gathered: bool,
    /// Taken from the source and not accepted yet.
    next: Option<Kept>,
    /// For how many `send` would have said True.
    accepted: usize,
}

impl Operation {
    pub fn send_many(link: Arc<Link>, source: &Bound<'_, PyAny>) -> PyResult<Self> {
        let is_gathered = source.cast::<PySequence>().is_ok();
        let source = source.try_iter()?.unbind();
        Ok(Self::SendMany(SendMany { link, source, is_gathered, next: None, accepted: 0 }))
    }

    pub fn confirm(link: Arc<Link>, payload: Kept, goal: Goal) -> Self {
        Self::Confirm(Confirm { link, goal, stage: Stage::Sending(payload) })
    }

    pub fn flush(py: Python<'_>, link: Arc<Link>) -> PyResult<Self> {
        match link.flush_mark() {
            Some(mark) => Ok(Self::Flush(link, mark)),
            None => Err(events::closed_error(py)),
        }
    }

    /// Accepts nothing more, and waits for confirmation for at most `limit`.
    pub fn finish(py: Python<'_>, link: Arc<Link>, limit: Option<Duration>) -> PyResult<Self> {
        let until = clock::now().saturating_add(limit.unwrap_or(link.options().close_timeout));
        match link.finish() {
            Some(lost) => Ok(Self::Finish(link, lost, until)),
            None => Err(events::closed_error(py)),
        }
    }

    pub fn connected(link: Arc<Link>) -> Self {
        let links = link.status().links;
        Self::Connected(link, links)
    }

    /// For how many messages of a `send_many` `send` would have said True so far.
    pub fn accepted(&self) -> usize {
        if let Self::SendMany(many) = self { many.accepted } else { 0 }
    }

    pub fn poll(&mut self, py: Python<'_>, from: From) -> PyResult<Poll> {
        let ready = match self {
            Self::Recv(link) => recv(py, link)?,
            Self::RecvMany(link, limit) => recv_many(py, link, *limit)?,
            Self::Send(link, payload) => send(py, link, payload.as_slice(py), from)?,
            Self::SendMany(many) => return many.poll(py, from),
            Self::Confirm(confirm) => confirm.poll(py, from)?,
            Self::Flush(link, mark) => match link.is_flushed(*mark) {
                Some(is_flushed) => is_flushed.then(|| py.None()),
                None => return Err(events::closed_error(py)),
            },
            Self::Finish(link, lost, until) => {
                let (count, is_final) = link.unconfirmed_since(*lost);
                let is_over = is_final || clock::now() >= *until;
                is_over.then(|| count.into_py_any(py)).transpose()?
            }
            Self::Connected(link, links) => connected(py, link, *links)?,
            Self::Closed(link) => end(py, link.status().closed.as_ref())?,
            Self::Accept(listener, kind) => accept(py, listener, *kind)?,
            Self::Select(select) => select.poll(py)?,
            Self::ListenerClosed(listener) => end(py, listener.end().as_ref())?,
            Self::ShutDown(runtime) => runtime.is_done().then(|| py.None()),
        };
        Ok(ready.map_or(Poll::Pending, Poll::Ready))
    }

    /// A task is about to wait. False when another try would not be in vain.
    pub fn arm(&self, py: Python<'_>, bridge: &Arc<Bridge>, waker: &Waker) -> PyResult<bool> {
        bridge.prepare(py)?;
        Ok(match self {
            Self::Recv(link) | Self::RecvMany(link, _) => {
                let then = link.end_turn();
                bridge.after(py, link, then)?;
                let driver: Arc<dyn LoopDriver> = Arc::clone(bridge) as _;
                link.wait_on_loop(&driver, waker)
            }
            Self::Send(link, _) | Self::SendMany(SendMany { link, .. }) => {
                let is_waiting = link.wait_room(waker);
                link.watch_for_room(Some(Arc::clone(bridge) as _));
                is_waiting
            }
            Self::Confirm(confirm) => {
                let is_waiting = confirm.wait(waker);
                confirm.link.watch_for_room(Some(Arc::clone(bridge) as _));
                is_waiting
            }
            Self::Flush(link, mark) => {
                let is_waiting = link.wait_flushed(*mark, waker);
                link.watch_for_room(Some(Arc::clone(bridge) as _));
                is_waiting
            }
            Self::Finish(link, _, until) => link.wait_confirmed(*until, waker),
            Self::Accept(listener, _) => listener.wait(waker),
            Self::Select(select) => select.arm(py, bridge, waker)?,
            Self::Connected(..) | Self::Closed(_) | Self::ListenerClosed(_) | Self::ShutDown(_) => self.ring_for(waker),
        })
    }

    /// A waiter leaves; one that was woken already passes the wake on.
    pub fn disarm(&self, waker: &Waker) {
        match self {
            Self::Recv(link) | Self::RecvMany(link, _) => link.leave(waker),
            Self::Send(link, _) | Self::SendMany(SendMany { link, .. }) => link.leave_room(waker),
            Self::Confirm(confirm) => confirm.leave(waker),
            Self::Flush(link, mark) => link.leave_flushed(*mark, waker),
            Self::Finish(link, _, until) => link.leave_confirmed(*until, waker),
            Self::Accept(listener, _) => listener.leave(waker),
            Self::Select(select) => select.disarm(waker),
            Self::Connected(..) | Self::Closed(_) | Self::ListenerClosed(_) | Self::ShutDown(_) => {
                if let Some(bell) = self.bell() {
                    bell.remove(waker);
                }
            }
        }
    }

    /// The try after a wake was not in vain. One that waited in several places leaves all of them: the
    /// others may have woken it too.
    pub fn settle(&self, waker: &Waker) {
        if let Self::Select(select) = self {
            select.disarm(waker);
        }
    }

    /// A thread waits, detached, until another try may not be in vain.
    pub fn wait(&self, park: &Arc<Park>, limit: Option<Duration>) {
        let waker: Waker = Arc::clone(park) as Waker;
        match self {
            Self::Recv(link) | Self::RecvMany(link, _) => return link.wait_in_thread(park, limit),
            Self::Select(select) => return select.wait(park, limit),
            Self::Send(link, _) | Self::SendMany(SendMany { link, .. }) => {
                if !link.wait_room(&waker) {
                    return;
                }
                link.serve_in_thread(park, limit);
            }
            Self::Confirm(confirm) => {
                if !confirm.wait(&waker) {
                    return;
                }
                confirm.link.serve_in_thread(park, limit);
            }
            Self::Flush(link, mark) => {
                if !link.wait_flushed(*mark, &waker) {
                    return;
                }
                link.serve_in_thread(park, limit);
            }
            Self::Finish(link, _, until) => {
                if !link.wait_confirmed(*until, &waker) {
                    return;
                }
                link.serve_in_thread(park, limit);
            }
            Self::Accept(listener, _) => {
                if !listener.wait(&waker) {
                    return;
                }
                park.wait(limit);
            }
            Self::Connected(..) | Self::Closed(_) | Self::ListenerClosed(_) | Self::ShutDown(_) => {
                if !self.ring_for(&waker) {
                    return;
                }
                park.wait(limit);
            }
        }
        self.disarm(&waker);
    }

    /// Notes `waker` at the bell; false when what it waits for is so already.
    fn ring_for(&self, waker: &Waker) -> bool {
        if let Some(bell) = self.bell() {
            bell.add(Arc::clone(waker));
        }
        let is_so = match self {
            Self::Connected(link, links) => {
                let status = link.status();
                status.connected.is_some() || status.closed.is_some() || status.links > *links
            }
            Self::Closed(link) => link.status().closed.is_some(),
            Self::ListenerClosed(listener) => listener.end().is_some(),
            Self::ShutDown(runtime) => runtime.is_done(),
            _ => true,
        };
        if is_so {
            self.disarm(waker);
        }
        !is_so
    }

    fn bell(&self) -> Option<&Bell> {
        match self {
            Self::Connected(link, _) | Self::Closed(link) => Some(&link.changed),
            Self::ListenerClosed(listener) => Some(&listener.closed),
            Self::ShutDown(runtime) => Some(&runtime.done),
            _ => None,
        }
    }
}

impl SendMany {
    fn poll(&mut self, py: Python<'_>, from: From) -> PyResult<Poll> {
        let outcome = self.send_batch(py);
        if let Ok(link) = own(&self.link) {
            link.flush_corked();
            see_to(py, link, Then::Watch, from)?;
        }
        outcome
    }

    fn send_batch(&mut self, py: Python<'_>) -> PyResult<Poll> {
        let turn = Turn::begin();
        let until = (!self.is_gathered).then(|| clock::now().saturating_add(BATCH_TIME));
        if !self.is_gathered {
            // Whoever drives the iterable holds this thread, and the loop with it.
            own(&self.link)?.write_past_loop();
        }
        while !turn.is_over() {
            let kept = match self.next.take() {
                Some(kept) => kept,
                None => match self.source.bind(py).clone().next() {
                    None => return Ok(Poll::Ready(self.accepted.into_py_any(py)?)),
                    Some(data) => Payload::new(&data?, &self.link)?.keep()?,
                },
            };
            match self.hand_over(kept.as_slice(py), py)? {
                Sent::Accepted => self.accepted += 1,
                Sent::Refused => {}
                Sent::Ended => return Err(events::closed_error(py)),
                Sent::NoMemory => return Err(no_memory(kept.as_slice(py).len())),
                Sent::Full => {
                    self.next = Some(kept);
                    return Ok(Poll::Pending);
                }
            }
            turn.spend(1, clock::now);
            if until.is_some_and(|until| clock::now() >= until) {
                break;
            }
        }
        Ok(Poll::Yield)
    }

    fn hand_over(&self, payload: &[u8], py: Python<'_>) -> PyResult<Sent> {
        // The iterable is the user's, and may have forked.
        let link = own(&self.link)?;
        if self.is_gathered {
            return Ok(link.try_send(payload, From::Batch).0);
        }
        let (sent, then) = link.try_send(payload, From::Thread);
        see_to(py, link, then, From::Thread)?;
        Ok(sent)
    }
}

/// True or False once the message was accepted or refused; None while the buffer is full.
#[inline(always)]
pub fn send(py: Python<'_>, link: &Arc<Link>, payload: &[u8], from: From) -> PyResult<Option<Py<PyAny>>> {
    let (sent, then) = link.try_send(payload, from);
    self::sent(py, link, sent, then, from, payload.len())
}

/// Sees to the rest of a `try_send`, and says what the caller is told.
#[inline(always)]
pub fn sent(
    py: Python<'_>,
    link: &Arc<Link>,
    sent: Sent,
    then: Then,
    from: From,
    length: usize,
) -> PyResult<Option<Py<PyAny>>> {
    see_to(py, link, then, from)?;
    match sent {
        Sent::Accepted => Ok(Some(true.into_py_any(py)?)),
        Sent::Refused => Ok(Some(false.into_py_any(py)?)),
        Sent::Full => Ok(None),
        Sent::Ended => Err(events::closed_error(py)),
        Sent::NoMemory => Err(no_memory(length)),
    }
}

/// Sees to what a write left to do, where the call came from.
#[inline(always)]
fn see_to(py: Python<'_>, link: &Arc<Link>, then: Then, from: From) -> PyResult<()> {
    if then == Then::Nothing { Ok(()) } else { see_to_rest(py, link, then, from) }
}

fn see_to_rest(py: Python<'_>, link: &Arc<Link>, then: Then, from: From) -> PyResult<()> {
    let bridge = if from == From::Loop { Bridge::running(py)? } else { None };
    if let Some(bridge) = bridge {
        return bridge.after(py, link, then);
    }
    link.flush_corked();
    link.watch_for_room(None);
    Ok(())
}

pub fn accept(py: Python<'_>, listener: &Listener, kind: Face) -> PyResult<Option<Py<PyAny>>> {
    match listener.try_accept() {
        Accepted::Connection(handle) => face(py, &handle, kind).map(Some),
        Accepted::Nothing => Ok(None),
        Accepted::Closed(reason) => {
            let closed = Closed { reason, detail: String::new(), undelivered: 0 };
            events::closed(py, &closed).map(Some)
        }
    }
}

/// The present `Connected`, or one that came and went since the call.
fn connected(py: Python<'_>, link: &Link, links: u64) -> PyResult<Option<Py<PyAny>>> {
    let status = link.status();
    if let Some(closed) = status.closed {
        return events::closed(py, &closed).map(Some);
    }
    let has_passed = status.links > links;
    let shown = status.connected.or(status.last_connected.filter(|_| has_passed));
    shown.map(|connected| events::event(py, &Event::Connected(connected))).transpose()
}

fn end(py: Python<'_>, closed: Option<&Closed>) -> PyResult<Option<Py<PyAny>>> {
    closed.map(|closed| events::closed(py, closed)).transpose()
}

/// Names `accepted` on an exception that ends a `send_many` early.
pub fn with_accepted(py: Python<'_>, error: PyErr, accepted: usize) -> PyErr {
    // An exception class without a place for it keeps its meaning all the same.
    let _ = error.value(py).setattr(intern!(py, "accepted"), accepted);
    error
}
