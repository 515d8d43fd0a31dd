"""The parts of the bus that need no server."""

from __future__ import annotations

import asyncio
import binascii
from typing import Any

import pytest
from hiredis import ReplyError, pack_command
from hypothesis import given
from hypothesis import strategies as st

from homewire._core import XaddPrefixes, shard_of
from homewire.bus.retention import water_level
from homewire.bus.server_link import PendingAppends
from homewire.bus.shards import BusSettings, BusStats
from homewire.errors import ConfigurationError, NotConfirmed
from homewire.redis.address import parse_address
from homewire.redis.connection import RedisConnection
from homewire.settings import Settings


@given(st.integers(0, 63), st.integers(0, 2**44), st.binary(max_size=300))
def test_prepared_xadd_is_the_packed_command(shard: int, cutoff: int, envelope: bytes) -> None:
    prefixes = XaddPrefixes(64)
    prefixes.renew(cutoff)
    key = f"hw:{{e{shard}}}:events"
    trimming = ("XADD", key, "MINID", "~", cutoff, "LIMIT", 1000, "*", "e", envelope)
    plain = ("XADD", key, "*", "e", envelope)
    packed, bare = (pack_command(words) for words in (trimming, plain))  # type: ignore[arg-type]  # wants 1-tuples
    assert [prefixes.xadd(shard, envelope) for _ in range(3)] == [packed, bare, bare]
    prefixes.renew(cutoff)
    assert [prefixes.xadd(shard, envelope) for _ in range(2)] == [packed, bare]


@given(st.integers(1, 2**63 - 1), st.sampled_from([1, 16, 64, 16384]))
def test_shard_of_is_crc16_xmodem_of_the_decimal_id(identifier: int, shards: int) -> None:
    assert shard_of(identifier, shards) == binascii.crc_hqx(b"%d" % identifier, 0) % shards


def test_shard_vector_of_the_redis_cluster_specification() -> None:
    assert shard_of(123456789, 16384) == 0x31C3


@given(st.lists(st.integers(0, 10_000), max_size=20), st.integers(0, 100_000))
def test_water_level_is_the_highest_that_fits(sizes: list[int], limit: int) -> None:
    level = water_level(sizes, limit)
    assert sum(min(size, level) for size in sizes) <= limit
    if level < max(sizes, default=0):
        assert sum(min(size, level + 1) for size in sizes) > limit


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authentication"),
    [
        ("redis://cache", "cache", 6379, "", ()),
        ("redis://cache:7000/0", "cache", 7000, "", ()),
        ("redis://[::1]:7000/", "::1", 7000, "", ()),
        ("redis://:p%40ss@cache", "cache", 6379, "", ("AUTH", "p@ss")),
        ("redis://bob:p%2Fss@cache", "cache", 6379, "", ("AUTH", "bob", "p/ss")),
        ("unix:///run/a%20b.sock", "", 6379, "/run/a b.sock", ()),
        ("unix://:secret@/run/redis.sock", "", 6379, "/run/redis.sock", ("AUTH", "secret")),
    ],
)
def test_addresses(url: str, host: str, port: int, path: str, authentication: tuple[str, ...]) -> None:
    address = parse_address(url)
    assert (address.host, address.port, address.path) == (host, port, path)
    assert address.credentials.command == authentication
    assert address.tls is None


def test_rediss_verifies_by_default() -> None:
    tls = parse_address("rediss://cache").tls
    assert tls is not None
    assert tls.context.check_hostname
    relaxed = parse_address("rediss://cache?ssl_cert_reqs=none").tls
    assert relaxed is not None
    assert not relaxed.context.check_hostname


def test_url_of_sentinels_names_them_and_the_master() -> None:
    url = "redis+sentinel://bob:p%2Fss@one:7000,[::1],three/main?sentinel_username=s&sentinel_password=t"
    address = parse_address(url)
    sentinels = address.sentinels
    assert sentinels is not None
    assert sentinels.nodes == (("one", 7000), ("::1", 26379), ("three", 26379))
    assert sentinels.name == "main"
    assert sentinels.credentials.command == ("AUTH", "s", "t")
    assert address.credentials.command == ("AUTH", "bob", "p/ss")
    assert address.tls is None
    secured = parse_address("rediss+sentinel://one/main")
    assert secured.tls is not None
    for wrong in ("redis+sentinel://one", "redis+sentinel://one/", "redis+sentinel://one:x/main"):
        with pytest.raises(ConfigurationError):
            parse_address(wrong)


