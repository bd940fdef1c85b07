"""What doctor finds closed of a board, with the line that opens it."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from vajra_edge.cli import board
from vajra_edge.config.settings import CameraSettings


@pytest.fixture
def refusing(monkeypatch):
    """An open that answers with an errno for names of the test's."""

    def refuse(code: int) -> None:
        real = os.open

        def opened(path, *more, **named):
            if path in {"/dev/null", "/dev/zero", "/dev/full"}:
                raise OSError(code, os.strerror(code), path)
            return real(path, *more, **named)

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
