//! The counters of a connection and their two equations (`api.md` §5).

/// A snapshot, in messages where nothing else is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub accepted: u64,
    pub confirmed: u64,
    pub unconfirmed: u64,
    pub queued: u64,
    pub write_dropped: u64,
    pub lost: u64,
    pub received: u64,
    pub consumed: u64,
    pub waiting: u64,
    pub read_dropped: u64,
    pub redelivered: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub links: u64,
    pub attempts: u64,
}

impl Stats {
    /// Both equations; they hold whenever no call is half way through.
    pub fn balances(&self) -> bool {
        self.accepted == self.confirmed + self.unconfirmed + self.queued + self.write_dropped + self.lost
            && self.received == self.consumed + self.waiting + self.read_dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_misses_one_message_does_not_balance() {
        let stats = Stats { accepted: 3, confirmed: 2, queued: 1, received: 1, waiting: 1, ..Stats::default() };
        assert!(stats.balances());
        assert!(!Stats { accepted: 4, ..stats }.balances());
        assert!(!Stats { received: 2, ..stats }.balances());
    }
}
