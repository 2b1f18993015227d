//! Our own wire's numbers: both sides, however late each hears of the other, agree on them.

use std::collections::VecDeque;
use std::time::Duration;

use netasync::proto::options::Buffer;
use netasync::proto::session::{Heard, Incoming, Outgoing};
use netasync::proto::wire::Numbers;
use proptest::prelude::*;

use crate::{agreement, limits};

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
    pair.incoming.note_untold(Duration::ZERO, || Duration::ZERO);
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
