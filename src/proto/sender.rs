//! The writing half: messages that were accepted, the control frames between them, and when this side
//! must say something. Decides what goes out next and in which order; the kernel says how much of it.

use std::collections::VecDeque;

use super::Moment;
use super::account::Stats;
use super::classic::{HEADER, HEARTBEAT};
use super::control::{After, Control, Messages};
use super::cost;
use super::events::{Fault, Reason};
use super::hello::Agreement;
use super::liveness::{Speaking, Stall};
use super::memory::NoMemory;
use super::options::{OnNewSession, Options, Protocol};
use super::outbox::{Carried, Outbox, Push};
use super::receipts::{Goal, Outcome, Ticket};
use super::wire::{self, Goodbye, Numbers};

#[derive(Debug)]
pub struct Sender {
    protocol: Protocol,
    outbox: Outbox,
    control: Control,
    speaking: Speaking,
    stall: Stall,
    /// The largest message that the peer takes; before its greeting our own limit stands in for that.
    max_size: usize,
    bytes: u64,
    /// Bytes of the waiting zone in the write that was composed last.
    planned: usize,
    on_new_session: OnNewSession,
    /// Behind how many messages, ever entered, an ASK stands that was not answered.
    asked: Option<u64>,
    /// PINGs of this link whose PONG proves that everything before a place was received, by their nonces.
    proofs: VecDeque<(u64, u64)>,
    /// Everything before this place is proved, or its PING is wanted or on its way, or nobody waits for it.
    pinged: u64,
}

impl Sender {
    pub fn new(options: &Options, now: Moment) -> Self {
        Self {
            protocol: options.protocol,
            outbox: Outbox::new(options.write_buffer, options.protocol),
            control: Control::default(),
            speaking: Speaking::new(options.heartbeat_interval, now),
            stall: Stall::new(options.heartbeat_timeout),
            max_size: options.max_size,
            bytes: 0,
            planned: 0,
            on_new_session: options.on_new_session,
            asked: None,
            proofs: VecDeque::new(),
            pinged: 0,
        }
    }

    /// A link is up: nothing was written on it yet. On our wire a session begins or goes on; returns what
    /// becomes of the messages that had been begun in one that is gone.
    pub fn link_up(&mut self, agreement: Option<&Agreement>, now: Moment) -> Carried {
        self.speaking.spoke(now);
        self.stall.end();
        let Some(agreement) = agreement else {
            return Carried::default();
        };
        self.speaking.answer_to(agreement.heartbeat_timeout);
        let consumed = if agreement.is_resumed { self.control.announced().consumed } else { 0 };
        self.control.begin(Numbers { consumed, credit: agreement.offered });
        self.max_size = agreement.max_size;
        let carried = if agreement.is_resumed {
            self.outbox.resume(agreement);
            Carried::default()
        } else {
            self.outbox.begin_session(agreement, self.on_new_session)
        };
        self.proofs.clear();
        self.pinged = self.outbox.place_handed_over();
        if self.asked.is_some() && self.outbox.unconfirmed() + self.outbox.queued() > 0 {
            self.ask();
        }
        carried
    }

    /// The session is over, and the peer has consumed so much of it; what cannot be settles nothing.
    pub fn settle(&mut self, consumed: u64) {
        self.outbox.settle(consumed);
    }

    /// Messages travel in pieces of this size, if they are longer; for tests.
    pub fn set_part(&mut self, part: usize) {
        self.outbox.set_part(part);
    }

    /// Messages ever begun in this session.
    pub fn ever_begun(&self) -> u64 {
        self.outbox.ever_begun()
    }

    /// The link is gone.
    pub fn link_down(&mut self) {
        self.control.end();
        self.stall.end();
        self.outbox.rewind();
    }

    /// A receipt of the message that was sent last and not refused; on our wire only. Write then: PING or
    /// ASK goes out behind it.
    pub fn want(&mut self, goal: Goal) -> Ticket {
        let ticket = self.outbox.want(goal);
        match goal {
            Goal::Received => {
                if self.outbox.queued() == 0 {
                    // It was handed over when nobody waited for it yet.
                    self.pinged = self.pinged.min(self.outbox.place_handed_over().saturating_sub(1));
                }
                self.prove();
            }
            Goal::Consumed => self.ask(),
        }
        ticket
    }

