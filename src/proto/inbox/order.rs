//! What may come where in the stream of our own wire, and what is to be heard of it. Decides whether a
//! frame is legal where it stands; knows nothing of the bytes behind its header.

use std::collections::VecDeque;

use super::super::classic::HEADER;
use super::super::events::Fault;
use super::super::memory::NoMemory;
use super::super::options::Buffer;
use super::super::session::Incoming;
use super::super::wire::{self, Control, Goodbye, protocol};
use super::large::Coming;

/// The session's counters, and where its present link stands in the order of frames.
#[derive(Debug)]
pub struct Order {
    pub incoming: Incoming,
    /// Control frames that nobody has heard yet.
    pub heard: VecDeque<Control>,
    /// The first frame behind the greeting has come.
    pub has_begun: bool,
    /// CLOSE has come; nothing may follow.
    pub has_ended: bool,
}

/// One piece of a message that comes by and by.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// The message's length, where this piece is its first.
    pub begins: Option<usize>,
    /// Bytes that stand before the piece itself.
    pub head: usize,
    pub body: usize,
    pub is_last: bool,
}

impl Order {
    pub fn new(limits: Buffer) -> Self {
        Self { incoming: Incoming::new(limits), heard: VecDeque::new(), has_begun: false, has_ended: false }
    }

    /// Another link carries the frames from now on.
    pub fn begin_link(&mut self) {
        self.heard.clear();
        (self.has_begun, self.has_ended) = (false, false);
    }

    /// A message's header lies there.
    pub fn admit(&self) -> Result<(), Fault> {
        if !self.has_begun {
            return Err(protocol(String::from("the first frame is no ACK")));
        }
        if self.has_ended {
            return Err(protocol(String::from("a message behind CLOSE")));
        }
        self.incoming.admit()
    }

    /// A control frame's header lies there. ACK comes first, or the CLOSE of a link that never was.
    pub fn expect(&self, kind: u8) -> Result<(), Fault> {
        if self.has_begun || matches!(kind, wire::ACK | wire::CLOSE) {
            return Ok(());
        }
        Err(protocol(String::from("the first frame is no ACK")))
    }

    /// A PART of `body` bytes begins there, of which `bytes` have come; None while it cannot be judged.
    pub fn first_piece(&self, bytes: &[u8], body: usize, max_size: usize) -> Result<Option<Piece>, Fault> {
        not_empty(body)?;
        self.admit()?;
        let Some(body) = body.checked_sub(HEADER) else {
            return Err(protocol(String::from("the first PART has no room for the length")));
        };
        let Some(length) = bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = wire::message_length(u32::from_be_bytes(*length), max_size)?;
        if body > length {
            return Err(not_adding_up(body, length));
        }
        Ok(Some(Piece { begins: Some(length), head: 2 * HEADER, body, is_last: false }))
    }

    /// A whole control frame lies there, in the middle of a message or not.
    pub fn hear(&mut self, kind: u8, body: &[u8], is_within: bool) -> Result<(), Fault> {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        let control = wire::control(kind, body)?;
        match &control {
            Control::Close(goodbye) if is_first && !ends_at_once(goodbye) => {
                return Err(protocol(String::from("the first frame is no ACK")));
            }
            Control::Close(goodbye) if is_within && !ends_at_once(goodbye) => {
                return Err(protocol(String::from("CLOSE in the middle of a message")));
            }
            Control::Close(goodbye) => {
                self.has_ended = true;
                if !ends_at_once(goodbye) {
                    self.incoming.consume_all();
                }
            }
            Control::Ask => self.incoming.ask(),
            _ => {}
        }
        // A read can bring tens of thousands.
        self.heard.try_reserve(1).map_err(|_| NoMemory.fault(body.len()))?;
        self.heard.push_back(control);
        Ok(())
    }
}

impl Coming {
    /// A further PART begins, of `body` bytes.
    pub fn piece(self, body: usize) -> Result<Piece, Fault> {
        not_empty(body)?;
        let present = self.present + body;
        let piece = Piece { begins: None, head: HEADER, body, is_last: false };
        if present <= self.length { Ok(piece) } else { Err(not_adding_up(present, self.length)) }
    }

    /// The ordinary frame that ends it begins, of `body` bytes.
    pub fn last_piece(self, body: usize) -> Result<Piece, Fault> {
        let present = self.present + body;
        let piece = Piece { begins: None, head: HEADER, body, is_last: true };
        if present == self.length { Ok(piece) } else { Err(not_adding_up(present, self.length)) }
    }
}

fn not_empty(body: usize) -> Result<(), Fault> {
    if body == 0 { Err(protocol(String::from("an empty PART"))) } else { Ok(()) }
}

fn not_adding_up(present: usize, length: usize) -> Fault {
    protocol(format!("the pieces of a message of {length} bytes have {present}"))
}

/// A CLOSE that is not answered.
fn ends_at_once(goodbye: &Goodbye) -> bool {
    matches!(goodbye.code, wire::close::FAULT | wire::close::ABORTED | wire::close::VOID)
}
