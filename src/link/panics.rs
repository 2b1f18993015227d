//! A panic on the runtime's thread ends the handle whose supervisor it was, and nothing else. It is
//! injected by a waiter that panics when it is woken there, at the moments that supervisors wake anybody; so the
//! library needs no switch for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::dial::Route;
use super::link::Link;
use super::listener::{Accepted, Listener, Wire};
use super::net;
use super::read::Park;
use super::runtime::Runtime;
use super::target::Target;
use super::wake::{Wake, Waker};
use super::write::{From, Sent};
use crate::proto::accepting::Accepting;
use crate::proto::endpoint::State;
use crate::proto::events::{Event, Reason};
use crate::proto::halves::Front;
use crate::proto::options::{Buffer, Holding, Options, Policy, Protocol, Settings};

const LIMIT: Duration = Duration::from_secs(30);

/// Panics when it is woken, where a supervisor wakes it.
#[derive(Default)]
struct Bomb(AtomicBool);

impl Wake for Bomb {
    fn wake(self: Arc<Self>) -> bool {
        let is_runtime = std::thread::current().name() == Some("netasync");
        if is_runtime && !self.0.swap(true, Ordering::Relaxed) {
            panic!("a bomb, as ordered");
        }
        false
    }
}

struct World {
    protocol: Protocol,
    runtime: Arc<Runtime>,
    listener: Arc<Listener>,
}

impl World {
    fn new() -> Self {
        Self::speaking(Protocol::Native)
    }

    fn speaking(protocol: Protocol) -> Self {
        let runtime: Arc<Runtime> = Arc::default();
        let bound = net::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let accepting = Accepting::new(Buffer::new(Policy::Fixed, 16, 1).unwrap(), None).unwrap();
        let (options, wire) = (options(protocol), Wire::One(protocol));
        let holding = Holding { session_timeout: options.session_timeout, max_sessions: 16, max_held_bytes: 1 << 20 };
        let listener = Listener::new(bound.address().unwrap(), options, accepting, holding, wire);
        runtime.listen(bound, &listener).unwrap();
        Self { protocol, runtime, listener }
    }

    fn dial(&self) -> Arc<Link> {
        let route = Route { target: Target::parse(&self.listener.address()).unwrap(), local: None };
        self.runtime.dial(route, options(self.protocol)).unwrap()
    }

    fn accept(&self) -> Arc<Link> {
        let park = Arc::new(Park::new());
        loop {
            match self.listener.try_accept() {
                Accepted::Connection(handle) => {
                    let link = Arc::clone(&handle.link);
                    // The last handle closes; here the link is all there is.
                    std::mem::forget(handle);
                    return link;
                }
                Accepted::Closed(reason) => panic!("the listener ended: {reason:?}"),
                Accepted::Nothing => {
                    if self.listener.wait(&(Arc::clone(&park) as Waker)) {
                        park.wait(Some(LIMIT));
                    }
                }
            }
        }
    }

    fn pair(&self) -> (Arc<Link>, Arc<Link>) {
        let dialler = self.dial();
        let accepted = self.accept();
        until(&dialler, |link| link.status().state == State::Connected);
        (dialler, accepted)
    }

    fn shut_down(self) {
        let park = Arc::new(Park::new());
        self.runtime.done.add(Arc::clone(&park) as Waker);
        self.runtime.shut_down(LIMIT);
        while !self.runtime.is_done() {
            park.wait(Some(LIMIT));
        }
        self.runtime.join();
    }
}

fn options(protocol: Protocol) -> Options {
    Settings { protocol, ..Settings::default() }.check().unwrap()
}

fn until(link: &Link, is_so: impl Fn(&Link) -> bool) {
    let park = Arc::new(Park::new());
    while !is_so(link) {
        let waker = Arc::clone(&park) as Waker;
        link.changed.add(Arc::clone(&waker));
        if !is_so(link) {
            park.wait(Some(LIMIT));
        }
        link.changed.remove(&waker);
    }
}

