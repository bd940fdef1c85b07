"""Behaviour for the stand-ins of ``trt_listing``: a parser that reads ONNX, a builder that reports progress and can run
out of memory, a DLA, and engines that compute what ONNX Runtime computes, in the memory whose addresses they are given.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from backends.cuda_standin import CudaStandIn
from backends.trt_listing import standin
from onnx import TensorProto, helper, numpy_helper

from vajra_edge.backends.tensorrt import library as tensorrt_library
from vajra_edge.backends.tensorrt import start as tensorrt_start

MEMORY_ERROR = (
    "[optimizer.cpp] Error Code 10: Could not find any implementation for node {ForeignNode[/conv]} "
    "due to insufficient memory on requested size of 4831838208 detected for tactic 0x0000000000000000."
)
NO_TACTIC_ERROR = (
    "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation for node "
    "conv + PWN(sigmoid, mul).)"
)
LAYERS = {"Conv": "CONVOLUTION", "Sigmoid": "ACTIVATION", "Constant": "CONSTANT", "Cast": "CAST"}
"""Layer type by operator; all others are ELEMENTWISE."""
VERSION_BYTES = {
    "10.3.0": (10, 3, 0, 26),
    "11.4.0": (11, 4, 0, 106),
    "rtx-1.7.1": (1, 7, 1, 116),
}


@dataclass
class Simulation:
    """One TensorRT on one simulated machine.

    Attributes:
        version: a key of the listings.
        dla_cores: how many there are.
        memory_failures: builds that fail for want of memory before one succeeds.
        probe_memory_failures: likewise of the one convolution that tries out a DLA core.
        no_tactic_above_level_0: a fused region has no implementation, as with a real graph (10.6).
        dla_refuses: operator types that ``can_run_on_DLA`` refuses.
        dla_builds: a build for the DLA succeeds.
        dla_idle: it does, with all of it on the GPU, even one convolution.
        drops_dla: the builder ignores the placement, as it does silently when a region does not compile.
        load_errors: what is logged by each load of a whole plan that fails, before one succeeds.
        calls: what was set, as (name, value), in order.
    """

    version: str
    dla_cores: int = 0
    memory_failures: int = 0
    probe_memory_failures: int = 0
    no_tactic_above_level_0: bool = False
    dla_refuses: frozenset[str] = frozenset()
    dla_builds: bool = True
    dla_idle: bool = False
    drops_dla: bool = False
    load_errors: list[str] = field(default_factory=list)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    gpu: CudaStandIn = field(default_factory=CudaStandIn)

    def __post_init__(self) -> None:
        self.module = standin(self.version, self._behaviour())

    def set_to(self, name: str) -> list[Any]:
        return [value for called, value in self.calls if called == name]

    def plan(self, payload: dict[str, Any], onnx_bytes: bytes) -> bytes:
        magic = b"vtrt" if self.version.startswith("rtx") else b"ftrt"
        release = bytes(VERSION_BYTES.get(self.version) or map(int, f"{self.version}.0".split(".")))
        head = json.dumps(payload).encode()
        return magic + bytes(20) + release + len(head).to_bytes(4, "little") + head + onnx_bytes

    def _behaviour(self) -> dict[str, Callable[..., Any]]:
        return {
            "Builder.__init__": self._open_builder,
            "Runtime.num_DLA_cores": lambda _: self.dla_cores,
            "Builder.create_network": self._create_network,
            "Builder.create_builder_config": self._create_config,
            "Builder.build_serialized_network": self._build,
            "INetworkDefinition.add_input": self._add_input,
            "INetworkDefinition.add_convolution_nd": self._add_convolution,
            "INetworkDefinition.num_layers": lambda network: len(network._sim_layers),
            "INetworkDefinition.get_layer": lambda network, index: network._sim_layers[index],
            "INetworkDefinition.num_inputs": lambda network: len(network._sim_inputs),
            "INetworkDefinition.get_input": lambda network, index: network._sim_inputs[index],
            "ILayer.num_outputs": lambda layer: len(layer._sim_outputs),
            "ILayer.get_output": lambda layer, index: layer._sim_outputs[index],
            "IConvolutionLayer.get_output": lambda layer, index: layer._sim_outputs[index],
            "ILayer.num_inputs": lambda layer: len(layer._sim_inputs),
            "ILayer.get_input": lambda layer, index: layer._sim_inputs[index],
            "ILayer.set_output_type": lambda layer, index, dtype: self.calls.append(
                ("output_type", (layer.name, index, dtype.name))
            ),
            "ITensor.set_dynamic_range": self._set_range,
            "ITensor.reset_dynamic_range": lambda tensor: self.calls.append(("reset_range", tensor.name)),
            "IOptimizationProfile.set_shape": lambda _, name, least, opt, most: self.calls.append(
                ("profile", (name, least, opt, most))
            ),
            "OnnxParser.__init__": self._open_parser,
            "OnnxParser.parse": self._parse,
            "OnnxParser.num_errors": lambda parser: len(parser._sim_errors),
            "OnnxParser.get_error": lambda parser, index: parser._sim_errors[index],
            "ParserError.node": lambda error: error._sim_node,
            "ParserError.node_name": lambda error: error._sim_name,
            "ParserError.node_operator": lambda error: error._sim_operator,
            "ParserError.desc": lambda _: "No importer registered for this operator",
            "IBuilderConfig.set_memory_pool_limit": lambda _, pool, size: self.calls.append((pool.name, size)),
            "IBuilderConfig.set_flag": self._set_flag,
            "IBuilderConfig.clear_flag": lambda _, flag: self.calls.append(("cleared", flag.name)),
            "IBuilderConfig.set_device_type": lambda _, layer, kind: self.calls.append((kind.name, layer.name)),
            "IBuilderConfig.can_run_on_DLA": lambda _, layer: layer._sim_op not in self.dla_refuses,
            "IBuilderConfig.set_compute_capability": lambda _, capability, index: self.calls.append(
                ("compute_capability", (capability.name, index))
            ),
            "IBuilderConfig.create_timing_cache": self._create_cache,
            "IBuilderConfig.set_timing_cache": self._set_cache,
            "IBuilderConfig.get_timing_cache": lambda config: config._sim_cache,
            "ITimingCache.serialize": lambda cache: _memory(self.module, cache._sim_content + b"+"),
            "Runtime.__init__": lambda runtime, logger: setattr(runtime, "_sim_logger", logger),
            "Runtime.deserialize_cuda_engine": self._deserialise,
            "ICudaEngine.num_io_tensors": lambda engine: len(engine._sim_tensors),
            "ICudaEngine.get_tensor_name": lambda engine, index: list(engine._sim_tensors)[index],
            "ICudaEngine.get_tensor_mode": lambda engine, name: engine._sim_tensors[name],
            "ICudaEngine.get_tensor_dtype": lambda *_: self.module.DataType.FLOAT,
            "ICudaEngine.get_tensor_shape": self._engine_shape,
            "ICudaEngine.device_memory_size_v2": lambda _: 4096,
            "ICudaEngine.create_execution_context": self._create_context,
            "IExecutionContext.set_device_memory": self._set_memory,
            "ICudaEngine.create_engine_inspector": self._create_inspector,
            "EngineInspector.get_engine_information": lambda inspector, _: inspector._sim_text,
            "IExecutionContext.set_input_shape": self._set_shape,
            "IExecutionContext.get_tensor_shape": lambda context, name: context._sim_shapes[name],
            "IExecutionContext.set_tensor_address": self._set_address,
            "IExecutionContext.execute_async_v3": self._execute,
        }

    def _open_builder(self, builder: Any, logger: Any) -> None:
        builder._sim_logger = logger
        self.calls.append(("Builder", None))

    def _create_network(self, builder: Any, flags: int = 0) -> Any:
        self.calls.append(("network_flags", flags))
        network = object.__new__(self.module.INetworkDefinition)
        network._sim_layers, network._sim_inputs, network._sim_onnx = [], [], b""
        return network

    def _create_config(self, builder: Any) -> Any:
        config = object.__new__(self.module.IBuilderConfig)
        config._sim_logger, config._sim_flags = builder._sim_logger, set()
        return config

    def _tensor(self, name: str, shape: tuple[int, ...], kind: str = "FLOAT") -> Any:
        tensor = object.__new__(self.module.ITensor)
        tensor.name, tensor.shape, tensor.dtype = name, shape, self.module.DataType[kind]
        return tensor

    def _layer(self, cls: str, op: str, name: str, kind: str, inputs: list[Any], outputs: list[Any]) -> Any:
        layer = object.__new__(getattr(self.module, cls))
        layer.name, layer.type, layer.metadata = name, self.module.LayerType[kind], f"[ONNX Layer: {name}]"
        layer._sim_op, layer._sim_inputs, layer._sim_outputs = op, inputs, outputs
        return layer

    def _add_input(self, network: Any, name: str, dtype: Any, shape: tuple[int, ...]) -> Any:
        network._sim_inputs.append(self._tensor(name, shape, dtype.name))
        return network._sim_inputs[-1]

    def _add_convolution(self, network: Any, source: Any, *_: Any) -> Any:
        outputs = [self._tensor("y", source.shape)]
        layer = self._layer("IConvolutionLayer", "Conv", "conv", "CONVOLUTION", [source], outputs)
        network._sim_layers.append(layer)
        return layer

    def _open_parser(self, parser: Any, network: Any, logger: Any) -> None:
        parser._sim_network, parser._sim_logger, parser._sim_errors = network, logger, []

    def _parse(self, parser: Any, onnx_bytes: bytes) -> bool:
        model, network = onnx.load_model_from_string(onnx_bytes), parser._sim_network
        kinds = self._kinds(model)
        network._sim_onnx = onnx_bytes
        constants = {tensor.name for tensor in model.graph.initializer}
        tensors = {}
        for entry in model.graph.input:
            sides = [side.dim_value or -1 for side in entry.type.tensor_type.shape.dim]
            tensors[entry.name] = self._tensor(entry.name, tuple(sides))
            network._sim_inputs.append(tensors[entry.name])
        for index, node in enumerate(model.graph.node):
            if not onnx.defs.has(node.op_type):
                self._refuse(parser, index, node)
                return False
            outputs = [self._tensor(name, (), kinds.get(name, "FLOAT")) for name in node.output]
            tensors |= {tensor.name: tensor for tensor in outputs}
            sources = [None if name in constants else tensors[name] for name in node.input if name]
            kind = LAYERS.get(node.op_type, "ELEMENTWISE")
            network._sim_layers.append(self._layer("ILayer", node.op_type, node.name, kind, sources, outputs))
        return True

    def _kinds(self, model: onnx.ModelProto) -> dict[str, str]:
        """Tensor types by name, as this release calls them."""
        values = onnx.shape_inference.infer_shapes(model).graph.value_info
        names = {value.name: TensorProto.DataType.Name(value.type.tensor_type.elem_type) for value in values}
        known = {kind.name for kind in self.module.DataType}
        words = {"FLOAT16": "HALF"}
        return {name: words.get(kind, kind) for name, kind in names.items() if words.get(kind, kind) in known}

    def _invalid(self, layer: Any) -> str | None:
        """What network validation says of a layer's constraints (NVIDIA/TensorRT#1516, #2761, #3570)."""
        if getattr(layer, "precision", None) is None:
            return None
        floats = {self.module.DataType.FLOAT, self.module.DataType.HALF}
        sources = {source.dtype for source in layer._sim_inputs if source is not None}
        if layer.type == self.module.LayerType.CAST and not floats & sources:
            return f"{layer.name}: cannot use precision Float for layer that converts from booleans or indices"
        if not floats & {output.dtype for output in layer._sim_outputs}:
            return f"{layer.name}: cannot use precision Float for layer that computes boolean values or indices"
        return None

    def _refuse(self, parser: Any, index: int, node: Any) -> None:
        error = object.__new__(self.module.ParserError)
        error._sim_node, error._sim_name, error._sim_operator = index, node.name, node.op_type
        parser._sim_errors.append(error)
        parser._sim_logger.log(self.module.ILogger.ERROR, "While parsing a node")

    def _set_range(self, tensor: Any, low: float, high: float) -> bool:
        self.calls.append(("range", (tensor.name, low, high)))
        return True

    def _create_cache(self, config: Any, content: bytes) -> Any:
        cache = object.__new__(self.module.ITimingCache)
        cache._sim_content = content
        return cache

    def _set_cache(self, config: Any, cache: Any, ignore_mismatch: bool) -> bool:
        config._sim_cache = cache
        self.calls.append(("timing_cache", cache._sim_content))
        damaged = cache._sim_content.startswith(b"damaged")
        if damaged:
            config._sim_logger.log(self.module.ILogger.ERROR, "the timing cache is corrupt")
        return not damaged

    def _set_flag(self, config: Any, flag: Any) -> None:
        self.calls.append(("flag", flag.name))
        config._sim_flags.add(flag.name)

    def _build(self, builder: Any, network: Any, config: Any) -> Any:
        names = (
            "builder_optimization_level",
            "max_num_tactics",
            "DLA_core",
            "default_device_type",
            "profiling_verbosity",
        )
        self.calls += [(name, getattr(config, name)) for name in names if name in config._listed]
        if network._sim_onnx == b"":
            return self._build_probe(builder, network, config)
        refused = next(filter(None, map(self._invalid, network._sim_layers)), None)
        if refused:
            builder._sim_logger.log(self.module.ILogger.ERROR, refused)
            return None
        monitor = config.progress_monitor if "progress_monitor" in config._listed else None
        if monitor is not None and not _report(monitor):
            builder._sim_logger.log(self.module.ILogger.ERROR, "Error Code 7: BuildCanceled (Build canceled by user)")
            return None
        _calibrate(config, self)
        if self.no_tactic_above_level_0 and config.builder_optimization_level > 0:
            builder._sim_logger.log(self.module.ILogger.ERROR, NO_TACTIC_ERROR)
            return None
        if self.memory_failures:
            self.memory_failures -= 1
            builder._sim_logger.log(self.module.ILogger.ERROR, MEMORY_ERROR)
            return None
        placed = self.set_to("DLA")
        payload = {"dla": bool(placed) and not self.drops_dla, "region": placed[:1] + placed[-1:]}
        return _memory(self.module, self.plan(payload, network._sim_onnx))

    def _build_probe(self, builder: Any, network: Any, config: Any) -> Any:
        """One convolution for the core, whose linear inputs and outputs the GPU reformats (NVIDIA/TensorRT#3438)."""
        if self.probe_memory_failures:
            self.probe_memory_failures -= 1
            builder._sim_logger.log(self.module.ILogger.ERROR, MEMORY_ERROR)
            return None
        falls_back = "GPU_FALLBACK" in config._sim_flags
        if not falls_back or not self.dla_builds:
            reason = "cannot load libnvdla_compiler.so" if falls_back else "I/O needs a reformat, GPU fallback is off"
            builder._sim_logger.log(self.module.ILogger.ERROR, reason)
            return None
        payload = {"dla": not self.dla_idle, "region": [layer.name for layer in network._sim_layers]}
        return _memory(self.module, self.plan(payload, b""))

    def _deserialise(self, runtime: Any, plan: bytes) -> Any:
        self.calls.append(("deserialised_for_core", runtime.DLA_core))
        end = 32 + int.from_bytes(plan[28:32], "little")
        payload = json.loads(plan[32:end])
        refusal = payload.get("refused") or (self.load_errors.pop(0) if plan[end:] and self.load_errors else None)
        if refusal:
            runtime._sim_logger.log(self.module.ILogger.ERROR, refusal)
            return None
        engine = object.__new__(self.module.ICudaEngine)
        mode = self.module.TensorIOMode
        engine._sim_layers = _inspected(payload)
        if plan[end:] == b"":
            return engine
        engine._sim_session = onnxruntime.InferenceSession(plan[end:], providers=["CPUExecutionProvider"])
        engine._sim_tensors = {entry.name: mode.INPUT for entry in engine._sim_session.get_inputs()}
        engine._sim_tensors |= {entry.name: mode.OUTPUT for entry in engine._sim_session.get_outputs()}
        return engine

    def _engine_shape(self, engine: Any, name: str) -> tuple[int, ...]:
        entry = next(entry for entry in engine._sim_session.get_inputs() if entry.name == name)
        return tuple(side if isinstance(side, int) else -1 for side in entry.shape)

    def _create_inspector(self, engine: Any) -> Any:
        inspector = object.__new__(self.module.EngineInspector)
        inspector._sim_text = json.dumps({"Layers": engine._sim_layers})
        return inspector

    def _create_context(self, engine: Any, strategy: Any = None) -> Any:
        context = object.__new__(self.module.IExecutionContext)
        context._sim_engine, context._sim_shapes, context._sim_addresses = engine, {}, {}
        context._sim_has_memory = strategy is None or strategy.name == "STATIC"
        for entry in engine._sim_session.get_inputs():
            if all(isinstance(side, int) for side in entry.shape):
                self._infer(context, entry.name, tuple(entry.shape))
        return context

    def _set_shape(self, context: Any, name: str, shape: tuple[int, ...]) -> bool:
        self.calls.append(("input_shape", shape))
        return self._infer(context, name, shape)

    def _infer(self, context: Any, name: str, shape: tuple[int, ...]) -> bool:
        try:
            made = context._sim_engine._sim_session.run(None, {name: np.zeros(shape, np.float32)})
        except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument:
            return False
        outputs = [entry.name for entry in context._sim_engine._sim_session.get_outputs()]
        context._sim_shapes = {name: shape, **{key: value.shape for key, value in zip(outputs, made, strict=True)}}
        return True

    def _set_memory(self, context: Any, address: int, nbytes: int) -> None:
        context._sim_has_memory = address in self.gpu.held and nbytes >= 4096

    def _set_address(self, context: Any, name: str, address: int) -> bool:
        self.calls.append(("address", name))
        context._sim_addresses[name] = address
        return address != 0

    def _execute(self, context: Any, stream: int) -> bool:
        assert context._sim_has_memory, "TensorRT would read address 0"
        self.gpu.queue(stream, lambda: self._compute(context))
        return stream != 0

    def _compute(self, context: Any) -> None:
        engine = context._sim_engine
        arrays = {name: _view(context._sim_addresses[name], shape) for name, shape in context._sim_shapes.items()}
        inputs = {name: arrays[name] for name, mode in engine._sim_tensors.items() if mode.name == "INPUT"}
        for entry, value in zip(engine._sim_session.get_outputs(), engine._sim_session.run(None, inputs), strict=True):
            arrays[entry.name][...] = value


