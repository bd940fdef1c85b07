"""Parts of deploy/install.sh by themselves; tests/system/test_sandbox.py runs all of it on a systemd."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
from rich.console import Console
from waiting import wait_for

from vajra_edge.cli import status
from vajra_edge.telemetry.status import BrokerView, BuildView, EngineView, Status

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = (ROOT / "deploy" / "install.sh").read_text(encoding="utf-8")
FUNCTIONS = re.sub(r"^cd .*$", "", SCRIPT.split("\ncase ")[0], count=1, flags=re.MULTILINE)


def call(words: str, **environment: object) -> subprocess.CompletedProcess[str]:
    """One line of shell with the functions of install.sh at hand."""
    told = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    script = f"{FUNCTIONS}\n{words}"
    return subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=told, capture_output=True, text=True, check=False, timeout=60
    )


NO_PACKAGE = "dpkg-query() { return 1; }"

OLD = "is not supported; it takes JetPack 6.1 (L4T 36.4, TensorRT 10.3) or newer, best 7.2"
UNKNOWN = "is none of those that this version was made for"
BOARDS = [
    ("R32", "6.1", "27863751", "t186ref", "Mon Jul 26 19:36:31 UTC 2021", f"JetPack of L4T 32.6.1 {OLD}"),
    (
        "R35",
        "4.1",
        "33958178",
        "t186ref",
        "Tue Aug  1 19:57:35 UTC 2023",
        f"JetPack 5 (L4T 35.4.1, TensorRT 8.5) {OLD}",
    ),
    (
        "R36",
        "3.0",
        "36923193",
        "generic",
        "Fri Jul 19 23:24:25 UTC 2024",
        f"JetPack 6.0 (L4T 36.3.0, TensorRT 8.6) {OLD}",
    ),
    ("R36", "4.3", "38968081", "generic", "Wed Jan  8 01:49:37 UTC 2025", ""),
    ("R36", "4.7", "42132812", "generic", "Thu Sep 18 22:54:44 UTC 2025", ""),
    ("R36", "5.0", "43688277", "generic", "Fri Jan 16 03:50:45 UTC 2026", ""),
    ("R38", "2.0", "41844464", "generic", "Fri Aug 22 00:55:42 UTC 2025", f"L4T 38.2.0 {UNKNOWN}"),
    ("R39", "2.0", "45755727", "generic", "Mon Jun  1 09:28:48 PM UTC 2026", ""),
    ("R39", "2.1", "46758480", "generic", "Fri Aug 7 05:54:22 AM UTC 2026", ""),
]
"""What /etc/nv_tegra_release says on real boards, as their owners published it, and what is said of each."""

LINES = """# {} (release), REVISION: {}, GCID: {}, BOARD: {}, EABI: aarch64, DATE: {}
# KERNEL_VARIANT: oot
TARGET_USERSPACE_LIB_DIR=nvidia
TARGET_USERSPACE_LIB_DIR_PATH=usr/lib/aarch64-linux-gnu/nvidia
"""


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: ".".join(board[:2]))
def test_a_board_is_taken_or_refused_by_its_release(board, tmp_path):
    (tmp_path / "release").write_text(LINES.format(*board[:-1]))
    ended = call(f"{NO_PACKAGE}; release_file=$file; check_board", file=tmp_path / "release")
    said = board[-1]
    assert ended.returncode == int(OLD in said)
    assert said in ended.stderr + ended.stdout
    assert bool(said) == bool(ended.stderr + ended.stdout)


@pytest.mark.parametrize("left", ["", "\0" * 300, None], ids=["empty", "zeros", "gone"])
@pytest.mark.parametrize(
    ("package", "code"), [("36.4.4-20250616085344", 0), ("36.5.0-20260115194252", 0), ("35.4.1-20230801124926", 1)]
)
def test_a_board_whose_release_file_was_lost_is_known_by_its_package(package, code, left, tmp_path):
    file = tmp_path / "release"
    if left is not None:
        file.write_text(left)
    ended = call("dpkg-query() { echo $package; }; release_file=$file; check_board", package=package, file=file)
    assert ended.returncode == code, ended.stderr


@pytest.mark.parametrize("left", ["", "hello\n", "# R (release), REVISION: , GCID"])
def test_a_board_that_does_not_tell_its_release_is_refused_with_the_remedy(left, tmp_path):
    (tmp_path / "release").write_text(left)
    ended = call(f"{NO_PACKAGE}; release_file=$file; check_board", file=tmp_path / "release")
    assert ended.returncode == 1
    assert "apt-get install --reinstall nvidia-l4t-core" in ended.stderr


def test_what_is_no_board_is_not_asked_for_its_release(tmp_path):
    ended = call(f"{NO_PACKAGE}; release_file=$file; check_board", file=tmp_path / "absent")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize("extras", ["", "torch", "torch,systemd", "systemd torch"])
def test_extras_that_there_are_are_taken(extras):
    assert call("check_extras", EXTRAS=extras).returncode == 0


@pytest.mark.parametrize("extras", ["nonsense", "torch,nonsense", "torc", "--help", ".*"])
def test_an_extra_that_there_is_not_is_refused_with_those_that_there_are(extras):
    ended = call("check_extras", EXTRAS=extras)
    assert ended.returncode == 1
    assert f"EXTRAS={extras}: there is no extra " in ended.stderr
    assert " torch " in ended.stderr


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("/nonexistent/python", "cannot be run"),
        ("/bin/false", "cannot be run"),
        ("echo", "too old"),
        (str(Path.home() / "stand-in"), "its sandbox hides that folder"),
    ],
)
def test_an_interpreter_that_will_not_do_is_refused_before_anything_is_made(python, said, tmp_path):
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\necho 3.12 {python}\n")
    stand_in.chmod(0o755)
    ended = call("check_python", PYTHON=stand_in if python.endswith("stand-in") else python)
    assert ended.returncode == 1
    assert said in ended.stderr


def environment_with(interpreter: str, folder: Path) -> Path:
    """One in which nothing but that shell script answers for Python."""
    (folder / "bin").mkdir()
    (folder / "bin/python").write_text(f"#!/bin/sh\n{interpreter}\n")
    (folder / "bin/python").chmod(0o755)
    return folder


def test_an_environment_whose_check_takes_twenty_minutes_is_kept(tmp_path):
    """As on an emulated board beside other tests. Nobody waits here: what stands in for ``timeout`` knows the time."""
    takes_20_min = 'timeout() { [ "$1" -gt 1200 ] && "${@:2}"; }'
    ended = call(f"{takes_20_min}; whole $environment 3.11", environment=environment_with("exit 0", tmp_path))
    assert ended.returncode == 0


def test_an_environment_whose_interpreter_never_answers_is_none(tmp_path):
    silent = environment_with("exec sleep infinity", tmp_path)
    assert call("checks_s=1; whole $environment 3.11", environment=silent).returncode != 0


@pytest.mark.parametrize("content", [[], ["bin", "lib/python3.10", "pyvenv.cfg"], ["bin"], ["lib/python3.10"]])
def test_a_prefix_with_an_environment_or_parts_of_one_is_taken(content, tmp_path):
    for name in content:
        (tmp_path / "opt/here" / name).mkdir(parents=True)
    assert call("check_prefix", DESTDIR=tmp_path, PREFIX="/opt/here").returncode == 0


@pytest.mark.parametrize("content", [["sbin", "bin", "lib"], ["weights.onnx"], ["bin", "lib/libthing"], [".git"]])
def test_a_folder_of_somebody_else_is_neither_replaced_nor_removed(content, tmp_path):
    for name in content:
        (tmp_path / "opt/here" / name).mkdir(parents=True)
    ended = call("check_prefix", DESTDIR=tmp_path, PREFIX="/opt/here")
    assert ended.returncode == 1
    assert "set PREFIX" in ended.stderr


@pytest.mark.parametrize("prefix", ["/", "relative", "/opt/a b", "/opt/a#b", "/opt/"])
def test_a_prefix_that_no_script_can_name_is_refused(prefix):
    assert call("check_prefix", PREFIX=prefix).returncode == 1


def test_a_file_takes_the_place_of_a_link_and_does_not_go_through_it(tmp_path):
    target, victim, new = tmp_path / "etc/unit", tmp_path / "victim", tmp_path / "new"
    target.parent.mkdir()
    victim.write_text("mine")
    new.write_text("theirs")
    target.symlink_to(victim)
    assert call('place "$new" "$target" 0640', new=new, target=target).returncode == 0
    assert (target.is_symlink(), target.read_text(), target.stat().st_mode & 0o777) == (False, "theirs", 0o640)
    assert victim.read_text() == "mine"
    assert sorted(path.name for path in target.parent.iterdir()) == ["unit"]


@pytest.mark.skipif(os.geteuid() != 0, reason="absent here: root, who makes links of other users")
def test_a_folder_is_not_given_away_through_a_link_of_somebody_else(tmp_path):
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.mkdir(mode=0o700)
    link.symlink_to(victim)
    os.chown(link, 65534, 65534, follow_symlinks=False)
    ended = call('own_folder "$link" nobody 0755', link=link)
    assert ended.returncode == 1
    assert ended.stderr == f"install.sh: {link} is a link that root did not make; remove it\n"
    assert (victim.stat().st_uid, victim.stat().st_mode & 0o777) == (0, 0o700)


def test_what_is_installed_is_on_the_disk_before_it_has_its_name():
    order = ["check_environment()", 'sync -f "$made"', "rename_over(", 'put "$root/usr/local/bin/.vajra-edge.new"']
    assert sorted(order, key=SCRIPT.index) == order


def test_root_changes_nothing_below_the_folder_of_the_service():
    """What is to be made there, its owner makes: between a look and a change root could be led elsewhere."""
    touching = re.compile(r"\b(chown|chmod|install|mkdir|cp|mv|ln|touch|rm)\b.*\$state/")
    lines = [line.strip() for line in SCRIPT.splitlines() if touching.search(line)]
    assert lines == ['mkdir -p "$state/weights"']  # below DESTDIR, where no service runs


@pytest.mark.parametrize("place", ["etc/systemd/system", "lib/systemd/system", "usr/lib/systemd/system"])
def test_the_daemon_of_csi_cameras_is_found_wherever_its_unit_lies(place, tmp_path):
    assert call("has_argus", DESTDIR=tmp_path).returncode == 1
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "nvargus-daemon.service").touch()
    ended = call("has_argus", DESTDIR=tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "")


@pytest.mark.parametrize(
    ("extras", "names"),
    [
        ("", []),
        ("systemd", []),
        ("torch", ["torch"]),
        ("export,torch", ["torch"]),
        ("torch bundles", ["bundles", "torch"]),
        (",bundles", ["bundles"]),
    ],
)
def test_what_an_extra_brings_is_taken_from_its_lock_where_it_has_one(extras, names):
    ended = call("extra_locks deploy/locks/aarch64-cp310", EXTRAS=extras)
    assert ended.stdout.split() == [f"deploy/locks/aarch64-cp310-{name}.lock" for name in names]


LOCK = "deploy/locks/aarch64-cp312.lock"
FETCH = f'locks="{LOCK} deploy/locks/aarch64-cp312-bundles.lock"; pip() {{ return 1; }}; download {LOCK}'


@pytest.mark.parametrize(
    ("date", "offline", "reason"),
    [
        ("1970-01-01", "", "the clock says 1970-01-01, which is before this version was made"),
        ("1970-01-01", "1", f"the packages of {LOCK} cannot be installed"),
        ("9999-01-01", "", f"the packages of {LOCK} cannot be installed"),
    ],
)
def test_packages_that_cannot_be_had_are_told_with_the_likeliest_reason(date, offline, reason):
    ended = call(f"date() {{ echo {date}; }}; {FETCH}", PIP_NO_INDEX=offline)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"install.sh: {reason}")
    assert "nothing was replaced" in ended.stderr


def test_who_has_no_network_is_told_each_lock_whose_wheels_to_bring_along():
    assert f"with the wheels of {LOCK} deploy/locks/aarch64-cp312-bundles.lock: see" in call(FETCH).stderr


def test_a_second_installer_at_the_same_time_is_refused(tmp_path):
    first = 'lock && mkdir "$DESTDIR/holds" && read -r _'
    command = ["bash", "-c", f"{FUNCTIONS}\n{first}"]
    told = {**os.environ, "DESTDIR": str(tmp_path / "root")}
    with subprocess.Popen(command, cwd=ROOT, env=told, stdin=subprocess.PIPE) as holder:
        wait_for((tmp_path / "root/holds").exists)
        ended = call("lock", DESTDIR=tmp_path / "root")
        holder.communicate(b"\n")
    assert ended.returncode == 1
    assert ended.stderr == "install.sh: another install.sh is at work; wait until it has ended\n"
    assert call("lock", DESTDIR=tmp_path / "root").returncode == 0


def test_a_masked_service_is_not_started_behind_the_back_of_who_masked_it(tmp_path):
    unit = tmp_path / "etc/systemd/system/vajra-edge.service"
    unit.parent.mkdir(parents=True)
    unit.symlink_to("/dev/null")
    ended = call("check_board() { :; }; main", DESTDIR=tmp_path, PYTHON=sys.executable)
    assert ended.returncode == 1
    assert ended.stderr == "install.sh: the service is masked; systemctl unmask vajra-edge, then run this again\n"
    assert unit.is_symlink()
    assert not (tmp_path / "opt").exists()


def test_what_breaks_off_without_a_word_ends_with_a_line_and_leaves_nothing_beside(tmp_path):
    ended = call('make_work; mkdir "$made"; false', DESTDIR=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == "install.sh: broken off (exit code 1), see above; nothing was replaced; run it again\n"
    assert list((tmp_path / "opt").iterdir()) == []


def test_what_has_said_why_it_ends_says_no_more(tmp_path):
    assert call("make_work; die because", DESTDIR=tmp_path).stderr == "install.sh: because\n"


def test_temporary_files_lie_beside_the_program(tmp_path):
    ended = call("make_work; mktemp", DESTDIR=tmp_path, TMPDIR="/nonexistent")
    assert ended.stdout.startswith(f"{tmp_path}/opt/vajra-edge.work/")


STANDS_IN = """#!/bin/sh
case "$*" in
  *environment.py* | *tensorrt*) exit 0 ;;
