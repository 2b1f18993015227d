//! Claims of our own wire about its goodbye: who closes discards, who answers delivers.

use std::time::Duration;

use netasync::proto::endpoint::{Role, State};
use netasync::proto::events::Reason;
use netasync::proto::options::{Buffer, Policy, Protocol};

use crate::application::{Reading, Writing};
use crate::arrange::{CLOSE_TIMEOUT, few, is_up, laden, last_reason, setup, world};
use crate::end::End;
use crate::native::end_of;
use crate::oracle::messages;
use crate::world::{Act, Setup, World};

/// From here on the server has its end.
const UP: u64 = 27;

fn ours() -> Setup {
    setup(Protocol::Native)
}

/// The side that closes, and the one that answers, of the first link.
fn sides(world: &World, closer: usize) -> (&End, &End) {
    let first = &world.accepted[0];
    if closer == 0 { (&world.dialler, first) } else { (first, &world.dialler) }
}

/// A quick and a slow application, on both sides.
fn readings() -> [Reading; 2] {
    [Reading::Eager, Reading::Every { period: Duration::from_millis(3), count: 1 }]
}

#[test]
fn closing_at_every_moment_leaves_no_doubt() {
    for (closer, reading) in (0..2).flat_map(|closer| readings().map(|reading| (closer, reading))) {
        for at in UP..300 {
            let mut setup = ours();
            setup.reading = [reading; 2];
            setup.writing = [few(60); 2];
            setup.shape.room = 2500;
            let mut world = world(setup);
            world.at(at, Act::Close(closer)).run_until(6_000);
            let (from, to) = sides(&world, closer);
            assert_eq!(end_of(from), (Reason::ClosedHere, 0), "{closer} at {at}");
            assert_eq!(messages(to, |_| {})[..from.application.accepted.len()], from.application.accepted);
            // A dialler goes on with the next link.
            let takers = if closer == 0 { std::slice::from_ref(&world.dialler) } else { &world.accepted[..] };
            let taken: u64 = takers.iter().map(|end| end.application.taken).sum();
            let stats = to.stats();
            assert!(stats.confirmed <= taken, "who closes discards what it has not taken");
            if closer == 0 {
                assert_eq!(stats.confirmed, taken, "the account is exact");
                assert_eq!(end_of(to), (Reason::ClosedByPeer, stats.accepted - stats.confirmed));
            }
            assert!(from.verdicts.is_empty() && to.verdicts.is_empty(), "{:?}", (&from.verdicts, &to.verdicts));
            world.check_deliveries();
        }
    }
}

#[test]
fn both_may_close_at_once() {
    for (at, later) in (UP..120).step_by(3).flat_map(|at| (0..30).step_by(2).map(move |later| (at, later))) {
        let mut setup = ours();
        setup.writing = [few(60); 2];
        setup.shape.room = 2500;
        let (mut world, first) = (world(setup), usize::from(at % 2 == 0));
        world.at(at, Act::Close(first)).at(at + later, Act::Close(1 - first)).run_until(6_000);
        for end in [&world.dialler, &world.accepted[0]] {
            let (reason, _) = end_of(end);
            let is_overtaken = end.closing_since > end.ended_at;
            assert!(reason == Reason::ClosedHere || is_overtaken || reason == Reason::ClosedByPeer, "{reason:?}");
            let is_quick = end.closing_since.zip(end.ended_at).is_none_or(|(from, to)| to < from + CLOSE_TIMEOUT);
            assert!(is_quick, "nobody waits for what has been said");
            assert!(end.verdicts.is_empty(), "{:?}", end.verdicts);
        }
        world.check_deliveries();
    }
}

#[test]
fn an_application_that_answers_slowly_is_given_everything() {
    let mut setup = ours();
    setup.reading[1] = Reading::Every { period: Duration::from_secs(1), count: 1 };
    setup.writing[0] = few(40);
    let mut world = world(setup);
    world.at(200, Act::Close(0)).run_until(300);
    assert_eq!(end_of(&world.dialler), (Reason::ClosedHere, 0), "it does not wait for the application");
    world.run_until(60_000);
    assert_eq!(messages(world.server(), |_| {}), (0..40).collect::<Vec<u32>>());
    assert_eq!(end_of(world.server()), (Reason::ClosedByPeer, 0));
}

#[test]
fn without_window_closing_waits_and_then_says_what_it_could_not_deliver() {
    for (reading, limit) in
        [(Reading::Absent, true), (Reading::Every { period: Duration::from_millis(50), count: 5 }, false)]
    {
        let mut setup = ours();
        setup.reading[1] = reading;
        setup.options[1].read_buffer = Buffer { policy: Policy::Fixed, count: 3, max_bytes: 1 << 20 };
        setup.writing[0] = few(40);
        let mut world = world(setup);
        world.at(200, Act::Close(0)).run_until(10_000);
        if limit {
            assert_eq!(end_of(&world.dialler), (Reason::CloseTimeout, 40));
            assert_eq!(world.server().stats().received, 3);
        } else {
            assert_eq!(end_of(&world.dialler), (Reason::ClosedHere, 0));
            assert_eq!(messages(world.server(), |_| {}).len(), 40);
        }
    }
}

