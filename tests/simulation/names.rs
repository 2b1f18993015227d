//! Claims about a name that leads to more than one server: each knows its own sessions only.

use std::time::Duration;

use netasync::proto::events::Reason;
use netasync::proto::options::{OnNewSession, Protocol};

use crate::application::Writing;
use crate::arrange::{few, is_up, setup, world};
use crate::grammar::Seen;
use crate::oracle::messages;
use crate::world::{Act, Door, Setup, World};

const BOTH: [&[usize]; 2] = [&[0, 1], &[1, 0]];

/// Both sides send for three seconds.
fn ours() -> Setup {
    let mut setup = setup(Protocol::Native);
    for options in &mut setup.options {
        options.on_new_session = OnNewSession::Redeliver;
        options.session_timeout = Duration::from_secs(120);
    }
    setup.writing = [Writing { period: Duration::from_millis(30), burst: 3, longest: 60, left: 300 }; 2];
    setup
}

fn is_all(list: &[u32], count: u32) -> bool {
    list.iter().copied().eq(0..count)
}

/// One session, and all of both sides arrived once.
fn assert_exactly_once(world: &World, told: &str) {
    assert_eq!((world.accepted.len(), world.dialler.sessions), (1, 1), "one session: {told}");
    for (from, to) in [(&world.dialler, world.server()), (world.server(), &world.dialler)] {
        assert!(is_up(from), "{told}: {:?}", world.ends_in_brief());
        assert!(is_all(&messages(to, |_| {}), 300), "{told}");
        let stats = from.stats();
        assert_eq!((stats.confirmed, stats.redelivered, stats.lost), (300, 0, 0), "{told}");
    }
    world.check_deliveries();
}

#[test]
fn a_name_that_rotates_between_two_living_servers_keeps_its_session() {
    for first in 0..2 {
        let mut world = world(ours());
        for round in 0..60 {
            world.at(round * 50, Act::Names(BOTH[(round as usize + first) % 2]));
        }
        for round in 1..=20 {
            world.at(round * 137, Act::Reset);
        }
        world.run_until(20_000);
        assert_exactly_once(&world, "rotated");
        assert!(world.dialler.stats().links > 10);
    }
}

#[test]
fn an_issuer_that_answers_a_little_late_keeps_its_session() {
    let mut world = world(ours());
    world.at(0, Act::Names(BOTH[0])).at(500, Act::Door(0, Door::Silent)).at(500, Act::Reset);
    world.at(1_900, Act::Door(0, Door::Open)).run_until(20_000);
    assert_exactly_once(&world, "alone for one and a half seconds");
}

#[test]
fn an_issuer_that_nobody_else_stands_in_for_is_asked_again_in_the_same_round() {
    let mut world = world(ours());
    world.at(0, Act::Names(BOTH[0])).at(400, Act::Door(1, Door::Refusing));
    world.at(500, Act::Door(0, Door::Silent)).at(500, Act::Reset);
    // Its own time is over by then, and the other one has refused.
    world.at(4_000, Act::Door(0, Door::Open)).run_until(20_000);
    assert_exactly_once(&world, "asked again");
    assert_eq!(world.dialler.stats().attempts, 2);
}

#[test]
fn another_server_gets_a_session_of_its_own_and_everything_is_counted() {
    for (at, door) in (500..700).step_by(7).flat_map(|at| [(at, Door::Refusing), (at, Door::Silent)]) {
        let mut world = world(ours());
        world.at(0, Act::Names(BOTH[0])).at(at, Act::Door(0, door)).at(at, Act::Reset);
        // The issuer is back, and its session is not: the dialler has another one.
        world.at(6_000, Act::Door(0, Door::Open)).at(8_000, Act::Reset).run_until(140_000);
        let [first, second] = &world.accepted[..] else { panic!("two sessions: {:?}", world.ends_in_brief()) };
        assert_eq!(world.dialler.sessions, 2, "the second break resumes the second one");
        let stats = world.dialler.stats();
        assert_eq!((stats.confirmed, stats.lost), (300, 0), "{at} {door:?}");
        let (before, after) = (messages(first, |_| {}), messages(second, |_| {}));
        let twice = (before.len() + after.len()) as u64 - 300;
        assert!(is_all(&before, before.len() as u32) && after.last() == Some(&299), "{at} {door:?}");
        assert!(twice <= stats.redelivered, "{twice} came twice, {} were told", stats.redelivered);
        assert_eq!(world.dialler.application.redelivered, stats.redelivered);
        // What the first server had sent and its dialler had not taken is told at its end.
        let from_first = messages(&world.dialler, |_| {}).len() as u64 - 300;
        let Some(Seen::Closed { reason: Reason::SessionExpired, undelivered }) = first.application.seen.last() else {
            panic!("{:?}", first.application.seen.last());
        };
        assert!(first.stats().accepted - undelivered <= from_first, "too large at times, never too small");
        world.check_deliveries();
    }
}

#[test]
fn a_session_whose_issuer_is_not_listed_for_a_while_goes_on_when_it_is_again() {
    let mut world = world(ours());
    world.at(500, Act::Names(&[])).at(500, Act::Reset).at(3_000, Act::Names(&[0, 1])).run_until(20_000);
    assert_exactly_once(&world, "listed again");
}

#[test]
fn a_goodbye_is_said_to_the_issuer_and_to_nobody_else() {
    let mut setup = ours();
    setup.writing = [few(20); 2];
    let mut world = world(setup);
    world.at(0, Act::Names(BOTH[1])).at(2_990, Act::Names(BOTH[0])).at(3_000, Act::Reset);
    world.at(3_000, Act::Close(0)).run_until(20_000);
    assert_eq!(world.accepted.len(), 1, "nobody else hears of it");
    assert!(world.dialler.is_ended());
    world.check_deliveries();
}

#[test]
fn the_server_that_was_reached_last_is_dialled_first_on_the_original_wire_too() {
    let mut world = world(setup(Protocol::Classic));
    world.at(0, Act::Names(BOTH[1]));
    for round in 1..10 {
        world.at(round * 1_000, Act::Names(BOTH[round as usize % 2])).at(round * 1_000, Act::Reset);
    }
    world.run_until(12_000);
    assert_eq!(world.servers_of_accepted(), [1; 10]);
}
