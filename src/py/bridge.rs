//! One for each event loop: watches sockets with the loop's own selector, and carries every wake-up
//! from other threads over one coalesced descriptor. Never per message, never `call_soon_threadsafe`,
//! never with the GIL.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use crate::link::lock::Mutex;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyWeakrefMethods, PyWeakrefReference};
use pyo3::{ffi, intern};

use super::callback::{self, Callback, Task};
use super::debugging::may_debug;
use super::events::os_error;
use super::park::is_only_thread;
use super::waiter::LoopWaiter;
use crate::link::clock;
use crate::link::driver::LoopDriver;
use crate::link::errands::Errands;
use crate::link::fork::Birth;
use crate::link::link::Link;
use crate::link::net::{Signal, Socket, sleeps};
use crate::link::spin::{LOOKS_OF_A_TURN, Turns};
use crate::link::turn::Turn;
use crate::link::write::Then;
use crate::proto::Moment;

/// Waiters that are remembered at least, whether they still wait or not.
const REMEMBERED: usize = 16;

/// Tasks that one callback resumes at most, so that others get their turn.
const RESUMES: usize = 64;

/// How often a loop looks for errands that nobody can wake, in seconds.
const UNSIGNALLED: f64 = 0.01;

/// What other threads, or this one, want the loop to do.
pub enum Work {
    /// Tell a task to look again.
    Resume(Arc<LoopWaiter>),
    /// See what to watch for a connection.
    Sync(Arc<Link>),
}

pub struct Bridge {
    birth: Birth,
    id: usize,
    /// Weak: the loop owns the callbacks that own this.
    event_loop: Py<PyWeakrefReference>,
    /// Where it lies, for who knows that it is alive.
    address: usize,
    /// The method of the loop's class: to look for it takes as long as the answer.
    get_debug: Py<PyAny>,
    /// Debug mode shows elsewhere before anything that the loop then calls: not so on uvloop, where asking is cheap.
    tells_of_debugging: bool,
    /// Whether it can be run within a task of its own.
    may_nest: bool,
    errands: Errands<Work>,
    /// Touched by the loop's thread only.
    watched: Mutex<HashMap<u64, Watched>>,
    corked: Mutex<Vec<Arc<Link>>>,
    waiters: AtomicUsize,
    /// All that wait, and some that have gone. The loop's end is theirs, though it does not tell them: whoever
    /// waits and its task keep each other alive. Locked with the interpreter attached only, and let go of
    /// before anything of Python's runs.
    remembered: Mutex<Vec<Weak<LoopWaiter>>>,
    turns: Turns,
    /// Its next turn begins with a look.
    is_to_look: AtomicBool,
    /// The number of the timer that looks for errands while there is no descriptor; 0 without one.
    timer: AtomicUsize,
    /// A callback of ours is under way.
    is_called: AtomicBool,
    /// It was run within a task of its own, and may be again: tasks are woken in the ordinary way from then on.
    is_nested: AtomicBool,
    me: Weak<Self>,
}

#[derive(Default)]
struct Watched {
    link: Weak<Link>,
    read: Option<Arc<Socket>>,
    write: Option<Arc<Socket>>,
}

static NEXT_ID: AtomicUsize = AtomicUsize::new(1);
static BRIDGES: LazyLock<Mutex<Vec<Arc<Bridge>>>> = LazyLock::new(Mutex::default);
static RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static RESUMES_DIRECTLY: LazyLock<bool> =
    LazyLock::new(|| std::env::var("NETASYNC_DIRECT_RESUME").map_or(true, |value| value != "0"));

thread_local! {
    /// The bridge of the loop that ran last in this thread.
    static LAST: RefCell<Option<Arc<Bridge>>> = const { RefCell::new(None) };
}

impl LoopDriver for Bridge {
    fn sync(self: Arc<Self>, link: Arc<Link>) {
        self.push(Work::Sync(link));
    }

    fn is_alive(&self) -> bool {
        self.errands.is_alive() && self.is_here()
    }

    fn id(&self) -> usize {
        self.id
    }
}

