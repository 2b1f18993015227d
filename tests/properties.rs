//! The buffers and the values against plain models, on whatever proptest can think of.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::time::Duration;

use netasync::proto::classic::{HARD_MAX_SIZE, HEADER, encode_header};
use netasync::proto::cost;
use netasync::proto::events::{Closed, Connected, Disconnected, Event, Reason};
use netasync::proto::halves::{Front, Opened, Receiver, Sender};
use netasync::proto::inbox::Inbox;
use netasync::proto::options::{Buffer, Options, Policy, Protocol, Settings};
use netasync::proto::outbox::{Outbox, Push};
use netasync::proto::wire::Numbers;
use proptest::prelude::*;

const POLICIES: [Policy; 3] = [Policy::Fixed, Policy::Dropping, Policy::Sliding];

fn limits() -> impl Strategy<Value = Buffer> {
    let policy = prop::sample::select(&POLICIES[..]);
    (policy, 1..8usize, prop::sample::select(vec![65, 150, 400, 1 << 20]))
        .prop_map(|(policy, count, max_bytes)| Buffer { policy, count, max_bytes })
}

fn options(buffer: Buffer) -> Options {
    let settings =
        Settings { read_buffer: buffer, write_buffer: buffer, protocol: Protocol::Classic, ..Settings::default() };
    settings.check().unwrap()
}

fn frame(payload: &[u8]) -> Vec<u8> {
    [&encode_header(payload.len())[..], payload].concat()
}

fn total(messages: &VecDeque<Vec<u8>>) -> u64 {
    messages.iter().map(|message| cost(message.len())).sum()
}

/// What a buffer is, without a byte of cleverness.
#[derive(Debug)]
struct Model {
    limits: Buffer,
    waiting: VecDeque<Vec<u8>>,
    dropped: u64,
}

impl Model {
    fn new(limits: Buffer) -> Self {
        Self { limits, waiting: VecDeque::new(), dropped: 0 }
    }

    fn has_room(&self) -> bool {
        self.limits.has_room(self.waiting.len(), total(&self.waiting))
    }
}

#[derive(Debug, Clone)]
enum Reading {
    Message(Vec<u8>),
    Heartbeat,
    Take(usize),
    /// The link breaks: an unfinished frame is forgotten.
    Break,
}

fn readings() -> impl Strategy<Value = Vec<Reading>> {
    let one = prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 1..200).prop_map(Reading::Message),
        1 => Just(Reading::Heartbeat),
        3 => (1..5usize).prop_map(Reading::Take),
        1 => Just(Reading::Break),
    ];
    prop::collection::vec(one, 0..60)
}

