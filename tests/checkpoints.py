"""Checkpoints as upstream writes them, made without upstream: real torch pickles that name upstream's classes."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOLDER = "archive"
NAMES = ("person", "van", "dog")


def random_network(class_count: int = len(NAMES), seed: int = 0, size: str = "nano") -> Any:
    """A VajraV1 with random weights, whose outputs are neither constant nor saturated; torch must be there."""
    import torch

    from vajra_edge.weights.vajra_v1 import VajraV1

    torch.manual_seed(seed)
    network = VajraV1(size, class_count).requires_grad_(requires_grad=False).eval()
    for name, value in network.state_dict().items():
        if "distributed_focal_loss" in name:
            value.copy_(torch.arange(16.0).view(1, 16, 1, 1))
        elif name.endswith("running_var"):
            value.uniform_(1.0, 1.2)
        elif name.endswith(("bias", "running_mean")):
            value.normal_(0, 0.1)
        elif name.endswith("bn.weight"):
            value.uniform_(0.9, 1.1)
        elif value.dim() > 1:
            value.normal_(0, 1.5 / value[0].numel() ** 0.5)
    return network


def stripped(network: Any, **attributes: Any) -> dict[str, Any]:
    """What upstream keeps after training: the network in FP16 under ``model``, and its settings."""
    return {
        "epoch": -1,
        "best_fitness": None,
        "model": as_upstream(network, **attributes).half(),
        "ema": None,
        "optimizer": None,
        "train_args": {"task": "detect", "img_size": 416, "data": "cctv.yaml", "lr0": 0.01},
        "date": "2026-11-22T21:33:34.753823",
        "version": "1.0.6",
    }


def as_upstream(network: Any, **attributes: Any) -> Any:
    """The same module tree made of classes that call themselves upstream's; save it within ``upstream_classes``."""
    import torch

    layers = (torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.SiLU, torch.nn.Identity, torch.nn.Upsample)
    layers += (torch.nn.MaxPool2d, torch.nn.Sequential, torch.nn.ModuleList)

    def copied(module: Any) -> Any:
        if not list(module.children()) and isinstance(module, layers):
            return module
        kind = type(module) if isinstance(module, layers) else _stand_in("vajra.nn.modules", type(module).__name__)
        copy = kind.__new__(kind)
        torch.nn.Module.__init__(copy)
        for name, child in module.named_children():
            copy.add_module(name, copied(child))
        return copy

    root = _stand_in("vajra.nn.vajra", "DetectionModel")()
    root.model = copied(network.model)
    root.names = dict(enumerate(NAMES))
    root.stride = torch.tensor([8.0, 16.0, 32.0])
    root.task = "detect"
    root.args = _stand_in("vajra.utils", "IterableSimpleNamespace")()
    for name, value in attributes.items():
        setattr(root, name, value)
    return root


_CLASSES: dict[str, type] = {}


def _stand_in(module: str, name: str) -> type:
    import torch

    full = f"{module}.{name}"
    if full not in _CLASSES:
        _CLASSES[full] = type(name, (torch.nn.Module,), {"__module__": module, "__qualname__": name})
    return _CLASSES[full]


@contextmanager
def upstream_classes() -> Iterator[None]:
    """Makes pickle find the stand-in classes under upstream's module names while a checkpoint is saved."""
    made = {}
    for full, kind in _CLASSES.items():
        parts = full.split(".")[:-1]
        for depth in range(1, len(parts) + 1):
            name = ".".join(parts[:depth])
            made.setdefault(name, types.ModuleType(name))
        setattr(made[".".join(parts)], kind.__name__, kind)
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


def save(content: Any, path: Path, **options: Any) -> Path:
    """``torch.save`` with upstream's class names."""
    import torch

    with upstream_classes():
        torch.save(content, path, **options)
    return path


def archive(program: bytes, storages: Mapping[str, bytes] | None = None) -> bytes:
    """A sound container around any pickle program."""
    records = {"data.pkl": program, "byteorder": b"little", "version": b"3\n"}
    records |= {f"data/{key}": content for key, content in (storages or {}).items()}
    return zipped({f"{FOLDER}/{name}": content for name, content in records.items()})


def zipped(records: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Any records under any names."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as container:
        for name, content in records.items():
            container.writestr(zipfile.ZipInfo(name), content, compression)
    return file.getvalue()


class Calls:
    """Pickles as a call of ``function`` with ``arguments``: what an attacker's object does."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


def calling(function: Any, *arguments: Any, protocol: int = 2) -> bytes:
    """The pickle program of such a call."""
    return pickle.dumps(Calls(function, *arguments), protocol)
