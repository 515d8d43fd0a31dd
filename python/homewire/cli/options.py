"""Options that several commands share. An option of a setting has the flag and the text of the setting."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

import typer

from homewire.cli.output import complain
from homewire.errors import ConfigurationError
from homewire.settings import Settings, in_environment, load, named, rows
from homewire.settings.environment import read_secret

_TABLE = {row.name: row for row in rows()}


def of_setting(name: str) -> Any:
    """The option of the setting `name`, as the settings' table has it."""
    row = _TABLE[name]
    default = f"; default {row.default}" if row.default else ""
    return typer.Option(row.flag, help=f"{row.description} ({row.environment}{default})", show_default=False)


Host = Annotated[str | None, of_setting("host")]
Port = Annotated[int | None, of_setting("port")]
AdminHost = Annotated[str | None, of_setting("admin_host")]
AdminPort = Annotated[int | None, of_setting("admin_port")]
DataDir = Annotated[Path | None, of_setting("data_dir")]
Redis = Annotated[str | None, of_setting("redis_url")]
RedisFile = Annotated[
    Path | None,
    typer.Option(
        "--redis-file",
        help="File with the URL of --redis, for one with a password (HOMEWIRE_REDIS_URL_FILE); - reads it "
        "from standard input.",
        show_default=False,
    ),
]
Ack = Annotated[str | None, of_setting("ack")]
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
NamedProject = Annotated[int, typer.Option("--project", help="Project id.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
AnyProject = Annotated[
    int | None,
    typer.Option("--project", help="Project id. Default: found by the other id.", show_default=False),
]
Name = Annotated[str, typer.Option("--name", help="Display name.")]
Home = Annotated[int, typer.Option("--home", help="Home id.")]
User = Annotated[int, typer.Option("--user", help="User id.")]
Device = Annotated[int, typer.Option("--device", help="Device id.")]
KeyId = Annotated[int, typer.Option("--id", help="Project key id.")]

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="homewire to talk to; default: the node that runs on the data directory, else host and port of "
        "the settings.",
        show_default=False,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="HOMEWIRE_KEY",
        show_envvar=False,
        help="API key; default: the demo's. Other users of the machine can see it in the list of "
        "processes, so HOMEWIRE_KEY or --key-file is safer.",
        show_default=False,
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        envvar="HOMEWIRE_KEY_FILE",
        show_envvar=False,
        help="File with the API key (HOMEWIRE_KEY_FILE); - reads it from standard input.",
        show_default=False,
    ),
]


def given_key(key: str | None, key_file: Path | None) -> str | None:
    """The API key that was given, None for none. Raises ConfigurationError for a file that can't be read."""
    if key_file is None:
        return key or None
    return read_secret(key_file, "--key-file (HOMEWIRE_KEY_FILE)")


def given_redis(url: str | None, file: Path | None) -> str | None:
    """The URL of --redis or --redis-file, None for neither. Raises ConfigurationError."""
    return url if url is not None or file is None else read_secret(file, "--redis-file")


def take_options(
    run: Callable[..., None], function: Callable[..., Any], shared: Mapping[str, tuple[Any, Any]]
) -> None:
    """Give `run` the options of `function` after its first, and the `shared` ones (type, default)."""
    hints = get_type_hints(function, include_extras=True)
    _given, *own = inspect.signature(function).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [p.replace(annotation=hints[p.name], kind=keyword) for p in own]
    for name, (annotation, default) in shared.items():
        if name not in hints:
            parameters.append(inspect.Parameter(name, keyword, default=default, annotation=annotation))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}


def loaded(**given: Any) -> Settings:
    """The settings of a command, by its flags and the environment; warnings about variables go to stderr."""
    settings = load(**given)
    for warning in in_environment().warnings():
        complain(warning)
    return settings


def require_data_dir(settings: Settings) -> None:
    """Check that the data directory exists: a command must not create one. Raises ConfigurationError."""
    if settings.redis_url is None and not settings.data_dir.exists():
        raise ConfigurationError(
            f"{named('data_dir')}: {settings.data_dir} does not exist; name the directory of a node, or "
            "create it with `homewire run`"
        )


_SERVING: Final = {
    "host": (Host, None),
    "port": (Port, None),
    "admin_host": (AdminHost, None),
    "admin_port": (AdminPort, None),
    "data_dir": (DataDir, None),
    "redis_url": (Redis, None),
    "redis_file": (RedisFile, None),
    "workers": (Workers, None),
    "durability": (Durability, None),
    "ack": (Ack, None),
    "tls_cert": (TlsCert, None),
    "tls_key": (TlsKey, None),
}


def serving_command(app: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function over the Settings that a server would run with.

    The options of those settings are added to the function's own.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        def run(**options: Any) -> None:
            chosen = {name: options.pop(name) for name in _SERVING}
            chosen["redis_url"] = given_redis(chosen["redis_url"], chosen.pop("redis_file"))
            # The server logs unknown variables.
            function(load(**chosen), **options)

        take_options(run, function, _SERVING)
        app.command(name, help=inspect.getdoc(function))(run)
        return run

    return register
