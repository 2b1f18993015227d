//! Threads at one link: one polls and reads, the others follow.

use std::sync::Arc;
use std::time::Duration;

use super::in_orders;
use super::threads::{park, recv};
use super::world::{Item, Log, lone, write_all};

/// `threads` take `count` messages between them, each so many that all are needed.
fn share(threads: u8, count: u8, limit: Option<Duration>) {
    let (end, peer) = lone();
    let log = Log::default();
    let takers: Vec<_> = (0..threads)
        .map(|_| {
            let (link, log) = (Arc::clone(&end.link), log.clone());
            shuttle::thread::spawn(move || {
                let park = park();
                for _ in 0..count / threads {
                    let item = recv(&link, &park, limit, |item| log.note(item));
                    assert!(matches!(item, Item::Message(..)), "{item:?}");
                }
            })
        })
        .collect();
    write_all(&peer, 1, count);
    for taker in takers {
        taker.join().expect("taking does not panic");
    }
    log.holds_all(&[1], count);
    end.end();
}

#[test]
fn threads_take_every_message_once_and_in_order_and_none_waits_beside_one() {
    in_orders(3_000, || share(2, 6, None));
}

#[test]
fn three_threads_hand_the_lead_on_until_all_is_taken() {
    in_orders(2_000, || share(3, 6, None));
}

/// A thread that gives up at any time: its lead, or the wake that it had, goes on to the others.
#[test]
fn waits_that_end_early_lose_nothing_and_leave_nobody_behind() {
    in_orders(3_000, || share(3, 6, Some(Duration::from_millis(50))));
}
