//! Messages as they lie in the zones of the outbox, which is as they go over the wire: in one stretch of
//! memory, so that to begin a message moves a border and no byte.
//!
//! 1. `to_begin_and_to_confirm_moves_borders`
//! 2. `what_slides_out_behind_begun_ones_leaves_a_gap_that_stays_small`
//! 3. `what_the_peer_is_too_small_for_leaves_both_zones`
//! 4. `a_message_in_parts_ends_with_a_frame_that_is_never_empty`

use std::ops::Range;

use bytes::{Buf, BytesMut};

use super::classic::{HEADER, encode_header};
use super::cost;
use super::wire;

/// What was begun and, behind it, what waits.
#[derive(Debug, Default)]
pub struct Zones {
    bytes: BytesMut,
    begun: usize,
    /// Bytes between the two that were discarded: fewer than wait, and none where nothing has begun.
    gap: usize,
}

impl Zones {
    pub fn begun(&self) -> &[u8] {
        self.bytes.get(..self.begun).unwrap_or_default()
    }

    pub fn waiting(&self) -> &[u8] {
        self.bytes.get(self.begun + self.gap..).unwrap_or_default()
    }

    /// Bytes in both.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.gap
    }

    /// Appends what waits, or what has begun at once if nothing waits and `begin` follows.
    pub fn append(&mut self, payload: &[u8]) {
        self.bytes.extend_from_slice(&encode_header(payload.len()));
        self.bytes.extend_from_slice(payload);
    }

    /// Appends a message as PARTs of `part` bytes and a last frame.
    pub fn append_parts(&mut self, payload: &[u8], part: usize) {
        encode_parts(payload, part, &mut self.bytes);
    }

    /// The first `bytes` of what waits have begun.
    pub fn begin(&mut self, bytes: usize) {
        if self.gap > 0 {
            let from = self.begun + self.gap;
            self.bytes.copy_within(from..from + bytes, self.begun);
        }
        self.begun += bytes;
        self.mind_gap();
    }

    /// The first `bytes` of what has begun are done with.
    pub fn confirm(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
        self.begun -= bytes;
        self.mind_gap();
    }

    /// The first `bytes` of what waits are discarded.
    pub fn discard(&mut self, bytes: usize) {
        self.gap += bytes;
        self.mind_gap();
    }

    /// What waits moves up to what has begun only when there is no more of it than was discarded: thus a
    /// buffer that slides with each message moves a byte for each that it discards, and not all of its own.
    fn mind_gap(&mut self) {
        if self.begun == 0 {
            self.bytes.advance(std::mem::take(&mut self.gap));
        } else if self.gap > 0 && self.gap >= self.waiting().len() {
            let from = self.begun + std::mem::take(&mut self.gap);
            self.bytes.copy_within(from.., self.begun);
            self.bytes.truncate(self.bytes.len() - (from - self.begun));
        }
    }

    /// The peer takes no message above `max_size`: takes those out of both, and says of each zone which.
    pub fn drop_larger_than(&mut self, max_size: usize) -> (Large, Large) {
        let waiting = Large::in_zone(self.waiting(), max_size);
        let begun = Large::in_zone(self.begun(), max_size);
        if !(waiting.indexes.is_empty() && begun.indexes.is_empty()) {
            let kept = [&begun.kept_of(self.begun())[..], &waiting.kept_of(self.waiting())[..]];
            (self.begun, self.gap) = (kept[0].len(), 0);
            self.bytes = BytesMut::from(&kept.concat()[..]);
        }
        (begun, waiting)
    }

    /// Gives back memory that an idle connection does not need.
    pub fn trim(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > 0 {
            self.bytes = BytesMut::new();
        }
    }
}

/// The messages of a zone that are too large.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Large {
    /// Which, the first of the zone being 0.
    pub indexes: Vec<u64>,
    pub cost: u64,
    /// Where they lie.
    places: Vec<Range<usize>>,
}

impl Large {
    fn in_zone(frames: &[u8], max_size: usize) -> Self {
        let (mut at, mut index, mut large) = (0, 0, Self::default());
        while let Some(frame) = frame_at(frames, at) {
            if frame.length > max_size {
                large.indexes.push(index);
                large.cost = large.cost.saturating_add(frame.cost());
                large.places.push(at..at + frame.bytes);
            }
            at += frame.bytes;
            index += 1;
        }
        large
    }

    fn kept_of(&self, frames: &[u8]) -> Vec<u8> {
        let (mut kept, mut at) = (Vec::with_capacity(frames.len()), 0);
        for place in &self.places {
            kept.extend_from_slice(frames.get(at..place.start).unwrap_or_default());
            at = place.end;
        }
        kept.extend_from_slice(frames.get(at..).unwrap_or_default());
        kept
    }

