//! `EventBatch` and `PlacedEvents`: a bulk body, from the client's bytes to Redis commands and back to one
//! response, without a Python object for each event.

use std::ops::Range;

use foldhash::{HashMap, HashSet};
use homewire_core::bus::envelope::{self, Envelope, EventHeader};
use homewire_core::bus::shard::shard_of;
use homewire_core::input::target::{Places, Target};
use homewire_core::input::{self, Invalid};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::append::XaddPrefixes;
use crate::errors;

/// The usual size of an envelope without its texts.
const HEADER_BYTES: usize = 96;
/// The usual size of an XADD without its envelope.
const XADD_BYTES: usize = 80;

/// A bulk body, NDJSON or a JSON array, checked item by item.
#[pyclass(frozen, module = "homewire._core")]
pub struct EventBatch {
    items: Vec<Result<Item, Invalid>>,
    /// All names and data, concatenated in one allocation.
    texts: String,
}

/// An event of a bulk body, as ranges of the texts of the batch.
struct Item {
    event_type: Range<usize>,
    entity_id: Option<Range<usize>>,
    /// Empty: absent.
    data: Range<usize>,
    home_id: u64,
    device_id: u64,
}

/// The items of a bulk body, each with its shard and envelope, or with the reason of its refusal.
#[pyclass(frozen, module = "homewire._core")]
pub struct PlacedEvents {
    items: Vec<Result<Placed, Refusal>>,
    accepted: usize,
    /// All envelopes, concatenated.
    envelopes: Vec<u8>,
    names_entities: bool,
}

struct Placed {
    shard: u32,
    /// The range of its envelope.
    envelope: Range<usize>,
}

/// The result of a refused item, as JSON.
struct Refusal(String);

/// A batch of one event, of a device or a project key, for a home. `from_client` rejects the event types of
/// the platform. Raises `InvalidField`.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "named, in Python")]
#[pyo3(signature = (
    body, *, project, home, time_ms, shards, device = 0, device_class = None, device_ip = None,
    project_key_id = 0, project_key_name = None, from_client = true,
))]
pub fn accept_event(
    py: Python<'_>,
    body: &[u8],
    project: u64,
    home: u64,
    time_ms: u64,
    shards: u32,
    device: u64,
    device_class: Option<&str>,
    device_ip: Option<&str>,
    project_key_id: u64,
    project_key_name: Option<&str>,
    from_client: bool,
) -> PyResult<PlacedEvents> {
    let event = input::parse_event(body)
        .and_then(|event| match from_client {
            true => event.from_client(),
            false => Ok(event),
        })
        .map_err(|invalid| errors::invalid(py, invalid))?;
    let header = EventHeader {
        project,
        home,
        device,
        entity: event.entity_id.as_deref(),
        time_ms,
        event_type: &event.event_type,
        device_class,
        device_ip,
        project_key_id,
        project_key_name,
        body: event.data.unwrap_or_default(),
    };
    let mut envelopes = Vec::with_capacity(HEADER_BYTES + body.len());
    let placed = Placed::append(&mut envelopes, &header, shards);
    Ok(PlacedEvents {
        items: vec![Ok(placed)],
        accepted: 1,
        envelopes,
        names_entities: event.entity_id.is_some(),
    })
}

#[pymethods]
impl EventBatch {
    /// `from_client` rejects the event types of the platform.
    #[new]
    #[pyo3(signature = (body, from_client = true))]
    fn new(py: Python<'_>, body: &[u8], from_client: bool) -> PyResult<Self> {
        py.detach(|| {
            let mut bulk = input::parse_bulk(body)?;
            if from_client {
                bulk = bulk
                    .into_iter()
                    .map(|item| item.and_then(input::EventInput::from_client))
                    .collect();
            }
            Ok(Self::of(bulk, body.len()))
        })
        .map_err(|invalid| errors::invalid(py, invalid))
    }

