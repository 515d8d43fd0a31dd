"""Every error of homewire, as one tree.

HomewireError
├── RequestError            answered over HTTP as {"reason", "data"}
│   ├── InvalidInput        403 INVALID_PARAMETER, data names the field
│   ├── Unauthenticated     401 AUTHORIZATION_REQUIRED
│   ├── PermissionDenied    403 PERMISSION_DENIED
│   │   ├── LoginRefused    403 INCORRECT_PASSWORD; 401 in the dialects
│   │   └── QuotaExceeded   403 QUOTA_EXCEEDED, data names the setting
│   ├── NotFound            404 NOT_FOUND
│   │   └── UnknownPath     nothing is served there
│   ├── MethodNotAllowed    405 with Allow
│   ├── MethodNotImplemented 501
│   ├── InUse               409, a request holds what was to be ended
│   ├── TooManyRequests     429 with Retry-After, data names the limit
│   ├── InternalError       500, and the log says more
│   └── Unavailable         503 with Retry-After
│       ├── BusUnavailable  Redis is away; the event was certainly not stored
│       └── NotConfirmed    Redis went away after the write was sent; the outcome is unknown
├── ConfigurationError      a setting cannot work; says which and what to do
│   └── DirectoryInUse      another homewire runs on this data directory
├── StoreError              the store refused a change
│   ├── UnknownRecord       the record a command names does not exist
│   └── Conflict            a unique value (e-mail, phone, app id, membership) is taken
├── NotSent                 a message to somebody could not be handed over this time
│   └── Undeliverable       nor at any other time
├── ClientError             a homewire that we are a client of did not do what it was asked
└── CoreFailure             a thread of the Rust core stopped; the process must end
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from homewire.reasons import FIELDS


class HomewireError(Exception):
    """Root of every error that homewire raises on purpose."""


class RequestError(HomewireError):
    """A request that is refused; the answer is JSON ``{"reason": str, "data": object}``.

    `status` is the HTTP status, `reason` the upper-case code clients know
    (data models, *Error*), `data` what a person needs to mend the request.
    """

    status: ClassVar[int] = 403
    default_reason: ClassVar[str] = "PERMISSION_DENIED"

    def __init__(self, reason: str | None = None, **data: Any) -> None:
        self.reason = reason or self.default_reason
        self.data = data
        field = FIELDS.get(self.reason)
        if field is not None and data.keys().isdisjoint(("field", "limit")):
            self.data = {"field": field, **data}
        super().__init__(self.reason)

    @property
    def headers(self) -> Mapping[str, str]:
        """Extra response headers, e.g. ``Retry-After`` in seconds."""
        return {}


def explained(reason: str, data: Mapping[str, Any]) -> str:
    """A refusal as one line of text: ``field: problem`` if both are known."""
    if data.get("field") and data.get("problem"):
        return f"{data['field']}: {data['problem']}"
    details = ", ".join(f"{name}: {value}" for name, value in data.items())
    return f"{reason} ({details})" if details else reason


class InvalidInput(RequestError):
    """Invalid input: the `field` and its problem."""

    default_reason = "INVALID_PARAMETER"

    def __init__(self, field: str, problem: str, reason: str | None = None) -> None:
        super().__init__(reason, field=field, problem=problem)


class Unauthenticated(RequestError):
    """No key, or a key that is not (or no longer) valid."""

    status = 401
    default_reason = "AUTHORIZATION_REQUIRED"


class PermissionDenied(RequestError):
    """A valid key of the wrong kind, without the permission, or for something it cannot see."""


class LoginRefused(PermissionDenied):
    """The caller is not authenticated, or may not log in yet."""

    default_reason = "INCORRECT_PASSWORD"


class QuotaExceeded(PermissionDenied):
    """A project or user stores as much as a quota allows: `setting` is its name."""

    default_reason = "QUOTA_EXCEEDED"

    def __init__(self, setting: str) -> None:
        owner, unit = setting.split("_")
        super().__init__(setting=setting, problem=f"the {owner} has reached its maximum of stored {unit}")


class NotFound(RequestError):
    """An id of the path that is unknown, or that the caller cannot see: the same answer."""

    status = 404
    default_reason = "NOT_FOUND"


class UnknownPath(NotFound):
    """A path where nothing is served."""


class MethodNotImplemented(RequestError):
    """A method that no path has."""

    status = 501
    default_reason = "METHOD_NOT_IMPLEMENTED"


class MethodNotAllowed(RequestError):
    """A path that has other methods: `allowed`, as the header Allow has them."""

    status = 405
    default_reason = "METHOD_NOT_ALLOWED"

    def __init__(self, allowed: str) -> None:
        self._allowed = allowed
        super().__init__(allowed=allowed)

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Allow": self._allowed}


class InUse(RequestError):
    """What was to be ended is needed by a request that is not done yet."""

    status = 409
    default_reason = "SESSION_IN_USE"


class InternalError(RequestError):
    """A fault of homewire. Only the log has its details."""

    status = 500
    default_reason = "INTERNAL_ERROR"


class TooManyRequests(RequestError):
    """A limit was reached: `limit` is the name of its setting, `retry_after` in whole seconds.

    What else is given helps a person, e.g. how many there may be.
    """

    status = 429
    default_reason = "TOO_MANY_REQUESTS"

    def __init__(self, limit: str, retry_after: int = 1, **data: Any) -> None:
        self.retry_after = retry_after
        super().__init__(limit=limit, **data)

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self.retry_after)}


class Unavailable(RequestError):
    """The service cannot answer now; `retry_after` is in whole seconds."""

    status = 503
    default_reason = "TEMPORARILY_UNAVAILABLE"
    retry_after: ClassVar[int] = 1

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self.retry_after)}


class BusUnavailable(Unavailable):
    """Redis cannot be reached or the queue to it is full: nothing was stored."""


class NotConfirmed(Unavailable):
    """The write was sent and its outcome is unknown. Never repeated by homewire itself."""

    default_reason = "NOT_CONFIRMED"


class ConfigurationError(HomewireError):
    """A setting or the machine is unsuitable. The text says what to do."""


class DataDirInUse(ConfigurationError):
    """Another homewire holds the lock of the data directory."""


class StoreError(HomewireError):
    """The store refused a change; nothing was written."""


class UnknownRecord(StoreError):
    """A record that a change needs does not exist; `noun` and `identifier` name it."""

    def __init__(self, noun: str, identifier: object) -> None:
        self.noun = noun
        self.identifier = identifier
        super().__init__(f"there is no {noun} {identifier}")


class Conflict(StoreError):
    """A value that must be unique is taken; `reason` is the code clients know (e.g. EMAIL_IN_USE), `field`
    the field that has it, if that is another than usual."""

    def __init__(self, reason: str, message: str, field: str = "") -> None:
        self.reason = reason
        self.field = field
        super().__init__(message)


class NotSent(HomewireError):
    """A message could not be sent. The text says why, without secrets and addresses."""


class Undeliverable(NotSent):
    """A message was refused, and a retry cannot succeed."""


class ClientError(HomewireError):
    """A homewire that this process is a client of refused, went away or could not be reached."""


class CoreFailure(HomewireError):
    """A thread of the Rust core stopped; deliveries are no longer certain, so the process ends."""