    pub fn count(&self) -> u64 {
        u64::try_from(self.indexes.len()).unwrap_or(u64::MAX)
    }
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

fn encode_parts(payload: &[u8], part: usize, into: &mut BytesMut) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        [&encode_header(payload.len())[..], payload].concat()
    }

    #[test]
    fn to_begin_and_to_confirm_moves_borders() {
        let mut zones = Zones::default();
        let frames = [b"one".as_slice(), b"two", b"three"].map(frame);
        for payload in [b"one".as_slice(), b"two", b"three"] {
            zones.append(payload);
        }
        let at = zones.waiting().as_ptr();
        zones.begin(frames[0].len() + frames[1].len());
        assert_eq!((zones.begun(), zones.waiting()), (&frames[..2].concat()[..], &frames[2][..]));
        assert_eq!(zones.begun().as_ptr(), at, "no byte has moved");
        zones.confirm(frames[0].len());
        assert_eq!((zones.begun(), zones.waiting()), (&frames[1][..], &frames[2][..]));
        assert_eq!(zones.len(), frames[1].len() + frames[2].len());
        zones.trim();
        assert_eq!(zones.begun(), &frames[1][..]);
        zones.begin(frames[2].len());
        zones.confirm(frames[1].len() + frames[2].len());
        zones.trim();
        assert_eq!((zones.len(), zones.bytes.capacity()), (0, 0));
    }

    #[test]
    fn what_slides_out_behind_begun_ones_leaves_a_gap_that_stays_small() {
        let mut zones = Zones::default();
        let (mut begun, mut waiting) = (Vec::new(), Vec::new());
        for step in 0_usize..5000 {
            let payload = vec![u8::try_from(step % 251).unwrap(); step * 7 % 40];
            zones.append(&payload);
            waiting.extend_from_slice(&frame(&payload));
            let first = |zone: &[u8]| frame_at(zone, 0).map_or(0, |frame| frame.bytes);
            match step * step % 11 {
                0..5 if step % 600 > 60 => {
                    let bytes = first(&waiting);
                    zones.discard(bytes);
                    waiting.drain(..bytes);
                }
                5 => {
                    let bytes = first(&waiting);
                    zones.begin(bytes);
                    begun.extend(waiting.drain(..bytes));
                }
                9 if step % 97 < 40 => {
                    let bytes = first(&begun);
                    zones.confirm(bytes);
                    begun.drain(..bytes);
                }
                _ if step % 1000 == 999 => {
                    zones.discard(waiting.len());
                    waiting.clear();
                }
                _ => {}
            }
            assert_eq!(
                (zones.begun(), zones.waiting(), zones.len()),
                (&begun[..], &waiting[..], begun.len() + waiting.len())
            );
            assert!(zones.gap == 0 || zones.gap < waiting.len() && !begun.is_empty());
        }
        assert!(!begun.is_empty(), "both zones were used");
    }

    #[test]
    fn what_the_peer_is_too_small_for_leaves_both_zones() {
        let mut zones = Zones::default();
        let lengths = [4, 5, 3, 6, 7, 4, 0, 9];
        for length in lengths {
            zones.append(&vec![b'm'; length]);
        }
        let frames =
            |lengths: &[usize]| lengths.iter().flat_map(|&length| frame(&vec![b'm'; length])).collect::<Vec<u8>>();
        zones.begin(frames(&lengths[..4]).len());
        zones.discard(frames(&lengths[4..5]).len());
        let (begun, waiting) = zones.drop_larger_than(4);
        assert_eq!((begun.indexes, begun.cost), (vec![1, 3], cost(5) + cost(6)));
        assert_eq!((waiting.indexes, waiting.cost), (vec![2], cost(9)));
        assert_eq!((zones.begun(), zones.waiting()), (&frames(&[4, 3])[..], &frames(&[4, 0])[..]));
        let (begun, waiting) = zones.drop_larger_than(4);
        assert_eq!((begun, waiting), (Large::default(), Large::default()));
    }

    #[test]
    fn a_message_in_parts_ends_with_a_frame_that_is_never_empty() {
        // The length takes four bytes of the first PART of six. What fits into one needs none.
        let cases = [(7, vec![2, 5]), (8, vec![2, 6]), (9, vec![2, 6, 1]), (14, vec![2, 6, 6]), (15, vec![2, 6, 6, 1])];
        for (length, expected) in cases {
            let payload: Vec<u8> = (0..length).collect();
            let mut zones = Zones::default();
            zones.append_parts(&payload, 6);
            let (mut wire, mut rest) = (Vec::new(), &payload[..]);
            for (place, bytes) in expected.iter().enumerate() {
                let (piece, behind) = rest.split_at(*bytes);
                let header = if behind.is_empty() { encode_header(*bytes) } else { wire::part_header(6) };
                wire.extend_from_slice(&header);
                if place == 0 {
                    wire.extend_from_slice(&encode_header(payload.len()));
                }
                wire.extend_from_slice(piece);
                rest = behind;
            }
            assert_eq!(zones.waiting(), wire, "of {length} bytes");
            zones.append(b"behind");
            let frame = frame_at(zones.waiting(), 0).unwrap();
            assert_eq!((frame.length, frame.bytes, frame.piece), (payload.len(), wire.len(), Some(HEADER + 6)));
        }
    }
}
