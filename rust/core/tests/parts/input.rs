//! Bodies of events and commands: valid ones are unchanged, invalid ones name their field.

use homewire_core::input::{
    EventInput, MAX_DATA_BYTES, MAX_ITEMS, parse_bulk, parse_command, parse_event,
    parse_routed_event,
};
use proptest::prelude::*;

/// An object nested `levels` deep, itself included.
fn nested(levels: usize) -> String {
    format!(
        "{}{{}}{}",
        r#"{"a":"#.repeat(levels - 1),
        "}".repeat(levels - 1)
    )
}

fn with_data(data: &str) -> String {
    format!(r#"{{"eventType":"t","eventData":{data}}}"#)
}

fn data(body: &str) -> Option<String> {
    parse_event(body.as_bytes()).ok()?.data.map(String::from)
}

/// The invalid field of an event or a command. The problem must not repeat the body.
fn fault(body: impl AsRef<[u8]>) -> Option<&'static str> {
    let invalid = parse_event(body.as_ref()).err()?;
    assert!(!invalid.problem.contains("SECRET"), "{invalid}");
    assert!(invalid.problem.len() < 100);
    Some(invalid.field)
}

fn routed_fault(body: &str) -> Option<&'static str> {
    parse_routed_event(body.as_bytes()).err().map(|it| it.field)
}

fn command_fault(body: &str) -> Option<&'static str> {
    parse_command(body.as_bytes()).err().map(|it| it.field)
}

#[test]
fn event_with_all_members_is_parsed() {
    let body = r#" {"homeId":7,"other":[1,{"x":"\ud800"}],"eventData": {"n" : 9007199254740993.10 },
        "entityId":"lamp","eventType":"it\u00e9m","deviceId":8,"timestamp":"0001-01-01T00:00:00Z"} "#;
    let expected = EventInput {
        event_type: "itém".into(),
        entity_id: Some("lamp".into()),
        home_id: 7,
        device_id: 8,
        data: Some(r#"{"n" : 9007199254740993.10 }"#),
    };
    assert_eq!(parse_routed_event(body.as_bytes()), Ok(expected.clone()));
    let unrouted = EventInput {
        home_id: 0,
        device_id: 0,
        ..expected
    };
    assert_eq!(parse_event(body.as_bytes()), Ok(unrouted));
}

