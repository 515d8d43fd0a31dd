"""What commands print: JSON for machines, short text for people."""

from __future__ import annotations

from typing import Any

Answer = dict[str, Any] | list[dict[str, Any]]

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


def _fields(answer: dict[str, Any]) -> None:
    width = max(map(len, answer), default=0)
    for name, value in answer.items():
        print(f"{name:<{width}}  {_text(value)}")
    if any(name in answer for name in SECRETS):
        print("Keep the key now: only its hash is stored, it can't be shown again.")


def _table(answer: list[dict[str, Any]]) -> None:
    if not answer:
        print("none")
        return
    from rich.console import Console
    from rich.table import Table

    # Lines need not have the same columns.
    columns = list(dict.fromkeys(name for line in answer for name in line))
    table = Table(*columns, box=None, pad_edge=False)
    for line in answer:
        table.add_row(*(_text(line.get(name)) for name in columns))
    Console(markup=False, highlight=False, soft_wrap=True).print(table)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return "-" if value is None else str(value)
