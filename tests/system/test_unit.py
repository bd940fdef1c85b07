"""The unit and its sysusers file, as systemd's own tools read them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import boards
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "systemd"
UNIT = FOLDER / "vajra-edge.service"

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="absent here: systemd-analyze")


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def test_systemd_accepts_every_line(tmp_path):
    """The program is not installed here: any other executable stands in its place."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/vajra-edge/bin/vajra-edge", str(Path(sys.executable).resolve())))
    ended = analyze("verify", "--man=no", str(unit))
    assert ended.stderr.strip() == ""
    assert ended.returncode == 0


def test_a_wrong_line_would_be_seen(tmp_path):
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("ProtectHostname=yes", "ProtectHostnames=yes"))
    assert "ProtectHostnames" in analyze("verify", "--man=no", str(unit)).stderr


def test_the_sandbox_is_tight():
    """1.5, but that systemd counts reading the clock's state as setting it, three times; test_sandbox.py tries both."""
    ended = analyze("security", "--offline=true", "--threshold=20", "--no-pager", str(UNIT))
    if "unrecognized option" in ended.stderr or "Unknown option" in ended.stderr:
        pytest.skip("absent here: systemd-analyze security --offline, which came with systemd 250")
    assert ended.returncode == 0, ended.stdout
    score = re.search(r"exposure level for vajra-edge\.service: ([\d.]+)", ended.stdout)
    assert score
    assert float(score[1]) <= 2.0


def settings() -> dict[str, list[str]]:
    """Every ``Name=value`` of the unit, comments left out."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("late", ["network-online.target", "time-sync.target", "remote-fs.target", "graphical.target"])
def test_what_may_take_minutes_or_never_come_is_not_waited_for(late):
    """A pole without a network has a camera all the same; test_board.py boots one."""
    found = settings()
    assert late not in " ".join([*found["After"], *found["Wants"]]).split()


def test_a_reload_sends_a_signal_and_makes_no_sandbox_for_that():
    assert settings()["ExecReload"] == ["+/bin/kill -HUP $MAINPID"]


def test_a_broken_settings_file_is_not_tried_again_and_everything_else_is():
    unit = settings()
    assert unit["RestartPreventExitStatus"] == ["78"]
    assert unit["Restart"] == ["on-failure"]
    assert unit["StartLimitIntervalSec"] == ["0"]


def test_stop_waits_longer_than_the_default_drain_time():
    from vajra_edge.config.settings import ServiceSettings

    assert int(settings()["TimeoutStopSec"][0]) > ServiceSettings().drain_s + 10


def test_no_broker_or_camera_with_a_public_address_is_cut_off_in_silence():
    assert "IPAddressDeny" not in settings()


def test_the_users_file_names_the_units_user_and_makes_it_a_member_of_the_groups_that_own_cameras_and_gpus():
    users = [line.split() for line in (FOLDER / "vajra-edge.sysusers").read_text().splitlines() if line[:1] in "ugm"]
    user = settings()["User"][0]
    assert ["u", user] in [line[:2] for line in users]
    for group in ("video", "render"):
        assert group in {line[1] for line in users if line[0] == "g"}
        assert ["m", user, group] in users


def test_no_file_that_the_daemon_can_write_can_be_executed():
    """Each of them is a mount of its own in the sandbox, which ``/`` does not cover."""
    unit = settings()
    closed = {path.removeprefix("-") for path in unit["NoExecPaths"][0].split()}
    own = {f"/var/lib/{unit['StateDirectory'][0]}", f"/run/{unit['RuntimeDirectory'][0]}"}
    assert own | {"/", "/tmp", "/var/tmp", "/dev/shm"} <= closed


def test_tensorrts_builder_gets_its_executable_stack():
    """test_tensorrt_start.py shows what it is without: no engine."""
    assert "MemoryDenyWriteExecute" not in settings()


def test_what_may_be_absent_while_the_service_is_stopped_keeps_nobody_out():
    """doctor looks from the same sandbox then."""
    assert "-/run/vajra-edge" in settings()["NoExecPaths"][0].split()


def test_no_bus_and_no_port_are_open_and_brokers_and_cameras_are():
    unit = settings()
    assert unit["InaccessiblePaths"] == ["-/run/dbus"]
    assert unit["SocketBindDeny"] == ["tcp:1-65535"]  # paho binds port 0 before it connects
    assert "SocketBindAllow" not in unit


def test_a_child_that_takes_all_memory_costs_itself():
    unit = settings()
    assert unit["OOMPolicy"] == ["continue"]
    assert unit["ManagedOOMPreference"] == ["omit"]
    assert 50 <= int(unit["MemoryMax"][0].removesuffix("%")) <= 90
    assert "MemoryHigh" not in unit  # it would slow the daemon for what a child took


def test_what_the_daemon_and_nvidias_libraries_read_of_the_machine_is_not_hidden():
    unit = settings()
    assert "ProcSubset" not in unit
    assert unit["PrivateUsers"] == ["no"]
    assert not any("timesync" in path for path in unit["InaccessiblePaths"])


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="absent here: systemd-sysusers")
def test_systemd_makes_the_user_from_the_file(tmp_path):
    for folder in ("etc", "usr/lib/sysusers.d"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(FOLDER / "vajra-edge.sysusers", tmp_path / "usr/lib/sysusers.d/vajra-edge.conf")
    ended = subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", "vajra-edge.conf"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^vajra-edge:.*:/var/lib/vajra-edge:", (tmp_path / "etc/passwd").read_text(), re.MULTILINE)
    groups = (tmp_path / "etc/group").read_text()
    assert re.search(r"^video:.*vajra-edge", groups, re.MULTILINE)
    assert re.search(r"^render:.*vajra-edge", groups, re.MULTILINE)


def allowed() -> list[str]:
    return [line.split()[0] for line in settings()["DeviceAllow"]]


@pytest.mark.parametrize(("board", "regions"), boards.REGIONS.items())
def test_what_the_drivers_of_a_board_register_is_let_in(board, regions):
    """systemd compares what follows char- with the names of /proc/devices by fnmatch."""
    globs = [name.removeprefix("char-") for name in allowed() if name.startswith("char-")]
    for region in regions:
        assert any(fnmatchcase(region, glob) for glob in globs), f"{region} of {board}"


@pytest.mark.parametrize("module", ["videodev", "nvgpu", "host1x_fence"])
@pytest.mark.parametrize("key", ["Wants", "After"])
def test_drivers_whose_devices_are_allowed_by_name_are_loaded_first(module, key):
    """Names are looked up when the service starts, and one that nothing has registered by then stays closed."""
    told = re.findall(rf"^{key}=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    assert f"modprobe@{module}.service" in " ".join(told).split()


def test_what_a_board_has_besides_stays_out():
    globs = [name.removeprefix("char-") for name in allowed() if name.startswith("char-")]
    for region in boards.CLOSED:
        assert not any(fnmatchcase(region, glob) for glob in globs), region
    for node in boards.NODES:
        assert node in allowed()


def test_orc_writes_no_machine_code():
    assert "ORC_CODE=backup" in settings()["Environment"]


def test_the_drop_in_for_csi_is_a_part_of_the_unit_that_systemd_accepts(tmp_path):
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/vajra-edge/bin/vajra-edge", str(Path(sys.executable).resolve())))
    (tmp_path / f"{UNIT.name}.d").mkdir()
    shutil.copy(FOLDER / "vajra-edge-csi.conf", tmp_path / f"{UNIT.name}.d/csi.conf")
    ended = analyze("verify", "--man=no", str(unit))
    assert (ended.returncode, ended.stderr.strip()) == (0, "")
