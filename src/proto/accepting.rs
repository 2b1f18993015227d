//! Which dials a listener lets in, and which of those that greet it answers. Knows only counts and moments: how many
//! connections wait to be accepted, how many are alive, those included, and how many of these have no link at
//! the moment. How a dial is kept waiting or refused is the wire's matter.
//!
//! Theory. Whoever is answered believes that there is a place, so one is promised with each answer, until the first
//! frame behind it takes it: the frame that comes first, not the promise. A promise keeps others out for a tenth of
//! a second, which is two round trips of the fastest kind; then it gives way, the oldest first. And whom promises
//! alone have kept out for a quarter of a second is answered beside them: however many greet and bring no frame,
//! an honest dialler is answered in time. A promise pushes nobody out: only the frame does.
//!
//! 1. `never_more_wait_than_the_buffer_holds`
//! 2. `never_more_live_than_max_connections`
//! 3. `a_fixed_buffer_refuses_nobody_by_itself`
//! 4. `a_lossy_buffer_keeps_nobody_waiting`, but where only promises stand in the way.
//! 5. `a_dial_is_answered_within_a_second_whatever_ghosts_do`
//! 6. `a_young_promise_gives_way_to_nobody_who_has_just_come`
//! 7. `where_no_place_is_empty_nobody_is_answered_however_long_he_waits`

use std::collections::BTreeMap;
use std::time::Duration;

use super::Moment;
use super::options::{Buffer, Invalid, Policy, size};

/// For so long a promise keeps others out.
const PROMISED_FOR: Duration = Duration::from_millis(100);
/// Whom promises alone have kept out for so long is kept out by none; and so often who waits looks whether there is an
/// empty place, beside being told of it: another may have been promised it who never comes.
const PATIENCE: Duration = Duration::from_millis(250);

/// `accept_buffer` and `max_connections`. Of the buffer only its count means anything here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepting {
    buffer: Buffer,
    max_connections: Option<usize>,
}

/// Who is there when a dial comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Crowd {
    /// They wait to be accepted.
    pub waiting: usize,
    /// They live, those that wait included.
    pub alive: usize,
    /// They live and have no link at the moment.
    pub absent: usize,
}

/// What becomes of a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It waits to be accepted.
    Enter,
    /// The same, and the connection that waits longest ends with `BUSY` to make room.
    Replace,
    /// It is told `BUSY`, and its link ends.
    Refuse,
    /// It is not answered yet.
    Wait,
}

impl Accepting {
    /// # Errors
    /// When `max_connections` is zero or negative.
    pub fn new(buffer: Buffer, max_connections: Option<i64>) -> Result<Self, Invalid> {
        let max_connections = max_connections.map(|most| size("max_connections", most)).transpose()?;
        Ok(Self { buffer, max_connections })
    }

    /// What becomes of a dial. One that is let in where all places are taken takes that of the connection which has been
    /// without a link longest; see `is_full`.
    pub fn admit(&self, crowd: Crowd) -> Admission {
        if self.is_full(crowd.alive.saturating_sub(crowd.absent)) {
            return Admission::Refuse;
        }
        match self.buffer.policy {
            _ if crowd.waiting < self.buffer.count => Admission::Enter,
            Policy::Fixed => Admission::Wait,
            Policy::Dropping => Admission::Refuse,
            Policy::Sliding => Admission::Replace,
        }
    }

    /// Whether so many leave no place for another one.
    pub fn is_full(&self, alive: usize) -> bool {
        self.max_connections.is_some_and(|most| alive >= most)
    }
}

impl Admission {
    fn is_in(self) -> bool {
        matches!(self, Self::Enter | Self::Replace)
    }
}

/// The places that greetings were promised with their answers, and whose first frame has not come.
#[derive(Debug, Default)]
pub struct Promises {
    /// The oldest first.
    made: BTreeMap<Promise, Moment>,
    ever: u64,
}

/// One of them. It may have given way meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Promise(u64);

/// A dial that waits for its answer.
#[derive(Debug, Default)]
pub struct Patience {
    /// Since when nothing but promises has stood in its way.
    since: Option<Moment>,
}

impl Promises {
    /// What becomes of a dial. Where it is let in, a place is to be promised; old promises may have given way to it.
    pub fn admit(&mut self, accepting: &Accepting, crowd: Crowd, dial: &mut Patience, now: Moment) -> Admission {
        let beside = |promised: usize| {
            let (waiting, alive) = (crowd.waiting.saturating_add(promised), crowd.alive.saturating_add(promised));
            accepting.admit(Crowd { waiting, alive, ..crowd })
        };
        let unpromised = beside(0);
        if !unpromised.is_in() {
            dial.since = None;
            return unpromised;
        }
        loop {
            let admission = beside(self.made.len());
            if admission.is_in() {
                return admission;
            }
            match self.made.first_entry() {
                Some(oldest) if now >= oldest.get().saturating_add(PROMISED_FOR) => drop(oldest.remove_entry()),
                _ => break,
            }
        }
        let since = *dial.since.get_or_insert(now);
        if now >= since.saturating_add(PATIENCE) { unpromised } else { Admission::Wait }
    }

