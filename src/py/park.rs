//! How a thread waits: in the kernel, detached, in slices that let Ctrl-C through.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::link::lock::Mutex;
use pyo3::exceptions::PyTimeoutError;
use pyo3::ffi;
use pyo3::prelude::*;

use super::forked::check;
use super::operation::{Operation, Poll};
use crate::link::clock;
use crate::link::fork::{Birth, steady};
use crate::link::read::Park;
use crate::link::write::From;

/// The longest that the main thread waits without looking at its signals: one that comes between the
/// check and the wait brings no `EINTR`.
const SLICE: Duration = Duration::from_millis(50);

/// The places where threads wait, each with a descriptor. Kept here and not by their threads, so that
/// the end of a runtime can give them back. A thread that ends does not hold the interpreter: a fork waits for
/// its lock (`steady`).
static PARKS: Mutex<BTreeMap<usize, Arc<Park>>> = Mutex::new(BTreeMap::new());

/// This thread's place; its own end gives it back.
struct Place {
    birth: Birth,
    park: Weak<Park>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let gone = {
            let _steady = steady();
            PARKS.lock().remove(&(self.park.as_ptr() as usize))
        };
        drop(gone);
    }
}

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

fn park() -> Arc<Park> {
    PLACE.with_borrow_mut(|place| {
        if let Some(park) = place.as_ref().filter(|place| place.birth.is_here()).and_then(|place| place.park.upgrade())
        {
            return park;
        }
        let park = Arc::new(Park::new());
        if park.is_makeshift() {
            // The next call may find a descriptor.
            return park;
        }
        *place = Some(Place { birth: Birth::here(), park: Arc::downgrade(&park) });
        let _steady = steady();
        PARKS.lock().insert(Arc::as_ptr(&park) as usize, Arc::clone(&park));
        park
    })
}

/// Gives back the descriptors of threads that are not waiting now.
pub fn release_idle() {
    let mut idle = Vec::new();
    {
        let _steady = steady();
        PARKS.lock().retain(|_, park| {
            let is_used = Arc::strong_count(park) > 1;
            if !is_used {
                idle.push(Arc::clone(park));
            }
            is_used
        });
    }
    drop(idle);
}

/// What a thread can try, and wait for in between.
pub trait Blocking: Sync {
    fn attempt(&mut self, py: Python<'_>) -> PyResult<Poll>;

    /// Another try, after microseconds in which something may have come.
    fn look(&mut self, _: Python<'_>) -> PyResult<Poll> {
        Ok(Poll::Pending)
    }

    /// Detached, until another try may not be in vain.
    fn wait(&self, park: &Arc<Park>, limit: Option<Duration>);
}

impl Blocking for Operation {
    fn attempt(&mut self, py: Python<'_>) -> PyResult<Poll> {
        self.poll(py, From::Thread)
    }

    fn wait(&self, park: &Arc<Park>, limit: Option<Duration>) {
        Operation::wait(self, park, limit);
    }
}

/// Tries until there is a value, waiting in between in this thread; each wait may end too early.
///
/// # Errors
/// `TimeoutError` when `limit` is over first, whatever a signal handler raises, and what `attempt` raises.
pub fn run(py: Python<'_>, operation: &mut impl Blocking, limit: Option<Duration>) -> PyResult<Py<PyAny>> {
    let mut next = operation.attempt(py)?;
    if matches!(next, Poll::Pending) && limit != Some(Duration::ZERO) {
        next = operation.look(py)?;
    }
    if let Poll::Ready(value) = next {
        return Ok(value);
    }
    let (park, birth) = (park(), Birth::here());
    let until = limit.map(|limit| clock::now().saturating_add(limit));
    let slice = park.is_of_main_thread().then_some(SLICE);
    loop {
        let left = until.map(|until| until.saturating_sub(clock::now()));
        if left == Some(Duration::ZERO) {
            return Err(nothing_within(limit.unwrap_or_default()));
        }
        match next {
            Poll::Ready(value) => return Ok(value),
            // There is more to do at once, but other threads get their turn first.
            Poll::Yield => py.detach(|| {}),
            Poll::Pending => {
                let limit = [left, slice].into_iter().flatten().min();
                let operation = &*operation;
                py.detach(|| operation.wait(&park, limit));
            }
        }
        py.check_signals()?;
        // A signal handler may have forked.
        check(birth)?;
        next = operation.attempt(py)?;
        if let Poll::Ready(value) = next {
            return Ok(value);
        }
    }
}

/// Whether no other thread of this interpreter runs Python, now or when it is given away: to give it away for nobody
/// takes as long as a look that finds something.
pub fn is_only_thread(_py: Python<'_>) -> bool {
    // SAFETY: attached, so this thread has a state, which nobody else takes apart, and an interpreter that has it.
    unsafe {
        let own = ffi::PyThreadState_Get();
        ffi::PyInterpreterState_ThreadHead(ffi::PyThreadState_GetInterpreter(own)) == own
            && ffi::PyThreadState_Next(own).is_null()
    }
}

/// `timeout=` is over.
pub fn nothing_within(limit: Duration) -> PyErr {
    PyTimeoutError::new_err(format!("nothing within {} s", limit.as_secs_f64()))
}
