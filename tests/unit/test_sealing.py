"""Secrets that are stored encrypted."""

from __future__ import annotations

import base64
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, strategies

from homewire.errors import ConfigurationError
from homewire.sealing import KEY_FILE, Sealer
from homewire.settings import Settings, load

SECRET = "0123456789abcdef0123456789abcdef"


@given(strategies.text())
def test_sealed_text_is_opened(text: str) -> None:
    sealer = Sealer(SECRET, Path("nowhere"))
    assert Sealer(SECRET, Path("elsewhere")).open(sealer.seal(text)) == text


def test_text_is_sealed_differently_each_time_and_never_shown() -> None:
    sealer = Sealer(SECRET, Path("nowhere"))
    sealed = sealer.seal("hunter2-hunter2")
    assert sealed != sealer.seal("hunter2-hunter2")
    assert "hunter2" not in sealed
    assert b"hunter2" not in base64.urlsafe_b64decode(sealed.removeprefix("s1."))


def test_another_secret_does_not_open_it() -> None:
    sealed = Sealer(SECRET, Path("nowhere")).seal("text")
    with pytest.raises(ConfigurationError, match="another secret key"):
        Sealer(SECRET + "x", Path("nowhere")).open(sealed)


@pytest.mark.parametrize("sealed", ["", "s1.", "s1.AAAA", "s1.!", "plain text", "s1." + "A" * 64])
def test_unsealed_text_is_refused(sealed: str) -> None:
    with pytest.raises(ConfigurationError):
        Sealer(SECRET, Path("nowhere")).open(sealed)


def test_changed_byte_is_noticed() -> None:
    sealer = Sealer(SECRET, Path("nowhere"))
    data = bytearray(base64.urlsafe_b64decode(sealer.seal("text").removeprefix("s1.")))
    for at in range(len(data)):
        data[at] ^= 1
        with pytest.raises(ConfigurationError):
            sealer.open("s1." + base64.urlsafe_b64encode(data).decode())
        data[at] ^= 1


def test_generated_secret_is_made_once_and_private(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    sealer = Sealer.of(settings)
    assert not settings.data_dir.exists(), "nothing is made before it is needed"
    sealed = sealer.seal("text")
    file = settings.data_dir / KEY_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in settings.data_dir.iterdir()] == [KEY_FILE]
    assert Sealer.of(settings).open(sealed) == "text"


def test_processes_starting_at_once_agree_on_one_secret(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    sealers = [Sealer.of(settings) for _ in range(16)]
    with ThreadPoolExecutor(16) as threads:
        sealed = list(threads.map(lambda sealer: sealer.seal("text"), sealers))
    assert {sealers[0].open(each) for each in sealed} == {"text"}


def test_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="HOMEWIRE_SECRET_KEY"):
        Sealer.of(Settings(data_dir=tmp_path / "file")).seal("text")


def test_short_secret_is_refused_and_never_shown() -> None:
    with pytest.raises(ConfigurationError, match="HOMEWIRE_SECRET_KEY") as refused:
        load(secret_key="hunter2")
    assert "hunter2" not in str(refused.value)
    assert SECRET not in repr(load(secret_key=SECRET))
