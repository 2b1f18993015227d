//! One end, composed of what ships: the two halves and the endpoint, its orders executed on the
//! simulated network as the real link executes them on sockets. How it reads and writes stands in
//! `traffic.rs`, what must hold of it in `bounds.rs`.

use netasync::proto::Moment;
use netasync::proto::account::Stats;
use netasync::proto::endpoint::{Endpoint, Facts, Input, Order, Phase, Role};
use netasync::proto::events::{Connected, Event, Reason};
use netasync::proto::halves::{Opened, Receiver, Sender};
use netasync::proto::options::{OnNewSession, Options, Protocol};
use netasync::proto::receipts::{Goal, Outcome, Ticket};
use netasync::proto::standing::{Known, Standing};
use netasync::proto::wire::{Goodbye, close};

use crate::application::Application;
use crate::greeting::{Asked, Greeted};
use crate::network::{Network, Side};
use crate::random::Random;
use crate::tap::Tap;

#[derive(Debug)]
pub struct Link {
    pub wire: usize,
    pub side: Side,
    pub is_reading: bool,
    /// The peer's stream has ended.
    pub is_heard: bool,
    /// Our stream is to end; a half-written heartbeat still goes out before, or the peer would take
    /// the end for a cut.
    pub is_ending: bool,
    /// The last moment that counts for silence: link up, bytes read, reading resumed.
    pub heard: Moment,
    /// A write has failed; why is found by reading.
    pub has_failed: bool,
    /// The network took less than it was offered.
    pub is_stalled: bool,
    /// Since when it has taken nothing of what it was offered.
    pub stuck_since: Option<Moment>,
    /// Since when there is news that the peer has not been told, though the network would take it.
    pub untold_since: Option<Moment>,
}

/// A link that is up and not installed yet.
pub struct Dialed {
    pub wire: usize,
    pub side: Side,
    pub greeted: Option<Greeted>,
}

