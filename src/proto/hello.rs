//! The greeting of our own wire (`wire.md` §2): what each side offers, and whether they agree. The
//! dialler speaks first and sends nothing more until the answer; the listener answers with HELLO or
//! REFUSE and sends nothing behind it until the dialler's next frame is there. Bytes in, bytes out.
//!
//! 1. `nothing_but_a_greeting_is_answered`: any other first byte ends the link without a reply.
//! 2. `no_ghosts`: there is no connection before the dialler's first frame behind the answer.
//! 3. `every_offer_that_makes_no_sense_is_refused_with_its_code`
//! 4. `both_sides_of_a_resume_learn_the_same`
//! 5. `a_dialler_that_asked_for_a_session_which_is_gone_has_told_nothing`
//! 6. `an_impossible_resume_is_no_agreement`

use std::time::Duration;

use super::classic::{HARD_MAX_SIZE, HEADER};
use super::events::{Fault, Reason};
use super::memory;
use super::options::Options;
use super::standing::{Known, Standing};
use super::wire::{self, Frame, Goodbye, Refusal, close, protocol};

pub use super::wire::refuse;

/// The first byte of a greeting.
pub const FIRST_BYTE: u8 = 0x80 | wire::HELLO;
const MAGIC: [u8; 2] = *b"NA";
const MAJOR: u8 = 1;
const MINOR: u8 = 0;
/// Flags from here on must be known.
const BINDING_FLAGS: u32 = 0xffff_0000;
const FIELDS: usize = 84;
const MAX_HELLO: usize = 4096;
const LEAST_TIMEOUT: u32 = 100;
/// `max_messages` of a receiver that does not count.
pub const ANY_NUMBER: u32 = u32::MAX;

/// A session's public name, or its secret token. Never printed by itself.
pub type Secret = [u8; 16];
const NONE: Secret = [0; 16];

/// One side's greeting. No `Debug`: the token must reach no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    pub session: Secret,
    pub token: Secret,
    pub link: u32,
    pub received: u64,
    pub credit: u64,
    pub max_messages: u32,
    pub hold: u64,
    pub max_size: u32,
    /// Milliseconds, as the one below.
    pub heartbeat_interval: u32,
    pub heartbeat_timeout: u32,
}

/// What the two sides have agreed on. No `Debug`: the token must reach no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Agreement {
    pub session: Secret,
    pub token: Secret,
    /// The session goes on where it stood.
    pub is_resumed: bool,
    /// The peer's: the next message that it has not received whole.
    pub received: u64,
    /// The peer's: what may be begun at first.
    pub credit: u64,
    /// What our own greeting granted, as far as it counts.
    pub offered: u64,
    pub max_messages: u64,
    /// How much cost the peer keeps unconfirmed.
    pub hold: u64,
    pub max_size: usize,
    pub heartbeat_timeout: Duration,
    /// Which side greeted: only who dialled may be sent elsewhere.
    pub has_dialled: bool,
}

impl Agreement {
    /// What a greeting names that comes back to the session.
    pub fn known(&self) -> Known {
        Known { session: self.session, token: self.token }
    }
}

impl Hello {
    /// What `options` offer, for a session that is not known yet. `credit` is what may be sent at first.
    pub fn offer(options: &Options, link: u32, credit: u64) -> Self {
        let read = options.read_buffer;
        Self {
            session: NONE,
            token: NONE,
            link,
            received: 0,
            credit,
            max_messages: if read.is_lossy() { ANY_NUMBER } else { at_most(read.count) },
            hold: options.write_buffer.max_bytes,
            max_size: at_most(options.max_size),
            heartbeat_interval: milliseconds(options.heartbeat_interval).max(1),
            heartbeat_timeout: milliseconds(options.heartbeat_timeout).max(LEAST_TIMEOUT),
        }
    }

    /// As `offer`, for an end that goes on with its session.
    pub fn resume(options: &Options, link: u32, known: Known, standing: &Standing) -> Self {
        let Known { session, token } = known;
        Self { session, token, received: standing.received, ..Self::offer(options, link, standing.credit) }
    }

