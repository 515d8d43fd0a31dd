"""The pages that links in mails lead to: what they may load, and what their script posts.

No browser is among the project's dependencies, so the script itself is not run here: the test reads the
page and posts what the form would.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import pytest

from kit.node import NodeProcess
from kit.tenant import Tenant

PASSWORD = "correct horse 9"


class Page(HTMLParser):
    """The parts of a page, by their tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, Mapping[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        self._tag = tag

    def handle_data(self, data: str) -> None:
        self.texts[self._tag] = self.texts.get(self._tag, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._tag = ""

    def all(self, tag: str) -> list[Mapping[str, str | None]]:
        return [attributes for name, attributes in self.attributes if name == tag]


def policy_of(headers: Mapping[str, str]) -> dict[str, str]:
    rules = (rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    return dict(rules)


def hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@pytest.mark.parametrize("path", ["/verifyEmail", "/resetPassword"])
async def test_message_page_loads_nothing_and_leaks_nothing(node: NodeProcess, path: str) -> None:
    async with node.client() as http, http.get(path) as answer:
        assert answer.status == 200
        page = Page(await answer.text())
        policy = policy_of(answer.headers)
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert policy == {
        "default-src": "'none'",
        "script-src": hash_of(page.texts["script"]),
        "style-src": hash_of(page.texts["style"]),
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    loading = {"src", "href", "srcset", "action", "style", "onclick", "onload"}
    assert not any(loading & attributes.keys() for _, attributes in page.attributes)
    assert not re.search(r"https?://|innerHTML|eval|document\.write", page.texts["script"])


async def sent(node: NodeProcess, to: str, kind: str) -> dict[str, Any]:
    return next(line for line in reversed(await node.outbox("--to", to)) if line["kind"] == kind)


async def form_of(tenant: Tenant, link: str) -> tuple[str, str]:
    """What a click on the link gets to: where the form posts, and the token that it posts."""
    parts = urlsplit(link)
    assert parts.query == ""
    async with tenant.http.get(parts.path) as answer:
        page = Page(await answer.text())
    (form,) = page.all("form")
    endpoint = form["data-endpoint"]
    assert endpoint is not None
    return f"/{endpoint}", parts.fragment.removeprefix("token=")


async def test_mail_leads_to_a_verified_address_and_a_new_password(node: NodeProcess, tenant: Tenant) -> None:
    await tenant.store.apps.create(tenant.project, "controller_app")
    email = "pia@example.com"
    account = {"projectId": tenant.project, "email": email, "password": PASSWORD, "name": "Pia"}
    async with tenant.http.post("/users", json=account) as answer:
        assert answer.status == 201
    login = {"projectId": tenant.project, "appId": "controller_app", "email": email, "password": PASSWORD}
    link = (await sent(node, email, "emailVerification"))["url"]
    endpoint, token = await form_of(tenant, link)
    # A scanner that follows the link spends nothing.
    async with tenant.http.post("/auth/user", json=login) as answer:
        assert (await answer.json())["reason"] == "USER_UNVERIFIED"
    for status in (200, 403):
        async with tenant.http.post(endpoint, json={"token": token, "password": PASSWORD}) as answer:
            assert answer.status == status
    async with tenant.http.post("/auth/user", json=login) as answer:
        assert answer.status == 200

    start = {"projectId": tenant.project, "email": email}
    async with tenant.http.post("/auth/user/passwordReset/start", json=start) as answer:
        assert answer.status == 200
    endpoint, token = await form_of(tenant, (await sent(node, email, "passwordReset"))["url"])
    async with tenant.http.post(endpoint, json={"token": token, "newPassword": "a"}) as answer:
        # One of the two reasons that the page has words for; the token is good for another try.
        assert (await answer.json())["reason"] in ("PASSWORD_TOO_SHORT", "PASSWORD_TOO_WEAK")
    async with tenant.http.post(endpoint, json={"token": token, "newPassword": "battery staple 7"}) as answer:
        assert answer.status == 200
    async with tenant.http.post("/auth/user", json=login | {"password": "battery staple 7"}) as answer:
        assert answer.status == 200


async def test_verification_page_asks_for_password_of_registrant(node: NodeProcess, tenant: Tenant) -> None:
    async with tenant.http.get("/verifyEmail") as answer:
        page = Page(await answer.text())
    (asked,) = page.all("input")
    assert (asked["name"], asked["type"]) == ("password", "password")
    assert "Confirm only if it was you" in page.texts["p"]
    assert "fields.password" in page.texts["script"]
    await tenant.store.apps.create(tenant.project, "controller_app")
    email = "owner@example.com"
    account = {"projectId": tenant.project, "email": email, "password": PASSWORD, "name": "Eve"}
    async with tenant.http.post("/users", json=account) as answer:
        assert answer.status == 201
    mail = await sent(node, email, "emailVerification")
    endpoint, token = await form_of(tenant, mail["url"])
    # The owner of the address opens the link, and types a password of their own, or none (sent as a blank).
    for attempt in ("my usual password", " "):
        async with tenant.http.post(endpoint, json={"token": token, "password": attempt}) as answer:
            assert answer.status == 403
            refused = await answer.json()
            assert (refused["reason"], refused["data"]["field"]) == ("INCORRECT_PASSWORD", "password")
    login = {"projectId": tenant.project, "appId": "controller_app", "email": email, "password": PASSWORD}
    async with tenant.http.post("/auth/user", json=login) as answer:
        assert (await answer.json())["reason"] == "USER_UNVERIFIED"
    # The token is good still, for the registrant.
    async with tenant.http.post(endpoint, json={"token": token, "password": PASSWORD}) as answer:
        assert answer.status == 200
    async with tenant.http.post(endpoint, json={"token": token, "password": PASSWORD}) as answer:
        assert (await answer.json())["reason"] == "INVALID_TOKEN"


async def test_user_without_a_password_confirms_the_address_without_one(
    node: NodeProcess, tenant: Tenant
) -> None:
    email = "made-by-a-server@example.com"
    await tenant.store.users.create(tenant.project, "Ada", email=email)
    start = {"projectId": tenant.project, "email": email}
    async with tenant.http.post("/auth/user/emailVerification/start", json=start) as answer:
        assert answer.status == 200
    endpoint, token = await form_of(tenant, (await sent(node, email, "emailVerification"))["url"])
    async with tenant.http.post(endpoint, json={"token": token, "password": " "}) as answer:
        assert answer.status == 200
