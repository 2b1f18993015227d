//! Any settings: they are refused, or nothing that follows from them overflows, spins or is refused by a
//! peer.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use netasync::proto::backoff::Backoff;
use netasync::proto::hello::Hello;
use netasync::proto::options::{Buffer, Jitter, Policy, Protocol, Retry, Settings};
use netasync_fuzz::Choices;

fn number(choices: &mut Choices<'_>) -> f64 {
    f64::from_be_bytes(choices.array())
}

fn count(choices: &mut Choices<'_>) -> i64 {
    i64::from_be_bytes(choices.array())
}

fn settings(choices: &mut Choices<'_>) -> Option<Settings> {
    let policy = [Policy::Fixed, Policy::Dropping, Policy::Sliding][usize::from(choices.byte() % 3)];
    let jitter = if choices.byte() & 1 == 0 { Jitter::Full } else { Jitter::None };
    Some(Settings {
        heartbeat_interval: number(choices),
        heartbeat_timeout: (choices.byte() & 1 == 0).then(|| number(choices)),
        open_timeout: number(choices),
        close_timeout: number(choices),
        max_size: count(choices),
        read_buffer: Buffer::new(policy, count(choices), count(choices)).ok()?,
        write_buffer: Buffer::new(policy, count(choices), count(choices)).ok()?,
        reconnect: Some(Retry::new(number(choices), number(choices), number(choices), jitter).ok()?),
        protocol: if choices.byte() & 1 == 0 { Protocol::Native } else { Protocol::Classic },
        ..Settings::default()
    })
}

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let Some(settings) = settings(&mut choices) else { return };
    let Ok(options) = settings.check() else { return };
    assert!(options.heartbeat_timeout >= Duration::from_millis(100));
    assert!(options.heartbeat_timeout >= options.heartbeat_interval);
    assert!(options.open_timeout > Duration::ZERO && options.close_timeout > Duration::ZERO);
    let retry = options.reconnect.expect("it was given");
    let mut backoff = Backoff::new(retry, 1);
    for _ in 0..100 {
        assert!(backoff.wait() <= retry.maximum);
    }
    let hello = Hello::offer(&options, 1, options.read_buffer.max_bytes);
    let heard = Hello::decode(&hello.encode()[4..]);
    assert!(heard.is_ok_and(|heard| heard == hello), "no peer refuses what we took for sensible");
});
