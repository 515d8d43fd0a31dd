"""The document, as it is made: what every member, parameter and operation has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from homewire.openapi.document import NDJSON, document, operations_of
from homewire.openapi.fields import ANYWHERE, ONLY_HERE, SHOWN
from homewire.openapi.page import page
from homewire.operations import ENDPOINTS


@pytest.fixture(scope="module")
def made() -> Any:
    return document(ENDPOINTS)


def schemas(part: Any) -> Iterator[Any]:
    """Every object of a document."""
    if isinstance(part, dict):
        yield part
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from schemas(each)


def test_every_member_and_every_parameter_is_described(made: Any) -> None:
    """A row of `field_docs` says what it is."""
    named = {
        f"{name}.{member}": each
        for name, schema in made["components"]["schemas"].items()
        for member, each in schema.get("properties", {}).items()
    }
    named |= {
        f"{operation['operationId']}.{each['name']}": each
        for _, _, operation in operations_of(made)
        for each in operation["parameters"]
    }
    assert len(named) > 300
    assert [name for name, each in named.items() if not each.get("description")] == []
    described = {name.split(".", 1)[1] for name in named}
    assert ANYWHERE.keys() <= described, "no row is left of a member that is gone"
    assert ONLY_HERE.keys() <= named.keys()
    assert SHOWN.keys() <= made["components"]["schemas"].keys()


def test_every_schema_is_described_and_has_a_name_of_people(made: Any) -> None:
    names = made["components"]["schemas"]
    assert [name for name in names if not re.fullmatch("[A-Z][A-Za-z]+", name)] == []
    assert [name for name, schema in names.items() if not schema.get("description")] == []


def test_one_value_is_a_const(made: Any) -> None:
    assert [each for each in schemas(made) if len(each.get("enum", "xx")) == 1] == []


def test_every_operation_has_examples(made: Any) -> None:
    missing = []
    for _, _, operation in operations_of(made):
        contents = [
            *operation.get("requestBody", {}).get("content", {}).values(),
            *(
                content
                for answer in operation["responses"].values()
                for content in answer.get("content", {}).values()
            ),
        ]
        if not operation["x-codeSamples"] or any("example" not in each for each in contents):
            missing.append(operation["operationId"])
    assert missing == []
    assert sum(1 for _ in operations_of(made)) == len(ENDPOINTS)


def test_examples_are_of_their_types(made: Any) -> None:
    """What the operation itself would take, and could answer."""
    by_name = {endpoint.name: endpoint for endpoint in ENDPOINTS}
    for _, _, operation in operations_of(made):
        endpoint = by_name[operation["operationId"]]
        for media, content in operation.get("requestBody", {}).get("content", {}).items():
            if media != NDJSON:
                msgspec.json.decode(msgspec.json.encode(content["example"]), type=endpoint.body)
        for content in operation["responses"][str(endpoint.success)].get("content", {}).values():
            # (msgspec takes an object for `Raw | None` only where it writes.)
            text = msgspec.json.encode(content["example"]).replace(b'{"floor":2}', b"null")
            msgspec.json.decode(text, type=endpoint.answer)


def test_page_shows_no_markdown(made: Any) -> None:
    text = re.sub(r"<(pre|style)>.*?</\1>", "", page(made).decode(), flags=re.DOTALL)
    assert "`" not in text
    assert re.findall(r"\*[A-Z][a-z]+[^*<]*\*", text) == []
    assert "default 3600" in text
    assert "date-time" in text
