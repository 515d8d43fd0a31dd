"""What the handlers of the REST service need from outside, in one object."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import uuid4

from homewire.http.authority import Authenticate, Directory
from homewire.http.reading import BodyReader
from homewire.notify.message import Messages
from homewire.settings import Settings
from homewire.store import Store


@dataclass(frozen=True, slots=True)
class Api:
    """The collaborators of the handlers."""

    store: Store
    directory: Directory
    """Where homes and devices are and who may see them, remembered while that is certain."""
    authenticate: Authenticate
    messages: Messages
    """Takes what is to be mailed, or sent by SMS."""
    reader: BodyReader = field(default_factory=BodyReader)
    settings: Settings = field(default_factory=Settings)
    node_id: str = field(default_factory=lambda: str(uuid4()))
    """UUID of this node, another one after each start: where sessions are said to have been made."""
