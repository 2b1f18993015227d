//! The life of one end: dialling, up, closing, ended. `step` is told what happened and answers with
//! orders; every transition stands in its one `match`. It does not know how to dial, read or write,
//! and holds no messages: [`Facts`] tells it what the halves hold.
//!
//! Theory. A dialler outlives its peer: whatever ends a link is a break, and it dials again with its
//! back-off; only this side's own closing ends it, or, without `reconnect`, the first break. An
//! accepted end lives as long as its link. This wire has no goodbye: a peer's end of stream is all
//! that tells of its leaving. So an accepted end first writes what its application had given it, and
//! lets it answer what it is still working on (`Answering`); a side that closes writes what it holds
//! (`Draining`), ends its stream, and reads to the end of the peer's (`Leaving`), because hanging up
//! with unread input can destroy data on its way out.
//!
//! 1. `a_dialler_ends_only_by_its_own_side`
//! 2. `an_accepted_end_ends_with_its_link`
//! 3. `nothing_is_ordered_after_the_end`
//! 4. `closing_ends_within_close_timeout`
//! 5. `the_stream_is_ended_only_when_everything_was_written`
//! 6. `every_wait_has_a_deadline`
//!
//! The exhaustive state × input table and the simulation hold these against every reachable state.

use std::time::Duration;

use super::Moment;
use super::backoff::Backoff;
use super::classic::Fault;
use super::events::{Closed, Connected, Disconnected, Event, Reason};
use super::options::Options;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Dialler,
    Accepted,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The handle exists. Comes once, first; an accepted one names its peer.
    Started {
        peer: String,
    },
    Dialed {
        peer: String,
    },
    DialFailed(Fault),
    /// The link ended otherwise than by the end of the peer's stream.
    Broke(Fault),
    /// The peer's stream ended between two frames.
    Eof,
    /// A deadline passed, or what `Facts` tells has changed.
    Looked,
    Close(Reason),
    Abort(Reason),
}

/// What the halves hold at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// Messages accepted and not handed to the kernel.
    pub queued: u64,
    /// The application may still answer what it received: a message waits, or was taken by a reader
    /// that has not come back for more.
    pub owes_answer: bool,
    /// This link brought a message.
    pub brought_message: bool,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    Dial,
    /// End the link and give its socket back.
    HangUp,
    /// End our stream; the peer's goes on.
    EndStream,
    Deliver(Event),
}

/// Where the life of this end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    New,
    Dialling,
    /// Waits before the next dial.
    Resting {
        until: Moment,
    },
    Up {
        since: Moment,
    },
    /// Accepted, the peer ended its stream: what is owed goes out.
    Answering {
        until: Moment,
    },
    /// We close: what is queued goes out. `is_heard` says that the peer's stream has ended already.
    Draining {
        is_heard: bool,
    },
    /// We close: everything was written and our stream ended; reads to the end of the peer's.
    Leaving,
    Ended,
}

/// What a user sees of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Connecting,
    Connected,
    Disconnected,
    Closing,
    Closed,
}

/// Our side asked to close.
#[derive(Debug, Clone, Copy)]
struct Closing {
    reason: Reason,
    until: Moment,
}

#[derive(Debug)]
pub struct Endpoint {
    role: Role,
    phase: Phase,
    closing: Option<Closing>,
    /// None: the first break ends a dialler.
    backoff: Option<Backoff>,
    close_timeout: Duration,
    /// Dials that failed in this outage.
    failed: u64,
    /// Dials ever begun.
    attempts: u64,
    has_shown: bool,
}

impl Endpoint {
    pub fn new(role: Role, options: &Options, seed: u64) -> Self {
        Self {
            role,
            phase: Phase::New,
            closing: None,
            backoff: options.reconnect.map(|retry| Backoff::new(retry, seed)),
            close_timeout: options.close_timeout,
            failed: 0,
            attempts: 0,
            has_shown: false,
        }
    }

