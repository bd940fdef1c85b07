"""Writes the lock files beside it: for each interpreter and architecture one wheel a package, with its hash.

    pip install uv packaging && python deploy/locks/regenerate.py

uv resolves, because it evaluates markers for the machine that a lock is for; pip's --platform and --python-version
leave them to the interpreter that runs it. Of what uv offers, each lock keeps the one wheel that such a machine takes,
so that nothing is built there and a lock stays short enough to be read.
"""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1] / "pyproject.toml"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
"""JetPack 6 and 7 bring the first and third, Debian 12 and 13 the others."""
ARCHITECTURES = ("aarch64", "x86_64")
GLIBC_MINOR = 28
"""Of 2.28: older than that of every system above."""
BUILD_TOOL = "setuptools>=77.0.3"
"""install.sh builds our own wheel in the new environment, and nothing unlocked is fetched for that."""
EXTRAS = ("torch", "bundles")
"""Those that a device may need: they open .pt files and tell who signed weights."""
SYSTEM_OPENCV = ("numpy<2", BUILD_TOOL)
"""JetPack's OpenCV is built for NumPy 1, as is Ubuntu 24.04's. No NumPy 1 has wheels for Python 3.13."""


@dataclass(frozen=True)
class Wheel:
    """The file of one package that a machine takes."""

    name: str
    version: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Machine:
    """An interpreter on an architecture."""

    python: str
    architecture: str

    @property
    def name(self) -> str:
        """Like ``aarch64-cp310``, with which each of its locks begins."""
        return f"{self.architecture}-cp{self.python.replace('.', '')}"

    def tags(self) -> list[Tag]:
        """What its pip can install, best first."""
        major, minor = map(int, self.python.split("."))
        platforms = [f"manylinux_2_{glibc}_{self.architecture}" for glibc in range(GLIBC_MINOR, 4, -1)]
        platforms += [f"{older}_{self.architecture}" for older in ("manylinux2014", "manylinux2010", "manylinux1")]
        return [
            *cpython_tags((major, minor), platforms=platforms),
            *compatible_tags((major, minor), f"cp{major}{minor}", platforms),
        ]


def resolve(machine: Machine, *arguments: str, also: tuple[str, ...] = (), without: str = "") -> dict[str, Wheel]:
    """The wheels of pyproject.toml's requirements and of ``also``.

    Args:
        machine: what they are for.
        arguments: more of uv's, like an extra.
        also: requirements beside the project's own; they bound those too.
        without: the distribution that this machine has from elsewhere; empty: none.

    Raises:
        subprocess.CalledProcessError: uv found no set of wheels, and has said why.
        LookupError: a package has no wheel for this machine.
    """
    with tempfile.TemporaryDirectory() as folder:
        more, override, answer = (Path(folder, name) for name in ("also.in", "override.txt", "pylock.toml"))
        more.write_text("\n".join(also), encoding="utf-8")
        override.write_text(f"{without}; python_version < '0'\n" if without else "", encoding="utf-8")
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", str(PROJECT), str(more), *arguments]
        command += ["--override", str(override), "--python-version", machine.python, "--only-binary", ":all:"]
        command += ["--python-platform", f"{machine.architecture}-manylinux_2_{GLIBC_MINOR}"]
        subprocess.run([*command, "--format", "pylock.toml", "--output-file", str(answer)], check=True)
        packages = tomllib.loads(answer.read_text(encoding="utf-8"))["packages"]
    return {package["name"]: _taken(package, machine.tags()) for package in packages}


def _taken(package: dict[str, Any], tags: list[Tag]) -> Wheel:
    ranks = {tag: rank for rank, tag in enumerate(tags)}
    offers = []
    for wheel in package.get("wheels", []):
        name, version, _, offered = parse_wheel_filename(wheel["url"].rpartition("/")[2])
        if fitting := [ranks[tag] for tag in offered if tag in ranks]:
            offers.append((min(fitting), Wheel(name, str(version), wheel["hashes"]["sha256"], wheel["size"])))
    if not offers:
        raise LookupError(f"{package['name']} {package['version']} has no wheel for this machine")
    return min(offers, key=lambda offer: offer[0])[1]


def lines(title: str, wheels: dict[str, Wheel], today: str) -> Iterator[str]:
    """A lock file. install.sh reads the size and the date in its first line."""
    size_mb = round(sum(wheel.size_bytes for wheel in wheels.values()) / 1e6) or 1
    yield f"# {title}: {len(wheels)} wheels, {size_mb} MB to download; resolved {today}."
    yield "# Written by regenerate.py beside it, from pyproject.toml."
    for wheel in sorted(wheels.values(), key=lambda wheel: wheel.name):
        yield f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}"


def locks(machine: Machine) -> Iterator[tuple[str, str, dict[str, Wheel]]]:
    """File name, title and content of each lock of one machine."""
    where = f"CPython {machine.python} on {machine.architecture}"
    own = resolve(machine, also=(BUILD_TOOL,))
    yield f"{machine.name}.lock", where, own
    common = set(own.values())
    if machine.python != "3.13":
        system = resolve(machine, also=SYSTEM_OPENCV, without="opencv-python-headless")
        yield f"{machine.name}-system-opencv.lock", f"{where}, beside the system's OpenCV for NumPy 1", system
        common &= set(system.values())
    pins = tuple(sorted(f"{wheel.name}=={wheel.version}" for wheel in common))
    for extra in EXTRAS:
        found = resolve(machine, "--extra", extra, also=pins)
        yield (
            f"{machine.name}-{extra}.lock",
            f"{where}, what the extra {extra} adds to either",
            {name: wheel for name, wheel in found.items() if name not in own},
        )


def main() -> None:
    """Write all of them; a lock of a machine that is not listed any more is removed."""
    today = dt.datetime.now(tz=dt.timezone.utc).date().isoformat()
    written = set()
    for machine in (Machine(python, architecture) for python in PYTHONS for architecture in ARCHITECTURES):
        for name, title, wheels in locks(machine):
            path = HERE / name
            content = "\n".join(lines(title, wheels, today)) + "\n"
            if not path.exists() or _undated(path.read_text(encoding="utf-8")) != _undated(content):
                path.write_text(content, encoding="utf-8")
            written.add(path)
    for path in set(HERE.glob("*.lock")) - written:
        path.unlink()


def _undated(content: str) -> str:
    return re.sub(r"resolved \d{4}-\d\d-\d\d", "", content)


if __name__ == "__main__":
    main()
