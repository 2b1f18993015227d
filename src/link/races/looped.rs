//! An event loop with tasks, as `py` has them: futures in place of Python's tasks, a selector of `net`'s, and the
//! real errands. What is a cancellation there is a future dropped here.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use shuttle::rand::Rng;

use super::super::driver::LoopDriver;
use super::super::errands::Errands;
use super::super::link::Link;
use super::super::net::{self, Interest, Signal, Socket};
use super::super::spin;
use super::super::wake::{Wake, Waker};
use super::super::write::{From, Sent, Then};
use super::world::{Item, take};

/// Fewer than there are tasks, so that a round ends with something left.
const RESUMES: usize = 2;

pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

pub fn task(work: impl Future<Output = ()> + Send + 'static) -> Task {
    Box::pin(work)
}

enum Work {
    Resume(Arc<Waiter>),
    Sync(Arc<Link>),
}

/// At the next turn.
enum Soon {
    Step(usize),
    Flush,
}

pub struct Loop {
    id: usize,
    errands: Errands<Work>,
    turns: spin::Turns,
    /// What `call_soon_threadsafe` would bring, over a descriptor of the loop's own.
    cancelled: Mutex<Vec<usize>>,
    own: Signal,
    is_stopped: AtomicBool,
    soon: Mutex<VecDeque<Soon>>,
    corked: Mutex<Vec<Arc<Link>>>,
    running: AtomicUsize,
    waiters: AtomicUsize,
    me: Weak<Self>,
}

impl LoopDriver for Loop {
    fn sync(self: Arc<Self>, link: Arc<Link>) {
        self.errands.push(Work::Sync(link));
    }

    fn is_alive(&self) -> bool {
        self.errands.is_alive()
    }

    fn id(&self) -> usize {
        self.id
    }
}

impl Loop {
    pub fn new(id: usize) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            id,
            errands: Errands::default(),
            turns: spin::Turns::default(),
            cancelled: Mutex::default(),
            own: Signal::default(),
            is_stopped: AtomicBool::new(false),
            soon: Mutex::default(),
            corked: Mutex::default(),
            running: AtomicUsize::new(0),
            waiters: AtomicUsize::new(0),
            me: me.clone(),
        })
    }

    /// Any thread: the task ends where it waits.
    pub fn cancel(&self, task: usize) {
        now(&self.cancelled).push(task);
        self.own.set();
    }

    /// Any thread: the loop is closed where it is.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.own.set();
    }

    /// Runs until every task has ended or was cancelled, or the loop is stopped; then it is closed. Tasks that waited
    /// then are returned: they never run again, and keep their places until they are dropped.
    pub fn run(self: &Arc<Self>, tasks: impl IntoIterator<Item = Task>) -> Vec<Option<Task>> {
        let tasks: Vec<_> = tasks.into_iter().map(Some).collect();
        now(&self.soon).extend((0..tasks.len()).map(Soon::Step));
        let mut turns = Turns { of: Arc::clone(self), tasks, signal: None, watched: Vec::new() };
        while !turns.is_over() {
            turns.turn();
        }
        turns.close();
        turns.tasks
    }

    fn driver(&self) -> Arc<dyn LoopDriver> {
        self.strong()
    }

    fn strong(&self) -> Arc<Self> {
        self.me.upgrade().expect("whoever calls holds it")
    }

    fn after(&self, link: &Arc<Link>, then: Then) {
        match then {
            Then::Nothing => {}
            Then::FlushThisTurn => {
                now(&self.corked).push(Arc::clone(link));
                now(&self.soon).push_back(Soon::Flush);
            }
            Then::Watch => link.watch_for_room(Some(self.driver())),
        }
    }

    fn waiter(&self) -> Arc<Waiter> {
        self.waiters.fetch_add(1, Ordering::Relaxed);
        let task = self.running.load(Ordering::Relaxed);
        Arc::new(Waiter { of: self.strong(), task, is_done: AtomicBool::new(false) })
    }
}

/// One waiting task, as the link sees it.
struct Waiter {
    of: Arc<Loop>,
    task: usize,
    is_done: AtomicBool,
}

