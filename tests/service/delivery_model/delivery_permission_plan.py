"""Plans for projects where permissions decide: granted, revoked, by a group and without."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import Final

from delivery_model import NOWHERE, Filter, Kind, Permission
from delivery_plan import ENTITIES, HOMES, USERS, Planner
from delivery_steps import Bind, Grant, Item, MoveDevice, Plan, Revoke, Send, Step, Track

GROUP: Final = (1, 2)
"""The users who are in the group."""
GRANTED: Final = 0.35
"""Of all the permissions that there are, to each user at the start."""


def permission_plan(seed: int) -> Plan:
    """The plan of a number."""
    return _PermissionPlanner(seed).plan()


class _PermissionPlanner(Planner):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        choice, run = self._random, self._world
        run.bindings = {entity: choice.randrange(HOMES) for entity in ENTITIES}
        every = self._permissions()
        run.grants = {
            (user, permission) for user in range(USERS) for permission in every if choice.random() < GRANTED
        }
        run.grants |= {(None, permission) for permission in choice.sample(every, 2)}

    def plan(self) -> Plan:
        bindings, grants = tuple(self._world.bindings.items()), tuple(_in_order(self._world.grants))
        return replace(super().plan(), by_permission=True, bindings=bindings, grants=grants)

    def _permissions(self, *kinds: Kind) -> list[Permission]:
        """Those to what there is, of these kinds or of all."""
        run = self._world
        every = [Permission(Kind.HOMES, home) for home in sorted(run.homes)]
        every += [Permission(Kind.DEVICES, device) for device in sorted(run.devices)]
        every += [Permission(Kind.ENTITIES, entity) for entity in ENTITIES]
        return [permission for permission in every if not kinds or permission.kind in kinds]

    def _has(self, user: int, permission: Permission) -> bool:
        grants = self._world.grants
        return (user, permission) in grants or (user in GROUP and (None, permission) in grants)

    def _is_somewhere(self, permission: Permission) -> bool:
        run = self._world
        if permission.kind is Kind.DEVICES:
            return run.places[int(permission.what)] != NOWHERE
        return permission.kind is Kind.HOMES or run.bindings[str(permission.what)] != NOWHERE

    def _filter(self, user: int, wanted: Kind | None = None) -> Filter:
        kinds = [Kind.HOMES] * 4 + [Kind.DEVICES] * 3 + [Kind.ENTITIES] * 3 + [Kind.ALL]
        kind = wanted or self._random.choice(kinds)
        every = self._permissions(kind)
        held = [
            permission
            for permission in every
            if self._has(user, permission) and self._is_somewhere(permission)
        ]
        # Now and then also what it may not.
        among = held if held and self._random.random() < 0.93 else every
        return _filter_for(self._some(among)) if among else Filter(Kind.ALL)

    def _entity_in(self, home: int) -> str | None:
        """Now and then also one that is bound elsewhere: such an event is refused."""
        bindings = self._world.bindings
        here = [entity for entity in ENTITIES if bindings[entity] in (home, NOWHERE)]
        among: list[str | None] = [None, *(here if self._random.random() < 0.95 else ENTITIES)]
        return self._random.choice(among)

    def _may_listen(self, user: int, moved: MoveDevice) -> bool:
        return self._has(user, Permission(Kind.DEVICES, moved.device))

    def _change(self) -> list[Step]:
        makers: list[Callable[[], list[Step]]] = [self._grant] * 7 + [self._revoke] * 7 + [self._move] * 3
        makers += [self._grant_to_group, self._revoke_from_group] * 2 + [self._bind] * 3
        # Memberships are nothing to listeners here.
        makers += [self._add, self._remove, self._rotate, self._end_session, self._end_session]
        makers += [self._create_home, self._delete_home, self._delete_user, self._delete_device]
        makers += [self._switch_home] * 4
        return self._random.choice(makers)()

    def _scenario(self) -> Track:
        makers = [self._out_and_in, self._strip, self._one_source_less, self._bind_about]
        makers += [self._move_about, self._rotate_and_come, self._off_and_on]
        return tuple(self._random.choice(makers)())

    def _out_and_in(self) -> list[Step]:
        """A permission ends and is granted again: the older record must not end the newer connection."""
        steps = self._revoke()
        for step in steps[:1]:
            assert isinstance(step, Revoke)
            assert step.user is not None
            permission, key = step.permission, self._key_of(step.user)
            steps.append(self._event_about(permission))
            if self._exists(permission):
                steps += self._granted(step.user, permission)
                if key is not None:
                    steps.append(self._arrive(key, _filter_for([permission])))
                steps.append(self._event_about(permission))
        return steps

    def _strip(self) -> list[Step]:
        """A user loses one permission after the other, each time with an event behind it."""
        user = self._one(self._world.users)
        kind = self._random.choice([Kind.HOMES, Kind.DEVICES, Kind.ENTITIES])
        held = [permission for permission in self._permissions(kind) if self._has(user, permission)]
        usable, key, steps = (
            [each for each in held if self._is_somewhere(each)],
            self._key_of(user),
            list[Step](),
        )
        if key is not None and usable:
            steps.append(self._arrive(key, _filter_for(usable)))
        for permission in held:
            if (user, permission) in self._world.grants:
                for step in self._revoked(user, permission):
                    steps += [step, self._event_about(permission)]
        return steps

    def _one_source_less(self) -> list[Step]:
        """Who has a permission from two sources loses it with the second."""
        user = self._random.choice(GROUP)
        key, permission = self._key_of(user), self._random.choice(self._permissions())
        if key is None or user not in self._world.users or not self._is_somewhere(permission):
            return []
        steps = list[Step]()
        for whose in (None, user):
            if (whose, permission) not in self._world.grants:
                steps += self._granted(whose, permission)
        steps.append(self._arrive(key, _filter_for([permission])))
        for source in self._random.sample([None, user], 2):
            if (source, permission) in self._world.grants:
                steps += [*self._revoked(source, permission), self._event_about(permission)]
        return steps

    def _bind_about(self) -> list[Step]:
        """An entity goes from home to home, and its listeners connect again."""
        steps: list[Step] = []
        for _ in range(2):
            for step in self._bind():
                assert isinstance(step, Bind)
                permission = Permission(Kind.ENTITIES, step.entity)
                steps += [step, self._event_about(permission)]
                listening = [key for key in self._world.keys if self._has(key.whose, permission)]
                if listening:
                    steps.append(self._arrive(self._random.choice(listening), _filter_for([permission])))
                steps += [self._event_about(permission) for _ in range(2)]
        return steps

    def _event_about(self, permission: Permission) -> Step:
        if permission.kind is Kind.DEVICES and permission.what in self._world.devices:
            return Send(self._node(), self._item_of_device(int(permission.what)))
        if permission.kind is Kind.HOMES and permission.what in self._world.homes:
            return Send(self._node(), self._item_to_home(int(permission.what)))
        if permission.kind is Kind.ENTITIES:
            self._number += 1
            home = self._world.bindings[str(permission.what)]
            where = home if home != NOWHERE else self._one(self._world.homes)
            return Send(self._node(), Item(self._number, where, None, str(permission.what)))
        return self._event()

    def _grant(self) -> list[Step]:
        users = sorted(self._world.users)
        free = [
            (user, permission)
            for user in users
            for permission in self._permissions()
            if (user, permission) not in self._world.grants
        ]
        return self._granted(*self._random.choice(free)) if free else []

    def _grant_to_group(self) -> list[Step]:
        free = [
            permission for permission in self._permissions() if (None, permission) not in self._world.grants
        ]
        return self._granted(None, self._random.choice(free)) if free else []

    def _revoke(self) -> list[Step]:
        held = [
            (user, permission)
            for user, permission in _in_order(self._world.grants)
            if user in self._world.users
        ]
        return self._revoked(*self._random.choice(held)) if held else []

    def _revoke_from_group(self) -> list[Step]:
        held = [permission for user, permission in _in_order(self._world.grants) if user is None]
        return self._revoked(None, self._random.choice(held)) if held else []

    def _granted(self, user: int | None, permission: Permission) -> list[Step]:
        if not self._claim(user, permission, [_about(permission)]):
            return []
        self._world.grants.add((user, permission))
        return [Grant(user, permission)]

    def _revoked(self, user: int | None, permission: Permission) -> list[Step]:
        if not self._claim(user, permission):
            return []
        self._world.grants.remove((user, permission))
        return [Revoke(user, permission)]

    def _claim(self, user: int | None, permission: Permission, needs: Iterable[Hashable] = ()) -> bool:
        users = GROUP if user is None else (user,)
        changes = [("permission", each, permission) for each in users]
        return self._claims.take(self._track, changes, [*needs, *(("user", each) for each in users)])

    def _exists(self, permission: Permission) -> bool:
        return permission in self._permissions()

    def _bind(self) -> list[Step]:
        entity, bindings = self._random.choice(ENTITIES), self._world.bindings
        old = bindings[entity]
        new = self._random.choice([each for each in (NOWHERE, *sorted(self._world.homes)) if each != old])
        homes = [("home", each) for each in (old, new) if each != NOWHERE]
        if not self._claims.take(self._track, [("entity", entity)], homes):
            return []
        bindings[entity] = new
        return [Bind(entity, new)]


def _filter_for(permissions: list[Permission]) -> Filter:
    kind = permissions[0].kind
    if kind is Kind.ENTITIES:
        return Filter(kind, entities=tuple(str(permission.what) for permission in permissions))
    return Filter(kind, tuple(int(permission.what) for permission in permissions))


def _about(permission: Permission) -> Hashable:
    noun = {Kind.HOMES: "home", Kind.DEVICES: "device", Kind.ENTITIES: "entity"}[permission.kind]
    return noun, permission.what


def _in_order(grants: Iterable[tuple[int | None, Permission]]) -> list[tuple[int | None, Permission]]:
    """The same each time, for plans are made of their seed alone."""
    return sorted(grants, key=lambda each: (each[0] is None, each[0], each[1].kind.value, str(each[1].what)))
