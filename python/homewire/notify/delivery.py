"""All of the room on one node: where messages are given to, and who carries them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis

from homewire.notify.carriers import carriers
from homewire.notify.courier import IN_FLIGHT, Courier, FindProject, Patience
from homewire.notify.letter import Channel
from homewire.notify.post import Post
from homewire.notify.queue import Queue
from homewire.redis.connect import connect
from homewire.sealing import Sealer
from homewire.settings import Settings

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The post of a node and its couriers: one for each channel that is set up."""

    post: Post
    couriers: Sequence[Courier]
    redis: Redis
    """The couriers' own connections: a wait for messages holds one for good."""
    kept: Sequence[Channel]
    """The channels that nothing carries."""

    @classmethod
    def of(cls, settings: Settings, redis: Redis, url: str, find_project: FindProject) -> Delivery:
        """As the settings have it; `redis` is the node's, at `url`. Raises ConfigurationError."""
        sealer = Sealer.of(settings)
        carried = carriers(settings)
        own = connect(url, max_connections=(1 + IN_FLIGHT) * max(1, len(carried)))
        patience = Patience(
            settings.notify_attempt_s, settings.notify_tries, settings.notify_pause_s, settings.notify_age_s
        )
        return cls(
            Post(redis, sealer, settings.public_base_url, carried),
            [
                Courier(channel, Queue(own, channel), carrier, sealer, find_project, patience)
                for channel, carrier in carried.items()
            ],
            own,
            [channel for channel in Channel if channel not in carried],
        )

    async def run(self) -> None:
        """Carry messages until cancelled; ends at once where nothing does."""
        if self.kept:
            _log.info(
                "messages are kept, not sent: homewire outbox shows them",
                channels=[channel.value for channel in self.kept],
                settings="HOMEWIRE_SMTP_HOST, HOMEWIRE_SMS_URL",
            )
        try:
            async with asyncio.TaskGroup() as group:
                for courier in self.couriers:
                    group.create_task(courier.run())
        finally:
            await self.redis.aclose()

    def figures(self) -> Mapping[str, int]:
        """For the metrics."""
        figures: dict[str, int] = {}
        for courier in self.couriers:
            figures.update(courier.figures())
        return figures
