//! The original's wire, `net.async` (`wire.md` §1): a frame is a 4-byte signed big-endian length and
//! that many bytes; length 0 is a heartbeat. No greeting, no goodbye, no identity.
//!
//! 1. `a_length_is_judged_before_anything_is_allocated`
//! 2. `a_negative_length_is_a_protocol_error`

use super::events::{Fault, Reason};

/// Bytes of a frame before its payload.
pub const HEADER: usize = 4;
/// The whole of a heartbeat.
pub const HEARTBEAT: [u8; HEADER] = [0; HEADER];
/// No message is longer, whatever `max_size` says: 2^27 − 1.
pub const HARD_MAX_SIZE: usize = (1 << 27) - 1;

/// What the first four bytes of a frame announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    Heartbeat,
    /// A message of this many bytes, at least 1 and at most `max_size`.
    Message(usize),
}

/// Reads the header at the start of `bytes`; None while fewer than four bytes are there.
///
/// # Errors
/// A negative length is `PROTOCOL`, one above `max_size` is `TOO_LARGE`.
pub fn header(bytes: &[u8], max_size: usize) -> Result<Option<Frame>, Fault> {
    let Some(first) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let announced = i32::from_be_bytes(*first);
    let Ok(length) = usize::try_from(announced) else {
        return Err(Fault { reason: Reason::Protocol, detail: format!("a frame announced the length {announced}") });
    };
    if length > max_size {
        let detail = format!("a frame announced {length} bytes, max_size is {max_size}");
        return Err(Fault { reason: Reason::TooLarge, detail });
    }
    Ok(Some(if length == 0 { Frame::Heartbeat } else { Frame::Message(length) }))
}

/// The header of a message of `length` bytes, which the caller has held against `max_size`.
pub fn encode_header(length: usize) -> [u8; HEADER] {
    u32::try_from(length).expect("a message was held against max_size, at most 2^27 - 1").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_judged_before_anything_is_allocated() {
        assert_eq!(header(&[0, 0, 0], 10), Ok(None));
        assert_eq!(header(&[0, 0, 0, 10], 10), Ok(Some(Frame::Message(10))));
        assert_eq!(header(&[0, 0, 0, 11], 10).unwrap_err().reason, Reason::TooLarge);
        assert_eq!(header(b"GET / HTTP/1.1", HARD_MAX_SIZE).unwrap_err().reason, Reason::TooLarge);
    }

    #[test]
    fn a_negative_length_is_a_protocol_error() {
        for first in 0x80..=0xff_u8 {
            assert_eq!(header(&[first, 1, 2, 3], 10).unwrap_err().reason, Reason::Protocol);
        }
    }

    #[test]
    fn header_and_length_are_each_others_inverse() {
        for length in [1, 255, 256, 65_536, HARD_MAX_SIZE] {
            assert_eq!(header(&encode_header(length), HARD_MAX_SIZE), Ok(Some(Frame::Message(length))));
        }
        assert_eq!(header(&HEARTBEAT, 1), Ok(Some(Frame::Heartbeat)));
    }
}
