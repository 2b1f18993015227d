//! The table as a page, `docs/states.md`.

use std::collections::{BTreeMap, BTreeSet};

use netasync::proto::control::After;
use netasync::proto::endpoint::{Endpoint, Order, Phase};
use netasync::proto::events::Event;
use netasync::proto::wire::close;

use crate::walk::{Choice, Life, Side, Wire, every_step, is_legal, name, says_farewell};

/// Rows are phases, in each the inputs that matter there; a cell lists every outcome that some facts
/// and moments bring. The inputs that bring the same stand in one row.
pub fn page() -> String {
    let mut outcomes: BTreeMap<(Wire, Side, usize), BTreeMap<Choice, BTreeSet<String>>> = BTreeMap::new();
    let mut names = BTreeMap::new();
    every_step(|step| {
        let (life, phase) = (step.path.life, step.before.phase());
        if !is_legal(life, phase, step.input) {
            return;
        }
        names.insert(rank(step.before), name(step.before));
        let outcome = format!("{}{}", name(step.after), told(step.orders));
        let inputs = outcomes.entry((life.wire, life.role, rank(step.before))).or_default();
        inputs.entry(step.input).or_default().insert(outcome);
    });
    let mut page = String::from(HEAD);
    let mut present = None;
    for ((wire, role, phase), inputs) in &outcomes {
        if present.replace((wire, role)) != Some((wire, role)) {
            let life = Life { wire: *wire, role: *role, reconnects: true };
            page += &format!("\n## {}\n\n| phase | input | next phase: orders |\n|---|---|---|\n", title(life));
        }
        for (inputs, cell) in merged(inputs) {
            page += &format!("| {} | {inputs} | {cell} |\n", names[phase]);
        }
    }
    page
}

/// Inputs that bring the same, together, in the order of the first of them.
fn merged(inputs: &BTreeMap<Choice, BTreeSet<String>>) -> Vec<(String, String)> {
    let mut rows: Vec<(String, String)> = Vec::new();
    for (input, outcomes) in inputs {
        let outcomes: Vec<&str> = outcomes.iter().map(String::as_str).collect();
        let cell = outcomes.join(" · ");
        let word = word(*input);
        match rows.iter_mut().find(|(_, other)| *other == cell) {
            Some((words, _)) => *words = format!("{words}, {word}"),
            None => rows.push((word, cell)),
        }
    }
    rows
}

fn title(life: Life) -> &'static str {
    match (life.wire, life.role) {
        (Wire::Ours, Side::Dialler) => "A dialler, on our wire",
        (Wire::Ours, Side::Accepted) => "An accepted end, on our wire",
        (Wire::Original, Side::Dialler) => "A dialler, on the original's wire",
        (Wire::Original, Side::Accepted) => "An accepted end, on the original's wire",
    }
}

fn word(input: Choice) -> String {
    match input {
        Choice::PeerClosed(code) => format!("CLOSE {}", code_name(code)),
        other => format!("{other:?}"),
    }
}

fn code_name(code: u16) -> &'static str {
    match code {
        close::DONE => "done",
        close::LEAVING => "leaving",
        close::FAULT => "fault",
        close::ABORTED => "aborted",
        close::BUSY => "busy",
        close::VOID => "void",
        _ => "unknown",
    }
}

fn rank(endpoint: &Endpoint) -> usize {
    let behind = if says_farewell(endpoint) { 20 } else { 0 };
    behind + rank_of(endpoint.phase())
}

fn rank_of(phase: Phase) -> usize {
    match phase {
        Phase::New => 0,
        Phase::Dialling { .. } => 1,
        Phase::Resting { .. } => 2,
        Phase::Up { .. } => 3,
        Phase::Absent { .. } => 4,
        Phase::Answering { .. } => 5,
        Phase::Draining { is_heard: false } => 6,
        Phase::Draining { is_heard: true } => 7,
        Phase::Leaving => 8,
        Phase::Parting { is_heard: false } => 9,
        Phase::Parting { is_heard: true } => 10,
        Phase::Replying { .. } => 11,
        Phase::Ended => 12,
    }
}

fn told(orders: &[Order]) -> String {
    let words: Vec<String> = orders
        .iter()
        .map(|order| match order {
            Order::Dial => String::from("dial"),
            Order::HangUp => String::from("hang up"),
            Order::EndStream => String::from("end stream"),
            Order::SayClose { goodbye, after: After::Everything } => format!("say {}", code_name(goodbye.code)),
            Order::SayClose { goodbye, after: After::WhatMayBegin } => format!("say {} now", code_name(goodbye.code)),
            Order::Blame(goodbye) => format!("blame {}", code_name(goodbye.code)),
            Order::Forget => String::from("forget the session"),
            Order::Attach => String::from("attach"),
            Order::Deliver(Event::Connected(_)) => String::from("C"),
            Order::Deliver(Event::Disconnected(down)) => format!("D({})", down.reason.name()),
            Order::Deliver(Event::Closed(closed)) => format!("X({})", closed.reason.name()),
        })
        .collect();
    if words.is_empty() { String::new() } else { format!(": {}", words.join(", ")) }
}

const HEAD: &str = "\
# The states of one end

Written by `tests/states` (`NETASYNC_WRITE_DOCS=1 cargo test --no-default-features --test states`),
which fails when this page and `src/proto/endpoint.rs` differ. The theory stands at the head of that file.

A row is a phase and what happens in it; the last column lists every outcome that some state of the
halves (what is queued, unconfirmed, owed, received, said) and some moment bring. C is Connected, D
Disconnected and X Closed, with their reasons: RESET stands for any break, PROTOCOL for any that the peer
is told of, REFUSED and REJECTED for any failed dial. \"Say\" is CLOSE behind everything that was accepted,
\"say now\" behind what may be begun now. An accepted end is Absent only where its listener holds sessions
and has not closed (Deserted); where it does not or has, what breaks its link ends it. A dialler that says
Farewell has shown X, and goes on for nothing but its goodbye; to attach is to take the link that was dialled and
tell nobody. What is not listed comes too late and changes nothing.
";
