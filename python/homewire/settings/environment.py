"""The `HOMEWIRE_…` variables: values of settings, secrets in files, Kubernetes variables, misspelt names."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from homewire.errors import ConfigurationError

PREFIX: Final = "HOMEWIRE_"
FILE_SUFFIX: Final = "_FILE"
"""Of the variable that names a file with the value, for settings that are secret."""
NO_SETTINGS: Final = frozenset(
    PREFIX + name for name in ("KEY", "KEY_FILE", "URL", "DEMO", "TEST_CLUSTER", "SEED", "SEEDS", "EXAMPLES")
)
"""Variables of single commands, of the load test and of the tests."""
STANDARD_INPUT: Final = "-"
LONGEST_SECRET: Final = 64 * 1024
MISSPELT: Final = 0.85
"""Similarity to a setting's name from which a variable counts as misspelt, which is an error."""
SIMILAR: Final = 0.7
"""Similarity from which the warning about a variable names the setting."""

# What the kubelet adds to each container for each Service of the namespace, e.g. one named homewire-smtp.
_OF_A_SERVICE: Final = re.compile(
    r"(?:[A-Z0-9_]{1,200}_)??(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]++)?"
    r"|PORT_[0-9]++_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)",
    re.ASCII,
)
_PORT_OF_A_SERVICE: Final = re.compile(r"(?:tcp|udp|sctp)://", re.ASCII)


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables that begin with HOMEWIRE_, sorted out."""

    values: Mapping[str, str]
    """By the name of the setting. A variable that is empty counts as not set."""
    injected: tuple[str, ...]
    """Variables that Kubernetes made for a Service: they are no settings."""
    unknown: Mapping[str, str]
    """Other variables that are no settings, each with the most similar setting, or ``""``."""

    def warnings(self) -> list[str]:
        """A warning for each unknown variable."""
        return [f"{name}: is not a setting{_did_you_mean(near)}" for name, near in self.unknown.items()]


def read(variables: Mapping[str, str], settings: Collection[str], secrets: Collection[str]) -> Environment:
    """Sort out `variables`. `settings` are the names of all settings, `secrets` of those that are secret.

    Raises ConfigurationError for a misspelt name (HOMEWIRE_HOSTT), and for a file that can't be read.
    """
    given = {name.upper(): value for name, value in variables.items() if name.upper().startswith(PREFIX)}
    known = {PREFIX + name.upper(): name for name in settings}
    files = {PREFIX + name.upper() + FILE_SUFFIX: name for name in secrets}
    values, injected, unknown = dict[str, str](), list[str](), dict[str, str]()
    for variable, value in given.items():
        if _is_injected(variable, value):
            injected.append(variable)
        elif variable in known:
            if value:
                values[known[variable]] = value
        elif variable not in files and variable not in NO_SETTINGS:
            unknown[variable] = _nearest(variable, [*known, *files])
    for variable, name in files.items():
        if given.get(variable):
            if name in values:
                raise ConfigurationError(
                    f"{variable}: {PREFIX}{name.upper()} is given, too; give one of them"
                )
            values[name] = read_secret(Path(given[variable]), variable)
    return Environment(values, tuple(sorted(injected)), dict(sorted(unknown.items())))


def read_secret(path: Path, named: str) -> str:
    """The first line of a file, or of standard input for `-`. Raises ConfigurationError for `named`."""
    try:
        if str(path) == STANDARD_INPUT:
            text = sys.stdin.readline(LONGEST_SECRET)
        else:
            with path.open(encoding="utf-8") as file:
                text = file.readline(LONGEST_SECRET)
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"{named}: the file can't be read: {problem}") from None
    secret = text.rstrip("\r\n")
    if not secret:
        raise ConfigurationError(f"{named}: the first line is empty")
    return secret


def _is_injected(variable: str, value: str) -> bool:
    name = variable.removeprefix(PREFIX)
    if _OF_A_SERVICE.fullmatch(name):
        return True
    return name.endswith("PORT") and _PORT_OF_A_SERVICE.match(value) is not None


def _nearest(variable: str, known: Collection[str]) -> str:
    """The most similar known variable, or "". Raises ConfigurationError for a misspelt one."""
    name = variable.removeprefix(PREFIX)
    others = [each.removeprefix(PREFIX) for each in known]
    near = difflib.get_close_matches(name, others, n=1, cutoff=SIMILAR)
    if not near:
        return ""
    suggestion = PREFIX + near[0]
    if difflib.SequenceMatcher(None, name, near[0]).ratio() >= MISSPELT:
        raise ConfigurationError(f"{variable}: is not a setting{_did_you_mean(suggestion)}")
    return suggestion


def _did_you_mean(near: str) -> str:
    return f"; did you mean {near}?" if near else ""
