//! The life of one end: dialling, up, closing, ended. `step` is told what happened and answers with
//! orders; every transition stands in its one `match`. It does not know how to dial, read or write,
//! and holds no messages: [`Facts`] tells it what the halves hold.
//!
//! Theory. A dialler outlives its peer: whatever ends a link is a break, and it dials again with its
//! back-off; only this side's own closing ends it, or, without `reconnect`, the first break. An
//! accepted end lives as long as its session: when its link breaks it waits for its dialler's return
//! (`Absent`), at most `session_timeout`; where there are no sessions, or its listener has closed, it lives
//! as long as its link. A break keeps the session. What voids or ends it is ordered to be forgotten, so that the next greeting
//! asks for a new one. How an end takes its leave depends on the wire.
//!
//! The original's wire has no goodbye: a peer's end of stream is all that tells of its leaving. So an
//! accepted end first writes what its application had given it, and lets it answer what it is still
//! working on (`Answering`); a side that closes writes what it holds (`Draining`), ends its stream, and
//! reads to the end of the peer's (`Leaving`), because hanging up with unread input can destroy data on
//! its way out.
//!
//! On ours a side that closes says so behind its last message (`Parting`); the other one answers, behind
//! what it may still send (`Replying`). Who has said it and heard it is done. The end of the stream in
//! its place is a break for a closing side too: a dialler comes back to deliver the rest and to say it
//! again, or else its peer would hold the session for nobody; an accepted end waits while anything is not
//! confirmed. For the word alone nobody waits where no peer answers: `Closed` is shown, and what goes on
//! behind it until `close_timeout` is the dialler's farewell, which tells its application nothing more.
//!
//! Back-off is for peers that are not to be troubled. It starts afresh by the time that a link was up, and by
//! nothing else. A closing dialler has no time for it: it dials at once, and again within `CLOSING_WAIT`.
//!
//! 1. `a_dialler_ends_only_by_its_own_side`
//! 2. `an_accepted_end_ends_with_its_session`
//! 3. `nothing_is_ordered_after_the_end`
//! 4. `closing_ends_within_close_timeout`
//! 5. `the_stream_is_ended_only_when_everything_was_written`
//! 6. `every_wait_has_a_deadline`
//! 7. `who_has_said_goodbye_and_heard_it_is_done`
//! 8. `a_session_is_forgotten_when_it_is_void_or_over_and_never_for_a_break`
//! 9. `closed_is_shown_once_and_nothing_behind_it`
//! 10. `a_closing_dialler_dials_at_once_and_again_within_its_wait`
//! 11. `a_farewell_is_said_in_its_session_or_not_at_all`
//!
//! The exhaustive state × input table and the simulation hold these against every reachable state.

mod closing;

use std::time::Duration;

use super::Moment;
use super::backoff::Backoff;
use super::control::After;
use super::events::{Closed, Connected, Disconnected, Event, Fault, Reason};
use super::options::{Options, Protocol};
use super::wire::{Goodbye, close};

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
    /// `is_resumed`: the session goes on, which only our wire has.
    Dialed {
        peer: String,
        is_resumed: bool,
    },
    DialFailed(Fault),
    /// No dial will fare better soon: the next one waits the longest back-off.
    Rejected(Fault),
    /// The peer has ended the session that was asked for.
    SessionOver(Fault),
    /// An accepted end's dialler has come back to its session.
    Returned {
        peer: String,
    },
    /// A session without a link makes room for others.
    Expired,
    /// Its listener has closed: from now on no dialler comes back.
    Deserted,
    /// The peer said CLOSE.
    PeerClosed(Goodbye),
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
    /// Messages accepted and not begun; on the original's wire: not handed to the kernel.
    pub queued: u64,
    /// Messages begun that the peer's application is not known to have taken.
    pub unconfirmed: u64,
    /// What is unconfirmed would go again over another link: in its session, or redelivered.
    pub goes_again: bool,
    /// A dialler has a session, which its next link would carry on.
    pub has_session: bool,
    /// The dial under way has met somebody, and waits for the answer to its greeting.
    pub has_greeted: bool,
    /// Our CLOSE was handed to the kernel.
    pub has_said_close: bool,
    /// The application may still answer what it received: a message waits, or was taken by a reader
    /// that has not come back for more.
    pub owes_answer: bool,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    Dial,
    /// End the link and give its socket back.
    HangUp,
    /// End our stream; the peer's goes on.
    EndStream,
    /// Say CLOSE, behind these messages.
    SayClose {
        goodbye: Goodbye,
        after: After,
    },
    /// Say CLOSE at once if the kernel takes it between two frames; the link ends next.
    Blame(Goodbye),
    /// The session is void or over: a dialler's next greeting asks for a new one.
    Forget,
    /// Take the link that was dialled, and tell nobody: `Closed` was shown.
    Attach,
    /// A value for the reader. With `Connected` the link that was dialled is taken.
    Deliver(Event),
}

