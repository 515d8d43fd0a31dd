//! JSON and frames for subscribers, made from an envelope once for each encoding.

use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use crate::bus::envelope::{CommandHeader, EventHeader};
use crate::wire::transport::{MessageKind, Transport};

/// The last millisecond of the year 9999; RFC 3339 has no notation for later ones.
const MAX_TIME_MS: u64 = 253_402_300_799_999;

/// The encoding of a connection's events: each message is one Event (or Command) JSON object in a frame of
/// the transport. The members of an audience have the same encoding, so one frame is made for each event
/// and encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encoding {
    /// The transport that frames the messages.
    pub transport: Transport,
}

impl Encoding {
    /// Text messages of a WebSocket.
    pub const WEB_SOCKET: Self = Self::of(Transport::WebSocket);

    /// Messages of this transport.
    pub const fn of(transport: Transport) -> Self {
        Self { transport }
    }

    /// Appends an event as a whole frame.
    pub fn append_event(self, out: &mut Vec<u8>, event: &EventHeader<'_>) {
        self.transport
            .append_message(out, MessageKind::Text, |out| append_event_json(out, event));
    }

    /// Appends a command as a whole frame.
    pub fn append_command(self, out: &mut Vec<u8>, command: &CommandHeader<'_>) {
        self.transport
            .append_message(out, MessageKind::Text, |out| {
                append_command_json(out, command);
            });
    }
}

/// One event or command as frames, made once for each encoding that has a subscriber.
#[derive(Debug, Default)]
pub struct Frames([Vec<u8>; Transport::COUNT]);

impl Frames {
    /// Removes all frames and keeps the buffers.
    pub fn clear(&mut self) {
        self.0.iter_mut().for_each(Vec::clear);
    }

    /// Makes the frame of each of these encodings by `append`, once.
    pub fn encode(
        &mut self,
        encodings: impl Iterator<Item = Encoding>,
        append: impl Fn(Encoding, &mut Vec<u8>),
    ) {
        for encoding in encodings {
            let frame = &mut self.0[encoding.transport as usize];
            // No frame is empty.
            if frame.is_empty() {
                append(encoding, frame);
            }
        }
    }

    /// The frame of this encoding; empty if it was not encoded.
    pub fn get(&self, encoding: Encoding) -> &[u8] {
        &self.0[encoding.transport as usize]
    }
}

/// Appends an event as the Event object of the spec, without absent members.
pub fn append_event_json(out: &mut Vec<u8>, event: &EventHeader<'_>) {
    out.reserve(EVENT_OVERHEAD + event.body.len());
    out.extend_from_slice(br#"{"eventType":"#);
    append_string(out, event.event_type);
    append_raw(out, r#","eventData":"#, event.body);
    out.extend_from_slice(br#","timestamp":""#);
    append_time(out, event.time_ms);
    out.push(b'"');
    append_id(out, r#","homeId":"#, event.home);
    append_id(out, r#","originDeviceId":"#, event.device);
    append_member(out, r#","originDeviceClass":"#, event.device_class);
    append_member(out, r#","originDeviceIp":"#, event.device_ip);
    if event.project_key_id != 0 {
        // A string in the API's models, unlike all other ids.
        append_id(out, r#","originProjectKeyId":""#, event.project_key_id);
        out.push(b'"');
    }
    append_member(out, r#","originProjectKeyName":"#, event.project_key_name);
    append_member(out, r#","entityId":"#, event.entity);
    out.push(b'}');
}

/// Appends a command as the DeviceCommand object of the spec, exactly as it was PUT.
pub fn append_command_json(out: &mut Vec<u8>, command: &CommandHeader<'_>) {
    out.extend_from_slice(br#"{"action":"#);
    append_string(out, command.action);
    append_raw(out, r#","parameters":"#, command.body);
    out.push(b'}');
}

/// Room for everything except the event data of a usual device event.
const EVENT_OVERHEAD: usize = 192;

/// Appends the client's own JSON, if there is any.
fn append_raw(out: &mut Vec<u8>, prefix: &str, json: &str) {
    if !json.is_empty() {
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(json.as_bytes());
    }
}

fn append_member(out: &mut Vec<u8>, prefix: &str, value: Option<&str>) {
    if let Some(value) = value {
        out.extend_from_slice(prefix.as_bytes());
        append_string(out, value);
    }
}

fn append_id(out: &mut Vec<u8>, prefix: &str, id: u64) {
    if id != 0 {
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(itoa::Buffer::new().format(id).as_bytes());
    }
}

/// Appends `2026-11-21T11:00:00.123Z`, always with three digits of a second.
fn append_time(out: &mut Vec<u8>, time_ms: u64) {
    let time = UNIX_EPOCH + Duration::from_millis(time_ms.min(MAX_TIME_MS));
    // Writing to a vector cannot fail, and the time is within the range of the format.
    let written = write!(out, "{}", humantime::format_rfc3339_millis(time));
    debug_assert!(written.is_ok());
}

fn append_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[plain_from..at]);
        plain_from = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let [high, low] = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
    }
    out.extend_from_slice(&bytes[plain_from..]);
    out.push(b'"');
}