impl Wake for Waiter {
    fn wake(self: Arc<Self>) -> bool {
        let of = Arc::clone(&self.of);
        of.errands.push(Work::Resume(self))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.of.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place in a queue, which is left when this is dropped.
struct Waiting<'a> {
    link: &'a Arc<Link>,
    leave: fn(&Link, &Waker),
    waiter: Option<Arc<Waiter>>,
}

impl Waiting<'_> {
    fn give_up(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            waiter.is_done.store(true, Ordering::Relaxed);
            (self.leave)(self.link, &(waiter as Waker));
        }
    }

    async fn until_woken(&self) {
        let is_done = || self.waiter.as_ref().is_none_or(|waiter| waiter.is_done.load(Ordering::Relaxed));
        poll_fn(|_| if is_done() { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.give_up();
    }
}

pub async fn recv(of: &Loop, link: &Arc<Link>, mut show: impl FnMut(&Item)) -> Item {
    let mut waiting = Waiting { link, leave: Link::leave, waiter: None };
    loop {
        if let Some(item) = take(link, &mut show) {
            waiting.waiter = None;
            return item;
        }
        waiting.give_up();
        of.after(link, link.end_turn());
        let waiter = of.waiter();
        if link.wait_on_loop(&of.driver(), &(Arc::clone(&waiter) as Waker)) {
            waiting.waiter = Some(waiter);
            waiting.until_woken().await;
        }
    }
}

/// False on a handle that has ended.
pub async fn send(of: &Loop, link: &Arc<Link>, payload: &[u8]) -> bool {
    let mut waiting = Waiting { link, leave: Link::leave_room, waiter: None };
    loop {
        let (sent, then) = link.try_send(payload, From::Loop);
        of.after(link, then);
        match sent {
            Sent::Accepted | Sent::Refused => {
                waiting.waiter = None;
                return true;
            }
            Sent::Ended | Sent::NoMemory => return false,
            Sent::Full => waiting.give_up(),
        }
        let waiter = of.waiter();
        let is_waiting = link.wait_room(&(Arc::clone(&waiter) as Waker));
        link.watch_for_room(Some(of.driver()));
        if is_waiting {
            waiting.waiter = Some(waiter);
            waiting.until_woken().await;
        }
    }
}

struct Watched {
    link: Arc<Link>,
    socket: Arc<Socket>,
    interest: Interest,
}

/// What only the loop's thread touches.
struct Turns {
    of: Arc<Loop>,
    tasks: Vec<Option<Task>>,
    signal: Option<Arc<Signal>>,
    watched: Vec<Watched>,
}

impl Turns {
    fn is_over(&self) -> bool {
        self.tasks.iter().all(Option::is_none) || self.of.is_stopped.load(Ordering::Relaxed)
    }

    fn turn(&mut self) {
        let soon = std::mem::take(&mut *now(&self.of.soon));
        for call in soon {
            self.cancel_perhaps();
            match call {
                Soon::Step(task) => self.step(task),
                Soon::Flush => self.flush(),
            }
        }
        if self.is_over() {
            return;
        }
        let limit = (!now(&self.of.soon).is_empty()).then_some(Duration::ZERO);
        let of = Arc::clone(&self.of);
        let signal = self.signal.clone();
        let signals = [Some(&of.own), signal.as_deref()];
        let signals: Vec<&Signal> = signals.into_iter().flatten().collect();
        let watched: Vec<_> = self.watched.iter().map(|watched| (&*watched.socket, watched.interest)).collect();
        let (signalled, ready) = net::wait_for_all(&signals, &watched, limit);
        if signalled.first() == Some(&true) {
            self.cancel();
        }
        if let (Some(true), Some(signal)) = (signalled.get(1), signal) {
            signal.clear();
            of.errands.heard();
            self.work();
        }
        let snapshot = self.watched.iter().zip(ready).filter(|(_, is_ready)| *is_ready);
        let calls: Vec<_> = snapshot
            .map(|(watched, _)| (Arc::clone(&watched.link), Arc::clone(&watched.socket), watched.interest))
            .collect();
        for (link, socket, interest) in calls {
            self.serve(&link, &socket, interest);
        }
    }

    fn serve(&mut self, link: &Arc<Link>, socket: &Arc<Socket>, interest: Interest) {
        let is_it = |watched: &Watched| Arc::ptr_eq(&watched.socket, socket) && watched.interest == interest;
        if !self.watched.iter().any(is_it) {
            return;
        }
        self.of.errands.begin();
        let goes_on = match interest {
            Interest::Read => link.read_on_loop(self.of.id, &self.of.turns.patience),
            Interest::Write => link.drain(),
            Interest::Both => unreachable!("a loop watches for each by itself"),
        };
        if !goes_on {
            self.of.errands.push(Work::Sync(Arc::clone(link)));
        }
        self.work();
        while interest == Interest::Read && shuttle::rand::thread_rng().r#gen() {
            self.of.errands.begin();
            if link.look_on_loop(self.of.id, &self.of.turns.patience).is_none() {
                return self.of.errands.rest();
            }
            self.work();
        }
    }

    fn step(&mut self, task: usize) {
        self.of.running.store(task, Ordering::Relaxed);
        // Before anything is to wake this loop: its descriptor is watched.
        if !self.of.errands.is_watched() {
            let signal: Arc<Signal> = Arc::default();
            self.signal = Some(Arc::clone(&signal));
            self.of.errands.watch(signal);
        }
        let Some(future) = &mut self.tasks[task] else { return };
        if future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready() {
            self.tasks[task] = None;
        }
    }

    fn work(&mut self) {
        let mut resumed = 0;
        while let Some(work) = self.of.errands.next(resumed < RESUMES) {
            match work {
                Work::Sync(link) => self.sync(&link),
                Work::Resume(waiter) => {
                    self.cancel_perhaps();
                    resumed += 1;
                    self.resume(&waiter);
                }
            }
        }
        if self.of.waiters.load(Ordering::Relaxed) == 0
            && self.watched.is_empty()
            && self.of.errands.unwatch().is_some()
        {
            self.signal = None;
        }
    }

    /// At once or by way of the loop.
    fn resume(&mut self, waiter: &Waiter) {
        if waiter.is_done.swap(true, Ordering::Relaxed) {
            return;
        }
        if shuttle::rand::thread_rng().r#gen() {
            self.step(waiter.task);
        } else {
            now(&self.of.soon).push_back(Soon::Step(waiter.task));
        }
    }

    fn sync(&mut self, link: &Arc<Link>) {
        self.watched.retain(|watched| !Arc::ptr_eq(&watched.link, link));
        let (read, write) = (link.socket_to_read(self.of.id), link.socket_to_write(self.of.id));
        for (socket, interest) in [(read, Interest::Read), (write, Interest::Write)] {
            self.watched.extend(socket.map(|socket| Watched { link: Arc::clone(link), socket, interest }));
        }
    }

    /// A task or a callback that ran just before cancels.
    fn cancel_perhaps(&mut self) {
        if shuttle::rand::thread_rng().r#gen() {
            self.cancel();
        }
    }

    fn cancel(&mut self) {
        self.of.own.clear();
        let cancelled = std::mem::take(&mut *now(&self.of.cancelled));
        cancelled.into_iter().for_each(|task| drop(self.tasks[task].take()));
    }

    fn flush(&mut self) {
        let corked = std::mem::take(&mut *now(&self.of.corked));
        for link in corked {
            let then = link.flush_corked();
            self.of.after(&link, then);
        }
    }

    fn close(&mut self) {
        let (left, _) = self.of.errands.end();
        let corked = std::mem::take(&mut *now(&self.of.corked));
        for link in corked {
            link.flush_corked();
            link.watch_for_room(None);
        }
        for Watched { link, .. } in std::mem::take(&mut self.watched) {
            link.watch_for_room(None);
        }
        for work in left {
            if let Work::Sync(link) = work {
                link.watch_for_room(None);
            }
        }
    }
}

fn now<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().expect("nothing panics while it is held")
}
