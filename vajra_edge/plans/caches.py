"""Build caches: what builds write beside the store to make the next one shorter; only the newest are kept."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from vajra_edge import clock
from vajra_edge.clock import Moment
from vajra_edge.plans.manifest import Manifest

STALE_S = 3600.0
"""A file is written within seconds; one without its name that is older was abandoned by a kill."""


@dataclass(frozen=True)
class CacheFolder:
    """One kind of file.

    Attributes:
        path: below the state directory.
        suffix: of the files that count; others are being written, or were abandoned.
        kept: the newest so many stay, and those that a kept plan was made with.
    """

    path: str
    suffix: str
    kept: int


RANGES = CacheFolder("calibration/ranges", ".json", 8)
"""One for each weights file, set of images and algorithm, up to a MB: who goes back to earlier ones goes back a few."""

TIMING = CacheFolder("timing", ".timing", 16)
"""A few bytes for each kind of build, some MB for each TensorRT, GPU and power mode: more than one device goes to and
fro between."""

REFUSALS = CacheFolder("refusals", ".json", 16)
"""A few KB for each fingerprint of which something was refused."""

CALIBRATION_CACHES = CacheFolder("calibration/caches", ".cache", 8)
"""What TensorRT's own calibrator measured, some tens of KB for each weights file and set of images."""

KERNELS = CacheFolder("kernels", ".cubin", 8)
"""Our kernels, compiled: some tens of KB for each source and architecture."""

FOLDERS = (RANGES, TIMING, REFUSALS, CALIBRATION_CACHES, KERNELS)


def prune(state_dir: Path, plans: Collection[Manifest], now: Moment | None = None) -> tuple[Path, ...]:
    """Delete the oldest beyond what is kept.

    Args:
        state_dir: the folders lie below it.
        plans: those whose files stay however old they are: what serves, and what may serve again.
        now: this moment; None: read it.

    Returns:
        What was deleted.

    Raises:
        OSError: a file cannot be deleted.
    """
    used = {name for plan in plans for name in used_by(plan)}
    return tuple(path for folder in FOLDERS for path in thin(state_dir, folder, used, now))


def thin(
    state_dir: Path, folder: CacheFolder, used: Collection[str] = (), now: Moment | None = None
) -> tuple[Path, ...]:
    """Delete the oldest of one kind, as ``prune`` does.

    Args:
        state_dir: the folder lies below it.
        folder: which kind.
        used: names of files that stay however old they are.
        now: this moment; None: read it.

    Returns:
        What was deleted.

    Raises:
        OSError: a file cannot be deleted.
    """
    gone = tuple(_surplus(state_dir / folder.path, folder, used, clock.now() if now is None else now))
    for path in gone:
        path.unlink(missing_ok=True)
    return gone


def used_by(manifest: Manifest) -> Iterator[str]:
    """Names of the files that a plan's build read or wrote, those of refused precisions too."""
    for plan in manifest.report.plans():
        if (made := plan.tensorrt) is not None:
            yield from filter(None, (made.timing_cache, made.timing_expected, made.calibration_cache))
        if plan.int8 is not None and plan.int8.ranges is not None:
            yield f"{plan.int8.ranges.key}{RANGES.suffix}"


def _surplus(path: Path, folder: CacheFolder, used: Collection[str], now: Moment) -> Iterator[Path]:
    found = sorted(_dated(path), reverse=True)
    free = [one for _, one in found if one.suffix == folder.suffix and one.name not in used]
    yield from free[folder.kept :]
    yield from (one for at_s, one in found if one.suffix != folder.suffix and clock.is_older(at_s, STALE_S, now))


def _dated(path: Path) -> Iterator[tuple[float, Path]]:
    """Files with their times; a build that goes on may take one away meanwhile."""
    for one in path.iterdir() if path.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            yield one.lstat().st_mtime, one
