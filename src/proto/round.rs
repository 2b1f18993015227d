//! One attempt to reach a target: in which order its addresses are dialled, for how long each, and which of them is
//! shown the session. Knows neither names nor sockets; an address is whatever can be compared.
//!
//! Theory. A session belongs to the address that issued it, not to the name: behind one name there may be several
//! servers, and each knows its own sessions only. Whoever asked another one to go on with it would lose and double
//! messages, and would give its secret away. So the issuer is dialled first and alone, before the others are; those
//! are asked for a session of their own. An issuer that did not answer in time is asked once more at the end of
//! the round.
//!
//! 1. `only_its_issuer_is_shown_a_session`
//! 2. `the_issuer_is_dialled_first_and_alone`
//! 3. `every_address_is_tried_and_nobody_twice_who_has_answered`
//! 4. `whom_it_reached_last_is_tried_first`
//! 5. `a_goodbye_is_for_the_issuer_only`

use std::collections::VecDeque;
use std::time::Duration;

/// The least that an issuer is waited for alone: a lost SYN is repeated after a second.
const ALONE: Duration = Duration::from_millis(1500);
/// Of a long `open_timeout` it gets this part.
const ALONE_SHARE: u32 = 8;

/// Whom a dialler reached last, and whether the session that it is in was begun there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Home<A> {
    #[default]
    Nowhere,
    /// The last one that answered; there is no session.
    Reached(A),
    /// It has issued the session.
    Issuer(A),
}

/// What the dialler wants of whom it reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A link: to the session's issuer if possible, to any other server if not.
    Link,
    /// To take its leave of a session, which nobody else knows.
    Goodbye,
}

/// How one that is dialled is greeted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// It is shown the session, if there still is one.
    Resume,
    /// It is asked for a session of its own.
    Anew,
}

/// Whom to dial next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<A> {
    pub address: A,
    pub limit: Duration,
    pub entrance: Entrance,
}

#[derive(Debug)]
pub struct Round<A> {
    left: VecDeque<A>,
    issuer: Option<A>,
    /// For how long the issuer is waited for, while it is still to be dialled before all others.
    alone: Option<Duration>,
}

impl<A: Copy + PartialEq> Round<A> {
    /// A round over those whom the present lookup lists.
    pub fn new(listed: impl IntoIterator<Item = A>, home: Home<A>, purpose: Purpose, open_timeout: Duration) -> Self {
        let mut left = VecDeque::new();
        for address in listed {
            if !left.contains(&address) {
                left.push_back(address);
            }
        }
        let (first, issuer) = match home {
            Home::Nowhere => (None, None),
            Home::Reached(address) => (Some(address), None),
            Home::Issuer(address) => (Some(address), Some(address)),
        };
        if let Some(first) = first.filter(|first| left.contains(first)) {
            left.retain(|address| *address != first);
            left.push_front(first);
        }
        if purpose == Purpose::Goodbye {
            left.retain(|address| Some(*address) == issuer);
        }
        let is_before_others = left.len() > 1 && issuer.is_some() && left.front() == issuer.as_ref();
        let alone = is_before_others.then(|| ALONE.max(open_timeout / ALONE_SHARE));
        Self { left, issuer, alone }
    }

    /// The next one, when so much of `open_timeout` is left.
    pub fn next(&mut self, time: Duration) -> Option<Call<A>> {
        let count = u32::try_from(self.left.len()).unwrap_or(u32::MAX);
        let address = if time.is_zero() { None } else { self.left.pop_front() }?;
        let limit = self.alone.map_or_else(|| time / count.max(1), |alone| alone.min(time));
        let entrance = if Some(address) == self.issuer { Entrance::Resume } else { Entrance::Anew };
        Some(Call { address, limit, entrance })
    }

