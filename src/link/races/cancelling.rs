//! One of several waiters leaves at any moment, also after it was woken and before it took: what it was woken for
//! goes to another. The one that is cancelled puts back what it takes, if it was faster; so the other always has
//! just enough, and would wait for ever if the wake were lost.

use std::sync::Arc;

use super::super::link::Link;
use super::super::net::Socket;
use super::in_orders;
use super::looped::{self, Loop, Task, task};
use super::threads::{fill, park, recv, send};
use super::world::{Log, drop_frames, lone, write_all};

/// A loop whose first task is cancelled meanwhile.
fn run_and_cancel(of: &Arc<Loop>, tasks: impl IntoIterator<Item = Task>) {
    let canceller = {
        let of = Arc::clone(of);
        shuttle::thread::spawn(move || of.cancel(0))
    };
    of.run(tasks);
    canceller.join().expect("cancelling does not panic");
}

fn takes_one(of: &Arc<Loop>, link: &Arc<Link>, log: &Log, then: impl FnOnce() + Send + 'static) -> Task {
    let (of, link, log) = (Arc::clone(of), Arc::clone(link), log.clone());
    task(async move {
        looped::recv(&of, &link, |item| log.note(item)).await;
        then();
    })
}

fn sends_one(of: &Arc<Loop>, link: &Arc<Link>, then: impl FnOnce() + Send + 'static) -> Task {
    let (of, link) = (Arc::clone(of), Arc::clone(link));
    task(async move {
        assert!(looped::send(&of, &link, &[9, 9]).await);
        then();
    })
}

#[test]
fn a_cancelled_task_that_was_woken_for_a_message_wakes_the_next_task() {
    in_orders(5_000, || {
        let (end, peer) = lone();
        let (of, log) = (Loop::new(1), Log::default());
        let writer = write_one(&peer, 1);
        let first = takes_one(&of, &end.link, &log, move || write_all(&peer, 2, 1));
        let second = takes_one(&of, &end.link, &log, || {});
        run_and_cancel(&of, [first, second]);
        writer.join().expect("writing does not panic");
        end.end();
    });
}

#[test]
fn a_cancelled_task_that_was_woken_for_a_message_wakes_the_next_thread() {
    in_orders(5_000, || {
        let (end, peer) = lone();
        let (of, log) = (Loop::new(1), Log::default());
        let taker = {
            let (link, log) = (Arc::clone(&end.link), log.clone());
            shuttle::thread::spawn(move || recv(&link, &park(), None, |item| log.note(item)))
        };
        let writer = write_one(&peer, 1);
        let first = takes_one(&of, &end.link, &log, move || write_all(&peer, 2, 1));
        run_and_cancel(&of, [first]);
        taker.join().expect("taking does not panic");
        writer.join().expect("writing does not panic");
        end.end();
    });
}

fn write_one(peer: &Arc<Socket>, sender: u8) -> shuttle::thread::JoinHandle<()> {
    let peer = Arc::clone(peer);
    shuttle::thread::spawn(move || write_all(&peer, sender, 1))
}

fn make_room(peer: &Arc<Socket>) -> shuttle::thread::JoinHandle<()> {
    let peer = Arc::clone(peer);
    shuttle::thread::spawn(move || drop_frames(&peer, 1))
}

#[test]
fn a_cancelled_task_that_was_woken_for_room_wakes_the_next_task() {
    in_orders(5_000, || {
        let (end, peer) = lone();
        fill(&end.link);
        let of = Loop::new(1);
        let reader = make_room(&peer);
        let first = sends_one(&of, &end.link, move || drop_frames(&peer, 1));
        let second = sends_one(&of, &end.link, || {});
        run_and_cancel(&of, [first, second]);
        reader.join().expect("reading does not panic");
        end.end();
    });
}

#[test]
fn a_cancelled_task_that_was_woken_for_room_wakes_the_next_thread() {
    in_orders(5_000, || {
        let (end, peer) = lone();
        fill(&end.link);
        let of = Loop::new(1);
        let sender = {
            let link = Arc::clone(&end.link);
            shuttle::thread::spawn(move || assert!(send(&link, &park(), None, &[8, 8])))
        };
        let reader = make_room(&peer);
        let first = sends_one(&of, &end.link, move || drop_frames(&peer, 1));
        run_and_cancel(&of, [first]);
        sender.join().expect("sending does not panic");
        reader.join().expect("reading does not panic");
        end.end();
    });
}

/// Its task never runs again, and nobody says so to the link.
#[test]
fn a_task_whose_loop_was_closed_is_passed_over() {
    in_orders(5_000, || {
        let (end, peer) = lone();
        let (of, log) = (Loop::new(1), Log::default());
        let taker = {
            let (link, log) = (Arc::clone(&end.link), log.clone());
            shuttle::thread::spawn(move || recv(&link, &park(), None, |item| log.note(item)))
        };
        let stopper = {
            let of = Arc::clone(&of);
            shuttle::thread::spawn(move || of.stop())
        };
        let left = of.run([takes_one(&of, &end.link, &log, || {})]);
        write_all(&peer, 1, 1);
        taker.join().expect("taking does not panic");
        stopper.join().expect("stopping does not panic");
        drop(left);
        log.holds_all(&[1], 1);
        end.end();
    });
}
