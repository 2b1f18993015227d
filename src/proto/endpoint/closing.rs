//! How an end takes its leave: what it does when it closes, when its peer does, and when a link breaks in
//! the middle of that.

use std::time::Duration;

use super::{Closing, Endpoint, Facts, Order, Phase, Role, Wait, say};
use crate::proto::Moment;
use crate::proto::backoff::Backoff;
use crate::proto::control::After;
use crate::proto::events::{Closed, Event, Fault, Reason};
use crate::proto::wire::{Goodbye, close};

impl Endpoint {
    /// A closing dialler with messages left comes back to deliver them.
    pub(super) fn broke_closing(&mut self, fault: Fault, facts: Facts, now: Moment) -> Vec<Order> {
        if facts.queued == 0 {
            return self.end_closing(facts);
        }
        self.broke(fault, Wait::Backoff, now, facts, now)
    }

    /// A closing side's link broke before both had taken their leave: a dialler comes back, be it only to say
    /// CLOSE again, and an accepted end waits while the other side may still take something.
    pub(super) fn broke_parting(&mut self, fault: Fault, is_heard: bool, facts: Facts, now: Moment) -> Vec<Order> {
        let has_left = match self.role {
            Role::Dialler if is_heard => facts.unconfirmed > 0 && facts.goes_again && !self.is_over,
            Role::Dialler => facts.is_worth_a_dial() || !fault.is_void(),
            // A dialler that has said CLOSE takes nothing more, and learns the rest from the tombstone.
            Role::Accepted => !is_heard && facts.undelivered() > 0 && self.keeps(&fault),
        };
        match self.role {
            _ if !has_left => self.end_closing(facts),
            Role::Dialler => self.broke(fault, Wait::Backoff, now, facts, now),
            Role::Accepted => self.absent(fault, facts, now),
        }
    }

    /// The peer said CLOSE: a graceful one is answered, the others are read as breaks.
    pub(super) fn peer_closed(&mut self, goodbye: Goodbye, since: Moment, facts: Facts, now: Moment) -> Vec<Order> {
        let Goodbye { code, words } = goodbye;
        self.note_link(since, now);
        let Some(reason) = broken_by(code) else {
            self.phase = Phase::Replying { code, until: now.saturating_add(self.close_timeout) };
            let mut orders = vec![say(code, After::WhatMayBegin)];
            orders.extend(self.over());
            return orders;
        };
        let fault = Fault { reason, detail: words };
        if self.role == Role::Accepted && code == close::FAULT && !self.session_timeout.is_zero() {
            return self.absent(fault, facts, now);
        }
        let mut orders = vec![Order::HangUp];
        match self.role {
            // Not `broke`: a peer that blames us is not blamed in turn.
            Role::Dialler => {
                if code != close::FAULT {
                    orders.extend(self.over());
                }
                orders.extend(self.rest(fault, Wait::Backoff, facts, now));
            }
            Role::Accepted if code == close::VOID => {
                orders.extend(self.ended(Reason::ClosedByPeer, fault.detail, facts))
            }
            Role::Accepted => orders.extend(self.ended(reason, fault.detail, facts)),
        }
        orders
    }

    /// The peer has ended the session.
    fn over(&mut self) -> Option<Order> {
        self.is_over = true;
        (self.role == Role::Dialler).then_some(Order::Forget)
    }

    /// Our answer is out: the link is done with.
    pub(super) fn replied(&mut self, code: u16, facts: Facts, now: Moment) -> Vec<Order> {
        if self.role == Role::Accepted {
            return self.end(Reason::ClosedByPeer, String::new(), facts);
        }
        let (reason, wait) = match code {
            close::DONE => (Reason::ClosedByPeer, Wait::Backoff),
            close::BUSY => (Reason::Busy, Wait::Backoff),
            _ => (Reason::Moved, self.move_wait(now)),
        };
        let mut orders = vec![Order::HangUp];
        orders.extend(self.rest(Fault { reason, detail: String::new() }, wait, facts, now));
        orders
    }

