//! The dialler's way to its server: the addresses in turn, and the greeting.

use netasync::proto::Moment;
use netasync::proto::endpoint::Input;
use netasync::proto::events::{Fault, Reason};
use netasync::proto::hello::{Failure, Fate, Hello};
use netasync::proto::options::Protocol;
use netasync::proto::round::{Call, Entrance, Home, Purpose, Round};
use netasync::proto::standing::Standing;

use super::{Door, World};
use crate::end::Dialed;
use crate::greeting::Asked;

/// The present dial: the round that it is in, whom it calls and since when.
pub(super) struct Calling {
    began: Moment,
    round: Round<usize>,
    pub(super) call: Call<usize>,
    pub(super) since: Moment,
}

impl World {
    pub(super) fn dial(&mut self) -> bool {
        let Some(began) = self.dialler.dialling.filter(|_| !self.is_frozen(0)) else {
            return false;
        };
        if self.dialler.asked.is_some() {
            return self.ask();
        }
        let now = self.now;
        let Some(calling) = self.calling.as_ref().filter(|calling| calling.began == began) else {
            return self.begin_round(began);
        };
        let (server, since, limit) = (calling.call.address, calling.since, calling.since + calling.call.limit);
        if now < since + self.setup.shape.latency * 2 {
            return false;
        }
        let is_reachable = !self.is_server_dead && self.network.holes == [false; 2];
        match (is_reachable, self.doors[server]) {
            (true, Door::Open) if self.is_server_up => {
                let wire = self.network.connect();
                self.wires.insert(wire, server);
                self.backlog.push(wire);
                self.dialed(wire, began + self.dialler.options.open_timeout);
            }
            (true, Door::Open | Door::Refusing) => {
                self.call_failed(Some(Failure::passing(Reason::Refused, String::new())));
            }
            _ if now >= limit => self.call_failed(None),
            _ => return false,
        }
        true
    }

    /// The name has been looked up.
    fn begin_round(&mut self, began: Moment) -> bool {
        let home = match (self.reached, self.dialler.known) {
            (None, _) => Home::Nowhere,
            (Some(server), None) => Home::Reached(server),
            (Some(server), Some(_)) => Home::Issuer(server),
        };
        let is_goodbye = self.dialler.endpoint.has_only_goodbyes(self.dialler.facts());
        let purpose = if is_goodbye { Purpose::Goodbye } else { Purpose::Link };
        let open_timeout = self.dialler.options.open_timeout;
        let mut round = Round::new(self.listed.iter().copied(), home, purpose, open_timeout);
        let (now, call) = (self.now, round.next(open_timeout));
        self.calling = call.map(|call| Calling { began, round, call, since: now });
        if self.calling.is_none() {
            let fault = Fault { reason: Reason::NameNotFound, detail: String::new() };
            self.dialler.failed(Input::DialFailed(fault), &mut self.network, now);
        }
        true
    }

    /// Whoever was called did not answer, or otherwise failed: the next one's turn.
    fn call_failed(&mut self, failure: Option<Failure>) {
        let now = self.now;
        let Some(mut calling) = self.calling.take() else { return };
        calling.round.failed(&calling.call, failure.is_some());
        let left = (calling.began + self.dialler.options.open_timeout).saturating_sub(now);
        if let Some(call) = calling.round.next(left) {
            if let Some(asked) = self.dialler.asked.take() {
                self.network.close(asked.wire, 0, now);
            }
            self.calling = Some(Calling { call, since: now, ..calling });
            return;
        }
        let silent = Fault { reason: Reason::OpenTimeout, detail: String::new() };
        let fault = failure.map_or(silent, |failure| failure.fault);
        self.dialler.failed(Input::DialFailed(fault), &mut self.network, now);
    }

    /// TCP is up: on the original's wire that is all.
    fn dialed(&mut self, wire: usize, limit: Moment) {
        let entrance = self.calling.as_ref().map_or(Entrance::Anew, |calling| calling.call.entrance);
        if self.setup.options[0].protocol == Protocol::Native {
            let dialler = &mut self.dialler;
            dialler.greetings += 1;
            let (link, standing) = (dialler.greetings, dialler.standing());
            let (offer, standing) = match dialler.known.filter(|_| entrance == Entrance::Resume) {
                Some(known) => (Hello::resume(&dialler.options, link, known, &standing), standing),
                None => {
                    let credit = dialler.receiver.first_credit();
                    (Hello::offer(&dialler.options, link, credit), Standing::default())
                }
            };
            dialler.asked = Some(Asked::new(offer, standing, wire, limit));
            return;
        }
        self.reached = self.wires.get(&wire).copied();
        let dialed = Dialed { wire, side: 0, greeted: None };
        let input = Input::Dialed { peer: String::from("server"), is_resumed: false };
        self.dialler.linked(dialed, input, &mut self.network, self.now);
    }

    /// The dialler's greeting goes on.
    fn ask(&mut self) -> bool {
        let (network, now) = (&mut self.network, self.now);
        let Some(asked) = &mut self.dialler.asked else { return false };
        let wire = asked.wire;
        match asked.run(network, now) {
            None if self.calling.as_ref().is_some_and(|calling| now >= calling.since + calling.call.limit) => {
                self.call_failed(None);
            }
            None => return false,
            Some(Ok(greeted)) => {
                let is_resumed = greeted.agreement.is_resumed;
                if !is_resumed {
                    self.dialler.known = None;
                }
                self.reached = self.wires.get(&wire).copied();
                let dialed = Dialed { wire, side: 0, greeted: Some(greeted) };
                let input = Input::Dialed { peer: String::from("server"), is_resumed };
                self.dialler.linked(dialed, input, network, now);
            }
            Some(Err(failure)) => {
                assert!(!failure.is_lasting, "{:?} at a greeting of our own", failure.fault);
                match failure.session {
                    Fate::Kept => self.call_failed(Some(failure)),
                    Fate::Void => panic!("{:?}: no session of our own is impossible", failure.fault),
                    Fate::Over { consumed } => {
                        self.dialler.sender.settle(consumed);
                        self.dialler.known = None;
                        self.dialler.failed(Input::SessionOver(failure.fault), network, now);
                    }
                }
            }
        }
        true
    }
}
