//! The clock of `races`: it stands still unless a test has it go on, so nothing that is found lost was only late.

use std::future::poll_fn;
use std::sync::Mutex;
use std::task::{Poll, Waker};
use std::time::Duration;

#[cfg(test)]
use super::net;
use crate::proto::Moment;

struct Clock {
    now: Mutex<Moment>,
    timers: Mutex<Vec<(Moment, Waker)>>,
}

shuttle::lazy_static! {
    static ref CLOCK: Clock = Clock { now: Mutex::new(Duration::from_secs(1)), timers: Mutex::default() };
}

pub fn now() -> Moment {
    *CLOCK.now.lock().expect("nothing panics while it is held")
}

/// Time passes.
#[cfg(test)]
pub(super) fn pass(duration: Duration) {
    let now = now() + duration;
    *CLOCK.now.lock().expect("nothing panics while it is held") = now;
    let due: Vec<_> = {
        let mut timers = CLOCK.timers.lock().expect("nothing panics while it is held");
        timers.extract_if(.., |(until, _)| *until <= now).collect()
    };
    due.into_iter().for_each(|(_, waker)| waker.wake());
    net::stir();
}

pub async fn until(moment: Option<Moment>) {
    poll_fn(|context| {
        let Some(moment) = moment else { return Poll::Pending };
        if now() >= moment {
            return Poll::Ready(());
        }
        let mut timers = CLOCK.timers.lock().expect("nothing panics while it is held");
        timers.push((moment, context.waker().clone()));
        Poll::Pending
    })
    .await;
}

pub async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    before(now().saturating_add(limit), future).await
}

pub async fn before<F: Future>(moment: Moment, future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = until(Some(moment)) => None,
    }
}

pub async fn rest(duration: Duration) {
    until(Some(now().saturating_add(duration))).await;
}
