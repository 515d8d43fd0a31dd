"""Encryption of stored secrets, such as keys that sign webhooks, under a key that is not in Redis.

The cipher is AES-256-GCM. Its key is derived (HKDF-SHA256) from the setting `secret_key`, else from a random
secret that the first process to need it writes to `secret.key` in the data directory. Nodes on one Redis need
the same secret, so nodes with a data directory each need the setting.
"""

from __future__ import annotations

import base64
import os
import secrets
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from homewire.errors import ConfigurationError
from homewire.settings import Settings, named

KEY_FILE: Final = "secret.key"
VERSION: Final = "s1."
"""The prefix of a sealed text: the version of its format."""
KEY_BYTES: Final = 32
NOT_SHARED: Final = f"is not set with an external Redis, and the data directory has no {KEY_FILE}"
HOW_TO_SHARE: Final = (
    "give the same HOMEWIRE_SECRET_KEY (or _FILE) to all nodes and commands; keep a copy apart from the data"
)
NONCE_BYTES: Final = 12


def has_secret(settings: Settings) -> bool:
    """Whether other nodes and commands of the deployment can open a text that is sealed now.

    With an external Redis, a new secret would exist on this machine only.
    """
    if settings.redis_url is None or settings.secret_key is not None:
        return True
    return (settings.data_dir / KEY_FILE).exists()


def require_secret(settings: Settings) -> None:
    """Raises ConfigurationError if `has_secret` is false."""
    if not has_secret(settings):
        raise ConfigurationError(f"{named('secret_key')}: {NOT_SHARED}; {HOW_TO_SHARE}")


class Sealer:
    """Seals and opens texts. The secret is read, or generated, at the first use."""

    def __init__(self, secret: str | None, key_file: Path) -> None:
        """`secret` is the setting. Without it the secret in `key_file` is used."""
        self._secret = secret
        self._key_file = key_file

    @classmethod
    def of(cls, settings: Settings) -> Sealer:
        """The sealer of a deployment."""
        return cls(settings.secret_key, settings.data_dir / KEY_FILE)

    def seal(self, text: str) -> str:
        """Encrypt a text. The result differs each time. Raises ConfigurationError."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, text.encode(), VERSION.encode())
        return VERSION + base64.urlsafe_b64encode(sealed).decode("ascii")

    def open(self, sealed: str) -> str:
        """Decrypt a sealed text. Raises ConfigurationError if another secret sealed it."""
        try:
            data = base64.urlsafe_b64decode(sealed.removeprefix(VERSION))
            nonce, encrypted = data[:NONCE_BYTES], data[NONCE_BYTES:]
            return self._cipher.decrypt(nonce, encrypted, VERSION.encode()).decode()
        except (InvalidTag, ValueError):
            raise ConfigurationError(
                "a stored secret was sealed under another secret key: all nodes and commands on one Redis "
                f"need the same HOMEWIRE_SECRET_KEY, or the same {KEY_FILE} in their data directory"
            ) from None

    @cached_property
    def _cipher(self) -> AESGCM:
        secret = self._secret or self._stored_secret()
        derive = HKDF(SHA256(), KEY_BYTES, salt=None, info=b"homewire sealed secrets")
        return AESGCM(derive.derive(secret.encode()))

    def _stored_secret(self) -> str:
        try:
            return self._read() or self._make()
        except OSError as error:
            raise ConfigurationError(
                f"the secret key {self._key_file} can't be used: {error.strerror}. Give HOMEWIRE_SECRET_KEY."
            ) from error

    def _read(self) -> str | None:
        try:
            return self._key_file.read_text().strip() or None
        except FileNotFoundError:
            return None

    def _make(self) -> str:
        """Generate a secret. If several processes do so at once, all use that of the first."""
        directory = self._key_file.parent
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = directory / f".{KEY_FILE}.{secrets.token_hex(8)}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(KEY_BYTES) + "\n")
                file.flush()
                os.fsync(file.fileno())
            # A link is atomic and never replaces an existing file.
            os.link(draft, self._key_file)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        return self._key_file.read_text().strip()