    /// The largest message that its sender takes.
    pub fn max_message(&self) -> usize {
        usize::try_from(self.max_size).unwrap_or(usize::MAX).min(HARD_MAX_SIZE)
    }

    /// It asks for a session that it has been in before.
    pub fn asks_for_session(&self) -> bool {
        self.session != NONE
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(HEADER + FIELDS);
        let body: [&[u8]; 14] = [
            &MAGIC,
            &[MAJOR, MINOR],
            &0u32.to_be_bytes(),
            &self.session,
            &self.token,
            &self.link.to_be_bytes(),
            &self.received.to_be_bytes(),
            &self.credit.to_be_bytes(),
            &self.max_messages.to_be_bytes(),
            &self.hold.to_be_bytes(),
            &self.max_size.to_be_bytes(),
            &self.heartbeat_interval.to_be_bytes(),
            &self.heartbeat_timeout.to_be_bytes(),
            &[],
        ];
        wire::encode(wire::HELLO, &body, &mut frame);
        frame
    }

    /// Reads the body of a HELLO.
    ///
    /// # Errors
    /// The REFUSE that answers it.
    pub fn decode(body: &[u8]) -> Result<Self, Goodbye> {
        let malformed = || refusal(refuse::MALFORMED, "malformed");
        // These look the same in every major version.
        let (magic, rest) = body.split_first_chunk::<2>().ok_or_else(malformed)?;
        if *magic != MAGIC {
            return Err(malformed());
        }
        let major = rest.first().ok_or_else(malformed)?;
        if *major != MAJOR {
            return Err(refusal(refuse::VERSION, "this is version 1"));
        }
        let (fields, extensions) = body.split_first_chunk::<FIELDS>().ok_or_else(malformed)?;
        let mut fields = Fields(fields.get(4..).unwrap_or_default());
        let flags = u32::from_be_bytes(fields.take());
        let hello = Self {
            session: fields.take(),
            token: fields.take(),
            link: u32::from_be_bytes(fields.take()),
            received: u64::from_be_bytes(fields.take()),
            credit: u64::from_be_bytes(fields.take()),
            max_messages: u32::from_be_bytes(fields.take()),
            hold: u64::from_be_bytes(fields.take()),
            max_size: u32::from_be_bytes(fields.take()),
            heartbeat_interval: u32::from_be_bytes(fields.take()),
            heartbeat_timeout: u32::from_be_bytes(fields.take()),
        };
        if flags & BINDING_FLAGS != 0 {
            return Err(refusal(refuse::VERSION, "unknown flags"));
        }
        skip_extensions(extensions).ok_or_else(malformed)?;
        if hello.link == 0 || (hello.session == NONE) != (hello.token == NONE) {
            return Err(malformed());
        }
        hello.check_settings()?;
        Ok(hello)
    }

    fn check_settings(&self) -> Result<(), Goodbye> {
        let is_zero = self.max_size == 0 || self.max_messages == 0 || self.hold == 0 || self.heartbeat_interval == 0;
        if is_zero || self.heartbeat_timeout < LEAST_TIMEOUT {
            return Err(refusal(refuse::SETTINGS, "settings that make no sense"));
        }
        Ok(())
    }

    /// What a side that offered `ours` learns from this one.
    fn agreement(&self, ours: &Self) -> Agreement {
        let max_messages = if self.max_messages == ANY_NUMBER { u64::MAX } else { u64::from(self.max_messages) };
        Agreement {
            session: self.session,
            token: self.token,
            is_resumed: false,
            received: self.received,
            credit: self.credit,
            offered: ours.credit,
            max_messages,
            hold: self.hold,
            max_size: self.max_message(),
            heartbeat_timeout: Duration::from_millis(u64::from(self.heartbeat_timeout)),
            has_dialled: false,
        }
    }
}

/// A REFUSE.
pub fn refusal(code: u16, words: &str) -> Goodbye {
    Goodbye { code, words: words.to_owned() }
}

