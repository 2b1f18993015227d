//! Where those who dial a listener of our wire are met: each is greeted beside the others, gets a place
//! in the accept buffer, and becomes a connection when both sides have agreed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::AbortHandle;

use super::clock;
use super::dial::Dialed;
use super::greeting::{FirstFrame, Greeted, Hearing, NO_PLACE};
use super::listener::{Listener, NoPlace, Place, Wire};
use super::lock::Mutex;
use super::net::Socket;
use super::runtime::Runtime;
use super::sessions::{Fenced, Guest};
use crate::proto::Moment;
use crate::proto::accepting::Patience;
use crate::proto::hello::{FIRST_BYTE, Hello, refuse};
use crate::proto::options::Protocol;
use crate::proto::standing::Known;

/// So many greetings may be unfinished; the oldest goes first (`wire.md` §2).
const MOST_UNFINISHED: usize = 1024;
/// From here on no first byte belongs to the original's wire.
const NOT_ORIGINAL: u8 = 0x80;

pub(super) struct Reception {
    listener: Arc<Listener>,
    runtime: Arc<Runtime>,
    unfinished: Arc<Unfinished>,
}

#[derive(Default)]
struct Unfinished {
    next: AtomicU64,
    greetings: Mutex<BTreeMap<u64, AbortHandle>>,
}

impl Reception {
    pub(super) fn new(listener: &Arc<Listener>, runtime: &Arc<Runtime>) -> Self {
        let (listener, runtime) = (Arc::clone(listener), Arc::clone(runtime));
        Self { listener, runtime, unfinished: Arc::default() }
    }

    /// Begins to greet one who dialled.
    pub(super) fn receive(&self, socket: Socket, peer: String) {
        let first_by = clock::now().saturating_add(self.listener.options().open_timeout);
        let (listener, runtime) = (Arc::clone(&self.listener), Arc::clone(&self.runtime));
        let greeter = Greeter { listener, runtime, socket: Arc::new(socket), peer, first_by };
        let unfinished = Arc::clone(&self.unfinished);
        let number = unfinished.next.fetch_add(1, Ordering::Relaxed);
        // Held until it is noted: a task that ends at once must find its own entry.
        let mut greetings = self.unfinished.greetings.lock();
        let task = tokio::spawn(async move {
            greeter.greet().await;
            unfinished.greetings.lock().remove(&number);
        });
        greetings.insert(number, task.abort_handle());
        if greetings.len() > MOST_UNFINISHED
            && let Some((_, oldest)) = greetings.pop_first()
        {
            oldest.abort();
        }
    }
}

/// Greets one.
struct Greeter {
    listener: Arc<Listener>,
    runtime: Arc<Runtime>,
    socket: Arc<Socket>,
    peer: String,
    first_by: Moment,
}

impl Greeter {
    async fn greet(self) {
        match self.listener.wire() {
            Wire::One(_) => _ = self.in_time(self.agree(Vec::new())).await,
            Wire::Either => {
                let Ok(hearing) = Hearing::new(&self.socket, self.listener.options()) else { return };
                // Silence is the original's: its peer may have nothing to say.
                let first = clock::before(self.first_by, self.unless_leaving(hearing.read())).await;
                drop(hearing);
                let first = match first {
                    None => Vec::new(),
                    Some(Some(Ok(bytes))) => bytes,
                    Some(_) => return,
                };
                match first.first() {
                    Some(&FIRST_BYTE) => _ = self.in_time(self.agree(first)).await,
                    Some(&(NOT_ORIGINAL..)) => {}
                    _ => self.enter_original(first).await,
                }
            }
        }
    }

    /// The deadline is absolute: bytes that arrive do not extend it.
    fn in_time(&self, greeting: impl Future<Output = Option<()>>) -> impl Future<Output = Option<Option<()>>> {
        clock::before(self.first_by, greeting)
    }

