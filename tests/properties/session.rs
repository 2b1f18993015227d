//! Our own wire's numbers: what may be begun, what is kept until it is confirmed, and that both sides,
//! however late each hears of the other, agree on them.

use std::collections::VecDeque;
use std::time::Duration;

use netasync::proto::classic::HEADER;
use netasync::proto::cost;
use netasync::proto::hello::Agreement;
use netasync::proto::options::{Buffer, Policy, Protocol};
use netasync::proto::outbox::{Outbox, Push};
use netasync::proto::session::{Heard, Incoming, Outgoing};
use netasync::proto::wire::Numbers;
use proptest::prelude::*;

use crate::{limits, parse};

fn agreement(credit: u64, max_messages: u64, max_size: usize) -> Agreement {
    let heartbeat_timeout = Duration::from_secs(1);
    Agreement { session: [1; 16], credit, max_messages, hold: 1 << 20, max_size, heartbeat_timeout }
}

#[derive(Debug, Clone)]
enum Sending {
    Send(usize),
    /// The kernel takes so many bytes of what may go.
    Write(usize),
    /// The peer took so many more messages, and grants so much more.
    Confirm(u64, u64),
    /// The peer confirms what was never sent.
    Overstate(u64),
    /// The link breaks, and another session begins.
    Session(u64, u64, usize),
}

fn sendings() -> impl Strategy<Value = Vec<Sending>> {
    let one = prop_oneof![
        6 => (0..200usize).prop_map(Sending::Send),
        5 => (1..600usize).prop_map(Sending::Write),
        4 => (0..5u64, 0..600u64).prop_map(|(more, credit)| Sending::Confirm(more, credit)),
        1 => (1..9u64).prop_map(Sending::Overstate),
        1 => (0..900u64, 1..6u64, 20..200usize).prop_map(|(credit, count, size)| Sending::Session(credit, count, size)),
    ];
    prop::collection::vec(one, 0..100)
}

/// What the outbox must do, message by message.
struct Plain {
    limits: Buffer,
    credit: u64,
    max_messages: u64,
    /// Begun in this session, the first so many of them confirmed.
    begun: Vec<Vec<u8>>,
    confirmed: usize,
    waiting: VecDeque<Vec<u8>>,
    /// Bytes of this session's frames that the kernel has taken.
    written: usize,
    lost: u64,
    dropped: u64,
    before: u64,
}

fn costs(messages: &[Vec<u8>]) -> u64 {
    messages.iter().map(|message| cost(message.len())).sum()
}

fn length(messages: &[Vec<u8>]) -> usize {
    messages.iter().map(|message| HEADER + message.len()).sum()
}

impl Plain {
    fn new(limits: Buffer) -> Self {
        Self {
            limits,
            credit: 0,
            max_messages: 0,
            begun: Vec::new(),
            confirmed: 0,
            waiting: VecDeque::new(),
            written: 0,
            lost: 0,
            dropped: 0,
            before: 0,
        }
    }

    fn may_begin(&self) -> bool {
        let unconfirmed = &self.begun[self.confirmed..];
        costs(&self.begun) < self.credit
            && (unconfirmed.len() as u64) < self.max_messages
            && costs(unconfirmed) < self.limits.max_bytes
    }

    /// Bytes that may be written now: the rest of a frame, and what may be begun.
    fn writable(&self) -> usize {
        let mut ahead = Self { begun: self.begun.clone(), waiting: self.waiting.clone(), ..Self::new(self.limits) };
        (ahead.credit, ahead.max_messages, ahead.confirmed) = (self.credit, self.max_messages, self.confirmed);
        while ahead.may_begin() && !ahead.waiting.is_empty() {
            let next = ahead.waiting.pop_front().unwrap();
            ahead.begun.push(next);
        }
        length(&ahead.begun) - self.written
    }

    fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        while length(&self.begun) < self.written {
            let next = self.waiting.pop_front().unwrap();
            self.begun.push(next);
        }
    }

    fn whole(&self) -> usize {
        self.begun.len() - usize::from(self.written < length(&self.begun))
    }

    fn begin_session(&mut self, agreement: &Agreement) -> u64 {
        let before = self.waiting.len();
        self.waiting.retain(|message| message.len() <= agreement.max_size);
        let lost = (self.begun.len() - self.confirmed + before - self.waiting.len()) as u64;
        self.before += self.confirmed as u64;
        self.lost += lost;
        (self.credit, self.max_messages) = (agreement.credit, agreement.max_messages);
        (self.begun, self.confirmed, self.written) = (Vec::new(), 0, 0);
        lost
    }

    fn push(&mut self, payload: Vec<u8>) -> Push {
        let has_room = |plain: &Self| {
            let cost = plain.waiting.iter().map(|message| cost(message.len())).sum();
            plain.limits.has_room(plain.waiting.len(), cost)
        };
        match self.limits.policy {
            _ if has_room(self) => {}
            Policy::Fixed => return Push::Full,
            Policy::Dropping => {
                self.dropped += 1;
                return Push::Refused;
            }
            Policy::Sliding => {
                while !has_room(self) && self.waiting.pop_front().is_some() {
                    self.dropped += 1;
                }
            }
        }
        self.waiting.push_back(payload);
        Push::Accepted
    }
}

