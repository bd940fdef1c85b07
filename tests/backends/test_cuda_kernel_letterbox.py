"""The letterbox of production for the host: within a step of the host's own, for every shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from backends.cuda_emulation import EmulatedGpu

from vajra_edge.backends.cuda import kernels as cuda_kernels
from vajra_edge.backends.cuda import sources
from vajra_edge.backends.cuda.check import CudaUnavailable
from vajra_edge.backends.cuda.compiler import machine_code
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


class Compiles:
    """A compiler whose machine code is what the emulated GPU takes for it."""

    version = "12.6"

    def compile(self, source: str, name: str, architecture: str) -> bytes:
        return name.encode()


@pytest.mark.parametrize("kept", [("letterbox", "detections"), ("letterbox",), ()])
def test_a_compiler_that_is_gone_is_done_without_where_all_kernels_are_kept(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kept: tuple[str, ...],
) -> None:
    def absent(newest: int) -> None:
        raise CudaUnavailable("CUDA's compiler does not load: libnvrtc.so.12", remedy="install it")

    gpu = EmulatedGpu(folder)
    gpu.install(monkeypatch)
    monkeypatch.setattr(cuda_kernels, "compiler", absent)
    monkeypatch.setattr(cuda_kernels, "machine_code", machine_code)
    for name in kept:
        machine_code(Compiles(), sources.source(name), name, "sm_87", tmp_path)
    if len(kept) == len(sources.KERNELS):
        made, image = np.zeros((3, 96, 128), np.float32), np.full((96, 128, 3), 51, np.uint8)
        with KernelLetterbox((96, 128), 0, tmp_path) as ours:
            ours.apply(image, made)
        assert (made == np.float32(51 / 255)).all()
        assert "those that an earlier start compiled: CUDA's compiler does not load: libnvrtc.so.12" in caplog.text
    else:
        with pytest.raises(CudaUnavailable, match=r"does not load: libnvrtc.so.12; and no code of"):
            KernelLetterbox((96, 128), 0, tmp_path)
    assert gpu.unreleased() == []
