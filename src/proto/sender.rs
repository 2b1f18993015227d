//! The writing half: messages that were accepted, the control frames between them, and when this side
//! must say something. Decides what goes out next and in which order; the kernel says how much of it.

use super::Moment;
use super::account::Stats;
use super::classic::{HEADER, HEARTBEAT};
use super::control::{After, Control, Messages};
use super::events::{Fault, Reason};
use super::hello::Agreement;
use super::liveness::{Speaking, Stall};
use super::options::{Options, Protocol};
use super::outbox::{Outbox, Push};
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
        }
    }

    /// A link is up: nothing was written on it yet. On our wire a session begins, of which our greeting
    /// has `announced` the first numbers; returns how many messages are lost with the one before.
    pub fn link_up(&mut self, agreement: Option<&Agreement>, announced: Numbers, now: Moment) -> u64 {
        self.speaking.spoke(now);
        self.stall.end();
        let Some(agreement) = agreement else {
            return 0;
        };
        self.speaking.answer_to(agreement.heartbeat_timeout);
        self.control.begin(announced);
        self.max_size = agreement.max_size;
        self.outbox.begin_session(agreement)
    }

    /// The link is gone.
    pub fn link_down(&mut self) {
        self.control.end();
        self.stall.end();
        self.outbox.rewind();
    }

    /// Appends a message.
    pub fn push(&mut self, payload: &[u8]) -> Push {
        self.outbox.push(payload)
    }

    /// Whether a message may go to the kernel past the queue, behind `front`.
    pub fn may_pass(&self) -> bool {
        let is_quiet = self.control.rest().is_empty() && !self.control.is_bound_to_messages();
        is_quiet && self.outbox.may_pass()
    }

    /// Drafts what goes out in front of a message that passes the queue.
    pub fn compose_front(&mut self, numbers: Numbers) {
        if self.protocol == Protocol::Native {
            self.control.draft(Messages { are_some: true, are_all: false }, numbers);
        }
    }

    pub fn front(&self) -> &[u8] {
        self.control.in_front()
    }

    /// A message went past the empty queue; the kernel took `written` bytes of the front and its frame.
    pub fn passed(&mut self, payload: &[u8], written: usize, now: Moment) {
        let front = self.control.in_front().len();
        if front > 0 {
            self.control.wrote_front(written.min(front), now);
        }
        match written.saturating_sub(front) {
            0 => {
                self.outbox.push(payload);
            }
            begun => self.outbox.passed(payload, begun),
        }
        self.spoke(written, now);
    }

    /// Drafts everything that may be written now; `parts` shows it.
    pub fn compose(&mut self, numbers: Numbers) {
        self.planned = self.beginnable();
        if self.protocol == Protocol::Native {
            self.control.draft(self.messages(self.planned), numbers);
        }
    }

    /// What was composed, in order.
    pub fn parts(&self) -> [&[u8]; 4] {
        let control = self.control.rest();
        let rest = if control.is_empty() { self.outbox.rest() } else { control };
        [rest, self.control.in_front(), self.outbox.waiting(self.planned), self.control.behind()]
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
            self.control.wrote_front(front, now);
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
    }

    /// Whether `compose` would bring something.
    pub fn has_work(&self) -> bool {
        if !self.outbox.rest().is_empty() || !self.control.rest().is_empty() {
            return true;
        }
        let planned = self.beginnable();
        planned > 0 || (self.protocol == Protocol::Native && self.control.is_urgent(self.messages(planned)))
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
                Ok(self.control.hear_pong(*nonce, now))
            }
            _ => Ok(false),
        }
    }

    /// An ACK goes out with the next write.
    pub fn ack(&mut self) {
        self.control.ack();
    }

    /// An ASK goes out behind the last message.
    pub fn ask(&mut self) {
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

    pub fn max_size(&self) -> usize {
        self.max_size
    }

    /// The number behind the last message that entered: a mark for `is_flushed`.
    pub fn entered(&self) -> u64 {
        self.outbox.entered()
    }

    /// Everything that had entered before `mark` was handed to the kernel, or discarded by policy.
    pub fn is_flushed(&self, mark: u64) -> bool {
        self.outbox.gone() >= mark
    }

    /// When something must be said.
    pub fn heartbeat_deadline(&self) -> Moment {
        self.speaking.deadline()
    }

    pub fn trim(&mut self) {
        self.outbox.trim();
        self.control.trim();
    }

    pub fn account(&self, stats: &mut Stats) {
        stats.accepted = self.outbox.accepted();
        stats.confirmed = self.outbox.confirmed();
        stats.unconfirmed = self.outbox.unconfirmed();
        stats.queued = self.outbox.queued();
        stats.write_dropped = self.outbox.dropped();
        stats.lost = self.outbox.lost();
        stats.bytes_sent = self.bytes;
    }

    fn beginnable(&self) -> usize {
        if self.control.has_begun_close() { 0 } else { self.outbox.beginnable_bytes() }
    }

    fn messages(&self, planned: usize) -> Messages {
        Messages { are_some: planned > 0, are_all: planned == self.outbox.waiting_bytes() }
    }

    fn spoke(&mut self, written: usize, now: Moment) {
        self.bytes += u64::try_from(written).unwrap_or(0);
        self.speaking.spoke(now);
    }
}
