"""The table of authorisation: for each action, what a principal of each kind needs.

`auth/access.py` answers requests from it. Scripts get roles, and which actions need an active home, as
constants from it, and check them at the moment of a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final

from homewire.auth.models import Principal, PrincipalKind
from homewire.errors import PermissionDenied
from homewire.homes.models import Role
from homewire.permissions.models import PermissionKind
from homewire.projects.models import KeyScope


class Action(StrEnum):
    """What a principal does with one resource."""

    SEE_HOME = auto()
    """Read the home, what is in it, its values and its members."""
    WRITE_HOME = auto()
    """Change the values of the home."""
    CHANGE_HOME = auto()
    DELETE_HOME = auto()
    ADD_MEMBER = auto()
    ADD_OWNER = auto()
    SET_ROLE = auto()
    REMOVE_MEMBER = auto()
    LEAVE_HOME = auto()
    SEND_HOME_EVENT = auto()
    RECEIVE_HOME = auto()
    SEE_DEVICE = auto()
    """Read and change the device, and read its values."""
    WRITE_DEVICE = auto()
    """Change the values of the device."""
    SEND_DEVICE_EVENT = auto()
    SEND_COMMAND = auto()
    RECEIVE_DEVICE = auto()
    RECEIVE_COMMANDS = auto()
    RECEIVE_ENTITY = auto()
    USE_ACCOUNT = auto()
    """Read and change the account of the user."""
    LIST_HOMES = auto()
    """List the homes of the user."""
    USE_PROJECT = auto()
    """Read and change what belongs to the project as a whole."""


class Noun(StrEnum):
    """The kind of resource."""

    HOME = "home"
    DEVICE = "device"
    ENTITY = "entity"
    USER = "user"
    PROJECT = "project"


class Reach(Enum):
    """The resources that an action takes from a principal of one kind. All others do not exist for it."""

    NOTHING = auto()
    ITSELF = auto()
    MEMBERSHIPS = auto()
    """The homes that the user is a member of, and the devices in them."""
    PROJECT = auto()
    """All resources of the project of the principal."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The kinds of key that are accepted. A project key with the scope `admin` may do what any other project
    key may."""

    user: bool = False
    device: bool = False
    scope: KeyScope | None = None
    """The scope that a project key needs. None: no project key is accepted."""
    needs: str = ""
    """The accepted keys in words, if a refusal does not call them by their kinds."""

    def accept(self, caller: Principal) -> bool:
        """Whether a key of this kind, with these scopes, is accepted."""
        match caller.kind:
            case PrincipalKind.USER:
                return self.user
            case PrincipalKind.DEVICE:
                return self.device
            case PrincipalKind.PROJECT_KEY:
                return self.scope is not None and not caller.scopes.isdisjoint((self.scope, KeyScope.ADMIN))

    def require(self, caller: Principal) -> None:
        """Raise PermissionDenied, naming the accepted keys, unless `accept`."""
        if not self.accept(caller):
            raise PermissionDenied(needs=self.needs or self._kinds())

    def _kinds(self) -> str:
        kinds = ["a user's key"] * self.user + ["a device's key"] * self.device
        if self.scope is not None:
            kinds.append(f"a project key with the scope {self.scope}")
        return " or ".join(kinds) or "no key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What an action needs."""

    noun: Noun
    user: Reach = Reach.NOTHING
    device: Reach = Reach.NOTHING
    project_key: Reach = Reach.NOTHING
    keys: Keys | None = None
    """The keys that the action takes. None: the row of each REST operation says it (`rest.operation`)."""
    permission: PermissionKind | None = None
    """In a project with access by permission, a user needs it instead of a membership."""
    role: Role | None = None
    """The role that a user needs in the home. The script of the change checks it."""
    active: bool = False
    """Whether the home, or the home of the device, must not be deactivated."""
    active_at_change: bool = False
    """The same, checked by the script of the change."""

    def reach(self, kind: PrincipalKind) -> Reach:
        """The resources for a principal of this kind."""
        match kind:
            case PrincipalKind.USER:
                return self.user
            case PrincipalKind.DEVICE:
                return self.device
            case PrincipalKind.PROJECT_KEY:
                return self.project_key


