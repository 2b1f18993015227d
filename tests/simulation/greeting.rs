//! The greeting of our wire over the simulated network, as `link/greeting.rs` runs it over sockets:
//! before it is done the dialler has no link and the listener has nothing at all.

use netasync::proto::Moment;
use netasync::proto::events::Reason;
use netasync::proto::hello::{Agreement, Answering, Asking, Failure, Hello, NoAgreement};
use netasync::proto::options::Options;
use netasync::proto::standing::{Known, Standing};
use netasync::proto::wire::{self, Goodbye};

use crate::network::{Network, Read, Side};

/// A greeting is at most this long, and a read brings at most this much of it.
const READ: usize = 64;

/// Both sides have agreed.
pub struct Greeted {
    pub agreement: Agreement,
    /// When the first frame behind the greeting must be there.
    pub first_by: Moment,
    /// What was read already, behind the greeting.
    pub rest: Vec<u8>,
}

/// The dialler's side, while it waits for the answer.
pub struct Asked {
    pub wire: usize,
    asking: Asking,
    unsent: Vec<u8>,
    first_by: Moment,
}

impl Asked {
    pub fn new(offer: Hello, standing: Standing, wire: usize, first_by: Moment) -> Self {
        let (unsent, asking) = Asking::resume(offer, standing);
        Self { wire, asking, unsent, first_by }
    }

    /// Goes on as far as the network lets it; None while the answer is not there.
    pub fn run(&mut self, network: &mut Network, now: Moment) -> Option<Result<Greeted, Failure>> {
        let broken = |reason| Failure::passing(reason, String::new());
        if write(self.wire, 0, &mut self.unsent, network).is_none() {
            return Some(Err(broken(Reason::Reset)));
        }
        loop {
            let bytes = match network.read(self.wire, 0, READ) {
                Read::Bytes(bytes) => bytes,
                Read::Nothing if now >= self.first_by => return Some(Err(broken(Reason::OpenTimeout))),
                Read::Nothing => return None,
                Read::Eof => return Some(Err(broken(Reason::Eof))),
                Read::Reset => return Some(Err(broken(Reason::Reset))),
            };
            match self.asking.feed(&bytes) {
                Err(failure) => return Some(Err(failure)),
                Ok(None) => {}
                Ok(Some((agreement, rest))) => {
                    return Some(Ok(Greeted { agreement, first_by: self.first_by, rest }));
                }
            }
        }
    }
}

/// The listener's side: nobody that any application knows of.
pub struct Guest {
    pub wire: usize,
    answering: Answering,
    stage: Stage,
    unsent: Vec<u8>,
    pub first_by: Moment,
    /// Which of its dialler's greetings this is.
    pub link: u32,
}

enum Stage {
    Offering,
    /// Answered; its first frame makes it a connection.
    Answered,
    /// Answered, and its session goes on as soon as that is said.
    Resuming(usize, Box<Agreement>),
    Refused,
}

/// How a greeting went on.
pub enum Greeting {
    Waiting,
    Gone,
    /// It is to be answered.
    Offered(Box<Hello>),
    New(Greeted),
    /// The accepted end of this number goes on.
    Resumed(usize, Greeted),
}

impl Guest {
    pub fn new(options: &Options, wire: usize, now: Moment) -> Self {
        let first_by = now + options.open_timeout;
        Self { wire, answering: Answering::new(), stage: Stage::Offering, unsent: Vec::new(), first_by, link: 0 }
    }

    /// Goes on as far as the network lets it.
    pub fn run(&mut self, network: &mut Network, now: Moment) -> Greeting {
        loop {
            if write(self.wire, 1, &mut self.unsent, network).is_none() {
                return Greeting::Gone;
            }
            if let (Stage::Resuming(number, agreement), true) = (&self.stage, self.unsent.is_empty()) {
                let agreement = Agreement::clone(agreement);
                return Greeting::Resumed(*number, Greeted { agreement, first_by: self.first_by, rest: Vec::new() });
            }
            if matches!(self.stage, Stage::Refused | Stage::Resuming(..)) {
                let is_over = now >= self.first_by || self.unsent.is_empty();
                return if is_over { Greeting::Gone } else { Greeting::Waiting };
            }
            let bytes = match network.read(self.wire, 1, READ) {
                Read::Bytes(bytes) => bytes,
                Read::Nothing if now < self.first_by => return Greeting::Waiting,
                Read::Nothing | Read::Eof | Read::Reset => return Greeting::Gone,
            };
            if let Some(greeting) = self.hear(&bytes) {
                return greeting;
            }
        }
    }

    fn hear(&mut self, bytes: &[u8]) -> Option<Greeting> {
        if matches!(self.stage, Stage::Answered) {
            let confirmed = self.answering.confirmed(bytes);
            let (agreement, rest) = confirmed.unwrap_or_else(|fault| panic!("{fault:?} in a greeting of our own"))?;
            return Some(Greeting::New(Greeted { agreement, first_by: self.first_by, rest }));
        }
        match self.answering.offered(bytes) {
            Ok(offer) => offer.map(|offer| Greeting::Offered(Box::new(offer))),
            Err(NoAgreement::Refuse(goodbye)) => panic!("{goodbye:?} to an offer of our own"),
            Err(NoAgreement::Silent(fault)) => panic!("{fault:?} found in an offer of our own"),
        }
    }

    /// Agrees to a new session.
    pub fn begin(&mut self, offer: &Hello, options: &Options, known: Known) {
        let Known { session, token } = known;
        let ours = Hello { session, token, ..Hello::offer(options, offer.link, options.read_buffer.max_bytes) };
        self.unsent = self.answering.answer(offer, &ours);
        (self.stage, self.link) = (Stage::Answered, offer.link);
    }

    /// Agrees to go on with a session; None when its numbers cannot be.
    pub fn resume(
        &mut self,
        offer: &Hello,
        options: &Options,
        number: usize,
        known: Known,
        standing: &Standing,
    ) -> Option<()> {
        self.link = offer.link;
        let ours = Hello::resume(options, offer.link, known, standing);
        match Answering::resume(offer, &ours, standing) {
            Ok((answer, agreement)) => {
                self.unsent = answer;
                self.stage = Stage::Resuming(number, Box::new(agreement));
                Some(())
            }
            Err(goodbye) => {
                self.refuse(&goodbye);
                None
            }
        }
    }

    pub fn refuse(&mut self, goodbye: &Goodbye) {
        self.stage = Stage::Refused;
        wire::encode_refuse(goodbye, &mut self.unsent);
    }

    pub fn refuse_closed(&mut self, consumed: u64) {
        self.stage = Stage::Refused;
        wire::encode_refuse_closed(consumed, "", &mut self.unsent);
    }
}

/// Writes what the network takes; None when the connection was reset.
fn write(wire: usize, side: Side, unsent: &mut Vec<u8>, network: &mut Network) -> Option<()> {
    if !unsent.is_empty() {
        let taken = network.write(wire, side, unsent)?;
        unsent.drain(..taken);
    }
    Some(())
}
