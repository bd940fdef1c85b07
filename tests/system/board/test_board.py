"""The product on an aarch64 board: from nothing to messages, over power cuts and upgrades, and back to nothing.

The board is emulated; its systemd, kernel, broker and V4L2 camera are real. ``vivid`` shows colour bars, and the tests'
tiny network finds a car in each green cell and a person in each red one.
"""

from __future__ import annotations

import io
import itertools
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boards
import pytest
import tiny
from station import Ears
from waiting import wait_for

from vajra_edge.config.settings import MqttSettings

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE)]

import emulator  # noqa: E402
from emulator import Board, Image, layer  # noqa: E402

pytestmark = [
    pytest.mark.long("boots an emulated board, as root; test_sandbox.py boots a systemd on this machine's processor"),
    pytest.mark.skipif(bool(emulator.absent()), reason=f"absent here: {emulator.absent()}"),
    pytest.mark.timeout(7200),
]

PATIENCE_S = 900.0
"""For one thing to happen on a board whose processor is emulated by a busy machine."""

PASSING = (
    *("/dev", "/proc", "/root", "/run", "/srv", "/sys", "/tmp", "/var/log", "/var/tmp", "/var/lib/systemd"),
    "/var/lib/mosquitto",
)
"""Folders whose files come and go with every boot, where the tests put theirs, and where the broker keeps its own."""

VERSION_0_1_0 = "e9c7bd2"
"""The last commit of 0.1.0 before those of 2026-11-27, see ``tests/daemon/state_0_1_0/README.md``."""

PURGE = "bash /srv/checkout/deploy/install.sh --uninstall --purge"
WEIGHTS = "/var/lib/vajra-edge/weights/network.onnx"
WIDTH_PX, HEIGHT_PX = 640, 360
GREEN, RED = (3 * WIDTH_PX / 8, 4 * WIDTH_PX / 8), (5 * WIDTH_PX / 8, 6 * WIDTH_PX / 8)
"""Left and right of the bars in pixels: white, yellow, cyan, green, magenta, red, blue, black."""

# One frame a second: at five, the daemon took more than one of the board's two processors for itself.
CONFIG = f"""device_id = "test"
[weights]
path = "{WEIGHTS}"
[[cameras]]
id = "gate"
source = "SOURCE"
width_px = {WIDTH_PX}
height_px = {HEIGHT_PX}
fps = 1.0
"""


@dataclass(frozen=True)
class Installed:
    """A disk on which the product was installed and served; the machine is off.

    Attributes:
        disk: not to be written to any more.
        said: by install.sh.
        detections: the first message that had some.
        journal: of the service until then.
        restarts: of the service.
        before: files, users and units of the machine before it was installed.
    """

    disk: Path
    said: str
    detections: dict[str, Any]
    journal: str
    restarts: int
    before: frozenset[str]


@pytest.fixture(scope="session")
def image() -> Image:
    return Image.made()


@contextmanager
def board_on(image: Image, below: Path, folder: Path, **parts: Any) -> Iterator[Board]:
    """A machine whose disk begins as ``below``."""
    folder.mkdir(exist_ok=True)
    board = Board(image, layer(below, folder / "layer"), folder, **parts)
    try:
        board.boot()
        yield board
    finally:
        board.cut()


