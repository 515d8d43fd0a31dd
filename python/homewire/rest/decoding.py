"""From bytes to checked objects. Every refusal names the field, and never quotes what was sent.

Clients send whole objects: what a PATCH cannot change may be there as it is, and zero values mean nothing.

Clients in Go fill what they have nothing to say about with the zero value of its type: "", 0, the year 1.
(Also false; but that is a value like true, which can be meant.) Where a zero value cannot be meant, it counts
as absent: `is_zero` is the one rule, of `changes` for PATCH and of `WholeObject` for POST.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from io import BytesIO
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from multipart import MultipartError, MultipartParser, parse_options_header

from homewire.errors import InvalidInput

MAX_FIELDS: Final = 100
"""Of a form."""

T = TypeVar("T")

_PLUS: Final = {"phoneNumber": re.compile(r"^ (?=[0-9])"), "email": re.compile(r"(?<=[^ ]) (?=[^ ])")}
"""Fields, and blanks in them that can only be a `+` that a client did not escape, as forms ask for."""
_ESCAPE: Final = re.compile(
    rb"\\(?:(?P<pair>u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|u(?P<half>[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_NONCHARACTERS: Final = [chr(0xFDD0 + number) for number in range(32)]
"""Code points that no text has (Unicode, section 23.7)."""

_PATH: Final = re.compile(r" - at `\$\.?(?P<path>[^`]*+)`$")
_MISSING: Final = re.compile(r"missing required field `(?P<field>[^`]++)`")
_TYPES: Final = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "null": "null",
    "array": "an array",
    "object": "an object",
}
"""Types of JSON by msgspec's names for them."""
_PART: Final = re.compile(r"[.\[]")


def decode_json(body: bytes, kind: type[T]) -> T:
    """A JSON body. Raises InvalidInput.

    Half of a surrogate pair, which the grammar of JSON allows, is kept where any JSON may stand
    (`msgspec.Raw`), as in events, and refused elsewhere.
    """
    body = _utf8(body)
    try:
        return _checked("body", lambda: msgspec.json.decode(body, type=kind))
    except InvalidInput:
        masked, marker = _masked(body)
        if marker is None:
            raise
        decoded = _checked("body", lambda: msgspec.json.decode(masked, type=kind))
        return _unmasked(decoded, marker)


def decode_form(content_type: str, body: bytes, kind: type[T]) -> T:
    """A web form: urlencoded, multipart or JSON; numbers and booleans may be text, and what is empty is not
    there. Raises InvalidInput.

    A `+` of a phone number or an e-mail address that was not escaped is read as one, not as a blank.
    """
    media, options = parse_options_header(content_type)
    if media == "application/json" or (media != "multipart/form-data" and body.lstrip()[:1] == b"{"):
        fields: Any = _checked("body", lambda: msgspec.json.decode(_utf8(body)))
        if not isinstance(fields, dict):
            raise InvalidInput("body", "must be a JSON object or a form")
        # What a client has nothing to say about, it may say as null, or empty as in a form.
        fields = {name: value for name, value in fields.items() if value is not None and value != ""}
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
    problem = _in_words(problem, typed=what == "body")
    name = _PART.split(path["path"])[0] if path else ""
    return InvalidInput(name or what, problem)


def _in_words(problem: str, *, typed: bool) -> str:
    """What msgspec says of types, in words of JSON. `typed`: whether what came has types, and is no text."""
    start, _, rest = problem.partition("`")
    expected, _, rest = rest.partition("`")
    names = [_TYPES.get(each, each) for each in expected.split(" | ")]
    if start != "Expected " or not expected:
        return problem
    wanted = "must be " + ", or ".join(names)
    got, _, given = rest.partition("`")
    if got != ", got ":
        return wanted + rest
    return f"{wanted}, not {_TYPES.get(given[:-1], 'something else')}" if typed else wanted


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
    fields = dict(pairs)
    for name, blank in _PLUS.items():
        if name in fields:
            fields[name] = blank.sub("+", fields[name])
    return fields


def _masked(body: bytes) -> tuple[bytes, str | None]:
    """The body with another text for each half of a surrogate pair, and what such a text begins with.

    None: it has none, or all that it could begin with stands in the body.
    """
    marker = next((each for each in _NONCHARACTERS if each.encode() not in body), None)
    if marker is None or not any(found["half"] for found in _ESCAPE.finditer(body)):
        return body, None
    begin = marker.encode()
    return _ESCAPE.sub(lambda found: begin + found["half"] if found["half"] else found[0], body), marker


def _unmasked(decoded: T, marker: str) -> T:
    """The same with what was sent where any JSON may stand. Raises InvalidInput for another field."""
    if not isinstance(decoded, msgspec.Struct):
        raise InvalidInput("body", "must not have unpaired surrogates")
    changed = {}
    for name, spelled in zip(decoded.__struct_fields__, decoded.__struct_encode_fields__, strict=True):
        value = getattr(decoded, name)
        if isinstance(value, msgspec.Raw):
            changed[name] = msgspec.Raw(bytes(value).replace(marker.encode(), rb"\u"))
        elif marker in str(msgspec.to_builtins(value) if value is not msgspec.UNSET else ""):
            raise InvalidInput(spelled, "must not have unpaired surrogates")
    return msgspec.structs.replace(decoded, **changed)


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


def is_zero(value: object) -> bool:
    """Whether a value is a zero value that clients send for a missing one: "", 0, a time in the year 1."""
    if isinstance(value, str):
        moment = _moment(value)
        return not value or (moment is not None and moment.year == 1)
    return type(value) is int and value == 0


class WholeObject(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A body in which a zero value of an optional member (`is_zero`) means the default.

    The type of such an integer member allows 0.
    """

    def __post_init__(self) -> None:
        """Put the defaults in place of zero values."""
        # The defaults are those of the last members.
        optional = zip(reversed(self.__struct_fields__), reversed(self.__struct_defaults__), strict=False)
        for name, default in optional:
            value = getattr(self, name)
            if default is not msgspec.NODEFAULT and is_zero(value):
                msgspec.structs.force_setattr(self, name, default)


def changes(body: msgspec.Struct, current: msgspec.Struct, mutable: Collection[str]) -> dict[str, Any]:
    """The changes of a PATCH: its members in `mutable`, by the names of the fields.

    `current` is the object as in answers. Raises InvalidInput for another member whose value is neither that
    of `current` nor zero (`is_zero`). Unknown members are ignored, as everywhere.
    """
    given = {
        name: getattr(body, name)
        for name in body.__struct_fields__
        if getattr(body, name) is not msgspec.UNSET
    }
    for name, value in given.items():
        if name not in mutable and not is_zero(value) and not same(value, getattr(current, name, None)):
            raise InvalidInput(_spelled(body, name), "cannot be changed")
    return {name: value for name, value in given.items() if name in mutable}


def same(given: object, stored: object) -> bool:
    """Whether two values are equal; times are equal if they are the same moment."""
    if given == stored:
        return True
    if isinstance(given, str) and isinstance(stored, str):
        moment = _moment(given)
        return moment is not None and moment == _moment(stored)
    return False


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _spelled(body: msgspec.Struct, name: str) -> str:
    fields = zip(body.__struct_fields__, body.__struct_encode_fields__, strict=True)
    return dict(fields)[name]
