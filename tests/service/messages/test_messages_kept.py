"""Messages to people that nothing is set to send: kept, sealed, and shown by `homewire messages`."""

from __future__ import annotations

from kit.in_redis import MESSAGES_KEPT
from kit.mailbox import BASE, PostOffice, message
from kit.node import NodeProcess
from kit.tenant import Tenant

TOKEN = "v1.7.a-secret_token"
CODE = "483920"


def post(node: NodeProcess, tenant: Tenant) -> PostOffice:
    """As the node has one."""
    return PostOffice(node.data_dir, tenant, channels=())


async def test_kept_messages_are_shown_with_their_secrets(node: NodeProcess, tenant: Tenant) -> None:
    office = post(node, tenant)
    project = tenant.project
    await office.send(message(tenant, "emailVerification", "ann@example.com", token=TOKEN))
    await office.send(message(tenant, "passwordReset", "ann@example.com", token=TOKEN))
    await office.send(message(tenant, "invitation", "bob@example.com", home_name="Sea view"))
    await office.send(message(tenant, "signInCode", "+14155550123", code=CODE))
    await office.send(message(tenant, "signInCode", "", code=CODE))
    selected = await node.outbox("--project", project)
    assert all(line.pop("createdAt").endswith("Z") for line in selected)
    assert selected == [
        {
            "project": project,
            "to": "ann@example.com",
            "kind": "emailVerification",
            "token": TOKEN,
            "url": f"{BASE}/verifyEmail#token={TOKEN}",
        },
        {
            "project": project,
            "to": "ann@example.com",
            "kind": "passwordReset",
            "token": TOKEN,
            "url": f"{BASE}/resetPassword#token={TOKEN}",
        },
        {"project": project, "to": "bob@example.com", "kind": "invitation", "homeName": "Sea view"},
        {"project": project, "to": "+14155550123", "kind": "signInCode", "code": CODE},
    ]
    (bobs,) = await node.outbox("--to", "bob@example.com", "--project", project)
    assert bobs["kind"] == "invitation"


async def test_projects_own_links(node: NodeProcess, tenant: Tenant) -> None:
    await tenant.store.projects.configure(
        tenant.project, verification_url="https://app.example.com/v?t={token}"
    )
    await post(node, tenant).send(message(tenant, "emailVerification", "ann@example.com", token=TOKEN))
    (selected,) = await node.outbox("--project", tenant.project)
    assert selected["url"] == f"https://app.example.com/v?t={TOKEN}"
    assert selected["token"] == TOKEN


async def test_malformed_entry_hides_no_message(node: NodeProcess, tenant: Tenant) -> None:
    await tenant.redis.xadd(MESSAGES_KEPT, {"x": "y"})
    await tenant.redis.xadd(MESSAGES_KEPT, {"m": b"\xff", "c": 0})
    await post(node, tenant).send(message(tenant, "signInCode", "+14155550124", code=CODE))
    assert len(await node.outbox("--project", tenant.project)) == 1
