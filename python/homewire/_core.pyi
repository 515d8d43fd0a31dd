"""The Rust core. Written by hand and checked against the built module by mypy.stubtest."""

from collections.abc import Sequence
from typing import Literal, final

from homewire.redis.address import RedisAddress

__all__ = [
    "CommandInput",
    "Core",
    "EventBatch",
    "EventInput",
    "InvalidField",
    "PlacedEvents",
    "XaddPrefixes",
    "close_codes",
    "command_envelope",
    "control_records",
    "event_envelope",
    "event_json",
    "event_route",
    "parse_command",
    "parse_event",
    "queued_command_envelope",
    "record_shards",
    "select_filter",
    "shard_of",
]

_SubscriptionKind = Literal["homes", "devices", "entities", "bound", "command"]

class InvalidField(Exception):
    """Rejected input: `field` names the member, `problem` says what is wrong with it."""

    field: str
    problem: str

@final
class EventInput:
    """A checked event body; the event data stay the client's own bytes."""

    @property
    def event_type(self) -> str: ...
    @property
    def entity_id(self) -> str | None: ...

@final
class CommandInput:
    """A checked command body; the parameters stay the client's own bytes."""

    @property
    def action(self) -> str: ...

def shard_of(id: int, shards: int) -> int: ...
def close_codes() -> list[tuple[int, str, str]]:
    """Each close code that the core sends, its reason, and what a client should do; ascending."""

def control_records() -> list[tuple[int, str, list[str], list[int], str]]:
    """Each type of control record, by number: its name, the ids whose shards get a copy, the close codes
    that it leads to, and what a reader does with a copy."""

def record_shards(
    record_type: int,
    user: int,
    home: int,
    device: int,
    project_key: int,
    body: bytes,
    user_homes: Sequence[int] | None,
    shards: int,
) -> list[int]:
    """The shards that get a copy of a record, ascending; an unknown type goes to all. `user_homes`: None if
    they are not listed. Raises ValueError for a malformed body."""

def parse_event(body: bytes, from_client: bool = False) -> EventInput:
    """`from_client` rejects the event types of the platform. Raises InvalidField."""

def parse_command(body: bytes) -> CommandInput: ...
def event_envelope(
    input: EventInput,
    project: int,
    home: int,
    device: int,
    time_ms: int,
    device_class: str | None,
    device_ip: str | None,
    project_key_id: int,
    project_key_name: str | None,
) -> bytes: ...
def event_route(envelope: bytes) -> tuple[int, int, str] | None:
    """Project, home and type of an event; None for every other or malformed envelope."""

def event_json(envelope: bytes) -> bytes | None:
    """The Event object, byte for byte as subscribers receive it; None for every other envelope."""

def command_envelope(input: CommandInput, project: int, device: int, time_ms: int) -> bytes: ...
def queued_command_envelope(
    input: CommandInput, project: int, device: int, time_ms: int, expires_ms: int
) -> tuple[bytes, bytes]:
    """The envelope of a queued command: its sequence, a msgpack integer, belongs between the two parts."""

def select_filter(
    home_ids: list[str], device_ids: list[str], entity_ids: list[str]
) -> tuple[Literal["all", "homes", "devices", "entities"], list[int], list[str]]: ...

@final
class EventBatch:
    """A bulk body, NDJSON or a JSON array, checked item by item."""

    def __new__(cls, body: bytes, from_client: bool = True) -> EventBatch:
        """`from_client` rejects items with an event type of the platform. Raises InvalidField."""

    def __len__(self) -> int: ...
    @property
    def names_entities(self) -> bool:
        """Whether any event is about an entity."""

    def targets(self) -> tuple[set[int], set[int]]: ...
    def place(
        self,
        project: int,
        time_ms: int,
        project_key_id: int,
        project_key_name: str | None,
        homes: set[int],
        devices: dict[int, tuple[int, str]],
        shards: int,
        deactivated: set[int] = ...,
    ) -> PlacedEvents:
        """Every item with its shard and envelope, or with the reason of its refusal. `homes` are those of the
        project, without the `deactivated` ones; `devices` gives each device's home (0: none) and class."""

@final
class PlacedEvents:
    """The items of a bulk body, in order. Its length is the number of placed items."""

    def __len__(self) -> int: ...
    @property
    def last_shard(self) -> int | None:
        """The shard of the last placed item."""

    def commands(self, prefixes: XaddPrefixes) -> bytes:
        """One XADD for each placed item, in order."""

    def placed(self) -> list[tuple[int, int, bytes]]:
        """For each placed item its index in the body, its shard and its envelope."""

    def results(self, outcomes: list[bytes | str]) -> bytes:
        """The body of the response, `{"results": […]}`. `outcomes` has for each placed item its stream id, or
        as a string the JSON of its failure. Raises ValueError for too few."""

@final
class XaddPrefixes:
    """XADDs as bytes. Everything except the envelope is prepared once for each shard."""

    def __new__(cls, shards: int) -> XaddPrefixes: ...
    def renew(self, cutoff_ms: int) -> None:
        """The next append to each shard removes entries older than `cutoff_ms`."""

    def xadd(self, shard: int, envelope: bytes) -> bytes:
        """One whole XADD. Raises ValueError for a shard that does not exist."""

