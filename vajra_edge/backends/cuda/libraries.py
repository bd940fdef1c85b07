"""Where CUDA's libraries lie on a machine, of releases that its driver takes."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

MAJORS = (13, 12)
"""Releases whose declarations are ours, the newest first."""

ROOTS = (Path("/usr/local"), Path("/usr/lib"), Path("/opt"))
FOLDERS = ("cuda*/lib64", "cuda*/targets/*/lib", "*-linux-gnu")
"""Where NVIDIA's packages and distributions put them, should the loader's own search not find them."""

WHEELS = ("nvidia/cu{major}/lib", "nvidia/cuda_runtime/lib", "nvidia/cuda_nvrtc/lib")


def candidates(stem: str, newest: int) -> Iterator[str]:
    """Paths of a library for the loader, its own search first, of releases that the driver takes.

    Args:
        stem: like ``libcudart``.
        newest: the newest CUDA that the driver runs, like 12060.
    """
    fitting = [major for major in MAJORS if major <= newest // 1000] or MAJORS[-1:]
    for major in fitting:
        soname = f"{stem}.so.{major}"
        yield soname
        for folder in _folders(major):
            if (path := folder / soname).exists():
                yield str(path)


def _folders(major: int) -> Iterator[Path]:
    for root in ROOTS:
        for pattern in FOLDERS:
            yield from sorted(root.glob(pattern), reverse=True)
    found = importlib.util.find_spec("nvidia")
    for place in (found.submodule_search_locations or ()) if found is not None else ():
        yield from (Path(place).parent / name.format(major=major) for name in WHEELS)
