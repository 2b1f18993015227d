//! Received bytes are the queue: one contiguous buffer in which frames are parsed where they lie; a large
//! message has a mark there, and memory of its own. Decides what is a message, what is kept and when to
//! stop reading; knows no values and no time.
//!
//! 1. `a_stream_cut_anywhere_gives_the_same_messages`
//! 2. `a_full_fixed_buffer_parses_no_further`: the count of messages never passes the limit.
//! 3. `lossy_buffers_count_what_they_drop` and never stop reading.
//! 4. `nothing_is_allocated_for_what_was_only_announced`
//! 5. `a_message_in_parts_is_one_message`, numbered and paid for once.
//! 6. `parts_that_do_not_add_up_are_found_at_the_header_that_shows_it`
//! 7. `on_our_wire_reading_never_stops_and_credit_bounds_what_waits`
//! 8. `a_large_message_is_read_into_its_place_whoever_reads_it`
//! 9. `what_finds_no_memory_ends_the_link_and_is_not_received`

mod large;
mod order;

use std::collections::VecDeque;

use super::classic::{self, HEADER};
use super::cost;
use super::events::Fault;
use super::memory::{NoMemory, SMALL, Stretch};
use super::options::{Buffer, Policy, Protocol};
use super::session::Incoming;
use super::wire::{self, Control};
use large::{Coming, Large};
use order::{Order, Piece};

/// Stands for the header of a message that lies elsewhere: no length is so large.
const MARK: [u8; HEADER] = [0xff; HEADER];
/// A frame above this that is not whole yet goes to a place of its own.
const LARGE: usize = 128 * 1024;

#[derive(Debug)]
pub struct Inbox {
    /// Whole messages (headers included) and marks, then bytes that are not parsed yet.
    store: Stretch,
    /// None while no message is large: most connections never have one.
    large: Option<Box<Large>>,
    /// Where the unparsed bytes begin.
    whole: usize,
    count: usize,
    cost: u64,
    /// The number of the message at the front.
    first: u64,
    limits: Buffer,
    max_size: usize,
    intake: Intake,
    received: u64,
    dropped: u64,
    fault: Option<Fault>,
    /// On our wire: the counters of the session, and the control frames to be heard.
    session: Option<Order>,
}

/// What the front of the unparsed bytes holds.
enum Next {
    /// Not enough to say.
    Part,
    Heartbeat,
    Message(usize),
    /// The beginning of a piece of a message that comes by and by.
    Piece(Piece),
    Control {
        kind: u8,
        length: usize,
    },
}

/// What happens to whole messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intake {
    Keep,
    /// The reader closed its channel: what arrives from now on is dropped and counted.
    Discard,
}

/// What one batch of bytes brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrival {
    pub messages: u64,
    /// Control frames of any kind.
    pub controls: u64,
    /// Those of them that must be paid for (`wire.md` §6, budget).
    pub idle: u64,
}

impl Inbox {
    pub fn new(limits: Buffer, max_size: usize, protocol: Protocol) -> Self {
        Self {
            store: Stretch::default(),
            large: None,
            whole: 0,
            count: 0,
            cost: 0,
            first: 0,
            limits,
            max_size,
            intake: Intake::Keep,
            received: 0,
            dropped: 0,
            fault: None,
            session: (protocol == Protocol::Native).then(|| Order::new(limits)),
        }
    }

    /// A session begins, with a peer that keeps at most `hold` of cost unconfirmed.
    pub fn begin_session(&mut self, hold: u64) {
        let (count, cost) = (self.count, self.cost);
        if let Some(session) = &mut self.session {
            session.incoming.begin(hold, count, cost);
            session.begin_link();
        }
    }

    /// Another link carries the same session.
    pub fn resume_session(&mut self, hold: u64) {
        if let Some(session) = &mut self.session {
            session.incoming.resume(hold);
            session.begin_link();
        }
    }

    /// The first credit of a session that would begin now.
    pub fn first_credit(&self) -> u64 {
        self.limits.max_bytes.saturating_sub(self.cost)
    }

    /// The counters of the session, on our wire.
    pub fn incoming(&self) -> Option<&Incoming> {
        self.session.as_ref().map(|session| &session.incoming)
    }

    pub fn incoming_mut(&mut self) -> Option<&mut Incoming> {
        self.session.as_mut().map(|session| &mut session.incoming)
    }

    /// The next control frame that nobody has heard yet.
    pub fn next_heard(&mut self) -> Option<Control> {
        self.session.as_mut()?.heard.pop_front()
    }

