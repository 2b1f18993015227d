//! A dialler, a server that comes and goes, the network between them, and the clock that only they move. The name
//! that is dialled may lead to two servers, each with sessions of its own.

mod dialling;

use std::collections::HashMap;
use std::time::Duration;

use netasync::proto::Moment;
use netasync::proto::endpoint::{Input, Phase, Role, State};
use netasync::proto::events::{Fault, Reason};
use netasync::proto::hello::{Hello, Secret};
use netasync::proto::options::{Options, Protocol};
use netasync::proto::sessions::Verdict;
use netasync::proto::standing::Known;

use crate::application::{Application, Reading, Writing};
use crate::end::{Dialed, End};
use crate::greeting::{Greeted, Greeting, Guest};

use crate::network::{Network, Shape, Side};
use crate::random::Random;
use crate::table::Table;
use dialling::Calling;

/// What a run does to its ends, and when.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    Hole {
        directions: [bool; 2],
    },
    Heal,
    Reset,
    ServerUp,
    /// The server's listener closes, and what it has accepted lives on.
    ListenerClosed,
    /// The server's process ends and its kernel says so.
    ServerKilled,
    /// The server's host loses its power.
    ServerVanished,
    /// A process stands still until then; 0 is the dialler's.
    Freeze {
        side: Side,
        until: Moment,
    },
    /// From now on a lookup lists these servers.
    Names(&'static [usize]),
    /// What becomes of a dial of this server; the links that it has stay.
    Door(usize, Door),
    Close(Side),
    Abort(Side),
    Read(Side, Reading),
    /// The application closes its reading channel.
    CloseReading(Side),
    Write(Side, Writing),
}

/// What becomes of a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Open,
    Refusing,
    Silent,
}

#[derive(Debug, Clone)]
pub struct Setup {
    pub shape: Shape,
    pub options: [Options; 2],
    pub reading: [Reading; 2],
    pub writing: [Writing; 2],
    pub echoes: bool,
    pub is_server_up: bool,
    /// How many sessions without a link, and how much cost in all, the server holds.
    pub holds: (usize, u64),
    /// Longer messages travel in PARTs of this size.
    pub part: usize,
}

pub struct World {
    pub now: Moment,
    pub network: Network,
    pub dialler: End,
    /// Every accepting end that ever was, in order.
    pub accepted: Vec<End>,
    pub setup: Setup,
    is_server_up: bool,
    frozen_until: [Moment; 2],
    /// How long each process has stood still, all together.
    pub frozen: [Duration; 2],
    /// Connections that the server's kernel has made and its process has not seen.
    backlog: Vec<usize>,
    /// Connections that have not greeted yet.
    guests: Vec<Guest>,
    script: Vec<(Moment, Act)>,
    /// Until when silence towards a side may be the network's, or a host's, doing.
    pub impaired_until: [Moment; 2],
    is_hole: [bool; 2],
    is_server_dead: bool,
    /// Since when nothing has stood between the two, and the earlier times of that kind.
    pub calm_since: Option<Moment>,
    pub calms: Vec<(Moment, Moment)>,
    /// The accepted end of the session in which the dialler was, without anything to deliver, when it closed.
    pub owed_goodbye: Option<usize>,
    /// What the server's process holds, and which of its diallers this one is.
    pub table: Table,
    pub place: usize,
    /// The same of the second server.
    other: Table,
    listed: &'static [usize],
    doors: [Door; 2],
    calling: Option<Calling>,
    /// Whom the dialler has reached last.
    reached: Option<usize>,
    /// At which server each connection ends, and each accepted end is.
    wires: HashMap<usize, usize>,
    homes: Vec<usize>,
    /// Who has issued each session.
    issuers: HashMap<Secret, usize>,
    random: Random,
}

