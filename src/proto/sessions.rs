//! The sessions that a listener holds: who may go on with one, which of those without a link make room
//! for others, and what is remembered of one that is over (`wire.md` §3 and §7). Knows names, tokens and
//! numbers; what a session is to its holder it neither knows nor asks (`T`).
//!
//! Theory. A guess must learn nothing and cost nothing: a name that is not known gets a new session as
//! if it had been none, and only a known name with a wrong token counts as a guess. What stands here
//! entered with the first frame behind a whole greeting, so that a flood of greetings leaves no ghosts.
//!
//! 1. `an_unknown_name_is_no_oracle`
//! 2. `guesses_from_one_address_are_not_even_looked_at`
//! 3. `a_wrong_token_tells_nothing_of_what_became_of_the_session`
//! 4. `a_late_duplicate_cannot_fence_the_good_link`
//! 5. `the_longest_absent_makes_room`
//! 6. `what_is_over_is_remembered_and_then_forgotten`
//! 7. `nothing_here_grows_without_bound`
//! 8. `what_is_held_stays_within_its_bound_whatever_changes`

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::Moment;
use super::hello::{Hello, Secret, refusal, refuse};
use super::options::Holding;
use super::standing::Known;
use super::wire::Goodbye;

const GUESSES: usize = 10;
const GUESSES_WITHIN: Duration = Duration::from_secs(10);
/// Of more addresses than this the quietest are forgotten.
const ADDRESSES: usize = 1024;

/// The sessions of one listener. No `Debug`: tokens must reach no log.
pub struct Sessions<T> {
    holding: Holding,
    entries: HashMap<Secret, Entry<T>>,
    /// Those without a link, the longest absent first: since when, and the how manyth absence it is.
    absent: BTreeMap<(Moment, u64), Secret>,
    absences: u64,
    held_bytes: u64,
    tombstones: HashMap<Secret, Tombstone>,
    /// The oldest first.
    graves: VecDeque<(Moment, Secret)>,
    guesses: HashMap<String, Guesses>,
}

struct Entry<T> {
    token: Secret,
    /// Of the last HELLO with the right token that was answered with HELLO.
    link: u32,
    holder: T,
    /// Its place among the absent, and what its buffers hold.
    absent: Option<((Moment, u64), u64)>,
}

struct Tombstone {
    token: Secret,
    consumed: u64,
}

#[derive(Default)]
struct Guesses {
    at: VecDeque<Moment>,
    closed_until: Moment,
}

/// How a greeting is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<T> {
    /// It begins a session.
    New,
    /// It goes on with this one, if its numbers can be.
    Resume(T),
    Refuse(Goodbye),
    /// REFUSE 6: the session is over.
    Over {
        consumed: u64,
    },
}

impl<T: Clone> Sessions<T> {
    pub fn new(holding: Holding) -> Self {
        Self {
            holding,
            entries: HashMap::new(),
            absent: BTreeMap::new(),
            absences: 0,
            held_bytes: 0,
            tombstones: HashMap::new(),
            graves: VecDeque::new(),
            guesses: HashMap::new(),
        }
    }

    /// Tests a greeting that came from `address`; the numbers of a resume are the caller's to test.
    pub fn ask(&mut self, hello: &Hello, address: &str, now: Moment) -> Verdict<T> {
        if !hello.asks_for_session() {
            return Verdict::New;
        }
        if self.guesses.get(address).is_some_and(|guesses| now < guesses.closed_until) {
            return Verdict::Refuse(refusal(refuse::BUSY, "too many wrong tokens"));
        }
        self.forget_old(now);
        let entry = self.entries.get_mut(&hello.session);
        let tombstone = self.tombstones.get(&hello.session);
        let token = entry.as_ref().map(|entry| entry.token).or(tombstone.map(|tombstone| tombstone.token));
        let Some(token) = token else {
            return Verdict::New;
        };
        if !is_equal(&token, &hello.token) {
            self.note_guess(address, now);
            return Verdict::Refuse(refusal(refuse::TOKEN, "wrong token"));
        }
        match (entry, tombstone) {
            (_, Some(tombstone)) => Verdict::Over { consumed: tombstone.consumed },
            (Some(entry), _) if hello.link <= entry.link => {
                Verdict::Refuse(refusal(refuse::TOKEN, "a link that came too late"))
            }
            (Some(entry), _) => Verdict::Resume(entry.holder.clone()),
            (None, None) => Verdict::New,
        }
    }

