//! The inline way out: the sending thread hands its message straight to the kernel while nothing is
//! queued before it. What follows in the same turn of a loop is appended and goes out in one call.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use super::clock;
use super::driver::LoopDriver;
use super::link::{Link, Rx, Tx};
use super::lock::MutexGuard;
use super::net::{Interest, Socket};
use super::read::Park;
use super::supervisor::told_by;
use super::sync::atomic::Ordering;
use super::wake::Waker;
use crate::proto::Moment;
use crate::proto::classic::encode_header;
use crate::proto::control::After;
use crate::proto::outbox::Push;
use crate::proto::receipts::{Goal, Outcome, Ticket};
use crate::proto::wire::Goodbye;

/// Corked bytes that go out without waiting for the end of the turn.
const CORK_BYTES: usize = 64 * 1024;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Accepted,
    /// A dropping buffer was full.
    Refused,
    /// A fixed buffer is full: try again when woken.
    Full,
    /// The handle has ended, or is closing.
    Ended,
    /// There is no memory for it; nothing was accepted.
    NoMemory,
}

/// What the caller has to see to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Nothing,
    /// `flush_corked` at the end of this turn of the loop.
    FlushThisTurn,
    /// The kernel takes no more: watch for room.
    Watch,
}

/// Where a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Loop,
    Thread,
    /// One of many: goes out with the others, in large writes.
    Batch,
}

impl Link {
    /// Accepts a message of a legal size and writes what the kernel takes.
    pub fn try_send(&self, payload: &[u8], from: From) -> (Sent, Then) {
        let mut tx = self.tx();
        if tx.is_closed || tx.is_finished {
            return (Sent::Ended, Then::Nothing);
        }
        let is_corking = match from {
            From::Loop => self.corks(),
            From::Thread => false,
            From::Batch => true,
        };
        if !is_corking {
            self.awaits_answer.store(true, Ordering::Relaxed);
        }
        let is_open = !is_corking && !tx.has_failed && tx.sender.may_pass(payload.len());
        if is_open && tx.socket.is_some() {
            if tx.sender.reserve(payload.len()).is_err() {
                tx.wake_next_writer();
                return (Sent::NoMemory, Then::Nothing);
            }
            let then = self.send_past_queue(&mut tx, payload);
            tx.wake_next_writer();
            self.note_spare(&mut tx);
            return (Sent::Accepted, then);
        }
        let (push, stalled) = self.push(&mut tx, payload);
        match push {
            Push::Full => return (Sent::Full, stalled),
            Push::Refused => return (Sent::Refused, stalled),
            Push::NoMemory => {
                // One that was woken leaves its place unused.
                tx.wake_next_writer();
                return (Sent::NoMemory, stalled);
            }
            Push::Accepted => {}
        }
        if !tx.confirmers.is_empty() {
            // A sliding buffer may have discarded what one of them waits for.
            tx.wake_settled();
        }
        let then = if stalled == Then::Watch { stalled } else { self.written_later(&mut tx, is_corking) };
        tx.wake_next_writer();
        self.recount_if_absent(tx);
        (Sent::Accepted, then)
    }

    /// Accepts a message of a legal size of whose fate somebody wants to hear, and writes what the kernel takes.
    pub fn try_send_wanting(&self, payload: &[u8], goal: Goal) -> (Sent, Then, Option<Ticket>) {
        let mut tx = self.tx();
        if tx.is_closed || tx.is_finished {
            return (Sent::Ended, Then::Nothing, None);
        }
        let (push, stalled) = self.push(&mut tx, payload);
        match push {
            Push::Full => return (Sent::Full, stalled, None),
            Push::Refused => return (Sent::Refused, stalled, None),
            Push::NoMemory => {
                tx.wake_next_writer();
                return (Sent::NoMemory, stalled, None);
            }
            Push::Accepted => {}
        }
        let ticket = tx.sender.want(goal);
        let then = if stalled == Then::Watch { stalled } else { self.write(&mut tx) };
        tx.wake_settled();
        tx.wake_next_writer();
        self.recount_if_absent(tx);
        (Sent::Accepted, then, Some(ticket))
    }

