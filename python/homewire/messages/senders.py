"""Senders of messages, as the settings configure them.

SMS by a webhook: we POST what is to be said, a gateway of the operator's says it.
"""

from __future__ import annotations

from typing import Final, Protocol
from urllib.parse import urlsplit

import aiohttp
import orjson

from homewire.clock import MACHINE_CLOCK, Clock
from homewire.errors import ConfigurationError, NotSent, Undeliverable
from homewire.messages.message import Channel, QueuedMessage, sms_text
from homewire.projects.models import Project
from homewire.settings import Settings
from homewire.webhooks.client import HEADER, hmac_hex


class Sender(Protocol):
    """Sends the messages of one channel."""

    async def carry(self, queued: QueuedMessage, project: Project) -> None:
        """Send the message; returns when the other side has accepted it.

        Raises NotSent; Undeliverable when trying again is of no use.
        """

    async def close(self) -> None:
        """Nothing is carried any more."""


def senders(settings: Settings, clock: Clock = MACHINE_CLOCK) -> dict[Channel, Sender]:
    """A carrier for each channel that is set up. Raises ConfigurationError."""
    # Imported at use: a deployment without them does without them.
    found: dict[Channel, Sender] = {}
    if settings.smtp_host is not None:
        from homewire.messages.mail import MailSender

        found[Channel.MAIL] = MailSender(settings)
    if (settings.sms_url is None) != (settings.sms_key is None):
        raise ConfigurationError("HOMEWIRE_SMS_URL and HOMEWIRE_SMS_KEY need each other")
    if settings.sms_url is not None and settings.sms_key is not None:
        found[Channel.SMS] = SmsSender(settings.sms_url, settings.sms_key, clock)
    return found


TIMESTAMP: Final = "X-Homewire-Timestamp"
"""Seconds since 1970, when this try was made: a receiver can refuse what is old, as it was recorded."""
MESSAGE_ID: Final = "X-Homewire-Message-Id"
"""The same for every try."""
KEY_LENGTH: Final = 16
NEVER: Final = frozenset({400, 422})
"""Answers that say that this message can't be sent, by any number of tries."""


class SmsSender:
    """Posts `{to, text, kind, projectId}` to `url`; any 2xx says that it was taken.

    Signed with `key` are the digits of the timestamp and the body.
    """

    def __init__(self, url: str, key: str, clock: Clock = MACHINE_CLOCK) -> None:
        """Raises ConfigurationError."""
        if urlsplit(url).scheme not in ("http", "https"):
            raise ConfigurationError("HOMEWIRE_SMS_URL: must begin with https:// or http://")
        if len(key) < KEY_LENGTH:
            raise ConfigurationError(f"HOMEWIRE_SMS_KEY: needs at least {KEY_LENGTH} characters")
        self._url = url
        self._key = key
        self._clock = clock
        self._http: aiohttp.ClientSession | None = None

    async def carry(self, queued: QueuedMessage, project: Project) -> None:
        """Returns when the gateway has taken the message. Raises NotSent, Undeliverable."""
        message = queued.message
        body = orjson.dumps(
            {
                "to": message.to,
                "text": sms_text(message, project.name),
                "kind": message.kind.value,
                "projectId": message.project_id,
            }
        )
        timestamp = str(self._clock.now_ms() // 1000)
        headers = {
            "Content-Type": "application/json",
            TIMESTAMP: timestamp,
            HEADER: hmac_hex(self._key, timestamp, body),
            MESSAGE_ID: queued.id,
        }
        if self._http is None:
            # No cookies: nothing of one answer is told with another message.
            self._http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        try:
            async with self._http.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, OSError) as error:
            raise NotSent(type(error).__name__) from error
        if not 200 <= status < 300:
            problem = f"the gateway answered {status}"
            raise Undeliverable(problem) if status in NEVER else NotSent(problem)

    async def close(self) -> None:
        """Close the connections to the gateway."""
        if self._http is not None:
            await self._http.close()