def test_url_of_cluster_names_nodes_that_share_credentials_and_tls() -> None:
    address = parse_address("redis+cluster://bob:p%2Fss@one:7000,[::1],three")
    assert address.cluster == (("one", 7000), ("::1", 6379), ("three", 6379))
    assert address.credentials.command == ("AUTH", "bob", "p/ss")
    assert address.tls is None
    node = parse_address("rediss+cluster://:secret@one").at("four", 7001)
    assert (node.host, node.port, node.cluster) == ("four", 7001, ())
    assert node.credentials.command == ("AUTH", "secret")
    assert node.tls is not None
    for wrong in ("redis+cluster://one:x", "redis+cluster://one/3"):
        with pytest.raises(ConfigurationError):
            parse_address(wrong)


@pytest.mark.parametrize(
    "url",
    [
        "http://:hunter2@cache",
        "redis://:hunter2@cache/3",
        "redis://:hunter2@cache:port",
        "unix://",
        "",
        "rediss://:hunter2@cache?ssl_ca_certs=/nowhere/ca.pem",
    ],
)
def test_impossible_urls_are_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_address(url)
    assert "hunter2" not in str(refused.value)


def test_no_repr_shows_a_password() -> None:
    url = "redis://:hunter2@cache"
    assert "hunter2" not in repr(BusSettings(url)) + repr(parse_address(url))


def test_settings_are_taken_over_and_keys_outlive_no_event() -> None:
    settings = BusSettings.of(Settings(retention_age_s=60.0, idempotency_ttl_s=600.0, shards=8), "redis://x")
    assert (settings.retention_ms, settings.idempotency_ms, settings.shards) == (60_000, 60_000, 8)


class Transport(asyncio.Transport):
    """Keeps what is written; the far end is the test."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


def connected() -> tuple[RedisConnection, Transport, list[RedisConnection]]:
    events: list[RedisConnection] = []
    connection, transport = RedisConnection(NotConfirmed, events.append), Transport()
    connection.connection_made(transport)
    return connection, transport, events


def batch_of(expected: int) -> PendingAppends:
    return PendingAppends(b"command", expected, 0.0, BusStats())


async def test_replies_reach_their_callers_at_every_split_point() -> None:
    stream = b"$3\r\n1-0\r\n-OOM no\r\n$3\r\n2-0\r\n*2\r\n:1\r\n$3\r\n3-0\r\n$-1\r\n"
    for split in range(len(stream) + 1):
        connection, transport, _ = connected()
        batches = [batch_of(1), batch_of(2), batch_of(1), batch_of(1)]
        connection.write(batches)
        assert transport.written == [b"command" * 4]
        connection.data_received(stream[:split])
        connection.data_received(stream[split:])
        one, two, three, four = [batch.waiter.result() for batch in batches]
        assert one == [b"1-0"]
        assert isinstance(two[0], ReplyError)
        assert two[1:] == [b"2-0"]
        assert (three, four) == ([[1, b"3-0"]], [None])
        assert not connection.lost


async def test_lost_connection_settles_requests_without_reply() -> None:
    connection, _, events = connected()
    batches = [batch_of(3), batch_of(1)]
    connection.write(batches)
    connection.data_received(b"$3\r\n1-0\r\n")
    connection.connection_lost(None)
    first, second = [batch.waiter.result() for batch in batches]
    assert first[0] == b"1-0"
    assert [type(reply) for reply in [*first[1:], *second]] == [NotConfirmed] * 3
    assert events == [connection]


async def test_write_to_lost_connection_is_settled_at_once() -> None:
    connection, transport, _ = connected()
    connection.connection_lost(None)
    batch = batch_of(2)
    connection.write([batch])
    assert [type(reply) for reply in batch.waiter.result()] == [NotConfirmed] * 2
    assert (transport.written, list(connection.written)) == ([], [])


@pytest.mark.parametrize("stream", [b"HTTP/1.1 400\r\n", b"$3\r\n1-0\r\n$3\r\n2-0\r\n"])
async def test_nonsense_and_surplus_replies_end_the_connection(stream: bytes) -> None:
    connection, transport, events = connected()
    connection.write([batch_of(1)])
    connection.data_received(stream)
    assert transport.aborted
    assert connection.lost
    assert events == [connection]


async def test_connection_to_a_replica_closes_after_the_last_reply() -> None:
    connection, transport, _ = connected()
    connection.write([batch_of(2)])
    connection.data_received(b"-READONLY no\r\n")
    assert not connection.writable
    assert not transport.aborted
    connection.data_received(b"-READONLY no\r\n")
    assert transport.aborted
