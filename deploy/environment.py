"""What install.sh asks of a Python environment, answered by that environment's own interpreter.

Nothing but the standard library and pip is needed, for the environment may be half made:

    python -I environment.py whole ROOT RELEASE     exit code 0: nothing of it is missing or damaged
    python -I environment.py sources                where pip is told that packages come from, as NAME=VALUE with a NUL
    python -I environment.py requires EXTRA ...     what extras of the installed product add, one requirement a line
    python -I environment.py imports [PATH ...]     import what the service needs; PATHs are the system's packages
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import importlib
import importlib.metadata
import importlib.util
import marshal
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PRODUCT = "vajra-edge"
PYC_HEAD_BYTES = 16
"""Of a compiled module, see PEP 552."""
SOURCES = (
    *("index-url", "extra-index-url", "find-links", "no-index", "proxy", "cert", "client-cert", "trusted-host"),
    *("timeout", "default-timeout", "retries", "resume-retries", "keyring-provider", "use-feature"),
)
"""Options of pip that say where packages come from, and how one gets there; use-feature: "truststore"."""
OPENCV = "opencv-python-headless"
NEEDED = {
    "numpy": "numpy",
    OPENCV: "cv2",
    "av": "av",
    "onnx": "onnx",
    "onnxslim": "onnxslim",
    "onnxruntime": "onnxruntime",
    "paho-mqtt": "paho.mqtt.client",
    "pydantic": "pydantic",
    "pydantic-settings": "pydantic_settings",
    "orjson": "orjson",
    "typer": "typer",
    "pyyaml": "yaml",
    "rich": "rich",
    "typing-extensions": "typing_extensions",
    PRODUCT: "vajra_edge.cli.app",
}
"""Distribution to module, in the order in which they build upon each other."""

TRY = """
import importlib, sys
found = importlib.import_module(sys.argv[1])
if sys.argv[1] == "cv2":
    import numpy
    assert found.resize(numpy.zeros((4, 4, 3), numpy.uint8), (2, 2)).shape == (2, 2, 3)