    /// Whether the first frame behind the greeting has come.
    pub fn has_begun(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.has_begun)
    }

    /// Whether the peer has said CLOSE.
    pub fn has_ended(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.has_ended)
    }

    /// Takes bytes as they came from the kernel and parses what the buffer has room for.
    pub fn feed(&mut self, bytes: &[u8]) -> Arrival {
        if self.fault.is_none()
            && let Err(no_memory) = self.put(bytes)
        {
            self.fault = Some(no_memory.fault(bytes.len()));
        }
        self.parse()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        let mut rest = bytes;
        if !self.has_tail()
            && let Some(large) = &mut self.large
        {
            rest = bytes.get(large.give(bytes)?..).unwrap_or_default();
        }
        self.store.reserve(rest.len())?;
        self.store.append(rest);
        Ok(())
    }

    /// Where the next bytes belong, if that is known: at most so many may be appended there, and then
    /// `placed` must hear of them.
    pub fn place(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        let is_known = self.fault.is_none() && !self.has_tail();
        let large = self.large.as_mut().filter(|_| is_known)?;
        if let Err(no_memory) = large.prepare() {
            self.fault = Some(no_memory.fault(large.coming().map_or(0, |coming| coming.length)));
            return None;
        }
        large.place()
    }

    /// So many bytes came, and lie in their place.
    pub fn placed(&mut self, bytes: usize) -> Arrival {
        if let Some(large) = &mut self.large {
            large.placed(bytes);
        }
        self.parse()
    }

    /// A large message is coming, or likely to come next: who reads little where a header comes next can
    /// read what stands behind it into its place.
    pub fn is_large(&self) -> bool {
        self.large.as_ref().is_some_and(|large| large.is_habit())
    }

    /// Parses on; called again when `pop` has made room.
    pub fn parse(&mut self) -> Arrival {
        let (mut arrival, mut at) = (Arrival::default(), self.parsed());
        while self.fault.is_none() && !self.is_full() {
            if let Some(large) = &mut self.large {
                match large.give(self.store.get(at..).unwrap_or_default()) {
                    Ok(given) => at += given,
                    Err(no_memory) => {
                        let length = large.coming().map_or(0, |coming| coming.length);
                        self.fault = Some(no_memory.fault(length));
                        break;
                    }
                }
                if let Some(length) = large.is_complete() {
                    arrival.messages += 1;
                    at = self.complete(at, length);
                    continue;
                }
                if large.is_owed() {
                    break;
                }
            }
            at = match self.next(at) {
                Ok(Next::Part) => break,
                Ok(Next::Heartbeat) => {
                    arrival.controls += 1;
                    arrival.idle += 1;
                    at + HEADER
                }
                Ok(Next::Message(length)) => {
                    arrival.messages += 1;
                    self.receive(at, length)
                }
                Ok(Next::Piece(piece)) => {
                    self.expect(piece);
                    at + piece.head
                }
                Ok(Next::Control { kind, length }) => {
                    arrival.controls += 1;
                    self.hear(kind, at + HEADER, length);
                    at + HEADER + length
                }
                Err(fault) => {
                    self.fault = Some(fault);
                    break;
                }
            };
        }
        self.close_gap(at);
        arrival
    }

    fn next(&self, at: usize) -> Result<Next, Fault> {
        let pending = self.store.get(at..).unwrap_or_default();
        let is_whole = |length: usize| pending.len() >= HEADER + length;
        let message = |length: usize| match length {
            length if is_whole(length) => Next::Message(length),
            LARGE.. => Next::Piece(Piece { begins: Some(length), head: HEADER, body: length, is_last: true }),
            _ => Next::Part,
        };
        let Some(session) = &self.session else {
            return Ok(match classic::header(pending, self.max_size)? {
                Some(classic::Frame::Heartbeat) => Next::Heartbeat,
                Some(classic::Frame::Message(length)) => message(length),
                None => Next::Part,
            });
        };
        match (wire::header(pending, self.max_size)?, self.coming()) {
            (Some(wire::Frame::Message(body)), Some(coming)) => coming.last_piece(body).map(Next::Piece),
            (Some(wire::Frame::Message(length)), None) => session.admit().map(|()| message(length)),
            (Some(wire::Frame::Control { kind: wire::PART, length: body }), Some(coming)) => {
                coming.piece(body).map(Next::Piece)
            }
            (Some(wire::Frame::Control { kind: wire::PART, length: body }), None) => {
                let bytes = pending.get(HEADER..).unwrap_or_default();
                let piece = session.first_piece(bytes, body, self.max_size)?;
                Ok(piece.map_or(Next::Part, Next::Piece))
            }
            (Some(wire::Frame::Control { kind, length }), _) => {
                session.expect(kind)?;
                Ok(if is_whole(length) { Next::Control { kind, length } } else { Next::Part })
            }
            (None, _) => Ok(Next::Part),
        }
    }

    /// A whole control frame lies there.
    fn hear(&mut self, kind: u8, at: usize, length: usize) {
        let is_within = self.is_assembling();
        let Some(session) = &mut self.session else { return };
        let body = self.store.get(at..at + length).unwrap_or_default();
        self.fault = session.hear(kind, body, is_within).err();
    }

    /// Whether what arrives is dropped, so that nobody needs to take anything for reading to go on.
    pub fn discards(&self) -> bool {
        self.intake == Intake::Discard
    }

    /// The oldest message.
    pub fn front(&self) -> Option<&[u8]> {
        if self.count == 0 {
            return None;
        }
        match self.store.first_chunk::<HEADER>()? {
            &MARK => self.large.as_ref()?.front(),
            header => self.store.get(HEADER..HEADER + length_in(*header)),
        }
    }

    /// Takes the oldest message away, and parses on where that makes room for more.
    pub fn pop(&mut self) -> Arrival {
        self.remove_front(true);
        if self.session.is_none() && self.has_unparsed() { self.parse() } else { Arrival::default() }
    }

    /// No byte more should be read: a fixed buffer holds what it may.
    pub fn is_full(&self) -> bool {
        let may_be = self.session.is_none() && !self.limits.is_lossy() && self.intake == Intake::Keep;
        may_be && !self.limits.has_room(self.count, self.cost)
    }

    /// A buffer that was full is worth reading into again. Half empty, so that a slow reader does not
    /// cost a system call per message.
    pub fn is_half_empty(&self) -> bool {
        self.count <= self.limits.count / 2 && self.cost <= self.limits.max_bytes / 2
    }

    /// The link ended: what is whole stays, though the buffer be full; the rest is forgotten.
    /// Returns whether a frame was cut in the middle.
    pub fn cut(&mut self) -> bool {
        self.parse_all();
        let is_cut = self.has_unparsed();
        self.forget_unfinished();
        self.fault = None;
        is_cut
    }

    /// Drops every message that waits, whole ones included that lie behind a full buffer, and counts
    /// it; nothing is kept from now on.
    pub fn clear(&mut self) {
        if let Some(session) = &mut self.session {
            session.incoming.freeze();
        }
        while self.count > 0 {
            self.remove_front(false);
            self.dropped += 1;
        }
        self.intake = Intake::Discard;
        self.parse();
    }

    /// Forgets the unfinished frame: nobody will look at the rest of it.
    pub fn forget_unfinished(&mut self) {
        self.store.truncate(self.whole);
        if let Some(large) = &mut self.large {
            large.forget();
        }
    }

    /// The beginning of a large message has come, and not yet its end.
    pub fn is_assembling(&self) -> bool {
        self.coming().is_some()
    }

    fn coming(&self) -> Option<Coming> {
        self.large.as_ref()?.coming()
    }

    /// From now on what arrives is dropped and counted; whole messages that were read already stay.
    pub fn discard_arrivals(&mut self) {
        self.parse_all();
        self.intake = Intake::Discard;
        if let Some(session) = &mut self.session {
            session.incoming.consume_on_arrival();
        }
    }

    /// Gives back memory that an idle connection does not need.
    pub fn trim(&mut self) {
        self.store.trim();
        self.large.take_if(|large| large.trim());
        if let Some(session) = self.session.as_mut().filter(|session| session.heard.is_empty()) {
            session.heard = VecDeque::new();
        }
    }

    /// How much memory its messages hold, and those that have left it.
    pub fn memory(&self) -> usize {
        self.store.memory() + self.large.as_ref().map_or(0, |large| large.memory())
    }

    /// It holds memory that `trim` would give back.
    pub fn is_spare(&self) -> bool {
        let is_spare = self.store.memory() > SMALL && self.store.is_empty();
        is_spare || self.large.as_ref().is_some_and(|large| large.is_spare())
    }

    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    pub fn waiting(&self) -> usize {
        self.count
    }

    /// What its memory holds: the cost of the messages that wait, and the bytes behind them.
    pub fn held_cost(&self) -> u64 {
        self.cost.saturating_add(u64::try_from(self.unfinished()).unwrap_or(u64::MAX))
    }

    /// The number of the message at the front, and of the next one to arrive.
    pub fn numbers(&self) -> (u64, u64) {
        (self.first, self.first.saturating_add(u64::try_from(self.count).unwrap_or(u64::MAX)))
    }

    /// Bytes of the message or frame that is not whole yet, or was not parsed for want of room.
    pub fn unfinished(&self) -> usize {
        self.store.len() - self.whole + self.coming().map_or(0, |coming| coming.present)
    }

    pub fn received(&self) -> u64 {
        self.received
    }

    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Parses what is whole, though a fixed buffer be full.
    fn parse_all(&mut self) {
        let limits = self.limits;
        if !limits.is_lossy() && self.session.is_none() {
            self.limits = Buffer { count: usize::MAX, max_bytes: u64::MAX, ..limits };
            self.parse();
            self.limits = limits;
        }
    }

    fn has_unparsed(&self) -> bool {
        self.store.len() > self.whole
    }

    /// Where the unparsed bytes begin: behind the whole messages, and the mark of one that is coming.
    fn parsed(&self) -> usize {
        self.whole + if self.is_assembling() { HEADER } else { 0 }
    }

    fn has_tail(&self) -> bool {
        self.store.len() > self.parsed()
    }

    /// A piece of a large message begins. The header of the first makes room for the mark.
    fn expect(&mut self, piece: Piece) {
        let large = self.large.get_or_insert_with(|| Box::new(Large::new(self.max_size)));
        if let Some(length) = piece.begins {
            large.begin(length);
            if let Some(mark) = self.store.get_mut(self.whole..self.whole + HEADER) {
                mark.copy_from_slice(&MARK);
            }
        }
        large.expect(piece.body, piece.is_last);
    }

    /// The last byte of a large message has come, and the next frame lies at `at`; returns where by then.
    fn complete(&mut self, at: usize, length: usize) -> usize {
        let is_kept = self.count_in(length);
        let at = at - if is_kept { self.slide() } else { 0 };
        if let Some(large) = &mut self.large {
            large.complete(is_kept);
        }
        if is_kept {
            self.keep(HEADER, length);
        }
        at
    }

    /// A whole message lies at `at`; returns where the next frame begins.
    fn receive(&mut self, at: usize, length: usize) -> usize {
        let frame = HEADER + length;
        if let Some(large) = &mut self.large {
            large.interrupt();
        }
        if !self.count_in(length) {
            return at + frame;
        }
        let at = at - self.slide();
        if at != self.whole {
            self.store.copy_within(at..at + frame, self.whole);
        }
        self.keep(frame, length);
        at + frame
    }

    /// A message has come; whether it is kept.
    fn count_in(&mut self, length: usize) -> bool {
        self.received += 1;
        if let Some(session) = &mut self.session {
            session.incoming.receive(cost(length));
        }
        let is_dropped = self.limits.policy == Policy::Dropping && !self.limits.has_room(self.count, self.cost);
        if is_dropped || self.intake == Intake::Discard {
            self.dropped += 1;
            return false;
        }
        true
    }

    /// The next `bytes` of the store are a message that waits from now on.
    fn keep(&mut self, bytes: usize, length: usize) {
        self.whole += bytes;
        self.count += 1;
        self.cost = self.cost.saturating_add(cost(length));
    }

    /// In a sliding buffer the oldest make room for one more; returns by how much the store has moved.
    fn slide(&mut self) -> usize {
        let before = self.store.len();
        let is_sliding = self.limits.policy == Policy::Sliding;
        while is_sliding && self.count > 0 && !self.limits.has_room(self.count, self.cost) {
            self.remove_front(false);
            self.dropped += 1;
        }
        before - self.store.len()
    }

    fn remove_front(&mut self, is_taken: bool) {
        let Some((length, header)) = self.front().map(<[u8]>::len).zip(self.store.first_chunk::<HEADER>()) else {
            return;
        };
        let is_large = *header == MARK;
        let bytes = HEADER + if is_large { 0 } else { length };
        self.store.advance(bytes);
        self.whole -= bytes;
        if let Some(large) = self.large.as_mut().filter(|_| is_large) {
            large.pop();
        }
        self.count -= 1;
        self.cost = self.cost.saturating_sub(cost(length));
        self.first += 1;
        if let Some(session) = &mut self.session {
            session.incoming.leave(cost(length), is_taken);
        }
    }

    /// Moves the unparsed rest down over heartbeats and dropped messages.
    fn close_gap(&mut self, at: usize) {
        let parsed = self.parsed();
        if at == parsed {
            return;
        }
        let rest = self.store.len() - at;
        self.store.copy_within(at.., parsed);
        self.store.truncate(parsed + rest);
    }
}

