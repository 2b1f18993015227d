//! Large messages: each has memory of its own, where its bytes go as they come, from the kernel's hand if
//! the reader likes. Decides where the next bytes belong; knows nothing of the frames around them.
//!
//! 1. `what_is_placed_and_what_is_given_are_one_message`
//! 2. `a_place_never_promises_much_more_than_has_come`
//! 3. `memory_is_used_again_until_it_is_given_back`

use std::collections::VecDeque;

use super::super::memory::{NoMemory, reserve_exact};

/// At least so much may be read into a place, however little has come of the message yet.
const FIRST: usize = 64 * 1024;
/// At most so much at once, so that a firehose cannot hold a loop.
const MOST: usize = 256 * 1024;

/// A message of which the beginning has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coming {
    pub length: usize,
    pub present: usize,
}

#[derive(Debug)]
pub struct Large {
    max_size: usize,
    whole: VecDeque<Vec<u8>>,
    coming: Option<Assembly>,
    /// Memory of a message that was taken: fresh pages would cost as much as the copy that they save
    /// (10 MiB each: 3.5 ms of the receiver's time with one buffer for all, 2.0 so).
    spare: Vec<u8>,
    /// The last message that came was a large one; the next is likely to be, too.
    is_habit: bool,
}

#[derive(Debug)]
struct Assembly {
    length: usize,
    body: Vec<u8>,
    /// So many bytes will come before the next header.
    owed: usize,
    /// No further piece follows.
    is_last: bool,
}

impl Large {
    pub fn new(max_size: usize) -> Self {
        Self { max_size, whole: VecDeque::new(), coming: None, spare: Vec::new(), is_habit: false }
    }

    /// A message of `length` bytes begins.
    pub fn begin(&mut self, length: usize) {
        let mut body = std::mem::take(&mut self.spare);
        // What waits may hold no more memory than its length allows for.
        body.shrink_to(length);
        self.coming = Some(Assembly { length, body, owed: 0, is_last: false });
    }

    /// A piece of `bytes` begins; they have been held against the length.
    pub fn expect(&mut self, bytes: usize, is_last: bool) {
        if let Some(coming) = &mut self.coming {
            (coming.owed, coming.is_last) = (bytes, is_last);
        }
    }

    /// The message of which the beginning has come.
    pub fn coming(&self) -> Option<Coming> {
        self.coming.as_ref().map(|coming| Coming { length: coming.length, present: coming.body.len() })
    }

    /// Takes what belongs to the piece; returns how many bytes that were.
    ///
    /// # Errors
    /// Nothing was taken then.
    #[inline]
    pub fn give(&mut self, bytes: &[u8]) -> Result<usize, NoMemory> {
        let Some(coming) = &mut self.coming else { return Ok(0) };
        let ours = bytes.get(..coming.owed).unwrap_or(bytes);
        coming.make_room(ours.len())?;
        coming.body.extend_from_slice(ours);
        coming.owed -= ours.len();
        Ok(ours.len())
    }

    /// Makes room for what `place` will promise.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn prepare(&mut self) -> Result<(), NoMemory> {
        self.coming.as_mut().map_or(Ok(()), |coming| coming.make_room(coming.promised()))
    }

    /// Bytes of the piece may be appended there, at most so many; then `placed` must hear of them. `prepare` has
    /// made room.
    pub fn place(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        let coming = self.coming.as_mut().filter(|coming| coming.owed > 0)?;
        let most = coming.promised();
        Some((&mut coming.body, most))
    }

    /// So many bytes were appended in the place.
    pub fn placed(&mut self, bytes: usize) {
        if let Some(coming) = &mut self.coming {
            coming.owed -= bytes;
        }
    }

    /// The piece is not whole: all that comes belongs to it.
    pub fn is_owed(&self) -> bool {
        self.coming.as_ref().is_some_and(|coming| coming.owed > 0)
    }

    /// A large message is coming, or was the last that came, so that the next is likely to be large, too.
    pub fn is_habit(&self) -> bool {
        self.is_habit || self.coming.is_some()
    }

    /// The message, if its last piece has come: its length.
    pub fn is_complete(&self) -> Option<usize> {
        let coming = self.coming.as_ref().filter(|coming| coming.is_last && coming.owed == 0)?;
        Some(coming.length)
    }

    /// What was coming is whole, and waits behind the other large ones if it `is_kept`.
    pub fn complete(&mut self, is_kept: bool) {
        let Some(coming) = self.coming.take() else { return };
        self.is_habit = true;
        if is_kept {
            self.whole.push_back(coming.body);
        } else {
            self.reuse(coming.body);
        }
    }

    /// A message came that is not large.
    pub fn interrupt(&mut self) {
        self.is_habit = false;
    }

    /// What was coming will not come.
    pub fn forget(&mut self) {
        self.coming = None;
    }

    pub fn front(&self) -> Option<&[u8]> {
        self.whole.front().map(Vec::as_slice)
    }

    pub fn pop(&mut self) {
        if let Some(body) = self.whole.pop_front() {
            self.reuse(body);
        }
    }

    /// Gives back what nobody waits for; whether nothing is left.
    pub fn trim(&mut self) -> bool {
        self.spare = Vec::new();
        self.whole.is_empty() && self.coming.is_none()
    }

    /// How much memory it holds.
    pub fn memory(&self) -> usize {
        let whole: usize = self.whole.iter().map(Vec::capacity).sum();
        whole + self.coming.as_ref().map_or(0, |coming| coming.body.capacity()) + self.spare.capacity()
    }

    /// It holds memory of which nobody waits for anything.
    pub fn is_spare(&self) -> bool {
        self.spare.capacity() > 0
    }

    /// Beside what waits never more than one message's memory is held, coming and spare together.
    fn reuse(&mut self, mut body: Vec<u8>) {
        let most = self.max_size - self.coming.as_ref().map_or(0, |coming| coming.length);
        if (self.spare.capacity()..=most).contains(&body.capacity()) {
            body.clear();
            self.spare = body;
        }
    }
}

