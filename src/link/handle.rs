//! What the application holds of a connection.

use std::any::Any;
use std::sync::{Arc, Weak};

use super::lock::Mutex;
use super::sync::atomic::{AtomicBool, Ordering};

use super::link::Link;
use crate::proto::events::Reason;

/// When the last one is dropped, the connection closes.
pub struct Handle {
    pub link: Arc<Link>,
    /// What a dialler was given to dial.
    target: Option<Box<str>>,
    /// It was said that messages were left undelivered.
    has_warned: AtomicBool,
    /// A face of the language above, opaque here.
    pub face: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Handle {
    pub fn new(link: Arc<Link>, target: Option<Box<str>>) -> Arc<Self> {
        Arc::new(Self { link, target, has_warned: AtomicBool::new(false), face: Mutex::new(None) })
    }

    /// To whom messages went, as far as that is known.
    pub fn target(&self) -> String {
        let peer = || self.link.status().last_connected.map(|connected| connected.peer);
        self.target.as_ref().map(|target| target.to_string()).or_else(peer).unwrap_or_default()
    }

    /// True the first time.
    pub fn warns(&self) -> bool {
        !self.has_warned.swap(true, Ordering::Relaxed)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // In a forked child the connection is the parent's, which may hold on to it.
        if self.link.birth().is_here() {
            self.link.give_up_seat();
            self.link.close(Reason::ClosedHere);
        }
    }
}

pub type WeakHandle = Weak<Handle>;
