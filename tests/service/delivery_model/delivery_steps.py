"""Plans, and the steps that they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from delivery_model import Filter, Key, Permission


@dataclass(frozen=True)
class Connect:
    listener: int
    node: int
    key: Key
    filter: Filter


@dataclass(frozen=True)
class Leave:
    listener: int


@dataclass(frozen=True)
class Item:
    """An event to a home, or (`home` is NOWHERE) of a device."""

    number: int
    home: int
    device: int | None
    entity: str | None


@dataclass(frozen=True)
class Send:
    """PUT /homes/{id}/event by a project key, or PUT /devices/{id}/event by the device."""

    node: int
    item: Item


@dataclass(frozen=True)
class SendMany:
    """POST /events."""

    node: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Order:
    """PUT /devices/{id}/command by a project key."""

    node: int
    number: int
    device: int


@dataclass(frozen=True)
class SendWithOldKey:
    """An event of a device by the key that it had before: refused, once both nodes have learned of it."""

    node: int
    device: int


@dataclass(frozen=True)
class AddMember:
    user: int
    home: int
    by_cli: bool = False


@dataclass(frozen=True)
class RemoveMember:
    user: int
    home: int
    by_cli: bool = False


@dataclass(frozen=True)
class EndSession:
    key: Key


@dataclass(frozen=True)
class DeleteUser:
    user: int
    by_cli: bool = False


@dataclass(frozen=True)
class CreateHome:
    """By user 0, and then user 0 receives it."""

    home: int


@dataclass(frozen=True)
class DeleteHome:
    home: int
    by_cli: bool = False


@dataclass(frozen=True)
class SwitchHome:
    """Deactivate or activate it."""

    home: int
    on: bool
    by_cli: bool = False


@dataclass(frozen=True)
class RotateKey:
    device: int
    by_cli: bool = False


@dataclass(frozen=True)
class MoveDevice:
    device: int
    home: int
    by_cli: bool = False


@dataclass(frozen=True)
class DeleteDevice:
    device: int
    by_cli: bool = False


@dataclass(frozen=True)
class Grant:
    """To a user, or (None) to the group."""

    user: int | None
    permission: Permission


@dataclass(frozen=True)
class Revoke:
    """What was granted to a user, or to the group; who has it from both keeps it."""

    user: int | None
    permission: Permission


@dataclass(frozen=True)
class Bind:
    """An entity is deleted and made again: bound to another home, or to none."""

    entity: str
    home: int


@dataclass(frozen=True)
class SwitchProject:
    """Disable or enable it."""

    on: bool
    by_cli: bool = False


Step: TypeAlias = (
    Connect | Leave | Send | SendMany | Order | SendWithOldKey | AddMember | RemoveMember | EndSession
    | DeleteUser | CreateHome | DeleteHome | SwitchHome | RotateKey | MoveDevice | DeleteDevice | Grant
    | Revoke | Bind | SwitchProject
)  # fmt: skip
Track: TypeAlias = tuple[Step, ...]


@dataclass(frozen=True)
class Round:
    """Tracks that run at the same time."""

    tracks: tuple[Track, ...]
    stopped: int | None = None
    """A node that does nothing meanwhile, and then has all of it to read at once. Who asks it waits."""


@dataclass(frozen=True)
class Plan:
    """What is done. The members, places of devices at the start are those of `members` and `places`."""

    seed: int
    members: tuple[tuple[int, int], ...]
    """User and home."""
    places: tuple[int, ...]
    """The home of each device."""
    rounds: tuple[Round, ...]
    by_permission: bool = False
    """Whether permissions decide what is received, and not memberships."""
    bindings: tuple[tuple[str, int], ...] = ()
    """The home of each entity that is bound."""
    grants: tuple[tuple[int | None, Permission], ...] = ()
    """By user; None: to the group."""

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: members {self.members}, devices in {self.places}"]
        if self.by_permission:
            lines += [f"entities in {self.bindings}, permissions {self.grants}"]
        for number, each in enumerate(self.rounds):
            stopped = "" if each.stopped is None else f" while node {each.stopped} is stopped"
            lines.append(f"round {number}, at the same time{stopped}:")
            for track in each.tracks:
                lines += [f"  {'-' if at == 0 else ' '} {step}" for at, step in enumerate(track)]
        return "\n".join(lines)
