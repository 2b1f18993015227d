//! A closing dialler comes back: for what is left to deliver, and for its goodbye.

use std::time::Duration;

use netasync::proto::Moment;
use netasync::proto::endpoint::{CLOSING_WAIT, Endpoint, Facts, Input, Order, Phase, State};
use netasync::proto::events::{Closed, Event, Fault, Reason};
use netasync::proto::wire::close;

use crate::walk::{CLOSE_TIMEOUT, Choice, Life, Side, TICK, Wire, every_step, has_link, is_legal, says_farewell};

const DIALLERS: [Life; 2] = [
    Life { wire: Wire::Ours, role: Side::Dialler, reconnects: true },
    Life { wire: Wire::Original, role: Side::Dialler, reconnects: true },
];
const NONE: Facts = Facts {
    queued: 0,
    unconfirmed: 0,
    goes_again: false,
    has_session: false,
    has_greeted: false,
    has_said_close: false,
    owes_answer: false,
};
/// Everything is confirmed, and the session goes on.
const QUIET: Facts = Facts { has_session: true, ..NONE };
const LADEN: Facts = Facts { queued: 3, ..QUIET };
const START: Moment = Duration::from_secs(100);

fn run(life: Life, inputs: &[Choice], facts: Facts) -> Endpoint {
    let mut endpoint = life.start();
    for input in inputs {
        endpoint.step(input.input(), facts, START);
    }
    endpoint
}

fn shown(orders: &[Order]) -> Option<&Closed> {
    orders.iter().find_map(|order| match order {
        Order::Deliver(Event::Closed(closed)) => Some(closed),
        _ => None,
    })
}

#[test]
fn a_closing_dialler_with_something_left_comes_back_whatever_broke_its_link() {
    every_step(|step| {
        let life = step.path.life;
        let is_break = step.input.is_break() || (life.is_ours() && step.input == Choice::Eof);
        let is_parting = matches!(step.before.phase(), Phase::Parting { is_heard: false } | Phase::Draining { .. });
        let has_left = step.facts.queued > 0 || (step.facts.unconfirmed > 0 && step.facts.goes_again);
        if life.reconnects && life.is_dialler() && is_parting && is_break && has_left {
            assert!(matches!(step.after.phase(), Phase::Resting { .. }), "{:?} in {:?}", step.input, step.path);
        }
    });
}

#[test]
fn a_closing_dialler_that_was_not_answered_comes_back_to_say_close_again() {
    every_step(|step| {
        let life = step.path.life;
        let is_parting = step.before.phase() == Phase::Parting { is_heard: false };
        let is_break = matches!(step.input, Choice::Broke | Choice::Eof | Choice::PeerClosed(close::FAULT));
        if life.reconnects && life.is_dialler() && is_parting && is_break {
            assert!(matches!(step.after.phase(), Phase::Resting { .. }), "{:?} in {:?}", step.input, step.path);
        }
    });
}

#[test]
fn a_closing_dialler_dials_at_once_and_again_within_its_wait() {
    every_step(|step| {
        let is_leaving = step.after.state() == State::Closing || says_farewell(step.after);
        let Phase::Resting { until } = step.after.phase() else { return };
        if !is_leaving || step.after.phase() == step.before.phase() {
            return;
        }
        assert!(until <= step.now + CLOSING_WAIT, "{:?} in {:?}", step.input, step.path);
        let closed = step.path.steps.iter().position(|(input, ..)| *input == Choice::Close);
        let was_dialling = matches!(step.before.phase(), Phase::Dialling { .. }) && step.input != Choice::Close;
        let has_dialled = was_dialling || closed.is_some_and(|at| step.path.has_dialled_since(at));
        assert!(has_dialled || until == step.now, "{:?} in {:?}", step.input, step.path);
    });
}

#[test]
fn who_closes_while_resting_dials_at_once_whatever_sent_it_there() {
    for (life, refusal) in DIALLERS.into_iter().flat_map(|life| [(life, Choice::DialFailed), (life, Choice::Rejected)])
    {
        let mut dialler = run(life, &[Choice::Started, refusal], LADEN);
        assert_eq!(dialler.phase(), Phase::Resting { until: START + TICK });
        assert_eq!(dialler.step(Choice::Close.input(), LADEN, START), []);
        assert_eq!((dialler.state(), dialler.step(Input::Looked, LADEN, START)), (State::Closing, vec![Order::Dial]));
        dialler.step(refusal.input(), LADEN, START);
        assert_eq!(dialler.phase(), Phase::Resting { until: START + CLOSING_WAIT });
    }
}

