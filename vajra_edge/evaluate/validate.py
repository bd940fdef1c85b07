"""Validate: a runner over a dataset to a report of accuracy and speed.

Images are letterboxed into the whole input (square or as the network is made), as upstream's val does for every network
of fixed shape; its ``rect`` mode for ``.pt`` files, which pads each batch to its own shape, is not offered. Like there,
the shorter side is rounded up, where service and predict round to the nearest: one row of pixels, and 0.0036 of
mAP50-95 on 128 photos at 416 px.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vajra_edge.dataset import Dataset, Picture
from vajra_edge.detections import Detections
from vajra_edge.engine.backend import Runner
from vajra_edge.errors import DatasetError
from vajra_edge.evaluate import coco
from vajra_edge.evaluate.report import Report
from vajra_edge.geometry.letterbox import Letterbox, Placement
from vajra_edge.heads import Limits, head_of
from vajra_edge.labels import Truth

BEST_CLASS_NOTE = "a network with NMS tells the best class of each anchor only: scores lie a little lower than without"
_LOGGER = logging.getLogger(__name__)


@dataclass
class Tally:
    """What was true and what was found, image by image, and the time it took.

    Attributes:
        truths: one an image.
        found: one an image, in pixels of it.
        spent_s: by stage.
    """

    truths: list[Truth] = field(default_factory=list)
    found: list[Detections] = field(default_factory=list)
    spent_s: dict[str, float] = field(default_factory=lambda: {"preprocess": 0.0, "inference": 0.0, "postprocess": 0.0})

    def speed_ms(self) -> dict[str, float]:
        """Mean milliseconds an image, by stage."""
        return {stage: 1e3 * spent_s / max(len(self.found), 1) for stage, spent_s in self.spent_s.items()}


def validate(
    runner: Runner, pictures: Dataset, conf: float, iou: float, batch: int, advance: Callable[[int], None]
) -> Report:
    """Run every picture and score what is found.

    Args:
        runner: what is judged.
        pictures: with labels.
        conf: lowest confidence that counts; upstream's val: 0.001.
        iou: of NMS on the host; what is baked in stays.
        batch: images in one call, at most the runner's.
        advance: takes how many images are done.

    Raises:
        DatasetError: no labels, classes that the network does not have, or an image that cannot be read.
        VajraError: pycocotools is absent.
        InferenceError: the runner failed.
    """
    if not pictures.labelled:
        raise DatasetError(
            f"{pictures.source}: no labels", remedy="val needs a labels folder beside images, or COCO json"
        )
    names = runner.signature.class_names
    ids = class_ids(pictures, names)
    made = tally(runner, pictures, conf, iou, batch, advance)
    truths = [replace(truth, class_id=ids[truth.class_id]) for truth in made.truths]
    notes = (BEST_CLASS_NOTE,) if runner.signature.has_nms else ()
    return Report(coco.score(truths, made.found, names), made.speed_ms(), notes)


def class_ids(pictures: Dataset, names: Sequence[str]) -> NDArray[np.int32]:
    """Class id of the dataset -> class id of the network, by name where all are known, else by number.

    Raises:
        DatasetError: there are more classes, or others, than the network has.
    """
    known = pictures.class_names or tuple(names)
    if set(known) <= set(names):
        return np.array([list(names).index(name) for name in known], np.int32)
    if len(known) != len(names):
        missing = [name for name in known if name not in names]
        raise DatasetError(
            f"{pictures.source} has {len(known)} classes, the network {len(names)}; "
            f"it does not know {', '.join(missing[:5])}",
            remedy="name the dataset that the network was trained for",
        )
    differ = next((mine, theirs) for mine, theirs in zip(known, names, strict=True) if mine != theirs)
    _LOGGER.warning("class names differ (%r in the dataset, %r in the network): matched by number", *differ)
    return np.arange(len(names), dtype=np.int32)


def tally(
    runner: Runner, pictures: Dataset, conf: float, iou: float, batch: int, advance: Callable[[int], None]
) -> Tally:
    """Run every picture; see ``validate``."""
    letterbox, made = Letterbox(runner.signature.resolution_hw, rounded_up), Tally()
    head, limits = head_of(runner.signature), Limits(conf, iou, coco.MAX_DET, every_class=True)
    buffer = letterbox.blank(min(batch, runner.signature.batch))
    for group in _groups(pictures, len(buffer)):
        at_s = [time.perf_counter()]
        places = [letterbox.apply(one.image, row) for one, row in zip(group, buffer, strict=False)]
        at_s.append(time.perf_counter())
        outputs = runner.infer(buffer[: len(group)])
        at_s.append(time.perf_counter())
        for one, place, output in zip(group, places, outputs, strict=True):
            found = head.decode(runner.signature, output, limits)
            made.found.append(head.to_image(found, place, (one.image.shape[1], one.image.shape[0])))
            made.truths.append(one.truth or Truth.of([]))
        at_s.append(time.perf_counter())
        for stage, spent_s in zip(made.spent_s, np.diff(at_s), strict=True):
            made.spent_s[stage] += float(spent_s)
        advance(len(group))
    return made


def rounded_up(resolution_wh: tuple[int, int], input_hw: tuple[int, int]) -> Placement:
    """Where upstream's val puts an image: as ``Placement.of``, with the sides rounded up."""
    scale = Placement.of(resolution_wh, input_hw).scale
    width_px, height_px = (
        min(math.ceil(side * scale), most) for side, most in zip(resolution_wh, reversed(input_hw), strict=True)
    )
    left = round((input_hw[1] - width_px) / 2 - 0.1)
    top = round((input_hw[0] - height_px) / 2 - 0.1)
    return Placement(scale, left, top, width_px, height_px)


def _groups(pictures: Dataset, most: int) -> Iterator[list[Picture]]:
    gathered: list[Picture] = []
    for picture in pictures:
        gathered.append(picture)
        if len(gathered) == most:
            yield gathered
            gathered = []
    if gathered:
        yield gathered
