//! A connection and its session: how a dialler finds back into it, and how an accepted connection that has
//! lost its link gets the next one.

use super::dial::Dialed;
use super::link::Link;
use super::sessions::{Fenced, Membership};
use super::sync::atomic::Ordering;
use crate::proto::endpoint::Input;
use crate::proto::events::{Fault, Reason};
use crate::proto::hello::{Asking, Fate, Hello};
use crate::proto::round::Entrance;

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

    /// Its peer has come back: the older link ends here and now, whatever it may still bring. None when the connection
    /// has ended.
    pub(super) fn fence(&self) -> Option<Fenced> {
        let known = self.membership.lock().as_ref().map(Membership::known)?;
        if self.has_ended() {
            return None;
        }
        drop(self.hang_up());
        let epoch = {
            let mut returning = self.returning.lock();
            *returning = (returning.0 + 1, None);
            returning.0
        };
        let (standing, fault) = {
            let (rx, tx) = (self.rx(), self.tx());
            (rx.receiver.standing(&tx.sender), rx.receiver.fault().cloned())
        };
        // What the older link did wrong and nobody has judged yet is not made good by a newer one.
        let fault = fault.unwrap_or_else(|| Fault { reason: Reason::Replaced, detail: String::new() });
        // The supervisor sees that the link is gone, whatever becomes of the new one.
        self.give_order(Input::Broke(fault));
        Some(Fenced { epoch, known, standing })
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
        if returning.0 == epoch && !self.has_ended() {
            returning.1 = Some(Box::new(dialed));
            self.news.notify_one();
        }
    }

    pub(super) fn take_returning(&self) -> Option<Box<Dialed>> {
        self.returning.lock().1.take()
    }

    /// An accepted connection's listener learns that it has no link.
    pub(super) fn lost_link(&self) {
        if self.returning.lock().1.is_some() {
            // Its peer is back already: nobody need make room for it, itself included.
            return;
        }
        let membership = self.membership.lock().take();
        if let Some(membership) = membership {
            membership.lost_link(self.held_cost());
            *self.membership.lock() = Some(membership);
        }
    }

    /// It has ended: nobody comes back, and the listener of an accepted connection learns of it.
    pub(super) fn end_session(&self, reason: Reason) {
        let late = self.returning.lock().1.take();
        drop(late);
        let membership = self.membership.lock().take();
        if let Some(membership) = membership {
            membership.end(reason, self.numbers().consumed);
        }
    }

    /// What both halves hold.
    fn held_cost(&self) -> u64 {
        let (rx, tx) = (self.rx(), self.tx());
        rx.receiver.held_cost().saturating_add(u64::try_from(tx.sender.held_bytes()).unwrap_or(u64::MAX))
    }

    pub(super) fn give_order(&self, order: Input) {
        self.orders.lock().push_back(order);
        self.news.notify_one();
    }
}
