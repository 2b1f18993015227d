//! The two halves of a connection, each of which one lock will guard: what was received and not taken,
//! and what was accepted and not sent. They live as long as the handle, whatever links come and go.

use super::Moment;
use super::account::Stats;
use super::classic::{Fault, HEARTBEAT};
use super::events::{Event, EventQueue, Reason};
use super::inbox::{Arrival, Inbox};
use super::liveness::{Hearing, Speaking};
use super::options::Options;
use super::outbox::{Outbox, Push};

/// The reading half.
#[derive(Debug)]
pub struct Receiver {
    inbox: Inbox,
    events: EventQueue,
    hearing: Hearing,
    is_closing: bool,
    fault: Option<Fault>,
    consumed: u64,
    bytes: u64,
    links: u64,
    /// Messages that had been received when the present link came up.
    received_before: u64,
}

/// What the reader may take next.
#[derive(Debug, PartialEq, Eq)]
pub enum Front<'a> {
    Message(&'a [u8]),
    Event(&'a Event),
}

impl Receiver {
    pub fn new(options: &Options, now: Moment) -> Self {
        Self {
            inbox: Inbox::new(options.read_buffer, options.max_size),
            events: EventQueue::default(),
            hearing: Hearing::new(options.heartbeat_timeout, now),
            is_closing: false,
            fault: None,
            consumed: 0,
            bytes: 0,
            links: 0,
            received_before: 0,
        }
    }

    /// A link is up: liveness starts afresh.
    pub fn link_up(&mut self, options: &Options, now: Moment) {
        self.hearing = Hearing::new(options.heartbeat_timeout, now);
        self.fault = None;
        self.links += 1;
        self.received_before = self.inbox.received();
        // A buffer that the last link left full: nobody reads, so nobody is judged.
        self.settle();
    }

    /// The link is gone: what is whole stays. Returns whether a frame was cut.
    pub fn link_down(&mut self) -> bool {
        let is_cut = self.inbox.cut();
        is_cut && !self.is_closing
    }

    /// Bytes came from the kernel.
    pub fn feed(&mut self, bytes: &[u8], now: Moment) {
        self.bytes += u64::try_from(bytes.len()).unwrap_or(0);
        if self.is_closing || self.fault.is_some() {
            return self.hearing.heard(now, false, false);
        }
        let before = self.inbox.unparsed();
        let arrival = self.inbox.feed(bytes);
        let has_new_frame = before == 0 || arrival != Arrival::default();
        self.hearing.heard(now, self.inbox.unparsed() > 0, has_new_frame);
        if !self.hearing.spend(now, arrival.heartbeats, arrival.messages, bytes.len()) {
            let detail = String::from("more heartbeats than any peer needs");
            self.fault = Some(Fault { reason: Reason::Flood, detail });
        }
        self.settle();
    }

    /// Reading began again after `pause`: the peer is judged from now on, even if no byte ever comes.
    pub fn resume(&mut self, now: Moment) {
        self.hearing.resume(now);
    }

    /// The next item, if one is there.
    pub fn front(&self) -> Option<Front<'_>> {
        let (first, _) = self.inbox.numbers();
        match self.events.front(first) {
            Some(event) => Some(Front::Event(event)),
            None => self.inbox.front().map(Front::Message),
        }
    }

    /// Takes what `front` showed.
    pub fn pop(&mut self) {
        let (first, _) = self.inbox.numbers();
        if self.events.front(first).is_some() {
            return self.events.pop();
        }
        self.inbox.pop();
        self.consumed += 1;
        self.settle();
    }

    /// Puts a value behind everything that was received. A side that closes shows only Closed.
    pub fn push_event(&mut self, event: Event) {
        if self.is_closing && !matches!(event, Event::Closed(_)) {
            return;
        }
        let (first, next) = self.inbox.numbers();
        self.events.push(event, next, first);
    }

    /// How many items a reader could take now; Closed counts as one.
    pub fn ready(&self) -> usize {
        let (_, next) = self.inbox.numbers();
        self.inbox.waiting() + self.events.ready(next)
    }

    /// This side closes: what was not taken is dropped and counted, only Closed comes.
    pub fn close(&mut self) {
        self.is_closing = true;
        self.inbox.clear();
        // What comes is not parsed any more, so half a frame must not make the end of the stream a break.
        self.inbox.forget_unfinished();
        self.events.clear();
    }

    /// The reading channel was closed: what had arrived can be taken, the rest is dropped.
    pub fn discard_arrivals(&mut self) {
        self.inbox.discard_arrivals();
        self.settle();
    }

    /// Whether bytes should be read from the kernel. A side that closes reads and throws away.
    pub fn wants_bytes(&self) -> bool {
        self.is_closing || !self.inbox.is_full()
    }

    /// Whether a reader that stopped for a full buffer should begin again.
    pub fn wants_bytes_again(&self) -> bool {
        self.is_closing || self.inbox.discards() || (!self.inbox.is_full() && self.inbox.is_half_empty())
    }

    /// Reading stopped because the buffer is full.
    pub fn pause(&mut self) {
        self.hearing.pause();
    }

    /// Why this link must end, if its bytes said so.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// The link brought a message.
    pub fn link_brought_message(&self) -> bool {
        self.inbox.received() > self.received_before
    }

    /// Messages that a reader could take now.
    pub fn waiting(&self) -> usize {
        self.inbox.waiting()
    }

    /// A message waits that its reader has not taken.
    pub fn has_message(&self) -> bool {
        self.inbox.waiting() > 0
    }

    pub fn has_consumed(&self) -> bool {
        self.consumed > 0
    }

    pub fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// When to look at the socket once more.
    pub fn deadline(&self) -> Option<Moment> {
        self.hearing.deadline(self.inbox.unparsed())
    }

    /// The verdict on the peer, after a look made at `now`.
    pub fn judge(&self, now: Moment) -> Option<Reason> {
        self.hearing.judge(now, self.inbox.unparsed())
    }

    pub fn trim(&mut self) {
        self.inbox.trim();
    }

    pub fn account(&self, stats: &mut Stats) {
        stats.received = self.inbox.received();
        stats.consumed = self.consumed;
        stats.waiting = u64::try_from(self.inbox.waiting()).unwrap_or(u64::MAX);
        stats.read_dropped = self.inbox.dropped();
        stats.bytes_received = self.bytes;
        stats.links = self.links;
    }

    /// Notes what the last parse showed.
    fn settle(&mut self) {
        if self.fault.is_none() {
            self.fault = self.inbox.fault().cloned();
        }
        if !self.wants_bytes() {
            self.hearing.pause();
        }
    }
}

