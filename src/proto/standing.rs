//! Where an end stands in its session, for the greeting that goes on with it (`wire.md` §2 and §3), and
//! whether what the other side says fits. Knows numbers only; the name and the token stand beside them.
//!
//! 1. `what_a_true_peer_says_fits`
//! 2. `a_number_that_cannot_be_is_found`
//! 3. `a_limit_that_shrank_is_found`

use super::hello::{Hello, Secret};
use super::wire::Numbers;

/// A session's name and the secret that proves it. No `Debug`: the token must reach no log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub session: Secret,
    pub token: Secret,
}

/// What both halves of an end know of their session while no link carries it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// The next message that was not received whole.
    pub received: u64,
    /// What we grant.
    pub credit: u64,
    /// The highest numbers of the peer's that were heard.
    pub heard: Numbers,
    /// Messages ever begun in this session.
    pub begun: u64,
    /// The largest message that the peer takes.
    pub max_size: usize,
}

impl Standing {
    /// Why the other side's greeting cannot be that of this session, if it cannot.
    pub fn contradiction(&self, peer: &Hello) -> Option<String> {
        let Hello { received, credit, max_size, .. } = *peer;
        let (consumed, begun) = (self.heard.consumed, self.begun);
        if received < consumed || received > begun {
            return Some(format!("received {received}, possible is {consumed} to {begun}"));
        }
        if credit < self.heard.credit {
            return Some(format!("a credit of {credit} behind one of {}", self.heard.credit));
        }
        if peer.max_message() < self.max_size {
            return Some(format!("a max_size of {max_size} behind one of {}", self.max_size));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::Settings;
    use super::*;

    const STANDING: Standing =
        Standing { received: 7, credit: 1000, heard: Numbers { consumed: 3, credit: 500 }, begun: 5, max_size: 100 };

    fn hello(received: u64, credit: u64, max_size: u32) -> Hello {
        let options = Settings::default().check().unwrap();
        Hello { received, max_size, ..Hello::offer(&options, 2, credit) }
    }

    #[test]
    fn what_a_true_peer_says_fits() {
        for (received, credit, max_size) in [(3, 500, 100), (5, 500, 100), (4, 900, u32::MAX)] {
            assert_eq!(STANDING.contradiction(&hello(received, credit, max_size)), None);
        }
    }

    #[test]
    fn a_number_that_cannot_be_is_found() {
        for (received, credit) in [(2, 500), (6, 500), (4, 499), (u64::MAX, 500), (0, u64::MAX)] {
            assert!(STANDING.contradiction(&hello(received, credit, 100)).is_some(), "{received} {credit}");
        }
    }

    #[test]
    fn a_limit_that_shrank_is_found() {
        assert!(STANDING.contradiction(&hello(4, 500, 99)).is_some());
    }
}
