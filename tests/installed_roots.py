"""Roots for the installer: Debian 12 of its own, with an interpreter and packages laid out as a JetPack has them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import booted

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "deploy" / "locks"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "udev", "python3", "python3-venv", "mosquitto", "mosquitto-clients"),
    *("libsqlite3-0", "libreadline8", "libncursesw6", "libbz2-1.0", "liblzma5", "libffi8", "libuuid1"),
)
"""What a server image has of what the service needs, and the libraries that an interpreter from elsewhere links."""

ARCHITECTURE = "x86_64"


@dataclass(frozen=True)
class System:
    """A machine to install on.

    Attributes:
        python: release of the interpreter.
        l4t: first line of /etc/nv_tegra_release; empty: no Jetson.
        opencv: distribution and version that the system brings, in Debian's folder; empty: none.
        numpy: version that it was built for.
        tensorrt: version of the package python3-libnvinfer.
    """

    python: str
    l4t: str = ""
    opencv: str = ""
    numpy: str = ""
    tensorrt: str = ""

    @property
    def lock(self) -> str:
        """The name of its lock."""
        return f"{ARCHITECTURE}-cp{self.python.replace('.', '')}{'-system-opencv' if self.opencv else ''}.lock"

    @property
    def program(self) -> str:
        """The path of its interpreter."""
        return f"/usr/bin/python{self.python}"


DEBIAN_12 = System("3.11")
JETPACK_6 = System(
    "3.10",
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025",
    "4.8.0.76",
    "1.22.4",
    "10.3.0.30-1+cuda12.5",
)
JETPACK_7 = System(
    "3.12",
    "# R39 (release), REVISION: 2.0, GCID: 45755727, BOARD: generic, EABI: aarch64, DATE: Mon Jun  1 09:28:48 PM UTC",
    "4.8.0.76",
    "1.26.4",
    "10.16.2.10-1+cuda13.2",
)


def absent() -> str:
    """What keeps this machine from making and booting such roots; empty where nothing does."""
    for program in ("mmdebstrap", "mosquitto"):
        if shutil.which(program) is None:
            return program
    return booted.absent()


def install(
    root: Path,
    wheels: Path,
    *,
    before: Sequence[str] = (),
    run_by: str = "bash",
    script: Path = ROOT / "deploy/install.sh",
    **more: str,
) -> subprocess.CompletedProcess[str]:
    """Run install.sh for ``root`` with the interpreter of Debian 12.

    Args:
        root: the installer's DESTDIR.
        wheels: all that it may install.
        before: words of the command before its own.
        run_by: the shell.
        script: of another checkout.
        more: variables of its environment; an empty one is left out.
    """
    python = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    told = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PYTHON": python, "DESTDIR": str(root), **more}
    environment = {name: value for name, value in {**os.environ, **told}.items() if value}
    command = [*before, run_by, str(script)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def interpreter(release: str) -> Path | None:
    """The prefix of a CPython of that release on this machine, which may be laid into another."""
    folders = [Path(path) for path in os.environ.get("PATH", "").split(":")]
    for folder in [*folders, *sorted((Path.home() / ".pyenv/versions").glob(f"{release}.*/bin"))]:
        asked = [str(folder / f"python{release}"), "-I", "-c", "import sys; print(sys.base_prefix)"]
        try:
            ended = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30)
        except OSError:
            continue
        if ended.returncode == 0:
            return Path(ended.stdout.strip())
    return None


def download(folder: Path, release: str, *arguments: str) -> None:
    """Wheels for ``release`` on this architecture.

    Raises:
        subprocess.CalledProcessError: the index does not answer, or lacks one.
    """
    platforms = [f"manylinux_2_{glibc}_{ARCHITECTURE}" for glibc in range(28, 4, -1)]
    platforms += [f"{name}_{ARCHITECTURE}" for name in ("manylinux2014", "manylinux2010")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += [word for platform in platforms for word in ("--platform", platform)]
    command += ["--python-version", release, "--implementation", "cp", "--abi", f"cp{release.replace('.', '')}"]
    command += ["--abi", "abi3", "--abi", "none", "--ignore-requires-python", "--dest", str(folder), *arguments]
    subprocess.run(command, check=True)


def wheels_of(lock: str, folder: Path) -> None:
    """All wheels of one lock, as the index has them."""
    found = re.search(r"-cp3(\d+)", lock)
    assert found
    download(folder, f"3.{found[1]}", "--require-hashes", "--requirement", str(LOCKS / lock))


def make_debian(target: Path) -> None:
    """A Debian 12 from its packages, with nothing of this machine in it."""
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", str(target)]
    subprocess.run(command, check=True)


def furnish(root: Path, system: System, folder: Path) -> None:
    """Make a Debian what ``system`` says.

    Args:
        root: of that Debian.
        system: what it shall be.
        folder: empty, for what is downloaded on the way.
    """
    if system != DEBIAN_12:
        _lay_interpreter(root, system.python)
    if system.opencv:
        download(folder, system.python, f"opencv-python-headless=={system.opencv}", f"numpy=={system.numpy}")
        target = root / f"usr/lib/python{system.python}/dist-packages"
        for wheel in folder.glob("*.whl"):
            shutil.unpack_archive(wheel, target, "zip")
        shutil.rmtree(next(target.glob("opencv_python*.dist-info")))  # Debian's packages are not pip's
    if system.l4t:
        (root / "etc/nv_tegra_release").write_text(f"{system.l4t}\n# KERNEL_VARIANT: oot\n")
        _install_package(root, folder, "python3-libnvinfer", system.tensorrt)
        _install_package(root, folder, "nvidia-l4t-core", "36.4.3-20250107174145")


def _lay_interpreter(root: Path, release: str) -> None:
    prefix = interpreter(release)
    assert prefix is not None
    name = f"python{release}"
    shutil.copy2(prefix / "bin" / name, root / "usr/bin" / name)
    for library in (prefix / "lib").glob(f"libpython{release}.so*"):
        shutil.copy2(library, root / "usr/lib" / library.name)
    left_out = shutil.ignore_patterns("site-packages", "test", "__pycache__", "idlelib", "tkinter")
    shutil.copytree(prefix / "lib" / name, root / "usr/lib" / name, ignore=left_out, dirs_exist_ok=True)
    subprocess.run(["chroot", str(root), "ldconfig"], check=True)
    # Debian's interpreters look into these two; one from elsewhere has to be told.
    packages = root / "usr/lib" / name / "site-packages"
    packages.mkdir(exist_ok=True)
    (root / "usr/lib" / name / "dist-packages").mkdir(exist_ok=True)
    (packages / "debian.pth").write_text(f"/usr/lib/{name}/dist-packages\n/usr/lib/python3/dist-packages\n")


def _install_package(root: Path, folder: Path, name: str, version: str) -> None:
    """A package of that name and version, with nothing in it."""
    made = folder / name
    (made / "DEBIAN").mkdir(parents=True)
    control = (
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: none <none@invalid>\nDescription: none\n"
    )
    (made / "DEBIAN/control").write_text(control)
    subprocess.run(["dpkg-deb", "--build", str(made), str(root / f"{name}.deb")], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["chroot", str(root), "dpkg", "--install", f"/{name}.deb"], check=True, stdout=subprocess.DEVNULL)
    (root / f"{name}.deb").unlink()


@contextmanager
def overlay(lower: Path, folder: Path) -> Iterator[booted.Machine]:
    """A machine whose files are ``lower``'s, and whose changes are thrown away."""
    memory, root = folder / "memory", folder / "root"
    mounted: list[Path] = []
    try:
        for target, words in ((memory, "-t tmpfs -o size=6g,mode=0755 tmpfs"), (root, "-t overlay overlay -o")):
            target.mkdir()
            options = words.split()
            if target == root:
                (memory / "upper").mkdir()
                (memory / "work").mkdir()
                options.append(f"lowerdir={lower},upperdir={memory}/upper,workdir={memory}/work")
            subprocess.run(["mount", *options, str(target)], check=True)
            mounted.append(target)
        yield booted.Machine(root)
    finally:
        for target in reversed(mounted):
            subprocess.run(["umount", str(target)], check=False)
