//! Looking before sleeping. Whoever is to read looks at its socket a few times before it sleeps in the kernel: to
//! give others the core costs a microsecond, to be woken on another one tens of them (`speed.md`). It looks where
//! something came a moment ago, and stops where that is in vain.

use std::time::Duration;

use super::clock;
use super::link::{Link, Rx};
use super::lock::MutexGuard;
use super::net;
use super::read::Read;
use super::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use super::sync::thread_local;
use crate::proto::Moment;

/// About what sleeping and being woken takes of the processor's time, so that it is at most doubled.
const LOOK: Duration = Duration::from_micros(12);
/// After one in vain: long enough for a peer that has to be woken. Then both look, and neither sleeps.
const LONG_LOOK: Duration = Duration::from_micros(100);
/// Where something came so soon after the last time, more may come. Both ends sleep in between, and are woken.
const SOON: Duration = Duration::from_micros(200);
/// What looks may cost until one soon finds something: those in vain, and those that took long.
const PATIENCE: u32 = 4 * IN_VAIN;
const IN_VAIN: u32 = 512;
const LONG: u32 = 1;
/// Then so many waits go by without a look, since where others want the core one may cost milliseconds. For a thread
/// they are fewer: to give the core away lets a stream come in larger pieces (64 B: 2.3 M messages/s in place of 0.9).
const REST_OF_THREAD: u32 = 64;
const REST_OF_LOOP: u32 = 512;
/// While looks find something only one in so many begins with the clock, which takes a 150th of a round trip.
const TIMED: u32 = 8;
/// For so long a loop may look and see to what came, again and again, before whatever else is ready has its turn. A
/// task that takes all that is there has about three times as long (`TURN_BUDGET` of `waiting.rs`).
pub const LOOKS_OF_A_TURN: Duration = Duration::from_micros(100);
/// Where others take so long for theirs, they are busy.
const OTHERS: Duration = Duration::from_micros(50);

/// What whoever waits knows of its waits: one for each thread, and one for each loop.
#[derive(Debug)]
pub struct Patience {
    rest: u32,
    /// In nanoseconds: when something came for the last time, and how long after the time before.
    last: AtomicU64,
    gap: AtomicU64,
    /// What looks have cost since one soon found something; beyond `PATIENCE` the waits without one.
    spent: AtomicU32,
    looks: AtomicU32,
}

impl Patience {
    const fn new(rest: u32) -> Self {
        let (last, gap) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { rest, last, gap, spent: AtomicU32::new(0), looks: AtomicU32::new(0) }
    }

    /// Something came, looked for or not.
    pub fn came(&self, now: Moment) {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let last = self.last.load(Ordering::Relaxed);
        self.last.store(now, Ordering::Relaxed);
        self.gap.store(now.saturating_sub(last), Ordering::Relaxed);
    }

    /// How long the next wait may look before it sleeps; None for not at all.
    fn limit(&self) -> Option<Duration> {
        if u128::from(self.gap.load(Ordering::Relaxed)) > SOON.as_nanos() {
            return None;
        }
        match self.spent.load(Ordering::Relaxed) {
            0 => Some(LOOK),
            spent if spent < PATIENCE => Some(LONG_LOOK),
            spent if spent < PATIENCE + self.rest => {
                self.spent.store(spent + 1, Ordering::Relaxed);
                None
            }
            _ => {
                self.spent.store(PATIENCE - IN_VAIN, Ordering::Relaxed);
                Some(LONG_LOOK)
            }
        }
    }

    /// All looks soon find something.
    fn is_full(&self) -> bool {
        self.spent.load(Ordering::Relaxed) == 0
    }

    fn is_timed(&self) -> bool {
        let looks = self.looks.load(Ordering::Relaxed).wrapping_add(1);
        self.looks.store(looks, Ordering::Relaxed);
        looks.is_multiple_of(TIMED) || !self.is_full()
    }

