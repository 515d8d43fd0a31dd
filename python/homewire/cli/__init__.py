"""The command line. `main` is the entry point `homewire`; one module for each group of commands.

What a command needs beyond the settings it imports itself: `homewire --help` stays quick, and a server
process does not carry what only a table on a terminal needs.
"""

from __future__ import annotations

import os
import signal
from typing import NoReturn

INTERRUPTED = 130
"""The exit status of a program that was ended by Ctrl-C, as shells count it."""


def main() -> None:
    """Run the command of `sys.argv` and exit.

    Ctrl-C never shows a traceback: before and after the command, where nothing is open yet or any more, it
    ends the process at once, and in between as the command wants.
    """
    signal.signal(signal.SIGINT, _end)
    from homewire.cli.program import run

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            status = run()
        finally:
            signal.signal(signal.SIGINT, _end)
    except KeyboardInterrupt:
        status = INTERRUPTED
    raise SystemExit(status)


def _end(*_signal: object) -> NoReturn:
    # Not an exception: in the middle of an import, or of the interpreter's end, it would become a traceback.
    os._exit(INTERRUPTED)