    /// A greeting of this session's was answered with HELLO.
    pub fn answered(&mut self, session: &Secret, link: u32) {
        if let Some(entry) = self.entries.get_mut(session) {
            entry.link = entry.link.max(link);
        }
        self.come(session);
    }

    /// A session exists: the first frame behind its greeting has come.
    pub fn enter(&mut self, known: Known, link: u32, holder: T) {
        // Without memory for it, it lasts as long as its link.
        if !self.holding.session_timeout.is_zero() && self.entries.try_reserve(1).is_ok() {
            self.entries.insert(known.session, Entry { token: known.token, link, holder, absent: None });
        }
    }

    /// Its link is gone. Returns those that made room for it, and must be told that they expired.
    pub fn absent(&mut self, session: &Secret, held_bytes: u64, now: Moment) -> Vec<T> {
        self.come(session);
        let Some(entry) = self.entries.get_mut(session) else {
            return Vec::new();
        };
        self.absences += 1;
        let place = (now, self.absences);
        entry.absent = Some((place, held_bytes));
        self.absent.insert(place, *session);
        self.held_bytes = self.held_bytes.saturating_add(held_bytes);
        self.make_room()
    }

    /// The buffers of a session without a link have changed. As `absent`.
    pub fn holds(&mut self, session: &Secret, held_bytes: u64) -> Vec<T> {
        if let Some((_, before)) = self.entries.get_mut(session).and_then(|entry| entry.absent.as_mut()) {
            self.held_bytes = self.held_bytes.saturating_sub(*before).saturating_add(held_bytes);
            *before = held_bytes;
        }
        self.make_room()
    }

    /// Somebody else needs the place of one without a link: the longest absent that is `fit` for it. It has expired, and
    /// must be told.
    pub fn oust(&mut self, mut is_fit: impl FnMut(&T) -> bool) -> Option<T> {
        let mut absent = self.absent.values();
        let is_found = |session: &&Secret| self.entries.get(*session).is_some_and(|entry| is_fit(&entry.holder));
        let session = *absent.find(is_found)?;
        self.come(&session);
        self.entries.remove(&session).map(|entry| entry.holder)
    }

    /// Nobody will ask any more: forgets everything. Returns all who had a session here.
    pub fn close(&mut self) -> Vec<T> {
        let closed = std::mem::replace(self, Self::new(self.holding));
        closed.entries.into_values().map(|entry| entry.holder).collect()
    }

    /// It ran out of time, or made room: nothing is remembered.
    pub fn expired(&mut self, session: &Secret) {
        self.come(session);
        self.entries.remove(session);
    }

    /// It is over in any other way: its return is told what was consumed.
    pub fn over(&mut self, session: &Secret, consumed: u64, now: Moment) {
        self.come(session);
        self.forget_old(now);
        if let Some(entry) = self.entries.remove(session) {
            self.bury(*session, Tombstone { token: entry.token, consumed }, now);
        }
    }

    /// It ended with the first frame behind its greeting: nothing of it was consumed.
    pub fn never_entered(&mut self, known: Known, now: Moment) {
        self.forget_old(now);
        self.bury(known.session, Tombstone { token: known.token, consumed: 0 }, now);
    }

    fn bury(&mut self, session: Secret, tombstone: Tombstone, now: Moment) {
        if self.tombstones.try_reserve(1).is_err() || self.graves.try_reserve(1).is_err() {
            return;
        }
        self.tombstones.insert(session, tombstone);
        self.graves.push_back((now, session));
        while self.graves.len() > self.holding.max_sessions {
            self.unearth();
        }
    }

