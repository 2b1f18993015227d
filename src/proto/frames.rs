//! Messages as they lie in the zones of the outbox, which is as they go over the wire: in one stretch of
//! memory, so that to begin a message moves a border and no byte.
//!
//! 1. `to_begin_and_to_confirm_moves_borders`
//! 2. `what_slides_out_behind_begun_ones_leaves_a_gap_that_stays_small`
//! 3. `what_the_peer_is_too_small_for_leaves_both_zones`
//! 4. `a_message_in_parts_ends_with_a_frame_that_is_never_empty`

use std::ops::Range;

use super::classic::{HEADER, encode_header};
use super::cost;
use super::memory::{NoMemory, SMALL, Stretch};
use super::wire;

/// What was begun and, behind it, what waits.
#[derive(Debug, Default)]
pub struct Zones {
    bytes: Stretch,
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

    /// Makes room for a message of `length` bytes, in PARTs of `part` bytes if there is such a size.
    ///
    /// # Errors
    /// Nothing has changed then.
    #[inline]
    pub fn reserve(&mut self, length: usize, part: Option<usize>) -> Result<(), NoMemory> {
        let headers = part.map_or(1, |part| length / part + 3);
        self.bytes.reserve(length.saturating_add(HEADER * headers))
    }

    /// Appends what waits, or what has begun at once if nothing waits and `begin` follows. There is room.
    pub fn append(&mut self, payload: &[u8]) {
        self.bytes.append(&encode_header(payload.len()));
        self.bytes.append(payload);
    }

    /// Appends a message as PARTs of `part` bytes and a last frame. There is room.
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
        let (end_of_begun, waiting) = (self.begun, self.begun + self.gap);
        let (begun, end) = Large::drop_from(&mut self.bytes, 0..end_of_begun, 0, max_size);
        let all = self.bytes.len();
        let (waiting, whole) = Large::drop_from(&mut self.bytes, waiting..all, end, max_size);
        self.bytes.truncate(whole);
        (self.begun, self.gap) = (end, 0);
        (begun, waiting)
    }

    /// Gives back memory that an idle connection does not need.
    pub fn trim(&mut self) {
        self.bytes.trim();
    }

    /// How much memory it holds.
    pub fn memory(&self) -> usize {
        self.bytes.memory()
    }

    /// Nothing lies in memory that is worth giving back.
    pub fn is_spare(&self) -> bool {
        self.memory() > SMALL && self.bytes.is_empty()
    }
}

/// The messages of a zone that are too large.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Large {
    /// Which, the first of the zone being 0.
    pub indexes: Vec<u64>,
    pub cost: u64,
}

impl Large {
    /// Moves the messages of `zone` that may stay to `end`, which does not lie behind it. Returns the others, and
    /// where what stays ends. Moved and not copied: it can be much, and there may be no memory for it.
    fn drop_from(bytes: &mut [u8], zone: Range<usize>, mut end: usize, max_size: usize) -> (Self, usize) {
        let (mut at, mut index, mut large) = (zone.start, 0, Self::default());
        while let Some(frame) = frame_at(bytes, at).filter(|_| at < zone.end) {
            if frame.length > max_size {
                large.indexes.push(index);
                large.cost = large.cost.saturating_add(frame.cost());
            } else {
                if at != end {
                    bytes.copy_within(at..at + frame.bytes, end);
                }
                end += frame.bytes;
            }
            at += frame.bytes;
            index += 1;
        }
        (large, end)
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

fn encode_parts(payload: &[u8], part: usize, into: &mut Stretch) {
    let (first, mut rest) = payload.split_at(part - HEADER);
    into.append(&wire::part_header(part));
    into.append(&encode_header(payload.len()));
    into.append(first);
    while let Some((piece, behind)) = rest.split_at_checked(part).filter(|(_, behind)| !behind.is_empty()) {
        into.append(&wire::part_header(part));
        into.append(piece);
        rest = behind;
    }
    into.append(&encode_header(rest.len()));
    into.append(rest);
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
        assert_eq!((zones.len(), zones.memory()), (0, 0));
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
