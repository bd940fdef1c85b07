"""Each code block and each argument of the document that upstream's users know, on a machine without a GPU.

Adapted are the names of files, the package, and where val and predict run: on the ONNX export of the same weights, on
the CPU, for TensorRT-RTX builds an engine without a GPU and does not run it.
"""

from __future__ import annotations

import functools
import inspect
import re
import shlex
import shutil
import textwrap
from pathlib import Path

import onnx
import pytest
import tiny
from desk import SIDE_PX, desk

from vajra_edge import Vajra
from vajra_edge.__main__ import main
from vajra_edge.api import Vajra as Interface
from vajra_edge.build import attempt
from vajra_edge.errors import VajraError
from vajra_edge.plans import engine_file
from vajra_edge.tasks import load
from vajra_edge.tasks.arguments import ExportArguments

WEIGHTS = "vajra-v1-nano-det.pt"
ENGINE = "vajra-v1-nano-det.engine"
ROW = re.compile(r"^\| `(\w+)`\s*\| ([^|]*?)\s*\| ([^|]*?)\s*\|", re.MULTILINE)


@pytest.fixture(scope="module")
def seed(shared_data) -> str:
    path = shared_data.parent / "reference" / "seed.md"
    if not path.is_file():
        pytest.skip("absent here: ../shared/reference/seed.md")
    return path.read_text()


