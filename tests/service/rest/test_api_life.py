"""A random life of users, homes and devices over HTTP, against a model of a hundred lines.

The short form is the same in each run; `make fuzz-api` lives other lives, and many more of them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from time import monotonic, sleep
from typing import Any, ClassVar, Final

import pytest
import requests
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from life_model import MEMBER, OWNER, Device, Home, Project
from redis import Redis

from kit.in_redis import SHARDS, events_key
from kit.node import NodeProcess, private_node
from kit.tenant import tenant_of

LONG: Final = os.environ.get("HOMEWIRE_EXAMPLES")
DEVICES: Final = 3

NUMBERS = st.integers(0, 5)
"""Which of the users, homes or devices that there are, counted around."""
NAMES = st.sampled_from(["Ada", "Hütte", "a" * 80, "x y"])
ROLES = st.sampled_from([OWNER, MEMBER])


class Life(RuleBasedStateMachine):
    """Every rule asks for something, sure to be granted or not, and the model says which."""

    node: ClassVar[NodeProcess]
    redis: ClassVar[Redis]

    def __init__(self) -> None:
        super().__init__()
        self.model = Project()
        self.keys: dict[int, str] = {}
        self.http = requests.Session()
        self.steps = 0
        self.project, self.admin = asyncio.run(self.begin())

    async def begin(self) -> tuple[int, str]:
        """A project that brings its own users, with unclaimed devices."""
        async with tenant_of(self.node, "byou") as tenant:
            for _ in range(DEVICES):
                device, key, code = await tenant.store.devices.create(tenant.project, "lamp")
                self.model.devices[device.id] = Device(key, code)
            return tenant.project, await tenant.project_key("admin")

    def ask(self, method: str, path: str, key: str, expected: int, **body: Any) -> Any:
        """The JSON of the answer, which must have this status."""
        answer = self.http.request(
            method, self.node.url + path, headers={"Authorization": key}, timeout=10, **body
        )
        assert answer.status_code == expected, f"{method} {path}: {answer.status_code} {answer.text}"
        if method != "GET":
            self.settle()
        return answer.json() if answer.content else None

    def settle(self) -> None:
        """Wait until the node has read of the change; until then it may answer from memory."""
        until = monotonic() + 10
        while self.read() < self.announced():
            assert monotonic() < until, "the node does not read what it announced"
            sleep(0.002)

    def read(self) -> int:
        lines = self.http.get(self.node.admin_url + "/metrics", timeout=10).text.splitlines()
        name = "homewire_envelopes_total "
        return next(int(float(line.removeprefix(name))) for line in lines if line.startswith(name))

    def announced(self) -> int:
        with self.redis.pipeline(transaction=False) as pipeline:
            for shard in range(SHARDS):
                pipeline.xlen(events_key(shard))
            return sum(pipeline.execute())

    def user(self, number: int) -> int:
        return list(self.model.users)[number % len(self.model.users)]

    def home(self, number: int) -> int:
        return list(self.model.homes)[number % len(self.model.homes)]

    def device(self, number: int) -> int:
        return list(self.model.devices)[number % len(self.model.devices)]

    def has_users(self) -> bool:
        return bool(self.model.users)

    def has_homes(self) -> bool:
        return bool(self.model.users and self.model.homes)

    @initialize()
    def settle_in(self) -> None:
        """Two users who share a home, a third with one of their own, and a device that can be claimed."""
        for _ in range(3):
            self.register("Ada")
        self.create_home(0, "Hut")
        self.create_home(2, "Tent")
        self.add_member(0, 0, 1, MEMBER)
        self.register_device(0, True)

    @rule(name=NAMES)
    def register(self, name: str) -> None:
        body = {"projectId": self.project, "name": name}
        made = self.ask("POST", "/users", self.admin, 201, json=body)
        assert (made["name"], made["projectId"]) == (name, self.project)
        form = {"projectId": self.project, "userId": made["id"]}
        self.keys[made["id"]] = self.ask("POST", "/auth/user", self.admin, 200, data=form)["token"]
        self.model.users[made["id"]] = name

    @precondition(has_users)
    @rule(account=NUMBERS, name=NAMES)
    def rename_user(self, account: int, name: str) -> None:
        user = self.user(account)
        self.ask("PATCH", f"/users/{user}", self.keys[user], 204, json={"name": name})
        self.model.users[user] = name

    @precondition(has_users)
    @rule(account=NUMBERS)
    def delete_user(self, account: int) -> None:
        user = self.user(account)
        self.ask("DELETE", f"/users/{user}", self.keys[user], 204)
        self.ask("GET", f"/users/{user}", self.keys.pop(user), 401)
        self.model.delete_user(user)

    @precondition(has_users)
    @rule(account=NUMBERS, name=NAMES)
    def create_home(self, account: int, name: str) -> None:
        user = self.user(account)
        made = self.ask("POST", "/homes", self.keys[user], 201, json={"name": name})
        self.model.homes[made["id"]] = Home(name, {user: OWNER})

    @precondition(has_homes)
    @rule(by=NUMBERS, where=NUMBERS, name=NAMES)
    def rename_home(self, by: int, where: int, name: str) -> None:
        user, home = self.user(by), self.home(where)
        status = self.model.as_owner(home, user)
        self.ask("PATCH", f"/homes/{home}", self.keys[user], status, json={"name": name})
        if status == 204:
            self.model.homes[home].name = name

    @precondition(has_homes)
    @rule(by=NUMBERS, where=NUMBERS)
    def delete_home(self, by: int, where: int) -> None:
        user, home = self.user(by), self.home(where)
        status = self.model.as_owner(home, user)
        self.ask("DELETE", f"/homes/{home}", self.keys[user], status)
        if status == 204:
            self.model.delete_home(home)

    @precondition(has_homes)
    @rule(by=NUMBERS, where=NUMBERS, other_number=NUMBERS, role=ROLES)
    def add_member(self, by: int, where: int, other_number: int, role: str) -> None:
        user, home, other = self.user(by), self.home(where), self.user(other_number)
        status = self.model.add_member(user, home, other, role)
        form = {"userId": other, "role": role}
        self.ask("POST", f"/homes/{home}/members", self.keys[user], status, data=form)

    @precondition(has_homes)
    @rule(by=NUMBERS, where=NUMBERS, other_number=NUMBERS, role=ROLES)
    def set_role(self, by: int, where: int, other_number: int, role: str) -> None:
        user, home, other = self.user(by), self.home(where), self.user(other_number)
        status = self.model.set_role(user, home, other, role)
        path = f"/homes/{home}/members/{other}"
        self.ask("PATCH", path, self.keys[user], status, json={"role": role})

    @precondition(has_homes)
    @rule(by=NUMBERS, where=NUMBERS, other_number=NUMBERS)
    def remove_member(self, by: int, where: int, other_number: int) -> None:
        user, home, other = self.user(by), self.home(where), self.user(other_number)
        status = self.model.remove_member(user, home, other)
        self.ask("DELETE", f"/homes/{home}/members/{other}", self.keys[user], status)

    @rule(which=NUMBERS, claimable=st.booleans())
    def register_device(self, which: int, claimable: bool) -> None:
        device = self.device(which)
        each = self.model.devices[device]
        form = {"deviceId": device, "claimable": str(claimable).lower()}
        self.ask("POST", "/deviceRegistration", each.key, 200, data=form)
        each.claimable = claimable

    @precondition(has_homes)
    @rule(by=NUMBERS, where=NUMBERS, which=NUMBERS)
    def claim(self, by: int, where: int, which: int) -> None:
        user, home, device = self.user(by), self.home(where), self.device(which)
        code = self.model.devices[device].claim_code
        status = self.model.claim(user, home, device)
        form = {"homeId": home, "claimCode": code}
        made = self.ask("POST", "/devices", self.keys[user], status, data=form)
        assert status != 201 or (made["id"], made["homeId"]) == (device, home)

    @precondition(has_users)
    @rule(by=NUMBERS, which=NUMBERS, name=NAMES)
    def rename_device(self, by: int, which: int, name: str) -> None:
        user, device = self.user(by), self.device(which)
        sees = self.model.sees_device(user, device)
        self.ask("PATCH", f"/devices/{device}", self.keys[user], 204 if sees else 404, json={"name": name})
        if sees:
            self.model.devices[device].name = name

    @precondition(has_users)
    @rule(by=NUMBERS, which=NUMBERS)
    def give_back(self, by: int, which: int) -> None:
        user, device = self.user(by), self.device(which)
        sees = self.model.sees_device(user, device)
        self.ask("DELETE", f"/devices/{device}", self.keys[user], 204 if sees else 404)
        if sees:
            self.model.give_back(device)

    @invariant()
    def some_of_it_is_as_the_model_says(self) -> None:
        """One of each after each step, another one each time; all of them at the end."""
        self.steps += 1
        for things, check in self.checks():
            if things:
                check(things[self.steps % len(things)])

    def teardown(self) -> None:
        for things, check in self.checks():
            for each in things:
                check(each)
        listed = self.ask("GET", f"/homes?projectId={self.project}", self.admin, 200)
        assert sorted(each["id"] for each in listed) == sorted(self.model.homes)
        self.http.close()

    def checks(self) -> list[tuple[list[int], Any]]:
        model = self.model
        return [
            (list(model.users), self.check_user),
            (list(model.homes), self.check_home),
            (list(model.devices), self.check_device),
        ]

    def check_user(self, user: int) -> None:
        key = self.keys[user]
        assert self.ask("GET", f"/users/{user}", key, 200)["name"] == self.model.users[user]
        homes = self.ask("GET", f"/homes?userId={user}", key, 200)
        assert [each["id"] for each in homes] == self.model.homes_of(user)

    def check_home(self, home: int) -> None:
        key, expected = self.admin, self.model.homes[home]
        assert self.ask("GET", f"/homes/{home}", key, 200)["name"] == expected.name
        members = self.ask("GET", f"/homes/{home}/members", key, 200)
        assert {each["userId"]: each["role"] for each in members} == expected.members
        devices = self.ask("GET", f"/devices?homeId={home}", key, 200)
        assert [each["id"] for each in devices] == self.model.devices_of(home)

    def check_device(self, device: int) -> None:
        expected = self.model.devices[device]
        shown = self.ask("GET", f"/devices/{device}", expected.key, 200)
        assert (shown["name"], shown.get("homeId")) == (expected.name, expected.home)
        assert ("claimExpirationTime" in shown) == expected.claimable


@pytest.fixture
def living() -> Iterator[None]:
    with private_node() as node, Redis.from_url(node.redis_url) as redis:
        Life.node, Life.redis = node, redis
        yield


@pytest.mark.timeout(3600 if LONG else 120)
@pytest.mark.usefixtures("living")
def test_random_life_agrees_with_model() -> None:
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=int(LONG or 5),
            stateful_step_count=30,
            deadline=None,
            database=None,
            derandomize=LONG is None,
            # To find the shortest life that fails takes minutes: only where there is time.
            phases=set(Phase) - (set() if LONG else {Phase.shrink}),
            suppress_health_check=list(HealthCheck),
        ),
    )
