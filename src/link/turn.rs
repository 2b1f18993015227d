//! How long a task may take and send without waiting, while nothing else on its loop runs. Then one bare yield comes
//! before the next item, so that a firehose cannot starve the loop, nor a burst whose every item takes some work.
//! One for each thread: whoever waits or yields lets go of the loop, and the next to run begins anew.

use std::cell::Cell;
use std::time::Duration;

use super::clock;
use super::sync::thread_local;
use crate::proto::Moment;

/// Items since the last wait, after which it is over (at 128 this cost 13–18 %).
const ITEMS: usize = 1024;
/// Time since the last wait, after which it is over.
const TIME: Duration = Duration::from_millis(5);
/// The clock is looked at once for so many items.
const TIMED: usize = 16;
/// And for the first time behind these. A round trip has two, and then waits.
const FIRST: usize = 3;

thread_local! {
    static TURN: Turn = const { Turn::begin() };
}

pub struct Turn {
    items: Cell<usize>,
    /// How many there will be at the next look at the clock.
    look: Cell<usize>,
    /// When it began, or was looked at first.
    begun: Cell<Moment>,
}

impl Turn {
    pub const fn begin() -> Self {
        Self { items: Cell::new(0), look: Cell::new(FIRST), begun: Cell::new(Moment::ZERO) }
    }

    pub fn is_over(&self) -> bool {
        self.items.get() >= ITEMS
    }

    pub fn spend(&self, items: usize, now: impl FnOnce() -> Moment) {
        let items = self.items.get().saturating_add(items);
        self.items.set(items);
        if items >= self.look.get() {
            self.look_at_clock(now());
        }
    }

    #[cold]
    fn look_at_clock(&self, now: Moment) {
        if self.look.get() == FIRST {
            self.begun.set(now);
        } else if now.saturating_sub(self.begun.get()) >= TIME {
            self.items.set(ITEMS);
        }
        self.look.set(self.items.get().saturating_add(TIMED));
    }

    fn waits(&self) {
        self.items.set(0);
        self.look.set(FIRST);
    }

    fn yielded(&self, now: Moment) {
        self.items.set(0);
        self.look.set(TIMED);
        self.begun.set(now);
    }
}

/// Asked before anything is taken or accepted.
pub fn is_over() -> bool {
    TURN.with(Turn::is_over)
}

/// So many were taken or accepted without waiting.
pub fn spend(items: usize) {
    TURN.with(|turn| turn.spend(items, clock::now));
}

/// The loop runs others until something comes.
pub fn waits() {
    TURN.with(Turn::waits);
}

/// The loop runs others before it comes back.
pub fn yielded() {
    TURN.with(|turn| turn.yielded(clock::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: fn() -> Moment = || unreachable!("the clock is not looked at");

    /// How many items it gives before it is over, when each takes `work`.
    fn length(turn: &Turn, now: &mut Moment, work: Duration) -> usize {
        (0..)
            .find(|_| {
                let is_over = turn.is_over();
                if !is_over {
                    *now += work;
                    turn.spend(1, || *now);
                }
                is_over
            })
            .expect("every turn ends")
    }

    #[test]
    fn a_turn_has_1024_items_or_5_ms_and_the_clock_is_looked_at_every_16() {
        let mut now = Duration::from_secs(1);
        for (work, first, later) in [
            (Duration::ZERO, ITEMS, ITEMS),
            (Duration::from_micros(1), ITEMS, ITEMS),
            (Duration::from_millis(1), 19, 16),
            (Duration::from_secs(1), 19, 16),
            (Duration::from_micros(100), 67, 64),
        ] {
            let turn = Turn::begin();
            assert_eq!(length(&turn, &mut now, work), first, "{work:?}");
            for _ in 0..3 {
                turn.yielded(now);
                assert_eq!(length(&turn, &mut now, work), later, "{work:?}");
            }
            turn.waits();
            assert_eq!(length(&turn, &mut now, work), first, "{work:?}");
        }
    }

    #[test]
    fn a_round_trip_pays_nothing_for_it() {
        let turn = Turn::begin();
        for _ in 0..3000 {
            turn.spend(1, NEVER);
            turn.spend(1, NEVER);
            assert!(!turn.is_over());
            turn.waits();
        }
    }

    #[test]
    fn many_items_at_once_count_as_many() {
        let turn = Turn::begin();
        turn.spend(ITEMS - 1, || Duration::ZERO);
        assert!(!turn.is_over());
        turn.spend(usize::MAX, || Duration::ZERO);
        assert!(turn.is_over());
    }
}
