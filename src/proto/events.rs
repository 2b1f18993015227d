//! The values that a reader sees beside its messages, their grammar, and how those that nobody has
//! taken yet merge. Knows nothing of why a link broke; it is told.
//!
//! 1. `never_two_of_a_kind_in_a_row`: no C without a D between, no D without a C, nothing behind X.
//! 2. `d_c_d_c_becomes_the_latest_d_c`, but never across a message.
//! 3. `nothing_grows_while_nobody_reads`: at most five values wait at one place.
//! 4. `closed_stays`: it can be taken any number of times.

use std::collections::VecDeque;
use std::time::Duration;

/// Why a link or a handle ended. Python's `Reason` has the same members (compared by a test).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    Refused,
    Unreachable,
    NameNotFound,
    NameLookupFailed,
    OpenTimeout,
    Rejected,
    Busy,
    Eof,
    Truncated,
    Reset,
    HeartbeatTimeout,
    SlowFrame,
    WriteStalled,
    Flood,
    Protocol,
    TooLarge,
    NoMemory,
    Replaced,
    Moved,
    SessionExpired,
    ClosedHere,
    ClosedByPeer,
    CloseTimeout,
    Aborted,
    Shutdown,
    Internal,
}

impl Reason {
    pub const ALL: [Self; 26] = [
        Self::Refused,
        Self::Unreachable,
        Self::NameNotFound,
        Self::NameLookupFailed,
        Self::OpenTimeout,
        Self::Rejected,
        Self::Busy,
        Self::Eof,
        Self::Truncated,
        Self::Reset,
        Self::HeartbeatTimeout,
        Self::SlowFrame,
        Self::WriteStalled,
        Self::Flood,
        Self::Protocol,
        Self::TooLarge,
        Self::NoMemory,
        Self::Replaced,
        Self::Moved,
        Self::SessionExpired,
        Self::ClosedHere,
        Self::ClosedByPeer,
        Self::CloseTimeout,
        Self::Aborted,
        Self::Shutdown,
        Self::Internal,
    ];

    /// The member's name in Python.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "REFUSED",
            Self::Unreachable => "UNREACHABLE",
            Self::NameNotFound => "NAME_NOT_FOUND",
            Self::NameLookupFailed => "NAME_LOOKUP_FAILED",
            Self::OpenTimeout => "OPEN_TIMEOUT",
            Self::Rejected => "REJECTED",
            Self::Busy => "BUSY",
            Self::Eof => "EOF",
            Self::Truncated => "TRUNCATED",
            Self::Reset => "RESET",
            Self::HeartbeatTimeout => "HEARTBEAT_TIMEOUT",
            Self::SlowFrame => "SLOW_FRAME",
            Self::WriteStalled => "WRITE_STALLED",
            Self::Flood => "FLOOD",
            Self::Protocol => "PROTOCOL",
            Self::TooLarge => "TOO_LARGE",
            Self::NoMemory => "NO_MEMORY",
            Self::Replaced => "REPLACED",
            Self::Moved => "MOVED",
            Self::SessionExpired => "SESSION_EXPIRED",
            Self::ClosedHere => "CLOSED_HERE",
            Self::ClosedByPeer => "CLOSED_BY_PEER",
            Self::CloseTimeout => "CLOSE_TIMEOUT",
            Self::Aborted => "ABORTED",
            Self::Shutdown => "SHUTDOWN",
            Self::Internal => "INTERNAL",
        }
    }
}

/// What ends a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub reason: Reason,
    pub detail: String,
}

