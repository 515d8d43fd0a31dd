//! `Core`: the reactor and the stream reader.

use std::net::IpAddr;
use std::time::Duration;

use homewire_core::clock::Clock;
use homewire_core::connection::allowance::Rates;
use homewire_core::connection::counts::{CountKey, Thresholds};
use homewire_core::connection::ids::ConnectionId;
use homewire_core::connection::socket::SocketOptions;
use homewire_core::connection::{PrincipalId, PrincipalKind};
use homewire_core::core::Core as Inner;
use homewire_core::reactor::Limits;
use homewire_core::routing::subscription::Reservation;
use homewire_core::wire::encoding::Encoding;
use homewire_core::wire::frame::Opcode;
use homewire_core::wire::transport::MessageKind;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::address::RedisAddress;
use crate::errors;
use crate::notification::Notification;
use crate::subscription::{Principal, Subscription};

/// Maximum time that a connection of an ended key may receive events, in whichever shards the copies of the
/// record are.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// The reactor and the stream reader: threads that never need the GIL.
#[pyclass(frozen, module = "homewire._core")]
pub struct Core(Inner);

#[pymethods]
impl Core {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "named, in Python")]
    #[pyo3(signature = (
        *, heartbeat_ms = 25_000, reservation_ms = 5_000, close_ms = 5_000,
        shards = 64, send_queue_bytes = 8_388_608, message_bytes = 65_536, inbox_bytes = 16_777_216,
        deliver_messages = false, send_queues_bytes = usize::MAX, unsent_age_ms = 30_000,
        messages_bytes = 4_194_304, socket_send_buffer_bytes = 0, socket_unsent_bytes = 0,
        socket_timeout_ms = 0, inbound_frames_per_s = 0, inbound_bytes_per_s = 0,
        user_topic_bytes = 0,
    ))]
    fn new(
        heartbeat_ms: u64,
        reservation_ms: u64,
        close_ms: u64,
        shards: u32,
        send_queue_bytes: usize,
        message_bytes: usize,
        inbox_bytes: usize,
        deliver_messages: bool,
        send_queues_bytes: usize,
        unsent_age_ms: u64,
        messages_bytes: usize,
        socket_send_buffer_bytes: usize,
        socket_unsent_bytes: u32,
        socket_timeout_ms: u64,
        inbound_frames_per_s: u32,
        inbound_bytes_per_s: u32,
        user_topic_bytes: u64,
    ) -> PyResult<Self> {
        let limits = Limits {
            shards,
            heartbeat: Duration::from_millis(heartbeat_ms),
            reservation: Duration::from_millis(reservation_ms),
            close_grace: CLOSE_GRACE,
            close: Duration::from_millis(close_ms),
            send_queue_bytes,
            send_queues_bytes,
            unsent_age: Duration::from_millis(unsent_age_ms),
            inbound: Rates {
                frames_per_s: inbound_frames_per_s,
                bytes_per_s: inbound_bytes_per_s,
            },
            principal_topic_bytes: match user_topic_bytes {
                0 => u64::MAX,
                most => most,
            },
            message_bytes,
            deliver_messages,
            messages_bytes,
            socket: SocketOptions {
                send_buffer_bytes: socket_send_buffer_bytes,
                unsent_bytes: socket_unsent_bytes,
                timeout: Duration::from_millis(socket_timeout_ms),
            },
        };
        Ok(Self(Inner::start(limits, inbox_bytes, Clock::machine())?))
    }

    #[getter]
    fn notify_fd(&self) -> i32 {
        self.0.notify_descriptor()
    }

    fn start_tail(&self, py: Python<'_>, address: RedisAddress) -> PyResult<()> {
        py.detach(|| self.0.start_tail(address.into()))
            .map_err(errors::tail)
    }

    #[pyo3(signature = (principal, subscription, address = None))]
    fn reserve(
        &self,
        principal: Principal,
        subscription: Subscription,
        address: Option<&str>,
    ) -> u64 {
        let id = self.0.next_id();
        self.0.reserve(Reservation {
            id,
            principal: principal.into(),
            subscription: subscription.into(),
            address: address_of(address),
        });
        id.as_u64()
    }

    fn connection_counts(
        &self,
        principal: Principal,
        address: Option<&str>,
    ) -> (u32, u32, u32, u64, u64) {
        let counts = self
            .0
            .connection_counts(principal.into(), address_of(address));
        (
            counts.principal,
            counts.project,
            counts.address,
            counts.principal_topic_bytes,
            counts.project_topic_bytes,
        )
    }

    fn connections_above(
        &self,
        py: Python<'_>,
        user: u32,
        device: u32,
        project: u32,
        address: u32,
    ) -> Vec<(&'static str, u64, String, u32)> {
        let more = Thresholds {
            user,
            device,
            project,
            address,
        };
        let found = py.detach(|| self.0.connections_above(more));
        found.into_iter().map(count_tuple).collect()
    }

    fn cache_version(&self, shards: Vec<u32>) -> u64 {
        self.0.cache_version(shards)
    }

    fn cache_version_of_all(&self) -> u64 {
        self.0.cache_version_of_all()
    }

    fn adopt(&self, id: u64, fd: i32, early: &[u8]) -> PyResult<()> {
        let id = ConnectionId::from(id);
        let transport = Encoding::WEB_SOCKET.transport;
        Ok(self.0.adopt(id, fd, transport, early.to_vec())?)
    }

    /// Wakes the reactor for adoptions that wait.
    fn wake(&self) {
        self.0.wake();
    }

    fn deliver_first(&self, id: u64, seen: u64, envelopes: Vec<Vec<u8>>) {
        self.0
            .deliver_first(ConnectionId::from(id), seen, envelopes);
    }

    fn abandon(&self, id: u64) {
        self.0.abandon(ConnectionId::from(id));
    }

    fn send(&self, id: u64, opcode: u8, payload: &[u8]) -> PyResult<()> {
        let kind = match Opcode::from_bits(opcode) {
            Some(Opcode::Text) => MessageKind::Text,
            Some(Opcode::Binary) => MessageKind::Binary,
            _ => return Err(PyValueError::new_err("opcode must be 1 or 2")),
        };
        self.0.send(ConnectionId::from(id), kind, payload.to_vec());
        Ok(())
    }

    fn close(&self, id: u64, code: u16, reason: String) {
        self.0.close(ConnectionId::from(id), code, reason);
    }

    fn active_keys(&self, cursor: u32, limit: u32) {
        self.0.active_keys(cursor, limit);
    }

    fn end_key(&self, project: u64, user: u64, key_tag: u64) {
        let principal_id = PrincipalId {
            kind: PrincipalKind::User,
            project,
            id: user,
        };
        self.0.end_key(principal_id, key_tag);
    }

    fn notifications(&self, py: Python<'_>) -> Vec<Notification> {
        let all = self.0.notifications();
        all.map(|it| Notification::of(py, it)).collect()
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = PyDict::new(py);
        for (name, value) in self.0.stats() {
            stats.set_item(name, value)?;
        }
        Ok(stats)
    }

    fn tail_silence_ms(&self) -> u64 {
        u64::try_from(self.0.silence().as_millis()).unwrap_or(u64::MAX)
    }

    fn stop(&self, py: Python<'_>, code: u16, reason: String, timeout_ms: u64) {
        py.detach(|| self.0.stop(code, reason, Duration::from_millis(timeout_ms)));
    }
}

/// aiohttp's name of the peer: an address, possibly with an interface zone.
fn address_of(text: Option<&str>) -> Option<IpAddr> {
    let text = text?;
    text.split_once('%')
        .map_or(text, |(address, _)| address)
        .parse()
        .ok()
}

fn count_tuple((key, count): (CountKey, u32)) -> (&'static str, u64, String, u32) {
    match key {
        CountKey::User { project, id } => ("user", project, id.to_string(), count),
        CountKey::Device { project, id } => ("device", project, id.to_string(), count),
        CountKey::Project(project) => ("project", project, String::new(), count),
        CountKey::Address(address) => ("address", 0, address.to_string(), count),
    }
}