/// Where the life of this end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    New,
    Dialling {
        since: Moment,
    },
    /// Waits before the next dial.
    Resting {
        until: Moment,
    },
    Up {
        since: Moment,
    },
    /// Accepted, the link broke: its dialler may return until then.
    Absent {
        until: Moment,
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
    /// We close, on our wire. `is_heard`: the peer has said CLOSE already.
    Parting {
        is_heard: bool,
    },
    /// The peer closes, on our wire: we answer.
    Replying {
        code: u16,
        until: Moment,
    },
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
    /// It has dialled since, and waits between dials.
    has_dialled: bool,
    /// `Closed` was shown: what goes on is the farewell.
    is_shown: bool,
}

#[derive(Debug)]
pub struct Endpoint {
    role: Role,
    protocol: Protocol,
    phase: Phase,
    closing: Option<Closing>,
    /// None: the first break ends a dialler.
    backoff: Option<Backoff>,
    close_timeout: Duration,
    /// Zero: an accepted end lives as long as its link, also from the moment in which its listener closes.
    session_timeout: Duration,
    /// The session is over: a break needs no return.
    is_over: bool,
    /// Dials that failed in this outage.
    failed: u64,
    /// Dials ever begun.
    attempts: u64,
    has_shown: bool,
    /// When a peer last sent us away.
    moved: Option<Moment>,
}

impl Endpoint {
    pub fn new(role: Role, options: &Options, seed: u64) -> Self {
        Self {
            role,
            protocol: options.protocol,
            phase: Phase::New,
            closing: None,
            backoff: options.reconnect.map(|retry| Backoff::new(retry, seed)),
            close_timeout: options.close_timeout,
            session_timeout: if options.protocol == Protocol::Native {
                options.session_timeout
            } else {
                Duration::ZERO
            },
            is_over: false,
            failed: 0,
            attempts: 0,
            has_shown: false,
            moved: None,
        }
    }

