"""Captures of OpenCV."""

from __future__ import annotations

import pytest

from vajra_edge.capture.sources.opencv import Capture, timeouts
from vajra_edge.errors import SourceError
from vajra_edge.media.opencv import load_cv2


def test_timeouts_are_in_milliseconds_and_never_zero() -> None:
    cv2 = load_cv2()
    assert timeouts(1.5, 1e-9) == {cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: 1500, cv2.CAP_PROP_READ_TIMEOUT_MSEC: 1}


def test_a_closed_capture_is_not_readable() -> None:
    capture = Capture("gate")
    capture.close()
    with pytest.raises(SourceError, match="gate is not open"):
        capture.read()
