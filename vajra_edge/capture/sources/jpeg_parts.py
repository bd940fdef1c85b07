"""Motion JPEG over HTTP: the parts of an endless answer as frames; a part that is damaged costs only itself."""

from __future__ import annotations

from vajra_edge.capture.rate import patience_s
from vajra_edge.capture.sources.base import RawFrame
from vajra_edge.capture.sources.http import Answer
from vajra_edge.capture.sources.multipart import BodyPart, BodyParts, DamagedPart, EndOfParts
from vajra_edge.capture.sources.picture import DamagedPicture, PictureDecoder
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError
from vajra_edge.media.deadline import Deadline
from vajra_edge.media.refusals import SourceRefusal, SourceRefused

_OTHER_TRACKS = ("audio/", "application/")
"""Parts that some cameras send between the pictures: sound, and what they saw themselves."""


class JpegParts:
    """The parts of one answer.

    Args:
        camera: its settings.
        name: how errors call it, without user, path and password.
        answer: multipart; closed by ``close``.
    """

    def __init__(self, camera: CameraSettings, name: str, answer: Answer) -> None:
        self.decode_errors = 0
        self._name = name
        self._patience_s = patience_s(camera)
        self._answer = answer
        self._deadline = Deadline(self._patience_s)
        self._parts = BodyParts(lambda: answer.more(self._deadline), answer.boundary)
        self._pictures = PictureDecoder(name)
        self._damage = ""  # of the last part that could not be decoded

    def read(self) -> RawFrame:
        """The next picture; damaged parts are counted and passed by.

        Raises:
            SourceError: the stream ended or fell silent.
            SourceRefused: for as long as a camera may be silent, nothing could be decoded.
        """
        self._deadline = Deadline(self._patience_s)
        while not self._deadline.passed:
            frame = self._frame()
            if frame is not None:
                return frame
        why = f" ({self._damage})" if self._damage else ""
        raise SourceRefused(SourceRefusal.UNDECODABLE, f"{self._patience_s:.1f} s{why}")

    def close(self) -> None:
        """Hang up."""
        self._answer.close()

    def _frame(self) -> RawFrame | None:
        """The next part as a frame; None where it is damaged, or something else."""
        try:
            part = self._next()
            return RawFrame(self._pictures.decoded(part.body)) if part is not None else None
        except (DamagedPart, DamagedPicture) as damage:
            self.decode_errors += 1
            self._damage = str(damage)
            return None

    def _next(self) -> BodyPart | None:
        """The next part; None where it holds no picture and is not meant to."""
        try:
            part = self._parts.next()
        except EndOfParts:
            raise SourceError(f"{self._name}: the stream ended") from None
        except SourceRefused as refused:
            silent = refused.why is SourceRefusal.SILENT
            what = f"no new frame for {self._patience_s:.1f} s" if silent else "the stream ended"
            raise SourceError(f"{self._name}: {what}") from None
        return None if part.content_type.startswith(_OTHER_TRACKS) else part
