"""The unit, the doctor and the installer on a real systemd: what each allows a daemon that was taken over."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import booted
import cv2
import installed_roots
import pytest
import tiny

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

pytestmark = [
    pytest.mark.long("boots a systemd of its own, as root; test_unit.py reads the unit's lines always"),
    pytest.mark.skipif(bool(booted.absent()), reason=f"absent here: {booted.absent()}"),
]

PROBE = """[Service]
Type=oneshot
ExecStart=
ExecStart=/opt/vajra-edge/bin/python /srv/probe.py
ExecReload=
Restart=no
WatchdogSec=0
StandardOutput=truncate:/probe.json
"""

WAIT_FOR_FRAMES = """
serves() { for _ in $(seq 120); do
    if vajra-edge status --json 2>/dev/null | grep -q '"frames":[1-9]'; then echo "$1"; return; fi; sleep 0.5
done; echo "not $1"; journalctl -u vajra-edge --no-pager | tail -n 20; }
"""

INSTALL = """
export PIP_NO_INDEX=1 PIP_FIND_LINKS=/srv/wheels PYTHON=/usr/bin/python3
set_up() { bash /srv/checkout/deploy/install.sh 2>&1 | grep '^install.sh'; echo "rc ${PIPESTATUS[0]}"; }
"""


@pytest.fixture
def machine(tmp_path):
    with booted.machine(tmp_path) as made:
        yield made


@pytest.fixture
def installed(machine):
    """A machine with the service installed by hand, a tiny network, pictures for a camera, and a broker."""
    root = machine.root
    shutil.copy(ROOT / "systemd/vajra-edge.service", root / booted.UNIT[1:])
    shutil.copy(ROOT / "systemd/vajra-edge.sysusers", root / "usr/lib/sysusers.d/vajra-edge.conf")
    furnish(root)
    return machine


def furnish(root: Path) -> None:
    (root / "etc/vajra-edge/credentials").mkdir(parents=True)
    (root / "etc/vajra-edge/config.toml").write_text(booted.CONFIG)
    (root / "srv/pictures").mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(root / f"srv/pictures/{number}.png"), tiny.scene(seed=number).image)
    (root / "srv/network.onnx").write_bytes(tiny.network())


PREPARE = """
systemd-sysusers vajra-edge.conf 2>/dev/null
install -d -o vajra-edge -g vajra-edge -m 0700 /var/lib/vajra-edge /var/lib/vajra-edge/weights
install -o vajra-edge -m 0600 /srv/network.onnx /var/lib/vajra-edge/weights/network.onnx
chown -R root:vajra-edge /etc/vajra-edge; chmod 0750 /etc/vajra-edge; chmod 0640 /etc/vajra-edge/config.toml
$(command -v mosquitto || echo /usr/sbin/mosquitto) -d -p 18830 >/dev/null 2>&1
"""


def probed(machine: booted.Machine, script: str) -> dict[str, str]:
    """What the probe says in the place of the daemon."""
    root = machine.root
    drop_ins = root / f"{booted.UNIT[1:]}.d"
    drop_ins.mkdir()
    (drop_ins / "probe.conf").write_text(PROBE)
    shutil.copy(HERE / "sandbox_probe.py", root / "srv/probe.py")
    (root / "home/alice").mkdir(parents=True)
    (root / "home/alice/secret").write_text("x")
    said = machine.boot(f"{PREPARE}\n{script}\nsystemctl start vajra-edge || journalctl -u vajra-edge --no-pager")
    answers = root / "probe.json"
    assert answers.exists(), said
    return json.loads(answers.read_text())


NEEDED = {
    *(f"write {folder}" for folder in ("/var/lib/vajra-edge", "/run/vajra-edge", "/tmp", "/var/tmp", "/dev/shm")),
    *(f"read /proc/{file}" for file in ("meminfo", "cpuinfo", "devices", "sys/kernel/random/boot_id")),
    "read /run/systemd/timesync/synchronized",
    "read the clock's state",
    "camera child",
    "datagrams",
    "dial",
    "memfd",
    "writable code",
}
OPEN = {"execute memfd"}
"""No directive closes it: frames of cameras need such memory."""
BOUND = {"listen 0.0.0.0:8080", "listen 127.0.0.1:9464"}
"""Closed by a program in the kernel, which not every systemd brings and a container may not load."""


def test_the_sandbox_allows_what_the_daemon_needs_and_nothing_else(installed):
    clock = "mkdir -p /run/systemd/timesync; touch /run/systemd/timesync/synchronized"
    answers = probed(installed, clock)
    allowed = {name for name, answer in answers.items() if answer == "allowed"}
    assert allowed - BOUND == NEEDED | OPEN


ARGUS = """[Unit]
Description=stands for the daemon of a Jetson's CSI cameras
[Service]
ExecStart=/usr/bin/python3 -c "import socket, time; time.sleep(1); s = socket.socket(socket.AF_UNIX); \\
s.bind('/tmp/argus_socket'); s.listen(); __import__('os').chmod('/tmp/argus_socket', 0o666); time.sleep(1000)"
ExecStopPost=/bin/rm -f /tmp/argus_socket
"""


LATE_PROBE = """[Service]
ExecStart=
ExecStart=/bin/sh -c 'until [ -e /run/vajra-edge/go ]; do sleep 0.1; done; \\
exec /opt/vajra-edge/bin/python /srv/probe.py'
"""


def test_the_drop_in_for_csi_reaches_argus_though_its_daemon_comes_later_and_comes_again(installed):
    root = installed.root
    (root / "etc/systemd/system/nvargus-daemon.service").write_text(ARGUS)
    assert probed(installed, "systemctl start nvargus-daemon")["argus"] != "allowed"
    shutil.copy(ROOT / "systemd/vajra-edge-csi.conf", root / f"{booted.UNIT[1:]}.d/csi.conf")
    (root / f"{booted.UNIT[1:]}.d/probe2.conf").write_text(LATE_PROBE)
    (root / "probe.json").unlink()
    said = installed.boot(
        f"{PREPARE}systemctl start --no-block vajra-edge\n"
        "until [ -d /run/vajra-edge/machine-tmp ]; do sleep 0.1; done\n"
        "systemctl start nvargus-daemon; systemctl restart nvargus-daemon\n"
        "until [ -S /tmp/argus_socket ]; do sleep 0.1; done; systemctl is-active vajra-edge; touch /run/vajra-edge/go\n"
        "until [ -s /probe.json ]; do sleep 0.1; done; systemctl show -p Result vajra-edge"
    )
    assert "activating" in said
    answers = json.loads((root / "probe.json").read_text())
    assert answers["argus"] == "allowed"
    allowed = {name for name, answer in answers.items() if answer == "allowed"}
    assert allowed - BOUND - {"argus"} == (NEEDED | OPEN) - {"read /run/systemd/timesync/synchronized"}


def test_the_daemon_serves_a_camera_in_it_and_doctor_looks_from_there(installed):
    said = installed.boot(
        f"{PREPARE}{WAIT_FOR_FRAMES}"
        "systemctl start vajra-edge; serves 'frames flow'\n"
        "id -nG vajra-edge; vajra-edge doctor --json; echo; echo rc $?\n"
        "vajra-edge doctor --json --config /home/alice/config.toml; echo\n"
        "systemctl stop vajra-edge; ls -d /run/vajra-edge; vajra-edge doctor --json; echo\n"
        "runuser -u nobody -- vajra-edge doctor --json | cut -c1-300"
    )
    assert "frames flow" in said
    assert {"video", "render"} <= set(next(line for line in said.splitlines() if "vajra-edge " in line).split())
    reports = [json.loads(line) for line in said.splitlines() if line.startswith('[{"name":"view"') and line[-1] == "]"]
    running, hidden, stopped = ({check["name"]: check for check in report} for report in reports)
    for report in (running, stopped):
        assert report["view"] == {
            "name": "view",
            "verdict": "ok",
            "found": "from inside the sandbox of vajra-edge.service, as its user",
            "remedy": "",
        }
        assert {check["verdict"] for check in report.values()} <= {"ok", "note"}
    assert running["camera gate"]["found"] == "delivers 256 x 256"
    assert hidden["settings"]["verdict"] == "fail"
    assert "only root can enter it" in said


def copy_checkout(folder: Path) -> None:
    """What git knows of this checkout."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, map(os.fsdecode, tracked.split(b"\0"))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Those of the lock of the interpreter that the machine has."""
    made = tmp_path_factory.mktemp("wheels")
    installed_roots.wheels_of(f"{platform.machine()}-cp{sys.version_info.major}{sys.version_info.minor}.lock", made)
    return made


