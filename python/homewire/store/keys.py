"""Every key name and lifetime of the store; nothing else builds one (the bus has its own in `bus/shards.py`).

`hw:{p<id>}:…` holds all that belongs to one project, in one slot, so that every change of several
keys is one Lua script. The deployment's own few keys are `hw:ids`, `hw:{projects}:…`, `hw:{notify}:…`
and `hw:{audit}:…`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

DAY_MS: Final = 24 * 60 * 60 * 1000
ENDED_SESSION_KEPT_MS: Final = 30 * DAY_MS
"""An ended session stays readable to its owner this long (spec 004), while it is among the newest."""

IDS: Final = "hw:ids"
"""The counter that every integer id of the deployment comes from."""
PROJECTS: Final = "hw:{projects}:live"
"""Sorted set of project ids, score = id."""
DELETED_PROJECTS: Final = "hw:{projects}:deleted"
"""Sorted set of project ids whose records still have to be swept."""
UNFINISHED: Final = "hw:{projects}:unfinished"
"""Sorted set of the ids of projects in which something deleted may still have to be swept; score = when
housekeeping is to look, in ms."""
PATROLLED: Final = "hw:{projects}:patrolled"
"""Is there while some node has looked through all projects not long ago."""
NODES: Final = "hw:{nodes}:leases"
"""Sorted set: the boot id of each node, score = the end of its lease in ms by Redis' clock; below zero
for one that is dead for good."""

_ID_DIGITS: Final = 20
"""No id is written with as many."""


def ids_among(members: Iterable[bytes]) -> list[int]:
    """The ids in a part of an index. What else somebody wrote there is none, and keeps nobody."""
    return [int(each) for each in members if each.isdigit() and len(each) < _ID_DIGITS]


def node_projects(boot_id: str) -> str:
    """Set: the projects in which a node holds, or held, devices."""
    return f"hw:{{nodes}}:projects:{boot_id}"


MESSAGES_KEPT: Final = "hw:{notify}:kept"
"""Stream: sealed messages that no sender takes, for `homewire messages`. It has a TTL."""


def message_queue(channel: str) -> str:
    """Stream: sealed messages that "mail" or "sms" is to carry."""
    return f"hw:{{notify}}:{channel}"


def messages_waiting(channel: str) -> str:
    """Sorted set: messages that could not be carried, score = when they are tried again, in ms."""
    return f"hw:{{notify}}:{channel}:waiting"


def messages_copied(project_id: int) -> str:
    """The places in the project's outbox that were copied to the queues of messages last. It has a TTL."""
    return f"hw:{{notify}}:copied:{project_id}"


def messages_dead(channel: str) -> str:
    """Stream: messages that are not tried any more, and why. Bounded; it has a TTL."""
    return f"hw:{{notify}}:{channel}:dead"


COMMANDS_AUDITED: Final = "hw:{audit}:commands"
"""Stream: what commands changed, for `homewire audit`. Bounded."""
MODULE_VERSION: Final = "hw:{modules}:version"
"""Counts the changes of smart modules in the whole deployment: one look tells that nothing changed."""
MODULE_PROJECTS: Final = "hw:{modules}:projects"
"""Hash: project that has (or had, or is about to get) smart modules → `MODULE_VERSION` at its last change."""
MODULES_WAITING: Final = "hw:{modules}:waiting"
"""Sorted set: `<project id>:<module id>` for which deliveries may wait, score = since when, in ms of Redis'
clock."""


