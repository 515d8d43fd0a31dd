"""What commands print, and questions that they ask on a terminal."""

from __future__ import annotations

import getpass
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import typer

from homewire.settings.environment import read_secret

Line: TypeAlias = dict[str, Any]
Answer: TypeAlias = Line | list[Line]
Pages: TypeAlias = AsyncIterator[list[Line]]
"""A long list, a page at a time: it is printed as it comes, and never in memory as a whole."""

SECRETS = ("key", "apiKey", "projectKey")


def show(answer: Answer, as_json: bool) -> None:
    """Print the result of a command to standard output."""
    if as_json:
        import orjson

        print(orjson.dumps(answer).decode())
    elif isinstance(answer, list):
        _table(answer)
    else:
        _fields(answer)


async def show_pages(pages: Pages, as_json: bool) -> None:
    """Print a long list to standard output: one JSON array, or a table with column widths for each page."""
    if as_json:
        import orjson

        separator = "["
        async for page in pages:
            for line in page:
                print(separator, orjson.dumps(line).decode(), sep="", end="")
                separator = ","
        print("[]" if separator == "[" else "]")
        return
    is_empty = True
    async for page in pages:
        _table(page, with_head=is_empty)
        is_empty = False
    if is_empty:
        print("none")


def complain(line: str, machine: dict[str, Any] | None = None) -> None:
    """Print one line on standard error, or `machine` as JSON if it is given."""
    if machine is None:
        print(f"homewire: {line}", file=sys.stderr, flush=True)
    else:
        import orjson

        print(orjson.dumps(machine, default=str).decode(), file=sys.stderr, flush=True)


def _fields(answer: dict[str, Any]) -> None:
    width = max(map(len, answer), default=0)
    for name, value in answer.items():
        if _is_tree(value):
            print(name)
            _tree(value, "  ")
        else:
            print(f"{name:<{width}}  {_text(value)}")
    if any(name in answer for name in SECRETS):
        print("Keep the key now: it can't be shown again.")


def _is_tree(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(each, dict) for each in value)


def _tree(records: list[Line], indent: str) -> None:
    """A line for each record, with the records in it below."""
    for record in records:
        plain = (f"{name} {_text(value)}" for name, value in record.items() if not _is_tree(value))
        print(indent + "  ".join(plain))
        for value in filter(_is_tree, record.values()):
            _tree(value, indent + "  ")


def _table(answer: list[Line], with_head: bool = True) -> None:
    if not answer:
        print("none")
        return
    from rich.cells import cell_len

    # Lines need not have the same columns.
    columns = list(dict.fromkeys(name for line in answer for name in line))
    rows = [
        *([columns] if with_head else []),
        *([_text(line.get(name)) for name in columns] for line in answer),
    ]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        # Whole, however narrow the terminal is: half an id or link is good for nothing.
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return "-" if value is None else printable(str(value))


def printable(text: str) -> str:
    """`text` in one line. User-Agents, names, events are anybody's: none may steer the terminal, or pass for
    another line."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


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
