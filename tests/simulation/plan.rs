//! A run drawn from its seed: what the ends are, what befalls them, and what must have come of it.

use std::collections::HashSet;
use std::time::Duration;

use netasync::proto::endpoint::{Phase, Role};
use netasync::proto::events::Reason;
use netasync::proto::options::{Buffer, Jitter, OnNewSession, Options, Policy, Protocol, Retry, Settings};

use netasync::proto::receipts::{Goal, Outcome};

use crate::application::{Reading, Writing};
use crate::bounds::lossless;
use crate::end::End;
use crate::grammar::Seen;
use crate::network::Shape;
use crate::oracle::messages;
use crate::random::Random;
use crate::world::{Act, Door, Setup, World};

/// The network does its worst until here; from here on it is healthy and both ends read.
const PEACE: u64 = 40_000;
/// Every end that lost its peer has found that out.
const SETTLED: u64 = PEACE + 40_000;
const END: u64 = SETTLED + 20_000;
const LATE: u64 = END + 300_000;
const PROBES: u32 = 20;

/// One whole run; panics where a promise is broken.
pub fn run(seed: u64) {
    let mut random = Random::new(seed);
    let is_healthy = seed.is_multiple_of(3);
    // Five seeds in nine speak ours.
    let protocol = if seed % 9 < 5 { Protocol::Native } else { Protocol::Classic };
    let setup = setup(&mut random, is_healthy, protocol);
    let is_eager = setup.reading == [Reading::Eager; 2];
    let mut world = World::new(setup, random.split());
    let ending = ending(&mut random, &mut world);
    if !is_healthy {
        for _ in 0..random.within(1, 8) {
            fault(&mut random, &mut world);
        }
        rename(&mut Random::new(!seed), &mut world);
    }
    world.run_until(PEACE - 1);
    world
        .at(PEACE, Act::Door(0, Door::Open))
        .at(PEACE, Act::Door(1, Door::Open))
        .at(PEACE, Act::Names(&[1, 0]))
        .at(PEACE, Act::Heal)
        .at(PEACE, Act::ServerUp)
        .at(PEACE, Act::Write(0, Writing::NOTHING))
        .at(PEACE, Act::Write(1, Writing::NOTHING))
        .at(PEACE, Act::Read(0, Reading::Eager))
        .at(PEACE, Act::Read(1, Reading::Eager));
    let queued = queued_without_link(&world.dialler);
    world.run_until(SETTLED);
    let probes = Writing { period: Duration::from_millis(10), burst: 3, longest: 100, left: PROBES };
    world.at(SETTLED, Act::Write(0, probes)).at(SETTLED, Act::Write(1, probes));
    world.run_until(END);
    if !is_settled(&world) {
        // A window of one message moves one message a round trip.
        world.run_until(LATE);
    }
    world.check_deliveries();
    check_ends(&world);
    check_fates(&world);
    world.check_goodbye();
    if !world.dialler.is_ended() {
        check_liveness(&world, &queued);
    }
    if is_healthy {
        check_health(&world, ending, is_eager);
    }
}

fn setup(random: &mut Random, is_healthy: bool, protocol: Protocol) -> Setup {
    let shape = Shape {
        latency: random.milliseconds(1, 100),
        jitter: random.milliseconds(0, 50),
        bytes_per_second: random.within(16_384, 1 << 20),
        segment: random.pick(&[1, 7, 100, 536, 1460]),
        room: random.pick(&[5, 300, 4096, 65_536]),
    };
    // A room of a few bytes carries nothing over a distance, and short segments cost a step each.
    let is_tiny = shape.room < 100;
    let (latency, jitter) = match shape.room {
        ..100 => (Duration::from_micros(100), Duration::ZERO),
        100..1000 => (shape.latency / 20, shape.jitter / 20),
        _ => (shape.latency, shape.jitter),
    };
    let intervals = [random.within(200, 1000), random.within(200, 1000)];
    // The original's wire agrees on nothing: who waits less than the other's interval is wrong.
    let slowest = intervals[0].max(intervals[1]);
    let longest = if is_tiny || shape.segment < 100 { &[0, 30][..] } else { &[0, 30, 300, 5000] };
    Setup {
        shape: Shape { latency, jitter, ..shape },
        options: intervals.map(|interval| match protocol {
            Protocol::Classic => options(random, interval, slowest, is_healthy, protocol),
            Protocol::Native => options(random, interval, interval, is_healthy, protocol),
        }),
        reading: [reading(random), reading(random)],
        writing: [writing(random, longest), writing(random, longest)],
        echoes: random.one_in(3),
        is_server_up: is_healthy || !random.one_in(4),
        holds: random.pick(&[(10_000, 1 << 28), (10_000, 1 << 28), (1, 1 << 28), (10_000, 1500)]),
        part: random.pick(&[1 << 18, 1 << 18, 100, 23]),
    }
}

