"""C: everything that export offers, at 320 px with the smallest network: it builds, and finds what FP32 does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lab as shared
import numpy as np
from lab import Lab

SIZE_PX = 320
FRAMES = 24
"""Of vtest.avi, as many as give some hundred persons."""


@dataclass(frozen=True)
class Compared:
    """Boxes of an engine at one input size beside those of FP32, by the gate's own tally; None without boxes."""

    size_hw: tuple[int, int]
    batch: int
    boxes: int
    recall: float | None
    precision: float | None
    mean_iou: float | None
    score_drift: float | None
    largest_difference: float


@dataclass(frozen=True)
class Exported:
    """One export.

    Attributes:
        seconds: of the export, its check included.
        build_s: of the builder.
        precision: achieved.
        engine_mb: size of the file.
        check: what the product's own gate said.
        speed: INT8 beside FP16, where they were compared.
        rejected: ways that came to nothing before.
        attempts: limits that were tried.
        sizes: compared at each size.
        ran_on: who ran the engine.
    """

    seconds: float
    build_s: float | None
    precision: str
    engine_mb: float
    check: dict[str, Any]
    speed: str
    rejected: list[str]
    attempts: list[str]
    ran_on: str
    sizes: list[Compared] = field(default_factory=list)


def export(lab: Lab, arguments: dict[str, Any]) -> Exported:
    """Export as told, run the engine at every size that it takes, and judge it by the gate's figures."""
    from vajra_edge import Vajra
    from vajra_edge.build.accuracy_check import BOUNDS
    from vajra_edge.plans.report_json import write_verify
    from vajra_edge.plans.spec import Precision
    from vajra_edge.tasks.arguments import ExportArguments

    weights = _weights(lab, arguments)
    told = {"img_size": SIZE_PX, "data": _images(lab), **arguments}
    if isinstance(told["img_size"], list):
        told["img_size"] = tuple(told["img_size"])
    wanted = ExportArguments(device=0, **told)
    with shared.effort(), shared.quick_choice(lab):
        made = Vajra(weights).exported(wanted)
    built = made.report.plan.tensorrt
    found = Exported(
        seconds=round(made.seconds, 1),
        build_s=built.build_s if built else None,
        precision=made.precision.value,
        engine_mb=round(made.path.stat().st_size / 1e6, 1),
        check=write_verify(made.verify),
        speed=made.verify.figures.speed,
        rejected=[f"{one.rung}: {one.reason}" for one in made.report.refused],
        attempts=list(built.attempts) if built else [],
        ran_on="ONNX Runtime (stand-in)" if lab.dry else "TensorRT",
    )
    lab.keep(found)
    for size_hw in sizes(wanted):
        found.sizes.append(_compared(lab, made.path, wanted, size_hw))
        lab.keep(found)
    refused = "; ".join(found.rejected) or "nothing was refused"
    assert made.precision is wanted.precision, f"{wanted.precision.value} came out as {found.precision}: {refused}"
    bounds = BOUNDS[Precision(found.precision)]
    _judge([one for one in found.sizes if one.boxes >= 20], bounds)
    return found


def _judge(sizes: list[Compared], bounds: Any) -> None:
    for one in sizes:
        right = (one.recall or 0) >= bounds.recall and (one.precision or 0) >= bounds.precision
        right = right and (one.mean_iou or 0) >= bounds.mean_iou and (one.score_drift or 0) <= bounds.score_drift
        assert right, f"boxes do not agree with FP32: {one}"
    assert sizes, "FP32 finds fewer than 20 boxes at every size: nothing was compared"


def sizes(wanted: Any) -> list[tuple[int, int]]:
    """What is compared: the size, and of a dynamic export the least and the largest too."""
    side = wanted.img_size
    best = (side, side) if isinstance(side, int) else tuple(side)
    most = wanted.largest_hw(best, 32)
    return [best] if most is None else [(32, 32), best, most]