    /// Sessions, linked or not.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// It has a link, or is about to leave.
    fn come(&mut self, session: &Secret) {
        if let Some((place, bytes)) = self.entries.get_mut(session).and_then(|entry| entry.absent.take()) {
            self.absent.remove(&place);
            self.held_bytes = self.held_bytes.saturating_sub(bytes);
        }
    }

    fn make_room(&mut self) -> Vec<T> {
        let mut gone = Vec::new();
        let Holding { max_sessions, max_held_bytes, .. } = self.holding;
        while self.absent.len() > max_sessions || self.held_bytes > max_held_bytes {
            let Some((_, session)) = self.absent.first_key_value() else { break };
            let session = *session;
            self.come(&session);
            gone.extend(self.entries.remove(&session).map(|entry| entry.holder));
        }
        gone
    }

    fn forget_old(&mut self, now: Moment) {
        let timeout = self.holding.session_timeout;
        while self.graves.front().is_some_and(|(since, _)| now.saturating_sub(*since) >= timeout) {
            self.unearth();
        }
    }

    fn unearth(&mut self) {
        if let Some((_, session)) = self.graves.pop_front() {
            self.tombstones.remove(&session);
        }
    }

    fn note_guess(&mut self, address: &str, now: Moment) {
        let is_old = |at: &Moment| now.saturating_sub(*at) >= GUESSES_WITHIN;
        if self.guesses.len() >= ADDRESSES && !self.guesses.contains_key(address) {
            self.guesses.retain(|_, guesses| now < guesses.closed_until || !guesses.at.iter().all(is_old));
            let quietest = self.guesses.iter().min_by_key(|(_, guesses)| (guesses.closed_until, guesses.at.len()));
            if let Some(quietest) =
                quietest.map(|(address, _)| address.clone()).filter(|_| self.guesses.len() >= ADDRESSES)
            {
                self.guesses.remove(&quietest);
            }
        }
        let guesses = self.guesses.entry(address.to_owned()).or_default();
        guesses.at.retain(|at| !is_old(at));
        guesses.at.push_back(now);
        if guesses.at.len() >= GUESSES {
            guesses.at.clear();
            guesses.closed_until = now.saturating_add(GUESSES_WITHIN);
        }
    }
}

