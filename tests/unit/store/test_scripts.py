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
from homewire.store.script import Script, lua

NAMES = [each.name for each in walk_packages(homewire.__path__, "homewire.") if "__main__" not in each.name]
MODULES = [import_module(name) for name in NAMES]
ACCOUNTING = (
    *("charge", "charge_instead", "book", "release", "settle"),
    *("book_until", "prolong", "release_early", "forget_expired"),
)
"""What a script calls that stores or frees something."""
ALL = {name: value for module in MODULES for name, value in vars(module).items() if isinstance(value, Script)}
SCRIPTS = {value.text for module in MODULES for value in vars(module).values() if isinstance(value, Script)}


def test_each_script_has_a_name_of_its_own() -> None:
    assert len(ALL) == len(SCRIPTS)


def is_change(script: Script) -> bool:
    """Whether a script changes a project."""
    return tools._CHANGE in script.text


def names_of_keys(text: str) -> set[str]:
    """The names that a script gives to its keys, and the parameters of its functions."""
    bound = re.findall(r"(?:local|for) ([\w, ]+) (?:=|in) [^\n]*\bKEYS\b", text)
    parameters = re.findall(r"function(?: \w+)?\(([\w, ]+)\)", text)
    # `place[1]` is a key of a table that users/ makes of some of its keys.
    return {"KEYS", "unpack", "place", *(name for names in bound + parameters for name in names.split(", "))}


@pytest.mark.parametrize("name", ALL)
def test_only_declared_keys_and_no_forbidden_command(name: str) -> None:
    text = ALL[name].text
    commands = re.findall(
        r"redis\.p?call\('(\w+)'(?:, '(?:CREATE|DELCONSUMER|CONSUMERS)')?(?:, (\w+))?", text
    )
    assert commands
    for command, key in commands:
        if command == "TIME":
            continue
        assert command not in {"KEYS", "SELECT", "SCAN", "HGETALL", "SMEMBERS", "EVAL"}
        if command == "ZINTER":
            # Its first argument is how many keys follow.
            assert key == "2"
            continue
        assert key in names_of_keys(text), f"{command} on {key}"


HEAD = re.compile(r"^local ([\w, ]+) = ((?:tonumber\()?(?:KEYS|ARGV)\[.*|unpack\((?:KEYS|ARGV), .*)$", re.M)
INDEX = re.compile(r"\b(KEYS|ARGV)\[(\d+)\]")
RANGE = re.compile(r"unpack\((KEYS|ARGV), (\d+), (\d+)\)")


def bound(names: str, values: str) -> list[tuple[str, int]]:
    """The keys and arguments that a line of a script's head gives these names."""
    if found := RANGE.fullmatch(values):
        indices = [(found[1], index) for index in range(int(found[2]), int(found[3]) + 1)]
    else:
        indices = [(table, int(index)) for table, index in INDEX.findall(values)]
    assert len(indices) == len(names.split(", ")), f"{names} = {values}"
    return indices


@pytest.mark.parametrize("name", ALL)
def test_head_of_a_script_names_each_key_and_argument_once(name: str) -> None:
    body = ALL[name].body
    indices = [index for names, values in HEAD.findall(body) for index in bound(names, values)]
    own = sorted(index for table, index in indices if table == "KEYS")
    first = 3 if is_change(ALL[name]) else 1
    assert own == list(range(first, first + len(own)))
    arguments = sorted(index for table, index in indices if table == "ARGV")
    assert arguments == list(range(1, len(arguments) + 1))
    assert not INDEX.findall(HEAD.sub("", body))


@pytest.mark.parametrize("name", [name for name, script in ALL.items() if is_change(script)])
def test_scripts_declare_their_effects(name: str) -> None:
    script = ALL[name]
    code = re.sub(r"--.*", "", script.body)
    announced = set(re.findall(r"\bannounce\('(\w+)'", code))
    assert announced == {kind.name.lower() for kind in script.announces}
    assert bool(re.search(r"\b(?:publish_event|queue_message)\(", code)) is script.sends
    assert bool(re.search(rf"\b(?:{'|'.join(ACCOUNTING)})\(", code)) is script.charges
    assert ("tombstone(" in code) is script.tombstones
    assert announced or "unannounced('" in code


def test_each_control_record_is_announced_by_a_script() -> None:
    assert {kind for script in ALL.values() for kind in script.announces} == set(RecordType)


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
    "DELETE_PROJECT": "the state of the project",
    "DISABLE_PROJECT": "the state of the project",
    "ENABLE_PROJECT": "the state of the project",
    "CONFIGURE_PROJECT": "two URLs and a word of a project",
    "SUSPEND_MODULE": "a flag",
    "ROTATE_MODULE_KEY": "a key and the one before it",
    "NOTE_BREAKER": "a time",
    "REDEEM_CODE": "tries, a flag",
    "CONNECT_DEVICES": "the presence of a device: one record, which the device covers",
    "DISCONNECT_DEVICES": "the presence of a device",
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
    "DEAD_LETTER_DELIVERY": "dead letters of a smart module",
    "RETRY_DEAD_LETTERS": "deliveries instead of dead letters",
    "COUNT_TRY": "a counter for each of these",
    "CORRECT_USAGE": "the counters themselves",
}
"""Changes of a project that write, and charge nobody for it: why."""


def test_page_of_quotas_lists_cost_of_each_record() -> None:
    page = (Path(__file__).parents[3] / "docs" / "quotas.md").read_text()
    assert {kind: int(cost) for kind, cost in re.findall(r"^\| (\w+) \| (\d+) \|", page, re.M)} == COSTS


def test_scripts_that_store_records_charge_quota() -> None:
    assert {
        name
        for name, script in ALL.items()
        if is_change(script) and not script.charges and (script.sends or WRITING.search(script.body))
    } == UNCHARGED.keys()


def test_constants_of_a_script_are_locals_at_its_head() -> None:
    text = lua("homewire.store", "tombstone", LIMIT=5, COST={"home": 800, "user": 1500})
    assert text.startswith("local LIMIT = 5\nlocal COST = {home = 800, user = 1500}\n--")
    with pytest.raises(ValueError, match="limit"):
        lua("homewire.store", "tombstone", limit=5)


def test_all_names_of_a_project_lie_in_one_slot() -> None:
    slot = ProjectSlot(12)
    properties = [name for name, value in vars(ProjectSlot).items() if isinstance(value, property)]
    names = [getattr(slot, name) for name in properties] + [
        slot.key("ab"),
        slot.user(1),
        slot.home_members(2),
        *(slot.device_presence(3), slot.device_commands(3), slot.device_command_ends(3)),
        *(slot.node_devices("ab"), slot.request("ab")),
        *(slot.user_sessions(4), slot.device_sessions(3), slot.session("ab"), slot.session_leases("ab")),
        *(slot.user_permissions(1), slot.user_grants(1), slot.user_groups(1)),
        *(slot.group(4), slot.group_members(4), slot.group_permissions(4)),
        *(slot.smart_module("m"), slot.module_deliveries("m"), slot.module_tries("m")),
        *(slot.module_dead("m"), slot.module_worker("m")),
    ]
    assert len(set(names)) == len(names)
    assert all(name.startswith("hw:{p12}:") for name in names)
