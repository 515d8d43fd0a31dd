"""The store: repositories of typed records over Redis, one per noun."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from redis.asyncio import Redis

from homewire.auth.tokens import Principals
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.devices.provisioning import Provisioning
from homewire.devices.store import Devices
from homewire.entities.store import Entities
from homewire.events.queued_commands import QueuedCommands
from homewire.groups.store import Groups
from homewire.homes.members import Members
from homewire.homes.store import HomeCleanup, Homes
from homewire.housekeeping import CleanupJob, Housekeeping
from homewire.kv.store import KeyValues
from homewire.logins.passwords import MAX_PROJECT_WAITING, Passwords
from homewire.logins.store import Attempts, LoginTokens, NodeLogins
from homewire.permissions.store import Permissions
from homewire.presence.store import Nodes, Presence
from homewire.projects.store import Apps, ProjectKeys, Projects
from homewire.projects.usage import Recount, Usage
from homewire.sessions.activity import SessionActivity
from homewire.sessions.models import DEFAULT_LIFETIME, Lifetime
from homewire.sessions.store import Sessions
from homewire.store.accounting import NO_QUOTAS, Quotas
from homewire.store.database import Database, OutboxRelay
from homewire.users.deletion import UserDeletion
from homewire.users.registrations import DEFAULT_REGISTRATION_LIMITS, RegistrationLimits, Registrations
from homewire.users.store import Users
from homewire.users.verification import AddressChanges, Verifications
from homewire.webhooks.queue import DeliveryQueue
from homewire.webhooks.store import SmartModules

if TYPE_CHECKING:
    from homewire.settings import Settings

__all__ = ["Store"]


class Store:
    """All repositories on one client of `homewire.redis.connect`.

    Every method raises errors.Unavailable while Redis is unavailable. A change raises errors.NotConfirmed if
    it may have happened, or is not in all shards yet; any node copies it to them within a second. With
    errors.UnknownRecord, errors.Conflict, errors.InvalidInput and errors.QuotaExceeded nothing was changed.

    `relay` is an `access_changes.relay.Relay`. A user is a member of at
    most `homes_per_user` homes, and at most `ended_sessions` ended sessions of a user are stored; 0: no
    limit. Sessions expire by `lifetime`. At most `project_passwords` passwords of a project wait to be hashed
    (`logins/passwords.py`). Registrations and invitations expire by `ages`.
    """

    @classmethod
    def of(cls, redis: Redis, relay: OutboxRelay, settings: Settings, clock: Clock = MACHINE_CLOCK) -> Store:
        """The store with the settings of a deployment, for nodes and commands."""
        return cls(
            redis,
            relay,
            clock,
            homes_per_user=settings.homes_per_user,
            lifetime=Lifetime.of_seconds(settings.session_ttl_s, settings.session_absolute_s),
            ended_sessions=settings.ended_sessions,
            quotas=Quotas.of(settings),
            project_passwords=settings.project_passwords,
            ages=RegistrationLimits.of(settings),
        )

    def __init__(
        self,
        redis: Redis,
        relay: OutboxRelay,
        clock: Clock = MACHINE_CLOCK,
        *,
        homes_per_user: int = 0,
        lifetime: Lifetime = DEFAULT_LIFETIME,
        ended_sessions: int = 0,
        quotas: Quotas = NO_QUOTAS,
        project_passwords: int = MAX_PROJECT_WAITING,
        ages: RegistrationLimits = DEFAULT_REGISTRATION_LIMITS,
    ) -> None:
        self.clock: Final = clock
        self.now_ms: Final = clock.now_ms
        self._database = database = Database(redis, relay, clock, quotas)
        self.usage = Usage(database, quotas)
        self.recount = Recount(database, self.usage)
        self.refusals: Counter[str] = Counter()
        """Refused requests on this node by the name of the limit's setting."""
        self.projects = Projects(database)
        self.apps = Apps(database)
        self.project_keys = ProjectKeys(database)
        self.sessions = Sessions(database, lifetime, ended_sessions)
        self.devices = Devices(database, self.sessions)
        self.entities = Entities(database)
        self.homes = Homes(database, HomeCleanup(database, self.devices, self.entities), homes_per_user)
        self.provisioning = Provisioning(database)
        self.permissions = Permissions(database)
        self.groups = Groups(database)
        self.session_uses = SessionActivity(database)
        self.nodes = Nodes(database)
        self.queued_commands = QueuedCommands(database)
        self.presence = Presence(database, self.nodes)
        self.passwords = Passwords(project_passwords, self.refusals)
        deletion = UserDeletion(database, self.homes)
        self.registrations = Registrations(database, deletion, ages)
        self.users = Users(
            database, self.projects, deletion, self.registrations, self.sessions, self.passwords
        )
        self.address_changes = AddressChanges(database, self.sessions, self.users)
        self.members = Members(database, self.homes, self.users)
        self.verifications = Verifications(database, self.sessions, self.registrations)
        self.login_tokens = LoginTokens(database)
        self.node_logins = NodeLogins(database)
        self.attempts = Attempts(database, self.refusals)
        self.key_values = KeyValues(database)
        self.principals = Principals(database)
        self.housekeeping = Housekeeping(
            database,
            self.projects,
            self.usage,
            (
                # First: to delete a user may leave deleted homes behind.
                CleanupJob(lambda slot: slot.departing_users, self.users.sweep),
                CleanupJob(lambda slot: slot.deleted_homes, self.homes.sweep),
                CleanupJob(lambda slot: slot.deleted_groups, self.groups.sweep),
                CleanupJob(lambda slot: slot.unverified_users, self.registrations.sweep),
                CleanupJob(lambda slot: slot.invited_users, self.registrations.sweep),
            ),
        )
        self.smart_modules = SmartModules(database)
        self.module_deliveries = DeliveryQueue(database)

    async def ping(self) -> None:
        """Raise Unavailable unless Redis answers."""
        await self._database.read("PING")
