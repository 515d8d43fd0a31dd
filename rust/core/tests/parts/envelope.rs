//! The bus format and the messages made from it.

use homewire_core::bus::envelope::{
    CommandHeader, ControlHeader, Envelope, EventHeader, Malformed, VERSION, decode,
    encode_command, encode_command_around_sequence, encode_control, encode_event,
};
use homewire_core::wire::encoding::{Encoding, append_command_json, append_event_json};
use homewire_core::wire::frame::{Opcode, append_frame};
use proptest::prelude::*;
use serde_json::{Value, json};

const EVENT: EventHeader<'static> = EventHeader {
    project: 1,
    home: 300,
    device: 70_000,
    entity: Some("lamp"),
    time_ms: 1_795_258_800_123,
    event_type: "temperature",
    device_class: Some("thermometer"),
    device_ip: Some("10.0.0.1"),
    project_key_id: 5,
    project_key_name: Some("server"),
    body: r#"{"celsius":21.50}"#,
};

fn event_json(event: &EventHeader<'_>) -> String {
    let mut out = Vec::new();
    append_event_json(&mut out, event);
    String::from_utf8_lossy(&out).into_owned()
}

// ---- the bus format -------------------------------------------------------------------------

#[test]
fn event_has_exact_bytes() {
    let event = EventHeader {
        entity: None,
        device_ip: None,
        project_key_id: 0,
        project_key_name: None,
        ..EVENT
    };
    let expected = [
        &b"\x01\x9b\x01\x01\xcd\x01\x2c\xce\x00\x01\x11\x70\xc0"[..],
        b"\xcf\x00\x00\x01\xa1\xfe\x60\xe2\x7b\xabtemperature\xabthermometer\xc0\x00\xc0",
        br#"{"celsius":21.50}"#,
    ];
    let time = u64::from_be_bytes(*b"\x00\x00\x01\xa1\xfe\x60\xe2\x7b");
    let event = EventHeader {
        time_ms: time,
        ..event
    };
    assert_eq!(encode_event(&event), expected.concat());
}

#[test]
fn command_and_control_record_have_exact_bytes() {
    let command = CommandHeader {
        project: 1,
        device: 2,
        time_ms: 3,
        action: "dim",
        body: "{}",
        ..CommandHeader::default()
    };
    assert_eq!(
        encode_command(&command),
        b"\x01\x95\x02\x01\x02\x03\xa3dim{}"
    );
    assert_eq!(
        decode(b"\x01\x95\x02\x01\x02\x03\xa3dim{}"),
        Ok(Envelope::Command(command))
    );
    let queued = CommandHeader {
        sequence: 300,
        expires_ms: 9,
        ..command
    };
    let bytes = b"\x01\x97\x02\x01\x02\x03\xa3dim\xcd\x01\x2c\x09{}";
    assert_eq!(encode_command(&queued), bytes);
    assert_eq!(decode(bytes), Ok(Envelope::Command(queued)));
    let (head, tail) = encode_command_around_sequence(&queued);
    assert_eq!([&head, &b"\xcd\x01\x2c"[..], &tail].concat(), bytes);
    let control = ControlHeader {
        project: 1,
        record_type: 2,
        user: 3,
        home: 4,
        device: 5,
        key_tag: u64::MAX,
        outbox_ms: 6,
        outbox_seq: 7,
        body: b"",
    };
    let bytes = b"\x01\x99\x03\x01\x02\x03\x04\x05\xcf\xff\xff\xff\xff\xff\xff\xff\xff\x06\x07";
    assert_eq!(encode_control(&control), bytes);
    assert_eq!(decode(bytes), Ok(Envelope::Control(control)));
}

/// Integers, strings and the array may be written wider than necessary.
#[test]
fn wider_encodings_are_decoded() {
    let wide = [
        &b"\x01\xdc\x00\x05\xcc\x02\xcd\x00\x01\xce\x00\x00\x00\x02"[..],
        b"\xcf\x00\x00\x00\x00\x00\x00\x00\x03\xdb\x00\x00\x00\x03dim{}",
    ]
    .concat();
    assert_eq!(decode(&wide), decode(b"\x01\x95\x02\x01\x02\x03\xa3dim{}"));
    assert!(decode(&wide).is_ok());
}

