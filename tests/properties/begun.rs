//! The outbox on our wire: what is begun is kept until it is confirmed, message by message.

use std::collections::VecDeque;

use netasync::proto::classic::HEADER;
use netasync::proto::cost;
use netasync::proto::hello::Agreement;
use netasync::proto::options::{Buffer, OnNewSession, Policy, Protocol};
use netasync::proto::outbox::{Outbox, Push};
use proptest::prelude::*;

use crate::{agreement, limits, parse};

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
    [outbox.rest(), outbox.next(outbox.plan().0)].concat()
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
                    let carried = outbox.begin_session(&agreement, OnNewSession::Discard);
                    prop_assert_eq!((carried.redelivered, carried.lost), (0, plain.begin_session(&agreement)));
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
