//! What a server's process knows of the sessions of all its diallers.

use std::cell::RefCell;
use std::rc::Rc;

use netasync::proto::Moment;
use netasync::proto::hello::{Hello, Secret};
use netasync::proto::options::Holding;
use netasync::proto::sessions::{Sessions, Verdict};
use netasync::proto::standing::Known;

use crate::world::Setup;

/// A dialler, and the how manyth accepted end of it.
pub type Holder = (usize, usize);

/// Clones are the same table.
#[derive(Clone)]
pub struct Table(Rc<RefCell<Process>>);

struct Process {
    sessions: Sessions<Holder>,
    named: u128,
    /// Those who must go and have not been told.
    expired: Vec<Holder>,
}

impl Table {
    /// Of the server of this number: no two of them issue the same name.
    pub fn new(setup: &Setup, server: usize) -> Self {
        let named = u128::try_from(server).unwrap() << 64;
        Self(Rc::new(RefCell::new(Process { sessions: empty(setup), named, expired: Vec::new() })))
    }

    /// The process is another one; no name comes again.
    pub fn clear(&self, setup: &Setup) {
        let mut process = self.0.borrow_mut();
        process.sessions = empty(setup);
        process.expired.clear();
    }

    /// The listener has closed: nobody comes back to any of these.
    pub fn close(&self, place: usize) -> Vec<usize> {
        let deserted = self.0.borrow_mut().sessions.close();
        deserted.into_iter().filter(|holder| holder.0 == place).map(|holder| holder.1).collect()
    }

    pub fn invent(&self) -> Known {
        let mut process = self.0.borrow_mut();
        process.named += 1;
        let name = process.named.to_be_bytes();
        Known { session: name, token: name }
    }

    pub fn ask(&self, offer: &Hello, now: Moment) -> Verdict<Holder> {
        self.0.borrow_mut().sessions.ask(offer, "dialler", now)
    }

    pub fn enter(&self, known: Known, link: u32, holder: Holder) {
        self.0.borrow_mut().sessions.enter(known, link, holder);
    }

    pub fn answered(&self, known: &Known, link: u32) {
        self.0.borrow_mut().sessions.answered(&known.session, link);
    }

    pub fn absent(&self, session: &Secret, held_bytes: u64, now: Moment) {
        let mut process = self.0.borrow_mut();
        let expired = process.sessions.absent(session, held_bytes, now);
        process.expired.extend(expired);
    }

    pub fn holds(&self, session: &Secret, held_bytes: u64) {
        let mut process = self.0.borrow_mut();
        let expired = process.sessions.holds(session, held_bytes);
        process.expired.extend(expired);
    }

    pub fn expired(&self, session: &Secret) {
        self.0.borrow_mut().sessions.expired(session);
    }

    pub fn over(&self, session: &Secret, consumed: u64, now: Moment) {
        self.0.borrow_mut().sessions.over(session, consumed, now);
    }

    /// Which of this dialler's accepted ends must go.
    pub fn take_expired(&self, place: usize) -> Vec<usize> {
        let mut process = self.0.borrow_mut();
        let gone = process.expired.iter().filter(|holder| holder.0 == place).map(|holder| holder.1).collect();
        process.expired.retain(|holder| holder.0 != place);
        gone
    }

    pub fn has_expired(&self) -> bool {
        !self.0.borrow().expired.is_empty()
    }
}

fn empty(setup: &Setup) -> Sessions<Holder> {
    let (max_sessions, max_held_bytes) = setup.holds;
    Sessions::new(Holding { session_timeout: setup.options[1].session_timeout, max_sessions, max_held_bytes })
}
