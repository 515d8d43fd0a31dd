"""The audit trail of commands, against the real embedded server."""

from __future__ import annotations

import pytest
from test_cli_program import Commands, alone, homewire

from homewire.cli import audit

__all__ = ["alone", "homewire"]


def test_changes_and_refusals_are_recorded_without_secrets(homewire: Commands) -> None:
    project = homewire.json("project", "create", "--name", "hunter2", "--accounts", "email")["projectId"]
    p = ("--project", project)
    made = homewire.json("project-key", "create", *p, "--name", "K", "--permission", "read")
    assert homewire.run("home", "delete", *p, "--home", 99) == 1
    homewire.json("project", "list")
    assert homewire.run("project", "create", "--accounts", "email") == 2

    first, second, third = homewire.json("audit")
    assert (first["command"], first["outcome"]) == ("project create", "ok")
    assert first["ids"] == f"projectId={project}"
    assert second["command"] == "project-key create"
    assert second["ids"] == f"projectId={project} projectKeyId={made['projectKeyId']}"
    assert (third["command"], third["outcome"]) == ("home delete", "NOT_FOUND")
    assert third["ids"] == f"projectId={project} homeId=99"
    assert all(each["user"] and each["host"] and each["at"] for each in (first, second, third))
    assert made["key"] not in homewire.out
    assert "hunter2" not in homewire.out
    assert homewire.json("audit", "--limit", 1) == [third]


def test_audit_trail_is_bounded_and_read_in_pages(
    homewire: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_PAGE", 2)
    for name in "abcde":
        homewire.json("project", "create", "--name", name, "--accounts", "email")
    assert len(homewire.json("audit")) == 5
    assert len(homewire.json("audit", "--limit", 3)) == 3
