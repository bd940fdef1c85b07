"""deploy/install.sh from nothing to messages and back to nothing, on systems of its own, and on every state of one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import booted
import cv2
import installed_roots as roots
import pytest
import tiny

ROOT = Path(__file__).resolve().parents[2]


pytestmark = [
    pytest.mark.long("installs for real, many times, as root; tests/deploy tries the installer's parts always"),
    pytest.mark.skipif(bool(roots.absent()), reason=f"absent here: {roots.absent()}"),
    pytest.mark.timeout(3600),  # an installation takes half a minute, and ten times that beside other tests
]

WORDS = """
export PIP_NO_INDEX=1 PIP_FIND_LINKS=/srv/wheels PYTHON={python}
set_up() {{ bash /srv/checkout/deploy/install.sh 2>&1; echo "rc $?"; }}
packages=/opt/vajra-edge/lib/python{release}/site-packages
message() {{
  timeout 600 mosquitto_sub -h 127.0.0.1 -p 18830 -t '#' -F 'message of %t' | grep -m 1 camera/gate/detections
}}
opencv() {{ /opt/vajra-edge/bin/python -I -c '
import cv2, numpy
print("cv2", cv2.__version__, cv2.__file__, "numpy", numpy.__version__)'; }}
pid() {{ systemctl show -p MainPID --value vajra-edge; }}
# Every name on this machine but those of a running system and of what keeps its own old versions.
tree() {{
  running=$(printf -- '-o -path %s ' /sys /run /tmp /dev /var/log /var/tmp /srv /var/lib/systemd /var/lib/private)
  old=$(printf -- '-o -path %s ' /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/.pwd.lock /etc/machine-id)
  find / -xdev \\( -path /proc $running $old -o -path '/drive*' -o -name '*.pyc' -o -name __pycache__ \\) -prune \\
    -o -printf '%p %y %m %u %g %l\\n' | sort
  sort /etc/passwd /etc/group
}}
tree >/srv/before
"""


def prepare(root: Path, wheels: Path) -> None:
    """A checkout, wheels, a tiny network and pictures; nothing installed."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, map(os.fsdecode, tracked.split(b"\0"))):
        if not name.startswith("tests/"):
            (root / "srv/checkout" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / "srv/checkout" / name)
    shutil.copytree(wheels, root / "srv/wheels")
    (root / "srv/pictures").mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(root / f"srv/pictures/{number}.png"), tiny.scene(seed=number).image)
    (root / "srv/network.onnx").write_bytes(tiny.network())
    (root / "srv/config.toml").write_text(booted.CONFIG)


def parts(said: str) -> dict[str, str]:
    """What was printed after each ``--- NAME``."""
    return {part.split("\n", 1)[0]: part.split("\n", 1)[-1] for part in said.split("--- ")[1:]}


SYSTEMS = {"Debian 12": roots.DEBIAN_12, "JetPack 6": roots.JETPACK_6, "JetPack 7": roots.JETPACK_7}

LIFE = """
mosquitto -d -p 18830 >/dev/null 2>&1
echo "--- first"; set_up; opencv
install -o vajra-edge -m 0600 /srv/network.onnx /var/lib/vajra-edge/weights/network.onnx
cat /srv/config.toml >/etc/vajra-edge/config.toml
echo "--- start"; set_up; message
echo "--- upgrade"; before=$(pid); set_up; [ "$before" != "$(pid)" ] && echo 'another process'; message
echo "--- second opencv"; opencv; ls $packages | grep -i -E '^(cv2|opencv)'; echo end
echo "--- power cut"; find $packages/vajra_edge $packages/numpy -name '*.py' -exec truncate -s 0 {} +
: >/etc/systemd/system/vajra-edge.service; : >/opt/vajra-edge/bin/vajra-edge; systemctl daemon-reload
systemctl stop vajra-edge 2>/dev/null; set_up; message; opencv
echo "--- removed"; bash /srv/checkout/deploy/install.sh --uninstall; ls -d /opt/vajra-edge /var/lib/vajra-edge/weights
echo "--- again"; set_up; message
echo "--- weights gone"; rm /var/lib/vajra-edge/weights/network.onnx; rm -rf /var/lib/vajra-edge/engines; set_up
echo "--- purge"; bash /srv/checkout/deploy/install.sh --uninstall --purge
tree >/srv/after; diff /srv/before /srv/after && echo 'nothing is left'
"""


@pytest.mark.parametrize("name", SYSTEMS)
def test_from_nothing_to_messages_and_back_to_nothing(name, debian, tmp_path):
    system = SYSTEMS[name]
    if system != roots.DEBIAN_12 and roots.interpreter(system.python) is None:
        pytest.skip(f"absent here: CPython {system.python}")
    wheels, more = tmp_path / "wheels", tmp_path / "more"
    wheels.mkdir()
    more.mkdir()
    roots.wheels_of(system.lock, wheels)
    with roots.overlay(debian, tmp_path) as machine:
        roots.furnish(machine.root, system, more)
        prepare(machine.root, wheels)
        words = WORDS.format(python=system.program, release=system.python)
        output = machine.boot(words + LIFE, timeout_s=3000)
    said = parts(output)
    print(output)
    assert "installed and enabled" in said["first"]
    assert "running; follow it" in said["start"]
    assert "message of " in said["start"]
    assert "upgraded, restarted and serving" in said["upgrade"]
    assert "another process" in said["upgrade"]
    for step in ("upgrade", "power cut", "again"):
        assert "message of " in said[step], said[step]
        assert "rc 0" in said[step]
    if system.opencv:
        assert f"cv2 4.8.0 /usr/lib/python{system.python}/dist-packages/cv2" in said["first"]
        assert "numpy 1.26.4" in said["first"]
        assert said["second opencv"].splitlines()[1:] == ["end"]
        assert f"cv2 4.8.0 /usr/lib/python{system.python}" in said["power cut"]
    assert "/opt/vajra-edge'" in said["removed"]
    assert "/var/lib/vajra-edge/weights\n" in said["removed"]
    assert "it does not serve" in said["weights gone"]
    assert "rc 3" in said["weights gone"]
    assert "nothing is left" in said["purge"], said["purge"]


def packages_of(program: Path) -> Path:
    return next(program.glob("lib/python3*/site-packages"))


def nothing(program: Path) -> None:
    """An upgrade of what is whole."""


def gone(program: Path) -> None:
    shutil.rmtree(program)


def empty_folder(program: Path) -> None:
    gone(program)
    program.mkdir()


def a_file(program: Path) -> None:
    gone(program)
    program.touch()


def a_link_to_nowhere(program: Path) -> None:
    gone(program)
    program.symlink_to("/nonexistent/vajra-edge")


def a_link_to_another_disk(program: Path) -> None:
    program.rename(program.parent.parent / "elsewhere")
    program.symlink_to(program.parent.parent / "elsewhere")


def empty_modules(program: Path) -> None:
    for path in (packages_of(program) / "onnx").rglob("*.py"):
        path.write_bytes(b"")


def empty_library(program: Path) -> None:
    next(packages_of(program).rglob("*.so")).write_bytes(b"")


def no_pip(program: Path) -> None:
    for path in packages_of(program).glob("pip*"):
        shutil.rmtree(path)


def interrupted_first_run(program: Path) -> None:
    gone(program)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(program)], check=True)


