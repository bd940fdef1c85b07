from __future__ import annotations

import errno
import json
import os
from datetime import datetime, timedelta, timezone

import pytest
import tiny

from vajra_edge.__main__ import main
from vajra_edge.quantization import camera_samples
from vajra_edge.quantization.camera_samples import Sampler
from vajra_edge.types import Frame

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


@pytest.fixture
def folder(place):
    """Of the place's calibration images; INT8 is wanted."""
    text = place.config.read_text(encoding="utf-8")
    place.config.write_text(f'{text}[engine]\nprecision = "int8"\n', encoding="utf-8")
    return place.folder / "state" / camera_samples.FOLDER


def collect(folder, count=4):
    images = Sampler(folder, most=512)
    for seed in range(count):
        taken_at = NOON + timedelta(minutes=seed)
        images.offer(Frame(tiny.scene(seed=seed).image, 0, taken_at, seed, "gate"), 6)
    return images


def told(place, capsys, *words):
    code = main(["calibration", "--config", str(place.config), "--json", *words])
    return code, json.loads(capsys.readouterr().out)


def spoken(place, capsys, *words):
    assert main(["calibration", "--config", str(place.config), *words]) == 0
    return capsys.readouterr().out


def test_before_the_first_picture(place, folder, capsys):
    code, said = told(place, capsys)
    assert (code, said["images"], said["bytes"], said["since"], said["collecting"]) == (0, 0, 0, None, True)
    assert said["folder"] == str(folder)


def test_what_is_kept_and_what_is_awaited(place, folder, capsys):
    collect(folder)
    code, said = told(place, capsys)
    assert (code, said["images"], said["most"], said["boxes"], said["frozen"]) == (0, 4, 512, 24, False)
    assert said["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert said["since"] == "2026-11-23T12:00:00Z"
    assert said["lacking"][0] == "64 images"
    assert "4 images, 0.0 MB, 24 boxes, since 2026-11-23 12:00 UTC" in (words := spoken(place, capsys))
    assert "collecting up to 512; waits for 64 images and " in words


def test_a_picture_that_the_daemon_replaces_meanwhile_does_no_harm(place, folder, capsys):
    collect(folder)
    (folder / "gone.jpg").symlink_to(folder / "nowhere")
    assert told(place, capsys)[0] == 0


def test_a_frozen_set_is_in_use_until_too_little_is_left_of_it(place, folder, capsys):
    collect(folder).freeze()
    assert told(place, capsys)[1]["frozen"]
    assert "frozen: INT8 is calibrated with them" in spoken(place, capsys)
    for one in camera_samples.listed(folder)[:3]:
        (folder / one.name).unlink()
    code, said = told(place, capsys)
    assert code == 1
    assert "1 of the 4 calibration images" in said["trouble"]


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ("[calibration]\ncameras = false", "[calibration] cameras = false"),
        ('[calibration]\ndata = "/x"', "[calibration] data = /x is used"),
        ('[engine]\nprecision = "fp16"', "[engine] precision = fp16 needs none"),
    ],
)
def test_why_nothing_is_collected(place, capsys, section, why):
    int8 = "" if "engine" in section else '[engine]\nprecision = "int8"\n'
    place.config.write_text(f"{place.config.read_text(encoding='utf-8')}{int8}{section}\n", encoding="utf-8")
    assert f"not collecting: {why}" in spoken(place, capsys)
    assert not told(place, capsys)[1]["collecting"]


@pytest.mark.parametrize("frozen", [False, True])
def test_deleting_leaves_nothing_and_collecting_begins_anew(place, folder, capsys, frozen):
    images = collect(folder)
    if frozen:
        images.freeze()
    code, said = told(place, capsys, "--delete")
    assert (code, said["deleted"], said["images"]) == (0, True, 4)
    assert list(folder.parent.iterdir()) == []
    assert spoken(place, capsys, "--delete").startswith("deleted 0 images")
    assert images.offer(Frame(tiny.scene(seed=1).image, 0, NOON, 1, "gate"), 6) is camera_samples.Look.KEPT


def test_a_deletion_that_was_cut_short_is_finished_by_the_next(place, folder, capsys):
    rest = folder.with_name("cameras.deleted-0123")
    collect(rest)
    spoken(place, capsys, "--delete")
    assert not rest.exists()


def test_a_damaged_list_is_named_and_deleting_is_the_way_out(place, folder, capsys):
    collect(folder)
    (folder / camera_samples.FROZEN).write_text("{")
    code, said = told(place, capsys)
    assert code == 1
    assert "vajra-edge calibration --delete" in said["trouble"]
    assert told(place, capsys, "--delete")[0] == 0
    assert told(place, capsys)[0] == 0


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.EACCES, "Permission denied ({folder}); type sudo before the command"),
        (errno.EIO, "Input/output error ({folder}); check that disk"),
    ],
)
def test_somebody_elses_folder_asks_for_sudo_and_a_bad_disk_does_not(place, folder, capsys, monkeypatch, code, said):
    def refuse(path):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(type(folder), "iterdir", refuse)
    assert main(["calibration", "--config", str(place.config)]) == 1
    assert said.format(folder=folder) in capsys.readouterr().err
