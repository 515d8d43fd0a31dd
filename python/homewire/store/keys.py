"""All key names and lifetimes of the store. The bus has its own in `bus/shards.py`.

The keys `hw:{p<id>}:…` of one project are in one slot, so that every change of several keys is one Lua
script. Keys of the deployment are `hw:ids`, `hw:{projects}:…`, `hw:{nodes}:…`, `hw:{modules}:…`,
`hw:{notify}:…` and `hw:{audit}:…`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

DAY_MS: Final = 24 * 60 * 60 * 1000
ENDED_SESSION_TTL_MS: Final = 30 * DAY_MS
"""An ended session stays readable to its owner this long (spec 004), while it is among the newest."""

IDS: Final = "hw:ids"
"""The counter that every integer id of the deployment comes from."""
PROJECTS: Final = "hw:{projects}:live"
"""Sorted set of project ids, score = id."""
DELETED_PROJECTS: Final = "hw:{projects}:deleted"
"""Sorted set of the ids of deleted projects whose records are not swept yet."""
UNFINISHED: Final = "hw:{projects}:unfinished"
"""Sorted set of the ids of projects in which a deletion may be unfinished; score = when housekeeping checks,
in ms."""
PATROLLED: Final = "hw:{projects}:patrolled"
"""Exists after a node checked all projects. It has a TTL."""
NODES: Final = "hw:{nodes}:leases"
"""Sorted set: the boot id of each node, score = the end of its lease in ms by Redis' clock; below zero
for a node that was declared dead."""

_ID_DIGITS: Final = 20
"""More digits than an id has."""


def ids_among(members: Iterable[bytes]) -> list[int]:
    """The ids among members of an index. Foreign members are ignored."""
    return [int(each) for each in members if each.isdigit() and len(each) < _ID_DIGITS]


def node_projects(boot_id: str) -> str:
    """Set: the projects whose devices are, or were, connected to a node."""
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
"""Stream: changes by commands, for `homewire audit`. Bounded."""
MODULE_VERSION: Final = "hw:{modules}:version"
"""Counts the changes of smart modules in the deployment, so that one read shows whether there were any."""
MODULE_PROJECTS: Final = "hw:{modules}:projects"
"""Hash: project that has (or had, or is about to get) smart modules → `MODULE_VERSION` at its last change."""
MODULES_WAITING: Final = "hw:{modules}:waiting"
"""Sorted set: `<project id>:<module id>` with waiting deliveries, score = when it was noted, in ms of Redis'
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
        """Stream: the transactional outbox, whose entries the relay copies to the shards."""
        return self.prefix + "outbox"

    @property
    def usage(self) -> str:
        """Hash: `<owner>:bytes` and `<owner>:records` of stored records, and `<home>:payer`; owner is
        "project", or as in `accounting.py`."""
        return self.prefix + "usage"

    @property
    def expiring(self) -> str:
        """Sorted set: charges with an end, score = the end in ms of Redis' clock."""
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
        """Hash: lower-case e-mail address → user id. It makes addresses unique."""
        return self.prefix + "emails"

    @property
    def phones(self) -> str:
        """Hash: E.164 number → user id."""
        return self.prefix + "phones"

    @property
    def unverified_users(self) -> str:
        """Sorted set: users who registered and verified no address, score = the time in ms."""
        return self.prefix + "unverified"

    @property
    def invited_users(self) -> str:
        """Sorted set: invited users, who have not registered, score = the time of the invitation in ms."""
        return self.prefix + "invited"

    @property
    def external_keys(self) -> str:
        """Hash: external key of a BYOU user → user id."""
        return self.prefix + "externals"

    @property
    def departing_users(self) -> str:
        """Index of deleted users who are still in member lists of homes."""
        return self.prefix + "departing"

    @property
    def homes(self) -> str:
        """Index of home ids."""
        return self.prefix + "homes"

    @property
    def deleted_homes(self) -> str:
        """Index of deleted homes whose members and devices are not swept yet."""
        return self.prefix + "homes_deleted"

    @property
    def devices(self) -> str:
        """Index of device ids."""
        return self.prefix + "devices"

    @property
    def device_places(self) -> str:
        """Hash: device id → `<home id or 0> <deviceClass>`. One HMGET locates 1,000 devices."""
        return self.prefix + "places"

    @property
    def claim_codes(self) -> str:
        """Hash: claim code → device id."""
        return self.prefix + "claims"

    @property
    def entities(self) -> str:
        """Hash: entity id → JSON of its record."""
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
        """Sorted set: live session ids of the project, score = start in ms.

        Expired ones stay until they are read.
        """
        return self.prefix + "sessions"

    @property
    def project_keys(self) -> str:
        """Index of project key ids."""
        return self.prefix + "project_keys"

    def key(self, token_hash: str) -> str:
        """Hash: the principal of a key, found by the SHA-256 (hex) of its token."""
        return f"{self.prefix}key:{token_hash}"

    def user(self, user_id: int) -> str:
        """Hash: a user."""
        return f"{self.prefix}user:{user_id}"

    def user_registrations(self, user_id: int) -> str:
        """Sorted set: unverified registrations of an e-mail address (`users/registrations.py`).
        It has a TTL."""
        return f"{self.prefix}user:{user_id}:registrations"

    def user_homes(self, user_id: int) -> str:
        """Index of the homes that a user is a member of; the other side of `home_members`."""
        return f"{self.prefix}user:{user_id}:homes"

    def user_pending(self, user_id: int) -> str:
        """Index of the homes in `user_homes` whose invitation the user has not accepted."""
        return f"{self.prefix}user:{user_id}:pending"

    def user_left(self, user_id: int) -> str:
        """Sorted set: homes that a user left, score = until when other members cannot add the user again, in
        ms. It has a TTL."""
        return f"{self.prefix}user:{user_id}:left"

    def user_permissions(self, user_id: int) -> str:
        """Hash: permission → number of its sources: a grant to the user, and each group with it."""
        return f"{self.prefix}user:{user_id}:rights"

    def user_grants(self, user_id: int) -> str:
        """Sorted set, all scores 0: the permissions that were granted to the user."""
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
        """Index of deleted groups whose permissions are not revoked yet."""
        return self.prefix + "groups_deleted"

    def group(self, group_id: int) -> str:
        """Hash: a group of users."""
        return f"{self.prefix}group:{group_id}"

    def group_members(self, group_id: int) -> str:
        """Index of the users in a group."""
        return f"{self.prefix}group:{group_id}:members"

    def group_permissions(self, group_id: int) -> str:
        """Sorted set, all scores 0: the permissions of a group."""
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
        """String: `<kind> <user id>` of a token that was sent to a user. Its TTL is that of the token."""
        return f"{self.prefix}proof:{token_hash}"

    def user_login_tokens(self, user_id: int) -> str:
        """Sorted set: the hashes of a user's login tokens, score = expiry in ms. It has a TTL."""
        return f"{self.prefix}user:{user_id}:login_tokens"

    def attempts(self, kind: str, subject: str) -> str:
        """Hash with a TTL: failed attempts of an address or account in the current window.

        `subject` is a hash, because operators see names of keys.
        """
        return f"{self.prefix}attempts:{kind}:{subject}"

    def known_networks(self, account: str) -> str:
        """Sorted set with a TTL: the networks where an account logged in last, score = when in ms of Redis'
        clock. `account` is a hash, and so are they."""
        return f"{self.prefix}known:{account}"

    def attempt_leases(self, kind: str, subject: str) -> str:
        """Sorted set with a TTL: ids of attempts without a result, score = the end of their lease in ms."""
        return f"{self.prefix}attempts:{kind}:{subject}:leases"

    def user_ended_keys(self, user_id: int) -> str:
        """Sorted set: the first 16 hex digits of the user's keys that ended lately, score = when in ms. It
        has a TTL."""
        return f"{self.prefix}user:{user_id}:ended"

    def session(self, session_id: str) -> str:
        """Hash: a session, live or ended."""
        return f"{self.prefix}session:{session_id}"

    def session_leases(self, session_id: str) -> str:
        """Sorted set: requests in progress that delay the end of a session, score = until when, in ms of
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
        """Sorted set: `entity_ids` of one home."""
        return f"{self.prefix}home:{home_id}:entities"

    def values(self, owner: str, owner_id: int) -> str:
        """Hash: key → `<modified ms> <value>`, of a home or device (`owner` is "home" or "device").

        `_bytes`, which is not a valid key, has the sum of their lengths."""
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
        """Sorted set: `user_ended_sessions` of a device."""
        return f"{self.prefix}device:{device_id}:ended_sessions"

    def device_sessions(self, device_id: int) -> str:
        """Sorted set: live ids of the node sessions of a device, score = expiry in ms."""
        return f"{self.prefix}device:{device_id}:sessions"

    def device_belongings(self, device_id: int) -> tuple[str, ...]:
        """The records that a device has only in its home. They are deleted when it leaves."""
        return (
            self.values("device", device_id), self.value_keys("device", device_id),
            self.device_commands(device_id), self.device_command_ends(device_id),
        )  # fmt: skip

    def provisioning(self, token_hash: str) -> str:
        """Hash: the record of a provisioning token, found by its SHA-256 (hex). It has a TTL."""
        return f"{self.prefix}provisioning:{token_hash}"

    def device_presence(self, device_id: int) -> str:
        """Hash: the nodes with command sockets of a device, when it connected and disconnected, and the last
        sequence number of its commands. It stays when the device leaves its home."""
        return f"{self.prefix}device:{device_id}:presence"

    def device_commands(self, device_id: int) -> str:
        """Hash: sequence number → envelope of a queued command; `bytes` is their sum."""
        return f"{self.prefix}device:{device_id}:commands"

    def device_command_ends(self, device_id: int) -> str:
        """Sorted set: the sequence numbers of `device_commands`, score = the expiry of the command in ms."""
        return f"{self.prefix}device:{device_id}:command_ends"

    def request(self, scope: str) -> str:
        """String: the fingerprint of a request, found by the scope of its Idempotency-Key."""
        return f"{self.prefix}request:{scope}"

    def node_devices(self, boot_id: str) -> str:
        """Index of the devices with command sockets on a node."""
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
        """Stream: deliveries to a smart module: `i`, the event's id, and `e`, its envelope."""
        return f"{self.prefix}module:{module_id}:deliveries"

    def module_tries(self, module_id: str) -> str:
        """Hash: entry of `module_deliveries` → number of failed tries."""
        return f"{self.prefix}module:{module_id}:tries"

    def module_dead(self, module_id: str) -> str:
        """Stream: dead letters: also `r`, the reason, and `t`, the number of tries."""
        return f"{self.prefix}module:{module_id}:dead"

    def module_worker(self, module_id: str) -> str:
        """String with a TTL: the node that delivers to a smart module."""
        return f"{self.prefix}module:{module_id}:worker"
