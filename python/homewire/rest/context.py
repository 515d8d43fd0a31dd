"""What the handlers of the REST service need from outside, in one object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from homewire.audit import Audit
from homewire.auth.authenticator import Authenticate, HomeDirectory
from homewire.errors import Unavailable
from homewire.limits.rates import Rates
from homewire.messages.message import Messages
from homewire.repositories import Store
from homewire.server.limits import RequestTurns
from homewire.server.requests import BodyReader
from homewire.server.streaming import Answers
from homewire.settings import Settings


class SortSlots:
    """How many answers may be sorted in files at once: of a node, and of a project. Used from the event loop
    alone."""

    def __init__(self, most: int = 8, per_project: int = 2) -> None:
        self._most = most
        self._per_project = per_project
        self._taken: Counter[int] = Counter()
        self._refused = 0

    @contextmanager
    def taken(self, project_id: int) -> Iterator[None]:
        """Hold one of them. Raises Unavailable when there is none, or the project has as many as it may."""
        if self._taken[project_id] >= self._per_project:
            self._refuse("sorted_lists_per_project")
        if self._taken.total() >= self._most:
            self._refuse("sorted_lists")
        self._taken[project_id] += 1
        try:
            yield
        finally:
            self._taken[project_id] -= 1
            # A counter keeps what is 0.
            self._taken += Counter()

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        return {"sorted_lists": self._taken.total(), "sorted_lists_refused": self._refused}

    def _refuse(self, setting: str) -> None:
        self._refused += 1
        raise Unavailable(limit=setting, problem="so many lists are being sorted; ask for a part with $take")


@dataclass(frozen=True, slots=True)
class Api:
    """The collaborators of the handlers."""

    store: Store
    directory: HomeDirectory
    """Where homes and devices are and who may see them, remembered while that is certain."""
    authenticate: Authenticate
    messages: Messages
    """Takes what is to be mailed, or sent by SMS."""
    reader: BodyReader = field(default_factory=BodyReader)
    settings: Settings = field(default_factory=Settings)
    answers: Answers = field(default_factory=Answers)
    """How many bytes of answers may be held."""
    turns: RequestTurns = field(default_factory=lambda: RequestTurns(0))
    """How many requests are served at once."""
    sort_slots: SortSlots = field(default_factory=lambda: SortSlots())
    audit: Audit = field(default_factory=Audit)
    rates: Rates = field(default_factory=lambda: Rates(Settings()))
    """Charged for each change that sends an event."""
    node_id: str = field(default_factory=lambda: str(uuid4()))
    """UUID of this node, another one after each start: where sessions are said to have been made."""
