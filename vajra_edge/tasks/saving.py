"""Saving: annotated copies of what predict saw, images as images and videos as videos."""

from __future__ import annotations

import itertools
import logging
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import VajraError
from vajra_edge.media.opencv import load_cv2
from vajra_edge.tasks.results import Results
from vajra_edge.tasks.sources import SourceImage

CODECS = ("avc1", "mp4v")
"""H.264 where this OpenCV has an encoder (a Jetson's own does), else MPEG-4 part 2: both play in VLC, mpv, ffplay,
QuickTime and Windows; OpenCV's wheels have no H.264 encoder, and VP8 in them takes 13 times as long as MPEG-4."""

TIMED = 10
"""Frames from whose times the rate of a video is worked out."""
_SLOWEST_FPS, _FASTEST_FPS, _FALLBACK_FPS = 0.1, 240.0, 25.0
FOLDER = Path("runs")
_LOGGER = logging.getLogger(__name__)


class Saver:
    """Writes into a new folder; nothing in it is replaced.

    Args:
        root: the folder is made below it: ``predict``, ``predict2`` ...
    """

    def __init__(self, root: Path = FOLDER) -> None:
        self.folder = _new_folder(root)
        self._taken: set[str] = set()
        self._video: Video | None = None
        self._video_path = ""

    def add(self, shot: SourceImage, made: Results) -> Path:
        """Write one image, or one frame more of its video, and say where.

        Raises:
            VajraError: the folder or a video cannot be written.
        """
        if shot.number is None:
            name = Path(shot.path)
            suffix = name.suffix if name.suffix.lower() in {".jpg", ".png"} else ".jpg"
            return made.save(self._place(name.stem, suffix))
        if self._video is None or shot.path != self._video_path or shot.number == 0:
            self.close()
            self._video, self._video_path = Video(self._place(_stem(shot), ".mp4")), shot.path
        self._video.add(made.plot(), shot.at_s)
        return self._video.path

    def close(self) -> None:
        """Finish the video; a second call does nothing."""
        if self._video is not None:
            self._video.close()
        self._video = None

    def _place(self, stem: str, suffix: str) -> Path:
        """A name that nothing has yet."""
        names = (f"{stem}{suffix}" if at == 1 else f"{stem}-{at}{suffix}" for at in itertools.count(1))
        name = next(name for name in names if name not in self._taken)
        self._taken.add(name)
        return self.folder / name


class Video:
    """One video file, under another name until it is whole.

    Attributes:
        path: where it goes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._aside = path.with_name(f".{path.name}.part{path.suffix}")
        self._waiting: list[NDArray[np.uint8]] = []
        self._times_s: list[float] = []
        self._size_wh = (0, 0)
        self._held = ExitStack()
        self._write = self._wait

    def add(self, image: NDArray[np.uint8], at_s: float) -> None:
        """One frame more; one of another size than the first is scaled to it."""
        self._times_s.append(at_s)
        self._write(image)

    def close(self) -> None:
        """Write what waits and give the file its name; a second call does nothing."""
        if self._waiting:
            self._begin()
        self._held.close()
        if self._aside.exists():
            self._aside.replace(self.path)

    def _wait(self, image: NDArray[np.uint8]) -> None:
        self._waiting.append(image)
        if len(self._waiting) == TIMED:
            self._begin()

    def _begin(self) -> None:
        cv2 = load_cv2()
        first = self._waiting[0]
        self._size_wh = (first.shape[1] & ~1, first.shape[0] & ~1)  # encoders halve the colour planes
        fps = _fps(self._times_s)
        for codec in CODECS:
            writer = cv2.VideoWriter(
                str(self._aside), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), fps, self._size_wh
            )
            if writer.isOpened():
                break
        else:
            raise VajraError(f"{self.path}: this OpenCV writes no video", remedy="save images, or install ffmpeg's")
        self._held.callback(writer.release)
        self._write = lambda image: writer.write(self._fitted(image))
        waiting, self._waiting = self._waiting, []
        for image in waiting:
            self._write(image)

    def _fitted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        width, height = self._size_wh
        if (image.shape[1] & ~1, image.shape[0] & ~1) == self._size_wh:
            return np.ascontiguousarray(image[:height, :width])
        scaled: NDArray[np.uint8] = load_cv2().resize(image, self._size_wh)
        return scaled


def _fps(times_s: list[float]) -> float:
    """Frames a second by the first frames' times."""
    lasted_s = times_s[-1] - times_s[0]
    fps = (len(times_s) - 1) / lasted_s if lasted_s > 0 else _FALLBACK_FPS
    return round(min(max(fps, _SLOWEST_FPS), _FASTEST_FPS), 3)


def _stem(shot: SourceImage) -> str:
    stem = Path(shot.path).stem if not shot.live else "camera"
    return stem or "video"


def _new_folder(root: Path) -> Path:
    for at in itertools.count(1):
        folder = root / ("predict" if at == 1 else f"predict{at}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise VajraError(
                f"{folder} cannot be made: {error.strerror}", remedy="work in a folder of yours"
            ) from error
        return folder
    raise AssertionError
