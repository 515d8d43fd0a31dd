"""The table of the reasons in error responses, with advice for clients; docs/errors.md comes from it.

`python -m homewire.reasons` prints the page.
"""

from __future__ import annotations

import sys
from typing import Final, NamedTuple


class Reason(NamedTuple):
    """One row: HTTP status of the MODE resources, meaning, and advice for the client."""

    status: int
    meaning: str
    advice: str


_ASK_ANOTHER: Final = "Choose another value."
_AS_THE_FIELD_SAYS: Final = "Correct the field that `data.field` names; `data.problem` says how."
_MAKE_ROOM: Final = "Delete some first. The limits are settings."
_NOT_YOURS: Final = "Use a key with the permission."

REASONS: Final[dict[str, Reason]] = {
    "INVALID_PARAMETER": Reason(403, "A field of the request is invalid.", _AS_THE_FIELD_SAYS),
    "INVALID_EMAIL": Reason(403, "The value is not an e-mail address.", _AS_THE_FIELD_SAYS),
    "INVALID_PHONE_NUMBER": Reason(
        403, "The value is not a phone number in E.164 form, or no registered one.", _AS_THE_FIELD_SAYS
    ),
    "PASSWORD_TOO_SHORT": Reason(403, "The password is too short.", "Choose a longer one."),
    "PASSWORD_TOO_WEAK": Reason(
        403,
        "The password is a common one, or the user's own name or address.",
        "Choose another one.",
    ),
    "INSUFFICIENT_AUTH": Reason(
        403,
        "The key alone is not sufficient for this operation.",
        "Send the present password in the field that `data` names, or log in again.",
    ),
    "AUTHORIZATION_REQUIRED": Reason(
        401, "The request has no key, or the key is invalid or ended.", "Log in again."
    ),
    "PERMISSION_DENIED": Reason(
        403,
        "The key has the wrong kind, lacks a scope or permission, or may not see the resource.",
        _NOT_YOURS,
    ),
    "CROSS_SITE": Reason(
        403,
        "A page of another origin used the cookie of a session.",
        "Send the key in a header, or list the origin in the setting `cookie_origins`.",
    ),
    "INCORRECT_PASSWORD": Reason(
        403,
        "Name or password is wrong. The response does not tell which.",
        "Let the user try again, or reset the password.",
    ),
    "USER_UNVERIFIED": Reason(
        403, "The e-mail address is not verified.", "Request the e-mail again (emailVerification/start)."
    ),
    "NO_PASSWORDS": Reason(
        403, "The project's accounts have no passwords.", "Use the login of its account system."
    ),
    "INVALID_AUTH_CODE": Reason(
        403,
        "The code is wrong, used or expired.",
        "Request a new code. Five wrong attempts end a code.",
    ),
    "INVALID_TOKEN": Reason(403, "The token is unknown, used or expired.", "Request a new token."),
    "NOT_FOUND": Reason(
        404,
        "The resource does not exist, or this key may not see it.",
        "Check the id. Do not repeat the request unchanged.",
    ),
    "METHOD_NOT_ALLOWED": Reason(405, "The path has no such method.", "Use a method of the header `Allow`."),
    "METHOD_NOT_IMPLEMENTED": Reason(501, "No path has this method.", "Use a method of `/openapi.json`."),
    "SESSION_IN_USE": Reason(
        409,
        "Another request of the session is in progress.",
        "Try again after its response, at the latest after 30 s.",
    ),
    "TOO_MANY_REQUESTS": Reason(
        429, "The limit that `data` names was reached.", "Wait for the time in `Retry-After`."
    ),
    "INTERNAL_ERROR": Reason(
        500, "An unexpected error of the server.", "Inform the operator; details are in the log."
    ),
    "TEMPORARILY_UNAVAILABLE": Reason(
        503,
        "Redis is unavailable, or the node is overloaded. Nothing was stored.",
        "Try again after `Retry-After`.",
    ),
    "NOT_CONFIRMED": Reason(
        503,
        "The connection to Redis was lost after the write; the outcome is unknown.",
        "Read the state, or repeat: an event with an `Idempotency-Key` is stored once.",
    ),
    "IDEMPOTENCY_KEY_REUSED": Reason(
        403,
        "The `Idempotency-Key` was used for a request with another body.",
        "Use a new key for each request.",
    ),
    "AMBIGUOUS_PROJECT": Reason(
        400,
        "The Host does not tell the project (specifications 002 to 004).",
        "Set `project_hosts` or `default_project`.",
    ),
    "UNKNOWN_PROJECT": Reason(
        400, "The Host stands for an unknown or disabled project.", "Correct `project_hosts`."
    ),
    "EMAIL_IN_USE": Reason(403, "Another user of the project has this e-mail address.", _ASK_ANOTHER),
    "USER_EXISTS": Reason(403, "Another user of the project has this address or id.", "Log in as that user."),
    "USER_EXISTS_UNVERIFIED": Reason(
        403,
        "Another user has this phone number, which is not verified. (An unverified e-mail address may be "
        "registered again.)",
        "Request a code (`/auth/user/sms`), and log in.",
    ),
    "APP_EXISTS": Reason(403, "The project has an app of this id.", _ASK_ANOTHER),
    "MODULE_EXISTS": Reason(403, "The project has a smart module of this id.", _ASK_ANOTHER),
    "ENTITY_EXISTS": Reason(403, "The project has an entity of this id.", _ASK_ANOTHER),
    "ENTITY_HAS_CHILDREN": Reason(403, "The entity is the parent of others.", "Delete these first."),
    "MEMBER_EXISTS": Reason(403, "The user is a member of the home already.", "No action is needed."),
    "MEMBER_LEFT": Reason(
        403,
        "The user left the home. Other members can not add the user for 30 days.",
        "Use a project key, which can.",
    ),
    "TOO_MANY_INVITATIONS": Reason(
        403,
        "The user, or the address, has the maximum number of unanswered invitations.",
        "The user accepts or leaves one of these homes first.",
    ),
    "LAST_OWNER": Reason(
        403,
        "A home with other members needs an owner.",
        "Make another member an owner first.",
    ),
    "HOME_DEACTIVATED": Reason(403, "The home is deactivated.", "Activate it with a project key."),
    "DEVICE_OFFLINE": Reason(
        403,
        "The device is not connected, and the command asked to be refused then.",
        "Send it when the device is connected, or with `queue`.",
    ),
    "DEVICE_NOT_IN_HOME": Reason(403, "The device is in no home.", "Claim it first."),
    "DEVICE_NOT_CLAIMABLE": Reason(
        403, "No device can be claimed with this code now.", "Open the device's registration, then claim it."
    ),
    "DEVICE_ALREADY_IN_HOME": Reason(403, "The device is in a home.", "Remove it from that home first."),
    "EXCEEDED_MAX_HOMES": Reason(403, "The user has the maximum number of homes.", _MAKE_ROOM),
    "QUOTA_EXCEEDED": Reason(
        403, "The project or user has reached the quota that `data.setting` names.", _MAKE_ROOM
    ),
    "TOO_MANY_VALUES": Reason(
        403, "The home or device has the maximum number or size of values.", _MAKE_ROOM
    ),
    "TOO_MANY_ENTITIES": Reason(403, "The home has the maximum number of entities.", _MAKE_ROOM),
    "TOO_MANY_MODULES": Reason(403, "The project has the maximum number of smart modules.", _MAKE_ROOM),
    "TOO_MANY_PERMISSIONS": Reason(
        403, "The user or group has the maximum number of permissions.", _MAKE_ROOM
    ),
    "TOO_MANY_SESSIONS": Reason(
        403,
        "The session can not create another one: the chain from the login, or the tree, is at its maximum.",
        "Log in with a password, a code or a login token.",
    ),
    "TOO_MANY_GROUPS": Reason(403, "The user has the maximum number of groups.", _MAKE_ROOM),
    "TOO_MANY_MEMBERS": Reason(403, "The group has the maximum number of users.", _MAKE_ROOM),
}

