//! What was accepted for sending and not yet handed to the kernel, as encoded frames, ready to be
//! written in one call. On this wire a message is gone once its last byte was handed over, so there is
//! no confirmed zone: the frame that is begun, then those that wait.
//!
//! 1. `a_half_written_frame_goes_again_whole_after_a_break`
//! 2. `sliding_discards_the_oldest_that_was_not_begun`
//! 3. `order_is_kept_whatever_the_kernel_takes`

use bytes::{Buf, BytesMut};

use super::classic::{HEADER, HEARTBEAT, encode_header};
use super::cost;
use super::options::{Buffer, Policy};

#[derive(Debug)]
pub struct Outbox {
    /// The frame of which the kernel has taken a part, or took a part before the last break.
    begun: BytesMut,
    /// Bytes of `begun` that this link's kernel buffer has taken.
    begun_written: usize,
    /// How many messages had entered before the one in `begun`.
    begun_behind: u64,
    waiting: BytesMut,
    count: usize,
    cost: u64,
    limits: Buffer,
    accepted: u64,
    /// Accepted and not refused.
    entered: u64,
    confirmed: u64,
    dropped: u64,
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
    pub fn new(limits: Buffer) -> Self {
        Self {
            begun: BytesMut::new(),
            begun_written: 0,
            begun_behind: 0,
            waiting: BytesMut::new(),
            count: 0,
            cost: 0,
            limits,
            accepted: 0,
            entered: 0,
            confirmed: 0,
            dropped: 0,
        }
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

    /// A message that went past the queue: the kernel took `written` bytes of its frame.
    /// Only while the outbox is empty.
    pub fn passed(&mut self, payload: &[u8], written: usize) {
        debug_assert!(self.is_empty(), "a message may only pass an empty outbox");
        self.accepted += 1;
        self.entered += 1;
        if written >= HEADER + payload.len() {
            self.confirmed += 1;
            return;
        }
        self.begun.extend_from_slice(&encode_header(payload.len()));
        self.begun.extend_from_slice(payload);
        self.begun_written = written;
        self.begun_behind = self.entered - 1;
    }

    /// A heartbeat of which the kernel took only `written` bytes: the rest goes out before anything.
    pub fn heartbeat_passed(&mut self, written: usize) {
        if written > 0 && written < HEADER {
            self.begun.extend_from_slice(&HEARTBEAT);
            self.begun_written = written;
        }
    }

    /// All that is unsent, in order.
    pub fn unsent(&self) -> [&[u8]; 2] {
        [self.begun.get(self.begun_written..).unwrap_or_default(), &self.waiting]
    }

    /// The kernel took `written` bytes of `unsent`.
    pub fn wrote(&mut self, mut written: usize) {
        let rest = self.begun.len() - self.begun_written;
        if written < rest {
            self.begun_written += written;
            return;
        }
        written -= rest;
        self.finish_begun();
        while let Some(frame) = self.front_frame().filter(|_| written > 0) {
            if written < frame {
                self.begun_behind = self.waiting_behind();
                self.begun = self.waiting.split_to(frame);
                self.begun_written = written;
                return self.forget(frame);
            }
            self.waiting.advance(frame);
            self.forget(frame);
            written -= frame;
            self.confirmed += 1;
        }
    }

    /// The link broke: a half-written message goes again whole, a half-written heartbeat does not.
    pub fn rewind(&mut self) {
        self.begun_written = 0;
        if self.begun_is_heartbeat() {
            self.begun.clear();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.waiting.is_empty()
    }

    /// Messages accepted and not handed to the kernel whole.
    pub fn queued(&self) -> u64 {
        self.waiting().saturating_add(u64::from(self.has_begun()))
    }

    /// Messages that entered the outbox, whatever became of them.
    pub fn entered(&self) -> u64 {
        self.entered
    }

    /// How many messages had entered before the oldest that is here: none of those is left.
    pub fn gone(&self) -> u64 {
        if self.has_begun() { self.begun_behind } else { self.waiting_behind() }
    }

    /// Bytes that wait to be written.
    pub fn unsent_bytes(&self) -> usize {
        self.begun.len() - self.begun_written + self.waiting.len()
    }

    /// Whether a fixed buffer would accept one more.
    pub fn has_room(&self) -> bool {
        let begun = if self.begun.is_empty() { 0 } else { cost(self.begun.len() - HEADER) };
        self.limits.has_room(self.count, self.cost.saturating_add(begun))
    }

    /// Given to a send that did not raise, those included that a policy refused.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Handed to the kernel whole.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Refused or discarded by the buffer's policy.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Gives back memory that an idle connection does not need.
    pub fn trim(&mut self) {
        if self.is_empty() && self.waiting.capacity() + self.begun.capacity() > 0 {
            self.waiting = BytesMut::new();
            self.begun = BytesMut::new();
        }
    }

    fn waiting(&self) -> u64 {
        u64::try_from(self.count).unwrap_or(u64::MAX)
    }

    fn waiting_behind(&self) -> u64 {
        self.entered.saturating_sub(self.waiting())
    }

    /// A message is begun.
    fn has_begun(&self) -> bool {
        !self.begun.is_empty() && !self.begun_is_heartbeat()
    }

    fn begun_is_heartbeat(&self) -> bool {
        self.begun.as_ref() == HEARTBEAT
    }

    fn finish_begun(&mut self) {
        if self.has_begun() {
            self.confirmed += 1;
        }
        self.begun = BytesMut::new();
        self.begun_written = 0;
    }

    /// The length of the oldest waiting frame.
    fn front_frame(&self) -> Option<usize> {
        let header = self.waiting.first_chunk::<HEADER>()?;
        usize::try_from(u32::from_be_bytes(*header)).ok().map(|length| HEADER + length)
    }

    /// A waiting frame has left the waiting zone.
    fn forget(&mut self, frame: usize) {
        self.count -= 1;
        self.cost = self.cost.saturating_sub(cost(frame - HEADER));
    }

    fn slide(&mut self) {
        while let Some(frame) = self.front_frame().filter(|_| !self.has_room()) {
            self.waiting.advance(frame);
            self.forget(frame);
            self.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(policy: Policy, count: usize) -> Outbox {
        Outbox::new(Buffer { policy, count, max_bytes: 1 << 30 })
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        [&encode_header(payload.len())[..], payload].concat()
    }

    fn unsent(outbox: &Outbox) -> Vec<u8> {
        outbox.unsent().concat()
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
    fn a_half_written_heartbeat_is_finished_and_does_not_survive_a_break() {
        let mut outbox = outbox(Policy::Fixed, 100);
        outbox.heartbeat_passed(3);
        outbox.push(b"x");
        assert_eq!(unsent(&outbox), [vec![0], frame(b"x")].concat());
        assert_eq!(outbox.queued(), 1);
        outbox.rewind();
        assert_eq!(unsent(&outbox), frame(b"x"));
        outbox.wrote(5);
        assert_eq!(outbox.confirmed(), 1);
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
        let mut outbox = Outbox::new(Buffer { policy: Policy::Fixed, count: 10, max_bytes: 100 });
        assert_eq!(outbox.push(&[0; 1000]), Push::Accepted);
        assert_eq!(outbox.push(b"x"), Push::Full);
    }
}