def _weights(lab: Lab, arguments: Mapping[str, Any]) -> Path:
    """A copy of the weights in a folder of this export."""
    name = "-".join(f"{key}{value}" for key, value in arguments.items()) or "plain"
    folder = lab.work / "matrix" / "".join(letter for letter in name if letter.isalnum() or letter == "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    copy = folder / "nano.pt"
    shutil.copyfile(lab.data / "models" / "vajra-v1-nano-det-cctv.pt", copy)
    return copy


def _images(lab: Lab) -> str:
    """What INT8 is calibrated on: the scene that the network knows; its frames are few enough for a CPU in between."""
    folder = lab.work / "vtest"
    if not folder.is_dir():
        import cv2

        aside = lab.work / f"vtest.{os.getpid()}"
        aside.mkdir(parents=True)
        clip = cv2.VideoCapture(str(lab.data / "videos" / "vtest.avi"))
        for number in range(600):
            seen, image = clip.read()
            if seen and number % (60 if lab.dry else 6) == 0:
                cv2.imwrite(str(aside / f"{number:04}.jpg"), image)
        clip.release()
        try:
            aside.rename(folder)
        except OSError:  # another cell was first
            shutil.rmtree(aside)
    return str(folder)


def _compared(lab: Lab, engine: Path, wanted: Any, size_hw: tuple[int, int]) -> Compared:
    from vajra_edge import Vajra
    from vajra_edge.build.accuracy_check import Agreement, _decoded
    from vajra_edge.geometry.letterbox import Letterbox
    from vajra_edge.tasks import load
    from vajra_edge.tasks.load import RunArguments

    # The reference is the FP32 graph at this very size; ONNX Runtime runs it one image at a time.
    reference_file = engine.with_name("reference.onnx")
    if not reference_file.is_file():
        shutil.copyfile(engine.with_suffix(".pt"), reference_file.with_suffix(".pt"))
        Vajra(reference_file.with_suffix(".pt")).export(
            format="onnx", img_size=wanted.img_size, dynamic=wanted.dynamic, nms=wanted.nms
        )
    reference = load.load(str(reference_file), RunArguments(img_size=size_hw, device="cpu"), engine.parent)
    batch = wanted.batch
    if lab.dry:
        candidate, batch = reference, 1
    else:
        size = size_hw if wanted.dynamic else None
        candidate = load.load(str(engine), RunArguments(img_size=size), engine.parent)
    letterbox, tally, largest = Letterbox(size_hw), Agreement(), 0.0
    images = _frames(lab)
    for start in range(0, len(images), batch):
        rows = images[start : start + batch]
        blob = letterbox.blank(len(rows))
        for image, row in zip(images[start : start + batch], blob, strict=False):
            letterbox.apply(image, row)
        found = np.array(candidate.infer(blob))
        for row, output in zip(blob, found, strict=True):
            expected = np.array(reference.infer(row[None])[0])
            assert np.isfinite(output).all(), f"not finite at {size_hw}"
            largest = max(largest, float(np.abs(expected - output).max()))
            tally.add(_decoded(candidate, output), _decoded(reference, expected))
    if candidate is not reference:
        candidate.close()
    reference.close()
    return Compared(
        size_hw, batch, tally.reference_boxes, largest_difference=round(largest, 4), **asdict(tally.figures())
    )


def _frames(lab: Lab) -> list[Any]:
    """Of the second half of vtest.avi, which INT8 was not calibrated on."""
    import cv2

    clip, images = cv2.VideoCapture(str(lab.data / "videos" / "vtest.avi")), []
    most = 3 if lab.dry else FRAMES
    for number in range(600 + 7 * most):
        seen, image = clip.read()
        if seen and number >= 600 and number % 7 == 0:
            images.append(image)
    clip.release()
    assert len(images) >= min(most, 3), "vtest.avi gives too few frames"
    return images[:most]


@dataclass(frozen=True)
class Workspace:
    """What was said of a workspace."""

    total_gib: float
    free_gib: float
    asked_gib: float
    said: str


def workspace_refused(lab: Lab) -> Workspace:
    """More than the device has: refused before any work, in the user's words."""
    from vajra_edge import Vajra
    from vajra_edge.backends.tensorrt import limits
    from vajra_edge.errors import VajraError

    memory = limits.look(0)
    asked = round(memory.total_bytes / limits.GIB) + 8.0
    found = Workspace(memory.total_bytes / limits.GIB, memory.free_bytes / limits.GIB, asked, "")
    weights = _weights(lab, {"workspace": "above"})
    try:
        Vajra(weights).export(img_size=SIZE_PX, half=True, workspace=asked, device=0)
    except VajraError as error:
        found = Workspace(found.total_gib, found.free_gib, asked, str(error))
        lab.keep(found)
        assert "UNSUPPORTED_STATE" in found.said
        assert "workspace" in found.said
        assert not list(weights.parent.glob("*.engine"))
        return found
    raise AssertionError(f"a workspace of {asked} GiB was granted on a device of {found.total_gib:.1f}")


def workspace_lowered(lab: Lab) -> Workspace:
    """More than is free now, for another program holds half of the device: lowered, and said."""
    import cells_memory

    from vajra_edge import Vajra
    from vajra_edge.backends.tensorrt import limits
    from vajra_edge.tasks.arguments import ExportArguments

    weights = _weights(lab, {"workspace": "free"})
    with cells_memory.held(lab, free_gib=limits.look(0).free_bytes / limits.GIB / 2):
        memory = limits.look(0)
        asked = round((memory.free_bytes + memory.total_bytes) / 2 / limits.GIB, 1)
        with shared.effort():
            arguments = ExportArguments(img_size=SIZE_PX, half=True, workspace=asked, device=0)
            made = Vajra(weights).exported(arguments)
    attempts = list(made.report.plan.tensorrt.attempts)
    found = Workspace(memory.total_bytes / limits.GIB, memory.free_bytes / limits.GIB, asked, "; ".join(attempts))
    lab.keep(found)
    if not lab.dry:
        assert "lowered" in attempts[0], attempts
    return found
