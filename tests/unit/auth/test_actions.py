"""The table of actions: what the operations and the scripts of homes say agrees with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import homewire.homes
from homewire.audit import DATA
from homewire.auth.actions import ACTIVE, ROLES, RULES, Action, Keys, Noun, Reach
from homewire.auth.models import Principal, PrincipalKind
from homewire.operations import OPERATIONS
from homewire.projects.models import KeyScope
from homewire.rest.operation import Operation

CONCERNING = [each for each in OPERATIONS if each.action is not None]
"""The operations whose path names the resource of an action."""
PACKAGE = Path(homewire.homes.__path__[0])


def accepted(keys: Keys) -> set[PrincipalKind]:
    """The kinds of principal whose keys are accepted."""
    return {
        kind for kind in PrincipalKind if keys.accept(Principal(kind, 1, 1, 1, scopes=frozenset(KeyScope)))
    }


def test_each_action_has_a_rule() -> None:
    assert set(RULES) == set(Action)


@pytest.mark.parametrize("action", [action for action, rule in RULES.items() if rule.keys])
def test_action_takes_key_of_each_kind_that_reaches_something(action: Action) -> None:
    rule = RULES[action]
    assert rule.keys is not None
    assert accepted(rule.keys) == {kind for kind in PrincipalKind if rule.reach(kind) is not Reach.NOTHING}


@pytest.mark.parametrize("operation", CONCERNING, ids=lambda each: each.name)
def test_operation_takes_no_key_that_reaches_nothing(operation: Operation) -> None:
    assert operation.action is not None
    rule = RULES[operation.action]
    assert all(rule.reach(kind) is not Reach.NOTHING for kind in accepted(operation.access))
    assert operation.resource({f"{rule.noun}Id": 7}) == 7


def test_role_is_of_an_action_on_a_home() -> None:
    assert {RULES[Action(action)].noun for action in ROLES} == {Noun.HOME}


def test_actions_that_scripts_refuse_in_a_deactivated_home_are_those_on_values() -> None:
    assert set(ACTIVE) == {Action.WRITE_HOME, Action.WRITE_DEVICE}
    writing = {each.action for each in OPERATIONS if each.tag == DATA and each.method != "GET"}
    assert writing == set(ACTIVE)


def test_scripts_of_homes_ask_for_each_action_with_a_role() -> None:
    texts = "".join(each.read_text(encoding="utf-8") for each in PACKAGE.glob("*.lua"))
    assert set(re.findall(r"\bROLE\.(\w+)", texts)) == set(ROLES)
