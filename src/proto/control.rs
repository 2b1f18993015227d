//! The control frames that wait to go out, and where among the messages each has its place. They are
//! drafted anew for every write, because ACK, PING and PONG carry the numbers of the moment in which
//! they are handed to the kernel; only one of which it took a part is kept as it was.
//!
//! 1. `ack_comes_first_and_ping_behind_it`
//! 2. `at_most_one_pong_waits_with_the_newest_nonce`
//! 3. `an_ack_stands_directly_in_front_of_close`
//! 4. `what_the_kernel_took_in_part_goes_on_where_it_stopped`

use std::ops::Range;
use std::time::Duration;

use super::Moment;
use super::session::is_worth_telling;
use super::wire::{self, Goodbye, Numbers};

#[derive(Debug, Default)]
pub struct Control {
    /// The rest of a frame that is partly written.
    rest: Vec<u8>,
    /// Nothing was written on this link yet.
    is_first: bool,
    has_pong: Option<u64>,
    has_ping: bool,
    has_ack: bool,
    has_ask: bool,
    /// The numbers go with the next messages.
    is_near: bool,
    close: Option<Closing>,
    announced: Numbers,
    nonce: u64,
    /// The PING whose PONG is awaited, and when it went out.
    open: Option<(u64, Moment)>,
    latency: Option<Duration>,
    last_ping: u64,
    draft: Vec<u8>,
    /// Of `draft`: the first so many stand in front of the messages, the others behind.
    pieces: Vec<(Piece, Range<usize>)>,
    front: usize,
}

#[derive(Debug)]
struct Closing {
    goodbye: Goodbye,
    after: After,
    progress: Progress,
}

/// Behind which messages CLOSE goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Everything that was accepted: this side closes.
    Everything,
    /// What may be begun now: the other side closes.
    WhatMayBegin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Wanted,
    /// The kernel has its first byte.
    Begun,
    /// The kernel has it.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Pong,
    Ping,
    Ack,
    Ask,
    /// Directly behind an ACK, in one piece: what took the one takes the other.
    Close,
}

impl Piece {
    /// Whether it carries the numbers.
    fn tells(self) -> bool {
        self != Self::Ask
    }
}

/// The messages of the write that is being drafted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Messages {
    /// Some are in it.
    pub are_some: bool,
    /// Everything that waits is in it.
    pub are_all: bool,
    /// Nothing could be begun behind it.
    pub are_last: bool,
}

impl Control {
    /// A link is up: ACK comes first, PING behind it. `announced`: what our greeting said.
    pub fn begin(&mut self, announced: Numbers) {
        let (nonce, latency) = (self.nonce, self.latency);
        *self = Self { is_first: true, has_ack: true, has_ping: true, announced, nonce, latency, ..Self::default() };
    }

    /// The link is gone.
    pub fn end(&mut self) {
        self.rest.clear();
        self.pieces.clear();
        self.draft.clear();
    }

    /// Gives back memory that an idle connection does not need.
    pub fn trim(&mut self) {
        (self.draft, self.pieces, self.front) = (Vec::new(), Vec::new(), 0);
        self.rest.shrink_to_fit();
    }

    pub fn pong(&mut self, nonce: u64) {
        self.has_pong = Some(nonce);
    }

    pub fn ping(&mut self) {
        self.has_ping = true;
    }

    pub fn ack(&mut self) {
        self.has_ack = true;
    }

    /// The numbers go with the next messages, if there is news in them.
    pub fn tell_with_messages(&mut self) {
        self.is_near = true;
    }

    /// An ASK behind the last message.
    pub fn ask(&mut self) {
        self.has_ask = true;
    }

    pub fn close(&mut self, goodbye: Goodbye, after: After) {
        match &mut self.close {
            // The first word stands; it only need not wait any longer.
            Some(closing) => closing.after = after,
            None => self.close = Some(Closing { goodbye, after, progress: Progress::Wanted }),
        }
    }

    /// Whether our CLOSE was handed to the kernel whole.
    pub fn has_closed(&self) -> bool {
        self.close.as_ref().is_some_and(|closing| closing.progress == Progress::Done)
    }

    /// No message may follow; ACK and PONG still do.
    pub fn has_begun_close(&self) -> bool {
        self.close.as_ref().is_some_and(|closing| closing.progress != Progress::Wanted)
    }

