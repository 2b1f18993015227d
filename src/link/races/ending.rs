//! The end of a handle while others wait: everybody hears of it, and what was accepted before a close is written.

use std::sync::Arc;

use shuttle::thread::JoinHandle;

use super::super::link::Link;
use super::super::sessions::Held;
use super::in_orders;
use super::looped::{self, Loop, task};
use super::threads::{park, recv, send};
use super::world::{Item, Log, lone, lone_on_ours, read_all};
use crate::proto::events::Reason;
use crate::proto::options::Holding;
use crate::proto::standing::Known;
use crate::proto::wire::{Goodbye, Numbers, close, encode_ack, encode_close};

/// Should the end be very late.
const MOST: u8 = 20;

/// Two threads and two tasks that take until the end is shown.
fn takers(link: &Arc<Link>) -> Vec<JoinHandle<()>> {
    let threads = [0, 1].map(|_| {
        let link = Arc::clone(link);
        shuttle::thread::spawn(move || {
            let park = park();
            while recv(&link, &park, None, |_| {}) != Item::Closed {}
        })
    });
    let link = Arc::clone(link);
    let tasks = shuttle::thread::spawn(move || {
        let of = Loop::new(1);
        of.run([0, 1].map(|_| {
            let (of, link) = (Arc::clone(&of), Arc::clone(&link));
            task(async move { while looped::recv(&of, &link, |_| {}).await != Item::Closed {} })
        }));
    });
    threads.into_iter().chain([tasks]).collect()
}

/// A thread and a task that send until nothing more is accepted; for each, how many were.
fn senders(link: &Arc<Link>) -> [JoinHandle<u8>; 2] {
    let (from_thread, from_task) = (Arc::clone(link), Arc::clone(link));
    let thread = shuttle::thread::spawn(move || {
        let park = park();
        (0..MOST).find(|number| !send(&from_thread, &park, None, &[0, *number])).unwrap_or(MOST)
    });
    let tasks = shuttle::thread::spawn(move || {
        let of = Loop::new(2);
        let (sending, (tell, told)) = (Arc::clone(&of), std::sync::mpsc::channel());
        of.run([task(async move {
            let mut number = 0;
            while number < MOST && looped::send(&sending, &from_task, &[1, number]).await {
                number += 1;
            }
            tell.send(number).expect("it is heard");
        })]);
        told.recv().expect("the task has ended")
    });
    [thread, tasks]
}

fn join<T>(work: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<T> {
    work.into_iter().map(|thread| thread.join().expect("no part of it panics")).collect()
}

#[test]
fn an_abort_wakes_everybody_who_waits() {
    in_orders(2_000, || {
        let (end, _peer) = lone();
        let (takers, senders) = (takers(&end.link), senders(&end.link));
        end.link.abort(Reason::Aborted);
        join(takers);
        join(senders);
        end.join();
    });
}

#[test]
fn a_peer_that_goes_away_wakes_everybody_who_waits() {
    in_orders(2_000, || {
        let (end, peer) = lone();
        let (takers, senders) = (takers(&end.link), senders(&end.link));
        peer.hang_up();
        join(takers);
        join(senders);
        end.join();
    });
}

#[test]
fn a_close_wakes_everybody_who_waits_and_all_that_was_accepted_is_written_once_and_in_order() {
    in_orders(2_000, || {
        let (end, peer) = lone();
        let log = Log::default();
        let (takers, senders) = (takers(&end.link), senders(&end.link));
        let reader = {
            let log = log.clone();
            shuttle::thread::spawn(move || {
                read_all(&peer, &log);
                peer.hang_up();
            })
        };
        end.link.close(Reason::ClosedHere);
        join(takers);
        let accepted = join(senders);
        join([reader]);
        end.join();
        for (sender, count) in [0, 1].into_iter().zip(accepted) {
            assert_eq!(log.of(sender), (0..count).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_goodbye_counts_though_a_write_was_the_first_to_find_the_link_gone() {
    in_orders(2_000, || {
        let (end, peer) = lone_on_ours();
        let senders = senders(&end.link);
        let mut goodbye = Vec::new();
        encode_ack(Numbers { consumed: 0, credit: 4096 }, &mut goodbye);
        encode_close(&Goodbye { code: close::ABORTED, words: String::new() }, &mut goodbye);
        peer.send(&[std::io::IoSlice::new(&goodbye)]).expect("the kernel has room for it");
        peer.hang_up();
        join(senders);
        let link = Arc::clone(&end.link);
        end.join();
        assert_eq!(link.status().closed.map(|closed| closed.reason), Some(Reason::Aborted));
    });
}

#[test]
fn who_comes_back_behind_what_cannot_be_does_not_make_it_good() {
    in_orders(1_000, || {
        let (end, peer) = lone_on_ours();
        let held = Held::new(Holding::new(60.0, 9, 9).expect("makes sense"));
        held.enter(Known { session: [1; 16], token: [2; 16] }, 1, &end.link);
        // A message, where ACK comes first.
        peer.send(&[std::io::IoSlice::new(&[0; 4])]).expect("the kernel has room for it");
        end.link.look();
        end.link.fence();
        let link = Arc::clone(&end.link);
        end.join();
        assert_eq!(link.status().closed.map(|closed| closed.reason), Some(Reason::Protocol));
    });
}
