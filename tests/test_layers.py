"""Imports point one way, heavy libraries load only where they are used, and the daemon never holds the exporter's."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "vajra_edge"

LAYERS = (
    {"wording", "version", "state_file", "pixel_format"},
    {"errors"},
    {"admission", "durable", "types", "device", "progress", "clock", "privileges"},
    {"media"},
    {"config", "datasets"},
    {"weights"},
    {"graph"},
    {"geometry"},
    {"heads"},
    {"plans"},
    {"bundles"},
    {"quantization"},
    {"backends"},
    {"build"},
    {"inference", "tracking"},
    {"analytics"},
    {"capture", "mqtt"},
    {"telemetry", "home_assistant", "outputs"},
    {"daemon", "demo", "benchmark"},
    {"tasks"},
    {"api"},
    {"cli"},
    {"__main__"},
)
"""From the bottom to the top: a module imports its own folder and what is below, never its neighbours."""

SEEN_BY_ALL = ("graph.signature", "plans.spec")
"""Value types without libraries, which any layer may name."""

TORCH_ONLY = {"weights.blocks", "weights.fusion", "weights.vajra_v1"}
"""The networks themselves: classes of torch, imported by the build child alone."""

HEAVY = {"torch", "onnx", "onnxslim", "onnxscript", "onnxruntime", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"}
HEAVY |= {"cuda", "amqtt", "systemd", "gi", "pycocotools", "supervision", "av", "cryptography"}
"""Optional or slow to import: inside functions only, once they are chosen."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Dotted name below the package, and syntax tree, of every module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST, *, top_level: bool) -> Iterator[str]:
    """Dotted names of what a module imports: everything, or only what its own import loads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}") for alias in node.names)
        elif top_level and (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_type_checking(node)
        ):
            continue
        yield from imports(node, top_level=top_level)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def folder_of(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def rank(name: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if folder_of(name) in layer)


def own_imports(tree: ast.Module) -> set[str]:
    """Names below the package that a module imports anywhere in it."""
    found = {name for name in imports(tree, top_level=False) if name.startswith("vajra_edge.")}
    return {name.removeprefix("vajra_edge.") for name in found} - {"Vajra"}


MODULES = {name: tree for name, tree in modules() if name != "__init__"}


def is_seen_by_all(name: str) -> bool:
    return any(name == seen or name.startswith(f"{seen}.") for seen in SEEN_BY_ALL)


def test_every_module_has_its_layer():
    assert {folder_of(name) for name in MODULES} <= set().union(*LAYERS)


def test_imports_point_one_way():
    wrong = {
        f"{name} imports {other}"
        for name, tree in MODULES.items()
        for other in own_imports(tree)
        if folder_of(other) != folder_of(name) and not is_seen_by_all(other) and rank(other) >= rank(name)
    }
    assert not wrong


def test_heavy_libraries_are_imported_inside_functions():
    wrong = {
        f"{name} imports {library}"
        for name, tree in MODULES.items()
        for library in {other.split(".")[0] for other in imports(tree, top_level=True)} & HEAVY
        if name not in TORCH_ONLY
    }
    assert not wrong


def test_our_folder_named_systemd_is_never_taken_for_the_library():
    """``import systemd`` succeeds wherever the top of the checkout is on the path; ``from systemd import`` does not."""
    wrong = {
        name
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import) and any(alias.name == "systemd" for alias in node.names)
    }
    assert not wrong


def test_the_supervisor_holds_neither_the_exporters_nor_the_runtimes():
    code = "import sys, vajra_edge.daemon.supervisor; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    loaded = set(ended.stdout.split())
    assert "vajra_edge.daemon.supervisor" in loaded
    assert not {name for name in loaded if name.split(".")[0] in HEAVY}
    assert not {name for name in loaded if name.startswith("vajra_edge.weights")}
    assert {name for name in loaded if name.startswith("vajra_edge.graph.")} == {"vajra_edge.graph.signature"}
    opens = {name for name in loaded if name.startswith("vajra_edge.capture.sources.")}
    assert not opens, "what opens cameras belongs into their processes"
    assert "av" not in loaded


def test_the_package_itself_loads_nothing():
    code = "import sys, vajra_edge; print(*[name for name in sys.modules if name.startswith('vajra_edge.')])"
    ended = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["vajra_edge.version"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import torch", {"torch"}),
        ("from cuda import bindings", {"cuda"}),
        ("try:\n    import onnx\nexcept ImportError:\n    pass", {"onnx"}),
        ("def load():\n    import onnxruntime", set()),
        ("if TYPE_CHECKING:\n    import torch", set()),
        ("class Plan:\n    import tensorrt", {"tensorrt"}),
    ],
)
def test_the_walk_finds_what_an_import_of_the_module_would_load(code, expected):
    assert {name.split(".")[0] for name in imports(ast.parse(code), top_level=True)} == expected
