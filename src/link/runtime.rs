//! The thread and the tokio runtime behind connections and listeners. Starts with the first of them,
//! never at import; runs none of Python's code and handles none of its signals.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use super::lock::Mutex;
use tokio::sync::Notify;

use super::clock;
use super::dial::{Dialed, Route, Way};
use super::fork::Birth;
use super::link::Link;
use super::listener::{Listener, PortFree};
use super::lookup::Lookups;
use super::net::{self, Acceptor, Bound};
use super::supervisor::Supervisor;
use super::wake::Bell;
use crate::proto::endpoint::{Endpoint, Role};
use crate::proto::events::Reason;
use crate::proto::options::Options;

/// How long a lookup that nobody waits for any more may hold up the end of the runtime.
const LOOKUP_GRACE: Duration = Duration::from_millis(100);
/// What an aborted connection takes at most to end.
const ABORT_GRACE: Duration = Duration::from_secs(1);

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    Running {
        handle: tokio::runtime::Handle,
        thread: JoinHandle<()>,
    },
    /// Nothing starts any more; the thread may still be ending.
    Ending(Option<JoinHandle<()>>),
}

#[derive(Default)]
struct Members {
    links: HashMap<u64, Weak<Link>>,
    listeners: HashMap<u64, Weak<Listener>>,
}

pub struct Runtime {
    birth: Birth,
    stage: Mutex<Stage>,
    members: Mutex<Members>,
    member_left: Notify,
    stop: Notify,
    stop_within: Mutex<Duration>,
    lookups: Arc<Lookups>,
    is_done: Mutex<bool>,
    /// Rung when the runtime has ended.
    pub done: Bell,
}

/// Why nothing was started.
#[derive(Debug)]
pub enum NotStarted {
    /// The runtime was shut down.
    ShutDown,
    /// The system gives no thread, no descriptor or no memory; the next call asks again.
    System(io::Error),
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            birth: Birth::here(),
            stage: Mutex::default(),
            members: Mutex::default(),
            member_left: Notify::new(),
            stop: Notify::new(),
            stop_within: Mutex::default(),
            lookups: Arc::default(),
            is_done: Mutex::default(),
            done: Bell::default(),
        }
    }
}

impl Runtime {
    /// Asked before anything else is, in a process that may have been forked.
    pub fn birth(&self) -> Birth {
        self.birth
    }

