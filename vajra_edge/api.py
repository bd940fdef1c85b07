"""Vajra: weights, an engine or a stored plan behind export, val and predict; thin over ``offline`` and ``evaluate``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from types import TracebackType

from typing_extensions import Self

from vajra_edge.backends.base import Runner
from vajra_edge.config.settings import ENV_PREFIX, StoreSettings
from vajra_edge.datasets.dataset import open_dataset
from vajra_edge.errors import VajraError, told_to
from vajra_edge.tasks import kinds, load
from vajra_edge.tasks import val as tasks_val
from vajra_edge.tasks.arguments import BATCH, DEFAULT_DATA, IMG_SIZE, Device, ExportArguments, ImageSize
from vajra_edge.tasks.class_names import Names
from vajra_edge.tasks.export import Exported, export
from vajra_edge.tasks.load import RunArguments, SharedRunner
from vajra_edge.tasks.predict import predict
from vajra_edge.tasks.progress_bar import building, counting
from vajra_edge.tasks.results import Results
from vajra_edge.tasks.saving import Saver
from vajra_edge.tasks.sources import Source, feeds
from vajra_edge.tasks.thresholds import Classes, thresholds
from vajra_edge.tasks.val import ValReport, validate
from vajra_edge.wording import Argument, Audience, say

CONFIDENCE = 0.25
"""Lowest that predict tells unless told otherwise; upstream's."""


