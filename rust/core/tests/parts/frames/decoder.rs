//! The decoder: valid input, violations, and UTF-8 at every byte.

use homewire_core::wire::frame::{Decoder, Incoming, is_close_code};

use super::*;

// ---- valid input ---------------------------------------------------------------------------

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
    assert_eq!(decode_all(&bytes).incoming, expected);
    assert_eq!(decode_all(&bytes).violation, None);
}

#[test]
fn every_length_form_is_unmasked() {
    for len in [0, 1, 7, 8, 9, 125, 126, 65_535, 65_536, 65_541] {
        let payload: Vec<u8> = (0..len).map(|n: usize| (n / 3) as u8).collect();
        let decoded = decode_pieces(Decoder::new(1 << 20), [&last(2, &payload)[..]]);
        assert_eq!(decoded.incoming, [Incoming::Binary(payload.into())]);
    }
}

#[test]
fn whole_ping_is_borrowed_without_heap() {
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
fn memory_grows_with_input_and_is_freed_with_message() {
    let mut decoder = Decoder::new(1 << 20);
    let mut decoded = Decoded {
        incoming: Vec::new(),
        violation: None,
    };
    let message = last(1, &[b'x'; 1 << 20]);
    feed(&mut decoder, &message[..20], &mut decoded);
    assert!((1..1_000).contains(&decoder.buffered_bytes()));
    feed(&mut decoder, &message[20..], &mut decoded);
    assert_eq!(decoder.buffered_bytes(), 0);
    let pong = last(10, b"pong");
    feed(&mut decoder, &pong[..8], &mut decoded);
    assert!(decoder.buffered_bytes() > 0);
    feed(&mut decoder, &pong[8..], &mut decoded);
    assert_eq!(decoder.buffered_bytes(), 0);
    // A control frame in pieces inside of a fragmented message does not change the message.
    feed(&mut decoder, &fragment(1, b"a"), &mut decoded);
    let ping = last(9, b"ping");
    feed(&mut decoder, &ping[..8], &mut decoded);
    feed(&mut decoder, &ping[8..], &mut decoded);
    assert!(decoder.buffered_bytes() > 0);
    feed(&mut decoder, &last(0, b"b"), &mut decoded);
    assert_eq!(decoder.buffered_bytes(), 0);
    let expected = [
        Incoming::Pong(b"pong".into()),
        Incoming::Ping(b"ping".into()),
        Incoming::Text(b"ab".into()),
    ];
    assert_eq!(decoded.incoming[1..], expected);
    // A close frame frees a message that will never be complete.
    feed(&mut decoder, &fragment(1, b"a"), &mut decoded);
    feed(&mut decoder, &last(8, b""), &mut decoded);
    assert!(decoder.is_finished());
    assert_eq!(decoder.buffered_bytes(), 0);
    assert_eq!(decoded.violation, None);
}

#[test]
fn idle_decoder_is_small() {
    assert!(size_of::<Decoder>() <= 48, "{}", size_of::<Decoder>());
}

#[test]
fn messages_up_to_the_limit_pass() {
    let whole = last(1, &[b'x'; LIMIT]);
    assert_eq!(violation(&whole), None);
    let fragments = [fragment(1, &[b'x'; LIMIT - 1]), last(0, b"x")].concat();
    assert_eq!(decode_all(&fragments).incoming.len(), 1);
}

#[test]
fn discarding_decoder_checks_and_drops_messages() {
    let messages = [
        last(1, b"whole"),
        fragment(2, &[0xFF; 300]),
        last(9, b"ping"),
        last(0, &[0xFF; 300]),
    ]
    .concat();
    let mut decoder = Decoder::discarding(LIMIT);
    let mut decoded = Decoded {
        incoming: Vec::new(),
        violation: None,
    };
    for byte in &messages {
        feed(&mut decoder, &[*byte], &mut decoded);
        assert!(decoder.buffered_bytes() < 150, "payload was stored");
    }
    assert_eq!(decoded.incoming, [Incoming::Ping(b"ping".into())]);
    assert_eq!(decoder.buffered_bytes(), 0);

    let too_big = [fragment(1, &[b'x'; LIMIT]), fragment(0, b"x")].concat();
    for (bytes, code) in [
        (too_big, 1009),
        (last(1, b"\xff"), 1007),
        (vec![0x81, 0], 1002),
    ] {
        let decoded = decode_pieces(Decoder::discarding(LIMIT), [&bytes[..]]);
        assert_eq!(
            decoded.violation.map(|violation| violation.code),
            Some(code)
        );
    }
}

// ---- invalid input -------------------------------------------------------------------------

#[test]
fn malformed_frames_are_protocol_errors() {
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
fn too_big_message_is_rejected_by_header() {
    let header_and_no_mask = &last(2, &[0; LIMIT + 1])[..4];
    assert_eq!(violation(header_and_no_mask), Some(1009));
    let after_a_fragment = [fragment(1, &[b'x'; LIMIT - 99]), fragment(0, &[b'x'; 100])].concat();
    let header_end = after_a_fragment.len() - 100 - 4;
    assert_eq!(violates_at(&after_a_fragment), Some(header_end - 1));
    assert_eq!(violation(&after_a_fragment), Some(1009));
    // Far beyond 32 bits: nothing may overflow.
    let huge = [0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
    assert_eq!(violation(&huge), Some(1009));
    let wraps_in_32_bits = [0x82, 0xFF, 0, 0, 0, 1, 0, 0, 0, 5];
    assert_eq!(violation(&wraps_in_32_bits), Some(1009));
    let unlimited = decode_pieces(Decoder::new(usize::MAX), [&huge[..]]);
    assert_eq!(unlimited.violation.map(|it| it.code), Some(1009));
}

#[test]
fn only_allowed_close_codes_are_accepted() {
    let allowed = |code: u16| {
        (1000..=1003).contains(&code)
            || (1007..=1014).contains(&code)
            || (3000..=4999).contains(&code)
    };
    for code in 0..=u16::MAX {
        assert_eq!(is_close_code(code), allowed(code));
        let decoded = decode_all(&last(8, &[&code.to_be_bytes()[..], b"why"].concat()));
        if allowed(code) {
            let expected = Incoming::Close {
                code: Some(code),
                reason: "why".into(),
            };
            assert_eq!(decoded.incoming, [expected]);
        } else {
            assert_eq!(
                decoded.violation.map(|it| it.code),
                Some(1002),
                "code {code}"
            );
        }
    }
    assert_eq!(violation(&last(8, b"\x03\xe8\xff")), Some(1007));
    let empty = Incoming::Close {
        code: None,
        reason: "".into(),
    };
    assert_eq!(decode_all(&last(8, b"")).incoming, [empty]);
}

#[test]
fn input_after_close_or_violation_is_ignored() {
    for end in [last(8, b""), last(3, b"")] {
        let bytes = [last(9, b"1"), end, last(9, b"2"), last(3, b"")].concat();
        let mut decoder = Decoder::new(LIMIT);
        let mut decoded = Decoded {
            incoming: Vec::new(),
            violation: None,
        };
        feed(&mut decoder, &bytes, &mut decoded);
        feed(&mut decoder, &last(9, b"3"), &mut decoded);
        assert!(decoder.is_finished());
        let pings = decoded
            .incoming
            .iter()
            .filter(|it| matches!(it, Incoming::Ping(_)));
        assert_eq!(pings.count(), 1);
    }
}

// ---- text is UTF-8, at every byte ----------------------------------------------------------

/// A text and the index of its first invalid byte.
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
fn invalid_utf8_fails_at_first_invalid_byte() {
    for (text, bad) in BROKEN_TEXTS {
        // In the middle of a frame that continues afterwards.
        let frame = last(1, &[text, b"more"].concat());
        let header = frame.len() - text.len() - 4;
        assert_eq!(violates_at(&frame), Some(header + bad), "{text:x?}");
        // The same, but everything before arrives at once, and the frame never ends.
        let mut decoder = Decoder::new(LIMIT);
        let (mut before, mut byte) = (frame[..header + bad].to_vec(), [frame[header + bad]]);
        assert_eq!(decoder.decode(&mut before.as_mut_slice()), Ok(None));
        let code = decoder.decode(&mut byte.as_mut_slice()).unwrap_err().code;
        assert_eq!(code, 1007, "{text:x?}");
    }
}

#[test]
fn invalid_utf8_fails_across_fragments_and_pings() {
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
fn text_ending_inside_character_fails() {
    for text in [&b"\xE2\x82"[..], b"\xF0\x9F\x98", b"abc\xC3"] {
        assert_eq!(violation(&last(1, text)), Some(1007));
        let fragments = [fragment(1, text), last(0, b"")].concat();
        assert_eq!(violation(&fragments), Some(1007));
        assert_eq!(violates_at(&fragments), Some(fragments.len() - 1));
    }
}
