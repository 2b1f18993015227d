//! How an end reads, writes, answers and judges, as the real link does it on sockets.

use std::time::Duration;

use netasync::proto::Moment;
use netasync::proto::classic::encode_header;
use netasync::proto::endpoint::{Input, Phase, Role};
use netasync::proto::events::{Fault, Reason};
use netasync::proto::outbox::Push;
use netasync::proto::receipts::Goal;
use netasync::proto::telling::Untold;

use crate::application::encode;
use crate::end::End;
use crate::network::{Network, Read};

/// A read of the socket brings at most this much.
pub const READ: usize = 2048;

impl End {
    pub fn read(&mut self, network: &mut Network, now: Moment) -> bool {
        let mut has_moved = false;
        while let Some(link) = &mut self.link {
            if !link.is_reading && self.receiver.wants_bytes_again() {
                link.is_reading = true;
                link.heard = now;
                self.receiver.resume(now);
            }
            if !link.is_reading || link.is_heard || self.receiver.fault().is_some() {
                break;
            }
            let limit = self.random.size(1, READ);
            match network.read(link.wire, link.side, limit) {
                Read::Nothing => break,
                Read::Bytes(bytes) => {
                    self.fed(&bytes, now);
                    self.hear_goodbye_in_time(network, now);
                }
                Read::Reset => {
                    self.hear_goodbye(network, now);
                    self.broke(Reason::Reset, network, now);
                }
                Read::Eof => {
                    self.hear_goodbye(network, now);
                    self.heard_end(network, now);
                }
            }
            has_moved = true;
            network.advance(now);
        }
        has_moved
    }

    pub fn fed(&mut self, bytes: &[u8], now: Moment) {
        self.sort(bytes, now);
        if let Some(link) = &mut self.link {
            link.heard = now;
            link.is_reading = self.receiver.wants_bytes();
        }
        while let Some(control) = self.receiver.next_for_sender() {
            match self.sender.hear(&control, now) {
                Ok(false) => {}
                Ok(true) => {
                    self.pongs += 1;
                    self.receiver.refund();
                }
                Err(fault) => self.receiver.fail(fault),
            }
        }
        if self.receiver.has_goodbye() {
            // The reader may be faster than whoever looks after the life of this end.
            let delay = if self.random.one_in(2) { Duration::ZERO } else { self.random.milliseconds(0, 5) };
            self.hear_by.get_or_insert(now + delay);
        }
        self.tell(now);
    }

    /// Bytes have come. Some of the time as much as can goes to its place by the reader's own hand.
    fn sort(&mut self, bytes: &[u8], now: Moment) {
        let (announced, mut rest) = (self.sender.announced(), bytes);
        while let Some((place, most)) = self.receiver.place().filter(|_| bytes.len() % 2 == 1 && !rest.is_empty()) {
            let (ours, behind) = rest.split_at(rest.len().min(most));
            place.extend_from_slice(ours);
            self.receiver.placed(ours.len(), announced, now);
            rest = behind;
        }
        if !rest.is_empty() {
            self.receiver.feed(rest, announced, now);
        }
    }

    fn heard_end(&mut self, network: &mut Network, now: Moment) {
        let Some(link) = &mut self.link else { return };
        link.is_heard = true;
        // What its last bytes said comes first.
        if let Some(fault) = self.receiver.fault().cloned() {
            self.step(Input::Broke(fault), network, now);
        } else if self.receiver.link_down() {
            self.broke(Reason::Truncated, network, now);
        } else {
            self.step(Input::Eof, network, now);
        }
    }

    pub fn hear_goodbye_in_time(&mut self, network: &mut Network, now: Moment) -> bool {
        let is_due = self.hear_by.is_some_and(|by| now >= by) || self.receiver.fault().is_some();
        is_due && self.hear_goodbye(network, now)
    }

