//! A close that can be said is said, whatever broke on the way; and a dialler that closes has no time to rest.

use std::time::Duration;

use netasync::proto::Moment;
use netasync::proto::endpoint::{CLOSING_WAIT, Phase};
use netasync::proto::events::Reason;
use netasync::proto::options::{Jitter, OnNewSession, Protocol, Retry};

use crate::application::Writing;
use crate::arrange::{CLOSE_TIMEOUT, WIRES, few, is_up, setup, world};
use crate::end::End;
use crate::native::end_of;
use crate::network::Cut;
use crate::oracle::messages;
use crate::random::Random;
use crate::world::{Act, Setup, World};

impl World {
    /// The dialler closes: whose end must hear of it.
    pub fn note_goodbye(&mut self) {
        let dialler = &self.dialler;
        let (stats, session) = (dialler.stats(), dialler.known.map(|known| known.session));
        let is_owed = dialler.closing_since.is_none()
            && !dialler.is_ended()
            && dialler.options.reconnect.is_some()
            && stats.queued + stats.unconfirmed == 0;
        let holds_it = |end: &End| !end.is_gone && end.known.map(|known| known.session) == session;
        self.owed_goodbye = self.accepted.iter().position(holds_it).filter(|_| is_owed && session.is_some());
    }

    /// Where the network let a dial and an exchange through within `close_timeout`, the peer's end has not waited
    /// for its clock.
    pub fn check_goodbye(&self) {
        let (dialler, Some(place)) = (&self.dialler, self.owed_goodbye) else { return };
        let Some(closed) = dialler.closing_since else { return };
        let shape = self.setup.shape;
        let exchange = CLOSING_WAIT + 12 * (shape.latency + shape.jitter) + Duration::from_secs(1);
        let until = closed + dialler.options.close_timeout;
        let calms = self.calms.iter().copied().chain(self.calm_since.map(|since| (since, self.now)));
        let said_by = |(from, to): (Moment, Moment)| {
            let by = from.max(closed) + exchange;
            (by <= to.min(until)).then_some(by)
        };
        let Some(said) = calms.filter_map(said_by).min() else { return };
        let peer = &self.accepted[place];
        let has_waited = peer.ended_for() == Some(Reason::SessionExpired) && peer.ended_at > Some(said);
        assert!(peer.is_gone || (peer.is_ended() && !has_waited), "a close that can be said is said by {said:?}");
    }
}

/// A quiet link, one close, and up to six troubles about it.
#[test]
fn a_close_that_can_be_said_is_said() {
    crate::on_every_seed("a_close_that_can_be_said_is_said", |seed| {
        let mut random = Random::new(seed ^ 28);
        let mut setup = ours();
        setup.writing = [few(5); 2];
        setup.shape.latency = random.milliseconds(1, 40);
        setup.shape.jitter = random.milliseconds(0, 20);
        let maximum = random.pick(&[0.2, 2.0, 30.0, 3000.0]);
        setup.options[0].reconnect = Retry::new(0.1, 2.0, maximum, random.pick(&[Jitter::Full, Jitter::None])).ok();
        setup.options[0].open_timeout = random.milliseconds(500, 5_000);
        let mut world = World::new(setup, random.split());
        // The first link is cut by nobody, those behind it at times.
        world.network.cuts.push_back((0, usize::MAX, Cut::Fin));
        for _ in 0..random.within(0, 2) {
            let cut = random.pick(&[Cut::Fin, Cut::Reset]);
            world.network.cuts.push_back((random.size(0, 1), random.size(0, 250), cut));
        }
        for _ in 0..random.within(0, 4) {
            let at = random.within(2_000, 9_000);
            let until = at + random.within(10, 4_000);
            match random.within(0, 3) {
                0 => world.at(at, Act::Reset),
                1 => world.at(at, Act::Freeze { side: random.size(0, 1), until: Duration::from_millis(until) }),
                _ => {
                    let directions = random.pick(&[[true, true], [true, true], [true, false], [false, true]]);
                    world.at(at, Act::Hole { directions }).at(until, Act::Heal)
                }
            };
        }
        world.at(random.within(3_000, 9_000), Act::Close(0)).run_until(30_000);
        world.check_deliveries();
        world.check_goodbye();
    });
}

fn ours() -> Setup {
    held(setup(Protocol::Native))
}

fn held(mut setup: Setup) -> Setup {
    for options in &mut setup.options {
        options.on_new_session = OnNewSession::Redeliver;
        options.session_timeout = Duration::from_secs(120);
    }
    setup
}

#[test]
fn a_close_without_a_link_that_can_be_said_is_said() {
    for (down, heal) in (0..3000).step_by(37).flat_map(|down| [(down, 0), (down, 700), (down, 2_600)]) {
        let mut setup = ours();
        setup.writing = [few(20); 2];
        // The next dial would be far away.
        setup.options[0].reconnect = Retry::fixed(3000.0).ok();
        let mut world = world(setup);
        let close = 5_000 + down;
        world.at(2_000, Act::Hole { directions: [true, true] });
        world.at(close, Act::Close(0)).at(close + heal, Act::Heal).run_until(close);
        let told = format!("closed at {close}, healed {heal} ms later");
        assert_eq!(end_of(&world.dialler), (Reason::ClosedHere, 0), "at once: {told}");
        world.run_until(close + heal + 300);
        assert!(world.dialler.is_ended(), "{told}");
        assert_eq!(end_of(&world.accepted[0]), (Reason::ClosedByPeer, 0), "{told}");
        assert_eq!((world.accepted.len(), world.dialler.stats().attempts), (1, 2), "{told}");
        world.check_deliveries();
        world.check_goodbye();
    }
}