#[test]
fn null_means_absent() {
    let body = r#"{"eventType":"t","eventData":null,"entityId":null,"homeId":null,"deviceId":0}"#;
    let event = parse_routed_event(body.as_bytes()).unwrap();
    assert_eq!((event.data, event.entity_id), (None, None));
    assert_eq!((event.home_id, event.device_id), (0, 0));
    let command = parse_command(br#"{"action":"a","parameters":null}"#).unwrap();
    assert_eq!(command.parameters, None);
}

#[test]
fn event_data_are_unchanged() {
    for json in [
        "{}",
        r#"{"big":123456789012345678901234567890,"e":1E+2,"neg":-0.0}"#,
        r#"{"lone":"\ud800","pair":"\ud83d\ude00","quote":"\"}{[","path":"\\"}"#,
        "{\n\t\"a\" :\r [ ] , \"a\":2}",
        r#"{"é":"😀"}"#,
    ] {
        assert_eq!(data(&with_data(json)).as_deref(), Some(json));
    }
}

#[test]
fn body_must_be_json_object() {
    for body in [
        "",
        " ",
        "null",
        "1",
        "\"SECRET\"",
        "[]",
        "{",
        "{}x",
        "SECRET",
        r#"{"eventType":"t"}{}"#,
        r#"{"eventType":"t",}"#,
        r#"{"eventType":"t"SECRET}"#,
        r#"{"eventType":"t","eventData":{"a":SECRET}}"#,
        r#"{"eventType":"t","eventData":{"a":01}}"#,
        "{\"eventType\":\"t\",\"eventData\":{\"a\":\"\n\"}}",
        r#"{"eventType":"t","other":[}"#,
        r#"{"eventType":"SECRET"#,
        r#"{'eventType':"t"}"#,
    ] {
        assert_eq!(fault(body), Some("body"), "{body}");
    }
    assert_eq!(fault(b"{\"eventType\":\"\xff\"}"), Some("body"));
    assert_eq!(
        fault(b"{\"eventType\":\"t\",\"eventData\":{\"a\":\"\xed\xa0\x80\"}}"),
        Some("body")
    );
}

#[test]
fn invalid_member_is_named() {
    let long = |len: usize| format!(r#""{}""#, "é".repeat(len / 2));
    for (json, field) in [
        ("{}".to_owned(), "eventType"),
        (r#"{"EventType":"t"}"#.to_owned(), "eventType"),
        (r#"{"eventType":null}"#.to_owned(), "eventType"),
        (r#"{"eventType":1}"#.to_owned(), "eventType"),
        (r#"{"eventType":""}"#.to_owned(), "eventType"),
        (r#"{"eventType":["SECRET"]}"#.to_owned(), "eventType"),
        (r#"{"eventType":"SECRET\ud800"}"#.to_owned(), "eventType"),
        (format!(r#"{{"eventType":{}}}"#, long(258)), "eventType"),
        (
            r#"{"eventType":"t","eventType":"t"}"#.to_owned(),
            "eventType",
        ),
        (
            r#"{"eventType":"t","event\u0054ype":"t"}"#.to_owned(),
            "eventType",
        ),
        (r#"{"eventType":"t","entityId":1}"#.to_owned(), "entityId"),
        (r#"{"eventType":"t","entityId":""}"#.to_owned(), "entityId"),
        (
            format!(r#"{{"eventType":"t","entityId":{}}}"#, long(258)),
            "entityId",
        ),
        (
            r#"{"eventType":"t","entityId":null,"entityId":null}"#.to_owned(),
            "entityId",
        ),
        (with_data("[]"), "eventData"),
        (with_data("\"SECRET\""), "eventData"),
        (with_data("1"), "eventData"),
        (with_data("false"), "eventData"),
        (with_data("null,\"eventData\":{}"), "eventData"),
    ] {
        assert_eq!(fault(&json), Some(field), "{json}");
    }
    assert_eq!(
        fault(format!(r#"{{"eventType":{0},"entityId":{0}}}"#, long(256))),
        None
    );
}

#[test]
fn event_data_depth_is_limited() {
    assert_eq!(data(&with_data(&nested(64))), Some(nested(64)));
    let lists = |levels| {
        format!(
            r#"{{"a":{}{}}}"#,
            "[".repeat(levels - 1),
            "]".repeat(levels - 1)
        )
    };
    assert_eq!(fault(with_data(&lists(64))), None);
    for levels in [65, 100, 127, 128, 129, 1_000, 100_000] {
        assert_eq!(
            fault(with_data(&nested(levels))),
            Some("eventData"),
            "{levels}"
        );
        assert_eq!(
            fault(with_data(&lists(levels))),
            Some("eventData"),
            "{levels}"
        );
        let command = format!(r#"{{"action":"a","parameters":{}}}"#, nested(levels));
        assert_eq!(command_fault(&command), Some("parameters"));
    }
    // Deep, but not an object; deep, but in an unknown member.
    let array = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(fault(with_data(&array)), Some("eventData"));
    let ignored = format!(r#"{{"x":{array},"eventType":"t"}}"#);
    assert_eq!(fault(ignored), None);
    // Only brackets outside of strings count; siblings do not add up.
    let brackets = format!(
        r#"{{"a":"\"{}","b":"\\","c":[{}[]]}}"#,
        "[{".repeat(99),
        "[],".repeat(99)
    );
    assert_eq!(fault(with_data(&brackets)), None);
    let after_string = format!(r#"{{"a":"\\","b":{}}}"#, nested(64));
    assert_eq!(fault(with_data(&after_string)), Some("eventData"));
}

#[test]
fn event_data_size_is_limited() {
    let sized = |len: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(len - 8));
    assert_eq!(fault(with_data(&sized(MAX_DATA_BYTES))), None);
    assert_eq!(
        fault(with_data(&sized(MAX_DATA_BYTES + 1))),
        Some("eventData")
    );
}

#[test]
fn ids_in_body_are_ignored_for_path() {
    let body = r#"{"eventType":"t","homeId":"x","homeId":-1,"deviceId":{},"timestamp":1,"originDeviceId":[]}"#;
    let event = parse_event(body.as_bytes()).unwrap();
    assert_eq!((event.home_id, event.device_id), (0, 0));
}

#[test]
fn ids_of_routed_events_are_parsed() {
    for (id, expected) in [("0", 0), ("1", 1), ("9223372036854775807", i64::MAX as u64)] {
        let body = format!(r#"{{"eventType":"t","homeId":{id},"deviceId": {id} }}"#);
        let event = parse_routed_event(body.as_bytes()).unwrap();
        assert_eq!((event.home_id, event.device_id), (expected, expected));
    }
    for id in [
        "-1",
        "-0",
        "1.0",
        "1e2",
        "\"1\"",
        "true",
        "[]",
        "{}",
        "9223372036854775808",
        "18446744073709551616",
        "1000000000000000000000000000000",
    ] {
        for field in ["homeId", "deviceId"] {
            let body = format!(r#"{{"eventType":"t","{field}":{id}}}"#);
            assert_eq!(routed_fault(&body), Some(field), "{body}");
        }
    }
    assert_eq!(
        routed_fault(r#"{"eventType":"t","homeId":1,"homeId":1}"#),
        Some("homeId")
    );
}

#[test]
fn commands_are_parsed() {
    let body = br#"{"parameters":{"level": 1e400},"action":"dim","deviceId":"x"}"#;
    let command = parse_command(body).unwrap();
    assert_eq!(command.action, "dim");
    assert_eq!(command.parameters, Some(r#"{"level": 1e400}"#));
    assert_eq!(command_fault(r#"{"parameters":{}}"#), Some("action"));
    assert_eq!(command_fault(r#"{"action":""}"#), Some("action"));
    assert_eq!(command_fault(r#"{"action":{}}"#), Some("action"));
    assert_eq!(
        command_fault(r#"{"action":"a","parameters":[]}"#),
        Some("parameters")
    );
    assert_eq!(
        command_fault(r#"{"action":"a","parameters":{},"parameters":{}}"#),
        Some("parameters")
    );
    assert_eq!(command_fault("[]"), Some("body"));
}

#[test]
fn each_line_of_bulk_body_has_own_result() {
    let body = [
        &b"\n  \r\n{\"eventType\":\"a\",\"homeId\":1}\r\n"[..],
        b"SECRET\n{\"eventType\":\"\xff\"}\n\n",
        b"{\"eventType\":\"\"}\n[]\n",
        b"{\"eventType\":\"z\",\"homeId\":\"1\"}\n",
        b"{\"eventType\":\"b\",\"deviceId\":2}",
    ]
    .concat();
    let items = parse_bulk(&body).unwrap();
    let fields: Vec<_> = items
        .iter()
        .map(|item| {
            item.as_ref()
                .map_or_else(|it| it.field, |it| &*it.event_type)
        })
        .collect();
    assert_eq!(
        fields,
        ["a", "body", "body", "eventType", "body", "homeId", "b"]
    );
}

#[test]
fn each_element_of_bulk_array_has_own_result() {
    let body = format!(
        r#" [ {{"eventType":"a","eventData":{{"x": 1.10}}}} ,1,null,"SECRET",[{{}}],{{}},{},{{"eventType":"b"}}] "#,
        with_data(&nested(100))
    );
    let items = parse_bulk(body.as_bytes()).unwrap();
    let fields: Vec<_> = items
        .iter()
        .map(|item| {
            item.as_ref()
                .map_or_else(|it| it.field, |it| &*it.event_type)
        })
        .collect();
    assert_eq!(
        fields,
        [
            "a",
            "body",
            "body",
            "body",
            "body",
            "eventType",
            "eventData",
            "b"
        ]
    );
    let first = items[0].as_ref().unwrap();
    assert_eq!(first.data, Some(r#"{"x": 1.10}"#));
}

#[test]
fn bulk_body_is_rejected_as_whole() {
    let bulk_fault = |body: &[u8]| parse_bulk(body).err().map(|it| it.field);
    let item = r#"{"eventType":"t"}"#;
    for body in [
        "", " \r\n\n", "[]", " [ ] ", "[", "[{}", "[{}]x", "[{},]", "[{]",
    ] {
        assert_eq!(bulk_fault(body.as_bytes()), Some("body"), "{body:?}");
    }
    assert_eq!(bulk_fault(b"[{\"eventType\":\"\xff\"}]"), Some("body"));
    let lines = |count| [item].repeat(count).join("\n");
    let array = |count| format!("[{}]", [item].repeat(count).join(","));
    for (lines, array, refused) in [
        (lines(MAX_ITEMS), array(MAX_ITEMS), None),
        (lines(MAX_ITEMS + 1), array(MAX_ITEMS + 1), Some("body")),
        (lines(MAX_ITEMS + 500), array(MAX_ITEMS + 500), Some("body")),
    ] {
        assert_eq!(bulk_fault(lines.as_bytes()), refused);
        assert_eq!(bulk_fault(array.as_bytes()), refused);
    }
    assert_eq!(
        parse_bulk(lines(MAX_ITEMS).as_bytes()).unwrap().len(),
        MAX_ITEMS
    );
    assert_eq!(
        parse_bulk(array(MAX_ITEMS).as_bytes()).unwrap().len(),
        MAX_ITEMS
    );
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        ".{0,9}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".{0,4}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_serialised_event_is_parsed(event_type in ".{1,60}", value in json()) {
        let body = serde_json::json!({"eventType": event_type, "eventData": value}).to_string();
        match parse_event(body.as_bytes()) {
            Ok(event) => {
                prop_assert_eq!(event.event_type, event_type);
                let sent = event.data.unwrap_or("null");
                prop_assert_eq!(sent, value.to_string());
            }
            Err(invalid) => {
                prop_assert_eq!(invalid.field, "eventData");
                prop_assert!(!value.is_object() && !value.is_null());
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = parse_event(&bytes);
        let _ = parse_command(&bytes);
        let _ = parse_bulk(&bytes);
    }

    #[test]
    fn random_json_like_text_never_panics(text in r#"[\[\]{}",:\\ntu0ed8 \r\n]{0,60}"#) {
        let _ = parse_bulk(text.as_bytes());
        let _ = parse_event(with_data(&text).as_bytes());
    }
}

#[test]
fn platform_event_type_is_rejected_from_client() {
    let typed = |name: &str| format!(r#"{{"eventType":"{name}"}}"#);
    for name in [
        "_deviceConnected_",
        "__",
        "_x_",
        "\\u005fkeyValueSaved\\u005f",
    ] {
        let body = typed(name);
        let event = parse_event(body.as_bytes()).unwrap();
        assert_eq!(
            event.from_client().unwrap_err().field,
            "eventType",
            "{name}"
        );
    }
    for name in ["_", "_x", "x_", "a_b", "x", "__x", "_ü", "-_"] {
        let body = typed(name);
        let event = parse_event(body.as_bytes()).unwrap();
        assert_eq!(event.clone().from_client(), Ok(event), "{name}");
    }
}
