"""The Rust core. Written by hand and checked against the built module by mypy.stubtest."""

from typing import Literal, final

__all__ = [
    "AppendHeads",
    "CommandInput",
    "Core",
    "EventBatch",
    "EventInput",
    "InvalidField",
    "PlacedEvents",
    "close_codes",
    "command_envelope",
    "event_envelope",
    "event_json",
    "event_route",
    "kept_command_envelope",
    "parse_command",
    "parse_event",
    "select_filter",
    "shard_of",
]

_SubscriptionKind = Literal["homes", "devices", "entities", "bound", "command"]

class InvalidField(Exception):
    """Input that is refused: `field` names the member, `problem` says what is wrong with it."""

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
    """Each close code that the core says, its reason, and what a client should do; ascending."""

def parse_event(body: bytes, from_client: bool = False) -> EventInput:
    """`from_client` refuses the event types of the platform. Raises InvalidField."""

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
    """Project, home and type of an event; None for every other envelope, also one that is malformed."""

def event_json(envelope: bytes) -> bytes | None:
    """The Event object, byte for byte as listeners get it; None for every other envelope."""

def command_envelope(input: CommandInput, project: int, device: int, time_ms: int) -> bytes: ...
def kept_command_envelope(
    input: CommandInput, project: int, device: int, time_ms: int, expires_ms: int
) -> tuple[bytes, bytes]:
    """The envelope of a command that will be kept: its ticket, a msgpack integer, stands between the two."""

def select_filter(
    home_ids: list[str], device_ids: list[str], entity_ids: list[str]
) -> tuple[Literal["all", "homes", "devices", "entities"], list[int], list[str]]: ...

@final
class EventBatch:
    """A bulk body, NDJSON or a JSON array, checked item by item."""

    def __new__(cls, body: bytes, from_client: bool = True) -> EventBatch:
        """`from_client` refuses the items of an event type of the platform. Raises InvalidField."""

    def __len__(self) -> int: ...
    @property
    def names_entities(self) -> bool:
        """Whether one of the events is about an entity."""

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
        """Every item with its shard and envelope, or with why it has none. `homes` are those of the
        project, without the `deactivated`; `devices` give each device's home (0: none) and class."""

@final
class PlacedEvents:
    """The items of a bulk body, in order. Its length is how many have a place."""

    def __len__(self) -> int: ...
    @property
    def last_shard(self) -> int | None:
        """The shard of the last placed item."""

    def commands(self, heads: AppendHeads) -> bytes:
        """One XADD for each placed item, in order."""

    def placed(self) -> list[tuple[int, int, bytes]]:
        """Of each placed item its index in the body, its shard and its envelope."""

    def results(self, outcomes: list[bytes | str]) -> bytes:
        """The answer's body, `{"results": […]}`. `outcomes` has for each placed item its stream id, or
        as a string the JSON of its failure. Raises ValueError for too few."""

@final
class AppendHeads:
    """XADDs as bytes. All of them but the envelope is prepared, once for each shard."""

    def __new__(cls, shards: int) -> AppendHeads: ...
    def renew(self, cutoff_ms: int) -> None:
        """From now on each shard's next append removes entries older than `cutoff_ms`."""

    def xadd(self, shard: int, envelope: bytes) -> bytes:
        """One whole XADD. Raises ValueError for a shard that does not exist."""

_Notification = (
    tuple[Literal["closed"], int, int]
    | tuple[Literal["reserved"], int, int, int]
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
    """The reactor and the tail: two threads that never need the GIL.

    Times are in milliseconds, sizes in bytes. With `deliver_messages` the messages of clients come
    as notifications; otherwise they are checked against RFC 6455 and dropped. 0 leaves a socket's buffer
    and time to the kernel.
    """

    def __new__(
        cls,
        *,
        heartbeat_ms: int = 25_000,
        reservation_ms: int = 5_000,
        close_ms: int = 5_000,
        shards: int = 64,
        outbox_bytes: int = 8_388_608,
        message_bytes: int = 65_536,
        inbox_bytes: int = 16_777_216,
        deliver_messages: bool = False,
        outboxes_bytes: int = ...,
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

    def start_tail(self, url: str) -> None:
        """Begin to read every shard from its end of now on. Raises ConnectionError, ValueError."""

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
        waiting: list[int] = ...,
    ) -> int:
        """Put a connection into the index, without a socket. Its id is never used twice.

        `homes` gives for each of `ids` the home that it is in, if they are devices. Entities are heard in
        each of the homes `ids`; `bound` ones each in its own, `ids` being as many. With `follow` the homes
        that the user enters or leaves change what is heard, and the user's homes `waiting`, which are
        deactivated, are heard from their activation on.
        """

    def held(
        self, principal_kind: str, project: int, principal_id: int, address: str | None
    ) -> tuple[int, int, int, int, int]:
        """How many connections, reserved ones too, this node has of the principal, of its project and of
        the address. Of IPv6 a /64 counts as one address. Then the memory of the topics of the principal's
        connections and of the project's, in bytes, about."""

    def held_above(
        self, user: int, device: int, project: int, address: int
    ) -> list[tuple[Literal["user", "device", "project", "address"], int, str, int]]:
        """Who holds more connections than is said for its kind: kind, project (0 for an address), id (or
        the address, of IPv6 the /64's first; empty for a project) and count."""

    def mark(self, shards: list[int]) -> int:
        """How many control records of these shards this node has read. What was read from the store
        while it stood still is as new as the mark."""

    def mark_of_all(self) -> int:
        """The same over all shards."""

    def adopt(self, id: int, fd: int, early: bytes) -> None:
        """Take over `fd`, a duplicate made for this call and the core's from then on, also if this fails.
        Raises OSError."""

    def deliver_first(self, id: int, seen: int, envelopes: list[bytes]) -> None:
        """Give a reservation of a device's commands those that were kept for it, in the order of their
        tickets: before everything that is routed. `seen` is the last ticket that was given out when they
        were read; what is routed with one up to that is not delivered again."""

    def abandon(self, id: int) -> None:
        """Undo a reservation; of no effect once it was adopted."""

    def send(self, id: int, opcode: int, payload: bytes) -> None:
        """Send one frame behind every event that the connection already got."""

    def close(self, id: int, code: int, reason: str) -> None:
        """Begin the close handshake."""

    def keys_in_use(self, cursor: int, limit: int) -> None:
        """Ask for the keys of users that connections are open with, from `cursor` on (0: the beginning).

        The notification `keys` answers, with the next cursor (0: that was all) and project, user and key tag
        of each key. At most `limit` connections are looked at; a key may come again in a later part.
        """

    def end_key(self, project: int, user: int, key_tag: int) -> None:
        """Close every connection that was made with this key of a user, with the code of a key that ended."""

    def notifications(self) -> list[_Notification]:
        """Everything that happened since the last call."""

    def stats(self) -> dict[str, int]:
        """Counters by name."""

    def tail_silence_ms(self) -> int:
        """How long ago Redis last answered the tail."""

    def stop(self, code: int, reason: str, patience_ms: int) -> None:
        """Close every connection, wait at most so long for the clients, end the threads."""
