from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import pytest
import tiny


@dataclass(frozen=True)
class Place:
    """A settings file with a tiny real network and a folder of pictures, and no daemon."""

    folder: Path
    config: Path
    weights: Path
    pictures: Path


@pytest.fixture
def place(tmp_path):
    weights, pictures = tmp_path / "tiny.onnx", tmp_path / "pictures"
    weights.write_bytes(tiny.network())
    pictures.mkdir()
    for number in range(3):
        cv2.imwrite(str(pictures / f"{number}.png"), tiny.scene(seed=number).image)
    config = tmp_path / "config.toml"
    config.write_text(
        f"""
[weights]
path = "{weights}"
[[cameras]]
id = "yard"
source = "{pictures}"
fps = 50.0
loop = true
[mqtt]
host = "127.0.0.1"
port = 9
[store]
state_dir = "{tmp_path / "state"}"
[service]
control_socket = "{tmp_path / "s"}"
threads = 1
""",
        encoding="utf-8",
    )
    return Place(tmp_path, config, weights, pictures)
