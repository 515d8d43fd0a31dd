"""Which Redis a node may use, by its identity and what the node remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from homewire.redis.deployment import FILE, SCHEMA, Deployment, Identity
from homewire.settings import Settings


def identity(directory: Path, known: str = "") -> Identity:
    if known:
        (directory / FILE).write_text(known + "\n")
    return Identity(64, directory / FILE)


def reply(
    named: str | None, schema: int = SCHEMA, shards: int = 64, replaces: str = ""
) -> list[bytes | None]:
    """What a Redis of this identity answers."""
    if named is None:
        return [None] * 4
    return [named.encode(), b"%d" % schema, b"%d" % shards, replaces.encode() or None]


@pytest.mark.parametrize(
    ("known", "found", "words"),
    [
        ("", reply("a"), None),
        ("a", reply("a"), None),
        ("", reply(None), None),
        ("a", reply(None), "empty or another one; this node belongs to deployment a"),
        ("a", reply("b"), "has deployment b, and this node belongs to a"),
        ("a", reply("b", replaces="z a"), None),
        ("a", reply("b", replaces="aa"), "has deployment b"),
        ("a", reply("a", shards=32), "set HOMEWIRE_SHARDS=32"),
        ("", reply("a", shards=128), "set HOMEWIRE_SHARDS=128"),
        ("a", reply("a", schema=SCHEMA + 1), f"schema version {SCHEMA + 1}"),
    ],
)
def test_redis_is_judged_by_id_schema_and_shards(
    tmp_path: Path, known: str, found: list[bytes | None], words: str | None
) -> None:
    problem = identity(tmp_path, known).admit(found)
    assert (words in problem) if problem and words else (problem or None) == words


def test_adopted_deployment_is_remembered(tmp_path: Path) -> None:
    running = identity(tmp_path, "a")
    assert running.admit(reply("b"))
    assert running.problem
    assert not running.admit(reply("b", replaces="a"))
    assert running.problem is None
    assert (tmp_path / FILE).read_text() == "b\n"
    assert "belongs to b" in (running.admit(reply("a")) or "")


def test_reply_that_is_an_error_tells_nothing(tmp_path: Path) -> None:
    assert identity(tmp_path, "a").admit(RuntimeError("LOADING")) is None


def test_identity_of_a_redis_is_read() -> None:
    assert Deployment.of(reply("a", replaces="x y")) == Deployment("a", SCHEMA, 64, frozenset({"x", "y"}))


def test_command_accepts_any_deployment_with_its_number_of_shards() -> None:
    assert Identity(64).admit(reply("a")) is None
    assert "HOMEWIRE_SHARDS=32" in (Identity(64).admit(reply("a", shards=32)) or "")


def test_embedded_and_external_redis_are_two_deployments(tmp_path: Path) -> None:
    embedded, external = Settings(data_dir=tmp_path), Settings(data_dir=tmp_path, redis_url="redis://h")
    assert Identity.of(embedded).admit(reply("a")) is None
    assert Identity.of(external).admit(reply("b")) is None
    assert "belongs to deployment a" in (Identity.of(embedded).admit(reply(None)) or "")
    assert "belongs to deployment b" in (Identity.of(external).admit(reply(None)) or "")
