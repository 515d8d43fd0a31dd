"""`python -m homewire.settings --markdown` prints the page docs/settings.md."""

from __future__ import annotations

import sys

from homewire.settings import rows


def markdown() -> str:
    """The page docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Made by `make docs` from `python/homewire/settings`. A flag wins over the environment.",
        "Sizes may be written `64KiB` or `1MiB` in the environment. An empty variable counts as not set.",
        "Variables that Kubernetes sets for a Service (`HOMEWIRE_PORT=tcp://…`, `HOMEWIRE_SERVICE_HOST`, …)",
        "are ignored. An unknown name that is close to a setting's is an error.",
        "",
        "Put secrets into files: `HOMEWIRE_…_FILE` names a file whose first line is the value. Flags",
        "are visible in the process list and in the shell's history.",
        "",
        "| environment | flag | default | unit | meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows():
        flag = f"`{row.flag}`" if row.flag else ""
        default = f"`{row.default}`" if row.default else "none"
        variables = f"`{row.environment}`" + (f", `{row.environment}_FILE`" if row.secret else "")
        lines.append(f"| {variables} | {flag} | {default} | {row.unit} | {row.description} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] != ["--markdown"]:
        sys.exit("usage: python -m homewire.settings --markdown")
    sys.stdout.write(markdown())
