//! The greeting over a socket: `proto/hello.rs` says what to write and what the answer means; here it
//! is written and read, on the runtime, before any connection knows the socket.

use std::io::{self, IoSlice};
use std::sync::Arc;

use tokio::io::Interest;

use super::link::Link;
use super::net::{self, AsyncFd, Socket, words_of};
use super::sessions::Fenced;
use crate::proto::Moment;
use crate::proto::events::Reason;
use crate::proto::hello::{Agreement, Answering, Failure, Hello, NeverBegan, NoAgreement, Secret, refusal};
use crate::proto::options::Options;
use crate::proto::round::Entrance;
use crate::proto::standing::Known;
use crate::proto::wire::{Goodbye, Numbers, close, encode_ack, encode_close, encode_refuse, encode_refuse_closed};

/// A greeting is at most 4 KiB; what comes behind it is kept.
const READ: usize = 8 * 1024;

/// Both sides have agreed.
pub struct Greeted {
    pub agreement: Agreement,
    /// When the first frame behind the greeting must be there.
    pub first_by: Moment,
}

/// A dialler's greeting; returns what was read behind the answer too.
pub(super) async fn ask(
    socket: &Arc<Socket>,
    link: &Link,
    entrance: Entrance,
    first_by: Moment,
) -> Result<(Greeted, Vec<u8>), Failure> {
    let (hello, mut asking) = link.next_greeting(entrance);
    let conversation = Conversation::new(socket).map_err(|error| broken(&error))?;
    conversation.write(&hello).await.map_err(|error| broken(&error))?;
    loop {
        let bytes = conversation.read().await.map_err(|error| broken(&error))?;
        if let Some((agreement, rest)) = asking.feed(&bytes)? {
            return Ok((Greeted { agreement, first_by }, rest));
        }
    }
}

/// Both sides have taken their leave: reads what still comes, to the end of the stream.
pub(super) async fn read_to_end(socket: &Arc<Socket>) {
    if let Ok(conversation) = Conversation::new(socket) {
        conversation.read_to_end().await;
    }
}

/// What a dialler says first, behind the answer.
pub(super) enum FirstFrame {
    /// There is a connection: this belongs to its link.
    Begins(Greeted, Vec<u8>),
    /// The session is over with it.
    Ends(Known),
}

/// Why somebody is busy.
pub(super) const NO_PLACE: &str = "no further connections at the moment";

/// The listening side of one conversation.
pub(super) struct Hearing<'a> {
    conversation: Conversation,
    answering: Answering,
    options: &'a Options,
}

impl<'a> Hearing<'a> {
    pub(super) fn new(socket: &Arc<Socket>, options: &'a Options) -> io::Result<Self> {
        Ok(Self { conversation: Conversation::new(socket)?, answering: Answering::new(), options })
    }

    /// The first bytes, whatever they are.
    pub(super) async fn read(&self) -> io::Result<Vec<u8>> {
        self.conversation.read().await
    }

    /// Waits for the dialler's offer, of which `bytes` came already; one that must be refused is.
    /// None: there will be no connection.
    pub(super) async fn offer(&mut self, mut bytes: Vec<u8>) -> Option<Hello> {
        loop {
            match self.answering.offered(&bytes) {
                Ok(Some(hello)) => return Some(hello),
                Ok(None) => bytes = self.read().await.ok()?,
                Err(NoAgreement::Silent(_)) => return None,
                Err(NoAgreement::Refuse(goodbye)) => {
                    self.refuse(&goodbye).await;
                    return None;
                }
            }
        }
    }

    /// Says why not.
    pub(super) async fn refuse_with(&self, code: u16, words: &str) {
        self.refuse(&refusal(code, words)).await;
    }

    /// Says that the session is over, and what became of it.
    pub(super) async fn refuse_over(&self, consumed: u64) {
        let mut frame = Vec::new();
        encode_refuse_closed(consumed, "the session is over", &mut frame);
        self.end_with(&frame).await;
    }