impl World {
    pub fn new(setup: Setup, mut random: Random) -> Self {
        let now = Moment::ZERO;
        let application = Application::new(setup.reading[0], setup.writing[0], false);
        let options = &setup.options[0];
        let dialler = End::new(Role::Dialler, 0, options, application, random.split(), now).with_part(setup.part);
        let mut world = Self {
            now,
            network: Network::new(setup.shape, random.split()),
            dialler,
            accepted: Vec::new(),
            is_server_up: setup.is_server_up,
            table: Table::new(&setup, 0),
            place: 0,
            other: Table::new(&setup, 1),
            listed: &[0],
            doors: [Door::Open; 2],
            calling: None,
            reached: None,
            wires: HashMap::new(),
            homes: Vec::new(),
            issuers: HashMap::new(),
            setup,
            frozen_until: [now; 2],
            frozen: [Duration::ZERO; 2],
            backlog: Vec::new(),
            guests: Vec::new(),
            script: Vec::new(),
            impaired_until: [now; 2],
            is_hole: [false; 2],
            is_server_dead: false,
            calm_since: None,
            calms: Vec::new(),
            owed_goodbye: None,
            random,
        };
        let peer = String::new();
        world.dialler.step(Input::Started { peer }, &mut world.network, now);
        world.note_calm();
        world
    }

    pub fn at(&mut self, milliseconds: u64, act: Act) -> &mut Self {
        self.script.push((Duration::from_millis(milliseconds), act));
        self.script.sort_by_key(|(at, _)| *at);
        self
    }

    /// The accepting end of the newest connection.
    pub fn server(&self) -> &End {
        self.accepted.last().expect("a connection has been accepted")
    }

    pub fn run_until(&mut self, milliseconds: u64) {
        let end = Duration::from_millis(milliseconds);
        loop {
            self.settle();
            self.check();
            let next = self.next().unwrap_or(end).min(end);
            assert!(next > self.now || self.now >= end, "no deadline lies in the past: {:?}", self.ends_in_brief());
            if self.now >= end {
                return;
            }
            self.now = next;
        }
    }

    /// Runs until `done`, at most until then; returns when.
    pub fn run_while(&mut self, milliseconds: u64, mut is_on: impl FnMut(&Self) -> bool) -> Moment {
        let end = Duration::from_millis(milliseconds);
        loop {
            self.settle();
            self.check();
            if !is_on(self) {
                return self.now;
            }
            let next = self.next().unwrap_or(end);
            assert!(next < end, "it did not come to that: {:?}", self.ends_in_brief());
            self.now = next;
        }
    }

    pub fn ends_in_brief(&self) -> Vec<(Role, Phase, Option<Moment>)> {
        self.ends().filter(|end| !end.is_gone).map(|end| (end.role, end.phase(), end.next())).collect()
    }

    pub fn ends(&self) -> impl Iterator<Item = &End> {
        std::iter::once(&self.dialler).chain(&self.accepted)
    }