/// The writing half.
#[derive(Debug)]
pub struct Sender {
    outbox: Outbox,
    speaking: Speaking,
    max_size: usize,
    bytes: u64,
}

impl Sender {
    pub fn new(options: &Options, now: Moment) -> Self {
        Self {
            outbox: Outbox::new(options.write_buffer),
            speaking: Speaking::new(options.heartbeat_interval, now),
            max_size: options.max_size,
            bytes: 0,
        }
    }

    /// A link is up: nothing was written on it yet.
    pub fn link_up(&mut self, now: Moment) {
        self.speaking.spoke(now);
    }

    /// The link is gone: a half-written message goes again whole.
    pub fn link_down(&mut self) {
        self.outbox.rewind();
    }

    /// Appends a message.
    pub fn push(&mut self, payload: &[u8]) -> Push {
        self.outbox.push(payload)
    }

    /// A message went past the empty queue; the kernel took `written` bytes of its frame.
    pub fn passed(&mut self, payload: &[u8], written: usize, now: Moment) {
        self.outbox.passed(payload, written);
        self.spoke(written, now);
    }

    /// The kernel took `written` bytes of `unsent`.
    pub fn wrote(&mut self, written: usize, now: Moment) {
        self.outbox.wrote(written);
        self.spoke(written, now);
    }

