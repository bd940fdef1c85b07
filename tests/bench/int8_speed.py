"""INT8 beside FP32 on this CPU, both built by the product and timed in turns of a second, as one JSON document.

    python tests/bench/int8_speed.py [--weights FILE] [--images FOLDER OR VIDEO] [--threads 1,4] [--seconds 20]

Without arguments: the demo's network, calibrated on the demo's clip.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vajra_edge import device
from vajra_edge.backends.onnxruntime import OnnxRuntime
from vajra_edge.build import worker
from vajra_edge.build.request import BuildRequest, weights_digest
from vajra_edge.config.settings import CalibrationSettings
from vajra_edge.demo.settings import WEIGHTS
from vajra_edge.plans import report_json
from vajra_edge.plans.manifest import Plan
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision, Target
from vajra_edge.quantization import camera_samples

CLIP = WEIGHTS.parent / "clip.mp4"
VNNI = ("avx512_vnni", "avx_vnni", "asimddp")


def plans(weights: Path, images: Path, state_dir: Path) -> dict[str, Plan]:
    """One of each precision, as the daemon's build child makes it."""
    spec = EngineSpec(Target("cpu"), Precision.FP32, nms=NmsSpec())
    request = BuildRequest(weights, weights_digest(weights), "onnxruntime", spec, state_dir, 1 << 30)
    calibration = CalibrationSettings(data=images)
    made = camera_samples.wanted_set(calibration, state_dir, spec.batch)
    assert made is not None
    found = {}
    for precision in (Precision.FP32, Precision.INT8):
        wanted = replace(request, spec=replace(spec, precision=precision))
        if precision is Precision.INT8:
            wanted = replace(wanted, calibration=calibration, calibration_digest=made.digest)
        found[precision.value] = worker.run(wanted, lambda _: None)
    return found


def in_turns(chosen: dict[str, Plan], threads: int, seconds: float) -> dict[str, Any]:
    """Median milliseconds of a call; a turn is a second, so that what else the machine does hits both."""
    runners, taken_ms = {}, {}
    for name, plan in chosen.items():
        manifest = plan.manifest
        runners[name] = OnnxRuntime(threads).load(plan.read(), manifest.signature, manifest.wanted)
        taken_ms[name] = []
    height, width = chosen["fp32"].manifest.signature.resolution_hw
    batch = np.random.default_rng(0).random((1, 3, height, width), np.float32)
    for runner in runners.values():
        for _ in range(3):
            runner.infer(batch)
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        for name, runner in runners.items():
            turn_s = time.perf_counter() + 1.0
            while time.perf_counter() < turn_s:
                before_s = time.perf_counter()
                runner.infer(batch)
                taken_ms[name].append(1e3 * (time.perf_counter() - before_s))
    medians = {name: round(float(np.median(several)), 2) for name, several in taken_ms.items()}
    return {f"{name}_ms": value for name, value in medians.items()} | {
        "speedup": round(medians["fp32"] / medians["int8"], 2)
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--images", type=Path, default=CLIP)
    parser.add_argument("--threads", default=str(device.usable_cpus()))
    parser.add_argument("--seconds", type=float, default=20.0)
    asked = parser.parse_args()
    flags = set(Path("/proc/cpuinfo").read_text(encoding="ascii").split())
    with tempfile.TemporaryDirectory() as folder:
        chosen = plans(asked.weights.absolute(), asked.images.absolute(), Path(folder))
        int8 = chosen["int8"].manifest
        bytes_of = {name: len(plan.read()) for name, plan in chosen.items()}
        figures = {
            "cpu": device.cpu_name(),
            "cores": os.cpu_count(),
            "has": [flag for flag in VNNI if flag in flags],
            "achieved": int8.precision.value,
            "int8_share": int8.report.plan.int8.share if int8.report.plan.int8 else None,
            "verify": report_json.write_verify(int8.verify),
            "rejected": [one.reason for one in int8.report.refused],
            "plan_bytes": bytes_of,
            "size": round(bytes_of["int8"] / bytes_of["fp32"], 3),
            "build_s": {name: round(plan.manifest.build_s, 1) for name, plan in chosen.items()},
            "stages": report_json.write(int8.report)["stages"],
        }
        timed = {count: in_turns(chosen, int(count), asked.seconds) for count in asked.threads.split(",")}
    print(json.dumps(figures | {"threads": timed}))


if __name__ == "__main__":
    main()