esac
shift
PYTHONPATH={system}:{product} exec {python} "$@"
"""
"""The interpreter of an environment on a board, which finds the system's packages in a folder of the test's."""


def told_of_a_board(folder: Path, gi: str) -> list[str]:
    """What install.sh says of an environment, by lines, where the system's PyGObject is this text."""
    system, binaries = folder / "system", folder / "made/bin"
    (system / "gi/repository").mkdir(parents=True)
    (system / "gi/__init__.py").write_text(gi)
    (system / "gi/repository/__init__.py").write_text("GLib = Gst = GstApp = GstVideo = None")
    binaries.mkdir(parents=True)
    (folder / "made/pyvenv.cfg").touch()
    stand_in = binaries / "python"
    stand_in.write_text(STANDS_IN.format(system=system, product=ROOT, python=sys.executable))
    stand_in.chmod(0o755)
    ended = call("on_board() { true; }; made=$there; check_environment /usr/lib/python3", there=folder / "made")
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


GI_WITHOUT = """
def require_version(name, version):
    if name == "{}":
        raise ValueError("Namespace " + name + " not available")
"""


@pytest.mark.parametrize(
    ("gi", "reason"),
    [
        ("""raise ImportError("No module named 'gi'")""", "No module named 'gi'"),
        (GI_WITHOUT.format("GstApp"), "Namespace GstApp not available"),
        ("raise ImportError('_gi is of another Python')", "_gi is of another Python"),
    ],
    ids=["no PyGObject", "no typelibs", "of another interpreter"],
)
def test_a_board_whose_gstreamer_python_cannot_drive_is_told_once_what_that_costs_and_which_packages(
    gi, reason, tmp_path
):
    [line] = told_of_a_board(tmp_path, gi)
    assert f"({reason}): cameras are decoded by the CPU, and csi: cannot be opened, until" in line
    assert line.endswith("apt-get install python3-gi gir1.2-gst-plugins-base-1.0")


