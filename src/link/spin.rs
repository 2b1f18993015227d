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
/// What looks may cost: one in vain, or so late that others had the core; one that took long; and one that soon found
/// something, which gives back. On a core that others want a look may cost milliseconds.
const PATIENCE: u32 = 4 * IN_VAIN;
const IN_VAIN: u32 = 2048;
const LONG: u32 = 1;
const SHORT: u32 = 128;
/// When all is spent, so many waits go by without a look.
const REST: u32 = 1024;
/// While all goes well only one look in so many begins with the clock, which takes a 150th of a round trip.
const TIMED: u32 = 8;
/// So many messages at once are worth the time that they took: a stream that comes in larger pieces costs less (64 B,
/// both ends on one core: 2.3 M messages/s in place of 0.9).
const MANY: usize = 16;
/// For so long a loop may look and see to what came, again and again, before whatever else is ready has its turn. A
/// task that takes all that is there has about three times as long (`ITEMS` of `turn.rs`).
pub const LOOKS_OF_A_TURN: Duration = Duration::from_micros(100);
/// Where others take so long for theirs, they are busy.
const OTHERS: Duration = Duration::from_micros(50);

/// What whoever waits knows of its waits: one for each thread, and one for each loop.
#[derive(Debug)]
pub struct Patience {
    /// In nanoseconds: when something came for the last time, and how long after the time before.
    last: AtomicU64,
    gap: AtomicU64,
    /// What looks have cost; beyond `PATIENCE` the waits without one.
    spent: AtomicU32,
    /// The last look was in vain.
    is_in_vain: AtomicBool,
    looks: AtomicU32,
}

impl Patience {
    const fn new() -> Self {
        Self {
            last: AtomicU64::new(0),
            gap: AtomicU64::new(0),
            spent: AtomicU32::new(0),
            is_in_vain: AtomicBool::new(false),
            looks: AtomicU32::new(0),
        }
    }

    /// Something came, looked for or not.
    pub fn came(&self, now: Moment) {
        let now = nanoseconds(now);
        let last = self.last.load(Ordering::Relaxed);
        self.last.store(now, Ordering::Relaxed);
        self.gap.store(now.saturating_sub(last), Ordering::Relaxed);
    }

    /// Whether the next wait begins with a look. Asked once for each.
    fn may_look(&self) -> bool {
        if self.gap.load(Ordering::Relaxed) > nanoseconds(SOON) {
            return false;
        }
        let spent = self.spent.load(Ordering::Relaxed);
        let rests = (PATIENCE..PATIENCE + REST).contains(&spent);
        if rests {
            self.spent.store(spent + 1, Ordering::Relaxed);
        } else if spent >= PATIENCE {
            self.spent.store(PATIENCE - IN_VAIN, Ordering::Relaxed);
        }
        !rests
    }

    /// How long it may look.
    fn limit(&self) -> Duration {
        if self.is_in_vain() { LONG_LOOK } else { LOOK }
    }

    fn is_in_vain(&self) -> bool {
        self.is_in_vain.load(Ordering::Relaxed)
    }

    fn is_timed(&self) -> bool {
        let looks = self.looks.load(Ordering::Relaxed).wrapping_add(1);
        self.looks.store(looks, Ordering::Relaxed);
        looks.is_multiple_of(TIMED) || self.spent.load(Ordering::Relaxed) > 0
    }

    /// A look has found so many messages, or nothing.
    fn note(&self, found: Option<usize>, looked: Duration) {
        let spent = self.spent.load(Ordering::Relaxed);
        let spent = match found {
            Some(messages) if looked <= LOOK || messages >= MANY => {
                self.is_in_vain.store(false, Ordering::Relaxed);
                spent.saturating_sub(SHORT)
            }
            Some(_) if looked <= LONG_LOOK => spent + LONG,
            _ => {
                self.is_in_vain.store(true, Ordering::Relaxed);
                spent + IN_VAIN
            }
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
        Self { patience: Patience::new(), sleeps: AtomicU64::new(0), are_others_busy: AtomicBool::new(false) }
    }
}

impl Turns {
    /// Whether a turn may end with looks. Where they take long, or others were busy, only if the loop has slept since:
    /// nothing else was ready then.
    pub fn may_look(&self, sleeps: impl FnOnce() -> u64) -> bool {
        if !self.patience.may_look() {
            return false;
        }
        if !self.patience.is_in_vain() && !self.are_others_busy.load(Ordering::Relaxed) {
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

/// Enough for five centuries.
fn nanoseconds(time: Duration) -> u64 {
    time.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(time.subsec_nanos()))
}

thread_local! {
    static OF_THREAD: Patience = const { Patience::new() };
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
            if !patience.may_look() {
                return None;
            }
            self.look_for(patience, |rx| self.can_lead(rx)).map(|(rx, _)| rx)
        })
    }

    /// A message was accepted since something came.
    pub fn awaits_answer(&self) -> bool {
        self.awaits_answer.load(Ordering::Relaxed)
    }

    /// Before the loop `id` sleeps, which reads here: the moment at which something came, to be seen to before the next
    /// look. Not where none of its tasks waits.
    pub fn look_on_loop(&self, id: usize, patience: &Patience) -> Option<Moment> {
        let may_read = |rx: &Rx| rx.reading.is_loop(id) && !rx.readers.is_empty() && !rx.is_paused && rx.end.is_none();
        self.look_for(patience, may_read).map(|(_, now)| now)
    }

