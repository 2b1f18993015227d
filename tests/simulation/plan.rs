//! A run drawn from its seed: what the ends are, what befalls them, and what must have come of it.

use std::time::Duration;

use netasync::proto::endpoint::{Phase, Role};
use netasync::proto::events::Reason;
use netasync::proto::options::{Buffer, Jitter, Options, Policy, Protocol, Retry, Settings};

use crate::application::{Reading, Writing};
use crate::bounds::lossless;
use crate::end::End;
use crate::grammar::Seen;
use crate::network::Shape;
use crate::random::Random;
use crate::world::{Act, Setup, World, messages};

/// The network does its worst until here; from here on it is healthy and both ends read.
const PEACE: u64 = 40_000;
/// Every end that lost its peer has found that out.
const SETTLED: u64 = PEACE + 40_000;
const END: u64 = SETTLED + 20_000;
const PROBES: u32 = 20;

/// One whole run; panics where a promise is broken.
pub fn run(seed: u64) {
    let mut random = Random::new(seed);
    let is_healthy = seed.is_multiple_of(3);
    let setup = setup(&mut random, is_healthy);
    let is_eager = setup.reading == [Reading::Eager; 2];
    let mut world = World::new(setup, random.split());
    let closer = closing(&mut random, &mut world);
    if !is_healthy {
        for _ in 0..random.within(1, 8) {
            fault(&mut random, &mut world);
        }
    }
    world.run_until(PEACE - 1);
    world
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
    world.check_deliveries();
    check_ends(&world);
    if !world.dialler.is_ended() {
        check_liveness(&world, &queued);
    }
    if is_healthy {
        check_health(&world, closer, is_eager);
    }
}

fn setup(random: &mut Random, is_healthy: bool) -> Setup {
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
    // This wire agrees on nothing: who waits less than the other's interval is wrong.
    let intervals = [random.within(200, 1000), random.within(200, 1000)];
    let slowest = intervals[0].max(intervals[1]);
    let longest = if is_tiny || shape.segment < 100 { &[0, 30][..] } else { &[0, 30, 300, 5000] };
    Setup {
        shape: Shape { latency, jitter, ..shape },
        options: intervals.map(|interval| options(random, interval, slowest, is_healthy)),
        reading: [reading(random), reading(random)],
        writing: [writing(random, longest), writing(random, longest)],
        echoes: random.one_in(3),
        is_server_up: is_healthy || !random.one_in(4),
    }
}

fn options(random: &mut Random, interval: u64, slowest: u64, is_healthy: bool) -> Options {
    let timeout = slowest * random.within(3, 5) + 400;
    let maximum = random.within(200, 4000);
    let retry =
        Retry::new(0.1, 2.0, Duration::from_millis(maximum).as_secs_f64(), random.pick(&[Jitter::Full, Jitter::None]));
    let is_once = !is_healthy && random.one_in(6);
    let settings = Settings {
        heartbeat_interval: Duration::from_millis(interval).as_secs_f64(),
        heartbeat_timeout: Some(Duration::from_millis(timeout).as_secs_f64()),
        open_timeout: Duration::from_millis(random.within(500, 5000)).as_secs_f64(),
        close_timeout: Duration::from_millis(random.within(500, 5000)).as_secs_f64(),
        read_buffer: buffer(random),
        write_buffer: buffer(random),
        reconnect: retry.ok().filter(|_| !is_once),
        protocol: Protocol::Classic,
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

/// Every other run one side closes or aborts.
fn closing(random: &mut Random, world: &mut World) -> Option<usize> {
    let side = random.size(0, 1);
    let at = random.within(1, PEACE - 1);
    match random.within(0, 5) {
        0 | 1 => {
            world.at(at, Act::Close(side));
            Some(side)
        }
        2 => {
            world.at(at, Act::Abort(side));
            Some(side)
        }
        _ => None,
    }
}

fn fault(random: &mut Random, world: &mut World) {
    let at = random.within(1, PEACE - 1);
    let lasts = random.pick(&[10, 300, 1500, 5000, 15_000]);
    let back = (at + random.within(1, lasts)).min(PEACE - 1);
    match random.within(0, 7) {
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
        _ => {
            world.at(at, Act::ServerUp);
        }
    }
}

/// What a dialler without a link has still to send: all of it must arrive.
fn queued_without_link(dialler: &End) -> Vec<u32> {
    let is_resting = matches!(dialler.phase(), Phase::Dialling | Phase::Resting { .. });
    if !is_resting || dialler.closing_since.is_some() || !lossless(dialler.options.write_buffer) {
        return Vec::new();
    }
    let queued = usize::try_from(dialler.sender.queued()).unwrap();
    let accepted = &dialler.application.accepted;
    accepted[accepted.len() - queued..].to_vec()
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
            assert!(end.is_ended(), "an accepted end lives as long as its link");
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
    assert_eq!(*undelivered, end.stats().queued);
}

/// The network has healed, both ends read: the link is up, and everything arrives.
fn check_liveness(world: &World, queued: &[u32]) {
    let (dialler, server) = (&world.dialler, world.server());
    for end in [dialler, server] {
        assert!(matches!(end.phase(), Phase::Up { .. }), "{:?} {:?}", end.role, end.phase());
        assert!(end.sender.is_empty(), "{:?}", end.stats());
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
    let got: Vec<u32> = world.accepted.iter().flat_map(|end| messages(end, |_| {})).collect();
    if lossless(server.options.read_buffer) {
        for number in queued {
            assert!(got.contains(number), "{number} was queued and never arrived");
        }
    }
}

/// Nothing befell this run but what its own applications did.
fn check_health(world: &World, closer: Option<usize>, is_eager: bool) {
    let (dialler, server) = (&world.dialler, &world.accepted[0]);
    assert!(!world.has_impairments());
    let is_untouched = closer.is_none();
    if is_untouched {
        assert_eq!(world.accepted.len(), 1, "a healthy link never breaks");
        assert!(dialler.verdicts.is_empty() && server.verdicts.is_empty());
    }
    for (side, from, to) in [(0, dialler, server), (1, server, dialler)] {
        if !lossless(from.options.write_buffer) || !lossless(to.options.read_buffer) {
            continue;
        }
        let has_delivered = closer == Some(side) && is_eager && closed_in_time(from);
        if is_untouched || has_delivered {
            let mut got = messages(to, |_| {});
            if side == 1 {
                got.truncate(from.application.accepted.len());
            }
            assert_eq!(got, from.application.accepted, "all of it, in order");
        }
    }
}

fn closed_in_time(end: &End) -> bool {
    let last = end.application.seen.last();
    let is_whole = matches!(last, Some(Seen::Closed { reason: Reason::ClosedHere, undelivered: 0 }));
    let limit = end.closing_since.map(|since| since + end.options.close_timeout);
    is_whole && end.ended_at < limit
}