def _view(address: int, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    count = int(np.prod(shape))
    return np.frombuffer((ctypes.c_float * count).from_address(address), np.float32).reshape(shape)


def _inspected(payload: dict[str, Any]) -> list[dict[str, str]]:
    """A region for the core, or the same one that Myelin fused for the GPU, and what Myelin makes of the rest."""
    region = "{ForeignNode[" + "...".join(payload.get("region", [])) + "]}"
    return [
        {"Name": region, "LayerType": "DLA" if payload["dla"] else "Myelin"},
        {"Name": "{ForeignNode[decode...boxes]}", "LayerType": "Myelin"},
        {"Name": "Reformatting CopyNode for Input Tensor 0", "LayerType": "Reformat"},
    ]


def _memory(module: Any, content: bytes) -> Any:
    made = type("HostMemory", (module.IHostMemory,), {"__bytes__": lambda _: content})
    return object.__new__(made)


def _calibrate(config: Any, simulation: Simulation) -> None:
    """What a builder does with a calibrator: the cache if there is one of this release, else every batch."""
    calibrator = getattr(config, "int8_calibrator", None)
    if calibrator is None:
        return
    header = f"TRT-{simulation.version}-MinMaxCalibration".encode()
    simulation.calls.append(("calibration_batch", calibrator.get_batch_size()))
    kept = calibrator.read_calibration_cache()
    if kept is not None and bytes(kept).startswith(header):
        simulation.calls.append(("calibrated_by", "cache"))
        return
    seen = 0
    while calibrator.get_batch(["images"]) is not None:
        seen += 1
    simulation.calls.append(("calibrated_by", seen))
    calibrator.write_calibration_cache(memoryview(header + b"\nimages: 3c010204\n"))


def _report(monitor: Any) -> bool:
    """Phases as a real build nests them; False once the monitor has asked to stop."""
    monitor.phase_start("Building engine", None, 2)
    monitor.phase_start("Timing graph nodes", "Building engine", 4)
    going = all(monitor.step_complete("Timing graph nodes", step) for step in range(4))
    monitor.phase_finish("Timing graph nodes")
    going = going and all(monitor.step_complete("Building engine", step) for step in range(2))
    monitor.phase_finish("Building engine")
    return going


def weights_are_half(onnx_bytes: bytes) -> bool:
    model = onnx.load_model_from_string(onnx_bytes)
    return any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)


