"""Every TensorRT name in the package exists in every release it may meet, or stands behind a question about it.

The walk finds each attribute, enum member, method and call on a TensorRT object in the ``trt*`` modules and looks it up
in the listing of each release. A name that some release lacks must stand behind ``library.has(...)`` such that every
release of which that question is true has the name.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from backends.trt_listing import LISTINGS, signature

import vajra_edge.backends.tensorrt

FOLDER = Path(vajra_edge.backends.tensorrt.__file__).parent
MODULES = sorted(FOLDER.glob("[a-z]*.py"))
REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference" / "tensorrt_api"

OBJECTS = {
    "made": "Builder",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "layer": "ILayer",
    "tensor": "ITensor",
    "source": "ITensor",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "_runtime": "Runtime",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "_context": "IExecutionContext",
}
"""What a variable or attribute of this name holds, wherever it stands in the trt modules."""

ONLY_IN = {("error", "log"): "ParserError"}


@dataclass(frozen=True)
class Use:
    """One name on one TensorRT object, and what is known to hold where it stands."""

    module: str
    line: int
    owner: str
    member: str
    call: tuple[int, tuple[str, ...]] | None
    guards: frozenset[tuple[str, bool]]

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.owner}.{self.member}"


class Walk(ast.NodeVisitor):
    """Collects the uses in one module, with the ``has`` questions around each."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.uses: list[Use] = []
        self.calls: dict[str, list[frozenset[tuple[str, bool]]]] = {}
        self.function = ""
        self.functions: dict[int, str] = {}
        self.guards: frozenset[tuple[str, bool]] = frozenset()
        self.visit(ast.parse(source))

    def found(self) -> list[Use]:
        """All uses; one inside a function that is only called behind a question stands behind it too."""
        found = []
        for index, use in enumerate(self.uses):
            sites = self.calls.get(self.functions[index], [])
            inherited = frozenset.intersection(*sites) if sites else frozenset()
            found.append(replace(use, guards=use.guards | inherited))
        return found

    def owner_of(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = self.owner_of(node.func.value)
            if owner is None or owner == "":
                return node.func.attr if owner == "" else None
            texts = LISTINGS["11.4.0"].get(owner, {}).get("members", {}).get(node.func.attr, [])
            return signature(texts[0]).returns if texts else None
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if name == "trt":
            return ""
        if isinstance(node, ast.Attribute) and self.owner_of(node.value) == "":
            return name
        return ONLY_IN.get((name, self.name)) or OBJECTS.get(name)

    def record(self, node: ast.Attribute, call: ast.Call | None) -> None:
        owner = self.owner_of(node.value)
        if owner is None or node.attr == "trt":
            return
        shape = None
        if call is not None:
            # An __init__ called on its class is handed self; everything else is bound.
            count = len(call.args) - (node.attr == "__init__")
            shape = (count, tuple(word.arg or "**" for word in call.keywords))
        self.uses.append(Use(self.name, node.lineno, owner, node.attr, shape, self.guards))
        self.functions[len(self.uses) - 1] = self.function

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.record(node, None)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name):
            self.calls.setdefault(node.func.id, []).append(self.guards)
        if isinstance(node.func, ast.Attribute):
            self.record(node.func, node)
            self.visit(node.func.value)
        else:
            self.visit(node.func)
        for child in (*node.args, *(word.value for word in node.keywords)):
            self.visit(child)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before, self.function = self.function, self.function or node.name
        self.block(node.body)
        self.function = before

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        self.block(node.body, {(question, True) for question in asked(node.test)})
        self.block(node.orelse, {(question, False) for question in asked(node.test)})

    def block(self, body: list[ast.stmt], more: set[tuple[str, bool]] = frozenset()) -> None:  # type: ignore[assignment]
        before = self.guards
        self.guards = before | more
        for statement in body:
            self.visit(statement)
            leaves = isinstance(statement, ast.If) and isinstance(statement.body[-1], (ast.Return, ast.Raise))
            if isinstance(statement, ast.If) and leaves and isinstance(statement.test, ast.Call):
                self.guards |= {(question, False) for question in asked(statement.test)}
        self.guards = before


