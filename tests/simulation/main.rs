//! Two ends of one connection on virtual time and a faulty network: what ships, run through hundreds of
//! lives that no machine could arrange. `NETASYNC_SEEDS=n` runs n of them, `NETASYNC_SEED=s` that one.
#![allow(clippy::unwrap_used)]

mod application;
mod arrange;
mod bounds;
mod claims;
mod end;
mod farewell;
mod goodbye;
mod grammar;
mod greeting;
mod names;
mod native;
mod network;
mod oracle;
mod original;
mod outages;
mod plan;
mod random;
mod sessions;
mod system;
mod table;
mod tap;
mod traffic;
mod world;

use std::ops::Range;

const SEEDS: u64 = 1000;

#[test]
fn every_seed_keeps_every_promise() {
    on_every_seed("every_seed", plan::run);
}

/// As many runs as the environment asks for, or the usual number, over all cores.
fn on_every_seed(test: &'static str, run: impl Fn(u64) + Sync) {
    let run_all = &|seeds: Range<u64>| {
        for seed in seeds {
            let told = Told { seed, test };
            run(seed);
            std::mem::forget(told);
        }
    };
    if let Some(seed) = number("NETASYNC_SEED") {
        return run_all(seed..seed + 1);
    }
    let seeds = number("NETASYNC_SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    std::thread::scope(|scope| {
        for part in 0..threads {
            scope.spawn(move || run_all(seeds * part / threads..seeds * (part + 1) / threads));
        }
    });
}

/// Says which seed failed.
struct Told {
    seed: u64,
    test: &'static str,
}

impl Drop for Told {
    fn drop(&mut self) {
        let Self { seed, test } = self;
        eprintln!("NETASYNC_SEED={seed} cargo test --no-default-features --test simulation {test}");
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number of seeds, or a seed"))
}
