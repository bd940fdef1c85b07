"""How the package is built, in figures: python tests/bench/house.py [FOLDER OF THE PACKAGE]

Prints modules and their lines, modules with one importer, names that stand for more than one thing, import cycles and
imports against the floors of tests/test_layers.py. Reads source text alone; nothing of the package is imported.
"""

from __future__ import annotations

import ast
import importlib.util
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
SHORT_LINES = 60


@dataclass(frozen=True)
class Module:
    """One file: its dotted name in the package, whether it stands for a folder, its text and its syntax tree."""

    name: str
    is_folder: bool
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def lines_of_code(self) -> int:
        """Lines that are neither blank, nor a comment alone, nor part of a docstring."""
        told = {number for node in ast.walk(self.tree) for number in _docstring_lines(node)}
        lines = enumerate(self.text.splitlines(), start=1)
        return sum(
            bool(line.strip()) and not line.strip().startswith("#") for number, line in lines if number not in told
        )


def _docstring_lines(node: ast.AST) -> range:
    """Of a module, class or function, and of a text that stands below a constant."""
    body = getattr(node, "body", None)
    if not isinstance(body, list):
        return range(0)
    texts = [
        s
        for s in body
        if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) and isinstance(s.value.value, str)
    ]
    return [number for text in texts for number in range(text.lineno, text.end_lineno + 1)]


def read(package: Path) -> dict[str, Module]:
    """Every module by its dotted name; the package itself is ``__init__``."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        is_folder = len(parts) > 1 and parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_folder else parts)
        text = path.read_text(encoding="utf-8")
        found[name] = Module(name, is_folder, text, ast.parse(text))
    return found


def edges(package: Path, modules: dict[str, Module]) -> dict[str, set[str]]:
    """Who imports whom, functions and type checking included; a folder's ``__init__`` only where it is named itself."""
    return {name: set(_imported(package.name, name, module, modules)) - {name} for name, module in modules.items()}


def _imported(package: str, name: str, module: Module, modules: dict[str, Module]) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            texts = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            texts = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for text in texts:
            if text == package or text.startswith(f"{package}."):
                yield _module_of(text.removeprefix(package).removeprefix("."), modules)


def _module_of(text: str, modules: dict[str, Module]) -> str:
    """The longest beginning of a dotted name that is a module; what is left is a name in it."""
    parts = text.split(".") if text else []
    for length in range(len(parts), 0, -1):
        if (name := ".".join(parts[:length])) in modules:
            return name
    return "__init__"


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def upward(graph: dict[str, set[str]]) -> list[str]:
    """Imports that the floors do not allow; what any floor may name is no exception here but for those it lists."""
    spec = importlib.util.spec_from_file_location("layers_of_the_house", TESTS / "test_layers.py")
    layers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layers)
    return sorted(
        f"{name} -> {other}"
        for name, others in graph.items()
        for other in others
        if "__init__" not in (name, other)
        and layers.folder_of(name) != layers.folder_of(other)
        and not layers.is_seen_by_all(other)
        and layers.rank(other) >= layers.rank(name)
    )


def twice(names: Iterator[str]) -> list[str]:
    """Names that occur more than once, with how often."""
    return [f"{name} {count}" for name, count in sorted(Counter(names).items()) if count > 1]


def classes(module: Module) -> Iterator[str]:
    """Classes of a module, those inside functions and classes left out."""
    return (node.name for node in module.tree.body if isinstance(node, ast.ClassDef))


def report(package: Path) -> Iterator[str]:
    """One line a figure."""
    modules = read(package)
    graph = edges(package, modules)
    rooms = {name: module for name, module in modules.items() if not module.is_folder and name != "__init__"}
    lines = [module.lines for module in rooms.values()]
    importers = Counter(other for others in graph.values() for other in others)
    once = [name for name in rooms if importers[name] == 1]
    short = [name for name, module in rooms.items() if module.lines < SHORT_LINES]
    same_class = twice(name for module in modules.values() for name in classes(module))
    same_file = twice(name.rpartition(".")[2] for name in rooms)
    rings = cycles(graph)
    against = upward(graph)
    yield f"modules                       {len(rooms)} (and {len(modules) - len(rooms)} __init__.py)"
    yield f"lines a module                median {statistics.median(lines):g}, most {max(lines)} ({_longest(rooms)})"
    yield f"modules with one importer     {len(once)}"
    yield f"modules under {SHORT_LINES} lines        {len(short)}"
    yield f"class names more than once    {len(same_class)}: {', '.join(same_class)}"
    yield f"file names more than once     {len(same_file)}: {', '.join(same_file)}"
    yield f"import cycles                 {len(rings)}: {'; '.join(', '.join(ring) for ring in rings)}"
    yield f"upward imports                {len(against)}: {', '.join(against)}"
    yield f"lines                         {sum(module.lines for module in modules.values())}"
    yield f"lines of code                 {sum(module.lines_of_code for module in modules.values())}"


def _longest(rooms: dict[str, Module]) -> str:
    return max(rooms, key=lambda name: rooms[name].lines)


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else TESTS.parent / "vajra_edge"
    print(*report(folder), sep="\n")
