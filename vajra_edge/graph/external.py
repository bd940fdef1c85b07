"""External: tensors that lie in files beside an ONNX file, brought into it.

A location is a path inside the folder of the ONNX file and nothing else: no path out of it, no absolute one, and no
link. A file that somebody gives away names what he likes, and what it names would be read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from math import prod
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from vajra_edge.errors import GraphError

if TYPE_CHECKING:
    import onnx

COMMAND = "python -c \"import onnx; onnx.save(onnx.load('{name}'), 'whole.onnx')\""
"""Writes one file that holds everything."""


def embed(network: onnx.ModelProto, tensors: Iterator[onnx.TensorProto], path: Path, most_bytes: int) -> None:
    """Read what lies in other files into the network, in place.

    Args:
        network: of ``path``.
        tensors: all of it.
        path: of the ONNX file.
        most_bytes: together with what is in the network already.

    Raises:
        GraphError: a file is absent, too short or unreadable, leads out of the folder, or there is too much.
    """
    import onnx

    left = most_bytes - network.ByteSize()
    for tensor in tensors:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        told = {entry.key: entry.value for entry in tensor.external_data}
        offset, length = _numbers(tensor, told)
        length = _expected_bytes(tensor) if length is None else length
        left -= length
        if left < 0:
            raise GraphError(
                f"{path.name} and the files beside it hold more than {most_bytes} bytes",
                remedy="export a smaller network",
            )
        tensor.raw_data = _read(tensor, path, told.get("location", ""), offset, length)
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT


def _numbers(tensor: onnx.TensorProto, told: dict[str, str]) -> tuple[int, int | None]:
    """Offset and length in bytes."""
    try:
        offset, length = int(told.get("offset", "0")), int(told["length"]) if "length" in told else None
    except ValueError:
        offset, length = -1, None
    if offset < 0 or (length is not None and length != _expected_bytes(tensor)):
        raise GraphError(f"tensor {tensor.name!r} has no place in the file that it names", remedy="export it again")
    return offset, length


def _expected_bytes(tensor: onnx.TensorProto) -> int:
    import onnx

    count = prod(max(int(side), 0) for side in tensor.dims)
    try:
        size = int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except (KeyError, ValueError) as error:
        raise GraphError(f"tensor {tensor.name!r} is of no known type", remedy="export it again") from error
    return count * size


def _read(tensor: onnx.TensorProto, path: Path, location: str, offset: int, length: int) -> bytes:
    place = _inside(path, location)
    try:
        with place.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise GraphError(f"{path.name}: {location!r}, where its weights should lie, is no file")
            file.seek(offset)
            content = file.read(length)
    except OSError as error:
        raise GraphError(
            f"{path.name} has its weights in {location!r}, which cannot be read: {error.strerror}",
            remedy=f"copy that file too, beside it, or write one file where both are: {COMMAND.format(name=path.name)}",
        ) from error
    if len(content) < length:
        raise GraphError(
            f"{location!r} is cut short: it should hold tensor {tensor.name!r}",
            remedy="copy it again, beside the .onnx",
        )
    return content


def _inside(path: Path, location: str) -> Path:
    """Where a location is, if it is inside the folder of ``path`` and no link is on the way."""
    parts = PurePosixPath(location.replace("\\", "/")).parts
    if not parts or location.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in location:
        raise GraphError(
            f"{path.name} has its weights in {location[:100]!r}, which is outside its folder",
            remedy=f"write one file where both are: {COMMAND.format(name=path.name)}",
        )
    place = path.parent
    for part in parts:
        place /= part
        if place.is_symlink():
            raise GraphError(
                f"{path.name} has its weights in {location!r}, which is a link",
                remedy="copy the files themselves (cp -L) into one folder",
            )
    return place
