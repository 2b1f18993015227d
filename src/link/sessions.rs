//! The sessions of a listener, each with its connection: who comes back finds it here.

use std::sync::{Arc, Weak};

use super::clock;
use super::link::Link;
use super::lock::Mutex;
use crate::proto::events::Reason;
use crate::proto::hello::Hello;
use crate::proto::options::Holding;
use crate::proto::sessions::{Sessions, Verdict};
use crate::proto::standing::{Known, Standing};
use crate::proto::wire::Goodbye;

/// Taken before a connection's own locks, never within them.
pub(super) struct Held {
    table: Mutex<Sessions<Weak<Link>>>,
}

/// What becomes of a greeting.
pub(super) enum Guest {
    /// A new session begins.
    New,
    /// A connection goes on, and its older link has ended.
    Back(Fenced),
    Refused(Goodbye),
    /// The session is over; so many messages were taken.
    Over {
        consumed: u64,
    },
}

/// A connection that waits for the link which its peer has asked for, until this is dropped.
pub(super) struct Fenced {
    pub(super) link: Arc<Link>,
    /// Which fence this was: an older one does not let its link in any more.
    pub(super) epoch: u64,
    pub(super) known: Known,
    pub(super) standing: Standing,
}

impl Drop for Fenced {
    fn drop(&mut self) {
        self.link.stop_awaiting(self.epoch);
    }
}

/// A connection's place in the table.
#[derive(Clone)]
pub(super) struct Membership {
    held: Arc<Held>,
    known: Known,
}

impl Held {
    pub(super) fn new(holding: Holding) -> Arc<Self> {
        Arc::new(Self { table: Mutex::new(Sessions::new(holding)) })
    }

    /// Finds whom `offer` belongs to; a connection that is found is fenced.
    pub(super) fn receive(&self, offer: &Hello, address: &str) -> Guest {
        let mut table = self.table.lock();
        let link = match table.ask(offer, address, clock::now()) {
            Verdict::New => return Guest::New,
            Verdict::Refuse(goodbye) => return Guest::Refused(goodbye),
            Verdict::Over { consumed } => return Guest::Over { consumed },
            // One that nobody holds any more is about to end.
            Verdict::Resume(link) => match link.upgrade() {
                Some(link) => link,
                None => return Guest::New,
            },
        };
        let Some(fenced) = link.fence() else {
            return Guest::Over { consumed: link.numbers().consumed };
        };
        table.answered(&offer.session, offer.link);
        fenced.link.set_absent(false);
        Guest::Back(fenced)
    }

    /// A session has begun.
    pub(super) fn enter(self: &Arc<Self>, known: Known, number: u32, link: &Arc<Link>) {
        self.table.lock().enter(known, number, Arc::downgrade(link));
        link.join(Membership { held: Arc::clone(self), known });
    }

    /// A session ended with the first frame behind its greeting, before there was a connection.
    pub(super) fn never_entered(&self, known: Known) {
        self.table.lock().never_entered(known, clock::now());
    }

    /// Ends the connection that has been without a link longest, here and now, to make room for another one. False where
    /// none is without.
    pub(super) fn oust(&self) -> bool {
        let has_seat = |link: &Weak<Link>| link.upgrade().is_some_and(|link| link.has_seat());
        let ousted = self.table.lock().oust(has_seat);
        let ousted = ousted.and_then(|link| link.upgrade());
        ousted.inspect(|link| link.make_way()).is_some()
    }

    /// The listener has closed: nobody comes back any more, and who is away ends.
    pub(super) fn close(&self) {
        let deserted = self.table.lock().close();
        for link in deserted.iter().filter_map(Weak::upgrade) {
            link.desert();
        }
    }
}

impl Membership {
    pub(super) fn known(&self) -> Known {
        self.known
    }

    /// The connection has lost its link; unless its peer is back already, for then nobody need make room for it, itself
    /// included.
    pub(super) fn lost_link(&self, link: &Link) {
        let mut table = self.held.table.lock();
        if link.is_awaiting() {
            return;
        }
        link.set_absent(true);
        // Counted within the lock: what is sent meanwhile is counted behind this.
        let gone = table.absent(&self.known.session, link.held_cost(), clock::now());
        drop(table);
        expire(&gone);
    }

    /// It has one again: no older greeting than that counts any more, and it is held no longer.
    pub(super) fn has_link(&self, link: &Link) {
        let mut table = self.held.table.lock();
        table.answered(&self.known.session, 0);
        link.set_absent(false);
    }

    /// What a connection without a link holds has changed.
    pub(super) fn recount(&self, link: &Link) {
        let mut table = self.held.table.lock();
        let gone = table.holds(&self.known.session, link.held_cost());
        drop(table);
        expire(&gone);
    }

    /// The connection has ended; of a session that expired nothing is remembered.
    pub(super) fn end(self, reason: Reason, consumed: u64) {
        let mut table = self.held.table.lock();
        match reason {
            Reason::SessionExpired => table.expired(&self.known.session),
            _ => table.over(&self.known.session, consumed, clock::now()),
        }
    }
}

/// They made room for others.
fn expire(gone: &[Weak<Link>]) {
    for link in gone.iter().filter_map(Weak::upgrade) {
        link.expire();
    }
}
