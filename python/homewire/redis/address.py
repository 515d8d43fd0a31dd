"""Where Redis is: a URL, taken apart once."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from homewire.errors import ConfigurationError

DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A TCP address (`host`, `port`) or a unix socket (`path`), with credentials and TLS."""

    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None

    @property
    def authentication(self) -> tuple[str, ...]:
        """The AUTH command, or nothing when the URL has no password."""
        if not self.password:
            return ()
        return ("AUTH", self.username, self.password) if self.username else ("AUTH", self.password)


def parse_address(url: str) -> RedisAddress:
    """Read `redis://[user:pass@]host[:port]`, `rediss://…` or `unix://[user:pass@]/path`.

    Raises ConfigurationError; its message never repeats the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise ConfigurationError("the Redis URL has no valid host and port") from error
    username, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme == "unix":
        if not parts.path:
            raise ConfigurationError("a unix:// Redis URL needs the path of the socket")
        return RedisAddress(path=unquote(parts.path), username=username, password=password)
    if parts.scheme not in ("redis", "rediss"):
        raise ConfigurationError("the Redis URL must begin with redis://, rediss:// or unix://")
    if parts.path not in ("", "/", "/0"):
        raise ConfigurationError("homewire uses database 0 only: leave the path out of the Redis URL")
    tls = _tls_context(parts) if parts.scheme == "rediss" else None
    return RedisAddress(parts.hostname or "localhost", port, "", username, password, tls)


def _tls_context(parts: SplitResult) -> ssl.SSLContext:
    """The same query parameters as redis-py, so that one URL serves both clients."""
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    try:
        context = ssl.create_default_context(cafile=query.get("ssl_ca_certs"))
        if "ssl_certfile" in query:
            context.load_cert_chain(query["ssl_certfile"], query.get("ssl_keyfile"))
    except OSError as error:
        raise ConfigurationError("a certificate file named in the Redis URL cannot be read") from error
    if query.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
