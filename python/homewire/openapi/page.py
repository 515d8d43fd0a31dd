"""GET /, /openapi.json and /docs: the OpenAPI document, as JSON and as a page.

They are made from the table of operations at the first request, not at the start of the node: that would
make each start a tenth slower. The page is plain HTML without a script.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from homewire.openapi.document import Part, document, operations_of
from homewire.rest.operation import Endpoint
from homewire.server.static import StaticDocument, static_page

_STYLE: Final = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
_CODE: Final = re.compile(r"`([^`]++)`")
_EMPHASIS: Final = re.compile(r"(?<![\w*])\*(\w[^*<]*+)\*(?![\w*])")
_KEYS: Final = {
    "userKey": "a user's key",
    "deviceKey": "a device's key",
    "authToken": "the same as <code>authToken</code> in the query",
}


def page(document: Part) -> bytes:
    """The page /docs of an OpenAPI document: HTML in UTF-8."""
    info = document["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f"<nav><p><strong>{title}</strong></p>{_contents(document)}</nav>",
        f"<main><h1>{title}</h1>{_paragraphs(info['description'])}",
        '<p>For programs: <a href="/openapi.json">/openapi.json</a>.</p>',
        *_sections(document),
        f"<h2>Webhooks</h2>{_webhooks(document)}",
        f"<h2>Models</h2>{''.join(_models(document))}</main></body></html>",
    ]
    return "\n".join(parts).encode()


def _contents(document: Part) -> str:
    lines = []
    for tag, operations in _by_tag(document):
        items = "".join(
            f'<li><a href="#{escape(each["operationId"])}">{escape(each["summary"])}</a></li>'
            for _, _, each in operations
        )
        lines.append(f"<p>{escape(tag)}</p><ul>{items}</ul>")
    return "".join(lines)


def _by_tag(document: Part) -> Iterator[tuple[str, list[tuple[str, str, Part]]]]:
    for tag in document["tags"]:
        name = tag["name"]
        yield name, [each for each in operations_of(document) if name in each[2]["tags"]]


def _sections(document: Part) -> Iterator[str]:
    for tag, operations in _by_tag(document):
        yield f"<h2>{escape(tag)}</h2>"
        for method, path, operation in operations:
            yield _article(document, method, path, operation)


def _article(document: Part, method: str, path: str, operation: Part) -> str:
    return "\n".join(
        (
            f'<article id="{escape(operation["operationId"])}">',
            f'<h3><code><span class="method">{method}</span> {escape(path)}</code></h3>',
            f"<p>{_inline(operation['summary'])}. <span class='quiet'>Takes {_keys(operation)}.</span></p>",
            _paragraphs(operation["description"]),
            _parameters(operation),
            _body(document, operation),
            _answers(document, operation),
            _samples(operation),
            "</article>",
        )
    )


def _keys(operation: Part) -> str:
    # Where a user's key may be found otherwise is the same everywhere, and stands at the beginning.
    listed = [each for each in operation["security"] if not each.keys() & {"sessionCookie", "sessionKey"}]
    return " or ".join(map(_key, listed)) or "no key"


def _key(requirement: Part) -> str:
    for scheme, scopes in requirement.items():
        if scheme == "projectKey":
            if not scopes:
                return "any project key"
            return f"a project key with the scope <code>{escape(scopes[0])}</code>"
        return _KEYS[scheme]
    return "no key"


def _parameters(operation: Part) -> str:
    rows = (
        (
            f"<code>{escape(each['name'])}</code>",
            escape(each["in"]),
            _kind(each["schema"]),
            ("required. " if each["required"] else "") + _inline(each.get("description", "")),
        )
        for each in operation["parameters"]
    )
    return _table(("parameter", "in", "type", ""), rows)


def _body(document: Part, operation: Part) -> str:
    body = operation.get("requestBody")
    if body is None:
        return ""
    schema = next(iter(body["content"].values()))["schema"]
    media = ", ".join(f"<code>{escape(each)}</code>" for each in body["content"])
    fields = _fields(_resolved(document, schema)) if "$ref" in schema else f"<p>{_kind(schema)}</p>"
    return f"<p>Body: {media}</p>{fields}"


def _samples(operation: Part) -> str:
    return "".join(f"<pre><code>{escape(each['source'])}</code></pre>" for each in operation["x-codeSamples"])


def _webhooks(document: Part) -> str:
    parts = []
    for methods in document["webhooks"].values():
        for operation in methods.values():
            parts += [
                f'<article id="{escape(operation["operationId"])}"><p>{_inline(operation["summary"])}.</p>',
                _paragraphs(operation["description"]),
                _parameters(operation),
                _body(document, operation),
                "</article>",
            ]
    return "\n".join(parts)


def _fields(schema: Part) -> str:
    required = schema.get("required", ())
    rows = (
        (
            f"<code>{escape(name)}</code>",
            _kind(kind),
            ("required. " if name in required else "") + _inline(kind.get("description", "")),
        )
        for name, kind in schema.get("properties", {}).items()
    )
    return _table(("field", "type", ""), rows)


def _answers(document: Part, operation: Part) -> str:
    rows = []
    for status, response in operation["responses"].items():
        answer = _resolved(document, response)
        content = "".join(_kind(each["schema"]) for each in answer.get("content", {}).values())
        headers = "".join(f" <code>{escape(name)}</code>" for name in answer.get("headers", {}))
        rows.append((status, _inline(answer["description"]), (content or "no body") + headers))
    return _table(("status", "", ""), rows)


def _models(document: Part) -> Iterator[str]:
    for name, schema in document["components"]["schemas"].items():
        about = _paragraphs(schema.get("description", ""))
        yield f'<article id="{_fragment(name)}"><h3>{escape(name)}</h3>{about}{_fields(schema)}</article>'


def _kind(schema: Part) -> str:
    """A type in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{_fragment(name)}">{escape(name)}</a>'
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"] if each.get("type") != "null")
    if schema.get("type") == "array":
        return f"array of {_kind(schema.get('items', {}))}"
    shown = ("format", "minimum", "maximum", "minLength", "maxLength", "default")
    limits = [f"{name} {schema[name]}" for name in shown if schema.get(name) not in (None, "")]
    words = [schema.get("type", "any JSON"), *limits]
    return escape(", ".join(words))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    if not body:
        return ""
    return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{body}</table>"


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_inline(each.strip())}</p>" for each in text.split("\n\n") if each.strip())


