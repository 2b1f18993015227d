//! The two ends' programs: how fast they take, what they send, and what they saw.

use std::time::Duration;

use netasync::proto::Moment;
use netasync::proto::events::Event;
use netasync::proto::halves::{Front, Receiver};

use crate::grammar::Seen;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    Eager,
    Every { period: Duration, count: usize },
    Absent,
}

#[derive(Debug, Clone, Copy)]
pub struct Writing {
    pub period: Duration,
    pub burst: u32,
    /// The longest filler behind the eight bytes that identify a message.
    pub longest: usize,
    pub left: u32,
}

impl Writing {
    pub const NOTHING: Self = Self { period: Duration::from_secs(1), burst: 1, longest: 0, left: 0 };
}

pub struct Application {
    pub reading: Reading,
    pub writing: Writing,
    /// Answers each message with one of its own.
    pub echoes: bool,
    /// Answers that it owes.
    pub owed: u32,
    pub next_read: Moment,
    pub next_write: Moment,
    pub seen: Vec<Seen>,
    pub is_over: bool,
    /// The number of the next message that it sends.
    pub number: u32,
    /// Numbers for which `send` said True, in order.
    pub accepted: Vec<u32>,
    /// Messages taken.
    pub taken: u64,
    /// What the values said was lost, and what goes again.
    pub lost: u64,
    pub redelivered: u64,
    /// Values that said the session goes on.
    pub resumed: u64,
}

impl Application {
    pub fn new(reading: Reading, writing: Writing, echoes: bool) -> Self {
        Self {
            reading,
            writing,
            echoes,
            owed: 0,
            next_read: Moment::ZERO,
            next_write: Moment::ZERO,
            seen: Vec::new(),
            is_over: false,
            number: 0,
            accepted: Vec::new(),
            taken: 0,
            lost: 0,
            redelivered: 0,
            resumed: 0,
        }
    }

    /// Takes what its pace allows; returns how many items it took.
    pub fn take(&mut self, receiver: &mut Receiver, now: Moment) -> usize {
        let limit = match self.reading {
            Reading::Eager => usize::MAX,
            Reading::Every { period, count } if now >= self.next_read && receiver.ready() > 0 => {
                self.next_read = now + period;
                count
            }
            Reading::Every { .. } | Reading::Absent => 0,
        };
        let mut taken = 0;
        while taken < limit && !self.is_over && self.take_one(receiver) {
            taken += 1;
        }
        taken
    }

    fn take_one(&mut self, receiver: &mut Receiver) -> bool {
        let ready = receiver.ready();
        let item = match receiver.front() {
            None => {
                assert_eq!(ready, 0, "ready counts what can be taken");
                return false;
            }
            Some(Front::Message(payload)) => {
                self.owed += u32::from(self.echoes);
                self.taken += 1;
                decode(payload)
            }
            Some(Front::Event(Event::Connected(connected))) => {
                self.lost += connected.lost;
                self.redelivered += connected.redelivered;
                self.resumed += u64::from(connected.resumed);
                Seen::Connected
            }
            Some(Front::Event(Event::Disconnected(down))) => Seen::Disconnected(down.reason),
            Some(Front::Event(Event::Closed(closed))) => {
                self.is_over = true;
                Seen::Closed { reason: closed.reason, undelivered: closed.undelivered }
            }
        };
        self.seen.push(item);
        receiver.pop();
        let is_closed = usize::from(self.is_over);
        // Room for one message may bring a further one, parsed from bytes that are there already.
        assert!(receiver.ready() + 1 >= ready + is_closed, "each item counts once, and Closed stays");
        true
    }

    /// How many messages it wants to send now.
    pub fn due(&self, now: Moment) -> u32 {
        let burst = if now >= self.next_write { self.writing.burst.min(self.writing.left) } else { 0 };
        self.owed + burst
    }

    /// When it will want to do something, if nothing happens before.
    pub fn next(&self, ready: usize) -> Option<Moment> {
        let read = match self.reading {
            Reading::Every { .. } if ready > 0 && !self.is_over => Some(self.next_read),
            _ => None,
        };
        let write = (self.writing.left > 0).then_some(self.next_write);
        read.into_iter().chain(write).min()
    }
}

/// A message that knows who sent it and which one it is; its filler follows from that.
pub fn encode(stream: u32, number: u32, longest: usize) -> Vec<u8> {
    let mut payload = Vec::with_capacity(8 + longest);
    payload.extend(stream.to_be_bytes());
    payload.extend(number.to_be_bytes());
    let mixed = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let length = usize::try_from(mixed).unwrap() % (longest + 1);
    payload.extend((0..length).map(|at| filler(stream, number, at)));
    payload
}

/// Which handle wrote it, and the how manyth it is.
pub fn identify(payload: &[u8]) -> (u32, u32) {
    let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
    (word(0), word(4))
}

fn decode(payload: &[u8]) -> Seen {
    let (stream, number) = identify(payload);
    for (at, byte) in payload[8..].iter().enumerate() {
        assert_eq!(*byte, filler(stream, number, at), "a message arrives as it was sent");
    }
    Seen::Message { stream, number }
}

fn filler(stream: u32, number: u32, at: usize) -> u8 {
    let mixed = u64::from(stream) * 31 + u64::from(number) * 7 + at as u64;
    u8::try_from(mixed % 251).unwrap()
}
