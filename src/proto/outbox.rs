//! What was accepted for sending, as encoded frames, in zones: *begun* (the kernel has their first byte
//! and the peer's application is not known to have taken them), then *waiting*, ready to be written in
//! one call. On the original's wire nothing is ever confirmed: a message is gone once its last byte was
//! handed over, so of the begun zone only a frame that is partly written is left.
//!
//! 1. `a_half_written_frame_goes_again_whole_after_a_break`, on the original's wire.
//! 2. `sliding_discards_the_oldest_that_was_not_begun`
//! 3. `order_is_kept_whatever_the_kernel_takes`
//! 4. `what_is_begun_stays_until_it_is_confirmed`, on ours.
//! 5. `what_was_begun_and_not_confirmed_is_lost_with_its_session`, and counted.

use bytes::{Buf, BytesMut};

use super::classic::{HEADER, encode_header};
use super::cost;
use super::events::Fault;
use super::hello::Agreement;
use super::options::{Buffer, Policy, Protocol};
use super::session::Outgoing;
use super::wire::protocol;

#[derive(Debug)]
pub struct Outbox {
    protocol: Protocol,
    /// Begun, the oldest first.
    begun: BytesMut,
    /// Bytes of `begun` that this link's kernel buffer has taken.
    begun_written: usize,
    /// How many messages had entered before the one that is partly written.
    begun_behind: u64,
    flow: Outgoing,
    waiting: BytesMut,
    count: usize,
    cost: u64,
    limits: Buffer,
    accepted: u64,
    /// Accepted and not refused.
    entered: u64,
    confirmed: u64,
    dropped: u64,
    lost: u64,
}

/// The answer to `push`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    Accepted,
    /// A dropping buffer was full; counted.
    Refused,
    /// A fixed buffer is full; nothing happened.
    Full,
}

impl Outbox {
    pub fn new(limits: Buffer, protocol: Protocol) -> Self {
        Self {
            protocol,
            begun: BytesMut::new(),
            begun_written: 0,
            begun_behind: 0,
            flow: Outgoing::default(),
            waiting: BytesMut::new(),
            count: 0,
            cost: 0,
            limits,
            accepted: 0,
            entered: 0,
            confirmed: 0,
            dropped: 0,
            lost: 0,
        }
    }

    /// A session begins; returns how many messages are lost with the one before, or too large for this.
    pub fn begin_session(&mut self, agreement: &Agreement) -> u64 {
        let lost = self.unconfirmed();
        self.begun.clear();
        self.begun_written = 0;
        self.flow.begin_session(agreement, self.limits.max_bytes);
        let lost = lost.saturating_add(self.drop_larger_than(agreement.max_size));
        self.lost = self.lost.saturating_add(lost);
        lost
    }

    /// Appends a message.
    pub fn push(&mut self, payload: &[u8]) -> Push {
        if !self.has_room() {
            match self.limits.policy {
                Policy::Fixed => return Push::Full,
                Policy::Dropping => {
                    self.accepted += 1;
                    self.dropped += 1;
                    return Push::Refused;
                }
                Policy::Sliding => self.slide(),
            }
        }
        self.accepted += 1;
        self.entered += 1;
        self.count += 1;
        self.cost = self.cost.saturating_add(cost(payload.len()));
        self.waiting.extend_from_slice(&encode_header(payload.len()));
        self.waiting.extend_from_slice(payload);
        Push::Accepted
    }

    /// Whether a message may go to the kernel past the queue.
    pub fn may_pass(&self) -> bool {
        self.is_empty() && self.may_begin()
    }

    /// A message that went past the queue: the kernel took `written` bytes of its frame, at least one.
    pub fn passed(&mut self, payload: &[u8], written: usize) {
        debug_assert!(self.is_empty(), "a message may only pass an empty outbox");
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
        self.begun.extend_from_slice(&encode_header(payload.len()));
        self.begun.extend_from_slice(payload);
        self.begun_written = self.begun.len() - (frame - written.min(frame));
    }

    /// The rest of the frame that is partly written.
    pub fn rest(&self) -> &[u8] {
        self.begun.get(self.begun_written..).unwrap_or_default()
    }

    /// The first so many bytes of the waiting zone.
    pub fn waiting(&self, bytes: usize) -> &[u8] {
        self.waiting.get(..bytes).unwrap_or_default()
    }

