//! The connection that every handle shares. Two locks, one for each half, and beside them only what
//! no data frame touches. Order: rx → tx → the bridge's list; `status` is taken within rx or alone,
//! `orders` within `returning` or alone. The table of a listener's sessions comes before all of them.
//! No lock is held across user code or a call that can wait.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::lock::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::clock;
use super::driver::{Driver, LoopDriver, Reading};
use super::fork::Birth;
use super::net::Socket;
use super::returning::Returning;
use super::seats::Seat;
use super::sessions::Membership;
use super::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use super::wake::{Bell, WaitList, Waiting, Waker};
use crate::proto::Moment;
use crate::proto::account::Stats;
use crate::proto::endpoint::{Facts, Input, Role, State};
use crate::proto::events::{Closed, Connected, Event, Reason};
use crate::proto::halves::{Receiver, Sender};
use crate::proto::options::{OnNewSession, Options, Protocol};
use crate::proto::receipts::Ticket;
use crate::proto::standing::Known;
use crate::proto::wire::{Goodbye, Numbers, close};

/// What the reads of the present link ended in.
#[derive(Debug)]
pub enum StreamEnd {
    Eof,
    /// The end of the stream, and the life of this end knows. We may still write.
    Told,
    Error(std::io::Error),
}

/// The reading half and whoever reads it.
pub struct Rx {
    pub receiver: Receiver,
    pub(super) socket: Option<Arc<Socket>>,
    pub(super) end: Option<StreamEnd>,
    /// The inbox is full: nobody reads until it is half empty.
    pub(super) is_paused: bool,
    /// The kernel has reported a reset, and does so again for ever.
    pub(super) is_reset: bool,
    pub(super) reading: Reading,
    pub(super) readers: WaitList,
    /// The thread that polls and reads for all of them.
    pub(super) leader: Option<Waker>,
    /// Reads that brought something, and when the last of them did.
    pub(super) reads: u64,
    pub(super) read_at: Moment,
    /// A message was taken by a reader that has not come back for more.
    pub(super) owes_answer: bool,
    /// The supervisor knows that memory is to be given back once all is quiet.
    pub(super) is_trim_due: bool,
}

impl Rx {
    fn new(options: &Options, now: Moment) -> Self {
        Self {
            receiver: Receiver::new(options, now),
            socket: None,
            end: None,
            is_paused: false,
            is_reset: false,
            reading: Reading::default(),
            readers: WaitList::default(),
            leader: None,
            reads: 0,
            read_at: now,
            owes_answer: false,
            is_trim_due: false,
        }
    }
}

/// The writing half and whoever waits for it.
pub struct Tx {
    pub sender: Sender,
    pub(super) socket: Option<Arc<Socket>>,
    pub(super) has_failed: bool,
    /// Why the link is gone, as a write was told: the kernel says so once.
    pub(super) told: Option<Reason>,
    /// Nothing more is accepted, and nobody waits any more.
    pub(super) is_closed: bool,
    /// Nothing more is accepted; what is held is delivered.
    pub(super) is_finished: bool,
    /// Nothing more is written.
    pub(super) is_aborted: bool,
    /// The kernel takes no more: somebody watches for room.
    pub(super) is_stalled: bool,
    /// The loop that watches; without one the supervisor does, or a thread that waits for room.
    pub(super) drainer: Option<Arc<dyn LoopDriver>>,
    pub(super) draining_threads: usize,
    /// As that of `Rx`.
    pub(super) is_trim_due: bool,
    pub(super) writers: WaitList,
    /// Each by the number of the last message before its own.
    pub(super) flushers: Waiting<u64>,
    /// Each for what becomes of its message.
    pub(super) confirmers: Waiting<Ticket>,
    /// Until everything is confirmed, each up to its moment.
    pub(super) finishers: Waiting<Moment>,
}

