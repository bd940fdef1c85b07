"""Torch export under another Python, started by path with ``-I``: only its own packages are in reach.

Reads one JSON order from stdin, writes the ONNX file that the order names, and answers with one JSON line on stdout.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path


def main() -> int:
    """Trace what stdin orders.

    Returns:
        0, or 1 when the answer is an error.
    """
    _put_package_on_path()
    from vajra_edge.errors import VajraError
    from vajra_edge.graph import torch_export

    fields = json.load(sys.stdin)
    output = Path(fields.pop("output"))
    size = fields["resolution_hw"]
    order = torch_export.Order(
        **{**fields, "path": Path(fields["path"]), "resolution_hw": tuple(size) if size else None}
    )
    try:
        traced = torch_export.trace(order)
    except VajraError as error:
        answer = {"error": type(error).__name__, "message": str(error.message), "remedy": str(error.remedy)}
        sys.stdout.write(json.dumps(answer) + "\n")
        return 1
    output.write_bytes(traced.onnx_bytes)
    answer = {name: value for name, value in vars(traced).items() if name != "onnx_bytes"}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _put_package_on_path() -> None:
    """Make ``vajra_edge`` importable without the folder it lies in, which holds packages of the daemon's Python."""
    root = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location(
        "vajra_edge", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"no package vajra_edge at {root}")
    package = importlib.util.module_from_spec(spec)
    sys.modules["vajra_edge"] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    sys.exit(main())
