//! Claims with a name that hold on both wires, each one life arranged on purpose (`faults.md`, the cases
//! marked S).

use std::time::Duration;

use netasync::proto::endpoint::Role;
use netasync::proto::events::Reason;
use netasync::proto::options::Protocol;

use crate::application::Reading;
use crate::arrange::{CLOSE_TIMEOUT, TIMEOUT, WIRES, few, is_up, laden, last_reason, setup, world};
use crate::grammar::Seen;
use crate::oracle::messages;
use crate::world::Act;

#[test]
fn slow_reader_is_not_taken_for_a_dead_peer() {
    for protocol in WIRES {
        let mut setup = setup(protocol);
        setup.reading = [Reading::Absent; 2];
        setup.writing = [few(100); 2];
        for options in &mut setup.options {
            options.read_buffer.count = 3;
        }
        let mut world = world(setup);
        world.run_until(3_600_000);
        assert!(is_up(&world.dialler) && is_up(world.server()));
        world.at(3_600_000, Act::Read(0, Reading::Eager)).at(3_600_000, Act::Read(1, Reading::Eager));
        world.run_until(3_610_000);
        assert_eq!(messages(&world.dialler, |_| {}).len(), 100);
        assert_eq!(messages(world.server(), |_| {}).len(), 100);
        assert!(is_up(&world.dialler) && world.accepted.len() == 1);
        world.check_deliveries();
    }
}

#[test]
fn a_client_may_start_before_its_server() {
    for protocol in WIRES {
        let mut setup = setup(protocol);
        setup.is_server_up = false;
        setup.writing[0] = few(50);
        let mut world = world(setup);
        world.at(30_000, Act::ServerUp).run_until(31_000);
        assert_eq!(world.dialler.application.seen, [Seen::Disconnected(Reason::Refused), Seen::Connected]);
        assert_eq!(messages(world.server(), |_| {}).len(), 50);
        world.check_deliveries();
    }
}

#[test]
fn a_dead_peer_is_found_within_its_timeout() {
    for protocol in WIRES {
        let holes = [[true, true], [false, true]];
        for (act, at) in holes
            .iter()
            .flat_map(|directions| (10_000..10_600).step_by(50).map(|at| (*directions, at)))
            .map(|(directions, at)| (Act::Hole { directions }, at))
            .chain((10_000..10_600).step_by(50).map(|at| (Act::ServerVanished, at)))
        {
            let mut world = world(setup(protocol));
            world.at(at, act).run_until(9_000);
            let found = world.run_while(20_000, |world| is_up(&world.dialler));
            let from = Duration::from_millis(at);
            // Counted from the last byte, which may be an interval old.
            assert!(found + Duration::from_millis(510) >= from + TIMEOUT);
            assert!(found <= from + TIMEOUT + Duration::from_millis(10));
            assert_eq!(last_reason(&world.dialler), Reason::HeartbeatTimeout);
        }
    }
}

#[test]
fn a_peer_stopped_for_less_than_the_timeout_raises_no_alarm() {
    for protocol in WIRES {
        let mut world = world(setup(protocol));
        for round in 0..100 {
            let at = 5_000 + round * 3_000;
            let until = Duration::from_millis(at + 1_400);
            let side = usize::from(round % 2 == 0);
            world.at(at, Act::Freeze { side, until });
        }
        world.run_until(320_000);
        assert!(is_up(&world.dialler) && world.accepted.len() == 1);
    }
}

#[test]
fn a_process_that_stood_still_shows_one_outage_at_most_and_no_burst() {
    // G 60: stopped for five timeouts, or for an hour as by a suspended machine; alone or both at once.
    for (protocol, sides, lasts) in each_wire_with(&[&[0], &[1], &[0, 1]], &[10_000, 3_600_000]) {
        let mut world = world(setup(protocol));
        let until = Duration::from_millis(10_000 + lasts);
        for side in sides {
            world.at(10_000, Act::Freeze { side: *side, until });
        }
        world.run_until(10_000 + lasts - 1);
        let before = world.dialler.stats().bytes_sent;
        world.run_until(lasts + 15_000);
        let is_outage = |seen: &&Seen| matches!(seen, Seen::Disconnected(_));
        for end in world.ends().filter(|end| sides.contains(&usize::from(end.role == Role::Accepted))) {
            let outages = end.application.seen.iter().filter(is_outage).count();
            assert!(outages <= 1, "{:?} {protocol:?} {sides:?} {lasts}", end.role);
        }
        assert!(is_up(&world.dialler) && is_up(world.server()), "{protocol:?} {sides:?} {lasts}");
        // Five seconds of heartbeats, two greetings, and what had been due once.
        let burst = world.dialler.stats().bytes_sent - before;
        assert!(burst < 1000, "{burst} bytes: {protocol:?} {sides:?} {lasts}");
    }
}

