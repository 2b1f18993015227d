//! The inline way in: whichever thread wants a message reads it, under the rx lock, into that thread's
//! one buffer, and what is left over moves to the connection's inbox.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::clock;
use super::driver::{Driver, LoopDriver};
use super::link::{Link, Rx, StreamEnd};
use super::lock::MutexGuard;
use super::net::{self, Interest, Signal, Socket};
use super::spin::{Patience, came_in_thread};
#[cfg(feature = "races")]
use super::sync::BorrowMut as _;
use super::sync::atomic::{AtomicBool, Ordering};
use super::sync::thread_local;
use super::wake::{Wake, Waker};
use crate::proto::events::Event;
use crate::proto::halves::Front;
use crate::proto::memory::reserve_exact;
use crate::proto::telling::Untold;

const READ_BUFFER: usize = if cfg!(feature = "races") { 48 } else { 256 * 1024 };
/// So much of a large message is worth a system call of its own; less is copied to its place.
const WORTH_A_READ: usize = if cfg!(feature = "races") { 8 } else { 4096 };
/// The kernel's copy into memory that starts 8 or 16 bytes into a page takes twice as long (`speed.md`).
const ALIGNMENT: usize = 64;

thread_local! {
    /// One for each thread that reads, kept and reused: a read into fresh memory costs 28 µs, not 4.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What one read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    Bytes,
    /// Nothing is there now.
    Nothing,
    /// Nothing may be read now: the inbox is full, there is no link, or its stream has ended.
    Closed,
}

/// How long a thread sleeps that nobody can wake.
const UNSIGNALLED: Duration = Duration::from_millis(10);

/// How a thread waits for one connection.
pub(super) struct Place {
    /// It polls this and reads for all of them; without it, it is woken.
    pub(super) socket: Option<Arc<Socket>>,
}

/// A thread that waits in a blocking call. Where the system had no descriptor left to wake it by, it looks by itself
/// every few milliseconds.
pub struct Park {
    signal: Option<Signal>,
    /// In place of a signal: somebody has woken it.
    is_woken: AtomicBool,
    is_of_main_thread: bool,
}

impl Park {
    #[expect(clippy::new_without_default, reason = "it asks the system")]
    pub fn new() -> Self {
        let is_woken = AtomicBool::new(false);
        Self { signal: Signal::new().ok(), is_woken, is_of_main_thread: net::is_main_thread() }
    }

    /// It has no descriptor: not worth keeping.
    pub fn is_makeshift(&self) -> bool {
        self.signal.is_none()
    }

    /// Whether it is the main thread that waits here. Asked once: it takes two system calls.
    pub fn is_of_main_thread(&self) -> bool {
        self.is_of_main_thread
    }

    /// Blocks until somebody wakes this thread, a signal handler ran, or `limit` is over.
    pub fn wait(&self, limit: Option<Duration>) {
        self.wait_for(None, limit);
    }

    /// Returns whether the socket is ready.
    pub(super) fn wait_for(&self, socket: Option<(&Socket, Interest)>, limit: Option<Duration>) -> bool {
        let ready = net::wait(self.signal.as_ref(), socket, self.limit(limit));
        self.clear(ready.signal);
        ready.socket
    }

    /// The same over several sockets to be read; returns for each whether it is ready.
    pub(super) fn wait_for_any(&self, sockets: &[&Socket], limit: Option<Duration>) -> Vec<bool> {
        let (is_signalled, ready) = net::wait_for_any(self.signal.as_ref(), sockets, self.limit(limit));
        self.clear(is_signalled);
        ready
    }

    /// Without a signal it waits for as long only as a wake may go unnoticed.
    fn limit(&self, limit: Option<Duration>) -> Option<Duration> {
        match &self.signal {
            Some(_) => limit,
            None if self.is_woken.swap(false, Ordering::Acquire) => Some(Duration::ZERO),
            None => Some(limit.map_or(UNSIGNALLED, |limit| limit.min(UNSIGNALLED))),
        }
    }

    fn clear(&self, is_signalled: bool) {
        if let Some(signal) = self.signal.as_ref().filter(|_| is_signalled) {
            signal.clear();
        }
    }
}

impl Wake for Park {
    fn wake(self: Arc<Self>) -> bool {
        match &self.signal {
            Some(signal) => signal.set(),
            None => self.is_woken.store(true, Ordering::Release),
        }
        true
    }
}