/// As the sending half does it: the rest of a frame first, then what may be begun.
fn composed(outbox: &Outbox) -> Vec<u8> {
    [outbox.rest(), outbox.waiting(outbox.beginnable_bytes())].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    #[test]
    fn what_is_begun_is_kept_until_it_is_confirmed_or_counted_as_lost(
        limits in limits(),
        sendings in sendings(),
    ) {
        let mut outbox = Outbox::new(limits, Protocol::Native);
        let mut plain = Plain::new(limits);
        let (mut wire, mut accepted, mut number) = (Vec::new(), 0, 0_u8);
        for sending in sendings {
            match sending {
                Sending::Send(size) => {
                    number = number.wrapping_add(1);
                    let payload = vec![number; size];
                    let push = outbox.push(&payload);
                    accepted += u64::from(push != Push::Full);
                    prop_assert_eq!(push, plain.push(payload));
                }
                Sending::Write(most) => {
                    let bytes = composed(&outbox);
                    prop_assert_eq!(bytes.len(), plain.writable());
                    let taken = most.min(bytes.len());
                    wire.extend_from_slice(&bytes[..taken]);
                    outbox.wrote(taken);
                    plain.wrote(taken);
                }
                Sending::Confirm(more, credit) => {
                    plain.confirmed = (plain.confirmed + more as usize).min(plain.whole());
                    plain.credit += credit;
                    prop_assert!(outbox.confirm(plain.confirmed as u64, plain.credit).is_ok());
                }
                Sending::Overstate(more) => {
                    let lie = outbox.confirm(plain.whole() as u64 + more, plain.credit);
                    prop_assert!(lie.is_err());
                }
                Sending::Session(credit, count, max_size) => {
                    outbox.rewind();
                    let agreement = agreement(credit, count, max_size);
                    prop_assert_eq!(outbox.begin_session(&agreement), plain.begin_session(&agreement));
                    wire.clear();
                }
            }
            prop_assert_eq!(parse(&wire), &plain.begun[..plain.whole()], "in order, each once");
            prop_assert_eq!(outbox.unconfirmed(), (plain.begun.len() - plain.confirmed) as u64);
            prop_assert_eq!(outbox.queued(), plain.waiting.len() as u64);
            prop_assert_eq!(outbox.confirmed(), plain.before + plain.confirmed as u64);
            prop_assert_eq!((outbox.lost(), outbox.dropped()), (plain.lost, plain.dropped));
            let all = outbox.confirmed() + outbox.unconfirmed() + outbox.queued() + outbox.dropped() + outbox.lost();
            prop_assert_eq!((outbox.accepted(), all), (accepted, accepted));
            prop_assert_eq!(outbox.may_begin(), plain.may_begin());
            prop_assert_eq!(outbox.held_bytes(), length(&plain.begun[plain.confirmed..]) + waiting(&plain));
        }
    }
}

fn waiting(plain: &Plain) -> usize {
    plain.waiting.iter().map(|message| HEADER + message.len()).sum()
}

#[derive(Debug, Clone, Copy)]
enum Moved {
    /// One side begins a message of this cost, if it may.
    Begin(u64),
    /// It arrives.
    Arrive,
    Take,
    /// What is told goes on its way, and what is on its way is heard.
    Tell,
    Hear,
    Ask,
    PeerCloses,
    WeClose,
}

fn moves() -> impl Strategy<Value = Vec<Moved>> {
    let one = prop_oneof![
        8 => (64..400u64).prop_map(Moved::Begin),
        8 => Just(Moved::Arrive),
        6 => Just(Moved::Take),
        4 => Just(Moved::Tell),
        4 => Just(Moved::Hear),
        1 => Just(Moved::Ask),
    ];
    let last = prop::sample::select(vec![Moved::Take, Moved::PeerCloses, Moved::WeClose]);
    (prop::collection::vec(one, 0..150), last, prop::collection::vec(prop::sample::select(AFTER), 0..20))
        .prop_map(|(moves, last, after)| moves.into_iter().chain([last]).chain(after).collect())
}

/// What may still happen behind a goodbye.
const AFTER: &[Moved] = &[Moved::Take, Moved::Tell, Moved::Hear];

/// The numbers of one direction, both sides, with what is on its way between them.
struct Pair {
    outgoing: Outgoing,
    incoming: Incoming,
    heard: Heard,
    announced: Numbers,
    flying: VecDeque<u64>,
    telling: VecDeque<Numbers>,
    unconfirmed: VecDeque<u64>,
    /// What lies in the inbox, those of an older session first.
    inbox: VecDeque<u64>,
    older: usize,
    taken: u64,
    received: u64,
}

