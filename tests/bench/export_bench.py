"""Time and peak memory from a .pt file to a simplified ONNX graph, and a comparison of torch's two exporters.

    python tests/bench/export_bench.py [size ...]              default: nano xlarge, 640x640, random weights
    python tests/bench/export_bench.py --exporters [weights]   nodes, TensorRT-RTX and numerics of both exporters

Each size runs in a process of its own. Peak memory is the resident high-water mark of each step (Linux VmHWM, reset
before it).
"""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from checkpoints import random_network, save, stripped

HW = (640, 640)
MIB = 2**20


def high_water_mib() -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024


def step(name: str, work: Callable[[], Any]) -> Any:
    Path("/proc/self/clear_refs").write_text("5")
    began_s = time.monotonic()
    made = work()
    print(f"  {name:<28}{time.monotonic() - began_s:8.2f} s   peak {high_water_mib():7.0f} MiB", flush=True)
    return made


def measure(path: Path) -> None:
    from vajra_edge.graph.assemble import simplify

    step("import torch", lambda: __import__("torch"))
    from vajra_edge.graph import export
    from vajra_edge.weights import checkpoint, fusion, vajra_v1

    network = vajra_v1.build(step("load", lambda: checkpoint.load(path)))
    step("fuse", lambda: fusion.fuse(network))
    graph = step("load, fuse and export", lambda: export.from_checkpoint(path, resolution_hw=HW))
    slim = step("simplify", lambda: simplify(graph))
    sizes_mib = [round(size / MIB, 1) for size in (path.stat().st_size, len(graph), len(slim))]
    print(f"  .pt, .onnx and simplified: {sizes_mib} MiB")


def sizes(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = save(stripped(random_network(80, size=name)), Path(folder) / f"{name}.pt")
            print(name, flush=True)
            subprocess.run([sys.executable, __file__, "--measure", str(path)], check=True)


def exporters(path: Path | None) -> None:
    import onnx
    import onnxslim

    from vajra_edge.graph import topology
    from vajra_edge.weights import checkpoint, fusion, vajra_v1

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    network = vajra_v1.build(checkpoint.load(path)) if path else random_network(80)
    fusion.fuse(network)
    for fixed_hw in (HW, None):
        kind = "dynamic" if fixed_hw is None else "static"
        for name, write in (("TorchScript", _torchscript), ("dynamo", _dynamo)):
            raw = step(f"{kind} {name}", partial(write, network, fixed_hw))
            slim = onnxslim.slim(onnx.load_from_string(raw)).SerializeToString()
            nodes = [len(topology.parse(graph).graph.node) for graph in (raw, slim)]
            opset = onnx.load_from_string(raw).opset_import[0].version
            print(
                f"    opset {opset}, nodes {nodes[0]}, after onnxslim {nodes[1]}; {_numerics(network, slim, fixed_hw)}"
            )
            print(f"    TensorRT-RTX: {_built(slim)}")


def _torchscript(network: Any, fixed_hw: tuple[int, int] | None) -> bytes:
    from vajra_edge.graph import torch_export

    return torch_export._written(network, fixed_hw, torch_export.DEFAULT_OPSET)


def _dynamo(network: Any, fixed_hw: tuple[int, int] | None) -> bytes:
    import torch

    network.head.fixed_hw = fixed_hw
    shapes = None
    if fixed_hw is None:
        batch, rows, columns = (torch.export.Dim(name, min=1, max=256) for name in ("batch", "rows", "columns"))
        shapes = ({0: batch, 2: 32 * rows, 3: 32 * columns},)
    program = torch.onnx.export(
        network, (torch.zeros(1 if fixed_hw else 2, 3, *HW),), dynamo=True, opset_version=18,
        input_names=["images"], output_names=["output0"], dynamic_shapes=shapes, verbose=False,
    )  # fmt: skip
    file = io.BytesIO(program.model_proto.SerializeToString())
    return file.getvalue()


def _numerics(network: Any, graph: bytes, fixed_hw: tuple[int, int] | None) -> str:
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    worst = np.zeros(2)
    for shape in ((1, 3, *HW),) if fixed_hw else ((1, 3, *HW), (2, 3, 320, 256), (3, 3, 416, 640)):
        images = np.random.default_rng(0).random(shape, np.float32)
        expected = network(torch.from_numpy(images)).numpy()
        difference = np.abs(session.run(None, {"images": images})[0] - expected)
        worst = np.maximum(worst, (difference[:, :4].max(), difference[:, 4:].max()))
    return f"box {worst[0]:.1e} px, score {worst[1]:.1e}"


def _built(graph: bytes) -> str:
    try:
        import tensorrt_rtx_bindings as trt
    except ImportError:
        return "not installed"
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    if not trt.OnnxParser(network, logger).parse(graph):
        return "does not parse"
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("images", (1, 3, *HW), (1, 3, *HW), (1, 3, *HW))
    config.add_optimization_profile(profile)
    began_s = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    built = "does not build" if plan is None else f"{plan.nbytes / MIB:.1f} MiB in {time.monotonic() - began_s:.1f} s"
    return f"{network.num_layers} layers, {built}"


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["--measure"]:
        measure(Path(arguments[1]))
    elif arguments[:1] == ["--exporters"]:
        exporters(Path(arguments[1]) if len(arguments) > 1 else None)
    else:
        sizes(arguments or ["nano", "xlarge"])
