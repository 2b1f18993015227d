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
    /// This connection goes on, and its older link has ended.
    Back(Arc<Link>, Fenced),
    Refused(Goodbye),
    /// The session is over; so many messages were taken.
    Over {
        consumed: u64,
    },
}

/// A connection that waits for the link which its peer has asked for.
pub(super) struct Fenced {
    /// Which fence this was: an older one does not let its link in any more.
    pub(super) epoch: u64,
    pub(super) known: Known,
    pub(super) standing: Standing,
}

/// A connection's place in the table.
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
        drop(table);
        Guest::Back(link, fenced)
    }

    /// A session has begun.
    pub(super) fn enter(self: &Arc<Self>, known: Known, number: u32, link: &Arc<Link>) {
        self.table.lock().enter(known, number, Arc::downgrade(link));
        link.join(Membership { held: Arc::clone(self), known });
    }
}

impl Membership {
    pub(super) fn known(&self) -> Known {
        self.known
    }

    /// The connection has lost its link, and holds so many bytes.
    pub(super) fn lost_link(&self, bytes: u64) {
        let gone = self.held.table.lock().absent(&self.known.session, bytes, clock::now());
        for link in gone.iter().filter_map(Weak::upgrade) {
            link.expire();
        }
    }

    /// It has one again: no older greeting than that counts any more, and it is held no longer.
    pub(super) fn has_link(&self) {
        self.held.table.lock().answered(&self.known.session, 0);
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
