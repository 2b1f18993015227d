//! Every state that an end can reach, and every input in it: the invariants at the head of
//! `endpoint.rs` under their own names, and the table `docs/states.md`, which this test writes when
//! `NETASYNC_WRITE_DOCS=1` and otherwise holds against the code.
#![allow(clippy::unwrap_used)]

mod backoff;
mod closing;
mod page;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use netasync::proto::Moment;
use netasync::proto::control::After;
use netasync::proto::endpoint::{Endpoint, Facts, Input, Order, Phase, State};
use netasync::proto::events::{Event, Reason};
use netasync::proto::wire::close;

use walk::{
    CLOSE_TIMEOUT, Choice, Life, SESSION_TIMEOUT, Side, Step, TICK, Wire, every_step, has_link, is_legal, name,
    says_farewell,
};

const DIALLER: Life = Life { wire: Wire::Ours, role: Side::Dialler, reconnects: true };

fn closed(orders: &[Order]) -> Option<Reason> {
    orders.iter().find_map(|order| match order {
        Order::Deliver(Event::Closed(closed)) => Some(closed.reason),
        _ => None,
    })
}

/// This side, or an earlier step of this path, asked to close.
fn is_closing(step: &Step<'_>) -> bool {
    let asked = |input: &Choice| matches!(input, Choice::Close | Choice::Abort);
    asked(&step.input) || step.path.steps.iter().any(|(input, ..)| asked(input))
}

#[test]
fn every_phase_is_reached() {
    let mut reached: BTreeMap<(Wire, Side), BTreeSet<&str>> = BTreeMap::new();
    every_step(|step| {
        let Life { wire, role, .. } = step.path.life;
        reached.entry((wire, role)).or_default().insert(name(step.before));
    });
    let counts: Vec<usize> = reached.values().map(BTreeSet::len).collect();
    assert_eq!(counts, [12, 7, 8, 7], "{reached:?}");
}

#[test]
fn a_dialler_ends_only_by_its_own_side() {
    every_step(|step| {
        if step.path.life.reconnects
            && step.path.life.is_dialler()
            && let Some(reason) = closed(step.orders)
        {
            assert!(is_closing(step), "{:?} in {:?}", step.input, step.path);
            let ours = [Reason::ClosedHere, Reason::CloseTimeout, Reason::Aborted];
            assert!(ours.contains(&reason));
        }
    });
}

#[test]
fn a_session_is_forgotten_when_it_is_void_or_over_and_never_for_a_break() {
    every_step(|step| {
        let forgets = step.orders.contains(&Order::Forget);
        let may = match step.input {
            Choice::PeerClosed(code) => code != close::FAULT,
            Choice::BrokeRules => true,
            _ => false,
        };
        assert!(!forgets || (may && step.path.life.is_dialler() && step.path.life.is_ours()), "{:?}", step.path);
        let is_up = matches!(step.before.phase(), Phase::Up { .. });
        if may && is_up && step.path.life == DIALLER {
            assert!(forgets, "{:?} in {:?}", step.input, step.path);
        }
    });
}

#[test]
fn an_accepted_end_whose_dialler_returns_goes_on() {
    every_step(|step| {
        if step.input == Choice::Returned && matches!(step.before.phase(), Phase::Absent { .. }) {
            let is_closing = step.before.state() == State::Closing;
            assert!(matches!(step.orders.first(), Some(Order::Deliver(Event::Connected(_)))));
            match step.after.phase() {
                Phase::Up { .. } => assert!(!is_closing),
                Phase::Parting { is_heard: false } => {
                    assert!(is_closing && matches!(step.orders.get(1), Some(Order::SayClose { .. })));
                }
                other => panic!("{other:?} in {:?}", step.path),
            }
        }
        let has_waited = |until: Moment| step.now >= until && step.input == Choice::Looked;
        if let Phase::Absent { until } = step.before.phase()
            && has_waited(until)
        {
            let reason = closed(step.orders);
            assert!(matches!(reason, Some(Reason::SessionExpired | Reason::CloseTimeout)), "{:?}", step.path);
        }
    });
}

