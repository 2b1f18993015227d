//! Claims of our own wire: flow control, confirmation, and who knows what after a break.

use std::time::Duration;

use netasync::proto::events::Reason;
use netasync::proto::options::{Buffer, Policy, Protocol};

use crate::application::{Reading, Writing};
use crate::arrange::{TIMEOUT, few, is_up, last_reason, setup, world};
use crate::end::End;
use crate::grammar::Seen;
use crate::oracle::messages;
use crate::world::{Act, Setup, World};

fn ours() -> Setup {
    setup(Protocol::Native)
}

/// Sends as fast as it is let.
fn endless() -> Writing {
    Writing { period: Duration::from_millis(1), burst: 50, longest: 300, left: 1_000_000 }
}

fn small(count: usize, max_bytes: u64) -> Buffer {
    Buffer { policy: Policy::Fixed, count, max_bytes }
}

fn numbers(count: u32) -> Vec<u32> {
    (0..count).collect()
}

/// Neither end has found anything wrong, and there was one link.
fn assert_undisturbed(world: &World) {
    assert!(world.dialler.verdicts.is_empty() && world.server().verdicts.is_empty());
    assert!(is_up(&world.dialler) && is_up(world.server()) && world.accepted.len() == 1);
}

#[test]
fn a_slow_application_is_never_a_dead_peer() {
    let mut setup = ours();
    setup.reading = [Reading::Every { period: Duration::from_secs(50), count: 1 }; 2];
    setup.writing = [few(100); 2];
    for options in &mut setup.options {
        options.read_buffer = small(3, 500);
        options.write_buffer = small(20, 2000);
    }
    let mut world = world(setup);
    world.run_until(3_600_000);
    assert_undisturbed(&world);
    assert!(messages(world.server(), |_| {}).len() > 60, "it takes, slowly");
    world.check_deliveries();
}

#[test]
fn a_program_that_only_writes_is_not_stopped_by_a_peer_that_only_chatters() {
    let mut setup = ours();
    setup.reading[0] = Reading::Absent;
    setup.writing = [few(5000), endless()];
    for options in &mut setup.options {
        options.read_buffer = small(50, 10_000);
        options.write_buffer = small(50, 10_000);
    }
    let mut world = world(setup);
    world.run_until(60_000);
    assert_undisturbed(&world);
    assert_eq!(messages(world.server(), |_| {}), numbers(5000));
    assert_eq!(world.dialler.stats().confirmed, 5000);
    assert!(world.dialler.stats().waiting >= 30, "the chatter fills the window and stops there");
    assert_eq!(world.server().stats().confirmed, 0);
}

#[test]
fn both_send_and_neither_reads_for_long_and_then_everything_arrives() {
    let mut setup = ours();
    setup.reading = [Reading::Absent; 2];
    setup.writing = [Writing { left: 3000, ..endless() }; 2];
    for options in &mut setup.options {
        options.read_buffer = small(1000, 20_000);
        options.write_buffer = small(1000, 5_000);
    }
    let mut world = world(setup);
    world.run_until(600_000);
    assert_undisturbed(&world);
    world.at(600_000, Act::Read(0, Reading::Eager)).at(600_000, Act::Read(1, Reading::Eager)).run_until(700_000);
    assert_undisturbed(&world);
    for (from, to) in [(&world.dialler, world.server()), (world.server(), &world.dialler)] {
        assert_eq!(messages(to, |_| {}), numbers(3000));
        assert_eq!((from.stats().confirmed, from.stats().unconfirmed), (3000, 0));
    }
}

