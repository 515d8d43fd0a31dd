"""Keys, slots and redirects of a Redis Cluster: what a command and an error reply say about servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from redis.crc import key_slot

from homewire.redis.connection import Argument, Command

SLOTS: Final = 16384
FAILOVER: Final = ("TRYAGAIN", "CLUSTERDOWN")
"""Refusals that end with the move of a slot or with a failover. Nothing was executed."""

_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO"})
_BEHIND_SUBCOMMAND: Final = frozenset({"XINFO", "XGROUP", "MEMORY", "OBJECT"})
_WITHOUT_KEY: Final = frozenset({
    "ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "ECHO", "FLUSHALL", "INFO", "PING",
    "RANDOMKEY", "ROLE", "SCRIPT", "TIME", "WAIT",
})  # fmt: skip

HostPort: TypeAlias = tuple[str, int]


def slot_of(key: Argument) -> int:
    """The slot of a key: that of its hash tag, if it has one."""
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def key_of(command: Command) -> Argument | None:
    """The first key of a command; all keys of a command are in one slot. None: any server may run it.

    SCAN and KEYS ask for keys of one slot if their pattern has a hash tag, so the pattern counts as a key.
    """
    name = command[0]
    if name in _SCRIPTS:
        return command[3] if int(command[2]) else None
    if name in ("XREADGROUP", "XREAD"):
        return command[command.index("STREAMS") + 1]
    if name == "SCAN":
        return command[command.index("MATCH") + 1] if "MATCH" in command else None
    if name in _WITHOUT_KEY:
        return None
    return command[2 if name in _BEHIND_SUBCOMMAND else 1]


@dataclass(frozen=True, slots=True)
class Redirect:
    """MOVED or ASK: the command was not executed here; another server has the slot, or the key alone."""

    is_ask: bool
    slot: int
    host: str
    """Empty: the host of the server that said it."""
    port: int

    @classmethod
    def of(cls, reply: Any) -> Redirect | None:
        """That of an error reply (`MOVED 3999 127.0.0.1:6381`); None for every other reply."""
        if not isinstance(reply, Exception):
            return None
        kind, *rest = str(reply).split(" ")
        if kind not in ("MOVED", "ASK") or len(rest) != 2:
            return None
        host, _, port = rest[1].rpartition(":")
        return cls(kind == "ASK", int(rest[0]), host, int(port))


def is_failing_over(reply: Any) -> bool:
    """Whether a reply says that its slot is served by none for a moment."""
    return isinstance(reply, Exception) and str(reply).startswith(FAILOVER)


def slot_ranges(reply: Sequence[Any]) -> Iterator[tuple[int, int, HostPort]]:
    """First slot, last slot and master of each range that CLUSTER SLOTS tells; an empty host is its own."""
    for first, last, (host, port, *_), *_ in reply:
        name = host.decode() if host is not None else ""
        # A server that does not know the address of another one.
        if name != "?":
            yield int(first), int(last), (name, int(port))
