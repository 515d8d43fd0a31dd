"""What a command says when it can't go on: one line, JSON where that was asked for, never a traceback."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli_program import Commands, alone, homewire

from homewire import demo
from homewire.demo import Plan

__all__ = ["alone", "homewire"]

WITHIN_S = 60.0
COMMAND = (sys.executable, "-m", "homewire.cli")


def test_json_commands_report_errors_as_json(homewire: Commands) -> None:
    assert homewire.run("app", "create", "--project", 99, "--id", "a", "--json") == 1
    told = json.loads(homewire.error)
    assert (told["reason"], told["data"]) == ("NOT_FOUND", {"project": 99})
    assert homewire.run("demo", "--homes", "x", "--json") == 2
    told = json.loads(homewire.error)
    assert told["data"] == {"field": "--homes", "problem": "must be a whole number"}


def test_refusals_are_the_field_and_its_problem(homewire: Commands) -> None:
    words = ("project", "create", "--name", " ", "--accounts", "email")
    assert homewire.run(*words) == 1
    assert homewire.error == "homewire: name: must not be empty\n"
    assert homewire.run("demo", "--homes", "x") == 2
    assert homewire.error.startswith("homewire: --homes: must be a whole number ")
    assert homewire.run("project", "create") == 2
    assert homewire.error.startswith("homewire: --name: missing ")


def test_data_directory_that_does_not_exist_is_an_error_and_stays_so(alone: Commands) -> None:
    alone.data_dir.rmdir()
    for words in (("project", "list"), ("demo",), ("messages",), ("listen",)):
        assert alone.run(*words) == 1
        assert str(alone.data_dir) in alone.error
        assert not alone.data_dir.exists()


def test_slip_in_a_variable_names_the_setting(alone: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEWIRE_HOSTT", "1")
    assert alone.run("project", "list") == 1
    assert "HOMEWIRE_HOST?" in alone.error
    monkeypatch.delenv("HOMEWIRE_HOSTT")
    monkeypatch.setenv("HOMEWIRE_GARDEN_GNOMES", "1")
    assert alone.run("project", "list") == 0
    assert "HOMEWIRE_GARDEN_GNOMES: is not a setting" in alone.error


def test_version_short_help_and_completion(alone: Commands) -> None:
    for words, printed in (
        (("--version",), "homewire 0."),
        (("-h",), "Usage: homewire"),
        (("project", "create", "-h"), "NUMBER"),
        (("listen", "-h"), "homewire listen --home 4"),
        (("-h",), "--install-completion"),
    ):
        done = subprocess.run((*COMMAND, *words), capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert printed in done.stdout.replace("python -m homewire.cli", "homewire") or printed == "NUMBER"
        assert "<int" not in done.stdout
        assert "None" not in done.stdout


def test_completion_knows_the_commands() -> None:
    environment = {
        **os.environ,
        "_HOMEWIRE_COMPLETE": "complete_bash",
        "COMP_WORDS": "homewire lis",
        "COMP_CWORD": "1",
    }
    code = "import sys; sys.argv = ['homewire']; from homewire.cli import main; main()"
    done = subprocess.run(
        (sys.executable, "-c", code), env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["listen"]


def test_full_disk_is_said_in_one_line(homewire: Commands) -> None:
    words = (*COMMAND, "project", "list", "--data-dir", str(homewire.data_dir))
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "homewire: standard output: No space left on device\n"


@pytest.mark.parametrize("moment", ["homewire.cli.program", "typer.main", "homewire.store", "redis.asyncio"])
def test_interrupt_during_the_imports_ends_without_a_traceback(tmp_path: Path, moment: str) -> None:
    """`-X importtime` tells which module was imported just now."""
    words = (sys.executable, "-X", "importtime", *COMMAND[1:], "project", "list", "--data-dir", str(tmp_path))
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if line.rpartition("|")[2].strip().startswith(moment):
                process.send_signal(signal.SIGINT)
                break
        said += process.stderr.read()
        assert process.wait(WITHIN_S) == 130, said
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said


def test_first_interrupt_at_the_password_prompt_counts(homewire: Commands) -> None:
    made = homewire.json("project", "create", "--name", "N", "--accounts", "email")
    words = ("user", "create", "--project", made["projectId"], "--name", "U", "--email", "u@example.com")
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        (*COMMAND, *map(str, words), "--data-dir", str(homewire.data_dir)),
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        said = b""
        while b"Password" not in said:
            said += os.read(terminal, 1024)
        process.send_signal(signal.SIGINT)
        assert process.wait(WITHIN_S) == 130
        assert b"Traceback" not in said
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert homewire.json("project", "list")[0]["projectId"] == made["projectId"]


def test_password_comes_from_a_file_or_standard_input(homewire: Commands, tmp_path: Path) -> None:
    made = homewire.json("project", "create", "--name", "N", "--accounts", "email")
    words = ("user", "create", "--project", made["projectId"], "--name", "U")
    secret = tmp_path / "password"
    secret.write_text("correct horse 9\n")
    homewire.json(*words, "--email", "u@example.com", "--password-file", secret)
    done = subprocess.run(
        (*COMMAND, *map(str, words), "--email", "v@example.com", "--password-file", "-",
         "--data-dir", str(homewire.data_dir)),
        input="correct horse 9\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for email in ("u@example.com", "v@example.com"):
        known = homewire.on_store(
            lambda store, email=email: store.users.authenticate(made["projectId"], email, "correct horse 9")  # type: ignore[misc]
        )
        assert known is not None
    assert homewire.run(*words, "--email", "w@example.com") == 2
    assert "--password-file" in homewire.error


def test_project_is_deleted_only_when_it_is_named_and_agreed_to(
    homewire: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = homewire.json("project", "create", "--name", "N", "--accounts", "email")["projectId"]
    monkeypatch.setenv("HOMEWIRE_DEFAULT_PROJECT", str(number))
    assert homewire.run("project", "delete", "--yes") == 2
    assert "--project" in homewire.error
    assert homewire.run("project", "delete", "--project", number) == 2
    assert "--yes" in homewire.error
    assert [each["projectId"] for each in homewire.json("project", "list")] == [number]
    assert homewire.json("project", "delete", "--project", number, "--yes") == {"projectId": number}
    assert homewire.json("project", "list") == []


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", 1), (b"y\n", 0)])
def test_on_a_terminal_deleting_a_project_asks(homewire: Commands, answer: bytes, left: int) -> None:
    number = homewire.json("project", "create", "--name", "Nice", "--accounts", "email")["projectId"]
    terminal, theirs = pty.openpty()
    words = ("project", "delete", "--project", number, "--data-dir", homewire.data_dir)
    process = subprocess.Popen((*COMMAND, *map(str, words)), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        said = b""
        while b"[y/N]" not in said:
            said += os.read(terminal, 1024)
        assert b"Nice" in said
        os.write(terminal, answer)
        assert process.wait(WITHIN_S) == left
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert len(homewire.json("project", "list")) == left


@pytest.mark.parametrize("need", demo.needs(Plan(2, 3, 4)), ids=lambda need: str(need.setting))
def test_demo_beyond_any_limit_makes_nothing(
    homewire: Commands, monkeypatch: pytest.MonkeyPatch, need: demo.Need
) -> None:
    size = ("--homes", 2, "--devices", 3, "--users", 4)
    variable = f"HOMEWIRE_{need.setting.upper()}"
    monkeypatch.setenv(variable, str(need.amount - 1))
    assert homewire.run("demo", *size) == 1
    assert f"{need.setting} allows {need.amount - 1}, but it needs {need.amount} " in homewire.error
    assert homewire.json("project", "list") == []
    monkeypatch.setenv(variable, str(need.amount))
    assert homewire.run("demo", *size) == 0


def test_demo_names_all_settings_that_refuse_it(homewire: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEWIRE_HOMES_PER_USER", "2")
    monkeypatch.setenv("HOMEWIRE_PROJECT_RECORDS", "6")
    assert homewire.run("demo", "--homes", 3) == 1
    assert "homes_per_user allows 2" in homewire.error
    assert "project_records allows 6" in homewire.error
    assert homewire.json("project", "list") == []


def test_demo_is_shown_a_record_a_line(homewire: Commands) -> None:
    assert homewire.run("demo", "--users", 2, "--devices", 1) == 0
    lines = homewire.out.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("projectId", "projectKey", "users", "userId", "userId", "homes", "homeId", "deviceId", "Keep"),
    ]
    assert "{" not in homewire.out


def test_demo_prints_each_step(homewire: Commands) -> None:
    steps: list[None] = []
    plan = Plan(homes=2, devices=3, users=2)
    made = homewire.on_store(lambda store: demo.create(store, plan, lambda: steps.append(None)))
    assert sum(len(home.devices) for home in made.homes) == 6
    assert len(steps) == plan.steps == 10
