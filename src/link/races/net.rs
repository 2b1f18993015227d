//! The sockets of `races`: pairs in memory that never block, signals, and polls that wait for either. Every
//! call is one step of the scheduler; whoever polls sleeps on the one condition of the whole kernel.
//! Nothing here dials or listens.

use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shuttle::sync::{Condvar, Mutex, MutexGuard};

use super::fork::KnownTo;
use super::lookup::Unresolved;
use crate::proto::options::Options;

#[path = "pipe.rs"]
mod pipe;
#[path = "watched.rs"]
mod watched;

pub use pipe::Socket;
#[cfg(test)]
pub(super) use pipe::pair;
pub use watched::{AsyncFd, watch};

shuttle::lazy_static! {
    static ref KERNEL: Kernel = Kernel { lock: Mutex::new(()), changed: Condvar::new() };
}

struct Kernel {
    lock: Mutex<()>,
    changed: Condvar,
}

/// One system call: it happens at once, in some order with all others.
fn call() -> MutexGuard<'static, ()> {
    let kernel: &'static Kernel = &KERNEL;
    kernel.lock.lock().expect("no system call panics")
}

/// Whoever polls looks again.
#[cfg(test)]
pub(super) fn stir() {
    let _call = call();
    KERNEL.changed.notify_all();
}

/// Sleeps until `ready` says something. A limit either ends the wait at the next occasion or is as good as none,
/// so that both are tried and no wake that was lost is made up for by it.
fn poll<T>(limit: Option<Duration>, ready: impl Fn() -> Option<T>) -> Option<T> {
    let mut held = call();
    loop {
        if let Some(ready) = ready() {
            return Some(ready);
        }
        let is_over = limit.is_some_and(|limit| limit.is_zero() || shuttle::rand::Rng::gen_ratio(&mut rng(), 1, 4));
        if is_over {
            return None;
        }
        held = KERNEL.changed.wait(held).expect("no system call panics");
    }
}

fn rng() -> shuttle::rand::rngs::ThreadRng {
    shuttle::rand::thread_rng()
}

pub fn yield_core() {
    shuttle::thread::yield_now();
}

/// As an eventfd.
#[derive(Debug, Default)]
pub struct Signal(AtomicBool);

impl Signal {
    pub fn new() -> io::Result<Self> {
        Ok(Self::default())
    }

    pub fn set(&self) {
        let _call = call();
        if !self.0.swap(true, Ordering::Relaxed) {
            KERNEL.changed.notify_all();
        }
    }

    pub fn clear(&self) {
        let _call = call();
        self.0.store(false, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    Read,
    Write,
    Both,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ready {
    pub signal: bool,
    pub socket: bool,
}

pub fn wait(signal: Option<&Signal>, socket: Option<(&Socket, Interest)>, limit: Option<Duration>) -> Ready {
    let (signals, sockets) = wait_for_all(signal.as_slice(), socket.as_slice(), limit);
    Ready { signal: signals.contains(&true), socket: sockets.contains(&true) }
}

pub fn wait_for_any(signal: Option<&Signal>, sockets: &[&Socket], limit: Option<Duration>) -> (bool, Vec<bool>) {
    let sockets: Vec<_> = sockets.iter().map(|socket| (*socket, Interest::Read)).collect();
    let (signals, sockets) = wait_for_all(signal.as_slice(), &sockets, limit);
    (signals.contains(&true), sockets)
}

/// A selector.
pub(super) fn wait_for_all(
    signals: &[&Signal],
    sockets: &[(&Socket, Interest)],
    limit: Option<Duration>,
) -> (Vec<bool>, Vec<bool>) {
    let look = || {
        let signals: Vec<_> = signals.iter().map(|signal| signal.is_set()).collect();
        let sockets: Vec<_> = sockets.iter().map(|(socket, interest)| socket.is_ready(*interest)).collect();
        (signals.contains(&true) || sockets.contains(&true)).then_some((signals, sockets))
    };
    poll(limit, look).unwrap_or_else(|| (vec![false; signals.len()], vec![false; sockets.len()]))
}

pub async fn dial(_: SocketAddr, _: Option<SocketAddr>, _: &Options) -> io::Result<Socket> {
    Err(ErrorKind::Unsupported.into())
}

pub fn numeric(_: &str) -> Option<SocketAddr> {
    None
}

pub fn interface(_: &str) -> io::Result<u32> {
    Err(ErrorKind::Unsupported.into())
}

pub fn resolve(_: &str) -> Result<Vec<SocketAddr>, Unresolved> {
    Err(Unresolved::Failed(String::from("nobody is asked here")))
}

pub struct Bound(SocketAddr);

pub fn bind(address: SocketAddr) -> io::Result<Bound> {
    Ok(Bound(address))
}

impl Bound {
    pub fn address(&self) -> io::Result<SocketAddr> {
        Ok(self.0)
    }
}

pub struct Acceptor;

impl Acceptor {
    pub fn new(_: Bound) -> io::Result<Self> {
        Ok(Self)
    }

    pub async fn accept(&self, _: &Options) -> io::Result<(Socket, SocketAddr)> {
        std::future::pending().await
    }
}

pub fn block_signals() {}

pub(super) fn at_fork(_: extern "C" fn(), _: extern "C" fn(), _: extern "C" fn()) -> io::Result<()> {
    Ok(())
}

pub(super) fn leave_all(_: impl IntoIterator<Item = (RawFd, KnownTo)>) {}

pub fn is_main_thread() -> bool {
    false
}

pub fn words_of(error: &io::Error) -> String {
    error.to_string()
}
