//! The only file that names a clock. Monotonic, and suspension does not count (CLOCK_MONOTONIC).
#![allow(clippy::disallowed_methods, reason = "this is where the clock lives")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::proto::Moment;

static ORIGIN: OnceLock<Instant> = OnceLock::new();

fn origin() -> Instant {
    *ORIGIN.get_or_init(Instant::now)
}

/// Now, counted from the first use.
pub fn now() -> Moment {
    Instant::now().saturating_duration_since(origin())
}

/// Sleeps on the runtime until `moment`; for ever without one.
pub async fn until(moment: Option<Moment>) {
    // What the system's clock cannot show never comes.
    match moment.and_then(|moment| origin().checked_add(moment)) {
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
    async move { tokio::time::timeout_at((origin() + moment).into(), future).await.ok() }
}

/// Rests on the runtime.
pub async fn rest(duration: Duration) {
    tokio::time::sleep(duration).await;
}
