//! The numbers of a session (`wire.md` §3 and §4): how much each side may send, what counts as
//! consumed, and when that must be told. Messages are numbered from 0 in each direction, in the order in
//! which they are begun; the numbers are not on the wire, both sides count.
//!
//! Theory. Every counter is a function of message numbers: the cost sent is the cost of the messages
//! 0 … begun−1, the credit is the window plus the cost of the messages 0 … consumed−1. So the numbers
//! never decrease, saying them twice changes nothing, and who says an impossible one is found out. The
//! two directions share nothing and stand under different locks: [`Incoming`] is what we grant and
//! [`Outgoing`] what we were granted. A resume moves the number of the next message to begin back to what
//! the peer has received, and every sum with it, so a repeat costs nothing new; a new session begins at 0.
//!
//! 1. `nothing_is_begun_beyond_credit_count_or_hold`
//! 2. `one_message_larger_than_the_window_passes_alone`
//! 3. `a_peer_beyond_its_credit_is_found_at_its_next_header`
//! 4. `a_peer_that_confirms_what_was_never_begun_or_goes_backwards_is_found`
//! 5. `credit_and_consumed_never_decrease`
//! 6. `a_quarter_of_the_window_or_of_the_count_is_told_at_once`
//! 7. `what_is_left_of_an_older_session_counts_against_the_first_credit_only`
//! 8. `a_resume_moves_the_next_number_back_and_costs_nothing_new`
//! 9. `what_was_granted_and_taken_survives_a_resume`

use std::collections::VecDeque;

use super::Moment;
use super::events::Fault;
use super::hello::Agreement;
use super::options::Buffer;
use super::telling::{Telling, Untold};
use super::wire::{Numbers, protocol};

pub use super::telling::TELL_WITHIN;

/// From here on it is told of together with data that goes out anyway (b).
const TELL_WITH_DATA_COUNT: u64 = 64;
const TELL_WITH_DATA_COST: u64 = 16 * 1024;

/// What this side has received, taken and granted.
#[derive(Debug, Clone)]
pub struct Incoming {
    window: u64,
    max_messages: u64,
    /// Who chose a lossy buffer has chosen: received is consumed.
    is_lossy: bool,
    received: u64,
    received_cost: u64,
    consumed: u64,
    consumed_cost: u64,
    /// Messages of older sessions that the application has still to take, and their cost.
    older: usize,
    older_cost: u64,
    /// A side that closes consumes nothing more.
    is_frozen: bool,
    /// What the peer was told, as far as this half knows.
    announced: Numbers,
    step: Numbers,
    telling: Telling,
    /// ASKs wait until everything before these numbers is consumed; the lowest first.
    asked: VecDeque<u64>,
}

impl Incoming {
    pub fn new(buffer: Buffer) -> Self {
        let max_messages = u64::try_from(buffer.count).unwrap_or(u64::MAX).min(u64::from(u32::MAX) - 1);
        Self {
            window: buffer.max_bytes,
            max_messages: if buffer.is_lossy() { u64::MAX } else { max_messages },
            is_lossy: buffer.is_lossy(),
            received: 0,
            received_cost: 0,
            consumed: 0,
            consumed_cost: 0,
            older: 0,
            older_cost: 0,
            is_frozen: false,
            announced: Numbers::default(),
            step: Numbers::default(),
            telling: Telling::default(),
            asked: VecDeque::new(),
        }
    }

    /// A session begins; `waiting` messages of `cost` are left of older ones.
    pub fn begin(&mut self, peer_hold: u64, waiting: usize, cost: u64) {
        (self.older, self.older_cost) = (waiting, cost);
        (self.received, self.received_cost, self.consumed, self.consumed_cost) = (0, 0, 0, 0);
        self.announced = Numbers { consumed: 0, credit: self.numbers().credit };
        self.resume(peer_hold);
    }

    /// Another link carries the same session: its ASKs will be said again.
    pub fn resume(&mut self, peer_hold: u64) {
        self.step =
            Numbers { consumed: (self.max_messages / 4).max(1), credit: (self.window.min(peer_hold) / 4).max(1) };
        self.telling = Telling::default();
        self.asked.clear();
    }

    /// The number of the next message that was not received whole.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// What would be told now.
    pub fn numbers(&self) -> Numbers {
        let room = self.window.saturating_sub(self.older_cost);
        Numbers { consumed: self.consumed, credit: self.consumed_cost.saturating_add(room) }
    }

    /// What was told meanwhile.
    pub fn told(&mut self, announced: Numbers) {
        self.announced = announced;
    }

