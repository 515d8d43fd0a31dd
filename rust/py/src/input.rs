//! Bodies and filters of requests: checked by the core, passed on as opaque values.

use std::borrow::Cow;

use homewire_core::bus::envelope::{self, CommandHeader, EventHeader};
use homewire_core::bus::shard;
use homewire_core::input;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors;

/// A checked event body; the event data stay the client's own bytes.
#[pyclass(frozen, module = "homewire._core")]
pub struct EventInput {
    #[pyo3(get)]
    event_type: String,
    #[pyo3(get)]
    entity_id: Option<String>,
    data: Option<Box<str>>,
}

impl From<input::EventInput<'_>> for EventInput {
    fn from(event: input::EventInput<'_>) -> Self {
        Self {
            event_type: event.event_type.into_owned(),
            entity_id: event.entity_id.map(Cow::into_owned),
            data: event.data.map(Box::from),
        }
    }
}

/// A checked command body; the parameters stay the client's own bytes.
#[pyclass(frozen, module = "homewire._core")]
pub struct CommandInput {
    #[pyo3(get)]
    action: String,
    parameters: Option<Box<str>>,
}

impl From<input::CommandInput<'_>> for CommandInput {
    fn from(command: input::CommandInput<'_>) -> Self {
        Self {
            action: command.action.into_owned(),
            parameters: command.parameters.map(Box::from),
        }
    }
}

/// The shard of an id: CRC16/XMODEM of its decimal digits, modulo the number of shards.
#[pyfunction]
pub fn shard_of(id: u64, shards: u32) -> u32 {
    shard::shard_of(id, shards)
}

/// Checks the body of `PUT …/event`. `from_client` rejects the event types of the platform. Raises
/// `InvalidField`.
#[pyfunction]
#[pyo3(signature = (body, from_client = false))]
pub fn parse_event(py: Python<'_>, body: &[u8], from_client: bool) -> PyResult<EventInput> {
    input::parse_event(body)
        .and_then(|event| match from_client {
            true => event.from_client(),
            false => Ok(event),
        })
        .map(EventInput::from)
        .map_err(|invalid| errors::invalid(py, invalid))
}

/// Checks the body of `PUT …/command`. Raises `InvalidField`.
#[pyfunction]
pub fn parse_command(py: Python<'_>, body: &[u8]) -> PyResult<CommandInput> {
    input::parse_command(body)
        .map(CommandInput::from)
        .map_err(|invalid| errors::invalid(py, invalid))
}

/// The envelope of a checked event.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "one flat call per event")]
pub fn event_envelope<'py>(
    py: Python<'py>,
    input: &EventInput,
    project: u64,
    home: u64,
    device: u64,
    time_ms: u64,
    device_class: Option<&str>,
    device_ip: Option<&str>,
    project_key_id: u64,
    project_key_name: Option<&str>,
) -> Bound<'py, PyBytes> {
    let header = EventHeader {
        project,
        home,
        device,
        entity: input.entity_id.as_deref(),
        time_ms,
        event_type: &input.event_type,
        device_class,
        device_ip,
        project_key_id,
        project_key_name,
        body: input.data.as_deref().unwrap_or_default(),
    };
    PyBytes::new(py, &envelope::encode_event(&header))
}

/// The envelope of a checked command.
#[pyfunction]
pub fn command_envelope<'py>(
    py: Python<'py>,
    input: &CommandInput,
    project: u64,
    device: u64,
    time_ms: u64,
) -> Bound<'py, PyBytes> {
    let header = CommandHeader {
        project,
        device,
        time_ms,
        action: &input.action,
        body: input.parameters.as_deref().unwrap_or_default(),
        ..CommandHeader::default()
    };
    PyBytes::new(py, &envelope::encode_command(&header))
}

/// The envelope of a queued command in two parts. Its sequence, a msgpack integer, belongs between them.
#[pyfunction]
pub fn queued_command_envelope<'py>(
    py: Python<'py>,
    input: &CommandInput,
    project: u64,
    device: u64,
    time_ms: u64,
    expires_ms: u64,
) -> (Bound<'py, PyBytes>, Bound<'py, PyBytes>) {
    let header = CommandHeader {
        project,
        device,
        time_ms,
        action: &input.action,
        expires_ms,
        body: input.parameters.as_deref().unwrap_or_default(),
        ..CommandHeader::default()
    };
    let (head, tail) = envelope::encode_command_around_sequence(&header);
    (PyBytes::new(py, &head), PyBytes::new(py, &tail))
}
