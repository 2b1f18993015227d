//! The two halves of a connection, each of which one lock will guard: what was received and not taken,
//! and what was accepted and not sent. They live as long as the handle, whatever links come and go.
//! What one must tell the other goes by value: control frames that were heard, and the two [`Numbers`].

use std::collections::VecDeque;

use super::Moment;
use super::account::Stats;
use super::events::{Event, EventQueue, Fault, Reason};
use super::hello::Agreement;
use super::inbox::{Arrival, Inbox};
use super::liveness::{Hearing, flood};
use super::memory::NoMemory;
use super::options::{Options, Protocol};
use super::session::{Heard, Incoming};
use super::standing::Standing;
use super::telling::Untold;
use super::wire::{Control, Goodbye, Numbers, close, protocol};

pub use super::sender::Sender;

/// The reading half.
#[derive(Debug)]
pub struct Receiver {
    protocol: Protocol,
    inbox: Inbox,
    events: EventQueue,
    hearing: Hearing,
    is_closing: bool,
    fault: Option<Fault>,
    consumed: u64,
    bytes: u64,
    links: u64,
    heard: Heard,
    /// Control frames for the writing half.
    for_sender: VecDeque<Control>,
    may_be_moved: bool,
    goodbye: Option<Goodbye>,
    /// When the first frame behind the greeting must be there.
    first_by: Option<Moment>,
}

/// What the reader may take next.
#[derive(Debug, PartialEq, Eq)]
pub enum Front<'a> {
    Message(&'a [u8]),
    Event(&'a Event),
}

/// A link that came up, as the reading half sees it.
#[derive(Clone, Copy)]
pub struct Opened<'a> {
    /// None on the original's wire.
    pub agreement: Option<&'a Agreement>,
    /// When the first frame behind the greeting must be there.
    pub first_by: Option<Moment>,
    pub now: Moment,
}

impl Receiver {
    pub fn new(options: &Options, now: Moment) -> Self {
        Self {
            protocol: options.protocol,
            inbox: Inbox::new(options.read_buffer, options.max_size, options.protocol),
            events: EventQueue::default(),
            hearing: Hearing::new(options.heartbeat_timeout, now),
            is_closing: false,
            fault: None,
            consumed: 0,
            bytes: 0,
            links: 0,
            heard: Heard::default(),
            for_sender: VecDeque::new(),
            may_be_moved: false,
            goodbye: None,
            first_by: None,
        }
    }

    /// A link is up: liveness starts afresh, and on our wire a session begins or goes on.
    pub fn link_up(&mut self, options: &Options, opened: Opened<'_>) {
        self.hearing = Hearing::new(options.heartbeat_timeout, opened.now);
        self.fault = None;
        self.goodbye = None;
        self.for_sender.clear();
        self.links += 1;
        self.first_by = opened.first_by;
        if let Some(agreement) = opened.agreement {
            if agreement.is_resumed {
                self.inbox.resume_session(agreement.hold);
                self.heard.resume(agreement.credit);
            } else {
                self.inbox.begin_session(agreement.hold);
                self.heard.begin(agreement.credit);
            }
            self.may_be_moved = agreement.has_dialled;
        }
        // A buffer that the last link left full: nobody reads, so nobody is judged.
        self.settle();
    }

    /// The link is gone: what is whole stays. Returns whether a frame was cut.
    pub fn link_down(&mut self) -> bool {
        let is_cut = self.inbox.cut();
        self.first_by = None;
        is_cut && !self.is_closing
    }

    /// Bytes came from the kernel. `announced`: what the peer has been told by now.
    pub fn feed(&mut self, bytes: &[u8], announced: Numbers, now: Moment) {
        if self.is_deaf() {
            self.bytes += u64::try_from(bytes.len()).unwrap_or(0);
            return self.hearing.heard(now, false, false);
        }
        self.arrive(bytes.len(), announced, now, |inbox| inbox.feed(bytes));
    }

    /// Where the next bytes belong, in the middle of a large message: at most so many may be appended
    /// there, and then `placed` must hear of them.
    pub fn place(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        if self.is_deaf() { None } else { self.inbox.place() }
    }

