//! Any bytes for a greeting: both sides of the conversation, cut anyhow, come to the same end; and what
//! was read as a HELLO is written as the same one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netasync::proto::hello::{Answering, Asking, Hello, NoAgreement};
use netasync::proto::options::{Options, Settings};
use netasync_fuzz::{Choices, pieces};

fn options() -> Options {
    Settings::default().check().expect("the defaults make sense")
}

/// How an answer was understood: the bytes behind it, or why there is no link.
fn ask(input: &[&[u8]]) -> Result<Option<Vec<u8>>, String> {
    let (_, mut asking) = Asking::new(Hello::offer(&options(), 1, 1 << 20));
    let mut behind: Option<Vec<u8>> = None;
    for piece in input {
        match &mut behind {
            Some(rest) => rest.extend_from_slice(piece),
            None => behind = asking.feed(piece).map_err(|failure| failure.fault.detail)?.map(|(_, rest)| rest),
        }
    }
    Ok(behind)
}

/// An offer, then the first frame behind the answer.
fn answer(offer: &[&[u8]], first: &[&[u8]]) -> Option<usize> {
    let mut answering = Answering::new();
    for piece in offer {
        match answering.offered(piece) {
            Ok(None) => {}
            Ok(Some(hello)) => {
                let ours = Hello { session: [1; 16], token: [2; 16], ..Hello::offer(&options(), hello.link, 1) };
                assert!(!answering.answer(&hello, &ours).is_empty());
                return confirm(&mut answering, first);
            }
            Err(NoAgreement::Refuse(goodbye)) => return Some(usize::from(goodbye.code)),
            Err(NoAgreement::Silent(_)) => return Some(1000),
        }
    }
    None
}

fn confirm(answering: &mut Answering, first: &[&[u8]]) -> Option<usize> {
    let mut behind = None;
    for piece in first {
        match (behind, answering.confirmed(piece)) {
            (Some(length), _) => behind = Some(length + piece.len()),
            (None, Err(_)) => return Some(2000),
            (None, Ok(agreed)) => behind = agreed.map(|(_, rest)| rest.len()),
        }
    }
    behind.map(|length| length + 3000)
}

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let cuts = choices.array::<4>();
    let bytes = choices.rest();
    assert_eq!(ask(&pieces(bytes, &cuts)).is_ok(), ask(&[bytes]).is_ok());
    // A HELLO in pieces must not be followed by anything, so the frame behind the answer comes by itself.
    let length = bytes.get(1..4).map_or(0, |length| usize::from(length[1]) << 8 | usize::from(length[2])) + 4;
    let (offer, first) = bytes.split_at(length.min(bytes.len()));
    let whole = answer(&[offer], &[first]);
    let cut = answer(&pieces(offer, &cuts), &pieces(first, &cuts));
    assert_eq!(cut, whole);
    if let Ok(hello) = Hello::decode(bytes) {
        let again = Hello::decode(&hello.encode()[4..]);
        assert!(again.is_ok_and(|again| again == hello));
    }
});
