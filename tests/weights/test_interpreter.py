"""Which Python may open .pt files is told without importing torch."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from vajra_edge.weights import interpreter


@pytest.mark.parametrize("version", ["2.10.0", "2.10.0+cpu", "2.13.1", "3.0"])
def test_new_enough(version: str) -> None:
    assert interpreter.too_old(version) is None


@pytest.mark.parametrize("version", ["2.5.0a0+872d972e41.nv24.08", "2.9.1", "1.13.1+cpu", "", "dev"])
def test_too_old_says_why(version: str) -> None:
    assert "CVE-2025-32434" in str(interpreter.too_old(version))


def test_another_python_is_asked(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    assert interpreter.problem(python) == f"{python} has no torch"
    site = next((tmp_path / "venv" / "lib").glob("python3*/site-packages"))
    _install(site, "torch", "2.5.0")
    assert interpreter.problem(python) == f"{python} has no onnx"
    _install(site, "onnx", "1.22.0")
    assert "torch 2.5.0 is too old" in str(interpreter.problem(python))
    (site / "torch-2.5.0.dist-info" / "METADATA").unlink()
    _install(site, "torch", "2.11.0")
    assert interpreter.problem(python) is None


def _install(site: Path, name: str, version: str) -> None:
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_its_own_python_is_asked_too() -> None:
    has_torch = importlib.util.find_spec("torch") is not None
    assert (interpreter.problem() is None) == has_torch


def test_an_absent_python_is_said(tmp_path: Path) -> None:
    assert "does not run" in str(interpreter.problem(tmp_path / "python"))


def test_asking_does_not_import_torch() -> None:
    program = (
        "import sys; from vajra_edge.weights import interpreter; interpreter.problem(); print('torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert asked.stdout.strip() == "False"
