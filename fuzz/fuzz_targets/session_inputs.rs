//! A whole end of a link, both halves, against a peer that says anything while our own application does
//! anything: the accounts balance, the memory is bounded, and what we write is legal.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use netasync::proto::Moment;
use netasync::proto::account::Stats;
use netasync::proto::control::After;
use netasync::proto::halves::{Opened, Receiver, Sender};
use netasync::proto::hello::Agreement;
use netasync::proto::options::{Options, Settings};
use netasync::proto::wire::{self, Goodbye, Numbers};
use netasync_fuzz::Choices;

const MAX_SIZE: usize = 300;

struct End {
    receiver: Receiver,
    sender: Sender,
    options: Options,
    now: Moment,
    is_up: bool,
    /// What was written on this link and is not yet a whole frame.
    wire: Vec<u8>,
    told: Numbers,
}

impl End {
    fn new(choices: &mut Choices<'_>) -> Self {
        let (read_buffer, write_buffer) = (choices.buffer(), choices.buffer());
        let settings = Settings { read_buffer, write_buffer, max_size: MAX_SIZE as i64, ..Settings::default() };
        let options = settings.check().expect("these make sense");
        let (receiver, sender) = (Receiver::new(&options, Moment::ZERO), Sender::new(&options, Moment::ZERO));
        let told = Numbers::default();
        Self { receiver, sender, options, now: Moment::ZERO, is_up: false, wire: Vec::new(), told }
    }

    fn link_up(&mut self, choices: &mut Choices<'_>) {
        let offered = self.receiver.first_credit();
        let agreement = Agreement {
            session: [1; 16],
            token: [2; 16],
            is_resumed: false,
            received: 0,
            offered,
            credit: u64::from(choices.byte()) * 16,
            max_messages: u64::from(choices.byte()) + 1,
            hold: u64::from(choices.byte()) * 16 + 1,
            max_size: usize::from(choices.byte()) + 1,
            heartbeat_timeout: Duration::from_millis(100 + u64::from(choices.byte())),
            has_dialled: choices.byte() & 1 == 0,
        };
        let first_by = Some(self.now + Duration::from_secs(1));
        self.receiver.link_up(&self.options, Opened { agreement: Some(&agreement), first_by, now: self.now });
        self.told = Numbers { consumed: 0, credit: offered };
        self.sender.link_up(Some(&agreement), self.now);
        self.wire.clear();
        self.is_up = true;
    }

    fn link_down(&mut self) {
        self.receiver.link_down();
        self.sender.link_down();
        self.is_up = false;
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.receiver.feed(bytes, self.sender.announced(), self.now);
        while let Some(control) = self.receiver.next_for_sender() {
            match self.sender.hear(&control, self.now) {
                Ok(true) => self.receiver.refund(),
                Ok(false) => {}
                Err(fault) => self.receiver.fail(fault),
            }
        }
        if self.receiver.must_tell(self.sender.announced()) {
            self.sender.ack();
        }
    }

    fn write(&mut self, most: usize) {
        if !self.sender.has_work() {
            return;
        }
        self.sender.compose(self.receiver.numbers());
        let bytes = self.sender.parts().concat();
        assert!(!bytes.is_empty(), "where there is work there is something to write");
        let taken = bytes.len().min(most);
        if taken > 0 {
            self.sender.wrote(taken, self.now);
        }
        self.wire.extend_from_slice(&bytes[..taken]);
        self.read_back();
    }

    /// What went out is whole frames, and the numbers in them never go backwards.
    fn read_back(&mut self) {
        while let Some(frame) = wire::header(&self.wire, MAX_SIZE).expect("what we write is legal") {
            let (kind, length) = match frame {
                wire::Frame::Message(length) => (None, length),
                wire::Frame::Control { kind, length } => (Some(kind), length),
            };
            let Some(body) = self.wire.get(4..4 + length) else { return };
            let control = kind.map(|kind| wire::control(kind, body).expect("what we write is legal"));
            if let Some(
                wire::Control::Ack(numbers) | wire::Control::Ping { numbers, .. } | wire::Control::Pong { numbers, .. },
            ) = control
            {
                assert!(numbers.consumed >= self.told.consumed && numbers.credit >= self.told.credit);
                self.told = numbers;
            }
            self.wire.drain(..4 + length);
        }
    }

    fn check(&self) {
        let mut stats = Stats::default();
        self.receiver.account(&mut stats);
        self.sender.account(&mut stats);
        assert!(stats.balances(), "{stats:?}");
        let (read, write) = (self.options.read_buffer.max_bytes, self.options.write_buffer.max_bytes);
        let largest = MAX_SIZE as u64 + 64;
        assert!(self.sender.held_bytes() as u64 <= 2 * (write + largest));
        if self.receiver.fault().is_none() {
            // The peer may be in the middle of a control frame, of which any length is read.
            assert!(self.receiver.held_cost() <= read + 2 * largest + 262_144 + 255);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let mut end = End::new(&mut choices);
    while !choices.is_over() {
        let argument = usize::from(choices.byte());
        match choices.byte() % 14 {
            0 | 1 if end.is_up => end.feed(choices.piece(argument)),
            2 if end.is_up => {
                let numbers = Numbers { consumed: argument as u64 % 4, credit: u64::from(choices.byte()) * 32 };
                let mut frame = Vec::new();
                wire::encode_ack(numbers, &mut frame);
                end.feed(&frame);
            }
            3 if end.is_up => {
                let mut frame = vec![0, 0, 0, argument as u8];
                frame.resize(4 + argument, 7);
                end.feed(&frame);
            }
            4 | 5 if end.is_up => end.write(argument * 2),
            6 if end.is_up => end.link_down(),
            7 => end.sender.ask(),
            8 => end.sender.ping(),
            9 => {
                let after = if argument & 1 == 0 { After::Everything } else { After::WhatMayBegin };
                let words = String::from("over");
                end.sender.close(Goodbye { code: argument as u16 % 6, words }, after);
            }
            10 if argument > 250 => end.receiver.close(),
            10 if argument > 245 => end.receiver.discard_arrivals(),
            10 | 11 if end.receiver.front().is_some() => end.receiver.pop(),
            10 | 11 => {}
            12 => {
                end.now += Duration::from_millis(argument as u64);
                end.receiver.note_untold(end.sender.announced(), end.now, || end.now);
                end.receiver.judge(end.now);
                end.sender.judge(end.now);
            }
            _ if !end.is_up => end.link_up(&mut choices),
            _ => {
                if argument <= end.sender.max_size() {
                    end.sender.push(&vec![argument as u8; argument]);
                }
            }
        }
        end.check();
    }
});