def no_interpreter(program: Path) -> None:
    for path in (program / "bin").glob("python*"):
        path.unlink()


def interpreter_of_another_release(program: Path) -> None:
    packages_of(program).parent.rename(program / "lib/python3.99")


def interpreter_that_ends_with_an_error(program: Path) -> None:
    no_interpreter(program)
    (program / "bin/python").write_text("#!/bin/sh\nexit 3\n")
    (program / "bin/python").chmod(0o755)


def no_bin(program: Path) -> None:
    shutil.rmtree(program / "bin")


def bin_is_a_file(program: Path) -> None:
    no_bin(program)
    (program / "bin").touch()


def no_lib(program: Path) -> None:
    shutil.rmtree(program / "lib")


def packages_are_a_file(program: Path) -> None:
    packages = packages_of(program)
    shutil.rmtree(packages)
    packages.touch()


def empty_settings_of_the_environment(program: Path) -> None:
    (program / "pyvenv.cfg").write_bytes(b"")


def a_newer_package(program: Path) -> None:
    """What somebody installed by hand into it."""
    packages = packages_of(program)
    for path in packages.glob("mdurl*"):
        shutil.rmtree(path)


def leftovers_beside(program: Path) -> None:
    beside = program.with_name("vajra-edge.new")
    beside.mkdir()
    (beside / "lib").symlink_to(program / "lib")


def a_file_beside(program: Path) -> None:
    program.with_name("vajra-edge.new").write_text("x")


def unit_is_empty(program: Path) -> None:
    (program.parents[1] / booted.UNIT[1:]).write_bytes(b"")


def unit_is_an_empty_folder(program: Path) -> None:
    unit = program.parents[1] / booted.UNIT[1:]
    unit.unlink()
    unit.mkdir()