    /// What was accepted without a link is held for one: the bound on that holds at every moment.
    fn recount_if_absent(&self, tx: MutexGuard<'_, Tx>) {
        let is_absent = tx.socket.is_none();
        drop(tx);
        if is_absent {
            self.recount();
        }
    }

    /// Appends a message; where there is no room for it, what the kernel takes goes out first.
    fn push(&self, tx: &mut Tx, payload: &[u8]) -> (Push, Then) {
        let push = tx.sender.push(payload);
        if push != Push::Full || tx.sender.unsent_bytes() == 0 || tx.is_stalled {
            return (push, Then::Nothing);
        }
        let then = self.write(tx);
        (tx.sender.push(payload), then)
    }

    /// What became of a message of which somebody wanted to hear: once known, once; and whether it will ever be.
    pub fn outcome(&self, ticket: Ticket) -> (Option<Outcome>, bool) {
        let mut tx = self.tx();
        (tx.sender.outcome(ticket), !tx.is_closed)
    }

    /// Notes `waker`, to be woken when the outcome may be known; false, without having noted it, when it is.
    pub fn wait_outcome(&self, ticket: Ticket, waker: &Waker) -> bool {
        let mut tx = self.tx();
        if tx.is_closed || tx.sender.has_outcome(ticket) {
            return false;
        }
        tx.confirmers.add(ticket, Arc::clone(waker));
        true
    }

    /// A waiter for what becomes of that message leaves.
    pub fn leave_outcome(&self, ticket: Ticket, waker: &Waker) {
        self.tx().confirmers.remove(ticket, waker);
    }

    /// Nobody wants to hear of that message any more.
    pub fn forget_outcome(&self, ticket: Ticket) {
        self.tx().sender.forget(ticket);
    }

    /// Writes what this turn has gathered. The next message goes out at once again.
    pub fn flush_corked(&self) -> Then {
        self.is_bursting.store(false, Ordering::Relaxed);
        if !self.is_corked.swap(false, Ordering::Relaxed) {
            return Then::Nothing;
        }
        let mut tx = self.tx();
        if tx.is_stalled { Then::Nothing } else { self.write(&mut tx) }
    }

    /// A reader is about to wait: its turn is over.
    pub fn end_turn(&self) -> Then {
        if self.is_bursting.load(Ordering::Relaxed) { self.flush_corked() } else { Then::Nothing }
    }

    /// The number behind what was accepted so far, or None on a handle that has ended.
    pub fn flush_mark(&self) -> Option<u64> {
        if self.flush_corked() == Then::Watch {
            self.watch_for_room(None);
        }
        let tx = self.tx();
        (!tx.is_closed).then(|| tx.sender.entered())
    }

    /// Whether everything before `mark` was handed to the kernel; None on a handle that has ended.
    pub fn is_flushed(&self, mark: u64) -> Option<bool> {
        let tx = self.tx();
        let is_flushed = tx.sender.is_flushed(mark);
        (is_flushed || !tx.is_closed).then_some(is_flushed)
    }

    /// Wakes `waker` when everything before `mark` was handed over, or the handle ends. Returns false,
    /// without having noted it, when that is so already.
    pub fn wait_flushed(&self, mark: u64, waker: &Waker) -> bool {
        let mut tx = self.tx();
        if tx.is_closed || tx.sender.is_flushed(mark) {
            return false;
        }
        tx.flushers.add(mark, Arc::clone(waker));
        true
    }

    /// A waiter for a flush leaves.
    pub fn leave_flushed(&self, mark: u64, waker: &Waker) {
        self.tx().flushers.remove(mark, waker);
    }

