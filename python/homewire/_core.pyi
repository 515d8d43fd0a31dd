"""The Rust core. Written by hand and checked against the built module by mypy.stubtest."""

from collections.abc import Sequence
from typing import Final, Literal, Self, final

from typing_extensions import disjoint_base

from homewire.auth.models import Principal
from homewire.auth.subscription import Subscription
from homewire.redis.address import RedisAddress

__all__ = [
    "CommandInput",
    "Core",
    "EventBatch",
    "EventInput",
    "InvalidField",
    "Notification",
    "PlacedEvents",
    "Topic",
    "XaddPrefixes",
    "accept_event",
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
    "shard_of",
]

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

def accept_event(
    body: bytes,
    *,
    project: int,
    home: int,
    time_ms: int,
    shards: int,
    device: int = 0,
    device_class: str | None = None,
    device_ip: str | None = None,
    project_key_id: int = 0,
    project_key_name: str | None = None,
    from_client: bool = True,
) -> PlacedEvents:
    """A batch of one event for a home, of a device or a project key. `from_client` rejects the event types of
    the platform. Raises InvalidField."""

@final
class EventBatch:
    """A bulk body, NDJSON or a JSON array, checked item by item."""

    def __new__(cls, body: bytes, from_client: bool = True) -> EventBatch:
        """`from_client` rejects items with an event type of the platform. Raises InvalidField."""

    def __len__(self) -> int: ...
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

    @property
    def names_entities(self) -> bool:
        """Whether a placed event is about an entity."""

    def entities(self) -> list[tuple[int, str, int]]:
        """For each placed item about an entity: its index in the body, the entity and the home."""

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

@disjoint_base
class Topic:
    """What a connection receives, in the project of its principal."""

    @final
    class Home(Topic):
        """All events of a home."""

        __match_args__: Final = ("home",)
        def __new__(cls, home: int) -> Self: ...
        @property
        def home(self) -> int: ...

    @final
    class Device(Topic):
        """The events of a device in the home where it is now."""

        __match_args__: Final = ("device", "home")
        def __new__(cls, device: int, home: int) -> Self: ...
        @property
        def device(self) -> int: ...
        @property
        def home(self) -> int: ...

    @final
    class Entity(Topic):
        """The events of an entity in a home."""

        __match_args__: Final = ("entity", "home")
        def __new__(cls, entity: str, home: int) -> Self: ...
        @property
        def entity(self) -> str: ...
        @property
        def home(self) -> int: ...

    @final
    class Command(Topic):
        """The commands to a device."""

        __match_args__: Final = ("device",)
        def __new__(cls, device: int) -> Self: ...
        @property
        def device(self) -> int: ...

@disjoint_base
class Notification:
    """What happened in the core."""

    @final
    class Adopted(Notification):
        """A device's command connection was adopted."""

        __match_args__: Final = ("connection_id",)
        def __new__(cls, connection_id: int) -> Self: ...
        @property
        def connection_id(self) -> int: ...

    @final
    class Closed(Notification):
        """A connection was removed, with this close code (1006 without a close frame)."""

        __match_args__: Final = ("connection_id", "code")
        def __new__(cls, connection_id: int, code: int) -> Self: ...
        @property
        def connection_id(self) -> int: ...
        @property
        def code(self) -> int: ...

    @final
    class Written(Notification):
        """The kernel took the whole frame of the queued command with this sequence."""

        __match_args__: Final = ("connection_id", "sequence")
        def __new__(cls, connection_id: int, sequence: int) -> Self: ...
        @property
        def connection_id(self) -> int: ...
        @property
        def sequence(self) -> int: ...

    @final
    class AllowanceExceeded(Notification):
        """A client sent more than its allowance and is closed with 1008."""

        __match_args__: Final = ("principal_kind", "principal_id")
        def __new__(cls, principal_kind: str, principal_id: int) -> Self: ...
        @property
        def principal_kind(self) -> str: ...
        @property
        def principal_id(self) -> int: ...

    @final
    class Message(Notification):
        """A message from a client: text (1) or binary (2)."""

        __match_args__: Final = ("connection_id", "opcode", "payload")
        def __new__(cls, connection_id: int, opcode: int, payload: bytes) -> Self: ...
        @property
        def connection_id(self) -> int: ...
        @property
        def opcode(self) -> int: ...
        @property
        def payload(self) -> bytes: ...

    @final
    class ActiveKeys(Notification):
        """Project, user and key tag of each key of open connections. `cursor`: of the next part; or 0."""

        __match_args__: Final = ("cursor", "keys")
        def __new__(cls, cursor: int, keys: list[tuple[int, int, int]]) -> Self: ...
        @property
        def cursor(self) -> int: ...
        @property
        def keys(self) -> list[tuple[int, int, int]]: ...

    @final
    class Gap(Notification):
        """Entries of a shard may be missing."""

        __match_args__: Final = ("shard", "cause")
        def __new__(cls, shard: int, cause: str) -> Self: ...
        @property
        def shard(self) -> int: ...
        @property
        def cause(self) -> str: ...

    @final
    class Failed(Notification):
        """A thread of the core stopped."""

        __match_args__: Final = ("reason",)
        def __new__(cls, reason: str) -> Self: ...
        @property
        def reason(self) -> str: ...

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

    def reserve(self, principal: Principal, subscription: Subscription, address: str | None = None) -> int:
        """Put a connection into the index, without a socket. Its id is never used twice.

        `address` is the address of the client. Raises ValueError for a project key.
        """

    def connection_counts(self, principal: Principal, address: str | None) -> tuple[int, int, int, int, int]:
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
        """Adopt `fd`, a duplicate made for this call. The core owns it from then on, also on failure. The
        reactor may sleep until `wake`. Raises OSError."""

    def wake(self) -> None:
        """Wake the reactor if adoptions wait for it."""

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

    def notifications(self) -> list[Notification]:
        """All notifications since the last call."""

    def stats(self) -> dict[str, int]:
        """Counters by name."""

    def tail_silence_ms(self) -> int:
        """The time since Redis last answered the stream reader."""

    def stop(self, code: int, reason: str, timeout_ms: int) -> None:
        """Close every connection, wait at most `timeout_ms` for the clients, and stop the threads."""