    /// A look has found something, or nothing. What comes late is no reason for more: the peer takes its time, or
    /// others want this core.
    fn note(&self, has_found: bool, looked: Duration) {
        let spent = self.spent.load(Ordering::Relaxed);
        let spent = match has_found {
            true if looked <= LOOK => 0,
            true if looked <= LONG_LOOK => spent + LONG,
            _ => spent + IN_VAIN,
        };
        self.spent.store(spent.min(PATIENCE), Ordering::Relaxed);
    }
}

/// What an event loop knows of its turns. Its own thread's only.
#[derive(Debug)]
pub struct Turns {
    pub patience: Patience,
    /// How often its thread had slept when that mattered for the last time.
    sleeps: AtomicU64,
    are_others_busy: AtomicBool,
}

impl Default for Turns {
    fn default() -> Self {
        let patience = Patience::new(REST_OF_LOOP);
        Self { patience, sleeps: AtomicU64::new(0), are_others_busy: AtomicBool::new(false) }
    }
}

impl Turns {
    /// Whether a turn may end with looks. Where they take long, or others were busy, only if the loop has slept since:
    /// nothing else was ready then.
    pub fn may_look(&self, sleeps: impl FnOnce() -> u64) -> bool {
        if self.patience.is_full() && !self.are_others_busy.load(Ordering::Relaxed) {
            return true;
        }
        let sleeps = sleeps();
        let has_slept = self.sleeps.load(Ordering::Relaxed) != sleeps;
        self.sleeps.store(sleeps, Ordering::Relaxed);
        self.are_others_busy.store(!has_slept, Ordering::Relaxed);
        has_slept
    }

    /// After looks others had their turn, for so long.
    pub fn others_took(&self, time: Duration, sleeps: impl FnOnce() -> u64) {
        if time > OTHERS {
            self.are_others_busy.store(true, Ordering::Relaxed);
            self.sleeps.store(sleeps(), Ordering::Relaxed);
        }
    }
}

thread_local! {
    static OF_THREAD: Patience = const { Patience::new(REST_OF_THREAD) };
}

/// A thread has slept until something came.
pub(super) fn came_in_thread() {
    OF_THREAD.with(|patience| patience.came(clock::now()));
}

