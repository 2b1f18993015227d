//! The values between the messages.

use std::time::Duration;

use netasync::proto::events::{Closed, Connected, Disconnected, Event, Reason};
use netasync::proto::halves::{Front, Opened, Receiver};
use netasync::proto::wire::Numbers;
use proptest::prelude::*;

use crate::{frame, limits, options};

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