    fn __len__(&self) -> usize {
        self.items.len()
    }

    /// The distinct home ids and device ids to look up.
    fn targets(&self) -> (HashSet<u64>, HashSet<u64>) {
        let (mut homes, mut devices) = (HashSet::default(), HashSet::default());
        for item in self.items.iter().flatten() {
            if item.device_id != 0 {
                devices.insert(item.device_id);
            } else if item.home_id != 0 {
                homes.insert(item.home_id);
            }
        }
        (homes, devices)
    }

    /// Finds the target of every item. `homes` are those of the project, without the `deactivated` ones;
    /// `devices` maps a device's id to its home (0: none) and class.
    #[expect(clippy::too_many_arguments, reason = "one flat call per body")]
    #[pyo3(signature = (
        project, time_ms, project_key_id, project_key_name, homes, devices, shards,
        deactivated = HashSet::default(),
    ))]
    fn place(
        &self,
        project: u64,
        time_ms: u64,
        project_key_id: u64,
        project_key_name: Option<&str>,
        homes: HashSet<u64>,
        devices: HashMap<u64, (u64, String)>,
        shards: u32,
        deactivated: HashSet<u64>,
    ) -> PlacedEvents {
        let mut envelopes = Vec::with_capacity(self.texts.len() + HEADER_BYTES * self.items.len());
        let mut names_entities = false;
        let mut place = |event: &Item, target: Target<'_>| {
            names_entities |= event.entity_id.is_some();
            let header = EventHeader {
                project,
                home: target.home,
                device: target.device,
                entity: event.entity_id.clone().map(|range| self.text(range)),
                time_ms,
                event_type: self.text(event.event_type.clone()),
                device_class: target.device_class,
                device_ip: None,
                project_key_id,
                project_key_name,
                body: self.text(event.data.clone()),
            };
            Placed::append(&mut envelopes, &header, shards)
        };
        let places = Places {
            homes: &homes,
            deactivated: &deactivated,
            devices: &devices,
        };
        let items: Vec<_> = self
            .items
            .iter()
            .map(|item| match item {
                Ok(event) => places
                    .target(event.home_id, event.device_id)
                    .map(|target| place(event, target))
                    .map_err(|it| Refusal::new(it.reason, it.field, &it.problem)),
                Err(invalid) => Err(Refusal::new(
                    "INVALID_PARAMETER",
                    invalid.field,
                    &invalid.problem,
                )),
            })
            .collect();
        let accepted = items.iter().flatten().count();
        PlacedEvents {
            items,
            accepted,
            envelopes,
            names_entities,
        }
    }
}

impl EventBatch {
    /// Copies what `bulk` borrows from a body of this length.
    fn of(bulk: input::Bulk<'_>, body_bytes: usize) -> Self {
        let mut texts = String::with_capacity(body_bytes);
        let mut keep = |text: &str| {
            let start = texts.len();
            texts.push_str(text);
            start..texts.len()
        };
        let mut item = |event: input::EventInput<'_>| Item {
            event_type: keep(&event.event_type),
            entity_id: event.entity_id.map(|name| keep(&name)),
            data: keep(event.data.unwrap_or_default()),
            home_id: event.home_id,
            device_id: event.device_id,
        };
        let items = bulk.into_iter().map(|it| it.map(&mut item)).collect();
        Self { items, texts }
    }

    fn text(&self, range: Range<usize>) -> &str {
        &self.texts[range]
    }
}

#[pymethods]
impl PlacedEvents {
    /// The number of placed items.
    fn __len__(&self) -> usize {
        self.accepted
    }

    /// Whether a placed event is about an entity.
    #[getter]
    fn names_entities(&self) -> bool {
        self.names_entities
    }

