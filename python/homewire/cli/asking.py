"""Questions on the terminal. Ctrl-C at one counts at once, though a command runs in an event loop."""

from __future__ import annotations

import getpass
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from homewire.settings.environment import read_secret


def password(given: str | None, file: Path | None) -> str:
    """A new password: as it was given, from a file, or asked for where there is somebody to ask.

    Raises ConfigurationError for a file that can't be read; a usage error where nobody can be asked.
    """
    if given is not None:
        return given
    if file is not None:
        return read_secret(file, "--password-file")
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            "an e-mail account needs a password; - reads it from standard input",
            param_hint="--password-file",
        )
    with _interruptible():
        while True:
            first = getpass.getpass("Password: ")
            if first and first == getpass.getpass("The same again: "):
                return first
            print("These differ. Once more.", file=sys.stderr)


def agreed(question: str, yes: bool) -> bool:
    """Whether the user wants it: by --yes, or by the answer on the terminal. A usage error without either."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise typer.BadParameter("missing; this can't be undone", param_hint="--yes")
    with _interruptible():
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextmanager
def _interruptible() -> Iterator[None]:
    """The loop's own handler only asks the waiting task to end: only the second Ctrl-C would count."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
