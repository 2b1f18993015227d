//! Where those who dial a listener of our wire are met: each is greeted beside the others, gets a place
//! in the accept buffer, and becomes a connection when both sides have agreed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::AbortHandle;

use super::clock;
use super::dial::Dialed;
use super::greeting::Hearing;
use super::listener::{Listener, NoPlace, Place, Wire};
use super::lock::Mutex;
use super::net::Socket;
use super::runtime::Runtime;
use super::sessions::Guest;
use crate::proto::Moment;
use crate::proto::hello::{FIRST_BYTE, refuse};
use crate::proto::options::Protocol;

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
            Guest::New => {}
            Guest::Back(link, fenced) => {
                let greeted = match hearing.resume(&offer, &fenced, self.first_by).await {
                    Ok(greeted) => Some(greeted),
                    Err(goodbye) => {
                        link.void_session();
                        hearing.refuse(&goodbye).await;
                        return None;
                    }
                };
                let (socket, peer) = (Arc::clone(&self.socket), self.peer.clone());
                link.come_back(fenced.epoch, Dialed { socket, peer, greeted, rest: Vec::new() });
                return Some(());
            }
            Guest::Refused(goodbye) => {
                hearing.refuse(&goodbye).await;
                return None;
            }
            Guest::Over { consumed } => {
                hearing.refuse_over(consumed).await;
                return None;
            }
        }
        let place = match self.place().await {
            Ok(place) => place,
            Err(NoPlace::Leaving) => {
                hearing.refuse_with(refuse::LEAVING, "the listener is closing").await;
                return None;
            }
            Err(_) => {
                hearing.refuse_with(refuse::BUSY, "no further connections at the moment").await;
                return None;
            }
        };
        let (greeted, rest) = self.unless_leaving(hearing.agree(&offer, self.first_by)).await??;
        let (socket, peer) = (Arc::clone(&self.socket), self.peer.clone());
        drop(place);
        let dialed = Dialed { socket, peer, greeted: Some(greeted), rest };
        self.listener.enter_session(&self.runtime, dialed, offer.link);
        Some(())
    }

    /// Waits until there is a place.
    async fn place(&self) -> Result<Place, NoPlace> {
        loop {
            let (room, leaving) = (self.listener.room.notified(), self.listener.leaving.notified());
            tokio::pin!(room, leaving);
            leaving.as_mut().enable();
            match self.listener.promise() {
                Err(NoPlace::Yet) => {}
                decided => return decided,
            }
            tokio::select! { () = room => {}, () = leaving => {} }
        }
    }

    async fn enter_original(&self, first: Vec<u8>) {
        let (socket, peer) = (Arc::clone(&self.socket), self.peer.clone());
        let mut kept = Some(Dialed::bare(socket, peer, first));
        while let Some(dialed) = kept.take() {
            let room = self.listener.room.notified();
            kept = self.listener.enter(&self.runtime, Protocol::Classic, dialed);
            if kept.is_some() && self.unless_leaving(room).await.is_none() {
                return;
            }
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
