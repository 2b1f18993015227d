//! Any bytes on our own wire, cut anyhow, are the same messages, control frames and fault, and never more
//! than the credit allows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netasync::proto::inbox::Inbox;
use netasync::proto::options::{Buffer, Protocol};
use netasync::proto::wire::{self, Control};
use netasync_fuzz::{Choices, pieces};

const MAX_SIZE: usize = 1000;

struct Outcome {
    messages: Vec<Vec<u8>>,
    controls: Vec<Control>,
    fault: Option<String>,
}

fn run(limits: Buffer, input: &[&[u8]]) -> Outcome {
    let mut inbox = Inbox::new(limits, MAX_SIZE, Protocol::Native);
    inbox.begin_session(1 << 20);
    for piece in input {
        inbox.feed(piece);
        if inbox.fault().is_none() {
            let most = limits.max_bytes + 2 * (MAX_SIZE as u64 + 64);
            // Beside messages at most one control frame waits to be whole.
            assert!(inbox.held_cost() <= most + 262_144 + piece.len() as u64);
        }
    }
    let (mut messages, mut controls) = (Vec::new(), Vec::new());
    while let Some(control) = inbox.next_heard() {
        controls.push(control);
    }
    let fault = inbox.fault().map(|fault| fault.detail.clone());
    while let Some(front) = inbox.front().map(<[u8]>::to_vec) {
        messages.push(front);
        inbox.pop();
    }
    Outcome { messages, controls, fault }
}

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let (cuts, limits) = (choices.array::<4>(), choices.buffer());
    let bytes = choices.rest();
    let (cut, whole) = (run(limits, &pieces(bytes, &cuts)), run(limits, &[bytes]));
    assert_eq!(cut.messages, whole.messages);
    assert_eq!(cut.controls, whole.controls);
    assert_eq!(cut.fault, whole.fault);
    assert!(limits.is_lossy() || whole.messages.len() <= limits.count, "credit bounds what waits");
    if let Some((kind, body)) = bytes.split_first() {
        // Whatever a body says, its words are short and can be shown.
        if let Ok(Control::Close(goodbye)) = wire::control(*kind, body) {
            assert!(goodbye.words.chars().count() <= 256 && !goodbye.words.chars().any(char::is_control));
        }
    }
});
