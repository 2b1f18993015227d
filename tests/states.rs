//! Every state that an end can reach, and every input in it: the invariants at the head of
//! `endpoint.rs` under their own names, and the table `docs/states.md`, which this test writes when
//! `NETASYNC_WRITE_DOCS=1` and otherwise holds against the code.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use netasync::proto::Moment;
use netasync::proto::classic::Fault;
use netasync::proto::endpoint::{Endpoint, Facts, Input, Order, Phase, Role, State};
use netasync::proto::events::{Event, Reason};
use netasync::proto::options::{Options, Retry, Settings};

const TICK: Duration = Duration::from_secs(1);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Paths of this length reach every state in every way that differs.
const DEPTH: usize = 7;

fn options(role: Role, reconnects: bool) -> Options {
    let settings = Settings {
        close_timeout: CLOSE_TIMEOUT.as_secs_f64(),
        reconnect: Retry::fixed(1.0).ok().filter(|_| reconnects && role == Role::Dialler),
        ..Settings::default()
    };
    settings.check().unwrap()
}

/// One way to reach a state.
#[derive(Debug, Clone)]
struct Path {
    role: Role,
    reconnects: bool,
    steps: Vec<(Choice, Facts, Moment)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Choice {
    Started,
    Dialed,
    DialFailed,
    Broke,
    Eof,
    Looked,
    Close,
    Abort,
}

const CHOICES: [Choice; 8] = [
    Choice::Started,
    Choice::Dialed,
    Choice::DialFailed,
    Choice::Broke,
    Choice::Eof,
    Choice::Looked,
    Choice::Close,
    Choice::Abort,
];

impl Choice {
    fn input(self) -> Input {
        let fault = |reason| Fault { reason, detail: String::new() };
        let peer = String::new();
        match self {
            Self::Started => Input::Started { peer },
            Self::Dialed => Input::Dialed { peer },
            Self::DialFailed => Input::DialFailed(fault(Reason::Refused)),
            Self::Broke => Input::Broke(fault(Reason::Reset)),
            Self::Eof => Input::Eof,
            Self::Looked => Input::Looked,
            Self::Close => Input::Close(Reason::ClosedHere),
            Self::Abort => Input::Abort(Reason::Aborted),
        }
    }
}

fn facts() -> Vec<Facts> {
    let both = [false, true];
    both.iter()
        .flat_map(|owes_answer| both.map(|brought_message| (*owes_answer, brought_message)))
        .flat_map(|(owes_answer, brought_message)| [0, 3].map(|queued| Facts { queued, owes_answer, brought_message }))
        .collect()
}

/// One step from a reached state: what was, what happened, what came of it.
struct Step<'a> {
    path: &'a Path,
    before: &'a Endpoint,
    input: Choice,
    facts: Facts,
    now: Moment,
    orders: &'a [Order],
    after: &'a Endpoint,
}

