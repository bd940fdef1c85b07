"""Frames a second of predict with save, ours and the peer's: peer_video.py PEER_PYTHON WEIGHTS.onnx CLIP FOLDER

Both read the clip, run the network on the CPU and write an annotated video; loading and warming up is not counted.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from peer_boxes import ask

from vajra_edge import Vajra


def main(peer_python: str, weights: str, clip: str, folder: str) -> None:
    weights, clip = str(Path(weights).resolve()), str(Path(clip).resolve())
    peers = ask(peer_python, "video", weights, clip, folder)
    os.chdir(folder)
    with Vajra(weights) as network:
        next(iter(network.predict(clip, stream=True)))
        began_s = time.perf_counter()
        frames = sum(1 for _ in network.predict(clip, save=True, stream=True))
        took_s = time.perf_counter() - began_s
    print(f"ours: {frames} frames, {frames / took_s:.1f} a second")
    print(f"peer: {peers['frames']} frames, {peers['frames'] / peers['seconds']:.1f} a second")


if __name__ == "__main__":
    main(*sys.argv[1:5])
