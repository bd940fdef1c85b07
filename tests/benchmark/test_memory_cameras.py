from __future__ import annotations

import numpy as np
import pytest

from vajra_edge.benchmark.memory_cameras import EndlessCamera, MemoryCameras, due
from vajra_edge.inference.mailboxes import Mailboxes

IMAGES = [np.full((4, 6, 3), value, np.uint8) for value in range(3)]


class Mailbox(Mailboxes):
    """Keeps every frame that was put."""

    def __init__(self):
        super().__init__()
        self.frames = []

    def put(self, frame):
        self.frames.append(frame)
        super().put(frame)


class Clock:
    """Time passes by waiting alone, and by ``lost_s`` at the wait that is named."""

    def __init__(self, waits, lost=(None, 0.0)):
        self.now_ns, self.waits, self.lost = 5_000_000_000, waits, lost
        self.waited = 0

    def __call__(self):
        return self.now_ns

    def wait(self, seconds):
        self.now_ns += round(seconds * 1e9)
        if self.waited == self.lost[0]:
            self.now_ns += round(self.lost[1] * 1e9)
        self.waited += 1
        return self.waited > self.waits


def fed(cameras, fps, frames, **lost):
    clock, mailboxes = Clock(frames, **lost), Mailbox()
    feeder = MemoryCameras(IMAGES, cameras, fps, mailboxes, clock, clock.wait)
    feeder.run()
    return feeder, mailboxes


@pytest.mark.parametrize(("cameras", "fps"), [(1, 30.0), (4, 30.0), (16, 30.0), (64, 30.0), (3, 7.5)])
def test_frames_of_a_second_come_at_their_rate_spread_over_the_cameras(cameras, fps):
    frames = [due(number, cameras, fps) for number in range(round(cameras * fps) + 1)]
    assert frames[0].at_ns == 0
    assert frames[cameras].camera == 0
    assert frames[cameras].at_ns == pytest.approx(1e9 / fps, abs=1)
    assert {one.camera for one in frames[:cameras]} == set(range(cameras))
    gaps = np.diff([one.at_ns for one in frames])
    assert gaps.max() - gaps.min() <= 1, "no two cameras at once"


def test_each_camera_counts_its_frames_and_sees_the_pictures_in_turn():
    feeder, mailboxes = fed(2, 10.0, 6)
    assert feeder.arrived == 6
    assert [(frame.camera, frame.seq) for frame in mailboxes.frames] == [
        (f"memory-{number % 2}", number // 2) for number in range(6)
    ]
    assert [frame.image[0, 0, 0] for frame in mailboxes.frames if frame.camera == "memory-0"] == [0, 1, 2]
    assert sum(mailboxes.dropped(name) for name in feeder.names) == 4, "nobody takes them"


def test_a_frame_that_is_put_late_arrived_when_its_time_had_come():
    feeder, mailboxes = fed(1, 10.0, 5, lost=(2, 0.25))
    arrived_ms = [(frame.captured_ns - 5_000_000_000) / 1e6 for frame in mailboxes.frames]
    assert arrived_ms == pytest.approx([0, 100, 200, 300, 400])
    assert feeder.late_ms == pytest.approx([0, 0, 250, 150, 50])


def test_an_endless_camera_has_one_frame_whenever_it_is_asked_and_it_arrives_then():
    clock = Clock(0)
    camera = EndlessCamera(IMAGES, "yard", clock)
    frames = []
    for _ in range(5):
        clock.now_ns += 7
        frames += camera.take(4, 0.0, 1.0)
    assert [one.seq for one in frames] == [0, 1, 2, 3, 4]
    assert [int(one.image[0, 0, 0]) for one in frames] == [0, 1, 2, 0, 1]
    assert [one.captured_ns for one in frames] == [5_000_000_007 + 7 * number for number in range(5)]
    assert all(one.memory is not None and one.memory.holds(one.image) for one in frames), "a GPU reads them there"
