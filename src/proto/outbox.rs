//! What was accepted for sending, as encoded frames, in zones: *begun* (the kernel has their first byte
//! and the peer's application is not known to have taken them), then *waiting*, ready to be written in
//! one call. On the original's wire nothing is ever confirmed: a message is gone once its last byte was
//! handed over, so of the begun zone only a frame that is partly written is left.
//!
//! A message above 256 KiB lies here as the PARTs in which it travels, so that whatever may stand between
//! them can: what is partly written is offered up to the end of a PART, and then the rest.
//!
//! On ours a border divides the begun zone: what stands behind it goes out again. A resume moves it to
//! what the peer has received; a new session, in which nothing is received yet, to the front.
//!
//! 1. `a_half_written_frame_goes_again_whole_after_a_break`, on the original's wire.
//! 2. `sliding_discards_the_oldest_that_was_not_begun`
//! 3. `order_is_kept_whatever_the_kernel_takes`
//! 4. `what_is_begun_stays_until_it_is_confirmed`, on ours.
//! 5. `what_was_begun_and_not_confirmed_is_lost_with_its_session`, and counted, if it is not to be redelivered.
//! 6. `a_resume_goes_on_at_what_the_peer_has_received`
//! 7. `what_is_redelivered_goes_first_in_order_and_stands_outside_the_limits`
//! 8. `a_message_that_finds_no_memory_changes_nothing`
//! 9. `what_is_confirmed_leaves_no_memory_behind`

use super::classic::HEADER;
use super::cost;
use super::events::Fault;
use super::frames::{Frame, Zones, frame_at};
use super::hello::Agreement;
use super::memory::NoMemory;
use super::options::{Buffer, OnNewSession, Policy, Protocol};
use super::receipts::{Goal, Receipts, Ticket};
use super::session::Outgoing;
use super::wire::{MAX_PART, protocol};

#[derive(Debug)]
pub struct Outbox {
    protocol: Protocol,
    /// Begun and waiting, the oldest first.
    zones: Zones,
    /// Bytes of what has begun that this link's kernel buffer has taken, or the peer had before.
    begun_written: usize,
    /// Where the border stands: whole frames before it were begun on this link or received before.
    border: usize,
    /// Where the last message before the border begins.
    last: usize,
    part: usize,
    /// Messages that have begun.
    begun_count: u64,
    /// How many messages had entered before the one that is partly written.
    begun_behind: u64,
    flow: Outgoing,
    /// Messages that wait, and what they cost.
    count: usize,
    cost: u64,
    limits: Buffer,
    accepted: u64,
    /// Accepted and not refused.
    entered: u64,
    confirmed: u64,
    dropped: u64,
    lost: u64,
    redelivered: u64,
    receipts: Receipts,
}

/// What becomes of messages that were begun in a session that is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// They go again.
    pub redelivered: u64,
    /// They do not, or are too large now.
    pub lost: u64,
}

/// The answer to `push`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    Accepted,
    /// A dropping buffer was full; counted.
    Refused,
    /// A fixed buffer is full; nothing happened.
    Full,
    /// There is no memory for it; nothing happened.
    NoMemory,
}

impl Outbox {
    pub fn new(limits: Buffer, protocol: Protocol) -> Self {
        Self {
            protocol,
            zones: Zones::default(),
            begun_written: 0,
            border: 0,
            last: 0,
            part: MAX_PART,
            begun_count: 0,
            begun_behind: 0,
            flow: Outgoing::default(),
            count: 0,
            cost: 0,
            limits,
            accepted: 0,
            entered: 0,
            confirmed: 0,
            dropped: 0,
            lost: 0,
            redelivered: 0,
            receipts: Receipts::default(),
        }
    }

    /// A session begins: what was begun in the one before and not confirmed goes again or is lost, and
    /// what is too large for this one is lost.
    pub fn begin_session(&mut self, agreement: &Agreement, choice: OnNewSession) -> Carried {
        let mut lost = 0;
        if choice == OnNewSession::Discard {
            lost = std::mem::take(&mut self.begun_count);
            self.receipts.discard(lost);
            self.zones.confirm(self.zones.begun().len());
        }
        let (begun, waiting) = self.zones.drop_larger_than(agreement.max_size);
        self.receipts.shrink_begun(&begun.indexes);
        self.begun_count -= begun.count();
        self.receipts.shrink_waiting(&waiting.indexes);
        self.count -= waiting.indexes.len();
        self.cost = self.cost.saturating_sub(waiting.cost);
        (self.begun_written, self.border) = (0, 0);
        self.flow.begin_session(agreement, self.limits.max_bytes);
        let carried = Carried { redelivered: self.begun_count, lost: lost + begun.count() + waiting.count() };
        self.lost = self.lost.saturating_add(carried.lost);
        self.redelivered = self.redelivered.saturating_add(carried.redelivered);
        carried
    }

