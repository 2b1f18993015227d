//! The only file that names a clock. Monotonic, and suspension does not count (CLOCK_MONOTONIC).
#![allow(clippy::disallowed_methods, reason = "this is where the clock lives")]

use std::time::{Duration, Instant};

use super::net;
use crate::proto::Moment;

/// Now, counted from the start of the system.
pub fn now() -> Moment {
    net::monotonic()
}

/// The same moment for the runtime's timers; None where the system's clock cannot show it.
fn instant(moment: Moment) -> Option<Instant> {
    Instant::now().checked_add(moment.saturating_sub(now()))
}

/// Sleeps on the runtime until `moment`; for ever without one.
pub async fn until(moment: Option<Moment>) {
    // What the system's clock cannot show never comes.
    match moment.and_then(instant) {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

/// Runs `future` for at most `limit`; None when it was not done by then. Boxed: whoever awaits this would hold
/// room for it three times over.
pub fn within<F: Future>(limit: Duration, future: F) -> impl Future<Output = Option<F::Output>> {
    let future = Box::pin(future);
    async move { tokio::time::timeout(limit, future).await.ok() }
}

/// Runs `future` until `moment`; None when it was not done by then.
pub fn before<F: Future>(moment: Moment, future: F) -> impl Future<Output = Option<F::Output>> {
    let future = Box::pin(future);
    async move {
        match instant(moment) {
            Some(instant) => tokio::time::timeout_at(instant.into(), future).await.ok(),
            None => Some(future.await),
        }
    }
}

/// Rests on the runtime.
pub async fn rest(duration: Duration) {
    tokio::time::sleep(duration).await;
}
