from __future__ import annotations

import json
import socket
import ssl
from types import SimpleNamespace

import pytest
from certificates import make_certificates
from little_servers import listening

from vajra_edge import device
from vajra_edge.__main__ import main
from vajra_edge.backends.cuda import CudaUnavailable
from vajra_edge.capture.sources import appsink
from vajra_edge.cli import doctor as verb
from vajra_edge.cli import sandbox
from vajra_edge.config.settings import CameraSettings
from vajra_edge.plans.spec import EngineSpec, Target


def report(place, capsys):
    code = main(["doctor", "--config", str(place.config), "--json"])
    return code, {check["name"]: check for check in json.loads(capsys.readouterr().out)}


@pytest.fixture
def answering_port(place):
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = place.config.read_text().replace("port = 9\n", f"port = {server.getsockname()[1]}\n")
        place.config.write_text(text)
        yield


@pytest.mark.usefixtures("answering_port")
def test_all_is_well(place, capsys):
    code, checks = report(place, capsys)
    assert code == 0
    assert checks["backend"]["found"].startswith("onnxruntime: no NVIDIA GPU is seen")
    assert checks["camera yard"]["found"] == "delivers 256 x 256"
    assert checks["store"]["verdict"] == "ok"
    assert "numpy" in checks["versions"]["found"]


def test_a_broker_that_is_not_there_fails_with_the_remedy(place, capsys):
    code, checks = report(place, capsys)
    assert code == 1
    assert checks["broker"]["verdict"] == "fail"
    assert "127.0.0.1:9" in checks["broker"]["found"]
    assert "[mqtt] host" in checks["broker"]["remedy"]


def test_each_fault_is_found_in_one_go(place, capsys):
    place.weights.unlink()
    for picture in place.pictures.iterdir():
        picture.unlink()
    code, checks = report(place, capsys)
    assert code == 1
    failed = {name for name, check in checks.items() if check["verdict"] == "fail"}
    assert failed == {"weights", "broker", "camera yard"}


def test_a_wrong_settings_file_is_a_failed_check(place, capsys):
    place.config.write_text("[weights]\n")
    code, checks = report(place, capsys)
    assert code == 1
    assert "weights.path is missing" in checks["settings"]["found"]


def test_the_table_and_quiet(place, capsys):
    assert main(["doctor", "--config", str(place.config)]) == 1
    assert "127.0.0.1:9" in capsys.readouterr().out
    assert main(["doctor", "--config", str(place.config), "--quiet"]) == 1
    assert capsys.readouterr().out == ""


def test_a_password_in_a_camera_url_is_not_shown(place, capsys):
    text = place.config.read_text().replace(
        f'"{place.pictures}"', '"rtsp://u:hunter2@127.0.0.1:9/x"\nopen_timeout_s = 1.0'
    )
    place.config.write_text(text)
    main(["doctor", "--config", str(place.config), "--json"])
    assert "hunter2" not in capsys.readouterr().out


def test_files_that_settings_name_are_looked_at_and_never_quoted(place, capsys):
    (place.folder / "mqtt").write_text("hunter2")
    (place.folder / "cert").write_text("hunter2")
    (place.folder / "empty").touch()
    (place.folder / "gate").write_text("hunter2")
    broker = f"""[mqtt]
ca_file = "{place.folder / "gone"}"
cert_file = "{place.folder / "cert"}"
password_file = "{place.folder / "mqtt"}"
"""
    cameras = f"""[[cameras]]
id = "gate"
source = "rtsp://u:hunter2@127.0.0.1:9/x"
enabled = false
credentials_file = "{place.folder / "gate"}"
[[cameras]]
id = "pole"
source = "rtsp://127.0.0.1:9/x"
enabled = false
credentials_file = "{place.folder / "empty"}"
"""
    place.config.write_text(place.config.read_text().replace("[mqtt]\n", broker) + cameras)
    main(["doctor", "--config", str(place.config), "--json"])
    said = capsys.readouterr().out
    checks = {(check["name"], check["verdict"]): check["found"] for check in json.loads(said)}
    assert "hunter2" not in said
    assert "gone cannot be read" in checks["mqtt.ca_file", "fail"]
    assert "tls is off" in checks["mqtt.cert_file", "note"]
    assert "without a username" in checks["mqtt.password_file", "note"]
    assert "no user before a colon" in checks["camera gate credentials", "fail"]
    assert "stands in the settings file" in checks["camera gate credentials", "note"]
    assert "empty is empty" in checks["camera pole credentials", "fail"]


def test_it_says_that_it_looks_from_outside(place, capsys, monkeypatch):
    monkeypatch.setattr(sandbox.os, "geteuid", lambda: 1000)
    _, checks = report(place, capsys)
    assert checks["view"]["verdict"] == "note"
    assert "from outside the service's sandbox: only root can enter it" in checks["view"]["found"]


def test_it_says_what_was_seen_from_inside(place, capsys, monkeypatch):
    seen = b'[{"name":"weights","verdict":"fail","found":"hidden","remedy":"move it"}]'
    monkeypatch.setattr(sandbox, "run", lambda _: seen)
    code, checks = report(place, capsys)
    assert code == 1
    assert checks["view"]["verdict"] == "ok"
    assert checks["weights"]["found"] == "hidden"


def test_what_is_no_report_of_ours_is_not_taken_for_one(place, capsys, monkeypatch):
    monkeypatch.setattr(sandbox, "run", lambda _: b"Traceback")
    _, checks = report(place, capsys)
    assert checks["view"]["verdict"] == "note"
    assert "machine" in checks