def command_is_empty(program: Path) -> None:
    command = program.parents[1] / "usr/local/bin/vajra-edge"
    command.unlink()
    command.touch()


HARMS: tuple[Callable[[Path], None], ...] = (
    *(nothing, gone, empty_folder, a_file, a_link_to_nowhere, a_link_to_another_disk, empty_modules, empty_library),
    *(no_pip, interrupted_first_run, no_interpreter, interpreter_of_another_release),
    *(interpreter_that_ends_with_an_error, no_bin, bin_is_a_file, no_lib, packages_are_a_file),
    *(empty_settings_of_the_environment, a_newer_package, leftovers_beside, a_file_beside),
    *(unit_is_empty, unit_is_an_empty_folder, command_is_empty),
)


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_whatever_state_it_is_in_running_it_again_mends_it(harm, pattern, wheels, tmp_path):
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", str(pattern), str(root)], check=True)
    program = root / "opt/vajra-edge"
    harm(program)
    ended = roots.install(root, wheels)
    assert ended.returncode == 0, ended.stderr
    python = str(program / "bin/python")
    release = f"{sys.version_info.major}.{sys.version_info.minor}"
    where = str(program.resolve())
    asked = [python, "-I", str(ROOT / "deploy/environment.py")]
    assert subprocess.run([*asked, "whole", where, release], check=False).returncode == 0
    assert subprocess.run([*asked, "imports"], check=False).returncode == 0
    assert (program / "bin/vajra-edge").read_text().startswith("#!/opt/vajra-edge/bin/python\n")
    assert (root / "usr/local/bin/vajra-edge").readlink() == Path("/opt/vajra-edge/bin/vajra-edge")
    assert (root / booted.UNIT[1:]).read_bytes() == (ROOT / "systemd/vajra-edge.service").read_bytes()
    assert [path.name for path in (root / "opt").iterdir()] == ["vajra-edge"]
    assert not (root / "var/cache/vajra-edge").exists()


def test_a_device_with_a_key_tells_who_signed_after_its_program_was_lost(pattern, wheels, tmp_path):
    signed = pytest.importorskip("signed", reason="absent here: cryptography")
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", str(pattern), str(root)], check=True)
    owner = signed.Signer(root / "etc/vajra-edge")
    program = root / "opt/vajra-edge"
    gone(program)
    ended = roots.install(root, wheels)
    assert ended.returncode == 0, ended.stderr
    assert "-bundles: 3 packages, at most " in ended.stdout
    verify = [str(program / "bin/python"), "-I", "-m", "vajra_edge", "bundle", "verify"]
    verify += [
        str(owner.make(tiny.network())),
        "--keys",
        str(owner.keys),
        "--config",
        str(root / "etc/vajra-edge/config.toml"),
    ]
    told = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert f"key: {owner.key.public.name}\n" in told.stdout


def test_what_fails_replaces_nothing_and_leaves_nothing_beside(pattern, tmp_path):
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", str(pattern), str(root)], check=True)
    inode = (root / "opt/vajra-edge").stat().st_ino
    (packages_of(root / "opt/vajra-edge") / "mdurl/__init__.py").write_bytes(b"")
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    ended = roots.install(root, nowhere)
    assert ended.returncode == 1
    assert "nothing was replaced" in ended.stderr
    assert "https_proxy" in ended.stderr
    assert (root / "opt/vajra-edge").stat().st_ino == inode
    assert [path.name for path in (root / "opt").iterdir()] == ["vajra-edge"]


def test_what_an_extra_would_download_is_said_before_and_what_it_lacks_after(pattern, wheels, tmp_path):
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", str(pattern), str(root)], check=True)
    inode = (root / "opt/vajra-edge").stat().st_ino
    ended = roots.install(root, wheels, EXTRAS="torch")
    assert ended.returncode == 1
    assert re.search(r"-torch: \d+ packages, at most \d+ MB to download", ended.stdout)
    assert re.search(r"the packages of \S+-torch\.lock cannot be installed", ended.stderr)
    assert re.search(r"with the wheels of \S+cp\d+\.lock \S+-torch\.lock: see", ended.stderr)
    assert (root / "opt/vajra-edge").stat().st_ino == inode


def test_a_wheel_that_is_not_the_one_of_the_lock_is_refused(wheels, tmp_path):
    others = tmp_path / "others"
    shutil.copytree(wheels, others)
    wheel = next(others.glob("mdurl-*.whl"))
    wheel.write_bytes(wheel.read_bytes() + b"x")
    ended = roots.install(tmp_path / "root", others)
    assert ended.returncode == 1
    assert "DO NOT MATCH THE HASHES" in ended.stderr
