"""CUDA: the driver, the runtime in one of two ways, and what it lends. One status check, in ``check``."""

from vajra_edge.backends.cuda.check import CudaRefused, CudaUnavailable, hidden
from vajra_edge.backends.cuda.devices import absence, count, describe, device
from vajra_edge.backends.cuda.driver import CudaGpu
from vajra_edge.backends.cuda.resources import DeviceBuffer, Event, PinnedBuffer, Stream
from vajra_edge.backends.cuda.runtime import call, reason
from vajra_edge.backends.cuda.waiting import Waiter

__all__ = [
    "CudaGpu",
    "CudaRefused",
    "CudaUnavailable",
    "DeviceBuffer",
    "Event",
    "PinnedBuffer",
    "Stream",
    "Waiter",
    "absence",
    "call",
    "count",
    "describe",
    "device",
    "hidden",
    "reason",
]