    /// The life of this end learns of the peer's goodbye.
    fn hear_goodbye(&mut self, network: &mut Network, now: Moment) -> bool {
        self.hear_by = None;
        let Some(goodbye) = self.receiver.take_goodbye() else {
            return false;
        };
        self.step(Input::PeerClosed(goodbye), network, now);
        true
    }

    /// The application takes what its pace allows.
    pub fn take(&mut self, now: Moment) -> bool {
        let has_taken = self.application.take(&mut self.receiver, now) > 0;
        if has_taken {
            self.tell(now);
        }
        has_taken
    }

    /// What had arrived can be taken, the rest is dropped.
    pub fn close_reading(&mut self, now: Moment) {
        self.has_closed_reading = true;
        self.receiver.discard_arrivals();
        self.tell(now);
    }

    /// Something was consumed, or may have been: sees to it that the peer is told in time.
    fn tell(&mut self, now: Moment) {
        let announced = self.sender.announced();
        if self.receiver.must_tell(announced) {
            self.sender.ack();
        }
        match self.receiver.note_untold(announced, now, || now) {
            Untold::Quiet => {}
            Untold::Watch => self.tell_by = self.receiver.tell_deadline(announced),
            Untold::Near => self.sender.tell_with_messages(),
        }
    }

    /// Whoever keeps the time looks when it was told to, and not before.
    pub fn tell_if_due(&mut self, network: &mut Network, now: Moment) {
        if self.link.is_none() || self.tell_by.is_none_or(|by| now < by) {
            return;
        }
        let due = self.receiver.tell_deadline(self.sender.announced());
        if due.is_some_and(|due| now >= due) {
            self.sender.ack();
            self.write(network, now);
        }
        self.tell_by = self.receiver.tell_deadline(self.sender.announced()).filter(|due| *due > now);
    }

    pub fn verdict(&mut self, now: Moment) -> Option<Fault> {
        let link = self.link.as_ref()?;
        if let Some(fault) = self.receiver.fault() {
            return Some(fault.clone());
        }
        if link.has_failed {
            return Some(Fault { reason: Reason::Reset, detail: String::new() });
        }
        let silence = (!link.is_heard).then(|| self.receiver.judge(now)).flatten();
        assert!(silence.is_none() || link.is_reading, "who does not read judges nobody");
        let reason = silence.or_else(|| self.sender.judge(now))?;
        Some(Fault { reason, detail: String::new() })
    }

    fn broke(&mut self, reason: Reason, network: &mut Network, now: Moment) {
        let detail = String::new();
        self.step(Input::Broke(Fault { reason, detail }), network, now);
    }

    /// The application sends what it wants to send.
    pub fn produce(&mut self, network: &mut Network, now: Moment) -> bool {
        let is_answering = matches!(self.phase(), Phase::Replying { .. }) && self.role == Role::Accepted;
        if self.is_ended() || self.closing_since.is_some() || is_answering {
            // `send` raises; the application stops.
            self.application.writing.left = 0;
            self.application.owed = 0;
            return false;
        }
        let mut has_moved = false;
        while self.application.due(now) > 0 {
            let number = self.application.number;
            let payload = encode(self.stream, number, self.application.writing.longest);
            let push = self.send(&payload, network, now);
            if push == Push::Full {
                assert!(!self.sender.has_room());
                self.application.next_write = now + self.application.writing.period;
                break;
            }
            has_moved = true;
            self.application.number += 1;
            if push == Push::Accepted {
                self.application.accepted.push(number);
                self.await_fate(number, network, now);
            }
            self.sent(now);
        }
        has_moved
    }

    /// Of some messages it wants to know what becomes of them.
    fn await_fate(&mut self, number: u32, network: &mut Network, now: Moment) {
        let goal = match number % 5 {
            _ if !self.is_native() || self.awaited.len() >= 20 => return,
            1 => Goal::Received,
            3 => Goal::Consumed,
            _ => return,
        };
        let ticket = self.sender.want(goal);
        self.awaited.push((ticket, number, goal));
        self.write(network, now);
    }

