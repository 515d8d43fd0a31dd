//! The envelope: an event, command or control record as it travels on the bus.
//!
//! A version byte, a msgpack array (the header, which is all that routing reads), then the body: the
//! client's own JSON of `eventData` or `parameters`, empty if absent. Later versions may append members to
//! a header. A reader skips members that it does not know, of any type.

mod msgpack;

use crate::routing::record_dedup::OutboxPosition;
use msgpack::{Reader, put_array, put_optional_str, put_str, put_uint};

/// The version that this code writes, and the only one that it reads.
pub const VERSION: u8 = 1;
/// Bytes above it are not the version of any envelope, but text or garbage.
const LAST_VERSION: u8 = 31;

const EVENT: u64 = 1;
const COMMAND: u64 = 2;
const CONTROL: u64 = 3;

/// A decoded envelope. It borrows everything from the encoded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope<'a> {
    Event(EventHeader<'a>),
    Command(CommandHeader<'a>),
    Control(ControlHeader<'a>),
}

/// An event of a device, server or entity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventHeader<'a> {
    pub project: u64,
    pub home: u64,
    /// The device that sent it; 0: none.
    pub device: u64,
    pub entity: Option<&'a str>,
    /// Milliseconds since 1970, UTC.
    pub time_ms: u64,
    pub event_type: &'a str,
    pub device_class: Option<&'a str>,
    pub device_ip: Option<&'a str>,
    /// The project key that it was sent with; 0: none.
    pub project_key_id: u64,
    pub project_key_name: Option<&'a str>,
    /// The client's own JSON of `eventData`; empty: absent.
    pub body: &'a str,
}

/// A command to one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandHeader<'a> {
    pub project: u64,
    pub device: u64,
    /// Milliseconds since 1970, UTC.
    pub time_ms: u64,
    pub action: &'a str,
    /// The sequence of a queued command, which grows with each command of the device; 0: the command is not
    /// queued.
    pub sequence: u64,
    /// When a queued command expires, in milliseconds since 1970, UTC.
    pub expires_ms: u64,
    /// The client's own JSON of `parameters`; empty: absent.
    pub body: &'a str,
}

/// A change that every node must apply in order. Ids that it does not concern are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlHeader<'a> {
    pub project: u64,
    /// The type as a number. A reader skips types that it does not know.
    pub record_type: u64,
    pub user: u64,
    pub home: u64,
    pub device: u64,
    /// The first eight bytes of the key's SHA-256, big endian.
    pub key_tag: u64,
    /// Position of the record in the project's outbox stream: milliseconds.
    pub outbox_ms: u64,
    /// Position of the record in the project's outbox stream: number within the millisecond.
    pub outbox_seq: u64,
    pub body: &'a [u8],
}

impl ControlHeader<'_> {
    /// Position of the record in the project's outbox stream.
    pub fn position(&self) -> OutboxPosition {
        (self.outbox_ms, self.outbox_seq)
    }
}

/// Why an envelope could not be decoded. The reader counts and skips it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the envelope is truncated")]
    Truncated,
    #[error("unknown envelope version {0}")]
    UnknownVersion(u8),
    #[error("unknown envelope kind {0}")]
    UnknownKind(u64),
    #[error("the header has too few members")]
    MissingMember,
    #[error("a header member has the wrong type")]
    WrongType,
    #[error("a text is not UTF-8")]
    NotUtf8,
}

/// Decodes an envelope without allocating.
///
/// # Errors
/// [`Malformed`] for bytes that are no envelope of this version. Any bytes may be given.
pub fn decode(record: &[u8]) -> Result<Envelope<'_>, Malformed> {
    let (&version, rest) = record.split_first().ok_or(Malformed::Truncated)?;
    if version != VERSION {
        return Err(Malformed::UnknownVersion(version));
    }
    let mut header = Header::open(rest)?;
    match header.uint()? {
        EVENT => decode_event(header).map(Envelope::Event),
        COMMAND => decode_command(header).map(Envelope::Command),
        CONTROL => decode_control(header).map(Envelope::Control),
        unknown => Err(Malformed::UnknownKind(unknown)),
    }
}

/// Whether this is a control record, by its first members alone. It may still be malformed.
pub fn is_control(record: &[u8]) -> bool {
    let kind = || {
        Header::open(record.strip_prefix(&[VERSION])?)
            .ok()?
            .uint()
            .ok()
    };
    kind() == Some(CONTROL)
}

/// Whether a later version of homewire wrote this: its layout or its kind is not known here.
pub fn is_newer(record: &[u8]) -> bool {
    match record.split_first() {
        Some((&VERSION, rest)) => Header::open(rest)
            .and_then(|mut header| header.uint())
            .is_ok_and(|kind| kind > CONTROL),
        Some((version, _)) => (VERSION + 1..=LAST_VERSION).contains(version),
        None => false,
    }
}

/// Encodes an event.
pub fn encode_event(event: &EventHeader<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    append_event(&mut out, event);
    out
}

