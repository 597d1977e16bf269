"""Imports point down: a module imports only from lower lines, and never from its neighbours on its own line."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

LINES = (
    {"errors", "evidence", "files", "streams"},
    {"allocation", "statistics"},
    {"study"},
    {"records"},
    {"models", "data", "lora", "ledger"},
    {"packing", "pretraining", "probing"},
    {"evaluation", "profiling", "tracking"},
    {"training", "reporting"},
    {"execution"},
    {"testing"},
    {"cli"},
    {"__main__"},
)
"""Lowest first. The package's own file, `rankwise/__init__.py`, loads everything lazily and is imported by name only
for its version."""

LINE_OF = {layer: number for number, layers in enumerate(LINES) for layer in layers}


def imported_modules(source: str, module: str) -> Iterator[str]:
    """Every dotted name that a module imports, anywhere in its text: functions and `if TYPE_CHECKING` included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            prefix = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def violations(source: str, module: str) -> list[str]:
    """Imports of `module` that do not point down, each naming both modules."""
    own_layer = module.split(".")[1]
    found = []
    for target in imported_modules(source, module):
        parts = target.split(".")
        if parts[0] != "rankwise" or target == "rankwise.__version__" or parts[1:2] == [own_layer]:
            continue
        layer = parts[1] if len(parts) > 1 else "(everything)"
        if layer not in LINE_OF:
            found.append(f"{module} imports {target}, which is on no line of the layer table")
        elif LINE_OF[layer] >= LINE_OF[own_layer]:
            found.append(f"{module} (line {LINE_OF[own_layer] + 1}) imports {target} (line {LINE_OF[layer] + 1})")
    return found


def package_files() -> list[Path]:
    return sorted(path for path in (SOURCE / "rankwise").rglob("*.py") if path.parent != SOURCE / "rankwise" / "assets")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def test_every_import_in_the_package_points_down():
    modules = {module_name(path): path.read_text(encoding="utf-8") for path in package_files()}
    modules.pop("rankwise.__init__")
    found = [line for module, source in modules.items() for line in violations(source, module)]
    assert not found, "\n".join(found)


def test_every_module_is_on_a_line_of_the_table():
    layers = {module_name(path).split(".")[1] for path in package_files()}
    assert layers - {"__init__"} <= set(LINE_OF)


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in package_files()}
    missing = [str(folder.relative_to(SOURCE)) for folder in folders if not (folder / "__init__.py").exists()]
    assert not missing, f"without __init__.py these are left out of an installed package: {missing}"


@pytest.mark.parametrize(
    "source",
    [
        "from rankwise.execution import run_study",
        "import rankwise.execution.local",
        "def later():\n    from rankwise.execution import run_study",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rankwise.execution import run_study",
        "from rankwise import execution",
        "from ..execution import run_study",
        "from .. import execution",
    ],
)
def test_an_upward_import_is_found_wherever_it_stands(source):
    (message,) = violations(source, "rankwise.training.engine")
    assert "rankwise.training.engine" in message
    assert "rankwise.execution" in message


@pytest.mark.parametrize(
    "source", ["from rankwise.reporting import tables", "import rankwise", "from rankwise import x"]
)
def test_sideways_and_root_imports_are_found(source):
    assert len(violations(source, "rankwise.training.engine")) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from rankwise.models import load",
        "from rankwise.training.schedule import cosine",
        "from .schedule import cosine",
        "import numpy as np",
        "from rankwise import __version__",
    ],
)
def test_downward_own_and_foreign_imports_are_allowed(source):
    assert violations(source, "rankwise.training.engine") == []
