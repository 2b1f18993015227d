//! Claims of our own wire about sessions: exactly once over any break that both processes outlive, and an
//! exact account where one does not.

use std::time::Duration;

use netasync::proto::events::Reason;
use netasync::proto::options::{OnNewSession, Protocol};
use netasync::proto::receipts::{Goal, Outcome};

use crate::application::{Reading, Writing};
use crate::arrange::{CLOSE_TIMEOUT, few, is_up, laden, last_reason, setup, world};
use crate::grammar::Seen;
use crate::native::end_of;
use crate::network::Cut;
use crate::oracle::messages;
use crate::world::{Act, Setup, World};

const CUTS: [Cut; 3] = [Cut::Fin, Cut::Reset, Cut::Silence];
const SESSION_TIMEOUT: Duration = Duration::from_secs(20);

fn held(mut setup: Setup) -> Setup {
    for options in &mut setup.options {
        options.on_new_session = OnNewSession::Redeliver;
        options.session_timeout = SESSION_TIMEOUT;
    }
    setup
}

fn ours() -> Setup {
    held(setup(Protocol::Native))
}

/// Twenty messages each way, in short segments, so that every cut falls among them.
fn exchange() -> Setup {
    let mut setup = ours();
    setup.writing = [Writing { burst: 5, longest: 40, ..few(20) }; 2];
    setup.shape.segment = 400;
    setup
}

fn numbers(count: u32) -> Vec<u32> {
    (0..count).collect()
}

/// Both applications have everything, once, in order, and both ends know it.
fn assert_exactly_once(world: &World, count: u32, told: &str) {
    let server = &world.accepted[0];
    assert_eq!(world.accepted.len(), 1, "one session: {told}");
    assert!(is_up(&world.dialler) && is_up(server), "{told}: {:?}", world.ends_in_brief());
    assert_eq!(messages(server, |_| {}), numbers(count), "{told}");
    assert_eq!(messages(&world.dialler, |_| {}), numbers(count), "{told}");
    for end in [&world.dialler, server] {
        let stats = end.stats();
        assert_eq!((stats.confirmed, stats.lost), (u64::from(count), 0), "{told}");
        // What the dialler began before its first ACK had arrived belongs to a session that never was.
        assert!(stats.redelivered == 0 || world.dialler.sessions > 1, "{told}");
    }
    world.check_deliveries();
}

/// Each that asked was told, and told well.
fn assert_fates(world: &World, told: &str) {
    for end in [&world.dialler, &world.accepted[0]] {
        assert_eq!(end.awaited, [], "{told}");
        assert!(end.fates.iter().all(|(_, _, outcome)| *outcome == Outcome::Confirmed), "{told}");
    }
}

/// How many bytes each direction carries when nothing is cut.
fn undisturbed(setup: Setup, count: u32) -> [usize; 2] {
    let mut world = world(setup);
    world.run_until(450);
    assert_exactly_once(&world, count, "undisturbed");
    [world.dialler.stats().bytes_sent, world.server().stats().bytes_sent]
        .map(|bytes| usize::try_from(bytes).unwrap() + 88)
}

/// F 49.
#[test]
fn a_cut_at_every_byte_of_each_direction_delivers_exactly_once() {
    let bytes = undisturbed(exchange(), 20);
    let mut resumed = 0;
    for (direction, cut) in (0..2).flat_map(|direction| CUTS.map(|cut| (direction, cut))) {
        for at in 0..=bytes[direction] {
            let mut world = world(exchange());
            world.network.cuts.push_back((direction, at, cut));
            world.run_until(if cut == Cut::Silence { 18_000 } else { 5_000 });
            assert_exactly_once(&world, 20, &format!("{cut:?} of {direction} at {at}"));
            assert_fates(&world, &format!("{cut:?} of {direction} at {at}"));
            resumed += world.dialler.application.resumed;
        }
    }
    assert!(resumed > 3000, "{resumed}");
}

