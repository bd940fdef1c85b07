"""GStreamer: pipelines of the settings, and a Jetson's own, run by real GStreamer with stand-ins for its elements."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from clips import h264_units
from ports import free_port
from rtsp_camera import RtspCamera
from system import rtsp_server

from vajra_edge.capture.sources import gstreamer, jetson, registry
from vajra_edge.capture.sources.appsink import why_no_gobject
from vajra_edge.config import address
from vajra_edge.config.settings import CameraSettings
from vajra_edge.demo.settings import CLIP
from vajra_edge.errors import SourceError

HERE = Path(__file__).parent
SYSTEM_PYTHON = Path("/usr/bin/python3")
GI = Path("/usr/lib/python3/dist-packages/gi")
SLOW = "identity sleep-time=100000 ! appsink name=pictures"
USER, PASSWORD = "us er", 'p"w@d/1'

READ = """
import json, sys
from vajra_edge.capture.sources import registry
from vajra_edge.media.bgr import to_bgr
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import VajraError
told, source = {"pictures": [], "formats": []}, None
try:
    source = registry.make(CameraSettings(**json.loads(sys.argv[1])))
    told["by"] = type(source).__name__
    source.open()
    for _ in range(int(sys.argv[2])):
        picture = source.read()
        told["formats"].append([picture.pixels.name, picture.colorimetry.matrix.name, picture.colorimetry.full_range])
        image = to_bgr(picture.image, picture.pixels, picture.colorimetry)
        told["pictures"].append([*image.shape, *image.reshape(-1, 3).mean(0)])
except VajraError as error:
    told["error"] = str(error)
finally:
    if source is not None:
        source.close()
print(json.dumps(told))
"""

FROM_ITS_PROCESS = """
import json, sys
from vajra_edge.capture.trial import first_frame
from vajra_edge.config.settings import CameraSettings
from vajra_edge.media.bgr import bgr_of
frame = first_frame(CameraSettings(**json.loads(sys.argv[1])))
means = frame.colorimetry
print(json.dumps({
    "format": [frame.pixels.name, means.matrix.name, means.full_range],
    "picture": [*frame.resolution_wh, *bgr_of(frame).reshape(-1, 3).mean(0)],
}))
"""


def absent() -> str:
    """What keeps GStreamer from being driven by the interpreter of the tests."""
    if not GI.is_dir() or not any(GI.glob(f"_gi.cpython-{sys.version_info.major}{sys.version_info.minor}-*.so")):
        return f"python3-gi of the system for Python {sys.version_info.major}.{sys.version_info.minor}"
    needed = ("gcc", "pkg-config")
    missing = [name for name in needed if shutil.which(name) is None]
    packages = ["gstreamer-1.0", "gstreamer-base-1.0"]
    if not missing and subprocess.run(["pkg-config", "--exists", *packages], check=False).returncode:
        missing = ["libgstreamer1.0-dev"]
    return ", ".join(missing)


needs_gstreamer = pytest.mark.skipif(bool(absent()), reason=f"absent here: {absent()}")


@pytest.fixture(scope="module")
def elements(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stand-ins as a plugin, and PyGObject alone of the system's packages."""
    folder = tmp_path_factory.mktemp("gstreamer")
    (folder / "gi").symlink_to(GI)
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "gstreamer-1.0", "gstreamer-base-1.0"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    made = folder / "libgstnvvideo4linux2.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", made, HERE / "jetson_elements.c", *flags], check=True)
    return folder


