"""What holds for every script of the store."""

from __future__ import annotations

import re
from importlib import import_module
from pkgutil import iter_modules

import pytest

from homewire.bus.control import RecordType
from homewire.store import scripts
from homewire.store.keys import ProjectSlot
from homewire.store.scripts.script import Script, changing

MODULES = [import_module(f"{scripts.__name__}.{module.name}") for module in iter_modules(scripts.__path__)]
ALL = {name: value for module in MODULES for name, value in vars(module).items() if isinstance(value, Script)}


@pytest.mark.parametrize("name", ALL)
def test_only_declared_keys_and_no_forbidden_command(name: str) -> None:
    commands = re.findall(
        r"redis\.p?call\('(\w+)'(?:, '(?:CREATE|DELCONSUMER|CONSUMERS)')?(?:, ([^,)]+))?", ALL[name].text
    )
    assert commands
    for command, key in commands:
        if command == "TIME":
            continue
        assert command not in {"KEYS", "SELECT", "SCAN", "HGETALL", "SMEMBERS", "EVAL"}
        declared = (
            *("KEYS[", "unpack(KEYS", "project", "outbox", "place[1]", "homes"),
            *("home", "members", "index", "user", "emails", "phones", "module", "deliveries", "tries"),
            *(
                "commands",
                "ends",
                "place",
                "presence",
                "ended_keys",
                "rights",
                "device_place",
                "entity_place",
                "record",
                "key",
            ),
        )
        assert key.startswith(declared), f"{command} on {key}"


def test_the_scripts_that_announce_are_known() -> None:
    assert {name for name, script in ALL.items() if script.announces} == {
        *("REGISTER_USER", "UPDATE_USER", "ISSUE_TOKEN", "ISSUE_CODE", "REDEEM_TOKEN"),
        *("CREATE_HOME", "ADD_MEMBER", "INVITE_MEMBER", "REMOVE_MEMBER", "DELETE_USER", "DELETE_HOME"),
        *("REVOKE_PROJECT_KEY", "ROTATE_KEY", "END_SESSION", "DELETE_DEVICES", "MOVE_DEVICE"),
        *("CLAIM_DEVICE", "RELEASE_DEVICE", "PUT_VALUE", "DELETE_VALUE"),
        *("JOIN", "LEAVE", "KEEP", "SET_DEACTIVATED"),
        *("DISABLE_PROJECT", "ENABLE_PROJECT", "BURY_PROJECT"),
        *("DELETE_ENTITY", "REVOKE_FROM_USER", "REVOKE_FROM_GROUP", "QUIT_GROUP"),
    }
    announced = {word for script in ALL.values() for word in re.findall(r"changed\('(\w+)'", script.text)}
    assert announced >= {kind.name.lower() for kind in RecordType}


def test_a_change_of_which_nobody_knows_whether_it_is_announced_is_refused() -> None:
    with pytest.raises(ValueError, match="member_aded"):
        changing("return changed('member_aded', {})")
    with pytest.raises(ValueError, match="unheard"):
        changing("return {'ok'}")


def test_all_names_of_a_project_lie_in_one_slot() -> None:
    slot = ProjectSlot(12)
    properties = [name for name, value in vars(ProjectSlot).items() if isinstance(value, property)]
    names = [getattr(slot, name) for name in properties] + [
        slot.key("ab"),
        slot.user(1),
        slot.home_members(2),
        *(slot.device_presence(3), slot.device_commands(3), slot.device_command_ends(3)),
        *(slot.held_devices("ab"), slot.request("ab")),
        *(slot.user_sessions(4), slot.device_sessions(3), slot.session("ab"), slot.session_leases("ab")),
        *(slot.user_rights(1), slot.user_grants(1), slot.user_groups(1)),
        *(slot.group(4), slot.group_members(4), slot.group_rights(4)),
        *(slot.smart_module("m"), slot.module_deliveries("m"), slot.module_tries("m")),
        *(slot.module_dead("m"), slot.module_worker("m")),
    ]
    assert len(set(names)) == len(names)
    assert all(name.startswith("hw:{p12}:") for name in names)