#[test]
fn a_cut_at_every_byte_between_parts_delivers_exactly_once() {
    let in_parts = || {
        let mut setup = exchange();
        setup.writing = [Writing { burst: 3, longest: 150, ..few(6) }; 2];
        setup.part = 23;
        setup
    };
    let bytes = undisturbed(in_parts(), 6);
    for (direction, at) in (0..2).flat_map(|direction| (88..=bytes[direction]).map(move |at| (direction, at))) {
        let mut world = world(in_parts());
        world.network.cuts.push_back((direction, at, if at % 2 == 0 { Cut::Fin } else { Cut::Reset }));
        world.run_until(4_000);
        assert_exactly_once(&world, 6, &format!("{direction} at {at}"));
    }
}

#[test]
fn control_frames_pass_between_the_parts_of_a_message() {
    let pongs = [1 << 18, 400].map(|part| {
        let mut setup = ours();
        // A message of up to 6000 bytes takes seconds on this line.
        setup.shape.bytes_per_second = 1500;
        setup.shape.room = 300;
        setup.shape.segment = 100;
        setup.part = part;
        setup.writing[0] = Writing { burst: 1, longest: 6000, ..few(5) };
        let mut world = world(setup);
        let done = world.run_while(60_000, |world| world.dialler.stats().confirmed < 5);
        assert_eq!(messages(world.server(), |_| {}), numbers(5));
        assert!(world.dialler.verdicts.is_empty() && world.server().verdicts.is_empty());
        assert!(done > Duration::from_secs(5), "{done:?}");
        world.server().pongs
    });
    assert!(pongs[1] > 2 * pongs[0], "{pongs:?}");
}

/// F 50, ten thousand pairs in the soak.
#[test]
fn two_cuts_also_within_the_resume_itself_deliver_exactly_once() {
    let bytes = undisturbed(exchange(), 20);
    let mut random = crate::random::Random::new(50);
    let rounds = if std::env::var_os("NETASYNC_SOAK").is_some() { 10_000 } else { 3000 };
    for round in 0..rounds {
        let mut world = world(exchange());
        let direction = random.size(0, 1);
        let cuts = [random.size(0, bytes[direction]), random.size(0, if round % 2 == 0 { 240 } else { 1200 })];
        let directions = [direction, random.size(0, 1)];
        for (direction, at) in directions.into_iter().zip(cuts) {
            world.network.cuts.push_back((direction, at, random.pick(&[Cut::Fin, Cut::Reset])));
        }
        world.run_until(5_000);
        if !is_up(&world.dialler) {
            // Heartbeats have carried it to its last cut.
            world.run_until(7_000);
        }
        assert_exactly_once(&world, 20, &format!("{directions:?} {cuts:?}"));
    }
}

/// F 50, too.
#[test]
fn a_link_that_is_cut_a_thousand_times_still_delivers_exactly_once() {
    let mut setup = ours();
    setup.writing = [Writing { period: Duration::from_millis(100), burst: 1, longest: 30, left: 500 }; 2];
    let mut world = world(setup);
    for round in 1..=1000 {
        world.at(round * 300 + round % 37, Act::Reset);
    }
    world.run_until(400_000);
    assert_exactly_once(&world, 500, "a thousand resets");
    assert!(world.dialler.stats().links > 900);
}

/// F 53.
#[test]
fn a_restarted_server_is_given_in_order_what_it_is_not_known_to_have_taken() {
    for at in (50..400).step_by(3) {
        let mut setup = ours();
        setup.writing[0] = Writing { period: Duration::from_millis(5), burst: 2, longest: 60, left: 150 };
        setup.reading[1] = Reading::Every { period: Duration::from_millis(10), count: 3 };
        let mut world = world(setup);
        world.at(at, Act::ServerKilled).at(at + 40, Act::ServerUp).run_until(10_000);
        let [first, second] = &world.accepted[..] else { panic!("one new session") };
        let (before, after) = (messages(first, |_| {}), messages(second, |_| {}));
        let stats = world.dialler.stats();
        assert_eq!((stats.confirmed, stats.lost, stats.accepted), (150, 0, 150));
        assert_eq!(world.dialler.application.redelivered, stats.redelivered, "what is told is true");
        let from = after[0];
        assert_eq!(after, (from..150).collect::<Vec<u32>>(), "in order, nothing left out");
        assert!(u64::from(from) <= before.len() as u64, "nothing is skipped");
        assert!(stats.redelivered >= before.len() as u64 - u64::from(from), "nothing comes again that was not told");
        world.check_deliveries();
    }
}

