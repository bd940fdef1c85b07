"""Appsink: a running GStreamer pipeline from which pictures are pulled, through PyGObject.

OpenCV runs pipelines too, where it was built for that; it hides why one does not start, and hangs where one is silent.
PyGObject is the system's, never a wheel.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.capture.sources import jetson
from vajra_edge.capture.sources.base import RawFrame
from vajra_edge.errors import SourceError
from vajra_edge.media.bgr import to_bgr
from vajra_edge.media.deadline import Deadline
from vajra_edge.media.opencv import load_cv2
from vajra_edge.media.pixels import check_size
from vajra_edge.pixel_format import Colorimetry, Matrix, PixelFormat

PACKAGES = "python3-gi gir1.2-gst-plugins-base-1.0"
"""Of Debian and Ubuntu alike: PyGObject, and what tells it of GstApp and GstVideo, which brings what tells of Gst."""
_LONGEST_NAME = 40
_MOST_SD_ROWS = 576
_NVMM = "memory:NVMM"
_STEP_S = 0.25
"""An error that the pipeline posts ends a wait within this time."""


class Failing(Enum):
    """What of a pipeline failed."""

    TEXT = "text"
    NETWORK = "network or device"
    STREAM = "stream"
    SILENCE = "silence"
    END = "end"


class PipelineFailed(Exception):
    """A pipeline gives no pictures.

    Attributes:
        what: of it.
        told: GStreamer's words, which may quote an address with its password.
    """

    def __init__(self, what: Failing, told: str) -> None:
        super().__init__(told)
        self.what, self.told = what, told


@dataclass(frozen=True)
class _Gst:
    """The modules of PyGObject."""

    core: Any
    video: Any
    glib: Any


def why_no_gobject() -> str:
    """Why PyGObject cannot run pipelines here; empty where it can. GStreamer itself is not started for that."""
    try:
        _modules()
    except (ImportError, ValueError) as error:
        return f"PyGObject with GStreamer is not there ({error})"
    return ""


def _modules() -> _Gst:
    import gi

    for name in ("Gst", "GstApp", "GstVideo"):
        gi.require_version(name, "1.0")
    from gi.repository import GLib, Gst, GstApp, GstVideo  # noqa: F401  GstApp gives appsinks their methods

    return _Gst(Gst, GstVideo, GLib)


def _load() -> _Gst:
    gst = _modules()
    gst.core.init(None)
    return gst


def missing(elements: tuple[str, ...]) -> tuple[str, ...]:
    """Which elements this machine's GStreamer lacks."""
    gst = _load()
    return tuple(name for name in elements if gst.core.ElementFactory.find(name) is None)


class Appsink:
    """A pipeline that runs between ``open`` and ``close``.

    Args:
        name: how errors call it, without passwords.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._gst = _load()
        self._pipeline: Any = None
        self._sink: Any = None
        self._first: Any = None
        self._unknown = ""

    def open(self, text: str, deadline: Deadline) -> None:
        """Start it and wait for its first picture.

        Args:
            text: with an appsink in it.
            deadline: of the first picture.

        Raises:
            PipelineFailed: it does not start, or gives none in time.
        """
        core = self._gst.core
        try:
            self._pipeline = core.parse_launch(text)
        except self._gst.glib.Error as error:
            raise PipelineFailed(Failing.TEXT, error.message) from None
        self._sink = self._pipeline.get_by_name("pictures") or self._only_sink()
        if (source := self._pipeline.get_by_name(jetson.SOURCE)) is not None:
            source.connect("pad-added", self._lead)
        for key, value in (("sync", False), ("drop", True), ("max-buffers", 1)):
            self._sink.set_property(key, value)
        if self._pipeline.set_state(core.State.PLAYING) == core.StateChangeReturn.FAILURE:
            self._look()
            raise PipelineFailed(Failing.NETWORK, "it does not start")
        self._first = self._sample(deadline)

    def read(self, deadline: Deadline) -> RawFrame:
        """The next picture.

        Raises:
            PipelineFailed: it ended, fell silent or failed.
            SourceError: the picture has a format that is not known, or is too large.
        """
        sample, self._first = self._first or self._sample(deadline), None
        caps = sample.get_caps()
        info = self._gst.video.VideoInfo.new_from_caps(caps)
        if info is None:
            raise SourceError(f"{self._name} gives no raw video", remedy="put a decoder before the appsink")
        if (memory := caps.get_features(0)) is not None and memory.contains(_NVMM):
            raise SourceError(
                f"{self._name} gives pictures that the CPU cannot read ({_NVMM})",
                remedy="end it with nvvidconv ! video/x-raw,format=BGRx ! appsink",
            )
        check_size(info.width, info.height, self._name)
        buffer = sample.get_buffer()
        content = np.frombuffer(buffer.extract_dup(0, buffer.get_size()), np.uint8)
        if len(content) < info.size:
            raise SourceError(f"{self._name} gives {len(content)} bytes where its caps say {info.size}")
        return _picture(content, info, self._name)

    def close(self) -> None:
        """Stop it; idempotent."""
        if self._pipeline is not None:
            self._pipeline.set_state(self._gst.core.State.NULL)
        self._pipeline = self._sink = self._first = None

    def _lead(self, _: Any, pad: Any) -> None:
        """Lead a stream of pictures from the network to the decoder; in a thread of GStreamer's, so nothing raises."""
        told = (pad.get_current_caps() or pad.query_caps(None)).get_structure(0)
        if told.get_string("media") != "video":
            return
        codec = told.get_string("encoding-name") or ""
        parser = jetson.PARSERS.get(codec)
        if parser is None:
            self._unknown = f"the decoder does not take {codec[:_LONGEST_NAME] or 'a codec without a name'}"
            return
        elements = [self._gst.core.ElementFactory.make(name) for name in parser]
        if None in elements:
            self._unknown = f"GStreamer has no {' or '.join(parser)}: install gstreamer1.0-plugins-good and -bad"
            return
        for element in elements:
            self._pipeline.add(element)
        unpack, parse = elements
        unpack.link(parse)
        parse.link(self._pipeline.get_by_name(jetson.DECODER))
        pad.link(unpack.get_static_pad("sink"))
        for element in (parse, unpack):
            element.sync_state_with_parent()

    def _only_sink(self) -> Any:
        found = []
        sinks, more = self._pipeline.iterate_sinks(), self._gst.core.IteratorResult.OK
        while (step := sinks.next())[0] == more:
            found += [step[1]] if step[1].get_factory().get_name() == "appsink" else []
        if len(found) != 1:
            raise PipelineFailed(Failing.TEXT, f"{len(found)} appsinks where one is expected")
        return found[0]

    def _sample(self, deadline: Deadline) -> Any:
        while True:
            step_s = max(0.0, min(_STEP_S, float(deadline)))
            sample = self._sink.try_pull_sample(int(step_s * self._gst.core.SECOND))
            if sample is not None:
                return sample
            if self._unknown:
                raise PipelineFailed(Failing.STREAM, self._unknown)
            self._look()
            if deadline.passed:
                raise PipelineFailed(Failing.SILENCE, "no picture came")

    def _look(self) -> None:
        """Raise what the pipeline posted of its end."""
        kinds = self._gst.core.MessageType
        posted = self._pipeline.get_bus().pop_filtered(kinds.ERROR | kinds.EOS)
        if posted is None:
            return
        if posted.type == kinds.EOS:
            raise PipelineFailed(Failing.END, "it ended")
        error, _ = posted.parse_error()
        domain = self._gst.glib.quark_to_string(error.domain) if isinstance(error.domain, int) else str(error.domain)
        raise PipelineFailed(Failing.NETWORK if "resource" in domain else Failing.STREAM, error.message)


