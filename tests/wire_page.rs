//! The examples of `docs/wire.md`, as the encoders write them. `NETASYNC_WRITE_DOCS=1` writes them, else
//! this test holds the page against the code.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use netasync::proto::classic::{HEARTBEAT, encode_header};
use netasync::proto::hello::{Hello, refusal, refuse};
use netasync::proto::options::Settings;
use netasync::proto::wire::{self, Goodbye, Numbers, close};

const BEGIN: &str = "<!-- written by tests/wire_page.rs -->\n";
const END: &str = "<!-- end -->\n";

fn control(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(&mut frame);
    frame
}

fn message(payload: &[u8]) -> Vec<u8> {
    [&encode_header(payload.len())[..], payload].concat()
}

fn hello(session: u8, token: u8) -> Vec<u8> {
    let options = Settings::default().check().unwrap();
    let offer = Hello::offer(&options, 1, options.read_buffer.max_bytes);
    Hello { session: [session; 16], token: [token; 16], ..offer }.encode()
}

fn examples() -> Vec<(&'static str, Vec<u8>)> {
    let numbers = Numbers { consumed: 3, credit: 4_194_600 };
    let goodbye = |code, words: &str| Goodbye { code, words: words.to_owned() };
    vec![
        ("`net.async`: the message `hello`", message(b"hello")),
        ("`net.async`: a heartbeat", HEARTBEAT.to_vec()),
        ("ours: the message `hello`", message(b"hello")),
        ("ours: an empty message", message(b"")),
        ("HELLO of a dialler, all defaults", hello(0, 0)),
        ("HELLO of a listener, session 0xaa…, token 0xbb…", hello(0xaa, 0xbb)),
        ("PING 7, 3 consumed", control(|into| wire::encode_ping(7, numbers, into))),
        ("PONG 7, 3 consumed", control(|into| wire::encode_pong(7, numbers, into))),
        ("ACK, 3 consumed", control(|into| wire::encode_ack(numbers, into))),
        ("ASK", control(wire::encode_ask)),
        ("CLOSE 0", control(|into| wire::encode_close(&goodbye(close::DONE, ""), into))),
        ("CLOSE 5 with words", control(|into| wire::encode_close(&goodbye(close::VOID, "no ACK"), into))),
        ("REFUSE 4", control(|into| wire::encode_refuse(&refusal(refuse::BUSY, "later"), into))),
    ]
}

fn table() -> String {
    let mut table = String::from("| frame | bytes |\n|---|---|\n");
    for (name, bytes) in examples() {
        let groups: Vec<String> =
            bytes.chunks(4).map(|chunk| chunk.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
        writeln!(table, "| {name} | `{}` |", groups.join(" ")).unwrap();
    }
    table
}

#[test]
fn the_examples_of_the_page_are_what_the_encoders_write() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/wire.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let expected = [head, BEGIN, &table(), END, tail].concat();
    if std::env::var("NETASYNC_WRITE_DOCS").is_ok_and(|value| value == "1") {
        std::fs::write(path, &expected).unwrap();
        return;
    }
    assert_eq!(page, expected, "NETASYNC_WRITE_DOCS=1 cargo test --no-default-features --test wire_page");
}

#[test]
fn every_example_is_read_as_it_was_written() {
    for (name, bytes) in examples() {
        let is_hello = bytes.starts_with(&[0x81]);
        let frame = wire::header(&bytes, 1 << 20).unwrap().unwrap();
        match frame {
            wire::Frame::Message(length) => assert_eq!(bytes.len(), 4 + length, "{name}"),
            wire::Frame::Control { length, .. } if is_hello => {
                assert!(Hello::decode(&bytes[4..4 + length]).is_ok(), "{name}");
            }
            wire::Frame::Control { kind: wire::REFUSE, .. } => {
                assert_eq!(wire::refusal(&bytes[4..]).unwrap().goodbye.code, 4)
            }
            wire::Frame::Control { kind, length } => {
                assert_eq!(bytes.len(), 4 + length);
                assert!(wire::control(kind, &bytes[4..]).is_ok(), "{name}");
            }
        }
    }
}
