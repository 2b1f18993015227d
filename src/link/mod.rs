//! What a link does: sockets, threads and time, on the orders of `proto`. Knows nothing of Python;
//! whoever waits is an `Arc<dyn Wake>`, and a loop that reads is a `dyn LoopDriver`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg_attr(feature = "races", path = "races/clock.rs")]
pub mod clock;
pub mod dial;
pub mod driver;
pub mod errands;
pub mod fork;
#[cfg(all(test, not(feature = "races")))]
mod frugal;
mod greeting;
pub mod handle;
#[expect(clippy::module_inception, reason = "the connection that every handle shares")]
pub mod link;
pub mod listener;
pub mod lock;
mod lookup;
#[cfg_attr(feature = "races", path = "races/net.rs")]
pub mod net;
mod opening;
#[cfg(all(test, not(feature = "races")))]
mod panics;
#[cfg(all(test, feature = "races"))]
mod races;
pub mod read;
mod reception;
mod returning;
pub mod runtime;
pub mod seats;
pub mod select;
mod sessions;
#[cfg(all(test, not(feature = "races")))]
mod settling;
pub mod spin;
pub mod supervisor;
pub mod sync;
pub mod target;
pub mod turn;
pub mod wake;
pub mod write;
