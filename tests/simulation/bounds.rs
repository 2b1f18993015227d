//! What holds of an end at every quiet moment: its account (F 57), its memory, its promises about time.

use std::time::Duration;

use netasync::proto::Moment;
use netasync::proto::account::Stats;
use netasync::proto::classic::HEADER;
use netasync::proto::cost;
use netasync::proto::endpoint::{Phase, State};
use netasync::proto::options::{Buffer, Policy};
use netasync::proto::telling::TELL_WITHIN;

use crate::end::End;
use crate::traffic::READ;

/// Messages are at most this long.
pub const LONGEST: usize = 6000;

impl End {
    /// `allowance` is how long this process stood still.
    pub fn check(&self, now: Moment, allowance: Duration) {
        let stats = self.stats();
        assert!(stats.balances(), "{stats:?}");
        self.check_bounds(&stats);
        if self.is_native() {
            self.check_memory();
            self.check_promises(now, allowance);
        }
        if let Some(since) = self.closing_since {
            let limit = since + self.options.close_timeout + allowance;
            assert!(now < limit || self.is_ended(), "closing ends within close_timeout");
            assert!(matches!(self.endpoint.state(), State::Closing | State::Closed));
        }
        if self.is_deserted {
            assert!(!matches!(self.phase(), Phase::Absent { .. }), "it waits for a dialler that cannot come back");
        }
        if self.is_ended() {
            assert!(self.link.is_none() && self.dialling.is_none() && self.asked.is_none());
            assert!(self.receiver.is_closed());
        }
        if let Some(link) = self.link.as_ref().filter(|link| link.is_reading && !link.is_heard) {
            let limit = link.heard + self.options.heartbeat_timeout;
            assert!(now < limit || allowance > Duration::ZERO, "a silent peer is found at once");
        }
    }

    fn check_bounds(&self, stats: &Stats) {
        let (read, write) = (self.options.read_buffer, self.options.write_buffer);
        let begun = 1;
        assert!(stats.queued <= write.count as u64 + begun, "{stats:?}");
        let slack = 2 * (LONGEST + HEADER) + 2 * HEADER;
        let most = 2 * (write.max_bytes + slack as u64);
        assert!(self.sender.unsent_bytes() as u64 <= most);
        // What one read brought beyond the limit stays when the link ends; on our wire the messages of a
        // link that broke lie there beside those of the next.
        let beyond = match read.policy {
            Policy::Fixed if self.is_native() => usize::try_from(read.max_bytes / cost(8)).unwrap() + 1,
            Policy::Fixed => READ / 12,
            _ => 0,
        };
        let links = usize::try_from(stats.links).unwrap();
        let waiting = usize::try_from(stats.waiting).unwrap();
        let is_first = self.is_native() && links <= 1;
        assert!(waiting <= read.count + if is_first { 0 } else { beyond }, "{stats:?}, {links} links");
        let values = self.receiver.ready() - waiting;
        assert!(values <= 7 * (waiting + 1), "{values} values for {waiting} messages");
    }

    /// The bound of our wire, whatever the links and the peer do.
    fn check_memory(&self) {
        let (read, write) = (self.options.read_buffer, self.options.write_buffer);
        let received = self.receiver.held_cost();
        // A lossy buffer that one long message has filled still has to read the next to drop it.
        let beyond = if lossless(read) { cost(LONGEST) } else { 2 * cost(LONGEST) };
        assert!(received <= read.max_bytes + beyond, "{received} received and not taken");
        let sending = self.sender.held_bytes() as u64;
        // A message in small PARTs has a header for each.
        assert!(sending <= 2 * (write.max_bytes + 2 * cost(LONGEST)), "{sending} begun or waiting");
    }

    /// When its promises about time must have been kept.
    fn promises(&self) -> [Option<Moment>; 2] {
        let (untold, stuck) = self.link.as_ref().map(|link| (link.untold_since, link.stuck_since)).unwrap_or_default();
        [untold.map(|since| since + TELL_WITHIN), stuck.map(|since| since + self.options.heartbeat_timeout)]
    }

    fn check_promises(&self, now: Moment, allowance: Duration) {
        let Some(link) = &self.link else { return };
        assert!(link.is_reading, "the socket is always read");
        let [tell_by, unstuck_by] = self.promises();
        let is_told = tell_by.is_none_or(|by| now < by + allowance);
        assert!(is_told, "what was consumed is told in time");
        assert!(unstuck_by.is_none_or(|by| now < by + allowance), "a kernel that takes nothing is found at once");
    }

    /// Notes since when there is something that the peer should be told.
    pub fn note_news(&mut self, now: Moment) {
        let is_native = self.is_native();
        let numbers = self.receiver.numbers();
        let Some(link) = &mut self.link else { return };
        let (_, tap) = self.taps.last().expect("there is a link");
        // Who closes discards, and owes nobody more credit.
        let is_news = is_native && self.closing_since.is_none() && numbers != tap.told;
        let may_tell = !link.is_stalled && !tap.has_closed && !tap.is_in_frame();
        link.untold_since = (is_news && may_tell).then(|| link.untold_since.unwrap_or(now));
        self.promised_by = self.promises().into_iter().flatten().filter(|by| is_native && *by > now).min();
    }
}

pub fn lossless(buffer: Buffer) -> bool {
    buffer.policy == Policy::Fixed
}
