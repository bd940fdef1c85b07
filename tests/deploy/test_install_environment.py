"""deploy/environment.py: whether an environment is whole, what extras add, what cannot be imported."""

from __future__ import annotations

import base64
import hashlib
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy" / "environment.py"
RELEASE = f"{sys.version_info.major}.{sys.version_info.minor}"


def ask(environment: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(environment / "bin/python"), "-I", str(SCRIPT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def add_package(packages: Path, name: str, metadata: str = "", **modules: str) -> Path:
    """A package as pip leaves it: modules, compiled ones, and a list of both with hashes."""
    info = packages / f"{name.replace('-', '_')}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{metadata}")
    record = []
    for module, text in modules.items():
        path = packages / module / "__init__.py"
        path.parent.mkdir()
        path.write_text(text)
        compiled = Path(py_compile.compile(str(path), doraise=True) or "")
        record.append(f"{compiled.relative_to(packages)},,")
    for path in [*(packages / module / "__init__.py" for module in modules), info / "METADATA"]:
        digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
        record.append(f"{path.relative_to(packages)},sha256={digest},{path.stat().st_size}")
    record += [f"{info.name}/RECORD,,", f"../../../bin/{name},sha256=AAAA,9"]
    (info / "RECORD").write_text("\n".join(record) + "\n")
    return info


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    """An environment that has the product and, as stand-ins, pip and a library."""
    made = tmp_path_factory.mktemp("pattern") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(made)], check=True)
    packages = next(made.glob("lib/python3*/site-packages"))
    add_package(packages, "pip", pip="")
    add_package(packages, "thing", thing="value = 'a text that is long enough to be damaged in its middle'\n")
    add_package(packages, "vajra-edge", vajra_edge="'''The product.'''\n")
    return made


@pytest.fixture
def environment(pattern, tmp_path):
    """One that may be harmed."""
    return shutil.copytree(pattern, tmp_path / "environment", symlinks=True)


def packages_of(environment: Path) -> Path:
    return next(environment.glob("lib/python3*/site-packages"))


def test_an_environment_with_all_its_files_is_whole(environment):
    assert ask(environment, "whole", str(environment), RELEASE).returncode == 0


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def late_zeros(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:24] + b"\0" * (len(content) - 24))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nonexistent/file")


HARMS = (Path.unlink, empty, zeros, half, folder, elsewhere)
PLACES = ("thing/__init__.py", "vajra_edge/__init__.py", "thing-1.dist-info/RECORD", "thing-1.dist-info/METADATA")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_whatever_a_power_cut_left_of_a_file_the_environment_is_not_whole(environment, place, harm):
    harm(packages_of(environment) / place)
    assert ask(environment, "whole", str(environment), RELEASE).returncode == 1


@pytest.mark.parametrize("harm", [half, late_zeros], ids=lambda harm: harm.__name__)
def test_a_compiled_module_with_a_good_head_and_a_bad_body_counts(environment, harm):
    (compiled,) = packages_of(environment).glob("thing/__pycache__/*.pyc")
    harm(compiled)
    assert ask(environment, "whole", str(environment), RELEASE).returncode == 1


def test_an_empty_compiled_module_does_not_for_python_makes_it_anew(environment):
    (compiled,) = packages_of(environment).glob("thing/__pycache__/*.pyc")
    empty(compiled)
    assert ask(environment, "whole", str(environment), RELEASE).returncode == 0


@pytest.mark.parametrize("name", ["pip", "vajra_edge"])
def test_without_pip_or_the_product_it_is_not_whole(environment, name):
    shutil.rmtree(packages_of(environment) / f"{name}-1.dist-info")
    assert ask(environment, "whole", str(environment), RELEASE).returncode == 1


@pytest.mark.parametrize("harm", [Path.unlink, empty], ids=lambda harm: harm.__name__)
def test_an_environment_that_forgot_that_it_is_one_is_not_whole(environment, harm):
    """Its interpreter is then the system's, and finds the system's packages whole."""
    harm(environment / "pyvenv.cfg")
    assert ask(environment, "whole", str(environment), RELEASE).returncode != 0


def test_an_environment_of_another_release_is_not_whole(environment):
    assert ask(environment, "whole", str(environment), "3.99").returncode == 1


@pytest.mark.parametrize("path", ["absent", "file"])
def test_where_there_is_no_environment_none_is_whole(tmp_path, path):
    (tmp_path / "file").touch()
    script = (ROOT / "deploy/install.sh").read_text().split("\ncase ")[0].replace("\ncd ", "\n: ")
    command = f'{script}\nwhole "{tmp_path / path}" {RELEASE}'
    assert subprocess.run(["bash", "-c", command], cwd=ROOT, check=False).returncode != 0


EXTRAS = """Requires-Dist: base>=1
Requires-Dist: torch<2.11; platform_machine == 'nowhere' and extra == 'torch'
Requires-Dist: torch>=2.10; platform_machine != 'nowhere' and extra == 'torch'
Requires-Dist: vajra-edge[torch]; extra == 'export'
Requires-Dist: script>=3; extra == 'export'
Provides-Extra: torch
Provides-Extra: export
"""


def test_what_extras_add_is_told_without_what_is_required_anyway(tmp_path):
    made = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(made)], check=True)
    add_package(packages_of(made), "vajra-edge", EXTRAS)
    assert ask(made, "requires", "torch").stdout == "torch>=2.10\n"
    assert ask(made, "requires", "export").stdout == "torch>=2.10\nscript>=3\n"


def test_all_that_the_product_requires_is_imported():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import environment
    finally:
        sys.path.remove(str(SCRIPT.parent))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {Requirement(line).name for line in project["dependencies"]}
    assert required - {"tomli"} == set(environment.NEEDED) - {"vajra-edge"}


