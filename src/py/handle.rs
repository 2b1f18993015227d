//! The connection as Python holds it: one base with what never waits, one class for tasks, one for threads.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::convert::{Payload, finite_timeout, goal, integer, timeout};
use super::events;
use super::face::{Core, Face, core_of, face, warn_of_drop};
use super::forked::{OF_PARENT, own};
use super::operation::{self, Operation, with_accepted};
use super::park::run;
use super::receiving::{Receiving, recv};
use super::waiting::Await;
use crate::link::handle::Handle;
use crate::link::link::Link;
use crate::link::turn;
use crate::link::write::From;
use crate::proto::endpoint::State;
use crate::proto::events::Reason;
use crate::proto::options::OnNewSession;

/// Above this a thread that copies gives the interpreter away meanwhile.
const LARGE: usize = 256 * 1024;

/// What never waits, the same for tasks and threads.
#[pyclass(subclass, frozen, weakref, module = "netasync._native")]
pub struct Connection {
    handle: Arc<Handle>,
}

impl Connection {
    pub fn link(&self) -> PyResult<&Arc<Link>> {
        own(&self.handle.link)
    }

    fn send(&self, data: &Bound<'_, PyAny>, from: From) -> PyResult<Option<Py<PyAny>>> {
        let link = self.link()?;
        let payload = Payload::new(data, link)?;
        operation::send(data.py(), link, payload.as_slice(), from)
    }
}

#[pymethods]
impl Connection {
    #[new]
    #[pyo3(signature = (*core), text_signature = "(core)")]
    fn new(core: &Bound<'_, PyTuple>) -> PyResult<Self> {
        let core: Bound<'_, Core> = core_of(core, "use connect(), or accept() of a listener, to get a connection")?;
        Ok(Self { handle: Arc::clone(&core.get().handle) })
    }

    /// Where the connection is in its life, as a `State`. Never waits; any thread.
    #[getter]
    fn state(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        events::state(py, self.link()?.status().state)
    }

    /// The peer's address as a `str` usable as a target, or None while the link is down.
    #[getter]
    fn peer(&self) -> PyResult<Option<String>> {
        Ok(self.link()?.status().connected.map(|connected| connected.peer))
    }

    /// The public name of the session, or None before the first one. On `net.async`, which knows no
    /// sessions, always None.
    #[getter]
    fn session(&self) -> PyResult<Option<String>> {
        Ok(self.link()?.status().session)
    }

    /// Seconds of the last measured round trip, or None before the first. On `net.async` always None.
    #[getter]
    fn latency(&self) -> PyResult<Option<f64>> {
        Ok(self.link()?.latency().map(|latency| latency.as_secs_f64()))
    }

    /// The name given with `name=`, or None. In a forked child too.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.handle.link.options().name.as_deref()
    }

    /// A frozen `Stats`, in messages and bytes. Never waits; any thread.
    fn stats(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        events::stats(py, &self.link()?.stats())
    }

    /// The next item.
    ///
    /// Returns:
    ///     A message as `bytes`, or a value; after `Closed` always `Closed` again.
    ///
    /// Raises:
    ///     BufferEmpty: nothing is there.
    ///     MemoryError: there is none for the message, which stays for a later call.
    fn recv_nowait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let empty = || events::error_class(py, "BufferEmpty", "nothing is there to receive");
        recv(py, self.link()?)?.ok_or_else(empty)
    }

    /// Accepts a message without waiting.
    ///
    /// Args:
    ///     data: any C-contiguous bytes-like object of at most the peer's `max_size` bytes; its content now is what
    ///         is sent. It may be empty, but not on `net.async`.
    ///
    /// Returns:
    ///     True, or False when a dropping write buffer refused it.
    ///
    /// Raises:
    ///     BufferFull: a fixed write buffer is full.
    ///     MessageTooLarge: `data` is above the peer's `max_size`; before the first greeting, and on `net.async`,
    ///         above our own.
    ///     MemoryError: there is none for it; it was not accepted.
    ///     ValueError: `data` is not C-contiguous, or is empty on `net.async`.
    ///     ClosedError: the connection has ended.
    fn send_nowait(&self, data: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let full = || events::error_class(data.py(), "BufferFull", "the write buffer is full");
        self.send(data, From::Loop)?.ok_or_else(full)
    }

    /// Ends now; what was not begun is discarded. Returns at once; the next item is `Closed`.
    fn abort(&self) -> PyResult<()> {
        self.link()?.abort(Reason::Aborted);
        Ok(())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let link = &slf.get().handle.link;
        let name = link.options().name.as_ref().map_or(String::new(), |name| format!(" {name:?}"));
        let condition = if link.birth().is_here() {
            let status = link.status();
            let state = format!("{:?}", status.state).to_lowercase();
            let peer = status.connected.map_or(String::new(), |connected| format!(" to {}", connected.peer));
            state + &peer
        } else {
            String::from(OF_PARENT)
        };
        let class = slf.get_type();
        Ok(format!("<{}.{}{name} {condition}>", class.module()?, class.qualname()?))
    }

    /// Drops what arrives from now on; what had arrived can be taken, then only values come.
    fn _close_reading(&self) -> PyResult<()> {
        self.link()?.close_reading();
        Ok(())
    }

    /// To whom messages were left undelivered, where that is to be said: once, and not of a handle that gives up
    /// what is not delivered.
    fn _undelivered_to(&self) -> PyResult<Option<String>> {
        let link = self.link()?;
        let is_meant = link.options().on_new_session == OnNewSession::Discard || link.was_aborted();
        Ok((!is_meant && self.handle.warns()).then(|| self.handle.target()))
    }

    /// Starts to close and returns at once.
    fn _close(&self) -> PyResult<()> {
        self.link()?.close(Reason::ClosedHere);
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let is_last = Arc::strong_count(&self.handle) == 1;
        let link = &self.handle.link;
        if is_last && link.birth().is_here() && !matches!(link.status().state, State::Closing | State::Closed) {
            warn_of_drop(c"a netasync connection was dropped without close()");
        }
    }
}