    /// A message's header has come: whether the peer was allowed to begin it.
    ///
    /// # Errors
    /// `PROTOCOL` where it was not.
    pub fn admit(&self) -> Result<(), Fault> {
        if self.received_cost >= self.announced.credit {
            return Err(protocol(format!("a message beyond the credit of {}", self.announced.credit)));
        }
        if self.received.saturating_sub(self.announced.consumed) >= self.max_messages {
            return Err(protocol(format!("more than {} messages that nobody has taken", self.max_messages)));
        }
        Ok(())
    }

    /// A message of this cost is whole.
    pub fn receive(&mut self, cost: u64) {
        self.received = self.received.saturating_add(1);
        self.received_cost = self.received_cost.saturating_add(cost);
        if self.is_lossy && !self.is_frozen {
            (self.consumed, self.consumed_cost) = (self.received, self.received_cost);
        }
    }

    /// A message of this cost left the inbox. `is_taken`: by the application.
    pub fn leave(&mut self, cost: u64, is_taken: bool) {
        if self.older > 0 {
            self.older -= 1;
            self.older_cost = self.older_cost.saturating_sub(cost);
        } else if is_taken && !self.is_frozen && self.consumed < self.received {
            // Otherwise it counted before: on arrival, or when the peer said CLOSE.
            self.consumed = self.consumed.saturating_add(1);
            self.consumed_cost = self.consumed_cost.saturating_add(cost);
        }
    }

    /// What arrives is thrown away from now on, and what lies there is the application's own affair.
    pub fn consume_on_arrival(&mut self) {
        self.is_lossy = true;
        self.consume_all();
    }

    /// The peer closes: what we hold we deliver, so it counts as consumed (`wire.md` §7).
    pub fn consume_all(&mut self) {
        if !self.is_frozen {
            (self.consumed, self.consumed_cost) = (self.received, self.received_cost);
        }
    }

    /// We close: `consumed` does not move any more.
    pub fn freeze(&mut self) {
        self.is_frozen = true;
    }

    /// ACK as soon as everything so far is consumed.
    pub fn ask(&mut self) {
        if self.asked.back() != Some(&self.received) {
            self.asked.push_back(self.received);
        }
    }

    /// Whether an ACK is due at once: an ASK is answered, or a quarter was consumed since the last.
    pub fn must_tell(&mut self) -> bool {
        let before = self.asked.len();
        // A side that closes answers at once: nothing more will be consumed.
        while self.asked.front().is_some_and(|mark| *mark <= self.consumed || self.is_frozen) {
            self.asked.pop_front();
        }
        let now = self.numbers();
        self.asked.len() < before
            || now.consumed.saturating_sub(self.announced.consumed) >= self.step.consumed
            || now.credit.saturating_sub(self.announced.credit) >= self.step.credit
    }

    /// Something may have been consumed: what is to be done about it. `lately` is a moment that has just passed;
    /// the clock is asked only where a new time begins.
    pub fn note_untold(&mut self, lately: Moment, now: impl FnOnce() -> Moment) -> Untold {
        self.telling.note(self.numbers(), self.announced, lately, now)
    }

    /// When the untold must be told. Whoever asks keeps the time: it looks again then.
    pub fn tell_deadline(&mut self) -> Option<Moment> {
        self.telling.deadline(self.numbers(), self.announced)
    }
}

/// Whether these numbers are worth telling together with data that goes out anyway.
pub fn is_worth_telling(now: Numbers, told: Numbers) -> bool {
    now.consumed.saturating_sub(told.consumed) >= TELL_WITH_DATA_COUNT
        || now.credit.saturating_sub(told.credit) >= TELL_WITH_DATA_COST
}

/// The peer's numbers, each not below the one before.
#[derive(Debug, Clone, Copy, Default)]
pub struct Heard(Numbers);

impl Heard {
    pub fn begin(&mut self, credit: u64) {
        self.0 = Numbers { consumed: 0, credit };
    }

    /// The same session goes on, with the `credit` of the peer's greeting.
    pub fn resume(&mut self, credit: u64) {
        self.0.credit = self.0.credit.max(credit);
    }

    pub fn numbers(&self) -> Numbers {
        self.0
    }

    /// Notes the next ones; whether either has moved.
    ///
    /// # Errors
    /// `PROTOCOL` when one goes backwards.
    pub fn hear(&mut self, next: Numbers) -> Result<bool, Fault> {
        let before = std::mem::replace(&mut self.0, next);
        if next.consumed < before.consumed || next.credit < before.credit {
            return Err(protocol(String::from("a counter went backwards")));
        }
        Ok(next != before)
    }
}