#[test]
fn a_dial_that_has_met_nobody_for_a_second_is_begun_anew_by_a_close() {
    let greeted = Facts { has_greeted: true, ..LADEN };
    for (age, facts, is_anew) in [(999, LADEN, false), (1000, LADEN, true), (9000, greeted, false)] {
        for life in DIALLERS {
            let mut dialler = run(life, &[Choice::Started], facts);
            let now = START + Duration::from_millis(age);
            let orders = dialler.step(Choice::Close.input(), facts, now);
            let dials = dialler.step(Input::Looked, facts, now);
            let expected = if is_anew { (vec![Order::HangUp], vec![Order::Dial]) } else { (vec![], vec![]) };
            assert_eq!((orders, dials), expected, "{age} ms");
            dialler.step(Choice::DialFailed.input(), facts, now);
            assert_eq!(dialler.phase(), Phase::Resting { until: now + CLOSING_WAIT }, "that was the first dial");
        }
    }
}

#[test]
fn who_closes_without_a_link_is_closed_at_once_unless_something_is_unconfirmed() {
    every_step(|step| {
        let is_linkless = matches!(step.before.phase(), Phase::Dialling { .. } | Phase::Resting { .. });
        let is_first = step.input == Choice::Close && step.before.state() != State::Closing && is_linkless;
        if !is_first || step.before.state() == State::Closed || !step.path.life.is_dialler() {
            return;
        }
        let has_left = step.facts.queued > 0 || (step.facts.unconfirmed > 0 && step.facts.goes_again);
        assert_eq!(step.after.state() == State::Closing, has_left, "{:?}", step.path);
        let is_over = step.path.steps.iter().any(|(input, ..)| matches!(input, Choice::PeerClosed(_)));
        if !has_left && !is_over {
            let may_return = step.facts.has_session && step.path.life.reconnects;
            assert_eq!(says_farewell(step.after), may_return, "{:?}", step.path);
        }
    });
}

#[test]
fn a_farewell_is_said_in_its_session_or_not_at_all() {
    every_step(|step| {
        if !says_farewell(step.before) || !is_legal(step.path.life, step.before.phase(), step.input) {
            return;
        }
        let says = step.orders.iter().any(|order| matches!(order, Order::SayClose { .. }));
        let is_over = step.now >= step.before.deadline().unwrap_or_default() && step.input == Choice::Looked;
        match step.input {
            Choice::Resumed => assert!(says && step.orders.first() == Some(&Order::Attach), "{:?}", step.path),
            Choice::PeerClosed(_) => assert!(has_link(step.before.phase())),
            Choice::Dialed if step.facts.queued + step.facts.unconfirmed > 0 => {}
            // Whoever was dialled before this end closed need not be the session's issuer.
            Choice::Dialed if matches!(step.after.phase(), Phase::Resting { .. }) => {
                assert_eq!(step.orders, [Order::HangUp], "{:?}", step.path);
            }
            Choice::Dialed | Choice::SessionOver | Choice::Abort => {
                assert_eq!((step.orders, step.after.phase()), (&[Order::HangUp][..], Phase::Ended), "{:?}", step.path);
            }
            Choice::DialFailed | Choice::Rejected if !step.facts.has_session => {
                let has_left = step.facts.queued + step.facts.unconfirmed > 0;
                assert!(has_left || step.after.phase() == Phase::Ended, "{:?}", step.path);
            }
            Choice::DialFailed | Choice::Rejected => {
                assert!(matches!(step.after.phase(), Phase::Resting { .. }), "{:?}", step.path);
            }
            _ => assert!(!says || is_over, "{:?} in {:?}", step.input, step.path),
        }
    });
}

