"""TLS: the context of the port, and how clients on this machine verify a node."""

from __future__ import annotations

import hashlib
import ssl
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from homewire.errors import ConfigurationError
from homewire.settings import Settings, named

if TYPE_CHECKING:
    from aiohttp import Fingerprint

PEM_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
PEM_END: Final = "-----END CERTIFICATE-----"


class _KeyIsEncrypted(Exception):
    """OpenSSL asked for a passphrase. The server has none."""


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """The TLS context of the port (1.2 or newer), or None for plain HTTP.

    Raises ConfigurationError, which names the invalid setting and does not show the content of a file.
    """
    certificate, key = settings.tls_cert, settings.tls_key
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        given, missing = ("tls_key", "tls_cert") if certificate is None else ("tls_cert", "tls_key")
        raise ConfigurationError(f"{named(missing)} is missing: {named(given)} needs it")
    _certificate(certificate, "tls_cert")
    _read(key, "tls_key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except _KeyIsEncrypted:
        raise ConfigurationError(
            f"{named('tls_key')}: the key is encrypted: use one without a passphrase"
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"is not the key of the certificate in {named('tls_cert')}"
        else:
            problem = "contains no private key in PEM form"
        raise ConfigurationError(f"{named('tls_key')}: {problem}") from None
    return context


def key_is_open(settings: Settings) -> bool:
    """Whether every user of this machine can read the private key."""
    try:
        return settings.tls_key is not None and bool(settings.tls_key.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def trust(settings: Settings, url: str) -> ssl.SSLContext | Fingerprint | bool:
    """How a client on this machine verifies the server at `url`: the `ssl` parameter of aiohttp.

    The node of these settings is verified by its certificate alone, without the names in it, because the
    client connects to its address. Another server needs a certificate for its name, of `tls_ca` or of a
    public authority. Raises ConfigurationError.
    """
    if settings.tls_cert is not None and urlsplit(url).hostname == urlsplit(settings.base_url).hostname:
        from aiohttp import Fingerprint

        return Fingerprint(hashlib.sha256(_certificate(settings.tls_cert, "tls_cert")).digest())
    if settings.tls_ca is None:
        return True
    text = _read(settings.tls_ca, "tls_ca")
    context = ssl.create_default_context()
    # So that a self-signed certificate in `tls_ca` can be trusted.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=text)
    except ssl.SSLError:
        raise _no_certificate("tls_ca") from None
    return context


def _certificate(path: Path, name: str) -> bytes:
    """The first certificate of a PEM file, in DER form. Raises ConfigurationError."""
    text = _read(path, name)
    begin, end = text.find(PEM_BEGIN), text.find(PEM_END)
    try:
        der = ssl.PEM_cert_to_DER_cert(text[begin : end + len(PEM_END)])
        # The text may be valid base64 and still no certificate.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=der)
    except (ValueError, ssl.SSLError):
        raise _no_certificate(name) from None
    return der


def _read(path: Path, name: str) -> str:
    try:
        return path.read_text("ascii", errors="replace")
    except OSError as error:
        raise ConfigurationError(f"{named(name)}: the file cannot be read: {error.strerror}") from None


def _no_certificate(name: str) -> ConfigurationError:
    return ConfigurationError(f"{named(name)}: the file contains no certificate in PEM form")


def _no_passphrase() -> str:
    raise _KeyIsEncrypted
