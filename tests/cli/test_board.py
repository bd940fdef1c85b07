"""What doctor finds closed of a board, with the line that opens it."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import boards
import pytest

from vajra_edge.cli import board
from vajra_edge.config.settings import CameraSettings


@pytest.fixture
def refusing(monkeypatch):
    """An open that answers with an errno for names of the test's."""

    def refuse(code: int, *, reading: bool = True, of: str = "/dev/null") -> None:
        real = os.open

        def opened(path, flags, *more, **named):
            if path == of and (reading or flags & os.O_ACCMODE != os.O_RDONLY):
                raise OSError(code, os.strerror(code), path)
            return real(path, flags, *more, **named)

        monkeypatch.setattr(os, "open", opened)

    return refuse


def test_open_devices_are_counted_and_none_are_not_spoken_of():
    assert [one.found for one in board.gpu_devices(["/dev/null", "/dev/zer*"])] == [
        "2 device files of the GPU can be opened"
    ]
    assert list(board.gpu_devices(["/dev/nosuch*"])) == []


def test_a_device_that_the_policy_closes_is_named_with_the_line_of_the_unit(refusing):
    refusing(errno.EPERM)
    [found] = board.gpu_devices(["/dev/null"])
    assert found.name == "gpu device /dev/null"
    assert found.remedy == "add DeviceAllow=char-mem rw to it"


def test_a_device_whose_mode_keeps_the_user_out_is_named_with_its_group(refusing):
    refusing(errno.EACCES)
    [found] = board.gpu_devices(["/dev/null"])
    assert found.remedy == "add the service's user to the group root"


def device_file(folder: Path, mode: int) -> str:
    path = folder / "nvmap"
    path.touch()
    path.chmod(mode)
    return str(path)


def test_a_device_that_is_only_ever_read_is_open_where_its_mode_lets_this_user_read_it(refusing, monkeypatch, tmp_path):
    """As /dev/nvmap is on a Thor: ``cr--r----- root video``."""
    path = device_file(tmp_path, 0o440)
    monkeypatch.setattr(board, "READ_ONLY", (path,))
    refusing(errno.EACCES, reading=False, of=path)
    assert [one.remedy for one in board.gpu_devices([path])] == [""]


def test_a_device_that_is_only_ever_read_and_cannot_be_is_named_with_its_group(refusing, monkeypatch, tmp_path):
    path = device_file(tmp_path, 0o440)
    monkeypatch.setattr(board, "READ_ONLY", (path,))
    refusing(errno.EACCES, of=path)
    assert [one.remedy for one in board.gpu_devices([path])] == ["add the service's user to the group root"]


@pytest.mark.parametrize("mode", [0o440, 0o600, 0o640])
def test_a_device_whose_mode_keeps_its_group_out_asks_for_a_rule_and_not_for_the_group(refusing, mode, tmp_path):
    path = device_file(tmp_path, mode)
    refusing(errno.EACCES, reading=False, of=path)
    [found] = board.gpu_devices([path])
    assert found.remedy == f'add a udev rule: ENV{{DEVNAME}}=="{path}", GROUP="video", MODE="0660"'


def machine(root: Path, system_on_chip: str, nodes: str) -> Path:
    """The root of a machine with this in its device tree, and these device files."""
    tree = root / "proc/device-tree/compatible"
    tree.parent.mkdir(parents=True)
    tree.write_text(f"nvidia,p3768-0000+p3767-0005-super\0{system_on_chip}\0")
    for name in nodes.split():
        node = root / "dev" / name
        node.parent.mkdir(parents=True, exist_ok=True)
        node.touch()
    return root


def test_a_jetson_whose_gpu_has_no_device_is_told_where_to_look(tmp_path):
    root = machine(tmp_path, "nvidia,tegra234", boards.GPU_FAILED)
    found = board.no_gpu(root)
    assert found is not None
    assert found.found == "the kernel's GPU driver made no device"
    assert 'dmesg | grep -E "nvgpu|NVRM"' in found.remedy
    assert "/etc/firmware" in found.remedy


@pytest.mark.parametrize("nodes", boards.GPU_WORKS.values(), ids=list(boards.GPU_WORKS))
def test_a_jetson_whose_gpu_has_its_devices_is_not_spoken_of(nodes, tmp_path):
    assert board.no_gpu(machine(tmp_path, "nvidia,tegra264", nodes)) is None


def test_a_machine_that_is_no_jetson_needs_no_gpu(tmp_path):
    assert board.no_gpu(machine(tmp_path, "raspberrypi,5-model-b", "null")) is None


def test_a_busy_device_is_its_drivers_matter(refusing):
    refusing(errno.EBUSY)
    assert [one.remedy for one in board.gpu_devices(["/dev/null"])] == [""]


def test_a_csi_camera_without_the_way_to_argus_is_named(monkeypatch, tmp_path):
    camera = CameraSettings(id="gate", source="csi:0")
    monkeypatch.setattr(board, "ARGUS_SOCKET", tmp_path / "argus")
    inside, outside = (board.camera(camera, inside=inside) for inside in (True, False))
    assert inside is not None
    assert "drop-in for CSI" in inside.remedy
    assert outside is not None
    assert outside.remedy == "systemctl start nvargus-daemon"
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(str(tmp_path / "argus"))
        assert board.camera(camera, inside=True) is None


def test_a_pipeline_in_a_sandbox_without_orcs_switch_is_named(monkeypatch):
    camera = CameraSettings(id="gate", source="gst:videotestsrc ! appsink")
    monkeypatch.delenv("ORC_CODE", raising=False)
    found = board.camera(camera, inside=True)
    assert found is not None
    assert found.remedy == "add Environment=ORC_CODE=backup to the unit"
    assert board.camera(camera, inside=False) is None
    monkeypatch.setenv("ORC_CODE", "backup")
    assert board.camera(camera, inside=True) is None
    assert board.camera(CameraSettings(id="gate", source=str(Path("/dev/video0"))), inside=True) is None
