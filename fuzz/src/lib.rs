//! What the targets share: choices taken from the input, front to back.

use netasync::proto::options::{Buffer, Policy};

/// The input, as choices. Past its end everything is zero.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.0.len().min(N);
        array[..taken].copy_from_slice(&self.0[..taken]);
        self.0 = &self.0[taken..];
        array
    }

    /// A piece of the input, at most so long.
    pub fn piece(&mut self, most: usize) -> &'a [u8] {
        let (piece, rest) = self.0.split_at(self.0.len().min(most));
        self.0 = rest;
        piece
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// A small buffer of any policy.
    pub fn buffer(&mut self) -> Buffer {
        let policy = [Policy::Fixed, Policy::Dropping, Policy::Sliding][usize::from(self.byte() % 3)];
        Buffer { policy, count: usize::from(self.byte() % 8) + 1, max_bytes: u64::from(self.byte()) * 8 + 1 }
    }
}

/// The same bytes in pieces whose lengths `cuts` names, over and over.
pub fn pieces<'a>(mut bytes: &'a [u8], cuts: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut cuts = cuts.iter().cycle();
    while !bytes.is_empty() {
        let most = usize::from(*cuts.next().unwrap_or(&7)).max(1);
        let (piece, rest) = bytes.split_at(most.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}
