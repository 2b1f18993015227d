//! A socket that the runtime watches, as tokio has it: readiness comes with edges and stays until it is cleared, and
//! clearing undoes nothing that came since one looked.

use std::future::poll_fn;
use std::sync::{Mutex, Weak};
use std::task::{Poll, Waker};

use tokio::io::{Interest as Interests, Ready};

use super::pipe::Socket;
use super::{Arc, ErrorKind, Interest, call, io};

pub(super) type Watches = Arc<Mutex<Vec<Weak<Mutex<Readiness>>>>>;

#[derive(Debug)]
pub(super) struct Readiness {
    ready: Ready,
    /// Edges so far.
    edges: u64,
    waiting: Vec<Waker>,
}

/// An edge, for everybody who watches.
pub(super) fn happened(watches: &Watches, ready: Ready) {
    let mut waiting = Vec::new();
    watches.lock().expect("nothing panics while it is held").retain(|watch| {
        let Some(watch) = watch.upgrade() else { return false };
        let mut readiness = watch.lock().expect("nothing panics while it is held");
        readiness.ready |= ready;
        readiness.edges += 1;
        waiting.append(&mut readiness.waiting);
        true
    });
    waiting.into_iter().for_each(Waker::wake);
}

#[derive(Debug)]
pub struct AsyncFd<T> {
    socket: T,
    readiness: Arc<Mutex<Readiness>>,
}

pub fn watch(socket: Arc<Socket>, interest: Interests) -> io::Result<AsyncFd<Arc<Socket>>> {
    let _call = call();
    let mut ready = Ready::EMPTY;
    if interest.is_readable() && socket.is_ready(Interest::Read) {
        ready |= Ready::READABLE;
    }
    if interest.is_writable() && socket.is_ready(Interest::Write) {
        ready |= Ready::WRITABLE;
    }
    let readiness = Arc::new(Mutex::new(Readiness { ready, edges: 0, waiting: Vec::new() }));
    let mut watches = socket.watches().lock().expect("nothing panics while it is held");
    watches.push(Arc::downgrade(&readiness));
    drop(watches);
    Ok(AsyncFd { socket, readiness })
}

pub struct Guard<'a> {
    readiness: &'a Mutex<Readiness>,
    seen: (Ready, u64),
}

impl AsyncFd<Arc<Socket>> {
    pub fn get_ref(&self) -> &Arc<Socket> {
        &self.socket
    }

    pub async fn ready(&self, interest: Interests) -> io::Result<Guard<'_>> {
        let mut mask = Ready::EMPTY;
        if interest.is_readable() {
            mask |= Ready::READABLE | Ready::READ_CLOSED;
        }
        if interest.is_writable() {
            mask |= Ready::WRITABLE | Ready::WRITE_CLOSED;
        }
        let seen = poll_fn(|context| {
            let mut readiness = self.readiness.lock().expect("nothing panics while it is held");
            let ready = readiness.ready & mask;
            if !ready.is_empty() {
                return Poll::Ready((ready, readiness.edges));
            }
            readiness.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
        Ok(Guard { readiness: &self.readiness, seen })
    }

    pub async fn async_io<R>(
        &self,
        interest: Interests,
        mut work: impl FnMut(&Arc<Socket>) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            let mut guard = self.ready(interest).await?;
            match work(&self.socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => guard.clear_ready_matching(guard.ready()),
                outcome => return outcome,
            }
        }
    }
}

impl Guard<'_> {
    pub fn ready(&self) -> Ready {
        self.seen.0
    }

    pub fn clear_ready_matching(&mut self, ready: Ready) {
        let mut readiness = self.readiness.lock().expect("nothing panics while it is held");
        if readiness.edges == self.seen.1 {
            let closed = Ready::READ_CLOSED | Ready::WRITE_CLOSED;
            readiness.ready = readiness.ready - (ready - closed);
        }
    }
}