def _of_home(role: Role | None = None, writes: PermissionKind | None = None) -> Rule:
    return Rule(
        noun=Noun.HOME,
        user=Reach.MEMBERSHIPS,
        project_key=Reach.PROJECT,
        role=role,
        permission=writes,
        active_at_change=writes is not None,
    )


def _of_device(writes: PermissionKind | None = None) -> Rule:
    return Rule(
        noun=Noun.DEVICE,
        user=Reach.MEMBERSHIPS,
        device=Reach.ITSELF,
        project_key=Reach.PROJECT,
        permission=writes,
        active_at_change=writes is not None,
    )


def _received(noun: Noun, permission: PermissionKind) -> Rule:
    return Rule(noun=noun, user=Reach.MEMBERSHIPS, keys=Keys(user=True), permission=permission, active=True)


RULES: Final[Mapping[Action, Rule]] = {
    Action.SEE_HOME: _of_home(),
    Action.WRITE_HOME: _of_home(writes=PermissionKind.WRITE_HOME),
    Action.CHANGE_HOME: _of_home(Role.OWNER),
    Action.DELETE_HOME: _of_home(Role.OWNER),
    Action.ADD_MEMBER: _of_home(Role.MEMBER),
    Action.ADD_OWNER: _of_home(Role.OWNER),
    Action.SET_ROLE: _of_home(Role.OWNER),
    Action.REMOVE_MEMBER: _of_home(Role.OWNER),
    Action.LEAVE_HOME: _of_home(Role.MEMBER),
    Action.SEND_HOME_EVENT: Rule(
        noun=Noun.HOME, project_key=Reach.PROJECT, keys=Keys(scope=KeyScope.SEND_EVENT), active=True
    ),
    Action.RECEIVE_HOME: _received(Noun.HOME, PermissionKind.READ_HOME_EVENTS),
    Action.SEE_DEVICE: _of_device(),
    Action.WRITE_DEVICE: _of_device(PermissionKind.WRITE_DEVICE),
    Action.SEND_DEVICE_EVENT: Rule(
        noun=Noun.DEVICE,
        device=Reach.ITSELF,
        keys=Keys(device=True, needs="the key of the device"),
        active=True,
    ),
    Action.SEND_COMMAND: Rule(
        noun=Noun.DEVICE,
        user=Reach.MEMBERSHIPS,
        project_key=Reach.PROJECT,
        keys=Keys(user=True, scope=KeyScope.SEND_COMMAND),
        permission=PermissionKind.WRITE_DEVICE,
        active=True,
    ),
    Action.RECEIVE_DEVICE: _received(Noun.DEVICE, PermissionKind.READ_DEVICE),
    Action.RECEIVE_COMMANDS: Rule(
        noun=Noun.DEVICE,
        device=Reach.ITSELF,
        keys=Keys(device=True, needs="the key of this device"),
    ),
    Action.RECEIVE_ENTITY: _received(Noun.ENTITY, PermissionKind.READ_ENTITY_EVENTS),
    Action.USE_ACCOUNT: Rule(noun=Noun.USER, user=Reach.ITSELF),
    Action.LIST_HOMES: Rule(noun=Noun.USER, user=Reach.ITSELF, project_key=Reach.PROJECT),
    Action.USE_PROJECT: Rule(noun=Noun.PROJECT, project_key=Reach.PROJECT),
}

ROLES: Final[Mapping[str, str]] = {
    action.value: rule.role.value for action, rule in RULES.items() if rule.role is not None
}
"""For the scripts of homes: the role that each action needs, by its name."""

ACTIVE: Final[Mapping[str, int]] = {
    action.value: 1 for action, rule in RULES.items() if rule.active_at_change
}
"""For the scripts of values: 1 for each action that needs an active home, by its name."""


def require_key(caller: Principal, action: Action) -> None:
    """Raise PermissionDenied unless the action takes a key like that of the caller."""
    keys = RULES[action].keys
    if keys is not None:
        keys.require(caller)
