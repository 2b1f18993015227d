//! What a forked child inherits, and what becomes of it there.
//!
//! The child has the memory of its parent and one thread of it. Locks that another thread held stay held
//! for ever, and half-done work stays half done; so whatever was made before the fork is never touched
//! again: it knows its `Birth`, and whoever would touch it asks that first. Whatever another thread had in
//! hand is never freed either, since that thread's reference never goes. Descriptors are shared with the
//! parent: the child closes its own, or a peer would not hear the end of a link, nor a port become free,
//! while the child lives. Closing says nothing to a peer and leaves the parent's epoll as it is. Numbers that
//! an event loop knows stay taken: libuv aborts where one is gone that it is about to watch, and a child that
//! leaves an inherited loop gives it one more round.
//!
//! The one lock that is taken across a fork is that of the list of open descriptors. What else the child has
//! to lock (`steady`) is held only under it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::lock::{Mutex, MutexGuard};
use super::net;

static FORKS: AtomicU32 = AtomicU32::new(0);
static OPEN: Mutex<Open> = Mutex::new(BTreeMap::new());

type Open = BTreeMap<RawFd, KnownTo>;

/// Who names a descriptor by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KnownTo {
    Us,
    ALoop,
}

thread_local! {
    /// Held by the thread that forks, while it does.
    static HELD: RefCell<Option<MutexGuard<'static, Open>>> = const { RefCell::new(None) };
}

/// In which process, of those that forked from each other, something was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Birth(u32);

impl Birth {
    pub fn here() -> Self {
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// Whether it was made in this process. One load, for the hottest paths too.
    pub fn is_here(self) -> bool {
        self.0 == FORKS.load(Ordering::Relaxed)
    }
}

/// Has forks heard of from now on. Safe to repeat; done once before anything is opened.
///
/// # Errors
/// When the system has no memory for that.
pub fn listen() -> io::Result<()> {
    hear_of_forks(&OPEN.lock())
}

/// Under the one lock that no fork finds held, so that it is done once.
fn hear_of_forks(_: &Open) -> io::Result<()> {
    static IS_DONE: AtomicBool = AtomicBool::new(false);
    if !IS_DONE.load(Ordering::Relaxed) {
        net::at_fork(before, in_parent, in_child)?;
        IS_DONE.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// While it lives, nobody forks. Not to be held when a descriptor is opened or closed.
pub struct Steady {
    _open: MutexGuard<'static, Open>,
}

pub fn steady() -> Steady {
    Steady { _open: OPEN.lock() }
}

/// An open descriptor, which a forked child closes. Never duplicated.
#[derive(Debug)]
pub struct Descriptor {
    /// Taken when it is dropped.
    fd: Option<OwnedFd>,
    birth: Birth,
}

impl Descriptor {
    /// Opens and notes it, so that no fork comes between the two. `open` must not wait.
    pub fn open(open: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<Self> {
        let mut known = OPEN.lock();
        hear_of_forks(&known)?;
        let fd = open()?;
        known.insert(fd.as_raw_fd(), KnownTo::Us);
        Ok(Self { fd: Some(fd), birth: Birth::here() })
    }

    /// An event loop is told its number, and may use it as long as this is open.
    pub fn lend(&self) -> RawFd {
        OPEN.lock().insert(self.as_raw_fd(), KnownTo::ALoop);
        self.as_raw_fd()
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("only dropping takes the descriptor").as_fd()
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let Some(fd) = self.fd.take() else { return };
        if !self.birth.is_here() {
            // Closed when this process began; the number may be anybody's by now.
            return std::mem::forget(fd);
        }
        let mut known = OPEN.lock();
        known.remove(&fd.as_raw_fd());
        drop(fd);
    }
}

extern "C" fn before() {
    let open = OPEN.lock();
    // A thread that forks while its storage is torn down goes without.
    drop(HELD.try_with(|held| held.replace(Some(open))));
}

extern "C" fn in_parent() {
    drop(HELD.try_with(RefCell::take));
}

/// The first thing that happens in the child.
extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    let _ = HELD.try_with(|held| {
        if let Some(mut open) = held.take() {
            net::leave_all(std::mem::take(&mut *open));
        }
    });
}
