"""Library: the TensorRT that this machine has, and what it can do, asked of its names and never of its version.

Three flavours share one API: ``tensorrt`` with weak typing (builder flags choose precisions; up to 10.x), ``tensorrt``
with strong typing (the graph's own types rule; the only kind from 11.0), and ``tensorrt_rtx``, whose builder names
compute capabilities ahead of time and so runs on a machine without a GPU.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vajra_edge.errors import BackendAbsent, BackendUnavailable, UnsupportedSpec
from vajra_edge.wording import Command, Setting, Text, say

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
"""In the order they are tried; RTX's metapackage installs no module of its own, its bindings do."""

INSTALL = (
    "on a Jetson: apt install python3-libnvinfer and a virtual environment with --system-site-packages; "
    "elsewhere: pip install tensorrt, or vajra-edge[tensorrt-rtx]"
)

INSTALL_BINDINGS = (
    "apt install python3-libnvinfer, and make the virtual environment with --system-site-packages and the system's own "
    "Python, which the bindings are for; elsewhere pip install the tensorrt of the library's release"
)
INSTALL_LIBRARY = (
    "install TensorRT's libraries of the bindings' release: on a Jetson apt install nvidia-jetpack-runtime"
)
NATIVE = "libnvinfer.so"
FOLDERS = ("usr/lib/*-linux-gnu", "usr/local/lib", "usr/local/*/lib")
"""Where TensorRT's packages put their libraries."""

AUTO, QDQ = Setting.TYPING.to("auto"), Setting.QUANTIZATION.to("qdq")


@dataclass(frozen=True)
class Library:
    """One loaded TensorRT.

    Attributes:
        trt: the module.
        name: ``TensorRT`` or ``TensorRT-RTX``, as in ``engine_file.MAGIC``.
        version: like ``10.3.0``.
    """

    trt: Any
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def has(self, feature: str) -> bool:
        """Whether the library knows ``Class.member``; every use of a name that comes or goes stands behind this."""
        owner, _, member = feature.partition(".")
        return hasattr(getattr(self.trt, owner, None), member)

    @property
    def ahead_of_time(self) -> bool:
        """Whether the builder can name a GPU that is not here (TensorRT-RTX)."""
        return self.has("IBuilderConfig.set_compute_capability")


@dataclass(frozen=True)
class Typing:
    """How precisions are chosen.

    Attributes:
        strong: by the graph's own types; else by builder flags.
        reason: why, for the manifest.
    """

    strong: bool
    reason: str

    def __str__(self) -> str:
        return "strong" if self.strong else "weak"


@functools.cache
def load() -> Library:
    """Import the first TensorRT there is.

    Raises:
        BackendUnavailable: none is installed, or one is and does not load; the message says which and why.
    """
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name == name:
                continue
            raise BackendUnavailable(f"{name} does not load: {error}", remedy=INSTALL, module=name) from error
        except (ImportError, OSError, RuntimeError) as error:
            raise BackendUnavailable(
                f"{name} is installed but does not load: {error}", remedy=_remedy(str(error)), module=name
            ) from error
        return _recent(of(module))
    if (found := native()) is not None:
        raise BackendAbsent(f"TensorRT is here ({found}), its Python bindings are not", remedy=INSTALL_BINDINGS)
    raise BackendAbsent("TensorRT is not installed", remedy=INSTALL)


def _recent(library: Library) -> Library:
    """JetPack 6.0 and older bring 8.6 and older, which lack what no release since 10.0 lacks."""
    if not library.ahead_of_time and library.version.startswith(("7.", "8.", "9.")):
        raise BackendUnavailable(
            f"{library} is not supported", remedy="upgrade to JetPack 6.1 or newer, or TensorRT 10.3"
        )
    return library


def native(root: Path = Path("/")) -> Path | None:
    """TensorRT's own library, bindings or not; looked for where its packages and LD_LIBRARY_PATH have it."""
    return next(_natives(root), None)


def _natives(root: Path) -> Iterator[Path]:
    for pattern in FOLDERS:
        yield from sorted(root.glob(f"{pattern}/{NATIVE}.*"))
    for folder in filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":")):
        yield from sorted(Path(folder).glob(f"{NATIVE}.*"))


def _remedy(reason: str) -> Text:
    """For bindings that do not load; most often they came without the library (pip's tensorrt-cu12-bindings alone)."""
    if "libnvinfer" in reason or "libnvonnxparser" in reason:
        return INSTALL_LIBRARY
    return say("reinstall it for this JetPack or driver; '", Command.DOCTOR, "' lists the versions")


def of(module: Any) -> Library:
    """The library behind an imported module."""
    ahead = hasattr(module, "ComputeCapability")
    return Library(module, "TensorRT-RTX" if ahead else "TensorRT", str(module.__version__))


def typing_of(library: Library, wanted: str, *, on_dla: bool, calibrates: bool = False) -> Typing:
    """Choose the typing.

    Args:
        library: what is there.
        wanted: auto, strong or weak.
        on_dla: the target is a DLA core.
        calibrates: the library's own calibrator sets the scales, which it does for weakly typed networks only.

    Raises:
        UnsupportedSpec: this library has no such typing.
    """
    weak = library.has("BuilderFlag.FP16")
    if wanted == "weak" and not weak:
        raise UnsupportedSpec(f"{library} has no weak typing: 11.0 removed its flags", remedy=say(AUTO), typing=wanted)
    if calibrates and (not weak or wanted == "strong"):
        raise UnsupportedSpec(
            f"{library} calibrates weakly typed networks only" if weak else f"{library} has no calibrator any more",
            remedy=say(QDQ | AUTO if weak else QDQ),
        )
    if wanted != "auto":
        return Typing(wanted == "strong", "as set")
    if not weak:
        return Typing(strong=True, reason="the library has no precision flags")
    reasons = (
        (calibrates, "the library's calibrator works on weakly typed networks"),
        (on_dla, "this library's DLA compiler takes precision flags and ranges, not Q/DQ"),
    )
    for applies, reason in reasons:
        if applies:
            return Typing(strong=False, reason=reason)
    # 10.12 deprecated the flags and made strong typing complete; this method came with it.
    if library.has("INetworkDefinition.mark_unfused_tensors_as_debug_tensors"):
        return Typing(strong=True, reason="strong typing is complete and the precision flags are deprecated")
    return Typing(strong=False, reason="strong typing is still incomplete in this release")