    /// When a dial that waits has to ask again, if nobody tells it of room before.
    pub fn ask_again(&self, dial: &Patience, now: Moment) -> Moment {
        let Some(since) = dial.since else {
            return now.saturating_add(PATIENCE);
        };
        let oldest = self.made.values().next().map(|made| made.saturating_add(PROMISED_FOR));
        let patient = since.saturating_add(PATIENCE);
        oldest.map_or(patient, |oldest| oldest.min(patient))
    }

    pub fn make(&mut self, now: Moment) -> Promise {
        self.ever += 1;
        let promise = Promise(self.ever);
        self.made.insert(promise, now);
        promise
    }

    /// Its frame has come, or never will.
    pub fn settle(&mut self, promise: Promise) {
        self.made.remove(&promise);
    }

    pub fn count(&self) -> usize {
        self.made.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: [Policy; 3] = [Policy::Fixed, Policy::Dropping, Policy::Sliding];

    fn accepting(policy: Policy, count: i64, max_connections: Option<i64>) -> Accepting {
        Accepting::new(Buffer::new(policy, count, 1).unwrap(), max_connections).unwrap()
    }

    fn at(milliseconds: u64) -> Moment {
        Duration::from_millis(milliseconds)
    }

    /// The connections after a dial: how many wait, how many live.
    fn after(accepting: &Accepting, crowd: Crowd) -> (usize, usize) {
        let Crowd { waiting, alive, .. } = crowd;
        let ousted = usize::from(accepting.is_full(alive));
        match accepting.admit(crowd) {
            Admission::Enter => (waiting + 1, alive + 1 - ousted),
            // Who is thrown out has left before anybody is ousted.
            Admission::Replace | Admission::Refuse | Admission::Wait => (waiting, alive),
        }
    }

    /// Every state of a small listener: the room, the limit, who waits, who was accepted and who has no link.
    fn every_state(policy: Policy) -> impl Iterator<Item = (Accepting, usize, Option<usize>, Crowd)> {
        (1..5).flat_map(move |room| {
            [None, Some(1), Some(3), Some(6)].into_iter().flat_map(move |most| {
                let accepting = accepting(policy, room, most);
                let (room, most) = (usize::try_from(room).unwrap(), most.map(|most| usize::try_from(most).unwrap()));
                (0..=room).flat_map(move |waiting| {
                    // Of those that wait some may have ended already.
                    (0..=most.unwrap_or(8)).flat_map(move |alive| {
                        (0..=alive).map(move |absent| (accepting, room, most, Crowd { waiting, alive, absent }))
                    })
                })
            })
        })
    }

    #[test]
    fn never_more_wait_than_the_buffer_holds() {
        for policy in POLICIES {
            for (accepting, room, _, crowd) in every_state(policy) {
                assert!(after(&accepting, crowd).0 <= room, "{accepting:?} {crowd:?}");
            }
        }
    }

    #[test]
    fn never_more_live_than_max_connections() {
        for policy in POLICIES {
            for (accepting, _, most, crowd) in every_state(policy) {
                let Some(most) = most else { continue };
                assert!(after(&accepting, crowd).1 <= most, "{accepting:?} {crowd:?}");
                assert_eq!(
                    accepting.admit(crowd) == Admission::Refuse,
                    crowd.alive - crowd.absent == most || {
                        policy == Policy::Dropping && crowd.waiting == accepting.buffer.count
                    }
                );
            }
        }
    }

    #[test]
    fn a_newcomer_is_refused_only_when_all_are_linked() {
        let accepting = accepting(Policy::Fixed, 9, Some(5));
        let crowd = Crowd { waiting: 0, alive: 5, absent: 0 };
        assert_eq!(accepting.admit(crowd), Admission::Refuse);
        for absent in 1..=5 {
            assert_eq!(accepting.admit(Crowd { absent, ..crowd }), Admission::Enter);
            assert!(accepting.is_full(5) && !accepting.is_full(4));
        }
    }

    #[test]
    fn as_many_newcomers_are_promised_a_place_as_are_absent() {
        let accepting = accepting(Policy::Fixed, 9, Some(5));
        let crowd = Crowd { waiting: 0, alive: 5, absent: 2 };
        let mut promises = Promises::default();
        for expected in [Admission::Enter, Admission::Enter, Admission::Wait, Admission::Wait] {
            assert_eq!(promises.admit(&accepting, crowd, &mut Patience::default(), at(0)), expected);
            if expected == Admission::Enter {
                promises.make(at(0));
            }
        }
    }

    #[test]
    fn a_fixed_buffer_refuses_nobody_by_itself() {
        for (accepting, room, most, crowd) in every_state(Policy::Fixed) {
            let expected = if crowd.waiting < room { Admission::Enter } else { Admission::Wait };
            if most.is_none() {
                assert_eq!(accepting.admit(crowd), expected);
            }
        }
    }

    #[test]
    fn a_lossy_buffer_keeps_nobody_waiting() {
        let full = Crowd { waiting: 2, alive: 9, absent: 0 };
        for policy in [Policy::Dropping, Policy::Sliding] {
            for (accepting, _, _, crowd) in every_state(policy) {
                assert_ne!(accepting.admit(crowd), Admission::Wait);
            }
            let mut promises = Promises::default();
            promises.make(at(0));
            let asked = promises.admit(&accepting(policy, 2, None), full, &mut Patience::default(), at(0));
            assert_eq!(asked, accepting(policy, 2, None).admit(full), "promises change nothing where it is full");
        }
        assert_eq!(accepting(Policy::Dropping, 2, None).admit(full), Admission::Refuse);
        assert_eq!(accepting(Policy::Sliding, 2, None).admit(full), Admission::Replace);
    }

    #[test]
    fn a_young_promise_gives_way_to_nobody_who_has_just_come() {
        for (policy, most) in [(Policy::Fixed, None), (Policy::Dropping, None), (Policy::Sliding, Some(2))] {
            let (accepting, nobody) = (accepting(policy, 2, most), Crowd::default());
            let mut promises = Promises::default();
            let mut dial = Patience::default();
            for moment in [0, 30] {
                assert_eq!(promises.admit(&accepting, nobody, &mut dial, at(moment)), Admission::Enter);
                promises.make(at(moment));
            }
            for moment in [30, 60, 99] {
                assert_eq!(promises.admit(&accepting, nobody, &mut dial, at(moment)), Admission::Wait);
                assert_eq!(promises.ask_again(&dial, at(moment)), at(100));
            }
            assert_eq!(promises.admit(&accepting, nobody, &mut dial, at(100)), Admission::Enter);
            assert_eq!(promises.count(), 1, "the oldest has given way, and no other");
            promises.make(at(100));
            let mut next = Patience::default();
            assert_eq!(promises.admit(&accepting, nobody, &mut next, at(129)), Admission::Wait);
            assert_eq!(promises.admit(&accepting, nobody, &mut next, at(130)), Admission::Enter);
        }
    }

    #[test]
    fn where_no_place_is_empty_nobody_is_answered_however_long_he_waits() {
        let accepting = accepting(Policy::Fixed, 2, Some(9));
        let mut promises = Promises::default();
        let mut dial = Patience::default();
        for moment in (0..10_000).step_by(50) {
            let full = Crowd { waiting: 2, alive: 2, absent: 0 };
            assert_eq!(promises.admit(&accepting, full, &mut dial, at(moment)), Admission::Wait);
            assert_eq!(promises.ask_again(&dial, at(moment)), at(moment + 250));
        }
        // A place is empty, and promised to one who dialled earlier: the long wait counts for nothing.
        promises.make(at(10_000));
        let crowd = Crowd { waiting: 1, alive: 1, absent: 0 };
        assert_eq!(promises.admit(&accepting, crowd, &mut dial, at(10_001)), Admission::Wait);
        assert_eq!(promises.admit(&accepting, crowd, &mut dial, at(10_100)), Admission::Enter);
    }

    /// Ghosts come at any rate and never go; the honest dialler asks when it is told to, and nobody wakes it.
    #[test]
    fn a_dial_is_answered_within_a_second_whatever_ghosts_do() {
        for (policy, most) in
            POLICIES.into_iter().flat_map(|policy| [None, Some(1), Some(3)].map(|most| (policy, most)))
        {
            for (room, between, already) in [(1, 1, 0), (1, 7, 1000), (2, 50, 1000), (4, 1000, 3), (128, 1, 1024)] {
                let accepting = accepting(policy, room, most);
                let mut promises = Promises::default();
                let mut ghosts: Vec<Patience> = (0..already).map(|_| Patience::default()).collect();
                let mut admit = |dial: &mut Patience, now: u64| {
                    let is_in = promises.admit(&accepting, Crowd::default(), dial, at(now)).is_in();
                    is_in.then(|| promises.make(at(now)));
                    (is_in, promises.ask_again(dial, at(now)))
                };
                let (mut honest, mut due, mut now) = (Patience::default(), at(500), 0);
                let answered = loop {
                    if now % between == 0 {
                        ghosts.push(Patience::default());
                    }
                    ghosts.retain_mut(|ghost| !admit(ghost, now).0);
                    if at(now) >= due {
                        let (is_in, again) = admit(&mut honest, now);
                        if is_in {
                            break now;
                        }
                        assert!(again > at(now), "who waits does not spin");
                        due = again;
                    }
                    now += 1;
                };
                assert!(answered - 500 <= 250, "{policy:?} {room} {between} {already}: {answered}");
            }
        }
    }

    #[test]
    fn max_connections_is_at_least_1() {
        let buffer = Buffer::new(Policy::Fixed, 1, 1).unwrap();
        for most in [0, -1] {
            let Invalid(text) = Accepting::new(buffer, Some(most)).unwrap_err();
            assert!(text.contains("max_connections") && text.contains(&most.to_string()), "{text}");
        }
    }
}
