"""Serves a clip over RTSP on loopback, in an endless loop, for tests and soak runs.

    python tests/system/rtsp_server.py --port 8554 --clip clip.avi --path /gate --path /yard [--credentials u:p]

It prints ``ready`` and serves H.264 over TCP until it is terminated; killed in any way, it starts again on the same
port. The clip is unpacked to JPEG files once, by OpenCV, into the temporary folder; then the process becomes Debian's
Python, which has the server's library (apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi
gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SYSTEM_PYTHON = "/usr/bin/python3"
PACKAGES = (
    "gir1.2-gst-rtsp-server-1.0",
    "python3-gi",
    "gstreamer1.0-plugins-base",
    "gstreamer1.0-plugins-good",
    "gstreamer1.0-plugins-ugly",
)
_SOUND = "audiotestsrc is-live=true ! audioconvert ! mulawenc ! rtppcmupay name=pay0 pt=0"
_PROBE = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
raise SystemExit(0 if all(map(Gst.ElementFactory.find, ("multifilesrc", "jpegdec", "x264enc", "rtph264pay"))) else 1)
"""


def is_installed() -> bool:
    """Whether Debian's packages for the server are on this machine."""
    if not Path(SYSTEM_PYTHON).exists():
        return False
    return subprocess.run([SYSTEM_PYTHON, "-c", _PROBE], capture_output=True, check=False).returncode == 0


def unpack(clip: Path, most_frames: int) -> Path:
    """A folder with the clip's first frames as JPEG files and its rate in ``fps``; made once, whole or not at all."""
    import cv2

    stat = clip.stat()
    key = hashlib.sha256(f"{clip.resolve()} {stat.st_size} {stat.st_mtime_ns} {most_frames}".encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"rtsp-clip-{key}"
    if folder.is_dir():
        return folder
    capture = cv2.VideoCapture(str(clip))
    fresh = Path(tempfile.mkdtemp(prefix="rtsp-clip-"))
    for number in range(most_frames):
        there, image = capture.read()
        if not there:
            break
        cv2.imwrite(str(fresh / f"{number:05d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    (fresh / "fps").write_text(str(max(1, round(capture.get(cv2.CAP_PROP_FPS)))), encoding="ascii")
    capture.release()
    try:
        fresh.rename(folder)
    except OSError:  # another server was faster
        shutil.rmtree(fresh)
    return folder


def serve(arguments: argparse.Namespace) -> None:
    """Run the server in a Python that has GStreamer's bindings."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    fps = (arguments.unpacked / "fps").read_text(encoding="ascii")
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(str(arguments.port))
    for path in arguments.path:
        factory = GstRtspServer.RTSPMediaFactory.new()
        factory.set_launch(
            f'( multifilesrc location="{arguments.unpacked}/%05d.jpg" loop=true caps="image/jpeg,framerate={fps}/1" '
            "! jpegdec ! videoconvert ! video/x-raw,format=I420 "
            f"! x264enc tune=zerolatency speed-preset=ultrafast bitrate=2000 key-int-max={fps} "
            f"! rtph264pay name=pay{int(arguments.sound)} pt=96 config-interval=1 {_SOUND if arguments.sound else ''} )"
        )
        factory.set_shared(True)
        if arguments.credentials:
            _protect(server, factory, *arguments.credentials.split(":", 1))
        server.get_mount_points().add_factory(path, factory)
    if server.attach(None) == 0:
        sys.exit(f"rtsp_server: port {arguments.port} is taken")
    print("ready", flush=True)
    GLib.MainLoop().run()


def _protect(server: object, factory: object, user: str, password: str) -> None:
    from gi.repository import GstRtspServer

    auth = GstRtspServer.RTSPAuth.new()
    token = GstRtspServer.RTSPToken.new()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    factory.add_role_from_structure(_viewer())


def _viewer() -> object:
    from gi.repository import Gst

    return Gst.Structure.new_from_string("viewer, media.factory.access=true, media.factory.construct=true")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clip", type=Path, required=True, help="a video that OpenCV can read")
    parser.add_argument(
        "--path", action="append", required=True, help="mount point, for example /gate; may be repeated"
    )
    parser.add_argument("--credentials", default="", help="user:password that clients must give")
    parser.add_argument("--sound", action="store_true", help="a stream of sound before that of pictures")
    parser.add_argument("--frames", type=int, default=300, help="length of the loop")
    parser.add_argument("--unpacked", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Unpack with this Python, serve with Debian's, under the same process id."""
    arguments = _arguments()
    if arguments.unpacked is None:
        command = [SYSTEM_PYTHON, __file__, *sys.argv[1:], "--unpacked", str(unpack(arguments.clip, arguments.frames))]
        os.execv(SYSTEM_PYTHON, command)  # noqa: S606  no shell is wanted
    serve(arguments)


if __name__ == "__main__":
    main()