def _inline(text: str) -> str:
    """Text of the document, which has code and emphasis as Markdown has them."""
    return _EMPHASIS.sub(r"<em>\1</em>", _CODE.sub(r"<code>\1</code>", escape(text)))


def _fragment(name: str) -> str:
    return f"model-{escape(name)}"


def _resolved(document: Part, part: Part) -> Part:
    """What a reference names; anything else as it is."""
    found: Any = part
    if "$ref" in part:
        found = document
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step]
    return dict(found)


_ROOT: Final = {"name": "homewire", "docs": "/docs", "openapi": "/openapi.json", "health": "/healthz"}
"""What GET / answers. It has no version, which would tell an attacker about known faults."""


def routes(endpoints: Sequence[Endpoint]) -> list[web.RouteDef]:
    """What to mount at the URL root. `endpoints` are those of the document, not only those of this node."""

    @cache
    def made() -> Part:
        """The document, which both have."""
        return document(endpoints)

    def text() -> bytes:
        return msgspec.json.format(msgspec.json.encode(made()), indent=2)

    def html() -> bytes:
        return page(made())

    def root() -> bytes:
        return msgspec.json.encode(_ROOT)

    return [
        web.get("/", StaticDocument(root, "application/json").serve),
        web.get("/openapi.json", StaticDocument(text, "application/json").serve),
        web.get("/docs", static_page(html, _STYLE).serve),
    ]