    /// The one place where the life of an end moves on.
    pub fn step(&mut self, input: Input, facts: Facts, now: Moment) -> Vec<Order> {
        use Phase::{Answering, Dialling, Draining, Ended, Leaving, New, Resting, Up};
        use Role::{Accepted, Dialler};
        match (self.phase, input, self.role) {
            (Ended, _, _) => vec![],
            (_, Input::Abort(reason), _) => self.end(reason, String::new(), facts),

            (New, Input::Started { .. }, Dialler) => self.dial(),
            (New, Input::Started { peer }, Accepted) => self.up(peer, facts, now),

            (Dialling, Input::Dialed { peer }, _) => self.up(peer, facts, now),
            (Dialling, Input::DialFailed(fault), _) => self.dial_failed(fault, facts, now),
            (New | Dialling | Resting { .. }, Input::Looked, _) if self.is_overdue(now) => self.overdue(facts),
            (Resting { until }, Input::Looked, _) if now >= until => self.dial(),
            (New | Dialling | Resting { .. }, Input::Close(reason), _) => self.close_unlinked(reason, facts, now),

            (Up { since }, Input::Broke(fault), Dialler) => self.broke(fault, since, facts, now),
            (Up { since }, Input::Eof, Dialler) => self.broke(eof(), since, facts, now),
            (Up { .. }, Input::Broke(fault), Accepted) => self.end(fault.reason, fault.detail, facts),
            (Up { .. }, Input::Eof, Accepted) => self.answer(facts, now),
            (Up { .. }, Input::Close(reason), _) => self.drain(reason, false, facts, now),

            (Answering { until }, Input::Looked, _) => self.answered(until, facts, now),
            (Answering { .. }, Input::Broke(_), _) => self.end(Reason::Eof, String::new(), facts),
            (Answering { .. }, Input::Close(reason), _) => self.drain(reason, true, facts, now),

            (Draining { .. }, Input::Eof, _) => self.drained(true, facts),
            (Draining { .. } | Leaving, Input::Looked, _) if self.is_overdue(now) => self.overdue(facts),
            (Draining { is_heard }, Input::Looked, _) => self.drained(is_heard, facts),
            (Draining { .. }, Input::Broke(fault), Dialler) => self.broke_draining(fault, facts, now),
            (Draining { .. }, Input::Broke(_), Accepted) | (Leaving, Input::Eof | Input::Broke(_), _) => {
                self.end_closing(facts)
            }

            // A second close changes nothing; news of a link that is gone comes too late.
            _ => vec![],
        }
    }