    pub fn waiting_bytes(&self) -> usize {
        self.waiting.len()
    }

    /// So many bytes of the waiting zone may be begun now: whole frames.
    pub fn beginnable_bytes(&self) -> usize {
        let is_free = self.protocol == Protocol::Classic;
        if is_free || self.flow.may_begin_all(self.waiting_count(), self.cost) {
            return self.waiting.len();
        }
        let (mut flow, mut at) = (self.flow, 0);
        while let Some(frame) = self.frame_at(at).filter(|_| flow.may_begin()) {
            flow.begin(cost(frame - HEADER));
            at += frame;
        }
        at
    }

    /// The kernel took `written` bytes of the rest and what may be begun.
    pub fn wrote(&mut self, written: usize) {
        let rest = self.begun.len() - self.begun_written;
        if written < rest {
            self.begun_written += written;
            return;
        }
        if rest > 0 {
            self.finish_begun();
        }
        self.begin(written - rest);
    }

    /// The kernel took `written` bytes of the waiting zone.
    fn begin(&mut self, written: usize) {
        let (mut whole, mut at) = (0, 0);
        while let Some(frame) = self.frame_at(at).filter(|_| at < written) {
            self.forget(frame);
            at += frame;
            if at <= written {
                whole = at;
                self.confirmed += u64::from(self.protocol == Protocol::Classic);
            } else {
                self.begun_behind = self.waiting_behind() - 1;
            }
            if self.protocol == Protocol::Native {
                self.flow.begin(cost(frame - HEADER));
            }
        }
        let from = if self.protocol == Protocol::Native { 0 } else { whole };
        self.begun.extend_from_slice(self.waiting.get(from..at).unwrap_or_default());
        self.waiting.advance(at);
        self.begun_written = self.begun.len() - (at - written.min(at));
    }

    /// The peer's application has taken the messages before `number`, and grants `credit`.
    ///
    /// # Errors
    /// `PROTOCOL` when that was never written.
    pub fn confirm(&mut self, number: u64, credit: u64) -> Result<(), Fault> {
        let is_unfinished = self.begun_written < self.begun.len();
        let written = self.flow.begun() - u64::from(is_unfinished);
        if number > written {
            return Err(protocol(format!("{number} messages confirmed, {written} were sent")));
        }
        let mut bytes = 0;
        while self.flow.confirmed() < number {
            let frame = frame_at(&self.begun, bytes).expect("what was begun and not confirmed lies here");
            self.flow.confirm(cost(frame - HEADER));
            self.confirmed += 1;
            bytes += frame;
        }
        self.begun.advance(bytes);
        self.begun_written -= bytes;
        self.flow.grant(credit);
        Ok(())
    }

    /// The link broke: on the original's wire a half-written message goes again whole.
    pub fn rewind(&mut self) {
        self.begun_written = if self.protocol == Protocol::Classic { 0 } else { self.begun.len() };
    }

