//! The tables of `docs/wire.md` that can go stale: limits, examples and one whole conversation, as the encoders
//! and the two halves write them. `NETASYNC_WRITE_DOCS=1` writes them, else this test holds the page against the code.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netasync::proto::classic::{HARD_MAX_SIZE, HEADER, HEARTBEAT, encode_header};
use netasync::proto::control::After;
use netasync::proto::halves::{Front, Opened, Receiver, Sender};
use netasync::proto::hello::{Agreement, Answering, Asking, Hello, refusal, refuse};
use netasync::proto::options::{self, Options, Settings};
use netasync::proto::receipts::Goal;
use netasync::proto::session::TELL_WITHIN;
use netasync::proto::standing::{Known, Standing};
use netasync::proto::wire::{self, Frame, Goodbye, Numbers, close};
use netasync::proto::{Moment, cost};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/wire.md");
/// Of a longer frame the page shows the beginning.
const LONGEST_SHOWN: usize = 100;
const BEGINNING: usize = 12;
const SESSION: Known = Known { session: [0xaa; 16], token: [0xbb; 16] };

fn control(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(&mut frame);
    frame
}

fn message(payload: &[u8]) -> Vec<u8> {
    [&encode_header(payload.len())[..], payload].concat()
}

fn defaults() -> Options {
    Settings::default().check().unwrap()
}

fn hello(session: u8, token: u8) -> Vec<u8> {
    let options = defaults();
    let offer = Hello::offer(&options, 1, options.read_buffer.max_bytes);
    Hello { session: [session; 16], token: [token; 16], ..offer }.encode()
}

fn examples() -> Vec<(&'static str, Vec<u8>)> {
    let numbers = Numbers { consumed: 3, credit: 4_194_600 };
    let goodbye = |code, words: &str| Goodbye { code, words: words.to_owned() };
    vec![
        ("`net.async`: the message `hello`", message(b"hello")),
        ("`net.async`: a heartbeat", HEARTBEAT.to_vec()),
        ("`netasync/1`: the message `hello`", message(b"hello")),
        ("`netasync/1`: an empty message", message(b"")),
        ("HELLO of a dialler, all defaults", hello(0, 0)),
        ("HELLO of a listener, session 0xaa…, token 0xbb…", hello(0xaa, 0xbb)),
        ("PING 7, 3 consumed", control(|into| wire::encode_ping(7, numbers, into))),
        ("PONG 7, 3 consumed", control(|into| wire::encode_pong(7, numbers, into))),
        ("ACK, 3 consumed", control(|into| wire::encode_ack(numbers, into))),
        ("ASK", control(wire::encode_ask)),
        ("CLOSE 0", control(|into| wire::encode_close(&goodbye(close::DONE, ""), into))),
        ("CLOSE 5 with a text", control(|into| wire::encode_close(&goodbye(close::VOID, "no ACK"), into))),
        ("REFUSE 4", control(|into| wire::encode_refuse(&refusal(refuse::BUSY, "later"), into))),
        ("REFUSE 6, 3 consumed", control(|into| wire::encode_refuse_closed(3, "over", into))),
    ]
}

fn hex(bytes: &[u8]) -> String {
    let groups: Vec<String> =
        bytes.chunks(4).map(|chunk| chunk.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    groups.join(" ")
}

fn examples_table() -> String {
    let mut table = String::from("| frame | bytes |\n|---|---|\n");
    for (name, bytes) in examples() {
        writeln!(table, "| {name} | `{}` |", hex(&bytes)).unwrap();
    }
    table
}

/// The longest body that a header of this kind may announce.
fn longest_body(kind: u8) -> usize {
    let is_legal = |length: u32| {
        let [_, high, middle, low] = length.to_be_bytes();
        wire::header(&[0x80 | kind, high, middle, low], HARD_MAX_SIZE).is_ok()
    };
    // Whoever announces less than what is legal is legal.
    let (mut legal, mut illegal) = (0, 1 << 24);
    while illegal - legal > 1 {
        let middle = u32::midpoint(legal, illegal);
        *(if is_legal(middle) { &mut legal } else { &mut illegal }) = middle;
    }
    usize::try_from(legal).unwrap()
}

/// The longest body of HELLO that is not refused for its length.
fn longest_hello() -> usize {
    let extended = |length: usize| {
        let mut frame = hello(0, 0);
        while frame.len() < HEADER + length {
            let value = (HEADER + length - frame.len()).saturating_sub(3).min(60_000);
            frame.extend([0x7f]);
            frame.extend(u16::try_from(value).unwrap().to_be_bytes());
            frame.resize(frame.len() + value, 0);
        }
        let body = frame.len() - HEADER;
        frame[1..4].copy_from_slice(&u32::try_from(body).unwrap().to_be_bytes()[1..]);
        (body, matches!(Answering::new().offered(&frame), Ok(Some(_))))
    };
    let accepted = (4000..4200).map(extended).filter_map(|(body, is_accepted)| is_accepted.then_some(body));
    accepted.max().unwrap()
}

fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
    groups.join(" ")
}