#[test]
fn an_accepted_end_ends_with_its_session() {
    every_step(|step| {
        let life = step.path.life;
        if life.is_dialler() {
            return;
        }
        assert!(!step.orders.contains(&Order::Dial));
        let disconnected = |order: &Order| matches!(order, Order::Deliver(Event::Disconnected(_)));
        let waits = step.orders.iter().any(disconnected);
        if waits {
            assert!(life.reconnects && life.is_ours());
            assert!(!matches!(step.input, Choice::BrokeRules | Choice::PeerClosed(close::VOID | close::ABORTED)));
            let is_over = step.path.steps.iter().any(|(input, ..)| matches!(input, Choice::PeerClosed(close::DONE)));
            assert!(!is_over, "{:?}", step.path);
            let Phase::Absent { until } = step.after.phase() else { panic!("{:?}", step.after.phase()) };
            assert_eq!(until, step.now + SESSION_TIMEOUT);
            return;
        }
        let is_end = step.input.is_break() || (life.is_ours() && step.input == Choice::Eof);
        let is_second_word =
            matches!(step.before.phase(), Phase::Replying { .. }) && matches!(step.input, Choice::PeerClosed(_));
        if is_end && has_link(step.before.phase()) && !is_second_word {
            assert_eq!(step.after.phase(), Phase::Ended, "{:?} in {:?}", step.input, step.path);
        }
    });
}

#[test]
fn an_accepted_end_whose_listener_has_closed_ends_with_its_link() {
    every_step(|step| {
        let before = step.path.steps.iter().any(|(input, ..)| *input == Choice::Deserted);
        if !before && step.input != Choice::Deserted || step.path.life.is_dialler() {
            return;
        }
        assert!(!matches!(step.after.phase(), Phase::Absent { .. }), "{:?} in {:?}", step.input, step.path);
        let is_absent = matches!(step.before.phase(), Phase::Absent { .. });
        if step.input == Choice::Deserted && is_legal(step.path.life, step.before.phase(), step.input) {
            let expected = match step.before.state() {
                _ if !is_absent => None,
                State::Closing => Some(Reason::ClosedHere),
                _ => Some(Reason::SessionExpired),
            };
            assert_eq!(closed(step.orders), expected, "who has a link lives on: {:?}", step.path);
        }
        let is_up = matches!(step.before.phase(), Phase::Up { .. });
        if before && is_up && step.input == Choice::Broke {
            assert_eq!(closed(step.orders), Some(Reason::Reset), "it ends for what broke its link");
        }
    });
}

#[test]
fn who_breaks_the_rules_behind_close_is_not_taken_for_one_that_closed() {
    every_step(|step| {
        if !matches!(step.before.phase(), Phase::Replying { .. }) || step.input != Choice::BrokeRules {
            return;
        }
        let shown = step.orders.iter().find_map(|order| match order {
            Order::Deliver(Event::Disconnected(down)) => Some(down.reason),
            Order::Deliver(Event::Closed(closed)) => Some(closed.reason),
            _ => None,
        });
        assert_eq!(shown, Some(Reason::Protocol), "{:?}", step.path);
        assert!(step.orders.contains(&Order::HangUp));
    });
}

#[test]
fn nothing_is_ordered_after_the_end() {
    every_step(|step| {
        if step.before.phase() == Phase::Ended {
            assert_eq!(step.orders, []);
            assert_eq!(step.after.phase(), Phase::Ended);
        }
        let has_ended = step.after.phase() == Phase::Ended && step.before.phase() != Phase::Ended;
        if has_ended {
            let last = step.orders.last();
            let is_shown = step.before.state() == State::Closed;
            assert!(is_shown || matches!(last, Some(Order::Deliver(Event::Closed(_)))));
            let hangs_up = step.orders.contains(&Order::HangUp);
            assert!(hangs_up || !has_link(step.before.phase()));
        }
    });
}

#[test]
fn closed_is_shown_once_and_nothing_behind_it() {
    every_step(|step| {
        let (was_closed, is_closed) = (step.before.state() == State::Closed, step.after.state() == State::Closed);
        assert!(is_closed || !was_closed, "{:?}", step.path);
        assert_eq!(closed(step.orders).is_some(), is_closed && !was_closed, "{:?}", step.path);
        let shown = step.orders.iter().filter(|order| matches!(order, Order::Deliver(_))).count();
        assert!(!was_closed || shown == 0, "{:?} in {:?}", step.orders, step.path);
        assert!(was_closed || !step.orders.contains(&Order::Attach));
    });
}