impl Pair {
    fn new(window: Buffer, hold: u64, older: &[u64]) -> Self {
        let mut incoming = Incoming::new(window);
        let waiting: u64 = older.iter().sum();
        incoming.begin(hold, older.len(), waiting);
        let announced = incoming.numbers();
        let max_messages = if window.is_lossy() { u64::MAX } else { window.count as u64 };
        let mut outgoing = Outgoing::default();
        outgoing.begin_session(&agreement(announced.credit, max_messages, 1 << 20), hold);
        let mut heard = Heard::default();
        heard.begin(announced.credit);
        Self {
            outgoing,
            incoming,
            heard,
            announced,
            flying: VecDeque::new(),
            telling: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            inbox: older.iter().copied().collect(),
            older: older.len(),
            taken: 0,
            received: 0,
        }
    }

    fn begin(&mut self, cost: u64) {
        if self.outgoing.may_begin() {
            self.outgoing.begin(cost);
            self.flying.push_back(cost);
            self.unconfirmed.push_back(cost);
        }
    }

    fn arrive(&mut self) -> Result<(), TestCaseError> {
        if let Some(cost) = self.flying.pop_front() {
            self.incoming.told(self.announced);
            prop_assert_eq!(self.incoming.admit(), Ok(()), "an honest sender is never accused");
            self.incoming.receive(cost);
            self.inbox.push_back(cost);
            self.received += 1;
        }
        Ok(())
    }

    fn take(&mut self) {
        if let Some(cost) = self.inbox.pop_front() {
            self.incoming.leave(cost, true);
            match self.older {
                0 => self.taken += 1,
                _ => self.older -= 1,
            }
        }
    }

    fn tell(&mut self) {
        self.announced = self.incoming.numbers();
        self.incoming.told(self.announced);
        self.telling.push_back(self.announced);
    }

    fn hear(&mut self) -> Result<(), TestCaseError> {
        if let Some(numbers) = self.telling.pop_front() {
            prop_assert!(self.heard.hear(numbers).is_ok(), "numbers never go backwards");
            prop_assert!(numbers.consumed <= self.received, "nothing is consumed that was not received");
            while self.outgoing.confirmed() < numbers.consumed {
                self.outgoing.confirm(self.unconfirmed.pop_front().unwrap());
            }
            self.outgoing.grant(numbers.credit);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    #[test]
    fn both_sides_agree_on_every_number_however_late_they_hear(
        window in limits(),
        hold in prop::sample::select(vec![1, 100, 700, 1 << 20]),
        older in prop::collection::vec(64..300u64, 0..4),
        moves in moves(),
    ) {
        let mut pair = Pair::new(window, hold, &older);
        let mut has_closed = false;
        for moved in moves {
            match moved {
                Moved::Begin(cost) => pair.begin(cost),
                Moved::Arrive => pair.arrive()?,
                Moved::Take => pair.take(),
                Moved::Tell => pair.tell(),
                Moved::Hear => pair.hear()?,
                Moved::Ask => pair.incoming.ask(),
                Moved::PeerCloses => {
                    while !pair.flying.is_empty() {
                        pair.arrive()?;
                    }
                    pair.incoming.consume_all();
                    has_closed = true;
                    prop_assert_eq!(pair.incoming.numbers().consumed, pair.received, "who answers delivers");
                }
                Moved::WeClose => {
                    pair.incoming.freeze();
                    has_closed = true;
                }
            }
            let numbers = pair.incoming.numbers();
            prop_assert!(numbers.consumed <= pair.received);
            if !has_closed {
                let counted = if window.is_lossy() { pair.received } else { pair.taken };
                prop_assert_eq!(numbers.consumed, counted);
                let lies_there: u64 = pair.inbox.iter().sum();
                let bound = window.max_bytes.max(older.iter().sum()) + 400;
                prop_assert!(window.is_lossy() || lies_there < bound, "{lies_there} in {window:?}");
            }
        }
        if !has_closed {
            nobody_waits_for_ever(&mut pair)?;
        }
    }
}

/// Everything arrives and is taken, and is told only when it must be: then there is room for more.
fn nobody_waits_for_ever(pair: &mut Pair) -> Result<(), TestCaseError> {
    while !pair.flying.is_empty() {
        pair.arrive()?;
    }
    while !pair.inbox.is_empty() {
        pair.take();
    }
    pair.incoming.told(pair.announced);
    let is_told_at_once = pair.incoming.must_tell();
    pair.incoming.note_untold(|| Duration::ZERO);
    if is_told_at_once || pair.incoming.tell_deadline().is_some() {
        pair.tell();
    }
    while !pair.telling.is_empty() {
        pair.hear()?;
    }
    prop_assert!(pair.outgoing.may_begin(), "the window opens again");
    prop_assert_eq!(pair.outgoing.confirmed(), pair.outgoing.begun());
    Ok(())
}
