//! How many connections of a listener are alive, without asking each of them: a flood of dials that are
//! refused must not cost a look at all that are there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The places of one listener.
#[derive(Debug, Default)]
pub struct Seats {
    taken: Arc<AtomicUsize>,
}

impl Seats {
    pub fn take(&self) -> Seat {
        self.taken.fetch_add(1, Ordering::AcqRel);
        Seat { taken: Arc::clone(&self.taken) }
    }

    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }
}

/// One connection that counts; free again when it is dropped.
#[derive(Debug)]
pub struct Seat {
    taken: Arc<AtomicUsize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }
}