#[test]
fn a_farewell_ends_with_close_timeout_and_was_never_waited_for() {
    let mut world = world(ours());
    world.at(2_000, Act::Hole { directions: [true, true] }).at(5_000, Act::Close(0)).run_until(5_000);
    assert_eq!(end_of(&world.dialler), (Reason::ClosedHere, 0));
    assert!(!world.dialler.is_ended());
    world.run_until(5_000 + u64::try_from(CLOSE_TIMEOUT.as_millis()).unwrap());
    assert!(world.dialler.is_ended());
    world.at(8_100, Act::Heal).run_until(200_000);
    assert_eq!(end_of(&world.accepted[0]), (Reason::SessionExpired, 0));
    assert_eq!(world.accepted.len(), 1);
}

#[test]
fn a_farewell_that_finds_its_session_gone_says_nothing_and_leaves_no_ghost() {
    for at in (2_010..2_500).step_by(7) {
        let mut world = world(ours());
        world.at(2_000, Act::ServerKilled).at(at, Act::ServerUp).at(2_300, Act::Close(0)).run_until(20_000);
        assert_eq!(end_of(&world.dialler), (Reason::ClosedHere, 0), "{at}");
        let reborn = usize::from(is_before(&world, 2_300));
        assert_eq!(world.accepted.len(), 1 + reborn, "{at}");
        assert!(world.dialler.is_ended());
    }
}

/// The dialler was in a second session before it closed.
fn is_before(world: &World, close: u64) -> bool {
    world.dialler.sessions > 1 && world.dialler.closing_since == Some(Duration::from_millis(close))
}

/// Nothing is left to deliver; the first link and both returns break somewhere in the goodbye.
#[test]
fn a_goodbye_whose_returns_break_as_well_is_said_within_close_timeout() {
    for (direction, bytes) in (0..2).flat_map(|direction| (0..200).step_by(3).map(move |bytes| (direction, bytes))) {
        for cut in [Cut::Fin, Cut::Reset] {
            let mut setup = ours();
            setup.options[0].reconnect = Retry::fixed(3000.0).ok();
            let mut world = world(setup);
            world.run_until(3_000);
            world.network.cut_in((direction, bytes % 60, cut));
            world.network.cuts.extend([(direction, bytes, cut), (1 - direction, 199 - bytes, cut)]);
            world.at(3_000, Act::Close(0)).run_until(3_000 + u64::try_from(CLOSE_TIMEOUT.as_millis()).unwrap());
            let told = format!("{direction} cut at {bytes} by {cut:?}");
            assert_eq!(end_of(&world.dialler), (Reason::ClosedHere, 0), "{told}");
            assert_eq!(end_of(&world.accepted[0]), (Reason::ClosedByPeer, 0), "{told}");
            let ended = world.dialler.ended_at.unwrap();
            assert!(ended < Duration::from_secs(5), "{told}: {ended:?}");
            assert_eq!(world.accepted.len(), 1, "no ghost: {told}");
        }
    }
}

/// The server was away for so long that the next dial is far off.
#[test]
fn a_closing_dialler_does_not_rest_out_its_back_off() {
    for (protocol, close) in WIRES.into_iter().flat_map(|wire| (45_000..46_000).step_by(97).map(move |at| (wire, at))) {
        let mut setup = held(setup(protocol));
        setup.options[0].reconnect = Retry::new(0.1, 2.0, 3000.0, Jitter::None).ok();
        let mut world = world(setup);
        world.at(2_000, Act::ServerKilled).at(3_000, Act::Write(0, few(20)));
        world.at(45_000, Act::ServerUp).run_until(close);
        assert!(matches!(world.dialler.phase(), Phase::Resting { .. }), "{protocol:?}");
        world.at(close, Act::Close(0)).run_until(close + 300);
        assert_eq!(end_of(&world.dialler), (Reason::ClosedHere, 0), "{protocol:?} at {close}");
        assert_eq!(messages(world.server(), |_| {}), (0..20).collect::<Vec<u32>>());
        world.check_deliveries();
    }
}

#[test]
fn a_closing_dialler_whose_server_comes_late_finds_it_within_its_wait() {
    for (protocol, late) in WIRES.into_iter().flat_map(|wire| (0..2_500).step_by(113).map(move |late| (wire, late))) {
        let mut setup = held(setup(protocol));
        setup.options[0].reconnect = Retry::fixed(3000.0).ok();
        let mut world = world(setup);
        world.at(2_000, Act::ServerKilled).at(3_000, Act::Write(0, few(20))).at(5_000, Act::Close(0));
        world.at(5_000 + late, Act::ServerUp).run_until(5_000 + late + 600);
        assert_eq!(end_of(&world.dialler), (Reason::ClosedHere, 0), "{protocol:?}, {late} ms late");
        assert_eq!(messages(world.server(), |_| {}), (0..20).collect::<Vec<u32>>());
    }
}

/// A server that greets, says a word and falls over is not dialled any faster for it.
#[test]
fn a_message_alone_resets_nothing() {
    for protocol in WIRES {
        let mut setup = setup(protocol);
        setup.options[0].reconnect = Retry::new(0.1, 2.0, 1.0, Jitter::None).ok();
        setup.writing[1] = Writing { burst: 1, ..few(1) };
        let mut world = world(setup);
        let mut waits = Vec::new();
        for word in 1..=6 {
            world.run_while(60_000, |world| !is_up(&world.dialler) || world.dialler.application.taken < word);
            let now = u64::try_from(world.now.as_millis()).unwrap() + 1;
            world.at(now, Act::Abort(1)).run_while(60_000, |world| is_up(&world.dialler));
            let Phase::Resting { until } = world.dialler.phase() else { panic!("{:?}", world.dialler.phase()) };
            waits.push((until - world.now).as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000], "{protocol:?}");
    }
}