fn limits_table() -> String {
    let options = defaults();
    let bytes = |count: usize| format!("{} bytes", grouped(count));
    let size = |count: u64| bytes(usize::try_from(count).unwrap());
    let others = (wire::HELLO..=0x7f).filter(|kind| *kind != wire::PART);
    let bodies: BTreeSet<usize> =
        others.filter(|kind| wire::header(&[0x80 | kind, 0, 0, 0], 0).is_ok()).map(longest_body).collect();
    assert_eq!(bodies.len(), 1, "all the other control frames have one limit");
    let rows = [
        ("longest message, whatever `max_size` says", bytes(HARD_MAX_SIZE)),
        ("longest body of PART", bytes(longest_body(wire::PART))),
        ("longest body of every other control frame", bytes(*bodies.first().unwrap())),
        ("longest body of HELLO", bytes(longest_hello())),
        ("a longer message travels in PARTs", bytes(wire::MAX_PART)),
        ("cost of an empty message", cost(0).to_string()),
        ("a consumption is reported within", format!("{} ms", TELL_WITHIN.as_millis())),
        ("default of `max_size`", bytes(options.max_size)),
        ("default of the window, and of `hold`", format!("{} of cost", size(options.read_buffer.max_bytes))),
        ("default of `max_messages`", grouped(options.read_buffer.count)),
        ("default of `heartbeat_interval`", format!("{} s", options.heartbeat_interval.as_secs_f64())),
        ("default of `heartbeat_timeout`", format!("{} s", options.heartbeat_timeout.as_secs_f64())),
        ("default of `open_timeout`", format!("{} s", options.open_timeout.as_secs_f64())),
        ("default of `close_timeout`", format!("{} s", options.close_timeout.as_secs_f64())),
        ("default of `session_timeout`", format!("{} s", options.session_timeout.as_secs_f64())),
        ("default of `max_sessions`", grouped(usize::try_from(options::MAX_SESSIONS).unwrap())),
        ("default of `max_held_bytes`", size(options::MAX_HELD_BYTES)),
        ("default of the longest back-off", format!("{} s", options::BACKOFF_MAXIMUM)),
    ];
    assert_eq!(options.read_buffer.max_bytes, options.write_buffer.max_bytes);
    let mut table = String::from("| what | limit |\n|---|---|\n");
    for (what, limit) in rows {
        writeln!(table, "| {what} | {limit} |").unwrap();
    }
    table
}

/// One end of the conversation: what ships, without sockets and time.
struct End {
    name: char,
    options: Options,
    receiver: Receiver,
    sender: Sender,
    taken: Vec<Vec<u8>>,
}

/// When the whole conversation happens.
const NOW: Moment = Duration::ZERO;

impl End {
    fn new(name: char) -> Self {
        let options = defaults();
        let (receiver, sender) = (Receiver::new(&options, NOW), Sender::new(&options, NOW));
        Self { name, options, receiver, sender, taken: Vec::new() }
    }

    fn up(&mut self, agreement: &Agreement) {
        self.receiver.link_up(&self.options, Opened { agreement: Some(agreement), first_by: None, now: NOW });
        self.sender.link_up(Some(agreement), NOW);
    }

    fn down(&mut self) {
        self.receiver.link_down();
        self.sender.link_down();
    }

    fn standing(&self) -> Standing {
        self.receiver.standing(&self.sender)
    }

    /// Everything that may be written now, in one write.
    fn write(&mut self) -> Vec<u8> {
        self.sender.compose(self.receiver.numbers());
        let bytes = self.sender.parts().concat();
        self.sender.wrote(bytes.len(), NOW);
        bytes
    }