#[test]
fn closing_ends_within_close_timeout() {
    every_step(|step| {
        let is_closing = step.before.state() == State::Closing || says_farewell(step.before);
        let is_overdue = step.before.deadline().is_some_and(|due| step.now >= due);
        let is_last_look = step.input == Choice::Looked && is_overdue;
        let rests = matches!(step.before.phase(), Phase::Resting { .. });
        if is_closing && is_last_look && !rests {
            assert_eq!(step.after.phase(), Phase::Ended, "{:?}", step.path);
        }
        if step.input == Choice::Close && step.before.state() != State::Closing {
            let due = step.after.deadline();
            let limit = step.now + CLOSE_TIMEOUT;
            let has_ended = step.after.phase() == Phase::Ended;
            assert!(has_ended || due.is_some_and(|due| due <= limit));
        }
    });
}

#[test]
fn closing_while_resting_is_over_when_close_timeout_is() {
    every_step(|step| {
        let Some((_, _, closed_at)) = step.path.steps.iter().find(|(input, ..)| *input == Choice::Close) else {
            return;
        };
        if step.input == Choice::Looked && step.now >= *closed_at + CLOSE_TIMEOUT && step.path.life.is_dialler() {
            assert_eq!(step.after.phase(), Phase::Ended, "{:?}", step.path);
        }
    });
}

#[test]
fn the_stream_is_ended_only_when_everything_was_written() {
    every_step(|step| {
        if step.orders.contains(&Order::EndStream) {
            assert!(!step.path.life.is_ours(), "our wire has a goodbye");
            assert_eq!(step.facts.queued, 0);
            assert_eq!(step.after.phase(), Phase::Leaving);
        }
        if step.after.phase() == Phase::Leaving && step.before.phase() != Phase::Leaving {
            assert!(step.orders.contains(&Order::EndStream));
        }
    });
}

#[test]
fn every_wait_has_a_deadline() {
    every_step(|step| {
        let state = step.after.state();
        let waits_for_time = match step.after.phase() {
            Phase::Resting { .. } | Phase::Answering { .. } | Phase::Replying { .. } => true,
            Phase::Draining { .. } | Phase::Leaving | Phase::Parting { .. } => true,
            Phase::Absent { .. } => true,
            _ => state == State::Closing || says_farewell(step.after),
        };
        let is_linkless_start = step.after.phase() == Phase::Ended;
        assert!(!waits_for_time || is_linkless_start || step.after.deadline().is_some());
        if step.input == Choice::Looked && is_legal(step.path.life, step.before.phase(), step.input) {
            let due = step.after.deadline();
            // Who is sent away dials again at once: that wait is over with the next look.
            let is_at_once = matches!(step.after.phase(), Phase::Resting { until } if until == step.now)
                && !matches!(step.before.phase(), Phase::Resting { .. });
            let spins = due.is_some_and(|due| due <= step.now) && !is_at_once;
            assert!(!spins, "a look settles every deadline: {:?}", step.path);
        }
    });
}

#[test]
fn who_has_said_goodbye_and_heard_it_is_done() {
    every_step(|step| {
        let has_heard = matches!(step.before.phase(), Phase::Parting { is_heard: true } | Phase::Replying { .. });
        if step.input != Choice::Looked || !step.facts.has_said_close {
            return;
        }
        if has_heard {
            let is_done = matches!(step.after.phase(), Phase::Ended | Phase::Resting { .. });
            assert!(is_done && step.orders.contains(&Order::HangUp), "{:?}", step.path);
        }
        let is_overdue = step.before.deadline().is_some_and(|due| step.now >= due);
        if step.before.phase() == (Phase::Parting { is_heard: false }) && !is_overdue {
            assert_eq!(step.orders, [], "who has only said it waits for the answer");
        }
    });
}

#[test]
fn a_goodbye_is_said_on_our_wire_only_and_never_behind_the_end_of_the_link() {
    every_step(|step| {
        let says = |order: &Order| matches!(order, Order::SayClose { .. } | Order::Blame(_));
        let Some(at) = step.orders.iter().position(says) else {
            return;
        };
        assert!(step.path.life.is_ours());
        assert!(!step.orders[..at].contains(&Order::HangUp));
        let comes_up = |order: &Order| matches!(order, Order::Attach | Order::Deliver(Event::Connected(_)));
        let has_come_up = step.orders[..at].iter().any(comes_up);
        assert!(has_link(step.before.phase()) || has_come_up, "{:?}", step.path);
    });
}

