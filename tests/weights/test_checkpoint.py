"""What upstream, and people, write into .pt files is read; what it is not is refused by name."""

from __future__ import annotations

import collections
import hashlib
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import NAMES, as_upstream, random_network, save, stripped

from vajra_edge.errors import UnsafeWeights, WeightsError
from vajra_edge.weights import archive, checkpoint


@pytest.fixture(scope="module")
def network(torch: Any) -> Any:
    return random_network()


@pytest.fixture(scope="module")
def state_dict(network: Any) -> dict[str, Any]:
    return dict(network.state_dict())


def same(torch: Any, found: checkpoint.Checkpoint, expected: dict[str, Any]) -> bool:
    return list(found.tensors) == list(expected) and all(
        torch.equal(found.tensors[name].float(), value.float()) for name, value in expected.items()
    )


def test_a_stripped_checkpoint_gives_tensors_and_words(torch: Any, state_dict: Any, tmp_path: Path) -> None:
    path = save(stripped(random_network()), tmp_path / "x.pt")
    found = checkpoint.load(path)
    assert same(torch, found, {name: value.half() for name, value in state_dict.items()})
    assert found.tensors["model.0.stem1.conv.weight"].dtype == torch.float16
    assert (found.class_names, found.stride, found.task, found.size) == (NAMES, 32, "detect", "nano")
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.resolution_hw == (416, 416)
    with pytest.raises(TypeError):
        found.tensors["x"] = 1  # type: ignore[index]


def test_an_unstripped_checkpoint_gives_its_ema(torch: Any, tmp_path: Path) -> None:
    trained, averaged = random_network(seed=1), random_network(seed=2)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=0.1, momentum=0.9)
    content = {
        "epoch": 7,
        "best_fitness": np.float64(0.25),
        "model": as_upstream(trained),
        "ema": as_upstream(averaged).half(),
        "updates": 11,
        "optimizer": optimizer.state_dict(),
        "train_args": {"img_size": [384, 640], "save_dir": Path("/runs/detect")},
    }
    found = checkpoint.load(save(content, tmp_path / "last.pt"))
    assert same(torch, found, {name: value.half() for name, value in averaged.state_dict().items()})
    assert found.resolution_hw == (384, 640)


@pytest.mark.parametrize("prefix", ["model.", "module.model.", "", "ema.model."])
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_a_bare_state_dict_is_read_whatever_wrapped_it(
    torch: Any, state_dict: Any, tmp_path: Path, prefix: str, key: str | None
) -> None:
    renamed = collections.OrderedDict(
        (prefix + name.removeprefix("model."), value) for name, value in state_dict.items()
    )
    torch.save(renamed if key is None else {key: renamed}, tmp_path / "x.pt")
    found = checkpoint.load(tmp_path / "x.pt")
    assert same(torch, found, state_dict)
    assert found.class_names == ("class0", "class1", "class2")
    assert found.resolution_hw is None


def test_a_pickled_module_alone_is_read(torch: Any, state_dict: Any, tmp_path: Path) -> None:
    found = checkpoint.load(save(as_upstream(random_network()), tmp_path / "x.pt"))
    assert same(torch, found, state_dict)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b", "c"], ("a", "b", "c")),
        ({0: "a", 2: "c\n\x1b[31m"}, ("a", "class1", "c[31m")),
        ({0: 1, 1: "b" * 500, 2: "c"}, ("class0", "b" * 100, "c")),
        ("abc", ("class0", "class1", "class2")),
    ],
)
def test_class_names_are_one_printable_name_a_class(
    torch: Any, tmp_path: Path, names: object, expected: tuple[str, ...]
) -> None:
    assert checkpoint.load(save(stripped(random_network(), names=names), tmp_path / "x.pt")).class_names == expected


