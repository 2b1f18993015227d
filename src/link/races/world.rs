//! A link with its supervisor, and a peer: another one, or the bare end of the pair.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shuttle::future::JoinHandle;

use super::super::clock;
use super::super::dial::Dialed;
use super::super::greeting::Greeted;
use super::super::link::Link;
use super::super::net::{self, Interest, Signal, Socket};
use super::super::supervisor::Supervisor;
use crate::proto::classic::encode_header;
use crate::proto::endpoint::{Endpoint, Role};
use crate::proto::events::{Event, Reason};
use crate::proto::halves::Front;
use crate::proto::hello::Agreement;
use crate::proto::options::{Buffer, Options, Policy, Protocol, Settings};

/// Bytes that the kernel takes: between two and three messages.
pub const KERNEL: usize = 16;

/// What a link gave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// From whom, and its number there.
    Message(u8, u8),
    Event,
    Closed,
}

/// Takes one item, if one is there, and shows it while nobody else can take.
pub fn take(link: &Link, mut show: impl FnMut(&Item)) -> Option<Item> {
    let mut taken = None;
    let take = |front: Front<'_>| {
        let item = match front {
            Front::Message(bytes) => Item::Message(bytes[0], bytes[1]),
            Front::Event(Event::Closed(_)) => Item::Closed,
            Front::Event(_) => Item::Event,
        };
        show(&item);
        taken = Some(item);
        Ok::<_, std::convert::Infallible>(())
    };
    link.take(1, take).expect("showing never fails");
    taken
}

/// What was taken, in the order in which it was.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Item>>>);

impl Log {
    pub fn note(&self, item: &Item) {
        self.0.lock().expect("nothing panics while it is held").push(*item);
    }

    /// The numbers of the messages of one sender.
    pub fn of(&self, sender: u8) -> Vec<u8> {
        let log = self.0.lock().expect("nothing panics while it is held");
        let number = |item: &Item| match item {
            Item::Message(from, number) if *from == sender => Some(*number),
            _ => None,
        };
        log.iter().filter_map(number).collect()
    }

    /// Messages 0 to `count` of each of `senders` are there, once and in order, and nothing else is.
    pub fn holds_all(&self, senders: &[u8], count: u8) {
        for sender in senders {
            assert_eq!(self.of(*sender), (0..count).collect::<Vec<_>>(), "from {sender} in {self:?}");
        }
        let log = self.0.lock().expect("nothing panics while it is held");
        assert_eq!(log.len(), senders.len() * usize::from(count), "{log:?}");
    }
}

/// One end.
pub struct End {
    pub link: Arc<Link>,
    supervisor: JoinHandle<()>,
}

impl End {
    fn new(protocol: Protocol, socket: Arc<Socket>) -> Self {
        let options = options(protocol);
        let greeted = (protocol == Protocol::Native).then(|| greeted(&options));
        let link = Link::new(1, Role::Accepted, options);
        let endpoint = Endpoint::new(Role::Accepted, link.options(), 1);
        let dialed = Dialed { socket, peer: String::new(), greeted, rest: Vec::new() };
        let mut supervisor = Supervisor::accepted(Arc::clone(&link), endpoint, dialed);
        supervisor.start();
        assert_eq!(take(&link, |_| {}), Some(Item::Event), "connected");
        let supervisor = shuttle::future::spawn(async move { supervisor.run(&mut None::<()>).await });
        Self { link, supervisor }
    }

    /// Ends it, and sees that the supervisor comes to its end.
    pub fn end(self) {
        self.link.abort(Reason::Aborted);
        self.join();
    }

    /// Waits for the supervisor.
    pub fn join(self) {
        shuttle::future::block_on(self.supervisor).expect("a supervisor does not panic");
    }
}

/// A link and the bare other end of its socket, on which the original's wire is spoken.
pub fn lone() -> (End, Arc<Socket>) {
    let (here, there) = net::pair(KERNEL);
    (End::new(Protocol::Classic, here), there)
}

/// A link on our wire, all of whose words the kernel takes at once, and the bare other end of its socket.
pub fn lone_on_ours() -> (End, Arc<Socket>) {
    let (here, there) = net::pair(1024);
    (End::new(Protocol::Native, here), there)
}

/// Two links.
pub fn couple(protocol: Protocol) -> (End, End) {
    let (here, there) = net::pair(KERNEL);
    (End::new(protocol, here), End::new(protocol, there))
}

/// Writes messages 0 to `count` of `sender` into a bare end.
pub fn write_all(socket: &Socket, sender: u8, count: u8) {
    for number in 0..count {
        let frame = [&encode_header(2)[..], &[sender, number]].concat();
        let mut rest = &frame[..];
        while !rest.is_empty() {
            match socket.send(&[std::io::IoSlice::new(rest)]) {
                Ok(written) => rest = &rest[written..],
                Err(_) => wait(socket, Interest::Write),
            }
        }
    }
}

/// Reads frames of two bytes from a bare end, until the stream ends.
pub fn read_all(socket: &Socket, log: &Log) {
    read_frames(socket, log, usize::MAX);
}

/// At most so many.
pub fn read_frames(socket: &Socket, log: &Log, count: usize) {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 7]);
    while bytes.len() / 6 < count {
        match socket.recv(&mut buffer) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            Err(_) => wait(socket, Interest::Read),
        }
    }
    let frames = bytes.chunks_exact(6);
    assert!(frames.remainder().is_empty(), "whole messages only");
    for frame in frames {
        assert_eq!(frame[..4], encode_header(2));
        log.note(&Item::Message(frame[4], frame[5]));
    }
}

/// Reads so many frames of two bytes from a bare end, and forgets them.
pub fn drop_frames(socket: &Socket, count: usize) {
    let mut left = count * 6;
    while left > 0 {
        let mut buffer = [0; 6];
        match socket.recv(&mut buffer[..left.min(6)]) {
            Ok(length) => left -= length,
            Err(_) => wait(socket, Interest::Read),
        }
    }
}

fn wait(socket: &Socket, interest: Interest) {
    net::wait(Some(&Signal::default()), Some((socket, interest)), None);
}

/// Nothing happens by itself for a day, and few messages fill a buffer.
fn options(protocol: Protocol) -> Options {
    let day = 86_400.0;
    let read_buffer = Buffer::new(Policy::Fixed, 4, 4096).expect("makes sense");
    let write_buffer = Buffer::new(Policy::Fixed, 2, 4096).expect("makes sense");
    let settings = Settings { heartbeat_interval: day, close_timeout: day, protocol, ..Settings::default() };
    let settings =
        Settings { open_timeout: day, read_buffer, write_buffer, reconnect: None, session_timeout: 0.0, ..settings };
    settings.check().expect("makes sense")
}

fn greeted(options: &Options) -> Greeted {
    let credit = options.read_buffer.max_bytes;
    let agreement = Agreement {
        session: [1; 16],
        token: [2; 16],
        is_resumed: false,
        received: 0,
        credit,
        offered: credit,
        max_messages: 4,
        hold: options.write_buffer.max_bytes,
        max_size: options.max_size,
        heartbeat_timeout: options.heartbeat_timeout,
        has_dialled: false,
    };
    Greeted { agreement, first_by: clock::now() + Duration::from_secs(86_400) }
}
