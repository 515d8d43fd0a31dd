"""What the document says beside types: what each member means, and an example of every request and answer.

The examples are made from those of `field_docs`, so that one example cannot contradict another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from shlex import quote
from typing import Any, Final

import msgspec

from homewire.openapi.fields import SHOWN, row

Part = dict[str, Any]
"""A part of the document."""

_SERVER: Final = "https://homewire.example.com"
_BY_FORM: Final = "application/x-www-form-urlencoded"
_BY_TYPE: Final[Part] = {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "object": {}}


def described(components: Part) -> Part:
    """The schemas, with what each member is and an example of it, and `const` for the only value of one."""
    return {name: {**_plain(schema), **_members(name, schema)} for name, schema in components.items()}


def parameter(operation: str, name: str) -> Part:
    """What a parameter is, and an example of it."""
    found = row(operation, name)
    if found is None:
        return {}
    about, example = found
    return {"description": about} if example is None else {"description": about, "example": example}


def example(schema: Part, components: Part, where: str = "") -> Any:
    """An example of a schema; `where` is the component that it is a member of, and its name there."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return example(components[name], components, name)
    for key in ("const", "default"):
        if schema.get(key) is not None:
            return schema[key]
    if "examples" in schema:
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return example(
            next(each for each in schema["anyOf"] if each.get("type") != "null"), components, where
        )
    if schema.get("type") == "array":
        return [example(schema["items"], components, where)]
    if "properties" in schema:
        return _object(schema, components, where)
    return _BY_TYPE.get(schema.get("type", ""), {})


def samples(method: str, path: str, operation: Part) -> Iterator[Part]:
    """How a client would make the request: by curl, or in JavaScript what opens a WebSocket."""
    place = path
    for each in operation["parameters"]:
        if each["in"] == "path":
            place = place.replace("{" + each["name"] + "}", str(each.get("example", 1)))
    if "101" in operation["responses"]:
        source = f'new WebSocket("{_SERVER.replace("https", "wss")}{place}?authToken=" + key)'
        yield {"lang": "JavaScript", "source": source}
        return
    words = ["curl", "-X", method, _SERVER + place]
    if {} not in operation["security"]:
        words += ["-H", "Authorization: ModeCloud $KEY"]
    content = operation.get("requestBody", {}).get("content", {})
    if _BY_FORM in content:
        for name, value in content[_BY_FORM]["example"].items():
            words += ["--data-urlencode", f"{name}={_text(value)}"]
    elif content:
        body = msgspec.json.encode(content["application/json"]["example"]).decode()
        words += ["-H", "Content-Type: application/json", "-d", body]
    yield {"lang": "Shell", "source": " ".join(_shell(each) for each in words)}


def _members(name: str, schema: Part) -> Part:
    if "properties" not in schema:
        return {}
    return {
        "properties": {member: _member(name, member, each) for member, each in schema["properties"].items()}
    }


def _member(schema: str, name: str, kind: Part) -> Part:
    made, found = _plain(kind), row(schema, name)
    if found is None:
        return made
    about, value = found
    made["description"] = about
    if value is not None and not _has_values(made):
        made["examples"] = [value]
    return made


def _has_values(schema: Part) -> bool:
    """Whether the schema itself says which values there are."""
    return any(key in schema for key in ("const", "enum", "$ref")) or any(
        _has_values(each) for each in schema.get("anyOf", ())
    )


def _plain(schema: Part) -> Part:
    """The same with `const`, and without the default null of what is simply left out."""
    made = {key: value for key, value in schema.items() if not (key == "default" and value is None)}
    if len(made.get("enum", ())) == 1:
        made["const"] = made.pop("enum")[0]
    if "anyOf" in made:
        made["anyOf"] = [_plain(each) for each in made["anyOf"]]
    if "items" in made:
        made["items"] = _plain(made["items"])
    if made.get("type") == "object" and "properties" not in made:
        # Said aloud: generators take an object without members for an empty one.
        made["additionalProperties"] = True
    return made


def _object(schema: Part, components: Part, where: str) -> Part:
    made = {}
    names: Iterable[str] = SHOWN.get(where) or schema["properties"]
    for name in names:
        each = schema["properties"][name]
        found = row(where, name)
        known = found[1] if found is not None and not _has_values(each) else None
        made[name] = example(each, components, where) if known is None else known
    return made


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _shell(word: str) -> str:
    # The key is the caller's own, from the environment, so that none stands in a history.
    return f'"{word}"' if "$KEY" in word else quote(word)
