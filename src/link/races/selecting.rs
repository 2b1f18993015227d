//! Threads that wait for whichever of two connections has something first.

use std::sync::Arc;

use shuttle::thread::JoinHandle;

use super::super::link::Link;
use super::super::select::{Source, wait_in_thread};
use super::in_orders;
use super::threads::park;
use super::world::{Item, Log, lone, take, write_all};

/// Takes so many messages, from either.
fn selects(links: &[Arc<Link>; 2], logs: &[Log; 2], count: u8) -> JoinHandle<()> {
    let (links, logs) = (links.clone(), logs.clone());
    shuttle::thread::spawn(move || {
        let park = park();
        let sources = links.each_ref().map(|link| Source::Items(Arc::clone(link)));
        let mut left = count;
        while left > 0 {
            let next = links.iter().zip(&logs).find_map(|(link, log)| take(link, |item| log.note(item)));
            match next {
                Some(item) => {
                    assert!(matches!(item, Item::Message(..)), "{item:?}");
                    left -= 1;
                }
                None => wait_in_thread(sources.iter(), &park, None),
            }
        }
    })
}

/// Woken by one, a thread leaves the other too, and what that had woken it for goes to whoever waits there.
#[test]
fn two_threads_that_wait_for_two_connections_take_everything_once_and_in_order() {
    in_orders(2_000, || {
        let ends = [lone(), lone()];
        let (links, logs) = (ends.each_ref().map(|(end, _)| Arc::clone(&end.link)), [Log::default(), Log::default()]);
        let takers = [0, 1].map(|_| selects(&links, &logs, 4));
        let writers = ends.each_ref().map(|(_, peer)| {
            let peer = Arc::clone(peer);
            shuttle::thread::spawn(move || write_all(&peer, 1, 4))
        });
        for part in takers.into_iter().chain(writers) {
            part.join().expect("no part of it panics");
        }
        logs.iter().for_each(|log| log.holds_all(&[1], 4));
        ends.into_iter().for_each(|(end, _)| end.end());
    });
}
