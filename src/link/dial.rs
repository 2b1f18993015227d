//! Dialling: the name is looked up anew for every attempt, and its addresses are tried in turn.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use super::clock;
use super::greeting::{self, Greeted};
use super::link::Link;
use super::net::{self, Socket, words_of};
use super::target::Target;
use crate::proto::Moment;
use crate::proto::events::Reason;
use crate::proto::hello::Failure;

/// Where a dialler dials to, and from.
#[derive(Debug, Clone)]
pub struct Route {
    pub target: Target,
    pub local: Option<SocketAddr>,
}

pub(super) type Dialling = Pin<Box<dyn Future<Output = Result<Dialed, Failure>> + Send>>;

/// A link that is up.
pub struct Dialed {
    pub socket: Arc<Socket>,
    pub peer: String,
    /// On our wire.
    pub greeted: Option<Greeted>,
    /// What was read already, behind the greeting.
    pub rest: Vec<u8>,
}

impl Dialed {
    /// A link of the original's wire, which has no greeting.
    pub(super) fn bare(socket: Arc<Socket>, peer: String, rest: Vec<u8>) -> Self {
        Self { socket, peer, greeted: None, rest }
    }
}

pub(super) fn dial(route: Arc<Route>, link: Arc<Link>) -> Dialling {
    Box::pin(async move {
        let limit = link.options().open_timeout;
        let open_by = clock::now().saturating_add(limit);
        let timed_out = || Failure::passing(Reason::OpenTimeout, format!("not open within {limit:?}"));
        clock::within(limit, dial_in_turn(&route, &link, open_by)).await.unwrap_or_else(|| Err(timed_out()))
    })
}

/// Looks the name up anew and tries its addresses in turn, each with its share of the time.
async fn dial_in_turn(route: &Route, link: &Link, open_by: Moment) -> Result<Dialed, Failure> {
    let Target { host, port } = &route.target;
    let addresses = net::lookup(host, *port).await;
    let not_found = |detail| Failure::passing(Reason::NameNotFound, detail);
    let addresses = addresses.map_err(|error| not_found(words_of(&error)))?;
    let mut last = not_found(String::from("the name has no address"));
    for (place, address) in addresses.iter().enumerate() {
        let left = open_by.saturating_sub(clock::now());
        let share = left / u32::try_from(addresses.len() - place).unwrap_or(u32::MAX);
        match clock::within(share, open(*address, route, link, open_by)).await {
            Some(Ok(dialed)) => return Ok(dialed),
            Some(Err(failure)) => last = failure,
            None => last = Failure::passing(Reason::OpenTimeout, format!("{address} did not answer")),
        }
    }
    Err(last)
}

/// Dials one address, and greets whoever answers.
async fn open(address: SocketAddr, route: &Route, link: &Link, open_by: Moment) -> Result<Dialed, Failure> {
    let socket = net::dial(address, route.local, link.options()).await.map_err(|error| dial_failure(&error))?;
    let (socket, peer) = (Arc::new(socket), address.to_string());
    if !link.is_native() {
        return Ok(Dialed::bare(socket, peer, Vec::new()));
    }
    let (greeted, rest) = greeting::ask(&socket, link, open_by).await?;
    Ok(Dialed { socket, peer, greeted: Some(greeted), rest })
}

fn dial_failure(error: &std::io::Error) -> Failure {
    use std::io::ErrorKind::{ConnectionRefused, TimedOut};
    let reason = match error.kind() {
        ConnectionRefused => Reason::Refused,
        TimedOut => Reason::OpenTimeout,
        _ => Reason::Unreachable,
    };
    Failure::passing(reason, words_of(error))
}
