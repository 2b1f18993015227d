//! Translates: methods of a few lines over frozen classes. Holds the unsafe code that the C API needs,
//! and attaches only in threads that Python started. What waits, iterates or manages contexts for
//! asyncio is written in Python, in `netasync/aio.py`.
#![allow(unsafe_code, reason = "the C API; each block says why it holds")]

pub mod bridge;
pub mod callback;
mod context;
pub mod convert;
mod debugging;
pub mod events;
pub mod face;
pub mod forked;
pub mod handle;
pub mod interpreter;
pub mod listening;
pub mod operation;
pub mod options;
pub mod park;
pub mod receiving;
pub mod runtime;
pub mod select;
pub mod waiter;
pub mod waiting;
mod wakeup;
