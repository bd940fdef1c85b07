"""Intake: where the GPU reads a camera's frame, and how it gets there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vajra_edge.backends.cuda.letterbox import DeviceFrame, PixelFormat
from vajra_edge.backends.cuda.resources import DeviceBuffer, MappedBuffer, PinnedBuffer, Resource, Stream

_CHANNELS = 3


class Intake(Resource):
    """Takes one frame at a time to the GPU; its memory grows to the largest frame that came.

    A frame is copied once, into pinned memory, for a copy from any other goes through a buffer of the driver's while
    the caller waits. An integrated GPU reads it there; any other is sent it.

    Args:
        integrated: the GPU shares the host's memory.
    """

    def __init__(self, *, integrated: bool) -> None:
        self._integrated = integrated
        self._staging: PinnedBuffer | None = None
        self._device: DeviceBuffer | None = None

    def put(self, image: NDArray[np.uint8], stream: Stream) -> DeviceFrame:
        """Bring a frame to the GPU.

        Args:
            image: (height, width, 3) uint8, BGR; it may be gone as soon as this returns.
            stream: what is queued in it afterwards finds the frame there.

        Raises:
            CudaRefused: there is no memory for it, or the copy was refused.
        """
        staging = self._roomy(image.nbytes)
        np.copyto(staging.array[: image.nbytes].reshape(image.shape), image)
        height, width = image.shape[:2]
        address = self._sent(staging, image.nbytes, stream)
        return DeviceFrame(address, (width, height), PixelFormat.BGR, width * _CHANNELS)

    def close(self) -> None:
        """Free its memory; a second call does nothing."""
        for one in (self._staging, self._device):
            if one is not None:
                one.close()
        self._staging = self._device = None

    def _roomy(self, nbytes: int) -> PinnedBuffer:
        if self._staging is None or self._staging.nbytes < nbytes:
            self.close()
            kind = MappedBuffer if self._integrated else PinnedBuffer
            self._staging = kind((nbytes,), np.uint8)
        return self._staging

    def _sent(self, staging: PinnedBuffer, nbytes: int, stream: Stream) -> int:
        if isinstance(staging, MappedBuffer):
            return staging.device_address
        if self._device is None:
            self._device = DeviceBuffer(staging.nbytes)
        stream.copy(self._device.address, staging.address, nbytes)
        return self._device.address
