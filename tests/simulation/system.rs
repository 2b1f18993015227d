//! F 59: four handles, two diallers and what one server's process has for each, over sixty seconds of everything
//! that befalls a system. `NETASYNC_SEEDS=n` runs n of them, `NETASYNC_SEED=s` that one.

use std::collections::HashSet;
use std::time::Duration;

use netasync::proto::Moment;
use netasync::proto::options::{Buffer, Jitter, OnNewSession, Options, Policy, Protocol, Retry, Settings};

use crate::application::{Reading, Writing};
use crate::arrange::is_up;
use crate::end::End;
use crate::network::{Cut, Shape};
use crate::oracle::messages;
use crate::random::Random;
use crate::world::{Act, Setup, World};

/// Whatever befalls the system is over by then.
const PEACE: u64 = 40_000;
const END: u64 = 60_000;

struct System {
    /// One for each dialler, with the server's handles for it and the network between them.
    worlds: [World; 2],
    /// Nothing has ended a session.
    is_kept: bool,
}

#[test]
fn four_handles_lose_nothing_whatever_befalls_their_system() {
    crate::on_every_seed("four_handles", |seed| {
        let mut random = Random::new(seed ^ 59);
        let mut system = System::new(&mut random);
        for _ in 0..random.within(2, 12) {
            system.befall(&mut random);
        }
        system.make_peace();
        system.run_until(END);
        for world in &system.worlds {
            check(world, system.is_kept);
        }
    });
}

impl System {
    fn new(random: &mut Random) -> Self {
        let holds = random.pick(&[(10_000, 1 << 28), (10_000, 1 << 28), (10_000, 1 << 28), (1, 1 << 28)]);
        let mut worlds = [0, 1].map(|_| World::new(setup(random, holds), random.split()));
        let table = worlds[0].table.clone();
        for (place, world) in worlds.iter_mut().enumerate() {
            (world.table, world.place) = (table.clone(), place);
        }
        Self { worlds, is_kept: holds.0 > 1 }
    }

    fn befall(&mut self, random: &mut Random) {
        let at = random.within(1, PEACE - 1);
        let lasts = random.pick(&[10, 300, 1500, 5000, 15_000]);
        let back = (at + random.within(1, lasts)).min(PEACE - 1);
        let until = Duration::from_millis(back);
        let world = &mut self.worlds[random.size(0, 1)];
        match random.within(0, 9) {
            0 | 1 => {
                world.at(at, Act::Reset);
            }
            2 => {
                let cut = random.pick(&[Cut::Fin, Cut::Reset, Cut::Silence]);
                world.network.cuts.push_back((random.size(0, 1), random.size(0, 4000), cut));
            }
            3 | 4 => {
                let directions = random.pick(&[[true, true], [true, false], [false, true]]);
                world.at(at, Act::Hole { directions }).at(back, Act::Heal);
            }
            5 => {
                world.at(at, Act::Freeze { side: 0, until });
            }
            6 | 7 => {
                world.at(at, Act::Read(random.size(0, 1), reading(random)));
            }
            8 => self.everywhere(at, Act::Freeze { side: 1, until }),
            _ => {
                self.is_kept = false;
                let end = random.pick(&[Act::ServerKilled, Act::ServerVanished]);
                self.everywhere(at, end);
                self.everywhere(back, Act::ServerUp);
            }
        }
    }

    fn make_peace(&mut self) {
        for act in [Act::Heal, Act::ServerUp] {
            self.everywhere(PEACE, act);
        }
        for side in 0..2 {
            self.everywhere(PEACE, Act::Write(side, Writing::NOTHING));
            self.everywhere(PEACE, Act::Read(side, Reading::Eager));
        }
    }

    fn everywhere(&mut self, at: u64, act: Act) {
        for world in &mut self.worlds {
            world.at(at, act);
        }
    }

    /// One clock for all; what one dialler's absence costs another is told within the same moment.
    fn run_until(&mut self, milliseconds: u64) {
        let end = Duration::from_millis(milliseconds);
        loop {
            self.settle();
            let now = self.worlds[0].now;
            let dues = self.worlds.iter().filter_map(World::next);
            let next: Moment = dues.min().unwrap_or(end).min(end);
            assert!(next > now || now >= end, "no deadline lies in the past");
            if now >= end {
                return;
            }
            for world in &mut self.worlds {
                world.now = next;
            }
        }
    }