    fn read(&mut self, bytes: &[u8]) {
        self.receiver.feed(bytes, self.sender.announced(), NOW);
        while let Some(control) = self.receiver.next_for_sender() {
            self.sender.hear(&control, NOW).unwrap();
        }
        if let Some(goodbye) = self.receiver.take_goodbye().filter(|_| !self.sender.has_closed()) {
            self.sender.close(Goodbye { code: goodbye.code, words: String::new() }, After::WhatMayBegin);
        }
        assert!(self.receiver.fault().is_none());
    }

    /// The application takes what lies there, and an ACK that is due goes out with the next write.
    fn take(&mut self) {
        while let Some(Front::Message(payload)) = self.receiver.front() {
            self.taken.push(payload.to_vec());
            self.receiver.pop();
        }
        if self.receiver.must_tell(self.sender.announced()) {
            self.sender.ack();
        }
    }

    fn send(&mut self, payload: &[u8]) {
        self.sender.push(payload);
    }
}

/// Both ends, and the page that is written while they talk.
struct Conversation {
    dialler: End,
    listener: End,
    page: String,
}

impl Conversation {
    fn new() -> Self {
        let page = String::from("| | frame | bytes |\n|---|---|---|\n");
        Self { dialler: End::new('>'), listener: End::new('<'), page }
    }

    fn note(&mut self, what: &str) {
        writeln!(self.page, "| | *{what}* | |").unwrap();
    }

    fn show(&mut self, from: char, bytes: &[u8]) {
        for (name, frame) in frames(bytes) {
            let shown = match frame {
                _ if frame.len() <= LONGEST_SHOWN => format!("`{}`", hex(frame)),
                _ => format!("`{}` … ({} bytes in all)", hex(&frame[..BEGINNING]), grouped(frame.len())),
            };
            writeln!(self.page, "| `{from}` | {name} | {shown} |").unwrap();
        }
    }

    fn dialler_writes(&mut self) {
        let bytes = self.dialler.write();
        self.show(self.dialler.name, &bytes);
        self.listener.read(&bytes);
    }

    fn listener_writes(&mut self) {
        let bytes = self.listener.write();
        self.show(self.listener.name, &bytes);
        self.dialler.read(&bytes);
    }

    fn greet(&mut self) {
        let (bytes, mut asking) =
            Asking::new(Hello::offer(&self.dialler.options, 1, self.dialler.receiver.first_credit()));
        self.show('>', &bytes);
        let mut answering = Answering::new();
        let offer = answering.offered(&bytes).ok().flatten().unwrap();
        let Known { session, token } = SESSION;
        let first_credit = self.listener.receiver.first_credit();
        let ours = Hello { session, token, ..Hello::offer(&self.listener.options, offer.link, first_credit) };
        let bytes = answering.answer(&offer, &ours);
        self.show('<', &bytes);
        let (agreement, _) = asking.feed(&bytes).unwrap().unwrap();
        self.dialler.up(&agreement);
        let bytes = self.dialler.write();
        self.show('>', &bytes);
        let (agreement, rest) = answering.confirmed(&bytes).ok().flatten().unwrap();
        self.listener.up(&agreement);
        self.listener.read(&rest);
    }

    fn resume(&mut self) {
        let standing = self.dialler.standing();
        let offer = Hello::resume(&self.dialler.options, 2, SESSION, &standing);
        let (bytes, mut asking) = Asking::resume(offer, standing);
        self.show('>', &bytes);
        let offer = Answering::new().offered(&bytes).ok().flatten().unwrap();
        let standing = self.listener.standing();
        let ours = Hello::resume(&self.listener.options, offer.link, SESSION, &standing);
        let (bytes, agreement) = Answering::resume(&offer, &ours, &standing).ok().unwrap();
        self.show('<', &bytes);
        self.listener.up(&agreement);
        let (agreement, _) = asking.feed(&bytes).unwrap().unwrap();
        assert!(agreement.is_resumed);
        self.dialler.up(&agreement);
    }

    /// The listener's write is cut behind the first `count` bytes of its message.
    fn cut_listener(&mut self, count: usize) {
        let bytes = self.listener.write();
        self.show('<', &bytes);
        self.dialler.read(&bytes[..count]);
        self.note(&format!("the link breaks behind {count} of these {} bytes", bytes.len()));
        self.dialler.down();
        self.listener.down();
    }
}

