"""`homewire.client` and `homewire listen` against real nodes: outages, refusals, and what is said of them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from homewire.client import Client, Filter, Lost, Restored
from homewire.errors import ClientError
from kit.client import listen
from kit.node import private_node, reserved_port, running_node
from kit.tenant import Tenant, tenant_of
from kit.warm import run_homewire

EVERYTHING = Filter()
WITHIN_S = 60.0
"""Far more than anything here takes; who waits longer waits in vain."""


class Listener:
    """A client of homewire that listens, and what it was handed."""

    def __init__(self, client: Client, chosen: Filter) -> None:
        self.links: asyncio.Queue[Lost | Restored] = asyncio.Queue()
        self.received: asyncio.Queue[Any] = asyncio.Queue()
        self.task = asyncio.create_task(client.listen(chosen, self._deliver, self.links.put_nowait))

    def _deliver(self, text: str) -> None:
        self.received.put_nowait(json.loads(text))

    async def next_link(self) -> Lost | Restored:
        async with asyncio.timeout(WITHIN_S):
            return await self.links.get()

    async def event(self) -> Any:
        async with asyncio.timeout(WITHIN_S):
            return await self.received.get()

    async def error(self) -> str:
        """What ended it."""
        with pytest.raises(ClientError) as ended:
            await asyncio.wait_for(self.task, WITHIN_S)
        return str(ended.value)


@asynccontextmanager
async def listening(client: Client, chosen: Filter = EVERYTHING) -> AsyncIterator[Listener]:
    async with client:
        listener = Listener(client, chosen)
        try:
            yield listener
        finally:
            listener.task.cancel()
            with suppress(asyncio.CancelledError, ClientError):
                await listener.task


class Way:
    """A way to a node that can go silent: bytes are taken and go nowhere, and nothing is closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.silent: set[int] = set()
        self.opened = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Future[Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        number = self.opened
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, far_writer]
        self._tasks += [
            asyncio.ensure_future(self._copy(number, reader, far_writer)),
            asyncio.ensure_future(self._copy(number, far_reader, writer)),
        ]

    async def _copy(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if number not in self.silent:
                    writer.write(data)
                    await writer.drain()
        if number not in self.silent:
            writer.close()

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*self._tasks)


@asynccontextmanager
async def path_to(url: str) -> AsyncIterator[tuple[Way, str]]:
    path = Way(urlsplit(url).port or 0)
    server = await asyncio.start_server(path.serve, "127.0.0.1", 0)
    try:
        yield path, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await path.close()


async def home_of(tenant: Tenant) -> tuple[str, int]:
    """A user's key and a home."""
    user = await tenant.user()
    return user.key, await tenant.home(user)


async def until_received(tenant: Tenant, home: int, listener: Listener) -> None:
    """Send until an event arrives: what is sent before the connection is there reaches nobody."""
    async with asyncio.timeout(WITHIN_S):
        while listener.received.empty():
            await tenant.send({"homeId": home, "eventType": "again"})
            # The listener connects meanwhile, in this very loop.
            await asyncio.sleep(0.05)


async def test_listener_leaves_a_path_on_which_nothing_arrives(tenant: Tenant) -> None:
    key, home = await home_of(tenant)
    async with path_to(tenant.url) as (path, url), listening(Client(url, key, silence_s=1.0)) as listener:
        await until_received(tenant, home, listener)
        while not listener.received.empty():
            listener.received.get_nowait()
        path.silent.update(range(1, path.opened + 1))
        assert isinstance(lost := await listener.next_link(), Lost)
        assert lost.problem == "nothing arrived"
        await until_received(tenant, home, listener)
        assert (await listener.event())["homeId"] == home
        assert path.opened >= 2


async def test_listener_waits_at_limit_and_names_it() -> None:
    with private_node(user_connections=1) as limited:
        async with tenant_of(limited) as tenant:
            key, home = await home_of(tenant)
            async with listening(Client(limited.url, key)) as first:
                await until_received(tenant, home, first)
                async with listening(Client(limited.url, key)) as second:
                    assert isinstance(refused := await second.next_link(), Lost)
                    assert "429 TOO_MANY_REQUESTS" in refused.problem
                    assert "user_connections" in refused.problem
                    first.task.cancel()
                    assert isinstance(await second.next_link(), Restored)
                    await until_received(tenant, home, second)


async def test_refusal_for_good_ends_the_listener_with_the_servers_reason(tenant: Tenant) -> None:
    key, _ = await home_of(tenant)
    async with listening(Client(tenant.url, key), Filter(homes=[987654321])) as listener:
        error = await listener.error()
    assert "homeId" in error
    assert key not in error


async def test_close_for_good_ends_the_listener_with_code_and_reason(tenant: Tenant) -> None:
    user = await tenant.user()
    home = await tenant.home(user)
    async with listening(Client(tenant.url, user.key)) as listener:
        await until_received(tenant, home, listener)
        await tenant.store.users.delete(tenant.project, user.id)
        assert "4501 user or device deleted" in await listener.error()
        assert listener.links.empty()


