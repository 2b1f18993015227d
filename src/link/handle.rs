//! What the application holds of a connection.

use std::any::Any;
use std::sync::{Arc, Weak};

use super::lock::Mutex;

use super::link::Link;
use crate::proto::events::Reason;

/// When the last one is dropped, the connection closes.
pub struct Handle {
    pub link: Arc<Link>,
    /// A face of the language above, opaque here.
    pub face: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Handle {
    pub fn new(link: Arc<Link>) -> Arc<Self> {
        Arc::new(Self { link, face: Mutex::new(None) })
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