#[test]
fn a_dialler_whose_peer_closes_dials_again_and_keeps_what_was_not_begun() {
    for at in UP..200 {
        let mut setup = ours();
        setup.writing[0] = few(100);
        setup.shape.room = 400;
        let mut world = world(setup);
        world.at(at, Act::Close(1)).run_until(5_000);
        assert!(is_up(&world.dialler) && is_up(world.server()));
        let stats = world.dialler.stats();
        assert_eq!((world.accepted.len(), stats.queued, stats.unconfirmed), (2, 0, 0));
        assert_eq!(stats.confirmed + stats.lost, 100);
        let taken = world.accepted.iter().map(|end| end.application.taken).sum::<u64>();
        assert_eq!(taken, stats.confirmed, "the closer takes nothing more, and says exactly what it took");
        world.check_deliveries();
    }
}

#[test]
fn a_closing_dialler_that_breaks_comes_back_for_what_was_not_begun() {
    for at in 30..160 {
        let mut world = world(laden(Protocol::Native));
        world.at(20, Act::Close(0)).at(at, Act::Reset).run_until(10_000);
        let stats = world.dialler.stats();
        let (reason, undelivered) = end_of(&world.dialler);
        assert_eq!((reason, undelivered), (Reason::ClosedHere, stats.queued + stats.unconfirmed));
        assert_eq!(stats.queued, 0, "what had not begun has gone out");
        assert_eq!(stats.confirmed + stats.lost + undelivered, 200);
        world.check_deliveries();
    }
}

#[test]
fn a_closing_dialler_whose_peer_aborts_comes_back_for_what_was_not_begun() {
    for at in 32..100 {
        let mut world = world(laden(Protocol::Native));
        world.at(30, Act::Close(0)).at(at, Act::Abort(1)).run_until(10_000);
        let stats = world.dialler.stats();
        let (reason, undelivered) = end_of(&world.dialler);
        assert_eq!((reason, undelivered, stats.queued), (Reason::ClosedHere, stats.unconfirmed, 0), "{at}");
        world.check_deliveries();
    }
}

#[test]
fn an_application_that_goes_on_sending_is_cut_off_where_its_answer_stands() {
    let mut setup = ours();
    setup.writing[1] = Writing { period: Duration::from_millis(1), burst: 5, longest: 100, left: 10_000 };
    let mut world = world(setup);
    world.at(500, Act::Close(0)).run_until(5_000);
    let (server, stats) = (world.server(), world.server().stats());
    let (reason, undelivered) = end_of(server);
    assert_eq!((reason, undelivered), (Reason::ClosedByPeer, stats.accepted - stats.confirmed));
    assert_eq!(stats.confirmed, world.dialler.application.taken, "the account is exact on both sides");
    assert_eq!(server.endpoint.state(), State::Closed);
}

#[test]
fn a_break_while_closing_at_every_byte_is_still_an_end_in_time() {
    for (closer, direction) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for bytes in (100..1400).step_by(11) {
            let mut setup = ours();
            setup.writing = [few(20); 2];
            setup.shape.segment = 200;
            let mut world = world(setup);
            world.network.cut_next = Some((direction, bytes));
            world.at(45, Act::Close(closer)).run_until(10_000);
            world.check_deliveries();
            let Some(ended) = world.ends().find(|end| end.closing_since.is_some()) else {
                continue; // The server had no link at that moment.
            };
            let (_, undelivered) = end_of(ended);
            let stats = ended.stats();
            assert_eq!(undelivered, stats.queued + stats.unconfirmed);
            let arrived: u64 = if closer == 0 {
                world.accepted.iter().map(|end| end.application.taken).sum()
            } else {
                world.dialler.application.taken
            };
            assert!(arrived + undelivered + stats.lost >= stats.accepted, "too large at times, never too small");
        }
    }
}

#[test]
fn an_abort_on_a_quiet_link_is_heard_with_its_account() {
    for side in 0..2 {
        let mut setup = ours();
        setup.writing = [few(20); 2];
        let mut world = world(setup);
        world.at(2_100, Act::Abort(side)).run_until(2_200);
        let (from, to) = sides(&world, side);
        assert_eq!(end_of(from), (Reason::Aborted, 0));
        assert_eq!(last_reason(to), Reason::Aborted);
        assert_eq!(to.stats().confirmed, 20);
        assert!(to.role == Role::Dialler || end_of(to) == (Reason::Aborted, 0));
    }
}
