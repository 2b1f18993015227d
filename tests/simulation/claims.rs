//! Claims with a name, each one life arranged on purpose (`faults.md`, the cases marked S).

use std::time::Duration;

use netasync::proto::classic::encode_header;
use netasync::proto::endpoint::{Phase, Role};
use netasync::proto::events::Reason;
use netasync::proto::halves::{Front, Receiver};
use netasync::proto::options::{Buffer, Options, Policy, Protocol, Retry, Settings};
use netasync::proto::wire::Numbers;

use crate::application::{Reading, Writing};
use crate::end::End;
use crate::grammar::Seen;
use crate::network::Shape;
use crate::random::Random;
use crate::world::{Act, Setup, World, messages};

const TIMEOUT: Duration = Duration::from_secs(2);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

fn options() -> Options {
    let settings = Settings {
        heartbeat_interval: 0.5,
        heartbeat_timeout: Some(TIMEOUT.as_secs_f64()),
        close_timeout: CLOSE_TIMEOUT.as_secs_f64(),
        reconnect: Retry::fixed(0.25).ok(),
        protocol: Protocol::Classic,
        ..Settings::default()
    };
    settings.check().unwrap()
}

fn setup() -> Setup {
    Setup {
        shape: Shape {
            latency: Duration::from_millis(5),
            jitter: Duration::ZERO,
            bytes_per_second: 1 << 20,
            segment: 1460,
            room: 16_384,
        },
        options: [options(), options()],
        reading: [Reading::Eager; 2],
        writing: [Writing::NOTHING; 2],
        echoes: false,
        is_server_up: true,
    }
}

fn world(setup: Setup) -> World {
    World::new(setup, Random::new(1))
}

fn few(count: u32) -> Writing {
    Writing { period: Duration::from_millis(10), burst: 10, longest: 100, left: count }
}

fn is_up(end: &End) -> bool {
    matches!(end.phase(), Phase::Up { .. })
}

fn last_reason(end: &End) -> Reason {
    match end.application.seen.last() {
        Some(Seen::Closed { reason, .. } | Seen::Disconnected(reason)) => *reason,
        other => panic!("{other:?} is no end"),
    }
}

