"""The library's one logger: whose lines take a message, and that it outlives every object that was given it."""

from __future__ import annotations

import gc
import importlib.util
import subprocess
import sys
import threading
import weakref

import pytest
from backends.trt_simulation import Simulation
from waiting import LIMIT_S

from vajra_edge.backends.tensorrt import library as tensorrt_library
from vajra_edge.backends.tensorrt.library import Library
from vajra_edge.backends.tensorrt.log import LibraryLog, build_failure, listening, logger
from vajra_edge.errors import BuildError, OutOfMemory


def library_of(simulation: Simulation) -> Library:
    return tensorrt_library.of(simulation.module)


def say(library: Library, message: str) -> None:
    logger(library).log(library.trt.ILogger.ERROR, message)


def test_every_object_of_a_library_is_given_the_same_logger_for_the_life_of_the_process() -> None:
    simulation = Simulation("10.3.0")
    first = weakref.ref(logger(library_of(simulation)))
    gc.collect()
    assert first() is logger(library_of(simulation))
    assert first() is not logger(library_of(Simulation("10.3.0")))


def test_lines_hear_what_is_said_while_they_listen_and_forget_it_when_they_listen_again() -> None:
    library, lines = library_of(Simulation("10.3.0")), LibraryLog()
    say(library, "before")
    with listening(lines):
        say(library, "within")
        logger(library).log(library.trt.ILogger.WARNING, "slow")
        logger(library).log(library.trt.ILogger.INFO, "chatter")
    say(library, "after")
    assert (list(lines.errors), list(lines.warnings)) == (["within"], ["slow"])
    with listening(lines):
        assert lines.reason() == "the library gave no reason"


def test_the_innermost_block_of_a_thread_hears() -> None:
    library, outer, inner = library_of(Simulation("10.3.0")), LibraryLog(), LibraryLog()
    with listening(outer):
        with listening(inner):
            say(library, "inspecting")
        say(library, "building")
    assert (list(outer.errors), list(inner.errors)) == (["building"], ["inspecting"])


def test_a_plan_that_runs_does_not_hear_one_that_is_loaded_in_another_thread() -> None:
    library, running, loading = library_of(Simulation("10.3.0")), LibraryLog(), LibraryLog()

    def load() -> None:
        with listening(loading):
            say(library, "the plan is refused")

    with listening(running):
        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
        say(library, "the call is refused")
    assert (list(running.errors), list(loading.errors)) == (["the call is refused"], ["the plan is refused"])


def test_the_library_s_own_threads_are_heard_by_all_who_listen() -> None:
    library, lines = library_of(Simulation("10.3.0")), LibraryLog()
    with listening(lines):
        thread = threading.Thread(target=say, args=(library, "no tactic"))
        thread.start()
        thread.join()
    assert list(lines.errors) == ["no tactic"]


SWAP = """
import gc
from vajra_edge.backends.tensorrt import library as trt_library
from vajra_edge.backends.tensorrt.log import LibraryLog, listening
from vajra_edge.backends.tensorrt.network import builder

library = trt_library.load()
before = builder(library, LibraryLog())
after = builder(library, LibraryLog())
del before
gc.collect()
lines = LibraryLog()
with listening(lines):
    library.trt.get_plugin_registry().load_library("/absent.so")
print(lines.reason())
"""


