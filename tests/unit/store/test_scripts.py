"""What holds for every script of the store."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import homewire
from homewire.access_changes.records import RecordType
from homewire.store import script as tools
from homewire.store.accounting import COSTS
from homewire.store.keys import ProjectSlot
from homewire.store.script import Script, changing

NAMES = [each.name for each in walk_packages(homewire.__path__, "homewire.") if "__main__" not in each.name]
MODULES = [import_module(name) for name in NAMES]
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
            *("usage", "expiring", "values", "over_index"),
            *(
                "home",
                "members",
                "pending",
                "index",
                "user",
                "emails",
                "phones",
                "module",
                "deliveries",
                "tries",
            ),
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
                "registrations",
                "unverified",
                "invited",
            ),
        )
        if command == "ZINTER":
            # Its first argument is how many keys follow.
            assert key == "2"
            continue
        assert key.startswith(declared), f"{command} on {key}"


def test_the_scripts_that_announce_are_known() -> None:
    assert {name for name, script in ALL.items() if script.announces} == {
        *(
            "REGISTER_USER",
            "REGISTER_AGAIN",
            "ISSUE_VERIFICATION",
            "UPDATE_USER",
            "BEGIN_CHANGE",
            "FINISH_CHANGE",
            "ISSUE_TOKEN",
            "ISSUE_CODE",
            "REDEEM_TOKEN",
        ),
        *(
            "CREATE_HOME",
            "ADD_MEMBER",
            "INVITE_MEMBER",
            "ACCEPT_MEMBERSHIP",
            "REMOVE_MEMBER",
            "DELETE_USER",
            "DELETE_HOME",
        ),
        *("REVOKE_PROJECT_KEY", "ROTATE_KEY", "END_SESSION", "DELETE_DEVICES", "MOVE_DEVICE"),
        *("CLAIM_DEVICE", "RELEASE_DEVICE", "PUT_VALUE", "DELETE_VALUE"),
        *("JOIN", "LEAVE", "KEEP", "SET_DEACTIVATED"),
        *("DISABLE_PROJECT", "ENABLE_PROJECT", "BURY_PROJECT", "CONFIGURE_PROJECT"),
        *("DELETE_ENTITY", "REVOKE_FROM_USER", "REVOKE_FROM_GROUP", "QUIT_GROUP"),
    }
    announced = {word for script in ALL.values() for word in re.findall(r"changed\('(\w+)'", script.text)}
    assert announced >= {kind.name.lower() for kind in RecordType}


WRITING = re.compile(r"redis\.call\('(?:HSET|HSETNX|HINCRBY|ZADD|SADD|SET|APPEND|XADD|INCR|LPUSH|RPUSH)'")
UNCHARGED = {
    # What they write to is there already, of a size that its charge covers.
    "UPDATE_USER": "fields of at most 256 characters",
    "NOTE_FAILED_LOGIN": "a time",
    "UPDATE_HOME": "fields of at most 256 characters",
    "SET_DEACTIVATED": "a flag, and fields of at most 256 characters",
    "SET_ROLE": "the role of a membership",
    "UPDATE_DEVICE": "fields of at most 256 characters",
    "SET_CLAIMABLE": "a time",
    "ROTATE_KEY": "a key instead of another",
    "BURY_PROJECT": "the state of the project",
    "DISABLE_PROJECT": "the state of the project",
    "ENABLE_PROJECT": "the state of the project",
    "CONFIGURE_PROJECT": "two URLs and a word of a project",
    "SUSPEND_MODULE": "a flag",
    "ROTATE_MODULE_KEY": "a key and the one before it",
    "NOTE_BREAKER": "a time",
    "REDEEM_CODE": "tries, a flag",
    "JOIN": "the presence of a device: one record, which the device covers",
    "LEAVE": "the presence of a device",
    # What they store is bounded by itself, and Redis removes it when its time is over.
    "ISSUE_TOKEN": "a token a user",
    "REGISTER_AGAIN": "`address_registrations` a user, as long as their tokens are good",
    "ISSUE_VERIFICATION": "one registration instead of another",
    "VERIFY_EMAIL": "a flag, a password instead of another",
    "ISSUE_CODE": "one code a user",
    "REDEEM_TOKEN": "a flag, a password instead of another",
    "REHASH_PASSWORD": "a hash instead of another of the same password",
    "BEGIN_CHANGE": "one code a user",
    "FINISH_CHANGE": "an address instead of another",
    "ACCEPT_MEMBERSHIP": "a membership without what was typed",
    "CREATE_LOGIN_TOKEN": "at most 20 hashes a user",
    "LEASE_SESSION": "one entry for each request that is under way",
    "TAKE_ATTEMPT": "places of attempts that are under way, as many as their limits, for 30 s",
    "COUNT_ATTEMPT": "a counter for each address and account, with a TTL",
    "TRUST_NETWORK": "16 networks a user, those where the user logged in",
    "CLAIM_MODULE": "one key a smart module",
    # `webhook_waiting_bytes` and `webhook_dead_letters` bound it; a project has at most 100 smart modules.
    "ADD_DELIVERIES": "deliveries to a smart module",
    "FINISH_DELIVERY": "the counter of these",
    "BURY_DELIVERY": "dead letters of a smart module",
    "RETRY_DEAD": "deliveries instead of dead letters",
    "COUNT_TRY": "a counter for each of these",
    "CORRECT_USAGE": "the counters themselves",
}
"""Changes of a project that write, and charge nobody for it: why."""


def test_the_page_of_quotas_says_what_a_record_counts() -> None:
    page = (Path(__file__).parents[3] / "docs" / "quotas.md").read_text()
    assert {kind: int(cost) for kind, cost in re.findall(r"^\| (\w+) \| (\d+) \|", page, re.M)} == COSTS


def test_what_stores_something_counts_it() -> None:
    every = {
        name: value
        for module in MODULES
        for name, value in vars(module).items()
        if isinstance(value, Script) and tools._GUARD in value.text and not value.charges
    }
    found = set()
    for name, each in every.items():
        body = each.text
        for shared in (tools._GUARD, tools._ANNOUNCE, tools._TOMBSTONE):
            body = body.replace(shared, "")
        if WRITING.search(body):
            found.add(name)
    assert found == set(UNCHARGED)


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