@pytest.fixture
def place(tmp_path, monkeypatch, shared_data):
    """The document's files: its weights, its data sets with eight images, and its picture."""
    pytest.importorskip("torch", reason="absent here: torch, which opens .pt files")
    shutil.copyfile(shared_data / "models" / "vajra-v1-nano-det-cctv.pt", tmp_path / WEIGHTS)
    for kind, suffix in (("images", ".jpg"), ("labels", ".txt")):
        (tmp_path / kind).mkdir()
        for path in sorted((shared_data / kind / "coco128").glob(f"*{suffix}"))[:8]:
            shutil.copyfile(path, tmp_path / kind / path.name)
    names = re.sub(r"(?m)^(path|train|val):.*\n", "", (shared_data / "coco128.yaml").read_text())
    (tmp_path / "coco.yaml").write_text(f"path: .\ntrain: images\nval: images\n{names}")
    (tmp_path / "path" / "to").mkdir(parents=True)
    shutil.copyfile(shared_data / "images" / "photos" / "bus.jpg", tmp_path / "path" / "to" / "img.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Choosing layers by trials may take a quarter of an hour; the static rules are enough to see that INT8 arrives.
    monkeypatch.setattr(attempt, "Calibration", functools.partial(attempt.Calibration, search=False))
    return tmp_path


@pytest.fixture
def tensorrt():
    pytest.importorskip("tensorrt_rtx_bindings", reason="absent here: TensorRT-RTX, which builds without a GPU")


def blocks(seed: str, language: str) -> list[str]:
    return [textwrap.dedent(text) for text in re.findall(rf"```{language}\n(.*?)```", seed, re.DOTALL)]


def runnable(name: str) -> str:
    """An ONNX export of the document's weights, in the place of the engine that needs a GPU."""
    path = Path(name).with_suffix(".onnx")
    if not path.exists():
        Vajra(WEIGHTS).export(format="onnx")
    return str(path)


class OnDesk(Interface):
    """Vajra, with engines run as the ONNX of the same weights, on the CPU."""

    def __init__(self, weights, verbose=False):
        assert Path(weights).exists()
        super().__init__(runnable(weights) if weights == ENGINE else weights, verbose)

    def val(self, *arguments, **named):
        return super().val(*arguments, **{**named, "device": "cpu"})


@pytest.mark.parametrize("number", [0, 1])
def test_each_python_block_of_the_document_runs(number, seed, place, tensorrt):
    block = blocks(seed, "python")[number]
    code = block.replace("from vajra import Vajra", "")
    told = {"Vajra": OnDesk}
    exec(compile(code, "seed.md", "exec"), told)  # noqa: S102  the document is the test
    header = engine_file.read(place / ENGINE).metadata
    assert header["args"]["int8" if "int8=True" in code else "half"]
    assert header["batch"] == (8 if "batch=8" in code else 1)
    assert header["args"]["dynamic"] == ("dynamic=True" in code)
    assert header.get("max_img_size") == ([1280, 1280] if "dynamic=True" in code else None)
    assert told["result"][0].path.endswith("img.jpg")


@pytest.mark.parametrize("number", [0, 1])
def test_each_command_of_the_document_runs(number, seed, place, tensorrt, capsys):
    lines = [line for line in blocks(seed, "bash")[number].splitlines() if line.strip()]
    assert [line.split()[1] for line in lines] == (
        ["export", "val", "predict"] if number == 0 else ["export", "predict"]
    )
    for line in lines:
        program, verb, *words = shlex.split(line)
        assert program == "vajra"
        if verb != "export":
            words = [f"model={runnable(ENGINE)}" if word.startswith("model=") else word for word in words]
            words = ["device=cpu" if word == "device=0" else word for word in words]
        assert main([verb, *words]) == 0
        said = capsys.readouterr()
        assert (ENGINE in said.out) == (verb == "export")
    assert engine_file.read(place / ENGINE).metadata["batch"] == (8 if number else 1)


def test_the_table_of_arguments_is_the_signature_of_export(seed):
    defaults = {name: default.strip("`") for name, _, default in ROW.findall(seed)}
    mine = [p for name, p in inspect.signature(Vajra.export).parameters.items() if name != "self"]
    theirs = [p for p in mine if p.kind is not p.KEYWORD_ONLY]
    assert {p.name: repr(p.default) for p in theirs} == defaults
    assert [p.name for p in theirs] == list(defaults)
    ours = {p.name for p in mine if p not in theirs}
    assert ours == {"quantization", "max_img_size", "names"}


@pytest.fixture
def tiny_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = desk(tmp_path / "files", batch=None, channels=16)
    monkeypatch.chdir(weights.parent)
    return weights


def shapes(path: str) -> tuple[list[int | str], list[int | str]]:
    graph = onnx.load(path).graph
    values = graph.input[0], graph.output[0]
    return tuple([d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in values)


def observe_format(weights, tensorrt_too):
    assert Vajra(weights).export(format="onnx", img_size=SIDE_PX).endswith(".onnx")
    if tensorrt_too:
        path = Vajra(weights).export(img_size=SIDE_PX, device=0)
        assert engine_file.plan_header(engine_file.read(Path(path)).plan).library.startswith("TensorRT")


def observe_img_size(weights, tensorrt_too):
    del tensorrt_too
    with pytest.raises(VajraError, match=r"fixed to img_size=\(256, 256\), img_size=\(640, 640\) is asked for"):
        Vajra(weights).export(format="onnx", img_size=640)
    assert shapes(Vajra(weights).export(format="onnx"))[0][2:] == [256, 256], "not given, it gives way to the file"
    assert shapes(Vajra(weights).export(format="onnx", img_size=(250, 256)))[0][2:] == [256, 256]


def observe_half(weights, tensorrt_too):
    del tensorrt_too
    path = Vajra(weights).export(format="onnx", img_size=SIDE_PX, half=True)
    kinds = {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds


def observe_int8(weights, tensorrt_too):
    del tensorrt_too
    path = Vajra(weights).export(format="onnx", img_size=SIDE_PX, int8=True, data="data.yaml")
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(path).graph.node}


def observe_dynamic(weights, tensorrt_too):
    path = Vajra(weights).export(format="onnx", img_size=SIDE_PX, dynamic=True, batch=4)
    assert shapes(path)[0][0] == "batch"
    assert len(Vajra(path).predict("images", batch=3)) == len(Vajra(path).predict("images"))
    if tensorrt_too:
        Path("open.onnx").write_bytes(tiny.network(SIDE_PX, batch=None, open_size=True))
        arguments = ExportArguments(img_size=SIDE_PX, dynamic=True, batch=2, workspace=4)
        made = Vajra("open.onnx").exported(arguments)
        assert made.report.plan.tensorrt.shapes.best == (2, 3, SIDE_PX, SIDE_PX)
        assert made.report.plan.tensorrt.shapes.most == (2, 3, 2 * SIDE_PX, 2 * SIDE_PX), "whatever the workspace"
        header = engine_file.read(made.path).metadata
        assert (header["img_size"], header["max_img_size"]) == ([SIDE_PX] * 2, [2 * SIDE_PX] * 2)
        assert load.read(made.path).signature.most_hw == (2 * SIDE_PX, 2 * SIDE_PX)


def observe_simplify(weights, tensorrt_too):
    del tensorrt_too
    nodes = [
        len(onnx.load(Vajra(weights).export(format="onnx", img_size=SIDE_PX, nms=True, simplify=on)).graph.node)
        for on in (True, False)
    ]
    assert nodes[0] < nodes[1]


def observe_workspace(weights, tensorrt_too):
    with pytest.raises(VajraError, match="workspace -1 is not a size in GiB"):
        Vajra(weights).export(img_size=SIDE_PX, workspace=-1)
    if tensorrt_too:
        assert Vajra(weights).export(img_size=SIDE_PX, workspace=0.5)
        with pytest.raises(VajraError, match="workspace") as caught:
            Vajra(weights).export(img_size=SIDE_PX, workspace=1e6)
        assert "UNSUPPORTED_STATE" in str(caught.value), "the document's word for it"
        assert "engine.workspace" not in str(caught.value)


def observe_nms(weights, tensorrt_too):
    del tensorrt_too
    assert shapes(Vajra(weights).export(format="onnx", img_size=SIDE_PX, nms=True))[1][1:] == [300, 6]
    assert shapes(Vajra(weights).export(format="onnx", img_size=SIDE_PX))[1][1:] == [6, 64]


def observe_batch(weights, tensorrt_too):
    if not tensorrt_too:
        return
    path = Vajra(weights).export(img_size=SIDE_PX, batch=3)
    assert engine_file.read(Path(path)).metadata["batch"] == 3
    with pytest.raises(VajraError, match="batch 4 is above the 3 that tiny"):
        Vajra(path).predict("images", batch=4)


def observe_data(weights, tensorrt_too):
    del tensorrt_too
    with pytest.raises(VajraError, match=r"absent\.yaml"):
        Vajra(weights).export(format="onnx", img_size=SIDE_PX, int8=True, data="absent.yaml")


def observe_fraction(weights, tensorrt_too):
    del tensorrt_too
    with pytest.raises(VajraError, match="1 calibration images, fewer than the batch of 2"):
        Vajra(weights).export(format="onnx", img_size=SIDE_PX, int8=True, data="data.yaml", fraction=0.1, batch=2)


def observe_device(weights, tensorrt_too):
    if tensorrt_too:
        with pytest.raises(VajraError, match="no DLA core"):
            Vajra(weights).export(img_size=SIDE_PX, device="dla:0", half=True)
        path = Vajra(weights).export(img_size=SIDE_PX, device="0")
        assert engine_file.read(Path(path)).metadata["vajra_edge"]["built_for"].startswith("compute capability")
    with pytest.raises(VajraError, match="device 'gpu' is not known"):
        Vajra(weights).export(device="gpu")


def test_every_argument_of_the_table_does_something(seed, tiny_weights):
    try:
        import tensorrt_rtx_bindings as library  # noqa: F401
    except ImportError:
        there = False
    else:
        there = True
    told = [name for name, _, _ in ROW.findall(seed)]
    assert len(told) == 12
    for name in told:
        globals()[f"observe_{name}"](tiny_weights, there)


def test_an_engine_of_another_release_or_without_a_gpu_is_refused_with_its_version(tiny_weights, tensorrt):
    path = Path(Vajra(tiny_weights).export(img_size=SIDE_PX))
    with pytest.raises(VajraError, match=r"built by TensorRT-RTX 1\.\d+\.\d+\.\d+, cannot run here"):
        Vajra(path).predict("images")
    content = engine_file.read(path)
    plan = bytearray(content.plan)
    plan[engine_file.VERSION_AT] += 1
    engine_file.write(path, engine_file.EngineFile(content.metadata, bytes(plan)))
    with pytest.raises(VajraError, match=r"was built by TensorRT-RTX 2[.\d]+, this machine has TensorRT-RTX 1"):
        Vajra(path).predict("images")
