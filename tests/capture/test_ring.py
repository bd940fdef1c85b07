"""Slots of shared memory: never written to while somebody looks, always given back, never smaller than they were."""

from __future__ import annotations

import fcntl
import gc
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from colours import stored
from pictures import number_of, picture

from vajra_edge.capture import ring
from vajra_edge.capture.protocol import BrokenProtocol, FilledSlot, Slots
from vajra_edge.capture.ring import SLOTS, Segment, WritableRing
from vajra_edge.pixel_format import USUAL, PixelFormat, resolution_of

Place = tuple[int, int, int]


class Pair:
    """Both ends, in one process."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.back: list[Place] = []
        self.ring = WritableRing(self._announce)

    def _announce(self, slots: Slots, descriptor: int) -> None:
        self.segments.append(Segment(slots, descriptor, lambda *place: self.back.append(place)))

    def give(self, image: np.ndarray, pixels: PixelFormat = PixelFormat.BGR) -> np.ndarray:
        told = as_told(self.ring.write(image), image, pixels)  # which may announce another segment
        return self.segments[-1].lend(told)


def as_told(place: Place, image: np.ndarray, pixels: PixelFormat = PixelFormat.BGR) -> FilledSlot:
    width_px, height_px = resolution_of(pixels, image.shape)
    return FilledSlot(*place, width_px, height_px, 0, 0, False, 0, 0, pixels, USUAL, None)


def memory(size_bytes: int, seals: int | None = None) -> int:
    """Memory as a process that was taken over might offer it."""
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size_bytes)
    if seals is not None:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def test_an_image_is_the_slot_itself_and_cannot_be_written_to() -> None:
    pair = Pair()
    image = pair.give(picture(3))
    assert number_of(image) == 3
    assert image.shape == (48, 64, 3)
    assert image.dtype == np.uint8
    assert image.flags["C_CONTIGUOUS"]
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0] = 0
    with pytest.raises(ValueError, match="WRITEABLE"):
        image.flags.writeable = True


def test_a_slot_comes_back_with_the_last_view_and_not_before() -> None:
    pair = Pair()
    image = pair.give(picture(0))
    view = image[10:20].reshape(-1)
    del image
    assert pair.back == []
    assert view[0] == 20
    del view
    assert pair.back == [(0, SLOTS - 1, 1)]


def test_a_slot_that_is_held_in_a_cycle_comes_back_with_a_collection() -> None:
    pair = Pair()
    cycle: list[object] = [pair.give(picture(0))]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert len(pair.back) == 1


def test_there_are_so_many_slots_and_no_more_until_one_comes_back() -> None:
    pair = Pair()
    held = [pair.give(picture(number)) for number in range(SLOTS)]
    assert not pair.ring.has_room(picture(0))
    assert [number_of(image) for image in held] == list(range(SLOTS))
    held.pop(2)
    pair.ring.back(*pair.back.pop())
    assert pair.ring.has_room(picture(0))
    held.append(pair.give(picture(9)))
    assert [number_of(image) for image in held] == [0, 1, 3, 4, 5, 9]


def test_slots_that_came_back_last_are_filled_first_so_that_little_memory_is_touched() -> None:
    pair = Pair()
    for number in range(50):
        assert number_of(pair.give(picture(number))) == number % 20
        pair.ring.back(*pair.back.pop())
    assert len({place[1] for place in (pair.ring.write(picture(0)),)}) == 1
    assert pair.ring._generations[:-1] == [0] * (SLOTS - 1)


@pytest.mark.parametrize("place", [(0, SLOTS - 1, 2), (1, SLOTS - 1, 1), (0, 0, 1), (0, 99, 1)])
def test_what_was_not_lent_does_not_come_back(place: Place) -> None:
    pair = Pair()
    image = pair.give(picture(0))
    free = len(pair.ring._free)
    pair.ring.back(*place)
    assert len(pair.ring._free) == free
    assert number_of(image) == 0


def test_a_larger_picture_moves_to_another_segment_and_the_old_one_stays_readable() -> None:
    pair = Pair()
    small = pair.give(picture(1))
    large = pair.give(picture(2, 640, 480))
    again = pair.give(picture(3))
    assert [number_of(image) for image in (small, large, again)] == [1, 2, 3]
    assert len(pair.segments) == 2, "what fits needs no other segment"
    pair.ring.close()
    assert [number_of(image) for image in (small, large, again)] == [1, 2, 3]
    old = pair.segments[0]
    pair.segments.clear()
    del old, small
    assert pair.back == [(0, SLOTS - 1, 1)]
    pair.ring.back(*pair.back.pop())  # of a segment that it has left
    assert SLOTS - 1 not in pair.ring._free


def test_a_segment_leaves_with_its_last_image() -> None:
    def maps() -> int:
        return Path("/proc/self/maps").read_text(encoding="ascii").count("memfd:vajra-edge")

    gc.collect()  # of what other tests left
    before = maps()
    pair = Pair()
    image = pair.give(picture(1))
    pair.ring.close()
    pair.segments.clear()
    gc.collect()
    assert maps() == before + 1
    del image
    gc.collect()
    assert maps() == before


@pytest.mark.parametrize(
    "change",
    [
        {"slot": SLOTS},
        {"slot": 2**32 - 1},
        {"generation": 1},
        {"generation": 3},
        {"width_px": 0},
        {"width_px": 2**31, "height_px": 2**31},
        {"width_px": 65, "height_px": 480},
        {"width_px": 64, "height_px": 49, "pixels": PixelFormat.BGRX},
        {"width_px": 65, "height_px": 48, "pixels": PixelFormat.NV12},
        {"width_px": 64, "height_px": 47, "pixels": PixelFormat.NV12},
        {"width_px": 130, "height_px": 64, "pixels": PixelFormat.NV12},
        {"width_px": 0, "height_px": 48, "pixels": PixelFormat.NV12},
    ],
)
def test_a_picture_that_cannot_be_is_refused(change: dict[str, int]) -> None:
    """Three pages a slot."""
    pair = Pair()
    pair.give(picture(0))
    pair.ring.back(*pair.back.pop())
    told = as_told(pair.ring.write(picture(1)), picture(1))
    with pytest.raises(BrokenProtocol):
        pair.segments[-1].lend(replace(told, **change))


def test_what_fits_its_slot_and_is_more_than_a_picture_may_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot that holds the largest BGRx holds NV12 of nearly three times as many pixels."""
    monkeypatch.setattr(ring, "MAX_IMAGE_PX", 64 * 48)
    pair = Pair()
    told = as_told(pair.ring.write(picture(1)), picture(1))
    with pytest.raises(BrokenProtocol, match="a picture of 128 x 64"):
        pair.segments[-1].lend(replace(told, width_px=128, height_px=64, pixels=PixelFormat.NV12))


