"""TensorRT's own MinMax calibrator: the second route to INT8, for libraries that still have it (up to 10.x).

The library runs the images itself while it builds, sets a scale for every tensor and then chooses INT8 wherever that is
faster (implicit quantization). Its cache, ``TRT-100600-MinMaxCalibration`` and one ``tensor: scale`` a line, is kept,
so that a rebuild with the same weights and images does not run them again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge import state_file
from vajra_edge.backends import cuda
from vajra_edge.backends.tensorrt import timing_cache
from vajra_edge.backends.tensorrt.library import Library
from vajra_edge.errors import UnsupportedSpec
from vajra_edge.graph.signature import Signature
from vajra_edge.progress import Report
from vajra_edge.quantization.calibration_set import Inputs
from vajra_edge.quantization.observer import Pass
from vajra_edge.quantization.ranges import key_of
from vajra_edge.wording import Setting, say

SUFFIX = ".cache"
FROM_CACHE = "the cache"
"""Where the scales came from, if they were not measured now; for the manifest."""

MOST_BYTES = 16 << 20
"""A larger file is not a cache: a network has hundreds of tensors, each a line."""


def offered(library: Library) -> bool:
    """Whether this library has the calibrator; 11.0 took it away."""
    return library.has("IBuilderConfig.int8_calibrator") and library.has("IInt8MinMaxCalibrator.get_batch")


def path_of(folder: Path, library: Library, onnx_bytes: bytes, resolution_hw: tuple[int, int], set_digest: str) -> Path:
    """Where the cache of these weights and images is kept; the library is part of the name, as it is of the content."""
    facts = (str(library), key_of(onnx_bytes, resolution_hw, set_digest, "minmax"))
    return folder / f"{hashlib.sha256(chr(10).join(facts).encode()).hexdigest()[:16]}{SUFFIX}"


class CalibrationFeed:
    """What the library asks for while it calibrates. Never raises into it; ``settle`` raises what was met.

    Args:
        images: the calibration set.
        signature: of the graph; as many images at a time as a static graph is made for.
        report: takes progress; may raise to stop.
        cache: the file of an earlier calibration; None: none is kept.
        fresh: measure even what the file has.

    Attributes:
        batch: images handed over at a time.
        source: where the scales came from, for the manifest.
        kept: name of the cache's file, or why there is none.
    """

    def __init__(
        self, images: Inputs, signature: Signature, report: Report, cache: Path | None, *, fresh: bool = False
    ) -> None:
        self.batch = 1 if signature.dynamic_batch else signature.batch
        self.source = FROM_CACHE
        self.kept = "none is kept"
        self._batches: Iterator[NDArray[np.float32]] = Pass(images, signature, report, "ranges").batches(self.batch)
        self._shape = (self.batch, 3, *signature.resolution_hw)
        self._cache, self._fresh = cache, fresh
        self._raised: BaseException | None = None
        self._buffer: cuda.DeviceBuffer | None = None

    def next(self) -> list[int] | None:
        """Device addresses of the next images, or None where there are no more or something failed."""
        self.source = "measured"
        try:
            batch = next(self._batches, None)
            return None if batch is None else [self._on_device(batch)]
        except BaseException as error:  # noqa: BLE001  the top of a foreign callback: nothing may pass into C++
            self._raised = error
            return None

    def read(self) -> bytes | None:
        """The kept cache; the library itself passes over one of another release."""
        if self._cache is None or self._fresh:
            return None
        try:
            stored = state_file.read(self._cache, MOST_BYTES)
        except OSError:
            return None
        digest, _, content = stored.partition(b"\n")
        if digest != _digest(content):
            return None  # a flipped bit would ruin a layer, and the library ends the process on some damaged files
        self.kept = self._cache.name
        return content

    def write(self, content: bytes) -> None:
        """Keep the cache behind a line with its digest, if every image was seen."""
        if self._cache is not None and self._raised is None:
            self.kept = timing_cache.keep(self._cache, _digest(content) + b"\n" + content)

    def settle(self) -> None:
        """Raise what a callback met: scales of a part of the images are no calibration."""
        if self._raised is not None:
            raise self._raised

    def close(self) -> None:
        """Give back the device's memory; a second call does nothing."""
        if self._buffer is not None:
            self._buffer.close()
            self._buffer = None

    def _on_device(self, batch: NDArray[np.float32]) -> int:
        whole = np.concatenate([batch, np.repeat(batch[-1:], self.batch - len(batch), axis=0)])
        if self._buffer is None:
            self._buffer = cuda.DeviceBuffer(whole.nbytes)
        self._buffer.fill(np.ascontiguousarray(whole, np.float32))
        return self._buffer.address


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def calibrator(library: Library, feed: CalibrationFeed) -> Any:
    """The object that the library calls; the caller keeps it alive until the build is over.

    Raises:
        UnsupportedSpec: the library has no calibrator.
    """
    if library.has("IInt8MinMaxCalibrator.get_batch"):
        return _calibrator(library, feed)
    raise UnsupportedSpec(f"{library} has no calibrator any more", remedy=say(Setting.QUANTIZATION.to("qdq")))


def _calibrator(library: Library, feed: CalibrationFeed) -> Any:
    trt = library.trt

    class Calibrator(trt.IInt8MinMaxCalibrator):  # type: ignore[name-defined, misc]  # a foreign class without types
        def __init__(self) -> None:
            trt.IInt8MinMaxCalibrator.__init__(self)

        def get_batch_size(self) -> int:
            return feed.batch

        def get_batch(self, names: list[str]) -> list[int] | None:
            del names
            return feed.next()

        def read_calibration_cache(self) -> bytes | None:
            return feed.read()

        def write_calibration_cache(self, cache: Any) -> None:
            feed.write(bytes(cache))

    return Calibrator()
