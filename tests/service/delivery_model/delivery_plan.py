"""Plans for `test_delivery.py`: what is done, and what of it at the same time.

A plan is made from a number alone, before anything runs, so that the number replays it. It is a list of
rounds; the tracks of a round run at the same time, the steps of a track one after the other. Changes that
would get into each other's way, so that nobody could tell how they end, are in one track or in two rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, TypeVar

from delivery_expected import Claims, Expected
from delivery_model import NOWHERE, Filter, Key, Kind
from delivery_steps import (
    AddMember,
    Connect,
    CreateHome,
    DeleteDevice,
    DeleteHome,
    DeleteUser,
    EndSession,
    Item,
    Leave,
    MoveDevice,
    Order,
    Plan,
    RemoveMember,
    RotateKey,
    Round,
    Send,
    SendMany,
    SendWithOldKey,
    Step,
    SwitchHome,
    SwitchProject,
    Track,
)

Id = TypeVar("Id")

NODES: Final = 2
USERS: Final = 5
"""User 0 owns every home and stays; the others come and go."""
KEYS: Final = 3
"""Of each user, from the start."""
HOMES: Final = 4
DEVICES: Final = 4
ENTITIES: Final = ("lamp", "door")
ROUNDS: Final = 8
ARRIVALS: Final = 6
LISTENERS: Final = 24
"""Open at the same time."""
COMMANDS_OF_CLI: Final = 1
"""It takes a process."""


def plan(seed: int) -> Plan:
    """The plan of a number."""
    return Planner(seed).plan()


class Planner:
    """Makes a plan, step by step, and keeps in mind what is so then."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random = Random(seed)
        self._number = 0
        self._listeners: list[int] = []
        self._connected = 0
        self._following: list[Key] = []
        self._homes_made = HOMES
        self._cli_left = COMMANDS_OF_CLI
        self._claims, self._generations = Claims(), dict.fromkeys(range(DEVICES), 0)
        self._track = 0
        self._stopped: int | None = None
        choice = self._random
        members = {(0, home) for home in range(HOMES)}
        members |= {
            (user, home) for user in range(1, USERS) for home in range(HOMES) if choice.random() < 0.45
        }
        self._world = Expected(
            keys=[Key(False, user, number) for user in range(USERS) for number in range(KEYS)],
            users=set(range(USERS)),
            homes=set(range(HOMES)),
            devices=set(range(DEVICES)),
            members=members,
            places={device: choice.choice([NOWHERE, *range(HOMES)]) for device in range(DEVICES)},
            generations=dict.fromkeys(range(DEVICES), 0),
        )

    def plan(self) -> Plan:
        run = self._world
        members, places = tuple(sorted(run.members)), tuple(run.places.values())
        rounds = [self._arrivals(), *(self._round() for _ in range(ROUNDS - 1))]
        return Plan(self._seed, members, places, tuple(rounds))

    def _arrivals(self) -> Round:
        """Some are there before anything happens."""
        return Round(tuple((self._connect(),) for _ in range(ARRIVALS)))

    def _round(self) -> Round:
        self._claims, self._generations = Claims(), dict(self._world.generations)
        self._stopped = self._random.choice([None, None, *range(NODES)])
        if self._random.random() < 0.06:
            return Round(self._without_project(), self._stopped)
        tracks = []
        for number in range(self._random.choice([1, 2, 3, 3, 4])):
            self._track = number
            tracks.append(self._scenario() if self._random.random() < 0.3 else self._mixture())
        return Round(tuple(track for track in tracks if track), self._stopped)

    def _without_project(self) -> tuple[Track, ...]:
        """The project is disabled and enabled again, while others go on as if nothing were."""
        cli, others = self._by_cli(), list[Track]()
        for number in range(2):
            self._track = number
            others.append(self._mixture(changing=False))
        meanwhile: list[Step] = [self._event(), self._connect()]
        self._listeners.clear()
        behind = [self._connect(), self._connect(), self._event()]
        return (SwitchProject(False, cli), *meanwhile, SwitchProject(True), *behind), *others

    def _mixture(self, changing: bool = True) -> Track:
        steps: list[Step] = []
        for _ in range(self._random.randint(2, 7)):
            chance = self._random.random()
            if chance < 0.52:
                steps.append(self._event())
            elif chance < 0.72:
                steps.append(self._connect())
            elif chance < 0.76:
                steps += self._leave()
            elif changing:
                steps += self._change()
        return tuple(steps)

    def _event(self) -> Step:
        chance, node = self._random.random(), self._node()
        if chance < 0.3:
            return Send(node, self._item_to_home())
        if chance < 0.6 and self._world.devices:
            return Send(node, self._item_of_device())
        if chance < 0.82 or not self._world.devices:
            some = self._random.randint(2, 6)
            makers = [self._item_to_home, self._item_of_device if self._world.devices else self._item_to_home]
            return SendMany(node, tuple(self._random.choice(makers)() for _ in range(some)))
        self._number += 1
        return Order(node, self._number, self._one(self._world.devices))

    def _item_to_home(self, home: int | None = None) -> Item:
        self._number += 1
        where = home if home is not None else self._one(self._world.homes)
        return Item(self._number, where, None, self._entity_in(where))

    def _item_of_device(self, device: int | None = None) -> Item:
        self._number += 1
        which = device if device is not None else self._one(self._world.devices)
        return Item(self._number, NOWHERE, which, self._entity_in(self._world.places[which]))

    def _entity_in(self, home: int) -> str | None:
        """What an event there may be about."""
        return self._random.choice([None, *ENTITIES])

    def _connect(self, wanted: Kind | None = None, key: Key | None = None) -> Step:
        if len(self._listeners) >= LISTENERS and wanted is None:
            return self._event()
        chance, run = self._random.random(), self._world
        if wanted is None and chance < 0.2 and run.devices:
            return self._arrive(self._device_key(self._one(run.devices)), Filter(Kind.COMMANDS))
        if key is None:
            dead = run.ended and self._random.random() < 0.1
            key = self._random.choice(run.ended if dead else run.keys)
        return self._arrive(key, self._filter(key.whose, wanted))

    def _arrive(self, key: Key, wanted: Filter) -> Connect:
        name, self._connected = self._connected, self._connected + 1
        self._listeners.append(name)
        if wanted.follows:
            self._following.append(key)
        # Also at a node that is stopped: it is then asked what it has yet to learn of.
        return Connect(name, self._random.randrange(NODES), key, wanted)

    def _filter(self, user: int, wanted: Kind | None = None) -> Filter:
        kind = wanted or self._random.choice(
            [Kind.ALL, Kind.ALL, Kind.HOMES, Kind.HOMES, Kind.DEVICES, Kind.ENTITIES]
        )
        run = self._world
        homes = run.homes_of(user)
        near = [device for device, home in sorted(run.places.items()) if home in homes]
        if kind is Kind.ENTITIES:
            return Filter(kind, entities=tuple(self._some(ENTITIES)))
        if kind is Kind.HOMES and homes:
            return Filter(
                kind, tuple(self._some(homes if self._random.random() < 0.95 else sorted(run.homes)))
            )
        if kind is Kind.DEVICES and near:
            return Filter(kind, tuple(self._some(near)))
        return Filter(Kind.ALL)

    def _leave(self) -> list[Step]:
        if not self._listeners:
            return []
        listener = self._random.choice(self._listeners)
        # One that another track of this round opens is not there yet.
        if not self._claims.take(self._track, [("listener", listener)]):
            return []
        self._listeners.remove(listener)
        return [Leave(listener)]

    def _change(self) -> list[Step]:
        makers: list[Callable[[], list[Step]]] = [self._add] * 6 + [self._remove] * 6 + [self._move] * 4
        makers += [self._rotate, self._end_session, self._end_session, self._end_session]
        makers += [self._create_home, self._delete_home, self._delete_user, self._delete_device]
        makers += [self._switch_home] * 4
        return self._random.choice(makers)()

    def _scenario(self) -> Track:
        """Steps that are delicate when they follow closely upon each other."""
        makers = [self._out_and_in, self._end_and_add, self._move_about, self._rotate_and_come, self._strip]
        makers += [self._off_and_on]
        return tuple(self._random.choice(makers)())

    def _off_and_on(self) -> list[Step]:
        """A home is deactivated and activated again, twice, while its members come, go and listen."""
        steps, home = list[Step](), self._one(self._world.homes)
        for _ in range(4):
            switching = self._switch_home(home)
            steps += [*switching, Send(self._node(), self._item_to_home(home))] if switching else []
            if self._random.random() < 0.4:
                steps += self._random.choice([self._add, self._remove])()
            steps += [self._connect(), Send(self._node(), self._item_to_home(home))]
        return steps

    def _switch_home(self, wanted: int | None = None) -> list[Step]:
        run = self._world
        # Those that are off do not stay so for long: there is little to be learned of them.
        among = (run.deactivated & run.homes) or run.homes
        home = self._one(among) if wanted is None else wanted
        if not self._claims.take(self._track, [("active", home)], [("home", home)]):
            return []
        on = home in run.deactivated
        run.deactivated ^= {home}
        return [SwitchHome(home, on, self._by_cli())]

    def _out_and_in(self) -> list[Step]:
        """A member goes, comes back and connects: the older record must not end the newer connection."""
        steps = self._remove()
        if not steps:
            return self._add()
        gone = steps[-1]
        assert isinstance(gone, RemoveMember)
        key = self._key_of(gone.user)
        steps += [Send(self._node(), self._item_to_home(gone.home)), self._added(gone.user, gone.home)]
        if key is not None:
            steps.append(self._arrive(key, Filter(Kind.HOMES, (gone.home,))))
        return [*steps, Send(self._node(), self._item_to_home(gone.home))]

    def _end_and_add(self) -> list[Step]:
        """A session ends and its user enters a home: the session must not receive it, others must."""
        listening = [key for key in self._world.keys if key in self._following]
        steps = self._end_session(self._random.choice(listening) if listening else None)
        for step in steps[:1]:
            assert isinstance(step, EndSession)
            for adding in self._add(step.key.whose):
                assert isinstance(adding, AddMember)
                steps += [adding, *(Send(self._node(), self._item_to_home(adding.home)) for _ in range(2))]
        return steps

    def _move_about(self) -> list[Step]:
        """A device goes from home to home, and its listeners connect again."""
        steps: list[Step] = []
        for _ in range(2):
            moving = self._move()
            for step in moving:
                assert isinstance(step, MoveDevice)
                steps += [step, Send(self._node(), self._item_of_device(step.device))]
                listening = [key for key in self._world.keys if self._may_listen(key.whose, step)]
                if listening:
                    key = self._random.choice(listening)
                    steps.append(self._arrive(key, Filter(Kind.DEVICES, (step.device,))))
                steps += [Send(self._node(), self._item_of_device(step.device)) for _ in range(2)]
        return steps

    def _may_listen(self, user: int, moved: MoveDevice) -> bool:
        return (user, moved.home) in self._world.members

    def _rotate_and_come(self) -> list[Step]:
        steps = self._rotate()
        for step in steps[:1]:
            assert isinstance(step, RotateKey)
            device = step.device
            self._number += 1
            steps += [
                SendWithOldKey(self._node(), device),
                self._arrive(self._device_key(device), Filter(Kind.COMMANDS)),
                Order(self._node(), self._number, device),
            ]
        return steps

    def _strip(self) -> list[Step]:
        """A user leaves one home after the other, each time with an event behind it."""
        user = self._random.randrange(1, USERS)
        key, steps = self._key_of(user), list[Step]()
        if key is not None and self._world.homes_of(user):
            steps.append(self._arrive(key, Filter(Kind.HOMES, tuple(self._world.homes_of(user)))))
        for home in self._world.homes_of(user):
            for step in self._remove_from(user, home):
                steps += [step, Send(self._node(), self._item_to_home(home))]
        return steps

    def _add(self, user: int | None = None) -> list[Step]:
        run = self._world
        users = sorted(run.users) if user is None else [user]
        every = [(each, home) for each in users for home in sorted(run.homes)]
        free = [member for member in every if member not in run.members]
        if not free:
            return []
        user, home = self._random.choice(free)
        if not self._claims.take(self._track, [("member", user, home)], [("user", user), ("home", home)]):
            return []
        return [self._added(user, home)]

    def _added(self, user: int, home: int) -> Step:
        self._world.members.add((user, home))
        return AddMember(user, home, self._by_cli())

    def _remove(self) -> list[Step]:
        guests = sorted(member for member in self._world.members if member[0] != 0)
        return self._remove_from(*self._random.choice(guests)) if guests else []

    def _remove_from(self, user: int, home: int) -> list[Step]:
        if not self._claims.take(self._track, [("member", user, home)], [("user", user), ("home", home)]):
            return []
        self._world.members.remove((user, home))
        return [RemoveMember(user, home, self._by_cli())]

    def _end_session(self, wanted: Key | None = None) -> list[Step]:
        key = wanted or self._random.choice(self._world.keys)
        if key.whose == 0 and len([each for each in self._world.keys if each.whose == 0]) == 1:
            return []
        if not self._claims.take(self._track, [key], [("user", key.whose)]):
            return []
        self._world.keys.remove(key)
        self._world.ended.append(key)
        return [EndSession(key)]

    def _delete_user(self) -> list[Step]:
        if len(self._world.users) < 4 or self._random.random() < 0.5:
            return []
        user = self._random.choice(sorted(self._world.users - {0}))
        if not self._claims.take(self._track, [("user", user)]):
            return []
        run = self._world
        run.users.remove(user)
        run.ended += [key for key in run.keys if key.whose == user]
        run.keys = [key for key in run.keys if key.whose != user]
        run.members = {member for member in run.members if member[0] != user}
        return [DeleteUser(user, self._by_cli())]

    def _create_home(self) -> list[Step]:
        home, self._homes_made = self._homes_made, self._homes_made + 1
        self._claims.take(self._track, [("home", home)])
        self._world.homes.add(home)
        self._world.members.add((0, home))
        return [CreateHome(home)]

    def _delete_home(self) -> list[Step]:
        run = self._world
        if len(run.homes) < 3:
            return []
        home = self._one(run.homes)
        inside = [device for device, place in run.places.items() if place == home]
        bound = [entity for entity, place in run.bindings.items() if place == home]
        claims = [*(("device", each) for each in inside), *(("entity", each) for each in bound)]
        if not self._claims.take(self._track, [("home", home), *claims]):
            return []
        run.homes.remove(home)
        run.members = {member for member in run.members if member[1] != home}
        run.places.update(dict.fromkeys(inside, NOWHERE))
        run.bindings.update(dict.fromkeys(bound, NOWHERE))
        return [DeleteHome(home, self._by_cli())]

    def _rotate(self) -> list[Step]:
        device = self._claimed_device()
        if device is None:
            return []
        self._world.generations[device] += 1
        return [RotateKey(device, self._by_cli())]

    def _move(self) -> list[Step]:
        device = self._claimed_device()
        if device is None:
            return []
        old = self._world.places[device]
        new = self._random.choice([each for each in (NOWHERE, *sorted(self._world.homes)) if each != old])
        if not self._claims.take(self._track, [], [("home", each) for each in (old, new) if each != NOWHERE]):
            return []
        self._world.places[device] = new
        return [MoveDevice(device, new, self._by_cli())]

    def _delete_device(self) -> list[Step]:
        device = self._claimed_device() if len(self._world.devices) > 2 else None
        if device is None:
            return []
        self._world.devices.remove(device)
        del self._world.places[device]
        return [DeleteDevice(device, self._by_cli())]

    def _claimed_device(self) -> int | None:
        if not self._world.devices:
            return None
        device = self._one(self._world.devices)
        return device if self._claims.take(self._track, [("device", device)]) else None

    def _device_key(self, device: int) -> Key:
        """The newest, or while another track rotates it the one that it had at the beginning of the round."""
        own = self._claims.owned(self._track, ("device", device))
        return Key(True, device, (self._world.generations if own else self._generations)[device])

    def _key_of(self, user: int) -> Key | None:
        keys = [key for key in self._world.keys if key.whose == user]
        return self._random.choice(keys) if keys else None

    def _by_cli(self) -> bool:
        if self._cli_left == 0 or self._stopped is not None or self._random.random() > 0.1:
            return False
        self._cli_left -= 1
        return True

    def _node(self) -> int:
        return self._random.choice([node for node in range(NODES) if node != self._stopped])

    def _one(self, among: set[int]) -> int:
        return self._random.choice(sorted(among))

    def _some(self, among: Sequence[Id]) -> list[Id]:
        return self._random.sample(among, self._random.randint(1, min(2, len(among))))
