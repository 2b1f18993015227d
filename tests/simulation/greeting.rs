//! The greeting of our wire over the simulated network, as `link/greeting.rs` runs it over sockets:
//! before it is done the dialler has no link and the listener has nothing at all.

use netasync::proto::Moment;
use netasync::proto::events::Reason;
use netasync::proto::hello::{Agreement, Answering, Asking, Failure, Hello, NoAgreement};
use netasync::proto::options::Options;

use crate::network::{Network, Read, Side};

/// A greeting is at most this long, and a read brings at most this much of it.
const READ: usize = 64;

/// Both sides have agreed.
pub struct Greeted {
    pub agreement: Agreement,
    /// What our greeting offered.
    pub credit: u64,
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
    credit: u64,
    first_by: Moment,
}

impl Asked {
    pub fn new(options: &Options, link: u32, credit: u64, wire: usize, first_by: Moment) -> Self {
        let (unsent, asking) = Asking::new(Hello::offer(options, link, credit));
        Self { wire, asking, unsent, credit, first_by }
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
                    let (credit, first_by) = (self.credit, self.first_by);
                    return Some(Ok(Greeted { agreement, credit, first_by, rest }));
                }
            }
        }
    }
}

/// The listener's side: nobody that any application knows of.
pub struct Guest {
    pub wire: usize,
    answering: Answering,
    has_offered: bool,
    unsent: Vec<u8>,
    credit: u64,
    pub first_by: Moment,
}

impl Guest {
    pub fn new(options: &Options, wire: usize, now: Moment) -> Self {
        let (credit, first_by) = (options.read_buffer.max_bytes, now + options.open_timeout);
        Self { wire, answering: Answering::new(), has_offered: false, unsent: Vec::new(), credit, first_by }
    }

    /// Goes on as far as the network lets it. Some(None): there will be no connection.
    pub fn run(&mut self, options: &Options, network: &mut Network, now: Moment) -> Option<Option<Greeted>> {
        loop {
            if write(self.wire, 1, &mut self.unsent, network).is_none() {
                return Some(None);
            }
            let bytes = match network.read(self.wire, 1, READ) {
                Read::Bytes(bytes) => bytes,
                Read::Nothing if now < self.first_by => return None,
                Read::Nothing | Read::Eof | Read::Reset => return Some(None),
            };
            if self.has_offered {
                match self.answering.confirmed(&bytes) {
                    Ok(None) => {}
                    Ok(Some((agreement, rest))) => {
                        let (credit, first_by) = (self.credit, self.first_by);
                        return Some(Some(Greeted { agreement, credit, first_by, rest }));
                    }
                    Err(fault) => panic!("{fault:?} found in a greeting of our own"),
                }
            } else {
                self.hear_offer(&bytes, options);
            }
        }
    }

    fn hear_offer(&mut self, bytes: &[u8], options: &Options) {
        let offer = match self.answering.offered(bytes) {
            Ok(None) => return,
            Ok(Some(offer)) => offer,
            Err(NoAgreement::Refuse(goodbye)) => panic!("{goodbye:?} to an offer of our own"),
            Err(NoAgreement::Silent(fault)) => panic!("{fault:?} found in an offer of our own"),
        };
        self.has_offered = true;
        // Any name that is not zero: sessions of different wires never meet here.
        let name = (self.wire as u128 + 1).to_be_bytes();
        let ours = Hello { session: name, token: name, ..Hello::offer(options, offer.link, self.credit) };
        self.unsent = self.answering.answer(&offer, &ours);
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
