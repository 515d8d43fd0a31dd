//! Notifications of the core as typed Python objects.

use homewire_core::connection::PrincipalKind;
use homewire_core::reactor::notifications::Notification as Inner;
use homewire_core::wire::frame::Opcode;
use homewire_core::wire::transport::MessageKind;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// What happened in the core. See `homewire_core::reactor::notifications::Notification`.
#[pyclass(frozen, module = "homewire._core")]
pub enum Notification {
    Adopted {
        connection_id: u64,
    },
    Closed {
        connection_id: u64,
        code: u16,
    },
    Written {
        connection_id: u64,
        sequence: u64,
    },
    AllowanceExceeded {
        principal_kind: String,
        principal_id: u64,
    },
    Message {
        connection_id: u64,
        opcode: u8,
        payload: Py<PyBytes>,
    },
    ActiveKeys {
        cursor: u32,
        keys: Vec<(u64, u64, u64)>,
    },
    Gap {
        shard: u32,
        cause: String,
    },
    Failed {
        reason: String,
    },
}

impl Notification {
    /// The Python object of a notification.
    pub fn of(py: Python<'_>, notification: Inner) -> Self {
        match notification {
            Inner::Adopted { id } => Self::Adopted {
                connection_id: id.as_u64(),
            },
            Inner::Closed { id, code } => Self::Closed {
                connection_id: id.as_u64(),
                code,
            },
            Inner::Written { id, sequence } => Self::Written {
                connection_id: id.as_u64(),
                sequence,
            },
            Inner::AllowanceExceeded { principal_id } => Self::AllowanceExceeded {
                principal_kind: match principal_id.kind {
                    PrincipalKind::User => "user".to_owned(),
                    PrincipalKind::Device => "device".to_owned(),
                },
                principal_id: principal_id.id,
            },
            Inner::Message { id, kind, payload } => Self::Message {
                connection_id: id.as_u64(),
                opcode: match kind {
                    MessageKind::Text => Opcode::Text,
                    MessageKind::Binary => Opcode::Binary,
                } as u8,
                payload: PyBytes::new(py, &payload).unbind(),
            },
            Inner::ActiveKeys { next, keys } => Self::ActiveKeys { cursor: next, keys },
            Inner::Gap { shard, cause } => Self::Gap { shard, cause },
            Inner::Failed { reason } => Self::Failed { reason },
        }
    }
}
