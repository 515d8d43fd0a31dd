//! The Python extension of homewire-core: extracts arguments, calls the core and maps errors.

mod address;
mod append;
mod batch;
mod close;
mod core;
mod errors;
mod event;
mod input;
mod notification;
mod records;
mod subscription;

use pyo3::prelude::*;

/// The Rust core of homewire.
#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::append::XaddPrefixes;
    #[pymodule_export]
    use crate::batch::{EventBatch, PlacedEvents, accept_event};
    #[pymodule_export]
    use crate::close::close_codes;
    #[pymodule_export]
    use crate::core::Core;
    #[pymodule_export]
    use crate::errors::InvalidField;
    #[pymodule_export]
    use crate::event::{event_json, event_route};
    #[pymodule_export]
    use crate::input::{
        CommandInput, EventInput, command_envelope, event_envelope, parse_command, parse_event,
        queued_command_envelope, shard_of,
    };
    #[pymodule_export]
    use crate::notification::Notification;
    #[pymodule_export]
    use crate::records::{control_records, record_shards};
    #[pymodule_export]
    use crate::subscription::Topic;
}
