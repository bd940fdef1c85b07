"""Network: the prepared graph, every node with a name of its own, parsed; and the configuration of its build."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vajra_edge.backends import cuda
from vajra_edge.backends.tensorrt.library import Library, Typing
from vajra_edge.backends.tensorrt.limits import BuildLimits
from vajra_edge.backends.tensorrt.log import LibraryLog, listening, logger, parse_failure
from vajra_edge.errors import BuildError, GraphError, OutOfMemory, UnsupportedSpec
from vajra_edge.graph.signature import Signature
from vajra_edge.plans.report import Shapes
from vajra_edge.plans.spec import EngineSpec, Precision
from vajra_edge.wording import Command, Setting, say


@dataclass(frozen=True)
class Prepared:
    """One graph, ready for the parser.

    Attributes:
        onnx_bytes: the serialized graph.
        keys: node name -> key (first output), for names come back from the builder and keys from our passes.
        float32: names of the nodes that stay FP32 under weak typing; empty under strong typing, where types say it.
        half: names of the layers that the library's calibrator must leave out of INT8; empty where Q/DQ nodes say it.
        ranges: tensor -> largest absolute value, for INT8 without Q/DQ (DLA); empty otherwise.
    """

    onnx_bytes: bytes
    keys: dict[str, str]
    float32: frozenset[str]
    half: frozenset[str]
    ranges: dict[str, float]


def prepare(onnx_bytes: bytes, signature: Signature, spec: EngineSpec, *, strong: bool) -> Prepared:
    """Bring a graph into the form one build needs.

    Args:
        onnx_bytes: FP32, FP16 or with Q/DQ, as the passes made it; FP32 is turned into FP16 here where types rule.
        signature: of the graph.
        spec: what is wanted.
        strong: the network's types rule, not the builder's flags.

    Raises:
        GraphError: the graph cannot be read.
        UnsupportedSpec: INT8 is asked for and the graph carries neither Q/DQ nor ranges.
        BuildError: the library is known to refuse how it is quantized.
    """
    from vajra_edge.graph.passes import fp16, qdq, tensorrt_rules
    from vajra_edge.graph.topology import Wiring, key, load

    if spec.target.kind == "dla":
        onnx_bytes = fixed(load(onnx_bytes), signature)
    ranges: dict[str, float] = {}
    calibrates = spec.precision is Precision.INT8 and spec.quantization == "calibrator"
    if spec.precision is Precision.INT8 and not calibrates:
        ranges = _ranges(onnx_bytes, spec, strong=strong)
    if strong and not spec.precision.is_single and not _is_half(load(onnx_bytes)):
        on_gpu = spec.target.kind == "gpu"  # a DLA has no FP32
        keep = tensorrt_rules.silus_before_int8(Wiring(load(onnx_bytes))) if on_gpu else frozenset()
        onnx_bytes = fp16.to_half(onnx_bytes, keep=keep)
    wiring = Wiring(load(onnx_bytes))
    _name(wiring.nodes)
    high = fp16.float32_nodes(wiring) if not strong and not spec.precision.is_single else frozenset()
    spared = qdq.static_reasons(wiring) if calibrates else {}
    if spec.precision is Precision.INT8 and not calibrates and not ranges:
        _require_buildable(wiring, strong=strong)
    return Prepared(
        onnx_bytes=bytes(wiring.model.SerializeToString()),
        keys={node.name: key(node) for node in wiring.nodes},
        float32=frozenset(node.name for node in wiring.nodes if key(node) in high),
        half=frozenset(node.name for node in wiring.nodes if key(node) in spared and key(node) not in high),
        ranges=ranges,
    )


def _require_buildable(wiring: Any, *, strong: bool) -> None:
    """Say what the library would refuse before it takes minutes to say so itself.

    Raises:
        BuildError: with the layers at fault.
    """
    from vajra_edge.graph.passes.tensorrt_rules import BuildMode, refusals

    found = refusals(wiring, BuildMode(strong=strong))
    if found:
        layers = tuple(name for refusal in found for name in refusal.nodes)
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise BuildError(
            f"TensorRT cannot build this quantized graph at layer {layers[0]}{more}: {found[0].reason}",
            layer=layers[0],
            layers=layers,
        )


def _ranges(onnx_bytes: bytes, spec: EngineSpec, *, strong: bool) -> dict[str, float]:
    """Ranges for a DLA under weak typing, made equal where they must be; empty where Q/DQ nodes hold them."""
    from vajra_edge.graph.dla import ranges as dla_ranges
    from vajra_edge.graph.topology import load

    quantized = any(node.op_type == "DequantizeLinear" for node in load(onnx_bytes).graph.node)
    if spec.target.kind == "dla" and not strong:
        ranges = dla_ranges.attached(onnx_bytes)
        if quantized or not ranges:
            raise UnsupportedSpec(
                "INT8 on this library's DLA needs an unquantized graph with calibration ranges, "
                f"and this one has {'Q/DQ nodes' if quantized else 'no ranges'}",
                remedy=say("calibrate first, or ", Setting.PRECISION.to("fp16")),
            )
        return dla_ranges.equalised(onnx_bytes, ranges)
    if not quantized:
        raise UnsupportedSpec(
            "INT8 is asked for and the graph has no Q/DQ nodes",
            remedy=say("calibrate first, or ", Setting.PRECISION.to("fp16")),
        )
    return {}


def fixed(model: Any, signature: Signature) -> bytes:
    """The graph with every open side of its input set to the largest, as a DLA and a calibration engine take it."""
    for entry in model.graph.input:
        if entry.name == signature.input_name:
            sides = (signature.batch, 3, *signature.resolution_hw)
            for dim, side in zip(entry.type.tensor_type.shape.dim, sides, strict=False):
                dim.dim_value = dim.dim_value or side
    del model.graph.value_info[:]  # inferred again from the input
    return bytes(model.SerializeToString())


def _is_half(model: Any) -> bool:
    from onnx import TensorProto

    return any(constant.data_type == TensorProto.FLOAT16 for constant in model.graph.initializer)


def _name(nodes: list[Any]) -> None:
    """Give every node a name that no other has; the library's errors and layers are known by it."""
    taken: set[str] = set()
    for index, node in enumerate(nodes):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}__{index}"
        taken.add(node.name)


