//! Dialling: the name is looked up anew for every attempt, and its addresses are tried in turn. `proto/round.rs`
//! decides in which order, and who is shown the session.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use super::clock;
use super::greeting::{self, Greeted};
use super::link::Link;
use super::lock::Mutex;
use super::lookup::{History, Lookups};
use super::net::{self, Socket, words_of};
use super::target::Target;
use crate::proto::Moment;
use crate::proto::events::Reason;
use crate::proto::hello::{Failure, Fate};
use crate::proto::round::{Call, Home, Purpose, Round};

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

/// How a dialler finds its peer, this time and the next.
pub(super) struct Way {
    route: Route,
    lookups: Arc<Lookups>,
    history: History,
    /// Whom it reached last: while the link knows a session, its issuer.
    last: Mutex<Option<SocketAddr>>,
}

impl Way {
    pub(super) fn new(route: Route, lookups: Arc<Lookups>) -> Arc<Self> {
        Arc::new(Self { route, lookups, history: History::default(), last: Mutex::default() })
    }

    fn home(&self, link: &Link) -> Home<SocketAddr> {
        match *self.last.lock() {
            None => Home::Nowhere,
            Some(address) if link.has_session() => Home::Issuer(address),
            Some(address) => Home::Reached(address),
        }
    }

    /// A session that does not go on here is not this one's. Where nothing but a goodbye is left, nothing begins here
    /// either: the issuer may still be told.
    fn reached(&self, address: SocketAddr, link: &Link, dialed: &Dialed) {
        if !dialed.greeted.as_ref().is_some_and(|greeted| greeted.agreement.is_resumed) {
            if link.has_only_a_goodbye() {
                return;
            }
            link.forget_session();
        }
        *self.last.lock() = Some(address);
    }
}

pub(super) fn dial(way: Arc<Way>, link: Arc<Link>, purpose: Purpose) -> Dialling {
    Box::pin(async move {
        let limit = link.options().open_timeout;
        let open_by = clock::now().saturating_add(limit);
        let Target { host, port } = &way.route.target;
        let addresses = way.lookups.find(host, *port, &way.history, open_by).await?;
        let round = Round::new(addresses, way.home(&link), purpose, limit);
        dial_in_turn(round, &way, &link, open_by).await
    })
}

/// Tries the addresses of a round, each within its limit.
async fn dial_in_turn(
    mut round: Round<SocketAddr>,
    way: &Way,
    link: &Link,
    open_by: Moment,
) -> Result<Dialed, Failure> {
    let mut last = Failure::passing(Reason::NameNotFound, String::from("the name has no address"));
    while let Some(call) = round.next(open_by.saturating_sub(clock::now())) {
        let failure = match clock::within(call.limit, open(&call, way, link, open_by)).await {
            Some(Ok(dialed)) => {
                way.reached(call.address, link, &dialed);
                return Ok(dialed);
            }
            // The issuer is there and has ended the session: the life of this end goes on from that.
            Some(Err(failure)) if matches!(failure.session, Fate::Over { .. }) => return Err(failure),
            Some(Err(failure)) => Some(failure),
            None => None,
        };
        round.failed(&call, failure.is_some());
        let silent = || Failure::passing(Reason::OpenTimeout, format!("{} did not answer", call.address));
        last = failure.unwrap_or_else(silent);
        // Whom the round goes on to must not make it be forgotten that the session is void.
        link.heed(last.session);
    }
    Err(last)
}

/// Dials one address, and greets whoever answers.
async fn open(call: &Call<SocketAddr>, way: &Way, link: &Link, open_by: Moment) -> Result<Dialed, Failure> {
    let dialled = net::dial(call.address, way.route.local, link.options()).await;
    let socket = dialled.map_err(|error| dial_failure(&error))?;
    let (socket, peer) = (Arc::new(socket), call.address.to_string());
    if !link.is_native() {
        return Ok(Dialed::bare(socket, peer, Vec::new()));
    }
    let (greeted, rest) = greeting::ask(&socket, link, call.entrance, open_by).await?;
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