/// What a REFUSE means to the dialler that gets it.
pub fn refused(refusal: &Refusal, asked_for_session: bool) -> Failure {
    let Refusal { goodbye, consumed } = refusal;
    let reason = match goodbye.code {
        refuse::BUSY => Reason::Busy,
        refuse::CLOSED => Reason::ClosedByPeer,
        _ => Reason::Rejected,
    };
    let is_lasting = matches!(goodbye.code, refuse::VERSION | refuse::MALFORMED | refuse::SETTINGS | refuse::IDENTITY);
    let detail = match goodbye.words.as_str() {
        "" => format!("refused with code {}", goodbye.code),
        words => format!("{words} (code {})", goodbye.code),
    };
    let session = match (goodbye.code, consumed) {
        _ if !asked_for_session => Fate::Kept,
        // Where it does not say what was consumed, it settles nothing.
        (refuse::CLOSED, consumed) => Fate::Over { consumed: consumed.unwrap_or(0) },
        (refuse::TOKEN | refuse::MALFORMED | refuse::IDENTITY, _) => Fate::Void,
        _ => Fate::Kept,
    };
    Failure { fault: Fault { reason, detail }, is_lasting, session }
}

/// What a failed greeting means for the session that it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The next greeting asks for it again.
    Kept,
    /// Nobody holds it: the next one asks for a new one.
    Void,
    /// The peer has ended it, having consumed so many messages.
    Over { consumed: u64 },
}

/// Why a dialler got no link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub fault: Fault,
    /// Another try will hardly fare better: the next one waits the longest back-off.
    pub is_lasting: bool,
    pub session: Fate,
}

impl Failure {
    /// One that the next try may not meet.
    pub fn passing(reason: Reason, detail: String) -> Self {
        Self { fault: Fault { reason, detail }, is_lasting: false, session: Fate::Kept }
    }
}

/// The dialler's part, while it waits for the answer.
pub struct Asking {
    offer: Hello,
    /// Where it stands in the session that it asks for.
    standing: Standing,
    bytes: Vec<u8>,
}

impl Asking {
    /// What to write first, and the wait for the answer.
    pub fn new(offer: Hello) -> (Vec<u8>, Self) {
        Self::resume(offer, Standing::default())
    }

    /// As `new`, with an offer that goes on with a session in which this end stands so.
    pub fn resume(offer: Hello, standing: Standing) -> (Vec<u8>, Self) {
        (offer.encode(), Self { offer, standing, bytes: Vec::new() })
    }

    /// Bytes came. Some once there is agreement: what is left over belongs to the link.
    ///
    /// # Errors
    /// When the answer is REFUSE or no answer at all.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<(Agreement, Vec<u8>)>, Failure> {
        let passing = |fault| Failure { fault, is_lasting: false, session: Fate::Kept };
        append(&mut self.bytes, bytes).map_err(passing)?;
        let broken = |fault| Failure { fault, is_lasting: true, session: Fate::Kept };
        let Some((kind, body, rest)) = greeting(&self.bytes, &[wire::HELLO, wire::REFUSE]).map_err(broken)? else {
            return Ok(None);
        };
        if kind == wire::REFUSE {
            return Err(refused(&wire::refusal(body).map_err(broken)?, self.offer.asks_for_session()));
        }
        let malformed = |words: String| broken(protocol(format!("the answer is no greeting: {words}")));
        let answer = Hello::decode(body).map_err(|goodbye| malformed(goodbye.words))?;
        let agreement = self.agreement(&answer)?;
        let agreement = agreement.ok_or_else(|| malformed(String::from("impossible fields")))?;
        let rest = memory::copy(rest).map_err(|no_memory| passing(no_memory.fault(rest.len())))?;
        Ok(Some((agreement, rest)))
    }

    /// None when the fields of the answer do not fit what was asked.
    fn agreement(&self, answer: &Hello) -> Result<Option<Agreement>, Failure> {
        let is_resumed = answer.asks_for_session() && answer.session == self.offer.session;
        let fits = if is_resumed { answer.token == self.offer.token } else { answer.received == 0 };
        if !answer.asks_for_session() || answer.link != self.offer.link || !fits {
            return Ok(None);
        }
        if let Some(detail) = self.standing.contradiction(answer).filter(|_| is_resumed) {
            // The session is void, not the peer: the next greeting asks for a new one.
            return Err(Failure { fault: protocol(detail), is_lasting: false, session: Fate::Void });
        }
        // What was granted to a session that is gone counts in no other one.
        let is_void = self.offer.asks_for_session() && !is_resumed;
        let agreed = answer.agreement(&self.offer);
        let offered = if is_void { 0 } else { agreed.offered };
        Ok(Some(Agreement { is_resumed, offered, has_dialled: true, ..agreed }))
    }
}

