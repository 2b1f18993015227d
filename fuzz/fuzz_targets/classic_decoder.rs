//! Any bytes on the original's wire, cut anyhow, are the same messages and the same fault.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netasync::proto::inbox::Inbox;
use netasync::proto::options::{Buffer, Protocol};
use netasync_fuzz::{Choices, pieces};

const MAX_SIZE: usize = 1000;

/// Feeds all, taking whatever a full buffer holds up.
fn run(limits: Buffer, input: &[&[u8]]) -> (Vec<Vec<u8>>, bool, usize) {
    let mut inbox = Inbox::new(limits, MAX_SIZE, Protocol::Classic);
    let mut taken = Vec::new();
    for piece in input {
        inbox.feed(piece);
        while let Some(front) = inbox.front().map(<[u8]>::to_vec) {
            taken.push(front);
            inbox.pop();
        }
    }
    assert!(inbox.fault().is_some() || inbox.unfinished() < MAX_SIZE + 4);
    assert_eq!(inbox.received(), taken.len() as u64 + inbox.dropped());
    // What comes behind a fault is not kept: how much of it came with the fault depends on the cut.
    let unfinished = if inbox.fault().is_none() { inbox.unfinished() } else { 0 };
    (taken, inbox.fault().is_some(), unfinished)
}

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let (cuts, limits) = (choices.array::<4>(), choices.buffer());
    let bytes = choices.rest();
    let cut = run(limits, &pieces(bytes, &cuts));
    if !limits.is_lossy() {
        assert_eq!(cut, run(limits, &[bytes]));
    }
});
