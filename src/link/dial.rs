//! Dialling: the name is looked up anew for every attempt, and its addresses are tried in turn.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use super::clock;
use super::link::Link;
use super::net::{self, Socket, words_of};
use super::target::Target;
use crate::proto::classic::Fault;
use crate::proto::events::Reason;

/// Where a dialler dials to, and from.
#[derive(Debug, Clone)]
pub struct Route {
    pub target: Target,
    pub local: Option<SocketAddr>,
}

pub(super) type Dialling = Pin<Box<dyn Future<Output = Result<Dialed, Fault>> + Send>>;

/// A link that is up.
pub struct Dialed {
    pub socket: Socket,
    pub peer: String,
}

pub(super) fn dial(route: Route, link: Arc<Link>) -> Dialling {
    Box::pin(async move {
        let limit = link.options().open_timeout;
        let timed_out = || Fault { reason: Reason::OpenTimeout, detail: format!("not open within {limit:?}") };
        clock::within(limit, dial_in_turn(&route, &link)).await.unwrap_or_else(|| Err(timed_out()))
    })
}

/// Looks the name up anew and tries its addresses in turn, each with its share of the time.
async fn dial_in_turn(route: &Route, link: &Link) -> Result<Dialed, Fault> {
    let Target { host, port } = &route.target;
    let began = clock::now();
    let addresses = net::lookup(host, *port).await;
    let not_found = |detail| Fault { reason: Reason::NameNotFound, detail };
    let addresses = addresses.map_err(|error| not_found(words_of(&error)))?;
    let mut last = not_found(String::from("the name has no address"));
    for (place, address) in addresses.iter().enumerate() {
        let left = link.options().open_timeout.saturating_sub(clock::now().saturating_sub(began));
        let share = left / u32::try_from(addresses.len() - place).unwrap_or(u32::MAX);
        match clock::within(share, net::dial(*address, route.local, link.options())).await {
            Some(Ok(socket)) => {
                return Ok(Dialed { socket, peer: address.to_string() });
            }
            Some(Err(error)) => last = dial_fault(&error),
            None => last = Fault { reason: Reason::OpenTimeout, detail: format!("{address} did not answer") },
        }
    }
    Err(last)
}

fn dial_fault(error: &std::io::Error) -> Fault {
    use std::io::ErrorKind::{ConnectionRefused, TimedOut};
    let reason = match error.kind() {
        ConnectionRefused => Reason::Refused,
        TimedOut => Reason::OpenTimeout,
        _ => Reason::Unreachable,
    };
    Fault { reason, detail: words_of(error) }
}
