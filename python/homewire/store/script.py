"""Loads the Lua of the store. Every change of several keys is one script, on one slot, all keys declared.

A script is a `.lua` file in the package of its repository. `lua` reads it: `--- @include "homes/joining"` is
replaced by `homes/joining.lua`, and constants of Python become locals at its head. The head of a script binds
each of its keys and arguments to a name, once: `local home, members = KEYS[3], KEYS[4]`.

`changing` and `removing` put `change.lua` before it: KEYS[1] is the project, KEYS[2] its outbox. A script
declares what else it uses, and a test compares the declarations with the text:

| declaration  | what the script may call                                               | defined in       |
| ------------ | ---------------------------------------------------------------------- | ---------------- |
| `announces`  | `announce`: write a control record to the outbox                       | `outbox.lua`     |
| `sends`      | `publish_event`, `queue_message`: write events and messages to it      | `outbox.lua`     |
| `charges`    | `charge`, `release` and the others that count what is stored           | `accounting.lua` |
| `tombstones` | `tombstone`: leave a part of the deletion to housekeeping              | `tombstone.lua`  |

A change answers a list of strings. The first says what happened: `ok`, or why nothing was changed:
`unknown` <noun>, `taken` <what>, `full` <session id>, `exceeded` <what>, `last_owner`, `owners_only`,
`behind` (the outbox is full), `moved` (a record is not as the caller read it: read it again), or
`quota` <setting>. `homewire.store.database.require_ok` turns refusals into errors. A change with an outbox
answers that list and the entries of the outbox (`answer.lua`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from homewire.access_changes.records import RecordType
from homewire.store.accounting import COSTS, MAX_RELEASED

LIMIT: Final = 1000
"""The most elements that one script touches."""
OUTBOX_LIMIT: Final = 10_000
"""Records that wait to be relayed. With more of them the shards have been unreachable for long, and changes
are refused that other nodes would not learn of."""
MAX_ANSWERED: Final = 8
"""Entries of the outbox in the answer of a change. Most changes write one entry to an empty outbox; of many
concurrent changes each would answer the entries of all others."""
MAX_ENDED_KEYS: Final = 300
"""Ended keys that a user's record lists: more than a user has live sessions."""

_ROOT: Final = Path(__file__).parents[1]
_INCLUDE: Final = re.compile(r'^--- @include "([a-z_/]++)"$', re.MULTILINE)
_NAMES: Final = re.compile(r"[A-Z][A-Z_]*+")

Constant = int | Mapping[str, int] | Mapping[str, str]


@dataclass(frozen=True)
class Script:
    """One script, and the SHA-1 (hex) that Redis finds it by."""

    text: str
    body: str = ""
    """The part of `text` that is the script's own."""
    announces: Set[RecordType] = frozenset()
    """The control records that it writes to the outbox of the project."""
    sends: bool = False
    """Whether it writes events or messages to the outbox of the project."""
    charges: bool = False
    """Whether it counts what is stored (`homewire.store.accounting`)."""
    tombstones: bool = False
    """Whether it leaves records to be removed. The project is noted for housekeeping before it runs."""
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)

    @property
    def uses_outbox(self) -> bool:
        """Whether the relay has something to copy after this script."""
        return self.sends or bool(self.announces)


def lua(package: str, name: str, **constants: Constant) -> str:
    """The text of `<name>.lua` in a package of homewire, with its includes, behind its constants.

    The name of a constant is in capitals. Its value is an integer, or a mapping of names to integers or to
    words, which becomes a table.
    """
    if wrong := [each for each in constants if not _NAMES.fullmatch(each)]:
        raise ValueError(f"names of constants are in capitals: {wrong}")
    head = "".join(f"local {key} = {_literal(value)}\n" for key, value in constants.items())
    room = package.removeprefix("homewire.").replace(".", "/")
    return head + _file(f"{room}/{name}")


@cache
def _file(path: str) -> str:
    text = (_ROOT / f"{path}.lua").read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda include: _file(include[1]).rstrip("\n"), text)


def _literal(value: Constant) -> str:
    if isinstance(value, int):
        return str(value)
    members = ((key, f"'{each}'" if isinstance(each, str) else each) for key, each in value.items())
    return "{" + ", ".join(f"{key} = {each}" for key, each in members) + "}"


_CHANGE: Final = lua(__package__, "change")
_OUTBOX: Final = lua(
    __package__,
    "outbox",
    TYPES={kind.name.lower(): kind.value for kind in RecordType},
    LIMIT=LIMIT,
    OUTBOX_LIMIT=OUTBOX_LIMIT,
    MAX_ENDED_KEYS=MAX_ENDED_KEYS,
)
_ANSWER: Final = lua(__package__, "answer", MAX_ANSWERED=MAX_ANSWERED)
_ACCOUNTING: Final = lua(__package__, "accounting", COST=COSTS, MAX_RELEASED=MAX_RELEASED)
_TOMBSTONE: Final = lua(__package__, "tombstone")


def reading(body: str) -> Script:
    """A script that changes nothing."""
    return Script(f"#!lua flags=no-writes\n{body}", body)


def standalone(body: str) -> Script:
    """A script that writes to keys of no project. Redis runs it at its memory limit, too."""
    return Script(f"#!lua flags=allow-oom\n{body}", body)


def changing(
    body: str,
    *,
    announces: Set[RecordType] = frozenset(),
    sends: bool = False,
    charges: bool = False,
    tombstones: bool = False,
    flags: str = "",
) -> Script:
    """A change of a project. It ends with `announce` or `unannounced`.

    It calls `charge` before it writes anything, and `release` for what it deletes.
    """
    uses_outbox = sends or bool(announces)
    change = (
        _CHANGE
        + (_ACCOUNTING if charges else "")
        + (_OUTBOX if uses_outbox else "")
        + (_TOMBSTONE if tombstones else "")
        + body
    )
    if uses_outbox:
        change = f"local function change()\n{change}\nend\n{_ANSWER}"
    text = f"#!lua{flags}\n{change}"
    return Script(text, body, frozenset(announces), sends, charges, tombstones)


def removing(
    body: str,
    *,
    announces: Set[RecordType] = frozenset(),
    sends: bool = False,
    charges: bool = False,
    tombstones: bool = False,
) -> Script:
    """A change that frees memory or takes access away: Redis runs it at its memory limit, too."""
    return changing(
        body,
        announces=announces,
        sends=sends,
        charges=charges,
        tombstones=tombstones,
        flags=" flags=allow-oom",
    )


NOTE_UNFINISHED: Final = standalone(lua(__package__, "note_unfinished"))
TAKE_UNFINISHED: Final = standalone(lua(__package__, "take_unfinished"))
FINISH_UNFINISHED: Final = standalone(lua(__package__, "finish_unfinished"))