    /// A frame waits for its place behind messages.
    pub fn is_bound_to_messages(&self) -> bool {
        self.has_ask || self.close.is_some()
    }

    /// The rest of a frame of which the kernel took a part.
    pub fn go_on_with(&mut self, rest: &[u8]) {
        self.rest = rest.to_vec();
    }

    /// A PONG came; whether it answers our open PING.
    pub fn hear_pong(&mut self, nonce: u64, now: Moment) -> bool {
        let Some((_, sent)) = self.open.take_if(|(open, _)| *open == nonce) else {
            return false;
        };
        self.latency = Some(now.saturating_sub(sent));
        true
    }

    /// The PING that went out last on this link.
    pub fn last_ping(&self) -> u64 {
        self.last_ping
    }

    pub fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// What the peer was told, or will be by what is being written.
    pub fn announced(&self) -> Numbers {
        self.announced
    }

    /// Whether frames wait that no message has to go out with.
    pub fn is_urgent(&self, messages: Messages) -> bool {
        let waits = self.has_ack || self.has_ping || self.has_pong.is_some();
        waits || !self.rest.is_empty() || self.asks_behind(messages) || self.closes_behind(messages)
    }

    /// Drafts the frames of one write.
    pub fn draft(&mut self, messages: Messages, numbers: Numbers) {
        self.draft.clear();
        self.pieces.clear();
        if self.is_first {
            self.put(Piece::Ack, numbers);
        }
        if self.has_pong.is_some() {
            self.put(Piece::Pong, numbers);
        }
        if self.has_ping {
            self.put(Piece::Ping, numbers);
        }
        let is_told = !self.pieces.is_empty();
        if !is_told && (self.has_ack || (messages.are_some && self.goes_with_messages(numbers))) {
            self.put(Piece::Ack, numbers);
        }
        self.front = self.pieces.len();
        // Until it is written it is still to be told, though nothing be consumed any more.
        self.has_ack |= self.front > 0;
        if self.asks_behind(messages) {
            self.put(Piece::Ask, numbers);
        }
        if self.closes_behind(messages) {
            self.put(Piece::Close, numbers);
        }
        if self.pieces.iter().any(|(piece, _)| piece.tells()) {
            self.announced = numbers;
        }
    }

    pub fn rest(&self) -> &[u8] {
        &self.rest
    }

    pub fn in_front(&self) -> &[u8] {
        self.draft.get(..self.front_end()).unwrap_or_default()
    }

    pub fn behind(&self) -> &[u8] {
        self.draft.get(self.front_end()..).unwrap_or_default()
    }

    /// The kernel took so many bytes of the rest; returns how many are left of that count.
    pub fn wrote_rest(&mut self, written: usize) -> usize {
        let taken = written.min(self.rest.len());
        self.rest.drain(..taken);
        self.note_done();
        written - taken
    }

    /// The kernel took so many bytes from `in_front` on.
    pub fn wrote_front(&mut self, written: usize, now: Moment) {
        self.wrote(0..self.front, 0, written, now);
    }

    /// The kernel took so many bytes from `behind` on.
    pub fn wrote_behind(&mut self, written: usize, now: Moment) {
        self.wrote(self.front..self.pieces.len(), self.front_end(), written, now);
    }

    fn wrote(&mut self, which: Range<usize>, from: usize, written: usize, now: Moment) {
        let end = from + written;
        let pieces = self.pieces.get(which).unwrap_or_default().to_vec();
        for (piece, range) in pieces {
            if range.start >= end {
                break;
            }
            if range.end > end {
                self.rest = self.draft.get(end..range.end).unwrap_or_default().to_vec();
            }
            self.sent(piece, now);
        }
        self.note_done();
    }

    fn note_done(&mut self) {
        if let Some(closing) = self.close.as_mut().filter(|closing| closing.progress == Progress::Begun)
            && self.rest.is_empty()
        {
            closing.progress = Progress::Done;
        }
    }

    fn sent(&mut self, piece: Piece, now: Moment) {
        self.is_first = false;
        match piece {
            Piece::Pong => self.has_pong = None,
            Piece::Ping => {
                self.has_ping = false;
                self.open = Some((self.nonce, now));
                self.last_ping = self.nonce;
            }
            Piece::Ack => {}
            Piece::Ask => self.has_ask = false,
            Piece::Close => {
                if let Some(closing) = &mut self.close {
                    closing.progress = Progress::Begun;
                }
            }
        }
        if piece.tells() {
            (self.has_ack, self.is_near) = (false, false);
        }
    }

