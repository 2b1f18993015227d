//! Looking before sleeping. A thread that is to read looks at its socket a few times before it sleeps in the
//! kernel: to give others the core costs a microsecond, to be woken on another one tens of them (`speed.md`).
//! Where that is in vain it stops, but for a rare and longer look.

use std::sync::Arc;
use std::time::Duration;

use super::clock;
use super::link::{Link, Rx};
use super::lock::MutexGuard;
use super::net::{self, Socket};
use super::read::Read;
use super::sync::atomic::{AtomicU32, Ordering};
use crate::proto::Moment;

/// About what sleeping and being woken takes of the processor's time, so that it is at most doubled.
const LOOK: Duration = Duration::from_micros(12);
/// Long enough for a peer that has to be woken. After it both look, and neither sleeps.
const LONG_LOOK: Duration = Duration::from_micros(60);
/// After so many looks in vain only one wait in `RARELY` looks.
const PATIENCE: u32 = 8;
const RARELY: u32 = 64;

/// What a thread knows of its waits.
#[derive(Debug, Default)]
pub struct Patience {
    in_vain: AtomicU32,
}

impl Patience {
    /// How long the next wait may look before it sleeps.
    pub fn limit(&self) -> Duration {
        match self.in_vain.load(Ordering::Relaxed) {
            in_vain if in_vain < PATIENCE => LOOK,
            in_vain if in_vain % RARELY == 0 => LONG_LOOK,
            _ => Duration::ZERO,
        }
    }

    /// Something came within the limit, or not.
    pub fn note(&self, has_come: bool) {
        let in_vain = if has_come { 0 } else { self.in_vain.load(Ordering::Relaxed).wrapping_add(1) };
        self.in_vain.store(in_vain, Ordering::Relaxed);
    }
}

impl Link {
    /// Looks at the socket that this thread is about to sleep on. Where something has come it has been read,
    /// and the lock is still held; with the moment.
    pub(super) fn look_before_sleeping(
        &self,
        socket: &Arc<Socket>,
        patience: &Patience,
    ) -> Option<(MutexGuard<'_, Rx>, Moment)> {
        let limit = patience.limit();
        if limit.is_zero() {
            patience.note(false);
            return None;
        }
        let begun = clock::now();
        loop {
            net::yield_core();
            let mut rx = self.rx();
            let read = if self.is_current(&rx, Some(socket)) { self.read(&mut rx) } else { Read::Closed };
            let now = if read == Read::Bytes { rx.read_at } else { clock::now() };
            // The clock of `races` stands still: there, one look is one.
            let is_over = cfg!(feature = "races") || now.saturating_sub(begun) > limit;
            if read != Read::Nothing || is_over {
                patience.note(read != Read::Nothing && !is_over);
                return (read != Read::Nothing).then_some((rx, now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_in_vain_looks_rarely_until_something_comes() {
        let patience = Patience::default();
        let looks = |patience: &Patience, waits: u32| {
            let look = |_: u32| {
                let limit = patience.limit();
                patience.note(false);
                limit
            };
            (0..waits).map(look).collect::<Vec<_>>()
        };
        let in_vain = looks(&patience, 200);
        assert!(in_vain[..8].iter().all(|limit| *limit == LOOK));
        let later: Vec<usize> = (8..200).filter(|at| in_vain[*at] > Duration::ZERO).collect();
        assert_eq!(later, [64, 128, 192]);
        assert!(later.iter().all(|at| in_vain[*at] == LONG_LOOK));
        patience.note(true);
        assert_eq!(patience.limit(), LOOK);
    }
}