    /// So many bytes came from the kernel, and lie in their place.
    pub fn placed(&mut self, bytes: usize, announced: Numbers, now: Moment) {
        self.arrive(bytes, announced, now, |inbox| inbox.placed(bytes));
    }

    /// A large message is coming, or likely to come next: who reads little where a header comes next can
    /// read what stands behind it into its place.
    pub fn is_large(&self) -> bool {
        self.inbox.is_large()
    }

    /// What comes is not looked at any more.
    fn is_deaf(&self) -> bool {
        (self.is_closing && self.protocol == Protocol::Classic) || self.fault.is_some()
    }

    fn arrive(&mut self, bytes: usize, announced: Numbers, now: Moment, take: impl FnOnce(&mut Inbox) -> Arrival) {
        self.bytes += u64::try_from(bytes).unwrap_or(0);
        if let Some(incoming) = self.inbox.incoming_mut() {
            incoming.told(announced);
        }
        let (is_first, was_assembling) = (self.inbox.unfinished() == 0, self.inbox.is_assembling());
        let arrival = take(&mut self.inbox);
        // The pieces of one message count together, whatever stands between them.
        let frames = arrival.messages + if was_assembling { 0 } else { arrival.controls };
        self.hearing.heard(now, self.inbox.unfinished() > 0, is_first || frames > 0);
        let idle = arrival.idle + self.sort();
        if !self.hearing.spend(now, idle, arrival.messages, bytes) {
            self.fault = Some(flood());
        }
        self.settle();
    }

    /// The next control frame for the writing half.
    pub fn next_for_sender(&mut self) -> Option<Control> {
        self.for_sender.pop_front()
    }

    pub fn has_for_sender(&self) -> bool {
        !self.for_sender.is_empty()
    }

    /// A PONG answered our own PING: it costs the peer nothing.
    pub fn refund(&mut self) {
        self.hearing.refund();
    }

    /// The peer's goodbye, once.
    pub fn take_goodbye(&mut self) -> Option<Goodbye> {
        self.goodbye.take()
    }

    /// The peer has said goodbye on this link.
    pub fn has_heard_goodbye(&self) -> bool {
        self.inbox.has_ended()
    }

    pub fn has_goodbye(&self) -> bool {
        self.goodbye.is_some()
    }

    /// What was read on this link ends the session, whether the life of this end knows yet or not.
    pub fn is_session_over(&self) -> bool {
        let is_ended =
            self.goodbye.as_ref().is_some_and(|goodbye| matches!(goodbye.code, close::ABORTED | close::VOID));
        is_ended || self.fault.as_ref().is_some_and(Fault::is_void)
    }

