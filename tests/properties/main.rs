//! The buffers, the numbers of a session and the values against plain models, on whatever proptest can
//! think of.
#![allow(clippy::unwrap_used)]

mod again;
mod begun;
mod inbox;
mod outbox;
mod session;
mod values;

use std::collections::VecDeque;
use std::time::Duration;

use netasync::proto::classic::{HEADER, encode_header};
use netasync::proto::cost;
use netasync::proto::hello::Agreement;
use netasync::proto::options::{Buffer, Options, Policy, Protocol, Settings};
use proptest::prelude::*;

pub const POLICIES: [Policy; 3] = [Policy::Fixed, Policy::Dropping, Policy::Sliding];

pub fn limits() -> impl Strategy<Value = Buffer> {
    let policy = prop::sample::select(&POLICIES[..]);
    (policy, 1..8usize, prop::sample::select(vec![65, 150, 400, 1 << 20]))
        .prop_map(|(policy, count, max_bytes)| Buffer { policy, count, max_bytes })
}

pub fn options(buffer: Buffer) -> Options {
    let settings =
        Settings { read_buffer: buffer, write_buffer: buffer, protocol: Protocol::Classic, ..Settings::default() };
    settings.check().unwrap()
}

pub fn frame(payload: &[u8]) -> Vec<u8> {
    [&encode_header(payload.len())[..], payload].concat()
}

pub fn total(messages: &VecDeque<Vec<u8>>) -> u64 {
    messages.iter().map(|message| cost(message.len())).sum()
}

/// What a buffer is, without a byte of cleverness.
#[derive(Debug)]
pub struct Model {
    pub limits: Buffer,
    pub waiting: VecDeque<Vec<u8>>,
    pub dropped: u64,
}

impl Model {
    pub fn new(limits: Buffer) -> Self {
        Self { limits, waiting: VecDeque::new(), dropped: 0 }
    }

    pub fn has_room(&self) -> bool {
        self.limits.has_room(self.waiting.len(), total(&self.waiting))
    }
}

/// What a peer's greeting might have said.
pub fn agreement(credit: u64, max_messages: u64, max_size: usize) -> Agreement {
    let heartbeat_timeout = Duration::from_secs(1);
    let (session, hold) = ([1; 16], 1 << 20);
    Agreement {
        session,
        token: session,
        is_resumed: false,
        received: 0,
        credit,
        offered: 0,
        max_messages,
        hold,
        max_size,
        heartbeat_timeout,
        has_dialled: true,
    }
}

/// What a peer makes of the bytes that one link carried.
pub fn parse(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some(header) = bytes.first_chunk::<HEADER>() {
        let length = usize::try_from(u32::from_be_bytes(*header)).unwrap();
        let Some(payload) = bytes.get(HEADER..HEADER + length) else {
            break;
        };
        messages.push(payload.to_vec());
        bytes = &bytes[HEADER + length..];
    }
    messages
}