    pub(super) async fn refuse(&self, goodbye: &Goodbye) {
        let mut frame = Vec::new();
        encode_refuse(goodbye, &mut frame);
        self.end_with(&frame).await;
    }

    async fn end_with(&self, frame: &[u8]) {
        if self.conversation.write(frame).await.is_ok() {
            // Unread bytes of the peer's would turn the end into a reset, and the reset could overtake this.
            self.conversation.end_stream();
            self.conversation.read_to_end().await;
        }
    }

    /// Answers, and waits for the dialler's first frame: before it there is no connection. None: there will be none.
    pub(super) async fn agree(mut self, offer: &Hello, first_by: Moment) -> Option<FirstFrame> {
        let credit = self.options.read_buffer.max_bytes;
        let ours = Hello { session: secret()?, token: secret()?, ..Hello::offer(self.options, offer.link, credit) };
        let answer = self.answering.answer(offer, &ours);
        self.conversation.write(&answer).await.ok()?;
        loop {
            let bytes = self.read().await.ok()?;
            match self.answering.confirmed(&bytes) {
                Ok(Some((agreement, rest))) => return Some(FirstFrame::Begins(Greeted { agreement, first_by }, rest)),
                Ok(None) => {}
                Err(NeverBegan::Broke(_)) => return None,
                Err(NeverBegan::Over) => {
                    return Some(FirstFrame::Ends(Known { session: ours.session, token: ours.token }));
                }
            }
        }
    }

    /// Tells one whose session has begun that there is no place for it. Nothing of it was taken.
    pub(super) async fn turn_away(&self) {
        let mut frames = Vec::new();
        encode_ack(Numbers { consumed: 0, credit: self.options.read_buffer.max_bytes }, &mut frames);
        encode_close(&Goodbye { code: close::BUSY, words: String::from(NO_PLACE) }, &mut frames);
        self.end_with(&frames).await;
    }

    /// Answers one that comes back to its session. Its connection does not wait for a first frame.
    ///
    /// # Errors
    /// The refusal of one whose numbers cannot be.
    pub(super) async fn resume(&self, offer: &Hello, fenced: &Fenced, first_by: Moment) -> Result<Greeted, Goodbye> {
        let ours = Hello::resume(self.options, offer.link, fenced.known, &fenced.standing);
        let (answer, agreement) = Answering::resume(offer, &ours, &fenced.standing)?;
        // Where it cannot be written the link breaks at once, as any other that is gone.
        let _ = self.conversation.write(&answer).await;
        Ok(Greeted { agreement, first_by })
    }
}

/// A socket that the runtime watches for the length of the greeting.
struct Conversation {
    fd: AsyncFd<Arc<Socket>>,
}

impl Conversation {
    fn new(socket: &Arc<Socket>) -> io::Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        Ok(Self { fd: net::watch(Arc::clone(socket), interest)? })
    }

    /// What is there next; the end of the stream is an error.
    async fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; READ];
        let read = |socket: &Arc<Socket>| socket.recv(&mut bytes);
        match self.fd.async_io(Interest::READABLE, read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                bytes.truncate(length);
                Ok(bytes)
            }
        }
    }

    async fn read_to_end(&self) {
        while self.read().await.is_ok() {}
    }

    async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = |socket: &Arc<Socket>| socket.send(&[IoSlice::new(bytes)]);
            let written = self.fd.async_io(Interest::WRITABLE, write).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    fn end_stream(&self) {
        self.fd.get_ref().end_stream();
    }
}

/// 128 bits from the system's source, never zero; None where it has none to give.
fn secret() -> Option<Secret> {
    let mut secret = [0; 16];
    while secret == [0; 16] {
        getrandom::fill(&mut secret).ok()?;
    }
    Some(secret)
}

fn broken(error: &io::Error) -> Failure {
    let reason = match error.kind() {
        io::ErrorKind::UnexpectedEof => Reason::Eof,
        _ => Reason::Reset,
    };
    let detail = if reason == Reason::Eof { String::from("before the greeting") } else { words_of(error) };
    Failure::passing(reason, detail)
}