impl Tx {
    /// Something waits to be written, and the link, as far as anybody knows, takes it.
    pub(super) fn may_write(&self) -> bool {
        !self.has_failed && !self.is_aborted && self.sender.has_work()
    }

    /// Where there is room, whoever waits for it longest hears so; having taken some, it tells the next one.
    pub(super) fn wake_next_writer(&mut self) {
        if !self.writers.is_empty() && self.sender.has_room() {
            self.writers.wake(1);
        }
    }

    /// Whoever waits to hear of messages looks again, if it is known by now what became of its own.
    pub(super) fn wake_settled(&mut self) {
        while let Some(ticket) = self.sender.next_settled() {
            self.confirmers.wake_for(ticket);
        }
        if !self.finishers.is_empty() && self.sender.held() == 0 {
            self.finishers.wake_all();
        }
    }

    /// Nobody need wait for this half any longer: its end has come.
    fn wake_everybody(&mut self) {
        self.writers.wake_all();
        self.flushers.wake_all();
        self.confirmers.wake_all();
        self.finishers.wake_all();
    }
}

/// What everybody may ask about a connection at any time.
#[derive(Debug, Clone, Default)]
pub struct Status {
    pub state: State,
    /// While the link is up.
    pub connected: Option<Connected>,
    /// Of the latest link, whether it is up or not, and how many links there have been.
    pub last_connected: Option<Connected>,
    pub links: u64,
    pub closed: Option<Closed>,
    pub attempts: u64,
    /// As it was when the handle ended, where its goodbye was still to be said.
    pub account: Option<Box<Stats>>,
    /// The public name of the session, while there is one.
    pub session: Option<String>,
}

pub struct Link {
    pub(super) me: Weak<Self>,
    birth: Birth,
    id: u64,
    role: Role,
    options: Options,
    rx: Mutex<Rx>,
    tx: Mutex<Tx>,
    pub(super) status: Mutex<Status>,
    /// Rung when `status` changes.
    pub changed: Bell,
    pub(super) orders: Mutex<VecDeque<Input>>,
    /// Something for the supervisor to see.
    pub(super) news: Notify,
    /// Published by rx, so that a sender learns without its lock that a peer pipelines.
    pub(super) messages_ready: AtomicUsize,
    /// Published by rx: what the peer would be told now.
    consumed: AtomicU64,
    credit: AtomicU64,
    /// Published by tx: what it has been told.
    told_consumed: AtomicU64,
    told_credit: AtomicU64,
    /// Published by rx: the time in which it must be told is half over.
    tells_with_messages: AtomicBool,
    /// The largest message that the peer takes.
    pub(super) max_size: AtomicUsize,
    /// Greetings of this handle so far.
    pub(super) greetings: AtomicU32,
    /// A message was accepted since something came: more may come soon.
    pub(super) awaits_answer: AtomicBool,
    /// This turn of the loop has sent already.
    pub(super) is_bursting: AtomicBool,
    /// A flush was scheduled for the end of this turn.
    pub(super) is_corked: AtomicBool,
    /// The life is in a phase that moves on when everything was written or taken.
    is_ending: AtomicBool,
    /// Its place among the connections of its listener, until it has ended.
    seat: Mutex<Option<Seat>>,
    /// A dialler's way back into its session.
    pub(super) known: Mutex<Option<Known>>,
    /// An accepted connection's place among its listener's sessions, until it has ended.
    pub(super) membership: Mutex<Option<Membership>>,
    pub(super) returning: Mutex<Returning>,
}

