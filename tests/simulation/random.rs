//! Every choice of a run comes from its seed.

use std::time::Duration;

use netasync::proto::backoff::SplitMix;

#[derive(Debug, Clone)]
pub struct Random(SplitMix);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut mixed = SplitMix(seed);
        Self(SplitMix(mixed.draw()))
    }

    /// A generator of its own, so that one part's draws do not move another's.
    pub fn split(&mut self) -> Self {
        Self::new(self.0.draw())
    }

    pub fn draw(&mut self) -> u64 {
        self.0.draw()
    }

    /// Uniform in `from..=to`.
    pub fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.0.draw() % (to - from + 1)
    }

    pub fn size(&mut self, from: usize, to: usize) -> usize {
        usize::try_from(self.within(from as u64, to as u64)).expect("came from a usize")
    }

    pub fn milliseconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.within(from, to))
    }

    pub fn one_in(&mut self, odds: u64) -> bool {
        self.within(1, odds) == 1
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.size(0, from.len() - 1)]
    }
}
