//! A connection and its session: how a dialler finds back into it, and how an accepted connection that has
//! lost its link gets the next one.

use std::sync::Arc;

use super::dial::Dialed;
use super::link::Link;
use super::sessions::{Fenced, Membership};
use super::sync::atomic::Ordering;
use crate::proto::endpoint::{Input, State};
use crate::proto::events::{Fault, Reason};
use crate::proto::hello::{Asking, Fate, Hello};
use crate::proto::round::Entrance;

/// The way of an accepted connection to its next link.
#[derive(Default)]
pub(super) struct Returning {
    /// How often it was fenced.
    epoch: u64,
    /// Its peer is being answered since the last fence, or the link waits to be installed.
    is_awaited: bool,
    /// Its listener has closed meanwhile: there will be no other return.
    is_last: bool,
    /// The link that waits to be installed.
    dialed: Option<Box<Dialed>>,
}

impl Link {
    /// A dialler's next greeting, and the wait for its answer. Nobody but its issuer is shown the session.
    pub(super) fn next_greeting(&self, entrance: Entrance) -> (Vec<u8>, Asking) {
        let number = self.greetings.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let known = self.known.lock().filter(|_| entrance == Entrance::Resume);
        let (rx, tx) = (self.rx(), self.tx());
        let Some(known) = known else {
            return Asking::new(Hello::offer(self.options(), number, rx.receiver.first_credit()));
        };
        let standing = rx.receiver.standing(&tx.sender);
        Asking::resume(Hello::resume(self.options(), number, known, &standing), standing)
    }

    /// What a dialler was told of its session: it is void, or over.
    pub(super) fn heed(&self, fate: Fate) {
        if fate == Fate::Kept {
            return;
        }
        self.forget_session();
        if let Fate::Over { consumed } = fate {
            let mut tx = self.tx();
            tx.sender.settle(consumed);
            tx.wake_settled();
        }
    }

    pub(super) fn has_session(&self) -> bool {
        self.known.lock().is_some()
    }

    /// It closes, and has nothing more to deliver.
    pub(super) fn has_only_a_goodbye(&self) -> bool {
        let is_closing = matches!(self.status.lock().state, State::Closing | State::Closed);
        is_closing && self.facts().undelivered() == 0
    }

    /// The next link begins a new session.
    pub(super) fn forget_session(&self) {
        *self.known.lock() = None;
    }

    pub(super) fn join(&self, membership: Membership) {
        *self.membership.lock() = Some(membership);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.status.lock().closed.is_some()
    }

    /// The session is held for too long, beside too many others.
    pub(super) fn expire(&self) {
        self.give_order(Input::Expired);
    }

    /// The same, here and now: when it returns, its place is free. The supervisor follows.
    pub(super) fn make_way(&self) {
        self.give_order(Input::Expired);
        let is_closing = self.status.lock().state == State::Closing;
        self.end(if is_closing { Reason::CloseTimeout } else { Reason::SessionExpired });
    }

    /// Its listener has closed: nobody comes back, but who is at the door already.
    pub(super) fn desert(&self) {
        let mut returning = self.returning.lock();
        if returning.is_awaited {
            returning.is_last = true;
            return;
        }
        drop(returning);
        self.give_order(Input::Deserted);
    }

    /// Its peer has come back: the older link ends here and now, whatever it may still bring. None when the connection
    /// has ended, or is about to, for what its peer has said on the older link.
    pub(super) fn fence(self: &Arc<Self>) -> Option<Fenced> {
        let known = self.membership.lock().as_ref().map(Membership::known)?;
        if self.has_ended() || self.rx().receiver.is_session_over() {
            return None;
        }
        drop(self.hang_up());
        let epoch = {
            let mut returning = self.returning.lock();
            *returning = Returning { epoch: returning.epoch + 1, is_awaited: true, ..Returning::default() };
            returning.epoch
        };
        let (standing, fault) = {
            let (rx, tx) = (self.rx(), self.tx());
            (rx.receiver.standing(&tx.sender), rx.receiver.fault().cloned())
        };
        // What the older link did wrong and nobody has judged yet is not made good by a newer one.
        let fault = fault.unwrap_or_else(|| Fault { reason: Reason::Replaced, detail: String::new() });
        // The supervisor sees that the link is gone, whatever becomes of the new one.
        self.give_order(Input::Broke(fault));
        Some(Fenced { link: Arc::clone(self), epoch, known, standing })
    }

    /// What the peer says of its session cannot be.
    pub(super) fn void_session(&self) {
        let detail = String::from("the peer came back with numbers that cannot be");
        self.give_order(Input::Broke(Fault { reason: Reason::Protocol, detail }));
    }

    /// The link that a fence was for.
    pub(super) fn come_back(&self, epoch: u64, dialed: Dialed) {
        let mut returning = self.returning.lock();
        // Of a connection that has ended nobody would ever end the link.
        if returning.epoch == epoch && !self.has_ended() {
            returning.dialed = Some(Box::new(dialed));
            self.news.notify_one();
        }
    }

    /// The link that its peer has come back with, if there is one.
    pub(super) fn take_returning(&self) -> Option<Box<Dialed>> {
        let mut returning = self.returning.lock();
        let dialed = returning.dialed.take()?;
        returning.is_awaited = false;
        if std::mem::take(&mut returning.is_last) {
            self.give_order(Input::Deserted);
        }
        Some(dialed)
    }

    /// Whoever answered its peer is done. Where no link came of it, the connection is without one as before.
    pub(super) fn stop_awaiting(&self, epoch: u64) {
        let mut returning = self.returning.lock();
        if returning.epoch != epoch || !returning.is_awaited || returning.dialed.is_some() {
            return;
        }
        returning.is_awaited = false;
        let is_last = std::mem::take(&mut returning.is_last);
        drop(returning);
        if is_last {
            self.give_order(Input::Deserted);
        } else {
            self.lost_link();
        }
    }

    /// Its peer is back already, though not linked yet.
    pub(super) fn is_awaiting(&self) -> bool {
        self.returning.lock().is_awaited
    }

    /// An accepted connection's listener learns that it has no link.
    pub(super) fn lost_link(&self) {
        if let Some(membership) = self.membership() {
            membership.lost_link(self);
        }
    }

    /// And that it has one again.
    pub(super) fn has_link(&self) {
        if let Some(membership) = self.membership() {
            membership.has_link(self);
        }
    }

    /// And, where it has none, that it holds more or less than before. With no lock of its own held.
    pub(super) fn recount(&self) {
        if let Some(membership) = self.membership() {
            membership.recount(self);
        }
    }

    /// A copy: the table's lock is taken before a connection's own.
    fn membership(&self) -> Option<Membership> {
        self.membership.lock().clone()
    }

    /// It has ended: nobody comes back, and the listener of an accepted connection learns of it.
    pub(super) fn end_session(&self, reason: Reason) {
        let late = self.returning.lock().dialed.take();
        drop(late);
        let membership = self.membership.lock().take();
        if let Some(membership) = membership {
            membership.end(reason, self.numbers().consumed);
        }
    }

    /// What both halves hold, in cost.
    pub(super) fn held_cost(&self) -> u64 {
        let (rx, tx) = (self.rx(), self.tx());
        rx.receiver.held_cost().saturating_add(tx.sender.held_cost())
    }

    pub(super) fn give_order(&self, order: Input) {
        self.orders.lock().push_back(order);
        self.news.notify_one();
    }
}