    /// Another link carries the same session: goes on at what the peer has received, a number that was
    /// held against what is possible.
    pub fn resume(&mut self, agreement: &Agreement) {
        let count = agreement.received.saturating_sub(self.flow.confirmed()).min(self.begun_count);
        let (mut at, mut sum) = (0, 0_u64);
        for _ in 0..count {
            let frame = frame_at(self.zones.begun(), at).expect("what was begun and not confirmed lies here");
            sum = sum.saturating_add(frame.cost());
            at += frame.bytes;
        }
        (self.begun_written, self.border) = (at, at);
        self.receipts.receive(count);
        self.flow.resume(agreement, self.limits.max_bytes, count, sum);
    }

    /// The session is over and so many of its messages were consumed; impossible values settle nothing.
    pub fn settle(&mut self, consumed: u64) {
        if (self.flow.confirmed()..=self.flow.ever_begun()).contains(&consumed) {
            self.take_confirmed(consumed);
        }
    }

    /// Appends a message.
    pub fn push(&mut self, payload: &[u8]) -> Push {
        let has_room = self.has_room();
        match self.limits.policy {
            Policy::Fixed if !has_room => return Push::Full,
            Policy::Dropping if !has_room => {
                self.accepted += 1;
                self.dropped += 1;
                return Push::Refused;
            }
            _ => {}
        }
        let part = self.is_large(payload.len()).then_some(self.part);
        if self.zones.reserve(payload.len(), part).is_err() {
            return Push::NoMemory;
        }
        if !has_room {
            self.slide();
        }
        self.accepted += 1;
        self.entered += 1;
        self.count += 1;
        self.cost = self.cost.saturating_add(cost(payload.len()));
        match part {
            Some(part) => self.zones.append_parts(payload, part),
            None => self.zones.append(payload),
        }
        Push::Accepted
    }

    /// Makes room for a message of `length` bytes, whatever the limits say.
    ///
    /// # Errors
    /// Nothing has changed then.
    #[inline]
    pub fn reserve(&mut self, length: usize) -> Result<(), NoMemory> {
        self.zones.reserve(length, self.is_large(length).then_some(self.part))
    }

    /// A receipt of the message that entered last and was not refused.
    pub fn want(&mut self, goal: Goal) -> Ticket {
        match self.waiting_count().checked_sub(1) {
            Some(last) => self.receipts.want_waiting(last, goal),
            None => self.receipts.want_begun(self.begun_count.saturating_sub(1), goal),
        }
    }

    pub fn receipts(&mut self) -> &mut Receipts {
        &mut self.receipts
    }

    /// The place behind the last message that was handed over whole.
    pub fn place_handed_over(&self) -> u64 {
        let written = self.flow.begun().saturating_sub(self.flow.confirmed());
        self.receipts.place(written - u64::from(self.begun_written < self.border).min(written))
    }

    /// Whether a message of this length may go to the kernel past the queue.
    pub fn may_pass(&self, length: usize) -> bool {
        self.is_empty() && self.may_begin() && !self.is_large(length)
    }

    /// Messages travel in pieces of this size, if they are longer; for tests.
    pub fn set_part(&mut self, part: usize) {
        self.part = part.clamp(HEADER + 1, MAX_PART);
    }

    fn is_large(&self, length: usize) -> bool {
        self.protocol == Protocol::Native && length > self.part
    }

    /// A message that went past the queue, for which there is room: the kernel took `written` bytes of its frame, at
    /// least one.
    pub fn passed(&mut self, payload: &[u8], written: usize) {
        debug_assert!(self.is_empty(), "a message may only pass an empty outbox");
        self.last = self.zones.begun().len();
        self.accepted += 1;
        self.entered += 1;
        let frame = HEADER + payload.len();
        self.begun_behind = self.entered - 1;
        if self.protocol == Protocol::Classic {
            if written >= frame {
                self.confirmed += 1;
                return;
            }
        } else {
            self.flow.begin(cost(payload.len()));
        }
        self.begun_count += 1;
        self.zones.append(payload);
        self.zones.begin(frame);
        self.border = self.zones.begun().len();
        self.begun_written = self.border - (frame - written.min(frame));
    }