AHEAD_OF_TIME = "8.6"
"""Compute capability built for where no GPU is seen: Ampere, the nearest to Orin's 8.7 that TensorRT-RTX names."""

FREE = "stop other programs, or reboot and build first"

NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


@dataclass(frozen=True)
class Network:
    """A parsed network with everything that must outlive it.

    Attributes:
        library: whose objects these are.
        lines: what the library says.
        builder: ``Builder``.
        network: ``INetworkDefinition``.
        parser: ``OnnxParser``, which owns weights that the network points to.
    """

    library: Library
    lines: LibraryLog
    builder: Any
    network: Any
    parser: Any

    def layers(self) -> list[tuple[Any, str]]:
        """Each layer with the name of the ONNX node it came from, or its own where the parser made it up."""
        found = []
        for index in range(self.network.num_layers):
            layer = self.network.get_layer(index)
            node = NODE.search(layer.metadata or "")
            found.append((layer, node[1] if node else layer.name))
        return found


def builder(library: Library, lines: LibraryLog) -> Any:
    """A ``Builder``.

    Raises:
        BuildError: the library cannot start here, mostly for want of a GPU or its driver.
    """
    trt = library.trt
    with starting(library, lines):
        return trt.Builder(logger(library))


@contextmanager
def starting(library: Library, lines: LibraryLog) -> Iterator[None]:
    """Around the making of a ``Builder`` or ``Runtime``.

    Raises:
        BuildError: the library returned nothing, which its bindings tell as a TypeError; not permanent.
        OutOfMemory: likewise, for want of memory.
    """
    try:
        with listening(lines):
            yield
    except (TypeError, RuntimeError) as error:
        if lines.memory():
            raise OutOfMemory(f"not enough memory to start {library}: {lines.reason()}", remedy=FREE) from error
        failure = BuildError(
            f"{library} does not start: {lines.reason()}",
            remedy=say("check the GPU and its driver with '", Command.DOCTOR, "'"),
        )
        failure.permanent = False  # says nothing of the network: a driver comes up late, a GPU falls off its bus
        raise failure from error


def parse(library: Library, lines: LibraryLog, prepared: Prepared, typing: Typing) -> Network:
    """Read the graph; ``lines`` listen already.

    Raises:
        GraphError: the parser refuses it; the message names the node.
        BuildError: the library does not start here.
    """
    trt = library.trt
    made = builder(library, lines)
    network = made.create_network(creation_flags(library, typing))
    parser = trt.OnnxParser(network, logger(library))
    if not parser.parse(prepared.onnx_bytes):
        raise parse_failure([parser.get_error(index) for index in range(parser.num_errors)], lines)
    return Network(library, lines, made, network, parser)


def configure(net: Network, prepared: Prepared, spec: EngineSpec, typing: Typing, limits: BuildLimits) -> Any:
    """An ``IBuilderConfig`` for the GPU; ``trt_dla`` adds to it for a DLA core.

    No REFIT (11.3's documentation warns of wrong numbers) and no VERSION_COMPATIBLE (slower): plans are built again.
    """
    library, trt = net.library, net.library.trt
    config = net.builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limits.workspace_bytes)
    config.set_memory_pool_limit(trt.MemoryPoolType.TACTIC_DRAM, limits.tactic_bytes)
    config.builder_optimization_level = limits.optimization_level
    if limits.max_tactics is not None and library.has("IBuilderConfig.max_num_tactics"):
        config.max_num_tactics = limits.max_tactics
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if spec.precision is Precision.TF32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)  # FP32 says FP32: box arithmetic keeps its 24 bits in all the others
    if not typing.strong:
        _allow(net, config, prepared, spec.precision)
    return config


