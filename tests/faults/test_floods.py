"""Whole floods against a whole daemon: it is pinged, it publishes, and it keeps its size."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FLOODS = Path(__file__).resolve().parents[1] / "bench" / "floods.py"


@pytest.mark.long("a minute and a half: four floods of ten seconds, and the quiet after each")
def test_floods_starve_neither_the_watchdog_nor_the_frames() -> None:
    if shutil.which("mosquitto", path="/usr/bin:/usr/sbin") is None:
        pytest.skip("absent here: mosquitto")
    done = subprocess.run([sys.executable, str(FLOODS), "--seconds", "10"], capture_output=True, check=True)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    floods = {one["flood"]: one for one in told if "flood" in one}
    assert [one["exit"] for one in told if "exit" in one] == [0, 0]
    assert set(floods) == {"mqtt", "connections", "readers", "mutes", "large"}
    for name, flood in floods.items():
        before, most, _ = flood["rss_mib"]
        assert flood["ping_gap_s"] < 30.0, name
        assert flood["frame_gap_s"] < 30.0, name
        assert most < before + 50, name
        assert flood["descriptors"][1] <= flood["descriptors"][0] + 40, name
    assert floods["mqtt"]["requests"] > 10 * floods["mqtt"]["answers"]
    assert floods["large"]["connections"] == 2
