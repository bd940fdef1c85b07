"""Ring: the shared memory that a camera's pictures lie in, and whose each slot is.

A segment is a sealed ``memfd`` that belongs to whoever has it open, so that none outlives the processes that share it
and /dev/shm plays no part. A slot belongs to the camera's process until it sends ``FilledSlot``, then to the parent
until it sends ``Back``, which it does when the last array over it is gone. Nobody writes into what he does not own,
so that no letterbox, snapshot or batch in flight ever sees a picture change. The parent's mapping is read-only, and
the segment sealed against shrinking, which would kill whoever reads it.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vajra_edge.capture.protocol import BrokenProtocol, FilledSlot, Slots
from vajra_edge.media.limits import MAX_IMAGE_PX
from vajra_edge.pixel_format import array_shape
from vajra_edge.types import Memory

SLOTS = 6
"""One is written, one is on its way, one waits in the mailbox, one is letterboxed, two are in flight."""

LARGEST_BYTES_A_PIXEL = 4
"""Those of BGRx."""

_MFD_NOEXEC_SEAL = 0x0008  # since Linux 6.3; os does not name it yet
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_PAGE_BYTES = mmap.PAGESIZE


class WritableRing:
    """The end of the camera's process. Used by one thread.

    Slots that came back last are filled first, so that memory is touched only for as many as are in use together.

    Args:
        announce: sends ``Slots`` with a copy of the descriptor.
    """

    def __init__(self, announce: Callable[[Slots, int], None]) -> None:
        self._announce = announce
        self._segment = -1
        self._slot_bytes = 0
        self._memory: mmap.mmap | None = None
        self._free: list[int] = []
        self._generations = [0] * SLOTS

    def has_room(self, image: NDArray[np.uint8]) -> bool:
        """Whether ``write`` finds a slot; an image larger than all before it gets a new segment."""
        return bool(self._free) or image.nbytes > self._slot_bytes

    def write(self, image: NDArray[np.uint8]) -> tuple[int, int, int]:
        """Copy an image into a slot, which is the parent's from now on.

        Args:
            image: uint8, of any format; ``has_room`` was asked.

        Returns:
            Segment, slot, generation.
        """
        if image.nbytes > self._slot_bytes:
            self._make(image.nbytes)
        if self._memory is None:
            raise AssertionError("an empty image")
        slot = self._free.pop()
        self._generations[slot] += 1
        place = np.frombuffer(self._memory, np.uint8, image.nbytes, slot * self._slot_bytes)
        np.copyto(place.reshape(image.shape), image)
        return self._segment, slot, self._generations[slot]

    def back(self, segment: int, slot: int, generation: int) -> None:
        """The parent let go of a slot; news of an older segment are nothing."""
        if segment == self._segment and slot < SLOTS and self._generations[slot] == generation:
            self._free.append(slot)

    def close(self) -> None:
        """Let go; what the parent holds stays readable for it."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _make(self, least_bytes: int) -> None:
        self.close()
        self._slot_bytes = -(-least_bytes // _PAGE_BYTES) * _PAGE_BYTES
        self._segment += 1
        self._free, self._generations = list(range(SLOTS)), [0] * SLOTS
        descriptor = _sealed(SLOTS * self._slot_bytes)
        try:
            self._memory = mmap.mmap(descriptor, SLOTS * self._slot_bytes)
            self._announce(Slots(self._segment, self._slot_bytes), descriptor)
        finally:
            os.close(descriptor)


def _sealed(size_bytes: int) -> int:
    """A descriptor of memory of exactly this size; it is taken from the system page by page, as it is written."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        descriptor = os.memfd_create("vajra-edge", flags | _MFD_NOEXEC_SEAL)
    except OSError:  # an older kernel
        descriptor = os.memfd_create("vajra-edge", flags)
    os.ftruncate(descriptor, size_bytes)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


class Segment:
    """The parent's end of one segment. It lives as long as an image of it does. One thread lends, any thread lets go.

    Args:
        slots: as announced.
        descriptor: of its memory; the caller's to close.
        back: called from any thread when the last array over a slot is gone: segment, slot, generation. Never waits.

    Attributes:
        number: of the segment.
        memory: of all slots.

    Raises:
        BrokenProtocol: the memory is not what was announced, or could be taken away.
    """

    def __init__(self, slots: Slots, descriptor: int, back: Callable[[int, int, int], None]) -> None:
        size_bytes = SLOTS * slots.slot_bytes
        largest_bytes = MAX_IMAGE_PX * LARGEST_BYTES_A_PIXEL + _PAGE_BYTES
        try:
            sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS == _SEALS
        except OSError:
            sealed = False
        if not (0 < slots.slot_bytes <= largest_bytes and sealed and os.fstat(descriptor).st_size == size_bytes):
            raise BrokenProtocol(f"a segment of {SLOTS} slots of {slots.slot_bytes} bytes is not as announced")
        self.number, self._slot_bytes, self._back = slots.segment, slots.slot_bytes, back
        self.memory = Memory(np.frombuffer(mmap.mmap(descriptor, size_bytes, prot=mmap.PROT_READ), np.uint8))
        self._generations = [0] * SLOTS
        self._lent: set[int] = set()

    def lend(self, picture: FilledSlot) -> NDArray[np.uint8]:
        """The picture where it lies: read-only, and unchanged for as long as this array or a view of it exists.

        Raises:
            BrokenProtocol: there can be no such picture, or its slot is somebody's.
        """
        shape = _shape_of(picture)
        sound = (
            0 <= picture.slot < SLOTS
            and picture.slot not in self._lent
            and picture.generation == self._generations[picture.slot] + 1
            and math.prod(shape) <= self._slot_bytes
        )
        if not sound:
            raise BrokenProtocol(f"a picture of {picture.width_px} x {picture.height_px} in slot {picture.slot}")
        self._generations[picture.slot] = picture.generation
        self._lent.add(picture.slot)
        address = self.memory.address + picture.slot * self._slot_bytes
        return np.asarray(_Lease(self, picture, shape, address))

    def let_go(self, slot: int, generation: int) -> None:
        """Nobody looks at a slot any more. Takes no lock: a collection calls this from within whatever else goes on."""
        if slot not in self._lent or self._generations[slot] != generation:
            raise AssertionError(f"slot {slot} of generation {generation} was let go twice")
        self._lent.remove(slot)
        self._back(self.number, slot, generation)


def _shape_of(picture: FilledSlot) -> tuple[int, ...]:
    """Of the array over a picture.

    Raises:
        BrokenProtocol: there can be no picture of this size and format.
    """
    width_px, height_px = picture.width_px, picture.height_px
    try:
        shape = array_shape(picture.pixels, (width_px, height_px))
    except ValueError as error:
        raise BrokenProtocol(f"a picture in {error}") from error
    if not (width_px > 0 and 0 < width_px * height_px <= MAX_IMAGE_PX):
        raise BrokenProtocol(f"a picture of {width_px} x {height_px}")
    return shape


class _Lease:
    """What an array over a slot, and each view of it, has for its base; its end gives the slot back."""

    __slots__ = ("__array_interface__", "_generation", "_segment", "_slot")

    def __init__(self, segment: Segment, picture: FilledSlot, shape: tuple[int, ...], address: int) -> None:
        self.__array_interface__ = {"shape": shape, "typestr": "|u1", "data": (address, True), "version": 3}
        self._segment, self._slot, self._generation = segment, picture.slot, picture.generation

    def __del__(self) -> None:
        with contextlib.suppress(TypeError):  # the interpreter is going away
            self._segment.let_go(self._slot, self._generation)
