"""A status of CUDA becomes an exception here and nowhere else; it names the call, the error and the remedy."""

from __future__ import annotations

import os

from vajra_edge import device
from vajra_edge.errors import BackendUnavailable, InferenceError
from vajra_edge.wording import Setting, Text, say, several

OPEN_DEVICES = (
    "let this process open the GPU's devices (/dev/nvidia*, on a Jetson /dev/nvgpu and /dev/nvhost*: the unit's "
    "DeviceAllow, a container's --runtime nvidia), or reboot if the driver was upgraded"
)
NO_NODE = "the kernel's GPU driver made no device"
FIND_WHY_NO_NODE = (
    'look at: sudo dmesg | grep -E "nvgpu|NVRM", and whether /etc/firmware is there: where the kernel\'s command line '
    "names that folder and it is not, the GPU finds no firmware (JetPack 7.2 from its ISO)"
)
NO_DRIVER = "install NVIDIA's driver; on a Jetson it is part of Jetson Linux (apt install nvidia-l4t-cuda)"
NEWER_DRIVER = (
    "install the CUDA runtime that this driver takes (JetPack 6: CUDA 12.6, vajra-edge[cuda12]; "
    "JetPack 7: CUDA 13, vajra-edge[cuda13]), or a newer driver"
)
RESTART = "restart the process: with this error CUDA ends all of its work"
FREE = say("free memory of the GPU, or lower ", several(Setting.BATCH, Setting.IMG_SIZE, last="or"))

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Variable that names the devices a process may see; the commonest reason for seeing none."""

INSUFFICIENT_DRIVER = 35
NO_DEVICE = 100

NO_STUBS = "take CUDA's folder of stubs off LD_LIBRARY_PATH: its libcuda.so.1 is for linking only"

ABSENT: dict[int, Text] = {
    -1: NO_STUBS,  # what stubs before CUDA 11 say (CUDAnative.jl#72)
    3: NO_DRIVER,
    34: NO_STUBS,
    INSUFFICIENT_DRIVER: NEWER_DRIVER,
    36: NEWER_DRIVER,
    46: "end the program that has this GPU for itself alone (nvidia-smi: compute mode)",
    NO_DEVICE: OPEN_DEVICES,
    304: OPEN_DEVICES,
    801: NO_DRIVER,
    802: "start nvidia-fabricmanager, or wait until it is up",
    803: "reboot: the driver's library and the loaded kernel module are of different releases",
    804: "take CUDA's folder compat off LD_LIBRARY_PATH: this GPU runs its own driver's library alone",
    999: OPEN_DEVICES,
}
"""Status -> remedy, where it says that there is no CUDA here; numbers are those of CUresult and cudaError_t alike."""

LOST = frozenset({214, 700, 702, 710, 714, 715, 716, 717, 718, 719, 720})
"""Statuses after which every further call of the process fails too (cudaError_t: "must be terminated")."""

NOTHING_LEFT = LOST | {4, 999}
"""Statuses of giving back after which there is nothing to be given back: those, and the ends of a driver."""

OUT_OF_MEMORY = 2

NOT_READY = 600
"""What a question about queued work answers while it is not done; no error."""


class CudaUnavailable(BackendUnavailable):
    """There is no CUDA here, and the remedy says what to do.

    Attributes:
        call: the function that said so; empty where a library is absent.
        code: its status, or None.
        name: of the status, like ``cudaErrorInsufficientDriver``; empty where there is none.
    """

    def __init__(self, message: str, *, remedy: Text, call: str = "", code: int | None = None, name: str = "") -> None:
        super().__init__(message, remedy=remedy, call=call, code=code, name=name)
        self.call, self.code, self.name = call, code, name


class CudaRefused(InferenceError):
    """CUDA is here and refused one call; the attributes are those of ``CudaUnavailable``."""

    def __init__(self, message: str, *, remedy: Text = "", call: str, code: int, name: str) -> None:
        super().__init__(message, remedy=remedy, call=call, code=code, name=name)
        self.call, self.code, self.name = call, code, name


def check(call: str, code: int, name: str, meaning: str) -> None:
    """Let success through.

    Args:
        call: the function that was called.
        code: what it returned.
        name: of the code.
        meaning: of the code, in CUDA's words.

    Raises:
        CudaUnavailable: there is no driver, no device, or none that this library works with.
        CudaRefused: anything else but 0.
    """
    if code == 0:
        return
    told = f"{meaning} ({name}, error {code})"
    visible = os.environ.get(VISIBLE)
    if code == NO_DEVICE and visible is not None:
        raise CudaUnavailable(
            f"{call}: {told}; {VISIBLE} is {visible!r}", remedy=f"unset {VISIBLE}", call=call, code=code, name=name
        )
    if code in ABSENT:
        missing = when_closed() if ABSENT[code] is OPEN_DEVICES else ABSENT[code]
        raise CudaUnavailable(f"{call}: {told}", remedy=missing, call=call, code=code, name=name)
    remedy: Text = FREE if code == OUT_OF_MEMORY else RESTART if code in LOST else ""
    raise CudaRefused(f"CUDA refused {call}: {told}", remedy=remedy, call=call, code=code, name=name)


def when_closed() -> str:
    """The remedy where CUDA reaches no GPU: to open its devices, unless its kernel made none that could be opened."""
    return f"{NO_NODE}; {FIND_WHY_NO_NODE}" if device.gpu_made_no_node() else OPEN_DEVICES


def hidden() -> bool:
    """Whether somebody asked for this process to see no device at all."""
    return os.environ.get(VISIBLE, "0").strip() in {"", "-1", "NoDevFiles"}
