//! WebSocket frames: known vectors, every split point, and clients that break the rules.

use std::borrow::Cow;

use homewire_core::wire::frame::{
    Decoder, Incoming, Opcode, Violation, append_close, append_frame, append_framed, append_header,
    header_len, is_close_code,
};
use proptest::collection::vec;
use proptest::prelude::*;

const LIMIT: usize = 1_000;
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

// ---- a client -------------------------------------------------------------------------------

/// A masked frame as a client writes it, from the first byte (FIN, reserved bits, opcode) on.
fn client_frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    append_header(&mut frame, Opcode::Text, payload.len());
    frame[0] = first;
    frame[1] |= 0x80;
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
    frame
}

fn last(opcode: u8, payload: &[u8]) -> Vec<u8> {
    client_frame(0x80 | opcode, payload, MASK)
}

fn fragment(opcode: u8, payload: &[u8]) -> Vec<u8> {
    client_frame(opcode, payload, MASK)
}

/// Everything a decoder said about an input: what it reported, and how it ended.
#[derive(Debug, PartialEq)]
struct Heard {
    incoming: Vec<Incoming<'static>>,
    violation: Option<Violation>,
}

fn feed(decoder: &mut Decoder, piece: &[u8], heard: &mut Heard) {
    let mut bytes = piece.to_vec();
    let mut rest = bytes.as_mut_slice();
    loop {
        match decoder.decode(&mut rest) {
            Ok(Some(incoming)) => heard.incoming.push(owned(incoming)),
            Ok(None) => break,
            Err(violation) => {
                assert_eq!(heard.violation.replace(violation), None, "reported twice");
            }
        }
    }
    assert!(rest.is_empty(), "input left over");
}

fn owned(incoming: Incoming<'_>) -> Incoming<'static> {
    let own = |payload: Cow<'_, [u8]>| Cow::Owned(payload.into_owned());
    match incoming {
        Incoming::Text(payload) => Incoming::Text(own(payload)),
        Incoming::Binary(payload) => Incoming::Binary(own(payload)),
        Incoming::Ping(payload) => Incoming::Ping(own(payload)),
        Incoming::Pong(payload) => Incoming::Pong(own(payload)),
        Incoming::Close { code, reason } => Incoming::Close {
            code,
            reason: Cow::Owned(reason.into_owned()),
        },
    }
}

fn hear_pieces<'a>(mut decoder: Decoder, pieces: impl IntoIterator<Item = &'a [u8]>) -> Heard {
    let mut heard = Heard {
        incoming: Vec::new(),
        violation: None,
    };
    for piece in pieces {
        feed(&mut decoder, piece, &mut heard);
    }
    heard
}

fn hear(bytes: &[u8]) -> Heard {
    hear_pieces(Decoder::new(LIMIT), [bytes])
}

fn violation(bytes: &[u8]) -> Option<u16> {
    hear(bytes).violation.map(|violation| violation.code)
}

/// How many bytes of the input arrive, one by one, up to the violation.
fn violates_at(bytes: &[u8]) -> Option<usize> {
    let mut decoder = Decoder::new(LIMIT);
    bytes.iter().position(|&byte| {
        let mut piece = [byte];
        let mut rest = piece.as_mut_slice();
        decoder.decode(&mut rest).is_err()
    })
}

// ---- the server's frames --------------------------------------------------------------------