@pytest.fixture
def checkout(machine, wheels):
    """A machine with a checkout of the product, the wheels of its dependencies, and nothing installed."""
    furnish(machine.root)
    copy_checkout(machine.root / "srv/checkout")
    shutil.copytree(wheels, machine.root / "srv/wheels")
    return machine


def parts(said: str) -> dict[str, str]:
    """What was printed after each ``--- NAME``."""
    return {part.split("\n", 1)[0]: part.split("\n", 1)[-1] for part in said.split("--- ")[1:]}


def test_install_and_upgrade_and_removal(checkout):
    said = parts(
        checkout.boot(
            f"""{INSTALL}{WAIT_FOR_FRAMES}
            pid() {{ systemctl show -p MainPID --value vajra-edge; }}
            $(command -v mosquitto || echo /usr/sbin/mosquitto) -d -p 18830 >/dev/null 2>&1
            echo "--- first"; set_up; stat -c '%n %U:%G %a' /etc/vajra-edge/config.toml /var/lib/vajra-edge/weights
            install -o vajra-edge -m 0600 /srv/network.onnx /var/lib/vajra-edge/weights/network.onnx
            echo "--- start"; set_up; serves 'frames flow'; head -n 1 /opt/vajra-edge/bin/vajra-edge; ls /opt
            echo "--- upgrade"; before=$(pid); set_up; [ $before != $(pid) ] && echo 'another process'
            echo "--- settings"; before=$(pid); stamp=$(stat -c %i /opt/vajra-edge)
            cp -p /etc/vajra-edge/config.toml /srv/config.toml; echo 'nonsense = 1' >>/etc/vajra-edge/config.toml
            set_up; [ $before = $(pid) ] && echo 'same process'
            [ $stamp = $(stat -c %i /opt/vajra-edge) ] && echo 'same program'
            cp -p /srv/config.toml /etc/vajra-edge/config.toml
            echo "--- purge"; bash /srv/checkout/deploy/install.sh --uninstall --purge
            id vajra-edge; ls -d /var/lib/vajra-edge
            """
        )
    )
    assert "rc 0" in said["first"]
    assert "installed and enabled" in said["first"]
    assert "/etc/vajra-edge/config.toml root:vajra-edge 6" in said["first"]
    assert "/var/lib/vajra-edge/weights vajra-edge:vajra-edge 755" in said["first"]
    assert "running; follow it" in said["start"]
    assert "\nframes flow\n" in said["start"]
    assert "#!/opt/vajra-edge/bin/python\n" in said["start"]
    assert "vajra-edge.new" not in said["start"]
    assert "upgraded, restarted and serving: vajra-edge" in said["upgrade"]
    assert "another process" in said["upgrade"]
    assert "rc 0" not in said["settings"]
    assert "nonsense" in said["settings"]
    assert "same process" in said["settings"]
    assert "same program" in said["settings"]
    assert "removed, with settings, plans and user" in said["purge"]
    assert "no such user" in said["purge"]
    assert "cannot access '/var/lib/vajra-edge'" in said["purge"]


