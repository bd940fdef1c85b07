"""Images: those that calibrate INT8, as ``data`` and ``fraction`` name them."""

from __future__ import annotations

import logging
from pathlib import Path

from vajra_edge.demo.packaged import CLIP
from vajra_edge.engine.calibration import CalibrationSet
from vajra_edge.errors import CalibrationError
from vajra_edge.offline.arguments import DEFAULT_DATA, ExportArguments
from vajra_edge.wording import Argument, say

_LOGGER = logging.getLogger(__name__)


def images_of(arguments: ExportArguments) -> CalibrationSet | None:
    """The calibration images; None unless ``int8`` is asked for.

    Raises:
        CalibrationError: they cannot be used, or are fewer than ``batch``.
    """
    if not arguments.int8:
        return None
    return CalibrationSet.collect(_source(arguments), fraction=arguments.fraction, batch=arguments.batch)


def _source(arguments: ExportArguments) -> Path:
    """``data``; the demo's clip in the place of upstream's default, which is a download, where that file is not there.

    Raises:
        CalibrationError: the clip was taken out of this installation.
    """
    source = Path(arguments.data or DEFAULT_DATA)
    if str(source) != DEFAULT_DATA or source.exists():
        return source
    if not CLIP.is_file():
        raise CalibrationError(
            f"{source} does not exist", remedy=say("name your images: ", Argument.DATA.of("my_dataset.yaml"))
        )
    _LOGGER.warning(
        "INT8 IS CALIBRATED ON FRAMES OF THE DEMO CLIP, for there is no %s: good for a trial, not for service. Real "
        "calibration wants data=my_dataset.yaml with 500 images of your scene, or the daemon, which takes its cameras'",
        source,
    )
    return CLIP