    /// The peer broke the rules behind its CLOSE. Its session is over in any case.
    pub(super) fn broke_replying(&mut self, fault: Fault, facts: Facts, now: Moment) -> Vec<Order> {
        match self.role {
            Role::Accepted => self.cut(fault, facts),
            Role::Dialler => self.broke(fault, Wait::Backoff, now, facts, now),
        }
    }

    /// Who is sent away dials again at once, but not in circles.
    fn move_wait(&mut self, now: Moment) -> Wait {
        let longest = self.backoff.as_ref().map(Backoff::longest).unwrap_or_default();
        let again = self.moved.replace(now).is_some_and(|before| now.saturating_sub(before) < longest);
        if again { Wait::Backoff } else { Wait::Nothing }
    }

    pub(super) fn part(&mut self, reason: Reason, is_heard: bool, facts: Facts, now: Moment) -> Vec<Order> {
        self.begin_closing(reason, now);
        let after = if is_heard { After::WhatMayBegin } else { After::Everything };
        let mut orders = vec![say(close::DONE, after)];
        orders.extend(self.parted(is_heard, facts));
        orders
    }

    pub(super) fn parted(&mut self, is_heard: bool, facts: Facts) -> Vec<Order> {
        self.phase = Phase::Parting { is_heard };
        if is_heard && facts.has_said_close { self.end_closing(facts) } else { vec![] }
    }

    /// The peer said CLOSE to a side that closes. What it does not take any more need not wait for credit.
    pub(super) fn parted_by(&mut self, goodbye: Goodbye, is_heard: bool, facts: Facts, now: Moment) -> Vec<Order> {
        let Some(reason) = broken_by(goodbye.code) else {
            let mut orders = vec![say(close::DONE, After::WhatMayBegin)];
            orders.extend(self.parted(true, facts));
            return orders;
        };
        let fault = Fault { reason, detail: goodbye.words };
        if goodbye.code == close::FAULT && self.role == Role::Accepted {
            return self.broke_parting(fault, is_heard, facts, now);
        }
        let has_left = facts.is_worth_a_dial() || goodbye.code == close::FAULT;
        if is_heard || !has_left || self.role == Role::Accepted {
            return self.end_closing(facts);
        }
        // It comes back to deliver the rest, or to say CLOSE again.
        let mut orders = vec![Order::HangUp];
        if goodbye.code != close::FAULT {
            orders.extend(self.over());
        }
        orders.extend(self.rest(fault, Wait::Backoff, facts, now));
        orders
    }

    fn begin_closing(&mut self, reason: Reason, now: Moment) {
        let until = now.saturating_add(self.close_timeout);
        self.closing = Some(Closing { reason, until, has_dialled: false, is_shown: false });
    }

    /// A closing end that has nothing to deliver any more.
    pub fn has_only_goodbyes(&self, facts: Facts) -> bool {
        self.closing.is_some() && facts.undelivered() == 0
    }

    pub(super) fn answer(&mut self, facts: Facts, now: Moment) -> Vec<Order> {
        let until = now.saturating_add(self.close_timeout);
        self.phase = Phase::Answering { until };
        self.answered(until, facts, now)
    }

    pub(super) fn answered(&mut self, until: Moment, facts: Facts, now: Moment) -> Vec<Order> {
        let is_done = facts.queued == 0 && !facts.owes_answer;
        if is_done || now >= until { self.end(Reason::Eof, String::new(), facts) } else { vec![] }
    }

    pub(super) fn close_unlinked(&mut self, reason: Reason, facts: Facts, now: Moment) -> Vec<Order> {
        if self.closing.is_some() {
            return vec![];
        }
        let (has_left, has_word) = match self.role {
            Role::Dialler => (facts.is_worth_a_dial(), facts.has_session && !self.is_over && self.backoff.is_some()),
            Role::Accepted => (facts.undelivered() > 0, false),
        };
        if !has_left && !has_word {
            return self.end(reason, String::new(), facts);
        }
        self.begin_closing(reason, now);
        let mut orders = if has_left { vec![] } else { self.show_closed(facts) };
        orders.extend(self.hurry(facts, now));
        orders
    }

