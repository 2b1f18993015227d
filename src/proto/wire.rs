//! Our own wire, `netasync/1` (`wire.md` §2): the same 4-byte header as the original's, with bit 31 for
//! control frames. Encodes and decodes single frames; what a frame means is decided elsewhere.
//!
//! 1. `a_header_is_judged_before_anything_is_allocated`
//! 2. `text_and_tls_are_refused_by_the_fourth_byte`
//! 3. `a_longer_body_is_read_and_a_shorter_one_is_not`

use super::classic::{HARD_MAX_SIZE, HEADER};
use super::events::{Fault, Reason};

pub const HELLO: u8 = 0x01;
pub const PING: u8 = 0x02;
pub const PONG: u8 = 0x03;
pub const ACK: u8 = 0x04;
pub const PART: u8 = 0x05;
pub const CLOSE: u8 = 0x06;
pub const REFUSE: u8 = 0x07;
pub const ASK: u8 = 0x08;
pub const MOVE: u8 = 0x09;

/// Types from here on may be skipped by a peer that does not know them.
const SKIPPABLE: u8 = 0x40;
const MAX_BODY: usize = 65_535;
/// A longer message travels in pieces of this size.
pub const MAX_PART: usize = 256 * 1024;
/// Of a peer's text no more is shown.
const MAX_TEXT: usize = 256;
const CONTROL_BIT: u8 = 0x80;

/// What the first four bytes of a frame announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    Message(usize),
    Control { kind: u8, length: usize },
}

/// The two counters that ACK, PING and PONG carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The number of the next message that the application has not taken.
    pub consumed: u64,
    /// The total cost that the peer may have begun.
    pub credit: u64,
}

/// A control frame behind the greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    Ping { nonce: u64, numbers: Numbers },
    Pong { nonce: u64, numbers: Numbers },
    Ack(Numbers),
    Ask,
    Close(Goodbye),
    Move,
    Skipped,
}

/// What CLOSE and REFUSE say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goodbye {
    pub code: u16,
    pub words: String,
}

/// What REFUSE says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub goodbye: Goodbye,
    /// Of a session that is over: what its application has taken.
    pub consumed: Option<u64>,
}

/// The codes of CLOSE. Unknown ones read as `LEAVING`.
pub mod close {
    pub const DONE: u16 = 0;
    pub const LEAVING: u16 = 1;
    pub const FAULT: u16 = 2;
    pub const ABORTED: u16 = 3;
    pub const BUSY: u16 = 4;
    pub const VOID: u16 = 5;
}

/// The codes of REFUSE.
pub mod refuse {
    pub const VERSION: u16 = 1;
    pub const MALFORMED: u16 = 2;
    pub const TOKEN: u16 = 3;
    pub const BUSY: u16 = 4;
    pub const LEAVING: u16 = 5;
    pub const CLOSED: u16 = 6;
    pub const SETTINGS: u16 = 7;
    pub const IDENTITY: u16 = 8;
}

/// Reads the header at the start of `bytes`; None while fewer than four bytes are there.
///
/// # Errors
/// A length or a type that cannot be is `PROTOCOL`, a message above `max_size` is `TOO_LARGE`.
pub fn header(bytes: &[u8], max_size: usize) -> Result<Option<Frame>, Fault> {
    let Some(&[first, high, middle, low]) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = |top: u8| usize::try_from(u32::from_be_bytes([top, high, middle, low])).unwrap_or(usize::MAX);
    if first & CONTROL_BIT != 0 {
        return control_header(first & !CONTROL_BIT, length(0)).map(Some);
    }
    let announced = u32::from_be_bytes([first, high, middle, low]);
    if length(first) > HARD_MAX_SIZE {
        return Err(protocol(format!("a frame announced {announced} bytes, no message has more than {HARD_MAX_SIZE}")));
    }
    message_length(announced, max_size).map(Frame::Message).map(Some)
}

/// The length of a message, as its header or its first PART announces it.
///
/// # Errors
/// `TOO_LARGE` above `max_size`.
pub fn message_length(announced: u32, max_size: usize) -> Result<usize, Fault> {
    let length = usize::try_from(announced).unwrap_or(usize::MAX);
    if length > max_size {
        let detail = format!("a frame announced {length} bytes, max_size is {max_size}");
        return Err(Fault { reason: Reason::TooLarge, detail });
    }
    Ok(length)
}

fn control_header(kind: u8, length: usize) -> Result<Frame, Fault> {
    let is_known = (HELLO..=MOVE).contains(&kind) || kind >= SKIPPABLE;
    if !is_known {
        return Err(protocol(format!("a frame of the unknown type {kind:#04x}")));
    }
    let most = if kind == PART { MAX_PART } else { MAX_BODY };
    if length > most {
        return Err(protocol(format!("a control frame announced {length} bytes, at most {most} are legal")));
    }
    Ok(Frame::Control { kind, length })
}

