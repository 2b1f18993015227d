//! One end, composed of what ships: the two halves and the endpoint, its orders executed on the
//! simulated network as the real link executes them on sockets.

use std::time::Duration;

use netasync::proto::Moment;
use netasync::proto::account::Stats;
use netasync::proto::classic::{Fault, HEADER, encode_header};
use netasync::proto::endpoint::{Endpoint, Facts, Input, Order, Phase, Role, State};
use netasync::proto::events::Reason;
use netasync::proto::halves::{Receiver, Sender};
use netasync::proto::options::{Buffer, Options, Policy};
use netasync::proto::outbox::Push;

use crate::application::{Application, encode};
use crate::network::{Network, Read, Side};
use crate::random::Random;

/// A read of the socket brings at most this much.
pub const READ: usize = 2048;
/// Messages are at most this long.
pub const LONGEST: usize = 6000;

#[derive(Debug)]
pub struct Link {
    pub wire: usize,
    pub side: Side,
    pub is_reading: bool,
    /// The peer's stream has ended.
    pub is_heard: bool,
    /// Our stream is to end; a half-written heartbeat still goes out before, or the peer would take
    /// the end for a cut.
    is_ending: bool,
    /// The last moment that counts for silence: link up, bytes read, reading resumed.
    heard: Moment,
}

pub struct End {
    pub role: Role,
    pub stream: u32,
    pub endpoint: Endpoint,
    pub receiver: Receiver,
    pub sender: Sender,
    pub options: Options,
    pub link: Option<Link>,
    /// Since when a dial is under way.
    pub dialling: Option<Moment>,
    pub application: Application,
    /// Its process does not exist any more.
    pub is_gone: bool,
    /// Faults that this end found, and when.
    pub verdicts: Vec<(Moment, Reason)>,
    /// The host at the other side of its link is gone for good: any verdict is right.
    pub is_doomed: bool,
    pub closing_since: Option<Moment>,
    pub ended_at: Option<Moment>,
    random: Random,
}

impl End {
    pub fn new(
        role: Role,
        stream: u32,
        options: &Options,
        application: Application,
        mut random: Random,
        now: Moment,
    ) -> Self {
        Self {
            role,
            stream,
            endpoint: Endpoint::new(role, options, random.draw()),
            receiver: Receiver::new(options, now),
            sender: Sender::new(options, now),
            options: options.clone(),
            link: None,
            dialling: None,
            application,
            is_gone: false,
            verdicts: Vec::new(),
            is_doomed: false,
            closing_since: None,
            ended_at: None,
            random,
        }
    }

    pub fn phase(&self) -> Phase {
        self.endpoint.phase()
    }