fn options(random: &mut Random, interval: u64, slowest: u64, is_healthy: bool, protocol: Protocol) -> Options {
    let timeout = slowest * random.within(3, 5) + 400;
    // Both ways of the greeting, and of TCP before it, fit into it on the slowest network.
    let quickest = if protocol == Protocol::Native { 1500 } else { 500 };
    let maximum = random.within(200, 4000);
    let retry =
        Retry::new(0.1, 2.0, Duration::from_millis(maximum).as_secs_f64(), random.pick(&[Jitter::Full, Jitter::None]));
    let is_once = !is_healthy && random.one_in(6);
    let settings = Settings {
        heartbeat_interval: Duration::from_millis(interval).as_secs_f64(),
        heartbeat_timeout: Some(Duration::from_millis(timeout).as_secs_f64()),
        open_timeout: Duration::from_millis(random.within(quickest, 5000)).as_secs_f64(),
        close_timeout: Duration::from_millis(random.within(500, 5000)).as_secs_f64(),
        read_buffer: buffer(random),
        write_buffer: buffer(random),
        reconnect: retry.ok().filter(|_| !is_once),
        protocol,
        on_new_session: random.pick(&[OnNewSession::Redeliver, OnNewSession::Redeliver, OnNewSession::Discard]),
        session_timeout: random.pick(&[0.0, 1.0, 8.0, 120.0, 120.0]),
        ..Settings::default()
    };
    settings.check().unwrap()
}

fn buffer(random: &mut Random) -> Buffer {
    Buffer {
        policy: random.pick(&[Policy::Fixed, Policy::Fixed, Policy::Dropping, Policy::Sliding]),
        count: random.pick(&[1, 2, 5, 50, 1000]),
        max_bytes: random.pick(&[65, 4000, 1 << 20]),
    }
}

fn reading(random: &mut Random) -> Reading {
    match random.within(0, 4) {
        0..=2 => Reading::Eager,
        3 => Reading::Every { period: random.milliseconds(20, 2000), count: random.size(1, 20) },
        _ => Reading::Absent,
    }
}

fn writing(random: &mut Random, longest: &[usize]) -> Writing {
    let left = u32::try_from(random.pick(&[0, 10, 100, 300])).unwrap();
    Writing {
        period: random.milliseconds(10, 2000),
        burst: u32::try_from(random.within(1, 20)).unwrap(),
        longest: random.pick(longest),
        left,
    }
}

/// What the applications do to the life of their ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    None,
    Close(usize),
    /// Both, within half a second.
    CloseBoth,
    Abort(usize),
}

/// Every other run one side closes or aborts, in some both close.
fn ending(random: &mut Random, world: &mut World) -> Ending {
    let side = random.size(0, 1);
    let at = random.within(1, PEACE - 1000);
    match random.within(0, 6) {
        0 | 1 => {
            world.at(at, Act::Close(side));
            Ending::Close(side)
        }
        2 => {
            world.at(at, Act::Abort(side));
            Ending::Abort(side)
        }
        3 => {
            world.at(at, Act::Close(side)).at(at + random.within(0, 500), Act::Close(1 - side));
            Ending::CloseBoth
        }
        _ => Ending::None,
    }
}

fn fault(random: &mut Random, world: &mut World) {
    let at = random.within(1, PEACE - 1);
    let lasts = random.pick(&[10, 300, 1500, 5000, 15_000]);
    let back = (at + random.within(1, lasts)).min(PEACE - 1);
    match random.within(0, 8) {
        0 => {
            world.at(at, Act::Reset);
        }
        1 | 2 => {
            let directions = random.pick(&[[true, true], [true, false], [false, true]]);
            world.at(at, Act::Hole { directions }).at(back, Act::Heal);
        }
        3 => {
            world.at(at, Act::ServerKilled).at(back, Act::ServerUp);
        }
        4 => {
            world.at(at, Act::ServerVanished).at(back, Act::ServerUp);
        }
        5 => {
            let until = Duration::from_millis(back);
            let side = random.size(0, 1);
            world.at(at, Act::Freeze { side, until });
        }
        6 => {
            let (side, other) = (random.size(0, 1), reading(random));
            world.at(at, Act::Read(side, other));
        }
        7 => {
            world.at(at, Act::ListenerClosed).at(back, Act::ServerUp);
        }
        _ => {
            world.at(at, Act::ServerUp);
        }
    }
}

