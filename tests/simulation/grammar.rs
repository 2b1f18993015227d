//! What a handle yields, in order (`api.md` §5).

use netasync::proto::endpoint::Role;
use netasync::proto::events::Reason;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Which handle wrote it, and the how manyth of that handle's messages it is.
    Message {
        stream: u32,
        number: u32,
    },
    Connected,
    Disconnected(Reason),
    Closed {
        reason: Reason,
        undelivered: u64,
    },
}

/// A dialler yields `D? (C M* D)* (C M* D?)? X`; an accepted end `(C M* (D C M*)* D?)? X`.
/// Every prefix is legal, since a handle may still live.
pub fn check(role: Role, seen: &[Seen]) -> Result<(), String> {
    #[derive(Debug, Clone, Copy)]
    enum At {
        Start,
        Up,
        Down,
        Over,
    }
    let mut at = At::Start;
    for (index, item) in seen.iter().enumerate() {
        at = match (at, item, role) {
            (At::Start, Seen::Connected, _) => At::Up,
            (At::Down, Seen::Connected, _) => At::Up,
            (At::Up, Seen::Message { .. }, _) => At::Up,
            (At::Start, Seen::Disconnected(_), Role::Dialler) | (At::Up, Seen::Disconnected(_), _) => At::Down,
            (At::Start | At::Up | At::Down, Seen::Closed { .. }, _) => At::Over,
            _ => return Err(format!("{item:?} after {at:?}, item {index} of {seen:?}")),
        };
    }
    Ok(())
}

#[test]
fn the_checker_refuses_what_the_grammar_refuses() {
    let (c, d) = (Seen::Connected, Seen::Disconnected(Reason::Eof));
    let m = Seen::Message { stream: 0, number: 0 };
    let x = Seen::Closed { reason: Reason::Eof, undelivered: 0 };
    let legal = |items: &[&Seen]| {
        let items: Vec<Seen> = items.iter().copied().cloned().collect();
        check(Role::Dialler, &items).is_ok()
    };
    assert!(legal(&[&d, &c, &m, &m, &d, &c, &d, &x]));
    assert!(legal(&[&x]));
    assert!(!legal(&[&c, &c]));
    assert!(!legal(&[&d, &d]));
    assert!(!legal(&[&m]));
    assert!(!legal(&[&c, &d, &m]));
    assert!(!legal(&[&x, &x]));
    assert!(check(Role::Accepted, &[d.clone(), c.clone()]).is_err());
    assert!(check(Role::Accepted, &[c.clone(), d, c, x]).is_ok());
}
