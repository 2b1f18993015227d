//! The outbox over breaks: what goes out on each link, message by message, whatever the peer had received.

use std::collections::VecDeque;

use netasync::proto::classic::HEADER;
use netasync::proto::hello::Agreement;
use netasync::proto::options::{Buffer, OnNewSession, Policy, Protocol};
use netasync::proto::outbox::{Outbox, Push};
use netasync::proto::wire::{self, Frame};
use proptest::prelude::*;

use crate::agreement;

#[derive(Debug, Clone)]
enum Move {
    Send(usize),
    Write(usize),
    /// The peer has taken so many more of what it received.
    Confirm(u64),
    /// The link breaks; the peer had lost so many of the last that were written.
    Resume(u64),
    /// The link breaks, and the session is gone.
    Anew(OnNewSession, usize),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let choice = prop::sample::select(vec![OnNewSession::Redeliver, OnNewSession::Discard]);
    let one = prop_oneof![
        6 => (0..300usize).prop_map(Move::Send),
        6 => (1..500usize).prop_map(Move::Write),
        3 => (0..4u64).prop_map(Move::Confirm),
        3 => (0..4u64).prop_map(Move::Resume),
        1 => (choice, 100..400usize).prop_map(|(choice, size)| Move::Anew(choice, size)),
    ];
    prop::collection::vec(one, 0..120)
}

/// What must be true, kept as plain lists.
#[derive(Default)]
struct Plain {
    /// Begun once and not confirmed, the first of them message `confirmed` of the session.
    kept: VecDeque<Vec<u8>>,
    waiting: VecDeque<Vec<u8>>,
    confirmed: u64,
    /// Messages of the session that this link need not carry any more, those that it has carried whole included.
    whole: u64,
    /// Some of the next one is out.
    is_partial: bool,
}

impl Plain {
    /// The link has carried these since, in order.
    fn carried(&mut self, messages: &[Vec<u8>], is_partial: bool) -> Result<(), TestCaseError> {
        for message in messages {
            self.begin()?;
            let at = usize::try_from(self.whole - self.confirmed).unwrap();
            prop_assert_eq!(message, &self.kept[at], "each in its turn");
            self.whole += 1;
        }
        self.is_partial = is_partial;
        if is_partial {
            self.begin()?;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), TestCaseError> {
        if self.kept.len() as u64 == self.whole - self.confirmed {
            let next = self.waiting.pop_front();
            prop_assert!(next.is_some(), "nothing goes out that nobody sent");
            self.kept.extend(next);
        }
        Ok(())
    }
}

/// The whole messages in the bytes of one link, and whether more than them is there.
fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let (mut messages, mut parts, mut at, mut end) = (Vec::new(), Vec::new(), 0, 0);
    while let Ok(Some(frame)) = wire::header(&bytes[at..], 1 << 20) {
        let (Frame::Message(length) | Frame::Control { length, .. }) = frame;
        let Some(body) = bytes.get(at + HEADER..at + HEADER + length) else { break };
        let is_first = parts.is_empty();
        at += HEADER + length;
        match frame {
            Frame::Message(_) => {
                parts.extend_from_slice(body);
                // A message in PARTs is one if they say what they hold.
                messages.push(std::mem::take(&mut parts));
                end = at;
            }
            Frame::Control { .. } => parts.extend_from_slice(&body[if is_first { HEADER } else { 0 }..]),
        }
    }
    (messages, end < bytes.len())
}

fn resumed(received: u64) -> Agreement {
    Agreement { received, is_resumed: true, ..agreement(1 << 40, 1 << 30, 1 << 20) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn each_link_carries_what_the_peer_lacks_in_order_and_nothing_else(
        moves in moves(),
        part in prop::sample::select(vec![1 << 18, 60, 9]),
    ) {
        let limits = Buffer { policy: Policy::Fixed, count: 1000, max_bytes: 1 << 30 };
        let mut outbox = Outbox::new(limits, Protocol::Native);
        outbox.set_part(part);
        outbox.begin_session(&resumed(0), OnNewSession::Redeliver);
        let (mut plain, mut wire, mut seen, mut number) = (Plain::default(), Vec::new(), 0, 0_u8);
        for step in moves {
            match step {
                Move::Send(size) => {
                    number = number.wrapping_add(1);
                    let payload = vec![number; size];
                    prop_assert_eq!(outbox.push(&payload), Push::Accepted);
                    plain.waiting.push_back(payload);
                }
                Move::Write(most) => {
                    let bytes = [outbox.rest(), outbox.next(outbox.plan().0)].concat();
                    let taken = most.min(bytes.len());
                    prop_assert!(taken > 0 || outbox.is_empty());
                    wire.extend_from_slice(&bytes[..taken]);
                    outbox.wrote(taken);
                    let (messages, is_partial) = read(&wire);
                    plain.carried(&messages[seen..], is_partial)?;
                    seen = messages.len();
                }
                Move::Confirm(more) => {
                    let confirmed = (plain.confirmed + more).min(plain.whole);
                    prop_assert!(outbox.confirm(confirmed, 1 << 40).is_ok());
                    prop_assert!(outbox.confirm(plain.whole + 1, 1 << 40).is_err());
                    plain.kept.drain(..usize::try_from(confirmed - plain.confirmed).unwrap());
                    plain.confirmed = confirmed;
                }
                Move::Resume(lost) => {
                    outbox.rewind();
                    plain.whole = plain.whole.saturating_sub(lost).max(plain.confirmed);
                    outbox.resume(&resumed(plain.whole));
                    (plain.is_partial, seen) = (false, 0);
                    wire.clear();
                }
                Move::Anew(choice, max_size) => {
                    outbox.rewind();
                    let before = plain.kept.len() + plain.waiting.len();
                    if choice == OnNewSession::Discard {
                        plain.kept.clear();
                    }
                    plain.kept.retain(|message| message.len() <= max_size);
                    plain.waiting.retain(|message| message.len() <= max_size);
                    let carried = outbox.begin_session(&agreement(1 << 40, 1 << 30, max_size), choice);
                    prop_assert_eq!(carried.redelivered, plain.kept.len() as u64);
                    prop_assert_eq!(carried.lost, (before - plain.kept.len() - plain.waiting.len()) as u64);
                    (plain.confirmed, plain.whole, plain.is_partial, seen) = (0, 0, false, 0);
                    wire.clear();
                }
            }
            prop_assert_eq!(outbox.unconfirmed(), plain.kept.len() as u64);
            prop_assert_eq!(outbox.queued(), plain.waiting.len() as u64);
            let all = outbox.confirmed() + outbox.unconfirmed() + outbox.queued() + outbox.dropped() + outbox.lost();
            prop_assert_eq!(outbox.accepted(), all);
        }
    }
}
