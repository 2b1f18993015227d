//! Loops, threads and the supervisor read and write one connection in turn or side by side: nothing is lost,
//! nothing comes twice, order is kept, and nobody waits for ever.

use std::sync::Arc;
use std::time::Duration;

use shuttle::thread::JoinHandle;

use super::super::clock;
use super::super::link::Link;
use super::in_orders;
use super::looped::{self, Loop};
use super::threads::{self, park};
use super::world::{End, Item, Log, couple, lone, read_all, write_all};
use crate::proto::options::Protocol;

/// More than threads linger.
const LONG: Duration = Duration::from_millis(60);

fn join(work: impl IntoIterator<Item = JoinHandle<()>>) {
    work.into_iter().for_each(|thread| thread.join().expect("no part of it panics"));
}

/// A loop of which one task takes and one sends, so many messages each.
fn looping(id: usize, link: &Arc<Link>, log: &Log, count: u8) -> JoinHandle<()> {
    let (link, log) = (Arc::clone(link), log.clone());
    shuttle::thread::spawn(move || {
        let of = Loop::new(id);
        let (taking, sending) = (Arc::clone(&of), Arc::clone(&of));
        let (from, to) = (Arc::clone(&link), link);
        let takes = looped::task(async move {
            for _ in 0..count {
                looped::recv(&taking, &from, |item| log.note(item)).await;
            }
        });
        let sends = looped::task(async move {
            for number in 0..count {
                assert!(looped::send(&sending, &to, &[0, number]).await);
            }
        });
        of.run([takes, sends]);
    })
}

/// A thread that takes and one that sends.
fn blocking(link: &Arc<Link>, log: &Log, count: u8) -> [JoinHandle<()>; 2] {
    let (from, to, log) = (Arc::clone(link), Arc::clone(link), log.clone());
    let takes = shuttle::thread::spawn(move || take_blocking(&from, &log, count));
    let sends = shuttle::thread::spawn(move || send_blocking(&to, 1, count));
    [takes, sends]
}

fn take_blocking(link: &Link, log: &Log, count: u8) {
    let park = park();
    for _ in 0..count {
        assert!(matches!(threads::recv(link, &park, None, |item| log.note(item)), Item::Message(..)));
    }
}

fn send_blocking(link: &Link, sender: u8, count: u8) {
    let park = park();
    (0..count).for_each(|number| assert!(threads::send(link, &park, None, &[sender, number])));
}

fn take_looping(id: usize, link: &Arc<Link>, log: &Log, count: u8) {
    let of = Loop::new(id);
    let (taking, link, log) = (Arc::clone(&of), Arc::clone(link), log.clone());
    of.run([looped::task(async move {
        for _ in 0..count {
            looped::recv(&taking, &link, |item| log.note(item)).await;
        }
    })]);
}

/// Both ends use a loop and threads at once.
fn mixed(protocol: Protocol, count: u8) {
    let (one, other) = couple(protocol);
    let logs = [Log::default(), Log::default()];
    let mut work = Vec::new();
    for (place, end) in [&one, &other].into_iter().enumerate() {
        work.push(looping(place, &end.link, &logs[place], count));
        work.extend(blocking(&end.link, &logs[place], count));
    }
    join(work);
    logs.iter().for_each(|log| log.holds_all(&[0, 1], count));
    end_both(one, other);
}

fn end_both(one: End, other: End) {
    one.end();
    other.end();
}

#[test]
fn a_loop_and_threads_at_once_on_both_ends_of_the_original_wire() {
    in_orders(1_000, || mixed(Protocol::Classic, 2));
}

#[test]
fn a_loop_and_threads_at_once_on_both_ends_of_our_wire() {
    in_orders(1_000, || mixed(Protocol::Native, 2));
}

/// One end, whose reader changes in the middle of a stream, while a thread sends. `time` passes between.
fn in_turn(turns: fn(&Arc<Link>, &Log), count: u8) {
    let (end, peer) = lone();
    let (log, echo) = (Log::default(), Log::default());
    let (writer, reader) = (Arc::clone(&peer), (peer, echo.clone()));
    let writes = shuttle::thread::spawn(move || write_all(&writer, 7, count));
    let reads = shuttle::thread::spawn(move || read_all(&reader.0, &reader.1));
    let link = Arc::clone(&end.link);
    let sends = shuttle::thread::spawn(move || send_blocking(&link, 1, 4));
    turns(&end.link, &log);
    join([writes, sends]);
    threads::flush(&end.link);
    log.holds_all(&[7], count);
    end.end();
    join([reads]);
    echo.holds_all(&[1], 4);
}

#[test]
fn from_a_loop_to_a_thread_to_the_supervisor_and_to_another_loop_in_the_middle_of_a_stream() {
    let turns = |link: &Arc<Link>, log: &Log| {
        take_looping(1, link, log, 3);
        take_blocking(link, log, 3);
        clock::pass(LONG);
        take_looping(2, link, log, 3);
        take_blocking(link, log, 2);
    };
    in_orders(3_000, move || in_turn(turns, 11));
}

#[test]
fn two_loops_and_a_thread_side_by_side_while_time_passes() {
    let turns = |link: &Arc<Link>, log: &Log| {
        let takers = [1, 2].map(|id| {
            let (link, log) = (Arc::clone(link), log.clone());
            shuttle::thread::spawn(move || take_looping(id, &link, &log, 3))
        });
        let time = shuttle::thread::spawn(|| (0..3).for_each(|_| clock::pass(LONG)));
        take_blocking(link, log, 3);
        join(takers.into_iter().chain([time]));
    };
    in_orders(3_000, move || in_turn(turns, 9));
}

/// Two ticks are enough for the supervisor to read in place of a loop that does not run, or not yet.
#[test]
fn a_loop_that_is_relieved_in_the_middle_of_a_stream_goes_on_where_the_supervisor_stops() {
    let turns = |link: &Arc<Link>, log: &Log| {
        let time = shuttle::thread::spawn(|| (0..2).for_each(|_| clock::pass(Duration::from_secs(9 * 3600))));
        take_looping(1, link, log, 6);
        join([time]);
    };
    in_orders(3_000, move || in_turn(turns, 6));
}
