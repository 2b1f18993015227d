//! When to dial again: exponential back-off with full jitter, or a fixed period.

use std::time::Duration;

use super::options::{Jitter, Retry};

#[derive(Debug, Clone)]
pub struct Backoff {
    retry: Retry,
    /// Waits handed out since the last fresh start.
    waits: i32,
    /// The wait before the latest dial, in whole milliseconds: beside the count it costs a connection nothing.
    last: u32,
    random: SplitMix,
}

impl Backoff {
    pub fn new(retry: Retry, seed: u64) -> Self {
        Self { retry, waits: 0, last: 0, random: SplitMix(seed) }
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        let longest = self.retry.maximum.as_secs_f64();
        // Infinity where the power overflows; the longest wait cuts it.
        let due = (self.retry.initial.as_secs_f64() * self.retry.factor.powi(self.waits)).min(longest);
        self.waits = self.waits.saturating_add(1);
        let share = match self.retry.jitter {
            Jitter::Full => self.random.fraction(),
            Jitter::None => 1.0,
        };
        Duration::try_from_secs_f64(due * share).unwrap_or(self.retry.maximum)
    }

    /// So long is waited in fact: a policy is not all that decides.
    pub fn note_wait(&mut self, wait: Duration) {
        self.last = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
    }

    /// A link was up for so long. Starts afresh if that was as long as the wait before it, and long enough for a
    /// peer that is of use: what greets and falls over, or says a word first, is not dialled any faster for it.
    pub fn note_link(&mut self, up: Duration) {
        let least = self.retry.initial.saturating_mul(10).min(self.retry.maximum);
        if up >= least.max(Duration::from_millis(self.last.into())) {
            self.waits = 0;
        }
    }

    /// The longest wait that this policy knows.
    pub fn longest(&self) -> Duration {
        self.retry.maximum
    }
}

/// A small generator for jitter: it needs to differ between processes, not to be unguessable.
#[derive(Debug, Clone)]
pub struct SplitMix(pub u64);

impl SplitMix {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in [0, 1).
    pub fn fraction(&mut self) -> f64 {
        let top = u32::try_from(self.draw() >> 32).unwrap_or(0);
        f64::from(top) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_jitter_stays_below_the_exponential_and_the_longest_wait() {
        let retry = Retry::new(0.1, 2.0, 1.0, Jitter::Full).unwrap();
        let mut backoff = Backoff::new(retry, 7);
        for n in 0..100 {
            let limit = (0.1 * 2f64.powi(n)).min(1.0);
            assert!(backoff.wait().as_secs_f64() < limit);
        }
    }

    #[test]
    fn a_fixed_period_is_always_the_same() {
        let mut backoff = Backoff::new(Retry::fixed(0.25).unwrap(), 7);
        assert!((0..50).all(|_| backoff.wait() == Duration::from_millis(250)));
    }

    /// Waits as long as it says.
    fn rest(backoff: &mut Backoff) -> f64 {
        let wait = backoff.wait();
        backoff.note_wait(wait);
        wait.as_secs_f64()
    }

    #[test]
    fn it_starts_afresh_once_a_link_was_up_for_ten_first_waits() {
        let retry = Retry::new(0.1, 2.0, 10.0, Jitter::None).unwrap();
        let mut backoff = Backoff::new(retry, 7);
        for (up, next) in [(999, 0.1), (999, 0.2), (1000, 0.1), (0, 0.2), (5000, 0.1)] {
            backoff.note_link(Duration::from_millis(up));
            assert_eq!(rest(&mut backoff), next);
        }
    }

    #[test]
    fn a_link_that_was_up_for_less_than_the_wait_before_it_changes_nothing() {
        let retry = Retry::new(0.1, 10.0, 10.0, Jitter::None).unwrap();
        let mut backoff = Backoff::new(retry, 7);
        assert_eq!([0.1, 1.0, 10.0], [(); 3].map(|()| rest(&mut backoff)));
        backoff.note_link(Duration::from_millis(9999));
        assert_eq!(rest(&mut backoff), 10.0);
        backoff.note_link(Duration::from_secs(10));
        assert_eq!(rest(&mut backoff), 0.1);
        backoff.note_wait(Duration::from_secs(3));
        backoff.note_link(Duration::from_secs(2));
        assert_eq!(rest(&mut backoff), 1.0, "what was waited counts, not what the policy says");
    }

    #[test]
    fn no_link_need_be_up_for_longer_than_the_longest_wait() {
        let retry = Retry::new(0.5, 2.0, 1.0, Jitter::None).unwrap();
        let mut backoff = Backoff::new(retry, 7);
        assert_eq!([0.5, 1.0, 1.0], [(); 3].map(|()| rest(&mut backoff)));
        backoff.note_link(Duration::from_secs(1));
        assert_eq!(rest(&mut backoff), 0.5);
    }

    #[test]
    fn two_seeds_do_not_dial_in_step() {
        let retry = Retry::new(10.0, 2.0, 10.0, Jitter::Full).unwrap();
        let waits = |seed| Backoff::new(retry, seed).wait();
        assert_ne!(waits(1), waits(2));
    }
}