#[test]
fn slow_reader_is_not_taken_for_a_dead_peer() {
    let mut setup = setup();
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

#[test]
fn a_client_may_start_before_its_server() {
    let mut setup = setup();
    setup.is_server_up = false;
    setup.writing[0] = few(50);
    let mut world = world(setup);
    world.at(30_000, Act::ServerUp).run_until(31_000);
    assert_eq!(world.dialler.application.seen, [Seen::Disconnected(Reason::Refused), Seen::Connected]);
    assert_eq!(messages(world.server(), |_| {}).len(), 50);
    world.check_deliveries();
}

#[test]
fn a_dead_peer_is_found_within_its_timeout() {
    let holes = [[true, true], [false, true]];
    for (act, at) in holes
        .iter()
        .flat_map(|directions| (10_000..10_600).step_by(50).map(|at| (*directions, at)))
        .map(|(directions, at)| (Act::Hole { directions }, at))
        .chain((10_000..10_600).step_by(50).map(|at| (Act::ServerVanished, at)))
    {
        let mut world = world(setup());
        world.at(at, act).run_until(9_000);
        let found = world.run_while(20_000, |world| is_up(&world.dialler));
        let from = Duration::from_millis(at);
        // Counted from the last byte, which may be an interval old.
        assert!(found + Duration::from_millis(510) >= from + TIMEOUT);
        assert!(found <= from + TIMEOUT + Duration::from_millis(10));
        assert_eq!(last_reason(&world.dialler), Reason::HeartbeatTimeout);
    }
}

#[test]
fn a_peer_stopped_for_less_than_the_timeout_raises_no_alarm() {
    let mut world = world(setup());
    for round in 0..100 {
        let at = 5_000 + round * 3_000;
        let until = Duration::from_millis(at + 1_400);
        let side = usize::from(round % 2 == 0);
        world.at(at, Act::Freeze { side, until });
    }
    world.run_until(320_000);
    assert!(is_up(&world.dialler) && world.accepted.len() == 1);
}

#[test]
fn a_peer_that_died_unread_is_found_once_the_reader_returns() {
    let mut setup = setup();
    setup.reading[0] = Reading::Absent;
    setup.writing[1] = few(10);
    setup.options[0].read_buffer.count = 3;
    let mut world = world(setup);
    world.at(5_000, Act::ServerVanished).at(60_000, Act::Read(0, Reading::Eager)).run_until(59_000);
    let found = world.run_while(70_000, |world| is_up(&world.dialler));
    assert_eq!(found, Duration::from_millis(60_000) + TIMEOUT);
    assert_eq!(messages(&world.dialler, |_| {}).len(), 10);
}

#[test]
fn a_full_buffer_is_no_reason_to_break_the_next_link() {
    let mut setup = setup();
    setup.reading[0] = Reading::Absent;
    setup.writing[1] = few(10);
    setup.options[0].read_buffer.count = 3;
    let mut world = world(setup);
    world.at(5_000, Act::Reset).run_until(300_000);
    assert_eq!(world.accepted.len(), 2);
    assert!(is_up(&world.dialler));
}

#[test]
fn a_closing_dialler_waits_until_its_server_is_back() {
    let mut setup = setup();
    setup.writing[0] = few(20);
    setup.is_server_up = false;
    let mut world = world(setup);
    world.at(1_000, Act::Close(0)).at(2_000, Act::ServerUp).run_until(6_000);
    assert_eq!(last_reason(&world.dialler), Reason::ClosedHere);
    assert_eq!(messages(world.server(), |_| {}).len(), 20);
}

#[test]
fn a_closing_dialler_without_a_server_says_what_it_could_not_deliver() {
    let mut setup = setup();
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

/// A dialler with more to send than the network takes at once.
fn laden() -> Setup {
    let mut setup = setup();
    setup.shape.room = 300;
    setup.writing[0] = few(200);
    setup.writing[0].burst = 200;
    setup
}

#[test]
fn a_closing_dialler_comes_back_after_a_break_to_deliver_the_rest() {
    let mut world = world(laden());
    world.at(15, Act::Close(0)).at(60, Act::Reset).run_until(10_000);
    assert_eq!(last_reason(&world.dialler), Reason::ClosedHere);
    assert_eq!((world.accepted.len(), world.dialler.sender.queued()), (2, 0));
    assert_eq!(messages(world.server(), |_| {}).last(), Some(&199));
}

#[test]
fn our_own_closing_names_the_end_whatever_the_link_does() {
    let mut setup = laden();
    setup.options[0].reconnect = None;
    let mut world = world(setup);
    world.at(15, Act::Close(0)).at(60, Act::Reset).run_until(10_000);
    assert_eq!(last_reason(&world.dialler), Reason::ClosedHere);
}

#[test]
fn closing_under_fire_destroys_nothing_on_its_way_out() {
    for closer in 0..2 {
        let mut setup = laden();
        setup.writing[1] = setup.writing[0];
        let mut world = world(setup);
        world.at(15, Act::Close(closer)).run_until(10_000);
        let first = &world.accepted[0];
        let (from, to) = if closer == 0 { (&world.dialler, first) } else { (first, &world.dialler) };
        assert_eq!(last_reason(from), Reason::ClosedHere);
        let arrived = messages(to, |_| {});
        assert_eq!(arrived[..200], (0..200).collect::<Vec<u32>>()[..]);
    }
}

#[test]
fn queued_replies_arrive_although_the_peer_has_ended_its_stream() {
    let mut setup = setup();
    setup.shape.room = 300;
    setup.writing[1] = few(50);
    setup.writing[1].burst = 50;
    let mut world = world(setup);
    world.at(12, Act::Close(0)).run_until(10_000);
    let server = world.server();
    assert_eq!(last_reason(server), Reason::Eof);
    assert_eq!((server.sender.queued(), server.stats().accepted), (0, 50));
}

#[test]
fn without_reconnect_the_first_break_is_the_end() {
    let mut setup = setup();
    setup.options[0].reconnect = None;
    let mut world = world(setup);
    world.at(1_000, Act::ServerKilled).run_until(2_000);
    let closed = Seen::Closed { reason: Reason::Eof, undelivered: 0 };
    assert_eq!(world.dialler.application.seen, [Seen::Connected, Seen::Disconnected(Reason::Eof), closed]);
}

#[test]
fn closing_at_every_moment_ends_with_one_closed() {
    let acts: [fn(usize) -> Act; 2] = [Act::Close, Act::Abort];
    for (act, side) in acts.iter().flat_map(|act| [(act, 0), (act, 1)]) {
        for at in 1..200 {
            let mut setup = setup();
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

#[test]
fn a_hundred_restarts_lose_nothing_that_was_still_queued() {
    let mut setup = setup();
    setup.writing[0] = Writing { period: Duration::from_millis(20), burst: 1, longest: 100, left: 5_000 };
    let mut world = world(setup);
    for round in 1..=100 {
        world.at(round * 1_000, Act::ServerKilled).at(round * 1_000 + 200, Act::ServerUp);
    }
    world.run_until(120_000);
    world.check_deliveries();
    assert_eq!(world.accepted.len(), 101);
    let arrived: usize = world.accepted.iter().map(|end| messages(end, |_| {}).len()).sum();
    let confirmed = usize::try_from(world.dialler.stats().confirmed).unwrap();
    assert_eq!(confirmed, 5_000);
    // At most once: what a killed server had not read is gone, and nothing else.
    assert!(arrived >= 5_000 - 100 * 5, "{arrived}");
}

fn receiver(count: usize) -> Receiver {
    let mut options = options();
    options.read_buffer = Buffer { policy: Policy::Fixed, count, max_bytes: 1 << 30 };
    Receiver::new(&options, Duration::ZERO)
}

fn frame(payload: &[u8]) -> Vec<u8> {
    [&encode_header(payload.len())[..], payload].concat()
}

#[test]
fn a_frame_cut_at_any_offset_never_gives_a_partial_message() {
    let whole = frame(&[7; 1024]);
    for offset in 0..=whole.len() {
        let mut receiver = receiver(10);
        receiver.feed(&whole[..offset], Numbers::default(), Duration::ZERO);
        let is_partial = offset != 0 && offset != whole.len();
        assert_eq!(receiver.link_down(), is_partial);
        assert_eq!(receiver.front().is_some(), offset == whole.len());
    }
}

#[test]
fn a_dripped_frame_ends_its_link_at_the_frame_deadline() {
    let mut receiver = receiver(10);
    receiver.feed(&encode_header(1_000_000), Numbers::default(), Duration::ZERO);
    let mut now = Duration::ZERO;
    loop {
        now += Duration::from_millis(500);
        if let Some(reason) = receiver.judge(now) {
            assert_eq!(reason, Reason::SlowFrame);
            break;
        }
        receiver.feed(&[1], Numbers::default(), now);
    }
    assert!(now >= TIMEOUT && now <= TIMEOUT + Duration::from_millis(500));
}

#[test]
fn an_honest_slow_link_is_not_slow() {
    let mut receiver = receiver(10);
    let whole = frame(&vec![7; 1 << 20]);
    for (tenth, chunk) in whole.chunks(1024).enumerate() {
        let now = Duration::from_millis(100) * u32::try_from(tenth).unwrap();
        assert_eq!(receiver.judge(now), None);
        receiver.feed(chunk, Numbers::default(), now);
    }
    assert!(receiver.has_message());
}

#[test]
fn ten_thousand_frames_cut_a_thousand_ways_are_the_same_messages() {
    let mut random = Random::new(11);
    let payloads: Vec<Vec<u8>> = (0..10_000u32).map(|number| number.to_be_bytes().repeat(random.size(1, 6))).collect();
    let stream: Vec<u8> = payloads.iter().flat_map(|payload| frame(payload)).collect();
    for way in 0..1000 {
        let mut receiver = receiver(20_000);
        let (mut rest, longest) = (&stream[..], random.size(2, 3000));
        while !rest.is_empty() {
            let cut = random.size(1, longest).min(rest.len());
            receiver.feed(&rest[..cut], Numbers::default(), Duration::ZERO);
            rest = &rest[cut..];
        }
        for payload in &payloads {
            assert_eq!(receiver.front(), Some(Front::Message(payload)), "way {way}");
            receiver.pop();
        }
        assert_eq!(receiver.front(), None);
    }
}

#[test]
fn an_accepted_end_never_shows_disconnected() {
    let mut world = world(setup());
    world.at(1_000, Act::Reset).run_until(5_000);
    let first = &world.accepted[0];
    assert_eq!((first.role, last_reason(first)), (Role::Accepted, Reason::Reset));
    assert_eq!(first.application.seen.len(), 2);
}