/// Appends an encoded event.
pub fn append_event(out: &mut Vec<u8>, event: &EventHeader<'_>) {
    let texts = event.event_type.len()
        + event.entity.map_or(0, str::len)
        + event.device_class.map_or(0, str::len)
        + event.device_ip.map_or(0, str::len)
        + event.project_key_name.map_or(0, str::len);
    start(out, EVENT, 11, texts + event.body.len());
    put_uint(out, event.project);
    put_uint(out, event.home);
    put_uint(out, event.device);
    put_optional_str(out, event.entity);
    put_uint(out, event.time_ms);
    put_str(out, event.event_type);
    put_optional_str(out, event.device_class);
    put_optional_str(out, event.device_ip);
    put_uint(out, event.project_key_id);
    put_optional_str(out, event.project_key_name);
    out.extend_from_slice(event.body.as_bytes());
}

/// Encodes a command.
pub fn encode_command(command: &CommandHeader<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let members = if command.sequence == 0 { 5 } else { 7 };
    start_command(&mut out, command, members);
    if command.sequence != 0 {
        put_uint(&mut out, command.sequence);
        put_uint(&mut out, command.expires_ms);
    }
    out.extend_from_slice(command.body.as_bytes());
    out
}

/// Encodes a queued command in two parts. Its sequence, a msgpack integer that is not known yet, belongs
/// between them.
pub fn encode_command_around_sequence(command: &CommandHeader<'_>) -> (Vec<u8>, Vec<u8>) {
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    start_command(&mut head, command, 7);
    put_uint(&mut tail, command.expires_ms);
    tail.extend_from_slice(command.body.as_bytes());
    (head, tail)
}

fn start_command(out: &mut Vec<u8>, command: &CommandHeader<'_>, members: u8) {
    let texts = command.action.len() + command.body.len();
    start(out, COMMAND, members, texts);
    put_uint(out, command.project);
    put_uint(out, command.device);
    put_uint(out, command.time_ms);
    put_str(out, command.action);
}

/// Encodes a control record.
pub fn encode_control(control: &ControlHeader<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    start(&mut out, CONTROL, 9, control.body.len());
    put_uint(&mut out, control.project);
    put_uint(&mut out, control.record_type);
    put_uint(&mut out, control.user);
    put_uint(&mut out, control.home);
    put_uint(&mut out, control.device);
    put_uint(&mut out, control.key_tag);
    put_uint(&mut out, control.outbox_ms);
    put_uint(&mut out, control.outbox_seq);
    out.extend_from_slice(control.body);
    out
}

/// Starts an envelope and reserves room for `text_bytes` and all numbers.
fn start(out: &mut Vec<u8>, kind: u64, members: u8, text_bytes: usize) {
    const WIDEST_UINT: usize = 9;
    out.reserve(text_bytes + 2 + usize::from(members) * WIDEST_UINT);
    out.push(VERSION);
    put_array(out, members);
    put_uint(out, kind);
}

fn decode_event(mut header: Header<'_>) -> Result<EventHeader<'_>, Malformed> {
    Ok(EventHeader {
        project: header.uint()?,
        home: header.uint()?,
        device: header.uint()?,
        entity: header.optional_str()?,
        time_ms: header.uint()?,
        event_type: header.str()?,
        device_class: header.optional_str()?,
        device_ip: header.optional_str()?,
        project_key_id: header.uint()?,
        project_key_name: header.optional_str()?,
        body: header.json_body()?,
    })
}

fn decode_command(mut header: Header<'_>) -> Result<CommandHeader<'_>, Malformed> {
    Ok(CommandHeader {
        project: header.uint()?,
        device: header.uint()?,
        time_ms: header.uint()?,
        action: header.str()?,
        sequence: header.uint_if_there()?,
        expires_ms: header.uint_if_there()?,
        body: header.json_body()?,
    })
}

fn decode_control(mut header: Header<'_>) -> Result<ControlHeader<'_>, Malformed> {
    Ok(ControlHeader {
        project: header.uint()?,
        record_type: header.uint()?,
        user: header.uint()?,
        home: header.uint()?,
        device: header.uint()?,
        key_tag: header.uint()?,
        outbox_ms: header.uint()?,
        outbox_seq: header.uint()?,
        body: header.body()?,
    })
}

/// The members of a header that were not read yet.
struct Header<'a> {
    reader: Reader<'a>,
    members: u32,
}

impl<'a> Header<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let members = reader.array()?;
        Ok(Self { reader, members })
    }

    fn uint(&mut self) -> Result<u64, Malformed> {
        self.count_member()?;
        self.reader.uint()
    }

    /// A member that earlier versions did not write; 0 if it is absent.
    fn uint_if_there(&mut self) -> Result<u64, Malformed> {
        if self.members == 0 {
            return Ok(0);
        }
        self.uint()
    }

    fn str(&mut self) -> Result<&'a str, Malformed> {
        self.optional_str()?.ok_or(Malformed::WrongType)
    }

    fn optional_str(&mut self) -> Result<Option<&'a str>, Malformed> {
        self.count_member()?;
        self.reader.optional_str()
    }

    /// The bytes after the header. Unknown members of the header are skipped.
    fn body(mut self) -> Result<&'a [u8], Malformed> {
        self.reader.skip(u64::from(self.members))?;
        Ok(self.reader.rest())
    }

    /// The body as text. It is copied into text frames, and clients close the connection on text that is
    /// not UTF-8.
    fn json_body(self) -> Result<&'a str, Malformed> {
        str::from_utf8(self.body()?).map_err(|_| Malformed::NotUtf8)
    }

    fn count_member(&mut self) -> Result<(), Malformed> {
        self.members = self
            .members
            .checked_sub(1)
            .ok_or(Malformed::MissingMember)?;
        Ok(())
    }
}
