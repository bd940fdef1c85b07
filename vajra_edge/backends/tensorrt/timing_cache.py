"""Timing cache: how long each tactic took on this very device, kept between builds so that a rebuild is shorter."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vajra_edge import durable, state_file
from vajra_edge.backends.tensorrt.library import Library

MOST_BYTES = 256 << 20
"""A cache grows by a few MB a network; a larger one is begun anew."""

MOST_S = 86_400.0


def path_of(folder: Path, facts: Iterable[str]) -> Path:
    """Where timings of one device in one state are kept.

    Args:
        folder: for all caches.
        facts: library version, GPU, compute capability, power mode: timings of others would mislead the builder.
    """
    digest = hashlib.sha256()
    for fact in facts:
        digest.update(f"{len(fact)}:{fact}".encode())
    return folder / f"{digest.hexdigest()[:16]}.timing"


def use(library: Library, config: Any, path: Path | None) -> bool:
    """Give the builder what earlier builds measured.

    Returns:
        Whether the build takes part in timing at all; TensorRT-RTX, which builds ahead of time, does not.
    """
    if path is None or library.ahead_of_time:
        return False
    cache = config.create_timing_cache(_read(path))
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        # Damaged, or another library's after all: an empty one always fits.
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    return True


def measured(config: Any) -> bytes:
    """What the builder knows of tactics now, to be kept for the next build."""
    return bytes(config.get_timing_cache().serialize())


def keep(path: Path, content: bytes) -> str:
    """Write a cache beside the old file and then in its place.

    Returns:
        The file's name, or why it was not kept: a plan is worth more than its timings, so that a full disk is no error.
    """
    try:
        durable.make_folder(path.parent)
        durable.replace(path, content, path.parent)
        durable.make_newest(path, path.parent)
    except OSError as error:
        return f"not kept: {error.strerror}"
    return path.name


def expected_s(path: Path | None) -> float | None:
    """What the last build of the same kind took, or None."""
    if path is None:
        return None
    try:
        seconds = float(state_file.read(path))
    except (OSError, ValueError):
        return None
    return seconds if 0 < seconds < MOST_S else None


def _read(path: Path) -> bytes:
    try:
        return state_file.read(path, MOST_BYTES)
    except OSError:
        return b""
