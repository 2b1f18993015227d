//! What an end really handed to the network on one link, read by somebody who believes no counter of
//! the end's own: the order of the frames, what the peer was told, and which messages were begun.

use netasync::proto::classic::{self, HEADER};
use netasync::proto::options::Protocol;
use netasync::proto::wire::{self, Control, Numbers};

use crate::application::identify;

#[derive(Debug)]
pub struct Tap {
    protocol: Protocol,
    bytes: Vec<u8>,
    /// The numbers of the last frame that carries some.
    pub told: Numbers,
    /// Messages that were handed over whole, by their number.
    pub messages: Vec<u32>,
    frames: u64,
    /// The last frame was an ACK.
    is_behind_ack: bool,
    /// What has gone out of a message in PARTs, and its length.
    parts: Option<(usize, Vec<u8>)>,
    pub has_closed: bool,
}

impl Tap {
    /// `told`: what the greeting has said.
    pub fn new(protocol: Protocol, told: Numbers) -> Self {
        let (bytes, messages) = (Vec::new(), Vec::new());
        Self { protocol, bytes, told, messages, frames: 0, is_behind_ack: false, parts: None, has_closed: false }
    }

    pub fn took(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(length) = self.frame(at) {
            at += HEADER + length;
        }
        self.bytes.drain(..at);
    }

    /// Whether a frame is half written.
    pub fn is_in_frame(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Reads the frame at `at`; its length, if it is whole.
    fn frame(&mut self, at: usize) -> Option<usize> {
        let most = classic::HARD_MAX_SIZE;
        if self.protocol == Protocol::Classic {
            let length = match classic::header(&self.bytes[at..], most).unwrap()? {
                classic::Frame::Heartbeat => 0,
                classic::Frame::Message(length) => length,
            };
            let payload = self.bytes.get(at + HEADER..at + HEADER + length)?;
            if length > 0 {
                self.messages.push(identify(payload).1);
            }
            return Some(length);
        }
        match wire::header(&self.bytes[at..], most).unwrap()? {
            wire::Frame::Message(length) => {
                let payload = self.bytes.get(at + HEADER..at + HEADER + length)?;
                let number = match self.parts.take() {
                    None => identify(payload).1,
                    Some((whole, mut before)) => {
                        before.extend(payload);
                        assert_eq!(before.len(), whole, "PARTs and the last frame add up");
                        identify(&before).1
                    }
                };
                assert!(self.frames > 1, "ACK and PING come first");
                assert!(!self.has_closed, "nothing follows CLOSE");
                self.messages.push(number);
                self.is_behind_ack = false;
                self.frames += 1;
                Some(length)
            }
            wire::Frame::Control { kind: wire::PART, length } => {
                let body = self.bytes.get(at + HEADER..at + HEADER + length)?;
                assert!(!self.has_closed && !body.is_empty());
                match &mut self.parts {
                    Some((_, before)) => before.extend(body),
                    None => {
                        let whole = u32::from_be_bytes(body[..4].try_into().unwrap());
                        self.parts = Some((usize::try_from(whole).unwrap(), body[4..].to_vec()));
                    }
                }
                self.is_behind_ack = false;
                Some(length)
            }
            wire::Frame::Control { kind, length } => {
                let body = self.bytes.get(at + HEADER..at + HEADER + length)?.to_vec();
                self.control(&wire::control(kind, &body).unwrap());
                Some(length)
            }
        }
    }

    fn control(&mut self, control: &Control) {
        match control {
            Control::Ack(numbers) | Control::Ping { numbers, .. } | Control::Pong { numbers, .. } => {
                let is_forward = numbers.consumed >= self.told.consumed && numbers.credit >= self.told.credit;
                assert!(is_forward, "{numbers:?} behind {:?}", self.told);
                self.told = *numbers;
            }
            Control::Close(goodbye) => {
                let may_cut = matches!(goodbye.code, wire::close::FAULT | wire::close::ABORTED | wire::close::VOID);
                assert!(self.parts.is_none() || may_cut, "a goodbye in the middle of a message");
                let needs_account = !matches!(goodbye.code, wire::close::FAULT | wire::close::VOID);
                assert!(self.is_behind_ack || !needs_account, "an ACK stands directly in front of CLOSE");
                assert!(!self.has_closed, "CLOSE is said once");
                self.has_closed = true;
            }
            Control::Ask | Control::Move | Control::Skipped => {}
        }
        match (self.frames, control) {
            (0, Control::Ack(_) | Control::Close(_)) => {}
            (0, _) => panic!("{control:?} is the first frame"),
            _ => {}
        }
        self.is_behind_ack = matches!(control, Control::Ack(_));
        self.frames += 1;
    }
}