impl Model {
    fn receive(&mut self, message: Vec<u8>) {
        if self.limits.policy == Policy::Dropping && !self.has_room() {
            self.dropped += 1;
            return;
        }
        while self.limits.policy == Policy::Sliding && !self.waiting.is_empty() && !self.has_room() {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        self.waiting.push_back(message);
    }
}

/// The kernel's side of a fixed buffer: what was sent and does not fit yet.
fn refill(model: &mut Model, unread: &mut VecDeque<Vec<u8>>) {
    while model.limits.policy != Policy::Fixed || model.has_room() {
        let Some(message) = unread.pop_front() else {
            return;
        };
        model.receive(message);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    #[test]
    fn an_inbox_is_a_plain_queue_however_its_bytes_are_cut(
        limits in limits(),
        readings in readings(),
        cuts in prop::collection::vec(1..300usize, 1..20),
    ) {
        let mut inbox = Inbox::new(limits, HARD_MAX_SIZE, Protocol::Classic);
        let mut model = Model::new(limits);
        let (mut unread, mut sent) = (VecDeque::new(), 0);
        let mut cuts = cuts.iter().cycle();
        for reading in readings {
            match reading {
                Reading::Message(payload) => {
                    let bytes = frame(&payload);
                    for part in bytes.chunks(*cuts.next().unwrap()) {
                        inbox.feed(part);
                    }
                    sent += 1;
                    unread.push_back(payload);
                    refill(&mut model, &mut unread);
                }
                Reading::Heartbeat => drop(inbox.feed(&[0; HEADER])),
                Reading::Take(count) => {
                    for _ in 0..count {
                        prop_assert_eq!(inbox.front(), model.waiting.front().map(Vec::as_slice));
                        inbox.pop();
                        model.waiting.pop_front();
                        refill(&mut model, &mut unread);
                    }
                }
                Reading::Break => {
                    inbox.feed(&frame(&[1; 50])[..30]);
                    prop_assert!(inbox.cut());
                    model.waiting.extend(unread.drain(..));
                }
            }
            prop_assert_eq!(inbox.waiting(), model.waiting.len());
            prop_assert_eq!(inbox.dropped(), model.dropped);
            prop_assert_eq!(inbox.received() + unread.len() as u64, sent);
            let (first, next) = inbox.numbers();
            prop_assert_eq!(next - first, model.waiting.len() as u64);
        }
        while let Some(front) = inbox.front().map(<[u8]>::to_vec) {
            prop_assert_eq!(Some(front), model.waiting.pop_front());
            inbox.pop();
            refill(&mut model, &mut unread);
        }
        prop_assert!(model.waiting.is_empty());
    }
}

#[derive(Debug, Clone)]
enum Writing {
    Send(Vec<u8>),
    /// The kernel takes this much.
    Write(usize),
    Break,
}

fn writings() -> impl Strategy<Value = Vec<Writing>> {
    let one = prop_oneof![
        6 => prop::collection::vec(1..=255u8, 1..200).prop_map(Writing::Send),
        4 => (1..400usize).prop_map(Writing::Write),
        1 => Just(Writing::Break),
    ];
    prop::collection::vec(one, 0..80)
}

/// What a peer makes of the bytes that one link carried.
fn parse(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some(header) = bytes.first_chunk::<HEADER>() {
        let length = usize::try_from(u32::from_be_bytes(*header)).unwrap();
        let Some(payload) = bytes.get(HEADER..HEADER + length) else {
            break;
        };
        if length > 0 {
            messages.push(payload.to_vec());
        }
        bytes = &bytes[HEADER + length..];
    }
    messages
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    #[test]
    fn an_outbox_is_a_plain_queue_whatever_the_kernel_takes(
        limits in limits(),
        writings in writings(),
    ) {
        let mut outbox = Outbox::new(limits, Protocol::Classic);
        let mut model = Model::new(limits);
        let mut begun: Option<Vec<u8>> = None;
        let (mut accepted, mut confirmed) = (0, Vec::new());
        let (mut wire, mut arrived) = (Vec::new(), Vec::new());
        for writing in writings {
            match writing {
                Writing::Send(payload) => {
                    let push = outbox.push(&payload);
                    // A begun message counts for bytes and not for the count.
                    let beside = outbox.rest().len();
                    let is_exact = beside == 0;
                    if is_exact {
                        let expected = match limits.policy {
                            _ if model.has_room() => Push::Accepted,
                            Policy::Fixed => Push::Full,
                            Policy::Dropping => Push::Refused,
                            Policy::Sliding => Push::Accepted,
                        };
                        prop_assert_eq!(push, expected);
                    }
                    accepted += u64::from(push != Push::Full);
                    match push {
                        Push::Full => {}
                        Push::Refused => model.dropped += 1,
                        Push::Accepted => {
                            while outbox.dropped() > model.dropped {
                                prop_assert_eq!(limits.policy, Policy::Sliding);
                                prop_assert!(model.waiting.pop_front().is_some());
                                model.dropped += 1;
                            }
                            model.waiting.push_back(payload);
                        }
                    }
                }
                Writing::Write(most) => {
                    let unsent = unsent(&outbox);
                    let taken = most.min(unsent.len());
                    wire.extend_from_slice(&unsent[..taken]);
                    outbox.wrote(taken);
                }
                Writing::Break => {
                    outbox.rewind();
                    arrived.extend(parse(&wire));
                    wire.clear();
                }
            }
            // What the peer has whole is what is confirmed, and the oldest of what waits is begun.
            let whole: Vec<Vec<u8>> = arrived.iter().cloned().chain(parse(&wire)).collect();
            while confirmed.len() < whole.len() {
                let next = begun.take().or_else(|| model.waiting.pop_front());
                confirmed.push(next.unwrap());
            }
            prop_assert_eq!(&whole, &confirmed);
            let queued = usize::try_from(outbox.queued()).unwrap();
            if begun.is_none() && queued == model.waiting.len() && has_begun(&outbox) {
                begun = model.waiting.pop_front();
            }
            prop_assert_eq!(queued, model.waiting.len() + usize::from(begun.is_some()));
            prop_assert_eq!(outbox.confirmed(), confirmed.len() as u64);
            prop_assert_eq!(outbox.accepted(), accepted);
            prop_assert_eq!(
                accepted,
                outbox.confirmed() + outbox.queued() + outbox.dropped()
            );
            prop_assert_eq!(unsent(&outbox).len(), outbox.unsent_bytes());
        }
    }

    #[test]
    fn a_flush_waits_for_everything_before_it(limits in limits(), writings in writings()) {
        let mut sender = Sender::new(&options(limits), Duration::ZERO);
        // The number of each message that is still here, the begun one first.
        let mut numbers: VecDeque<u64> = VecDeque::new();
        for writing in writings {
            let before = sender.queued();
            match writing {
                Writing::Send(payload) => {
                    let number = sender.entered();
                    if sender.push(&payload) == Push::Accepted {
                        sender.compose(Numbers::default());
                        let is_begun = usize::from(!sender.parts()[0].is_empty());
                        while numbers.len() as u64 + 1 > sender.queued() {
                            numbers.remove(is_begun.min(numbers.len() - 1));
                        }
                        numbers.push_back(number);
                    }
                }
                Writing::Write(most) => {
                    sender.compose(Numbers::default());
                    sender.wrote(most.min(sender.unsent_bytes()), Duration::ZERO);
                    for _ in sender.queued()..before {
                        numbers.pop_front();
                    }
                }
                Writing::Break => break,
            }
            for mark in 0..=sender.entered() {
                let waits = numbers.iter().any(|number| *number < mark);
                prop_assert_eq!(sender.is_flushed(mark), !waits);
            }
        }
    }
}

/// A part of the message at the front is written, or was before the last break.
fn has_begun(outbox: &Outbox) -> bool {
    !outbox.rest().is_empty()
}

fn unsent(outbox: &Outbox) -> Vec<u8> {
    [outbox.rest(), outbox.waiting(outbox.waiting_bytes())].concat()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happening {
    Message,
    LinkUp,
    LinkDown,
    Attempt,
    Take,
    End,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        4 => Just(Happening::Message),
        3 => Just(Happening::LinkUp),
        3 => Just(Happening::LinkDown),
        1 => Just(Happening::Attempt),
        3 => Just(Happening::Take),
        1 => Just(Happening::End),
    ];
    prop::collection::vec(one, 0..120)
}

/// `D? (C M* D)* (C M* D?)? X` as a state: whether a link is shown as up, and whether it may begin.
#[derive(Debug, Default)]
struct Grammar {
    is_up: bool,
    has_begun: bool,
    is_over: bool,
}

impl Grammar {
    fn allows(&mut self, front: &Front<'_>) -> bool {
        let is_legal = !self.is_over
            && match front {
                Front::Message(_) => self.is_up,
                Front::Event(Event::Connected(_)) => !self.is_up,
                Front::Event(Event::Disconnected(_)) => self.is_up || !self.has_begun,
                Front::Event(Event::Closed(_)) => true,
            };
        match front {
            Front::Event(Event::Connected(_)) => self.is_up = true,
            Front::Event(Event::Disconnected(_)) => self.is_up = false,
            Front::Event(Event::Closed(_)) => self.is_over = true,
            Front::Message(_) => {}
        }
        self.has_begun = true;
        is_legal
    }
}

fn connected(lost: u64) -> Event {
    Event::Connected(Connected { resumed: true, redelivered: 0, lost, attempt: 1, peer: String::new() })
}

fn disconnected() -> Event {
    Event::Disconnected(Disconnected {
        reason: Reason::Eof,
        detail: String::new(),
        attempt: 0,
        retry_in: None,
        unconfirmed: 0,
    })
}

fn over() -> Event {
    Event::Closed(Closed { reason: Reason::ClosedHere, detail: String::new(), undelivered: 0 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    #[test]
    fn values_keep_their_grammar_and_their_sums_whoever_reads_when(
        limits in limits(),
        happenings in happenings(),
    ) {
        let options = options(limits);
        let mut receiver = Receiver::new(&options, Duration::ZERO);
        let mut grammar = Grammar::default();
        let (mut is_up, mut has_ended) = (false, false);
        let (mut lost, mut lost_seen) = (0, 0);
        let mut take = |receiver: &mut Receiver, lost_seen: &mut u64| {
            if grammar.is_over {
                return Ok(false);
            }
            let Some(front) = receiver.front() else {
                return Ok(false);
            };
            if let Front::Event(Event::Connected(connected)) = &front {
                *lost_seen += connected.lost;
            }
            prop_assert!(grammar.allows(&front), "{front:?} in {grammar:?}");
            receiver.pop();
            Ok(true)
        };
        for happening in happenings {
            match happening {
                Happening::Message if is_up && !has_ended => {
                    receiver.feed(&frame(b"message"), Numbers::default(), Duration::ZERO);
                }
                Happening::LinkUp if !is_up && !has_ended => {
                    is_up = true;
                    lost += 1;
                    receiver.link_up(&options, Opened { agreement: None, first_by: None, now: Duration::ZERO });
                    receiver.push_event(connected(1));
                }
                Happening::LinkDown if is_up && !has_ended => {
                    is_up = false;
                    receiver.link_down();
                    receiver.push_event(disconnected());
                }
                Happening::Attempt if !is_up && !has_ended => {
                    receiver.push_event(disconnected());
                }
                Happening::End if !has_ended => {
                    has_ended = true;
                    receiver.link_down();
                    receiver.push_event(over());
                }
                Happening::Take => drop(take(&mut receiver, &mut lost_seen)?),
                _ => {}
            }
            let waiting = usize::from(receiver.has_message()) * limits.count.max(200);
            prop_assert!(receiver.ready() <= 7 + 8 * waiting);
        }
        while take(&mut receiver, &mut lost_seen)? {}
        prop_assert_eq!(lost_seen, lost, "merging adds up and drops nothing");
    }
}