#[test]
fn malformed_envelope_names_reason() {
    for (record, expected) in [
        (&b""[..], Malformed::Truncated),
        (
            b"\x02\x95\x02\x01\x02\x03\xa3dim",
            Malformed::UnknownVersion(2),
        ),
        (b"{\"eventType\"", Malformed::UnknownVersion(b'{')),
        (b"\x01", Malformed::Truncated),
        (b"\x01\x90", Malformed::MissingMember),
        (
            b"\x01\x95\x04\x01\x02\x03\xa3dim",
            Malformed::UnknownKind(4),
        ),
        (
            b"\x01\x95\x00\x01\x02\x03\xa3dim",
            Malformed::UnknownKind(0),
        ),
        (b"\x01\x94\x02\x01\x02\x03\xa3dim", Malformed::MissingMember),
        (b"\x01\x95\x02\x01\x02\x03\xa4dim", Malformed::Truncated),
        (b"\x01\x81\x02\x01", Malformed::WrongType),
        (b"\x01\x95\xa1x\x01\x02\x03\xa3dim", Malformed::WrongType),
        (b"\x01\x95\x02\xff\x02\x03\xa3dim", Malformed::WrongType),
        (b"\x01\x95\x02\xd0\x01\x02\x03\xa3dim", Malformed::WrongType),
        (b"\x01\x95\x02\xc0\x02\x03\xa3dim", Malformed::WrongType),
        (b"\x01\x95\x02\x01\x02\x03\xc0", Malformed::WrongType),
        (b"\x01\x95\x02\x01\x02\x03\x07", Malformed::WrongType),
        (b"\x01\x95\x02\x01\x02\x03\xc4\x03dim", Malformed::WrongType),
        (b"\x01\x95\x02\x01\x02\x03\xa1\xff", Malformed::NotUtf8),
        (b"\x01\x95\x02\x01\x02\x03\xa3dim{\xff}", Malformed::NotUtf8),
        (b"\x01\x96\x02\x01\x02\x03\xa3dim\xc0", Malformed::WrongType),
        (
            b"\x01\x97\x02\x01\x02\x03\xa3dim\x01\xa0",
            Malformed::WrongType,
        ),
        (
            b"\x01\x98\x02\x01\x02\x03\xa3dim\x01\x02\xc1",
            Malformed::WrongType,
        ),
        (
            b"\x01\x98\x02\x01\x02\x03\xa3dim\x01\x02\xdf\xff\xff\xff\xff",
            Malformed::Truncated,
        ),
    ] {
        assert_eq!(decode(record), Err(expected), "{record:x?}");
    }
}

/// One value of every msgpack type, for members that a later version might add.
const VALUES: [&[u8]; 34] = [
    b"\x00",
    b"\xe0",
    b"\xc0",
    b"\xc2",
    b"\xc3",
    b"\xcc\x81",
    b"\xcd\x81\x82",
    b"\xce\x81\x82\x83\x84",
    b"\xcf\x81\x82\x83\x84\x85\x86\x87\x88",
    b"\xd0\x81",
    b"\xd1\x81\x82",
    b"\xd2\x81\x82\x83\x84",
    b"\xd3\x81\x82\x83\x84\x85\x86\x87\x88",
    b"\xca\x81\x82\x83\x84",
    b"\xcb\x81\x82\x83\x84\x85\x86\x87\x88",
    b"\xa2\xff\xff",
    b"\xd9\x02ab",
    b"\xda\x00\x02ab",
    b"\xdb\x00\x00\x00\x02ab",
    b"\xc4\x02ab",
    b"\xc5\x00\x02ab",
    b"\xc6\x00\x00\x00\x02ab",
    b"\xd4\x01a",
    b"\xd5\x01ab",
    b"\xd6\x01abcd",
    b"\xd7\x01abcdefgh",
    b"\xd8\x01abcdefghijklmnop",
    b"\xc7\x02\x01ab",
    b"\xc8\x00\x02\x01ab",
    b"\xc9\x00\x00\x00\x02\x01ab",
    b"\x92\x91\x90\x01",
    b"\xdc\x00\x02\xdd\x00\x00\x00\x01\x01\x02",
    b"\x82\x01\x80\xa1a\x81\x02\x03",
    b"\xde\x00\x01\x01\xdf\x00\x00\x00\x01\x02\x90",
];