def test_a_board_whose_gstreamer_python_can_drive_is_told_nothing_whatever_opencv_was_built_with(tmp_path):
    assert told_of_a_board(tmp_path, GI_WITHOUT.format("none")) == []


@pytest.mark.parametrize(
    "words", ["[Errno 28] No space left on device: 'x'", "OSError: [Errno 122] Disk quota exceeded"]
)
def test_a_full_disk_is_named_whatever_else_the_reason_could_be(words, tmp_path):
    ended = call(
        'pip() { echo "$pip_says" >&2; return 1; }; hear pip || fail "behind a proxy"', DESTDIR=tmp_path, pip_says=words
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"{words}\ninstall.sh: no room is left: the disk of {tmp_path}/opt/vajra-edge has ")
    assert "proxy" not in ended.stderr


def test_a_full_disk_of_which_nothing_is_said_is_named_too(tmp_path):
    ended = call("free_mb() { echo 31; }; fail otherwise", DESTDIR=tmp_path)
    assert ended.stderr.startswith("install.sh: no room is left: ")
    assert call("free_mb() { echo 32; }; fail otherwise", DESTDIR=tmp_path).stderr == "install.sh: otherwise\n"


def test_a_disk_that_is_read_only_is_not_called_full(tmp_path):
    """A read-only image has no room either; a card that fails is mounted anew as read-only in the midst of it."""
    words = "OSError: [Errno 30] Read-only file system: 'x'"
    said = f'pip() {{ echo "{words}"; return 1; }}; free_mb() {{ echo 0; }}; hear pip || fail "behind a proxy"'
    ended = call(said, DESTDIR=tmp_path)
    assert ended.stderr == (
        f"{words}\ninstall.sh: the disk of {tmp_path}/opt/vajra-edge is read-only; mount it with rw, "
        "or set PREFIX to a folder of another; nothing was replaced\n"
    )


