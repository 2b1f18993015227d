//! Which dials a listener lets in. Knows only counts: how many connections wait to be accepted, and how
//! many are alive, those included. How a dial is kept waiting or refused is the wire's matter.
//!
//! 1. `never_more_wait_than_the_buffer_holds`
//! 2. `never_more_live_than_max_connections`
//! 3. `a_fixed_buffer_refuses_nobody_by_itself`
//! 4. `a_lossy_buffer_keeps_nobody_waiting`

use super::options::{Buffer, Invalid, Policy, size};

/// `accept_buffer` and `max_connections`. Of the buffer only its count means anything here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepting {
    buffer: Buffer,
    max_connections: Option<usize>,
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

    /// What becomes of a dial while `waiting` connections wait and `alive` live, those that wait included.
    pub fn admit(&self, waiting: usize, alive: usize) -> Admission {
        if self.max_connections.is_some_and(|most| alive >= most) {
            return Admission::Refuse;
        }
        match self.buffer.policy {
            _ if waiting < self.buffer.count => Admission::Enter,
            Policy::Fixed => Admission::Wait,
            Policy::Dropping => Admission::Refuse,
            Policy::Sliding => Admission::Replace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: [Policy; 3] = [Policy::Fixed, Policy::Dropping, Policy::Sliding];

    fn accepting(policy: Policy, count: i64, max_connections: Option<i64>) -> Accepting {
        Accepting::new(Buffer::new(policy, count, 1).unwrap(), max_connections).unwrap()
    }

    /// The connections after a dial: how many wait, how many live.
    fn after(accepting: &Accepting, waiting: usize, alive: usize) -> (usize, usize) {
        match accepting.admit(waiting, alive) {
            Admission::Enter => (waiting + 1, alive + 1),
            Admission::Replace | Admission::Refuse | Admission::Wait => (waiting, alive),
        }
    }

    /// Every state of a small listener: the room, the limit, who waits and who was accepted.
    fn every_state(policy: Policy) -> impl Iterator<Item = (Accepting, usize, Option<usize>, usize, usize)> {
        (1..5).flat_map(move |room| {
            [None, Some(1), Some(3), Some(6)].into_iter().flat_map(move |most| {
                let accepting = accepting(policy, room, most);
                let (room, most) = (usize::try_from(room).unwrap(), most.map(|most| usize::try_from(most).unwrap()));
                (0..=room).flat_map(move |waiting| {
                    let alive = waiting..=most.unwrap_or(8).max(waiting);
                    alive.map(move |alive| (accepting, room, most, waiting, alive))
                })
            })
        })
    }

    #[test]
    fn never_more_wait_than_the_buffer_holds() {
        for policy in POLICIES {
            for (accepting, room, _, waiting, alive) in every_state(policy) {
                assert!(after(&accepting, waiting, alive).0 <= room, "{accepting:?} {waiting} {alive}");
            }
        }
    }

    #[test]
    fn never_more_live_than_max_connections() {
        for policy in POLICIES {
            for (accepting, _, most, waiting, alive) in every_state(policy) {
                let Some(most) = most.filter(|most| alive <= *most) else { continue };
                assert!(after(&accepting, waiting, alive).1 <= most, "{accepting:?} {waiting} {alive}");
                assert_eq!(
                    accepting.admit(waiting, alive) == Admission::Refuse,
                    alive == most || { policy == Policy::Dropping && waiting == accepting.buffer.count }
                );
            }
        }
    }

    #[test]
    fn a_fixed_buffer_refuses_nobody_by_itself() {
        for (accepting, room, most, waiting, alive) in every_state(Policy::Fixed) {
            let expected = if waiting < room { Admission::Enter } else { Admission::Wait };
            if most.is_none() {
                assert_eq!(accepting.admit(waiting, alive), expected);
            }
        }
    }

    #[test]
    fn a_lossy_buffer_keeps_nobody_waiting() {
        for policy in [Policy::Dropping, Policy::Sliding] {
            for (accepting, _, _, waiting, alive) in every_state(policy) {
                assert_ne!(accepting.admit(waiting, alive), Admission::Wait);
            }
        }
        assert_eq!(accepting(Policy::Dropping, 2, None).admit(2, 9), Admission::Refuse);
        assert_eq!(accepting(Policy::Sliding, 2, None).admit(2, 9), Admission::Replace);
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