    /// For each placed item about an entity: its index, the entity and the home.
    fn entities(&self) -> Vec<(usize, String, u64)> {
        let indexed = self.items.iter().enumerate();
        indexed
            .filter_map(|(index, item)| item.as_ref().ok().map(|placed| (index, placed)))
            .filter_map(
                |(index, placed)| match envelope::decode(self.envelope(placed)) {
                    Ok(Envelope::Event(event)) => {
                        Some((index, event.entity?.to_owned(), event.home))
                    }
                    _ => None,
                },
            )
            .collect()
    }

    /// One XADD for each placed item, in order.
    fn commands<'py>(&self, py: Python<'py>, prefixes: &XaddPrefixes) -> Bound<'py, PyBytes> {
        let mut prefixes = prefixes.lock();
        let mut out = Vec::with_capacity(self.envelopes.len() + XADD_BYTES * self.accepted);
        for placed in self.items.iter().flatten() {
            prefixes.put(&mut out, placed.shard, self.envelope(placed));
        }
        PyBytes::new(py, &out)
    }

    /// The shard of the last placed item.
    #[getter]
    fn last_shard(&self) -> Option<u32> {
        self.items
            .iter()
            .rev()
            .flatten()
            .next()
            .map(|placed| placed.shard)
    }

    /// For each placed item its index in the body, its shard and its envelope.
    fn placed<'py>(&self, py: Python<'py>) -> Vec<(usize, u32, Bound<'py, PyBytes>)> {
        let indexed = self.items.iter().enumerate();
        indexed
            .filter_map(|(index, item)| item.as_ref().ok().map(|placed| (index, placed)))
            .map(|(index, placed)| (index, placed.shard, PyBytes::new(py, self.envelope(placed))))
            .collect()
    }

    /// The whole response as JSON. `outcomes` has for each placed item its stream id as bytes, or the JSON
    /// of its failure as a string.
    fn results<'py>(
        &self,
        py: Python<'py>,
        outcomes: &Bound<'py, PyList>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut out = Vec::with_capacity(64 * self.items.len());
        out.extend_from_slice(b"{\"results\":[");
        let mut outcomes = outcomes.iter();
        for (index, item) in self.items.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            match (item, item.is_ok().then(|| outcomes.next()).flatten()) {
                (Ok(placed), Some(outcome)) => put_outcome(&mut out, placed.shard, &outcome)?,
                (Err(refusal), _) => out.extend_from_slice(refusal.0.as_bytes()),
                (Ok(_), None) => return Err(errors::too_few_outcomes()),
            }
        }
        out.extend_from_slice(b"]}");
        Ok(PyBytes::new(py, &out))
    }
}

impl Placed {
    /// Appends the envelope of an event.
    fn append(envelopes: &mut Vec<u8>, header: &EventHeader<'_>, shards: u32) -> Self {
        let start = envelopes.len();
        envelope::append_event(envelopes, header);
        Self {
            shard: shard_of(header.home, shards),
            envelope: start..envelopes.len(),
        }
    }
}

impl PlacedEvents {
    fn envelope(&self, placed: &Placed) -> &[u8] {
        &self.envelopes[placed.envelope.clone()]
    }
}

fn put_outcome(out: &mut Vec<u8>, shard: u32, outcome: &Bound<'_, PyAny>) -> PyResult<()> {
    if let Ok(id) = outcome.cast::<PyBytes>() {
        // Digits and a dash need no escapes.
        out.extend_from_slice(b"{\"status\":204,\"id\":\"");
        out.extend_from_slice(itoa::Buffer::new().format(shard).as_bytes());
        out.push(b'.');
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(b"\"}");
    } else {
        out.extend_from_slice(outcome.extract::<&str>()?.as_bytes());
    }
    Ok(())
}

impl Refusal {
    fn new(reason: &str, field: &str, problem: &str) -> Self {
        let data = serde_json::json!({"field": field, "problem": problem});
        let status = if reason == "NOT_FOUND" { 404 } else { 403 };
        let result = serde_json::json!({"status": status, "reason": reason, "data": data});
        Self(result.to_string())
    }
}
