//! What else threads share, beside the lock: atomics, storage of each thread's own, and tasks. They are std's
//! and tokio's. With the feature `races`, which no build for users has, they belong to a scheduler that runs
//! the same code in thousands of orders (`races`).

#[cfg(not(feature = "races"))]
mod chosen {
    pub use std::sync::atomic;
    pub use std::thread_local;
    pub use tokio::spawn;
}

#[cfg(feature = "races")]
mod chosen {
    use std::cell::RefCell;

    pub use shuttle::future::spawn;
    pub use shuttle::sync::atomic;
    pub use shuttle::thread_local;

    /// As std's keys have it.
    pub trait BorrowMut<T> {
        fn with_borrow_mut<R>(&'static self, work: impl FnOnce(&mut T) -> R) -> R;
    }

    impl<T> BorrowMut<T> for shuttle::thread::LocalKey<RefCell<T>> {
        fn with_borrow_mut<R>(&'static self, work: impl FnOnce(&mut T) -> R) -> R {
            self.with(|cell| work(&mut cell.borrow_mut()))
        }
    }
}

pub use chosen::*;