/// The frames in `bytes`, each with what the page calls it.
fn frames(mut bytes: &[u8]) -> Vec<(String, &[u8])> {
    let mut frames = Vec::new();
    let (mut is_within, mut is_first) = (false, true);
    while let Some(frame) = wire::header(bytes, HARD_MAX_SIZE).unwrap() {
        let length = match frame {
            Frame::Message(length) | Frame::Control { length, .. } => HEADER + length,
        };
        let (whole, rest) = bytes.split_at(length);
        frames.push((named(frame, &whole[HEADER..], is_within, is_first), whole));
        is_within = matches!(frame, Frame::Control { kind: wire::PART, .. });
        (bytes, is_first) = (rest, false);
    }
    assert!(bytes.is_empty());
    frames
}

fn named(frame: Frame, body: &[u8], is_within: bool, is_first: bool) -> String {
    let told = |Numbers { consumed, credit }: Numbers| {
        format!("{consumed} consumed, credit {}", grouped(usize::try_from(credit).unwrap()))
    };
    let kind = match frame {
        Frame::Message(length) if is_within => return format!("the last {} bytes of it", grouped(length)),
        Frame::Message(0) => return String::from("an empty message"),
        Frame::Message(_) => return format!("the message `{}`", String::from_utf8_lossy(body)),
        Frame::Control { kind, .. } => kind,
    };
    match kind {
        wire::HELLO => {
            assert!(is_first);
            let hello = Hello::decode(body).ok().unwrap();
            format!("HELLO, link {}, received {}", hello.link, hello.received)
        }
        wire::PART => {
            let length: [u8; 4] = body[..4].try_into().unwrap();
            format!("PART, the beginning of a message of {} bytes", grouped(u32::from_be_bytes(length) as usize))
        }
        kind => match wire::control(kind, body).unwrap() {
            wire::Control::Ping { nonce, numbers } => format!("PING {nonce}, {}", told(numbers)),
            wire::Control::Pong { nonce, numbers } => format!("PONG {nonce}, {}", told(numbers)),
            wire::Control::Ack(numbers) => format!("ACK, {}", told(numbers)),
            wire::Control::Ask => String::from("ASK"),
            wire::Control::Close(goodbye) => format!("CLOSE {}", goodbye.code),
            other => panic!("{other:?}"),
        },
    }
}

/// A greeting, messages both ways, a cut in the middle of one, a resume, a large message, and the goodbye.
fn conversation() -> Conversation {
    let mut talk = Conversation::new();
    talk.dialler.send(b"hello");
    talk.dialler.send(b"");
    talk.greet();
    talk.listener_writes();
    talk.dialler_writes();
    talk.note("the listener's application takes `hello` and sends `welcome`");
    talk.listener.taken.push(match talk.listener.receiver.front() {
        Some(Front::Message(payload)) => payload.to_vec(),
        other => panic!("{other:?}"),
    });
    talk.listener.receiver.pop();
    talk.listener.send(b"welcome");
    talk.cut_listener(6);
    talk.note("the dialler returns: the listener has received 2 messages, the dialler none");
    talk.resume();
    talk.listener_writes();
    talk.dialler_writes();
    talk.listener_writes();
    talk.note("the dialler's application takes `welcome`, and sends `taken?` with an ASK behind it");
    talk.dialler.take();
    talk.dialler.send(b"taken?");
    let _ = talk.dialler.sender.want(Goal::Consumed);
    talk.dialler_writes();
    talk.note("the listener's application takes everything, and sends 262 150 bytes");
    talk.listener.take();
    talk.listener.send(&[b'x'; 262_150]);
    talk.listener_writes();
    talk.note("the dialler's application takes them and closes");
    talk.dialler.take();
    talk.dialler.receiver.close();
    talk.dialler.sender.close(Goodbye { code: close::DONE, words: String::new() }, After::Everything);
    talk.dialler_writes();
    talk.listener_writes();
    talk.note("each side ends its stream and reads to the end of the other");
    talk
}

fn written() -> [(&'static str, String); 3] {
    [("limits", limits_table()), ("examples", examples_table()), ("conversation", conversation().page)]
}

#[test]
fn the_tables_of_the_page_are_what_the_code_says() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let mut expected = page.clone();
    for (name, table) in written() {
        let (begin, end) =
            (format!("<!-- {name}: written by tests/wire_page.rs -->\n"), format!("<!-- end of {name} -->\n"));
        let (head, rest) = expected.split_once(&begin).unwrap();
        let (_, tail) = rest.split_once(&end).unwrap();
        expected = [head, &begin, &table, &end, tail].concat();
    }
    if std::env::var("NETASYNC_WRITE_DOCS").is_ok_and(|value| value == "1") {
        std::fs::write(PAGE, &expected).unwrap();
        return;
    }
    assert_eq!(page, expected, "NETASYNC_WRITE_DOCS=1 cargo test --no-default-features --test wire_page");
}

