//! Events and commands as clients send them: checked, and otherwise unchanged.
//!
//! `eventData` and `parameters` are copied from the body byte by byte. Numbers beyond 2^53, escapes and the
//! order of members arrive as they were sent.

mod json;
pub mod target;

use json::{Field, read_members};

use std::borrow::Cow;
use std::str;

/// The maximum number of events in a bulk body.
pub const MAX_ITEMS: usize = 1_000;
/// The maximum length of `eventType`, `entityId` and `action`, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 256;
/// The maximum length of `eventData` and `parameters`, in bytes as sent.
pub const MAX_DATA_BYTES: usize = 65_536;
/// The maximum nesting depth of `eventData` and `parameters`; they themselves are the first level.
pub const MAX_DEPTH: usize = 64;

/// The field name of a problem with the whole body.
const BODY: &str = "body";

/// Rejected input. The message never repeats what the client sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct Invalid {
    /// The invalid member or parameter, or `body`.
    pub field: &'static str,
    /// The problem, as the predicate of a sentence about the field.
    pub problem: String,
}

impl Invalid {
    /// A problem with a field.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}

/// A checked event. It borrows from the body, except names with escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventInput<'a> {
    pub event_type: Cow<'a, str>,
    pub entity_id: Option<Cow<'a, str>>,
    /// The home it is addressed to; 0: none named.
    pub home_id: u64,
    /// The device it is addressed to; 0: none named.
    pub device_id: u64,
    /// The client's own JSON of `eventData`, an object.
    pub data: Option<&'a str>,
}

impl EventInput<'_> {
    /// Rejects event types of the platform, which begin and end with `_`: clients may not send them.
    ///
    /// # Errors
    /// Names `eventType`.
    pub fn from_client(self) -> Result<Self, Invalid> {
        let name = self.event_type.as_bytes();
        if name.len() > 1 && name.starts_with(b"_") && name.ends_with(b"_") {
            let problem = "must not begin and end with _: such types are reserved for the platform";
            return Err(Invalid::new("eventType", problem));
        }
        Ok(self)
    }
}

/// A checked command. It borrows from the body like an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandInput<'a> {
    pub action: Cow<'a, str>,
    /// The client's own JSON of `parameters`, an object.
    pub parameters: Option<&'a str>,
}

/// The items of a bulk body, each with its own result.
pub type Bulk<'a> = Vec<Result<EventInput<'a>, Invalid>>;

/// Checks the body of an event whose home or device is in the path. The ids in the body are ignored:
/// clients send `homeId: 0`, and the path decides.
///
/// # Errors
/// Names the first invalid member, or `body`.
pub fn parse_event(body: &[u8]) -> Result<EventInput<'_>, Invalid> {
    let [event_type, entity_id, data] =
        read_members(text(body)?, ["eventType", "entityId", "eventData"])?;
    check_event(event_type, entity_id, data)
}

/// Checks an event that names its own home or device. Both may be absent.
///
/// # Errors
/// Names the first invalid member, or `body`.
pub fn parse_routed_event(body: &[u8]) -> Result<EventInput<'_>, Invalid> {
    parse_routed_text(text(body)?)
}

/// Checks the body of a command.
///
/// # Errors
/// Names the first invalid member, or `body`.
pub fn parse_command(body: &[u8]) -> Result<CommandInput<'_>, Invalid> {
    let [action, parameters] = read_members(text(body)?, ["action", "parameters"])?;
    Ok(CommandInput {
        action: action.required_name()?,
        parameters: parameters.object()?,
    })
}

/// Checks a bulk body: a JSON array of events with ids, or one event on each line (NDJSON).
///
/// Each item has its own result. Lines may be blank and may end in CRLF. A line that is not JSON or not
/// UTF-8 is invalid alone.
///
/// # Errors
/// The body has no items or more than [`MAX_ITEMS`], or the array is not JSON.
pub fn parse_bulk(body: &[u8]) -> Result<Bulk<'_>, Invalid> {
    let first = body.iter().find(|&&byte| !is_space(byte));
    let items = if first == Some(&b'[') {
        let items = json::read_array(text(body)?, MAX_ITEMS)?;
        items.into_iter().map(parse_routed_text).collect()
    } else {
        parse_lines(body)?
    };
    if items.is_empty() {
        return Err(Invalid::new(BODY, "must have at least one event"));
    }
    Ok(items)
}

fn parse_lines(body: &[u8]) -> Result<Bulk<'_>, Invalid> {
    let mut items = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        if line.iter().all(|&byte| is_space(byte)) {
            continue;
        }
        if items.len() == MAX_ITEMS {
            return Err(too_many_items(MAX_ITEMS));
        }
        items.push(parse_routed_event(line));
    }
    Ok(items)
}

fn parse_routed_text(body: &str) -> Result<EventInput<'_>, Invalid> {
    let names = ["eventType", "entityId", "eventData", "homeId", "deviceId"];
    let [event_type, entity_id, data, home_id, device_id] = read_members(body, names)?;
    Ok(EventInput {
        home_id: home_id.id()?,
        device_id: device_id.id()?,
        ..check_event(event_type, entity_id, data)?
    })
}

fn check_event<'a>(
    event_type: Field<'a>,
    entity_id: Field<'a>,
    data: Field<'a>,
) -> Result<EventInput<'a>, Invalid> {
    Ok(EventInput {
        event_type: event_type.required_name()?,
        entity_id: entity_id.optional_name()?,
        home_id: 0,
        device_id: 0,
        data: data.object()?,
    })
}

/// Whether this byte is white space in JSON.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn text(body: &[u8]) -> Result<&str, Invalid> {
    str::from_utf8(body).map_err(|_| Invalid::new(BODY, "must be UTF-8"))
}

fn too_many_items(limit: usize) -> Invalid {
    Invalid::new(BODY, format!("must have at most {limit} events"))
}
