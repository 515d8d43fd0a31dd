"""Where Redis is: the one reading of a Redis URL, for all clients of this process and for the stream reader.

| form | Redis |
| --- | --- |
| `redis://user:password@host:6379` | one server by TCP |
| `rediss://user:password@host:6379?ssl_ca_certs=/path` | the same with TLS |
| `unix://user:password@/path` | one server on a unix socket |
| `redis+sentinel://user:password@host:26379,host:26379/name` | the master that these Sentinels name |
| `rediss+sentinel://…` | the same, with TLS to the Sentinels and to Redis |
| `redis+cluster://user:password@host:6379,host:6379` | the Redis Cluster to which these nodes belong |
| `rediss+cluster://…` | the same, with TLS to all nodes |

User and password are those of Redis, the same for all nodes of a cluster. Parameters: `ssl_ca_certs`,
`ssl_certfile`, `ssl_keyfile` and `ssl_cert_reqs`; `sentinel_username` and `sentinel_password` if the
Sentinels ask for credentials.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from homewire.errors import ConfigurationError
from homewire.settings import REDIS_SCHEMES

DEFAULT_PORT: Final = 6379
DEFAULT_SENTINEL_PORT: Final = 26379
_PARAMETERS: Final = frozenset({
    "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "sentinel_username", "sentinel_password"
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Credentials:
    """User and password of a server; both are empty without a password."""

    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def command(self) -> tuple[str, ...]:
        """AUTH with its arguments, or nothing without a password."""
        if not self.password:
            return ()
        return ("AUTH", self.username, self.password) if self.username else ("AUTH", self.password)


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for TLS (PEM); `ca_file` None: the certificates of the system."""

    ca_file: str | None
    certificate_file: str | None
    key_file: str | None
    is_verified: bool
    context: ssl.SSLContext = field(compare=False, repr=False)

    @property
    def options(self) -> dict[str, Any]:
        """The same for a client of redis-py."""
        return {
            "ssl": True,
            "ssl_ca_certs": self.ca_file,
            "ssl_certfile": self.certificate_file,
            "ssl_keyfile": self.key_file,
            "ssl_cert_reqs": "required" if self.is_verified else "none",
            "ssl_check_hostname": self.is_verified,
        }


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The Sentinels that know which server is the master `name`: host and port of each."""

    nodes: tuple[tuple[str, int], ...]
    name: str
    credentials: Credentials = Credentials()


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A TCP address (`host`, `port`), a unix socket (`path`), the master that `sentinels` name, or the Redis
    Cluster of the nodes in `cluster` (host and port of each)."""

    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    credentials: Credentials = Credentials()
    tls: Tls | None = None
    sentinels: Sentinels | None = None
    cluster: tuple[tuple[str, int], ...] = ()

    def at(self, host: str, port: int) -> RedisAddress:
        """One server, reached with the same credentials and TLS."""
        return replace(self, host=host, port=port, sentinels=None, cluster=())


def parse_address(url: str) -> RedisAddress:
    """Read a Redis URL.

    Raises ConfigurationError; its message never repeats the URL, which may contain a password.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigurationError("the Redis URL has no valid host and port") from error
    if parts.scheme not in REDIS_SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in REDIS_SCHEMES)
        raise ConfigurationError(f"the Redis URL must begin with one of {known}")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if unknown := query.keys() - _PARAMETERS:
        raise ConfigurationError(f"the Redis URL has unknown parameters: {', '.join(sorted(unknown))}")
    userinfo, _, hosts = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    credentials = Credentials(unquote(username), unquote(password))
    if parts.scheme == "unix":
        if not parts.path:
            raise ConfigurationError("a unix:// Redis URL needs the path of the socket")
        return RedisAddress(path=unquote(parts.path), credentials=credentials)
    tls = _tls(query) if parts.scheme.startswith("rediss") else None
    if parts.scheme.endswith("+sentinel"):
        return RedisAddress(credentials=credentials, tls=tls, sentinels=_sentinels(parts, hosts, query))
    if parts.path not in ("", "/", "/0"):
        raise ConfigurationError("homewire uses database 0 only: leave the path out of the Redis URL")
    if parts.scheme.endswith("+cluster"):
        nodes = tuple(_host_and_port(each, DEFAULT_PORT) for each in hosts.split(","))
        return RedisAddress(credentials=credentials, tls=tls, cluster=nodes)
    host, port = _host_and_port(hosts, DEFAULT_PORT)
    return RedisAddress(host, port, "", credentials, tls)


def _sentinels(parts: SplitResult, hosts: str, query: dict[str, str]) -> Sentinels:
    name = unquote(parts.path.removeprefix("/"))
    if not name or "/" in name:
        raise ConfigurationError(
            "a Redis URL of Sentinels must end with the name of the master: redis+sentinel://host,host/name"
        )
    nodes = tuple(_host_and_port(each, DEFAULT_SENTINEL_PORT) for each in hosts.split(","))
    own = Credentials(query.get("sentinel_username", ""), query.get("sentinel_password", ""))
    return Sentinels(nodes, name, own)


def _host_and_port(text: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        return parts.hostname or "localhost", parts.port or default_port
    except ValueError as error:
        raise ConfigurationError("the Redis URL has no valid host and port") from error


def _tls(query: dict[str, str]) -> Tls:
    ca_file, certificate_file = query.get("ssl_ca_certs"), query.get("ssl_certfile")
    key_file, is_verified = query.get("ssl_keyfile"), query.get("ssl_cert_reqs") != "none"
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if certificate_file is not None:
            context.load_cert_chain(certificate_file, key_file)
    except OSError as error:
        raise ConfigurationError("a certificate file named in the Redis URL cannot be read") from error
    if not is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return Tls(ca_file, certificate_file, key_file, is_verified, context)
