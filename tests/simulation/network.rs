//! TCP as the two kernels show it: bounded buffers, segments that come when they come but in order,
//! end of stream, reset, and directions into which everything vanishes until they heal.

use std::collections::VecDeque;
use std::time::Duration;

use netasync::proto::Moment;

use crate::random::Random;

/// How a connection ends that something in the middle ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Reset,
    Fin,
    /// Nothing of it arrives any more.
    Silence,
}

/// 0 is the dialler's side, 1 the accepting one. A direction has the number of the side it comes from.
pub type Side = usize;

#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub latency: Duration,
    pub jitter: Duration,
    pub bytes_per_second: u64,
    pub segment: usize,
    /// What one kernel keeps for each direction.
    pub room: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    Bytes(Vec<u8>),
    Nothing,
    Eof,
    Reset,
}

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fin {
    No,
    Wanted,
    Sent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Open,
    Closed,
    /// Its application reads to the end, and looks at nothing.
    Parted,
    /// Its host vanished; nothing answers.
    Dead,
}

#[derive(Debug)]
struct Pipe {
    outgoing: VecDeque<u8>,
    fin: Fin,
    flight: VecDeque<(Moment, Piece)>,
    flying: usize,
    last_at: Moment,
    incoming: VecDeque<u8>,
    has_fin: bool,
    is_reset: bool,
    reader: Reader,
    /// The connection breaks when so many bytes more have arrived.
    cut_in: Option<(usize, Cut)>,
    /// Whatever is written vanishes.
    is_lost: bool,
}

impl Pipe {
    fn new() -> Self {
        Self {
            outgoing: VecDeque::new(),
            fin: Fin::No,
            flight: VecDeque::new(),
            flying: 0,
            last_at: Moment::ZERO,
            incoming: VecDeque::new(),
            has_fin: false,
            is_reset: false,
            reader: Reader::Open,
            cut_in: None,
            is_lost: false,
        }
    }

    fn is_quiet(&self) -> bool {
        self.outgoing.is_empty() && self.flight.is_empty() && self.fin != Fin::Wanted
    }

    /// The sending side answers with a reset; what it had not sent is gone.
    fn send_reset(&mut self, at: Moment) {
        self.outgoing.clear();
        self.fin = Fin::Sent;
        let at = at.max(self.last_at);
        self.flight.push_back((at, Piece::Reset));
    }
}

pub struct Network {
    pub shape: Shape,
    /// Directions in which nothing arrives now.
    pub holes: [bool; 2],
    /// A host that is up answers strangers with a reset; one that is down answers nothing.
    pub is_server_host_up: bool,
    /// The next connection breaks when so many bytes of that direction have arrived.
    pub cut_next: Option<(Side, usize)>,
    /// Those after it break likewise, each in its turn.
    pub cuts: VecDeque<(Side, usize, Cut)>,
    /// A connection has fallen silent.
    pub has_silenced: bool,
    wires: Vec<[Pipe; 2]>,
    random: Random,
}

impl Network {
    pub fn new(shape: Shape, random: Random) -> Self {
        Self {
            shape,
            holes: [false; 2],
            is_server_host_up: true,
            cut_next: None,
            cuts: VecDeque::new(),
            has_silenced: false,
            wires: Vec::new(),
            random,
        }
    }

    /// A connection that has just been established.
    pub fn connect(&mut self) -> usize {
        let mut pipes = [Pipe::new(), Pipe::new()];
        let cut = self.cut_next.take().map(|(direction, bytes)| (direction, bytes, Cut::Reset));
        if let Some((direction, bytes, cut)) = cut.or_else(|| self.cuts.pop_front()) {
            pipes[direction].cut_in = Some((bytes, cut));
        }
        self.wires.push(pipes);
        self.wires.len() - 1
    }

    /// The newest connection breaks when so many bytes more of that direction have arrived.
    pub fn cut_in(&mut self, (direction, bytes, cut): (Side, usize, Cut)) {
        let newest = self.wires.last_mut().expect("a connection");
        newest[direction].cut_in = Some((bytes, cut));
    }

