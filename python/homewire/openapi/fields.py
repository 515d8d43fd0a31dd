"""What the document says beside types: what each member and parameter means, and examples.

A member of one name means the same everywhere, so the tables go by names. `ONLY_HERE` has those of one schema
that differ. A test fails for a member without a row. The examples of requests and answers are made from those
of members, so that no two contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from shlex import quote
from typing import Any, Final

import msgspec

_TIME: Final = "2026-11-30T17:43:09.000Z"
_KEY: Final = "v1.7.Zm9yIGV4YW1wbGUgb25seTogbm9ib2R5J3Mga2V5Li4"

Row = tuple[str, Any]
"""Description and example of a field."""

ANYWHERE: Final[dict[str, Row]] = {
    "_id": ("Id of the session or, in `me`, of the user.", "5f1b6c2d8e"),
    "_updatedAt": ("When the record of the session last changed.", _TIME),
    "_v": ("Version of the record, counted up with each change.", 3),
    "accepted": ("False for a user who was added and has not accepted yet; else absent.", False),
    "action": ("What the device is to do; the application chooses the names.", "open"),
    "active": ("Whether the user may log in.", True),
    "address": ("The e-mail address.", "ada@example.com"),
    "apiKey": ("Key of the device. Only the answer that made the device has it.", _KEY),
    "appId": ("Id of the app that the user logged in with.", "controller_app"),
    "attributes": ("Further data of the entity, any JSON, at most 64 KiB.", {"floor": 2}),
    "authToken": ("Key of the session, for the header `X-Auth-Token`.", _KEY),
    "authenticationType": ("How the client authenticates: Bearer or Cookie.", "Bearer"),
    "claimCode": ("Code that claims the device for a home.", "K3F9-77QX"),
    "claimExpirationTime": ("Until when the device can be claimed.", _TIME),
    "claimTime": ("When the device was claimed.", _TIME),
    "claimable": ("Whether the device can be claimed from now on.", True),
    "closedAt": ("When the session ended; absent while it is live.", _TIME),
    "code": ("The code that was sent.", "482913"),
    "count": ("How many items this answer has.", 1),
    "createdAt": ("When it was created.", _TIME),
    "creationTime": ("When it was created.", _TIME),
    "currentPassword": (
        "The present password. It is needed for a new password or address.",
        "old horse 7",
    ),
    "data": (
        "What is wrong: the field and the problem, or the limit.",
        {"field": "name", "problem": "is required"},
    ),
    "day": ("Day of the month of the login.", 30),
    "deactivated": ("Whether the home accepts no events, commands or changed values.", False),
    "description": ("Description, as free text.", "The kitchen's door"),
    "device": ("The client that opened the session, by its User-Agent.", None),
    "deviceClass": ("Kind of the device; the application chooses the names.", "lamp"),
    "deviceId": ("Id of a device.", 21),
    "deviceName": ("The client that opened the session, by its User-Agent.", "Firefox on Linux"),
    "deviceTag": ("The tag of the new device.", "kitchen"),
    "displaySettings": ("How applications show the entity; absent if it was not set.", None),
    "duration": ("For how many seconds the device can be claimed.", 300),
    "email": ("E-mail address; projects with e-mail accounts.", "ada@example.com"),
    "emails": ("The user's e-mail addresses.", None),
    "entityClass": ("Kind of the entity; the application chooses the names.", "room"),
    "entityId": ("Id of an entity, unique in the project; a text of at most 256 bytes.", "kitchen"),
    "envName": ("Kind of client, by its User-Agent.", "Firefox"),
    "error": ("The problem, as text.", "Session not found"),
    "errorType": ("What is wrong, for programs.", "invalid-params"),
    "eventData": (
        "The event's own data, a JSON object of at most 64 KiB, delivered byte for byte.",
        {"celsius": 21.5},
    ),
    "eventType": (
        "Kind of the event; the application chooses the names. Types that begin and end with `_` are the"
        " platform's own.",
        "temperature",
    ),
    "expirationTime": ("Until when it is valid. Use extends a session.", _TIME),
    "expiresAt": ("When the session ends if it is not used.", _TIME),
    "externalKey": ("The application's own id of the user; projects with BYOU accounts.", "customer-1001"),
    "granted": ("Whether the permission was granted to the user, not only to a group.", True),
    "groupId": ("Id of a group.", 31),
    "groupIds": ("The groups that give the user the permission.", [31]),
    "guid": ("Id of the user, as a text.", "11"),
    "homeId": ("Id of a home.", 12),
    "host": ("The Host header of the login.", "api.example.com"),
    "id": ("Its id, unique in the deployment.", 11),
    "identity": ("The user and the client of the session.", None),
    "instanceId": ("The node that opened the session.", "node-1"),
    "ip": ("Address of the client that opened the session.", "192.0.2.7"),
    "isConnected": ("Whether the device holds a command WebSocket now.", True),
    "items": ("The sessions that were found.", None),
    "keepOtherSessions": ("Whether the user's other sessions stay after a new password.", False),
    "key": ("Name of the value.", "mode"),
    "lastAccessAt": ("When the session was last used; noted once a minute at most.", _TIME),
    "lastActivityAt": ("When the session was last used; noted once a minute at most.", _TIME),
    "lastConnectTime": ("When the device last opened its command WebSocket.", _TIME),
    "lastDisconnectTime": ("When the device's last command WebSocket ended.", _TIME),
    "lastFailedLogin": ("When a login as the user last failed, in ms since 1970.", 1764524589000),
    "lastSuccessfulLogin": ("When the user last logged in, in ms since 1970.", 1764524589000),
    "limit": ("Maximum number of items; without it all.", 100),
    "login": ("The name to log in with: an e-mail address, or the id of a device.", "ada@example.com"),
    "loginAt": ("When the session began.", _TIME),
    "loginToken": ("Hash that identifies the session; it is no key.", "b7d2c1"),
    "longVersion": ("Version of the client, in full.", "128.0.3"),
    "me": ("The user who logged in.", None),
    "message": ("The problem, as text.", "You must be logged in to do this."),
    "modificationTime": ("When the value was last changed.", _TIME),
    "moduleType": ("Type of the smart module.", "webhook"),
    "month": ("Month of the login, from 1 on.", 11),
    "mostImportantRole": ("The highest of the user's roles.", "user"),
    "name": ("Display name.", "Ada's house"),
    "newPassword": ("The password to set.", "correct horse 9"),
    "offset": ("How many items were skipped.", 0),
    "os": ("Operating system of the client, by its User-Agent.", None),
    "parameters": (
        "What the action needs, a JSON object of at most 64 KiB, delivered byte for byte.",
        {"percent": 80},
    ),
    "parentId": ("The entity of the same home that this one is a part of.", "house"),
    "password": ("The password.", "correct horse 9"),
    "permission": ("The permission: `<action>:<kind>:<id>`.", "read:home-events:12"),
    "phoneNumber": ("Phone number in E.164 form; projects with phone accounts.", "+14155550123"),
    "projectId": ("Id of a project.", 7),
    "projectKeyName": ("Name of the project key.", "server"),
    "reason": ("Why it was refused: an upper-case code of docs/errors.md.", "INVALID_PARAMETER"),
    "recipient": ("Where the message was sent.", "+14155550123"),
    "results": ("One result for each item, in their order.", None),
    "role": ("Role of the member: owners may change the home and its members.", "member"),
    "roles": ("The user's roles.", ["user"]),
    "searchTerm": ("Text that a search compares.", "ada firefox linux"),
    "sessionId": ("Id of a session.", "5f1b6c2d8e"),
    "sessions": ("The sessions.", None),
    "skip": ("Number of items to skip.", 0),
    "startedAt": ("When the session began.", _TIME),
    "status": ("`success`, or `error`.", "success"),
    "subscribedEvents": ("Event types that the module receives; `*`: all.", ["temperature"]),
    "success": ("Whether the request succeeded.", True),
    "suspended": ("Whether the module receives no events until the project resumes it.", False),
    "tag": ("A text of the application about the device.", "kitchen"),
    "timeZone": ("IANA time zone.", "Europe/Berlin"),
    "timezone": ("IANA time zone; absent if it was not set.", "Europe/Berlin"),
    "token": ("The token, which is secret.", "b64kQ3xw"),
    "total": ("Number of all items.", 1),
    "totalCount": ("Number of all items.", 1),
    "type": ("Its type.", "user"),
    "uiTimeZone": ("IANA time zone in which applications show times; absent: UTC.", "Europe/Berlin"),
    "updatedAt": ("When it last changed.", _TIME),
    "user": ("The name to log in with: an e-mail address.", "ada@example.com"),
    "userId": ("Id of a user.", 11),
    "userName": ("Name of the user.", "Ada"),
    "username": ("Name to log in with: an e-mail address.", "ada@example.com"),
    "value": (
        "The value: any JSON except null, at most 64 KiB and 64 levels, stored byte for byte.",
        {"on": True},
    ),
    "verified": ("Whether the address or number is verified.", True),
    "version": ("Its version.", "1.0"),
    "year": ("Year of the login.", 2026),
    # Of the event as listeners get it.
    "timestamp": ("When the server accepted the event, UTC, in milliseconds.", _TIME),
    "originDeviceId": ("The device that sent the event; else absent.", 21),
    "originDeviceClass": ("The class of that device.", "lamp"),
    "originDeviceIp": ("The address that the device sent the event from.", "192.0.2.7"),
    "originProjectKeyId": ("The id of the project key that sent the event, a text; else absent.", "9"),
    "originProjectKeyName": ("The name of that key.", "server"),
    # Parameters alone.
    "queue": ("How many seconds the command is queued for a device that is not connected.", 60),
    "offline": (
        "Without `queue`, for a device that is not connected: `refuse` answers 403 `DEVICE_OFFLINE`,"
        " `drop` 204. The default is the project's.",
        "refuse",
    ),
    "search": ("A part of name, e-mail address, phone number or external key, in any case.", "ada"),
    "keyPrefix": ("Selects keys that begin with it, byte for byte.", "mode"),
    "entityClasses": ("Selects entities of these classes, a comma list.", "room"),
    "current": ("Whether the session of the key ends, too.", False),
    "$skip": ("Number of items to skip.", 0),
    "$take": ("Maximum number of items; without it all.", 100),
    "$count": ("Whether the answer has only the number of items.", False),
    "$sort": ("Members to sort by, a comma list; `-` before one: descending.", "-startedAt"),
    "identity.userName": ("Selects sessions of users with this name.", "Ada"),
    "identity.deviceName": ("Selects sessions of this client.", "Firefox on Linux"),
    "identity.envName": ("Selects sessions of this kind of client.", "Firefox"),
    "identity.authenticationType": ("Selects sessions with this kind of authentication.", "Bearer"),
    "moduleId": ("Id of a smart module.", "lights"),
    "filter": ("Selects sessions with a text that contains it.", "firefox"),
    "sort": (
        "A JSON object of members to sort by: 1 ascending, -1 descending. Default: the newest login first.",
        '{"loginAt":-1}',
    ),
}

ONLY_HERE: Final[dict[str, Row]] = {
    "BatchResult.id": ("The id of the stored event.", "3.1764524589000-0"),
    "BatchResult.status": ("204 if the event was stored, else the status of its error.", 204),
    "PlacedEvent.homeId": ("The home that the event is about; with `deviceId` the home of that device.", 12),
    "PlacedEvent.deviceId": ("The device that the event is about.", 21),
    "ReceivedEvent.homeId": ("The home of the event.", 12),
    "LoginAnswer.data": ("The session that was opened.", None),
    "LogoutAnswer.data": ("A text for the user.", None),
    "RocketChatError.status": ("With a 401: `error`.", "error"),
    "RocketChatError.success": ("False.", False),
    "RocketChatError.message": ("With a 401: the same as `error`.", "You must be logged in to do this."),
    "AuthenticationInfo.type": ("The kind of principal that the key belongs to.", "user"),
    "RocketChatSession.type": ("The kind of record.", "session"),
    "RocketChatSessionInfo.type": ("The kind of record.", "session"),
    "Opened.userId": ("Id of the user, as a text.", "11"),
    "RocketChatSession.userId": ("Id of the user, as a text.", "11"),
    "RocketChatSessionInfo.userId": ("Id of the user, as a text.", "11"),
    "SmartModule.id": ("Its id, unique in the project.", "lights"),
    "User.name": ("The user's name.", "Ada"),
    "OperatingSystem.name": ("Name of the operating system.", "Linux"),
    "UserPatch.name": ("The user's name.", "Ada"),
    "NewUser.name": ("The user's name.", "Ada"),
    "NewPermission.userId": ("The user that gets or loses the permission; or `groupId`.", 11),
    "NewPermission.groupId": ("The group that gets or loses the permission; or `userId`.", 31),
    "SessionQuery.sessionId": ("Id of the session to end.", "5f1b6c2d8e"),
    "listDevices.projectId": ("All devices of the project; only with a project key.", 7),
    "EmailProof.password": (
        "The password of the registration. With another one the address is not verified, and the token stays "
        "valid.",
        "correct horse 9",
    ),
    "listenToEvents.homeId": ("Selects events of these homes; repeat it, or send a comma list.", [12]),
    "listenToEvents.deviceId": ("Selects events of these devices; repeat it, or send a comma list.", [21]),
    "listenToEvents.entityId": ("Selects events of these entities; repeat it for more.", ["kitchen"]),
}

SHOWN: Final[dict[str, tuple[str, ...]]] = {
    "AuthenticationInfo": ("type", "projectId", "userId", "appId", "expirationTime"),
    "BatchResult": ("status", "id"),
    "Credentials": ("projectId", "appId", "email", "password"),
    "DevicePatch": ("name", "tag"),
    "EntityChanges": ("entityClass", "displaySettings"),
    "HomeChanges": ("name", "timezone"),
    "Login": ("user", "password"),
    "MemberChanges": ("role",),
    "NewAddress": ("email", "currentPassword"),
    "NewDevice": ("homeId", "claimCode"),
    "NewMember": ("email", "role"),
    "NewPermission": ("userId", "permission"),
    "NewUser": ("projectId", "name", "email", "password"),
    "NewValue": ("value",),
    "PlacedEvent": ("homeId", "eventType", "eventData"),
    "Event": ("eventType", "eventData"),
    "User": ("id", "projectId", "creationTime", "name", "verified", "email"),
    "HomeMember": ("userId", "creationTime", "verified", "role", "name", "email"),
    "UserPatch": ("name", "uiTimeZone"),
}
"""The members that the example of a schema has, where not all members belong into one object."""


def row(where: str, name: str) -> Row | None:
    """The row of a member of a schema, or of a parameter of an operation: `where` is the name of that."""
    return ONLY_HERE.get(f"{where}.{name}") or ANYWHERE.get(name)


Part = dict[str, Any]
"""A part of the document."""

_SERVER: Final = "https://homewire.example.com"
_BY_FORM: Final = "application/x-www-form-urlencoded"
_BY_TYPE: Final[Part] = {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "object": {}}


def described(components: Part) -> Part:
    """The schemas, with what each member is and an example of it, and `const` for the only value of one."""
    return {name: {**_plain(schema), **_members(name, schema)} for name, schema in components.items()}


def parameter(operation: str, name: str) -> Part:
    """What a parameter is, and an example of it."""
    found = row(operation, name)
    if found is None:
        return {}
    about, example = found
    return {"description": about} if example is None else {"description": about, "example": example}


def example(schema: Part, components: Part, where: str = "") -> Any:
    """An example of a schema; `where` is the component that it is a member of, and its name there."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return example(components[name], components, name)
    for key in ("const", "default"):
        if schema.get(key) is not None:
            return schema[key]
    if "examples" in schema:
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return example(
            next(each for each in schema["anyOf"] if each.get("type") != "null"), components, where
        )
    if schema.get("type") == "array":
        return [example(schema["items"], components, where)]
    if "properties" in schema:
        return _object(schema, components, where)
    return _BY_TYPE.get(schema.get("type", ""), {})


