"""Builds for a DLA core: is there one that works, which layers it gets, and what the builder then made of it.

Capability is asked, never looked up: the number of cores, a build of one convolution, and ``can_run_on_DLA`` for each
layer. What the core does not get is sent to the GPU by name; nothing falls back unseen.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np

from vajra_edge.backends.tensorrt.library import Library, Typing
from vajra_edge.backends.tensorrt.limits import DLA_LOCAL_BYTES
from vajra_edge.backends.tensorrt.log import LibraryLog, build_failure, listening, logger
from vajra_edge.backends.tensorrt.network import Network, Prepared, builder, creation_flags, starting
from vajra_edge.errors import UnsupportedSpec
from vajra_edge.graph.dla import partition
from vajra_edge.plans.report import DlaCard, DlaInspected, DlaRegion, LeftOnGpu
from vajra_edge.plans.spec import EngineSpec, Precision
from vajra_edge.wording import Setting, say

ON_GPU = say(Setting.TARGET.to("gpu:0"))
REFUSED_HERE = "this device's own DLA compiler refuses it"
NO_RANGE = "a tensor of it has no calibration range"

PROBE = "probe"
"""Name of the convolution that tries out a core."""

REGION = re.compile(r"\{ForeignNode\[(.+)\]\}")
SEPARATOR = re.compile(r"\.\.\.|[\s+,()]+")
"""Between the names in a region: first...last, and a fused layer's ``a + b`` or ``PWN(a, b)``."""


@dataclass(frozen=True)
class Placed:
    """What was sent to the core.

    Attributes:
        placement: the nodes, and why the others were not.
        layers: names of the library's layers that came from these nodes.
    """

    placement: partition.DlaPlacement
    layers: frozenset[str]


def require_core(library: Library, core: int) -> None:
    """Look whether the device has the DLA core.

    Raises:
        UnsupportedSpec: it has not; the message says what to set.
        BuildError, OutOfMemory: the library does not start here.
    """
    trt = library.trt
    lines = LibraryLog()
    with starting(library, lines):
        runtime = trt.Runtime(logger(library))  # not a Builder, which takes seconds and hundreds of MB
    cores = int(runtime.num_DLA_cores)
    if core < cores:
        return
    if cores:
        raise UnsupportedSpec(
            f"this device has {cores} DLA cores, no dla:{core}", remedy=say(Setting.TARGET.to("dla:0"))
        )
    raise UnsupportedSpec(
        f"{library} sees no DLA core here (Orin Nano and Thor have none; 10.8 to 11.4.0 support none)",
        remedy=ON_GPU,
        core=core,
    )


def probe(library: Library, core: int, typing: Typing) -> None:
    """Build one convolution for the core: the compiler may be missing even where the core is counted.

    Raises:
        UnsupportedSpec: it does not run on the core; the message carries the library's reason.
        BuildError: the library does not start here, or does not load what it built.
        OutOfMemory: the memory did not suffice to find out.
    """
    lines = LibraryLog()
    with listening(lines):
        reason = _idle(library, core, typing, lines)
    if reason:
        raise UnsupportedSpec(
            f"dla:{core} is counted but does nothing: a single convolution {reason}",
            remedy=say(ON_GPU, ", or install the DLA compiler of this JetPack"),
            core=core,
        )


def _idle(library: Library, core: int, typing: Typing, lines: LibraryLog) -> str | None:
    """Why the core does not run one convolution; None if it does."""
    trt = library.trt
    made = builder(library, lines)
    network = made.create_network(creation_flags(library, typing))
    kernel = np.ones((16, 16, 3, 3), np.float16 if typing.strong else np.float32)
    kind = trt.DataType.HALF if typing.strong else trt.DataType.FLOAT
    source = network.add_input("x", kind, (1, 16, 32, 32))
    layer = network.add_convolution_nd(source, 16, (3, 3), trt.Weights(kernel))
    layer.name = PROBE
    network.mark_output(layer.get_output(0))
    config = made.create_builder_config()
    _aim(library, config, core)
    config.default_device_type = trt.DeviceType.DLA
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if library.has("BuilderFlag.FP16") and not typing.strong:
        config.set_flag(trt.BuilderFlag.FP16)
    if not config.can_run_on_DLA(layer):
        return f"is refused: {lines.reason()}"
    plan = made.build_serialized_network(network, config)
    if plan is None and lines.memory():
        raise build_failure(lines, f"try out dla:{core}")
    if plan is None:
        return f"does not build for it: {lines.reason()}"
    layers = _layers(library, bytes(plan), core, lines)
    return "falls back to the GPU" if layers and not loadables(layers, {PROBE}) else None


def _aim(library: Library, config: Any, core: int) -> None:
    """Build for a core; the GPU does the rest, at the least the reformats of what enters and leaves (TensorRT#3438)."""
    config.DLA_core = core
    config.set_flag(library.trt.BuilderFlag.GPU_FALLBACK)


def place(net: Network, config: Any, prepared: Prepared, spec: EngineSpec, typing: Typing) -> Placed:
    """Send the best region to the core and everything else to the GPU.

    Raises:
        UnsupportedSpec: nothing can run on the core.
    """
    library, trt = net.library, net.library.trt
    _aim(library, config, spec.target.index)
    config.default_device_type = trt.DeviceType.GPU
    config.set_memory_pool_limit(trt.MemoryPoolType.DLA_LOCAL_DRAM, DLA_LOCAL_BYTES)
    int8 = spec.precision is Precision.INT8
    refused = _without_range(net, prepared) if int8 and not typing.strong else {}
    refused |= {prepared.keys[node]: REFUSED_HERE for layer, node in _known(net, prepared) if not _runs(config, layer)}
    placement = partition.plan(prepared.onnx_bytes, refused=refused, value_bytes=1 if int8 else 2)
    if not placement.chosen:
        reasons = ", ".join(sorted(set(placement.left.values()))[:3])
        raise UnsupportedSpec(f"no part of this network can run on {spec.target}: {reasons}", remedy=ON_GPU)
    chosen = [layer for layer, node in _known(net, prepared) if prepared.keys[node] in placement.chosen]
    for layer in chosen:
        config.set_device_type(layer, trt.DeviceType.DLA)
    if library.has("ITensor.reset_dynamic_range"):
        _forget_ranges(net, prepared, placement)
    return Placed(placement, frozenset(str(layer.name) for layer in chosen))