@pytest.mark.skipif(
    not any(importlib.util.find_spec(name) for name in tensorrt_library.MODULES), reason="absent here: TensorRT-RTX"
)
def test_the_registered_logger_is_alive_after_the_object_that_registered_it_is_gone() -> None:
    ended = subprocess.run([sys.executable, "-c", SWAP], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (ended.returncode, "/absent.so" in ended.stdout) == (0, True), ended.stderr


QUANTIZED_SUM = (
    "[optimizer.cpp::filterQDQFormats::5027] Error Code 2: Internal Error (Assertion !n->candidateRequirements.empty() "
    "failed. model.0.sppf_attn.attn.0.attn.proj.conv.weight_int8 + /model.0/sppf_attn/attn/attn.0/attn/proj/conv/Conv "
    "+ /model.0/sppf_attn/attn/attn.0/Add[CONVOLUTION]: All of the candidates were removed, which points to the node "
    "being incorrectly marked as an int8 node.)"
)
NO_TACTIC = (
    "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation for node "
    "/model.0/neck4/block.0/conv/Conv + PWN(/model.0/neck4/block.0/act/Sigmoid, /model.0/neck4/block.0/act/Mul).)"
)
REDUCTIONS = (
    "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation for node "
    "{ForeignNode[/probe/low/images.../probe/low]}.)"
)
NO_FORMAT = (
    "[optimizer.cpp::getFormatRequirements::3299] Error Code 2: Internal Error (Assertion "
    "!n->candidateRequirements.empty() failed. No supported formats for constant_0 + convtranspose_7, please check the "
    "TensorRT operator doc (https://docs.nvidia.com/deeplearning/tensorrt/operators/docs/index.html) for supported "
    "formats.)"
)
NO_WORDS = "IBuilder::buildSerializedNetwork: Error Code 1: Cask (no further information)"
PASSED_OVER = "Error Code: 9: Skipping tactic 0x0000000000000009 due to exception Assertion x failed. "
LITTLE_MEMORY = "Tactic Device request: 4607MB Available: 1024MB. Device memory is insufficient to use tactic."


def said(*errors: str, warnings: tuple[str, ...] = ()) -> LibraryLog:
    """Recorded of TensorRT 10.6 on an H100, but for the warning, which is a Jetson's (TensorRT#3355)."""
    lines = LibraryLog()
    lines.errors.extend(errors)
    lines.warnings.extend(warnings)
    return lines


@pytest.mark.parametrize(
    ("error", "layers"),
    [
        (
            QUANTIZED_SUM,
            (
                "model.0.sppf_attn.attn.0.attn.proj.conv.weight_int8",
                "/model.0/sppf_attn/attn/attn.0/attn/proj/conv/Conv",
                "/model.0/sppf_attn/attn/attn.0/Add",
            ),
        ),
        (
            NO_TACTIC,
            (
                "/model.0/neck4/block.0/conv/Conv",
                "/model.0/neck4/block.0/act/Sigmoid",
                "/model.0/neck4/block.0/act/Mul",
            ),
        ),
        (REDUCTIONS, ("/probe/low/images", "/probe/low")),
        (NO_FORMAT, ("constant_0", "convtranspose_7")),
    ],
    ids=["quantized sum", "no tactic", "myelin region", "no format"],
)
def test_a_region_without_implementation_is_a_refusal_that_names_its_layers(
    error: str, layers: tuple[str, ...]
) -> None:
    failure = build_failure(said(error))
    assert type(failure) is BuildError
    assert failure.values["layers"] == layers
    assert "memory" not in str(failure)


def test_no_implementation_is_want_of_memory_where_tactics_were_passed_over_for_it() -> None:
    assert isinstance(build_failure(said(NO_TACTIC, warnings=(LITTLE_MEMORY,))), OutOfMemory)


def test_a_tactic_that_was_passed_over_is_not_the_reason() -> None:
    failure = build_failure(said(PASSED_OVER, PASSED_OVER, NO_TACTIC))
    assert "Skipping" not in str(failure)
    assert "/model.0/neck4/block.0/conv/Conv" in str(failure)


def test_memory_warnings_of_a_build_that_failed_for_another_reason_are_not_its_reason() -> None:
    assert type(build_failure(said(QUANTIZED_SUM, warnings=(LITTLE_MEMORY,)))) is BuildError


@pytest.mark.parametrize(
    "error",
    [
        "CUDA initialization failure with error: 2",
        "[memory.cpp] CUDA_ERROR_OUT_OF_MEMORY",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "NvMapMemAllocInternalTagged: 1075072515 error 12",
    ],
)
def test_want_of_memory_has_many_words(error: str) -> None:
    assert isinstance(build_failure(said(error)), OutOfMemory)


def test_a_tactic_passed_over_for_memory_makes_no_refusal_of_the_graph_one_of_memory() -> None:
    skipped = "Skipping tactic 0x3 due to insufficient memory on requested size of 4831838208 detected."
    assert type(build_failure(said(skipped, QUANTIZED_SUM))) is BuildError
    assert isinstance(build_failure(said(skipped, NO_TACTIC)), OutOfMemory)


def test_an_error_without_words_is_want_of_memory_where_little_was_free_and_nowhere_else() -> None:
    assert isinstance(build_failure(said(NO_WORDS), scarce=True), OutOfMemory)
    assert type(build_failure(said(NO_WORDS))) is BuildError
    assert type(build_failure(said(QUANTIZED_SUM), scarce=True)) is BuildError
