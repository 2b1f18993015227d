//! Memory of which a peer or a caller chooses the size: it is asked for, and there may be none. What is done with
//! can be seen, and given back.
//!
//! 1. `where_there_is_no_memory_nothing_has_changed`
//! 2. `what_was_taken_from_the_front_is_used_again`
//! 3. `memory_is_given_back_when_nothing_lies_there`
//! 4. `little_that_is_left_in_much_memory_moves_to_less`
//! 5. `memory_is_kept_between_the_messages_of_a_stream`

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::Moment;
use super::events::{Fault, Reason};

/// Less than this is not worth a timer: it goes with the next heartbeat.
pub const SMALL: usize = 16 * 1024;

/// The system gave none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoMemory;

impl NoMemory {
    /// The end of the link that brought so much. The session outlives it: this side may have memory when the
    /// peer says the same again.
    pub fn fault(self, bytes: usize) -> Fault {
        Fault { reason: Reason::NoMemory, detail: format!("no memory for {bytes} bytes") }
    }
}

/// Room for `more` bytes behind what lies in `bytes`, and for as much again where the system has that much.
///
/// # Errors
/// Nothing has changed then.
pub fn reserve(bytes: &mut Vec<u8>, more: usize) -> Result<(), NoMemory> {
    if bytes.capacity() - bytes.len() >= more {
        return Ok(());
    }
    is_there(bytes.len().saturating_add(more))?;
    bytes.try_reserve(more).or_else(|_| bytes.try_reserve_exact(more)).map_err(|_| NoMemory)
}

/// As `reserve`, and no more than that.
///
/// # Errors
/// Nothing has changed then.
pub fn reserve_exact(bytes: &mut Vec<u8>, more: usize) -> Result<(), NoMemory> {
    is_there(bytes.len().saturating_add(more))?;
    bytes.try_reserve_exact(more).map_err(|_| NoMemory)
}

/// A copy, on memory of its own.
///
/// # Errors
/// Where there is none.
pub fn copy(bytes: &[u8]) -> Result<Vec<u8>, NoMemory> {
    let mut copy = Vec::new();
    reserve_exact(&mut copy, bytes.len())?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// Bytes that are appended at the end and taken away at the front.
#[derive(Debug, Default)]
pub struct Stretch {
    bytes: Vec<u8>,
    /// What lies before this was taken away.
    from: usize,
}

impl Stretch {
    /// Makes room for `more` bytes at the end.
    ///
    /// # Errors
    /// Nothing has changed then.
    #[inline]
    pub fn reserve(&mut self, more: usize) -> Result<(), NoMemory> {
        if self.bytes.capacity() - self.bytes.len() >= more { Ok(()) } else { self.grow(more) }
    }

    #[cold]
    fn grow(&mut self, more: usize) -> Result<(), NoMemory> {
        // At most as much moves as was taken away since it moved last.
        if self.from >= self.len() {
            let from = std::mem::take(&mut self.from);
            self.bytes.copy_within(from.., 0);
            self.bytes.truncate(self.bytes.len() - from);
        }
        reserve(&mut self.bytes, more)
    }

    /// Appends `bytes`, for which room was made before.
    #[inline]
    pub fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the first `bytes` away.
    #[inline]
    pub fn advance(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.len(), "nothing is taken that does not lie there");
        self.from += bytes;
        if self.from >= self.bytes.len() {
            self.from = 0;
            self.bytes.clear();
        }
    }

    /// Keeps the first `bytes`.
    pub fn truncate(&mut self, bytes: usize) {
        self.bytes.truncate(self.from + bytes);
    }

    /// How much memory it holds.
    pub fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives back what it does not need. Where much less lies there than there is memory, that moves to less.
    pub fn trim(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        } else if self.memory() > SMALL.max(2 * self.len()) {
            let moved = copy(self);
            // Without memory for it, it stays where it is.
            if let Ok(bytes) = moved {
                *self = Self { bytes, from: 0 };
            }
        }
    }
}

impl Deref for Stretch {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.bytes.get(self.from..).unwrap_or_default()
    }
}

impl DerefMut for Stretch {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.from..).unwrap_or_default()
    }
}

/// When memory is to be given back: after a while in which nothing came and nothing went. Between the messages of a
/// stream the next would only ask for it again.
#[derive(Debug, Clone, Copy)]
pub struct Quiet {
    looked: Moment,
    activity: u64,
}

