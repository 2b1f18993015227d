//! Claims of the original's wire, and of the reading half by itself.

use std::time::Duration;

use netasync::proto::classic::encode_header;
use netasync::proto::events::Reason;
use netasync::proto::halves::{Front, Receiver};
use netasync::proto::options::{Buffer, Policy, Protocol};
use netasync::proto::wire::Numbers;

use crate::application::{Reading, Writing};
use crate::arrange::{TIMEOUT, few, is_up, laden, last_reason, options, setup, world};
use crate::oracle::messages;
use crate::random::Random;
use crate::world::Act;

#[test]
fn a_peer_that_died_unread_is_found_once_the_reader_returns() {
    let mut setup = setup(Protocol::Classic);
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
    let mut setup = setup(Protocol::Classic);
    setup.reading[0] = Reading::Absent;
    setup.writing[1] = few(10);
    setup.options[0].read_buffer.count = 3;
    let mut world = world(setup);
    world.at(5_000, Act::Reset).run_until(300_000);
    assert_eq!(world.accepted.len(), 2);
    assert!(is_up(&world.dialler));
}

#[test]
fn a_closing_dialler_comes_back_after_a_break_to_deliver_the_rest() {
    let mut world = world(laden(Protocol::Classic));
    world.at(15, Act::Close(0)).at(60, Act::Reset).run_until(10_000);
    assert_eq!(last_reason(&world.dialler), Reason::ClosedHere);
    assert_eq!((world.accepted.len(), world.dialler.sender.queued()), (2, 0));
    assert_eq!(messages(world.server(), |_| {}).last(), Some(&199));
}

#[test]
fn queued_replies_arrive_although_the_peer_has_ended_its_stream() {
    let mut setup = setup(Protocol::Classic);
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
fn a_hundred_restarts_lose_nothing_that_was_still_queued() {
    let mut setup = setup(Protocol::Classic);
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
    let mut options = options(Protocol::Classic);
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
