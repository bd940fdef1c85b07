"""Milliseconds a frame of the frame path, ours and the peer's, on one clip with equal threads, in turns of a second.

    PYTHONPATH=. .venv/bin/python tests/bench/peer_stream.py PEER_PYTHON WEIGHTS.onnx CLIP [ROUNDS]

Ours is what ``vajra-edge bench`` measures: capture, letterbox, inference with NMS, decode, encode. The peer's is
``predict(stream=True)``, which encodes nothing. Both use ONNX Runtime on all CPUs and stay loaded; one waits while the
other has its turn. Short turns meet a shared machine in the same mood; medians are of their quotients.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median

from vajra_edge.benchmark.contender import bare_ms
from vajra_edge.benchmark.meter import Meter
from vajra_edge.benchmark.record import Record
from vajra_edge.benchmark.scenes import SourceScene, Taken
from vajra_edge.cli import bench, bench_plans

HERE = Path(__file__).resolve().parent
TURN_S = 1.5
FRAMES = 12


def main(peer_python: str, weights: str, clip: str, rounds: str = "20") -> None:
    with ExitStack() as stack:
        settings = bench._settings(bench.Asked(source=clip, weights=Path(weights)), stack)
        ours = stack.enter_context(bench_plans.of_settings(settings))
        camera, meter = settings.cameras[0], Meter(None)
        scene = SourceScene(camera, settings.service.batch_wait_ms / 1e3, Taken((), (), None))
        stack.callback(scene.close)
        record = Record(meter)
        command = [peer_python, str(HERE / "peer_child.py"), "stream", weights, clip]
        peer = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        stack.callback(peer.terminate)

        def peers_ms() -> float:
            peer.stdin.write(f"{FRAMES}\n")
            peer.stdin.flush()
            return float(peer.stdout.readline()) / FRAMES * 1e3

        peers_ms()
        scene.turn(ours, meter, TURN_S)
        turns = []
        for _ in range(int(rounds)):
            alone_ms = bare_ms(ours.detector, 1, TURN_S / 2)
            record.add(alone_ms, scene.turn(ours, meter, TURN_S), alone_ms)
            turns.append((mean(alone_ms), record.turns[-1].frame_ms, peers_ms()))
        figures = {
            "ours_ms": round(median(mine for _, mine, _ in turns), 1),
            "peer_ms": round(median(theirs for _, _, theirs in turns), 1),
            "bare_ms": round(median(bare for bare, _, _ in turns), 1),
            "peer_over_ours": round(median(theirs / mine for _, mine, theirs in turns), 3),
            "ours_over_bare": round(median(mine / bare for bare, mine, _ in turns), 3),
            "rounds": len(turns),
        }
        print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