impl Fault {
    /// A session in which that happened would only repeat it.
    pub fn is_void(&self) -> bool {
        matches!(self.reason, Reason::Protocol | Reason::TooLarge)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connected {
    pub resumed: bool,
    pub redelivered: u64,
    pub lost: u64,
    /// Which dial of this outage succeeded, from 1; 0 on an accepted connection.
    pub attempt: u64,
    pub peer: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnected {
    pub reason: Reason,
    pub detail: String,
    /// Dials that failed so far in this outage.
    pub attempt: u64,
    pub retry_in: Option<Duration>,
    pub unconfirmed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub reason: Reason,
    pub detail: String,
    pub undelivered: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Connected(Connected),
    Disconnected(Disconnected),
    Closed(Closed),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connected,
    Disconnected,
    Closed,
}

impl Event {
    fn kind(&self) -> Kind {
        match self {
            Self::Connected(_) => Kind::Connected,
            Self::Disconnected(_) => Kind::Disconnected,
            Self::Closed(_) => Kind::Closed,
        }
    }
}

/// Values that wait to be taken, each in front of the message with the number it carries.
#[derive(Debug, Default)]
pub struct EventQueue {
    waiting: VecDeque<(u64, Event)>,
    /// The kind of the last one that was ever put in, taken or not.
    last: Option<Kind>,
}

impl EventQueue {
    /// Puts a value in front of message `before`. `first` is the oldest message that still waits:
    /// values whose later messages were dropped have become neighbours.
    ///
    /// A second D of the same outage only brings the one that waits up to date, if it still waits.
    pub fn push(&mut self, event: Event, before: u64, first: u64) {
        if self.last == Some(Kind::Closed) {
            return;
        }
        if self.last == Some(event.kind()) {
            self.refresh(event);
            return;
        }
        self.last = Some(event.kind());
        self.waiting.push_back((before, event));
        self.merge(first);
    }

    /// The value that comes before message `first`, if one does.
    pub fn front(&self, first: u64) -> Option<&Event> {
        self.waiting.front().filter(|(before, _)| *before <= first).map(|(_, event)| event)
    }

    /// Takes what `front` showed; Closed stays.
    pub fn pop(&mut self) {
        if !matches!(self.waiting.front(), Some((_, Event::Closed(_)))) {
            self.waiting.pop_front();
        }
        if self.waiting.is_empty() {
            // The next one may be hours away.
            self.waiting = VecDeque::new();
        }
    }

    /// How many are ready in front of message `first`.
    pub fn ready(&self, first: u64) -> usize {
        self.waiting.iter().take_while(|(before, _)| *before <= first).count()
    }

    /// Forgets everything but a Closed: this side closes and shows nothing more.
    pub fn clear(&mut self) {
        self.waiting.retain(|(_, event)| event.kind() == Kind::Closed);
    }

    pub fn is_closed(&self) -> bool {
        self.last == Some(Kind::Closed)
    }

    fn refresh(&mut self, event: Event) {
        if let (Some((_, Event::Disconnected(old))), Event::Disconnected(new)) = (self.waiting.back_mut(), event) {
            old.attempt = new.attempt;
            old.retry_in = new.retry_in;
            old.unconfirmed = new.unconfirmed;
        }
    }

    /// Of D C D C that wait at one place, the last D C remain. The messages between older values may
    /// have been dropped since they came, so not only the newest are looked at.
    fn merge(&mut self, first: u64) {
        let mut at = 0;
        while let Some(merged) = self.merged_at(at, first) {
            let Some(merged) = merged else {
                at += 1;
                continue;
            };
            self.waiting.drain(at..at + 2);
            if let Some((_, Event::Connected(newest))) = self.waiting.get_mut(at + 1) {
                *newest = merged;
            }
        }
    }

    /// What the second C becomes if D C D C begins at `at`; the outer None is behind the last four.
    fn merged_at(&self, at: usize, first: u64) -> Option<Option<Connected>> {
        let place = |index: usize| self.waiting.get(index).map(|(before, _)| (*before).max(first));
        let event = |index: usize| self.waiting.get(index).map(|(_, event)| event);
        let behind = place(at + 3)?;
        let (Some(Event::Disconnected(_)), Some(Event::Connected(old)), Some(Event::Connected(new))) =
            (event(at), event(at + 1), event(at + 3))
        else {
            return Some(None);
        };
        Some((place(at) == Some(behind)).then(|| Connected {
            resumed: old.resumed && new.resumed,
            redelivered: old.redelivered.saturating_add(new.redelivered),
            lost: old.lost.saturating_add(new.lost),
            ..new.clone()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(lost: u64, resumed: bool) -> Event {
        Event::Connected(Connected { resumed, redelivered: 0, lost, attempt: 1, peer: String::new() })
    }

    fn down(attempt: u64) -> Event {
        let detail = String::new();
        Event::Disconnected(Disconnected { reason: Reason::Eof, detail, attempt, retry_in: None, unconfirmed: 0 })
    }

    fn over() -> Event {
        Event::Closed(Closed { reason: Reason::ClosedHere, detail: String::new(), undelivered: 0 })
    }

    fn drain(queue: &mut EventQueue, first: u64) -> Vec<Event> {
        let mut taken = Vec::new();
        while let Some(event) = queue.front(first).cloned() {
            queue.pop();
            taken.push(event);
            if queue.is_closed() && queue.waiting.len() == 1 && queue.ready(first) == 1 {
                taken.extend(queue.front(first).cloned());
                break;
            }
        }
        taken
    }

    #[test]
    fn never_two_of_a_kind_in_a_row() {
        let mut queue = EventQueue::default();
        queue.push(up(0, true), 0, 0);
        queue.push(up(0, true), 0, 0);
        queue.push(down(0), 3, 0);
        assert_eq!(drain(&mut queue, 9).len(), 2);
        queue.push(down(1), 3, 3);
        assert_eq!(queue.front(9), None);
        queue.push(over(), 3, 3);
        queue.push(up(0, true), 3, 3);
        assert_eq!(queue.front(9), Some(&over()));
        assert_eq!(queue.ready(9), 1);
    }

    #[test]
    fn one_d_per_outage_counts_its_attempts() {
        let mut queue = EventQueue::default();
        for attempt in 1..=5 {
            queue.push(down(attempt), 0, 0);
        }
        assert_eq!(drain(&mut queue, 0), vec![down(5)]);
    }

    #[test]
    fn d_c_d_c_becomes_the_latest_d_c() {
        let mut queue = EventQueue::default();
        for event in [down(1), up(2, true), down(3), up(4, false)] {
            queue.push(event, 7, 0);
        }
        assert_eq!(drain(&mut queue, 7), vec![down(3), up(6, false)]);
    }

    #[test]
    fn values_never_merge_across_a_message() {
        let mut queue = EventQueue::default();
        queue.push(down(1), 7, 0);
        queue.push(up(0, true), 7, 0);
        queue.push(down(3), 8, 0);
        queue.push(up(0, true), 8, 0);
        assert_eq!(drain(&mut queue, 8).len(), 4);
    }

    #[test]
    fn values_become_neighbours_when_the_messages_between_are_dropped() {
        let mut queue = EventQueue::default();
        queue.push(down(1), 7, 0);
        queue.push(up(0, true), 7, 0);
        queue.push(down(3), 8, 8);
        queue.push(up(0, true), 8, 8);
        assert_eq!(drain(&mut queue, 8), vec![down(3), up(0, true)]);
    }

    #[test]
    fn nothing_grows_while_nobody_reads() {
        let mut queue = EventQueue::default();
        for n in 0..1000 {
            queue.push(up(1, true), 0, 0);
            queue.push(down(n), 0, 0);
            assert!(queue.ready(0) <= 5);
        }
    }

    #[test]
    fn nothing_grows_while_a_sliding_buffer_drops_the_messages_between() {
        let mut queue = EventQueue::default();
        for n in 0..1000 {
            queue.push(up(1, true), n, n.saturating_sub(1));
            queue.push(down(n), n + 1, n);
            assert!(queue.waiting.len() <= 7, "{}", queue.waiting.len());
        }
        assert!(queue.ready(1000) <= 7);
    }

    #[test]
    fn closed_stays() {
        let mut queue = EventQueue::default();
        queue.push(over(), 2, 2);
        assert_eq!(queue.front(1), None);
        for _ in 0..3 {
            assert_eq!(queue.front(2), Some(&over()));
            queue.pop();
        }
    }
}
