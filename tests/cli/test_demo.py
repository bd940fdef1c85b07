"""The demo is ``run`` and ``watch``, and nothing else."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

from waiting import LIMIT_S, is_alive, wait_for

import vajra_edge.cli.demo
import vajra_edge.demo.settings


def imported(module):
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name and name.startswith("vajra_edge")}


def test_it_has_no_frame_engine_or_message_path_of_its_own():
    assert imported(vajra_edge.cli.demo) == {
        "vajra_edge.capture.sources.registry",  # to refuse a source that is not there before anything starts
        "vajra_edge.cli.watch",
        "vajra_edge.demo.broker",
        "vajra_edge.demo.settings",
        "vajra_edge.errors",
        "vajra_edge.config.settings",
    }
    assert imported(vajra_edge.demo.settings) == {"vajra_edge.demo.broker"}


def demo(place, *words):
    command = [sys.executable, "-m", "vajra_edge", "demo", "--weights", str(place.weights), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def test_it_prints_each_message_as_received_and_ends_by_itself(place):
    done = demo(place, "--source", str(place.pictures), "--max-frames", "8", "--json")
    assert done.returncode == 0, done.stderr
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    assert [message["seq"] for message in messages] == list(range(8))
    assert {message["camera"] for message in messages} == {"demo"}
    assert all(len(message["detections"]) == 6 for message in messages)
    assert {row["class"] for message in messages for row in message["detections"]} == {"person", "car"}


def test_the_live_view_ends_by_itself_too(place):
    done = demo(place, "--source", str(place.pictures), "--max-frames", "3")
    assert done.returncode == 0, done.stderr
    assert "person" in done.stdout


def test_a_source_that_is_not_there_says_so(place):
    done = demo(place, "--source", str(place.folder / "none.mp4"), "--max-frames", "3", "--json")
    assert done.returncode == 1
    assert done.stderr.startswith("vajra-edge: ")
    assert "none.mp4" in done.stderr
    assert done.stdout == ""


def test_the_daemon_ends_with_the_demo(place):
    command = [sys.executable, "-m", "vajra_edge", "demo", "--weights", str(place.weights), "--json"]
    with subprocess.Popen([*command, "--source", str(place.pictures)], stdout=subprocess.PIPE) as shown:
        first = json.loads(shown.stdout.readline())
        children = children_of(shown.pid)
        shown.kill()
    assert first["seq"] == 0
    assert len(children) == 2  # the daemon and the broker
    wait_for(lambda: not any(is_alive(child) for child in children))


def children_of(parent):
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