/// Visits every step from every state that legal steps reach.
fn every_step(mut visit: impl FnMut(&Step<'_>)) {
    for (role, reconnects) in [(Role::Dialler, true), (Role::Dialler, false), (Role::Accepted, false)] {
        let start = Path { role, reconnects, steps: Vec::new() };
        let mut known = HashSet::new();
        let mut paths = VecDeque::from([start]);
        while let Some(path) = paths.pop_front() {
            let (before, now) = replay(&path);
            for (input, facts, now) in inputs(now) {
                let (mut after, _) = replay(&path);
                let orders = after.step(input.input(), facts, now);
                visit(&Step { path: &path, before: &before, input, facts, now, orders: &orders, after: &after });
                if is_legal(role, before.phase(), input) && path.steps.len() < DEPTH && known.insert(sign(&after, now))
                {
                    let mut path = path.clone();
                    path.steps.push((input, facts, now));
                    paths.push_back(path);
                }
            }
        }
    }
}

fn replay(path: &Path) -> (Endpoint, Moment) {
    let mut endpoint = Endpoint::new(path.role, &options(path.role, path.reconnects), 1);
    let mut last = Moment::ZERO;
    for (input, facts, now) in &path.steps {
        endpoint.step(input.input(), *facts, *now);
        last = *now;
    }
    (endpoint, last)
}

/// Each input with each set of facts, now, soon and late.
fn inputs(now: Moment) -> impl Iterator<Item = (Choice, Facts, Moment)> {
    CHOICES.into_iter().flat_map(move |input| {
        facts()
            .into_iter()
            .flat_map(move |facts| [Duration::ZERO, TICK, 4 * TICK].map(|later| (input, facts, now + later)))
    })
}

/// What a driver can tell an end in this phase: one has no link before one is dialled, and so on.
fn is_legal(role: Role, phase: Phase, input: Choice) -> bool {
    match input {
        Choice::Started => phase == Phase::New,
        Choice::Dialed | Choice::DialFailed => phase == Phase::Dialling && role == Role::Dialler,
        Choice::Broke => has_link(phase),
        Choice::Eof => matches!(phase, Phase::Up { .. } | Phase::Draining { is_heard: false } | Phase::Leaving),
        Choice::Looked | Choice::Close | Choice::Abort => phase != Phase::Ended,
    }
}

fn has_link(phase: Phase) -> bool {
    matches!(phase, Phase::Up { .. } | Phase::Answering { .. } | Phase::Draining { .. } | Phase::Leaving)
}

/// Two ends with the same sign behave the same: moments are seen from now.
fn sign(endpoint: &Endpoint, now: Moment) -> String {
    let due = endpoint.deadline().map(|due| due.saturating_sub(now));
    let age = match endpoint.phase() {
        Phase::Up { since } => now.saturating_sub(since).min(2 * TICK),
        _ => Duration::ZERO,
    };
    let phase = name(endpoint.phase());
    format!("{phase} {due:?} {age:?} {:?}", endpoint.state())
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::New => "New",
        Phase::Dialling => "Dialling",
        Phase::Resting { .. } => "Resting",
        Phase::Up { .. } => "Up",
        Phase::Answering { .. } => "Answering",
        Phase::Draining { is_heard: false } => "Draining",
        Phase::Draining { is_heard: true } => "Draining, heard",
        Phase::Leaving => "Leaving",
        Phase::Ended => "Ended",
    }
}

fn closed(orders: &[Order]) -> Option<Reason> {
    orders.iter().find_map(|order| match order {
        Order::Deliver(Event::Closed(closed)) => Some(closed.reason),
        _ => None,
    })
}

/// This side, or an earlier step of this path, asked to close.
fn is_closing(step: &Step<'_>) -> bool {
    let asked = |input: &Choice| matches!(input, Choice::Close | Choice::Abort);
    asked(&step.input) || step.path.steps.iter().any(|(input, ..)| asked(input))
}

#[test]
fn every_phase_is_reached() {
    let mut reached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    every_step(|step| {
        let role = role_name(step.path.role);
        reached.entry(role).or_default().insert(name(step.before.phase()));
    });
    assert_eq!(reached["a dialler"].len(), 8, "{reached:?}");
    assert_eq!(reached["an accepted end"].len(), 7, "{reached:?}");
}

#[test]
fn a_dialler_ends_only_by_its_own_side() {
    every_step(|step| {
        let is_dialler = step.path.role == Role::Dialler && step.path.reconnects;
        if is_dialler && let Some(reason) = closed(step.orders) {
            assert!(is_closing(step), "{:?} in {:?}", step.input, step.path);
            let ours = [Reason::ClosedHere, Reason::CloseTimeout, Reason::Aborted];
            assert!(ours.contains(&reason));
        }
    });
}

#[test]
fn an_accepted_end_ends_with_its_link() {
    every_step(|step| {
        if step.path.role == Role::Dialler {
            return;
        }
        assert!(!step.orders.contains(&Order::Dial));
        let disconnected = |order: &Order| matches!(order, Order::Deliver(Event::Disconnected(_)));
        assert!(!step.orders.iter().any(disconnected));
        if step.input == Choice::Broke && has_link(step.before.phase()) {
            assert_eq!(step.after.phase(), Phase::Ended);
        }
    });
}

