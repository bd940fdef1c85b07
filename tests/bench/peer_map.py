"""Our val and pycocotools on the peer's own detections: peer_map.py PEER_PYTHON WEIGHTS.onnx DATA.yaml

Fails unless mAP50-95 and mAP50 agree within 0.003.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from peer_boxes import ask

from vajra_edge import Vajra
from vajra_edge.datasets.dataset import open_dataset
from vajra_edge.tasks import val
from vajra_edge.types import Detections


def main(peer_python: str, weights: str, data: str) -> int:
    network = Vajra(weights)
    ours = network.val(data)
    pictures = open_dataset(Path(data))
    peers = ask(peer_python, "val", weights, *(str(entry.path) for entry in pictures.entries))
    truths = [picture.truth for picture in pictures]
    found = []
    for entry in pictures.entries:
        boxes = np.array(peers["found"][entry.path.name], np.float32).reshape(-1, 6)
        found.append(Detections(boxes[:, :4], boxes[:, 4], boxes[:, 5].astype(np.int32)))
    theirs = val.score(truths, found, list(network.names.values()))
    print(f"ours: mAP50-95 {ours.map50_95:.5f}, mAP50 {ours.map50:.5f}")
    print(f"peer: mAP50-95 {theirs.map50_95:.5f}, mAP50 {theirs.map50:.5f} (its detections, pycocotools)")
    print(f"peer: mAP50-95 {peers['map']:.5f}, mAP50 {peers['map50']:.5f} (its own figures, by its own formula)")
    worst = max(abs(ours.map50_95 - theirs.map50_95), abs(ours.map50 - theirs.map50))
    print(f"largest difference {worst:.5f}")
    return int(worst > 0.003)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
