"""Messages to people when the node that carries them is killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kit.mailbox import PostOffice, all_sent, mail_server, verification
from kit.node import running_node
from kit.tenant import tenant_of

ATTEMPT_S = 2.0


async def test_kill_loses_nothing(short_directory: Path) -> None:
    """Neither what was in hand, nor what nobody had taken yet."""
    data_dir = short_directory / "data"
    async with mail_server() as mails:
        chosen = {**mails.settings(), "message_attempt_s": ATTEMPT_S, "durability": "always"}
        with running_node(data_dir, **chosen) as node:
            async with tenant_of(node) as tenant:
                await PostOffice(node.data_dir, tenant).send(verification(tenant, "slow-fay@example.com"))
                # The server has it, and the node will never know.
                envelope, first = await mails.mail()
                node.process.kill()
                await asyncio.to_thread(node.process.wait)
        with running_node(data_dir, **chosen) as node:
            async with tenant_of(node) as tenant:
                await PostOffice(node.data_dir, tenant).send(verification(tenant, "gus@example.com"))
                found: dict[str, set[str]] = {}
                # A try that was cut off by its bound may come again as well.
                while len(found) < 2:
                    envelope, mail = await mails.mail()
                    found.setdefault(envelope["to"], set()).add(mail["Message-ID"])
                await all_sent(tenant)
    assert found.keys() == {"slow-fay@example.com", "gus@example.com"}
    assert found["slow-fay@example.com"] == {first["Message-ID"]}