fn message(link: &Link) -> Vec<u8> {
    let park = Arc::new(Park::new());
    let mut found = None;
    while found.is_none() {
        let taken = link.take(1, |front| {
            match front {
                Front::Message(message) => found = Some(message.to_vec()),
                Front::Event(Event::Closed(closed)) => panic!("no message: {closed:?}"),
                Front::Event(_) => {}
            }
            Ok::<_, std::convert::Infallible>(())
        });
        if taken == Ok(0) {
            link.wait_in_thread(&park, Some(LIMIT));
        }
    }
    found.unwrap_or_default()
}

fn goes_both_ways((one, other): &(Arc<Link>, Arc<Link>)) {
    for (from, to) in [(one, other), (other, one)] {
        assert_eq!(from.try_send(b"goes on", From::Thread).0, Sent::Accepted);
        assert_eq!(message(to), b"goes on");
    }
}

fn ends_internally(broken: &Link, world: World, neighbours: &(Arc<Link>, Arc<Link>)) {
    until(broken, |link| link.status().closed.is_some());
    assert_eq!(broken.status().closed.map(|closed| closed.reason), Some(Reason::Internal));
    assert_eq!(broken.try_send(b"x", From::Thread).0, Sent::Ended);
    goes_both_ways(neighbours);
    let late = world.dial();
    until(&late, |link| link.status().state == State::Connected);
    world.shut_down();
    assert_eq!(late.status().closed.map(|closed| closed.reason), Some(Reason::Shutdown));
}

#[test]
fn a_panic_as_a_message_arrives_ends_that_handle_with_internal_and_nothing_else() {
    let world = World::new();
    let neighbours = world.pair();
    let (broken, peer) = world.pair();
    // With the reading half locked.
    while broken.take(1, |_| Ok::<_, ()>(())) == Ok(1) {}
    broken.rx().readers.add(Arc::new(Bomb::default()));
    assert_eq!(peer.try_send(b"sets it off", From::Thread).0, Sent::Accepted);
    ends_internally(&broken, world, &neighbours);
}

#[test]
fn a_panic_as_a_link_breaks_ends_that_handle_with_internal_and_nothing_else() {
    let world = World::new();
    let neighbours = world.pair();
    let (broken, peer) = world.pair();
    broken.changed.add(Arc::new(Bomb::default()));
    peer.abort(Reason::Aborted);
    ends_internally(&broken, world, &neighbours);
}

#[test]
fn a_panic_of_an_accepted_connection_ends_it_and_its_dialler_dials_again() {
    let world = World::new();
    let neighbours = world.pair();
    let (dialler, broken) = world.pair();
    while broken.take(1, |_| Ok::<_, ()>(())) == Ok(1) {}
    broken.rx().readers.add(Arc::new(Bomb::default()));
    assert_eq!(dialler.try_send(b"sets it off", From::Thread).0, Sent::Accepted);
    until(&broken, |link| link.status().closed.is_some());
    assert_eq!(broken.status().closed.map(|closed| closed.reason), Some(Reason::Internal));
    let again = world.accept();
    until(&dialler, |link| link.status().links == 2);
    assert_eq!(message(&again), b"sets it off", "nobody is known to have taken it");
    goes_both_ways(&(dialler, again));
    goes_both_ways(&neighbours);
    world.shut_down();
}

#[test]
fn a_panic_of_a_listener_ends_it_with_internal_and_its_connections_live_on() {
    // On our wire a dial enters in a task of its own, and nobody wakes anybody in the listener's.
    let world = World::speaking(Protocol::Classic);
    let neighbours = world.pair();
    assert!(world.listener.wait(&(Arc::new(Bomb::default()) as Waker)));
    let unaccepted = world.dial();
    let park = Arc::new(Park::new());
    let waker = Arc::clone(&park) as Waker;
    world.listener.closed.add(Arc::clone(&waker));
    while world.listener.end().is_none() {
        park.wait(Some(LIMIT));
    }
    assert_eq!(world.listener.end().map(|closed| closed.reason), Some(Reason::Internal));
    goes_both_ways(&neighbours);
    for link in [&unaccepted, &neighbours.0, &neighbours.1] {
        link.abort(Reason::Aborted);
    }
    // Else shutting down would wait for a listener that is gone.
    for _ in 0..10_000 {
        if world.runtime.is_idle() {
            return world.shut_down();
        }
        park.wait(Some(Duration::from_millis(3)));
    }
    panic!("the listener never left");
}