    pub fn read(&mut self, wire: usize, side: Side, limit: usize) -> Read {
        let pipe = &mut self.wires[wire][1 - side];
        assert_eq!(pipe.reader, Reader::Open, "a closed socket is never read");
        if !pipe.incoming.is_empty() {
            let length = limit.min(pipe.incoming.len());
            return Read::Bytes(pipe.incoming.drain(..length).collect());
        }
        match (pipe.is_reset, pipe.has_fin) {
            (true, _) => Read::Reset,
            (_, true) => Read::Eof,
            _ => Read::Nothing,
        }
    }

    /// How much the kernel takes; None when the peer has reset the connection.
    pub fn write(&mut self, wire: usize, side: Side, bytes: &[u8]) -> Option<usize> {
        if self.wires[wire][1 - side].is_reset {
            return None;
        }
        let pipe = &mut self.wires[wire][side];
        assert_eq!(pipe.fin, Fin::No, "nothing is written behind the end of a stream");
        let room = self.shape.room - pipe.outgoing.len().min(self.shape.room);
        let taken = room.min(bytes.len());
        pipe.outgoing.extend(&bytes[..taken]);
        Some(taken)
    }

    pub fn end_stream(&mut self, wire: usize, side: Side) {
        let pipe = &mut self.wires[wire][side];
        if pipe.fin == Fin::No {
            pipe.fin = Fin::Wanted;
        }
    }

    /// Gives the socket back. With unread input the kernel resets, and what it still had to send is lost.
    pub fn close(&mut self, wire: usize, side: Side, now: Moment) {
        let at = now + self.shape.latency;
        let pipes = &mut self.wires[wire];
        let input = &mut pipes[1 - side];
        input.reader = Reader::Closed;
        let has_unread = !input.incoming.is_empty();
        input.incoming.clear();
        if input.is_reset {
            return;
        }
        if has_unread {
            pipes[side].send_reset(at);
        } else {
            self.end_stream(wire, side);
        }
    }

    /// Ends the stream, and reads the peer's to its end.
    pub fn part(&mut self, wire: usize, side: Side) {
        let input = &mut self.wires[wire][1 - side];
        input.reader = Reader::Parted;
        input.incoming.clear();
        self.end_stream(wire, side);
    }

    /// The host of this side is gone without a word.
    pub fn vanish(&mut self, wire: usize, side: Side) {
        let pipes = &mut self.wires[wire];
        pipes[1 - side].reader = Reader::Dead;
        pipes[1 - side].incoming.clear();
        pipes[side].outgoing.clear();
        pipes[side].fin = Fin::Sent;
    }

    /// Something in the middle resets the connection towards both.
    pub fn reset(&mut self, wire: usize) {
        self.cut(wire);
        for pipe in &mut self.wires[wire] {
            if self.random.one_in(2) {
                pipe.incoming.clear();
            }
        }
    }

    /// As `reset`, but whatever has arrived can be read.
    fn cut(&mut self, wire: usize) {
        for pipe in &mut self.wires[wire] {
            pipe.outgoing.clear();
            pipe.flight.clear();
            pipe.flying = 0;
            pipe.fin = Fin::Sent;
            pipe.is_reset = true;
        }
    }

    /// Whatever has arrived can be read, and then the end of the stream, or nothing.
    fn lose(&mut self, wire: usize, cut: Cut) {
        for pipe in &mut self.wires[wire] {
            pipe.outgoing.clear();
            pipe.flight.clear();
            pipe.flying = 0;
            pipe.is_lost = true;
            pipe.has_fin |= cut == Cut::Fin;
        }
        self.has_silenced |= cut == Cut::Silence;
    }

    /// Moves everything that moves at this moment.
    pub fn advance(&mut self, now: Moment) {
        for wire in 0..self.wires.len() {
            for direction in 0..2 {
                if !self.holes[direction] && !self.wires[wire][direction].is_quiet() {
                    self.transmit(wire, direction, now);
                    while self.arrive(wire, direction, now) {}
                    self.transmit(wire, direction, now);
                }
            }
        }
    }

