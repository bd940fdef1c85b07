"""BuildRequest: everything the build child needs, as one frozen value that travels as JSON."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from vajra_edge.backends.base import Backend
from vajra_edge.config.settings import CalibrationSettings, EngineSettings, Settings
from vajra_edge.errors import BuildError, CalibrationError, WeightsError
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision, Target
from vajra_edge.quantization import camera_samples
from vajra_edge.quantization.calibration_set import CalibrationSet
from vajra_edge.wording import Command, Setting, say

_PATHS = ("weights_path", "weights_python", "state_dir", "frames")
_CHUNK_BYTES = 1024 * 1024

MOST_WEIGHTS_BYTES = 8 << 30
"""An ONNX file ends at 2 GiB (protobuf's limit); a checkpoint holds its network up to three times, with its optimizer.
Hashing more than this takes an hour of a slow disk for nothing."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build, from which weights, and where the plan goes.

    Attributes:
        weights_path: absolute path of the .pt or .onnx file.
        weights_sha256: hex digest that the file must have when the child reads it.
        backend: ``onnxruntime`` or ``tensorrt``; never ``auto``.
        spec: what is wanted; every ``auto`` is decided.
        state_dir: root of the engine store.
        max_bytes: size that ``EngineStore.prune`` keeps plans under.
        class_names: override the file's own, or None.
        stride: supplies what the file's metadata lacks, or None.
        weights_python: interpreter with torch that opens a .pt file, or None for this one.
        calibration: where INT8 ranges come from.
        calibration_digest: digest of the frozen CalibrationSet, or None while there is none.
        threads: CPU inference threads, or None for all usable ones.
        frames: images that the accuracy check compares on; None: calibration images held out, camera samples, or the
        demo's clip.
        timeout_s: the builder ends a longer build.
        address_space_bytes: RLIMIT_AS of the child, or None (CUDA reserves far more than it uses).
        force: build even if the store has the plan, measure INT8 ranges that are kept anew, and try what was refused.
        again: a forced build that failed before, perhaps with its process: what was refused since stays refused.
        missed: the store's plan is of a lower precision than ``spec``: try what is above it and was missed for a cause
            that may have passed; where that fails, the plan stays as it is.
        keep: fingerprints of plans that are loaded, which are not deleted to make room.
        keep_slower: INT8 is wanted even where FP16 is faster; the times are noted.
    """

    weights_path: Path
    weights_sha256: str
    backend: str
    spec: EngineSpec
    state_dir: Path
    max_bytes: int
    class_names: tuple[str, ...] | None = None
    stride: int | None = None
    weights_python: Path | None = None
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    calibration_digest: str | None = None
    threads: int | None = None
    frames: Path | None = None
    timeout_s: float = 7200.0
    address_space_bytes: int | None = None
    force: bool = False
    again: bool = False
    missed: bool = False
    keep_slower: bool = False
    keep: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings, weights_sha256: str, backend: Backend) -> BuildRequest:
        """What the settings ask for, with every ``auto`` decided for ``backend``.

        Args:
            settings: the operator's.
            weights_sha256: from ``weights_digest``.
            backend: from ``base.select``.

        Raises:
            UnsupportedSpec: the target's text is not one.
        """
        weights = settings.weights
        return cls(
            weights_path=weights.path.absolute(),
            weights_sha256=weights_sha256,
            backend=backend.name,
            spec=_spec(settings.engine, backend),
            state_dir=settings.store.state_dir.absolute(),
            max_bytes=settings.store.max_bytes,
            class_names=weights.class_names,
            stride=weights.stride,
            weights_python=weights.python.absolute() if weights.python else None,
            calibration=_absolute(settings.calibration),
            threads=settings.service.threads,
            timeout_s=settings.engine.build_timeout_s,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by ``from_json``."""
        plain = {name: getattr(self, name) for name in (item.name for item in fields(self))}
        paths = {name: str(plain[name]) for name in _PATHS if plain[name] is not None}
        return {**plain, **paths, "spec": self.spec.to_json(), "calibration": self.calibration.model_dump(mode="json")}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> BuildRequest:
        """The inverse of ``to_json``.

        Raises:
            BuildError: a field is missing, unknown or of another type.
        """
        try:
            names = plain["class_names"]
            known = {
                **{name: Path(plain[name]) for name in _PATHS if plain[name] is not None},
                "spec": EngineSpec.from_json(plain["spec"]),
                "calibration": CalibrationSettings.model_validate(plain["calibration"]),
                "keep": tuple(str(name) for name in plain["keep"]),
                "class_names": None if names is None else tuple(str(name) for name in names),
            }
            return cls(**{**plain, **known})
        except (KeyError, TypeError, ValueError) as error:
            raise BuildError(
                f"not a build request: {type(error).__name__}: {error}",
                remedy="the daemon and its build child must be of one version: restart the service",
            ) from error


def nms_of(engine: EngineSettings) -> NmsSpec:
    """What the settings ask of NMS, wherever it runs."""
    return NmsSpec(engine.nms_iou, engine.max_det, engine.nms_top_k)


def weights_digest(path: Path, beat: Callable[[], None] = lambda: None) -> str:
    """SHA-256 of the weights file as lower-case hex, read in pieces.

    Args:
        path: of the file.
        beat: called for each piece.

    Raises:
        WeightsError: the file is absent, empty, unreadable, no regular file, or larger than any network.
    """
    digest, size_bytes = hashlib.sha256(), 0
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise WeightsError(f"weights {path} is not a file", remedy="name a .pt or .onnx file", path=path)
        _require_small(path, status.st_size)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                beat()
                digest.update(chunk)
                size_bytes += len(chunk)
                _require_small(path, size_bytes)  # it may grow meanwhile
    except OSError as error:
        raise WeightsError(
            f"weights {path} cannot be read: {error.strerror}",
            remedy=say("check ", Setting.WEIGHTS_PATH, " and the file's mode"),
            path=path,
        ) from error
    if size_bytes == 0:
        raise WeightsError(f"weights {path} is empty", remedy="copy the file again", path=path)
    return digest.hexdigest()


def _require_small(path: Path, size_bytes: int) -> None:
    if size_bytes > MOST_WEIGHTS_BYTES:
        raise WeightsError(
            f"weights {path} has {size_bytes / 1e9:.0f} GB, and no network that is exported has "
            f"{MOST_WEIGHTS_BYTES / 1e9:.0f}",
            remedy=say("name a .pt or .onnx file in ", Setting.WEIGHTS_PATH),
            path=path,
        )


def _spec(engine: EngineSettings, backend: Backend) -> EngineSpec:
    size = engine.img_size
    target = backend.auto_target() if engine.target == "auto" else Target.parse(engine.target)
    return EngineSpec(
        target=target,
        precision=backend.auto_precision(target) if engine.precision == "auto" else Precision(engine.precision),
        resolution_hw=(size, size) if isinstance(size, int) else size,
        batch=engine.batch,
        dynamic=engine.dynamic,
        nms=nms_of(engine) if backend.nms_inside(target) else None,
        simplify=engine.simplify,
        opset=engine.opset,
        workspace_gib=engine.workspace_gib,
        typing=engine.typing,
        optimization_level=engine.optimization_level,
        quantization=engine.quantization,
        allow_lower_precision=engine.allow_lower_precision,
    )


def _absolute(calibration: CalibrationSettings) -> CalibrationSettings:
    """The child has another working directory."""
    data = calibration.data
    return calibration if data is None else calibration.model_copy(update={"data": data.absolute()})


def images_of(request: BuildRequest) -> CalibrationSet:
    """The calibration images of an INT8 request.

    Raises:
        CalibrationError: there are none, too few, or others than when the request was made.
    """
    images = camera_samples.wanted_set(request.calibration, request.state_dir, request.spec.batch)
    if images is None:
        raise CalibrationError(
            "int8 is asked for and there are no calibration images",
            remedy=say("name some in ", Setting.DATA, ", or let the cameras collect them"),
        )
    if images.digest != request.calibration_digest:
        raise CalibrationError(
            f"the calibration images of {images.source} changed since the build was asked for",
            remedy=say(
                "they are used once nobody changes them any more; '", Command.REBUILD, "' takes them as they are now"
            ),
        )
    return images
