"""The settings: one typed object; environment, flags, help texts and docs/settings.md come from its fields.

The table is a plain dataclass, made of the sections of this package, so that importing it is cheap and a test
writes ``Settings(port=0)``. Values are checked by pydantic, which costs up to 300 ms: only `load` imports it.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, get_type_hints
from urllib.parse import urlsplit

from homewire.errors import ConfigurationError
from homewire.hosts import listed_networks, listed_origins, projects_by_host
from homewire.messages.models import listed_codes
from homewire.settings import environment
from homewire.settings.accounts import AccountsSection, QuotasSection
from homewire.settings.bus import BusSection
from homewire.settings.fields import LARGEST_BULK_BYTES
from homewire.settings.limits import LimitsSection
from homewire.settings.outbound import MessagesSection, WebhooksSection
from homewire.settings.realtime import RealtimeSection
from homewire.settings.server import ServerSection

if TYPE_CHECKING:
    from pydantic import BaseModel

ENVIRONMENT_PREFIX = environment.PREFIX
SECRET_KEY_LENGTH = 32
REDIS_SCHEMES = (
    *("redis", "rediss", "unix"),
    *("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"),
)


# The fields of a dataclass come in the reverse order of its bases: those of the server first.
@dataclass(frozen=True, kw_only=True)
class Settings(
    AccountsSection,
    QuotasSection,
    MessagesSection,
    WebhooksSection,
    LimitsSection,
    RealtimeSection,
    BusSection,
    ServerSection,
):
    """What a deployment can choose. Times in seconds (`_s`), sizes in bytes (`_bytes`), rates `_per_s`."""

    @property
    def public_base_url(self) -> str:
        """What the links in messages begin with, without a final slash."""
        return (self.public_url or self.base_url).rstrip("/")

    @property
    def by_https(self) -> bool:
        """Whether the public URL of this homewire is https, however its nodes are reached."""
        return self.public_base_url.startswith("https://")

    @property
    def base_url(self) -> str:
        """Where this machine reaches the server, e.g. ``http://127.0.0.1:8080``; https with a `tls_cert`."""
        return f"{'http' if self.tls_cert is None else 'https'}://{_reachable(self.host)}:{self.port}"

    @property
    def has_redis_cluster(self) -> bool:
        """Whether Redis is a Redis Cluster."""
        return urlsplit(self.redis_url or "").scheme.endswith("+cluster")

    @property
    def ack_replicas(self) -> int:
        """How many replicas of Redis must confirm a write."""
        return replicas_of(self.ack)

    @property
    def admin_url(self) -> str:
        """Where this machine reaches the admin port."""
        return f"http://{_reachable(self.admin_host)}:{self.admin_port}"


def _reachable(host: str) -> str:
    """The host in a URL with which this machine reaches a server that listens on `host`."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104
    named = everywhere.get(host, host)
    return f"[{named}]" if ":" in named else named


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as help texts and documentation show it."""

    name: str
    environment: str
    flag: str
    default: str
    unit: str
    description: str
    secret: bool


def rows() -> Iterator[Row]:
    """The whole table, in the order of the fields."""
    for field in dataclasses.fields(Settings):
        yield Row(
            name=field.name,
            environment=ENVIRONMENT_PREFIX + field.name.upper(),
            flag=field.metadata["flag"],
            default="" if field.default is None else str(field.default),
            unit=field.metadata["unit"],
            description=field.metadata["description"],
            secret=field.metadata["secret"],
        )


def load(**given: Any) -> Settings:
    """Settings from flags, else from the environment, else the defaults.

    A flag that is None was not given. Sizes may be written ``64KiB`` or ``1MiB`` in the environment.
    Raises ConfigurationError naming every setting that can't be used, and for a variable that is nearly one.
    """
    from pydantic import ValidationError

    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        values = validator()(**{**in_environment().values, **chosen})
    except ValidationError as error:
        raise ConfigurationError(_problems(error.errors(include_input=False))) from None
    settings = Settings(**values.model_dump())
    _check(settings)
    return settings


@cache
def validator() -> type[BaseModel]:
    """The model that reads and checks the table's values, made once in a process."""
    from pydantic import ByteSize, Field, create_model

    hints = get_type_hints(Settings)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        kind = ByteSize if field.metadata["unit"] == "bytes" else hints[field.name]
        limits = {"ge": field.metadata["minimum"], "le": field.metadata["maximum"]}
        fields[field.name] = (kind, Field(field.default, **limits))
    return create_model("Environment", **fields)