/// For tasks: what `netasync/aio.py` awaits.
#[pyclass(subclass, frozen, extends = Connection, module = "netasync._native")]
pub struct TaskConnection;

#[pymethods]
impl TaskConnection {
    #[new]
    #[pyo3(signature = (*core), text_signature = "(core)")]
    fn new(core: &Bound<'_, PyTuple>) -> PyResult<PyClassInitializer<Self>> {
        Ok(PyClassInitializer::from(Connection::new(core)?).add_subclass(Self))
    }

    /// The next item, or an `Await` for it: one call either way, since every one costs.
    fn _recv(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let link = slf.as_super().get().link()?;
        if !turn::is_over()
            && let Some(item) = recv(slf.py(), link)?
        {
            turn::spend(1);
            return Ok(item);
        }
        let waiting = Await::after_a_try(Operation::Recv(Arc::clone(link)));
        Ok(Py::new(slf.py(), waiting)?.into_any())
    }

    /// True or False, or an `Await` for that.
    fn _send(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let (py, link) = (slf.py(), slf.as_super().get().link()?);
        let payload = Payload::new(data, link)?;
        if !turn::is_over()
            && let Some(sent) = operation::send(py, link, payload.as_slice(), From::Loop)?
        {
            turn::spend(1);
            return Ok(sent);
        }
        let waiting = Await::new(Operation::Send(Arc::clone(link), payload.keep()?));
        Ok(Py::new(py, waiting)?.into_any())
    }

    fn _wait_recv_many(slf: &Bound<'_, Self>, limit: &Bound<'_, PyAny>) -> PyResult<Await> {
        Ok(Await::new(Operation::RecvMany(link_of(slf)?, check_limit(limit)?)))
    }

    fn _wait_send_many(slf: &Bound<'_, Self>, source: &Bound<'_, PyAny>) -> PyResult<Await> {
        Ok(Await::new(Operation::send_many(link_of(slf)?, source)?))
    }

    fn _wait_flush(slf: &Bound<'_, Self>) -> PyResult<Await> {
        Ok(Await::new(Operation::flush(slf.py(), link_of(slf)?)?))
    }

    fn _wait_finish(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Await> {
        Ok(Await::new(Operation::finish(slf.py(), link_of(slf)?, timeout.map(finite_timeout).transpose()?)?))
    }

    fn _wait_connected(slf: &Bound<'_, Self>) -> PyResult<Await> {
        Ok(Await::new(Operation::connected(link_of(slf)?)))
    }

    fn _wait_closed(slf: &Bound<'_, Self>) -> PyResult<Await> {
        Ok(Await::new(Operation::Closed(link_of(slf)?)))
    }

    fn _wait_confirmed(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>, confirm: &Bound<'_, PyAny>) -> PyResult<Await> {
        let link = slf.as_super().get().link()?;
        let goal = goal(confirm, link)?;
        let payload = Payload::new(data, link)?.keep()?;
        Ok(Await::new(Operation::confirm(Arc::clone(link), payload, goal)))
    }

    fn _blocking(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        link_of(slf)?;
        face(slf.py(), &slf.as_super().get().handle, Face::Thread)
    }
}

/// For threads: every waiting call detaches, has a `timeout=` and lets Ctrl-C through.
#[pyclass(subclass, frozen, extends = Connection, module = "netasync._native")]
pub struct ThreadConnection;

#[pymethods]
impl ThreadConnection {
    #[new]
    #[pyo3(signature = (*core), text_signature = "(core)")]
    fn new(core: &Bound<'_, PyTuple>) -> PyResult<PyClassInitializer<Self>> {
        Ok(PyClassInitializer::from(Connection::new(core)?).add_subclass(Self))
    }