    pub fn learn_fates(&mut self) {
        let (sender, fates) = (&mut self.sender, &mut self.fates);
        self.awaited.retain(|(ticket, number, goal)| {
            let outcome = sender.outcome(*ticket);
            fates.extend(outcome.map(|outcome| (*number, *goal, outcome)));
            outcome.is_none()
        });
    }

    fn sent(&mut self, now: Moment) {
        let application = &mut self.application;
        if application.owed > 0 {
            application.owed -= 1;
            return;
        }
        application.writing.left -= 1;
        if application.writing.left.is_multiple_of(application.writing.burst) {
            application.next_write = now + application.writing.period;
        }
    }

    /// Past the empty queue where that is possible, as the fast path does.
    fn send(&mut self, payload: &[u8], network: &mut Network, now: Moment) -> Push {
        let may_pass = self.sender.may_pass(payload.len()) && self.random.one_in(2);
        let link = self.link.as_mut().filter(|link| may_pass && !link.is_ending && !link.has_failed);
        let Some(link) = link else {
            return self.sender.push(payload);
        };
        self.sender.compose_front(self.receiver.numbers());
        let header = encode_header(payload.len());
        let bytes = [self.sender.front(), &header, payload].concat();
        let Some(written) = network.write(link.wire, link.side, &bytes) else {
            link.has_failed = true;
            return self.sender.push(payload);
        };
        link.is_stalled = written < bytes.len();
        if written == 0 {
            // As the kernel says it: an error, and nothing of it counts as written.
            let push = self.sender.push(payload);
            self.note_blocked(true, false, now);
            return push;
        }
        self.sender.passed(payload, written, now);
        self.note_blocked(written < bytes.len(), true, now);
        self.tap().took(&bytes[..written]);
        network.advance(now);
        Push::Accepted
    }

    /// Writes everything that may be written, as far as the network takes it.
    pub fn write(&mut self, network: &mut Network, now: Moment) -> bool {
        let mut has_moved = false;
        while let Some(link) = self.link.as_mut().filter(|link| !link.has_failed) {
            if !self.sender.has_work() {
                link.is_stalled = false;
                if link.is_ending {
                    network.end_stream(link.wire, link.side);
                }
                break;
            }
            self.sender.compose(self.receiver.numbers());
            let bytes = self.sender.parts().concat();
            assert!(!bytes.is_empty(), "where there is work there is something to write");
            let Some(written) = network.write(link.wire, link.side, &bytes) else {
                link.has_failed = true;
                return true;
            };
            let is_blocked = written < bytes.len();
            link.is_stalled = is_blocked;
            if written > 0 {
                self.sender.wrote(written, now);
                self.tap().took(&bytes[..written]);
                has_moved = true;
            }
            self.note_blocked(is_blocked, written > 0, now);
            network.advance(now);
            if written == 0 {
                break;
            }
        }
        has_moved
    }

    fn note_blocked(&mut self, is_blocked: bool, has_moved: bool, now: Moment) {
        self.sender.note_blocked(is_blocked, has_moved, now);
        if let Some(link) = &mut self.link {
            link.stuck_since = match link.stuck_since {
                _ if !is_blocked => None,
                Some(since) if !has_moved => Some(since),
                _ => Some(now),
            };
        }
    }

    pub fn heartbeat(&mut self, network: &mut Network, now: Moment) {
        let Some(link) = self.link.as_ref().filter(|link| !link.is_ending && !link.has_failed) else {
            return;
        };
        if self.is_native() {
            if now >= self.sender.heartbeat_deadline() && !link.is_stalled {
                self.sender.ping();
                self.write(network, now);
            }
            return;
        }
        let Some(heartbeat) = self.sender.heartbeat(now) else {
            return;
        };
        let Some(written) = network.write(link.wire, link.side, heartbeat) else {
            return self.broke(Reason::Reset, network, now);
        };
        self.sender.heartbeat_passed(written, now);
        self.tap().took(&heartbeat[..written]);
    }
}