def test_another_digest_than_the_pinned_one_is_refused(torch: Any, network: Any, tmp_path: Path) -> None:
    path = save(stripped(random_network()), tmp_path / "x.pt")
    assert checkpoint.load(path, hashlib.sha256(path.read_bytes()).hexdigest().upper()).size == "nano"
    with pytest.raises(UnsafeWeights, match=r"have the SHA-256 [0-9a-f]{64}, not 0{64}"):
        checkpoint.load(path, "0" * 64)


@pytest.mark.parametrize(
    ("task", "branch"),
    [
        ("segment", "branch_seg.0.0.conv.weight"),
        ("pose", "branch_pose_detect.0.2.bias"),
        ("obb", "oriented_branch.0.2.bias"),
    ],
)
def test_another_task_is_refused_by_name(torch: Any, state_dict: Any, tmp_path: Path, task: str, branch: str) -> None:
    torch.save({**state_dict, f"model.1.{branch}": torch.zeros(1)}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=f"for the task '{task}'; vajra-edge supports detection weights only"):
        checkpoint.load(tmp_path / "x.pt")


def test_a_classifier_is_refused_by_name(torch: Any, state_dict: Any, tmp_path: Path) -> None:
    body = {name: value for name, value in state_dict.items() if name.startswith("model.0.")}
    torch.save({**body, "model.1.linear.weight": torch.zeros(1000, 256)}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="for the task 'classify'"):
        checkpoint.load(tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="for the task 'classify'"):
        checkpoint.load(save(stripped(random_network(), task="classify"), tmp_path / "y.pt"))


def test_a_foreign_yolo_is_refused_with_the_way_out(torch: Any, shared_data: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"are not VajraV1: they hold ultralytics\..*export them to ONNX with their own"
    ):
        checkpoint.load(shared_data / "models" / "LeYOLONano.pt")


def test_a_real_checkpoint_of_upstream_is_read(torch: Any, shared_data: Path) -> None:
    for name in ("vajra-v1-nano-det-cctv.pt", "vajra-v1-nano-det-cctv-run1.pt"):
        found = checkpoint.load(shared_data / "models" / name)
        assert (found.size, found.stride, len(found.class_names), found.class_names[0]) == ("nano", 32, 80, "person")
        assert (len(found.tensors), found.resolution_hw) == (775, (640, 640))


@pytest.mark.parametrize("version", ["2.5.0a0+872d972e41.nv24.08", "1.13.1", "2.9.1+cpu", "unknown"])
def test_a_torch_that_is_too_old_is_refused_with_the_reason(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(WeightsError, match=r"too old.*CVE-2025-32434, CVE-2026-24747.*\[weights\] python"):
        checkpoint.load(tmp_path / "x.pt")


def test_no_torch_is_said_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(WeightsError, match=r"needs torch >= 2\.10, which this Python lacks.*set \[weights\] python"):
        checkpoint.load(tmp_path / "x.pt")


def test_what_is_no_readable_file_is_refused(torch: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, reason in (
        ("absent", "No such file"),
        (".", "not a regular file"),
        ("fifo", "not a regular file"),
        ("a\0", "null"),
    ):
        with pytest.raises(WeightsError, match=reason):
            checkpoint.load(tmp_path / name)


def test_a_file_beyond_two_gigabytes_is_refused_unread(torch: Any, tmp_path: Path) -> None:
    with (tmp_path / "x.pt").open("wb") as file:
        file.truncate(archive.MAX_FILE_BYTES + 1)
    with pytest.raises(WeightsError, match="more than 2147483648"):
        checkpoint.load(tmp_path / "x.pt")


def test_a_file_that_changes_while_it_is_read_is_refused(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(stripped(random_network()), tmp_path / "x.pt")
    content, load = path.read_bytes(), torch.load

    def overwrite_then_load(*arguments: Any, **options: Any) -> Any:
        writer = threading.Thread(target=lambda: path.write_bytes(content + b"x"))
        writer.start()
        writer.join()
        return load(*arguments, **options)

    monkeypatch.setattr(torch, "load", overwrite_then_load)
    with pytest.raises(WeightsError, match=r"written to while it was read|refused by torch"):
        checkpoint.load(path)