@pytest.mark.usefixtures("answering_port")
@pytest.mark.parametrize(("state", "verdict"), [("streaming", "note"), ("lost", "fail")])
def test_a_camera_that_the_daemon_holds_is_no_fault(place, capsys, monkeypatch, state, verdict):
    """A V4L2 device delivers to one process; the second is refused."""
    document = {"cameras": [{"id": "yard", "state": state, "fps": 5.0}]}
    monkeypatch.setattr(verb, "document_of", lambda _: document)
    for picture in place.pictures.iterdir():
        picture.unlink()
    code, checks = report(place, capsys)
    assert checks["camera yard"]["verdict"] == verdict
    assert code == (verdict == "fail")
    assert ("the daemon has it: 5.0 frames/s" in checks["camera yard"]["found"]) == (verdict == "note")


def test_certificates_that_are_none_are_told_before_the_broker_is_lost_over_them(place, capsys):
    (place.folder / "ca").write_text("hunter2")
    text = place.config.read_text().replace("[mqtt]\n", f'[mqtt]\ntls = true\nca_file = "{place.folder / "ca"}"\n')
    place.config.write_text(text)
    _, checks = report(place, capsys)
    assert checks["mqtt.tls"]["verdict"] == "fail"
    assert "holds no certificate authority" in checks["mqtt.tls"]["found"]


def test_a_broker_whose_certificate_fails_is_told_as_the_daemon_tells_it(place, capsys, tmp_path):
    make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    text = place.config.read_text()
    with listening(lambda connection: connection.recv(1), context) as port:
        for trusted, verdict in ((tmp_path / "ca.crt", "ok"), (tmp_path / "client.crt", "fail")):
            here = text.replace("port = 9\n", f'port = {port}\ntls = true\nca_file = "{trusted}"\n')
            place.config.write_text(here)
            checks = report(place, capsys)[1]
            assert checks["broker"]["verdict"] == verdict
    assert "has a certificate that fails: " in checks["broker"]["found"]
    assert "check [mqtt] ca_file" in checks["broker"]["remedy"]


class OnGpu:
    """A backend that computes on the first GPU."""

    name = "onnxruntime"

    def computes_on_gpu(self, spec):
        return 0

    def cannot_run(self, spec):
        return None


@pytest.mark.parametrize(("target", "verdict"), [("auto", "fail"), ("cpu", "note")])
def test_a_jetson_whose_gpu_has_no_device_fails_unless_the_processor_was_chosen(
    place, capsys, monkeypatch, target, verdict
):
    monkeypatch.setattr(device, "gpu_made_no_node", lambda *root: True)
    monkeypatch.setenv("VAJRA_EDGE_ENGINE__TARGET", target)
    found = report(place, capsys)[1]["gpu devices"]
    assert (found["verdict"], found["found"]) == (verdict, "the kernel's GPU driver made no device")


ABSENT = "PyGObject with GStreamer is not there (No module named 'gi')"


@pytest.mark.parametrize(
    ("jetson", "source", "decode", "absent", "verdict"),
    [
        (True, "rtsp://cam/1", "auto", ABSENT, "note"),
        (True, "csi:0", "auto", ABSENT, "fail"),
        (False, "csi:0", "auto", ABSENT, "fail"),
        (True, "rtsp://cam/1", "nvdec", ABSENT, "fail"),
        (True, "csi:0", "auto", "", "ok"),
        (False, "rtsp://cam/1", "auto", ABSENT, None),
    ],
)
def test_gstreamer_that_python_cannot_drive_fails_where_a_camera_needs_it_and_is_noted_on_any_jetson(
    monkeypatch, jetson, source, decode, absent, verdict
):
    monkeypatch.setattr(device, "is_jetson", lambda: jetson)
    monkeypatch.setattr(appsink, "why_no_gobject", lambda: absent)
    cameras = (CameraSettings(id="gate", source=source, decode=decode), CameraSettings(id="off", source="/clip.mp4"))
    checks = list(verb._gstreamer(cameras))
    assert [check.verdict for check in checks] == ([verdict] if verdict else [])
    for check in checks:
        assert check.remedy == ("apt-get install python3-gi gir1.2-gst-plugins-base-1.0" if absent else "")


def test_a_camera_that_is_off_needs_no_gstreamer(monkeypatch):
    monkeypatch.setattr(appsink, "why_no_gobject", lambda: ABSENT)
    assert list(verb._gstreamer([CameraSettings(id="gate", source="csi:0", enabled=False)])) == []


def test_a_gpu_without_a_compiler_is_noted_with_the_package_that_it_lacks(monkeypatch):
    def refuse(gpu, cache):
        raise CudaUnavailable("CUDA's compiler does not load: libnvrtc.so.12", remedy="apt install cuda-nvrtc-12-6")

    monkeypatch.setattr(verb, "Kernels", refuse)
    (check,) = verb._kernels(OnGpu(), EngineSpec(target=Target("gpu")))
    assert (check.name, check.verdict) == ("kernels", "note")
    assert check.found.startswith("frames are prepared on the CPU unless an earlier start compiled our kernels: ")
    assert check.found.endswith("CUDA's compiler does not load: libnvrtc.so.12")
    assert check.remedy == "apt install cuda-nvrtc-12-6"


def test_a_gpu_whose_kernels_load_is_well(monkeypatch):
    monkeypatch.setattr(verb, "Kernels", lambda gpu, cache: SimpleNamespace(close=lambda: None))
    (check,) = verb._kernels(OnGpu(), EngineSpec(target=Target("gpu")))
    assert (check.verdict, check.found) == ("ok", "compile and load: frames are prepared on GPU 0")