impl Bridge {
    /// The bridge of the loop that runs in this thread, made on its first use; None without one.
    pub fn running(py: Python<'_>) -> PyResult<Option<Arc<Self>>> {
        if let Some(calling) = callback::calling(py) {
            return Ok(Some(calling));
        }
        let getter = RUNNING_LOOP
            .get_or_try_init(py, || py.import("asyncio.events")?.getattr("_get_running_loop").map(Bound::unbind))?;
        let event_loop = getter.bind(py).call0()?;
        if event_loop.is_none() {
            return Ok(None);
        }
        let last = LAST.with_borrow(|last| last.as_ref().filter(|last| last.is_of(&event_loop)).cloned());
        if last.is_some() {
            return Ok(last);
        }
        let bridge = Self::of(&event_loop)?;
        LAST.set(Some(Arc::clone(&bridge)));
        Ok(Some(bridge))
    }

    fn of(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        let py = event_loop.py();
        let known: Vec<Arc<Self>> = BRIDGES.lock().clone();
        for bridge in known.iter().filter(|bridge| bridge.is_here()) {
            let is_closed = match bridge.event_loop.bind(py).upgrade() {
                Some(other) if other.is(event_loop) => return Ok(Arc::clone(bridge)),
                Some(other) => other.call_method0(intern!(py, "is_closed"))?.is_truthy()?,
                None => true,
            };
            if is_closed {
                bridge.end();
            }
        }
        let class = event_loop.get_type();
        let is_uvloop = class.fully_qualified_name()?.to_string_lossy().starts_with("uvloop.");
        let get_debug = class.getattr(intern!(py, "get_debug"))?.unbind();
        let address = event_loop.as_ptr() as usize;
        let event_loop = PyWeakrefReference::new(event_loop)?.unbind();
        let bridge = Arc::new_cyclic(|me| Self {
            birth: Birth::here(),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            event_loop,
            address,
            get_debug,
            tells_of_debugging: !is_uvloop,
            may_nest: !is_uvloop,
            errands: Errands::default(),
            watched: Mutex::default(),
            corked: Mutex::default(),
            waiters: AtomicUsize::new(0),
            remembered: Mutex::default(),
            turns: Turns::default(),
            is_to_look: AtomicBool::new(false),
            timer: AtomicUsize::new(0),
            is_called: AtomicBool::new(false),
            is_nested: AtomicBool::new(false),
            me: me.clone(),
        });
        let mut bridges = BRIDGES.lock();
        bridges.retain(|bridge| bridge.is_alive());
        bridges.push(Arc::clone(&bridge));
        Ok(bridge)
    }

    fn is_of(&self, event_loop: &Bound<'_, PyAny>) -> bool {
        self.is_alive() && self.event_loop.bind(event_loop.py()).upgrade().is_some_and(|own| own.is(event_loop))
    }

