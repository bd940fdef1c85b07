"""Interpreter: the Python that opens ``.pt`` files, which need not be the daemon's own, and whether its torch will do.

JetPack 6 ships torch 2.5, which no daemon should replace; ``[weights] python`` names a virtual environment with a newer
one. That needs torch and onnx (torch's exporter reads its own output with it) and nothing else: of the daemon's
packages, this one alone is put on its path.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from vajra_edge.wording import Setting, say

TORCH_FLOOR = (2, 10)
REMEDY = say(
    "make a Python that has it (python3 -m venv /opt/vajra-torch && /opt/vajra-torch/bin/pip install onnx && "
    "/opt/vajra-torch/bin/pip install 'torch>=2.10' --index-url https://download.pytorch.org/whl/cpu) and ",
    Setting.WEIGHTS_PYTHON.to('"/opt/vajra-torch/bin/python"'),
    ", or give an .onnx file",
)
_ASK = """
from importlib import metadata
found = {str(item.metadata["Name"]).lower(): item.version for item in metadata.distributions()}
print(found.get("torch", ""), found.get("onnx", ""), sep="\\n")
"""
_ASK_TIMEOUT_S = 60.0


def problem(python: Path | None = None) -> str | None:
    """Why ``.pt`` files cannot be opened, in words for an operator; None if they can. torch is not imported.

    Args:
        python: ``[weights] python``; None: the Python that asks.
    """
    try:
        torch, onnx = _versions(python)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return f"{python} does not run: {error}"
    if not torch or not onnx:
        return f"{python or sys.executable} has no {'onnx' if torch else 'torch'}"
    return too_old(torch)


def too_old(version: str) -> str | None:
    """Why this version of torch must not open a file from elsewhere; None if it may."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) >= TORCH_FLOOR:
        return None
    return (
        f"torch {version} is too old to open a .pt file safely: before 2.10 a crafted file can run code "
        "(CVE-2025-32434, CVE-2026-24747)"
    )


def _versions(python: Path | None) -> tuple[str, str]:
    """Of torch and onnx, empty where absent."""
    if python is None:
        return _installed("torch"), _installed("onnx")
    asked = subprocess.run(
        [str(python), "-I", "-c", _ASK], capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=True
    )
    torch, onnx = asked.stdout.split("\n")[:2]
    return torch, onnx


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
