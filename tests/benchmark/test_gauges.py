"""GPUs as they come; a Jetson's files by the names that people with the boards list in public."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from vajra_edge.benchmark import gauges, nvml, tegra
from vajra_edge.benchmark.gauges import gauge_of
from vajra_edge.benchmark.gpu_reading import GpuReading

ORIN_36 = {
    # Jetson Linux 36: the device is 17000000.gpu (nvgpu registers its dev_name)
    "sys/class/devfreq/17000000.gpu/cur_freq": "624750000\n",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "624750000\n",
    "sys/class/devfreq/17000000.gpu/device/of_node/name": "gpu\0",
    "sys/class/devfreq/17000000.gpu/device/load": "987\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "51250\n",
}
ORIN_35 = {
    # /sys/devices/17000000.ga10b/devfreq/17000000.ga10b, load at platform/gpu.0 alone: autoware_universe#11326
    "sys/class/devfreq/17000000.ga10b/cur_freq": "1020750000\n",
    "sys/class/devfreq/17000000.ga10b/min_freq": "1020750000\n",
    "sys/class/devfreq/17000000.ga10b/max_freq": "1020750000\n",
    "sys/devices/platform/gpu.0/load": "0\n",
}
NANO = {
    # /sys/devices/57000000.gpu/devfreq/57000000.gpu/max_freq; gpu.0/load 150 is 15.0 %: MangoHud#864
    "sys/class/devfreq/57000000.gpu/cur_freq": "921600000\n",
    "sys/devices/gpu.0/load": "150\n",
    "sys/class/thermal/thermal_zone2/type": "GPU-therm\n",
    "sys/class/thermal/thermal_zone2/temp": "unreadable\n",
}
THOR = {
    # JetPack 7.2: gpu-gpc-0 without of_node/name and without a load: jetson_stats#886
    "sys/class/devfreq/gpu-gpc-0/cur_freq": "1575000000\n",
    "sys/class/devfreq/gpu-nvd-0/cur_freq": "1000000000\n",
}
DESKTOP = {"sys/class/devfreq/0000:03:00.0/cur_freq": "1\n"}


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (ORIN_36, GpuReading(98.7, 624.75, 624.75, 306.0, temperature_c=51.25)),
        (ORIN_35, GpuReading(0.0, 1020.75, 1020.75, 1020.75)),
        (NANO, GpuReading(15.0, 921.6)),
        (THOR, GpuReading(None, 1575.0)),
    ],
    ids=["Orin, Jetson Linux 36", "Orin, Jetson Linux 35", "Nano", "Thor"],
)
def test_a_jetsons_gpu_is_read_from_its_files(tmp_path: Path, files, told):
    gauge = tegra.opened(tree(tmp_path, files))
    assert gauge is not None
    assert gauge.read() == told


def test_a_load_that_cannot_be_read_is_null_and_not_zero(tmp_path: Path):
    root = tree(tmp_path, ORIN_36)
    gauge = tegra.opened(root)
    (root / "sys/class/devfreq/17000000.gpu/device/load").unlink()
    assert gauge.read().load_percent is None
    assert gauge.read().clock_mhz == 624.75


@pytest.mark.parametrize("files", [DESKTOP, {}])
def test_another_device_that_scales_its_clock_is_no_jetsons_gpu(tmp_path: Path, files):
    assert tegra.opened(tree(tmp_path, files)) is None


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("absent here: a C compiler")
    path = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("nvml_fake.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Wextra", "-o", str(path), str(source)], check=True)
    return str(path)


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in ("FAKE_NVML_LACKS", "FAKE_NVML_NAME", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def test_a_card_is_read_through_nvml(library):
    gauge = nvml.opened("0", "NVIDIA L4", library)
    assert gauge.read() == GpuReading(
        load_percent=93.0,
        clock_mhz=1950.0,
        max_clock_mhz=2040.0,
        memory_used_bytes=4 << 30,
        power_w=61.5,
        power_limit_w=72.0,
        temperature_c=71.0,
        throttled=("power limit", "too hot (driver)"),
        driver="570.86.15",
    )
    gauge.close()
    gauge.close()
    assert gauge.read() == GpuReading()
    assert ctypes.CDLL(library).fake_running() == 0


def test_what_nvml_does_not_support_is_null(library, monkeypatch):
    """As on an Orin with JetPack 7, where tools that take the failure for 0 show an idle GPU: jetson_stats#889."""
    monkeypatch.setenv("FAKE_NVML_LACKS", "load memory power throttle")
    monkeypatch.setenv("FAKE_NVML_NAME", "Orin (nvgpu)")
    gauge = nvml.opened("0", "Orin", library)
    told = gauge.read()
    assert (told.load_percent, told.memory_used_bytes, told.power_w, told.throttled) == (None, None, None, None)
    assert told.clock_mhz == 1950.0
    gauge.close()


def test_both_tell_what_the_other_lacks(library, monkeypatch, tmp_path: Path):
    gauge = gauge_of(0, "NVIDIA L4", tree(tmp_path, THOR), lambda named, name: nvml.opened(named, name, library))
    told = gauge.read()
    assert (told.clock_mhz, told.load_percent) == (1575.0, 93.0)
    gauge.close()
    assert ctypes.CDLL(library).fake_running() == 0


@pytest.mark.parametrize(("named", "name"), [("3", "NVIDIA L4"), ("GPU-2", "NVIDIA L4"), ("0", "NVIDIA H100")])
def test_a_card_that_is_not_there_or_is_another_is_not_believed(library, named, name):
    assert nvml.opened(named, name, library) is None
    assert ctypes.CDLL(library).fake_running() == 0


def test_without_nvml_nothing_is_told_and_nothing_fails(library, monkeypatch, tmp_path: Path):
    assert nvml.opened("0", "NVIDIA L4", str(tmp_path / "absent.so")) is None
    monkeypatch.setenv("FAKE_NVML_LACKS", "init")
    assert nvml.opened("0", "NVIDIA L4", library) is None
    gauge = gauge_of(0, "NVIDIA L4", tmp_path, lambda named, name: None)
    assert gauge.read() == GpuReading()
    gauge.close()


@pytest.mark.parametrize(
    ("visible", "index", "named"),
    [
        ("", 0, "0"),
        ("", 1, "1"),
        ("2,3", 1, "3"),
        ("GPU-00000000-1111", 0, "GPU-00000000-1111"),
        ("5", 1, "1"),
    ],
)
def test_nvml_is_asked_for_the_card_that_cuda_means(monkeypatch, visible, index, named):
    """NVML knows nothing of that variable: tools that take its number show another card's figures."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    asked = []
    gauge_of(index, "NVIDIA L4", Path("/nowhere"), lambda *one: asked.append(one))
    assert asked == [(named, "NVIDIA L4")]
    assert gauges.NoGauge().read() == GpuReading()