    /// What became of the message, once; None while that is not known.
    pub fn outcome(&mut self, ticket: Ticket) -> Option<Outcome> {
        self.outbox.receipts().take(ticket)
    }

    /// Whether `outcome` has something to say.
    pub fn has_outcome(&mut self, ticket: Ticket) -> bool {
        self.outbox.receipts().is_known(ticket)
    }

    /// A ticket whose outcome has become known, each once.
    pub fn next_settled(&mut self) -> Option<Ticket> {
        self.outbox.receipts().next_settled()
    }

    /// Nobody waits for it any more.
    pub fn forget(&mut self, ticket: Ticket) {
        self.outbox.receipts().forget(ticket);
    }

    /// A PING goes behind what was handed over, if somebody waits to hear that it was received.
    fn prove(&mut self) {
        let handed_over = self.outbox.place_handed_over();
        if self.outbox.receipts().wants_receipt(self.pinged, handed_over) {
            self.control.ping();
        }
        self.pinged = handed_over;
    }

    /// The kernel took so many bytes of the front; a PING among them stands behind what it had before.
    fn wrote_front(&mut self, written: usize, now: Moment) {
        let before = self.control.last_ping();
        self.control.wrote_front(written, now);
        if self.control.last_ping() != before && !self.outbox.receipts().is_idle() {
            self.proofs.push_back((self.control.last_ping(), self.outbox.place_handed_over()));
        }
    }

    /// Appends a message.
    pub fn push(&mut self, payload: &[u8]) -> Push {
        self.outbox.push(payload)
    }

    /// Makes room for a message of `length` bytes: one that passes the queue is kept behind the write.
    ///
    /// # Errors
    /// Nothing has changed then.
    #[inline]
    pub fn reserve(&mut self, length: usize) -> Result<(), NoMemory> {
        self.outbox.reserve(length)
    }

    /// Whether a message of this length may go to the kernel past the queue, behind `front`.
    pub fn may_pass(&self, length: usize) -> bool {
        let is_quiet = self.control.rest().is_empty() && !self.control.is_bound_to_messages();
        is_quiet && self.outbox.may_pass(length)
    }

    /// Drafts what goes out in front of a message that passes the queue.
    pub fn compose_front(&mut self, numbers: Numbers) {
        if self.protocol == Protocol::Native {
            self.control.draft(Messages { are_some: true, are_all: false, are_last: false }, numbers);
        }
    }

    pub fn front(&self) -> &[u8] {
        self.control.in_front()
    }

    /// A message for which there is room went past the empty queue; the kernel took `written` bytes of the front and
    /// its frame.
    pub fn passed(&mut self, payload: &[u8], written: usize, now: Moment) {
        let front = self.control.in_front().len();
        if front > 0 {
            self.wrote_front(written.min(front), now);
        }
        match written.saturating_sub(front) {
            0 => {
                self.outbox.push(payload);
            }
            begun => self.outbox.passed(payload, begun),
        }
        self.prove();
        self.spoke(written, now);
    }

    /// Drafts everything that may be written now; `parts` shows it.
    pub fn compose(&mut self, numbers: Numbers) {
        let (planned, messages) = self.plan();
        self.planned = planned;
        if self.protocol == Protocol::Native {
            self.control.draft(messages, numbers);
        }
    }

    /// What was composed, in order.
    pub fn parts(&self) -> [&[u8]; 4] {
        let control = self.control.rest();
        let rest = if control.is_empty() { self.outbox.rest() } else { control };
        [rest, self.control.in_front(), self.outbox.next(self.planned), self.control.behind()]
    }

    /// The kernel took `written` bytes of what was composed.
    pub fn wrote(&mut self, written: usize, now: Moment) {
        self.spoke(written, now);
        let mut left = self.control.wrote_rest(written);
        let rest = self.outbox.rest().len().min(left);
        if rest > 0 {
            self.outbox.wrote(rest);
            left -= rest;
        }
        let front = self.control.in_front().len().min(left);
        if front > 0 {
            self.wrote_front(front, now);
            left -= front;
        }
        let messages = std::mem::take(&mut self.planned).min(left);
        if messages > 0 {
            self.outbox.wrote(messages);
            left -= messages;
        }
        if left > 0 {
            self.control.wrote_behind(left, now);
        }
        self.prove();
    }