async def test_commands_arrive_at_a_client_with_the_devices_key(tenant: Tenant) -> None:
    user = await tenant.user()
    device = await tenant.device(await tenant.home(user))
    received: asyncio.Queue[str] = asyncio.Queue()
    async with Client(tenant.url, device.key) as client, Client(tenant.url, user.key) as sender:
        # It is kept until the device is there.
        await sender.put(f"/devices/{device.id}/command?queue=600", {"action": "on"})
        task = asyncio.create_task(client.listen_commands(device.id, received.put_nowait))
        command = json.loads(await asyncio.wait_for(received.get(), WITHIN_S))
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert command["action"] == "on"


class Program:
    """`homewire listen` as its user starts it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self) -> str:
        """The next line on standard error."""
        assert self._process.stderr is not None
        return (await asyncio.wait_for(self._process.stderr.readline(), WITHIN_S)).decode()

    async def prints(self) -> str:
        """The next line on standard output."""
        assert self._process.stdout is not None
        return (await asyncio.wait_for(self._process.stdout.readline(), WITHIN_S)).decode()

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.communicate()


@asynccontextmanager
async def program(
    *words: str, command: tuple[str, ...] = ("-m", "homewire.cli"), **environment: str
) -> AsyncIterator[Program]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, *words, env={**os.environ, **environment}, stdout=pipe, stderr=pipe
    )
    running = Program(process)
    try:
        yield running
    finally:
        await running.stop()


async def test_listen_prints_outages_on_standard_error(short_directory: Path) -> None:
    data = short_directory / "data"
    with reserved_port() as port, ExitStack() as first:
        node = first.enter_context(running_node(data, port=port))
        async with tenant_of(node) as tenant:
            key, home = await home_of(tenant)
            async with program("listen", "--url", node.url, HOMEWIRE_KEY=key) as listener:
                line = asyncio.create_task(listener.prints())
                while not line.done():
                    await tenant.send({"homeId": home, "eventType": "again"})
                    await asyncio.wait([line], timeout=0.1)
                assert "again" in line.result()
                await asyncio.to_thread(first.close)
                assert "connection lost (close code 1001 going away)" in await listener.says()
                with running_node(data, port=port):
                    assert "connected again after" in await listener.says()
                assert "connection lost (close code 1001 going away)" in await listener.says()


async def test_listen_prints_why_it_is_refused(tenant: Tenant) -> None:
    key, _ = await home_of(tenant)
    words = ("listen", "--url", tenant.url, "--home", "987654321")
    async with program(*words, HOMEWIRE_KEY=key) as listener:
        said = await listener.says()
        assert said.startswith("homewire: ")
        assert "homeId" in said
        assert await listener.says() == ""


async def test_commands_are_queued_and_listened_to_with_a_key_from_a_file(
    tenant: Tenant, tmp_path: Path
) -> None:
    user = await tenant.user()
    device = await tenant.device(await tenant.home(user))
    of_device = ("--url", tenant.url, "--device", str(device.id))
    keys = tmp_path / "key"
    keys.write_text(user.key + "\n")
    words = ("send", *of_device, "--command", "on", "--queue", "600", "--key-file", str(keys))
    async with program(*words) as sender:
        assert await sender.prints() == "sent\n"
    keys.write_text(device.key)
    async with program("listen", "--commands", *of_device, HOMEWIRE_KEY_FILE=str(keys)) as listener:
        assert await listener.prints() == "on  {}\n"


async def test_example_of_the_page_runs_as_it_stands(tenant: Tenant, tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "client.md").read_text()
    example = tmp_path / "example.py"
    example.write_text(page.partition("```python\n")[2].partition("```")[0])
    key, home = await home_of(tenant)
    environment = {
        "HOMEWIRE_URL": tenant.url,
        "HOMEWIRE_KEY": key,
        "HOME_ID": str(home),
        "PYTHONUNBUFFERED": "1",
    }
    async with program(**environment, command=(str(example),)) as running:
        line = asyncio.create_task(running.prints())
        while not line.done():
            await tenant.send({"homeId": home, "eventType": "doorbell", "eventData": {"rings": 2}})
            await asyncio.wait([line], timeout=0.1)
        assert line.result() == "doorbell {'rings': 2}\n"
        await tenant.store.projects.disable(tenant.project)
        assert "4503 project disabled or deleted" in await running.says()


async def test_send_without_url_finds_the_node_of_the_data_directory() -> None:
    with private_node() as node:
        async with tenant_of(node) as made:
            user = await made.user()
            home = await made.home(user)
            async with await listen(made.url, "/userSession/websocket", user.key) as socket:
                words = ("--home", home, "--type", "found", "--key", made.key, "--data-dir", node.data_dir)
                assert await run_homewire("send", *words) == "sent\n"
                assert await socket.receive_type() == "found"
        assert (node.data_dir / "node.json").exists()
        assert await node.stop() == 0
        assert not (node.data_dir / "node.json").exists()