impl Link {
    /// Takes up to `limit` items, showing each to `take` first; what `take` refuses with an error stays.
    /// Closed is the last one of a batch, and can be taken for ever.
    ///
    /// # Errors
    /// The first error of `take`; the items before it are taken.
    pub fn take<E>(&self, limit: usize, take: impl FnMut(Front<'_>) -> Result<(), E>) -> Result<usize, E> {
        self.take_from(self.rx(), limit, take)
    }

    /// The same where the lock is held already; then no more.
    ///
    /// # Errors
    /// As `take`.
    pub fn take_from<E>(
        &self,
        mut rx: MutexGuard<'_, Rx>,
        limit: usize,
        mut take: impl FnMut(Front<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut taken = 0;
        let mut outcome = Ok(());
        while taken < limit {
            let Some(front) = rx.receiver.front() else {
                break;
            };
            let is_closed = matches!(front, Front::Event(Event::Closed(_)));
            let is_message = matches!(front, Front::Message(_));
            outcome = take(front);
            if outcome.is_err() {
                break;
            }
            rx.receiver.pop();
            rx.owes_answer |= is_message;
            taken += 1;
            if is_closed {
                break;
            }
        }
        if outcome.is_err() && !rx.readers.is_empty() {
            // One that was woken leaves without taking: whoever waits next looks in its place.
            self.publish(&mut rx);
        }
        self.taken(&mut rx, taken);
        let is_absent = taken > 0 && rx.socket.is_none();
        drop(rx);
        if is_absent {
            self.recount();
        }
        outcome.map(|()| taken)
    }

    /// A task on `driver` found nothing and is about to wait: `waker` is woken when something comes.
    /// Returns false, without having noted it, when something is there after all.
    pub fn wait_on_loop(&self, driver: &Arc<dyn LoopDriver>, waker: &Waker) -> bool {
        let mut rx = self.rx();
        if rx.receiver.ready() > 0 {
            return false;
        }
        rx.readers.add(Arc::clone(waker));
        if !rx.reading.is_loop(driver.id()) {
            let replaced = rx.reading.enter_loop(driver, clock::now());
            self.replace_driver(&mut rx, replaced);
        }
        true
    }

    /// A waiter leaves without taking. One that was woken already passes the wake on.
    pub fn leave(&self, waker: &Waker) {
        let mut rx = self.rx();
        if !rx.readers.remove(waker) {
            self.publish(&mut rx);
        }
    }

    /// A thread waits until something may be there, at most for `limit`. The first to come polls and
    /// reads for all of them; when it leaves, it hands that on.
    pub fn wait_in_thread(&self, park: &Arc<Park>, limit: Option<Duration>) {
        let waker: Waker = Arc::clone(park) as Waker;
        let Some(place) = self.begin_waiting(&waker) else { return };
        let socket = place.socket.as_deref().map(|socket| (socket, Interest::Read));
        let is_ready = park.wait_for(socket, limit);
        self.end_waiting(&waker, &place, is_ready);
        if is_ready {
            came_in_thread();
        }
    }

    /// The thread behind `waker` is about to wait. None when something is there after all.
    pub(super) fn begin_waiting(&self, waker: &Waker) -> Option<Place> {
        let mut rx = self.rx();
        if rx.receiver.ready() > 0 { None } else { Some(self.take_place(&mut rx, waker)) }
    }

    /// It is about to wait for something that what comes may bring, though it takes no items: room, or a
    /// confirmation. None where a loop reads.
    pub(super) fn begin_serving(&self, waker: &Waker) -> Option<Place> {
        let mut rx = self.rx();
        let has_loop = matches!(rx.reading.driver(), Driver::Loop(driver) if driver.is_alive());
        if has_loop { None } else { Some(self.take_place(&mut rx, waker)) }
    }

    fn take_place(&self, rx: &mut Rx, waker: &Waker) -> Place {
        let replaced = rx.reading.enter_thread(clock::now);
        self.replace_driver(rx, replaced);
        let socket = self.lead(rx, waker);
        if socket.is_none() {
            rx.readers.add(Arc::clone(waker));
        }
        Place { socket }
    }

    /// It has waited: reads if that was its part, and hands that on. `is_ready` says that the socket of
    /// its place is.
    pub(super) fn end_waiting(&self, waker: &Waker, place: &Place, is_ready: bool) {
        let mut rx = self.rx();
        if is_ready && self.is_current(&rx, place.socket.as_ref()) {
            self.read(&mut rx);
        }
        let has_led = place.socket.is_some();
        if has_led {
            rx.leader = None;
        } else {
            rx.readers.remove(waker);
        }
        // One of those that follow leads now; where nobody can, waking would only go round in circles.
        if has_led || self.can_lead(&rx) {
            rx.readers.wake(1);
        }
        self.publish(&mut rx);
        rx.reading.leave_thread(clock::now());
    }

    /// The loop's selector says that the socket is readable: one read. Returns whether it should go on
    /// watching.
    pub fn read_on_loop(&self, id: usize, patience: &Patience) -> bool {
        let mut rx = self.rx();
        if !rx.reading.is_loop(id) {
            return false;
        }
        let read = self.read(&mut rx);
        if read == Read::Bytes {
            patience.came(rx.read_at);
        }
        self.publish(&mut rx);
        read != Read::Closed && !rx.is_paused && rx.end.is_none()
    }

    /// Whether the loop `id` reads this connection, now or as soon as it has a link.
    pub fn is_read_by(&self, id: usize) -> bool {
        let rx = self.rx();
        rx.reading.is_loop(id) && !rx.receiver.is_closed()
    }

    /// The socket that the loop `id` should watch for bytes.
    pub fn socket_to_read(&self, id: usize) -> Option<Arc<Socket>> {
        let rx = self.rx();
        let should_watch = rx.reading.is_loop(id) && !rx.is_paused && rx.end.is_none();
        rx.socket.as_ref().filter(|_| should_watch).cloned()
    }

    /// The runtime says that the socket is readable: one read. Returns whether to wait for readiness
    /// again; when somebody else reads by now, nothing is read.
    pub(super) fn read_for_runtime(&self) -> bool {
        let mut rx = self.rx();
        if !rx.reading.is_tokio() {
            return false;
        }
        let read = self.read(&mut rx);
        self.publish(&mut rx);
        read == Read::Nothing
    }

    /// Reads all that is there, whoever else reads: hand-over, relief of a blocked loop, and the look
    /// that comes before every verdict. Bounded, so that a firehose cannot hold the runtime.
    pub(super) fn look(&self) {
        let mut rx = self.rx();
        for _ in 0..64 {
            if self.read(&mut rx) != Read::Bytes {
                break;
            }
        }
        self.publish(&mut rx);
    }

    /// The kernel reports a reset: what came before it is read, if there is room.
    pub(super) fn hear_reset(&self) {
        self.rx().is_reset = true;
        self.look();
    }

    /// One read. In the middle of a large message as many more as are full, up to a buffer's size in all:
    /// a turn of the loop costs more than a call.
    pub(super) fn read(&self, rx: &mut Rx) -> Read {
        let (mut left, mut outcome) = (READ_BUFFER, Read::Nothing);
        loop {
            if rx.is_paused || rx.end.is_some() {
                return Read::Closed;
            }
            let Some((asked, brought)) = self.read_once(rx, left) else {
                return Read::Closed;
            };
            match brought {
                Ok(0) => return self.ended(rx, StreamEnd::Eof),
                Ok(length) => {
                    left -= length;
                    outcome = Read::Bytes;
                    if length < asked || left < WORTH_A_READ || !rx.receiver.is_large() {
                        return outcome;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return outcome,
                Err(error) => return self.ended(rx, StreamEnd::Error(error)),
            }
        }
    }

    /// One system call, to where the bytes belong if that is known, else into this thread's buffer.
    /// Returns for how many bytes it asked, and what it brought; None without a link.
    fn read_once(&self, rx: &mut Rx, left: usize) -> Option<(usize, std::io::Result<usize>)> {
        if let Some((place, most)) = rx.receiver.place().filter(|(_, most)| *most >= WORTH_A_READ) {
            let asked = most.min(left);
            let brought = rx.socket.as_ref()?.recv_onto(place, asked);
            if let Ok(length @ 1..) = brought {
                rx.read_at = clock::now();
                rx.receiver.placed(length, self.announced(), rx.read_at);
                self.came(rx);
            }
            return Some((asked, brought));
        }
        // Little more than the header, where much is likely to stand behind it: that goes to its place.
        let asked = if rx.receiver.is_large() { WORTH_A_READ.min(left) } else { left };
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.is_empty() {
                if reserve_exact(buffer, READ_BUFFER + ALIGNMENT).is_err() {
                    return self.read_little(rx, asked);
                }
                buffer.resize(READ_BUFFER + ALIGNMENT, 0);
            }
            let start = buffer.as_ptr().align_offset(ALIGNMENT);
            self.read_into(rx, &mut buffer[start..start + asked])
        })
    }

    /// There is no memory for this thread's buffer: the stack has some.
    #[cold]
    fn read_little(&self, rx: &mut Rx, asked: usize) -> Option<(usize, std::io::Result<usize>)> {
        let mut space = [0; WORTH_A_READ];
        let asked = asked.min(WORTH_A_READ);
        self.read_into(rx, &mut space[..asked])
    }

    #[inline]
    fn read_into(&self, rx: &mut Rx, space: &mut [u8]) -> Option<(usize, std::io::Result<usize>)> {
        let brought = rx.socket.as_ref()?.recv(space);
        if let Ok(length @ 1..) = brought {
            self.fed(rx, &space[..length]);
        }
        Some((space.len(), brought))
    }

    pub(super) fn fed(&self, rx: &mut Rx, bytes: &[u8]) {
        rx.read_at = clock::now();
        rx.receiver.feed(bytes, self.announced(), rx.read_at);
        self.came(rx);
    }

    /// Bytes came, and were sorted.
    fn came(&self, rx: &mut Rx) {
        self.awaits_answer.store(false, Ordering::Relaxed);
        rx.reads += 1;
        rx.is_paused = !rx.receiver.wants_bytes();
        if self.is_native() {
            self.hear(rx);
            self.tell(rx);
        }
        if rx.receiver.fault().is_some() || rx.receiver.has_goodbye() {
            self.news.notify_one();
        }
    }

    /// Control frames came: the writing half hears them, and answers.
    fn hear(&self, rx: &mut Rx) {
        if !rx.receiver.has_for_sender() {
            return;
        }
        // An answer carries the numbers of its own moment, with all that was consumed on arrival.
        self.publish_numbers(rx);
        let mut tx = self.tx();
        let now = clock::now();
        while let Some(control) = rx.receiver.next_for_sender() {
            match tx.sender.hear(&control, now) {
                Ok(false) => {}
                Ok(true) => rx.receiver.refund(),
                Err(fault) => rx.receiver.fail(fault),
            }
        }
        tx.wake_settled();
        self.note_spare(&mut tx);
        self.write_and_watch(tx);
    }

    /// Something was consumed, or may have been: sees to it that the peer is told in time.
    pub(super) fn tell(&self, rx: &mut Rx) {
        if !self.is_native() {
            return;
        }
        self.publish_numbers(rx);
        let mut announced = self.announced();
        if rx.receiver.must_tell(announced) {
            let mut tx = self.tx();
            tx.sender.ack();
            self.write_and_watch(tx);
            announced = self.announced();
        }
        match rx.receiver.note_untold(announced, rx.read_at, clock::now) {
            Untold::Quiet => {}
            Untold::Watch => self.news.notify_one(),
            Untold::Near => self.tell_with_messages(),
        }
    }

    fn ended(&self, rx: &mut Rx, end: StreamEnd) -> Read {
        rx.end = Some(end);
        self.news.notify_one();
        Read::Closed
    }

    /// Items were taken, or a reader came back and found nothing.
    #[inline]
    fn taken(&self, rx: &mut Rx, count: usize) {
        if count == 0 {
            if std::mem::take(&mut rx.owes_answer) {
                self.tell_ending();
            }
            return;
        }
        self.messages_ready.store(rx.receiver.waiting(), Ordering::Relaxed);
        if !rx.readers.is_empty() {
            self.publish(rx);
        }
        self.tell(rx);
        self.reopen(rx);
        self.note_spare_of_reader(rx);
        if rx.receiver.fault().is_some() {
            self.news.notify_one();
        }
    }

    /// Becomes the thread that reads, if nobody else is and there is something to read.
    fn lead(&self, rx: &mut Rx, waker: &Waker) -> Option<Arc<Socket>> {
        let socket = rx.socket.as_ref().filter(|_| self.can_lead(rx)).cloned()?;
        rx.leader = Some(Arc::clone(waker));
        Some(socket)
    }

    pub(super) fn can_lead(&self, rx: &Rx) -> bool {
        let is_threads = matches!(rx.reading.driver(), Driver::Thread);
        is_threads && rx.leader.is_none() && rx.socket.is_some() && rx.end.is_none() && !rx.is_paused
    }

    pub(super) fn is_current(&self, rx: &Rx, socket: Option<&Arc<Socket>>) -> bool {
        matches!((&rx.socket, socket), (Some(present), Some(polled)) if Arc::ptr_eq(present, polled))
    }

    /// The new driver looks for itself; the one before must stop, and the supervisor must know.
    pub(super) fn replace_driver(&self, rx: &mut Rx, replaced: Option<Driver>) {
        let Some(replaced) = replaced else { return };
        if let Driver::Loop(driver) = replaced {
            self.sync(driver);
        }
        self.news.notify_one();
        self.sync_driver(rx);
    }
}
