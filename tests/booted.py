"""A machine with a systemd of its own, thrown away afterwards: this machine's files under an overlay, systemd-nspawn.

What a script does in it reaches nothing outside: no network but its own loopback, every file written is the overlay's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

PACKAGE = Path(__file__).resolve().parents[1] / "vajra_edge"
UNIT = "/etc/systemd/system/vajra-edge.service"
CONFIG = """
[weights]
path = "/var/lib/vajra-edge/weights/network.onnx"
[mqtt]
host = "127.0.0.1"
port = 18830
[[cameras]]
id = "gate"
source = "/srv/pictures"
fps = 10.0
loop = true
"""
"""Of a device with pictures for a camera and a broker of its own."""
_DRIVE = """[Unit]
Requires=basic.target dbus.socket
After=basic.target dbus.socket
[Service]
Type=oneshot
ExecStart=/bin/bash /drive.sh
StandardOutput=append:/drive.out
StandardError=append:/drive.out
TimeoutStartSec={timeout_s}
ExecStopPost=/usr/bin/systemctl --no-block poweroff
"""


def absent() -> str:
    """What keeps this machine from booting another; empty where nothing does."""
    if os.geteuid() != 0:
        return "root"
    for program in ("systemd-nspawn", "systemd-run", "systemd-sysusers", "dbus-daemon"):
        if shutil.which(program) is None:
            return program
    return "" if _interpreter() else f"/usr/bin/python3.{sys.version_info.minor}, which the sandbox may execute"


def _interpreter() -> str | None:
    """Of this release and below /usr; the one that runs the tests may lie where the unit sees nothing."""
    return shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/bin")


class Machine:
    """Files that may be changed before it boots, and what a script says in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def boot(self, script: str, timeout_s: float = 240.0) -> str:
        """Boot, run ``script`` with bash as root once systemd is up, power off; what the script printed."""
        (self.root / "drive.sh").write_text(script, encoding="utf-8")
        (self.root / "drive.out").unlink(missing_ok=True)
        unit = self.root / "etc/systemd/system/drive.service"
        unit.write_text(_DRIVE.format(timeout_s=int(timeout_s)), encoding="utf-8")
        command = ["systemd-nspawn", "--quiet", "--boot", f"--directory={self.root}", "--private-network"]
        command += ["--register=no", "--keep-unit", "--console=pipe", "--machine=vajra-edge-test", "--resolv-conf=off"]
        command.append("--system-call-filter=adjtimex clock_adjtime")  # without CAP_SYS_TIME they only read
        ended = subprocess.run(
            [*command, "systemd.unit=drive.service"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s + 60.0,
            check=False,
        )
        said = self.root / "drive.out"
        assert said.exists(), ended.stdout[-4000:] + ended.stderr[-2000:]
        return said.read_text(encoding="utf-8", errors="replace")


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """One with the program where install.sh puts it, and nothing else of the product.

    Args:
        folder: empty; holds the overlay while the machine is there.
    """
    memory, root = folder / "memory", folder / "root"
    mounted: list[Path] = []

    def mount(target: Path, *arguments: str) -> None:
        target.mkdir()
        subprocess.run(["mount", *arguments, str(target)], check=True)
        mounted.append(target)

    try:
        mount(memory, "-t", "tmpfs", "-o", "size=3g,mode=0755", "tmpfs")
        for name in ("upper", "work"):
            (memory / name).mkdir()
        mount(root, "-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={memory}/upper,workdir={memory}/work")
        for leftover in (UNIT, f"{UNIT}.d", "/opt/vajra-edge", "/etc/vajra-edge", "/var/lib/vajra-edge"):
            shutil.rmtree(root / leftover[1:], ignore_errors=True)
        (root / UNIT[1:]).unlink(missing_ok=True)
        make_program(root)
        yield Machine(root)
    finally:
        for target in reversed(mounted):
            subprocess.run(["umount", str(target)], check=False)


def make_program(root: Path) -> None:
    """The environment that install.sh makes, from the packages of the one that runs the tests."""
    release = f"python3.{sys.version_info.minor}"
    prefix = root / "opt/vajra-edge"
    packages = prefix / "lib" / release / "site-packages"
    (prefix / "bin").mkdir(parents=True)
    for name in ("python", "python3"):
        (prefix / "bin" / name).symlink_to(f"/usr/bin/{release}")
    version = ".".join(map(str, sys.version_info[:3]))
    (prefix / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n")
    for found in _needed():
        for file in found.files or ():
            source = Path(str(file.locate()))
            if ".." not in file.parts and "__pycache__" not in file.parts and source.is_file():
                (packages / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, packages / file)
    shutil.copytree(PACKAGE, packages / "vajra_edge", ignore=shutil.ignore_patterns("__pycache__"))
    entry = prefix / "bin/vajra-edge"
    entry.write_text(
        "#!/opt/vajra-edge/bin/python\nimport sys\nfrom vajra_edge.__main__ import main\nsys.exit(main())\n"
    )
    entry.chmod(0o755)
    link = root / "usr/local/bin/vajra-edge"
    link.unlink(missing_ok=True)
    link.symlink_to("/opt/vajra-edge/bin/vajra-edge")


def _needed() -> Iterator[metadata.Distribution]:
    """What the product requires, what that requires, and what pip needs to install the product without a network."""
    seen: set[str] = set()
    left = [*(metadata.requires("vajra-edge") or ()), "pip", "setuptools"]
    while left:
        wanted = Requirement(left.pop())
        name = wanted.name.lower().replace("_", "-")
        if name in seen or not (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        found = metadata.distribution(name)
        left += found.requires or ()
        yield found