    /// Whether `compose` would bring something.
    pub fn has_work(&self) -> bool {
        if !self.outbox.rest().is_empty() || !self.control.rest().is_empty() {
            return true;
        }
        let (planned, messages) = self.plan();
        planned > 0 || (self.protocol == Protocol::Native && self.control.is_urgent(messages))
    }

    /// The kernel took all that was offered, or not.
    pub fn note_blocked(&mut self, is_blocked: bool, has_moved: bool, now: Moment) {
        if self.protocol == Protocol::Native {
            self.stall.note(is_blocked, has_moved, now);
        }
    }

    /// When to try once more, and then to judge.
    pub fn stall_deadline(&self) -> Option<Moment> {
        self.stall.deadline()
    }

    /// The verdict on a peer that takes nothing, after a try made at `now`.
    pub fn judge(&self, now: Moment) -> Option<Reason> {
        self.stall.deadline().filter(|due| now >= *due).map(|_| Reason::WriteStalled)
    }

    /// The original's heartbeat to write now: one is due and nothing else waits.
    pub fn heartbeat(&self, now: Moment) -> Option<&'static [u8]> {
        let is_due = self.protocol == Protocol::Classic && now >= self.speaking.deadline();
        (is_due && self.is_empty()).then_some(&HEARTBEAT)
    }

    /// The kernel took `written` bytes of a heartbeat; one that found no room is due again an interval later.
    pub fn heartbeat_passed(&mut self, written: usize, now: Moment) {
        if written > 0 && written < HEADER {
            self.control.go_on_with(HEARTBEAT.get(written..).unwrap_or_default());
        }
        self.spoke(written, now);
    }

    /// On our wire a PING goes out with the next write.
    pub fn ping(&mut self) {
        self.control.ping();
    }

    /// A control frame of the peer's. Returns whether it answers our PING.
    ///
    /// # Errors
    /// `PROTOCOL` when it confirms what was never sent.
    pub fn hear(&mut self, control: &wire::Control, now: Moment) -> Result<bool, Fault> {
        let confirm = |outbox: &mut Outbox, numbers: &Numbers| outbox.confirm(numbers.consumed, numbers.credit);
        match control {
            wire::Control::Ack(numbers) => confirm(&mut self.outbox, numbers).map(|()| false),
            wire::Control::Ping { nonce, numbers } => {
                confirm(&mut self.outbox, numbers)?;
                self.control.pong(*nonce);
                Ok(false)
            }
            wire::Control::Pong { nonce, numbers } => {
                confirm(&mut self.outbox, numbers)?;
                if let Ok(at) = self.proofs.binary_search_by_key(nonce, |(ping, _)| *ping) {
                    let last = self.proofs.drain(..=at).next_back();
                    last.into_iter().for_each(|(_, place)| self.outbox.receipts().receive_to(place));
                }
                Ok(self.control.hear_pong(*nonce, now))
            }
            _ => Ok(false),
        }
    }

    /// An ACK goes out with the next write.
    pub fn ack(&mut self) {
        self.control.ack();
    }

    /// The numbers go with the next messages, if there is news in them.
    pub fn tell_with_messages(&mut self) {
        self.control.tell_with_messages();
    }

    /// An ASK goes out behind the last message.
    pub fn ask(&mut self) {
        self.asked = Some(self.entered());
        self.control.ask();
    }

    /// CLOSE goes out, behind the messages that `after` names.
    pub fn close(&mut self, goodbye: Goodbye, after: After) {
        self.control.close(goodbye, after);
    }

    /// Whether our CLOSE was handed to the kernel.
    pub fn has_closed(&self) -> bool {
        self.control.has_closed()
    }

    /// A CLOSE that waits for nothing, between two frames; none where a frame is half written. Only one
    /// that blames says nothing of what was consumed.
    pub fn last_word(&self, goodbye: &Goodbye, numbers: Numbers) -> Option<Vec<u8>> {
        let is_between = self.control.rest().is_empty() && self.outbox.rest().is_empty();
        let may_speak = self.protocol == Protocol::Native && is_between && !self.control.has_begun_close();
        may_speak.then(|| {
            let mut frame = Vec::new();
            if !matches!(goodbye.code, wire::close::FAULT | wire::close::VOID) {
                wire::encode_ack(numbers, &mut frame);
            }
            wire::encode_close(goodbye, &mut frame);
            frame
        })
    }

    /// What the peer was told, or will be by what is being written.
    pub fn announced(&self) -> Numbers {
        self.control.announced()
    }

    /// The last round trip that was measured.
    pub fn latency(&self) -> Option<std::time::Duration> {
        self.control.latency()
    }

    /// Bytes that wait to be written, whether they may be or not.
    pub fn unsent_bytes(&self) -> usize {
        self.outbox.unsent_bytes() + self.control.rest().len()
    }

    /// Bytes of the messages that it holds: the bound of `wire.md` §4 is tested against it.
    pub fn held_bytes(&self) -> usize {
        self.outbox.held_bytes()
    }

    /// The same in cost.
    pub fn held_cost(&self) -> u64 {
        let beside_headers = cost(0).saturating_sub(u64::try_from(HEADER).unwrap_or(0));
        let bytes = u64::try_from(self.held_bytes()).unwrap_or(u64::MAX);
        bytes.saturating_add(self.held().saturating_mul(beside_headers))
    }

    /// No message waits, and nothing is half written.
    pub fn is_empty(&self) -> bool {
        self.outbox.is_empty() && self.control.rest().is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    pub fn queued(&self) -> u64 {
        self.outbox.queued()
    }

    pub fn unconfirmed(&self) -> u64 {
        self.outbox.unconfirmed()
    }

    /// Accepted here, and not known to be taken by the peer's application.
    pub fn held(&self) -> u64 {
        self.queued().saturating_add(self.unconfirmed())
    }

    pub fn lost(&self) -> u64 {
        self.outbox.lost()
    }

    /// Messages that were carried into another session, each time anew.
    pub fn redelivered(&self) -> u64 {
        self.outbox.redelivered()
    }

    pub fn max_size(&self) -> usize {
        self.max_size
    }

    /// The number behind the last message that entered: a mark for `is_flushed`.
    pub fn entered(&self) -> u64 {
        self.outbox.entered()
    }

    /// Everything that had entered before `mark` was handed to the kernel, or discarded by policy.
    pub fn is_flushed(&self, mark: u64) -> bool {
        self.flushed() >= mark
    }

    /// The highest mark that `is_flushed`.
    pub fn flushed(&self) -> u64 {
        self.outbox.gone()
    }

    /// When something must be said.
    pub fn heartbeat_deadline(&self) -> Moment {
        self.speaking.deadline()
    }

    /// Gives back memory that an idle connection does not need.
    pub fn trim(&mut self) {
        self.outbox.trim();
        self.control.trim();
    }

    /// The handle has ended: what it holds is counted, and its bytes are let go.
    pub fn give_up(&mut self) {
        self.outbox.give_up();
    }

    /// How much memory its messages hold, and those that have left it.
    pub fn memory(&self) -> usize {
        self.outbox.memory()
    }

    /// It holds memory that `trim` would give back.
    pub fn is_spare(&self) -> bool {
        self.outbox.is_spare()
    }

    /// Moves with each message that comes and that is done with.
    pub fn activity(&self) -> u64 {
        self.outbox.accepted().wrapping_add(self.outbox.confirmed())
    }

    pub fn account(&self, stats: &mut Stats) {
        stats.accepted = self.outbox.accepted();
        stats.confirmed = self.outbox.confirmed();
        stats.unconfirmed = self.outbox.unconfirmed();
        stats.queued = self.outbox.queued();
        stats.write_dropped = self.outbox.dropped();
        stats.lost = self.outbox.lost();
        stats.redelivered = self.outbox.redelivered();
        stats.bytes_sent = self.bytes;
    }

    /// How many bytes of messages may be begun now, and what that means for what stands between them.
    fn plan(&self) -> (usize, Messages) {
        let (planned, are_last) = if self.control.has_begun_close() { (0, true) } else { self.outbox.plan() };
        let are_all = planned == self.outbox.unbegun_bytes();
        (planned, Messages { are_some: planned > 0, are_all, are_last })
    }

    fn spoke(&mut self, written: usize, now: Moment) {
        self.bytes += u64::try_from(written).unwrap_or(0);
        self.speaking.spoke(now);
    }
}
