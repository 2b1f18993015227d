//! What a link does: sockets, threads and time, on the orders of `proto`. Knows nothing of Python;
//! whoever waits is an `Arc<dyn Wake>`, and a loop that reads is a `dyn LoopDriver`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod clock;
pub mod dial;
pub mod driver;
pub mod fork;
mod greeting;
pub mod handle;
#[expect(clippy::module_inception, reason = "the connection that every handle shares")]
pub mod link;
pub mod listener;
pub mod lock;
pub mod net;
#[cfg(test)]
mod panics;
pub mod read;
mod reception;
pub mod runtime;
pub mod seats;
pub mod select;
pub mod supervisor;
pub mod target;
pub mod wake;
pub mod write;