#[test]
fn discarding_gives_up_exactly_what_it_says() {
    for at in (50..400).step_by(7) {
        let mut setup = ours();
        setup.options[0].on_new_session = OnNewSession::Discard;
        setup.writing[0] = Writing { period: Duration::from_millis(5), burst: 2, longest: 60, left: 150 };
        let mut world = world(setup);
        world.at(at, Act::ServerKilled).at(at + 40, Act::ServerUp).run_until(10_000);
        let stats = world.dialler.stats();
        assert_eq!((stats.confirmed + stats.lost, stats.redelivered), (150, 0));
        assert_eq!(world.dialler.application.lost, stats.lost);
        world.check_deliveries();
    }
}

#[test]
fn a_session_that_nobody_returns_to_expires_and_says_what_was_not_delivered() {
    let mut setup = ours();
    setup.writing = [few(30); 2];
    let mut world = world(setup);
    world.at(1_000, Act::Hole { directions: [true, true] });
    world.at(1_500, Act::Write(1, Writing { burst: 7, ..few(7) }));
    world.run_until(40_000);
    assert_eq!(end_of(world.server()), (Reason::SessionExpired, 7));
    world.at(40_000, Act::Heal).run_until(50_000);
    assert!(is_up(&world.dialler) && world.accepted.len() == 2);
    assert_eq!(messages(&world.accepted[0], |_| {}), numbers(30));
    assert_eq!(world.dialler.sessions, 2);
    world.check_deliveries();
}

/// Before the break, after it, and in the middle of the return.
#[test]
fn nobody_waits_for_a_dialler_that_cannot_come_back() {
    let mut ended_for = std::collections::BTreeMap::<&str, u32>::new();
    for (at, cut) in
        (900..1_200).step_by(3).flat_map(|at| [(at, Act::Reset), (at, Act::Hole { directions: [true; 2] })])
    {
        let mut setup = ours();
        setup.writing = [Writing { period: Duration::from_millis(10), burst: 2, longest: 50, left: 400 }; 2];
        setup.options[1].heartbeat_timeout = Duration::from_millis(1_500);
        let mut world = world(setup);
        world.at(1_000, cut).at(at, Act::ListenerClosed).at(30_000, Act::Heal).run_until(5_000);
        for end in &world.accepted {
            assert!(end.is_deserted && (end.is_ended() || is_up(end)), "{at} {cut:?}");
            if let Some(reason) = end.ended_for() {
                *ended_for.entry(reason.name()).or_default() += 1;
                assert!(end.ended_at <= Some(Duration::from_millis(2_600)), "{reason:?} at {:?}", end.ended_at);
            }
        }
        world.check_deliveries();
    }
    let reasons: Vec<&str> = ended_for.keys().copied().collect();
    assert_eq!(reasons, ["HEARTBEAT_TIMEOUT", "RESET", "SESSION_EXPIRED"], "{ended_for:?}");
}

/// F 50: idle for longer than the expiry.
#[test]
fn a_link_that_is_up_never_expires_however_idle() {
    let mut world = world(ours());
    world.run_until(200_000);
    world.at(200_000, Act::Write(0, few(5))).run_until(201_000);
    assert_eq!(messages(world.server(), |_| {}), numbers(5));
    assert_eq!((world.accepted.len(), world.dialler.stats().links), (1, 1));
}

/// F 55.
#[test]
fn a_client_that_returns_before_the_server_noticed_fences_the_old_link() {
    for at in (200..2_000).step_by(23) {
        let mut setup = ours();
        setup.writing = [Writing { period: Duration::from_millis(10), burst: 3, longest: 50, left: 120 }; 2];
        setup.options[0].heartbeat_timeout = Duration::from_millis(300);
        setup.options[1].heartbeat_timeout = Duration::from_secs(60);
        let mut world = world(setup);
        world.network.cuts.push_back((0, at, Cut::Silence));
        world.run_until(10_000);
        assert_exactly_once(&world, 120, &format!("fenced at {at}"));
        let seen = &world.server().application.seen;
        assert!(seen.contains(&Seen::Disconnected(Reason::Replaced)), "{at}");
    }
}