def name_gpu(library: Library, config: Any, gpu: int) -> str:
    """Say which GPU the plan is for.

    Returns:
        The compute capability, like ``8.7``.

    Raises:
        UnsupportedSpec: there is no such GPU, and this library cannot build for one that is not here.
    """
    absence = cuda.absence(gpu)
    if absence is None:
        return cuda.describe(gpu).compute_capability
    if library.has("IBuilderConfig.set_compute_capability"):
        config.num_compute_capabilities = 1
        config.set_compute_capability(library.trt.ComputeCapability.SM86, 0)
        return AHEAD_OF_TIME
    raise UnsupportedSpec(absence.message, remedy=absence.remedy, gpu=gpu)


def add_profile(net: Network, config: Any, signature: Signature) -> Shapes | None:
    """Say which shapes a dynamic network must take: from one image and one stride up to the largest, best as requested.

    Returns:
        The shapes; None of a static network.

    Raises:
        GraphError: the network's input is not the signature's.
        BuildError: the library refuses the shapes.
    """
    tensor = _input(net.network, signature)
    fixed = tuple(int(side) for side in tensor.shape)
    if -1 not in fixed:
        return None
    least = (1, 3, signature.stride, signature.stride)
    best = (signature.batch, 3, *signature.resolution_hw)
    most = (signature.batch, 3, *signature.most_hw)
    shapes = Shapes(_fill(fixed, least), _fill(fixed, best), _fill(fixed, most))
    profile = net.builder.create_optimization_profile()
    profile.set_shape(signature.input_name, shapes.least, shapes.best, shapes.most)
    if config.add_optimization_profile(profile) < 0:
        raise BuildError(f"TensorRT refuses the shapes {shapes}: {net.lines.reason()}", shapes=shapes)
    return shapes


def add_calibration_profile(net: Network, config: Any, signature: Signature) -> None:
    """Say at which one shape a dynamic network is calibrated: one image of the requested size.

    Raises:
        GraphError, BuildError: as for ``add_profile``.
    """
    tensor = _input(net.network, signature)
    fixed = tuple(int(side) for side in tensor.shape)
    if -1 not in fixed:
        return
    shape = _fill(fixed, (1, 3, *signature.resolution_hw))
    profile = net.builder.create_optimization_profile()
    profile.set_shape(signature.input_name, shape, shape, shape)
    accepted = True
    if net.library.has("IBuilderConfig.set_calibration_profile"):
        accepted = config.set_calibration_profile(profile)
    if not accepted:
        raise BuildError(f"TensorRT refuses to calibrate at {shape}: {net.lines.reason()}", shape=shape)


def creation_flags(library: Library, typing: Typing) -> int:
    """What ``create_network`` is told about the typing."""
    return 1 << int(library.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if typing.strong else 0


def _allow(net: Network, config: Any, prepared: Prepared, precision: Precision) -> None:
    """Weak typing: allow lower precisions, and pin box arithmetic to FP32.

    Beside INT8 constraints are preferred, not obeyed: under OBEY the library refuses a quantized convolution that it
    has fused with a residual addition (``quantization_rules``), and did so with VajraV1's attention blocks.
    """
    library, trt = net.library, net.library.trt
    if library.has("BuilderFlag.FP16") and not precision.is_single:
        config.set_flag(trt.BuilderFlag.FP16)  # for INT8 too: what is not quantized would else run in FP32
        if precision is Precision.INT8:
            config.set_flag(trt.BuilderFlag.INT8)
        if precision is Precision.INT8 and not prepared.ranges:
            config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
        else:
            config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        typed = {trt.LayerType.CONSTANT, trt.LayerType.CAST}  # by what they are; TensorRT#3570: some refuse a precision
        for layer, node in net.layers():
            if node in prepared.float32 and layer.type not in typed:
                _pin(trt, layer)
            elif node in prepared.half and layer.type not in typed:
                layer.precision = trt.DataType.HALF


def _pin(trt: Any, layer: Any) -> None:
    """Keep one layer and its outputs FP32.

    Layers of indices, shapes and truth values are left alone, comparisons of floats too: network validation refuses a
    precision for a "layer that computes boolean values" (TensorRT#1516). What they compare has to fit into FP16, as
    ``graph.passes.nms`` sees to.
    """
    floats = [index for index in range(layer.num_outputs) if layer.get_output(index).dtype == trt.DataType.FLOAT]
    if floats:
        layer.precision = trt.DataType.FLOAT
    for index in floats:
        layer.set_output_type(index, trt.DataType.FLOAT)


def _input(network: Any, signature: Signature) -> Any:
    names = [network.get_input(index).name for index in range(network.num_inputs)]
    if names != [signature.input_name]:
        raise GraphError(
            f"the graph's inputs are {', '.join(names) or 'none'}, not {signature.input_name}", remedy="export it again"
        )
    return network.get_input(0)


def _fill(fixed: tuple[int, ...], free: tuple[int, ...]) -> tuple[int, ...]:
    if len(fixed) != len(free):
        raise GraphError(f"the graph's input has {len(fixed)} dimensions, not 4", remedy="export it again")
    return tuple(wanted if side == -1 else side for side, wanted in zip(fixed, free, strict=True))
