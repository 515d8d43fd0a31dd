"""The command line. `main` is the entry point `homewire`; one module for each group of commands.

What a command needs beyond the settings it imports itself: `homewire --help` stays quick, and a server
process does not carry what only a table on a terminal needs.
"""

from __future__ import annotations

import sys

import typer

from homewire.cli import (
    diagnosis,
    login_tokens,
    messages,
    permissions,
    records,
    serving,
    sessions,
    smart_modules,
    traffic,
)
from homewire.errors import HomewireError, RequestError

FAILED = 1
INTERRUPTED = 130


def build() -> typer.Typer:
    """The whole command tree."""
    # No markup: help texts name things like [default], and rich would take them for styles.
    app = typer.Typer(
        name="homewire",
        help="A realtime event router for connected homes and devices.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    rooms = (
        serving,
        records,
        login_tokens,
        sessions,
        permissions,
        smart_modules,
        messages,
        traffic,
        diagnosis,
    )
    for room in rooms:
        room.register(app)
    return app


def main() -> None:
    """Run the command of `sys.argv`. An error that homewire knows is one line and exit code 1."""
    try:
        build()()
    except HomewireError as error:
        print(f"homewire: {describe(error)}", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def describe(error: HomewireError) -> str:
    """The error in one line."""
    if isinstance(error, RequestError):
        details = ", ".join(f"{name}: {value}" for name, value in error.data.items())
        return f"{error.reason} ({details})" if details else error.reason
    return str(error)
