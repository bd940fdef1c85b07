"""Our predict and the peer's, box for box: python tests/bench/peer_boxes.py PEER_PYTHON WEIGHTS.onnx IMAGE...

Fails unless every box of either has a partner of its class with IoU >= 0.99 and a score within 0.005.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from vajra_edge import Vajra
from vajra_edge.geometry.boxes import iou


def ask(peer_python: str, *arguments: str) -> object:
    """The JSON on the last line of the peer's stdout."""
    child = str(Path(__file__).with_name("peer_child.py"))
    done = subprocess.run([peer_python, child, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main(peer_python: str, weights: str, images: list[str]) -> int:
    peers = ask(peer_python, "predict", weights, *images)
    wrong = 0
    for one in Vajra(weights).predict(images):
        theirs = np.array(peers[Path(one.path).name], np.float32).reshape(-1, 6)
        overlap = iou(one.xyxy, theirs[:, :4]) * (one.class_id[:, None] == theirs[:, 5])
        score = np.abs(one.confidence[:, None] - theirs[:, 4])
        partner = overlap.argmax(axis=1) if overlap.size else np.zeros(0, int)
        pairs = np.arange(len(one)), partner
        matched = len(set(partner)) == len(one) == len(theirs)
        worst_iou = float(overlap[pairs].min(initial=1.0))
        worst_score = float(score[pairs].max(initial=0.0))
        right = matched and worst_iou >= 0.99 and worst_score <= 0.005
        wrong += not right
        print(
            f"{Path(one.path).name}: {len(one)} boxes, peer {len(theirs)}; worst IoU {worst_iou:.6f}, "
            f"worst score difference {worst_score:.2e}: {'match' if right else 'DIFFER'}"
        )
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
