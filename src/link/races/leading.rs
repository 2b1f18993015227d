//! Threads at one link: one polls and reads, the others follow.

use std::sync::Arc;
use std::time::Duration;

use shuttle::rand::Rng;
use shuttle::thread::JoinHandle;

use super::super::link::Link;
use super::in_orders;
use super::looped::{self, Loop, task};
use super::threads::{park, recv};
use super::world::{Item, Log, lone, take, write_all};

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

/// A call with a timeout that is over, or one that Ctrl-C ends before it looks once more, beside others that take a
/// message each. Should it have been faster, it puts back
/// what it took, so that the others always have just enough.
fn gives_up_beside(takers: fn(&Arc<Link>) -> JoinHandle<()>) {
    let (end, peer) = lone();
    let (link, writer) = (Arc::clone(&end.link), Arc::clone(&peer));
    let gives_up = shuttle::thread::spawn(move || {
        link.wait_in_thread(&park(), Some(Duration::from_millis(50)));
        let is_interrupted: bool = shuttle::rand::thread_rng().r#gen();
        if !is_interrupted && matches!(take(&link, |_| {}), Some(Item::Message(..))) {
            write_all(&writer, 2, 1);
        }
    });
    let takers = [takes_in_thread(&end.link), takers(&end.link)];
    write_all(&peer, 1, 2);
    takers.into_iter().for_each(|taker| taker.join().expect("taking does not panic"));
    end.end();
    gives_up.join().expect("giving up does not panic");
}

fn takes_in_thread(link: &Arc<Link>) -> JoinHandle<()> {
    let link = Arc::clone(link);
    shuttle::thread::spawn(move || assert!(matches!(recv(&link, &park(), None, |_| {}), Item::Message(..))))
}

fn takes_in_task(link: &Arc<Link>) -> JoinHandle<()> {
    let link = Arc::clone(link);
    shuttle::thread::spawn(move || {
        let of = Loop::new(1);
        let on = Arc::clone(&of);
        of.run([task(async move { assert!(matches!(looped::recv(&on, &link, |_| {}).await, Item::Message(..))) })]);
    })
}

#[test]
fn a_thread_that_gives_up_hands_its_lead_and_its_wake_on() {
    in_orders(5_000, || gives_up_beside(takes_in_thread));
}

/// There the supervisor reads, and nobody leads.
#[test]
fn a_thread_that_gives_up_beside_a_loop_hands_its_wake_on() {
    in_orders(5_000, || gives_up_beside(takes_in_task));
}