"""
"""In a process of its own: a library for another processor, or for another NumPy, may end it."""


def whole(root: Path, release: str) -> bool:
    """Whether each file of each package is as pip noted it, and the interpreter is of that release and knows its place.

    What a power cut leaves is of no length, of another, or of the right length and full of zeros. Scripts are not
    looked at, for install.sh writes them anew.
    """
    if Path(sys.prefix).resolve() != root.resolve() or ".".join(map(str, sys.version_info[:2])) != release:
        return False
    if not {"home", "include-system-site-packages"} <= _names(root / "pyvenv.cfg"):
        return False
    folders = [path for path in sys.path if root.resolve() in Path(path).resolve().parents]
    found = list(importlib.metadata.distributions(path=folders))
    named = {distribution.metadata["Name"] for distribution in found}
    return (
        {"pip", PRODUCT} <= named
        and all(_intact(distribution) for distribution in found)
        and all(
            _loads(path) for folder in folders for path in Path(folder).rglob(f"*.{sys.implementation.cache_tag}.pyc")
        )
    )


def _names(settings: Path) -> set[str]:
    return {line.partition("=")[0].strip() for line in settings.read_text(encoding="utf-8").splitlines()}


def _intact(distribution: importlib.metadata.Distribution) -> bool:
    """A package is known by the list of its files, which is lost or cut as easily as they are."""
    record = distribution.read_text("RECORD") or ""
    if not record.endswith("\n") or "\0" in record or not distribution.files:
        return False
    for file in distribution.files:
        if ".." in file.parts or file.hash is None:
            continue
        try:
            digest = hashlib.new(file.hash.mode, Path(str(file.locate())).read_bytes()).digest()
        except OSError:
            return False
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            return False
    return True


def _loads(compiled: Path) -> bool:
    """Python takes a file with a good head for a good one, and fails over its body.

    Reading it here as Python would tells nobody more than importing it does.
    """
    try:
        content = compiled.read_bytes()
        return len(content) < PYC_HEAD_BYTES or marshal.loads(content[PYC_HEAD_BYTES:]) is not None  # noqa: S302
    except (OSError, ValueError, EOFError, TypeError):
        return False


def sources(environment: Mapping[str, str]) -> Iterator[str]:
    """What pip.conf and ``environment`` say of ``SOURCES``, as a variable each: pip's own order decides.

    Raises:
        OSError, UnicodeError, configparser.Error: a pip.conf cannot be read.
    """
    said: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for path in _pip_configs(environment.get("PIP_CONFIG_FILE", "")):
        parser = configparser.RawConfigParser()
        parser.read(path, encoding="utf-8")
        for section in said.keys() & set(parser.sections()):
            said[section].update((name.replace("_", "-"), value) for name, value in parser.items(section))
    in_variables = {
        name[4:].lower().replace("_", "-"): value for name, value in environment.items() if name.startswith("PIP_")
    }
    for name, value in {**said["global"], **said["install"], **in_variables}.items():
        if name in SOURCES and value:
            yield f"PIP_{name.upper().replace('-', '_')}={' '.join(value.split())}"


def _pip_configs(named: str) -> list[str]:
    """The files that pip reads, the one that counts most last; ``named`` by PIP_CONFIG_FILE."""
    from pip._internal.configuration import get_configuration_files

    if named == os.devnull:
        return []
    found = {str(kind): paths for kind, paths in get_configuration_files().items()}
    if named and Path(named).exists():
        return [*found["global"], *found["site"], named]
    return [*found["global"], *found["user"], *found["site"]]


def requires(extras: Sequence[str]) -> Iterator[str]:
    """What ``extras`` of the installed product add to its own requirements, for this interpreter."""
    from pip._vendor.packaging.requirements import Requirement

    for wanted in map(Requirement, importlib.metadata.requires(PRODUCT) or ()):
        marker, wanted.marker = wanted.marker, None
        if marker is None or marker.evaluate({"extra": ""}):
            continue
        if not any(marker.evaluate({"extra": extra}) for extra in extras):
            continue
        if wanted.name == PRODUCT:
            yield from requires(sorted(wanted.extras))
        else:
            yield str(wanted)


def imports(system: Sequence[str]) -> str:
    """The first of what the service needs that cannot be imported, with the remedy; empty where there is none."""
    for distribution, module in NEEDED.items():
        ended = subprocess.run(
            [sys.executable, "-I", "-c", TRY, module], capture_output=True, text=True, errors="replace", check=False
        )
        if ended.returncode == 0:
            continue
        reason = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        if ended.returncode < 0:
            reason = f"the process was ended by signal {-ended.returncode}; {reason}"
        return f"{module} cannot be imported: {reason}; {_remedy(distribution, module, system)}"
    return ""


def _remedy(distribution: str, module: str, system: Sequence[str]) -> str:
    spec = importlib.util.find_spec(module.partition(".")[0])
    origin = Path(spec.origin) if spec and spec.origin else None
    if origin is None or not any(Path(path) in origin.parents for path in system):
        return f"run install.sh again; if it stays so, report it with the versions of Python and {distribution}"
    if "local" in origin.parts:
        return f"pip put it beside the system's packages ({origin}): sudo python3 -m pip uninstall opencv-python"
    return f"install the system's package anew: apt-get install --reinstall $(dpkg -S {origin} | cut -d: -f1)"


def main(verb: str, *arguments: str) -> int:
    """Answer one question; the exit code is 1 for a no."""
    if verb == "whole":
        root, release = arguments
        return int(not whole(Path(root), release))
    if verb == "sources":
        return _print_sources()
    if verb == "requires":
        print("\n".join(requires(arguments)))
        return 0
    refused = imports(arguments)
    if refused:
        print(f"install.sh: {refused}", file=sys.stderr)
    return int(bool(refused))


def _print_sources() -> int:
    try:
        print("".join(f"{source}\0" for source in sources(os.environ)), end="")
    except (OSError, UnicodeError, configparser.Error) as error:
        print(
            f"install.sh: a pip.conf cannot be read: {error}; mend it, or set PIP_CONFIG_FILE=/dev/null",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
