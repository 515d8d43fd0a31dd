"""Deliveries over random interleavings on two nodes and one Redis, against a simple model.

`HOMEWIRE_SEED=n` replays one plan. The long form (`make test-model`) takes `HOMEWIRE_SEEDS` new plans.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator
from itertools import count
from random import Random
from time import monotonic

import pytest
from delivery_judge import Judge
from delivery_model import NOWHERE, Filter, Key, Kind
from delivery_nodes import DeliveryRun
from delivery_permission_plan import permission_plan
from delivery_plan import NODES, plan
from delivery_steps import Connect, Item, Plan, Round, Send, SendMany, Track
from delivery_with_permissions import worlds

from kit.two_nodes import Pair, Processes, pair_of, running_pair

FIXED_SEEDS = (1, 2, 3)
NEW_SEEDS = 2
FEWER = 1
DEFAULT_SEEDS = 200
"""Of the long form."""
LONGEST_S = 4 * 3600
NEIGHBOUR = 1_000_000
"""Numbers of events of the project in which nothing ever changes begin here."""


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with running_pair() as started:
        yield started


def seeds(new: int = NEW_SEEDS) -> list[int]:
    """Those of the short form: the same ones each time, and so many new ones."""
    if wanted := os.environ.get("HOMEWIRE_SEED"):
        return [int(wanted)]
    return [*FIXED_SEEDS, *(secrets.randbelow(10**9) for _ in range(new))]


def neighbour(plan: Plan) -> Plan:
    """Another project, in which nothing changes: its listeners receive every event."""
    random, numbers = Random(plan.seed), count(NEIGHBOUR)
    filters = [Filter(Kind.ALL), Filter(Kind.HOMES, (0, 1)), Filter(Kind.DEVICES, (0,))]
    arrivals: list[Track] = [
        (Connect(node * len(filters) + at, node, Key(False, 0, 0), wanted),)
        for node in range(NODES)
        for at, wanted in enumerate(filters)
    ]

    def item() -> Item:
        if random.random() < 0.3:
            return Item(next(numbers), NOWHERE, 0, None)
        return Item(next(numbers), random.randrange(2), None, None)

    def beside(stopped: int | None) -> Round:
        node, other = random.sample(range(NODES), 2) if stopped is None else [1 - stopped] * 2
        return Round(((Send(node, item()), Send(other, item()), SendMany(node, (item(), item()))),), stopped)

    rounds = (Round(tuple(arrivals)), *(beside(each.stopped) for each in plan.rounds[1:]))
    return Plan(plan.seed, ((0, 0), (0, 1)), (0,), rounds)


async def play(plans: list[Plan], pair: Pair) -> list[str]:
    """Carry the plans out side by side, round by round; the complaints."""
    async with worlds(plans, pair) as made:
        for rounds in zip(*(each.rounds for each in plans), strict=True):
            with pair.stop(rounds[0].stopped):
                async with asyncio.TaskGroup() as group:
                    for run, each in zip(made, rounds, strict=True):
                        group.create_task(run.act(each.tracks))
            for run in made:
                await run.settle()
        for run in made:
            await run.finish()
        return [complaint for run in made for complaint in authorize_with_fresh_location(run, pair)]


def authorize_with_fresh_location(run: DeliveryRun, pair: Pair) -> list[str]:
    assured = {name: seat.assured for name, seat in run.seats.items()}
    judge = Judge(run.truth, run.listeners, run.events, assured, monotonic(), pair.absences)
    return run.complaints + judge.complaints()


async def trouble(made: Plan, processes: Processes) -> str:
    """Carry out this plan; what was wrong with it, with all that is needed to look into it."""
    async with pair_of(processes) as pair:
        complaints = await play([made, neighbour(made)], pair)
    return "\n".join([*complaints, str(made), f"Again: HOMEWIRE_SEED={made.seed}"]) if complaints else ""


# By number, not by seed: every worker must know a test by the same name, and new seeds differ.
@pytest.mark.parametrize("seed", seeds(), ids=lambda _seed: "plan")
async def test_members_receive_exactly_their_events(seed: int, processes: Processes) -> None:
    if found := await trouble(plan(seed), processes):
        pytest.fail(found, pytrace=False)


@pytest.mark.parametrize("seed", seeds(FEWER), ids=lambda _seed: "plan")
async def test_users_with_permission_receive_exactly_their_events(seed: int, processes: Processes) -> None:
    if found := await trouble(permission_plan(seed), processes):
        pytest.fail(found, pytrace=False)


@pytest.mark.slow
@pytest.mark.timeout(LONGEST_S)
async def test_very_many_interleavings(processes: Processes) -> None:
    failed: list[int] = []
    for number in range(int(os.environ.get("HOMEWIRE_SEEDS", DEFAULT_SEEDS))):
        seed = secrets.randbelow(10**9)
        print(f"{number}: HOMEWIRE_SEED={seed}", flush=True)
        for made in (plan(seed), permission_plan(seed)):
            if found := await trouble(made, processes):
                print(found, flush=True)
                failed.append(seed)
    assert failed == []