    pub fn is_ended(&self) -> bool {
        self.phase() == Phase::Ended
    }

    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.receiver.account(&mut stats);
        self.sender.account(&mut stats);
        stats.attempts = self.endpoint.attempts();
        stats
    }

    /// The link is up on this side.
    pub fn linked(&mut self, wire: usize, side: Side, input: Input, network: &mut Network, now: Moment) {
        self.dialling = None;
        self.is_doomed = false;
        self.receiver.link_up(&self.options, now);
        self.sender.link_up(now);
        self.link = Some(Link {
            wire,
            side,
            is_reading: self.receiver.wants_bytes(),
            is_heard: false,
            is_ending: false,
            heard: now,
        });
        self.step(input, network, now);
    }

    pub fn close(&mut self, network: &mut Network, now: Moment) {
        self.stop(Input::Close(Reason::ClosedHere), network, now);
    }

    pub fn abort(&mut self, network: &mut Network, now: Moment) {
        self.stop(Input::Abort(Reason::Aborted), network, now);
    }

    fn stop(&mut self, input: Input, network: &mut Network, now: Moment) {
        if self.is_ended() {
            return;
        }
        self.closing_since.get_or_insert(now);
        self.receiver.close();
        self.application.writing.left = 0;
        self.application.owed = 0;
        self.step(input, network, now);
    }

    pub fn step(&mut self, input: Input, network: &mut Network, now: Moment) {
        if let Input::Broke(fault) = &input
            && !self.is_doomed
        {
            self.verdicts.push((now, fault.reason));
        }
        let facts = Facts {
            queued: self.sender.queued(),
            owes_answer: self.receiver.has_message() || self.application.owed > 0,
            brought_message: self.receiver.link_brought_message(),
        };
        let was_ended = self.is_ended();
        let orders = self.endpoint.step(input, facts, now);
        if self.is_ended() {
            self.ended_at.get_or_insert(now);
        }
        for order in orders {
            assert!(!was_ended, "nothing is ordered after the end");
            match order {
                Order::Dial => {
                    assert!(self.link.is_none() && self.dialling.is_none());
                    self.dialling = Some(now);
                }
                Order::HangUp => self.hang_up(network, now),
                Order::EndStream => {
                    assert_eq!(facts.queued, 0, "the stream ends behind the last message");
                    self.end_stream(network);
                }
                Order::Deliver(event) => self.receiver.push_event(event),
            }
        }
    }

    fn hang_up(&mut self, network: &mut Network, now: Moment) {
        self.dialling = None;
        self.receiver.link_down();
        self.sender.link_down();
        if let Some(link) = self.link.take() {
            network.close(link.wire, link.side, now);
        }
    }

    fn end_stream(&mut self, network: &mut Network) {
        if let Some(link) = &mut self.link {
            link.is_ending = true;
            if self.sender.is_empty() {
                network.end_stream(link.wire, link.side);
            }
        }
    }

    /// The process ends: its kernel closes what it leaves behind.
    pub fn kill(&mut self, network: &mut Network, now: Moment) {
        self.is_gone = true;
        if let Some(link) = self.link.take() {
            network.close(link.wire, link.side, now);
        }
    }

    /// The host is gone without a word.
    pub fn vanish(&mut self, network: &mut Network) {
        self.is_gone = true;
        if let Some(link) = self.link.take() {
            network.vanish(link.wire, link.side);
        }
    }

    /// Does all that can be done at this moment; whether anything happened.
    pub fn run(&mut self, network: &mut Network, now: Moment) -> bool {
        let mut has_moved = self.read(network, now);
        has_moved |= self.application.take(&mut self.receiver, now) > 0;
        has_moved |= self.produce(network, now);
        has_moved |= self.write(network, now);
        self.heartbeat(network, now);
        // A look has just been made.
        if let Some(reason) = self.verdict(now) {
            self.broke(reason, network, now);
            has_moved = true;
        }
        let before = self.phase();
        self.step(Input::Looked, network, now);
        has_moved | (before != self.phase())
    }

    fn verdict(&self, now: Moment) -> Option<Reason> {
        let link = self.link.as_ref()?;
        if let Some(fault) = self.receiver.fault() {
            return Some(fault.reason);
        }
        let verdict = (!link.is_heard).then(|| self.receiver.judge(now)).flatten()?;
        assert!(link.is_reading, "who does not read judges nobody");
        Some(verdict)
    }

    fn broke(&mut self, reason: Reason, network: &mut Network, now: Moment) {
        let detail = String::new();
        self.step(Input::Broke(Fault { reason, detail }), network, now);
    }

    fn read(&mut self, network: &mut Network, now: Moment) -> bool {
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
                    link.heard = now;
                    self.receiver.feed(&bytes, now);
                    link.is_reading = self.receiver.wants_bytes();
                }
                Read::Reset => self.broke(Reason::Reset, network, now),
                Read::Eof => {
                    link.is_heard = true;
                    if self.receiver.link_down() {
                        self.broke(Reason::Truncated, network, now);
                    } else {
                        self.step(Input::Eof, network, now);
                    }
                }
            }
            has_moved = true;
            network.advance(now);
        }
        has_moved
    }

    /// The application sends what it wants to send.
    fn produce(&mut self, network: &mut Network, now: Moment) -> bool {
        if self.is_ended() || self.closing_since.is_some() {
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
            let Some(push) = push.filter(|push| *push != Push::Full) else {
                assert!(push.is_none() || !self.sender.has_room());
                self.application.next_write = now + self.application.writing.period;
                break;
            };
            has_moved = true;
            self.application.number += 1;
            if push == Push::Accepted {
                self.application.accepted.push(number);
            }
            self.sent(now);
        }
        has_moved
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

    /// Past the empty queue where that is possible, as the fast path does. None: the link has failed.
    fn send(&mut self, payload: &[u8], network: &mut Network, now: Moment) -> Option<Push> {
        let may_pass = self.sender.is_empty() && self.random.one_in(2);
        let Some(link) = self.link.as_ref().filter(|link| may_pass && !link.is_ending) else {
            return Some(self.sender.push(payload));
        };
        let frame = [&encode_header(payload.len())[..], payload].concat();
        let Some(written) = network.write(link.wire, link.side, &frame) else {
            self.broke(Reason::Reset, network, now);
            return None;
        };
        if written == 0 {
            return Some(self.sender.push(payload));
        }
        self.sender.passed(payload, written, now);
        network.advance(now);
        Some(Push::Accepted)
    }

    fn write(&mut self, network: &mut Network, now: Moment) -> bool {
        let mut has_moved = false;
        while let Some(link) = &self.link {
            let unsent = self.sender.unsent();
            let part = if unsent[0].is_empty() { unsent[1] } else { unsent[0] };
            if part.is_empty() {
                if link.is_ending {
                    network.end_stream(link.wire, link.side);
                }
                break;
            }
            match network.write(link.wire, link.side, part) {
                Some(0) => break,
                Some(written) => self.sender.wrote(written, now),
                None => self.broke(Reason::Reset, network, now),
            }
            has_moved = true;
            network.advance(now);
        }
        has_moved
    }

    fn heartbeat(&mut self, network: &mut Network, now: Moment) {
        let Some(link) = self.link.as_ref().filter(|link| !link.is_ending) else {
            return;
        };
        let Some(heartbeat) = self.sender.heartbeat(now) else {
            return;
        };
        match network.write(link.wire, link.side, heartbeat) {
            Some(written) => self.sender.heartbeat_passed(written, now),
            None => self.broke(Reason::Reset, network, now),
        }
    }

    /// When it must be run although nothing comes.
    pub fn next(&self) -> Option<Moment> {
        let mut dues = vec![self.endpoint.deadline(), self.application.next(self.receiver.ready())];
        if let Some(link) = &self.link {
            if !link.is_heard {
                dues.push(self.receiver.deadline());
            }
            if !link.is_ending && self.sender.is_empty() {
                dues.push(Some(self.sender.heartbeat_deadline()));
            }
        }
        dues.into_iter().flatten().min()
    }

    /// What holds at every quiet moment. `allowance` is how long this process stood still.
    pub fn check(&self, now: Moment, allowance: Duration) {
        let stats = self.stats();
        assert!(stats.balances(), "{stats:?}");
        self.check_bounds(&stats);
        if let Some(since) = self.closing_since {
            let limit = since + self.options.close_timeout + allowance;
            assert!(now < limit || self.is_ended(), "closing ends within close_timeout");
            assert!(matches!(self.endpoint.state(), State::Closing | State::Closed));
        }
        if self.is_ended() {
            assert!(self.link.is_none() && self.dialling.is_none());
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
        let most = write.max_bytes + slack as u64;
        assert!(self.sender.unsent_bytes() as u64 <= most);
        // What one read brought beyond the limit stays when the link ends.
        let beyond = if read.policy == Policy::Fixed { READ / 12 } else { 0 };
        let links = usize::try_from(stats.links).unwrap();
        let waiting = usize::try_from(stats.waiting).unwrap();
        assert!(waiting <= read.count + beyond, "{stats:?}, {links} links");
        let values = self.receiver.ready() - waiting;
        assert!(values <= 7 * (waiting + 1), "{values} values for {waiting} messages");
    }
}

pub fn lossless(buffer: Buffer) -> bool {
    buffer.policy == Policy::Fixed
}