ATTACKS = """
as_service() { runuser -u vajra-edge -- bash -c "cd /var/lib/vajra-edge && $1"; }
mkdir -m 0755 /srv/victim /srv/victim/cameras; touch /srv/victim/file /srv/victim/cameras/precious.jpg
before=$(find /etc/cron.d /srv/victim -printf '%p %u %m %i;')
untouched() { [ "$before" = "$(find /etc/cron.d /srv/victim -printf '%p %u %m %i;')" ] && echo untouched; }
as_root() { timeout 60 "$@" >/dev/null 2>&1; echo "ended with $?"; untouched; }
"""


def test_what_root_types_follows_nothing_that_the_service_put_there(checkout):
    said = parts(
        checkout.boot(
            f"""{INSTALL}{ATTACKS}
            export VAJRA_EDGE_MQTT__PORT=9
            set_up >/dev/null; systemctl stop vajra-edge; as_service 'rmdir weights'
            for folder in /etc/cron.d /srv/victim/file /nonexistent; do
                as_service "ln -s $folder weights"
                echo "--- link to $folder"; set_up; untouched; as_service 'rm weights'
            done
            as_service 'mkfifo weights'; echo "--- pipe"; set_up; untouched; as_service 'rm weights; mkdir weights'
            as_service 'cp /srv/network.onnx weights; rm -rf calibration; ln -s /srv/victim calibration'
            config=/etc/vajra-edge/config.toml
            for verb in 'calibration --delete' calibration 'doctor --quiet' 'rebuild --force' status; do
                echo "--- $verb"; as_root vajra-edge $verb --config $config
            done
            echo "--- bench"; as_root vajra-edge bench --seconds 2 --config $config
            as_service 'rm -rf engines staging strikes.json; ln -s /srv/victim/file strikes.json'
            as_service 'ln -s /srv/victim engines; ln -s /srv/victim staging'
            echo "--- rebuild among links"; as_root vajra-edge rebuild --force --config $config
            echo "--- bench among links"; as_root vajra-edge bench --seconds 2 --config $config
            echo "--- owner"; find /var/lib/vajra-edge ! -user vajra-edge
            echo "--- purge"; bash /srv/checkout/deploy/install.sh --uninstall --purge; untouched
            """
        )
    )
    assert "rc 0" in said.pop("link to /etc/cron.d")[:400]
    for name in ("link to /srv/victim/file", "link to /nonexistent", "pipe"):
        assert "/var/lib/vajra-edge/weights cannot be made by the user vajra-edge" in said[name]
        assert "rc 1" in said[name]
    assert said.pop("owner").strip() == ""
    assert [name for name, part in said.items() if "untouched" not in part] == []
    assert [name for name, part in said.items() if "ended with 124" in part] == []


