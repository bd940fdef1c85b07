from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vajra_edge import device

RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"
SMI = "0, NVIDIA H100 80GB HBM3, 9.0, 570.86.15\n1, NVIDIA L4, 8.9, 570.86.15\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def absent(command):
    return None


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    return write(
        tmp_path,
        {
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit\0",
            "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0",
            "etc/nv_tegra_release": RELEASE,
            "proc/meminfo": "MemTotal:        7802692 kB\nMemFree:  1 kB\nMemAvailable:    5000000 kB\n",
            "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n",
            "var/lib/nvpmodel/status": "pmode:0002\n",
            "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nX\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "48250\n",
            "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
        },
    )


def test_a_jetson_is_known_from_its_files_alone(orin: Path):
    info = device.probe(orin, absent)
    assert info.machine == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit"
    assert info.l4t == "36.4.3"
    assert info.gpus == (device.Gpu(0, "Orin (Ampere iGPU)", "8.7", None),)
    assert info.cpu == "ARM 0x41:0xd42"
    assert info.memory_bytes == 7802692 * 1024
    assert info.memory_available_bytes == 5000000 * 1024
    assert info.power_mode == "MAXN_SUPER"
    assert info.temperatures_c == (("cpu-thermal", 48.25),)
    assert json.loads(json.dumps(info.to_json()))["temperatures_c"] == {"cpu-thermal": 48.25}


def test_jetsons_nvidia_smi_that_says_not_available_is_completed_from_the_device_tree(orin: Path):
    (gpu,) = device.gpus(orin, lambda command: "0, Orin (nvgpu), [N/A], 540.4.0\n")
    assert gpu == device.Gpu(0, "Orin (nvgpu)", "8.7", "540.4.0")


@pytest.mark.parametrize(
    ("line", "gpu"),
    [
        ("[N/A], Orin (nvgpu), [N/A], [N/A]", device.Gpu(0, "Orin (nvgpu)", "8.7")),
        ("N/A, Orin (nvgpu), 8.7, N/A", device.Gpu(0, "Orin (nvgpu)", "8.7")),
        ("[Unknown Error], [Unknown Error], [Unknown Error], 5.6", device.Gpu(0, "Orin (Ampere iGPU)", "8.7", "5.6")),
        ("1, [GPU is lost], [GPU is lost], [GPU is lost]", device.Gpu(1, "Orin (Ampere iGPU)", "8.7")),
        ("ERR!, ERR!, ERR!, ERR!", device.Gpu(0, "Orin (Ampere iGPU)", "8.7")),
        ("0, NVIDIA RTX 6000, Ada, 8.9, 550.54", device.Gpu(0, "NVIDIA RTX 6000, Ada", "8.9", "550.54")),
    ],
)  # fmt: skip
def test_a_value_that_nvidia_smi_does_not_have_is_neither_an_error_nor_a_value(orin: Path, line: str, gpu: device.Gpu):
    assert device.gpus(orin, lambda command: f"{line}\n") == (gpu,)


def test_a_power_mode_missing_from_the_table_is_given_by_number(orin: Path):
    write(orin, {"var/lib/nvpmodel/status": "pmode:0007\n"})
    assert device.power_mode(orin) == "mode 7"


def test_desktop_gpus_come_from_nvidia_smi(tmp_path: Path):
    first, second = device.gpus(tmp_path, lambda command: SMI)
    assert first == device.Gpu(0, "NVIDIA H100 80GB HBM3", "9.0", "570.86.15")
    assert second.compute_capability == "8.9"


def test_a_driver_without_nvidia_smi_is_still_seen(tmp_path: Path):
    write(
        tmp_path,
        {
            "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb\n",
            "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA GeForce RTX 3060\nIRQ: 1\n",
        },
    )
    assert device.gpus(tmp_path, absent) == (device.Gpu(0, "NVIDIA GeForce RTX 3060", None, "550.54.14"),)


def test_a_machine_that_tells_nothing_is_not_an_error(tmp_path: Path):
    info = device.probe(tmp_path, absent)
    assert (info.machine, info.l4t, info.gpus, info.power_mode, info.temperatures_c) == (None, None, (), None, ())
    assert info.cpu == "unknown"
    assert info.memory_available_bytes == 0
    assert info.cpus == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("parent", "own", "expected"),
    [("max 100000", "max 100000", None), ("max 100000", "150000 100000", 1), ("50000 100000", "max 100000", 1)],
)
def test_processors_are_limited_by_every_cgroup_above(tmp_path: Path, parent: str, own: str, expected: int | None):
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/vajra-edge.service\n",
            "sys/fs/cgroup/system.slice/cpu.max": parent,
            "sys/fs/cgroup/system.slice/vajra-edge.service/cpu.max": own,
        },
    )
    assert device.usable_cpus(tmp_path) == (expected or len(os.sched_getaffinity(0)))


def test_processors_are_limited_by_a_version_1_cgroup(tmp_path: Path):
    files = {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}
    assert device.usable_cpus(write(tmp_path, files)) == 1


def test_memory_is_limited_by_the_cgroup(tmp_path: Path):
    write(
        tmp_path,
        {
            "proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n",
            "proc/self/cgroup": "0::/a\n",
            "sys/fs/cgroup/a/memory.max": "1000000000\n",
            "sys/fs/cgroup/a/memory.current": "400000000\n",
        },
    )
    assert device.memory_available_bytes(tmp_path) == 600_000_000


def test_a_package_version_is_read_without_importing_it():
    assert device.package_version("numpy")
    assert device.package_version("no-such-distribution-at-all") is None


def test_this_machine_can_be_looked_at():
    info = device.probe()
    assert info.cpus >= 1
    assert info.memory_bytes > info.memory_available_bytes > 0
    assert info.cpu != "unknown"


def test_a_program_that_fails_or_is_absent_gives_nothing(tmp_path: Path):
    assert device._run(["false"]) is None
    assert device._run(["no-such-program-anywhere"]) is None
    assert device._run(["echo", "yes"]) == "yes\n"


def test_looking_loads_no_heavy_library():
    code = (
        "import sys; from vajra_edge import device; device.probe();"
        "sys.exit(bool({'torch', 'onnx', 'onnxruntime', 'tensorrt', 'cv2', 'cuda'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_instruction_sets_of_an_x86_processor_and_of_another(tmp_path):
    assert device.cpu_flags(tmp_path) == frozenset()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("model name\t: x\nflags\t\t: fpu avx2 avx_vnni\n")
    assert device.cpu_flags(tmp_path) == {"fpu", "avx2", "avx_vnni"}