impl Link {
    /// Before a thread takes a place to sleep in: what it has read into, still locked, if something came. Looking takes
    /// nobody's place, and goes on only while nobody else reads.
    pub fn look_in_thread(&self) -> Option<MutexGuard<'_, Rx>> {
        OF_THREAD.with(|patience| {
            let limit = patience.limit()?;
            let (rx, _) = self.look_for(patience, limit, |rx| self.can_lead(rx))?;
            Some(rx)
        })
    }

    /// Before the loop `id` sleeps, which reads here: the moment at which something came, to be seen to before the next
    /// look. Not where none of its tasks waits.
    pub fn look_on_loop(&self, id: usize, patience: &Patience) -> Option<Moment> {
        let may_read = |rx: &Rx| rx.reading.is_loop(id) && !rx.readers.is_empty() && !rx.is_paused && rx.end.is_none();
        if !self.awaits_answer.load(Ordering::Relaxed) || !may_read(&self.rx()) {
            return None;
        }
        let limit = patience.limit()?;
        self.look_for(patience, limit, may_read).map(|(_, now)| now)
    }

    fn look_for(
        &self,
        patience: &Patience,
        limit: Duration,
        may_read: impl Fn(&Rx) -> bool,
    ) -> Option<(MutexGuard<'_, Rx>, Moment)> {
        let mut begun = patience.is_timed().then(clock::now);
        loop {
            net::yield_core();
            let mut rx = self.rx();
            if !may_read(&rx) {
                return None;
            }
            let read = self.read(&mut rx);
            let now = if read == Read::Bytes { rx.read_at } else { clock::now() };
            let looked = now.saturating_sub(*begun.get_or_insert(now));
            // The clock of `races` stands still: there, one look is one.
            if read == Read::Nothing && looked <= limit && !cfg!(feature = "races") {
                continue;
            }
            patience.note(read == Read::Bytes, looked);
            if read == Read::Nothing {
                return None;
            }
            patience.came(now);
            rx.reading.was_here(now);
            self.publish(&mut rx);
            return Some((rx, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a wait behind which something came soon.
    fn soon() -> Patience {
        let patience = Patience::new(REST_OF_LOOP);
        patience.came(Duration::from_secs(1));
        patience.came(Duration::from_secs(1) + SOON);
        patience
    }

    /// For each of so many waits: how long it looks, when that never finds anything.
    fn in_vain(patience: &Patience, waits: usize) -> Vec<Option<Duration>> {
        (0..waits).map(|_| patience.limit().inspect(|limit| patience.note(false, *limit))).collect()
    }

    #[test]
    fn who_looks_in_vain_looks_longer_then_rarely_until_a_look_soon_finds_something() {
        let patience = soon();
        let limits = in_vain(&patience, 3000);
        assert_eq!(limits[..5], [Some(LOOK), Some(LONG_LOOK), Some(LONG_LOOK), Some(LONG_LOOK), None]);
        let later: Vec<usize> = (5..3000).filter(|at| limits[*at].is_some()).collect();
        assert_eq!(later, [516, 1029, 1542, 2055, 2568]);
        assert!(later.iter().all(|at| limits[*at] == Some(LONG_LOOK)));
        patience.note(true, LOOK);
        assert_eq!(in_vain(&patience, 5)[..], limits[..5]);
    }

    #[test]
    fn long_looks_that_find_something_go_on_for_a_while() {
        let patience = soon();
        patience.note(false, LOOK);
        let looks = (0..10_000).take_while(|_| patience.limit().inspect(|_| patience.note(true, LONG_LOOK)).is_some());
        assert_eq!(looks.count(), 1536);
    }

    #[test]
    fn what_comes_later_than_any_look_is_as_good_as_nothing() {
        let patience = soon();
        let looks = (0..10_000).take_while(|_| patience.limit().inspect(|_| patience.note(true, SOON)).is_some());
        assert_eq!(looks.count(), 4);
    }

    #[test]
    fn where_nothing_came_soon_nobody_looks() {
        let patience = soon();
        assert!(patience.limit().is_some());
        patience.came(Duration::from_secs(1) + SOON * 3);
        assert_eq!(patience.limit(), None);
        patience.came(Duration::from_secs(1) + SOON * 4);
        assert_eq!(patience.limit(), Some(LOOK));
    }

    #[test]
    fn one_look_in_eight_is_timed_and_every_one_after_one_in_vain() {
        let patience = soon();
        let timed = |looks: usize| (0..looks).filter(|_| patience.is_timed()).count();
        assert_eq!(timed(80), 10);
        patience.note(false, LOOK);
        assert_eq!(timed(80), 80);
        patience.note(true, LOOK);
        assert_eq!(timed(80), 10);
    }

    #[test]
    fn a_loop_looks_long_only_after_it_has_slept() {
        let turns = Turns::default();
        assert!(turns.may_look(|| unreachable!("nothing was in vain yet")));
        turns.patience.note(false, LOOK);
        assert!(turns.may_look(|| 7));
        assert!(!turns.may_look(|| 7));
        assert!(turns.may_look(|| 8));
    }

    #[test]
    fn a_loop_whose_others_are_busy_looks_again_when_it_has_slept() {
        let turns = Turns::default();
        turns.others_took(OTHERS, || unreachable!("that is not long"));
        assert!(turns.may_look(|| unreachable!("nobody is busy")));
        turns.others_took(OTHERS * 2, || 7);
        assert!(!turns.may_look(|| 7));
        assert!(turns.may_look(|| 8));
        assert!(turns.may_look(|| unreachable!("nobody is busy")));
    }
}