    /// Waits for the next item, in order.
    ///
    /// Args:
    ///     timeout: seconds; None waits for ever.
    ///
    /// Returns:
    ///     A message as `bytes`, or a value; after `Closed` always `Closed` again.
    ///
    /// Raises:
    ///     TimeoutError: nothing came in time; nothing is lost. Ctrl-C interrupts within 100 ms, and
    ///         loses nothing while waiting.
    ///     MemoryError: there is none for the message, which stays for a later call.
    #[pyo3(signature = (timeout = None))]
    fn recv(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let link = slf.as_super().get().link()?;
        run(slf.py(), &mut Receiving::new(link, None), self::timeout(timeout)?)
    }

    /// Waits for at least one item.
    ///
    /// Args:
    ///     limit: the most items to return, at least 1.
    ///     timeout: seconds; None waits for ever.
    ///
    /// Returns:
    ///     A list of 1 to `limit` items, without waiting for more than the first; `Closed` is the last.
    ///
    /// Raises:
    ///     TimeoutError: nothing came in time; nothing is lost, by Ctrl-C neither.
    ///     MemoryError: there is none for the first message, which stays for a later call.
    #[pyo3(signature = (limit, timeout = None))]
    fn recv_many(
        slf: &Bound<'_, Self>,
        limit: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let link = slf.as_super().get().link()?;
        run(slf.py(), &mut Receiving::new(link, Some(check_limit(limit)?)), self::timeout(timeout)?)
    }

    /// Waits until the write buffer has accepted a message; queues while the link is down.
    ///
    /// Args:
    ///     data: any C-contiguous bytes-like object of at most the peer's `max_size` bytes; its content now is what
    ///         is sent. It may be empty, but not on `net.async`.
    ///     timeout: seconds; None waits for ever.
    ///     confirm: what to wait for beyond that: `"received"`, the peer process holds it, or `"consumed"`, its
    ///         application has taken it. On `net.async`, which confirms nothing, a `ValueError`.
    ///
    /// Returns:
    ///     True; False when a dropping write buffer refused it, and with `confirm` also when a sliding one
    ///     discarded it, or it was lost with its session (`on_new_session="discard"`).
    ///
    /// Raises:
    ///     TimeoutError: there was no room in time; the message was not sent, after Ctrl-C neither. With `confirm`
    ///         it says nothing about the message once that was accepted: it is still delivered.
    ///     MessageTooLarge: `data` is above the peer's `max_size`; before the first greeting, and on `net.async`,
    ///         above our own.
    ///     MemoryError: there is none for it; it was not accepted.
    ///     ValueError: `data` is not C-contiguous, or is empty on `net.async`.
    ///     ClosedError: the connection has ended.
    #[pyo3(signature = (data, timeout = None, *, confirm = None))]
    fn send(
        slf: &Bound<'_, Self>,
        data: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
        confirm: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let link = slf.as_super().get().link()?;
        let goal = confirm.map(|confirm| goal(confirm, link)).transpose()?;
        let limit = self::timeout(timeout)?;
        let payload = Payload::new(data, link)?;
        if let Some(goal) = goal {
            return run(slf.py(), &mut Operation::confirm(Arc::clone(link), payload.keep()?, goal), limit);
        }
        let sent = match &payload {
            Payload::Bytes(bytes) if bytes.as_bytes().len() >= LARGE => send_large(slf.py(), link, bytes)?,
            _ => operation::send(slf.py(), link, payload.as_slice(), From::Thread)?,
        };
        match sent {
            Some(sent) => Ok(sent),
            None => run(slf.py(), &mut Operation::Send(Arc::clone(link), payload.keep()?), limit),
        }
    }

    /// Sends many, crossing into Rust once for each batch.
    ///
    /// A sequence (`list`, `tuple` or another `collections.abc.Sequence`) is sent in batches. Any other iterable may
    /// wait for its next item, so what it gave goes out before it is asked for more: each item by itself, which takes
    /// longer.
    ///
    /// Args:
    ///     iterable: of messages, as `send` takes them.
    ///     timeout: seconds for all of them; None waits for ever. It does not interrupt the iterable.
    ///
    /// Returns:
    ///     For how many messages `send` would have said True.
    ///
    /// Raises:
    ///     TimeoutError, ClosedError, KeyboardInterrupt, what the iterable raises and what `send` raises:
    ///         messages before that stay accepted, and the exception's `accepted` says how many.
    #[pyo3(signature = (iterable, timeout = None))]
    fn send_many(
        slf: &Bound<'_, Self>,
        iterable: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let limit = self::timeout(timeout)?;
        let mut operation = Operation::send_many(link_of(slf)?, iterable)?;
        let outcome = run(slf.py(), &mut operation, limit);
        outcome.map_err(|error| with_accepted(slf.py(), error, operation.accepted()))
    }