def in_environment() -> environment.Environment:
    """The variables of this process, sorted out. Raises ConfigurationError for a slip."""
    table = list(rows())
    return environment.read(
        os.environ, [row.name for row in table], [row.name for row in table if row.secret]
    )


def _check(settings: Settings) -> None:
    """Check what types and limits can't express. Raises ConfigurationError."""
    if settings.workers != 1:
        raise ConfigurationError(
            f"--workers {settings.workers}: several workers in one node do not exist yet. "
            "Leave it at 1, or start more nodes on the same Redis."
        )
    if settings.secret_key is not None and len(settings.secret_key) < SECRET_KEY_LENGTH:
        raise ConfigurationError(
            f"{named('secret_key')}: needs at least {SECRET_KEY_LENGTH} characters, e.g. of "
            "`openssl rand -hex 32`"
        )
    if settings.public_url is not None and urlsplit(settings.public_url).scheme not in ("http", "https"):
        raise ConfigurationError(f"{named('public_url')}: must begin with https:// or http://")
    _check_form(projects_by_host, settings.project_hosts, "project_hosts", "a.example.com=3,b.example.com=4")
    _check_form(listed_codes, settings.sms_country_codes, "sms_country_codes", "49,43,1")
    _check_form(listed_origins, settings.cookie_origins, "cookie_origins", "https://app.example.com")
    _check_form(listed_networks, settings.trusted_proxies, "trusted_proxies", "10.0.0.0/8,2001:db8::/32")
    if settings.proxy_protocol and not listed_networks(settings.trusted_proxies):
        raise ConfigurationError(f"{named('proxy_protocol')}: needs {named('trusted_proxies')}")
    _check_form(replicas_of, settings.ack, "ack", "none, replicas or replicas:2")
    if settings.ack_replicas and settings.redis_url is None:
        raise ConfigurationError(f"{named('ack')}: needs --redis; the embedded server has no replicas")
    if settings.redis_url is not None and urlsplit(settings.redis_url).scheme not in REDIS_SCHEMES:
        schemes = ", ".join(f"{scheme}://" for scheme in REDIS_SCHEMES)
        raise ConfigurationError(f"--redis (HOMEWIRE_REDIS_URL): must begin with one of {schemes}")


def contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    """Settings that contradict a bound: the contradiction, and advice for the operator."""
    if settings.send_queue_bytes < LARGEST_BULK_BYTES:
        yield (
            f"{named('send_queue_bytes')}: {settings.send_queue_bytes} bytes are less than the largest bulk "
            f"of events, {LARGEST_BULK_BYTES} bytes: a client that reads as fast as its link allows may be "
            "closed with 4001",
            "raise it, or send smaller bulks",
        )


_ACK: Final = re.compile(r"none|replicas(?::([1-9]\d?))?")


def replicas_of(ack: str) -> int:
    """The number of replicas in `none`, `replicas` or `replicas:N`. Raises ValueError for another form."""
    found = _ACK.fullmatch(ack)
    if found is None:
        raise ValueError(ack)
    return 0 if ack == "none" else int(found[1] or 1)


def _check_form(parse: Callable[[str], object], value: str, name: str, example: str) -> None:
    try:
        parse(value)
    except ValueError:
        raise ConfigurationError(f"{named(name)}: must look like {example}") from None


def _problems(errors: Any) -> str:
    """The invalid settings and their problems, without values, which may be secret."""
    return "; ".join(f"{named(str(error['loc'][0]))}: {in_plain_words(error)}" for error in errors)


_PLAIN = {
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "byte_size": "must be a number of bytes, e.g. 65536, 64KiB or 1MiB",
    "byte_size_unit": "must be a number of bytes, e.g. 65536, 64KiB or 1MiB",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be one of {expected}",
}


def in_plain_words(error: Any) -> str:
    """The problem of one of pydantic's errors, without the words of the implementation."""
    text = _PLAIN.get(error["type"])
    if text is None:
        return str(error["msg"]).removeprefix("Value error, ")
    return text.format(**error.get("ctx", {})).replace("'", "")


def named(name: str) -> str:
    """A setting as an error names it: its flag, where it has one, and its variable."""
    variable = ENVIRONMENT_PREFIX + name.upper()
    flag = next((row.flag for row in rows() if row.name == name), "")
    return f"{flag} ({variable})" if flag else variable


def redacted(url: str) -> str:
    """A Redis URL as it may be shown: without user, password and query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
