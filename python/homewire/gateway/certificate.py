"""The certificate of the port: taken anew when its files change, and when the operator says so (SIGHUP).

A new context serves the connections that come from then on; those that are open keep theirs. What can't be
used is logged, and the old certificate stays.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from homewire.errors import ConfigurationError
from homewire.gateway.accept import Acceptor
from homewire.settings import Settings
from homewire.tls import key_is_open, server_context

LOOK_EVERY_S: Final = 2.0
"""Files that were the same twice are complete: a certificate and its key are not replaced in one moment."""
Stamp: TypeAlias = tuple[tuple[int, int, int] | None, ...]

_log = structlog.get_logger(__name__)


class Certificate:
    """That of a node that listens by `acceptor`; without TLS there is nothing to take anew."""

    def __init__(self, settings: Settings, acceptor: Acceptor) -> None:
        self._settings = settings
        self._acceptor = acceptor
        self._taken = self._stamp()
        if key_is_open(settings):
            _log.warning("tls.key_is_open", problem="every user of this machine can read the key")

    def reload(self) -> None:
        """Take it anew, if there is one."""
        if self._settings.tls_cert is None:
            _log.info("reload", certificate="none")
            return
        self._taken = self._stamp()
        try:
            context = server_context(self._settings)
        except ConfigurationError as error:
            _log.error("reload.refused", problem=str(error), certificate="the old one stays")
            return
        self._acceptor.speak(context)
        _log.info("reload", certificate=str(self._settings.tls_cert))

    async def watch(self) -> None:
        """Take it anew whenever its files have changed, until cancelled."""
        seen = self._taken
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            before, seen = seen, self._stamp()
            if seen == before and seen != self._taken:
                self.reload()

    def _stamp(self) -> Stamp:
        return tuple(_stamp_of(path) for path in (self._settings.tls_cert, self._settings.tls_key))


def _stamp_of(path: Path | None) -> tuple[int, int, int] | None:
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino) if found is not None else None