/// The listener's part.
pub struct Answering {
    bytes: Vec<u8>,
    /// The dialler's offer, once it was answered.
    answered: Option<Agreement>,
}

/// Why there will be no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAgreement {
    /// Say so, then end the link.
    Refuse(Goodbye),
    /// End it without a word.
    Silent(Fault),
}

impl Answering {
    #[expect(clippy::new_without_default, reason = "it begins a conversation")]
    pub fn new() -> Self {
        Self { bytes: Vec::new(), answered: None }
    }

    /// Bytes came, before the answer. The offer, once it is whole: answer it, or refuse.
    ///
    /// # Errors
    /// When it is no offer, or one that must be refused.
    pub fn offered(&mut self, bytes: &[u8]) -> Result<Option<Hello>, NoAgreement> {
        append(&mut self.bytes, bytes).map_err(NoAgreement::Silent)?;
        let Some((_, body, rest)) = greeting(&self.bytes, &[wire::HELLO]).map_err(|fault| {
            // An oversized HELLO is a HELLO; anything else gets no reply.
            let is_hello = self.bytes.first() == Some(&FIRST_BYTE);
            if is_hello {
                NoAgreement::Refuse(refusal(refuse::MALFORMED, &fault.detail))
            } else {
                NoAgreement::Silent(fault)
            }
        })?
        else {
            return Ok(None);
        };
        let hello = Hello::decode(body).map_err(NoAgreement::Refuse)?;
        if !rest.is_empty() {
            let words = "something follows HELLO before the answer";
            return Err(NoAgreement::Refuse(refusal(refuse::MALFORMED, words)));
        }
        self.bytes.clear();
        Ok(Some(hello))
    }

    /// Agrees: the frame to write. `ours` carries the new session and its token.
    pub fn answer(&mut self, offer: &Hello, ours: &Hello) -> Vec<u8> {
        // A dialler that asked for a session that is gone counts anew: its first ACK will say so.
        let credit = if offer.asks_for_session() { 0 } else { offer.credit };
        let Hello { session, token, .. } = *ours;
        self.answered = Some(Agreement { session, token, received: 0, credit, ..offer.agreement(ours) });
        Hello { link: offer.link, ..ours.clone() }.encode()
    }

    /// As `answer`, to a dialler that returns to the session which `ours` names and in which this end
    /// stands so: the frame to write, behind which the link is up at once.
    ///
    /// # Errors
    /// The REFUSE for one whose numbers cannot be; the session is then void.
    pub fn resume(offer: &Hello, ours: &Hello, standing: &Standing) -> Result<(Vec<u8>, Agreement), Goodbye> {
        if let Some(words) = standing.contradiction(offer) {
            return Err(refusal(refuse::MALFORMED, &words));
        }
        let agreement = Agreement { is_resumed: true, ..offer.agreement(ours) };
        Ok((Hello { link: offer.link, ..ours.clone() }.encode(), agreement))
    }