class Vajra:
    """A detection network and what can be done with it.

    It is opened at its first val or predict, and stays open for the next ones until ``close``.

    Args:
        weights: a ``.pt``, ``.onnx`` or ``.engine`` file, or the fingerprint of a plan in this device's store.
        verbose: show progress on stderr.
        state_dir: of the store; None: ``VAJRA_EDGE_STORE__STATE_DIR``, else the daemon's default.
    """

    def __init__(self, weights: str | Path, verbose: bool = False, *, state_dir: str | Path | None = None) -> None:
        with told_to(Audience.PYTHON):
            self.weights = str(kinds.path(Argument.MODEL, weights))
        self.verbose = verbose
        default = os.environ.get(f"{ENV_PREFIX}STORE__STATE_DIR") or StoreSettings().state_dir
        self.state_dir = Path(state_dir or default)
        self._open: dict[RunArguments, tuple[Runner, Lock]] = {}

    def export(
        self,
        format: str = "engine",  # noqa: A002  upstream's name
        img_size: ImageSize = IMG_SIZE,
        half: bool = False,
        int8: bool = False,
        dynamic: bool = False,
        simplify: bool = True,
        workspace: float | None = None,
        nms: bool = False,
        batch: int = BATCH,
        data: str | Path | None = DEFAULT_DATA,
        fraction: float = 1.0,
        device: Device = None,
        *,
        quantization: str = "auto",
        max_img_size: ImageSize | None = None,
        names: Names = None,
    ) -> str:
        """Build an engine, or write the ONNX graph, beside the weights, and compare it with the FP32 network.

        Args:
            format: ``engine`` for TensorRT, or ``onnx``.
            img_size: input side, or (height, width), in pixels; rounded up to the stride. Not given: that of an ONNX
                file, else 640.
            half: FP16; boxes and NMS stay FP32.
            int8: INT8, calibrated on ``data``; layers that cost too much agreement stay higher.
            dynamic: take other sizes too, up to ``max_img_size``, and smaller batches; ``img_size`` is the fastest.
            simplify: run onnxslim over the graph.
            workspace: most scratch memory of the builder in GiB; None: from what is free.
            nms: put non-maximum suppression into the network (iou 0.7, 300 boxes).
            batch: most images in one call. Not given: what an ONNX file is fixed to, else 1.
            data: data.yaml whose val images calibrate INT8; an image folder or a video does too.
            fraction: share of them that is used, spread evenly.
            device: where it runs: 0 or another GPU, ``dla:0``, ``dla:1``; for ONNX also ``cpu``.
            quantization: route to INT8: ``qdq`` nodes, TensorRT's own ``calibrator`` (up to 10.x), or ``auto``,
                the first and, where the library refuses that, the other.
            max_img_size: largest side, or (height, width), of a dynamic export; None: twice ``img_size``, at most 8192.
                ``workspace`` has no say in it, as it has upstream, where the example of the document (640, workspace=4)
                ends at 2560.
            names: of the classes, for a file that has none or others: a list, {id: name}, or a data.yaml.

        Returns:
            The file: ``<stem>.engine`` or ``<stem>.onnx``; ``<stem>.fp16.onnx`` and ``<stem>.int8.onnx`` by precision.

        Raises:
            VajraError: in one line, with what to do; nothing is written then.
        """
        with told_to(Audience.PYTHON):
            arguments = ExportArguments(
                *(format, img_size, half, int8, dynamic, simplify, workspace, nms, batch, data, fraction, device),
                quantization=quantization,
                max_img_size=max_img_size,
                names=names,
            )
        return str(self.exported(arguments).path)

    def exported(self, arguments: ExportArguments) -> Exported:
        """``export`` with its figures: precision achieved, seconds, and what the comparison saw."""
        with told_to(Audience.PYTHON), building(self.verbose) as report:
            return export(Path(self.weights), arguments, report)

    def val(
        self,
        data: str | Path,
        device: Device = None,
        img_size: ImageSize | None = None,
        half: bool = False,
        batch: int | None = None,
        conf: float = tasks_val.CONFIDENCE,
        iou: float | None = None,
        by_number: bool = False,
        *,
        names: Names = None,
    ) -> ValReport:
        """Score the network on a dataset's val images: COCO mAP and milliseconds an image.

        Args:
            data: a data.yaml or COCO json.
            device: where to run; None: the best there is.
            img_size: None: what it was made for; a dynamic export takes any up to its ``max_img_size``.
            half: run FP32 weights in FP16.
            batch: images in one call; None: what it was made for.
            conf: lowest confidence that counts.
            iou: of NMS; None: 0.7, or what is baked in.
            by_number: match classes by number, whatever they are called; else equal lists of names match by number,
                and others by name.
            names: of the classes, for a file that has none or others: a list, {id: name}, or a data.yaml.

        Raises:
            VajraError: in one line, with what to do.
        """
        with told_to(Audience.PYTHON):
            data = kinds.path(Argument.DATA, data)
            conf = tasks_val.CONFIDENCE if conf is None else conf
            runner, most = self._runner(RunArguments(img_size, half, batch, device, names))
            keep = thresholds(runner.signature, conf, iou)
            pictures = open_dataset(Path(data))
            with counting(self.verbose, "val", len(pictures)) as advance:
                return validate(runner, pictures, keep.conf, keep.iou, most, advance, by_number=by_number)

    def predict(
        self,
        source: Source,
        conf: float = CONFIDENCE,
        iou: float | None = None,
        classes: Classes | None = None,
        max_det: int | None = None,
        img_size: ImageSize | None = None,
        half: bool = False,
        batch: int | None = None,
        device: Device = None,
        save: bool = False,
        stream: bool = False,
        *,
        names: Names = None,
    ) -> list[Results] | Iterator[Results]:
        """Find objects.

        Args:
            source: image, folder, video, list file, pattern, camera number, stream address, or BGR array; or a list.
            conf: lowest confidence.
            iou: boxes of one class that overlap more are one object; None: 0.7, or what is baked in.
            classes: which to tell: numbers are class ids, texts are names; None: all.
            max_det: most boxes an image; None: 300, or what is baked in.
            img_size: None: what it was made for; a dynamic export takes any up to its ``max_img_size``.
            half: run FP32 weights in FP16.
            batch: images that go through the engine together; None: as many as it takes.
            device: where to run; None: the best there is.
            save: write annotated images and videos to ``runs/predict``, ``runs/predict2`` ...
            stream: give results one by one as they come, which cameras and long videos want.
            names: of the classes, for a file that has none or others: a list, {id: name}, or a data.yaml.

        Returns:
            One ``Results`` an image; with ``stream`` a generator of them.

        Raises:
            VajraError: in one line, with what to do; with ``stream`` also while it is read.
        """
        with told_to(Audience.PYTHON):
            save, stream = kinds.switch(Argument.SAVE, save), kinds.switch(Argument.STREAM, stream)
            conf = CONFIDENCE if conf is None else conf
            runner, most = self._runner(RunArguments(img_size, half, batch, device, names))
            keep = thresholds(runner.signature, conf, iou, max_det, classes)
            parts = feeds(source)
            if not stream and any(part.endless for part in parts):
                remedy = say("pass ", Argument.STREAM.of(True), " and stop when you have enough")
                raise VajraError("a camera never ends", remedy=remedy)
            saver = Saver() if save else None
        found = _told(predict(runner, parts, keep, batch=most, saver=saver, shown=self.verbose))
        return found if stream else list(found)

    @property
    def names(self) -> dict[int, str]:
        """Class id -> name; opens the network."""
        with told_to(Audience.PYTHON):
            return dict(enumerate(self._runner(RunArguments())[0].signature.class_names))

    def close(self) -> None:
        """Let every runner go; a second call does nothing."""
        while self._open:
            self._open.popitem()[1][0].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _runner(self, asked: RunArguments) -> tuple[Runner, int]:
        """The runner for these arguments, and how many images may go in one call."""
        if asked not in self._open:
            self._open[asked] = load.load(self.weights, asked, self.state_dir), Lock()
        runner, turn = self._open[asked]
        return SharedRunner(runner, turn), asked.batch or runner.signature.batch


def _told(found: Iterator[Results]) -> Iterator[Results]:
    """The same results; what fails while they are read is told like everything else."""
    with told_to(Audience.PYTHON):
        yield from found
