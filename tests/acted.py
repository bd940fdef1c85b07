"""Sources that play a script, for a fork server of tests: what cameras, drivers and decoders do, at the wished moment.

A camera's ``source`` ends in the path of a JSON file: a list of openings, each a list of lines (see ``Acted.read``),
of which the last is played again and again. Whether it is live depends on the scheme, as always.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from colours import stored
from pictures import picture

from vajra_edge.capture import fork_server
from vajra_edge.capture.sources import registry
from vajra_edge.capture.sources.base import RawFrame, Source
from vajra_edge.capture.url import is_live
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError
from vajra_edge.media.refusals import SourceRefusal, SourceRefused
from vajra_edge.pixel_format import Colorimetry, Matrix, PixelFormat

COMMAND = (sys.executable, __file__)
LIVE = "rtsp://acted"


def script(path: Path, *openings: list[Any]) -> str:
    """Write a script; the ``source`` of a live camera that plays it."""
    path.write_text(json.dumps(openings))
    path.with_suffix(".played").unlink(missing_ok=True)
    return f"{LIVE}{path}"


def played(path: Path) -> int:
    """How many openings there were."""
    count = path.with_suffix(".played")
    return len(count.read_text()) if count.exists() else 0


class Acted:
    """One opening of a script."""

    decode_errors = 0

    def __init__(self, camera: CameraSettings, path: Path) -> None:
        self.live = is_live(camera.source)
        count = path.with_suffix(".played")
        openings = json.loads(path.read_text())
        number = len(count.read_text()) if count.exists() else 0
        with count.open("a") as file:
            file.write(".")
        self._lines = list(openings[min(number, len(openings) - 1)])
        self._frames: Any = iter(())
        self._closed = path.with_suffix(".closed")

    def open(self) -> None:
        """Plays lines that begin with "open"."""
        while self._lines and isinstance(self._lines[0], list) and self._lines[0][0] == "open":
            self._do(self._lines.pop(0)[1:])

    def read(self) -> RawFrame | None:
        """The next frame of the script; null ends it, and so does its end with an error."""
        while True:
            if (frame := next(self._frames, None)) is not None:
                return frame
            if not self._lines:
                raise SourceError("the stream ended")
            line = self._lines.pop(0)
            if line is None:
                return None
            if isinstance(line, int):
                return RawFrame(picture(line))
            self._do(line)

    def close(self) -> None:
        """Tells that it was closed."""
        self._closed.touch()

    def _do(self, line: list[Any]) -> None:
        getattr(self, f"_{line[0]}")(*line[1:])

    def _fail(self, text: str) -> None:
        raise SourceError(text)

    def _refuse(self) -> None:
        raise SourceRefused(SourceRefusal.WRONG_PASSWORD).told_of("the camera")

    def _bug(self, text: str) -> None:
        raise ValueError(text)

    def _until(self, path: str) -> None:
        while not Path(path).exists():
            time.sleep(0.01)

    def _tell(self, path: str) -> None:
        Path(path).touch()

    def _nap(self, seconds: float) -> None:
        time.sleep(seconds)

    def _signal(self, name: str) -> None:
        os.kill(os.getpid(), signal.Signals[f"SIG{name}"])

    def _crash(self) -> None:
        ctypes.string_at(0)

    def _say(self, text: str) -> None:
        os.write(2, f"{text}\n".encode())

    def _exit(self, code: int) -> None:
        os._exit(code)

    def _hold(self, count: int) -> None:
        self._held = np.ones(count, np.uint8)

    def _spawn(self, seconds: str) -> None:
        subprocess.Popen(["sleep", seconds])
        time.sleep(float(seconds))

    def _damaged(self, count: int) -> None:
        self.decode_errors += count

    def _late(self, number: int, age_s: float, left_out: int) -> None:
        self._frames = iter([RawFrame(picture(number), age_s=age_s, left_out=left_out)])

    def _give(self, number: int, pixels: str, matrix: str, full_range: bool) -> None:
        meaning = Colorimetry(Matrix[matrix], full_range)
        image = stored(picture(number), PixelFormat[pixels], meaning)
        self._frames = iter([RawFrame(image, pixels=PixelFormat[pixels], colorimetry=meaning)])

    def _paint(self, width: int, height: int, count: int | None, fps: float) -> None:
        self._frames = _painted(width, height, count, fps, self.live)


def _painted(width: int, height: int, count: int | None, fps: float, live: bool) -> Any:
    """Pictures that hold their number in each pixel, as three bytes; as fast as they are read where ``fps`` is 0."""
    began_s = time.monotonic()
    image = np.empty((height, width, 3), np.uint8)
    for number in itertools.count() if count is None else range(count):
        image[:] = np.frombuffer(number.to_bytes(3, "little"), np.uint8)
        if fps and live and (left_s := began_s + number / fps - time.monotonic()) > 0:
            time.sleep(left_s)
        yield RawFrame(image, None if live else number / (fps or 25.0))


def painted(image: np.ndarray) -> int:
    """The number of a painted picture; -1 where it is mixed from two."""
    whole = (image[0] == image[0, 0]).all() and (image == image[0]).all()
    return int.from_bytes(image[0, 0].tobytes(), "little") if whole else -1


def make(camera: CameraSettings) -> Source:
    """A script where the source is one, else what the product makes."""
    path = Path(re.sub(r"^rtsp://(.*@)?acted", "", camera.source))
    return Acted(camera, path) if path.suffix == ".json" else registry.make(camera)


if __name__ == "__main__":
    fork_server.main(make)
