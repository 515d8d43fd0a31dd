"""No module imports itself by way of others, and tests of behaviour import no module of the server.

`lint-imports` checks the layers, which pyproject.toml lists.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

FOR_USERS: dict[str, set[str] | None] = {"homewire.client": None, "homewire.errors": {"ClientError"}}
"""What users import: the Python client and its error."""


def test_no_module_is_in_an_import_cycle() -> None:
    graph = grimp.build_graph("homewire", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert sum(map(len, imports.values())) > 500
    # Raises CycleError, which names the modules of a cycle.
    assert len(list(TopologicalSorter(imports).static_order())) == len(imports)


def test_tests_of_behaviour_import_nothing_of_the_server() -> None:
    """They speak HTTP, WebSocket and the command line. What these cannot set up, builders of the kit do."""
    tests = [*Path(__file__).parents[1].glob("service/**/*.py")]
    assert len(tests) > 100
    wrong = [
        f"{path.name} imports {name} from {module}"
        for path in tests
        for module, name in imports_of(path)
        if module.split(".")[0] == "homewire" and not is_for_users(module, name)
    ]
    assert wrong == []


def imports_of(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of each import; the name is empty where a whole module is imported."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((each.name, "") for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", each.name) for each in node.names)


def is_for_users(module: str, name: str) -> bool:
    names = FOR_USERS.get(module, set())
    return names is None or name in names
