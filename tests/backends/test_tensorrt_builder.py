"""The build code against a stand-in of every release: what it sets, what it reports, how it fails."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import tiny
from backends.cuda_standin import CudaStandIn
from backends.trt_listing import LISTINGS
from backends.trt_simulation import Simulation, install, quantized, weights_are_half
from onnx import TensorProto, helper, numpy_helper

from vajra_edge.backends.base import Built
from vajra_edge.backends.tensorrt import library, limits
from vajra_edge.backends.tensorrt.backend import TensorRT
from vajra_edge.backends.tensorrt.limits import Memory
from vajra_edge.errors import BackendUnavailable, BuildCancelled, BuildError, GraphError, OutOfMemory, UnsupportedSpec
from vajra_edge.graph.assemble import assemble
from vajra_edge.graph.passes import nms
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.plans.engine_file import plan_header
from vajra_edge.plans.report import Shapes
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision, Target
from vajra_edge.progress import Progress

GPU = Target("gpu")
WEAK = ("10.3.0",)
SIGNATURE = Signature("images", "output0", Layout.RAW, 4, (64, 64), True, False, 32, tiny.NAMES)
MIB = 1 << 20


def built(onnx_bytes: bytes, spec: EngineSpec, seen: list[Progress] | None = None, folder: Path | None = None) -> Built:
    return TensorRT(folder).build(onnx_bytes, SIGNATURE, spec, (seen if seen is not None else []).append)


def network() -> bytes:
    return tiny.network(64, batch=None)


@pytest.mark.parametrize("version", LISTINGS)
@pytest.mark.parametrize("precision", Precision)
def test_a_plan_is_built_by_every_release_in_every_precision(
    monkeypatch: pytest.MonkeyPatch, version: str, precision: Precision
) -> None:
    simulation = Simulation(version)
    install(monkeypatch, simulation)
    graph = quantized(network()) if precision is Precision.INT8 else network()
    made = built(graph, EngineSpec(target=GPU, precision=precision))
    assert str(plan_header(made.plan)).startswith("TensorRT")
    assert (made.precision, made.target) == (precision, GPU)
    weak = version in WEAK
    assert made.report.tensorrt.typing == ("weak" if weak else "strong")
    single = precision in (Precision.FP32, Precision.TF32)
    wanted = {Precision.FP16: ["FP16"], Precision.INT8: ["FP16", "INT8"]}.get(precision, [])
    tf32 = ["TF32"] if precision is Precision.TF32 else []
    verb = "PREFER" if precision is Precision.INT8 else "OBEY"
    constraints = [f"{verb}_PRECISION_CONSTRAINTS"] if wanted else []
    assert simulation.set_to("flag") == tf32 + (wanted + constraints if weak else [])
    assert weights_are_half(made.plan[made.plan.index(b"}") + 1 :]) == (not weak and not single)
    assert simulation.set_to("cleared") == ([] if tf32 else ["TF32"])
    assert made.report.tensorrt.shapes == Shapes((1, 3, 64, 64), (4, 3, 64, 64), (4, 3, 64, 64))


@pytest.mark.parametrize(
    ("target", "reason"),
    [("gpu:0", "compute capability 7.2, does not compute in tf32"), ("dla:0", "FP16 and INT8 only")],
)
def test_tf32_is_refused_where_it_would_be_computed_as_something_else(
    monkeypatch: pytest.MonkeyPatch, target: str, reason: str
) -> None:
    install(monkeypatch, Simulation("10.3.0"), CudaStandIn(capability="7.2"))
    refused = TensorRT().check(EngineSpec(target=Target.parse(target), precision=Precision.TF32))
    assert isinstance(refused, UnsupportedSpec)
    assert reason in str(refused)
    assert "precision = fp16" in str(refused)


def test_a_plan_is_best_at_the_requested_size_and_takes_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Simulation("10.3.0"))
    spec = EngineSpec(target=GPU, nms=None, batch=4, dynamic=True, largest_hw=(512, 320))
    graph, signature = assemble(tiny.network(batch=None, open_size=True), spec)
    made = TensorRT().build(graph, signature, spec, lambda _: None)
    assert made.report.tensorrt.shapes == Shapes((1, 3, 32, 32), (4, 3, 256, 256), (4, 3, 512, 320))


@pytest.mark.parametrize(
    ("version", "flags"),
    [("10.3.0", []), ("10.13.3", ["STRONGLY_TYPED"]), ("11.4.0", ["STRONGLY_TYPED"])],
)
def test_a_network_is_created_with_the_flag_of_its_typing(
    monkeypatch: pytest.MonkeyPatch, version: str, flags: list[str]
) -> None:
    simulation = Simulation(version)
    install(monkeypatch, simulation)
    built(network(), EngineSpec(target=GPU))
    kind = simulation.module.NetworkDefinitionCreationFlag
    assert simulation.set_to("network_flags") == [sum(1 << int(kind[name]) for name in flags)]


def test_weak_typing_keeps_the_boxes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    built(network(), EngineSpec(target=GPU, precision=Precision.FP16))
    pinned = {name.split("__")[0] for name, _, dtype in simulation.set_to("output_type") if dtype == "FLOAT"}
    assert "Add" in pinned
    assert "Conv" not in pinned


@pytest.mark.parametrize("version", WEAK)
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_weak_typing_constrains_no_layer_that_network_validation_refuses(
    monkeypatch: pytest.MonkeyPatch, version: str, precision: Precision
) -> None:
    simulation = Simulation(version)
    install(monkeypatch, simulation)
    graph = nms.add_nms(network(), NmsSpec(max_det=3, top_k=4))
    built(quantized(graph) if precision is Precision.INT8 else graph, EngineSpec(target=GPU, precision=precision))
    pinned = {name for name, _, _ in simulation.set_to("output_type")}
    assert {"/nms/shared", "/nms/limit", "/nms/score"} <= pinned
    assert not {"/nms/label", "/nms/overlaps", "/nms/suppresses", "/nms/label_id"} & pinned


@pytest.mark.parametrize(
    ("version", "wanted", "typing"),
    [
        ("10.3.0", "strong", "strong"),
        ("10.13.3", "weak", "weak"),
        ("10.16.1", "auto", "strong"),
        ("10.3.0", "auto", "weak"),
    ],
)
def test_the_typing_can_be_set_where_the_library_has_both(
    monkeypatch: pytest.MonkeyPatch, version: str, wanted: str, typing: str
) -> None:
    install(monkeypatch, Simulation(version))
    made = built(network(), EngineSpec(target=GPU, typing=wanted))
    assert made.report.tensorrt.typing == typing
    assert made.report.tensorrt.typing_reason


@pytest.mark.parametrize(("version", "typing"), [("11.4.0", "weak"), ("rtx-1.7.1", "weak")])
def test_a_typing_the_library_lacks_is_refused(monkeypatch: pytest.MonkeyPatch, version: str, typing: str) -> None:
    install(monkeypatch, Simulation(version))
    spec = EngineSpec(target=GPU, typing=typing)
    assert f"no {typing} typing" in str(TensorRT().check(spec))
    with pytest.raises(UnsupportedSpec, match=r"set \[engine\] typing = auto"):
        built(network(), spec)


def test_the_limits_of_memory_and_effort_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    made = built(network(), EngineSpec(target=GPU, workspace_gib=0.5, optimization_level=4))
    assert simulation.set_to("WORKSPACE") == [512 * MIB]
    assert 0 < simulation.set_to("TACTIC_DRAM")[0] <= 3 << 30
    assert simulation.set_to("builder_optimization_level") == [4]
    assert [value.name for value in simulation.set_to("profiling_verbosity")] == ["DETAILED"]
    assert made.report.tensorrt.limits == "workspace 512 MiB, optimization level 4, all tactics"


def test_a_workspace_larger_than_the_device_never_reaches_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation, CudaStandIn(memory_bytes=4 << 30))
    with pytest.raises(UnsupportedSpec, match=r"workspace of 4\.50 GiB is more than this device's 4\.00 GiB"):
        built(network(), EngineSpec(target=GPU, workspace_gib=4.5))
    assert simulation.set_to("WORKSPACE") == []


def test_a_workspace_that_is_not_free_is_lowered_reported_and_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0", memory_failures=1)
    install(monkeypatch, simulation)
    monkeypatch.setattr(limits, "look", lambda gpu: Memory(8 << 30, 4 << 30))
    seen: list[Progress] = []
    made = built(network(), EngineSpec(target=GPU, workspace_gib=6.0), seen)
    said = "workspace 6.0 GiB lowered to 3.0 GiB: of this device's 8.0 GiB 4.0 are free beside the builder"
    assert simulation.set_to("WORKSPACE") == [3072 * MIB, 1536 * MIB]
    assert said in [step.message for step in seen]
    first, *rungs = made.report.tensorrt.attempts
    assert first == said
    assert [rung.split(",")[0] for rung in rungs] == ["workspace 3072 MiB", "workspace 1536 MiB"]


def test_what_is_free_is_asked_once_the_builder_took_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """1.7 GB of a board, 4.7 GB of host memory beside an H100."""
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    taken_bytes = 1740 * MIB
    monkeypatch.setattr(
        limits, "look", lambda gpu: Memory(8 << 30, (6 << 30) - taken_bytes * len(simulation.set_to("Builder")))
    )
    built(network(), EngineSpec(target=GPU, workspace_gib=4.0))
    free_bytes = (6 << 30) - taken_bytes
    assert simulation.set_to("WORKSPACE") == [int(free_bytes * limits.WORKSPACE_SHARE)]
    assert simulation.set_to("TACTIC_DRAM") == [free_bytes // 2]


@pytest.mark.parametrize(("version", "tactics"), [("10.3.0", []), ("10.13.3", [None, None, None, 8])])
def test_each_memory_failure_takes_one_rung_down(
    monkeypatch: pytest.MonkeyPatch, version: str, tactics: list[int | None]
) -> None:
    simulation = Simulation(version, memory_failures=3)
    install(monkeypatch, simulation)
    seen: list[Progress] = []
    made = built(network(), EngineSpec(target=GPU, workspace_gib=1.0), seen)
    assert simulation.set_to("WORKSPACE") == [1024 * MIB, 512 * MIB, 512 * MIB, 512 * MIB]
    assert simulation.set_to("builder_optimization_level") == [3, 3, 2, 1]
    assert simulation.set_to("max_num_tactics") == tactics
    assert len(made.report.tensorrt.attempts) == 4
    told = [step.message for step in seen if "trying with less" in step.message]
    assert len(told) == 3
    assert "/conv" in told[0]


def test_a_build_that_never_fits_ends_with_the_layer_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Simulation("10.16.1", memory_failures=99))
    with pytest.raises(OutOfMemory, match=r"not enough memory.*lower .* batch") as raised:
        built(network(), EngineSpec(target=GPU))
    assert raised.value.values["layer"] == "/conv"


@pytest.mark.parametrize("version", LISTINGS)
def test_progress_rises_to_the_end_and_names_the_phase(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    install(monkeypatch, Simulation(version))
    seen: list[Progress] = []
    built(network(), EngineSpec(target=GPU), seen)
    percents = [step.percent for step in seen if step.percent is not None]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert "Timing graph nodes" in {step.message for step in seen}


def test_a_cancelled_report_stops_the_builder_and_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Simulation("10.3.0"))

    def stop(progress: Progress) -> None:
        if progress.percent:
            raise BuildCancelled("somebody asked")

    with pytest.raises(BuildCancelled, match="somebody asked"):
        TensorRT().build(network(), SIGNATURE, EngineSpec(target=GPU), stop)


def test_a_refused_graph_names_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Simulation("10.3.0"))
    nodes = [
        helper.make_node("Relu", ["images"], ["middle"], name="fine"),
        helper.make_node("Frob", ["middle"], ["output0"], name="frobnicate"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 64, 64]) for name in ("images", "output0")]
    graph = helper.make_model(helper.make_graph(nodes, "broken", ends[:1], ends[1:]))
    with pytest.raises(GraphError, match=r"at node frobnicate \(Frob\): No importer"):
        built(graph.SerializeToString(), EngineSpec(target=GPU))


def test_int8_without_quantization_is_refused_before_any_build(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    with pytest.raises(UnsupportedSpec, match="no Q/DQ nodes"):
        built(network(), EngineSpec(target=GPU, precision=Precision.INT8))
    assert simulation.set_to("network_flags") == []


def test_unnamed_and_repeated_nodes_get_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Simulation("10.3.0"))
    graph = onnx.load_model_from_string(network())
    graph.graph.node[0].name = graph.graph.node[1].name = "same"
    made = built(graph.SerializeToString(), EngineSpec(target=GPU))
    names = [node.name for node in onnx.load_model_from_string(made.plan[made.plan.index(b"}") + 1 :]).graph.node]
    assert len(set(names)) == len(names)
    assert "same" in names
    assert "" not in names


def test_timings_are_kept_for_the_same_library_and_device_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for version, given in (("10.3.0", b""), ("10.3.0", b"+"), ("10.16.1", b""), ("10.3.0", b"++")):
        simulation = Simulation(version)
        install(monkeypatch, simulation)
        made = built(network(), EngineSpec(target=GPU), folder=tmp_path)
        assert simulation.set_to("timing_cache") == [given]
        named = {str(made.report.tensorrt.timing_cache), str(made.report.tensorrt.timing_expected)}
        assert named <= {path.name for path in (tmp_path / "timing").iterdir()}


def test_a_damaged_timing_cache_is_begun_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    name = built(network(), EngineSpec(target=GPU), folder=tmp_path).report.tensorrt.timing_cache
    (tmp_path / "timing" / str(name)).write_bytes(b"damaged")
    built(network(), EngineSpec(target=GPU), folder=tmp_path)
    assert simulation.set_to("timing_cache") == [b"", b"damaged", b""]


def test_a_damaged_timing_cache_is_not_the_reason_of_a_later_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    name = built(network(), EngineSpec(target=GPU), folder=tmp_path).report.tensorrt.timing_cache
    (tmp_path / "timing" / str(name)).write_bytes(b"damaged")
    simulation.memory_failures = 99
    with pytest.raises(OutOfMemory, match="Could not find any implementation") as raised:
        built(network(), EngineSpec(target=GPU), folder=tmp_path)
    assert "timing cache" not in str(raised.value)


def test_rtx_without_a_gpu_builds_ahead_and_says_for_what(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    simulation = Simulation("rtx-1.7.1")
    install(monkeypatch, simulation, CudaStandIn(devices=0))
    assert TensorRT().check(EngineSpec(target=GPU)) is None
    assert str(TensorRT().cannot_run(EngineSpec(target=GPU))).startswith("CUDA sees 0 GPUs here, none with number 0;")
    made = built(network(), EngineSpec(target=GPU), folder=tmp_path)
    assert made.report.tensorrt.compute_capability == "8.6"
    assert simulation.set_to("compute_capability") == [("SM86", 0)]
    assert simulation.set_to("timing_cache") == []
    with pytest.raises(BackendUnavailable, match="cannot run plans here: CUDA sees 0 GPUs"):
        TensorRT().load(made.plan, SIGNATURE, EngineSpec(target=GPU))


def test_a_gpu_that_is_here_is_what_is_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("10.3.0", "rtx-1.7.1"):
        simulation = Simulation(version)
        install(monkeypatch, simulation)
        assert built(network(), EngineSpec(target=GPU)).report.tensorrt.compute_capability == "8.7"
        assert simulation.set_to("compute_capability") == []


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (EngineSpec(), r"does not run on a CPU; set \[engine\] backend = onnxruntime"),
        (
            EngineSpec(target=Target("dla"), precision=Precision.FP16),
            "sees no DLA core here .*; set .* target = gpu:0",
        ),
        (
            EngineSpec(target=Target("dla"), precision=Precision.FP32),
            r"FP16 and INT8 only; set \[engine\] precision = fp16",
        ),
        (EngineSpec(target=Target("dla"), precision=Precision.INT8, dynamic=True), "static shapes only"),
        (EngineSpec(target=GPU, workspace_gib=9.0), "more than this device's 8.00 GiB"),
    ],
)
def test_what_this_machine_cannot_do_is_said_before_any_work(
    monkeypatch: pytest.MonkeyPatch, spec: EngineSpec, reason: str
) -> None:
    install(monkeypatch, Simulation("10.3.0"))
    with pytest.raises(UnsupportedSpec, match=reason):
        built(network(), spec)
    assert TensorRT().check(spec)


def test_a_gpu_that_is_not_there_is_said_before_any_work_and_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Simulation("10.3.0"))
    spec = EngineSpec(target=Target("gpu", 3))
    with pytest.raises(BackendUnavailable, match=r"CUDA sees 1 GPUs here, none with number 3; look at CUDA_VISIBLE"):
        built(network(), spec)
    assert TensorRT().check(spec)


def test_the_identity_names_what_voids_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Simulation("10.3.0", dla_cores=2))
    facts = TensorRT().identity(EngineSpec(target=Target("dla", 1), precision=Precision.INT8))
    assert facts["library"] == "TensorRT 10.3.0"
    assert facts["target"] == "dla:1"
    assert (facts["gpu"], facts["compute_capability"], facts["driver"]) == ("Orin", "8.7", "12.6")


def test_a_library_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)

    def nothing(self: object, logger: object) -> None:
        logger.log(simulation.module.ILogger.ERROR, "CUDA initialization failure with error: 35")  # type: ignore[attr-defined]
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(simulation.module.Builder, "__init__", nothing)
    with pytest.raises(BuildError, match="does not start: CUDA initialization failure with error: 35; check the GPU"):
        built(network(), EngineSpec(target=GPU))


def test_an_absent_library_and_a_broken_one_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    library.load.cache_clear()
    monkeypatch.setattr(library, "MODULES", ("no_such_tensorrt",))
    with pytest.raises(BackendUnavailable, match="TensorRT is not installed"):
        library.load()

    def broken(name: str) -> None:
        raise ImportError("libnvdla_compiler.so: cannot open shared object file")

    monkeypatch.setattr(library.importlib, "import_module", broken)
    with pytest.raises(BackendUnavailable, match="is installed but does not load: libnvdla_compiler"):
        library.load()
    assert "libnvdla_compiler" in str(TensorRT().check(EngineSpec(target=GPU)))


def test_a_region_without_implementation_is_tried_again_with_less_fusion(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation("10.3.0", no_tactic_above_level_0=True)
    install(monkeypatch, simulation)
    seen: list[Progress] = []
    made = built(network(), EngineSpec(target=GPU), seen)
    assert simulation.set_to("builder_optimization_level") == [3, 0]
    assert "optimization level 0" in str(made.report.tensorrt.limits)
    assert any("trying at optimization level 0" in step.message for step in seen)


def test_a_quantized_graph_that_the_library_refuses_is_refused_before_any_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulation = Simulation("10.3.0")
    install(monkeypatch, simulation)
    graph = onnx.load_model_from_string(quantized(network()))
    zeros = {node.input[2] for node in graph.graph.node if node.op_type == "QuantizeLinear"}
    for tensor in graph.graph.initializer:
        if tensor.name in zeros:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 3, tensor.name))
    with pytest.raises(BuildError, match="has to be symmetric") as raised:
        built(graph.SerializeToString(), EngineSpec(target=GPU, precision=Precision.INT8))
    assert raised.value.values["layers"]
    assert simulation.set_to("network_flags") == []
