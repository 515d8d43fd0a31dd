"""Events per second: this node's count of the running second, and what it knows of the others'.

A second is one of Redis' clock. Nothing of it is kept when the next begins. A request costs two
look-ups in a dict; Redis is `totals.py`'s business.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from time import time
from typing import Final

from homewire.errors import TooManyRequests
from homewire.model import Principal, PrincipalKind
from homewire.overload.sharing import SIXTEENTH, Clock
from homewire.settings import Settings

RETRY_AFTER_S: Final = 1
"""When the next second has certainly begun."""
PROJECT: Final = "project"
SETTINGS: Final = {
    PrincipalKind.DEVICE: "device_events_per_s",
    PrincipalKind.USER: "user_events_per_s",
    PrincipalKind.PROJECT_KEY: "project_key_events_per_s",
    PROJECT: "project_events_per_s",
}
"""The limit's setting by whose it is. Sessions of one user count together, as keys of one device do."""


class Use:
    """What one subject sent in the running second."""

    __slots__ = ("fresh", "id", "kind", "left", "others", "project_id", "shared", "step", "told")

    def __init__(self, kind: str, project_id: int, id: int, limit: float) -> None:
        self.kind = kind
        self.project_id = project_id
        self.id = id
        self.left = limit
        """What may still come, as far as this node knows; below 0 if others were faster."""
        self.fresh = 0
        """Accepted here and not told to the others yet."""
        self.told = 0
        self.others = 0
        self.step = math.inf if limit == math.inf else limit // SIXTEENTH
        self.shared = False


class Rates:
    """Counts what this node accepts, and refuses what is beyond a limit.

    `clock` is Redis' (`SharedClock.now`); without one each node's own seconds count.
    """

    def __init__(self, settings: Settings, clock: Clock = time, refusals: Counter[str] | None = None) -> None:
        self._clock = clock
        self._limits: dict[str, float] = {}
        for kind, setting in SETTINGS.items():
            self._limits[kind] = getattr(settings, setting) or math.inf
        self._refusals: Counter[str] = Counter() if refusals is None else refusals
        self._refusals.update(dict.fromkeys(SETTINGS.values(), 0))
        self._second = 0
        # By id alone: ids are unique in the deployment, whatever they are the id of.
        self._uses: dict[int, Use] = {}
        self._shared: list[Use] = []
        self.crowded: Final = asyncio.Event()
        """Set when another sixteenth of a limit was used here: the others should hear of it now."""

    def take(self, principal: Principal, count: int = 1) -> None:
        """Count `count` events or commands that `principal` sends, all of them or none.

        Raises TooManyRequests naming the setting, for the sender's own limit or its project's.
        """
        second = int(self._clock())
        if second != self._second:
            self._begin(second)
        uses = self._uses
        own = uses.get(principal.id) or self._use(principal.kind, principal.project_id, principal.id)
        whole = uses.get(principal.project_id) or self._use(
            PROJECT, principal.project_id, principal.project_id
        )
        if own.left < count:
            raise self._refused(own)
        if whole.left < count:
            raise self._refused(whole)
        own.left -= count
        own.fresh += count
        if own.fresh > own.step:
            self._share(own)
        whole.left -= count
        whole.fresh += count
        if whole.fresh > whole.step:
            self._share(whole)

    def are_shared(self) -> bool:
        """Whether the others hear, in this second, of anything that is counted here."""
        return bool(self._shared)

    def untold(self) -> tuple[int, list[tuple[Use, int]]]:
        """The running second, and what the others have not heard of it: the amount for each shared subject.

        From here on it counts as told: what becomes of the message is never certain, and saying it twice
        would refuse what is within the limit.
        """
        second = int(self._clock())
        if second != self._second:
            self._begin(second)
        fresh = [(use, use.fresh) for use in self._shared if use.fresh]
        for use, amount in fresh:
            use.told += amount
            use.fresh = 0
        return second, fresh

    @staticmethod
    def learn(use: Use, total: int) -> None:
        """All nodes together have told of `total`."""
        others = max(total - use.told, 0)
        use.left -= others - use.others
        use.others = others

    def __len__(self) -> int:
        """How many subjects are remembered."""
        return len(self._uses)

    def _begin(self, second: int) -> None:
        self._second = second
        self._uses = {}
        self._shared = []

    def _use(self, kind: str, project_id: int, id: int) -> Use:
        use = self._uses[id] = Use(kind, project_id, id, self._limits[kind])
        return use

    def _share(self, use: Use) -> None:
        if not use.shared:
            use.shared = True
            self._shared.append(use)
        self.crowded.set()

    def _refused(self, use: Use) -> TooManyRequests:
        setting = SETTINGS[use.kind]
        self._refusals[setting] += 1
        return TooManyRequests(setting, RETRY_AFTER_S, most=int(self._limits[use.kind]))
