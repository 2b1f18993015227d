//! When to speak and when to give up (`wire.md` §6). Judges, and leaves the look at the socket that
//! comes before every verdict to its caller: each deadline here is one at which to look once more.
//!
//! 1. `any_byte_counts_as_life`, in the middle of a message too.
//! 2. `a_paused_reader_judges_nobody`: silence and frame deadline start afresh with the next read.
//! 3. `a_dripped_frame_is_slow_and_an_honest_slow_link_is_not`
//! 4. `a_flood_of_heartbeats_empties_the_bucket_and_traffic_refills_it`

use std::time::Duration;

use super::Moment;
use super::events::{Fault, Reason};

/// Bytes a second that a frame must bring beyond its first `timeout`.
pub const SLOWEST_FRAME: u32 = 1024;

/// What the reading side knows of its peer's life.
#[derive(Debug, Clone)]
pub struct Hearing {
    timeout: Duration,
    heard: Moment,
    /// When the first byte of the unfinished frame came.
    frame_began: Option<Moment>,
    is_paused: bool,
    budget: Budget,
}

impl Hearing {
    pub fn new(timeout: Duration, now: Moment) -> Self {
        Self { timeout, heard: now, frame_began: None, is_paused: false, budget: Budget::new(now) }
    }

    /// `bytes` came; afterwards a frame is unfinished or none is. `has_new_frame` says that the
    /// unfinished one began in this batch.
    pub fn heard(&mut self, now: Moment, is_in_frame: bool, has_new_frame: bool) {
        let has_resumed = self.is_paused;
        self.resume(now);
        self.heard = now;
        self.frame_began = match self.frame_began {
            _ if !is_in_frame => None,
            Some(began) if !has_new_frame && !has_resumed => Some(began),
            _ => Some(now),
        };
    }

    /// Takes one batch from the bucket of heartbeats; false when it is empty.
    pub fn spend(&mut self, now: Moment, heartbeats: u64, messages: u64, bytes: usize) -> bool {
        self.budget.spend(now, heartbeats, messages, bytes)
    }

    /// Gives back what one frame has cost.
    pub fn refund(&mut self) {
        self.budget.left = (self.budget.left + 1.0).min(Budget::SIZE.max(self.budget.left));
    }

    /// Reading stopped because the application does not take.
    pub fn pause(&mut self) {
        self.is_paused = true;
    }

    /// Reading began again: silence and frame deadline start afresh, whether or not a byte is there.
    /// The heartbeats of the whole pause may come at once.
    pub fn resume(&mut self, now: Moment) {
        if std::mem::take(&mut self.is_paused) {
            self.heard = now;
            self.frame_began = self.frame_began.map(|_| now);
            self.budget.save_up(now);
        }
    }

    /// When to look once more, and then to `judge`. `unfinished` counts the bytes of the unfinished frame.
    pub fn deadline(&self, unfinished: usize) -> Option<Moment> {
        if self.is_paused {
            return None;
        }
        let silence = self.heard.saturating_add(self.timeout);
        Some(self.frame_deadline(unfinished).map_or(silence, |frame| frame.min(silence)))
    }

    /// The verdict, after a look that was made at `now`.
    pub fn judge(&self, now: Moment, unfinished: usize) -> Option<Reason> {
        if self.is_paused {
            return None;
        }
        if now >= self.heard.saturating_add(self.timeout) {
            return Some(Reason::HeartbeatTimeout);
        }
        self.frame_deadline(unfinished).filter(|deadline| now >= *deadline).map(|_| Reason::SlowFrame)
    }

    fn frame_deadline(&self, unfinished: usize) -> Option<Moment> {
        let bytes = u32::try_from(unfinished).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(1) * bytes / SLOWEST_FRAME;
        self.frame_began.map(|began| began.saturating_add(self.timeout).saturating_add(earned))
    }
}

/// The fault of a peer that only keeps us busy.
pub fn flood() -> Fault {
    Fault { reason: Reason::Flood, detail: String::from("more control frames than any peer needs") }
}

/// When a heartbeat is due: counted from the last write, however much is read.
#[derive(Debug, Clone)]
pub struct Speaking {
    own: Duration,
    interval: Duration,
    spoke: Moment,
}

impl Speaking {
    /// However short a peer's timeout is, it is not spoken to more often.
    const LEAST: Duration = Duration::from_millis(10);

    pub fn new(interval: Duration, now: Moment) -> Self {
        Self { own: interval, interval, spoke: now }
    }

    /// The peer gives up after `timeout`: mismatched settings must not make a link flap.
    pub fn answer_to(&mut self, timeout: Duration) {
        self.interval = self.own.min(timeout / 3).max(Self::LEAST);
    }

    pub fn spoke(&mut self, now: Moment) {
        self.spoke = now;
    }

    pub fn deadline(&self) -> Moment {
        self.spoke.saturating_add(self.interval)
    }
}

/// Bytes that the kernel does not take: a peer of our wire always reads.
#[derive(Debug, Clone)]
pub struct Stall {
    timeout: Duration,
    since: Option<Moment>,
}

impl Stall {
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, since: None }
    }

    /// After a write: whether bytes are left over, and whether it took some.
    pub fn note(&mut self, is_blocked: bool, has_moved: bool, now: Moment) {
        self.since = match self.since {
            _ if !is_blocked => None,
            Some(since) if !has_moved => Some(since),
            _ => Some(now),
        };
    }

    pub fn end(&mut self) {
        self.since = None;
    }

    pub fn deadline(&self) -> Option<Moment> {
        self.since.map(|since| since.saturating_add(self.timeout))
    }
}