def install(monkeypatch: pytest.MonkeyPatch, simulation: Simulation, gpu: CudaStandIn | None = None) -> CudaStandIn:
    """Make ``simulation`` the TensorRT of this machine and ``gpu`` its CUDA."""
    gpu = CudaStandIn() if gpu is None else gpu
    simulation.gpu = gpu
    library = tensorrt_library.of(simulation.module)
    monkeypatch.setattr(tensorrt_library, "load", lambda: library)
    monkeypatch.setattr(tensorrt_start, "refusal", lambda _: None)  # a child has no simulation
    gpu.install(monkeypatch)
    return gpu


def quantized(onnx_bytes: bytes) -> bytes:
    """The graph with a Q/DQ pair before every convolution."""
    model = onnx.load_model_from_string(onnx_bytes)
    model.graph.initializer.append(numpy_helper.from_array(np.array(1 / 64, np.float32), "scale"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), "zero"))
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Conv":
            source, pair = node.input[0], [f"{node.output[0]}_q", f"{node.output[0]}_dq"]
            nodes.append(helper.make_node("QuantizeLinear", [source, "scale", "zero"], pair[:1]))
            nodes.append(helper.make_node("DequantizeLinear", [pair[0], "scale", "zero"], pair[1:]))
            node.input[0] = pair[1]
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())
