"""No module imports itself by way of others. `lint-imports` checks the layers, which pyproject.toml lists."""

from __future__ import annotations

import grimp


def test_no_module_is_in_an_import_cycle() -> None:
    graph = grimp.build_graph("homewire", cache_dir=None)
    imports = [(each, by) for by in graph.modules for each in graph.find_modules_directly_imported_by(by)]
    assert len(imports) > 500
    cycles = {(by, each) for each, by in imports if graph.find_shortest_chain(importer=each, imported=by)}
    assert cycles == set()
