//! Who is woken when it becomes known what became of messages: whoever waits for one of them, and nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::clock;
use super::link::Link;
use super::wake::{Waiting, Wake, Waker};
use super::write::From;
use crate::proto::endpoint::Role;
use crate::proto::halves::Opened;
use crate::proto::hello::Agreement;
use crate::proto::options::{Buffer, Policy, Settings};
use crate::proto::receipts::{Goal, Outcome, Ticket};
use crate::proto::wire::{Numbers, encode_ack};

const MESSAGES: usize = 1000;

#[derive(Default)]
struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed);
        true
    }
}

impl Counting {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A link on our wire without a socket, that may begin whatever it is given.
fn link(policy: Policy) -> Arc<Link> {
    let write_buffer = Buffer { policy, count: MESSAGES, max_bytes: 1 << 30 };
    let options = Settings { write_buffer, ..Settings::default() }.check().unwrap();
    let link = Link::new(1, Role::Dialler, options);
    let agreement = Agreement {
        session: [1; 16],
        token: [2; 16],
        is_resumed: false,
        received: 0,
        credit: 1 << 40,
        offered: 1 << 20,
        max_messages: 1 << 20,
        hold: 1 << 30,
        max_size: 1 << 20,
        heartbeat_timeout: Duration::from_secs(20),
        has_dialled: true,
    };
    let opened = Opened { agreement: Some(&agreement), first_by: None, now: clock::now() };
    link.rx().receiver.link_up(link.options(), opened);
    link.tx().sender.link_up(Some(&agreement), clock::now());
    link
}

/// Everything that waits goes to the kernel.
fn hand_over(link: &Link) {
    let mut tx = link.tx();
    while tx.sender.has_work() {
        tx.sender.compose(link.numbers());
        let bytes = tx.sender.parts().iter().map(|part| part.len()).sum();
        tx.sender.wrote(bytes, clock::now());
    }
}

fn hear_ack(link: &Link, consumed: usize) {
    let mut ack = Vec::new();
    encode_ack(Numbers { consumed: u64::try_from(consumed).unwrap(), credit: 1 << 40 }, &mut ack);
    link.fed(&mut link.rx(), &ack);
}

fn send(link: &Link) -> (Ticket, Arc<Counting>) {
    let (_, _, ticket) = link.try_send_wanting(b"sure?", Goal::Consumed);
    let (ticket, waiter) = (ticket.unwrap(), Arc::<Counting>::default());
    assert!(link.wait_outcome(ticket, &(Arc::clone(&waiter) as Waker)));
    (ticket, waiter)
}

fn woken<'a>(waiters: impl IntoIterator<Item = &'a (Ticket, Arc<Counting>)>) -> usize {
    waiters.into_iter().map(|(_, waiter)| waiter.count()).sum()
}

#[test]
fn an_ack_wakes_those_whose_message_it_settles_and_nobody_else() {
    let link = link(Policy::Fixed);
    let waiters: Vec<_> = (0..MESSAGES).map(|_| send(&link)).collect();
    let (finisher, until) = (Arc::<Counting>::default(), clock::now() + Duration::from_secs(600));
    assert!(link.wait_confirmed(until, &(Arc::clone(&finisher) as Waker)));
    hand_over(&link);
    assert_eq!(woken(&waiters), 0);
    for (taken, (ticket, waiter)) in waiters.iter().enumerate() {
        assert_eq!((finisher.count(), waiter.count()), (0, 0), "not before its own");
        hear_ack(&link, taken + 1);
        assert_eq!((waiter.count(), woken(&waiters)), (1, taken + 1), "each for its own ACK");
        assert_eq!(link.outcome(*ticket), (Some(Outcome::Confirmed), true));
    }
    assert_eq!(finisher.count(), 1, "when nothing is left");
}

#[test]
fn a_message_that_slides_out_wakes_its_own_sender() {
    let link = link(Policy::Sliding);
    let waiters: Vec<_> = (0..2 * MESSAGES).map(|_| send(&link)).collect();
    let (slid, held) = waiters.split_at(MESSAGES);
    assert!(slid.iter().all(|(_, waiter)| waiter.count() == 1));
    assert_eq!(woken(held), 0);
    for number in 1..10 {
        link.try_send(b"newer", From::Batch);
        assert_eq!(woken(held), number);
    }
}

#[test]
fn whoever_leaves_is_not_woken_and_wakes_nobody() {
    let link = link(Policy::Fixed);
    let waiters: Vec<_> = (0..MESSAGES).map(|_| send(&link)).collect();
    for (ticket, waiter) in waiters[1..].iter().rev() {
        link.leave_outcome(*ticket, &(Arc::clone(waiter) as Waker));
        link.forget_outcome(*ticket);
    }
    hand_over(&link);
    hear_ack(&link, MESSAGES);
    assert_eq!((waiters[0].1.count(), woken(&waiters)), (1, 1));
}

#[test]
fn the_end_wakes_all_that_wait_for_it_or_for_less() {
    let mut waiting = Waiting::default();
    let counting: [Arc<Counting>; 4] = std::array::from_fn(|_| Arc::default());
    let waker = |place: usize| Arc::clone(&counting[place]) as Waker;
    let counts = || counting.each_ref().map(|one| one.count());
    for (place, key) in [5, 3, 3, 9].into_iter().enumerate() {
        waiting.add(key, waker(place));
    }
    waiting.remove(3, &waker(0));
    waiting.remove(3, &waker(2));
    waiting.wake_for(4);
    assert_eq!((counts(), waiting.first()), ([0; 4], Some(3)));
    waiting.wake_for(3);
    assert_eq!(counts(), [0, 1, 0, 0]);
    waiting.wake_up_to(5);
    assert_eq!((counts(), waiting.first()), ([1, 1, 0, 0], Some(9)));
    waiting.wake_all();
    assert!(waiting.is_empty());
    assert_eq!(counts(), [1, 1, 0, 1]);
}
