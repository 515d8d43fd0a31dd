"""The demo of `make run`: its keys' file, what a second start does, and its sensors' reports."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from homewire.cli.scope import open_store
from homewire.cli.serving import next_steps
from homewire.demo import (
    SESSION_CONTENT_BYTES,
    DemoDevice,
    Plan,
    create,
    keys_path,
    needs,
    of_this_machine,
    read_keys,
    write_keys,
)
from homewire.errors import ConfigurationError
from homewire.repositories import Store
from homewire.sensors import Reporter, Sensors
from homewire.settings import Settings

SENSORS = {"cpu-0": "cpu", "memory": "memory"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with open_store(settings) as store:
        yield store


async def test_keys_file_is_its_owners_alone(store: Store, settings: Settings) -> None:
    demo = await of_this_machine(store, settings, SENSORS)
    path = keys_path(settings.data_dir)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_keys(settings.data_dir) == demo
    path.chmod(0o644)
    write_keys(settings.data_dir, demo)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("plan", [Plan(0, 0, 1), Plan(1, 1, 1), Plan(2, 3, 4), Plan(3, 20, 2)], ids=str)
async def test_demo_stores_its_announced_records(store: Store, plan: Plan) -> None:
    needed = {need.setting: need.amount for need in needs(plan)}
    demo = await create(store, plan)
    usage = await store.usage.of(demo.project_id)
    assert usage.records == needed["project_records"]
    spare = plan.users * SESSION_CONTENT_BYTES
    assert needed["project_bytes"] - spare <= usage.bytes <= needed["project_bytes"]
    owner = await store.usage.of(demo.project_id, f"u{demo.users[0].user_id}")
    assert owner.records == needed["user_records"]
    assert needed["user_bytes"] - SESSION_CONTENT_BYTES <= owner.bytes <= needed["user_bytes"]


async def test_second_start_has_the_same_keys(store: Store, settings: Settings) -> None:
    first = await of_this_machine(store, settings, SENSORS)
    assert await of_this_machine(store, settings, SENSORS) == first
    assert len(await store.projects.list()) == 1


async def test_every_sensor_is_a_device_of_the_home(store: Store, settings: Settings) -> None:
    await of_this_machine(store, settings, SENSORS)
    demo = await of_this_machine(store, settings, {**SENSORS, "disk-/new": "disk"})
    devices = demo.homes[0].devices
    assert [device.sensor for device in devices] == ["cpu-0", "memory", "disk-/new"]
    places = await store.devices.locate(demo.project_id, [device.device_id for device in devices])
    assert [places[device.device_id].device_class for device in devices] == ["cpu", "memory", "disk"]
    assert {place.home_id for place in places.values()} == {demo.homes[0].home_id}


async def test_expired_user_key_is_renewed(store: Store, settings: Settings) -> None:
    demo = await of_this_machine(store, settings, SENSORS)
    old = demo.users[0].key
    demo.users[0].key = "v1.1.gone"
    write_keys(settings.data_dir, demo)
    renewed = (await of_this_machine(store, settings, SENSORS)).users[0].key
    assert renewed not in (old, "v1.1.gone")
    assert await store.principals.lookup(renewed) is not None


async def test_lost_keys_are_said_and_nothing_is_rotated(store: Store, settings: Settings) -> None:
    demo = await of_this_machine(store, settings, SENSORS)
    keys_path(settings.data_dir).unlink()
    with pytest.raises(ConfigurationError, match="project delete"):
        await of_this_machine(store, settings, SENSORS)
    assert await store.principals.lookup(demo.project_key) is not None
    assert len(await store.projects.list()) == 1


async def test_keys_of_a_deployment_that_was_emptied_are_replaced(store: Store, settings: Settings) -> None:
    old = await of_this_machine(store, settings, SENSORS)
    await store.projects.delete(old.project_id)
    new = await of_this_machine(store, settings, SENSORS)
    assert new.project_id != old.project_id
    assert read_keys(settings.data_dir) == new


def test_damaged_keys_file_is_said(settings: Settings) -> None:
    settings.data_dir.mkdir()
    keys_path(settings.data_dir).write_text('{"projectId": 1')
    with pytest.raises(ConfigurationError, match=r"demo\.json"):
        read_keys(settings.data_dir)


async def test_next_steps_can_be_copied(store: Store, settings: Settings) -> None:
    demo = await of_this_machine(store, settings, SENSORS)
    text = "\n".join(next_steps(settings, settings.base_url, demo))
    assert f"--data-dir {settings.data_dir}" in text
    assert demo.users[0].key in text
    assert demo.project_key in text
    assert f"listen --device {demo.homes[0].devices[0].device_id}" in text


def test_this_machine_has_sensors() -> None:
    readings = Sensors().read()
    kinds = {reading.device_class for reading in readings.values()}
    assert {"cpu", "memory", "disk", "network"} <= kinds
    assert 0 < readings["memory"].data["availableBytes"] <= readings["memory"].data["totalBytes"]


async def test_sensors_report_with_their_own_keys_and_outlive_failures() -> None:
    """A server that refuses the first round still gets the next one."""
    received: asyncio.Queue[tuple[str, str | None]] = asyncio.Queue()
    answers = iter([503])

    async def take(request: web.Request) -> web.Response:
        assert set(await request.json()) == {"eventType", "eventData"}
        received.put_nowait((request.path, request.headers.get("Authorization")))
        return web.Response(status=next(answers, 204))

    app = web.Application()
    app.router.add_put("/devices/{device}/event", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    reporter = Reporter(f"http://127.0.0.1:{port}", Sensors(), [DemoDevice(7, "v1.1.key", "memory")])
    reporting = asyncio.create_task(reporter.run())
    try:
        async with asyncio.timeout(10):
            requests = [await received.get(), await received.get()]
    finally:
        reporting.cancel()
        await asyncio.gather(reporting, return_exceptions=True)
        await runner.cleanup()
    assert requests == [("/devices/7/event", "ModeCloud v1.1.key")] * 2