#[test]
fn headers_have_the_minimal_length() {
    for (len, expected) in [
        (0, &[0x81, 0][..]),
        (125, &[0x81, 125]),
        (126, &[0x81, 126, 0, 126]),
        (65_535, &[0x81, 126, 0xFF, 0xFF]),
        (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let mut out = Vec::new();
        append_header(&mut out, Opcode::Text, len);
        assert_eq!(out, expected);
        assert_eq!(header_len(len), expected.len());
    }
}

#[test]
fn the_frames_of_the_rfc() {
    let mut out = Vec::new();
    append_frame(&mut out, Opcode::Text, b"Hello");
    append_frame(&mut out, Opcode::Ping, b"Hello");
    assert_eq!(out, b"\x81\x05Hello\x89\x05Hello");
    let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    assert_eq!(hear(masked).incoming, [Incoming::Text(b"Hello".into())]);
}

#[test]
fn framing_in_place_equals_framing_a_copy() {
    for len in [0, 1, 125, 126, 127, 4_096, 65_535, 65_536, 70_000] {
        let payload: Vec<u8> = (0..len).map(|n: usize| n as u8).collect();
        let (mut expected, mut out) = (b"before".to_vec(), b"before".to_vec());
        append_frame(&mut expected, Opcode::Text, &payload);
        append_framed(&mut out, Opcode::Text, |out| {
            out.extend_from_slice(&payload)
        });
        assert_eq!(out, expected, "payload of {len} bytes");
    }
}

#[test]
fn close_reasons_are_cut_between_characters() {
    let mut out = Vec::new();
    append_close(&mut out, 4_000, "bye");
    assert_eq!(out, b"\x88\x05\x0f\xa0bye");
    out.clear();
    append_close(&mut out, 1_000, &"é".repeat(100));
    assert_eq!(out[1], 2 + 122, "61 characters of two bytes each");
    assert_eq!(&out[4..], "é".repeat(61).as_bytes());
}

// ---- what is allowed ------------------------------------------------------------------------

#[test]
fn control_frames_interleave_with_fragments() {
    let bytes = [
        fragment(1, "caf\u{e9}".as_bytes().split_at(4).0),
        last(9, b"ts=1"),
        fragment(0, b""),
        last(10, b""),
        last(0, b"\xa9"),
        last(2, b"\xff"),
    ]
    .concat();
    let expected = [
        Incoming::Ping(b"ts=1".into()),
        Incoming::Pong(b"".into()),
        Incoming::Text("café".as_bytes().into()),
        Incoming::Binary(b"\xff".into()),
    ];
    assert_eq!(hear(&bytes).incoming, expected);
    assert_eq!(hear(&bytes).violation, None);
}

#[test]
fn every_length_form_is_unmasked_right() {
    for len in [0, 1, 7, 8, 9, 125, 126, 65_535, 65_536, 65_541] {
        let payload: Vec<u8> = (0..len).map(|n: usize| (n / 3) as u8).collect();
        let heard = hear_pieces(Decoder::new(1 << 20), [&last(2, &payload)[..]]);
        assert_eq!(heard.incoming, [Incoming::Binary(payload.into())]);
    }
}

#[test]
fn a_whole_ping_is_borrowed_and_nothing_is_kept() {
    let mut decoder = Decoder::new(LIMIT);
    let mut bytes = [last(9, b"ping"), last(1, b"text")].concat();
    let mut rest = bytes.as_mut_slice();
    for _ in 0..2 {
        let incoming = decoder.decode(&mut rest);
        assert!(
            matches!(
                incoming,
                Ok(Some(
                    Incoming::Ping(Cow::Borrowed(_)) | Incoming::Text(Cow::Borrowed(_))
                ))
            ),
            "{incoming:?}"
        );
        assert_eq!(decoder.buffered_bytes(), 0);
    }
}

#[test]
fn memory_follows_what_arrived_and_is_freed_with_the_message() {
    let mut decoder = Decoder::new(1 << 20);
    let mut heard = Heard {
        incoming: Vec::new(),
        violation: None,
    };
    let message = last(1, &[b'x'; 1 << 20]);
    feed(&mut decoder, &message[..20], &mut heard);
    assert!((1..1_000).contains(&decoder.buffered_bytes()));
    feed(&mut decoder, &message[20..], &mut heard);
    assert_eq!(decoder.buffered_bytes(), 0);
    let pong = last(10, b"pong");
    feed(&mut decoder, &pong[..8], &mut heard);
    assert!(decoder.buffered_bytes() > 0);
    feed(&mut decoder, &pong[8..], &mut heard);
    assert_eq!(decoder.buffered_bytes(), 0);
    // A control frame in pieces inside of a fragmented message leaves the message alone.
    feed(&mut decoder, &fragment(1, b"a"), &mut heard);
    let ping = last(9, b"ping");
    feed(&mut decoder, &ping[..8], &mut heard);
    feed(&mut decoder, &ping[8..], &mut heard);
    assert!(decoder.buffered_bytes() > 0);
    feed(&mut decoder, &last(0, b"b"), &mut heard);
    assert_eq!(decoder.buffered_bytes(), 0);
    let expected = [
        Incoming::Pong(b"pong".into()),
        Incoming::Ping(b"ping".into()),
        Incoming::Text(b"ab".into()),
    ];
    assert_eq!(heard.incoming[1..], expected);
    // And the end of the conversation frees a message that will never be complete.
    feed(&mut decoder, &fragment(1, b"a"), &mut heard);
    feed(&mut decoder, &last(8, b""), &mut heard);
    assert!(decoder.is_finished());
    assert_eq!(decoder.buffered_bytes(), 0);
    assert_eq!(heard.violation, None);
}

#[test]
fn an_idle_decoder_is_small() {
    assert!(size_of::<Decoder>() <= 48, "{}", size_of::<Decoder>());
}

#[test]
fn messages_up_to_the_limit_pass() {
    let whole = last(1, &[b'x'; LIMIT]);
    assert_eq!(violation(&whole), None);
    let fragments = [fragment(1, &[b'x'; LIMIT - 1]), last(0, b"x")].concat();
    assert_eq!(hear(&fragments).incoming.len(), 1);
}

#[test]
fn a_discarding_decoder_keeps_the_rules_and_nothing_else() {
    let messages = [
        last(1, b"whole"),
        fragment(2, &[0xFF; 300]),
        last(9, b"ping"),
        last(0, &[0xFF; 300]),
    ]
    .concat();
    let mut decoder = Decoder::discarding(LIMIT);
    let mut heard = Heard {
        incoming: Vec::new(),
        violation: None,
    };
    for byte in &messages {
        feed(&mut decoder, &[*byte], &mut heard);
        assert!(decoder.buffered_bytes() < 150, "payload was stored");
    }
    assert_eq!(heard.incoming, [Incoming::Ping(b"ping".into())]);
    assert_eq!(decoder.buffered_bytes(), 0);

    let too_big = [fragment(1, &[b'x'; LIMIT]), fragment(0, b"x")].concat();
    for (bytes, code) in [
        (too_big, 1009),
        (last(1, b"\xff"), 1007),
        (vec![0x81, 0], 1002),
    ] {
        let heard = hear_pieces(Decoder::discarding(LIMIT), [&bytes[..]]);
        assert_eq!(heard.violation.map(|violation| violation.code), Some(code));
    }
}

// ---- what is not ----------------------------------------------------------------------------

#[test]
fn broken_frames_are_protocol_errors() {
    let long_ping = last(9, &[0; 126]);
    for (what, bytes) in [
        ("unmasked", b"\x81\x05Hello".to_vec()),
        ("reserved bit 1", client_frame(0xC1, b"", MASK)),
        ("reserved bit 2", client_frame(0xA1, b"", MASK)),
        ("reserved bit 3", client_frame(0x91, b"", MASK)),
        ("opcode 3", last(3, b"")),
        ("opcode 7", last(7, b"")),
        ("opcode 11", last(11, b"")),
        ("opcode 15", last(15, b"")),
        ("fragmented ping", fragment(9, b"")),
        ("fragmented close", fragment(8, b"")),
        ("long ping", long_ping),
        ("continuation alone", last(0, b"x")),
        (
            "continuation after the end",
            [last(1, b"x"), last(0, b"x")].concat(),
        ),
        (
            "text in a message",
            [fragment(1, b"x"), last(1, b"x")].concat(),
        ),
        (
            "binary in a text",
            [fragment(1, b"x"), fragment(2, b"x")].concat(),
        ),
        ("125 in 16 bits", vec![0x82, 0xFE, 0, 125]),
        (
            "65535 in 64 bits",
            vec![0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF],
        ),
        ("top bit", vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("close of one byte", last(8, b"\x03")),
    ] {
        assert_eq!(violation(&bytes), Some(1002), "{what}");
    }
}

#[test]
fn a_message_too_big_is_refused_by_its_header() {
    let header_and_no_mask = &last(2, &[0; LIMIT + 1])[..4];
    assert_eq!(violation(header_and_no_mask), Some(1009));
    let after_a_fragment = [fragment(1, &[b'x'; LIMIT - 99]), fragment(0, &[b'x'; 100])].concat();
    let header_end = after_a_fragment.len() - 100 - 4;
    assert_eq!(violates_at(&after_a_fragment), Some(header_end - 1));
    assert_eq!(violation(&after_a_fragment), Some(1009));
    // Far beyond 32 bits; nothing may wrap round.
    let huge = [0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
    assert_eq!(violation(&huge), Some(1009));
    let wraps_in_32_bits = [0x82, 0xFF, 0, 0, 0, 1, 0, 0, 0, 5];
    assert_eq!(violation(&wraps_in_32_bits), Some(1009));
    let unlimited = hear_pieces(Decoder::new(usize::MAX), [&huge[..]]);
    assert_eq!(unlimited.violation.map(|it| it.code), Some(1009));
}

#[test]
fn close_codes() {
    let allowed = |code: u16| {
        (1000..=1003).contains(&code)
            || (1007..=1014).contains(&code)
            || (3000..=4999).contains(&code)
    };
    for code in 0..=u16::MAX {
        assert_eq!(is_close_code(code), allowed(code));
        let heard = hear(&last(8, &[&code.to_be_bytes()[..], b"why"].concat()));
        if allowed(code) {
            let expected = Incoming::Close {
                code: Some(code),
                reason: "why".into(),
            };
            assert_eq!(heard.incoming, [expected]);
        } else {
            assert_eq!(heard.violation.map(|it| it.code), Some(1002), "code {code}");
        }
    }
    assert_eq!(violation(&last(8, b"\x03\xe8\xff")), Some(1007));
    let empty = Incoming::Close {
        code: None,
        reason: "".into(),
    };
    assert_eq!(hear(&last(8, b"")).incoming, [empty]);
}

#[test]
fn nothing_is_taken_after_a_close_or_a_violation() {
    for end in [last(8, b""), last(3, b"")] {
        let bytes = [last(9, b"1"), end, last(9, b"2"), last(3, b"")].concat();
        let mut decoder = Decoder::new(LIMIT);
        let mut heard = Heard {
            incoming: Vec::new(),
            violation: None,
        };
        feed(&mut decoder, &bytes, &mut heard);
        feed(&mut decoder, &last(9, b"3"), &mut heard);
        assert!(decoder.is_finished());
        let pings = heard
            .incoming
            .iter()
            .filter(|it| matches!(it, Incoming::Ping(_)));
        assert_eq!(pings.count(), 1);
    }
}

// ---- text is UTF-8, at every moment ---------------------------------------------------------

/// A text and the place of the first byte that cannot stand there.
const BROKEN_TEXTS: [(&[u8], usize); 14] = [
    (b"\x80", 0),
    (b"a\xC0\xAF", 1),
    (b"\xC1\xBF", 0),
    (b"\xC3(", 1),
    (b"\xE0\x80\xAF", 1),
    (b"\xED\xA0\x80", 1),
    (b"\xE2\x82(", 2),
    (b"\xF0\x80\x80\x80", 1),
    (b"\xF0\x9F\x98a", 3),
    (b"\xF4\x90\x80\x80", 1),
    (b"\xF5\x80\x80\x80", 0),
    (b"\xFF", 0),
    (
        b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xF4\x90\x80\x80\x65",
        12,
    ),
    (b"\xF0\x9F\x98\x80\xFE\x80", 4),
];

#[test]
fn the_first_impossible_byte_fails_when_it_arrives() {
    for (text, bad) in BROKEN_TEXTS {
        // In the middle of a frame that goes on afterwards.
        let frame = last(1, &[text, b"more"].concat());
        let header = frame.len() - text.len() - 4;
        assert_eq!(violates_at(&frame), Some(header + bad), "{text:x?}");
        // The same, but all that came before came at once, and the frame never ends.
        let mut decoder = Decoder::new(LIMIT);
        let (mut before, mut byte) = (frame[..header + bad].to_vec(), [frame[header + bad]]);
        assert_eq!(decoder.decode(&mut before.as_mut_slice()), Ok(None));
        let code = decoder.decode(&mut byte.as_mut_slice()).unwrap_err().code;
        assert_eq!(code, 1007, "{text:x?}");
    }
}

#[test]
fn the_first_impossible_byte_fails_across_fragments_and_pings() {
    for (text, bad) in BROKEN_TEXTS {
        let mut bytes = fragment(1, b"");
        for byte in &text[..bad] {
            bytes.extend(fragment(0, &[*byte]));
            bytes.extend(last(9, b"\xff"));
        }
        let frame = fragment(0, &[&text[bad..], b"more"].concat());
        let header = frame.len() - (text.len() - bad) - 4;
        let expected = bytes.len() + header;
        bytes.extend(frame);
        assert_eq!(violates_at(&bytes), Some(expected), "{text:x?}");
        assert_eq!(violation(&bytes), Some(1007));
    }
}

#[test]
fn a_text_may_not_end_inside_a_character() {
    for text in [&b"\xE2\x82"[..], b"\xF0\x9F\x98", b"abc\xC3"] {
        assert_eq!(violation(&last(1, text)), Some(1007));
        let fragments = [fragment(1, text), last(0, b"")].concat();
        assert_eq!(violation(&fragments), Some(1007));
        assert_eq!(violates_at(&fragments), Some(fragments.len() - 1));
    }
}

// ---- properties -----------------------------------------------------------------------------

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => vec(any::<u8>(), 0..20),
        1 => vec(any::<u8>(), 120..135),
    ]
}

/// A ping or a pong.
fn control() -> impl Strategy<Value = Vec<u8>> {
    (9_u8..=10, vec(any::<u8>(), 0..20), any::<[u8; 4]>())
        .prop_map(|(opcode, payload, mask)| client_frame(0x80 | opcode, &payload, mask))
}

/// A message, cut anywhere into fragments, with control frames between them.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let content = prop_oneof![
        ".{0,40}".prop_map(|text| (1, text.into_bytes())),
        payload().prop_map(|bytes| (2, bytes)),
    ];
    let cuts = vec((any::<prop::sample::Index>(), vec(control(), 0..2)), 0..4);
    (content, cuts, any::<[u8; 4]>()).prop_map(|((opcode, content), cuts, mask)| {
        let mut cuts: Vec<_> = cuts
            .into_iter()
            .map(|(at, controls)| (at.index(content.len() + 1), controls))
            .collect();
        cuts.sort_by_key(|(at, _)| *at);
        let (mut bytes, mut opcode, mut from) = (Vec::new(), opcode, 0);
        for (at, controls) in cuts {
            bytes.extend(client_frame(opcode, &content[from..at], mask));
            bytes.extend(controls.concat());
            (opcode, from) = (0, at);
        }
        bytes.extend(client_frame(0x80 | opcode, &content[from..], mask));
        bytes
    })
}

