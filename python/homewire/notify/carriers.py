"""What can carry a letter, as the settings have it."""

from __future__ import annotations

from typing import Protocol

from homewire.errors import ConfigurationError
from homewire.model import Project
from homewire.notify.letter import Channel, Letter
from homewire.settings import Settings


class Carrier(Protocol):
    """Carries letters of one channel out of the house."""

    async def carry(self, letter: Letter, project: Project) -> None:
        """Hand the letter over; returns when the other side has taken it.

        Raises NotSent; Undeliverable when trying again is of no use.
        """

    async def close(self) -> None:
        """Nothing is carried any more."""


def carriers(settings: Settings) -> dict[Channel, Carrier]:
    """A carrier for each channel that is set up. Raises ConfigurationError."""
    # Imported at use: a deployment without them does without them.
    found: dict[Channel, Carrier] = {}
    if settings.smtp_host is not None:
        from homewire.notify.mail import MailCarrier

        found[Channel.MAIL] = MailCarrier(settings)
    if (settings.sms_url is None) != (settings.sms_key is None):
        raise ConfigurationError("HOMEWIRE_SMS_URL and HOMEWIRE_SMS_KEY need each other")
    if settings.sms_url is not None and settings.sms_key is not None:
        from homewire.notify.sms import SmsCarrier

        found[Channel.SMS] = SmsCarrier(settings.sms_url, settings.sms_key)
    return found