#[test]
fn a_stranger_that_was_dialled_before_the_close_does_not_end_the_farewell() {
    let mut dialler = run(DIALLERS[0], &[Choice::Started, Choice::Dialed, Choice::Eof], QUIET);
    assert_eq!(dialler.step(Input::Looked, QUIET, START + TICK), [Order::Dial]);
    let later = START + Duration::from_secs(60);
    let known = Facts { has_session: true, has_greeted: true, ..QUIET };
    dialler.step(Choice::Close.input(), known, later);
    assert_eq!(dialler.step(Choice::Dialed.input(), known, later), [Order::HangUp]);
    assert_eq!(dialler.step(Input::Looked, known, later), [Order::Dial], "the issuer alone");
    assert_eq!(dialler.step(Choice::Dialed.input(), known, later), [Order::HangUp]);
    assert_eq!(dialler.phase(), Phase::Ended, "the session is gone");
}

/// A dialler with everything confirmed whose link broke behind its CLOSE, and that dials again.
fn returning() -> Endpoint {
    let mut dialler = run(DIALLERS[0], &[Choice::Started, Choice::Dialed, Choice::Close, Choice::Eof], QUIET);
    assert_eq!(dialler.step(Input::Looked, QUIET, START), [Order::Dial]);
    dialler
}

#[test]
fn who_comes_back_to_say_close_makes_no_ghost() {
    let gone = Facts { has_session: false, ..QUIET };
    for input in [Choice::Dialed, Choice::SessionOver, Choice::DialFailed, Choice::Rejected] {
        let orders = returning().step(input.input(), gone, START);
        let [Order::HangUp, Order::Deliver(Event::Closed(end))] = &orders[..] else {
            panic!("{input:?}: {orders:?}");
        };
        assert_eq!((end.reason, end.undelivered), (Reason::ClosedHere, 0));
    }
    for (input, facts) in [(Choice::Resumed, QUIET), (Choice::Dialed, LADEN)] {
        let orders = returning().step(input.input(), facts, START);
        assert!(matches!(&orders[..], [Order::Deliver(Event::Connected(_)), Order::SayClose { .. }]), "{orders:?}");
    }
}

#[test]
fn one_break_or_refusal_is_not_enough_to_lose_a_goodbye() {
    let failed = |reason| Input::DialFailed(Fault { reason, detail: String::new() });
    let ways: [&[Input]; 5] = [
        &[failed(Reason::Busy)],
        &[failed(Reason::Eof)],
        &[failed(Reason::Refused)],
        &[Choice::Resumed.input(), Input::Eof],
        &[Choice::Resumed.input(), Choice::Broke.input()],
    ];
    for way in ways {
        let (mut dialler, mut now, mut dials) = (returning(), START, 0);
        let mut ends = Vec::new();
        while dialler.phase() != Phase::Ended {
            let mut orders = Vec::new();
            for input in way {
                orders.extend(dialler.step(input.clone(), QUIET, now));
            }
            now = dialler.deadline().unwrap();
            let looked = dialler.step(Input::Looked, QUIET, now);
            dials += usize::from(looked == [Order::Dial]);
            ends.extend(orders.iter().chain(&looked).filter_map(|order| shown(std::slice::from_ref(order)).cloned()));
        }
        let [end] = &ends[..] else { panic!("{ends:?}") };
        assert_eq!((end.reason, end.undelivered, now), (Reason::ClosedHere, 0, START + CLOSE_TIMEOUT), "{way:?}");
        assert!(dials >= 7, "{dials} dials: {way:?}");
    }
}

#[test]
fn nobody_waits_for_a_goodbye_that_nobody_is_there_to_hear() {
    let failed = |reason| Input::DialFailed(Fault { reason, detail: String::new() });
    for reason in [Reason::Refused, Reason::Unreachable, Reason::NameNotFound, Reason::OpenTimeout] {
        let mut dialler = returning();
        let orders = dialler.step(failed(reason), QUIET, START);
        let end = shown(&orders).unwrap();
        assert_eq!((end.reason, end.undelivered, orders.len()), (Reason::ClosedHere, 0, 1));
        assert!(says_farewell(&dialler), "it goes on by itself");
    }
    for reason in [Reason::Eof, Reason::Reset, Reason::Busy] {
        let mut dialler = returning();
        assert_eq!(shown(&dialler.step(failed(reason), QUIET, START)), None, "somebody is there");
        assert_eq!(dialler.state(), State::Closing);
    }
}