    /// None: there is no connection.
    async fn agree(&self, first: Vec<u8>) -> Option<()> {
        let mut hearing = Hearing::new(&self.socket, self.listener.options()).ok()?;
        let offer = self.unless_leaving(hearing.offer(first)).await??;
        let address = self.peer.parse().map_or_else(|_| self.peer.clone(), |peer: SocketAddr| peer.ip().to_string());
        match self.listener.sessions().map_or(Guest::New, |sessions| sessions.receive(&offer, &address)) {
            Guest::New => self.begin(hearing, &offer).await,
            Guest::Back(fenced) => self.resume(&hearing, &offer, fenced).await,
            Guest::Refused(goodbye) => {
                hearing.refuse(&goodbye).await;
                None
            }
            Guest::Over { consumed } => {
                hearing.refuse_over(consumed).await;
                None
            }
        }
    }

    /// Answers one that comes back to its session.
    async fn resume(&self, hearing: &Hearing<'_>, offer: &Hello, fenced: Fenced) -> Option<()> {
        match hearing.resume(offer, &fenced, self.first_by).await {
            Ok(greeted) => {
                let dialed = self.dialed(Some(greeted), Vec::new());
                fenced.link.come_back(fenced.epoch, dialed);
                Some(())
            }
            Err(goodbye) => {
                fenced.link.void_session();
                drop(fenced);
                hearing.refuse(&goodbye).await;
                None
            }
        }
    }

    /// Answers one that begins a session, once there is a place for it, and lets it in with its first frame.
    async fn begin(&self, hearing: Hearing<'_>, offer: &Hello) -> Option<()> {
        let place = match self.place().await {
            Ok(place) => place,
            Err(NoPlace::Leaving) => {
                hearing.refuse_with(refuse::LEAVING, "the listener is closing").await;
                return None;
            }
            Err(_) => {
                hearing.refuse_with(refuse::BUSY, NO_PLACE).await;
                return None;
            }
        };
        let (greeted, rest) = match self.unless_leaving(hearing.agree(offer, self.first_by)).await?? {
            FirstFrame::Begins(greeted, rest) => (greeted, rest),
            FirstFrame::Ends(known) => {
                self.remember(known);
                return None;
            }
        };
        let known = greeted.agreement.known();
        // From here on not the promise counts, but whether there is a place.
        drop(place);
        if !self.listener.enter_session(&self.runtime, self.dialed(Some(greeted), rest), offer.link) {
            self.remember(known);
            Hearing::new(&self.socket, self.listener.options()).ok()?.turn_away().await;
        }
        Some(())
    }

    fn dialed(&self, greeted: Option<Greeted>, rest: Vec<u8>) -> Dialed {
        Dialed { socket: Arc::clone(&self.socket), peer: self.peer.clone(), greeted, rest }
    }

    /// The session was over as soon as it had begun.
    fn remember(&self, known: Known) {
        if let Some(sessions) = self.listener.sessions() {
            sessions.never_entered(known);
        }
    }

    /// Waits until there is a place.
    async fn place(&self) -> Result<Place, NoPlace> {
        let mut patience = Patience::default();
        loop {
            let (room, leaving) = (self.listener.room.notified(), self.listener.leaving.notified());
            tokio::pin!(room, leaving);
            leaving.as_mut().enable();
            let again = match self.listener.promise(&mut patience) {
                Err(NoPlace::Until(again)) => again,
                decided => return decided,
            };
            tokio::select! { () = room => {}, () = leaving => {}, () = clock::until(Some(again)) => {} }
        }
    }

    /// A dial of the original's wire waits as the others do; it has no word for a refusal.
    async fn enter_original(&self, first: Vec<u8>) {
        if let Ok(place) = self.place().await {
            drop(place);
            let dialed = Dialed::bare(Arc::clone(&self.socket), self.peer.clone(), first);
            drop(self.listener.enter(&self.runtime, Protocol::Classic, dialed));
        }
    }

    /// None when the listener closes first.
    async fn unless_leaving<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let leaving = self.listener.leaving.notified();
        tokio::pin!(leaving);
        leaving.as_mut().enable();
        if self.listener.is_closing() {
            return None;
        }
        tokio::select! {
            done = work => Some(done),
            () = leaving => None,
        }
    }
}