    /// Waits until everything accepted so far was handed to the kernel.
    ///
    /// Args:
    ///     timeout: seconds; None waits for ever.
    ///
    /// Raises:
    ///     TimeoutError: not in time; nothing is taken back, by Ctrl-C neither.
    ///     ClosedError: the connection has ended, or ends meanwhile.
    #[pyo3(signature = (timeout = None))]
    fn flush(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let operation = Operation::flush(slf.py(), link_of(slf)?)?;
        wait_for(slf, operation, timeout).map(drop)
    }

    /// Accepts nothing more and waits until the peer's application has taken what was accepted; on
    /// `net.async` until it was handed to the kernel. Receiving goes on.
    ///
    /// Args:
    ///     timeout: seconds; None is `close_timeout`.
    ///
    /// Returns:
    ///     How many messages could not be confirmed in time. Delivery goes on, after Ctrl-C too.
    ///
    /// Raises:
    ///     ClosedError: the connection has ended before.
    #[pyo3(signature = (timeout = None))]
    fn finish(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let mut operation = Operation::finish(slf.py(), link_of(slf)?, timeout.map(finite_timeout).transpose()?)?;
        run(slf.py(), &mut operation, None)
    }

    /// Closes, and waits until that is done: what was accepted for sending is delivered first, within
    /// `close_timeout`; what has arrived and was not taken is discarded.
    ///
    /// Args:
    ///     timeout: seconds to wait; None waits for the end, which `close_timeout` bounds.
    ///
    /// Returns:
    ///     The `Closed` value; its `undelivered` says how many messages are not known to be held by the peer.
    ///
    /// Raises:
    ///     TimeoutError: not closed in time; closing goes on, after Ctrl-C too.
    #[pyo3(signature = (timeout = None))]
    fn close(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        self::timeout(timeout)?;
        slf.as_super().get()._close()?;
        Self::wait_closed(slf, timeout)
    }

    /// Waits until the link is up. Takes nothing.
    ///
    /// Args:
    ///     timeout: seconds; None waits for ever.
    ///
    /// Returns:
    ///     The current `Connected` at once if the link is up, else the next one, or `Closed`.
    ///
    /// Raises:
    ///     TimeoutError: not in time. Ctrl-C interrupts within 100 ms.
    #[pyo3(signature = (timeout = None))]
    fn wait_connected(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        wait_for(slf, Operation::connected(link_of(slf)?), timeout)
    }

    /// Waits for the end. Takes nothing.
    ///
    /// Args:
    ///     timeout: seconds; None waits for ever.
    ///
    /// Returns:
    ///     The `Closed` value.
    ///
    /// Raises:
    ///     TimeoutError: not in time. Ctrl-C interrupts within 100 ms.
    #[pyo3(signature = (timeout = None))]
    fn wait_closed(slf: &Bound<'_, Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        wait_for(slf, Operation::Closed(link_of(slf)?), timeout)
    }

    fn _aio(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        link_of(slf)?;
        face(slf.py(), &slf.as_super().get().handle, Face::Task)
    }
}

/// The faces' common base, for the functions below.
trait HasLink {
    fn link(&self) -> PyResult<Arc<Link>>;
}

impl HasLink for Bound<'_, TaskConnection> {
    fn link(&self) -> PyResult<Arc<Link>> {
        self.as_super().get().link().cloned()
    }
}

impl HasLink for Bound<'_, ThreadConnection> {
    fn link(&self) -> PyResult<Arc<Link>> {
        self.as_super().get().link().cloned()
    }
}

fn link_of(face: &impl HasLink) -> PyResult<Arc<Link>> {
    face.link()
}

fn wait_for(
    slf: &Bound<'_, ThreadConnection>,
    mut operation: Operation,
    limit: Option<&Bound<'_, PyAny>>,
) -> PyResult<Py<PyAny>> {
    run(slf.py(), &mut operation, timeout(limit)?)
}

/// Copies with the interpreter given away. Only immutable bytes: nobody can change them meanwhile.
fn send_large(py: Python<'_>, link: &Arc<Link>, bytes: &Bound<'_, PyBytes>) -> PyResult<Option<Py<PyAny>>> {
    let payload = bytes.as_bytes();
    let (sent, then) = py.detach(|| link.try_send(payload, From::Thread));
    operation::sent(py, link, sent, then, From::Thread, payload.len())
}

fn check_limit(limit: &Bound<'_, PyAny>) -> PyResult<usize> {
    let limit = integer(limit, "limit")?;
    let checked = usize::try_from(limit).ok().filter(|limit| *limit > 0);
    checked.ok_or_else(|| PyValueError::new_err(format!("limit must be at least 1, not {limit}")))
}