#[test]
fn what_is_consumed_is_told_in_time_through_a_full_network() {
    for count in 60..140 {
        let mut setup = ours();
        setup.shape.room = 1500;
        setup.options[0].heartbeat_interval = Duration::from_secs(1);
        setup.options[1].heartbeat_interval = Duration::from_secs(1);
        let all_at_once = |left| Writing { period: Duration::from_millis(40), burst: left, longest: 100, left };
        setup.writing = [all_at_once(count), all_at_once(200)];
        let mut world = world(setup);
        // The promise itself is held at every moment, against what really went out.
        world.run_until(3_000);
        assert_undisturbed(&world);
        assert_eq!(world.dialler.stats().confirmed, u64::from(count));
    }
}

#[test]
fn no_consumption_is_untold_for_more_than_a_quarter_second_of_a_living_link() {
    for (seed, period) in [40, 100, 240, 260, 333, 700, 1500].into_iter().enumerate() {
        for policy in [Policy::Fixed, Policy::Sliding] {
            let mut setup = ours();
            for options in &mut setup.options {
                (options.heartbeat_interval, options.heartbeat_timeout) =
                    (Duration::from_secs(20), Duration::from_secs(60));
                options.read_buffer.policy = policy;
            }
            let often = |milliseconds| Writing { period: Duration::from_millis(milliseconds), ..few(100) };
            setup.writing = [often(period), often(97 + 13 * seed as u64)];
            let pace = |milliseconds| Reading::Every { period: Duration::from_millis(milliseconds), count: 1 };
            setup.reading = [pace(period + 11), pace(57)];
            let mut world = world(setup);
            world.at(9_000, Act::Reset).at(14_000, Act::CloseReading(0));
            // The promise itself is held at every moment, against what really went out.
            world.run_until(19_000);
            assert!(is_up(&world.dialler) && is_up(world.server()));
        }
    }
}

#[test]
fn one_message_at_a_time_passes_the_smallest_window() {
    let mut setup = ours();
    setup.writing = [few(200); 2];
    for options in &mut setup.options {
        (options.read_buffer, options.write_buffer) = (small(1, 1), small(1, 1));
    }
    let mut world = world(setup);
    world.run_until(60_000);
    assert_undisturbed(&world);
    assert_eq!(messages(world.server(), |_| {}), numbers(200));
    assert_eq!(messages(&world.dialler, |_| {}), numbers(200));
}

#[test]
fn mismatched_heartbeats_never_make_a_link_flap() {
    let pairs = [((0.05, 0.3), (60.0, 200.0)), ((1.0, 2.0), (0.001, 0.1)), ((30.0, 60.0), (30.0, 60.0))];
    for (quick, slow) in pairs.into_iter().flat_map(|(one, other)| [(one, other), (other, one)]) {
        let mut setup = ours();
        for (options, (interval, timeout)) in setup.options.iter_mut().zip([quick, slow]) {
            options.heartbeat_interval = Duration::from_secs_f64(interval);
            options.heartbeat_timeout = Duration::from_secs_f64(timeout);
        }
        let mut world = world(setup);
        world.run_until(200_000);
        assert_undisturbed(&world);
        // An idle link costs little: a PING and its PONG for each interval, however that was found.
        let (least, bytes) = (quick.0.min(slow.0).max(0.01), world.dialler.stats().bytes_sent);
        assert!(bytes < 200 + (2.0 * 28.0 * 200.0 / least.min(quick.1.min(slow.1) / 3.0)) as u64, "{bytes}");
    }
}

#[test]
fn silence_in_either_direction_is_found_by_the_side_that_hears_nothing() {
    for directions in [[true, false], [false, true]] {
        for at in (10_000..11_000).step_by(50) {
            let mut world = world(ours());
            world.at(at, Act::Hole { directions }).run_until(9_000);
            let is_deaf = |world: &World| {
                let end = if directions[1] { &world.dialler } else { &world.accepted[0] };
                is_up(end)
            };
            let found = world.run_while(30_000, is_deaf);
            let from = Duration::from_millis(at);
            assert!(found <= from + TIMEOUT + Duration::from_millis(10), "{found:?}");
            assert!(found + Duration::from_millis(700) >= from + TIMEOUT, "{found:?}");
            world.at(40_000, Act::Heal).run_until(50_000);
            assert!(is_up(&world.dialler) && is_up(world.server()));
        }
    }
}

