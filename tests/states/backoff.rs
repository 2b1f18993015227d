//! When a dialler dials again: by how long its link was up, and by nothing else.

use std::time::Duration;

use netasync::proto::Moment;
use netasync::proto::endpoint::{Endpoint, Facts, Input, Order, Phase, Role};
use netasync::proto::events::Event;
use netasync::proto::options::{Jitter, Retry};
use netasync::proto::wire::close;

use crate::walk::{Choice, Life, Side, Wire};

const SAID: Facts = Facts {
    queued: 0,
    unconfirmed: 0,
    goes_again: false,
    has_session: true,
    has_greeted: false,
    has_said_close: true,
    owes_answer: false,
};
const OURS: Life = Life { wire: Wire::Ours, role: Side::Dialler, reconnects: true };
const ORIGINAL: Life = Life { wire: Wire::Original, ..OURS };

fn dialler(life: Life) -> Endpoint {
    let retry = Retry::new(0.1, 2.0, 1.0, Jitter::None).unwrap();
    Endpoint::new(Role::Dialler, &life.options_with(Some(retry)), 1)
}

/// Every way in which a link ends: what is told of it, and whether an answer goes out behind that.
fn endings() -> Vec<(Life, Choice)> {
    let codes = [close::DONE, close::BUSY, close::FAULT, close::ABORTED, close::VOID];
    let ours = [Choice::Broke, Choice::BrokeRules, Choice::Eof].into_iter().chain(codes.map(Choice::PeerClosed));
    ours.map(|ending| (OURS, ending)).chain([(ORIGINAL, Choice::Broke), (ORIGINAL, Choice::Eof)]).collect()
}

/// The waits, in milliseconds, behind links that are up for so long each.
fn waits(life: Life, ending: Choice, up: u64, count: usize) -> Vec<u128> {
    let (mut dialler, mut now) = (dialler(life), Moment::ZERO);
    dialler.step(Choice::Started.input(), SAID, now);
    let mut waits = Vec::new();
    while waits.len() < count {
        dialler.step(Choice::Dialed.input(), SAID, now);
        now += Duration::from_millis(up);
        let mut orders = dialler.step(ending.input(), SAID, now);
        orders.extend(dialler.step(Input::Looked, SAID, now));
        let down = orders.iter().find_map(|order| match order {
            Order::Deliver(Event::Disconnected(down)) => Some(down),
            _ => None,
        });
        let wait = down.and_then(|down| down.retry_in).unwrap();
        waits.push(wait.as_millis());
        now += wait;
        if dialler.phase() == (Phase::Resting { until: now }) {
            dialler.step(Input::Looked, SAID, now);
        }
        assert!(matches!(dialler.phase(), Phase::Dialling { .. }), "{ending:?}: {:?}", dialler.phase());
    }
    waits
}

#[test]
fn how_a_link_ended_changes_nothing_in_the_wait_behind_it() {
    for (life, ending) in endings() {
        assert_eq!(waits(life, ending, 1500, 5), [100; 5], "{ending:?} behind 1.5 s");
        assert_eq!(waits(life, ending, 1000, 5), [100; 5], "{ending:?} behind 1 s");
        assert_eq!(waits(life, ending, 999, 6), [100, 200, 400, 800, 1000, 1000], "{ending:?} behind less");
        assert_eq!(waits(life, ending, 0, 6), [100, 200, 400, 800, 1000, 1000], "{ending:?} at once");
    }
}

#[test]
fn who_is_sent_away_again_and_again_waits_longer_each_time() {
    let leaving = Choice::PeerClosed(close::LEAVING);
    assert_eq!(waits(OURS, leaving, 0, 5), [0, 100, 200, 400, 800]);
    assert_eq!(waits(OURS, leaving, 950, 5), [0, 100, 0, 200, 0], "that long apart each move is one of its own");
    assert_eq!(waits(OURS, leaving, 1500, 5), [0; 5]);
}