    fn settle(&mut self) {
        loop {
            for world in &mut self.worlds {
                world.settle();
                world.check();
            }
            if !self.worlds[0].table.has_expired() {
                return;
            }
        }
    }
}

fn setup(random: &mut Random, holds: (usize, u64)) -> Setup {
    Setup {
        shape: Shape {
            latency: random.milliseconds(1, 50),
            jitter: random.milliseconds(0, 20),
            bytes_per_second: random.within(65_536, 1 << 20),
            segment: random.pick(&[536, 1460]),
            room: random.pick(&[1000, 4096, 65_536]),
        },
        options: [options(random), options(random)],
        reading: [reading(random), reading(random)],
        writing: [writing(random), writing(random)],
        echoes: false,
        is_server_up: !random.one_in(8),
        holds,
        part: random.pick(&[1 << 18, 1 << 18, 100]),
    }
}

fn options(random: &mut Random) -> Options {
    let mut buffer = || Buffer {
        policy: Policy::Fixed,
        count: random.pick(&[5, 50, 1000]),
        max_bytes: random.pick(&[4000, 1 << 20]),
    };
    let settings = Settings {
        heartbeat_interval: 0.5,
        heartbeat_timeout: Some(2.0),
        open_timeout: 2.0,
        read_buffer: buffer(),
        write_buffer: buffer(),
        reconnect: Retry::new(0.1, 2.0, 2.0, Jitter::Full).ok(),
        protocol: Protocol::Native,
        on_new_session: OnNewSession::Redeliver,
        session_timeout: 120.0,
        ..Settings::default()
    };
    settings.check().unwrap()
}

fn reading(random: &mut Random) -> Reading {
    match random.within(0, 4) {
        0 | 1 => Reading::Eager,
        2 | 3 => Reading::Every { period: random.milliseconds(20, 1000), count: random.size(1, 10) },
        _ => Reading::Absent,
    }
}

fn writing(random: &mut Random) -> Writing {
    Writing {
        period: random.milliseconds(50, 1000),
        burst: random.pick(&[1, 3, 10]),
        longest: random.pick(&[0, 30, 300, 3000]),
        left: random.pick(&[0, 20, 60]),
    }
}

/// Twenty healthy seconds later: both handles of this dialler are up and quiet, and each account is true.
fn check(world: &World, is_kept: bool) {
    world.check_deliveries();
    let (dialler, server) = (&world.dialler, world.server());
    for end in [dialler, server] {
        assert!(is_up(end), "{:?} {:?}", end.role, end.phase());
        let stats = end.stats();
        assert_eq!((stats.confirmed, stats.lost), (stats.accepted, 0), "{:?} {stats:?}", end.role);
        assert_eq!((stats.consumed, stats.waiting), (stats.received, 0), "{:?} {stats:?}", end.role);
        assert_eq!(end.awaited, [], "nobody waits for ever");
    }
    let told = &dialler.application;
    assert_eq!((told.redelivered, told.lost), (dialler.stats().redelivered, 0), "what is told is true");
    let arrived: Vec<u32> = world.accepted.iter().flat_map(|end| messages(end, |_| {})).collect();
    let distinct: HashSet<u32> = arrived.iter().copied().collect();
    check_whole(dialler, &distinct);
    let from_server: Vec<u32> = messages_of(dialler, server.stream);
    check_whole(server, &from_server.into_iter().collect());
    if is_kept {
        assert_eq!(world.accepted.len(), 1, "no session ended");
        assert_eq!((arrived.len(), told.redelivered), (distinct.len(), 0), "nothing came twice");
    }
}

/// Everything that this end's application gave it has arrived.
fn check_whole(from: &End, arrived: &HashSet<u32>) {
    let missing = from.application.accepted.iter().find(|number| !arrived.contains(number));
    assert_eq!((missing, arrived.len()), (None, from.application.accepted.len()), "{:?}", from.role);
}

/// What one stream of the server brought this dialler.
fn messages_of(dialler: &End, stream: u32) -> Vec<u32> {
    let mut streams = Vec::new();
    let numbers = messages(dialler, |stream| streams.push(stream));
    streams.into_iter().zip(numbers).filter(|(from, _)| *from == stream).map(|(_, number)| number).collect()
}
