//! Messages as they lie in the zones of the outbox, which is as they go over the wire.

use bytes::BytesMut;

use super::classic::{HEADER, encode_header};
use super::cost;
use super::wire;

/// The peer takes no message above `max_size`: takes those out, and says which and of what cost.
pub fn drop_larger_than(frames: &mut BytesMut, max_size: usize) -> (Vec<u64>, u64) {
    let (mut at, mut index, mut large, mut sum) = (0, 0, Vec::new(), 0_u64);
    let mut kept = BytesMut::new();
    while let Some(frame) = frame_at(frames, at) {
        if frame.length > max_size {
            if large.is_empty() {
                kept.extend_from_slice(frames.get(..at).unwrap_or_default());
            }
            large.push(index);
            sum = sum.saturating_add(frame.cost());
        } else if !large.is_empty() {
            kept.extend_from_slice(frames.get(at..at + frame.bytes).unwrap_or_default());
        }
        at += frame.bytes;
        index += 1;
    }
    if !large.is_empty() {
        *frames = kept;
    }
    (large, sum)
}

/// A message as it lies in a zone and goes over the wire, headers included.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    pub bytes: usize,
    pub length: usize,
    /// One that travels in PARTs: the bytes of each but the last frame.
    pub piece: Option<usize>,
}

impl Frame {
    pub fn cost(&self) -> u64 {
        cost(self.length)
    }
}

/// The message that begins at `at`.
pub fn frame_at(frames: &[u8], at: usize) -> Option<Frame> {
    let frames = frames.get(at..)?;
    let word = |at: usize| frames.get(at..)?.first_chunk::<HEADER>().map(|word| u32::from_be_bytes(*word));
    let size = |word: u32| usize::try_from(word).ok();
    let header = word(0)?;
    let Some(part) = wire::part_length(header) else {
        let length = size(header)?;
        return Some(Frame { bytes: HEADER + length, length, piece: None });
    };
    let length = size(word(HEADER)?)?;
    // The length stands in front; the last frame is an ordinary one, and never empty.
    let frames = (HEADER + length).div_ceil(part);
    Some(Frame { bytes: HEADER + length + frames * HEADER, length, piece: Some(HEADER + part) })
}

/// Appends a message as PARTs of `part` bytes and a last frame.
pub fn encode_parts(payload: &[u8], part: usize, into: &mut BytesMut) {
    into.reserve(payload.len() + HEADER * (payload.len() / part + 3));
    let (first, mut rest) = payload.split_at(part - HEADER);
    into.extend_from_slice(&wire::part_header(part));
    into.extend_from_slice(&encode_header(payload.len()));
    into.extend_from_slice(first);
    while let Some((piece, behind)) = rest.split_at_checked(part).filter(|(_, behind)| !behind.is_empty()) {
        into.extend_from_slice(&wire::part_header(part));
        into.extend_from_slice(piece);
        rest = behind;
    }
    into.extend_from_slice(&encode_header(rest.len()));
    into.extend_from_slice(rest);
}
