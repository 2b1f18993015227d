//! The beginning and the end of one link.

use std::sync::Arc;

use super::clock;
use super::dial::Dialed;
use super::link::{Link, Status};
use super::net::Socket;
use super::sync::atomic::Ordering;
use crate::proto::endpoint::Role;
use crate::proto::events::{Connected, Event};
use crate::proto::halves::Opened;
use crate::proto::hello::Agreement;
use crate::proto::wire::Goodbye;

impl Link {
    /// A link is up: its value stands in front of everything that it will bring.
    pub(super) fn install(&self, mut connected: Connected, dialed: Dialed, mut status: Status) {
        let Dialed { socket, greeted, rest, .. } = dialed;
        let now = clock::now();
        if greeted.is_some() {
            socket.limit_unacknowledged(self.options().heartbeat_timeout);
        }
        let agreement = greeted.as_ref().map(|greeted| &greeted.agreement);
        let first_by = greeted.as_ref().map(|greeted| greeted.first_by);
        let mut rx = self.rx();
        let mut tx = self.tx();
        rx.receiver.link_up(self.options(), Opened { agreement, first_by, now });
        self.publish_numbers(&rx);
        let carried = tx.sender.link_up(agreement, now);
        (connected.redelivered, connected.lost) = (carried.redelivered, carried.lost);
        connected.resumed = agreement.is_some_and(|agreement| agreement.is_resumed);
        tx.wake_settled();
        self.note_spare(&mut tx);
        self.announce(&tx);
        self.max_size.store(tx.sender.max_size(), Ordering::Relaxed);
        status.session =
            agreement.map(|agreement| u128::from_be_bytes(agreement.session)).map(|name| format!("{name:032x}"));
        if self.role() == Role::Dialler {
            *self.known.lock() = agreement.map(Agreement::known);
        }
        status.connected = Some(connected.clone());
        self.store_status(status);
        rx.receiver.push_event(Event::Connected(connected));
        rx.socket = Some(Arc::clone(&socket));
        rx.end = None;
        rx.is_paused = !rx.receiver.wants_bytes();
        tx.socket = Some(socket);
        drop(tx);
        if !rest.is_empty() {
            self.fed(&mut rx, &rest);
        }
        self.publish(&mut rx);
        self.sync_driver(&mut rx);
        drop(rx);
        self.has_link();
        self.changed.ring();
    }

    /// The link is gone: whole messages stay, a half-written one will go again. Returns a socket on which
    /// both sides have taken their leave: it is to be read to its end, for unread bytes would become a
    /// reset, which can overtake our last words.
    pub(super) fn hang_up(&self) -> Option<Arc<Socket>> {
        let mut rx = self.rx();
        let socket = rx.socket.take();
        if socket.is_some() {
            rx.receiver.link_down();
        }
        self.note_spare_of_reader(&mut rx);
        rx.end = None;
        rx.is_paused = false;
        rx.is_reset = false;
        let has_heard = rx.receiver.has_heard_goodbye();
        let mut tx = self.tx();
        let has_parted = has_heard && tx.sender.has_closed();
        tx.socket = None;
        tx.has_failed = false;
        tx.told = None;
        tx.is_stalled = false;
        tx.sender.link_down();
        self.note_spare(&mut tx);
        let drainer = tx.drainer.take();
        drop(tx);
        let left = socket.and_then(|socket| {
            if has_parted {
                socket.end_stream();
                return Some(socket);
            }
            socket.hang_up();
            None
        });
        self.publish(&mut rx);
        self.sync_driver(&mut rx);
        drop(rx);
        if let Some(drainer) = drainer {
            self.sync(drainer);
        }
        left
    }

    /// Everything was written: ends our stream.
    pub(super) fn end_stream(&self) {
        let mut tx = self.tx();
        // The rest of a heartbeat may be left: without it the end would come in the middle of a frame.
        self.write(&mut tx);
        if let Some(socket) = tx.socket.take() {
            socket.end_stream();
        }
    }

    /// Says CLOSE at once, where the kernel takes it between two frames: the link ends next.
    pub(super) fn blame(&self, goodbye: &Goodbye) {
        let tx = self.tx();
        let socket = tx.socket.as_ref().filter(|_| !tx.has_failed && !tx.is_stalled);
        if let (Some(socket), Some(frame)) = (socket, tx.sender.last_word(goodbye, self.numbers())) {
            // Nobody can be told that it did not go out.
            let _ = socket.send(&[std::io::IoSlice::new(&frame)]);
        }
    }
}