    /// How `call` ended: nobody answered within its limit, or it failed otherwise.
    pub fn failed(&mut self, call: &Call<A>, has_answered: bool) {
        let was_alone = self.alone.take().is_some();
        if was_alone && !has_answered {
            self.left.push_back(call.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Duration = Duration::from_secs(10);

    fn round(listed: &[u8], home: Home<u8>) -> Round<u8> {
        Round::new(listed.iter().copied(), home, Purpose::Link, OPEN)
    }

    /// Everybody that is dialled where nobody can be reached, and how they are greeted.
    fn calls(mut round: Round<u8>, has_answered: bool) -> Vec<(u8, Entrance)> {
        let mut calls = Vec::new();
        while let Some(call) = round.next(OPEN) {
            round.failed(&call, has_answered);
            calls.push((call.address, call.entrance));
        }
        calls
    }

    #[test]
    fn only_its_issuer_is_shown_a_session() {
        use Entrance::{Anew, Resume};
        assert_eq!(calls(round(&[1, 2, 3], Home::Issuer(2)), true), [(2, Resume), (1, Anew), (3, Anew)]);
        assert_eq!(calls(round(&[1, 2, 3], Home::Issuer(2)), false), [(2, Resume), (1, Anew), (3, Anew), (2, Resume)]);
        assert_eq!(calls(round(&[1, 3], Home::Issuer(2)), false), [(1, Anew), (3, Anew)], "it is not listed");
        assert_eq!(calls(round(&[1, 2], Home::Reached(2)), false), [(2, Anew), (1, Anew)]);
        assert_eq!(calls(round(&[1], Home::Nowhere), false), [(1, Anew)]);
    }

    #[test]
    fn the_issuer_is_dialled_first_and_alone() {
        let limit = |listed: &[u8], open_timeout: u64, left: u64| {
            let [open_timeout, left] = [open_timeout, left].map(Duration::from_secs);
            let home = Home::Issuer(2);
            Round::new(listed.iter().copied(), home, Purpose::Link, open_timeout).next(left).map(|call| call.limit)
        };
        assert_eq!(limit(&[1, 2, 3], 10, 10), Some(ALONE));
        assert_eq!(limit(&[1, 2, 3], 60, 60), Some(Duration::from_millis(7500)));
        assert_eq!(limit(&[1, 2, 3], 1, 1), Some(Duration::from_secs(1)), "never longer than there is time");
        assert_eq!(limit(&[2], 10, 10), Some(OPEN), "nobody waits behind it");
    }

    #[test]
    fn every_address_is_tried_and_nobody_twice_who_has_answered() {
        for home in [Home::Nowhere, Home::Reached(3), Home::Issuer(3), Home::Issuer(9)] {
            for has_answered in [true, false] {
                let mut called: Vec<u8> =
                    calls(round(&[1, 2, 1, 3, 4, 3], home), has_answered).iter().map(|call| call.0).collect();
                let is_again = !has_answered && home == Home::Issuer(3);
                assert_eq!(called.len(), if is_again { 5 } else { 4 }, "{home:?} {called:?}");
                called.sort_unstable();
                called.dedup();
                assert_eq!(called, [1, 2, 3, 4]);
            }
        }
        assert_eq!(round(&[1, 2], Home::Nowhere).next(Duration::ZERO), None, "no time is left");
    }

    #[test]
    fn whom_it_reached_last_is_tried_first() {
        let mut round = round(&[1, 2, 3, 4], Home::Reached(3));
        let first = round.next(OPEN).unwrap();
        assert_eq!((first.address, first.limit), (3, OPEN / 4), "with its share of the time, as the others");
        round.failed(&first, false);
        assert_eq!(round.next(OPEN / 2).map(|call| (call.address, call.limit)), Some((1, OPEN / 6)));
    }

    #[test]
    fn a_goodbye_is_for_the_issuer_only() {
        let goodbye = |home| Round::new([1, 2, 3], home, Purpose::Goodbye, OPEN);
        assert_eq!(calls(goodbye(Home::Issuer(2)), false), [(2, Entrance::Resume)]);
        assert_eq!(goodbye(Home::Issuer(2)).next(OPEN).unwrap().limit, OPEN);
        assert_eq!(calls(goodbye(Home::Issuer(9)), false), []);
        assert_eq!(calls(goodbye(Home::Reached(2)), false), [], "there is no session to leave");
    }
}