def test_a_prefix_that_cannot_be_made_on_a_read_only_disk_is_told_as_that(tmp_path):
    ended = call(
        'mkdir() { command echo "mkdir: x: Read-only file system" >&2; return 1; }; make_work', DESTDIR=tmp_path
    )
    assert "is read-only; mount it with rw" in ended.stderr


def test_a_program_that_was_killed_is_no_wheel_that_lacks(tmp_path):
    ended = call("hear bash -c 'kill -9 $$' || fail 'behind a proxy'", DESTDIR=tmp_path)
    assert ended.returncode == 1
    assert "install.sh: it was killed: memory ran out, most likely (" in ended.stderr
    assert "add swap, then run this again; nothing was replaced" in ended.stderr
    assert "proxy" not in ended.stderr


def test_an_index_that_was_named_is_told_without_its_password():
    said = call(FETCH, PIP_INDEX_URL="https://me:word@index.invalid/simple").stderr
    assert "Its index is index.invalid/simple, by PIP_INDEX_URL or a pip.conf" in said
    assert "word" not in said


def test_started_with_sh_it_goes_on_with_bash():
    ended = subprocess.run(
        ["sh", "deploy/install.sh", "--nonsense"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.stderr == "install.sh: unknown argument --nonsense; see the head of this file\n"


CLOCK = """unset SECONDS; export SECONDS=0
sleep() { SECONDS=$((SECONDS + $1)); }
systemctl() { echo active; }
"""
"""A time that only waiting lets pass, and a service that runs."""

STATUS = """#!/bin/sh
for told in "$(dirname "$0")"/told-*; do [ "$SECONDS" -lt "${told##*-}" ] || newest=$told; done
cat "$newest"
exec grep -q serving "$newest"
"""
FINGERPRINT = "3f9a1b2c3d4e" + 52 * "0"


def told(phase: str, engine: EngineView) -> str:
    """What ``vajra-edge status`` prints then."""
    document = Status("d", phase, "", datetime.now(timezone.utc), 1.0, 7, engine, broker=BrokerView("b:1883"))
    console = Console(width=80, file=io.StringIO())
    console.print(status._table(document.to_json()))
    return console.file.getvalue()


def building(stage: str, percent: float) -> str:
    return told("preparing", EngineView(building=BuildView(FINGERPRINT, False, stage, percent, eta_s=12.0)))


LOADING, SERVING = told("preparing", EngineView(loading=FINGERPRINT)), told("serving", EngineView())


def awaited(folder: Path, said: dict[int, str]) -> tuple[int, int, list[str]]:
    """Exit code, seconds and lines of ``await_serving``, where the daemon says that from each of these seconds on."""
    program = folder / "bin/vajra-edge"
    program.parent.mkdir()
    program.write_text(STATUS)
    program.chmod(0o755)
    for at_s, text in said.items():
        (program.parent / f"told-{at_s:05}").write_text(text)
    ended = call(f"{CLOCK}trap 'echo $SECONDS >&2' EXIT; await_serving", PREFIX=folder)
    *lines, seconds = ended.stderr.splitlines()
    return ended.returncode, int(seconds), ended.stdout.splitlines() + lines


def test_a_plan_that_has_to_be_built_after_an_upgrade_is_waited_for_and_that_is_said_once(tmp_path):
    steps = [(0, "start", 0), (170, "export", 2), (900, "build", 40), (1500, "build", 70)]
    said = {at_s: building(stage, percent) for at_s, stage, percent in steps}
    code, seconds, lines = awaited(tmp_path, {**said, 2000: LOADING, 2400: SERVING})
    assert (code, lines) == (
        0,
        ["install.sh: restarted; its plan is being built, 0% (start); waiting for that, 120 minutes at the most"],
    )
    assert 2400 <= seconds < 2410


def test_a_build_that_gets_no_further_is_given_up(tmp_path):
    code, seconds, lines = awaited(tmp_path, {0: building("start", 0), 100: building("build", 30)})
    assert code == 3
    assert 1000 <= seconds < 1010
    assert "upgraded and restarted, but it does not serve" in lines[-1]


def test_a_build_that_begins_again_and_again_is_given_up(tmp_path):
    code, seconds, _ = awaited(tmp_path, {at_s: building("build", at_s // 600 % 2) for at_s in range(0, 9000, 600)})
    assert code == 3
    assert 7200 <= seconds < 7210


@pytest.mark.parametrize(("phase", "seconds"), [("starting", 180), ("blocked", 10)])
def test_what_does_not_serve_and_builds_nothing_is_soon_given_up(phase, seconds, tmp_path):
    code, waited, lines = awaited(tmp_path, {0: told(phase, EngineView())})
    assert (code, waited) == (3, seconds)
    assert lines[0].split() == ["service", phase]