#[test]
fn nothing_is_ordered_after_the_end() {
    every_step(|step| {
        if step.before.phase() == Phase::Ended {
            assert_eq!(step.orders, []);
            assert_eq!(step.after.phase(), Phase::Ended);
        }
        let has_ended = step.after.phase() == Phase::Ended && step.before.phase() != Phase::Ended;
        assert_eq!(closed(step.orders).is_some(), has_ended);
        if has_ended {
            let last = step.orders.last();
            assert!(matches!(last, Some(Order::Deliver(Event::Closed(_)))));
            let hangs_up = step.orders.contains(&Order::HangUp);
            assert!(hangs_up || !has_link(step.before.phase()));
        }
    });
}

#[test]
fn closing_ends_within_close_timeout() {
    every_step(|step| {
        let is_closing = step.before.state() == State::Closing;
        let is_overdue = step.before.deadline().is_some_and(|due| step.now >= due);
        let is_last_look = step.input == Choice::Looked && is_overdue;
        let rests = matches!(step.before.phase(), Phase::Resting { .. });
        if is_closing && is_last_look && !rests {
            assert_eq!(step.after.phase(), Phase::Ended, "{:?}", step.path);
        }
        if step.input == Choice::Close && step.before.state() != State::Closing {
            let due = step.after.deadline();
            let limit = step.now + CLOSE_TIMEOUT;
            let has_ended = step.after.phase() == Phase::Ended;
            assert!(has_ended || due.is_some_and(|due| due <= limit));
        }
    });
}

#[test]
fn closing_while_resting_is_over_when_close_timeout_is() {
    every_step(|step| {
        let Some((_, _, closed_at)) = step.path.steps.iter().find(|(input, ..)| *input == Choice::Close) else {
            return;
        };
        if step.input == Choice::Looked && step.now >= *closed_at + CLOSE_TIMEOUT && step.path.role == Role::Dialler {
            assert_eq!(step.after.phase(), Phase::Ended, "{:?}", step.path);
        }
    });
}

#[test]
fn the_stream_is_ended_only_when_everything_was_written() {
    every_step(|step| {
        if step.orders.contains(&Order::EndStream) {
            assert_eq!(step.facts.queued, 0);
            assert_eq!(step.after.phase(), Phase::Leaving);
        }
        if step.after.phase() == Phase::Leaving && step.before.phase() != Phase::Leaving {
            assert!(step.orders.contains(&Order::EndStream));
        }
    });
}

#[test]
fn every_wait_has_a_deadline() {
    every_step(|step| {
        let state = step.after.state();
        let waits_for_time = match step.after.phase() {
            Phase::Resting { .. } | Phase::Answering { .. } => true,
            Phase::Draining { .. } | Phase::Leaving => true,
            _ => state == State::Closing,
        };
        let is_linkless_start = step.after.phase() == Phase::Ended;
        assert!(!waits_for_time || is_linkless_start || step.after.deadline().is_some());
        if step.input == Choice::Looked && is_legal(step.path.role, step.before.phase(), step.input) {
            let due = step.after.deadline();
            let spins = due.is_some_and(|due| due <= step.now);
            assert!(!spins, "a look settles every deadline: {:?}", step.path);
        }
    });
}

#[test]
fn input_that_comes_too_late_changes_nothing() {
    every_step(|step| {
        let phase = step.before.phase();
        if !is_legal(step.path.role, phase, step.input) && step.input != Choice::Started {
            let is_known = matches!(step.input, Choice::Eof | Choice::Broke) && has_link(phase);
            assert!(is_known || step.orders.is_empty(), "{:?} in {phase:?}", step.input);
        }
    });
}

