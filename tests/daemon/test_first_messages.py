"""What a kill takes of a camera before its first message is on disk: the next start announces it."""

from __future__ import annotations

import shutil
from pathlib import Path

from station import Station
from waiting import wait_for

from vajra_edge.errors import PublishError
from vajra_edge.mqtt.gaps import Gap
from vajra_edge.mqtt.outbox_file import BLOCK, OutboxFile
from vajra_edge.plans.store import OUTBOX


def after_a_kill(station: Station, copy: Path) -> dict[str, Gap]:
    """The gap of each camera that a start finds in the files as they are now."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(station.state_dir / OUTBOX, copy)
    file = OutboxFile(copy, "test")
    try:
        return {gap.camera: gap for gap in file.open().fresh_gaps}
    except PublishError:  # it was written to while it was copied
        return {}
    finally:
        file.close(tidy=False)


def test_a_camera_of_which_nothing_is_on_disk_yet_has_a_gap_and_one_that_is_off_has_none(rebooted: Station, tmp_path):
    rebooted.camera("yard", source="rtsp://127.0.0.1:9/no-camera", loop=False)
    rebooted.camera("shed", enabled=False)
    rebooted.start()
    wait_for((rebooted.state_dir / OUTBOX / "outbox.sqlite").exists)
    gaps = wait_for(lambda: (found := after_a_kill(rebooted, tmp_path / "copy")) and "yard" in found and found)
    assert (gaps["yard"].first, gaps["yard"].last, gaps["yard"].why) == (0, BLOCK - 1, "died")
    assert set(gaps) == {"yard", "gate"}
    rebooted.camera("shed", enabled=True)
    rebooted.write()
    wait_for(lambda: "shed" in after_a_kill(rebooted, tmp_path / "copy"))
    rebooted.stop()
    assert after_a_kill(rebooted, tmp_path / "copy") == {}, "after an end in order nothing is missing"
