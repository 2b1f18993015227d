//! A connected pair of sockets: two pipes of few bytes, so that the kernel is full again and again.

use std::sync::{Mutex, MutexGuard};

use super::watched::{self, Watches};
use super::{Arc, ErrorKind, Interest, IoSlice, KERNEL, call, io};
use tokio::io::Ready;

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    bytes: std::collections::VecDeque<u8>,
    capacity: usize,
    /// Who writes will write no more.
    is_ended: bool,
    /// Who reads will read no more.
    is_shut: bool,
    /// A write met a full pipe: room will be told of.
    is_awaited: bool,
}

impl Pipe {
    fn room(&self) -> usize {
        self.capacity - self.bytes.len()
    }

    /// The kernel calls little room none.
    fn has_room(&self) -> bool {
        self.is_shut || self.is_ended || self.room() * 2 >= self.bytes.len().max(1)
    }

    fn has_something(&self) -> bool {
        self.is_shut || self.is_ended || !self.bytes.is_empty()
    }
}

#[derive(Debug)]
pub struct Socket {
    pipes: Arc<[Mutex<Pipe>; 2]>,
    /// The pipe that it writes.
    side: usize,
    watches: Watches,
    peer: Watches,
}

/// A pair whose pipes hold so many bytes.
#[cfg(test)]
pub(in crate::link) fn pair(capacity: usize) -> (Arc<Socket>, Arc<Socket>) {
    let pipe = || Mutex::new(Pipe { capacity, ..Pipe::default() });
    let pipes = Arc::new([pipe(), pipe()]);
    let (one, other) = (Watches::default(), Watches::default());
    let left = Socket { pipes: Arc::clone(&pipes), side: 0, watches: Arc::clone(&one), peer: Arc::clone(&other) };
    let right = Socket { pipes, side: 1, watches: other, peer: one };
    (Arc::new(left), Arc::new(right))
}

impl Socket {
    fn outgoing(&self) -> MutexGuard<'_, Pipe> {
        self.pipes[self.side].lock().expect("nothing panics while it is held")
    }

    fn incoming(&self) -> MutexGuard<'_, Pipe> {
        self.pipes[1 - self.side].lock().expect("nothing panics while it is held")
    }

    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let _call = call();
        let mut pipe = self.incoming();
        if pipe.is_shut {
            return Ok(0);
        }
        if pipe.bytes.is_empty() {
            return if pipe.is_ended { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let length = pipe.bytes.len().min(buffer.len());
        for (place, byte) in buffer.iter_mut().zip(pipe.bytes.drain(..length)) {
            *place = byte;
        }
        let is_awaited = pipe.is_awaited && pipe.has_room();
        pipe.is_awaited &= !is_awaited;
        drop(pipe);
        if is_awaited {
            happened(&self.peer, Ready::WRITABLE);
        }
        Ok(length)
    }

    pub fn recv_onto(&self, body: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let mut space = vec![0; most];
        let length = self.recv(&mut space)?;
        body.extend(&space[..length]);
        Ok(length)
    }

    pub fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let _call = call();
        let mut pipe = self.outgoing();
        if pipe.is_shut || pipe.is_ended {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let (room, offered) = (pipe.room(), parts.iter().map(|part| part.len()).sum::<usize>());
        pipe.bytes.extend(parts.iter().flat_map(|part| part.iter()).take(room));
        pipe.is_awaited |= room < offered;
        drop(pipe);
        if room == 0 && offered > 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        happened(&self.peer, Ready::READABLE);
        Ok(room.min(offered))
    }

    pub fn end_stream(&self) {
        let _call = call();
        self.outgoing().is_ended = true;
        happened(&self.peer, Ready::READABLE | Ready::READ_CLOSED);
        happened(&self.watches, Ready::WRITABLE);
    }

    pub fn hang_up(&self) {
        let _call = call();
        self.outgoing().is_ended = true;
        self.incoming().is_shut = true;
        let all = Ready::READABLE | Ready::READ_CLOSED | Ready::WRITABLE | Ready::WRITE_CLOSED;
        happened(&self.watches, all);
        happened(&self.peer, Ready::READABLE | Ready::READ_CLOSED | Ready::WRITABLE);
    }

    /// Time stands still.
    pub fn limit_unacknowledged(&self, _: std::time::Duration) {}

    pub fn is_readable(&self) -> bool {
        let _call = call();
        self.is_ready(Interest::Read)
    }

    /// As a poll sees it.
    pub(super) fn is_ready(&self, interest: Interest) -> bool {
        match interest {
            Interest::Read => self.incoming().has_something(),
            Interest::Write => {
                let mut pipe = self.outgoing();
                pipe.is_awaited |= !pipe.has_room();
                pipe.has_room()
            }
            Interest::Both => {
                let is_writable = self.is_ready(Interest::Write);
                self.is_ready(Interest::Read) || is_writable
            }
        }
    }

    pub(super) fn watches(&self) -> &Watches {
        &self.watches
    }
}

fn happened(watches: &Watches, ready: Ready) {
    watched::happened(watches, ready);
    KERNEL.changed.notify_all();
}
