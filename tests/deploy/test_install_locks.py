"""The lock files of deploy/locks: complete, hashed, and to be had for the boards that they are for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "deploy" / "locks"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAMES = sorted(path.name for path in LOCKS.glob("*.lock"))
FIRST = re.compile(r"# CPython 3\.\d+ on \w+.*: (\d+) wheels, (\d+) MB to download; resolved \d{4}-\d\d-\d\d\.")
LINE = re.compile(r"([a-z0-9-]+)==(\S+) --hash=sha256:[0-9a-f]{64}")
ABSENT_INDEX = "absent here: a package index that answers, which the locks are resolved with"


def lines(name: str) -> list[str]:
    return [line for line in (LOCKS / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def pins(name: str) -> dict[str, str]:
    """Package to version."""
    return {canonicalize_name(line.partition("==")[0]): line.split()[0].partition("==")[2] for line in lines(name)}


def machine(name: str) -> tuple[str, str]:
    """Architecture and release of a lock's name."""
    found = re.match(r"(aarch64|x86_64)-cp3(\d+)", name)
    assert found
    return found[1], f"3.{found[2]}"


def extra_of(name: str) -> str:
    """Whose lock this is; empty: that of the product itself."""
    return next((extra for extra in ("torch", "bundles") if name.endswith(f"-{extra}.lock")), "")


def test_every_board_and_debian_has_its_locks():
    for architecture in ("aarch64", "x86_64"):
        for release in ("310", "311", "312", "313"):
            assert {f"{architecture}-cp{release}{extra}.lock" for extra in ("", "-torch", "-bundles")} <= set(NAMES)
        assert {f"{architecture}-cp{release}-system-opencv.lock" for release in ("310", "312")} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_line_is_one_wheel_with_its_hash_and_the_first_tells_how_much_it_is(name):
    assert [line for line in lines(name) if not LINE.fullmatch(line)] == []
    said = FIRST.match((LOCKS / name).read_text(encoding="utf-8"))
    assert said
    assert int(said[1]) == len(lines(name)) == len(pins(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_satisfies_what_the_project_asks_for(name):
    """A requirement that was changed without its locks would be found out on the board otherwise."""
    architecture, release = machine(name)
    here = {"python_version": release, "platform_machine": architecture, "extra": "", "sys_platform": "linux"}
    asked = PROJECT["optional-dependencies"][extra] if (extra := extra_of(name)) else PROJECT["dependencies"]
    wanted = [line for line in map(Requirement, asked) if line.marker is None or line.marker.evaluate(here)]
    if name.endswith("-system-opencv.lock"):
        wanted = [line for line in wanted if line.name != "opencv-python-headless"]
        assert not any(package.startswith("opencv") for package in pins(name))
        assert pins(name)["numpy"].startswith("1.")
    assert [str(line) for line in wanted if pins(name).get(line.name, "none") not in line.specifier] == []


@pytest.mark.parametrize("release", ["310", "311", "312", "313"])
def test_torch_of_a_board_is_for_its_processor_and_small(release):
    said = FIRST.match((LOCKS / f"aarch64-cp{release}-torch.lock").read_text(encoding="utf-8"))
    assert said
    assert int(said[2]) < 200
    assert not any(package.startswith(("nvidia", "cuda")) for package in pins(f"aarch64-cp{release}-torch.lock"))


def test_what_an_extra_adds_goes_with_either_lock():
    for name in NAMES:
        if extra := extra_of(name):
            base = name.replace(f"-{extra}.lock", ".lock")
            assert not set(pins(name)) & set(pins(base))


def test_every_kind_of_lock_is_named_where_an_installation_without_a_network_is_explained():
    page = (ROOT / "deploy/docs/operations.md").read_text(encoding="utf-8")
    kinds = {name for name in NAMES if name.startswith("aarch64-cp312")}
    assert kinds == set(re.findall(r"^\| `(aarch64-[^`]+\.lock)` \|", page, re.MULTILINE))


def test_a_package_of_another_version_is_seen_as_unsatisfying():
    """The check above would otherwise pass on anything."""
    assert "1.26.4" not in Requirement("numpy>=2").specifier


def index_answers() -> bool:
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", "--no-cache-dir"]
    command += ["--retries", "0", "--timeout", "20", "--ignore-installed", "mdurl==0.1.2"]
    return subprocess.run(command, capture_output=True, check=False, timeout=200).returncode == 0


@pytest.mark.long("asks the package index for every wheel; the form of the locks is looked at always")
@pytest.mark.parametrize(
    "name", [name for name in NAMES if name.startswith("aarch64") and machine(name)[1] in ("3.10", "3.12")]
)
def test_a_board_would_get_every_wheel_of_its_lock(name, tmp_path):
    if not index_answers():
        pytest.skip(ABSENT_INDEX)
    architecture, release = machine(name)
    abi = f"cp{release.replace('.', '')}"
    # To pip a system named so is not an older one too, and what a package says of Python it compares with its own.
    platforms = [f"manylinux_2_{glibc}_{architecture}" for glibc in range(17, 29)] + [f"manylinux2014_{architecture}"]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--target", str(tmp_path)]
    command += [word for platform in platforms for word in ("--platform", platform)]
    command += ["--python-version", release, "--implementation", "cp", "--abi", abi, "--abi", "abi3", "--abi", "none"]
    command += [
        "--only-binary",
        ":all:",
        "--ignore-requires-python",
        "--require-hashes",
        "--requirement",
        str(LOCKS / name),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert ended.returncode == 0, ended.stderr
    assert len(re.findall(r"-[^ ]+", ended.stdout.split("Would install")[1])) == len(lines(name))