/// In a time that does not tell where they differ.
fn is_equal(one: &Secret, other: &Secret) -> bool {
    let differing = one.iter().zip(other).fold(0, |sum, (one, other)| sum | (one ^ other));
    std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::super::options::Settings;
    use super::*;

    const HERE: &str = "198.51.100.7";

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    fn secret(number: u32) -> Secret {
        let mut secret = [1; 16];
        secret[..4].copy_from_slice(&number.to_be_bytes());
        secret
    }

    fn hello(session: u32, token: u32, link: u32) -> Hello {
        let options = Settings::default().check().unwrap();
        Hello { session: secret(session), token: secret(token), ..Hello::offer(&options, link, 1) }
    }

    /// Each with its own number as token, and one link behind it.
    fn sessions(max_sessions: i64, max_held_bytes: i64, numbers: std::ops::Range<u32>) -> Sessions<u32> {
        let mut sessions = Sessions::new(Holding::new(120.0, max_sessions, max_held_bytes).unwrap());
        for number in numbers {
            sessions.enter(Known { session: secret(number), token: secret(number) }, 1, number);
        }
        sessions
    }

    fn code<T>(verdict: &Verdict<T>) -> Option<u16> {
        match verdict {
            Verdict::Refuse(goodbye) => Some(goodbye.code),
            _ => None,
        }
    }

    #[test]
    fn an_unknown_name_is_no_oracle() {
        let mut sessions = sessions(9, 9, 0..3);
        for guess in 100..1000 {
            assert_eq!(sessions.ask(&hello(guess, guess, 2), HERE, at(0)), Verdict::New);
        }
        assert_eq!(sessions.ask(&hello(1, 1, 2), HERE, at(0)), Verdict::Resume(1));
    }

    #[test]
    fn guesses_from_one_address_are_not_even_looked_at() {
        let mut sessions = sessions(9, 9, 0..3);
        for _ in 0..GUESSES {
            assert_eq!(code(&sessions.ask(&hello(1, 2, 2), HERE, at(5))), Some(refuse::TOKEN));
        }
        assert_eq!(code(&sessions.ask(&hello(1, 1, 2), HERE, at(14))), Some(refuse::BUSY));
        let new = Hello { session: [0; 16], token: [0; 16], ..hello(1, 1, 1) };
        assert_eq!(sessions.ask(&new, HERE, at(14)), Verdict::New, "who asks for no session guesses nothing");
        assert_eq!(sessions.ask(&hello(1, 1, 2), "198.51.100.8", at(14)), Verdict::Resume(1));
        assert_eq!(sessions.ask(&hello(1, 1, 2), HERE, at(15)), Verdict::Resume(1));
        for second in 20..100 {
            let verdict = sessions.ask(&hello(1, 2, 2), HERE, at(second * 2));
            assert_eq!(code(&verdict), Some(refuse::TOKEN), "five in ten seconds are a mistake");
        }
    }

    #[test]
    fn who_guesses_from_many_addresses_clears_none_of_their_names() {
        let mut sessions = sessions(9, 9, 0..3);
        assert!(!sessions.is_empty());
        let guess = |sessions: &mut Sessions<u32>, address: &str, second: u64| {
            code(&sessions.ask(&hello(1, 2, 2), address, at(second))).unwrap()
        };
        for number in 2..ADDRESSES {
            guess(&mut sessions, &format!("old {number}"), 3);
        }
        for _ in 0..GUESSES {
            guess(&mut sessions, "closed", 12);
        }
        for _ in 1..GUESSES {
            guess(&mut sessions, "near", 12);
        }
        assert_eq!(sessions.guesses.len(), ADDRESSES);
        guess(&mut sessions, "new", 13);
        assert_eq!(sessions.guesses.len(), 3, "those of ten seconds ago make room");
        for number in 3..ADDRESSES + 50 {
            guess(&mut sessions, &format!("fresh {number}"), 13);
        }
        assert_eq!(sessions.guesses.len(), ADDRESSES);
        assert_eq!(guess(&mut sessions, "closed", 13), refuse::BUSY, "and then the quietest");
        assert_eq!([(); 2].map(|()| guess(&mut sessions, "near", 13)), [refuse::TOKEN, refuse::BUSY]);
    }

    #[test]
    fn a_wrong_token_tells_nothing_of_what_became_of_the_session() {
        let mut sessions = sessions(9, 9, 0..3);
        sessions.over(&secret(1), 77, at(0));
        let wrong = [sessions.ask(&hello(1, 2, 1), HERE, at(1)), sessions.ask(&hello(2, 1, 1), HERE, at(1))];
        assert_eq!(wrong[0], wrong[1]);
        assert_eq!(sessions.ask(&hello(1, 1, 1), HERE, at(1)), Verdict::Over { consumed: 77 });
    }

    #[test]
    fn no_difference_between_two_tokens_makes_good_another() {
        let token = secret(7);
        for (one, other) in (0..16).flat_map(|one| (0..16).map(move |other| (one, other))) {
            let mut wrong = token;
            wrong[one] ^= 0x81;
            wrong[other] ^= if one == other { 0 } else { 0x81 };
            assert!(!is_equal(&token, &wrong), "{one} {other}");
        }
        assert!(is_equal(&token, &secret(7)));
    }

    #[test]
    fn a_late_duplicate_cannot_fence_the_good_link() {
        let mut sessions = sessions(9, 9, 0..3);
        assert_eq!(code(&sessions.ask(&hello(1, 1, 1), HERE, at(0))), Some(refuse::TOKEN));
        assert_eq!(sessions.ask(&hello(1, 1, 5), HERE, at(0)), Verdict::Resume(1));
        sessions.answered(&secret(1), 5);
        for link in 1..=5 {
            assert_eq!(code(&sessions.ask(&hello(1, 1, link), HERE, at(0))), Some(refuse::TOKEN));
        }
        assert_eq!(sessions.ask(&hello(1, 1, 6), HERE, at(0)), Verdict::Resume(1), "none of these was a guess");
    }

    #[test]
    fn the_longest_absent_makes_room() {
        let mut by_count = sessions(2, 1000, 0..5);
        assert!(by_count.absent(&secret(3), 1, at(1)).is_empty());
        assert!(by_count.absent(&secret(0), 1, at(2)).is_empty());
        assert_eq!(by_count.absent(&secret(4), 1, at(3)), [3]);
        assert_eq!(by_count.ask(&hello(3, 3, 2), HERE, at(3)), Verdict::New);
        assert_eq!(by_count.ask(&hello(1, 1, 2), HERE, at(3)), Verdict::Resume(1), "who has a link is not counted");
        by_count.answered(&secret(0), 2);
        assert!(by_count.absent(&secret(1), 1, at(4)).is_empty(), "who has come back made room");
        let mut by_bytes = sessions(99, 100, 0..5);
        assert!(by_bytes.absent(&secret(0), 40, at(1)).is_empty());
        assert!(by_bytes.absent(&secret(1), 60, at(2)).is_empty());
        assert_eq!(by_bytes.holds(&secret(1), 61), [0]);
        assert_eq!(by_bytes.absent(&secret(2), 101, at(3)), [1, 2]);
        assert_eq!((by_bytes.held_bytes, by_bytes.len()), (0, 2));
    }

    #[test]
    fn what_is_over_is_remembered_and_then_forgotten() {
        let mut sessions = sessions(2, 9, 0..9);
        sessions.over(&secret(1), 5, at(0));
        assert_eq!(sessions.ask(&hello(1, 1, 9), HERE, at(119)), Verdict::Over { consumed: 5 });
        assert_eq!(sessions.ask(&hello(1, 1, 9), HERE, at(120)), Verdict::New);
        for number in 2..5 {
            sessions.over(&secret(number), 5, at(200));
        }
        assert_eq!(sessions.ask(&hello(2, 2, 9), HERE, at(200)), Verdict::New, "the oldest goes first");
        assert_eq!(sessions.ask(&hello(3, 3, 9), HERE, at(200)), Verdict::Over { consumed: 5 });
        sessions.never_entered(Known { session: secret(77), token: secret(77) }, at(200));
        assert_eq!(sessions.ask(&hello(77, 77, 2), HERE, at(201)), Verdict::Over { consumed: 0 });
        assert_eq!(code(&sessions.ask(&hello(77, 78, 2), HERE, at(201))), Some(refuse::TOKEN));
        sessions.expired(&secret(5));
        assert_eq!(sessions.ask(&hello(5, 5, 9), HERE, at(200)), Verdict::New, "an expired one leaves no tombstone");
    }

    #[test]
    fn nothing_here_grows_without_bound() {
        let mut sessions = sessions(10, 1 << 20, 0..0);
        for number in 0..10_000 {
            sessions.enter(Known { session: secret(number), token: secret(number) }, 1, number);
            sessions.ask(&hello(number, number + 1, 2), &number.to_string(), at(1));
            sessions.absent(&secret(number), 64, at(1));
            if number % 3 == 0 {
                sessions.over(&secret(number), 1, at(1));
            }
        }
        assert!(sessions.len() <= 10 && sessions.absent.len() <= 10);
        assert!(sessions.tombstones.len() <= 10 && sessions.graves.len() <= 10);
        assert!(sessions.guesses.len() <= ADDRESSES);
        assert_eq!(sessions.held_bytes, 64 * u64::try_from(sessions.absent.len()).unwrap());
    }

    #[test]
    fn what_is_held_stays_within_its_bound_whatever_changes() {
        let mut sessions = sessions(99, 1000, 0..10);
        for number in 0..10 {
            assert!(sessions.absent(&secret(number), 90, at(u64::from(number))).is_empty());
        }
        assert!(sessions.holds(&secret(4), 10).is_empty(), "what was taken makes room");
        assert!(sessions.holds(&secret(7), 270).is_empty());
        assert_eq!(sessions.held_bytes, 1000);
        assert_eq!(sessions.holds(&secret(9), 91), [0], "the longest absent goes, whoever grew");
        assert_eq!(sessions.holds(&secret(9), 400), [1, 2, 3]);
        assert!(sessions.holds(&secret(0), 5000).is_empty(), "who is gone holds nothing");
        assert_eq!(sessions.holds(&secret(5), 1001), [4, 5], "and what is too large alone goes itself");
        sessions.answered(&secret(6), 2);
        assert!(sessions.holds(&secret(6), 5000).is_empty(), "who has a link is not counted");
        assert_eq!(sessions.held_bytes, 270 + 90 + 400);
    }

    #[test]
    fn the_longest_absent_that_is_fit_gives_up_its_place() {
        let mut sessions = sessions(99, 1000, 0..5);
        assert_eq!(sessions.oust(|_| true), None, "all have a link");
        for (number, second) in [(3, 1), (0, 2), (4, 3)] {
            sessions.absent(&secret(number), 10, at(second));
        }
        assert_eq!(sessions.oust(|holder| *holder != 3), Some(0));
        assert_eq!(sessions.ask(&hello(0, 0, 2), HERE, at(4)), Verdict::New, "it has expired");
        assert_eq!(sessions.oust(|_| true), Some(3));
        assert_eq!(sessions.oust(|_| true), Some(4));
        assert_eq!((sessions.oust(|_| true), sessions.held_bytes, sessions.len()), (None, 0, 2));
    }

    #[test]
    fn a_table_that_is_closed_knows_nobody() {
        let mut sessions = sessions(9, 1000, 0..3);
        sessions.absent(&secret(1), 10, at(1));
        sessions.over(&secret(2), 5, at(1));
        let mut gone = sessions.close();
        gone.sort_unstable();
        assert_eq!(gone, [0, 1]);
        assert!(sessions.is_empty() && sessions.absent(&secret(0), 5000, at(2)).is_empty());
        for number in 0..3 {
            assert_eq!(sessions.ask(&hello(number, number, 2), HERE, at(2)), Verdict::New);
        }
        assert_eq!((sessions.held_bytes, sessions.graves.len()), (0, 0));
    }

    /// F 54.
    #[test]
    fn ten_thousand_abandoned_sessions_leave_nothing_when_they_have_expired() {
        let held = std::rc::Rc::new(());
        let mut sessions = Sessions::new(Holding::new(120.0, 20_000, 1 << 30).unwrap());
        for number in 0..10_000 {
            sessions.enter(Known { session: secret(number), token: secret(number) }, 1, held.clone());
            assert!(sessions.absent(&secret(number), 6400, at(1)).is_empty());
        }
        assert_eq!((std::rc::Rc::strong_count(&held), sessions.held_bytes), (10_001, 64_000_000));
        for number in 0..10_000 {
            sessions.expired(&secret(number));
        }
        assert!(sessions.is_empty() && sessions.absent.is_empty());
        assert!(sessions.tombstones.is_empty() && sessions.graves.is_empty());
        assert_eq!((std::rc::Rc::strong_count(&held), sessions.held_bytes), (1, 0));
    }

    #[test]
    fn without_a_timeout_nothing_is_held() {
        let mut sessions: Sessions<u32> = Sessions::new(Holding::new(0.0, 9, 9).unwrap());
        sessions.enter(Known { session: secret(1), token: secret(1) }, 1, 1);
        assert!(sessions.is_empty());
        assert_eq!(sessions.ask(&hello(1, 1, 2), HERE, at(0)), Verdict::New);
    }
}