/// The name leads to one server, to the other, to both or to none, and either may not be reached for a while.
fn rename(random: &mut Random, world: &mut World) {
    for _ in 0..random.pick(&[0, 1, 3, 10]) {
        let at = random.within(1, PEACE - 1);
        if random.one_in(2) {
            world.at(at, Act::Names(random.pick(&[&[0, 1], &[1, 0], &[1, 0, 1], &[1], &[0], &[]])));
        } else {
            let (server, door) = (random.size(0, 1), random.pick(&[Door::Refusing, Door::Silent]));
            let back = (at + random.within(1, 8000)).min(PEACE - 1);
            world.at(at, Act::Door(server, door)).at(back, Act::Door(server, Door::Open));
        }
    }
}

/// What a dialler without a link has still to send: all of it must arrive.
fn queued_without_link(dialler: &End) -> Vec<u32> {
    let is_resting = matches!(dialler.phase(), Phase::Dialling { .. } | Phase::Resting { .. });
    if !is_resting || dialler.closing_since.is_some() || !lossless(dialler.options.write_buffer) {
        return Vec::new();
    }
    let queued = usize::try_from(dialler.sender.queued()).unwrap();
    let accepted = &dialler.application.accepted;
    accepted[accepted.len() - queued..].to_vec()
}

/// Whoever was told that a message was received or taken was told the truth.
fn check_fates(world: &World) {
    let (dialler, options) = (&world.dialler, &world.setup.options);
    for end in world.ends().filter(|end| !end.is_gone) {
        let buffer = end.options.write_buffer;
        for (number, goal, outcome) in &end.fates {
            match outcome {
                Outcome::Confirmed => assert!(*goal == Goal::Received || end.stats().confirmed > 0, "{number}"),
                Outcome::Lost => assert_eq!(end.options.on_new_session, OnNewSession::Discard),
                Outcome::Dropped => assert_eq!(buffer.policy, Policy::Sliding),
                Outcome::TooLarge => panic!("{number} is not too large"),
            }
        }
        if !end.is_ended() && matches!(end.phase(), Phase::Up { .. }) && is_written(end) {
            assert_eq!(end.awaited, [], "nobody waits for ever: {:?} {:?}", end.role, end.stats());
        }
    }
    let arrived: HashSet<u32> = world.accepted.iter().flat_map(|end| messages(end, |_| {})).collect();
    let has_closed = world.ends().any(|end| end.closing_since.is_some());
    let has_died = world.accepted.iter().any(|end| end.is_gone);
    for (number, goal, outcome) in &dialler.fates {
        let is_certain = !has_closed && (*goal == Goal::Consumed || !has_died) && lossless(options[1].read_buffer);
        if *outcome == Outcome::Confirmed && is_certain {
            assert!(arrived.contains(number), "{number} was {goal:?}, they said");
        }
    }
}

/// Every end says that it ended; what no dialler is linked to has ended.
fn check_ends(world: &World) {
    for end in world.ends().filter(|end| !end.is_gone) {
        assert_eq!(end.is_ended(), end.application.is_over);
        if end.is_ended() {
            check_last_word(end);
        }
        let is_newest = std::ptr::eq(end, world.accepted.last().unwrap_or(end));
        let is_needed = is_newest && !world.dialler.is_ended();
        if end.role == Role::Accepted && !is_needed {
            let may_wait = matches!(end.phase(), Phase::Absent { .. }) && !end.options.session_timeout.is_zero();
            assert!(end.is_ended() || may_wait, "an accepted end lives as long as its session");
        }
    }
}

fn check_last_word(end: &End) {
    let Some(Seen::Closed { reason, undelivered }) = end.application.seen.last() else {
        panic!("Closed is the last item");
    };
    let ours = [Reason::ClosedHere, Reason::CloseTimeout, Reason::Aborted];
    if end.closing_since.is_some() {
        let has_ended_before = end.closing_since > end.ended_at;
        assert!(ours.contains(reason) || has_ended_before, "{reason:?}");
    } else if end.role == Role::Dialler {
        assert!(end.options.reconnect.is_none(), "a dialler ends only by its own side");
    }
    assert_eq!(*undelivered, end.stats().queued + end.stats().unconfirmed);
}

