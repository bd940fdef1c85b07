"""Our kernels compiled for the processor, and called on numpy's memory."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from vajra_edge.backends.cuda import sources

HERE = Path(__file__).parent

WRAPPERS = {
    "letterbox": """
#define RUN(name, type) extern "C" void run_##name(unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, \\
    const FrameBlock *frames, type *input, int columns, int rows) { \\
    launch({x, y, z}, {bx, by, 1}, false, false, [&] { name(frames, input, columns, rows); }); }
RUN(letterbox_f32, float)
RUN(letterbox_f16, u16)
extern "C" int size_of_block() { return sizeof(FrameBlock); }
#define CALL(name, type) extern "C" void call_##name( \
    unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz, void **given) { \
    launch({x, y, z}, {bx, by, bz}, false, false, [&] { \
        name(TAKEN(0, const FrameBlock *), TAKEN(1, type *), TAKEN(2, int), TAKEN(3, int)); }); }
CALL(letterbox_f32, float)
CALL(letterbox_f16, u16)
""",
    "detections": """
#define RUN(kind, type) extern "C" void run_##kind(unsigned images, unsigned threads, int backward, \\
    const type *output, const ImageBlock *blocks, u64 *keys, int *labels, Tally *tallies, Row *rows, u32 *overlapped, \\
    Row *found, Answer *answers, int anchors, int classes, int most_rows) { \\
    Dim grid = {(anchors + threads - 1) / threads, images, 1}, block = {threads, 1, 1}; \\
    launch(grid, block, false, backward, [&] { \\
        candidates_##kind(output, blocks, keys, labels, tallies, anchors, classes); }); \\
    launch(grid, block, true, backward, [&] { \\
        ranked_##kind(output, blocks, keys, labels, tallies, rows, anchors, classes); }); \\
    launch({MOST_CANDIDATES * WORDS / threads, images, 1}, block, false, backward, [&] { \\
        overlaps(rows, tallies, blocks, overlapped); }); \\
    launch({images, 1, 1}, block, true, backward, [&] { \\
        kept(rows, overlapped, blocks, tallies, found, answers, most_rows); }); }
RUN(f32, float)
RUN(f16, u16)
extern "C" int size_of_block() { return sizeof(ImageBlock); }
#define SIZES unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz, void **given
#define CALL(kind, type) extern "C" void call_candidates_##kind(SIZES) { \
    launch({x, y, z}, {bx, by, bz}, false, false, [&] { candidates_##kind(TAKEN(0, const type *), \
        TAKEN(1, const ImageBlock *), TAKEN(2, u64 *), TAKEN(3, int *), TAKEN(4, Tally *), TAKEN(5, int), \
        TAKEN(6, int)); }); } \
extern "C" void call_ranked_##kind(SIZES) { \\
    launch({x, y, z}, {bx, by, bz}, true, false, [&] { ranked_##kind(TAKEN(0, const type *), \\
        TAKEN(1, const ImageBlock *), TAKEN(2, const u64 *), TAKEN(3, const int *), TAKEN(4, const Tally *), \\
        TAKEN(5, Row *), TAKEN(6, int), TAKEN(7, int)); }); }
CALL(f32, float)
CALL(f16, u16)
extern "C" void call_overlaps(SIZES) { launch({x, y, z}, {bx, by, bz}, false, false, [&] { \\
    overlaps(TAKEN(0, const Row *), TAKEN(1, const Tally *), TAKEN(2, const ImageBlock *), TAKEN(3, u32 *)); }); }
extern "C" void call_kept(SIZES) { launch({x, y, z}, {bx, by, bz}, true, false, [&] { kept(TAKEN(0, const Row *), \\
    TAKEN(1, const u32 *), TAKEN(2, const ImageBlock *), TAKEN(3, Tally *), TAKEN(4, Row *), TAKEN(5, Answer *), \\
    TAKEN(6, int)); }); }
extern "C" int size_of_row() { return sizeof(Row); }
extern "C" int size_of_answer() { return sizeof(Answer); }
extern "C" int size_of_tally() { return sizeof(Tally); }
extern "C" int most_candidates() { return MOST_CANDIDATES; }
""",
}

TAKEN = "#define TAKEN(index, type) (*(type *)given[index])"
"""An argument of a launch, as the driver is given them: by address."""


@cache
def library(name: str, folder: Path) -> ctypes.CDLL:
    """One source with its wrapper."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("absent here: a C++ compiler")
    text = sources.source(name).removeprefix(sources.text(sources.COMMON))
    (folder / f"{name}.cpp").write_text(f'#include "cuda_shim.h"\n{text}\n{TAKEN}\n{WRAPPERS[name]}')
    made = folder / f"lib{name}.so"
    flags = ["-shared", "-fPIC", "-O2", "-std=c++17", "-ffp-contract=off", "-Wall", "-Wno-unused-function", f"-I{HERE}"]
    subprocess.run([compiler, *flags, "-o", str(made), str(folder / f"{name}.cpp")], check=True)
    return ctypes.CDLL(str(made))
