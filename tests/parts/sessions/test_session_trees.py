"""Sessions that were made with the key of another one: they live no longer than it may, and end with it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from homewire.access_changes.relay import Relay
from homewire.errors import Conflict, UnknownRecord
from homewire.projects.models import AccountSystem, Project
from homewire.repositories import Store
from homewire.sessions.activity import SessionUse
from homewire.sessions.models import MAX_DEPTH, ClientInfo, Lifetime, Session
from homewire.sessions.store import MAX_ALL_DERIVED, MAX_DERIVED, MAX_SESSIONS
from homewire.store.keys import ProjectSlot
from homewire.users.models import User
from kit.manual_clock import ManualClock

SLIDES_MS, ABSOLUTE_MS = 60_000, 80_000

Opened = tuple[Session, str]


@pytest.fixture
async def project(store: Store) -> Project:
    return await store.projects.create("trees", AccountSystem.PHONE)


@pytest.fixture
async def user(store: Store, project: Project) -> User:
    return await store.users.create(project.id, "Ada", phone="+14155550123")


async def opened(store: Store, user: User, parent: Session | None = None) -> Opened:
    """A session of a login, or of a parent's key."""
    return await store.sessions.open(user.project_id, user.id, "app", ClientInfo(), parent=parent)


async def is_live(store: Store, key: str) -> bool:
    return await store.principals.lookup(key) is not None


@dataclass
class Known:
    """A session as the model has it."""

    session: Session
    key: str
    ancestors: list[Known]
    expires_ms: int
    last_ms: int
    ended: bool = False

    @property
    def may_live_until(self) -> int:
        root = self.ancestors[0] if self.ancestors else self
        return root.session.started_ms + ABSOLUTE_MS


@dataclass
class SessionTree:
    """The store with a clock of its own, and what should be in it."""

    redis: Redis
    user: User
    clock: ManualClock = field(default_factory=ManualClock)
    sessions: list[Known] = field(default_factory=list)

    def __post_init__(self) -> None:
        relay, lifetime = Relay(self.redis, 64), Lifetime(SLIDES_MS, ABSOLUTE_MS)
        self.store = Store(self.redis, relay, clock=self.clock, lifetime=lifetime)

    def live(self, known: Known) -> bool:
        return not known.ended and known.expires_ms > self.clock.ms

    def end(self, ended: Known) -> None:
        for known in self.sessions:
            if known is ended or ended in known.ancestors:
                known.ended = True

    async def do(self, operation: tuple[str, int]) -> None:
        name, number = operation
        if name == "wait":
            self.clock.turn(number)
        elif name == "log in":
            await self._open(None)
        elif self.sessions:
            await self._do_with(name, self.sessions[number % len(self.sessions)])

    async def _open(self, parent: Known | None) -> None:
        try:
            session, key = await opened(self.store, self.user, parent.session if parent else None)
        except Conflict:
            assert parent is not None
            assert len(parent.ancestors) == MAX_DEPTH
        except UnknownRecord:
            assert parent is not None
            assert not self.live(parent)
        else:
            assert parent is None or self.live(parent)
            ancestors = [*parent.ancestors, parent] if parent else []
            made = Known(session, key, ancestors, 0, self.clock.ms)
            made.expires_ms = min(self.clock.ms + SLIDES_MS, made.may_live_until)
            self.sessions.append(made)

    async def _do_with(self, name: str, known: Known) -> None:
        store, project, session = self.store, self.user.project_id, known.session
        if name == "log in with key":
            await self._open(known)
        elif name == "use":
            use = SessionUse(session.id, self.user.id, 0, session.key_hash, self.clock.ms)
            await store.session_uses.touch(project, [use])
            # Noted four times in its life, at most; what is over stays so.
            if self.live(known) and self.clock.ms - known.last_ms >= SLIDES_MS // 4:
                known.last_ms = self.clock.ms
                known.expires_ms = min(self.clock.ms + SLIDES_MS, known.may_live_until)
        elif name == "end":
            if self.live(known):
                await store.sessions.end(project, session.id)
                self.end(known)
            else:
                with pytest.raises(UnknownRecord):
                    await store.sessions.end(project, session.id)
        else:
            except_id = session.id if name == "end the others" else ""
            await store.sessions.end_all(project, self.user.id, except_id=except_id)
            for each in self.sessions:
                if self.live(each) and each.session.id != except_id:
                    self.end(each)
            assert not [each for each in self.sessions if self.live(each) and each.session.id != except_id]

    async def check(self) -> None:
        keys = await asyncio.gather(*(is_live(self.store, known.key) for known in self.sessions))
        assert keys == [self.live(known) for known in self.sessions]
        for known, alive in zip(self.sessions, keys, strict=True):
            assert not alive or self.clock.ms < known.may_live_until
        listed = {each.id for each in await self.store.sessions.of_user(self.user.project_id, self.user.id)}
        assert listed == {known.session.id for known in self.sessions if self.live(known)}


