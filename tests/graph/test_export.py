"""Weights become an ONNX graph that every library reads and that computes what torch computes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import NAMES, archive, calling, random_network, save, stripped

from vajra_edge.errors import GraphError, UnsafeWeights, WeightsError
from vajra_edge.graph import export, metadata, signature, topology
from vajra_edge.graph.assemble import simplify
from vajra_edge.graph.signature import Layout

HW = (96, 160)


@pytest.fixture(scope="module")
def torch() -> Any:
    module = pytest.importorskip("torch", reason="absent here: torch")
    module.set_num_threads(1)  # small networks: threads cost more than they give
    return module


@pytest.fixture(scope="module")
def weights(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stripped checkpoint of a nano network with random weights and three classes, trained "for" 416 x 416."""
    return save(stripped(random_network()), tmp_path_factory.mktemp("weights") / "nano.pt")


@pytest.fixture(scope="module")
def network(torch: Any, weights: Path) -> Any:
    from vajra_edge.weights import checkpoint, vajra_v1

    return vajra_v1.build(checkpoint.load(weights))


@pytest.fixture(scope="module")
def static(weights: Path) -> bytes:
    return export.from_checkpoint(weights, resolution_hw=HW, batch=2)


@pytest.fixture(scope="module")
def dynamic(weights: Path) -> bytes:
    return export.from_checkpoint(weights, resolution_hw=(320, 256), batch=4, dynamic=True)


@pytest.fixture(scope="module")
def slim(static: bytes) -> bytes:
    return simplify(static)


@pytest.fixture(scope="module")
def slim_dynamic(dynamic: bytes) -> bytes:
    return simplify(dynamic)


def worst(torch: Any, onnx_bytes: bytes, network: Any, *shapes: tuple[int, ...]) -> float:
    """ONNX Runtime against torch's train form: boxes relative to the input's longer side, or scores."""
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    found = 0.0
    for shape in shapes:
        images = np.random.default_rng(0).random(shape, np.float32)
        (output,) = session.run(["output0"], {"images": images})
        expected = network(torch.from_numpy(images)).numpy()
        assert output.shape == expected.shape
        assert np.ptp(expected[:, 4:]) > 0.05  # the scores say something
        difference = np.abs(output - expected)
        found = max(found, difference[:, :4].max() / max(shape[2:]), difference[:, 4:].max())
    return found


def test_a_static_graph_computes_what_torch_does(torch: Any, static: bytes, slim: bytes, network: Any) -> None:
    topology.check(topology.parse(static), "after export")
    assert worst(torch, static, network, (2, 3, *HW)) < 1e-4
    assert worst(torch, slim, network, (2, 3, *HW)) < 1e-4


@pytest.mark.parametrize("opset", [13, 20])
def test_every_opset_computes_what_torch_does(torch: Any, weights: Path, network: Any, opset: int) -> None:
    exported = export.from_checkpoint(weights, resolution_hw=HW, opset=opset)
    assert topology.opset_of(topology.parse(exported)) == opset
    assert worst(torch, exported, network, (1, 3, *HW)) < 1e-4


def test_a_dynamic_graph_computes_what_torch_does_at_any_size(
    torch: Any, dynamic: bytes, slim_dynamic: bytes, network: Any
) -> None:
    shapes = ((1, 3, 320, 256), (4, 3, 64, 64), (3, 3, 32, 224))
    for graph in (dynamic, slim_dynamic):
        assert worst(torch, graph, network, *shapes) < 1e-4
        found = signature.read(graph)
        assert (found.batch, found.resolution_hw, found.dynamic_batch, found.dynamic_size) == (
            4,
            (320, 256),
            True,
            True,
        )


def test_the_train_form_is_exported_on_request(torch: Any, weights: Path, static: bytes, network: Any) -> None:
    train = export.from_checkpoint(weights, resolution_hw=HW, fused=False)
    assert worst(torch, train, network, (1, 3, *HW)) < 1e-4
    convolutions = [
        [node.op_type for node in topology.parse(graph).graph.node].count("Conv") for graph in (train, static)
    ]
    assert convolutions[0] > convolutions[1]


def test_the_graph_says_what_it_is(weights: Path) -> None:
    exported = export.from_checkpoint(weights, batch=2)
    found = signature.read(exported)
    assert (found.input_name, found.output_name, found.layout) == ("images", "output0", Layout.RAW)
    assert (found.batch, found.resolution_hw, found.stride, found.class_names) == (2, (416, 416), 32, NAMES)
    assert not found.dynamic_batch
    assert not found.dynamic_size
    fields = metadata.fields_of(topology.parse(exported))
    assert metadata.parse("names", fields["names"]) == dict(enumerate(NAMES))
    assert metadata.parse("img_size", fields["img_size"]) == [416, 416]
    assert metadata.parse("args", fields["args"])["dynamic"] is False
    assert (fields["task"], fields["stride"], fields["batch"]) == ("detect", "32", "2")
    assert fields["description"] == "VajraV1 nano detection"
    assert len(fields["weights_sha256"]) == 64


def test_nothing_but_the_network_is_left_after_simplify(static: bytes, slim: bytes) -> None:
    """No shape arithmetic, no batch norm: 411 nodes, as many as upstream's own export has."""
    network = topology.parse(slim)
    kinds = {node.op_type for node in network.graph.node}
    assert not kinds & {"Shape", "Gather", "Cast", "Range", "Expand", "BatchNormalization", "Identity", "Constant"}
    assert len(network.graph.node) == 411
    assert metadata.fields_of(network) == metadata.fields_of(topology.parse(static))


