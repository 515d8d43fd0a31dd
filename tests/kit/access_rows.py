"""The table: the answer of every operation to every caller.

A row names an operation, asks for something, and says what each caller gets. `{name}` in a request is what
`AccessProject.value` has under that name. The columns of a row, in the order of `COLUMNS`:

    nobody, dead keys | owner member stranger unverified alien | own other away device |
    project keys: bare read write-kv send-command send-event byou admin foreign
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from homewire.operations import ENDPOINTS
from homewire.projects.models import AccessControl, AccountSystem
from homewire.rest.operation import Endpoint
from kit.access_project import CALLERS, AccessProject
from kit.access_reached import ELSEWHERE

EMAIL, PHONE, BYOU = AccountSystem.EMAIL, AccountSystem.PHONE, AccountSystem.BYOU
ENDPOINT: Final = {endpoint.name: endpoint for endpoint in ENDPOINTS}
PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
DEAD: Final = ("garbage", "revoked", "expired")
COLUMNS: Final = (("none",), DEAD, *((each,) for each in CALLERS if each not in ("none", *DEAD)))


@dataclass(frozen=True)
class Ask:
    """A request of an operation, ready to be sent."""

    operation: str
    path: str
    headers: dict[str, str]
    json: Any
    form: dict[str, Any] | None

    @property
    def endpoint(self) -> Endpoint:
        return ENDPOINT[self.operation]

    def sent(self, http: aiohttp.ClientSession) -> Any:
        """The answer, as a context manager."""
        body: dict[str, Any] = {}
        if self.json is not None:
            body["json"] = self.json
        elif self.form is not None:
            body["data"] = aiohttp.FormData({name: str(value) for name, value in self.form.items()})
        return http.request(self.endpoint.method, self.path, headers=self.headers, **body)


async def filled(subject: AccessProject, template: Any) -> Any:
    """The template with the values of its names."""
    if isinstance(template, dict):
        return {name: await filled(subject, value) for name, value in template.items()}
    if isinstance(template, list):
        return [await filled(subject, value) for value in template]
    if not isinstance(template, str):
        return template
    whole = PLACEHOLDER.fullmatch(template)
    if whole:
        return await subject.value(whole[1])
    return template.format(**{name: await subject.value(name) for name in PLACEHOLDER.findall(template)})


@dataclass(frozen=True)
class Row:
    """The answers of one operation to this request, by caller."""

    operation: str
    path: str
    cells: str
    json: Any = None
    form: dict[str, Any] | str | None = None
    fresh: str = ""
    """Names of callers, separated by blanks, that use the key of a new user with the id `{fresh}`."""
    headers: dict[str, str] = field(default_factory=dict)
    accounts: tuple[AccountSystem, ...] = tuple(AccountSystem)
    access: tuple[AccessControl, ...] = tuple(AccessControl)
    """Projects with access by permission have devices provisioned on demand here, the others before."""

    def expected(self) -> dict[str, int]:
        """The status for each caller, by name."""
        statuses = [int(cell) for cell in self.cells.replace("|", " ").split()]
        assert len(statuses) == len(COLUMNS), f"{self.operation}: {len(statuses)} cells"
        return {
            caller: status for callers, status in zip(COLUMNS, statuses, strict=True) for caller in callers
        }

    async def ask(self, subject: AccessProject, caller: str) -> Ask:
        """The request of this caller."""
        key = subject.keys[caller]
        if self.fresh:
            person = await subject.person()
            subject.known["fresh"] = person.id
            key = person.key if caller in self.fresh.split() else key
        authorization = {} if key is None else {"Authorization": f"ModeCloud {key}"}
        return Ask(
            self.operation,
            await filled(subject, self.path),
            {**self.headers, **authorization},
            await filled(subject, self.json),
            await filled(subject, self.form),
        )

    def applies(self, subject: AccessProject) -> bool:
        """Whether it is for projects like this one."""
        return subject.accounts in self.accounts and subject.access_control in self.access


UPGRADE: Final = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
EVENT: Final = {"eventType": "rain", "eventData": {"mm": 3}}
VALUE: Final = {"value": {"on": True}}
COMMAND: Final = {"action": "open"}
BUILT_IN: Final = (EMAIL, PHONE)
USERS: Final = "owner member stranger unverified alien"
BY_MEMBERSHIP, BY_PERMISSION = (AccessControl.MEMBERSHIP,), (AccessControl.PERMISSION,)


def everybody(status: int) -> str:
    """The cells of a row that are the same for all callers."""
    return " ".join([str(status)] * len(COLUMNS))


def sessions_controller(prefix: str, name: str) -> Iterator[Row]:
    """The rows of the Sessions Controller under one of its paths. It accepts only keys of sessions."""
    users = "401 401 | {0} {0} {0} {0} {0} | 401 401 401 | 401 401 401 401 401 401 401 401"
    one_world: Any = {"accounts": (EMAIL,), "access": BY_MEMBERSHIP}
    wrong = {"login": "0", "password": "", "token": ""}
    foreign = {"Origin": "https://elsewhere.example.com"}
    yield Row(f"getSessionStatus{name}", prefix, everybody(204), **one_world)
    for login, path in (
        ("logIn", "login"),
        ("logInWithToken", "login-with-token"),
        ("logInNode", "node/login"),
    ):
        operation, place, right = login + name, f"{prefix}/{path}", f"{{{login}}}"
        yield Row(operation, place, everybody(201), json=right, **one_world)
        yield Row(operation, place, everybody(400), json={}, **one_world)
        yield Row(operation, place, everybody(403), json=right, headers=foreign, **one_world)
        if login != "logIn":
            # One with a name and a password would soon be one too many.
            yield Row(operation, place, everybody(401), json=wrong, **one_world)
    yield Row(f"getSessionUser{name}", f"{prefix}/user", users.format(200), **one_world)
    yield Row(f"getSessionUserDetails{name}", f"{prefix}/user/details", users.format(200), **one_world)
    yield Row(f"logOut{name}", f"{prefix}/logout", users.format(201), fresh=USERS, **one_world)


def rocket_chat() -> Iterator[Row]:
    """The rows of the Rocket.Chat sessions, which only users have."""
    users = "401 401 | {0} {0} {0} {0} {0} | 403 403 403 | 403 403 403 403 403 403 403 403"
    owner = "401 401 | 200 404 404 404 404 | 403 403 403 | 403 403 403 403 403 403 403 403"
    one_world: Any = {"accounts": (EMAIL,), "access": BY_MEMBERSHIP}
    info, listed, end = "/api/v1/sessions/info", "/api/v1/sessions/list", "/api/v1/sessions/logout.me"
    one = {"sessionId": "{new_session}"}
    yield Row("rocketChatLogin", "/api/v1/login", everybody(200), form="{new_rocket_chat_login}", **one_world)
    yield Row("rocketChatLogin", "/api/v1/login", everybody(400), form={}, **one_world)
    yield Row("rocketChatLogout", "/api/v1/logout", users.format(200), fresh=USERS, **one_world)
    yield Row("getRocketChatSession", f"{info}?sessionId={{new_session}}", owner, **one_world)
    yield Row("getRocketChatSession", info, users.format(400), **one_world)
    yield Row("listRocketChatSessions", f"{listed}?filter=test", users.format(200), **one_world)
    yield Row("listRocketChatSessions", f"{listed}?sort=up", users.format(400), **one_world)
    yield Row("endRocketChatSession", end, owner, form=one, **one_world)
    yield Row("endRocketChatSession", end, users.format(400), form={}, **one_world)


# none dead | owner member stranger unverif. alien | own other away | bare read kv cmd evt byou admin foreign
ROWS: Final = (
    Row("createUser", "/users",
        "201 201 | 201 201 201 201 201 | 201 201 201 | 201 201 201 201 201 201 201 201",
        json={"projectId": "{project}", "name": "Ada", "email": "{new_email}", "password": "correct horse"},
        accounts=(EMAIL,)),
    Row("createUser", "/users",
        "201 201 | 201 201 201 201 201 | 201 201 201 | 201 201 201 201 201 201 201 201",
        json={"projectId": "{project}", "name": "Ada", "phoneNumber": "{new_phone}"}, accounts=(PHONE,)),
    Row("createUser", "/users",
        "403 403 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 201 201 403",
        json={"projectId": "{project}"}, accounts=(BYOU,)),
    Row("getUsers", "/users",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 200 403 403 403 403 200 200"),
    Row("getUser", "/users/{owner}",
        "401 401 | 200 404 404 404 404 | 403 403 403 | 403 403 403 403 403 403 403 403"),
    Row("updateUser", "/users/{owner}",
        "401 401 | 204 404 404 404 404 | 403 403 403 | 403 403 403 403 403 403 403 403",
        json={"name": "Ada"}),
    Row("startAddressChange", "/users/{owner}/addressChange/start",
        "401 401 | 204 404 404 404 404 | 403 403 403 | 403 403 403 403 403 403 403 403",
        json={"email": "{new_email}"}, accounts=(EMAIL,)),
    Row("startAddressChange", "/users/{owner}/addressChange/start",
        "401 401 | 204 404 404 404 404 | 403 403 403 | 403 403 403 403 403 403 403 403",
        json={"phoneNumber": "{new_phone}"}, accounts=(PHONE,)),
    Row("startAddressChange", "/users/{owner}/addressChange/start",
        "401 401 | 403 404 404 404 404 | 403 403 403 | 403 403 403 403 403 403 403 403",
        json={"email": "{new_email}"}, accounts=(BYOU,)),
    Row("changeAddress", "/users/{owner}/addressChange",
        "401 401 | 403 404 404 404 404 | 403 403 403 | 403 403 403 403 403 403 403 403",
        json={"code": "12345678"}),
    Row("deleteUser", "/users/{fresh}",
        "401 401 | 204 404 404 404 404 | 403 403 403 | 403 403 403 403 403 403 403 403", fresh="owner"),
    Row("createLoginToken", "/users/{owner}/loginToken",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 403 201 404"),
    Row("createHome", "/homes",
        "401 401 | 201 201 201 201 201 | 403 403 403 | 403 403 403 403 403 403 403 403",
        json={"name": "Hut"}),
    Row("getHomes", "/homes?userId={owner}",
        "401 401 | 200 403 403 403 403 | 403 403 403 | 403 200 403 403 403 403 200 403"),
    Row("getHomes", "/homes?projectId={project}",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 200 403 403 403 403 200 403"),
    Row("getHome", "/homes/{home}",
        "401 401 | 200 200 404 200 404 | 403 403 403 | 403 200 403 403 403 403 200 404"),
    Row("updateHome", "/homes/{home}",
        "401 401 | 204 403 404 403 404 | 403 403 403 | 403 403 403 403 403 403 204 404",
        json={"name": "Hut"}),
    Row("updateHome", "/homes/{new_home}",
        "401 401 | 403 403 404 403 404 | 403 403 403 | 403 403 403 403 403 403 204 404",
        json={"deactivated": True}),
    Row("deleteHome", "/homes/{new_home}",
        "401 401 | 204 403 404 403 404 | 403 403 403 | 403 403 403 403 403 403 204 404"),
    Row("getHomeMembers", "/homes/{home}/members",
        "401 401 | 200 200 403 200 403 | 403 403 403 | 403 200 403 403 403 403 200 403"),
    Row("addHomeMember", "/homes/{home}/members",
        "401 401 | 201 201 403 201 403 | 403 403 403 | 403 403 403 403 403 403 201 403",
        form={"email": "{new_email}"}, accounts=(EMAIL,)),
    Row("addHomeMember", "/homes/{home}/members",
        "401 401 | 201 201 403 201 403 | 403 403 403 | 403 403 403 403 403 403 201 403",
        form={"phoneNumber": "{new_phone}"}, accounts=(PHONE,)),
    Row("addHomeMember", "/homes/{home}/members",
        "401 401 | 201 201 403 201 403 | 403 403 403 | 403 403 403 403 403 403 201 403",
        form={"userId": "{new_user}"}, accounts=(BYOU,)),
    Row("getHomeMember", "/homes/{home}/members/{member}",
        "401 401 | 200 200 404 200 404 | 403 403 403 | 403 200 403 403 403 403 200 404"),
    Row("updateHomeMember", "/homes/{home}/members/{member}",
        "401 401 | 204 403 404 403 404 | 403 403 403 | 403 403 403 403 403 403 204 404",
        json={"role": "member"}),
    Row("deleteHomeMember", "/homes/{home}/members/{new_member}",
        "401 401 | 204 403 404 403 404 | 403 403 403 | 403 403 403 403 403 403 204 404"),
    Row("listDevices", "/devices?homeId={home}",
        "401 401 | 200 200 403 200 403 | 403 403 403 | 403 200 403 403 403 403 200 403"),
    Row("listDevices", "/devices?projectId={project}",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 200 403 403 403 403 200 403"),
    Row("getDevice", "/devices/{own}",
        "401 401 | 200 200 404 200 404 | 200 404 404 | 403 200 403 403 403 403 200 404"),
    Row("updateDevice", "/devices/{own}",
        "401 401 | 204 204 404 204 404 | 403 403 403 | 403 403 403 403 403 403 204 404",
        json={"id": "{own}", "homeId": "{home}", "name": "Lamp"}),
    Row("deleteDevice", "/devices/{new_device}",
        "401 401 | 204 204 404 204 404 | 403 403 403 | 403 403 403 403 403 403 204 404"),
    Row("addDevice", "/devices",
        "401 401 | 201 201 403 201 403 | 403 403 403 | 403 403 403 403 403 403 403 403",
        form={"homeId": "{home}", "claimCode": "{new_claim_code}"}, access=BY_MEMBERSHIP),
    Row("addDevice", "/devices",
        "201 401 | 201 201 403 201 403 | 403 403 403 | 403 403 403 403 403 403 403 403",
        form={"token": "{new_token}"}, access=BY_PERMISSION),
    Row("beginDeviceProvisioning", "/homes/{home}/deviceProvisioning",
        "401 401 | 200 200 403 200 403 | 403 403 403 | 403 403 403 403 403 403 403 403",
        form={"deviceClass": "lamp"}, access=BY_PERMISSION),
    Row("beginDeviceProvisioning", "/homes/{home}/deviceProvisioning",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 403 403 403",
        form={"deviceClass": "lamp"}, access=BY_MEMBERSHIP),
    Row("registerDevice", "/deviceRegistration",
        "401 401 | 403 403 403 403 403 | 200 403 403 | 403 403 403 403 403 403 403 403",
        form={"deviceId": "{own}", "claimable": "1"}, access=BY_MEMBERSHIP),
    Row("registerDevice", "/deviceRegistration",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 403 403 403",
        form={"deviceId": "{own}", "claimable": "1"}, access=BY_PERMISSION),
    Row("getAuthentication", "/auth",
        "200 200 | 200 200 200 200 200 | 200 200 200 | 200 200 200 200 200 200 200 200"),
    Row("authenticateUser", "/auth/user",
        "200 200 | 200 200 200 200 200 | 200 200 200 | 200 200 200 200 200 200 200 200",
        form="{new_credentials}", accounts=BUILT_IN),
    Row("authenticateUser", "/auth/user",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 200 200 403",
        form={"projectId": "{project}", "userId": "{stranger}"}, accounts=(BYOU,)),
    Row("startSMS", "/auth/user/sms",
        "200 200 | 200 200 200 200 200 | 200 200 200 | 200 200 200 200 200 200 200 200",
        form={"projectId": "{project}", "phoneNumber": "{new_registered_phone}"}, accounts=(PHONE,)),
    Row("startSMS", "/auth/user/sms",
        "403 403 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 403 403 403",
        form={"projectId": "{project}", "phoneNumber": "{new_phone}"}, accounts=(EMAIL, BYOU)),
    Row("verifyEmail", "/auth/user/emailVerification",
        "200 200 | 200 200 200 200 200 | 200 200 200 | 200 200 200 200 200 200 200 200",
        form={"token": "{new_verification}"}, accounts=(EMAIL,)),
    Row("verifyEmail", "/auth/user/emailVerification",
        "403 403 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 403 403 403",
        form={"token": "nothing"}, accounts=(PHONE, BYOU)),
    Row("startEmailVerification", "/auth/user/emailVerification/start",
        "200 200 | 200 200 200 200 200 | 200 200 200 | 200 200 200 200 200 200 200 200",
        form={"projectId": "{project}", "email": "{new_email}"}, accounts=(EMAIL,)),
    Row("startEmailVerification", "/auth/user/emailVerification/start",
        "403 403 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 403 403 403",
        form={"projectId": "{project}", "email": "{new_email}"}, accounts=(PHONE, BYOU)),
    Row("resetPassword", "/auth/user/passwordReset",
        "200 200 | 200 200 200 200 200 | 200 200 200 | 200 200 200 200 200 200 200 200",
        form={"token": "{new_password_reset}", "newPassword": "staple battery"}, accounts=(EMAIL,)),
    Row("resetPassword", "/auth/user/passwordReset",
        "403 403 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 403 403 403",
        form={"token": "nothing", "newPassword": "staple battery"}, accounts=(PHONE, BYOU)),
    Row("startPasswordReset", "/auth/user/passwordReset/start",
        "200 200 | 200 200 200 200 200 | 200 200 200 | 200 200 200 200 200 200 200 200",
        form={"projectId": "{project}", "email": "{new_email}"}, accounts=(EMAIL,)),
    Row("startPasswordReset", "/auth/user/passwordReset/start",
        "403 403 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 403 403 403",
        form={"projectId": "{project}", "email": "{new_email}"}, accounts=(PHONE, BYOU)),
    Row("listHomeKeyValuePairs", "/homes/{home}/kv",
        "401 401 | 200 200 403 200 403 | 403 403 403 | 403 200 403 403 403 403 200 403"),
    Row("getHomeKeyValuePair", "/homes/{home}/kv/{new_value}",
        "401 401 | 200 200 404 200 404 | 403 403 403 | 403 200 403 403 403 403 200 404"),
    Row("putHomeKeyValuePair", "/homes/{home}/kv/heating",
        "401 401 | 204 204 404 204 404 | 403 403 403 | 403 403 204 403 403 403 204 404", json=VALUE,
        access=BY_MEMBERSHIP),
    Row("putHomeKeyValuePair", "/homes/{home}/kv/heating",
        "401 401 | 403 403 404 403 404 | 403 403 403 | 403 403 204 403 403 403 204 404", json=VALUE,
        access=BY_PERMISSION),
    Row("deleteHomeKeyValuePair", "/homes/{home}/kv/{new_value}",
        "401 401 | 204 204 404 204 404 | 403 403 403 | 403 403 204 403 403 403 204 404",
        access=BY_MEMBERSHIP),
    Row("deleteHomeKeyValuePair", "/homes/{home}/kv/{new_value}",
        "401 401 | 403 403 404 403 404 | 403 403 403 | 403 403 204 403 403 403 204 404",
        access=BY_PERMISSION),
    Row("listDeviceKeyValuePairs", "/devices/{own}/kv",
        "401 401 | 200 200 403 200 403 | 200 403 403 | 403 200 403 403 403 403 200 403"),
    Row("getDeviceKeyValuePair", "/devices/{own}/kv/{new_device_value}",
        "401 401 | 200 200 404 200 404 | 200 404 404 | 403 200 403 403 403 403 200 404"),
    Row("putDeviceKeyValuePair", "/devices/{own}/kv/heating",
        "401 401 | 204 204 404 204 404 | 204 404 404 | 403 403 204 403 403 403 204 404", json=VALUE,
        access=BY_MEMBERSHIP),
    Row("putDeviceKeyValuePair", "/devices/{own}/kv/heating",
        "401 401 | 403 403 404 403 404 | 204 404 404 | 403 403 204 403 403 403 204 404", json=VALUE,
        access=BY_PERMISSION),
    Row("deleteDeviceKeyValuePair", "/devices/{own}/kv/{new_device_value}",
        "401 401 | 204 204 404 204 404 | 204 404 404 | 403 403 204 403 403 403 204 404",
        access=BY_MEMBERSHIP),
    Row("deleteDeviceKeyValuePair", "/devices/{own}/kv/{new_device_value}",
        "401 401 | 403 403 404 403 404 | 204 404 404 | 403 403 204 403 403 403 204 404",
        access=BY_PERMISSION),
    Row("listEntities", "/projects/{project}/entities?homeId={home}",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 200 403 403 403 403 200 404"),
    Row("createEntity", "/projects/{project}/entities",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 403 201 404",
        json={"entityId": "{new_entity_id}", "entityClass": "room", "homeId": "{home}"}),
    Row("getEntity", "/projects/{project}/entities/{new_entity}",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 200 403 403 403 403 200 404"),
    Row("updateEntity", "/projects/{project}/entities/{new_entity}",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 403 204 404",
        json={"entityClass": "hall", "homeId": "{home}"}),
    Row("deleteEntity", "/projects/{project}/entities/{new_entity}",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 403 204 404"),
    Row("listPermissions", "/projects/{project}/permissions?userId={member}",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 200 403 403 403 403 200 404"),
    Row("listPermissions", "/projects/{project}/permissions?groupId={new_group}",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 200 403 403 403 403 200 404"),
    Row("grantPermission", "/projects/{project}/permissions",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 403 204 404",
        json={"userId": "{member}", "permission": "write:home:{other_home}"}),
    Row("revokePermission",
        "/projects/{project}/permissions?groupId={new_group}&permission=write:home:{home}",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 403 204 404"),
    Row("listGroups", "/projects/{project}/groups",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 200 403 403 403 403 200 404"),
    Row("createGroup", "/projects/{project}/groups",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 403 201 404",
        json={"name": "night watch"}),
    Row("getGroup", "/projects/{project}/groups/{new_group}",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 200 403 403 403 403 200 404"),
    Row("deleteGroup", "/projects/{project}/groups/{new_group}",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 403 204 404"),
    Row("listGroupMembers", "/projects/{project}/groups/{new_group}/members",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 200 403 403 403 403 200 404"),
    Row("addGroupMember", "/projects/{project}/groups/{new_group}/members/{stranger}",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 403 204 404"),
    Row("removeGroupMember", "/projects/{project}/groups/{new_group}/members/{group_member}",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 403 403 204 404"),
    Row("sendHomeEvent", "/homes/{home}/event",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 204 403 204 404", json=EVENT),
    Row("sendDeviceEvent", "/devices/{own}/event",
        "401 401 | 403 403 403 403 403 | 204 404 404 | 403 403 403 403 403 403 403 403", json=EVENT),
    Row("sendEvents", "/events",
        "401 401 | 403 403 403 403 403 | 403 403 403 | 403 403 403 403 200 403 200 200",
        json=[{**EVENT, "homeId": "{home}"}]),
    Row("sendCommand", "/devices/{own}/command",
        "401 401 | 204 204 404 204 404 | 403 403 403 | 403 403 403 204 403 403 204 404", json=COMMAND,
        access=BY_MEMBERSHIP),
    Row("sendCommand", "/devices/{own}/command",
        "401 401 | 403 403 404 403 404 | 403 403 403 | 403 403 403 204 403 403 204 404", json=COMMAND,
        access=BY_PERMISSION),
    Row("getUserSession", "/userSession",
        "401 401 | 200 200 200 200 200 | 403 403 403 | 403 403 403 403 403 403 403 403"),
    Row("terminateUserSession", "/userSession",
        "401 401 | 204 204 204 204 204 | 403 403 403 | 403 403 403 403 403 403 403 403",
        fresh=USERS),
    Row("endUserSessions", "/userSessions?current=true",
        "401 401 | 204 204 204 204 204 | 403 403 403 | 403 403 403 403 403 403 403 403",
        fresh=USERS),
    Row("listenToEvents", "/userSession/websocket",
        "401 401 | 101 101 101 101 101 | 403 403 403 | 403 403 403 403 403 403 403 403", headers=UPGRADE,
        accounts=BUILT_IN, access=BY_MEMBERSHIP),
    Row("listenToEvents", "/userSession/websocket?homeId={home}",
        "401 401 | 101 101 404 101 404 | 403 403 403 | 403 403 403 403 403 403 403 403", headers=UPGRADE,
        accounts=BUILT_IN, access=BY_MEMBERSHIP),
    Row("listenToEvents", "/userSession/websocket?deviceId={own}",
        "401 401 | 101 101 404 101 404 | 403 403 403 | 403 403 403 403 403 403 403 403", headers=UPGRADE,
        accounts=BUILT_IN, access=BY_MEMBERSHIP),
    # Only the stranger has a permission: to read the home's events. (The alien's project has e-mail accounts
    # and access by membership.)
    Row("listenToEvents", "/userSession/websocket",
        "401 401 | 403 403 403 403 101 | 403 403 403 | 403 403 403 403 403 403 403 403", headers=UPGRADE,
        accounts=BUILT_IN, access=BY_PERMISSION),
    Row("listenToEvents", "/userSession/websocket?homeId={permitted_home}",
        "401 401 | 404 404 101 404 404 | 403 403 403 | 403 403 403 403 403 403 403 403", headers=UPGRADE,
        accounts=BUILT_IN, access=BY_PERMISSION),
    Row("listenToEvents", "/userSession/websocket",
        "401 401 | 403 403 403 403 101 | 403 403 403 | 403 403 403 403 403 403 403 403", headers=UPGRADE,
        accounts=(BYOU,)),
    Row("receiveCommands", "/devices/{own}/command",
        "401 401 | 403 403 403 403 403 | 101 404 404 | 403 403 403 403 403 403 403 403", headers=UPGRADE),
    Row("getSmartModules", "/homes/{home}/smartModules",
        "401 401 | 200 200 403 200 403 | 403 403 403 | 403 200 403 403 403 403 200 403"),
    Row("getSmartModule", "/homes/{home}/smartModules/{module}",
        "401 401 | 200 200 404 200 404 | 403 403 403 | 403 200 403 403 403 403 200 404"),
    Row("getSessions", "/sessions",
        "401 401 | 200 200 200 200 200 | 403 403 403 | 403 200 403 403 403 403 200 200"),
    Row("getSessions", "/sessions?$take=-1",
        "401 401 | 400 400 400 400 400 | 400 400 400 | 403 400 403 403 403 403 400 400"),
    Row("getSession", "/sessions/{new_session}",
        "401 401 | 200 404 404 404 404 | 403 403 403 | 403 200 403 403 403 403 200 404"),
    Row("deleteSession", "/sessions/{new_session}",
        "401 401 | 200 404 404 404 404 | 403 403 403 | 403 403 403 403 403 403 200 404"),
    *sessions_controller("/session", ""),
    *sessions_controller("/api/session", "AtApi"),
    *rocket_chat(),
)  # fmt: skip


async def successes(worlds: Iterable[AccessProject]) -> list[Ask]:
    """For each operation a request that succeeds in one of the worlds, as long as nothing is broken.

    Where a success takes what only a message tells: one that its handler refuses.
    """
    asks: dict[str, Ask] = {}
    for subject in worlds:
        for row in ROWS:
            if row.operation not in asks and row.applies(subject):
                for caller in _succeeding(row):
                    asks[row.operation] = await row.ask(subject, caller)
                    break
    return [asks[name] for name in ENDPOINT]


def _succeeding(row: Row) -> Iterator[str]:
    success = ENDPOINT[row.operation].success
    by_message = (row.operation, success) in ELSEWHERE
    wanted = {success, 403} if by_message else {success}
    found = [caller for caller, status in row.expected().items() if status in wanted]
    # With a key, if possible: a request without one may be refused before the store is asked.
    return iter(sorted(found, key=("none", *DEAD).__contains__))
