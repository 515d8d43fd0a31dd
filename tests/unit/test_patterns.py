"""No regular expression of homewire can backtrack: whatever a client sends, looking at it is linear.

A pattern is a constant of its module, so that it is seen here. Each repetition without a bound is possessive,
which gives nothing back. Where a pattern is searched for, at every place of a text, a failed try must not
have read what the next try reads again.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import homewire

code, parser = (importlib.import_module(f"re.{each}") for each in ("_constants", "_parser"))
MANY: Final = 256
"""Repetitions up to this many are a constant, as long as they do not stand in one another."""
ANCHORED: Final = {"match", "fullmatch"}
SEARCHING: Final = {"search", "findall", "finditer", "sub", "subn", "split"}
ALPHABET: Final = [*map(chr, range(256)), "é", "\u2028", "中"]
REPEATS: Final = (code.MAX_REPEAT, code.MIN_REPEAT)

MODULES: Final = sorted(
    each.name
    for each in pkgutil.walk_packages(homewire.__path__, "homewire.")
    if "__main__" not in each.name and each.name != "homewire._core"
)


def nodes_of(pattern: Any) -> Iterator[tuple[Any, Any]]:
    """Every node of a parsed pattern, with what stands in it."""
    for operator, argument in pattern:
        yield operator, argument
        for inner in inner_of(argument):
            yield from nodes_of(inner)


def inner_of(argument: Any) -> Iterator[Any]:
    if isinstance(argument, parser.SubPattern):
        yield argument
    elif isinstance(argument, tuple | list):
        for each in argument:
            yield from inner_of(each)


def repeats_of(pattern: Any) -> list[tuple[Any, int, int, Any]]:
    kinds = (*REPEATS, code.POSSESSIVE_REPEAT)
    return [(operator, *argument) for operator, argument in nodes_of(pattern) if operator in kinds]


def backtracks(pattern: str | bytes, flags: int = 0) -> str:
    """What in a pattern may try a text in more than one way; empty if nothing does."""
    for operator, least, most, inner in repeats_of(parser.parse(pattern, flags)):
        if operator not in REPEATS or least == most:
            continue
        if most > MANY:
            return "a repetition without a bound gives back what it took"
        if most > 1 and any(
            kind in REPEATS and low != high and high > 1 for kind, low, high, _ in repeats_of(inner)
        ):
            return "a repetition stands in another one"
    return ""


def reads_twice(pattern: str | bytes, flags: int = 0) -> str:
    """Why a search may read the same part of a text again and again; empty if it does not.

    A try that begins reads no further than to the next place where one can begin: something that begins each
    match is nothing that a repetition takes. A repetition alone ends its match wherever it stops.
    """
    for branch in branches_of(parser.parse(pattern, flags)):
        unbounded = [inner for _, _, most, inner in repeats_of(branch) if most > MANY]
        if not unbounded or (len(branch) == 1 and branch[0][0] is code.POSSESSIVE_REPEAT):
            continue
        taken = set().union(*(characters(inner) for inner in unbounded))
        if not any(characters([node]) and characters([node]).isdisjoint(taken) for node in beginning(branch)):
            return "what begins a match may stand within it"
    return ""


def branches_of(pattern: Any) -> list[Any]:
    nodes = list(pattern)
    if len(nodes) == 1 and nodes[0][0] is code.BRANCH:
        return [list(each) for each in nodes[0][1][1]]
    return [nodes]


def beginning(branch: list[Any]) -> Iterator[Any]:
    """The nodes that every match begins with, up to the first that varies."""
    for operator, argument in branch:
        if operator in (*REPEATS, code.POSSESSIVE_REPEAT):
            return
        if operator not in (code.AT, code.ASSERT, code.ASSERT_NOT):
            yield operator, argument


def characters(pattern: Any) -> set[str]:
    """Those of ALPHABET that a node of one character may be, or one of several nodes."""
    found: set[str] = set()
    for operator, argument in pattern:
        found |= of_node(operator, argument)
    return found


def of_node(operator: Any, argument: Any) -> set[str]:
    match operator:
        case code.LITERAL:
            return {chr(argument)}
        case code.NOT_LITERAL:
            return {each for each in ALPHABET if ord(each) != argument}
        case code.ANY:
            return set(ALPHABET)
        case code.IN:
            return {each for each in ALPHABET if in_set(argument, each)}
        case code.AT:
            return set()
    return set().union(*(characters(inner) for inner in inner_of(argument)))


def in_set(members: Any, character: str) -> bool:
    negated = members[0][0] is code.NEGATE
    return negated is not any(is_member(kind, argument, character) for kind, argument in members)


def is_member(operator: Any, argument: Any, character: str) -> bool:
    match operator:
        case code.LITERAL:
            return bool(argument == ord(character))
        case code.RANGE:
            return bool(argument[0] <= ord(character) <= argument[1])
        case code.CATEGORY:
            written = {
                code.CATEGORY_DIGIT: r"\d", code.CATEGORY_NOT_DIGIT: r"\D", code.CATEGORY_WORD: r"\w",
                code.CATEGORY_NOT_WORD: r"\W", code.CATEGORY_SPACE: r"\s", code.CATEGORY_NOT_SPACE: r"\S",
            }[argument]  # fmt: skip
            return re.fullmatch(written, character) is not None
    return False


def patterns_of(module: str) -> dict[str, re.Pattern[Any]]:
    return {
        name: value
        for name, value in vars(importlib.import_module(module)).items()
        if isinstance(value, re.Pattern)
    }


def calls_of(module: str) -> list[tuple[str, str]]:
    """Of a module's source: what is called, as `name.method`."""
    path = importlib.import_module(module).__file__
    assert path is not None
    calls = (node.func for node in ast.walk(ast.parse(Path(path).read_text())) if isinstance(node, ast.Call))
    return [
        (call.value.id, call.attr)
        for call in calls
        if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name)
    ]


@pytest.mark.parametrize("module", MODULES)
def test_no_pattern_backtracks(module: str) -> None:
    patterns, calls = patterns_of(module), calls_of(module)
    used = [method for name, method in calls if name == "re"]
    assert set(used) <= {"compile", "escape"}, "a pattern is a constant, so that this test sees it"
    for name, pattern in patterns.items():
        assert backtracks(pattern.pattern, pattern.flags & ~re.UNICODE) == "", name
        methods = {method for called, method in calls if called == name}
        assert methods <= ANCHORED | SEARCHING, name
        if methods & SEARCHING:
            assert reads_twice(pattern.pattern, pattern.flags & ~re.UNICODE) == "", name


def test_there_are_patterns() -> None:
    assert sum(len(patterns_of(module)) for module in MODULES) > 10


@pytest.mark.parametrize(
    "pattern",
    [r"\s*([+-]?)\s*(.*?)\s*", r"(a|b)*c", r"(?:\.\d+)*", r"a+", r"a{1,1000}", r"(a{1,9}){1,9}"],
)
def test_backtracking_pattern_is_found(pattern: str) -> None:
    assert backtracks(pattern)


@pytest.mark.parametrize("pattern", [r"\s++x", r"a[^b]*+b", '"(?:[^"\\\\]|\\\\.)*+"', r"(?:^|\s)\S++\s*+:"])
def test_pattern_that_reads_twice_is_found(pattern: str) -> None:
    assert reads_twice(pattern)


@pytest.mark.parametrize("pattern", [r"[^;]++", r"(?:^|\s)[a-z]++/", r"x=(\d++)", r"[.\[]", r"\\[:;]|."])
def test_linear_pattern_is_accepted(pattern: str) -> None:
    assert not reads_twice(pattern)