def test_equal_arguments_give_equal_bytes(weights: Path, static: bytes) -> None:
    assert export.from_checkpoint(weights, resolution_hw=HW, batch=2) == static


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"resolution_hw": (100, 96)}, "100x96 is not made of multiples of 32"),
        ({"resolution_hw": (0, 96)}, "0x96 is not made of multiples"),
        ({"opset": 12}, "opset 12 cannot be written; use 13 to 20"),
        ({"opset": 21}, "opset 21 cannot be written"),
        ({"batch": 0}, "batch 0 is not a positive number"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(GraphError, match=says):
        export.from_checkpoint(tmp_path / "absent.pt", **options)


def test_a_pinned_digest_is_enforced(weights: Path) -> None:
    with pytest.raises(UnsafeWeights, match=r"correct \[weights\] sha256"):
        export.from_checkpoint(weights, expected_sha256="0" * 64)


FORBIDDEN = """
import ctypes, sys
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0):
    sys.exit(77)
from pathlib import Path
from vajra_edge.graph import torch_export
traced = torch_export.trace(torch_export.Order(Path(sys.argv[1]), (640, 640)))
Path(sys.argv[2]).write_bytes(traced.onnx_bytes)
"""


def test_it_is_traced_where_no_memory_may_become_a_program(weights: Path, tmp_path: Path) -> None:
    """As MemoryDenyWriteExecute= of a drop-in has it; whatever torch computes with may write machine code."""
    command = [sys.executable, "-c", FORBIDDEN, str(weights), str(tmp_path / "traced.onnx")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode == 77:
        pytest.skip("absent here: PR_SET_MDWE of Linux 6.3")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "traced.onnx").stat().st_size > 0


@pytest.fixture(scope="module")
def other_python(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with torch, onnx and what these need themselves, and nothing else: no pydantic, no vajra-edge."""
    folder = tmp_path_factory.mktemp("other") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python3*/site-packages"))
    own = Path(torch.__file__).parents[1]
    for name in _with_requirements("torch") | _with_requirements("onnx"):
        for top in {Path(str(file)).parts[0] for file in packages.files(name) or ()}:
            if (own / top).exists() and not (site / top).exists() and top not in {"..", "__pycache__"}:
                (site / top).symlink_to(own / top)
    return folder / "bin" / "python"


def _with_requirements(name: str, found: frozenset[str] = frozenset()) -> frozenset[str]:
    found |= {name}
    for requirement in packages.requires(name) or ():
        needed = requirement.split(";")[0].split("extra")[0]
        needed = "".join(letter if letter.isalnum() or letter in "-_." else " " for letter in needed).split()[0]
        if "extra ==" not in requirement and needed not in found:
            try:
                found = _with_requirements(needed, found)
            except packages.PackageNotFoundError:
                continue  # for another platform
    return found


def test_another_python_writes_the_same_bytes(
    weights: Path, other_python: Path, static: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = subprocess.run([str(other_python), "-c", "import pydantic"], capture_output=True, check=False)
    assert asked.returncode != 0
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/nonexistent", *sys.path]))
    monkeypatch.chdir(weights.parent)
    assert export.from_checkpoint(Path(weights.name), resolution_hw=HW, batch=2, python=other_python) == static


def test_another_python_refuses_in_the_same_words(tmp_path: Path, other_python: Path) -> None:
    path = tmp_path / "evil.pt"
    path.write_bytes(archive(calling(os.system, f"touch {tmp_path}/ran")))
    with pytest.raises(UnsafeWeights, match=rf"ask for posix\.system.*\(opened by {other_python}\); use weights from"):
        export.from_checkpoint(path, python=other_python)
    assert not (tmp_path / "ran").exists()


def test_another_python_that_will_not_do_is_named(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent does not run: No such file.*make a Python that has it"):
        export.from_checkpoint(weights, python=tmp_path / "absent")
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    with pytest.raises(WeightsError, match=r"needs onnx, which this Python lacks.*\(opened by .*bare"):
        export.from_checkpoint(weights, python=tmp_path / "bare" / "bin" / "python")
    false = shutil.which("false")
    assert false is not None
    with pytest.raises(WeightsError, match=r"failed with exit code 1: no output; it must be Python >= 3\.10"):
        export.from_checkpoint(weights, python=Path(false))


def test_tensorrt_parses_and_builds_it(slim: bytes, slim_dynamic: bytes) -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="absent here: TensorRT-RTX")
    for exported, low, high in ((slim, (2, 3, *HW), (2, 3, *HW)), (slim_dynamic, (1, 3, 64, 64), (4, 3, 320, 256))):
        logger = trt.Logger(trt.Logger.ERROR)
        builder = trt.Builder(logger)
        parsed = builder.create_network(0)
        parser = trt.OnnxParser(parsed, logger)
        assert parser.parse(exported), [parser.get_error(index) for index in range(parser.num_errors)]
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        profile = builder.create_optimization_profile()
        profile.set_shape("images", low, high, high)
        config.add_optimization_profile(profile)
        assert builder.build_serialized_network(parsed, config) is not None


def test_the_trained_network_matches_upstreams_own_export(torch: Any, shared_data: Path) -> None:
    import onnxruntime

    models = shared_data / "models"
    own = export.from_checkpoint(models / "vajra-v1-nano-det-cctv.pt")
    images = np.load(shared_data / "golden" / "trained_nano_vtest700.npz")["image_rgb"]
    images = images.transpose(2, 0, 1)[None].astype(np.float32) / 255
    outputs = [
        onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]
        for source in (own, (models / "vajra-v1-nano-det-cctv.onnx").read_bytes())
    ]
    assert np.abs(outputs[0] - outputs[1])[:, :4].max() < 1e-2
    assert np.abs(outputs[0] - outputs[1])[:, 4:].max() < 1e-4