#[test]
fn a_closing_dialler_returns_until_all_is_confirmed() {
    for (at, cut) in (30..160).flat_map(|at| [(at, Act::Reset), (at, Act::Hole { directions: [true, true] })]) {
        let mut world = world(held(laden(Protocol::Native)));
        for options in [&mut world.setup.options[1], &mut world.dialler.options] {
            options.heartbeat_timeout = Duration::from_millis(1500);
        }
        world.at(20, Act::Close(0)).at(at, cut).at(at + 300, Act::Heal).run_until(10_000);
        let stats = world.dialler.stats();
        assert_eq!(world.dialler.application.accepted.len() as u64, stats.accepted);
        let taken = messages(&world.accepted[0], |_| {});
        match end_of(&world.dialler) {
            (Reason::ClosedHere, 0) => {
                assert_eq!((taken, stats.confirmed), (world.dialler.application.accepted.clone(), stats.accepted))
            }
            (Reason::CloseTimeout, undelivered) => {
                assert!(taken.len() as u64 + undelivered >= stats.accepted, "too large at times, never too small");
            }
            other => panic!("{other:?} at {at}"),
        }
        assert!(world.dialler.sessions <= 1, "what is closed is not reborn");
        world.check_deliveries();
    }
}

#[test]
fn a_closing_server_waits_for_the_return() {
    for at in 30..160 {
        let mut setup = ours();
        setup.writing[1] = Writing { burst: 100, ..few(100) };
        setup.shape.room = 400;
        let mut world = world(setup);
        world.at(40, Act::Close(1)).at(at, Act::Reset).run_until(10_000);
        let first = &world.accepted[0];
        let has_heard = world.dialler.application.seen.contains(&Seen::Disconnected(Reason::ClosedByPeer));
        match end_of(first) {
            (Reason::ClosedHere, undelivered) => assert_eq!(undelivered, 0, "{at}"),
            (reason, _) => assert!(reason == Reason::CloseTimeout && has_heard, "{reason:?} at {at}"),
        }
        assert!(messages(&world.dialler, |_| {}).starts_with(&numbers(100)), "{at}");
        assert!(is_up(&world.dialler), "and the dialler goes on with the next session");
        world.check_deliveries();
    }
}

#[test]
fn a_goodbye_cut_at_any_byte_is_said_again() {
    for (direction, bytes) in (0..2).flat_map(|direction| (0..80).map(move |bytes| (direction, bytes))) {
        for (cut, session_timeout) in [(Cut::Fin, 20), (Cut::Reset, 20), (Cut::Fin, 0), (Cut::Reset, 0)] {
            let mut setup = exchange();
            setup.options[1].session_timeout = Duration::from_secs(session_timeout);
            let mut world = world(setup);
            // Everything is confirmed, and the link is quiet.
            world.run_until(3_000);
            assert_eq!(world.dialler.stats().confirmed, 20);
            world.network.cut_in((direction, bytes, cut));
            world.at(3_000, Act::Close(0)).run_until(3_000 + 2 * u64::try_from(CLOSE_TIMEOUT.as_millis()).unwrap());
            let told = format!("{direction} cut at {bytes} by {cut:?}, sessions held for {session_timeout} s");
            assert_eq!(end_of(&world.dialler), (Reason::ClosedHere, 0), "{told}");
            assert_eq!(world.accepted.len(), 1, "no ghost: {told}");
            let (reason, undelivered) = end_of(&world.accepted[0]);
            let is_gone = session_timeout == 0 && matches!(reason, Reason::Eof | Reason::Reset | Reason::Truncated);
            assert!(undelivered == 0 && (reason == Reason::ClosedByPeer || is_gone), "{reason:?}: {told}");
            world.check_deliveries();
        }
    }
}