    /// Bytes came, behind the answer. Some once the dialler's first frame is whole: it and what
    /// follows belong to the link.
    ///
    /// # Errors
    /// When that frame may not stand there, or ends the session that it begins.
    pub fn confirmed(&mut self, bytes: &[u8]) -> Result<Option<(Agreement, Vec<u8>)>, NeverBegan> {
        append(&mut self.bytes, bytes).map_err(NeverBegan::Broke)?;
        let Some(agreement) = &self.answered else {
            return Ok(None);
        };
        let misplaced = |words: &str| NeverBegan::Broke(protocol(words.to_owned()));
        let (kind, length) = match wire::header(&self.bytes, 0).map_err(NeverBegan::Broke)? {
            None => return Ok(None),
            Some(Frame::Control { kind, length }) if matches!(kind, wire::ACK | wire::CLOSE) => (kind, length),
            Some(_) => return Err(misplaced("the first frame is no ACK")),
        };
        let Some(body) = self.bytes.get(HEADER..HEADER + length) else {
            return Ok(None);
        };
        if kind == wire::ACK {
            return Ok(Some((agreement.clone(), std::mem::take(&mut self.bytes))));
        }
        match wire::control(kind, body).map_err(NeverBegan::Broke)? {
            wire::Control::Close(goodbye) if matches!(goodbye.code, close::ABORTED | close::VOID) => {
                Err(NeverBegan::Over)
            }
            _ => Err(misplaced("closed before it began")),
        }
    }
}

/// Of a greeting so much more has come.
fn append(greeting: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Fault> {
    memory::reserve(greeting, bytes.len()).map_err(|no_memory| no_memory.fault(bytes.len()))?;
    greeting.extend_from_slice(bytes);
    Ok(())
}

/// Why no connection came of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NeverBegan {
    /// It leaves nothing behind.
    Broke(Fault),
    /// The dialler's first word ended the session: a late return is to be told so.
    Over,
}

/// A frame's type, its body and what follows.
type First<'a> = (u8, &'a [u8], &'a [u8]);

/// The first frame, if it is whole. Judged by its first byte.
fn greeting<'a>(bytes: &'a [u8], kinds: &[u8]) -> Result<Option<First<'a>>, Fault> {
    let Some(first) = bytes.first() else {
        return Ok(None);
    };
    if !kinds.iter().any(|kind| *first == 0x80 | kind) {
        return Err(protocol(String::from("the first byte is not that of a greeting")));
    }
    let Some(Frame::Control { kind, length }) = wire::header(bytes, 0)? else {
        return Ok(None);
    };
    if length > MAX_HELLO {
        return Err(protocol(format!("a greeting of {length} bytes, at most {MAX_HELLO} are legal")));
    }
    let whole = bytes.get(HEADER..).and_then(|rest| rest.split_at_checked(length));
    Ok(whole.map(|(body, rest)| (kind, body, rest)))
}

/// The fields of a body whose length was tested.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk::<N>().expect("the body is as long as its fields");
        self.0 = rest;
        *field
    }
}

/// Each is `tag u8, length u16, value`; none is known yet. None when one passes the end.
fn skip_extensions(mut rest: &[u8]) -> Option<()> {
    while let Some((_, after)) = rest.split_first() {
        let (length, value) = after.split_first_chunk::<2>()?;
        rest = value.get(usize::from(u16::from_be_bytes(*length))..)?;
    }
    Some(())
}