def read(
    elements: Path, count: int, *, jetson_there: bool = True, script: str = READ, **camera: object
) -> dict[str, object]:
    """What a process of its own reads of a camera."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(elements)]),
        "GST_PLUGIN_PATH": str(elements) if jetson_there else "",
        "GST_REGISTRY": str(elements / f"registry-{jetson_there}"),
        "ORC_CODE": "backup",
    }
    settings = json.dumps({"id": "gate", "open_timeout_s": 20.0, **camera})
    done = subprocess.run(
        [sys.executable, "-c", script, settings, str(count)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return told


def encoded(width: int, height: int) -> bytes:
    """An H.264 stream of thirty grey pictures."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(30):
            picture = av.VideoFrame.from_ndarray(np.full((height, width, 3), 90, np.uint8), "bgr24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return buffer.getvalue()


@contextmanager
def served(*options: str) -> Iterator[str]:
    """The address of an RTSP camera that gives the demo's clip."""
    if not rtsp_server.is_installed():
        pytest.skip("absent here: Debian's packages for an RTSP server")
    port = free_port()
    server = [sys.executable, str(HERE.parent / "system" / "rtsp_server.py")]
    arguments = ["--port", str(port), "--clip", str(CLIP), "--path", "/gate", *options]
    with subprocess.Popen([*server, *arguments], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert "ready" in running.stdout.readline()
        yield f"rtsp://127.0.0.1:{port}/gate"
        running.terminate()


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An RTSP camera with a login of awkward characters, and the file that holds it."""
    login = tmp_path / "login"
    login.write_text(f"{USER}:{PASSWORD}", encoding="utf-8")
    login.chmod(0o600)
    with served("--credentials", f"{USER}:{PASSWORD}") as url:
        yield url, login


@needs_gstreamer
def test_a_csi_camera_is_read_at_the_size_and_rate_of_its_settings(elements: Path) -> None:
    told = read(elements, 2, source="csi:0", width_px=642, height_px=362, fps=12.5)
    assert (told["by"], told.get("error")) == ("CsiCamera", None)
    for height, width, _, blue, green, red in told["pictures"]:
        assert (height, width) == (362, 642)
        assert max(blue, green) < 10
        assert red > 240, "the stand-in's picture is red"
    assert [one[0] for one in told["formats"]] == ["BGRX", "BGRX"], "it travels as it comes"


@needs_gstreamer
def test_a_csi_camera_that_is_not_there_is_told_with_what_to_look_at(elements: Path) -> None:
    told = read(elements, 1, source="csi:7")
    assert "csi:7 gives no pictures: No cameras available; check its ribbon cable" in str(told["error"])


@needs_gstreamer
def test_a_machine_without_a_jetsons_elements_says_what_it_lacks(elements: Path) -> None:
    told = read(elements, 1, jetson_there=False, source="csi:0")
    assert "cannot be read here: GStreamer has no nvarguscamerasrc, nvvidconv" in str(told["error"])


@needs_gstreamer
def test_an_rtsp_camera_is_decoded_by_the_hardware_where_there_is_one(elements: Path, camera: tuple[str, Path]) -> None:
    url, login = camera
    hardware = read(elements, 2, source=url, credentials_file=str(login))
    assert (hardware["by"], hardware.get("error")) == ("DecodedInHardware", None)
    cpu = read(elements, 1, source=url, credentials_file=str(login), decode="cpu")
    assert cpu["by"] == "NetworkStream"
    assert hardware["pictures"][0][:3] == cpu["pictures"][0][:3]
    assert read(elements, 1, jetson_there=False, source=url, credentials_file=str(login))["by"] == "NetworkStream"


@needs_gstreamer
@pytest.mark.parametrize("decode", ["nvdec", "cpu"])
def test_a_camera_whose_sound_comes_before_its_pictures_is_read(elements: Path, decode: str) -> None:
    with served("--sound") as url:
        told = read(elements, 30, source=url, decode=decode)
    assert told.get("error") is None
    assert len(told["pictures"]) == 30


@needs_gstreamer
def test_a_change_of_size_in_mid_stream_is_followed_in_hardware(elements: Path, tmp_path: Path) -> None:
    """Two H.264 streams one after the other, as a camera sends whose profile was edited."""
    sizes = [(640, 480), (320, 176)]
    stream = tmp_path / "both.h264"
    with stream.open("wb") as file:
        for width, height in sizes:
            file.write(encoded(width, height))
    decoder = "h264parse ! nvv4l2decoder ! nvvidconv ! video/x-raw,format=BGRx"
    told = read(elements, 99, source=f"gst:filesrc location={stream} ! {decoder} ! {SLOW}")
    seen = [(width, height) for height, width, *_ in told["pictures"]]
    assert list(dict.fromkeys(seen)) == sizes
    assert str(told["error"]).endswith("the stream ended")


@needs_gstreamer
def test_what_a_camera_refuses_is_told_alike_of_both_decoders(elements: Path, camera: tuple[str, Path]) -> None:
    url, login = camera
    wrong = {"source": url}, {"source": url.replace("gate", "no"), "credentials_file": str(login)}
    for settings in wrong:
        hardware, cpu = read(elements, 1, **settings), read(elements, 1, decode="cpu", **settings)
        assert hardware["by"] == "DecodedInHardware"
        assert hardware["error"] == cpu["error"]


@needs_gstreamer
@pytest.mark.parametrize("refusal", ["461 Unsupported Transport", "400 Bad Request"])
def test_a_camera_that_only_speaks_udp_is_decoded_in_hardware_too(elements: Path, refusal: str) -> None:
    camera = RtspCamera(h264_units(40), transports=frozenset({"udp"}), refusal=refusal)
    with camera.running() as address:
        told = read(elements, 3, source=address, decode="nvdec")
        assert (told.get("error"), len(told["pictures"])) == (None, 3)
        only_tcp = str(read(elements, 1, source=address, decode="nvdec", rtsp_transport="tcp")["error"])
    assert ("does not send over TCP (461)" if "461" in refusal else "refuses with status 400") in only_tcp


@needs_gstreamer
@pytest.mark.parametrize(
    ("written", "password"), [("p@ss", "p@ss"), ("100%", "100%"), ("p%40ss", "p@ss"), ("pä", "pä")]
)
def test_a_password_in_the_address_is_read_alike_for_both_decoders(elements: Path, written: str, password: str) -> None:
    """Raw, as people write it: GStreamer alone takes the first @ for the last one, and a lone % for none at all."""
    with RtspCamera(h264_units(40), login=("admin", password)).running() as address:
        source = address.replace("://", f"://admin:{written}@")
        told = [read(elements, 1, source=source, decode=decode).get("error") for decode in ("nvdec", "cpu")]
    assert told == [None, None]


@needs_gstreamer
@pytest.mark.parametrize("scheme", ["rtsp", "rtspt"])
def test_credentials_go_into_the_address_of_a_pipeline(elements: Path, tmp_path: Path, scheme: str) -> None:
    login = tmp_path / "login"
    login.write_text("admin:p@ss", encoding="utf-8")
    with RtspCamera(h264_units(40), login=("admin", "p@ss")).running() as address:
        location = address.replace("rtsp", scheme, 1)
        decoder = "rtph264depay ! h264parse ! nvv4l2decoder ! nvvidconv ! video/x-raw,format=BGRx"
        source = f"gst:rtspsrc location={location} ! {decoder} ! appsink"
        told = read(elements, 1, source=source, credentials_file=str(login))
    assert told.get("error") is None


@needs_gstreamer
def test_credentials_that_a_pipeline_has_no_place_for_are_not_left_out_in_silence(
    elements: Path, tmp_path: Path
) -> None:
    login = tmp_path / "login"
    login.write_text("admin:hunter2", encoding="utf-8")
    told = str(read(elements, 1, source="gst:videotestsrc ! appsink", credentials_file=str(login))["error"])
    assert "has credentials and no rtsp or http address to put them into; take credentials_file out" in told


@needs_gstreamer
def test_a_login_that_gstreamer_cannot_hash_is_told_as_that(elements: Path, tmp_path: Path) -> None:
    login = tmp_path / "login"
    login.write_text("admin:hunter2", encoding="utf-8")
    with RtspCamera(h264_units(40), login=("admin", "hunter2"), algorithms=("SHA-256",)).running() as address:
        told = read(elements, 1, source=address, decode="nvdec", credentials_file=str(login))
    assert "asks for a login of a kind that is not known: digest with SHA-256" in str(told["error"])


@needs_gstreamer
def test_a_decoder_that_is_asked_for_and_not_there_is_an_error_and_no_slow_camera(elements: Path) -> None:
    told = read(elements, 1, jetson_there=False, source="rtsp://127.0.0.1:9/x", decode="nvdec")
    assert "cannot be decoded in hardware: GStreamer has no nvv4l2decoder, nvvidconv" in str(told["error"])


@needs_gstreamer
@pytest.mark.parametrize("form", ["BGR", "BGRx", "BGRA", "RGB", "RGBA", "NV12"])
@pytest.mark.parametrize("size", [(321, 243), (640, 480)])
def test_pictures_of_each_format_and_size_are_bgr(elements: Path, form: str, size: tuple[int, int]) -> None:
    caps = f"video/x-raw,format={form},width={size[0]},height={size[1]}"
    told = read(elements, 1, source=f"gst:videotestsrc pattern=blue ! {caps} ! appsink")
    assert told.get("error") is None
    [(height, width, _, blue, green, red)] = told["pictures"]
    assert (width, height) == size
    assert max(green, red) < 10
    assert blue > 240


COLORIMETRY = {
    "bt601": ("BT601", False),
    "bt709": ("BT709", False),
    "bt2020": ("BT2020", False),
    "smpte240m": ("SMPTE240M", False),
    "2:2:0:0": ("FCC", False),
    "1:4:0:0": ("BT601", True),
    "1:3:5:1": ("BT709", True),
    "0:3:0:0": ("BT709", True),
}
"""Of caps, as range:matrix:transfer:primaries where it has no name; and what they mean."""


def painted(caps: str) -> str:
    """A pipeline of GStreamer's that makes an orange picture whatever its caps ask for."""
    orange = "videotestsrc pattern=solid-color foreground-color=0xffe08020 ! video/x-raw,format=BGRx"
    return f"gst:{orange} ! videoconvert ! video/x-raw,{caps} ! appsink"


def require_orange(colours: list[float]) -> None:
    """videoconvert rounds down; BT.601 for BT.709 would be ten levels of red away."""
    np.testing.assert_allclose(colours, [0x20, 0x80, 0xE0], atol=4)


@needs_gstreamer
@pytest.mark.parametrize("said", COLORIMETRY)
def test_nv12_has_the_colours_that_its_caps_say(elements: Path, said: str) -> None:
    told = read(elements, 1, source=painted(f"format=NV12,width=642,height=362,colorimetry=(string){said}"))
    assert told.get("error") is None
    assert told["formats"] == [["NV12", *COLORIMETRY[said]]]
    require_orange(told["pictures"][0][3:])


@needs_gstreamer
@pytest.mark.parametrize(
    ("wh", "matrix"), [((640, 576), "BT601"), ((640, 578), "BT709"), ((1280, 720), "BT709"), ((3840, 2160), "BT709")]
)
def test_of_caps_that_say_nothing_the_size_does(elements: Path, wh: tuple[int, int], matrix: str) -> None:
    told = read(elements, 1, source=painted(f"format=NV12,width={wh[0]},height={wh[1]}"))
    assert told["formats"] == [["NV12", matrix, False]]
    require_orange(told["pictures"][0][3:])


@needs_gstreamer
@pytest.mark.parametrize("wh", [(321, 242), (320, 243), (3, 3)])
def test_nv12_with_an_odd_side_is_bgr_in_the_colours_that_its_caps_say(elements: Path, wh: tuple[int, int]) -> None:
    told = read(elements, 1, source=painted(f"format=NV12,width={wh[0]},height={wh[1]},colorimetry=bt709"))
    assert told["formats"][0][0] == "BGR"
    assert told["pictures"][0][:2] == [wh[1], wh[0]]
    require_orange(told["pictures"][0][3:])


@needs_gstreamer
@pytest.mark.parametrize("form", ["BGR", "BGRx", "NV12"])
@pytest.mark.parametrize("wh", [(642, 362), (640, 480)])
def test_pictures_reach_the_daemon_s_side_as_they_came(elements: Path, form: str, wh: tuple[int, int]) -> None:
    """Through the camera's process; rows of 642 pixels are padded to a multiple of four bytes."""
    source = painted(f"format={form},width={wh[0]},height={wh[1]}")
    told = read(elements, 1, script=FROM_ITS_PROCESS, source=source)
    assert told["format"][0] == form.upper()
    assert told["picture"][:2] == list(wh)
    require_orange(told["picture"][2:])


@needs_gstreamer
def test_a_format_that_is_not_known_the_end_of_a_pipeline_and_half_a_picture_are_told(elements: Path) -> None:
    told = read(elements, 1, source="gst:videotestsrc ! video/x-raw,format=I420 ! appsink")
    assert "gives pictures as I420; end it with video/x-raw,format=BGRx" in str(told["error"])
    told = read(elements, 9, source="gst:videotestsrc num-buffers=1 ! video/x-raw,format=BGRx ! appsink")
    assert str(told["error"]).endswith("the stream ended")
    assert len(told["pictures"]) == 1
    short = "fakesrc sizetype=fixed sizemax=100 ! video/x-raw,format=NV12,width=64,height=48,framerate=1/1"
    assert "gives 100 bytes where its caps say 4608" in str(read(elements, 1, source=f"gst:{short} ! appsink")["error"])


@needs_gstreamer
def test_a_pipeline_that_is_wrong_names_the_element_and_never_a_propertys_value(elements: Path, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("admin:hunter2", encoding="utf-8")
    text = "gst:nosuchelement location=rtsp://cam/1 user-pw=swordfish ! appsink"
    told = str(read(elements, 1, source=text, credentials_file=str(tmp_path / "own"))["error"])
    assert 'does not start: no element "nosuchelement"' in told
    text = "gst:rtspsrc location=rtsp://cam/1 latency=swordfish ! appsink"
    told += str(read(elements, 1, source=text, credentials_file=str(tmp_path / "own"))["error"])
    assert "hunter2" not in told
    assert "swordfish" not in told


@needs_gstreamer
@pytest.mark.parametrize(
    "wrong",
    [
        "nvarguscamerasrc ! nvvidconv ! video/x-raw,format=BGR ! appsink",
        "nvarguscamerasrc ! video/x-raw,format=NV12 ! appsink",
    ],
)
def test_the_stand_ins_refuse_what_a_jetson_refuses(elements: Path, wrong: str) -> None:
    assert "does not start" in str(read(elements, 1, source=f"gst:{wrong}")["error"])


@needs_gstreamer
def test_pictures_that_stay_in_the_jetsons_memory_are_not_read_as_if_they_were_plain(elements: Path) -> None:
    told = str(read(elements, 1, source="gst:nvarguscamerasrc ! appsink")["error"])
    assert "that the CPU cannot read (memory:NVMM); end it with nvvidconv" in told


def test_without_gstreamer_the_reason_and_the_remedy_are_said() -> None:
    if not why_no_gobject() or gstreamer.why_absent() is None:
        pytest.skip("absent here: an environment without GStreamer")
    pipeline = registry.make(CameraSettings(id="gate", source="gst:videotestsrc ! appsink"))
    with pytest.raises(SourceError, match=r"was built without GStreamer; install python3-gi and gir1\.2"):
        pipeline.open()
    pipeline.close()


def test_a_pipeline_without_an_appsink_is_refused_without_its_password() -> None:
    with pytest.raises(SourceError, match="a pipeline without appsink") as caught:
        registry.make(CameraSettings(id="gate", source="gst:rtspsrc location=rtsp://cam user-pw=swordfish ! fakesink"))
    assert "swordfish" not in str(caught.value)


def test_the_texts_name_nothing_that_a_supported_jetson_lacks_or_that_is_slow() -> None:
    texts = [
        jetson.csi_pipeline(CameraSettings(id="gate", source="csi:1", width_px=1280, height_px=720, fps=60.0)),
        jetson.rtsp_pipeline(CameraSettings(id="gate", source="rtsp://cam/1"), "rtsp://cam/1", "tcp"),
    ]
    assert "sensor-id=1 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=60000/1000 !" in texts[0]
    for text in texts:
        assert "videoconvert" not in text
        assert "enable-max-performance" not in text
        assert text.endswith("appsink name=pictures drop=true max-buffers=1 sync=false")


def test_an_address_stays_within_its_property() -> None:
    camera = CameraSettings(id="gate", source="rtsp://cam/1")
    text = jetson.rtsp_pipeline(camera, 'rtsp://cam/a\\" ! filesink location="/etc/x', "tcp")
    assert 'location="rtsp://cam/a%5C%22 ! filesink location=%22/etc/x" ' in text
    assert text.count('"') == 2


def test_a_csi_source_is_shown_whole_and_counts_from_nought() -> None:
    assert address.kind_of("csi:3") is address.Kind.CSI
    assert address.shown("csi:3") == "csi:3"
    assert address.csi_sensor("csi:3") == 3
    for other in ("csi:", "csi:x", "csi://0", "csi:123"):
        assert address.kind_of(other) is not address.Kind.CSI
