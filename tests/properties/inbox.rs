//! The inbox is a plain queue.

use std::collections::VecDeque;

use netasync::proto::classic::{HARD_MAX_SIZE, HEADER};
use netasync::proto::inbox::Inbox;
use netasync::proto::options::{Policy, Protocol};
use proptest::prelude::*;

use crate::{Model, frame, limits};

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
