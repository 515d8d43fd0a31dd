"""Clients that generators make of /openapi.json: built without a warning, and used against a real node."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kit.client import listen
from kit.tenant import Account, Tenant

CLIENTS = Path(__file__).parents[2] / "clients"
ENVIRONMENT = Path(sys.prefix) / "clients"
"""What make installed for the generator in Python."""
MODULES = CLIENTS / "typescript/node_modules"


@pytest_asyncio.fixture
async def home(tenant: Tenant) -> tuple[Account, int, Account]:
    """A user, their home, and a device in it."""
    user = await tenant.user()
    made = await tenant.home(user)
    return user, made, await tenant.device(made)


@pytest_asyncio.fixture
async def document(tenant: Tenant, tmp_path: Path) -> Path:
    async with tenant.http.get("/openapi.json") as answer:
        (tmp_path / "openapi.json").write_bytes(await answer.read())
    return tmp_path / "openapi.json"


async def run(*words: str | Path, where: Path, given: str = "", **environment: str) -> str:
    """The output of a program, which has to succeed."""
    process = await asyncio.create_subprocess_exec(
        *map(str, words),
        cwd=where,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate(given.encode())
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.timeout(240)
async def test_generated_python_client_works(
    tenant: Tenant, home: tuple[Account, int, Account], document: Path
) -> None:
    assert ENVIRONMENT.is_dir(), "make build installs it"
    user, home_id, device = home
    where, scripts = document.parent, ENVIRONMENT / "bin"
    # Each warning is a part of the service that the client would not have.
    await run(
        scripts / "openapi-python-client", "generate", "--path", document, "--meta", "none",
        "--output-path", where / "homewire_client", "--fail-on-warning",
        "--config", CLIENTS / "python/generator.yml",
        where=where, PATH=f"{scripts}:{os.environ['PATH']}",
    )  # fmt: skip
    python = (scripts / "python", CLIENTS / "python/use_client.py")
    async with await listen(tenant.url, f"/userSession/websocket?homeId={home_id}", user.key) as socket:
        made = json.loads(
            await run(
                *python,
                tenant.url,
                user.key,
                tenant.key,
                str(home_id),
                str(device.id),
                where=where,
                PYTHONPATH=str(where),
            )
        )
        assert made == {
            "devices": ["sensor"],
            "device": [device.id, False, True],
            "made": "Generated",
            "missing": "NOT_FOUND",
            "sent": 204,
            "command": [403, "DEVICE_OFFLINE"],
            "value": "night",
            "sessions": 200,
        }
        message = await socket.receive_text()
    event = json.loads(await run(*python, "received", where=where, given=message, PYTHONPATH=str(where)))
    assert event == {
        "eventType": "temperature",
        "eventData": {"celsius": 21.5},
        "homeId": home_id,
        "key": "server",
        "year": int(json.loads(message)["timestamp"][:4]),
    }


@pytest.mark.timeout(240)
async def test_generated_typescript_client_works(
    tenant: Tenant, home: tuple[Account, int, Account], document: Path
) -> None:
    assert MODULES.is_dir(), "make build installs them"
    user, home_id, device = home
    where, scripts = document.parent, MODULES / ".bin"
    for name in ("package.json", "tsconfig.json", "use_client.ts"):
        shutil.copy(CLIENTS / "typescript" / name, where)
    (where / "node_modules").symlink_to(MODULES)
    await run(scripts / "openapi-typescript", document, "-o", where / "schema.d.ts", where=where)
    await run(scripts / "tsc", "--project", where, where=where)
    arguments = (tenant.url, user.key, tenant.key, str(home_id), str(device.id))
    made: Any = json.loads(await run("node", "out/use_client.js", *arguments, where=where))
    assert made == {
        "devices": ["sensor"],
        "device": [device.id, False],
        "made": "Generated",
        "missing": "NOT_FOUND",
        "sent": 204,
        "batch": [204, 403],
        "value": "day",
        "sessions": 200,
        "success": True,
        "event": 1,
        "saved": "k",
    }