    /// The one place where the life of an end moves on.
    pub fn step(&mut self, input: Input, facts: Facts, now: Moment) -> Vec<Order> {
        use Phase::{Absent, Answering, Dialling, Draining, Ended, Leaving, New, Parting, Replying, Resting, Up};
        use Protocol::{Classic, Native};
        use Role::{Accepted, Dialler};
        let wire = self.protocol;
        match (self.phase, input, self.role) {
            (Ended, _, _) => vec![],
            (_, Input::Abort(reason), _) => self.end(reason, String::new(), facts),
            (_, Input::Looked, _) if self.is_overdue(now) => self.overdue(facts),

            (New, Input::Started { .. }, Dialler) => self.dial(now),
            (New, Input::Started { peer }, Accepted) => self.up(peer, facts, now),

            // It came back to take its leave, and nobody is there who knows it.
            (Dialling { since }, Input::Dialed { is_resumed: false, .. }, _) if self.has_only_goodbyes(facts) => {
                self.met_a_stranger(since, facts, now)
            }
            (Dialling { .. }, Input::Dialed { peer, .. }, _) => self.up(peer, facts, now),
            (Dialling { .. }, Input::SessionOver(_), _) if self.closing.is_some() => self.end_closing(facts),
            (Dialling { .. }, Input::DialFailed(fault) | Input::SessionOver(fault), _) => {
                self.dial_failed(fault, Wait::Backoff, facts, now)
            }
            (Dialling { .. }, Input::Rejected(fault), _) => self.dial_failed(fault, Wait::Longest, facts, now),
            (Resting { until }, Input::Looked, _) if now >= until => self.dial(now),
            (New | Dialling { .. } | Resting { .. } | Absent { .. }, Input::Close(reason), _) => {
                self.close_unlinked(reason, facts, now)
            }

            (Absent { .. }, Input::Returned { peer }, _) => self.up(peer, facts, now),
            (Absent { until }, Input::Looked, _) if now >= until => self.expired(facts),
            (Absent { .. }, Input::Expired, _) => self.expired(facts),
            (_, Input::Deserted, Accepted) => self.deserted(facts),
            (Absent { .. }, Input::Broke(fault), _) if fault.is_void() => self.ended(fault.reason, fault.detail, facts),

            (Up { since }, Input::Broke(fault), Dialler) => self.broke(fault, Wait::Backoff, since, facts, now),
            (Up { since }, Input::Eof, Dialler) => self.broke(eof(), Wait::Backoff, since, facts, now),
            (Up { .. }, Input::Broke(fault), Accepted) => self.left(fault, facts, now),
            (Up { .. }, Input::Eof, Accepted) if wire == Native => self.left(eof(), facts, now),
            (Up { .. }, Input::Eof, Accepted) => self.answer(facts, now),
            (Up { since }, Input::PeerClosed(goodbye), _) => self.peer_closed(goodbye, since, facts, now),
            (Up { .. }, Input::Close(reason), _) if wire == Classic => self.drain(reason, false, facts, now),
            (Up { .. }, Input::Close(reason), _) => self.part(reason, false, facts, now),

            (Answering { until }, Input::Looked, _) => self.answered(until, facts, now),
            (Answering { .. }, Input::Broke(_), _) => self.end(Reason::Eof, String::new(), facts),
            (Answering { .. }, Input::Close(reason), _) => self.drain(reason, true, facts, now),

            (Draining { .. }, Input::Eof, _) => self.drained(true, facts),
            (Draining { is_heard }, Input::Looked, _) => self.drained(is_heard, facts),
            (Draining { .. }, Input::Broke(fault), Dialler) => self.broke_closing(fault, facts, now),
            (Draining { .. }, Input::Broke(_), Accepted) | (Leaving, Input::Eof | Input::Broke(_), _) => {
                self.end_closing(facts)
            }

            (Parting { is_heard }, Input::Looked, _) => self.parted(is_heard, facts),
            (Parting { is_heard }, Input::PeerClosed(goodbye), _) => self.parted_by(goodbye, is_heard, facts, now),
            (Parting { is_heard }, Input::Broke(fault), _) => self.broke_parting(fault, is_heard, facts, now),
            (Parting { is_heard }, Input::Eof, _) => self.broke_parting(eof(), is_heard, facts, now),

            (Replying { code, until }, Input::Looked, _) if facts.has_said_close || now >= until => {
                self.replied(code, facts, now)
            }
            (Replying { .. }, Input::Broke(fault), _) if fault.is_void() => self.broke_replying(fault, facts, now),
            (Replying { code, .. }, Input::Eof | Input::Broke(_), _) => self.replied(code, facts, now),
            (Replying { .. }, Input::Close(reason), _) => self.part(reason, true, facts, now),

            // A second close changes nothing; news of a link that is gone comes too late.
            _ => vec![],
        }
    }

    /// When to step with `Looked`, whatever else happens.
    pub fn deadline(&self) -> Option<Moment> {
        let closing = self.closing.map(|closing| closing.until);
        match self.phase {
            Phase::Resting { until } | Phase::Absent { until } => {
                Some(closing.map_or(until, |closing| closing.min(until)))
            }
            Phase::Answering { until } | Phase::Replying { until, .. } => Some(until),
            Phase::New | Phase::Dialling { .. } | Phase::Draining { .. } => closing,
            Phase::Leaving | Phase::Parting { .. } => closing,
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
            _ if self.has_shown_closed() => State::Closed,
            _ if self.closing.is_some() => State::Closing,
            Phase::Up { .. } => State::Connected,
            Phase::Replying { .. } if self.role == Role::Dialler => State::Connected,
            Phase::Answering { .. } | Phase::Replying { .. } => State::Closing,
            _ if self.has_shown => State::Disconnected,
            _ => State::Connecting,
        }
    }