fn close() -> impl Strategy<Value = Vec<u8>> {
    (".{0,20}", any::<[u8; 4]>()).prop_map(|(reason, mask)| {
        client_frame(0x88, &[b"\x0f\xa0", reason.as_bytes()].concat(), mask)
    })
}

/// What a well-behaved client says.
fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let frames = vec(prop_oneof![control(), message()], 0..6);
    (frames, proptest::option::of(close()))
        .prop_map(|(frames, close)| [frames.concat(), close.unwrap_or_default()].concat())
}

/// The same, with some byte replaced: mostly violations.
fn broken_conversation() -> impl Strategy<Value = Vec<u8>> {
    (
        conversation(),
        vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    )
        .prop_map(|(mut bytes, faults)| {
            bytes.push(0x80);
            for (at, byte) in faults {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        })
}

fn split_at_all<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2)
        .map(|pair| &bytes[pair[0]..pair[1]])
        .collect()
}

/// The input in two pieces at every point, byte by byte, and in the given pieces.
fn assert_splits_change_nothing(
    decoder: fn() -> Decoder,
    bytes: &[u8],
    cuts: &[prop::sample::Index],
) -> Result<Heard, TestCaseError> {
    let whole = hear_pieces(decoder(), [bytes]);
    for at in 0..=bytes.len() {
        let (front, back) = bytes.split_at(at);
        let split = hear_pieces(decoder(), [front, back]);
        prop_assert_eq!(&split, &whole, "split at {}", at);
    }
    prop_assert_eq!(&hear_pieces(decoder(), bytes.chunks(1)), &whole);
    let pieces = hear_pieces(decoder(), split_at_all(bytes, cuts));
    prop_assert_eq!(&pieces, &whole, "cut at {:?}", cuts);
    Ok(whole)
}

