"""Kernels of a module: what reaches the driver, and what is given back."""

from __future__ import annotations

from pathlib import Path

import pytest
from backends.cuda_machine import Machine

PREPARED = """
import ctypes
from vajra_edge.backends import cuda
from vajra_edge.backends.cuda.module import Module
library = ctypes.CDLL("libcuda.so.1")
library.fake_launched.restype = ctypes.POINTER(ctypes.c_uint)
CODE = b"\\x7fELF" + bytes(60)
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path).driver().runtime()


def test_a_launch_passes_grid_block_and_each_argument_by_its_type(machine: Machine) -> None:
    code = f"""{PREPARED}
with cuda.Stream() as stream, Module(CODE, ["kernel"]) as module:
    given = [ctypes.c_void_p(0x123456789A), ctypes.c_int(-7)]
    module.prepared("kernel", (20, 80, 4), (32, 8, 1), given).queue(stream)
seen = library.fake_launched()
answer = [list(seen[:6]), seen[6] | seen[7] << 32, ctypes.c_int(seen[8]).value, library.fake_modules()]
"""
    assert machine.run(code) == [[20, 80, 4, 32, 8, 1], 0x123456789A, -7, 0]


@pytest.mark.parametrize(
    ("opened", "refused"),
    [
        ('Module(b"no code", ["kernel"])', "cuModuleLoadData"),
        ('Module(CODE, ["kernel", "absent"])', "cuModuleGetFunction"),
    ],
)
def test_code_that_does_not_load_leaves_nothing(machine: Machine, opened: str, refused: str) -> None:
    code = f"""{PREPARED}
try:
    {opened}
except cuda.CudaRefused as error:
    answer = [error.call, library.fake_modules()]
"""
    assert machine.run(code) == [refused, 0]


def test_a_thousand_modules_opened_and_closed_twice_leave_nothing(machine: Machine) -> None:
    code = f"""{PREPARED}
for _ in range(1000):
    module = Module(CODE, ["kernel"])
    module.close()
    module.close()
answer = library.fake_modules()
"""
    assert machine.run(code) == 0