/// A bucket of 1000, refilled by 100 a second and by 1 for each message and each 4 KiB received.
#[derive(Debug, Clone)]
struct Budget {
    left: f64,
    filled: Moment,
}

impl Budget {
    const SIZE: f64 = 1000.0;
    const PER_SECOND: f64 = 100.0;
    const BYTES_PER_UNIT: f64 = 4096.0;

    fn new(now: Moment) -> Self {
        Self { left: Self::SIZE, filled: now }
    }

    /// Refills beyond the brim: nobody emptied the kernel's buffer for a while.
    fn save_up(&mut self, now: Moment) {
        self.left += now.saturating_sub(self.filled).as_secs_f64() * Self::PER_SECOND;
        self.filled = now;
    }

    fn spend(&mut self, now: Moment, heartbeats: u64, messages: u64, bytes: usize) -> bool {
        if heartbeats == 0 && self.left >= Self::SIZE {
            self.filled = now;
            return true;
        }
        let elapsed = now.saturating_sub(self.filled).as_secs_f64();
        let earned = elapsed * Self::PER_SECOND + exact(messages) + exact_size(bytes) / Self::BYTES_PER_UNIT;
        // Nobody knows what came first within a batch, so its messages pay for its heartbeats.
        self.left = (self.left + earned - exact(heartbeats)).min(Self::SIZE.max(self.left));
        self.filled = now;
        self.left >= 0.0
    }
}

/// Counts of one batch are far below 2^32; a larger one may as well be the largest.
fn exact(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn exact_size(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(2);

    fn at(milliseconds: u64) -> Moment {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn any_byte_counts_as_life() {
        let mut hearing = Hearing::new(TIMEOUT, at(0));
        for n in 1..20 {
            hearing.heard(at(n * 1000), false, false);
            assert_eq!(hearing.judge(at(n * 1000 + 1999), 0), None);
        }
        assert_eq!(hearing.deadline(0), Some(at(21_000)));
        assert_eq!(hearing.judge(at(21_000), 0), Some(Reason::HeartbeatTimeout));
    }

    #[test]
    fn a_paused_reader_judges_nobody() {
        let mut hearing = Hearing::new(TIMEOUT, at(0));
        hearing.heard(at(10), true, true);
        hearing.pause();
        assert_eq!((hearing.deadline(5), hearing.judge(at(999_999), 5)), (None, None));
        hearing.heard(at(1_000_000), true, false);
        assert_eq!(hearing.deadline(0), Some(at(1_002_000)));
    }

    #[test]
    fn a_peer_that_died_while_the_reader_paused_is_found_when_reading_resumes() {
        let mut hearing = Hearing::new(TIMEOUT, at(0));
        hearing.heard(at(10), true, true);
        hearing.pause();
        hearing.resume(at(50_000));
        assert_eq!(hearing.deadline(0), Some(at(52_000)));
        assert_eq!(hearing.judge(at(52_000), 0), Some(Reason::HeartbeatTimeout));
    }

    #[test]
    fn heartbeats_that_piled_up_while_the_reader_paused_are_no_flood() {
        let mut hearing = Hearing::new(TIMEOUT, at(0));
        hearing.pause();
        hearing.heard(at(3_600_000), false, false);
        for _ in 0..10 {
            assert!(hearing.spend(at(3_600_000), 16_384, 0, 65_536));
        }
        assert!((0..13).any(|_| !hearing.spend(at(3_600_000), 16_384, 0, 65_536)));
    }

    #[test]
    fn a_dripped_frame_is_slow_and_an_honest_slow_link_is_not() {
        let mut hearing = Hearing::new(TIMEOUT, at(0));
        hearing.heard(at(0), true, true);
        for second in 1..=2 {
            hearing.heard(at(second * 1000), true, false);
        }
        assert_eq!(hearing.judge(at(2003), 3), Some(Reason::SlowFrame));
        let mut honest = Hearing::new(TIMEOUT, at(0));
        honest.heard(at(0), true, true);
        for second in 1..100u64 {
            let unfinished = usize::try_from(second * 10_240).unwrap();
            honest.heard(at(second * 1000), true, false);
            assert_eq!(honest.judge(at(second * 1000 + 999), unfinished), None);
        }
    }

    #[test]
    fn each_frame_has_a_deadline_of_its_own() {
        let mut hearing = Hearing::new(TIMEOUT, at(0));
        for n in 0..100 {
            hearing.heard(at(n * 500), true, true);
            assert_eq!(hearing.judge(at(n * 500 + 499), 1), None);
        }
        hearing.heard(at(50_000), false, false);
        assert_eq!(hearing.deadline(0), Some(at(52_000)));
    }

    #[test]
    fn a_flood_of_heartbeats_empties_the_bucket_and_traffic_refills_it() {
        let mut flood = Hearing::new(TIMEOUT, at(0));
        assert!(flood.spend(at(0), 1000, 0, 4000));
        assert!(!flood.spend(at(0), 2, 0, 8));
        let mut steady = Hearing::new(TIMEOUT, at(0));
        assert!((0..10_000).all(|n| steady.spend(at(n * 10), 1, 0, 4)));
        let mut busy = Hearing::new(TIMEOUT, at(0));
        assert!((0..10_000).all(|_| busy.spend(at(0), 1, 1, 68)));
    }
}
