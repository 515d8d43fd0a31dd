"""Passwords that are among the first which anybody tries: common ones, and what is known of their user.

The common ones are those of zxcvbn, some 30,000. Its estimates are not used: to make one of a password that
was chosen for it takes half a second of a core.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import cache

from homewire.errors import InvalidInput


async def refuse(password: str, own: Iterable[str | None], field: str = "password") -> None:
    """Raise InvalidInput (PASSWORD_TOO_WEAK) for one that is too easy to guess.

    `own` is what others may know of the user: name and e-mail address.
    """
    given = password.casefold().strip()
    if len(set(given)) < 2:
        raise _too_weak(field, "must have different characters")
    if _spelled_alike(given) in {_spelled_alike(text) for each in own if each for text in _parts_of(each)}:
        raise _too_weak(field, "must not be your name or e-mail address")
    # Reading the list takes 60 ms, once.
    if given in await asyncio.to_thread(_common):
        raise _too_weak(field, "is among those that are tried first")


def _parts_of(text: str) -> tuple[str, str]:
    """A name or an address, and what stands before the @."""
    known = text.casefold()
    return known, known.partition("@")[0]


def _spelled_alike(text: str) -> str:
    return "".join(each for each in text if each.isalnum())


def _too_weak(field: str, problem: str) -> InvalidInput:
    return InvalidInput(field, problem, reason="PASSWORD_TOO_WEAK")


@cache
def _common() -> frozenset[str]:
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # type: ignore[import-untyped]

    return frozenset(FREQUENCY_LISTS["passwords"])
