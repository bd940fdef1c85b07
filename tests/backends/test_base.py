from __future__ import annotations

import sys
from pathlib import Path

import pytest
from backends.cuda_standin import CudaStandIn

from vajra_edge.backends import base
from vajra_edge.backends.tensorrt import library
from vajra_edge.device import Gpu
from vajra_edge.errors import BackendUnavailable

GPU = (Gpu(0, "Orin (Ampere iGPU)", "8.7"),)


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a TensorRT of the test's own; none of the installed ones is seen."""
    monkeypatch.setattr(library, "MODULES", ("tensorrt_of_this_test",))
    monkeypatch.syspath_prepend(str(tmp_path))
    library.load.cache_clear()
    yield tmp_path
    library.load.cache_clear()
    sys.modules.pop("tensorrt_of_this_test", None)


def test_without_a_gpu_onnx_runtime_is_taken_and_the_reason_given(libraries: Path):
    (libraries / "tensorrt_of_this_test.py").write_text("__version__ = '10.3.0'")
    choice = base.select("auto", gpus=lambda: ())
    assert (choice.backend.name, choice.reason) == ("onnxruntime", "no NVIDIA GPU is seen")


def test_a_gpu_without_tensorrt_takes_onnx_runtime_and_says_so(libraries: Path):
    choice = base.select("auto", gpus=lambda: GPU)
    assert choice.backend.name == "onnxruntime"
    assert "TensorRT is not installed" in choice.reason


def test_a_gpu_with_tensorrt_takes_it(libraries: Path, monkeypatch: pytest.MonkeyPatch):
    (libraries / "tensorrt_of_this_test.py").write_text("__version__ = '10.3.0'")
    CudaStandIn().install(monkeypatch)
    monkeypatch.setattr(base.start, "refusal", lambda _: None)
    choice = base.select("auto", gpus=lambda: GPU, state_dir=libraries)
    assert (choice.backend.name, choice.backend.state_dir) == ("tensorrt", libraries)
    assert (
        choice.reason
        == "Orin (Ampere iGPU) is seen and TensorRT 10.3.0 loads; CUDA is called through a stand-in (CUDA 12.6)"
    )
    assert not choice.instead


@pytest.mark.parametrize(
    "breakage", ["raise ImportError('libnvinfer.so.10: no such file')", "import no_such_dependency"]
)
def test_a_tensorrt_that_does_not_load_beside_a_gpu_gives_way_to_the_cpu_which_is_said(libraries: Path, breakage: str):
    (libraries / "tensorrt_of_this_test.py").write_text(breakage)
    choice = base.select("auto", gpus=lambda: GPU)
    assert (choice.backend.name, choice.instead) == ("onnxruntime", True)
    assert "does not load" in choice.reason
    with pytest.raises(BackendUnavailable, match="does not load") as raised:
        base.select("tensorrt", gpus=lambda: GPU)
    assert str(raised.value.remedy) in choice.reason


def test_a_backend_that_is_set_is_taken_whatever_is_seen(libraries: Path):
    choice = base.select("onnxruntime", threads=3, gpus=lambda: GPU)
    assert (choice.backend.name, choice.backend.threads) == ("onnxruntime", 3)
    assert choice.reason == "as set in [engine] backend"


def test_a_set_tensorrt_that_is_absent_is_an_error(libraries: Path):
    with pytest.raises(BackendUnavailable, match="TensorRT is not installed"):
        base.select("tensorrt", gpus=lambda: GPU)


def test_a_set_onnx_runtime_that_is_absent_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match="pip install onnxruntime"):
        base.select("onnxruntime")


def test_an_unknown_backend_is_named_with_the_known_ones():
    with pytest.raises(BackendUnavailable, match=r"'openvino'.*auto, onnxruntime or tensorrt"):
        base.select("openvino")