    /// The loop, on whose thread this is called.
    pub fn event_loop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let gone = || PyRuntimeError::new_err("the event loop is gone");
        self.event_loop.bind(py).upgrade().ok_or_else(gone)
    }

    /// Whether a callback of this loop may enter a task itself. Not in debug mode: what is slow would be reported in
    /// our name, and not in that of the task. `future` is one that `waiter.rs` made for this loop.
    pub fn resumes_directly(&self, future: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = future.py();
        if !*RESUMES_DIRECTLY || self.is_nested.load(Ordering::Relaxed) {
            return Ok(false);
        }
        if self.tells_of_debugging && !may_debug(py)? {
            return Ok(true);
        }
        // SAFETY: attached; the address is that of the loop, which `future` keeps alive.
        let debugs = unsafe {
            let debugs = ffi::PyObject_CallOneArg(self.get_debug.as_ptr(), self.address as *mut ffi::PyObject);
            Bound::from_owned_ptr_or_err(py, debugs)?
        };
        Ok(debugs.is(PyBool::new(py, false)) || !debugs.is_truthy()?)
    }

    /// Whether it can be run within a task of its own. uvloop's cannot; others are taught it (`nest_asyncio`).
    pub(super) fn may_nest(&self) -> bool {
        self.may_nest
    }

    /// True where one of them is under way already.
    pub(super) fn callback_begins(&self) -> bool {
        let is_within = self.is_called.swap(true, Ordering::Relaxed);
        if is_within {
            self.was_nested();
        }
        is_within
    }

    pub(super) fn callback_ends(&self) {
        self.is_called.store(false, Ordering::Relaxed);
    }

    /// This loop runs while a task of its own does.
    pub fn was_nested(&self) {
        self.is_nested.store(true, Ordering::Relaxed);
    }

    /// Raises it by the loop's next turn, as a task that the loop itself called would.
    pub fn raise_soon(&self, py: Python<'_>, error: PyErr) -> PyResult<()> {
        let callback = Callback::of(py, self.strong()?, Task::Raise(error))?;
        self.event_loop(py)?.call_method1(intern!(py, "call_soon"), (callback,)).map(drop)
    }

    /// Any thread: something for the loop to do. False when the loop is closed.
    pub fn push(&self, work: Work) -> bool {
        self.is_here() && self.errands.push(work)
    }

    /// False in a forked child, where nothing of this may be touched.
    pub fn is_here(&self) -> bool {
        self.birth.is_here()
    }

    pub fn waiter_came(&self, waiter: &Arc<LoopWaiter>) {
        self.waiters.fetch_add(1, Ordering::Relaxed);
        let mut remembered = self.remembered.lock();
        if remembered.len() == remembered.capacity() {
            remembered.retain(|waiter| waiter.strong_count() > 0);
            let more = REMEMBERED.max(remembered.len());
            remembered.reserve(more);
        }
        remembered.push(Arc::downgrade(waiter));
    }

    pub fn waiter_left(&self) {
        self.waiters.fetch_sub(1, Ordering::Relaxed);
    }

    /// Before anything is to wake this loop: its descriptor is watched. Where none can be had the loop looks for
    /// errands by itself, until one can.
    pub fn prepare(&self, py: Python<'_>) -> PyResult<()> {
        if self.errands.is_watched() || self.timer.load(Ordering::Relaxed) != 0 {
            return Ok(());
        }
        match self.open_signal(py) {
            Err(error) if error.is_instance_of::<PyOSError>(py) => self.start_timer(py),
            opened => opened,
        }
    }

    /// Flushes what `link` corked at the end of this turn of the loop.
    pub fn flush_this_turn(&self, py: Python<'_>, link: &Arc<Link>) -> PyResult<()> {
        let mut corked = self.corked.lock();
        corked.push(Arc::clone(link));
        let is_first = corked.len() == 1;
        drop(corked);
        if is_first {
            let callback = Callback::of(py, self.strong()?, Task::Flush)?;
            self.event_loop(py)?.call_method1(intern!(py, "call_soon"), (callback,))?;
        }
        Ok(())
    }

    /// Sees to what a write left to do.
    pub fn after(&self, py: Python<'_>, link: &Arc<Link>, then: Then) -> PyResult<()> {
        match then {
            Then::Nothing => {}
            Then::FlushThisTurn => self.flush_this_turn(py, link)?,
            Then::Watch => {
                self.prepare(py)?;
                link.watch_for_room(Some(self.strong()?));
            }
        }
        Ok(())
    }

    /// The loop is closed or gone: its descriptors and callbacks are no use any more.
    pub(super) fn end(&self) {
        if !self.is_here() {
            return;
        }
        let left = self.errands.end();
        for waiter in self.waiting() {
            // Its task will never run; what it holds goes, and its wake goes on to the next.
            waiter.forget();
        }
        let watched = std::mem::take(&mut *self.watched.lock());
        let corked = std::mem::take(&mut *self.corked.lock());
        for link in corked {
            link.flush_corked();
            link.watch_for_room(None);
        }
        // What this loop wrote or was about to, the supervisor writes at once and not at its next tick.
        for link in watched.values().filter_map(|watched| watched.link.upgrade()) {
            link.watch_for_room(None);
        }
        for work in &left.0 {
            if let Work::Sync(link) = work {
                link.watch_for_room(None);
            }
        }
        drop((left, watched));
    }

    fn waiting(&self) -> Vec<Arc<LoopWaiter>> {
        self.remembered.lock().iter().filter_map(Weak::upgrade).collect()
    }

    fn strong(&self) -> PyResult<Arc<Self>> {
        self.me.upgrade().ok_or_else(|| PyRuntimeError::new_err("the event loop is gone"))
    }

    fn start_timer(&self, py: Python<'_>) -> PyResult<()> {
        let number = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let callback = Callback::of(py, self.strong()?, Task::LookForErrands(number))?;
        self.event_loop(py)?.call_method1(intern!(py, "call_later"), (UNSIGNALLED, callback))?;
        self.timer.store(number, Ordering::Relaxed);
        Ok(())
    }

    /// The timer has come: does what lies there, and sees to the next wake.
    pub(super) fn look_for_errands(&self, py: Python<'_>) -> PyResult<()> {
        self.timer.store(0, Ordering::Relaxed);
        self.begin();
        let outcome = self.work(py);
        if self.is_here() && self.may_be_woken() {
            self.prepare(py)?;
        }
        outcome
    }

    /// Whether the timer of this number is still to come.
    pub(super) fn awaits_timer(&self, number: usize) -> bool {
        self.timer.load(Ordering::Relaxed) == number
    }

    fn open_signal(&self, py: Python<'_>) -> PyResult<()> {
        let signal = Arc::new(Signal::new().map_err(|error| os_error(&error, ""))?);
        let callback = Callback::of(py, self.strong()?, Task::Drain(Arc::clone(&signal)))?;
        self.event_loop(py)?.call_method1(intern!(py, "add_reader"), (signal.lend(), callback))?;
        self.errands.watch(signal);
        Ok(())
    }

    /// Somebody waits, or something is watched.
    fn may_be_woken(&self) -> bool {
        self.waiters.load(Ordering::Relaxed) > 0 || !self.watched.lock().is_empty()
    }

    /// With nobody waiting and nothing watched the descriptor goes back.
    fn close_idle_signal(&self, py: Python<'_>) -> PyResult<()> {
        if self.may_be_woken() {
            return Ok(());
        }
        if let Some(signal) = self.errands.unwatch() {
            self.event_loop(py)?.call_method1(intern!(py, "remove_reader"), (signal.as_raw_fd(),))?;
        }
        Ok(())
    }

    /// Does what lies there. From loop-level callbacks only: a task that runs could not be entered.
    pub(super) fn work(&self, py: Python<'_>) -> PyResult<()> {
        let (mut resumed, turn) = (0, Turn::begin());
        // A task that was resumed may have forked: its child comes back here too.
        while self.is_here() {
            let next = self.errands.next(resumed < RESUMES && !turn.is_over());
            let outcome = match next {
                None => {
                    callback::forget_spare();
                    return self.close_idle_signal(py);
                }
                Some(Work::Sync(link)) => self.sync_link(py, &link),
                Some(Work::Resume(waiter)) => {
                    resumed += 1;
                    let outcome = waiter.resume(py);
                    turn.spend(1, clock::now);
                    outcome
                }
            };
            if let Err(error) = outcome {
                callback::forget_spare();
                self.errands.rest();
                return Err(error);
            }
        }
        Ok(())
    }

    /// The loop says that there is something to read.
    pub(super) fn read(&self, link: &Arc<Link>) {
        if !link.read_on_loop(self.id, &self.turns.patience) {
            self.push(Work::Sync(Arc::clone(link)));
        }
    }

    /// This turn has nothing left to do but to wait for more from `link`: looks for it, and sees to it. Beside other
    /// connections, which wait for their turns, it does not.
    pub(super) fn look(&self, py: Python<'_>, link: &Arc<Link>) -> PyResult<()> {
        let is_to_look = self.is_to_look.load(Ordering::Relaxed);
        if is_to_look || !link.awaits_answer() || !self.turns.may_look(sleeps) {
            return Ok(());
        }
        let mut begun = None;
        while self.is_here() && self.watched.lock().len() == 1 {
            self.begin();
            let look = || link.look_on_loop(self.id, &self.turns.patience);
            let Some(now) = (if is_only_thread(py) { look() } else { py.detach(look) }) else {
                self.errands.rest();
                break;
            };
            self.work(py)?;
            if now.saturating_sub(*begun.get_or_insert(now)) > LOOKS_OF_A_TURN {
                return self.look_next_turn(py, link);
            }
        }
        Ok(())
    }

    /// Others have their turn, but the loop does not sleep.
    fn look_next_turn(&self, py: Python<'_>, link: &Arc<Link>) -> PyResult<()> {
        let callback = Callback::of(py, self.strong()?, Task::Look(Arc::clone(link), clock::now()))?;
        self.event_loop(py)?.call_method1(intern!(py, "call_soon"), (callback,))?;
        self.is_to_look.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn look_again(&self, py: Python<'_>, link: &Arc<Link>, asked: Moment) -> PyResult<()> {
        self.is_to_look.store(false, Ordering::Relaxed);
        self.turns.others_took(clock::now().saturating_sub(asked), sleeps);
        self.look(py, link)
    }

    /// From now until `work`, wakes come without a write to the descriptor.
    pub(super) fn begin(&self) {
        self.errands.begin();
    }

    /// The same, by the callback that the descriptor called.
    pub(super) fn heard(&self) {
        self.errands.heard();
    }

    /// Brings the selector in line with what the connection wants watched.
    fn sync_link(&self, py: Python<'_>, link: &Arc<Link>) -> PyResult<()> {
        let entry = self.watched.lock().remove(&link.id());
        let (old_read, old_write) = entry.map(|entry| (entry.read, entry.write)).unwrap_or_default();
        let (read, write) = (link.socket_to_read(self.id), link.socket_to_write(self.id));
        let event_loop = self.event_loop(py)?;
        self.watch(&event_loop, (&old_read, &read), ("remove_reader", "add_reader"), || Task::Read(Arc::clone(link)))?;
        self.watch(&event_loop, (&old_write, &write), ("remove_writer", "add_writer"), || {
            Task::Write(Arc::clone(link))
        })?;
        if read.is_some() || write.is_some() || link.is_read_by(self.id) {
            self.watched.lock().insert(link.id(), Watched { link: Arc::downgrade(link), read, write });
        }
        Ok(())
    }

    fn watch(
        &self,
        event_loop: &Bound<'_, PyAny>,
        (old, new): (&Option<Arc<Socket>>, &Option<Arc<Socket>>),
        (remove, add): (&str, &str),
        task: impl FnOnce() -> Task,
    ) -> PyResult<()> {
        if matches!((old, new), (Some(old), Some(new)) if Arc::ptr_eq(old, new)) {
            return Ok(());
        }
        if let Some(old) = old {
            event_loop.call_method1(remove, (old.as_raw_fd(),))?;
        }
        if let Some(new) = new {
            let callback = Callback::of(event_loop.py(), self.strong()?, task())?;
            event_loop.call_method1(add, (new.lend(), callback))?;
        }
        Ok(())
    }

    pub(super) fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let corked = std::mem::take(&mut *self.corked.lock());
        for link in corked {
            let then = link.flush_corked();
            self.after(py, &link, then)?;
        }
        Ok(())
    }
}