    /// Wakes `waker` when there may be room. Returns false, without having noted it, when there is some
    /// already or the handle has ended.
    pub fn wait_room(&self, waker: &Waker) -> bool {
        let mut tx = self.tx();
        if tx.is_closed || tx.is_finished || tx.sender.has_room() {
            return false;
        }
        tx.writers.add(Arc::clone(waker));
        true
    }

    /// A waiter for room leaves. One that was woken already passes the wake on.
    pub fn leave_room(&self, waker: &Waker) {
        let mut tx = self.tx();
        if !tx.writers.remove(waker) && tx.sender.has_room() {
            tx.writers.wake(1);
        }
    }

    /// A thread that waits for room or for a confirmation writes meanwhile what the kernel takes, and reads what
    /// may bring either: nobody else may, for as long as a driver lingers.
    pub fn serve_in_thread(&self, park: &Arc<Park>, limit: Option<Duration>) {
        let waker: Waker = Arc::clone(park) as Waker;
        let place = self.begin_serving(&waker);
        let read = place.as_ref().and_then(|place| place.socket.clone());
        let write = {
            let mut tx = self.tx();
            let is_watched = |socket: &&Arc<Socket>| read.as_ref().is_none_or(|read| Arc::ptr_eq(read, socket));
            let socket = tx.socket.as_ref().filter(|_| tx.is_stalled).filter(is_watched).cloned();
            tx.draining_threads += usize::from(socket.is_some());
            socket
        };
        let interest = match (&read, &write) {
            (Some(_), Some(_)) => Interest::Both,
            (Some(_), None) => Interest::Read,
            _ => Interest::Write,
        };
        let is_ready = park.wait_for(read.as_deref().or(write.as_deref()).map(|socket| (socket, interest)), limit);
        if let Some(place) = place {
            self.end_waiting(&waker, &place, is_ready);
        }
        if write.is_none() {
            return;
        }
        let mut tx = self.tx();
        tx.draining_threads -= 1;
        if is_ready {
            self.write(&mut tx);
        }
        if tx.is_stalled {
            self.news.notify_one();
        }
    }

    /// The kernel may have room: writes, and says whether it is full again.
    pub fn drain(&self) -> bool {
        let mut tx = self.tx();
        self.write(&mut tx);
        tx.is_stalled
    }

    /// `driver` watches for room from now on, unless another does; without one the supervisor does.
    pub fn watch_for_room(&self, driver: Option<Arc<dyn LoopDriver>>) {
        let mut tx = self.tx();
        // A loop that is closed watches nothing any more.
        if !tx.is_stalled || tx.drainer.as_ref().is_some_and(|present| present.is_alive()) {
            return;
        }
        tx.drainer.clone_from(&driver);
        drop(tx);
        match driver {
            Some(driver) => self.sync(driver),
            None => self.news.notify_one(),
        }
    }

    /// Who calls may hold its loop for long: what was gathered goes out now, and what the kernel has no room for is
    /// left to the supervisor.
    pub fn write_past_loop(&self) {
        self.flush_corked();
        let mut tx = self.tx();
        if !tx.is_stalled {
            return;
        }
        let drainer = tx.drainer.take();
        drop(tx);
        if let Some(drainer) = drainer {
            self.sync(drainer);
        }
        self.news.notify_one();
    }

    /// The socket that the loop `id` should watch for room.
    pub fn socket_to_write(&self, id: usize) -> Option<Arc<Socket>> {
        let tx = self.tx();
        let should_watch = tx.is_stalled && tx.drainer.as_ref().is_some_and(|driver| driver.id() == id);
        tx.socket.as_ref().filter(|_| should_watch).cloned()
    }

    /// Accepts nothing more; what is held is delivered. Returns how many messages are lost so far.
    pub fn finish(&self) -> Option<u64> {
        if self.flush_corked() == Then::Watch {
            self.watch_for_room(None);
        }
        let mut tx = self.tx();
        if tx.is_closed {
            return None;
        }
        tx.is_finished = true;
        tx.writers.wake_all();
        let lost = tx.sender.lost();
        if self.is_native() && tx.sender.held() > 0 {
            tx.sender.ask();
            self.write_and_watch(tx);
        }
        Some(lost)
    }

