//! When what was consumed must be told (`wire.md` §4, e), and when somebody must be woken to see to it. A
//! message costs no timer: while consumption goes on, whoever keeps the time looks again at the moments that it
//! knows of, and where data goes out before those the numbers go with it.
//!
//! 1. `nothing_stays_untold_for_longer_than_a_quarter_second`, whatever was told between two consumptions.
//! 2. `whoever_keeps_the_time_is_woken_only_when_it_would_look_too_late`
//! 3. `what_a_teller_did_not_know_of_yet_stays_untold`
//! 4. `what_waits_for_half_the_time_goes_with_data`

use std::time::Duration;

use super::Moment;
use super::wire::Numbers;

/// A consumption is told of at the latest after this (`wire.md` §4, e).
pub const TELL_WITHIN: Duration = Duration::from_millis(250);
/// So long before its time is over it goes with data that goes out anyway.
const WITH_DATA: Duration = Duration::from_millis(125);
/// Times are brought forward to the next multiple of this, so that many connections are seen to at once.
const GRID: u32 = 50_000_000;

#[derive(Debug, Clone, Default)]
pub struct Telling {
    /// When the first untold consumption must be told, and the numbers behind the last that was noted.
    untold: Option<(Moment, Numbers)>,
    /// When whoever keeps the time looks next.
    look: Option<Moment>,
}

/// What is to be done about something that was consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untold {
    /// It is told, or will be in time.
    Quiet,
    /// Whoever keeps the time must be woken.
    Watch,
    /// It should go with the next data.
    Near,
}

impl Telling {
    /// Something may have been consumed, which makes the numbers `ours`; the peer was told `told`. `lately` is a
    /// moment that has just passed; the clock is asked only where a new time begins.
    pub fn note(&mut self, ours: Numbers, told: Numbers, lately: Moment, now: impl FnOnce() -> Moment) -> Untold {
        if ours == told {
            self.untold = None;
            return Untold::Quiet;
        }
        let due = match self.untold {
            // Who tells may have known of the older ones only: theirs is the time that counts.
            Some((due, noted)) if !reaches(told, noted) => due,
            _ => on_grid(now().saturating_add(TELL_WITHIN)),
        };
        self.untold = Some((due, ours));
        if self.look.is_none_or(|look| look > due) {
            self.look = Some(due);
            return Untold::Watch;
        }
        // Compared before anything is computed: this is on the way of each message.
        if lately >= due || due - lately <= WITH_DATA { Untold::Near } else { Untold::Quiet }
    }

    /// When it must be told, if anything is untold. Whoever asks keeps the time: it looks again then.
    pub fn deadline(&mut self, ours: Numbers, told: Numbers) -> Option<Moment> {
        self.untold.take_if(|_| ours == told);
        self.look = self.untold.map(|(due, _)| due);
        self.look
    }
}

fn reaches(told: Numbers, noted: Numbers) -> bool {
    told.consumed >= noted.consumed && told.credit >= noted.credit
}

fn on_grid(moment: Moment) -> Moment {
    moment.saturating_sub(Duration::from_nanos(u64::from(moment.subsec_nanos() % GRID)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: fn() -> Moment = || unreachable!("the clock is not asked");

    fn at(milliseconds: u64) -> Moment {
        Duration::from_millis(milliseconds)
    }

    fn numbers(consumed: u64) -> Numbers {
        Numbers { consumed, credit: 1000 + consumed * 64 }
    }

    fn note(telling: &mut Telling, ours: u64, told: u64, now: u64) -> Untold {
        telling.note(numbers(ours), numbers(told), at(now), || at(now))
    }

    #[test]
    fn nothing_stays_untold_for_longer_than_a_quarter_second() {
        let mut telling = Telling::default();
        for round in 0..20 {
            let now = 1000 * round + 7 * round;
            assert_eq!(note(&mut telling, round + 1, round, now), Untold::Watch, "each of them");
            let due = telling.deadline(numbers(round + 1), numbers(round)).unwrap();
            assert!(due <= at(now + 250) && due > at(now + 200), "{due:?} from {now}");
            if round % 3 == 0 {
                // Told by its time, or with something else before it; and whoever keeps the time has looked or not.
                assert_eq!(telling.deadline(numbers(round + 1), numbers(round + 1)), None);
            } else {
                telling.look.take_if(|look| *look <= at(now + 1000));
            }
        }
    }

    #[test]
    fn whoever_keeps_the_time_is_woken_only_when_it_would_look_too_late() {
        let mut telling = Telling::default();
        assert_eq!(note(&mut telling, 1, 0, 0), Untold::Watch);
        assert_eq!(telling.note(numbers(2), numbers(0), at(10), NEVER), Untold::Quiet);
        // Data told of all that; what comes then is seen to at the look that was promised.
        assert_eq!(note(&mut telling, 3, 2, 100), Untold::Quiet);
        assert_eq!(telling.deadline(numbers(3), numbers(2)), Some(at(350)));
        assert_eq!(note(&mut telling, 4, 3, 200), Untold::Quiet, "it looks at 350, this one has until 450");
        assert_eq!(telling.deadline(numbers(4), numbers(4)), None);
        assert_eq!(note(&mut telling, 5, 4, 460), Untold::Watch, "nobody looks any more");
    }

    #[test]
    fn what_a_teller_did_not_know_of_yet_stays_untold() {
        let mut telling = Telling::default();
        note(&mut telling, 1, 0, 0);
        note(&mut telling, 2, 0, 100);
        // Another thread had composed the first of them when the second was noted.
        assert_eq!(telling.deadline(numbers(2), numbers(1)), Some(at(250)));
        assert_eq!(telling.note(numbers(3), numbers(1), at(110), NEVER), Untold::Quiet);
        assert_eq!(telling.deadline(numbers(3), numbers(1)), Some(at(250)));
        // Older sessions give credit back, and consume nothing.
        let credit = |credit| Numbers { consumed: 7, credit };
        let mut telling = Telling::default();
        assert_eq!(telling.note(credit(20), credit(10), at(0), || at(0)), Untold::Watch);
        assert_eq!(telling.deadline(credit(20), credit(10)), Some(at(250)));
        // Where credit can grow no further it is `consumed` alone.
        let count = |consumed| Numbers { consumed, credit: u64::MAX };
        let mut telling = Telling::default();
        for round in 0..5 {
            assert_eq!(
                telling.note(count(round + 1), count(round), at(300 * round), || at(300 * round)),
                Untold::Watch
            );
            assert_eq!(telling.deadline(count(round + 1), count(round + 1)), None);
        }
    }

    #[test]
    fn what_waits_for_half_the_time_goes_with_data() {
        let mut telling = Telling::default();
        note(&mut telling, 1, 0, 0);
        assert_eq!(telling.note(numbers(2), numbers(0), at(124), NEVER), Untold::Quiet);
        assert_eq!(telling.note(numbers(3), numbers(0), at(125), NEVER), Untold::Near);
    }
}
