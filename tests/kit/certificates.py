"""An authority of this test run's own, and a certificate of it for 127.0.0.1."""

from __future__ import annotations

import atexit
import functools
import shutil
import ssl
import tempfile
from pathlib import Path

import trustme

HOST = "127.0.0.1"


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


@functools.cache
def client_context() -> ssl.SSLContext:
    """What a client needs to believe `files`."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


@functools.cache
def authority_file() -> Path:
    """The authority's own certificate as a PEM file, for a process that is to believe `files`."""
    directory = Path(tempfile.mkdtemp(prefix="hw-ca-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    authority().cert_pem.write_to_path(str(directory / "ca.pem"))
    return directory / "ca.pem"


@functools.cache
def files() -> tuple[Path, Path]:
    """Certificate and key as PEM files, which stay as long as the tests run."""
    directory = Path(tempfile.mkdtemp(prefix="hw-tls-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return issue(directory, HOST)


def issue(directory: Path, *names: str) -> tuple[Path, Path]:
    """A new certificate for `names`, and its key, as PEM files in `directory`."""
    issued = authority().issue_cert(*names)
    certificate, key = directory / "cert.pem", directory / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    key.chmod(0o600)
    return certificate, key
