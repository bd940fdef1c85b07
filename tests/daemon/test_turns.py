"""The supervisor's turns: a look at everything when it is due, however much waits, and one document for all who ask."""

from __future__ import annotations

import itertools
from collections import Counter
from types import SimpleNamespace

import orjson
import pytest

from vajra_edge.config.settings import Settings
from vajra_edge.daemon import supervisor as module
from vajra_edge.daemon.control.server import Asked
from vajra_edge.daemon.events import BuildFailed, Job
from vajra_edge.daemon.supervisor import TICK_S, Supervisor

EACH_S = 0.005
"""What each event takes."""


class Flood:
    """An inbox that is never empty, the clock that its events move, and whoever is answered."""

    def __init__(self, *events) -> None:
        self.now_s, self.events, self.given = 100.0, events, 0
        self.answers = []

    def __call__(self) -> float:
        return self.now_s

    def get(self, _timeout_s):
        self.now_s += EACH_S
        self.given += 1
        return self.events[self.given % len(self.events)]

    def reply(self, _client, content, *, last=True):
        assert last
        self.answers.append(content)


@pytest.fixture
def flooded(monkeypatch):
    """A supervisor without parts, what it counts, and the flood."""

    def make(*events):
        flood, counted = Flood(*events), Counter()
        nothing = dict.fromkeys(("desired_plans", "images", "background"))
        parts = SimpleNamespace(inbox=flood, control=flood, overrides=SimpleNamespace(kept={}), **nothing)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=flood))
        supervised = Supervisor(parts, Settings(weights={"path": "w.onnx"}, cameras=[]), None)
        ticks = []
        monkeypatch.setattr(supervised, "_tick", ticks.append)

        def status():
            counted["documents"] += 1
            return SimpleNamespace(to_json=lambda: {"number": counted["documents"]})

        monkeypatch.setattr(supervised, "status", status)
        return supervised, ticks, counted, flood

    return make


def test_ticks_keep_their_time_while_requests_never_end(flooded):
    supervised, ticks, counted, flood = flooded(Asked(1, "status", {}))
    for _ in range(4000):
        supervised._turn()
    gaps = [after - before for before, after in itertools.pairwise(ticks)]
    assert len(ticks) == pytest.approx(4000 * EACH_S / TICK_S, abs=1)
    assert max(gaps) <= TICK_S + 2 * EACH_S
    assert len(flood.answers) == 4000
    assert counted["documents"] == len(ticks), "one document a tick, for all who ask"
    told = [orjson.loads(orjson.dumps(answer)) for answer in flood.answers]
    assert told[0] == {"kind": "done", "status": {"number": 1}}
    assert told[-1]["status"]["number"] == counted["documents"]


def test_what_happens_is_seen_by_who_asks_next(flooded):
    late_news = BuildFailed(Job(9, "f"), "of a build that nobody waits for", permanent=False, now_s=0.0)
    supervised, ticks, counted, flood = flooded(Asked(1, "status", {}), late_news)
    supervised._parts.history = None
    supervised._parts.adoption = SimpleNamespace(heard=lambda *_: None)
    supervised._parts.recorder = SimpleNamespace(advanced=lambda *_: None)
    supervised._parts.serving = SimpleNamespace(compared=dict)
    for _ in range(20):
        supervised._turn()
    assert len(ticks) == 1
    assert counted["documents"] == len(flood.answers) == 10
