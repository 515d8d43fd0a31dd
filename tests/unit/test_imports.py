"""No module imports itself by way of others. `lint-imports` checks the layers, which pyproject.toml lists."""

from __future__ import annotations

from graphlib import TopologicalSorter

import grimp


def test_no_module_is_in_an_import_cycle() -> None:
    graph = grimp.build_graph("homewire", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert sum(map(len, imports.values())) > 500
    # Raises CycleError, which names the modules of a cycle.
    assert len(list(TopologicalSorter(imports).static_order())) == len(imports)
