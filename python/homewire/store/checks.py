"""Validation and normal forms of input, before it is stored. Each function raises errors.InvalidInput."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final
from urllib.parse import urlsplit

from homewire.errors import InvalidInput
from homewire.messages.models import listed_codes

MAX_NAME: Final = 256
MAX_EMAIL: Final = 254
"""Characters of an e-mail address (RFC 5321)."""
MAX_ADDRESS: Final = 64
MAX_USER_AGENT: Final = 1024
MAX_HOST: Final = 261
"""A host name of 255 octets and a port."""
MAX_URL: Final = 2048
_URL: Final = re.compile(r"[A-Za-z0-9._~:/?#\[\]!$&'()*+,;=%{}-]++", re.ASCII)
"""The characters of a URL (RFC 3986), and the braces of a template."""
_NO_TIMEZONE: Final = re.compile(r"posix|right/|Factory|localtime|.{65}")
"""Files in the directory of time zones that are none."""
MAX_VALUE_KEY: Final = 256
MAX_JSON_BYTES: Final = 64 * 1024
MAX_JSON_DEPTH: Final = 64
"""The depth of `eventData` (`rust/core/src/input/mod.rs`)."""
_VALUE_KEY: Final = re.compile(r"[A-Za-z0-9]++(?:[_-]++[A-Za-z0-9]++)*+", re.ASCII)
_LEVELS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_APP_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)


def name(field: str, value: str) -> str:
    """A name of 1 to 256 characters, not only blanks, that is valid Unicode."""
    if not value.strip():
        raise InvalidInput(field, "must not be empty")
    return text(field, value)


def text(field: str, value: str) -> str:
    """A text of at most 256 characters, possibly empty."""
    if len(value) > MAX_NAME:
        raise InvalidInput(field, f"must not be longer than {MAX_NAME} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        # JSON can have half a surrogate pair, which UTF-8 cannot.
        raise InvalidInput(field, "is not valid Unicode") from None
    return value


def timezone(value: str, field: str = "timezone") -> str:
    """A time zone of the IANA database, of the system or of the package `tzdata`."""
    from zoneinfo import ZoneInfo

    try:
        if not _NO_TIMEZONE.match(value):
            return ZoneInfo(value).key
    except (KeyError, ValueError, OSError):
        pass
    raise InvalidInput(field, "must be the name of a time zone, like Europe/Berlin")


def app_id(value: str) -> str:
    """The id of an app: letters, digits, `_`, `.`, `-`, at most 128."""
    if not _APP_ID.fullmatch(value):
        raise InvalidInput("appId", "must be 1 to 128 letters, digits, '_', '.' or '-'")
    return value


def country_codes(field: str, value: str) -> str:
    """A list of country calling codes, possibly empty, in one form."""
    try:
        return ",".join(map(str, sorted(listed_codes(value))))
    except ValueError:
        raise InvalidInput(field, "must be country calling codes, like 49,43") from None


def link_template(field: str, value: str) -> str:
    """An http(s) URL with `{token}` in its path, query or fragment; or nothing."""
    if not value:
        return value
    if len(value) > MAX_URL:
        raise InvalidInput(field, f"must not be longer than {MAX_URL} characters")
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not _URL.fullmatch(value) or "@" in parts.netloc:
        raise InvalidInput(field, "must be a URL that begins with https:// or http://")
    if "{token}" not in value or "{" in parts.netloc:
        raise InvalidInput(field, "must contain {token} after the host; it is replaced by the token")
    return value


def header(value: str, limit: int) -> str:
    """The value of a header for storage: aiohttp returns undecodable bytes as lone surrogates."""
    return value[:limit].encode("utf-8", "replace").decode()


def email(value: str) -> str:
    """The normal form of an e-mail address. Domains of a private network are allowed."""
    # First: to validate 80,000 characters takes half a second.
    if len(value) > MAX_EMAIL:
        raise InvalidInput("email", f"must have at most {MAX_EMAIL} characters", reason="INVALID_EMAIL")
    # Imported at use: email_validator and phonenumbers cost every CLI command 100 ms otherwise.
    from email_validator import EmailNotValidError, validate_email

    try:
        found = validate_email(value, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError as error:
        raise InvalidInput("email", str(error), reason="INVALID_EMAIL") from None
    if "." not in found.domain:
        raise InvalidInput("email", "the domain must have a dot", reason="INVALID_EMAIL")
    return found.normalized


def phone(value: str) -> str:
    """The E.164 form of a phone number with country code."""
    import phonenumbers

    try:
        number = phonenumbers.parse(value, None)
    except phonenumbers.NumberParseException:
        number = None
    if number is None or not phonenumbers.is_possible_number(number):
        raise InvalidInput(
            "phoneNumber",
            "must be a phone number with country code, like +14155550123",
            reason="INVALID_PHONE_NUMBER",
        )
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def is_value_key(key: str) -> bool:
    """Whether a string is a valid key of the key-value store."""
    return len(key) <= MAX_VALUE_KEY and _VALUE_KEY.fullmatch(key) is not None


def value_key(key: str) -> str:
    """A key: letters, digits, `_` and `-` of ASCII, a letter or digit at both ends, at most 256."""
    if not is_value_key(key):
        raise InvalidInput(
            "key",
            f"must be 1 to {MAX_VALUE_KEY} letters, digits, '_' or '-', and begin and end with no sign",
        )
    return key


def json_value(field: str, value: bytes) -> bytes:
    """JSON of at most 64 KiB and 64 levels, unchanged.

    `homewire.rest.decoding` has checked that it is JSON and UTF-8.
    """
    if len(value) > MAX_JSON_BYTES:
        raise InvalidInput(field, f"must be at most {MAX_JSON_BYTES} bytes long")
    if _depth(value) > MAX_JSON_DEPTH:
        raise InvalidInput(field, f"must be nested at most {MAX_JSON_DEPTH} levels deep")
    return value


def _depth(value: bytes) -> int:
    """The depth of valid JSON; 0 if it cannot be too deep."""
    if value.count(b"[") + value.count(b"{") <= MAX_JSON_DEPTH:
        return 0
    # Without escapes, every other piece between quotes is outside of strings.
    outside = b"".join(value.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    return max(accumulate(_LEVELS.get(each, 0) for each in outside))
