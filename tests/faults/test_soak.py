"""Minutes of two RTSP cameras whose server is killed twice; test_rtsp.py and test_daemon_deaths.py show its parts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ports import free_port
from system import rtsp_server

SOAK = Path(__file__).parents[1] / "bench" / "soak.py"
MINUTES = 4
GROWTH_MIB = 64.0
"""Of the daemon from its second minute to its last: allocators settle; a leaked frame a second would be 300."""


@pytest.mark.long(f"takes {MINUTES} minutes; test_rtsp.py and test_daemon_deaths.py show its parts always")
@pytest.mark.timeout(60 * MINUTES + 240)
@pytest.mark.skipif(not rtsp_server.is_installed(), reason="absent here: the RTSP server's packages")
@pytest.mark.skipif(
    not (shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")), reason="absent here: mosquitto"
)
def test_both_cameras_come_back_each_time_nothing_is_published_of_a_lost_one_and_memory_stays():
    command = [sys.executable, str(SOAK), "--minutes", str(MINUTES), "--rtsp-port", str(free_port())]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = json.loads(ended.stdout)
    for camera, states in seen["states"].items():
        names = [state for _, state, _ in states]
        assert names.count("streaming") == 3, (camera, states)
        assert names[-1] == "streaming"
        assert seen["messages"][camera] > 0
    assert seen["empty_while_lost"] == 0
    assert len(seen["fingerprints"]) == 1
    assert seen["rss_mib"][-1] - seen["rss_mib"][1] < GROWTH_MIB
