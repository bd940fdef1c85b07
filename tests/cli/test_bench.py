from __future__ import annotations

import json
import socket
from contextlib import ExitStack

import pytest
import tiny

from vajra_edge.__main__ import main
from vajra_edge.benchmark import files, run
from vajra_edge.cli import bench, bench_plans
from vajra_edge.config.settings import load
from vajra_edge.plans.spec import NmsSpec

STAGES = ("capture", "waiting", "prepare", "inference", "decode", "publish")


@pytest.fixture
def words(place):
    return ["--seconds", "2", "--weights", str(place.weights), "--source", str(place.pictures), "--threads", "1"]


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    monkeypatch.setattr(run, "TURN_S", 0.2)


@pytest.fixture
def no_network(monkeypatch):
    """Nothing dials: a broker is not needed."""

    def refuse(*arguments):
        raise AssertionError(f"somebody connects to {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def measured(words, capsys):
    assert main(["bench", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_figures_of_a_tiny_network_without_any_broker(words, capsys, no_network):
    figures = measured(words, capsys)
    assert figures["schema"] == 1
    assert set(figures["stages"]) == set(STAGES)
    for stage in (*(figures["stages"][name] for name in STAGES), figures["engine_ms"], figures["latency_ms"]):
        assert stage["n"] > 0
        assert 0 <= stage["p50"] <= stage["max"]
        assert (stage["p99_9"] is None) == (stage["n"] < 1000)
    assert figures["frames_per_s"] == pytest.approx(1e3 / figures["frame_ms"], rel=0.01)
    assert len(figures["turns"]) >= 3
    assert figures["ratio"]["low"] <= figures["ratio"]["median"] <= figures["ratio"]["high"]
    assert figures["setup"]["threads"] == 1
    assert figures["subject"]["target"] == "cpu"
    assert figures["host"]["cpus"] >= 1
    assert figures["messages"]["bytes"] > 100 * figures["messages"]["count"] > 0
    assert figures["use"]["gpu"] is None, "it runs on a CPU"
    assert figures["use"]["peak_rss_bytes"] >= figures["use"]["rss_bytes"] > 0
    assert figures["use"]["capture_cpu_cores"] is not None


def test_what_is_written_can_be_read(words, capsys, tmp_path):
    assert main(["bench", "--json", *words]) == 0
    path = tmp_path / "figures.json"
    path.write_text(capsys.readouterr().out)
    assert files.written(files.read(path)) == path.read_bytes().strip()


def test_frames_of_many_cameras_come_from_memory_in_batches(place, words, capsys):
    place.weights.write_bytes(tiny.network(batch=None))
    figures = measured([*words, "--cameras", "4", "--fps", "20", "--batch", "4"], capsys)
    assert figures["subject"]["batch"] == figures["setup"]["cameras"] == 4
    assert (figures["ratio"], figures["frame_ms"]) == (None, None), "cameras set the pace"
    frames = figures["frames"]
    assert frames["arrived"] >= frames["inferred"] + frames["dropped"] > 0
    assert frames["late_ms"]["n"] == frames["arrived"]
    assert frames["slowest_fps"] <= frames["fastest_fps"]
    assert figures["stages"]["capture"]["n"] == 0, "there is no decoder"
    assert figures["latency_ms"]["n"] == frames["inferred"]


def test_nms_outside_the_engine_is_as_the_settings_say(place):
    settings = load(place.config, {"engine": {"nms_iou": 0.5, "max_det": 9}})
    with bench_plans.of_settings(settings) as made:
        assert made.detector._nms == NmsSpec(iou=0.5, max_det=9)


def test_the_cameras_threshold_and_classes_hold(place):
    settings = load(place.config, {"detect": {"confidence": 0.5, "classes": ["car"]}})
    with bench_plans.of_settings(settings) as made:
        assert (made.filter.confidence, made.filter.class_ids) == (0.5, {1})


def test_the_table_for_a_person(words, capsys):
    assert main(["bench", *words]) == 0
    table = capsys.readouterr().out
    for word in ("bare engine", "ratio", "p99.9", "dropped", "processors", "resident", "fp32 on cpu"):
        assert word in table


def test_without_a_camera_there_is_nothing_to_measure(place, capsys):
    place.config.write_text(place.config.read_text().split("[[cameras]]")[0])
    assert main(["bench", "--config", str(place.config)]) == 1
    assert "no camera to measure with" in capsys.readouterr().err


def test_source_and_weights_go_before_those_of_the_settings(place):
    clip = place.pictures / "0.png"
    place.config.write_text(place.config.read_text().replace("[weights]\n", f'[weights]\nsha256 = "{"0" * 64}"\n'))
    asked = bench.Asked(config=place.config, source=str(clip), weights=place.weights)
    with ExitStack() as stack:
        settings = bench._settings(asked, stack)
    assert settings.cameras[0].source == str(clip)
    assert (settings.cameras[0].id, settings.cameras[0].fps) == ("yard", 50.0), "the rest of the camera stays"
    assert settings.weights.sha256 is None, "that of the settings is of another file"
    assert settings.store.state_dir == place.folder / "state"


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["--fps", "30"], "--fps is of cameras fed from memory; add --cameras"),
        (["--cameras", "0"], "--cameras 0 cannot be; give 1 to 64"),
        (["--cameras", "65"], "--cameras 65 cannot be; give 1 to 64"),
        (["--cameras", "1", "--fps", "0"], "--fps 0 cannot be; give above 0"),
        (["--cameras", "1", "--fps", "nan"], "--fps nan cannot be; give above 0"),
        (["--seconds", "inf"], "--seconds inf cannot be"),
        (["--anyway"], "--anyway is of a comparison; add --compare A B"),
        (["--compare", "a.json", "b.onnx"], "a.json and b.onnx are not of one kind; name two files of figures"),
        (["--compare", "b.onnx", "b.onnx"], "b.onnx does not exist; check the path"),
        (["--compare", "b.gif", "b.gif"], "b.gif is nothing that bench can measure; name a settings file"),
    ],
)
def test_what_cannot_be_is_told_in_one_line_with_the_remedy(typed, told, capsys):
    assert main(["bench", *typed]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert told in lines[-1]


def settings_file(place, name, **engine):
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in engine.items())
    path = place.folder / name
    path.write_text(place.config.read_text() + f"[engine]\n{lines}")
    return path