    fn dial(&mut self, now: Moment) -> Vec<Order> {
        self.phase = Phase::Dialling { since: now };
        self.attempts += 1;
        if let Some(closing) = &mut self.closing {
            closing.has_dialled = true;
        }
        vec![Order::Dial]
    }

    fn up(&mut self, peer: String, facts: Facts, now: Moment) -> Vec<Order> {
        let attempt = if self.role == Role::Dialler { self.failed + 1 } else { 0 };
        self.failed = 0;
        self.is_over = false;
        self.has_shown = true;
        self.phase = Phase::Up { since: now };
        let connected = Connected { resumed: false, redelivered: 0, lost: 0, attempt, peer };
        let is_shown = self.has_shown_closed();
        let mut orders = vec![if is_shown { Order::Attach } else { Order::Deliver(Event::Connected(connected)) }];
        match self.protocol {
            _ if self.closing.is_none() => {}
            Protocol::Classic => {
                self.phase = Phase::Draining { is_heard: false };
                orders.extend(self.drained(false, facts));
            }
            Protocol::Native => {
                self.phase = Phase::Parting { is_heard: false };
                orders.push(say(close::DONE, After::Everything));
            }
        }
        orders
    }

    fn dial_failed(&mut self, fault: Fault, wait: Wait, facts: Facts, now: Moment) -> Vec<Order> {
        self.failed += 1;
        let mut orders = vec![];
        if self.has_only_goodbyes(facts) {
            if !facts.has_session {
                return self.end_closing(facts);
            }
            if !is_answer(&fault) {
                orders.extend(self.show_closed(facts));
            }
        }
        orders.extend(self.rest(fault, wait, facts, now));
        orders
    }

    /// A dialler's link ended.
    fn broke(&mut self, fault: Fault, wait: Wait, since: Moment, facts: Facts, now: Moment) -> Vec<Order> {
        self.note_link(since, now);
        let mut orders = self.blame(&fault);
        orders.push(Order::HangUp);
        if self.protocol == Protocol::Native && fault.is_void() {
            orders.push(Order::Forget);
        }
        orders.extend(self.rest(fault, wait, facts, now));
        orders
    }

    /// How a dialler's link ended changes nothing in when the next dial is.
    fn note_link(&mut self, since: Moment, now: Moment) {
        if let Some(backoff) = &mut self.backoff {
            backoff.note_link(now.saturating_sub(since));
        }
    }

    /// An accepted end's link broke: its dialler may come back, unless the session is void with it.
    fn left(&mut self, fault: Fault, facts: Facts, now: Moment) -> Vec<Order> {
        if !self.keeps(&fault) {
            return self.cut(fault, facts);
        }
        let mut orders = self.blame(&fault);
        orders.extend(self.absent(fault, facts, now));
        orders
    }

    /// Waits for the dialler's return; a side that closes no longer than that takes.
    fn absent(&mut self, fault: Fault, facts: Facts, now: Moment) -> Vec<Order> {
        self.phase = Phase::Absent { until: now.saturating_add(self.session_timeout) };
        let Fault { reason, detail } = fault;
        let unconfirmed = facts.undelivered();
        let disconnected = Disconnected { reason, detail, attempt: 0, retry_in: None, unconfirmed };
        vec![Order::HangUp, Order::Deliver(Event::Disconnected(disconnected))]
    }

    /// Nobody came back in time, or others needed the room.
    fn expired(&mut self, facts: Facts) -> Vec<Order> {
        let reason = if self.closing.is_some() { Reason::CloseTimeout } else { Reason::SessionExpired };
        self.ended(reason, String::new(), facts)
    }