#[test]
fn closing_at_every_byte_and_broken_leaves_no_doubt() {
    for (closer, direction) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for bytes in 88..1700 {
            let mut setup = exchange();
            setup.shape.segment = 200;
            let mut world = world(setup);
            world.network.cuts.push_back((direction, bytes, if bytes % 2 == 0 { Cut::Fin } else { Cut::Reset }));
            world.at(45, Act::Close(closer)).run_until(10_000);
            world.check_deliveries();
            let Some(ended) = world.ends().find(|end| end.closing_since.is_some()) else {
                continue; // The server had no connection at that moment.
            };
            let told = format!("{closer} closes, {direction} cut at {bytes}");
            let (reason, undelivered) = end_of(ended);
            if reason == Reason::CloseTimeout {
                // A dialler that has heard CLOSE need not return; the account may be too large for that.
                assert!(closer == 1, "{told}");
            } else {
                let until = ended.ended_at.unwrap() - ended.closing_since.unwrap();
                assert_eq!((reason, undelivered), (Reason::ClosedHere, 0), "{told}");
                assert!(until < CLOSE_TIMEOUT, "{told}");
            }
            let server = &world.accepted[0];
            let (from, to) = if closer == 0 { (&world.dialler, server) } else { (server, &world.dialler) };
            let taken = messages(to, |stream| assert!(stream == from.stream || closer == 1));
            assert!(taken.starts_with(&from.application.accepted), "{told}");
            let server = &world.accepted[0];
            if closer == 0 {
                // The answering side's account is exact, too.
                let (reason, undelivered) = end_of(server);
                let exact = server.stats().accepted - world.dialler.application.taken;
                assert_eq!((reason, undelivered), (Reason::ClosedByPeer, exact), "{told}");
            } else {
                assert_eq!(world.dialler.stats().confirmed, 20, "{told}");
                let all: u64 = world.accepted.iter().map(|end| end.application.taken).sum();
                assert_eq!(all, 20, "what the closer had not taken goes to the next, once: {told}");
            }
        }
    }
}

#[test]
fn an_abort_is_the_end_of_the_session_on_both_sides() {
    for side in 0..2 {
        let mut setup = ours();
        setup.writing = [few(20); 2];
        let mut world = world(setup);
        world.at(2_100, Act::Abort(side)).run_until(6_000);
        if side == 0 {
            assert_eq!(end_of(world.server()), (Reason::Aborted, 0));
        } else {
            assert_eq!((world.accepted.len(), world.dialler.sessions), (2, 2));
            assert!(is_up(&world.dialler));
        }
        world.check_deliveries();
    }
}

#[test]
fn what_was_closed_without_a_link_is_not_reborn() {
    let mut setup = ours();
    setup.writing = [few(20); 2];
    let mut world = world(setup);
    world.at(2_000, Act::Hole { directions: [true, true] });
    world.at(5_000, Act::Close(1)).at(6_000, Act::Heal).run_until(20_000);
    assert_eq!(end_of(&world.accepted[0]), (Reason::ClosedHere, 0));
    let stats = world.dialler.stats();
    assert_eq!((stats.confirmed, stats.redelivered, world.dialler.sessions), (20, 0, 2));
    assert!(is_up(&world.dialler));
    world.check_deliveries();
}

#[test]
fn the_longest_absent_session_makes_room() {
    let mut setup = ours();
    setup.holds = (10_000, 100);
    setup.reading[1] = Reading::Absent;
    setup.writing[0] = few(20);
    let mut world = world(setup);
    world.at(2_000, Act::Reset).run_until(10_000);
    world.at(10_000, Act::Read(1, Reading::Eager)).run_until(11_000);
    assert_eq!(last_reason(&world.accepted[0]), Reason::SessionExpired);
    assert_eq!(messages(world.server(), |_| {}), numbers(20), "redelivered to the next");
    assert_eq!(world.dialler.stats().redelivered, 20);
    world.check_deliveries();
}

#[test]
fn received_is_known_long_before_consumed() {
    let mut setup = ours();
    setup.reading[1] = Reading::Absent;
    setup.writing[0] = few(20);
    let mut world = world(setup);
    world.run_until(1_000);
    let goals: Vec<Goal> = world.dialler.fates.iter().map(|(_, goal, _)| *goal).collect();
    assert_eq!(goals, [Goal::Received; 4], "its application has taken nothing");
    world.at(1_000, Act::Read(1, Reading::Eager)).run_until(1_020);
    assert_eq!((world.dialler.fates.len(), world.dialler.awaited.len()), (8, 0), "an ASK makes it known at once");
}