    /// How many messages are not confirmed, those `lost` since then included; and whether that is final.
    pub fn unconfirmed_since(&self, lost: u64) -> (u64, bool) {
        let tx = self.tx();
        let held = tx.sender.held();
        (held + tx.sender.lost() - lost, held == 0 || tx.is_closed)
    }

    /// Wakes `waker` when everything is confirmed, the handle ends, or at `until`. Returns false, without
    /// having noted it, when there is nothing to wait for.
    pub fn wait_confirmed(&self, until: Moment, waker: &Waker) -> bool {
        let mut tx = self.tx();
        if tx.is_closed || tx.sender.held() == 0 || clock::now() >= until {
            return false;
        }
        tx.finishers.add(until, Arc::clone(waker));
        drop(tx);
        self.news.notify_one();
        true
    }

    /// A waiter for the confirmation of everything leaves.
    pub fn leave_confirmed(&self, until: Moment, waker: &Waker) {
        self.tx().finishers.remove(until, waker);
    }

    /// Whose time is over looks again.
    pub(super) fn wake_finishers_due(&self) {
        let mut tx = self.tx();
        if !tx.finishers.is_empty() {
            tx.finishers.wake_up_to(clock::now());
        }
    }

    /// CLOSE goes out, behind the messages that `after` names.
    pub(super) fn say_close(&self, goodbye: Goodbye, after: After) {
        let mut tx = self.tx();
        tx.sender.close(goodbye, after);
        self.write_and_watch(tx);
    }

    /// When what was consumed must be told, if that is to be and can be.
    pub(super) fn tell_deadline(&self, rx: &mut Rx) -> Option<Moment> {
        let may_tell = {
            let tx = self.tx();
            tx.socket.is_some() && !tx.has_failed && !tx.is_aborted
        };
        if may_tell { rx.receiver.tell_deadline(self.announced()) } else { None }
    }

    /// What was consumed is told, if its time has come.
    pub(super) fn tell_if_due(&self) {
        let mut rx = self.rx();
        if self.tell_deadline(&mut rx).is_some_and(|due| clock::now() >= due) {
            let mut tx = self.tx();
            tx.sender.ack();
            drop(rx);
            self.write_and_watch(tx);
        }
    }

    /// Writes what is due; who calls does not wait for room, so the supervisor watches for it.
    pub(super) fn write_and_watch(&self, mut tx: MutexGuard<'_, Tx>) {
        let then = self.write(&mut tx);
        drop(tx);
        if then == Then::Watch {
            self.watch_for_room(None);
        }
    }

    /// A heartbeat, if one is due.
    pub(super) fn heartbeat(&self) {
        let mut tx = self.tx();
        let now = clock::now();
        if tx.socket.is_none() || now < tx.sender.heartbeat_deadline() || tx.is_stalled {
            return;
        }
        if self.is_native() {
            tx.sender.ping();
            self.write(&mut tx);
            return;
        }
        if !tx.sender.is_empty() {
            // Corked bytes whose loop does not run: they go out now, and count as a sign of life.
            self.write(&mut tx);
            return;
        }
        let (Some(heartbeat), Some(socket)) = (tx.sender.heartbeat(now), tx.socket.clone()) else {
            return;
        };
        match socket.send(&[IoSlice::new(heartbeat)]) {
            Ok(written) => tx.sender.heartbeat_passed(written, now),
            Err(error) if error.kind() == ErrorKind::WouldBlock => tx.sender.heartbeat_passed(0, now),
            Err(error) => self.fail(&mut tx, &error),
        }
        tx.is_stalled |= !tx.sender.is_empty();
    }