STAND_INS = {
    "av": "",
    "cv2": "def resize(image, size):\n    import numpy\n    return numpy.zeros((*size, 3))\n",
    "onnx": "",
    "onnxslim": "",
    "onnxruntime": "",
    "paho": "",
    "pydantic": "",
    "pydantic_settings": "",
    "orjson": "",
    "typer": "",
    "yaml": "",
    "rich": "",
    "typing_extensions": "",
    "numpy": "uint8 = int\ndef zeros(shape, kind=None):\n    return type('Array', (), {'shape': shape})\n",
}


@pytest.fixture
def complete(environment):
    """One in which a stand-in of everything can be imported."""
    packages = packages_of(environment)
    for name, text in STAND_INS.items():
        add_package(packages, f"{name}-package", **{name: text})
    for name in ("paho/mqtt/client", "vajra_edge/cli/app"):
        path = packages / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return environment


def test_an_environment_in_which_all_can_be_imported_is_taken(complete):
    ended = ask(complete, "imports")
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise ImportError('numpy.core.multiarray failed to import')", "numpy.core.multiarray failed to import"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "ended by signal 4"),
        ("def resize(image, size): raise SystemError('built for another numpy')", "built for another numpy"),
    ],
    ids=["fails", "ends the process", "fails when it is used"],
)
def test_what_cannot_be_imported_is_named_with_its_reason(complete, text, reason):
    (packages_of(complete) / "cv2/__init__.py").write_text(text)
    ended = ask(complete, "imports")
    assert ended.returncode == 1
    assert ended.stderr.startswith("install.sh: cv2 cannot be imported: ")
    assert reason in ended.stderr


@pytest.mark.parametrize(
    ("place", "remedy"),
    [
        ("usr/lib/python3/dist-packages", "apt-get install --reinstall $(dpkg -S "),
        ("usr/local/lib/python3.10/dist-packages", "sudo python3 -m pip uninstall opencv-python"),
    ],
)
def test_an_opencv_of_the_system_that_fails_is_named_with_its_remedy(complete, tmp_path, place, remedy):
    system = tmp_path / place
    system.mkdir(parents=True)
    (packages_of(complete) / "cv2").rename(system / "cv2")
    shutil.rmtree(system / "cv2/__pycache__")
    (system / "cv2/__init__.py").write_text("raise ImportError('built for NumPy 1')")
    (packages_of(complete) / "jetpack.pth").write_text(f"{system}\n")
    ended = ask(complete, "imports", str(system))
    assert ended.returncode == 1
    assert "built for NumPy 1" in ended.stderr
    assert remedy in ended.stderr


PIP_CONF = """[global]
index-url = https://index.invalid/simple
find_links = /a
  /b
user = true
target = /elsewhere
no-binary = :all:
[install]
index-url = https://other.invalid/simple
require-virtualenv = true
[download]
proxy = http://nobody.asks
"""
DOES_NOT_LEAD = {"PIP_TARGET": "/elsewhere", "PIP_DRY_RUN": "1", "PIP_NO_INDEX": "", "PIP_PYTHON": "/usr/bin/python3"}


def sources(tmp_path: Path, conf: bytes, **variables: str) -> subprocess.CompletedProcess[str]:
    """Asked with that pip.conf in a home of its own, by the interpreter whose pip the tests have."""
    home = tmp_path / "home"
    (home / ".config/pip").mkdir(parents=True)
    (home / ".config/pip/pip.conf").write_bytes(conf)
    environment = {"HOME": str(home), "XDG_CONFIG_DIRS": str(tmp_path), **variables}
    command = [sys.executable, "-I", str(SCRIPT), "sources"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_where_packages_come_from_is_kept_of_what_pip_is_told_and_nothing_else(tmp_path):
    ended = sources(tmp_path, PIP_CONF.encode(), PIP_CERT="/a.crt", **DOES_NOT_LEAD)
    machine_says = set(sources(tmp_path / "without", b"").stdout.split("\0"))
    kept = {"PIP_INDEX_URL=https://other.invalid/simple", "PIP_FIND_LINKS=/a /b", "PIP_CERT=/a.crt"}
    assert set(ended.stdout.split("\0")) - machine_says == kept


def test_a_variable_counts_more_than_a_pip_conf(tmp_path):
    ended = sources(tmp_path, PIP_CONF.encode(), PIP_INDEX_URL="https://mine.invalid/simple")
    assert "PIP_INDEX_URL=https://mine.invalid/simple\0" in ended.stdout


def test_a_file_that_a_variable_names_takes_the_place_of_that_in_the_home(tmp_path):
    named = tmp_path / "named.conf"
    named.write_text("[global]\nproxy = http://proxy.invalid\n")
    said = sources(tmp_path, PIP_CONF.encode(), PIP_CONFIG_FILE=str(named)).stdout
    assert "PIP_PROXY=http://proxy.invalid\0" in said
    assert "invalid/simple" not in said


def test_no_pip_conf_is_read_where_a_variable_says_so(tmp_path):
    assert sources(tmp_path, PIP_CONF.encode(), PIP_CONFIG_FILE="/dev/null").stdout == ""


@pytest.mark.parametrize("conf", [b"index-url = x\n", b"[global]\nx = \xff\n", b"[global\n"])
def test_a_pip_conf_that_cannot_be_read_is_named_with_the_remedy(tmp_path, conf):
    ended = sources(tmp_path, conf)
    assert ended.returncode == 1
    assert ended.stderr.startswith("install.sh: a pip.conf cannot be read: ")
    assert ended.stderr.endswith("; mend it, or set PIP_CONFIG_FILE=/dev/null\n")