proptest! {
    #[test]
    fn splits_of_what_is_right_change_nothing(
        bytes in conversation(),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let whole = assert_splits_change_nothing(|| Decoder::new(LIMIT), &bytes, &cuts)?;
        prop_assert_eq!(whole.violation, None);
        let discarded =
            assert_splits_change_nothing(|| Decoder::discarding(LIMIT), &bytes, &cuts)?;
        let controls: Vec<_> = whole
            .incoming
            .into_iter()
            .filter(|it| !matches!(it, Incoming::Text(_) | Incoming::Binary(_)))
            .collect();
        prop_assert_eq!(discarded.incoming, controls);
    }

    #[test]
    fn splits_of_what_is_wrong_change_nothing(
        bytes in broken_conversation(),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        // A low limit, so that lengths that came out wrong meet it as well.
        assert_splits_change_nothing(|| Decoder::new(60), &bytes, &cuts)?;
        assert_splits_change_nothing(|| Decoder::discarding(60), &bytes, &cuts)?;
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        hear(&bytes);
    }

    /// Text is judged as the standard library judges it, whole or in pieces.
    #[test]
    fn text_is_what_the_standard_library_says(
        text in vec(prop_oneof![
            Just(&b"a"[..]), Just(&"é".as_bytes()[..1]), Just(&"€".as_bytes()[..2]),
            Just("€".as_bytes()), Just("😀".as_bytes()), Just(&"😀".as_bytes()[..3]), Just(&b"\x80"[..]),
        ], 0..8),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let text = text.concat();
        let mut bytes = Vec::new();
        for (number, piece) in split_at_all(&text, &cuts).into_iter().enumerate() {
            bytes.extend(fragment(u8::from(number == 0), piece));
        }
        bytes.extend(last(0, b""));
        let expected = std::str::from_utf8(&text).is_err().then_some(1007);
        prop_assert_eq!(violation(&bytes), expected);
    }
}