/// A record with surplus members at the end of its header.
fn with_surplus(record: &[u8], body: &[u8], members: u16, surplus: &[&[u8]]) -> Vec<u8> {
    let header = &record[2..record.len() - body.len()];
    let mut out = vec![VERSION, 0xDC];
    out.extend((members + surplus.len() as u16).to_be_bytes());
    out.extend_from_slice(header);
    out.extend(surplus.concat());
    out.extend_from_slice(body);
    out
}

#[test]
fn surplus_members_of_any_type_are_skipped() {
    let record = encode_event(&EVENT);
    let body = EVENT.body.as_bytes();
    for value in VALUES {
        let longer = with_surplus(&record, body, 11, &[value]);
        assert_eq!(decode(&longer), Ok(Envelope::Event(EVENT)), "{value:x?}");
    }
    let all = with_surplus(&record, body, 11, &VALUES);
    assert_eq!(decode(&all), Ok(Envelope::Event(EVENT)));
    let bare = encode_event(&EventHeader { body: "", ..EVENT });
    for value in VALUES.into_iter().filter(|value| value.len() > 1) {
        let cut = with_surplus(&bare, b"", 11, &[&value[..value.len() - 1]]);
        assert_eq!(decode(&cut), Err(Malformed::Truncated), "{value:x?}");
    }
    // As deep as an envelope is long: no recursion.
    let deep = [vec![0x91; 200_000], vec![0xC0]].concat();
    let deep = with_surplus(&record, body, 11, &[&deep]);
    assert_eq!(decode(&deep), Ok(Envelope::Event(EVENT)));
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![3 => ".{0,20}", 1 => "[a-z]{30,34}", 1 => "[a-z]{254,258}"]
}

fn maybe_name() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(name())
}

fn id() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0_u32..64).prop_map(|(bits, shift)| bits >> shift)
}

/// An event with owned texts.
#[derive(Debug, Clone)]
struct AnyEvent {
    ids: [u64; 5],
    event_type: String,
    optional: [Option<String>; 4],
    body: String,
}

impl AnyEvent {
    fn header(&self) -> EventHeader<'_> {
        let [project, home, device, time_ms, project_key_id] = self.ids;
        let [entity, device_class, device_ip, project_key_name] = &self.optional;
        EventHeader {
            project,
            home,
            device,
            entity: entity.as_deref(),
            time_ms,
            event_type: &self.event_type,
            device_class: device_class.as_deref(),
            device_ip: device_ip.as_deref(),
            project_key_id,
            project_key_name: project_key_name.as_deref(),
            body: &self.body,
        }
    }
}

fn any_event() -> impl Strategy<Value = AnyEvent> {
    let ids = [id(), id(), id(), id(), id()];
    let optional = [maybe_name(), maybe_name(), maybe_name(), maybe_name()];
    let body = prop_oneof![
        Just(String::new()),
        ".{0,200}".prop_map(|it| json!({"x": it}).to_string())
    ];
    (ids, name(), optional, body).prop_map(|(ids, event_type, optional, body)| AnyEvent {
        ids,
        event_type,
        optional,
        body,
    })
}