class ProjectSlot:
    """The key names of one project. Indexes are sorted sets with the id as member and as score.

    Ids come from INCR and stay far below 2^53, so a score (a double) holds them exactly and a range
    of scores is a stable page under concurrent change.
    """

    __slots__ = ("prefix", "project_id")

    def __init__(self, project_id: int) -> None:
        self.project_id: Final = project_id
        self.prefix: Final = f"hw:{{p{project_id}}}:"

    @property
    def project(self) -> str:
        """Hash: the project itself. `state` is live, disabled or deleted; removed last."""
        return self.prefix + "project"

    @property
    def outbox(self) -> str:
        """Stream: the changes that every node must hear, until they are relayed to the shards."""
        return self.prefix + "outbox"

    @property
    def usage(self) -> str:
        """Hash: `<owner>:bytes` and `<owner>:records` of what is stored, and `<home>:payer`; owner is
        "project", or as in `accounting.lua`."""
        return self.prefix + "usage"

    @property
    def expiring(self) -> str:
        """Sorted set: charges that end by themselves, score = when, in ms of Redis' clock."""
        return self.prefix + "expiring"

    @property
    def apps(self) -> str:
        """Hash: appId → creation time in ms."""
        return self.prefix + "apps"

    @property
    def users(self) -> str:
        """Index of the ids of registered users."""
        return self.prefix + "users"

    @property
    def emails(self) -> str:
        """Hash: lower-case e-mail address → user id; what makes an address unique."""
        return self.prefix + "emails"

    @property
    def phones(self) -> str:
        """Hash: E.164 number → user id."""
        return self.prefix + "phones"

    @property
    def unverified_users(self) -> str:
        """Sorted set: users who registered themselves and verified no address, score = since when in ms."""
        return self.prefix + "unverified"

    @property
    def invited_users(self) -> str:
        """Sorted set: users who exist because they were added to a home, score = since when in ms."""
        return self.prefix + "invited"

    @property
    def external_keys(self) -> str:
        """Hash: external key of a BYOU user → user id."""
        return self.prefix + "externals"

    @property
    def departing_users(self) -> str:
        """Index of deleted users who still stand in the member lists of homes."""
        return self.prefix + "departing"

    @property
    def homes(self) -> str:
        """Index of home ids."""
        return self.prefix + "homes"

    @property
    def deleted_homes(self) -> str:
        """Index of deleted homes whose members and devices still have to be swept."""
        return self.prefix + "homes_deleted"

    @property
    def devices(self) -> str:
        """Index of device ids."""
        return self.prefix + "devices"

    @property
    def device_places(self) -> str:
        """Hash: device id → `<home id or 0> <deviceClass>`: where a thousand devices are, in one HMGET."""
        return self.prefix + "places"

    @property
    def claim_codes(self) -> str:
        """Hash: claim code → device id."""
        return self.prefix + "claims"

    @property
    def entities(self) -> str:
        """Hash: entity id → JSON of what it is."""
        return self.prefix + "entities"

    @property
    def entity_places(self) -> str:
        """Hash: entity id → `<home id> <number of children> <id of its parent, or nothing>`."""
        return self.prefix + "entity_places"

    @property
    def entity_ids(self) -> str:
        """Sorted set, all scores 0: the ids of `entities`, in the order of their bytes."""
        return self.prefix + "entity_ids"

    @property
    def sessions(self) -> str:
        """Sorted set: live session ids of the project, score = start in ms. Some that expired
        stay until they are come across."""
        return self.prefix + "sessions"

    @property
    def project_keys(self) -> str:
        """Index of project key ids."""
        return self.prefix + "project_keys"

    def key(self, token_hash: str) -> str:
        """Hash: who a key speaks for, found by the SHA-256 (hex) of its token."""
        return f"{self.prefix}key:{token_hash}"

    def user(self, user_id: int) -> str:
        """Hash: a user."""
        return f"{self.prefix}user:{user_id}"

    def user_registrations(self, user_id: int) -> str:
        """Sorted set: registrations of an e-mail address that nobody verified (`scripts/registrations.py`).
        It has a TTL."""
        return f"{self.prefix}user:{user_id}:registrations"

    def user_homes(self, user_id: int) -> str:
        """Index of the homes that a user is a member of; the other side of `home_members`."""
        return f"{self.prefix}user:{user_id}:homes"

    def user_pending(self, user_id: int) -> str:
        """Index of those of `user_homes` that a stranger added the user to, as long as the user has not
        accepted."""
        return f"{self.prefix}user:{user_id}:pending"

    def user_left(self, user_id: int) -> str:
        """Sorted set: homes that a user left lately, score = until when no other member adds the user again,
        in ms. It has a TTL."""
        return f"{self.prefix}user:{user_id}:left"

    def user_permissions(self, user_id: int) -> str:
        """Hash: right → how many sources a user has it from: a grant of their own, and each group with it."""
        return f"{self.prefix}user:{user_id}:rights"

    def user_grants(self, user_id: int) -> str:
        """Sorted set, all scores 0: the rights that were granted to a user themselves."""
        return f"{self.prefix}user:{user_id}:grants"

    def user_groups(self, user_id: int) -> str:
        """Index of the groups that a user is in; the other side of `group_members`."""
        return f"{self.prefix}user:{user_id}:groups"

    @property
    def groups(self) -> str:
        """Index of the ids of groups of users."""
        return self.prefix + "groups"

    @property
    def deleted_groups(self) -> str:
        """Index of deleted groups whose members still have what they had from it."""
        return self.prefix + "groups_deleted"

    def group(self, group_id: int) -> str:
        """Hash: a group of users."""
        return f"{self.prefix}group:{group_id}"

    def group_members(self, group_id: int) -> str:
        """Index of the users in a group."""
        return f"{self.prefix}group:{group_id}:members"

    def group_permissions(self, group_id: int) -> str:
        """Sorted set, all scores 0: the rights that everybody in a group has."""
        return f"{self.prefix}group:{group_id}:rights"

    def user_sessions(self, user_id: int) -> str:
        """Sorted set: live session ids of a user, score = expiry in ms."""
        return f"{self.prefix}user:{user_id}:sessions"

    def user_derived(self, user_id: int) -> str:
        """Hash: id of a live session that was made with the key of another one → the ids of the sessions
        whose keys led to it, the first login first. What expired stays until the user's next login."""
        return f"{self.prefix}user:{user_id}:derived"

    def user_proofs(self, user_id: int) -> str:
        """Hash: what a user can prove with that an address is theirs: by kind the hash of the newest token
        (`proof`), and the sign-in code with its end and its wrong tries. Gone with the last of them."""
        return f"{self.prefix}user:{user_id}:proofs"

    def proof(self, token_hash: str) -> str:
        """`<kind> <user id>`: what a token that was sent to somebody proves. Lives as long as the token."""
        return f"{self.prefix}proof:{token_hash}"

    def user_login_tokens(self, user_id: int) -> str:
        """Sorted set: the hashes of a user's login tokens, score = expiry in ms. It has a TTL."""
        return f"{self.prefix}user:{user_id}:login_tokens"

    def attempts(self, kind: str, whose: str) -> str:
        """Hash with a TTL: how often something was wrong in the running window, of an address or an account.
        `whose` is a hash, because names of keys are shown to many."""
        return f"{self.prefix}attempts:{kind}:{whose}"

    def known_networks(self, account: str) -> str:
        """Sorted set with a TTL: the networks where an account logged in last, score = when in ms of Redis'
        clock. `account` is a hash, and so are they."""
        return f"{self.prefix}known:{account}"

    def attempt_leases(self, kind: str, whose: str) -> str:
        """Sorted set with a TTL: ids of attempts that have no verdict yet, score = the end of their lease in
        ms of Redis' clock."""
        return f"{self.prefix}attempts:{kind}:{whose}:leases"

    def user_ended_keys(self, user_id: int) -> str:
        """Sorted set: the first 16 hex digits of the user's keys that ended lately, score = when in ms. It
        has a TTL."""
        return f"{self.prefix}user:{user_id}:ended"

    def session(self, session_id: str) -> str:
        """Hash: a session, live or ended."""
        return f"{self.prefix}session:{session_id}"

    def session_leases(self, session_id: str) -> str:
        """Sorted set: requests that keep a session from being ended, score = until when, in ms of
        Redis' clock. It has a TTL."""
        return f"{self.prefix}session:{session_id}:leases"

    def home(self, home_id: int) -> str:
        """Hash: a home; `owners` counts the members whose role is owner."""
        return f"{self.prefix}home:{home_id}"

    def home_members(self, home_id: int) -> str:
        """Hash: user id → `<role> <since ms>`, and what the inviter typed as long as the user has not
        accepted."""
        return f"{self.prefix}home:{home_id}:members"

    def home_devices(self, home_id: int) -> str:
        """Index of the devices of a home."""
        return f"{self.prefix}home:{home_id}:devices"

    def home_entities(self, home_id: int) -> str:
        """The same as `entity_ids`, of the entities of one home."""
        return f"{self.prefix}home:{home_id}:entities"

    def values(self, owner: str, owner_id: int) -> str:
        """Hash: key → `<modified ms> <value>`, of a home or device (`owner` is "home" or "device").

        `_bytes`, which is no possible key, has the sum of their lengths."""
        return f"{self.prefix}{owner}:{owner_id}:values"

    def value_keys(self, owner: str, owner_id: int) -> str:
        """Sorted set, all scores 0: the keys of `values`, in the order of their bytes."""
        return f"{self.prefix}{owner}:{owner_id}:value_keys"

    def device(self, device_id: int) -> str:
        """Hash: a device; `key` is the hash of its one key."""
        return f"{self.prefix}device:{device_id}"

    def user_ended_sessions(self, user_id: int) -> str:
        """Sorted set: ids of a user's sessions that are over and still readable, score = since when in ms. It
        has a TTL."""
        return f"{self.prefix}user:{user_id}:ended_sessions"

    def device_ended_sessions(self, device_id: int) -> str:
        """The same of a device."""
        return f"{self.prefix}device:{device_id}:ended_sessions"

    def device_sessions(self, device_id: int) -> str:
        """Sorted set: live ids of the node sessions of a device, score = expiry in ms."""
        return f"{self.prefix}device:{device_id}:sessions"

    def device_belongings(self, device_id: int) -> tuple[str, ...]:
        """What a device has only as long as it is in its home, and what goes when it leaves."""
        return (
            self.values("device", device_id), self.value_keys("device", device_id),
            self.device_commands(device_id), self.device_command_ends(device_id),
        )  # fmt: skip

    def provisioning(self, token_hash: str) -> str:
        """Hash: what a provisioning token stands for, found by its SHA-256 (hex), until it expires."""
        return f"{self.prefix}provisioning:{token_hash}"

    def device_presence(self, device_id: int) -> str:
        """Hash: which nodes hold a device's command sockets, when it came and went, and its last ticket. It
        goes with the device, and stays when the device leaves its home."""
        return f"{self.prefix}device:{device_id}:presence"

    def device_commands(self, device_id: int) -> str:
        """Hash: number → envelope of a command that waits for a device; `bytes` is their sum."""
        return f"{self.prefix}device:{device_id}:commands"

    def device_command_ends(self, device_id: int) -> str:
        """Sorted set: the numbers of `device_commands`, score = when the command expires, in ms."""
        return f"{self.prefix}device:{device_id}:command_ends"

    def request(self, scope: str) -> str:
        """String: the fingerprint of a request, found by the scope of its Idempotency-Key."""
        return f"{self.prefix}request:{scope}"

    def node_devices(self, boot_id: str) -> str:
        """Index of the devices that a node holds command sockets of."""
        return f"{self.prefix}holder:{boot_id}"

    def project_key(self, key_id: int) -> str:
        """Hash: a project key; `key` is the hash of its token."""
        return f"{self.prefix}project_key:{key_id}"

    @property
    def smart_modules(self) -> str:
        """Sorted set, all scores 0: the ids of smart modules, in the order of their bytes."""
        return self.prefix + "modules"

    def smart_module(self, module_id: str) -> str:
        """Hash: a smart module; URL and key are sealed."""
        return f"{self.prefix}module:{module_id}"

    def module_deliveries(self, module_id: str) -> str:
        """Stream: what is to be delivered to a smart module: `i`, the event's id, and `e`, its envelope."""
        return f"{self.prefix}module:{module_id}:deliveries"

    def module_tries(self, module_id: str) -> str:
        """Hash: entry of `module_deliveries` → how often it was tried in vain."""
        return f"{self.prefix}module:{module_id}:tries"

    def module_dead(self, module_id: str) -> str:
        """Stream: deliveries that were given up: also `r`, why, and `t`, after how many tries."""
        return f"{self.prefix}module:{module_id}:dead"

    def module_worker(self, module_id: str) -> str:
        """String with a TTL: the node that delivers to a smart module now."""
        return f"{self.prefix}module:{module_id}:worker"