    /// The rest of the frame that is partly written: of a message in PARTs that of one PART.
    pub fn rest(&self) -> &[u8] {
        self.zones.begun().get(self.begun_written..self.end_of_frame()).unwrap_or_default()
    }

    fn end_of_frame(&self) -> usize {
        let frame = frame_at(self.zones.begun(), self.last).filter(|_| self.begun_written < self.border);
        let piece = frame.and_then(|frame| frame.piece);
        piece.map_or(self.border, |piece| {
            let pieces = (self.begun_written - self.last).div_ceil(piece);
            (self.last + pieces * piece).min(self.border)
        })
    }

    /// The PARTs behind `rest`, of the same message.
    fn continuing(&self) -> &[u8] {
        self.zones.begun().get(self.end_of_frame()..self.border).unwrap_or_default()
    }

    /// The first so many bytes of what is to be begun next: first what goes again, then what waits.
    pub fn next(&self, bytes: usize) -> &[u8] {
        self.unbegun().get(..bytes).unwrap_or_default()
    }

    /// Bytes that were not begun on this link.
    pub fn unbegun_bytes(&self) -> usize {
        self.continuing().len() + self.again().len() + self.zones.waiting().len()
    }

    /// So many bytes may be begun now: whole messages, of what goes again or of what waits, or the rest of
    /// one that is under way; and whether nothing more could be begun behind them.
    pub fn plan(&self) -> (usize, bool) {
        let (continuing, again) = (self.continuing().len(), self.again().len());
        let waiting = self.zones.waiting().len();
        if continuing > 0 {
            return (continuing, (again == 0 && waiting == 0) || !self.flow.may_begin());
        }
        let is_free = self.protocol == Protocol::Classic;
        if is_free || (again == 0 && self.flow.may_begin_all(self.waiting_count(), self.cost)) {
            return (waiting, true);
        }
        let (mut flow, mut at) = (self.flow, 0);
        while let Some(frame) = frame_at(self.unbegun(), at).filter(|_| flow.may_begin()) {
            flow.begin(frame.cost());
            at += frame.bytes;
        }
        (at, again == 0 || waiting == 0 || !flow.may_begin())
    }

    /// The kernel took `written` bytes of the rest and what may be begun.
    pub fn wrote(&mut self, written: usize) {
        let rest = self.border - self.begun_written;
        if written < rest {
            self.begun_written += written;
            return;
        }
        if rest > 0 {
            self.finish_begun();
        }
        match written - rest {
            0 => {}
            written if self.again().is_empty() => self.begin(written),
            written => self.begin_again(written),
        }
    }

    /// The kernel took `written` bytes of what goes again.
    fn begin_again(&mut self, written: usize) {
        let end = self.border + written;
        while let Some(frame) = frame_at(self.zones.begun(), self.border).filter(|_| self.border < end) {
            self.flow.begin(frame.cost());
            self.last = self.border;
            self.border += frame.bytes;
        }
        self.begun_written = end;
        // It counts as handed over since it was for the first time.
        self.begun_behind = self.waiting_behind();
    }

    /// The kernel took `written` bytes of the waiting zone.
    fn begin(&mut self, written: usize) {
        let (mut whole, mut at) = (0, 0);
        let mut last = 0;
        while let Some(frame) = self.frame_at(at).filter(|_| at < written) {
            self.forget(frame);
            last = at;
            at += frame.bytes;
            if at <= written {
                whole = at;
                self.confirmed += u64::from(self.protocol == Protocol::Classic);
            } else {
                self.begun_behind = self.waiting_behind() - 1;
            }
            if self.protocol == Protocol::Native {
                self.flow.begin(frame.cost());
                self.receipts.begin(self.begun_count);
                self.begun_count += 1;
            }
        }
        let before = self.zones.begun().len();
        self.zones.begin(at);
        self.border = self.zones.begun().len();
        self.begun_written = self.border - (at - written.min(at));
        self.last = before + last;
        if self.protocol == Protocol::Classic {
            self.let_go(whole);
        }
    }

