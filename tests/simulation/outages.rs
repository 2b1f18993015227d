//! Claims about sessions that nobody sees at a single break: confirmations that come late, outages that last,
//! applications that stand still, and clocks that jump.

use std::time::Duration;

use netasync::proto::options::{Buffer, OnNewSession, Policy, Protocol};

use crate::application::{Reading, Writing};
use crate::arrange::{few, is_up, setup, world};
use crate::end::End;
use crate::grammar::Seen;
use crate::network::Cut;
use crate::oracle::messages;
use crate::random::Random;
use crate::world::{Act, Setup, World};

fn ours() -> Setup {
    let mut setup = setup(Protocol::Native);
    for options in &mut setup.options {
        options.on_new_session = OnNewSession::Redeliver;
        options.session_timeout = Duration::from_secs(7200);
    }
    setup
}

/// Sends more than it is let.
fn endless(left: u32) -> Writing {
    Writing { period: Duration::from_millis(20), burst: 50, longest: 300, left }
}

fn small(count: usize, max_bytes: u64) -> Buffer {
    Buffer { policy: Policy::Fixed, count, max_bytes }
}

fn is_all(list: &[u32], count: u32) -> bool {
    list.iter().copied().eq(0..count)
}

/// One session, and all that either side sent has arrived once and in order.
fn assert_exactly_once(world: &World, counts: [u32; 2], told: &str) {
    assert_eq!(world.accepted.len(), 1, "one session: {told}");
    let server = world.server();
    for (from, to, count) in [(&world.dialler, server, counts[0]), (server, &world.dialler, counts[1])] {
        assert!(is_up(from), "{told}: {:?}", world.ends_in_brief());
        assert!(is_all(&messages(to, |_| {}), count), "{told}");
        let stats = from.stats();
        assert_eq!((stats.confirmed, stats.redelivered, stats.lost), (u64::from(count), 0, 0), "{told}");
    }
    world.check_deliveries();
}

fn downs(end: &End) -> usize {
    end.application.seen.iter().filter(|seen| matches!(seen, Seen::Disconnected(_))).count()
}

/// F 51: a narrow window, a kernel that takes little and a slow line keep confirmations and repeats on their way
/// for long; each link loses some of both, and the next repeats under back-pressure.
#[test]
fn confirmations_lost_and_late_among_repeats_in_a_narrow_window_change_nothing() {
    let mut random = Random::new(51);
    let mut links = 0;
    for round in 0..200 {
        let mut setup = ours();
        setup.writing = [endless(120), endless(80)];
        setup.shape.latency = random.milliseconds(5, 80);
        setup.shape.room = random.pick(&[300, 1000, 4096]);
        setup.part = random.pick(&[1 << 18, 50]);
        for (side, options) in setup.options.iter_mut().enumerate() {
            options.read_buffer = small(random.pick(&[2, 7, 100]), random.pick(&[500, 5000]));
            options.write_buffer = small(100, random.pick(&[500, 5000]));
            setup.reading[side] = Reading::Every { period: random.milliseconds(5, 60), count: 5 };
        }
        let mut world = world(setup);
        for _ in 0..8 {
            let cut = random.pick(&[Cut::Fin, Cut::Reset, Cut::Silence]);
            world.network.cuts.push_back((random.size(0, 1), random.size(150, 6000), cut));
        }
        world.run_until(120_000);
        assert_exactly_once(&world, [120, 80], &format!("round {round}"));
        links += world.dialler.stats().links;
    }
    assert!(links > 1000, "{links}");
}

/// F 52: an hour without a link.
#[test]
fn an_outage_longer_than_every_buffer_makes_its_senders_wait_and_loses_nothing() {
    let mut setup = ours();
    setup.writing = [endless(3000); 2];
    for options in &mut setup.options {
        options.read_buffer = small(50, 10_000);
        options.write_buffer = small(20, 5_000);
    }
    let mut world = world(setup);
    world.at(200, Act::Hole { directions: [true, true] }).run_until(3_600_000);
    for end in [&world.dialler, world.server()] {
        let stats = end.stats();
        assert_eq!(downs(end), 1, "one for the outage, however many dials");
        assert!(stats.queued <= 21 && stats.accepted < 3000, "{stats:?}");
    }
    world.at(3_600_000, Act::Heal).run_until(3_700_000);
    assert_exactly_once(&world, [3000; 2], "healed");
}

/// C 31 with sessions: the links that break meanwhile change nothing in it.
#[test]
fn both_send_and_neither_reads_for_long_over_breaks_and_then_everything_arrives() {
    let mut setup = ours();
    setup.reading = [Reading::Absent; 2];
    setup.writing = [endless(1000); 2];
    for options in &mut setup.options {
        options.read_buffer = small(1000, 20_000);
        options.write_buffer = small(1000, 5_000);
    }
    let mut world = world(setup);
    for round in 1..=20 {
        world.at(round * 5_003, Act::Reset);
    }
    world.run_until(150_000);
    assert!(is_up(&world.dialler) && is_up(world.server()), "alive, with nobody reading");
    assert_eq!(world.dialler.stats().links, 21);
    world.at(150_000, Act::Read(0, Reading::Eager)).at(150_000, Act::Read(1, Reading::Eager)).run_until(250_000);
    assert_exactly_once(&world, [1000; 2], "read at last");
}

/// C 32 with sessions.
#[test]
fn who_only_writes_is_not_stopped_by_a_peer_that_only_chatters_whatever_breaks() {
    let mut setup = ours();
    setup.reading[0] = Reading::Absent;
    setup.writing = [few(3000), endless(1_000_000)];
    for options in &mut setup.options {
        options.read_buffer = small(50, 10_000);
        options.write_buffer = small(50, 10_000);
    }
    let mut world = world(setup);
    for round in 1..=10 {
        world.at(round * 307, Act::Reset);
    }
    world.run_until(60_000);
    assert!(is_all(&messages(world.server(), |_| {}), 3000));
    assert_eq!((world.dialler.stats().confirmed, world.server().stats().confirmed), (3000, 0));
    assert_eq!((world.accepted.len(), world.dialler.stats().links), (1, 11));
    world.check_deliveries();
}

/// G 60: a process that stands still for five timeouts, or an hour, finds one outage behind it and no more. The wall
/// clock is never read, so nothing can jump but this.
#[test]
fn a_process_that_stood_still_has_one_outage_and_no_burst() {
    for (side, stands) in (0..2).flat_map(|side| [10_000, 3_600_000].map(|stands| (side, stands))) {
        let mut setup = ours();
        setup.writing = [Writing { period: Duration::from_millis(50), burst: 2, longest: 50, left: 200 }; 2];
        let mut world = world(setup);
        let until = 2_000 + stands;
        world.at(2_000, Act::Freeze { side, until: Duration::from_millis(until) }).run_until(until);
        let attempts = world.dialler.stats().attempts;
        let bytes = world.dialler.stats().bytes_sent + world.server().stats().bytes_sent;
        world.run_until(until + 60_000);
        let told = format!("{side} stood still for {stands} ms");
        assert_exactly_once(&world, [200; 2], &told);
        for end in [&world.dialler, world.server()] {
            assert!(downs(end) <= 1, "{told}: {} outages", downs(end));
        }
        assert!(world.dialler.stats().attempts <= attempts + 2, "{told}: no burst of dials");
        let sent = world.dialler.stats().bytes_sent + world.server().stats().bytes_sent - bytes;
        assert!(sent < 60_000, "{told}: no burst of heartbeats, {sent} bytes");
    }
}