def card(placement: partition.DlaPlacement) -> DlaCard:
    """The report card of a placement."""
    left: dict[str, list[str]] = defaultdict(list)
    for name, reason in placement.left.items():
        left[reason].append(name)
    return DlaCard(
        macs_share=round(placement.macs_share, 4),
        transitions=placement.transitions,
        nodes_on_dla=len(placement.chosen),
        nodes=len(placement.operators),
        regions_possible=len(placement.candidates),
        regions=tuple(_told(region) for region in placement.regions),
        left_on_gpu={
            reason: LeftOnGpu(len(names), names[0])
            for reason, names in sorted(left.items(), key=lambda item: -len(item[1]))
        },
    )


def _told(region: partition.Region) -> DlaRegion:
    return DlaRegion(
        nodes=len(region.nodes),
        first=region.nodes[0],
        last=region.nodes[-1],
        macs=region.macs,
        entering_bytes=region.entering_bytes,
        leaving_bytes=region.leaving_bytes,
    )


def inspect(library: Library, plan: bytes, spec: EngineSpec, chosen: AbstractSet[str]) -> DlaInspected:
    """Count the layers of a plan by device, as the library's inspector names them.

    Args:
        library: that built the plan.
        plan: with detailed layer information.
        spec: what was wanted.
        chosen: names of the layers sent to the core.

    Raises:
        UnsupportedSpec: no layer runs on the core, whatever was asked for.
        BuildError, OutOfMemory: the plan does not load.
    """
    lines = LibraryLog()
    with listening(lines):
        layers = _layers(library, plan, spec.target.index, lines)
    counted = DlaInspected(loadables(layers, chosen), len(layers))
    if layers and not counted.loadables:
        raise UnsupportedSpec(
            f"the builder put nothing on {spec.target}, all on the GPU", remedy=ON_GPU, layers=len(layers)
        )
    return counted


def loadables(layers: Sequence[Mapping[str, Any]], chosen: AbstractSet[str]) -> int:
    """How many layers of a plan run on the core.

    A loadable shows as one layer, ``{ForeignNode[first...last]}``. So does what Myelin fused for the GPU, under its own
    type; should a release call that type otherwise, the names still tell what was never meant for the core.

    Args:
        layers: of the plan, with ``Name`` and ``LayerType``.
        chosen: names of the layers sent to the core.
    """
    others = [entry for entry in layers if "myelin" not in str(entry.get("LayerType")).lower()]
    regions = [REGION.search(str(entry.get("Name"))) for entry in others]
    return sum(region is not None and not chosen.isdisjoint(SEPARATOR.split(region[1])) for region in regions)


def _layers(library: Library, plan: bytes, core: int, lines: LibraryLog) -> list[Mapping[str, Any]]:
    trt = library.trt
    runtime = trt.Runtime(logger(library))
    runtime.DLA_core = core
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise build_failure(lines, "load the plan just built")
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return list(json.loads(text).get("Layers", []))


def _known(net: Network, prepared: Prepared) -> list[tuple[Any, str]]:
    """Layers that come from a node of the graph; what the parser adds itself stays on the GPU."""
    constant = net.library.trt.LayerType.CONSTANT
    return [(layer, node) for layer, node in net.layers() if node in prepared.keys and layer.type != constant]


def _runs(config: Any, layer: Any) -> bool:
    return bool(config.can_run_on_DLA(layer))


def _without_range(net: Network, prepared: Prepared) -> dict[str, str]:
    """Set every tensor's range; a tensor without one would turn its whole region to FP16 or to the GPU."""
    library = net.library
    missing: dict[str, str] = {}
    if library.has("ITensor.set_dynamic_range"):
        for index in range(net.network.num_inputs):
            _set_range(net.network.get_input(index), prepared.ranges)
        for layer, node in net.layers():
            for slot in range(layer.num_outputs):
                if not _set_range(layer.get_output(slot), prepared.ranges) and node in prepared.keys:
                    missing[prepared.keys[node]] = NO_RANGE
    return missing


def _forget_ranges(net: Network, prepared: Prepared, placement: partition.DlaPlacement) -> None:
    """Take back the ranges of tensors that no layer on the core reads or makes.

    They would turn GPU layers to implicit INT8 too, which costs several points of mAP in the head.
    """
    needed: set[str] = set()
    layers = net.layers()
    for layer, node in layers:
        if prepared.keys.get(node) in placement.chosen:
            needed |= {layer.get_output(slot).name for slot in range(layer.num_outputs)}
            sources = [layer.get_input(slot) for slot in range(layer.num_inputs)]
            needed |= {source.name for source in sources if source is not None}
    made = [layer.get_output(slot) for layer, _ in layers for slot in range(layer.num_outputs)]
    for tensor in [*made, *(net.network.get_input(index) for index in range(net.network.num_inputs))]:
        if tensor.name not in needed and tensor.name in prepared.ranges:
            tensor.reset_dynamic_range()


def _set_range(tensor: Any, ranges: dict[str, float]) -> bool:
    amax = ranges.get(tensor.name)
    if not amax:
        return False
    return bool(tensor.set_dynamic_range(-amax, amax))