/// Reads the body of a control frame.
///
/// # Errors
/// `PROTOCOL` when it is too short, or out of its place behind the greeting.
pub fn control(kind: u8, body: &[u8]) -> Result<Control, Fault> {
    match kind {
        PING => Ok(Control::Ping { nonce: word(body, 0)?, numbers: numbers(body, 8)? }),
        PONG => Ok(Control::Pong { nonce: word(body, 0)?, numbers: numbers(body, 8)? }),
        ACK => Ok(Control::Ack(numbers(body, 0)?)),
        ASK => Ok(Control::Ask),
        CLOSE => goodbye(body).map(Control::Close),
        MOVE if body.len() < 4 => Err(too_short()),
        MOVE => Ok(Control::Move),
        HELLO => Err(protocol(String::from("a second HELLO"))),
        REFUSE => Err(protocol(String::from("REFUSE behind HELLO"))),
        PART => Err(protocol(String::from("PART is no frame by itself"))),
        _ => Ok(Control::Skipped),
    }
}

/// Reads the body of REFUSE. One whose session is over says first what was consumed of it; where that is missing
/// it is over all the same.
///
/// # Errors
/// `PROTOCOL` when not even the code is there.
pub fn refusal(body: &[u8]) -> Result<Refusal, Fault> {
    let goodbye = goodbye(body)?;
    if goodbye.code != refuse::CLOSED {
        return Ok(Refusal { goodbye, consumed: None });
    }
    let consumed = word(body, 2).ok();
    let words = text(body.get(10..).unwrap_or_default());
    Ok(Refusal { goodbye: Goodbye { words, ..goodbye }, consumed })
}

/// Reads the body of CLOSE.
///
/// # Errors
/// `PROTOCOL` when not even the code is there.
pub fn goodbye(body: &[u8]) -> Result<Goodbye, Fault> {
    let Some((code, words)) = body.split_first_chunk::<2>() else {
        return Err(too_short());
    };
    Ok(Goodbye { code: u16::from_be_bytes(*code), words: text(words) })
}

pub fn encode_ping(nonce: u64, numbers: Numbers, into: &mut Vec<u8>) {
    encode(PING, &[&nonce.to_be_bytes(), &numbers_body(numbers)], into);
}

pub fn encode_pong(nonce: u64, numbers: Numbers, into: &mut Vec<u8>) {
    encode(PONG, &[&nonce.to_be_bytes(), &numbers_body(numbers)], into);
}

pub fn encode_ack(numbers: Numbers, into: &mut Vec<u8>) {
    encode(ACK, &[&numbers_body(numbers)], into);
}

pub fn encode_ask(into: &mut Vec<u8>) {
    encode(ASK, &[], into);
}

pub fn encode_close(goodbye: &Goodbye, into: &mut Vec<u8>) {
    encode(CLOSE, &[&goodbye.code.to_be_bytes(), goodbye.words.as_bytes()], into);
}

pub fn encode_refuse(goodbye: &Goodbye, into: &mut Vec<u8>) {
    encode(REFUSE, &[&goodbye.code.to_be_bytes(), goodbye.words.as_bytes()], into);
}

/// A session is over, of which so many messages were `consumed`.
pub fn encode_refuse_closed(consumed: u64, words: &str, into: &mut Vec<u8>) {
    encode(REFUSE, &[&refuse::CLOSED.to_be_bytes(), &consumed.to_be_bytes(), words.as_bytes()], into);
}

/// The header of a PART of at most `MAX_PART` bytes.
pub fn part_header(length: usize) -> [u8; HEADER] {
    let [_, high, middle, low] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [CONTROL_BIT | PART, high, middle, low]
}

/// The length of the PART that has this header, if it is one.
pub fn part_length(header: u32) -> Option<usize> {
    let [kind, high, middle, low] = header.to_be_bytes();
    let length = usize::try_from(u32::from_be_bytes([0, high, middle, low])).ok();
    length.filter(|_| kind == CONTROL_BIT | PART)
}

/// Appends a control frame.
pub fn encode(kind: u8, body: &[&[u8]], into: &mut Vec<u8>) {
    let length: usize = body.iter().map(|part| part.len()).sum();
    let [_, high, middle, low] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    into.extend([CONTROL_BIT | kind, high, middle, low]);
    into.extend(body.iter().copied().flatten());
}

/// The fault of a peer that broke the rules of this wire.
pub fn protocol(detail: String) -> Fault {
    Fault { reason: Reason::Protocol, detail }
}

fn too_short() -> Fault {
    protocol(String::from("a control frame is shorter than its fields"))
}

fn word(body: &[u8], at: usize) -> Result<u64, Fault> {
    let bytes = body.get(at..).and_then(|rest| rest.first_chunk::<8>());
    bytes.map(|bytes| u64::from_be_bytes(*bytes)).ok_or_else(too_short)
}

fn numbers(body: &[u8], at: usize) -> Result<Numbers, Fault> {
    Ok(Numbers { consumed: word(body, at)?, credit: word(body, at + 8)? })
}

