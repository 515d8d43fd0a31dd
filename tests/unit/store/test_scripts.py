"""What holds for every script of the store."""

from __future__ import annotations

import re

import pytest

from homewire.store import scripts
from homewire.store.keys import ProjectSlot
from homewire.store.scripts import Script

ALL = {name: value for name, value in vars(scripts).items() if isinstance(value, Script)}


@pytest.mark.parametrize("name", ALL)
def test_only_declared_keys_and_no_forbidden_command(name: str) -> None:
    commands = re.findall(r"redis\.p?call\('(\w+)'(?:, ([^,)]+))?", ALL[name].text)
    assert commands
    for command, key in commands:
        assert command not in {"KEYS", "SELECT", "SCAN", "HGETALL", "SMEMBERS", "EVAL"}
        assert key.startswith(("KEYS[", "project", "place[1]")), f"{command} on {key}"


@pytest.mark.parametrize("name", ALL)
def test_every_change_of_a_project_is_announced_in_one_place(name: str) -> None:
    text = ALL[name].text
    if "local function changed" not in text:
        assert name in {"LOOK_UP_KEY", "UNLIST_PROJECT", "BURY_PROJECT"}
        return
    body = text.split("local function changed", 1)[1]
    assert ("return changed(" in body) != (name == "TOUCH_SESSION")


def test_all_names_of_a_project_lie_in_one_slot() -> None:
    slot = ProjectSlot(12)
    properties = [name for name, value in vars(ProjectSlot).items() if isinstance(value, property)]
    names = [getattr(slot, name) for name in properties] + [
        slot.key("ab"),
        slot.user(1),
        slot.home_members(2),
    ]
    assert len(set(names)) == len(names)
    assert all(name.startswith("hw:{p12}:") for name in names)
