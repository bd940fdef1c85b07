"""Frames a second of the frame path, ours and the peer's, on one clip with equal threads, in turns.

    PYTHONPATH=. .venv/bin/python tests/bench/peer_stream.py PEER_PYTHON WEIGHTS.onnx CLIP [ROUNDS]

Ours is ``vajra-edge bench``: capture, letterbox, inference with NMS, decode, encode, publish to a broker. The peer's is
``predict(stream=True)``, which publishes nothing. Both use ONNX Runtime on all CPUs. Medians of the rounds are printed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median

from peer_boxes import ask


def ours(weights: str, clip: str) -> dict:
    command = [sys.executable, "-m", "vajra_edge", "bench", "--seconds", "12", "--json"]
    done = subprocess.run(
        [*command, "--weights", weights, "--source", clip], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def main(peer_python: str, weights: str, clip: str, rounds: str = "3") -> None:
    mine, theirs = [], []
    for _ in range(int(rounds)):
        mine.append(ours(weights, clip))
        answer = ask(peer_python, "stream", weights, clip)
        theirs.append(answer["frames"] / answer["seconds"])
        print(json.dumps({"ours": mine[-1], "peer_frames_per_s": round(theirs[-1], 2)}))
    rate = median(figures["frames_per_s"] for figures in mine)
    ratio = median(figures["ratio"] for figures in mine)
    peer = median(theirs)
    print(f"ours {rate:.2f} frames/s (ratio {ratio:.3f}), peer {peer:.2f} frames/s: {rate / peer:.2f} times")


if __name__ == "__main__":
    main(*sys.argv[1:])
