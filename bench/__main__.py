"""`python -m bench ROW …`: measure rows of the benchmarks, print them, and store them in bench/results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from bench import (
    cluster,
    control,
    departure,
    fairness,
    fanout,
    handshake,
    ingest,
    memory,
    pings,
    report,
    rest,
    revocation,
    tls,
)
from bench.report import Table
from bench.servers import BenchError

FANOUT = tuple(fanout.rows(1, small=True))
OTHERS = (
    *("memory", "handshake", "ingest-put", "ingest-bulk", "tls", "cluster", "removal", "disabling"),
    *("revocation", "revocation-many", "pings", "fairness"),
    *("api-get", "api-kv", "api-list", "user-delete"),
)
ALL = (*FANOUT, *OTHERS)


def options() -> argparse.ArgumentParser:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "rows", nargs="+", choices=[*ALL, "all", "report"], metavar="ROW", help=", ".join(ALL)
    )
    parser.add_argument("--pairs", type=int, help="alternating runs of each contestant (default 5, small 1)")
    parser.add_argument("--seconds", type=float, help="length of the paced runs (default 10, small 1)")
    parser.add_argument(
        "--small", action="store_true", help="a few seconds in all: proves that the harness works"
    )
    parser.add_argument(
        "--fsync", choices=["everysec", "always"], default="everysec", help="of the fan-out rows"
    )
    parser.add_argument(
        "--only",
        default="",
        help="contestants of a fan-out beside floor and homewire, or resources of `fairness`, with commas",
    )
    parser.add_argument(
        "--without-homewire", action="store_true", help="floor and peers alone (not the ingest rows)"
    )
    parser.add_argument("--frames", type=int, default=0, help="frames per send of the floor without homewire")
    return parser


def measure(name: str, chosen: argparse.Namespace) -> Table:
    """Measure one row."""
    pairs = chosen.pairs or (1 if chosen.small else 5)
    seconds = chosen.seconds or (1.0 if chosen.small else 10.0)
    with_homewire = not chosen.without_homewire
    only = [word for word in chosen.only.split(",") if word]
    if name in FANOUT:
        row = fanout.rows(seconds, chosen.small)[name]
        return fanout.run(
            row, pairs=pairs, fsync=chosen.fsync, with_homewire=with_homewire, frames=chosen.frames, only=only
        )
    others: dict[str, Callable[[], Table]] = {
        "memory": lambda: memory.run(pairs=min(pairs, 3), small=chosen.small, with_homewire=with_homewire),
        "handshake": lambda: handshake.run(pairs=pairs, small=chosen.small, with_homewire=with_homewire),
        "ingest-put": lambda: ingest.put(pairs=pairs, small=chosen.small),
        "ingest-bulk": lambda: ingest.bulk(pairs=pairs, small=chosen.small),
        "tls": lambda: tls.run(pairs=pairs, seconds=seconds, small=chosen.small),
        "cluster": lambda: cluster.run(pairs=pairs, seconds=seconds, small=chosen.small),
        "api-get": lambda: rest.get(pairs=pairs, small=chosen.small),
        "api-kv": lambda: rest.put_value(pairs=pairs, small=chosen.small),
        "api-list": lambda: rest.listing(pairs=pairs, small=chosen.small),
        "user-delete": lambda: departure.run(pairs=pairs, small=chosen.small),
        "removal": lambda: control.removal(pairs=min(pairs, 3), small=chosen.small),
        "revocation": lambda: revocation.one(pairs=min(pairs, 3), small=chosen.small),
        "revocation-many": lambda: revocation.many(pairs=min(pairs, 3), small=chosen.small),
        "pings": lambda: pings.run(pairs=min(pairs, 3), seconds=seconds, small=chosen.small),
        "fairness": lambda: fairness.run(pairs=min(pairs, 3), seconds=seconds, small=chosen.small, only=only),
        "disabling": lambda: control.disabling(pairs=min(pairs, 3), small=chosen.small),
    }
    return others[name]()


def main() -> int:
    """Returns exit code 0 if every row could be measured. A missed goal is printed and is no failure."""
    chosen = options().parse_args()
    if "report" in chosen.rows:
        print("\n".join(table.markdown() for table in report.kept()))
        return 0
    names = ALL if "all" in chosen.rows else chosen.rows
    failed = False
    for name in names:
        try:
            table = measure(name, chosen)
        except BenchError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
            continue
        table.small = chosen.small
        print(table.markdown(), flush=True)
        if not chosen.small:
            table.keep()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