/// What this side has begun, and was granted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outgoing {
    begun: u64,
    begun_cost: u64,
    /// The most that `begun` ever was: a resume moves it back.
    ever: u64,
    confirmed: u64,
    confirmed_cost: u64,
    credit: u64,
    max_messages: u64,
    hold: u64,
}

impl Outgoing {
    pub fn begin_session(&mut self, agreement: &Agreement, hold: u64) {
        let (credit, max_messages) = (agreement.credit, agreement.max_messages);
        *self = Self { credit, max_messages, hold, ..Self::default() };
    }

    /// Another link carries the same session: what lies behind the confirmed `count` messages of `cost`
    /// was not received whole and will be begun again.
    pub fn resume(&mut self, agreement: &Agreement, hold: u64, count: u64, cost: u64) {
        self.begun = self.confirmed.saturating_add(count);
        self.begun_cost = self.confirmed_cost.saturating_add(cost);
        self.credit = self.credit.max(agreement.credit);
        (self.max_messages, self.hold) = (agreement.max_messages, hold);
    }

    /// Whether one more message may be begun.
    pub fn may_begin(&self) -> bool {
        self.begun_cost < self.credit
            && self.begun.saturating_sub(self.confirmed) < self.max_messages
            && self.begun_cost.saturating_sub(self.confirmed_cost) < self.hold
    }

    /// Whether `count` further messages of `cost` together may all be begun.
    pub fn may_begin_all(&self, count: u64, cost: u64) -> bool {
        let begun_cost = self.begun_cost.saturating_add(cost);
        begun_cost <= self.credit
            && begun_cost.saturating_sub(self.confirmed_cost) <= self.hold
            && self.begun.saturating_sub(self.confirmed).saturating_add(count) <= self.max_messages
    }

    pub fn begin(&mut self, cost: u64) {
        self.begun = self.begun.saturating_add(1);
        self.ever = self.ever.max(self.begun);
        self.begun_cost = self.begun_cost.saturating_add(cost);
    }

    pub fn confirm(&mut self, cost: u64) {
        self.confirmed = self.confirmed.saturating_add(1);
        self.confirmed_cost = self.confirmed_cost.saturating_add(cost);
    }

    pub fn grant(&mut self, credit: u64) {
        self.credit = self.credit.max(credit);
    }

    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// Messages ever begun in this session.
    pub fn ever_begun(&self) -> u64 {
        self.ever
    }

    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::cost;
    use super::super::options::Policy;
    use super::*;

    fn agreement(credit: u64, max_messages: u64) -> Agreement {
        Agreement {
            session: [1; 16],
            token: [2; 16],
            is_resumed: false,
            received: 0,
            credit,
            offered: 0,
            max_messages,
            hold: 1 << 20,
            max_size: 1 << 20,
            heartbeat_timeout: Duration::from_secs(1),
            has_dialled: true,
        }
    }

    fn outgoing(credit: u64, max_messages: u64, hold: u64) -> Outgoing {
        let mut outgoing = Outgoing::default();
        outgoing.begin_session(&agreement(credit, max_messages), hold);
        outgoing
    }

    fn incoming(policy: Policy, count: usize, max_bytes: u64) -> Incoming {
        let mut incoming = Incoming::new(Buffer { policy, count, max_bytes });
        incoming.begin(1 << 30, 0, 0);
        incoming
    }

    fn begin_all(outgoing: &mut Outgoing, cost: u64) -> u64 {
        let mut count = 0;
        while outgoing.may_begin() {
            outgoing.begin(cost);
            count += 1;
        }
        count
    }

    #[test]
    fn nothing_is_begun_beyond_credit_count_or_hold() {
        assert_eq!(begin_all(&mut outgoing(1000, 99, 1 << 20), 100), 10);
        assert_eq!(begin_all(&mut outgoing(1 << 20, 7, 1 << 20), 100), 7);
        let mut held = outgoing(1 << 20, 99, 500);
        assert_eq!(begin_all(&mut held, 100), 5);
        held.confirm(100);
        assert_eq!(begin_all(&mut held, 100), 1);
        assert!(held.may_begin_all(0, 0) && !held.may_begin_all(1, 100));
    }

    #[test]
    fn one_message_larger_than_the_window_passes_alone() {
        let mut outgoing = outgoing(1000, 99, 1000);
        assert_eq!(begin_all(&mut outgoing, 5000), 1);
        let mut incoming = incoming(Policy::Fixed, 99, 1000);
        assert!(incoming.admit().is_ok());
        incoming.receive(5000);
        assert!(incoming.admit().is_err());
    }

