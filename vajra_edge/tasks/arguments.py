"""Arguments: the words of the Python API and the command line -> the values that the engine packages take.

Names and defaults are those of the document that upstream's users know; each value is checked here, in their words.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from vajra_edge.errors import VajraError
from vajra_edge.plans.spec import QUANTIZATIONS, Precision, Target
from vajra_edge.tasks import kinds
from vajra_edge.tasks.class_names import Names, names_of
from vajra_edge.wording import Argument, say

ImageSize: TypeAlias = "int | str | Sequence[int]"
"""One side for a square, or height and width, in pixels; as text too, like "640"."""

Device: TypeAlias = "int | str | Sequence[int | str] | None"
"""None: the best there is; 0 or "0": that GPU; "cpu"; "dla:0" or "dla:1"; or one of these in a list."""


class Usual(int):
    """The documented default of an argument, told from the same number given: it gives way to what a file has."""


IMG_SIZE, BATCH = Usual(640), Usual(1)

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
    img_size: ImageSize = IMG_SIZE
    half: bool = False
    int8: bool = False
    dynamic: bool = False
    simplify: bool = True
    workspace: float | None = None
    nms: bool = False
    batch: int = BATCH
    data: str | Path | None = DEFAULT_DATA
    fraction: float = 1.0
    device: Device = None
    quantization: str = "auto"
    max_img_size: ImageSize | None = None
    names: Names = None

    def __post_init__(self) -> None:
        for argument in (Argument.HALF, Argument.INT8, Argument.DYNAMIC, Argument.SIMPLIFY, Argument.NMS):
            default = argument is Argument.SIMPLIFY
            self._keep(argument, kinds.switch(argument, getattr(self, argument.value), default=default))
        self._check_format()
        self._check_numbers()
        for argument in (Argument.IMG_SIZE, Argument.MAX_IMG_SIZE):
            if (size := getattr(self, argument.value)) is not None and not isinstance(size, Usual):
                self._keep(argument, sides_of(size, argument))
        self._keep(Argument.DATA, DEFAULT_DATA if self.data is None else kinds.path(Argument.DATA, self.data))
        self._keep(Argument.NAMES, names_of(self.names))
        target_of(self.device)
        self._check_quantization()
        self._check_largest()

    def _keep(self, argument: Argument, value: object) -> None:
        object.__setattr__(self, argument.value, value)

    def _check_format(self) -> None:
        remedy = f"use {' or '.join(FORMATS)}"
        wanted = self.format or FORMATS[0]
        if not isinstance(wanted, str) or wanted.lower() not in FORMATS:
            raise kinds.wrong(Argument.FORMAT, wanted, "is not known", remedy, str)
        self._keep(Argument.FORMAT, wanted.lower())

    def _check_numbers(self) -> None:
        """Those with a default of their own may be None, which leaves it."""
        given: Mapping[str, Any] = {name: value for name, value in vars(self).items() if value is not None}
        self._keep(Argument.IMG_SIZE, given.get("img_size", IMG_SIZE))
        self._keep(Argument.BATCH, batch_of(given.get("batch", BATCH)))
        remedy = "use a number above 0 and up to 1"
        share = kinds.number(Argument.FRACTION, given.get("fraction", 1.0), "a share", remedy)
        if not 0 < share <= 1:
            raise VajraError(say(Argument.FRACTION, f" {self.fraction} is not a share"), remedy=remedy)
        self._keep(Argument.FRACTION, share)
        if self.workspace is None:
            return
        remedy = "use a positive number or None"
        room = kinds.number(Argument.WORKSPACE, self.workspace, "a size in GiB", remedy)
        if not 0 < room < math.inf:
            raise VajraError(say(Argument.WORKSPACE, f" {self.workspace} is not a size in GiB"), remedy=remedy)
        self._keep(Argument.WORKSPACE, room)

    def _check_quantization(self) -> None:
        known = ", ".join(QUANTIZATIONS)
        self._keep(Argument.QUANTIZATION, self.quantization or QUANTIZATIONS[0])
        if not isinstance(self.quantization, str) or self.quantization not in QUANTIZATIONS:
            raise kinds.wrong(Argument.QUANTIZATION, self.quantization, "is not known", f"use one of {known}", str)
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
        given = not isinstance(self.img_size, Usual)  # else what comes of it is checked again
        if given and any(limit < side for limit, side in zip(most, size, strict=True)):
            raise VajraError(
                say(
                    *(Argument.MAX_IMG_SIZE, f" {_told(most)} is smaller than "),
                    *(Argument.IMG_SIZE, f" {_told(size)}"),
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
    one = kinds.only(device)
    text = "" if one is None else str(one).strip("[]() ").lower()
    if text in kinds.NOTHING:
        return None
    match = None if isinstance(one, (bool, float)) else _DEVICE.fullmatch(text)
    if match is None:
        raise kinds.wrong(Argument.DEVICE, device, "is not known", "use 0 (a GPU), cpu, dla:0 or dla:1", kinds.DEVICE)
    return Target("gpu", int(match[1])) if match[1] is not None else Target.parse(match[2])


def batch_of(batch: int) -> int:
    """The batch, if it is a number of images.

    Raises:
        VajraError: it is not.
    """
    return kinds.count(Argument.BATCH, batch, "a number of images")


def share_of(argument: Argument, value: float) -> float:
    """A threshold between 0 and 1.

    Raises:
        VajraError: it is not.
    """
    number = kinds.number(argument, value, "a threshold", "use a number from 0 to 1")
    if not 0 <= number <= 1:
        raise VajraError(say(argument, f" {value!r} is not a threshold"), remedy="use a number from 0 to 1")
    return number


def sides_of(img_size: ImageSize, argument: Argument = Argument.IMG_SIZE) -> tuple[int, int]:
    """Height and width in pixels, as asked for under ``argument``.

    Raises:
        VajraError: neither one side nor two, or one that no network takes.
    """
    sides = kinds.sides(img_size)
    if sides is not None and all(SMALLEST_PX <= side <= LARGEST_PX for side in sides):
        return sides
    remedy = f"use one side, or height and width, of {SMALLEST_PX} to {LARGEST_PX} pixels"
    raise kinds.wrong(argument, img_size, "is not a size", remedy, kinds.SIZE)


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


def _told(size_hw: tuple[int, int]) -> str:
    """A size as it is mostly given."""
    return str(size_hw[0]) if size_hw[0] == size_hw[1] else str(size_hw)
