//! WebSocket frames: known vectors, every split point, and clients that violate the protocol.

mod decoder;
mod properties;

use std::borrow::Cow;

use homewire_core::wire::close::Violation;
use homewire_core::wire::frame::{
    Decoder, Incoming, Opcode, append_close, append_frame, append_framed, append_header, header_len,
};

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

/// Everything that a decoder reported about an input, and how it ended.
#[derive(Debug, PartialEq)]
struct Decoded {
    incoming: Vec<Incoming<'static>>,
    violation: Option<Violation>,
}

fn feed(decoder: &mut Decoder, piece: &[u8], decoded: &mut Decoded) {
    let mut bytes = piece.to_vec();
    let mut rest = bytes.as_mut_slice();
    loop {
        match decoder.decode(&mut rest) {
            Ok(Some(incoming)) => decoded.incoming.push(owned(incoming)),
            Ok(None) => break,
            Err(violation) => {
                assert_eq!(decoded.violation.replace(violation), None, "reported twice");
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

fn decode_pieces<'a>(mut decoder: Decoder, pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
    let mut decoded = Decoded {
        incoming: Vec::new(),
        violation: None,
    };
    for piece in pieces {
        feed(&mut decoder, piece, &mut decoded);
    }
    decoded
}

fn decode_all(bytes: &[u8]) -> Decoded {
    decode_pieces(Decoder::new(LIMIT), [bytes])
}

fn violation(bytes: &[u8]) -> Option<u16> {
    decode_all(bytes).violation.map(|violation| violation.code)
}

/// How many bytes of the input arrive, one by one, before the violation.
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
fn frames_match_rfc_examples() {
    let mut out = Vec::new();
    append_frame(&mut out, Opcode::Text, b"Hello");
    append_frame(&mut out, Opcode::Ping, b"Hello");
    assert_eq!(out, b"\x81\x05Hello\x89\x05Hello");
    let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    assert_eq!(
        decode_all(masked).incoming,
        [Incoming::Text(b"Hello".into())]
    );
}

#[test]
fn framing_in_place_equals_framing_copy() {
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