    /// From now on a session lasts as long as its link. Who has none ends, and who closes has nobody to wait for.
    fn deserted(&mut self, facts: Facts) -> Vec<Order> {
        self.session_timeout = Duration::ZERO;
        match self.phase {
            Phase::Absent { .. } if self.closing.is_some() => self.end_closing(facts),
            Phase::Absent { .. } => self.expired(facts),
            _ => vec![],
        }
    }

    /// An accepted end's link broke, and it with it.
    fn cut(&mut self, fault: Fault, facts: Facts) -> Vec<Order> {
        let mut orders = self.blame(&fault);
        orders.extend(self.end(fault.reason, fault.detail, facts));
        orders
    }

    /// Tells the peer what it did, where our wire has words for it.
    fn blame(&self, fault: &Fault) -> Vec<Order> {
        let code = match fault.reason {
            _ if self.protocol == Protocol::Classic => return vec![],
            Reason::Flood | Reason::SlowFrame | Reason::NoMemory => close::FAULT,
            Reason::Protocol | Reason::TooLarge => close::VOID,
            _ => return vec![],
        };
        vec![Order::Blame(Goodbye { code, words: fault.detail.clone() })]
    }

    /// Whether an accepted end's session outlives this.
    fn keeps(&self, fault: &Fault) -> bool {
        !self.session_timeout.is_zero() && !fault.is_void()
    }

    /// Tells of the outage and waits for the next dial; without `reconnect` it is the end.
    fn rest(&mut self, fault: Fault, wait: Wait, facts: Facts, now: Moment) -> Vec<Order> {
        self.has_shown = true;
        let wait = self.next_wait(wait);
        let mut orders = vec![];
        if !self.has_shown_closed() {
            let disconnected = Disconnected {
                reason: fault.reason,
                detail: fault.detail.clone(),
                attempt: self.failed,
                retry_in: wait,
                unconfirmed: facts.undelivered(),
            };
            orders.push(Order::Deliver(Event::Disconnected(disconnected)));
        }
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

    /// None without `reconnect`.
    fn next_wait(&mut self, wait: Wait) -> Option<Duration> {
        let backoff = self.backoff.as_mut()?;
        let wait = match (wait, &self.closing) {
            (Wait::Nothing, _) | (_, Some(Closing { has_dialled: false, .. })) => Duration::ZERO,
            (Wait::Backoff, None) => backoff.wait(),
            (Wait::Longest, None) => backoff.longest(),
            (_, Some(_)) => backoff.wait().min(CLOSING_WAIT),
        };
        backoff.note_wait(wait);
        Some(wait)
    }

    /// Ends a link that may be there, and the handle.
    fn end(&mut self, reason: Reason, detail: String, facts: Facts) -> Vec<Order> {
        let mut orders = vec![Order::HangUp];
        orders.extend(self.ended(reason, detail, facts));
        orders
    }

    fn ended(&mut self, reason: Reason, detail: String, facts: Facts) -> Vec<Order> {
        self.phase = Phase::Ended;
        if self.has_shown_closed() {
            return vec![];
        }
        vec![Order::Deliver(Event::Closed(Closed { reason, detail, undelivered: facts.undelivered() }))]
    }
}

/// How long a closing dialler waits at most before it dials again: the wire's own number.
pub const CLOSING_WAIT: Duration = Duration::from_millis(250);

impl Facts {
    /// Accepted here, and not known to be held by the peer.
    pub fn undelivered(&self) -> u64 {
        self.queued.saturating_add(self.unconfirmed)
    }
}

/// How long a dialler waits before it dials again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Nothing,
    Backoff,
    Longest,
}

/// A dial that failed so has met somebody, who may have time for it soon.
fn is_answer(fault: &Fault) -> bool {
    use Reason::{Busy, Eof, Moved, Rejected, Reset, Truncated};
    matches!(fault.reason, Busy | Eof | Moved | Rejected | Reset | Truncated)
}

fn say(code: u16, after: After) -> Order {
    Order::SayClose { goodbye: Goodbye { code, words: String::new() }, after }
}

fn eof() -> Fault {
    Fault { reason: Reason::Eof, detail: String::new() }
}