    pub fn next(&self) -> Option<Moment> {
        let open = self.wires.iter().flat_map(|wire| wire.iter().enumerate());
        open.filter(|(direction, _)| !self.holes[*direction])
            .filter_map(|(_, pipe)| pipe.flight.front().map(|(at, _)| *at))
            .min()
    }

    fn transmit(&mut self, wire: usize, direction: Side, now: Moment) {
        let shape = self.shape;
        let pipe = &mut self.wires[wire][direction];
        if pipe.is_lost {
            pipe.outgoing.clear();
            pipe.flight.clear();
            pipe.fin = if pipe.fin == Fin::Wanted { Fin::Sent } else { pipe.fin };
            return;
        }
        while !pipe.outgoing.is_empty() {
            let room = shape.room.saturating_sub(pipe.flying + pipe.incoming.len());
            let most = room.min(shape.segment).min(pipe.outgoing.len());
            if most == 0 {
                return;
            }
            let length = self.random.size(1, most);
            let jitter = shape.jitter * u32::try_from(self.random.within(0, 99)).unwrap() / 100;
            let pace = Duration::from_secs(1) * u32::try_from(length).unwrap()
                / u32::try_from(shape.bytes_per_second).unwrap();
            pipe.last_at = pipe.last_at.max(now + shape.latency + jitter) + pace;
            let bytes = pipe.outgoing.drain(..length).collect();
            pipe.flying += length;
            pipe.flight.push_back((pipe.last_at, Piece::Bytes(bytes)));
        }
        if pipe.fin == Fin::Wanted {
            pipe.fin = Fin::Sent;
            pipe.last_at = pipe.last_at.max(now + shape.latency);
            pipe.flight.push_back((pipe.last_at, Piece::Fin));
        }
    }

    fn arrive(&mut self, wire: usize, direction: Side, now: Moment) -> bool {
        let answer_at = now + self.shape.latency;
        let pipes = &mut self.wires[wire];
        if pipes[direction].flight.front().is_none_or(|(at, _)| *at > now) {
            return false;
        }
        let (_, piece) = pipes[direction].flight.pop_front().expect("looked at");
        if let Piece::Bytes(bytes) = &piece {
            pipes[direction].flying -= bytes.len();
        }
        let answers = match pipes[direction].reader {
            Reader::Open => {
                self.received(wire, direction, piece);
                return true;
            }
            Reader::Closed => matches!(piece, Piece::Bytes(_)),
            Reader::Parted => false,
            Reader::Dead => self.is_server_host_up && !matches!(piece, Piece::Reset),
        };
        if answers && !pipes[direction].is_reset {
            // Its own reset is all that the sending side will hear.
            pipes[direction].is_reset = true;
            pipes[1 - direction].send_reset(answer_at);
        }
        true
    }

    fn received(&mut self, wire: usize, direction: Side, piece: Piece) {
        let pipes = &mut self.wires[wire];
        match piece {
            Piece::Bytes(mut bytes) => {
                let pipe = &mut pipes[direction];
                bytes.truncate(pipe.cut_in.map_or(usize::MAX, |(left, _)| left));
                pipe.cut_in = pipe.cut_in.map(|(left, cut)| (left - bytes.len(), cut));
                pipe.incoming.extend(bytes);
                match pipe.cut_in {
                    Some((0, Cut::Reset)) => self.cut(wire),
                    Some((0, cut)) => self.lose(wire, cut),
                    _ => {}
                }
            }
            Piece::Fin => pipes[direction].has_fin = true,
            Piece::Reset => {
                pipes[direction].is_reset = true;
                if self.random.one_in(2) {
                    pipes[direction].incoming.clear();
                }
                pipes[1 - direction].outgoing.clear();
                pipes[1 - direction].fin = Fin::Sent;
            }
        }
    }
}
