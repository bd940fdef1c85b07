"""Intake: where the GPU reads a camera's frame, and how it gets there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vajra_edge.backends.cuda.letterbox import DeviceFrame
from vajra_edge.backends.cuda.registered import device_address
from vajra_edge.backends.cuda.resources import DeviceBuffer, MappedBuffer, PinnedBuffer, Resource, Stream
from vajra_edge.pixel_format import USUAL, Colorimetry, PixelFormat, resolution_of
from vajra_edge.types import Memory


@dataclass(frozen=True)
class _Source:
    """Host memory that the GPU reaches: the host's address of it, and its own where it shares memory with the host."""

    address: int
    device_address: int


class Intake(Resource):
    """Takes one frame at a time to the GPU; its memory grows to the largest frame that came.

    Where the GPU reads the frame's own memory, that is all. Any other frame is copied into pinned memory first, for a
    copy from elsewhere goes through a buffer of the driver's while the caller waits. An integrated GPU reads either
    where it lies; any other is sent it.

    Args:
        integrated: the GPU shares the host's memory.
    """

    def __init__(self, *, integrated: bool) -> None:
        self._integrated = integrated
        self._staging: PinnedBuffer | None = None
        self._device: DeviceBuffer | None = None

    def put(
        self,
        image: NDArray[np.uint8],
        memory: Memory | None,
        stream: Stream,
        pixels: PixelFormat = PixelFormat.BGR,
        colorimetry: Colorimetry = USUAL,
    ) -> DeviceFrame:
        """Bring a frame to the GPU.

        Args:
            image: uint8, as ``pixels`` says.
            memory: that it lies in, where it then has to stay until what is queued now is done; None: it may be gone
                as soon as this returns.
            stream: what is queued in it afterwards finds the frame there.
            pixels: its format.
            colorimetry: of NV12.

        Raises:
            CudaRefused: there is no memory for it, or the copy was refused.
        """
        wh, stride_bytes = resolution_of(pixels, image.shape), image.nbytes // image.shape[0]
        source = (_where_it_lies(image, memory) if memory else None) or self._staged(image)
        address = source.device_address if self._integrated else self._sent(source, image.nbytes, stream)
        chroma_address = address + wh[1] * stride_bytes if pixels is PixelFormat.NV12 else 0
        return DeviceFrame(address, wh, pixels, stride_bytes, chroma_address, stride_bytes, colorimetry)

    def close(self) -> None:
        """Free its memory; a second call does nothing."""
        for one in (self._staging, self._device):
            if one is not None:
                one.close()
        self._staging = self._device = None

    def _staged(self, image: NDArray[np.uint8]) -> _Source:
        if self._staging is None or self._staging.nbytes < image.nbytes:
            smaller, self._staging = self._staging, None
            if smaller is not None:
                smaller.close()
            self._staging = (MappedBuffer if self._integrated else PinnedBuffer)((image.nbytes,), np.uint8)
        np.copyto(self._staging.array[: image.nbytes].reshape(image.shape), image)
        seen = self._staging.device_address if isinstance(self._staging, MappedBuffer) else 0
        return _Source(self._staging.address, seen)

    def _sent(self, source: _Source, nbytes: int, stream: Stream) -> int:
        if self._device is None or self._device.nbytes < nbytes:
            smaller, self._device = self._device, None
            if smaller is not None:
                smaller.close()
            self._device = DeviceBuffer(nbytes)
        stream.copy(self._device.address, source.address, nbytes)
        return self._device.address


def _where_it_lies(image: NDArray[np.uint8], memory: Memory) -> _Source | None:
    if not image.flags.c_contiguous or not memory.holds(image) or (begin := device_address(memory)) is None:
        return None
    address = int(image.ctypes.data)
    return _Source(address, begin + address - memory.address)