OPERATIONS = st.tuples(
    st.sampled_from(
        ("log in", *("log in with key", "wait", "use") * 3, *("end",) * 2, "end the others", "end all")
    ),
    st.integers(0, 59),
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    print_blob=True,
)
@given(operations=st.lists(OPERATIONS, min_size=4, max_size=30))
async def test_no_sequence_outlives_the_login_and_nothing_survives_end_all(
    redis_client: Redis, store: Store, project: Project, operations: list[tuple[str, int]]
) -> None:
    number = await redis_client.incr("phones of this test")
    user = await store.users.create(project.id, "Ada", phone=f"+1415555{number:04}")
    tree = SessionTree(redis_client, user)
    for operation in [("log in", 0), ("log in with key", 0), *operations]:
        await tree.do(operation)
        await tree.check()
    tree.clock.turn(60)
    await tree.check()


async def test_chain_of_keys_ends_with_any_of_its_links(store: Store, user: User) -> None:
    chain = [await opened(store, user)]
    for _ in range(MAX_DEPTH):
        chain.append(await opened(store, user, chain[-1][0]))
    with pytest.raises(Conflict, match="keys would lead"):
        await opened(store, user, chain[-1][0])
    await store.sessions.end(user.project_id, chain[2][0].id)
    assert [await is_live(store, key) for _, key in chain] == [True, True, False, False, False]
    with pytest.raises(UnknownRecord):
        await opened(store, user, chain[2][0])


async def test_one_of_another_user_is_no_parent(store: Store, project: Project, user: User) -> None:
    other = await store.users.create(project.id, "Bob", phone="+14155550124")
    session, _ = await opened(store, other)
    with pytest.raises(UnknownRecord):
        await opened(store, user, session)


async def test_child_sessions_evict_child_sessions_only(store: Store, user: User) -> None:
    first, second = await opened(store, user), await opened(store, user)
    others = [await opened(store, user, second[0]) for _ in range(3)]
    made = [await opened(store, user, first[0]) for _ in range(MAX_DERIVED + 1)]
    assert all([await is_live(store, key) for _, key in (first, second, *others)])
    assert sum([await is_live(store, key) for _, key in made]) == MAX_DERIVED
    assert await is_live(store, made[-1][1])


async def test_user_has_so_many_that_keys_made(store: Store, user: User) -> None:
    logins = [await opened(store, user) for _ in range(MAX_ALL_DERIVED // MAX_DERIVED + 1)]
    for session, _ in logins:
        for _ in range(MAX_DERIVED):
            await opened(store, user, session)
    assert all([await is_live(store, key) for _, key in logins])
    live = await store.sessions.of_user(user.project_id, user.id)
    assert sum(1 for session in live if session.ancestors) == MAX_ALL_DERIVED


async def test_login_has_room_beside_child_sessions(
    store: Store, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homewire.sessions.store.MAX_SESSIONS", 4)
    logins = [await opened(store, user) for _ in range(3)]
    made = await opened(store, user, logins[0][0])
    logins.append(await opened(store, user))
    assert not await is_live(store, made[1])
    assert all([await is_live(store, key) for _, key in logins])
    # And the key of a login finds none beside logins alone.
    with pytest.raises(Conflict) as refused:
        await opened(store, user, logins[0][0])
    assert refused.value.reason == "TOO_MANY_SESSIONS"
    assert all([await is_live(store, key) for _, key in logins])
    assert MAX_ALL_DERIVED < MAX_SESSIONS


async def test_nothing_that_a_key_makes_meanwhile_survives_its_end(
    redis_client: Redis, store: Store, user: User
) -> None:
    root, _ = await opened(store, user)
    made: list[Opened] = []
    some = asyncio.Event()

    async def go_on() -> None:
        while True:
            try:
                made.append(await opened(store, user, made[-1][0] if len(made) % 3 == 1 else root))
                if len(made) >= 6:
                    some.set()
            except (UnknownRecord, Conflict):
                if not store.sessions.is_live((await store.sessions.get(user.project_id, root.id)) or root):
                    return

    async def end() -> None:
        await some.wait()
        while True:
            try:
                await store.sessions.end(user.project_id, root.id)
            except Conflict:
                # Outrun ten times.
                continue
            return

    await asyncio.gather(go_on(), go_on(), end())
    assert not [key for _, key in made if await is_live(store, key)]
    slot = ProjectSlot(user.project_id)
    assert not await redis_client.exists(slot.user_sessions(user.id), slot.user_derived(user.id))


async def test_they_go_with_their_user(redis_client: Redis, store: Store, user: User) -> None:
    session, _ = await opened(store, user)
    _, key = await opened(store, user, session)
    await store.users.delete(user.project_id, user.id)
    assert not await is_live(store, key)
    assert not await redis_client.exists(ProjectSlot(user.project_id).user_derived(user.id))