/// Each wire with each of both.
fn each_wire_with<'a>(
    sides: &'a [&'a [usize]],
    lasts: &'a [u64],
) -> impl Iterator<Item = (Protocol, &'a [usize], u64)> {
    let pairs = sides.iter().flat_map(|sides| lasts.iter().map(|lasts| (*sides, *lasts)));
    pairs.flat_map(|(sides, lasts)| WIRES.map(|protocol| (protocol, sides, lasts)))
}

#[test]
fn a_closing_dialler_waits_until_its_server_is_back() {
    for protocol in WIRES {
        let mut setup = setup(protocol);
        setup.writing[0] = few(20);
        setup.is_server_up = false;
        let mut world = world(setup);
        world.at(1_000, Act::Close(0)).at(2_000, Act::ServerUp).run_until(6_000);
        assert_eq!(last_reason(&world.dialler), Reason::ClosedHere);
        assert_eq!(messages(world.server(), |_| {}).len(), 20);
    }
}

#[test]
fn a_closing_dialler_without_a_server_says_what_it_could_not_deliver() {
    for protocol in WIRES {
        let mut setup = setup(protocol);
        setup.writing[0] = few(20);
        setup.is_server_up = false;
        let mut world = world(setup);
        world.at(1_000, Act::Close(0));
        let ended = world.run_while(6_000, |world| !world.dialler.is_ended());
        assert_eq!(ended, Duration::from_millis(1_000) + CLOSE_TIMEOUT);
        world.run_until(6_000);
        let last = Seen::Closed { reason: Reason::CloseTimeout, undelivered: 20 };
        assert_eq!(world.dialler.application.seen, [Seen::Disconnected(Reason::Refused), last]);
    }
}

#[test]
fn our_own_closing_names_the_end_whatever_the_link_does() {
    for protocol in WIRES {
        let mut setup = laden(protocol);
        setup.options[0].reconnect = None;
        let mut world = world(setup);
        world.at(15, Act::Close(0)).at(60, Act::Reset).run_until(10_000);
        assert_eq!(last_reason(&world.dialler), Reason::ClosedHere);
    }
}

#[test]
fn closing_under_fire_destroys_nothing_on_its_way_out() {
    for protocol in WIRES {
        for closer in 0..2 {
            let mut setup = laden(protocol);
            setup.writing[1] = setup.writing[0];
            let mut world = world(setup);
            // On our wire the server has its end with the first frame behind the greeting.
            let at = if protocol == Protocol::Native { 30 } else { 15 };
            world.at(at, Act::Close(closer)).run_until(10_000);
            let first = &world.accepted[0];
            let (from, to) = if closer == 0 { (&world.dialler, first) } else { (first, &world.dialler) };
            assert_eq!(last_reason(from), Reason::ClosedHere);
            let arrived = messages(to, |_| {});
            assert_eq!(arrived[..200], (0..200).collect::<Vec<u32>>()[..]);
        }
    }
}

#[test]
fn without_reconnect_the_first_break_is_the_end() {
    for protocol in WIRES {
        let mut setup = setup(protocol);
        setup.options[0].reconnect = None;
        let mut world = world(setup);
        world.at(1_000, Act::ServerKilled).run_until(2_000);
        let closed = Seen::Closed { reason: Reason::Eof, undelivered: 0 };
        assert_eq!(world.dialler.application.seen, [Seen::Connected, Seen::Disconnected(Reason::Eof), closed]);
    }
}

#[test]
fn closing_at_every_moment_ends_with_one_closed() {
    for protocol in WIRES {
        let acts: [fn(usize) -> Act; 2] = [Act::Close, Act::Abort];
        for (act, side) in acts.iter().flat_map(|act| [(act, 0), (act, 1)]) {
            for at in 1..200 {
                let mut setup = setup(protocol);
                setup.writing = [few(40); 2];
                setup.shape.room = 1000;
                let mut world = world(setup);
                world
                    .at(30, Act::Reset)
                    .at(at, act(side))
                    .at(320, Act::ServerKilled)
                    .at(400, Act::ServerUp)
                    .run_until(8_000);
                world.check_deliveries();
                if side == 0 {
                    assert!(world.dialler.is_ended() && world.dialler.application.is_over);
                }
            }
        }
    }
}

#[test]
fn an_accepted_end_never_shows_disconnected() {
    for protocol in WIRES {
        let mut world = world(setup(protocol));
        world.at(1_000, Act::Reset).run_until(5_000);
        let first = &world.accepted[0];
        assert_eq!((first.role, last_reason(first)), (Role::Accepted, Reason::Reset));
        assert_eq!(first.application.seen.len(), 2);
    }
}