    /// A closing dialler dials now. A dial under way goes on, unless it has met nobody for so long that it may well
    /// meet nobody before the end: a new one finds a peer that came back meanwhile.
    fn hurry(&mut self, facts: Facts, now: Moment) -> Option<Order> {
        let is_lost = |since| !facts.has_greeted && now.saturating_sub(since) >= UNANSWERED;
        match self.phase {
            Phase::Resting { .. } => {
                self.phase = Phase::Resting { until: now };
                None
            }
            Phase::Dialling { since } if self.backoff.is_some() && is_lost(since) => {
                self.phase = Phase::Resting { until: now };
                Some(Order::HangUp)
            }
            Phase::Dialling { .. } => {
                self.closing.as_mut()?.has_dialled = true;
                None
            }
            _ => None,
        }
    }

    /// A goodbye has met somebody who does not know the session. Who was dialled before this end closed need not be
    /// the one that issued it: the next dial asks that one alone.
    pub(super) fn met_a_stranger(&mut self, dialled: Moment, facts: Facts, now: Moment) -> Vec<Order> {
        let closed = self.closing.map(|closing| closing.until.saturating_sub(self.close_timeout));
        if facts.has_session && self.backoff.is_some() && closed.is_some_and(|closed| dialled < closed) {
            self.phase = Phase::Resting { until: now };
            return vec![Order::HangUp];
        }
        self.end_closing(facts)
    }

    /// Nobody waits for what is left to be said.
    pub(super) fn show_closed(&mut self, facts: Facts) -> Vec<Order> {
        let Some(closing) = self.closing.as_mut().filter(|closing| !closing.is_shown) else {
            return vec![];
        };
        closing.is_shown = true;
        let closed = Closed { reason: closing.reason, detail: String::new(), undelivered: facts.undelivered() };
        vec![Order::Deliver(Event::Closed(closed))]
    }

    pub(super) fn has_shown_closed(&self) -> bool {
        self.closing.is_some_and(|closing| closing.is_shown)
    }

    pub(super) fn drain(&mut self, reason: Reason, is_heard: bool, facts: Facts, now: Moment) -> Vec<Order> {
        self.begin_closing(reason, now);
        self.phase = Phase::Draining { is_heard };
        self.drained(is_heard, facts)
    }

    pub(super) fn drained(&mut self, is_heard: bool, facts: Facts) -> Vec<Order> {
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

    pub(super) fn is_overdue(&self, now: Moment) -> bool {
        self.closing.is_some_and(|closing| now >= closing.until)
    }

    /// `close_timeout` is over. On the original's wire handed to the kernel means delivered, so a peer that only
    /// failed to end its stream costs nobody anything; nor does one that did not let us say CLOSE again.
    pub(super) fn overdue(&mut self, facts: Facts) -> Vec<Order> {
        let is_only_a_word = matches!(self.phase, Phase::Dialling { .. } | Phase::Resting { .. });
        if self.phase == Phase::Leaving || (is_only_a_word && facts.undelivered() == 0) {
            return self.end_closing(facts);
        }
        self.end(Reason::CloseTimeout, String::new(), facts)
    }

    pub(super) fn end_closing(&mut self, facts: Facts) -> Vec<Order> {
        let reason = self.closing.map_or(Reason::ClosedHere, |closing| closing.reason);
        self.end(reason, String::new(), facts)
    }
}

impl Facts {
    /// A closing dialler has something to come back for.
    fn is_worth_a_dial(&self) -> bool {
        self.queued > 0 || (self.unconfirmed > 0 && self.goes_again)
    }
}

/// How long a dial is left alone when its end closes: the kernel repeats the first word of one after a second.
const UNANSWERED: Duration = Duration::from_secs(1);

/// What a goodbye that is not answered means: it is read as a break.
fn broken_by(code: u16) -> Option<Reason> {
    match code {
        close::FAULT => Some(Reason::Reset),
        close::ABORTED => Some(Reason::Aborted),
        close::VOID => Some(Reason::Protocol),
        _ => None,
    }
}
