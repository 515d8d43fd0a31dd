"""The reasons that refusals carry, and what a client should do: docs/errors.md is made from this table.

`python -m homewire.reasons` prints the page.
"""

from __future__ import annotations

import sys
from typing import Final, NamedTuple


class Reason(NamedTuple):
    """One row: the HTTP status among the MODE resources, what happened, and what to do."""

    status: int
    meaning: str
    advice: str


_ASK_ANOTHER: Final = "Choose another one."
_AS_THE_FIELD_SAYS: Final = "Mend the field that `data` names, as it says."
_MAKE_ROOM: Final = "Delete some first; the limits are settings."
_NOT_YOURS: Final = "Ask somebody who may, or use another key."

REASONS: Final[dict[str, Reason]] = {
    "INVALID_PARAMETER": Reason(403, "Something of the request cannot be.", _AS_THE_FIELD_SAYS),
    "INVALID_EMAIL": Reason(403, "This is no e-mail address.", _AS_THE_FIELD_SAYS),
    "INVALID_PHONE_NUMBER": Reason(
        403, "This is no phone number in E.164 form, or none that is registered.", _AS_THE_FIELD_SAYS
    ),
    "PASSWORD_TOO_SHORT": Reason(403, "The password is too short.", "Choose a longer one."),
    "PASSWORD_TOO_WEAK": Reason(
        403,
        "The password is among those that are tried first: a common one, or the user's own name or address.",
        "Choose another one.",
    ),
    "INSUFFICIENT_AUTH": Reason(
        403,
        "The key alone is not enough for this.",
        "Give the present password in the field that `data` names, or log in anew.",
    ),
    "AUTHORIZATION_REQUIRED": Reason(
        401, "There is no key, or it is not, or no longer, valid.", "Log in again."
    ),
    "PERMISSION_DENIED": Reason(
        403, "The key is of the wrong kind, lacks a scope or permission, or cannot see this.", _NOT_YOURS
    ),
    "CROSS_SITE": Reason(
        403,
        "A page of another origin acts with the cookie of a session.",
        "Send the key in a header, or list the origin in the setting `cookie_origins`.",
    ),
    "INCORRECT_PASSWORD": Reason(
        403, "Name or password is wrong; which, nobody is told.", "Let the person try again, or reset it."
    ),
    "USER_UNVERIFIED": Reason(
        403, "The e-mail address was not verified yet.", "Have the mail sent again (emailVerification/start)."
    ),
    "NO_PASSWORDS": Reason(
        403, "The project's accounts have no passwords.", "Log in in the way of its account system."
    ),
    "INVALID_AUTH_CODE": Reason(
        403,
        "The code is wrong, used, or too old.",
        "Have a new one sent; a code dies with its fifth wrong try.",
    ),
    "INVALID_TOKEN": Reason(403, "The token is unknown, used, or too old.", "Ask for a new one."),
    "NOT_FOUND": Reason(
        404,
        "There is no such thing, or none that this key can see.",
        "Look at the id; do not try again as it is.",
    ),
    "METHOD_NOT_ALLOWED": Reason(405, "The path has other methods.", "Use one of the header `Allow`."),
    "METHOD_NOT_IMPLEMENTED": Reason(501, "No path has this method.", "Use one that `/openapi.json` has."),
    "SESSION_IN_USE": Reason(
        409,
        "A request made with the session is under way.",
        "Try again when that was answered; 30 s at most.",
    ),
    "TOO_MANY_REQUESTS": Reason(
        429, "The limit that `data` names was reached.", "Wait as long as `Retry-After` says."
    ),
    "INTERNAL_ERROR": Reason(
        500, "Something of homewire is broken.", "Tell the operator: the log says more."
    ),
    "TEMPORARILY_UNAVAILABLE": Reason(
        503, "Redis is away, or too much is under way. Nothing was stored.", "Try again after `Retry-After`."
    ),
    "NOT_CONFIRMED": Reason(
        503,
        "Redis went away behind the write: nobody knows whether it was stored.",
        "Look, or repeat it: an event with an `Idempotency-Key` is stored once.",
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
        400, "What the Host stands for is no project, or a disabled one.", "Mend `project_hosts`."
    ),
    "EMAIL_IN_USE": Reason(403, "Another user of the project has this e-mail address.", _ASK_ANOTHER),
    "USER_EXISTS": Reason(403, "Another user of the project has this address or id.", "Log in as that user."),
    "USER_EXISTS_UNVERIFIED": Reason(
        403,
        "The same, and its number was not verified yet. (Such an e-mail address may be registered again.)",
        "Have a code sent (`/auth/user/sms`), and log in.",
    ),
    "APP_EXISTS": Reason(403, "The project has an app of this id.", _ASK_ANOTHER),
    "MODULE_EXISTS": Reason(403, "The project has a smart module of this id.", _ASK_ANOTHER),
    "ENTITY_EXISTS": Reason(403, "The project has an entity of this id.", _ASK_ANOTHER),
    "ENTITY_HAS_CHILDREN": Reason(403, "Others have the entity as their parent.", "Delete those first."),
    "MEMBER_EXISTS": Reason(403, "The user is a member of the home already.", "Nothing is to be done."),
    "MEMBER_LEFT": Reason(
        403,
        "The user left the home: for 30 days no other member adds them again.",
        "The project can, with a key of its own.",
    ),
    "TOO_MANY_INVITATIONS": Reason(
        403,
        "Strangers added this user, or this address, to as many homes as may wait for an answer.",
        "Ask the person to accept one, or to leave it.",
    ),
    "LAST_OWNER": Reason(
        403,
        "The last owner of a home that has other members stays its owner.",
        "Make another one an owner first.",
    ),
    "HOME_DEACTIVATED": Reason(
        403, "The home is deactivated: nothing happens in it.", "The project activates it again."
    ),
    "DEVICE_OFFLINE": Reason(
        403,
        "The device is not connected, and the command was to be refused then.",
        "Send it when the device is connected, or keep it with `queue`.",
    ),
    "DEVICE_NOT_IN_HOME": Reason(403, "The device is in no home.", "Claim it first."),
    "DEVICE_NOT_CLAIMABLE": Reason(
        403, "No device can be claimed with this code now.", "Open the device's registration, then claim it."
    ),
    "DEVICE_ALREADY_IN_HOME": Reason(403, "The device is in a home.", "It has to leave that first."),
    "EXCEEDED_MAX_HOMES": Reason(403, "The user is in as many homes as a user may be.", _MAKE_ROOM),
    "QUOTA_EXCEEDED": Reason(
        403, "Project or user stores as much as the quota that `data.setting` names allows.", _MAKE_ROOM
    ),
    "TOO_MANY_VALUES": Reason(
        403, "Home or device has as many values, or bytes of them, as it may.", _MAKE_ROOM
    ),
    "TOO_MANY_ENTITIES": Reason(403, "The home has as many entities as it may.", _MAKE_ROOM),
    "TOO_MANY_MODULES": Reason(403, "The project has as many smart modules as it may.", _MAKE_ROOM),
    "TOO_MANY_PERMISSIONS": Reason(403, "User or group has as many permissions as it may.", _MAKE_ROOM),
    "TOO_MANY_SESSIONS": Reason(
        403,
        "The key of a session makes no further one: too many lie between it and the login, or in all.",
        "Log in with a password, a code or a login token.",
    ),
    "TOO_MANY_GROUPS": Reason(403, "The user is in as many groups as a user may be.", _MAKE_ROOM),
    "TOO_MANY_MEMBERS": Reason(403, "As many users are in the group as may be.", _MAKE_ROOM),
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
"""The field that a refusal names when whoever refuses does not name another."""


def markdown() -> str:
    """The page docs/errors.md."""
    lines = [
        "# Errors",
        "",
        "Made by `make docs` from `python/homewire/reasons.py`.",
        "",
        'A refusal is JSON `{"reason", "data"}`; `data` names the `field` and the `problem`, the',
        "`limit` that was reached, or what the key `needs`.",
        "The status is that of the MODE resources ([specifications 000 and 001](api/specifications.md)).",
        "In 002 and 003 bad input is 400 where it is 403 here, and a refused login 401; 004 has a shape of",
        "its own. `/openapi.json` has the statuses of each operation.",
        "",
        "| reason | status | what happened | what to do |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {name} | {row.status} | {row.meaning} | {row.advice} |" for name, row in REASONS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
