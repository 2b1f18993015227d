//! What may go wrong only in some order of steps: the code of a link, as it is, on locks, atomics, sockets and a
//! clock that belong to shuttle's scheduler, which runs each of these tests in thousands of orders.
//! `cargo test --features races --lib races`, or `make test-races`.
//!
//! Time stands still, so a wake that was lost is not made up for by a tick of the supervisor: everybody sleeps then,
//! which is a deadlock and fails. A failure prints the seed and the schedule, with which `shuttle::replay` runs it
//! again. `NETASYNC_SOAK=1` tries twenty times as many orders.

mod cancelling;
mod draining;
mod ending;
mod handing;
mod leading;
mod looped;
mod selecting;
mod threads;
mod waking;
mod world;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, MaxSteps, Runner};

/// Runs `story` in so many orders: half of them at random, half with few but unlikely changes of thread.
fn in_orders(count: usize, story: impl Fn() + Send + Sync + 'static) {
    let story = std::sync::Arc::new(story);
    let count = if std::env::var_os("NETASYNC_SOAK").is_some() { count * 20 } else { count };
    let seed = getrandom::u64().expect("the system has a source");
    let mut config = Config::new();
    config.silence_warnings = true;
    config.stack_size = 256 * 1024;
    config.max_steps = MaxSteps::FailAfter(100_000);
    println!("seed {seed}");
    let told = std::sync::Arc::clone(&story);
    Runner::new(RandomScheduler::new_from_seed(seed, count / 2), config.clone()).run(move || told());
    for depth in [2, 4] {
        let told = std::sync::Arc::clone(&story);
        Runner::new(PctScheduler::new_from_seed(seed, depth, count / 4), config.clone()).run(move || told());
    }
}
