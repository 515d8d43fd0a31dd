"""The dependencies of the handlers of the REST service, in one object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from homewire.audit import Audit
from homewire.auth.access import Authorisation
from homewire.auth.authenticator import Authenticate
from homewire.errors import Unavailable
from homewire.limits.rates import Rates
from homewire.messages.models import Messages
from homewire.repositories import Store
from homewire.server.limits import RequestTurns
from homewire.server.requests import BodyReader
from homewire.server.streaming import ResponseBudget
from homewire.settings import Settings


class SortSlots:
    """Limits how many answers are sorted in files at once: on the node, and of each project. Not
    thread-safe."""

    def __init__(self, capacity: int = 8, per_project: int = 2) -> None:
        self._capacity = capacity
        self._per_project = per_project
        self._taken: Counter[int] = Counter()
        self._refused = 0

    @contextmanager
    def taken(self, project_id: int) -> Iterator[None]:
        """Hold a slot. Raises Unavailable when the node or the project has no free one."""
        if self._taken[project_id] >= self._per_project:
            self._refuse("sorted_lists_per_project")
        if self._taken.total() >= self._capacity:
            self._refuse("sorted_lists")
        self._taken[project_id] += 1
        try:
            yield
        finally:
            self._taken[project_id] -= 1
            # Remove entries of 0, which a Counter keeps.
            self._taken += Counter()

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        return {"sorted_lists": self._taken.total(), "sorted_lists_refused": self._refused}

    def _refuse(self, setting: str) -> None:
        self._refused += 1
        raise Unavailable(limit=setting, problem="so many lists are being sorted; ask for a part with $take")


@dataclass(frozen=True, slots=True)
class RestContext:
    """The dependencies of the handlers."""

    store: Store
    authorisation: Authorisation
    authenticate: Authenticate
    messages: Messages
    """Queues mails and SMS."""
    reader: BodyReader = field(default_factory=BodyReader)
    settings: Settings = field(default_factory=Settings)
    response_budget: ResponseBudget = field(default_factory=ResponseBudget)
    """Limits the bytes of answers in memory."""
    turns: RequestTurns = field(default_factory=lambda: RequestTurns(0))
    """How many requests are served at once."""
    sort_slots: SortSlots = field(default_factory=lambda: SortSlots())
    audit: Audit = field(default_factory=Audit)
    rates: Rates = field(default_factory=lambda: Rates(Settings()))
    """The rate limits, which count each change that sends an event."""
    node_id: str = field(default_factory=lambda: str(uuid4()))
    """UUID of this node, a new one at each start. Sessions record it."""