    fn goes_with_messages(&self, numbers: Numbers) -> bool {
        (self.is_near && numbers != self.announced) || is_worth_telling(numbers, self.announced)
    }

    fn asks_behind(&self, messages: Messages) -> bool {
        self.has_ask && messages.are_all && !self.has_begun_close()
    }

    fn closes_behind(&self, messages: Messages) -> bool {
        let wanted = self.close.as_ref().filter(|closing| closing.progress == Progress::Wanted);
        wanted.is_some_and(|closing| (closing.after == After::WhatMayBegin && messages.are_last) || messages.are_all)
    }

    fn front_end(&self) -> usize {
        let last = self.front.checked_sub(1).and_then(|last| self.pieces.get(last));
        last.map_or(0, |(_, range)| range.end)
    }

    fn put(&mut self, piece: Piece, numbers: Numbers) {
        let start = self.draft.len();
        match piece {
            Piece::Pong => wire::encode_pong(self.has_pong.unwrap_or_default(), numbers, &mut self.draft),
            Piece::Ping => {
                self.nonce += 1;
                wire::encode_ping(self.nonce, numbers, &mut self.draft);
            }
            Piece::Ack => wire::encode_ack(numbers, &mut self.draft),
            Piece::Ask => wire::encode_ask(&mut self.draft),
            Piece::Close => {
                let Some(closing) = &self.close else { return };
                wire::encode_ack(numbers, &mut self.draft);
                wire::encode_close(&closing.goodbye, &mut self.draft);
            }
        }
        self.pieces.push((piece, start..self.draft.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Messages = Messages { are_some: true, are_all: true, are_last: true };
    const NONE: Messages = Messages { are_some: false, are_all: true, are_last: true };
    const BLOCKED: Messages = Messages { are_some: false, are_all: false, are_last: true };
    const NOTHING: Vec<u8> = Vec::new();
    const NOW: Moment = Duration::from_secs(7);

    fn numbers(consumed: u64) -> Numbers {
        Numbers { consumed, credit: 1000 + consumed * 100 }
    }

    fn begun() -> Control {
        let mut control = Control::default();
        control.begin(numbers(0));
        control
    }

    /// The types of the frames in a piece of the stream.
    fn kinds(mut bytes: &[u8]) -> Vec<u8> {
        let mut kinds = Vec::new();
        while let Ok(Some(wire::Frame::Control { kind, length })) = wire::header(bytes, 0) {
            kinds.push(kind);
            bytes = &bytes[4 + length..];
        }
        kinds
    }

    fn write_all(control: &mut Control, messages: Messages, consumed: u64) -> [Vec<u8>; 2] {
        control.draft(messages, numbers(consumed));
        let written = [control.in_front().to_vec(), control.behind().to_vec()];
        control.wrote_front(written[0].len(), NOW);
        control.wrote_behind(written[1].len(), NOW);
        written.map(|bytes| kinds(&bytes))
    }

    #[test]
    fn ack_comes_first_and_ping_behind_it() {
        let mut control = begun();
        control.pong(3);
        assert_eq!(write_all(&mut control, SOME, 0), [vec![wire::ACK, wire::PONG, wire::PING], NOTHING]);
        assert_eq!(write_all(&mut control, SOME, 0), [NOTHING, NOTHING]);
        assert!(!control.is_urgent(NONE));
    }

    #[test]
    fn data_takes_an_ack_along_when_enough_was_consumed() {
        let mut control = begun();
        write_all(&mut control, NONE, 0);
        assert_eq!(write_all(&mut control, SOME, 63)[0], NOTHING);
        assert_eq!(write_all(&mut control, NONE, 64)[0], NOTHING);
        assert_eq!(write_all(&mut control, SOME, 64)[0], [wire::ACK]);
        assert_eq!(control.announced(), numbers(64));
        assert_eq!(write_all(&mut control, SOME, 64)[0], NOTHING);
    }

    #[test]
    fn numbers_whose_time_is_near_go_with_the_next_messages() {
        let mut control = begun();
        write_all(&mut control, NONE, 0);
        control.tell_with_messages();
        assert_eq!(write_all(&mut control, SOME, 0)[0], NOTHING, "there is no news");
        assert_eq!(write_all(&mut control, NONE, 1)[0], NOTHING);
        assert_eq!(write_all(&mut control, SOME, 1)[0], [wire::ACK]);
        assert_eq!(write_all(&mut control, SOME, 2)[0], NOTHING);
    }

    #[test]
    fn what_was_drafted_and_not_written_is_still_to_be_told() {
        let mut control = begun();
        write_all(&mut control, NONE, 0);
        control.draft(SOME, numbers(64));
        assert_eq!(write_all(&mut control, SOME, 64)[0], [wire::ACK]);
        assert!(!control.is_urgent(NONE));
    }

    #[test]
    fn at_most_one_pong_waits_with_the_newest_nonce() {
        let mut control = begun();
        write_all(&mut control, NONE, 0);
        control.pong(3);
        control.pong(4);
        control.draft(NONE, numbers(0));
        let front = control.in_front().to_vec();
        assert_eq!(
            wire::control(wire::PONG, &front[4..]).unwrap(),
            wire::Control::Pong { nonce: 4, numbers: numbers(0) }
        );
        assert_eq!(front.len(), 28);
    }

    #[test]
    fn an_ack_stands_directly_in_front_of_close() {
        let done = || Goodbye { code: 0, words: String::new() };
        let mut control = begun();
        write_all(&mut control, NONE, 0);
        control.close(done(), After::Everything);
        assert!(!control.is_urgent(BLOCKED) && control.is_urgent(NONE));
        assert_eq!(write_all(&mut control, BLOCKED, 0), [NOTHING, NOTHING]);
        assert_eq!(write_all(&mut control, SOME, 0), [NOTHING, vec![wire::ACK, wire::CLOSE]]);
        assert!(control.has_closed());
        control.ask();
        assert!(!control.is_urgent(SOME), "nothing that belongs to messages follows");
        control.pong(1);
        assert_eq!(write_all(&mut control, SOME, 64), [vec![wire::PONG], NOTHING]);
        control.ack();
        assert_eq!(write_all(&mut control, SOME, 64), [vec![wire::ACK], NOTHING]);
        let mut answering = begun();
        write_all(&mut answering, NONE, 0);
        answering.close(done(), After::WhatMayBegin);
        assert_eq!(write_all(&mut answering, BLOCKED, 0), [NOTHING, vec![wire::ACK, wire::CLOSE]]);
    }

    #[test]
    fn a_close_cut_anywhere_goes_out_once() {
        for cut in 1..26 {
            let mut control = begun();
            write_all(&mut control, NONE, 0);
            control.close(Goodbye { code: 0, words: String::new() }, After::Everything);
            control.draft(NONE, numbers(0));
            let whole = control.behind().to_vec();
            control.wrote_behind(cut, NOW);
            let rest = control.rest().to_vec();
            control.draft(NONE, numbers(0));
            assert_eq!(control.behind(), NOTHING);
            assert_eq!(kinds(&[&whole[..cut], &rest].concat()), [wire::ACK, wire::CLOSE], "{cut}");
        }
    }

    #[test]
    fn what_the_kernel_took_in_part_goes_on_where_it_stopped() {
        for cut in 1..48 {
            let mut control = begun();
            control.draft(NONE, numbers(0));
            let whole = control.in_front().to_vec();
            control.wrote_front(cut, NOW);
            let mut wire = whole[..cut].to_vec();
            wire.extend(control.rest());
            assert_eq!(control.wrote_rest(100), 100 - (wire.len() - cut));
            control.draft(NONE, numbers(0));
            wire.extend(control.in_front());
            assert_eq!(kinds(&wire), [wire::ACK, wire::PING], "{cut}");
        }
    }

    #[test]
    fn a_pong_measures_the_round_trip_and_an_unknown_one_does_not() {
        let mut control = begun();
        write_all(&mut control, NONE, 0);
        assert!(!control.hear_pong(99, NOW));
        assert!(control.hear_pong(1, NOW + Duration::from_millis(5)));
        assert_eq!(control.latency(), Some(Duration::from_millis(5)));
        assert!(!control.hear_pong(1, NOW));
    }

    #[test]
    fn an_ask_goes_behind_the_last_message() {
        let mut control = begun();
        write_all(&mut control, NONE, 0);
        control.ask();
        assert_eq!(write_all(&mut control, BLOCKED, 0), [NOTHING, NOTHING]);
        assert_eq!(write_all(&mut control, SOME, 0), [NOTHING, vec![wire::ASK]]);
    }
}
