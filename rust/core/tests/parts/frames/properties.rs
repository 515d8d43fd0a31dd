//! Properties: random conversations, split anywhere.

use homewire_core::wire::frame::Decoder;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

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

/// A message, split anywhere into fragments, with control frames between them.
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

/// The input of a well-behaved client.
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
) -> Result<Decoded, TestCaseError> {
    let whole = decode_pieces(decoder(), [bytes]);
    for at in 0..=bytes.len() {
        let (front, back) = bytes.split_at(at);
        let split = decode_pieces(decoder(), [front, back]);
        prop_assert_eq!(&split, &whole, "split at {}", at);
    }
    prop_assert_eq!(&decode_pieces(decoder(), bytes.chunks(1)), &whole);
    let pieces = decode_pieces(decoder(), split_at_all(bytes, cuts));
    prop_assert_eq!(&pieces, &whole, "cut at {:?}", cuts);
    Ok(whole)
}

proptest! {
    #[test]
    fn splits_of_valid_input_change_nothing(
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
    fn splits_of_invalid_input_change_nothing(
        bytes in broken_conversation(),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        // A low limit, so that wrong lengths exceed it as well.
        assert_splits_change_nothing(|| Decoder::new(60), &bytes, &cuts)?;
        assert_splits_change_nothing(|| Decoder::discarding(60), &bytes, &cuts)?;
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        decode_all(&bytes);
    }

    /// Text is accepted as by the standard library, whole or in pieces.
    #[test]
    fn text_validity_equals_standard_library(
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
