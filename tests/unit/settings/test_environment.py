"""The `HOMEWIRE_…` variables: what Kubernetes injects, empty ones, secrets in files, and slips."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import pytest

from homewire.errors import ConfigurationError
from homewire.settings import Settings, in_environment, load, rows

# As the kubelet makes them for the Services homewire (8080), homewire-smtp (25) and homewire-web (80).
OF_SERVICES = {
    "HOMEWIRE_PORT": "tcp://10.96.0.12:8080",
    "HOMEWIRE_SERVICE_HOST": "10.96.0.12",
    "HOMEWIRE_SERVICE_PORT": "8080",
    "HOMEWIRE_SERVICE_PORT_HTTP": "8080",
    "HOMEWIRE_PORT_8080_TCP": "tcp://10.96.0.12:8080",
    "HOMEWIRE_PORT_8080_TCP_PROTO": "tcp",
    "HOMEWIRE_PORT_8080_TCP_PORT": "8080",
    "HOMEWIRE_PORT_8080_TCP_ADDR": "10.96.0.12",
    "HOMEWIRE_SMTP_PORT": "tcp://10.96.0.13:25",
    "HOMEWIRE_SMTP_SERVICE_HOST": "10.96.0.13",
    "HOMEWIRE_SMTP_PORT_25_TCP_ADDR": "10.96.0.13",
    "HOMEWIRE_WEB_PORT": "udp://10.96.0.14:80",
    "HOMEWIRE_WEB_SERVICE_PORT": "80",
}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in rows():
        monkeypatch.delenv(row.environment, raising=False)


def test_kubernetes_variables_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OF_SERVICES.items():
        monkeypatch.setenv(name, value)
    assert load() == Settings()
    assert set(in_environment().injected) == set(OF_SERVICES)
    assert in_environment().warnings() == []
    monkeypatch.setenv("HOMEWIRE_PORT", "9000")
    assert load().port == 9000


@pytest.mark.parametrize("value", ["http://10.0.0.1:8080", "80a", "tcp"])
def test_other_values_of_a_port_are_refused_as_before(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HOMEWIRE_PORT", value)
    with pytest.raises(ConfigurationError, match=r"--port \(HOMEWIRE_PORT\): must be a whole number"):
        load()


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in rows():
        monkeypatch.setenv(row.environment, "")
        if row.secret:
            monkeypatch.setenv(row.environment + "_FILE", "")
    assert load() == Settings()


def test_every_secret_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secrets = [row for row in rows() if row.secret]
    assert {"redis_url", "secret_key", "smtp_password", "sms_url", "sms_key"} <= {row.name for row in secrets}
    for number, row in enumerate(secrets):
        file = tmp_path / row.name
        file.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
        file.write_text(f"redis://user:{number}{'x' * 40}@example.net\nanother line\n")
        monkeypatch.setenv(row.environment + "_FILE", str(file))
    settings = load()
    for number, row in enumerate(secrets):
        assert getattr(settings, row.name) == f"redis://user:{number}{'x' * 40}@example.net"


def test_secret_file_that_is_no_use_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    monkeypatch.setenv("HOMEWIRE_SECRET_KEY_FILE", str(file))
    with pytest.raises(ConfigurationError, match="HOMEWIRE_SECRET_KEY_FILE: the file can't be read"):
        load()
    file.write_text("\n")
    with pytest.raises(ConfigurationError, match="HOMEWIRE_SECRET_KEY_FILE: the first line is empty"):
        load()
    file.write_text("x" * 40)
    monkeypatch.setenv("HOMEWIRE_SECRET_KEY", "y" * 40)
    with pytest.raises(ConfigurationError, match="HOMEWIRE_SECRET_KEY is given, too") as refused:
        load()
    assert "xxx" not in str(refused.value)


def test_secret_may_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("z" * 40 + "\n"))
    monkeypatch.setenv("HOMEWIRE_SECRET_KEY_FILE", "-")
    assert load().secret_key == "z" * 40


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("HOMEWIRE_HOSTT", "HOMEWIRE_HOST"),
        ("HOMEWIRE_ADRESS_CONNECTIONS", "HOMEWIRE_ADDRESS_CONNECTIONS"),
        ("HOMEWIRE_LOG_LEVLE", "HOMEWIRE_LOG_LEVEL"),
        ("HOMEWIRE_SECRETKEY_FILE", "HOMEWIRE_SECRET_KEY_FILE"),
    ],
)
def test_slip_is_an_error_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, slip: str, meant: str
) -> None:
    monkeypatch.setenv(slip, "0")
    with pytest.raises(ConfigurationError, match=f"{slip}: is not a setting; did you mean {meant}\\?"):
        load()


def test_variable_unlike_any_setting_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEWIRE_GARDEN_GNOMES", "7")
    assert load() == Settings()
    assert in_environment().warnings() == ["HOMEWIRE_GARDEN_GNOMES: is not a setting"]