#[test]
fn the_page_has_every_frame_and_every_code() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (_, sessions) = page.split_once("## 2. ").unwrap();
    let (handshake, _) = sessions.split_once("## 3. ").unwrap();
    let (_, ending) = page.split_once("## 7. ").unwrap();
    let names = ["HELLO", "PING", "PONG", "ACK", "PART", "CLOSE", "REFUSE", "ASK", "MOVE"];
    for (kind, name) in (wire::HELLO..=wire::MOVE).zip(names) {
        assert!(handshake.contains(&format!("\n| {kind:#04x} | {name} | ")), "{name}");
    }
    for code in refuse::VERSION..=refuse::IDENTITY {
        assert!(handshake.contains(&format!("\n| {code} | ")), "REFUSE {code}");
    }
    for code in [close::DONE, close::FAULT, close::ABORTED, close::BUSY, close::VOID] {
        assert!(ending.contains(&format!("\n| {code} | ")), "CLOSE {code}");
    }
    assert!(ending.contains(&format!("\n| {}, and every unknown code | ", close::LEAVING)));
}

#[test]
fn every_example_is_read_as_it_was_written() {
    for (name, bytes) in examples() {
        let is_hello = bytes.starts_with(&[0x81]);
        let frame = wire::header(&bytes, 1 << 20).unwrap().unwrap();
        match frame {
            Frame::Message(length) => assert_eq!(bytes.len(), HEADER + length, "{name}"),
            Frame::Control { length, .. } if is_hello => {
                assert!(Hello::decode(&bytes[HEADER..HEADER + length]).is_ok(), "{name}");
            }
            Frame::Control { kind: wire::REFUSE, .. } => {
                let refusal = wire::refusal(&bytes[HEADER..]).unwrap();
                let expected = if refusal.goodbye.code == refuse::CLOSED { Some(3) } else { None };
                assert_eq!(refusal.consumed, expected);
            }
            Frame::Control { kind, length } => {
                assert_eq!(bytes.len(), HEADER + length);
                assert!(wire::control(kind, &bytes[HEADER..]).is_ok(), "{name}");
            }
        }
    }
}

#[test]
fn in_the_conversation_of_the_page_everything_arrives_once_and_is_confirmed() {
    let Conversation { dialler, listener, .. } = conversation();
    let kept = |end: &End| (end.sender.queued(), end.sender.unconfirmed());
    assert_eq!(listener.taken, [&b"hello"[..], b"", b"taken?"]);
    assert_eq!(dialler.taken, [b"welcome".to_vec(), vec![b'x'; 262_150]]);
    assert_eq!((kept(&dialler), kept(&listener)), ((0, 0), (0, 0)));
    assert_eq!(dialler.receiver.numbers().credit, defaults().read_buffer.max_bytes + cost(7) + cost(262_150));
    assert!(dialler.receiver.has_heard_goodbye() && listener.receiver.has_heard_goodbye());
}

/// Rust and Python, comments included.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let extension = entry.extension().unwrap_or_default().to_string_lossy().into_owned();
        if entry.is_dir() {
            sources(&entry, into);
        } else if ["rs", "py", "pyi", "md", "mjs"].contains(&extension.as_str()) {
            into.push(entry);
        }
    }
}

#[test]
fn every_section_of_the_page_that_a_comment_names_exists() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let headings: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## ").or(line.strip_prefix("### ")))
        .filter_map(|heading| heading.split(' ').next())
        .map(|number| number.trim_end_matches('.'))
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("docs/wire.md"), root.join("README.md")];
    ["src", "tests", "python", "docs/decisions", "fuzz/fuzz_targets"]
        .iter()
        .map(|folder| root.join(folder))
        .filter(|folder| folder.is_dir())
        .for_each(|folder| sources(&folder, &mut files));
    let mut found = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let is_page = file.ends_with("docs/wire.md");
        for line in text.lines().filter(|line| is_page || line.contains("wire.md`")) {
            for reference in line.split('§').skip(1) {
                let number: String =
                    reference.chars().take_while(|letter| letter.is_ascii_digit() || *letter == '.').collect();
                let number = number.trim_end_matches('.');
                if number.is_empty() {
                    continue;
                }
                assert!(headings.contains(number), "{}: {line}", file.display());
                found += 1;
            }
        }
    }
    assert!(found > 50, "{found} references were found");
}
