"""CUDA: the driver, the runtime in one of two ways, and what it lends. One status check, in ``check``."""

from vajra_edge.backends.cuda.check import VISIBLE, CudaRefused, CudaUnavailable, hidden
from vajra_edge.backends.cuda.devices import absence, count, describe, device, tf32_absence
from vajra_edge.backends.cuda.driver import CudaGpu
from vajra_edge.backends.cuda.resources import DeviceBuffer, Event, Graph, MappedBuffer, PinnedBuffer, Stream
from vajra_edge.backends.cuda.runtime import call, reason, relax_this_thread
from vajra_edge.backends.cuda.waiting import WaitCost, Waiter

__all__ = [
    "VISIBLE",
    "CudaGpu",
    "CudaRefused",
    "CudaUnavailable",
    "DeviceBuffer",
    "Event",
    "Graph",
    "MappedBuffer",
    "PinnedBuffer",
    "Stream",
    "WaitCost",
    "Waiter",
    "absence",
    "call",
    "count",
    "describe",
    "device",
    "hidden",
    "reason",
    "relax_this_thread",
    "tf32_absence",
]