    fn look_for(&self, patience: &Patience, may_read: impl Fn(&Rx) -> bool) -> Option<(MutexGuard<'_, Rx>, Moment)> {
        // Where another reads, giving the core away would only leave it that: nobody would take its part.
        if !may_read(&self.rx()) {
            return None;
        }
        let limit = patience.limit();
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
            patience.note((read == Read::Bytes).then(|| rx.receiver.ready()), looked);
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
        let patience = Patience::new();
        patience.came(Duration::from_secs(1));
        patience.came(Duration::from_secs(1) + SOON);
        patience
    }

    /// For each of so many waits: how long it looks, when that always ends so.
    fn looks(patience: &Patience, found: Option<usize>, looked: Duration, waits: usize) -> Vec<Option<Duration>> {
        let look = || {
            let limit = patience.may_look().then(|| patience.limit());
            limit.inspect(|_| patience.note(found, looked))
        };
        (0..waits).map(|_| look()).collect()
    }

    #[test]
    fn who_looks_in_vain_looks_longer_and_then_rarely() {
        let limits = looks(&soon(), None, LOOK, 4000);
        assert_eq!(limits[..5], [Some(LOOK), Some(LONG_LOOK), Some(LONG_LOOK), Some(LONG_LOOK), None]);
        let later: Vec<usize> = (5..4000).filter(|at| limits[*at].is_some()).collect();
        assert_eq!(later, [1028, 2053, 3078]);
        assert!(later.iter().all(|at| limits[*at] == Some(LONG_LOOK)));
    }

    #[test]
    fn looks_that_soon_find_something_go_on_and_on() {
        let patience = soon();
        looks(&patience, None, LOOK, 3);
        assert_eq!(looks(&patience, Some(1), LOOK, 1), [Some(LONG_LOOK)]);
        assert!(looks(&patience, Some(1), LOOK, 10_000).iter().all(|limit| *limit == Some(LOOK)));
        assert_eq!(patience.spent.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn long_looks_that_find_something_go_on_for_a_while() {
        let patience = soon();
        patience.note(None, LOOK);
        let limits = looks(&patience, Some(1), LONG_LOOK, 7000);
        assert!(limits[..6144].iter().all(|limit| *limit == Some(LONG_LOOK)));
        assert_eq!(limits[6144], None);
    }

    #[test]
    fn what_comes_later_than_any_look_is_as_good_as_nothing() {
        assert_eq!(looks(&soon(), Some(1), SOON, 4000), looks(&soon(), None, LOOK, 4000));
    }

    /// As on a core that others want too: every other look is given away for milliseconds.
    #[test]
    fn one_that_soon_finds_something_does_not_make_up_for_one_that_was_late() {
        let patience = soon();
        let pairs = (0..4000).take_while(|_| {
            let late = looks(&patience, Some(1), SOON, 1);
            [late, looks(&patience, Some(1), LOOK, 1)].concat().iter().all(Option::is_some)
        });
        assert_eq!(pairs.count(), 4);
    }

    #[test]
    fn what_comes_late_but_in_large_pieces_is_worth_it() {
        assert!(looks(&soon(), Some(MANY), SOON, 4000).iter().all(|limit| *limit == Some(LOOK)));
    }

    #[test]
    fn where_nothing_came_soon_nobody_looks() {
        let patience = soon();
        assert!(patience.may_look());
        patience.came(Duration::from_secs(1) + SOON * 3);
        assert!(!patience.may_look());
        patience.came(Duration::from_secs(1) + SOON * 4);
        assert!(patience.may_look());
    }

    #[test]
    fn one_look_in_eight_is_timed_and_every_one_while_something_is_spent() {
        let patience = soon();
        let timed = |looks: usize| (0..looks).filter(|_| patience.is_timed()).count();
        assert_eq!(timed(80), 10);
        patience.note(None, LOOK);
        assert_eq!(timed(80), 80);
        looks(&patience, Some(1), LOOK, 16);
        assert_eq!(timed(80), 10);
    }

    fn turns() -> Turns {
        Turns { patience: soon(), ..Turns::default() }
    }

    #[test]
    fn a_loop_looks_long_only_after_it_has_slept() {
        let turns = turns();
        assert!(turns.may_look(|| unreachable!("nothing was in vain yet")));
        turns.patience.note(None, LOOK);
        assert!(turns.may_look(|| 7));
        assert!(!turns.may_look(|| 7));
        assert!(turns.may_look(|| 8));
    }

    #[test]
    fn a_loop_whose_others_are_busy_looks_again_when_it_has_slept() {
        let turns = turns();
        turns.others_took(OTHERS, || unreachable!("that is not long"));
        assert!(turns.may_look(|| unreachable!("nobody is busy")));
        turns.others_took(OTHERS * 2, || 7);
        assert!(!turns.may_look(|| 7));
        assert!(turns.may_look(|| 8));
        assert!(turns.may_look(|| unreachable!("nobody is busy")));
    }

    #[test]
    fn a_loop_that_has_no_reason_to_look_does_not_ask_whether_it_slept() {
        let turns = turns();
        turns.others_took(OTHERS * 2, || 7);
        turns.patience.came(Duration::from_secs(3));
        assert!(!turns.may_look(|| unreachable!("nothing came soon")));
    }
}