impl Quiet {
    pub fn new(now: Moment) -> Self {
        Self { looked: now, activity: 0 }
    }

    /// When to look next.
    pub fn due(&self, period: Duration) -> Moment {
        self.looked.saturating_add(period)
    }

    /// Whether `activity`, which moves with each message, has not moved for a whole `period`. Looks no more often.
    pub fn look(&mut self, activity: u64, period: Duration, now: Moment) -> bool {
        if now < self.due(period) {
            return false;
        }
        self.looked = now;
        std::mem::replace(&mut self.activity, activity) == activity
    }
}

#[cfg(not(test))]
fn is_there(_: usize) -> Result<(), NoMemory> {
    Ok(())
}

#[cfg(test)]
fn is_there(bytes: usize) -> Result<(), NoMemory> {
    if bytes > scarce::MOST.get() { Err(NoMemory) } else { Ok(()) }
}

/// Tests only: a system that gives no more than so many bytes in one piece.
#[cfg(test)]
pub mod scarce {
    use std::cell::Cell;

    thread_local! {
        pub(super) static MOST: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    pub fn at_most<T>(bytes: usize, act: impl FnOnce() -> T) -> T {
        MOST.set(bytes);
        let outcome = act();
        MOST.set(usize::MAX);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(bytes: &[u8]) -> Stretch {
        let mut stretch = Stretch::default();
        stretch.reserve(bytes.len()).unwrap();
        stretch.append(bytes);
        stretch
    }

    #[test]
    fn where_there_is_no_memory_nothing_has_changed() {
        let mut stretch = stretch(b"abcdef");
        stretch.advance(4);
        assert_eq!(scarce::at_most(1000, || stretch.reserve(1000)), Err(NoMemory));
        assert_eq!(stretch.reserve(usize::MAX / 2), Err(NoMemory), "the system says so, too");
        assert_eq!(&stretch[..], b"ef");
        assert_eq!(stretch.reserve(3), Ok(()));
        assert_eq!(scarce::at_most(2, || copy(b"abc")), Err(NoMemory));
    }

    #[test]
    fn memory_is_kept_between_the_messages_of_a_stream() {
        let (period, at) = (Duration::from_millis(100), Duration::from_millis);
        let mut quiet = Quiet::new(at(0));
        let looks = |quiet: &mut Quiet, now: std::ops::Range<u64>, activity: fn(u64) -> u64| {
            now.filter(|now| quiet.look(activity(*now), period, at(*now))).collect::<Vec<_>>()
        };
        assert!(looks(&mut quiet, 0..1000, |now| 1 + now / 90).is_empty(), "a message each 90 ms");
        assert_eq!(looks(&mut quiet, 1000..1400, |_| 7), vec![1100_u64, 1200, 1300], "quiet since 1000");
        assert!(looks(&mut quiet, 1400..1450, |_| 8).is_empty());
        assert_eq!(quiet.due(period), at(1500));
    }

    #[test]
    fn what_was_taken_from_the_front_is_used_again() {
        let mut stretch = stretch(&[1; 1000]);
        let memory = stretch.memory();
        stretch.advance(600);
        stretch.reserve(500).unwrap();
        stretch.append(&[2; 500]);
        assert_eq!((stretch.memory(), stretch.len()), (memory, 900));
        assert_eq!(&stretch[..], [[1; 400].as_slice(), &[2; 500]].concat());
        stretch.truncate(450);
        assert_eq!(&stretch[..], [[1; 400].as_slice(), &[2; 50]].concat());
        stretch.advance(450);
        stretch.reserve(memory).unwrap();
        assert_eq!((stretch.memory(), stretch.len()), (memory, 0));
    }

    #[test]
    fn memory_is_given_back_when_nothing_lies_there() {
        let mut stretch = stretch(&[1; 1000]);
        stretch.trim();
        assert!(stretch.memory() >= 1000);
        stretch.advance(1000);
        stretch.trim();
        assert_eq!(stretch.memory(), 0);
    }

    #[test]
    fn little_that_is_left_in_much_memory_moves_to_less() {
        let mut stretch = stretch(&[7; 100_000]);
        stretch.advance(99_990);
        scarce::at_most(5, || stretch.trim());
        assert!(stretch.memory() >= 100_000, "it stays where it is");
        stretch.trim();
        assert_eq!((&stretch[..], stretch.memory()), (&[7; 10][..], 10));
        stretch.trim();
        assert_eq!(&stretch[..], [7; 10]);
    }
}