pub struct End {
    pub role: Role,
    pub stream: u32,
    pub endpoint: Endpoint,
    pub receiver: Receiver,
    pub sender: Sender,
    pub options: Options,
    pub link: Option<Link>,
    /// Since when a dial is under way, and the greeting that it has come to.
    pub dialling: Option<Moment>,
    pub asked: Option<Asked>,
    pub greetings: u32,
    /// The session that the next greeting may ask for, or that this end is known by.
    pub known: Option<Known>,
    /// Sessions that it has been in.
    pub sessions: u64,
    dialed: Option<Dialed>,
    /// What went out on each link that there was, by its wire.
    pub taps: Vec<(usize, Tap)>,
    pub application: Application,
    /// PINGs that were answered while they were the newest.
    pub pongs: u64,
    /// Messages whose fate it waits for, and those whose fate it knows.
    pub awaited: Vec<(Ticket, u32, Goal)>,
    pub fates: Vec<(u32, Goal, Outcome)>,
    /// The listener knows that it has no link.
    pub is_absent: bool,
    /// Its listener has closed.
    pub is_deserted: bool,
    /// Its process does not exist any more.
    pub is_gone: bool,
    /// Faults that this end found, and when.
    pub verdicts: Vec<(Moment, Reason)>,
    /// The host at the other side of its link is gone for good: any verdict is right.
    pub is_doomed: bool,
    pub closing_since: Option<Moment>,
    pub has_closed_reading: bool,
    pub ended_at: Option<Moment>,
    closed: Option<Reason>,
    /// When it showed Closed; its goodbye may be said later.
    pub closed_at: Option<Moment>,
    /// When whoever keeps the time looks whether something is to be told.
    pub tell_by: Option<Moment>,
    /// When something promised must have been done; only looked at, never waited for.
    pub promised_by: Option<Moment>,
    /// When the life of this end learns of the goodbye that was read.
    pub hear_by: Option<Moment>,
    pub random: Random,
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
            asked: None,
            greetings: 0,
            known: None,
            sessions: 0,
            dialed: None,
            taps: Vec::new(),
            application,
            pongs: 0,
            awaited: Vec::new(),
            fates: Vec::new(),
            is_absent: false,
            is_deserted: false,
            is_gone: false,
            verdicts: Vec::new(),
            is_doomed: false,
            closing_since: None,
            has_closed_reading: false,
            ended_at: None,
            closed: None,
            closed_at: None,
            tell_by: None,
            promised_by: None,
            hear_by: None,
            random,
        }
    }

    /// Why it ended, whether its application has seen that or not.
    pub fn ended_for(&self) -> Option<Reason> {
        self.closed
    }

    /// Messages longer than this travel in PARTs.
    pub fn with_part(mut self, part: usize) -> Self {
        self.sender.set_part(part);
        self
    }

    pub fn phase(&self) -> Phase {
        self.endpoint.phase()
    }

    pub fn is_ended(&self) -> bool {
        self.phase() == Phase::Ended
    }

    pub fn is_native(&self) -> bool {
        self.options.protocol == Protocol::Native
    }

    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.receiver.account(&mut stats);
        self.sender.account(&mut stats);
        stats.attempts = self.endpoint.attempts();
        stats
    }

    /// The link is up on this side.
    pub fn linked(&mut self, dialed: Dialed, input: Input, network: &mut Network, now: Moment) {
        self.dialling = None;
        self.asked = None;
        self.is_doomed = false;
        self.dialed = Some(dialed);
        self.step(input, network, now);
    }

    /// As `linked` is, but there is none.
    pub fn failed(&mut self, input: Input, network: &mut Network, now: Moment) {
        self.dialling = None;
        if let Some(asked) = self.asked.take() {
            network.close(asked.wire, 0, now);
        }
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
        if matches!(input, Input::Abort(_)) && self.is_native() {
            self.blame(&Goodbye { code: close::ABORTED, words: String::new() }, network);
        }
        self.step(input, network, now);
    }

    pub fn step(&mut self, input: Input, network: &mut Network, now: Moment) {
        if let Input::Broke(fault) = &input
            && !self.is_doomed
            && fault.reason != Reason::Replaced
        {
            self.verdicts.push((now, fault.reason));
        }
        let facts = self.facts();
        let was_ended = self.is_ended();
        let orders = self.endpoint.step(input, facts, now);
        if self.is_ended() {
            self.ended_at.get_or_insert(now);
        }
        for order in orders {
            if let Order::Deliver(event) = &order {
                assert_eq!(self.closed, None, "nothing is shown behind Closed: {event:?}");
                if let Event::Closed(closed) = event {
                    self.closed = Some(closed.reason);
                    self.closed_at = Some(now);
                }
            }
            assert!(!was_ended, "nothing is ordered after the end");
            self.obey(order, facts, network, now);
        }
    }

    pub fn facts(&self) -> Facts {
        Facts {
            queued: self.sender.queued(),
            unconfirmed: self.sender.unconfirmed(),
            goes_again: self.known.is_some() || self.options.on_new_session == OnNewSession::Redeliver,
            has_session: self.role == Role::Dialler && self.known.is_some(),
            has_greeted: self.asked.is_some(),
            has_said_close: self.sender.has_closed(),
            owes_answer: self.receiver.has_message() || self.application.owed > 0,
        }
    }

    fn obey(&mut self, order: Order, facts: Facts, network: &mut Network, now: Moment) {
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
            Order::SayClose { goodbye, after } => {
                self.sender.close(goodbye, after);
                self.write(network, now);
            }
            Order::Blame(goodbye) => self.blame(&goodbye, network),
            Order::Forget => {
                assert_eq!(self.role, Role::Dialler);
                self.known = None;
            }
            Order::Attach => {
                if let Some(dialed) = self.dialed.take() {
                    self.install(Connected::default(), dialed, now);
                }
            }
            Order::Deliver(event) => match (event, self.dialed.take()) {
                (Event::Connected(connected), Some(dialed)) => self.install(connected, dialed, now),
                (event, _) => self.receiver.push_event(event),
            },
        }
    }

    /// Its value stands in front of everything that the link will bring.
    fn install(&mut self, mut connected: Connected, dialed: Dialed, now: Moment) {
        let Dialed { wire, side, greeted } = dialed;
        let agreement = greeted.as_ref().map(|greeted| &greeted.agreement);
        let first_by = greeted.as_ref().map(|greeted| greeted.first_by);
        self.receiver.link_up(&self.options, Opened { agreement, first_by, now });
        let carried = self.sender.link_up(agreement, now);
        (connected.redelivered, connected.lost) = (carried.redelivered, carried.lost);
        connected.resumed = agreement.is_some_and(|agreement| agreement.is_resumed);
        self.sessions += u64::from(!connected.resumed);
        self.known = agreement.map(|agreement| Known { session: agreement.session, token: agreement.token });
        let announced = self.sender.announced();
        self.receiver.push_event(Event::Connected(connected));
        (self.hear_by, self.tell_by) = (None, None);
        self.taps.push((wire, Tap::new(self.options.protocol, announced)));
        self.link = Some(Link {
            wire,
            side,
            is_reading: self.receiver.wants_bytes(),
            is_heard: false,
            is_ending: false,
            heard: now,
            has_failed: false,
            is_stalled: false,
            stuck_since: None,
            untold_since: None,
        });
        let rest = greeted.map(|greeted| greeted.rest).unwrap_or_default();
        if !rest.is_empty() {
            self.fed(&rest, now);
        }
    }

    /// Where it stands in its session.
    pub fn standing(&self) -> Standing {
        self.receiver.standing(&self.sender)
    }

    fn hang_up(&mut self, network: &mut Network, now: Moment) {
        self.dialling = None;
        let has_parted = self.receiver.has_heard_goodbye() && self.sender.has_closed();
        self.receiver.link_down();
        self.sender.link_down();
        if let Some(asked) = self.asked.take() {
            network.close(asked.wire, 0, now);
        }
        if let Some(dialed) = self.dialed.take() {
            network.close(dialed.wire, dialed.side, now);
        }
        match self.link.take() {
            // Unread bytes would become a reset, which can overtake our last words.
            Some(link) if has_parted => network.part(link.wire, link.side),
            Some(link) => network.close(link.wire, link.side, now),
            None => {}
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

    fn blame(&mut self, goodbye: &Goodbye, network: &mut Network) {
        let Some(link) = self.link.as_ref().filter(|link| !link.has_failed && !link.is_stalled) else {
            return;
        };
        if let Some(frame) = self.sender.last_word(goodbye, self.receiver.numbers()) {
            let taken = network.write(link.wire, link.side, &frame).unwrap_or(0);
            self.tap().took(&frame[..taken]);
        }
    }

    /// What went out on the newest link.
    pub fn tap(&mut self) -> &mut Tap {
        let (_, tap) = self.taps.last_mut().expect("there has been a link");
        tap
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
        has_moved |= self.take(now);
        has_moved |= self.produce(network, now);
        has_moved |= self.write(network, now);
        has_moved |= self.hear_goodbye_in_time(network, now);
        self.heartbeat(network, now);
        self.tell_if_due(network, now);
        // A look has just been made.
        if let Some(fault) = self.verdict(now) {
            self.step(Input::Broke(fault), network, now);
            has_moved = true;
        }
        self.learn_fates();
        let before = self.phase();
        self.step(Input::Looked, network, now);
        self.note_news(now);
        has_moved | (before != self.phase())
    }

    /// When it must be run although nothing comes.
    pub fn next(&self) -> Option<Moment> {
        let mut dues = vec![self.endpoint.deadline(), self.application.next(self.receiver.ready())];
        if let Some(link) = &self.link {
            if !link.is_heard {
                dues.push(self.receiver.deadline());
            }
            let may_speak = if self.is_native() { !link.is_stalled } else { self.sender.is_empty() };
            if !link.is_ending && may_speak {
                dues.push(Some(self.sender.heartbeat_deadline()));
            }
            dues.extend([self.sender.stall_deadline(), self.tell_by, self.hear_by]);
            dues.push(self.promised_by);
        }
        dues.into_iter().flatten().min()
    }
}