def test_a_power_cut_right_after_an_upgrade_leaves_all_of_it(wheels, tmp_path):
    """The file behind a disk holds what the disk was given; what the kernel still kept in memory is lost."""
    image, disk, checkout = tmp_path / "image", tmp_path / "disk", tmp_path / "checkout"
    disk.mkdir()
    copy_checkout(checkout)
    with image.open("wb") as file:
        file.truncate(2 << 30)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", str(image)], check=True)
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PYTHON": "/usr/bin/python3"}

    def install() -> None:
        environment = {**os.environ, **offline, "DESTDIR": str(disk)}
        subprocess.run(["bash", str(checkout / "deploy/install.sh")], env=environment, check=True)

    subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=True)
    try:
        (disk / "usr/local/bin").mkdir(parents=True)
        install()
        subprocess.run(["sync", "-f", str(disk)], check=True)
        (checkout / "vajra_edge/version.py").write_text('"""The version."""\n\nVERSION = "99.1"\n')
        install()
        shutil.copyfile(image, tmp_path / "cut")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    subprocess.run(["mount", "-o", "loop", str(tmp_path / "cut"), str(disk)], check=True)
    try:
        (packages,) = disk.glob("opt/vajra-edge/lib/python3*/site-packages")
        lost = [
            path
            for path in (checkout / "vajra_edge").rglob("*.py")
            if (packages / path.relative_to(checkout)).read_bytes() != path.read_bytes()
        ]
        assert lost == []
        assert (disk / "opt/vajra-edge/bin/vajra-edge").read_text().startswith("#!/opt/vajra-edge/bin/python\n")
        assert (disk / booted.UNIT[1:]).read_bytes() == (ROOT / "systemd/vajra-edge.service").read_bytes()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