def samples(method: str, path: str, operation: Part) -> Iterator[Part]:
    """How a client would make the request: by curl, or in JavaScript what opens a WebSocket."""
    place = path
    for each in operation["parameters"]:
        if each["in"] == "path":
            place = place.replace("{" + each["name"] + "}", str(each.get("example", 1)))
    if "101" in operation["responses"]:
        source = f'new WebSocket("{_SERVER.replace("https", "wss")}{place}?authToken=" + key)'
        yield {"lang": "JavaScript", "source": source}
        return
    words = ["curl", "-X", method, _SERVER + place]
    if {} not in operation["security"]:
        words += ["-H", "Authorization: ModeCloud $KEY"]
    content = operation.get("requestBody", {}).get("content", {})
    if _BY_FORM in content:
        for name, value in content[_BY_FORM]["example"].items():
            words += ["--data-urlencode", f"{name}={_text(value)}"]
    elif content:
        body = msgspec.json.encode(content["application/json"]["example"]).decode()
        words += ["-H", "Content-Type: application/json", "-d", body]
    yield {"lang": "Shell", "source": " ".join(_shell(each) for each in words)}


def _members(name: str, schema: Part) -> Part:
    if "properties" not in schema:
        return {}
    return {
        "properties": {member: _member(name, member, each) for member, each in schema["properties"].items()}
    }