#[test]
fn a_closing_side_says_it_behind_everything_and_an_answering_one_behind_what_may_begin() {
    every_step(|step| {
        for order in step.orders {
            let Order::SayClose { goodbye, after } = order else { continue };
            let is_heard = matches!(step.input, Choice::PeerClosed(_))
                || matches!(step.before.phase(), Phase::Replying { .. } | Phase::Parting { is_heard: true });
            assert_eq!(*after == After::WhatMayBegin, is_heard, "{:?}", step.path);
            if let (Choice::PeerClosed(code), Phase::Up { .. }) = (step.input, step.before.phase()) {
                assert_eq!(goodbye.code, code, "the answer has the same code");
            }
        }
    });
}

#[test]
fn who_breaks_the_rules_is_told_and_who_blames_us_is_not_blamed_in_turn() {
    every_step(|step| {
        let is_up = matches!(step.before.phase(), Phase::Up { .. });
        let must_blame = step.path.life.is_ours() && is_up && step.input == Choice::BrokeRules;
        let blames = matches!(step.orders.first(), Some(Order::Blame(goodbye)) if goodbye.code == close::VOID);
        assert!(blames || !must_blame, "{:?} in {:?}", step.input, step.path);
        assert!(!blames || step.input == Choice::BrokeRules, "{:?} in {:?}", step.input, step.path);
    });
}

#[test]
fn who_is_sent_away_dials_at_once_but_not_in_circles() {
    let mut dialler = DIALLER.start();
    let (none, mut now) = (Facts::default(), Moment::ZERO);
    let said = Facts { has_said_close: true, ..none };
    dialler.step(Choice::Started.input(), none, now);
    for (later, wait) in [(Duration::ZERO, Duration::ZERO), (TICK / 2, TICK), (4 * TICK, Duration::ZERO)] {
        now += later;
        dialler.step(Choice::Dialed.input(), none, now);
        dialler.step(Choice::PeerClosed(close::LEAVING).input(), none, now);
        let orders = dialler.step(Input::Looked, said, now);
        let [Order::HangUp, Order::Deliver(Event::Disconnected(down))] = &orders[..] else {
            panic!("{orders:?}");
        };
        assert_eq!((down.reason, down.retry_in), (Reason::Moved, Some(wait)));
        assert_eq!(dialler.step(Input::Looked, none, now + wait), [Order::Dial]);
    }
}

#[test]
fn input_that_comes_too_late_changes_nothing() {
    every_step(|step| {
        let phase = step.before.phase();
        if !is_legal(step.path.life, phase, step.input) && step.input != Choice::Started {
            let is_known = matches!(step.input, Choice::Eof | Choice::Broke | Choice::BrokeRules) && has_link(phase);
            assert!(is_known || step.orders.is_empty(), "{:?} in {phase:?}", step.input);
        }
    });
}

#[test]
fn attempts_count_the_dials_of_one_outage() {
    let mut dialler: Endpoint = DIALLER.start();
    let (none, mut now) = (Facts::default(), Moment::ZERO);
    dialler.step(Choice::Started.input(), none, now);
    for outage in 0..2 {
        for failed in 1..=3 {
            let refusal = if failed == 2 { Choice::Rejected } else { Choice::DialFailed };
            let orders = dialler.step(refusal.input(), none, now);
            let [Order::Deliver(Event::Disconnected(down))] = &orders[..] else {
                panic!("{orders:?}");
            };
            assert_eq!((down.attempt, down.retry_in), (failed, Some(TICK)));
            now += TICK;
            let looked = dialler.step(Input::Looked, none, now);
            assert_eq!(looked, [Order::Dial]);
        }
        let orders = dialler.step(Choice::Dialed.input(), none, now);
        let [Order::Deliver(Event::Connected(up))] = &orders[..] else {
            panic!("{orders:?}");
        };
        assert_eq!((up.attempt, dialler.attempts()), (4, 4 * (outage + 1)));
        dialler.step(Choice::Broke.input(), none, now);
        now += TICK;
        dialler.step(Input::Looked, none, now);
    }
}

#[test]
fn the_page_of_states_is_the_code() {
    let page = page::page();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/states.md");
    if std::env::var("NETASYNC_WRITE_DOCS").is_ok_and(|value| value == "1") {
        std::fs::write(path, page).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/states.md is stale: NETASYNC_WRITE_DOCS=1 cargo test --no-default-features --test states"
    );
}
