//! Every step from every state that legal steps reach.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use netasync::proto::Moment;
use netasync::proto::endpoint::{Endpoint, Facts, Input, Order, Phase, Role, State};
use netasync::proto::events::{Fault, Reason};
use netasync::proto::options::{Options, Protocol, Retry, Settings};
use netasync::proto::wire::{Goodbye, close};

pub const TICK: Duration = Duration::from_secs(1);
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(3);
/// Paths of this length reach every state in every way that differs.
const DEPTH: usize = 7;

/// Whose life it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    pub wire: Wire,
    pub role: Side,
    /// A dialler dials again; an accepted end waits for its dialler's return.
    pub reconnects: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wire {
    Ours,
    Original,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Dialler,
    Accepted,
}

const LIVES: [Life; 7] = [
    Life { wire: Wire::Ours, role: Side::Dialler, reconnects: true },
    Life { wire: Wire::Ours, role: Side::Dialler, reconnects: false },
    Life { wire: Wire::Ours, role: Side::Accepted, reconnects: true },
    Life { wire: Wire::Ours, role: Side::Accepted, reconnects: false },
    Life { wire: Wire::Original, role: Side::Dialler, reconnects: true },
    Life { wire: Wire::Original, role: Side::Dialler, reconnects: false },
    Life { wire: Wire::Original, role: Side::Accepted, reconnects: false },
];

impl Life {
    pub fn is_ours(&self) -> bool {
        self.wire == Wire::Ours
    }

    pub fn is_dialler(&self) -> bool {
        self.role == Side::Dialler
    }

    pub fn start(&self) -> Endpoint {
        let role = if self.is_dialler() { Role::Dialler } else { Role::Accepted };
        Endpoint::new(role, &self.options(), 1)
    }

    fn options(&self) -> Options {
        self.options_with(Retry::fixed(TICK.as_secs_f64()).ok().filter(|_| self.reconnects))
    }

    pub fn options_with(&self, reconnect: Option<Retry>) -> Options {
        let settings = Settings {
            close_timeout: CLOSE_TIMEOUT.as_secs_f64(),
            reconnect,
            session_timeout: if self.reconnects { SESSION_TIMEOUT.as_secs_f64() } else { 0.0 },
            protocol: if self.is_ours() { Protocol::Native } else { Protocol::Classic },
            ..Settings::default()
        };
        settings.check().unwrap()
    }
}

/// One way to reach a state.
#[derive(Debug, Clone)]
pub struct Path {
    pub life: Life,
    pub steps: Vec<(Choice, Facts, Moment)>,
}

