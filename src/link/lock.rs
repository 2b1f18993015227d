//! The one lock of the house: a word of its own and the kernel's futex, and nothing that the process
//! shares. A lock that keeps its sleepers in a table for all (parking_lot) leaves that table in a forked child as
//! another thread held it, and there new locks would wait for it.

#[cfg(feature = "races")]
use shuttle::sync;
#[cfg(not(feature = "races"))]
use std::sync;
use std::sync::PoisonError;

/// Of std, as it was before its holder panicked: a panic ends one connection and leaves no lock behind.
#[derive(Debug, Default)]
pub struct Mutex<T>(sync::Mutex<T>);

pub type MutexGuard<'a, T> = sync::MutexGuard<'a, T>;

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(feature = "races")))]
mod tests {
    use super::*;

    #[test]
    fn a_panic_leaves_the_lock_to_the_next() {
        let lock = Mutex::new(1);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut held = lock.lock();
            *held = 2;
            panic!("while it is held");
        }));
        assert!(outcome.is_err());
        assert_eq!(*lock.lock(), 2);
    }
}
