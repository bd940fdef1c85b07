from __future__ import annotations

import pytest

from vajra_edge.backends.tensorrt import library
from vajra_edge.errors import BackendUnavailable, PlanError
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.plans import engine_file
from vajra_edge.plans.engine_file import EngineFile
from vajra_edge.plans.spec import Precision, Target
from vajra_edge.tasks import load

HERE = library.Library(object(), "TensorRT", "10.3.0")
UPSTREAM = {
    "names": {"0": "person", "1": "car"},
    "stride": 32,
    "task": "detect",
    "imgsz": [320, 416],
    "batch": 4,
    "args": {"half": True, "dynamic": True, "nms": False},
}


def plan(*version: int, magic: bytes = b"ftrt") -> bytes:
    return magic + bytes(20) + bytes(version) + bytes(16)


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "load", lambda: HERE)

    def write(metadata, content=None):
        path = tmp_path / "x.engine"
        engine_file.write(path, EngineFile(metadata, content or plan(10, 3, 0, 30)))
        return path

    return write


def test_upstreams_header_tells_the_signature(written):
    found = load.read(written(UPSTREAM))
    assert found.signature == Signature(
        "images", "output0", Layout.RAW, 4, (320, 416), True, True, 32, ("person", "car")
    )
    assert found.precision is Precision.FP16
    assert found.header == "TensorRT 10.3.0.30"


def test_our_own_header_says_all(written):
    signature = Signature("in", "out", Layout.DETECTIONS, 1, (64, 64), False, False, 32, ("a",), 0.5, 100, 300)
    ours = {"signature": signature.to_json(), "precision": "int8", "target": "dla:1", "built_for": ""}
    found = load.read(written({load.OURS: ours}))
    assert (found.signature, found.precision, found.target) == (signature, Precision.INT8, Target("dla", 1))


def test_another_release_or_library_is_refused_with_the_version_found(written):
    with pytest.raises(PlanError, match=r"built by TensorRT 8\.6\.1\.6, this machine has TensorRT 10\.3\.0"):
        load.read(written(UPSTREAM, plan(8, 6, 1, 6)))
    with pytest.raises(PlanError, match=r"built by TensorRT-RTX 1\.7"):
        load.read(written(UPSTREAM, plan(1, 7, 1, 116, magic=b"vtrt")))


def test_another_gpu_is_refused_with_the_version_found(written, monkeypatch):
    signature = Signature("images", "output0", Layout.RAW, 1, (64, 64), False, False, 32, ("a",))
    ours = {"signature": signature.to_json(), "precision": "fp16", "target": "gpu:0"}
    path = written({load.OURS: {**ours, "built_for": "compute capability 8.7"}})
    monkeypatch.setattr(load.cuda, "count", lambda: 1)
    monkeypatch.setattr(load.cuda, "describe", lambda _: load.cuda.CudaGpu("Thor", "11.0", 0, True, "13.0"))
    with pytest.raises(PlanError, match=r"TensorRT 10\.3\.0\.30.*built for compute capability 8\.7.*has .* 11\.0"):
        load.read(path)


def test_without_tensorrt_the_version_it_needs_is_named(written, monkeypatch):
    path = written(UPSTREAM)

    def absent():
        raise BackendUnavailable("TensorRT is not installed", remedy=library.INSTALL)

    monkeypatch.setattr(library, "load", absent)
    with pytest.raises(BackendUnavailable, match=r"built by TensorRT 10\.3\.0\.30 and needs it here.*not installed"):
        load.read(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"names": None}, "no header with names"),
        ({"args": {"nms": True}}, "another exporter's NMS"),
        ({load.OURS: {"signature": {}}}, "damaged header"),
    ],
)
def test_a_header_that_does_not_suffice_is_refused(written, change, told):
    fields = {key: value for key, value in {**UPSTREAM, **change}.items() if value is not None}
    with pytest.raises(PlanError, match=told):
        load.read(written(fields))