_Notification = (
    tuple[Literal["closed"], int, int]
    | tuple[Literal["adopted"], int]
    | tuple[Literal["written"], int, int]
    | tuple[Literal["exceeded"], str, int]
    | tuple[Literal["message"], int, int, bytes]
    | tuple[Literal["keys"], int, list[tuple[int, int, int]]]
    | tuple[Literal["gap"], int, str]
    | tuple[Literal["failed"], str]
)

@final
class Core:
    """The reactor and the stream reader: threads that never need the GIL.

    Times are in milliseconds, sizes in bytes. With `deliver_messages` clients' messages come as
    notifications; otherwise they are checked against RFC 6455 and dropped. 0 leaves a socket's buffer
    and timeout to the kernel.
    """

    def __new__(
        cls,
        *,
        heartbeat_ms: int = 25_000,
        reservation_ms: int = 5_000,
        close_ms: int = 5_000,
        shards: int = 64,
        send_queue_bytes: int = 8_388_608,
        message_bytes: int = 65_536,
        inbox_bytes: int = 16_777_216,
        deliver_messages: bool = False,
        send_queues_bytes: int = ...,
        unsent_age_ms: int = 30_000,
        messages_bytes: int = 4_194_304,
        socket_send_buffer_bytes: int = 0,
        socket_unsent_bytes: int = 0,
        socket_timeout_ms: int = 0,
        inbound_frames_per_s: int = 0,
        inbound_bytes_per_s: int = 0,
        user_topic_bytes: int = 0,
    ) -> Core: ...
    @property
    def notify_fd(self) -> int:
        """Readable while there are notifications."""

    def start_tail(self, address: RedisAddress) -> None:
        """Start to read every shard from its current end. Raises ConnectionError, ValueError."""

    def reserve(
        self,
        principal_kind: str,
        project: int,
        principal_id: int,
        key_tag: int,
        kind: _SubscriptionKind,
        ids: list[int],
        entities: list[str],
        homes: list[int] = ...,
        follow: bool = False,
        address: str | None = None,
        deactivated_homes: list[int] = ...,
    ) -> int:
        """Put a connection into the index, without a socket. Its id is never used twice.

        For devices, `homes` has the home of each of `ids`. For entities, `ids` are the homes of their
        events; for `bound` ones `ids` has the home of each entity. With `follow` the subscription changes
        with the homes that the user joins or leaves, and `deactivated_homes` are added once they are
        activated.
        """

    def connection_counts(
        self, principal_kind: str, project: int, principal_id: int, address: str | None
    ) -> tuple[int, int, int, int, int]:
        """The number of connections on this node, including reservations, of the principal, of its project
        and of the address (of IPv6: its /64). Then the approximate memory of the topics of the principal's
        connections and of the project's, in bytes."""

    def connections_above(
        self, user: int, device: int, project: int, address: int
    ) -> list[tuple[Literal["user", "device", "project", "address"], int, str, int]]:
        """The principals, projects and addresses with more connections than the limit of their kind: kind,
        project (0 for an address), id (or the address, of IPv6 the first of the /64; empty for a project)
        and count."""

    def cache_version(self, shards: list[int]) -> int:
        """The number of control records that this node has read from these shards. A value that was read from
        the store is current as long as this number is unchanged."""

    def cache_version_of_all(self) -> int:
        """The same over all shards."""

    def adopt(self, id: int, fd: int, early: bytes) -> None:
        """Adopt `fd`, a duplicate made for this call. The core owns it from then on, also on failure.
        Raises OSError."""

    def deliver_first(self, id: int, seen: int, envelopes: list[bytes]) -> None:
        """Deliver queued commands to a reservation of their device, in the order of their sequences and
        before everything that is routed. `seen` is the last sequence that was assigned when they were read; a
        routed command with a sequence up to `seen` is not delivered again."""

    def abandon(self, id: int) -> None:
        """Remove a reservation; without effect once it was adopted."""

    def send(self, id: int, opcode: int, payload: bytes) -> None:
        """Send one message after all events that were routed to the connection.

        `opcode` is 1 for text, 2 for binary; ValueError for others.
        """

    def close(self, id: int, code: int, reason: str) -> None:
        """Start the close handshake."""

    def active_keys(self, cursor: int, limit: int) -> None:
        """Request the keys of users of open connections, from `cursor` on (0: the start).

        The notification `keys` has the next cursor (0: that was all) and project, user and key tag of each
        key. At most `limit` connections are scanned; a key may come again in a later part.
        """

    def end_key(self, project: int, user: int, key_tag: int) -> None:
        """Close every connection made with this key of a user, with the code of an ended key."""

    def notifications(self) -> list[_Notification]:
        """All notifications since the last call."""

    def stats(self) -> dict[str, int]:
        """Counters by name."""

    def tail_silence_ms(self) -> int:
        """The time since Redis last answered the stream reader."""

    def stop(self, code: int, reason: str, timeout_ms: int) -> None:
        """Close every connection, wait at most `timeout_ms` for the clients, and stop the threads."""