#[test]
fn a_network_that_takes_nothing_is_found_although_the_peer_still_speaks() {
    let mut setup = ours();
    setup.shape.room = 2000;
    setup.options[1].heartbeat_timeout = Duration::from_secs(1000);
    setup.options[0].write_buffer = small(50, 10_000);
    setup.writing[0] = endless();
    let mut world = world(setup);
    world.at(10_000, Act::Hole { directions: [true, false] }).run_until(9_000);
    let found = world.run_while(30_000, |world| is_up(&world.dialler));
    assert_eq!(last_reason(&world.dialler), Reason::WriteStalled);
    assert!(found >= Duration::from_secs(10) && found <= Duration::from_millis(10_100) + TIMEOUT, "{found:?}");
}

#[test]
fn a_slow_network_is_no_stall() {
    let mut setup = ours();
    setup.shape.room = 5;
    setup.shape.latency = Duration::from_millis(20);
    setup.writing[0] = few(20);
    let mut world = world(setup);
    world.run_until(60_000);
    assert_undisturbed(&world);
}

#[test]
fn a_lossy_reader_holds_nobody_up() {
    for policy in [Policy::Dropping, Policy::Sliding] {
        let mut setup = ours();
        setup.reading[1] = Reading::Absent;
        setup.writing[0] = few(3000);
        setup.options[1].read_buffer = Buffer { policy, count: 5, max_bytes: 1000 };
        let mut world = world(setup);
        world.run_until(20_000);
        assert_undisturbed(&world);
        assert_eq!(world.dialler.stats().confirmed, 3000, "received is consumed");
        let stats = world.server().stats();
        assert_eq!(stats.received, 3000);
        assert_eq!(stats.read_dropped + stats.waiting, 3000);
    }
}

#[test]
fn who_closes_its_reading_channel_holds_nobody_up() {
    for at in (100..400).step_by(20) {
        let mut setup = ours();
        setup.reading[1] = Reading::Absent;
        setup.writing[0] = few(500);
        setup.options[1].read_buffer = small(20, 5_000);
        let mut world = world(setup);
        world.at(at, Act::CloseReading(1)).run_until(5_000);
        assert_undisturbed(&world);
        assert_eq!(world.dialler.stats().confirmed, 500);
        // What had arrived before stays, and is the application's own affair.
        let stats = world.server().stats();
        assert_eq!((stats.received, stats.waiting, stats.read_dropped), (500, 20, 480));
        world.at(5_000, Act::Read(1, Reading::Eager)).run_until(6_000);
        assert_eq!(messages(world.server(), |_| {}), numbers(20));
    }
}

#[test]
fn what_is_lost_with_a_break_is_counted_and_told() {
    let mut setup = ours();
    setup.writing[0] = Writing { period: Duration::from_millis(7), burst: 3, longest: 100, left: 10_000 };
    let mut world = world(setup);
    for round in 1..=50 {
        world.at(round * 400 + round % 7, Act::Reset);
    }
    world.run_until(60_000);
    let (dialler, stats) = (&world.dialler, world.dialler.stats());
    assert_eq!((stats.accepted, stats.queued, stats.unconfirmed), (10_000, 0, 0));
    assert!(stats.lost > 0 && stats.confirmed + stats.lost == 10_000, "{stats:?}");
    assert_eq!(dialler.application.lost, stats.lost);
    let arrived: u64 = world.accepted.iter().map(|end| end.application.taken).sum();
    assert!(arrived >= stats.confirmed, "{arrived} of {stats:?}");
    world.check_deliveries();
}

