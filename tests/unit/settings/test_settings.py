"""The settings' table: what it reads, what it refuses, and that its page is current."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from homewire._core import event_envelope, event_json, parse_event
from homewire.errors import ConfigurationError
from homewire.settings import Settings, contradictions, load, redacted, rows
from homewire.settings.__main__ import markdown
from homewire.settings.fields import ADDED_TO_AN_EVENT_BYTES

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


def test_page_is_current() -> None:
    assert PAGE.read_text() == markdown(), "run `make docs`"


def test_every_setting_has_a_row_with_a_description() -> None:
    assert [row.name for row in rows()] == [field.name for field in fields(Settings)]
    assert all(len(row.description) > 10 for row in rows())


def test_units_are_where_names_promise_them() -> None:
    for row in rows():
        if row.name.endswith("_s") and not row.name.endswith("_per_s"):
            assert row.unit == "s", row.name
        if row.name.endswith("_bytes"):
            assert row.unit == "bytes", row.name


def test_defaults_load_as_the_table_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in rows():
        monkeypatch.delenv(row.environment, raising=False)
    assert load() == Settings()


def test_flag_wins_over_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEWIRE_PORT", "9000")
    assert load().port == 9000
    assert load(port=None).port == 9000
    assert load(port=9001).port == 9001


@pytest.mark.parametrize(("text", "size"), [("2MiB", 2 * 1024 * 1024), ("64KiB", 65_536), ("70000", 70_000)])
def test_sizes_with_units(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv("HOMEWIRE_SEND_QUEUE_BYTES", text)
    assert load().send_queue_bytes == size
    assert type(load().send_queue_bytes) is int


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 70_000),
        ("port", "http"),
        ("durability", "never"),
        ("shards", 0),
        ("send_queue_bytes", 10),
        ("workers", 2),
        ("workers", 0),
        ("redis_url", "localhost:6379"),
        ("log_level", "loud"),
    ],
)
def test_refusals_name_the_setting(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(**{name: value})
    row = next(row for row in rows() if row.name == name)
    assert (row.flag or row.environment) in str(refused.value)


def test_redis_password_is_shown_nowhere() -> None:
    settings = load(redis_url="redis://user:hunter2@example.net:6379/1?password=hunter2")
    assert "hunter2" not in repr(settings)
    assert redacted(settings.redis_url or "") == "redis://example.net:6379/1"
    assert redacted("unix:///run/redis.sock?password=hunter2") == "unix:///run/redis.sock"
    with pytest.raises(ConfigurationError) as refused:
        load(redis_url="http://user:hunter2@example.net")
    assert "hunter2" not in str(refused.value)


def test_table_costs_nothing_to_import() -> None:
    code = "import sys, homewire.settings; sys.exit('pydantic' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::1", "http://[::1]:8080"),
    ],
)
def test_base_url_is_one_that_can_be_called(host: str, url: str) -> None:
    assert Settings(host=host).base_url == url


def test_send_queue_that_does_not_hold_the_largest_bulk_is_said() -> None:
    assert list(contradictions(Settings())) == []
    ((problem, advice),) = contradictions(Settings(send_queue_bytes=1024 * 1024))
    assert "HOMEWIRE_SEND_QUEUE_BYTES" in problem
    assert "4001" in problem
    assert "raise it" in advice


def test_event_grows_within_reckoned_size() -> None:
    """With the names that take most as JSON, of which each character becomes six bytes."""
    body = b'{"eventType":"t","eventData":{}}'
    name, most = "\x01" * 256, 2**64 - 1
    envelope = event_envelope(
        *(parse_event(body), most, most, most, 2**45),
        *(name, "2001:db8:1111:2222:3333:4444:5555:6666", most, name),
    )
    sent = event_json(envelope)
    assert sent is not None
    # 200: the frame's header, and the record of a piece in the queue.
    assert len(sent) - len(body) + 200 <= ADDED_TO_AN_EVENT_BYTES
