"""Board: what the service's sandbox may close of a Jetson, tried from inside it, each with the line that opens it."""

from __future__ import annotations

import errno
import glob
import grp
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vajra_edge import device
from vajra_edge.backends.cuda.check import FIND_WHY_NO_NODE, NO_NODE
from vajra_edge.config.address import Kind, kind_of
from vajra_edge.config.settings import CameraSettings

DEVICES = (
    "/dev/nvmap",
    "/dev/nvhost-ctrl*",
    "/dev/nvhost-as-gpu",
    "/dev/nvhost-gpu",
    "/dev/nvhost-vic",
    "/dev/nvhost-nvdec",
    "/dev/nvhost-nvdla*",
    "/dev/nvgpu/igpu*/ctrl",
    "/dev/nvgpu/igpu*/channel",
    "/dev/nvgpu/igpu*/as",
    "/dev/host1x-fence",
    "/dev/dri/renderD*",
    "/dev/nvidia[0-9]*",
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
)
"""What CUDA, the DLA and the hardware decoder open (lists: snapd's nvidia-tegra-drivers-support, nixpkgs#344729)."""

READ_ONLY = ("/dev/nvmap",)
"""Of those what NVIDIA's libraries need only read: on a Thor, and some Orins, it is ``cr--r----- root video``."""

ARGUS_SOCKET = Path("/tmp/argus_socket")  # noqa: S108  NVIDIA's place for it
_DROP_IN = "run deploy/install.sh again, which places the unit's drop-in for CSI, and restart nvargus-daemon"


@dataclass(frozen=True)
class Finding:
    """What was tried.

    Attributes:
        name: of what it is needed for.
        found: what was seen.
        remedy: what opens it; empty where it is open.
    """

    name: str
    found: str
    remedy: str = ""


def gpu_devices(patterns: Iterable[str] = DEVICES) -> Iterator[Finding]:
    """Each device file of the GPU that this process may not open; one line where it may open all; none, none."""
    tried = sorted(path for pattern in patterns for path in glob.glob(pattern))  # noqa: PTH207  whole patterns
    closed = [finding for path in tried if (finding := _closed(path)) is not None]
    if tried and not closed:
        yield Finding("gpu devices", f"{len(tried)} device files of the GPU can be opened")
    yield from closed


def no_gpu(root: Path = Path("/")) -> Finding | None:
    """What is wrong with a Jetson whose GPU has no device file at all; None where it has one, and off a Jetson."""
    return Finding("gpu devices", NO_NODE, FIND_WHY_NO_NODE) if device.gpu_made_no_node(root) else None


def _closed(path: str) -> Finding | None:
    refused = _refused(path, os.O_RDWR)
    if refused == errno.EACCES and path in READ_ONLY:
        refused = _refused(path, os.O_RDONLY)
    name = f"gpu device {path}"
    if refused == errno.EPERM:  # a device policy answers so, and nothing else
        return Finding(name, "the unit's device policy closes it", f"add DeviceAllow={_region_of(path)} rw to it")
    if refused == errno.EACCES:
        return Finding(name, "its mode keeps this user out", _let_in(path))
    return None  # it opens; or it is busy, or has nothing behind it: that is for its driver to say


def _refused(path: str, access: int) -> int | None:
    """The errno with which it does not open; None where it does."""
    try:
        os.close(os.open(path, access | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.errno
    return None


def _let_in(path: str) -> str:
    """What lets the service's user in: a group that may open it, or where its mode lets in none, another mode."""
    needed = stat.S_IRGRP if path in READ_ONLY else stat.S_IRGRP | stat.S_IWGRP
    if Path(path).stat().st_mode & needed == needed:
        return f"add the service's user to the group {_group_of(path)}"
    return f'add a udev rule: ENV{{DEVNAME}}=="{path}", GROUP="video", MODE="0660"'


def _region_of(path: str) -> str:
    """The name that a device's driver registered, as DeviceAllow= takes it; the file itself where that is shared."""
    major = os.major(Path(path).stat().st_rdev)
    for line in Path("/proc/devices").read_text(encoding="utf-8").partition("Block devices:")[0].splitlines():
        number, _, name = line.strip().partition(" ")
        if number == str(major) and name != "misc":
            return f"char-{name}"
    return path


def _group_of(path: str) -> str:
    status = Path(path).stat()
    try:
        return grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        return str(status.st_gid)


def camera(settings: CameraSettings, *, inside: bool) -> Finding | None:
    """What keeps a camera's own way into this machine closed; None: nothing that is known.

    Args:
        settings: of the camera.
        inside: this process is in the service's sandbox.
    """
    kind = kind_of(settings.source)
    if kind is Kind.CSI and not _is_socket(ARGUS_SOCKET):
        if inside:
            return Finding("Argus", f"{ARGUS_SOCKET} is not seen from the service's sandbox", _DROP_IN)
        return Finding("Argus", f"{ARGUS_SOCKET} is not there", "systemctl start nvargus-daemon")
    if kind is Kind.GSTREAMER and inside and os.environ.get("ORC_CODE") != "backup":
        told = "GStreamer's Orc would write machine code, which the sandbox forbids, and end the camera's process"
        return Finding("Orc", told, "add Environment=ORC_CODE=backup to the unit")
    return None


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False