fn numbers_body(Numbers { consumed, credit }: Numbers) -> [u8; 16] {
    (u128::from(consumed) << 64 | u128::from(credit)).to_be_bytes()
}

/// A peer's words, cut and cleaned.
fn text(bytes: &[u8]) -> String {
    let shown = bytes.get(..MAX_TEXT).unwrap_or(bytes);
    let clean = |letter: char| if letter.is_control() { ' ' } else { letter };
    String::from_utf8_lossy(shown).chars().map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: Numbers = Numbers { consumed: 0x0102_0304_0506_0708, credit: 9 };

    fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        bytes
    }

    fn decoded(bytes: &[u8]) -> Result<Control, Fault> {
        match header(bytes, 10)?.unwrap() {
            Frame::Control { kind, length } => {
                assert_eq!(bytes.len(), HEADER + length);
                control(kind, &bytes[HEADER..])
            }
            Frame::Message(_) => panic!("no control frame"),
        }
    }

    #[test]
    fn a_header_is_judged_before_anything_is_allocated() {
        assert_eq!(header(&[0, 0, 0], 10), Ok(None));
        assert_eq!(header(&[0, 0, 0, 0], 10), Ok(Some(Frame::Message(0))));
        assert_eq!(header(&[0, 0, 0, 10], 10), Ok(Some(Frame::Message(10))));
        assert_eq!(header(&[0, 0, 0, 11], 10).unwrap_err().reason, Reason::TooLarge);
        assert_eq!(header(&[0x84, 0, 0, 16], 10), Ok(Some(Frame::Control { kind: ACK, length: 16 })));
        assert_eq!(header(&[0x84, 1, 0, 0], 10).unwrap_err().reason, Reason::Protocol);
        assert_eq!(header(&[0x85, 4, 0, 0], 10), Ok(Some(Frame::Control { kind: PART, length: MAX_PART })));
        assert_eq!(header(&[0x85, 4, 0, 1], 10).unwrap_err().reason, Reason::Protocol);
    }

    #[test]
    fn text_and_tls_are_refused_by_the_fourth_byte() {
        for first in 0x08..=0x7f_u8 {
            assert_eq!(header(&[first, 0, 0, 0], HARD_MAX_SIZE).unwrap_err().reason, Reason::Protocol);
        }
    }

    #[test]
    fn unknown_types_are_skipped_from_0x40_on_and_illegal_below() {
        for kind in 0..=0x7f_u8 {
            let frame = encoded(|into| encode(kind, &[&[0; 24]], into));
            let outcome = decoded(&frame);
            match kind {
                PING | PONG | ACK | CLOSE | ASK | MOVE => assert!(outcome.is_ok(), "{kind}"),
                SKIPPABLE.. => assert_eq!(outcome, Ok(Control::Skipped)),
                _ => assert_eq!(outcome.unwrap_err().reason, Reason::Protocol, "{kind}"),
            }
        }
    }

    #[test]
    fn each_frame_is_its_encodings_inverse() {
        let goodbye = Goodbye { code: 4, words: String::from("später") };
        let ping = encoded(|into| encode_ping(7, NUMBERS, into));
        assert_eq!(ping[..5], [0x82, 0, 0, 24, 0]);
        assert_eq!(decoded(&ping), Ok(Control::Ping { nonce: 7, numbers: NUMBERS }));
        let pong = encoded(|into| encode_pong(8, NUMBERS, into));
        assert_eq!(decoded(&pong), Ok(Control::Pong { nonce: 8, numbers: NUMBERS }));
        assert_eq!(decoded(&encoded(|into| encode_ack(NUMBERS, into))), Ok(Control::Ack(NUMBERS)));
        assert_eq!(decoded(&encoded(encode_ask)), Ok(Control::Ask));
        assert_eq!(decoded(&encoded(|into| encode_close(&goodbye, into))), Ok(Control::Close(goodbye)));
    }

    #[test]
    fn a_longer_body_is_read_and_a_shorter_one_is_not() {
        let longer = encoded(|into| encode(ACK, &[&numbers_body(NUMBERS), &[1, 2, 3]], into));
        assert_eq!(decoded(&longer), Ok(Control::Ack(NUMBERS)));
        for (kind, length) in [(ACK, 15), (PING, 23), (PONG, 23), (CLOSE, 1), (MOVE, 3)] {
            let shorter = encoded(|into| encode(kind, &[&vec![0; length]], into));
            assert_eq!(decoded(&shorter).unwrap_err().reason, Reason::Protocol);
        }
    }

    #[test]
    fn a_peers_words_are_cut_and_cleaned() {
        let bytes = [&b"a\xff\nb"[..], &[b'x'; 1000]].concat();
        let shown = text(&bytes);
        assert!(shown.starts_with("a\u{fffd} bxx"), "{shown}");
        assert!(shown.chars().count() <= MAX_TEXT);
    }
}
