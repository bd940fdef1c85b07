"""Arguments: the words of the Python API and the command line -> the values that the engine packages take.

Names and defaults are those of the document that upstream's users know; each value is checked here, in their words.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from vajra_edge.errors import VajraError
from vajra_edge.plans.spec import QUANTIZATIONS, Precision, Target
from vajra_edge.wording import Argument, say

ImageSize: TypeAlias = "int | tuple[int, int]"
"""One side for a square, or (height, width), in pixels."""

Device: TypeAlias = "int | str | None"
"""None: the best there is; 0 or "0": that GPU; "cpu"; "dla:0" or "dla:1"."""

FORMATS = ("engine", "onnx")
DEFAULT_DATA = "coco8.yaml"
"""Upstream's default for ``data``, which it downloads; here nothing is."""

CHECKPOINT_STRIDE_PX = 32
"""Of every VajraV1 network (reference: its three heads at 8, 16 and 32)."""

CHECKPOINTS = (".pt", ".pth")
SMALLEST_PX, LARGEST_PX = 32, 8192
TIMES_LARGER = 2
"""A dynamic export takes sides up to so many times the requested one. Upstream multiplies by ``workspace`` where that
is more: its own example (640, workspace=4) ends at 2560, memory and build time for sizes that nobody named."""
_DEVICE = re.compile(r"(?:(?:gpu|cuda):)?(\d+)|(cpu|dla:[01])")
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportArguments:
    """What ``export`` was asked for; see ``api.Vajra.export`` for what each means.

    Raises:
        VajraError: a value cannot be; names it and what can.
    """

    format: str = "engine"
    img_size: ImageSize = 640
    half: bool = False
    int8: bool = False
    dynamic: bool = False
    simplify: bool = True
    workspace: float | None = None
    nms: bool = False
    batch: int = 1
    data: str | Path | None = DEFAULT_DATA
    fraction: float = 1.0
    device: Device = None
    quantization: str = "auto"
    max_img_size: ImageSize | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise VajraError(
                say(Argument.FORMAT, f" {self.format!r} is not known"), remedy=f"use {' or '.join(FORMATS)}"
            )
        if not 0 < self.fraction <= 1:
            raise VajraError(
                say(Argument.FRACTION, f" {self.fraction} is not a share"), remedy="use a number above 0 and up to 1"
            )
        if self.workspace is not None and not self.workspace > 0:
            raise VajraError(
                say(Argument.WORKSPACE, f" {self.workspace} is not a size in GiB"),
                remedy="use a positive number or None",
            )
        batch_of(self.batch)
        sides_of(self.img_size)
        target_of(self.device)
        self._check_quantization()
        self._check_largest()

    def _check_quantization(self) -> None:
        known = ", ".join(QUANTIZATIONS)
        if self.quantization not in QUANTIZATIONS:
            raise VajraError(
                say(Argument.QUANTIZATION, f" {self.quantization!r} is not known"), remedy=f"use one of {known}"
            )
        if self.quantization != "auto" and not self.int8:
            raise VajraError(
                say(Argument.QUANTIZATION.of(self.quantization), " is a route to INT8"),
                remedy=say("pass ", Argument.INT8.of(True), " too"),
            )

    def _check_largest(self) -> None:
        if self.max_img_size is None:
            return
        most, size = sides_of(self.max_img_size, Argument.MAX_IMG_SIZE), sides_of(self.img_size)
        if not self.dynamic:
            raise VajraError(
                say(Argument.MAX_IMG_SIZE, " is for dynamic sizes"),
                remedy=say("pass ", Argument.DYNAMIC.of(True), ", or leave ", Argument.MAX_IMG_SIZE, " out"),
            )
        if any(limit < side for limit, side in zip(most, size, strict=True)):
            raise VajraError(
                say(
                    *(Argument.MAX_IMG_SIZE, f" {self.max_img_size!r} is smaller than "),
                    *(Argument.IMG_SIZE, f" {self.img_size!r}"),
                ),
                remedy="make it as large or larger, or leave it out",
            )

    def largest_hw(self, size: tuple[int, int], stride: int) -> tuple[int, int] | None:
        """Largest height and width that a dynamic export takes, in pixels; None where sizes are fixed.

        Args:
            size: height and width that are optimal.
            stride: of the network, in pixels.
        """
        if not self.dynamic:
            return None
        if self.max_img_size is not None:
            return resolution_hw(self.max_img_size, stride, Argument.MAX_IMG_SIZE)
        height, width = (max(side, min(TIMES_LARGER * side, LARGEST_PX // stride * stride)) for side in size)
        return height, width

    @property
    def precision(self) -> Precision:
        """What is asked for; INT8 where both are, for its other layers may be FP16 anyway."""
        if self.int8:
            return Precision.INT8
        return Precision.FP16 if self.half else Precision.FP32


def target_of(device: Device) -> Target | None:
    """Where to run; None where the caller may choose.

    Raises:
        VajraError: not a device.
    """
    if device is None:
        return None
    match = None if isinstance(device, bool) else _DEVICE.fullmatch(str(device).strip().lower())
    if match is None:
        raise VajraError(say(Argument.DEVICE, f" {device!r} is not known"), remedy="use 0 (a GPU), cpu, dla:0 or dla:1")
    return Target("gpu", int(match[1])) if match[1] is not None else Target.parse(match[2])


def batch_of(batch: int) -> int:
    """The batch, if it is a number of images.

    Raises:
        VajraError: it is not.
    """
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise VajraError(say(Argument.BATCH, f" {batch!r} is not a number of images"), remedy="use 1 or more")
    return batch


def share_of(argument: Argument, value: float) -> float:
    """A threshold between 0 and 1.

    Raises:
        VajraError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise VajraError(say(argument, f" {value!r} is not a threshold"), remedy="use a number from 0 to 1")
    return float(value)


def sides_of(img_size: ImageSize, argument: Argument = Argument.IMG_SIZE) -> tuple[int, int]:
    """Height and width in pixels, as asked for under ``argument``.

    Raises:
        VajraError: neither one side nor two, or one that no network takes.
    """
    sides = (img_size, img_size) if isinstance(img_size, int) else img_size
    right = isinstance(sides, (tuple, list)) and len(sides) == 2  # noqa: PLR2004  height and width
    if not right or not all(
        isinstance(side, int) and not isinstance(side, bool) and SMALLEST_PX <= side <= LARGEST_PX for side in sides
    ):
        raise VajraError(
            say(argument, f" {img_size!r} is not a size"),
            remedy=f"use one side, or height and width, of {SMALLEST_PX} to {LARGEST_PX} pixels",
        )
    return sides[0], sides[1]


def resolution_hw(img_size: ImageSize, stride: int, argument: Argument = Argument.IMG_SIZE) -> tuple[int, int]:
    """Height and width that the network can take: rounded up to its stride, which is said.

    Raises:
        VajraError: see ``sides_of``.
    """
    height, width = sides_of(img_size, argument)
    rounded = (-(-height // stride) * stride, -(-width // stride) * stride)
    if rounded != (height, width):
        _LOGGER.warning(
            "%s %dx%d (height x width) is not a multiple of the stride %d; %dx%d is used",
            *(argument.value, height, width, stride, *rounded),
        )
    return rounded
