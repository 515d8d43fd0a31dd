"""The document at /openapi.json and the page at /docs: all that a node serves, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest
import schemathesis

from kit.node import NodeProcess, private_node
from kit.openapi import ENDPOINTS, UNDOCUMENTED, operations_of, text_of_wrong_method


async def fetched(node: NodeProcess) -> Any:
    async with node.client() as http, http.get("/openapi.json") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        return await answer.json()


async def test_document_is_openapi_and_complete(node: NodeProcess) -> None:
    document = await fetched(node)
    schemathesis.openapi.from_dict(document).validate()
    names = [operation["operationId"] for _, _, operation in operations_of(document)]
    assert sorted(names) == sorted(endpoint.name for endpoint in ENDPOINTS)
    assert len(set(names)) == len(names)
    for _, _, operation in operations_of(document):
        assert {"500", "503"} <= operation["responses"].keys(), operation["operationId"]
        assert operation["security"], operation["operationId"]


async def test_every_route_of_a_running_node_is_documented_and_the_other_way_round() -> None:
    with private_node(steps=True) as node:
        served = await node.routes()
        document = await fetched(node)
    documented = {(method, path) for method, path, _ in operations_of(document)}
    # aiohttp adds a HEAD to each GET of plain HTTP.
    heads = {("HEAD", path) for method, path in documented if method == "GET"}
    assert {each for each in served if each[1] not in UNDOCUMENTED} - heads == documented
    assert {path for _, path in served} >= UNDOCUMENTED


async def test_path_lists_its_methods(node: NodeProcess) -> None:
    document = await fetched(node)
    async with node.client() as http:
        for path, methods in document["paths"].items():
            async with http.request("PROPFIND", re.sub(r"\{[^}]*\}", "1", path)) as answer:
                assert answer.status == 405, path
                assert set(answer.headers["Allow"].split(", ")) - {"HEAD"} == {
                    method.upper() for method in methods
                }
                assert await answer.text() == text_of_wrong_method(path, answer.headers["Allow"])


class Page(HTMLParser):
    """What a page links to and holds."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fragments: list[str] = []
        self.elements: set[str] = set()
        self.open: list[str] = []
        self.style = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        if tag != "meta":
            self.open.append(tag)
        for name, value in attrs:
            assert value is not None
            assert name in {"id", "class", "href", "lang", "charset", "name", "content"}, (
                "no handlers, no src"
            )
            if name == "href":
                self.links.append(value)
            elif name == "id":
                self.fragments.append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["style"]:
            self.style += data


@pytest.fixture
async def page(node: NodeProcess) -> Page:
    async with node.client() as http, http.get("/docs") as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        parsed = Page()
        parsed.feed(await answer.text())
        return parsed


async def test_page_has_a_place_for_every_operation(page: Page) -> None:
    assert {endpoint.name for endpoint in ENDPOINTS} <= set(page.fragments)
    assert len(set(page.fragments)) == len(page.fragments)
    assert not page.open, "every element is closed"


async def test_page_needs_nothing_from_elsewhere(page: Page) -> None:
    within = {f"#{fragment}" for fragment in page.fragments}
    assert set(page.links) <= within | {"/openapi.json"}
    assert page.elements.isdisjoint({"script", "link", "img", "iframe", "form", "object"})
    assert "url(" not in page.style
    assert "@import" not in page.style


async def test_page_may_use_its_own_style_and_nothing_else(node: NodeProcess, page: Page) -> None:
    async with node.client() as http, http.get("/docs") as answer:
        policy = answer.headers["Content-Security-Policy"].split("; ")
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert {"default-src 'none'", f"style-src 'sha256-{digest}'"} <= set(policy)
