"""The tree of commands, and the output of their errors."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Final

import typer
import typer.main

from homewire import __version__
from homewire.cli import (
    diagnosis,
    messages,
    permissions,
    records,
    serving,
    sessions,
    smart_modules,
    traffic,
)
from homewire.cli.output import complain
from homewire.errors import (
    ClientError,
    ConfigurationError,
    Conflict,
    HomewireError,
    RequestError,
    UnknownRecord,
    explained,
)

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
_ROOMS: Final = (
    serving,
    records,
    sessions,
    permissions,
    smart_modules,
    messages,
    traffic,
    diagnosis,
)
_OF_OUTPUT: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE)
"""Errors of writing to standard output."""
_METAVARS: Final = {"int": "NUMBER", "int range": "NUMBER", "float": "NUMBER", "str": "TEXT", "path": "PATH"}


def build() -> typer.Typer:
    """The whole command tree."""
    # No markup: rich would take a text like [default] for a style.
    app = typer.Typer(
        name="homewire",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for room in _ROOMS:
        room.register(app)
    return app


@cache
def command_tree() -> Any:
    """The commands as typer runs them. Made once in a process: that takes longer than most commands."""
    command = typer.main.get_command(build())
    _name_values(command)
    return command


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"homewire {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A realtime event router for connected homes and devices.

    \b
    homewire run --demo     start everything, with this machine as a demo
    homewire listen         show the demo's events
    homewire check          check this machine and configuration
    """


def run() -> int:
    """Run the command of `sys.argv`. Returns the exit status. An error of homewire is printed as one line."""
    as_json = "--json" in sys.argv[1:]
    try:
        status = command_tree().main(standalone_mode=False)
        sys.stdout.flush()
    except (HomewireError, typer.TyperException, OSError, BaseExceptionGroup) as error:
        return _failed(error, as_json)
    except typer.Abort:
        return INTERRUPTED
    except SystemExit as end:
        return _flushed(end.code, as_json)
    return status if isinstance(status, int) else 0


def _flushed(code: Any, as_json: bool) -> int:
    """The exit status of a command that ended itself, after its output is flushed."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return _failed(error, as_json)
    return code if isinstance(code, int) else FAILED if code else 0


def _failed(error: BaseException, as_json: bool) -> int:
    """Print the error. Returns the exit status."""
    if isinstance(error, BaseExceptionGroup):
        # Several tasks failed: the first error is shown.
        return _failed(error.exceptions[0], as_json)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, OSError):
        if error.filename is None and error.errno not in _OF_OUTPUT:
            raise error
        _drop_output()
        if error.errno == errno.EPIPE:
            return FAILED
    elif not isinstance(error, HomewireError | typer.TyperException):
        raise error
    if _is_help(error):
        print(error, file=sys.stderr)
        return USAGE
    reason, data, line = _explained(error)
    complain(line, {"reason": reason, "data": data, "message": line} if as_json else None)
    return int(getattr(error, "exit_code", FAILED))


def _drop_output() -> None:
    """Discard buffered output, so that the interpreter does not try to write it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_help(error: BaseException) -> bool:
    """Whether it is no error: a group of commands without a command shows its help."""
    return type(error).__name__ == "NoArgsIsHelpError"


def _explained(error: BaseException) -> tuple[str, dict[str, Any], str]:
    """Reason, data and line of an error; the line is ``field: problem`` where there is a field."""
    match error:
        case RequestError():
            return error.reason, dict(error.data), explained(error.reason, error.data)
        case UnknownRecord():
            data = {error.noun: error.identifier}
            return "NOT_FOUND", data, f"{error.noun}: {error}"
        case Conflict():
            return error.reason, {}, str(error)
        case ConfigurationError():
            return "CONFIGURATION_ERROR", {}, str(error)
        case ClientError():
            return "REQUEST_FAILED", {}, str(error)
        case OSError():
            where = error.filename or "standard output"
            return "IO_ERROR", {}, f"{where}: {error.strerror or error}"
        case typer.TyperException():
            return _usage(error)
    return "FAILED", {}, str(error)


def _usage(error: Any) -> tuple[str, dict[str, Any], str]:
    """Reason, data and line of a usage error."""
    from homewire.settings import in_plain_words

    cause = error.__cause__
    problem = in_plain_words(cause.errors()[0]) if hasattr(cause, "errors") else error.message
    parameter = getattr(error, "param", None)
    hint = getattr(error, "param_hint", None)
    if hint is None and parameter is not None:
        hint = " / ".join(parameter.opts)
    if hint is None:
        line, data = error.format_message().rstrip("."), {}
    else:
        line, data = f"{hint}: {problem or 'missing'}", {"field": hint, "problem": problem or "missing"}
    context = getattr(error, "ctx", None)
    return "USAGE", data, f"{line} (see {context.command_path} --help)" if context else line


def _name_values(command: Any) -> None:
    """Name values in help texts NUMBER and TEXT instead of Python's types."""
    for each in _tree(command):
        context = typer.Context(each)
        for parameter in each.params:
            if parameter.metavar is None and not getattr(parameter, "is_flag", False):
                kind = parameter.display_type(context).strip("<>").removeprefix("list[").removesuffix("]")
                parameter.metavar = _METAVARS.get(kind, kind)


def _tree(command: Any) -> Iterator[Any]:
    yield command
    for child in getattr(command, "commands", {}).values():
        yield from _tree(child)
