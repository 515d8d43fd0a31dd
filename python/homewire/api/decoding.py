"""From bytes to checked objects. Every refusal names the field, and never quotes what was sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from multipart import MultipartError, MultipartParser, parse_options_header

from homewire.errors import InvalidInput

MAX_FIELDS: Final = 100
"""Of a form."""

T = TypeVar("T")

_PATH: Final = re.compile(r" - at `\$\.?(?P<path>[^`]*+)`$")
_MISSING: Final = re.compile(r"missing required field `(?P<field>[^`]++)`")
_PART: Final = re.compile(r"[.\[]")


def decode_json(body: bytes, kind: type[T]) -> T:
    """A JSON body. Raises InvalidInput."""
    return _checked("body", lambda: msgspec.json.decode(_utf8(body), type=kind))


def decode_form(content_type: str, body: bytes, kind: type[T]) -> T:
    """A web form: urlencoded, multipart or JSON; numbers and booleans may be text, and what is empty is not
    there. Raises InvalidInput."""
    media, options = parse_options_header(content_type)
    if media == "application/json" or (media != "multipart/form-data" and body.lstrip()[:1] == b"{"):
        fields: Any = _checked("body", lambda: msgspec.json.decode(_utf8(body)))
        if not isinstance(fields, dict):
            raise InvalidInput("body", "must be a JSON object or a form")
        # What a client has nothing to say about, it may say as null.
        fields = {name: value for name, value in fields.items() if value is not None}
    elif media == "multipart/form-data":
        fields = _filled(_multipart(options.get("boundary", ""), body))
    else:
        fields = _filled(_urlencoded(body))
    return decode_fields("body", fields, kind)


def decode_fields(what: str, fields: Mapping[str, Any], kind: type[T]) -> T:
    """An object of named values, as a query has it: numbers and booleans may be text."""
    # A dict: of any other mapping msgspec takes names as they are in Python, too.
    return _checked(what, lambda: msgspec.convert(dict(fields), kind, strict=False))


def _checked(what: str, decode: Callable[[], T]) -> T:
    try:
        return decode()
    except msgspec.ValidationError as error:
        raise _refusal(what, str(error)) from None
    except msgspec.DecodeError:
        raise InvalidInput(what, "is not valid JSON") from None
    except RecursionError:
        raise InvalidInput(what, "is nested too deeply") from None


def _refusal(what: str, message: str) -> InvalidInput:
    path = _PATH.search(message)
    problem = message[: path.start()] if path else message
    if problem.startswith("Invalid enum value "):
        problem = "is none of the possible values"
    missing = _MISSING.search(message)
    if missing:
        return InvalidInput(missing["field"], "is required")
    name = _PART.split(path["path"])[0] if path else ""
    return InvalidInput(name or what, problem)


def _utf8(body: bytes) -> bytes:
    try:
        body.decode()
    except UnicodeDecodeError:
        raise InvalidInput("body", "is not valid UTF-8") from None
    return body


def _filled(fields: Mapping[str, str]) -> dict[str, str]:
    # Some clients send all fields that there are, and those that they have nothing to say about empty.
    return {name: value for name, value in fields.items() if value}


def _urlencoded(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except UnicodeDecodeError:
        raise InvalidInput("body", "is not valid UTF-8") from None
    except ValueError:
        raise InvalidInput("body", f"must not have more than {MAX_FIELDS} fields") from None
    return dict(pairs)


def _multipart(boundary: str, body: bytes) -> dict[str, str]:
    # A header's bytes above 127 are surrogates here, and no boundary may have them (RFC 2046).
    if not boundary or not boundary.isascii():
        raise InvalidInput("Content-Type", "multipart/form-data needs a boundary, in ASCII")
    size = len(body)
    # In memory, whatever the size: the parser would put a large part into a file, and write there at once.
    limits = {"content_length": size, "spool_limit": size + 1, "part_limit": MAX_FIELDS}
    parser = MultipartParser(BytesIO(body), boundary, **limits)
    try:
        return {part.name: part.raw.decode() for part in parser if part.name and part.filename is None}
    except UnicodeDecodeError:
        raise InvalidInput("body", "is not valid UTF-8") from None
    except MultipartError:
        raise InvalidInput("body", "is no multipart/form-data with this boundary") from None
