//! Events from envelopes, for delivery by other means than a socket.

use homewire_core::bus::envelope::{self, Envelope};
use homewire_core::wire::encoding::append_event_json;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Project, home and type of an event; `None` for every other or malformed envelope.
#[pyfunction]
pub fn event_route(envelope: &[u8]) -> Option<(u64, u64, &str)> {
    match envelope::decode(envelope) {
        Ok(Envelope::Event(event)) => Some((event.project, event.home, event.event_type)),
        Ok(Envelope::Command(_) | Envelope::Control(_)) | Err(_) => None,
    }
}

/// The Event object as subscribers receive it; `None` for every other envelope.
#[pyfunction]
pub fn event_json<'py>(py: Python<'py>, envelope: &[u8]) -> Option<Bound<'py, PyBytes>> {
    match envelope::decode(envelope) {
        Ok(Envelope::Event(event)) => {
            let mut json = Vec::new();
            append_event_json(&mut json, &event);
            Some(PyBytes::new(py, &json))
        }
        Ok(Envelope::Command(_) | Envelope::Control(_)) | Err(_) => None,
    }
}
