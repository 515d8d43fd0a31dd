"""What holds for every script of the store."""

from __future__ import annotations

import re

import pytest

from homewire.bus.control import RecordType
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
        declared = ("KEYS[", "project", "outbox", "place[1]", "homes", "home", "members")
        assert key.startswith(declared), f"{command} on {key}"


@pytest.mark.parametrize("name", ALL)
def test_every_change_of_a_project_says_in_one_place_what_it_was(name: str) -> None:
    text = ALL[name].text
    if "local function changed" not in text:
        assert name in {"LOOK_UP_KEY", "UNLIST_PROJECT"}
        return
    body = text.split("local function changed", 1)[1]
    # Nobody has to hear of these: what they tidy up was announced before, by the record that ended it.
    silent = {"TOUCH_SESSION", "LEAVE_HOMES", "EMPTY_HOME", "RELEASE_DEVICES"}
    assert ("return changed(" in body) != (name in silent)


def test_the_scripts_that_announce_are_known() -> None:
    assert {name for name, script in ALL.items() if script.announces} == {
        *("CREATE_HOME", "ADD_MEMBER", "REMOVE_MEMBER", "DELETE_USER", "DELETE_HOME"),
        *("REVOKE_PROJECT_KEY", "ROTATE_KEY", "END_SESSION", "DELETE_DEVICE", "MOVE_DEVICE"),
        *("DISABLE_PROJECT", "ENABLE_PROJECT", "BURY_PROJECT"),
    }
    announced = {word for script in ALL.values() for word in re.findall(r"changed\('(\w+)'", script.text)}
    assert announced >= {kind.name.lower() for kind in RecordType}


def test_a_change_of_which_nobody_knows_whether_it_is_announced_is_refused() -> None:
    with pytest.raises(ValueError, match="member_aded"):
        scripts._change("return changed('member_aded', {})")


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