impl Path {
    /// A dial has come to its end since that step.
    pub fn has_dialled_since(&self, at: usize) -> bool {
        let is_outcome =
            |input| matches!(input, Choice::Dialed | Choice::Resumed | Choice::DialFailed | Choice::Rejected);
        self.steps[at..].iter().any(|(input, ..)| is_outcome(*input))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Choice {
    Started,
    /// A link, and no session that went on.
    Dialed,
    /// One that carries on the session.
    Resumed,
    DialFailed,
    Rejected,
    /// REFUSE 6.
    SessionOver,
    Returned,
    Expired,
    /// Its listener has closed.
    Deserted,
    /// CLOSE, with its code.
    PeerClosed(u16),
    Broke,
    /// The peer broke a rule: it is told so where there are words for it.
    BrokeRules,
    Eof,
    Looked,
    Close,
    Abort,
}

const CHOICES: [Choice; 21] = [
    Choice::Started,
    Choice::Dialed,
    Choice::Resumed,
    Choice::DialFailed,
    Choice::Rejected,
    Choice::SessionOver,
    Choice::Returned,
    Choice::Expired,
    Choice::Deserted,
    Choice::PeerClosed(close::DONE),
    Choice::PeerClosed(close::LEAVING),
    Choice::PeerClosed(close::FAULT),
    Choice::PeerClosed(close::ABORTED),
    Choice::PeerClosed(close::BUSY),
    Choice::PeerClosed(close::VOID),
    Choice::Broke,
    Choice::BrokeRules,
    Choice::Eof,
    Choice::Looked,
    Choice::Close,
    Choice::Abort,
];

impl Choice {
    pub fn input(self) -> Input {
        let fault = |reason| Fault { reason, detail: String::new() };
        let peer = String::new();
        match self {
            Self::Started => Input::Started { peer },
            Self::Dialed => Input::Dialed { peer, is_resumed: false },
            Self::Resumed => Input::Dialed { peer, is_resumed: true },
            Self::DialFailed => Input::DialFailed(fault(Reason::Refused)),
            Self::Rejected => Input::Rejected(fault(Reason::Rejected)),
            Self::SessionOver => Input::SessionOver(fault(Reason::ClosedByPeer)),
            Self::Returned => Input::Returned { peer },
            Self::Expired => Input::Expired,
            Self::Deserted => Input::Deserted,
            Self::PeerClosed(code) => Input::PeerClosed(Goodbye { code, words: String::new() }),
            Self::Broke => Input::Broke(fault(Reason::Reset)),
            Self::BrokeRules => Input::Broke(fault(Reason::Protocol)),
            Self::Eof => Input::Eof,
            Self::Looked => Input::Looked,
            Self::Close => Input::Close(Reason::ClosedHere),
            Self::Abort => Input::Abort(Reason::Aborted),
        }
    }

    /// A goodbye to which there is no answer: it is read as a break.
    pub fn is_break(self) -> bool {
        matches!(self, Self::PeerClosed(close::FAULT | close::ABORTED | close::VOID) | Self::Broke | Self::BrokeRules)
    }
}

/// What the halves can hold in this phase: only our wire confirms, and says CLOSE when it was told to.
fn facts(life: Life, phase: Phase) -> Vec<Facts> {
    let may_have_said = matches!(phase, Phase::Parting { .. } | Phase::Replying { .. });
    let may_have_session = life.is_ours() && life.is_dialler() && phase != Phase::New;
    let may_have_greeted = life.is_ours() && matches!(phase, Phase::Dialling { .. });
    let mut all = Vec::new();
    for bits in 0..128_u32 {
        let is = |bit: u32| bits & 1 << bit != 0;
        let facts = Facts {
            queued: if is(0) { 3 } else { 0 },
            unconfirmed: if is(1) { 2 } else { 0 },
            goes_again: is(5),
            has_session: is(4),
            has_greeted: is(6),
            has_said_close: is(2),
            owes_answer: is(3),
        };
        if facts.goes_again && (facts.unconfirmed == 0 || !life.is_dialler()) {
            continue;
        }
        let is_lost_in_session = facts.has_session && facts.unconfirmed > 0 && !facts.goes_again;
        let is_too_early = (facts.has_session && !may_have_session) || (facts.has_greeted && !may_have_greeted);
        if is_lost_in_session || is_too_early {
            continue;
        }
        let is_possible = if life.is_ours() {
            !facts.owes_answer && (may_have_said || !facts.has_said_close)
        } else {
            facts.unconfirmed == 0 && !facts.has_said_close
        };
        if is_possible {
            all.push(facts);
        }
    }
    all
}

/// One step from a reached state: what was, what happened, what came of it.
pub struct Step<'a> {
    pub path: &'a Path,
    pub before: &'a Endpoint,
    pub input: Choice,
    pub facts: Facts,
    pub now: Moment,
    pub orders: &'a [Order],
    pub after: &'a Endpoint,
}

/// Visits every step from every state that legal steps reach.
pub fn every_step(mut visit: impl FnMut(&Step<'_>)) {
    for life in LIVES {
        let start = Path { life, steps: Vec::new() };
        let mut known = HashSet::new();
        let mut paths = VecDeque::from([start]);
        while let Some(path) = paths.pop_front() {
            let (before, now) = replay(&path);
            for (input, facts, now) in inputs(life, before.phase(), now) {
                let (mut after, _) = replay(&path);
                let orders = after.step(input.input(), facts, now);
                visit(&Step { path: &path, before: &before, input, facts, now, orders: &orders, after: &after });
                if !is_legal(life, before.phase(), input) || path.steps.len() >= DEPTH {
                    continue;
                }
                let mut longer = path.clone();
                longer.steps.push((input, facts, now));
                if known.insert(sign(&after, &longer, now)) {
                    paths.push_back(longer);
                }
            }
        }
    }
}

fn replay(path: &Path) -> (Endpoint, Moment) {
    let mut endpoint = path.life.start();
    let mut last = Moment::ZERO;
    for (input, facts, now) in &path.steps {
        endpoint.step(input.input(), *facts, *now);
        last = *now;
    }
    (endpoint, last)
}

/// Each input with each set of facts, now, soon and late.
fn inputs(life: Life, phase: Phase, now: Moment) -> impl Iterator<Item = (Choice, Facts, Moment)> {
    let is_ours_alone = |input: &Choice| {
        matches!(
            input,
            Choice::PeerClosed(_)
                | Choice::Resumed
                | Choice::SessionOver
                | Choice::Returned
                | Choice::Expired
                | Choice::Deserted
        )
    };
    let choices = CHOICES.into_iter().filter(move |input| life.is_ours() || !is_ours_alone(input));
    choices.flat_map(move |input| {
        facts(life, phase)
            .into_iter()
            .flat_map(move |facts| [Duration::ZERO, TICK, 4 * TICK].map(|later| (input, facts, now + later)))
    })
}

/// What a driver can tell an end in this phase: one has no link before one is dialled, and so on.
pub fn is_legal(life: Life, phase: Phase, input: Choice) -> bool {
    let reads = matches!(phase, Phase::Up { .. } | Phase::Draining { is_heard: false } | Phase::Leaving);
    let is_dialling = matches!(phase, Phase::Dialling { .. });
    match input {
        Choice::Started => phase == Phase::New,
        Choice::Dialed | Choice::DialFailed | Choice::Rejected => is_dialling && life.is_dialler(),
        Choice::Resumed | Choice::SessionOver => is_dialling && life.is_dialler() && life.is_ours(),
        Choice::Returned | Choice::Expired => matches!(phase, Phase::Absent { .. }),
        Choice::Deserted => !life.is_dialler() && !matches!(phase, Phase::New | Phase::Ended),
        Choice::BrokeRules if matches!(phase, Phase::Absent { .. }) => true,
        Choice::Broke | Choice::BrokeRules => has_link(phase),
        Choice::PeerClosed(_) => life.is_ours() && has_link(phase),
        Choice::Eof => reads || matches!(phase, Phase::Parting { .. } | Phase::Replying { .. }),
        Choice::Looked | Choice::Close | Choice::Abort => phase != Phase::Ended,
    }
}

pub fn has_link(phase: Phase) -> bool {
    use Phase::{Answering, Draining, Leaving, Parting, Replying, Up};
    matches!(phase, Up { .. } | Answering { .. } | Draining { .. } | Leaving | Parting { .. } | Replying { .. })
}

/// Two ends with the same sign behave the same: moments are seen from now.
fn sign(endpoint: &Endpoint, path: &Path, now: Moment) -> String {
    let due = endpoint.deadline().map(|due| due.saturating_sub(now));
    let age = match endpoint.phase() {
        Phase::Up { since } => now.saturating_sub(since).min(2 * TICK),
        Phase::Dialling { since } => now.saturating_sub(since).min(TICK),
        _ => Duration::ZERO,
    };
    let closed_at = path.steps.iter().position(|(input, ..)| *input == Choice::Close);
    let has_dialled = closed_at.is_some_and(|at| path.has_dialled_since(at));
    // Being sent away is remembered for the longest back-off.
    let sent_away = path.steps.iter().rev().find(|(input, ..)| *input == Choice::PeerClosed(close::LEAVING));
    let sent_away = sent_away.map(|(_, _, at)| now.saturating_sub(*at).min(2 * TICK));
    let phase = name(endpoint);
    // Whether the session is over, since the last link came up.
    let is_up = |input| matches!(input, Choice::Dialed | Choice::Resumed);
    let ends = |input: Choice| matches!(input, Choice::PeerClosed(code) if code != close::FAULT);
    let last = path.steps.iter().rev().map(|(input, ..)| *input).find(|input| ends(*input) || is_up(*input));
    let is_over = last.is_some_and(ends);
    let until = match endpoint.phase() {
        Phase::Absent { until } => Some(until.saturating_sub(now)),
        _ => None,
    };
    let (code, state) = (code(endpoint.phase()), endpoint.state());
    let is_deserted = path.steps.iter().any(|(input, ..)| *input == Choice::Deserted);
    format!("{phase} {code:?} {due:?} {until:?} {age:?} {state:?} {sent_away:?} {is_over} {has_dialled} {is_deserted}")
}

fn code(phase: Phase) -> Option<u16> {
    if let Phase::Replying { code, .. } = phase { Some(code) } else { None }
}

/// It has shown Closed, and is not at its end.
pub fn says_farewell(endpoint: &Endpoint) -> bool {
    endpoint.state() == State::Closed && endpoint.phase() != Phase::Ended
}

pub fn name(endpoint: &Endpoint) -> &'static str {
    match endpoint.phase() {
        Phase::Dialling { .. } if says_farewell(endpoint) => "Farewell, dialling",
        Phase::Resting { .. } if says_farewell(endpoint) => "Farewell, resting",
        Phase::Parting { is_heard: false } if says_farewell(endpoint) => "Farewell, parting",
        Phase::Parting { is_heard: true } if says_farewell(endpoint) => "Farewell, heard",
        phase => name_of(phase),
    }
}

fn name_of(phase: Phase) -> &'static str {
    match phase {
        Phase::New => "New",
        Phase::Dialling { .. } => "Dialling",
        Phase::Resting { .. } => "Resting",
        Phase::Up { .. } => "Up",
        Phase::Absent { .. } => "Absent",
        Phase::Answering { .. } => "Answering",
        Phase::Draining { is_heard: false } => "Draining",
        Phase::Draining { is_heard: true } => "Draining, heard",
        Phase::Leaving => "Leaving",
        Phase::Parting { is_heard: false } => "Parting",
        Phase::Parting { is_heard: true } => "Parting, heard",
        Phase::Replying { .. } => "Replying",
        Phase::Ended => "Ended",
    }
}