/// Everything that was sent has arrived and is confirmed, or nobody is there to send it.
fn is_settled(world: &World) -> bool {
    let ends = [Some(&world.dialler), world.accepted.last()];
    ends.into_iter().flatten().all(|end| end.is_gone || end.is_ended() || is_written(end))
}

fn is_written(end: &End) -> bool {
    let stats = end.stats();
    // A heartbeat may just be half written where there is hardly any room.
    (end.is_native() || end.sender.is_empty()) && stats.queued == 0 && stats.unconfirmed == 0
}

/// The network has healed, both ends read: the link is up, and everything arrives.
fn check_liveness(world: &World, queued: &[u32]) {
    let (dialler, server) = (&world.dialler, world.server());
    for end in [dialler, server] {
        assert!(matches!(end.phase(), Phase::Up { .. }), "{:?} {:?}", end.role, end.phase());
        assert!(is_written(end), "{:?}", end.stats());
        assert_eq!(end.receiver.ready(), 0);
    }
    let is_lossless = |from: &End, to: &End| lossless(from.options.write_buffer) && lossless(to.options.read_buffer);
    let last = usize::try_from(PROBES).unwrap();
    let tail = |numbers: &[u32]| numbers[numbers.len().saturating_sub(last)..].to_vec();
    if is_lossless(dialler, server) {
        let sent = &dialler.application.accepted;
        let got = messages(server, |_| {});
        assert_eq!(tail(&got), tail(sent), "what is sent on a good link arrives");
    }
    if is_lossless(server, dialler) {
        let sent = tail(&server.application.accepted);
        let got = messages(dialler, |_| {});
        assert!(got.ends_with(&sent), "{sent:?} {got:?}");
    }
    assert_eq!(dialler.application.lost, dialler.sender.lost(), "what was lost is told");
    assert_eq!(dialler.application.redelivered, dialler.sender.redelivered(), "what went again is told");
    let got: Vec<u32> = world.accepted.iter().flat_map(|end| messages(end, |_| {})).collect();
    if lossless(server.options.read_buffer) {
        for number in queued {
            assert!(got.contains(number), "{number} was queued and never arrived");
        }
    }
}

/// Nothing befell this run but what its own applications did.
fn check_health(world: &World, ending: Ending, is_eager: bool) {
    assert!(!world.has_impairments());
    let dialler = &world.dialler;
    let Some(server) = world.accepted.first() else {
        return assert!(dialler.is_ended() && ending != Ending::None, "closed before it was up");
    };
    let is_untouched = ending == Ending::None;
    if is_untouched {
        assert_eq!(world.accepted.len(), 1, "a healthy link never breaks");
        assert!(dialler.verdicts.is_empty() && server.verdicts.is_empty());
    }
    for (side, from, to) in [(0, dialler, server), (1, server, dialler)] {
        if dialler.is_native() && matches!(ending, Ending::Close(_)) {
            check_goodbye(ending == Ending::Close(side), from);
        }
        if !lossless(from.options.write_buffer) || !lossless(to.options.read_buffer) {
            continue;
        }
        let has_delivered = ending == Ending::Close(side) && is_eager && closed_in_time(from);
        if is_untouched || has_delivered {
            let mut got = messages(to, |_| {});
            if side == 1 {
                got.truncate(from.application.accepted.len());
            }
            assert_eq!(got, from.application.accepted, "all of it, in order");
        }
    }
}

/// A whole exchange of goodbyes leaves no doubt on the side that closes.
fn check_goodbye(is_closer: bool, end: &End) {
    let limit = end.closing_since.map(|since| since + end.options.close_timeout);
    match end.application.seen.last() {
        Some(Seen::Closed { reason: Reason::ClosedHere, undelivered }) if is_closer && end.ended_at < limit => {
            assert_eq!(*undelivered, 0, "whoever answers has delivered it, or will");
        }
        Some(Seen::Closed { reason, .. }) if !is_closer && end.role == Role::Accepted => {
            // The closer may have run out of time and gone.
            let ends = [Reason::ClosedByPeer, Reason::Eof, Reason::Reset, Reason::SessionExpired];
            assert!(ends.contains(reason), "{reason:?}");
        }
        _ => {}
    }
}

fn closed_in_time(end: &End) -> bool {
    let last = end.application.seen.last();
    let is_whole = matches!(last, Some(Seen::Closed { reason: Reason::ClosedHere, undelivered: 0 }));
    let limit = end.closing_since.map(|since| since + end.options.close_timeout);
    is_whole && end.ended_at < limit
}
