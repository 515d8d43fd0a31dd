"""Keys and tokens: `v1.<projectId>.<secret>`, 256 random bits, stored only as their SHA-256.

A token names its project, so that its slot is known without a lookup. Hashing without salt or
stretching is right here: a random secret of 256 bits cannot be guessed from its hash.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final, NamedTuple

SECRET_BYTES: Final = 32
# 32 bytes are 43 characters of base64url without padding.
_SHAPE: Final = re.compile(r"v1\.([1-9][0-9]{0,15})\.[A-Za-z0-9_-]{43}", re.ASCII)


class TokenReference(NamedTuple):
    """What may be kept of a token: where its record lies, never the token itself."""

    project_id: int
    hash: str
    """SHA-256 of the whole token, 64 hex digits."""

    @property
    def key_tag(self) -> int:
        """The first 8 bytes of the hash, big endian: how the core names this key."""
        return key_tag(self.hash)


def mint(project_id: int) -> tuple[str, TokenReference]:
    """A new token of a project. The token is shown once; store the reference."""
    token = f"v1.{project_id}.{secrets.token_urlsafe(SECRET_BYTES)}"
    return token, _reference(project_id, token)


def parse(token: str) -> TokenReference | None:
    """The reference of a well-shaped token; None, without any lookup, for everything else."""
    shape = _SHAPE.fullmatch(token)
    return _reference(int(shape[1]), token) if shape else None


def token_hash(token: str) -> str:
    """What is stored in the place of a token: SHA-256, 64 hex digits."""
    return hashlib.sha256(token.encode("ascii")).hexdigest()


def key_tag(hash_digits: str) -> int:
    """The key tag of a stored hash: an unsigned 64-bit integer."""
    return int(hash_digits[:16], 16)


def _reference(project_id: int, token: str) -> TokenReference:
    return TokenReference(project_id, token_hash(token))