    /// When to step with `Looked`, whatever else happens.
    pub fn deadline(&self) -> Option<Moment> {
        let closing = self.closing.map(|closing| closing.until);
        match self.phase {
            Phase::Resting { until } => Some(closing.map_or(until, |closing| closing.min(until))),
            Phase::Answering { until } => Some(until),
            Phase::New | Phase::Dialling | Phase::Draining { .. } | Phase::Leaving => closing,
            Phase::Up { .. } | Phase::Ended => None,
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn attempts(&self) -> u64 {
        self.attempts
    }

    pub fn state(&self) -> State {
        match self.phase {
            Phase::Ended => State::Closed,
            _ if self.closing.is_some() => State::Closing,
            Phase::Up { .. } => State::Connected,
            Phase::Answering { .. } => State::Closing,
            _ if self.has_shown => State::Disconnected,
            _ => State::Connecting,
        }
    }

    fn dial(&mut self) -> Vec<Order> {
        self.phase = Phase::Dialling;
        self.attempts += 1;
        vec![Order::Dial]
    }

    fn up(&mut self, peer: String, facts: Facts, now: Moment) -> Vec<Order> {
        let attempt = if self.role == Role::Dialler { self.failed + 1 } else { 0 };
        self.failed = 0;
        self.has_shown = true;
        self.phase = Phase::Up { since: now };
        let connected = Connected { resumed: false, redelivered: 0, lost: 0, attempt, peer };
        let mut orders = vec![Order::Deliver(Event::Connected(connected))];
        if self.closing.is_some() {
            self.phase = Phase::Draining { is_heard: false };
            orders.extend(self.drained(false, facts));
        }
        orders
    }

    fn dial_failed(&mut self, fault: Fault, facts: Facts, now: Moment) -> Vec<Order> {
        self.failed += 1;
        self.rest(fault, facts, now)
    }

    /// A dialler's link ended. Back-off starts afresh if the link was of use.
    fn broke(&mut self, fault: Fault, since: Moment, facts: Facts, now: Moment) -> Vec<Order> {
        let is_useful = |longest| facts.brought_message || now.saturating_sub(since) >= longest;
        if let Some(backoff) = self.backoff.as_mut().filter(|backoff| is_useful(backoff.longest())) {
            backoff.reset();
        }
        let mut orders = vec![Order::HangUp];
        orders.extend(self.rest(fault, facts, now));
        orders
    }

    /// A closing dialler with messages left comes back to deliver them.
    fn broke_draining(&mut self, fault: Fault, facts: Facts, now: Moment) -> Vec<Order> {
        if facts.queued == 0 {
            return self.end_closing(facts);
        }
        self.broke(fault, now, facts, now)
    }

    /// Tells of the outage and waits for the next dial; without `reconnect` it is the end.
    fn rest(&mut self, fault: Fault, facts: Facts, now: Moment) -> Vec<Order> {
        self.has_shown = true;
        let wait = self.backoff.as_mut().map(Backoff::wait);
        let disconnected = Disconnected {
            reason: fault.reason,
            detail: fault.detail.clone(),
            attempt: self.failed,
            retry_in: wait,
            unconfirmed: facts.queued,
        };
        let mut orders = vec![Order::Deliver(Event::Disconnected(disconnected))];
        match wait {
            Some(wait) => self.phase = Phase::Resting { until: now.saturating_add(wait) },
            None => {
                // Our own closing is the reason, whatever the link does meanwhile.
                let reason = self.closing.map_or(fault.reason, |closing| closing.reason);
                orders.extend(self.ended(reason, fault.detail, facts));
            }
        }
        orders
    }

    fn answer(&mut self, facts: Facts, now: Moment) -> Vec<Order> {
        let until = now.saturating_add(self.close_timeout);
        self.phase = Phase::Answering { until };
        self.answered(until, facts, now)
    }

    fn answered(&mut self, until: Moment, facts: Facts, now: Moment) -> Vec<Order> {
        let is_done = facts.queued == 0 && !facts.owes_answer;
        if is_done || now >= until { self.end(Reason::Eof, String::new(), facts) } else { vec![] }
    }

    fn close_unlinked(&mut self, reason: Reason, facts: Facts, now: Moment) -> Vec<Order> {
        if self.closing.is_some() {
            return vec![];
        }
        if facts.queued == 0 {
            return self.end(reason, String::new(), facts);
        }
        self.closing = Some(Closing { reason, until: now.saturating_add(self.close_timeout) });
        vec![]
    }

    fn drain(&mut self, reason: Reason, is_heard: bool, facts: Facts, now: Moment) -> Vec<Order> {
        self.closing = Some(Closing { reason, until: now.saturating_add(self.close_timeout) });
        self.phase = Phase::Draining { is_heard };
        self.drained(is_heard, facts)
    }

    fn drained(&mut self, is_heard: bool, facts: Facts) -> Vec<Order> {
        self.phase = Phase::Draining { is_heard };
        match (facts.queued, is_heard) {
            (0, true) => self.end_closing(facts),
            (0, false) => {
                self.phase = Phase::Leaving;
                vec![Order::EndStream]
            }
            _ => vec![],
        }
    }

    fn is_overdue(&self, now: Moment) -> bool {
        self.closing.is_some_and(|closing| now >= closing.until)
    }

    /// `close_timeout` is over. On this wire handed to the kernel means delivered, so a peer that only
    /// failed to end its stream costs nobody anything.
    fn overdue(&mut self, facts: Facts) -> Vec<Order> {
        if self.phase == Phase::Leaving {
            return self.end_closing(facts);
        }
        self.end(Reason::CloseTimeout, String::new(), facts)
    }

    fn end_closing(&mut self, facts: Facts) -> Vec<Order> {
        let reason = self.closing.map_or(Reason::ClosedHere, |closing| closing.reason);
        self.end(reason, String::new(), facts)
    }

    /// Ends a link that may be there, and the handle.
    fn end(&mut self, reason: Reason, detail: String, facts: Facts) -> Vec<Order> {
        let mut orders = vec![Order::HangUp];
        orders.extend(self.ended(reason, detail, facts));
        orders
    }

    fn ended(&mut self, reason: Reason, detail: String, facts: Facts) -> Vec<Order> {
        self.phase = Phase::Ended;
        vec![Order::Deliver(Event::Closed(Closed { reason, detail, undelivered: facts.queued }))]
    }
}

fn eof() -> Fault {
    Fault { reason: Reason::Eof, detail: String::new() }
}
