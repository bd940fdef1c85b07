from __future__ import annotations

from pathlib import Path

import pytest

from vajra_edge.config.settings import Settings, load
from vajra_edge.mqtt.topics import Topics, camera_of, device_id, events_of, topic_of, topics_of


def settings(**more: object) -> Settings:
    return load(None, {"weights": {"path": "w.onnx"}, **more})


def test_the_table_says_where_each_message_goes_and_how() -> None:
    topics = Topics("site/vajra", "dev", detections_qos=0)
    rows = [
        topics.status,
        topics.engine,
        topics.camera_status("gate"),
        topics.detections("gate"),
        topics.events("gate"),
        topics.places("gate"),
        topics.totals("gate"),
        topics.snapshot("gate"),
        topics.request("rebuild"),
        topics.response("rebuild"),
    ]
    assert [(topics.path(row), row.qos, row.retain) for row in rows] == [
        ("site/vajra/dev/status", 1, True),
        ("site/vajra/dev/engine", 1, True),
        ("site/vajra/dev/camera/gate/status", 1, True),
        ("site/vajra/dev/camera/gate/detections", 0, False),
        ("site/vajra/dev/camera/gate/events", 0, False),
        ("site/vajra/dev/camera/gate/places", 1, True),
        ("site/vajra/dev/camera/gate/totals", 1, True),
        ("site/vajra/dev/camera/gate/snapshot", 0, False),
        ("site/vajra/dev/request/rebuild", 1, False),
        ("site/vajra/dev/response/rebuild", 1, False),
    ]


def test_root_device_and_quality_come_from_the_settings() -> None:
    made = topics_of(settings(device_id="pole-7", mqtt={"root": "city", "qos": 0}))
    assert made == Topics("city", "pole-7", 0)


def test_the_machine_id_never_shows_in_the_device_id(tmp_path: Path) -> None:
    raw = "0123456789abcdef0123456789abcdef"
    file = tmp_path / "machine-id"
    file.write_text(raw + "\n")
    made = device_id(settings(), file)
    assert len(made) == 12
    assert made not in raw
    assert made == device_id(settings(), file)
    file.write_text(raw[::-1])
    assert made != device_id(settings(), file)


@pytest.mark.parametrize("content", [None, "", "\n", "uninitialized\n", "0" * 32 + "\n"])
def test_without_a_machine_id_of_its_own_the_host_name_tells_devices_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    file = tmp_path / "machine-id"
    if content is not None:
        file.write_text(content)
    made = []
    for host in ("pole-1", "pole-2"):
        monkeypatch.setattr("socket.gethostname", lambda name=host: name)
        made.append(device_id(settings(), file))
    assert [len(one) for one in made] == [12, 12]
    assert made[0] != made[1]


def test_a_stream_of_the_outbox_is_a_cameras_detections_or_its_events() -> None:
    topics = Topics("vajra", "dev")
    assert topic_of("gate", topics) == topics.detections("gate")
    assert topic_of(events_of("gate"), topics) == topics.events("gate")
    assert camera_of(events_of("gate")) == camera_of("gate") == "gate"
