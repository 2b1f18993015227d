//! What a connection holds when all is quiet, counted: nothing, whoever reads it or nobody. Over real sockets, with
//! supervisors whose ticks are short.

use std::sync::Arc;
use std::time::Duration;

use super::dial::Route;
use super::driver::LoopDriver;
use super::link::Link;
use super::listener::{Accepted, Listener, Wire};
use super::net;
use super::read::Park;
use super::runtime::Runtime;
use super::target::Target;
use super::wake::Waker;
use super::write::{From, Sent};
use crate::proto::accepting::Accepting;
use crate::proto::endpoint::State;
use crate::proto::events::Reason;
use crate::proto::halves::Front;
use crate::proto::options::{Buffer, Holding, Options, Policy, Protocol, Settings};

const LARGE: usize = 1 << 20;

struct World {
    runtime: Arc<Runtime>,
    protocol: Protocol,
    listener: Arc<Listener>,
}

/// A loop that never runs: it has attached, and looks no more.
struct Absent;

impl LoopDriver for Absent {
    fn sync(self: Arc<Self>, _: Arc<Link>) {}
    fn is_alive(&self) -> bool {
        true
    }
    fn id(&self) -> usize {
        1
    }
}

impl World {
    fn new(protocol: Protocol) -> Self {
        let runtime: Arc<Runtime> = Arc::default();
        let bound = net::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let accepting = Accepting::new(Buffer::new(Policy::Fixed, 16, 1).unwrap(), None).unwrap();
        let (options, wire) = (options(protocol), Wire::One(protocol));
        let holding = Holding { session_timeout: options.session_timeout, max_sessions: 16, max_held_bytes: 1 << 30 };
        let listener = Listener::new(bound.address().unwrap(), options, accepting, holding, wire);
        runtime.listen(bound, &listener).unwrap();
        Self { runtime, protocol, listener }
    }

    fn pair(&self) -> (Arc<Link>, Arc<Link>) {
        let route = Route { target: Target::parse(&self.listener.address()).unwrap(), local: None };
        let dialler = self.runtime.dial(route, options(self.protocol)).unwrap();
        let accepted = until(|| match self.listener.try_accept() {
            Accepted::Connection(handle) => {
                let link = Arc::clone(&handle.link);
                // The last handle closes; here the link is all there is.
                std::mem::forget(handle);
                Some(link)
            }
            _ => None,
        });
        until(|| (dialler.status().state == State::Connected).then_some(()));
        (dialler, accepted)
    }

    fn shut_down(self) {
        self.runtime.shut_down(Duration::from_secs(30));
        until(|| self.runtime.is_done().then_some(()));
        self.runtime.join();
    }
}

fn options(protocol: Protocol) -> Options {
    let settings = Settings { protocol, heartbeat_interval: 0.1, close_timeout: 0.3, ..Settings::default() };
    settings.check().unwrap()
}

fn until<T>(look: impl Fn() -> Option<T>) -> T {
    let park = Park::new();
    for _ in 0..30_000 {
        if let Some(found) = look() {
            return found;
        }
        park.wait(Some(Duration::from_millis(1)));
    }
    panic!("still not so");
}

fn messages(link: &Link, count: usize) {
    let mut left = count;
    while left > 0 {
        let is_message = until(|| {
            let mut is_message = false;
            let taken = link.take(1, |front| {
                is_message = matches!(front, Front::Message(_));
                Ok::<_, ()>(())
            });
            (taken == Ok(1)).then_some(is_message)
        });
        left -= usize::from(is_message);
    }
}

fn memory(link: &Link) -> (usize, usize) {
    (link.rx().receiver.memory(), link.tx().sender.memory())
}

/// All but a place for the next PONG.
fn gives_all_back(link: &Link) {
    until(|| (memory(link).0.max(memory(link).1) < 1024).then_some(()));
}

#[test]
fn what_large_messages_took_is_given_back_whoever_reads_or_nobody() {
    for protocol in [Protocol::Native, Protocol::Classic] {
        let world = World::new(protocol);
        for who in ["nobody", "a loop", "a thread"] {
            let (dialler, accepted) = world.pair();
            match who {
                "a loop" => {
                    while accepted.take(1, |_| Ok::<_, ()>(())) == Ok(1) {}
                    let waker: Waker = Arc::new(Park::new());
                    assert!(accepted.wait_on_loop(&(Arc::new(Absent) as Arc<dyn LoopDriver>), &waker));
                }
                "a thread" => accepted.wait_in_thread(&Arc::new(Park::new()), Some(Duration::ZERO)),
                _ => {}
            }
            for length in [LARGE, 65_536, 3 * LARGE] {
                assert_eq!(dialler.try_send(&vec![7; length], From::Thread).0, Sent::Accepted);
                messages(&accepted, 1);
                gives_all_back(&accepted);
                gives_all_back(&dialler);
            }
        }
        world.shut_down();
    }
}

#[test]
fn what_was_taken_while_the_link_was_down_or_had_ended_leaves_nothing() {
    let world = World::new(Protocol::Native);
    let (dialler, accepted) = world.pair();
    assert_eq!(dialler.try_send(&vec![7; LARGE], From::Thread).0, Sent::Accepted);
    until(|| (accepted.rx().receiver.waiting() == 1).then_some(()));
    dialler.abort(Reason::Aborted);
    until(|| accepted.status().closed);
    gives_all_back(&dialler);
    messages(&accepted, 1);
    assert_eq!(memory(&accepted), (0, 0), "nobody keeps time for it any more");
    world.shut_down();
}