    /// Does everything that happens at this moment, in whatever order it comes.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut has_moved = self.act();
            self.network.advance(self.now);
            has_moved |= self.dial();
            has_moved |= self.keep_sessions();
            has_moved |= self.accept();
            if !self.is_frozen(0) {
                has_moved |= self.dialler.run(&mut self.network, self.now);
            }
            if !self.is_frozen(1) {
                for end in self.accepted.iter_mut().filter(|end| !end.is_gone) {
                    has_moved |= end.run(&mut self.network, self.now);
                }
            }
            self.network.advance(self.now);
            if !has_moved {
                return;
            }
        }
        panic!("one moment never ends: {:?}", self.ends_in_brief());
    }

    fn is_frozen(&self, side: Side) -> bool {
        self.now < self.frozen_until[side]
    }

    pub fn next(&self) -> Option<Moment> {
        let mut dues = vec![self.script.first().map(|(at, _)| *at), self.network.next()];
        for side in 0..2 {
            dues.push(self.is_frozen(side).then_some(self.frozen_until[side]));
        }
        if let Some(began) = self.dialler.dialling.filter(|_| !self.is_frozen(0)) {
            let (since, limit) = match &self.calling {
                Some(calling) => (calling.since, calling.since + calling.call.limit),
                None => (began, began + self.dialler.options.open_timeout),
            };
            let answer = since + self.setup.shape.latency * 2;
            let is_asking = self.dialler.asked.is_some();
            dues.push(Some(if self.now < answer && !is_asking { answer } else { limit }));
        }
        if !self.is_frozen(0) {
            dues.push(self.dialler.next());
        }
        if !self.is_frozen(1) {
            let alive = self.accepted.iter().filter(|end| !end.is_gone);
            dues.extend(alive.map(End::next));
            dues.extend(self.guests.iter().map(|guest| Some(guest.first_by)));
        }
        dues.into_iter().flatten().min()
    }

    fn accept(&mut self) -> bool {
        if self.is_frozen(1) {
            return false;
        }
        let mut has_moved = false;
        for wire in std::mem::take(&mut self.backlog) {
            has_moved = true;
            match self.setup.options[1].protocol {
                Protocol::Classic => self.accepted(wire, None),
                Protocol::Native => self.guests.push(Guest::new(&self.setup.options[1], wire, self.now)),
            }
        }
        for mut guest in std::mem::take(&mut self.guests) {
            match guest.run(&mut self.network, self.now) {
                Greeting::Waiting => self.guests.push(guest),
                Greeting::Gone => self.network.close(guest.wire, 1, self.now),
                Greeting::Offered(offer) => {
                    has_moved = true;
                    self.answer(&mut guest, &offer);
                    self.guests.push(guest);
                }
                Greeting::New(greeted) => {
                    has_moved = true;
                    let agreement = &greeted.agreement;
                    let known = Known { session: agreement.session, token: agreement.token };
                    let table = self.table_of(self.wires[&guest.wire]).clone();
                    table.enter(known, guest.link, (self.place, self.accepted.len()));
                    self.accepted(guest.wire, Some(greeted));
                }
                Greeting::Resumed(number, greeted) => {
                    has_moved = true;
                    self.returned(number, &guest, greeted);
                }
            }
        }
        has_moved
    }

    /// How the listener answers.
    fn answer(&mut self, guest: &mut Guest, offer: &Hello) {
        let server = self.wires[&guest.wire];
        let table = self.table_of(server).clone();
        if offer.asks_for_session() {
            assert_eq!(self.issuers.get(&offer.session), Some(&server), "a session is shown to its issuer only");
        }
        let verdict = table.ask(offer, self.now);
        match verdict {
            Verdict::New => {
                let known = table.invent();
                self.issuers.insert(known.session, server);
                guest.begin(offer, &self.setup.options[1], known);
            }
            Verdict::Refuse(goodbye) => panic!("{goodbye:?} to a dialler of our own"),
            Verdict::Over { consumed } => guest.refuse_closed(consumed),
            Verdict::Resume((place, number)) => {
                assert_eq!(place, self.place, "a session is its dialler's own");
                // What was read of the older link and not parsed is dropped before anything is counted.
                let end = &mut self.accepted[number];
                let (reason, detail) = (Reason::Replaced, String::new());
                end.step(Input::Broke(Fault { reason, detail }), &mut self.network, self.now);
                if self.keep_sessions() && self.accepted[number].is_ended() {
                    return self.answer(guest, offer);
                }
                let end = &mut self.accepted[number];
                let (known, standing) = (end.known.expect("it is known by it"), end.standing());
                end.greetings = offer.link;
                table.answered(&known, offer.link);
                let agreed = guest.resume(offer, &self.setup.options[1], number, known, &standing);
                agreed.expect("no session of our own is impossible");
            }
        }
    }

    /// The answer is out, and with it the link is up; unless something has come between.
    fn returned(&mut self, number: usize, guest: &Guest, greeted: Greeted) {
        let end = &mut self.accepted[number];
        if end.greetings != guest.link || !matches!(end.phase(), Phase::Absent { .. }) {
            return self.network.close(guest.wire, 1, self.now);
        }
        let dialed = Dialed { wire: guest.wire, side: 1, greeted: Some(greeted) };
        end.linked(dialed, Input::Returned { peer: String::from("client") }, &mut self.network, self.now);
    }

    /// The listener learns whose link is gone and whose session is over.
    fn keep_sessions(&mut self) -> bool {
        let mut has_moved = false;
        for number in 0..self.accepted.len() {
            let table = self.table_of(self.homes[number]).clone();
            let end = &mut self.accepted[number];
            let Some(known) = end.known.filter(|_| !end.is_gone && end.is_native()) else { continue };
            let session = known.session;
            let is_absent = matches!(end.phase(), Phase::Absent { .. });
            if end.is_ended() {
                end.known = None;
                match end.ended_for() {
                    Some(Reason::SessionExpired) => table.expired(&session),
                    _ => table.over(&session, end.receiver.consumed_of_session(), self.now),
                }
                has_moved = true;
            } else if is_absent && !end.is_absent {
                table.absent(&session, end.receiver.held_cost(), self.now);
                has_moved = true;
            } else if is_absent {
                table.holds(&session, end.receiver.held_cost());
            }
            self.accepted[number].is_absent = is_absent;
            for number in table.take_expired(self.place) {
                has_moved = true;
                self.accepted[number].step(Input::Expired, &mut self.network, self.now);
            }
        }
        has_moved
    }

    /// At which server each accepted end is.
    pub fn servers_of_accepted(&self) -> &[usize] {
        &self.homes
    }

    fn table_of(&self, server: usize) -> &Table {
        if server == 0 { &self.table } else { &self.other }
    }

    fn accepted(&mut self, wire: usize, greeted: Option<Greeted>) {
        let stream = u32::try_from(self.accepted.len() + 1).unwrap();
        let setup = &self.setup;
        let mut application = Application::new(setup.reading[1], setup.writing[1], setup.echoes);
        application.next_write = self.now;
        let (options, random) = (&setup.options[1], self.random.split());
        let mut end = End::new(Role::Accepted, stream, options, application, random, self.now).with_part(setup.part);
        let (dialed, peer) = (Dialed { wire, side: 1, greeted }, String::from("client"));
        end.linked(dialed, Input::Started { peer }, &mut self.network, self.now);
        self.accepted.push(end);
        self.homes.push(self.wires[&wire]);
    }

    fn act(&mut self) -> bool {
        let mut has_moved = false;
        while self.script.first().is_some_and(|(at, _)| *at <= self.now) {
            let (_, act) = self.script.remove(0);
            self.perform(act);
            has_moved = true;
        }
        has_moved
    }

    /// Something has come between the two, or has gone.
    fn note_calm(&mut self) {
        let now = self.now;
        if let Some(since) = self.calm_since.take().filter(|since| *since < now) {
            self.calms.push((since, now));
        }
        let is_listed = self.reached.is_none_or(|server| self.listed.contains(&server));
        let are_open = self.doors.iter().all(|door| *door == Door::Open);
        if self.is_server_up && self.is_hole == [false; 2] && is_listed && are_open {
            self.calm_since = Some(self.frozen_until.into_iter().fold(now, Moment::max));
        }
    }

    fn perform(&mut self, act: Act) {
        self.carry_out(act);
        let is_of_application =
            matches!(act, Act::Close(_) | Act::Abort(_) | Act::Read(..) | Act::CloseReading(_) | Act::Write(..));
        if !is_of_application {
            self.note_calm();
        }
    }

    fn carry_out(&mut self, act: Act) {
        let now = self.now;
        match act {
            Act::Hole { directions } => {
                self.note_impairments();
                self.is_hole = directions;
                self.network.holes = directions;
            }
            Act::Heal => {
                self.note_impairments();
                self.is_hole = [false; 2];
                self.network.holes = [false; 2];
            }
            Act::Reset => {
                let link = self.dialler.link.as_ref().map(|link| link.wire);
                if let Some(wire) = link.or(self.dialler.asked.as_ref().map(|asked| asked.wire)) {
                    self.network.reset(wire);
                }
            }
            Act::ServerUp => {
                self.note_impairments();
                self.is_server_up = true;
                self.is_server_dead = false;
                self.network.is_server_host_up = true;
            }
            Act::ListenerClosed => {
                self.is_server_up = false;
                for wire in self.strangers() {
                    self.network.close(wire, 1, now);
                }
                for number in self.table.close(self.place) {
                    let end = &mut self.accepted[number];
                    end.is_deserted = true;
                    end.step(Input::Deserted, &mut self.network, now);
                }
            }
            Act::ServerKilled => {
                self.is_server_up = false;
                self.frozen_until[1] = self.frozen_until[1].min(now);
                for wire in self.strangers() {
                    self.network.close(wire, 1, now);
                }
                self.table.clear(&self.setup);
                self.other.clear(&self.setup);
                for end in self.accepted.iter_mut().filter(|end| !end.is_gone) {
                    end.kill(&mut self.network, now);
                }
            }
            Act::ServerVanished => {
                self.is_server_up = false;
                self.is_server_dead = true;
                self.network.is_server_host_up = false;
                self.dialler.is_doomed = self.dialler.link.is_some();
                self.frozen_until[1] = self.frozen_until[1].min(now);
                for wire in self.strangers() {
                    self.network.vanish(wire, 1);
                }
                self.table.clear(&self.setup);
                self.other.clear(&self.setup);
                for end in self.accepted.iter_mut().filter(|end| !end.is_gone) {
                    end.vanish(&mut self.network);
                }
            }
            Act::Freeze { side, until } => {
                let from = now.max(self.frozen_until[side]);
                self.frozen[side] += until.saturating_sub(from);
                self.frozen_until[side] = until.max(from);
                // The other side hears nothing, and this one finds an old frame when it goes on.
                self.impaired_until = self.impaired_until.map(|old| old.max(until));
            }
            Act::Names(servers) => self.listed = servers,
            Act::Door(server, door) => self.doors[server] = door,
            Act::Close(side) => {
                if side == 0 {
                    self.note_goodbye();
                }
                self.with_end(side, |end, network| end.close(network, now));
            }
            Act::Abort(side) => self.with_end(side, |end, network| end.abort(network, now)),
            Act::CloseReading(side) => self.with_end(side, |end, _| end.close_reading(now)),
            Act::Read(side, reading) => {
                if side == 0 {
                    self.dialler.application.reading = reading;
                } else {
                    self.setup.reading[1] = reading;
                    for end in &mut self.accepted {
                        end.application.reading = reading;
                    }
                }
            }
            Act::Write(side, writing) => {
                if side == 1 {
                    self.setup.writing[1].left = 0;
                }
                self.with_end(side, |end, _| {
                    if matches!(end.endpoint.state(), State::Closing | State::Closed) {
                        return;
                    }
                    end.application.writing = writing;
                    end.application.next_write = now;
                });
            }
        }
    }

    /// Takes away the connections that the server's applications have never seen.
    fn strangers(&mut self) -> Vec<usize> {
        let guests = std::mem::take(&mut self.guests).into_iter().map(|guest| guest.wire);
        std::mem::take(&mut self.backlog).into_iter().chain(guests).collect()
    }

    fn with_end(&mut self, side: Side, act: impl FnOnce(&mut End, &mut Network)) {
        let newest = self.accepted.iter_mut().rfind(|end| !end.is_gone);
        let end = if side == 0 { Some(&mut self.dialler) } else { newest };
        if let Some(end) = end {
            act(end, &mut self.network);
        }
    }

    fn note_impairments(&mut self) {
        if std::mem::take(&mut self.network.has_silenced) {
            self.impaired_until = [self.now; 2];
        }
        for side in 0..2 {
            if self.is_hole[1 - side] {
                self.impaired_until[side] = self.impaired_until[side].max(self.now);
            }
        }
        if self.is_server_dead {
            self.impaired_until[0] = self.impaired_until[0].max(self.now);
        }
    }

    /// What holds after every moment.
    pub fn check(&mut self) {
        self.note_impairments();
        for (side, end) in [(0, &self.dialler)].into_iter().chain(self.accepted.iter().map(|end| (1, end))) {
            if end.is_gone || self.is_frozen(side) {
                continue;
            }
            end.check(self.now, self.frozen[side]);
            self.check_verdicts(side, end);
        }
        if self.dialler.is_native() {
            self.check_confirmations();
        }
    }

    pub fn has_impairments(&self) -> bool {
        self.impaired_until != [Moment::ZERO; 2]
    }
}