#[test]
fn attempts_count_the_dials_of_one_outage() {
    let mut dialler = Endpoint::new(Role::Dialler, &options(Role::Dialler, true), 1);
    let (none, mut now) = (Facts::default(), Moment::ZERO);
    dialler.step(Choice::Started.input(), none, now);
    for outage in 0..2 {
        for failed in 1..=3 {
            let orders = dialler.step(Choice::DialFailed.input(), none, now);
            let [Order::Deliver(Event::Disconnected(down))] = &orders[..] else {
                panic!("{orders:?}");
            };
            assert_eq!((down.attempt, down.retry_in), (failed, Some(TICK)));
            now += TICK;
            let looked = dialler.step(Input::Looked, none, now);
            assert_eq!(looked, [Order::Dial]);
        }
        let orders = dialler.step(Choice::Dialed.input(), none, now);
        let [Order::Deliver(Event::Connected(up))] = &orders[..] else {
            panic!("{orders:?}");
        };
        assert_eq!((up.attempt, dialler.attempts()), (4, 4 * (outage + 1)));
        dialler.step(Choice::Broke.input(), none, now);
        now += TICK;
        dialler.step(Input::Looked, none, now);
    }
}

#[test]
fn the_page_of_states_is_the_code() {
    let page = page();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/states.md");
    if std::env::var("NETASYNC_WRITE_DOCS").is_ok_and(|value| value == "1") {
        std::fs::write(path, page).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/states.md is stale: NETASYNC_WRITE_DOCS=1 cargo test --no-default-features --test states"
    );
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Dialler => "a dialler",
        Role::Accepted => "an accepted end",
    }
}

/// Rows are phases, in each the inputs that matter there; a cell lists every outcome that some facts
/// and moments bring.
fn page() -> String {
    let mut rows: BTreeMap<(&str, usize, Choice), BTreeSet<String>> = BTreeMap::new();
    let mut names = BTreeMap::new();
    every_step(|step| {
        if !is_legal(step.path.role, step.before.phase(), step.input) {
            return;
        }
        let (phase, role) = (step.before.phase(), role_name(step.path.role));
        names.insert(rank(phase), name(phase));
        let outcome = format!("{}{}", name(step.after.phase()), told(step.orders));
        rows.entry((role, rank(phase), step.input)).or_default().insert(outcome);
    });
    let mut page = String::from(HEAD);
    let mut present = "";
    for ((role, phase, input), outcomes) in &rows {
        if *role != present {
            present = role;
            page += &format!("\n## The life of {role}\n\n| phase | input | next phase: orders |\n|---|---|---|\n");
        }
        let outcomes: Vec<&str> = outcomes.iter().map(String::as_str).collect();
        let (phase, outcomes) = (names[phase], outcomes.join(" · "));
        page += &format!("| {phase} | {input:?} | {outcomes} |\n");
    }
    page
}

fn rank(phase: Phase) -> usize {
    match phase {
        Phase::New => 0,
        Phase::Dialling => 1,
        Phase::Resting { .. } => 2,
        Phase::Up { .. } => 3,
        Phase::Answering { .. } => 4,
        Phase::Draining { is_heard: false } => 5,
        Phase::Draining { is_heard: true } => 6,
        Phase::Leaving => 7,
        Phase::Ended => 8,
    }
}

fn told(orders: &[Order]) -> String {
    let words: Vec<String> = orders
        .iter()
        .map(|order| match order {
            Order::Dial => String::from("dial"),
            Order::HangUp => String::from("hang up"),
            Order::EndStream => String::from("end stream"),
            Order::Deliver(Event::Connected(_)) => String::from("C"),
            Order::Deliver(Event::Disconnected(down)) => format!("D({})", down.reason.name()),
            Order::Deliver(Event::Closed(closed)) => format!("X({})", closed.reason.name()),
        })
        .collect();
    if words.is_empty() { String::new() } else { format!(": {}", words.join(", ")) }
}

const HEAD: &str = "\
# The states of one end

Written by `tests/states.rs` (`NETASYNC_WRITE_DOCS=1 cargo test --no-default-features --test states`),
which fails when this page and `src/proto/endpoint.rs` differ. The theory stands at the head of that file.

A row is a phase and what happens in it; the last column lists every outcome that some state of the
halves (what is queued, owed, received) and some moment bring. C is Connected, D Disconnected and X
Closed, with their reasons: RESET stands for any break, REFUSED for any failed dial. What is not listed
comes too late and changes nothing.
";