    pub fn is_running(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Running { .. })
    }

    /// Whether nothing can be started any more.
    pub fn is_shut_down(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Ending(_))
    }

    /// Whether it has no connection and no listener.
    pub fn is_idle(&self) -> bool {
        let members = self.members.lock();
        members.links.is_empty() && members.listeners.is_empty()
    }

    /// Whether `shutdown` has come to its end.
    pub fn is_done(&self) -> bool {
        *self.is_done.lock()
    }

    /// A connection that dials from now on.
    ///
    /// # Errors
    /// On a runtime that was shut down, or cannot be started.
    pub fn dial(self: &Arc<Self>, route: Route, options: Options) -> Result<Arc<Link>, NotStarted> {
        let handle = self.handle()?;
        let way = Way::new(route, Arc::clone(&self.lookups));
        let link = Link::new(next_id(), Role::Dialler, options);
        let endpoint = Endpoint::new(Role::Dialler, link.options(), seed());
        self.run_link(&handle, Supervisor::dialler(Arc::clone(&link), endpoint, way), &link);
        Ok(link)
    }

    /// A connection that was accepted. Must be called on the runtime.
    pub(super) fn accepted(self: &Arc<Self>, dialed: Dialed, options: Options) -> Arc<Link> {
        let link = Link::new(next_id(), Role::Accepted, options);
        let endpoint = Endpoint::new(Role::Accepted, link.options(), seed());
        let handle = tokio::runtime::Handle::current();
        let mut supervisor = Supervisor::accepted(Arc::clone(&link), endpoint, dialed);
        supervisor.start();
        self.run_link(&handle, supervisor, &link);
        link
    }

    /// A listener on a socket that is bound.
    ///
    /// # Errors
    /// On a runtime that was shut down, or cannot be started, or cannot watch one more socket.
    pub fn listen(self: &Arc<Self>, socket: Bound, listener: &Arc<Listener>) -> Result<(), NotStarted> {
        let handle = self.handle()?;
        let acceptor = {
            let _on_it = handle.enter();
            Acceptor::new(socket)
        };
        let not_watched = |error| if self.is_shut_down() { NotStarted::ShutDown } else { NotStarted::System(error) };
        let acceptor = acceptor.map_err(not_watched)?;
        let id = next_id();
        self.members.lock().listeners.insert(id, Arc::downgrade(listener));
        let leaving = Leaving { runtime: Arc::clone(self), id };
        // Dropped in this order where it never runs.
        let life = (acceptor, PortFree(Arc::clone(listener)), leaving);
        handle.spawn(async move {
            let (acceptor, port_free, leaving) = life;
            let leaving = leaving;
            // Dropped before the one above, however that comes.
            let port_free = port_free;
            port_free.0.run(&leaving.runtime, acceptor).await;
        });
        if self.is_shut_down() {
            // Bound in the moment of shutting down.
            listener.close(Reason::Shutdown);
        }
        Ok(())
    }

    /// Begins to shut down: listeners stop, every handle closes, what is left at `timeout` is aborted.
    /// Safe to repeat; `done` rings at the end.
    pub fn shut_down(&self, timeout: Duration) {
        let mut stage = self.stage.lock();
        match std::mem::take(&mut *stage) {
            Stage::Idle => {
                *stage = Stage::Ending(None);
                drop(stage);
                self.finished();
            }
            Stage::Running { thread, .. } => {
                *stage = Stage::Ending(Some(thread));
                *self.stop_within.lock() = timeout;
                self.stop.notify_one();
            }
            ending @ Stage::Ending(_) => *stage = ending,
        }
    }

    /// Waits for the thread, which has nothing left to do. After `done` only.
    pub fn join(&self) {
        let thread = match &mut *self.stage.lock() {
            Stage::Ending(thread) => thread.take(),
            _ => None,
        };
        if let Some(thread) = thread {
            // A panic of the runtime's thread was printed when it happened.
            let _ = thread.join();
        }
    }

    /// Whether a connection that is up still holds unsent bytes.
    pub fn has_unsent(&self) -> bool {
        self.links().iter().any(|link| {
            let tx = link.tx();
            tx.socket.is_some() && !tx.sender.is_empty()
        })
    }

    /// Writes what can be written at once.
    pub fn flush(&self) {
        self.links().iter().for_each(|link| {
            link.drain();
        });
    }

    fn handle(self: &Arc<Self>) -> Result<tokio::runtime::Handle, NotStarted> {
        let mut stage = self.stage.lock();
        match &*stage {
            Stage::Running { handle, .. } => return Ok(handle.clone()),
            Stage::Ending(_) => return Err(NotStarted::ShutDown),
            Stage::Idle => {}
        }
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(NotStarted::System)?;
        let (handle, runtime) = (tokio.handle().clone(), Arc::clone(self));
        let thread = std::thread::Builder::new().name("netasync".into()).spawn(move || runtime.run(tokio));
        let thread = thread.map_err(NotStarted::System)?;
        *stage = Stage::Running { handle: handle.clone(), thread };
        Ok(handle)
    }

    fn run(&self, tokio: tokio::runtime::Runtime) {
        net::block_signals();
        tokio.block_on(async {
            self.serve().await;
            clock::within(LOOKUP_GRACE, self.lookups.quiet()).await;
        });
        tokio.shutdown_background();
        self.finished();
    }

    /// Runs until it is told to stop, and sees everybody off.
    async fn serve(&self) {
        self.stop.notified().await;
        let timeout = *self.stop_within.lock();
        // Before its listener does: it would end who is without a link for that reason.
        for link in self.links() {
            link.close(Reason::Shutdown);
        }
        for listener in self.listeners() {
            listener.close(Reason::Shutdown);
        }
        if clock::within(timeout, self.empty()).await.is_some() {
            return;
        }
        for link in self.links() {
            link.abort(Reason::Shutdown);
        }
        clock::within(ABORT_GRACE, self.empty()).await;
    }

    async fn empty(&self) {
        loop {
            {
                let members = self.members.lock();
                if members.links.is_empty() && members.listeners.is_empty() {
                    return;
                }
            }
            self.member_left.notified().await;
        }
    }

    fn run_link(self: &Arc<Self>, handle: &tokio::runtime::Handle, supervisor: Supervisor, link: &Arc<Link>) {
        let id = link.id();
        self.members.lock().links.insert(id, Arc::downgrade(link));
        let leaving = Leaving { runtime: Arc::clone(self), id };
        let mut life = (supervisor, Some(leaving));
        handle.spawn(async move {
            // Both are its own; and lent, for what an async function is given lies in its task twice.
            let (supervisor, leaving) = &mut life;
            supervisor.run(leaving).await;
        });
        if self.is_shut_down() {
            // Accepted in the moment of shutting down.
            link.close(Reason::Shutdown);
        }
    }

    fn links(&self) -> Vec<Arc<Link>> {
        self.members.lock().links.values().filter_map(Weak::upgrade).collect()
    }

    fn listeners(&self) -> Vec<Arc<Listener>> {
        self.members.lock().listeners.values().filter_map(Weak::upgrade).collect()
    }

    fn finished(&self) {
        *self.is_done.lock() = true;
        self.done.ring();
    }
}

/// Signs a connection or a listener off, also when its task panicked.
struct Leaving {
    runtime: Arc<Runtime>,
    id: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut members = self.runtime.members.lock();
        members.links.remove(&self.id);
        members.listeners.remove(&self.id);
        drop(members);
        self.runtime.member_left.notify_one();
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// For jitter: different in each process and each connection.
fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| next_id())
}