fn at_most(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(ANY_NUMBER)
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::options::Settings;
    use super::*;

    const KNOWN: Known = Known { session: [1; 16], token: [2; 16] };
    const DIALLER: Standing =
        Standing { received: 4, credit: 900, heard: wire::Numbers { consumed: 1, credit: 700 }, begun: 6, max_size: 9 };
    const LISTENER: Standing =
        Standing { received: 5, credit: 800, heard: wire::Numbers { consumed: 2, credit: 600 }, begun: 4, max_size: 9 };

    fn options() -> Options {
        Settings::default().check().unwrap()
    }

    fn resume(standing: &Standing) -> Hello {
        Hello::resume(&options(), 3, KNOWN, standing)
    }

    fn offer() -> Hello {
        Hello::offer(&options(), 1, 500)
    }

    #[test]
    fn nothing_but_a_greeting_is_answered() {
        for first in (0..=u8::MAX).filter(|first| *first != FIRST_BYTE) {
            let silent = Answering::new().offered(&[first]).err().unwrap();
            assert!(matches!(silent, NoAgreement::Silent(_)), "{first:#x}");
        }
        let large = [&[FIRST_BYTE][..], &u32::try_from(MAX_HELLO + 1).unwrap().to_be_bytes()[1..]].concat();
        assert!(
            matches!(Answering::new().offered(&large), Err(NoAgreement::Refuse(no)) if no.code == refuse::MALFORMED)
        );
        let mut dripped = Answering::new();
        let (last, most) = offer().encode().split_last().map(|(last, most)| (*last, most.to_vec())).unwrap();
        for byte in most {
            assert!(dripped.offered(&[byte]).is_ok_and(|heard| heard.is_none()));
        }
        assert!(dripped.offered(&[last]).is_ok_and(|heard| heard == Some(offer())));
    }

    #[test]
    fn no_ghosts() {
        let mut ack = Vec::new();
        wire::encode_ack(wire::Numbers { consumed: 0, credit: 900 }, &mut ack);
        let mut answering = Answering::new();
        assert!(answering.confirmed(&ack).is_ok_and(|agreed| agreed.is_none()), "nothing was answered");
        let answered = || {
            let mut answering = Answering::new();
            answering.answer(&offer(), &Hello { session: [8; 16], token: [9; 16], ..offer() });
            answering
        };
        for bytes in 0..ack.len() {
            assert!(answered().confirmed(&ack[..bytes]).is_ok_and(|agreed| agreed.is_none()), "{bytes} of its bytes");
        }
        for kind in [wire::PING, wire::CLOSE, wire::ASK] {
            assert!(answered().confirmed(&[0x80 | kind, 0, 0, 0]).is_err(), "{kind:#x} is no first frame");
        }
        let behind = [&ack[..], b"and more"].concat();
        let (agreement, rest) = answered().confirmed(&behind).unwrap().unwrap();
        assert!(agreement.session == [8; 16] && rest == behind);
    }

    #[test]
    fn every_offer_that_makes_no_sense_is_refused_with_its_code() {
        let body = |hello: &Hello| hello.encode()[HEADER..].to_vec();
        let with = |at: usize, byte: u8| {
            let mut body = body(&offer());
            body[at] = byte;
            body
        };
        let cut = body(&offer())[..FIELDS - 1].to_vec();
        let beyond = [&body(&offer())[..], &[7, 0, 2, 0]].concat();
        let (session, token) = ([1; 16], [2; 16]);
        let malformed = [
            Vec::new(),
            b"N".to_vec(),
            with(0, b'n'),
            cut,
            beyond,
            body(&Hello { link: 0, ..offer() }),
            body(&Hello { session, ..offer() }),
            body(&Hello { token, ..offer() }),
        ];
        // Another major version, and a flag that must be known.
        let versions = [with(2, 2), with(4, 1), with(5, 0x80)];
        let settings = [
            body(&Hello { max_size: 0, ..offer() }),
            body(&Hello { max_messages: 0, ..offer() }),
            body(&Hello { hold: 0, ..offer() }),
            body(&Hello { heartbeat_interval: 0, ..offer() }),
            body(&Hello { heartbeat_timeout: LEAST_TIMEOUT - 1, ..offer() }),
        ];
        let refused = |body: &[u8]| Hello::decode(body).err().map(|refusal| refusal.code);
        for body in malformed {
            assert_eq!(refused(&body), Some(refuse::MALFORMED), "{body:?}");
        }
        for body in versions {
            assert_eq!(refused(&body), Some(refuse::VERSION), "{body:?}");
        }
        for body in settings {
            assert_eq!(refused(&body), Some(refuse::SETTINGS), "{body:?}");
        }
        // A minor version, flags that need not be known and extensions are skipped.
        let mut welcome = [&with(3, 9)[..], &[7, 0, 1, 0]].concat();
        welcome[7] = 1;
        assert!(Hello::decode(&welcome).is_ok_and(|hello| hello == offer()));
        let least = Hello { heartbeat_timeout: LEAST_TIMEOUT, ..offer() };
        assert!(Hello::decode(&body(&least)).is_ok_and(|hello| hello == least));
    }

    #[test]
    fn both_sides_of_a_resume_learn_the_same() {
        let (_, mut asking) = Asking::resume(resume(&DIALLER), DIALLER);
        let answered = Answering::resume(&resume(&DIALLER), &resume(&LISTENER), &LISTENER);
        let (answer, theirs) = answered.map_err(|goodbye| goodbye.words).unwrap();
        let (ours, rest) = asking.feed(&[&answer[..], b"rest"].concat()).unwrap().unwrap();
        assert_eq!((ours.is_resumed, ours.received, ours.credit, ours.offered), (true, 5, 800, 900));
        assert_eq!((theirs.is_resumed, theirs.received, theirs.credit, theirs.offered), (true, 4, 900, 800));
        assert!(ours.session == theirs.session && ours.has_dialled && !theirs.has_dialled);
        assert_eq!(rest, b"rest");
    }

    #[test]
    fn a_dialler_that_asked_for_a_session_which_is_gone_has_told_nothing() {
        let (_, mut asking) = Asking::resume(resume(&DIALLER), DIALLER);
        let mut answering = Answering::new();
        let new = Hello { session: [8; 16], token: [9; 16], ..Hello::offer(&options(), 1, 500) };
        let answer = answering.answer(&resume(&DIALLER), &new);
        let (ours, _) = asking.feed(&answer).unwrap().unwrap();
        let mut ack = Vec::new();
        wire::encode_ack(wire::Numbers { consumed: 0, credit: 900 }, &mut ack);
        let (theirs, _) = answering.confirmed(&ack).unwrap().unwrap();
        assert_eq!((ours.is_resumed, ours.received, ours.credit, ours.offered), (false, 0, 500, 0));
        assert_eq!((theirs.is_resumed, theirs.received, theirs.credit, theirs.offered), (false, 0, 0, 500));
        assert!(ours.token == [9; 16] && theirs.token == [9; 16]);
    }

    #[test]
    fn an_impossible_resume_is_no_agreement() {
        let lies = [Standing { received: 7, ..LISTENER }, Standing { credit: 699, ..LISTENER }];
        for lie in lies {
            let (_, mut asking) = Asking::resume(resume(&DIALLER), DIALLER);
            let failure = asking.feed(&resume(&lie).encode()).err().unwrap();
            assert_eq!((failure.fault.reason, failure.session), (Reason::Protocol, Fate::Void));
        }
        for lie in [Standing { received: 1, ..DIALLER }, Standing { received: 5, ..DIALLER }] {
            let refused = Answering::resume(&resume(&lie), &resume(&LISTENER), &LISTENER).err().unwrap();
            assert_eq!(refused.code, refuse::MALFORMED);
        }
        let (_, mut asking) = Asking::resume(resume(&DIALLER), DIALLER);
        let other = Hello { token: [7; 16], ..resume(&LISTENER) };
        assert!(asking.feed(&other.encode()).err().unwrap().is_lasting, "a token that was never issued");
    }

    #[test]
    fn a_refusal_says_what_becomes_of_the_session_that_was_asked_for() {
        let refuse =
            |code| Refusal { goodbye: refusal(code, ""), consumed: Some(3).filter(|_| code == refuse::CLOSED) };
        for (code, fate) in [
            (refuse::VERSION, Fate::Kept),
            (refuse::MALFORMED, Fate::Void),
            (refuse::TOKEN, Fate::Void),
            (refuse::BUSY, Fate::Kept),
            (refuse::LEAVING, Fate::Kept),
            (refuse::CLOSED, Fate::Over { consumed: 3 }),
            (refuse::SETTINGS, Fate::Kept),
            (refuse::IDENTITY, Fate::Void),
        ] {
            assert_eq!(refused(&refuse(code), true).session, fate, "{code}");
            assert_eq!(refused(&refuse(code), false).session, Fate::Kept, "{code}");
        }
        let silent = wire::refusal(&[0, 6]).unwrap();
        assert_eq!(refused(&silent, true).session, Fate::Over { consumed: 0 }, "over, though it counts nothing");
    }
}