proptest! {
    #[test]
    fn event_round_trips(event in any_event()) {
        let record = encode_event(&event.header());
        prop_assert_eq!(decode(&record), Ok(Envelope::Event(event.header())));
        // Cut within the header it is malformed; cut later, the body is shorter.
        let header_end = record.len() - event.body.len();
        for end in 0..header_end {
            prop_assert_eq!(decode(&record[..end]), Err(Malformed::Truncated), "cut to {}", end);
        }
    }

    #[test]
    fn commands_and_control_records_round_trip(
        ids in [id(), id(), id(), id(), id(), id(), id(), id()],
        action in name(),
        body in ".{0,60}",
    ) {
        let [project, record_type, user, home, device, key_tag, outbox_ms, outbox_seq] = ids;
        // Without a sequence nothing expires.
        for (sequence, expires_ms) in [(0, 0), (outbox_seq.max(1), key_tag)] {
            let command = CommandHeader {
                project, device, time_ms: outbox_ms, action: &action, sequence, expires_ms, body: &body,
            };
            let record = encode_command(&command);
            prop_assert_eq!(decode(&record), Ok(Envelope::Command(command)));
        }
        let control = ControlHeader {
            project, record_type, user, home, device, key_tag, outbox_ms, outbox_seq,
            body: body.as_bytes(),
        };
        let record = encode_control(&control);
        prop_assert_eq!(decode(&record), Ok(Envelope::Control(control)));
        for end in 0..record.len() - body.len() {
            prop_assert_eq!(decode(&record[..end]), Err(Malformed::Truncated));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = decode(&bytes);
        for kind in 1..=3 {
            let _ = decode(&[&[VERSION, 0xDC, 0xFF, 0xFF, kind], &bytes[..]].concat());
        }
    }

    #[test]
    fn changed_bytes_never_panic(event in any_event(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut record = encode_event(&event.header());
        let at = at.index(record.len());
        record[at] = byte;
        if let Ok(Envelope::Event(event)) = decode(&record) {
            event_json(&event);
        }
    }

    #[test]
    fn any_event_is_valid_json(event in any_event()) {
        let header = event.header();
        let value: Value = serde_json::from_str(&event_json(&header)).unwrap();
        prop_assert_eq!(&value["eventType"], &json!(header.event_type));
        prop_assert_eq!(value.get("entityId").and_then(Value::as_str), header.entity);
        prop_assert_eq!(value.get("originDeviceClass").and_then(Value::as_str), header.device_class);
        prop_assert_eq!(value.get("eventData").is_some(), !header.body.is_empty());
        let timestamp = value["timestamp"].as_str().unwrap();
        prop_assert_eq!((timestamp.len(), &timestamp[19..20]), (24, "."));

        let (mut frame, mut expected) = (Vec::new(), Vec::new());
        Encoding::WEB_SOCKET.append_event(&mut frame, &header);
        append_frame(&mut expected, Opcode::Text, event_json(&header).as_bytes());
        prop_assert_eq!(frame, expected);
    }
}

// ---- what subscribers receive --------------------------------------------------------------

#[test]
fn event_has_exact_json() {
    let event = EventHeader {
        time_ms: 1_795_258_800_007,
        ..EVENT
    };
    let expected = concat!(
        r#"{"eventType":"temperature","eventData":{"celsius":21.50},"timestamp":"2026-11-21T11:00:00.007Z","#,
        r#""homeId":300,"originDeviceId":70000,"originDeviceClass":"thermometer","originDeviceIp":"10.0.0.1","#,
        r#""originProjectKeyId":"5","originProjectKeyName":"server","entityId":"lamp"}"#,
    );
    assert_eq!(event_json(&event), expected);
}

#[test]
fn absent_members_are_left_out() {
    let event = EventHeader {
        home: 9,
        event_type: "t",
        ..EventHeader::default()
    };
    let expected = r#"{"eventType":"t","timestamp":"1970-01-01T00:00:00.000Z","homeId":9}"#;
    assert_eq!(event_json(&event), expected);
    let late = EventHeader {
        time_ms: u64::MAX,
        ..event
    };
    assert!(event_json(&late).contains(r#""9999-12-31T23:59:59.999Z""#));
}

#[test]
fn strings_are_escaped() {
    let every: String = (0..=0x80_u8)
        .map(char::from)
        .chain(['é', '\u{2028}', '😀'])
        .collect();
    let event = EventHeader {
        event_type: &every,
        ..EVENT
    };
    let value: Value = serde_json::from_str(&event_json(&event)).unwrap();
    assert_eq!(value["eventType"], json!(every));
}

#[test]
fn command_has_exact_json() {
    let mut command = CommandHeader {
        action: "dim",
        body: r#"{"level": 1e400}"#,
        ..CommandHeader::default()
    };
    let mut out = Vec::new();
    append_command_json(&mut out, &command);
    assert_eq!(out, br#"{"action":"dim","parameters":{"level": 1e400}}"#);
    command.body = "";
    out.clear();
    Encoding::WEB_SOCKET.append_command(&mut out, &command);
    assert_eq!(out, b"\x81\x10{\"action\":\"dim\"}");
}

#[test]
fn envelopes_of_later_versions_and_kinds_are_newer_and_garbage_is_not() {
    let newer: [&[u8]; 3] = [b"\x02", b"\x1f anything", b"\x01\x92\x04\x01"];
    for record in newer {
        assert!(homewire_core::bus::envelope::is_newer(record), "{record:?}");
    }
    let not_newer: [&[u8]; 6] = [
        b"",
        b"\x00\x92\x04\x01",
        b"{\"eventType\":1}",
        b"\x01",
        b"\x01\x92\x03\x01",
        b"\x01\xc0",
    ];
    for record in not_newer {
        assert!(
            !homewire_core::bus::envelope::is_newer(record),
            "{record:?}"
        );
    }
}