    /// The peer's application has taken the messages before `number`, and grants `credit`.
    ///
    /// # Errors
    /// `PROTOCOL` when that was never written.
    pub fn confirm(&mut self, number: u64, credit: u64) -> Result<(), Fault> {
        let is_unfinished = self.begun_written < self.border;
        let written = self.flow.begun() - u64::from(is_unfinished);
        if number > written {
            return Err(protocol(format!("{number} messages confirmed, {written} were sent")));
        }
        self.take_confirmed(number);
        self.flow.grant(credit);
        Ok(())
    }

    fn take_confirmed(&mut self, number: u64) {
        let mut bytes = 0;
        while self.flow.confirmed() < number {
            let frame = frame_at(self.zones.begun(), bytes).expect("what was begun and not confirmed lies here");
            self.flow.confirm(frame.cost());
            self.receipts.confirm();
            self.confirmed += 1;
            self.begun_count -= 1;
            bytes += frame.bytes;
        }
        self.let_go(bytes);
    }

    /// The first `bytes` of what has begun are needed no more.
    fn let_go(&mut self, bytes: usize) {
        self.zones.confirm(bytes);
        self.begun_written = self.begun_written.saturating_sub(bytes);
        self.border = self.border.saturating_sub(bytes);
        self.last = self.last.saturating_sub(bytes);
    }

    /// The link broke: on the original's wire a half-written message goes again whole. On ours the next
    /// greeting says what goes again; until then nothing is half written.
    pub fn rewind(&mut self) {
        self.border = self.zones.begun().len();
        self.begun_written = if self.protocol == Protocol::Classic { 0 } else { self.border };
    }

    /// Nothing waits, nothing goes again and nothing is half written.
    pub fn is_empty(&self) -> bool {
        self.zones.waiting().is_empty() && self.begun_written == self.zones.begun().len()
    }

    /// What goes out again, behind the border.
    fn again(&self) -> &[u8] {
        self.zones.begun().get(self.border..).unwrap_or_default()
    }

    /// What is to be begun next.
    fn unbegun(&self) -> &[u8] {
        let zones = [self.continuing(), self.again()];
        zones.into_iter().find(|zone| !zone.is_empty()).unwrap_or(self.zones.waiting())
    }

    /// Whether one more message may be begun.
    pub fn may_begin(&self) -> bool {
        self.protocol == Protocol::Classic || self.flow.may_begin()
    }

    /// Messages accepted and not begun; on the original's wire: not handed to the kernel whole.
    pub fn queued(&self) -> u64 {
        let has_begun = self.protocol == Protocol::Classic && !self.zones.begun().is_empty();
        self.waiting_count().saturating_add(u64::from(has_begun))
    }

    /// Messages begun that the peer's application is not known to have taken.
    pub fn unconfirmed(&self) -> u64 {
        if self.protocol == Protocol::Classic { 0 } else { self.begun_count }
    }

    /// Messages that entered the outbox, whatever became of them.
    pub fn entered(&self) -> u64 {
        self.entered
    }

    /// How many messages had entered before the oldest that was not handed over whole.
    pub fn gone(&self) -> u64 {
        if self.begun_written < self.border { self.begun_behind } else { self.waiting_behind() }
    }

    /// Bytes that wait to be written, whether they may be begun or not.
    pub fn unsent_bytes(&self) -> usize {
        self.zones.len() - self.begun_written
    }

    /// Bytes of all that was begun and not confirmed, and of all that waits.
    pub fn held_bytes(&self) -> usize {
        self.zones.len()
    }

    /// Whether a fixed buffer would accept one more.
    pub fn has_room(&self) -> bool {
        let begun = self.zones.begun().len();
        let is_partial = self.protocol == Protocol::Classic && begun > 0;
        let begun = if is_partial { cost(begun - HEADER) } else { 0 };
        self.limits.has_room(self.count, self.cost.saturating_add(begun))
    }

    /// Given to a send that did not raise, those included that a policy refused.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Taken by the peer's application; on the original's wire: handed to the kernel whole.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Refused or discarded by the buffer's policy.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Begun and not confirmed when a session ended, or too large for the next one.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Carried into another session, each time anew.
    pub fn redelivered(&self) -> u64 {
        self.redelivered
    }

    /// Messages ever begun in this session.
    pub fn ever_begun(&self) -> u64 {
        self.flow.ever_begun()
    }

    /// Gives back memory that an idle connection does not need.
    pub fn trim(&mut self) {
        self.zones.trim();
        self.receipts.trim();
    }

