//! `EventBatch`: many events in one body, checked and packed without a Python object per field.

use std::collections::{HashMap, HashSet};

use homewire_core::envelope::{self, EventHeader};
use homewire_core::input::{self, Invalid};
use homewire_core::shard::shard_of;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::errors;

/// A bulk body, NDJSON or a JSON array, checked item by item.
#[pyclass(frozen, module = "homewire._core")]
pub struct EventBatch(Vec<Result<input::EventInput, Invalid>>);

/// Where an item goes: home, device (0: none) and device class.
struct Target<'a> {
    home: u64,
    device: u64,
    device_class: Option<&'a str>,
}

#[pymethods]
impl EventBatch {
    #[new]
    fn new(py: Python<'_>, body: &[u8]) -> PyResult<Self> {
        py.detach(|| input::parse_bulk(body))
            .map(Self)
            .map_err(|invalid| errors::invalid(py, invalid))
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    /// The distinct home ids and device ids that have to be looked up.
    fn targets(&self) -> (Vec<u64>, Vec<u64>) {
        let (mut homes, mut devices) = (HashSet::new(), HashSet::new());
        for item in self.0.iter().flatten() {
            if item.device_id != 0 {
                devices.insert(item.device_id);
            } else if item.home_id != 0 {
                homes.insert(item.home_id);
            }
        }
        (homes.into_iter().collect(), devices.into_iter().collect())
    }

    /// Per item, in order: `(shard, envelope)`, or `(reason, field, problem)` when it is refused.
    ///
    /// `homes` are those of the project, `devices` map a device's id to its home (0: none) and class.
    #[expect(clippy::too_many_arguments, reason = "one flat call per body")]
    fn envelopes<'py>(
        &self,
        py: Python<'py>,
        project: u64,
        time_ms: u64,
        project_key_id: u64,
        project_key_name: Option<&str>,
        homes: HashSet<u64>,
        devices: HashMap<u64, (u64, String)>,
        shards: u32,
    ) -> PyResult<Bound<'py, PyList>> {
        let results = PyList::empty(py);
        for item in &self.0 {
            let placed = match item {
                Ok(event) => target(event, &homes, &devices).map(|target| (event, target)),
                Err(invalid) => Err(("INVALID_PARAMETER", invalid.field, invalid.problem.as_str())),
            };
            match placed {
                Ok((event, target)) => {
                    let header = EventHeader {
                        project,
                        home: target.home,
                        device: target.device,
                        entity: event.entity_id.as_deref(),
                        time_ms,
                        event_type: &event.event_type,
                        device_class: target.device_class,
                        device_ip: None,
                        project_key_id,
                        project_key_name,
                        body: event.data.as_deref().unwrap_or_default(),
                    };
                    let packed = PyBytes::new(py, &envelope::encode_event(&header));
                    results.append((shard_of(target.home, shards), packed))?;
                }
                Err(refusal) => results.append(refusal)?,
            }
        }
        Ok(results)
    }
}

/// Where an event goes. A device decides its home; a home named beside it must be that one.
fn target<'a>(
    event: &input::EventInput,
    homes: &HashSet<u64>,
    devices: &'a HashMap<u64, (u64, String)>,
) -> Result<Target<'a>, (&'static str, &'static str, &'static str)> {
    if event.device_id == 0 {
        return match event.home_id {
            0 => Err((
                "INVALID_PARAMETER",
                "homeId",
                "homeId or deviceId is needed",
            )),
            home if homes.contains(&home) => Ok(Target {
                home,
                device: 0,
                device_class: None,
            }),
            _ => Err(("NOT_FOUND", "homeId", "unknown")),
        };
    }
    match devices.get(&event.device_id) {
        None => Err(("NOT_FOUND", "deviceId", "unknown")),
        Some((0, _)) => Err(("DEVICE_NOT_IN_HOME", "deviceId", "the device is in no home")),
        Some((home, _)) if event.home_id != 0 && event.home_id != *home => {
            Err(("INVALID_PARAMETER", "homeId", "not the home of this device"))
        }
        Some((home, device_class)) => Ok(Target {
            home: *home,
            device: event.device_id,
            device_class: Some(device_class),
        }),
    }
}