def asked(test: ast.expr) -> Iterator[str]:
    """The questions that are all true where ``test`` is."""
    parts = test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]
    for part in parts:
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr == "has":
            yield ast.literal_eval(part.args[0])


def present(version: str, owner: str, member: str) -> bool:
    listing = LISTINGS[version]
    if owner == "":
        return member in listing or member == "__version__"
    return owner in listing and member in listing[owner]["members"]


def holds(version: str, guards: frozenset[tuple[str, bool]]) -> bool:
    return all(present(version, *question.split(".")) is wanted for question, wanted in guards)


def missing(version: str, uses: list[Use]) -> list[str]:
    return [str(use) for use in uses if holds(version, use.guards) and not present(version, use.owner, use.member)]


ALL = [use for path in MODULES for use in Walk(path.stem, path.read_text()).found()]


def test_the_walk_sees_what_the_package_uses() -> None:
    seen = {f"{use.owner}.{use.member}" for use in ALL}
    assert {
        "Builder.build_serialized_network",
        "BuilderFlag.FP16",
        "ComputeCapability.SM86",
        "EngineInspector.get_engine_information",
        "IBuilderConfig.progress_monitor",
        "IExecutionContext.execute_async_v3",
        "ILayer.set_output_type",
        "ITensor.set_dynamic_range",
        "ITimingCache.serialize",
        "MemoryPoolType.TACTIC_DRAM",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "ParserError.node_name",
        "Runtime.DLA_core",
    } <= seen
    assert len(seen) > 70


@pytest.mark.parametrize("version", LISTINGS)
def test_every_name_exists_in_this_release_or_is_asked_for_first(version: str) -> None:
    assert missing(version, ALL) == []


def test_the_walk_finds_a_name_that_a_release_lacks_unless_it_is_asked_for() -> None:
    unguarded = """
def f(library, config):
    config.max_num_tactics = 1
    library.trt.BuilderFlag.INT8
    config.made_up()
"""
    guarded = """
def f(library, config):
    if library.has("IBuilderConfig.max_num_tactics"):
        config.max_num_tactics = 1
    if library.has("BuilderFlag.FP16") and config:
        g(library.trt)

def g(trt):
    trt.BuilderFlag.INT8
"""
    found = [line.split()[1] for line in missing("11.4.0", Walk("x", unguarded).found())]
    assert found == ["BuilderFlag.INT8", "IBuilderConfig.made_up"]
    assert [line.split()[1] for line in missing("10.3.0", Walk("x", unguarded).found())] == [
        "IBuilderConfig.max_num_tactics",
        "IBuilderConfig.made_up",
    ]
    assert all(missing(version, Walk("x", guarded).found()) == [] for version in LISTINGS)


@pytest.mark.parametrize("version", LISTINGS)
def test_every_call_has_the_arity_and_keywords_of_this_release(version: str) -> None:
    for use in ALL:
        entry = LISTINGS[version].get(use.owner, {}).get("members", {})
        if use.call is None or not isinstance(entry, dict) or not entry.get(use.member):
            continue
        positional, words = use.call
        fits = []
        for text in entry[use.member]:
            names = [parameter.name for parameter in signature(text).parameters]
            required = {parameter.name for parameter in signature(text).parameters if parameter.required}
            given = [*names[:positional], *words]
            fits.append(positional <= len(names) and set(words) <= set(names[positional:]) and required <= set(given))
        assert any(fits), str(use)


def test_every_question_is_about_a_name_that_some_release_has() -> None:
    questions = {
        ast.literal_eval(node.args[0])
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "has"
    }
    for question in questions:
        having = [version for version in LISTINGS if present(version, *question.split("."))]
        assert 0 < len(having) < len(LISTINGS), question


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="absent here: ../shared/reference/tensorrt_api (the full listings)")
@pytest.mark.parametrize("version", LISTINGS)
def test_the_committed_listing_says_what_the_full_one_says(version: str) -> None:
    full = json.loads((REFERENCE / f"{version}.json").read_text())
    for name, entry in LISTINGS[version].items():
        assert entry["kind"] == full[name]["kind"]
        if name != "INetworkDefinition":  # its add_ methods are left out, but for two
            assert entry["members"] == full[name]["members"]
