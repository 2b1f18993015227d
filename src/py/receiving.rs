//! How items leave a connection, one or many at once, and how a thread waits for them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::convert::{no_memory, try_append, try_bytes, try_list};
use super::events;
use super::operation::Poll;
use super::park::{Blocking, is_only_thread};
use crate::link::link::{Link, Rx};
use crate::link::lock::MutexGuard;
use crate::link::read::Park;
use crate::proto::events::Event;
use crate::proto::halves::Front;

/// An item while the lock is held, when nothing may run that Python could interrupt: building a value
/// can collect garbage, and a collected handle takes the lock.
enum Taken {
    Message(Py<PyBytes>),
    Event(Event),
}

/// A message of this length found no memory, and stays.
struct Unfit(usize);

impl Taken {
    fn new(py: Python<'_>, front: Front<'_>) -> Result<Self, Unfit> {
        match front {
            Front::Message(message) => {
                let bytes = try_bytes(py, message).ok_or(Unfit(message.len()))?;
                Ok(Self::Message(bytes.unbind()))
            }
            Front::Event(event) => Ok(Self::Event(event.clone())),
        }
    }

    fn into_item(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self {
            Self::Message(bytes) => Ok(bytes.into_any()),
            Self::Event(event) => events::event(py, &event),
        }
    }
}

/// One item, if one is there.
pub fn recv(py: Python<'_>, link: &Link) -> PyResult<Option<Py<PyAny>>> {
    recv_from(py, link, link.rx())
}

/// A list of what is there, up to `limit`; None when nothing is.
pub fn recv_many(py: Python<'_>, link: &Link, limit: usize) -> PyResult<Option<Py<PyAny>>> {
    recv_many_from(py, link, link.rx(), limit)
}

fn recv_from(py: Python<'_>, link: &Link, rx: MutexGuard<'_, Rx>) -> PyResult<Option<Py<PyAny>>> {
    let mut taken = None;
    let outcome = link.take_from(rx, 1, |front| {
        taken = Some(Taken::new(py, front)?);
        Ok(())
    });
    outcome.map_err(|Unfit(length)| no_memory(length))?;
    taken.map(|taken| taken.into_item(py)).transpose()
}

fn recv_many_from(py: Python<'_>, link: &Link, rx: MutexGuard<'_, Rx>, limit: usize) -> PyResult<Option<Py<PyAny>>> {
    if rx.receiver.ready() == 0 {
        let Ok(_) = link.take_from(rx, limit, |_| Ok::<_, Infallible>(()));
        return Ok(None);
    }
    drop(rx);
    let mut batch = Batch::new(py)?;
    match link.take(limit, |front| batch.add(Taken::new(py, front)?)) {
        Err(Unfit(length)) if batch.list.is_empty() => Err(no_memory(length)),
        // Those before one that finds no memory are taken; the next call says so.
        Ok(_) | Err(_) => batch.into_item(py),
    }
}

/// What a `recv_many` takes. It lies in the list at once: afterwards there might be no memory for one.
struct Batch<'py> {
    list: Bound<'py, PyList>,
    /// With their places in the list.
    events: Vec<(usize, Event)>,
}

impl<'py> Batch<'py> {
    fn new(py: Python<'py>) -> PyResult<Self> {
        Ok(Self { list: try_list(py)?, events: Vec::new() })
    }

    fn add(&mut self, taken: Taken) -> Result<(), Unfit> {
        let (py, place) = (self.list.py(), self.list.len());
        match taken {
            Taken::Message(bytes) => {
                let bytes = bytes.into_bound(py);
                if try_append(&self.list, &bytes) { Ok(()) } else { Err(Unfit(bytes.as_bytes().len())) }
            }
            Taken::Event(event) => {
                if !try_append(&self.list, &py.None().into_bound(py)) {
                    return Err(Unfit(0));
                }
                self.events.push((place, event));
                Ok(())
            }
        }
    }

    fn into_item(self, py: Python<'py>) -> PyResult<Option<Py<PyAny>>> {
        for (place, event) in self.events {
            self.list.set_item(place, events::event(py, &event)?)?;
        }
        Ok((!self.list.is_empty()).then(|| self.list.into_any().unbind()))
    }
}

/// A thread's `recv`, or `recv_many` with a limit. Shorter than an `Operation`: nothing is shared before it sleeps.
pub struct Receiving<'a> {
    link: &'a Link,
    limit: Option<usize>,
}

impl<'a> Receiving<'a> {
    pub fn new(link: &'a Link, limit: Option<usize>) -> Self {
        Self { link, limit }
    }

    fn take(&self, py: Python<'_>, rx: MutexGuard<'_, Rx>) -> PyResult<Poll> {
        let taken = match self.limit {
            None => recv_from(py, self.link, rx),
            Some(limit) => recv_many_from(py, self.link, rx, limit),
        };
        taken.map(|taken| taken.map_or(Poll::Pending, Poll::Ready))
    }
}

impl Blocking for Receiving<'_> {
    fn attempt(&mut self, py: Python<'_>) -> PyResult<Poll> {
        self.take(py, self.link.rx())
    }

    fn look(&mut self, py: Python<'_>) -> PyResult<Poll> {
        if is_only_thread(py) {
            return self.link.look_in_thread().map_or(Ok(Poll::Pending), |rx| self.take(py, rx));
        }
        let has_come = py.detach(|| self.link.look_in_thread().is_some());
        if has_come { self.attempt(py) } else { Ok(Poll::Pending) }
    }

    fn wait(&self, park: &Arc<Park>, limit: Option<Duration>) {
        self.link.wait_in_thread(park, limit);
    }
}