    #[test]
    fn a_peer_beyond_its_credit_is_found_at_its_next_header() {
        let mut by_cost = incoming(Policy::Fixed, 99, 200);
        by_cost.receive(100);
        assert!(by_cost.admit().is_ok());
        by_cost.receive(100);
        assert!(by_cost.admit().is_err());
        by_cost.leave(100, true);
        assert!(by_cost.admit().is_err(), "what was not announced does not count");
        by_cost.told(by_cost.numbers());
        assert!(by_cost.admit().is_ok());
        let mut by_count = incoming(Policy::Fixed, 2, 1 << 20);
        by_count.receive(64);
        by_count.receive(64);
        assert!(by_count.admit().is_err());
    }

    #[test]
    fn a_peer_that_confirms_what_was_never_begun_or_goes_backwards_is_found() {
        let mut heard = Heard::default();
        heard.begin(100);
        let numbers = |consumed, credit| Numbers { consumed, credit };
        assert_eq!(heard.hear(numbers(0, 100)), Ok(false));
        assert_eq!(heard.hear(numbers(1, 200)), Ok(true));
        assert_eq!(heard.numbers(), numbers(1, 200), "a resume is held against it");
        assert!(heard.hear(numbers(0, 200)).is_err());
        heard.begin(100);
        assert!(heard.hear(numbers(0, 99)).is_err());
    }

    #[test]
    fn credit_and_consumed_never_decrease() {
        let mut incoming = incoming(Policy::Fixed, 99, 1000);
        let mut last = incoming.numbers();
        for round in 0..50 {
            incoming.receive(100);
            if round % 3 == 0 {
                incoming.leave(100, true);
            }
            match round {
                30 => incoming.consume_all(),
                40 => incoming.freeze(),
                _ => {}
            }
            let now = incoming.numbers();
            assert!(now.consumed >= last.consumed && now.credit >= last.credit);
            assert!(now.consumed <= round + 1);
            last = now;
        }
        assert!(last.consumed < 50, "a side that closes consumes nothing more");
    }

    #[test]
    fn what_counted_when_the_peer_closed_does_not_count_again_when_it_is_taken() {
        let mut incoming = incoming(Policy::Fixed, 99, 1000);
        incoming.receive(100);
        incoming.receive(100);
        incoming.consume_all();
        let told = incoming.numbers();
        incoming.leave(100, true);
        assert_eq!((incoming.numbers(), told.consumed), (told, 2));
    }

    #[test]
    fn a_quarter_of_the_window_or_of_the_count_is_told_at_once() {
        let mut by_count = incoming(Policy::Fixed, 8, 1 << 20);
        by_count.receive(64);
        by_count.receive(64);
        by_count.leave(64, true);
        assert!(!by_count.must_tell());
        by_count.leave(64, true);
        assert!(by_count.must_tell());
        let mut by_cost = incoming(Policy::Fixed, 1000, 4000);
        by_cost.receive(1000);
        by_cost.leave(1000, true);
        assert!(by_cost.must_tell());
        by_cost.told(by_cost.numbers());
        assert!(!by_cost.must_tell());
    }

    #[test]
    fn each_ask_is_answered_once_what_came_before_it_is_consumed() {
        let mut incoming = incoming(Policy::Fixed, 1000, 1 << 20);
        incoming.ask();
        assert!(incoming.must_tell() && !incoming.must_tell());
        incoming.receive(64);
        incoming.receive(64);
        incoming.ask();
        incoming.ask();
        assert_eq!(incoming.asked.len(), 1, "a second one at the same place asks for nothing more");
        incoming.leave(64, true);
        assert!(!incoming.must_tell());
        incoming.leave(64, true);
        assert!(incoming.must_tell() && !incoming.must_tell());
    }

    #[test]
    fn a_side_that_closes_consumes_nothing_more_and_answers_at_once() {
        let mut incoming = incoming(Policy::Fixed, 1000, 1 << 20);
        incoming.receive(64);
        incoming.receive(64);
        incoming.ask();
        incoming.freeze();
        let told = incoming.numbers();
        incoming.leave(64, true);
        incoming.consume_all();
        assert_eq!(incoming.numbers(), told);
        assert!(incoming.must_tell() && !incoming.must_tell());
    }

