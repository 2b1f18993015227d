//! What holds between the two sides: who may take whom for dead, what may be confirmed, what arrives.

use std::collections::HashSet;
use std::time::Duration;

use netasync::proto::Moment;
use netasync::proto::events::Reason;
use netasync::proto::options::{Buffer, OnNewSession};

use crate::bounds::lossless;
use crate::end::End;
use crate::grammar::{self, Seen};
use crate::network::Side;
use crate::world::World;

impl World {
    /// A healthy peer is never taken for a dead or a hostile one.
    pub fn check_verdicts(&self, side: Side, end: &End) {
        let Some((at, reason)) = end.verdicts.last().filter(|(at, _)| *at == self.now) else {
            return;
        };
        let options = &end.options;
        // Whichever direction is dead: the network takes nothing in the end, the greeting needs both, and
        // a listener says nothing before it.
        let (patience, needs_both) = match reason {
            Reason::HeartbeatTimeout | Reason::SlowFrame => (options.heartbeat_timeout, !self.has_met(side)),
            Reason::WriteStalled => (options.heartbeat_timeout, true),
            Reason::OpenTimeout => (options.open_timeout, true),
            Reason::Reset | Reason::Truncated => return,
            _ => panic!("{reason:?} found in bytes of our own"),
        };
        let impaired = if needs_both { self.impaired_until[1 - side] } else { Moment::ZERO };
        let impaired = impaired.max(self.impaired_until[side]);
        let limit = impaired + patience + self.frozen[side] + Duration::from_secs(1);
        assert!(*at <= limit && impaired > Moment::ZERO, "false alarm: {reason:?} at {at:?}");
    }

    /// Whether the other side's application knows of the dialler's link.
    fn has_met(&self, side: Side) -> bool {
        let wire = |end: &End| end.taps.last().map(|(wire, _)| *wire);
        side == 1 || self.accepted.iter().any(|end| wire(end) == wire(&self.dialler))
    }

    /// Nothing is confirmed that the other application has not taken, or will not be given for sure.
    pub fn check_confirmations(&self) {
        let confirmed = self.dialler.stats().confirmed;
        let received: u64 = self.accepted.iter().map(|end| end.stats().received).sum();
        assert!(confirmed <= received, "{confirmed} confirmed, {received} received");
        let discards = self.accepted.iter().any(|end| end.has_closed_reading);
        let is_kept = lossless(self.setup.options[1].read_buffer) && !discards && self.dialler.closing_since.is_none();
        if is_kept {
            let taken: u64 = self.accepted.iter().map(|end| end.application.taken).sum();
            assert!(confirmed <= taken, "{confirmed} confirmed, {taken} taken");
        }
    }

    /// What holds for what the applications saw, in any run, at any time.
    pub fn check_deliveries(&self) {
        for end in self.ends() {
            let outcome = grammar::check(end.role, &end.application.seen);
            outcome.unwrap_or_else(|fault| panic!("{:?}: {fault}", end.role));
        }
        self.check_arrivals();
        let mut newest = 0;
        for end in &self.accepted {
            let from_it = messages_from(&self.dialler, end.stream);
            check_subsequence(&from_it, &end.application.accepted);
            if lossless(self.setup.options[0].read_buffer) && lossless(end.options.write_buffer) {
                assert!(is_gapless(&from_it), "nothing is left out within a session: {from_it:?}");
            }
            let [(wire, tap)] = &end.taps[..] else { continue };
            check_prefix(&from_it, &tap.messages, self.setup.options[0].read_buffer);
            let written = self.dialler.taps.iter().find(|(other, _)| other == wire);
            let written = written.map(|(_, tap)| &tap.messages[..]).unwrap_or_default();
            check_prefix(&messages(end, |_| {}), written, self.setup.options[1].read_buffer);
        }
        messages(&self.dialler, |stream| {
            assert!(stream >= newest, "no link speaks after the next one");
            newest = stream;
        });
    }

    /// Within a session each once and in order; across sessions only what the dialler said goes again.
    fn check_arrivals(&self) {
        let dialler = &self.dialler;
        let lists: Vec<Vec<u32>> =
            self.accepted.iter().map(|end| messages(end, |stream| assert_eq!(stream, 0))).collect();
        for list in &lists {
            check_subsequence(list, &dialler.application.accepted);
        }
        let arrived = lists.concat();
        let distinct = arrived.iter().collect::<HashSet<_>>().len();
        let twice = (arrived.len() - distinct) as u64;
        assert!(twice <= dialler.stats().redelivered, "{twice} arrived twice");
        if dialler.is_native() && dialler.options.on_new_session == OnNewSession::Redeliver {
            self.check_gaps(&lists);
        } else {
            check_subsequence(&arrived, &dialler.application.accepted);
        }
    }

    /// Whoever redelivers leaves nothing out.
    fn check_gaps(&self, lists: &[Vec<u32>]) {
        let options = &self.setup.options;
        let has_discarded = self.accepted.iter().any(|end| end.has_closed_reading);
        if !lossless(options[0].write_buffer) || !lossless(options[1].read_buffer) || has_discarded {
            return;
        }
        let is_too_large = options[1].max_size < options[0].max_size;
        let mut next = 0;
        for list in lists.iter().filter(|_| !is_too_large) {
            assert!(is_gapless(list), "nothing is left out within a session: {list:?}");
            assert!(list.first().is_none_or(|first| *first <= next), "{list:?} begins behind {next}");
            next = list.last().map_or(next, |last| next.max(last + 1));
        }
    }
}

fn is_gapless(numbers: &[u32]) -> bool {
    numbers.windows(2).all(|pair| pair[0] + 1 == pair[1])
}

/// The numbers of the messages that an end saw.
pub fn messages(end: &End, mut on_stream: impl FnMut(u32)) -> Vec<u32> {
    let seen = end.application.seen.iter();
    seen.filter_map(|seen| match seen {
        Seen::Message { stream, number } => {
            on_stream(*stream);
            Some(*number)
        }
        _ => None,
    })
    .collect()
}

/// The numbers of those that one stream brought.
fn messages_from(end: &End, from: u32) -> Vec<u32> {
    let seen = end.application.seen.iter();
    seen.filter_map(|seen| match seen {
        Seen::Message { stream, number } if *stream == from => Some(*number),
        _ => None,
    })
    .collect()
}

/// What one link brought is what went into it, up to some message; a lossy buffer has holes.
fn check_prefix(arrived: &[u32], written: &[u32], buffer: Buffer) {
    if lossless(buffer) {
        assert!(written.starts_with(arrived), "{arrived:?} is not how {written:?} begins");
    } else {
        check_subsequence(arrived, written);
    }
}

fn check_subsequence(arrived: &[u32], accepted: &[u32]) {
    assert!(arrived.windows(2).all(|pair| pair[0] < pair[1]), "in order and none twice: {arrived:?}");
    let mut left = accepted.iter();
    for number in arrived {
        assert!(left.any(|accepted| accepted == number), "{number} was never sent");
    }
}