@pytest.fixture(scope="session")
def installed(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("installed")
    with board_on(image, image.disk, folder) as board:
        before = contents(board)
        board.run("mv /srv/environment /opt/vajra-edge")  # spares pip twenty minutes; see image.sh
        said = install(board, checkout())
        configure(board)
        with listening(board) as ears:
            detections = first_detections(ears)
        journal, restarts = board.journal(), restarts_of(board)
        board.power_off()
    yield Installed(folder / "layer", said, detections, journal, restarts, before)
    (folder / "layer").unlink()


@pytest.fixture(scope="session")
def lasting(image: Image, installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """One machine for all tests that leave the product serving: a boot takes a minute.

    They come last in this file, for of two machines at a time each has half the processors.
    """
    folder = tmp_path_factory.mktemp("lasting")
    with board_on(image, installed.disk, folder) as made:
        yield made
    (folder / "layer").unlink()


@pytest.fixture
def board(lasting: Board) -> Board:
    """A machine that was installed and is up."""
    if not lasting.is_on:
        lasting.boot()
    return lasting


def checkout(commit: str | None = None) -> bytes:
    """A tar archive of what git knows or would; of an earlier commit, of that."""
    if commit is not None:
        return subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in filter(None, names):
            if (ROOT / name).is_file():
                archive.add(ROOT / name, name)
    return made.getvalue()


def install(board: Board, archive: bytes) -> str:
    """Copy a checkout and run its installer; what that said."""
    board.feed("rm -rf /srv/checkout && mkdir /srv/checkout && tar -x --no-same-owner -C /srv/checkout", archive)
    # Without an environment of its own for the build: pip takes minutes to make one there.
    return board.run("PIP_NO_BUILD_ISOLATION=0 bash /srv/checkout/deploy/install.sh")


def configure(board: Board, source: str = "/dev/video0") -> None:
    """As the operator does after the installation: settings, weights, start."""
    board.feed("cat >/etc/vajra-edge/config.toml", CONFIG.replace("SOURCE", source).encode())
    exchange_weights(board)
    board.run("systemctl restart vajra-edge")


def exchange_weights(board: Board, gain: float = 20.0) -> None:
    """Other weights by a rename, as a careful operator does."""
    new = f"{WEIGHTS}.new"
    board.feed(
        f"cat >{new} && chown vajra-edge {new} && chmod 0600 {new} && mv {new} {WEIGHTS}", tiny.network(gain=gain)
    )


@contextmanager
def listening(board: Board) -> Iterator[Ears]:
    ears = Ears(MqttSettings(host="127.0.0.1", port=board.mqtt_port), "vajra/test/#")
    try:
        yield ears
    finally:
        ears.close()


def first_detections(ears: Ears) -> dict[str, Any]:
    """The next message in which something was found: bars scroll behind vivid's text, and a frame may hold nothing.

    One that is replayed says nothing of this boot: it is sent before a plan serves, and may be of another.
    """

    def is_live(path: str, said: dict[str, Any]) -> bool:
        return path == "camera/gate/detections" and bool(said["detections"]) and not said["replayed"]

    return ears.until(is_live, PATIENCE_S)


def plan_of(ears: Ears, fingerprint: str) -> dict[str, Any]:
    """The next detections that the plan made."""
    is_its = lambda path, said: path == "camera/gate/detections" and said["engine"]["fingerprint"] == fingerprint  # noqa: E731
    return ears.until(is_its, PATIENCE_S)


def restarts_of(board: Board) -> int:
    return int(board.run("systemctl show --property=NRestarts --value vajra-edge"))


def status_of(board: Board) -> dict[str, Any]:
    """What the daemon says; nothing where none answers, as in the first seconds after a boot."""
    return json.loads(board.run("vajra-edge status --json 2>/dev/null || true") or "{}")


def contents(board: Board) -> frozenset[str]:
    """Files that somebody could find lying about, users, groups and units; not what systemd logs or counts."""
    pruned = " -o ".join(f"-path {folder}" for folder in PASSING)
    said = board.run(
        f"find / -xdev \\( {pruned} \\) -prune -o -print; getent passwd; getent group;"
        " systemctl list-unit-files --no-legend --no-pager vajra\\*; systemctl list-units --all --no-legend vajra\\*"
    )
    return frozenset(said.splitlines())


def new_plan(ears: Ears) -> str:
    """Fingerprint of the plan that is being built, as soon as one is."""
    return ears.until(lambda path, said: path == "engine" and said["building"], PATIENCE_S)["building"]


def nothing_half(board: Board) -> None:
    """No plan without its parts, no staged file, no empty one but locks, and every plan's manifest can be read."""
    state = "/var/lib/vajra-edge"
    assert board.run(f"find {state} -type f -empty ! -name '*.lock' ! -name '*.held'") == ""
    assert board.run(f"find {state}/staging -mindepth 1", check=False).strip() in {"", "staging"}
    for manifest in board.run(f"ls {state}/engines/*/manifest.json").split():
        assert json.loads(board.run(f"cat {manifest}"))["manifest"]["fingerprint"]


def test_from_nothing_to_messages_with_the_cameras_picture(installed: Installed):
    assert "installed and enabled; put weights and cameras into /etc/vajra-edge/config.toml" in installed.said
    message = installed.detections
    assert message["resolution_wh"] == [WIDTH_PX, HEIGHT_PX]
    assert message["engine"]["target"] == "cpu"
    for name, (left_px, right_px) in {"car": GREEN, "person": RED}.items():
        centres = [sum(row["xyxy"][::2]) / 2 for row in message["detections"] if row["class"] == name]
        assert centres, f"no {name} in vivid's bars: {message['detections']}"
        assert all(left_px - tiny.STRIDE <= centre <= right_px + tiny.STRIDE for centre in centres), centres
    assert installed.restarts == 0, installed.journal
    assert "Traceback" not in installed.journal


def test_an_upgrade_from_0_1_0_keeps_its_state_and_restarts(image: Image, tmp_path: Path):
    if subprocess.run(["git", "cat-file", "-e", VERSION_0_1_0], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip(f"absent here: {VERSION_0_1_0}, the last commit of 0.1.0, in this checkout's history")
    with board_on(image, image.disk, tmp_path / "board") as board:
        board.run("mv /srv/environment /opt/vajra-edge")
        install(board, checkout(VERSION_0_1_0))
        configure(board)
        with listening(board) as ears:
            old = first_detections(ears)["engine"]["fingerprint"]
            key = board.run("sha256sum /var/lib/vajra-edge/store.key")
            pid = board.run("systemctl show --property=MainPID --value vajra-edge")
            said = install(board, checkout())
            assert "upgraded, restarted and serving" in said
            assert board.run("systemctl show --property=MainPID --value vajra-edge") != pid
            is_news = lambda path, told: path == "engine" and told["fingerprint"] not in {None, old}  # noqa: E731
            assert ears.until(is_news, PATIENCE_S)
            first_detections(ears)
        assert board.run("sha256sum /var/lib/vajra-edge/store.key") == key
        assert f"engines/{old}" in board.run("ls -d /var/lib/vajra-edge/engines/*")
        assert restarts_of(board) == 0
        nothing_half(board)


OF_USER_TOOLS = {
    "/etc/.pwd.lock",
    *(f"/etc/{name}-" for name in ("group", "gshadow", "passwd", "shadow", "subgid", "subuid")),
}
"""Backups and a lock, which Debian's userdel leaves behind on its own account."""


def test_a_purge_leaves_nothing(image: Image, installed: Installed, tmp_path: Path):
    with board_on(image, installed.disk, tmp_path / "board") as board:
        with listening(board) as ears:
            first_detections(ears)
        board.run(PURGE)
        left = {line for line in contents(board) - installed.before if "__pycache__" not in line}
        assert left <= OF_USER_TOOLS
        assert board.run("find /run /tmp /var/tmp -name '*vajra*'") == ""


ORIN = {
    "model": ["NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"],
    "compatible": ["nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234", "linux,dummy-virt"],
}
"""What the device tree of an Orin Nano says, as JetPack 6.2 has it; the last one is QEMU's own."""

L4T = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64"

BROKEN_BOARDS = {
    "library without bindings": ("libraries", r"python3-libnvinfer"),
    "no driver": ("bindings", r"install NVIDIA's driver"),
    "driver older than the library": ("old-driver", r"a newer driver"),
}
"""What is added to a board that lacks the rest, and what its remedy must name then."""


@pytest.fixture(scope="session")
def tensorrt(image: Image) -> Path:
    """A disk with the real library."""
    if shutil.which("mvn") is None:
        pytest.skip("absent here: mvn (NVIDIA's libraries for aarch64 come in a jar)")
    subprocess.run(["bash", str(HERE / "tensorrt.sh"), str(image.folder)], check=True)
    return image.folder / "tensorrt.disk"


def test_an_orin_whose_tensorrt_cannot_work_serves_on_the_processor_and_names_the_remedy(
    image: Image, installed: Installed, tensorrt: Path, tmp_path: Path
):
    folder = tmp_path / "board"
    folder.mkdir()
    tree = emulator.device_tree(folder / "orin.dtb", ORIN)
    with board_on(image, installed.disk, folder, device_tree=tree, drives=[tensorrt]) as board:
        board.run(f"mount -o ro /dev/vdb /mnt; echo '{L4T}' >/etc/nv_tegra_release")
        # As install.sh makes the environment where it finds a Jetson.
        board.run("sed -i 's/packages = false/packages = true/' /opt/vajra-edge/pyvenv.cfg")
        for what, (part, remedy) in BROKEN_BOARDS.items():
            board.run(f"systemctl stop vajra-edge; cp -a /mnt/{part}/. / && ldconfig")
            board.run("rm -rf /var/lib/vajra-edge/engines /var/lib/vajra-edge/current; systemctl start vajra-edge")
            with listening(board) as ears:
                assert first_detections(ears)["engine"]["target"] == "cpu", what
            reason, doctor = status_of(board)["reason"], board.run("vajra-edge doctor", check=False)
            assert restarts_of(board) == 0, board.journal()
            assert "Orin" in doctor
            assert re.search(remedy, reason), f"{what}: {reason}\n{doctor}\n{board.journal()}"
            assert re.search(remedy, " ".join(doctor.split())), f"{what}: {doctor}"


def test_a_reboot_serves_the_stored_plan_and_counts_on_in_the_same_epoch(board: Board):
    with listening(board) as ears:
        before = first_detections(ears)
    board.power_off()
    board.boot()
    with listening(board) as ears:
        messages = [first_detections(ears)]
        messages += [ears.detections() for _ in range(5)]
        built = [said for path, said, _ in ears.all() if path == "engine" and said["building"]]
    assert {one["engine"]["fingerprint"] for one in messages} == {before["engine"]["fingerprint"]}
    assert built == []
    assert {one["epoch"] for one in messages} == {before["epoch"]}
    assert messages[0]["seq"] > before["seq"]
    numbers = [one["seq"] for one in messages[1:]]
    assert numbers == list(range(numbers[0], numbers[0] + 5))
    assert not any(one["replayed"] for one in messages)
    assert [one["taken_at"] for one in messages] == sorted(one["taken_at"] for one in messages)
    assert status_of(board)["before"] == "", board.journal("--boot=-1")
    assert restarts_of(board) == 0


def test_a_power_cut_while_it_serves_is_told_and_charged_to_nobody(board: Board):
    with listening(board) as ears:
        first_detections(ears)
    board.cut()
    board.boot()
    with listening(board) as ears:
        first_detections(ears)
    status = status_of(board)
    assert status["before"] == "the machine went down while the daemon ran"
    assert status["engine"]["failures"] == []
    nothing_half(board)


@pytest.mark.parametrize(("moment", "gain"), [("build", 30.0), ("swap", 40.0)])
def test_a_power_cut_in_a_build_or_a_swap_leaves_one_plan_or_the_other(board: Board, moment: str, gain: float):
    with listening(board) as ears:
        old = first_detections(ears)["engine"]["fingerprint"]
        exchange_weights(board, gain=gain)
        new = new_plan(ears)
        if moment == "swap":
            plan_of(ears, new)
        board.cut()
    board.boot()
    with listening(board) as ears:
        assert first_detections(ears)["engine"]["fingerprint"] in {old, new}
        plan_of(ears, new)
    nothing_half(board)


BY_PATH = "/dev/v4l/by-path/platform-vivid.0-video-index0"


def camera_that_is(ears: Ears, state: str) -> dict[str, Any]:
    """The camera's next status of that state."""
    is_it = lambda path, said: path == "camera/gate/status" and said["state"] == state  # noqa: E731
    return ears.until(is_it, PATIENCE_S)


def wait_until_it_is_missed(board: Board) -> None:
    def is_missed() -> bool:
        return any("is not there" in camera["reason"] for camera in status_of(board).get("cameras", ()))

    wait_for(is_missed, PATIENCE_S, step_s=1.0)


def test_a_camera_that_is_unplugged_is_lost_and_streams_again_once_it_is_back(board: Board):
    driver = "/sys/bus/platform/drivers/vivid"
    with listening(board) as ears:
        configure(board, BY_PATH)
        camera_that_is(ears, "opening")
        assert camera_that_is(ears, "streaming")["resolution_wh"] == [WIDTH_PX, HEIGHT_PX]
        first_detections(ears)
        board.run(f"echo vivid.0 >{driver}/unbind")
        assert camera_that_is(ears, "lost")["reason"]
        wait_until_it_is_missed(board)
        board.run(f"echo vivid.0 >{driver}/bind")
        camera_that_is(ears, "streaming")
        first_detections(ears)
        reasons = [said["reason"] for path, said, _ in ears.all() if path == "camera/gate/status"]
        configure(board)
    assert not [reason for reason in reasons if "user to the group video" in reason]
    assert restarts_of(board) == 0


def test_doctor_is_content_while_the_daemon_holds_the_camera(board: Board):
    with listening(board) as ears:
        first_detections(ears)
    checks = {check["name"]: check for check in json.loads(board.run("vajra-edge doctor --json"))}
    assert checks["view"]["found"] == "from inside the sandbox of vajra-edge.service, as its user"
    assert {check["verdict"] for check in checks.values()} <= {"ok", "note"}
    assert checks["camera gate"]["verdict"] in {"ok", "note"}


PROBE = """[Service]
Type=oneshot
ExecStart=
ExecStart=/usr/bin/python3 /srv/probe.py
Restart=no
WatchdogSec=0
StandardOutput=truncate:/srv/answers
"""

OPEN_EACH = """
import errno, json, os
def answer(name):
    try:
        os.close(os.open("/srv/devices/" + name, os.O_RDWR | os.O_NONBLOCK))
    except OSError as error:
        return errno.errorcode[error.errno]
    return "open"
print(json.dumps({name: answer(name) for name in os.listdir("/srv/devices")}))
"""


def test_what_the_drivers_of_a_jetson_register_opens_and_what_else_it_has_does_not(board: Board):
    needed = {*itertools.chain(*boards.REGIONS.values()), *(Path(node).name for node in boards.NODES)}
    for path, content in {
        "/srv/character_devices.py": (HERE / "character_devices.py").read_text(),
        "/srv/probe.py": OPEN_EACH,
        "/run/systemd/system/vajra-edge.service.d/probe.conf": PROBE,
    }.items():
        board.feed(f"mkdir -p $(dirname {path}) && cat >{path}", content.encode())
    names = sorted({*needed, *boards.CLOSED})
    board.run(
        f"modprobe cuse && systemd-run --quiet --unit=devices python3 /srv/character_devices.py {' '.join(names)}"
    )
    wait_for(lambda: len(board.run("ls /sys/class/cuse").split()) == len(names), PATIENCE_S, step_s=1.0)
    # Files of their own, open to everybody: /dev has some of these names already.
    board.run(
        "mkdir /srv/devices; cd /sys/class/cuse && for name in *; do"
        " mknod -m 0666 /srv/devices/$name c $(tr : ' ' <$name/dev); done"
    )
    board.run("systemctl stop vajra-edge; systemctl daemon-reload; systemctl start vajra-edge")
    answers = json.loads(board.run("cat /srv/answers"))
    board.run(
        "rm -r /run/systemd/system/vajra-edge.service.d /srv/devices; systemctl stop devices;"
        " systemctl daemon-reload; systemctl start vajra-edge"
    )
    assert answers == {name: "open" if name in needed else "EPERM" for name in names}


def test_a_slow_board_comes_up_without_a_restart(board: Board):
    """A fifth of one processor: libraries take minutes to load, and the watchdog's patience is half of one."""
    quota = "systemctl set-property --runtime vajra-edge.service CPUQuota="
    board.run(f"systemctl stop vajra-edge; {quota}20%")
    with listening(board) as ears:
        board.run("systemctl start vajra-edge")
        first_detections(ears)
        board.run(quota)
    assert restarts_of(board) == 0, board.journal()


def test_what_a_crash_left_is_told_where_no_plan_served_yet(board: Board):
    board.run("systemctl stop vajra-edge; rm -rf /var/lib/vajra-edge/engines /var/lib/vajra-edge/current")
    with listening(board) as ears:
        board.run("systemctl start vajra-edge")
        new_plan(ears)
        board.run("systemctl kill --kill-whom=main --signal=SIGABRT vajra-edge")
        first_detections(ears)
    assert "its last traceback:\nFatal Python error: Aborted" in board.journal()


WAIT_ONLINE = "/etc/systemd/system/systemd-networkd-wait-online.service.d"
FOR_EVER = "[Service]\nExecStart=\nExecStart=/bin/sleep infinity\nTimeoutStartSec=infinity\n"


def sees(board: Board) -> bool:
    """Whether a plan serves and has had a few of the camera's frames."""
    said = status_of(board)
    return said.get("phase") == "serving" and said["cameras"][0]["frames"] > 5


def test_a_board_whose_network_never_comes_sees_its_camera_and_keeps_what_it_saw(board: Board):
    """Debian's broker waits for the network, so that it is not there either."""
    board.feed(f"mkdir -p {WAIT_ONLINE} && cat >{WAIT_ONLINE}/never.conf", FOR_EVER.encode())
    board.power_off()
    board.boot()
    wait_for(lambda: sees(board), PATIENCE_S, step_s=1.0)
    assert "inactive" in board.run("systemctl is-active network-online.target", check=False)
    board.run(f"rm -r {WAIT_ONLINE}; systemctl daemon-reload; systemctl stop systemd-networkd-wait-online")
    with listening(board) as ears:
        board.run("systemctl restart mosquitto")
        kept = ears.until(lambda path, said: path == "camera/gate/detections" and said["replayed"], PATIENCE_S)
        assert first_detections(ears)["epoch"] == kept["epoch"]
    assert restarts_of(board) == 0


def test_a_camera_whose_driver_comes_after_the_service_streams_without_a_restart(board: Board):
    """A USB camera that is plugged in for the first time after a boot."""
    board.run("mv /etc/modules-load.d/vivid.conf /srv")
    board.power_off()
    board.boot()
    wait_until_it_is_missed(board)
    with listening(board) as ears:
        board.run("modprobe vivid; mv /srv/vivid.conf /etc/modules-load.d")
        camera_that_is(ears, "streaming")
        first_detections(ears)
    assert restarts_of(board) == 0, board.journal()