    /// The other half found that a frame said what cannot be.
    pub fn fail(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// What the peer would be told now; zeros on the original's wire.
    pub fn numbers(&self) -> Numbers {
        self.inbox.incoming().map(Incoming::numbers).unwrap_or_default()
    }

    /// Where this end stands in its session, for a greeting that goes on with it.
    pub fn standing(&self, sender: &Sender) -> Standing {
        Standing {
            received: self.inbox.incoming().map_or(0, Incoming::received),
            credit: self.numbers().credit,
            heard: self.heard.numbers(),
            begun: sender.ever_begun(),
            max_size: sender.max_size(),
        }
    }

    /// What the peer's greeting says when this session is over: nothing more will be taken.
    pub fn consumed_of_session(&self) -> u64 {
        self.numbers().consumed
    }

    /// What a greeting may offer: the window, less what older sessions have left in it.
    pub fn first_credit(&self) -> u64 {
        self.inbox.first_credit()
    }

    /// Whether an ACK is due at once.
    pub fn must_tell(&mut self, announced: Numbers) -> bool {
        self.inbox.incoming_mut().is_some_and(|incoming| {
            incoming.told(announced);
            incoming.must_tell()
        })
    }

    /// Something may have been consumed of which the peer was not told: what is to be done about it. `lately` is a
    /// moment that has just passed; the clock is asked only where a new time begins.
    pub fn note_untold(&mut self, announced: Numbers, lately: Moment, now: impl FnOnce() -> Moment) -> Untold {
        self.inbox.incoming_mut().map_or(Untold::Quiet, |incoming| {
            incoming.told(announced);
            incoming.note_untold(lately, now)
        })
    }

    /// When what was consumed must be told. Whoever asks keeps the time: it looks again then.
    pub fn tell_deadline(&mut self, announced: Numbers) -> Option<Moment> {
        let incoming = self.inbox.incoming_mut()?;
        incoming.told(announced);
        incoming.tell_deadline()
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
        if self.protocol == Protocol::Classic {
            // What comes is not parsed any more, so half a frame must not make the end of the stream a break.
            self.inbox.forget_unfinished();
        }
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

    /// Messages that a reader could take now.
    pub fn waiting(&self) -> usize {
        self.inbox.waiting()
    }

    /// What the buffer holds, in cost: the bound of `wire.md` §4 is tested against it.
    pub fn held_cost(&self) -> u64 {
        self.inbox.held_cost()
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
        self.hearing.deadline(self.inbox.unfinished()).into_iter().chain(self.first_by()).min()
    }

    /// The verdict on the peer, after a look made at `now`.
    pub fn judge(&self, now: Moment) -> Option<Reason> {
        if self.first_by().is_some_and(|by| now >= by) {
            return Some(Reason::OpenTimeout);
        }
        self.hearing.judge(now, self.inbox.unfinished())
    }

    /// How much memory its messages hold, and those that have left it.
    pub fn memory(&self) -> usize {
        self.inbox.memory()
    }

    /// It holds memory that `trim` would give back.
    pub fn is_spare(&self) -> bool {
        self.inbox.is_spare()
    }

    /// Moves with each message that comes and that is done with.
    pub fn activity(&self) -> u64 {
        self.inbox.received().wrapping_add(self.consumed)
    }

    /// Gives back memory that an idle connection does not need.
    pub fn trim(&mut self) {
        self.inbox.trim();
        if self.for_sender.is_empty() {
            self.for_sender = VecDeque::new();
        }
    }

    pub fn account(&self, stats: &mut Stats) {
        stats.received = self.inbox.received();
        stats.consumed = self.consumed;
        stats.waiting = u64::try_from(self.inbox.waiting()).unwrap_or(u64::MAX);
        stats.read_dropped = self.inbox.dropped();
        stats.bytes_received = self.bytes;
        stats.links = self.links;
    }

    /// Hands the control frames on, and says how many of them must be paid for.
    fn sort(&mut self) -> u64 {
        let mut idle = 0;
        while let Some(control) = self.inbox.next_heard() {
            match &control {
                Control::Close(goodbye) => {
                    self.goodbye.get_or_insert_with(|| goodbye.clone());
                    continue;
                }
                Control::Move if !self.may_be_moved => {
                    self.fail(protocol(String::from("MOVE to a listener")));
                    continue;
                }
                Control::Move | Control::Skipped => {
                    idle += 1;
                    continue;
                }
                Control::Ask => idle += 1,
                Control::Ping { numbers, .. } => {
                    self.hear(*numbers);
                    idle += 1;
                }
                Control::Pong { numbers, .. } | Control::Ack(numbers) => idle += u64::from(!self.hear(*numbers)),
            }
            if self.for_sender.try_reserve(1).is_err() {
                self.fail(NoMemory.fault(size_of::<Control>()));
            }
            if self.fault.is_none() {
                self.for_sender.push_back(control);
            }
        }
        idle
    }

    /// Whether one of the peer's numbers has moved.
    fn hear(&mut self, numbers: Numbers) -> bool {
        match self.heard.hear(numbers) {
            Ok(has_moved) => has_moved,
            Err(fault) => {
                self.fail(fault);
                true
            }
        }
    }

    fn first_by(&self) -> Option<Moment> {
        self.first_by.filter(|_| !self.inbox.has_begun())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::classic::{HEARTBEAT, encode_header};
    use super::super::events::{Closed, Connected};
    use super::super::options::{Buffer, Policy, Settings};
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(2);
    const NEVER: Duration = Duration::from_secs(1_000_000);

    const UNTOLD: Numbers = Numbers { consumed: 0, credit: 0 };

    fn opened(now: Moment) -> Opened<'static> {
        Opened { agreement: None, first_by: None, now }
    }

    fn options(count: usize) -> Options {
        let buffer = Buffer { policy: Policy::Fixed, count, max_bytes: 1 << 20 };
        let settings = Settings {
            heartbeat_interval: 0.5,
            heartbeat_timeout: Some(TIMEOUT.as_secs_f64()),
            protocol: Protocol::Classic,
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
        receiver.link_up(&options, opened(at(0)));
        receiver
    }

    #[test]
    fn a_side_that_closes_in_the_middle_of_a_frame_still_sees_a_clean_end() {
        let mut receiver = receiver(10);
        receiver.feed(&[&frames(1)[..], &[0, 0, 1]].concat(), UNTOLD, at(1));
        receiver.close();
        receiver.feed(&[0, 7], UNTOLD, at(2));
        assert!(!receiver.link_down());
    }

    #[test]
    fn a_closed_channel_reads_on_whatever_still_lies_there() {
        let mut receiver = receiver(4);
        receiver.feed(&frames(4), UNTOLD, at(1));
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
        receiver.feed(&frames(3), UNTOLD, at(0));
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
        receiver.feed(&encode_header(5), UNTOLD, at(0));
        receiver.feed(&[&[7; 5][..], &frames(1), &encode_header(9)].concat(), UNTOLD, at(1));
        receiver.pop();
        receiver.pop();
        receiver.resume(at(60_000));
        receiver.feed(&[1], UNTOLD, at(60_001));
        assert_eq!(receiver.judge(at(61_000)), None);
    }

    #[test]
    fn a_link_that_comes_up_behind_a_full_buffer_starts_paused() {
        let mut receiver = receiver(2);
        receiver.feed(&frames(2), UNTOLD, at(0));
        receiver.link_down();
        receiver.link_up(&options(2), opened(at(100)));
        assert_eq!((receiver.deadline(), receiver.judge(NEVER)), (None, None));
    }

    #[test]
    fn a_closing_receiver_shows_closed_and_nothing_else() {
        let mut receiver = receiver(2);
        receiver.push_event(connected());
        receiver.feed(&frames(5), UNTOLD, at(0));
        receiver.close();
        assert_eq!((receiver.front(), receiver.ready()), (None, 0));
        assert!(receiver.wants_bytes());
        receiver.feed(&frames(5), UNTOLD, at(1));
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
        receiver.feed(&frames(2), UNTOLD, at(0));
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
        receiver.feed(&[frames(3), vec![0xff; 4]].concat(), UNTOLD, at(0));
        assert_eq!(receiver.fault(), None);
        receiver.pop();
        receiver.pop();
        assert_eq!(receiver.fault().map(|fault| fault.reason), Some(Reason::Protocol));
        assert_eq!(receiver.front(), Some(Front::Message(&[2])));
    }

    #[test]
    fn a_flood_is_a_fault_and_a_peer_with_messages_is_none() {
        let mut flooded = receiver(9);
        flooded.feed(&[0; 1100 * 4], UNTOLD, at(0));
        assert_eq!(flooded.fault().map(|fault| fault.reason), Some(Reason::Flood));
        let mut busy = receiver(9);
        for _ in 0..2000 {
            busy.feed(&[&frames(1)[..], &[0; 4]].concat(), UNTOLD, at(0));
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
        sender.compose(UNTOLD);
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
        sender.compose(UNTOLD);
        sender.wrote(13, at(0));
        assert!(!sender.is_flushed(mark));
        sender.compose(UNTOLD);
        sender.wrote(1, at(0));
        assert!(sender.is_flushed(mark));
        assert!(!sender.is_flushed(sender.entered()));
        sender.link_down();
        assert!(sender.is_flushed(mark));
    }
}
