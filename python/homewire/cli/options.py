"""The options that several commands share. Those of a setting take flag and help from the settings' table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from homewire.settings import rows

_TABLE = {row.name: row for row in rows()}


def of_setting(name: str) -> Any:
    """The option of the setting `name`, as the settings' table has it."""
    row = _TABLE[name]
    default = f"; default {row.default}" if row.default else ""
    return typer.Option(row.flag, help=f"{row.description} ({row.environment}{default})", show_default=False)


Host = Annotated[str | None, of_setting("host")]
Port = Annotated[int | None, of_setting("port")]
DataDir = Annotated[Path | None, of_setting("data_dir")]
Redis = Annotated[str | None, of_setting("redis_url")]
Durability = Annotated[str | None, of_setting("durability")]
TlsCert = Annotated[Path | None, of_setting("tls_cert")]
TlsKey = Annotated[Path | None, of_setting("tls_key")]
TlsCa = Annotated[Path | None, of_setting("tls_ca")]
Workers = Annotated[int | None, of_setting("workers")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

Project = Annotated[
    int | None,
    typer.Option("--project", help="Project id (else HOMEWIRE_DEFAULT_PROJECT).", show_default=False),
]
AnyProject = Annotated[
    int | None, typer.Option("--project", help="Project id; looked for when not given.", show_default=False)
]
Name = Annotated[str, typer.Option("--name", help="Name for people.")]
Home = Annotated[int, typer.Option("--home", help="Home id.")]
User = Annotated[int, typer.Option("--user", help="User id.")]
Device = Annotated[int, typer.Option("--device", help="Device id.")]
KeyId = Annotated[int, typer.Option("--id", help="Project key id.")]

Url = Annotated[
    str | None,
    typer.Option(
        "--url", help="homewire to talk to; default: host and port of the settings.", show_default=False
    ),
]
Key = Annotated[
    str | None, typer.Option("--key", help="API key; default: the demo's key.", show_default=False)
]