FIELDS: Final[dict[str, str]] = {
    "CROSS_SITE": "Origin",
    "INCORRECT_PASSWORD": "password",
    "USER_UNVERIFIED": "email",
    "NO_PASSWORDS": "projectId",
    "INVALID_TOKEN": "token",
    "EMAIL_IN_USE": "email",
    "USER_EXISTS": "email",
    "USER_EXISTS_UNVERIFIED": "email",
    "APP_EXISTS": "appId",
    "MODULE_EXISTS": "moduleId",
    "ENTITY_EXISTS": "entityId",
    "ENTITY_HAS_CHILDREN": "entityId",
    "MEMBER_EXISTS": "userId",
    "MEMBER_LEFT": "userId",
    "TOO_MANY_INVITATIONS": "userId",
    "LAST_OWNER": "role",
    "HOME_DEACTIVATED": "homeId",
    "DEVICE_NOT_CLAIMABLE": "claimCode",
    "DEVICE_ALREADY_IN_HOME": "deviceId",
    "EXCEEDED_MAX_HOMES": "userId",
    "TOO_MANY_VALUES": "key",
    "TOO_MANY_ENTITIES": "homeId",
    "TOO_MANY_MODULES": "moduleId",
    "TOO_MANY_PERMISSIONS": "permission",
    "TOO_MANY_SESSIONS": "userId",
    "TOO_MANY_GROUPS": "userId",
    "TOO_MANY_MEMBERS": "groupId",
}
"""The field that an error names, unless the code that raises it names another."""


def markdown() -> str:
    """The page docs/errors.md."""
    lines = [
        "# Errors",
        "",
        "Made by `make docs` from `python/homewire/reasons.py`.",
        "",
        'An error response is JSON `{"reason", "data"}`. `data` has the `field` and the `problem`, the',
        "`limit` that was reached, or the scope or permission that the key `needs`.",
        "The status is that of the MODE resources ([specifications 000 and 001](api/specifications.md)).",
        "In 002 and 003 invalid input is 400 instead of 403, and a refused login 401. 004 has its own",
        "format. `/openapi.json` has the statuses of each operation.",
        "",
        "| reason | status | meaning | what to do |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {name} | {row.status} | {row.meaning} | {row.advice} |" for name, row in REASONS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