impl Assembly {
    /// How many bytes may be read into the place at once.
    fn promised(&self) -> usize {
        self.owed.min(self.body.len().max(FIRST)).min(MOST)
    }

    /// Memory grows with what has come, and never beyond the message.
    fn make_room(&mut self, bytes: usize) -> Result<(), NoMemory> {
        let (length, needed) = (self.body.len(), self.body.len() + bytes);
        if needed <= self.body.capacity() {
            return Ok(());
        }
        let wanted = needed.max(2 * length).min(self.length).max(needed);
        reserve_exact(&mut self.body, wanted - length).or_else(|_| reserve_exact(&mut self.body, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a kernel does that has `bytes`.
    fn read_into(large: &mut Large, bytes: &[u8]) -> usize {
        large.prepare().unwrap();
        let Some((body, most)) = large.place() else { return 0 };
        let length = bytes.len().min(most);
        assert!(body.capacity() - body.len() >= most, "a kernel writes beyond the end, and nowhere else");
        body.extend_from_slice(&bytes[..length]);
        large.placed(length);
        length
    }

    #[test]
    fn what_is_placed_and_what_is_given_are_one_message() {
        let payload: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let mut large = Large::new(1_000_000);
        large.begin(payload.len());
        let mut at = 0;
        for (turn, piece) in [100_000, 150_000, 50_000, 0].into_iter().enumerate() {
            assert!(large.is_habit() && !large.is_owed() && large.place().is_none());
            large.expect(piece, turn == 3);
            while large.is_owed() {
                let end = payload.len().min(at + 30_000);
                at += if turn % 2 == 0 {
                    large.give(&payload[at..end]).unwrap()
                } else {
                    read_into(&mut large, &payload[at..end])
                };
            }
            assert_eq!(large.coming(), Some(Coming { length: 300_000, present: at }));
            assert_eq!(large.is_complete(), (turn == 3).then_some(300_000));
        }
        large.complete(true);
        assert_eq!((large.front(), large.coming(), large.is_complete()), (Some(&payload[..]), None, None));
        large.pop();
        assert_eq!(large.front(), None);
    }

    #[test]
    fn a_place_never_promises_much_more_than_has_come() {
        let mut large = Large::new(100 << 20);
        large.begin(100 << 20);
        large.expect(100 << 20, true);
        let mut come = 0;
        while large.is_owed() {
            large.prepare().unwrap();
            let (body, most) = large.place().unwrap();
            assert!(most <= MOST.min(come.max(FIRST)) && body.capacity() <= (2 * come).clamp(FIRST, 100 << 20));
            body.resize(come + most, 1);
            come += most;
            large.placed(most);
        }
        assert_eq!((come, large.is_complete()), (100 << 20, Some(100 << 20)));
    }

    #[test]
    fn memory_is_used_again_until_it_is_given_back() {
        let mut large = Large::new(1_000_000);
        let memory = |large: &mut Large, length: usize| {
            large.begin(length);
            let before = large.coming.as_ref().unwrap().body.capacity();
            large.expect(length, true);
            large.give(&vec![1; length]).unwrap();
            large.complete(true);
            large.pop();
            before
        };
        assert_eq!(memory(&mut large, 200_000), 0);
        assert_eq!((memory(&mut large, 200_000), memory(&mut large, 300_000)), (200_000, 200_000));
        assert_eq!(memory(&mut large, 100_000), 100_000, "never more than the message needs");
        large.begin(400_000);
        large.reuse(Vec::with_capacity(600_001));
        assert_eq!(large.spare.capacity(), 0, "coming and spare are together above the largest message");
        large.reuse(Vec::with_capacity(600_000));
        assert_eq!(large.spare.capacity(), 600_000);
        large.forget();
        large.begin(7);
        large.expect(7, true);
        large.give(&[1; 7]).unwrap();
        large.complete(false);
        assert_eq!(large.spare.capacity(), 7, "of one that nobody wants, too");
        assert!(large.is_spare() && large.trim() && !large.is_spare());
        large.begin(7);
        assert!(!large.trim());
        large.expect(7, true);
        large.give(&[1; 7]).unwrap();
        large.complete(true);
        assert!(!large.trim(), "what waits stays");
        assert_eq!(large.front(), Some(&[1; 7][..]));
    }

    #[test]
    fn a_habit_ends_with_a_small_message() {
        let mut large = Large::new(1_000_000);
        assert!(!large.is_habit());
        large.begin(0);
        large.expect(0, true);
        large.complete(true);
        assert!(large.is_habit());
        large.interrupt();
        assert!(!large.is_habit());
    }
}
