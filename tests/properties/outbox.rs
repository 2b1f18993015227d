//! The outbox on the original's wire is a plain queue, of which only the front may be half gone.

use std::collections::VecDeque;
use std::time::Duration;

use netasync::proto::halves::Sender;
use netasync::proto::options::{Policy, Protocol};
use netasync::proto::outbox::{Outbox, Push};
use netasync::proto::wire::Numbers;
use proptest::prelude::*;

use crate::{Model, limits, options, parse};

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
                        Push::NoMemory => panic!("there is memory"),
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
    [outbox.rest(), outbox.next(outbox.unbegun_bytes())].concat()
}