impl Bridge {
    /// Whether `signal` is the descriptor that wakes this loop now.
    pub(super) fn is_woken_by(&self, signal: &Arc<Signal>) -> bool {
        self.errands.is_woken_by(signal)
    }
}

/// Every bridge whose loop is closed gives its descriptors back.
pub fn forget_closed_loops(py: Python<'_>) {
    let known: Vec<Arc<Bridge>> = BRIDGES.lock().clone();
    for bridge in known {
        let event_loop = bridge.event_loop.bind(py).upgrade();
        let is_closed = event_loop.is_none_or(|event_loop| {
            event_loop.call_method0(intern!(py, "is_closed")).and_then(|closed| closed.is_truthy()).unwrap_or(true)
        });
        if is_closed {
            bridge.end();
        }
    }
    BRIDGES.lock().retain(|bridge| bridge.is_alive());
}

/// In a forked child: the loops are the parent's. Should the child run one of them all the same, the tasks
/// that wait there look again.
pub fn leave_to_parent(py: Python<'_>) {
    let (ours, of_parent) = BRIDGES.lock().drain(..).partition(|bridge| bridge.is_here());
    *BRIDGES.lock() = ours;
    for bridge in of_parent {
        for waiter in bridge.waiting() {
            // A loop that is closed, or another thread's in debug mode: then its tasks run nowhere.
            let _ = waiter.resume_soon(py);
        }
        // Never taken apart: another thread may have been at it.
        std::mem::forget(bridge);
    }
}