@pytest.mark.parametrize("pixels", PixelFormat)
def test_a_picture_of_each_format_lies_in_its_slot_as_it_came(pixels: PixelFormat) -> None:
    pair = Pair()
    image = stored(picture(5), pixels, USUAL)
    lent = pair.give(image, pixels)
    assert lent.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(lent, image)


def test_a_camera_may_change_its_format_with_every_picture() -> None:
    pair = Pair()
    formats = (PixelFormat.NV12, PixelFormat.BGR, PixelFormat.BGRX, PixelFormat.NV12, PixelFormat.BGR)
    images = [stored(picture(number), pixels, USUAL) for number, pixels in enumerate(formats)]
    held = [pair.give(image, pixels) for image, pixels in zip(images, formats, strict=True)]
    for one, image in zip(held, images, strict=True):
        np.testing.assert_array_equal(one, image)


def test_a_slot_that_is_somebodys_is_not_lent_again() -> None:
    pair = Pair()
    image = picture(0)
    told = as_told(pair.ring.write(image), image)
    held = pair.segments[-1].lend(told)
    with pytest.raises(BrokenProtocol):
        pair.segments[-1].lend(replace(told, generation=2))
    assert number_of(held) == 0


@pytest.mark.parametrize(
    ("slot_bytes", "size_bytes", "seals"),
    [
        (4096, SLOTS * 4096, None),
        (4096, SLOTS * 4096, fcntl.F_SEAL_GROW),
        (4096, SLOTS * 4096 - 1, 7),
        (8192, SLOTS * 4096, 7),
        (0, SLOTS * 4096, 7),
        (-4096, SLOTS * 4096, 7),
        (2**40, SLOTS * 4096, 7),
    ],
)
def test_memory_that_could_be_taken_away_is_refused(slot_bytes: int, size_bytes: int, seals: int | None) -> None:
    descriptor = memory(size_bytes, seals)
    try:
        with pytest.raises(BrokenProtocol):
            Segment(Slots(0, slot_bytes), descriptor, print)
    finally:
        os.close(descriptor)


def test_what_is_no_memory_is_refused() -> None:
    read, write = os.pipe()
    try:
        with pytest.raises(BrokenProtocol):
            Segment(Slots(0, 4096), read, print)
    finally:
        os.close(read)
        os.close(write)


def test_memory_of_the_ring_cannot_shrink_grow_or_run() -> None:
    kept: list[int] = []
    ring = WritableRing(lambda _, descriptor: kept.append(os.dup(descriptor)))
    ring.write(picture(0))
    for size_bytes in (0, 2**20):
        with pytest.raises(PermissionError):
            os.ftruncate(kept[0], size_bytes)
    ring.close()
    os.close(kept[0])