    #[test]
    fn every_consumption_is_told_within_a_quarter_second() {
        let at = Duration::from_millis;
        let mut incoming = incoming(Policy::Fixed, 1000, 1 << 20);
        assert_eq!(incoming.note_untold(at(1), || at(1)), Untold::Quiet);
        for round in 0..9 {
            let now = 500 * round + 10;
            incoming.receive(64);
            incoming.leave(64, true);
            assert_eq!(incoming.note_untold(at(now), || at(now)), Untold::Watch);
            assert_eq!(incoming.tell_deadline(), Some(at(now + 240)));
            incoming.told(incoming.numbers());
            assert_eq!(incoming.tell_deadline(), None);
        }
        incoming.receive(64);
        incoming.leave(64, true);
        incoming.note_untold(at(5000), || at(5000));
        incoming.resume(1 << 20);
        assert_eq!(incoming.tell_deadline(), None, "the first ACK of the next link tells");
        incoming.receive(64);
        incoming.leave(64, true);
        assert_eq!(incoming.note_untold(at(5010), || at(5010)), Untold::Watch);
    }

    #[test]
    fn an_ask_costs_the_same_however_many_wait() {
        let mut incoming = incoming(Policy::Fixed, 1 << 20, 1 << 40);
        for _ in 0..100_000 {
            incoming.receive(64);
            incoming.ask();
        }
        for left in (0..100_000).rev() {
            incoming.leave(64, true);
            assert!(incoming.must_tell() && !incoming.must_tell());
            assert_eq!(incoming.asked.len(), left, "the one that is answered, and no other");
        }
    }

    #[test]
    fn what_is_left_of_an_older_session_counts_against_the_first_credit_only() {
        let mut incoming = incoming(Policy::Fixed, 1000, 1000);
        incoming.receive(300);
        incoming.receive(900);
        incoming.begin(1 << 20, 2, 1200);
        assert_eq!(incoming.numbers(), Numbers { consumed: 0, credit: 0 });
        incoming.leave(300, true);
        assert_eq!(incoming.numbers(), Numbers { consumed: 0, credit: 100 });
        assert!(!incoming.must_tell());
        incoming.leave(900, true);
        assert_eq!(incoming.numbers(), Numbers { consumed: 0, credit: 1000 });
        assert!(incoming.must_tell());
        incoming.told(incoming.numbers());
        incoming.receive(100);
        incoming.leave(100, true);
        assert_eq!(incoming.numbers(), Numbers { consumed: 1, credit: 1100 });
    }

    #[test]
    fn a_resume_moves_the_next_number_back_and_costs_nothing_new() {
        let mut outgoing = outgoing(1000, 99, 1 << 20);
        assert_eq!(begin_all(&mut outgoing, 100), 10);
        outgoing.confirm(100);
        // Four of the ten had been received, one of them is confirmed.
        outgoing.resume(&agreement(1200, 99), 1 << 20, 3, 300);
        assert_eq!((outgoing.begun(), outgoing.ever_begun()), (4, 10));
        outgoing.begin(100);
        assert_eq!(outgoing.ever_begun(), 10, "a repeat is no new one");
        outgoing.resume(&agreement(1200, 99), 1 << 20, 3, 300);
        assert_eq!(begin_all(&mut outgoing, 100), 8, "six repeats, and two that the greeting has granted");
        assert_eq!(outgoing.ever_begun(), 12);
        let mut held = self::outgoing(1 << 20, 99, 500);
        assert_eq!(begin_all(&mut held, 100), 5);
        held.resume(&agreement(1 << 20, 99), 500, 0, 0);
        assert_eq!(begin_all(&mut held, 100), 5, "a full hold does not forbid the repeats");
    }

    #[test]
    fn what_was_granted_and_taken_survives_a_resume() {
        let mut incoming = incoming(Policy::Fixed, 99, 1000);
        incoming.receive(300);
        incoming.receive(300);
        incoming.leave(300, true);
        incoming.ask();
        let before = incoming.numbers();
        incoming.resume(1 << 20);
        assert_eq!((incoming.numbers(), incoming.received()), (before, 2));
        incoming.told(before);
        assert!(!incoming.must_tell(), "an ASK of a link that is gone is said again");
        let mut heard = Heard::default();
        heard.begin(100);
        heard.hear(Numbers { consumed: 3, credit: 400 }).unwrap();
        heard.resume(500);
        assert!(heard.hear(Numbers { consumed: 3, credit: 499 }).is_err());
    }

    #[test]
    fn a_lossy_buffer_consumes_what_it_receives() {
        let mut incoming = incoming(Policy::Sliding, 2, 1000);
        for _ in 0..10_000 {
            assert!(incoming.admit().is_ok());
            incoming.receive(cost(0));
            incoming.told(incoming.numbers());
        }
        assert_eq!(incoming.numbers().consumed, 10_000);
    }
}
