"""Predict: images through the detector, two batches in flight, to results."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

from vajra_edge.backends.base import Runner
from vajra_edge.backends.device_runner import SLOTS
from vajra_edge.inference.detector import Batch, Filter, HostDetector
from vajra_edge.plans.spec import NmsSpec
from vajra_edge.tasks.progress_bar import counting
from vajra_edge.tasks.results import Results
from vajra_edge.tasks.saving import Saver
from vajra_edge.tasks.sources import Feed, SourceImage, groups, total_of
from vajra_edge.tasks.thresholds import Thresholds

_UNCAPPED = 1 << 20
"""Boxes that enter NMS and that it may keep before the class filter; the cap comes after it, as upstream has it."""


def predict(
    runner: Runner, parts: list[Feed], keep: Thresholds, *, batch: int, saver: Saver | None, shown: bool
) -> Iterator[Results]:
    """Results as they come, in the order of the images.

    Args:
        runner: closed at the end.
        parts: the images.
        keep: which boxes are told.
        batch: images that go through the engine together, at most the runner's.
        saver: writes annotated copies; closed at the end.
        shown: show a bar.

    Raises:
        SourceError, InferenceError: an image cannot be read, or the engine failed.
    """
    names = dict(enumerate(runner.signature.class_names))
    filter_ = Filter(keep.conf, keep.class_ids)
    with ExitStack() as stack:
        detector = stack.enter_context(closing(HostDetector(runner, NmsSpec(keep.iou, _UNCAPPED, _UNCAPPED))))
        if saver is not None:
            stack.enter_context(closing(saver))
        advance = stack.enter_context(counting(shown, "predict", total_of(parts)))
        for shots, made in _through(detector, parts, batch, filter_):
            speed = _speed(made)
            for shot, found in zip(shots, made.found, strict=True):
                one = Results(
                    shot.frame.image, shot.path, shot.number, keep.most(found), names, speed, cut_short=shot.is_cut
                )
                advance(1)
                yield one if saver is None else replace(one, saved=saver.add(shot, one))


def _through(
    detector: HostDetector, parts: list[Feed], batch: int, filter_: Filter
) -> Iterator[tuple[list[SourceImage], Batch]]:
    """Each group with what was found; the next is prepared while one is inferred, unless it is live."""
    flying: deque[list[SourceImage]] = deque()
    for shots in groups(parts, batch):
        detector.submit([shot.frame for shot in shots], [filter_] * len(shots))
        flying.append(shots)
        while flying and (len(flying) == SLOTS or shots[-1].live):
            yield flying.popleft(), detector.collect()
    while flying:
        yield flying.popleft(), detector.collect()


def _speed(made: Batch) -> dict[str, float]:
    """Milliseconds an image, by upstream's names of the stages."""
    times = made.times
    taken = {"preprocess": times.prepare_ms, "inference": times.inference_ms, "postprocess": times.decode_ms}
    return {stage: spent_ms / len(made.frames) for stage, spent_ms in taken.items()}