    /// The heartbeat to write now: one is due and nothing else waits.
    pub fn heartbeat(&self, now: Moment) -> Option<&'static [u8]> {
        (now >= self.speaking.deadline() && self.outbox.is_empty()).then_some(&HEARTBEAT)
    }

    /// The kernel took `written` bytes of a heartbeat; one that found no room is due again an interval later.
    pub fn heartbeat_passed(&mut self, written: usize, now: Moment) {
        self.outbox.heartbeat_passed(written);
        self.spoke(written, now);
    }

    pub fn unsent(&self) -> [&[u8]; 2] {
        self.outbox.unsent()
    }

    pub fn unsent_bytes(&self) -> usize {
        self.outbox.unsent_bytes()
    }

    pub fn is_empty(&self) -> bool {
        self.outbox.is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    pub fn queued(&self) -> u64 {
        self.outbox.queued()
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

    pub fn heartbeat_deadline(&self) -> Moment {
        self.speaking.deadline()
    }

    pub fn trim(&mut self) {
        self.outbox.trim();
    }

    pub fn account(&self, stats: &mut Stats) {
        stats.accepted = self.outbox.accepted();
        stats.confirmed = self.outbox.confirmed();
        stats.queued = self.outbox.queued();
        stats.write_dropped = self.outbox.dropped();
        stats.bytes_sent = self.bytes;
    }

    fn spoke(&mut self, written: usize, now: Moment) {
        self.bytes += u64::try_from(written).unwrap_or(0);
        self.speaking.spoke(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::classic::encode_header;
    use super::super::events::{Closed, Connected};
    use super::super::options::{Buffer, Policy, Settings};
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(2);
    const NEVER: Duration = Duration::from_secs(1_000_000);

    fn options(count: usize) -> Options {
        let buffer = Buffer { policy: Policy::Fixed, count, max_bytes: 1 << 20 };
        let settings = Settings {
            heartbeat_interval: 0.5,
            heartbeat_timeout: Some(TIMEOUT.as_secs_f64()),
            read_buffer: buffer,
            write_buffer: buffer,
            ..Settings::default()
        };
        settings.check().unwrap()
    }

    fn at(milliseconds: u64) -> Moment {
        Duration::from_millis(milliseconds)
    }

    fn frames(count: u8) -> Vec<u8> {
        (0..count).flat_map(|n| [&encode_header(1)[..], &[n]].concat()).collect()
    }

    fn receiver(count: usize) -> Receiver {
        let options = options(count);
        let mut receiver = Receiver::new(&options, at(0));
        receiver.link_up(&options, at(0));
        receiver
    }

    #[test]
    fn a_side_that_closes_in_the_middle_of_a_frame_still_sees_a_clean_end() {
        let mut receiver = receiver(10);
        receiver.feed(&[&frames(1)[..], &[0, 0, 1]].concat(), at(1));
        receiver.close();
        receiver.feed(&[0, 7], at(2));
        assert!(!receiver.link_down());
    }

    #[test]
    fn a_closed_channel_reads_on_whatever_still_lies_there() {
        let mut receiver = receiver(4);
        receiver.feed(&frames(4), at(1));
        assert!(!receiver.wants_bytes());
        receiver.discard_arrivals();
        assert!(receiver.wants_bytes() && receiver.wants_bytes_again());
    }

    fn connected() -> Event {
        Event::Connected(Connected { resumed: false, redelivered: 0, lost: 0, attempt: 1, peer: String::new() })
    }

    fn closed() -> Event {
        Event::Closed(Closed { reason: Reason::ClosedHere, detail: String::new(), undelivered: 0 })
    }

    fn stats(receiver: &Receiver) -> Stats {
        let mut stats = Stats::default();
        receiver.account(&mut stats);
        stats
    }

    #[test]
    fn a_full_receiver_judges_nobody_until_reading_resumes() {
        let mut receiver = receiver(2);
        receiver.feed(&frames(3), at(0));
        assert_eq!((receiver.deadline(), receiver.judge(NEVER)), (None, None));
        receiver.pop();
        receiver.pop();
        receiver.pop();
        assert!(receiver.wants_bytes_again());
        receiver.resume(at(60_000));
        assert_eq!(receiver.judge(at(61_999)), None);
        assert_eq!(receiver.judge(at(62_000)), Some(Reason::HeartbeatTimeout));
    }

    #[test]
    fn a_frame_that_waited_for_the_reader_is_not_slow() {
        let mut receiver = receiver(2);
        receiver.feed(&encode_header(5), at(0));
        receiver.feed(&[&[7; 5][..], &frames(1), &encode_header(9)].concat(), at(1));
        receiver.pop();
        receiver.pop();
        receiver.resume(at(60_000));
        receiver.feed(&[1], at(60_001));
        assert_eq!(receiver.judge(at(61_000)), None);
    }

    #[test]
    fn a_link_that_comes_up_behind_a_full_buffer_starts_paused() {
        let mut receiver = receiver(2);
        receiver.feed(&frames(2), at(0));
        receiver.link_down();
        receiver.link_up(&options(2), at(100));
        assert_eq!((receiver.deadline(), receiver.judge(NEVER)), (None, None));
    }

    #[test]
    fn a_closing_receiver_shows_closed_and_nothing_else() {
        let mut receiver = receiver(2);
        receiver.push_event(connected());
        receiver.feed(&frames(5), at(0));
        receiver.close();
        assert_eq!((receiver.front(), receiver.ready()), (None, 0));
        assert!(receiver.wants_bytes());
        receiver.feed(&frames(5), at(1));
        receiver.push_event(connected());
        receiver.link_down();
        receiver.push_event(closed());
        assert_eq!(receiver.front(), Some(Front::Event(&closed())));
        assert!(stats(&receiver).balances());
        assert_eq!(stats(&receiver).read_dropped, 5);
    }

    #[test]
    fn ready_counts_values_behind_messages_too() {
        let mut receiver = receiver(9);
        receiver.push_event(connected());
        receiver.feed(&frames(2), at(0));
        receiver.push_event(closed());
        for left in (1..=4).rev() {
            assert_eq!(receiver.ready(), left);
            receiver.pop();
        }
        assert_eq!(receiver.ready(), 1);
    }

    #[test]
    fn a_fault_waits_until_what_came_before_it_was_taken() {
        let mut receiver = receiver(2);
        receiver.feed(&[frames(3), vec![0xff; 4]].concat(), at(0));
        assert_eq!(receiver.fault(), None);
        receiver.pop();
        receiver.pop();
        assert_eq!(receiver.fault().map(|fault| fault.reason), Some(Reason::Protocol));
        assert_eq!(receiver.front(), Some(Front::Message(&[2])));
    }

    #[test]
    fn a_flood_is_a_fault_and_a_peer_with_messages_is_none() {
        let mut flooded = receiver(9);
        flooded.feed(&[0; 1100 * 4], at(0));
        assert_eq!(flooded.fault().map(|fault| fault.reason), Some(Reason::Flood));
        let mut busy = receiver(9);
        for _ in 0..2000 {
            busy.feed(&[&frames(1)[..], &[0; 4]].concat(), at(0));
            busy.pop();
        }
        assert_eq!(busy.fault(), None);
    }

    #[test]
    fn a_heartbeat_goes_out_only_where_nothing_else_would() {
        let mut sender = Sender::new(&options(9), at(0));
        assert_eq!(sender.heartbeat(at(499)), None);
        assert_eq!(sender.heartbeat(at(500)), Some(&HEARTBEAT[..]));
        sender.push(b"x");
        assert_eq!(sender.heartbeat(at(500)), None);
        sender.wrote(5, at(600));
        assert_eq!(sender.heartbeat(at(1099)), None);
        sender.heartbeat_passed(0, at(1100));
        assert_eq!(sender.heartbeat_deadline(), at(1600));
    }

    #[test]
    fn a_flush_ends_with_the_last_byte_of_its_last_message() {
        let mut sender = Sender::new(&options(9), at(0));
        sender.push(b"one");
        sender.push(b"two");
        let mark = sender.entered();
        sender.push(b"three");
        sender.wrote(13, at(0));
        assert!(!sender.is_flushed(mark));
        sender.wrote(1, at(0));
        assert!(sender.is_flushed(mark));
        assert!(!sender.is_flushed(sender.entered()));
        sender.link_down();
        assert!(sender.is_flushed(mark));
    }
}
