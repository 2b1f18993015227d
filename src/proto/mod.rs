//! What a link decides, without doing any of it: pure code that knows no clock, socket, thread,
//! runtime or Python. Time comes in as a [`Moment`], bytes come in as slices, orders go out as values,
//! so that the simulator runs exactly what ships.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::as_conversions, clippy::unwrap_used))]

pub mod accepting;
pub mod account;
pub mod backoff;
pub mod classic;
pub mod control;
pub mod endpoint;
pub mod events;
mod frames;
pub mod halves;
pub mod hello;
pub mod inbox;
pub mod liveness;
pub mod memory;
pub mod options;
pub mod outbox;
pub mod receipts;
pub mod round;
pub mod sender;
pub mod session;
pub mod sessions;
pub mod standing;
pub mod telling;
pub mod wire;

/// Monotonic time since an origin that the caller chooses; only differences mean anything.
pub type Moment = std::time::Duration;

/// What a message costs beside its length, so that a million empty ones are not free (`wire.md` §4).
pub const MESSAGE_OVERHEAD: u64 = 64;

/// The cost of a message of `length` bytes.
pub fn cost(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX).saturating_add(MESSAGE_OVERHEAD)
}
