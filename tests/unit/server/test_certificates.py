"""Certificates: which ones the port refuses to start with, and which ones clients of this machine trust."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import pytest
import trustme
from aiohttp import Fingerprint
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from homewire import cli
from homewire.cli.diagnosis import examine
from homewire.cli.serving import next_steps
from homewire.demo import Demo, DemoHome, DemoUser
from homewire.errors import ConfigurationError
from homewire.redis.checks import Level
from homewire.settings import Settings
from homewire.tls import server_context, trust

AUTHORITY = trustme.CA()


@pytest.fixture
def good(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate and its key."""
    return issue(tmp_path, "good")


def issue(directory: Path, name: str) -> tuple[Path, Path]:
    issued = AUTHORITY.issue_cert("hub.example.com")
    certificate, key = directory / f"{name}.cert.pem", directory / f"{name}.key.pem"
    certificate.write_bytes(issued.cert_chain_pems[0].bytes())
    key.write_bytes(issued.private_key_pem.bytes())
    key.chmod(0o600)
    return certificate, key


def encrypted(key: Path) -> Path:
    private = load_pem_private_key(key.read_bytes(), None)
    locked = key.with_name("locked.pem")
    locked.write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    return locked


def test_plain_http_unless_asked() -> None:
    assert server_context(Settings()) is None
    assert Settings().base_url.startswith("http://")


def test_certificate_and_its_key(good: tuple[Path, Path]) -> None:
    settings = Settings(tls_cert=good[0], tls_key=good[1])
    context = server_context(settings)
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert settings.base_url == "https://127.0.0.1:8080"


@pytest.mark.parametrize("wrong", ["missing", "directory", "text", "other", "locked", "alone", "swapped"])
@pytest.mark.parametrize("which", ["tls_cert", "tls_key"])
def test_unusable_certificate_is_named_in_one_line(
    tmp_path: Path,
    good: tuple[Path, Path],
    which: str,
    wrong: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the command, as somebody sees it; nothing of a file's content is shown, and nothing was begun."""
    certificate, key = good
    text = tmp_path / "text.pem"
    text.write_text("-----BEGIN CERTIFICATE-----\nnot quite secret\n-----END CERTIFICATE-----\n")
    files: dict[str, Path | None] = {"tls_cert": certificate, "tls_key": key}
    match wrong:
        case "missing" | "directory" | "text":
            files[which] = {"missing": tmp_path / "none.pem", "directory": tmp_path, "text": text}[wrong]
        case "other":
            files["tls_key"] = issue(tmp_path, "other")[1]
        case "locked":
            files["tls_key"] = encrypted(key)
        case "alone":
            files[which] = None
        case "swapped":
            files = {"tls_cert": key, "tls_key": certificate}
    named = {"other": "tls_key", "locked": "tls_key", "swapped": "tls_cert"}.get(wrong, which)
    words = ["homewire", "run", "--port", "0", "--data-dir", str(tmp_path / "data")]
    for name, path in files.items():
        words += [f"--{name.replace('_', '-')}", str(path)] if path is not None else []
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.startswith(f"homewire: --{named.replace('_', '-')} (HOMEWIRE_{named.upper()})")
    assert said.count("\n") == 1
    assert "not quite" not in said
    assert not (tmp_path / "data").exists()


async def test_check_says_whether_they_fit(tmp_path: Path, good: tuple[Path, Path]) -> None:
    async def level(key: Path) -> Level:
        settings = Settings(
            data_dir=tmp_path / "data", tls_cert=good[0], tls_key=key, redis_url="redis://127.0.0.1:1"
        )
        return next(finding.level for finding in await examine(settings) if finding.check == "tls")

    assert await level(good[1]) is Level.OK
    assert await level(issue(tmp_path, "other")[1]) is Level.FATAL
    good[1].chmod(0o644)
    assert await level(good[1]) is Level.WARNING


def test_client_trusts_own_certificate_or_authority(tmp_path: Path, good: tuple[Path, Path]) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_bytes(AUTHORITY.cert_pem.bytes())
    own = Settings(tls_cert=good[0], tls_ca=authority)
    assert isinstance(trust(own, "https://127.0.0.1:9000"), Fingerprint)
    assert isinstance(trust(own, "https://hub.example.com"), ssl.SSLContext)
    assert trust(Settings(tls_cert=good[0]), "https://hub.example.com") is True
    with pytest.raises(ConfigurationError, match="--tls-ca"):
        trust(Settings(tls_ca=good[1]), "https://hub.example.com")


def test_next_steps_name_the_certificate(good: tuple[Path, Path]) -> None:
    settings = Settings(tls_cert=good[0], tls_key=good[1])
    demo = Demo(1, "key", [DemoUser(2, "key")], [DemoHome(3, [])])
    steps = "\n".join(next_steps(settings, settings.base_url, demo))
    assert f"listen --url https://127.0.0.1:8080 --tls-cert {good[0]}" in steps
    assert "'wss://127.0.0.1:8080/userSession" in steps
    assert f"curl --cacert {good[0]} -X PUT https://127.0.0.1:8080/" in steps
    assert str(good[1]) not in steps