fn length_in(header: [u8; HEADER]) -> usize {
    usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::classic::{HARD_MAX_SIZE, encode_header};
    use super::super::events::Reason;
    use super::super::memory::scarce;
    use super::super::wire::{Goodbye, Numbers};
    use super::*;

    fn buffer(policy: Policy, count: usize) -> Buffer {
        Buffer { policy, count, max_bytes: 1 << 30 }
    }

    fn inbox(policy: Policy, count: usize) -> Inbox {
        Inbox::new(buffer(policy, count), HARD_MAX_SIZE, Protocol::Classic)
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        [&encode_header(payload.len())[..], payload].concat()
    }

    fn numbered(range: std::ops::Range<u32>) -> Vec<u8> {
        range.flat_map(|n| frame(&n.to_be_bytes())).collect()
    }

    fn take_all(inbox: &mut Inbox) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        while let Some(message) = inbox.front() {
            taken.push(message.to_vec());
            inbox.pop();
        }
        taken
    }

    fn numbers(range: std::ops::Range<u32>) -> Vec<Vec<u8>> {
        range.map(|n| n.to_be_bytes().to_vec()).collect()
    }

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_messages() {
        let messages: Vec<Vec<u8>> = (1..40u8).map(|n| vec![n; usize::from(n) * 7 % 31 + 1]).collect();
        let mut stream = Vec::new();
        for message in &messages {
            stream.extend(frame(message));
            stream.extend([0; 4]);
        }
        for step in 1..stream.len() {
            let mut inbox = inbox(Policy::Fixed, 1000);
            let heartbeats: u64 = stream.chunks(step).map(|chunk| inbox.feed(chunk).controls).sum();
            assert_eq!(heartbeats, 39);
            assert_eq!(take_all(&mut inbox), messages);
            assert_eq!(inbox.unfinished(), 0);
        }
    }

    #[test]
    fn a_full_fixed_buffer_parses_no_further() {
        let mut inbox = inbox(Policy::Fixed, 3);
        assert_eq!(inbox.feed(&numbered(0..10)).messages, 3);
        assert!(inbox.is_full());
        assert_eq!((inbox.waiting(), inbox.received()), (3, 3));
        assert_eq!(inbox.pop().messages, 1);
        assert_eq!(take_all(&mut inbox), numbers(1..10));
        assert_eq!(inbox.received(), 10);
    }

    #[test]
    fn a_buffer_limited_by_bytes_takes_one_oversized_message_alone() {
        let limits = Buffer { policy: Policy::Fixed, count: 100, max_bytes: 200 };
        let mut inbox = Inbox::new(limits, HARD_MAX_SIZE, Protocol::Classic);
        inbox.feed(&frame(&[7; 1000]));
        assert!(inbox.is_full() && !inbox.is_half_empty());
        inbox.pop();
        assert!(!inbox.is_full() && inbox.is_half_empty());
    }

    #[test]
    fn lossy_buffers_count_what_they_drop() {
        let mut dropping = inbox(Policy::Dropping, 3);
        dropping.feed(&numbered(0..10));
        assert_eq!((dropping.received(), dropping.dropped(), dropping.waiting()), (10, 7, 3));
        assert_eq!(take_all(&mut dropping), numbers(0..3));
        let mut sliding = inbox(Policy::Sliding, 3);
        for chunk in numbered(0..10).chunks(5) {
            sliding.feed(chunk);
        }
        assert_eq!((sliding.received(), sliding.dropped(), sliding.numbers()), (10, 7, (7, 10)));
        assert_eq!(take_all(&mut sliding), numbers(7..10));
    }

    #[test]
    fn nothing_is_allocated_for_what_was_only_announced() {
        let mut inbox = inbox(Policy::Fixed, 3);
        inbox.feed(&encode_header(HARD_MAX_SIZE));
        inbox.feed(&[1]);
        assert!(inbox.store.memory() < 1024);
    }

    #[test]
    fn messages_in_front_of_an_illegal_frame_are_delivered() {
        let mut inbox = inbox(Policy::Fixed, 10);
        inbox.feed(&[numbered(0..2), vec![0xff, 0, 0, 0], numbered(2..4)].concat());
        assert_eq!(inbox.fault().map(|fault| fault.reason), Some(Reason::Protocol));
        assert_eq!(take_all(&mut inbox), numbers(0..2));
    }

    #[test]
    fn a_cut_keeps_what_is_whole_and_forgets_the_rest() {
        let mut inbox = inbox(Policy::Fixed, 2);
        let mut stream = numbered(0..5);
        stream.extend([0, 0, 0, 4, 1]);
        inbox.feed(&stream);
        assert!(inbox.cut());
        assert_eq!(inbox.waiting(), 5);
        inbox.feed(&numbered(5..6));
        assert_eq!(take_all(&mut inbox), numbers(0..6));
        assert!(!inbox.cut());
    }

    #[test]
    fn a_cleared_inbox_brings_nothing_back() {
        let mut inbox = inbox(Policy::Fixed, 2);
        inbox.feed(&[numbered(0..5), vec![0, 0, 0, 4, 1]].concat());
        inbox.clear();
        assert_eq!((inbox.waiting(), inbox.received(), inbox.dropped()), (0, 5, 5));
        assert!(inbox.cut());
        assert_eq!((inbox.waiting(), inbox.front()), (0, None));
    }

    #[test]
    fn a_closed_channel_keeps_what_lay_behind_a_full_buffer() {
        let mut inbox = inbox(Policy::Fixed, 2);
        inbox.feed(&numbered(0..5));
        inbox.discard_arrivals();
        inbox.feed(&numbered(5..9));
        assert_eq!((inbox.received(), inbox.dropped()), (9, 4));
        assert_eq!(take_all(&mut inbox), numbers(0..5));
    }

    #[test]
    fn a_closed_channel_keeps_what_had_arrived() {
        let mut inbox = inbox(Policy::Fixed, 2);
        inbox.feed(&numbered(0..1));
        inbox.discard_arrivals();
        inbox.feed(&numbered(1..9));
        assert!(!inbox.is_full());
        assert_eq!((inbox.received(), inbox.dropped()), (9, 8));
        assert_eq!(take_all(&mut inbox), numbers(0..1));
    }

    #[test]
    fn on_our_wire_reading_never_stops_and_credit_bounds_what_waits() {
        let limits = Buffer { policy: Policy::Fixed, count: 3, max_bytes: 1 << 20 };
        let mut inbox = Inbox::new(limits, HARD_MAX_SIZE, Protocol::Native);
        inbox.begin_session(1 << 20);
        let mut stream = Vec::new();
        wire::encode_ack(Numbers { consumed: 0, credit: 1000 }, &mut stream);
        stream.extend(frame(b""));
        wire::encode_ask(&mut stream);
        stream.extend(numbered(1..3));
        let cut = stream.len();
        stream.extend(numbered(3..4));
        let arrival = inbox.feed(&stream[..cut]);
        assert_eq!((arrival.messages, arrival.controls, inbox.is_full()), (3, 2, false));
        assert_eq!(inbox.next_heard(), Some(Control::Ack(Numbers { consumed: 0, credit: 1000 })));
        assert_eq!((inbox.next_heard(), inbox.next_heard()), (Some(Control::Ask), None));
        assert_eq!(inbox.fault(), None);
        inbox.feed(&stream[cut..]);
        assert_eq!(inbox.fault().map(|fault| fault.reason), Some(Reason::Protocol));
        assert_eq!(take_all(&mut inbox), [&[vec![]][..], &numbers(1..3)].concat());
    }

    #[test]
    fn the_first_frame_is_an_ack_and_nothing_follows_close() {
        let native = || {
            let mut inbox = Inbox::new(buffer(Policy::Fixed, 9), HARD_MAX_SIZE, Protocol::Native);
            inbox.begin_session(1 << 20);
            inbox
        };
        let mut early = native();
        early.feed(&frame(b"x"));
        assert!(early.fault().is_some() && !early.has_begun());
        let mut late = native();
        let mut stream = Vec::new();
        wire::encode_ack(Numbers::default(), &mut stream);
        wire::encode_close(&wire::Goodbye { code: 0, words: String::new() }, &mut stream);
        late.feed(&stream);
        assert!(late.fault().is_none() && late.has_begun());
        late.feed(&frame(b"x"));
        assert!(late.fault().is_some());
        let mut again = begun(40);
        again.resume_session(1 << 20);
        assert!(!again.has_begun());
        again.feed(&frame(b"x"));
        assert!(again.fault().is_some(), "on each link of a session");
    }

    /// A message of these pieces, each in its frame; the first begins with the length.
    fn in_parts(payload: &[u8], cuts: &[usize]) -> Vec<u8> {
        let body = [&u32::try_from(payload.len()).unwrap().to_be_bytes()[..], payload].concat();
        let (mut frames, mut from) = (Vec::new(), 0);
        for cut in cuts {
            wire::encode(wire::PART, &[&body[from..*cut]], &mut frames);
            from = *cut;
        }
        frames.extend(encode_header(body.len() - from));
        frames.extend(&body[from..]);
        frames
    }

    fn begun(max_size: usize) -> Inbox {
        let limits = Buffer { policy: Policy::Fixed, count: 9, max_bytes: 1 << 20 };
        let mut inbox = Inbox::new(limits, max_size, Protocol::Native);
        inbox.begin_session(1 << 20);
        let mut ack = Vec::new();
        wire::encode_ack(wire::Numbers::default(), &mut ack);
        inbox.feed(&ack);
        inbox
    }

    #[test]
    fn a_message_in_parts_is_one_message() {
        let payload: Vec<u8> = (0..40).collect();
        let mut ask = Vec::new();
        wire::encode_ask(&mut ask);
        for cuts in [&[4][..], &[5, 20, 43], &[30, 44], &[44]] {
            let stream = [&in_parts(&payload, cuts)[..], &encode_header(2), b"ab"].concat();
            for step in 1..stream.len() {
                let mut inbox = begun(40);
                for bytes in stream.chunks(step) {
                    inbox.feed(bytes);
                    assert_eq!(inbox.fault(), None, "{cuts:?} {step}");
                }
                assert_eq!((inbox.front(), inbox.received()), (Some(&payload[..]), 2));
                assert_eq!(inbox.incoming().unwrap().numbers().consumed, 0);
                inbox.pop();
                assert_eq!((inbox.front(), inbox.unfinished()), (Some(&b"ab"[..]), 0));
                assert_eq!(inbox.incoming().unwrap().numbers().consumed, 1, "numbered once");
            }
        }
    }

    /// What a reader does that puts bytes where they belong, and reads few where a header comes.
    fn read_into_places(inbox: &mut Inbox, mut bytes: &[u8], few: usize) {
        while !bytes.is_empty() {
            let mut ours = bytes.len().min(few);
            match inbox.place() {
                Some((place, most)) => {
                    ours = bytes.len().min(most);
                    place.extend_from_slice(&bytes[..ours]);
                    inbox.placed(ours);
                }
                None => drop(inbox.feed(&bytes[..ours])),
            }
            bytes = &bytes[ours..];
        }
    }

    #[test]
    fn a_large_message_is_read_into_its_place_whoever_reads_it() {
        let large: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let stream = [&frame(b"a")[..], &in_parts(&large, &[100_000, 290_000]), &frame(&large), &frame(b"b")].concat();
        for few in [1, 4, 9, 100, 1000] {
            let mut inbox = Inbox::new(buffer(Policy::Fixed, 9), HARD_MAX_SIZE, Protocol::Native);
            inbox.begin_session(1 << 30);
            let mut ack = Vec::new();
            wire::encode_ack(Numbers::default(), &mut ack);
            inbox.feed(&ack);
            read_into_places(&mut inbox, &stream[..few], few);
            read_into_places(&mut inbox, &stream[few..], few);
            assert_eq!((inbox.fault(), inbox.waiting(), inbox.unfinished()), (None, 4, 0), "{few}");
            assert!(inbox.store.len() < 50, "what is large lies elsewhere: {few}");
            assert_eq!(take_all(&mut inbox), [b"a".to_vec(), large.clone(), large.clone(), b"b".to_vec()]);
        }
        let mut classic = inbox(Policy::Fixed, 2);
        read_into_places(&mut classic, &[frame(b"a"), frame(&large), frame(&large), frame(b"b")].concat(), 7);
        assert!(classic.is_full() && classic.place().is_none());
        assert_eq!(take_all(&mut classic), [b"a".to_vec(), large.clone(), large, b"b".to_vec()]);
    }

    #[test]
    fn what_finds_no_memory_ends_the_link_and_is_not_received() {
        let large: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let stream = [&frame(b"a")[..], &in_parts(&large, &[100_000, 290_000]), &frame(b"b")].concat();
        let mut ack = Vec::new();
        wire::encode_ack(Numbers::default(), &mut ack);
        for step in [1000, 70_000, stream.len()] {
            for (most, is_placed) in [(2, false), (1000, false), (80_000, true), (200_000, true), (200_000, false)] {
                let mut inbox = Inbox::new(buffer(Policy::Fixed, 9), HARD_MAX_SIZE, Protocol::Native);
                inbox.begin_session(1 << 30);
                inbox.feed(&ack);
                scarce::at_most(most, || {
                    for bytes in stream.chunks(step) {
                        if is_placed {
                            read_into_places(&mut inbox, bytes, 500);
                        } else {
                            inbox.feed(bytes);
                        }
                    }
                });
                assert_eq!(inbox.fault().map(|fault| fault.reason), Some(Reason::NoMemory), "{step} {most}");
                let received = inbox.received();
                assert_eq!(
                    u64::try_from(inbox.waiting()).unwrap(),
                    received,
                    "{step} {most}: all that is whole, no more"
                );
                // The peer says it all again from what was received.
                inbox.cut();
                inbox.resume_session(1 << 30);
                inbox.feed(&ack);
                let already = if received == 0 { 0 } else { 5 };
                inbox.feed(&stream[already..]);
                assert_eq!((inbox.fault(), inbox.received(), inbox.unfinished()), (None, 3, 0));
                assert_eq!(take_all(&mut inbox), [b"a".to_vec(), large.clone(), b"b".to_vec()]);
            }
        }
    }

    #[test]
    fn what_was_taken_leaves_no_memory_behind_even_beside_what_waits() {
        let large = vec![7; 300_000];
        let mut inbox = inbox(Policy::Fixed, 10_000);
        read_into_places(&mut inbox, &[numbered(0..5000), frame(&large), frame(&large)].concat(), 60_000);
        while inbox.waiting() > 1 {
            inbox.pop();
        }
        assert!(inbox.is_spare() && inbox.memory() > 640_000);
        inbox.trim();
        assert!(!inbox.is_spare() && inbox.memory() < 320_000, "{}", inbox.memory());
        assert_eq!(take_all(&mut inbox), [large]);
        inbox.trim();
        assert_eq!(inbox.memory(), 0);
    }

    #[test]
    fn a_lossy_buffer_drops_large_ones_like_others() {
        let large = [3; 200_000];
        let mut dropping = inbox(Policy::Dropping, 1);
        read_into_places(&mut dropping, &[frame(b"a"), frame(&large), frame(b"b")].concat(), 4);
        assert_eq!((dropping.dropped(), dropping.received(), dropping.unfinished()), (2, 3, 0));
        assert_eq!(take_all(&mut dropping), [b"a".to_vec()]);
        let mut sliding = inbox(Policy::Sliding, 1);
        read_into_places(&mut sliding, &[frame(&large), frame(b"a"), frame(&large)].concat(), 4);
        assert_eq!((sliding.dropped(), sliding.received()), (2, 3));
        assert_eq!(take_all(&mut sliding), [large.to_vec()]);
        let mut closed = inbox(Policy::Fixed, 1);
        closed.feed(&frame(&large)[..150_000]);
        closed.clear();
        closed.feed(&frame(&large)[150_000..]);
        assert_eq!((closed.dropped(), closed.front(), closed.unfinished()), (1, None, 0));
    }

    #[test]
    fn what_may_stand_between_parts_is_heard_there() {
        let payload = [7; 40];
        let frames = in_parts(&payload, &[20, 30]);
        let at = 4 + 20;
        for kind in [wire::PING, wire::PONG, wire::ACK, wire::ASK, wire::MOVE, 0x40, 0x7f] {
            let mut inbox = begun(40);
            let mut between = Vec::new();
            wire::encode(kind, &[&[0; 24]], &mut between);
            inbox.feed(&[&frames[..at], &between, &frames[at..]].concat());
            assert_eq!((inbox.fault(), inbox.front()), (None, Some(&payload[..])), "{kind}");
        }
        for code in 0..7_u16 {
            let mut inbox = begun(40);
            let mut between = Vec::new();
            wire::encode_close(&Goodbye { code, words: String::new() }, &mut between);
            inbox.feed(&[&frames[..at], &between].concat());
            assert_eq!(inbox.fault().is_none(), [2, 3, 5].contains(&code), "{code}");
        }
    }

    #[test]
    fn parts_that_do_not_add_up_are_found_at_the_header_that_shows_it() {
        let part = |body: &[u8]| {
            let mut frame = Vec::new();
            wire::encode(wire::PART, &[body], &mut frame);
            frame
        };
        let first = part(&[0, 0, 0, 10, 1, 2, 3]);
        let fault = |bytes: &[u8]| {
            let mut inbox = begun(40);
            inbox.feed(bytes);
            inbox.fault().map(|fault| fault.reason)
        };
        assert_eq!(fault(&first), None);
        assert_eq!(fault(&[&first[..], &part(&[0; 8])[..4]].concat()), Some(Reason::Protocol));
        assert_eq!(fault(&[&first[..], &part(&[0; 7])[..4]].concat()), None);
        for last in [0, 6, 8, 11] {
            assert_eq!(fault(&[&first[..], &encode_header(last)].concat()), Some(Reason::Protocol), "{last}");
        }
        assert_eq!(fault(&[&first[..], &encode_header(7)].concat()), None);
        assert_eq!(fault(&part(&[])), Some(Reason::Protocol), "an empty PART");
        assert_eq!(fault(&[&first[..], &part(&[])].concat()), Some(Reason::Protocol), "an empty PART");
        for short in 1..4 {
            assert_eq!(fault(&part(&[0; 3][..short.min(3)])[..4]), Some(Reason::Protocol), "no room for the length");
        }
        assert_eq!(fault(&part(&[0, 0, 0, 2, 1, 2, 3])[..8]), Some(Reason::Protocol));
        // Nothing is kept for what only was announced.
        assert_eq!(fault(&part(&[0, 0, 0, 41, 1])[..8]), Some(Reason::TooLarge));
        assert_eq!(fault(&part(&[0x08, 0, 0, 0, 1])[..8]), Some(Reason::TooLarge));
    }

    #[test]
    fn a_break_drops_the_pieces_of_an_unfinished_message() {
        let frames = in_parts(&[7; 40], &[20, 30]);
        let mut inbox = begun(40);
        inbox.feed(&[&encode_header(1)[..], b"x", &frames[..50]].concat());
        assert!(inbox.is_assembling() && inbox.cut());
        assert_eq!((inbox.is_assembling(), inbox.unfinished(), inbox.waiting()), (false, 0, 1));
        inbox.resume_session(1 << 20);
        let mut ack = Vec::new();
        wire::encode_ack(wire::Numbers::default(), &mut ack);
        inbox.feed(&[&ack[..], &frames].concat());
        assert_eq!((inbox.fault(), inbox.waiting(), inbox.received()), (None, 2, 2));
    }

    #[test]
    fn credit_is_tested_at_the_first_part_and_paid_once() {
        let limits = Buffer { policy: Policy::Fixed, count: 9, max_bytes: 100 };
        let mut inbox = Inbox::new(limits, 1000, Protocol::Native);
        inbox.begin_session(1 << 20);
        let mut ack = Vec::new();
        wire::encode_ack(wire::Numbers::default(), &mut ack);
        inbox.feed(&ack);
        inbox.feed(&in_parts(&[7; 500], &[20, 30, 300]));
        assert_eq!((inbox.fault(), inbox.waiting(), inbox.held_cost()), (None, 1, 564));
        inbox.feed(&in_parts(&[7; 5], &[5])[..4]);
        assert!(inbox.fault().is_some(), "beyond the credit, and found at its first header");
    }
}
