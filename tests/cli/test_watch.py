from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from waiting import LIMIT_S

from vajra_edge.cli.watch import Board, Lines, follow, watch
from vajra_edge.config.settings import MqttSettings, load
from vajra_edge.demo.broker import Broker
from vajra_edge.mqtt.events import Received
from vajra_edge.mqtt.messages import (
    CameraStatus,
    EngineTag,
    Number,
    ServiceStatus,
    encode,
    encode_detections,
    encode_gap,
)
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.mqtt.schema import DetectionMessage
from vajra_edge.mqtt.topics import Topics
from vajra_edge.types import Detections, Frame

TAG = EngineTag("0123456789abcdef" * 4, "int8", "dla:0", ("person", "shop"))
SCENE = Detections(np.zeros((3, 4), np.float32), np.ones(3, np.float32), np.array([0, 1, 0], np.int32))


def frame(seq: int = 0) -> Frame:
    return Frame(np.zeros((8, 8, 3), np.uint8), time.monotonic_ns(), datetime.now(timezone.utc), seq, "gate")


def detections_of(device: str, camera: str = "gate") -> Received:
    payload = encode_detections(frame(), SCENE, TAG, device, time.monotonic_ns()).numbered("e", 0)
    return Received(f"vajra/{device}/camera/{camera}/detections", payload)


def drawn(board: Board, trouble: str = "") -> str:
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(board.render(trouble))
    return console.export_text()


@pytest.fixture
def live() -> Iterator[MqttSettings]:
    """A broker with a device that publishes a status and forty messages a second."""
    broker = Broker()
    host, port = broker.open()
    mqtt = MqttSettings(host=host, port=port, protocol=broker.protocol)
    topics = Topics("vajra", "dev")
    publisher = Publisher(mqtt, topics, lambda _event: None)
    publisher.state(topics.status, encode(ServiceStatus("dev", "serving")))
    publisher.start()
    over = threading.Event()

    def stream() -> None:
        seq = 0
        while not over.wait(0.025):
            publisher.detections(frame(seq), SCENE, TAG)
            seq += 1

    thread = threading.Thread(target=stream)
    thread.start()
    yield mqtt
    over.set()
    thread.join()
    publisher.close(1.0)
    broker.close()


def settings(mqtt: MqttSettings) -> Any:
    return load(None, {"device_id": "dev", "weights": {"path": "w.onnx"}, "mqtt": mqtt.model_dump()})


def test_json_prints_detection_messages_exactly_as_received(
    live: MqttSettings, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert watch(settings(live), as_json=True, max_messages=5) == 0
    lines = capsysbinary.readouterr().out.splitlines()
    assert len(lines) == 5
    numbers = [DetectionMessage.model_validate_json(line).seq for line in lines]
    assert numbers == list(range(numbers[0], numbers[0] + 5))


def test_the_live_table_shows_what_arrives(live: MqttSettings, capsys: pytest.CaptureFixture[str]) -> None:
    assert watch(settings(live), as_json=False, max_messages=30) == 0
    shown = capsys.readouterr().out
    assert "gate" in shown
    assert "person 2, shop 1" in shown


def test_another_device_is_watched_on_request(live: MqttSettings) -> None:
    elsewhere, all_devices = io.BytesIO(), io.BytesIO()
    end_s = time.monotonic() + 0.5
    assert follow(live, "other", Lines(elsewhere), is_over=lambda: time.monotonic() > end_s) == 0
    assert follow(live, "+", Lines(all_devices), max_messages=2) == 2
    assert elsewhere.getvalue() == b""


def run_watch(mqtt: MqttSettings, folder: Path) -> subprocess.Popen[bytes]:
    config = folder / "config.toml"
    lines = [
        'device_id = "dev"',
        "[weights]",
        'path = "w.onnx"',
        "[mqtt]",
        f'host = "{mqtt.host}"',
        f"port = {mqtt.port}",
    ]
    config.write_text("\n".join(lines))
    code = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from vajra_edge.cli.watch import watch\n"
        "from vajra_edge.config.settings import load\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored\n"
        "sys.exit(watch(load(Path(sys.argv[1])), as_json=True))"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(config)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_ctrl_c_ends_it_cleanly(live: MqttSettings, tmp_path: Path) -> None:
    with run_watch(live, tmp_path) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=LIMIT_S)
    assert (child.returncode, said) == (0, b"")


def test_a_reader_that_has_enough_ends_it_without_a_traceback(live: MqttSettings, tmp_path: Path) -> None:
    with run_watch(live, tmp_path) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        said = child.stderr.read()
        child.wait(LIMIT_S)
    assert (child.returncode, said) == (0, b"")


def test_an_absent_broker_is_said_once_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    said, end_s = "", time.monotonic() + LIMIT_S

    def is_over() -> bool:
        """Long enough after the first word for a second one."""
        nonlocal said, end_s
        heard = capfd.readouterr().err
        if heard and not said:
            end_s = time.monotonic() + 1.2
        said += heard
        return time.monotonic() > end_s

    follow(MqttSettings(host="127.0.0.1", port=1), "dev", Lines(io.BytesIO()), is_over=is_over)
    assert said.count("\n") == 1
    assert "check that it runs" in said


def test_the_board_counts_classes_and_names_engine_rate_and_age() -> None:
    now_s = [100.0]
    board = Board(lambda: now_s[0])
    for _ in range(11):
        assert board.take(detections_of("dev"))
        now_s[0] += 0.1
    shown = drawn(board)
    assert "person 2, shop 1" in shown
    assert "10.0" in shown
    assert "0123456789ab int8 dla:0" in shown
    now_s[0] += 60.0
    assert " 0.0 " in drawn(board)


def gap(first: int, last: int) -> Received:
    payload = encode_gap(
        Number("dev", "e", "gate", first), last, "died", datetime.now(timezone.utc), clock_synchronised=True
    )
    return Received("vajra/dev/camera/gate/detections", payload)


def test_gap_records_are_shown_and_are_no_messages() -> None:
    board, lines = Board(), Lines(output := io.BytesIO())
    assert [view.take(gap(3, 5)) for view in (board, lines)] == [False, False]
    board.take(gap(9, 9))
    assert "gate misses 4 (died)" in drawn(board)
    assert "0 messages" in drawn(board)
    assert b'"gap":{"from":3,"to":5,"why":"died"}' in output.getvalue()


def test_a_lost_camera_shows_its_reason_even_before_any_message() -> None:
    board = Board()
    board.take(
        Received("vajra/dev/camera/gate/status", encode(CameraStatus("dev", "gate", "lost", "no frame for 10 s")))
    )
    assert "lost no frame for 10 s" in drawn(board)


def test_devices_and_trouble_stand_below_the_table() -> None:
    board = Board()
    board.take(Received("vajra/dev/status", encode(ServiceStatus("dev", "blocked", "no weights"))))
    assert "dev: blocked no weights" in drawn(board)
    assert "no route" in drawn(board, "no route")


@pytest.mark.parametrize(
    "received",
    [
        Received("vajra/dev/status", b"not json"),
        Received("vajra/dev/camera/gate/detections", b"[]"),
        Received("vajra/dev/camera/gate/detections", b'{"device": "dev"}'),
        Received("vajra/dev/status", os.urandom(50)),
    ],
)
def test_what_others_publish_there_is_counted_and_left(received: Received) -> None:
    board = Board()
    assert not board.take(received)
    assert "1 unreadable" in drawn(board)


def test_a_topic_that_was_emptied_is_not_called_unreadable() -> None:
    board = Board()
    board.take(Received("vajra/dev/camera/gate/status", b""))
    assert "unreadable" not in drawn(board)