def test_two_settings_files_take_turns_on_the_first_ones_camera(place, capsys, monkeypatch):
    monkeypatch.setattr(run, "TURN_S", 0.05)
    a, b = settings_file(place, "a.toml"), settings_file(place, "b.toml", max_det=20)
    assert main(["bench", "--json", "--seconds", "2", "--compare", str(a), str(b)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["by_turns"] is True
    assert told["differences"] == []
    assert [plan.partition(":")[0] for plan in told["plans"]] == ["fingerprint"]
    assert len(told["a"]["turns"]) == len(told["b"]["turns"]) >= 6
    assert told["figures"][0]["low"] <= told["figures"][0]["percent"] <= told["figures"][0]["high"]
    assert told["a"]["setup"]["source"] == "pictures"
    assert "than A" in told["verdict"] or "no difference" in told["verdict"]


def test_a_stored_plan_is_named_by_its_fingerprint_and_compared_with_weights(place, capsys, monkeypatch):
    monkeypatch.setattr(run, "TURN_S", 0.05)
    with bench_plans.of_settings(load(place.config)) as made:
        fingerprint = made.subject.fingerprint
    words = ["bench", "--seconds", "2", "--config", str(place.config), "--compare", fingerprint[:10]]
    assert main([*words, str(place.weights)]) == 0
    out = capsys.readouterr().out
    assert "A: " + fingerprint[:10] in out
    assert "compared:" not in out, "they are one plan"
    assert main([*words, "0123456789"]) == 1
    assert "0 plans of" in capsys.readouterr().err


def test_other_threads_are_another_setup_which_is_named(place, capsys, monkeypatch):
    monkeypatch.setattr(run, "TURN_S", 0.05)
    a, b = settings_file(place, "a.toml"), settings_file(place, "b.toml")
    b.write_text(b.read_text().replace("threads = 1", "threads = 2"))
    assert main(["bench", "--seconds", "2", "--compare", str(a), str(b)]) == 1
    assert "threads: 1 and 2; measure both alike, or add --anyway" in capsys.readouterr().err


def test_an_engine_file_that_nothing_can_open_is_told_in_one_line(place, capsys):
    path = place.folder / "net.engine"
    path.write_bytes(b"no engine")
    assert main(["bench", "--seconds", "2", "--compare", str(path), str(place.weights)]) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert "net.engine" in told[-1]