    /// Nothing will be written any more: what lies here is counted, and its bytes are let go. What is half written
    /// stays, for it is not flushed.
    pub fn give_up(&mut self) {
        if self.begun_written == self.border {
            self.zones = Zones::default();
            (self.begun_written, self.border, self.last) = (0, 0, 0);
        }
    }

    /// How much memory its messages hold, and those that have left it.
    pub fn memory(&self) -> usize {
        self.zones.memory()
    }

    /// It holds memory for no message at all.
    pub fn is_spare(&self) -> bool {
        self.zones.is_spare()
    }

    fn waiting_count(&self) -> u64 {
        u64::try_from(self.count).unwrap_or(u64::MAX)
    }

    fn waiting_behind(&self) -> u64 {
        self.entered.saturating_sub(self.waiting_count())
    }

    /// The frame that was partly written is whole.
    fn finish_begun(&mut self) {
        self.begun_written = self.border;
        if self.protocol == Protocol::Classic {
            self.confirmed += 1;
            self.begun_count = 0;
            self.let_go(self.border);
        }
    }

    /// The waiting message that begins at `at`.
    fn frame_at(&self, at: usize) -> Option<Frame> {
        frame_at(self.zones.waiting(), at)
    }

    /// A waiting frame has left the waiting zone.
    fn forget(&mut self, frame: Frame) {
        self.count -= 1;
        self.cost = self.cost.saturating_sub(frame.cost());
    }