    /// Writes everything that may be written, as far as the kernel takes it.
    pub(super) fn write(&self, tx: &mut Tx) -> Then {
        let was_stalled = std::mem::take(&mut tx.is_stalled);
        while let Some(socket) = tx.socket.clone().filter(|_| tx.may_write()) {
            let numbers = self.numbers_for(tx);
            tx.sender.compose(numbers);
            self.announce(tx);
            let parts = tx.sender.parts();
            let offered: usize = parts.iter().map(|part| part.len()).sum();
            let outcome = socket.send(&parts.map(IoSlice::new));
            let now = clock::now();
            match outcome {
                Ok(written) => {
                    tx.sender.wrote(written, now);
                    tx.is_stalled = written < offered;
                    tx.sender.note_blocked(tx.is_stalled, written > 0, now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    tx.is_stalled = true;
                    tx.sender.note_blocked(true, false, now);
                }
                Err(error) => self.fail(tx, &error),
            }
            if tx.is_stalled {
                break;
            }
        }
        if !tx.is_stalled {
            tx.drainer = None;
        }
        self.wrote(tx);
        if tx.is_stalled && !was_stalled { Then::Watch } else { Then::Nothing }
    }

    /// Whether this message waits for the end of the turn: the turn has sent already, or the peer
    /// pipelines and the answers should go back together.
    fn corks(&self) -> bool {
        if !self.options().cork {
            return false;
        }
        let is_bursting = self.is_bursting.load(Ordering::Relaxed) || self.is_bursting.swap(true, Ordering::Relaxed);
        is_bursting || self.messages_ready.load(Ordering::Relaxed) > 0
    }

    fn send_past_queue(&self, tx: &mut Tx, payload: &[u8]) -> Then {
        let header = encode_header(payload.len());
        let numbers = self.numbers_for(tx);
        tx.sender.compose_front(numbers);
        let Some(socket) = &tx.socket else { return Then::Nothing };
        let front = tx.sender.front();
        let offered = front.len() + header.len() + payload.len();
        let outcome = if front.is_empty() {
            socket.send(&[IoSlice::new(&header), IoSlice::new(payload)])
        } else {
            let parts = [IoSlice::new(front), IoSlice::new(&header), IoSlice::new(payload)];
            // The peer may answer what this announces before the call returns.
            self.announce(tx);
            socket.send(&parts)
        };
        match outcome {
            Ok(written) => {
                let now = clock::now();
                tx.sender.passed(payload, written, now);
                tx.is_stalled = written < offered;
                tx.sender.note_blocked(tx.is_stalled, written > 0, now);
            }
            Err(error) => {
                tx.sender.push(payload);
                tx.is_stalled = error.kind() == ErrorKind::WouldBlock;
                tx.sender.note_blocked(tx.is_stalled, false, clock::now());
                if !tx.is_stalled {
                    self.fail(tx, &error);
                }
            }
        }
        if tx.is_stalled { Then::Watch } else { Then::Nothing }
    }

    fn written_later(&self, tx: &mut Tx, is_corking: bool) -> Then {
        if tx.is_stalled || tx.socket.is_none() {
            return Then::Nothing;
        }
        if is_corking && tx.sender.unsent_bytes() < CORK_BYTES {
            let is_corked = self.is_corked.load(Ordering::Relaxed) || self.is_corked.swap(true, Ordering::Relaxed);
            return if is_corked { Then::Nothing } else { Then::FlushThisTurn };
        }
        self.write(tx)
    }

    /// The supervisor finds out why; what was accepted stays for the next link.
    fn fail(&self, tx: &mut Tx, error: &io::Error) {
        tx.has_failed = true;
        // Whoever reads next would find the end of the stream.
        tx.told = tx.told.or(told_by(error));
        self.news.notify_one();
    }

    /// Tells whoever waited for this.
    fn wrote(&self, tx: &mut Tx) {
        tx.wake_next_writer();
        if !tx.flushers.is_empty() {
            tx.flushers.wake_up_to(tx.sender.flushed());
        }
        if tx.sender.is_empty() || tx.sender.has_closed() {
            self.tell_ending();
            // On the original's wire nothing else confirms.
            tx.wake_settled();
            self.note_spare(tx);
        }
    }
}
