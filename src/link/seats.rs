//! How many connections of a listener are alive, and how many of these have no link, without asking each of them:
//! a flood of dials that are refused must not cost a look at all that are there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The places of one listener.
#[derive(Debug, Default)]
pub struct Seats {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    taken: AtomicUsize,
    absent: AtomicUsize,
}

impl Seats {
    pub fn take(&self) -> Seat {
        self.counts.taken.fetch_add(1, Ordering::AcqRel);
        Seat { counts: Arc::clone(&self.counts), is_absent: false }
    }

    pub fn taken(&self) -> usize {
        self.counts.taken.load(Ordering::Acquire)
    }

    /// Those of them whose connection has no link at the moment.
    pub fn absent(&self) -> usize {
        self.counts.absent.load(Ordering::Acquire)
    }
}

/// One connection that counts; free again when it is dropped.
#[derive(Debug)]
pub struct Seat {
    counts: Arc<Counts>,
    is_absent: bool,
}

impl Seat {
    pub fn set_absent(&mut self, is_absent: bool) {
        match (std::mem::replace(&mut self.is_absent, is_absent), is_absent) {
            (false, true) => _ = self.counts.absent.fetch_add(1, Ordering::AcqRel),
            (true, false) => _ = self.counts.absent.fetch_sub(1, Ordering::AcqRel),
            _ => {}
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.set_absent(false);
        self.counts.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_counts_once_whatever_becomes_of_its_connection() {
        let seats = Seats::default();
        let (mut one, other) = (seats.take(), seats.take());
        for is_absent in [true, true, false, false, true] {
            one.set_absent(is_absent);
            assert_eq!((seats.taken(), seats.absent()), (2, usize::from(is_absent)));
        }
        drop(one);
        assert_eq!((seats.taken(), seats.absent()), (1, 0));
        drop(other);
        assert_eq!((seats.taken(), seats.absent()), (0, 0));
    }
}