def _member(schema: str, name: str, kind: Part) -> Part:
    made, found = _plain(kind), row(schema, name)
    if found is None:
        return made
    about, value = found
    made["description"] = about
    if value is not None and not _has_values(made):
        made["examples"] = [value]
    return made


def _has_values(schema: Part) -> bool:
    """Whether the schema itself says which values there are."""
    return any(key in schema for key in ("const", "enum", "$ref")) or any(
        _has_values(each) for each in schema.get("anyOf", ())
    )


def _plain(schema: Part) -> Part:
    """The same with `const`, and without the default null of what is simply left out."""
    made = {key: value for key, value in schema.items() if not (key == "default" and value is None)}
    if len(made.get("enum", ())) == 1:
        made["const"] = made.pop("enum")[0]
    if "anyOf" in made:
        made["anyOf"] = [_plain(each) for each in made["anyOf"]]
    if "items" in made:
        made["items"] = _plain(made["items"])
    if made.get("type") == "object" and "properties" not in made:
        # Said aloud: generators take an object without members for an empty one.
        made["additionalProperties"] = True
    return made


def _object(schema: Part, components: Part, where: str) -> Part:
    made = {}
    names: Iterable[str] = SHOWN.get(where) or schema["properties"]
    for name in names:
        each = schema["properties"][name]
        found = row(where, name)
        known = found[1] if found is not None and not _has_values(each) else None
        made[name] = example(each, components, where) if known is None else known
    return made


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _shell(word: str) -> str:
    # The key is the caller's own, from the environment, so that none stands in a history.
    return f'"{word}"' if "$KEY" in word else quote(word)