    fn slide(&mut self) {
        while let Some(frame) = self.frame_at(0).filter(|_| !self.has_room()) {
            self.zones.discard(frame.bytes);
            self.forget(frame);
            self.receipts.slide();
            self.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::classic::encode_header;
    use crate::proto::memory::scarce;

    fn outbox(policy: Policy, count: usize) -> Outbox {
        Outbox::new(Buffer { policy, count, max_bytes: 1 << 30 }, Protocol::Classic)
    }

    #[test]
    fn a_message_that_finds_no_memory_changes_nothing() {
        for protocol in [Protocol::Classic, Protocol::Native] {
            for policy in [Policy::Fixed, Policy::Dropping, Policy::Sliding] {
                let mut outbox = Outbox::new(Buffer { policy, count: 2, max_bytes: 1 << 30 }, protocol);
                outbox.begin_session(&agreement(1 << 30), OnNewSession::Redeliver);
                outbox.push(b"one");
                if policy == Policy::Sliding {
                    outbox.push(b"two");
                }
                let before = format!("{outbox:?}");
                for length in [100, 300_000] {
                    assert_eq!(scarce::at_most(99, || outbox.push(&vec![7; length])), Push::NoMemory);
                    assert!(scarce::at_most(99, || outbox.reserve(length)).is_err());
                    assert_eq!(format!("{outbox:?}"), before, "{policy:?} {length}");
                }
                assert_eq!(outbox.push(&[7; 300_000]), Push::Accepted, "later there is some");
            }
        }
        let mut full = outbox(Policy::Dropping, 1);
        full.push(b"one");
        assert_eq!(scarce::at_most(9, || full.push(&[7; 99])), Push::Refused, "what is refused needs none");
    }

    #[test]
    fn what_is_confirmed_leaves_no_memory_behind() {
        for length in [65_536, 1 << 20] {
            let mut outbox = outbox_on_ours();
            outbox.push(&vec![7; length]);
            outbox.push(b"behind");
            outbox.wrote(outbox.unsent_bytes());
            assert!(outbox.memory() > length && !outbox.is_spare());
            outbox.confirm(1, 1 << 30).unwrap();
            outbox.trim();
            assert!(outbox.memory() < 100, "{} beside what is not confirmed", outbox.memory());
            outbox.push(&vec![7; length]);
            outbox.wrote(outbox.unsent_bytes());
            outbox.confirm(3, 1 << 30).unwrap();
            assert!(outbox.is_spare());
            outbox.trim();
            assert_eq!((outbox.memory(), outbox.is_spare()), (0, false));
        }
    }

    #[test]
    fn an_end_keeps_the_count_and_not_the_bytes() {
        let mut outbox = outbox_on_ours();
        for _ in 0..3 {
            outbox.push(&[7; 65_536]);
        }
        outbox.wrote(100_000);
        outbox.rewind();
        let counts = |outbox: &Outbox| (outbox.unconfirmed(), outbox.queued(), outbox.entered(), outbox.gone());
        let before = counts(&outbox);
        outbox.give_up();
        assert_eq!((counts(&outbox), outbox.memory()), (before, 0));
        assert!(outbox.rest().is_empty() && outbox.is_empty());
    }

    fn outbox_on_ours() -> Outbox {
        let limits = Buffer { policy: Policy::Fixed, count: 9, max_bytes: 1 << 30 };
        let mut outbox = Outbox::new(limits, Protocol::Native);
        outbox.begin_session(&agreement(1 << 30), OnNewSession::Redeliver);
        outbox
    }

    fn agreement(credit: u64) -> Agreement {
        Agreement {
            session: [1; 16],
            token: [2; 16],
            is_resumed: false,
            received: 0,
            credit,
            offered: 0,
            max_messages: 1000,
            hold: 1 << 20,
            max_size: 100,
            heartbeat_timeout: std::time::Duration::from_secs(1),
            has_dialled: true,
        }
    }

    fn native(policy: Policy, count: usize, credit: u64) -> Outbox {
        let mut outbox = Outbox::new(Buffer { policy, count, max_bytes: 1 << 30 }, Protocol::Native);
        outbox.begin_session(&agreement(credit), OnNewSession::Discard);
        outbox
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        [&encode_header(payload.len())[..], payload].concat()
    }

    fn beginnable(outbox: &Outbox) -> &[u8] {
        outbox.next(outbox.plan().0)
    }

    fn unsent(outbox: &Outbox) -> Vec<u8> {
        [outbox.rest(), beginnable(outbox)].concat()
    }

    #[test]
    fn order_is_kept_whatever_the_kernel_takes() {
        for step in 1..40 {
            let mut outbox = outbox(Policy::Fixed, 100);
            let (mut wire, mut expected) = (Vec::new(), Vec::new());
            for n in 0..20u8 {
                let payload = vec![n; usize::from(n) + 1];
                assert_eq!(outbox.push(&payload), Push::Accepted);
                expected.extend(frame(&payload));
            }
            while !outbox.is_empty() {
                let taken: Vec<u8> = unsent(&outbox).into_iter().take(step).collect();
                outbox.wrote(taken.len());
                wire.extend(taken);
            }
            assert_eq!(wire, expected);
            assert_eq!((outbox.confirmed(), outbox.queued()), (20, 0));
        }
    }

    #[test]
    fn a_half_written_frame_goes_again_whole_after_a_break() {
        let mut outbox = outbox(Policy::Fixed, 100);
        outbox.push(b"first");
        outbox.push(b"second");
        outbox.wrote(frame(b"first").len() + 5);
        assert_eq!((outbox.confirmed(), outbox.queued()), (1, 1));
        outbox.rewind();
        outbox.push(b"third");
        assert_eq!(unsent(&outbox), [frame(b"second"), frame(b"third")].concat());
        assert_eq!(outbox.queued(), 2);
    }

    #[test]
    fn a_message_that_passed_in_part_goes_on_where_the_kernel_stopped() {
        let mut outbox = outbox(Policy::Fixed, 100);
        outbox.passed(b"payload", 6);
        assert_eq!(unsent(&outbox), frame(b"payload")[6..]);
        outbox.wrote(5);
        assert_eq!((outbox.confirmed(), outbox.is_empty()), (1, true));
        outbox.passed(b"payload", 11);
        assert_eq!((outbox.confirmed(), outbox.accepted(), outbox.queued()), (2, 2, 0));
    }

    #[test]
    fn sliding_discards_the_oldest_that_was_not_begun() {
        let mut outbox = outbox(Policy::Sliding, 2);
        outbox.push(b"begun");
        outbox.wrote(1);
        for n in 0..5u8 {
            assert_eq!(outbox.push(&[n]), Push::Accepted);
        }
        assert_eq!(unsent(&outbox), [frame(b"begun")[1..].to_vec(), frame(&[3]), frame(&[4])].concat());
        assert_eq!((outbox.accepted(), outbox.dropped(), outbox.queued()), (6, 3, 3));
    }

    #[test]
    fn what_slides_out_behind_a_begun_message_does_not_count_for_it() {
        let mut outbox = outbox(Policy::Sliding, 1);
        outbox.push(b"begun");
        outbox.wrote(1);
        outbox.push(b"a");
        assert_eq!((outbox.entered(), outbox.gone()), (2, 0));
        outbox.push(b"b");
        outbox.push(b"c");
        assert_eq!((outbox.entered(), outbox.gone()), (4, 0));
        outbox.wrote(frame(b"begun").len() - 1);
        assert_eq!(outbox.gone(), 3);
        outbox.wrote(frame(b"c").len());
        assert_eq!((outbox.gone(), outbox.is_empty()), (4, true));
    }

    #[test]
    fn dropping_refuses_the_newest_and_fixed_says_full() {
        let mut dropping = outbox(Policy::Dropping, 1);
        assert_eq!(dropping.push(b"a"), Push::Accepted);
        assert_eq!(dropping.push(b"b"), Push::Refused);
        assert_eq!((dropping.accepted(), dropping.dropped(), dropping.queued()), (2, 1, 1));
        let mut fixed = outbox(Policy::Fixed, 1);
        fixed.push(b"a");
        assert_eq!(fixed.push(b"b"), Push::Full);
        assert_eq!(fixed.accepted(), 1);
    }

    #[test]
    fn one_oversized_message_passes_alone() {
        let mut outbox = Outbox::new(Buffer { policy: Policy::Fixed, count: 10, max_bytes: 100 }, Protocol::Classic);
        assert_eq!(outbox.push(&[0; 1000]), Push::Accepted);
        assert_eq!(outbox.push(b"x"), Push::Full);
    }

    #[test]
    fn what_is_begun_stays_until_it_is_confirmed() {
        let mut outbox = native(Policy::Fixed, 100, 1000);
        outbox.push(b"first");
        outbox.push(b"second");
        outbox.wrote(frame(b"first").len() + 3);
        assert_eq!((outbox.queued(), outbox.unconfirmed(), outbox.confirmed()), (0, 2, 0));
        assert_eq!(outbox.rest(), &frame(b"second")[3..]);
        assert!(outbox.confirm(2, 2000).is_err(), "the second was not sent whole");
        outbox.confirm(1, 2000).unwrap();
        assert_eq!((outbox.unconfirmed(), outbox.confirmed()), (1, 1));
        outbox.wrote(outbox.rest().len());
        outbox.passed(b"third", frame(b"third").len());
        outbox.confirm(3, 2000).unwrap();
        assert_eq!((outbox.unconfirmed(), outbox.confirmed(), outbox.accepted()), (0, 3, 3));
        assert!(outbox.zones.begun().is_empty() && outbox.confirm(4, 2000).is_err());
    }

    #[test]
    fn what_waits_is_begun_only_as_far_as_the_credit_reaches() {
        let mut outbox = native(Policy::Fixed, 100, 2 * cost(1) + 1);
        for n in 0..5u8 {
            outbox.push(&[n]);
        }
        assert_eq!(beginnable(&outbox), [frame(&[0]), frame(&[1]), frame(&[2])].concat());
        outbox.wrote(beginnable(&outbox).len());
        assert_eq!((beginnable(&outbox).len(), outbox.queued(), outbox.unconfirmed()), (0, 2, 3));
        assert!(!outbox.may_pass(1) && !outbox.may_begin());
        outbox.confirm(0, 5 * cost(1)).unwrap();
        assert_eq!(beginnable(&outbox), [frame(&[3]), frame(&[4])].concat());
    }

    #[test]
    fn what_was_begun_and_not_confirmed_is_lost_with_its_session() {
        let mut outbox = native(Policy::Fixed, 100, cost(1) * 2);
        for n in 0..4u8 {
            outbox.push(&[n]);
        }
        outbox.push(&[9; 101]);
        outbox.wrote(7);
        outbox.rewind();
        assert!(outbox.rest().is_empty());
        assert_eq!((outbox.unconfirmed(), outbox.queued()), (2, 3));
        let carried = outbox.begin_session(&agreement(1000), OnNewSession::Discard);
        assert_eq!(carried, Carried { redelivered: 0, lost: 3 });
        assert_eq!((outbox.lost(), outbox.unconfirmed(), outbox.queued()), (3, 0, 2));
        assert_eq!(unsent(&outbox), [frame(&[2]), frame(&[3])].concat());
    }

    #[test]
    fn a_resume_goes_on_at_what_the_peer_has_received() {
        // The third of four is half written; the peer confirmed one and has received two.
        let mut outbox = native(Policy::Fixed, 100, cost(1) * 4);
        for n in 0..6u8 {
            outbox.push(&[n]);
        }
        outbox.wrote(frame(&[0]).len() * 2 + 3);
        outbox.confirm(1, cost(1) * 4).unwrap();
        outbox.rewind();
        assert_eq!((outbox.unconfirmed(), outbox.queued(), outbox.ever_begun()), (2, 3, 3));
        outbox.resume(&Agreement { received: 2, is_resumed: true, ..agreement(cost(1) * 4) });
        assert!(outbox.rest().is_empty() && !outbox.may_pass(1));
        assert_eq!(beginnable(&outbox), frame(&[2]), "whole, and before everything newer");
        assert!(outbox.confirm(3, cost(1) * 4).is_err(), "it was not sent whole yet");
        outbox.wrote(2);
        assert_eq!(outbox.rest(), &frame(&[2])[2..]);
        outbox.wrote(3);
        assert_eq!(beginnable(&outbox), frame(&[3]), "four are granted");
        assert_eq!((outbox.unconfirmed(), outbox.queued(), outbox.accepted()), (2, 3, 6));
        outbox.confirm(3, cost(1) * 6).unwrap();
        outbox.wrote(outbox.plan().0);
        outbox.confirm(6, cost(1) * 9).unwrap();
        assert_eq!((outbox.confirmed(), outbox.is_empty()), (6, true));
    }

    #[test]
    fn what_is_redelivered_goes_first_in_order_and_stands_outside_the_limits() {
        let mut outbox = native(Policy::Sliding, 2, 1000);
        for n in 0..4u8 {
            outbox.push(&[n]);
            outbox.wrote(5);
        }
        outbox.confirm(1, 1000).unwrap();
        outbox.rewind();
        for n in 4..9u8 {
            outbox.push(&[n]);
        }
        for _ in 0..3 {
            let carried = outbox.begin_session(&agreement(1000), OnNewSession::Redeliver);
            assert_eq!(carried, Carried { redelivered: 3, lost: 0 }, "counted again in each further session");
            assert_eq!((outbox.unconfirmed(), outbox.queued(), outbox.dropped()), (3, 2, 3));
            outbox.rewind();
        }
        outbox.begin_session(&agreement(1000), OnNewSession::Redeliver);
        outbox.wrote(outbox.plan().0);
        assert_eq!((outbox.unconfirmed(), outbox.ever_begun()), (3, 3));
        assert_eq!(beginnable(&outbox), [frame(&[7]), frame(&[8])].concat());
        outbox.wrote(outbox.plan().0);
        outbox.confirm(5, 1000).unwrap();
        assert_eq!((outbox.confirmed(), outbox.redelivered(), outbox.accepted()), (6, 12, 9));
    }

    #[test]
    fn what_the_peer_says_of_a_session_that_is_over_settles_it() {
        let mut outbox = native(Policy::Fixed, 100, 1000);
        for n in 0..4u8 {
            outbox.push(&[n]);
        }
        outbox.wrote(15);
        outbox.rewind();
        outbox.settle(4);
        assert_eq!(outbox.unconfirmed(), 3, "what was never begun settles nothing");
        outbox.settle(2);
        assert_eq!((outbox.confirmed(), outbox.unconfirmed()), (2, 1));
        outbox.settle(1);
        assert_eq!(outbox.confirmed(), 2);
        outbox.begin_session(&agreement(1000), OnNewSession::Redeliver);
        assert_eq!(beginnable(&outbox), frame(&[2]));
    }

    #[test]
    fn nothing_is_the_last_while_more_may_be_begun_behind_it() {
        let mut outbox = native(Policy::Fixed, 100, 2 * cost(1) + 1);
        outbox.push(&[0]);
        outbox.wrote(5);
        outbox.push(&[1]);
        outbox.push(&[2]);
        outbox.rewind();
        outbox.resume(&agreement(1));
        assert_eq!(outbox.plan(), (5, false), "what goes again, and behind it what waits");
        outbox.wrote(5);
        assert_eq!(outbox.plan(), (10, true), "as far as the credit reaches");
        let mut large = native(Policy::Fixed, 100, 1000);
        large.set_part(10);
        large.push(&[7; 20]);
        large.push(&[8]);
        large.wrote(14);
        assert!(large.rest().is_empty() && !large.is_empty(), "at the end of a PART");
        assert!(!large.plan().1, "behind the rest of a message another may be begun");
    }
}
