"""A: the recorded verdicts on small graphs, asked again: does the library still say what our rules are made from?"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import small_graphs
from lab import Unfinished

RECORDED = Path(__file__).parent / "results" / "small_graphs.json"
WORKERS = 4
ENDING_S = 15.0
"""Left for the end of the cell."""


@dataclass(frozen=True)
class Verdict:
    """The library's answer to one graph.

    Attributes:
        case: of ``small_graphs``, without how it is typed.
        built: plain, prefer, obey or strong.
        accepted: a plan came of it; None where the process died of it.
        seconds: it took.
        errors: what the library said.
    """

    case: str
    built: str
    accepted: bool | None
    seconds: float
    errors: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.built}: {self.case}"


@dataclass(frozen=True)
class Compared:
    """All verdicts beside the recorded ones.

    Attributes:
        agree: how many.
        differ: the others, with both answers.
        missing: recorded ones that were not asked again.
        recorded_by: library of the record.
    """

    agree: int
    differ: tuple[str, ...]
    missing: int
    recorded_by: str
    verdicts: tuple[Verdict, ...]


def recorded() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(RECORDED.read_text())["verdicts"]
    return found


def all_graphs(lab: Any) -> Compared:
    """Ask again what was recorded; goes on where an earlier run of this cell was ended.

    Raises:
        AssertionError: an answer differs.
        Unfinished: some graphs were not asked in the time.
    """
    every = [(one["case"], one["built"]) for one in recorded()]
    if lab.dry:  # TensorRT-RTX has no weak typing
        every = [pair for pair in every if pair[1] == "strong"]
    asked = every[:: max(len(every) // lab.sample, 1)][: lab.sample] if lab.sample else every
    known = {f"{v['built']}: {v['case']}": Verdict(**v) for v in lab.earlier().get("verdicts", ())}
    due = [pair for pair in asked if f"{pair[1]}: {pair[0]}" not in known]
    until_s = time.monotonic() + lab.limit_s - ENDING_S
    for verdict in answers(due, until_s, WORKERS if not lab.dry else 1):
        known[verdict.key] = verdict
        lab.keep({"verdicts": [asdict(one) for one in known.values()]})
    found = compared(list(known.values()), len(every))
    lab.keep(found)
    assert not found.differ, f"{len(found.differ)} answers differ: {'; '.join(found.differ[:5])}"
    if found.missing:
        raise Unfinished(f"{found.agree} answers agree, {found.missing} graphs were not asked")
    return found


def compared(verdicts: list[Verdict], asked: int) -> Compared:
    """Beside the record."""
    before = {f"{one['built']}: {one['case']}": one["accepted"] for one in recorded()}
    differ = tuple(
        f"{one.key}: recorded {before[one.key]}, now {one.accepted} ({'; '.join(one.errors)[:200]})"
        for one in verdicts
        if one.accepted != before[one.key]
    )
    library = json.loads(RECORDED.read_text())["library"]
    return Compared(len(verdicts) - len(differ), differ, asked - len(verdicts), library, tuple(verdicts))


def answers(due: list[tuple[str, str]], until_s: float, workers: int) -> Iterator[Verdict]:
    """From several processes, each with one Builder; a graph that ends its process is answered by that."""
    pending, busy = list(due), {}
    for _ in range(min(workers, len(pending))):
        _give(_worker(), pending, busy)
    try:
        while busy and time.monotonic() < until_s:
            for pipe in wait(list(busy), timeout=1.0):
                process, (case, built), began_s = busy.pop(pipe)
                try:
                    verdict = Verdict(**pipe.recv())
                    following = (process, pipe)
                except EOFError:
                    process.join()
                    told = (f"the process ended with {process.exitcode}",)
                    verdict = Verdict(case, built, None, round(time.monotonic() - began_s, 1), told)
                    following = None
                if pending:
                    _give(following or _worker(), pending, busy)
                elif following:
                    following[0].kill()
                yield verdict
    finally:
        for process, _, _ in busy.values():
            process.kill()


def _worker() -> tuple[Any, Connection]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there,), daemon=True)
    process.start()
    there.close()
    return process, here


def _give(worker: tuple[Any, Any], pending: list[tuple[str, str]], busy: dict[Any, Any]) -> None:
    process, pipe = worker
    job = pending.pop(0)
    pipe.send(job)
    busy[pipe] = (process, job, time.monotonic())


def _work(pipe: Any) -> None:
    """A child: one Builder for all its graphs."""
    from vajra_edge.backends.tensorrt import library as tensorrt_library
    from vajra_edge.backends.tensorrt.log import LibraryLog, listening
    from vajra_edge.backends.tensorrt.network import builder

    library, lines = tensorrt_library.load(), LibraryLog()
    made = builder(library, lines)
    cases = {case.name: case for case in small_graphs.cases()}
    while True:
        case, built = pipe.recv()
        began_s = time.monotonic()
        with listening(lines):
            accepted, errors = _built(library, made, lines, cases[_name(case, built)], built)
        seconds = round(time.monotonic() - began_s, 1)
        pipe.send({"case": case, "built": built, "accepted": accepted, "seconds": seconds, "errors": tuple(errors)})


def _name(case: str, built: str) -> str:
    return f"{'strong' if built == 'strong' else 'weak'}: {case}"


def _built(library: Any, builder: Any, lines: Any, case: small_graphs.Case, way: str) -> tuple[bool, list[str]]:
    trt = library.trt
    strong = 0
    if library.has("NetworkDefinitionCreationFlag.STRONGLY_TYPED") and way == "strong":
        strong = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(strong)
    from vajra_edge.backends.tensorrt.log import logger

    parser = trt.OnnxParser(network, logger(library))
    if not parser.parse(case.onnx_bytes):
        told = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        return False, [*lines.errors, *told]
    config = builder.create_builder_config()
    config.builder_optimization_level = 0
    config.clear_flag(trt.BuilderFlag.TF32)
    if library.has("IBuilderConfig.max_num_tactics"):
        config.max_num_tactics = 2
    if way != "strong":
        _weak(library, config, network, case, way)
    plan = builder.build_serialized_network(network, config)
    return plan is not None, list(lines.errors) if plan is None else []


def _weak(library: Any, config: Any, network: Any, case: small_graphs.Case, way: str) -> None:
    from vajra_edge.backends.tensorrt.network import NODE, _pin

    flags = library.trt.BuilderFlag
    wanted = {
        "plain": (),
        "prefer": (flags.PREFER_PRECISION_CONSTRAINTS,),
        "obey": (flags.OBEY_PRECISION_CONSTRAINTS,),
    }
    for flag in (flags.FP16, flags.INT8, *wanted[way]):
        config.set_flag(flag)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        node = NODE.search(layer.metadata or "")
        if (node[1] if node else layer.name) in case.pins:
            _pin(library.trt, layer)