def _picture(content: NDArray[np.uint8], info: Any, name: str) -> RawFrame:
    """A picture as it came where a format of ours, else as BGR; by what its caps say of its rows."""
    cv2 = load_cv2()
    format_name, width, height, stride = info.finfo.name, info.width, info.height, info.stride[0]

    def packed(channels: int) -> NDArray[np.uint8]:
        rows = content[: height * stride].reshape(height, stride)
        return np.ascontiguousarray(rows[:, : width * channels]).reshape(height, width, channels)

    match format_name:
        case "BGR":
            return RawFrame(packed(3))
        case "BGRx" | "BGRA":
            return RawFrame(packed(4), pixels=PixelFormat.BGRX)
        case "RGB":
            return RawFrame(np.asarray(cv2.cvtColor(packed(3), cv2.COLOR_RGB2BGR), np.uint8))
        case "RGBx" | "RGBA":
            return RawFrame(np.asarray(cv2.cvtColor(packed(4), cv2.COLOR_RGBA2BGR), np.uint8))
        case "GRAY8":
            return RawFrame(np.asarray(cv2.cvtColor(packed(1), cv2.COLOR_GRAY2BGR), np.uint8))
        case "NV12":
            return _of_nv12(content, info)
        case _:
            raise SourceError(
                f"{name} gives pictures as {format_name}", remedy="end it with video/x-raw,format=BGRx ! appsink"
            )


def _of_nv12(content: NDArray[np.uint8], info: Any) -> RawFrame:
    """NV12 as it came, or as BGR where a side is odd: GStreamer pads that one (``gst_video_info_set_format``)."""
    width, height, stride = info.width, info.height, info.stride[0]
    columns, rows = (width + 1) // 2 * 2, (height + 1) // 2 * 2
    planes = content[: rows * 3 // 2 * stride].reshape(-1, stride)[:, :columns]
    meaning = _colorimetry(info)
    if (columns, rows) == (width, height):
        return RawFrame(np.ascontiguousarray(planes), pixels=PixelFormat.NV12, colorimetry=meaning)
    bgr = to_bgr(planes, PixelFormat.NV12, meaning)
    return RawFrame(np.ascontiguousarray(bgr[:height, :width]))


def _colorimetry(info: Any) -> Colorimetry:
    """What NV12 means, as the caps say.

    Of caps that say nothing ``GstVideoInfo`` does, and this with it: luma from 16 to 235, in BT.601 up to 576 rows and
    in BT.709 above (seen in 1.22). So it is with a matrix that is none of ours. A range that is neither is 0 to 255,
    as GStreamer's own conversions have it (``gst_video_color_range_offsets``).
    """
    usual = Matrix.BT709 if info.height > _MOST_SD_ROWS else Matrix.BT601
    matrix = Matrix.__members__.get(info.colorimetry.matrix.value_nick.upper(), usual)
    return Colorimetry(matrix, full_range=info.colorimetry.range.value_nick != "16-235")