impl Link {
    pub fn new(id: u64, role: Role, options: Options) -> Arc<Self> {
        let now = clock::now();
        let tx = Tx {
            sender: Sender::new(&options, now),
            socket: None,
            has_failed: false,
            told: None,
            is_closed: false,
            is_finished: false,
            is_aborted: false,
            is_stalled: false,
            drainer: None,
            draining_threads: 0,
            is_trim_due: false,
            writers: WaitList::default(),
            flushers: Waiting::default(),
            confirmers: Waiting::default(),
            finishers: Waiting::default(),
        };
        let max_size = AtomicUsize::new(options.max_size);
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            birth: Birth::here(),
            id,
            role,
            rx: Mutex::new(Rx::new(&options, now)),
            tx: Mutex::new(tx),
            options,
            status: Mutex::default(),
            changed: Bell::default(),
            orders: Mutex::default(),
            news: Notify::new(),
            messages_ready: AtomicUsize::new(0),
            consumed: AtomicU64::new(0),
            credit: AtomicU64::new(0),
            told_consumed: AtomicU64::new(0),
            told_credit: AtomicU64::new(0),
            tells_with_messages: AtomicBool::new(false),
            max_size,
            greetings: AtomicU32::new(0),
            awaits_answer: AtomicBool::new(false),
            is_bursting: AtomicBool::new(false),
            is_corked: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            seat: Mutex::default(),
            known: Mutex::default(),
            membership: Mutex::default(),
            returning: Mutex::default(),
        })
    }

    /// Asked before anything else is, in a process that may have been forked.
    pub fn birth(&self) -> Birth {
        self.birth
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn role(&self) -> Role {
        self.role
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn is_native(&self) -> bool {
        self.options.protocol == Protocol::Native
    }

    /// The largest message that may be sent now.
    pub fn max_size(&self) -> usize {
        self.max_size.load(Ordering::Relaxed)
    }

    /// The round trip that was measured last.
    pub fn latency(&self) -> Option<Duration> {
        self.tx().sender.latency()
    }

    /// What the peer would be told now.
    pub(super) fn numbers(&self) -> Numbers {
        Numbers { consumed: self.consumed.load(Ordering::Acquire), credit: self.credit.load(Ordering::Acquire) }
    }

    /// What the peer has been told.
    pub(super) fn announced(&self) -> Numbers {
        let consumed = self.told_consumed.load(Ordering::Acquire);
        Numbers { consumed, credit: self.told_credit.load(Ordering::Acquire) }
    }

    /// Before the bytes that say it are handed to the kernel: an answer may be read at once.
    pub(super) fn announce(&self, tx: &Tx) {
        let Numbers { consumed, credit } = tx.sender.announced();
        self.told_consumed.store(consumed, Ordering::Release);
        self.told_credit.store(credit, Ordering::Release);
    }

    pub(super) fn publish_numbers(&self, rx: &Rx) {
        let Numbers { consumed, credit } = rx.receiver.numbers();
        self.consumed.store(consumed, Ordering::Release);
        self.credit.store(credit, Ordering::Release);
    }

    /// What the peer would be told now goes with the next messages.
    pub(super) fn tell_with_messages(&self) {
        self.tells_with_messages.store(true, Ordering::Relaxed);
    }

    /// What goes out next is composed with these numbers: those of the moment in which the kernel is handed it.
    pub(super) fn numbers_for(&self, tx: &mut Tx) -> Numbers {
        if self.tells_with_messages.load(Ordering::Relaxed) {
            self.tells_with_messages.store(false, Ordering::Relaxed);
            tx.sender.tell_with_messages();
        }
        self.numbers()
    }

    pub fn status(&self) -> Status {
        self.status.lock().clone()
    }

    pub fn stats(&self) -> Stats {
        let mut stats = {
            let status = self.status.lock();
            if let Some(account) = &status.account {
                return **account;
            }
            Stats { attempts: status.attempts, ..Stats::default() }
        };
        let (rx, tx) = (self.rx(), self.tx());
        rx.receiver.account(&mut stats);
        tx.sender.account(&mut stats);
        stats
    }

    /// It counts among the connections of a listener, until it has ended or nobody holds it.
    pub(super) fn sit(&self, seat: Seat) {
        *self.seat.lock() = Some(seat);
    }

    pub(super) fn give_up_seat(&self) {
        self.seat.lock().take();
    }

    pub(super) fn has_seat(&self) -> bool {
        self.seat.lock().is_some()
    }

    pub(super) fn set_absent(&self, is_absent: bool) {
        if let Some(seat) = self.seat.lock().as_mut() {
            seat.set_absent(is_absent);
        }
    }

    /// Closes: accepts nothing more, delivers what was accepted, drops what was not taken.
    /// Returns at once; on a handle that has ended nothing happens.
    pub fn close(&self, reason: Reason) {
        self.stop(Input::Close(reason));
    }

    /// Ends now: when it returns, the link is gone and `Closed` is there. The supervisor follows.
    pub fn abort(&self, reason: Reason) {
        {
            let mut tx = self.tx();
            tx.is_aborted = true;
            tx.is_closed = true;
        }
        // First of all: the supervisor hangs up as soon as it hears of this.
        let code = if reason == Reason::Busy { close::BUSY } else { close::ABORTED };
        self.blame(&Goodbye { code, words: String::new() });
        self.stop(Input::Abort(reason));
        if self.has_ended() {
            // Its goodbye may be on its way, and is not said any more.
            self.give_order(Input::Abort(reason));
        }
        drop(self.hang_up());
        self.end(reason);
    }

    /// Whether it ended by an `abort` on this side.
    pub fn was_aborted(&self) -> bool {
        let ended_so = self.status.lock().closed.as_ref().is_some_and(|closed| closed.reason == Reason::Aborted);
        ended_so && self.tx().is_aborted
    }

    /// Shows Closed, unless it has been shown.
    pub(super) fn end(&self, reason: Reason) {
        let status = self.status();
        if status.closed.is_none() {
            let closed = Closed { reason, detail: String::new(), undelivered: self.facts().undelivered() };
            let status = Status { state: State::Closed, connected: None, closed: Some(closed.clone()), ..status };
            self.deliver(Event::Closed(closed), status);
        }
    }

    /// The reading channel was closed: what had arrived can be taken, then only values come.
    pub fn close_reading(&self) {
        let mut rx = self.rx();
        rx.receiver.discard_arrivals();
        self.reopen(&mut rx);
        self.tell(&mut rx);
    }

    pub fn rx(&self) -> MutexGuard<'_, Rx> {
        self.rx.lock()
    }

    pub(super) fn tx(&self) -> MutexGuard<'_, Tx> {
        self.tx.lock()
    }

    pub(super) fn next_order(&self) -> Option<Input> {
        self.orders.lock().pop_front()
    }

    /// Tells the supervisor, where the life may move on by it.
    pub(super) fn tell_ending(&self) {
        if self.is_ending.load(Ordering::Acquire) {
            self.news.notify_one();
        }
    }

    pub(super) fn set_ending(&self, is_ending: bool) {
        self.is_ending.store(is_ending, Ordering::Release);
    }

    pub(super) fn facts(&self) -> Facts {
        let has_session = self.known.lock().is_some();
        let goes_again = has_session || self.options.on_new_session == OnNewSession::Redeliver;
        let (rx, tx) = (self.rx(), self.tx());
        Facts {
            queued: tx.sender.queued(),
            unconfirmed: tx.sender.unconfirmed(),
            goes_again,
            has_session,
            has_greeted: false,
            has_said_close: tx.sender.has_closed(),
            owes_answer: rx.receiver.has_message() || rx.owes_answer,
        }
    }

    /// A value for the reader; `Connected` goes by `install`.
    /// Whoever reads it finds that `status` says the same.
    pub(super) fn deliver(&self, event: Event, status: Status) {
        let end = if let Event::Closed(closed) = &event { Some(closed.reason) } else { None };
        let mut rx = self.rx();
        self.store_status(status);
        rx.receiver.push_event(event);
        self.publish(&mut rx);
        drop(rx);
        match end {
            Some(reason) => {
                self.end_session(reason);
                self.refuse_more();
            }
            None => self.lost_link(),
        }
        self.changed.ring();
    }

    /// A handle that is closing does not look open again, and one that has ended stays as it ended.
    pub(super) fn store_status(&self, mut next: Status) {
        let mut status = self.status.lock();
        if status.closed.is_some() {
            return;
        }
        if status.state == State::Closing && next.closed.is_none() {
            next.state = State::Closing;
        }
        next.links = status.links + u64::from(next.connected.is_some());
        next.last_connected = next.connected.clone().or_else(|| status.last_connected.take());
        next.session = next.session.or_else(|| status.session.take());
        if next.closed.is_some() {
            self.give_up_seat();
        }
        *status = next;
    }

    /// Wakes as many readers as there are items, all of them at the end.
    pub(super) fn publish(&self, rx: &mut Rx) {
        let ready = rx.receiver.ready();
        self.messages_ready.store(rx.receiver.waiting(), Ordering::Relaxed);
        let count = if rx.receiver.is_closed() { usize::MAX } else { ready };
        rx.readers.wake(count);
        if let Some(leader) = rx.leader.as_ref().filter(|_| ready > 0 || rx.socket.is_none()) {
            Arc::clone(leader).wake();
        }
    }

    /// Whoever reads must look at what there is to watch.
    pub(super) fn sync_driver(&self, rx: &mut Rx) {
        match rx.reading.driver() {
            Driver::Loop(driver) => {
                self.sync(Arc::clone(driver));
            }
            Driver::Tokio => self.news.notify_one(),
            Driver::Thread => match &rx.leader {
                Some(leader) => {
                    Arc::clone(leader).wake();
                }
                // One of those that follow may have to lead now.
                None => rx.readers.wake(1),
            },
        }
    }

    /// Has a loop see what to watch.
    pub(super) fn sync(&self, driver: Arc<dyn LoopDriver>) {
        // Nobody watches a connection that is being dropped.
        if let Some(link) = self.me.upgrade() {
            driver.sync(link);
        }
    }

    /// A reader that stopped for a full inbox begins again when it is half empty.
    pub(super) fn reopen(&self, rx: &mut Rx) {
        if rx.is_paused && rx.receiver.wants_bytes_again() {
            rx.is_paused = false;
            rx.receiver.resume(clock::now());
            self.sync_driver(rx);
        }
    }

    /// Memory that holds no message any more is given back after a while of quiet; the supervisor keeps the time.
    #[inline]
    pub(super) fn note_spare(&self, tx: &mut Tx) {
        if !tx.is_trim_due && tx.sender.is_spare() {
            tx.is_trim_due = true;
            self.news.notify_one();
        }
    }

    /// The same of the reading half. On a handle that has ended nobody keeps time, and nothing more will come.
    #[inline]
    pub(super) fn note_spare_of_reader(&self, rx: &mut Rx) {
        if rx.is_trim_due || !rx.receiver.is_spare() {
            return;
        }
        if rx.receiver.is_closed() {
            return rx.receiver.trim();
        }
        rx.is_trim_due = true;
        self.news.notify_one();
    }

    fn stop(&self, order: Input) {
        {
            let mut status = self.status.lock();
            if status.state == State::Closed {
                return;
            }
            status.state = State::Closing;
        }
        self.refuse_more();
        self.flush_corked();
        let mut rx = self.rx();
        rx.receiver.close();
        let replaced = rx.reading.retire();
        self.replace_driver(&mut rx, Some(replaced));
        self.publish_numbers(&rx);
        self.publish(&mut rx);
        self.reopen(&mut rx);
        let is_absent = rx.socket.is_none();
        drop(rx);
        if is_absent {
            self.recount();
        }
        self.orders.lock().push_back(order);
        self.news.notify_one();
        self.changed.ring();
    }

    /// Whoever sends or waits for what was sent learns that the end has come.
    pub(super) fn refuse_more(&self) {
        let mut tx = self.tx();
        tx.is_closed = true;
        tx.wake_everybody();
    }
}
