"""What the fork server makes of what it is told."""

from __future__ import annotations

from pathlib import Path

from vajra_edge.capture.fork_server import settings_of
from vajra_edge.capture.protocol import Spawn
from vajra_edge.config.settings import CameraSettings


def test_settings_arrive_as_they_were_sent_whatever_is_set(tmp_path: Path) -> None:
    camera = CameraSettings.model_validate(
        {
            "id": "gate", "source": "rtsp://cam/1", "credentials_file": str(tmp_path / "secret"),
            "rtsp_transport": "udp",
            "tls_verify": False, "realtime": False, "loop": True, "fps": 5.0, "width_px": 640, "height_px": 480,
            "freeze_s": 3.0, "confidence": 0.5, "classes": ["person", "car"], "snapshot_every_s": 60.0,
        }
    )  # fmt: skip
    unset = [name for name, value in camera.model_dump().items() if value is None]
    assert unset == []
    assert settings_of(Spawn(1, camera.model_dump_json())) == camera