#[test]
fn a_message_too_large_for_the_peer_is_lost_and_the_link_stays() {
    let mut setup = ours();
    setup.is_server_up = false;
    setup.options[1].max_size = 50;
    setup.writing[0] = few(100);
    let mut world = world(setup);
    world.at(5_000, Act::ServerUp).run_until(20_000);
    let stats = world.dialler.stats();
    assert!(stats.lost > 20 && stats.confirmed > 20 && stats.lost + stats.confirmed == 100, "{stats:?}");
    assert_eq!(world.dialler.application.lost, stats.lost);
    assert_undisturbed(&world);
}

#[test]
fn breaks_in_the_handshake_at_every_byte_leave_no_ghost() {
    // HELLO has 88 bytes, ACK and PING behind it 48, in both directions.
    for (direction, bytes) in (0..2).flat_map(|direction| (0..140).map(move |bytes| (direction, bytes))) {
        let mut setup = ours();
        setup.writing = [few(5); 2];
        let mut world = world(setup);
        world.network.cut_next = Some((direction, bytes));
        world.run_until(3_000);
        let is_past = direction == 0 && bytes >= 88 + 20;
        let has_seen_ack = direction == 1 && bytes >= 88 + 20;
        let links = world.accepted.len();
        assert!(links == 1 || ((is_past || has_seen_ack || direction == 1) && links == 2), "{direction} {bytes}");
        if direction == 0 {
            assert_eq!(links == 2, is_past, "{bytes}: a connection is one with the first frame");
        }
        assert!(is_up(&world.dialler) && is_up(world.server()));
        let ghosts = world.accepted.iter().filter(|end| end.stats().links == 0).count();
        assert_eq!(ghosts, 0);
        world.check_deliveries();
        check_account(&world);
    }
}

#[test]
fn a_break_at_every_byte_loses_only_what_is_counted() {
    for (direction, bytes) in (0..2).flat_map(|direction| (100..1500).step_by(7).map(move |bytes| (direction, bytes))) {
        let mut setup = ours();
        setup.writing = [few(30); 2];
        setup.shape.segment = 300;
        let mut world = world(setup);
        world.network.cut_next = Some((direction, bytes));
        world.run_until(5_000);
        assert!(is_up(&world.dialler) && is_up(world.server()));
        world.check_deliveries();
        check_account(&world);
    }
}

/// Whatever the dialler does not count as lost has arrived.
fn check_account(world: &World) {
    let stats = world.dialler.stats();
    assert_eq!((stats.queued, stats.unconfirmed), (0, 0));
    assert_eq!(world.dialler.application.lost, stats.lost);
    let arrived: u64 = world.accepted.iter().map(|end| end.application.taken).sum();
    assert!(arrived >= stats.confirmed && stats.confirmed + stats.lost == stats.accepted);
    for end in &world.accepted {
        let from_it = world.dialler.application.seen.iter();
        let from_it = from_it.filter(|seen| matches!(seen, Seen::Message { stream, .. } if *stream == end.stream));
        assert!(end.stats().confirmed <= from_it.count() as u64, "{:?}", end.stats());
    }
}

#[test]
fn the_first_offer_must_fit_what_older_links_have_left() {
    let mut setup = ours();
    setup.reading[0] = Reading::Absent;
    setup.writing[1] = endless();
    setup.options[0].read_buffer = small(10_000, 5_000);
    let mut world = world(setup);
    for round in 1..40 {
        world.at(round * 1_000, Act::Reset);
    }
    world.run_until(60_000);
    world.at(60_000, Act::Read(0, Reading::Eager)).run_until(70_000);
    assert!(messages(&world.dialler, |_| {}).len() > 1000, "the window opens again");
    assert!(world.dialler.verdicts.iter().all(|(_, reason)| *reason == Reason::Reset));
}

/// The reason and the number of its Closed.
pub fn end_of(end: &End) -> (Reason, u64) {
    match end.application.seen.last() {
        Some(Seen::Closed { reason, undelivered }) => (*reason, *undelivered),
        other => panic!("{other:?} is no end"),
    }
}
