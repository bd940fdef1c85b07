"""The letterbox of production for the host: within a step of the host's own, for every shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from backends.cuda_emulation import EmulatedGpu

from vajra_edge.backends.cuda.kernel_letterbox import KernelLetterbox
from vajra_edge.geometry.letterbox import Letterbox


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


def test_images_of_any_shape_come_out_as_the_host_s_and_nothing_stays(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    gpu = EmulatedGpu(folder)
    gpu.install(monkeypatch)
    ours, host = KernelLetterbox((96, 128), 0, None), Letterbox((96, 128))
    rng = np.random.default_rng(0)
    for height, width in ((96, 128), (30, 40), (333, 77), (5, 200), (480, 640)):
        image = rng.integers(0, 256, (height, width, 3), np.uint8)[:, ::-1]
        found, wanted = host.blank(1)[0] * 0 - 1, host.blank(1)[0]
        assert ours.apply(image, found) == host.apply(np.ascontiguousarray(image), wanted)
        assert float(np.abs(found - wanted).max()) <= 1.001 / 255
    ours.close()
    ours.close()
    assert gpu.unreleased() == []
