//! What the claims begin with.

use std::time::Duration;

use netasync::proto::endpoint::Phase;
use netasync::proto::events::Reason;
use netasync::proto::options::{OnNewSession, Options, Protocol, Retry, Settings};

use crate::application::{Reading, Writing};
use crate::end::End;
use crate::grammar::Seen;
use crate::network::Shape;
use crate::random::Random;
use crate::world::{Setup, World};

pub const WIRES: [Protocol; 2] = [Protocol::Classic, Protocol::Native];
pub const TIMEOUT: Duration = Duration::from_secs(2);
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Without sessions: a break ends them, and what was begun is lost.
pub fn options(protocol: Protocol) -> Options {
    let settings = Settings {
        heartbeat_interval: 0.5,
        heartbeat_timeout: Some(TIMEOUT.as_secs_f64()),
        close_timeout: CLOSE_TIMEOUT.as_secs_f64(),
        reconnect: Retry::fixed(0.25).ok(),
        protocol,
        on_new_session: OnNewSession::Discard,
        session_timeout: 0.0,
        ..Settings::default()
    };
    settings.check().unwrap()
}

/// A good network, ends that read at once, and nothing to say.
pub fn setup(protocol: Protocol) -> Setup {
    Setup {
        shape: Shape {
            latency: Duration::from_millis(5),
            jitter: Duration::ZERO,
            bytes_per_second: 1 << 20,
            segment: 1460,
            room: 16_384,
        },
        options: [options(protocol), options(protocol)],
        reading: [Reading::Eager; 2],
        writing: [Writing::NOTHING; 2],
        echoes: false,
        is_server_up: true,
        holds: (10_000, 1 << 28),
        part: 1 << 18,
    }
}

pub fn world(setup: Setup) -> World {
    World::new(setup, Random::new(1))
}

pub fn few(count: u32) -> Writing {
    Writing { period: Duration::from_millis(10), burst: 10, longest: 100, left: count }
}

pub fn is_up(end: &End) -> bool {
    matches!(end.phase(), Phase::Up { .. })
}

pub fn last_reason(end: &End) -> Reason {
    match end.application.seen.last() {
        Some(Seen::Closed { reason, .. } | Seen::Disconnected(reason)) => *reason,
        other => panic!("{other:?} is no end"),
    }
}

/// A dialler with more to send than the network takes at once.
pub fn laden(protocol: Protocol) -> Setup {
    let mut setup = setup(protocol);
    setup.shape.room = 300;
    setup.writing[0] = few(200);
    setup.writing[0].burst = 200;
    setup
}
