//! A kernel that is full again and again: whoever is to write the rest, it is written once and in order, and who
//! waits for room gets it.

use std::sync::Arc;
use std::time::Duration;

use super::looped::{self, Loop};
use super::threads::{fill, park, send};
use super::world::{Log, lone, read_all, read_frames};
use super::{in_orders, threads};

/// So many threads, and a loop with so many tasks, send `count` messages each, while a peer reads.
fn pour(thread_count: u8, task_count: u8, count: u8, limit: Option<Duration>) {
    let (end, peer) = lone();
    let (log, link) = (Log::default(), Arc::clone(&end.link));
    let reader = {
        let log = log.clone();
        shuttle::thread::spawn(move || read_all(&peer, &log))
    };
    let mut senders: Vec<_> = (0..thread_count)
        .map(|thread| {
            let link = Arc::clone(&link);
            shuttle::thread::spawn(move || {
                let park = park();
                (0..count).for_each(|number| assert!(send(&link, &park, limit, &[thread, number])));
            })
        })
        .collect();
    if task_count > 0 {
        let link = Arc::clone(&link);
        senders.push(shuttle::thread::spawn(move || pour_from_loop(&link, thread_count, task_count, count)));
    }
    senders.into_iter().for_each(|sender| sender.join().expect("sending does not panic"));
    threads::flush(&link);
    end.end();
    reader.join().expect("reading does not panic");
    log.holds_all(&(0..thread_count + task_count).collect::<Vec<_>>(), count);
}

fn pour_from_loop(link: &Arc<super::super::link::Link>, first: u8, tasks: u8, count: u8) {
    let of = Loop::new(1);
    of.run((first..first + tasks).map(|task| {
        let (of, link) = (Arc::clone(&of), Arc::clone(link));
        looped::task(async move {
            for number in 0..count {
                assert!(looped::send(&of, &link, &[task, number]).await);
            }
        })
    }));
}

#[test]
fn threads_that_meet_a_full_kernel_lose_nothing_and_wait_for_no_room_that_is_there() {
    in_orders(2_000, || pour(2, 0, 4, None));
}

#[test]
fn threads_whose_waits_for_room_end_early_lose_nothing() {
    in_orders(2_000, || pour(2, 0, 4, Some(Duration::from_millis(50))));
}

#[test]
fn tasks_that_meet_a_full_kernel_lose_nothing_and_wait_for_no_room_that_is_there() {
    in_orders(2_000, || pour(0, 2, 4, None));
}

#[test]
fn a_loop_a_thread_and_the_supervisor_hand_the_full_kernel_on_among_themselves() {
    in_orders(3_000, || pour(1, 2, 3, None));
}

/// What its last turn left unsent would lie there for a tick of the supervisor, which is seconds.
#[test]
fn a_loop_that_closes_leaves_the_full_kernel_to_the_supervisor_at_once() {
    in_orders(2_000, || {
        let (end, peer) = lone();
        let log = Log::default();
        pour_from_loop(&end.link, 0, 1, 4);
        read_frames(&peer, &log, 4);
        log.holds_all(&[0], 4);
        end.end();
    });
}

/// Whoever drives a user's iterable may hold its loop, which then drains nothing.
#[test]
fn a_loop_that_is_held_leaves_the_full_kernel_to_the_supervisor() {
    in_orders(2_000, || {
        let (end, peer) = lone();
        let log = Log::default();
        let (link, of) = (Arc::clone(&end.link), Loop::new(1));
        let reader = {
            let log = log.clone();
            shuttle::thread::spawn(move || read_frames(&peer, &log, 4))
        };
        let held = {
            let of = Arc::clone(&of);
            looped::task(async move {
                for number in 0..4 {
                    assert!(looped::send(&of, &link, &[0, number]).await);
                }
                link.write_past_loop();
                reader.join().expect("reading does not panic");
            })
        };
        of.run([held]);
        log.holds_all(&[0], 4);
        end.end();
    });
}

#[test]
fn a_loop_that_comes_after_a_closed_one_meets_no_drainer_that_is_dead() {
    in_orders(2_000, || {
        let (end, peer) = lone();
        let log = Log::default();
        pour_from_loop(&end.link, 0, 1, 4);
        let reader = {
            let log = log.clone();
            shuttle::thread::spawn(move || read_all(&peer, &log))
        };
        pour_from_loop(&end.link, 1, 1, 4);
        threads::flush(&end.link);
        end.end();
        reader.join().expect("reading does not panic");
        log.holds_all(&[0, 1], 4);
    });
}

/// It fails when a write that makes room tells nobody. A message that passes straight to the kernel tells the next one
/// too, but this does not show it: without that alone all orders that are tried still end well.
#[test]
fn room_for_several_is_heard_of_by_all_who_wait_for_it() {
    in_orders(5_000, || {
        let (end, peer) = lone();
        let filled = fill(&end.link);
        let (link, other) = (Arc::clone(&end.link), Arc::clone(&end.link));
        let senders = [
            shuttle::thread::spawn(move || assert!(send(&link, &park(), None, &[1, 0]))),
            shuttle::thread::spawn(move || pour_from_loop(&other, 2, 2, 1)),
        ];
        let log = Log::default();
        read_frames(&peer, &log, filled + 3);
        senders.into_iter().for_each(|sender| sender.join().expect("sending does not panic"));
        (1..4).for_each(|sender| assert_eq!(log.of(sender), [0]));
        end.end();
    });
}