    /// Nothing waits and nothing is half written.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.begun_written == self.begun.len()
    }

    /// Whether one more message may be begun.
    pub fn may_begin(&self) -> bool {
        self.protocol == Protocol::Classic || self.flow.may_begin()
    }

    /// Messages accepted and not begun; on the original's wire: not handed to the kernel whole.
    pub fn queued(&self) -> u64 {
        let has_begun = self.protocol == Protocol::Classic && !self.begun.is_empty();
        self.waiting_count().saturating_add(u64::from(has_begun))
    }

    /// Messages begun that the peer's application is not known to have taken.
    pub fn unconfirmed(&self) -> u64 {
        if self.protocol == Protocol::Classic { 0 } else { self.flow.begun() - self.flow.confirmed() }
    }

    /// Messages that entered the outbox, whatever became of them.
    pub fn entered(&self) -> u64 {
        self.entered
    }

    /// How many messages had entered before the oldest that was not handed over whole.
    pub fn gone(&self) -> u64 {
        if self.begun_written < self.begun.len() { self.begun_behind } else { self.waiting_behind() }
    }

    /// Bytes that wait to be written, whether they may be begun or not.
    pub fn unsent_bytes(&self) -> usize {
        self.begun.len() - self.begun_written + self.waiting.len()
    }

    /// Bytes of all that was begun and not confirmed, and of all that waits.
    pub fn held_bytes(&self) -> usize {
        self.begun.len() + self.waiting.len()
    }

    /// Whether a fixed buffer would accept one more.
    pub fn has_room(&self) -> bool {
        let is_partial = self.protocol == Protocol::Classic && !self.begun.is_empty();
        let begun = if is_partial { cost(self.begun.len() - HEADER) } else { 0 };
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

    /// Gives back memory that an idle connection does not need.
    pub fn trim(&mut self) {
        if self.waiting.is_empty() && self.waiting.capacity() > 0 {
            self.waiting = BytesMut::new();
        }
        if self.begun.is_empty() && self.begun.capacity() > 0 {
            self.begun = BytesMut::new();
            self.begun_written = 0;
        }
    }

    fn waiting_count(&self) -> u64 {
        u64::try_from(self.count).unwrap_or(u64::MAX)
    }

    fn waiting_behind(&self) -> u64 {
        self.entered.saturating_sub(self.waiting_count())
    }

    /// The frame that was partly written is whole.
    fn finish_begun(&mut self) {
        self.begun_written = self.begun.len();
        if self.protocol == Protocol::Classic {
            self.confirmed += 1;
            self.begun = BytesMut::new();
            self.begun_written = 0;
        }
    }

    /// The length of the waiting frame that begins at `at`.
    fn frame_at(&self, at: usize) -> Option<usize> {
        frame_at(&self.waiting, at)
    }

    /// A waiting frame has left the waiting zone.
    fn forget(&mut self, frame: usize) {
        self.count -= 1;
        self.cost = self.cost.saturating_sub(cost(frame - HEADER));
    }

    fn slide(&mut self) {
        while let Some(frame) = self.frame_at(0).filter(|_| !self.has_room()) {
            self.waiting.advance(frame);
            self.forget(frame);
            self.dropped += 1;
        }
    }

    /// The peer takes no message above `max_size`: those that were accepted before it said so are lost.
    fn drop_larger_than(&mut self, max_size: usize) -> u64 {
        let (mut at, mut lost) = (0, 0);
        let mut kept = BytesMut::new();
        while let Some(frame) = self.frame_at(at) {
            if frame - HEADER > max_size {
                if lost == 0 {
                    kept.extend_from_slice(self.waiting.get(..at).unwrap_or_default());
                }
                lost += 1;
                self.forget(frame);
            } else if lost > 0 {
                kept.extend_from_slice(self.waiting.get(at..at + frame).unwrap_or_default());
            }
            at += frame;
        }
        if lost > 0 {
            self.waiting = kept;
        }
        lost
    }
}

fn frame_at(frames: &[u8], at: usize) -> Option<usize> {
    let header = frames.get(at..)?.first_chunk::<HEADER>()?;
    usize::try_from(u32::from_be_bytes(*header)).ok().map(|length| HEADER + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(policy: Policy, count: usize) -> Outbox {
        Outbox::new(Buffer { policy, count, max_bytes: 1 << 30 }, Protocol::Classic)
    }

    fn agreement(credit: u64) -> Agreement {
        Agreement {
            session: [1; 16],
            credit,
            max_messages: 1000,
            hold: 1 << 20,
            max_size: 100,
            heartbeat_timeout: std::time::Duration::from_secs(1),
            has_dialled: true,
        }
    }

    fn native(policy: Policy, count: usize, credit: u64) -> Outbox {
        let mut outbox = Outbox::new(Buffer { policy, count, max_bytes: 1 << 30 }, Protocol::Native);
        outbox.begin_session(&agreement(credit));
        outbox
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        [&encode_header(payload.len())[..], payload].concat()
    }

    fn beginnable(outbox: &Outbox) -> &[u8] {
        outbox.waiting(outbox.beginnable_bytes())
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
        assert!(outbox.begun.is_empty() && outbox.confirm(4, 2000).is_err());
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
        assert!(!outbox.may_pass() && !outbox.may_begin());
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
        assert_eq!(outbox.begin_session(&agreement(1000)), 3);
        assert_eq!((outbox.lost(), outbox.unconfirmed(), outbox.queued()), (3, 0, 2));
        assert_eq!(unsent(&outbox), [frame(&[2]), frame(&[3])].concat());
    }
}
